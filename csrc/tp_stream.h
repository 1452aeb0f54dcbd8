/* tp_stream: one end of a wire, sans-IO: messages <-> samples.
 *
 * What it does. In the platform's role it is what a call knows of one application: what the application plays goes to
 * its playout, and the call's tracks go out as media messages (tp_path drives it). In the application's role it is a line:
 * the call's tracks come in to rings that listeners read, and what the line plays is sent ahead of a model of what has
 * been played (tp_stream_tick drives it). A line is such a stream without a leg.
 *
 * How it works. The reader takes whole WebSocket frames of the one known shape and decodes their base64 into the pool's
 * blocks; a message is taken whole or not at all (half of one would make every later mark's position a guess), and what
 * is not of that shape is handed to Python's parser untouched but unmasked: other opcodes, fragments, other keys, another
 * format than the stream's, invalid base64, an odd number of L16 bytes, an empty payload. Any split of the byte stream
 * leads to the same state. What exceeds the playout's bound or the pool is dropped, newest first, counted, and the next
 * mark is LOST; reading goes on. A peer's frame that is masked when ours are (or the reverse) is a protocol error.
 *
 * On the way out a frame of audio passes as bytes when the formats are equal, else it is resampled and encoded; message_ms
 * may be several ptimes (the parts wait in the stream). Media messages of both tracks share one sequence with the control
 * messages that Python writes (from 1); chunks count per track, from 1. media.timestamp is the message's first sample, on
 * the call's one sample clock, since the stream was attached.
 *
 * The application's playout has one sample rate (the line resamples per utterance, where a filter's state belongs) and any
 * encoding. It sends message_ms at a time, or 200 ms (most_message_ms) while at least that much waits, as long as by the model no more than
 * send_ahead_ms is then ahead of the far end; a shorter rest goes as it is at the queue's end or before a mark. The model:
 * what was sent plays gap-free from the moment it was sent, or after what was sent before it; while the far end is told to
 * hold its queue (tp_stream_hold), the model stands still. A mark is due once
 * everything before it has been written to the outbox.
 *
 * Where the far end can only clear, a hold is made of a clear: the line keeps the bytes it sent until by the model they
 * have been played (tp_stream_keep_tail), and tp_stream_rewind makes of those that have not been what is to be sent next.
 * The stream's position goes back to the model's, so nothing else has to know.
 *
 * Events are never pushed: outcomes lie in the marks' own entries, everything else is a bit or a count per kind. Whoever
 * drives many lines looks only at those that have events, so a line says beforehand what it wants to be told of: audio,
 * once its readers have a whole piece (wake_at); a queue that has become short, when more waits to be played than it
 * takes (want_low); a moment (set_alarm). In between, its ticks are silent.
 *
 * What only some streams need is not in the struct: a platform's stream that resamples, or whose messages are longer than
 * a ptime, works in memory that its owner lends it (tp_stream_lend) before it is attached.
 *
 * How to use it. init; lend; receive what the socket gives; tick or let tp_path; pull events when a flag says so; close,
 * pull the last events, and every block is back.
 *
 * Figures to hold: one inbound media message of 20 ms G.711 to the playout below 500 ns, one outbound below 500 ns.
 * Source: own; RFC 6455 section 5 (frames), RFC 4648 section 4 (base64). */

#ifndef TP_STREAM_H
#define TP_STREAM_H
#include "tp_media_message.h"
#include "tp_playout.h"
#include "tp_resample.h"
#include "tp_websocket.h"
enum { TP_ROLE_PLATFORM = 1, TP_ROLE_APPLICATION = 2 };
enum { TP_FRAMING_WEBSOCKET = 1, TP_FRAMING_NONE = 2 };

/* What a driver sends. offset/length are within the outbox's bytes and valid until it is reset. */
enum { TP_OUTPUT_RTP = 1, TP_OUTPUT_MESSAGE = 2, TP_OUTPUT_PCM = 3 };
typedef struct tp_output {
    uint32_t offset, length;
    uint32_t slot;
    uint16_t kind, stream;
} tp_output;
typedef struct tp_outbox {
    uint8_t *bytes;
    tp_output *outputs;
    uint32_t capacity, used;
    uint32_t outputs_capacity, n_outputs;
} tp_outbox;

