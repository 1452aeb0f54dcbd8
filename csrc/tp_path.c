#include "tp_path.h"

#include "tp_g711.h"
#include "tp_stretch.h"

#define NS_PER_MS 1000000LL
#define MAKE_UP_NS (60 * NS_PER_MS)
#define PCM_WAITING_MS 200u
#define MAX_FRAME_SAMPLES 2880u /* 60 ms at 48 kHz */
#define COMFORT_NOISE 13u
#define RECENT_MS 24u /* what concealment looks back at */
#define NOISE_SEED 3389u
#define EDGE_MS 5u   /* how long an edge that nothing leads up to is cross-faded */
#define PRESS_WINDOW_MS 100 /* tones and message of one press are no further apart, the jitter buffer's delay counted */

size_t tp_path_sizeof(void) { return sizeof(tp_path); }

static bool config_is_right(const tp_path_config *config) {
    if (config->ptime_ms < 10 || config->ptime_ms > 60 || !tp_playout_carries(config->leg_format)) return false;
    if (config->leg_kind == TP_LEG_PCM) return config->leg_format.encoding == TP_ENCODING_L16LE;
    return config->leg_kind == TP_LEG_RTP && config->leg_format.rate_hz <= 16000 && config->payload_type < 128;
}

size_t tp_path_jitter_bytes(const tp_path_config *config) {
    if (!config_is_right(config)) return 0;
    uint32_t per_ms = config->leg_format.rate_hz / 1000 * tp_sample_bytes(config->leg_format.encoding);
    return (size_t)per_ms * (config->leg_kind == TP_LEG_PCM ? PCM_WAITING_MS : TP_JITTER_SPAN_MS + RECENT_MS);
}

static void measure_room(tp_path *path) {
    uint32_t rtp = TP_RTP_HEADER_BYTES + path->frame_bytes;
    uint32_t events = 3 * (TP_RTP_HEADER_BYTES + 4);
    path->room_bytes = rtp > events ? rtp : events;
    path->room_outputs = 3;
    for (unsigned i = 0; i < TP_PATH_STREAMS; i++) {
        if (path->streams[i] == NULL) continue;
        uint32_t n_outputs;
        path->room_bytes += (uint32_t)tp_stream_room(path->streams[i], &n_outputs);
        path->room_outputs += n_outputs;
    }
}

int tp_path_init(tp_path *path, tp_pool *pool, const tp_path_config *config, uint8_t *jitter_bytes, int64_t now) {
    (void)pool; /* a path queues nothing itself; its streams do */
    size_t bytes = tp_path_jitter_bytes(config);
    if (bytes == 0 || jitter_bytes == NULL || now < 0) return TP_E_ARGUMENT;
    memset(path, 0, sizeof *path);
    path->config = *config;
    uint32_t rate = config->leg_format.rate_hz;
    path->frame_samples = rate / 1000 * config->ptime_ms;
    path->frame_bytes = path->frame_samples * tp_sample_bytes(config->leg_format.encoding);
    path->ptime_ns = config->ptime_ms * NS_PER_MS;
    int64_t phase = config->phase_ns % path->ptime_ns;
    path->deadline = now <= phase ? phase : (now - phase + path->ptime_ns - 1) / path->ptime_ns * path->ptime_ns + phase;
    path->direction = TP_DIRECTION_BOTH;
    path->seq = config->first_seq;
    path->last_media = now;
    for (uint32_t i = 0; i < TP_PATH_STREAMS; i++) tp_gain_init(&path->gains[i], path->frame_samples);
    (void)tp_limiter_init(&path->limiter, rate);
    if (config->inband_digits && tp_tone_init(&path->tone, rate) != TP_OK) return TP_E_ARGUMENT;
    measure_room(path);
    if (config->leg_kind == TP_LEG_PCM) {
        path->pcm = jitter_bytes;
        path->pcm_capacity = rate / 1000 * PCM_WAITING_MS;
        return TP_OK;
    }
    tp_jitter_config jitter = {rate, path->frame_bytes / config->ptime_ms, config->jitter_min_ms, config->jitter_max_ms,
                               config->ptime_ms, 1};
    path->recent_capacity = RECENT_MS * jitter.bytes_per_ms;
    path->recent = jitter_bytes + bytes - path->recent_capacity;
    int status = tp_jitter_init(&path->jitter, &jitter, jitter_bytes, bytes - path->recent_capacity);
    if (status != TP_OK) return status;
    tp_event_receiver_reset(&path->events_in);
    tp_noise_reset(&path->noise, NOISE_SEED);
    tp_event_sender_init(&path->events_out, rate, path->frame_samples);
    return tp_plc_init(&path->plc, rate);
}

