/* A pump with calls and lines on real sockets: the caller's end of each leg and the application's end of each stream are
 * the test's. Include it first; every function answers 0, or 1 with a message. */
#ifndef TP_PUMP_RIG_H
#define TP_PUMP_RIG_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "tp_pump.h"
#include "tp_websocket.h"

#define PTIME_NS 20000000
#define N_SLOTS 100u
#define N_LIVE 8u /* members that have ports and room in the pool for all they want */
#define N_PORTS 24u
#define OUTBOX_BYTES 60000u
#define HANDOVER_BYTES 4000u
#define HANDOVER_OUTPUTS 6u
#define CIPHER_BYTES 100000u
#define RECEIVED_BYTES (4u << 20)
#define POOL_BYTES (4000u * (TP_BLOCK_BYTES + 4u))
#define FRAME_SAMPLES 160u

static const char own_head[] = "{\"event\":\"media\",\"media\":{\"payload\":\"";
static const char peer_head[] = "{\"event\":\"play\",\"media\":{\"payload\":\"";
static const char media_tail[] = "\"}}";

static inline void make_template(tp_media_template *t, const char *head) {
    memset(t, 0, sizeof *t);
    t->n_pieces = 2;
    t->lengths[0] = (uint16_t)strlen(head);
    t->lengths[1] = sizeof media_tail - 1;
    t->fields[0] = TP_FIELD_PAYLOAD;
    t->fields[1] = TP_FIELD_END;
    t->text_bytes = (uint32_t)(t->lengths[0] + t->lengths[1]);
    memcpy(t->text, head, t->lengths[0]);
    memcpy(t->text + t->lengths[0], media_tail, t->lengths[1]);
}

/* How the pump makes its system calls: alone, through its ring, or through one that fails some time. */
enum { RING_NONE, RING_WHOLE, RING_FAILS_READING, RING_FAILS_SENDING };
static int rig_ring = RING_NONE;

/* A call or a line, and the other ends of its sockets. */
typedef struct member {
    tp_path path;
    tp_stream stream;
    tp_stream_config config;
    tp_media_template own, peers; /* what it sends, and what its peer sends */
    tp_media_shape shape;
    tp_latch latch;
    uint8_t *ring;
    int leg_fd, caller_fd, stream_fd, peer_fd;
    struct sockaddr_in leg_address;
    int64_t leg, port; /* handles */
    uint16_t seq;
} member;

typedef struct rig {
    tp_pump pump;
    tp_pump_memory memory;
    tp_pool pool; /* of the streams */
    void *pool_bytes;
    member members[N_SLOTS];
    tp_attention attention[N_SLOTS + N_PORTS];
    int n_attention;
    uint8_t *received; /* RECEIVED_BYTES, by a test from a peer's end */
    size_t n_received;
} rig;

static inline rig *rig_allocate(size_t pool_blocks) {
    rig *r = calloc(1, sizeof *r);
    if (r == NULL) return NULL;
    tp_pump_memory *m = &r->memory;
    m->n_slots = N_SLOTS;
    m->n_ports = N_PORTS;
    m->slots = calloc(N_SLOTS, sizeof *m->slots);
    m->due = malloc(N_SLOTS * sizeof *m->due);
    m->ports = calloc(N_PORTS, sizeof *m->ports);
    m->attention = malloc((N_SLOTS + N_PORTS) * sizeof *m->attention);
    m->free_ports = malloc(N_PORTS * sizeof *m->free_ports);
    m->pool_capacity = pool_blocks * (TP_BLOCK_BYTES + 4);
    m->pool_bytes = malloc(m->pool_capacity);
    m->scratch = malloc(TP_PUMP_SCRATCH_BYTES);
    m->outbox_capacity = OUTBOX_BYTES;
    m->outbox_outputs_capacity = 64;
    m->outbox_bytes = malloc(OUTBOX_BYTES);
    m->outbox_outputs = malloc(64 * sizeof(tp_output));
    m->handover_capacity = HANDOVER_BYTES;
    m->handover_outputs_capacity = HANDOVER_OUTPUTS;
    for (int i = 0; i < 2; i++) {
        m->handover_bytes[i] = malloc(HANDOVER_BYTES);
        m->handover_outputs[i] = malloc(HANDOVER_OUTPUTS * sizeof(tp_output));
    }
    m->cipher_capacity = CIPHER_BYTES;
    for (int i = 0; i < 2; i++) {
        m->cipher_bytes[i] = malloc(CIPHER_BYTES);
        m->cipher_entries[i] = malloc(N_PORTS * sizeof(tp_cipher));
    }
    if (rig_ring != RING_NONE) m->ring_bytes = malloc(TP_PUMP_RING_BYTES);
    r->pool_bytes = malloc(POOL_BYTES);
    r->received = malloc(RECEIVED_BYTES);
    return r;
}

