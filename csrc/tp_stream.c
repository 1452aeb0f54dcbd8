#include "tp_stream.h"

#include "tp_base64.h"
#include "tp_g711.h"

#define NS_PER_S 1000000000LL
#define PIECE_TEXT 8192u /* base64 decoded at a time; whole groups of four */
#define PIECE_BYTES (PIECE_TEXT / 4u * 3u)
#define LINEAR_PIECE 480u
#define MESSAGE_MAX_MS 2000u
#define LONG_MESSAGE_MS 200u /* a line with much to send puts this much into one message */
#define MAX_RATE_PER_MS 48u
#define MAX_FRAME_SAMPLES (60u * MAX_RATE_PER_MS)

static const uint32_t fill_percent[4] = {30, 60, 90, 100};

size_t tp_stream_sizeof(void) { return sizeof(tp_stream); }

/* What the application plays may have another format than the call's tracks. */
static tp_format played_format(const tp_stream_config *config) {
    return config->play_format.rate_hz != 0 ? config->play_format : config->format;
}

static tp_format received_format(const tp_stream_config *config) {
    return config->role == TP_ROLE_PLATFORM ? played_format(config) : config->format;
}

static tp_format sent_format(const tp_stream_config *config) {
    return config->role == TP_ROLE_PLATFORM ? config->format : played_format(config);
}

