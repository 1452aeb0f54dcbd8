/* All pairs of rates at every level: exact lengths, the same samples however the input is cut, saturation and no overflow
 * at full scale, output buffers that end exactly where the samples end. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "tp_resample.h"
#include "tp_simd.h"

enum { N_IN = 3 * 960 };

enum { N_RATES = 9 };
static const uint32_t rates_hz[N_RATES] = {8000, 16000, 24000, 48000, 11025, 12000, 22050, 32000, 44100};

static uint32_t random_state = 1;
static uint32_t random_below(uint32_t bound) {
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % bound;
}

static size_t length_of(uint64_t n_in, uint32_t from_hz, uint32_t to_hz) {
    return (size_t)((n_in * to_hz + from_hz - 1) / from_hz);
}

/* Superposition: some outputs for loud noise against the sum of responses to single impulses. A sum that wrapped around
 * would be off by 65,536; the tolerance is what rounding each impulse response allows, a few hundred. */
static int check_superposition(uint32_t from_hz, uint32_t to_hz, const int16_t *in, const int16_t *out) {
    enum { N = 1200, LONGEST = 400, UNIT = 16384 };
    static int16_t impulse[N], response[6 * N];
    tp_resample state;
    for (size_t k = length_of(N / 2, from_hz, to_hz) + 100; k < length_of(N, from_hz, to_hz); k += 37) {
        double sum = 0, worst = 0;
        for (size_t i = 0; i < N; i++) {
            if (length_of(i, from_hz, to_hz) > k + 1 || length_of(i + LONGEST, from_hz, to_hz) < k) continue;
            memset(impulse, 0, sizeof impulse);
            impulse[i] = UNIT;
            CHECK(tp_resample_init(&state, from_hz, to_hz) == TP_OK);
            CHECK(tp_resample_process(&state, response, 6 * N, impulse, N) >= 0);
            sum += (double)response[k] / UNIT * in[i];
            worst += 0.5 / UNIT * abs(in[i]);
        }
        const double expected = sum > 32767 ? 32767 : sum < -32768 ? -32768 : sum;
        CHECK(out[k] - expected < worst + 1 && expected - out[k] < worst + 1);
    }
    return 0;
}

static int check_pair(uint32_t from_hz, uint32_t to_hz, bool thorough) {
    static int16_t in[N_IN], whole[6 * N_IN], chunk[480];
    tp_resample state, fresh;
    const size_t n_whole = length_of(N_IN, from_hz, to_hz);
    CHECK(tp_resample_init(&state, from_hz, to_hz) == TP_OK);
    fresh = state;
    for (size_t i = 0; i < N_IN; i++)
        in[i] = (int16_t)(i < 1000 ? (int)random_below(65536) - 32768 : random_below(2) ? 32767 : -32768);
    CHECK(tp_resample_output_length(&state, N_IN) == n_whole);
    CHECK(tp_resample_process(&state, whole, n_whole - 1, in, N_IN) == TP_E_ROOM);
    CHECK(memcmp(&state, &fresh, sizeof state) == 0);
    CHECK(tp_resample_process(&state, whole, n_whole, in, N_IN) == (ptrdiff_t)n_whole);
    tp_resample_reset(&state);
    CHECK(memcmp(&state, &fresh, sizeof state) == 0);

    size_t n_in = 0, n_out = 0;
    while (n_in < N_IN) {
        size_t n = random_below(8) == 0 ? random_below(N_IN) : random_below(40);
        if (n > N_IN - n_in) n = N_IN - n_in;
        const size_t n_expected = tp_resample_output_length(&state, n);
        int16_t *chunk_in = malloc(2 * n + 2), *chunk_out = malloc(2 * n_expected + 2);
        CHECK(chunk_in && chunk_out);
        if (n > 0) memcpy(chunk_in + 1, in + n_in, 2 * n);
        CHECK(tp_resample_process(&state, chunk_out + 1, n_expected, chunk_in + 1, n) == (ptrdiff_t)n_expected);
        CHECK(memcmp(chunk_out + 1, whole + n_out, 2 * n_expected) == 0);
        free(chunk_in);
        free(chunk_out);
        n_in += n;
        n_out += n_expected;
        CHECK(n_out == length_of(n_in, from_hz, to_hz));
    }
    const uint32_t delay = tp_resample_delay(&state);
    CHECK(from_hz == to_hz ? delay == 0 : delay * 1000 <= (to_hz > from_hz ? 2 : 4) * to_hz);

    tp_resample_port port = {.out = chunk, .capacity = n_whole - 1};
    CHECK(tp_resample_init(&port.state, from_hz, to_hz) == TP_OK);
    CHECK(tp_resample_chunk(&port, (const uint8_t *)in, 2 * 80 + 1) == TP_E_ARGUMENT);
    CHECK(tp_resample_chunk(&port, (const uint8_t *)in, 2 * N_IN) == TP_E_ROOM);
    port.capacity = 480;
    const size_t n_chunk = length_of(80, from_hz, to_hz);
    CHECK(tp_resample_chunk(&port, (const uint8_t *)in, 2 * 80) == (ptrdiff_t)n_chunk);
    CHECK(memcmp(chunk, whole, 2 * n_chunk) == 0);
    return thorough && from_hz != to_hz ? check_superposition(from_hz, to_hz, in, whole) : 0;
}

int main(void) {
    tp_resample state;
    CHECK(sizeof state <= 1536);
    CHECK(tp_resample_init(&state, 8000, 9600) == TP_E_ARGUMENT);
    CHECK(tp_resample_init(&state, 0, 8000) == TP_E_ARGUMENT);
    for (int level = 0; level <= tp_simd_level_best(); level++) {
        CHECK(tp_simd_select(level) == level);
        for (size_t from = 0; from < N_RATES; from++)
            for (size_t to = 0; to < N_RATES; to++) {
                const bool thorough = level == 0 && ((from < 4 && to < 4) || (from == 0 && to == 4) || (from == 4 && to == 0));
                CHECK(check_pair(rates_hz[from], rates_hz[to], thorough) == 0);
            }
    }
    return 0;
}
