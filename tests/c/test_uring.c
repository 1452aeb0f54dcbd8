/* Many socket calls in one: each answers what it would have answered alone, in the order of the queue; and a ring that is
 * refused, or fails, or is not its thread's, says so and has done nothing. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tp_uring.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"

static int open_pair(int pair[2]) {
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    return 0;
}

static int test_order(tp_uring *ring) {
    int pair[2];
    uint8_t bytes[TP_URING_CALLS], got[TP_URING_CALLS];
    if (open_pair(pair) != 0) return 1;
    CHECK(tp_uring_run(ring) == 0);
    for (uint32_t round = 0; round < 7; round++) { /* the queue's indices come round */
        uint32_t n = TP_URING_CALLS - round * 5;
        for (uint32_t i = 0; i < n; i++) {
            bytes[i] = (uint8_t)(i * 3 + round);
            tp_uring_send(ring, pair[0], &bytes[i], 1, 0, NULL, 0);
        }
        CHECK(tp_uring_run(ring) == n && ring->n == 0);
        for (uint32_t i = 0; i < n; i++) CHECK(ring->results[i] == 1);
        memset(got, 0, sizeof got);
        for (uint32_t i = 0; i < n; i++) tp_uring_receive(ring, pair[1], &got[i], 1);
        CHECK(tp_uring_run(ring) == n && memcmp(got, bytes, n) == 0);
    }
    CHECK(close(pair[0]) == 0 && close(pair[1]) == 0);
    return 0;
}

static int test_answers(tp_uring *ring) {
    static uint8_t much[1 << 20], got[sizeof much];
    int full[2], ended[2], broken[2], small = 4096;
    if (open_pair(full) != 0 || open_pair(ended) != 0 || open_pair(broken) != 0) return 1;
    CHECK(setsockopt(full[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small) == 0);
    CHECK(close(ended[1]) == 0 && close(broken[1]) == 0);
    int file = open("/dev/null", O_RDWR | O_CLOEXEC), gone = dup(file);
    CHECK(file >= 0 && gone >= 0 && close(gone) == 0);
    for (size_t i = 0; i < sizeof much; i++) much[i] = (uint8_t)(i * 7 + i / 251);
    tp_uring_send(ring, full[0], much, sizeof much, 0, NULL, 0);
    tp_uring_send(ring, full[0], much, 1000, 0, NULL, 0);
    tp_uring_send(ring, gone, much, 10, 0, NULL, 0);
    tp_uring_send(ring, file, much, 10, 0, NULL, 0);
    tp_uring_send(ring, broken[0], much, 10, MSG_NOSIGNAL, NULL, 0);
    tp_uring_receive(ring, ended[0], got, 10);
    tp_uring_receive(ring, full[0], got, 10);
    tp_uring_receive(ring, gone, got, 10);
    CHECK(tp_uring_run(ring) == 8);
    int taken = ring->results[0];
    CHECK(taken > 0 && taken < (int)sizeof much && ring->results[1] == -EAGAIN); /* some of it, then nothing */
    CHECK(ring->results[2] == -EBADF && ring->results[3] == -ENOTSOCK && ring->results[4] == -EPIPE);
    CHECK(ring->results[5] == 0 && ring->results[6] == -EAGAIN && ring->results[7] == -EBADF);
    CHECK(recv(full[1], got, sizeof got, MSG_WAITALL | MSG_DONTWAIT) == taken && memcmp(got, much, (size_t)taken) == 0);
    CHECK(close(full[0]) == 0 && close(full[1]) == 0 && close(ended[0]) == 0 && close(broken[0]) == 0 && close(file) == 0);
    return 0;
}

static int test_datagrams(tp_uring *ring) {
    struct sockaddr_in at[2], from;
    socklen_t bytes = sizeof at[0];
    int fds[2];
    for (int i = 0; i < 2; i++) {
        at[i] = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        fds[i] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        CHECK(fds[i] >= 0 && bind(fds[i], (struct sockaddr *)&at[i], bytes) == 0);
        CHECK(getsockname(fds[i], (struct sockaddr *)&at[i], &bytes) == 0);
    }
    uint8_t got[4];
    tp_uring_send(ring, fds[0], (const uint8_t *)"abc", 3, 0, &at[1], sizeof at[1]);
    tp_uring_send(ring, fds[0], (const uint8_t *)"d", 1, 0, &at[0], sizeof at[0]);
    CHECK(tp_uring_run(ring) == 2 && ring->results[0] == 3 && ring->results[1] == 1);
    CHECK(recvfrom(fds[1], got, 4, MSG_DONTWAIT, (struct sockaddr *)&from, &bytes) == 3 && memcmp(got, "abc", 3) == 0);
    CHECK(from.sin_port == at[0].sin_port && recv(fds[0], got, 4, MSG_DONTWAIT) == 1 && got[0] == 'd');
    CHECK(close(fds[0]) == 0 && close(fds[1]) == 0);
    return 0;
}

static void *run_elsewhere(void *ring) {
    return (void *)(uintptr_t)(tp_uring_run(ring) + 1);
}

static int test_not_its_thread(void) {
    tp_uring ring;
    int pair[2];
    uint8_t got[4];
    pthread_t thread;
    void *made;
    CHECK(tp_uring_open(&ring) && open_pair(pair) == 0);
    tp_uring_send(&ring, pair[0], (const uint8_t *)"ab", 2, 0, NULL, 0);
    CHECK(pthread_create(&thread, NULL, run_elsewhere, &ring) == 0 && pthread_join(thread, &made) == 0);
    CHECK((uintptr_t)made == 1 && ring.fd < 0 && recv(pair[1], got, 4, MSG_DONTWAIT) < 0 && errno == EAGAIN);
    tp_uring_close(&ring);
    CHECK(close(pair[0]) == 0 && close(pair[1]) == 0);
    return 0;
}

static int test_refused(void) {
    tp_uring ring;
    struct rlimit was, none;
    CHECK(getrlimit(RLIMIT_NOFILE, &was) == 0);
    none = was;
    none.rlim_cur = 0;
    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
    bool there = tp_uring_open(&ring);
    int error = errno;
    CHECK(setrlimit(RLIMIT_NOFILE, &was) == 0);
    CHECK(!there && error != 0 && ring.fd < 0);
    tp_uring_close(&ring);
    CHECK(ring.fd < 0);
    return 0;
}

int main(void) {
    tp_uring ring;
    int failed = test_refused();
    if (!tp_uring_open(&ring)) {
        (void)fprintf(stderr, "no io_uring here: only its refusal was tested\n");
        return failed != 0;
    }
    CHECK((fcntl(ring.fd, F_GETFD) & FD_CLOEXEC) != 0);
    failed += test_order(&ring) + test_answers(&ring) + test_datagrams(&ring) + test_order(&ring) + test_not_its_thread();
    tp_uring_close(&ring);
    tp_uring_close(&ring);
    return failed != 0;
}
