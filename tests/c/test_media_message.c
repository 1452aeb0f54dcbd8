#include "check.h"
#include "tp_base64.h"
#include "tp_media_message.h"
#include "tp_simd.h"
#include "tp_websocket.h"

static const tp_media_shape shape = {.event_key = "event",
                                     .event_value = "media",
                                     .object_key = "media",
                                     .payload_key = "payload",
                                     .track_key = "track",
                                     .timestamp_key = "timestamp",
                                     .chunk_key = "chunk",
                                     .sequence_key = "sequenceNumber"};

static void make_template(tp_media_template *t) {
    static const char *const pieces[] = {"{\"event\":\"media\",\"sequenceNumber\":",
                                         ",\"media\":{\"track\":\"outbound\",\"chunk\":", ",\"timestamp\":\"",
                                         "\",\"payload\":\"", "\"}}"};
    static const uint8_t fields[] = {TP_FIELD_SEQUENCE, TP_FIELD_CHUNK, TP_FIELD_TIMESTAMP_MS, TP_FIELD_PAYLOAD,
                                     TP_FIELD_END};
    memset(t, 0, sizeof *t);
    t->n_pieces = 5;
    for (size_t i = 0; i < 5; i++) {
        size_t n = strlen(pieces[i]);
        memcpy(t->text + t->text_bytes, pieces[i], n);
        t->lengths[i] = (uint16_t)n;
        t->fields[i] = fields[i];
        t->text_bytes += (uint32_t)n;
    }
}

/* Written to exactly the room it needs, and read where it stands. */
static int check_round_trip(size_t n_samples, const uint8_t *mask) {
    static uint8_t frame[4096];
    static int16_t pcm[1000], back[1000];
    tp_media_template t;
    tp_media_numbers numbers = {18, 17, 9007199254740992u, 0};
    tp_media_fields fields;
    make_template(&t);
    for (size_t i = 0; i < n_samples; i++)
        pcm[i] = (int16_t)(i * 131);
    size_t room = tp_media_message_room(&t, n_samples * 2);
    CHECK(room <= sizeof frame);
    ptrdiff_t n = tp_media_message_write_pcm(frame, room, &t, &numbers, TP_ENCODING_L16LE, pcm, n_samples, mask);
    CHECK(n > 0);
    uint8_t *end = frame + sizeof frame;
    for (ptrdiff_t capacity = 0; capacity < n; capacity += 1 + n / 7)
        CHECK(tp_media_message_write_pcm(end - capacity, (size_t)capacity, &t, &numbers, TP_ENCODING_L16LE, pcm, n_samples,
                                         mask) == TP_E_ROOM);
    uint8_t *placed = end - n;
    CHECK(tp_media_message_write_pcm(placed, (size_t)n, &t, &numbers, TP_ENCODING_L16LE, pcm, n_samples, mask) == n);
    CHECK(tp_media_message_read_pcm(back, n_samples, &shape, TP_ENCODING_L16LE, placed, (size_t)n) ==
          (ptrdiff_t)n_samples);
    CHECK(memcmp(pcm, back, n_samples * 2) == 0);

    CHECK(tp_media_message_write_pcm(placed, (size_t)n, &t, &numbers, TP_ENCODING_L16LE, pcm, n_samples, NULL) > 0);
    tp_websocket_frame header;
    CHECK(tp_websocket_read_header(&header, placed, (size_t)n) == 1);
    CHECK(tp_media_message_read(&fields, &shape, placed + header.header_bytes, (size_t)header.payload_bytes) == 1);
    CHECK(fields.sequence == 18 && fields.chunk == 17 && fields.timestamp == 9007199254740992);
    CHECK(fields.track == TP_TRACK_OUTBOUND && fields.rate_hz == 0 && fields.encoding_bytes == 0);
    CHECK(fields.payload_bytes == TP_BASE64_ENCODED_BYTES(n_samples * 2));
    return 0;
}

/* Every beginning of a message, ending where the sanitizer looks, is not a message. */
static int check_beginnings(void) {
    static const char message[] = " {\"event\" : \"media\", \"media\":{\"payload\":\"AAAAAAAAAAAAAAAAAAAAAAAA\","
                                  "\"timestamp\":\"12\",\"x\":true,\"y\":null}, \"sequenceNumber\":3} ";
    uint8_t text[sizeof message - 1];
    tp_media_fields fields;
    for (size_t n = 0; n <= sizeof text; n++) {
        uint8_t *begin = text + sizeof text - n;
        memcpy(begin, message, n);
        CHECK(tp_media_message_read(&fields, &shape, begin, n) == (n >= sizeof text - 1));
    }
    CHECK(fields.timestamp == 12 && fields.sequence == 3 && fields.chunk == -1 && fields.payload_bytes == 24);
    return 0;
}

static void add_piece(tp_media_template *t, const void *text, uint8_t n, uint8_t field) {
    memcpy(t->text + t->text_bytes, text, n);
    t->text_bytes += n;
    t->lengths[t->n_pieces] = n;
    t->fields[t->n_pieces++] = field;
}