int tp_path_attach(tp_path *path, unsigned stream, tp_stream *state) {
    if (path->closed) return TP_E_STATE;
    if (stream >= TP_PATH_STREAMS || path->streams[stream] != NULL) return TP_E_ARGUMENT;
    if (state->leg_rate_hz != path->config.leg_format.rate_hz) return TP_E_ARGUMENT;
    int status = tp_stream_attach(state, path->config.ptime_ms, path->clock);
    if (status != TP_OK) return status;
    path->streams[stream] = state;
    measure_room(path);
    return TP_OK;
}

void tp_path_detach(tp_path *path, unsigned stream) {
    if (stream >= TP_PATH_STREAMS || path->streams[stream] == NULL) return;
    tp_stream_close(path->streams[stream], path->clock);
    path->streams[stream] = NULL;
    tp_gain_init(&path->gains[stream], path->frame_samples);
    /* Digits of its own that have not begun go with it; among others' they cannot be told apart. */
    if (path->digits_by == 1u << stream) tp_event_sender_clear(&path->events_out);
    path->digits_by &= ~(1u << stream);
    path->digits_sent_pending &= ~(1u << stream);
    measure_room(path);
}

void tp_path_close(tp_path *path) {
    (void)tp_path_tap(path, NULL, 0);
    for (unsigned i = 0; i < TP_PATH_STREAMS; i++) tp_path_detach(path, i);
    path->tape = NULL;
    path->closed = 1;
}

uint32_t tp_path_room(const tp_path *path, uint32_t *n_outputs) {
    *n_outputs = path->room_outputs;
    return path->room_bytes;
}

/* ---- what comes in ---- */

/* `heard_at`: where its tones are, or would be, in the inbound track. */
static void see_digit(tp_path *path, char digit, int how, int64_t at_sample, int64_t heard_at) {
    int64_t window = path->config.leg_format.rate_hz / 1000 * PRESS_WINDOW_MS;
    if (path->config.inband_digits && !tp_presses_see(&path->presses, digit, how, heard_at, window)) {
        path->counters.digits_doubled++;
        return;
    }
    path->counters.digits_in++;
    path->counters.digits_in_audio += how == TP_PRESS_AUDIO;
    if (path->n_digits == TP_PATH_DIGITS) {
        path->counters.digits_overflowed++;
        return;
    }
    uint32_t at = (path->first_digit + path->n_digits++) % TP_PATH_DIGITS;
    path->digits[at] = (tp_path_digit){at_sample, digit, 0};
}

void tp_path_receive_digit(tp_path *path, char digit) {
    uint32_t waiting = path->pcm_count;
    if (path->config.leg_kind == TP_LEG_RTP) {
        waiting = tp_jitter_delay_ms(&path->jitter) * (path->config.leg_format.rate_hz / 1000);
    }
    see_digit(path, digit, TP_PRESS_MESSAGE, path->clock, path->clock + waiting);
}

static void forget_source(tp_path *path) {
    tp_jitter_reset(&path->jitter);
    tp_event_receiver_reset(&path->events_in);
    tp_noise_reset(&path->noise, NOISE_SEED);
}

int tp_path_receive_rtp(tp_path *path, const uint8_t *in, size_t in_bytes, int64_t arrived) {
    if (path->closed || path->config.leg_kind != TP_LEG_RTP) return 0;
    if (tp_rtp_is_rtcp(in, in_bytes)) {
        path->counters.rtcp_packets_in++;
        return 0;
    }
    tp_rtp_header header;
    if (tp_rtp_read(&header, in, in_bytes) != TP_OK) {
        path->counters.rtp_malformed++;
        return 0;
    }
    bool audio = header.payload_type == path->config.payload_type;
    bool event = header.payload_type == path->config.event_payload_type;
    bool noise = header.payload_type == COMFORT_NOISE;
    if (!audio && !event && !noise) {
        path->counters.rtp_wrong_payload_type++;
        return 0;
    }
    if ((path->direction & TP_DIRECTION_RECEIVE) == 0) return 0;
    if (path->has_ssrc && header.ssrc != path->ssrc_in) {
        path->counters.ssrc_changes++;
        forget_source(path);
    }
    path->has_ssrc = 1;
    path->ssrc_in = header.ssrc;
    path->counters.rtp_packets_in++;
    path->last_media = arrived;
    path->timed_out = 0;
    const uint8_t *payload = in + header.payload_offset;
    if (audio) {
        int status = tp_jitter_put(&path->jitter, header.seq, header.timestamp, header.marker, payload, header.payload_bytes,
                                   arrived);
        if (status < 0) path->counters.rtp_malformed++;
        return status > 0;
    }
    tp_jitter_note(&path->jitter, header.seq, arrived);
    if (noise && tp_noise_receive(&path->noise, payload, header.payload_bytes) < 0) path->counters.rtp_malformed++;
    if (!event) return 0;
    tp_digit digits[2];
    int n = tp_event_receiver_receive(&path->events_in, digits, payload, header.payload_bytes, header.timestamp, arrived);
    if (n < 0) {
        path->counters.rtp_malformed++;
        return 0;
    }
    for (int i = 0; i < n; i++) {
        if (digits[i].ended == 0) tp_path_receive_digit(path, tp_event_digit(digits[i].code));
    }
    return 1;
}

