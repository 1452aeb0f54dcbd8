/* A program of bytes for a whole pump: calls and lines come and go, their peers send anything cut anywhere, descriptors are
 * closed at the wrong moment, and between the steps of a clock of its own everything that Python may do is done.
 *
 * Held after each step: ports, slots, chains and attention agree with each other, every block is in one place, no attention
 * names what is gone, nothing is left due, a socket is given whole frames and its own member's, stale handles do nothing.
 * Held at the end: everything is back; and the same program with each of the peers' writes cut in two, and read in between,
 * comes to the same bytes, events and counters. */
#include "pump_rig.h"

#define FUZZ_COST 10 /* sockets: so many times as slow as the others */
#include "standalone.h"

#define MEMBERS 4u
#define HEARD_BYTES (1u << 19)
#define POOL_BLOCKS 1200u
#define TIGHT_BLOCKS 40u /* fewer than all members' reserves: some are refused, all have little room */
#define STALE_MAX 16u
#define LONG_UNIT 700u
#define UNREAD_DATAGRAMS 32u /* the kernel keeps more */
#define FEED_BYTES 8192u
#define LATEST (1000 * (int64_t)TP_PUMP_TICK_NS)

/* Operations are the low four bits of a byte, the member the next two; with 64, some do not wait until all is attended to. */
enum {
    OPEN, REMOVE, CLOSE_STREAM, CLOSE_LEG, PEER_ENDS, RAW, MEDIA, CONTROL,
    RTP, DATAGRAM, LONG, LOSE_FD, TIME, PEER_READS, COMMAND, STALE
};

static const seed seeds[] = {
    /* a call: audio both ways, a text frame between */
    SEED("\x00\x00\x06\x28\x08\x00\x0c\x04\x06\x28\x08\x00\x0c\x04\x0d\x07\x94{\"e\":1}\x06\x10\x0c\x04\x0d\x02\x00\x01"),
    /* a line over TLS speaks, is marked and cleared, and goes */
    SEED("\x10\x03\x1e\xc4\x1e\x01\x1c\x04\x1d\x1c\x04\x1d\x16\x28\x1e\x02\x1c\x04\x1d\x11\x12\x00\x10\x02\x1c\x04"),
    /* a call over TLS whose peer does not read, then frames too long to wait in the pump */
    SEED("\x20\x12\x26\xff\x26\xff\x2c\x08\x2c\x08\x2c\x08\x2d\x2a\x20\x2a\xb0\x2c\x04\x2e\x06\x2e\x07\x21\x22\x01\x2f"),
    SEED("\x20\x00\x2a\xb0\x2c\x04\x26\x40\x2a\x20\x2c\x04\x10\x01\x1a\xff\x1c\x04\x1d\x2d"),
    /* a line whose peer does not read; its descriptor is lost */
    SEED("\x30\x11\x3e\xf4\x3e\x01\x3e\xf4\x3c\x04\x3c\x04\x3d\x3c\x04\x3e\x05\x3c\x04\x3e\x02\x3d\x3b\x00\x30\x11\x3c\x04"),
    /* a call that learns who its caller is, and strangers */
    SEED("\x00\x08\x09\x45hello\x08\x00\x08\x00\x48\x00\x09\x4c\x80\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x07\x0c\x04\x03\x0c\x04"),
    /* a stream without a port, and a descriptor that comes back as another's */
    SEED("\x00\x00\x10\x40\x08\x00\x18\x00\x0c\x04\x0c\x04\x01\x20\x80\x2c\x04\x28\x00\x2c\x04\x04\x01\x14\x00\x24\x01\x0c\x04\x0f"),
    /* so much waits for two sockets that media is dropped */
    SEED("\x00\x10\x10\x12\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c"
         "\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0d\x1d\x0c\x0c\x0d\x1d\x0c\x0c"),
    /* three calls in one turn; a leg's descriptor is lost */
    SEED("\x00\x00\x10\x00\x20\x02\x08\x00\x18\x00\x28\x00\x06\x28\x16\x28\x26\x28\x0c\x04\x08\x00\x18\x00\x28\x00\x0c\x04\x0b\x01\x1b"),
    /* members go while they have something to say */
    SEED("\x00\x00\x07\x04{\"e\"\x06\x10\x41\x10\x01\x1e\xf4\x1e\x01\x1c\x44\x52\x00\x20\x02\x27\x02{}\x62\x00\x0c\x44\x2c\x44\x0f\x20\x02"),
    /* frames that break RFC 6455, and both ends that close */
    SEED("\x00\x00\x05\x07\x81\x7e\x00\x80{\"\x05\x03\xff\xff\xff\x10\x02\x15\x04\x89\x00\x88\x00\x16\x20\x15\x02\x01\x00\x0c\x04\x04\x01"),
};

