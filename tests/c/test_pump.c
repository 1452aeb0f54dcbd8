/* The pump on real sockets and injected time: what leaves it is what paths and streams driven by hand give, and what goes
 * wrong at one member's sockets stays there. */
#include "pump_rig.h"

#include <fcntl.h>
#include <time.h>

#define MS 1000000LL
#define POOL_BLOCKS 1200

static uint64_t state = 88172645463325252u;

static uint32_t random_below(uint32_t n) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 33) % n;
}

static uint64_t queued(const rig *r, uint32_t i) { return tp_stream_queued_samples(&r->members[i].stream); }

/* Reads and takes the attention. */
static int read_all(rig *r, int64_t now) {
    CHECK(tp_pump_read(&r->pump, now) >= 0);
    return take_attention(r);
}

/* ---- the same bytes as by hand ---- */

/* What the outbox of the paths by hand holds for call i: the datagrams and messages must be the next at the sockets. */
static int compare_outputs(rig *r, const tp_outbox *expected, uint32_t i) {
    uint8_t got[2000];
    r->n_received = 0;
    receive_all(r, r->members[i].peer_fd);
    size_t at = 0;
    for (uint32_t k = 0; k < expected->n_outputs; k++) {
        const tp_output *output = &expected->outputs[k];
        const uint8_t *bytes = expected->bytes + output->offset;
        if (output->slot != i) continue;
        if (output->kind == TP_OUTPUT_RTP) {
            CHECK(recv(r->members[i].caller_fd, got, sizeof got, MSG_DONTWAIT) == (ssize_t)output->length);
            CHECK(memcmp(got, bytes, output->length) == 0);
        } else {
            CHECK(at + output->length <= r->n_received && memcmp(r->received + at, bytes, output->length) == 0);
            at += output->length;
        }
    }
    CHECK(at == r->n_received);
    CHECK(recv(r->members[i].caller_fd, got, sizeof got, MSG_DONTWAIT) < 0);
    return 0;
}

static int test_parity(void) {
    enum { N = 5 };
    rig *r = rig_open(POOL_BLOCKS, 0);
    member *by_hand = calloc(N, sizeof *by_hand);
    tp_path *paths[N];
    tp_outbox outbox = {.bytes = malloc(65536), .outputs = malloc(256 * sizeof(tp_output)), .capacity = 65536,
                        .outputs_capacity = 256};
    CHECK(r != NULL && by_hand != NULL && outbox.bytes != NULL && outbox.outputs != NULL);
    for (uint32_t i = 0; i < N; i++) {
        if (add_call(r, i, 0) != 0 || make_call(&r->pool, &by_hand[i], i, 0) != 0) return 1;
        paths[i] = &by_hand[i].path;
    }
    uint64_t n_out = 0;
    for (int64_t now = 0; now < 4000 * MS; now += random_below(200) == 0 ? 90 * MS : 5 * MS) {
        for (uint32_t i = 0; i < N; i++) {
            uint8_t bytes[8000], copy[8000];
            if (random_below(4) == 0) {
                size_t n = write_rtp(&r->members[i], bytes, (uint8_t)random_below(256));
                if (random_below(30) == 0) r->members[i].seq++;
                if (send_rtp(&r->members[i], r->members[i].caller_fd, bytes, n) != 0) return 1;
                CHECK(tp_path_receive_rtp(&by_hand[i].path, bytes, n, now) == 1);
            }
            if (random_below(12) == 0) {
                size_t n = write_media(&r->members[i], bytes, sizeof bytes, (uint8_t)random_below(256), 160 * (1 + random_below(8)));
                tp_received report;
                memcpy(copy, bytes, n);
                if (send_all(r->members[i].peer_fd, bytes, n) != 0) return 1;
                CHECK(tp_stream_receive(&by_hand[i].stream, &report, copy, n, now) == TP_RECEIVED_ALL && report.n_media == 1);
            }
        }
        if (rig_ring == RING_FAILS_READING && now >= 2000 * MS && r->pump.uring.fd >= 0) (void)close(r->pump.uring.fd);
        CHECK(tp_pump_read(&r->pump, now) == 0);
        if (rig_ring == RING_FAILS_SENDING && now >= 2000 * MS && r->pump.uring.fd >= 0) (void)close(r->pump.uring.fd);
        CHECK(tp_pump_tick(&r->pump, now) >= 0);
        outbox.used = outbox.n_outputs = 0;
        for (uint32_t i = 0; i < N; i++) {
            uint8_t flags = 0;
            int64_t due = tp_path_next_deadline(paths[i]);
            int64_t latest = due + (now - due) / PTIME_NS * PTIME_NS;
            if (due <= now) CHECK(tp_path_tick_many(&paths[i], 1, latest, &outbox, &flags) == 1);
            if (take_attention(r) != 0) return 1;
            tp_event event;
            while (tp_path_next_event(&r->members[i].path, &event) == 1) continue;
            while (tp_path_next_event(&by_hand[i].path, &event) == 1) continue;
        }
        for (uint32_t i = 0; i < N; i++) {
            if (compare_outputs(r, &outbox, i) != 0) return 1;
        }
        n_out += outbox.n_outputs;
    }
    CHECK((r->pump.uring.fd >= 0) == (rig_ring == RING_WHOLE));
    CHECK(n_out > 1500 && r->pump.counters.datagrams_out + r->pump.counters.messages_out == n_out);
    CHECK(r->pump.counters.datagrams_in > 500 && r->pump.counters.path_ticks > 800);
    for (uint32_t i = 0; i < N; i++) {
        CHECK(memcmp(&by_hand[i].path.counters, &r->members[i].path.counters, sizeof by_hand[i].path.counters) == 0);
        tp_path_close(&by_hand[i].path);
        free(by_hand[i].ring);
    }
    free(by_hand), free(outbox.bytes), free(outbox.outputs);
    return rig_close(r);
}

/* ---- frames that are not plain media ---- */

static int test_order_of_audio_and_control(void) {
    rig *r = rig_open(POOL_BLOCKS, 0);
    CHECK(r != NULL && add_call(r, 0, 0) == 0);
    member *m = &r->members[0];
    uint8_t bytes[4000], *scratch = malloc(TP_PUMP_SCRATCH_BYTES);
    size_t n = write_media(m, bytes, sizeof bytes, 1, 160);
    n += write_frame(bytes + n, TP_OPCODE_PING, "hello", 5);
    size_t behind = write_media(m, bytes + n, sizeof bytes - n, 2, 320);
    CHECK(send_all(m->peer_fd, bytes, n + behind) == 0);
    int ticked = 1;
    CHECK(tp_pump_step(&r->pump, 0, &ticked) == 1 && ticked == 0); /* Python attends first */
    CHECK(queued(r, 0) == 160);
    CHECK(take_attention(r) == 0 && r->n_attention == 1 && attention_of(r, 0, m->port) == TP_ATTEND_HELD);

    CHECK(send_all(m->peer_fd, bytes, write_media(m, bytes, sizeof bytes, 3, 80)) == 0);
    CHECK(read_all(r, 5 * MS) == 0 && queued(r, 0) == 160 && r->n_attention == 0); /* nothing overtakes what is held */

    tp_received report;
    int result = -1;
    CHECK(tp_pump_take_held(&r->pump, m->port, &report, &result, scratch, 3) == TP_E_ROOM);
    int64_t got = tp_pump_take_held(&r->pump, m->port, &report, &result, scratch, TP_PUMP_SCRATCH_BYTES);
    CHECK(got == (int64_t)(7 + behind) && result == TP_RECEIVED_OTHER && report.opcode == TP_OPCODE_PING);
    CHECK(report.consumed == 7 && report.offset == 2 && report.length == 5 && memcmp(scratch + 2, "hello", 5) == 0);
    CHECK(report.n_media == 1 && report.fin == 1);
    CHECK(tp_stream_receive(&m->stream, &report, scratch + 7, behind, 5 * MS) == TP_RECEIVED_ALL && report.consumed == behind);
    CHECK(read_all(r, 5 * MS) == 0 && queued(r, 0) == 480);
    CHECK(tp_pump_give(&r->pump, m->port, NULL, 0, 0) == TP_OK);
    CHECK(tp_pump_give(&r->pump, m->port, NULL, 0, 0) == TP_E_STATE);
    CHECK(read_all(r, 5 * MS) == 0 && queued(r, 0) == 560 && r->n_attention == 0);

    /* The first half of a frame goes back and its second half comes from the socket. */
    n = write_frame(bytes, TP_OPCODE_TEXT, "{\"event\":\"clear\"}", 17);
    behind = write_media(m, bytes + n, sizeof bytes - n, 4, 160);
    CHECK(send_all(m->peer_fd, bytes, n + 20) == 0 && read_all(r, 6 * MS) == 0);
    got = tp_pump_take_held(&r->pump, m->port, &report, &result, scratch, TP_PUMP_SCRATCH_BYTES);
    CHECK(got == (int64_t)n + 20 && report.consumed == n);
    CHECK(tp_pump_give(&r->pump, m->port, scratch + n, 20, (uint32_t)behind) == TP_OK);
    CHECK(read_all(r, 7 * MS) == 0 && queued(r, 0) == 560);
    CHECK(send_all(m->peer_fd, bytes + n + 20, behind - 20) == 0 && read_all(r, 8 * MS) == 0);
    CHECK(queued(r, 0) == 720 && r->n_attention == 0);
    free(scratch);
    return rig_close(r);
}

