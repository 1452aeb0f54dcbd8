/* tp_tape: both tracks of a call, side by side on its one sample clock, until somebody writes them down.
 *
 * What it does. Keeps the newest seconds of a call as pairs of samples, what the caller says and what the caller hears. Whoever records
 *   reads them whenever there is time, from another task, in pieces of any length.
 *
 * How it works. A ring in its owner's memory; a pair's place is its sample of the call's clock, an absolute number. There is
 *   nothing that could drift: a tick writes the pairs [clock, clock + ptime) of both tracks at once, and what the clock
 *   skipped since the tick before (a loop stall) is written as silence on both. A reader keeps its own position, so the tape
 *   neither waits for it nor is changed by it; one that lags by more than the ring is told how much it has lost.
 *
 * How to use it. init with memory and the clock's present sample, write once a tick, read from a position on.
 *
 * Acceptance: exact to the sample after an hour with stalls of the driver, the caller and the application
 *   (tests/path/test_tape.py). 20 ms written below 100 ns.
 * Source: own. */
#ifndef TP_TAPE_H
#define TP_TAPE_H
#include "tp_base.h"

typedef struct tp_tape {
    int16_t *pairs;      /* capacity of them, left = inbound, right = outbound; the owner's */
    uint32_t capacity;
    uint32_t reserved;
    int64_t begin, end;  /* samples of the clock: the first ever written, one past the last */
} tp_tape;

int tp_tape_init(tp_tape *tape, int16_t *pairs, size_t capacity, int64_t clock); /* capacity in pairs */
/* The ptime that begins at `clock`, at or after the tape's end. NULL: silence. */
void tp_tape_write(tp_tape *tape, int64_t clock, const int16_t *inbound, const int16_t *outbound, size_t n);
/* Up to `capacity` pairs from *from on, which moves behind them. *lost: pairs that were no longer there, and are skipped.
 * -> pairs */
size_t tp_tape_read(const tp_tape *tape, int16_t *out, size_t capacity, int64_t *from, int64_t *lost);

#endif
