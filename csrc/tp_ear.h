/* tp_ear: what is asked of every frame that a caller sends, for many calls at once.
 *
 * What it does. One frame of payload becomes linear samples at 16 kHz (what recognisers take), its energy, and the state of
 *   a voice gate. A tick of all calls is one call of this module.
 *
 * How it works. Decode, energy, tp_voice, tp_resample, in that order, while the samples are in the first cache. An ear holds
 *   both states and nothing else, and ears lie side by side in memory: what a tick touches of one is some hundred bytes in
 *   few lines, and those of the ear after next are asked for while this one is heard, so many ears cost little more each
 *   than few.
 *   A frame that is missing is silence to the resampler, whose clock goes on, and nothing at all to the gate's noise floor.
 *
 * How to use it. Memory for n ears; init each; hear_many once per ptime, payloads one after the other, a flag for each that
 *   says whether it is there.
 *
 * Acceptance (tests/dsp/test_ear.py): the same figures and samples as the modules one by one. Figures to hold
 *   (benchmarks/bench_tick.py): 1,000 calls at least 8 times as fast as audioop and soxr call by call; a call of 4,000 at
 *   most 1.3 times as dear as one of 100; below 4 KiB a call.
 * Source: own. */
#ifndef TP_EAR_H
#define TP_EAR_H
#include "tp_resample.h"
#include "tp_voice.h"

#define TP_EAR_RATE_HZ 16000 /* of what comes out */

typedef struct tp_ear {
    tp_resample wide;
    tp_voice voice;
} tp_ear;

typedef struct tp_heard {
    uint64_t energy; /* sum of squares of the frame's samples as they came */
    int32_t state;   /* TP_VOICE_x */
    int32_t missing;
} tp_heard;

size_t tp_ear_sizeof(void);
/* TP_E_ARGUMENT: a rate other than 8,000 and 16,000, or lengths that tp_voice does not take */
int tp_ear_init(tp_ear *ear, const tp_voice_config *voice);
/* `encoding` and n samples (up to 60 ms) for all. Frame i is at payloads + i * stride and there if present is NULL or
 * present[i] is not 0; out gets n samples at 16 kHz of each (2 n of 8 kHz), one ear's after the other's. -> TP_OK, or
 * TP_E_ARGUMENT with nothing done */
int tp_ear_hear_many(tp_ear *ears, size_t count, uint32_t encoding, const uint8_t *payloads, size_t stride, size_t n,
                     const uint8_t *present, int16_t *out, tp_heard *heard);

#endif
