/* A sine through a whole path over the worst of networks: jitter, loss in bursts, reordering, duplicates, pauses with and
 * without comfort noise, changes of sender and of way, stalls of the network and of the driver, holds; at every ptime and
 * format. Each ptime of the track is accounted for once, the tap counts the track's samples, and no step is larger than a
 * sine's own and what coding and one cross-fade add: nothing clicks. */
#include <math.h>
#include <stdlib.h>

#include "check.h"
#include "tp_g711.h"
#include "tp_path.h"

#define NS_PER_MS 1000000
#define WAITING 512
#define TICKS 1500

static uint64_t state;

static uint32_t random_below(uint32_t n) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 33) % n;
}

typedef struct packet {
    int64_t at;
    size_t n;
    uint8_t bytes[TP_RTP_HEADER_BYTES + 60 * 32];
} packet;

typedef struct sender {
    tp_format format;
    uint32_t ptime_ms, jitter_us, per_ms;
    double amplitude, turn, skew;
    tp_rtp_header header;
    int64_t next_ms, way, stalled_until;
    uint64_t media;
    uint32_t n_pausing, n_losing, n_waiting;
    packet waiting[WAITING];
} sender;

static packet *queue(sender *s, int64_t sent, uint8_t payload_type, size_t payload_bytes) {
    packet *p = &s->waiting[s->n_waiting++];
    s->header.payload_type = payload_type;
    (void)tp_rtp_write(p->bytes, sizeof p->bytes, &s->header);
    s->header.seq++;
    p->n = TP_RTP_HEADER_BYTES + payload_bytes;
    p->at = sent + s->way + (int64_t)random_below(s->jitter_us + 1) * 1000;
    if (p->at < s->stalled_until) p->at = s->stalled_until;
    return p;
}

/* One ptime of what the sender does. */
static void send(sender *s, int64_t sent) {
    uint32_t n = s->ptime_ms * s->per_ms;
    uint64_t first = s->media;
    s->media += n;
    s->header.timestamp += n;
    if (s->n_pausing != 0) {
        if (--s->n_pausing % 10 != 5) return;
        packet *noise = queue(s, sent, 13, 2);
        noise->bytes[TP_RTP_HEADER_BYTES] = (uint8_t)(40 + random_below(40));
        noise->bytes[TP_RTP_HEADER_BYTES + 1] = (uint8_t)random_below(256);
        return;
    }
    if (random_below(200) == 0) s->n_pausing = 3 + random_below(60);
    if (random_below(300) == 0) s->way = (int64_t)random_below(60) * 10 * NS_PER_MS;
    if (random_below(600) == 0) s->stalled_until = sent + (int64_t)random_below(3000) * NS_PER_MS;
    if (random_below(400) == 0) {
        s->header.ssrc++;
        s->header.seq = (uint16_t)random_below(65536);
        s->header.timestamp = random_below(1u << 28) * 16;
    }
    packet *p = queue(s, sent, 96, (size_t)n * tp_sample_bytes(s->format.encoding));
    int16_t pcm[60 * 16];
    for (uint32_t i = 0; i < n; i++) pcm[i] = (int16_t)lrint(s->amplitude * sin(s->turn * (double)(first + i)));
    (void)tp_g711_encode(s->format.encoding, p->bytes + TP_RTP_HEADER_BYTES, pcm, n);
    if (random_below(50) == 0) {
        s->waiting[s->n_waiting] = *p;
        s->waiting[s->n_waiting++].at += (int64_t)random_below(100) * NS_PER_MS;
    }
    if (s->n_losing == 0 && random_below(100) < 4) s->n_losing = random_below(4) != 0 ? 1 : 1 + random_below(8);
    if (s->n_losing != 0) {
        s->n_losing--;
        s->n_waiting--;
    }
}

static void deliver(sender *s, tp_path *path, int64_t until) {
    for (;;) {
        uint32_t first = 0;
        for (uint32_t i = 1; i < s->n_waiting; i++) {
            if (s->waiting[i].at < s->waiting[first].at) first = i;
        }
        if (s->n_waiting == 0 || s->waiting[first].at > until) return;
        (void)tp_path_receive_rtp(path, s->waiting[first].bytes, s->waiting[first].n, s->waiting[first].at);
        s->n_waiting--;
        memmove(s->waiting + first, s->waiting + first + 1, (s->n_waiting - first) * sizeof *s->waiting);
    }
}

