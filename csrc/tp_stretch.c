#include "tp_stretch.h"

#define LAG_LEAST_US 2500u /* 400 Hz */
#define LAG_MOST_MS 20u
#define FADE_LEAST_US 2500u
#define QUIET 10000        /* mean square: -50 dBov */
#define NEARLY 0.9f        /* of the best likeness */
#define COARSE_MAX 480     /* of two frames, at 4 kHz */

/* By urgency; 2 is more than any has. */
static const float least_likeness[] = {2.0f, 0.85f, 0.5f, -2.0f};

/* What is compared at a lag: a[0..n) and a[lag..lag + n). When shortening, what follows the frame is there for it; when
 * lengthening, the frame alone is, and the longer the lag the less there is to compare. */
typedef struct {
    const int16_t *x;
    size_t n, n_in, least, most;
} tp_search;

static size_t compared(const tp_search *s, size_t lag) { return s->n_in - lag < s->n ? s->n_in - lag : s->n; }

static int64_t dot(const int16_t *a, const int16_t *b, size_t n) {
    int64_t sum = 0;
    for (size_t i = 0; i < n; i++) sum += (int32_t)a[i] * b[i];
    return sum;
}

static float root(float x) {
    if (x <= 0.0f) return 0.0f;
    float y = 0.5f + 0.5f * x;
    for (int i = 0; i < 8; i++) y = 0.5f * (y + x / y);
    return y;
}

/* -1..1 */
static float likeness(const tp_search *s, size_t lag) {
    size_t n = compared(s, lag);
    const int16_t *a = s->x, *b = s->x + lag;
    float cross = (float)dot(a, b, n), energy = (float)dot(a, a, n) + 1.0f, other = (float)dot(b, b, n) + 1.0f;
    float q = root(cross / energy * (cross / other));
    return cross < 0.0f ? -q : q;
}

/* Of the lags nearly as good as the best, the longest that is better than its neighbours. *quality: its likeness. */
static size_t find_coarse(const tp_search *s, float *quality) {
    float q[COARSE_MAX], best = -2.0f;
    for (size_t lag = s->least; lag <= s->most; lag++) {
        q[lag] = likeness(s, lag);
        if (q[lag] > best) best = q[lag];
    }
    *quality = best;
    float enough = best > 0.0f ? NEARLY * best : best;
    for (size_t lag = s->most; lag > s->least; lag--) {
        bool peak = q[lag] >= q[lag - 1] && (lag == s->most || q[lag] >= q[lag + 1]);
        if (peak && q[lag] >= enough) return lag;
    }
    return s->least;
}

static size_t find_lag(const int16_t *in, size_t n, size_t n_in, size_t least, size_t most, uint32_t rate_hz, float *quality) {
    int16_t coarse[COARSE_MAX];
    size_t by = rate_hz / 4000;
    tp_search low = {coarse, n / by, n_in / by, (least + by - 1) / by, most / by};
    if (low.n_in > COARSE_MAX) low.n_in = COARSE_MAX;
    if (low.n > low.n_in) low.n = low.n_in;
    for (size_t i = 0; i < low.n_in; i++) {
        int32_t sum = 0;
        for (size_t k = 0; k < by; k++) sum += in[i * by + k];
        coarse[i] = (int16_t)(sum / (int32_t)by);
    }
    if (low.most <= low.least) low.most = low.least;
    size_t about = find_coarse(&low, quality) * by, best = 0;
    tp_search fine = {in, n, n_in, about > least + by ? about - by + 1 : least, about + by - 1 < most ? about + by - 1 : most};
    *quality = -2.0f;
    for (size_t lag = fine.least; lag <= fine.most; lag++) {
        float q = likeness(&fine, lag);
        if (q > *quality) {
            *quality = q;
            best = lag;
        }
    }
    return best;
}

static bool is_quiet(const int16_t *in, size_t n) { return dot(in, in, n) < (int64_t)n * QUIET; }

