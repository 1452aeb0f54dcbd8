/* The pump's own thread beside one that does what Python does: members come and go, held frames are taken and given back,
 * and the thread is stopped wherever it is. Also to be run under ThreadSanitizer. */
#include "pump_rig.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <time.h>

#define POOL_BLOCKS 1200
#define PATIENCE_NS 20000000000LL /* of a test that waits for what must come */

static int64_t monotonic(void) {
    struct timespec at;
    (void)clock_gettime(CLOCK_MONOTONIC, &at);
    return (int64_t)at.tv_sec * 1000000000 + at.tv_nsec;
}

static void nap(int64_t ns) {
    struct timespec at = {ns / 1000000000, ns % 1000000000};
    (void)nanosleep(&at, NULL);
}

static int64_t now_of(const rig *r) { return monotonic() - r->pump.origin; }

static void *run(void *pump) { return tp_pump_run(pump, 1) == TP_OK ? pump : NULL; }

static int stop(rig *r, pthread_t thread) {
    void *result;
    tp_pump_stop(&r->pump);
    CHECK(pthread_join(thread, &result) == 0 && result == &r->pump);
    CHECK(r->pump.running == 0 && r->pump.realtime == -1 && !tp_pump_guard_enter());
    return 0;
}

/* A counter of the thread's, as Python would see it between two of its calls. */
static uint64_t look(const uint64_t *counter) {
    bool entered = tp_pump_guard_enter();
    uint64_t n = *counter;
    tp_pump_guard_leave(entered);
    return n;
}

static int wait_for(const uint64_t *counter, uint64_t n) {
    int64_t end = monotonic() + PATIENCE_NS;
    while (look(counter) < n) {
        CHECK(monotonic() < end);
        nap(1000000);
    }
    return 0;
}

static int test_start_and_stop(void) {
    rig *r = rig_open(POOL_BLOCKS, monotonic() - 1);
    pthread_t thread;
    CHECK(r != NULL && add_call(r, 0, now_of(r)) == 0 && add_call(r, 1, now_of(r)) == 0);
    tp_pump_stop(&r->pump); /* before it runs: it does not begin */
    CHECK(tp_pump_run(&r->pump, 0) == TP_OK && r->pump.counters.turns == 0);
    for (int i = 0; i < 25; i++) {
        CHECK(pthread_create(&thread, NULL, run, &r->pump) == 0);
        nap(i * 700000);
        CHECK(stop(r, thread) == 0);
        receive_all(r, r->members[0].peer_fd);
        receive_all(r, r->members[1].peer_fd);
    }
    uint64_t turns = r->pump.counters.turns;
    CHECK(turns > 0 && r->pump.counters.path_ticks > 0 && r->pump.counters.busy_ns > 0);
    nap(12000000);
    CHECK(r->pump.counters.turns == turns); /* it is gone */
    frames found;
    CHECK(parse_frames(r, &found, true) == 0 && found.n_media == r->pump.counters.messages_out);
    return rig_close(r);
}

static int test_needs_an_origin(void) {
    rig *r = rig_open(POOL_BLOCKS, 0);
    CHECK(r != NULL && tp_pump_run(&r->pump, 0) == TP_E_STATE);
    return rig_close(r);
}

/* A parked thread is woken by the first member. */
static int test_members_come_and_go(void) {
    rig *r = rig_open(POOL_BLOCKS, monotonic());
    pthread_t thread;
    CHECK(r != NULL && pthread_create(&thread, NULL, run, &r->pump) == 0);
    nap(3000000);
    for (uint32_t round = 0; round < 40; round++) {
        uint32_t i = round % N_LIVE;
        bool entered = tp_pump_guard_enter();
        member_close(r, i);
        int failed = add_call(r, i, now_of(r));
        uint64_t seen = r->pump.counters.path_ticks;
        tp_pump_guard_leave(entered);
        CHECK(failed == 0);
        uint8_t bytes[200];
        CHECK(send_rtp(&r->members[i], r->members[i].caller_fd, bytes, write_rtp(&r->members[i], bytes, 1)) == 0);
        if (round % 4 == 0 && wait_for(&r->pump.counters.path_ticks, seen + 2) != 0) return 1;
    }
    for (uint32_t i = 0; i < N_LIVE; i++) { /* all of them hang up, and the thread is parked again */
        bool entered = tp_pump_guard_enter();
        member_close(r, i);
        tp_pump_guard_leave(entered);
    }
    CHECK(stop(r, thread) == 0 && r->pump.counters.datagrams_in > 0 && r->pump.counters.messages_out > 0);
    return rig_close(r);
}

/* Waits for the eventfd and takes what it stands for. */
static int attend(rig *r) {
    struct pollfd signal = {.fd = r->pump.signal, .events = POLLIN};
    eventfd_t count;
    CHECK(poll(&signal, 1, (int)(PATIENCE_NS / 1000000)) == 1 && eventfd_read(r->pump.signal, &count) == 0);
    bool entered = tp_pump_guard_enter();
    r->n_attention = tp_pump_take_attention(&r->pump, r->attention, N_SLOTS + N_PORTS);
    tp_pump_guard_leave(entered);
    return 0;
}