int tp_path_receive_pcm(tp_path *path, const int16_t *in, size_t in_samples, int64_t now) {
    (void)now;
    if (path->closed || path->config.leg_kind != TP_LEG_PCM) return TP_E_STATE;
    if (in_samples > INT32_MAX) return TP_E_ARGUMENT;
    if ((path->direction & TP_DIRECTION_RECEIVE) == 0) return 0;
    size_t n = in_samples;
    uint32_t capacity = path->pcm_capacity;
    if (n > capacity) {
        path->counters.pcm_dropped_samples += n - capacity;
        in += n - capacity;
        n = capacity;
    }
    uint32_t over = path->pcm_count + (uint32_t)n > capacity ? path->pcm_count + (uint32_t)n - capacity : 0;
    path->counters.pcm_dropped_samples += over;
    path->pcm_head = (path->pcm_head + over) % capacity;
    path->pcm_count -= over;
    uint32_t at = (path->pcm_head + path->pcm_count) % capacity;
    uint32_t first = capacity - at < n ? capacity - at : (uint32_t)n;
    memcpy(path->pcm + 2u * at, in, 2u * first);
    memcpy(path->pcm, in + first, 2u * (n - first));
    path->pcm_count += (uint32_t)n;
    return (int)in_samples;
}

/* ---- commands ---- */

int64_t tp_path_clear(tp_path *path, unsigned stream) {
    if (stream >= TP_PATH_STREAMS || path->streams[stream] == NULL) return TP_E_ARGUMENT;
    return tp_stream_clear(path->streams[stream], path->clock);
}

int tp_path_set_gain(tp_path *path, unsigned stream, int32_t db_x100) {
    if (stream >= TP_PATH_STREAMS) return TP_E_ARGUMENT;
    int status = tp_gain_set(&path->gains[stream], db_x100);
    const tp_stream *s = path->streams[stream];
    if (s == NULL || !s->playout.running) tp_gain_settle(&path->gains[stream]);
    return status;
}

int tp_path_record(tp_path *path, tp_tape *tape) {
    if (path->closed) return TP_E_STATE;
    path->tape = tape;
    return TP_OK;
}

size_t tp_path_read_tape(const tp_tape *tape, int16_t *out, size_t capacity, int64_t *from, int64_t *lost) {
    return tp_tape_read(tape, out, capacity, from, lost);
}

int tp_path_send_digits(tp_path *path, unsigned stream, const char *digits, size_t n, uint32_t on_ms, uint32_t off_ms) {
    bool can = path->config.event_payload_type < 128 || path->config.inband_digits;
    if (path->closed || path->config.leg_kind != TP_LEG_RTP || !can) {
        path->counters.digits_refused += n;
        return TP_E_STATE;
    }
    if (on_ms == 0) on_ms = path->config.digit_on_ms;
    if (off_ms == 0) off_ms = path->config.digit_off_ms;
    int status = tp_event_sender_queue(&path->events_out, digits, n, on_ms, off_ms);
    if (status < 0) {
        path->counters.digits_refused += n;
        return status;
    }
    path->counters.digits_out += n;
    bool source = stream < TP_PATH_STREAMS && path->streams[stream] != NULL;
    if (n != 0) path->digits_by |= 1u << (source ? stream : TP_PATH_STREAMS);
    return status;
}

uint32_t tp_path_digits_waiting(const tp_path *path) {
    return path->events_out.count;
}

void tp_path_hold(tp_path *path, uint32_t direction) {
    bool received = (path->direction & TP_DIRECTION_RECEIVE) != 0;
    bool receives = (direction & TP_DIRECTION_RECEIVE) != 0;
    bool sent = (path->direction & TP_DIRECTION_SEND) != 0;
    path->direction = direction & TP_DIRECTION_BOTH;
    if (receives && !received && path->config.leg_kind == TP_LEG_RTP) forget_source(path);
    if (!receives) path->pcm_count = 0;
    if (sent && (direction & TP_DIRECTION_SEND) == 0) path->marker = 1;
}

void tp_path_restart_receive(tp_path *path) {
    if (path->config.leg_kind != TP_LEG_RTP) return;
    forget_source(path);
    path->has_ssrc = 0;
    path->timed_out = 0;
    path->last_media = path->deadline;
}

int tp_path_tap(tp_path *path, int16_t *ring, uint32_t capacity) {
    if (ring != NULL && capacity < path->frame_samples) return TP_E_ARGUMENT;
    path->tap = ring;
    path->tap_capacity = capacity;
    path->tap_pending = 0;
    path->tapped = 0;
    return TP_OK;
}

