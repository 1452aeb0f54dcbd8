#include "tp_stream_own.h"

#include "tp_base64.h"
#include "tp_g711.h"

#define PIECE_TEXT 8192u /* base64 decoded at a time; whole groups of four */
#define PIECE_BYTES (PIECE_TEXT / 4u * 3u)
#define LINEAR_PIECE 480u

static tp_format received_format(const tp_stream_config *config) {
    return config->role == TP_ROLE_PLATFORM ? tp_stream_played_format(config) : config->format;
}

static void fill_before(tp_stream *s) {
    /* Levels only fall between two writes, so looking here sees every time one fell far enough to count again. */
    const tp_playout *p = &s->playout;
    for (uint32_t i = 0; i < 3; i++) {
        if (p->waiting * 100 < p->bound * (tp_stream_fill_percent[i] - 10)) s->fill_armed |= 1u << i;
    }
}

static void fill_after(tp_stream *s, bool was_low, uint64_t n_dropped) {
    const tp_playout *p = &s->playout;
    for (uint32_t i = 0; i < 3; i++) {
        if ((s->fill_armed & 1u << i) != 0 && p->waiting * 100 >= p->bound * tp_stream_fill_percent[i] && p->bound != 0) {
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
        tp_ring_write(track->bytes, track->capacity_bytes, at, in, bytes);
    }
    track->written += n;
}

/* Application role: n samples in the stream's own format. */
static void listen(tp_stream *s, uint32_t track, const uint8_t *in, size_t n) {
    uint32_t i = tp_stream_track_index(track);
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

/* ---- what is to be played ---- */

ptrdiff_t tp_stream_play(tp_stream *s, tp_format format, const uint8_t *in, size_t in_bytes) {
    if (!tp_playout_knows(format)) return TP_E_ARGUMENT;
    bool application = s->config->role == TP_ROLE_APPLICATION;
    if (application && format.rate_hz != tp_stream_played_format(s->config).rate_hz) return TP_E_ARGUMENT;
    uint32_t size = tp_sample_bytes(format.encoding);
    if (in_bytes % size != 0) return TP_E_FORMAT;
    if (s->closed) return TP_E_STATE;
    intake message = intake_begin(s);
    size_t taken = tp_playout_write(&s->playout, format, in, in_bytes / size);
    fill_after(s, message.was_low, 0);
    return (ptrdiff_t)taken;
}

int tp_stream_say(tp_stream *s, uint32_t encoding, const void *in, size_t in_bytes) {
    const tp_format format = tp_stream_played_format(s->config);
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

/* ---- what listeners read ---- */

int tp_stream_wake_at(tp_stream *s, uint32_t track, uint64_t written) {
    if (s->config->role != TP_ROLE_APPLICATION) return TP_E_STATE;
    uint32_t i = tp_stream_track_index(track);
    tp_track *ring = &s->tracks[i];
    ring->wake_at = written;
    if (ring->written < written) {
        s->audio_pending &= ~(1u << i);
    } else if (written != 0) {
        s->audio_pending |= 1u << i;
    }
    return TP_OK;
}

int tp_stream_set_track(tp_stream *s, uint32_t track, uint8_t *bytes, uint32_t capacity_bytes) {
    if (s->config->role != TP_ROLE_APPLICATION) return TP_E_STATE;
    if (bytes != NULL && (capacity_bytes == 0 || capacity_bytes % tp_sample_bytes(s->config->format.encoding) != 0)) {
        return TP_E_ARGUMENT;
    }
    tp_track *ring = &s->tracks[tp_stream_track_index(track)];
    ring->bytes = bytes;
    ring->capacity_bytes = capacity_bytes;
    ring->valid_from = ring->written;
    return TP_OK;
}

uint64_t tp_stream_track_written(const tp_stream *s, uint32_t track) {
    return s->tracks[tp_stream_track_index(track)].written;
}

ptrdiff_t tp_stream_track_read(const tp_stream *s, uint32_t track, uint8_t *out, size_t out_capacity, uint64_t *from,
                               size_t n) {
    const tp_track *ring = &s->tracks[tp_stream_track_index(track)];
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
    tp_ring_read(ring->bytes, ring->capacity_bytes, at, out, n * size);
    return (ptrdiff_t)n;
}

ptrdiff_t tp_stream_track_next(const tp_stream *s, uint32_t track, uint8_t *out, size_t out_capacity, uint64_t *from,
                               size_t n, size_t bound) {
    uint64_t written = s->tracks[tp_stream_track_index(track)].written;
    if (written < n || written - n < *from) return TP_E_STATE;
    uint64_t first = written > bound && written - bound > *from ? written - bound : *from;
    uint64_t lost = first - *from;
    uint64_t at = first;
    ptrdiff_t got = tp_stream_track_read(s, track, out, out_capacity, &at, n);
    if (got != (ptrdiff_t)n || at != first) return TP_E_ARGUMENT; /* the ring is shorter than the bound, or out than n */
    *from = first + n;
    return (ptrdiff_t)lost;
}
