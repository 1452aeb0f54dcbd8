/* tp_plc under the sanitizers: any frames, any lengths, full scale, in heap blocks of exactly their size. */
#include "../../csrc/tp_plc.h"
#include "check.h"
#include <stdlib.h>

static uint32_t seed = 1;
static uint32_t next(void) {
    seed = seed * 1664525u + 1013904223u;
    return seed >> 8;
}

static int16_t *block(size_t n, uint32_t kind) {
    int16_t *pcm = malloc(n ? n * sizeof *pcm : 1);
    uint32_t period = 20 + next() % 200;
    for (size_t i = 0; i < n; i++)
        switch (kind) {
        case 0: pcm[i] = (int16_t)next(); break;
        case 1: pcm[i] = i % period < period / 2 ? INT16_MAX : INT16_MIN; break;
        case 2: pcm[i] = INT16_MIN; break;
        case 3: pcm[i] = 0; break;
        default: pcm[i] = (int16_t)((int32_t)(i % period) * 150 - 12000); break;
        }
    return pcm;
}

static int anything(uint32_t rate_hz) {
    tp_plc *state = malloc(sizeof *state);
    CHECK(tp_plc_init(state, rate_hz) == TP_OK);
    for (int round = 0; round < 20000; round++) {
        size_t n = next() % 8 ? rate_hz / 50 : next() % (TP_PLC_MAX_FRAME + 1);
        int16_t *pcm = block(n, next() % 5);
        if (next() % 3) {
            CHECK(tp_plc_receive(state, pcm, n) == (int)n);
        } else {
            size_t n_following = next() % 4 ? rate_hz / 50 : next() % (TP_PLC_MAX_FRAME + 1);
            int16_t *following = block(n_following, next() % 5);
            CHECK(tp_plc_fillin(state, pcm, n, next() % 2 ? following : NULL, n_following) == (int)n);
            free(following);
        }
        free(pcm);
        if (next() % 500 == 0)
            tp_plc_reset(state);
    }
    free(state);
    return 0;
}

/* Two states fed alike give the same samples, and a gap cut into frames those of one whole. */
static int cutting_a_gap_changes_nothing(void) {
    tp_plc one, two;
    CHECK(tp_plc_init(&one, 8000) == TP_OK && tp_plc_init(&two, 8000) == TP_OK);
    int16_t *pcm = block(800, 4), whole[640], cut[640], copy[800];
    memcpy(copy, pcm, sizeof copy);
    tp_plc_receive(&one, pcm, 800);
    tp_plc_receive(&two, copy, 800);
    CHECK(memcmp(copy, pcm, sizeof copy) == 0);
    tp_plc_fillin(&one, whole, 640, NULL, 0);
    for (size_t at = 0; at < 640; at += 80)
        tp_plc_fillin(&two, cut + at, 80, NULL, 0);
    for (int i = 0; i < 640; i++)
        CHECK(whole[i] - cut[i] >= -1 && whole[i] - cut[i] <= 1);
    free(pcm);
    return 0;
}

/* A signal at once is the same as its frames one by one; only the frame after a gap that came is looked at. */
static int at_once(uint32_t rate_hz, size_t n) {
    tp_plc one, two;
    CHECK(tp_plc_init(&one, rate_hz) == TP_OK && tp_plc_init(&two, rate_hz) == TP_OK);
    enum { FRAMES = 60 };
    int16_t *pcm = block(FRAMES * n, 4), *copy = malloc(FRAMES * n * sizeof *copy);
    memcpy(copy, pcm, FRAMES * n * sizeof *copy);
    uint8_t lost[FRAMES];
    int n_lost = 0;
    for (size_t i = 0; i < FRAMES; i++) n_lost += lost[i] = next() % 3 == 0;
    CHECK(tp_plc_conceal(&one, pcm, FRAMES, n, lost) == n_lost);
    for (size_t i = 0; i < FRAMES; i++) {
        int16_t *frame = block(n, 0);
        if (!lost[i]) {
            memcpy(frame, copy + i * n, n * sizeof *frame);
            CHECK(tp_plc_receive(&two, frame, n) == (int)n);
        } else {
            const int16_t *following = i + 1 < FRAMES && !lost[i + 1] ? copy + (i + 1) * n : NULL;
            CHECK(tp_plc_fillin(&two, frame, n, following, n) == (int)n);
        }
        CHECK(memcmp(frame, pcm + i * n, n * sizeof *frame) == 0);
        free(frame);
    }
    CHECK(tp_plc_conceal(&one, pcm, 1, 0, lost) == TP_E_ARGUMENT);
    CHECK(tp_plc_conceal(&one, pcm, 1, TP_PLC_MAX_FRAME + 1, lost) == TP_E_ARGUMENT);
    free(pcm);
    free(copy);
    return 0;
}

/* The same bytes on every machine, compiler and level of optimisation: a voice in integers, losses, a hash. */
static uint32_t hash_of(uint32_t rate_hz) {
    enum { FRAMES = 200, MOST = 320 };
    static int16_t pcm[FRAMES * MOST];
    uint8_t lost[FRAMES];
    const size_t n = rate_hz / 50;
    uint32_t noise = 7, hash = 2166136261u;
    int32_t one = 0, two = 0;
    for (size_t i = 0, since = 0; i < FRAMES * n; i++, since++) {
        const size_t period = rate_hz / 130 + i / 400 % 30;
        if (since >= period) since = 0;
        noise = noise * 1664525u + 1013904223u;
        const int32_t pulse = (since < 3 ? 6000 : 0) + (int32_t)(noise >> 24) - 128;
        const int32_t now = pulse + (one * 27 - two * 15) / 17;
        two = one;
        one = now > 30000 ? 30000 : now < -30000 ? -30000 : now;
        pcm[i] = (int16_t)one;
    }
    for (size_t i = 0; i < FRAMES; i++) lost[i] = i % 7 == 3 || i % 11 == 5 || i % 50 > 46;
    tp_plc state;
    (void)tp_plc_init(&state, rate_hz);
    (void)tp_plc_conceal(&state, pcm, FRAMES, n, lost);
    for (size_t i = 0; i < FRAMES * n; i++) hash = (hash ^ (uint16_t)pcm[i]) * 16777619u;
    return hash;
}

int main(void) {
    tp_plc state;
    CHECK(hash_of(8000) == 0xe1e9b86cu && hash_of(16000) == 0xead47080u);
    int16_t pcm[TP_PLC_MAX_FRAME + 1] = {0};
    CHECK(sizeof state <= 2 * 1024);
    CHECK(tp_plc_init(&state, 24000) == TP_E_ARGUMENT && tp_plc_init(&state, 0) == TP_E_ARGUMENT);
    CHECK(tp_plc_init(&state, 8000) == TP_OK);
    CHECK(tp_plc_receive(&state, pcm, TP_PLC_MAX_FRAME + 1) == TP_E_ARGUMENT);
    CHECK(tp_plc_fillin(&state, pcm, TP_PLC_MAX_FRAME + 1, NULL, 0) == TP_E_ARGUMENT);
    return anything(8000) || anything(16000) || cutting_a_gap_changes_nothing() ||
           at_once(8000, 160) || at_once(16000, 480) || at_once(8000, 80) || at_once(16000, TP_PLC_MAX_FRAME);
}
