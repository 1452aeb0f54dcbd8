#include "tp_tape.h"

#include "tp_ring.h"

int tp_tape_init(tp_tape *tape, int16_t *pairs, size_t capacity, int64_t clock) {
    if (pairs == NULL || capacity == 0 || capacity > UINT32_MAX / 4 || clock < 0) return TP_E_ARGUMENT;
    *tape = (tp_tape){.pairs = pairs, .capacity = (uint32_t)capacity, .begin = clock, .end = clock};
    return TP_OK;
}

static size_t place(const tp_tape *tape, int64_t sample) { return (size_t)(sample - tape->begin) % tape->capacity; }

/* The pairs [end, end + n); n is at most the ring. */
static void append(tp_tape *tape, const int16_t *inbound, const int16_t *outbound, size_t n) {
    size_t at = place(tape, tape->end);
    for (size_t i = 0; i < n; i++) {
        int16_t *pair = tape->pairs + 2 * at;
        pair[0] = inbound != NULL ? inbound[i] : 0;
        pair[1] = outbound != NULL ? outbound[i] : 0;
        if (++at == tape->capacity) at = 0;
    }
    tape->end += (int64_t)n;
}

void tp_tape_write(tp_tape *tape, int64_t clock, const int16_t *inbound, const int16_t *outbound, size_t n) {
    int64_t hole = clock - tape->end;
    if (hole > tape->capacity) { /* what is older than the ring would be overwritten at once */
        tape->end = clock - tape->capacity;
        hole = tape->capacity;
    }
    if (hole > 0) append(tape, NULL, NULL, (size_t)hole);
    while (n != 0) {
        size_t k = n < tape->capacity ? n : tape->capacity;
        append(tape, inbound, outbound, k);
        if (inbound != NULL) inbound += k;
        if (outbound != NULL) outbound += k;
        n -= k;
    }
}

size_t tp_tape_read(const tp_tape *tape, int16_t *out, size_t capacity, int64_t *from, int64_t *lost) {
    int64_t oldest = tape->end - tape->capacity;
    if (oldest < tape->begin) oldest = tape->begin;
    *lost = *from < oldest ? oldest - *from : 0;
    *from += *lost;
    if (*from >= tape->end) return 0;
    size_t n = (size_t)(tape->end - *from);
    if (n > capacity) n = capacity;
    size_t pair = 2 * sizeof *out;
    tp_ring_read(tape->pairs, pair * tape->capacity, pair * place(tape, *from), out, pair * n);
    *from += (int64_t)n;
    return n;
}