typedef struct end {
    bool open, removed, line, cipher;
    bool spoiled;    /* its socket has failed, or lost its descriptor: the last frame may be half one */
    bool refused, ended;
    uint32_t generation;
    uint8_t *left;   /* the beginning of a frame that is too long for the pump: Python collects it */
    size_t n_left;
    uint32_t needed;
    bool collecting;
    uint8_t heard[HEARD_BYTES];
    size_t n_heard;
} end;

typedef struct run {
    const uint8_t *program;
    size_t size, at;
    bool cut;
    rig *rig;
    int64_t now;
    uint64_t digest[MEMBERS]; /* of each: between members there is no order */
    uint64_t datagrams;
    uint32_t unread_datagrams;
    uint32_t not_compared; /* bits: something was cut short in a member's life, at a moment that depends on the cuts */
    bool exact; /* every datagram from a caller was its caller's */
    int64_t stale[STALE_MAX];
    uint32_t n_stale;
    int stranger;
} run;

static end ends[MEMBERS];
static uint8_t held[TP_PUMP_SCRATCH_BYTES], waiting[TP_PUMP_CIPHER_MAX], unread[TP_PUMP_SCRATCH_BYTES];

static uint8_t next(run *x) { return x->at < x->size ? x->program[x->at++] : 0; }

static void note(run *x, uint32_t i, const void *bytes, size_t n) {
    for (size_t k = 0; k < n; k++) x->digest[i] = (x->digest[i] ^ ((const uint8_t *)bytes)[k]) * 1099511628211u;
}

static void note_number(run *x, uint32_t i, uint64_t number) { note(x, i, &number, sizeof number); }

/* The cipher: every byte turned over. */
static void turn_over(uint8_t *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) bytes[i] ^= 0xff;
}

/* ---- what must hold at any time ---- */

static size_t bytes_of(const tp_chain *chain) {
    return chain->n_blocks == 0 ? 0 : (chain->n_blocks - 1) * (size_t)TP_BLOCK_BYTES + chain->tail_at - chain->head_at;
}

static void check_chain(const tp_chain *chain, uint32_t n_bytes, uint32_t *blocks, uint32_t *promised) {
    HOLDS(bytes_of(chain) == n_bytes);
    *blocks += chain->n_blocks;
    *promised += chain->reserve > chain->n_blocks ? chain->reserve - chain->n_blocks : 0;
}

static void check(const run *x) {
    const tp_pump *pump = &x->rig->pump;
    uint32_t members = 0, open = 0, blocks = 0, promised = 0, attending = 0;
    int64_t first = INT64_MAX;
    for (uint32_t i = 0; i < N_SLOTS; i++) {
        const tp_slot *slot = &pump->m.slots[i];
        bool live = slot->path != NULL || slot->line != NULL;
        members += live;
        attending += slot->attention != 0;
        HOLDS(i >= MEMBERS || live == (ends[i].open && !ends[i].removed));
        if (!live) {
            HOLDS(slot->attention == 0 && slot->leg == TP_NO_PORT && slot->streams[0] == TP_NO_PORT);
            HOLDS(i >= pump->high_slot || pump->m.due[i] == INT64_MAX);
        } else if (pump->m.due[i] < first) {
            first = pump->m.due[i];
        }
    }
    for (uint32_t i = 1; i < N_PORTS; i++) {
        const tp_port *port = &pump->m.ports[i];
        if (port->kind == TP_PORT_FREE) continue;
        open++;
        attending += port->attention != 0;
        const tp_slot *slot = port->slot < N_SLOTS ? &pump->m.slots[port->slot] : NULL;
        HOLDS(slot == NULL || (port->kind == TP_PORT_LEG ? slot->leg : slot->streams[port->index]) == i);
        HOLDS(slot != NULL || (port->attention == 0 && port->held));
        if (port->kind == TP_PORT_LEG) continue;
        check_chain(&port->in, port->in_bytes, &blocks, &promised);
        check_chain(&port->out, port->out_bytes, &blocks, &promised);
        HOLDS(port->in_bytes <= TP_PUMP_SCRATCH_BYTES && port->out_bytes <= TP_PUMP_CIPHER_MAX);
        HOLDS(!port->dead || (port->in_bytes == 0 && port->out_bytes == 0));
        uint32_t handed = 0;
        const tp_outbox *box = &pump->handover[pump->filling];
        for (uint32_t k = 0; k < box->n_outputs; k++) {
            if (box->outputs[k].kind == TP_OUTPUT_CIPHER && box->outputs[k].slot == i) handed += box->outputs[k].length;
        }
        HOLDS(port->dead || handed == port->handed);
    }
    HOLDS(members == pump->n_members && open == pump->n_open_ports && open + pump->n_free_ports == N_PORTS - 1);
    HOLDS(pump->pool.n_free + blocks == pump->pool.n_blocks && pump->pool.n_reserved == promised);
    HOLDS(attending == pump->n_attention);
    for (uint32_t i = 0; i < pump->n_attention; i++) {
        const tp_attention *entry = &pump->m.attention[i];
        HOLDS(entry->generation == pump->m.slots[entry->slot].generation);
        const tp_port *port = tp_pump_port(pump, (int64_t)entry->port);
        HOLDS(entry->port == 0 || (port != NULL && port->slot == entry->slot && port->attention != 0));
        HOLDS(entry->port != 0 || pump->m.slots[entry->slot].attention != 0);
    }
    HOLDS(pump->next_due <= first);
    HOLDS(pump->counters.datagrams_in <= x->datagrams);
}

