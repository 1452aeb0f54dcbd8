/* tp_rtp: RTP's fixed header and telephone events, in both directions.
 *
 * What it does. Finds the payload of a datagram (CSRC list, header extension and padding excluded), writes headers,
 * tells RTCP from RTP on a shared port, turns telephone-event packets into digits and digits into packets.
 *
 * How it works. An event is known by its RTP timestamp alone: the marker bit, the first packet and the end packets may
 * all be lost, repeated or come out of order, and it remains one digit. A timestamp at or behind the last finished event
 * is a straggler of an older one. An event longer than 65535 units comes in segments, each beginning exactly where the
 * one before ended; they are one digit. Who never says "end" is silent for 100 ms and is ended by tick().
 * Sending, the duration grows with each packet and the end packet goes three times, one ptime apart where the gap after
 * the digit has room for it and together where it has not.
 *
 * How to use it. tp_rtp_is_rtcp() first on a shared port, then tp_rtp_read(). One tp_event_receiver per SSRC, fed with
 * the packets of the negotiated payload type, ticked once per ptime. One tp_event_sender per direction, ticked once per
 * ptime while busy; it decides nothing about sequence numbers, the caller owns these.
 *
 * Acceptance: any bytes whatever are read without touching one outside [in, in + in_bytes); one digit for each event that
 * had at least one packet arrive.
 * Source: RFC 3550 5.1, 5.3.1, A.1; RFC 5761 4; RFC 4733 2.3, 2.5. */
#ifndef TP_RTP_H
#define TP_RTP_H
#include "tp_base.h"

#define TP_RTP_HEADER_BYTES 12
#define TP_EVENT_PAYLOAD_BYTES 4

typedef struct tp_rtp_header {
    uint32_t timestamp, ssrc;
    uint16_t seq;
    uint8_t payload_type, marker;
    uint32_t payload_offset, payload_bytes; /* within the datagram, CSRC, extension and padding excluded */
} tp_rtp_header;

/* TP_OK, or TP_E_FORMAT with nothing written. Version 2, CSRC list, header extension, padding. RFC 3550 5.1 */
int tp_rtp_read(tp_rtp_header *out, const uint8_t *in, size_t in_bytes);
/* Header only -> 12; TP_E_ROOM; TP_E_ARGUMENT for a payload type above 127. RFC 3550 5.1 */
int tp_rtp_write(uint8_t *out, size_t out_capacity, const tp_rtp_header *header);
/* RFC 5761: payload types 64..95 in the second octet are RTCP. */
static inline bool tp_rtp_is_rtcp(const uint8_t *in, size_t in_bytes) {
    uint32_t type = in_bytes < 4 ? 0 : in[1] & 0x7fu;
    return type >= 64 && type <= 95 && in[0] >> 6 == 2;
}

/* RFC 4733 telephone events, received: one digit per event whatever is lost or repeated. An event is reported at its
 * first packet seen (marker lost or not); a new timestamp is a new event; one whose end is lost ends by silence. */
#define TP_EVENT_SILENCE_NS 100000000 /* five packets at 20 ms */
typedef struct tp_event_receiver {
    uint32_t timestamp, duration; /* of the current event, RTP units */
    uint32_t last_timestamp;      /* of the last finished one (its last segment): its retransmissions are ignored */
    uint8_t active, code, has_last;
    uint8_t end_pending;          /* the current event's end was seen when out[] had no room left for it */
    uint8_t volume, reserved[3];
    int64_t last_arrived_ns;
    uint32_t n_events, n_lost_ends, n_malformed;
} tp_event_receiver;

typedef struct tp_digit {
    uint8_t code;       /* 0..15 as RFC 4733 table 3: 0-9 * # A-D */
    uint8_t volume;     /* -dBm0 */
    uint8_t ended;      /* 0: began; 1: ended, duration known; 2: its end was lost */
    uint8_t reserved;
    uint32_t duration;  /* RTP units so far; beyond 65535 for an event in segments */
    uint32_t timestamp;
} tp_digit;

void tp_event_receiver_reset(tp_event_receiver *state);
/* -> how many entries of out[2] are filled (0..2: a new event also ends an unfinished one; one whose first packet seen is
 * its end begins and ends at once); TP_E_FORMAT. Events that are no digits (code above 15) are 0 entries. Of several
 * events in one packet (RFC 4733 2.5.1.5; never digits, which have gaps between them) only the first is read. */
int tp_event_receiver_receive(tp_event_receiver *state, tp_digit *out, const uint8_t *payload, size_t payload_bytes,
                              uint32_t timestamp, int64_t now);
/* Called each tick: ends an event that has been silent for 100 ms. -> 0 or 1 entry */
int tp_event_receiver_tick(tp_event_receiver *state, tp_digit *out, int64_t now);

/* RFC 4733 telephone events, sent: a bounded queue of digits, each on_ms long with off_ms after it; the end packet
 * three times. While busy the source of audio that sends them is paused. */
enum { TP_SENDER_IDLE = 0, TP_SENDER_ON = 1, TP_SENDER_GAP = 2 };
#define TP_EVENT_QUEUE 64
#define TP_EVENT_VOLUME 10 /* -dBm0, as most senders have it */
typedef struct tp_event_sender {
    uint32_t clock_rate_hz, ptime_samples;
    uint32_t on_samples, off_samples; /* of the present digit */
    uint32_t elapsed;           /* in the present digit or its gap */
    uint32_t timestamp;         /* of the present event */
    uint8_t state, ends_left, head, count; /* state: TP_SENDER_x */
    uint8_t codes[TP_EVENT_QUEUE];
    uint16_t on_ms[TP_EVENT_QUEUE], off_ms[TP_EVENT_QUEUE];
} tp_event_sender;

void tp_event_sender_init(tp_event_sender *state, uint32_t clock_rate_hz, uint32_t ptime_samples);
/* All or nothing. Characters 0-9 * # A-D a-d. -> n; TP_E_ARGUMENT bad character, on_ms of 0 or beyond 65535 RTP units
 * (8.1 s at 8 kHz: what one segment can say), off_ms above 65535; TP_E_FULL */
int tp_event_sender_queue(tp_event_sender *state, const char *digits, size_t n, uint32_t on_ms, uint32_t off_ms);
void tp_event_sender_clear(tp_event_sender *state); /* what has not begun is dropped; the present one still ends */
bool tp_event_sender_busy(const tp_event_sender *state);
/* One ptime passes. -> 0: a gap, send silence (or audio when not busy afterwards); 1..3: that many packets to send,
 * payload[4] the same for all (the event's 4 octets), *timestamp the event's, *marker for the first of them. */
int tp_event_sender_tick(tp_event_sender *state, uint8_t payload[4], uint32_t *timestamp, uint8_t *marker,
                         uint32_t now_timestamp);
/* 0..15 for 0-9 * # A-D a-d, TP_E_ARGUMENT else; and back to the upper-case character, 0 above 15. */
int tp_event_code(char digit);
char tp_event_digit(uint8_t code);

#endif
