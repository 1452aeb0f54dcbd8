/* A line's stream, driven by pseudo-random operations, for the sanitizers: what a reader gets is what was written, an event
 * comes exactly when it was asked for, every block comes back. */
#include <stdlib.h>

#include "check.h"
#include "tp_g711.h"
#include "tp_stream.h"

#define N_BLOCKS 96
#define STEPS 20000
#define RING_BYTES 3000u
#define BOUND 2000u
#define MAX_PIECE 700u

static uint64_t state;

static uint32_t random_below(uint32_t n) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 33) % n;
}

static uint8_t sample_at(uint64_t position) { return (uint8_t)(position * 31 % 251); }

typedef struct line {
    tp_pool pool;
    tp_stream stream;
    tp_stream_config config;
    tp_media_template template;
    tp_outbox outbox;
    int64_t now, alarm;
    uint64_t written, cursor, wake_at, low;
    uint32_t told; /* of TP_EVENT_x, a bit each */
    bool held;
    int64_t held_at;
    uint64_t held_played, held_sent;
} line;

static int take_events(line *c) {
    tp_event event;
    c->told = 0;
    bool any = tp_stream_has_events(&c->stream);
    while (tp_stream_next_event(&c->stream, &event) == 1) {
        CHECK(any);
        c->told |= 1u << event.kind;
        if (event.kind == TP_EVENT_AUDIO) CHECK(event.value == TP_TRACK_INBOUND);
    }
    CHECK(!tp_stream_has_events(&c->stream));
    return 0;
}

static int told(const line *c, int kind) { return (c->told >> kind & 1u) != 0; }

static int hear(line *c) {
    uint8_t audio[500];
    uint32_t n = 1 + random_below(sizeof audio);
    for (uint32_t i = 0; i < n; i++) audio[i] = sample_at(c->written + i);
    c->written += n;
    CHECK(tp_stream_receive_audio(&c->stream, TP_TRACK_INBOUND, c->config.format, audio, n, c->now) == (ptrdiff_t)n);
    if (random_below(2) == 0) { /* it is alone here, but for a mark's outcome and a level of the queue */
        tp_stream other = c->stream;
        other.audio_pending = 0;
        uint32_t taken = tp_stream_take_audio(&c->stream);
        CHECK(taken == (c->written >= c->wake_at && !tp_stream_has_events(&other) ? TP_TRACK_INBOUND : 0u));
        if (taken != 0) {
            CHECK(!tp_stream_has_events(&c->stream));
            return 0;
        }
    }
    if (take_events(c) != 0) return 1;
    CHECK(told(c, TP_EVENT_AUDIO) == (c->written >= c->wake_at));
    return 0;
}

static int ask(line *c) {
    uint64_t from = c->wake_at = random_below(8) == 0 ? UINT64_MAX : c->written + random_below(900);
    if (random_below(2) == 0) CHECK(tp_stream_wake_at(&c->stream, TP_TRACK_INBOUND, random_below(1000)) == TP_OK);
    CHECK(tp_stream_wake_at(&c->stream, TP_TRACK_INBOUND, from) == TP_OK);
    if (take_events(c) != 0) return 1;
    CHECK(told(c, TP_EVENT_AUDIO) == (from != 0 && c->written >= from));
    return 0;
}

static int read_piece(line *c) {
    uint32_t n = 1 + random_below(MAX_PIECE);
    uint8_t *out = malloc(n); /* of its own, so that a byte too many is seen */
    CHECK(out != NULL);
    uint64_t before = c->cursor;
    ptrdiff_t lost = tp_stream_track_next(&c->stream, TP_TRACK_INBOUND, out, n, &c->cursor, n, BOUND);
    if (c->written - before < n) {
        CHECK(lost == TP_E_STATE && c->cursor == before);
    } else {
        uint64_t behind = c->written - before;
        CHECK(lost == (ptrdiff_t)(behind > BOUND ? behind - BOUND : 0));
        CHECK(c->cursor == before + (uint64_t)lost + n);
        for (uint32_t i = 0; i < n; i++) CHECK(out[i] == sample_at(c->cursor - n + i));
    }
    free(out);
    return 0;
}

