#include "tp_plc.h"

#include "tp_level.h"

/* Lengths are samples at 8 kHz; times `scale` (1 or 2) at the real rate. Loops run over whole blocks of constant length,
 * which become vectors without any choice of instruction set; arrays have a block of room behind what is used. */
enum {
    BLOCK = 16,
    LANES = 8,
    LAG_MIN = 20,        /* 400 Hz */
    LAG_MAX = 131,       /* 61 Hz */
    WINDOW = 48,         /* what is compared: the 6 ms beside the gap. Longer ones find a period that is past */
    COARSE_WINDOW = 24,
    COARSE_LAGS = 56,    /* from 10 to 65 */
    KEPT = 192,          /* history: the longest lag and its window, or the longest period and its seam */
    FOLLOWING_MAX = 192,
    REPEATED_LEAST = 40, /* shorter periods that are not clear are repeated together */
    OF_ITS_OWN = 128,    /* following: what shows a period */
    HOLD = 40,           /* full level for 5 ms */
    SILENT = 640,        /* nothing left at 80 ms */
    STEP_FADE = 8
};
static const float CLEAR = 0.5f;                   /* likeness (squared) of what is surely voiced */
static const float LONGER_IS_WORSE = 0.1f / 66.0f; /* of likeness, a coarse lag: several periods are as alike as one */
/* How a gap is closed: towards the side that is more alike, towards what follows when much is made up already, and
 * weaker in the middle the less the two sides are of one level. */
static const float TRUST = 0.6f, LATE = 0.8f, LEAN_MOST = 0.9f, DIP = 0.3f, GAIN_MOST = 1.5f;

_Static_assert(KEPT * 2 <= TP_PLC_MAX_HISTORY && KEPT >= LAG_MAX + WINDOW && KEPT % BLOCK == 0, "a search must fit");
_Static_assert(LAG_MAX * 5 / 4 <= KEPT && (LAG_MAX + 1) * 2 + BLOCK <= TP_PLC_MAX_LOOP, "a loop and its seam must fit");
_Static_assert(FOLLOWING_MAX <= KEPT, "one buffer serves both sides");

static inline int32_t clamp(int32_t x, int32_t low, int32_t high) {
    x = x < high ? x : high;
    return x > low ? x : low;
}

/* To the nearest, ties to even: adding 1.5 * 2^23 leaves the integer in the low bits. */
static inline int16_t round16(float x) {
    union {
        float value;
        uint32_t bits;
    } shifted = {.value = x + 12582912.0f};
    return (int16_t)shifted.bits;
}

/* A vector of samples, saturated and rounded; x is spoilt. One bound a loop, or it stays scalar. */
static inline void round_lanes(int16_t *out, float *x) {
    for (int k = 0; k < LANES; k++) x[k] = x[k] < 32767.0f ? x[k] : 32767.0f;
    for (int k = 0; k < LANES; k++) x[k] = x[k] > -32768.0f ? x[k] : -32768.0f;
    for (int k = 0; k < LANES; k++) out[k] = round16(x[k]);
}

static inline int32_t dot_coarse(const int16_t *a, const int16_t *b) {
    int32_t sum = 0;
#pragma GCC unroll 3
    for (int i = 0; i < COARSE_WINDOW; i++) sum += a[i] * b[i];
    return sum;
}

static inline int32_t dot_window(const int16_t *a, const int16_t *b, int scale) {
    int32_t sum = 0;
    for (int i = 0; i < WINDOW; i++) sum += a[i] * b[i];
    if (scale == 2)
        for (int i = WINDOW; i < 2 * WINDOW; i++) sum += a[i] * b[i];
    return sum;
}

