#include "tp_path_own.h"

#define NS_PER_MS 1000000LL
#define MAKE_UP_NS (60 * NS_PER_MS)
#define PCM_WAITING_MS 200u

size_t tp_path_sizeof(void) { return sizeof(tp_path); }

static bool config_is_right(const tp_path_config *config) {
    if (config->ptime_ms < 10 || config->ptime_ms > 60 || !tp_playout_carries(config->leg_format)) return false;
    if (config->leg_kind == TP_LEG_PCM) return config->leg_format.encoding == TP_ENCODING_L16LE;
    return config->leg_kind == TP_LEG_RTP && config->leg_format.rate_hz <= 16000 && config->payload_type < 128;
}

size_t tp_path_jitter_bytes(const tp_path_config *config) {
    if (!config_is_right(config)) return 0;
    uint32_t per_ms = config->leg_format.rate_hz / 1000 * tp_sample_bytes(config->leg_format.encoding);
    return (size_t)per_ms * (config->leg_kind == TP_LEG_PCM ? PCM_WAITING_MS : TP_JITTER_SPAN_MS + TP_PATH_RECENT_MS);
}

static void measure_room(tp_path *path) {
    uint32_t rtp = TP_RTP_HEADER_BYTES + path->frame_bytes;
    uint32_t events = 3 * (TP_RTP_HEADER_BYTES + 4);
    path->room_bytes = rtp > events ? rtp : events;
    path->room_outputs = 3;
    for (unsigned i = 0; i < TP_PATH_STREAMS; i++) {
        if (path->streams[i] == NULL) continue;
        uint32_t n_outputs;
        path->room_bytes += (uint32_t)tp_stream_room(path->streams[i], &n_outputs);
        path->room_outputs += n_outputs;
    }
}

int tp_path_init(tp_path *path, tp_pool *pool, const tp_path_config *config, uint8_t *jitter_bytes, int64_t now) {
    (void)pool; /* a path queues nothing itself; its streams do */
    size_t bytes = tp_path_jitter_bytes(config);
    if (bytes == 0 || jitter_bytes == NULL || now < 0) return TP_E_ARGUMENT;
    memset(path, 0, sizeof *path);
    path->config = *config;
    uint32_t rate = config->leg_format.rate_hz;
    path->frame_samples = rate / 1000 * config->ptime_ms;
    path->frame_bytes = path->frame_samples * tp_sample_bytes(config->leg_format.encoding);
    path->ptime_ns = config->ptime_ms * NS_PER_MS;
    int64_t phase = config->phase_ns % path->ptime_ns;
    path->deadline = now <= phase ? phase : (now - phase + path->ptime_ns - 1) / path->ptime_ns * path->ptime_ns + phase;
    path->direction = TP_DIRECTION_BOTH;
    path->seq = config->first_seq;
    path->last_media = now;
    for (uint32_t i = 0; i < TP_PATH_STREAMS; i++) tp_gain_init(&path->gains[i], path->frame_samples);
    (void)tp_limiter_init(&path->limiter, rate);
    if (config->inband_digits && tp_tone_init(&path->tone, rate) != TP_OK) return TP_E_ARGUMENT;
    measure_room(path);
    if (config->leg_kind == TP_LEG_PCM) {
        path->pcm = jitter_bytes;
        path->pcm_capacity = rate / 1000 * PCM_WAITING_MS;
        return TP_OK;
    }
    tp_jitter_config jitter = {rate, path->frame_bytes / config->ptime_ms, config->jitter_min_ms, config->jitter_max_ms,
                               config->ptime_ms, 1};
    path->recent_capacity = TP_PATH_RECENT_MS * jitter.bytes_per_ms;
    path->recent = jitter_bytes + bytes - path->recent_capacity;
    int status = tp_jitter_init(&path->jitter, &jitter, jitter_bytes, bytes - path->recent_capacity);
    if (status != TP_OK) return status;
    tp_event_receiver_reset(&path->events_in);
    tp_noise_reset(&path->noise, TP_PATH_NOISE_SEED);
    tp_event_sender_init(&path->events_out, rate, path->frame_samples);
    return tp_plc_init(&path->plc, rate);
}

