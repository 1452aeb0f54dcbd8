#ifndef TP_RESAMPLE_H
#define TP_RESAMPLE_H
#include "tp_base.h"

/* Streaming polyphase resampler between any two of 8, 16, 24 and 48 kHz (equal rates copy).
 * Contract: after n input samples since reset exactly ceil(n * to / from) have been written, so a chunk of 20 ms in
 * always gives exactly 20 ms out. delay() is a whole number of output samples, <= 2 ms up, <= 4 ms down.
 * int16 coefficients, fixed partial sums: the same bytes from every instruction set. */
#define TP_RESAMPLE_MAX_HISTORY 512

typedef struct tp_resample {
    const int16_t *taps; /* table in use; points at const data */
    uint32_t from_hz, to_hz;
    uint32_t up, down, phase, n_taps; /* taps per phase */
    uint32_t delay;                   /* output samples */
    uint32_t fill;
    int16_t history[TP_RESAMPLE_MAX_HISTORY];
} tp_resample;

int tp_resample_init(tp_resample *state, uint32_t from_hz, uint32_t to_hz); /* TP_E_ARGUMENT: a rate it does not know */
void tp_resample_reset(tp_resample *state);
size_t tp_resample_output_length(const tp_resample *state, size_t n_in); /* what the next process() of n_in will write */
ptrdiff_t tp_resample_process(tp_resample *state, int16_t *out, size_t out_capacity, const int16_t *in, size_t n_in);
uint32_t tp_resample_delay(const tp_resample *state);

#endif
