/* loadgen_batch: many small sends with one system call.
 *
 * What it does. What a tick of the load generator sends goes through here: the generator does as much in the kernel for
 * each call as the system that it measures, and must not be the first to have no more of its core.
 *
 * How it works. io_uring, by its bare system calls: sends that must not block complete while they are submitted, so
 * after one io_uring_enter all results are there. Where the kernel or the container does not have it, batch_run makes
 * the same sends one by one.
 *
 * How to use it. batch_open once; batch_add while the bytes stay where they are until batch_run; batch_run when
 * batch_is_full and at the end of a tick. Link with loadgen_batch.c.
 * Source: io_uring_setup(2), io_uring_enter(2). */
#ifndef LOADGEN_BATCH_H
#define LOADGEN_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What became of a send: bytes taken, or a negative errno. */
typedef void batch_done_t(uint64_t tag, long result);

/* -> whether the kernel takes whole batches. */
bool batch_open(void);
bool batch_is_full(void);
/* On a connected socket; nothing waits and nothing signals. */
void batch_add(int fd, const void *bytes, size_t n, uint64_t tag);
void batch_run(batch_done_t *done);

#endif
