/* loadgen: both far ends of N simulated calls, in one process.
 *
 * What it does. It is the load of the benchmark "calls per core" and its only instrument for lateness. In mode `bridge`
 * it is, for each call, the caller (a UDP socket that sends one G.711 packet of RTP every 20 ms and receives the
 * answer) and the application (a WebSocket server that reads media messages of any length and sends one playAudio
 * message of M ms every M ms). In mode `platform` it is the platform in front of a bot: N WebSocket clients that send
 * start and media, masked, and count the playAudio messages that come back.
 *
 * How it works. One thread that wakes once a millisecond at an absolute deadline. Calls are spread over twenty phases;
 * in its phase a call's RTP is sent (t0 + n * 20 ms) and what has come for it is read. Media sockets are in no epoll and
 * nothing sleeps on them, so the system under test does not pay for waking its far end packet by packet, which behind
 * a network card it would not either. Only what must be noticed within a millisecond is in the epoll: commands, new
 * connections, and in mode `platform` the streams, whose messages have no kernel timestamp each. A tick more than 100 ms
 * late is skipped and counted, so that a generator that was the limit shows in its own report.
 * A call's lateness is taken from kernel receive timestamps (SO_TIMESTAMPNS; under TLS the moment of reading): packet
 * with RTP timestamp s arrived at a; the call's grid is its earliest a - s / 8000 in the window, lateness is what a
 * packet is later than that grid. The grid is not fitted to the mean, so a system that is always late by the same
 * amount has no lateness, and one that varies has all of it; a new SSRC begins a new grid. Payloads are fixed per call
 * and compared on arrival: work that was not done, or done to the wrong call's audio, shows as `other`.
 *
 * How to use it. Options: --mode bridge|platform --calls N --message-ms 20|40|60|80|100 --window-s S --limit-s L
 * [--connect PORT] [--quiet] [--latch] [--tls-cert FILE --tls-key FILE] (bridge) [--tls-ca FILE] (platform).
 * First line out: {"ws_port":P,"rtp_ports":[...]} (bridge) or {"connected":0}. Lines in:
 *   to PORT...         the next calls' RTP destinations on loopback; a call sends and reads from then on  (bridge)
 *   at FIRST PORT...   the same for calls FIRST and on, whether or not they had one                       (bridge)
 *   stop FIRST COUNT   these callers fall silent                                                          (bridge)
 *   connect K          opens K more connections to the application, one after the other                   (platform)
 *   begin, end         the edges of the measured window; end prints the report as one line of JSON
 *   quit, or end of input, or --limit-s seconds since the start: it stops by itself.
 * --quiet: the application sends nothing (empty playout). --latch: callers need no `to`, they answer whoever sent them
 * RTP within the last 200 ms, so that calls may come and go on a caller's port. Linux only. Loopback only.
 * Link with loadgen_batch.c, loadgen_bytes.c, loadgen_link.c.
 * Source: RFC 3550 5.1, RFC 3551, RFC 6455 1.3 and 5.2. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "loadgen_batch.h"
#include "loadgen_bytes.h"
#include "loadgen_link.h"

enum {
    PAYLOAD_BYTES = 160,
    PACKET_BYTES = 12 + PAYLOAD_BYTES,
    MAX_CALLS = 4000,
    MAX_WINDOW_S = 900,
    MAX_OFFSETS_S = 120, /* of packets a call whose lateness is kept */
    FRAME_MS = 20,
    MAX_MESSAGE_MS = 100,
    MAX_PAYLOAD_BASE64 = (MAX_MESSAGE_MS / FRAME_MS * PAYLOAD_BYTES + 2) / 3 * 4,
    IN_BYTES = 128 * 1024, /* the longest message: ten seconds of G.711 and its JSON */
    OUT_BYTES = MAX_PAYLOAD_BASE64 + 512,
    EVENTS = 512,
    DATAGRAMS = 4, /* read at once from one socket: one is the rule */
    LATCH_NS = 200000000,
    LATE_BINS = 10000, /* of 10 us: the generator's own lateness up to 100 ms */
    MAX_LATE_TICKS = 100,
    TICKS_AT_ONCE = 8 /* before reading again: one that cannot keep up must still hear */
};
static const int64_t TICK_NS = 1000000;
static const int64_t SECOND_NS = 1000000000;
static const int64_t SAMPLE_NS = 125000;

/* The audio of one direction of one call: the same 20 ms over and over; twice, so that 20 ms from any point on are one
 * stretch. */
typedef struct {
    uint8_t twice[2 * PAYLOAD_BYTES];
} pattern_t;

typedef struct {
    int fd;
    bool live, latched, has_origin;
    uint16_t seq;
    uint32_t timestamp, heard_phase, told_phase;
    struct sockaddr_in from; /* --latch */
    int64_t from_ns;
    uint32_t origin_ssrc, origin; /* SSRC and RTP timestamp of the first packet of the present grid */
    uint32_t n_offsets, grid_at;  /* offsets from grid_at on belong to the present grid */
    uint8_t packet[PACKET_BYTES]; /* the one being sent: header rewritten, payload fixed */
    int64_t *offsets;
    pattern_t says, plays; /* what the caller says, what the application plays */
} call_t;

typedef enum { PEER_FREE, PEER_UPGRADING, PEER_OPEN } peer_state;

typedef struct {
    peer_state state;
    link_t link;
    uint32_t call;
    bool started;
    uint64_t sequence, samples_in;
    uint8_t *rest; /* of a message that has not come whole; NULL when there is none */
    uint32_t rest_bytes, out_at, out_bytes;
    uint8_t out[OUT_BYTES]; /* of a frame that has not gone whole */
} peer_t;

