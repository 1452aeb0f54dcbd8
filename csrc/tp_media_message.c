#include "tp_media_message.h"
#include "tp_base64.h"
#include "tp_g711.h"
#include "tp_websocket.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define MAX_DIGITS 20u                        /* of any uint64_t */
#define LARGEST_EXACT 9007199254740992u       /* 2^53: what every JSON reader keeps */
#define LARGEST_EXACT_DIGITS 16u

/* Writing. */

/* Decimal digits of `value`, written so that they end at `end`. -> where they begin */
static uint8_t *put_digits(uint8_t *end, uint64_t value) {
    do {
        *--end = (uint8_t)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    return end;
}

/* What fills the gaps of a template: payload as bytes, or PCM still to be encoded. */
typedef struct filling {
    const tp_media_numbers *numbers;
    const uint8_t *payload;
    size_t payload_bytes;
    const int16_t *pcm; /* when payload is NULL */
    size_t n_samples;
    uint32_t encoding;
} filling;

static ptrdiff_t write_message(uint8_t *out, size_t out_capacity, const tp_media_template *t, const filling *with,
                               const uint8_t *mask) {
    uint8_t digits[TP_TEMPLATE_MAX_PIECES][MAX_DIGITS]; /* of each number, at the end of its place */
    size_t n_digits[TP_TEMPLATE_MAX_PIECES];
    if (t->n_pieces == 0 || t->n_pieces > TP_TEMPLATE_MAX_PIECES || t->text_bytes > TP_TEMPLATE_MAX_TEXT)
        return TP_E_ARGUMENT;
    if (with->payload_bytes > out_capacity)
        return TP_E_ROOM;
    size_t base64_bytes = TP_BASE64_ENCODED_BYTES(with->payload_bytes);
    size_t text_bytes = 0, message_bytes = 0;
    bool payload_placed = false;
    for (size_t i = 0; i < t->n_pieces; i++) {
        text_bytes += t->lengths[i];
        n_digits[i] = 0;
        uint64_t number = 0;
        switch (t->fields[i]) {
        case TP_FIELD_END: continue;
        case TP_FIELD_PAYLOAD:
        case TP_FIELD_BYTES:
            if (payload_placed)
                return TP_E_ARGUMENT;
            payload_placed = true;
            message_bytes += t->fields[i] == TP_FIELD_BYTES ? with->payload_bytes : base64_bytes;
            continue;
        case TP_FIELD_SEQUENCE_32:
            n_digits[i] = 4;
            tp_put32be(digits[i] + MAX_DIGITS - 4, (uint32_t)with->numbers->sequence);
            message_bytes += 4;
            continue;
        case TP_FIELD_SAMPLE_64:
            n_digits[i] = 8;
            tp_put32be(digits[i] + MAX_DIGITS - 8, (uint32_t)(with->numbers->sample >> 32));
            tp_put32be(digits[i] + MAX_DIGITS - 4, (uint32_t)with->numbers->sample);
            message_bytes += 8;
            continue;
        case TP_FIELD_LENGTH_16:
            if (with->payload_bytes > UINT16_MAX)
                return TP_E_ARGUMENT;
            n_digits[i] = 2;
            tp_put16be(digits[i] + MAX_DIGITS - 2, (uint16_t)with->payload_bytes);
            message_bytes += 2;
            continue;
        case TP_FIELD_SEQUENCE: number = with->numbers->sequence; break;
        case TP_FIELD_CHUNK: number = with->numbers->chunk; break;
        case TP_FIELD_TIMESTAMP_MS: number = with->numbers->timestamp_ms; break;
        default: return TP_E_ARGUMENT;
        }
        n_digits[i] = (size_t)(digits[i] + MAX_DIGITS - put_digits(digits[i] + MAX_DIGITS, number));
        message_bytes += n_digits[i];
    }
    if (text_bytes != t->text_bytes)
        return TP_E_ARGUMENT;
    message_bytes += text_bytes;
    uint8_t opcode = t->binary ? TP_OPCODE_BINARY : TP_OPCODE_TEXT;
    int header_bytes = tp_websocket_write_header(out, out_capacity, 1, opcode, message_bytes, mask);
    if (header_bytes < 0)
        return header_bytes;
    if (message_bytes > out_capacity - (size_t)header_bytes)
        return TP_E_ROOM;

    uint8_t *at = out + header_bytes;
    const uint8_t *text = t->text;
    for (size_t i = 0; i < t->n_pieces; i++) {
        memcpy(at, text, t->lengths[i]);
        at += t->lengths[i];
        text += t->lengths[i];
        if (t->fields[i] == TP_FIELD_PAYLOAD) {
            const uint8_t *payload = with->payload;
            if (payload == NULL) {
                uint8_t *encoded = at + base64_bytes - with->payload_bytes;
                int status = tp_g711_encode(with->encoding, encoded, with->pcm, with->n_samples);
                if (status < 0)
                    return status;
                payload = encoded;
            }
            ptrdiff_t n = tp_base64_encode(at, base64_bytes, payload, with->payload_bytes);
            if (n < 0)
                return n;
            at += base64_bytes;
        } else if (t->fields[i] == TP_FIELD_BYTES) {
            if (with->payload != NULL) {
                memcpy(at, with->payload, with->payload_bytes);
            } else {
                int status = tp_g711_encode(with->encoding, at, with->pcm, with->n_samples);
                if (status < 0)
                    return status;
            }
            at += with->payload_bytes;
        } else {
            memcpy(at, digits[i] + MAX_DIGITS - n_digits[i], n_digits[i]);
            at += n_digits[i];
        }
    }
    if (mask != NULL)
        tp_websocket_mask(out + header_bytes, message_bytes, mask, 0);
    return (ptrdiff_t)(message_bytes + (size_t)header_bytes);
}

size_t tp_media_message_room(const tp_media_template *t, size_t payload_bytes) {
    size_t room = TP_WEBSOCKET_MAX_HEADER_BYTES + t->text_bytes;
    for (size_t i = 0; i < t->n_pieces && i < TP_TEMPLATE_MAX_PIECES; i++) {
        if (t->fields[i] == TP_FIELD_PAYLOAD)
            room += TP_BASE64_ENCODED_BYTES(payload_bytes);
        else if (t->fields[i] == TP_FIELD_BYTES)
            room += payload_bytes;
        else if (t->fields[i] != TP_FIELD_END)
            room += MAX_DIGITS;
    }
    return room;
}

ptrdiff_t tp_media_message_write(uint8_t *out, size_t out_capacity, const tp_media_template *t,
                                 const tp_media_numbers *numbers, const uint8_t *payload, size_t payload_bytes,
                                 const uint8_t *mask) {
    if (payload == NULL)
        return TP_E_ARGUMENT;
    filling with = {.numbers = numbers, .payload = payload, .payload_bytes = payload_bytes};
    return write_message(out, out_capacity, t, &with, mask);
}

ptrdiff_t tp_media_message_write_pcm(uint8_t *out, size_t out_capacity, const tp_media_template *t,
                                     const tp_media_numbers *numbers, uint32_t encoding, const int16_t *pcm, size_t n,
                                     const uint8_t *mask) {
    if (n > out_capacity)
        return TP_E_ROOM;
    filling with = {.numbers = numbers,
                    .payload_bytes = n * tp_sample_bytes(encoding),
                    .pcm = pcm,
                    .n_samples = n,
                    .encoding = encoding};
    return write_message(out, out_capacity, t, &with, mask);
}

/* Reading. */

int tp_media_message_read_binary(tp_media_fields *out, const tp_media_shape *shape, const uint8_t *in, size_t n) {
    tp_media_fields fields = {.payload_bytes = (uint32_t)n, .timestamp = -1, .chunk = -1, .sequence = -1};
    if (n > UINT32_MAX) return 0;
    if (shape->kind == TP_SHAPE_NATIVE) {
        static const uint8_t begin[4] = {0x95, 1, 0, 0xce};
        if (n < TP_NATIVE_HEADER_BYTES || memcmp(in, begin, sizeof begin) != 0 || in[8] != 0xcf) return 0;
        uint64_t position = tp_get64be(in + 9);
        fields.track = in[17];
        if (position > INT64_MAX || (fields.track != TP_TRACK_INBOUND && fields.track != TP_TRACK_OUTBOUND)) return 0;
        fields.sequence = tp_get32be(in + 4);
        fields.timestamp = (int64_t)position;
        fields.payload_offset = TP_NATIVE_HEADER_BYTES;
        fields.payload_bytes -= TP_NATIVE_HEADER_BYTES;
    } else if (shape->kind != TP_SHAPE_BYTES) {
        return 0;
    }
    *out = fields;
    return 1;
}

typedef enum value_kind { VALUE_NONE, VALUE_STRING, VALUE_NUMBER, VALUE_LITERAL } value_kind;

typedef struct value {
    const uint8_t *begin; /* STRING: between the quotes */
    size_t length;
    uint64_t number;
    value_kind kind;
} value;

typedef struct scanner {
    const uint8_t *at, *end;
    const uint8_t *text;
    const tp_media_shape *shape;
    tp_media_fields fields;
    uint32_t seen; /* bits of enum named */
} scanner;

/* Every key a shape can name. */
enum named {
    NAMED_EVENT = 1 << 0,
    NAMED_OBJECT = 1 << 1,
    NAMED_SEQUENCE = 1 << 2,
    NAMED_PAYLOAD = 1 << 3,
    NAMED_TRACK = 1 << 4,
    NAMED_ENCODING = 1 << 5,
    NAMED_RATE = 1 << 6,
    NAMED_TIMESTAMP = 1 << 7,
    NAMED_CHUNK = 1 << 8
};

static void skip_space(scanner *s) {
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\t' || *s->at == '\n' || *s->at == '\r'))
        s->at++;
}

/* The next character that is not white space, taken. -> 0 at the end */
static uint8_t take_mark(scanner *s) {
    skip_space(s);
    return s->at < s->end ? *s->at++ : 0;
}

/* The first byte from `p` on that is not plain: a quote, a backslash, below 0x20 or above 0x7f. -> `end`: there is none */
static const uint8_t *skip_plain(const uint8_t *p, const uint8_t *end) {
#if defined(__SSE2__)
    for (; end - p >= 16; p += 16) {
        __m128i c = _mm_loadu_si128((const __m128i *)(const void *)p);
        /* Compared as signed, what is above 0x7f is below 0x20 too. */
        __m128i hit = _mm_or_si128(_mm_cmplt_epi8(c, _mm_set1_epi8(0x20)),
                                   _mm_or_si128(_mm_cmpeq_epi8(c, _mm_set1_epi8('"')),
                                                _mm_cmpeq_epi8(c, _mm_set1_epi8('\\'))));
        int hits = _mm_movemask_epi8(hit);
        if (hits != 0)
            return p + __builtin_ctz((unsigned)hits);
    }
#else
    const uint64_t ones = 0x0101010101010101u;
    for (; end - p >= 8; p += 8) {
        uint64_t word, quote, backslash, hit;
        memcpy(&word, p, 8);
        quote = word ^ ones * '"';
        backslash = word ^ ones * '\\';
        /* The high bit of every byte that is not plain. A borrow can set it for a neighbour of such a byte as well, never
         * without one, and the bytes of this word are looked at one by one below. */
        hit = ((quote - ones) & ~quote) | ((backslash - ones) & ~backslash) | ((word - ones * 0x20) & ~word) | word;
        if ((hit & ones * 0x80) != 0)
            break;
    }
#endif
    while (p < end && *p >= 0x20 && *p < 0x80 && *p != '"' && *p != '\\')
        p++;
    return p;
}

/* From just after the opening quote. A string is taken only if it is its own bytes. */
static bool take_string(scanner *s, value *out) {
    const uint8_t *close = skip_plain(s->at, s->end);
    if (close == s->end || *close != '"')
        return false;
    out->kind = VALUE_STRING;
    out->begin = s->at;
    out->length = (size_t)(close - s->at);
    s->at = close + 1;
    return true;
}

static bool is_hex(uint8_t c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* From just after the opening quote of a string nobody looks into: well-formed escapes are allowed. A wire that repeats
 * its custom parameters on every message, as JSON within JSON, would else never be known. */
static bool skip_string(scanner *s) {
    for (;;) {
        s->at = skip_plain(s->at, s->end);
        if (s->end - s->at < 2)
            return s->at < s->end && *s->at++ == '"';
        if (*s->at == '"') {
            s->at++;
            return true;
        }
        if (*s->at != '\\')
            return false;
        uint8_t escape = s->at[1];
        s->at += 2;
        if (escape == 'u') {
            if (s->end - s->at < 4 || !is_hex(s->at[0]) || !is_hex(s->at[1]) || !is_hex(s->at[2]) || !is_hex(s->at[3]))
                return false;
            s->at += 4;
        } else if (escape == 0 || strchr("\"\\/bfnrt", escape) == NULL) {
            return false;
        }
    }
}

/* A run of digits without a leading zero, at most 2^53. -> how many bytes it has; 0: none such begins here */
static size_t read_digits(const uint8_t *p, const uint8_t *end, uint64_t *out) {
    size_t n = 0;
    uint64_t number = 0;
    while (p + n < end && p[n] >= '0' && p[n] <= '9') {
        if (n == LARGEST_EXACT_DIGITS)
            return 0;
        number = number * 10 + (uint64_t)(p[n++] - '0');
    }
    if (n == 0 || (n > 1 && p[0] == '0') || number > LARGEST_EXACT)
        return 0;
    *out = number;
    return n;
}

static bool take_literal(scanner *s, const char *word, size_t length) {
    if ((size_t)(s->end - s->at) < length || memcmp(s->at, word, length) != 0)
        return false;
    s->at += length;
    return true;
}

/* Anything but an object or array; `named`: somebody wants it. What may follow a number or literal is judged by whoever
 * asks for the next mark. */
static bool take_value(scanner *s, value *out, bool named) {
    skip_space(s);
    if (s->at == s->end)
        return false;
    if (*s->at == '"') {
        s->at++;
        return named ? take_string(s, out) : skip_string(s);
    }
    size_t n = read_digits(s->at, s->end, &out->number);
    if (n != 0) {
        out->kind = VALUE_NUMBER;
        s->at += n;
        return true;
    }
    out->kind = VALUE_LITERAL;
    return take_literal(s, "true", 4) || take_literal(s, "false", 5) || take_literal(s, "null", 4);
}

/* `name` has TP_SHAPE_MAX_NAME bytes, zeros after its end; the empty one is nobody's. */
static bool is_name(const value *string, const char *name) {
    return string->length < TP_SHAPE_MAX_NAME && string->length != 0 && (char)string->begin[0] == name[0] &&
           name[string->length] == '\0' && memcmp(string->begin, name, string->length) == 0;
}

static uint32_t name_of_field(const value *key, const tp_media_shape *shape) {
    return is_name(key, shape->payload_key)     ? NAMED_PAYLOAD
           : is_name(key, shape->track_key)     ? NAMED_TRACK
           : is_name(key, shape->timestamp_key) ? NAMED_TIMESTAMP
           : is_name(key, shape->chunk_key)     ? NAMED_CHUNK
           : is_name(key, shape->encoding_key)  ? NAMED_ENCODING
           : is_name(key, shape->rate_key)      ? NAMED_RATE
                                                : 0u;
}

static uint32_t name_at_top(const value *key, const tp_media_shape *shape) {
    return is_name(key, shape->event_key)      ? NAMED_EVENT
           : is_name(key, shape->object_key)   ? NAMED_OBJECT
           : is_name(key, shape->sequence_key) ? NAMED_SEQUENCE
           : shape->object_key[0] == '\0'      ? name_of_field(key, shape)
                                               : 0u;
}

/* The value as a number, whether it stands as one or as a string of digits. */
static bool number_of(const value *v, int64_t *out) {
    uint64_t number = v->number;
    if (v->kind == VALUE_STRING && (v->length == 0 || read_digits(v->begin, v->begin + v->length, &number) != v->length))
        return false;
    *out = (int64_t)number;
    return v->kind == VALUE_STRING || v->kind == VALUE_NUMBER;
}

static bool keep_rate(scanner *s, const value *v) {
    int64_t rate_hz;
    if (!number_of(v, &rate_hz) || rate_hz == 0 || rate_hz > (int64_t)UINT32_MAX)
        return false;
    s->fields.rate_hz = (uint32_t)rate_hz;
    return true;
}

static const char inbound[TP_SHAPE_MAX_NAME] = "inbound", outbound[TP_SHAPE_MAX_NAME] = "outbound";

static bool keep_track(scanner *s, const value *v) {
    if (v->kind != VALUE_STRING)
        return false;
    s->fields.track = is_name(v, inbound)    ? TP_TRACK_INBOUND
                      : is_name(v, outbound) ? TP_TRACK_OUTBOUND
                                             : TP_TRACK_NONE;
    return s->fields.track != TP_TRACK_NONE;
}

/* -> false: the value of a named key is not what it has to be */
static bool keep(scanner *s, uint32_t name, const value *v) {
    switch (name) {
    case NAMED_EVENT: return v->kind == VALUE_STRING && is_name(v, s->shape->event_value);
    case NAMED_SEQUENCE: return number_of(v, &s->fields.sequence);
    case NAMED_TIMESTAMP: return number_of(v, &s->fields.timestamp);
    case NAMED_CHUNK: return number_of(v, &s->fields.chunk);
    case NAMED_TRACK: return keep_track(s, v);
    case NAMED_RATE: return keep_rate(s, v);
    case NAMED_PAYLOAD:
        if (v->kind != VALUE_STRING)
            return false;
        s->fields.payload_offset = (uint32_t)(v->begin - s->text);
        s->fields.payload_bytes = (uint32_t)v->length;
        return true;
    case NAMED_ENCODING:
        if (v->kind != VALUE_STRING || v->length == 0)
            return false;
        s->fields.encoding_offset = (uint32_t)(v->begin - s->text);
        s->fields.encoding_bytes = (uint32_t)v->length;
        return true;
    default: return true;
    }
}

/* One object, from just after its opening brace. `inner` says which names are looked for; only the outer may hold one. */
static bool take_object(scanner *s, bool inner) {
    uint8_t mark = take_mark(s);
    if (mark == '}')
        return true;
    for (;; mark = take_mark(s)) {
        value key = {0}, v = {0};
        if (mark != '"' || !take_string(s, &key) || take_mark(s) != ':')
            return false;
        uint32_t name = inner ? name_of_field(&key, s->shape) : name_at_top(&key, s->shape);
        if ((s->seen & name) != 0)
            return false;
        s->seen |= name;
        if (name == NAMED_OBJECT) {
            if (take_mark(s) != '{' || !take_object(s, true))
                return false;
        } else if (!take_value(s, &v, name != 0) || !keep(s, name, &v)) {
            return false;
        }
        mark = take_mark(s);
        if (mark == '}')
            return true;
        if (mark != ',')
            return false;
    }
}

int tp_media_message_read(tp_media_fields *out, const tp_media_shape *shape, const uint8_t *text, size_t n) {
    if (n > UINT32_MAX)
        return 0;
    scanner s = {.at = text, .end = text + n, .text = text, .shape = shape};
    s.fields.timestamp = s.fields.chunk = s.fields.sequence = -1;
    if (take_mark(&s) != '{' || !take_object(&s, false))
        return 0;
    skip_space(&s);
    if (s.at != s.end || (s.seen & NAMED_EVENT) == 0 || (s.seen & NAMED_PAYLOAD) == 0)
        return 0;
    *out = s.fields;
    return 1;
}

ptrdiff_t tp_media_message_read_pcm(int16_t *out, size_t out_capacity, const tp_media_shape *shape, uint32_t encoding,
                                    uint8_t *frame, size_t frame_bytes) {
    tp_websocket_frame header;
    tp_media_fields fields;
    if (tp_websocket_read_header(&header, frame, frame_bytes) != 1 || header.fin == 0 || header.opcode != TP_OPCODE_TEXT ||
        header.payload_bytes != frame_bytes - header.header_bytes)
        return 0;
    uint8_t *text = frame + header.header_bytes;
    size_t text_bytes = frame_bytes - header.header_bytes;
    if (header.masked != 0)
        tp_websocket_mask(text, text_bytes, header.mask, 0);
    if (tp_media_message_read(&fields, shape, text, text_bytes) != 1)
        return 0;
    uint8_t *payload = text + fields.payload_offset;
    ptrdiff_t n_bytes = tp_base64_decoded_length(payload, fields.payload_bytes);
    if (n_bytes < 0 || (size_t)n_bytes % tp_sample_bytes(encoding) != 0)
        return TP_E_FORMAT;
    size_t n = (size_t)n_bytes / tp_sample_bytes(encoding);
    if (n > out_capacity)
        return TP_E_ROOM;
    n_bytes = tp_base64_decode(payload, fields.payload_bytes, payload, fields.payload_bytes);
    if (n_bytes < 0)
        return n_bytes;
    int status = tp_g711_decode(encoding, out, payload, n);
    return status < 0 ? status : (ptrdiff_t)n;
}
