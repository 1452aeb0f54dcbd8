#include "tp_g711.h"

#include "tp_g711_kernels.h"

enum {
    BLOCK = 32,
    /* (127 + e) << 4 of the float that a code of segment 0 stands for, e = log2 of that segment's step * 16 */
    PCMU_ENCODE_BIAS = (127 + 5) << 4, /* 33..63 is segment 0 */
    PCMU_DECODE_BIAS = (127 + 7) << 4, /* the same, times 4: 16-bit scale */
    PCMA_ENCODE_BIAS = (127 + 3) << 4, /* 16..31 is segment 1 */
    PCMA_DECODE_BIAS = (127 + 7) << 4
};

typedef union float_bits {
    float value;
    int32_t bits;
} float_bits;

static inline float float_of_bits(int32_t bits) { return (float_bits){.bits = bits}.value; }
static inline int32_t bits_of_float(float value) { return (float_bits){.value = value}.bits; }

#define TP_LEVEL base
#define TP_TARGET
#include "tp_g711_body.inc"

#if TP_SIMD_HAS_AVX2
#include <immintrin.h>
#define TP_WITH_AVX2
#define TP_LEVEL avx2
#define TP_TARGET __attribute__((target("avx2")))
#include "tp_g711_body.inc"
#endif

void tp_g711_pcmu_decode(int16_t *out, const uint8_t *in, size_t n) { tp_simd_kernels()->pcmu_decode(out, in, n); }
void tp_g711_pcmu_encode(uint8_t *out, const int16_t *in, size_t n) { tp_simd_kernels()->pcmu_encode(out, in, n); }
void tp_g711_pcma_decode(int16_t *out, const uint8_t *in, size_t n) { tp_simd_kernels()->pcma_decode(out, in, n); }
void tp_g711_pcma_encode(uint8_t *out, const int16_t *in, size_t n) { tp_simd_kernels()->pcma_encode(out, in, n); }

/* Swaps the bytes of n 16-bit words; in blocks, so that it becomes vectors. */
static void swap_words(void *out, const void *in, size_t n) {
    uint16_t words[BLOCK] = {0};
    for (size_t done = 0; done < n; done += BLOCK) {
        const size_t bytes = 2 * (n - done < BLOCK ? n - done : BLOCK);
        memcpy(words, (const uint8_t *)in + 2 * done, bytes);
        for (size_t i = 0; i < BLOCK; i++) words[i] = (uint16_t)(words[i] << 8 | words[i] >> 8);
        memcpy((uint8_t *)out + 2 * done, words, bytes);
    }
}

static void copy_words(void *out, const void *in, size_t n, bool little_endian) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    little_endian = !little_endian;
#endif
    if (n == 0) return;
    if (little_endian)
        memcpy(out, in, 2 * n);
    else
        swap_words(out, in, n);
}

int tp_g711_decode(uint32_t encoding, int16_t *out, const uint8_t *in, size_t n) {
    switch (encoding) {
    case TP_ENCODING_PCMU: tp_g711_pcmu_decode(out, in, n); return TP_OK;
    case TP_ENCODING_PCMA: tp_g711_pcma_decode(out, in, n); return TP_OK;
    case TP_ENCODING_L16LE: copy_words(out, in, n, true); return TP_OK;
    case TP_ENCODING_L16BE: copy_words(out, in, n, false); return TP_OK;
    default: return TP_E_ARGUMENT;
    }
}

int tp_g711_encode(uint32_t encoding, uint8_t *out, const int16_t *in, size_t n) {
    switch (encoding) {
    case TP_ENCODING_PCMU: tp_g711_pcmu_encode(out, in, n); return TP_OK;
    case TP_ENCODING_PCMA: tp_g711_pcma_encode(out, in, n); return TP_OK;
    case TP_ENCODING_L16LE: copy_words(out, in, n, true); return TP_OK;
    case TP_ENCODING_L16BE: copy_words(out, in, n, false); return TP_OK;
    default: return TP_E_ARGUMENT;
    }
}

int tp_g711_silence(uint32_t encoding, uint8_t *out, size_t n) {
    int octet;
    switch (encoding) {
    case TP_ENCODING_PCMU: octet = 0xff; break;
    case TP_ENCODING_PCMA: octet = 0xd5; break;
    case TP_ENCODING_L16LE:
    case TP_ENCODING_L16BE: octet = 0; break;
    default: return TP_E_ARGUMENT;
    }
    if (n > 0) memset(out, octet, n * tp_sample_bytes(encoding));
    return TP_OK;
}