/* A message of talkpath's own wire, and every beginning of it; one that is payload alone; one of kind, length, payload. */
static int check_binary(size_t n, const uint8_t *mask) {
    static const tp_media_shape native = {.kind = TP_SHAPE_NATIVE}, bytes = {.kind = TP_SHAPE_BYTES};
    uint8_t payload[400], out[600];
    tp_media_fields fields;
    tp_websocket_frame frame;
    tp_media_numbers numbers = {0x1fedcba98u, 3, 4, 0x123456789abcdef0u};
    for (size_t i = 0; i < n; i++) payload[i] = (uint8_t)(i * 7 + n);

    tp_media_template t = {.binary = 1};
    add_piece(&t, "\x95\x01\x00\xce", 4, TP_FIELD_SEQUENCE_32);
    add_piece(&t, "\xcf", 1, TP_FIELD_SAMPLE_64);
    add_piece(&t, "\x02", 1, TP_FIELD_BYTES);
    add_piece(&t, "", 0, TP_FIELD_END);
    size_t room = tp_media_message_room(&t, n);
    CHECK(room <= sizeof out);
    ptrdiff_t got = tp_media_message_write(out, room, &t, &numbers, payload, n, mask);
    CHECK(got > 0 && tp_websocket_read_header(&frame, out, (size_t)got) == 1);
    CHECK(frame.opcode == TP_OPCODE_BINARY && frame.fin && frame.payload_bytes == n + TP_NATIVE_HEADER_BYTES);
    uint8_t *message = out + frame.header_bytes;
    if (frame.masked) tp_websocket_mask(message, (size_t)frame.payload_bytes, frame.mask, 0);
    CHECK(memcmp(message, "\x95\x01\x00\xce\xfe\xdc\xba\x98\xcf\x12\x34\x56\x78\x9a\xbc\xde\xf0\x02", 18) == 0);
    CHECK(tp_media_message_read_binary(&fields, &native, message, n + TP_NATIVE_HEADER_BYTES) == 1);
    CHECK(fields.payload_offset == TP_NATIVE_HEADER_BYTES && fields.payload_bytes == n && fields.track == TP_TRACK_OUTBOUND);
    CHECK(fields.sequence == 0xfedcba98 && fields.timestamp == 0x123456789abcdef0);
    CHECK(memcmp(message + TP_NATIVE_HEADER_BYTES, payload, n) == 0);
    for (size_t k = 0; k < TP_NATIVE_HEADER_BYTES; k++) {
        uint8_t *begin = out + sizeof out - k; /* ends where the sanitizer looks */
        memmove(begin, message, k);
        CHECK(tp_media_message_read_binary(&fields, &native, begin, k) == 0);
    }
    CHECK(tp_media_message_read_binary(&fields, &bytes, payload, n) == 1 && fields.payload_offset == 0);
    CHECK(fields.payload_bytes == n);
    CHECK(tp_media_message_read_binary(&fields, &shape, payload, n) == 0);

    tp_media_template tlv = {.binary = 1};
    add_piece(&tlv, "\x10", 1, TP_FIELD_LENGTH_16);
    add_piece(&tlv, "", 0, TP_FIELD_BYTES);
    add_piece(&tlv, "", 0, TP_FIELD_END);
    got = tp_media_message_write(out, sizeof out, &tlv, &numbers, payload, n, NULL);
    CHECK(got > 0 && tp_websocket_read_header(&frame, out, (size_t)got) == 1 && frame.payload_bytes == n + 3);
    message = out + frame.header_bytes;
    CHECK(message[0] == 0x10 && message[1] == n >> 8 && message[2] == (n & 0xff) && memcmp(message + 3, payload, n) == 0);
    return 0;
}

static int check_refusals(void) {
    static uint8_t frame[] = "\x81\x2a{\"event\":\"media\",\"media\":{\"payload\":\"AA*A\"}}";
    int16_t out[8];
    uint8_t bytes[64];
    tp_media_template t;
    tp_media_numbers numbers = {0, 0, 0, 0};
    frame[1] = (uint8_t)(sizeof frame - 3);
    CHECK(tp_media_message_read_pcm(out, 2, &shape, TP_ENCODING_PCMU, frame, sizeof frame - 1) == TP_E_ROOM);
    CHECK(tp_media_message_read_pcm(out, 8, &shape, TP_ENCODING_PCMU, frame, sizeof frame - 2) == 0);
    CHECK(tp_media_message_read_pcm(out, 8, &shape, TP_ENCODING_PCMU, frame, sizeof frame - 1) == TP_E_FORMAT);
    make_template(&t);
    t.lengths[2] = 0xffff;
    CHECK(tp_media_message_write(bytes, sizeof bytes, &t, &numbers, bytes, 1, NULL) == TP_E_ARGUMENT);
    make_template(&t);
    t.fields[4] = TP_FIELD_PAYLOAD;
    CHECK(tp_media_message_write(bytes, sizeof bytes, &t, &numbers, bytes, 1, NULL) == TP_E_ARGUMENT);
    return 0;
}

int main(void) {
    static const uint8_t mask[4] = {1, 0x80, 0xff, 7};
    for (int level = 0; level <= tp_simd_level_best(); level++) {
        CHECK(tp_simd_select(level) == level);
        for (size_t n = 0; n <= 400; n++)
            if (check_round_trip(n, n % 2 == 0 ? mask : NULL) != 0)
                return 1;
    }
    for (size_t n = 0; n <= 400; n++)
        if (check_binary(n, n % 2 == 0 ? mask : NULL) != 0)
            return 1;
    return check_beginnings() != 0 || check_refusals() != 0;
}