/* ---- what Python does ---- */

static void pull_events(run *x, uint32_t i) {
    member *m = &x->rig->members[i];
    tp_event event;
    while ((ends[i].line ? tp_stream_next_event(&m->stream, &event) : tp_path_next_event(&m->path, &event)) == 1) {
        if (event.kind == TP_EVENT_AUDIO) continue; /* once for each read with audio in it */
        note_number(x, i, (uint64_t)event.kind);
        note_number(x, i, (uint64_t)event.at_sample ^ (uint64_t)event.id << 16 ^ (uint64_t)event.value << 32);
        if (event.kind != TP_EVENT_MARK_DUE) continue;
        uint8_t ping[16], who = (uint8_t)i;
        size_t n = write_frame(ping, TP_OPCODE_PING, &who, 1);
        if (ends[i].cipher) turn_over(ping, n);
        (void)tp_pump_send(&x->rig->pump, m->port, ping, n, ends[i].cipher ? TP_SEND_CIPHER : TP_SEND_CONTROL);
        tp_pump_rearm(&x->rig->pump, i, x->now);
    }
}

/* Frames from the first on that is not plain media; what follows is given back, or collected until it is short enough. */
static void parse(run *x, uint32_t i, uint8_t *bytes, size_t n, int result, const tp_received *first) {
    end *e = &ends[i];
    member *m = &x->rig->members[i];
    tp_received report = *first;
    size_t at = 0;
    for (;;) {
        HOLDS(report.consumed <= n - at);
        if (result == TP_RECEIVED_OTHER) {
            HOLDS((size_t)report.offset + report.length <= report.consumed && report.consumed != 0);
            note_number(x, i, (uint64_t)report.opcode << 32 | report.length);
            note(x, i, bytes + at + report.offset, report.length);
        }
        if (result < 0) {
            e->refused = true;
            note_number(x, i, report.protocol_error);
            return;
        }
        at += report.consumed;
        if (result == TP_RECEIVED_ALL) break;
        result = tp_stream_receive(&m->stream, &report, bytes + at, n - at, x->now);
        if (ends[i].line) pull_events(x, i);
    }
    int given = tp_pump_give(&x->rig->pump, m->port, bytes + at, n - at, report.needed);
    HOLDS(given == TP_OK || given == TP_E_FULL);
    e->collecting = given == TP_E_FULL && !e->cipher;
    if (given == TP_OK) return;
    if (e->cipher) { /* what is behind it would come as plaintext, which this test does not keep */
        e->refused = true;
        return;
    }
    uint8_t *left = malloc(n - at + 1);
    HOLDS(left != NULL);
    memcpy(left, bytes + at, n - at);
    free(e->left);
    e->left = left;
    e->n_left = n - at;
    e->needed = report.needed;
}

static bool collect(run *x, uint32_t i) {
    end *e = &ends[i];
    const tp_port *port = tp_pump_port(&x->rig->pump, x->rig->members[i].port);
    if (!e->collecting || e->removed || port == NULL || port->dead || port->fd < 0) return false;
    ssize_t got = recv(port->fd, held, sizeof held, MSG_DONTWAIT);
    if (got <= 0) return false;
    uint8_t *all = realloc(e->left, e->n_left + (size_t)got);
    HOLDS(all != NULL);
    memcpy(all + e->n_left, held, (size_t)got);
    e->left = NULL;
    size_t n = e->n_left + (size_t)got;
    tp_received report = {.needed = e->needed};
    int result = TP_RECEIVED_ALL;
    if (e->needed <= n) result = tp_stream_receive(&x->rig->members[i].stream, &report, all, n, x->now);
    if (e->line) pull_events(x, i);
    parse(x, i, all, n, result, &report);
    free(all);
    return true;
}

