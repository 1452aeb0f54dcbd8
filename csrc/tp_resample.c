#include "tp_resample.h"

#include "tp_resample_kernels.h"
#include "tp_resample_tables.h"

#if defined(__GNUC__)
#define TP_ALWAYS_INLINE static inline __attribute__((always_inline))
#else
#define TP_ALWAYS_INLINE static inline
#endif
#if defined(__clang__)
#define TP_UNROLL _Pragma("clang loop unroll(full)")
#define TP_ROLLED _Pragma("clang loop unroll(disable)")
#elif defined(__GNUC__)
#define TP_UNROLL _Pragma("GCC unroll 2")
#define TP_ROLLED _Pragma("GCC unroll 1")
#else
#define TP_UNROLL
#define TP_ROLLED
#endif
#define STEP_SCALE (1.0f / (1 << TP_RESAMPLE_STEP_BITS))

enum {
    COARSE_TAPS = 16,
    CHUNK = 480,     /* input samples copied behind the history at a time: 10 ms at 48 kHz, 60 ms at 8 kHz */
    PADDING = 48,    /* zeros behind them: the last, partial eight outputs read 7 * 6 samples too far */
    ANY_HISTORY = 32 /* input samples before the newest that an output of any_up may need */
};

typedef struct design {
    uint32_t up, down, n_taps, coarse_at;
    int finer;
    uint32_t delay;
    const int16_t *taps;
} design;