/* A pump in memory that may have been another's, which has ended. */
static inline int rig_begin(rig *r, int64_t origin) {
    memset(r->memory.slots, 0, N_SLOTS * sizeof *r->memory.slots);
    memset(r->memory.ports, 0, N_PORTS * sizeof *r->memory.ports);
    CHECK(r->pool_bytes != NULL && tp_pool_init(&r->pool, r->pool_bytes, POOL_BYTES) > 0);
    CHECK(tp_pump_open(&r->pump, &r->memory, origin) == TP_OK);
    return 0;
}

static inline rig *rig_open(size_t pool_blocks, int64_t origin) {
    rig *r = rig_allocate(pool_blocks);
    return r != NULL && rig_begin(r, origin) == 0 ? r : NULL;
}

static inline void close_fd(int *fd) {
    if (*fd > 0) (void)close(*fd);
    *fd = -1;
}

static inline void member_close(rig *r, uint32_t i) {
    member *m = &r->members[i];
    uint32_t n_unread;
    tp_pump_remove(&r->pump, i);
    (void)tp_pump_close_port(&r->pump, m->leg, NULL, NULL, &n_unread); /* a slot's ports outlive it: they are their owner's */
    (void)tp_pump_close_port(&r->pump, m->port, NULL, NULL, &n_unread);
    if (m->ring != NULL) tp_path_close(&m->path);
    if (m->config.role != 0) tp_stream_close(&m->stream, 0);
    close_fd(&m->leg_fd);
    close_fd(&m->caller_fd);
    close_fd(&m->stream_fd);
    close_fd(&m->peer_fd);
    free(m->ring);
    memset(m, 0, sizeof *m);
}

/* Everything is given back: what is left over is an error. */
static inline int rig_end(rig *r) {
    for (uint32_t i = 0; i < N_SLOTS; i++) member_close(r, i);
    CHECK(r->pump.n_members == 0 && r->pump.n_open_ports == 0 && r->pump.n_attention == 0);
    CHECK(r->pump.n_free_ports == N_PORTS - 1);
    CHECK(r->pump.pool.n_free == r->pump.pool.n_blocks && r->pump.pool.n_reserved == 0);
    CHECK(r->pool.n_free == r->pool.n_blocks && r->pool.n_reserved == 0);
    tp_pump_close(&r->pump);
    tp_pump_close(&r->pump);
    return 0;
}

static inline int rig_close(rig *r) {
    if (rig_end(r) != 0) return 1;
    tp_pump_memory *m = &r->memory;
    free(m->slots), free(m->due), free(m->ports), free(m->attention), free(m->free_ports), free(m->pool_bytes);
    free(m->scratch), free(m->outbox_bytes), free(m->outbox_outputs);
    for (int i = 0; i < 2; i++) free(m->handover_bytes[i]), free(m->handover_outputs[i]);
    for (int i = 0; i < 2; i++) free(m->cipher_bytes[i]), free(m->cipher_entries[i]);
    free(m->ring_bytes);
    free(r->pool_bytes);
    free(r->received);
    free(r);
    return 0;
}

/* On an address of this process's own: what others on the machine still send to a port that was theirs is not for us. */
static inline int bind_loopback(int *fd, struct sockaddr_in *address) {
    socklen_t n = sizeof *address;
    uint32_t own = INADDR_LOOPBACK | ((uint32_t)getpid() & 0xffffu) << 8;
    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(own)};
    *fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    CHECK(*fd > 0 && bind(*fd, (struct sockaddr *)address, n) == 0);
    CHECK(getsockname(*fd, (struct sockaddr *)address, &n) == 0);
    return 0;
}

static inline tp_address address_of(const struct sockaddr_in *from) {
    tp_address address = {.port = ntohs(from->sin_port), .ip_bytes = 4};
    memcpy(address.ip, &from->sin_addr, 4);
    return address;
}

