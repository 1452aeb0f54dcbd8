#include "tp_path_own.h"

#include "tp_g711.h"

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

/* ---- its next ptime ---- */

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
    int32_t sum[TP_PATH_MAX_FRAME];
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

void tp_path_send_frame(tp_path *path, tp_frame *frame, uint8_t *payload, tp_outbox *out) {
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
