/* tp_pump where there is no epoll: it cannot be opened, and the pure-Python driver does the work. */
#ifndef __linux__
#include "tp_pump.h"

int tp_pump_open(tp_pump *pump, const tp_pump_memory *memory, int64_t origin) {
    (void)memory, (void)origin;
    memset(pump, 0, sizeof *pump);
    return TP_E_STATE;
}

void tp_pump_close(tp_pump *pump) { (void)pump; }

int tp_pump_add_path(tp_pump *pump, uint32_t slot, tp_path *path) {
    (void)pump, (void)slot, (void)path;
    return TP_E_STATE;
}

int tp_pump_add_line(tp_pump *pump, uint32_t slot, tp_stream *line) {
    (void)pump, (void)slot, (void)line;
    return TP_E_STATE;
}

void tp_pump_remove(tp_pump *pump, uint32_t slot) { (void)pump, (void)slot; }

int tp_pump_say(tp_pump *pump, uint32_t slot, uint32_t encoding, const void *in, size_t in_bytes) {
    (void)pump, (void)slot, (void)encoding, (void)in, (void)in_bytes;
    return 0;
}

void tp_pump_rearm(tp_pump *pump, uint32_t slot, int64_t now) { (void)pump, (void)slot, (void)now; }

int64_t tp_pump_open_leg(tp_pump *pump, uint32_t slot, int fd, int family, tp_latch *latch, int64_t now) {
    (void)pump, (void)slot, (void)fd, (void)family, (void)latch, (void)now;
    return TP_E_STATE;
}

int64_t tp_pump_open_stream(tp_pump *pump, uint32_t slot, uint32_t index, int fd, tp_stream *stream, int flags, int64_t now) {
    (void)pump, (void)slot, (void)index, (void)fd, (void)stream, (void)flags, (void)now;
    return TP_E_STATE;
}

int64_t tp_pump_close_port(tp_pump *pump, int64_t port, uint8_t *waiting, uint8_t *unread, uint32_t *n_unread) {
    (void)pump, (void)port, (void)waiting, (void)unread;
    *n_unread = 0;
    return TP_E_STATE;
}

const tp_port *tp_pump_port(const tp_pump *pump, int64_t port) {
    (void)pump, (void)port;
    return NULL;
}

int tp_pump_read(tp_pump *pump, int64_t now) {
    (void)pump, (void)now;
    return 0;
}

int tp_pump_tick(tp_pump *pump, int64_t now) {
    (void)pump, (void)now;
    return 0;
}

int tp_pump_step(tp_pump *pump, int64_t now, int *ticked) {
    (void)pump, (void)now;
    *ticked = 0;
    return 0;
}

int tp_pump_take_attention(tp_pump *pump, tp_attention *out, uint32_t n) {
    (void)pump, (void)out, (void)n;
    return 0;
}

int64_t tp_pump_take_held(tp_pump *pump, int64_t port, tp_received *report, int *result, uint8_t *out, size_t capacity) {
    (void)pump, (void)port, (void)report, (void)result, (void)out, (void)capacity;
    return TP_E_STATE;
}

int tp_pump_give(tp_pump *pump, int64_t port, const uint8_t *left, size_t n, uint32_t needed) {
    (void)pump, (void)port, (void)left, (void)n, (void)needed;
    return TP_E_STATE;
}

int tp_pump_send(tp_pump *pump, int64_t port, const uint8_t *bytes, size_t n, int kind) {
    (void)pump, (void)port, (void)bytes, (void)n, (void)kind;
    return TP_E_STATE;
}

int tp_pump_flush(tp_pump *pump, int64_t port) {
    (void)pump, (void)port;
    return TP_E_STATE;
}

int tp_pump_send_datagram(tp_pump *pump, int64_t port, const uint8_t *bytes, size_t n) {
    (void)pump, (void)port, (void)bytes, (void)n;
    return TP_E_STATE;
}

int tp_pump_take_handover(tp_pump *pump) {
    (void)pump;
    return -1;
}

int tp_pump_take_cipher(tp_pump *pump, uint32_t *n_entries) {
    (void)pump;
    *n_entries = 0;
    return -1;
}

int tp_pump_receive(tp_pump *pump, int64_t port, uint8_t *plain, size_t n, int64_t now) {
    (void)pump, (void)port, (void)plain, (void)n, (void)now;
    return TP_E_STATE;
}

void tp_pump_receive_many(tp_pump *pump, uint32_t first, uint32_t n, const uint32_t *lengths, uint8_t *plain, int64_t now) {
    (void)pump, (void)first, (void)n, (void)lengths, (void)plain, (void)now;
}

void tp_pump_send_many(tp_pump *pump, uint32_t first, uint32_t n, const uint32_t *lengths, const uint8_t *cipher) {
    (void)pump, (void)first, (void)n, (void)lengths, (void)cipher;
}

int tp_pump_end(tp_pump *pump, int64_t port) {
    (void)pump, (void)port;
    return TP_E_STATE;
}

int tp_pump_run(tp_pump *pump, int realtime_priority) {
    (void)pump, (void)realtime_priority;
    return TP_E_STATE;
}

int tp_pump_stay(tp_pump *pump, tp_stay *stay) {
    (void)pump, (void)stay;
    return TP_E_STATE;
}

void tp_pump_stop(tp_pump *pump) { (void)pump; }
void tp_pump_pause(tp_pump *pump, int by) { (void)pump, (void)by; }
void tp_pump_guard_begin(void) {}
void tp_pump_guard_end(void) {}
bool tp_pump_guard_enter(void) { return false; }
void tp_pump_guard_leave(bool entered) { (void)entered; }
#endif