typedef struct {
    uint64_t rtp_sent, rtp_received, rtp_matching, rtp_silence, rtp_other, rtp_send_failed;
    uint64_t messages_in, messages_matching, messages_other, messages_out, messages_stalled, control_in, samples_in;
    uint64_t protocol_errors, closed, accepted, offsets_lost, ticks_skipped;
    int64_t began_ns, cpu_ns;
} counters_t;

static struct {
    bool platform, quiet, latch, tls, measuring;
    uint32_t n_calls, n_given, n_peers, n_open, window_s, message_ms;
    uint16_t connect_port;
    const char *certificate, *key, *authority;
    int epoll, listener;
    call_t *calls;
    peer_t *peers;
    uint8_t *frames; /* bridge: each call's playAudio as it goes over the wire, frame_stride apart */
    size_t frame_bytes, frame_stride;
    uint32_t offsets_capacity;
    counters_t count;
    uint32_t late[LATE_BINS];
    uint64_t n_late, late_max_us;
    uint64_t random;
} g;

static void die(const char *what) {
    fprintf(stderr, "loadgen: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * SECOND_NS + t.tv_nsec;
}

static uint32_t random32(void) {
    g.random ^= g.random << 13;
    g.random ^= g.random >> 7;
    g.random ^= g.random << 17;
    return (uint32_t)(g.random >> 16);
}

static bool is_from(const pattern_t *pattern, uint32_t phase, const uint8_t *audio, size_t n) {
    for (size_t at = 0; at < n; at += PAYLOAD_BYTES)
        if (memcmp(pattern->twice + phase, audio + at, n - at < PAYLOAD_BYTES ? n - at : PAYLOAD_BYTES) != 0) return false;
    return true;
}

/* Whether it is this call's audio, from any point on: a system may join and cut messages as it likes. */
static bool is_audio(const pattern_t *pattern, uint32_t *phase, const uint8_t *audio, size_t n) {
    bool is = is_from(pattern, *phase, audio, n);
    if (!is) {
        const uint8_t *found = memmem(pattern->twice, sizeof pattern->twice, audio, n < PAYLOAD_BYTES ? n : PAYLOAD_BYTES);
        if (!found) return false;
        *phase = (uint32_t)(found - pattern->twice) % PAYLOAD_BYTES;
        is = is_from(pattern, *phase, audio, n);
    }
    *phase = (uint32_t)((*phase + n) % PAYLOAD_BYTES);
    return is;
}

static bool is_silence(const uint8_t *audio, size_t n) { return audio[0] == 0xff && memcmp(audio, audio + 1, n - 1) == 0; }

static uint64_t tag_of(uint32_t kind, uint32_t index) { return (uint64_t)kind << 32 | index; }
enum { TAG_STDIN, TAG_LISTENER, TAG_RTP, TAG_PEER }; /* TAG_RTP is for batches only */

static void watch(int fd, uint64_t tag, uint32_t how) {
    struct epoll_event event = {.events = EPOLLIN | how, .data.u64 = tag};
    if (epoll_ctl(g.epoll, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll_ctl");
}

/* ---- lateness ---- */

static void note_offset(call_t *call, int64_t offset) {
    if (!g.measuring) return;
    if (call->n_offsets == g.offsets_capacity)
        g.count.offsets_lost++;
    else
        call->offsets[call->n_offsets++] = offset;
}

/* From here on a packet is measured against its own kind: lateness of those before is final. */
static void close_grid(call_t *call) {
    int64_t best = INT64_MAX;
    for (uint32_t i = call->grid_at; i < call->n_offsets; i++)
        if (call->offsets[i] < best) best = call->offsets[i];
    for (; call->grid_at < call->n_offsets; call->grid_at++) call->offsets[call->grid_at] -= best;
}

/* ---- WebSocket, both roles ---- */

static void peer_close(peer_t *peer) {
    if (peer->state == PEER_FREE) return;
    if (peer->state == PEER_OPEN) g.n_open--;
    link_close(&peer->link);
    free(peer->rest);
    peer->rest = NULL;
    peer->state = PEER_FREE;
    g.count.closed++;
}

static void peer_flush(peer_t *peer) {
    while (peer->out_at < peer->out_bytes) {
        long n = link_send(&peer->link, peer->out + peer->out_at, peer->out_bytes - peer->out_at);
        if (n < 0) peer_close(peer);
        if (n <= 0) return;
        peer->out_at += (uint32_t)n;
    }
    peer->out_at = peer->out_bytes = 0;
}

/* One frame as it goes over the wire, whole or not at all: while the tail of the last one waits, the next is dropped and
 * counted. */
static bool peer_can_send(peer_t *peer, size_t n) {
    if (peer->out_bytes) peer_flush(peer);
    if (peer->state == PEER_FREE) return false;
    if (!peer->out_bytes && n <= OUT_BYTES) return true;
    g.count.messages_stalled++;
    return false;
}

/* Keep the tail of a frame of which so much was taken. */
static bool peer_sent(peer_t *peer, const uint8_t *frame, size_t n, long taken) {
    if (taken == -EAGAIN || taken == -EINTR) taken = 0;
    if (taken < 0) {
        peer_close(peer);
        return false;
    }
    if ((size_t)taken < n) {
        peer->out_bytes = (uint32_t)(n - (size_t)taken);
        memcpy(peer->out, frame + taken, peer->out_bytes);
    }
    return true;
}

static bool peer_send_frame(peer_t *peer, const uint8_t *frame, size_t n) {
    return peer_can_send(peer, n) && peer_sent(peer, frame, n, link_send(&peer->link, frame, n));
}

/* -> the length of the whole frame, whose payload begins at frame + *payload_at and is not masked yet. */
static size_t frame_header(uint8_t *frame, uint8_t opcode, size_t n, size_t *payload_at) {
    uint8_t masked = g.platform ? 0x80 : 0;
    size_t at = 2;
    frame[0] = (uint8_t)(0x80 | opcode);
    if (n < 126) {
        frame[1] = (uint8_t)(masked | n);
    } else {
        frame[1] = masked | 126;
        put16(frame + 2, (uint32_t)n);
        at = 4;
    }
    if (masked) {
        put32(frame + at, random32());
        at += 4;
    }
    *payload_at = at;
    return at + n;
}

static bool peer_send(peer_t *peer, uint8_t opcode, const void *payload, size_t n) {
    uint8_t frame[OUT_BYTES];
    size_t at;
    if (n > OUT_BYTES - 8) n = OUT_BYTES - 8; /* a ping's payload has at most 125 bytes; ours fit */
    size_t total = frame_header(frame, opcode, n, &at);
    memcpy(frame + at, payload, n);
    if (g.platform) unmask(frame + at, n, frame + at - 4);
    return peer_send_frame(peer, frame, total);
}

/* Cheap structure: an object that names its event and carries a payload between quotes. */
static void peer_message(peer_t *peer, const uint8_t *text, size_t n, int64_t at_ns) {
    static uint8_t audio[IN_BYTES];
    const char *event = g.platform ? "\"playAudio\"" : "\"media\"";
    if (n < 2 || text[0] != '{' || text[n - 1] != '}' || !memmem(text, n, event, strlen(event))) {
        g.count.control_in++;
        peer->started = true;
        return;
    }
    g.count.messages_in++;
    const uint8_t *end = text + n;
    const uint8_t *at = memmem(text, n, "\"payload\"", 9);
    if (at) at = memchr(at + 9, '"', (size_t)(end - at) - 9);
    const uint8_t *close_quote = at ? memchr(at + 1, '"', (size_t)(end - at) - 1) : NULL;
    size_t samples = close_quote ? unbase64(audio, at + 1, (size_t)(close_quote - at) - 1) : SIZE_MAX;
    if (samples == SIZE_MAX || samples == 0) {
        g.count.messages_other++;
        return;
    }
    call_t *call = &g.calls[peer->call];
    if (is_audio(&call->says, &call->told_phase, audio, samples))
        g.count.messages_matching++;
    else
        g.count.messages_other++;
    g.count.samples_in += samples;
    if (g.platform) note_offset(call, at_ns - (int64_t)peer->samples_in * SAMPLE_NS);
    peer->samples_in += samples;
}

/* -> bytes used; what is left is a piece of a frame. The peer may be closed after it. */
static size_t peer_frames(peer_t *peer, uint8_t *in, size_t n_in, int64_t at_ns) {
    size_t at = 0;
    while (peer->state == PEER_OPEN && n_in - at >= 2) {
        uint8_t *p = in + at;
        size_t have = n_in - at, header = 2;
        bool masked = p[1] & 0x80;
        size_t n = p[1] & 0x7f;
        if (n == 126) {
            if (have < 4) break;
            n = (size_t)p[2] << 8 | p[3];
            header = 4;
        } else if (n == 127) {
            if (have < 10) break;
            n = get32(p + 2) ? SIZE_MAX / 2 : get32(p + 6);
            header = 10;
        }
        if (masked == g.platform || (p[0] & 0x70) || n > IN_BYTES - 14) {
            g.count.protocol_errors++;
            peer_close(peer);
            break;
        }
        if (masked) header += 4;
        if (have < header + n) break;
        uint8_t *text = p + header;
        if (masked) unmask(text, n, text - 4);
        uint8_t opcode = p[0] & 0x0f;
        if (opcode == 1 && p[0] & 0x80)
            peer_message(peer, text, n, at_ns);
        else if (opcode == 9)
            peer_send(peer, 10, text, n);
        else if (opcode == 8) {
            peer_send(peer, 8, text, n);
            peer_close(peer);
        } else
            g.count.control_in++;
        at += header + n;
    }
    return at;
}

/* The request line is GET /<call>; every other header but the key is of no interest here. -> bytes used. */
static size_t peer_upgrade(peer_t *peer, uint8_t *in, size_t n_in) {
    char *end = memmem(in, n_in, "\r\n\r\n", 4);
    if (!end) return 0;
    *end = 0;
    char *text = (char *)in;
    char *path = strchr(text, '/');
    char *key = strcasestr(text, "\r\nsec-websocket-key:");
    char joined[128], accept[32], answer[256];
    unsigned long call = path ? strtoul(path + 1, NULL, 10) : MAX_CALLS;
    if (!key || call >= g.n_calls) {
        g.count.protocol_errors++;
        peer_close(peer);
        return n_in;
    }
    key += 20;
    key += strspn(key, " \t");
    size_t n = strcspn(key, " \t\r");
    if (n > 64) n = 64;
    int joined_bytes = snprintf(joined, sizeof joined, "%.*s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", (int)n, key);
    uint8_t digest[20];
    sha1(digest, (const uint8_t *)joined, (size_t)joined_bytes);
    accept[base64(accept, digest, sizeof digest)] = 0;
    int answer_bytes = snprintf(answer, sizeof answer,
                                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                "Sec-WebSocket-Accept: %s\r\n\r\n",
                                accept);
    if (link_send(&peer->link, answer, (size_t)answer_bytes) != answer_bytes) {
        peer_close(peer);
        return n_in;
    }
    peer->call = (uint32_t)call;
    peer->state = PEER_OPEN;
    g.n_open++;
    g.count.accepted++;
    if (epoll_ctl(g.epoll, EPOLL_CTL_DEL, peer->link.fd, NULL) < 0) die("epoll_ctl"); /* from now on read in its phase */
    return (size_t)(end + 4 - text);
}

/* Reads into one buffer for all, which stays in the cache; only the beginning of a frame that is not whole is kept. */
static void peer_readable(peer_t *peer) {
    static uint8_t in[IN_BYTES];
    while (peer->state != PEER_FREE) {
        size_t have = peer->rest_bytes, used = 0;
        int64_t at_ns = 0;
        if (have) memcpy(in, peer->rest, have);
        long n = link_receive(&peer->link, in + have, IN_BYTES - have, &at_ns);
        if (n < 0) peer_close(peer);
        if (n <= 0) return;
        if (g.platform && !at_ns) at_ns = now_ns(CLOCK_REALTIME);
        have += (size_t)n;
        if (peer->state == PEER_UPGRADING) used = peer_upgrade(peer, in, have);
        if (peer->state == PEER_OPEN) used += peer_frames(peer, in + used, have - used, at_ns);
        if (peer->state == PEER_FREE) return;
        peer->rest_bytes = (uint32_t)(have - used);
        if (peer->rest_bytes == IN_BYTES) { /* an upgrade that never ends */
            g.count.protocol_errors++;
            peer_close(peer);
            return;
        }
        if (peer->rest_bytes) {
            uint8_t *rest = realloc(peer->rest, peer->rest_bytes);
            if (!rest) die("memory");
            peer->rest = memcpy(rest, in + used, peer->rest_bytes);
        }
        /* A plain read that was short has emptied the socket; OpenSSL says itself when it has nothing more. */
        if (!g.tls && have < IN_BYTES) return;
    }
}

static peer_t *peer_add(int fd, peer_state state) {
    uint32_t index = 0; /* a place left by one that went, for a system that tries again; else a new one */
    while (index < g.n_peers && g.peers[index].state != PEER_FREE) index++;
    peer_t *peer = &g.peers[index];
    link_t link;
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (g.platform && setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof one) < 0) die("SO_TIMESTAMPNS");
    if (index == g.n_calls || !link_open(&link, fd)) {
        close(fd);
        return NULL;
    }
    if (index == g.n_peers) g.n_peers++;
    *peer = (peer_t){.state = state, .link = link};
    watch(fd, tag_of(TAG_PEER, index), EPOLLET);
    return peer;
}

static void listener_readable(void) {
    for (;;) {
        int fd = accept4(g.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return;
        peer_add(fd, PEER_UPGRADING);
    }
}

/* One byte of the answer, on a descriptor that does not block by itself: waits at most ten seconds. */
static long receive_patiently(link_t *link, char *to) {
    int64_t ignored, deadline = now_ns(CLOCK_MONOTONIC) + 10 * SECOND_NS;
    long n;
    while ((n = link_receive(link, to, 1, &ignored)) == 0 && now_ns(CLOCK_MONOTONIC) < deadline) {
        struct pollfd wait = {.fd = link->fd, .events = POLLIN};
        poll(&wait, 1, 10);
    }
    return n;
}

/* Blocking, one after the other: set-up is not what is measured. */
static void connect_one(void) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(g.connect_port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct timeval patience = {.tv_sec = 10};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) < 0) die("connect");
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    uint32_t call = g.n_peers;
    peer_t *peer = peer_add(fd, PEER_UPGRADING);
    if (!peer) exit(1);
    char text[1024];
    int n = snprintf(text, sizeof text,
                     "GET / HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     "Sec-WebSocket-Key: dGFsa3BhdGggbG9hZGdlbg==\r\nSec-WebSocket-Version: 13\r\n\r\n",
                     (unsigned)g.connect_port);
    if (link_send(&peer->link, text, (size_t)n) != n) die("upgrade");
    size_t used = 0;
    while (used < 4 || memcmp(text + used - 4, "\r\n\r\n", 4) != 0) {
        if (used == sizeof text - 1 || receive_patiently(&peer->link, text + used) != 1) die("upgrade answer");
        used++;
    }
    text[used] = 0;
    if (strncmp(text, "HTTP/1.1 101", 12) != 0) {
        fprintf(stderr, "loadgen: upgrade refused: %.40s\n", text);
        exit(1);
    }
    fcntl(fd, F_SETFL, O_NONBLOCK);
    peer->state = PEER_OPEN;
    peer->call = call;
    peer->sequence = 1;
    peer->started = true;
    g.n_open++;
    n = snprintf(text, sizeof text,
                 "{\"event\":\"start\",\"sequenceNumber\":1,\"start\":{\"callId\":\"00000000-0000-4000-8000-%012u\","
                 "\"streamId\":\"00000000-0000-4000-9000-%012u\",\"accountId\":\"MABENCH\",\"tracks\":[\"inbound\"],"
                 "\"mediaFormat\":{\"encoding\":\"audio/x-mulaw\",\"sampleRate\":8000}},\"extra_headers\":\"{}\"}",
                 call, call);
    peer_send(peer, 1, text, (size_t)n);
    peer_readable(peer); /* what came with the answer has had its edge */
}

/* ---- RTP ---- */

static void repeat(uint8_t *out, const pattern_t *pattern, size_t n) {
    for (size_t i = 0; i < n; i++) out[i] = pattern->twice[i % PAYLOAD_BYTES];
}

/* -> characters written: the base64 of one message's audio, no terminator. */
static size_t message_payload(char *out, const pattern_t *pattern) {
    uint8_t audio[MAX_MESSAGE_MS / FRAME_MS * PAYLOAD_BYTES];
    size_t n = g.message_ms / FRAME_MS * PAYLOAD_BYTES;
    repeat(audio, pattern, n);
    return base64(out, audio, n);
}

static void make_frame(uint8_t *frame, const call_t *call) {
    char text[OUT_BYTES], payload[MAX_PAYLOAD_BASE64];
    size_t at, payload_n = message_payload(payload, &call->plays);
    int n = snprintf(text, sizeof text,
                     "{\"event\":\"playAudio\",\"media\":{\"contentType\":\"audio/x-mulaw\",\"sampleRate\":8000,"
                     "\"payload\":\"%.*s\"}}",
                     (int)payload_n, payload);
    g.frame_bytes = frame_header(frame, 1, (size_t)n, &at);
    memcpy(frame + at, text, (size_t)n);
}

static void call_open(call_t *call, uint32_t index) {
    for (size_t i = 0; i < 2 * PAYLOAD_BYTES; i++) {
        uint8_t octet = (uint8_t)random32();
        if (octet == 0x7f) octet = 0x7e; /* negative zero: transcoding folds it into 0xff */
        (i < PAYLOAD_BYTES ? call->says.twice : call->plays.twice)[i % PAYLOAD_BYTES] = octet;
    }
    memcpy(call->says.twice + PAYLOAD_BYTES, call->says.twice, PAYLOAD_BYTES);
    memcpy(call->plays.twice + PAYLOAD_BYTES, call->plays.twice, PAYLOAD_BYTES);
    call->seq = (uint16_t)random32();
    call->timestamp = random32();
    call->packet[0] = 0x80;
    put32(call->packet + 8, random32());
    memcpy(call->packet + 12, call->says.twice, PAYLOAD_BYTES);
    call->offsets = calloc(g.offsets_capacity, sizeof *call->offsets);
    if (!call->offsets) die("memory");
    if (g.platform) return;
    make_frame(g.frames + index * g.frame_stride, call);
    struct sockaddr_in at = {.sin_family = AF_INET};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int one = 1;
    call->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (call->fd < 0 || bind(call->fd, (struct sockaddr *)&at, sizeof at) < 0) die("UDP socket");
    if (setsockopt(call->fd, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof one) < 0) die("SO_TIMESTAMPNS");
}

static void call_to(uint32_t index, unsigned long port) {
    if (g.platform || index >= g.n_calls || port == 0 || port > 65535) return;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    call_t *call = &g.calls[index];
    if (connect(call->fd, (struct sockaddr *)&to, sizeof to) < 0) die("connect RTP");
    call->live = true;
    if (index >= g.n_given) g.n_given = index + 1;
}

static void call_packet(call_t *call, const uint8_t *packet, size_t n, struct msghdr *header) {
    g.count.rtp_received++;
    if (n != PACKET_BYTES || packet[0] != 0x80) {
        g.count.rtp_other++;
        return;
    }
    if (is_silence(packet + 12, PAYLOAD_BYTES))
        g.count.rtp_silence++;
    else if (is_audio(&call->plays, &call->heard_phase, packet + 12, PAYLOAD_BYTES))
        g.count.rtp_matching++;
    else
        g.count.rtp_other++;
    struct cmsghdr *c = CMSG_FIRSTHDR(header);
    if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_TIMESTAMPNS) return;
    struct timespec at;
    memcpy(&at, CMSG_DATA(c), sizeof at);
    uint32_t timestamp = get32(packet + 4), ssrc = get32(packet + 8);
    if (!call->has_origin || call->origin_ssrc != ssrc) {
        close_grid(call);
        call->has_origin = true;
        call->origin_ssrc = ssrc;
        call->origin = timestamp;
    }
    int64_t samples = (int64_t)(int32_t)(timestamp - call->origin);
    note_offset(call, (int64_t)at.tv_sec * SECOND_NS + at.tv_nsec - samples * SAMPLE_NS);
}