/* x (n, whole blocks) made small enough that no sum below can leave 32 bits: itself, or in `room` times a power of two. */
static const int16_t *scale_down(int16_t *room, const int16_t *x, int n, int scale) {
    int16_t bits[BLOCK] = {0};
    for (int i = 0; i < n; i += BLOCK) {
        const int16_t *from = x + i;
        for (int k = 0; k < BLOCK; k++) bits[k] = (int16_t)(bits[k] | (from[k] ^ (from[k] < 0 ? -1 : 0)));
    }
    int peak = 0, shift = 0;
    for (int k = 0; k < BLOCK; k++) peak |= bits[k];
    while (peak >> shift >= 4096 / scale) shift++;
    if (shift == 0) return x;
    const int16_t factor = (int16_t)(1 << (16 - shift));
    for (int i = 0; i < n; i += BLOCK) {
        const int16_t *from = x + i;
        int16_t to[BLOCK];
        for (int k = 0; k < BLOCK; k++) to[k] = (int16_t)(from[k] * factor >> 16);
        memcpy(room + i, to, sizeof to);
    }
    return room;
}

/* Sums of two: half the rate. n is whole blocks; in place if need be. */
static void halve(int16_t *out, const int16_t *x, int n) {
    for (int i = 0; i < n; i += BLOCK) {
        const int16_t *from = x + i;
        int16_t sums[BLOCK / 2];
        for (int k = 0; k < BLOCK / 2; k++) sums[k] = (int16_t)(from[2 * k] + from[2 * k + 1]);
        memcpy(out + i / 2, sums, sizeof sums);
    }
}

/* Normalised cross-correlation with its sign kept: -1..1, squared. */
static inline float likeness(float cross, float energy_a, float energy_b) {
    return cross * (cross < 0.0f ? -cross : cross) / ((energy_a + 1.0f) * (energy_b + 1.0f));
}

/* The lag at which the window beside the gap most resembles what lies further from the gap: the last samples of x
 * (n of them, whole blocks), or with `mirrored` the first. -> 0 where n is too short for any */
static int find_period(const int16_t *x, int n, bool mirrored, int scale, float *quality) {
    int16_t room[KEPT * 2], coarse[KEPT];
    const int by = 2 * scale, n_coarse = n / by, way = mirrored ? 1 : -1;
    int n_lags = n_coarse - COARSE_WINDOW - LAG_MIN / 2 + 1;
    if (n_lags <= 0) return 0;
    if (n_lags > COARSE_LAGS) n_lags = COARSE_LAGS;
    const int16_t *down = scale_down(room, x, n, scale);
    halve(coarse, down, n);
    if (scale == 2) halve(coarse, coarse, n / 2);

    int32_t cross[COARSE_LAGS], energy[COARSE_LAGS];
    const int16_t *beside = mirrored ? coarse : coarse + n_coarse - COARSE_WINDOW, *other = beside + way * (LAG_MIN / 2);
    const float own = (float)dot_coarse(beside, beside);
    int32_t of_other = dot_coarse(other, other);
    for (int i = 0;; other += way) {
        cross[i] = dot_coarse(beside, other);
        energy[i] = of_other;
        if (++i == n_lags) break;
        const int comes = mirrored ? other[COARSE_WINDOW] : other[-1], goes = mirrored ? other[0] : other[COARSE_WINDOW - 1];
        of_other += comes * comes - goes * goes;
    }
    for (int i = n_lags; i < COARSE_LAGS; i++) cross[i] = INT32_MIN, energy[i] = 0;
    float alike[COARSE_LAGS], most[LANES];
    for (int k = 0; k < LANES; k++) most[k] = -2.0f;
    for (int i = 0; i < COARSE_LAGS; i += LANES)
        for (int k = 0; k < LANES; k++) {
            const float q =
                likeness((float)cross[i + k], own, (float)energy[i + k]) - LONGER_IS_WORSE * (float)(i + k);
            alike[i + k] = q;
            most[k] = q > most[k] ? q : most[k];
        }
    for (int k = 1; k < LANES; k++) most[0] = most[k] > most[0] ? most[k] : most[0];
    int best = 0;
    while (best < n_lags - 1 && alike[best] != most[0]) best++;
    best += LAG_MIN / 2;

    beside = mirrored ? down : down + n - WINDOW * scale;
    const float exact = (float)dot_window(beside, beside, scale);
    int period = 0;
    *quality = -2.0f;
    for (int lag = (best - 1) * by + 1; lag < (best + 1) * by; lag++) {
        if (lag < LAG_MIN * scale || lag > n - WINDOW * scale) continue;
        other = beside + way * lag;
        const float q =
            likeness((float)dot_window(beside, other, scale), exact, (float)dot_window(other, other, scale));
        if (q > *quality) {
            *quality = q;
            period = lag;
        }
    }
    return period;
}

