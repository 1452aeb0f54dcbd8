#ifdef __linux__
#define _GNU_SOURCE /* epoll, eventfd, MSG_DONTWAIT */
#include "tp_pump.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_AT_ONCE 2048
#define BLOCKS_AT_ONCE 16 /* of a chain, in one send */
#define WAITING_MAX (TP_PUMP_MEDIA_MAX + TP_PUMP_CONTROL_MAX)
#define SLOTS_A_BATCH 64 /* ticked, then sent */
#define SLOTS_A_GUARD 8  /* the same, while Python may be waiting */
#define PORTS_AHEAD 2    /* their state comes into the cache while those before them are read */
#define CACHE_LINE 64
#define STALL_NS 20000000
#define FINE_NS 100000 /* of the lateness histogram, up to FINE_BUCKETS of them */
#define FINE_BUCKETS 200
#define COARSE_NS 5000000
#define GENERATION_MAX 0x7fffffffu /* a handle is a positive int64_t */
#define NO_SLOT UINT32_MAX
#define HELD 1u
#define HELD_FOR_GOOD 2u

static int64_t clock_ns(clockid_t clock) {
    struct timespec at;
    (void)clock_gettime(clock, &at);
    return (int64_t)at.tv_sec * 1000000000 + at.tv_nsec;
}

/* ---- what a thread looks at without the guard ---- */

static int64_t due_of(const tp_pump *pump, uint32_t slot) { return __atomic_load_n(&pump->m.due[slot], __ATOMIC_RELAXED); }

static void set_due(tp_pump *pump, uint32_t slot, int64_t due) {
    __atomic_store_n(&pump->m.due[slot], due, __ATOMIC_RELAXED);
    if (due < pump->next_due) pump->next_due = due;
}

/* ---- generations ---- */

static uint32_t next_generation(uint32_t generation) { return generation == GENERATION_MAX ? 1 : generation + 1; }

static uint32_t number_of(const tp_pump *pump, const tp_port *port) { return (uint32_t)(port - pump->m.ports); }

static uint64_t handle_of(const tp_pump *pump, const tp_port *port) {
    return (uint64_t)port->generation << 32 | number_of(pump, port);
}

static tp_port *port_of(const tp_pump *pump, uint64_t handle) {
    uint32_t number = (uint32_t)handle;
    if (number == TP_NO_PORT || number >= pump->m.n_ports) return NULL;
    tp_port *port = &pump->m.ports[number];
    return port->kind != TP_PORT_FREE && port->generation == handle >> 32 ? port : NULL;
}

