#include "tp_tone.h"

#include "tp_tone_tables.h"

enum { HOP = TP_TONE_HOP, HALF = TP_TONE_HALF, RATE = 8000, TAPS = 11 };
enum { ON_WINDOWS = 6, KNOWN_WINDOWS = 4, OFF_WINDOWS = 5 };

/* A first window that is pure enough is filled to 70 .. 120 %, a last one to 57 .. 107 %. */
enum { BEGIN_OFFSET = 4, END_OFFSET = 66 };

/* A sine of amplitude 1 has this energy in a window, and its correlation has that square. */
#define SINE_ENERGY 0.234375f
#define SINE_SQUARE 1677721600.0f
/* What a window must have for a digit: each tone's energy, how much more all of it may be, and how much the high
 * tone may be weaker or stronger. */
typedef struct limits {
    float least, all, weaker, stronger;
} limits;
static const limits TO_BEGIN = {909.0f * 909.0f * SINE_ENERGY, 1 / 0.78f, 12.6f, 12.6f};
static const limits TO_GO_ON = {643.0f * 643.0f * SINE_ENERGY, 1 / 0.6f, 22.4f, 22.4f};
#define MEAN_SHARE 0.88f /* of both tones in all energy, over a candidate's windows: a talker's harmonics rarely reach it */
#define LEAST_COLUMN 0.05f /* of all energy, or the rows need not be looked at: leaves room for a dial tone */

static const char KEYS[4][4] = {{'1', '2', '3', 'A'}, {'4', '5', '6', 'B'}, {'7', '8', '9', 'C'}, {'*', '0', '#', 'D'}};

typedef struct sight {
    int32_t key;            /* 4 * row + column; -1: no digit */
    tp_tone_heard tone[2];  /* row, column */
    float all;
} sight;

static inline int32_t dot(const int16_t *a, const int16_t *b) {
    int32_t sum = 0;
    for (size_t i = 0; i < HALF; i++) sum += a[i] * b[i];
    return sum;
}

/* What is left and right of a window's middle, added and subtracted: cosines are even and sines are odd. */
typedef struct folded {
    int16_t even[HALF], odd[HALF];
} folded;

/* The loudest of four tones. */
static int loudest(tp_tone_heard *out, const folded *y, const int16_t waves[4][2][HALF]) {
    int best = 0;
    for (int i = 0; i < 4; i++) {
        int32_t even = 0, odd = 0;
        for (size_t k = 0; k < HALF; k++) { /* two sums in one loop, one after the other would cost a tenth more */
            even += y->even[k] * waves[i][0][k];
            odd += y->odd[k] * waves[i][1][k];
        }
        float re = (float)even, im = (float)odd;
        float energy = (re * re + im * im) * (SINE_ENERGY / SINE_SQUARE);
        if (i != 0 && energy <= out->energy) continue;
        best = i;
        *out = (tp_tone_heard){re, im, energy};
    }
    return best;
}

static bool shows(const sight *seen, const limits *limit) {
    float row = seen->tone[0].energy, column = seen->tone[1].energy;
    return row >= limit->least && column >= limit->least && row <= column * limit->weaker &&
           column <= row * limit->stronger && seen->all <= (row + column) * limit->all;
}

static void look(sight *seen, const int16_t *x) {
    int16_t left[HALF];
    folded whole, part; /* part: a quarter, whose squares fit */
    for (size_t i = 0; i < HALF; i++) left[i] = (int16_t)(x[HALF - 1 - i] >> 1);
    x += HALF;
    for (size_t i = 0; i < HALF; i++) {
        int16_t right = (int16_t)(x[i] >> 1);
        whole.even[i] = (int16_t)(((int16_t)(right + left[i]) * tp_tone_window[i]) >> 16);
        whole.odd[i] = (int16_t)(((int16_t)(right - left[i]) * tp_tone_window[i]) >> 16);
        part.even[i] = (int16_t)(whole.even[i] >> 2);
        part.odd[i] = (int16_t)(whole.odd[i] >> 2);
    }
    seen->key = -1;
    /* Of a sixteenth of the samples: sums and differences have twice their energy. */
    seen->all = ((float)dot(part.even, part.even) + (float)dot(part.odd, part.odd)) * 2;
    if (seen->all < 2 * TO_GO_ON.least) return;
    int column = loudest(&seen->tone[1], &whole, tp_tone_waves + 4);
    if (seen->tone[1].energy < TO_GO_ON.least || seen->tone[1].energy < LEAST_COLUMN * seen->all) return;
    int row = loudest(&seen->tone[0], &whole, tp_tone_waves);
    if (seen->all * MEAN_SHARE > seen->tone[0].energy + seen->tone[1].energy) {
        float dial = 0;
        for (int i = 0; i < 4; i++) {
            float share = (float)dot(i < 2 ? part.even : part.odd, tp_tone_dial[i]) * (1 / 32768.0f);
            dial += share * share;
        }
        seen->all -= dial * 4;
    }
    if (shows(seen, &TO_GO_ON)) seen->key = 4 * row + column;
}

