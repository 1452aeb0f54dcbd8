/* tp_resample: streaming conversion between any two of 8, 16, 24 and 48 kHz.
 *
 * What it does. Takes chunks of any length and gives, after n input samples since reset, exactly ceil(n * to / from)
 *   output samples: nothing is held back, so 20 ms in is 20 ms out, every time, and a queue behind it cannot breathe. What
 *   it costs is delay() samples of delay, the same for all frequencies. Equal rates copy, without delay.
 *
 * How it works. Polyphase FIR: a low-pass at up * from_hz of which each output needs one phase, a product sum of int16
 *   taps over the newest inputs. Taps come from tables/gen_tables.py: 32 per phase upwards (pass to 3400 Hz, stop from
 *   4600 Hz where the lower rate is 8 kHz, in proportion elsewhere); downwards as long as 4 ms of delay allow, because
 *   there the stop band begins at half the new rate (4000 Hz) and sibilants of wide-band speech must not fold into the
 *   telephone band. Sums are int32 in eight lanes, each shifted before they are added, then rounded to nearest and
 *   saturated: the same bytes from every instruction set and for every way of cutting the input into chunks.
 *
 * How to use it. init once, process chunk after chunk; output_length tells what the next process of n_in writes, and
 *   with less capacity process does nothing and answers TP_E_ROOM. `out` and `in` do not overlap. reset forgets the past.
 *   There is no fillin: for missing audio process concealment or zeros, the clock must go on. Align tracks by
 *   dropping or adding delay() output samples.
 *
 * Acceptance (tests/dsp/test_resample.py measures each): images and aliases <= -75 dB, ripple 300..3400 Hz <= 0.05 dB;
 *   delay 1.94 ms (8->16), 1.96 (8->24), 1.98 (8->48), 3.875 (to 8), less between higher rates.
 *
 *     ratio        2/1   3/1   6/1   3/2   1/2   1/3   2/3   1/6
 *     taps/phase    32    32    32    32   128   192    96   384
 *     delay, out    31    47    95    23    31    31    31    31
 *
 * Source: polyphase decomposition and Kaiser's window are textbook material; own filters. */
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

int tp_resample_init(tp_resample *state, uint32_t from_hz, uint32_t to_hz); /* TP_E_ARGUMENT: a rate it does not know */
void tp_resample_reset(tp_resample *state);
size_t tp_resample_output_length(const tp_resample *state, size_t n_in); /* what the next process() of n_in will write */
ptrdiff_t tp_resample_process(tp_resample *state, int16_t *out, size_t out_capacity, const int16_t *in, size_t n_in);
uint32_t tp_resample_delay(const tp_resample *state);

#endif