static void call_readable(call_t *call) {
    static uint8_t packets[DATAGRAMS][1500];
    static union {
        char bytes[CMSG_SPACE(sizeof(struct timespec))];
        struct cmsghdr align;
    } control[DATAGRAMS];
    static struct iovec parts[DATAGRAMS];
    static struct sockaddr_in from[DATAGRAMS];
    struct mmsghdr messages[DATAGRAMS];
    int n;
    do {
        for (size_t i = 0; i < DATAGRAMS; i++) {
            parts[i] = (struct iovec){.iov_base = packets[i], .iov_len = sizeof packets[i]};
            messages[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i],
                                                  .msg_iovlen = 1,
                                                  .msg_control = control[i].bytes,
                                                  .msg_controllen = sizeof control[i].bytes,
                                                  .msg_name = g.latch ? &from[i] : NULL,
                                                  .msg_namelen = g.latch ? sizeof from[i] : 0};
        }
        n = recvmmsg(call->fd, messages, DATAGRAMS, MSG_DONTWAIT, NULL);
        for (int i = 0; i < n; i++) call_packet(call, packets[i], messages[i].msg_len, &messages[i].msg_hdr);
        if (g.latch && n > 0) {
            call->from = from[n - 1];
            call->from_ns = now_ns(CLOCK_MONOTONIC);
        }
    } while (n == DATAGRAMS);
}

