#include "tp_jitter.h"

int tp_jitter_box_put(tp_jitter_box *box, const uint8_t *datagram, size_t datagram_bytes, int64_t arrived_ns) {
    tp_rtp_header header;
    if (box->payload_type < 0 && !tp_rtp_is_rtcp(datagram, datagram_bytes) &&
        tp_rtp_read(&header, datagram, datagram_bytes) == TP_OK)
        box->payload_type = header.payload_type;
    int taken = tp_jitter_receive(&box->jitter, datagram, datagram_bytes, (uint8_t)box->payload_type, arrived_ns);
    if (taken >= 0)
        return taken;
    box->packets_malformed++;
    return 0;
}

int64_t tp_jitter_box_get(tp_jitter_box *box, int64_t now) {
    const tp_jitter_frame *frame = &box->frame;
    (void)tp_jitter_get(&box->jitter, &box->frame, box->out, now);
    bool plain = frame->kind == TP_JITTER_AUDIO && frame->skipped_ms == 0 && frame->wanted_samples == 0;
    return plain ? (int64_t)frame->timestamp : -1;
}