/* How much is repeated: the period, or several where a short one is not clear. */
static int whole_periods(int period, float quality, int scale) {
    int length = period;
    while (quality <= CLEAR && length < REPEATED_LEAST * scale) length += period;
    return length;
}

/* n samples (whole lanes) at `at` go over into `other`, or with `from` come out of it. */
static void seam(int16_t *at, const int16_t *other, int n, bool from) {
    const float slope = (from ? -1.0f : 1.0f) / (float)n, begin = from ? 1.0f : 0.0f;
    for (int i = 0; i < n; i += LANES, at += LANES, other += LANES) {
        float sum[LANES];
        for (int k = 0; k < LANES; k++) {
            const float w = begin + ((float)(i + k) + 0.5f) * slope, x = (float)at[k];
            sum[k] = x + w * ((float)other[k] - x);
        }
        round_lanes(at, sum);
    }
}

/* A quarter of a period, in whole lanes. */
static int seam_of(int period) { return (period + 4 * LANES - 1) / (4 * LANES) * LANES; }

/* n samples of the loop from `at` on; up to a block more is written, and read. -> where it stands then */
static uint32_t unroll(float *out, size_t n, const int16_t *loop, uint32_t length, uint32_t at) {
    for (size_t i = 0; i < n;) {
        size_t piece = length - at < n - i ? length - at : n - i;
        for (size_t k = 0; k < piece; k += BLOCK)
            for (size_t j = 0; j < BLOCK; j++) out[i + k + j] = (float)loop[at + k + j];
        i += piece;
        at = at + (uint32_t)piece == length ? 0 : at + (uint32_t)piece;
    }
    return at;
}

/* n samples of the repetition from where it stands; the state moves on. The level depends on the place in the gap alone,
 * however the gap is cut into frames. */
static void repeat(tp_plc *state, float *out, size_t n) {
    const uint32_t scale = state->rate_hz / 8000, from = state->missing, fade = STEP_FADE * scale;
    state->missing += (uint32_t)n;
    if (from >= SILENT * scale) {
        for (size_t i = 0; i < n; i++) out[i] = 0.0f;
        return;
    }
    state->offset = unroll(out, n, state->work, state->pitch, state->offset);
    for (uint32_t i = from; i < fade && i - from < n; i++)
        out[i - from] += state->step / (float)fade * (float)(fade - i);
    if (state->missing <= HOLD * scale) return;
    const int span = (int)((SILENT - HOLD) * scale), left = (int)(SILENT * scale - from);
    const float slope = 1.0f / (float)span;
    for (int i = 0; i < (int)n; i += BLOCK, out += BLOCK)
        for (int k = 0; k < BLOCK; k++) out[k] *= (float)clamp(left - (i + k), 0, span) * slope;
}

static void remember(tp_plc *state, const int16_t *pcm, size_t n) {
    const size_t kept = KEPT * (state->rate_hz / 8000);
    if (n >= kept) {
        memcpy(state->history, pcm + n - kept, kept * sizeof *pcm);
        state->n_history = (uint32_t)kept;
        return;
    }
    /* The newest sample lies at the end of what is kept, also while that is not yet full. */
    memmove(state->history, state->history + n, (kept - n) * sizeof *pcm);
    memcpy(state->history + kept - n, pcm, n * sizeof *pcm);
    const size_t known = state->n_history + n;
    state->n_history = (uint32_t)(known < kept ? known : kept);
}

int tp_plc_init(tp_plc *state, uint32_t rate_hz) {
    if (rate_hz != 8000 && rate_hz != 16000) return TP_E_ARGUMENT;
    memset(state, 0, sizeof *state);
    state->rate_hz = rate_hz;
    return TP_OK;
}

void tp_plc_reset(tp_plc *state) { (void)tp_plc_init(state, state->rate_hz); }

