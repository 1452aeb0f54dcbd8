#ifdef __linux__
#define _GNU_SOURCE /* epoll, eventfd, MSG_DONTWAIT */
#include "tp_port.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_AT_ONCE 2048
#define SLOTS_A_BATCH 64 /* ticked, then sent */
#define SLOTS_A_GUARD 8  /* the same, while Python may be waiting */
#define STALL_NS 20000000
#define CACHE_LINE 64

int64_t tp_pump_clock_ns(int clock) {
    struct timespec at;
    (void)clock_gettime((clockid_t)clock, &at);
    return (int64_t)at.tv_sec * 1000000000 + at.tv_nsec;
}

/* ---- what a thread looks at without the guard ---- */

static int64_t due_of(const tp_pump *pump, uint32_t slot) { return __atomic_load_n(&pump->m.due[slot], __ATOMIC_RELAXED); }

static void set_due(tp_pump *pump, uint32_t slot, int64_t due) {
    __atomic_store_n(&pump->m.due[slot], due, __ATOMIC_RELAXED);
    if (due < pump->next_due) pump->next_due = due;
}

/* ---- attention ---- */

void tp_pump_announce(tp_pump *pump) {
    if (!pump->running || pump->signalled) return;
    pump->signalled = 1;
    (void)eventfd_write(pump->signal, 1);
}

/* The list has room: an entry is there once for each slot and port, and leaves with it. */
static void attend(tp_pump *pump, uint32_t slot, uint64_t port, uint32_t *attention, uint32_t what) {
    if (*attention == 0) {
        pump->m.attention[pump->n_attention++] =
            (tp_attention){.slot = slot, .port = port, .generation = pump->m.slots[slot].generation};
    }
    *attention |= what;
    tp_pump_announce(pump);
}

void tp_pump_attend_slot(tp_pump *pump, uint32_t slot, uint32_t what) {
    attend(pump, slot, 0, &pump->m.slots[slot].attention, what);
}

void tp_pump_attend_port(tp_pump *pump, tp_port *port, uint32_t what) {
    if (port->slot == TP_NO_SLOT) return; /* its slot is gone: nobody is there to attend */
    attend(pump, port->slot, tp_port_handle(pump, port), &port->attention, what);
}

void tp_pump_forget_attention(tp_pump *pump, uint32_t slot, uint64_t port, uint32_t *attention) {
    if (*attention == 0) return;
    *attention = 0;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < pump->n_attention; i++) {
        const tp_attention *entry = &pump->m.attention[i];
        if (entry->slot != slot || entry->port != port) pump->m.attention[kept++] = *entry;
    }
    pump->n_attention = kept;
}

int tp_pump_take_attention(tp_pump *pump, tp_attention *out, uint32_t n) {
    pump->signalled = 0; /* before looking: what comes after is announced anew */
    if (n > pump->n_attention) n = pump->n_attention;
    for (uint32_t i = 0; i < n; i++) {
        out[i] = pump->m.attention[i];
        uint32_t *attention = &pump->m.slots[out[i].slot].attention;
        if (out[i].port != 0) {
            tp_port *port = &pump->m.ports[(uint32_t)out[i].port];
            out[i].error = port->error;
            attention = &port->attention;
        }
        out[i].what = *attention;
        *attention = 0;
    }
    pump->n_attention -= n;
    memmove(pump->m.attention, pump->m.attention + n, pump->n_attention * sizeof *out);
    if (pump->n_attention != 0) tp_pump_announce(pump);
    return (int)n;
}

/* ---- reading ---- */

/* The thread's way in to one port or one slot. -> whether it may go on; Python may have asked it to wait */
static bool go_in(tp_pump *pump, bool guarded, bool *entered) {
    *entered = guarded && tp_pump_guard_enter();
    if (!guarded || pump->paused == 0) return true;
    tp_pump_guard_leave(*entered);
    pump->interrupted = 1;
    return false;
}
static void read_ports(tp_pump *pump, int64_t now, bool guarded) {
    struct epoll_event events[EVENTS_AT_ONCE];
    for (uint32_t round = 0; round < TP_PUMP_ROUNDS; round++) {
        int n = epoll_wait(pump->epoll, events, EVENTS_AT_ONCE, 0);
        bool busy = false; /* ports that are held stay ready */
        for (uint32_t kind = TP_PORT_LEG; kind <= TP_PORT_STREAM; kind++) {
            if (kind == TP_PORT_STREAM && !guarded && pump->uring.fd >= 0) {
                busy |= tp_port_read_streams(pump, events, n, now);
                continue;
            }
            for (int i = 0; i < n; i++) {
                bool entered;
                if (!go_in(pump, guarded, &entered)) return;
                if (i + TP_PORTS_AHEAD < n) tp_port_prefetch(pump, events[i + TP_PORTS_AHEAD].data.u64, kind);
                busy |= tp_port_read(pump, events[i].data.u64, kind, now);
                tp_pump_guard_leave(entered);
            }
        }
        if (!busy) return;
    }
}

