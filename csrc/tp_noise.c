#include "tp_noise.h"

#define LEVEL_MOST 127u
#define APPROACH 160.0f /* samples */
#define UNIFORM_RMS 18918.6f /* of -32768..32767 */

/* 10^(-n/20) for n dB by repeated factors: 1 dB, 2, 4 ... 64. */
static float attenuation(uint32_t n) {
    static const float factors[] = {0.891250938f, 0.794328235f,  0.630957344f,  0.398107171f,
                                    0.158489319f, 0.0251188643f, 0.000630957344f};
    float a = 1.0f;
    for (uint32_t i = 0; i < 7; i++)
        if (n >> i & 1) a *= factors[i];
    return a;
}

static float root(float x) {
    float y = 0.5f + 0.5f * x;
    for (int i = 0; i < 80; i++) y = 0.5f * (y + x / y); /* twelve coefficients at their most imply 1e-36 */
    return y;
}

void tp_noise_reset(tp_noise *noise, uint32_t seed) {
    memset(noise, 0, sizeof *noise);
    noise->seed = seed;
}

int tp_noise_receive(tp_noise *noise, const uint8_t *payload, size_t payload_bytes) {
    if (payload_bytes == 0) return TP_E_FORMAT;
    uint32_t level = payload[0] & LEVEL_MOST;
    noise->order = payload_bytes - 1 < TP_NOISE_MAX_ORDER ? (uint32_t)payload_bytes - 1 : TP_NOISE_MAX_ORDER;
    float error = 1.0f;
    for (uint32_t i = 0; i < noise->order; i++) {
        /* 127 is 0; 0 and 254 are just inside -1 and 1, 255 is not used. */
        int32_t n = payload[1 + i] < 254 ? payload[1 + i] : 254;
        noise->k[i] = (float)(258 * (n - 127)) / 32768.0f;
        float k2 = noise->k[i] * noise->k[i];
        error *= 1.0f - (k2 < 0.999f ? k2 : 0.999f);
        if (k2 >= 0.999f) noise->k[i] = noise->k[i] < 0.0f ? -0.9995f : 0.9995f;
    }
    noise->level = 32768.0f * attenuation(level) * root(error);
    return TP_OK;
}

void tp_noise_fade(tp_noise *noise) { noise->present = 0.0f; }

void tp_noise_fill(tp_noise *noise, int16_t *out, size_t n) {
    float step = (noise->level - noise->present) / APPROACH;
    for (size_t i = 0; i < n; i++) {
        noise->seed = noise->seed * 1664525u + 1013904223u;
        if (i < (size_t)APPROACH) noise->present += step;
        float x = ((float)(noise->seed >> 16) - 32767.5f) * (1.0f / UNIFORM_RMS) * noise->present;
        for (uint32_t m = noise->order; m-- > 0;) {
            x -= noise->k[m] * noise->memory[m];
            noise->memory[m + 1] = noise->memory[m] + noise->k[m] * x;
        }
        noise->memory[0] = x;
        out[i] = x >= 32767.0f ? (int16_t)32767 : x <= -32768.0f ? (int16_t)-32768 : (int16_t)x;
    }
    if (n >= (size_t)APPROACH) noise->present = noise->level;
}
