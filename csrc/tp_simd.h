/* tp_simd: which instruction set the kernels use.
 *
 * What it does. One table of kernels per level (base, AVX2), one pointer to the table in use.
 * How it works. Kernel bodies live in one include compiled once per level under target attributes; every level gives
 * identical bytes. NEON is the base on aarch64 and needs no dispatch.
 * How to use it. tp_simd_select(-1) once at import picks the best level the machine has; a level forces it (tests). */
#ifndef TP_SIMD_H
#define TP_SIMD_H
#include "tp_base.h"

typedef enum tp_simd_level { TP_SIMD_BASE = 0, TP_SIMD_AVX2 = 1 } tp_simd_level;

int tp_simd_select(int level);        /* -> the level now in use; TP_E_ARGUMENT when the machine lacks it */
int tp_simd_level_in_use(void);
int tp_simd_level_best(void);

#endif
