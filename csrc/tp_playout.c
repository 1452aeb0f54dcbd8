#include "tp_playout.h"

#include "tp_g711.h"

#define MARKS_PER_BLOCK 64u
#define MARK_SLOTS (TP_MARK_BLOCKS * MARKS_PER_BLOCK)
/* One block less than the ring has: the block of the head never also holds entries of the tail. */
#define MARKS_TOTAL (MARK_SLOTS - MARKS_PER_BLOCK)
#define PIECE 320u /* samples converted at a time */

/* The entry's state in the low bits, its value above: a queue sample, a run sample, then a track sample. */
enum { WAITING = TP_OUTCOME_PENDING, REACHED = 4, STATE_BITS = 3 };
typedef struct mark_entry {
    int64_t value_state;
    int64_t id;
} mark_entry;

typedef struct block_head {
    uint32_t rate_hz;
    uint16_t encoding;
    uint16_t used; /* bytes of audio; of the tail block tail_at says it */
} block_head;

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

static mark_entry *mark_at(const tp_playout *p, uint32_t i) {
    uint32_t slot = (p->mark_head + i) % MARK_SLOTS;
    uint8_t *block = tp_pool_block(p->pool, p->mark_blocks[slot / MARKS_PER_BLOCK]);
    return (mark_entry *)(void *)block + slot % MARKS_PER_BLOCK;
}

static int mark_state(const mark_entry *mark) { return (int)(mark->value_state & ((1 << STATE_BITS) - 1)); }
static int64_t mark_value(const mark_entry *mark) { return mark->value_state >> STATE_BITS; }
static void mark_set(mark_entry *mark, int state, int64_t value) {
    mark->value_state = value * (1 << STATE_BITS) + state;
}

static void mark_give_block(tp_playout *p, uint32_t i) {
    tp_chain_give(&p->marks, p->pool, p->mark_blocks[i]);
    p->mark_blocks[i] = TP_NO_BLOCK;
}

/* Takes entry i out. The cursors are the caller's. */
static void mark_remove(tp_playout *p, uint32_t i) {
    if (i == 0) {
        uint32_t was = p->mark_head;
        p->mark_head = (p->mark_head + 1) % MARK_SLOTS;
        p->n_marks--;
        if (p->n_marks == 0) {
            mark_give_block(p, was / MARKS_PER_BLOCK);
            p->mark_head = 0;
        } else if (p->mark_head % MARKS_PER_BLOCK == 0) {
            mark_give_block(p, was / MARKS_PER_BLOCK);
        }
        return;
    }
    for (uint32_t j = i; j + 1 < p->n_marks; j++) *mark_at(p, j) = *mark_at(p, j + 1);
    p->n_marks--;
    uint32_t freed = (p->mark_head + p->n_marks) % MARK_SLOTS;
    if (freed % MARKS_PER_BLOCK == 0) mark_give_block(p, freed / MARKS_PER_BLOCK);
}

/* Marks whose audio has been read when the queue stands at `position`: their place in the run is now known. `before` of
 * the segment's input lies before queue sample `read`. */
static void marks_reach(tp_playout *p, uint64_t position, int64_t before) {
    while (p->n_reached < p->n_marks) {
        mark_entry *mark = mark_at(p, p->n_reached);
        if (mark_state(mark) == WAITING) {
            int64_t value = mark_value(mark);
            if ((uint64_t)value > position) return;
            int64_t in = before + (value - (int64_t)p->read);
            mark_set(mark, REACHED, p->segment_out + ceil_div(in * p->leg_rate_hz, p->rate_hz) + p->delay);
        }
        p->n_reached++;
    }
}

/* Marks at or before run sample `end` have been played; run sample `produced` is track sample `at`. */
static void marks_settle(tp_playout *p, int64_t end, int64_t at) {
    while (p->n_settled < p->n_reached) {
        mark_entry *mark = mark_at(p, p->n_settled);
        if (mark_state(mark) == REACHED) {
            int64_t out = mark_value(mark);
            if (out > end) return;
            mark_set(mark, TP_OUTCOME_PLAYED, at + (out - p->produced));
        } else {
            p->n_lost_early--;
        }
        p->n_settled++;
    }
}

