/* tp_g711: audio as it is on a telephone wire, to and from linear int16.
 *
 * What it does. ITU-T G.711 PCMU and PCMA both ways; the same calls for L16 in either byte order, so that whoever has a
 *   tp_encoding needs no switch of its own. Linear samples are native int16; PCMU spans +-32124, PCMA +-32256.
 *
 * How it works. A companded octet is a tiny floating-point number: sign, 3 bits of exponent, 4 of mantissa. So the
 *   encoder converts the magnitude (plus the law's offset) to a float and takes the top bits of its representation, the
 *   decoder builds the float and converts back. Every such float is exact, no table is read and no shift is variable,
 *   which makes vectors of it on every instruction set. A table of 64 KiB is no faster and would cost the cache of a
 *   whole call. Negative samples: G.711 leaves open how 16 bits become 14 or 13; this takes the reading of ITU-T's
 *   Software Tool Library, one's complement (-1 is the mirror of 0), for both laws. Octets are as on the wire: PCMA
 *   with its even bits inverted, PCMU with all.
 *
 * How to use it. Any n, 0 too. `out` and `in` do not overlap. The four named calls cannot fail; those that take an
 *   encoding answer TP_E_ARGUMENT to one that is not of tp_encoding and TP_OK else; `in`/`out` hold
 *   n * tp_sample_bytes(encoding) bytes and need no alignment on the byte side.
 *
 * Acceptance: 0 differences from the segment definition over all 65,536 samples and 256 octets, both laws, every level;
 *   encode(decode(octet)) == octet but for PCMU's negative zero 0x7f, which decodes to 0 and returns as 0xff.
 * Source: ITU-T G.711 (11/88) tables 1 and 2; G.191 (STL) for the reading of negative samples. */
#ifndef TP_G711_H
#define TP_G711_H
#include "tp_base.h"

void tp_g711_pcmu_decode(int16_t *out, const uint8_t *in, size_t n);
void tp_g711_pcmu_encode(uint8_t *out, const int16_t *in, size_t n);
void tp_g711_pcma_decode(int16_t *out, const uint8_t *in, size_t n);
void tp_g711_pcma_encode(uint8_t *out, const int16_t *in, size_t n);

/* Any tp_encoding <-> linear native int16. `in`/`out` bytes = n * tp_sample_bytes(encoding). TP_E_ARGUMENT on a bad one. */
int tp_g711_decode(uint32_t encoding, int16_t *out, const uint8_t *in, size_t n);
int tp_g711_encode(uint32_t encoding, uint8_t *out, const int16_t *in, size_t n);
/* n samples of digital silence as bytes: 0xff PCMU, 0xd5 PCMA, zeros L16. */
int tp_g711_silence(uint32_t encoding, uint8_t *out, size_t n);

#endif
