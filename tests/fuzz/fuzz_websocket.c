/* Frames: any bytes. A header reads the same however it is cut and is the one that would be written; masking undoes
 * itself from any cut; the UTF-8 check agrees with a decoder that does it the long way. */
#include "standalone.h"
#include "tp_websocket.h"

#define LONGEST_TEXT 4096

static const seed seeds[] = {
    SEED("\x81\x05Hello"),
    SEED("\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"),
    SEED("\x01\x03Hel\x80\x02lo"),
    SEED("\x82\x7e\x01\x00"),
    SEED("\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    SEED("\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x01\x02\x03\x04"),
    SEED("\x89\x00\x8a\x80mask"),
    SEED("\x88\x05\x03\xe8" "bye"),
    SEED("plain \xc3\xa9 \xe2\x82\xac \xed\x9f\xbf \xee\x80\x80 \xf0\x90\x80\x80 \xf4\x8f\xbf\xbf and so on"),
};

/* One character by RFC 3629's definition: decode, then judge the number. -> its bytes, 0 when there is none */
static size_t decode_one(const uint8_t *in, size_t n) {
    size_t length = in[0] < 0x80 ? 1 : in[0] >> 5 == 6 ? 2 : in[0] >> 4 == 14 ? 3 : in[0] >> 3 == 30 ? 4 : 0;
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    if (length == 0 || length > n)
        return 0;
    uint32_t point = length == 1 ? in[0] : in[0] & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if (in[i] >> 6 != 2)
            return 0;
        point = point << 6 | (in[i] & 0x3fu);
    }
    return point < smallest[length] || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff) ? 0 : length;
}

static int is_utf8_the_long_way(const uint8_t *in, size_t n) {
    while (n != 0) {
        size_t length = decode_one(in, n);
        if (length == 0)
            return 0;
        in += length;
        n -= length;
    }
    return 1;
}

static void check_header(const uint8_t *data, size_t size) {
    tp_websocket_frame frame, again;
    int whole = tp_websocket_read_header(&frame, data, size);
    HOLDS(whole == 1 || whole == 0 || whole == TP_E_FORMAT);
    HOLDS(whole != 0 || size < TP_WEBSOCKET_MAX_HEADER_BYTES);
    int before = 0;
    for (size_t n = 0; n <= size && n <= TP_WEBSOCKET_MAX_HEADER_BYTES; n++) {
        int now = tp_websocket_read_header(&again, data, n);
        HOLDS(before == 0 || now == before);
        HOLDS(now != 1 || (whole == 1 && again.header_bytes == frame.header_bytes && n >= frame.header_bytes));
        before = now;
    }
    HOLDS(before == whole);
    if (whole != 1)
        return;
    uint8_t written[TP_WEBSOCKET_MAX_HEADER_BYTES];
    HOLDS(tp_websocket_write_header(written, sizeof written, frame.fin, frame.opcode, frame.payload_bytes,
                                    frame.masked != 0 ? frame.mask : NULL) == frame.header_bytes);
    HOLDS(memcmp(written, data, frame.header_bytes) == 0);
}

static void check_mask(const uint8_t *data, size_t size) {
    static uint8_t masked[LONGEST_TEXT];
    if (size < 5 || size > sizeof masked)
        return;
    size_t cut = data[4] % (size + 1);
    memcpy(masked, data, size);
    tp_websocket_mask(masked, cut, data, 0);
    tp_websocket_mask(masked + cut, size - cut, data, cut);
    for (size_t i = 0; i < size; i++)
        HOLDS(masked[i] == (data[i] ^ data[i % 4]));
    tp_websocket_mask(masked, size, data, 0);
    HOLDS(memcmp(masked, data, size) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    check_header(data, size);
    check_mask(data, size);
    HOLDS(tp_websocket_is_utf8(data, size) == is_utf8_the_long_way(data, size));
    return 0;
}

STANDALONE_MAIN(seeds)
