/* tp_pump_stay on real descriptors and the real clock: no test says how long anything takes. */
#include "pump_rig.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>

#define MS 1000000LL
#define POOL_BLOCKS 200
#define FAR (3600000 * MS)

static int64_t monotonic(void) {
    struct timespec at;
    return clock_gettime(CLOCK_MONOTONIC, &at) == 0 ? (int64_t)at.tv_sec * 1000 * MS + at.tv_nsec : -1;
}

static int64_t elapsed(const rig *r) { return monotonic() - r->pump.origin; }

/* What a scheduler waits for: a timer, and something else. */
typedef struct waits {
    int epoll, timer, other;
} waits;

static int waits_open(waits *w) {
    w->epoll = epoll_create1(0);
    w->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    w->other = eventfd(0, EFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data.fd = w->timer};
    CHECK(epoll_ctl(w->epoll, EPOLL_CTL_ADD, w->timer, &event) == 0);
    event = (struct epoll_event){.events = EPOLLIN, .data.fd = w->other};
    CHECK(epoll_ctl(w->epoll, EPOLL_CTL_ADD, w->other, &event) == 0);
    return 0;
}

static int waits_close(waits *w) {
    CHECK(close(w->epoll) == 0 && close(w->timer) == 0 && close(w->other) == 0);
    return 0;
}

static void arm(const rig *r, const waits *w, int64_t when) {
    int64_t at = r->pump.origin + when;
    struct itimerspec timer = {.it_value = {.tv_sec = at / (1000 * MS), .tv_nsec = at % (1000 * MS)}};
    (void)timerfd_settime(w->timer, TFD_TIMER_ABSTIME, &timer, NULL);
}

static tp_stay stay_of(const waits *w, int64_t until) {
    return (tp_stay){.timer = w->timer, .others = w->epoll, .until = until, .enough = FAR};
}

/* The descriptor that ends the scheduler's own wait. */
static int woken_by(const waits *w) {
    struct epoll_event event;
    return epoll_wait(w->epoll, &event, 1, -1) == 1 ? event.data.fd : -1;
}

static rig *open_now(void) { return rig_open(POOL_BLOCKS, monotonic()); }

/* It stays until `until`, however the machine behaves; then the timer says so. A late turn is the last of its stay. */
static int test_until(void) {
    rig *r = open_now();
    waits w;
    CHECK(r != NULL && waits_open(&w) == 0 && add_call(r, 0, 0) == 0);
    int64_t until = 90 * MS, turns = 0;
    for (tp_stay stay = stay_of(&w, until); r->pump.next_due <= until;) {
        arm(r, &w, r->pump.next_due);
        int n = tp_pump_stay(&r->pump, &stay);
        CHECK(n >= 1 && stay.n == (uint32_t)n && stay.done >= stay.last && stay.last <= elapsed(r));
        for (int i = 0; i < n; i++) CHECK(stay.late[i] >= 0 && (i == n - 1 || stay.late[i] <= 20 * MS));
        CHECK(n == 1 || (stay.before <= stay.last && stay.cpu_before > 0));
        turns += n;
        CHECK(stay.armed == stay.done && woken_by(&w) == w.timer);
        struct epoll_event again = {.events = EPOLLIN | EPOLLONESHOT, .data.fd = w.timer};
        CHECK(epoll_ctl(w.epoll, EPOLL_CTL_MOD, w.timer, &again) == 0);
    }
    CHECK((uint64_t)turns == r->pump.counters.turns && turns <= 5);
    CHECK(r->members[0].path.deadline == r->pump.next_due && r->pump.next_due > until);
    tp_stay stay = stay_of(&w, until);
    CHECK(tp_pump_stay(&r->pump, &stay) == 0 && stay.armed == -1); /* nothing is due before that */
    return waits_close(&w) + rig_close(r);
}

/* Others first: the turn that is due later is not waited for. */
static int test_others(void) {
    rig *r = open_now();
    waits w;
    CHECK(r != NULL && waits_open(&w) == 0 && add_call(r, 0, 0) == 0);
    CHECK(tp_pump_tick(&r->pump, FAR) == 0);
    arm(r, &w, r->pump.next_due);
    CHECK(eventfd_write(w.other, 1) == 0);
    tp_stay stay = stay_of(&w, 2 * FAR);
    CHECK(tp_pump_stay(&r->pump, &stay) == 0 && stay.armed == -1 && r->pump.counters.turns == 1);
    CHECK(woken_by(&w) == w.other);
    return waits_close(&w) + rig_close(r);
}

/* A turn that came late is told at once, be the next one due or not. */
static int test_late(void) {
    rig *r = rig_open(POOL_BLOCKS, monotonic() - FAR);
    waits w;
    CHECK(r != NULL && waits_open(&w) == 0 && add_line(r, 0, 0) == 0);
    arm(r, &w, 1);
    tp_stay stay = stay_of(&w, 2 * FAR);
    stay.polls = 1;
    CHECK(tp_pump_stay(&r->pump, &stay) == 1 && stay.late[0] > 20 * MS);
    CHECK(stay.armed == stay.done && elapsed(r) >= stay.armed && woken_by(&w) == w.timer);
    return waits_close(&w) + rig_close(r);
}

static int test_attention(void) {
    rig *r = open_now();
    waits w;
    CHECK(r != NULL && waits_open(&w) == 0 && add_call(r, 0, 0) == 0);
    uint8_t bytes[100];
    CHECK(send_all(r->members[0].peer_fd, bytes, write_frame(bytes, TP_OPCODE_PING, "hello", 5)) == 0);
    arm(r, &w, r->pump.next_due);
    tp_stay stay = stay_of(&w, FAR);
    while (r->pump.n_attention == 0) { /* a late turn may be the last before it has arrived */
        CHECK(tp_pump_stay(&r->pump, &stay) >= 1);
    }
    CHECK(stay.armed == stay.done && woken_by(&w) == w.timer);
    CHECK(take_attention(r) == 0 && r->n_attention == 1 && attention_of(r, 0, r->members[0].port) == TP_ATTEND_HELD);
    return waits_close(&w) + rig_close(r);
}

/* The first turn after `enough` is the last; the timer is armed for the next one. */
static int test_enough(void) {
    rig *r = open_now();
    waits w;
    CHECK(r != NULL && waits_open(&w) == 0 && add_line(r, 0, 0) == 0);
    arm(r, &w, TP_PUMP_TICK_NS);
    tp_stay stay = stay_of(&w, FAR);
    stay.enough = 1;
    stay.polls = 1;
    CHECK(tp_pump_stay(&r->pump, &stay) == 1 && stay.last >= TP_PUMP_TICK_NS);
    int64_t next = stay.last / TP_PUMP_TICK_NS * TP_PUMP_TICK_NS + TP_PUMP_TICK_NS;
    CHECK(stay.armed == next || stay.late[0] > 20 * MS);
    return waits_close(&w) + rig_close(r);
}

static int test_not_here(void) {
    rig *r = rig_open(POOL_BLOCKS, 0);
    waits w;
    CHECK(r != NULL && waits_open(&w) == 0 && add_call(r, 0, 0) == 0);
    tp_stay stay = stay_of(&w, FAR);
    CHECK(tp_pump_stay(&r->pump, &stay) == TP_E_STATE && stay.n == 0 && stay.armed == -1);
    return waits_close(&w) + rig_close(r);
}

int main(void) {
    return (test_until() + test_others() + test_late() + test_attention() + test_enough() + test_not_here()) != 0;
}