static int test_held_frames(void) {
    rig *r = rig_open(POOL_BLOCKS, monotonic());
    pthread_t thread;
    CHECK(r != NULL && add_call(r, 0, now_of(r)) == 0);
    member *m = &r->members[0];
    uint8_t ping[8];
    CHECK(send_all(m->peer_fd, ping, write_frame(ping, TP_OPCODE_PING, "", 0)) == 0 && tp_pump_read(&r->pump, 0) == 1);
    CHECK(pthread_create(&thread, NULL, run, &r->pump) == 0);
    CHECK(attend(r) == 0 && attention_of(r, 0, m->port) == TP_ATTEND_HELD); /* what came before the thread is announced too */
    bool locked = tp_pump_guard_enter();
    int resumed = tp_pump_give(&r->pump, m->port, NULL, 0, 0);
    tp_pump_guard_leave(locked);
    CHECK(resumed == TP_OK);
    for (int i = 0; i < 60; i++) {
        uint8_t bytes[1000], held[1000];
        size_t n = write_media(m, bytes, sizeof bytes, 1, 80);
        n += write_frame(bytes + n, TP_OPCODE_PING, "1234", 4);
        CHECK(send_all(m->peer_fd, bytes, n) == 0);
        uint32_t what;
        do {
            if (attend(r) != 0) return 1;
            what = attention_of(r, 0, m->port);
        } while (what == 0);
        CHECK(what == TP_ATTEND_HELD);
        tp_received report;
        int result;
        bool entered = tp_pump_guard_enter();
        int64_t got = tp_pump_take_held(&r->pump, m->port, &report, &result, held, sizeof held);
        int given = tp_pump_give(&r->pump, m->port, NULL, 0, 0);
        tp_event event;
        while (tp_path_next_event(&m->path, &event) == 1) continue;
        tp_pump_guard_leave(entered);
        CHECK(got == 6 && given == TP_OK && report.opcode == TP_OPCODE_PING && memcmp(held + 2, "1234", 4) == 0);
    }
    CHECK(stop(r, thread) == 0 && m->stream.counters.messages_in == 60);
    return rig_close(r);
}

static void pause_by(rig *r, int by) {
    bool entered = tp_pump_guard_enter();
    tp_pump_pause(&r->pump, by);
    tp_pump_guard_leave(entered);
}

/* While Python makes several calls nothing happens between them; what was left is done as soon as they are made. */
static int test_pauses(void) {
    rig *r = rig_open(POOL_BLOCKS, monotonic());
    pthread_t thread;
    CHECK(r != NULL && add_call(r, 0, now_of(r)) == 0 && add_call(r, 1, now_of(r)) == 0);
    CHECK(pthread_create(&thread, NULL, run, &r->pump) == 0);
    CHECK(wait_for(&r->pump.counters.path_ticks, 2) == 0);
    for (int i = 0; i < 20; i++) {
        pause_by(r, 1);
        pause_by(r, 1);
        uint64_t ticks = look(&r->pump.counters.path_ticks), turns = look(&r->pump.counters.turns);
        nap(i * 2000000);
        pause_by(r, -1);
        nap(100000);
        CHECK(look(&r->pump.counters.path_ticks) == ticks);
        pause_by(r, -1);
        if (wait_for(&r->pump.counters.path_ticks, ticks + 2) != 0 || wait_for(&r->pump.counters.turns, turns + 1) != 0) return 1;
        receive_all(r, r->members[0].peer_fd);
        receive_all(r, r->members[1].peer_fd);
    }
    pause_by(r, 1); /* one that is paused can be stopped */
    nap(21000000);
    CHECK(stop(r, thread) == 0);
    return rig_close(r);
}

/* A stream without a port is announced too. */
static int test_handover(void) {
    rig *r = rig_open(POOL_BLOCKS, monotonic());
    pthread_t thread;
    CHECK(r != NULL && make_call(&r->pool, &r->members[0], 0, now_of(r)) == 0);
    CHECK(tp_pump_add_path(&r->pump, 0, &r->members[0].path) == TP_OK);
    CHECK(tp_pump_tick(&r->pump, 40000000) >= 0 && r->pump.handover[0].n_outputs > 0);
    struct pollfd signal = {.fd = r->pump.signal, .events = POLLIN};
    CHECK(poll(&signal, 1, 0) == 0);
    CHECK(pthread_create(&thread, NULL, run, &r->pump) == 0);
    for (int i = 0; i < 10; i++) {
        if (attend(r) != 0) return 1;
        bool entered = tp_pump_guard_enter();
        (void)tp_pump_take_handover(&r->pump);
        tp_pump_guard_leave(entered);
    }
    return stop(r, thread) != 0 || rig_close(r) != 0;
}

int main(void) {
    return test_needs_an_origin() != 0 || test_start_and_stop() != 0 || test_members_come_and_go() != 0 ||
           test_held_frames() != 0 || test_pauses() != 0 || test_handover() != 0;
}