static tp_slot *slot_of(const tp_pump *pump, uint32_t number) {
    if (number >= pump->m.n_slots) return NULL;
    tp_slot *slot = &pump->m.slots[number];
    return slot->path != NULL || slot->line != NULL ? slot : NULL;
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

static void attend_slot(tp_pump *pump, uint32_t slot, uint32_t what) {
    attend(pump, slot, 0, &pump->m.slots[slot].attention, what);
}

static void attend_port(tp_pump *pump, tp_port *port, uint32_t what) {
    if (port->slot == NO_SLOT) return; /* its slot is gone: nobody is there to attend */
    attend(pump, port->slot, handle_of(pump, port), &port->attention, what);
}

static void forget_attention(tp_pump *pump, uint32_t slot, uint64_t port, uint32_t *attention) {
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

/* ---- bytes that wait ---- */

static size_t chain_room(const tp_pool *pool, const tp_chain *chain) {
    size_t slack = chain->n_blocks != 0 ? TP_BLOCK_BYTES - chain->tail_at : 0;
    size_t own = chain->n_blocks < chain->reserve ? chain->reserve - chain->n_blocks : 0;
    return slack + (own + pool->n_free - pool->n_reserved) * TP_BLOCK_BYTES;
}

/* The room has been looked at. */
static void chain_append(tp_pool *pool, tp_chain *chain, const uint8_t *bytes, size_t n) {
    while (n != 0) {
        if (chain->n_blocks == 0 || chain->tail_at == TP_BLOCK_BYTES) {
            (void)tp_chain_push(chain, pool);
            chain->tail_at = 0;
        }
        size_t k = TP_BLOCK_BYTES - chain->tail_at < n ? TP_BLOCK_BYTES - chain->tail_at : n;
        memcpy(tp_pool_block(pool, chain->tail) + chain->tail_at, bytes, k);
        chain->tail_at += (uint32_t)k;
        bytes += k;
        n -= k;
    }
}

/* The first n bytes, in pieces that lie in one block each. -> pieces */
static size_t chain_pieces(const tp_pool *pool, const tp_chain *chain, size_t n, struct iovec *pieces, size_t most) {
    size_t count = 0;
    uint32_t block = chain->head, at = chain->head_at;
    for (; n != 0 && count < most; count++, at = 0, block = pool->next[block]) {
        size_t k = TP_BLOCK_BYTES - at < n ? TP_BLOCK_BYTES - at : n;
        pieces[count] = (struct iovec){tp_pool_block(pool, block) + at, k};
        n -= k;
    }
    return count;
}

static void chain_copy(const tp_pool *pool, const tp_chain *chain, size_t n, uint8_t *out) {
    uint32_t block = chain->head, at = chain->head_at;
    for (; n != 0; at = 0, block = pool->next[block]) {
        size_t k = TP_BLOCK_BYTES - at < n ? TP_BLOCK_BYTES - at : n;
        memcpy(out, tp_pool_block(pool, block) + at, k);
        out += k;
        n -= k;
    }
}

static void chain_drop(tp_pool *pool, tp_chain *chain, size_t n) {
    while (n != 0) {
        uint32_t end = chain->head == chain->tail ? chain->tail_at : TP_BLOCK_BYTES;
        size_t k = end - chain->head_at < n ? end - chain->head_at : n;
        chain->head_at += (uint32_t)k;
        n -= k;
        if (chain->head_at != end) return;
        tp_chain_pop(chain, pool);
        chain->head_at = 0;
    }
}

static void forget_input(tp_pump *pump, tp_port *port) {
    tp_chain_clear(&port->in, &pump->pool);
    port->in_bytes = port->in_needed = 0;
}

static void keep_input(tp_pump *pump, tp_port *port, const uint8_t *bytes, size_t n) {
    chain_append(&pump->pool, &port->in, bytes, n);
    port->in_bytes += (uint32_t)n;
}

/* ---- ports that end ---- */

static void unwatch(const tp_pump *pump, const tp_port *port) {
    if (port->fd >= 0) (void)epoll_ctl(pump->epoll, EPOLL_CTL_DEL, port->fd, NULL);
}

static void end_port(tp_pump *pump, tp_port *port, uint32_t what, int error) {
    port->dead = 1;
    port->error = error;
    if (port->kind == TP_PORT_STREAM) {
        forget_input(pump, port);
        tp_chain_clear(&port->out, &pump->pool);
        port->out_bytes = port->flushing = 0;
    }
    unwatch(pump, port);
    attend_port(pump, port, what);
}

/* ---- sending ---- */

/* What a system call answered. -> bytes taken; the port may be dead afterwards */
static size_t taken(tp_pump *pump, tp_port *port, ssize_t sent) {
    if (sent >= 0) return (size_t)sent;
    if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) end_port(pump, port, TP_ATTEND_BROKEN, errno);
    return 0;
}

static void flush_port(tp_pump *pump, tp_port *port) {
    while (port->out_bytes != 0) {
        struct iovec pieces[BLOCKS_AT_ONCE];
        struct msghdr message = {.msg_iov = pieces};
        size_t n = 0;
        message.msg_iovlen = chain_pieces(&pump->pool, &port->out, port->out_bytes, pieces, BLOCKS_AT_ONCE);
        for (size_t i = 0; i < message.msg_iovlen; i++) n += pieces[i].iov_len;
        size_t sent = taken(pump, port, sendmsg(port->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL));
        if (port->dead) return;
        chain_drop(&pump->pool, &port->out, sent);
        port->out_bytes -= (uint32_t)sent;
        if (sent < n) return;
    }
    port->flushing = 0;
}

/* Behind whatever waits. -> TP_OK; TP_E_FULL: nothing of it was taken; TP_E_STATE: the port is dead now */
static int put(tp_pump *pump, tp_port *port, const uint8_t *bytes, size_t n, int kind) {
    size_t sent = 0;
    if (port->out_bytes != 0 && kind != TP_SEND_CONTROL) flush_port(pump, port);
    if (port->dead) return TP_E_STATE;
    if (kind == TP_SEND_CONTROL && port->out_bytes + n > WAITING_MAX) return TP_E_FULL;
    if (port->out_bytes == 0) {
        sent = taken(pump, port, send(port->fd, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL));
        if (port->dead) return TP_E_STATE;
        if (sent == n) return TP_OK;
    } else if (kind == TP_SEND_MEDIA && port->live && port->out_bytes + n > TP_PUMP_MEDIA_MAX) {
        port->media_dropped++;
        return TP_E_FULL;
    }
    bool too_much = kind == TP_SEND_CIPHER && port->out_bytes + n - sent > TP_PUMP_CIPHER_MAX;
    if (too_much || chain_room(&pump->pool, &port->out) < n - sent) {
        if (sent == 0 && kind != TP_SEND_CIPHER && (kind == TP_SEND_CONTROL || port->live)) {
            port->media_dropped += kind == TP_SEND_MEDIA;
            return TP_E_FULL;
        }
        end_port(pump, port, TP_ATTEND_BROKEN, ENOBUFS); /* half a frame has gone, speech or cipher would be lost */
        return TP_E_STATE;
    }
    chain_append(&pump->pool, &port->out, bytes + sent, n - sent);
    port->out_bytes += (uint32_t)(n - sent);
    return TP_OK;
}

static void say_full(tp_pump *pump, tp_port *port) {
    if (port->out_bytes == 0 || port->flushing) return;
    port->flushing = 1;
    attend_port(pump, port, TP_ATTEND_FULL);
}

static void send_message(tp_pump *pump, tp_port *port, const uint8_t *bytes, size_t n) {
    if (port->dead || put(pump, port, bytes, n, TP_SEND_MEDIA) != TP_OK) return;
    pump->counters.messages_out++;
    say_full(pump, port);
}

static socklen_t write_address(const tp_port *port, const tp_address *to, struct sockaddr_storage *out) {
    if (port->family == 6) {
        struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(to->port)};
        memcpy(&six.sin6_addr, to->ip, 16);
        memcpy(out, &six, sizeof six);
        return sizeof six;
    }
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(to->port)};
    memcpy(&four.sin_addr, to->ip, 4);
    memcpy(out, &four, sizeof four);
    return sizeof four;
}

