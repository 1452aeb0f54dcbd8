#include "tp_stream_own.h"

#include "tp_g711.h"

#define MESSAGE_MAX_MS 2000u
#define MAX_FRAME_SAMPLES (60u * TP_STREAM_MAX_RATE_PER_MS)

size_t tp_stream_sizeof(void) { return sizeof(tp_stream); }

static tp_format sent_format(const tp_stream_config *config) {
    return config->role == TP_ROLE_PLATFORM ? config->format : tp_stream_played_format(config);
}

int tp_stream_init(tp_stream *s, tp_pool *pool, const tp_stream_config *config, uint32_t leg_rate_hz, int64_t now) {
    bool application = config->role == TP_ROLE_APPLICATION;
    if (!application && config->role != TP_ROLE_PLATFORM) return TP_E_ARGUMENT;
    if (!tp_playout_carries(config->format) || !tp_playout_carries(tp_stream_played_format(config))) return TP_E_ARGUMENT;
    if (config->most_message_ms > TP_STREAM_LONG_MESSAGE_MS) return TP_E_ARGUMENT;
    uint32_t longest_ms = application ? TP_STREAM_LONG_MESSAGE_MS : MESSAGE_MAX_MS;
    if (config->message_ms == 0 || config->message_ms > longest_ms) return TP_E_ARGUMENT;
    for (uint32_t i = 0; i < 2; i++) {
        if (!application && (config->tracks & 1u << i) != 0 && config->templates[i] == NULL) return TP_E_ARGUMENT;
    }
    memset(s, 0, sizeof *s);
    s->config = config;
    s->leg_rate_hz = application ? tp_stream_played_format(config).rate_hz : leg_rate_hz;
    s->message_samples = config->message_ms * (sent_format(config).rate_hz / 1000);
    s->sequence = 1;
    s->mask_state = config->mask_seed != 0 ? config->mask_seed : 0x9e3779b97f4a7c15u;
    s->fill_armed = 15;
    s->last_now = s->model_start = now;
    s->alarm = s->held_at = INT64_MAX;
    for (uint32_t i = 0; i < 2; i++) s->senders[i].chunk = 1;
    return tp_playout_open(&s->playout, pool, tp_stream_played_format(config), config->reserve_ms, config->bound_ms,
                           s->leg_rate_hz);
}

void tp_stream_close(tp_stream *s, int64_t at_sample) {
    if (s->closed) return;
    s->closed = 1;
    s->alarm = INT64_MAX;
    s->low_wanted = 0;
    s->tail = NULL;
    s->tail_end = s->sent;
    tp_playout_close(&s->playout, at_sample);
}

/* ---- the playout ---- */

int tp_stream_mark(tp_stream *s, int64_t id) {
    if (s->closed) return TP_E_STATE;
    int status = tp_playout_mark(&s->playout, id, s->config->role == TP_ROLE_APPLICATION ? (int64_t)s->sent : s->clock);
    if (status == TP_E_FULL) s->counters.marks_refused++;
    return status;
}

uint64_t tp_stream_queued_samples(const tp_stream *s) { return s->playout.written - s->playout.read + tp_stream_again(s); }

int64_t tp_stream_clear(tp_stream *s, int64_t at_sample) {
    uint64_t dropped = tp_playout_clear(&s->playout, at_sample) + tp_stream_again(s);
    s->tail_end = s->sent;
    tp_stream_low_check(s);
    s->counters.samples_cleared += dropped;
    (void)tp_stream_hold(s, 0, s->last_now);
    s->model_start_sent = s->sent; /* nothing of ours is left to play */
    s->model_start = s->last_now;
    return (int64_t)dropped;
}

void tp_stream_pause(tp_stream *s, int paused) { s->playout.paused = paused != 0; }

uint64_t tp_stream_queued_us(const tp_stream *s) { return s->playout.waiting * 1000u / (TP_PLAYOUT_UNITS_HZ / 1000u); }

uint32_t tp_stream_pool_bytes(const tp_stream *s) {
    return (s->playout.audio.n_blocks + s->playout.marks.n_blocks) * TP_BLOCK_BYTES;
}

const tp_stream_counters *tp_stream_statistics(const tp_stream *s) { return &s->counters; }

uint64_t tp_stream_take_sequence(tp_stream *s) { return s->sequence++; }

void tp_stream_played(tp_stream *s, uint64_t n_read, size_t n_audio, size_t n) {
    s->counters.samples_played += n_read;
    if (tp_playout_ran_dry(&s->playout, n_audio, n)) {
        s->counters.underruns++;
        s->underruns_pending++;
    }
}

/* ---- events ---- */

bool tp_stream_has_events(const tp_stream *s) {
    return tp_playout_has_outcome(&s->playout) || s->underruns_pending != 0 ||
           (s->fill_pending | s->audio_pending | s->due_pending | s->low_pending | s->alarm_pending) != 0;
}

