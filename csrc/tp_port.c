#ifdef __linux__
#define _GNU_SOURCE /* MSG_DONTWAIT */
#include "tp_port.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

#define BLOCKS_AT_ONCE 16 /* of a chain, in one send */
#define WAITING_MAX (TP_PUMP_MEDIA_MAX + TP_PUMP_CONTROL_MAX)
#define CACHE_LINE 64
#define FINE_NS 100000 /* of the lateness histogram, up to FINE_BUCKETS of them */
#define FINE_BUCKETS 200
#define COARSE_NS 5000000

_Static_assert((TP_PUMP_IN_RESERVE + 1) * TP_BLOCK_BYTES <= TP_PUMP_RING_PIECE, "what a port is sure of fits in a piece");
_Static_assert(TP_PUMP_RING_READS <= TP_URING_CALLS, "a batch fits in the ring");

/* ---- bytes that wait ---- */

size_t tp_port_chain_room(const tp_pool *pool, const tp_chain *chain) {
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

void tp_port_chain_copy(const tp_pool *pool, const tp_chain *chain, size_t n, uint8_t *out) {
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

void tp_port_forget_input(tp_pump *pump, tp_port *port) {
    tp_chain_clear(&port->in, &pump->pool);
    port->in_bytes = port->in_needed = 0;
}

void tp_port_keep_input(tp_pump *pump, tp_port *port, const uint8_t *bytes, size_t n) {
    chain_append(&pump->pool, &port->in, bytes, n);
    port->in_bytes += (uint32_t)n;
}

/* ---- ports that end ---- */

void tp_port_unwatch(const tp_pump *pump, const tp_port *port) {
    if (port->fd >= 0) (void)epoll_ctl(pump->epoll, EPOLL_CTL_DEL, port->fd, NULL);
}

void tp_port_end(tp_pump *pump, tp_port *port, uint32_t what, int error) {
    port->dead = 1;
    port->error = error;
    if (port->kind == TP_PORT_STREAM) {
        tp_port_forget_input(pump, port);
        tp_chain_clear(&port->out, &pump->pool);
        port->out_bytes = port->flushing = 0;
    }
    tp_port_unwatch(pump, port);
    tp_pump_attend_port(pump, port, what);
}

/* ---- sending ---- */

/* What a system call answered. -> bytes taken; the port may be dead afterwards */
static size_t taken(tp_pump *pump, tp_port *port, ssize_t sent) {
    if (sent >= 0) return (size_t)sent;
    if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) tp_port_end(pump, port, TP_ATTEND_BROKEN, errno);
    return 0;
}

void tp_port_flush(tp_pump *pump, tp_port *port) {
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

/* What the socket did not take. -> as tp_port_put */
static int keep_rest(tp_pump *pump, tp_port *port, const uint8_t *bytes, size_t n, size_t sent, int kind) {
    bool too_much = kind == TP_SEND_CIPHER && port->out_bytes + n - sent > TP_PUMP_CIPHER_MAX;
    if (too_much || tp_port_chain_room(&pump->pool, &port->out) < n - sent) {
        if (sent == 0 && kind != TP_SEND_CIPHER && (kind == TP_SEND_CONTROL || port->live)) {
            port->media_dropped += kind == TP_SEND_MEDIA;
            return TP_E_FULL;
        }
        tp_port_end(pump, port, TP_ATTEND_BROKEN, ENOBUFS); /* half a frame has gone, speech or cipher would be lost */
        return TP_E_STATE;
    }
    chain_append(&pump->pool, &port->out, bytes + sent, n - sent);
    port->out_bytes += (uint32_t)(n - sent);
    return TP_OK;
}

int tp_port_put(tp_pump *pump, tp_port *port, const uint8_t *bytes, size_t n, int kind) {
    size_t sent = 0;
    if (port->out_bytes != 0 && kind != TP_SEND_CONTROL) tp_port_flush(pump, port);
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
    return keep_rest(pump, port, bytes, n, sent, kind);
}

void tp_port_say_full(tp_pump *pump, tp_port *port) {
    if (port->out_bytes == 0 || port->flushing) return;
    port->flushing = 1;
    tp_pump_attend_port(pump, port, TP_ATTEND_FULL);
}

static void message_sent(tp_pump *pump, tp_port *port) {
    pump->counters.messages_out++;
    tp_port_say_full(pump, port);
}

static void send_message(tp_pump *pump, tp_port *port, const uint8_t *bytes, size_t n) {
    if (!port->dead && tp_port_put(pump, port, bytes, n, TP_SEND_MEDIA) == TP_OK) message_sent(pump, port);
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

static void datagram_sent(tp_pump *pump, tp_port *port, int error) {
    if (error == 0) {
        pump->counters.datagrams_out++;
        return;
    }
    port->send_failures++;
    if (error == EBADF || error == ENOTSOCK) tp_port_end(pump, port, TP_ATTEND_BROKEN, error); /* not ours any more */
}

void tp_port_send_datagram(tp_pump *pump, tp_port *port, const uint8_t *bytes, size_t n) {
    const tp_address *to = tp_latch_target(port->latch);
    if (to == NULL || port->dead) return;
    struct sockaddr_storage address;
    socklen_t address_bytes = write_address(port, to, &address);
    ssize_t sent = sendto(port->fd, bytes, n, MSG_DONTWAIT, (const struct sockaddr *)&address, address_bytes);
    datagram_sent(pump, port, sent >= 0 ? 0 : errno);
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
        tp_port_flush(pump, port);
        if (port->dead) return;
        if (port->out_bytes != 0 && port->out_bytes + output->length > TP_PUMP_MEDIA_MAX) {
            port->media_dropped++;
            return;
        }
    }
    uint32_t number = tp_port_number(pump, port);
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

/* On the system's clock, of the run; 0: nothing is measured. */
static int64_t measured_now(const tp_pump *pump) {
    return pump->origin != 0 ? tp_pump_clock_ns(CLOCK_MONOTONIC) - pump->origin : 0;
}

static void count_lateness(tp_pump *pump, const tp_path *path, int64_t now) {
    if (pump->origin == 0) return;
    int64_t due = path->deadline - path->ptime_ns;
    int64_t late = now - due;
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

static void send_in_turn(tp_pump *pump, const tp_outbox *outbox) {
    for (uint32_t i = 0; i < outbox->n_outputs; i++) {
        const tp_output *output = &outbox->outputs[i];
        const tp_slot *slot = &pump->m.slots[output->slot];
        if (output->kind != TP_OUTPUT_RTP || slot->leg == TP_NO_PORT) continue;
        tp_port_send_datagram(pump, &pump->m.ports[slot->leg], outbox->bytes + output->offset, output->length);
        count_lateness(pump, slot->path, measured_now(pump));
    }
    for (uint32_t i = 0; i < outbox->n_outputs; i++) {
        const tp_output *output = &outbox->outputs[i];
        if (output->kind != TP_OUTPUT_RTP) send_one(pump, output, outbox->bytes + output->offset);
    }
}

/* What is in the ring, and whose each call is. */
typedef struct batch {
    const uint8_t *bytes; /* of the outbox */
    tp_port *ports[TP_URING_CALLS];
    const tp_output *outputs[TP_URING_CALLS];
} batch;

static void send_datagrams(tp_pump *pump, const batch *of) {
    uint32_t n = pump->uring.n;
    if (n == 0) return;
    uint32_t made = tp_uring_run(&pump->uring);
    int64_t now = measured_now(pump);
    for (uint32_t i = 0; i < n; i++) {
        tp_port *port = of->ports[i];
        const tp_output *output = of->outputs[i];
        int result = pump->uring.results[i];
        if (i >= made) {
            tp_port_send_datagram(pump, port, of->bytes + output->offset, output->length);
            now = measured_now(pump);
        } else if (!port->dead) {
            datagram_sent(pump, port, result < 0 ? -result : 0);
        }
        count_lateness(pump, pump->m.slots[output->slot].path, now);
    }
}

static void send_messages(tp_pump *pump, const batch *of) {
    uint32_t n = pump->uring.n;
    if (n == 0) return;
    uint32_t made = tp_uring_run(&pump->uring);
    for (uint32_t i = 0; i < n; i++) {
        tp_port *port = of->ports[i];
        const uint8_t *bytes = of->bytes + of->outputs[i]->offset;
        size_t length = of->outputs[i]->length;
        port->queued = 0;
        if (i >= made) {
            send_message(pump, port, bytes, length);
            continue;
        }
        int result = pump->uring.results[i];
        if (result < 0) errno = -result;
        size_t sent = taken(pump, port, result < 0 ? -1 : result);
        if (port->dead) continue;
        if (sent == length || keep_rest(pump, port, bytes, length, sent, TP_SEND_MEDIA) == TP_OK) message_sent(pump, port);
    }
}

/* Through the ring: one call for many. What must not be made at once with what is queued, the next message of the same
 * connection, waits until that has been made. */
static void send_together(tp_pump *pump, const tp_outbox *outbox) {
    struct sockaddr_storage addresses[TP_URING_CALLS];
    batch of;
    of.bytes = outbox->bytes;
    for (uint32_t i = 0; i < outbox->n_outputs; i++) {
        const tp_output *output = &outbox->outputs[i];
        const tp_slot *slot = &pump->m.slots[output->slot];
        if (output->kind != TP_OUTPUT_RTP || slot->leg == TP_NO_PORT) continue;
        tp_port *port = &pump->m.ports[slot->leg];
        const tp_address *to = tp_latch_target(port->latch);
        if (to == NULL || port->dead) {
            count_lateness(pump, slot->path, measured_now(pump));
            continue;
        }
        if (pump->uring.n == TP_URING_CALLS) send_datagrams(pump, &of);
        if (pump->uring.fd < 0) {
            tp_port_send_datagram(pump, port, outbox->bytes + output->offset, output->length);
            count_lateness(pump, slot->path, measured_now(pump));
            continue;
        }
        uint32_t k = pump->uring.n;
        of.ports[k] = port;
        of.outputs[k] = output;
        socklen_t address_bytes = write_address(port, to, &addresses[k]);
        tp_uring_send(&pump->uring, port->fd, outbox->bytes + output->offset, output->length, 0, &addresses[k], address_bytes);
    }
    send_datagrams(pump, &of);
    for (uint32_t i = 0; i < outbox->n_outputs; i++) {
        const tp_output *output = &outbox->outputs[i];
        if (output->kind == TP_OUTPUT_RTP) continue;
        const tp_slot *slot = &pump->m.slots[output->slot];
        uint32_t number = output->kind == TP_OUTPUT_MESSAGE ? slot->streams[output->stream] : TP_NO_PORT;
        tp_port *port = number != TP_NO_PORT ? &pump->m.ports[number] : NULL;
        if (pump->uring.n == TP_URING_CALLS || (port != NULL && port->queued)) send_messages(pump, &of);
        if (port == NULL || port->cipher || port->dead || port->out_bytes != 0 || pump->uring.fd < 0) {
            send_one(pump, output, outbox->bytes + output->offset);
            continue;
        }
        of.ports[pump->uring.n] = port;
        of.outputs[pump->uring.n] = output;
        port->queued = 1;
        tp_uring_send(&pump->uring, port->fd, outbox->bytes + output->offset, output->length, MSG_NOSIGNAL, NULL, 0);
    }
    send_messages(pump, &of);
}

static bool has_ring(const tp_pump *pump) { return pump->uring.fd >= 0 && !pump->running; }

/* Datagrams first: theirs is the time that is heard, and the kernel's way for one kind stays in the cache while all of it goes
 * that way. */
void tp_port_send_outputs(tp_pump *pump, tp_outbox *outbox) {
    if (has_ring(pump)) {
        send_together(pump, outbox);
    } else {
        send_in_turn(pump, outbox);
    }
    outbox->used = outbox->n_outputs = 0;
}

/* A line's messages of one tick: they lie behind one another and leave as one. */
void tp_port_send_speech(tp_pump *pump, uint32_t number, tp_outbox *outbox) {
    uint32_t port = pump->m.slots[number].streams[0];
    if (port == TP_NO_PORT || pump->m.ports[port].cipher) {
        tp_port_send_outputs(pump, outbox);
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
    port->held = TP_HELD;
    port->held_result = TP_RECEIVED_ALL;
    port->held_report = (tp_received){.needed = port->in_needed};
    tp_pump_attend_port(pump, port, TP_ATTEND_HELD);
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
    if (line && tp_stream_has_events(port->stream)) tp_pump_attend_slot(pump, port->slot, TP_ATTEND_EVENTS);
    if (result < 0) {
        port->held = TP_HELD_FOR_GOOD;
        port->error = report.protocol_error;
        port->held_report = report;
        tp_port_unwatch(pump, port);
        tp_pump_attend_port(pump, port, TP_ATTEND_PROTOCOL);
        return;
    }
    size_t begin = report.consumed;
    if (result == TP_RECEIVED_OTHER) {
        begin = report.offset - header_bytes(report.length, !port->stream->config->masked);
        report.offset -= (uint32_t)begin;
        report.consumed -= (uint32_t)begin;
        port->held = TP_HELD;
        port->held_result = TP_RECEIVED_OTHER;
        port->held_report = report;
        tp_pump_attend_port(pump, port, TP_ATTEND_HELD);
    }
    tp_port_keep_input(pump, port, bytes + begin, total - begin);
    if (port->held) return;
    port->in_needed = begin < total ? report.needed : 0;
    if (port->in_bytes > TP_PUMP_IN_MAX) hold_unfinished(pump, port);
}

void tp_port_take_in(tp_pump *pump, tp_port *port, uint8_t *bytes, size_t n, int64_t now) {
    size_t have = port->in_bytes;
    port->last_received = now;
    if (port->in_needed > have + n) { /* parsed once it is whole: a long frame must not be looked at again and again */
        tp_port_keep_input(pump, port, bytes, n);
        if (port->in_bytes > TP_PUMP_IN_MAX) hold_unfinished(pump, port);
        return;
    }
    if (have != 0) {
        uint8_t *scratch = pump->m.scratch;
        if (bytes != scratch + have) memcpy(scratch + have, bytes, n);
        tp_port_chain_copy(&pump->pool, &port->in, have, scratch);
        tp_port_forget_input(pump, port);
        bytes = scratch;
    }
    parse(pump, port, bytes, have + n, now);
}

static void stream_read(tp_pump *pump, tp_port *port, uint8_t *bytes, ssize_t got, int error, int64_t now) {
    pump->counters.reads++;
    if (got == 0) {
        tp_port_end(pump, port, TP_ATTEND_ENDED, 0);
    } else if (got < 0) {
        if (error != EAGAIN && error != EWOULDBLOCK && error != EINTR) tp_port_end(pump, port, TP_ATTEND_BROKEN, error);
    } else {
        tp_port_take_in(pump, port, bytes, (size_t)got, now);
    }
}

static void read_stream(tp_pump *pump, tp_port *port, int64_t now) {
    uint8_t *scratch = pump->m.scratch;
    size_t have = port->in_bytes;
    size_t most = tp_port_chain_room(&pump->pool, &port->in); /* no more than could be kept, whatever it is */
    if (most > TP_PUMP_SCRATCH_BYTES - have) most = TP_PUMP_SCRATCH_BYTES - have;
    if (most == 0) {
        hold_unfinished(pump, port);
        return;
    }
    ssize_t got = recv(port->fd, scratch + have, most, MSG_DONTWAIT);
    stream_read(pump, port, scratch + have, got, got < 0 ? errno : 0, now);
}

/* For Python to decipher. -> whether there was room to look */
static bool read_cipher(tp_pump *pump, tp_port *port) {
    size_t most = tp_port_chain_room(&pump->pool, &port->in); /* plaintext is no longer than its cipher */
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
        tp_port_end(pump, port, TP_ATTEND_ENDED, 0);
    } else if (got < 0) {
        if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) tp_port_end(pump, port, TP_ATTEND_BROKEN, errno);
    } else {
        pump->m.cipher_entries[pump->cipher_filling][pump->n_cipher++] =
            (tp_cipher){tp_port_handle(pump, port), pump->cipher_used, (uint32_t)got};
        pump->cipher_used += (uint32_t)got;
        port->deciphering = 1;
        tp_pump_announce(pump);
    }
    return true;
}

/* -> whether that was all for this round: the caller's datagram, or none */
static bool leg_read(tp_pump *pump, tp_port *port, uint8_t *bytes, ssize_t got, int error,
                     const struct sockaddr_storage *address, int64_t now) {
    pump->counters.reads++;
    if (got < 0) {
        /* Else an ICMP error for something sent earlier: the caller's port is closed for the moment. */
        if (error != EAGAIN && error != EWOULDBLOCK && error != EINTR) port->send_failures++;
        return true;
    }
    tp_address from;
    if (!read_address(&from, address)) return false;
    int who = tp_latch_receive(port->latch, &from, bytes, (size_t)got, now);
    if (who == TP_LATCH_STRANGER) return false;
    if (who == TP_LATCH_LEARNED) tp_pump_attend_port(pump, port, TP_ATTEND_LEARNED);
    pump->counters.datagrams_in++;
    (void)tp_path_receive_rtp(port->path, bytes, (size_t)got, now);
    return true;
}

/* Up to the caller's next datagram; a stranger's must not cost the caller's its turn. */
static void read_leg(tp_pump *pump, tp_port *port, uint32_t most, int64_t now) {
    uint8_t *scratch = pump->m.scratch;
    for (bool done = false; !done && most != 0; most--) {
        struct sockaddr_storage address;
        socklen_t bytes = sizeof address;
        ssize_t got = recvfrom(port->fd, scratch, TP_PUMP_SCRATCH_BYTES, MSG_DONTWAIT, (struct sockaddr *)&address, &bytes);
        done = leg_read(pump, port, scratch, got, got < 0 ? errno : 0, &address, now);
    }
}

static tp_port *readable(const tp_pump *pump, uint64_t handle, uint32_t kind) {
    tp_port *port = tp_port_find(pump, handle);
    return port != NULL && port->kind == kind && !port->held && !port->dead ? port : NULL;
}

bool tp_port_read(tp_pump *pump, uint64_t handle, uint32_t kind, int64_t now) {
    tp_port *port = readable(pump, handle, kind);
    if (port == NULL) return false;
    if (port->kind == TP_PORT_LEG) {
        read_leg(pump, port, TP_PUMP_STRANGERS, now);
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

static void prefetch_leg(const tp_port *port) {
    prefetch(port->latch, 2 * CACHE_LINE);
    prefetch(port->path, 7 * CACHE_LINE);
    prefetch(&port->path->jitter, 8 * CACHE_LINE);
}

static void prefetch_stream(const tp_port *port) { prefetch(port->stream, 8 * CACHE_LINE); }

void tp_port_prefetch(const tp_pump *pump, uint64_t handle, uint32_t kind) {
    const tp_port *port = &pump->m.ports[(uint32_t)handle];
    if (port->kind != kind) return;
    if (kind == TP_PORT_LEG) {
        prefetch_leg(port);
    } else {
        prefetch_stream(port);
    }
}

/* What the chain can keep whatever other ports keep. */
static size_t own_room(const tp_port *port) {
    const tp_chain *chain = &port->in;
    size_t slack = chain->n_blocks != 0 ? TP_BLOCK_BYTES - chain->tail_at : 0;
    return slack + (chain->n_blocks < chain->reserve ? (chain->reserve - chain->n_blocks) * TP_BLOCK_BYTES : 0);
}

/* A full piece: there may be more. It is read before the first is parsed, as if there were no pieces. */
static void read_rest(tp_pump *pump, tp_port *port, const uint8_t *piece, size_t n, int64_t now) {
    uint8_t *bytes = pump->m.scratch + port->in_bytes;
    size_t most = tp_port_chain_room(&pump->pool, &port->in);
    if (most > TP_PUMP_SCRATCH_BYTES - port->in_bytes) most = TP_PUMP_SCRATCH_BYTES - port->in_bytes;
    memcpy(bytes, piece, n);
    ssize_t more = most > n ? recv(port->fd, bytes + n, most - n, MSG_DONTWAIT) : 0; /* its end, or an error, comes again */
    stream_read(pump, port, bytes, (ssize_t)n + (more > 0 ? more : 0), 0, now);
}

bool tp_port_read_streams(tp_pump *pump, const struct epoll_event *events, int n, int64_t now) {
    tp_port *ports[TP_PUMP_RING_READS];
    size_t mosts[TP_PUMP_RING_READS];
    bool busy = false;
    for (int i = 0; i < n;) {
        uint32_t count = 0;
        for (; i < n && count < TP_PUMP_RING_READS; i++) {
            tp_port *port = readable(pump, events[i].data.u64, TP_PORT_STREAM);
            if (port == NULL) continue;
            size_t most = own_room(port);
            if (port->cipher || most == 0) {
                busy |= tp_port_read(pump, events[i].data.u64, TP_PORT_STREAM, now);
                continue;
            }
            tp_uring_receive(&pump->uring, port->fd, pump->m.ring_bytes + count * TP_PUMP_RING_PIECE, most);
            mosts[count] = most;
            ports[count++] = port;
        }
        if (count == 0) break;
        busy = true;
        uint32_t made = tp_uring_run(&pump->uring);
        for (uint32_t k = 0; k < count; k++) {
            if (k + TP_PORTS_AHEAD < count) prefetch_stream(ports[k + TP_PORTS_AHEAD]);
            tp_port *port = ports[k];
            uint8_t *piece = pump->m.ring_bytes + k * TP_PUMP_RING_PIECE;
            int result = pump->uring.results[k];
            if (k >= made) {
                read_stream(pump, port, now);
            } else if (result == (int)mosts[k]) {
                read_rest(pump, port, piece, mosts[k], now);
            } else {
                stream_read(pump, port, piece, result, -result, now);
            }
        }
        if (pump->uring.fd < 0) return true;
    }
    return busy;
}
#endif
