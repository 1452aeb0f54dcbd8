#include "check.h"
#include "tp_websocket.h"

static int check_headers(void) {
    static const uint64_t lengths[] = {0, 1, 125, 126, 127, 65535, 65536, 0xffffffffu, (uint64_t)1 << 32,
                                       ((uint64_t)1 << 63) - 1};
    static const uint8_t key[4] = {0x37, 0xfa, 0x21, 0x3d};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++)
        for (unsigned masked = 0; masked < 2; masked++) {
            uint8_t header[TP_WEBSOCKET_MAX_HEADER_BYTES];
            tp_websocket_frame frame;
            int n = tp_websocket_write_header(header, sizeof header, 1, TP_OPCODE_BINARY, lengths[i],
                                              masked != 0 ? key : NULL);
            CHECK(n == (lengths[i] < 126 ? 2 : lengths[i] < 65536 ? 4 : 10) + (masked != 0 ? 4 : 0));
            /* From the end of the array, so that a byte too many is seen. */
            uint8_t *moved = header + sizeof header - n;
            memmove(moved, header, (size_t)n);
            for (int have = 0; have < n; have++)
                CHECK(tp_websocket_read_header(&frame, moved, (size_t)have) == 0);
            CHECK(tp_websocket_read_header(&frame, moved, (size_t)n) == 1);
            CHECK(frame.header_bytes == n && frame.payload_bytes == lengths[i] && frame.masked == masked);
            CHECK(frame.fin == 1 && frame.opcode == TP_OPCODE_BINARY);
            CHECK(memcmp(frame.mask, masked != 0 ? key : (const uint8_t[4]){0}, 4) == 0);
        }
    return 0;
}

/* RFC 6455 5.7: "Hello", masked; and every length, alignment and cut of a longer one. */
static int check_masking(void) {
    static const uint8_t key[4] = {0x37, 0xfa, 0x21, 0x3d}, masked[5] = {0x7f, 0x9f, 0x4d, 0x51, 0x58};
    uint8_t hello[5] = {'H', 'e', 'l', 'l', 'o'}, bytes[120];
    tp_websocket_mask(hello, 5, key, 0);
    CHECK(memcmp(hello, masked, 5) == 0);
    for (size_t n = 0; n <= 100; n++)
        for (size_t shift = 0; shift < 9; shift++) {
            uint8_t *begin = bytes + sizeof bytes - n - shift;
            size_t cut = (n * 7 + shift) % (n + 1);
            for (size_t i = 0; i < n; i++)
                begin[i] = (uint8_t)(i * 29);
            tp_websocket_mask(begin, cut, key, shift);
            tp_websocket_mask(begin + cut, n - cut, key, shift + cut);
            for (size_t i = 0; i < n; i++)
                CHECK(begin[i] == (uint8_t)((uint8_t)(i * 29) ^ key[(shift + i) % 4]));
        }
    return 0;
}

static int check_utf8(void) {
    static const char *const good[] = {"", "plain ascii of more than eight bytes", "\xc3\xa9", "\xe2\x82\xac",
                                       "\xf0\x9f\x98\x80", "\xf4\x8f\xbf\xbf", "\xed\x9f\xbf", "\xee\x80\x80"};
    static const char *const bad[] = {"\x80", "\xc3", "\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xe2\x82",
                                      "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "12345678\xc3"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        CHECK(tp_websocket_is_utf8((const uint8_t *)good[i], strlen(good[i])) == 1);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK(tp_websocket_is_utf8((const uint8_t *)bad[i], strlen(bad[i])) == 0);
    return 0;
}

int main(void) { return check_headers() != 0 || check_masking() != 0 || check_utf8() != 0; }
