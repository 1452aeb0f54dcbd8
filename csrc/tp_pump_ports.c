#ifdef __linux__
#include "tp_port.h"

#include <errno.h>
#include <sys/epoll.h>

void tp_port_part(tp_pump *pump, tp_port *port) {
    tp_slot *slot = &pump->m.slots[port->slot];
    tp_port_unwatch(pump, port);
    tp_pump_forget_attention(pump, port->slot, tp_port_handle(pump, port), &port->attention);
    *(port->kind == TP_PORT_STREAM ? &slot->streams[port->index] : &slot->leg) = TP_NO_PORT;
    port->held = TP_HELD_FOR_GOOD;
    port->slot = TP_NO_SLOT;
}

void tp_port_close(tp_pump *pump, tp_port *port) {
    if (port->slot != TP_NO_SLOT) tp_port_part(pump, port);
    if (port->kind == TP_PORT_STREAM) {
        tp_chain_close(&port->in, &pump->pool);
        tp_chain_close(&port->out, &pump->pool);
    }
    *port = (tp_port){.generation = tp_port_next_generation(port->generation), .fd = -1};
    pump->m.free_ports[pump->n_free_ports++] = tp_port_number(pump, port);
    pump->n_open_ports--;
}

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
        if (!port->dead) tp_port_end(pump, port, TP_ATTEND_BROKEN, EBADF);
    }
}

static int64_t open_port(tp_pump *pump, uint32_t *of_slot, const tp_port *made) {
    if (pump->n_free_ports == 0) return TP_E_FULL;
    uint32_t number = pump->m.free_ports[pump->n_free_ports - 1];
    tp_port *port = &pump->m.ports[number];
    uint32_t generation = port->generation != 0 ? port->generation : 1;
    *port = *made;
    port->generation = generation;
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = tp_port_handle(pump, port)};
    if (epoll_ctl(pump->epoll, EPOLL_CTL_ADD, port->fd, &event) != 0) {
        *port = (tp_port){.generation = generation, .fd = -1};
        return TP_E_STATE;
    }
    pump->n_free_ports--;
    pump->n_open_ports++;
    *of_slot = number;
    disown(pump, port);
    return (int64_t)tp_port_handle(pump, port);
}

int64_t tp_pump_open_leg(tp_pump *pump, uint32_t number, int fd, int family, tp_latch *latch, int64_t now) {
    tp_slot *slot = tp_pump_slot(pump, number);
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
    tp_slot *slot = tp_pump_slot(pump, number);
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
                    .held = TP_HELD,
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
    tp_port *port = tp_port_find(pump, (uint64_t)handle);
    if (port == NULL) return TP_E_STATE;
    int64_t n = 0;
    if (waiting != NULL && port->out_bytes != 0) {
        tp_port_chain_copy(&pump->pool, &port->out, port->out_bytes, waiting);
        n = port->out_bytes;
    }
    if (unread != NULL && port->in_bytes != 0) {
        tp_port_chain_copy(&pump->pool, &port->in, port->in_bytes, unread);
        *n_unread = port->in_bytes;
    }
    tp_port_close(pump, port);
    return n;
}

const tp_port *tp_pump_port(const tp_pump *pump, int64_t handle) { return tp_port_find(pump, (uint64_t)handle); }

static tp_port *live_stream(const tp_pump *pump, int64_t handle) {
    tp_port *port = tp_port_find(pump, (uint64_t)handle);
    return port != NULL && port->kind == TP_PORT_STREAM && !port->dead ? port : NULL;
}

int64_t tp_pump_take_held(tp_pump *pump, int64_t handle, tp_received *report, int *result, uint8_t *out, size_t capacity) {
    tp_port *port = live_stream(pump, handle);
    if (port == NULL || !port->held) return TP_E_STATE;
    if (port->in_bytes > capacity) return TP_E_ROOM;
    *report = port->held_report;
    *result = port->held_result;
    int64_t n = port->in_bytes;
    tp_port_chain_copy(&pump->pool, &port->in, port->in_bytes, out);
    tp_port_forget_input(pump, port);
    return n;
}

int tp_pump_give(tp_pump *pump, int64_t handle, const uint8_t *left, size_t n, uint32_t needed) {
    tp_port *port = live_stream(pump, handle);
    if (port == NULL || port->held != TP_HELD) return TP_E_STATE;
    tp_port_forget_input(pump, port);
    /* Nothing could be read behind what fills the room: with a pool full of beginnings nobody would come to an end. */
    if (n > TP_PUMP_IN_MAX || n >= tp_port_chain_room(&pump->pool, &port->in)) return TP_E_FULL;
    tp_port_keep_input(pump, port, left, n);
    port->in_needed = needed;
    port->held = 0;
    return TP_OK;
}

int tp_pump_send(tp_pump *pump, int64_t handle, const uint8_t *bytes, size_t n, int kind) {
    tp_port *port = live_stream(pump, handle);
    if (port == NULL) return TP_E_STATE;
    int status = tp_port_put(pump, port, bytes, n, kind);
    if (status < 0) return status;
    if (kind == TP_SEND_CIPHER) {
        port->handed = 0;
        tp_port_say_full(pump, port);
        return (int)port->out_bytes;
    }
    port->flushing = port->out_bytes != 0;
    return (int)port->out_bytes;
}

int tp_pump_flush(tp_pump *pump, int64_t handle) {
    tp_port *port = live_stream(pump, handle);
    if (port == NULL) return TP_E_STATE;
    tp_port_flush(pump, port);
    return port->dead ? TP_E_STATE : (int)port->out_bytes;
}

int tp_pump_send_datagram(tp_pump *pump, int64_t handle, const uint8_t *bytes, size_t n) {
    tp_port *port = tp_port_find(pump, (uint64_t)handle);
    if (port == NULL || port->kind != TP_PORT_LEG || port->dead) return TP_E_STATE;
    tp_port_send_datagram(pump, port, bytes, n);
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
    if (n > tp_port_chain_room(&pump->pool, &port->in) || n > TP_PUMP_SCRATCH_BYTES - port->in_bytes) {
        tp_port_end(pump, port, TP_ATTEND_BROKEN, ENOBUFS);
        return TP_E_FULL;
    }
    tp_port_take_in(pump, port, plain, n, now);
    return port->held != 0;
}

void tp_pump_receive_many(tp_pump *pump, uint32_t first, uint32_t n, const uint32_t *lengths, int64_t now) {
    uint32_t taken = 1 - pump->cipher_filling;
    const tp_cipher *entries = pump->m.cipher_entries[taken] + first;
    for (uint32_t i = 0; i < n; i++) {
        (void)tp_pump_receive(pump, (int64_t)entries[i].port, pump->m.cipher_bytes[taken] + entries[i].offset, lengths[i], now);
    }
}

void tp_pump_send_many(tp_pump *pump, uint32_t first, uint32_t n, const uint32_t *lengths, const uint8_t *cipher) {
    const tp_output *outputs = pump->handover[1 - pump->filling].outputs + first;
    for (uint32_t i = 0; i < n; i++) {
        const tp_port *port = &pump->m.ports[outputs[i].slot];
        if (port->cipher) (void)tp_pump_send(pump, (int64_t)tp_port_handle(pump, port), cipher, lengths[i], TP_SEND_CIPHER);
        cipher += lengths[i];
    }
}

int tp_pump_end(tp_pump *pump, int64_t handle) {
    tp_port *port = live_stream(pump, handle);
    if (port == NULL) return TP_E_STATE;
    tp_port_end(pump, port, TP_ATTEND_ENDED, 0);
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
