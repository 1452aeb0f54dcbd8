/* The bodies of tp_voice at each level; only tp_simd.c and tp_voice.c include this. */
#ifndef TP_VOICE_KERNELS_H
#define TP_VOICE_KERNELS_H
#include "tp_simd.h"
#include "tp_voice.h"

#define TP_VOICE_KERNELS(level)                                                                                   \
    void tp_voice_octaves_##level(tp_voice_past *past, uint64_t *energy, uint64_t *below, const int16_t *in);     \
    int32_t tp_voice_repeats_##level(const tp_voice *v)

TP_VOICE_KERNELS(base);
#if TP_SIMD_HAS_AVX2
TP_VOICE_KERNELS(avx2);
#endif

#endif
