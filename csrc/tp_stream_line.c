#include "tp_stream_own.h"

#define NS_PER_S 1000000000LL

static int64_t model_end(const tp_stream *s) {
    int64_t rate = (int64_t)tp_stream_played_format(s->config).rate_hz;
    return s->model_start + (int64_t)(s->sent - s->model_start_sent) * NS_PER_S / rate;
}

/* Samples of the next message; 0 at a mark or at the end. Never more than may be ahead at once. */
static size_t next_message(const tp_stream *s) {
    const tp_stream_config *config = s->config;
    uint64_t left = tp_stream_again(s);
    size_t n = left != 0 ? (size_t)left : tp_playout_readable(&s->playout);
    size_t per_ms = tp_stream_played_format(config).rate_hz / 1000u;
    uint32_t long_ms = config->most_message_ms != 0 ? config->most_message_ms : TP_STREAM_LONG_MESSAGE_MS;
    bool much = left >= (uint64_t)long_ms * per_ms ||
                s->playout.waiting >= (uint64_t)long_ms * (TP_PLAYOUT_UNITS_HZ / 1000u);
    size_t most = much ? long_ms * per_ms : s->message_samples;
    if (most > config->send_ahead_ms * per_ms) most = config->send_ahead_ms * per_ms;
    return n < most ? n : most;
}

/* When n samples can be sent: they end no later than send_ahead_ms from then, played after what was sent before. */
static int64_t may_send(const tp_stream *s, size_t n) {
    return model_end(s) + (int64_t)n * NS_PER_S / (int64_t)tp_stream_played_format(s->config).rate_hz -
           (int64_t)s->config->send_ahead_ms * 1000000;
}

/* The next n samples: from the tail while there is something to be sent again, else from the queue, and into the tail. */
static void next_payload(tp_stream *s, uint32_t encoding, uint8_t *payload, size_t n) {
    bool from_tail = tp_stream_again(s) != 0;
    if (!from_tail) (void)tp_playout_read(&s->playout, encoding, payload, n);
    if (s->tail == NULL) return;
    size_t size = tp_sample_bytes(encoding), bytes = n * size;
    size_t at = (size_t)(s->sent * size % s->tail_bytes);
    if (from_tail) {
        tp_ring_read(s->tail, s->tail_bytes, at, payload, bytes);
        return;
    }
    tp_ring_write(s->tail, s->tail_bytes, at, payload, bytes);
    s->tail_end = s->sent + n;
    uint64_t kept = s->tail_bytes / size;
    if (s->tail_end - s->tail_from > kept) s->tail_from = s->tail_end - kept;
}

int tp_stream_tick(tp_stream *s, uint32_t slot, int64_t now, tp_outbox *out) {
    const tp_stream_config *config = s->config;
    const tp_format format = tp_stream_played_format(config);
    int flags = 0;
    s->last_now = now;
    if (s->alarm <= now) {
        s->alarm = INT64_MAX;
        s->alarm_pending = 1;
    }
    while (!s->closed && !s->playout.paused && !s->due_pending && config->templates[0] != NULL) {
        if (tp_stream_again(s) == 0 && tp_playout_pop_due(&s->playout, &s->due_id)) {
            s->due_pending = 1;
            break;
        }
        size_t n = next_message(s);
        int64_t end = model_end(s);
        if (n == 0 || may_send(s, n) > now) break;
        size_t room = tp_media_message_room(config->templates[0], n * tp_sample_bytes(format.encoding));
        if (out->capacity - out->used < room || out->outputs_capacity == out->n_outputs) {
            if ((flags & TP_TICK_OUTPUT) == 0) return TP_E_ROOM;
            break;
        }
        uint8_t payload[TP_STREAM_LONG_MESSAGE_MS * TP_STREAM_MAX_RATE_PER_MS * 2u];
        next_payload(s, format.encoding, payload, n);
        tp_stream_write_message(s, 0, payload, n, (int64_t)s->sent, format.rate_hz, slot, 0, out);
        if (now >= end) {
            s->model_start = now;
            s->model_start_sent = s->sent;
        }
        s->sent += n;
        flags |= TP_TICK_OUTPUT;
    }
    tp_stream_low_check(s);
    if (s->due_pending) flags |= TP_TICK_MARK_DUE;
    if (tp_stream_has_events(s)) flags |= TP_TICK_EVENTS;
    return flags;
}

