/* tp_resample: streaming conversion between any two of 8, 11.025, 12, 16, 22.05, 24, 32, 44.1 and 48 kHz.
 *
 * What it does. Takes chunks of any length and gives, after n input samples since reset, exactly ceil(n * to / from)
 *   output samples: nothing is held back, so 20 ms in is 20 ms out, every time, and a queue behind it cannot breathe. What
 *   it costs is delay() samples of delay, the same for all frequencies. Equal rates copy, without delay.
 *
 * How it works. Low-pass FIR from tables/gen_tables.py, by least squares. Upwards it passes to 3400 Hz and stops from
 *   4600 Hz where the lower rate is 8 kHz, in proportion elsewhere; downwards it stops from half the new rate (4000 Hz),
 *   as long as 4 ms of delay allow, because sibilants of wide-band speech must not fold into the telephone band.
 *   The ratios of everyday calls (2/1, 3/1, 6/1, 3/2 and their inverses) are polyphase, a row of int16 taps per phase.
 *   16 bits for all taps would stop at 75 dB, so every row is a fine one, scaled for the small taps, plus a coarse one for
 *   the 16 large ones in the middle, of which the fine row holds the rounding errors: one more product in nine downwards,
 *   and what rounding leaves lies below 95 dB. 2/1 is a half-band filter: every second output is an input.
 *   All other ratios share two prototypes sampled 96 times per sample and interpolated linearly, in float. Upwards an
 *   output gathers its window; downwards an input is added to the 64 outputs that it reaches, because in samples of the
 *   lower rate the filter is the same for every ratio, and so is the table. They cost four to eight times as much.
 *   Integer sums whose order does not matter, and float sums whose order is written down: the same bytes from every
 *   instruction set and for every way of cutting the input into chunks.
 *
 * How to use it. init once, process chunk after chunk; output_length tells what the next process of n_in writes, and
 *   with less capacity process does nothing and answers TP_E_ROOM. `out` and `in` do not overlap. reset forgets the past.
 *   There is no fillin: for missing audio process concealment or zeros, the clock must go on. Align tracks by
 *   dropping or adding delay() output samples. tp_resample_chunk is process for a caller whom every argument costs.
 *
 * Acceptance (tests/dsp/test_resample.py measures each of the 72 pairs): images and aliases <= -80 dB, ripple up to
 *   3400 Hz <= 0.02 dB; delay <= 2.0 ms upwards and <= 4.0 ms downwards, where the lower rate is 8 kHz:
 *
 *     ratio         2/1   3/1   6/1   3/2   1/2   1/3   2/3   1/6   other up          other down
 *     taps/phase     32    32    32    32   128   192    96   384   32                64 per input
 *     delay, out     31    47    94    24    31    31    31    31   ceil(47/3 * ratio)   31
 *     images, dB     80    88    88    88    92    92    89    91   87                91
 *     aliases, dB                            96    92    92    82                     91
 *
 * Source: polyphase decomposition and least squares are textbook material; own filters. */
#ifndef TP_RESAMPLE_H
#define TP_RESAMPLE_H
#include "tp_base.h"

#define TP_RESAMPLE_MAX_HISTORY 384 /* input samples, the longest filter's */

typedef struct tp_resample {
    uint32_t from_hz, to_hz;
    uint32_t up, down;
    uint32_t phase;     /* of the next output: 1 / up of an input sample after the next input, below down */
    uint32_t delay;     /* output samples */
    uint32_t kernel;    /* index of the ratio; TP_RESAMPLE_N_RATIOS: any other */
    uint32_t n_history; /* inputs kept */
    union {
        int16_t inputs[TP_RESAMPLE_MAX_HISTORY]; /* oldest first */
        float sums[64];                          /* any other ratio downwards: the next outputs, as far as they have come */
    } past;
} tp_resample;

bool tp_resample_knows(uint32_t rate_hz);
int tp_resample_init(tp_resample *state, uint32_t from_hz, uint32_t to_hz); /* TP_E_ARGUMENT: a rate it does not know */
void tp_resample_reset(tp_resample *state);
size_t tp_resample_output_length(const tp_resample *state, size_t n_in); /* what the next process() of n_in will write */
ptrdiff_t tp_resample_process(tp_resample *state, int16_t *out, size_t out_capacity, const int16_t *in, size_t n_in);
uint32_t tp_resample_delay(const tp_resample *state);

/* A resampler and where its output goes. */
typedef struct tp_resample_port {
    tp_resample state;
    int16_t *out;
    size_t capacity;
} tp_resample_port;

/* process() of n_bytes / 2 native samples, aligned as such. TP_E_ARGUMENT: half a sample. */
ptrdiff_t tp_resample_chunk(tp_resample_port *port, const uint8_t *in, size_t n_bytes);

#endif