/* ---- ticking ---- */

static void tick_path(tp_pump *pump, uint32_t number, int64_t now) {
    tp_path *path = pump->m.slots[number].path;
    int64_t due = due_of(pump, number);
    int64_t latest = due + (now - due) / path->ptime_ns * path->ptime_ns;
    int flags = 0;
    do {
        int status = tp_path_tick(path, latest, &pump->outbox);
        if (status >= 0) {
            flags |= status;
            pump->counters.path_ticks++;
        } else if (pump->outbox.n_outputs == 0) {
            tp_pump_attend_slot(pump, number, TP_ATTEND_STUCK);
            set_due(pump, number, INT64_MAX);
            return;
        } else {
            tp_port_send_outputs(pump, &pump->outbox);
        }
    } while (!path->closed && latest >= path->deadline);
    set_due(pump, number, tp_path_next_deadline(path));
    if ((flags & TP_TICK_EVENTS) != 0) tp_pump_attend_slot(pump, number, TP_ATTEND_EVENTS);
}

/* A line's speech that was written and has not left: on its way through Python, or waiting for the socket. For a cipher port
 * the hand-over must have room for all that may be written: `part` is made no larger than that. */
static bool must_rest(tp_pump *pump, const tp_port *port, tp_outbox *part) {
    if (port == NULL) return false;
    if (port->dead || port->out_bytes != 0 || port->handed != 0) return true;
    if (!port->cipher) return false;
    const tp_outbox *to = &pump->handover[pump->filling];
    uint32_t room = to->capacity - to->used, outputs = to->outputs_capacity - to->n_outputs;
    if (to->n_outputs != 0 && (room < part->capacity || outputs < part->outputs_capacity)) return true;
    if (part->capacity > room) part->capacity = room;
    if (part->outputs_capacity > outputs) part->outputs_capacity = outputs;
    return false;
}

/* What a line has to say goes behind what others have written already and leaves with it. -> whether that was all */
static bool tick_together(tp_pump *pump, uint32_t number, int64_t now) {
    tp_outbox *out = &pump->outbox;
    tp_outbox part = *out;
    tp_stream *line = pump->m.slots[number].line;
    if (out->capacity - out->used < TP_PUMP_SPEECH_MAX) return false;
    part.capacity = out->used + TP_PUMP_SPEECH_MAX;
    int flags = tp_stream_tick(line, number, now, &part);
    if (flags < 0) return false;
    if (part.n_outputs != out->n_outputs) { /* they lie behind one another: one output */
        tp_output *output = &out->outputs[out->n_outputs];
        output->length = part.used - output->offset;
        pump->counters.messages_out += part.n_outputs - ++out->n_outputs;
        out->used = part.used;
    }
    bool marks = (flags & TP_TICK_MARK_DUE) != 0; /* nothing more until Python has sent the checkpoint */
    int64_t due = marks ? INT64_MAX : tp_stream_next_deadline(line);
    set_due(pump, number, due);
    if (marks || (flags & TP_TICK_EVENTS) != 0) tp_pump_attend_slot(pump, number, TP_ATTEND_EVENTS);
    return (flags & TP_TICK_OUTPUT) == 0 || due > now;
}