/* Events are pulled, never pushed; each has at most one entry per kind and stream, marks and digits one each. */
enum {
    TP_EVENT_NONE = 0,
    TP_EVENT_DIGIT = 1,         /* the caller pressed value (a character); at_sample of the inbound track */
    TP_EVENT_MARK = 2,          /* id, value = outcome, at_sample of the outbound track */
    TP_EVENT_MEDIA_TIMEOUT = 3, /* no RTP for the configured time; once */
    TP_EVENT_FILL = 4,          /* the playout rose past value percent of its bound (30, 60, 90; 100 = overflow began); id = samples dropped */
    TP_EVENT_UNDERRUN = 5,      /* a source that was playing has nothing more; coalesced, value = how many since the last */
    TP_EVENT_DIGITS_SENT = 6,   /* the queue of digits to send ran empty */
    TP_EVENT_MARK_DUE = 7,      /* application role: everything before mark id has been written; send the checkpoint NOW, then tick again */
    TP_EVENT_AUDIO = 8,         /* application role: new audio in the rings of the TP_TRACK_x bits in value; see wake_at; coalesced */
    TP_EVENT_LOW = 9,           /* application role: the queue is as short as want_low asked; once */
    TP_EVENT_ALARM = 10,        /* application role: a tick came at or after set_alarm's time; once */
    TP_EVENT_HEARD = 11         /* a path with a tap: what the caller said is in it, value samples in all; coalesced */
};
typedef struct tp_event {
    int32_t kind, stream;
    int64_t at_sample, id, value;
} tp_event;

/* Application role: the recent audio of one track, as it arrived. Absolute positions; a reader keeps its own cursor. */
typedef struct tp_track {
    uint8_t *bytes;           /* capacity_bytes, owned by the caller; NULL until somebody listens */
    uint32_t capacity_bytes;
    uint32_t reserved;
    uint64_t written;         /* samples since the start of the stream */
    uint64_t valid_from;      /* samples before this were never kept (no memory yet) */
    uint64_t wake_at;         /* new audio is an event once so many are written */
} tp_track;

typedef struct tp_stream_config {
    uint32_t role, framing;
    tp_format format;               /* of the payload */
    tp_format play_format;          /* of what the application plays; rate_hz 0: the same */
    uint32_t tracks;                /* TP_TRACK_x bits that travel from platform to application */
    uint32_t bidirectional;         /* audio travels from application to platform too */
    uint32_t masked;                /* our frames are masked: we are the WebSocket client */
    uint32_t message_ms;            /* audio per media message out; a multiple of the leg's ptime (platform role) */
    uint32_t bound_ms, reserve_ms;  /* of the playout */
    uint32_t send_ahead_ms;         /* application role */
    uint32_t most_message_ms;       /* application role: in one message while much waits; 0: 200 */
    uint32_t max_message_bytes;     /* a frame announced longer is a protocol error */
    uint32_t timestamp_from_zero;   /* 1: media.timestamp counts from stream start, 0: from timestamp_base_ms */
    uint64_t timestamp_base_ms;
    uint64_t mask_seed;             /* mask keys come from this (xorshift); injected entropy */
    const tp_media_template *templates[2]; /* platform: inbound, outbound. application: [0] = what it plays */
    const tp_media_shape *shape;           /* of media messages that come in */
    char encoding_name[TP_SHAPE_MAX_NAME]; /* how the wire writes format.encoding in a message, compared ignoring case and a
                                              trailing ";rate=N"; empty: not compared */
} tp_stream_config;

typedef struct tp_stream_counters {
    uint64_t messages_in, messages_out;       /* media messages */
    uint64_t samples_in, samples_out;         /* of payload */
    uint64_t bytes_in, bytes_out;
    uint64_t samples_dropped;                 /* playout excess */
    uint64_t samples_cleared;
    uint64_t samples_played;                  /* application audio handed to the leg, stream samples */
    uint64_t underruns;
    uint64_t marks_refused;
} tp_stream_counters;

