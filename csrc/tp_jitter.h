/* tp_jitter: an adaptive, bounded jitter buffer for telephone audio.
 *
 * What it does. Takes audio packets as the network brings them and gives one ptime of audio per get(), in timestamp order,
 * each millisecond at most once, and says of every frame whether it is audio, in part, lost, or silence that nobody sent,
 * and by how much the caller should stretch it to bring the delay nearer to what the network asks for.
 *
 * How it works. Audio lies in a ring by RTP timestamp, in units of 1 ms with a bit each for "arrived" and for "never
 * sent", so packets of any whole-ms ptime, duplicates and reordering need no slots and no search. The playout position is
 * exact to the sample: what is stretched by a period of the voice leaves the next frames whole, payload as it arrived.
 *
 *   delay    A packet's transit is its arrival time minus its media time; the least transit of the last 5 to 10 s is the
 *            base, which follows clock skew. The playout delay is now - base - playout position. It depends on the clock
 *            and not on how full the ring is, so losses and bursts do not look like delay.
 *   target   How long past the base each packet would have had to be waited for goes into a histogram of 5 ms steps that
 *            forgets (halved at 128 packets: it knows the last few seconds). The target covers 98 % of it, rises at once,
 *            falls by 20 ms a second and stays in [min, max]. Chosen by measurement: what was long ago costs delay after
 *            every burst, and what it saves is less than one late packet a burst. Packets that came in one burst count once: a stall is one event, not a
 *            hundred.
 *   steps    A frame is taken whole, so what counts is which packet is the newest that a tick needs. Between two positions
 *            that need the same one, the later is the better: a delay that begins e ms before a packet's border wastes e.
 *            So delay is measured from the border, moved by whole steps of gcd(packet, ptime), and of the way there every
 *            piece that the voice allows is taken when it comes. For frames that span packets the target is higher by what
 *            lies between the first and the last packet's border.
 *   correct  With `stretches` set, by what frame.wanted_samples asks for, see the table. Without, by whole frames: delay a
 *            frame and more above the target: a frame is skipped, a missing one at once, a good one at most every 200 ms;
 *            below it: one is inserted, at most every 100 ms. Above max: as much as it takes, at once, either way. In
 *            silence none of it is needed: the next talkspurt simply begins when its delay equals the target.
 *   nothing  When nothing is there to play, the position stays and up to 100 ms are concealed as insertions; packets that
 *            were merely late are then still played, with more delay. If the next packet shows that they were lost, the
 *            position catches up by what was concealed. After 100 ms it is silence, and what comes is a new talkspurt.
 *   holes    A timestamp gap without a sequence gap was never sent (DTX, digits): silence. With one, the missing packets'
 *            worth of it is loss and the rest silence.
 *   jumps    A packet whose transit is more than 1 s off the base, or which follows packets that were all too late, is set
 *            aside; when 3 (late: 6) in a row agree with each other the sender has a new clock and the buffer starts anew.
 *            In order after silence, or with the marker bit, one is enough. What is late and old by its number too is late.
 *
 *   phase    event                                            get() gives                                    phase after
 *   empty    -                                                SILENCE                                        empty
 *   empty    put()                                            -                                              waiting
 *   waiting  nothing there, or delay < target                 SILENCE                                        waiting
 *   waiting  delay >= target                                  surplus skipped, then as playing               playing
 *   playing  the frame is there                               AUDIO, see below                               playing
 *   playing  its end has not come, nothing newer has          PARTIAL (stretches) or MISSING; position stays playing
 *                                                             behind what there was
 *   playing  the same for 100 ms, or a note was the newest    SILENCE                                        waiting
 *   playing  some of it missing, newer audio there            PARTIAL or MISSING, passed by                  playing
 *   playing  never sent                                       SILENCE, position behind it                    waiting
 *   any      reset(), jump agreed on                          -                                              empty, waiting
 *
 *   AUDIO, with `stretches`, D the delay at the packet's border, e what lies before it, g the step, T the target:
 *   D < T - 3 ms                                  wanted < 0: repeat up to the next border, at most every 40 ms
 *   D >= T + g + 2 ms                             wanted > 0: remove to the border that fits, at most every 60 ms, every
 *                                                 frame from 3 g above on
 *   else, e >= 3 ms                               wanted > 0: remove e, at most every 60 ms
 *   What was wanted and not done is wanted again of the next frame: for 0.8 s with urgency 0, which waits for a quiet
 *   moment (at once with 1 from 3 g above on), then with 1, 2 and 3 for 160 ms each: see tp_stretch.h.
 *
 * How to use it. One per SSRC in use; put() and note() every packet in the order of arrival, get() once per ptime, with
 * `now` and `arrived_ns` of the same clock. Give init() a ring of TP_JITTER_SPAN_MS * bytes_per_ms bytes and keep it alive.
 * kind MISSING: conceal; SILENCE: silence. Where wanted_samples is not 0: stretch (tp_stretch) and say so with stretched(),
 * before the next put(), with 0 too. reset() for a new SSRC.
 *
 * Acceptance: 30 +- 30 ms uniform jitter with 3 % loss: under 1 % late at under 100 ms mean delay; +-200 ppm of clock skew
 * without end keep the delay within a frame or so of the target; after a stall of any length the delay is back at once.
 * Source: RFC 3550 6.4.1, A.1, A.8; RFC 3551 4.1 (marker, talkspurts), 4.2 (up to 200 ms a packet). */