static inline tp_stream_config stream_config(member *m, uint32_t role) {
    bool platform = role == TP_ROLE_PLATFORM;
    make_template(&m->own, platform ? own_head : peer_head);
    make_template(&m->peers, platform ? peer_head : own_head);
    m->shape = (tp_media_shape){.event_key = "event", .object_key = "media", .payload_key = "payload"};
    memcpy(m->shape.event_value, platform ? "play" : "media", platform ? 4 : 5);
    tp_stream_config config = {.role = role, .framing = TP_FRAMING_WEBSOCKET, .format = {8000, TP_ENCODING_PCMU},
                               .tracks = TP_TRACK_INBOUND, .bidirectional = 1, .masked = 1, .message_ms = 20,
                               .bound_ms = 60000, .reserve_ms = 200, .send_ahead_ms = 60000,
                               .max_message_bytes = 1 << 20, .mask_seed = 7, .shape = &m->shape};
    config.templates[0] = &m->own;
    return config;
}

/* The path and its stream, not in the pump; `i` sets what is different from call to call. */
static inline int make_call(tp_pool *pool, member *m, uint32_t i, int64_t now) {
    m->config = stream_config(m, TP_ROLE_PLATFORM);
    m->config.mask_seed = 1000 + i;
    tp_path_config config = {.leg_kind = TP_LEG_RTP, .leg_format = {8000, TP_ENCODING_PCMU}, .ptime_ms = 20, .slot = i,
                             .phase_ns = i % 4 * TP_PUMP_TICK_NS, .event_payload_type = 101, .first_seq = (uint16_t)(i * 77),
                             .ssrc = 5000 + i, .jitter_min_ms = 20, .jitter_max_ms = 200, .digit_on_ms = 100,
                             .digit_off_ms = 100};
    m->ring = malloc(tp_path_jitter_bytes(&config));
    CHECK(m->ring != NULL && tp_path_init(&m->path, pool, &config, m->ring, now) == TP_OK);
    CHECK(tp_stream_init(&m->stream, pool, &m->config, 8000, now) == TP_OK);
    CHECK(tp_path_attach(&m->path, 0, &m->stream) == TP_OK);
    return 0;
}

static inline int open_leg(rig *r, uint32_t i, uint32_t symmetric, int64_t now) {
    member *m = &r->members[i];
    struct sockaddr_in caller;
    if (bind_loopback(&m->leg_fd, &m->leg_address) != 0 || bind_loopback(&m->caller_fd, &caller) != 0) return 1;
    tp_address remote = address_of(&caller);
    tp_latch_init(&m->latch, symmetric, 0);
    tp_latch_expect(&m->latch, &remote, now);
    m->leg = tp_pump_open_leg(&r->pump, i, m->leg_fd, 4, &m->latch, now);
    CHECK(m->leg > 0);
    return 0;
}

static inline int open_stream(rig *r, uint32_t i, int flags, int64_t now) {
    member *m = &r->members[i];
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    m->stream_fd = pair[0];
    m->peer_fd = pair[1];
    m->port = tp_pump_open_stream(&r->pump, i, 0, m->stream_fd, &m->stream, flags, now);
    (void)tp_pump_give(&r->pump, m->port, NULL, 0, 0); /* nothing came with the handshake */
    CHECK(m->port > 0);
    return 0;
}

static inline int add_call_with(rig *r, uint32_t i, int flags, int64_t now) {
    if (make_call(&r->pool, &r->members[i], i, now) != 0) return 1;
    CHECK(tp_pump_add_path(&r->pump, i, &r->members[i].path) == TP_OK);
    return open_leg(r, i, TP_SYMMETRIC_NO, now) != 0 || open_stream(r, i, flags, now) != 0;
}

static inline int add_call(rig *r, uint32_t i, int64_t now) { return add_call_with(r, i, TP_STREAM_LIVE, now); }

static inline int add_line_with(rig *r, uint32_t i, int flags, int64_t now) {
    member *m = &r->members[i];
    m->config = stream_config(m, TP_ROLE_APPLICATION);
    CHECK(tp_stream_init(&m->stream, &r->pool, &m->config, 0, now) == TP_OK);
    CHECK(tp_pump_add_line(&r->pump, i, &m->stream) == TP_OK);
    return open_stream(r, i, flags, now);
}