#define TP_STREAM_ASSEMBLY_BYTES 64000 /* at most, of messages longer than a ptime, both tracks: 2 s of L16 at 16 kHz */

/* Platform role: one track on its way to the application. */
typedef struct tp_sender {
    tp_resample *resampler;      /* leg rate -> stream rate; NULL where they are equal */
    uint8_t *assembly;           /* a message's bytes; NULL where it is one ptime */
    uint32_t n_assembled;        /* samples in it */
    int64_t first_sample;        /* track sample of the first of them */
    uint64_t chunk;              /* of the next message */
} tp_sender;

typedef struct tp_stream {
    const tp_stream_config *config;
    tp_playout playout;
    tp_stream_counters counters;
    uint32_t leg_rate_hz;
    uint32_t closed;
    uint32_t in_fragments;       /* a message of several frames has begun: all of it is Python's */
    uint32_t message_samples;    /* per media message out, at the stream's rate */
    uint64_t sequence;           /* of the next message */
    uint64_t mask_state;
    int64_t clock;               /* track sample at which the next frame starts; the path keeps it current */
    int64_t origin;              /* track sample at which the stream was attached */

    uint32_t fill_armed, fill_pending; /* a bit each for 30, 60, 90 and 100 percent */
    uint64_t fill_dropped;       /* samples dropped and not yet reported */
    uint64_t underruns_pending;
    uint32_t audio_pending;      /* TP_TRACK_x bits */
    uint32_t due_pending, low_pending, alarm_pending;
    int64_t due_id;
    uint64_t low_wanted;         /* tell when fewer samples wait; 0: no */
    int64_t alarm;               /* INT64_MAX: none */

    tp_sender senders[2];        /* inbound, outbound */

    tp_track tracks[2];          /* application role */
    uint64_t sent;               /* stream samples */
    int64_t model_start;         /* the far end began to play gap-free at this time */
    uint64_t model_start_sent;   /* with this sample of ours */
    int64_t held_at;             /* the far end holds what it has since then; INT64_MAX: it does not */
    int64_t last_now;

    uint8_t *tail;               /* application role: what was sent last, as a ring; NULL: not kept */
    uint32_t tail_bytes;
    uint64_t tail_from, tail_end; /* stream samples in it; beyond `sent`: to be sent again */
} tp_stream;

/* One frame of one track as the path has it: the leg's payload bytes, linear samples, or both; each is made from the
 * other when first asked for. */
typedef struct tp_frame {
    tp_format format;            /* of the leg */
    const uint8_t *bytes;        /* NULL: the samples are not what a payload said */
    int16_t *pcm;                /* room for n samples */
    uint32_t n;
    uint8_t has_pcm, silent;
    int64_t at;                  /* track sample of the first */
} tp_frame;

/* What one call of tp_stream_receive did. */
enum {
    TP_RECEIVED_ALL = 0,   /* every whole frame in the input was plain media; consumed says how far */
    TP_RECEIVED_OTHER = 1  /* stopped after a frame that is Python's: payload unmasked at offset, length; consumed is its end */
};
enum { TP_PROTOCOL_NONE = 0, TP_PROTOCOL_HEADER = 1, TP_PROTOCOL_TOO_LONG = 2, TP_PROTOCOL_MASK = 3 };
typedef struct tp_received {
    uint32_t consumed;       /* bytes of the input dealt with; what is left is the beginning of a frame */
    uint32_t needed;         /* bytes from `consumed` on that the unfinished frame will have in all (0: header not yet whole) */
    uint32_t offset, length; /* OTHER: the payload */
    uint8_t opcode, fin, n_media, protocol_error;
} tp_received;

size_t tp_stream_sizeof(void);

/* Platform role: bytes that a stream for a leg of this ptime needs beside the struct; 0: none. */
size_t tp_stream_lent_bytes(const tp_stream *stream, uint32_t ptime_ms);
/* They are the stream's until it is closed; aligned as from any allocator. TP_E_ROOM: too few */
int tp_stream_lend(tp_stream *stream, uint32_t ptime_ms, uint8_t *bytes, size_t capacity);

