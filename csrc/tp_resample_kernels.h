/* The bodies of tp_resample at each level; only tp_simd.c and tp_resample.c include this. */
#ifndef TP_RESAMPLE_KERNELS_H
#define TP_RESAMPLE_KERNELS_H
#include "tp_simd.h"

/* The order of tp_kernels.resample. */
#define TP_RESAMPLE_KERNELS(level)                                                                             \
    {tp_resample_2_1_##level, tp_resample_3_1_##level, tp_resample_6_1_##level, tp_resample_3_2_##level,       \
     tp_resample_1_2_##level, tp_resample_1_3_##level, tp_resample_1_6_##level, tp_resample_2_3_##level},      \
        tp_resample_any_up_##level, tp_resample_any_down_##level

#define TP_RESAMPLE_DECLARE(level)                                                                             \
    tp_resample_kernel tp_resample_2_1_##level, tp_resample_3_1_##level, tp_resample_6_1_##level,              \
        tp_resample_3_2_##level, tp_resample_1_2_##level, tp_resample_1_3_##level, tp_resample_1_6_##level,    \
        tp_resample_2_3_##level;                                                                               \
    tp_resample_any_up_kernel tp_resample_any_up_##level;                                                      \
    tp_resample_any_down_kernel tp_resample_any_down_##level

TP_RESAMPLE_DECLARE(base);
#if TP_SIMD_HAS_AVX2
TP_RESAMPLE_DECLARE(avx2);
#endif

#endif
