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
    return check_beginnings() != 0 || check_refusals() != 0;
}