static void tick_line(tp_pump *pump, uint32_t number, int64_t now) {
    const tp_slot *slot = &pump->m.slots[number];
    tp_stream *line = slot->line;
    tp_port *port = slot->streams[0] != TP_NO_PORT ? &pump->m.ports[slot->streams[0]] : NULL;
    pump->counters.line_ticks++;
    if (port != NULL && !port->cipher && !port->dead && port->out_bytes == 0 && tick_together(pump, number, now)) return;
    tp_port_send_outputs(pump, &pump->outbox); /* the rest wants it empty */
    tp_outbox part = pump->outbox;
    if (part.capacity > TP_PUMP_SPEECH_MAX) part.capacity = TP_PUMP_SPEECH_MAX;
    if (port != NULL && port->out_bytes != 0) tp_port_flush(pump, port);
    for (;;) {
        if (must_rest(pump, port, &part)) {
            set_due(pump, number, port->dead ? INT64_MAX : now + TP_PUMP_TICK_NS);
            return;
        }
        int flags = tp_stream_tick(line, number, now, &part);
        if (flags < 0) {
            tp_pump_attend_slot(pump, number, TP_ATTEND_STUCK);
            set_due(pump, number, INT64_MAX);
            return;
        }
        tp_port_send_speech(pump, number, &part);
        if ((flags & (TP_TICK_EVENTS | TP_TICK_MARK_DUE)) != 0) tp_pump_attend_slot(pump, number, TP_ATTEND_EVENTS);
        if ((flags & TP_TICK_MARK_DUE) != 0) {
            set_due(pump, number, INT64_MAX); /* until Python has sent the checkpoint */
            return;
        }
        int64_t due = tp_stream_next_deadline(line);
        bool waits = port != NULL && port->out_bytes != 0;
        if (!waits && ((flags & TP_TICK_OUTPUT) == 0 || due > now)) {
            set_due(pump, number, due);
            return;
        }
    }
}

static void tick_slot(tp_pump *pump, uint32_t number, int64_t now) {
    if (pump->m.slots[number].path != NULL) {
        tick_path(pump, number, now);
    } else {
        tick_line(pump, number, now);
    }
}

/* When a slot is due now that all it wrote has been offered to its sockets: a line rests while anything waits. */
static int64_t due_after_sending(tp_pump *pump, uint32_t number, int64_t now) {
    const tp_slot *slot = &pump->m.slots[number];
    if (slot->line != NULL && !slot->line->due_pending && slot->streams[0] != TP_NO_PORT) {
        const tp_port *port = &pump->m.ports[slot->streams[0]];
        if (port->dead) {
            set_due(pump, number, INT64_MAX);
        } else if (port->out_bytes != 0) {
            set_due(pump, number, now + TP_PUMP_TICK_NS);
        }
    }
    return due_of(pump, number);
}

static void prefetch_line(const tp_pump *pump, uint32_t number) {
    const tp_stream *line = pump->m.slots[number].line;
    if (line == NULL) return;
    const uint8_t *at = (const uint8_t *)line;
    for (size_t i = 0; i <= offsetof(tp_stream, playout.running); i += CACHE_LINE) __builtin_prefetch(at + i, 1);
    for (size_t i = offsetof(tp_stream, counters); i < sizeof *line; i += CACHE_LINE) __builtin_prefetch(at + i, 1);
}

/* So much that the rest is better ticked when it is gone: its pages stay few, after a stall too, and its bytes in the cache. */
static bool much_handed_over(const tp_pump *pump) {
    const tp_outbox *to = &pump->handover[pump->filling];
    return to->used > to->capacity / 16;
}

static void tick_slots(tp_pump *pump, int64_t now, bool guarded) {
    uint32_t n = __atomic_load_n(&pump->high_slot, __ATOMIC_RELAXED);
    int64_t first = INT64_MAX, next = INT64_MAX;
    for (uint32_t i = 0; i < n;) {
        if (due_of(pump, i) > now) {
            if (due_of(pump, i) < next) next = due_of(pump, i);
            i++;
            continue;
        }
        bool entered;
        if (!go_in(pump, guarded, &entered)) return;
        /* Some at a time: their arithmetic, then their sends. It may have gone before we entered. */
        uint32_t numbers[SLOTS_A_BATCH], n_due = 0;
        for (uint32_t most = guarded ? SLOTS_A_GUARD : SLOTS_A_BATCH; i < n && n_due < most; i++) {
            int64_t due = due_of(pump, i);
            if (due <= now) {
                numbers[n_due++] = i;
                if (due < first) first = due;
            } else if (due < next) {
                next = due;
            }
        }
        for (uint32_t k = 0; k < n_due; k++) {
            if (k + TP_PORTS_AHEAD < n_due) prefetch_line(pump, numbers[k + TP_PORTS_AHEAD]);
            tick_slot(pump, numbers[k], now);
        }
        tp_port_send_outputs(pump, &pump->outbox);
        for (uint32_t k = 0; k < n_due; k++) {
            int64_t due = due_after_sending(pump, numbers[k], now);
            if (due < next) next = due;
        }
        tp_pump_guard_leave(entered);
        if (!guarded && much_handed_over(pump)) {
            if (i < n) next = now;
            break;
        }
    }
    bool entered = guarded && tp_pump_guard_enter();
    pump->now = now;
    pump->next_due = next;
    pump->counters.turns++;
    if (pump->origin != 0 && first != INT64_MAX && now - first > STALL_NS) pump->counters.stalls++;
    tp_pump_guard_leave(entered);
}