#ifndef TP_JITTER_H
#define TP_JITTER_H
#include "tp_rtp.h"

#define TP_JITTER_SPAN_MS 512
#define TP_JITTER_MAX_BYTES_PER_MS 32 /* L16 at 16 kHz */
#define TP_JITTER_MAX_DELAY_MS 400
#define TP_JITTER_MAX_PACKET_MS 200 /* RFC 3551 4.2 */
#define TP_JITTER_BUCKETS 82        /* of 5 ms */
#define TP_JITTER_GAPS 8

typedef struct tp_jitter_config {
    uint32_t clock_rate_hz;  /* a multiple of 1000, 8000..48000 */
    uint32_t bytes_per_ms;   /* payload bytes in 1 ms: 8 G.711, 16 L16/8k, 32 L16/16k */
    uint32_t min_delay_ms;   /* target never below; default 20 */
    uint32_t max_delay_ms;   /* target never above, and what is deeper is skipped; default 200, at most 400 */
    uint32_t ptime_ms;       /* what get() takes: 10..60 */
    uint32_t stretches;      /* 1: the caller stretches; bytes_per_ms is then whole bytes a sample */
} tp_jitter_config;

typedef enum tp_jitter_kind {
    TP_JITTER_AUDIO = 1,   /* the frame is whole */
    TP_JITTER_PARTIAL = 2, /* some ms are missing: see missing_ms; the bytes of that stretch are undefined */
    TP_JITTER_MISSING = 3, /* nothing of it has arrived though the talkspurt goes on: conceal */
    TP_JITTER_SILENCE = 4  /* nothing was sent (before the first packet, DTX, hold): silence, not a loss */
} tp_jitter_kind;

typedef struct tp_jitter_frame {
    uint32_t kind;          /* tp_jitter_kind */
    uint32_t following;     /* 1: the ptime after this one has arrived whole (peek() gives it) */
    uint32_t missing_first_ms, missing_ms; /* PARTIAL: the stretch that holds all that is missing */
    uint32_t skipped_ms;    /* audio skipped just before this frame to shrink the delay */
    uint32_t inserted_ms;   /* > 0: so much of the frame's end is an insertion that grows the delay, nothing was consumed
                             * for it: the whole frame of kind MISSING, what is missing of kind PARTIAL */
    uint32_t timestamp;     /* RTP timestamp of the frame's first sample, to the ms */
    int32_t wanted_samples; /* AUDIO: > 0: remove up to so many, what follows has arrived; < 0: repeat about so many */
    uint32_t urgency;       /* 0..3: 0 where it is quiet only, 3 wherever */
    uint32_t broken;        /* 1: it does not follow what was played last: skipped, a new clock, a hole */
} tp_jitter_frame;

/* Packets known to be missing: n of them, all played or passed once the playout reaches end_ms. */
typedef struct tp_jitter_gap {
    int64_t end_ms;
    uint16_t first_seq, n_seq;
    uint32_t n_missing;
} tp_jitter_gap;

typedef struct tp_jitter {
    tp_jitter_config config;
    uint32_t started, ssrc_restarts;
    uint32_t ssrc, ssrc_known;    /* receive() alone sets these */
    uint32_t playout_timestamp;   /* of the next get() */
    uint32_t newest_timestamp;    /* end of the newest audio seen */
    uint16_t newest_seq, reserved0;
    uint32_t target_delay_ms;
    uint32_t samples_per_ms;
    int64_t silent_since_ns;      /* of the first silent get(); -1 while a talkspurt lasts */
    int64_t last_arrived_ns;
    /* media time in ms, extended beyond 32 bits; position and newest are playout_timestamp and newest_timestamp */
    int64_t position_ms, newest_ms, consumed_ms;
    int64_t border_ms;            /* where the newest packet in order begins */
    int64_t base_ns, window_base_ns, window_since_ns; /* least transit: of the window before and of the present one */
    int64_t last_transit_ns, last_audio_ns, last_correction_ns, last_decay_ns;
    int64_t suspect_transit_ns;
    int64_t taken_ns;             /* of the last get() */
    uint64_t seen;                /* bit i: newest_seq - i has arrived */
    uint32_t phase;               /* nothing yet, waiting for the delay, playing */
    uint32_t held_ms;             /* concealed with nothing consumed since the ring ran dry */
    uint32_t pending_skip_ms;     /* skipped by put(), to be told with the next frame */
    uint32_t packet_ms;           /* of the newest packet */
    uint32_t step_ms;             /* gcd of it and the ptime */
    uint32_t fraction;            /* samples of the position's ms that are behind it */
    uint32_t refusals;            /* of stretching, in a row */
    uint32_t repeatable;          /* the last frame was whole audio and may be repeated from */
    uint32_t seq_known;
    uint32_t has_unsent;          /* some bit of unsent may be set */
    uint32_t note_is_newest;      /* the newest packet carries no audio: silence is meant */
    uint32_t broken;              /* the position has jumped since the last frame */
    uint32_t promised;            /* the last frame was concealed in view of what follows: do not skip that */
    uint32_t n_suspects;
    uint16_t suspect_seq, reserved2;
    uint32_t n_gaps, histogram_total, histogram_top; /* no bucket above top counts anything */
    /* statistics, webrtc-stats names */
    uint64_t packets_received /* well-formed audio packets, duplicates and late ones too */, packets_lost,
        packets_discarded /* late or duplicate or out of span */, packets_late, packets_duplicated, packets_reordered;
    /* ms of audio that came out; passed by with nothing there; passed by unplayed; concealed with nothing passed by */
    uint64_t emitted_ms, missing_ms, skipped_ms, inserted_ms;
    uint64_t removed_samples, repeated_samples; /* by stretching */
    uint64_t delay_ms_sum, delay_frames; /* of frames with audio: now - base - position, when each was taken */
    uint32_t jitter_x16;          /* RFC 3550 A.8, RTP units times 16 */
    uint32_t resyncs;             /* new clocks found behind an old SSRC */
    tp_jitter_gap gaps[TP_JITTER_GAPS];
    uint16_t histogram[TP_JITTER_BUCKETS];
    uint64_t arrived[TP_JITTER_SPAN_MS / 64];
    uint64_t unsent[TP_JITTER_SPAN_MS / 64];
    uint8_t *bytes;               /* TP_JITTER_SPAN_MS * bytes_per_ms, owned by the caller */
} tp_jitter;

