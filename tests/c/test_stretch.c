/* tp_stretch and tp_noise under the sanitizers: every input and output lies in a heap block of exactly its size. */
#include "../../csrc/tp_noise.h"
#include "../../csrc/tp_stretch.h"
#include "check.h"
#include <stdlib.h>

static uint32_t seed = 1;
static uint32_t next(void) {
    seed = seed * 1664525u + 1013904223u;
    return seed >> 8;
}

static int any_frame(void) {
    for (int round = 0; round < 4000; round++) {
        uint32_t rate = next() % 2 ? 8000 : 16000, urgency = next() % 5;
        size_t n = TP_STRETCH_MIN_FRAME + next() % (TP_STRETCH_MAX_FRAME - TP_STRETCH_MIN_FRAME + 1), n_in = n + next() % (2 * n), wanted = next() % 1200;
        int16_t *in = malloc(n_in * sizeof *in), *out = malloc(n * sizeof *out);
        uint32_t kind = next() % 4, period = 1 + next() % 300;
        for (size_t i = 0; i < n_in; i++)
            in[i] = (int16_t)(kind == 0   ? (int32_t)(next() & 0xffff) - 32768
                              : kind == 1 ? (i / period % 2 ? 32767 : -32768)
                              : kind == 2 ? (int32_t)(next() % 100)
                                          : (int32_t)(i % period * 60000 / period) - 30000);
        int removed = tp_stretch_shorten(out, n, in, n_in, wanted, rate, urgency);
        CHECK(removed >= 0 && (size_t)removed <= wanted && (size_t)removed <= n_in - n);
        CHECK(out[n - 1] == in[n - 1 + (size_t)removed] || removed > 0);
        int repeated = tp_stretch_lengthen(out, n, in, wanted, rate, urgency);
        CHECK(repeated >= 0 && (size_t)repeated < n);
        CHECK(out[0] == in[0]);
        free(in);
        free(out);
    }
    return 0;
}

static int any_noise(void) {
    tp_noise noise;
    tp_noise_reset(&noise, 5);
    for (int round = 0; round < 2000; round++) {
        size_t n = next() % 40, n_out = next() % 500;
        uint8_t *payload = malloc(n ? n : 1);
        int16_t *out = malloc(n_out ? n_out * sizeof *out : 1);
        for (size_t i = 0; i < n; i++) payload[i] = (uint8_t)next();
        CHECK(tp_noise_receive(&noise, payload, n) == (n ? TP_OK : TP_E_FORMAT));
        if (next() % 5 == 0) tp_noise_fade(&noise);
        tp_noise_fill(&noise, out, n_out);
        free(payload);
        free(out);
    }
    return 0;
}

int main(void) { return any_frame() || any_noise(); }
