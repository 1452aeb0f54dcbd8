/* tp_jitter under the sanitizers: the ring and every output lie in heap blocks of exactly their size. */
#include "../../csrc/tp_jitter.h"
#include "check.h"
#include <stdlib.h>

#define MS 1000000LL

static uint32_t seed = 1;
static uint32_t next(void) {
    seed = seed * 1664525u + 1013904223u;
    return seed >> 8;
}

static int limits(void) {
    tp_jitter state;
    static uint8_t ring[TP_JITTER_SPAN_MS * 8];
    tp_jitter_config config = {8000, 8, 20, 200, 20, 0};
    CHECK(tp_jitter_init(&state, &config, ring, sizeof ring - 1) == TP_E_ROOM);
    CHECK(tp_jitter_init(&state, &config, ring, sizeof ring) == TP_OK);
    uint8_t payload[8 * 201] = {0}, out[160];
    CHECK(tp_jitter_put(&state, 0, 0, 0, payload, 8 * 201, 0) == TP_E_FORMAT);
    CHECK(tp_jitter_put(&state, 0, 0, 0, payload, 161, 0) == TP_E_FORMAT);
    CHECK(tp_jitter_put(&state, 0, 0, 0, payload, 0, 0) == 0);
    CHECK(tp_jitter_peek(&state, out, sizeof out) == TP_E_STATE);
    CHECK(tp_jitter_put(&state, 1, 160, 0, payload, 320, 0) == 1);
    CHECK(tp_jitter_peek(&state, out, 159) == TP_E_ROOM);
    CHECK(tp_jitter_peek(&state, out, 160) == 160);
    CHECK(sizeof state <= 1024);
    tp_jitter_config wrong[] = {{8001, 8, 20, 200, 20, 0}, {8000, 0, 20, 200, 20, 0}, {8000, 33, 20, 200, 20, 0},
                                {8000, 8, 201, 200, 20, 0}, {8000, 8, 20, 401, 20, 0}, {8000, 8, 20, 200, 9, 0},
                                {8000, 8, 20, 200, 61, 0}, {0, 8, 20, 200, 20, 0}, {49000, 8, 20, 200, 20, 0}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        CHECK(tp_jitter_init(&state, &wrong[i], ring, sizeof ring) == TP_E_ARGUMENT);
    return 0;
}

/* A sender, a network and a clock that do anything: jumps, wraps, bursts, stalls, times that stand still or run back. */
static int anything(uint32_t bytes_per_ms, uint32_t ptime_ms, uint32_t max_delay_ms, uint32_t stretches) {
    tp_jitter_config config = {16000, bytes_per_ms, max_delay_ms / 10, max_delay_ms, ptime_ms, stretches};
    size_t ring_bytes = (size_t)TP_JITTER_SPAN_MS * bytes_per_ms, out_bytes = (size_t)ptime_ms * bytes_per_ms;
    tp_jitter *state = malloc(sizeof *state);
    uint8_t *ring = malloc(ring_bytes), *out = malloc(out_bytes);
    CHECK(tp_jitter_init(state, &config, ring, ring_bytes) == TP_OK);
    uint16_t seq = 65000;
    uint32_t timestamp = 0xffff0000u;
    int64_t now = next() % 2 ? 0 : 1000000000000000000LL;
    uint64_t whole_ms = 0;
    for (int round = 0; round < 60000; round++) {
        uint32_t n_ms = next() % 10 ? 20 : next() % 202;
        size_t n = (size_t)n_ms * bytes_per_ms + (next() % 100 == 0);
        uint8_t *payload = malloc(n ? n : 1);
        memset(payload, 7, n);
        switch (next() % 300) {
        case 0: timestamp += next() << 12; break;
        case 1: timestamp -= next() % 400 * 16; break;
        case 2: seq = (uint16_t)next(); break;
        case 3: now += (int64_t)(next() % 5000) * MS; break;
        case 4: timestamp += next() % 3000 * 16; break;
        case 5: timestamp += 3; break;
        case 6: tp_jitter_reset(state); break;
        case 7: timestamp += 0x80000000u; break;
        case 8: now -= (int64_t)(next() % 500) * MS; break;
        default: break;
        }
        uint32_t turn = next() % 16;
        if (turn == 0)
            tp_jitter_note(state, seq, now);
        else if (turn != 1)
            tp_jitter_put(state, (uint16_t)(seq - (turn == 2) * (next() % 5)), timestamp - (turn == 3) * (next() % 5) * 320,
                          next() % 20 == 0, payload, n, now);
        free(payload);
        seq++;
        timestamp += n_ms * 16;
        now += (int64_t)(next() % 41) * MS / 2 * (next() % 30 != 0);
        if (next() % 50 == 0)
            continue;
        tp_jitter_frame frame;
        CHECK(tp_jitter_get(state, &frame, out, now) == TP_OK);
        CHECK(frame.kind >= TP_JITTER_AUDIO && frame.kind <= TP_JITTER_SILENCE);
        CHECK(frame.inserted_ms == 0 || (frame.kind == TP_JITTER_MISSING && frame.inserted_ms == ptime_ms) ||
              (stretches && frame.kind == TP_JITTER_PARTIAL && frame.inserted_ms == frame.missing_ms));
        CHECK(frame.wanted_samples == 0 || (stretches && frame.kind == TP_JITTER_AUDIO && frame.urgency <= 3));
        if (frame.kind == TP_JITTER_AUDIO || frame.kind == TP_JITTER_PARTIAL) {
            CHECK((frame.missing_ms == 0) == (frame.kind == TP_JITTER_AUDIO));
            CHECK(frame.missing_first_ms + frame.missing_ms <= ptime_ms && frame.missing_ms < ptime_ms);
            for (uint32_t ms = 0; ms < ptime_ms; ms++)
                if (ms < frame.missing_first_ms || ms >= frame.missing_first_ms + frame.missing_ms)
                    CHECK(out[ms * bytes_per_ms] == 7);
            whole_ms += ptime_ms - frame.missing_ms;
        }
        if (frame.following)
            CHECK(tp_jitter_peek(state, out, out_bytes) == (int)out_bytes && out[0] == 7);
        if (frame.wanted_samples) {
            /* Anything a caller may do, and what it may not. */
            int32_t p = (int32_t)ptime_ms * 16, most = frame.wanted_samples > 0 ? frame.wanted_samples : -frame.wanted_samples;
            int32_t moved = (int32_t)(next() % (uint32_t)(most < p ? most + 1 : p + 1));
            uint64_t removed = state->removed_samples, repeated = state->repeated_samples;
            int status = tp_jitter_stretched(state, frame.wanted_samples > 0 ? moved : -moved);
            CHECK(status == TP_OK || (status == TP_E_STATE && moved > 0));
            CHECK(state->removed_samples + state->repeated_samples - removed - repeated ==
                  (status == TP_OK ? (uint64_t)moved : 0));
            CHECK(tp_jitter_stretched(state, 100000000) == TP_E_STATE);
            CHECK(tp_jitter_stretched(state, -100000000) == TP_E_STATE);
        }
        CHECK(tp_jitter_delay_ms(state) <= TP_JITTER_SPAN_MS);
        CHECK(state->target_delay_ms >= config.min_delay_ms && state->target_delay_ms <= config.max_delay_ms);
        CHECK(state->n_gaps <= TP_JITTER_GAPS);
    }
    CHECK(whole_ms == state->emitted_ms && whole_ms > 0);
    free(out);
    free(ring);
    free(state);
    return 0;
}

/* Two days of a 48 kHz clock wrap the timestamp twice, the sequence number 48 times; nothing may be heard of it. */
static int wraps(void) {
    tp_jitter state;
    static uint8_t ring[TP_JITTER_SPAN_MS * 8];
    tp_jitter_config config = {48000, 8, 20, 200, 60, 0};
    uint8_t payload[480] = {0}, out[480];
    CHECK(tp_jitter_init(&state, &config, ring, sizeof ring) == TP_OK);
    uint32_t wraps_seen = 0, timestamp = 2880;
    for (uint32_t i = 0; i < 3200000; i++, timestamp += 2880) {
        wraps_seen += timestamp < 2880;
        int64_t now = (int64_t)i * 60 * MS;
        CHECK(tp_jitter_put(&state, (uint16_t)i, timestamp, 0, payload, sizeof payload, now) == 1);
        tp_jitter_frame frame;
        tp_jitter_get(&state, &frame, out, now + 30 * MS);
        CHECK(frame.kind == TP_JITTER_AUDIO && frame.timestamp == timestamp);
    }
    CHECK(wraps_seen == 2 && state.packets_lost == 0 && state.packets_discarded == 0);
    return 0;
}

int main(void) {
    return limits() || anything(8, 20, 200, 0) || anything(32, 60, 400, 0) || anything(1, 13, 30, 0) ||
           anything(16, 10, 0, 0) || anything(16, 20, 200, 1) || anything(32, 60, 400, 1) || anything(16, 13, 300, 1) || wraps();
}
