#include "tp_jitter.h"

#include "tp_jitter_bits.h"

enum { PHASE_EMPTY = 0, PHASE_WAITING = 1, PHASE_PLAYING = 2 };

#define NS_PER_MS 1000000
#define SPAN TP_JITTER_SPAN_MS
#define WINDOW_NS (5000LL * NS_PER_MS)
#define JUMP_MS 1000          /* a transit this far off is no jitter */
#define AGREE_NS (200LL * NS_PER_MS)
#define JUMP_PACKETS 3
#define LATE_PACKETS 6
#define HOLD_MS 100           /* concealment has faded to silence by then */
#define SKIP_EVERY_NS (200LL * NS_PER_MS)
#define INSERT_EVERY_NS (100LL * NS_PER_MS)
#define SKIP_SLACK_MS 2       /* the base moves by a few ms; without slack a skip could follow an insertion */
#define INSERT_SLACK_MS 3
#define REMOVE_EVERY_NS (60LL * NS_PER_MS)
#define REPEAT_EVERY_NS (40LL * NS_PER_MS)
#define HASTE_STEPS 3         /* so far above the target every frame may be shortened */
#define WASTE_MS 3            /* a shorter lag than that is no period of a voice */
#define REFUSALS_QUIET 40     /* frames: the better part of a second in which a quiet moment may come */
#define REFUSALS_MORE 8       /* from one urgency to the next after that */
#define MAX_DROPOUT 3000      /* RFC 3550 A.1 */
#define MAX_MISORDER 100      /* as well */
#define FIRST_MS (1LL << 20)  /* media time starts above 0 so that no position is ever negative */

static inline int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }

static inline void forget_range(tp_jitter *s, int64_t from, int64_t to) {
    if (to - from >= SPAN) {
        memset(s->arrived, 0, sizeof s->arrived);
        memset(s->unsent, 0, sizeof s->unsent);
        s->has_unsent = 0;
        return;
    }
    while (from < to) {
        uint32_t n = (uint32_t)min64(64, to - from);
        bits_clear(s->arrived, from, low_bits(n));
        if (s->has_unsent)
            bits_clear(s->unsent, from, low_bits(n));
        from += n;
    }
}

/* Nearly every copy is 20 ms of G.711, and one of a known length needs no call. */
static inline void copy_bytes(uint8_t *out, const uint8_t *in, size_t n) {
    if (n == 160)
        memcpy(out, in, 160);
    else
        memcpy(out, in, n);
}

static inline void copy_in(tp_jitter *s, int64_t ms, const uint8_t *in, uint32_t n_ms) {
    uint32_t at = (uint32_t)((uint64_t)ms & (SPAN - 1)), b = s->config.bytes_per_ms;
    uint32_t first = n_ms < SPAN - at ? n_ms : SPAN - at;
    copy_bytes(s->bytes + (size_t)at * b, in, (size_t)first * b);
    if (first < n_ms)
        memcpy(s->bytes, in + (size_t)first * b, (size_t)(n_ms - first) * b);
}

/* n_ms from a sample within a ms on. */
static inline void copy_out(const tp_jitter *s, uint8_t *out, int64_t ms, uint32_t fraction, uint32_t n_ms) {
    uint32_t b = s->config.bytes_per_ms, size = SPAN * b, n = n_ms * b;
    uint32_t at = (uint32_t)((uint64_t)ms & (SPAN - 1)) * b + (fraction ? fraction * (b / s->samples_per_ms) : 0);
    uint32_t first = n < size - at ? n : size - at;
    copy_bytes(out, s->bytes + at, first);
    if (first < n)
        memcpy(out + first, s->bytes, n - first);
}

/* Telephone audio has 8 samples a ms, and a division by that is none. */
static inline int32_t whole_ms(const tp_jitter *s, int32_t samples) {
    return s->samples_per_ms == 8 ? samples / 8 : samples / (int32_t)s->samples_per_ms;
}

