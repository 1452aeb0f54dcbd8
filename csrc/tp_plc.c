#include "tp_plc.h"

/* All lengths below are samples at 8 kHz; times `scale` (1 or 2) at the real rate. */
#define LAG_MIN 20      /* 400 Hz */
#define LAG_MAX 132     /* 61 Hz */
#define WINDOW 160      /* what is compared: 20 ms */
#define KEPT 336        /* history: LAG_MAX + WINDOW, and room for the seam */
#define HOLD 160        /* full level for 20 ms */
#define SILENT 640      /* nothing left at 80 ms */
#define STEP_FADE 16    /* 2 ms */
#define FOLLOWING_SEARCHED 144
#define FOLLOWING_MAX 320
#define NEAR_ENOUGH 0.5f  /* likeness (squared) that needs no search of its own */
#define COARSE_MAX 168  /* KEPT at 4 kHz */
#define REPEATED_LEAST 80 /* 10 ms: shorter periods that are not clear are repeated together */

_Static_assert(KEPT * 2 <= TP_PLC_MAX_HISTORY, "what is kept must fit");
_Static_assert(LAG_MAX * 2 <= TP_PLC_MAX_LOOP && REPEATED_LEAST * 2 * 2 <= TP_PLC_MAX_LOOP, "a loop must fit");

static float clip(float x) { return x > 32767.0f ? 32767.0f : x < -32768.0f ? -32768.0f : x; }

static int16_t round16(float x) {
    x = clip(x);
    return (int16_t)(x >= 0.0f ? (int32_t)(x + 0.5f) : -(int32_t)(0.5f - x));
}

/* Square root for 0..1 by Newton's rule in a fixed number of steps: no libm, the same bits everywhere. */
static float root(float x) {
    if (x <= 0.0f)
        return 0.0f;
    float y = 0.5f + 0.5f * x;
    for (int i = 0; i < 6; i++)
        y = 0.5f * (y + x / y);
    return y;
}

