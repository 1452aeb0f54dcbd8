#include "tp_voice.h"

#include "tp_level.h"
#include "tp_voice_kernels.h"

enum {
    FRAME = 160,              /* of 8 kHz */
    DB = 85,                  /* levels are 256 times the binary logarithm of a power: 1 dB, near enough */
    PIECE_FRAMES = 10,
    SMOOTH_SHIFT = 2,
    NEVER = 1 << 20,
    LEAST_FLOOR = 4480,       /* of an octave, -60 dBov: what lies below is no noise that anybody hears */
    MOST_SNR = 24 * DB,       /* of one octave: no single one makes it speech */
    ENERGY_SHIFT = 6,         /* 80 squares of 13 bits fit a word */
    LOUD = 400,               /* of the score: counts for speech */
    KEEPS = 250,              /* and what keeps it going */
    WORTH_A_LOOK = 300,       /* from here on it is asked whether it repeats itself */
    FIRST_FLOOR = 5300,       /* of an octave, -50 dBov: louder at first is taken for speech rather than for the line's noise */
    LAG_LEAST = 6,            /* at 2 kHz: 3 ms, 333 Hz; lower voices' harmonics repeat at it as well */
    LAG_MOST = 40,
    PAST = TP_VOICE_PAST_FRAMES * FRAME / 4,
    WINDOW = PAST - LAG_MOST,
    REPEATS_VOICED = 128,
    LEAK = 3 * 256,           /* what lies below 250 Hz is heard at most so much softer in the octave above, to 80 Hz */
    LEAK_STEP = 2 * 256,      /* and so much softer in each further one */
    HOLDS_FRAMES = 3,         /* without audio before it counts against whoever spoke */
    LENGTH_MOST_MS = 10000
};

/* How far the least of the smoothed levels of 1.6 s lies below the mean, by octave: fewer degrees of freedom, farther. */
static const int32_t bias[TP_VOICE_OCTAVES] = {110, 160, 220, 300};
/* What an octave's distance from its floor is worth. */
static const int32_t weight[TP_VOICE_OCTAVES] = {2, 3, 4, 4};
enum { WEIGHTS = 2 + 3 + 4 + 4 };

int tp_voice_init(tp_voice *voice, const tp_voice_config *config) {
    if (config->rate_hz != 8000 && config->rate_hz != 16000) return TP_E_ARGUMENT;
    if (config->onset_ms == 0 || config->onset_ms > LENGTH_MOST_MS || config->hangover_ms > LENGTH_MOST_MS) return TP_E_ARGUMENT;
    if (config->margin_x100 < -6000 || config->margin_x100 > 6000) return TP_E_ARGUMENT;
    voice->config = *config;
    tp_voice_reset(voice);
    return TP_OK;
}

void tp_voice_reset(tp_voice *voice) {
    const tp_voice_config config = voice->config;
    memset(voice, 0, sizeof *voice);
    voice->config = config;
    for (uint32_t i = 0; i < TP_VOICE_OCTAVES; i++) {
        for (uint32_t k = 0; k < TP_VOICE_PIECES; k++) voice->pieces[k][i] = NEVER;
        voice->least[i] = voice->pieces[0][i] = FIRST_FLOOR;
    }
}

/* 256 log2(x), rounded down somewhere: at most 1/8 dB off, and never out of order. */
static int32_t log2_x256(uint64_t x) {
    if (x == 0) return 0;
    uint32_t zeros = (uint32_t)__builtin_clzll(x);
    uint32_t part = (uint32_t)(x << zeros >> 55) & 255u;
    return (int32_t)((63u - zeros) * 256u + part + (part * (256u - part) * 88u >> 16));
}

/* Two neighbours as one word: what gcc makes a vector of. Which of the two comes first changes only a sign. */
typedef uint32_t __attribute__((may_alias, aligned(2))) neighbours;

#define TP_LEVEL base
#define TP_TARGET
#include "tp_voice_body.inc"

#if TP_SIMD_HAS_AVX2
#define TP_LEVEL avx2
#define TP_TARGET __attribute__((target("avx2")))
#include "tp_voice_body.inc"
#endif

static void follow_floor(tp_voice *v, const int32_t *level) {
    if (v->in_piece == PIECE_FRAMES) {
        v->in_piece = 0;
        v->piece = (v->piece + 1) % TP_VOICE_PIECES;
        for (uint32_t i = 0; i < TP_VOICE_OCTAVES; i++) {
            v->pieces[v->piece][i] = NEVER;
            v->least[i] = NEVER;
            for (uint32_t k = 0; k < TP_VOICE_PIECES; k++) {
                if (v->pieces[k][i] < v->least[i]) v->least[i] = v->pieces[k][i];
            }
        }
    }
    v->in_piece++;
    int32_t *piece = v->pieces[v->piece];
    for (uint32_t i = 0; i < TP_VOICE_OCTAVES; i++) {
        int32_t smooth = v->smooth[i] + ((level[i] - v->smooth[i]) >> SMOOTH_SHIFT);
        v->smooth[i] = smooth;
        piece[i] = smooth < piece[i] ? smooth : piece[i];
        v->least[i] = smooth < v->least[i] ? smooth : v->least[i];
    }
}

