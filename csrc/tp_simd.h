/* tp_simd: which instruction set the kernels use.
 *
 * What it does. One table of kernels per level (base, AVX2), one pointer to the table in use. Base is what the compiler
 *   may assume anyway: SSE2 on x86-64, NEON on aarch64, plain C elsewhere.
 * How it works. Kernel bodies live in tp_g711_body.inc, tp_resample_body.inc and tp_voice_body.inc, compiled once per level
 *   under target attributes. No ifunc, no constructor, no lazy choice: until somebody selects, base is in use. Every level gives
 *   identical bytes: integer sums in a fixed order of truncations, floats only where each step is exact.
 * How to use it. tp_simd_select(-1) once at import, before any other thread calls the core, takes the best level the
 *   machine has; a level forces it (tests run each and compare). Modules call through tp_simd_kernels().
 *
 * Acceptance: tests/dsp run every kernel at every level on the same input and demand equal bytes. */
#ifndef TP_SIMD_H
#define TP_SIMD_H
#include "tp_base.h"

typedef enum tp_simd_level { TP_SIMD_BASE = 0, TP_SIMD_AVX2 = 1 } tp_simd_level;

int tp_simd_select(int level);        /* -> the level now in use; TP_E_ARGUMENT when the machine lacks it */
int tp_simd_level_in_use(void);
int tp_simd_level_best(void);

/* For modules of the core. */
#if defined(__x86_64__) && defined(__GNUC__)
#define TP_SIMD_HAS_AVX2 1
#else
#define TP_SIMD_HAS_AVX2 0
#endif

/* One per ratio of rates: n_out samples, the first at `offset` input samples * up after the newest sample of x[0..n_taps). */
typedef void tp_resample_kernel(int16_t *out, size_t n_out, const int16_t *x, uint32_t offset);
enum { TP_RESAMPLE_N_RATIOS = 8 };
/* Any ratio: output j lies `at` + j * down, in 1 / up of an input sample, after x[15], which is where its taps begin. */
typedef void tp_resample_any_up_kernel(int16_t *out, size_t n_out, const int16_t *x, uint32_t at, uint32_t up,
                                       uint32_t down);
/* Adds each input to the 64 outputs that it reaches and writes those that are complete; `phase` as in tp_resample. */
typedef void tp_resample_any_down_kernel(int16_t *out, float *sums, const int16_t *in, size_t n_in, uint32_t phase,
                                         uint32_t up, uint32_t down);

struct tp_voice;
struct tp_voice_past;

typedef struct tp_kernels {
    void (*pcmu_decode)(int16_t *out, const uint8_t *in, size_t n);
    void (*pcmu_encode)(uint8_t *out, const int16_t *in, size_t n);
    void (*pcma_decode)(int16_t *out, const uint8_t *in, size_t n);
    void (*pcma_encode)(uint8_t *out, const int16_t *in, size_t n);
    tp_resample_kernel *resample[TP_RESAMPLE_N_RATIOS]; /* order: the ratios in tp_resample.c */
    tp_resample_any_up_kernel *resample_any_up;
    tp_resample_any_down_kernel *resample_any_down;
    void (*voice_octaves)(struct tp_voice_past *past, uint64_t *energy, uint64_t *below, const int16_t *in);
    int32_t (*voice_repeats)(const struct tp_voice *voice);
} tp_kernels;

const tp_kernels *tp_simd_kernels(void);

#endif
