#ifndef TP_WEBSOCKET_H
#define TP_WEBSOCKET_H
#include "tp_base.h"

#define TP_WEBSOCKET_MAX_HEADER_BYTES 14

enum { TP_OPCODE_CONTINUATION = 0, TP_OPCODE_TEXT = 1, TP_OPCODE_BINARY = 2, TP_OPCODE_CLOSE = 8, TP_OPCODE_PING = 9, TP_OPCODE_PONG = 10 };

typedef struct tp_websocket_frame {
    uint8_t fin, opcode, masked, header_bytes;
    uint8_t mask[4];
    uint64_t payload_bytes;
} tp_websocket_frame;

/* RFC 6455 5.2. -> 1 a whole header was read, 0 more bytes are needed, TP_E_FORMAT a protocol error (reserved bits or
 * opcode, control frame fragmented or over 125 bytes, length not minimal, top bit of a 64-bit length set). */
int tp_websocket_read_header(tp_websocket_frame *out, const uint8_t *in, size_t in_bytes);
/* mask NULL: unmasked. -> header bytes (2..14) or TP_E_ROOM */
int tp_websocket_write_header(uint8_t *out, size_t out_capacity, uint8_t fin, uint8_t opcode, uint64_t payload_bytes,
                              const uint8_t *mask);
/* XOR in place; `offset` is how far into the payload `bytes` begins. */
void tp_websocket_mask(uint8_t *bytes, size_t n, const uint8_t mask[4], uint64_t offset);
/* -> 1 when the bytes are well-formed UTF-8 (RFC 3629), else 0 */
int tp_websocket_is_utf8(const uint8_t *in, size_t n);

#endif