/* The position and its timestamp move together, always. */
static inline void move_to(tp_jitter *s, int64_t ms) {
    s->playout_timestamp += (uint32_t)(ms - s->position_ms) * s->samples_per_ms;
    s->position_ms = ms;
    if (s->newest_ms < ms) {
        s->newest_ms = ms;
        s->newest_timestamp = s->playout_timestamp;
    }
}

static inline void pass(tp_jitter *s, int64_t ms) {
    forget_range(s, s->position_ms, s->position_ms + ms);
    move_to(s, s->position_ms + ms);
    s->consumed_ms = s->position_ms;
}

/* The same for at most 64 ms. */
static inline void pass_frame(tp_jitter *s, uint32_t ms) {
    bits_clear(s->arrived, s->position_ms, low_bits(ms));
    if (s->has_unsent)
        bits_clear(s->unsent, s->position_ms, low_bits(ms));
    move_to(s, s->position_ms + ms);
    s->consumed_ms = s->position_ms;
}

/* Go on at a whole ms, with what lies between left out. */
static void jump_to(tp_jitter *s, int64_t ms) {
    s->broken |= ms != s->position_ms || s->fraction != 0;
    move_to(s, ms);
    s->fraction = 0;
}

/* The ring's ms that one frame from the position on touches. */
static inline uint32_t touched_ms(const tp_jitter *s) { return s->config.ptime_ms + (s->fraction != 0); }

static inline int64_t waiting_ms(const tp_jitter *s) { return s->newest_ms - s->position_ms; }

static void skip(tp_jitter *s, int64_t ms) {
    pass(s, ms);
    s->broken = 1;
    s->skipped_ms += (uint64_t)ms;
    s->pending_skip_ms += (uint32_t)ms;
}

static inline int64_t base_of(const tp_jitter *s) { return min64(s->base_ns, s->window_base_ns); }

static inline int64_t floor_ms(int64_t ns) { return ns >= 0 ? ns / NS_PER_MS : -((-ns + NS_PER_MS - 1) / NS_PER_MS); }

/* Sequence numbers: which have come, which are missing, which are lost. */

static void settle(tp_jitter *s, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        s->packets_lost += s->gaps[i].n_missing;
    s->n_gaps -= n;
    memmove(s->gaps, s->gaps + n, s->n_gaps * sizeof s->gaps[0]);
}

static inline void settle_passed(tp_jitter *s) {
    uint32_t n = 0;
    while (n < s->n_gaps && s->gaps[n].end_ms <= s->position_ms)
        n++;
    if (n)
        settle(s, n);
}

static inline bool is_duplicate(const tp_jitter *s, int32_t diff) {
    return diff <= 0 && diff > -64 && (s->seen >> -diff & 1) != 0;
}

/* The number is new to us. end_ms: where the audio that revealed a gap before it begins. */
static inline void track(tp_jitter *s, uint16_t seq, int32_t diff, int64_t end_ms) {
    if (!s->seq_known) {
        s->seq_known = 1;
        s->newest_seq = seq;
        s->seen = 1;
        return;
    }
    if (diff > 0) {
        if (diff > 1) {
            if (s->n_gaps == TP_JITTER_GAPS)
                settle(s, 1);
            tp_jitter_gap *gap = &s->gaps[s->n_gaps++];
            gap->end_ms = end_ms;
            gap->first_seq = (uint16_t)(s->newest_seq + 1);
            gap->n_seq = (uint16_t)(diff - 1);
            gap->n_missing = (uint32_t)(diff - 1);
        }
        s->seen = diff < 64 ? s->seen << diff | 1 : 1;
        s->newest_seq = seq;
        return;
    }
    s->packets_reordered++;
    if (diff > -64)
        s->seen |= (uint64_t)1 << -diff;
    for (uint32_t i = 0; i < s->n_gaps; i++) {
        tp_jitter_gap *gap = &s->gaps[i];
        if ((uint16_t)(seq - gap->first_seq) < gap->n_seq && gap->n_missing) {
            gap->n_missing--;
            return;
        }
    }
    if (diff > -64 && s->packets_lost)
        s->packets_lost--;
}