int tp_path_attach(tp_path *path, unsigned stream, tp_stream *state) {
    if (path->closed) return TP_E_STATE;
    if (stream >= TP_PATH_STREAMS || path->streams[stream] != NULL) return TP_E_ARGUMENT;
    if (state->leg_rate_hz != path->config.leg_format.rate_hz) return TP_E_ARGUMENT;
    int status = tp_stream_attach(state, path->config.ptime_ms, path->clock);
    if (status != TP_OK) return status;
    path->streams[stream] = state;
    measure_room(path);
    return TP_OK;
}

void tp_path_detach(tp_path *path, unsigned stream) {
    if (stream >= TP_PATH_STREAMS || path->streams[stream] == NULL) return;
    tp_stream_close(path->streams[stream], path->clock);
    path->streams[stream] = NULL;
    tp_gain_init(&path->gains[stream], path->frame_samples);
    /* Digits of its own that have not begun go with it; among others' they cannot be told apart. */
    if (path->digits_by == 1u << stream) tp_event_sender_clear(&path->events_out);
    path->digits_by &= ~(1u << stream);
    path->digits_sent_pending &= ~(1u << stream);
    measure_room(path);
}

void tp_path_close(tp_path *path) {
    (void)tp_path_tap(path, NULL, 0);
    for (unsigned i = 0; i < TP_PATH_STREAMS; i++) tp_path_detach(path, i);
    path->tape = NULL;
    path->closed = 1;
}

uint32_t tp_path_room(const tp_path *path, uint32_t *n_outputs) {
    *n_outputs = path->room_outputs;
    return path->room_bytes;
}

/* ---- commands ---- */

int tp_path_record(tp_path *path, tp_tape *tape) {
    if (path->closed) return TP_E_STATE;
    path->tape = tape;
    return TP_OK;
}

size_t tp_path_read_tape(const tp_tape *tape, int16_t *out, size_t capacity, int64_t *from, int64_t *lost) {
    return tp_tape_read(tape, out, capacity, from, lost);
}

void tp_path_hold(tp_path *path, uint32_t direction) {
    bool received = (path->direction & TP_DIRECTION_RECEIVE) != 0;
    bool receives = (direction & TP_DIRECTION_RECEIVE) != 0;
    bool sent = (path->direction & TP_DIRECTION_SEND) != 0;
    path->direction = direction & TP_DIRECTION_BOTH;
    if (receives && !received && path->config.leg_kind == TP_LEG_RTP) tp_path_forget_source(path);
    if (!receives) path->pcm_count = 0;
    if (sent && (direction & TP_DIRECTION_SEND) == 0) path->marker = 1;
}

/* ---- the tick ---- */

static void skip_missed(tp_path *path, int64_t now, tp_outbox *out) {
    int64_t late = now - path->deadline;
    if (late <= MAKE_UP_NS) return;
    int64_t missed = late / path->ptime_ns;
    path->deadline += missed * path->ptime_ns;
    path->clock += missed * path->frame_samples;
    path->counters.loop_stall_samples += (uint64_t)missed * path->frame_samples;
    tp_path_tap_missed(path, (uint64_t)missed * path->frame_samples);
    path->marker = 1;
    for (uint32_t i = 0; i < TP_PATH_STREAMS; i++) {
        if (path->streams[i] != NULL) tp_stream_break(path->streams[i], path->config.slot, i, out);
    }
}

static int event_flags(const tp_path *path) {
    if (path->n_digits != 0 || path->digits_sent_pending != 0 || path->timeout_pending || path->tap_pending) {
        return TP_TICK_EVENTS;
    }
    for (uint32_t i = 0; i < TP_PATH_STREAMS; i++) {
        if (path->streams[i] != NULL && tp_stream_has_events(path->streams[i])) return TP_TICK_EVENTS;
    }
    return 0;
}

static void watch_media(tp_path *path, int64_t now) {
    if (path->config.leg_kind != TP_LEG_RTP) return;
    tp_digit ended;
    (void)tp_event_receiver_tick(&path->events_in, &ended, now);
    if ((path->direction & TP_DIRECTION_RECEIVE) == 0) path->last_media = now;
    if (path->config.media_timeout_ms == 0 || path->timed_out) return;
    if (now - path->last_media >= path->config.media_timeout_ms * NS_PER_MS) {
        path->timed_out = path->timeout_pending = 1;
    }
}