static inline int add_line(rig *r, uint32_t i, int64_t now) { return add_line_with(r, i, 0, now); }

/* What comes from the peer: one media message whose samples are all `sample`. -> bytes */
static inline size_t write_media(const member *m, uint8_t *out, size_t capacity, uint8_t sample, size_t n_samples) {
    uint8_t payload[8000];
    tp_media_numbers numbers = {0, 0, 0, 0};
    memset(payload, sample, n_samples);
    ptrdiff_t n = tp_media_message_write(out, capacity, &m->peers, &numbers, payload, n_samples, NULL);
    return n > 0 ? (size_t)n : 0;
}

static inline size_t write_frame(uint8_t *out, uint8_t opcode, const void *payload, size_t n) {
    int head = tp_websocket_write_header(out, TP_WEBSOCKET_MAX_HEADER_BYTES, 1, opcode, n, NULL);
    memcpy(out + head, payload, n);
    return (size_t)head + n;
}

static inline size_t write_rtp(member *m, uint8_t *out, uint8_t sample) {
    tp_rtp_header header = {.timestamp = m->seq * FRAME_SAMPLES, .ssrc = 99, .seq = m->seq};
    m->seq++;
    (void)tp_rtp_write(out, TP_RTP_HEADER_BYTES, &header);
    memset(out + TP_RTP_HEADER_BYTES, sample, FRAME_SAMPLES);
    return TP_RTP_HEADER_BYTES + FRAME_SAMPLES;
}

static inline int send_all(int fd, const uint8_t *bytes, size_t n) {
    CHECK(send(fd, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)n);
    return 0;
}

static inline int send_rtp(const member *from, int fd, const uint8_t *bytes, size_t n) {
    CHECK(sendto(fd, bytes, n, 0, (const struct sockaddr *)&from->leg_address, sizeof from->leg_address) == (ssize_t)n);
    return 0;
}

/* Whatever a peer's end gives now, behind what `received` has. */
static inline void receive_all(rig *r, int fd) {
    for (ssize_t n; (n = recv(fd, r->received + r->n_received, RECEIVED_BYTES - r->n_received, MSG_DONTWAIT)) > 0;) {
        r->n_received += (size_t)n;
    }
}

static inline int take_attention(rig *r) {
    r->n_attention = tp_pump_take_attention(&r->pump, r->attention, N_SLOTS + N_PORTS);
    CHECK(r->pump.n_attention == 0);
    return 0;
}

/* -> what was said of a port (or, with 0, of the slot) in the attention taken last */
static inline uint32_t attention_of(const rig *r, uint32_t slot, int64_t port) {
    uint32_t what = 0;
    for (int i = 0; i < r->n_attention; i++) {
        if (r->attention[i].slot == slot && r->attention[i].port == (uint64_t)port) what |= r->attention[i].what;
    }
    return what;
}

/* Media and other frames among `received`, each whole, lawful and masked; a rest that is no whole frame fails. */
typedef struct frames {
    size_t n_media, n_text, n_other;
} frames;

static inline int parse_frames(rig *r, frames *found, bool masked) {
    size_t at = 0;
    memset(found, 0, sizeof *found);
    while (at < r->n_received) {
        tp_websocket_frame frame;
        CHECK(tp_websocket_read_header(&frame, r->received + at, r->n_received - at) == 1);
        CHECK(frame.fin && (frame.masked != 0) == masked);
        uint8_t *payload = r->received + at + frame.header_bytes;
        size_t n = (size_t)frame.payload_bytes;
        CHECK(at + frame.header_bytes + n <= r->n_received);
        if (frame.masked) tp_websocket_mask(payload, n, frame.mask, 0);
        bool media = frame.opcode == TP_OPCODE_TEXT && n > 16 && memcmp(payload, "{\"event\":\"", 10) == 0;
        if (media) CHECK(memcmp(payload + n - 3, media_tail, 3) == 0);
        found->n_media += media;
        found->n_text += !media && frame.opcode == TP_OPCODE_TEXT;
        found->n_other += frame.opcode != TP_OPCODE_TEXT;
        at += frame.header_bytes + n;
    }
    r->n_received = 0;
    return 0;
}

#endif
