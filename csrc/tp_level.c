#include "tp_level.h"

enum { BLOCK = 32, LOG2_BITS = 20 };

void tp_level_reset(tp_level *level) { memset(level, 0, sizeof *level); }

/* A block of constant length, which becomes vectors; two squares fit uint32, three need not. */
static inline uint64_t block_energy(const int16_t *in) {
    uint32_t pairs[BLOCK / 2];
    uint64_t energy = 0;
    for (size_t i = 0; i < BLOCK / 2; i++)
        pairs[i] = (uint32_t)(in[i] * in[i]) + (uint32_t)(in[i + BLOCK / 2] * in[i + BLOCK / 2]);
    for (size_t i = 0; i < BLOCK / 2; i++) energy += pairs[i];
    return energy;
}

uint64_t tp_level_energy(const int16_t *in, size_t n) {
    uint64_t energy = 0;
    for (; n >= BLOCK; n -= BLOCK, in += BLOCK) energy += block_energy(in);
    for (size_t i = 0; i < n; i++) energy += (uint64_t)(in[i] * in[i]);
    return energy;
}

static inline void block_extremes(const int16_t *in, size_t n, int16_t *low, int16_t *high, uint64_t *n_clipped) {
    int16_t least = *low, most = *high;
    uint16_t clipped = 0;
    for (size_t i = 0; i < n; i++) {
        least = in[i] < least ? in[i] : least;
        most = in[i] > most ? in[i] : most;
        clipped = (uint16_t)(clipped + (in[i] == 32767) + (in[i] == -32768));
    }
    *low = least;
    *high = most;
    *n_clipped += clipped;
}

void tp_level_receive(tp_level *level, const int16_t *in, size_t n) {
    int16_t low = 0, high = 0;
    level->energy += tp_level_energy(in, n);
    level->n_samples += n;
    for (; n >= BLOCK; n -= BLOCK, in += BLOCK) block_extremes(in, BLOCK, &low, &high, &level->n_clipped);
    block_extremes(in, n, &low, &high, &level->n_clipped);
    const int32_t peak = -(int32_t)low > high ? -(int32_t)low : high;
    if (peak > level->peak) level->peak = peak;
}

void tp_level_fillin(tp_level *level, size_t n) { level->n_samples += n; }

/* log2(x) << LOG2_BITS, rounded down, x > 0: the integer part is the highest bit, and squaring the mantissa shifts out one
 * bit of the fraction after the other. */
static int64_t log2_of(uint64_t x) {
    int64_t whole = 63;
    for (; !(x >> 63); x <<= 1) whole--;
    int64_t result = whole << LOG2_BITS;
    uint64_t mantissa = x >> 32; /* [1, 2) << 31 */
    for (int64_t bit = (int64_t)1 << (LOG2_BITS - 1); bit > 0; bit >>= 1) {
        mantissa = mantissa * mantissa >> 31;
        if (mantissa >> 32) {
            mantissa >>= 1;
            result += bit;
        }
    }
    return result;
}

int32_t tp_level_dbov_x100(uint64_t energy, uint64_t n_samples) {
    if (energy == 0 || n_samples == 0) return TP_LEVEL_SILENCE_DBOV_X100;
    /* 10 log10(energy / n / 2^30) in hundredths; 1000 log10(2) = 301.0299957 */
    const int64_t ratio = log2_of(energy) - log2_of(n_samples) - ((int64_t)30 << LOG2_BITS);
    if (ratio >= 0) return 0;
    const int64_t x100 = -((-ratio * 3010300 + ((int64_t)5000 << LOG2_BITS)) / ((int64_t)10000 << LOG2_BITS));
    return x100 < TP_LEVEL_SILENCE_DBOV_X100 ? TP_LEVEL_SILENCE_DBOV_X100 : (int32_t)x100;
}
