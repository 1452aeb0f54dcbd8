/* tp_plc: packet loss concealment for telephone audio at 8 or 16 kHz, pitch-based, without added delay.
 *
 * What it does. Makes up audio for frames that did not come, from what was heard before and, where the frame after the gap
 * has already arrived, from that one too; fades to silence when a gap lasts; joins what is made up to what is real.
 *
 * How it works.
 *   period  The lag at which the 6 ms beside the gap resemble most what lies further from it, by normalised
 *           cross-correlation, at 4 kHz and then around the best at the full rate; among equals the shorter. Longer windows
 *           find what the voice was doing before: 6 ms instead of 20 is the largest single gain by PESQ.
 *   before  The last period is repeated, several at least 5 ms long together where no single one is clear; its end is
 *           blended into its beginning so that the loop has no seam, and the step between the last real sample and the
 *           first repeated one is taken out over 1 ms. After 5 ms the repetition fades, to nothing at 80.
 *   after   With the audio after the gap at hand the same is done backwards in time from there. Where that is too short to
 *           show a period, the place in the repetition that it resembles is found, and what led there is taken.
 *   both    The two are cross-faded over the frame: earlier where the repetition of what follows is the better one, or much
 *           was made up already; without making up for the power that unlike signals lose, and a little weaker in the
 *           middle where their levels differ, because too much is heard more than too little.
 *   end     Without audio after the gap, the first good frame is cross-faded with the continued repetition over 4 to 10 ms.
 * Of a gap of several frames only the last can be closed from both sides: `following` is always what comes right after the
 * samples asked for. Sums are of integers, everything else is one sample at a time: the same bytes on every machine.
 *
 * How to use it. receive() every good frame, fillin() every missing one, in order of time. Give fillin() `following` only
 * when exactly that audio is received next. A good frame costs a copy; whoever has many of them may give the last 24 ms
 * before a gap alone. conceal() does both for a whole signal.
 *
 * Acceptance (python -m benchmarks plc): narrow-band PESQ of twelve prompts through G.711 with random losses of 20 ms, one
 * following frame held, at least 3.88 at 1 %, 3.60 at 3 %, 3.40 at 5 %, 2.85 at 10 %, 2.30 at 20 %; at most 1 us a lost
 * frame and 50 ns a good one. A gap's end and beginning show no step larger than the speech itself has.
 * Source: own work; normalised cross-correlation and overlap-add are textbook methods. */
#ifndef TP_PLC_H
#define TP_PLC_H
#include "tp_base.h"

#define TP_PLC_MAX_HISTORY 384 /* samples: the 24 ms that are kept, at 16 kHz */
#define TP_PLC_MAX_LOOP 288    /* samples: the longest period at 16 kHz, and what vectors read behind it */
#define TP_PLC_MAX_FRAME 960   /* samples in one receive/fillin */

typedef struct tp_plc {
    uint32_t rate_hz;
    uint32_t n_history; /* samples known, at most the 24 ms that are kept; the newest is the last */
    uint32_t missing; /* samples concealed in the present gap */
    uint32_t pitch;   /* the repetition's length, samples: one period or several */
    uint32_t offset;  /* within it, of the next sample */
    uint32_t blended; /* 1: the gap was closed against what follows, no cross-fade is due */
    float step;       /* what the repetition lies beside the last real sample, fading */
    float likeness;   /* of the last period to the one before, squared */
    float power;      /* of the repetition, a sample */
    int16_t history[TP_PLC_MAX_HISTORY];
    int16_t work[TP_PLC_MAX_LOOP]; /* the repetition */
} tp_plc; /* sizeof <= 2 KiB */

/* TP_OK; TP_E_ARGUMENT for a rate other than 8000 and 16000 */
int tp_plc_init(tp_plc *state, uint32_t rate_hz);
void tp_plc_reset(tp_plc *state);
/* A good frame: remembered; after a gap its beginning is cross-faded in place. -> n; TP_E_ARGUMENT n above 960 */
int tp_plc_receive(tp_plc *state, int16_t *pcm, size_t n);
/* A missing frame: n samples of concealment. `following`, when not NULL, is the good audio right after the gap, and is
 * what receive() gets next; it is of use from 6 ms on, best from 20. -> n; TP_E_ARGUMENT n above 960 */
int tp_plc_fillin(tp_plc *state, int16_t *out, size_t n, const int16_t *following, size_t n_following);
/* A whole signal in place: n_frames of n samples, of which those with lost[i] != 0 did not come. What lies in their places
 * is not read; each is closed against the next frame where that one came. -> frames made up; TP_E_ARGUMENT n 0 or above 960 */
int tp_plc_conceal(tp_plc *state, int16_t *pcm, size_t n_frames, size_t n, const uint8_t *lost);

#endif