/* Audio, a control frame, audio and its beginning: the same, wherever the bytes were cut. */
static int test_every_split(void) {
    uint8_t bytes[4000], scratch[4000];
    member sizes;
    (void)stream_config(&sizes, TP_ROLE_PLATFORM);
    size_t first = write_media(&sizes, bytes, sizeof bytes, 1, 160);
    size_t n = first + write_frame(bytes + first, TP_OPCODE_TEXT, "{\"event\":\"mark\"}", 16);
    size_t whole = n + write_media(&sizes, bytes + n, sizeof bytes - n, 2, 80);
    for (size_t cut = 1; cut < whole; cut++) {
        rig *r = rig_open(POOL_BLOCKS, 0);
        CHECK(r != NULL && add_call(r, 0, 0) == 0);
        member *m = &r->members[0];
        uint32_t n_held = 0;
        for (int part = 0; part < 2; part++) {
            size_t from = part == 0 ? 0 : cut, to = part == 0 ? cut : whole;
            CHECK(send_all(m->peer_fd, bytes + from, to - from) == 0 && read_all(r, part) == 0);
            CHECK(queued(r, 0) == (to < first ? 0 : n_held ? 240 - 80 * (to < whole) : 160));
            if (attention_of(r, 0, m->port) == 0) continue;
            CHECK(to >= n && attention_of(r, 0, m->port) == TP_ATTEND_HELD && n_held++ == 0);
            tp_received report, rest;
            int result;
            int64_t got = tp_pump_take_held(&r->pump, m->port, &report, &result, scratch, sizeof scratch);
            CHECK(got >= 18 && result == TP_RECEIVED_OTHER && report.opcode == TP_OPCODE_TEXT && report.length == 16);
            CHECK(memcmp(scratch + report.offset, "{\"event\":\"mark\"}", 16) == 0 && (size_t)got == to - first);
            size_t left = (size_t)got - report.consumed;
            CHECK(tp_stream_receive(&m->stream, &rest, scratch + report.consumed, left, part) == TP_RECEIVED_ALL);
            left -= rest.consumed;
            CHECK(tp_pump_give(&r->pump, m->port, scratch + report.consumed + rest.consumed, left, rest.needed) == TP_OK);
        }
        CHECK(n_held == 1 && queued(r, 0) == 240);
        CHECK(rig_close(r) == 0);
    }
    return 0;
}

static int test_protocol_error(void) {
    rig *r = rig_open(POOL_BLOCKS, 0);
    CHECK(r != NULL && add_call(r, 0, 0) == 0);
    member *m = &r->members[0];
    uint8_t bytes[2000];
    size_t n = write_media(m, bytes, sizeof bytes, 1, 160);
    bytes[n] = 0xff; /* reserved bits */
    CHECK(send_all(m->peer_fd, bytes, n + 1) == 0 && read_all(r, 0) == 0);
    CHECK(attention_of(r, 0, m->port) == TP_ATTEND_PROTOCOL && r->attention[0].error == TP_PROTOCOL_HEADER);
    CHECK(queued(r, 0) == 160);
    CHECK(tp_pump_give(&r->pump, m->port, NULL, 0, 0) == TP_E_STATE);
    CHECK(send_all(m->peer_fd, bytes, n) == 0 && read_all(r, 0) == 0 && queued(r, 0) == 160 && r->n_attention == 0);
    n = write_frame(bytes, TP_OPCODE_CLOSE, "\x03\xea", 2); /* the goodbye still leaves */
    CHECK(tp_pump_send(&r->pump, m->port, bytes, n, 1) == 0);
    receive_all(r, m->peer_fd);
    CHECK(r->n_received == n);
    return rig_close(r);
}

static int test_long_frame(void) {
    rig *r = rig_open(POOL_BLOCKS, 0);
    CHECK(r != NULL && add_call(r, 0, 0) == 0);
    member *m = &r->members[0];
    size_t length = 100000;
    uint8_t *text = calloc(1, length), *bytes = malloc(length + 20), *out = malloc(TP_PUMP_SCRATCH_BYTES);
    size_t n = write_frame(bytes, TP_OPCODE_TEXT, text, length), sent = 0;
    tp_received report;
    int result;
    while (r->n_attention == 0) {
        CHECK(sent < n);
        size_t k = n - sent < 5000 ? n - sent : 5000;
        CHECK(send_all(m->peer_fd, bytes + sent, k) == 0 && read_all(r, 0) == 0);
        sent += k;
    }
    CHECK(attention_of(r, 0, m->port) == TP_ATTEND_HELD && sent > TP_PUMP_IN_MAX && sent < n);
    CHECK(tp_pump_take_held(&r->pump, m->port, &report, &result, out, TP_PUMP_SCRATCH_BYTES) == (int64_t)sent);
    CHECK(result == TP_RECEIVED_ALL && report.needed == n && report.consumed == 0 && memcmp(out, bytes, sent) == 0);
    CHECK(tp_pump_give(&r->pump, m->port, out, TP_PUMP_IN_MAX + 1, 0) == TP_E_FULL);
    CHECK(send_all(m->peer_fd, bytes + sent, n - sent) == 0 && read_all(r, 0) == 0 && r->n_attention == 0); /* still held */
    CHECK(recv(m->stream_fd, out, TP_PUMP_SCRATCH_BYTES, MSG_DONTWAIT) == (ssize_t)(n - sent)); /* Python collects it */
    CHECK(tp_pump_give(&r->pump, m->port, NULL, 0, 0) == TP_OK);
    CHECK(send_all(m->peer_fd, bytes, write_media(m, bytes, length, 1, 160)) == 0 && read_all(r, 0) == 0);
    CHECK(queued(r, 0) == 160 && r->n_attention == 0);

    /* One that may wait here is taken whole, when its last byte has come. */
    n = write_frame(bytes, TP_OPCODE_BINARY, text, 60000);
    for (sent = 0; sent < n; sent += 7500) {
        CHECK(r->n_attention == 0);
        CHECK(send_all(m->peer_fd, bytes + sent, n - sent < 7500 ? n - sent : 7500) == 0 && read_all(r, 0) == 0);
    }
    CHECK(tp_pump_take_held(&r->pump, m->port, &report, &result, out, TP_PUMP_SCRATCH_BYTES) == (int64_t)n);
    CHECK(result == TP_RECEIVED_OTHER && report.length == 60000 && report.opcode == TP_OPCODE_BINARY);
    free(text), free(bytes), free(out);
    return rig_close(r);
}

/* With nothing beyond its reserve a port reads on in small pieces, and what is too long for them is Python's. */
static int test_no_pool(void) {
    rig *r = rig_open(TP_PUMP_IN_RESERVE + TP_PUMP_OUT_RESERVE, 0);
    CHECK(r != NULL && add_call(r, 0, 0) == 0);
    CHECK(make_call(&r->pool, &r->members[1], 1, 0) == 0 && tp_pump_add_path(&r->pump, 1, &r->members[1].path) == TP_OK);
    CHECK(tp_pump_open_stream(&r->pump, 1, 0, r->members[0].peer_fd, &r->members[1].stream, 1, 0) == TP_E_FULL);
    member *m = &r->members[0];
    uint8_t bytes[8000], out[8000];
    for (int i = 0; i < 40; i++) CHECK(send_all(m->peer_fd, bytes, write_media(m, bytes, sizeof bytes, 1, 160)) == 0);
    CHECK(read_all(r, 0) == 0 && queued(r, 0) == 40 * 160 && r->n_attention == 0);
    size_t n = write_media(m, bytes, sizeof bytes, 1, 4000);
    CHECK(n > TP_PUMP_IN_RESERVE * TP_BLOCK_BYTES && send_all(m->peer_fd, bytes, n) == 0 && read_all(r, 0) == 0);
    CHECK(attention_of(r, 0, m->port) == TP_ATTEND_HELD);
    tp_received report;
    int result;
    CHECK(tp_pump_take_held(&r->pump, m->port, &report, &result, out, sizeof out) == TP_PUMP_IN_RESERVE * TP_BLOCK_BYTES);
    CHECK(result == TP_RECEIVED_ALL && report.needed == n);
    CHECK(tp_pump_give(&r->pump, m->port, out, TP_PUMP_IN_RESERVE * TP_BLOCK_BYTES + 1, (uint32_t)n) == TP_E_FULL);
    return rig_close(r);
}

