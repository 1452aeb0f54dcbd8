/* The latch against a model written the long way round: every source that was ever heard, with the time it was heard last. */
#include <stdlib.h>

#include "check.h"
#include "tp_latch.h"

#define NS_PER_MS 1000000LL
#define N_SOURCES 14

static uint64_t state;

static uint32_t random_below(uint32_t n) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 33) % n;
}

static tp_address address(uint8_t host, uint16_t port) { return (tp_address){.ip = {10, 0, 0, host}, .port = port, .ip_bytes = 4}; }

static size_t packet(uint8_t *out, uint16_t seq, uint32_t ssrc, uint8_t payload_type, size_t n) {
    tp_rtp_header header = {.ssrc = ssrc, .seq = seq, .payload_type = payload_type};
    (void)tp_rtp_write(out, TP_RTP_HEADER_BYTES, &header);
    memset(out + TP_RTP_HEADER_BYTES, 0, n);
    return TP_RTP_HEADER_BYTES + n;
}

static int hear(tp_latch *latch, tp_address from, uint16_t seq, uint32_t ssrc, int64_t now) {
    uint8_t bytes[200];
    size_t n = packet(bytes, seq, ssrc, 8, 160);
    return tp_latch_receive(latch, &from, bytes, n, now);
}

static int test_no(void) {
    tp_latch latch;
    tp_address remote = address(1, 4000);
    tp_latch_init(&latch, TP_SYMMETRIC_NO, 8);
    tp_latch_expect(&latch, &remote, 0);
    CHECK(tp_latch_target(&latch)->port == 4000);
    CHECK(hear(&latch, remote, 0, 1, 0) == TP_LATCH_KNOWN);
    for (uint16_t seq = 1; seq < 20; seq++) CHECK(hear(&latch, address(1, 4002), seq, 1, seq * 1000 * NS_PER_MS) == TP_LATCH_STRANGER);
    CHECK(latch.refused == 19);
    CHECK(hear(&latch, remote, 20, 1, 0) == TP_LATCH_KNOWN);
    /* A datagram of the trusted source need not be RTP at all. */
    CHECK(tp_latch_receive(&latch, &remote, (const uint8_t *)"x", 1, 0) == TP_LATCH_KNOWN);
    return 0;
}

static int test_port(void) {
    tp_latch latch;
    tp_address remote = address(1, 4000), moved = address(1, 4002);
    tp_latch_init(&latch, TP_SYMMETRIC_PORT, 8);
    tp_latch_expect(&latch, &remote, 0);
    CHECK(hear(&latch, remote, 0, 1, 1000 * NS_PER_MS) == TP_LATCH_KNOWN);
    for (uint16_t seq = 1; seq < 9; seq++) CHECK(hear(&latch, moved, seq, 1, 1999 * NS_PER_MS) == TP_LATCH_STRANGER);
    CHECK(latch.n_candidates == 0); /* nobody is even counted while the caller speaks */
    CHECK(hear(&latch, moved, 65535, 1, 2000 * NS_PER_MS) == TP_LATCH_STRANGER);
    CHECK(hear(&latch, address(2, 4002), 0, 1, 2000 * NS_PER_MS) == TP_LATCH_STRANGER); /* another host never is */
    CHECK(hear(&latch, moved, 0, 1, 2000 * NS_PER_MS) == TP_LATCH_STRANGER);
    CHECK(hear(&latch, moved, 1, 1, 2000 * NS_PER_MS) == TP_LATCH_LEARNED);
    CHECK(tp_latch_target(&latch)->port == 4002 && latch.n_candidates == 0 && latch.refused == 11);
    CHECK(hear(&latch, remote, 1, 1, 2000 * NS_PER_MS) == TP_LATCH_STRANGER);
    CHECK(hear(&latch, moved, 2, 1, 2000 * NS_PER_MS) == TP_LATCH_KNOWN);
    /* What was negotiated anew is trusted at once, and its port may move at once. */
    remote = address(3, 6000);
    tp_latch_expect(&latch, &remote, 2100 * NS_PER_MS);
    CHECK(hear(&latch, moved, 3, 1, 2100 * NS_PER_MS) == TP_LATCH_STRANGER);
    CHECK(tp_latch_target(&latch)->port == 6000);
    for (uint16_t seq = 1; seq < 3; seq++) CHECK(hear(&latch, address(3, 6002), seq, 1, 2100 * NS_PER_MS) == TP_LATCH_STRANGER);
    CHECK(hear(&latch, address(3, 6002), 3, 1, 2100 * NS_PER_MS) == TP_LATCH_LEARNED);
    return 0;
}

