/* The corners of int32 and of the gains' range, lengths around the block size, and a tape smaller than what is written. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "tp_mix.h"
#include "tp_tape.h"

static int check_limits(size_t n) {
    int32_t *sum = malloc(4 * n + 4);
    int16_t *out = malloc(2 * n + 2);
    tp_limiter limiter;
    CHECK(sum != NULL && out != NULL);
    CHECK(tp_limiter_init(&limiter, 8000) == TP_OK);
    for (size_t i = 0; i < n; i++) sum[i] = i % 3 == 0 ? INT32_MIN : i % 3 == 1 ? INT32_MAX : (int32_t)i;
    size_t n_limited = tp_limiter_process(&limiter, out, sum, n);
    CHECK(n_limited == n);
    for (size_t i = 0; i < n; i++) CHECK(out[i] >= -32767 && out[i] <= 32767);
    for (size_t i = 0; i + 2 < n; i += 3) CHECK(out[i] < -32700 && out[i + 1] > 32700);
    tp_limiter_reset(&limiter);
    for (size_t i = 0; i < n; i++) sum[i] = i % 2 != 0 ? TP_LIMITER_KNEE : -TP_LIMITER_KNEE;
    CHECK(tp_limiter_process(&limiter, out, sum, n) == 0 && tp_limiter_is_idle(&limiter));
    for (size_t i = 0; i < n; i++) CHECK(out[i] == sum[i]);
    free(sum);
    free(out);
    return 0;
}

static int check_gains(void) {
    tp_gain gain;
    int16_t in[100], out[100];
    int32_t sum[100] = {0};
    for (size_t i = 0; i < 100; i++) in[i] = i % 2 != 0 ? 32767 : -32768;
    tp_gain_init(&gain, 0);
    CHECK(tp_gain_set(&gain, -6001) == TP_E_ARGUMENT && tp_gain_set(&gain, 1801) == TP_E_ARGUMENT && tp_gain_is_unity(&gain));
    for (int32_t db_x100 = TP_GAIN_LEAST_DB_X100; db_x100 <= TP_GAIN_MOST_DB_X100; db_x100++) {
        int32_t before = db_x100 == TP_GAIN_LEAST_DB_X100 ? 0 : gain.to;
        CHECK(tp_gain_set(&gain, db_x100) == TP_OK && gain.to >= before);
        tp_gain_process(&gain, out, in, 100);
        tp_mix_add(sum, in, 100, &gain);
        memset(sum, 0, sizeof sum);
    }
    CHECK(gain.to == 65071 && out[1] == 32767 && out[0] == -32768);
    CHECK(tp_gain_set(&gain, TP_GAIN_MUTE) == TP_OK);
    tp_gain_process(&gain, in, in, 100);
    CHECK(in[0] == 0 && in[99] == 0);
    tp_gain_init(&gain, 1000);
    CHECK(tp_gain_set(&gain, 1800) == TP_OK && !tp_gain_is_unity(&gain));
    tp_gain_process(&gain, out, in, 100);
    CHECK(gain.left == 900);
    CHECK(tp_gain_set(&gain, 0) == TP_OK && gain.from > TP_GAIN_UNITY && gain.left == 1000);
    tp_gain_settle(&gain);
    CHECK(tp_gain_is_unity(&gain));
    return 0;
}

static int check_tape(void) {
    int16_t pairs[2 * 10], left[64], right[64], out[2 * 10];
    tp_tape tape;
    int64_t from = 1000, lost;
    CHECK(tp_tape_init(&tape, pairs, 0, 0) == TP_E_ARGUMENT);
    CHECK(tp_tape_init(&tape, pairs, 10, 1000) == TP_OK);
    for (int16_t i = 0; i < 64; i++) {
        left[i] = i;
        right[i] = (int16_t)-i;
    }
    tp_tape_write(&tape, 1000, left, right, 64);
    CHECK(tape.end == 1064);
    CHECK(tp_tape_read(&tape, out, 4, &from, &lost) == 4 && lost == 54 && from == 1058 && out[0] == 54 && out[7] == -57);
    tp_tape_write(&tape, (int64_t)1 << 40, NULL, right, 3);
    CHECK(tp_tape_read(&tape, out, 10, &from, &lost) == 10 && from == ((int64_t)1 << 40) + 3);
    CHECK(out[13] == 0 && out[14] == 0 && out[17] == -1 && out[18] == 0 && out[19] == -2);
    CHECK(tp_tape_read(&tape, out, 10, &from, &lost) == 0 && lost == 0);
    return 0;
}

int main(void) {
    for (size_t n = 0; n <= 100; n++) CHECK(check_limits(n) == 0);
    CHECK(check_gains() == 0);
    CHECK(check_tape() == 0);
    return 0;
}