/* ---- ends ---- */

static int test_end_and_break(void) {
    rig *r = rig_open(POOL_BLOCKS, 0);
    CHECK(r != NULL && add_call(r, 0, 0) == 0 && add_call(r, 1, 0) == 0);
    member *m = &r->members[0], *other = &r->members[1];
    uint8_t bytes[2000];
    CHECK(send_all(m->peer_fd, bytes, write_media(m, bytes, sizeof bytes, 1, 160)) == 0);
    close_fd(&m->peer_fd);
    CHECK(read_all(r, 0) == 0);
    CHECK(queued(r, 0) == 160); /* what was said before the end is heard */
    CHECK(attention_of(r, 0, m->port) == TP_ATTEND_ENDED && r->n_attention == 1);
    CHECK(tp_pump_send(&r->pump, m->port, bytes, 10, 1) == TP_E_STATE && tp_pump_flush(&r->pump, m->port) == TP_E_STATE);
    CHECK(read_all(r, 0) == 0 && r->n_attention == 0);

    /* A peer that goes away with our bytes unread resets the connection. */
    CHECK(tp_pump_tick(&r->pump, 20 * MS) >= 0 && take_attention(r) == 0);
    close_fd(&other->peer_fd);
    CHECK(read_all(r, 25 * MS) == 0);
    CHECK(attention_of(r, 1, other->port) == TP_ATTEND_BROKEN && r->attention[r->n_attention - 1].error == ECONNRESET);
    uint64_t n_sent = r->pump.counters.messages_out;
    CHECK(tp_pump_tick(&r->pump, 60 * MS) >= 0 && take_attention(r) == 0);
    CHECK(r->pump.counters.messages_out == n_sent); /* nothing is sent to the dead */
    CHECK(tp_pump_port(&r->pump, other->port)->dead == 1 && tp_pump_port(&r->pump, other->port)->out_bytes == 0);

    /* And one that is gone when we send. */
    CHECK(add_call(r, 2, 60 * MS) == 0);
    close_fd(&r->members[2].peer_fd);
    CHECK(tp_pump_tick(&r->pump, 80 * MS) >= 1 && take_attention(r) == 0);
    CHECK(attention_of(r, 2, r->members[2].port) == TP_ATTEND_BROKEN && r->attention[r->n_attention - 1].error == EPIPE);
    return rig_close(r);
}

static int test_reused_descriptor(void) {
    rig *r = rig_open(POOL_BLOCKS, 0);
    CHECK(r != NULL && add_call(r, 0, 0) == 0 && add_call(r, 1, 0) == 0);
    member *m = &r->members[0], *other = &r->members[1];
    uint8_t bytes[2000];
    uint32_t n_unread;
    int64_t old = m->port;
    /* In the right order: the port, the descriptor; the number comes back as another slot's. */
    CHECK(tp_pump_close_port(&r->pump, other->port, NULL, NULL, &n_unread) == 0);
    CHECK(tp_pump_close_port(&r->pump, old, NULL, NULL, &n_unread) == 0);
    CHECK(tp_pump_close_port(&r->pump, old, NULL, NULL, &n_unread) == TP_E_STATE && tp_pump_port(&r->pump, old) == NULL);
    int number = m->stream_fd;
    CHECK(dup3(other->stream_fd, number, O_CLOEXEC) == number);
    close_fd(&other->stream_fd);
    other->stream_fd = number;
    m->stream_fd = -1;
    other->port = tp_pump_open_stream(&r->pump, 1, 0, number, &other->stream, 1, 0);
    CHECK(tp_pump_give(&r->pump, other->port, NULL, 0, 0) == 0);
    CHECK((uint32_t)other->port == (uint32_t)old && other->port != old); /* the port's number comes back as well */
    CHECK(tp_pump_send(&r->pump, old, bytes, 1, 1) == TP_E_STATE);
    CHECK(send_all(other->peer_fd, bytes, write_media(other, bytes, sizeof bytes, 1, 160)) == 0 && read_all(r, 0) == 0);
    CHECK(queued(r, 0) == 0 && queued(r, 1) == 160 && r->n_attention == 0);

    /* In the wrong one: the descriptor is another slot's already when the old port is still there. */
    close_fd(&m->peer_fd);
    CHECK(open_stream(r, 0, 1, 0) == 0);
    number = m->stream_fd;
    CHECK(tp_pump_close_port(&r->pump, other->port, NULL, NULL, &n_unread) == 0);
    CHECK(dup3(other->stream_fd, number, O_CLOEXEC) == number);
    close_fd(&other->stream_fd);
    other->stream_fd = number;
    m->stream_fd = -1;
    other->port = tp_pump_open_stream(&r->pump, 1, 0, number, &other->stream, 1, 0);
    CHECK(tp_pump_give(&r->pump, other->port, NULL, 0, 0) == 0);
    CHECK(other->port > 0 && take_attention(r) == 0);
    CHECK(attention_of(r, 0, m->port) == TP_ATTEND_BROKEN && r->attention[0].error == EBADF);
    CHECK(tp_pump_close_port(&r->pump, m->port, NULL, NULL, &n_unread) == 0);
    CHECK(send_all(other->peer_fd, bytes, write_media(other, bytes, sizeof bytes, 1, 160)) == 0 && read_all(r, 0) == 0);
    CHECK(queued(r, 0) == 0 && queued(r, 1) == 320 && r->n_attention == 0);
    return rig_close(r);
}

static int test_reused_slot(void) {
    rig *r = rig_open(POOL_BLOCKS, 0);
    CHECK(r != NULL);
    uint8_t bytes[100];
    uint32_t generation = 0;
    for (int i = 0; i < 100; i++) { /* far more than the list of attention has room for */
        CHECK(add_call(r, 3, 0) == 0);
        member *m = &r->members[3];
        CHECK(r->pump.m.slots[3].generation != generation);
        generation = r->pump.m.slots[3].generation;
        tp_path_receive_digit(&m->path, '5');
        CHECK(send_all(m->peer_fd, bytes, write_frame(bytes, TP_OPCODE_PING, "", 0)) == 0);
        CHECK(tp_pump_read(&r->pump, 15 * MS) == 1 && tp_pump_tick(&r->pump, 15 * MS) == 2);
        CHECK(tp_pump_add_path(&r->pump, 3, &m->path) == TP_E_ARGUMENT);
        if (i % 2 == 0) {
            uint32_t n_unread;
            CHECK(tp_pump_close_port(&r->pump, m->port, NULL, bytes, &n_unread) == 0 && n_unread == 2);
            CHECK(r->pump.n_attention == 1);
        }
        if (i < 99) member_close(r, 3);
    }
    CHECK(take_attention(r) == 0 && r->n_attention == 2 && r->attention[0].what == TP_ATTEND_HELD);
    CHECK(attention_of(r, 3, 0) == TP_ATTEND_EVENTS && r->attention[1].generation == generation);
    tp_pump_remove(&r->pump, 3);
    tp_pump_remove(&r->pump, 3);
    CHECK(tp_pump_tick(&r->pump, 500 * MS) == 0 && r->pump.n_open_ports == 2 && r->pump.n_members == 0);
    /* Its ports are nobody's now, but still their owner's to close; nothing of it is moved or told. */
    CHECK(tp_pump_read(&r->pump, 505 * MS) == 0 && tp_pump_port(&r->pump, r->members[3].leg) != NULL);
    return rig_close(r);
}

/* ---- peers that do not read ---- */

static int shrink(int fd) {
    int bytes = 4096;
    CHECK(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes) == 0);
    return 0;
}