int64_t tp_pump_turn(tp_pump *pump, int64_t now) {
    int64_t begun = tp_pump_clock_ns(CLOCK_THREAD_CPUTIME_ID);
    read_ports(pump, now, true);
    tick_slots(pump, now, true);
    int64_t ran = tp_pump_clock_ns(CLOCK_THREAD_CPUTIME_ID) - begun;
    bool entered = tp_pump_guard_enter();
    pump->counters.busy_ns += (uint64_t)ran;
    tp_pump_guard_leave(entered);
    return ran;
}

static int64_t busy_since(const tp_pump *pump, int64_t begun) {
    return pump->origin != 0 ? tp_pump_clock_ns(CLOCK_THREAD_CPUTIME_ID) - begun : 0;
}

/* Without a thread Python is done with what it took last, whenever it calls for more: one half of each pair will do, and that
 * one stays in the cache. */
static void reuse_halves(tp_pump *pump) {
    if (pump->running) return;
    if (pump->handover[pump->filling].n_outputs == 0) {
        pump->filling = 0;
        pump->handover[0].used = pump->handover[0].n_outputs = 0;
    }
    if (pump->n_cipher == 0) pump->cipher_filling = 0;
}

int tp_pump_read(tp_pump *pump, int64_t now) {
    reuse_halves(pump);
    int64_t begun = busy_since(pump, 0);
    read_ports(pump, now, false);
    pump->counters.busy_ns += (uint64_t)busy_since(pump, begun);
    return (int)pump->n_attention;
}

int tp_pump_tick(tp_pump *pump, int64_t now) {
    reuse_halves(pump);
    int64_t begun = busy_since(pump, 0);
    tick_slots(pump, now, false);
    pump->counters.busy_ns += (uint64_t)busy_since(pump, begun);
    return (int)pump->n_attention;
}

int tp_pump_step(tp_pump *pump, int64_t now, int *ticked) {
    *ticked = 0;
    if (tp_pump_read(pump, now) != 0 || pump->n_cipher != 0) return (int)pump->n_attention;
    *ticked = 1;
    return tp_pump_tick(pump, now);
}

/* ---- opening and closing ---- */

int tp_pump_open(tp_pump *pump, const tp_pump_memory *memory, int64_t origin) {
    memset(pump, 0, sizeof *pump);
    pump->epoll = pump->signal = pump->wake = pump->realtime = pump->uring.fd = -1;
    if (memory->n_ports == 0 || memory->n_slots == 0 || memory->n_ports > 0x7fffffffu) return TP_E_ARGUMENT;
    int status = tp_pool_init(&pump->pool, memory->pool_bytes, (size_t)memory->pool_capacity);
    if (status < 0) return status;
    pump->m = *memory;
    pump->origin = origin;
    pump->next_due = INT64_MAX;
    pump->outbox = (tp_outbox){.bytes = memory->outbox_bytes,
                               .outputs = memory->outbox_outputs,
                               .capacity = memory->outbox_capacity,
                               .outputs_capacity = memory->outbox_outputs_capacity};
    for (uint32_t i = 0; i < 2; i++) {
        pump->handover[i] = (tp_outbox){.bytes = memory->handover_bytes[i],
                                        .outputs = memory->handover_outputs[i],
                                        .capacity = memory->handover_capacity,
                                        .outputs_capacity = memory->handover_outputs_capacity};
    }
    for (uint32_t number = memory->n_ports - 1; number != TP_NO_PORT; number--) {
        pump->m.free_ports[pump->n_free_ports++] = number;
    }
    pump->epoll = epoll_create1(EPOLL_CLOEXEC);
    pump->signal = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pump->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (pump->epoll < 0 || pump->signal < 0 || pump->wake < 0) {
        int error = errno;
        tp_pump_close(pump);
        errno = error;
        return TP_E_STATE;
    }
    if (pump->m.ring_bytes != NULL) (void)tp_uring_open(&pump->uring);
    return TP_OK;
}