static void set_base(tp_jitter *s, int64_t transit, int64_t arrived_ns) {
    s->base_ns = s->window_base_ns = transit;
    s->window_since_ns = arrived_ns;
}

/* Begin on this packet, whatever was before: its first ms becomes the position. `rewind_ms`: how far the position may
 * still go back for packets that this one overtook; 0 where what lies behind has been played. */
static void begin(tp_jitter *s, uint32_t timestamp, int64_t arrived_ns, int64_t rewind_ms) {
    if (waiting_ms(s) > 0)
        skip(s, waiting_ms(s));
    int64_t ms = s->newest_ms;
    memset(s->arrived, 0, sizeof s->arrived);
    memset(s->unsent, 0, sizeof s->unsent);
    s->has_unsent = 0;
    settle(s, s->n_gaps);
    s->position_ms = s->border_ms = ms;
    s->fraction = 0;
    s->consumed_ms = ms - rewind_ms;
    s->playout_timestamp = s->newest_timestamp = timestamp;
    s->phase = PHASE_WAITING;
    s->broken = 1;
    s->held_ms = 0;
    s->n_suspects = 0;
    s->seq_known = 0;
    s->last_transit_ns = arrived_ns - ms * NS_PER_MS;
    set_base(s, s->last_transit_ns, arrived_ns);
}

static bool agreed(tp_jitter *s, uint16_t seq, int64_t transit, uint32_t needed) {
    int32_t step = tp_seq_diff(seq, s->suspect_seq);
    int64_t off = transit - s->suspect_transit_ns;
    bool goes_on = s->n_suspects && step >= 1 && step <= 3 && off <= AGREE_NS && off >= -AGREE_NS;
    s->n_suspects = goes_on ? s->n_suspects + 1 : 1;
    s->suspect_seq = seq;
    s->suspect_transit_ns = transit;
    return s->n_suspects >= needed;
}

int tp_jitter_init(tp_jitter *state, const tp_jitter_config *config, uint8_t *bytes, size_t bytes_capacity) {
    if (config->clock_rate_hz % 1000 || config->clock_rate_hz < 8000 || config->clock_rate_hz > 48000 ||
        config->bytes_per_ms < 1 || config->bytes_per_ms > TP_JITTER_MAX_BYTES_PER_MS || config->ptime_ms < 10 ||
        config->ptime_ms > 60 || config->max_delay_ms > TP_JITTER_MAX_DELAY_MS ||
        config->min_delay_ms > config->max_delay_ms ||
        (config->stretches && config->bytes_per_ms % (config->clock_rate_hz / 1000)))
        return TP_E_ARGUMENT;
    if (bytes_capacity < (size_t)SPAN * config->bytes_per_ms)
        return TP_E_ROOM;
    memset(state, 0, sizeof *state);
    state->config = *config;
    state->bytes = bytes;
    state->samples_per_ms = config->clock_rate_hz / 1000;
    state->step_ms = config->ptime_ms;
    state->target_delay_ms = config->min_delay_ms;
    state->position_ms = state->newest_ms = state->consumed_ms = state->border_ms = FIRST_MS;
    state->silent_since_ns = -1;
    return TP_OK;
}

void tp_jitter_reset(tp_jitter *state) {
    settle(state, state->n_gaps);
    forget_range(state, 0, SPAN);
    state->ssrc_restarts += state->started;
    state->started = 0;
    state->phase = PHASE_EMPTY;
    state->seq_known = 0;
    state->held_ms = 0;
    state->n_suspects = 0;
    state->note_is_newest = 0;
    state->promised = 0;
    state->repeatable = 0;
    jump_to(state, state->newest_ms);
}

static int discard_late(tp_jitter *s) {
    s->packets_late++;
    s->packets_discarded++;
    return 0;
}

static int discard_duplicate(tp_jitter *s) {
    s->packets_duplicated++;
    s->packets_discarded++;
    return 0;
}

