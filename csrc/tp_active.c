#include "tp_active.h"

#include "tp_level.h"

enum { HANGOVER_MS = 200, MARGIN_X100 = 1590, FRACTION_BITS = 16, SHARE_BITS = 31 };

int tp_active_init(tp_active *active, uint32_t rate_hz) {
    active->rate_hz = rate_hz;
    active->hangover = rate_hz / 1000 * HANGOVER_MS;
    switch (rate_hz) {
    case 8000: active->share = 8929233; break;
    case 16000: active->share = 4469267; break;
    case 24000: active->share = 2980546; break;
    case 48000: active->share = 1490790; break;
    default: return TP_E_ARGUMENT;
    }
    tp_active_reset(active);
    return TP_OK;
}

void tp_active_reset(tp_active *active) {
    const tp_active before = *active;
    memset(active, 0, sizeof *active);
    active->rate_hz = before.rate_hz;
    active->hangover = before.hangover;
    active->share = before.share;
    for (uint32_t j = 0; j < TP_ACTIVE_THRESHOLDS; j++) active->quiet[j] = active->hangover; /* nobody has spoken yet */
}

/* What the run is worth to threshold j. */
static uint64_t counted(const tp_active *a, uint32_t j) {
    if (j < a->above) return a->run;
    uint64_t left = a->hangover - a->quiet[j];
    return a->run < left ? a->run : left;
}

static void end_run(tp_active *a) {
    for (uint32_t j = 0; j < TP_ACTIVE_THRESHOLDS; j++) {
        uint64_t n = counted(a, j);
        a->active[j] += n;
        a->quiet[j] = j < a->above ? 0 : a->quiet[j] + (uint32_t)n;
    }
    a->run = 0;
}

/* Thresholds at or below an envelope. */
static uint32_t thresholds_below(int64_t envelope) {
    uint64_t whole = (uint64_t)envelope >> FRACTION_BITS;
    uint32_t n = whole == 0 ? 0 : 64u - (uint32_t)__builtin_clzll(whole);
    return n < TP_ACTIVE_THRESHOLDS ? n : TP_ACTIVE_THRESHOLDS;
}

static inline void step(tp_active *a, int64_t x) {
    a->first += (((x << FRACTION_BITS) - a->first) * a->share) >> SHARE_BITS;
    a->second += ((a->first - a->second) * a->share) >> SHARE_BITS;
    uint32_t above = thresholds_below(a->second);
    if (above != a->above) {
        end_run(a);
        a->above = above;
    }
    a->run++;
}

void tp_active_receive(tp_active *active, const int16_t *in, size_t n) {
    active->energy += tp_level_energy(in, n);
    active->n_samples += n;
    for (size_t i = 0; i < n; i++) step(active, in[i] < 0 ? -(int64_t)in[i] : in[i]);
}

void tp_active_fillin(tp_active *active, size_t n) {
    active->n_samples += n;
    for (; n != 0 && (active->first != 0 || active->second != 0); n--) step(active, 0);
    active->run += n; /* the envelope stays where it is, at nothing */
}

int32_t tp_active_dbov_x100(const tp_active *active) {
    int32_t level = TP_LEVEL_SILENCE_DBOV_X100, excess = 0;
    for (uint32_t j = 0; j < TP_ACTIVE_THRESHOLDS; j++) {
        uint64_t time = active->active[j] + counted(active, j);
        if (time == 0 || active->energy == 0) break; /* crackle: loud for too short a time to lift the envelope */
        int32_t level_below = level, excess_below = excess;
        level = tp_level_dbov_x100(active->energy, time);
        excess = level - tp_level_dbov_x100((uint64_t)1 << 2 * j, 1) - MARGIN_X100;
        if (excess > 0) continue;
        if (j == 0) break; /* softer than the lowest threshold can tell apart */
        return level_below + (level - level_below) * excess_below / (excess_below - excess);
    }
    return level;
}
