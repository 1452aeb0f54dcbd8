/* tp_active: how loud somebody speaks while he speaks: active speech level and activity.
 *
 * What it does. The mean level of a track counts its pauses, so the same voice measures less the less it says. The active
 *   speech level counts only the time in which there is speech, and says what share of the whole that is.
 *
 * How it works. ITU-T P.56, method B. The rectified signal goes through two equal one-pole filters of 30 ms; for each of
 *   fifteen thresholds, a factor of two apart, the time is counted in which that envelope is at or above it, or was within
 *   the last 200 ms. Dividing the whole energy by each of these times gives fifteen levels; the active level is the one
 *   that lies 15.9 dB above its own threshold, found between two of them by a straight line in dB. Integers: envelopes have
 *   16 bits of fraction, and the counts are moved on only where the envelope crosses a threshold, which is rare.
 *
 * How to use it. init; receive; fillin what is missing (counted as silence); measure at any time.
 *
 * Acceptance: within 0.1 dB and 0.5 % of the definition in floating point (tests/dsp/test_active.py). Below 5 us a frame
 *   of 20 ms at 8 kHz. Source: ITU-T P.56 (2011) section 5. */
#ifndef TP_ACTIVE_H
#define TP_ACTIVE_H
#include "tp_base.h"

#define TP_ACTIVE_THRESHOLDS 15 /* 1, 2, 4 .. 16384 */

typedef struct tp_active {
    uint32_t rate_hz, hangover;    /* samples */
    int64_t share;                 /* of the filters: 1 - exp(-1 / (rate * 30 ms)), times 2^31 */
    int64_t first, second;         /* the filters' outputs, times 2^16 */
    uint64_t energy, n_samples;
    uint32_t above;                /* thresholds that the envelope is at or above */
    uint32_t reserved;
    uint64_t run;                  /* samples since `above` changed, not counted yet */
    uint64_t active[TP_ACTIVE_THRESHOLDS];
    uint32_t quiet[TP_ACTIVE_THRESHOLDS]; /* of the hangover, samples used up */
} tp_active;

int tp_active_init(tp_active *active, uint32_t rate_hz); /* TP_E_ARGUMENT: not 8000, 16000, 24000 or 48000 */
void tp_active_reset(tp_active *active);
void tp_active_receive(tp_active *active, const int16_t *in, size_t n);
void tp_active_fillin(tp_active *active, size_t n);
int32_t tp_active_dbov_x100(const tp_active *active); /* TP_LEVEL_SILENCE_DBOV_X100 when nothing was active */

#endif
