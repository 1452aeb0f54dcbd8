/* Two wires and a line in one pool, driven by pseudo-random operations and garbage, for the sanitizers: nothing is read or
 * written out of bounds, every mark is settled exactly once, every block comes back. */
#include <stdlib.h>

#include "check.h"
#include "tp_path.h"
#include "tp_rtp.h"
#include "tp_websocket.h"

#define N_BLOCKS 160
#define MARKS 4096
#define PTIME_NS 20000000

static uint64_t state;

static uint32_t random_below(uint32_t n) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 33) % n;
}

static void random_bytes(uint8_t *out, size_t n) {
    for (size_t i = 0; i < n; i++) out[i] = (uint8_t)random_below(256);
}

static void make_template(tp_media_template *t, const char *head) {
    static const char tail[] = "\"}}";
    memset(t, 0, sizeof *t);
    t->n_pieces = 2;
    t->lengths[0] = (uint16_t)strlen(head);
    t->lengths[1] = sizeof tail - 1;
    t->fields[0] = TP_FIELD_PAYLOAD;
    t->fields[1] = TP_FIELD_END;
    t->text_bytes = (uint32_t)(t->lengths[0] + t->lengths[1]);
    memcpy(t->text, head, t->lengths[0]);
    memcpy(t->text + t->lengths[0], tail, t->lengths[1]);
}

typedef struct call {
    tp_pool pool;
    tp_path path;
    tp_stream streams[2], line;
    tp_stream_config configs[2], line_config;
    tp_media_template template_of[2], line_template;
    tp_media_shape shape, line_shape;
    tp_outbox outbox;
    int64_t now;
    uint16_t seq;
    int64_t n_marks;
    uint8_t settled[MARKS];
    void *lent[2];
} call;

static int take_events(call *c, tp_stream *from) {
    tp_event event;
    for (;;) {
        int got = from != NULL ? tp_stream_next_event(from, &event) : tp_path_next_event(&c->path, &event);
        if (got != 1) return 0;
        if (event.kind != TP_EVENT_MARK) continue;
        CHECK(event.id >= 0 && event.id < c->n_marks);
        CHECK(event.value >= TP_OUTCOME_PLAYED && event.value <= TP_OUTCOME_LOST);
        CHECK(c->settled[event.id]++ == 0);
        CHECK(event.at_sample >= 0 && event.at_sample <= tp_path_clock(&c->path));
    }
}

/* Every message of the outbox goes to the line in two pieces; what the line sent goes to the first stream. */
static int deliver(call *c) {
    CHECK(c->outbox.used <= c->outbox.capacity && c->outbox.n_outputs <= c->outbox.outputs_capacity);
    for (uint32_t i = 0; i < c->outbox.n_outputs; i++) {
        const tp_output *output = &c->outbox.outputs[i];
        CHECK(output->offset + output->length <= c->outbox.used);
        if (output->kind != TP_OUTPUT_MESSAGE || output->stream != 0) continue;
        uint8_t *copy = malloc(output->length);
        CHECK(copy != NULL);
        memcpy(copy, c->outbox.bytes + output->offset, output->length);
        tp_received report;
        uint32_t part = random_below(output->length);
        CHECK(tp_stream_receive(&c->line, &report, copy, part, c->now) == TP_RECEIVED_ALL && report.consumed == 0);
        CHECK(tp_stream_receive(&c->line, &report, copy, output->length, c->now) == TP_RECEIVED_ALL);
        CHECK(report.consumed == output->length && report.n_media == 1);
        free(copy);
    }
    c->outbox.used = c->outbox.n_outputs = 0;
    return 0;
}

static int line_tick(call *c) {
    int flags = tp_stream_tick(&c->line, 0, c->now, &c->outbox);
    CHECK(flags >= 0 || flags == TP_E_ROOM);
    for (uint32_t i = 0; i < c->outbox.n_outputs; i++) {
        const tp_output *output = &c->outbox.outputs[i];
        tp_received report;
        CHECK(tp_stream_receive(&c->streams[0], &report, c->outbox.bytes + output->offset, output->length, c->now) ==
              TP_RECEIVED_ALL);
        CHECK(report.consumed == output->length && report.n_media == 1);
    }
    c->outbox.used = c->outbox.n_outputs = 0;
    tp_event event;
    while (tp_stream_next_event(&c->line, &event) == 1) continue;
    return 0;
}

