/* loadgen: both far ends of N simulated calls, in one process.
 *
 * What it does. It is the load of the benchmark "calls per core" and its only instrument for lateness. In mode `bridge`
 * it is, for each call, the caller (a UDP socket that sends one G.711 packet of RTP every 20 ms and receives the
 * answer) and the application (a WebSocket server that reads media messages and sends one playAudio message of 20 ms
 * every 20 ms). In mode `platform` it is the platform in front of a bot: N WebSocket clients that send start and media,
 * masked, and count the playAudio messages that come back.
 *
 * How it works. One thread, one epoll, one timerfd of 1 ms. Everything is sent at absolute deadlines t0 + n * 20 ms with
 * the calls spread over twenty phases; a tick more than 100 ms late is skipped and counted, so that a generator that was
 * the limit shows in its own report. A call's lateness is taken from kernel receive timestamps (SO_TIMESTAMPNS): packet
 * with RTP timestamp s arrived at a; the call's grid is its earliest a - s / 8000 in the window, lateness is what a
 * packet is later than that grid. The grid is not fitted to the mean, so a system that is always late by the same
 * amount has no lateness, and one that varies has all of it. Payloads are fixed per call and compared on arrival: work
 * that was not done, or done to the wrong call's audio, shows as `other`.
 *
 * How to use it. Options: --mode bridge|platform --calls N --window-s S --limit-s L [--connect PORT] [--quiet].
 * First line out: {"ws_port":P,"rtp_ports":[...]} (bridge) or {"connected":0}. Lines in:
 *   to PORT...   the next calls' RTP destinations on loopback; a call sends from when it has one    (bridge)
 *   connect K    opens K more connections to the application, one after the other                   (platform)
 *   begin, end   the edges of the measured window; end prints the report as one line of JSON
 *   quit, or end of input, or --limit-s seconds since the start: it stops by itself.
 * --quiet: the application sends nothing (empty playout). Linux only. Loopback only.
 * Source: RFC 3550 5.1, RFC 3551, RFC 4648, RFC 6455 1.3 and 5.2, FIPS 180-4 (SHA-1, for the upgrade alone). */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum {
    PAYLOAD_BYTES = 160,
    BASE64_BYTES = 216,
    PACKET_BYTES = 12 + PAYLOAD_BYTES,
    MAX_CALLS = 4000,
    MAX_WINDOW_S = 120,
    PHASES = 20,
    IN_BYTES = 8192,
    OUT_BYTES = 1024,
    LATE_BINS = 10000, /* of 10 us: the generator's own lateness up to 100 ms */
    MAX_LATE_TICKS = 100
};
static const int64_t TICK_NS = 1000000;
static const int64_t SECOND_NS = 1000000000;
static const int64_t SAMPLE_NS = 125000;

typedef enum { PEER_FREE, PEER_UPGRADING, PEER_OPEN } peer_state;

typedef struct {
    int fd;
    bool live;
    uint16_t seq;
    uint8_t packet[PACKET_BYTES];          /* what the caller says: header rewritten, payload fixed */
    char said[BASE64_BYTES];               /* the same as the application reads it */
    uint8_t played[PAYLOAD_BYTES];         /* what the application plays */
    char plays[BASE64_BYTES];              /* the same as it is written in a message */
    uint32_t timestamp;
    bool has_origin;
    uint32_t origin; /* RTP timestamp of the first packet that came back */
    int64_t *offsets;
    uint32_t n_offsets;
} call_t;

typedef struct {
    peer_state state;
    int fd;
    uint32_t call;
    bool started;
    uint64_t sequence, samples_in;
    uint32_t n_in, out_at, out_bytes;
    uint8_t in[IN_BYTES];
    uint8_t out[OUT_BYTES];
} peer_t;

typedef struct {
    uint64_t rtp_sent, rtp_received, rtp_matching, rtp_silence, rtp_other, rtp_send_failed;
    uint64_t messages_in, messages_matching, messages_other, messages_out, messages_stalled, control_in;
    uint64_t samples_in, protocol_errors, closed, offsets_lost, ticks_skipped;
    int64_t began_ns, cpu_ns;
} counters_t;

