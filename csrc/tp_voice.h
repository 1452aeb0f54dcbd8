/* tp_voice: whether somebody speaks, on a line that is not quiet.
 *
 * What it does. Each 20 ms it measures what stands above the line's noise, says whether that is speech, and keeps a state
 *   with onset and hangover. Meant to stand before what is dear (a recogniser, a neural detector), and to be good enough
 *   alone to stop a voice that is talking to the caller.
 *
 * How it works. A frame is split into octaves by sums and differences of neighbours (Haar's transform, four stages):
 *   2000-4000, 1000-2000, 500-1000, 250-500 Hz; what lies below is hum and handling, and what leaks
 *   from there into the octaves above counts as noise. At 16 kHz neighbours
 *   are averaged first: what is above 4 kHz does not count either. Each octave has a floor of its own, the least smoothed
 *   level of the last 1.6 s and what such a least is known to lie below the mean (minimum statistics, in logarithms, in
 *   eight pieces that are forgotten one by one). So a steady noise becomes the floor within that time whatever its colour,
 *   and speech, which has gaps, does not. At first the floor is -50 dBov an octave at most: who speaks from the first
 *   sample on is heard. A frame's score is how far its octaves stand above their floors. Only when that is worth it, what
 *   lies between 250 and 1000 Hz in the last 60 ms is compared with itself 3 to 20 ms earlier: what repeats itself is a
 *   voice and not a door. Integers throughout: the same samples give the same figures everywhere, however they were cut.
 *
 *   Evidence is counted in ms, up to the onset's length: a frame that is voiced adds 20, one that is only loud 10 but never
 *   the last 10 (no noise alone is speech), any other takes 10 away. Loud: a score of 400. Voiced: 300, and it repeats
 *   itself. Kept up: voiced, or 250. Missing: of three frames in a row nothing is said, further ones are "other".
 *
 *   state     | voiced                                  | loud                 | kept up  | other
 *   ----------+-----------------------------------------+----------------------+----------+--------------------------------
 *   QUIET     | ONSET, SPEECH when the evidence is full | ONSET                | QUIET    | QUIET
 *   ONSET     | ONSET, SPEECH when the evidence is full | ONSET                | as other | ONSET, QUIET when no evidence is left
 *   SPEECH    | SPEECH                                  | SPEECH               | SPEECH   | HANGOVER
 *   HANGOVER  | SPEECH                                  | SPEECH               | SPEECH   | HANGOVER, QUIET when it is over
 *
 *   ONSET is a suspicion, one frame after its cause; SPEECH is a decision.
 *
 * How to use it. init; receive whatever there is, fillin what is missing (it does not move the floor); read state and
 *   evidence; measure when figures are wanted. Audio that is no whole frame waits in the struct for the rest of it.
 *
 * Figures to hold: 100 ns a frame at 8 kHz while nobody speaks, 300 ns while somebody does; hit rate and false alarms
 *   beside webrtcvad's are what benchmarks/bench_voice.py prints.
 * Source: own; minimum statistics after R. Martin, IEEE Transactions on Speech and Audio Processing 9 (2001) 504. */
#ifndef TP_VOICE_H
#define TP_VOICE_H
#include "tp_base.h"

enum { TP_VOICE_QUIET = 0, TP_VOICE_ONSET = 1, TP_VOICE_SPEECH = 2, TP_VOICE_HANGOVER = 3 };

#define TP_VOICE_FRAME_MS 20
#define TP_VOICE_OCTAVES 4
#define TP_VOICE_PIECES 8  /* of the floor's memory */
#define TP_VOICE_PAST_FRAMES 3

/* A frame below 1 kHz, at 2 kHz (40), and below 250 Hz, at 500 Hz (10); behind them zeros. */
typedef struct tp_voice_past {
    int16_t second[48], fourth[16];
} tp_voice_past;

typedef struct tp_voice_config {
    uint32_t rate_hz;       /* 8000, 16000 */
    uint32_t onset_ms;      /* of voiced audio from QUIET to SPEECH; twice as much that is merely loud */
    uint32_t hangover_ms;
    int32_t margin_x100;    /* dB more (or less) above the floor than what serves most lines */
} tp_voice_config;

typedef struct tp_voice {
    tp_voice_config config;
    int32_t state;          /* TP_VOICE_x */
    int32_t score;          /* of the last frame: 256ths of 3 dB above the floors; 400 counts for speech */
    int32_t repeats;        /* of the last frame, 0..256; 0 where it was not worth asking */
    int32_t evidence;       /* ms, up to onset_ms */
    uint64_t n_frames, n_onsets;
    uint64_t energy;        /* of the last frame, at 8 kHz, from 250 Hz on */
    uint32_t hangover_left; /* ms */
    uint32_t missing, missing_frames;
    uint32_t n_waiting;     /* samples of an unfinished frame */
    uint32_t newest;        /* of the past */
    uint32_t piece, in_piece;
    int32_t smooth[TP_VOICE_OCTAVES], least[TP_VOICE_OCTAVES];
    int32_t pieces[TP_VOICE_PIECES][TP_VOICE_OCTAVES];
    tp_voice_past past[TP_VOICE_PAST_FRAMES];
    int16_t waiting[320];
} tp_voice;

/* Hundredths of dB, of what lies between 250 and 4000 Hz. */
typedef struct tp_voice_figures {
    int32_t level_x100;     /* dBov of the last frame */
    int32_t floor_x100;     /* dBov, never below -51 */
    int32_t snr_x100;       /* dB of the last frame above the floor, 0 and more */
} tp_voice_figures;

int tp_voice_init(tp_voice *voice, const tp_voice_config *config); /* TP_E_ARGUMENT: another rate, or a length of 0 or beyond 10 s */
void tp_voice_reset(tp_voice *voice);
int tp_voice_receive(tp_voice *voice, const int16_t *in, size_t n); /* -> the state */
int tp_voice_fillin(tp_voice *voice, size_t n);                     /* n samples are missing -> the state */
void tp_voice_measure(const tp_voice *voice, tp_voice_figures *out);

#endif
