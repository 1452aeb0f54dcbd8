/* tp_tone: the digits of a telephone keypad in audio (DTMF), found and made.
 *
 * What it does. States of a digit: nothing - a candidate (its two tones have been heard, not long enough) - sounding -
 *   paused (its tones are gone, not long enough) - ended. Two events each, begin and end, with the position of the first
 *   sample and the duration. How the audio is cut into chunks changes nothing. Missing audio is told with fillin, and
 *   neither splits a digit nor doubles it.
 *
 * How it works. Every 5 ms a window of 10 ms (Hann) is correlated with the eight tones. It shows a digit when the
 *   strongest row and column are loud enough, not too unlike, and together nearly all of the energy there is; a dial
 *   tone of 350 and 440 Hz is taken out of that energy, by projection, when it alone is in the way. Six such windows in a
 *   row, about 32 ms, begin a digit, provided that each tone's phase turned from window to window as its frequency, within
 *   the tolerance, would turn it: that measures a frequency to a hertz or two in the time in which the window itself
 *   resolves a hundred. Five windows without it, 25 ms, end it. While a digit sounds the limits are wider.
 *   Where there is nothing every other window is enough, the one before it being looked at when it shows a digit.
 *   Correlations are integers, the few comparisons after them are IEEE single precision in a fixed order: every machine
 *   finds the same digits. At 16 kHz the audio is halved by an eleven-tap filter first; what of 4-8 kHz could look like a
 *   tone is 37 dB down.
 *
 * How to use it. init; receive returns how many samples it took: all, or up to where an event happened, so call it until
 *   nothing is left; fillin for what is missing. The maker: begin a digit, and take its samples until it has none.
 *
 * Acceptance, ITU-T Q.24 annex A: the columns of NTT, AT&T, Denmark, Australia and Brazil, the strictest of each row.
 * Twist beyond the limit is nobody's to reject, so the widest is held, Australia's.
 *   frequency      accepted to 1.8 % and to 1.5 % + 2 Hz, rejected from 3.0 %
 *   level          of each tone accepted -27 to 0 dBm0, rejected from -29 dBm0
 *   twist          the high tone up to 10 dB weaker or stronger (AT&T 8 and 4, NTT 5, Denmark 6, Brazil 9, Australia 10)
 *   duration       accepted from 40 ms, rejected to 24 ms
 *   pause          seen from 30 ms
 *   interruption   bridged to 12 ms
 *   noise          white, 15 dB below the digit: none missed of 10,000 of 50 ms
 *   echo           20 ms late and 10 dB down: still one digit
 *   dial tone      350 and 440 Hz, each up to 6 dB louder than a tone of the digit; or one tone of 400 to 450 Hz
 *   speech         no digit in 131 minutes of prompts in English, French, Italian, Russian and Spanish, nor at twice the
 *                  volume or half of it. What is nothing but two harmonics of one voice can be one: of a synthetic talker
 *                  with narrow formants, a digit in five minutes.
 * Positions are those of the tones within 5 ms. Figures to hold: a third of the time of spandsp's receiver, frame by frame.
 * Source: ITU-T Q.23, Q.24. 0 dBm0 is a sine 3.14 dB below full scale (G.711). */
#ifndef TP_TONE_H
#define TP_TONE_H
#include "tp_base.h"

#define TP_TONE_MISSING_MS 100 /* more missing audio than this in one piece ends a digit */
enum { TP_TONE_NONE = 0, TP_TONE_BEGAN = 1, TP_TONE_ENDED = 2 };

typedef struct tp_tone_event {
    int64_t begin;    /* samples since init or reset */
    int64_t duration; /* in samples: of what has been heard so far, or of all */
    int32_t kind;     /* TP_TONE_x */
    int32_t digit;    /* a character of 0-9 * # A-D */
} tp_tone_event;

typedef struct tp_tone_heard {
    float re, im, energy;
} tp_tone_heard;

typedef struct tp_tone {
    uint32_t rate_hz;
    uint32_t fill;                /* samples in the second half of the window */
    int64_t at;                   /* of the first sample of the window; 8 kHz, as all below */
    int64_t missing_until;        /* windows that begin before are not looked at */
    int64_t heard_until;          /* the last sample that was not missing */
    int32_t candidate, sounding;  /* digits, -1: none */
    uint32_t n_candidate, n_off;  /* windows in a row, missing ones between others included */
    uint32_t n_known, n_unknown;  /* of the candidate: windows looked at, and missing ones since */
    int64_t candidate_begin, begin, end;
    tp_tone_heard last[2];        /* the candidate's row and column in its last window */
    float shares;                 /* of its tones in all energy, added up */
    float loudest[2];             /* and in its loudest */
    float turned[2][2];           /* the sum of the turns of their phases */
    float sounding_energy[2];     /* in the last window that showed it */
    int16_t window[120];          /* the present window lies in the last 80 */
    int16_t before[11];           /* at 16 kHz: what the filter still needs */
    uint16_t n_before;
    uint32_t skipped;             /* whether the window before this one was not looked at */
} tp_tone;

/* 8000 or 16000 Hz. TP_E_ARGUMENT else */
int tp_tone_init(tp_tone *tone, uint32_t rate_hz);
void tp_tone_reset(tp_tone *tone);
/* -> samples taken, at least 1 where n is; fewer than n where they completed *event, whose kind is TP_TONE_NONE else */
size_t tp_tone_receive(tp_tone *tone, tp_tone_event *event, const int16_t *in, size_t n);
/* n samples are missing; *event as above */
void tp_tone_fillin(tp_tone *tone, tp_tone_event *event, size_t n);

/* A digit, made: its tones from phase 0, faded in and out over 2.5 ms. */
typedef struct tp_tone_maker {
    double turn[2][2];  /* cosine and sine of a sample's turn */
    double phase[2][2]; /* of the next sample, times the amplitude */
    uint32_t n, at, n_fade;
} tp_tone_maker;

/* 8000 or 16000 Hz, n samples in all; the level of its tones in dBm0 is -10 (rows) and -8 (columns). TP_E_ARGUMENT */
int tp_tone_maker_begin(tp_tone_maker *maker, uint32_t rate_hz, char digit, uint32_t n);
/* n samples: of the digit, zeros after its end */
void tp_tone_maker_make(tp_tone_maker *maker, int16_t *out, size_t n);

/* One press of a key may be seen twice, as a message (an RTP event, a wire's own) and in the audio: this tells whether
 * what is seen now has been seen the other way, within `window` samples. Each sight is used up by one other, so two
 * presses that are both seen twice stay two. */
enum { TP_PRESS_MESSAGE = 0, TP_PRESS_AUDIO = 1 };
#define TP_PRESSES 8
typedef struct tp_presses {
    struct {
        int64_t at;
        uint8_t how, digit, reserved[6];
    } seen[TP_PRESSES]; /* digit 0: free */
    uint32_t next, n_doubled;
} tp_presses;

/* A digit was seen at sample `at`, in whatever order sights come. -> 1 a press, 0 the other sight of one */
int tp_presses_see(tp_presses *presses, char digit, int how, int64_t at, int64_t window);

#endif
