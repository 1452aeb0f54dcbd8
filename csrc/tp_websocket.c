#include "tp_websocket.h"

#define FIN 0x80u
#define RESERVED 0x70u
#define MASKED 0x80u
#define LENGTH_16 126u
#define LENGTH_64 127u

static bool opcode_is_control(unsigned opcode) { return opcode >= 8; }

/* Whether first and second byte may begin a frame; the second is judged only when it is there. */
static bool opening_is_lawful(const uint8_t *in, size_t in_bytes) {
    unsigned opcode = in[0] & 0x0fu;
    bool known = opcode <= TP_OPCODE_BINARY || (opcode >= TP_OPCODE_CLOSE && opcode <= TP_OPCODE_PONG);
    if (!known || (in[0] & RESERVED) != 0)
        return false;
    if (!opcode_is_control(opcode))
        return true;
    return (in[0] & FIN) != 0 && (in_bytes < 2 || (in[1] & 0x7fu) < LENGTH_16);
}

int tp_websocket_read_header(tp_websocket_frame *out, const uint8_t *in, size_t in_bytes) {
    if (in_bytes == 0)
        return 0;
    if (!opening_is_lawful(in, in_bytes))
        return TP_E_FORMAT;
    if (in_bytes < 2)
        return 0;
    unsigned length_7 = in[1] & 0x7fu;
    size_t length_bytes = length_7 < LENGTH_16 ? 0 : length_7 == LENGTH_16 ? 2 : 8;
    size_t have = in_bytes - 2 < length_bytes ? in_bytes - 2 : length_bytes;
    uint64_t payload_bytes = length_7;
    if (length_bytes != 0) {
        /* The bytes that are there, with the missing ones taken as large as they can be: what is too small even so can
         * never become lawful. */
        uint64_t floor = 0, ceiling = 0;
        for (size_t i = 0; i < length_bytes; i++) {
            floor = floor << 8 | (i < have ? in[2 + i] : 0u);
            ceiling = ceiling << 8 | (i < have ? in[2 + i] : 0xffu);
        }
        if (ceiling < (length_bytes == 2 ? 126u : 0x10000u) || floor >> 63 != 0)
            return TP_E_FORMAT;
        payload_bytes = floor;
    }
    size_t mask_bytes = (in[1] & MASKED) != 0 ? 4 : 0;
    size_t header_bytes = 2 + length_bytes + mask_bytes;
    if (in_bytes < header_bytes)
        return 0;
    memset(out, 0, sizeof *out);
    out->fin = (in[0] & FIN) != 0;
    out->opcode = in[0] & 0x0fu;
    out->masked = mask_bytes != 0;
    out->header_bytes = (uint8_t)header_bytes;
    memcpy(out->mask, in + 2 + length_bytes, mask_bytes);
    out->payload_bytes = payload_bytes;
    return 1;
}

int tp_websocket_write_header(uint8_t *out, size_t out_capacity, uint8_t fin, uint8_t opcode, uint64_t payload_bytes,
                              const uint8_t *mask) {
    uint8_t header[TP_WEBSOCKET_MAX_HEADER_BYTES];
    size_t n = 2;
    unsigned length_7 = payload_bytes < LENGTH_16 ? (unsigned)payload_bytes : payload_bytes <= 0xffff ? LENGTH_16 : LENGTH_64;
    header[0] = (uint8_t)((fin != 0 ? FIN : 0u) | opcode);
    header[1] = (uint8_t)((mask != NULL ? MASKED : 0u) | length_7);
    if (opcode > 0x0f || payload_bytes >> 63 != 0 || !opening_is_lawful(header, 2))
        return TP_E_ARGUMENT;
    if (length_7 == LENGTH_16) {
        tp_put16be(header + n, (uint16_t)payload_bytes);
        n += 2;
    } else if (length_7 == LENGTH_64) {
        tp_put64be(header + n, payload_bytes);
        n += 8;
    }
    if (mask != NULL) {
        memcpy(header + n, mask, 4);
        n += 4;
    }
    if (n > out_capacity)
        return TP_E_ROOM;
    memcpy(out, header, n);
    return (int)n;
}

void tp_websocket_mask(uint8_t *bytes, size_t n, const uint8_t mask[4], uint64_t offset) {
    uint8_t key[8];
    for (unsigned i = 0; i < 8; i++)
        key[i] = mask[(offset + i) & 3u];
    uint64_t key_word;
    memcpy(&key_word, key, 8);
    for (; n >= 32; n -= 32, bytes += 32) {
        uint64_t words[4];
        memcpy(words, bytes, 32);
        for (size_t i = 0; i < 4; i++)
            words[i] ^= key_word;
        memcpy(bytes, words, 32);
    }
    for (; n >= 8; n -= 8, bytes += 8) {
        uint64_t word;
        memcpy(&word, bytes, 8);
        word ^= key_word;
        memcpy(bytes, &word, 8);
    }
    for (size_t i = 0; i < n; i++)
        bytes[i] ^= key[i];
}

int tp_websocket_is_utf8(const uint8_t *in, size_t n) {
    size_t i = 0;
    while (i < n) {
        if (n - i >= 8) {
            uint64_t word;
            memcpy(&word, in + i, 8);
            if ((word & 0x8080808080808080u) == 0) {
                i += 8;
                continue;
            }
        }
        uint8_t lead = in[i++];
        if (lead < 0x80)
            continue;
        /* The second byte's range carries every restriction: no overlong form, no surrogate, nothing over U+10FFFF. */
        uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
        uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
        size_t more = lead < 0xc2 ? 0 : lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : lead < 0xf5 ? 3 : 0;
        if (more == 0 || n - i < more || in[i] < low || in[i] > high)
            return 0;
        for (size_t k = 1; k < more; k++)
            if ((in[i + k] & 0xc0u) != 0x80)
                return 0;
        i += more;
    }
    return 1;
}