/* Where `hole` ms of timestamps lie between the newest audio and this packet: mark what was never sent of it, and see how
 * much of what was concealed meanwhile it explains. */
static void open_hole(tp_jitter *s, int64_t at, int32_t diff) {
    int64_t from = s->newest_ms, hole = at - from;
    int64_t lost = diff == 1 ? 0 : diff > 1 ? min64(hole, (int64_t)(diff - 1) * s->packet_ms) : hole;
    bool dry = waiting_ms(s) == 0;
    if (s->phase == PHASE_PLAYING && s->held_ms) {
        int64_t covered = min64(s->held_ms, lost);
        s->missing_ms += (uint64_t)covered;
        if (lost == hole)
            s->inserted_ms += (uint64_t)(s->held_ms - covered);
        s->held_ms = 0;
        pass(s, covered);
        from += covered;
        lost -= covered;
    }
    if (dry && (s->phase == PHASE_WAITING || (lost == 0 && at > from) || at - s->position_ms >= SPAN / 2)) {
        forget_range(s, s->position_ms, at);
        jump_to(s, at);
        s->phase = PHASE_WAITING;
        return;
    }
    for (int64_t ms = from + lost; ms < at && ms < s->position_ms + SPAN;) {
        uint32_t n = (uint32_t)min64(64, min64(at, s->position_ms + SPAN) - ms);
        bits_set(s->unsent, ms, low_bits(n));
        s->has_unsent = 1;
        ms += n;
    }
}

static inline uint32_t place(tp_jitter *s, int64_t at, const uint8_t *payload, uint32_t n_ms) {
    uint32_t placed = 0, b = s->config.bytes_per_ms;
    for (uint32_t done = 0; done < n_ms;) {
        uint32_t n = n_ms - done < 64 ? n_ms - done : 64;
        uint64_t have = bits_read(s->arrived, at + done, n);
        if (have == 0) {
            copy_in(s, at + done, payload + (size_t)done * b, n);
            placed += n;
        } else {
            for (uint32_t i = 0; i < n; i++)
                if (!(have >> i & 1)) {
                    copy_in(s, at + done + i, payload + (size_t)(done + i) * b, 1);
                    placed++;
                }
        }
        bits_set(s->arrived, at + done, low_bits(n));
        if (s->has_unsent)
            bits_clear(s->unsent, at + done, low_bits(n));
        done += n;
    }
    return placed;
}

