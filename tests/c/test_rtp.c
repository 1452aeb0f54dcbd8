/* tp_rtp under the sanitizers: every packet lies in a heap block of exactly its size, so that reading past it is seen. */
#include "../../csrc/tp_rtp.h"
#include "check.h"
#include <stdlib.h>

static uint32_t seed = 1;
static uint32_t next(void) {
    seed = seed * 1664525u + 1013904223u;
    return seed >> 8;
}

static int any_bytes(void) {
    int taken = 0;
    for (int round = 0; round < 200000; round++) {
        size_t n = next() % 64;
        uint8_t *in = malloc(n ? n : 1);
        for (size_t i = 0; i < n; i++)
            in[i] = (uint8_t)next();
        if (n && next() % 4)
            in[0] = (uint8_t)(0x80u | (in[0] & 0x3fu));
        if (n > 15 && next() % 2)
            in[14] = 0;
        tp_rtp_header header;
        memset(&header, 0x55, sizeof header);
        tp_rtp_header before = header;
        int status = tp_rtp_read(&header, in, n);
        (void)tp_rtp_is_rtcp(in, n);
        if (status == TP_OK) {
            taken++;
            CHECK(header.payload_offset >= 12 && header.payload_type <= 127 && header.marker <= 1);
            CHECK((size_t)header.payload_offset + header.payload_bytes <= n);
        } else {
            CHECK(status == TP_E_FORMAT && memcmp(&before, &header, sizeof header) == 0);
        }
        free(in);
    }
    CHECK(taken > 1000);
    return 0;
}

static int header_round_trip(void) {
    for (int round = 0; round < 1000; round++) {
        tp_rtp_header in = {next() << 16 | next(), next() << 16 | next(), (uint16_t)next(), (uint8_t)(next() % 128),
                            (uint8_t)(next() % 2), 0, 0}, out;
        uint8_t bytes[12];
        CHECK(tp_rtp_write(bytes, 11, &in) == TP_E_ROOM);
        CHECK(tp_rtp_write(bytes, sizeof bytes, &in) == 12);
        CHECK(tp_rtp_read(&out, bytes, sizeof bytes) == TP_OK);
        CHECK(out.timestamp == in.timestamp && out.ssrc == in.ssrc && out.seq == in.seq);
        CHECK(out.payload_type == in.payload_type && out.marker == in.marker);
        CHECK(out.payload_offset == 12 && out.payload_bytes == 0);
    }
    tp_rtp_header wrong = {0};
    uint8_t bytes[12];
    wrong.payload_type = 128;
    CHECK(tp_rtp_write(bytes, sizeof bytes, &wrong) == TP_E_ARGUMENT);
    return 0;
}

static int digits_through_the_wire(void) {
    const char *digits = "0123456789*#ABCD";
    tp_event_sender sender;
    tp_event_receiver receiver;
    tp_event_sender_init(&sender, 8000, 160);
    tp_event_receiver_reset(&receiver);
    CHECK(tp_event_sender_queue(&sender, digits, 16, 100, 60) == 16);
    CHECK(tp_event_sender_queue(&sender, digits, 16, 8192, 60) == TP_E_ARGUMENT);
    CHECK(tp_event_sender_queue(&sender, "1E", 2, 100, 60) == TP_E_ARGUMENT);
    for (int i = 0; i < 3; i++)
        CHECK(tp_event_sender_queue(&sender, digits, 16, 100, 60) == 16);
    CHECK(tp_event_sender_queue(&sender, "1", 1, 100, 60) == TP_E_FULL);
    size_t began = 0, ended = 0;
    uint32_t now_timestamp = 0xffff0000u;
    for (int64_t now = 0; tp_event_sender_busy(&sender); now += 20000000, now_timestamp += 160) {
        uint8_t payload[4], marker;
        uint32_t timestamp;
        int n = tp_event_sender_tick(&sender, payload, &timestamp, &marker, now_timestamp);
        CHECK(n >= 0 && n <= 3);
        tp_digit out[2];
        for (int i = 0; i < n; i++) {
            int reports = tp_event_receiver_receive(&receiver, out, payload, 4, timestamp, now);
            for (int k = 0; k < reports; k++) {
                if (out[k].ended == 0)
                    CHECK(tp_event_digit(out[k].code) == digits[began++ % 16]);
                else
                    CHECK(out[k].ended == 1 && out[k].duration == 800 && ++ended == began);
            }
        }
        CHECK(tp_event_receiver_tick(&receiver, out, now) == 0);
    }
    CHECK(began == 64 && ended == 64 && receiver.n_events == 64 && receiver.n_lost_ends == 0);
    return 0;
}

static int clear_lets_the_present_digit_end(void) {
    tp_event_sender sender;
    uint8_t payload[4], marker;
    uint32_t timestamp;
    tp_event_sender_init(&sender, 8000, 160);
    CHECK(tp_event_sender_queue(&sender, "123", 3, 60, 40) == 3);
    CHECK(tp_event_sender_tick(&sender, payload, &timestamp, &marker, 5000) == 1 && marker == 1);
    tp_event_sender_clear(&sender);
    int packets = 0, ticks = 0;
    while (tp_event_sender_busy(&sender)) {
        packets += tp_event_sender_tick(&sender, payload, &timestamp, &marker, 5000 + 160 * (uint32_t)++ticks);
        CHECK(payload[0] == 1 && timestamp == 5000 && marker == 0);
    }
    CHECK(packets == 4 && ticks == 4 && payload[1] >> 7 == 1);
    CHECK(tp_event_sender_queue(&sender, "4", 1, 60, 40) == 1);
    tp_event_sender_clear(&sender);
    CHECK(!tp_event_sender_busy(&sender));
    CHECK(tp_event_sender_tick(&sender, payload, &timestamp, &marker, 0) == 0);
    return 0;
}

static int any_events(void) {
    tp_event_receiver receiver;
    tp_event_receiver_reset(&receiver);
    long open = 0;
    int64_t now = 0;
    for (int round = 0; round < 300000; round++) {
        uint8_t payload[4] = {(uint8_t)(next() % 18), (uint8_t)next(), (uint8_t)next(), (uint8_t)next()};
        uint32_t timestamp = next() % 4 ? next() % 8 * 0xffffu : next() << 16;
        tp_digit out[2];
        int n = tp_event_receiver_receive(&receiver, out, payload, next() % 6, timestamp, now);
        CHECK(n == TP_E_FORMAT || (n >= 0 && n <= 2));
        for (int k = 0; k < n; k++)
            open += out[k].ended ? -1 : 1;
        now += next() % 50 * 1000000;
        if (tp_event_receiver_tick(&receiver, out, now))
            open--;
        CHECK(open == 0 || open == 1);
    }
    return 0;
}

int main(void) {
    for (int code = 0; code < 256; code++)
        CHECK((code < 16) == (tp_event_digit((uint8_t)code) != 0));
    for (int digit = -128; digit < 128; digit++) {
        int code = tp_event_code((char)digit);
        CHECK(code == TP_E_ARGUMENT || (code >= 0 && code < 16));
    }
    return any_bytes() || header_round_trip() || digits_through_the_wire() || clear_lets_the_present_digit_end() ||
           any_events();
}
