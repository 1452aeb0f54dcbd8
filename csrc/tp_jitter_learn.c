#include "tp_jitter.h"

#define NS_PER_MS 1000000
#define BUCKET_MS 5
#define HISTOGRAM_HALVED_AT 128u
#define TOO_LATE_ONE_IN 50u   /* packets that the target need not cover */
#define DECAY_EVERY_NS (50LL * NS_PER_MS) /* 1 ms each: 20 ms a second */
#define WINDOW_NS (5000LL * NS_PER_MS)

static int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }

static void learn_base(tp_jitter *s, int64_t transit, int64_t arrived_ns) {
    if (arrived_ns - s->window_since_ns >= WINDOW_NS) {
        s->base_ns = s->window_base_ns;
        s->window_base_ns = transit;
        s->window_since_ns = arrived_ns;
    } else if (transit < s->window_base_ns) {
        s->window_base_ns = transit;
    }
}

static void learn_need(tp_jitter *s, int64_t need_ms, int64_t arrived_ns) {
    uint32_t bucket = (uint32_t)(need_ms > 0 ? need_ms : 0) / BUCKET_MS;
    if (bucket >= TP_JITTER_BUCKETS)
        bucket = TP_JITTER_BUCKETS - 1;
    if (bucket > s->histogram_top)
        s->histogram_top = bucket;
    s->histogram[bucket]++;
    s->histogram_total++;
    if (s->histogram_total >= HISTOGRAM_HALVED_AT) {
        s->histogram_total = 0;
        for (uint32_t i = 0; i <= s->histogram_top; i++) {
            s->histogram[i] = (uint16_t)(s->histogram[i] >> 1);
            s->histogram_total += s->histogram[i];
        }
    }
    if (s->histogram_total >= 64 && s->histogram_total % 8)
        return;
    uint32_t allowed = s->histogram_total / TOO_LATE_ONE_IN, above = 0;
    while (s->histogram_top > 0 && s->histogram[s->histogram_top] == 0)
        s->histogram_top--;
    uint32_t top = s->histogram_top;
    while (top > 0 && above + s->histogram[top] <= allowed)
        above += s->histogram[top--];
    uint32_t target = (top + 1) * BUCKET_MS + s->config.ptime_ms - s->step_ms;
    if (target < s->config.min_delay_ms)
        target = s->config.min_delay_ms;
    if (target > s->config.max_delay_ms)
        target = s->config.max_delay_ms;
    if (target >= s->target_delay_ms) {
        s->target_delay_ms = target;
        s->last_decay_ns = arrived_ns;
        return;
    }
    int64_t steps = (arrived_ns - s->last_decay_ns) / DECAY_EVERY_NS;
    if (steps > 0) {
        int64_t lower = (int64_t)s->target_delay_ms - steps;
        s->target_delay_ms = (uint32_t)max64(lower, target);
        s->last_decay_ns += steps * DECAY_EVERY_NS;
    }
}

static void learn_step(tp_jitter *s, uint32_t packet_ms) {
    uint32_t a = s->config.ptime_ms, b = packet_ms;
    while (b) {
        uint32_t rest = a % b;
        a = b;
        b = rest;
    }
    s->step_ms = a;
}

static void learn_jitter(tp_jitter *s, int64_t transit) {
    int64_t d = transit - s->last_transit_ns;
    d = (d < 0 ? -d : d) / (NS_PER_MS / 16) * s->samples_per_ms / 16;
    s->last_transit_ns = transit;
    s->jitter_x16 += (uint32_t)min64(d, 1 << 20) - ((s->jitter_x16 + 8) >> 4);
}

void tp_jitter_learn(tp_jitter *state, int64_t at_ms, int64_t transit, uint32_t n_ms, bool is_newest, int64_t arrived_ns) {
    tp_jitter *s = state;
    learn_jitter(s, transit);
    learn_base(s, transit, arrived_ns);
    /* Behind another packet of the same burst this one says nothing new about the network. */
    bool same_burst = is_newest && (arrived_ns - s->last_audio_ns) * 4 < (int64_t)n_ms * NS_PER_MS;
    s->last_audio_ns = arrived_ns;
    if (is_newest) {
        s->border_ms = at_ms;
        if (n_ms != s->packet_ms)
            learn_step(s, n_ms);
    }
    int64_t past_ns = transit - min64(s->base_ns, s->window_base_ns); /* never below 0: the base has learnt of it */
    if (!same_burst && past_ns / NS_PER_MS <= (int64_t)s->config.max_delay_ms)
        learn_need(s, past_ns / NS_PER_MS, arrived_ns);
}
