/* loadgen_link: bytes to and from one far end, over TCP or TLS over TCP, never waiting.
 *
 * What it does. The load generator's WebSocket code reads and writes through this and does not know which it is.
 *
 * How it works. Plain: recv and send. TLS: OpenSSL on the same descriptor; the handshake of an accepted connection runs
 * inside the first reads. OpenSSL is found when the generator is built: without LOADGEN_TLS every function that needs
 * it fails with a message, and the harness leaves the rows out.
 *
 * How to use it. link_open, then link_receive until it returns 0 (descriptors are watched edge-triggered), link_send
 * with what is left of the last one first, link_close once. Link with loadgen_link.c.
 * Source: RFC 8446, OpenSSL 3 manual pages SSL_read(3), SSL_write(3), SSL_get_error(3). */
#ifndef LOADGEN_LINK_H
#define LOADGEN_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    int fd;
    void *tls; /* SSL *, NULL when plain */
} link_t;

/* Prepare to be the server of TLS links. -> false after a message on stderr. */
bool link_use_certificate(const char *certificate_file, const char *key_file);
/* Prepare to be the client of TLS links and trust this authority alone. -> false after a message on stderr. */
bool link_trust(const char *authority_file);

/* Take over a connected descriptor: TLS where one of the two above has been called. A client's handshake is done here,
 * on a descriptor that still blocks. -> false when it failed; the descriptor is the caller's either way. */
bool link_open(link_t *link, int fd);
void link_close(link_t *link);

/* -> bytes read, 0 nothing more for now, -1 the far end is gone. *at_ns: when the kernel had them, CLOCK_REALTIME; only
 * written where the socket has SO_TIMESTAMPNS and the link is plain. */
long link_receive(link_t *link, void *to, size_t capacity, int64_t *at_ns);
/* -> bytes taken, 0 none for now (offer the same bytes again), -1 the far end is gone. */
long link_send(link_t *link, const void *from, size_t n);

#endif
