#include "tp_mix.h"

enum { BLOCK = 32, GAIN_SHIFT = 13, CEILING = 32767 };

/* 2^30 * 10^(-2^k / 2000): what 2^k hundredths of a decibel take away. */
static const int32_t attenuation[13] = {1072506344, 1071272286, 1068808428, 1063897700, 1054143827, 1034903534, 997470063,
                                        926616160,  799649868,  595524825,  330293380,  101601442,  9613906};

void tp_gain_init(tp_gain *gain, uint32_t ramp_samples) {
    *gain = (tp_gain){TP_GAIN_UNITY, TP_GAIN_UNITY, 0, ramp_samples};
}

/* The gain at the sample before the next one. */
static int32_t present(const tp_gain *gain) {
    if (gain->left == 0) return gain->to;
    return gain->to - (int32_t)((int64_t)(gain->to - gain->from) * gain->left / gain->ramp_samples);
}

int tp_gain_set(tp_gain *gain, int32_t db_x100) {
    int32_t to = 0;
    if (db_x100 != TP_GAIN_MUTE) {
        if (db_x100 < TP_GAIN_LEAST_DB_X100 || db_x100 > TP_GAIN_MOST_DB_X100) return TP_E_ARGUMENT;
        uint32_t magnitude = (uint32_t)(db_x100 < 0 ? -db_x100 : db_x100);
        int64_t loss = TP_LIMITER_UNITY;
        for (uint32_t k = 0; k < 13; k++) {
            if ((magnitude & 1u << k) != 0) loss = (loss * attenuation[k] + (1 << 29)) >> 30;
        }
        const int64_t whole = (int64_t)TP_GAIN_UNITY << 30;
        to = (int32_t)(db_x100 > 0 ? (whole + loss / 2) / loss : (loss + (1 << 16)) >> 17);
    }
    gain->from = present(gain);
    gain->to = to;
    gain->left = gain->from != to ? gain->ramp_samples : 0;
    return TP_OK;
}

void tp_gain_settle(tp_gain *gain) { gain->left = 0; }

static inline int32_t scaled(int16_t x, int32_t gain) { return (x * gain + (1 << (GAIN_SHIFT - 1))) >> GAIN_SHIFT; }

static int32_t next_gain(tp_gain *gain) {
    gain->left--;
    return present(gain);
}

void tp_gain_process(tp_gain *gain, int16_t *out, const int16_t *in, size_t n) {
    size_t i = 0;
    for (; i < n && gain->left != 0; i++) out[i] = tp_saturate16(scaled(in[i], next_gain(gain)));
    const int32_t to = gain->to;
    if (to == TP_GAIN_UNITY) {
        if (out != in && i < n) memcpy(out + i, in + i, (n - i) * sizeof *out);
        return;
    }
    for (; i + BLOCK <= n; i += BLOCK) {
        for (size_t j = 0; j < BLOCK; j++) out[i + j] = tp_saturate16(scaled(in[i + j], to));
    }
    for (; i < n; i++) out[i] = tp_saturate16(scaled(in[i], to));
}

void tp_mix_add(int32_t *sum, const int16_t *in, size_t n, tp_gain *gain) {
    size_t i = 0;
    for (; i < n && gain->left != 0; i++) sum[i] += scaled(in[i], next_gain(gain));
    const int32_t to = gain->to;
    for (; i + BLOCK <= n; i += BLOCK) {
        for (size_t j = 0; j < BLOCK; j++) sum[i + j] += scaled(in[i + j], to);
    }
    for (; i < n; i++) sum[i] += scaled(in[i], to);
}

/* ---- the limiter ---- */

int tp_limiter_init(tp_limiter *limiter, uint32_t rate_hz) {
    if (rate_hz < 1000 || rate_hz > 384000) return TP_E_ARGUMENT;
    /* 10^(40 / 20 / rate) - 1, as the beginning of its power series; the first term is ln(10^(40 / 20)) / rate */
    const int64_t first = 4944763835LL / rate_hz;
    limiter->release = (int32_t)(first + (first * first >> 31));
    tp_limiter_reset(limiter);
    return TP_OK;
}

void tp_limiter_reset(tp_limiter *limiter) { limiter->gain = TP_LIMITER_UNITY; }

static inline uint32_t magnitude_of(int32_t x) { return x < 0 ? 0u - (uint32_t)x : (uint32_t)x; }

/* The gain, Q30, that brings a magnitude beyond the knee below full scale. */
static int32_t needed(uint32_t magnitude) {
    const uint64_t room = CEILING - TP_LIMITER_KNEE;
    const uint64_t over = magnitude - TP_LIMITER_KNEE;
    const uint64_t bent = ((uint64_t)TP_LIMITER_KNEE << 12) + (room * over << 12) / (over + room);
    return (int32_t)((bent << 18) / magnitude);
}

static bool block_passes(const int32_t *in) {
    uint32_t beyond = 0;
    for (size_t i = 0; i < BLOCK; i++) {
        /* one comparison for both signs: [-knee, knee] becomes [0, 2 knee] */
        beyond |= (uint32_t)in[i] + TP_LIMITER_KNEE > 2 * TP_LIMITER_KNEE;
    }
    return beyond == 0;
}

static size_t limit(tp_limiter *limiter, int16_t *out, const int32_t *in, size_t n) {
    int64_t gain = limiter->gain;
    size_t n_limited = 0;
    for (size_t i = 0; i < n; i++) {
        gain += (gain * limiter->release >> 30) + 1;
        if (gain > TP_LIMITER_UNITY) gain = TP_LIMITER_UNITY;
        const uint32_t magnitude = magnitude_of(in[i]);
        if (magnitude > TP_LIMITER_KNEE) {
            const int32_t need = needed(magnitude);
            if (need < gain) gain = need;
        }
        n_limited += gain != TP_LIMITER_UNITY;
        out[i] = (int16_t)((in[i] * gain + (1 << 29)) >> 30);
    }
    limiter->gain = (int32_t)gain;
    return n_limited;
}

size_t tp_limiter_process(tp_limiter *limiter, int16_t *out, const int32_t *in, size_t n) {
    size_t n_limited = 0;
    for (; n >= BLOCK; n -= BLOCK, in += BLOCK, out += BLOCK) {
        if (tp_limiter_is_idle(limiter) && block_passes(in)) {
            for (size_t i = 0; i < BLOCK; i++) out[i] = (int16_t)in[i];
        } else {
            n_limited += limit(limiter, out, in, BLOCK);
        }
    }
    return n_limited + limit(limiter, out, in, n);
}