/* ---- the tick ---- */

static void tap(tp_path *path, tp_frame *frame) {
    if (path->tap == NULL) return;
    const int16_t *pcm = tp_frame_pcm(frame);
    uint32_t n = frame->n, at = (uint32_t)(path->tapped % path->tap_capacity);
    uint32_t first = path->tap_capacity - at < n ? path->tap_capacity - at : n;
    memcpy(path->tap + at, pcm, first * sizeof *pcm);
    memcpy(path->tap, pcm + first, (n - first) * sizeof *pcm);
    path->tapped += n;
    path->tap_pending = 1;
}

/* Whoever listens counts the track's samples: what the driver missed is silence. */
static void tap_missed(tp_path *path, uint64_t n) {
    if (path->tap == NULL) return;
    path->tapped += n;
    for (uint64_t i = n < path->tap_capacity ? n : path->tap_capacity; i != 0; i--) {
        path->tap[(path->tapped - i) % path->tap_capacity] = 0;
    }
}

/* Concealment needs the audio before a gap, and gaps are rare: good frames are kept as they came. */
static void keep_recent(tp_path *path, const uint8_t *payload) {
    uint32_t capacity = path->recent_capacity, n = path->frame_bytes;
    if (n > capacity) {
        payload += n - capacity;
        n = capacity;
    }
    uint32_t first = capacity - path->recent_at < n ? capacity - path->recent_at : n;
    memcpy(path->recent + path->recent_at, payload, first);
    memcpy(path->recent, payload + first, n - first);
    path->recent_at = (path->recent_at + n) % capacity;
    path->recent_bytes = path->recent_bytes + n < capacity ? path->recent_bytes + n : capacity;
}

/* A gap begins: concealment is told what came before it. */
static void recall_recent(tp_path *path) {
    if (path->recent_bytes == 0) return;
    uint32_t capacity = path->recent_capacity, encoding = path->config.leg_format.encoding;
    uint32_t size = tp_sample_bytes(encoding);
    uint32_t at = (path->recent_at + capacity - path->recent_bytes) % capacity;
    uint32_t first = capacity - at < path->recent_bytes ? capacity - at : path->recent_bytes;
    int16_t pcm[RECENT_MS * 16];
    (void)tp_g711_decode(encoding, pcm, path->recent + at, first / size);
    (void)tp_g711_decode(encoding, pcm + first / size, path->recent, (path->recent_bytes - first) / size);
    (void)tp_plc_receive(&path->plc, pcm, path->recent_bytes / size);
    path->recent_bytes = 0;
}

static void count_concealed(tp_path *path, size_t n) {
    path->counters.concealed_samples += n;
    if (!path->concealing) path->counters.concealment_events++;
    path->concealing = 1;
}

/* Nothing leads from what was heard before into pcm (at least n samples): its beginning is cross-faded with what might have
 * come. */
static void smooth_edge(tp_path *path, int16_t *pcm, size_t n) {
    int16_t made[16 * EDGE_MS];
    recall_recent(path);
    tp_plc ahead = path->plc; /* it is not the gap that path->plc would then think it is */
    (void)tp_plc_fillin(&ahead, made, n, NULL, 0);
    for (size_t i = 0; i < n; i++) {
        int32_t w = (int32_t)(2 * i + 1), all = (int32_t)(2 * n);
        pcm[i] = (int16_t)(((all - w) * made[i] + w * pcm[i]) / all);
    }
}

static void smooth_frame(tp_path *path, tp_frame *frame, uint8_t *payload) {
    (void)tp_frame_pcm(frame);
    smooth_edge(path, frame->pcm, frame->format.rate_hz / 1000 * EDGE_MS);
    (void)tp_g711_encode(frame->format.encoding, payload, frame->pcm, frame->n);
    frame->silent = 0;
}

/* A frame of which only a part arrived: what there is stays, the rest is concealed. `broken`: what there is at its beginning
 * follows other audio. */
static void conceal_part(tp_path *path, const tp_jitter_frame *got, const uint8_t *payload, uint32_t present_ms,
                         int16_t *pcm, bool broken) {
    uint32_t per_ms = path->config.leg_format.rate_hz / 1000;
    uint32_t encoding = path->config.leg_format.encoding;
    size_t n = path->frame_samples;
    (void)tp_g711_decode(encoding, pcm, payload, n);
    size_t first = (size_t)got->missing_first_ms * per_ms;
    /* The report tells one run. When more is missing, what lies behind the first is not to be trusted. */
    bool rest_is_good = present_ms + got->missing_ms == path->config.ptime_ms;
    size_t gap = rest_is_good ? (size_t)got->missing_ms * per_ms : n - first;
    size_t rest = n - first - gap;
    if (broken) {
        size_t edge = per_ms * EDGE_MS;
        smooth_edge(path, pcm, first < edge ? first : edge);
    }
    if (first != 0) {
        (void)tp_plc_receive(&path->plc, pcm, first);
        path->concealing = 0;
    }
    count_concealed(path, gap);
    (void)tp_plc_fillin(&path->plc, pcm + first, gap, rest != 0 ? pcm + first + gap : NULL, rest);
    if (rest != 0) {
        (void)tp_plc_receive(&path->plc, pcm + first + gap, rest);
        path->concealing = 0;
        path->speaking = 1;
    }
}