static void judge(tp_voice *v, bool voiced) {
    int32_t onset = (int32_t)v->config.onset_ms, all_but = onset - TP_VOICE_FRAME_MS / 2;
    if (voiced) {
        v->evidence += TP_VOICE_FRAME_MS;
        if (v->evidence > onset) v->evidence = onset;
    } else if (v->score >= LOUD) {
        int32_t most = v->evidence > all_but ? v->evidence : all_but;
        v->evidence += TP_VOICE_FRAME_MS / 2;
        if (v->evidence > most) v->evidence = most;
    } else {
        v->evidence = v->evidence > TP_VOICE_FRAME_MS / 2 ? v->evidence - TP_VOICE_FRAME_MS / 2 : 0;
    }
    switch (v->state) {
    case TP_VOICE_QUIET:
        if (v->evidence == 0) break;
        v->state = TP_VOICE_ONSET;
        v->n_onsets++;
        /* fall through */
    case TP_VOICE_ONSET:
        if (v->evidence >= onset) {
            v->state = TP_VOICE_SPEECH;
        } else if (v->evidence == 0) {
            v->state = TP_VOICE_QUIET;
        }
        break;
    default:
        if (voiced || v->score >= KEEPS) {
            v->state = TP_VOICE_SPEECH;
        } else if (v->state == TP_VOICE_SPEECH) {
            v->state = TP_VOICE_HANGOVER;
            v->hangover_left = v->config.hangover_ms;
        }
    }
    if (v->state == TP_VOICE_HANGOVER) {
        if (v->hangover_left < TP_VOICE_FRAME_MS) {
            v->state = TP_VOICE_QUIET;
            v->evidence = 0;
        } else {
            v->hangover_left -= TP_VOICE_FRAME_MS;
        }
    }
}

static void take_frame(tp_voice *v, const int16_t *in) {
    v->newest = v->newest + 1 < TP_VOICE_PAST_FRAMES ? v->newest + 1 : 0;
    tp_voice_past *past = &v->past[v->newest];
    uint64_t energy[TP_VOICE_OCTAVES], below;
    tp_simd_kernels()->voice_octaves(past, energy, &below, in);
    int32_t leak = log2_x256(below) - LEAK;
    v->energy = energy[0] + energy[1] + energy[2] + energy[3];
    v->missing = v->missing_frames = 0;
    int32_t level[TP_VOICE_OCTAVES];
    for (uint32_t i = 0; i < TP_VOICE_OCTAVES; i++) {
        level[i] = log2_x256(energy[i]);
        if (level[i] < LEAST_FLOOR) level[i] = LEAST_FLOOR;
    }
    if (v->n_frames == 0) memcpy(v->smooth, level, sizeof v->smooth);
    follow_floor(v, level);
    int32_t sum = 0, margin = v->config.margin_x100 * DB / 100;
    for (uint32_t i = 0; i < TP_VOICE_OCTAVES; i++) {
        int32_t base = v->least[i] + bias[i], hum = leak - LEAK_STEP * (3 - (int32_t)i);
        int32_t above = level[i] - (base > hum ? base : hum) - margin;
        if (above < 0) above = 0;
        if (above > MOST_SNR) above = MOST_SNR;
        sum += weight[i] * above;
    }
    v->score = sum / WEIGHTS;
    v->repeats = v->score >= WORTH_A_LOOK ? tp_simd_kernels()->voice_repeats(v) : 0;
    judge(v, v->repeats >= REPEATS_VOICED);
    v->n_frames++;
}

int tp_voice_receive(tp_voice *voice, const int16_t *in, size_t n) {
    size_t whole = voice->config.rate_hz / 50;
    while (n != 0) {
        const int16_t *frame = in;
        size_t k = whole;
        if (voice->n_waiting != 0 || n < whole) {
            k = whole - voice->n_waiting < n ? whole - voice->n_waiting : n;
            memcpy(voice->waiting + voice->n_waiting, in, k * sizeof *in);
            voice->n_waiting += (uint32_t)k;
            if (voice->n_waiting < whole) return voice->state;
            voice->n_waiting = 0;
            frame = voice->waiting;
        }
        if (whole == FRAME) {
            take_frame(voice, frame);
        } else {
            int16_t half[FRAME];
            for (size_t i = 0; i < FRAME; i++) half[i] = (int16_t)(((int32_t)frame[2 * i] + frame[2 * i + 1]) >> 1);
            take_frame(voice, half);
        }
        in += k;
        n -= k;
    }
    return voice->state;
}

int tp_voice_fillin(tp_voice *voice, size_t n) {
    uint32_t whole = voice->config.rate_hz / 50;
    if (n != 0) voice->n_waiting = 0;
    for (; n != 0 && (voice->state != TP_VOICE_QUIET || voice->evidence != 0); n--) {
        if (++voice->missing < whole) continue;
        voice->missing = 0;
        if (voice->missing_frames < HOLDS_FRAMES) {
            voice->missing_frames++;
            continue;
        }
        voice->score = 0;
        judge(voice, false);
    }
    return voice->state;
}

/* 2^(x / 256), the inverse of log2_x256 to a hundredth. */
static uint64_t exp2_x256(int32_t x) {
    uint32_t whole = (uint32_t)x >> 8, part = (uint32_t)x & 255u;
    uint64_t mantissa = 65536u + part * 256u - (part * (256u - part) * 87u >> 8);
    return whole >= 16 ? mantissa << (whole - 16) : mantissa >> (16 - whole);
}

void tp_voice_measure(const tp_voice *voice, tp_voice_figures *out) {
    uint64_t noise = 0;
    for (uint32_t i = 0; i < TP_VOICE_OCTAVES; i++) noise += exp2_x256(voice->least[i] + bias[i]);
    out->level_x100 = tp_level_dbov_x100(voice->energy, voice->n_frames != 0 ? FRAME : 0);
    out->floor_x100 = tp_level_dbov_x100(noise, FRAME);
    out->snr_x100 = out->level_x100 > out->floor_x100 ? out->level_x100 - out->floor_x100 : 0;
}
