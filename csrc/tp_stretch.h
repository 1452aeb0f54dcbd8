/* tp_stretch: one frame of telephone audio made to last a little longer or shorter, without a gap, a click or another pitch.
 *
 * What it does. Removes audio from, or repeats audio in, a frame by a lag at which it resembles itself (a period of the
 * voice, or several) with a cross-fade over the joint. What follows the frame goes on sample for sample.
 *
 * How it works. No state: all that is needed lies in the frame and, to shorten it, in the audio behind it.
 *
 *   lag      Every lag of 2.5 to 20 ms is looked at for how much the frame resembles what lies that much behind it: at 4 kHz,
 *            normalised cross-correlation, then refined at the full rate. Of those nearly as good as the best the longest
 *            that is not more than wanted is taken: one joint instead of two.
 *   joint    A cross-fade one lag long, at most half a frame, is laid where the two sides differ least; the ends of the
 *            frame stay as they are, so that it joins what is before it and what comes after it.
 *   whether  In a frame below -50 dBov any lag will do, and exactly what is wanted is done. Else nothing is done at
 *            urgency 0; likeness of at least 0.85 is asked for at 1, 0.5 at 2, none at 3.
 *
 * Everything is plain arithmetic in a fixed order: the same bytes on every machine and SIMD level.
 *
 * How to use it. shorten() takes the frame and what follows it (one frame more is enough) and returns by how many samples
 * later the next frame begins; lengthen() takes the frame alone and returns by how many earlier. 0: nothing suits, and out
 * is the frame as it came.
 *
 * Acceptance: a tone keeps its frequency; no step at a joint is larger than 1.25 times the largest in the audio that is
 * joined; silence and noise may be cut anywhere. About 5 us a frame that is stretched; a frame that is not costs nothing.
 * Source: own work; overlap-add at the lag of greatest similarity is a textbook method (W. Verhelst, M. Roelands, WSOLA,
 * ICASSP 1993). */
#ifndef TP_STRETCH_H
#define TP_STRETCH_H
#include "tp_base.h"

#define TP_STRETCH_MIN_FRAME 16
#define TP_STRETCH_MAX_FRAME 960 /* samples: 60 ms at 16 kHz */

/* n samples out of n_in > n, at most `most` of them left out. -> samples left out, 0: none; TP_E_ARGUMENT: n outside
 * TP_STRETCH_MIN_FRAME..MAX_FRAME, n_in under n, a rate outside 8000..16000. out and in do not overlap */
int tp_stretch_shorten(int16_t *out, size_t n, const int16_t *in, size_t n_in, size_t most, uint32_t rate_hz, uint32_t urgency);
/* n samples out of the first of n: about `wanted` are heard twice, and so many of the last are still to come.
 * -> samples repeated, 0: none; TP_E_ARGUMENT as above */
int tp_stretch_lengthen(int16_t *out, size_t n, const int16_t *in, size_t wanted, uint32_t rate_hz, uint32_t urgency);

#endif
