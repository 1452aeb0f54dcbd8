/* tp_port: one socket of a pump, and what it reads and sends. Linux; the pump's own, nobody else's.
 *
 * What it does. tp_pump decides what is read and ticked and when; this is how: a leg's datagrams and a stream's bytes, in and
 * out, what waits in a port's chains, and how a port ends. What the pump promises of all that is written in tp_pump.h.
 *
 * How it works. Every call is made with MSG_DONTWAIT. What a stream's socket did not take waits in `out`, a chain of the pump's
 * pool, and everything after it goes behind it; what was read and is no whole frame waits in `in`. What fails ends its port:
 * the port is dead from there on, its owner is told by attention, and closes it in his own time.
 *
 * How to use it. From tp_pump.c and tp_pump_ports.c, with the guard held where there is a thread.
 *
 * Figures to hold: those of tp_pump. Source: own; RFC 6455. */
#ifndef TP_PORT_H
#define TP_PORT_H
#include "tp_pump.h"

#define TP_NO_SLOT UINT32_MAX /* of a port whose slot has gone */
#define TP_GENERATION_MAX 0x7fffffffu /* a handle is a positive int64_t */
#define TP_HELD 1u            /* until tp_pump_give */
#define TP_HELD_FOR_GOOD 2u
#define TP_PORTS_AHEAD 2      /* their state comes into the cache while those before them are read */

static inline uint32_t tp_port_number(const tp_pump *pump, const tp_port *port) { return (uint32_t)(port - pump->m.ports); }

static inline uint64_t tp_port_handle(const tp_pump *pump, const tp_port *port) {
    return (uint64_t)port->generation << 32 | tp_port_number(pump, port);
}

/* NULL: it names a generation that is over. */
static inline tp_port *tp_port_find(const tp_pump *pump, uint64_t handle) {
    uint32_t number = (uint32_t)handle;
    if (number == TP_NO_PORT || number >= pump->m.n_ports) return NULL;
    tp_port *port = &pump->m.ports[number];
    return port->kind != TP_PORT_FREE && port->generation == handle >> 32 ? port : NULL;
}

/* NULL: nobody is in it. */
static inline tp_slot *tp_pump_slot(const tp_pump *pump, uint32_t number) {
    if (number >= pump->m.n_slots) return NULL;
    tp_slot *slot = &pump->m.slots[number];
    return slot->path != NULL || slot->line != NULL ? slot : NULL;
}

static inline uint32_t tp_port_next_generation(uint32_t generation) {
    return generation == TP_GENERATION_MAX ? 1 : generation + 1;
}

/* What a port needs of tp_pump.c: to say something. */
void tp_pump_attend_slot(tp_pump *pump, uint32_t slot, uint32_t what);
void tp_pump_attend_port(tp_pump *pump, tp_port *port, uint32_t what);
void tp_pump_forget_attention(tp_pump *pump, uint32_t slot, uint64_t port, uint32_t *attention);
int64_t tp_pump_clock_ns(int clock);

/* What waits in chains. */
size_t tp_port_chain_room(const tp_pool *pool, const tp_chain *chain);
void tp_port_chain_copy(const tp_pool *pool, const tp_chain *chain, size_t n, uint8_t *out);
void tp_port_keep_input(tp_pump *pump, tp_port *port, const uint8_t *bytes, size_t n); /* the room has been looked at */
void tp_port_forget_input(tp_pump *pump, tp_port *port);

/* The end: `what` is the attention that says so. */
void tp_port_end(tp_pump *pump, tp_port *port, uint32_t what, int error);
void tp_port_unwatch(const tp_pump *pump, const tp_port *port);
/* Nothing is read from here on, and nobody attends to it; what waits in it stays until it is closed. */
void tp_port_part(tp_pump *pump, tp_port *port);
void tp_port_close(tp_pump *pump, tp_port *port);

/* Sending. put: behind whatever waits. -> TP_OK; TP_E_FULL: nothing of it was taken; TP_E_STATE: the port is dead now */
int tp_port_put(tp_pump *pump, tp_port *port, const uint8_t *bytes, size_t n, int kind);
void tp_port_flush(tp_pump *pump, tp_port *port);
void tp_port_say_full(tp_pump *pump, tp_port *port); /* if anything waits and it was not said */
void tp_port_send_datagram(tp_pump *pump, tp_port *port, const uint8_t *bytes, size_t n);
/* What ticks have written; the outbox is empty afterwards. speech: a line's messages of one tick, which leave as one. */
void tp_port_send_outputs(tp_pump *pump, tp_outbox *outbox);
void tp_port_send_speech(tp_pump *pump, uint32_t slot, tp_outbox *outbox);

/* Reading. -> whether the handle's port is of this kind and was looked at */
bool tp_port_read(tp_pump *pump, uint64_t handle, uint32_t kind, int64_t now);
/* The same for all streams among what an epoll said, through the ring. -> whether any was looked at */
struct epoll_event;
bool tp_port_read_streams(tp_pump *pump, const struct epoll_event *events, int n, int64_t now);
/* What came, behind what waits in the chain: that has its room at the front of the scratch. */
void tp_port_take_in(tp_pump *pump, tp_port *port, uint8_t *bytes, size_t n, int64_t now);
/* What reading the port will look at. Every system call in between sweeps the cache, so it would have to be waited for. */
void tp_port_prefetch(const tp_pump *pump, uint64_t handle, uint32_t kind);

#endif
