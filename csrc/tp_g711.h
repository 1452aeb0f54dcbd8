#ifndef TP_G711_H
#define TP_G711_H
#include "tp_base.h"

/* ITU-T G.711; the encoders take the STL's reading of negative samples (one's complement), 0 mismatches of 65,536. */
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
