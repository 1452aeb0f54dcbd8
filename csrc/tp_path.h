#ifndef TP_PATH_H
#define TP_PATH_H
#include "tp_jitter.h"
#include "tp_plc.h"
#include "tp_rtp.h"
#include "tp_stream.h"

/* ONE call's audio path, sans-IO: a leg and up to four streams; `now` is an argument everywhere.
 *
 * receive_* / play / mark / clear take input; tick(now, outbox) moves one ptime of audio both ways and appends what is
 * to be sent; events stay in the path and are pulled. It never reads a clock, never allocates, never calls back. */
#define TP_PATH_STREAMS 4
enum { TP_LEG_RTP = 1, TP_LEG_PCM = 2 };
enum { TP_DIRECTION_BOTH = 3, TP_DIRECTION_RECEIVE = 1, TP_DIRECTION_SEND = 2, TP_DIRECTION_NONE = 0 };

typedef struct tp_path_config {
    uint32_t leg_kind;
    tp_format leg_format;          /* PCM legs: L16LE at the leg's rate (native int16 in the outbox) */
    uint32_t ptime_ms;             /* 10..60 */
    uint32_t slot;                 /* goes into every output */
    uint32_t phase_ns;             /* the first tick is due at `now` rounded up to the grid n * ptime + phase */
    uint8_t payload_type, event_payload_type; /* event: 255 when not negotiated */
    uint16_t first_seq;
    uint32_t ssrc, first_timestamp;
    uint32_t jitter_min_ms, jitter_max_ms;
    uint32_t media_timeout_ms;     /* 0: never */
    uint32_t digit_on_ms, digit_off_ms;
} tp_path_config;

typedef struct tp_path_counters {
    uint64_t ticks, loop_stall_samples;       /* skipped because the driver came too late */
    uint64_t frames_sent, rtp_packets_in, rtp_packets_out, rtcp_packets_in, rtp_malformed, rtp_wrong_payload_type;
    uint64_t ssrc_changes, digits_in, digits_out, digits_refused;
    uint64_t concealed_samples, concealment_events, silent_samples;
    uint64_t application_samples;              /* outbound samples that came from a source (no silence) */
    uint64_t mixed_frames, clipped_samples;
    uint64_t pcm_dropped_samples;              /* MemoryLeg/WavLeg pushed more than its bound */
} tp_path_counters;

typedef struct tp_path tp_path;

size_t tp_path_sizeof(void);
size_t tp_path_jitter_bytes(const tp_path_config *config); /* memory the caller must give to init for the jitter ring */
int tp_path_init(tp_path *path, tp_pool *pool, const tp_path_config *config, uint8_t *jitter_bytes, int64_t now);
/* stream index 0..3; the stream was initialised with the leg's rate and platform role */
int tp_path_attach(tp_path *path, unsigned stream, tp_stream *state);
void tp_path_detach(tp_path *path, unsigned stream); /* pending marks LOST at the clock; its events remain in the tp_stream */
void tp_path_close(tp_path *path);                   /* detaches all; no sample leaves from here */

/* A datagram from the accepted source. -> 1 audio or event taken, 0 discarded or not media (counted) */
int tp_path_receive_rtp(tp_path *path, const uint8_t *in, size_t in_bytes, int64_t arrived);
/* MemoryLeg, WavLeg: what the caller says. -> samples taken (bounded at 200 ms waiting; oldest dropped and counted) */
int tp_path_receive_pcm(tp_path *path, const int16_t *in, size_t in_samples, int64_t now);
void tp_path_receive_digit(tp_path *path, char digit);  /* PCM legs: the caller presses a key */

int64_t tp_path_clear(tp_path *path, unsigned stream);  /* stamps CLEARED marks with the clock */
/* Digits to the caller as telephone-events; pauses that source. TP_E_STATE: the leg has no telephone-event (counted). */
int tp_path_send_digits(tp_path *path, unsigned stream, const char *digits, size_t n, uint32_t on_ms, uint32_t off_ms);
void tp_path_hold(tp_path *path, uint32_t direction);   /* TP_DIRECTION_x: what may flow; the clock runs on */
void tp_path_restart_receive(tp_path *path);            /* leg.update(): a new source; jitter buffer and SSRC start anew */

/* One ptime at path->deadline, or none when now < deadline. When now is more than 60 ms past it, the missed ptimes but the
 * present one are skipped (clock and RTP timestamp advance, the sequence number does not, marker set, loop_stall counted).
 * -> flags TP_TICK_x; TP_E_ROOM with nothing done. */
int tp_path_tick(tp_path *path, int64_t now, tp_outbox *out);
/* Ticks paths [0, count) in order, each until its deadline is past now; flags[i] gets the OR of its ticks' flags.
 * -> paths done; fewer than count when the outbox ran out of room (send, reset, go on from there). */
int tp_path_tick_many(tp_path *const *paths, size_t count, int64_t now, tp_outbox *out, uint8_t *flags);
int tp_path_next_event(tp_path *path, tp_event *event); /* the leg's and its attached streams', oldest kinds first; 1 or 0 */
int64_t tp_path_next_deadline(const tp_path *path);
int64_t tp_path_clock(const tp_path *path);             /* samples of either track so far, at the leg's rate */
const tp_path_counters *tp_path_statistics(const tp_path *path);
const tp_jitter *tp_path_jitter(const tp_path *path);

#endif
