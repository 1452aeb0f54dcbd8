/* Datagrams: any bytes, cut into datagrams by their own first bytes, into a whole path. The header read lies within the
 * datagram; the path never reads outside it (the sanitizer says so); a tick after each still gives exactly one packet of
 * one ptime, with the next sequence number and timestamp. The length says the format and the ptime, and every caller's
 * sample is accounted for. */
#include "standalone.h"
#include "tp_path.h"

typedef struct leg {
    tp_format format;
    uint32_t ptime_ms;
} leg;
static const leg legs[] = {{{8000, TP_ENCODING_PCMU}, 20},   {{8000, TP_ENCODING_PCMA}, 10},
                           {{16000, TP_ENCODING_L16BE}, 60}, {{8000, TP_ENCODING_PCMU}, 25},
                           {{16000, TP_ENCODING_L16BE}, 20}, {{8000, TP_ENCODING_L16BE}, 30}};

static const seed seeds[] = {
    SEED("\x10\x80\x80\x00\x01\x00\x00\x00\x00\x00\x00\x00\x07\xff\xff\xff\xff"),
    SEED("\x11\x80\xe5\x00\x02\x00\x00\x00\xa0\x00\x00\x00\x07\x01\x0a\x00\xa0"),
    SEED("\x11\x80\x65\x00\x03\x00\x00\x00\xa0\x00\x00\x00\x07\x01\x8a\x03\x20"),
    SEED("\x14\x81\x00\x00\x04\x00\x00\x01\x40\x00\x00\x00\x07\x00\x00\x00\x09\xff\xff\xff\xff"),
    SEED("\x18\xb0\x00\x00\x05\x00\x00\x01\xe0\x00\x00\x00\x07\xbe\xde\x00\x01\x10\x00\x00\x00\xff\xff\x00\x02"),
    SEED("\x0c\x80\xc8\x00\x06\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00"),
    SEED("\x0d\x80\x0d\x00\x08\x00\x00\x02\x80\x00\x00\x00\x07\x40"),
};

static tp_path path;
static uint8_t ring[2 * TP_JITTER_SPAN_MS * 32], bytes[65536]; /* the jitter buffer's, and what concealment looks back at */
static tp_output outputs[64];

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const leg *like = &legs[size % (sizeof legs / sizeof *legs)];
    const uint32_t per_ms = like->format.rate_hz / 1000, samples = per_ms * like->ptime_ms;
    const uint32_t frame = samples * tp_sample_bytes(like->format.encoding);
    tp_path_config config = {.leg_kind = TP_LEG_RTP,
                             .leg_format = like->format,
                             .ptime_ms = like->ptime_ms,
                             .inband_digits = 1,
                             .payload_type = 0,
                             .event_payload_type = 101,
                             .jitter_min_ms = 20,
                             .jitter_max_ms = 200,
                             .media_timeout_ms = 1000,
                             .digit_on_ms = 100,
                             .digit_off_ms = 100};
    HOLDS(tp_path_jitter_bytes(&config) <= sizeof ring);
    HOLDS(tp_path_init(&path, NULL, &config, ring, 0) == TP_OK);
    int64_t now = 0;
    uint16_t seq = 0;
    uint32_t timestamp = 0;
    while (size != 0) {
        size_t n = data[0] < size ? data[0] : size - 1;
        data++, size--;
        /* A copy of just its size, so that one byte too many is seen. */
        uint8_t *datagram = malloc(n + (n == 0));
        HOLDS(datagram != NULL);
        memcpy(datagram, data, n);
        tp_rtp_header header;
        int status = tp_rtp_read(&header, datagram, n);
        HOLDS(status == TP_OK || status == TP_E_FORMAT);
        HOLDS(status != TP_OK || (size_t)header.payload_offset + header.payload_bytes <= n);
        int taken = tp_path_receive_rtp(&path, datagram, n, now);
        HOLDS(taken == 0 || taken == 1);
        free(datagram);
        data += n, size -= n;

        tp_outbox outbox = {bytes, outputs, sizeof bytes, 0, 64, 0};
        HOLDS(tp_path_tick(&path, now, &outbox) >= 0);
        HOLDS(outbox.n_outputs == 1 && outbox.used == TP_RTP_HEADER_BYTES + frame);
        HOLDS(tp_rtp_read(&header, bytes, outbox.used) == TP_OK);
        HOLDS(header.seq == seq && header.timestamp == timestamp && header.payload_bytes == frame);
        seq++, timestamp += samples, now += like->ptime_ms * 1000000;
        const tp_path_counters *counters = tp_path_statistics(&path);
        HOLDS(counters->concealed_samples + counters->silent_samples + tp_path_jitter(&path)->emitted_ms * per_ms ==
              counters->ticks * samples);
        tp_event event;
        while (tp_path_next_event(&path, &event) == 1)
            HOLDS(event.kind == TP_EVENT_DIGIT || event.kind == TP_EVENT_MEDIA_TIMEOUT);
    }
    return 0;
}

STANDALONE_MAIN(seeds)