/* The frame at hand, and what follows it where it is to be shorter, as the jitter buffer wants it. */
static void stretch_frame(tp_path *path, tp_frame *frame, uint8_t *payload, const tp_jitter_frame *got) {
    uint32_t n = frame->n, rate = path->config.leg_format.rate_hz, encoding = path->config.leg_format.encoding;
    int16_t in[2 * TP_STRETCH_MAX_FRAME];
    int moved;
    (void)tp_g711_decode(encoding, in, payload, n);
    if (got->wanted_samples > 0) {
        uint8_t ahead[2 * TP_STRETCH_MAX_FRAME];
        if (tp_jitter_peek(&path->jitter, ahead, sizeof ahead) < 0) return;
        (void)tp_g711_decode(encoding, in + n, ahead, n);
        moved = tp_stretch_shorten(frame->pcm, n, in, 2u * n, (size_t)got->wanted_samples, rate, got->urgency);
    } else {
        moved = -tp_stretch_lengthen(frame->pcm, n, in, (size_t)-got->wanted_samples, rate, got->urgency);
    }
    if (tp_jitter_stretched(&path->jitter, moved) < 0 || moved == 0) return;
    frame->has_pcm = 1;
    (void)tp_g711_encode(encoding, payload, frame->pcm, n);
}

/* What nobody sent. */
static void pause_frame(tp_path *path, tp_frame *frame, uint8_t *payload) {
    uint32_t n = frame->n, encoding = path->config.leg_format.encoding;
    path->counters.silent_samples += n;
    if (path->noise.level > 0.0f && (path->direction & TP_DIRECTION_RECEIVE) != 0) {
        if (path->concealing) tp_noise_fade(&path->noise);
        tp_noise_fill(&path->noise, frame->pcm, n);
        (void)tp_g711_encode(encoding, payload, frame->pcm, n);
        frame->has_pcm = 1;
        return;
    }
    (void)tp_g711_silence(encoding, payload, n);
    frame->silent = 1;
}

static void receive_frame(tp_path *path, tp_frame *frame, uint8_t *payload) {
    uint32_t n = path->frame_samples;
    frame->bytes = payload;
    if (path->config.leg_kind == TP_LEG_PCM) {
        uint32_t k = path->pcm_count < n ? path->pcm_count : n;
        uint32_t first = path->pcm_capacity - path->pcm_head < k ? path->pcm_capacity - path->pcm_head : k;
        memcpy(frame->pcm, path->pcm + 2u * path->pcm_head, 2u * first);
        memcpy(frame->pcm + first, path->pcm, 2u * (k - first));
        memset(frame->pcm + k, 0, 2u * (n - k));
        path->pcm_head = (path->pcm_head + k) % path->pcm_capacity;
        path->pcm_count -= k;
        path->counters.silent_samples += n - k;
        frame->bytes = NULL;
        frame->has_pcm = 1;
        return;
    }
    tp_jitter_frame got = {.kind = TP_JITTER_SILENCE};
    uint64_t emitted_ms = path->jitter.emitted_ms;
    /* In grid time: a tick that comes late and is made up must not look like delay on the network. */
    if ((path->direction & TP_DIRECTION_RECEIVE) != 0) (void)tp_jitter_get(&path->jitter, &got, payload, path->deadline);
    uint32_t encoding = path->config.leg_format.encoding;
    bool spoke = path->speaking;
    path->speaking = got.kind == TP_JITTER_AUDIO;
    if (path->plc.blended && (got.broken || got.kind == TP_JITTER_SILENCE)) {
        /* The gap was closed towards something else than what comes now. */
        path->plc.blended = path->plc.missing = 0;
        path->concealing = 0;
        spoke = true;
    }
    switch (got.kind) {
    case TP_JITTER_AUDIO:
        if (path->concealing) break;
        if (spoke && got.broken) {
            smooth_frame(path, frame, payload);
        } else if (got.wanted_samples != 0) {
            stretch_frame(path, frame, payload, &got);
        }
        break;
    case TP_JITTER_PARTIAL:
        recall_recent(path);
        conceal_part(path, &got, payload, (uint32_t)(path->jitter.emitted_ms - emitted_ms), frame->pcm,
                     spoke && got.broken);
        frame->bytes = NULL;
        frame->has_pcm = 1;
        return;
    case TP_JITTER_MISSING: {
        int16_t following[MAX_FRAME_SAMPLES];
        uint8_t ahead[2 * MAX_FRAME_SAMPLES];
        size_t n_following = 0;
        recall_recent(path);
        if (got.following && tp_jitter_peek(&path->jitter, ahead, sizeof ahead) > 0) {
            (void)tp_g711_decode(encoding, following, ahead, n);
            n_following = n;
        }
        (void)tp_plc_fillin(&path->plc, frame->pcm, n, n_following != 0 ? following : NULL, n_following);
        count_concealed(path, n);
        frame->bytes = NULL;
        frame->has_pcm = 1;
        return;
    }
    default:
        pause_frame(path, frame, payload);
        if (spoke && (path->direction & TP_DIRECTION_RECEIVE) != 0) smooth_frame(path, frame, payload);
        break;
    }
    if (!path->concealing) {
        keep_recent(path, payload);
        return;
    }
    (void)tp_frame_pcm(frame);
    (void)tp_plc_receive(&path->plc, frame->pcm, n);
    frame->bytes = NULL; /* its beginning was faded into */
    path->concealing = 0;
}

