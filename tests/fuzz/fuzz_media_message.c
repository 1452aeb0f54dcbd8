/* The media message scanner: any bytes, three shapes. What it takes must lie inside the text, mean the same with other
 * white space around it, and come out of a WebSocket frame as it went in. (That json reads the same is checked in
 * tests/wire/test_media_message.py.) */
#include "standalone.h"
#include "tp_base64.h"
#include "tp_media_message.h"
#include "tp_websocket.h"

#define LONGEST_TEXT 4096

static const tp_media_shape shapes[] = {
    {.event_key = "event",
     .event_value = "media",
     .object_key = "media",
     .payload_key = "payload",
     .track_key = "track",
     .encoding_key = "contentType",
     .rate_key = "sampleRate",
     .timestamp_key = "timestamp",
     .chunk_key = "chunk",
     .sequence_key = "sequenceNumber"},
    {.event_key = "event",
     .event_value = "playAudio",
     .object_key = "media",
     .payload_key = "payload",
     .encoding_key = "contentType",
     .rate_key = "sampleRate"},
    {.event_key = "type", .event_value = "audio", .payload_key = "audio_b64", .sequence_key = "message_id"},
    /* Twilio's and SignalWire's, by the application and by the platform; Teler's, by the application. */
    {.event_key = "event",
     .event_value = "media",
     .object_key = "media",
     .payload_key = "payload",
     .track_key = "track",
     .timestamp_key = "timestamp",
     .chunk_key = "chunk",
     .sequence_key = "sequenceNumber"},
    {.event_key = "event", .event_value = "media", .object_key = "media", .payload_key = "payload"},
    {.event_key = "type", .event_value = "audio", .object_key = "data", .payload_key = "audio_b64", .sequence_key = "message_id"},
};

static const seed seeds[] = {
    SEED("{\"event\":\"media\",\"sequenceNumber\":2,\"streamId\":\"b7d3e6a2\",\"media\":{\"track\":\"inbound\",\"timestamp\":"
         "\"1760000000120\",\"chunk\":1,\"payload\":\"/////w==\"},\"extra_headers\":\"{}\"}"),
    SEED("{ \"media\" : { \"payload\":\"AAAA\" , \"chunk\":\"9007199254740992\",\"track\":\"outbound\"},\"event\":\"media\"}"),
    SEED("{\"event\":\"playAudio\",\"media\":{\"contentType\":\"audio/x-l16\",\"sampleRate\":16000,\"payload\":\"AAAA\"}}"),
    SEED("{\"type\":\"audio\",\"audio_b64\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\",\"message_id\":0}"),
    SEED("{\"event\":\"media\",\"sequenceNumber\":\"12\",\"media\":{\"track\":\"inbound\",\"chunk\":\"11\",\"timestamp\":\"200\","
         "\"payload\":\"/////w==\"},\"streamSid\":\"MZ18ad3ab5a668481ce02b83e7395059f0\"}"),
    SEED("{\"event\":\"media\",\"streamSid\":\"c1a5b9e0-2f3d-4a6b-8c7d-9e0f1a2b3c4d\",\"media\":{\"payload\":\"AAAA\"}}"),
    SEED("{\"type\":\"audio\",\"stream_id\":\"ms_01JABC\",\"message_id\":2,\"data\":{\"audio_b64\":\"AAABAA==\"}}"),
    SEED("{\"event\":\"media\",\"a\":true,\"b\":false,\"c\":null,\"d\":1.5e-3,\"e\":\"\\u0041\",\"media\":{\"payload\":\"\"}}"),
    SEED("{\"event\":\"media\",\"event\":\"media\",\"media\":{\"payload\":\"\",\"payload\":\"\"},\"media\":{}}"),
};

static int inside(uint32_t offset, uint32_t length, const uint8_t *text, size_t n) {
    if (offset == 0)
        return length == 0;
    if ((size_t)offset + length >= n || text[offset - 1] != '"' || text[offset + length] != '"')
        return 0;
    for (uint32_t i = 0; i < length; i++)
        if (text[offset + i] < 0x20 || text[offset + i] >= 0x80 || text[offset + i] == '"' || text[offset + i] == '\\')
            return 0;
    return 1;
}

static void check_shape(const tp_media_shape *shape, const uint8_t *text, size_t n) {
    static uint8_t moved[LONGEST_TEXT];
    static int16_t pcm[LONGEST_TEXT];
    static const uint8_t mask[4] = {0x5a, 0, 0xff, 0x81};
    tp_media_fields fields, again;
    memset(&fields, 0xee, sizeof fields);
    int taken = tp_media_message_read(&fields, shape, text, n);
    HOLDS(taken == 0 || taken == 1);
    if (n + 20 > sizeof moved)
        return;
    int header_bytes = tp_websocket_write_header(moved, sizeof moved, 1, TP_OPCODE_TEXT, n, mask);
    memcpy(moved + header_bytes, text, n);
    tp_websocket_mask(moved + header_bytes, n, mask, 0);
    ptrdiff_t n_samples = tp_media_message_read_pcm(pcm, LONGEST_TEXT, shape, TP_ENCODING_PCMU, moved, n + (size_t)header_bytes);
    if (taken == 0) {
        HOLDS(n_samples == 0);
        return;
    }
    HOLDS(inside(fields.payload_offset, fields.payload_bytes, text, n) && fields.payload_offset != 0);
    HOLDS(inside(fields.encoding_offset, fields.encoding_bytes, text, n));
    HOLDS(fields.track <= TP_TRACK_OUTBOUND);
    HOLDS(fields.timestamp >= -1 && fields.chunk >= -1 && fields.sequence >= -1);
    HOLDS(n_samples == TP_E_FORMAT || n_samples == tp_base64_decoded_length(text + fields.payload_offset, fields.payload_bytes));

    moved[0] = '\n';
    memcpy(moved + 1, text, n);
    moved[n + 1] = '\t';
    HOLDS(tp_media_message_read(&again, shape, moved, n + 2) == 1);
    HOLDS(again.payload_offset == fields.payload_offset + 1 && again.payload_bytes == fields.payload_bytes);
    HOLDS(again.timestamp == fields.timestamp && again.chunk == fields.chunk && again.sequence == fields.sequence);
    HOLDS(again.rate_hz == fields.rate_hz && again.track == fields.track);
    moved[n + 1] = '}';
    HOLDS(tp_media_message_read(&again, shape, moved, n + 2) == 0);
    HOLDS(tp_media_message_read(&again, shape, moved, n) == (n > 0 && strchr(" \t\r\n", text[n - 1]) != NULL));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        check_shape(&shapes[i], data, size);
    return 0;
}

STANDALONE_MAIN(seeds)
