/* loadgen_bytes: what the load generator does to bytes: byte order, base64, masks, SHA-1.
 *
 * What it does. Its own, and not talkpath's: an instrument shares no code with what it measures.
 *
 * How it works. The plain algorithms; the mask eight bytes at a time.
 *
 * How to use it. No state, no errors but unbase64's. Link with loadgen_bytes.c.
 * Source: RFC 4648 4, RFC 6455 5.3, FIPS 180-4. */
#ifndef LOADGEN_BYTES_H
#define LOADGEN_BYTES_H

#include <stddef.h>
#include <stdint.h>

/* Network byte order. */
void put16(uint8_t *p, uint32_t v);
void put32(uint8_t *p, uint32_t v);
uint32_t get32(const uint8_t *p);

/* -> characters written, with padding, without a terminator. */
size_t base64(char *out, const uint8_t *in, size_t n);
/* -> bytes written, at most n / 4 * 3; SIZE_MAX when the text is not base64. */
size_t unbase64(uint8_t *out, const uint8_t *in, size_t n);

/* Puts a WebSocket mask on, or takes it off. */
void unmask(uint8_t *text, size_t n, const uint8_t key[4]);

/* The text is at most 119 bytes, two blocks: a key and the GUID of RFC 6455. */
void sha1(uint8_t out[20], const uint8_t *text, size_t n);

#endif