int tp_jitter_put(tp_jitter *state, uint16_t seq, uint32_t timestamp, uint8_t marker, const uint8_t *payload,
                  size_t payload_bytes, int64_t arrived_ns) {
    tp_jitter *s = state;
    uint32_t b = s->config.bytes_per_ms;
    uint32_t n_ms = s->packet_ms;
    if (payload_bytes != (size_t)n_ms * b) {
        if (payload_bytes > (size_t)TP_JITTER_MAX_PACKET_MS * b || (uint32_t)payload_bytes % b)
            return TP_E_FORMAT;
        n_ms = (uint32_t)payload_bytes / b;
    }
    if (n_ms == 0) {
        tp_jitter_note(s, seq, arrived_ns);
        return 0;
    }
    s->packets_received++;
    s->last_arrived_ns = arrived_ns;
    if (s->phase == PHASE_EMPTY) {
        s->started = 1;
        s->last_correction_ns = s->last_decay_ns = arrived_ns - SKIP_EVERY_NS;
        s->last_audio_ns = arrived_ns - WINDOW_NS;
        begin(s, timestamp, arrived_ns, SPAN);
    }

    /* In 32 bits, where division is cheaper: half a ms and 2^31 units are all that is lost. */
    int32_t spm = (int32_t)s->samples_per_ms;
    int32_t units = (int32_t)min64((int64_t)tp_ts_diff(timestamp, s->playout_timestamp) + s->samples_per_ms / 2, INT32_MAX);
    int32_t units_ms = whole_ms(s, units);
    int64_t at = s->position_ms + units_ms - (units < units_ms * spm);
    int64_t transit = arrived_ns - at * NS_PER_MS;
    int64_t delay_ns = transit - base_of(s);
    bool far_behind = delay_ns >= (JUMP_MS + 1LL) * NS_PER_MS, far_ahead = delay_ns < -(int64_t)JUMP_MS * NS_PER_MS;
    int32_t diff = s->seq_known ? tp_seq_diff(seq, s->newest_seq) : 1;
    bool resting = s->phase == PHASE_WAITING && waiting_ms(s) == 0;

    if (s->seq_known && is_duplicate(s, diff))
        return discard_duplicate(s);
    /* Overtaken before a stall, and come out of it: old, not of a new clock. */
    bool straggler = far_behind && diff <= 0 && diff > -MAX_MISORDER;
    if (straggler) {
        track(s, seq, diff, s->position_ms);
        return discard_late(s);
    }
    if (far_behind || far_ahead) {
        bool in_order = diff == 1 && (resting || marker);
        if (!in_order && !agreed(s, seq, transit, JUMP_PACKETS)) {
            s->packets_discarded++;
            return 0;
        }
        s->resyncs += in_order && far_behind ? 0 : 1;
        begin(s, timestamp, arrived_ns, 0);
        at = s->position_ms;
        transit = s->last_transit_ns;
        diff = 1;
    } else if (resting && delay_ns >= (s->config.max_delay_ms + 1LL) * NS_PER_MS) {
        /* The pause hid a longer way, or a stall: what was the least transit is of no use to what comes now. */
        set_base(s, transit, arrived_ns);
    }
    if (diff > MAX_DROPOUT || (diff <= -64 && at >= s->newest_ms)) {
        s->seq_known = 0;
        diff = 1;
    }

    tp_jitter_learn(s, at, transit, n_ms, diff > 0, arrived_ns);

    if (s->phase == PHASE_WAITING && at < s->position_ms && at >= s->consumed_ms && s->newest_ms - at <= SPAN)
        jump_to(s, at);
    if (at + n_ms <= s->position_ms) {
        bool newer = diff > 0;
        track(s, seq, diff, s->position_ms);
        if (!newer || !agreed(s, seq, transit, LATE_PACKETS))
            return discard_late(s);
        s->resyncs++;
        begin(s, timestamp, arrived_ns, 0);
        at = s->position_ms;
        diff = 1;
    }
    s->n_suspects = 0;

    int64_t over = at + n_ms - SPAN - s->position_ms;
    if (over > 0 && waiting_ms(s) > 0) {
        int64_t p = s->config.ptime_ms; /* whole frames: packets keep their place within the frames */
        skip(s, min64((over + p - 1) / p * p, waiting_ms(s)));
    }
    if (at > s->newest_ms)
        open_hole(s, at, diff);
    else if (s->held_ms && s->phase == PHASE_PLAYING) {
        s->inserted_ms += s->held_ms;
        s->held_ms = 0;
    }
    track(s, seq, diff, at);

    uint32_t passed = at < s->position_ms ? (uint32_t)(s->position_ms - at) : 0;
    uint32_t placed = place(s, at + passed, payload + (size_t)passed * b, n_ms - passed);
    if (at + n_ms > s->newest_ms) {
        s->newest_ms = at + n_ms;
        s->newest_timestamp = s->playout_timestamp + (uint32_t)waiting_ms(s) * s->samples_per_ms;
    }
    if (placed == 0)
        return discard_duplicate(s);
    if (diff > 0) {
        s->packet_ms = n_ms;
        s->note_is_newest = 0;
    }
    return 1;
}

void tp_jitter_note(tp_jitter *state, uint16_t seq, int64_t arrived_ns) {
    state->last_arrived_ns = arrived_ns;
    if (state->phase == PHASE_EMPTY)
        return;
    int32_t diff = state->seq_known ? tp_seq_diff(seq, state->newest_seq) : 1;
    if (state->seq_known && is_duplicate(state, diff))
        return;
    if (diff > MAX_DROPOUT) {
        state->seq_known = 0;
        diff = 1;
    }
    track(state, seq, diff, state->newest_ms);
    if (diff > 0)
        state->note_is_newest = 1;
}

