/* The bodies of tp_g711 at each level; only tp_simd.c and tp_g711.c include this. */
#ifndef TP_G711_KERNELS_H
#define TP_G711_KERNELS_H
#include "tp_simd.h"

#define TP_G711_KERNELS(level)                                                                \
    void tp_g711_pcmu_decode_##level(int16_t *out, const uint8_t *in, size_t n);              \
    void tp_g711_pcmu_encode_##level(uint8_t *out, const int16_t *in, size_t n);              \
    void tp_g711_pcma_decode_##level(int16_t *out, const uint8_t *in, size_t n);              \
    void tp_g711_pcma_encode_##level(uint8_t *out, const int16_t *in, size_t n)

TP_G711_KERNELS(base);
#if TP_SIMD_HAS_AVX2
TP_G711_KERNELS(avx2);
#endif

#endif