static int test_any(void) {
    tp_latch latch;
    tp_latch_init(&latch, TP_SYMMETRIC_ANY, 8);
    tp_latch_expect(&latch, NULL, 0);
    CHECK(tp_latch_target(&latch) == NULL);
    CHECK(hear(&latch, address(1, 1), 1, 1, 5001 * NS_PER_MS) == TP_LATCH_STRANGER && latch.n_candidates == 0);
    CHECK(hear(&latch, address(1, 1), 1, 1, 5000 * NS_PER_MS) == TP_LATCH_STRANGER && latch.n_candidates == 1);
    CHECK(hear(&latch, address(1, 1), 2, 2, 5000 * NS_PER_MS) == TP_LATCH_STRANGER); /* another SSRC: counted from one */
    CHECK(hear(&latch, address(1, 1), 3, 2, 5000 * NS_PER_MS) == TP_LATCH_STRANGER);
    CHECK(hear(&latch, address(1, 1), 4, 2, 5000 * NS_PER_MS) == TP_LATCH_LEARNED);
    for (uint16_t seq = 0; seq < 5; seq++) CHECK(hear(&latch, address(1, 2), seq, 1, 5000 * NS_PER_MS) == TP_LATCH_STRANGER);
    tp_address remote = address(9, 9);
    tp_latch_expect(&latch, &remote, 10000 * NS_PER_MS);
    CHECK(latch.source.ip_bytes == 0 && tp_latch_target(&latch)->port == 9); /* sent to, and not yet trusted */
    CHECK(hear(&latch, remote, 1, 1, 10000 * NS_PER_MS) == TP_LATCH_STRANGER);
    return 0;
}

static int test_not_media(void) {
    tp_latch latch;
    tp_address from = address(1, 1);
    uint8_t bytes[200] = {0};
    tp_latch_init(&latch, TP_SYMMETRIC_ANY, 8);
    tp_latch_expect(&latch, NULL, 0);
    for (uint16_t seq = 0; seq < 4; seq++) {
        CHECK(tp_latch_receive(&latch, &from, bytes, packet(bytes, seq, 1, 0, 160), 0) == TP_LATCH_STRANGER);
        CHECK(tp_latch_receive(&latch, &from, bytes, packet(bytes, seq, 1, 72, 160), 0) == TP_LATCH_STRANGER);
        CHECK(tp_latch_receive(&latch, &from, bytes, packet(bytes, seq, 1, 8, 0), 0) == TP_LATCH_STRANGER);
        CHECK(tp_latch_receive(&latch, &from, bytes, seq, 0) == TP_LATCH_STRANGER);
    }
    CHECK(latch.n_candidates == 0 && latch.refused == 16);
    return 0;
}

typedef struct model {
    int64_t heard_at[N_SOURCES]; /* by count of packets; -1: not a candidate */
    uint16_t next_seq[N_SOURCES];
    int count[N_SOURCES];
} model;

/* -> whether source i has been learned by this packet */
static bool model_hear(model *m, uint32_t i, uint16_t seq, int64_t at) {
    bool follows = m->heard_at[i] >= 0 && m->next_seq[i] == seq;
    m->count[i] = follows ? m->count[i] + 1 : 1;
    m->next_seq[i] = (uint16_t)(seq + 1);
    m->heard_at[i] = at;
    int n = 0;
    uint32_t oldest = i;
    for (uint32_t k = 0; k < N_SOURCES; k++) {
        if (m->heard_at[k] < 0) continue;
        n++;
        if (m->heard_at[k] < m->heard_at[oldest]) oldest = k;
    }
    if (m->count[i] == 3) return true;
    if (n > TP_LATCH_CANDIDATES) m->heard_at[oldest] = -1;
    return false;
}

static int test_candidates(uint64_t seed) {
    state = seed * 0x9e3779b97f4a7c15u + 1;
    tp_latch latch;
    model m;
    uint16_t seqs[N_SOURCES];
    tp_latch_init(&latch, TP_SYMMETRIC_ANY, 8);
    tp_latch_expect(&latch, NULL, 0);
    for (uint32_t i = 0; i < N_SOURCES; i++) {
        m.heard_at[i] = -1;
        seqs[i] = (uint16_t)random_below(65536);
    }
    for (int64_t at = 0; at < 400; at++) {
        uint32_t i = random_below(N_SOURCES);
        if (random_below(3) == 0) seqs[i]++; /* a gap */
        uint16_t seq = seqs[i]++;
        bool learned = model_hear(&m, i, seq, at);
        CHECK(hear(&latch, address(1, (uint16_t)(100 + i)), seq, 7, at) == (learned ? TP_LATCH_LEARNED : TP_LATCH_STRANGER));
        if (learned) {
            CHECK(latch.source.port == 100 + i && latch.refused == (uint64_t)at);
            return 0;
        }
    }
    return 0;
}

int main(void) {
    if (test_no() != 0 || test_port() != 0 || test_any() != 0 || test_not_media() != 0) return 1;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        if (test_candidates(seed) != 0) {
            fprintf(stderr, "seed %u\n", (unsigned)seed);
            return 1;
        }
    }
    return 0;
}