int tp_jitter_receive(tp_jitter *state, const uint8_t *datagram, size_t datagram_bytes, uint8_t payload_type,
                      int64_t arrived_ns) {
    tp_rtp_header header;
    if (tp_rtp_is_rtcp(datagram, datagram_bytes))
        return 0;
    int status = tp_rtp_read(&header, datagram, datagram_bytes);
    if (status < 0)
        return status;
    if (state->ssrc_known && header.ssrc != state->ssrc)
        tp_jitter_reset(state);
    state->ssrc = header.ssrc;
    state->ssrc_known = 1;
    if (header.payload_type == payload_type)
        return tp_jitter_put(state, header.seq, header.timestamp, header.marker, datagram + header.payload_offset,
                             header.payload_bytes, arrived_ns);
    tp_jitter_note(state, header.seq, arrived_ns);
    return 0;
}

/* Samples from the position to the next border of a step. Both are near what is heard: 32 bits are enough. */
static inline int32_t before_border(const tp_jitter *s) {
    int32_t step = (int32_t)s->step_ms, spm = (int32_t)s->samples_per_ms;
    int32_t ms = (int32_t)(s->border_ms - s->position_ms);
    if (ms >= step)
        ms -= step; /* where it nearly always is: one packet waits */
    if (ms < 0 || ms >= step)
        ms %= step;
    int32_t samples = (ms < 0 ? ms + step : ms) * spm - (int32_t)s->fraction;
    return samples < 0 ? samples + step * spm : samples;
}

/* Whole frames to skip so that the delay is within one of the target, leaving a frame to play. */
static int64_t surplus_ms(const tp_jitter *s, int64_t delay_ms) {
    int64_t p = s->config.ptime_ms, full = waiting_ms(s);
    int64_t deep = max64(delay_ms, full - s->packet_ms);
    int64_t frames = min64((deep - (int64_t)s->target_delay_ms) / p, (full - p) / p);
    return frames > 0 ? frames * p : 0;
}

/* Brings the position to where the next frame is to be taken. The delay is due_ms, the media time that is due with no delay
 * at all, minus the position: here and below. -> false: silence, nothing is due yet. */
static inline bool approach(tp_jitter *s, int64_t due_ms) {
    for (;;) {
        if (s->phase == PHASE_WAITING) {
            if (waiting_ms(s) <= 0)
                return false;
            int64_t delay_ms = due_ms - s->position_ms;
            if (delay_ms < (int64_t)s->target_delay_ms)
                return false;
            int64_t surplus = surplus_ms(s, delay_ms);
            if (surplus)
                skip(s, surplus);
            s->phase = PHASE_PLAYING;
        }
        if (!s->has_unsent || waiting_ms(s) <= 0 || !bits_read(s->unsent, s->position_ms, 1))
            return true;
        int64_t to = s->position_ms + 1;
        while (to < s->newest_ms && bits_read(s->unsent, to, 1))
            to++;
        forget_range(s, s->position_ms, to);
        jump_to(s, to);
        s->phase = PHASE_WAITING;
    }
}

/* Keeps the delay near the target. -> true: this frame is an insertion. */
static inline bool correct(tp_jitter *s, int64_t due_ms, int64_t now) {
    int64_t p = s->config.ptime_ms, full = waiting_ms(s), delay_ms = due_ms - s->position_ms;
    int64_t target = s->target_delay_ms, most = s->config.max_delay_ms, since = now - s->last_correction_ns;
    if (full <= 0)
        return false;
    if (delay_ms > most + p || full > most + max64(s->packet_ms, p) + p) {
        int64_t surplus = surplus_ms(s, delay_ms);
        if (surplus) {
            skip(s, surplus);
            s->last_correction_ns = now;
        }
        return false;
    }
    if (s->promised || s->config.stretches)
        return false;
    delay_ms -= whole_ms(s, before_border(s));
    if (delay_ms >= target + p + SKIP_SLACK_MS) {
        bool missing = full > p && bits_read(s->arrived, s->position_ms, (uint32_t)p) == 0;
        if (missing || (full >= 2 * p && since >= SKIP_EVERY_NS)) {
            skip(s, p);
            s->last_correction_ns = now;
        }
    } else if (delay_ms < target - INSERT_SLACK_MS && since >= INSERT_EVERY_NS) {
        s->last_correction_ns = now;
        return true;
    }
    return false;
}

