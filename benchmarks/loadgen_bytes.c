#include "loadgen_bytes.h"

#include <string.h>

void put16(uint8_t *p, uint32_t v) {
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

void put32(uint8_t *p, uint32_t v) {
    put16(p, v >> 16);
    put16(p + 2, v);
}

uint32_t get32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | (uint32_t)p[3];
}

size_t base64(char *out, const uint8_t *in, size_t n) {
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t at = 0;
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)in[i] << 16;
        if (i + 1 < n) v |= (uint32_t)in[i + 1] << 8;
        if (i + 2 < n) v |= in[i + 2];
        out[at++] = alphabet[v >> 18];
        out[at++] = alphabet[v >> 12 & 63];
        out[at++] = i + 1 < n ? alphabet[v >> 6 & 63] : '=';
        out[at++] = i + 2 < n ? alphabet[v & 63] : '=';
    }
    return at;
}

size_t unbase64(uint8_t *out, const uint8_t *in, size_t n) {
    static uint8_t value[256];
    if (!value['B']) {
        memset(value, 0xff, sizeof value);
        for (uint32_t i = 0; i < 64; i++)
            value[(uint8_t)"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[i]] = (uint8_t)i;
    }
    while (n && in[n - 1] == '=') n--;
    uint8_t *begin = out, bad = 0;
    for (; n >= 4; n -= 4, in += 4) {
        uint8_t a = value[in[0]], b = value[in[1]], c = value[in[2]], d = value[in[3]];
        bad |= a | b | c | d;
        *out++ = (uint8_t)(a << 2 | b >> 4);
        *out++ = (uint8_t)(b << 4 | c >> 2);
        *out++ = (uint8_t)(c << 6 | d);
    }
    if (n >= 2) *out++ = (uint8_t)(value[in[0]] << 2 | value[in[1]] >> 4);
    if (n == 3) *out++ = (uint8_t)(value[in[1]] << 4 | value[in[2]] >> 2);
    return bad & 0xc0 ? SIZE_MAX : (size_t)(out - begin);
}

static uint32_t rotate(uint32_t x, unsigned n) { return x << n | x >> (32 - n); }

void sha1(uint8_t out[20], const uint8_t *text, size_t n) {
    uint8_t blocks[128] = {0};
    uint32_t h[5] = {0x67452301u, 0xefcdab89u, 0x98badcfeu, 0x10325476u, 0xc3d2e1f0u};
    size_t total = n < 56 ? 64 : 128;
    memcpy(blocks, text, n);
    blocks[n] = 0x80;
    put32(blocks + total - 4, (uint32_t)n * 8);
    for (size_t at = 0; at < total; at += 64) {
        uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
        for (size_t i = 0; i < 16; i++) w[i] = get32(blocks + at + 4 * i);
        for (size_t i = 16; i < 80; i++) w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
        for (size_t i = 0; i < 80; i++) {
            uint32_t f = i < 20 ? (b & c) | (~b & d) : i < 40 || i >= 60 ? b ^ c ^ d : (b & c) | (b & d) | (c & d);
            uint32_t k = i < 20 ? 0x5a827999u : i < 40 ? 0x6ed9eba1u : i < 60 ? 0x8f1bbcdcu : 0xca62c1d6u;
            uint32_t t = rotate(a, 5) + f + e + k + w[i];
            e = d;
            d = c;
            c = rotate(b, 30);
            b = a;
            a = t;
        }
        h[0] += a;
        h[1] += b;
        h[2] += c;
        h[3] += d;
        h[4] += e;
    }
    for (size_t i = 0; i < 5; i++) put32(out + 4 * i, h[i]);
}

void unmask(uint8_t *text, size_t n, const uint8_t key[4]) {
    uint64_t wide, word;
    uint8_t twice[8] = {key[0], key[1], key[2], key[3], key[0], key[1], key[2], key[3]};
    memcpy(&wide, twice, sizeof wide);
    for (; n >= sizeof word; n -= sizeof word, text += sizeof word) {
        memcpy(&word, text, sizeof word);
        word ^= wide;
        memcpy(text, &word, sizeof word);
    }
    for (size_t i = 0; i < n; i++) text[i] ^= twice[i];
}
