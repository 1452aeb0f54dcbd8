/* tp_latch: whose RTP is the caller's?
 *
 * What it does. A port that is open to the network will be found, so each datagram's source is judged before anything of
 * it is heard. Both drivers ask the same judge.
 *
 * How it works. One source is trusted at a time. TP_SYMMETRIC_NO: the configured address and nothing else.
 * TP_SYMMETRIC_PORT: that address from the start; another port of the same IP address (NAT) takes over once three
 * consecutive valid packets of the negotiated payload type have come from it, and only after a second of silence from the
 * one before. TP_SYMMETRIC_ANY: the first source of all with three consecutive valid packets within 5 s of expect(), and
 * then nobody else until the next expect(). Candidates are counted each by itself, so that what a stranger sends in between
 * does not keep the caller out; eight are remembered, the least recently heard is forgotten. Everybody else is a stranger:
 * counted, and heard by nobody.
 *
 * How to use it. init once; expect() with the address of the SDP, at the start and at each re-negotiation; receive() for
 * each datagram; send to tp_latch_target().
 *
 * Figures to hold: a datagram from the trusted source below 5 ns; the struct below 0.5 KiB.
 * Source: own; RFC 7362 section 4 (latching), RFC 3550 5.1. */
#ifndef TP_LATCH_H
#define TP_LATCH_H
#include "tp_rtp.h"

enum { TP_SYMMETRIC_NO = 0, TP_SYMMETRIC_PORT = 1, TP_SYMMETRIC_ANY = 2 };
enum { TP_LATCH_STRANGER = 0, TP_LATCH_KNOWN = 1, TP_LATCH_LEARNED = 2 };
#define TP_LATCH_CANDIDATES 8

typedef struct tp_address {
    uint8_t ip[16];     /* network order; an IPv4 address is the first four, the rest 0 */
    uint16_t port;      /* host order */
    uint8_t ip_bytes;   /* 4, 16; 0: no address */
    uint8_t reserved;
} tp_address;

typedef struct tp_candidate {
    tp_address address;
    uint32_t ssrc;
    uint16_t next_seq;
    uint16_t count;
} tp_candidate;

typedef struct tp_latch {
    tp_address remote;   /* as configured */
    tp_address source;   /* who is trusted now; ip_bytes 0: nobody yet */
    uint8_t symmetric, payload_type;
    uint16_t n_candidates;
    int64_t source_heard, learn_until;
    uint64_t refused;    /* strangers' datagrams */
    tp_candidate candidates[TP_LATCH_CANDIDATES]; /* the least recently heard first */
} tp_latch;

void tp_latch_init(tp_latch *latch, uint32_t symmetric, uint8_t payload_type);
/* `remote` NULL (or without an address): whoever comes first, which only TP_SYMMETRIC_ANY allows. */
void tp_latch_expect(tp_latch *latch, const tp_address *remote, int64_t now);
/* -> TP_LATCH_x; a stranger is counted. LEARNED: `source` is the sender's from here on, and this datagram is its first. */
int tp_latch_receive(tp_latch *latch, const tp_address *from, const uint8_t *datagram, size_t datagram_bytes, int64_t now);

/* Who is sent to: the trusted source, or while there is none the configured address; NULL: nobody is known yet. With
 * TP_SYMMETRIC_ANY and an address configured the caller hears us from the start, whoever turns out to answer. */
static inline const tp_address *tp_latch_target(const tp_latch *latch) {
    return latch->source.ip_bytes != 0 ? &latch->source : latch->remote.ip_bytes != 0 ? &latch->remote : NULL;
}

#endif