int tp_plc_receive(tp_plc *state, int16_t *pcm, size_t n) {
    if (n > TP_PLC_MAX_FRAME) return TP_E_ARGUMENT;
    if (state->missing && n) {
        const uint32_t scale = state->rate_hz / 8000;
        size_t overlap = 32 * scale + state->missing / 8;
        if (overlap > 80 * scale) overlap = 80 * scale;
        if (overlap > n) overlap = n;
        if (!state->blended) {
            float made[160 + BLOCK];
            repeat(state, made, overlap);
            for (size_t i = 0; i < overlap; i++) {
                const float w = ((float)i + 0.5f) / (float)overlap, x = (1.0f - w) * made[i] + w * (float)pcm[i];
                pcm[i] = round16(x < 32767.0f ? x > -32768.0f ? x : -32768.0f : 32767.0f);
            }
        }
        state->missing = 0;
        state->blended = 0;
    }
    remember(state, pcm, n);
    return (int)n;
}

/* The mean energy of a sample. */
static float power(const int16_t *x, int n) { return (float)tp_level_energy(x, (size_t)n) / (float)n; }

static void start(tp_plc *state) {
    const int scale = (int)(state->rate_hz / 8000), n = KEPT * scale;
    const int period = find_period(state->history, n, false, scale, &state->likeness);
    const int length = whole_periods(period, state->likeness, scale), joint = seam_of(period);
    const int16_t *first = state->history + n - length;
    memcpy(state->work, first, (size_t)length * sizeof *first);
    seam(state->work + length - joint, first - joint, joint, false);
    state->pitch = (uint32_t)length;
    state->offset = 0;
    state->step = (float)(state->history[n - 1] - first[-1]);
    state->power = power(state->work, length);
}

/* Audio made up backwards in time from `following`: out[n - 1] is the sample before following[0].
 * -> false: `following` is too short. */
static bool extend_back(float *out, size_t n, const int16_t *following, int n_following, int scale, float *quality,
                        float *loudness) {
    int16_t loop[TP_PLC_MAX_LOOP] = {0};
    const int period = find_period(following, n_following / BLOCK * BLOCK, true, scale, quality);
    if (period == 0) return false;
    int length = whole_periods(period, *quality, scale), joint = seam_of(period);
    if (length > n_following) length = period;
    if (joint > n_following - length) joint = (n_following - length) / LANES * LANES;
    memcpy(loop, following, (size_t)length * sizeof *loop);
    *loudness = power(loop, length);
    if (joint > 0) seam(loop, following + length, joint, true);
    (void)unroll(out, n, loop, (uint32_t)length, (uint32_t)((size_t)length - n % (size_t)length) % (uint32_t)length);
    const int fade = STEP_FADE * scale;
    const float step = length < n_following ? (float)(following[0] - following[length]) / (float)fade : 0.0f;
    for (int i = 0; i < fade && i < (int)n; i++) out[n - 1 - (size_t)i] += step * (float)(fade - i);
    return true;
}

/* As extend_back, where `following` is too short to show a period as long as the one before the gap: the repetition made
 * from that, from where in it the beginning of `following` is found. */
static bool lead_in(const tp_plc *state, float *out, size_t n, const int16_t *following, int n_following, int scale,
                    float *quality, float *loudness) {
    int16_t x[(2 * WINDOW + LAG_MAX + 2) * 2 + BLOCK] = {0}, room[sizeof x / sizeof *x];
    const int window = WINDOW * scale, length = (int)state->pitch;
    if (n_following < window) return false;
    memcpy(x, following, (size_t)window * sizeof *x);
    memcpy(x + window, state->work, (size_t)length * sizeof *x);
    for (int i = 0; i < window; i++) x[window + length + i] = x[window + i % length];
    const int16_t *down = scale_down(room, x, (2 * window + length + BLOCK - 1) / BLOCK * BLOCK, scale);
    const float own = (float)dot_window(down, down, scale);
    float gain = 0.0f;
    int best = 0;
    *quality = -2.0f;
    for (int at = 0; at < length; at++) {
        const int16_t *other = down + window + at;
        const float cross = (float)dot_window(down, other, scale), energy = (float)dot_window(other, other, scale);
        const float q = likeness(cross, own, energy);
        if (q > *quality) {
            *quality = q;
            best = at;
            gain = cross / (energy + 1.0f);
        }
    }
    gain = gain > GAIN_MOST ? GAIN_MOST : gain;
    (void)unroll(out, n, state->work, (uint32_t)length, (uint32_t)(best + length - (int)(n % (size_t)length)) % (uint32_t)length);
    for (size_t i = 0; i < n; i++) out[i] *= gain;
    *loudness = gain * gain * state->power;
    const int fade = STEP_FADE * scale;
    const float step = ((float)following[0] - gain * (float)state->work[best]) / (float)fade;
    for (int i = 0; i < fade && i < (int)n; i++) out[n - 1 - (size_t)i] += step * (float)(fade - i);
    return true;
}