static int say(line *c) {
    uint8_t audio[2000] = {0};
    CHECK(tp_stream_play(&c->stream, c->config.format, audio, 1 + random_below(sizeof audio)) >= 0);
    if (random_below(4) == 0) (void)tp_stream_mark(&c->stream, c->now);
    return take_events(c);
}

/* What is sure is taken whole whatever others hold; what is not leaves everything as it was. */
static int say_now(line *c) {
    uint8_t memory[2 * MAX_PIECE + 1];
    bool linear = random_below(2) == 0;
    uint32_t n = random_below(MAX_PIECE);
    for (uint32_t i = 0; i < sizeof memory; i++) memory[i] = (uint8_t)random_below(256);
    const uint8_t *in = memory + random_below(2); /* a sample may lie at any address */
    tp_stream before = c->stream;
    tp_pool pool = c->pool;
    uint32_t queued = (uint32_t)tp_stream_queued_samples(&c->stream);
    int said = tp_stream_say(&c->stream, linear ? 0 : TP_ENCODING_PCMU, in, linear ? 2 * n : n);
    if (said == 1) {
        CHECK(tp_stream_queued_samples(&c->stream) == queued + n && queued + n <= 1600);
        CHECK(c->pool.n_refused == pool.n_refused && c->stream.playout.audio.n_blocks <= c->stream.playout.audio.reserve);
    } else {
        CHECK(said == 0 && queued + n > 600); /* the reserve is 1,600, in blocks of which the first may be half read */
        CHECK(memcmp(&before, &c->stream, sizeof before) == 0 && memcmp(&pool, &c->pool, sizeof pool) == 0);
    }
    return take_events(c);
}

static int tick(line *c) {
    c->now += random_below(60) * 1000000;
    c->outbox.used = c->outbox.n_outputs = 0;
    int64_t due = tp_stream_next_deadline(&c->stream);
    uint64_t queued = tp_stream_queued_samples(&c->stream);
    int flags = tp_stream_tick(&c->stream, 3, c->now, &c->outbox);
    CHECK(flags >= 0);
    if (c->now < due) CHECK(flags == 0 || (flags == TP_TICK_EVENTS && queued < c->low));
    CHECK(((flags & TP_TICK_EVENTS) != 0) == tp_stream_has_events(&c->stream));
    if (take_events(c) != 0) return 1;
    CHECK(told(c, TP_EVENT_ALARM) == (c->now >= c->alarm));
    CHECK(told(c, TP_EVENT_LOW) == (tp_stream_queued_samples(&c->stream) < c->low));
    if (told(c, TP_EVENT_ALARM)) c->alarm = INT64_MAX;
    if (told(c, TP_EVENT_LOW)) c->low = 0;
    return 0;
}

/* While it is held nothing is sent and the model stands still; then it goes on from there, as if no time had passed. */
static int hold(line *c) {
    CHECK(tp_stream_hold(&c->stream, c->held, c->now) == 0); /* nothing changes */
    if (!c->held) {
        c->held_at = c->now;
        c->held_played = tp_stream_model_played(&c->stream, c->now);
        c->held_sent = tp_stream_sent_samples(&c->stream);
        CHECK(tp_stream_hold(&c->stream, 1, c->now) == 0);
    } else {
        CHECK(tp_stream_model_played(&c->stream, c->now) == c->held_played);
        CHECK(tp_stream_sent_samples(&c->stream) == c->held_sent);
        CHECK(tp_stream_hold(&c->stream, 0, c->now) == c->now - c->held_at);
        uint64_t left = c->held_sent - c->held_played;
        CHECK(tp_stream_model_played(&c->stream, c->now) == c->held_played);
        CHECK(tp_stream_model_played(&c->stream, c->now + (int64_t)left * 125000) == c->held_sent);
        if (left > 1) CHECK(tp_stream_model_played(&c->stream, c->now + (int64_t)(left - 1) * 125000 - 1) < c->held_sent);
    }
    c->held = !c->held;
    return 0;
}

