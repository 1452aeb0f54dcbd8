#ifndef TP_PLAYOUT_H
#define TP_PLAYOUT_H
#include "tp_pool.h"

/* One source's queue: audio as it arrived (a format tag per block), marks at sample positions, clear, pause.
 * Positions are samples of the queue's own formats laid end to end and never decrease. */
#define TP_MARKS_INLINE 16  /* marks held in the playout itself */
#define TP_MARKS_MAX 256    /* pending per source; the next is refused */

enum { TP_OUTCOME_PENDING = 0, TP_OUTCOME_PLAYED = 1, TP_OUTCOME_CLEARED = 2, TP_OUTCOME_LOST = 3 };

typedef struct tp_playout {
    tp_pool *pool;
    tp_chain audio;
    uint64_t written, read;          /* samples */
    uint64_t bound_us;               /* most audio that may wait, in microseconds */
    uint64_t queued_us_x;            /* implementation's own account of the waiting time */
    uint64_t n_dropped;              /* samples dropped as excess */
    uint32_t dropped_since_mark;     /* the next mark is LOST */
    uint32_t n_marks;
    uint8_t private_bytes[640];      /* inline marks, cursors: the implementation's; may be replaced by named members */
} tp_playout;

#endif