/* Without a run nothing is in between: what lies at the queue's front has been reached. */
static void marks_idle(tp_playout *p, int64_t at) {
    while (p->n_reached < p->n_marks) {
        mark_entry *mark = mark_at(p, p->n_reached);
        if (mark_state(mark) == WAITING) {
            if ((uint64_t)mark_value(mark) > p->read) break;
            mark_set(mark, REACHED, p->produced);
        }
        p->n_reached++;
    }
    marks_settle(p, p->produced, at);
}

static void marks_end(tp_playout *p, int outcome, int64_t at) {
    for (uint32_t i = p->n_settled; i < p->n_marks; i++) {
        mark_entry *mark = mark_at(p, i);
        int state = mark_state(mark);
        if (state == WAITING || state == REACHED) mark_set(mark, outcome, at);
    }
    p->n_settled = p->n_reached = p->n_marks;
    p->n_lost_early = 0;
}

bool tp_playout_knows(tp_format format) {
    return tp_resample_knows(format.rate_hz) && format.encoding >= TP_ENCODING_PCMU && format.encoding <= TP_ENCODING_L16BE;
}

bool tp_playout_carries(tp_format format) {
    return tp_playout_knows(format) &&
           (format.rate_hz == 8000 || format.rate_hz == 16000 || format.rate_hz == 24000 || format.rate_hz == 48000);
}

static void run_end(tp_playout *p) {
    p->running = 0;
    p->rate_hz = p->leg_rate_hz;
    p->delay = p->n_carry = 0;
    p->produced = p->segment_out = p->segment_in = p->audio_in = 0;
}

int tp_playout_open(tp_playout *p, tp_pool *pool, tp_format format, uint32_t reserve_ms, uint32_t bound_ms,
                    uint32_t leg_rate_hz) {
    if (!tp_playout_carries(format) || !tp_playout_carries((tp_format){leg_rate_hz, TP_ENCODING_PCMU})) return TP_E_ARGUMENT;
    if (reserve_ms > bound_ms || bound_ms > 3600u * 1000u) return TP_E_ARGUMENT;
    memset(p, 0, sizeof *p);
    p->pool = pool;
    p->leg_rate_hz = leg_rate_hz;
    p->bound = (uint64_t)bound_ms * (TP_PLAYOUT_UNITS_HZ / 1000);
    run_end(p);
    uint64_t reserve_bytes = (uint64_t)reserve_ms * (format.rate_hz / 1000) * tp_sample_bytes(format.encoding);
    /* One more than the bytes need: the head block is given back only when all of it has been read. */
    uint64_t blocks = (reserve_bytes + TP_PLAYOUT_BLOCK_BYTES - 1) / TP_PLAYOUT_BLOCK_BYTES + (reserve_bytes != 0);
    if (blocks + TP_MARK_RESERVE > pool->n_blocks) return TP_E_FULL;
    for (uint32_t i = 0; i < TP_MARK_BLOCKS; i++) p->mark_blocks[i] = TP_NO_BLOCK;
    int status = tp_chain_open(&p->audio, pool, (uint32_t)blocks);
    if (status != TP_OK) return status;
    status = tp_chain_open(&p->marks, pool, TP_MARK_RESERVE);
    if (status != TP_OK) tp_chain_close(&p->audio, pool);
    return status;
}

bool tp_playout_is_sure(const tp_playout *p, tp_format format, size_t n_samples, uint32_t reserve_ms) {
    uint64_t most = (uint64_t)reserve_ms * (TP_PLAYOUT_UNITS_HZ / 1000);
    if (p->waiting > most || n_samples > (most - p->waiting) / (TP_PLAYOUT_UNITS_HZ / format.rate_hz)) return false;
    /* The tail block may be of another format, and then its room is lost: it is not counted on. */
    uint64_t bytes = (uint64_t)n_samples * tp_sample_bytes(format.encoding);
    return p->audio.n_blocks <= p->audio.reserve &&
           bytes <= (uint64_t)(p->audio.reserve - p->audio.n_blocks) * TP_PLAYOUT_BLOCK_BYTES;
}