int64_t tp_stream_next_deadline(const tp_stream *s) {
    int64_t when = s->alarm;
    if (!s->closed && !s->playout.paused) {
        bool sends_again = tp_stream_again(s) != 0;
        if (s->due_pending || (!sends_again && tp_playout_mark_is_due(&s->playout))) return s->last_now;
        if (sends_again || s->playout.waiting != 0) {
            int64_t send = may_send(s, next_message(s));
            if (send < when) when = send;
        }
    }
    return when > s->last_now ? when : s->last_now;
}

void tp_stream_want_low(tp_stream *s, uint64_t samples) {
    s->low_wanted = s->closed ? 0 : samples;
    s->low_pending = 0;
}

void tp_stream_set_alarm(tp_stream *s, int64_t at) {
    s->alarm = s->closed ? INT64_MAX : at;
    s->alarm_pending = 0;
}

uint64_t tp_stream_model_played(const tp_stream *s, int64_t now) {
    int64_t left_ns = model_end(s) - (now < s->held_at ? now : s->held_at);
    if (left_ns <= 0) return s->sent;
    int64_t rate = (int64_t)tp_stream_played_format(s->config).rate_hz;
    uint64_t left = (uint64_t)((left_ns / NS_PER_S) * rate + (left_ns % NS_PER_S * rate + NS_PER_S - 1) / NS_PER_S);
    return s->sent > left ? s->sent - left : 0;
}

uint64_t tp_stream_sent_samples(const tp_stream *s) { return s->sent; }

int64_t tp_stream_hold(tp_stream *s, int held, int64_t now) {
    if (s->config->role != TP_ROLE_APPLICATION || (held != 0) == (s->held_at != INT64_MAX)) return 0;
    if (held) {
        s->held_at = now;
        s->playout.paused = 1;
        return 0;
    }
    int64_t for_ns = now > s->held_at ? now - s->held_at : 0;
    if (model_end(s) > s->held_at) s->model_start += for_ns; /* else all of it had been played before */
    s->held_at = INT64_MAX;
    s->playout.paused = 0;
    return for_ns;
}

int tp_stream_keep_tail(tp_stream *s, uint8_t *ring, uint32_t ring_bytes) {
    if (s->config->role != TP_ROLE_APPLICATION) return TP_E_STATE;
    tp_format format = tp_stream_played_format(s->config);
    uint32_t size = tp_sample_bytes(format.encoding);
    uint32_t least = TP_STREAM_LONG_MESSAGE_MS * (format.rate_hz / 1000u) * size;
    if (ring_bytes < least || ring_bytes % size != 0) return TP_E_ARGUMENT;
    s->tail = ring;
    s->tail_bytes = ring_bytes;
    s->tail_from = s->tail_end = s->sent;
    return TP_OK;
}

uint64_t tp_stream_rewind(tp_stream *s) {
    if (s->held_at == INT64_MAX || s->tail == NULL || s->closed) return 0;
    uint64_t played = tp_stream_model_played(s, s->held_at);
    uint64_t from = played > s->tail_from ? played : s->tail_from;
    if (from < s->sent) {
        if (s->tail_end < s->sent) s->tail_end = s->sent;
        s->sent = from;
        s->model_start = s->held_at;
        s->model_start_sent = from;
    }
    return tp_stream_again(s);
}

void tp_stream_model(const tp_stream *s, tp_model *model) {
    *model = (tp_model){s->sent, s->model_start_sent, s->model_start, s->held_at};
}

size_t tp_stream_tail_read(const tp_stream *s, uint8_t *out, size_t out_capacity, uint64_t *from) {
    uint32_t size = tp_sample_bytes(tp_stream_played_format(s->config).encoding);
    uint64_t oldest = s->tail != NULL ? s->tail_from : s->sent;
    if (*from < oldest) *from = oldest;
    if (*from >= s->sent) return 0;
    size_t n = s->sent - *from < out_capacity / size ? (size_t)(s->sent - *from) : out_capacity / size;
    tp_ring_read(s->tail, s->tail_bytes, (size_t)(*from * size % s->tail_bytes), out, n * size);
    *from += n;
    return n;
}