static int32_t dot(const int16_t *a, const int16_t *b, int n) {
    int32_t sum = 0;
    for (int i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* In blocks of 16, which the compiler turns into vector code. n is a multiple of 16. */
static int32_t dot16(const int16_t *a, const int16_t *b, int n) {
    int32_t sum = 0;
    for (int i = 0; i < n; i += 16)
        sum += dot(a + i, b + i, 16);
    return sum;
}

/* x * 2^-shift rounded down, for |x| < 2^17, without the shift of a negative number. */
static int32_t shifted(int32_t x, unsigned shift) {
    return (int32_t)((uint32_t)(x + 131072) >> shift) - (131072 >> shift);
}

/* All bits that any magnitude of x has. */
static int32_t peak_bits(const int16_t *x, int n) {
    int32_t bits = 0;
    for (int i = 0; i < n; i++)
        bits |= x[i] ^ (x[i] < 0 ? -1 : 0);
    return bits;
}

/* Copies x shifted right so that any sum of 336 products fits 32 bits: |x| <= 2048. */
static void scale_down(int16_t *out, const int16_t *x, int n) {
    int32_t peak = 0;
    int blocks = n / 16 * 16;
    for (int i = 0; i < blocks; i += 16)
        peak |= peak_bits(x + i, 16);
    peak |= peak_bits(x + blocks, n - blocks);
    unsigned shift = 0;
    while (peak >> shift >= 2048)
        shift++;
    for (int i = 0; i < blocks; i += 16)
        for (int k = 0; k < 16; k++)
            out[i + k] = (int16_t)shifted(x[i + k], shift);
    for (int i = blocks; i < n; i++)
        out[i] = (int16_t)shifted(x[i], shift);
}

/* Normalised cross-correlation with its sign kept: -1..1, squared. */
static float likeness(int32_t cross, int32_t energy_a, int32_t energy_b) {
    float floor_energy = 1.0f;
    float c = (float)cross;
    return c * (c < 0.0f ? -c : c) / (((float)energy_a + floor_energy) * ((float)energy_b + floor_energy));
}

/* The best lag of [low, high] at the full rate, of scaled-down samples. Raises *quality, or returns 0. */
static int refine(const int16_t *down, int n, int window16, int low, int high, int scale, float *quality) {
    if (low < LAG_MIN * scale)
        low = LAG_MIN * scale;
    if (high > n - window16)
        high = n - window16;
    if (high > LAG_MAX * scale)
        high = LAG_MAX * scale;
    const int16_t *tail = down + n - window16;
    int32_t own = dot16(tail, tail, window16);
    int best = 0;
    for (int lag = low; lag <= high; lag++) {
        const int16_t *before = tail - lag;
        float q = likeness(dot16(tail, before, window16), own, dot16(before, before, window16));
        if (q > *quality) {
            *quality = q;
            best = lag;
        }
    }
    return best;
}

/* The lag at which the last samples of x (n of them) resemble most those before. *quality: its likeness.
 * window16: samples compared, a multiple of 16; n >= window16 + the greatest lag tried. */
static int find_lag(const int16_t *x, int n, int window16, int scale, float *quality) {
    int16_t down[KEPT * 2], coarse[COARSE_MAX];
    scale_down(down, x, n);
    int by = 2 * scale, n_coarse = n / by, skip = n - n_coarse * by;
    for (int i = 0; i < n_coarse; i++) {
        const int16_t *at = down + skip + i * by;
        coarse[i] = (int16_t)(scale == 1 ? shifted(at[0] + at[1], 1) : shifted(at[0] + at[1] + at[2] + at[3], 2));
    }
    int w = window16 / by / 16 * 16;
    int most = n_coarse - w < LAG_MAX / 2 ? n_coarse - w : LAG_MAX / 2;
    const int16_t *tail = coarse + n_coarse - w;
    int32_t own = dot16(tail, tail, w), energy = dot16(tail - LAG_MIN / 2, tail - LAG_MIN / 2, w);
    int best = LAG_MIN / 2;
    float best_quality = -2.0f;
    for (int lag = LAG_MIN / 2; lag <= most; lag++) {
        float q = likeness(dot16(tail, tail - lag, w), own, energy);
        if (q > best_quality) {
            best_quality = q;
            best = lag;
        }
        if (lag < most)
            energy += tail[-lag - 1] * tail[-lag - 1] - tail[w - lag - 1] * tail[w - lag - 1];
    }
    *quality = -2.0f;
    return refine(down, n, window16, (best - 1) * by + 1, (best + 1) * by - 1, scale, quality);
}

/* The last `length` samples of x (n of them) as a loop without a seam: its end is blended into what came before its
 * beginning. */
static void make_loop(int16_t *loop, const int16_t *x, int n, int length, int period) {
    memcpy(loop, x + n - length, (size_t)length * sizeof *loop);
    int seam = period / 4;
    if (seam > n - length)
        seam = n - length;
    for (int i = 0; i < seam; i++) {
        float w = ((float)i + 0.5f) / (float)seam;
        int at = length - seam + i;
        loop[at] = round16((1.0f - w) * (float)loop[at] + w * (float)x[n - length - seam + i]);
    }
}

static int whole_periods(int period, float quality, int scale) {
    int least = quality > 0.5f ? period : REPEATED_LEAST * scale;
    int length = period;
    while (length < least)
        length += period;
    return length;
}

static float fade(uint32_t missing, uint32_t scale) {
    if (missing <= HOLD * scale)
        return 1.0f;
    if (missing >= SILENT * scale)
        return 0.0f;
    return (float)(SILENT * scale - missing) / (float)((SILENT - HOLD) * scale);
}

/* n samples of the repetition from where it stands; the state moves on. */
static void repeat(tp_plc *state, float *out, size_t n) {
    uint32_t scale = state->rate_hz / 8000, at = state->offset, step_length = STEP_FADE * scale, gain_end = state->missing;
    float step = state->step / (float)step_length, gain = 0.0f, slope = 0.0f;
    for (size_t i = 0; i < n; i++, state->missing++) {
        if (state->missing == gain_end || i == 0) {
            /* The level is straight between whole 10 ms of the gap, however the gap is cut into frames. */
            uint32_t block = 80 * scale, from = state->missing / block * block;
            gain_end = from + block;
            slope = (fade(gain_end, scale) - fade(from, scale)) / (float)block;
            gain = fade(from, scale) + slope * (float)(state->missing - from);
        }
        float x = (float)state->work[at];
        if (state->missing < step_length)
            x += step * (float)(step_length - state->missing);
        out[i] = x * gain;
        gain += slope;
        if (++at == state->pitch)
            at = 0;
    }
    state->offset = at;
}

static void remember(tp_plc *state, const int16_t *pcm, size_t n) {
    size_t kept = KEPT * (state->rate_hz / 8000);
    if (n >= kept) {
        memcpy(state->history, pcm + n - kept, kept * sizeof *pcm);
        state->n_history = (uint32_t)kept;
        return;
    }
    /* The newest sample lies at the end of what is kept, also while that is not yet full. */
    memmove(state->history, state->history + n, (kept - n) * sizeof *pcm);
    memcpy(state->history + kept - n, pcm, n * sizeof *pcm);
    size_t known = state->n_history + n;
    state->n_history = (uint32_t)(known < kept ? known : kept);
}

int tp_plc_init(tp_plc *state, uint32_t rate_hz) {
    if (rate_hz != 8000 && rate_hz != 16000)
        return TP_E_ARGUMENT;
    memset(state, 0, sizeof *state);
    state->rate_hz = rate_hz;
    return TP_OK;
}

void tp_plc_reset(tp_plc *state) {
    uint32_t rate_hz = state->rate_hz;
    memset(state, 0, sizeof *state);
    state->rate_hz = rate_hz;
}

int tp_plc_receive(tp_plc *state, int16_t *pcm, size_t n) {
    if (n > TP_PLC_MAX_FRAME)
        return TP_E_ARGUMENT;
    if (state->missing && n) {
        uint32_t scale = state->rate_hz / 8000;
        size_t overlap = 32 * scale + state->missing / 8;
        if (overlap > 80 * scale)
            overlap = 80 * scale;
        if (overlap > n)
            overlap = n;
        if (!state->blended) {
            float made[160];
            repeat(state, made, overlap);
            for (size_t i = 0; i < overlap; i++) {
                float w = ((float)i + 0.5f) / (float)overlap;
                pcm[i] = round16((1.0f - w) * made[i] + w * (float)pcm[i]);
            }
        }
        state->missing = 0;
        state->blended = 0;
    }
    remember(state, pcm, n);
    return (int)n;
}

static void start(tp_plc *state) {
    int scale = (int)(state->rate_hz / 8000), n = KEPT * scale;
    float quality;
    int period = find_lag(state->history, n, WINDOW * scale, scale, &quality);
    int length = whole_periods(period, quality, scale);
    make_loop(state->work, state->history, n, length, period);
    state->pitch = (uint32_t)length;
    state->period = (uint32_t)period;
    state->offset = 0;
    state->step = (float)(state->history[n - 1] - state->history[n - 1 - length]);
}

/* Audio made up backwards in time from `following`: out[n - 1] is the sample before following[0]. The period is searched
 * near that of what was before the gap, which needs less audio than a search of its own, and else by one.
 * -> false: `following` is too short for either. */
static bool extend_back(float *out, size_t n, const int16_t *following, int n_following, int scale, int known_period) {
    int16_t reversed[FOLLOWING_MAX], loop[FOLLOWING_MAX], down[FOLLOWING_MAX];
    for (int i = 0; i < n_following; i++)
        reversed[i] = following[n_following - 1 - i];
    float quality = -2.0f;
    int period = 0, spread = known_period / 8 + 1;
    int window = (n_following - known_period - spread) / 16 * 16;
    if (window >= 32 * scale) {
        scale_down(down, reversed, n_following);
        period = refine(down, n_following, window, known_period - spread, known_period + spread, scale, &quality);
    }
    if (n_following >= FOLLOWING_SEARCHED * scale && quality < NEAR_ENOUGH) {
        float own_quality;
        int own = find_lag(reversed, n_following, (n_following - 80 * scale) / 16 * 16, scale, &own_quality);
        if (own && own_quality > quality) {
            period = own;
            quality = own_quality;
        }
    }
    if (period == 0)
        return false;
    int length = whole_periods(period, quality, scale);
    if (length > n_following)
        length = period;
    make_loop(loop, reversed, n_following, length, period);
    float step = (float)(reversed[n_following - 1] -
                         (length < n_following ? reversed[n_following - 1 - length] : reversed[n_following - 1])) /
                 (float)(STEP_FADE * scale);
    int at = 0;
    for (size_t i = 0; i < n; i++) {
        float x = (float)loop[at];
        if (i < (size_t)(STEP_FADE * scale))
            x += step * (float)((size_t)(STEP_FADE * scale) - i);
        out[n - 1 - i] = x;
        if (++at == length)
            at = 0;
    }
    return true;
}

/* Cross-fade `made` into `back` over n samples. Where they are unlike, the sum would be weaker than either. */
static void blend(int16_t *out, const float *made, const float *back, size_t n) {
    float cross = 0.0f, energy_made = 1.0f, energy_back = 1.0f;
    for (size_t i = 0; i < n; i++) {
        cross += made[i] * back[i];
        energy_made += made[i] * made[i];
        energy_back += back[i] * back[i];
    }
    float alike = cross <= 0.0f ? 0.0f : root(cross / energy_made * (cross / energy_back));
    float step = 1.0f / (float)n, gain = 1.0f, gain_step = 0.0f;
    for (size_t i = 0; i < n; i++) {
        float w = ((float)i + 0.5f) * step, v = 1.0f - w;
        if (i % 16 == 0) {
            /* Exact at every 16th sample, straight between. */
            float to = (float)(i + 16 < n ? i + 16 : n) * step, from = 1.0f - to;
            gain_step = (1.0f / root(from * from + to * to + 2.0f * from * to * alike) - gain) / 16.0f;
        }
        out[i] = round16((v * made[i] + w * back[i]) * gain);
        gain += gain_step;
    }
}

int tp_plc_fillin(tp_plc *state, int16_t *out, size_t n, const int16_t *following, size_t n_following) {
    if (n > TP_PLC_MAX_FRAME)
        return TP_E_ARGUMENT;
    if (n == 0)
        return 0;
    uint32_t scale = state->rate_hz / 8000;
    if (state->n_history == 0) {
        memset(out, 0, n * sizeof *out);
        return (int)n;
    }
    if (state->missing == 0)
        start(state);
    float made[TP_PLC_MAX_FRAME], back[TP_PLC_MAX_FRAME];
    repeat(state, made, n);
    size_t most = FOLLOWING_MAX / 2 * scale;
    state->blended = following != NULL &&
                     extend_back(back, n, following, (int)(n_following < most ? n_following : most), (int)scale,
                                 (int)state->period);
    if (state->blended) {
        blend(out, made, back, n);
    } else {
        for (size_t i = 0; i < n; i++)
            out[i] = round16(made[i]);
    }
    remember(state, out, n);
    return (int)n;
}
