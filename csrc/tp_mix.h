/* tp_mix: how loud each source plays, several sources as one, and a limit that is not heard.
 *
 * What it does. A gain in decibels that may change while audio plays, a sum of any number of tracks, and a limiter that
 *   brings the sum back into 16 bits: what an application does when it lowers music under a voice.
 *
 * How it works. Gain: Q13 (8192 is unity), -60 to +18 dB and mute, from a table of powers of ten, so that no mathematics
 *   library is linked. A change is a straight line from the present gain to the new one over ramp_samples, one step per
 *   sample, cut into chunks anyhow: no step is larger than (new - old) / ramp_samples, which is why it does not click.
 *   Sum: int32, which sixteen tracks at full gain do not fill.
 *   Limiter: one gain for the whole waveform, so that its shape stays. A sample beyond the knee (-1.16 dB of full scale)
 *   asks for the gain f(|x|) / |x|, where f bends from the knee towards full scale and never reaches it: that gain holds
 *   from this very sample on (no look-ahead, no delay), and rises again by 40 dB a second. A rising wave so follows f,
 *   round at the top, and what comes after it has its own shape: a tone that is 6 dB too loud is turned down instead of
 *   squared. Where the gain is at rest and nothing passes the knee, samples pass unchanged. Integers only.
 *
 * How to use it. One tp_gain per source: init, set when asked, settle instead while the source is silent (there is nothing
 *   to be ramped), add each source into a cleared sum, then limit the sum. gain_process alone saturates. A limiter that is
 *   not idle must be fed until it is, or what follows is a step louder than what was.
 *
 * Acceptance (tests/dsp/test_mix.py): the gain within 0.01 dB of the asked one from -20 to +18 dB, 0.6 dB at -60; never
 *   beyond +-32767 for any int32; unchanged below the knee; back at unity 150 ms after an overload of 6 dB, and never faster
 *   than 40 dB/s; a tone of 200 Hz or more that is 6 dB too loud keeps its distortion below -40 dB (clipped: -13 dB); the same
 *   for every way of cutting the input. 20 ms of two sources at 8 kHz below 250 ns.
 * Source: own; the static curve is the rational soft knee of textbooks. */
#ifndef TP_MIX_H
#define TP_MIX_H
#include "tp_base.h"

#define TP_GAIN_UNITY 8192
#define TP_GAIN_LEAST_DB_X100 (-6000)
#define TP_GAIN_MOST_DB_X100 1800
#define TP_GAIN_MUTE INT32_MIN /* instead of hundredths of dB */
#define TP_LIMITER_KNEE 28672
#define TP_LIMITER_UNITY (1 << 30)

typedef struct tp_gain {
    int32_t from, to;   /* Q13; of the ramp under way, or the last one */
    uint32_t left;      /* samples of the ramp to come */
    uint32_t ramp_samples;
} tp_gain;

typedef struct tp_limiter {
    int32_t gain;    /* Q30, at most TP_LIMITER_UNITY */
    int32_t release; /* Q30: by how much of itself it rises in a sample */
} tp_limiter;

void tp_gain_init(tp_gain *gain, uint32_t ramp_samples); /* unity */
int tp_gain_set(tp_gain *gain, int32_t db_x100);         /* from the next sample on; TP_E_ARGUMENT: out of range */
void tp_gain_settle(tp_gain *gain);                      /* ends a ramp at its goal */
static inline bool tp_gain_is_unity(const tp_gain *gain) { return gain->left == 0 && gain->to == TP_GAIN_UNITY; }
/* `out` may be `in`. */
void tp_gain_process(tp_gain *gain, int16_t *out, const int16_t *in, size_t n);

void tp_mix_add(int32_t *sum, const int16_t *in, size_t n, tp_gain *gain);

int tp_limiter_init(tp_limiter *limiter, uint32_t rate_hz); /* TP_E_ARGUMENT: not 1,000 to 384,000 */
static inline bool tp_limiter_is_idle(const tp_limiter *limiter) { return limiter->gain == TP_LIMITER_UNITY; }
void tp_limiter_reset(tp_limiter *limiter);
/* -> samples that were turned down */
size_t tp_limiter_process(tp_limiter *limiter, int16_t *out, const int32_t *in, size_t n);

#endif