static bool decipher(run *x) {
    uint32_t n, lengths[N_PORTS];
    tp_pump *pump = &x->rig->pump;
    int which = tp_pump_take_cipher(pump, &n);
    if (which < 0) return false;
    uint32_t used = 0;
    for (uint32_t i = 0; i < n; i++) {
        const tp_cipher *entry = &pump->m.cipher_entries[which][i];
        HOLDS(entry->offset == used && entry->length != 0);
        lengths[i] = entry->length;
        used += entry->length;
    }
    turn_over(pump->m.cipher_bytes[which], used);
    tp_pump_receive_many(pump, 0, n, lengths, x->now);
    return true;
}

static void hand_over(run *x) {
    tp_pump *pump = &x->rig->pump;
    int which = tp_pump_take_handover(pump);
    if (which < 0) return;
    const tp_outbox *box = &pump->handover[which];
    uint32_t used = 0;
    for (uint32_t i = 0; i < box->n_outputs; i++) {
        const tp_output *output = &box->outputs[i];
        HOLDS(output->offset == used && output->length != 0);
        used += output->length;
        if (output->kind == TP_OUTPUT_CIPHER) {
            turn_over(box->bytes + output->offset, output->length);
            tp_pump_send_many(pump, i, 1, &output->length, box->bytes + output->offset);
        } else {
            HOLDS(output->slot < MEMBERS && ends[output->slot].open);
            note(x, output->slot, box->bytes + output->offset, output->length);
        }
    }
    HOLDS(used == box->used);
}

static void attend_port(run *x, const tp_attention *entry) {
    uint32_t i = entry->slot;
    end *e = &ends[i];
    tp_pump *pump = &x->rig->pump;
    if ((int64_t)entry->port == x->rig->members[i].leg) return;
    HOLDS((int64_t)entry->port == x->rig->members[i].port);
    /* Who finds a frame that is not plain media, and when, is different where a write was cut. */
    uint32_t of_itself = entry->what & ~(uint32_t)(TP_ATTEND_HELD | TP_ATTEND_PROTOCOL);
    if (of_itself != 0) note_number(x, i, of_itself);
    if ((entry->what & TP_ATTEND_BROKEN) != 0) e->spoiled = true;
    if ((entry->what & TP_ATTEND_ENDED) != 0) e->ended = true;
    if ((entry->what & TP_ATTEND_PROTOCOL) != 0) {
        e->refused = true;
        note_number(x, i, (uint64_t)entry->error);
    }
    if ((entry->what & TP_ATTEND_HELD) == 0) return;
    tp_received report;
    int result;
    int64_t n = tp_pump_take_held(pump, (int64_t)entry->port, &report, &result, held, sizeof held);
    if (n < 0) return; /* dead since */
    HOLDS(result == TP_RECEIVED_ALL || result == TP_RECEIVED_OTHER);
    uint8_t *bytes = malloc((size_t)n + 1);
    HOLDS(bytes != NULL);
    memcpy(bytes, held, (size_t)n);
    parse(x, i, bytes, (size_t)n, result, &report);
    free(bytes);
}

static bool attend(run *x) {
    tp_attention entries[N_SLOTS + N_PORTS];
    int n = tp_pump_take_attention(&x->rig->pump, entries, N_SLOTS + N_PORTS);
    HOLDS(x->rig->pump.n_attention == 0);
    for (int i = 0; i < n; i++) {
        const tp_attention *entry = &entries[i];
        HOLDS(entry->slot < MEMBERS && ends[entry->slot].open && !ends[entry->slot].removed);
        HOLDS(entry->generation == ends[entry->slot].generation && entry->what != 0);
        HOLDS((entry->what & TP_ATTEND_STUCK) == 0);
        if (entry->port != 0) {
            attend_port(x, entry);
        } else {
            pull_events(x, entry->slot);
        }
    }
    return n != 0;
}

/* Until all that the peers have sent has been read, or cannot be. */
static void settle(run *x) {
    tp_pump *pump = &x->rig->pump;
    for (int i = 0;; i++) {
        HOLDS(i < 1000);
        uint64_t reads = pump->counters.reads;
        HOLDS(tp_pump_read(pump, x->now) >= 0);
        bool busy = decipher(x) | attend(x);
        for (uint32_t k = 0; k < MEMBERS; k++) busy |= collect(x, k);
        if (!busy && pump->counters.reads == reads) break;
    }
    HOLDS(!x->exact || pump->counters.datagrams_in == x->datagrams);
    x->unread_datagrams = 0;
}

static void tick(run *x, bool in_steps, bool attended) {
    tp_pump *pump = &x->rig->pump;
    settle(x);
    int ticked = 1;
    HOLDS((in_steps ? tp_pump_step(pump, x->now, &ticked) : tp_pump_tick(pump, x->now)) >= 0);
    HOLDS(ticked == 1);
    for (uint32_t i = 0; i < pump->high_slot; i++) HOLDS(pump->m.due[i] > x->now);
    check(x);
    if (!attended) return; /* later, and something else comes first */
    hand_over(x);
    (void)attend(x);
}

