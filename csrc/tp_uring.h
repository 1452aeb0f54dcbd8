/* tp_uring: many socket calls in one system call. Linux.
 *
 * What it does. Sends and receives that must not block are queued and made together by one io_uring_enter, which saves most of
 * what a system call costs beside the work it does.
 *
 * How it works. io_uring by its bare system calls. A call with MSG_DONTWAIT is over when the submission is, in the order of
 * the queue, so when run() returns every result is there: nothing is ever left with the kernel, and no memory has to outlive
 * run(). The ring belongs to the thread that opened it. Where the kernel is older than 6.1 (or the headers it was compiled with), or a sandbox, a sysctl or a limit
 * forbids it, open() says so; where it stops working later (the run came to another thread) it closes itself and says how far
 * it came. Either way its owner makes the calls one by one.
 *
 * How to use it. open(); queue up to TP_URING_CALLS, run(), results[] in the order of the queue; close().
 *
 * Figures to hold: no allocation; a call in a batch costs less than the same call made alone.
 * Source: io_uring_setup(2), io_uring_enter(2). */
#ifndef TP_URING_H
#define TP_URING_H
#include "tp_base.h"

#define TP_URING_CALLS 128u

typedef struct tp_uring {
    int32_t fd; /* < 0: there is none */
    uint32_t n; /* queued */
    uint32_t *sq_tail, *cq_head, *cq_tail; /* shared with the kernel */
    uint32_t sq_mask, cq_mask;
    void *sqes, *cqes, *rings;
    size_t sqes_bytes, rings_bytes;
    int32_t results[TP_URING_CALLS]; /* what the call would have returned, or -errno */
} tp_uring;

bool tp_uring_open(tp_uring *uring); /* false: not here, errno tells why */
void tp_uring_close(tp_uring *uring); /* idempotent; one that was never opened has fd -1 */

/* There is room. `flags` as of send(2), MSG_DONTWAIT is added; `address` NULL: the socket is connected. */
void tp_uring_send(tp_uring *uring, int fd, const uint8_t *bytes, size_t n, int flags, const void *address, uint32_t address_bytes);
void tp_uring_receive(tp_uring *uring, int fd, uint8_t *bytes, size_t n);
/* Makes the calls; nothing is queued afterwards. -> how many were made, the first of them. Fewer than were queued: the ring
 * has failed and is closed, the others are still to be made */
uint32_t tp_uring_run(tp_uring *uring);

#endif
