#include "tp_rtp.h"

int tp_rtp_read(tp_rtp_header *out, const uint8_t *in, size_t in_bytes) {
    if (in_bytes < TP_RTP_HEADER_BYTES || in_bytes > UINT32_MAX || in[0] >> 6 != 2)
        return TP_E_FORMAT;
    size_t offset = TP_RTP_HEADER_BYTES + 4u * (in[0] & 0x0fu);
    if (in[0] & 0x10u) {
        if (offset + 4 > in_bytes)
            return TP_E_FORMAT;
        offset += 4 + 4 * (size_t)tp_get16be(in + offset + 2);
    }
    if (offset > in_bytes)
        return TP_E_FORMAT;
    size_t padding = 0;
    if (in[0] & 0x20u) {
        /* The last octet counts itself, so 0 is as wrong as more than there is. */
        padding = in[in_bytes - 1];
        if (padding == 0 || padding > in_bytes - offset)
            return TP_E_FORMAT;
    }
    out->timestamp = tp_get32be(in + 4);
    out->ssrc = tp_get32be(in + 8);
    out->seq = tp_get16be(in + 2);
    out->payload_type = in[1] & 0x7fu;
    out->marker = (uint8_t)(in[1] >> 7);
    out->payload_offset = (uint32_t)offset;
    out->payload_bytes = (uint32_t)(in_bytes - offset - padding);
    return TP_OK;
}

int tp_rtp_write(uint8_t *out, size_t out_capacity, const tp_rtp_header *header) {
    if (header->payload_type > 127)
        return TP_E_ARGUMENT;
    if (out_capacity < TP_RTP_HEADER_BYTES)
        return TP_E_ROOM;
    out[0] = 0x80;
    out[1] = (uint8_t)((header->marker ? 0x80u : 0u) | header->payload_type);
    tp_put16be(out + 2, header->seq);
    tp_put32be(out + 4, header->timestamp);
    tp_put32be(out + 8, header->ssrc);
    return TP_RTP_HEADER_BYTES;
}