size_t tp_playout_write(tp_playout *p, tp_format format, const uint8_t *in, size_t n_samples) {
    uint32_t unit = TP_PLAYOUT_UNITS_HZ / format.rate_hz;
    uint32_t size = tp_sample_bytes(format.encoding);
    uint64_t room = (p->bound - p->waiting) / unit;
    size_t left = n_samples < room ? n_samples : (size_t)room;
    size_t done = 0;
    while (left != 0) {
        uint8_t *block = NULL;
        if (p->audio.tail != TP_NO_BLOCK) {
            block = tp_pool_block(p->pool, p->audio.tail);
            block_head head;
            memcpy(&head, block, sizeof head);
            bool same = head.rate_hz == format.rate_hz && head.encoding == format.encoding;
            if (!same || TP_PLAYOUT_BLOCK_BYTES - p->audio.tail_at < size) {
                head.used = (uint16_t)p->audio.tail_at;
                memcpy(block, &head, sizeof head);
                block = NULL;
            }
        }
        if (block == NULL) {
            uint32_t fresh = tp_chain_push(&p->audio, p->pool);
            if (fresh == TP_NO_BLOCK) break;
            block = tp_pool_block(p->pool, fresh);
            block_head head = {format.rate_hz, (uint16_t)format.encoding, 0};
            memcpy(block, &head, sizeof head);
            p->audio.tail_at = 0;
        }
        size_t fits = (TP_PLAYOUT_BLOCK_BYTES - p->audio.tail_at) / size;
        size_t n = left < fits ? left : fits;
        memcpy(block + sizeof(block_head) + p->audio.tail_at, in, n * size);
        p->audio.tail_at += (uint32_t)(n * size);
        in += n * size;
        done += n;
        left -= n;
    }
    p->written += done;
    p->waiting += (uint64_t)done * unit;
    return done;
}

void tp_playout_drop(tp_playout *p, size_t n_samples) {
    if (n_samples == 0) return;
    p->n_dropped += n_samples;
    p->dropped_since_mark = 1;
}

int tp_playout_mark(tp_playout *p, int64_t id, int64_t at) {
    if (p->n_marks - p->n_settled - p->n_lost_early >= TP_MARKS_MAX || p->n_marks >= MARKS_TOTAL) return TP_E_FULL;
    uint32_t block = (p->mark_head + p->n_marks) % MARK_SLOTS / MARKS_PER_BLOCK;
    if (p->mark_blocks[block] == TP_NO_BLOCK) {
        p->mark_blocks[block] = tp_chain_take(&p->marks, p->pool);
        if (p->mark_blocks[block] == TP_NO_BLOCK) return TP_E_FULL;
    }
    mark_entry *mark = mark_at(p, p->n_marks++);
    mark->id = id;
    if (p->dropped_since_mark) {
        mark_set(mark, TP_OUTCOME_LOST, at);
        p->n_lost_early++;
        p->dropped_since_mark = 0;
    } else {
        mark_set(mark, WAITING, (int64_t)p->written);
    }
    return TP_OK;
}

static uint64_t drop_queued(tp_playout *p) {
    uint64_t dropped = p->written - p->read;
    tp_chain_clear(&p->audio, p->pool);
    p->read = p->written;
    p->waiting = 0;
    p->dropped_since_mark = 0;
    p->flowing = 0;
    run_end(p);
    return dropped;
}

uint64_t tp_playout_clear(tp_playout *p, int64_t at) {
    uint64_t dropped = drop_queued(p);
    marks_end(p, TP_OUTCOME_CLEARED, at);
    return dropped;
}