/* For the path. Attach checks that message_ms is whole ptimes and fits (TP_E_ARGUMENT), and that what it needs has been
 * lent (TP_E_STATE); room is what one tick can append at most; break sends a begun message as it is, because the track's
 * clock is about to skip. */
int tp_stream_attach(tp_stream *stream, uint32_t ptime_ms, int64_t clock);
size_t tp_stream_room(const tp_stream *stream, uint32_t *n_outputs);
void tp_stream_send_frame(tp_stream *stream, uint32_t track, tp_frame *frame, uint32_t slot, uint32_t index, tp_outbox *out);
void tp_stream_break(tp_stream *stream, uint32_t slot, uint32_t index, tp_outbox *out);
const int16_t *tp_frame_pcm(tp_frame *frame);
bool tp_stream_has_events(const tp_stream *stream);
/* After the path took a frame: n_read queue samples, n_audio of n samples of audio in the frame. */
void tp_stream_played(tp_stream *stream, uint64_t n_read, size_t n_audio, size_t n);

/* TP_E_FULL: the pool cannot give the reserve. Config and what it points to must outlive the stream. */
int tp_stream_init(tp_stream *stream, tp_pool *pool, const tp_stream_config *config, uint32_t leg_rate_hz, int64_t now);
/* Everything still queued is gone, every pending mark is LOST at `at_sample`, blocks and reserve go back; events can still be pulled. */
void tp_stream_close(tp_stream *stream, int64_t at_sample);

/* Bytes from the socket; unmasked in place. -> TP_RECEIVED_x, or TP_E_FORMAT with report->protocol_error. */
int tp_stream_receive(tp_stream *stream, tp_received *report, uint8_t *in, size_t in_bytes, int64_t now);
/* One whole message without framing (assembled from fragments, or another transport). -> 1 taken, 0 not the known shape */
int tp_stream_receive_message(tp_stream *stream, uint8_t *in, size_t in_bytes, int64_t now);
/* Raw payload that Python's parser (or another wire) found. platform: to the playout; application: to `track`'s ring. Takes what the
 * bound allows, drops and counts the excess. -> samples taken */
ptrdiff_t tp_stream_receive_audio(tp_stream *stream, uint32_t track, tp_format format, const uint8_t *in, size_t in_bytes, int64_t now);

/* The playout of this stream, whichever role. */
ptrdiff_t tp_stream_play(tp_stream *stream, tp_format format, const uint8_t *in, size_t in_bytes); /* -> samples accepted, may be fewer than given */
/* Application role: what a program says piece by piece. `in` is payload of the stream's own `encoding`, or with encoding 0
 * samples of the machine's own int16, at any address. Taken only as far as this stream's own reserve goes, so that what
 * other streams of the pool hold makes no difference. -> 1: all of it is queued; 0: nothing is done, tp_stream_play it */
int tp_stream_say(tp_stream *stream, uint32_t encoding, const void *in, size_t in_bytes);
int tp_stream_mark(tp_stream *stream, int64_t id); /* at the queue's present end; TP_E_FULL beyond TP_MARKS_MAX */
int64_t tp_stream_clear(tp_stream *stream, int64_t at_sample); /* -> samples dropped; pending marks CLEARED at at_sample; the
                                                                  application's model: what was sent is over */
void tp_stream_pause(tp_stream *stream, int paused); /* platform role: the queue's position is held */
uint64_t tp_stream_queued_samples(const tp_stream *stream);
uint64_t tp_stream_queued_us(const tp_stream *stream);
uint32_t tp_stream_pool_bytes(const tp_stream *stream);
const tp_stream_counters *tp_stream_statistics(const tp_stream *stream);
int tp_stream_next_event(tp_stream *stream, tp_event *event); /* 1 or 0 */
/* TP_EVENT_AUDIO alone, without the rest of an event. -> its value; 0 with nothing done: there is none, or others too */
uint32_t tp_stream_take_audio(tp_stream *stream);
/* The next number of the wire's message sequence, for control messages that Python writes. */
uint64_t tp_stream_take_sequence(tp_stream *stream);

