/* Every sample and every octet through both laws at every level, at lengths around the block size, from buffers that end
 * exactly where the data ends, so that a sanitizer sees a read or write beyond. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "tp_g711.h"
#include "tp_simd.h"

/* The laws as G.711 words them: search the segment, then the step. */
static uint8_t pcmu_by_segments(int sample) {
    int magnitude = ((sample < 0 ? ~sample : sample) >> 2) + 33, segment = 0;
    if (magnitude > 8191) magnitude = 8191;
    while (magnitude >> (segment + 6)) segment++;
    const int step = magnitude >> (segment + 1) & 15;
    return (uint8_t)(~(segment << 4 | step | (sample < 0 ? 0x80 : 0)) & 0xff);
}

static uint8_t pcma_by_segments(int sample) {
    const int magnitude = (sample < 0 ? ~sample : sample) >> 4;
    int segment = 0;
    while (magnitude >> (segment + 5)) segment++;
    if (magnitude >= 16) segment++;
    const int step = magnitude >> (segment > 1 ? segment - 1 : 0) & 15;
    return (uint8_t)((segment << 4 | step | (sample < 0 ? 0 : 0x80)) ^ 0x55);
}

static int16_t pcmu_value(uint8_t octet) {
    const int code = octet ^ 0xff;
    const int magnitude = ((2 * (code & 15) + 33) << (code >> 4 & 7)) - 33;
    return (int16_t)(4 * (code & 0x80 ? -magnitude : magnitude));
}

static int16_t pcma_value(uint8_t octet) {
    const int code = octet ^ 0x55, segment = code >> 4 & 7;
    const int magnitude = segment == 0 ? 2 * (code & 15) + 1 : (2 * (code & 15) + 33) << (segment - 1);
    return (int16_t)(8 * (code & 0x80 ? magnitude : -magnitude));
}

static int check_level(void) {
    static int16_t samples[65536], decoded[65536];
    static uint8_t octets[65536];
    for (int i = 0; i < 65536; i++) samples[i] = (int16_t)(i - 32768);
    tp_g711_pcmu_encode(octets, samples, 65536);
    for (int i = 0; i < 65536; i++) CHECK(octets[i] == pcmu_by_segments(i - 32768));
    tp_g711_pcma_encode(octets, samples, 65536);
    for (int i = 0; i < 65536; i++) CHECK(octets[i] == pcma_by_segments(i - 32768));
    for (int i = 0; i < 256; i++) octets[i] = (uint8_t)i;
    tp_g711_pcmu_decode(decoded, octets, 256);
    for (int i = 0; i < 256; i++) CHECK(decoded[i] == pcmu_value((uint8_t)i));
    tp_g711_pcma_decode(decoded, octets, 256);
    for (int i = 0; i < 256; i++) CHECK(decoded[i] == pcma_value((uint8_t)i));

    for (uint32_t encoding = TP_ENCODING_PCMU; encoding <= TP_ENCODING_L16BE; encoding++) {
        for (size_t n = 0; n <= 100; n++) {
            const size_t n_bytes = n * tp_sample_bytes(encoding);
            uint8_t *bytes = malloc(n_bytes + 1), *again = malloc(n_bytes + 1);
            int16_t *linear = malloc(2 * n + 2);
            CHECK(bytes && again && linear);
            /* +1: an odd address for the bytes; the end is the allocation's */
            for (size_t i = 0; i < n_bytes; i++) bytes[1 + i] = (uint8_t)(37 * i + 11 * n);
            for (size_t i = 0; i < n_bytes; i++)
                if (encoding == TP_ENCODING_PCMU && bytes[1 + i] == 0x7f) bytes[1 + i] = 0xff;
            CHECK(tp_g711_decode(encoding, linear + 1, bytes + 1, n) == TP_OK);
            CHECK(tp_g711_encode(encoding, again + 1, linear + 1, n) == TP_OK);
            CHECK(memcmp(bytes + 1, again + 1, n_bytes) == 0);
            CHECK(tp_g711_silence(encoding, again + 1, n) == TP_OK);
            CHECK(tp_g711_decode(encoding, linear + 1, again + 1, n) == TP_OK);
            for (size_t i = 1; i <= n; i++) CHECK(linear[i] == (encoding == TP_ENCODING_PCMA ? 8 : 0));
            free(bytes);
            free(again);
            free(linear);
        }
    }
    return 0;
}

int main(void) {
    CHECK(tp_simd_level_in_use() == TP_SIMD_BASE);
    CHECK(tp_simd_select(TP_SIMD_AVX2 + 1) == TP_E_ARGUMENT);
    CHECK(tp_simd_select(-2) == TP_E_ARGUMENT);
    for (int level = 0; level <= tp_simd_level_best(); level++) {
        CHECK(tp_simd_select(level) == level);
        CHECK(tp_simd_level_in_use() == level);
        CHECK(check_level() == 0);
    }
    CHECK(tp_simd_select(-1) == tp_simd_level_best());

    int16_t sample = 258;
    uint8_t bytes[2];
    CHECK(tp_g711_encode(TP_ENCODING_L16BE, bytes, &sample, 1) == TP_OK && bytes[0] == 1 && bytes[1] == 2);
    CHECK(tp_g711_encode(TP_ENCODING_L16LE, bytes, &sample, 1) == TP_OK && bytes[0] == 2 && bytes[1] == 1);
    CHECK(tp_g711_encode(TP_ENCODING_NONE, bytes, &sample, 1) == TP_E_ARGUMENT);
    CHECK(tp_g711_decode(5, &sample, bytes, 1) == TP_E_ARGUMENT);
    CHECK(tp_g711_silence(5, bytes, 1) == TP_E_ARGUMENT);
    return 0;
}
