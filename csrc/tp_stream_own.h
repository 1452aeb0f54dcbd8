/* tp_stream_own: what the files of a stream share; a stream's own, nobody else's.
 *
 * What it does. tp_stream.c has the stream itself: its playout, its events, the platform's messages out. tp_stream_in.c has
 * what comes in, to be played or to be listened to. tp_stream_line.c has what only a line does: sending ahead of a model of
 * what has been played, holding, and sending again.
 *
 * How it works. Small things are inline, so that a message on its way in or out stays within one file but for the writing
 * of a line's.
 *
 * How to use it. From those three; what a stream promises is written in tp_stream.h.
 *
 * Figures to hold: those of tp_stream. Source: own. */
#ifndef TP_STREAM_OWN_H
#define TP_STREAM_OWN_H
#include "tp_ring.h"
#include "tp_stream.h"

#define TP_STREAM_MAX_RATE_PER_MS 48u
#define TP_STREAM_LONG_MESSAGE_MS 200u /* a line with much to send puts this much into one message */

static const uint32_t tp_stream_fill_percent[4] = {30, 60, 90, 100};

/* What the application plays may have another format than the call's tracks. */
static inline tp_format tp_stream_played_format(const tp_stream_config *config) {
    return config->play_format.rate_hz != 0 ? config->play_format : config->format;
}

static inline uint32_t tp_stream_track_index(uint32_t track) { return track == TP_TRACK_OUTBOUND ? 1 : 0; }

/* To be sent again. */
static inline uint64_t tp_stream_again(const tp_stream *s) { return s->tail_end > s->sent ? s->tail_end - s->sent : 0; }

/* The queue may have become shorter. */
static inline void tp_stream_low_check(tp_stream *s) {
    if (tp_stream_queued_samples(s) >= s->low_wanted) return;
    s->low_wanted = 0;
    s->low_pending = 1;
}

/* The room has been checked. `first` counts samples of `rate_hz` since the stream began. */
void tp_stream_write_message(tp_stream *s, uint32_t i, const uint8_t *payload, size_t n, int64_t first, uint32_t rate_hz,
                             uint32_t slot, uint32_t index, tp_outbox *out);

#endif
