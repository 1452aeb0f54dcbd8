#ifndef TP_BASE64_H
#define TP_BASE64_H
#include "tp_base.h"

#define TP_BASE64_ENCODED_BYTES(n) (((n) + 2u) / 3u * 4u)

/* RFC 4648 section 4, padded, strict: no white space, no missing padding, no bits set in the last unused ones.
 * encode -> bytes written or TP_E_ROOM. decode -> bytes written, TP_E_ROOM, or TP_E_FORMAT. */
ptrdiff_t tp_base64_encode(uint8_t *out, size_t out_capacity, const uint8_t *in, size_t in_bytes);
ptrdiff_t tp_base64_decode(uint8_t *out, size_t out_capacity, const uint8_t *in, size_t in_bytes);
/* Decoded length by the length and padding alone; TP_E_FORMAT. */
ptrdiff_t tp_base64_decoded_length(const uint8_t *in, size_t in_bytes);

#endif