void tp_playout_close(tp_playout *p, int64_t at) {
    (void)drop_queued(p);
    marks_end(p, TP_OUTCOME_LOST, at);
    tp_chain_close(&p->audio, p->pool);
    tp_chain_release(&p->marks, p->pool);
    p->bound = 0;
}

/* The audio that lies in one piece at the front. -> samples */
static size_t front(const tp_playout *p, tp_format *format, const uint8_t **bytes) {
    uint8_t *block = tp_pool_block(p->pool, p->audio.head);
    block_head head;
    memcpy(&head, block, sizeof head);
    uint32_t used = p->audio.head == p->audio.tail ? p->audio.tail_at : head.used;
    format->rate_hz = head.rate_hz;
    format->encoding = head.encoding;
    *bytes = block + sizeof head + p->audio.head_at;
    return (used - p->audio.head_at) / tp_sample_bytes(head.encoding);
}

/* n samples of the front piece, which has `available`, are read. */
static void advance(tp_playout *p, tp_format format, size_t n, size_t available) {
    p->read += n;
    p->waiting -= (uint64_t)n * (TP_PLAYOUT_UNITS_HZ / format.rate_hz);
    if (n == available) {
        tp_chain_pop(&p->audio, p->pool);
        p->audio.head_at = 0;
        if (p->audio.head == TP_NO_BLOCK) p->audio.tail_at = 0;
    } else {
        p->audio.head_at += (uint32_t)n * tp_sample_bytes(format.encoding);
    }
}

static void segment_begin(tp_playout *p, uint32_t rate_hz, int64_t at) {
    p->segment_out = at;
    p->segment_in = p->audio_in = 0;
    p->rate_hz = rate_hz;
    p->n_carry = p->delay = 0;
    if (rate_hz != p->leg_rate_hz) {
        (void)tp_resample_init(&p->resampler, rate_hz, p->leg_rate_hz); /* write() let only known rates in */
        p->delay = tp_resample_delay(&p->resampler);
    }
}

/* Run sample after the last one that the segment's audio reaches into. */
static int64_t audio_end(const tp_playout *p) {
    return p->segment_out + ceil_div(p->audio_in * p->leg_rate_hz, p->rate_hz) + p->delay;
}

/* How much input to convert so that at most `wanted` samples come out; at least one. */
static size_t input_for(const tp_playout *p, size_t wanted) {
    int64_t out = ceil_div(p->segment_in * p->leg_rate_hz, p->rate_hz) + (int64_t)wanted;
    int64_t in = out * p->rate_hz / p->leg_rate_hz - p->segment_in;
    return in < 1 ? 1 : in > PIECE ? PIECE : (size_t)in;
}

/* Converts n input samples; what `out` has no room for is carried over. -> samples written to `out` */
static size_t convert(tp_playout *p, int16_t *out, size_t room, const int16_t *in, size_t n) {
    size_t due = (size_t)(ceil_div((p->segment_in + (int64_t)n) * p->leg_rate_hz, p->rate_hz) -
                          ceil_div(p->segment_in * p->leg_rate_hz, p->rate_hz));
    p->segment_in += (int64_t)n;
    if (due <= room) {
        (void)tp_resample_process(&p->resampler, out, room, in, n);
        return due;
    }
    int16_t all[8]; /* one input sample alone can overshoot, and gives at most 48 / 8 */
    (void)tp_resample_process(&p->resampler, all, sizeof all / sizeof all[0], in, n);
    memcpy(out, all, room * sizeof *out);
    p->n_carry = (uint32_t)(due - room);
    memcpy(p->carry, all + room, p->n_carry * sizeof *out);
    return room;
}

static void run_begin(tp_playout *p, int64_t at) {
    if (p->running) { /* what was marked since the queue ran dry lies where its audio ends */
        marks_reach(p, p->read, p->audio_in);
        return;
    }
    marks_idle(p, at);
    if (p->waiting == 0) return;
    tp_format format;
    const uint8_t *bytes;
    (void)front(p, &format, &bytes);
    p->running = 1;
    p->produced = 0;
    segment_begin(p, format.rate_hz, 0);
}