static bool read_address(tp_address *out, const struct sockaddr_storage *from) {
    memset(out, 0, sizeof *out);
    if (from->ss_family == AF_INET) {
        struct sockaddr_in four;
        memcpy(&four, from, sizeof four);
        memcpy(out->ip, &four.sin_addr, 4);
        out->port = ntohs(four.sin_port);
        out->ip_bytes = 4;
    } else if (from->ss_family == AF_INET6) {
        struct sockaddr_in6 six;
        memcpy(&six, from, sizeof six);
        memcpy(out->ip, &six.sin6_addr, 16);
        out->port = ntohs(six.sin6_port);
        out->ip_bytes = 16;
    }
    return out->ip_bytes != 0;
}

static void send_datagram(tp_pump *pump, tp_port *port, const uint8_t *bytes, size_t n) {
    const tp_address *to = tp_latch_target(port->latch);
    if (to == NULL || port->dead) return;
    struct sockaddr_storage address;
    socklen_t address_bytes = write_address(port, to, &address);
    if (sendto(port->fd, bytes, n, MSG_DONTWAIT, (const struct sockaddr *)&address, address_bytes) >= 0) {
        pump->counters.datagrams_out++;
        return;
    }
    port->send_failures++;
    if (errno == EBADF || errno == ENOTSOCK) end_port(pump, port, TP_ATTEND_BROKEN, errno); /* not ours any more */
}

/* -> whether it had room */
static bool hand_over(tp_pump *pump, uint32_t slot, const uint8_t *bytes, const tp_output *output) {
    tp_outbox *to = &pump->handover[pump->filling];
    if (to->capacity - to->used < output->length || to->n_outputs == to->outputs_capacity) {
        pump->m.slots[slot].handover_dropped++;
        pump->counters.handover_dropped++;
        return false;
    }
    memcpy(to->bytes + to->used, bytes, output->length);
    to->outputs[to->n_outputs++] = (tp_output){to->used, output->length, slot, output->kind, output->stream};
    to->used += output->length;
    tp_pump_announce(pump);
    return true;
}

/* A cipher port's: Python encrypts it and sends it back. What is not worth that any more is dropped here. */
static void hand_to_encrypt(tp_pump *pump, tp_port *port, const uint8_t *bytes, const tp_output *output) {
    if (port->dead) return;
    if (port->live && port->out_bytes + output->length > TP_PUMP_MEDIA_MAX) {
        flush_port(pump, port);
        if (port->dead) return;
        if (port->out_bytes != 0 && port->out_bytes + output->length > TP_PUMP_MEDIA_MAX) {
            port->media_dropped++;
            return;
        }
    }
    uint32_t number = number_of(pump, port);
    tp_outbox *to = &pump->handover[pump->filling];
    tp_output *last = to->n_outputs != 0 ? &to->outputs[to->n_outputs - 1] : NULL;
    bool joins = last != NULL && last->kind == TP_OUTPUT_CIPHER && last->slot == number &&
                 last->length + output->length <= TP_PUMP_CIPHER_PIECE;
    if (!hand_over(pump, output->slot, bytes, output)) return;
    if (joins) {
        last->length += output->length;
        to->n_outputs--;
    } else {
        last = &to->outputs[to->n_outputs - 1];
        last->slot = number;
        last->kind = TP_OUTPUT_CIPHER;
    }
    port->handed += output->length;
    pump->counters.messages_out++;
}

static void count_lateness(tp_pump *pump, const tp_path *path) {
    if (pump->origin == 0) return;
    int64_t due = path->deadline - path->ptime_ns;
    int64_t late = clock_ns(CLOCK_MONOTONIC) - pump->origin - due;
    if (late < 0) late = 0;
    if (late > pump->counters.late_max_ns) pump->counters.late_max_ns = late;
    pump->counters.late_sum_ns += late;
    int64_t bucket = late / FINE_NS;
    if (bucket >= FINE_BUCKETS) bucket = FINE_BUCKETS + (late - FINE_BUCKETS * FINE_NS) / COARSE_NS;
    if (bucket >= TP_PUMP_LATENESS_BUCKETS) bucket = TP_PUMP_LATENESS_BUCKETS - 1;
    pump->lateness[due % path->ptime_ns / TP_PUMP_TICK_NS % TP_PUMP_PHASES][bucket]++;
}

static void send_one(tp_pump *pump, const tp_output *output, const uint8_t *bytes) {
    const tp_slot *slot = &pump->m.slots[output->slot];
    uint32_t port = output->kind == TP_OUTPUT_MESSAGE ? slot->streams[output->stream] : TP_NO_PORT;
    if (port == TP_NO_PORT) {
        (void)hand_over(pump, output->slot, bytes, output);
    } else if (pump->m.ports[port].cipher) {
        hand_to_encrypt(pump, &pump->m.ports[port], bytes, output);
    } else {
        send_message(pump, &pump->m.ports[port], bytes, output->length);
    }
}

/* What ticks have written; the outbox is empty afterwards. Datagrams first: theirs is the time that is heard, and the kernel's
 * way for one kind stays in the cache while all of it goes that way. */
static void send_outputs(tp_pump *pump, tp_outbox *outbox) {
    for (uint32_t i = 0; i < outbox->n_outputs; i++) {
        const tp_output *output = &outbox->outputs[i];
        if (output->kind != TP_OUTPUT_RTP) continue;
        const tp_slot *slot = &pump->m.slots[output->slot];
        if (slot->leg == TP_NO_PORT) continue;
        send_datagram(pump, &pump->m.ports[slot->leg], outbox->bytes + output->offset, output->length);
        count_lateness(pump, slot->path);
    }
    for (uint32_t i = 0; i < outbox->n_outputs; i++) {
        const tp_output *output = &outbox->outputs[i];
        if (output->kind != TP_OUTPUT_RTP) send_one(pump, output, outbox->bytes + output->offset);
    }
    outbox->used = outbox->n_outputs = 0;
}

