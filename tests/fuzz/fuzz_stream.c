/* A socket's bytes: anything at all into both ends of a wire. Nothing is read outside the input; every byte is either
 * consumed or the beginning of one frame; what is left to Python lies within the input; cut in two it comes to the same
 * queue; and when the stream is closed every block is back. */
#include "standalone.h"
#include "tp_stream.h"

#define N_BLOCKS 64

static const seed seeds[] = {
    SEED("\x81\x56{\"event\":\"playAudio\",\"media\":{\"contentType\":\"audio/x-mulaw\",\"sampleRate\":8000,\"payload\":\"//"
         "//\"}}"),
    SEED("\x81\x3a{\"event\":\"media\",\"media\":{\"track\":\"inbound\",\"payload\":\"AAAA\"}}"),
    SEED("\x81\x2b{\"event\":\"playAudio\",\"media\":{\"payload\":\"\"}}\x89\x00\x88\x02\x03\xe8"),
    SEED("\x81\x7e\x00\x80{\"event\":\"checkpoint\",\"name\":\"m\"}"),
    SEED("\x01\x03{\"e\x80\x02" "ve"),
    SEED("\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    SEED("\x82\x16\x95\x01\x00\xce\x00\x00\x00\x02\xcf\x00\x00\x00\x00\x00\x00\x00\xa0\x01\xff\x7f\x7e\x7d"),
    SEED("\x82\x07\x95\x01\x11\x03\x00\x00\x80\x82\x04\xff\xff\xff\xff"),
    SEED("\x81\x43{\"event\":\"media\",\"streamSid\":\"MZ18\",\"media\":{\"payload\":\"/////w==\"}}"),
    SEED("\x81\x73{\"event\":\"media\",\"sequenceNumber\":\"12\",\"media\":{\"track\":\"inbound\",\"chunk\":\"11\",\"timestamp\":"
         "\"200\",\"payload\":\"AAAA\"}}"),
    SEED("\x81\x3f{\"type\":\"audio\",\"message_id\":2,\"data\":{\"audio_b64\":\"AAAAAA==\"}}"),
};

static uint8_t memory[N_BLOCKS * (TP_BLOCK_BYTES + 8)];
static tp_stream stream;

static void name(char out[TP_SHAPE_MAX_NAME], const char *text) {
    memset(out, 0, TP_SHAPE_MAX_NAME);
    memcpy(out, text, strlen(text));
}

enum wire { PLIVO, TWILIO, TELER, NATIVE, BYTES, N_WIRES };

static void shape_of(tp_media_shape *shape, enum wire wire, uint32_t role) {
    memset(shape, 0, sizeof *shape);
    if (wire == NATIVE || wire == BYTES) {
        shape->kind = wire == NATIVE ? TP_SHAPE_NATIVE : TP_SHAPE_BYTES;
        return;
    }
    name(shape->event_key, wire == TELER ? "type" : "event");
    name(shape->event_value, wire == TELER ? "audio" : wire == PLIVO && role == TP_ROLE_PLATFORM ? "playAudio" : "media");
    name(shape->object_key, wire == TELER ? "data" : "media");
    name(shape->payload_key, wire == TELER ? "audio_b64" : "payload");
    if (wire == PLIVO) {
        name(shape->encoding_key, "contentType");
        name(shape->rate_key, "sampleRate");
        name(shape->track_key, "track");
    }
    if (wire == TWILIO && role == TP_ROLE_APPLICATION) {
        name(shape->track_key, "track");
        name(shape->timestamp_key, "timestamp");
        name(shape->chunk_key, "chunk");
        name(shape->sequence_key, "sequenceNumber");
    }
    if (wire == TELER)
        name(shape->sequence_key, "message_id");
}

/* -> samples that were queued (platform) or heard (application) */
static uint64_t run(enum wire wire, uint32_t role, const uint8_t *data, size_t size, size_t cut) {
    tp_pool pool;
    int n_blocks = tp_pool_init(&pool, memory, sizeof memory);
    HOLDS(n_blocks > 0);
    tp_media_shape shape;
    shape_of(&shape, wire, role);
    tp_media_template template = {.lengths = {1, 1}, .fields = {TP_FIELD_PAYLOAD, TP_FIELD_END}, .n_pieces = 2, .text_bytes = 2};
    template.text[0] = template.text[1] = '"';
    tp_stream_config config = {.role = role,
                               .framing = TP_FRAMING_WEBSOCKET,
                               .format = {8000, wire == TELER || wire == BYTES ? TP_ENCODING_L16LE : TP_ENCODING_PCMU},
                               .tracks = TP_TRACK_INBOUND,
                               .bidirectional = 1,
                               .masked = 1, /* we are the client: the peer's frames are bare, as the seeds are */
                               .message_ms = 20,
                               .bound_ms = 2000,
                               .reserve_ms = 100,
                               .send_ahead_ms = 200,
                               .max_message_bytes = 4096,
                               .mask_seed = 1,
                               .templates = {&template, &template},
                               .shape = &shape};
    if (wire == PLIVO) name(config.encoding_name, "audio/x-mulaw");
    HOLDS(tp_stream_init(&stream, &pool, &config, 8000, 0) == TP_OK);
    size_t begin = 0, end = cut;
    for (;;) {
        size_t n = end - begin;
        /* A copy of just its size; frames are unmasked in place. */
        uint8_t *in = malloc(n + (n == 0));
        HOLDS(in != NULL);
        memcpy(in, data + begin, n);
        tp_received report;
        int status = tp_stream_receive(&stream, &report, in, n, 0);
        HOLDS(status == TP_RECEIVED_ALL || status == TP_RECEIVED_OTHER || status == TP_E_FORMAT);
        HOLDS(report.consumed <= n);
        HOLDS(status != TP_RECEIVED_OTHER || ((size_t)report.offset + report.length <= report.consumed && report.consumed != 0));
        free(in);
        if (status < 0) break;
        begin += report.consumed;
        if (status == TP_RECEIVED_OTHER) continue;
        if (end == size) break;
        end = size;
    }
    uint64_t result = role == TP_ROLE_PLATFORM ? tp_stream_queued_samples(&stream) : tp_stream_track_written(&stream, TP_TRACK_INBOUND);
    tp_stream_close(&stream, 0);
    tp_event event;
    while (tp_stream_next_event(&stream, &event) == 1) HOLDS(event.kind != TP_EVENT_NONE);
    HOLDS(pool.n_free == (uint32_t)n_blocks && pool.n_reserved == 0);
    return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    for (enum wire wire = PLIVO; wire < N_WIRES; wire++)
        for (uint32_t role = TP_ROLE_PLATFORM; role <= TP_ROLE_APPLICATION; role++) {
            uint64_t whole = run(wire, role, data, size, size);
            HOLDS(run(wire, role, data, size, size == 0 ? 0 : data[0] % (size + 1)) == whole);
            HOLDS(run(wire, role, data, size, size / 2) == whole);
        }
    return 0;
}

STANDALONE_MAIN(seeds)