/* ---- the clock ---- */

static void was_sent(uint64_t tag, long result) {
    uint32_t index = (uint32_t)tag;
    if (tag >> 32 == TAG_RTP) {
        if (result == PACKET_BYTES)
            g.count.rtp_sent++;
        else
            g.count.rtp_send_failed++;
    } else if (peer_sent(&g.peers[index], g.frames + g.peers[index].call * g.frame_stride, g.frame_bytes, result)) {
        g.count.messages_out++;
    }
}

static void batch(int fd, const uint8_t *bytes, size_t n, uint64_t tag) {
    if (batch_is_full()) batch_run(was_sent);
    batch_add(fd, bytes, n, tag);
}

static void send_rtp(uint32_t index, int64_t now) {
    call_t *call = &g.calls[index];
    if (g.latch ? now - call->from_ns > LATCH_NS || !call->from_ns : !call->live) return;
    put16(call->packet + 2, call->seq++);
    put32(call->packet + 4, call->timestamp);
    call->timestamp += PAYLOAD_BYTES;
    if (g.latch)
        was_sent(tag_of(TAG_RTP, index), sendto(call->fd, call->packet, PACKET_BYTES, MSG_DONTWAIT | MSG_NOSIGNAL,
                                                (struct sockaddr *)&call->from, sizeof call->from));
    else
        batch(call->fd, call->packet, PACKET_BYTES, tag_of(TAG_RTP, index));
}