/* ---- the peers ---- */

static void say(run *x, uint32_t i, const uint8_t *bytes, size_t n) {
    const member *m = &x->rig->members[i];
    if (!ends[i].open || m->peer_fd <= 0 || n == 0) return;
    uint8_t *out = malloc(n);
    HOLDS(out != NULL);
    memcpy(out, bytes, n);
    if (ends[i].cipher) turn_over(out, n);
    size_t part = x->cut ? n / 2 : 0, sent = 0;
    for (bool full = false; sent < n;) {
        size_t to = sent < part ? part : n;
        ssize_t k = send(m->peer_fd, out + sent, to - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (k <= 0 && full) break; /* nobody reads any more */
        full = k <= 0;
        sent += full ? 0 : (size_t)k;
        if (full || x->cut) settle(x);
    }
    free(out);
}

static void say_long(run *x, uint32_t i, size_t n) {
    uint8_t head[TP_WEBSOCKET_MAX_HEADER_BYTES], piece[FEED_BYTES];
    memset(piece, 'x', sizeof piece);
    int head_bytes = tp_websocket_write_header(head, sizeof head, 1, TP_OPCODE_TEXT, n, NULL);
    say(x, i, head, (size_t)head_bytes);
    for (size_t k; n != 0; n -= k) {
        k = n < FEED_BYTES ? n : FEED_BYTES;
        say(x, i, piece, k);
        settle(x);
    }
}

static void hear(uint32_t i, const rig *r) {
    end *e = &ends[i];
    if (r->members[i].peer_fd <= 0) return;
    for (ssize_t n; e->n_heard < HEARD_BYTES; e->n_heard += (size_t)n) {
        n = recv(r->members[i].peer_fd, e->heard + e->n_heard, HEARD_BYTES - e->n_heard, MSG_DONTWAIT);
        if (n <= 0) return;
    }
    e->spoiled = true; /* more than is looked at here */
}

static void hear_caller(run *x, uint32_t i) {
    uint8_t datagram[2000];
    if (x->rig->members[i].caller_fd <= 0) return;
    for (ssize_t n; (n = recv(x->rig->members[i].caller_fd, datagram, sizeof datagram, MSG_DONTWAIT)) >= 0;) {
        note(x, i, datagram, (size_t)n);
    }
}

/* ---- members come and go ---- */

static void check_frames(uint32_t i) {
    end *e = &ends[i];
    for (size_t at = 0; at < e->n_heard;) {
        tp_websocket_frame frame;
        HOLDS(tp_websocket_read_header(&frame, e->heard + at, e->n_heard - at) == 1 && frame.fin);
        uint8_t *payload = e->heard + at + frame.header_bytes;
        HOLDS(frame.payload_bytes <= e->n_heard - at - frame.header_bytes);
        if (frame.masked) tp_websocket_mask(payload, (size_t)frame.payload_bytes, frame.mask, 0);
        if (frame.opcode == TP_OPCODE_PING) {
            HOLDS(frame.payload_bytes == 1 && payload[0] == i);
        } else {
            const char *head = e->line ? peer_head : own_head;
            HOLDS(frame.payload_bytes > strlen(head) && memcmp(payload, head, strlen(head)) == 0);
            HOLDS(memcmp(payload + frame.payload_bytes - 3, media_tail, 3) == 0);
        }
        at += frame.header_bytes + (size_t)frame.payload_bytes;
    }
}

static void remember(run *x, int64_t handle) {
    if (handle > 0) x->stale[x->n_stale++ % STALE_MAX] = handle;
}

/* The stream's port, then its descriptor; and what its peer has been given so far. */
static void close_stream(run *x, uint32_t i, bool look) {
    end *e = &ends[i];
    member *m = &x->rig->members[i];
    if (m->port <= 0) return;
    hand_over(x); /* while its messages can still be told from those of the number's next owner */
    const tp_port *port = tp_pump_port(&x->rig->pump, m->port);
    HOLDS(port != NULL);
    bool whole = !e->spoiled && !port->dead;
    uint32_t n_unread = 0;
    int64_t n = tp_pump_close_port(&x->rig->pump, m->port, look ? waiting : NULL, look ? unread : NULL, &n_unread);
    HOLDS(n >= 0 && n <= (int64_t)sizeof waiting && n_unread <= sizeof unread);
    HOLDS(tp_pump_close_port(&x->rig->pump, m->port, waiting, unread, &n_unread) == TP_E_STATE && n_unread == 0);
    remember(x, m->port);
    m->port = 0;
    hear(i, x->rig);
    if (whole && look && m->peer_fd > 0 && !e->spoiled && e->n_heard + (size_t)n <= HEARD_BYTES) {
        memcpy(e->heard + e->n_heard, waiting, (size_t)n);
        e->n_heard += (size_t)n;
        note(x, i, e->heard, e->n_heard);
        if (e->cipher) turn_over(e->heard, e->n_heard);
        check_frames(i);
    }
    close_fd(&m->stream_fd);
    close_fd(&m->peer_fd);
    free(e->left);
    e->left = NULL;
    e->collecting = false;
}

static void close_leg(run *x, uint32_t i) {
    member *m = &x->rig->members[i];
    uint32_t n_unread;
    if (m->leg <= 0) return;
    HOLDS(tp_pump_close_port(&x->rig->pump, m->leg, NULL, NULL, &n_unread) == 0);
    remember(x, m->leg);
    m->leg = 0;
    close_fd(&m->leg_fd);
}

static void finish(run *x, uint32_t i) {
    member *m = &x->rig->members[i];
    if (!ends[i].open) return;
    hear_caller(x, i);
    close_stream(x, i, true);
    close_leg(x, i);
    tp_pump_remove(&x->rig->pump, i);
    if (!ends[i].line) tp_path_close(&m->path);
    tp_stream_close(&m->stream, 0);
    tp_event event;
    while (tp_stream_next_event(&m->stream, &event) == 1) { /* marks are blocks until they are told */
        if (event.kind != TP_EVENT_AUDIO) note_number(x, i, (uint64_t)event.kind);
    }
    if (!ends[i].line) note(x, i, &m->path.counters, sizeof m->path.counters);
    note(x, i, &m->stream.counters, sizeof m->stream.counters);
    ends[i].open = false;
    member_close(x->rig, i);
    ends[i].n_heard = 0;
}

static void open_stream_port(run *x, uint32_t i, uint8_t how) {
    member *m = &x->rig->members[i];
    uint32_t other = (i + 1) % MEMBERS;
    member *victim = &x->rig->members[other];
    int pair[2], small = 4608;
    HOLDS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    if ((how & 16) != 0) HOLDS(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small) == 0);
    int taken_from = (how & 128) != 0 && ends[other].open && victim->port > 0 && victim->stream_fd > 0 ? victim->stream_fd : -1;
    if (taken_from > 0) { /* the neighbour's descriptor was closed before its port, and comes back as ours */
        HOLDS(dup2(pair[0], taken_from) == taken_from && close(pair[0]) == 0);
        pair[0] = taken_from;
        victim->stream_fd = -1;
        ends[other].spoiled = true;
        ends[other].collecting = false;
    }
    m->stream_fd = pair[0];
    m->peer_fd = pair[1];
    int flags = (ends[i].cipher ? TP_STREAM_CIPHER : 0) | (ends[i].line ? 0 : TP_STREAM_LIVE);
    m->port = tp_pump_open_stream(&x->rig->pump, i, 0, m->stream_fd, &m->stream, flags, x->now);
    if (m->port <= 0) {
        HOLDS(m->port == TP_E_FULL);
        m->port = 0;
        close_fd(&m->stream_fd);
        close_fd(&m->peer_fd);
    } else {
        HOLDS(tp_pump_give(&x->rig->pump, m->port, NULL, 0, 0) == TP_OK);
        HOLDS(tp_pump_open_stream(&x->rig->pump, i, 0, m->stream_fd, &m->stream, flags, x->now) == TP_E_ARGUMENT);
        HOLDS(taken_from < 0 || tp_pump_port(&x->rig->pump, victim->port)->dead);
    }
}