/* A line's messages of one tick: they lie behind one another and leave as one. */
static void send_speech(tp_pump *pump, uint32_t number, tp_outbox *outbox) {
    uint32_t port = pump->m.slots[number].streams[0];
    if (port == TP_NO_PORT || pump->m.ports[port].cipher) {
        send_outputs(pump, outbox);
        return;
    }
    if (outbox->n_outputs != 0) {
        tp_port *to = &pump->m.ports[port];
        uint32_t first = outbox->outputs[0].offset;
        send_message(pump, to, outbox->bytes + first, outbox->used - first);
        pump->counters.messages_out += to->dead ? 0 : outbox->n_outputs - 1;
    }
    outbox->used = outbox->n_outputs = 0;
}

/* ---- reading ---- */

/* What has come of a frame is more than may wait here: Python collects it. */
static void hold_unfinished(tp_pump *pump, tp_port *port) {
    port->held = HELD;
    port->held_result = TP_RECEIVED_ALL;
    port->held_report = (tp_received){.needed = port->in_needed};
    attend_port(pump, port, TP_ATTEND_HELD);
}

/* Of a frame that was taken off the wire whole; a length is written in one way only. */
static uint32_t header_bytes(uint32_t payload_bytes, bool masked) {
    return (payload_bytes < 126 ? 2u : payload_bytes < 0x10000 ? 4u : 10u) + (masked ? 4u : 0u);
}

/* What is left of the `total` bytes has room in the port's chain. */
static void parse(tp_pump *pump, tp_port *port, uint8_t *bytes, size_t total, int64_t now) {
    tp_received report;
    int result = tp_stream_receive(port->stream, &report, bytes, total, now);
    bool line = pump->m.slots[port->slot].line != NULL;
    if (line && tp_stream_has_events(port->stream)) attend_slot(pump, port->slot, TP_ATTEND_EVENTS);
    if (result < 0) {
        port->held = HELD_FOR_GOOD;
        port->error = report.protocol_error;
        port->held_report = report;
        unwatch(pump, port);
        attend_port(pump, port, TP_ATTEND_PROTOCOL);
        return;
    }
    size_t begin = report.consumed;
    if (result == TP_RECEIVED_OTHER) {
        begin = report.offset - header_bytes(report.length, !port->stream->config->masked);
        report.offset -= (uint32_t)begin;
        report.consumed -= (uint32_t)begin;
        port->held = HELD;
        port->held_result = TP_RECEIVED_OTHER;
        port->held_report = report;
        attend_port(pump, port, TP_ATTEND_HELD);
    }
    keep_input(pump, port, bytes + begin, total - begin);
    if (port->held) return;
    port->in_needed = begin < total ? report.needed : 0;
    if (port->in_bytes > TP_PUMP_IN_MAX) hold_unfinished(pump, port);
}

/* What came, behind what waits in the chain: that has its room at the front of the scratch. */
static void take_in(tp_pump *pump, tp_port *port, uint8_t *bytes, size_t n, int64_t now) {
    size_t have = port->in_bytes;
    port->last_received = now;
    if (port->in_needed > have + n) { /* parsed once it is whole: a long frame must not be looked at again and again */
        keep_input(pump, port, bytes, n);
        if (port->in_bytes > TP_PUMP_IN_MAX) hold_unfinished(pump, port);
        return;
    }
    if (have != 0) {
        uint8_t *scratch = pump->m.scratch;
        if (bytes != scratch + have) memcpy(scratch + have, bytes, n);
        chain_copy(&pump->pool, &port->in, have, scratch);
        forget_input(pump, port);
        bytes = scratch;
    }
    parse(pump, port, bytes, have + n, now);
}

static void read_stream(tp_pump *pump, tp_port *port, int64_t now) {
    uint8_t *scratch = pump->m.scratch;
    size_t have = port->in_bytes;
    size_t most = chain_room(&pump->pool, &port->in); /* no more than could be kept, whatever it is */
    if (most > TP_PUMP_SCRATCH_BYTES - have) most = TP_PUMP_SCRATCH_BYTES - have;
    if (most == 0) {
        hold_unfinished(pump, port);
        return;
    }
    ssize_t got = recv(port->fd, scratch + have, most, MSG_DONTWAIT);
    pump->counters.reads++;
    if (got == 0) {
        end_port(pump, port, TP_ATTEND_ENDED, 0);
    } else if (got < 0) {
        if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) end_port(pump, port, TP_ATTEND_BROKEN, errno);
    } else {
        take_in(pump, port, scratch + have, (size_t)got, now);
    }
}