static void forget_candidate(tp_tone *tone) {
    tone->candidate = -1;
    tone->n_candidate = tone->n_known = tone->n_unknown = 0;
}

static void tell(const tp_tone *tone, tp_tone_event *event, int32_t kind) {
    uint32_t scale = tone->rate_hz / RATE;
    event->kind = kind;
    event->digit = KEYS[tone->sounding / 4][tone->sounding % 4];
    event->begin = tone->begin * scale + (scale == 1 ? 0 : TAPS / 2);
    event->duration = (tone->end - tone->begin) * scale;
}

static void end_digit(tp_tone *tone, tp_tone_event *event) {
    tell(tone, event, TP_TONE_ENDED);
    tone->sounding = -1;
}

/* Whether the phases turned as a tone's within the tolerance would have turned them. */
static bool in_tune(const tp_tone *tone) {
    for (int i = 0; i < 2; i++) {
        int nominal = i == 0 ? tone->candidate / 4 : 4 + tone->candidate % 4;
        float most = tp_tone_turns[nominal].most_cos;
        float re = tone->turned[i][0], im = tone->turned[i][1];
        if (re <= 0 || re * re < most * most * (re * re + im * im)) return false;
    }
    return true;
}

static void follow_candidate(tp_tone *tone, const sight *seen, int64_t at) {
    bool same = seen->key == tone->candidate;
    for (int i = 0; i < 2; i++) {
        float now = seen->tone[i].energy;
        if (now < tone->loudest[i] / 3) same = false;
        if (now > tone->loudest[i] * 3) same = false; /* what was before was half a window */
    }
    if (!same) {
        tone->candidate = seen->key;
        tone->n_candidate = tone->n_known = tone->n_unknown = 0;
        tone->shares = 0;
        tone->candidate_begin = at + BEGIN_OFFSET;
        memset(tone->turned, 0, sizeof tone->turned);
        memset(tone->loudest, 0, sizeof tone->loudest);
    }
    for (int i = 0; i < 2; i++) {
        const tp_tone_heard *now = &seen->tone[i], *last = &tone->last[i];
        if (tone->n_candidate != 0 && tone->n_unknown == 0) {
            int nominal = i == 0 ? seen->key / 4 : 4 + seen->key % 4;
            float c = tp_tone_turns[nominal].turn_cos, s = tp_tone_turns[nominal].turn_sin;
            /* The correlation has e^(-i phase of the table): its argument is the tone's phase, negative. */
            float re = now->re * last->re + now->im * last->im, im = last->im * now->re - last->re * now->im;
            tone->turned[i][0] += re * c + im * s;
            tone->turned[i][1] += im * c - re * s;
        }
        if (now->energy > tone->loudest[i]) tone->loudest[i] = now->energy;
        tone->last[i] = *now;
    }
    tone->shares += (seen->tone[0].energy + seen->tone[1].energy) / seen->all;
    tone->n_candidate += 1 + tone->n_unknown;
    tone->n_known++;
    tone->n_unknown = 0;
}