static void open_member(run *x, uint32_t i, uint8_t how) {
    finish(x, i);
    rig *r = x->rig;
    end *e = &ends[i];
    memset(e, 0, offsetof(end, heard));
    e->open = true;
    e->line = (how & 1) != 0;
    e->cipher = (how & 2) != 0;
    member *m = &r->members[i];
    if (e->line) {
        m->config = stream_config(m, TP_ROLE_APPLICATION);
        HOLDS(tp_stream_init(&m->stream, &r->pool, &m->config, 0, x->now) == TP_OK);
        HOLDS(tp_pump_add_line(&r->pump, i, &m->stream) == TP_OK);
    } else {
        HOLDS(make_call(&r->pool, m, i, x->now) == 0);
        HOLDS(tp_pump_add_path(&r->pump, i, &m->path) == TP_OK);
        uint32_t symmetric = how >> 2 & 3;
        if (symmetric != TP_SYMMETRIC_NO) x->exact = false;
        HOLDS(open_leg(r, i, symmetric <= TP_SYMMETRIC_ANY ? symmetric : TP_SYMMETRIC_NO, x->now) == 0);
    }
    HOLDS(tp_pump_add_path(&r->pump, i, &m->path) == TP_E_ARGUMENT);
    e->generation = r->pump.m.slots[i].generation;
    if ((how & 64) == 0) open_stream_port(x, i, how);
    settle(x);
}