/* The frame of n samples at track sample `at` has been given out. -> samples of audio in it */
static size_t run_frame(tp_playout *p, int64_t at, size_t n) {
    int64_t end = p->produced + (int64_t)n;
    marks_settle(p, end, at);
    int64_t audio = p->waiting != 0 ? end : audio_end(p);
    size_t n_audio = audio >= end ? n : audio <= p->produced ? 0 : (size_t)(audio - p->produced);
    p->produced = end;
    if (p->waiting == 0 && audio <= end) run_end(p);
    return n_audio;
}

size_t tp_playout_take_pcm(tp_playout *p, int64_t at, int16_t *out, size_t n) {
    static const int16_t zeros[PIECE] = {0};
    run_begin(p, at);
    if (!p->running) {
        memset(out, 0, n * sizeof *out);
        return 0;
    }
    size_t filled = 0;
    while (filled < n) {
        size_t room = n - filled;
        tp_format format = {p->rate_hz, TP_ENCODING_NONE};
        const uint8_t *bytes = NULL;
        size_t available = p->waiting != 0 ? front(p, &format, &bytes) : 0;
        if (format.rate_hz != p->rate_hz) {
            int64_t tail = audio_end(p) - (p->produced + (int64_t)filled);
            if (tail <= 0) {
                segment_begin(p, format.rate_hz, p->produced + (int64_t)filled);
                continue;
            }
            if ((size_t)tail < room) room = (size_t)tail;
            available = 0; /* the old rate's filter gives out what it holds first */
        }
        if (p->n_carry != 0) {
            size_t k = p->n_carry < room ? p->n_carry : room;
            memcpy(out + filled, p->carry, k * sizeof *out);
            p->n_carry -= (uint32_t)k;
            memmove(p->carry, p->carry + k, p->n_carry * sizeof *out);
            filled += k;
            continue;
        }
        if (p->rate_hz == p->leg_rate_hz) {
            size_t k = available < room ? available : room;
            if (k == 0) {
                memset(out + filled, 0, room * sizeof *out);
                p->segment_in += (int64_t)room;
                filled += room;
            } else {
                (void)tp_g711_decode(format.encoding, out + filled, bytes, k);
                marks_reach(p, p->read + k, p->segment_in);
                p->segment_in += (int64_t)k;
                p->audio_in = p->segment_in;
                advance(p, format, k, available);
                filled += k;
            }
            continue;
        }
        size_t k = input_for(p, room);
        if (available == 0) {
            filled += convert(p, out + filled, room, zeros, k);
            continue;
        }
        int16_t linear[PIECE];
        if (k > available) k = available;
        (void)tp_g711_decode(format.encoding, linear, bytes, k);
        marks_reach(p, p->read + k, p->segment_in);
        filled += convert(p, out + filled, room, linear, k);
        p->audio_in = p->segment_in;
        advance(p, format, k, available);
    }
    return run_frame(p, at, n);
}

/* Whether the next n samples, or all that wait when they are fewer, lie in the queue in `format`. */
static bool front_has_format(const tp_playout *p, tp_format format, size_t n) {
    uint32_t size = tp_sample_bytes(format.encoding);
    uint32_t from = p->audio.head_at;
    for (uint32_t block = p->audio.head; block != TP_NO_BLOCK; block = p->pool->next[block]) {
        block_head head;
        memcpy(&head, tp_pool_block(p->pool, block), sizeof head);
        if (head.rate_hz != format.rate_hz || head.encoding != format.encoding) return false;
        size_t here = ((block == p->audio.tail ? p->audio.tail_at : head.used) - from) / size;
        if (here >= n) return true;
        n -= here;
        from = 0;
    }
    return true;
}