static struct {
    bool platform, quiet, measuring;
    uint32_t n_calls, n_live, n_peers, n_open, window_s;
    uint16_t connect_port;
    int epoll, listener;
    call_t *calls;
    peer_t *peers;
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

static void put16(uint8_t *p, uint32_t v) {
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v) {
    put16(p, v >> 16);
    put16(p + 2, v);
}

static uint32_t get32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | (uint32_t)p[3];
}

static size_t base64(char *out, const uint8_t *in, size_t n) {
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

static uint32_t rotate(uint32_t x, unsigned n) { return x << n | x >> (32 - n); }

/* The text is at most 119 bytes here: a key and the GUID of RFC 6455, two blocks. */
static void sha1(uint8_t out[20], const uint8_t *text, size_t n) {
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

static void watch(int fd, uint64_t tag) {
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = tag};
    if (epoll_ctl(g.epoll, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll_ctl");
}

static uint64_t tag_of(uint32_t kind, uint32_t index) { return (uint64_t)kind << 32 | index; }
enum { TAG_TIMER, TAG_STDIN, TAG_LISTENER, TAG_RTP, TAG_PEER };

/* ---- WebSocket, both roles ---- */

static void peer_close(peer_t *peer) {
    if (peer->state == PEER_FREE) return;
    if (peer->state == PEER_OPEN) g.n_open--;
    close(peer->fd);
    peer->state = PEER_FREE;
    g.count.closed++;
}

static void peer_flush(peer_t *peer) {
    while (peer->out_at < peer->out_bytes) {
        ssize_t n = send(peer->fd, peer->out + peer->out_at, peer->out_bytes - peer->out_at, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0) {
            if (errno != EAGAIN && errno != EINTR) peer_close(peer);
            return;
        }
        peer->out_at += (uint32_t)n;
    }
    peer->out_at = peer->out_bytes = 0;
}

/* One frame, whole or not at all: while the tail of the last one waits, this one is dropped and counted. */
static bool peer_send(peer_t *peer, uint8_t opcode, const void *payload, size_t n) {
    if (peer->out_bytes) peer_flush(peer);
    if (peer->state == PEER_FREE) return false;
    if (peer->out_bytes || n + 8 > OUT_BYTES) {
        g.count.messages_stalled++;
        return false;
    }
    uint8_t *p = peer->out;
    uint8_t masked = g.platform ? 0x80 : 0;
    p[0] = (uint8_t)(0x80 | opcode);
    size_t at = 2;
    if (n < 126) {
        p[1] = (uint8_t)(masked | n);
    } else {
        p[1] = masked | 126;
        put16(p + 2, (uint32_t)n);
        at = 4;
    }
    if (masked) {
        uint8_t *key = p + at;
        put32(key, random32());
        at += 4;
        for (size_t i = 0; i < n; i++) p[at + i] = ((const uint8_t *)payload)[i] ^ key[i & 3];
    } else {
        memcpy(p + at, payload, n);
    }
    peer->out_bytes = (uint32_t)(at + n);
    peer_flush(peer);
    return peer->state != PEER_FREE;
}

static void note_offset(call_t *call, int64_t offset) {
    if (!g.measuring) return;
    if (call->n_offsets == g.offsets_capacity)
        g.count.offsets_lost++;
    else
        call->offsets[call->n_offsets++] = offset;
}

/* Cheap structure: an object that names its event and carries a payload between quotes. */
static void peer_message(peer_t *peer, const char *text, size_t n) {
    const char *event = g.platform ? "\"playAudio\"" : "\"media\"";
    if (n < 2 || text[0] != '{' || text[n - 1] != '}' || !memmem(text, n, event, strlen(event))) {
        g.count.control_in++;
        peer->started = true;
        return;
    }
    g.count.messages_in++;
    const char *end = text + n;
    const char *at = memmem(text, n, "\"payload\"", 9);
    if (at) at = memchr(at + 9, '"', (size_t)(end - at) - 9);
    const char *close_quote = at ? memchr(at + 1, '"', (size_t)(end - at) - 1) : NULL;
    if (!close_quote) {
        g.count.messages_other++;
        return;
    }
    size_t length = (size_t)(close_quote - at) - 1;
    call_t *call = &g.calls[peer->call];
    if (length >= BASE64_BYTES && memcmp(at + 1, call->said, BASE64_BYTES - 4) == 0)
        g.count.messages_matching++;
    else
        g.count.messages_other++;
    if (g.platform) {
        note_offset(call, now_ns(CLOCK_REALTIME) - (int64_t)peer->samples_in * SAMPLE_NS);
        uint64_t n_samples = length / 4 * 3 - (length >= 2 && close_quote[-1] == '=') - (length >= 2 && close_quote[-2] == '=');
        peer->samples_in += n_samples;
        g.count.samples_in += n_samples;
    }
}

static void peer_frames(peer_t *peer) {
    size_t at = 0;
    while (peer->state == PEER_OPEN && peer->n_in - at >= 2) {
        uint8_t *p = peer->in + at;
        size_t have = peer->n_in - at, header = 2;
        bool masked = p[1] & 0x80;
        size_t n = p[1] & 0x7f;
        if (n == 126) {
            if (have < 4) break;
            n = (size_t)p[2] << 8 | p[3];
            header = 4;
        }
        if (n == 127 || masked == g.platform || (p[0] & 0x70) || n + header + 4 > IN_BYTES) {
            g.count.protocol_errors++;
            peer_close(peer);
            return;
        }
        if (masked) header += 4;
        if (have < header + n) break;
        uint8_t *text = p + header;
        const uint8_t *key = text - 4;
        if (masked)
            for (size_t i = 0; i < n; i++) text[i] ^= key[i & 3];
        uint8_t opcode = p[0] & 0x0f;
        if (opcode == 1 && p[0] & 0x80)
            peer_message(peer, (const char *)text, n);
        else if (opcode == 9)
            peer_send(peer, 10, text, n);
        else if (opcode == 8) {
            peer_send(peer, 8, text, n);
            peer_close(peer);
            return;
        } else
            g.count.control_in++;
        at += header + n;
    }
    memmove(peer->in, peer->in + at, peer->n_in - at);
    peer->n_in -= (uint32_t)at;
}

/* The request line is GET /<call>; every other header but the key is of no interest here. */
static void peer_upgrade(peer_t *peer) {
    char *end = memmem(peer->in, peer->n_in, "\r\n\r\n", 4);
    if (!end) return;
    *end = 0;
    char *text = (char *)peer->in;
    char *path = strchr(text, '/');
    char *key = strcasestr(text, "\r\nsec-websocket-key:");
    char joined[128], accept[32], answer[256];
    unsigned long call = path ? strtoul(path + 1, NULL, 10) : MAX_CALLS;
    if (!key || call >= g.n_calls) {
        g.count.protocol_errors++;
        peer_close(peer);
        return;
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
    if (send(peer->fd, answer, (size_t)answer_bytes, MSG_NOSIGNAL) != answer_bytes) {
        peer_close(peer);
        return;
    }
    size_t used = (size_t)(end + 4 - text);
    memmove(peer->in, peer->in + used, peer->n_in - used);
    peer->n_in -= (uint32_t)used;
    peer->call = (uint32_t)call;
    peer->state = PEER_OPEN;
    g.n_open++;
    peer_frames(peer);
}

static void peer_readable(peer_t *peer) {
    if (peer->state == PEER_FREE) return;
    ssize_t n = recv(peer->fd, peer->in + peer->n_in, IN_BYTES - peer->n_in, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) {
        peer_close(peer);
        return;
    }
    peer->n_in += (uint32_t)n;
    if (peer->state == PEER_UPGRADING)
        peer_upgrade(peer);
    else
        peer_frames(peer);
}

static peer_t *peer_add(int fd, peer_state state) {
    uint32_t index = 0; /* a place left by one that went, for a system that tries again; else a new one */
    while (index < g.n_peers && g.peers[index].state != PEER_FREE) index++;
    if (index == g.n_calls) {
        close(fd);
        return NULL;
    }
    if (index == g.n_peers) g.n_peers++;
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    peer_t *peer = &g.peers[index];
    memset(peer, 0, sizeof *peer);
    peer->fd = fd;
    peer->state = state;
    watch(fd, tag_of(TAG_PEER, index));
    return peer;
}

static void listener_readable(void) {
    for (;;) {
        int fd = accept4(g.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return;
        peer_add(fd, PEER_UPGRADING);
    }
}

/* Blocking, one after the other: set-up is not what is measured. */
static void connect_one(void) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(g.connect_port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct timeval patience = {.tv_sec = 10};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) < 0) die("connect");
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    char text[1024];
    int n = snprintf(text, sizeof text,
                     "GET / HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     "Sec-WebSocket-Key: dGFsa3BhdGggbG9hZGdlbg==\r\nSec-WebSocket-Version: 13\r\n\r\n",
                     (unsigned)g.connect_port);
    if (send(fd, text, (size_t)n, MSG_NOSIGNAL) != n) die("upgrade");
    size_t used = 0;
    while (used < 4 || memcmp(text + used - 4, "\r\n\r\n", 4) != 0) {
        if (used == sizeof text || recv(fd, text + used, 1, 0) != 1) die("upgrade answer");
        used++;
    }
    if (strncmp(text, "HTTP/1.1 101", 12) != 0) {
        fprintf(stderr, "loadgen: upgrade refused: %.40s\n", text);
        exit(1);
    }
    fcntl(fd, F_SETFL, O_NONBLOCK);
    uint32_t call = g.n_peers;
    peer_t *peer = peer_add(fd, PEER_OPEN);
    if (!peer) return;
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
}

/* ---- RTP ---- */

static void call_open(call_t *call, uint32_t index) {
    for (size_t i = 0; i < 2 * PAYLOAD_BYTES; i++) {
        uint8_t octet = (uint8_t)random32();
        if (octet == 0x7f) octet = 0x7e; /* negative zero: transcoding folds it into 0xff */
        *(i < PAYLOAD_BYTES ? &call->packet[12 + i] : &call->played[i - PAYLOAD_BYTES]) = octet;
    }
    base64(call->said, call->packet + 12, PAYLOAD_BYTES);
    base64(call->plays, call->played, PAYLOAD_BYTES);
    call->packet[0] = 0x80;
    call->seq = (uint16_t)random32();
    call->timestamp = random32();
    put32(call->packet + 8, random32());
    call->offsets = calloc(g.offsets_capacity, sizeof *call->offsets);
    if (!call->offsets) die("memory");
    if (g.platform) return;
    struct sockaddr_in at = {.sin_family = AF_INET};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int one = 1;
    call->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (call->fd < 0 || bind(call->fd, (struct sockaddr *)&at, sizeof at) < 0) die("UDP socket");
    if (setsockopt(call->fd, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof one) < 0) die("SO_TIMESTAMPNS");
    watch(call->fd, tag_of(TAG_RTP, index));
}

static void call_to(unsigned long port) {
    if (g.n_live == g.n_calls || port == 0 || port > 65535) return;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    call_t *call = &g.calls[g.n_live++];
    if (connect(call->fd, (struct sockaddr *)&to, sizeof to) < 0) die("connect RTP");
    call->live = true;
}

static void call_readable(call_t *call) {
    uint8_t packet[1500];
    union {
        char bytes[CMSG_SPACE(sizeof(struct timespec))];
        struct cmsghdr align;
    } control;
    struct iovec part = {.iov_base = packet, .iov_len = sizeof packet};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    ssize_t n = recvmsg(call->fd, &message, MSG_DONTWAIT);
    if (n < 0) return;
    g.count.rtp_received++;
    if (n != PACKET_BYTES || packet[0] != 0x80) {
        g.count.rtp_other++;
        return;
    }
    if (memcmp(packet + 12, call->played, PAYLOAD_BYTES) == 0)
        g.count.rtp_matching++;
    else if (packet[12] == 0xff && memcmp(packet + 12, packet + 13, PAYLOAD_BYTES - 1) == 0)
        g.count.rtp_silence++;
    else
        g.count.rtp_other++;
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_TIMESTAMPNS) return;
    struct timespec at;
    memcpy(&at, CMSG_DATA(c), sizeof at);
    uint32_t timestamp = get32(packet + 4);
    if (!call->has_origin) {
        call->has_origin = true;
        call->origin = timestamp;
    }
    int64_t samples = (int64_t)(int32_t)(timestamp - call->origin);
    note_offset(call, (int64_t)at.tv_sec * SECOND_NS + at.tv_nsec - samples * SAMPLE_NS);
}

/* ---- the clock ---- */

static void send_rtp(call_t *call) {
    call->packet[1] = 0;
    put16(call->packet + 2, call->seq++);
    put32(call->packet + 4, call->timestamp);
    call->timestamp += PAYLOAD_BYTES;
    if (send(call->fd, call->packet, PACKET_BYTES, MSG_DONTWAIT | MSG_NOSIGNAL) == PACKET_BYTES)
        g.count.rtp_sent++;
    else
        g.count.rtp_send_failed++;
}

static void send_audio(peer_t *peer) {
    char text[768];
    int n;
    const call_t *call = &g.calls[peer->call];
    if (g.platform) {
        uint64_t chunk = peer->sequence++;
        n = snprintf(text, sizeof text,
                     "{\"event\":\"media\",\"sequenceNumber\":%llu,\"streamId\":\"00000000-0000-4000-9000-%012u\",\"media\":"
                     "{\"track\":\"inbound\",\"timestamp\":\"%llu\",\"chunk\":%llu,\"payload\":\"%.*s\"},\"extra_headers\":\"{}\"}",
                     (unsigned long long)chunk + 1, peer->call, (unsigned long long)chunk * 20, (unsigned long long)chunk,
                     BASE64_BYTES, call->said);
    } else {
        n = snprintf(text, sizeof text,
                     "{\"event\":\"playAudio\",\"media\":{\"contentType\":\"audio/x-mulaw\",\"sampleRate\":8000,"
                     "\"payload\":\"%.*s\"}}",
                     BASE64_BYTES, call->plays);
    }
    if (peer_send(peer, 1, text, (size_t)n)) g.count.messages_out++;
}

static void tick(uint64_t number) {
    uint32_t phase = (uint32_t)(number % PHASES);
    for (uint32_t i = phase; i < g.n_live; i += PHASES) send_rtp(&g.calls[i]);
    if (g.quiet) return;
    /* Half a frame away from the same call's RTP. */
    for (uint32_t i = (phase + PHASES / 2) % PHASES; i < g.n_peers; i += PHASES)
        if (g.peers[i].state == PEER_OPEN && g.peers[i].started) send_audio(&g.peers[i]);
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
    for (uint32_t i = 0; i < g.n_calls; i++) g.calls[i].n_offsets = 0;
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
    for (uint32_t i = 0; i < g.n_calls; i++) capacity += g.calls[i].n_offsets;
    int64_t *late = calloc(capacity, sizeof *late);
    if (!late) die("memory");
    for (uint32_t i = 0; i < g.n_calls; i++) {
        const call_t *call = &g.calls[i];
        int64_t best = INT64_MAX;
        for (uint32_t j = 0; j < call->n_offsets; j++)
            if (call->offsets[j] < best) best = call->offsets[j];
        for (uint32_t j = 0; j < call->n_offsets; j++) late[n++] = call->offsets[j] - best;
    }
    qsort(late, n, sizeof *late, compare);
    const counters_t *c = &g.count;
    printf("{\"seconds\":%.6f,\"calls\":%u,\"connections\":%u,", seconds, g.n_live, g.n_open);
    printf("\"rtp\":{\"sent\":%llu,\"send_failed\":%llu,\"received\":%llu,\"matching\":%llu,\"silence\":%llu,\"other\":%llu},",
           (unsigned long long)c->rtp_sent, (unsigned long long)c->rtp_send_failed, (unsigned long long)c->rtp_received,
           (unsigned long long)c->rtp_matching, (unsigned long long)c->rtp_silence, (unsigned long long)c->rtp_other);
    printf("\"messages\":{\"sent\":%llu,\"stalled\":%llu,\"received\":%llu,\"matching\":%llu,\"other\":%llu,\"audio_s\":%.3f,\"control\":%llu,"
           "\"protocol_errors\":%llu,\"closed\":%llu},",
           (unsigned long long)c->messages_out, (unsigned long long)c->messages_stalled, (unsigned long long)c->messages_in,
           (unsigned long long)c->messages_matching, (unsigned long long)c->messages_other, (double)c->samples_in / 8000.0, (unsigned long long)c->control_in,
           (unsigned long long)c->protocol_errors, (unsigned long long)c->closed);
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
        for (char *port; (port = strtok_r(NULL, " \r", &rest));) call_to(strtoul(port, NULL, 10));
    } else if (strcmp(verb, "connect") == 0) {
        char *count = strtok_r(NULL, " \r", &rest);
        for (unsigned long i = count ? strtoul(count, NULL, 10) : 0; i; i--) connect_one();
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
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(name, "--quiet") == 0) {
            g.quiet = true;
            continue;
        }
        if (strcmp(name, "--mode") == 0)
            g.platform = strcmp(value, "platform") == 0;
        else if (strcmp(name, "--calls") == 0)
            g.n_calls = (uint32_t)strtoul(value, NULL, 10);
        else if (strcmp(name, "--window-s") == 0)
            g.window_s = (uint32_t)strtoul(value, NULL, 10);
        else if (strcmp(name, "--connect") == 0)
            g.connect_port = (uint16_t)strtoul(value, NULL, 10);
        else if (strcmp(name, "--limit-s") == 0)
            alarm((unsigned)strtoul(value, NULL, 10)); /* SIGALRM ends it, whatever it is doing */
        else {
            fprintf(stderr, "loadgen: unknown option %s\n", name);
            exit(2);
        }
        i++;
    }
    if (g.n_calls == 0 || g.n_calls > MAX_CALLS || g.window_s == 0 || g.window_s > MAX_WINDOW_S) {
        fprintf(stderr, "loadgen: --calls 1..%d, --window-s 1..%d\n", MAX_CALLS, MAX_WINDOW_S);
        exit(2);
    }
}