static bool send_media(peer_t *peer) {
    const call_t *call = &g.calls[peer->call];
    uint64_t chunk = peer->sequence++;
    char text[OUT_BYTES];
    int n = snprintf(text, sizeof text,
                     "{\"event\":\"media\",\"sequenceNumber\":%llu,\"streamId\":\"00000000-0000-4000-9000-%012u\",\"media\":"
                     "{\"track\":\"inbound\",\"timestamp\":\"%llu\",\"chunk\":%llu,\"payload\":\"",
                     (unsigned long long)chunk + 1, peer->call, (unsigned long long)chunk * g.message_ms,
                     (unsigned long long)chunk);
    static const char tail[] = "\"},\"extra_headers\":\"{}\"}";
    size_t at = (size_t)n + message_payload(text + n, &call->says);
    memcpy(text + at, tail, sizeof tail - 1);
    return peer_send(peer, 1, text, at + sizeof tail - 1);
}

/* A frame that is the same every time goes with the batch; one that is made for the occasion, or encrypted, by itself. */
static void send_audio(uint32_t index) {
    peer_t *peer = &g.peers[index];
    if (peer->state != PEER_OPEN || !peer->started) return;
    const uint8_t *frame = g.frames + peer->call * g.frame_stride;
    if (g.platform ? send_media(peer) : g.tls && peer_send_frame(peer, frame, g.frame_bytes))
        g.count.messages_out++;
    else if (!g.platform && !g.tls && peer_can_send(peer, g.frame_bytes))
        batch(peer->link.fd, frame, g.frame_bytes, tag_of(TAG_PEER, index));
}