/* A window is whole: what it shows, and what becomes of the digit. */
static void step(tp_tone *tone, tp_tone_event *event) {
    if (tone->at < tone->missing_until) {
        tone->n_unknown += tone->candidate >= 0;
        tone->skipped = 0;
        return;
    }
    bool idle = tone->sounding < 0 && tone->candidate < 0;
    if (idle && !tone->skipped) {
        tone->skipped = 1;
        return;
    }
    bool skipped = tone->skipped;
    tone->skipped = 0;
    sight seen, before;
    look(&seen, tone->window + HOP);
    if (tone->sounding >= 0) {
        bool on = seen.key == tone->sounding;
        for (int i = 0; i < 2 && on; i++) on = seen.tone[i].energy * 4 >= tone->sounding_energy[i];
        if (on) {
            for (int i = 0; i < 2; i++) tone->sounding_energy[i] = seen.tone[i].energy;
            tone->n_off = 0;
            tone->end = tone->at + END_OFFSET;
            forget_candidate(tone);
            return;
        }
        if (++tone->n_off >= OFF_WINDOWS) end_digit(tone, event);
    }
    if (seen.key < 0 || !shows(&seen, &TO_BEGIN)) {
        forget_candidate(tone);
        return;
    }
    if (skipped) {
        look(&before, tone->window);
        if (before.key >= 0 && shows(&before, &TO_BEGIN)) follow_candidate(tone, &before, tone->at - HOP);
    }
    follow_candidate(tone, &seen, tone->at);
    if (tone->sounding >= 0 || tone->n_candidate < ON_WINDOWS || tone->n_known < KNOWN_WINDOWS ||
        tone->shares < MEAN_SHARE * (float)tone->n_known || !in_tune(tone)) return;
    tone->sounding = tone->candidate;
    tone->begin = tone->candidate_begin;
    tone->end = tone->at + END_OFFSET;
    tone->n_off = 0;
    for (int i = 0; i < 2; i++) tone->sounding_energy[i] = seen.tone[i].energy;
    forget_candidate(tone);
    tell(tone, event, TP_TONE_BEGAN);
}

int tp_tone_init(tp_tone *tone, uint32_t rate_hz) {
    if (rate_hz != RATE && rate_hz != 2 * RATE) return TP_E_ARGUMENT;
    memset(tone, 0, sizeof *tone);
    tone->rate_hz = rate_hz;
    tp_tone_reset(tone);
    return TP_OK;
}

void tp_tone_reset(tp_tone *tone) {
    uint32_t rate_hz = tone->rate_hz;
    memset(tone, 0, sizeof *tone);
    tone->rate_hz = rate_hz;
    tone->at = -HOP;
    tone->candidate = tone->sounding = -1;
}

/* At 8 kHz. -> samples taken, up to the first event */
static size_t receive(tp_tone *tone, tp_tone_event *event, const int16_t *in, size_t n) {
    size_t taken = 0;
    while (taken < n && event->kind == TP_TONE_NONE) {
        size_t part = HOP - tone->fill < n - taken ? HOP - tone->fill : n - taken;
        memcpy(tone->window + 2 * HOP + tone->fill, in + taken, part * sizeof *in);
        tone->fill += (uint32_t)part;
        tone->heard_until = tone->at + HOP + tone->fill;
        taken += part;
        if (tone->fill < HOP) break;
        step(tone, event);
        memmove(tone->window, tone->window + HOP, 2 * HOP * sizeof *in);
        tone->fill = 0;
        tone->at += HOP;
    }
    return taken;
}

/* Eleven samples are half a sample of 8 kHz: maximally flat, zero at 8 kHz, half at 4. */
static int16_t halved(const int16_t *x) {
    return tp_saturate16((3 * (x[0] + x[10]) - 25 * (x[2] + x[8]) + 150 * (x[4] + x[6]) + 256 * x[5] + 256) >> 9);
}

size_t tp_tone_receive(tp_tone *tone, tp_tone_event *event, const int16_t *in, size_t n) {
    memset(event, 0, sizeof *event);
    if (tone->rate_hz == RATE) return receive(tone, event, in, n);
    size_t taken = 0;
    while (taken < n && event->kind == TP_TONE_NONE) {
        /* The filter's memory and a hop of input; what makes no whole output stays. */
        int16_t x[TAPS + 2 * HOP], y[HOP];
        size_t room = (size_t)(TAPS - 2 + 2 * (HOP - tone->fill)) - tone->n_before;
        size_t part = room < n - taken ? room : n - taken;
        memcpy(x, tone->before, tone->n_before * sizeof *in);
        memcpy(x + tone->n_before, in + taken, part * sizeof *in);
        size_t have = tone->n_before + part, n_out = have >= TAPS ? (have - TAPS) / 2 + 1 : 0;
        for (size_t i = 0; i < n_out; i++) y[i] = halved(x + 2 * i);
        tone->n_before = (uint16_t)(have - 2 * n_out);
        memcpy(tone->before, x + 2 * n_out, tone->n_before * sizeof *in);
        taken += part;
        (void)receive(tone, event, y, n_out);
    }
    return taken;
}

