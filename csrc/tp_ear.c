#include "tp_ear.h"

#include "tp_g711.h"
#include "tp_level.h"

#define MAX_FRAME_SAMPLES 960u /* 60 ms at 16 kHz */
#define LINE_BYTES 64u
#define AHEAD 2u /* ears; the memory answers in less time than two take */

size_t tp_ear_sizeof(void) { return sizeof(tp_ear); }

int tp_ear_init(tp_ear *ear, const tp_voice_config *voice) {
    int status = tp_voice_init(&ear->voice, voice);
    return status == TP_OK ? tp_resample_init(&ear->wide, voice->rate_hz, TP_EAR_RATE_HZ) : status;
}

static inline void fetch(const void *from, size_t bytes) {
    for (size_t i = 0; i < bytes; i += LINE_BYTES) __builtin_prefetch((const char *)from + i, 1);
}

/* What an ear touches in a frame: the resampler's numbers and newest inputs, the gate but for its unfinished frame. */
static inline void fetch_ear(const tp_ear *ear) {
    fetch(&ear->wide, 4 * LINE_BYTES);
    fetch(&ear->voice, offsetof(tp_voice, waiting));
}

int tp_ear_hear_many(tp_ear *ears, size_t count, uint32_t encoding, const uint8_t *payloads, size_t stride, size_t n,
                     const uint8_t *present, int16_t *out, tp_heard *heard) {
    int16_t pcm[MAX_FRAME_SAMPLES];
    if (n > MAX_FRAME_SAMPLES || tp_g711_decode(encoding, pcm, payloads, 0) != TP_OK) return TP_E_ARGUMENT;
    for (size_t i = 0; i < count; i++) {
        tp_ear *ear = ears + i;
        size_t n_out = tp_resample_output_length(&ear->wide, n);
        if (i + AHEAD < count) {
            fetch_ear(ear + AHEAD);
            fetch(payloads + (i + AHEAD) * stride, stride);
            fetch(out + AHEAD * n_out, n_out * sizeof *out);
        }
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