uint32_t tp_stream_take_audio(tp_stream *s) {
    uint32_t tracks = s->audio_pending;
    s->audio_pending = 0;
    if (!tp_stream_has_events(s)) return tracks;
    s->audio_pending = tracks;
    return 0;
}

int tp_stream_next_event(tp_stream *s, tp_event *event) {
    memset(event, 0, sizeof *event);
    event->at_sample = s->clock;
    int64_t id, at;
    int outcome = tp_playout_next_mark(&s->playout, &id, &at);
    if (outcome != TP_OUTCOME_PENDING) {
        event->kind = TP_EVENT_MARK;
        event->id = id;
        event->value = outcome;
        event->at_sample = at;
        return 1;
    }
    if (s->due_pending) {
        s->due_pending = 0;
        event->kind = TP_EVENT_MARK_DUE;
        event->id = s->due_id;
        event->at_sample = (int64_t)s->sent;
        return 1;
    }
    for (uint32_t i = 0; s->fill_pending != 0; i++) {
        if ((s->fill_pending & 1u << i) == 0) continue;
        s->fill_pending &= ~(1u << i);
        event->kind = TP_EVENT_FILL;
        event->value = tp_stream_fill_percent[i];
        if (tp_stream_fill_percent[i] == 100) {
            event->id = (int64_t)s->fill_dropped;
            s->fill_dropped = 0;
        }
        return 1;
    }
    if (s->underruns_pending != 0) {
        event->kind = TP_EVENT_UNDERRUN;
        event->value = (int64_t)s->underruns_pending;
        s->underruns_pending = 0;
        return 1;
    }
    if (s->audio_pending != 0) {
        event->kind = TP_EVENT_AUDIO;
        event->value = s->audio_pending;
        s->audio_pending = 0;
        return 1;
    }
    if (s->low_pending) {
        s->low_pending = 0;
        event->kind = TP_EVENT_LOW;
        return 1;
    }
    if (s->alarm_pending) {
        s->alarm_pending = 0;
        event->kind = TP_EVENT_ALARM;
        return 1;
    }
    return 0;
}

/* ---- messages that go out ---- */

static const uint8_t *next_mask(tp_stream *s, uint8_t key[4]) {
    if (!s->config->masked || s->config->framing == TP_FRAMING_NONE) return NULL;
    s->mask_state ^= s->mask_state << 13;
    s->mask_state ^= s->mask_state >> 7;
    s->mask_state ^= s->mask_state << 17;
    tp_put32be(key, (uint32_t)(s->mask_state * 0x2545f4914f6cdd1du >> 32)); /* xorshift64*: its upper half is the good one */
    return key;
}

void tp_stream_write_message(tp_stream *s, uint32_t i, const uint8_t *payload, size_t n, int64_t first, uint32_t rate_hz,
                             uint32_t slot, uint32_t index, tp_outbox *out) {
    const tp_stream_config *config = s->config;
    uint8_t key[4];
    tp_media_numbers numbers = {s->sequence++, s->senders[i].chunk++,
                                (config->timestamp_from_zero ? 0 : config->timestamp_base_ms) +
                                    (uint64_t)first * 1000u / rate_hz,
                                (uint64_t)first * sent_format(config).rate_hz / rate_hz};
    ptrdiff_t bytes = tp_media_message_write(out->bytes + out->used, out->capacity - out->used, config->templates[i],
                                             &numbers, payload, n * tp_sample_bytes(sent_format(config).encoding),
                                             next_mask(s, key));
    if (bytes < 0) return;
    uint32_t head = 0;
    if (config->framing == TP_FRAMING_NONE) { /* the text alone: another transport frames it */
        tp_websocket_frame frame;
        (void)tp_websocket_read_header(&frame, out->bytes + out->used, (size_t)bytes);
        head = frame.header_bytes;
    }
    out->outputs[out->n_outputs++] =
        (tp_output){out->used + head, (uint32_t)bytes - head, slot, TP_OUTPUT_MESSAGE, (uint16_t)index};
    out->used += (uint32_t)bytes;
    s->counters.messages_out++;
    s->counters.samples_out += n;
    s->counters.bytes_out += (uint64_t)bytes - head;
}

const int16_t *tp_frame_pcm(tp_frame *frame) {
    if (!frame->has_pcm) {
        if (frame->silent) {
            memset(frame->pcm, 0, frame->n * sizeof *frame->pcm);
        } else {
            (void)tp_g711_decode(frame->format.encoding, frame->pcm, frame->bytes, frame->n);
        }
        frame->has_pcm = 1;
    }
    return frame->pcm;
}

static bool is_sent(const tp_stream *s, uint32_t i) {
    return s->config->role == TP_ROLE_PLATFORM && (s->config->tracks & 1u << i) != 0;
}

static bool resamples(const tp_stream *s) { return s->leg_rate_hz != s->config->format.rate_hz; }