static int run(uint64_t seed) {
    static const tp_format formats[] = {{8000, TP_ENCODING_PCMU}, {8000, TP_ENCODING_PCMA}, {8000, TP_ENCODING_L16BE},
                                        {16000, TP_ENCODING_L16BE}};
    static const uint32_t ptimes[] = {10, 20, 30, 40, 60, 25};
    static sender s;
    static tp_path path;
    state = seed * 0x9e3779b97f4a7c15u + 1;
    memset(&s, 0, sizeof s);
    s.format = formats[random_below(4)];
    s.per_ms = s.format.rate_hz / 1000;
    s.ptime_ms = ptimes[random_below(5)];
    s.jitter_us = random_below(80) * 1000;
    s.amplitude = 2000 + random_below(12000);
    s.turn = 6.283185307179586 * (110 + random_below(270)) / s.format.rate_hz;
    s.skew = 1 + ((double)random_below(401) - 200) * 1e-6;
    s.header.seq = (uint16_t)(65535 - random_below(100));
    s.header.timestamp = 0xfffffff0u - random_below(1000) * 160;
    uint32_t least = random_below(3) * 20;
    tp_path_config config = {.leg_kind = TP_LEG_RTP, .leg_format = s.format, .ptime_ms = ptimes[random_below(6)],
                             .payload_type = 96, .event_payload_type = 101, .jitter_min_ms = least,
                             .jitter_max_ms = least + 40 + random_below(4) * 60, .inband_digits = random_below(4) == 0};
    uint8_t *ring = malloc(tp_path_jitter_bytes(&config)), bytes[4096];
    CHECK(ring != NULL && tp_path_init(&path, NULL, &config, ring, 0) == TP_OK);
    uint32_t n = path.frame_samples, capacity = n + random_below(n);
    int16_t *heard = malloc(capacity * sizeof *heard), last = 0;
    CHECK(heard != NULL && tp_path_tap(&path, heard, capacity) == TP_OK);
    tp_output outputs[8];
    bool was_silent = true;
    for (int tick = 0; tick < TICKS; tick++) {
        int64_t due = path.deadline, now = due;
        for (;;) {
            int64_t sent = (int64_t)((double)s.next_ms * NS_PER_MS * s.skew);
            if (sent > due) break;
            send(&s, sent);
            CHECK(s.n_waiting + 2 < WAITING);
            s.next_ms += s.ptime_ms;
        }
        deliver(&s, &path, due);
        if (random_below(300) == 0) now += (int64_t)random_below(400) * NS_PER_MS;
        if (random_below(300) == 0) tp_path_hold(&path, random_below(2) != 0 ? TP_DIRECTION_BOTH : random_below(4));
        uint64_t silent = path.counters.silent_samples, emitted = path.jitter.emitted_ms;
        uint64_t concealed = path.counters.concealed_samples;
        tp_outbox outbox = {.bytes = bytes, .outputs = outputs, .capacity = sizeof bytes, .outputs_capacity = 8};
        CHECK(tp_path_tick(&path, now, &outbox) >= 0);
        silent = path.counters.silent_samples - silent;
        concealed = path.counters.concealed_samples - concealed;
        CHECK(silent + concealed + (path.jitter.emitted_ms - emitted) * s.per_ms == n);
        CHECK(path.tapped == (uint64_t)path.clock && tp_jitter_delay_ms(&path.jitter) <= TP_JITTER_SPAN_MS);
        double most = 2 * s.amplitude * s.turn + 0.08 * s.amplitude + 40;
        /* Silence is begun without a step where nobody says how it sounds, and audio after silence may begin anyhow. */
        bool begins_quietly = path.noise.level > 0.0f || (path.direction & TP_DIRECTION_RECEIVE) == 0;
        for (uint32_t i = 0; i < n; i++) {
            int16_t x = heard[(path.tapped - n + i) % capacity];
            double step = fabs((double)x - last);
            last = x;
            CHECK(step <= most || (silent != 0 && (begins_quietly || was_silent)) || (was_silent && i == 0));
        }
        was_silent = silent != 0;
        tp_event event;
        while (tp_path_next_event(&path, &event) == 1) continue;
    }
    CHECK(path.counters.concealed_samples != 0);
    tp_path_close(&path);
    free(heard);
    free(ring);
    return 0;
}

int main(void) {
    for (uint64_t seed = 180; seed <= 220; seed++) { /* 183 and 208 skip what a gap was just closed towards */
        if (run(seed) != 0) {
            fprintf(stderr, "seed %u\n", (unsigned)seed);
            return 1;
        }
    }
    return 0;
}