static int step(call *c) {
    static const tp_format formats[] = {{8000, TP_ENCODING_PCMU},   {8000, TP_ENCODING_PCMA},   {8000, TP_ENCODING_L16LE},
                                        {16000, TP_ENCODING_L16LE}, {24000, TP_ENCODING_L16BE}, {48000, TP_ENCODING_L16LE}};
    uint32_t which = random_below(2);
    tp_stream *s = &c->streams[which];
    size_t n = 2 * random_below(6000);
    uint8_t *bytes = malloc(n + 1); /* its exact end is the sanitizer's */
    CHECK(bytes != NULL);
    random_bytes(bytes, n);
    switch (random_below(14)) {
    case 0:
    case 1: CHECK(tp_stream_receive_audio(s, 0, formats[random_below(6)], bytes, n, c->now) >= 0); break;
    case 2: CHECK(tp_stream_play(s, formats[random_below(6)], bytes, n) >= 0); break;
    case 3:
        for (uint32_t i = random_below(40); i != 0; i--) {
            if (c->n_marks < MARKS && tp_stream_mark(s, c->n_marks) == TP_OK) c->n_marks++;
        }
        break;
    case 4: CHECK(tp_path_clear(&c->path, which) >= 0); break;
    case 5: tp_stream_pause(s, random_below(4) == 0); break;
    case 6: tp_path_hold(&c->path, random_below(4) == 0 ? random_below(4) : TP_DIRECTION_BOTH); break;
    case 7: (void)tp_path_send_digits(&c->path, which, "19#D", random_below(5), 40, 40); break;
    case 8: c->now += (int64_t)random_below(9) * PTIME_NS; break;
    case 9: (void)tp_path_receive_rtp(&c->path, bytes, n % 200, c->now); break;
    case 10: CHECK(tp_stream_play(&c->line, formats[random_below(3)], bytes, n) >= 0); break;
    case 11: {
        tp_received report;
        /* Garbage, and not to the stream that the line talks to: it may begin a fragmented message. */
        (void)tp_stream_receive(&c->streams[1], &report, bytes, n, c->now);
        CHECK(report.consumed <= n && report.offset + report.length <= n);
        break;
    }
    default: {
        uint8_t packet[TP_RTP_HEADER_BYTES + 160];
        c->seq = (uint16_t)(c->seq + (random_below(8) == 0 ? random_below(5) : 1));
        tp_rtp_header header = {.timestamp = c->seq * 160u, .ssrc = 7, .seq = c->seq};
        header.payload_type = random_below(12) == 0 ? 101 : 0;
        CHECK(tp_rtp_write(packet, sizeof packet, &header) == TP_RTP_HEADER_BYTES);
        random_bytes(packet + TP_RTP_HEADER_BYTES, 160);
        size_t length = header.payload_type == 101 ? 4 : random_below(12) == 0 ? 80 : 160;
        (void)tp_path_receive_rtp(&c->path, packet, TP_RTP_HEADER_BYTES + length, c->now);
        break;
    }
    }
    free(bytes);
    for (uint32_t i = random_below(3); i != 0; i--) {
        int flags = tp_path_tick(&c->path, c->now, &c->outbox);
        CHECK(flags >= 0);
        if (deliver(c) != 0 || take_events(c, NULL) != 0 || line_tick(c) != 0) return 1;
        if (tp_path_next_deadline(&c->path) > c->now) c->now = tp_path_next_deadline(&c->path);
    }
    return 0;
}