/* For Python to decipher. -> whether there was room to look */
static bool read_cipher(tp_pump *pump, tp_port *port) {
    size_t most = chain_room(&pump->pool, &port->in); /* plaintext is no longer than its cipher */
    if (most == 0) {
        hold_unfinished(pump, port);
        return true;
    }
    size_t room = pump->m.cipher_capacity - pump->cipher_used;
    if (room < TP_PUMP_CIPHER_ONCE && pump->n_cipher != 0) return false;
    if (most > room) most = room;
    if (most > TP_PUMP_CIPHER_ONCE) most = TP_PUMP_CIPHER_ONCE;
    ssize_t got = recv(port->fd, pump->m.cipher_bytes[pump->cipher_filling] + pump->cipher_used, most, MSG_DONTWAIT);
    pump->counters.reads++;
    if (got == 0) {
        end_port(pump, port, TP_ATTEND_ENDED, 0);
    } else if (got < 0) {
        if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) end_port(pump, port, TP_ATTEND_BROKEN, errno);
    } else {
        pump->m.cipher_entries[pump->cipher_filling][pump->n_cipher++] =
            (tp_cipher){handle_of(pump, port), pump->cipher_used, (uint32_t)got};
        pump->cipher_used += (uint32_t)got;
        port->deciphering = 1;
        tp_pump_announce(pump);
    }
    return true;
}

/* Up to the caller's next datagram; a stranger's must not cost the caller's its turn. */
static void read_leg(tp_pump *pump, tp_port *port, int64_t now) {
    for (uint32_t i = 0; i < TP_PUMP_STRANGERS; i++) {
        struct sockaddr_storage address;
        socklen_t address_bytes = sizeof address;
        ssize_t got = recvfrom(port->fd, pump->m.scratch, TP_PUMP_SCRATCH_BYTES, MSG_DONTWAIT, (struct sockaddr *)&address,
                               &address_bytes);
        pump->counters.reads++;
        if (got < 0) {
            if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) return;
            port->send_failures++; /* an ICMP error for something sent earlier: the caller's port is closed for the moment */
            return;
        }
        tp_address from;
        if (!read_address(&from, &address)) continue;
        int who = tp_latch_receive(port->latch, &from, pump->m.scratch, (size_t)got, now);
        if (who == TP_LATCH_STRANGER) continue;
        if (who == TP_LATCH_LEARNED) attend_port(pump, port, TP_ATTEND_LEARNED);
        pump->counters.datagrams_in++;
        (void)tp_path_receive_rtp(port->path, pump->m.scratch, (size_t)got, now);
        return;
    }
}

/* The thread's way in to one port or one slot. -> whether it may go on; Python may have asked it to wait */
static bool go_in(tp_pump *pump, bool guarded, bool *entered) {
    *entered = guarded && tp_pump_guard_enter();
    if (!guarded || pump->paused == 0) return true;
    tp_pump_guard_leave(*entered);
    pump->interrupted = 1;
    return false;
}

static bool read_port(tp_pump *pump, uint64_t handle, uint32_t kind, int64_t now) {
    tp_port *port = port_of(pump, handle);
    if (port == NULL || port->kind != kind || port->held || port->dead) return false;
    if (port->kind == TP_PORT_LEG) {
        read_leg(pump, port, now);
    } else if (port->cipher) {
        return !port->deciphering && read_cipher(pump, port);
    } else {
        read_stream(pump, port, now);
    }
    return true;
}

static void prefetch(const void *at, size_t n) {
    for (size_t i = 0; i < n; i += CACHE_LINE) __builtin_prefetch((const uint8_t *)at + i, 1);
}

/* What reading the port will look at. Every system call in between sweeps the cache, so it would have to be waited for. */
static void prefetch_port(const tp_pump *pump, uint64_t handle, uint32_t kind) {
    const tp_port *port = &pump->m.ports[(uint32_t)handle];
    if (port->kind != kind) return;
    if (kind == TP_PORT_LEG) {
        prefetch(port->latch, 2 * CACHE_LINE);
        prefetch(port->path, 7 * CACHE_LINE);
        prefetch(&port->path->jitter, 8 * CACHE_LINE);
    } else {
        prefetch(port->stream, 8 * CACHE_LINE);
    }
}