/* Digits in what the caller says; nothing of a frame that was concealed, even in part, is heard. */
static void find_digits(tp_path *path, tp_frame *frame, bool concealed) {
    tp_tone_event event;
    if (concealed) tp_tone_fillin(&path->tone, &event, frame->n);
    const int16_t *pcm = concealed ? NULL : tp_frame_pcm(frame);
    for (size_t taken = 0; pcm != NULL && taken < frame->n;) {
        taken += tp_tone_receive(&path->tone, &event, pcm + taken, frame->n - taken);
        if (event.kind == TP_TONE_BEGAN) see_digit(path, (char)event.digit, TP_PRESS_AUDIO, event.begin, event.begin);
    }
}

/* What the caller hears in this ptime; the sources in `resting` give nothing. `payload` has room for the frame. */
static void play_frame(tp_path *path, tp_frame *frame, uint8_t *payload, uint32_t resting) {
    size_t n = frame->n;
    uint32_t active = 0, n_active = 0;
    bool as_it_is = tp_limiter_is_idle(&path->limiter);
    for (uint32_t i = 0; i < TP_PATH_STREAMS; i++) {
        tp_stream *s = path->streams[i];
        if (s == NULL) continue;
        bool rests = s->playout.paused || (resting & 1u << i) != 0;
        if (!rests && tp_playout_has_audio(&s->playout)) {
            active |= 1u << i;
            n_active++;
            as_it_is = as_it_is && tp_gain_is_unity(&path->gains[i]);
            continue;
        }
        tp_gain_settle(&path->gains[i]);
        tp_playout_rest(&s->playout, path->clock);
        if (!rests) tp_stream_played(s, 0, 0, n);
    }
    frame->bytes = payload;
    uint32_t encoding = frame->format.encoding;
    if (n_active == 0) {
        (void)tp_g711_silence(encoding, payload, n);
        frame->silent = 1;
        tp_limiter_reset(&path->limiter);
        return;
    }
    as_it_is = as_it_is && n_active == 1;
    size_t most = 0;
    int32_t sum[MAX_FRAME_SAMPLES];
    if (!as_it_is) memset(sum, 0, n * sizeof *sum);
    for (uint32_t i = 0; i < TP_PATH_STREAMS; i++) {
        if ((active & 1u << i) == 0) continue;
        tp_stream *s = path->streams[i];
        uint64_t read = s->playout.read;
        ptrdiff_t n_audio = -1;
        if (as_it_is) {
            n_audio = tp_playout_take_bytes(&s->playout, path->clock, frame->format, payload, n);
            if (n_audio >= 0) {
                (void)tp_g711_silence(encoding, payload + (size_t)n_audio * tp_sample_bytes(encoding), n - (size_t)n_audio);
            }
        }
        if (n_audio < 0) {
            n_audio = (ptrdiff_t)tp_playout_take_pcm(&s->playout, path->clock, frame->pcm, n);
            if (!as_it_is) tp_mix_add(sum, frame->pcm, n, &path->gains[i]);
            frame->has_pcm = 1;
        }
        tp_stream_played(s, s->playout.read - read, (size_t)n_audio, n);
        if ((size_t)n_audio > most) most = (size_t)n_audio;
    }
    if (!as_it_is) path->counters.limited_samples += tp_limiter_process(&path->limiter, frame->pcm, sum, n);
    if (frame->has_pcm) (void)tp_g711_encode(encoding, payload, frame->pcm, n);
    path->counters.application_samples += most;
    path->counters.mixed_frames += n_active > 1;
}

static uint8_t *append(tp_path *path, tp_outbox *out, uint32_t kind, uint32_t bytes) {
    uint8_t *at = out->bytes + out->used;
    out->outputs[out->n_outputs++] = (tp_output){out->used, bytes, path->config.slot, (uint16_t)kind, 0};
    out->used += bytes;
    return at;
}

