/* What tp_jitter knows of each ms of its ring, a bit a ms; only tp_jitter.c includes this. */
#ifndef TP_JITTER_BITS_H
#define TP_JITTER_BITS_H
#include "tp_jitter.h"

/* Bit arrays over the ring: n is 1..64, at any ms. What reaches into the next word is shifted in two steps, the second of
 * which is never by 64: without a branch. */
static inline uint64_t low_bits(uint32_t n) { return ~(uint64_t)0 >> (64 - n); }

static inline uint64_t bits_read(const uint64_t *bits, int64_t ms, uint32_t n) {
    uint32_t at = (uint32_t)((uint64_t)ms & (TP_JITTER_SPAN_MS - 1)), word = at >> 6, shift = at & 63;
    return (bits[word] >> shift | bits[(word + 1) & (TP_JITTER_SPAN_MS / 64 - 1)] << 1 << (63 - shift)) & low_bits(n);
}

static inline void bits_set(uint64_t *bits, int64_t ms, uint64_t mask) {
    uint32_t at = (uint32_t)((uint64_t)ms & (TP_JITTER_SPAN_MS - 1)), word = at >> 6, shift = at & 63;
    bits[word] |= mask << shift;
    bits[(word + 1) & (TP_JITTER_SPAN_MS / 64 - 1)] |= mask >> 1 >> (63 - shift);
}

static inline void bits_clear(uint64_t *bits, int64_t ms, uint64_t mask) {
    uint32_t at = (uint32_t)((uint64_t)ms & (TP_JITTER_SPAN_MS - 1)), word = at >> 6, shift = at & 63;
    bits[word] &= ~(mask << shift);
    bits[(word + 1) & (TP_JITTER_SPAN_MS / 64 - 1)] &= ~(mask >> 1 >> (63 - shift));
}

#endif
