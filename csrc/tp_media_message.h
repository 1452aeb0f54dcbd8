/* tp_media_message: the one message that is sent and received fifty times a second.
 *
 * What it does. Audio as base64 inside a small JSON object inside a WebSocket text frame: written in one call from
 * payload or from PCM, read in one call to fields or to PCM.
 *
 * The wires that send audio as it is use binary messages: the same template, with other fields, and a shape without names.
 *
 * How it works. Writing: a template, compiled by the dialect once per stream and track, is a text cut into pieces; after
 * piece i the field fields[i] is written. The length of everything is known beforehand, so header, text and mask each go
 * to their final place and nothing is moved; from PCM the payload is encoded into the end of its own base64's place and
 * turned into text from there. Reading: a shape names the keys; the reader is a strict scanner for one object whose
 * wanted values are strings without escapes, whole numbers, literals, and which may hold one inner object. It takes all or nothing: anything it
 * is not sure of is "not mine" (0) and goes to the ordinary parser in Python, which stays the judge. The two agree on
 * everything the scanner accepts (fuzzed).
 *
 * How to use it. Fill the template and shape through talkpath.wire.media_message, which checks them; C checks a template
 * only so far that a wrong one cannot reach outside itself. The scanner leaves the payload as base64 text: validate it by
 * decoding it. Names mean the level they are asked for: `payload` beside the inner object is just an unknown key.
 *
 * What the scanner refuses beyond broken JSON, and why: a backslash in a key or in a value it wants, and a byte >= 0x80
 * anywhere (the string would not be its own bytes; escapes in other values are skipped if well formed); a second time a key the shape names (parsers differ in which one counts); numbers with sign, fraction or
 * exponent, or above 2^53 (not every reader keeps them); a named key with a value of another type; an object or array
 * other than the one named. Numbers may also stand as strings of digits, without leading zeros.
 *
 * Acceptance: PCM to framed message and framed message to PCM, each at least 12 times faster than json + base64 +
 * audioop + wsproto in the same run. Source: RFC 8259, RFC 4648, RFC 6455, the wires' documents. */
#ifndef TP_MEDIA_MESSAGE_H
#define TP_MEDIA_MESSAGE_H
#include "tp_base.h"

/* In text: decimal numbers, payload as base64. In binary messages: big-endian numbers of fixed width, payload as it is. */
enum {
    TP_FIELD_END = 0,
    TP_FIELD_PAYLOAD = 1,
    TP_FIELD_SEQUENCE = 2,
    TP_FIELD_CHUNK = 3,
    TP_FIELD_TIMESTAMP_MS = 4,
    TP_FIELD_BYTES = 5,       /* the payload as it is */
    TP_FIELD_SEQUENCE_32 = 6,
    TP_FIELD_SAMPLE_64 = 7,   /* the message's first sample, since the stream began */
    TP_FIELD_LENGTH_16 = 8    /* the payload's bytes */
};
#define TP_TEMPLATE_MAX_PIECES 8
#define TP_TEMPLATE_MAX_TEXT 1280

typedef struct tp_media_template {
    uint16_t lengths[TP_TEMPLATE_MAX_PIECES]; /* bytes of each piece, in order */
    uint8_t fields[TP_TEMPLATE_MAX_PIECES];   /* what follows each piece; TP_FIELD_END after the last */
    uint32_t n_pieces, text_bytes;
    uint32_t binary;                          /* a binary message, else a text message */
    uint8_t text[TP_TEMPLATE_MAX_TEXT]; /* text_bytes of it are read; an owner may leave out the memory of the rest */
} tp_media_template;

typedef struct tp_media_numbers {
    uint64_t sequence, chunk, timestamp_ms, sample;
} tp_media_numbers;

/* Room one message of payload_bytes can need, WebSocket header included. */
size_t tp_media_message_room(const tp_media_template *t, size_t payload_bytes);
/* A complete WebSocket frame (masked when mask != NULL). -> bytes, or TP_E_ROOM / TP_E_ARGUMENT */
ptrdiff_t tp_media_message_write(uint8_t *out, size_t out_capacity, const tp_media_template *t,
                                 const tp_media_numbers *numbers, const uint8_t *payload, size_t payload_bytes,
                                 const uint8_t *mask);