/* What arrives is whole messages, as many as were not dropped, and every control message. */
static int test_media_is_dropped_whole(void) {
    rig *r = rig_open(POOL_BLOCKS, 0);
    CHECK(r != NULL && add_call(r, 0, 0) == 0 && shrink(r->members[0].stream_fd) == 0);
    member *m = &r->members[0];
    const tp_port *port = tp_pump_port(&r->pump, m->port);
    static const uint8_t key[4] = {1, 2, 3, 4};
    uint32_t n_full = 0, n_text = 0;
    for (int64_t now = 0; now < 20000 * MS; now += 20 * MS) {
        CHECK(tp_pump_tick(&r->pump, now) >= 0 && take_attention(r) == 0);
        n_full += attention_of(r, 0, m->port) == TP_ATTEND_FULL;
        CHECK(port->out_bytes <= TP_PUMP_MEDIA_MAX + (n_text ? TP_PUMP_CONTROL_MAX : 0));
        CHECK(port->out_bytes == 0 || port->flushing);
        if (now > 10000 * MS && random_below(20) == 0) {
            uint8_t bytes[400] = {0};
            int head = tp_websocket_write_header(bytes, sizeof bytes, 1, TP_OPCODE_TEXT, 300, key);
            CHECK(tp_pump_send(&r->pump, m->port, bytes, (size_t)head + 300, 1) == (int)port->out_bytes);
            n_text++;
        }
        if (random_below(3) == 0) {
            ssize_t got = recv(m->peer_fd, r->received + r->n_received, random_below(400), MSG_DONTWAIT);
            if (got > 0) r->n_received += (size_t)got;
        }
        if (random_below(150) == 0) receive_all(r, m->peer_fd);
    }
    while (tp_pump_flush(&r->pump, m->port) > 0) receive_all(r, m->peer_fd);
    receive_all(r, m->peer_fd);
    frames found;
    CHECK(parse_frames(r, &found, true) == 0 && found.n_text == n_text && found.n_other == 0);
    CHECK(port->media_dropped > 50 && n_full > 1 && port->out_bytes == 0 && port->flushing == 0);
    CHECK(found.n_media + port->media_dropped == m->stream.counters.messages_out);
    CHECK(found.n_media == r->pump.counters.messages_out);
    return rig_close(r);
}

static int test_control_is_refused_whole(void) {
    rig *r = rig_open(POOL_BLOCKS, 0);
    CHECK(r != NULL && add_call(r, 0, 0) == 0 && shrink(r->members[0].stream_fd) == 0);
    member *m = &r->members[0];
    uint8_t text[1000] = {0}, bytes[1100];
    size_t n = write_frame(bytes, TP_OPCODE_TEXT, text, sizeof text), n_sent = 0;
    int waits;
    while ((waits = tp_pump_send(&r->pump, m->port, bytes, n, 1)) >= 0) n_sent++;
    const tp_port *port = tp_pump_port(&r->pump, m->port);
    CHECK(waits == TP_E_FULL && port->out_bytes > TP_PUMP_CONTROL_MAX && port->out_bytes <= TP_PUMP_CONTROL_MAX + TP_PUMP_MEDIA_MAX);
    CHECK(tp_pump_send(&r->pump, m->port, bytes, n, 0) == TP_E_FULL && port->media_dropped == 1);
    CHECK(take_attention(r) == 0 && r->n_attention == 0); /* whoever sent was told */
    receive_all(r, m->peer_fd);
    waits = (int)port->out_bytes;
    uint32_t n_unread;
    CHECK(tp_pump_close_port(&r->pump, m->port, r->received + r->n_received, NULL, &n_unread) == waits);
    r->n_received += (size_t)waits;
    frames found;
    CHECK(parse_frames(r, &found, false) == 0 && found.n_text == n_sent);
    return rig_close(r);
}

/* ---- bursts and strangers ---- */

static int test_burst(void) {
    rig *r = rig_open(POOL_BLOCKS, 0);
    CHECK(r != NULL && add_call(r, 0, 0) == 0);
    member *m = &r->members[0];
    uint8_t *bytes = malloc(400000);
    size_t n = 0;
    for (int i = 0; i < 500; i++) n += write_media(m, bytes + n, 400000 - n, (uint8_t)i, 160);
    int room = 1 << 20;
    CHECK(setsockopt(m->peer_fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room) == 0 && send_all(m->peer_fd, bytes, n) == 0);
    CHECK(read_all(r, 0) == 0 && queued(r, 0) == 80000 && r->n_attention == 0);
    CHECK(r->pump.counters.reads <= 2);
    free(bytes);
    return rig_close(r);
}

static int test_strangers(void) {
    rig *r = rig_open(POOL_BLOCKS, 0);
    CHECK(r != NULL && make_call(&r->pool, &r->members[0], 0, 0) == 0);
    member *m = &r->members[0];
    CHECK(tp_pump_add_path(&r->pump, 0, &m->path) == TP_OK && open_leg(r, 0, TP_SYMMETRIC_PORT, 0) == 0);
    struct sockaddr_in address;
    int stranger, moved;
    CHECK(bind_loopback(&stranger, &address) == 0 && bind_loopback(&moved, &address) == 0);
    uint8_t bytes[200];
    CHECK(send_rtp(m, m->caller_fd, bytes, write_rtp(m, bytes, 1)) == 0 && read_all(r, 0) == 0);
    for (int i = 0; i < 150; i++) CHECK(send_rtp(m, stranger, (const uint8_t *)"?", 1) == 0);
    CHECK(send_rtp(m, m->caller_fd, bytes, write_rtp(m, bytes, 1)) == 0 && read_all(r, 20 * MS) == 0);
    CHECK(m->latch.refused == 150 && m->path.counters.rtp_packets_in == 2 && r->n_attention == 0);
    /* The caller comes back from another port after a second of silence: heard and sent to from its third packet on. */
    for (int i = 0; i < 3; i++) {
        CHECK(send_rtp(m, stranger, (const uint8_t *)"?", 1) == 0);
        CHECK(send_rtp(m, moved, bytes, write_rtp(m, bytes, 1)) == 0);
    }
    CHECK(read_all(r, 1100 * MS) == 0 && attention_of(r, 0, m->leg) == TP_ATTEND_LEARNED);
    CHECK(m->latch.refused == 155 && m->path.counters.rtp_packets_in == 3);
    while (recv(m->caller_fd, bytes, sizeof bytes, MSG_DONTWAIT) >= 0) continue;
    CHECK(tp_pump_tick(&r->pump, 1100 * MS) >= 0 && recv(moved, bytes, sizeof bytes, MSG_DONTWAIT) == 172);
    CHECK(recv(m->caller_fd, bytes, sizeof bytes, MSG_DONTWAIT) < 0);
    close_fd(&stranger);
    close_fd(&moved);
    m->latch.source.port = 0; /* what cannot be sent is counted and the call goes on */
    CHECK(tp_pump_tick(&r->pump, 1120 * MS) >= 0 && tp_pump_port(&r->pump, m->leg)->send_failures == 1);
    CHECK(tp_pump_port(&r->pump, m->leg)->dead == 0 && take_attention(r) == 0 && attention_of(r, 0, m->leg) == 0);
    return rig_close(r);
}

static int test_ipv6_leg(void) {
    rig *r = rig_open(POOL_BLOCKS, 0);
    CHECK(r != NULL && make_call(&r->pool, &r->members[0], 0, 0) == 0);
    member *m = &r->members[0];
    CHECK(tp_pump_add_path(&r->pump, 0, &m->path) == TP_OK);
    struct sockaddr_in6 ours = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT}, theirs = ours;
    socklen_t n = sizeof ours;
    m->leg_fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    m->caller_fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (m->leg_fd < 0 || bind(m->leg_fd, (struct sockaddr *)&ours, n) != 0) return rig_close(r); /* a system without IPv6 */
    CHECK(bind(m->caller_fd, (struct sockaddr *)&theirs, n) == 0 && getsockname(m->leg_fd, (struct sockaddr *)&ours, &n) == 0);
    tp_latch_init(&m->latch, TP_SYMMETRIC_ANY, 0);
    tp_latch_expect(&m->latch, NULL, 0);
    m->leg = tp_pump_open_leg(&r->pump, 0, m->leg_fd, 6, &m->latch, 0);
    CHECK(m->leg > 0);
    uint8_t bytes[200];
    CHECK(tp_pump_tick(&r->pump, 0) >= 0); /* nobody is known: nothing is sent */
    CHECK(r->pump.counters.datagrams_out == 0 && tp_pump_port(&r->pump, m->leg)->send_failures == 0);
    for (int i = 0; i < 3; i++) {
        size_t k = write_rtp(m, bytes, 1);
        CHECK(sendto(m->caller_fd, bytes, k, 0, (struct sockaddr *)&ours, sizeof ours) == (ssize_t)k);
    }
    CHECK(read_all(r, 10 * MS) == 0 && attention_of(r, 0, m->leg) == TP_ATTEND_LEARNED && m->latch.source.ip_bytes == 16);
    CHECK(tp_pump_tick(&r->pump, 20 * MS) >= 0 && recv(m->caller_fd, bytes, sizeof bytes, MSG_DONTWAIT) == 172);
    return rig_close(r);
}

/* ---- streams without a port ---- */

