#include "tp_ear.h"

#include "tp_g711.h"
#include "tp_level.h"

#define MAX_FRAME_SAMPLES 960u /* 60 ms at 16 kHz */
#define LINE_BYTES 64u

size_t tp_ear_sizeof(void) { return sizeof(tp_ear); }

int tp_ear_init(tp_ear *ear, const tp_voice_config *voice) {
    int status = tp_voice_init(&ear->voice, voice);
    return status == TP_OK ? tp_resample_init(&ear->wide, voice->rate_hz, TP_EAR_RATE_HZ) : status;
}

/* The lines that the next frame touches: the resampler's numbers and newest inputs, the gate but for its unfinished frame. */
static inline void fetch(const tp_ear *ear) {
    const char *at = (const char *)ear;
    for (size_t i = 0; i < 2; i++) __builtin_prefetch(at + i * LINE_BYTES, 1);
    const size_t begin = offsetof(tp_ear, voice), end = begin + offsetof(tp_voice, waiting);
    for (size_t i = begin; i < end; i += LINE_BYTES) __builtin_prefetch(at + i, 1);
}

int tp_ear_hear_many(tp_ear *ears, size_t count, uint32_t encoding, const uint8_t *payloads, size_t stride, size_t n,
                     const uint8_t *present, int16_t *out, tp_heard *heard) {
    int16_t pcm[MAX_FRAME_SAMPLES];
    if (n > MAX_FRAME_SAMPLES || tp_g711_decode(encoding, pcm, payloads, 0) != TP_OK) return TP_E_ARGUMENT;
    for (size_t i = 0; i < count; i++) {
        tp_ear *ear = ears + i;
        if (i + 1 < count) fetch(ear + 1);
        size_t n_out = tp_resample_output_length(&ear->wide, n);
        const bool missing = present != NULL && present[i] == 0;
        if (missing) {
            memset(pcm, 0, n * sizeof *pcm);
            heard[i] = (tp_heard){0, tp_voice_fillin(&ear->voice, n), 1};
        } else {
            (void)tp_g711_decode(encoding, pcm, payloads + i * stride, n);
            heard[i] = (tp_heard){tp_level_energy(pcm, n), tp_voice_receive(&ear->voice, pcm, n), 0};
        }
        (void)tp_resample_process(&ear->wide, out, n_out, pcm, n);
        out += n_out;
    }
    return TP_OK;
}
