#ifdef __linux__
#define _GNU_SOURCE /* ppoll */
#include "tp_pump.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>

#define NS_PER_S 1000000000LL
#define PAUSE_NS 100000 /* long enough that a real-time thread leaves Python room to end the pause */
#define REST_SHARE 10 /* of what has run, one part in this many is rested */

/* One lock for the process: a path's and a stream's functions do not say which pump theirs is. */
static pthread_mutex_t guard;
static pthread_once_t guard_once = PTHREAD_ONCE_INIT;
static atomic_uint n_threads;

static void make_guard(void) {
    pthread_mutexattr_t how;
    (void)pthread_mutexattr_init(&how);
    /* A real-time thread that waits for Python lends it its priority. */
    (void)pthread_mutexattr_setprotocol(&how, PTHREAD_PRIO_INHERIT);
    (void)pthread_mutex_init(&guard, &how);
    (void)pthread_mutexattr_destroy(&how);
}

void tp_pump_guard_begin(void) {
    (void)pthread_once(&guard_once, make_guard);
    atomic_fetch_add_explicit(&n_threads, 1, memory_order_acq_rel);
}

void tp_pump_guard_end(void) { atomic_fetch_sub_explicit(&n_threads, 1, memory_order_acq_rel); }

bool tp_pump_guard_enter(void) {
    if (atomic_load_explicit(&n_threads, memory_order_acquire) == 0) return false;
    (void)pthread_mutex_lock(&guard);
    return true;
}

void tp_pump_guard_leave(bool entered) {
    if (entered) (void)pthread_mutex_unlock(&guard);
}

static int64_t elapsed(const tp_pump *pump) {
    struct timespec at;
    (void)clock_gettime(CLOCK_MONOTONIC, &at);
    return (int64_t)at.tv_sec * NS_PER_S + at.tv_nsec - pump->origin;
}

static bool asked_to_stop(const tp_pump *pump) { return __atomic_load_n(&pump->stopping, __ATOMIC_ACQUIRE) != 0; }

static void sleep_until(tp_pump *pump, int64_t when) {
    for (int64_t left; !asked_to_stop(pump) && (left = when - elapsed(pump)) > 0;) {
        struct pollfd wake = {.fd = pump->wake, .events = POLLIN};
        struct timespec timeout = {(time_t)(left / NS_PER_S), (long)(left % NS_PER_S)};
        eventfd_t count;
        if (ppoll(&wake, 1, &timeout, NULL) > 0) (void)eventfd_read(pump->wake, &count);
    }
}

static void sleep_until_woken(tp_pump *pump) {
    struct pollfd wake = {.fd = pump->wake, .events = POLLIN};
    eventfd_t count;
    if (ppoll(&wake, 1, NULL, NULL) > 0) (void)eventfd_read(pump->wake, &count);
}

static bool has_members(const tp_pump *pump) {
    bool entered = tp_pump_guard_enter();
    bool some = pump->n_members != 0;
    tp_pump_guard_leave(entered);
    return some;
}

static void count_rest(tp_pump *pump) {
    bool entered = tp_pump_guard_enter();
    pump->counters.budget_rests++;
    tp_pump_guard_leave(entered);
}

/* A turn at each point of the grid. What was missed is not made up: the paths know how late they are. */
static void take_turns(tp_pump *pump) {
    int64_t owed = 0; /* run, and not yet rested for */
    int64_t last = elapsed(pump) / TP_PUMP_TICK_NS;
    while (!asked_to_stop(pump)) {
        if (!has_members(pump)) {
            sleep_until_woken(pump);
            last = elapsed(pump) / TP_PUMP_TICK_NS;
            owed = 0;
            continue;
        }
        int64_t now = elapsed(pump);
        if (now / TP_PUMP_TICK_NS <= last) {
            sleep_until(pump, (last + 1) * TP_PUMP_TICK_NS);
        } else if (owed != 0) { /* the last turn ran into this one */
            sleep_until(pump, now + owed / REST_SHARE);
            count_rest(pump);
        }
        owed -= (elapsed(pump) - now) * REST_SHARE;
        if (owed < 0) owed = 0;
        if (asked_to_stop(pump)) return;
        now = elapsed(pump);
        last = now / TP_PUMP_TICK_NS;
        pump->interrupted = 0;
        owed += tp_pump_turn(pump, now);
        while (pump->interrupted && !asked_to_stop(pump)) {
            sleep_until(pump, elapsed(pump) + PAUSE_NS);
            pump->interrupted = 0;
            owed += tp_pump_turn(pump, elapsed(pump));
        }
    }
}

static void set_running(tp_pump *pump, bool running, int realtime) {
    bool entered = tp_pump_guard_enter();
    pump->running = running;
    pump->realtime = realtime;
    pump->signalled = 0;
    if (pump->n_attention != 0 || pump->handover[pump->filling].n_outputs != 0) tp_pump_announce(pump);
    tp_pump_guard_leave(entered);
}

int tp_pump_run(tp_pump *pump, int realtime_priority) {
    if (pump->m.slots == NULL || pump->origin == 0 || pump->running) return TP_E_STATE;
    tp_pump_guard_begin();
    sigset_t all, signals;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &signals); /* they are Python's */
    int slack = prctl(PR_GET_TIMERSLACK);
    (void)prctl(PR_SET_TIMERSLACK, 1);
    int policy;
    struct sched_param before, wanted = {.sched_priority = realtime_priority};
    bool known = pthread_getschedparam(pthread_self(), &policy, &before) == 0;
    bool realtime = realtime_priority > 0 && pthread_setschedparam(pthread_self(), SCHED_FIFO, &wanted) == 0;

    set_running(pump, true, realtime);
    take_turns(pump);
    set_running(pump, false, -1);
    __atomic_store_n(&pump->stopping, 0, __ATOMIC_RELEASE);

    if (realtime && known) (void)pthread_setschedparam(pthread_self(), policy, &before);
    if (slack > 0) (void)prctl(PR_SET_TIMERSLACK, slack);
    (void)pthread_sigmask(SIG_SETMASK, &signals, NULL);
    tp_pump_guard_end();
    return TP_OK;
}

void tp_pump_stop(tp_pump *pump) {
    if (pump->m.slots == NULL) return;
    __atomic_store_n(&pump->stopping, 1, __ATOMIC_RELEASE);
    (void)eventfd_write(pump->wake, 1);
}
#endif
