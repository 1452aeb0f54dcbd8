/* tp_playout: one source's queue: audio that waits, the marks in it, clear, pause.
 *
 * What it does. Whoever plays to the caller (a bidirectional stream, an announcement) has a queue of its own. It takes
 * audio in bursts, gives it out a frame at a time, and says of each mark, exact to one sample of the outbound track,
 * when the audio before it had been played, cleared or lost.
 *
 * How it works. Audio waits as it arrived: payload bytes in blocks of the pool, a format tag per block, a new block when
 * the format changes. It is converted when it is played, so a burst of 40 s costs a copy now and its resampling a frame
 * at a time later, and frames that need no conversion leave bit-exact. Marks are a second queue of 16-byte entries in
 * blocks that have a reserve of their own, so that no amount of audio can take them; a mark never lies among the audio.
 *
 * Three coordinates are kept apart. *Queue* samples count what was written, in its own rates laid end to end; a mark is
 * set at one. *Run* samples count what came out since the source last was idle, at the leg's rate; they stand still while
 * the source rests (pause, hold, a skipped hole). *Track* samples count the outbound track, silence included; an outcome
 * is one. A run begins at a frame's start and is a row of segments, one per sample rate. Within a segment that began at
 * run sample o, a mark with k input samples before it lies at run sample o + ceil(k * leg / rate) + delay, delay being
 * the resampler's (0 when the rates are equal). The resampler is fed without a break while the run lasts: queued audio,
 * then zeros. Where the rate changes, the old segment first gives out the audio still in its filter, then the new one
 * begins, so neither audio nor a mark's sample is lost in between. The run ends when the queue is empty and the filter
 * has given out what it held.
 *
 * Outcomes. PLAYED in the frame that hands over the last sample before the mark (the boundary belongs to the frame: a
 * mark at its end is resolved by it). A mark on an empty, idle queue: at the next frame's start. A mark set after the
 * queue ran dry in a run whose filter is not yet empty: where the audio before it ended, but never before the present
 * frame's start. CLEARED and LOST: at the track sample the caller names. Audio that did not fit is dropped, newest first,
 * and the next mark is LOST at once, as the audio before it will never all be played.
 *
 * How to use it. open; write / drop, mark, clear, rest or take_x once per frame; next_mark() reads outcomes and frees
 * their entries, in order, except that marks lost at once do not wait for earlier ones. After close the outcomes can
 * still be read; blocks that hold unread ones go back as they are read.
 *
 * Figures to hold: 20 ms of PCMU written and read in below 60 ns at any depth; clear of 60 s below 100 ns; exact to one
 * sample against an independent model (tests/path/test_playout.py).
 * Source: own. */
#ifndef TP_PLAYOUT_H
#define TP_PLAYOUT_H
#include "tp_pool.h"
#include "tp_resample.h"

#define TP_MARKS_MAX 256 /* pending per source; the next is refused */
#define TP_MARK_BLOCKS 8 /* 64 entries each: outcomes not yet read wait beside the pending ones */
#define TP_MARK_RESERVE 5 /* blocks that 256 entries in a row can touch */
#define TP_PLAYOUT_BLOCK_BYTES (TP_BLOCK_BYTES - 8u) /* of audio; the block's head says its format */
#define TP_PLAYOUT_UNITS_HZ 14112000u /* waiting time is counted in 1 / this s: whole for every rate */

enum { TP_OUTCOME_PENDING = 0, TP_OUTCOME_PLAYED = 1, TP_OUTCOME_CLEARED = 2, TP_OUTCOME_LOST = 3 };

typedef struct tp_playout {
    tp_pool *pool;
    tp_chain audio;              /* head_at bytes of the head block are read, tail_at of the tail block written */
    tp_chain marks;              /* pays for mark_blocks */
    uint64_t written, read;      /* queue samples */
    uint64_t bound, waiting;     /* 1 / TP_PLAYOUT_UNITS_HZ s */
    uint64_t n_dropped;          /* samples dropped as excess */
    uint32_t dropped_since_mark; /* the next mark is LOST */
    uint32_t paused;
    uint32_t leg_rate_hz;

    uint32_t mark_head, n_marks; /* ring of TP_MARK_BLOCKS * 64 entries */
    uint32_t n_settled;          /* entries from the head on whose outcome is known */
    uint32_t n_reached;          /* entries from the head on whose audio has been read */
    uint32_t n_lost_early;       /* marks lost at once, beyond n_settled */
    uint32_t mark_blocks[TP_MARK_BLOCKS];

    uint32_t running;     /* a run is on */
    uint32_t flowing;     /* the last frame was full of audio */
    uint32_t rate_hz;     /* of the segment */
    uint32_t delay;       /* of the segment's resampler, run samples */
    uint32_t n_carry;     /* converted samples that the last frame had no room for */
    int16_t carry[8];
    int64_t produced;     /* run samples given out: where the next frame starts */
    int64_t segment_out;  /* run sample at which the segment began */
    int64_t segment_in;   /* input samples fed since, zeros included */
    int64_t audio_in;     /* segment_in after the last sample of audio */
    tp_resample resampler;
} tp_playout;

