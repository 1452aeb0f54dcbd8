#include "tp_latch.h"

#define LEARN_PACKETS 3u              /* in a row make a source the caller's */
#define LEARN_WINDOW_NS 5000000000LL  /* SYMMETRIC_ANY: from expect() on */
#define REBIND_SILENCE_NS 1000000000LL
#define NEVER_HEARD_NS (-(INT64_C(1) << 62))

void tp_latch_init(tp_latch *latch, uint32_t symmetric, uint8_t payload_type) {
    memset(latch, 0, sizeof *latch);
    latch->symmetric = (uint8_t)symmetric;
    latch->payload_type = payload_type;
    latch->source_heard = NEVER_HEARD_NS;
}

void tp_latch_expect(tp_latch *latch, const tp_address *remote, int64_t now) {
    static const tp_address nobody;
    latch->remote = remote != NULL ? *remote : nobody;
    latch->source = latch->symmetric != TP_SYMMETRIC_ANY ? latch->remote : nobody;
    latch->source_heard = NEVER_HEARD_NS;
    latch->learn_until = now + LEARN_WINDOW_NS;
    latch->n_candidates = 0;
}

static bool same_ip(const tp_address *a, const tp_address *b) {
    return a->ip_bytes == b->ip_bytes && memcmp(a->ip, b->ip, sizeof a->ip) == 0;
}

static bool same_address(const tp_address *a, const tp_address *b) { return a->port == b->port && same_ip(a, b); }

static bool may_learn(const tp_latch *latch, const tp_address *from, int64_t now) {
    bool trusts = latch->source.ip_bytes != 0;
    switch (latch->symmetric) {
    case TP_SYMMETRIC_ANY: return !trusts && now <= latch->learn_until;
    case TP_SYMMETRIC_PORT:
        if (latch->remote.ip_bytes == 0 || !same_ip(from, &latch->remote)) return false;
        return !trusts || now - latch->source_heard >= REBIND_SILENCE_NS;
    default: return false;
    }
}

/* Takes `from` out of the candidates. -> what was known of it; a count of 0 when it was none */
static tp_candidate take_candidate(tp_latch *latch, const tp_address *from) {
    tp_candidate found = {.address = *from};
    for (uint32_t i = 0; i < latch->n_candidates; i++) {
        if (!same_address(&latch->candidates[i].address, from)) continue;
        found = latch->candidates[i];
        latch->n_candidates--;
        memmove(&latch->candidates[i], &latch->candidates[i + 1], (latch->n_candidates - i) * sizeof found);
        break;
    }
    return found;
}

static bool learn(tp_latch *latch, const tp_address *from, const uint8_t *datagram, size_t n, int64_t now) {
    tp_rtp_header header;
    if (!may_learn(latch, from, now)) return false;
    if (tp_rtp_read(&header, datagram, n) != TP_OK || tp_rtp_is_rtcp(datagram, n)) return false;
    if (header.payload_type != latch->payload_type || header.payload_bytes == 0) return false;
    /* Each candidate is counted by itself: what a stranger sends in between must not keep the caller out. */
    tp_candidate candidate = take_candidate(latch, from);
    bool follows = candidate.count != 0 && candidate.ssrc == header.ssrc && candidate.next_seq == header.seq;
    candidate.count = follows ? (uint16_t)(candidate.count + 1) : 1;
    if (candidate.count >= LEARN_PACKETS) {
        latch->source = *from;
        latch->source_heard = now;
        latch->n_candidates = 0;
        return true;
    }
    candidate.ssrc = header.ssrc;
    candidate.next_seq = (uint16_t)(header.seq + 1);
    if (latch->n_candidates == TP_LATCH_CANDIDATES) {
        latch->n_candidates--;
        memmove(&latch->candidates[0], &latch->candidates[1], latch->n_candidates * sizeof candidate);
    }
    latch->candidates[latch->n_candidates++] = candidate;
    return false;
}

int tp_latch_receive(tp_latch *latch, const tp_address *from, const uint8_t *datagram, size_t datagram_bytes, int64_t now) {
    if (same_address(from, &latch->source) && from->ip_bytes != 0) {
        latch->source_heard = now;
        return TP_LATCH_KNOWN;
    }
    if (learn(latch, from, datagram, datagram_bytes, now)) return TP_LATCH_LEARNED;
    latch->refused++;
    return TP_LATCH_STRANGER;
}
