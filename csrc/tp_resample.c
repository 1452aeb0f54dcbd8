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
#elif defined(__GNUC__)
#define TP_UNROLL _Pragma("GCC unroll 2")
#else
#define TP_UNROLL
#endif

#if TP_SIMD_HAS_AVX2
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

enum {
    CHUNK = 480,   /* input samples copied behind the history at a time: 10 ms at 48 kHz, 60 ms at 8 kHz */
    PADDING = 48   /* zeros behind them: the last, partial eight outputs read 7 * 6 samples too far */
};

typedef struct design {
    uint32_t up, down, n_taps, delay;
    const int16_t *taps;
} design;

#define DESIGN(up, down) \
    {up, down, TP_RESAMPLE_TAPS_##up##_##down, TP_RESAMPLE_DELAY_##up##_##down, tp_resample_taps_##up##_##down}

/* The order of TP_RESAMPLE_KERNELS. */
static const design designs[TP_RESAMPLE_N_RATIOS] = {
    DESIGN(2, 1), DESIGN(3, 1), DESIGN(6, 1), DESIGN(3, 2), DESIGN(1, 2), DESIGN(1, 3), DESIGN(1, 6), DESIGN(2, 3),
};

static bool rate_is_known(uint32_t rate_hz) {
    return rate_hz == 8000 || rate_hz == 16000 || rate_hz == 24000 || rate_hz == 48000;
}

int tp_resample_init(tp_resample *state, uint32_t from_hz, uint32_t to_hz) {
    if (!rate_is_known(from_hz) || !rate_is_known(to_hz)) return TP_E_ARGUMENT;
    memset(state, 0, sizeof *state);
    state->from_hz = from_hz;
    state->to_hz = to_hz;
    state->up = state->down = 1;
    if (from_hz == to_hz) return TP_OK;
    for (uint32_t i = 0; i < TP_RESAMPLE_N_RATIOS; i++) {
        const design *d = &designs[i];
        if ((uint64_t)from_hz * d->up != (uint64_t)to_hz * d->down) continue;
        state->taps = d->taps;
        state->up = d->up;
        state->down = d->down;
        state->n_taps = d->n_taps;
        state->delay = d->delay;
        state->kernel = i;
        return TP_OK;
    }
    return TP_E_ARGUMENT;
}

void tp_resample_reset(tp_resample *state) {
    state->phase = 0;
    memset(state->history, 0, sizeof state->history);
}

static size_t output_length(const tp_resample *state, size_t n_in) {
    const size_t high_rate = n_in * state->up;
    return high_rate <= state->phase ? 0 : (high_rate - state->phase + state->down - 1) / state->down;
}

size_t tp_resample_output_length(const tp_resample *state, size_t n_in) { return output_length(state, n_in); }

uint32_t tp_resample_delay(const tp_resample *state) { return state->delay; }

ptrdiff_t tp_resample_process(tp_resample *state, int16_t *out, size_t out_capacity, const int16_t *in, size_t n_in) {
    const size_t n_out = output_length(state, n_in);
    if (n_out > out_capacity) return TP_E_ROOM;
    if (n_in == 0) return 0;
    if (state->taps == NULL) {
        memcpy(out, in, n_in * sizeof *in);
        return (ptrdiff_t)n_out;
    }
    tp_resample_kernel *const kernel = tp_simd_kernels()->resample[state->kernel];
    const size_t n_history = state->n_taps - 1;
    int16_t x[TP_RESAMPLE_MAX_HISTORY + CHUNK + PADDING];
    memcpy(x, state->history, n_history * sizeof *x);
    for (size_t done = 0; done < n_in;) {
        const size_t n = n_in - done < CHUNK ? n_in - done : CHUNK;
        const size_t n_made = output_length(state, n);
        memcpy(x + n_history, in + done, n * sizeof *x);
        memset(x + n_history + n, 0, PADDING * sizeof *x);
        kernel(out, n_made, x, state->phase);
        out += n_made;
        done += n;
        state->phase = (uint32_t)(state->phase + n_made * state->down - n * state->up);
        memmove(x, x + n, n_history * sizeof *x);
    }
    memcpy(state->history, x, n_history * sizeof *x);
    return (ptrdiff_t)n_out;
}
