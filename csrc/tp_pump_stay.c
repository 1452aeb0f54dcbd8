#ifdef __linux__
#define _GNU_SOURCE /* ppoll */
#include "tp_pump.h"

#include <poll.h>
#include <sys/timerfd.h>
#include <time.h>

#define NS_PER_S 1000000000LL
#define LATE_NS 20000000

static int64_t clock_ns(clockid_t clock) {
    struct timespec at;
    (void)clock_gettime(clock, &at);
    return (int64_t)at.tv_sec * NS_PER_S + at.tv_nsec;
}

static int64_t elapsed(const tp_pump *pump) { return clock_ns(CLOCK_MONOTONIC) - pump->origin; }

static int64_t due_after(const tp_pump *pump, const tp_stay *stay) {
    if (!stay->polls) return pump->next_due;
    int64_t poll = stay->last / TP_PUMP_TICK_NS * TP_PUMP_TICK_NS + TP_PUMP_TICK_NS;
    return poll < pump->next_due ? poll : pump->next_due;
}

/* A moment that has passed has it fire at once. */
static void arm(const tp_pump *pump, tp_stay *stay, int64_t when) {
    int64_t at = pump->origin + when;
    struct itimerspec timer = {.it_value = {.tv_sec = at / NS_PER_S, .tv_nsec = at % NS_PER_S}};
    (void)timerfd_settime(stay->timer, TFD_TIMER_ABSTIME, &timer, NULL);
    stay->armed = when;
}

static void disarm(const tp_stay *stay) {
    static const struct itimerspec never;
    (void)timerfd_settime(stay->timer, 0, &never, NULL);
}

/* Until the turn is due. -> false: somebody else's descriptor, or a signal, came first */
static bool wait_for_turn(const tp_pump *pump, tp_stay *stay, int64_t due) {
    struct pollfd others = {.fd = stay->others, .events = POLLIN};
    if (stay->n == 0 || due > stay->done) {
        (void)ppoll(&others, 1, NULL, NULL);
        return elapsed(pump) >= due;
    }
    disarm(stay); /* It is overdue: with the timer silent the others can be told. */
    if (ppoll(&others, 1, &(struct timespec){0}, NULL) == 0) return true;
    arm(pump, stay, due);
    return false;
}

int tp_pump_stay(tp_pump *pump, tp_stay *stay) {
    stay->n = 0;
    stay->armed = -1;
    if (pump->origin <= 0 || pump->running) return TP_E_STATE;
    for (int64_t due = due_after(pump, stay); due <= stay->until && wait_for_turn(pump, stay, due);) {
        if (stay->n != 0) {
            stay->before = stay->done;
            stay->cpu_before = clock_ns(CLOCK_THREAD_CPUTIME_ID);
        }
        stay->last = elapsed(pump);
        int ticked;
        int attention = tp_pump_step(pump, stay->last, &ticked);
        stay->done = elapsed(pump);
        int64_t late = stay->done - due;
        stay->late[stay->n++] = late;
        due = due_after(pump, stay);
        bool wanted = !ticked || attention != 0 || pump->handover[pump->filling].n_outputs != 0 || late > LATE_NS;
        if (wanted || due > stay->until) {
            arm(pump, stay, stay->done);
            break;
        }
        arm(pump, stay, due);
        if (stay->done >= stay->enough || stay->n == TP_STAY_TURNS) break;
    }
    return (int)stay->n;
}
#endif