/* TP_E_FULL: the pool cannot promise reserve_ms of `format` and the marks' blocks. TP_E_ARGUMENT: a rate it does not know. */
int tp_playout_open(tp_playout *playout, tp_pool *pool, tp_format format, uint32_t reserve_ms, uint32_t bound_ms,
                    uint32_t leg_rate_hz);
/* Audio gone, pending marks LOST at `at`, blocks and reserve back. */
void tp_playout_close(tp_playout *playout, int64_t at);
/* Formats it can hold: a known encoding at a rate that tp_resample knows. */
bool tp_playout_knows(tp_format format);
/* Formats of a leg or a stream: those of 8, 16, 24 or 48 kHz, of which a millisecond has whole samples. */
bool tp_playout_carries(tp_format format);

/* Appends what bound and pool allow. -> samples taken */
size_t tp_playout_write(tp_playout *playout, tp_format format, const uint8_t *in, size_t n_samples);
/* Whether n samples can be taken whole with no more blocks and time than reserve_ms of `format` was promised. */
bool tp_playout_is_sure(const tp_playout *playout, tp_format format, size_t n_samples, uint32_t reserve_ms);
void tp_playout_drop(tp_playout *playout, size_t n_samples); /* that many could not be taken: the next mark is LOST */
/* At the queue's present end; `at` is the track's clock, for one that is lost at once. TP_E_FULL */
int tp_playout_mark(tp_playout *playout, int64_t id, int64_t at);
uint64_t tp_playout_clear(tp_playout *playout, int64_t at); /* -> samples dropped */

static inline bool tp_playout_has_audio(const tp_playout *playout) {
    return playout->running || playout->waiting != 0;
}

/* One frame of n samples that starts at track sample `at`. Exactly one of the three, once per frame.
 * take_pcm: linear at the leg's rate, zeros after the audio. -> samples of audio from the frame's start on
 * take_bytes: the payload as it arrived, when every sample of the frame has `format` and needs no conversion; nothing is
 *   written after the audio. -> samples of audio, or -1 with nothing done
 * rest: nothing is taken; only marks with nothing before them resolve. */
size_t tp_playout_take_pcm(tp_playout *playout, int64_t at, int16_t *out, size_t n);
ptrdiff_t tp_playout_take_bytes(tp_playout *playout, int64_t at, tp_format format, uint8_t *out, size_t n);
void tp_playout_rest(tp_playout *playout, int64_t at);
/* -> 1 once when the source was playing and the frame just taken (with n_audio of n samples) found it dry */
int tp_playout_ran_dry(tp_playout *playout, size_t n_audio, size_t n);

/* Without a leg's clock (a line sends ahead of it): up to n samples, all of the playout's one rate, converted to
 * `encoding`; never across a pending mark. -> samples; 0 at a mark or at the end */
size_t tp_playout_read(tp_playout *playout, uint32_t encoding, uint8_t *out, size_t n);
size_t tp_playout_readable(const tp_playout *playout);       /* samples up to the next pending mark or the end */
int tp_playout_pop_due(tp_playout *playout, int64_t *id);     /* removes the mark that read() stopped at. -> 1 or 0 */
bool tp_playout_mark_is_due(const tp_playout *playout);

/* An outcome; its entry is free from here on. -> TP_OUTCOME_x, or TP_OUTCOME_PENDING: there is none */
int tp_playout_next_mark(tp_playout *playout, int64_t *id, int64_t *at);
static inline bool tp_playout_has_outcome(const tp_playout *playout) {
    return playout->n_settled + playout->n_lost_early != 0;
}

#endif