static void send_rtp(tp_path *path, tp_outbox *out, uint8_t payload_type, uint8_t marker, uint32_t timestamp,
                     const uint8_t *payload, uint32_t bytes) {
    tp_rtp_header header = {.timestamp = timestamp,
                            .ssrc = path->config.ssrc,
                            .seq = path->seq++,
                            .payload_type = payload_type,
                            .marker = marker};
    uint8_t *at = append(path, out, TP_OUTPUT_RTP, TP_RTP_HEADER_BYTES + bytes);
    (void)tp_rtp_write(at, TP_RTP_HEADER_BYTES, &header);
    memcpy(at + TP_RTP_HEADER_BYTES, payload, bytes);
    path->counters.rtp_packets_out++;
}

/* The caller's side of this ptime: events, audio or silence, and the outbound track. */
static void send_frame(tp_path *path, tp_frame *frame, uint8_t *payload, tp_outbox *out) {
    bool pcm_leg = path->config.leg_kind == TP_LEG_PCM;
    bool sends = (path->direction & TP_DIRECTION_SEND) != 0;
    uint32_t timestamp = path->config.first_timestamp + (uint32_t)(uint64_t)path->clock;
    uint32_t resting = sends ? 0 : ~0u;
    int n_events = 0;
    bool tones = path->config.event_payload_type >= 128, sounds = false;
    if (sends && !pcm_leg && tp_event_sender_busy(&path->events_out)) {
        uint8_t event[4], marker;
        uint32_t event_timestamp;
        uint8_t before = path->events_out.state;
        n_events = tp_event_sender_tick(&path->events_out, event, &event_timestamp, &marker, timestamp);
        sounds = tones && before != TP_SENDER_GAP;
        if (sounds && before == TP_SENDER_IDLE) {
            (void)tp_tone_maker_begin(&path->maker, path->config.leg_format.rate_hz, tp_event_digit(event[0]),
                                      path->events_out.on_samples);
        }
        if (tones) n_events = 0;
        for (int i = 0; i < n_events; i++) {
            send_rtp(path, out, path->config.event_payload_type, i == 0 ? marker : 0, event_timestamp, event, 4);
        }
        resting = n_events > 0 || sounds ? ~0u : path->digits_by;
        if (!tp_event_sender_busy(&path->events_out)) {
            path->digits_sent_pending |= path->digits_by;
            path->digits_by = 0;
        }
    }
    play_frame(path, frame, payload, resting);
    if (sounds) {
        tp_tone_maker_make(&path->maker, frame->pcm, frame->n);
        (void)tp_g711_encode(frame->format.encoding, payload, frame->pcm, frame->n);
        frame->has_pcm = 1;
        frame->silent = 0;
    }
    if (!sends || n_events > 0) return;
    path->counters.frames_sent++;
    if (pcm_leg) {
        memcpy(append(path, out, TP_OUTPUT_PCM, 2 * frame->n), tp_frame_pcm(frame), 2 * frame->n);
        return;
    }
    send_rtp(path, out, path->config.payload_type, path->marker, timestamp, payload, path->frame_bytes);
    path->marker = 0;
}

static void skip_missed(tp_path *path, int64_t now, tp_outbox *out) {
    int64_t late = now - path->deadline;
    if (late <= MAKE_UP_NS) return;
    int64_t missed = late / path->ptime_ns;
    path->deadline += missed * path->ptime_ns;
    path->clock += missed * path->frame_samples;
    path->counters.loop_stall_samples += (uint64_t)missed * path->frame_samples;
    tap_missed(path, (uint64_t)missed * path->frame_samples);
    path->marker = 1;
    for (uint32_t i = 0; i < TP_PATH_STREAMS; i++) {
        if (path->streams[i] != NULL) tp_stream_break(path->streams[i], path->config.slot, i, out);
    }
}

static int event_flags(const tp_path *path) {
    if (path->n_digits != 0 || path->digits_sent_pending != 0 || path->timeout_pending || path->tap_pending) {
        return TP_TICK_EVENTS;
    }
    for (uint32_t i = 0; i < TP_PATH_STREAMS; i++) {
        if (path->streams[i] != NULL && tp_stream_has_events(path->streams[i])) return TP_TICK_EVENTS;
    }
    return 0;
}

static void watch_media(tp_path *path, int64_t now) {
    if (path->config.leg_kind != TP_LEG_RTP) return;
    tp_digit ended;
    (void)tp_event_receiver_tick(&path->events_in, &ended, now);
    if ((path->direction & TP_DIRECTION_RECEIVE) == 0) path->last_media = now;
    if (path->config.media_timeout_ms == 0 || path->timed_out) return;
    if (now - path->last_media >= path->config.media_timeout_ms * NS_PER_MS) {
        path->timed_out = path->timeout_pending = 1;
    }
}