/* Closed before its port was. */
static void lose_fd(run *x, uint32_t i, bool leg) {
    member *m = &x->rig->members[i];
    int *fd = leg ? &m->leg_fd : &m->stream_fd;
    if (!ends[i].open || *fd <= 0) return;
    hear_caller(x, i);
    close_fd(fd);
    if (!leg) {
        ends[i].spoiled = true;
        ends[i].collecting = false;
    }
    x->now += PTIME_NS;
    tick(x, true, true);
    if (leg) {
        close_leg(x, i);
    } else {
        close_stream(x, i, true);
    }
}

/* ---- what else Python asks for ---- */

static void command(run *x, uint32_t i, uint8_t what) {
    rig *r = x->rig;
    member *m = &r->members[i];
    end *e = &ends[i];
    if (!e->open) return;
    uint8_t audio[2048], ping[16], who = (uint8_t)i;
    size_t n;
    switch (what & 15) {
    case 1:
        (void)tp_stream_mark(&m->stream, x->now);
        break;
    case 2:
        (void)(e->line ? tp_stream_clear(&m->stream, 0) : tp_path_clear(&m->path, 0));
        break;
    case 3:
        tp_stream_pause(&m->stream, what >> 4 & 1);
        break;
    case 4:
        memset(audio, what, sizeof audio);
        for (uint32_t k = 0; k < what >> 4; k++) {
            (void)tp_stream_play(&m->stream, (tp_format){8000, TP_ENCODING_PCMU}, audio, sizeof audio);
        }
        break;
    case 5:
        n = write_frame(ping, TP_OPCODE_PING, &who, 1);
        if (e->cipher) {
            hand_over(x);
            turn_over(ping, n);
        }
        (void)tp_pump_send(&r->pump, m->port, ping, n, e->cipher ? TP_SEND_CIPHER : TP_SEND_CONTROL);
        break;
    case 6:
        (void)tp_pump_flush(&r->pump, m->port);
        break;
    case 7:
        (void)tp_pump_end(&r->pump, m->port);
        break;
    case 8:
        if (!e->line) (void)tp_path_send_digits(&m->path, 0, "12#", 3, 0, 0);
        break;
    case 9:
        if (!e->line) tp_path_hold(&m->path, what >> 4 & 3);
        break;
    case 10:
        (void)tp_pump_send_datagram(&r->pump, m->leg, &what, 1);
        break;
    case 11:
        if (!e->line) tp_path_close(&m->path);
        break;
    default:
        (void)tp_stream_receive_audio(&m->stream, TP_TRACK_INBOUND, (tp_format){8000, TP_ENCODING_PCMU}, &what, 1, x->now);
    }
    if (e->line && !e->removed) tp_pump_rearm(&r->pump, i, x->now);
}

/* Whatever is asked of a port that is gone: nothing happens, to it or to its number's next owner. */
static void try_stale(run *x) {
    tp_pump *pump = &x->rig->pump;
    tp_received report;
    uint8_t byte = 0;
    int result;
    for (uint32_t k = 0; k < STALE_MAX && k < x->n_stale; k++) {
        int64_t handle = x->stale[k];
        HOLDS(tp_pump_port(pump, handle) == NULL && tp_pump_give(pump, handle, &byte, 1, 0) == TP_E_STATE);
        HOLDS(tp_pump_take_held(pump, handle, &report, &result, held, sizeof held) == TP_E_STATE);
        HOLDS(tp_pump_send(pump, handle, &byte, 1, TP_SEND_CONTROL) == TP_E_STATE && tp_pump_flush(pump, handle) == TP_E_STATE);
        HOLDS(tp_pump_send_datagram(pump, handle, &byte, 1) == TP_E_STATE && tp_pump_end(pump, handle) == TP_E_STATE);
        HOLDS(tp_pump_receive(pump, handle, &byte, 1, x->now) == TP_E_STATE);
    }
    tp_pump_remove(pump, MEMBERS);
    tp_pump_rearm(pump, MEMBERS, x->now);
}

static void datagram(run *x, uint32_t i, const uint8_t *bytes, size_t n, bool strange) {
    const member *m = &x->rig->members[i];
    if (!ends[i].open || m->leg <= 0 || m->caller_fd <= 0) return;
    int from = strange ? x->stranger : m->caller_fd;
    if (sendto(from, bytes, n, 0, (const struct sockaddr *)&m->leg_address, sizeof m->leg_address) != (ssize_t)n) return;
    x->datagrams += (!strange || !x->exact) && !ends[i].removed;
    if (x->cut || ++x->unread_datagrams == UNREAD_DATAGRAMS) settle(x);
}