static void tick(uint64_t number) {
    int64_t now = now_ns(CLOCK_MONOTONIC);
    uint32_t n_callers = g.latch ? g.n_calls : g.n_given;
    uint32_t phase = (uint32_t)(number % FRAME_MS);
    for (uint32_t i = phase; i < n_callers; i += FRAME_MS) send_rtp(i, now);
    /* Half a message away from the same call's RTP. */
    uint32_t first = (uint32_t)((number + g.message_ms / 2) % g.message_ms);
    for (uint32_t i = first; !g.quiet && i < g.n_peers; i += g.message_ms) send_audio(i);
    batch_run(was_sent);
    for (uint32_t i = phase; i < n_callers; i += FRAME_MS) call_readable(&g.calls[i]);
    for (uint32_t i = phase; !g.platform && i < g.n_peers; i += FRAME_MS)
        if (g.peers[i].state == PEER_OPEN) peer_readable(&g.peers[i]);
}

static void note_late(int64_t late_ns) {
    if (!g.measuring) return;
    uint64_t late_us = late_ns > 0 ? (uint64_t)late_ns / 1000 : 0;
    g.late[late_us / 10 < LATE_BINS ? late_us / 10 : LATE_BINS - 1]++;
    g.n_late++;
    if (late_us > g.late_max_us) g.late_max_us = late_us;
}

/* ---- the report ---- */

static void begin(void) {
    memset(&g.count, 0, sizeof g.count);
    memset(g.late, 0, sizeof g.late);
    g.n_late = g.late_max_us = 0;
    for (uint32_t i = 0; i < g.n_calls; i++) g.calls[i].n_offsets = g.calls[i].grid_at = 0;
    g.count.began_ns = now_ns(CLOCK_MONOTONIC);
    g.count.cpu_ns = now_ns(CLOCK_PROCESS_CPUTIME_ID);
    g.measuring = true;
}

