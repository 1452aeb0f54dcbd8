/* tp_base: what every module of the native core shares.
 *
 * What it does. Status codes, saturation, byte order, wrap-around arithmetic, the formats of audio on a wire.
 * How it works. Static inline arithmetic only; nothing here has state.
 * How to use it. Include it first. Sequence and timestamp comparisons anywhere in csrc go through these helpers.
 *
 * Rules of the core: no malloc, no globals but const tables (and the one pointer that tp_simd sets at import), no
 * callbacks, no stdio, no clock, no threads; tp_pump alone, a driver and not a part of what is driven, has sockets, a
 * clock, and one lock for the process. A function returns a count >= 0 or a tp_status < 0. */
#ifndef TP_BASE_H
#define TP_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef enum tp_status {
    TP_OK = 0,
    TP_E_ARGUMENT = -1, /* the caller broke the contract: a bug of ours */
    TP_E_ROOM = -2,     /* the output has too little room; nothing was done */
    TP_E_FORMAT = -3,   /* the input is malformed */
    TP_E_FULL = -4,     /* a bound or the pool is exhausted; nothing was taken */
    TP_E_STATE = -5     /* not now */
} tp_status;

const char *tp_status_name(int status);

/* How the samples of one audio track are written as bytes. */
typedef enum tp_encoding {
    TP_ENCODING_NONE = 0,
    TP_ENCODING_PCMU = 1,
    TP_ENCODING_PCMA = 2,
    TP_ENCODING_L16LE = 3,
    TP_ENCODING_L16BE = 4
} tp_encoding;

typedef struct tp_format {
    uint32_t rate_hz;
    uint32_t encoding; /* tp_encoding */
} tp_format;

static inline uint32_t tp_sample_bytes(uint32_t encoding) {
    return encoding == TP_ENCODING_PCMU || encoding == TP_ENCODING_PCMA ? 1u : 2u;
}

static inline bool tp_format_equal(tp_format a, tp_format b) {
    return a.rate_hz == b.rate_hz && a.encoding == b.encoding;
}

static inline int16_t tp_saturate16(int32_t x) {
    return x > 32767 ? (int16_t)32767 : x < -32768 ? (int16_t)-32768 : (int16_t)x;
}

/* a - b in RFC 3550's modular order: positive when a is later. */
static inline int32_t tp_seq_diff(uint16_t a, uint16_t b) {
    uint16_t d = (uint16_t)(a - b);
    return d < 0x8000u ? (int32_t)d : (int32_t)d - 0x10000;
}

static inline int32_t tp_ts_diff(uint32_t a, uint32_t b) {
    uint32_t d = a - b;
    return d <= 0x7fffffffu ? (int32_t)d : (int32_t)(d - 0x80000000u) - 0x7fffffff - 1;
}

static inline uint16_t tp_get16be(const uint8_t *p) { return (uint16_t)((uint32_t)p[0] << 8 | p[1]); }
static inline uint32_t tp_get32be(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | (uint32_t)p[3];
}
static inline uint64_t tp_get64be(const uint8_t *p) { return (uint64_t)tp_get32be(p) << 32 | tp_get32be(p + 4); }
static inline void tp_put16be(uint8_t *p, uint16_t v) {
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}
static inline void tp_put32be(uint8_t *p, uint32_t v) {
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}
static inline void tp_put64be(uint8_t *p, uint64_t v) {
    tp_put32be(p, (uint32_t)(v >> 32));
    tp_put32be(p + 4, (uint32_t)v);
}

#endif