static int test_handover(void) {
    rig *r = rig_open(POOL_BLOCKS, 0);
    CHECK(r != NULL && make_call(&r->pool, &r->members[0], 0, 0) == 0);
    member *m = &r->members[0];
    CHECK(tp_pump_add_path(&r->pump, 0, &m->path) == TP_OK && open_leg(r, 0, TP_SYMMETRIC_NO, 0) == 0);
    CHECK(tp_pump_take_handover(&r->pump) == -1);
    for (int64_t now = 0; now < 60 * MS; now += 20 * MS) CHECK(tp_pump_tick(&r->pump, now) == 0);
    for (uint32_t round = 0; round < 2; round++) {
        int which = tp_pump_take_handover(&r->pump);
        CHECK(which == 0); /* without a thread one of the two is enough */
        const tp_outbox *box = &r->pump.handover[which];
        CHECK(box->n_outputs == (round == 0 ? 3 : HANDOVER_OUTPUTS));
        for (uint32_t i = 0; i < box->n_outputs; i++) {
            CHECK(box->outputs[i].slot == 0 && box->outputs[i].kind == TP_OUTPUT_MESSAGE && box->outputs[i].stream == 0);
            memcpy(r->received + r->n_received, box->bytes + box->outputs[i].offset, box->outputs[i].length);
            r->n_received += box->outputs[i].length;
        }
        if (round != 0) break;
        for (int64_t now = 60 * MS; now < 260 * MS; now += 20 * MS) CHECK(tp_pump_tick(&r->pump, now) == 0);
        CHECK(r->pump.counters.handover_dropped == 10 - HANDOVER_OUTPUTS);
        CHECK(r->pump.m.slots[0].handover_dropped == 10 - HANDOVER_OUTPUTS);
        CHECK(r->pump.counters.datagrams_out == 13); /* RTP does not wait for Python */
    }
    frames found;
    CHECK(parse_frames(r, &found, true) == 0 && found.n_media == 3 + HANDOVER_OUTPUTS);
    CHECK(tp_pump_take_handover(&r->pump) == -1);
    return rig_close(r);
}

/* ---- lines ---- */

/* More than a sixteenth of its room: the members that are left are ticked when that has been taken, at the same time. */
static int test_much_to_hand_over(void) {
    enum { OUTPUTS = 16 * N_SLOTS, BYTES = 512 * OUTPUTS };
    rig *r = rig_open(N_SLOTS * 60, 0);
    CHECK(r != NULL);
    uint8_t *bytes = malloc(BYTES);
    tp_output *outputs = malloc(OUTPUTS * sizeof *outputs);
    CHECK(bytes != NULL && outputs != NULL);
    r->pump.handover[0] = (tp_outbox){.bytes = bytes, .outputs = outputs, .capacity = BYTES, .outputs_capacity = OUTPUTS};
    for (uint32_t i = 0; i < N_SLOTS; i++) {
        CHECK(make_call(&r->pool, &r->members[i], i, 0) == 0);
        CHECK(tp_pump_add_path(&r->pump, i, &r->members[i].path) == TP_OK);
    }
    uint32_t heard[N_SLOTS] = {0}, takes = 0;
    int64_t now = 60 * MS;
    do {
        CHECK(tp_pump_tick(&r->pump, now) == 0);
        int which = tp_pump_take_handover(&r->pump);
        CHECK(which == 0 && takes < N_SLOTS);
        takes++;
        for (uint32_t i = 0; i < r->pump.handover[0].n_outputs; i++) heard[outputs[i].slot]++;
    } while (r->pump.next_due <= now);
    CHECK(takes > 1 && r->pump.counters.handover_dropped == 0);
    for (uint32_t i = 0; i < N_SLOTS; i++) {
        CHECK(heard[i] == r->members[i].path.counters.ticks && heard[i] != 0 && r->members[i].path.deadline > now);
    }
    free(bytes), free(outputs);
    return rig_close(r);
}

static int test_line(void) {
    rig *r = rig_open(POOL_BLOCKS, 0);
    CHECK(r != NULL && add_line(r, 2, 0) == 0);
    member *m = &r->members[2];
    uint8_t bytes[16000];
    tp_event event;
    memset(bytes, 5, sizeof bytes);
    /* What is heard: one attention, however many messages. */
    for (int i = 0; i < 3; i++) {
        CHECK(send_all(m->peer_fd, r->received, write_media(m, r->received, 2000, 1, 160)) == 0);
        CHECK(tp_pump_read(&r->pump, 0) == 1);
    }
    CHECK(take_attention(r) == 0 && attention_of(r, 2, 0) == TP_ATTEND_EVENTS);
    CHECK(tp_stream_next_event(&m->stream, &event) == 1 && event.kind == TP_EVENT_AUDIO);
    CHECK(tp_stream_track_written(&m->stream, TP_TRACK_INBOUND) == 480);

    /* What is said: a second, a checkpoint, a second; nothing passes the checkpoint until Python has sent it. */
    CHECK(tp_stream_play(&m->stream, m->config.format, bytes, 8000) == 8000 && tp_stream_mark(&m->stream, 41) == TP_OK);
    CHECK(tp_stream_play(&m->stream, m->config.format, bytes, 8000) == 8000);
    CHECK(tp_pump_tick(&r->pump, 5 * MS) == 0 && r->pump.next_due == INT64_MAX); /* nobody said that there is something */
    tp_pump_rearm(&r->pump, 2, 5 * MS);
    CHECK(r->pump.next_due == 5 * MS && tp_pump_tick(&r->pump, 5 * MS) == 1);
    CHECK(take_attention(r) == 0 && attention_of(r, 2, 0) == TP_ATTEND_EVENTS);
    CHECK(m->stream.sent == 8000 && r->pump.next_due == INT64_MAX && tp_pump_tick(&r->pump, 50 * MS) == 0);
    CHECK(tp_stream_next_event(&m->stream, &event) == 1 && event.kind == TP_EVENT_MARK_DUE && event.id == 41);
    size_t n = write_frame(r->received + 100000, TP_OPCODE_TEXT, "{\"mark\"}", 8);
    CHECK(tp_pump_send(&r->pump, m->port, r->received + 100000, n, 1) == 0);
    tp_pump_rearm(&r->pump, 2, 50 * MS);
    CHECK(tp_pump_tick(&r->pump, 50 * MS) == 0 && m->stream.sent == 16000 && r->pump.next_due == INT64_MAX);
    receive_all(r, m->peer_fd);
    uint8_t *mark = memmem(r->received, r->n_received, "{\"mark\"}", 8);
    CHECK(mark != NULL);
    size_t before = (size_t)(mark - r->received);
    CHECK(before > r->n_received / 3 && before < r->n_received / 3 * 2);
    return rig_close(r);
}

/* A piece that is said leaves in the next turn, whoever has looked at the line meanwhile. */
static int test_line_says(void) {
    rig *r = rig_open(POOL_BLOCKS, 0);
    CHECK(r != NULL && add_call(r, 0, 0) == 0 && add_line(r, 1, 0) == 0);
    member *m = &r->members[1];
    int16_t pcm[160] = {0};
    CHECK(tp_pump_tick(&r->pump, 3600000 * MS) >= 0);
    for (int i = 1; i <= 3; i++) {
        int64_t now = (3600000 + 5 * i) * MS;
        CHECK(tp_pump_say(&r->pump, 1, 0, pcm, sizeof pcm) == 1 && r->pump.next_due == now);
        CHECK(tp_pump_tick(&r->pump, now) >= 0 && m->stream.sent == 160u * (unsigned)i);
    }
    receive_all(r, m->peer_fd);
    frames found;
    CHECK(parse_frames(r, &found, true) == 0 && found.n_media == 3);
    CHECK(tp_pump_say(&r->pump, 0, 0, pcm, sizeof pcm) == 0 && tp_pump_say(&r->pump, 2, 0, pcm, sizeof pcm) == 0);
    return rig_close(r);
}

