/* tp_path: ONE call's audio path, sans-IO: a leg and up to four streams; `now` is an argument everywhere.
 *
 * What it does. receive_* / play / mark / clear take input; tick(now, outbox) moves one ptime of audio both ways and
 * appends what is to be sent to an arena that all calls share; events stay in the path and are pulled. It never reads a
 * clock, never allocates, never calls back: the same inputs at the same times give the same bytes.
 *
 * How it works. One sample clock, elapsed time at the leg's rate, is the clock of both tracks and of the RTP timestamp.
 * A tick at clock c moves the samples [c, c + ptime) of each.
 *
 *   inbound   datagram -> jitter buffer -> linear -> concealment -> every stream that asked for the track. A frame that
 *             needed no concealment reaches streams of the leg's own format as the payload bytes that arrived, and waits
 *             as such until concealment, should a gap come, asks what was before it: most frames are never decoded. Packets
 *             of other payload types and malformed ones are counted. A new SSRC starts the jitter buffer anew. Digits lie
 *             in a ring of 32.
 *   stretch   Where the jitter buffer wants less or more delay, this one frame is decoded and shortened or lengthened by
 *             periods of the voice; those after it are again what arrived, cut at another sample. Where audio was left out
 *             at once (above the greatest delay, a new clock, a hole), or ends without a pause's beginning being told, the edge is
 *             cross-faded with what concealment makes of what was before. A frame that comes after its concealment began is
 *             faded into by tp_plc.
 *   noise     A pause of a sender that describes its noise (RFC 3389, payload type 13) is filled with noise like it.
 *   outbound  each stream's playout is a source. None has audio: the codec's silence. One has: its payload bytes as they
 *             arrived where the format is the leg's, else converted. Several have, or one has a gain: converted, scaled,
 *             added, limited, encoded (tp_mix). A gain set while its source plays ramps over a ptime; one set while it is silent
 *             holds from its first sample. Streams that asked for the outbound track get what the caller hears, after mixing.
 *   tape      who records the call lends a tape: each tick writes both tracks to it, at the clock's sample.
 *   tap       who wants to hear what the caller says gives a ring; each tick the inbound frame is put into it as linear
 *             samples, and the path has an event. Without one no frame is decoded for it. What a stall skipped is silence
 *             there, so the ring counts the track's samples.
 *   digits    to the caller, RFC 4733: a packet that carries an event takes the place of the audio packet, so every source
 *             rests in that tick; in the gaps between digits only the source that sends them rests. It goes on at its
 *             next sample. The outbound track is silent where an event went out. Digits of a detached stream that have
 *             not begun are dropped, unless others' are in the queue too.
 *             Where the leg has digits in its audio (inband_digits), what the caller presses is also heard there: every
 *             frame is decoded for it, concealed ones are passed over, and a digit begins where its tones do. Seen both
 *             ways it is one digit, the one seen first (tp_presses). To a leg without telephone-event digits then go as
 *             tones, at the same times and instead of the same audio as the events would.
 *   hold      the clock runs on. Not sending: no RTP leaves (timestamps advance, the sequence does not, marker after), the
 *             outbound track is silent, every source and every digit waits. Not receiving: what comes is discarded, the
 *             inbound track is silent, the media timeout stands still; afterwards the jitter buffer starts anew.
 *   stall     a tick more than 60 ms late skips the missed ptimes but the present one: the clock and the timestamp advance
 *             over the hole, the sequence number does not, the marker is set, queued audio waits. Up to 60 ms late, each
 *             call makes up one ptime, so call again until the deadline is past (tick_many does).
 *
 * The marker bit is 0 while transmission is continuous (RFC 3551 4.1), the first packet included, 1 after a hole or a hold
 * and on event starts. The caller always gets a packet each ptime.
 *
 * How to use it. init with the memory of jitter_bytes(); attach streams; feed; tick_many(); send what is in the outbox and
 * reset it; pull events of paths whose flag says so; close. The tick checks for the worst case's room first and else
 * returns TP_E_ROOM with nothing done; room for one path is at most tp_path_room().
 *
 * Figures to hold: one tick with one two-way G.711 stream, messages read and written, below 2 us; the struct below 14 KiB.
 * Source: own; RFC 3550, RFC 3551 4.1, RFC 4733. */
#ifndef TP_PATH_H
#define TP_PATH_H
#include "tp_jitter.h"
#include "tp_noise.h"
#include "tp_mix.h"
#include "tp_plc.h"
#include "tp_rtp.h"
#include "tp_stream.h"
#include "tp_tape.h"
#include "tp_tone.h"

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
    uint32_t inband_digits;        /* 1: digits may be tones, both ways */
} tp_path_config;