/* What the frame just taken should be stretched by. */
static void want(tp_jitter *s, tp_jitter_frame *frame, int64_t due_ms, int64_t now) {
    int32_t waste = before_border(s);
    int64_t step = s->step_ms, spm = s->samples_per_ms;
    int64_t over_ms = due_ms - s->position_ms + s->config.ptime_ms - whole_ms(s, waste) - s->target_delay_ms;
    int64_t since = now - s->last_correction_ns;
    uint32_t more = s->refusals < REFUSALS_QUIET ? 0 : 1 + (s->refusals - REFUSALS_QUIET) / REFUSALS_MORE;
    frame->urgency = more < 3 ? more : 3;
    if (over_ms < -INSERT_SLACK_MS) {
        if (since >= REPEAT_EVERY_NS)
            frame->wanted_samples = (int32_t)(waste - (step - 1 - over_ms) / step * step * spm);
        return;
    }
    int64_t steps = over_ms >= step + SKIP_SLACK_MS ? (over_ms - SKIP_SLACK_MS) / step : 0;
    int64_t wanted = waste + steps * step * spm;
    if (steps >= HASTE_STEPS && frame->urgency == 0)
        frame->urgency = 1;
    if (frame->following && wanted >= WASTE_MS * spm && (since >= REMOVE_EVERY_NS || steps >= HASTE_STEPS))
        frame->wanted_samples = (int32_t)wanted;
}

/* Several holes are told as one: a frame has room for one concealment, and what it covers needs no second. */
static void say_missing(tp_jitter_frame *frame, uint64_t have, uint32_t touched, uint32_t p) {
    uint32_t first = 0, last = touched - 1;
    while (have >> first & 1)
        first++;
    while (have >> last & 1)
        last--;
    /* Where the frame begins within a ms, its own ms straddle the ring's: all that are touched. */
    if (first && touched > p)
        first--;
    frame->missing_first_ms = first;
    frame->missing_ms = (last < p ? last + 1 : p) - first;
}

/* Nothing at all has come from the frame's ms on. */
static bool is_dry_from(const tp_jitter *s, uint32_t frame_ms) {
    return s->newest_ms <= s->position_ms + frame_ms + (s->fraction != 0);
}

