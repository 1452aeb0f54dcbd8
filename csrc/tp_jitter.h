#ifndef TP_JITTER_H
#define TP_JITTER_H
#include "tp_base.h"

/* Adaptive, bounded jitter buffer. Audio lies in a ring by RTP timestamp, in units of 1 ms with a bit each for
 * "arrived", so packets of any whole-ms ptime, duplicates and reordering need no slots and no search. */
#define TP_JITTER_SPAN_MS 512
#define TP_JITTER_MAX_BYTES_PER_MS 32 /* L16 at 16 kHz */

typedef struct tp_jitter_config {
    uint32_t clock_rate_hz;
    uint32_t bytes_per_ms;   /* payload bytes in 1 ms: 8 G.711, 16 L16/8k, 32 L16/16k */
    uint32_t min_delay_ms;   /* target never below; default 20 */
    uint32_t max_delay_ms;   /* target never above, and what is deeper is skipped; default 200, at most 400 */
    uint32_t ptime_ms;       /* what get() takes: 10..60 */
} tp_jitter_config;

typedef enum tp_jitter_kind {
    TP_JITTER_AUDIO = 1,   /* the frame is whole */
    TP_JITTER_PARTIAL = 2, /* some ms are missing: see missing_ms; the missing bytes are undefined */
    TP_JITTER_MISSING = 3, /* nothing of it has arrived though the talkspurt goes on: conceal */
    TP_JITTER_SILENCE = 4  /* nothing was sent (before the first packet, DTX, hold): silence, not a loss */
} tp_jitter_kind;

typedef struct tp_jitter_frame {
    uint32_t kind;          /* tp_jitter_kind */
    uint32_t following;     /* 1: the ptime after this one has arrived whole (peek() gives it) */
    uint32_t missing_first_ms, missing_ms; /* PARTIAL: first missing run within the frame */
    uint32_t skipped_ms;    /* audio skipped just before this frame to shrink the delay */
    uint32_t inserted_ms;   /* > 0: this frame is an insertion to grow the delay; nothing was consumed (kind MISSING) */
    uint32_t timestamp;     /* RTP timestamp of the frame's first sample */
} tp_jitter_frame;

typedef struct tp_jitter {
    tp_jitter_config config;
    uint32_t started, ssrc_restarts;
    uint32_t playout_timestamp;   /* of the next get() */
    uint32_t newest_timestamp;    /* end of the newest audio seen */
    uint16_t newest_seq, reserved0;
    uint32_t target_delay_ms;
    uint32_t samples_per_ms;
    int64_t silent_since_ns, last_arrived_ns;
    int64_t private_ns[8];
    int32_t private_i32[32];
    /* statistics, webrtc-stats names */
    uint64_t packets_received, packets_lost, packets_discarded /* late or duplicate or out of span */, packets_late,
        packets_duplicated, packets_reordered;
    uint64_t emitted_ms, missing_ms, skipped_ms, inserted_ms;
    uint32_t jitter_x16;          /* RFC 3550 A.8, RTP units times 16 */
    uint32_t reserved1;
    uint64_t arrived[TP_JITTER_SPAN_MS / 64];
    uint8_t *bytes;               /* TP_JITTER_SPAN_MS * bytes_per_ms, owned by the caller */
} tp_jitter;

int tp_jitter_init(tp_jitter *state, const tp_jitter_config *config, uint8_t *bytes, size_t bytes_capacity);
void tp_jitter_reset(tp_jitter *state); /* new SSRC, hold released: forget the audio, keep the statistics */
/* -> 1 taken, 0 discarded (late, duplicate, implausible; counted); TP_E_FORMAT payload not whole ms or too long */
int tp_jitter_put(tp_jitter *state, uint16_t seq, uint32_t timestamp, uint8_t marker, const uint8_t *payload,
                  size_t payload_bytes, int64_t arrived_ns);
/* A packet of the same SSRC that carries no audio (telephone-event, CN): its sequence number is not a loss. */
void tp_jitter_note(tp_jitter *state, uint16_t seq, int64_t arrived_ns);
/* One ptime. out has ptime_ms * bytes_per_ms bytes. Always TP_OK. */
int tp_jitter_get(tp_jitter *state, tp_jitter_frame *frame, uint8_t *out, int64_t now);
/* The ptime after the one got last, when frame.following was set. -> bytes */
int tp_jitter_peek(const tp_jitter *state, uint8_t *out, size_t out_capacity);
uint32_t tp_jitter_delay_ms(const tp_jitter *state); /* audio waiting now */

#endif