static int step(line *c) {
    switch (random_below(11)) {
    case 9: return random_below(4) == 0 ? hold(c) : 0;
    case 0:
    case 1: return hear(c);
    case 2: return ask(c);
    case 3:
    case 4: return read_piece(c);
    case 5: return random_below(4) == 0 ? say(c) : say_now(c);
    case 6: tp_stream_want_low(&c->stream, c->low = random_below(3000)); return 0;
    case 7: tp_stream_set_alarm(&c->stream, c->alarm = c->now + random_below(200) * 1000000); return 0;
    case 8:
        if (random_below(10) != 0) return 0;
        (void)tp_stream_clear(&c->stream, 0);
        if (take_events(c) != 0) return 1;
        CHECK(told(c, TP_EVENT_LOW) == (c->low != 0));
        c->low = 0;
        if (c->held) { /* a clear ends it, and nothing of what was sent is left to be heard */
            CHECK(tp_stream_hold(&c->stream, 0, c->now) == 0);
            CHECK(tp_stream_model_played(&c->stream, c->now) == tp_stream_sent_samples(&c->stream));
        }
        c->held = false;
        return 0;
    default: return tick(c);
    }
}

static void make_template(tp_media_template *t) {
    static const char head[] = "{\"event\":\"playAudio\",\"media\":{\"payload\":\"", tail[] = "\"}}";
    t->n_pieces = 2;
    t->lengths[0] = sizeof head - 1;
    t->lengths[1] = sizeof tail - 1;
    t->fields[0] = TP_FIELD_PAYLOAD;
    t->fields[1] = TP_FIELD_END;
    t->text_bytes = (uint32_t)(t->lengths[0] + t->lengths[1]);
    memcpy(t->text, head, t->lengths[0]);
    memcpy(t->text + t->lengths[0], tail, t->lengths[1]);
}

static int run(uint64_t seed) {
    state = seed;
    line *c = calloc(1, sizeof *c);
    size_t memory_bytes = N_BLOCKS * (TP_BLOCK_BYTES + 4);
    void *memory = malloc(memory_bytes);
    uint8_t *ring = malloc(RING_BYTES);
    CHECK(c != NULL && memory != NULL && ring != NULL);
    CHECK(tp_pool_init(&c->pool, memory, memory_bytes) == N_BLOCKS);
    make_template(&c->template);
    c->config = (tp_stream_config){.role = TP_ROLE_APPLICATION, .framing = TP_FRAMING_WEBSOCKET, .tracks = 3,
                                   .format = {8000, TP_ENCODING_PCMU}, .bidirectional = 1, .message_ms = 20,
                                   .bound_ms = 5000, .reserve_ms = 200, .send_ahead_ms = 300,
                                   .max_message_bytes = 1 << 20, .timestamp_from_zero = 1, .mask_seed = seed,
                                   .templates = {&c->template, NULL}};
    c->outbox = (tp_outbox){malloc(16384), malloc(64 * sizeof(tp_output)), 16384, 0, 64, 0};
    CHECK(c->outbox.bytes != NULL && c->outbox.outputs != NULL);
    c->alarm = INT64_MAX;
    CHECK(tp_stream_init(&c->stream, &c->pool, &c->config, 0, 0) == TP_OK);
    CHECK(tp_stream_set_track(&c->stream, TP_TRACK_INBOUND, ring, RING_BYTES) == TP_OK);
    for (int i = 0; i < STEPS; i++) {
        if (step(c) != 0) return 1;
        /* A line's readers never lag by more than the ring: their bound is shorter, and they are read or dropped. */
        if (c->written - c->cursor > BOUND + 400) c->cursor = c->written - BOUND;
    }
    tp_stream_close(&c->stream, 0);
    tp_stream_set_alarm(&c->stream, 0);
    tp_stream_want_low(&c->stream, 1000);
    CHECK(take_events(c) == 0 && tp_stream_next_deadline(&c->stream) == INT64_MAX);
    CHECK(tp_stream_tick(&c->stream, 3, c->now, &c->outbox) == 0);
    CHECK(c->pool.n_free == c->pool.n_blocks && c->pool.n_reserved == 0);
    free(c->outbox.outputs);
    free(c->outbox.bytes);
    free(ring);
    free(memory);
    free(c);
    return 0;
}

