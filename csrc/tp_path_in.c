#include "tp_path_own.h"

#include "tp_g711.h"
#include "tp_stretch.h"

#define COMFORT_NOISE 13u
#define EDGE_MS 5u   /* how long an edge that nothing leads up to is cross-faded */
#define PRESS_WINDOW_MS 100 /* tones and message of one press are no further apart, the jitter buffer's delay counted */

/* ---- what arrives ---- */

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

void tp_path_forget_source(tp_path *path) {
    tp_jitter_reset(&path->jitter);
    tp_event_receiver_reset(&path->events_in);
    tp_noise_reset(&path->noise, TP_PATH_NOISE_SEED);
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
        tp_path_forget_source(path);
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
    tp_ring_write(path->pcm, 2u * capacity, 2u * at, in, 2u * n);
    path->pcm_count += (uint32_t)n;
    return (int)in_samples;
}

void tp_path_restart_receive(tp_path *path) {
    if (path->config.leg_kind != TP_LEG_RTP) return;
    tp_path_forget_source(path);
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

/* ---- its next ptime ---- */

static void tap(tp_path *path, tp_frame *frame) {
    if (path->tap == NULL) return;
    uint32_t at = (uint32_t)(path->tapped % path->tap_capacity);
    tp_ring_write(path->tap, 2u * path->tap_capacity, 2u * at, tp_frame_pcm(frame), 2u * frame->n);
    path->tapped += frame->n;
    path->tap_pending = 1;
}

/* Whoever listens counts the track's samples: what the driver missed is silence. */
void tp_path_tap_missed(tp_path *path, uint64_t n) {
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
    tp_ring_write(path->recent, capacity, path->recent_at, payload, n);
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
    int16_t pcm[TP_PATH_RECENT_MS * 16];
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

/* Nothing leads from what was heard before into pcm: its first n samples are cross-faded with what might have come. */
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
        tp_ring_read(path->pcm, 2u * path->pcm_capacity, 2u * path->pcm_head, frame->pcm, 2u * k);
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
        int16_t following[TP_PATH_MAX_FRAME];
        uint8_t ahead[2 * TP_PATH_MAX_FRAME];
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

void tp_path_receive_frame(tp_path *path, tp_frame *frame, uint8_t *payload) {
    uint64_t concealed = path->counters.concealed_samples;
    receive_frame(path, frame, payload);
    if (path->config.inband_digits) find_digits(path, frame, path->counters.concealed_samples != concealed);
    tap(path, frame);
}
