/* The jitter buffers' own cost, called from C as a media engine calls them: ours, and speexdsp's through its functions'
 * addresses. Each turn is one packet of 20 ms in and one frame out. */
#include "tp_jitter.h"

typedef struct speex_packet {
    char *data;
    uint32_t len, timestamp, span;
    uint16_t sequence;
    uint32_t user_data;
} speex_packet;

typedef struct speex_calls {
    void (*put)(void *jitter, const speex_packet *in);
    int (*get)(void *jitter, speex_packet *out, int32_t desired_span, int32_t *start_offset);
    void (*tick)(void *jitter);
} speex_calls;

/* Datagrams of `size` bytes lie one behind the other, a whole round of sequence numbers. -> frames that were audio */
__attribute__((visibility("default")))
uint64_t loop_ours(tp_jitter *state, const uint8_t *datagrams, size_t size, uint64_t first, uint64_t n) {
    uint8_t out[160];
    tp_jitter_frame frame;
    uint64_t whole = 0;
    for (uint64_t i = first; i < first + n; i++) {
        int64_t at = (int64_t)i * 20000000;
        (void)tp_jitter_receive(state, datagrams + (i & 0xffff) * size, size, 0, at);
        (void)tp_jitter_get(state, &frame, out, at + 7000000);
        whole += frame.kind == TP_JITTER_AUDIO;
    }
    return whole;
}

__attribute__((visibility("default")))
uint64_t loop_speex(const speex_calls *calls, void *jitter, uint8_t *datagrams, size_t size, uint64_t first, uint64_t n) {
    char out[160];
    uint64_t whole = 0;
    for (uint64_t i = first; i < first + n; i++) {
        /* What they leave to the caller: the header. */
        tp_rtp_header header;
        uint8_t *datagram = datagrams + (i & 0xffff) * size;
        if (tp_rtp_read(&header, datagram, size) != TP_OK) continue;
        int32_t offset;
        speex_packet packet = {(char *)datagram + header.payload_offset, header.payload_bytes, (uint32_t)i * 160u, 160,
                               header.seq, 0};
        calls->put(jitter, &packet);
        speex_packet got = {out, sizeof out, 0, 0, 0, 0};
        whole += calls->get(jitter, &got, 160, &offset) == 0;
        calls->tick(jitter);
    }
    return whole;
}