/* Cross-fade `made` into `back` over n samples. lean > 0: earlier; dip: how much weaker the middle is. */
static void blend(int16_t *out, const float *made, const float *back, size_t n, float lean, float dip) {
    int16_t rounded[TP_PLC_MAX_FRAME + LANES], *at = rounded;
    const float step = 1.0f / (float)n;
    for (int i = 0; i < (int)n; i += LANES, at += LANES, made += LANES, back += LANES) {
        float sum[LANES];
        for (int k = 0; k < LANES; k++) {
            float w = ((float)(i + k) + 0.5f) * step;
            w += lean * w * (1.0f - w);
            const float gain = 1.0f - dip * w * (1.0f - w);
            sum[k] = (made[k] + w * (back[k] - made[k])) * gain;
        }
        round_lanes(at, sum);
    }
    memcpy(out, rounded, n * sizeof *out);
}

int tp_plc_fillin(tp_plc *state, int16_t *out, size_t n, const int16_t *following, size_t n_following) {
    if (n > TP_PLC_MAX_FRAME) return TP_E_ARGUMENT;
    if (n == 0) return 0;
    if (state->n_history == 0) {
        memset(out, 0, n * sizeof *out);
        return (int)n;
    }
    const uint32_t scale = state->rate_hz / 8000;
    const size_t most = FOLLOWING_MAX * scale;
    const bool late = state->missing != 0;
    if (!late) start(state);
    float made[TP_PLC_MAX_FRAME + BLOCK], back[TP_PLC_MAX_FRAME + BLOCK], quality, loudness;
    repeat(state, made, n);
    const int seen = (int)(n_following < most ? n_following : most);
    if (following == NULL)
        state->blended = 0;
    else if (seen < (int)(OF_ITS_OWN * scale) && seen < (int)(state->pitch + WINDOW * scale))
        state->blended = lead_in(state, back, n, following, seen, (int)scale, &quality, &loudness);
    else
        state->blended = extend_back(back, n, following, seen, (int)scale, &quality, &loudness);
    if (state->blended) {
        float lean = TRUST * (quality - state->likeness) + (late ? LATE : 0.0f);
        lean = lean > LEAN_MOST ? LEAN_MOST : lean < -LEAN_MOST ? -LEAN_MOST : lean;
        const float sum = state->power + loudness + 1.0f;
        blend(out, made, back, n, lean, 4.0f * DIP * (1.0f - 4.0f * state->power / sum * (loudness / sum)));
    } else {
        blend(out, made, made, n, 0.0f, 0.0f);
    }
    remember(state, out, n);
    return (int)n;
}

int tp_plc_conceal(tp_plc *state, int16_t *pcm, size_t n_frames, size_t n, const uint8_t *lost) {
    if (n == 0 || n > TP_PLC_MAX_FRAME) return TP_E_ARGUMENT;
    int n_lost = 0;
    for (size_t i = 0; i < n_frames; i++, pcm += n) {
        if (!lost[i]) {
            (void)tp_plc_receive(state, pcm, n);
            continue;
        }
        (void)tp_plc_fillin(state, pcm, n, i + 1 < n_frames && !lost[i + 1] ? pcm + n : NULL, n);
        n_lost++;
    }
    return n_lost;
}
