/* tp_ring: bytes in a ring, whose end goes on at its beginning.
 *
 * What it does. Copies into and out of one, over the edge where it must.
 *
 * How it works. At most two copies. Whoever has the ring counts what was ever written, and knows how much of it is still there.
 *
 * How to use it. `at` is a place in the ring, n at most the ring; both in bytes.
 *
 * Source: own. */
#ifndef TP_RING_H
#define TP_RING_H
#include "tp_base.h"

static inline void tp_ring_write(void *ring, size_t capacity, size_t at, const void *in, size_t n) {
    size_t first = capacity - at < n ? capacity - at : n;
    memcpy((uint8_t *)ring + at, in, first);
    memcpy(ring, (const uint8_t *)in + first, n - first);
}

static inline void tp_ring_read(const void *ring, size_t capacity, size_t at, void *out, size_t n) {
    size_t first = capacity - at < n ? capacity - at : n;
    memcpy(out, (const uint8_t *)ring + at, first);
    memcpy((uint8_t *)out + first, ring, n - first);
}

#endif
