/* Sums at full scale, where squares are largest, at lengths around the block size; dBov at its corners. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "tp_level.h"

static int check_length(size_t n) {
    int16_t *in = malloc(2 * n + 2);
    uint64_t energy = 0;
    tp_level level;
    CHECK(in);
    for (size_t i = 0; i < n; i++) in[1 + i] = i % 3 ? -32768 : 32767;
    for (size_t i = 0; i < n; i++) energy += (uint64_t)((int64_t)in[1 + i] * in[1 + i]);
    tp_level_reset(&level);
    tp_level_receive(&level, in + 1, n);
    tp_level_fillin(&level, 30);
    CHECK(level.energy == energy && level.n_samples == n + 30 && level.n_clipped == n);
    CHECK(level.peak == (n > 1 ? 32768 : n == 1 ? 32767 : 0));
    CHECK(tp_level_energy(in + 1, n) == energy);
    free(in);
    return 0;
}

int main(void) {
    for (size_t n = 0; n <= 200; n++) CHECK(check_length(n) == 0);
    CHECK(tp_level_dbov_x100((uint64_t)1 << 30, 1) == 0);
    CHECK(tp_level_dbov_x100((uint64_t)1 << 29, 1) == -301);
    CHECK(tp_level_dbov_x100(UINT64_MAX, 1) == 0);
    CHECK(tp_level_dbov_x100(1, UINT64_MAX) == TP_LEVEL_SILENCE_DBOV_X100);
    CHECK(tp_level_dbov_x100(0, 5) == TP_LEVEL_SILENCE_DBOV_X100);
    CHECK(tp_level_dbov_x100(5, 0) == TP_LEVEL_SILENCE_DBOV_X100);
    return 0;
}