/* At 8 kHz; windows that begin less than `more` after the missing samples are not to be trusted either. */
static void fillin(tp_tone *tone, tp_tone_event *event, size_t n, int64_t more) {
    int64_t until = tone->at + HOP + tone->fill + (int64_t)n;
    tone->missing_until = until + more;
    if (until - tone->heard_until > TP_TONE_MISSING_MS * RATE / 1000) {
        if (tone->sounding >= 0) end_digit(tone, event);
        forget_candidate(tone);
    }
    size_t hops = (tone->fill + n) / HOP;
    if (tone->candidate >= 0) tone->n_unknown += (uint32_t)hops;
    tone->fill = (uint32_t)((tone->fill + n) % HOP);
    tone->at += (int64_t)hops * HOP;
    tone->skipped = 0;
    if (hops != 0) memset(tone->window, 0, sizeof tone->window);
}

void tp_tone_fillin(tp_tone *tone, tp_tone_event *event, size_t n) {
    memset(event, 0, sizeof *event);
    if (tone->rate_hz == RATE) {
        fillin(tone, event, n, 0);
        return;
    }
    size_t have = tone->n_before + n, n_out = have >= TAPS ? (have - TAPS) / 2 + 1 : 0;
    tone->n_before = (uint16_t)(have - 2 * n_out);
    memset(tone->before, 0, sizeof tone->before);
    fillin(tone, event, n_out, TAPS / 2);
}

int tp_tone_maker_begin(tp_tone_maker *maker, uint32_t rate_hz, char digit, uint32_t n) {
    static const double AMPLITUDES[2] = {7218.0, 9087.0}; /* -10 and -8 dBm0 */
    if (rate_hz != RATE && rate_hz != 2 * RATE) return TP_E_ARGUMENT;
    for (int key = 0; key < 16; key++) {
        if (KEYS[key / 4][key % 4] != digit) continue;
        memset(maker, 0, sizeof *maker);
        maker->n = n;
        maker->n_fade = rate_hz / 400 < n / 2 ? rate_hz / 400 : n / 2;
        for (int i = 0; i < 2; i++) {
            const double *step = tp_tone_steps[rate_hz != RATE][i == 0 ? key / 4 : 4 + key % 4];
            memcpy(maker->turn[i], step, sizeof maker->turn[i]);
            maker->phase[i][0] = AMPLITUDES[i];
        }
        return TP_OK;
    }
    return TP_E_ARGUMENT;
}

void tp_tone_maker_make(tp_tone_maker *maker, int16_t *out, size_t n) {
    for (size_t j = 0; j < n; j++) {
        uint32_t left = maker->n - maker->at, fade = maker->at < left ? maker->at : left;
        if (left == 0) {
            out[j] = 0;
            continue;
        }
        double sum = 0;
        for (int i = 0; i < 2; i++) {
            double c = maker->phase[i][0], s = maker->phase[i][1];
            sum += s;
            maker->phase[i][0] = c * maker->turn[i][0] - s * maker->turn[i][1];
            maker->phase[i][1] = s * maker->turn[i][0] + c * maker->turn[i][1];
        }
        if (fade < maker->n_fade) sum = sum * fade / maker->n_fade;
        out[j] = (int16_t)(sum < 0 ? sum - 0.5 : sum + 0.5);
        maker->at++;
    }
}

int tp_presses_see(tp_presses *presses, char digit, int how, int64_t at, int64_t window) {
    int other = -1;
    for (int i = 0; i < TP_PRESSES; i++) {
        int k = (int)(presses->next + (uint32_t)i) % TP_PRESSES; /* the oldest first */
        int64_t apart = at - presses->seen[k].at;
        if (presses->seen[k].digit != (uint8_t)digit || presses->seen[k].how == how) continue;
        if (other < 0 && apart <= window && apart >= -window) other = k;
    }
    if (other >= 0) {
        presses->seen[other].digit = 0;
        presses->n_doubled++;
        return 0;
    }
    presses->seen[presses->next].at = at;
    presses->seen[presses->next].how = (uint8_t)how;
    presses->seen[presses->next].digit = (uint8_t)digit;
    presses->next = (presses->next + 1) % TP_PRESSES;
    return 1;
}