int tp_stream_init(tp_stream *s, tp_pool *pool, const tp_stream_config *config, uint32_t leg_rate_hz, int64_t now) {
    bool application = config->role == TP_ROLE_APPLICATION;
    if (!application && config->role != TP_ROLE_PLATFORM) return TP_E_ARGUMENT;
    if (!tp_playout_carries(config->format) || !tp_playout_carries(played_format(config))) return TP_E_ARGUMENT;
    if (config->most_message_ms > LONG_MESSAGE_MS) return TP_E_ARGUMENT;
    if (config->message_ms == 0 || config->message_ms > (application ? LONG_MESSAGE_MS : MESSAGE_MAX_MS)) return TP_E_ARGUMENT;
    for (uint32_t i = 0; i < 2; i++) {
        if (!application && (config->tracks & 1u << i) != 0 && config->templates[i] == NULL) return TP_E_ARGUMENT;
    }
    memset(s, 0, sizeof *s);
    s->config = config;
    s->leg_rate_hz = application ? played_format(config).rate_hz : leg_rate_hz;
    s->message_samples = config->message_ms * (sent_format(config).rate_hz / 1000);
    s->sequence = 1;
    s->mask_state = config->mask_seed != 0 ? config->mask_seed : 0x9e3779b97f4a7c15u;
    s->fill_armed = 15;
    s->last_now = s->model_start = now;
    s->alarm = s->held_at = INT64_MAX;
    for (uint32_t i = 0; i < 2; i++) s->senders[i].chunk = 1;
    return tp_playout_open(&s->playout, pool, played_format(config), config->reserve_ms, config->bound_ms, s->leg_rate_hz);
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

/* ---- audio that comes in ---- */

static uint32_t track_index(uint32_t track) { return track == TP_TRACK_OUTBOUND ? 1 : 0; }

static void fill_before(tp_stream *s) {
    /* Levels only fall between two writes, so looking here sees every time one fell far enough to count again. */
    const tp_playout *p = &s->playout;
    for (uint32_t i = 0; i < 3; i++) {
        if (p->waiting * 100 < p->bound * (fill_percent[i] - 10)) s->fill_armed |= 1u << i;
    }
}

static void fill_after(tp_stream *s, bool was_low, uint64_t n_dropped) {
    const tp_playout *p = &s->playout;
    for (uint32_t i = 0; i < 3; i++) {
        if ((s->fill_armed & 1u << i) != 0 && p->waiting * 100 >= p->bound * fill_percent[i] && p->bound != 0) {
            s->fill_armed &= ~(1u << i);
            s->fill_pending |= 1u << i;
        }
    }
    if (n_dropped != 0) {
        s->fill_dropped += n_dropped;
        s->fill_pending |= s->fill_armed & 8u;
        s->fill_armed &= ~8u;
    } else if (was_low) {
        s->fill_armed |= 8u;
    }
}

static void ring_write(tp_track *track, uint32_t size, const uint8_t *in, size_t n) {
    if (track->bytes != NULL) {
        size_t bytes = n * size;
        size_t at = (size_t)(track->written * size % track->capacity_bytes);
        if (bytes > track->capacity_bytes) { /* only its end can be kept */
            size_t skip = bytes - track->capacity_bytes;
            at = (at + skip) % track->capacity_bytes;
            in += skip;
            bytes = track->capacity_bytes;
        }
        size_t first = track->capacity_bytes - at < bytes ? track->capacity_bytes - at : bytes;
        memcpy(track->bytes + at, in, first);
        memcpy(track->bytes, in + first, bytes - first);
    }
    track->written += n;
}

/* Application role: n samples in the stream's own format. */
static void listen(tp_stream *s, uint32_t track, const uint8_t *in, size_t n) {
    uint32_t i = track_index(track);
    ring_write(&s->tracks[i], tp_sample_bytes(s->config->format.encoding), in, n);
    if (s->tracks[i].written >= s->tracks[i].wake_at) s->audio_pending |= 1u << i;
}

/* One message's audio, which may come in pieces between begin and end. */
typedef struct intake {
    uint64_t given, taken;
    bool was_low;
} intake;

static intake intake_begin(tp_stream *s) {
    fill_before(s);
    return (intake){0, 0, s->playout.waiting * 100 < s->playout.bound * 90};
}

static void intake_piece(tp_stream *s, intake *message, uint32_t track, tp_format format, const uint8_t *in, size_t n) {
    message->given += n;
    if (s->config->role == TP_ROLE_APPLICATION) {
        listen(s, track, in, n);
        message->taken += n;
    } else if (message->taken + n == message->given) { /* after a refusal nothing more: the newest is dropped */
        message->taken += tp_playout_write(&s->playout, format, in, n);
    }
}

static void intake_end(tp_stream *s, const intake *message) {
    uint64_t dropped = message->given - message->taken;
    s->counters.samples_in += message->given;
    s->counters.samples_dropped += dropped;
    tp_playout_drop(&s->playout, (size_t)dropped);
    fill_after(s, message->was_low, dropped);
}

static uint8_t lower(uint8_t c) { return c >= 'A' && c <= 'Z' ? (uint8_t)(c + 32) : c; }

/* Whether a message's encoding name is the stream's: case is ignored, and so is ";rate=N" when it says the stream's rate. */
static bool encoding_is(const tp_stream_config *config, const uint8_t *name, size_t n) {
    static const char rate_key[] = ";rate=";
    const char *own = config->encoding_name;
    size_t length = 0;
    while (length < TP_SHAPE_MAX_NAME && own[length] != '\0' && own[length] != ';') length++;
    if (n < length) return false;
    for (size_t i = 0; i < length; i++) {
        if (lower(name[i]) != lower((uint8_t)own[i])) return false;
    }
    if (n == length) return true;
    name += length;
    n -= length;
    size_t key = sizeof rate_key - 1;
    if (n <= key || n > key + 6) return false;
    uint32_t rate = 0;
    for (size_t i = 0; i < n; i++) {
        if (i < key ? lower(name[i]) != (uint8_t)rate_key[i] : name[i] < '0' || name[i] > '9') return false;
        if (i >= key) rate = rate * 10 + (uint32_t)(name[i] - '0');
    }
    return rate == received_format(config).rate_hz;
}

/* -> bytes the text decodes to, or 0 when it is not wholly valid */
static size_t base64_check(const uint8_t *text, size_t n) {
    uint8_t piece[PIECE_BYTES];
    size_t total = 0;
    for (size_t at = 0; at < n; at += PIECE_TEXT) {
        size_t k = n - at < PIECE_TEXT ? n - at : PIECE_TEXT;
        ptrdiff_t got = tp_base64_decode(piece, sizeof piece, text + at, k);
        if (got < 0 || (at + k < n && (size_t)got != PIECE_BYTES)) return 0; /* padding only at the very end */
        total += (size_t)got;
    }
    return total;
}

static int read_media(tp_stream *s, const uint8_t *text, size_t n) {
    const tp_stream_config *config = s->config;
    const tp_format format = received_format(config);
    tp_media_fields fields;
    if (config->shape == NULL || s->closed || (config->role == TP_ROLE_PLATFORM && !config->bidirectional)) return 0;
    if (config->shape->kind != TP_SHAPE_JSON) {
        uint32_t whole = tp_sample_bytes(format.encoding);
        if (tp_media_message_read_binary(&fields, config->shape, text, n) != 1) return 0;
        if (fields.payload_bytes == 0 || fields.payload_bytes % whole != 0) return 0;
        intake message = intake_begin(s);
        intake_piece(s, &message, fields.track, format, text + fields.payload_offset, fields.payload_bytes / whole);
        intake_end(s, &message);
        s->counters.messages_in++;
        return 1;
    }
    if (tp_media_message_read(&fields, config->shape, text, n) != 1) return 0;
    if (fields.rate_hz != 0 && fields.rate_hz != format.rate_hz) return 0;
    if (fields.encoding_bytes != 0 && config->encoding_name[0] != '\0' &&
        !encoding_is(config, text + fields.encoding_offset, fields.encoding_bytes)) {
        return 0;
    }
    const uint8_t *base64 = text + fields.payload_offset;
    ptrdiff_t bytes = tp_base64_decoded_length(base64, fields.payload_bytes);
    uint32_t size = tp_sample_bytes(format.encoding);
    if (bytes <= 0 || (size_t)bytes % size != 0) return 0;

    uint8_t piece[PIECE_BYTES];
    if (fields.payload_bytes <= PIECE_TEXT) {
        bytes = tp_base64_decode(piece, sizeof piece, base64, fields.payload_bytes);
        if (bytes <= 0) return 0;
        intake message = intake_begin(s);
        intake_piece(s, &message, fields.track, format, piece, (size_t)bytes / size);
        intake_end(s, &message);
    } else {
        if (base64_check(base64, fields.payload_bytes) != (size_t)bytes) return 0;
        intake message = intake_begin(s);
        for (size_t at = 0; at < fields.payload_bytes; at += PIECE_TEXT) {
            size_t k = fields.payload_bytes - at < PIECE_TEXT ? fields.payload_bytes - at : PIECE_TEXT;
            bytes = tp_base64_decode(piece, sizeof piece, base64 + at, k);
            intake_piece(s, &message, fields.track, format, piece, (size_t)bytes / size);
        }
        intake_end(s, &message);
    }
    s->counters.messages_in++;
    return 1;
}

static bool speaks_binary(const tp_stream_config *config) {
    return config->shape != NULL && config->shape->kind != TP_SHAPE_JSON;
}

int tp_stream_receive(tp_stream *s, tp_received *report, uint8_t *in, size_t in_bytes, int64_t now) {
    memset(report, 0, sizeof *report);
    s->last_now = now;
    size_t at = 0;
    for (;;) {
        tp_websocket_frame frame;
        int status = tp_websocket_read_header(&frame, in + at, in_bytes - at);
        report->consumed = (uint32_t)at;
        if (status == 0) return TP_RECEIVED_ALL;
        if (status < 0) {
            report->protocol_error = TP_PROTOCOL_HEADER;
        } else if ((frame.masked != 0) == (s->config->masked != 0)) {
            report->protocol_error = TP_PROTOCOL_MASK;
        } else if (frame.payload_bytes > s->config->max_message_bytes) {
            report->protocol_error = TP_PROTOCOL_TOO_LONG;
        }
        if (report->protocol_error != TP_PROTOCOL_NONE) return TP_E_FORMAT;

        size_t length = (size_t)frame.payload_bytes;
        size_t whole = frame.header_bytes + length;
        if (in_bytes - at < whole) {
            report->needed = (uint32_t)whole;
            return TP_RECEIVED_ALL;
        }
        uint8_t *payload = in + at + frame.header_bytes;
        if (frame.masked) tp_websocket_mask(payload, length, frame.mask, 0);
        s->counters.bytes_in += whole;
        report->consumed = (uint32_t)(at + whole);
        bool may_be_media = frame.opcode == (speaks_binary(s->config) ? TP_OPCODE_BINARY : TP_OPCODE_TEXT);
        if (may_be_media && frame.fin && !s->in_fragments && read_media(s, payload, length) == 1) {
            if (report->n_media < 255) report->n_media++;
            at += whole;
            continue;
        }
        if (frame.opcode < TP_OPCODE_CLOSE) s->in_fragments = !frame.fin;
        report->offset = (uint32_t)(at + frame.header_bytes);
        report->length = (uint32_t)length;
        report->opcode = frame.opcode;
        report->fin = frame.fin;
        return TP_RECEIVED_OTHER;
    }
}

int tp_stream_receive_message(tp_stream *s, uint8_t *in, size_t in_bytes, int64_t now) {
    s->last_now = now;
    if (speaks_binary(s->config) && s->config->framing == TP_FRAMING_WEBSOCKET) return 0; /* a text message is control */
    return read_media(s, in, in_bytes);
}

ptrdiff_t tp_stream_receive_audio(tp_stream *s, uint32_t track, tp_format format, const uint8_t *in, size_t in_bytes,
                                  int64_t now) {
    if (!tp_playout_carries(format)) return TP_E_ARGUMENT;
    uint32_t size = tp_sample_bytes(format.encoding);
    if (in_bytes % size != 0) return TP_E_FORMAT;
    if (s->closed) return TP_E_STATE;
    bool application = s->config->role == TP_ROLE_APPLICATION;
    if (application && format.rate_hz != s->config->format.rate_hz) return TP_E_ARGUMENT;
    s->last_now = now;
    size_t n = in_bytes / size;
    intake message = intake_begin(s);
    if (!application || format.encoding == s->config->format.encoding) {
        intake_piece(s, &message, track, format, in, n);
    } else { /* a ring has one format */
        for (size_t at = 0; at < n; at += LINEAR_PIECE) {
            int16_t linear[LINEAR_PIECE];
            uint8_t piece[2 * LINEAR_PIECE];
            size_t k = n - at < LINEAR_PIECE ? n - at : LINEAR_PIECE;
            (void)tp_g711_decode(format.encoding, linear, in + at * size, k);
            (void)tp_g711_encode(s->config->format.encoding, piece, linear, k);
            intake_piece(s, &message, track, s->config->format, piece, k);
        }
    }
    intake_end(s, &message);
    s->counters.messages_in++;
    return (ptrdiff_t)message.taken;
}

/* ---- the playout ---- */

ptrdiff_t tp_stream_play(tp_stream *s, tp_format format, const uint8_t *in, size_t in_bytes) {
    if (!tp_playout_knows(format)) return TP_E_ARGUMENT;
    if (s->config->role == TP_ROLE_APPLICATION && format.rate_hz != played_format(s->config).rate_hz) return TP_E_ARGUMENT;
    uint32_t size = tp_sample_bytes(format.encoding);
    if (in_bytes % size != 0) return TP_E_FORMAT;
    if (s->closed) return TP_E_STATE;
    intake message = intake_begin(s);
    size_t taken = tp_playout_write(&s->playout, format, in, in_bytes / size);
    fill_after(s, message.was_low, 0);
    return (ptrdiff_t)taken;
}

int tp_stream_say(tp_stream *s, uint32_t encoding, const void *in, size_t in_bytes) {
    const tp_format format = played_format(s->config);
    if (s->closed || s->config->role != TP_ROLE_APPLICATION || (encoding != 0 && encoding != format.encoding)) return 0;
    size_t size = encoding != 0 ? tp_sample_bytes(encoding) : sizeof(int16_t);
    size_t n = in_bytes / size;
    if (n * size != in_bytes || !tp_playout_is_sure(&s->playout, format, n, s->config->reserve_ms)) return 0;
    intake message = intake_begin(s);
    if (encoding != 0) {
        (void)tp_playout_write(&s->playout, format, in, n);
    } else {
        for (size_t at = 0; at < n; at += LINEAR_PIECE) {
            int16_t linear[LINEAR_PIECE];
            uint8_t piece[2 * LINEAR_PIECE];
            size_t k = n - at < LINEAR_PIECE ? n - at : LINEAR_PIECE;
            memcpy(linear, (const uint8_t *)in + at * sizeof *linear, k * sizeof *linear);
            (void)tp_g711_encode(format.encoding, piece, linear, k);
            (void)tp_playout_write(&s->playout, format, piece, k);
        }
    }
    fill_after(s, message.was_low, 0);
    return 1;
}

int tp_stream_mark(tp_stream *s, int64_t id) {
    if (s->closed) return TP_E_STATE;
    int status = tp_playout_mark(&s->playout, id, s->config->role == TP_ROLE_APPLICATION ? (int64_t)s->sent : s->clock);
    if (status == TP_E_FULL) s->counters.marks_refused++;
    return status;
}

/* To be sent again. */
static uint64_t again(const tp_stream *s) { return s->tail_end > s->sent ? s->tail_end - s->sent : 0; }

uint64_t tp_stream_queued_samples(const tp_stream *s) { return s->playout.written - s->playout.read + again(s); }

/* The queue may have become shorter. */
static void low_check(tp_stream *s) {
    if (tp_stream_queued_samples(s) >= s->low_wanted) return;
    s->low_wanted = 0;
    s->low_pending = 1;
}

int64_t tp_stream_clear(tp_stream *s, int64_t at_sample) {
    uint64_t dropped = tp_playout_clear(&s->playout, at_sample) + again(s);
    s->tail_end = s->sent;
    low_check(s);
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
        event->value = fill_percent[i];
        if (fill_percent[i] == 100) {
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

/* The room has been checked. `first` counts samples of `rate_hz` since the stream began. */
static void write_message(tp_stream *s, uint32_t i, const uint8_t *payload, size_t n, int64_t first, uint32_t rate_hz,
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
        write_message(s, i, sender->assembly, sender->n_assembled, sender->first_sample - s->origin,
                      s->leg_rate_hz, slot, index, out);
        sender->n_assembled = 0;
    }
}

void tp_stream_send_frame(tp_stream *s, uint32_t track, tp_frame *frame, uint32_t slot, uint32_t index, tp_outbox *out) {
    const tp_format format = s->config->format;
    if ((s->config->tracks & track) == 0) return;
    uint32_t i = track_index(track);
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
        write_message(s, i, bytes, n, frame->at - s->origin, s->leg_rate_hz, slot, index, out);
        return;
    }
    if (sender->n_assembled == 0) sender->first_sample = frame->at;
    memcpy(sender->assembly + sender->n_assembled * size, bytes, n * size);
    n = sender->n_assembled += (uint32_t)n;
    if (n == s->message_samples) {
        write_message(s, i, sender->assembly, n, sender->first_sample - s->origin, s->leg_rate_hz, slot, index, out);
        sender->n_assembled = 0;
    }
}

/* ---- the application's role ---- */

static int64_t model_end(const tp_stream *s) {
    return s->model_start + (int64_t)(s->sent - s->model_start_sent) * NS_PER_S / (int64_t)played_format(s->config).rate_hz;
}

/* Samples of the next message; 0 at a mark or at the end. Never more than may be ahead at once. */
static size_t next_message(const tp_stream *s) {
    const tp_stream_config *config = s->config;
    uint64_t left = again(s);
    size_t n = left != 0 ? (size_t)left : tp_playout_readable(&s->playout);
    size_t per_ms = played_format(config).rate_hz / 1000u;
    uint32_t long_ms = config->most_message_ms != 0 ? config->most_message_ms : LONG_MESSAGE_MS;
    bool much = left >= (uint64_t)long_ms * per_ms ||
                s->playout.waiting >= (uint64_t)long_ms * (TP_PLAYOUT_UNITS_HZ / 1000u);
    size_t most = much ? long_ms * per_ms : s->message_samples;
    if (most > config->send_ahead_ms * per_ms) most = config->send_ahead_ms * per_ms;
    return n < most ? n : most;
}

/* When n samples can be sent: they end no later than send_ahead_ms from then, played after what was sent before. */
static int64_t may_send(const tp_stream *s, size_t n) {
    return model_end(s) + (int64_t)n * NS_PER_S / (int64_t)played_format(s->config).rate_hz -
           (int64_t)s->config->send_ahead_ms * 1000000;
}

/* The next n samples: from the tail while there is something to be sent again, else from the queue, and into the tail. */
static void next_payload(tp_stream *s, uint32_t encoding, uint8_t *payload, size_t n) {
    bool from_tail = again(s) != 0;
    if (!from_tail) (void)tp_playout_read(&s->playout, encoding, payload, n);
    if (s->tail == NULL) return;
    size_t size = tp_sample_bytes(encoding), bytes = n * size;
    size_t at = (size_t)(s->sent * size % s->tail_bytes);
    size_t first = s->tail_bytes - at < bytes ? s->tail_bytes - at : bytes;
    if (from_tail) {
        memcpy(payload, s->tail + at, first);
        memcpy(payload + first, s->tail, bytes - first);
        return;
    }
    memcpy(s->tail + at, payload, first);
    memcpy(s->tail, payload + first, bytes - first);
    s->tail_end = s->sent + n;
    uint64_t kept = s->tail_bytes / size;
    if (s->tail_end - s->tail_from > kept) s->tail_from = s->tail_end - kept;
}

int tp_stream_tick(tp_stream *s, uint32_t slot, int64_t now, tp_outbox *out) {
    const tp_stream_config *config = s->config;
    const tp_format format = played_format(config);
    int flags = 0;
    s->last_now = now;
    if (s->alarm <= now) {
        s->alarm = INT64_MAX;
        s->alarm_pending = 1;
    }
    while (!s->closed && !s->playout.paused && !s->due_pending && config->templates[0] != NULL) {
        if (again(s) == 0 && tp_playout_pop_due(&s->playout, &s->due_id)) {
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
        uint8_t payload[LONG_MESSAGE_MS * MAX_RATE_PER_MS * 2u];
        next_payload(s, format.encoding, payload, n);
        write_message(s, 0, payload, n, (int64_t)s->sent, format.rate_hz, slot, 0, out);
        if (now >= end) {
            s->model_start = now;
            s->model_start_sent = s->sent;
        }
        s->sent += n;
        flags |= TP_TICK_OUTPUT;
    }
    low_check(s);
    if (s->due_pending) flags |= TP_TICK_MARK_DUE;
    if (tp_stream_has_events(s)) flags |= TP_TICK_EVENTS;
    return flags;
}

int64_t tp_stream_next_deadline(const tp_stream *s) {
    int64_t when = s->alarm;
    if (!s->closed && !s->playout.paused) {
        bool sends_again = again(s) != 0;
        if (s->due_pending || (!sends_again && tp_playout_mark_is_due(&s->playout))) return s->last_now;
        if (sends_again || s->playout.waiting != 0) {
            int64_t send = may_send(s, next_message(s));
            if (send < when) when = send;
        }
    }
    return when > s->last_now ? when : s->last_now;
}

int tp_stream_wake_at(tp_stream *s, uint32_t track, uint64_t written) {
    if (s->config->role != TP_ROLE_APPLICATION) return TP_E_STATE;
    uint32_t i = track_index(track);
    tp_track *ring = &s->tracks[i];
    ring->wake_at = written;
    if (ring->written < written) {
        s->audio_pending &= ~(1u << i);
    } else if (written != 0) {
        s->audio_pending |= 1u << i;
    }
    return TP_OK;
}

void tp_stream_want_low(tp_stream *s, uint64_t samples) {
    s->low_wanted = s->closed ? 0 : samples;
    s->low_pending = 0;
}

void tp_stream_set_alarm(tp_stream *s, int64_t at) {
    s->alarm = s->closed ? INT64_MAX : at;
    s->alarm_pending = 0;
}

int tp_stream_set_track(tp_stream *s, uint32_t track, uint8_t *bytes, uint32_t capacity_bytes) {
    if (s->config->role != TP_ROLE_APPLICATION) return TP_E_STATE;
    if (bytes != NULL && (capacity_bytes == 0 || capacity_bytes % tp_sample_bytes(s->config->format.encoding) != 0)) {
        return TP_E_ARGUMENT;
    }
    tp_track *ring = &s->tracks[track_index(track)];
    ring->bytes = bytes;
    ring->capacity_bytes = capacity_bytes;
    ring->valid_from = ring->written;
    return TP_OK;
}

uint64_t tp_stream_track_written(const tp_stream *s, uint32_t track) { return s->tracks[track_index(track)].written; }

ptrdiff_t tp_stream_track_read(const tp_stream *s, uint32_t track, uint8_t *out, size_t out_capacity, uint64_t *from,
                               size_t n) {
    const tp_track *ring = &s->tracks[track_index(track)];
    uint32_t size = tp_sample_bytes(s->config->format.encoding);
    uint64_t oldest = ring->written; /* nothing is kept without memory */
    if (ring->bytes != NULL) {
        uint64_t kept = ring->capacity_bytes / size;
        oldest = ring->written > kept ? ring->written - kept : 0;
        if (oldest < ring->valid_from) oldest = ring->valid_from;
    }
    if (*from < oldest) *from = oldest;
    uint64_t there = ring->written > *from ? ring->written - *from : 0;
    if (n > there) n = (size_t)there;
    if (n > out_capacity / size) n = out_capacity / size;
    if (n == 0) return 0;
    size_t at = (size_t)(*from * size % ring->capacity_bytes);
    size_t bytes = n * size;
    size_t first = ring->capacity_bytes - at < bytes ? ring->capacity_bytes - at : bytes;
    memcpy(out, ring->bytes + at, first);
    memcpy(out + first, ring->bytes, bytes - first);
    return (ptrdiff_t)n;
}

ptrdiff_t tp_stream_track_next(const tp_stream *s, uint32_t track, uint8_t *out, size_t out_capacity, uint64_t *from,
                               size_t n, size_t bound) {
    uint64_t written = s->tracks[track_index(track)].written;
    if (written < n || written - n < *from) return TP_E_STATE;
    uint64_t first = written > bound && written - bound > *from ? written - bound : *from;
    uint64_t lost = first - *from;
    uint64_t at = first;
    ptrdiff_t got = tp_stream_track_read(s, track, out, out_capacity, &at, n);
    if (got != (ptrdiff_t)n || at != first) return TP_E_ARGUMENT; /* the ring is shorter than the bound, or out than n */
    *from = first + n;
    return (ptrdiff_t)lost;
}

uint64_t tp_stream_model_played(const tp_stream *s, int64_t now) {
    int64_t left_ns = model_end(s) - (now < s->held_at ? now : s->held_at);
    if (left_ns <= 0) return s->sent;
    int64_t rate = (int64_t)played_format(s->config).rate_hz;
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
    tp_format format = played_format(s->config);
    uint32_t size = tp_sample_bytes(format.encoding);
    if (ring_bytes < LONG_MESSAGE_MS * (format.rate_hz / 1000u) * size || ring_bytes % size != 0) return TP_E_ARGUMENT;
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
    return again(s);
}

void tp_stream_model(const tp_stream *s, tp_model *model) {
    *model = (tp_model){s->sent, s->model_start_sent, s->model_start, s->held_at};
}

size_t tp_stream_tail_read(const tp_stream *s, uint8_t *out, size_t out_capacity, uint64_t *from) {
    uint32_t size = tp_sample_bytes(played_format(s->config).encoding);
    uint64_t oldest = s->tail != NULL ? s->tail_from : s->sent;
    if (*from < oldest) *from = oldest;
    if (*from >= s->sent) return 0;
    size_t n = s->sent - *from < out_capacity / size ? (size_t)(s->sent - *from) : out_capacity / size;
    size_t at = (size_t)(*from * size % s->tail_bytes), bytes = n * size;
    size_t first = s->tail_bytes - at < bytes ? s->tail_bytes - at : bytes;
    memcpy(out, s->tail + at, first);
    memcpy(out + first, s->tail, bytes - first);
    *from += n;
    return n;
}