ptrdiff_t tp_playout_take_bytes(tp_playout *p, int64_t at, tp_format format, uint8_t *out, size_t n) {
    if (format.rate_hz != p->leg_rate_hz || (p->running && p->rate_hz != p->leg_rate_hz)) return -1;
    if (!front_has_format(p, format, n)) return -1;
    run_begin(p, at);
    if (!p->running) return 0;
    uint32_t size = tp_sample_bytes(format.encoding);
    size_t filled = 0;
    while (filled < n && p->waiting != 0) {
        const uint8_t *bytes;
        size_t available = front(p, &format, &bytes);
        size_t k = available < n - filled ? available : n - filled;
        memcpy(out + filled * size, bytes, k * size);
        marks_reach(p, p->read + k, p->segment_in);
        p->segment_in += (int64_t)k;
        p->audio_in = p->segment_in;
        advance(p, format, k, available);
        filled += k;
    }
    p->segment_in += (int64_t)(n - filled);
    return (ptrdiff_t)run_frame(p, at, n);
}

void tp_playout_rest(tp_playout *p, int64_t at) {
    /* In a run every mark that is not settled has audio before it, in the queue or in the filter. */
    if (!p->running) marks_idle(p, at);
}

int tp_playout_ran_dry(tp_playout *p, size_t n_audio, size_t n) {
    int dry = n_audio < n && (n_audio != 0 || p->flowing);
    p->flowing = n_audio == n;
    return dry;
}

/* The first pending mark's index, or n_marks. */
static uint32_t first_pending(const tp_playout *p) {
    for (uint32_t i = p->n_settled; i < p->n_marks; i++) {
        if (mark_state(mark_at(p, i)) == WAITING) return i;
    }
    return p->n_marks;
}

size_t tp_playout_readable(const tp_playout *p) {
    uint32_t i = first_pending(p);
    uint64_t end = i < p->n_marks ? (uint64_t)mark_value(mark_at(p, i)) : p->written;
    return end > p->read ? (size_t)(end - p->read) : 0;
}

size_t tp_playout_read(tp_playout *p, uint32_t encoding, uint8_t *out, size_t n) {
    size_t readable = tp_playout_readable(p);
    if (n > readable) n = readable;
    uint32_t size = tp_sample_bytes(encoding);
    size_t done = 0;
    while (done < n) {
        tp_format format;
        const uint8_t *bytes;
        size_t available = front(p, &format, &bytes);
        size_t k = available < n - done ? available : n - done;
        if (format.encoding == encoding) {
            memcpy(out + done * size, bytes, k * size);
        } else {
            int16_t linear[PIECE];
            if (k > PIECE) k = PIECE;
            (void)tp_g711_decode(format.encoding, linear, bytes, k);
            (void)tp_g711_encode(encoding, out + done * size, linear, k);
        }
        advance(p, format, k, available);
        done += k;
    }
    return done;
}

bool tp_playout_mark_is_due(const tp_playout *p) {
    uint32_t i = first_pending(p);
    return i < p->n_marks && (uint64_t)mark_value(mark_at(p, i)) <= p->read;
}

int tp_playout_pop_due(tp_playout *p, int64_t *id) {
    uint32_t i = first_pending(p);
    if (i == p->n_marks) return 0;
    mark_entry *mark = mark_at(p, i);
    if ((uint64_t)mark_value(mark) > p->read) return 0;
    *id = mark->id;
    mark_remove(p, i);
    return 1;
}

int tp_playout_next_mark(tp_playout *p, int64_t *id, int64_t *at) {
    uint32_t i = 0;
    if (p->n_settled == 0) {
        if (p->n_lost_early == 0) return TP_OUTCOME_PENDING;
        while (mark_state(mark_at(p, i)) != TP_OUTCOME_LOST) i++;
        p->n_lost_early--;
    } else {
        p->n_settled--;
    }
    if (i < p->n_reached) p->n_reached--;
    mark_entry *mark = mark_at(p, i);
    int outcome = mark_state(mark);
    *id = mark->id;
    *at = mark_value(mark);
    mark_remove(p, i);
    return outcome;
}