/* What many lines say in one turn is what each would have said alone; one whose peer does not read holds up none. */
static int test_lines_leave_together(void) {
    enum { N = 7, SLOW = 1, TURNS = 800 };
    rig *r = rig_open(POOL_BLOCKS, 0);
    member *by_hand = calloc(N, sizeof *by_hand);
    uint8_t bytes[8000], *expected[N];
    tp_output outputs[64];
    size_t n_expected[N] = {0};
    CHECK(r != NULL && by_hand != NULL && add_call(r, 0, 0) == 0);
    for (uint32_t i = SLOW; i < N; i++) {
        CHECK(add_line(r, i, 0) == 0 && (expected[i] = malloc(RECEIVED_BYTES)) != NULL);
        CHECK(tp_stream_init(&by_hand[i].stream, &r->pool, &r->members[i].config, 0, 0) == TP_OK);
    }
    CHECK(shrink(r->members[SLOW].stream_fd) == 0);
    const tp_port *slow = tp_pump_port(&r->pump, r->members[SLOW].port);
    uint32_t n_slow = 0;
    for (int64_t now = 0; now < 5 * TURNS * MS; now += 5 * MS) {
        for (uint32_t i = SLOW; i < N; i++) {
            size_t n = now > 5 * (TURNS - 400) * MS ? 0 : random_below(300) == 0 ? 8000 : random_below(4) == 0 ? random_below(400) : 0;
            memset(bytes, (int)random_below(256), sizeof bytes);
            CHECK(tp_stream_play(&r->members[i].stream, r->members[i].config.format, bytes, n) == (ptrdiff_t)n);
            CHECK(tp_stream_play(&by_hand[i].stream, r->members[i].config.format, bytes, n) == (ptrdiff_t)n);
            if (n != 0) tp_pump_rearm(&r->pump, i, now);
            tp_outbox out = {.bytes = expected[i] + n_expected[i], .outputs = outputs, .outputs_capacity = 64,
                             .capacity = (uint32_t)(RECEIVED_BYTES - n_expected[i])};
            CHECK(tp_stream_tick(&by_hand[i].stream, i, now, &out) >= 0);
            n_expected[i] += out.used;
        }
        CHECK(tp_pump_tick(&r->pump, now) >= 0 && take_attention(r) == 0);
        if (slow->out_bytes != 0) CHECK(r->pump.m.due[SLOW] == now + 5 * MS && ++n_slow != 0);
    }
    CHECK(n_slow > 100 && r->members[SLOW].stream.sent < by_hand[SLOW].stream.sent);
    uint64_t n_messages = r->members[0].stream.counters.messages_out - tp_pump_port(&r->pump, r->members[0].port)->media_dropped;
    for (uint32_t i = SLOW; i < N; i++) {
        n_messages += r->members[i].stream.counters.messages_out;
        CHECK(i == SLOW || r->members[i].stream.sent == by_hand[i].stream.sent);
        r->n_received = 0;
        receive_all(r, r->members[i].peer_fd);
        CHECK(r->n_received <= n_expected[i] && (i == SLOW || r->n_received == n_expected[i]));
        if (i != SLOW) CHECK(memcmp(r->received, expected[i], n_expected[i]) == 0);
        tp_stream_close(&by_hand[i].stream, 0);
        while (tp_stream_next_event(&by_hand[i].stream, &(tp_event){0}) == 1) continue;
        free(expected[i]);
    }
    CHECK(r->pump.counters.messages_out == n_messages);
    free(by_hand);
    return rig_close(r);
}

static int test_line_waits_for_its_peer(void) {
    rig *r = rig_open(POOL_BLOCKS, 0);
    CHECK(r != NULL && add_line(r, 0, 0) == 0 && shrink(r->members[0].stream_fd) == 0);
    member *m = &r->members[0];
    const tp_port *port = tp_pump_port(&r->pump, m->port);
    uint8_t bytes[8000];
    memset(bytes, 5, sizeof bytes);
    for (int i = 0; i < 40; i++) CHECK(tp_stream_play(&m->stream, m->config.format, bytes, 8000) == 8000);
    tp_pump_rearm(&r->pump, 0, 0);
    CHECK(tp_pump_tick(&r->pump, 0) > 0 && take_attention(r) == 0 && attention_of(r, 0, m->port) == TP_ATTEND_FULL);
    CHECK(m->stream.sent > 0 && m->stream.sent < 320000 && port->out_bytes > 0 && port->out_bytes <= TP_PUMP_SPEECH_MAX);
    uint64_t sent = m->stream.sent;
    CHECK(tp_pump_tick(&r->pump, 4 * MS) == 0 && tp_pump_tick(&r->pump, 5 * MS) == 0 && m->stream.sent == sent);
    for (int64_t now = 10 * MS; now < 4000 * MS; now += 5 * MS) {
        receive_all(r, m->peer_fd);
        CHECK(tp_pump_tick(&r->pump, now) >= 0 && take_attention(r) == 0 && port->out_bytes <= TP_PUMP_SPEECH_MAX);
    }
    receive_all(r, m->peer_fd);
    CHECK(m->stream.sent == 320000 && port->out_bytes == 0 && port->media_dropped == 0 && port->flushing == 0);
    frames found;
    CHECK(parse_frames(r, &found, true) == 0 && found.n_media == m->stream.counters.messages_out && found.n_text == 0);
    return rig_close(r);
}

/* ---- cipher ports ---- */

/* The cipher of these tests: every byte turned over. */
static void turn_over(uint8_t *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) bytes[i] ^= 0xff;
}

/* What Python does after the read half: all entries at once, or (`pieces`) each in two. -> entries, < 0: failed */
static int decipher(rig *r, bool pieces, int64_t now) {
    uint32_t n, lengths[N_PORTS];
    int which = tp_pump_take_cipher(&r->pump, &n);
    if (which < 0) return 0;
    uint8_t *bytes = r->memory.cipher_bytes[which];
    const tp_cipher *entries = r->memory.cipher_entries[which];
    size_t at = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (entries[i].offset != at) return -1; /* they lie behind one another */
        lengths[i] = entries[i].length;
        at += lengths[i];
    }
    turn_over(bytes, at);
    if (!pieces) {
        tp_pump_receive_many(&r->pump, 0, n, lengths, now);
        return (int)n;
    }
    for (uint32_t i = 0; i < n; i++) {
        uint32_t half = entries[i].length / 2;
        if (tp_pump_receive(&r->pump, (int64_t)entries[i].port, bytes + entries[i].offset, half, now) != TP_OK) return -1;
        if (tp_pump_receive(&r->pump, (int64_t)entries[i].port, bytes + entries[i].offset + half, lengths[i] - half, now) < 0) {
            return -1;
        }
    }
    return (int)n;
}

/* And after the tick half. -> outputs */
static int encrypt(rig *r) {
    int which = tp_pump_take_handover(&r->pump);
    if (which < 0) return 0;
    const tp_outbox *box = &r->pump.handover[which];
    uint32_t lengths[HANDOVER_OUTPUTS];
    for (uint32_t i = 0; i < box->n_outputs; i++) {
        if (box->outputs[i].kind != TP_OUTPUT_CIPHER) return -1;
        lengths[i] = box->outputs[i].length;
    }
    turn_over(box->bytes, box->used);
    tp_pump_send_many(&r->pump, 0, box->n_outputs, lengths, box->bytes);
    return (int)box->n_outputs;
}

static int send_cipher(int fd, const uint8_t *bytes, size_t n) {
    uint8_t *cipher = malloc(n);
    CHECK(cipher != NULL);
    memcpy(cipher, bytes, n);
    turn_over(cipher, n);
    int failed = send_all(fd, cipher, n);
    free(cipher);
    return failed;
}

/* A plain call and one whose bytes are turned over say and hear the same, whatever a message is cut into. */
static int test_cipher_is_the_same(void) {
    rig *r = rig_open(POOL_BLOCKS, 0);
    CHECK(r != NULL && add_call(r, 0, 0) == 0 && add_call_with(r, 4, TP_STREAM_LIVE | TP_STREAM_CIPHER, 0) == 0);
    member *plain = &r->members[0], *tls = &r->members[4]; /* of the same phase */
    uint8_t bytes[8000], datagram[2000], theirs[2000];
    size_t unsent = 0;
    for (int64_t now = 0; now < 4000 * MS; now += 5 * MS) {
        if (now % (20 * MS) == 0) {
            unsent += write_media(plain, bytes + unsent, sizeof bytes - unsent, (uint8_t)(now / MS), 160);
        }
        size_t n = unsent - (unsent > 0 ? random_below((uint32_t)unsent) : 0);
        CHECK(send_all(plain->peer_fd, bytes, n) == 0 && send_cipher(tls->peer_fd, bytes, n) == 0);
        memmove(bytes, bytes + n, unsent - n);
        unsent -= n;
        CHECK(tp_pump_read(&r->pump, now) == 0 && decipher(r, now % (10 * MS) == 0, now) == (n != 0));
        CHECK(queued(r, 0) == queued(r, 4));
        CHECK(tp_pump_tick(&r->pump, now) >= 0 && encrypt(r) >= 0 && take_attention(r) == 0);
    }
    CHECK(plain->path.counters.ticks > 100 && tp_pump_port(&r->pump, tls->port)->handed == 0);
    for (int i = 0; i < 150; i++) {
        ssize_t got = recv(plain->caller_fd, datagram, sizeof datagram, MSG_DONTWAIT);
        CHECK(recv(tls->caller_fd, theirs, sizeof theirs, MSG_DONTWAIT) == got && got == 172);
        CHECK(memcmp(datagram + 12, theirs + 12, 160) == 0);
    }
    frames found, turned;
    receive_all(r, plain->peer_fd);
    CHECK(parse_frames(r, &found, true) == 0);
    receive_all(r, tls->peer_fd);
    turn_over(r->received, r->n_received);
    CHECK(parse_frames(r, &turned, true) == 0 && turned.n_media == found.n_media && found.n_media > 100);
    return rig_close(r);
}