int tp_jitter_get(tp_jitter *state, tp_jitter_frame *frame, uint8_t *out, int64_t now) {
    tp_jitter *s = state;
    uint32_t p = s->config.ptime_ms;
    memset(frame, 0, sizeof *frame);
    frame->kind = TP_JITTER_SILENCE;

    int64_t due_ms = floor_ms(now - base_of(s));
    bool due = s->phase != PHASE_EMPTY && approach(s, due_ms), insert = false;
    if (due) {
        int64_t from = s->position_ms;
        insert = correct(s, due_ms, now);
        /* A skip may have led into a stretch that was never sent. */
        due = s->position_ms == from || approach(s, due_ms);
    }
    frame->skipped_ms = s->pending_skip_ms;
    frame->broken = s->broken;
    s->pending_skip_ms = s->broken = 0;
    frame->timestamp = s->playout_timestamp;
    s->repeatable = 0;
    s->taken_ns = now;

    if (due && insert) {
        frame->kind = TP_JITTER_MISSING;
        frame->inserted_ms = p;
        s->inserted_ms += p;
    } else if (due) {
        uint32_t touched = touched_ms(s);
        uint64_t whole = low_bits(touched), have = bits_read(s->arrived, s->position_ms, touched);
        if (have && have != whole)
            say_missing(frame, have, touched, p);
        if (have && frame->missing_ms < p) {
            copy_out(s, out, s->position_ms, s->fraction, p);
            frame->kind = have == whole ? TP_JITTER_AUDIO : TP_JITTER_PARTIAL;
            s->repeatable = have == whole;
            s->emitted_ms += p - frame->missing_ms;
            s->delay_ms_sum += (uint64_t)max64(due_ms - s->position_ms, 0);
            s->delay_frames++;
            if (s->config.stretches && frame->kind == TP_JITTER_PARTIAL && is_dry_from(s, frame->missing_first_ms)) {
                frame->inserted_ms = frame->missing_ms;
                s->held_ms += frame->missing_ms;
                pass(s, waiting_ms(s));
                s->fraction = 0;
            } else {
                s->missing_ms += frame->missing_ms;
                pass_frame(s, p);
            }
        } else if (waiting_ms(s) > (s->fraction != 0)) {
            frame->kind = TP_JITTER_MISSING;
            frame->missing_first_ms = frame->missing_ms = 0;
            s->missing_ms += p;
            pass(s, p);
        } else {
            pass(s, waiting_ms(s));
            s->fraction = 0;
            frame->missing_first_ms = frame->missing_ms = 0;
            if (s->note_is_newest || s->held_ms >= HOLD_MS) {
                s->phase = PHASE_WAITING;
                s->held_ms = 0;
            } else {
                frame->kind = TP_JITTER_MISSING;
                frame->inserted_ms = p;
                s->held_ms += p;
            }
        }
    }
    s->silent_since_ns = frame->kind != TP_JITTER_SILENCE ? -1 : s->silent_since_ns < 0 ? now : s->silent_since_ns;
    uint32_t touched = touched_ms(s);
    frame->following = s->phase == PHASE_PLAYING && bits_read(s->arrived, s->position_ms, touched) == low_bits(touched);
    s->promised = frame->following && frame->kind != TP_JITTER_AUDIO;
    if (s->config.stretches && frame->kind == TP_JITTER_AUDIO)
        want(s, frame, due_ms, now);
    settle_passed(s);
    return TP_OK;
}

int tp_jitter_stretched(tp_jitter *state, int32_t samples) {
    tp_jitter *s = state;
    int64_t spm = s->samples_per_ms, total = (int64_t)s->fraction + samples;
    int64_t ms = total >= 0 ? total / spm : -((spm - 1 - total) / spm);
    if (samples == 0) {
        s->refusals++;
        return TP_OK;
    }
    bool possible = samples > 0 ? total <= waiting_ms(s) * spm
                                : s->repeatable && -ms <= (int64_t)s->config.ptime_ms && waiting_ms(s) - ms <= SPAN;
    if (!possible)
        return TP_E_STATE;
    if (samples > 0)
        s->removed_samples += (uint64_t)samples;
    else
        s->repeated_samples += (uint64_t)-(int64_t)samples;
    if (ms >= 0) {
        pass(s, ms);
    } else {
        bits_set(s->arrived, s->position_ms + ms, low_bits((uint32_t)-ms));
        s->position_ms += ms;
        s->playout_timestamp -= (uint32_t)-ms * s->samples_per_ms;
        s->consumed_ms = s->position_ms;
    }
    s->fraction = (uint32_t)(total - ms * spm);
    s->last_correction_ns = s->taken_ns;
    s->refusals = 0;
    return TP_OK;
}

int tp_jitter_peek(const tp_jitter *state, uint8_t *out, size_t out_capacity) {
    uint32_t p = state->config.ptime_ms, touched = touched_ms(state);
    if (bits_read(state->arrived, state->position_ms, touched) != low_bits(touched))
        return TP_E_STATE;
    if (out_capacity < (size_t)p * state->config.bytes_per_ms)
        return TP_E_ROOM;
    copy_out(state, out, state->position_ms, state->fraction, p);
    return (int)(p * state->config.bytes_per_ms);
}

uint32_t tp_jitter_delay_ms(const tp_jitter *state) { return (uint32_t)waiting_ms(state); }