/* Application role. Appends media messages while the model of what has been played allows. -> flags TP_TICK_x, or TP_E_ROOM.
 * With TP_TICK_MARK_DUE the caller sends what is in the outbox, then the checkpoint named by the event, then ticks again. */
enum { TP_TICK_EVENTS = 1, TP_TICK_OUTPUT = 2, TP_TICK_MARK_DUE = 4 };
int tp_stream_tick(tp_stream *stream, uint32_t slot, int64_t now, tp_outbox *out);
int64_t tp_stream_next_deadline(const tp_stream *stream); /* when a tick could send again, or the alarm; INT64_MAX: nothing waits */
/* TP_EVENT_AUDIO of a track is due at each write from which on at least `written` samples of it were ever written, and at
 * once when they are there already. 0, as at first: at every write; UINT64_MAX: never. What was pending and is no longer
 * due is taken back. */
int tp_stream_wake_at(tp_stream *stream, uint32_t track, uint64_t written);
/* TP_EVENT_LOW at the first tick or clear that leaves fewer than `samples` in the queue; replaces what was asked before;
 * 0: never. */
void tp_stream_want_low(tp_stream *stream, uint64_t samples);
/* TP_EVENT_ALARM at the first tick at or after `at`; replaces what was asked before; INT64_MAX: never. */
void tp_stream_set_alarm(tp_stream *stream, int64_t at);
int tp_stream_set_track(tp_stream *stream, uint32_t track, uint8_t *bytes, uint32_t capacity_bytes); /* a listener came */
uint64_t tp_stream_track_written(const tp_stream *stream, uint32_t track);
/* Copies payload bytes of samples [from, from + n) as they arrived. -> samples copied; *from is moved up to the oldest kept */
ptrdiff_t tp_stream_track_read(const tp_stream *stream, uint32_t track, uint8_t *out, size_t out_capacity, uint64_t *from, size_t n);
/* The next n samples for a reader at *from that may lag by `bound` (at least n): what it lags more is lost, then n samples
 * are copied and *from moves behind them. -> samples lost; TP_E_STATE with nothing done when fewer than n are there */
ptrdiff_t tp_stream_track_next(const tp_stream *stream, uint32_t track, uint8_t *out, size_t out_capacity, uint64_t *from,
                               size_t n, size_t bound);
/* Application role: the model of the far playout. Samples of this stream the far end should have played by now. */
uint64_t tp_stream_model_played(const tp_stream *stream, int64_t now);
uint64_t tp_stream_sent_samples(const tp_stream *stream);
/* Application role. The far end has been told to hold what it has (held != 0), or to go on: meanwhile the model stands still
 * and nothing is sent. A clear ends it. -> how long it was held, ns; 0 when it begins, or when nothing changes */
int64_t tp_stream_hold(tp_stream *stream, int held, int64_t now);
/* Application role. Keeps what is sent from now on in `ring`, whole samples, which is the stream's until it is closed. */
int tp_stream_keep_tail(tp_stream *stream, uint8_t *ring, uint32_t ring_bytes);
/* While held: what was sent and by the model not played is to be sent again, before everything else, as far as it was
 * kept; the far end has been told to drop it. -> samples */
uint64_t tp_stream_rewind(tp_stream *stream);
/* Where the model stands, for whoever lays out what was sent on the inbound track's clock. held_at: INT64_MAX unless held. */
typedef struct tp_model {
    uint64_t sent, start_sent; /* stream samples: sent so far; the first of the run that plays, or played last */
    int64_t start, held_at;    /* when that one began to play */
} tp_model;
void tp_stream_model(const tp_stream *stream, tp_model *model);
/* What was sent, from sample *from on; *from moves up to the oldest kept, then behind what was read. -> samples */
size_t tp_stream_tail_read(const tp_stream *stream, uint8_t *out, size_t out_capacity, uint64_t *from);

#endif
