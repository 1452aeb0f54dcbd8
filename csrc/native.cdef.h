/* The only declarations Python sees. One section per module, in the order of the floors; helpers of the modules
 * themselves stay in their headers. Partial structs are written `...;` so that Python owns the memory. */

/* ---- tp_base ---- */
const char *tp_status_name(int status);
typedef struct { uint32_t rate_hz; uint32_t encoding; } tp_format;

/* ---- tp_simd ---- */

/* ---- tp_g711 ---- */

/* ---- tp_level ---- */

/* ---- tp_resample ---- */

/* ---- tp_plc ---- */
#define TP_PLC_MAX_FRAME 960
typedef struct { uint32_t rate_hz, missing, pitch; ...; } tp_plc;
int tp_plc_init(tp_plc *state, uint32_t rate_hz);
void tp_plc_reset(tp_plc *state);
int tp_plc_receive(tp_plc *state, int16_t *pcm, size_t n);
int tp_plc_fillin(tp_plc *state, int16_t *out, size_t n, const int16_t *following, size_t n_following);

/* ---- tp_rtp ---- */
typedef struct {
    uint32_t timestamp, ssrc;
    uint16_t seq;
    uint8_t payload_type, marker;
    uint32_t payload_offset, payload_bytes;
} tp_rtp_header;
int tp_rtp_read(tp_rtp_header *out, const uint8_t *in, size_t in_bytes);
int tp_rtp_write(uint8_t *out, size_t out_capacity, const tp_rtp_header *header);
bool tp_rtp_is_rtcp(const uint8_t *in, size_t in_bytes);
typedef struct { uint32_t n_events, n_lost_ends, n_malformed; ...; } tp_event_receiver;
typedef struct { uint8_t code, volume, ended; uint32_t duration, timestamp; ...; } tp_digit;
void tp_event_receiver_reset(tp_event_receiver *state);
int tp_event_receiver_receive(tp_event_receiver *state, tp_digit *out, const uint8_t *payload, size_t payload_bytes,
                              uint32_t timestamp, int64_t now);
int tp_event_receiver_tick(tp_event_receiver *state, tp_digit *out, int64_t now);
typedef struct { uint8_t count; ...; } tp_event_sender;
void tp_event_sender_init(tp_event_sender *state, uint32_t clock_rate_hz, uint32_t ptime_samples);
int tp_event_sender_queue(tp_event_sender *state, const char *digits, size_t n, uint32_t on_ms, uint32_t off_ms);
void tp_event_sender_clear(tp_event_sender *state);
bool tp_event_sender_busy(const tp_event_sender *state);
int tp_event_sender_tick(tp_event_sender *state, uint8_t *payload, uint32_t *timestamp, uint8_t *marker,
                         uint32_t now_timestamp);
int tp_event_code(char digit);
char tp_event_digit(uint8_t code);

/* ---- tp_jitter ---- */
#define TP_JITTER_SPAN_MS 512
typedef struct { uint32_t clock_rate_hz, bytes_per_ms, min_delay_ms, max_delay_ms, ptime_ms; } tp_jitter_config;
typedef struct {
    uint32_t kind, following, missing_first_ms, missing_ms, skipped_ms, inserted_ms, timestamp;
} tp_jitter_frame;
typedef struct {
    tp_jitter_config config;
    uint32_t started, ssrc_restarts, playout_timestamp, newest_timestamp, target_delay_ms;
    uint64_t packets_received, packets_lost, packets_discarded, packets_late, packets_duplicated, packets_reordered;
    uint64_t emitted_ms, missing_ms, skipped_ms, inserted_ms;
    uint32_t jitter_x16, resyncs;
    ...;
} tp_jitter;
int tp_jitter_init(tp_jitter *state, const tp_jitter_config *config, uint8_t *bytes, size_t bytes_capacity);
void tp_jitter_reset(tp_jitter *state);
int tp_jitter_put(tp_jitter *state, uint16_t seq, uint32_t timestamp, uint8_t marker, const uint8_t *payload,
                  size_t payload_bytes, int64_t arrived_ns);
void tp_jitter_note(tp_jitter *state, uint16_t seq, int64_t arrived_ns);
int tp_jitter_receive(tp_jitter *state, const uint8_t *datagram, size_t datagram_bytes, uint8_t payload_type,
                      int64_t arrived_ns);
int tp_jitter_get(tp_jitter *state, tp_jitter_frame *frame, uint8_t *out, int64_t now);
int tp_jitter_peek(const tp_jitter *state, uint8_t *out, size_t out_capacity);
uint32_t tp_jitter_delay_ms(const tp_jitter *state);

/* ---- tp_base64 ---- */

/* ---- tp_websocket ---- */

/* ---- tp_media_message ---- */

/* ---- tp_pool ---- */

/* ---- tp_playout ---- */

/* ---- tp_stream ---- */

/* ---- tp_path ---- */

/* ---- end ---- */