/* Where within x[first..n) it is most like what lies `shift` further on, over `fade` samples. */
static size_t find_joint(const int16_t *x, ptrdiff_t shift, size_t first, size_t n, size_t fade) {
    int64_t sum = 0, least = INT64_MAX;
    size_t at = first;
    for (size_t i = first; i < n; i++) {
        int32_t d = (int32_t)x[i] - x[(ptrdiff_t)i + shift];
        sum += (int64_t)d * d;
        if (i - first >= fade) {
            d = (int32_t)x[i - fade] - x[(ptrdiff_t)(i - fade) + shift];
            sum -= (int64_t)d * d;
        }
        if (i - first + 1 >= fade && sum < least) {
            least = sum;
            at = i + 1 - fade;
        }
    }
    return at;
}

/* x up to the joint, and from its end on what lies `shift` further. */
static void join(int16_t *out, const int16_t *x, ptrdiff_t shift, size_t n, size_t joint, size_t fade) {
    memcpy(out, x, joint * sizeof *out);
    const int16_t *from = x + joint, *to = x + ((ptrdiff_t)joint + shift);
    for (size_t i = 0; i < fade; i++) {
        int32_t w = (int32_t)(2 * i + 1), all = (int32_t)(2 * fade);
        out[joint + i] = (int16_t)(((all - w) * from[i] + w * to[i]) / all);
    }
    memcpy(out + joint + fade, to + fade, (n - joint - fade) * sizeof *out);
}

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

static size_t fade_for(size_t lag, size_t room, uint32_t rate_hz) {
    size_t least = rate_hz / 1000 * FADE_LEAST_US / 1000;
    return smaller(lag > least ? lag : least, room);
}

int tp_stretch_shorten(int16_t *out, size_t n, const int16_t *in, size_t n_in, size_t most, uint32_t rate_hz,
                       uint32_t urgency) {
    if (n < TP_STRETCH_MIN_FRAME || n > TP_STRETCH_MAX_FRAME || n_in < n || rate_hz < 8000 || rate_hz > 16000) return TP_E_ARGUMENT;
    size_t least = rate_hz / 1000 * LAG_LEAST_US / 1000, lag = 0;
    most = smaller(smaller(most, n_in - n), rate_hz / 1000 * LAG_MOST_MS);
    if (is_quiet(in, smaller(n_in, n + most))) {
        lag = most;
    } else if (urgency > 0 && most >= least) {
        float quality;
        lag = find_lag(in, n, n_in, least, most, rate_hz, &quality);
        if (quality < least_likeness[urgency < 3 ? urgency : 3]) lag = 0;
    }
    if (lag == 0) {
        memcpy(out, in, n * sizeof *out);
        return 0;
    }
    size_t fade = fade_for(lag, n / 2, rate_hz);
    join(out, in, (ptrdiff_t)lag, n, find_joint(in, (ptrdiff_t)lag, 0, n, fade), fade);
    return (int)lag;
}

int tp_stretch_lengthen(int16_t *out, size_t n, const int16_t *in, size_t wanted, uint32_t rate_hz, uint32_t urgency) {
    if (n < TP_STRETCH_MIN_FRAME || n > TP_STRETCH_MAX_FRAME || rate_hz < 8000 || rate_hz > 16000) return TP_E_ARGUMENT;
    /* Half of a period is room enough for the fade; a quarter of the frame is left for one in any case. */
    size_t least = rate_hz / 1000 * LAG_LEAST_US / 1000, most = smaller(n * 3 / 4, rate_hz / 1000 * LAG_MOST_MS), lag = 0;
    if (is_quiet(in, n)) {
        lag = smaller(wanted, most);
    } else if (urgency > 0 && most >= least) {
        float quality;
        /* Rather a little more than two joints. */
        size_t enough = wanted > 2 * least ? wanted : 2 * least;
        lag = find_lag(in, n, n, least, smaller(most, 2 * enough), rate_hz, &quality);
        if (quality < least_likeness[urgency < 3 ? urgency : 3]) lag = 0;
    }
    if (lag == 0) {
        memcpy(out, in, n * sizeof *out);
        return 0;
    }
    size_t fade = fade_for(lag, smaller(n / 2, n - lag), rate_hz);
    /* From the lag on, what was heard that much before is heard again. */
    join(out, in, -(ptrdiff_t)lag, n, find_joint(in, -(ptrdiff_t)lag, lag, n, fade), fade);
    return (int)lag;
}
