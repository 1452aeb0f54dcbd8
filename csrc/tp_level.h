/* tp_level: how loud a block of audio is.
 *
 * What it does. Sum of squares, peak and clipped samples of everything received since reset; the energy of one block
 *   alone; and dBov of an energy, for whoever shows it or compares it with a threshold.
 *
 * How it works. Integers only: a sum of squares is exact for 2^34 samples, so two ways of cutting the audio into blocks
 *   give the same figures. dBov comes from a binary logarithm by repeated squaring, 20 bits of fraction, so that the
 *   hundredth is the same on every machine and no mathematics library is linked.
 *
 * How to use it. One tp_level per track; receive what there is, fillin what is missing, read the members. For an energy
 *   gate call tp_level_energy on each frame and compare with a threshold squared.
 *
 * Acceptance: equal to exact integer sums; dBov within 0.006 dB of the definition from 1 to 2^40 of energy.
 * Source: RFC 6464 section 3 for dBov: 0 is a square wave at full scale, a full-scale sine is -3.01, the floor is -127. */
#ifndef TP_LEVEL_H
#define TP_LEVEL_H
#include "tp_base.h"

#define TP_LEVEL_SILENCE_DBOV_X100 (-12700)

typedef struct tp_level {
    uint64_t energy;    /* sum of squares since reset */
    uint64_t n_samples; /* samples since reset, missing ones included */
    uint64_t n_clipped; /* samples at full scale, 32767 or -32768 */
    int32_t peak;       /* largest |sample|, up to 32768 */
    int32_t reserved;
} tp_level;

void tp_level_reset(tp_level *level);
void tp_level_receive(tp_level *level, const int16_t *in, size_t n);
void tp_level_fillin(tp_level *level, size_t n); /* n samples are missing: counted as silence */
/* Energy of one block alone, and in hundredths of dBov (0 = square wave at full scale, -12700 = silence or no sample). */
uint64_t tp_level_energy(const int16_t *in, size_t n);
int32_t tp_level_dbov_x100(uint64_t energy, uint64_t n_samples);

#endif
