#ifndef TP_LEVEL_H
#define TP_LEVEL_H
#include "tp_base.h"

/* Sum of squares, peak and clipping of a block; dBov is made from it by whoever shows it. */
typedef struct tp_level {
    uint64_t energy;    /* sum of squares since reset */
    uint64_t n_samples; /* samples since reset, missing ones included */
    uint64_t n_clipped; /* samples at full scale */
    int32_t peak;       /* largest |sample| */
    int32_t reserved;
} tp_level;

void tp_level_reset(tp_level *level);
void tp_level_receive(tp_level *level, const int16_t *in, size_t n);
void tp_level_fillin(tp_level *level, size_t n); /* n samples are missing: counted as silence */
/* Energy of one block alone, and in hundredths of dBov (RFC 6464: 0 = square wave at full scale, -12700 = silence). */
uint64_t tp_level_energy(const int16_t *in, size_t n);
int32_t tp_level_dbov_x100(uint64_t energy, uint64_t n_samples);

#endif