static size_t message_bytes(const tp_stream *s) {
    return (size_t)s->message_samples * tp_sample_bytes(s->config->format.encoding);
}

size_t tp_stream_lent_bytes(const tp_stream *s, uint32_t ptime_ms) {
    size_t bytes = (resamples(s) ? sizeof(tp_resample) : 0) + (s->config->message_ms > ptime_ms ? message_bytes(s) : 0);
    return bytes * (size_t)(is_sent(s, 0) + is_sent(s, 1));
}

int tp_stream_lend(tp_stream *s, uint32_t ptime_ms, uint8_t *bytes, size_t capacity) {
    if (capacity < tp_stream_lent_bytes(s, ptime_ms)) return TP_E_ROOM;
    for (uint32_t i = 0; resamples(s) && i < 2; i++) {
        if (!is_sent(s, i)) continue;
        s->senders[i].resampler = (tp_resample *)(void *)bytes;
        int status = tp_resample_init(s->senders[i].resampler, s->leg_rate_hz, s->config->format.rate_hz);
        if (status != TP_OK) return status;
        bytes += sizeof(tp_resample);
    }
    for (uint32_t i = 0; s->config->message_ms > ptime_ms && i < 2; i++) {
        if (!is_sent(s, i)) continue;
        s->senders[i].assembly = bytes;
        bytes += message_bytes(s);
    }
    return TP_OK;
}

int tp_stream_attach(tp_stream *s, uint32_t ptime_ms, int64_t clock) {
    const tp_stream_config *config = s->config;
    if (config->role != TP_ROLE_PLATFORM || s->closed || config->message_ms % ptime_ms != 0) return TP_E_ARGUMENT;
    bool assembles = config->message_ms > ptime_ms;
    if (assembles && message_bytes(s) * (size_t)(is_sent(s, 0) + is_sent(s, 1)) > TP_STREAM_ASSEMBLY_BYTES) {
        return TP_E_ARGUMENT;
    }
    for (uint32_t i = 0; i < 2; i++) {
        if (!is_sent(s, i)) continue;
        if ((resamples(s) && s->senders[i].resampler == NULL) || (assembles && s->senders[i].assembly == NULL)) {
            return TP_E_STATE;
        }
    }
    s->clock = s->origin = clock;
    return TP_OK;
}

size_t tp_stream_room(const tp_stream *s, uint32_t *n_outputs) {
    size_t room = 0;
    *n_outputs = 0;
    for (uint32_t i = 0; i < 2; i++) {
        if ((s->config->tracks & 1u << i) == 0) continue;
        room += tp_media_message_room(s->config->templates[i],
                                      s->message_samples * tp_sample_bytes(s->config->format.encoding));
        (*n_outputs)++;
    }
    return room;
}

void tp_stream_break(tp_stream *s, uint32_t slot, uint32_t index, tp_outbox *out) {
    for (uint32_t i = 0; i < 2; i++) {
        tp_sender *sender = &s->senders[i];
        if (sender->n_assembled == 0) continue;
        tp_stream_write_message(s, i, sender->assembly, sender->n_assembled, sender->first_sample - s->origin,
                                s->leg_rate_hz, slot, index, out);
        sender->n_assembled = 0;
    }
}

void tp_stream_send_frame(tp_stream *s, uint32_t track, tp_frame *frame, uint32_t slot, uint32_t index, tp_outbox *out) {
    const tp_format format = s->config->format;
    if ((s->config->tracks & track) == 0) return;
    uint32_t i = tp_stream_track_index(track);
    tp_sender *sender = &s->senders[i];
    uint32_t size = tp_sample_bytes(format.encoding);
    uint8_t encoded[2 * MAX_FRAME_SAMPLES];
    const uint8_t *bytes = frame->bytes;
    size_t n = frame->n;
    if (bytes == NULL || !tp_format_equal(frame->format, format)) {
        const int16_t *pcm = tp_frame_pcm(frame);
        int16_t resampled[MAX_FRAME_SAMPLES];
        if (format.rate_hz != frame->format.rate_hz) {
            n = (size_t)tp_resample_process(sender->resampler, resampled, MAX_FRAME_SAMPLES, pcm, n);
            pcm = resampled;
        }
        (void)tp_g711_encode(format.encoding, encoded, pcm, n);
        bytes = encoded;
    }
    if (n == s->message_samples) {
        tp_stream_write_message(s, i, bytes, n, frame->at - s->origin, s->leg_rate_hz, slot, index, out);
        return;
    }
    if (sender->n_assembled == 0) sender->first_sample = frame->at;
    memcpy(sender->assembly + sender->n_assembled * size, bytes, n * size);
    n = sender->n_assembled += (uint32_t)n;
    if (n == s->message_samples) {
        tp_stream_write_message(s, i, sender->assembly, n, sender->first_sample - s->origin, s->leg_rate_hz, slot, index,
                                out);
        sender->n_assembled = 0;
    }
}