int tp_path_tick(tp_path *path, int64_t now, tp_outbox *out) {
    if (path->closed || now < path->deadline) return event_flags(path);
    if (out->capacity - out->used < path->room_bytes || out->outputs_capacity - out->n_outputs < path->room_outputs) {
        return TP_E_ROOM;
    }
    uint32_t n_outputs = out->n_outputs;
    int64_t clock = path->clock;
    skip_missed(path, now, out);
    if (path->config.inband_digits && path->clock != clock) {
        tp_tone_event event;
        tp_tone_fillin(&path->tone, &event, (size_t)(path->clock - clock));
    }

    int16_t pcm[TP_PATH_MAX_FRAME];
    uint8_t payload[2 * TP_PATH_MAX_FRAME];
    tp_frame frame = {.format = path->config.leg_format, .pcm = pcm, .n = path->frame_samples, .at = path->clock};
    tp_path_receive_frame(path, &frame, payload);
    for (uint32_t i = 0; i < TP_PATH_STREAMS; i++) {
        if (path->streams[i] == NULL) continue;
        tp_stream_send_frame(path->streams[i], TP_TRACK_INBOUND, &frame, path->config.slot, i, out);
    }
    int16_t inbound[TP_PATH_MAX_FRAME];
    if (path->tape != NULL) memcpy(inbound, tp_frame_pcm(&frame), frame.n * sizeof *inbound);

    frame = (tp_frame){.format = path->config.leg_format, .pcm = pcm, .n = path->frame_samples, .at = path->clock};
    tp_path_send_frame(path, &frame, payload, out);
    if (path->tape != NULL) tp_tape_write(path->tape, path->clock, inbound, tp_frame_pcm(&frame), frame.n);
    path->clock += path->frame_samples;
    for (uint32_t i = 0; i < TP_PATH_STREAMS; i++) {
        if (path->streams[i] == NULL) continue;
        tp_stream_send_frame(path->streams[i], TP_TRACK_OUTBOUND, &frame, path->config.slot, i, out);
        path->streams[i]->clock = path->clock;
    }
    watch_media(path, now);
    path->counters.ticks++;
    path->deadline += path->ptime_ns;
    return event_flags(path) | (out->n_outputs != n_outputs ? TP_TICK_OUTPUT : 0);
}

int tp_path_tick_many(tp_path *const *paths, size_t count, int64_t now, tp_outbox *out, uint8_t *flags) {
    for (size_t i = 0; i < count; i++) {
        flags[i] = 0;
        do {
            int status = tp_path_tick(paths[i], now, out);
            if (status < 0) return (int)i;
            flags[i] |= (uint8_t)status;
        } while (!paths[i]->closed && now >= paths[i]->deadline);
    }
    return (int)count;
}

int tp_path_next_event(tp_path *path, tp_event *event) {
    memset(event, 0, sizeof *event);
    event->stream = -1;
    event->at_sample = path->clock;
    if (path->n_digits != 0) {
        const tp_path_digit *digit = &path->digits[path->first_digit];
        path->first_digit = (path->first_digit + 1) % TP_PATH_DIGITS;
        path->n_digits--;
        event->kind = TP_EVENT_DIGIT;
        event->at_sample = digit->at_sample;
        event->value = digit->digit;
        return 1;
    }
    if (path->timeout_pending) {
        path->timeout_pending = 0;
        event->kind = TP_EVENT_MEDIA_TIMEOUT;
        return 1;
    }
    if (path->tap_pending) {
        path->tap_pending = 0;
        event->kind = TP_EVENT_HEARD;
        event->value = (int64_t)path->tapped;
        return 1;
    }
    for (uint32_t i = 0; path->digits_sent_pending != 0; i++) {
        if ((path->digits_sent_pending & 1u << i) == 0) continue;
        path->digits_sent_pending &= ~(1u << i);
        event->kind = TP_EVENT_DIGITS_SENT;
        event->stream = i < TP_PATH_STREAMS ? (int32_t)i : -1;
        return 1;
    }
    for (uint32_t i = 0; i < TP_PATH_STREAMS; i++) {
        if (path->streams[i] == NULL || tp_stream_next_event(path->streams[i], event) != 1) continue;
        event->stream = (int32_t)i;
        return 1;
    }
    return 0;
}

int64_t tp_path_next_deadline(const tp_path *path) { return path->closed ? INT64_MAX : path->deadline; }
int64_t tp_path_clock(const tp_path *path) { return path->clock; }
const tp_path_counters *tp_path_statistics(const tp_path *path) { return &path->counters; }
const tp_jitter *tp_path_jitter(const tp_path *path) { return &path->jitter; }
