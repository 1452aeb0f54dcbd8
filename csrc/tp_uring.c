#ifdef __linux__
#define _GNU_SOURCE /* syscall, MSG_DONTWAIT, madvise */
#if __has_include(<linux/io_uring.h>)
#include <linux/io_uring.h>
#endif
#endif
#include "tp_uring.h"

#include <errno.h>

#ifdef IORING_SETUP_DEFER_TASKRUN /* Linux, with the headers of 6.1 */
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static void *map(tp_uring *uring, size_t n, off_t what) {
    void *at = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, uring->fd, what);
    if (at == MAP_FAILED) return NULL;
    (void)madvise(at, n, MADV_DONTFORK); /* a child that wrote to it would write into its parent's */
    return at;
}

bool tp_uring_open(tp_uring *uring) {
    memset(uring, 0, sizeof *uring);
    /* DEFER_TASKRUN: the kernel never interrupts us on the ring's account. SUBMIT_ALL: one call's error is its own. */
    struct io_uring_params params = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL};
    uring->fd = (int32_t)syscall(SYS_io_uring_setup, TP_URING_CALLS, &params);
    if (uring->fd < 0) return false;
    size_t sq_bytes = params.sq_off.array + params.sq_entries * sizeof(uint32_t);
    size_t cq_bytes = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
    uring->rings_bytes = sq_bytes > cq_bytes ? sq_bytes : cq_bytes;
    uring->sqes_bytes = params.sq_entries * sizeof(struct io_uring_sqe);
    uring->rings = map(uring, uring->rings_bytes, IORING_OFF_SQ_RING);
    uring->sqes = map(uring, uring->sqes_bytes, (off_t)IORING_OFF_SQES);
    if (uring->rings == NULL || uring->sqes == NULL) {
        int error = errno;
        tp_uring_close(uring);
        errno = error;
        return false;
    }
    uint8_t *rings = uring->rings;
    uring->sq_tail = (uint32_t *)(void *)(rings + params.sq_off.tail);
    uring->sq_mask = *(uint32_t *)(void *)(rings + params.sq_off.ring_mask);
    uint32_t *array = (uint32_t *)(void *)(rings + params.sq_off.array);
    for (uint32_t i = 0; i < params.sq_entries; i++) array[i] = i;
    uring->cq_head = (uint32_t *)(void *)(rings + params.cq_off.head);
    uring->cq_tail = (uint32_t *)(void *)(rings + params.cq_off.tail);
    uring->cq_mask = *(uint32_t *)(void *)(rings + params.cq_off.ring_mask);
    uring->cqes = rings + params.cq_off.cqes;
    return true;
}

void tp_uring_close(tp_uring *uring) {
    if (uring->fd < 0) return;
    if (uring->rings != NULL) (void)munmap(uring->rings, uring->rings_bytes);
    if (uring->sqes != NULL) (void)munmap(uring->sqes, uring->sqes_bytes);
    (void)close(uring->fd);
    uring->rings = uring->sqes = NULL;
    uring->fd = -1;
    uring->n = 0;
}

static struct io_uring_sqe *queue(tp_uring *uring, uint8_t opcode, int fd, const void *at, size_t n, int flags) {
    struct io_uring_sqe *sqe = (struct io_uring_sqe *)uring->sqes + ((*uring->sq_tail + uring->n) & uring->sq_mask);
    *sqe = (struct io_uring_sqe){.opcode = opcode,
                                 .fd = fd,
                                 .addr = (uint64_t)(uintptr_t)at,
                                 .len = (uint32_t)n,
                                 .msg_flags = (uint32_t)flags | MSG_DONTWAIT,
                                 .user_data = uring->n};
    uring->results[uring->n++] = -EIO; /* what a call answers that was never heard of again */
    return sqe;
}

void tp_uring_send(tp_uring *uring, int fd, const uint8_t *bytes, size_t n, int flags, const void *address, uint32_t address_bytes) {
    struct io_uring_sqe *sqe = queue(uring, IORING_OP_SEND, fd, bytes, n, flags);
    sqe->addr2 = (uint64_t)(uintptr_t)address;
    sqe->addr_len = (uint16_t)address_bytes;
}

void tp_uring_receive(tp_uring *uring, int fd, uint8_t *bytes, size_t n) {
    (void)queue(uring, IORING_OP_RECV, fd, bytes, n, 0);
}

static uint32_t collect(tp_uring *uring) {
    uint32_t n = 0, head = *uring->cq_head;
    for (; head != __atomic_load_n(uring->cq_tail, __ATOMIC_ACQUIRE); head++, n++) {
        const struct io_uring_cqe *cqe = (const struct io_uring_cqe *)uring->cqes + (head & uring->cq_mask);
        uring->results[cqe->user_data] = cqe->res;
    }
    __atomic_store_n(uring->cq_head, head, __ATOMIC_RELEASE);
    return n;
}

uint32_t tp_uring_run(tp_uring *uring) {
    uint32_t n = uring->n, submitted = 0;
    __atomic_store_n(uring->sq_tail, *uring->sq_tail + n, __ATOMIC_RELEASE);
    while (submitted < n) {
        long taken = syscall(SYS_io_uring_enter, uring->fd, n - submitted, 0, 0, NULL, 0);
        if (taken > 0) {
            submitted += (uint32_t)taken;
        } else if (taken == 0 || errno != EINTR) {
            break;
        }
    }
    uint32_t done = collect(uring);
    while (done < submitted) { /* not seen yet: a call with MSG_DONTWAIT is over when its submission is */
        long status = syscall(SYS_io_uring_enter, uring->fd, 0, submitted - done, IORING_ENTER_GETEVENTS, NULL, 0);
        done += collect(uring);
        if (status < 0 && errno != EINTR) break;
    }
    uring->n = 0;
    if (submitted < n || done < submitted) tp_uring_close(uring);
    return submitted;
}

#else

bool tp_uring_open(tp_uring *uring) {
    memset(uring, 0, sizeof *uring);
    uring->fd = -1;
    errno = ENOSYS;
    return false;
}

void tp_uring_close(tp_uring *uring) { uring->fd = -1; }

void tp_uring_send(tp_uring *uring, int fd, const uint8_t *bytes, size_t n, int flags, const void *address, uint32_t address_bytes) {
    (void)uring, (void)fd, (void)bytes, (void)n, (void)flags, (void)address, (void)address_bytes;
}

void tp_uring_receive(tp_uring *uring, int fd, uint8_t *bytes, size_t n) { (void)uring, (void)fd, (void)bytes, (void)n; }

uint32_t tp_uring_run(tp_uring *uring) {
    (void)uring;
    return 0;
}

#endif