void tp_pump_close(tp_pump *pump) {
    if (pump->m.slots == NULL) return;
    for (uint32_t i = 0; i < pump->high_slot; i++) tp_pump_remove(pump, i);
    for (uint32_t i = 1; i < pump->m.n_ports && pump->n_open_ports != 0; i++) {
        if (pump->m.ports[i].kind != TP_PORT_FREE) tp_port_close(pump, &pump->m.ports[i]);
    }
    if (pump->epoll >= 0) (void)close(pump->epoll);
    if (pump->signal >= 0) (void)close(pump->signal);
    if (pump->wake >= 0) (void)close(pump->wake);
    tp_uring_close(&pump->uring);
    pump->epoll = pump->signal = pump->wake = -1;
    memset(&pump->m, 0, sizeof pump->m);
    pump->high_slot = 0;
}

/* ---- members ---- */

static int add(tp_pump *pump, uint32_t number, tp_path *path, tp_stream *line, int64_t due) {
    if (number >= pump->m.n_slots || tp_pump_slot(pump, number) != NULL) return TP_E_ARGUMENT;
    tp_slot *slot = &pump->m.slots[number];
    uint32_t generation = slot->generation != 0 ? slot->generation : 1;
    *slot = (tp_slot){.path = path, .line = line, .generation = generation};
    for (uint32_t i = pump->high_slot; i < number; i++) set_due(pump, i, INT64_MAX);
    set_due(pump, number, due);
    if (number >= pump->high_slot) __atomic_store_n(&pump->high_slot, number + 1, __ATOMIC_RELEASE);
    pump->n_members++;
    if (pump->running) (void)eventfd_write(pump->wake, 1);
    return TP_OK;
}

int tp_pump_add_path(tp_pump *pump, uint32_t slot, tp_path *path) {
    return path != NULL ? add(pump, slot, path, NULL, tp_path_next_deadline(path)) : TP_E_ARGUMENT;
}

int tp_pump_add_line(tp_pump *pump, uint32_t slot, tp_stream *line) {
    return line != NULL ? add(pump, slot, NULL, line, tp_stream_next_deadline(line)) : TP_E_ARGUMENT;
}

void tp_pump_remove(tp_pump *pump, uint32_t number) {
    tp_slot *slot = tp_pump_slot(pump, number);
    if (slot == NULL) return;
    if (slot->leg != TP_NO_PORT) tp_port_part(pump, &pump->m.ports[slot->leg]);
    for (uint32_t i = 0; i < TP_PATH_STREAMS; i++) {
        if (slot->streams[i] != TP_NO_PORT) tp_port_part(pump, &pump->m.ports[slot->streams[i]]);
    }
    tp_pump_forget_attention(pump, number, 0, &slot->attention);
    *slot = (tp_slot){.generation = tp_port_next_generation(slot->generation)};
    set_due(pump, number, INT64_MAX);
    pump->n_members--;
}

void tp_pump_pause(tp_pump *pump, int by) { pump->paused = (uint32_t)((int)pump->paused + by); }

void tp_pump_rearm(tp_pump *pump, uint32_t number, int64_t now) {
    const tp_slot *slot = tp_pump_slot(pump, number);
    if (slot == NULL) return;
    if (slot->path != NULL) {
        set_due(pump, number, tp_path_next_deadline(slot->path));
        return;
    }
    if (slot->line->due_pending) { /* nothing is sent past a checkpoint that Python has still to send */
        set_due(pump, number, INT64_MAX);
        tp_pump_attend_slot(pump, number, TP_ATTEND_EVENTS);
        return;
    }
    /* An idle line's own clock has stood still since it was last ticked. */
    int64_t due = tp_stream_next_deadline(slot->line);
    set_due(pump, number, due > now ? due : now);
}

int tp_pump_say(tp_pump *pump, uint32_t number, uint32_t encoding, const void *in, size_t in_bytes) {
    const tp_slot *slot = tp_pump_slot(pump, number);
    if (slot == NULL || slot->line == NULL || tp_stream_say(slot->line, encoding, in, in_bytes) != 1) return 0;
    tp_pump_rearm(pump, number, pump->now / TP_PUMP_TICK_NS * TP_PUMP_TICK_NS + TP_PUMP_TICK_NS);
    return 1;
}
#endif
