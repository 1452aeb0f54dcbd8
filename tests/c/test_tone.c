/* Every key made and found at every offset and cut, loud noise, holes anywhere, presses at the edge of their window. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "tp_tone.h"

static const char KEYS[] = "123A456B789C*0#D";
static uint64_t state = 88172645463325252u;

static uint32_t random_below(uint32_t n) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 33) % n;
}

/* -> the digits begun and ended, or -1 where an event is not as it should be */
static int feed(tp_tone *tone, const int16_t *in, size_t n, char *began, size_t *n_began) {
    int16_t *exact = malloc(n * sizeof *in + 1); /* no byte more than told, for the sanitizer */
    if (exact == NULL) return -1;
    memcpy(exact, in, n * sizeof *in);
    int ended = 0;
    for (size_t taken = 0; taken < n;) {
        tp_tone_event event;
        size_t got = tp_tone_receive(tone, &event, exact + taken, n - taken);
        if (got == 0 || got > n - taken) ended = -1000;
        if (got == 0) break;
        taken += got;
        if (event.kind == TP_TONE_NONE && taken != n) ended = -1000;
        if (event.kind == TP_TONE_BEGAN) began[(*n_began)++] = (char)event.digit;
        ended += event.kind == TP_TONE_ENDED;
    }
    free(exact);
    return ended;
}

static int check_keys(uint32_t rate) {
    uint32_t ms = rate / 1000;
    for (int key = 0; key < 16; key++) {
        for (uint32_t offset = 0; offset < 90; offset += 7) {
            int16_t pcm[250 * 16];
            tp_tone tone;
            tp_tone_maker maker;
            char began[8];
            size_t n_began = 0, n = 60 * ms;
            int ended = 0;
            memset(pcm, 0, sizeof pcm);
            CHECK(tp_tone_maker_begin(&maker, rate, KEYS[key], 50 * ms) == TP_OK);
            for (size_t at = 0; at < n;) {
                size_t part = 1 + random_below(200);
                if (part > n - at) part = n - at;
                tp_tone_maker_make(&maker, pcm + offset + at, part);
                at += part;
            }
            for (size_t i = 50 * ms; i < n; i++) CHECK(pcm[offset + i] == 0);
            CHECK(tp_tone_init(&tone, rate) == TP_OK);
            for (size_t at = 0; at < 200u * ms;) {
                size_t part = random_below(400);
                if (part > 200u * ms - at) part = 200u * ms - at;
                int got = feed(&tone, pcm + at, part, began, &n_began);
                CHECK(got >= 0);
                ended += got;
                at += part;
            }
            CHECK(n_began == 1 && began[0] == KEYS[key] && ended == 1);
        }
    }
    return 0;
}

static int check_anything(uint32_t rate) {
    tp_tone tone;
    CHECK(tp_tone_init(&tone, rate) == TP_OK);
    for (int round = 0; round < 3000; round++) {
        int16_t pcm[1000];
        char began[200];
        size_t n_began = 0, n = random_below(1000);
        uint32_t kind = random_below(3);
        for (size_t i = 0; i < n; i++) {
            int32_t loud = random_below(2) ? 32767 : -32768;
            pcm[i] = (int16_t)(kind == 0 ? loud : kind == 1 ? (int32_t)random_below(65536) - 32768 : -32768);
        }
        CHECK(feed(&tone, pcm, n, began, &n_began) >= 0);
        CHECK(n_began == 0);
        if (random_below(3) == 0) {
            tp_tone_event event;
            tp_tone_fillin(&tone, &event, random_below(2000));
            CHECK(event.kind == TP_TONE_NONE);
        }
    }
    return 0;
}

static int check_presses(void) {
    tp_presses presses;
    memset(&presses, 0, sizeof presses);
    CHECK(tp_presses_see(&presses, '5', TP_PRESS_AUDIO, 1000, 800) == 1);
    CHECK(tp_presses_see(&presses, '5', TP_PRESS_AUDIO, 1100, 800) == 1); /* one way alone: two presses */
    CHECK(tp_presses_see(&presses, '6', TP_PRESS_MESSAGE, 1000, 800) == 1);
    CHECK(tp_presses_see(&presses, '5', TP_PRESS_MESSAGE, 1850, 800) == 0); /* the second: the first is too far */
    CHECK(tp_presses_see(&presses, '5', TP_PRESS_MESSAGE, 1801, 800) == 1);
    CHECK(tp_presses_see(&presses, '5', TP_PRESS_MESSAGE, 200, 800) == 0);
    CHECK(presses.n_doubled == 2);
    for (int i = 0; i < 100; i++) CHECK(tp_presses_see(&presses, KEYS[i % 16], TP_PRESS_MESSAGE, 5000 + i, 800) == 1);
    CHECK(tp_presses_see(&presses, KEYS[99 % 16], TP_PRESS_AUDIO, 5099, 800) == 0);
    return 0;
}

int main(void) {
    tp_tone tone;
    tp_tone_maker maker;
    CHECK(tp_tone_init(&tone, 24000) == TP_E_ARGUMENT);
    CHECK(tp_tone_maker_begin(&maker, 8000, 'E', 100) == TP_E_ARGUMENT);
    CHECK(tp_tone_maker_begin(&maker, 48000, '1', 100) == TP_E_ARGUMENT);
    for (uint32_t n = 0; n < 60; n++) {
        int16_t pcm[64];
        CHECK(tp_tone_maker_begin(&maker, 16000, '1', n) == TP_OK);
        tp_tone_maker_make(&maker, pcm, 64);
    }
    for (uint32_t rate = 8000; rate <= 16000; rate += 8000) {
        CHECK(check_keys(rate) == 0);
        CHECK(check_anything(rate) == 0);
    }
    CHECK(check_presses() == 0);
    return 0;
}