#define TP_DESIGN(up, down)                                                                                    \
    {up, down, TP_RESAMPLE_TAPS_##up##_##down, TP_RESAMPLE_COARSE_##up##_##down, TP_RESAMPLE_FINE_##up##_##down, \
     TP_RESAMPLE_DELAY_##up##_##down, tp_resample_taps_##up##_##down}

/* The order of TP_RESAMPLE_KERNELS. */
static const design designs[TP_RESAMPLE_N_RATIOS] = {
    TP_DESIGN(2, 1), TP_DESIGN(3, 1), TP_DESIGN(6, 1), TP_DESIGN(3, 2),
    TP_DESIGN(1, 2), TP_DESIGN(1, 3), TP_DESIGN(1, 6), TP_DESIGN(2, 3),
};

#if TP_SIMD_HAS_AVX2
/* Both are needed twice: gcc would rather load them again, and unaligned loads are what the time goes for. */
#define TP_KEEP(a, b) __asm__("" : "+x"(a), "+x"(b))

/* Two taps as the 32 bits that every lane of a product takes. */
static inline int tp_resample_pair(const int16_t *taps) {
    int pair;
    memcpy(&pair, taps, sizeof pair);
    return pair;
}

#include <immintrin.h>
#define TP_WITH_SSE2
#endif
#define TP_LEVEL base
#define TP_TARGET
#include "tp_resample_body.inc"

#if TP_SIMD_HAS_AVX2
#define TP_WITH_AVX2
#define TP_LEVEL avx2
#define TP_TARGET __attribute__((target("avx2")))
#include "tp_resample_body.inc"
#endif

bool tp_resample_knows(uint32_t rate_hz) {
    switch (rate_hz) {
    case 8000: case 11025: case 12000: case 16000: case 22050: case 24000: case 32000: case 44100: case 48000: return true;
    default: return false;
    }
}

static uint32_t common_divisor(uint32_t a, uint32_t b) {
    while (b != 0) {
        const uint32_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

int tp_resample_init(tp_resample *state, uint32_t from_hz, uint32_t to_hz) {
    if (!tp_resample_knows(from_hz) || !tp_resample_knows(to_hz)) return TP_E_ARGUMENT;
    memset(state, 0, sizeof *state);
    const uint32_t common = common_divisor(from_hz, to_hz);
    state->from_hz = from_hz;
    state->to_hz = to_hz;
    state->up = to_hz / common;
    state->down = from_hz / common;
    if (from_hz == to_hz) return TP_OK;
    for (state->kernel = 0; state->kernel < TP_RESAMPLE_N_RATIOS; state->kernel++) {
        const design *d = &designs[state->kernel];
        if (state->up != d->up || state->down != d->down) continue;
        state->n_history = d->n_taps - 1;
        state->delay = d->delay;
        return TP_OK;
    }
    /* The least whole delay at which no output needs an input that is yet to come: half widths are 47/3 and 31. */
    state->n_history = ANY_HISTORY;
    state->delay = state->up > state->down ? (47 * state->up + 3 * state->down - 1) / (3 * state->down) : 31;
    return TP_OK;
}

void tp_resample_reset(tp_resample *state) {
    state->phase = 0;
    memset(&state->past, 0, sizeof state->past);
}

static size_t output_length(const tp_resample *state, size_t n_in) {
    const size_t high_rate = n_in * state->up;
    return high_rate <= state->phase ? 0 : (high_rate - state->phase + state->down - 1) / state->down;
}

size_t tp_resample_output_length(const tp_resample *state, size_t n_in) { return output_length(state, n_in); }

uint32_t tp_resample_delay(const tp_resample *state) { return state->delay; }

/* The phase after n more inputs of which n_made outputs have come. */
static uint32_t phase_after(const tp_resample *state, size_t n, size_t n_made) {
    return (uint32_t)(state->phase + n_made * state->down - n * state->up);
}

static void go_by_sums(tp_resample *state, int16_t *out, const int16_t *in, size_t n_in) {
    float sums[TP_RESAMPLE_DOWN_TAPS + CHUNK];
    memcpy(sums, state->past.sums, sizeof state->past.sums);
    for (size_t done = 0; done < n_in;) {
        const size_t n = n_in - done < CHUNK ? n_in - done : CHUNK;
        const size_t n_made = output_length(state, n);
        memset(sums + TP_RESAMPLE_DOWN_TAPS, 0, n_made * sizeof *sums);
        tp_simd_kernels()->resample_any_down(out, sums, in + done, n, state->phase, state->up, state->down);
        memmove(sums, sums + n_made, TP_RESAMPLE_DOWN_TAPS * sizeof *sums);
        state->phase = phase_after(state, n, n_made);
        out += n_made;
        done += n;
    }
    memcpy(state->past.sums, sums, sizeof state->past.sums);
}

static void go_by_window(tp_resample *state, int16_t *out, const int16_t *in, size_t n_in) {
    const tp_kernels *const kernels = tp_simd_kernels();
    const size_t n_history = state->n_history;
    int16_t x[TP_RESAMPLE_MAX_HISTORY + CHUNK + PADDING];
    memcpy(x, state->past.inputs, n_history * sizeof *x);
    for (size_t done = 0; done < n_in;) {
        const size_t n = n_in - done < CHUNK ? n_in - done : CHUNK;
        const size_t n_made = output_length(state, n);
        memcpy(x + n_history, in + done, n * sizeof *x);
        memset(x + n_history + n, 0, PADDING * sizeof *x);
        if (state->kernel < TP_RESAMPLE_N_RATIOS) {
            kernels->resample[state->kernel](out, n_made, x, state->phase);
        } else {
            const uint32_t first = (ANY_HISTORY - 15) * state->up - state->delay * state->down;
            kernels->resample_any_up(out, n_made, x, first + state->phase, state->up, state->down);
        }
        out += n_made;
        done += n;
        state->phase = phase_after(state, n, n_made);
        memmove(x, x + n, n_history * sizeof *x);
    }
    memcpy(state->past.inputs, x, n_history * sizeof *x);
}

ptrdiff_t tp_resample_process(tp_resample *state, int16_t *out, size_t out_capacity, const int16_t *in, size_t n_in) {
    const size_t n_out = output_length(state, n_in);
    if (n_out > out_capacity) return TP_E_ROOM;
    if (n_in == 0) return 0;
    if (state->up == state->down)
        memcpy(out, in, n_in * sizeof *in);
    else if (state->kernel == TP_RESAMPLE_N_RATIOS && state->up < state->down)
        go_by_sums(state, out, in, n_in);
    else
        go_by_window(state, out, in, n_in);
    return (ptrdiff_t)n_out;
}

ptrdiff_t tp_resample_chunk(tp_resample_port *port, const uint8_t *in, size_t n_bytes) {
    if (n_bytes % 2 != 0) return TP_E_ARGUMENT;
    return tp_resample_process(&port->state, port->out, port->capacity, (const int16_t *)(const void *)in, n_bytes / 2);
}