/* TP_OK; TP_E_ARGUMENT a value out of range; TP_E_ROOM bytes_capacity under TP_JITTER_SPAN_MS * bytes_per_ms */
int tp_jitter_init(tp_jitter *state, const tp_jitter_config *config, uint8_t *bytes, size_t bytes_capacity);
/* New SSRC, hold released: forget the audio, keep the statistics (what was missing then is lost) and the target. */
void tp_jitter_reset(tp_jitter *state);
/* -> 1 taken, 0 discarded (late, duplicate, implausible; counted); TP_E_FORMAT payload not whole ms or above 200 ms.
 * An empty payload is a note. A sequence number is lost when the playout passes it; one that arrives after that is late
 * and no longer lost. */
int tp_jitter_put(tp_jitter *state, uint16_t seq, uint32_t timestamp, uint8_t marker, const uint8_t *payload,
                  size_t payload_bytes, int64_t arrived_ns);
/* A packet of the same SSRC that carries no audio (telephone-event, CN): its sequence number is not a loss. */
void tp_jitter_note(tp_jitter *state, uint16_t seq, int64_t arrived_ns);
/* A whole datagram, for who has no other use for its header: payload_type's packets are put, others noted, RTCP is ignored,
 * another SSRC resets first. -> as put(); TP_E_FORMAT also for what is no RTP */
int tp_jitter_receive(tp_jitter *state, const uint8_t *datagram, size_t datagram_bytes, uint8_t payload_type,
                      int64_t arrived_ns);
/* One ptime. out has ptime_ms * bytes_per_ms bytes. Always TP_OK. */
int tp_jitter_get(tp_jitter *state, tp_jitter_frame *frame, uint8_t *out, int64_t now);
/* What the caller did about frame.wanted_samples: > 0 removed, < 0 repeated, 0 nothing suited. -> TP_OK; TP_E_STATE:
 * impossible, nothing is changed */
int tp_jitter_stretched(tp_jitter *state, int32_t samples);
/* The ptime after the one got last, when frame.following was set. -> bytes; TP_E_ROOM; TP_E_STATE not there */
int tp_jitter_peek(const tp_jitter *state, uint8_t *out, size_t out_capacity);
uint32_t tp_jitter_delay_ms(const tp_jitter *state); /* audio waiting now */

/* All that one receiver needs in one place, for a caller to whom each argument of a call costs more than the work. */
typedef struct tp_jitter_box {
    tp_jitter jitter;        /* init() it, with a ring of the caller's */
    tp_jitter_frame frame;   /* got last */
    int32_t payload_type;    /* of the audio; negative: that of the first packet to come */
    uint32_t packets_malformed;
    uint8_t out[60 * TP_JITTER_MAX_BYTES_PER_MS]; /* of the frame got last */
} tp_jitter_box;

/* receive() by the box's payload type; what is no RTP is counted. -> 1 taken, 0 not */
int tp_jitter_box_put(tp_jitter_box *box, const uint8_t *datagram, size_t datagram_bytes, int64_t arrived_ns);
/* get() into the box. -> the timestamp of a frame that is whole audio with nothing else to say of it; -1: see box->frame */
int64_t tp_jitter_box_get(tp_jitter_box *box, int64_t now);

/* For put() alone: what the arrival of a packet of n_ms at media time at_ms says about the network and about the sender's
 * packets: base, target, steps, jitter. */
void tp_jitter_learn(tp_jitter *state, int64_t at_ms, int64_t transit, uint32_t n_ms, bool is_newest, int64_t arrived_ns);

#endif