int tp_path_tick(tp_path *path, int64_t now, tp_outbox *out) {
    if (path->closed || now < path->deadline) return event_flags(path);
    if (out->capacity - out->used < path->room_bytes || out->outputs_capacity - out->n_outputs < path->room_outputs) {
        return TP_E_ROOM;
    }
    uint32_t n_outputs = out->n_outputs;
    int64_t clock = path->clock;
    skip_missed(path, now, out);
    if (path->config.inband_digits && path->clock != clock) {
        tp_tone_event event;
        tp_tone_fillin(&path->tone, &event, (size_t)(path->clock - clock));
    }

    int16_t pcm[MAX_FRAME_SAMPLES];
    uint8_t payload[2 * MAX_FRAME_SAMPLES];
    tp_frame frame = {.format = path->config.leg_format, .pcm = pcm, .n = path->frame_samples, .at = path->clock};
    uint64_t concealed = path->counters.concealed_samples;
    receive_frame(path, &frame, payload);
    if (path->config.inband_digits) find_digits(path, &frame, path->counters.concealed_samples != concealed);
    tap(path, &frame);
    for (uint32_t i = 0; i < TP_PATH_STREAMS; i++) {
        if (path->streams[i] == NULL) continue;
        tp_stream_send_frame(path->streams[i], TP_TRACK_INBOUND, &frame, path->config.slot, i, out);
    }
    int16_t inbound[MAX_FRAME_SAMPLES];
    if (path->tape != NULL) memcpy(inbound, tp_frame_pcm(&frame), frame.n * sizeof *inbound);

    frame = (tp_frame){.format = path->config.leg_format, .pcm = pcm, .n = path->frame_samples, .at = path->clock};
    send_frame(path, &frame, payload, out);
    if (path->tape != NULL) tp_tape_write(path->tape, path->clock, inbound, tp_frame_pcm(&frame), frame.n);
    path->clock += path->frame_samples;
    for (uint32_t i = 0; i < TP_PATH_STREAMS; i++) {
        if (path->streams[i] == NULL) continue;
        tp_stream_send_frame(path->streams[i], TP_TRACK_OUTBOUND, &frame, path->config.slot, i, out);
        path->streams[i]->clock = path->clock;
    }
    watch_media(path, now);
    path->counters.ticks++;
    path->deadline += path->ptime_ns;
    return event_flags(path) | (out->n_outputs != n_outputs ? TP_TICK_OUTPUT : 0);
}

int tp_path_tick_many(tp_path *const *paths, size_t count, int64_t now, tp_outbox *out, uint8_t *flags) {
    for (size_t i = 0; i < count; i++) {
        flags[i] = 0;
        do {
            int status = tp_path_tick(paths[i], now, out);
            if (status < 0) return (int)i;
            flags[i] |= (uint8_t)status;
        } while (!paths[i]->closed && now >= paths[i]->deadline);
    }
    return (int)count;
}

int tp_path_next_event(tp_path *path, tp_event *event) {
    memset(event, 0, sizeof *event);
    event->stream = -1;
    event->at_sample = path->clock;
    if (path->n_digits != 0) {
        const tp_path_digit *digit = &path->digits[path->first_digit];
        path->first_digit = (path->first_digit + 1) % TP_PATH_DIGITS;
        path->n_digits--;
        event->kind = TP_EVENT_DIGIT;
        event->at_sample = digit->at_sample;
        event->value = digit->digit;
        return 1;
    }
    if (path->timeout_pending) {
        path->timeout_pending = 0;
        event->kind = TP_EVENT_MEDIA_TIMEOUT;
        return 1;
    }
    if (path->tap_pending) {
        path->tap_pending = 0;
        event->kind = TP_EVENT_HEARD;
        event->value = (int64_t)path->tapped;
        return 1;
    }
    for (uint32_t i = 0; path->digits_sent_pending != 0; i++) {
        if ((path->digits_sent_pending & 1u << i) == 0) continue;
        path->digits_sent_pending &= ~(1u << i);
        event->kind = TP_EVENT_DIGITS_SENT;
        event->stream = i < TP_PATH_STREAMS ? (int32_t)i : -1;
        return 1;
    }
    for (uint32_t i = 0; i < TP_PATH_STREAMS; i++) {
        if (path->streams[i] == NULL || tp_stream_next_event(path->streams[i], event) != 1) continue;
        event->stream = (int32_t)i;
        return 1;
    }
    return 0;
}

int64_t tp_path_next_deadline(const tp_path *path) { return path->closed ? INT64_MAX : path->deadline; }
int64_t tp_path_clock(const tp_path *path) { return path->clock; }
const tp_path_counters *tp_path_statistics(const tp_path *path) { return &path->counters; }
const tp_jitter *tp_path_jitter(const tp_path *path) { return &path->jitter; }
