#define _GNU_SOURCE
#include "loadgen_batch.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ENTRIES = 512, FLAGS = MSG_DONTWAIT | MSG_NOSIGNAL };

static struct {
    int fd; /* 0: none, sends are made one by one */
    unsigned *sq_tail, *sq_array, *cq_head, *cq_tail, sq_mask, cq_mask;
    struct io_uring_sqe *sqes;
    struct io_uring_cqe *cqes;
} ring;
static struct io_uring_sqe waiting[ENTRIES];
static unsigned n_waiting;

bool batch_open(void) {
    struct io_uring_params params = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};
    int fd = (int)syscall(SYS_io_uring_setup, ENTRIES, &params);
    if (fd < 0) {
        memset(&params, 0, sizeof params); /* a kernel before 6.1 */
        fd = (int)syscall(SYS_io_uring_setup, ENTRIES, &params);
    }
    if (fd < 0) return false;
    size_t sq_bytes = params.sq_off.array + params.sq_entries * sizeof(unsigned);
    size_t cq_bytes = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
    size_t bytes = sq_bytes > cq_bytes ? sq_bytes : cq_bytes;
    uint8_t *rings = MAP_FAILED;
    void *sqes = MAP_FAILED;
    if (params.features & IORING_FEAT_SINGLE_MMAP) {
        rings = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, IORING_OFF_SQ_RING);
        sqes = mmap(NULL, params.sq_entries * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_POPULATE, fd, IORING_OFF_SQES);
    }
    if (rings == MAP_FAILED || sqes == MAP_FAILED) {
        close(fd);
        return false;
    }
    ring.fd = fd;
    ring.sq_tail = (unsigned *)(void *)(rings + params.sq_off.tail);
    ring.sq_mask = *(unsigned *)(void *)(rings + params.sq_off.ring_mask);
    ring.sq_array = (unsigned *)(void *)(rings + params.sq_off.array);
    ring.cq_head = (unsigned *)(void *)(rings + params.cq_off.head);
    ring.cq_tail = (unsigned *)(void *)(rings + params.cq_off.tail);
    ring.cq_mask = *(unsigned *)(void *)(rings + params.cq_off.ring_mask);
    ring.cqes = (struct io_uring_cqe *)(void *)(rings + params.cq_off.cqes);
    ring.sqes = sqes;
    return true;
}

bool batch_is_full(void) { return n_waiting == ENTRIES; }

void batch_add(int fd, const void *bytes, size_t n, uint64_t tag) {
    waiting[n_waiting++] = (struct io_uring_sqe){
        .opcode = IORING_OP_SEND,
        .fd = fd,
        .addr = (uint64_t)(uintptr_t)bytes,
        .len = (uint32_t)n,
        .msg_flags = FLAGS,
        .user_data = tag,
    };
}

static void run_one_by_one(batch_done_t *done) {
    for (unsigned i = 0; i < n_waiting; i++) {
        const struct io_uring_sqe *send_this = &waiting[i];
        ssize_t n = send(send_this->fd, (const void *)(uintptr_t)send_this->addr, send_this->len, FLAGS);
        done(send_this->user_data, n < 0 ? -errno : n);
    }
}

static void run_at_once(batch_done_t *done) {
    unsigned tail = *ring.sq_tail, left = n_waiting, submit = n_waiting;
    for (unsigned i = 0; i < n_waiting; i++, tail++) {
        ring.sqes[tail & ring.sq_mask] = waiting[i];
        ring.sq_array[tail & ring.sq_mask] = tail & ring.sq_mask;
    }
    __atomic_store_n(ring.sq_tail, tail, __ATOMIC_RELEASE);
    while (left) {
        long taken = syscall(SYS_io_uring_enter, ring.fd, submit, left, IORING_ENTER_GETEVENTS, NULL, 0);
        if (taken > 0) submit -= (unsigned)taken;
        unsigned head = *ring.cq_head;
        for (; head != __atomic_load_n(ring.cq_tail, __ATOMIC_ACQUIRE); head++, left--) {
            const struct io_uring_cqe *result = &ring.cqes[head & ring.cq_mask];
            done(result->user_data, result->res);
        }
        __atomic_store_n(ring.cq_head, head, __ATOMIC_RELEASE);
    }
}

void batch_run(batch_done_t *done) {
    if (!n_waiting) return;
    if (ring.fd)
        run_at_once(done);
    else
        run_one_by_one(done);
    n_waiting = 0;
}