static void open_all(void) {
    g.random = 0x9e3779b97f4a7c15u;
    g.offsets_capacity = g.window_s * 60;
    g.calls = calloc(g.n_calls, sizeof *g.calls);
    g.peers = calloc(g.n_calls, sizeof *g.peers);
    g.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!g.calls || !g.peers || g.epoll < 0) die("set-up");
    for (uint32_t i = 0; i < g.n_calls; i++) call_open(&g.calls[i], i);
    watch(STDIN_FILENO, tag_of(TAG_STDIN, 0));
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
    watch(g.listener, tag_of(TAG_LISTENER, 0));
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

int main(int argc, char **argv) {
    options(argc, argv);
    open_all();
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    int64_t t0 = now_ns(CLOCK_MONOTONIC) + 10 * TICK_NS;
    struct itimerspec every = {.it_interval.tv_nsec = TICK_NS};
    every.it_value.tv_sec = t0 / SECOND_NS;
    every.it_value.tv_nsec = t0 % SECOND_NS;
    if (timer < 0 || timerfd_settime(timer, TFD_TIMER_ABSTIME, &every, NULL) < 0) die("timerfd");
    watch(timer, tag_of(TAG_TIMER, 0));
    uint64_t ticks = 0;
    static struct epoll_event events[512];
    for (;;) {
        int n = epoll_wait(g.epoll, events, 512, -1);
        if (n < 0 && errno != EINTR) die("epoll_wait");
        /* Deadlines first: reading hundreds of sockets must not make what we send late. */
        int64_t late;
        while ((late = now_ns(CLOCK_MONOTONIC) - (t0 + (int64_t)ticks * TICK_NS)) >= 0) {
            note_late(late);
            if (late > MAX_LATE_TICKS * TICK_NS)
                g.count.ticks_skipped++;
            else
                tick(ticks);
            ticks++;
        }
        for (int i = 0; i < n; i++) {
            uint32_t index = (uint32_t)events[i].data.u64;
            uint64_t expirations;
            switch (events[i].data.u64 >> 32) {
            case TAG_TIMER:
                if (read(timer, &expirations, sizeof expirations) < 0 && errno != EAGAIN) die("timerfd");
                break;
            case TAG_STDIN:
                if (!stdin_readable()) return 0;
                break;
            case TAG_LISTENER:
                listener_readable();
                break;
            case TAG_RTP:
                call_readable(&g.calls[index]);
                break;
            default:
                peer_readable(&g.peers[index]);
            }
        }
    }
}