static int compare(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static double late_us_at(double share) {
    uint64_t want = (uint64_t)(share * (double)g.n_late), seen = 0;
    for (uint32_t i = 0; i < LATE_BINS; i++) {
        seen += g.late[i];
        if (seen > want) return 10.0 * i;
    }
    return (double)g.late_max_us;
}

static void end(void) {
    double seconds = (double)(now_ns(CLOCK_MONOTONIC) - g.count.began_ns) / 1e9;
    double cpu = (double)(now_ns(CLOCK_PROCESS_CPUTIME_ID) - g.count.cpu_ns) / 1e9;
    g.measuring = false;
    size_t n = 0, capacity = 1;
    uint32_t n_live = 0, n_unheard = 0;
    for (uint32_t i = 0; i < g.n_calls; i++) capacity += g.calls[i].n_offsets;
    int64_t *late = calloc(capacity, sizeof *late);
    if (!late) die("memory");
    for (uint32_t i = 0; i < g.n_calls; i++) {
        call_t *call = &g.calls[i];
        close_grid(call);
        memcpy(late + n, call->offsets, call->n_offsets * sizeof *late);
        n += call->n_offsets;
        n_live += call->live;
        n_unheard += call->live && !call->n_offsets;
    }
    qsort(late, n, sizeof *late, compare);
    const counters_t *c = &g.count;
    printf("{\"seconds\":%.6f,\"calls\":%u,\"unheard\":%u,\"connections\":%u,", seconds, n_live, n_unheard, g.n_open);
    printf("\"rtp\":{\"sent\":%llu,\"send_failed\":%llu,\"received\":%llu,\"matching\":%llu,\"silence\":%llu,\"other\":%llu},",
           (unsigned long long)c->rtp_sent, (unsigned long long)c->rtp_send_failed, (unsigned long long)c->rtp_received,
           (unsigned long long)c->rtp_matching, (unsigned long long)c->rtp_silence, (unsigned long long)c->rtp_other);
    printf("\"messages\":{\"ms\":%u,\"sent\":%llu,\"stalled\":%llu,\"received\":%llu,\"matching\":%llu,\"other\":%llu,"
           "\"audio_s\":%.3f,\"control\":%llu,\"protocol_errors\":%llu,\"accepted\":%llu,\"closed\":%llu},",
           g.message_ms, (unsigned long long)c->messages_out, (unsigned long long)c->messages_stalled,
           (unsigned long long)c->messages_in, (unsigned long long)c->messages_matching,
           (unsigned long long)c->messages_other, (double)c->samples_in / 8000.0, (unsigned long long)c->control_in,
           (unsigned long long)c->protocol_errors, (unsigned long long)c->accepted, (unsigned long long)c->closed);
    double at[4] = {0};
    static const double shares[3] = {0.5, 0.99, 0.999};
    for (size_t i = 0; n && i < 3; i++) at[i] = (double)late[(size_t)(shares[i] * (double)(n - 1))] / 1e6;
    if (n) at[3] = (double)late[n - 1] / 1e6;
    printf("\"lateness_ms\":{\"n\":%zu,\"p50\":%.4f,\"p99\":%.4f,\"p999\":%.4f,\"max\":%.4f,\"lost\":%llu},", n, at[0], at[1],
           at[2], at[3], (unsigned long long)c->offsets_lost);
    printf("\"generator\":{\"cpu_s\":%.6f,\"load\":%.4f,\"tick_late_ms\":{\"p50\":%.3f,\"p99\":%.3f,\"max\":%.3f},"
           "\"ticks_skipped\":%llu}}\n",
           cpu, cpu / seconds, late_us_at(0.5) / 1e3, late_us_at(0.99) / 1e3, (double)g.late_max_us / 1e3,
           (unsigned long long)c->ticks_skipped);
    fflush(stdout);
    free(late);
}

static uint32_t next_number(char **rest) {
    char *text = strtok_r(NULL, " \r", rest);
    return text ? (uint32_t)strtoul(text, NULL, 10) : 0;
}

static bool obey(char *line) {
    char *rest = NULL;
    char *verb = strtok_r(line, " \r", &rest);
    if (!verb) return true;
    if (strcmp(verb, "quit") == 0) return false;
    if (strcmp(verb, "begin") == 0) {
        begin();
    } else if (strcmp(verb, "end") == 0) {
        end();
    } else if (strcmp(verb, "to") == 0) {
        for (char *port; (port = strtok_r(NULL, " \r", &rest));) call_to(g.n_given, strtoul(port, NULL, 10));
    } else if (strcmp(verb, "at") == 0) {
        uint32_t call = next_number(&rest);
        for (char *port; (port = strtok_r(NULL, " \r", &rest));) call_to(call++, strtoul(port, NULL, 10));
    } else if (strcmp(verb, "stop") == 0) {
        uint32_t call = next_number(&rest);
        for (uint32_t count = next_number(&rest); count && call < g.n_calls; count--) g.calls[call++].live = false;
    } else if (strcmp(verb, "connect") == 0) {
        for (uint32_t count = next_number(&rest); count; count--) connect_one();
        printf("{\"connected\":%u}\n", g.n_peers);
        fflush(stdout);
    } else {
        fprintf(stderr, "loadgen: unknown command %s\n", verb);
    }
    return true;
}

static void options(int argc, char **argv) {
    g.n_calls = 1;
    g.window_s = 10;
    g.message_ms = FRAME_MS;
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(name, "--quiet") == 0) {
            g.quiet = true;
            continue;
        }
        if (strcmp(name, "--latch") == 0) {
            g.latch = true;
            continue;
        }
        if (strcmp(name, "--mode") == 0)
            g.platform = strcmp(value, "platform") == 0;
        else if (strcmp(name, "--calls") == 0)
            g.n_calls = (uint32_t)strtoul(value, NULL, 10);
        else if (strcmp(name, "--message-ms") == 0)
            g.message_ms = (uint32_t)strtoul(value, NULL, 10);
        else if (strcmp(name, "--window-s") == 0)
            g.window_s = (uint32_t)strtoul(value, NULL, 10);
        else if (strcmp(name, "--connect") == 0)
            g.connect_port = (uint16_t)strtoul(value, NULL, 10);
        else if (strcmp(name, "--tls-cert") == 0)
            g.certificate = value;
        else if (strcmp(name, "--tls-key") == 0)
            g.key = value;
        else if (strcmp(name, "--tls-ca") == 0)
            g.authority = value;
        else if (strcmp(name, "--limit-s") == 0)
            alarm((unsigned)strtoul(value, NULL, 10)); /* SIGALRM ends it, whatever it is doing */
        else {
            fprintf(stderr, "loadgen: unknown option %s\n", name);
            exit(2);
        }
        i++;
    }
    if (g.n_calls == 0 || g.n_calls > MAX_CALLS || g.window_s == 0 || g.window_s > MAX_WINDOW_S || g.message_ms == 0 ||
        g.message_ms > MAX_MESSAGE_MS || g.message_ms % FRAME_MS) {
        fprintf(stderr, "loadgen: --calls 1..%d, --window-s 1..%d, --message-ms 20..%d by 20\n", MAX_CALLS, MAX_WINDOW_S,
                MAX_MESSAGE_MS);
        exit(2);
    }
    if (g.certificate ? g.platform || !g.key : g.authority && !g.platform) {
        fprintf(stderr, "loadgen: --tls-cert with --tls-key is for bridge, --tls-ca for platform\n");
        exit(2);
    }
    g.tls = g.certificate || g.authority;
    if (g.certificate && !link_use_certificate(g.certificate, g.key)) exit(1);
    if (g.authority && !link_trust(g.authority)) exit(1);
}