static int run(uint64_t seed) {
    state = seed * 0x9e3779b97f4a7c15u + 1;
    call *c = calloc(1, sizeof *c);
    CHECK(c != NULL);
    size_t pool_bytes = N_BLOCKS * (TP_BLOCK_BYTES + 4);
    void *memory = malloc(pool_bytes);
    CHECK(memory != NULL && tp_pool_init(&c->pool, memory, pool_bytes) == N_BLOCKS);
    tp_path_config config = {.leg_kind = TP_LEG_RTP, .leg_format = {8000, TP_ENCODING_PCMU}, .ptime_ms = 20,
                             .event_payload_type = 101, .inband_digits = 1, .jitter_min_ms = 20, .jitter_max_ms = 200,
                             .media_timeout_ms = 400, .digit_on_ms = 100, .digit_off_ms = 100};
    uint8_t *ring = malloc(tp_path_jitter_bytes(&config));
    CHECK(ring != NULL && tp_path_init(&c->path, &c->pool, &config, ring, 0) == TP_OK);

    make_template(&c->template_of[0], "{\"event\":\"media\",\"media\":{\"track\":\"inbound\",\"payload\":\"");
    make_template(&c->template_of[1], "{\"event\":\"media\",\"media\":{\"track\":\"outbound\",\"payload\":\"");
    make_template(&c->line_template, "{\"event\":\"play\",\"media\":{\"payload\":\"");
    c->line_shape = (tp_media_shape){.event_key = "event", .event_value = "media", .object_key = "media",
                                     .payload_key = "payload", .track_key = "track"};
    c->shape = (tp_media_shape){.event_key = "event", .event_value = "play", .object_key = "media", .payload_key = "payload"};
    for (uint32_t i = 0; i < 2; i++) {
        c->configs[i] = (tp_stream_config){.role = TP_ROLE_PLATFORM, .framing = TP_FRAMING_WEBSOCKET, .tracks = 3,
                                           .bidirectional = 1, .masked = i, .message_ms = 20 + 20 * i, .bound_ms = 5000,
                                           .reserve_ms = 200, .max_message_bytes = 100000, .mask_seed = seed,
                                           .shape = &c->shape};
        c->configs[i].format = i == 0 ? (tp_format){8000, TP_ENCODING_PCMU} : (tp_format){16000, TP_ENCODING_L16LE};
        c->configs[i].templates[0] = &c->template_of[0];
        c->configs[i].templates[1] = &c->template_of[1];
        CHECK(tp_stream_init(&c->streams[i], &c->pool, &c->configs[i], 8000, 0) == TP_OK);
        size_t needed = tp_stream_lent_bytes(&c->streams[i], 20);
        CHECK((needed != 0) == (i == 1)); /* the first sends every ptime as it is */
        c->lent[i] = malloc(needed);
        if (i == 1) {
            CHECK(c->lent[i] != NULL && tp_path_attach(&c->path, i, &c->streams[i]) == TP_E_STATE);
            CHECK(tp_stream_lend(&c->streams[i], 20, c->lent[i], needed - 1) == TP_E_ROOM);
        }
        CHECK(tp_stream_lend(&c->streams[i], 20, c->lent[i], needed) == TP_OK);
        CHECK(tp_path_attach(&c->path, i, &c->streams[i]) == TP_OK);
    }
    c->line_config = (tp_stream_config){.role = TP_ROLE_APPLICATION, .framing = TP_FRAMING_WEBSOCKET, .tracks = 3,
                                        .bidirectional = 1, .masked = 1, .message_ms = 20, .bound_ms = 5000,
                                        .reserve_ms = 200, .send_ahead_ms = 500, .max_message_bytes = 100000,
                                        .mask_seed = seed, .shape = &c->line_shape};
    c->line_config.format = c->configs[0].format;
    c->line_config.templates[0] = &c->line_template;
    CHECK(tp_stream_init(&c->line, &c->pool, &c->line_config, 0, 0) == TP_OK);
    uint8_t *track = malloc(3000);
    CHECK(track != NULL && tp_stream_set_track(&c->line, TP_TRACK_INBOUND, track, 3000) == TP_OK);
    c->outbox = (tp_outbox){.bytes = malloc(20000), .outputs = malloc(64 * sizeof(tp_output)), .capacity = 20000,
                            .outputs_capacity = 64};
    CHECK(c->outbox.bytes != NULL && c->outbox.outputs != NULL);

    for (int i = 0; i < 1500; i++) {
        if (step(c) != 0) return 1;
        CHECK(c->pool.n_free >= c->pool.n_reserved && c->pool.n_free <= N_BLOCKS);
    }
    if (take_events(c, NULL) != 0) return 1;
    tp_path_close(&c->path);
    if (take_events(c, &c->streams[0]) != 0 || take_events(c, &c->streams[1]) != 0) return 1;
    tp_stream_close(&c->line, 0);
    tp_event event;
    while (tp_stream_next_event(&c->line, &event) == 1) continue;
    for (int64_t i = 0; i < c->n_marks; i++) CHECK(c->settled[i] == 1);
    CHECK(c->n_marks > 100);
    CHECK(c->pool.n_free == N_BLOCKS && c->pool.n_reserved == 0);
    for (uint32_t i = 0; i < 2; i++) free(c->lent[i]);
    free(track);
    free(ring);
    free(memory);
    free(c->outbox.bytes);
    free(c->outbox.outputs);
    free(c);
    return 0;
}

int main(void) {
    for (uint64_t seed = 1; seed <= 12; seed++) {
        if (run(seed) != 0) {
            fprintf(stderr, "seed %u\n", (unsigned)seed);
            return 1;
        }
    }
    return 0;
}