/* One operation. */
static void step(run *x) {
    uint8_t op = next(x), bytes[4096];
    uint32_t i = op >> 4 & 3;
    member *m = &x->rig->members[i];
    size_t n;
    /* What the peers say is read by and by; by everything else it must have been. */
    bool says = (op & 15) == RAW || (op & 15) == MEDIA || (op & 15) == CONTROL || (op & 15) == RTP || (op & 15) == DATAGRAM;
    if ((op & 64) != 0 && ((op & 15) == REMOVE || (op & 15) == CLOSE_STREAM)) {
        HOLDS(tp_pump_read(&x->rig->pump, x->now) >= 0); /* what it has to say is in the list, and stays there */
        x->not_compared |= 1u << i;
        x->exact = false;
    } else if (!says) {
        settle(x);
    }
    switch (op & 15) {
    case OPEN:
        open_member(x, i, next(x));
        break;
    case REMOVE:
        tp_pump_remove(&x->rig->pump, i);
        ends[i].removed = true;
        break;
    case CLOSE_STREAM:
        close_stream(x, i, (next(x) & 1) == 0);
        break;
    case CLOSE_LEG:
        close_leg(x, i);
        break;
    case PEER_ENDS:
        if (m->peer_fd <= 0) break;
        hear(i, x->rig);
        if ((next(x) & 1) != 0) {
            (void)shutdown(m->peer_fd, SHUT_WR);
        } else {
            close_fd(&m->peer_fd);
        }
        break;
    case RAW:
        n = next(x) & 63u;
        for (size_t k = 0; k < n; k++) bytes[k] = next(x);
        say(x, i, bytes, n);
        break;
    case MEDIA:
        if (!ends[i].open) break;
        n = (size_t)next(x) * 8 + 1;
        n = write_media(m, bytes, sizeof bytes, (uint8_t)n, n);
        say(x, i, bytes, n);
        break;
    case CONTROL: {
        uint8_t payload[16], how = next(x);
        for (n = 0; n < (how & 15u); n++) payload[n] = next(x);
        static const uint8_t opcodes[] = {TP_OPCODE_TEXT, TP_OPCODE_TEXT, TP_OPCODE_PING, TP_OPCODE_BINARY};
        say(x, i, bytes, write_frame(bytes, opcodes[how >> 4 & 3], payload, n));
        break;
    }
    case RTP:
        if ((next(x) & 1) != 0) m->seq++;
        n = write_rtp(m, bytes, op);
        datagram(x, i, bytes, n, false);
        break;
    case DATAGRAM: {
        uint8_t how = next(x);
        for (n = 0; n < (how & 63u); n++) bytes[n] = next(x);
        datagram(x, i, bytes, n, (how & 64) != 0);
        break;
    }
    case LONG:
        say_long(x, i, (size_t)next(x) * LONG_UNIT);
        break;
    case LOSE_FD:
        lose_fd(x, i, (next(x) & 1) != 0);
        break;
    case TIME: {
        uint8_t how = next(x);
        if (x->now < LATEST) x->now += (int64_t)(how & 31) * TP_PUMP_TICK_NS + (how >> 7);
        tick(x, (how & 32) == 0, (how & 64) == 0);
        break;
    }
    case PEER_READS:
        hear(i, x->rig);
        hear_caller(x, i);
        break;
    case COMMAND:
        command(x, i, next(x));
        break;
    default:
        try_stale(x);
    }
    check(x);
}

static void run_program(const uint8_t *data, size_t size, uint32_t pool_blocks, bool cut, uint64_t digest[MEMBERS]) {
    run x = {.program = data, .size = size, .cut = cut, .exact = true};
    struct sockaddr_in address;
    static rig *r; /* allocated once: the allocator would be most of a run */
    if (r == NULL) r = rig_allocate(POOL_BLOCKS);
    HOLDS(r != NULL && bind_loopback(&x.stranger, &address) == 0);
    r->memory.pool_capacity = (uint64_t)pool_blocks * (TP_BLOCK_BYTES + 4);
    HOLDS(rig_begin(r, 0) == 0);
    x.rig = r;
    while (x.at < x.size) step(&x);
    tick(&x, true, true);
    for (uint32_t i = 0; i < MEMBERS; i++) finish(&x, i);
    check(&x);
    HOLDS(rig_end(r) == 0);
    close_fd(&x.stranger);
    for (uint32_t i = 0; i < MEMBERS; i++) digest[i] = (x.not_compared >> i & 1) != 0 ? 0 : x.digest[i];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint64_t whole[MEMBERS], in_two[MEMBERS];
    run_program(data, size, POOL_BLOCKS, false, whole);
    run_program(data, size, POOL_BLOCKS, true, in_two);
    HOLDS(memcmp(whole, in_two, sizeof whole) == 0);
    run_program(data, size, TIGHT_BLOCKS, false, whole);
    return 0;
}

STANDALONE_MAIN(seeds)