static void open_all(void) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);
    batch_open();
    prctl(PR_SET_TIMERSLACK, 1L); /* the default of 50 us would be in every tick */
    g.random = 0x9e3779b97f4a7c15u;
    g.offsets_capacity = (g.window_s < MAX_OFFSETS_S ? g.window_s : MAX_OFFSETS_S) * 60;
    g.frame_stride = OUT_BYTES;
    g.calls = calloc(g.n_calls, sizeof *g.calls);
    g.peers = calloc(g.n_calls + 1, sizeof *g.peers);
    g.frames = calloc(g.n_calls, g.frame_stride);
    g.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!g.calls || !g.peers || !g.frames || g.epoll < 0) die("set-up");
    for (uint32_t i = 0; i < g.n_calls; i++) call_open(&g.calls[i], i);
    watch(STDIN_FILENO, tag_of(TAG_STDIN, 0), 0);
    if (g.platform) {
        printf("{\"connected\":0}\n");
        fflush(stdout);
        return;
    }
    struct sockaddr_in at = {.sin_family = AF_INET};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof at;
    g.listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (g.listener < 0 || bind(g.listener, (struct sockaddr *)&at, sizeof at) < 0 || listen(g.listener, 1024) < 0) die("listen");
    watch(g.listener, tag_of(TAG_LISTENER, 0), EPOLLET);
    getsockname(g.listener, (struct sockaddr *)&at, &size);
    printf("{\"ws_port\":%u,\"rtp_ports\":[", (unsigned)ntohs(at.sin_port));
    for (uint32_t i = 0; i < g.n_calls; i++) {
        size = sizeof at;
        getsockname(g.calls[i].fd, (struct sockaddr *)&at, &size);
        printf("%s%u", i ? "," : "", (unsigned)ntohs(at.sin_port));
    }
    printf("]}\n");
    fflush(stdout);
}

/* -> false: end of input or `quit`. */
static bool stdin_readable(void) {
    static char buffer[65536];
    static size_t used;
    ssize_t n = read(STDIN_FILENO, buffer + used, sizeof buffer - 1 - used);
    if (n <= 0) return n < 0 && errno == EINTR;
    used += (size_t)n;
    char *at = buffer;
    for (char *newline; (newline = memchr(at, '\n', used - (size_t)(at - buffer))); at = newline + 1) {
        *newline = 0;
        if (!obey(at)) return false;
    }
    used -= (size_t)(at - buffer);
    memmove(buffer, at, used);
    return used < sizeof buffer - 1;
}

/* -> events that were waiting; -1: end of input or `quit`. */
static int read_what_came(void) {
    static struct epoll_event events[EVENTS];
    int n = epoll_wait(g.epoll, events, EVENTS, 0);
    if (n < 0 && errno != EINTR) die("epoll_wait");
    for (int i = 0; i < n; i++) {
        uint32_t index = (uint32_t)events[i].data.u64;
        switch (events[i].data.u64 >> 32) {
        case TAG_STDIN:
            if (!stdin_readable()) return -1;
            break;
        case TAG_LISTENER:
            listener_readable();
            break;
        default:
            peer_readable(&g.peers[index]);
        }
    }
    return n;
}

int main(int argc, char **argv) {
    options(argc, argv);
    open_all();
    int64_t t0 = now_ns(CLOCK_MONOTONIC) + 10 * TICK_NS;
    uint64_t ticks = 0;
    int n_read = 0;
    while (n_read >= 0) {
        if (n_read < EVENTS) {
            int64_t due = t0 + (int64_t)ticks * TICK_NS;
            struct timespec at = {.tv_sec = due / SECOND_NS, .tv_nsec = due % SECOND_NS};
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
        }
        for (int at_once = 0; at_once < TICKS_AT_ONCE; at_once++) {
            int64_t late = now_ns(CLOCK_MONOTONIC) - (t0 + (int64_t)ticks * TICK_NS);
            if (late < 0) break;
            note_late(late);
            if (late > MAX_LATE_TICKS * TICK_NS)
                g.count.ticks_skipped++;
            else
                tick(ticks);
            ticks++;
        }
        n_read = read_what_came();
    }
    return 0;
}
