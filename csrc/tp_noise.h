/* tp_noise: comfort noise as its description in RTP says: level and spectrum.
 *
 * What it does. Reads comfort noise packets (RFC 3389: a level, and reflection coefficients of an all-pole filter) and makes
 * noise like that, so that a pause in which nothing is sent sounds like the room and not like a dead line.
 *
 * How it works. White noise from a linear congruential generator runs through the all-pole lattice of the coefficients. The
 * excitation is scaled by the prediction error that the coefficients imply (the product of 1 - k^2, its root by Newton's
 * rule), so that what comes out has the level asked for whatever the spectrum. A new level is approached over 20 ms.
 * Single precision in a fixed order: the same bytes on every machine.
 *
 * How to use it. reset() with any seed; receive() each packet's payload; fill() what the pause needs. Until a packet has
 * come `level` is 0 and fill() gives silence. fade() where something else was heard before: the noise begins at nothing.
 *
 * Acceptance: level within 1 dB of the one asked for, 0 dBov being a square wave of full scale.
 * Source: RFC 3389 3, 4; the lattice is a textbook method (J. Makhoul, Stable and efficient lattice methods, 1977). */
#ifndef TP_NOISE_H
#define TP_NOISE_H
#include "tp_base.h"

#define TP_NOISE_MAX_ORDER 12 /* more coefficients than that are cut off: the first say the most */

typedef struct tp_noise {
    uint32_t seed, order;
    float level, present;      /* rms of white excitation: asked for, reached */
    float k[TP_NOISE_MAX_ORDER];
    float memory[TP_NOISE_MAX_ORDER + 1];
} tp_noise;

void tp_noise_reset(tp_noise *noise, uint32_t seed);
/* A comfort noise packet's payload. -> TP_OK; TP_E_FORMAT an empty one */
int tp_noise_receive(tp_noise *noise, const uint8_t *payload, size_t payload_bytes);
void tp_noise_fade(tp_noise *noise); /* from nothing, over 20 ms */
void tp_noise_fill(tp_noise *noise, int16_t *out, size_t n);

#endif