/* Between a recv and its plaintext nothing more is read; a held port takes no plaintext; the end comes when it is said. */
static int test_cipher_is_held(void) {
    rig *r = rig_open(POOL_BLOCKS, 0);
    CHECK(r != NULL && add_call_with(r, 0, TP_STREAM_LIVE | TP_STREAM_CIPHER, 0) == 0);
    member *m = &r->members[0];
    tp_received report;
    int result, ticked;
    uint32_t n_entries;
    uint8_t bytes[2000], out[2000];
    size_t n = write_media(m, bytes, sizeof bytes, 1, 160);
    CHECK(send_cipher(m->peer_fd, bytes, n) == 0);
    CHECK(tp_pump_step(&r->pump, 0, &ticked) == 0 && ticked == 0 && r->pump.n_cipher == 1);
    CHECK(send_cipher(m->peer_fd, bytes, n) == 0 && tp_pump_read(&r->pump, 0) == 0 && r->pump.n_cipher == 1);
    CHECK(decipher(r, false, 0) == 1 && queued(r, 0) == 160);
    CHECK(tp_pump_read(&r->pump, 0) == 0 && decipher(r, false, 0) == 1 && queued(r, 0) == 320);
    CHECK(tp_pump_take_cipher(&r->pump, &n_entries) == -1 && n_entries == 0);

    size_t held = write_frame(bytes + n, TP_OPCODE_TEXT, "{\"event\":\"mark\"}", 16);
    CHECK(send_cipher(m->peer_fd, bytes, n + held) == 0 && tp_pump_read(&r->pump, 0) == 0 && decipher(r, false, 0) == 1);
    CHECK(take_attention(r) == 0 && attention_of(r, 0, m->port) == TP_ATTEND_HELD && queued(r, 0) == 480);
    CHECK(tp_pump_receive(&r->pump, m->port, bytes, n, 0) == TP_E_STATE && queued(r, 0) == 480);
    CHECK(send_cipher(m->peer_fd, bytes, n) == 0 && tp_pump_read(&r->pump, 0) == 0 && r->pump.n_cipher == 0);
    CHECK(tp_pump_take_held(&r->pump, m->port, &report, &result, out, sizeof out) == (int64_t)held && report.length == 16);
    CHECK(tp_pump_give(&r->pump, m->port, NULL, 0, 0) == TP_OK);
    CHECK(tp_pump_read(&r->pump, 0) == 0 && decipher(r, false, 0) == 1);
    CHECK(write_media(m, bytes, sizeof bytes, 1, 160) == n && queued(r, 0) == 640);
    CHECK(tp_pump_end(&r->pump, m->port) == TP_OK && take_attention(r) == 0);
    CHECK(attention_of(r, 0, m->port) == TP_ATTEND_ENDED && tp_pump_end(&r->pump, m->port) == TP_E_STATE);
    CHECK(tp_pump_receive(&r->pump, m->port, bytes, n, 0) == TP_E_STATE);
    return rig_close(r);
}

/* More than the arena holds is read by and by; a port that was closed meanwhile gets nothing. */
static int test_cipher_arena(void) {
    rig *r = rig_open(POOL_BLOCKS, 0);
    CHECK(r != NULL);
    uint8_t *bytes = malloc(60000);
    for (uint32_t i = 0; i < 3; i++) {
        CHECK(add_call_with(r, i, TP_STREAM_LIVE | TP_STREAM_CIPHER, 0) == 0);
        size_t n = 0;
        while (n < 50000) n += write_media(&r->members[i], bytes + n, 60000 - n, 1, 160);
        CHECK(send_cipher(r->members[i].peer_fd, bytes, n) == 0);
    }
    free(bytes);
    CHECK(tp_pump_read(&r->pump, 0) == 0 && r->pump.n_cipher == 1 && r->pump.cipher_used > 50000);
    CHECK(decipher(r, false, 0) == 1 && tp_pump_read(&r->pump, 0) == 0);
    uint32_t n_unread;
    uint64_t other = r->memory.cipher_entries[r->pump.cipher_filling][0].port;
    for (uint32_t i = 0; i < 3; i++) {
        if ((uint64_t)r->members[i].port != other) continue;
        CHECK(tp_pump_close_port(&r->pump, r->members[i].port, NULL, NULL, &n_unread) == 0 && queued(r, i) == 0);
        CHECK(decipher(r, false, 0) == 1 && queued(r, i) == 0);
    }
    CHECK(tp_pump_read(&r->pump, 0) == 0 && decipher(r, false, 0) == 1);
    uint64_t all = queued(r, 0) + queued(r, 1) + queued(r, 2);
    CHECK(all > 2 * 20000 && all % 160 == 0);
    return rig_close(r);
}

/* Towards a peer that does not read: media is dropped before it is encrypted, cipher never. */
static int test_cipher_is_never_dropped(void) {
    rig *r = rig_open(POOL_BLOCKS, 0);
    CHECK(r != NULL && add_call_with(r, 0, TP_STREAM_LIVE | TP_STREAM_CIPHER, 0) == 0);
    member *m = &r->members[0];
    CHECK(shrink(m->stream_fd) == 0);
    const tp_port *port = tp_pump_port(&r->pump, m->port);
    uint32_t n_full = 0;
    for (int64_t now = 0; now < 20000 * MS; now += 20 * MS) {
        CHECK(tp_pump_tick(&r->pump, now) >= 0 && encrypt(r) >= 0 && take_attention(r) == 0);
        n_full += attention_of(r, 0, m->port) == TP_ATTEND_FULL;
    }
    CHECK(port->media_dropped > 100 && port->out_bytes > 0 && port->out_bytes <= TP_PUMP_MEDIA_MAX && n_full == 1);
    uint8_t *more = calloc(1, TP_PUMP_CIPHER_MAX);
    uint32_t waits = port->out_bytes;
    CHECK(more != NULL && tp_pump_send(&r->pump, m->port, more, 100000, TP_SEND_CIPHER) == (int)waits + 100000);
    uint8_t *waiting = malloc(TP_PUMP_CIPHER_MAX);
    CHECK(tp_pump_send(&r->pump, m->port, more, TP_PUMP_CIPHER_MAX - 100000, TP_SEND_CIPHER) == TP_E_STATE); /* too much */
    CHECK(take_attention(r) == 0 && attention_of(r, 0, m->port) == TP_ATTEND_BROKEN && r->attention[0].error == ENOBUFS);

    CHECK(add_call_with(r, 1, TP_STREAM_LIVE | TP_STREAM_CIPHER, 0) == 0 && shrink(r->members[1].stream_fd) == 0);
    m = &r->members[1];
    CHECK(tp_pump_send(&r->pump, m->port, more, 100000, TP_SEND_CIPHER) > 0);
    port = tp_pump_port(&r->pump, m->port);
    uint32_t n_unread;
    waits = port->out_bytes;
    receive_all(r, m->peer_fd);
    CHECK(tp_pump_close_port(&r->pump, m->port, waiting, NULL, &n_unread) == (int64_t)waits);
    CHECK(waits + r->n_received == 100000);
    r->n_received = 0;
    free(more), free(waiting);
    return rig_close(r);
}

/* A line's speech over a hand-over far smaller than it, to a peer that reads slowly: all of it, in order. */
static int test_cipher_line(void) {
    rig *r = rig_open(POOL_BLOCKS, 0);
    CHECK(r != NULL && add_line_with(r, 0, TP_STREAM_CIPHER, 0) == 0 && shrink(r->members[0].stream_fd) == 0);
    CHECK(add_line_with(r, 1, TP_STREAM_CIPHER, 0) == 0);
    uint8_t bytes[8000];
    memset(bytes, 5, sizeof bytes);
    for (uint32_t i = 0; i < 2; i++) {
        member *m = &r->members[i];
        for (int k = 0; k < 10; k++) CHECK(tp_stream_play(&m->stream, m->config.format, bytes, 8000) == 8000);
        tp_pump_rearm(&r->pump, i, 0);
    }
    CHECK(tp_pump_tick(&r->pump, 0) == 0);
    uint64_t sent = r->members[0].stream.sent;
    CHECK(sent > 0 && sent < 80000);
    CHECK(tp_pump_tick(&r->pump, 5 * MS) == 0 && r->members[0].stream.sent == sent); /* it is still on its way */
    size_t n[2] = {0, 0};
    uint8_t *heard[2] = {malloc(RECEIVED_BYTES), malloc(RECEIVED_BYTES)};
    for (int64_t now = 10 * MS; now < 4000 * MS; now += 5 * MS) {
        CHECK(encrypt(r) >= 0 && tp_pump_tick(&r->pump, now) >= 0 && take_attention(r) == 0);
        for (uint32_t i = 0; i < 2; i++) {
            ssize_t got = recv(r->members[i].peer_fd, heard[i] + n[i], 2000, MSG_DONTWAIT);
            n[i] += got > 0 ? (size_t)got : 0;
        }
    }
    for (uint32_t i = 0; i < 2; i++) {
        frames found;
        CHECK(r->members[i].stream.sent == 80000 && r->pump.m.slots[i].handover_dropped == 0);
        memcpy(r->received, heard[i], n[i]);
        r->n_received = n[i];
        turn_over(r->received, n[i]);
        CHECK(parse_frames(r, &found, true) == 0 && found.n_media == r->members[i].stream.counters.messages_out);
        free(heard[i]);
    }
    return rig_close(r);
}

