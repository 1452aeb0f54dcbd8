#include "tp_simd.h"

#include "tp_g711_kernels.h"
#include "tp_resample_kernels.h"
#include "tp_voice_kernels.h"

static const tp_kernels levels[] = {
    {tp_g711_pcmu_decode_base, tp_g711_pcmu_encode_base, tp_g711_pcma_decode_base, tp_g711_pcma_encode_base,
     TP_RESAMPLE_KERNELS(base), tp_voice_octaves_base, tp_voice_repeats_base},
#if TP_SIMD_HAS_AVX2
    {tp_g711_pcmu_decode_avx2, tp_g711_pcmu_encode_avx2, tp_g711_pcma_decode_avx2, tp_g711_pcma_encode_avx2,
     TP_RESAMPLE_KERNELS(avx2), tp_voice_octaves_avx2, tp_voice_repeats_avx2},
#endif
};

static const tp_kernels *in_use = &levels[TP_SIMD_BASE];

int tp_simd_level_best(void) {
#if TP_SIMD_HAS_AVX2
    return __builtin_cpu_supports("avx2") ? TP_SIMD_AVX2 : TP_SIMD_BASE;
#else
    return TP_SIMD_BASE;
#endif
}

int tp_simd_select(int level) {
    const int best = tp_simd_level_best();
    if (level < -1 || level > best) return TP_E_ARGUMENT;
    if (level == -1) level = best;
    in_use = &levels[level];
    return level;
}

int tp_simd_level_in_use(void) { return (int)(in_use - levels); }

const tp_kernels *tp_simd_kernels(void) { return in_use; }