static int init(line *c, void *memory, size_t memory_bytes, uint32_t encoding, uint32_t rate_hz) {
    CHECK(tp_pool_init(&c->pool, memory, memory_bytes) > 0);
    make_template(&c->template);
    c->config = (tp_stream_config){.role = TP_ROLE_APPLICATION, .framing = TP_FRAMING_WEBSOCKET, .tracks = 1,
                                   .format = {rate_hz, encoding}, .play_format = {8000, encoding}, .bidirectional = 1,
                                   .message_ms = 20, .bound_ms = 5000, .reserve_ms = 1000, .send_ahead_ms = 2000,
                                   .max_message_bytes = 1 << 20,
                                   .templates = {&c->template, NULL}};
    CHECK(tp_stream_init(&c->stream, &c->pool, &c->config, 0, 0) == TP_OK);
    return 0;
}

/* What is said in one call is, byte for byte, what is encoded and played; and a line's own second is its own even where
 * others have taken all else. What it hears may have another rate. */
static int test_say(uint32_t encoding, uint32_t rate_hz) {
    enum { N = 8000, BLOCKS = 64, OUT = 65536 };
    static int16_t pcm[N];
    static uint8_t encoded[2 * N], sent[2][OUT], memory[2][BLOCKS * (TP_BLOCK_BYTES + 4)];
    tp_output outputs[64];
    line *lines = calloc(2, sizeof *lines);
    CHECK(lines != NULL);
    for (uint32_t i = 0; i < N; i++) pcm[i] = (int16_t)random_below(65536);
    size_t size = tp_sample_bytes(encoding);
    CHECK(tp_g711_encode(encoding, encoded, pcm, N) >= 0);
    uint32_t used[2];
    for (int way = 0; way < 2; way++) {
        line *c = &lines[way];
        CHECK(init(c, memory[way], sizeof memory[way], encoding, rate_hz) == 0);
        tp_chain others;
        CHECK(tp_chain_open(&others, &c->pool, 0) == TP_OK);
        while (tp_chain_push(&others, &c->pool) != TP_NO_BLOCK) continue;
        c->outbox = (tp_outbox){sent[way], outputs, OUT, 0, 64, 0};
        for (uint32_t at = 0; at < N; at += 160) {
            if (way == 0) {
                bool linear = at % 320 == 0;
                const void *in = linear ? (const void *)(pcm + at) : (const void *)(encoded + at * size);
                CHECK(tp_stream_say(&c->stream, linear ? 0 : encoding, in, 160 * (linear ? 2 : size)) == 1);
            } else {
                CHECK(tp_stream_play(&c->stream, c->config.play_format, encoded + at * size, 160 * size) == 160);
            }
        }
        CHECK(tp_stream_say(&c->stream, 0, pcm, 2) == 0 && tp_stream_queued_samples(&c->stream) == N);
        CHECK((tp_stream_tick(&c->stream, 0, 0, &c->outbox) & TP_TICK_OUTPUT) != 0);
        CHECK(tp_stream_queued_samples(&c->stream) == 0);
        CHECK(tp_stream_say(&c->stream, 0, pcm, 3) == 0); /* half a sample */
        CHECK(tp_stream_say(&c->stream, encoding == TP_ENCODING_PCMU ? TP_ENCODING_PCMA : TP_ENCODING_PCMU, pcm, 2) == 0);
        used[way] = c->outbox.used;
        tp_stream_close(&c->stream, 0);
        CHECK(tp_stream_say(&c->stream, 0, pcm, 2) == 0);
        tp_chain_close(&others, &c->pool);
        CHECK(c->pool.n_free == c->pool.n_blocks);
    }
    CHECK(used[0] == used[1] && memcmp(sent[0], sent[1], used[0]) == 0);
    free(lines);
    return 0;
}

int main(void) {
    state = 1;
    for (uint32_t rate_hz = 8000; rate_hz <= 16000; rate_hz += 8000) {
        if (test_say(TP_ENCODING_PCMU, rate_hz) + test_say(TP_ENCODING_PCMA, rate_hz) != 0) return 1;
        if (test_say(TP_ENCODING_L16LE, rate_hz) != 0) return 1;
    }
    for (uint64_t seed = 1; seed <= 8; seed++) {
        if (run(seed * 0x9e3779b97f4a7c15u) != 0) return 1;
    }
    return 0;
}
