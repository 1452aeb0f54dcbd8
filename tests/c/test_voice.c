/* Every length of chunk at both rates, extremes of level, holes, and memory that ends where the audio ends. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "tp_active.h"
#include "tp_level.h"
#include "tp_voice.h"

static uint32_t seed = 1;

static int16_t next(void) {
    seed = seed * 1103515245u + 12345u;
    return (int16_t)(seed >> 16);
}

static int check_lengths(uint32_t rate_hz) {
    const tp_voice_config config = {rate_hz, 80, 240, 0};
    tp_voice whole, cut;
    CHECK(tp_voice_init(&whole, &config) == TP_OK);
    CHECK(tp_voice_init(&cut, &config) == TP_OK);
    for (size_t n = 0; n <= 700; n += 7) {
        int16_t *in = malloc(2 * n + 2); /* at an odd word, and no byte more */
        CHECK(in);
        int shift = (int)(n / 7 % 16);
        for (size_t i = 0; i < n; i++) in[1 + i] = (int16_t)(next() >> shift);
        (void)tp_voice_receive(&whole, in + 1, n);
        for (size_t i = 0; i < n; i++) (void)tp_voice_receive(&cut, in + 1 + i, 1);
        free(in);
        CHECK(whole.state == cut.state && whole.score == cut.score && whole.evidence == cut.evidence);
        CHECK(whole.n_frames == cut.n_frames && whole.repeats == cut.repeats);
        CHECK(whole.repeats >= 0 && whole.repeats <= 256);
    }
    return 0;
}

static int check_extremes(void) {
    const tp_voice_config config = {8000, 20, 0, 0};
    static const int16_t levels[] = {0, 1, -1, 32767, -32768};
    tp_voice voice;
    tp_voice_figures figures;
    CHECK(tp_voice_init(&voice, &config) == TP_OK);
    tp_voice_measure(&voice, &figures);
    CHECK(figures.level_x100 == TP_LEVEL_SILENCE_DBOV_X100 && figures.snr_x100 == 0);
    for (size_t period = 1; period <= 64; period *= 2) {
        for (size_t k = 0; k < sizeof levels / sizeof *levels; k++) {
            int16_t in[1600];
            for (size_t i = 0; i < 1600; i++) in[i] = i / period % 2 ? levels[k] : (int16_t)~levels[k];
            (void)tp_voice_receive(&voice, in, 1600);
            tp_voice_measure(&voice, &figures);
            CHECK(figures.level_x100 <= 0 && figures.floor_x100 <= 0 && figures.snr_x100 >= 0);
        }
    }
    CHECK(tp_voice_fillin(&voice, (size_t)1 << 40) == TP_VOICE_QUIET);
    return 0;
}

static int check_active(void) {
    tp_active active;
    CHECK(tp_active_init(&active, 11025) == TP_E_ARGUMENT);
    CHECK(tp_active_init(&active, 48000) == TP_OK);
    CHECK(tp_active_dbov_x100(&active) == TP_LEVEL_SILENCE_DBOV_X100);
    int16_t in[480];
    for (size_t i = 0; i < 480; i++) in[i] = i % 2 ? 32767 : -32768;
    for (size_t k = 0; k < 500; k++) tp_active_receive(&active, in, 480);
    CHECK(tp_active_dbov_x100(&active) > -10 && tp_active_dbov_x100(&active) <= 0);
    tp_active_fillin(&active, (size_t)1 << 40);
    CHECK(tp_active_dbov_x100(&active) > -100);
    return 0;
}

int main(void) {
    static const tp_voice_config wrong[] = {
        {24000, 80, 240, 0}, {8000, 0, 240, 0}, {8000, 10001, 240, 0}, {8000, 80, 10001, 0}, {8000, 80, 240, 6001}, {8000, 80, 240, -6001}};
    tp_voice voice;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) CHECK(tp_voice_init(&voice, &wrong[i]) == TP_E_ARGUMENT);
    CHECK(check_lengths(8000) == 0);
    CHECK(check_lengths(16000) == 0);
    CHECK(check_extremes() == 0);
    CHECK(check_active() == 0);
    return 0;
}