static void read_ports(tp_pump *pump, int64_t now, bool guarded) {
    struct epoll_event events[EVENTS_AT_ONCE];
    for (uint32_t round = 0; round < TP_PUMP_ROUNDS; round++) {
        int n = epoll_wait(pump->epoll, events, EVENTS_AT_ONCE, 0);
        bool busy = false; /* ports that are held stay ready */
        for (uint32_t kind = TP_PORT_LEG; kind <= TP_PORT_STREAM; kind++) {
            for (int i = 0; i < n; i++) {
                bool entered;
                if (!go_in(pump, guarded, &entered)) return;
                if (i + PORTS_AHEAD < n) prefetch_port(pump, events[i + PORTS_AHEAD].data.u64, kind);
                busy |= read_port(pump, events[i].data.u64, kind, now);
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
            attend_slot(pump, number, TP_ATTEND_STUCK);
            set_due(pump, number, INT64_MAX);
            return;
        } else {
            send_outputs(pump, &pump->outbox);
        }
    } while (!path->closed && latest >= path->deadline);
    set_due(pump, number, tp_path_next_deadline(path));
    if ((flags & TP_TICK_EVENTS) != 0) attend_slot(pump, number, TP_ATTEND_EVENTS);
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

static void tick_line(tp_pump *pump, uint32_t number, int64_t now) {
    const tp_slot *slot = &pump->m.slots[number];
    tp_stream *line = slot->line;
    tp_port *port = slot->streams[0] != TP_NO_PORT ? &pump->m.ports[slot->streams[0]] : NULL;
    tp_outbox part = pump->outbox;
    if (part.capacity > TP_PUMP_SPEECH_MAX) part.capacity = TP_PUMP_SPEECH_MAX;
    if (port != NULL && port->out_bytes != 0) flush_port(pump, port);
    pump->counters.line_ticks++;
    for (;;) {
        if (must_rest(pump, port, &part)) {
            set_due(pump, number, port->dead ? INT64_MAX : now + TP_PUMP_TICK_NS);
            return;
        }
        int flags = tp_stream_tick(line, number, now, &part);
        if (flags < 0) {
            attend_slot(pump, number, TP_ATTEND_STUCK);
            set_due(pump, number, INT64_MAX);
            return;
        }
        send_speech(pump, number, &part);
        if ((flags & (TP_TICK_EVENTS | TP_TICK_MARK_DUE)) != 0) attend_slot(pump, number, TP_ATTEND_EVENTS);
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
        return;
    }
    send_outputs(pump, &pump->outbox); /* a line's tick wants it empty */
    tick_line(pump, number, now);
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
        for (uint32_t left = guarded ? SLOTS_A_GUARD : SLOTS_A_BATCH; i < n && left != 0; i++) {
            int64_t due = due_of(pump, i);
            if (due <= now) {
                if (due < first) first = due;
                tick_slot(pump, i, now);
                due = due_of(pump, i);
                left--;
            }
            if (due < next) next = due;
        }
        send_outputs(pump, &pump->outbox);
        tp_pump_guard_leave(entered);
    }
    bool entered = guarded && tp_pump_guard_enter();
    pump->now = now;
    pump->next_due = next;
    pump->counters.turns++;
    if (pump->origin != 0 && first != INT64_MAX && now - first > STALL_NS) pump->counters.stalls++;
    tp_pump_guard_leave(entered);
}

int64_t tp_pump_turn(tp_pump *pump, int64_t now) {
    int64_t begun = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    read_ports(pump, now, true);
    tick_slots(pump, now, true);
    int64_t ran = clock_ns(CLOCK_THREAD_CPUTIME_ID) - begun;
    bool entered = tp_pump_guard_enter();
    pump->counters.busy_ns += (uint64_t)ran;
    tp_pump_guard_leave(entered);
    return ran;
}

static int64_t busy_since(const tp_pump *pump, int64_t begun) {
    return pump->origin != 0 ? clock_ns(CLOCK_THREAD_CPUTIME_ID) - begun : 0;
}

int tp_pump_read(tp_pump *pump, int64_t now) {
    int64_t begun = busy_since(pump, 0);
    read_ports(pump, now, false);
    pump->counters.busy_ns += (uint64_t)busy_since(pump, begun);
    return (int)pump->n_attention;
}

int tp_pump_tick(tp_pump *pump, int64_t now) {
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

/* Nothing is read from here on, and nobody attends to it; what waits in it stays until it is closed. */
static void part_from_slot(tp_pump *pump, tp_port *port) {
    tp_slot *slot = &pump->m.slots[port->slot];
    unwatch(pump, port);
    forget_attention(pump, port->slot, handle_of(pump, port), &port->attention);
    *(port->kind == TP_PORT_STREAM ? &slot->streams[port->index] : &slot->leg) = TP_NO_PORT;
    port->held = HELD_FOR_GOOD;
    port->slot = NO_SLOT;
}

static void close_port(tp_pump *pump, tp_port *port) {
    if (port->slot != NO_SLOT) part_from_slot(pump, port);
    if (port->kind == TP_PORT_STREAM) {
        tp_chain_close(&port->in, &pump->pool);
        tp_chain_close(&port->out, &pump->pool);
    }
    *port = (tp_port){.generation = next_generation(port->generation), .fd = -1};
    pump->m.free_ports[pump->n_free_ports++] = number_of(pump, port);
    pump->n_open_ports--;
}

int tp_pump_open(tp_pump *pump, const tp_pump_memory *memory, int64_t origin) {
    memset(pump, 0, sizeof *pump);
    pump->epoll = pump->signal = pump->wake = pump->realtime = -1;
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
    return TP_OK;
}

void tp_pump_close(tp_pump *pump) {
    if (pump->m.slots == NULL) return;
    for (uint32_t i = 0; i < pump->high_slot; i++) tp_pump_remove(pump, i);
    for (uint32_t i = 1; i < pump->m.n_ports && pump->n_open_ports != 0; i++) {
        if (pump->m.ports[i].kind != TP_PORT_FREE) close_port(pump, &pump->m.ports[i]);
    }
    if (pump->epoll >= 0) (void)close(pump->epoll);
    if (pump->signal >= 0) (void)close(pump->signal);
    if (pump->wake >= 0) (void)close(pump->wake);
    pump->epoll = pump->signal = pump->wake = -1;
    memset(&pump->m, 0, sizeof pump->m);
    pump->high_slot = 0;
}

/* ---- members ---- */

static int add(tp_pump *pump, uint32_t number, tp_path *path, tp_stream *line, int64_t due) {
    if (number >= pump->m.n_slots || slot_of(pump, number) != NULL) return TP_E_ARGUMENT;
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
    tp_slot *slot = slot_of(pump, number);
    if (slot == NULL) return;
    if (slot->leg != TP_NO_PORT) part_from_slot(pump, &pump->m.ports[slot->leg]);
    for (uint32_t i = 0; i < TP_PATH_STREAMS; i++) {
        if (slot->streams[i] != TP_NO_PORT) part_from_slot(pump, &pump->m.ports[slot->streams[i]]);
    }
    forget_attention(pump, number, 0, &slot->attention);
    *slot = (tp_slot){.generation = next_generation(slot->generation)};
    set_due(pump, number, INT64_MAX);
    pump->n_members--;
}

void tp_pump_pause(tp_pump *pump, int by) { pump->paused = (uint32_t)((int)pump->paused + by); }

void tp_pump_rearm(tp_pump *pump, uint32_t number, int64_t now) {
    const tp_slot *slot = slot_of(pump, number);
    if (slot == NULL) return;
    if (slot->path != NULL) {
        set_due(pump, number, tp_path_next_deadline(slot->path));
        return;
    }
    if (slot->line->due_pending) { /* nothing is sent past a checkpoint that Python has still to send */
        set_due(pump, number, INT64_MAX);
        attend_slot(pump, number, TP_ATTEND_EVENTS);
        return;
    }
    /* An idle line's own clock has stood still since it was last ticked. */
    int64_t due = tp_stream_next_deadline(slot->line);
    set_due(pump, number, due > now ? due : now);
}

int tp_pump_say(tp_pump *pump, uint32_t number, uint32_t encoding, const void *in, size_t in_bytes) {
    const tp_slot *slot = slot_of(pump, number);
    if (slot == NULL || slot->line == NULL || tp_stream_say(slot->line, encoding, in, in_bytes) != 1) return 0;
    tp_pump_rearm(pump, number, pump->now);
    return 1;
}

/* ---- ports ---- */

/* A descriptor means one thing at a time: a port that still names it was not closed before its descriptor was. What it
 * would do with it now, it would do to another. */
static void disown(tp_pump *pump, const tp_port *owner) {
    uint32_t n_seen = 0;
    for (uint32_t i = 1; i < pump->m.n_ports && n_seen < pump->n_open_ports; i++) {
        tp_port *port = &pump->m.ports[i];
        if (port->kind == TP_PORT_FREE) continue;
        n_seen++;
        if (port == owner || port->fd != owner->fd) continue;
        port->fd = -1;
        if (!port->dead) end_port(pump, port, TP_ATTEND_BROKEN, EBADF);
    }
}

static int64_t open_port(tp_pump *pump, uint32_t *of_slot, const tp_port *made) {
    if (pump->n_free_ports == 0) return TP_E_FULL;
    uint32_t number = pump->m.free_ports[pump->n_free_ports - 1];
    tp_port *port = &pump->m.ports[number];
    uint32_t generation = port->generation != 0 ? port->generation : 1;
    *port = *made;
    port->generation = generation;
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = handle_of(pump, port)};
    if (epoll_ctl(pump->epoll, EPOLL_CTL_ADD, port->fd, &event) != 0) {
        *port = (tp_port){.generation = generation, .fd = -1};
        return TP_E_STATE;
    }
    pump->n_free_ports--;
    pump->n_open_ports++;
    *of_slot = number;
    disown(pump, port);
    return (int64_t)handle_of(pump, port);
}

int64_t tp_pump_open_leg(tp_pump *pump, uint32_t number, int fd, int family, tp_latch *latch, int64_t now) {
    tp_slot *slot = slot_of(pump, number);
    if (slot == NULL || slot->path == NULL || slot->leg != TP_NO_PORT || latch == NULL || fd < 0) return TP_E_ARGUMENT;
    if (family != 4 && family != 6) return TP_E_ARGUMENT;
    tp_port port = {.fd = fd,
                    .slot = number,
                    .kind = TP_PORT_LEG,
                    .family = (uint8_t)family,
                    .path = slot->path,
                    .latch = latch,
                    .last_received = now};
    return open_port(pump, &slot->leg, &port);
}

int64_t tp_pump_open_stream(tp_pump *pump, uint32_t number, uint32_t index, int fd, tp_stream *stream, int flags, int64_t now) {
    tp_slot *slot = slot_of(pump, number);
    if (slot == NULL || index >= TP_PATH_STREAMS || slot->streams[index] != TP_NO_PORT || stream == NULL || fd < 0) {
        return TP_E_ARGUMENT;
    }
    if (slot->line != NULL && (index != 0 || stream != slot->line)) return TP_E_ARGUMENT;
    bool cipher = (flags & TP_STREAM_CIPHER) != 0;
    if (cipher && pump->m.cipher_capacity == 0) return TP_E_ARGUMENT;
    tp_port port = {.fd = fd,
                    .slot = number,
                    .kind = TP_PORT_STREAM,
                    .index = (uint8_t)index,
                    .live = (flags & TP_STREAM_LIVE) != 0,
                    .cipher = cipher,
                    .held = HELD,
                    .stream = stream,
                    .last_received = now};
    if (tp_chain_open(&port.in, &pump->pool, TP_PUMP_IN_RESERVE) != TP_OK) return TP_E_FULL;
    int64_t opened = TP_E_FULL;
    if (tp_chain_open(&port.out, &pump->pool, TP_PUMP_OUT_RESERVE) == TP_OK) {
        opened = open_port(pump, &slot->streams[index], &port);
        if (opened < 0) tp_chain_close(&port.out, &pump->pool);
    }
    if (opened < 0) tp_chain_close(&port.in, &pump->pool);
    return opened;
}

int64_t tp_pump_close_port(tp_pump *pump, int64_t handle, uint8_t *waiting, uint8_t *unread, uint32_t *n_unread) {
    *n_unread = 0;
    tp_port *port = port_of(pump, (uint64_t)handle);
    if (port == NULL) return TP_E_STATE;
    int64_t n = 0;
    if (waiting != NULL && port->out_bytes != 0) {
        chain_copy(&pump->pool, &port->out, port->out_bytes, waiting);
        n = port->out_bytes;
    }
    if (unread != NULL && port->in_bytes != 0) {
        chain_copy(&pump->pool, &port->in, port->in_bytes, unread);
        *n_unread = port->in_bytes;
    }
    close_port(pump, port);
    return n;
}

const tp_port *tp_pump_port(const tp_pump *pump, int64_t handle) { return port_of(pump, (uint64_t)handle); }

static tp_port *live_stream(const tp_pump *pump, int64_t handle) {
    tp_port *port = port_of(pump, (uint64_t)handle);
    return port != NULL && port->kind == TP_PORT_STREAM && !port->dead ? port : NULL;
}

int64_t tp_pump_take_held(tp_pump *pump, int64_t handle, tp_received *report, int *result, uint8_t *out, size_t capacity) {
    tp_port *port = live_stream(pump, handle);
    if (port == NULL || !port->held) return TP_E_STATE;
    if (port->in_bytes > capacity) return TP_E_ROOM;
    *report = port->held_report;
    *result = port->held_result;
    int64_t n = port->in_bytes;
    chain_copy(&pump->pool, &port->in, port->in_bytes, out);
    forget_input(pump, port);
    return n;
}

int tp_pump_give(tp_pump *pump, int64_t handle, const uint8_t *left, size_t n, uint32_t needed) {
    tp_port *port = live_stream(pump, handle);
    if (port == NULL || port->held != HELD) return TP_E_STATE;
    forget_input(pump, port);
    /* Nothing could be read behind what fills the room: with a pool full of beginnings nobody would come to an end. */
    if (n > TP_PUMP_IN_MAX || n >= chain_room(&pump->pool, &port->in)) return TP_E_FULL;
    keep_input(pump, port, left, n);
    port->in_needed = needed;
    port->held = 0;
    return TP_OK;
}

int tp_pump_send(tp_pump *pump, int64_t handle, const uint8_t *bytes, size_t n, int kind) {
    tp_port *port = live_stream(pump, handle);
    if (port == NULL) return TP_E_STATE;
    int status = put(pump, port, bytes, n, kind);
    if (status < 0) return status;
    if (kind == TP_SEND_CIPHER) {
        port->handed = 0;
        say_full(pump, port);
        return (int)port->out_bytes;
    }
    port->flushing = port->out_bytes != 0;
    return (int)port->out_bytes;
}

int tp_pump_flush(tp_pump *pump, int64_t handle) {
    tp_port *port = live_stream(pump, handle);
    if (port == NULL) return TP_E_STATE;
    flush_port(pump, port);
    return port->dead ? TP_E_STATE : (int)port->out_bytes;
}

int tp_pump_send_datagram(tp_pump *pump, int64_t handle, const uint8_t *bytes, size_t n) {
    tp_port *port = port_of(pump, (uint64_t)handle);
    if (port == NULL || port->kind != TP_PORT_LEG || port->dead) return TP_E_STATE;
    send_datagram(pump, port, bytes, n);
    return TP_OK;
}

int tp_pump_take_cipher(tp_pump *pump, uint32_t *n_entries) {
    pump->signalled = 0;
    *n_entries = pump->n_cipher;
    if (pump->n_cipher == 0) return -1;
    uint32_t full = pump->cipher_filling;
    pump->cipher_filling = 1 - full;
    pump->cipher_used = pump->n_cipher = 0;
    return (int)full;
}

int tp_pump_receive(tp_pump *pump, int64_t handle, uint8_t *plain, size_t n, int64_t now) {
    tp_port *port = live_stream(pump, handle);
    if (port == NULL || port->held) return TP_E_STATE;
    port->deciphering = 0;
    if (n == 0) return TP_OK;
    if (n > chain_room(&pump->pool, &port->in) || n > TP_PUMP_SCRATCH_BYTES - port->in_bytes) {
        end_port(pump, port, TP_ATTEND_BROKEN, ENOBUFS);
        return TP_E_FULL;
    }
    take_in(pump, port, plain, n, now);
    return port->held != 0;
}

void tp_pump_receive_many(tp_pump *pump, uint32_t first, uint32_t n, const uint32_t *lengths, uint8_t *plain, int64_t now) {
    const tp_cipher *entries = pump->m.cipher_entries[1 - pump->cipher_filling] + first;
    for (uint32_t i = 0; i < n; i++) {
        (void)tp_pump_receive(pump, (int64_t)entries[i].port, plain, lengths[i], now);
        plain += lengths[i];
    }
}

void tp_pump_send_many(tp_pump *pump, uint32_t first, uint32_t n, const uint32_t *lengths, const uint8_t *cipher) {
    const tp_output *outputs = pump->handover[1 - pump->filling].outputs + first;
    for (uint32_t i = 0; i < n; i++) {
        const tp_port *port = &pump->m.ports[outputs[i].slot];
        if (port->cipher) (void)tp_pump_send(pump, (int64_t)handle_of(pump, port), cipher, lengths[i], TP_SEND_CIPHER);
        cipher += lengths[i];
    }
}

int tp_pump_end(tp_pump *pump, int64_t handle) {
    tp_port *port = live_stream(pump, handle);
    if (port == NULL) return TP_E_STATE;
    end_port(pump, port, TP_ATTEND_ENDED, 0);
    return TP_OK;
}

int tp_pump_take_handover(tp_pump *pump) {
    pump->signalled = 0;
    uint32_t full = pump->filling;
    if (pump->handover[full].n_outputs == 0) return -1;
    pump->filling = 1 - full;
    pump->handover[pump->filling].used = pump->handover[pump->filling].n_outputs = 0;
    return (int)full;
}
#endif
