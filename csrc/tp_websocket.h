/* tp_websocket: the frames of RFC 6455, as bytes.
 *
 * What it does. Reads and writes frame headers, masks, and checks UTF-8. No state: a connection's rules (fragments,
 * messages, the closing handshake) belong to whoever holds the connection.
 *
 * How it works. The reader looks at as many bytes as it has and reports a broken rule at the first byte that shows it,
 * so the answer does not depend on how the bytes were cut. Masking XORs words of eight bytes from a key turned to the
 * payload's offset; loads and stores go through memcpy, so nothing needs to be aligned. The UTF-8 check skips ASCII
 * eight bytes at a time and walks the rest by the table of RFC 3629 section 4.
 *
 * How to use it. read_header() on the bytes at hand; when it gives 1, the payload is the payload_bytes after
 * header_bytes. Compare payload_bytes with your own limit BEFORE waiting for it: it is the peer's claim. Whether a mask
 * had to be there (a client masks, a server does not) is the caller's to check: `masked` says what was found.
 *
 * Extensions are never negotiated, hence reserved bits are always an error. Acceptance: every header that is written
 * reads back; every other one that reads was written minimally; agrees with wsproto both ways.
 * Source: RFC 6455 sections 5.2, 5.3, 5.5; RFC 3629 section 4. */
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
 * opcode, control frame fragmented or over 125 bytes, length not minimal, top bit of a 64-bit length set). `out` is
 * written only with 1. */
int tp_websocket_read_header(tp_websocket_frame *out, const uint8_t *in, size_t in_bytes);
/* mask NULL: unmasked. -> header bytes (2..14), TP_E_ROOM, or TP_E_ARGUMENT: a frame the reader would refuse. */
int tp_websocket_write_header(uint8_t *out, size_t out_capacity, uint8_t fin, uint8_t opcode, uint64_t payload_bytes,
                              const uint8_t *mask);
/* XOR in place; `offset` is how far into the payload `bytes` begins. */
void tp_websocket_mask(uint8_t *bytes, size_t n, const uint8_t mask[4], uint64_t offset);
/* -> 1 when the bytes are well-formed UTF-8 (RFC 3629), else 0 */
int tp_websocket_is_utf8(const uint8_t *in, size_t n);

#endif