typedef struct tp_path_counters {
    uint64_t ticks, loop_stall_samples;       /* skipped because the driver came too late */
    uint64_t frames_sent, rtp_packets_in, rtp_packets_out, rtcp_packets_in, rtp_malformed, rtp_wrong_payload_type;
    uint64_t ssrc_changes, digits_in, digits_out, digits_refused;
    uint64_t concealed_samples, concealment_events, silent_samples;
    uint64_t application_samples;              /* outbound samples that came from a source (no silence) */
    uint64_t mixed_frames, limited_samples;    /* several sources; what the limiter turned down */
    uint64_t digits_overflowed;                /* more than 32 digits not yet read: the newest is dropped */
    uint64_t pcm_dropped_samples;              /* MemoryLeg/WavLeg pushed more than its bound */
    uint64_t digits_in_audio, digits_doubled;  /* seen first as tones; seen both ways and told once */
} tp_path_counters;

#define TP_PATH_DIGITS 32
typedef struct tp_path_digit {
    int64_t at_sample;
    int32_t digit;
    int32_t reserved;
} tp_path_digit;

typedef struct tp_path {
    tp_path_config config;
    tp_stream *streams[TP_PATH_STREAMS];
    tp_path_counters counters;
    int64_t clock;               /* track sample at which the next frame starts */
    int64_t deadline, ptime_ns;
    uint32_t frame_samples, frame_bytes; /* one ptime at the leg */
    uint32_t room_bytes, room_outputs;   /* what one tick can append at most */
    uint32_t direction;
    uint16_t seq;
    uint8_t closed, marker, has_ssrc, timed_out, timeout_pending, concealing;
    uint8_t speaking;            /* the last frame was audio as it arrived, or stretched */
    uint32_t ssrc_in;
    int64_t last_media;
    tp_event_receiver events_in;
    tp_event_sender events_out;
    tp_gain gains[TP_PATH_STREAMS];
    tp_limiter limiter;
    tp_tape *tape;               /* NULL: nobody records */
    uint32_t digits_by;          /* a bit per stream whose digits are under way, one more for nobody's */
    uint32_t digits_sent_pending;
    uint32_t first_digit, n_digits;
    tp_path_digit digits[TP_PATH_DIGITS];
    uint8_t *pcm;                /* PCM legs: a ring of what the caller says, in the caller's memory */
    uint32_t pcm_capacity, pcm_head, pcm_count; /* samples */
    uint8_t *recent;             /* RTP legs: a ring of payload that concealment has not been told, behind the jitter ring */
    uint32_t recent_capacity, recent_at, recent_bytes;
    int16_t *tap;                /* NULL: nobody listens; else a ring in the listener's memory */
    uint32_t tap_capacity, tap_pending; /* samples; the event */
    uint64_t tapped;             /* samples put into it */
    tp_jitter jitter;
    tp_plc plc;
    tp_noise noise;
    tp_tone tone;                /* where digits are in the audio: the detector, whose sample 0 is the track's */
    tp_tone_maker maker;
    tp_presses presses;
} tp_path;

size_t tp_path_sizeof(void);
/* Memory the caller must give to init: the jitter ring, or a PCM leg's 200 ms. 0: the config is wrong */
size_t tp_path_jitter_bytes(const tp_path_config *config);
uint32_t tp_path_room(const tp_path *path, uint32_t *n_outputs);
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

/* Of a place, whoever is attached there: from the next tick on, unity again once it is detached. In hundredths of a dB, or
 * TP_GAIN_MUTE. */
int tp_path_set_gain(tp_path *path, unsigned stream, int32_t db_x100);
int tp_path_record(tp_path *path, tp_tape *tape);       /* the caller's until the path is closed; NULL: no more */
size_t tp_path_read_tape(const tp_tape *tape, int16_t *out, size_t capacity, int64_t *from, int64_t *lost); /* not in a tick */
int64_t tp_path_clear(tp_path *path, unsigned stream);  /* stamps CLEARED marks with the clock */
/* Digits to the caller as telephone-events, or else as tones; pauses that source (an index beyond the streams: none in
 * the gaps). on_ms, off_ms 0: the config's. TP_E_STATE: the leg has neither telephone-event nor inband_digits (counted). */
int tp_path_send_digits(tp_path *path, unsigned stream, const char *digits, size_t n, uint32_t on_ms, uint32_t off_ms);
uint32_t tp_path_digits_waiting(const tp_path *path);   /* the one that sounds included */
void tp_path_hold(tp_path *path, uint32_t direction);   /* TP_DIRECTION_x: what may flow; the clock runs on */
/* What the caller says from now on, into `ring` (at least a frame; TP_E_ARGUMENT); NULL: no more. TP_EVENT_HEARD has in
 * `value` how many samples were put into it since. */
int tp_path_tap(tp_path *path, int16_t *ring, uint32_t capacity);
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