/* ---- time, and what cannot be ---- */

static int test_stuck(void) {
    rig *r = rig_open(POOL_BLOCKS, 0);
    CHECK(r != NULL && add_call(r, 0, 0) == 0 && add_line(r, 1, 0) == 0);
    r->pump.outbox.capacity = 100;
    uint8_t bytes[800] = {0};
    CHECK(tp_stream_play(&r->members[1].stream, r->members[1].config.format, bytes, 800) == 800);
    tp_pump_rearm(&r->pump, 1, 0);
    CHECK(tp_pump_tick(&r->pump, 0) == 2 && take_attention(r) == 0);
    CHECK(attention_of(r, 0, 0) == TP_ATTEND_STUCK && attention_of(r, 1, 0) == TP_ATTEND_STUCK);
    CHECK(tp_pump_tick(&r->pump, 1000 * MS) == 0);
    return rig_close(r);
}

/* Ticks that were missed are made up to 60 ms and skipped beyond, in one turn, however far the clock has jumped. */
static int test_clock_jump(void) {
    rig *r = rig_open(POOL_BLOCKS, 0);
    CHECK(r != NULL && add_call(r, 0, 0) == 0);
    member *m = &r->members[0];
    CHECK(tp_pump_tick(&r->pump, 0) == 0 && m->path.counters.ticks == 1);
    CHECK(tp_pump_tick(&r->pump, 79 * MS) == 0 && m->path.counters.ticks == 4 && m->path.counters.loop_stall_samples == 0);
    CHECK(tp_pump_tick(&r->pump, 3600000 * MS) == 0 && m->path.counters.ticks == 5);
    CHECK(tp_path_next_deadline(&m->path) == 3600020 * MS && r->pump.next_due == 3600020 * MS);
    CHECK(r->pump.counters.stalls == 0 && r->pump.counters.late_max_ns == 0); /* nothing is measured without an origin */
    return rig_close(r);
}

static int test_measures(void) {
    struct timespec at;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &at) == 0);
    rig *r = rig_open(POOL_BLOCKS, (int64_t)at.tv_sec * 1000 * MS + at.tv_nsec - 500 * MS);
    CHECK(r != NULL && add_call(r, 1, 0) == 0);
    const tp_pump_counters *counters = &r->pump.counters;
    int ticked;
    CHECK(tp_pump_step(&r->pump, 5 * MS, &ticked) >= 0 && counters->stalls == 0 && counters->busy_ns > 0);
    CHECK(counters->late_max_ns >= 495 * MS && r->pump.lateness[1][TP_PUMP_LATENESS_BUCKETS - 1] == 1);
    CHECK(tp_pump_step(&r->pump, 45 * MS, &ticked) >= 0 && counters->stalls == 0 && counters->turns == 2);
    CHECK(tp_pump_step(&r->pump, 86 * MS, &ticked) >= 0 && counters->stalls == 1);
    return rig_close(r);
}

static int test_arguments(void) {
    tp_pump none = {0};
    tp_pump_memory memory = {0};
    rig *r = rig_open(POOL_BLOCKS, 0);
    CHECK(r != NULL && tp_pump_open(&none, &memory, 0) == TP_E_ARGUMENT);
    tp_pump_close(&none);
    CHECK(add_call(r, 0, 0) == 0);
    member *m = &r->members[0];
    CHECK(tp_pump_add_path(&r->pump, N_SLOTS, &m->path) == TP_E_ARGUMENT && tp_pump_add_line(&r->pump, 1, NULL) == TP_E_ARGUMENT);
    CHECK(tp_pump_open_leg(&r->pump, 0, m->caller_fd, 4, &m->latch, 0) == TP_E_ARGUMENT); /* it has one */
    CHECK(tp_pump_open_stream(&r->pump, 0, 0, m->peer_fd, &m->stream, 1, 0) == TP_E_ARGUMENT);
    CHECK(tp_pump_open_stream(&r->pump, 0, 4, m->peer_fd, &m->stream, 1, 0) == TP_E_ARGUMENT);
    CHECK(tp_pump_open_stream(&r->pump, 5, 0, m->peer_fd, &m->stream, 1, 0) == TP_E_ARGUMENT);
    uint32_t n_free = r->pump.n_free_ports, n_reserved = r->pump.pool.n_reserved;
    CHECK(tp_pump_open_stream(&r->pump, 0, 1, m->stream_fd, &m->stream, 1, 0) == TP_E_STATE && errno == EEXIST);
    CHECK(r->pump.n_free_ports == n_free && r->pump.pool.n_reserved == n_reserved);
    CHECK(tp_pump_port(&r->pump, 0) == NULL && tp_pump_port(&r->pump, -1) == NULL && tp_pump_port(&r->pump, INT64_MAX) == NULL);
    CHECK(tp_pump_flush(&r->pump, m->leg) == TP_E_STATE && tp_pump_send_datagram(&r->pump, m->port, NULL, 0) == TP_E_STATE);
    uint8_t bytes[4] = {1, 2, 3, 4};
    CHECK(tp_pump_send_datagram(&r->pump, m->leg, bytes, 4) == TP_OK && recv(m->caller_fd, bytes, 4, MSG_DONTWAIT) == 4);
    return rig_close(r);
}

/* A slot's two datagrams to one leg, and two messages of one connection, in one batch: their order stays. A socket that takes
 * a part of one message and none of the next keeps the rest. */
static int test_batch(void) {
    rig *r = rig_open(POOL_BLOCKS, 0);
    CHECK(r != NULL && add_call(r, 0, 0) == 0 && add_call(r, 1, 0) == 0 && shrink(r->members[0].stream_fd) == 0);
    int ticked;
    uint8_t got[2000];
    uint64_t datagrams = 0;
    for (int64_t now = 0; now < 20000 * MS; now += 60 * MS) { /* three messages of each at once, and nobody reads the first's */
        CHECK(tp_pump_step(&r->pump, now, &ticked) >= 0 && take_attention(r) == 0);
        for (uint16_t seq; recv(r->members[1].caller_fd, got, sizeof got, MSG_DONTWAIT) > 0; datagrams++) {
            seq = (uint16_t)(got[2] << 8 | got[3]);
            CHECK(seq == (uint16_t)(77 + datagrams));
        }
        r->n_received = 0;
        receive_all(r, r->members[1].peer_fd);
    }
    const tp_port *stuck = tp_pump_port(&r->pump, r->members[0].port);
    CHECK(datagrams > 300 && stuck->media_dropped > 0 && stuck->out_bytes > 0 && !stuck->dead);
    r->n_received = 0;
    for (int i = 0; i < 1000 && stuck->out_bytes != 0; i++) {
        receive_all(r, r->members[0].peer_fd);
        CHECK(tp_pump_flush(&r->pump, r->members[0].port) >= 0);
    }
    receive_all(r, r->members[0].peer_fd);
    frames found;
    CHECK(parse_frames(r, &found, true) == 0 && found.n_media > 10 && found.n_text == 0);
    return rig_close(r);
}

static int test_all(void) {
    int failed = test_parity() + test_order_of_audio_and_control() + test_every_split() + test_protocol_error() +
                 test_long_frame() + test_no_pool() + test_end_and_break() + test_reused_descriptor() + test_reused_slot() +
                 test_media_is_dropped_whole() + test_control_is_refused_whole() + test_burst() +
                 test_strangers() + test_ipv6_leg() + test_handover() + test_much_to_hand_over() + test_line() + test_line_says() +
                 test_lines_leave_together() + test_line_waits_for_its_peer() +
                 test_cipher_is_the_same() + test_cipher_is_held() + test_cipher_arena() +
                 test_cipher_is_never_dropped() + test_cipher_line() +
                 test_stuck() + test_clock_jump() + test_measures() + test_arguments() + test_batch();
    return failed;
}

int main(void) {
    tp_uring ring;
    int failed = test_all();
    if (!tp_uring_open(&ring)) {
        (void)fprintf(stderr, "no io_uring here: the pump was tested without\n");
        return failed != 0;
    }
    tp_uring_close(&ring);
    rig_ring = RING_WHOLE;
    failed += test_all();
    for (rig_ring = RING_FAILS_READING; rig_ring <= RING_FAILS_SENDING; rig_ring++) failed += test_parity();
    return failed != 0;
}