/* PCM to framed message in one call: encode to `encoding`, then as above. */
ptrdiff_t tp_media_message_write_pcm(uint8_t *out, size_t out_capacity, const tp_media_template *t,
                                     const tp_media_numbers *numbers, uint32_t encoding, const int16_t *pcm, size_t n,
                                     const uint8_t *mask);

/* How media messages that come in are written: JSON in text messages; binary messages that are payload and nothing else;
 * binary messages of the native wire, a header of TP_NATIVE_HEADER_BYTES and payload. */
enum { TP_SHAPE_JSON = 0, TP_SHAPE_BYTES = 1, TP_SHAPE_NATIVE = 2 };
#define TP_NATIVE_HEADER_BYTES 18u

#define TP_SHAPE_MAX_NAME 32
/* Key names are zero-terminated; an empty name means the wire has no such key (met, it is ignored like any unknown). */
typedef struct tp_media_shape {
    char event_key[TP_SHAPE_MAX_NAME];    /* "event" */
    char event_value[TP_SHAPE_MAX_NAME];  /* "playAudio" or "media" */
    char object_key[TP_SHAPE_MAX_NAME];   /* "media": the inner object; empty: fields lie at top level */
    char payload_key[TP_SHAPE_MAX_NAME];  /* "payload" */
    char track_key[TP_SHAPE_MAX_NAME];    /* "track"; values "inbound" / "outbound" */
    char encoding_key[TP_SHAPE_MAX_NAME]; /* "contentType" */
    char rate_key[TP_SHAPE_MAX_NAME];     /* "sampleRate": integer, or a string of digits */
    char timestamp_key[TP_SHAPE_MAX_NAME];/* "timestamp": integer or string of digits */
    char chunk_key[TP_SHAPE_MAX_NAME];
    char sequence_key[TP_SHAPE_MAX_NAME]; /* at top level */
    uint32_t kind;                        /* TP_SHAPE_x; names are JSON's alone */
} tp_media_shape;

enum { TP_TRACK_NONE = 0, TP_TRACK_INBOUND = 1, TP_TRACK_OUTBOUND = 2 };

typedef struct tp_media_fields {
    uint32_t payload_offset, payload_bytes;   /* the base64 text between its quotes, not yet validated */
    uint32_t encoding_offset, encoding_bytes; /* 0, 0 when absent */
    uint32_t track;                           /* TP_TRACK_x */
    uint32_t rate_hz;                         /* 0 when absent */
    int64_t timestamp, chunk, sequence;       /* -1 when absent */
} tp_media_fields;

/* -> 1 the known shape, 0 not mine. Never reads past n, never fails. Any byte >= 0x80, a backslash but in a value nobody wants, a duplicate of a
 * named key, a control character, nesting but the one object, trailing bytes: 0. Order and white space are free. `out` is
 * written only with 1. */
int tp_media_message_read(tp_media_fields *out, const tp_media_shape *shape, const uint8_t *text, size_t n);
/* The same for the binary kinds: payload_offset and payload_bytes are raw payload, timestamp the sample position. A native
 * header is the msgpack array [1, 0, sequence, position, track] with the numbers in their 32- and 64-bit forms; others that
 * mean the same are 0 here and the ordinary parser's. */
int tp_media_message_read_binary(tp_media_fields *out, const tp_media_shape *shape, const uint8_t *in, size_t n);
/* A whole, masked or unmasked WebSocket text frame holding one known media message -> PCM in one call (for the
 * benchmark and the Line). -> samples; 0 not mine; TP_E_ROOM; TP_E_FORMAT base64, or bytes that are no whole samples.
 * `frame` is unmasked in place, and its payload overwritten when it is decoded. */
ptrdiff_t tp_media_message_read_pcm(int16_t *out, size_t out_capacity, const tp_media_shape *shape, uint32_t encoding,
                                    uint8_t *frame, size_t frame_bytes);

#endif