static const char DIGITS[16] = {'0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '*', '#', 'A', 'B', 'C', 'D'};

int tp_event_code(char digit) {
    char upper = digit >= 'a' && digit <= 'd' ? (char)(digit - 'a' + 'A') : digit;
    for (int code = 0; code < 16; code++)
        if (DIGITS[code] == upper)
            return code;
    return TP_E_ARGUMENT;
}

char tp_event_digit(uint8_t code) { return code < 16 ? DIGITS[code] : '\0'; }

/* How far behind a packet may lie and still be a straggler: 32 s at 8 kHz. Beyond it the sender's clock was set anew, or
 * the last event is so long ago that the order has wrapped; either way it is a new event. */
#define STRAGGLER_UNITS 0x40000
#define SEGMENT_UNITS 0xffffu

void tp_event_receiver_reset(tp_event_receiver *state) { memset(state, 0, sizeof *state); }

static bool behind(uint32_t timestamp, uint32_t reference) {
    int32_t d = tp_ts_diff(timestamp, reference);
    return d <= 0 && d > -STRAGGLER_UNITS;
}

static int report(const tp_event_receiver *state, tp_digit *out, uint8_t ended) {
    out->code = state->code;
    out->volume = state->volume;
    out->ended = ended;
    out->reserved = 0;
    out->duration = state->duration;
    out->timestamp = state->timestamp;
    return 1;
}

/* `newest` is the newest timestamp the event is known to have used: its last segment's. */
static void finish(tp_event_receiver *state, uint32_t newest) {
    state->active = 0;
    state->end_pending = 0;
    state->has_last = 1;
    state->last_timestamp = newest;
}

static uint32_t newest_segment(const tp_event_receiver *state) {
    uint32_t segments = state->duration ? (state->duration - 1) / SEGMENT_UNITS : 0;
    return state->timestamp + segments * SEGMENT_UNITS;
}

int tp_event_receiver_receive(tp_event_receiver *state, tp_digit *out, const uint8_t *payload, size_t payload_bytes,
                              uint32_t timestamp, int64_t now) {
    if (payload_bytes < TP_EVENT_PAYLOAD_BYTES) {
        state->n_malformed++;
        return TP_E_FORMAT;
    }
    uint8_t code = payload[0];
    bool end = (payload[1] & 0x80u) != 0;
    uint32_t duration = tp_get16be(payload + 2);
    if (code > 15 || (state->has_last && behind(timestamp, state->last_timestamp)))
        return 0;

    if (state->active) {
        uint32_t offset = timestamp - state->timestamp;
        bool same = offset == 0;
        /* RFC 4733 2.5.1.3: the next segment begins exactly where 65535 units ended. Of two segments on, the one between
         * may have been lost whole. */
        if (offset > 0 && code == state->code && offset % SEGMENT_UNITS == 0 &&
            offset <= state->duration + 2 * SEGMENT_UNITS)
            same = true;
        if (same) {
            if (offset + duration > state->duration)
                state->duration = offset + duration;
            state->last_arrived_ns = now;
            if (!end)
                return 0;
            report(state, out, 1);
            finish(state, timestamp);
            return 1;
        }
        if (behind(timestamp, state->timestamp))
            return 0;
    }

    int n = 0;
    if (state->active) {
        uint8_t how = state->end_pending ? 1 : 2;
        if (how == 2)
            state->n_lost_ends++;
        n += report(state, out, how);
        finish(state, newest_segment(state));
    }
    state->active = 1;
    state->code = code;
    state->volume = payload[1] & 0x3fu;
    state->timestamp = timestamp;
    state->duration = duration;
    state->last_arrived_ns = now;
    state->n_events++;
    n += report(state, out + n, 0);
    if (end && n < 2) {
        n += report(state, out + n, 1);
        finish(state, timestamp);
    } else if (end) {
        state->end_pending = 1;
    }
    return n;
}

int tp_event_receiver_tick(tp_event_receiver *state, tp_digit *out, int64_t now) {
    if (!state->active)
        return 0;
    if (!state->end_pending && now - state->last_arrived_ns < TP_EVENT_SILENCE_NS)
        return 0;
    if (!state->end_pending)
        state->n_lost_ends++;
    report(state, out, state->end_pending ? 1 : 2);
    finish(state, newest_segment(state));
    return 1;
}

void tp_event_sender_init(tp_event_sender *state, uint32_t clock_rate_hz, uint32_t ptime_samples) {
    memset(state, 0, sizeof *state);
    state->clock_rate_hz = clock_rate_hz;
    state->ptime_samples = ptime_samples;
}

int tp_event_sender_queue(tp_event_sender *state, const char *digits, size_t n, uint32_t on_ms, uint32_t off_ms) {
    uint64_t on_units = (uint64_t)on_ms * state->clock_rate_hz / 1000;
    if (on_units == 0 || on_units > SEGMENT_UNITS || on_ms > UINT16_MAX || off_ms > UINT16_MAX)
        return TP_E_ARGUMENT;
    for (size_t i = 0; i < n; i++)
        if (tp_event_code(digits[i]) < 0)
            return TP_E_ARGUMENT;
    if (n > (size_t)(TP_EVENT_QUEUE - state->count))
        return TP_E_FULL;
    for (size_t i = 0; i < n; i++) {
        unsigned at = ((unsigned)state->head + state->count) % TP_EVENT_QUEUE;
        state->codes[at] = (uint8_t)tp_event_code(digits[i]);
        state->on_ms[at] = (uint16_t)on_ms;
        state->off_ms[at] = (uint16_t)off_ms;
        state->count++;
    }
    return (int)n;
}

void tp_event_sender_clear(tp_event_sender *state) {
    /* The present digit lies at the head while it sounds; its code is needed until its last end packet. */
    state->count = state->state == TP_SENDER_IDLE ? 0 : 1;
}

bool tp_event_sender_busy(const tp_event_sender *state) { return state->count > 0; }

static int packet(const tp_event_sender *state, uint8_t payload[4], uint32_t *timestamp, bool end) {
    uint32_t duration = state->state == TP_SENDER_ON && state->elapsed < state->on_samples ? state->elapsed
                                                                                        : state->on_samples;
    payload[0] = state->codes[state->head];
    payload[1] = (uint8_t)((end ? 0x80u : 0u) | TP_EVENT_VOLUME);
    tp_put16be(payload + 2, (uint16_t)duration);
    *timestamp = state->timestamp;
    return 1;
}

static void next_digit(tp_event_sender *state) {
    state->state = TP_SENDER_IDLE;
    state->elapsed = 0;
    state->head = (uint8_t)((state->head + 1u) % TP_EVENT_QUEUE);
    state->count--;
}

int tp_event_sender_tick(tp_event_sender *state, uint8_t payload[4], uint32_t *timestamp, uint8_t *marker,
                         uint32_t now_timestamp) {
    *marker = 0;
    if (state->state == TP_SENDER_IDLE) {
        if (state->count == 0)
            return 0;
        state->state = TP_SENDER_ON;
        state->elapsed = 0;
        state->timestamp = now_timestamp;
        state->on_samples = (uint32_t)((uint64_t)state->on_ms[state->head] * state->clock_rate_hz / 1000);
        state->off_samples = (uint32_t)((uint64_t)state->off_ms[state->head] * state->clock_rate_hz / 1000);
        *marker = 1;
    }
    state->elapsed += state->ptime_samples;
    if (state->state == TP_SENDER_ON) {
        bool end = state->elapsed >= state->on_samples;
        packet(state, payload, timestamp, end);
        if (!end)
            return 1;
        /* RFC 4733 2.5.1.4: three times, at the interval of the updates, as far as the gap reaches. */
        uint32_t gap_ticks = (state->off_samples + state->ptime_samples - 1) / state->ptime_samples;
        state->ends_left = (uint8_t)(gap_ticks < 2 ? gap_ticks : 2);
        state->state = TP_SENDER_GAP;
        state->elapsed = 0;
        int together = 3 - state->ends_left;
        if (state->off_samples == 0)
            next_digit(state);
        return together;
    }
    int n = 0;
    if (state->ends_left) {
        state->ends_left--;
        n = packet(state, payload, timestamp, true);
    }
    if (state->elapsed >= state->off_samples)
        next_digit(state);
    return n;
}
