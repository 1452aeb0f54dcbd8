/* The only declarations Python sees. One section per module, in the order of the floors; helpers of the modules
 * themselves stay in their headers. Partial structs are written `...;` so that Python owns the memory. */

/* ---- tp_base ---- */
const char *tp_status_name(int status);
typedef struct { uint32_t rate_hz; uint32_t encoding; } tp_format;

/* ---- tp_simd ---- */
int tp_simd_select(int level);
int tp_simd_level_in_use(void);
int tp_simd_level_best(void);

/* ---- tp_g711 ---- */
void tp_g711_pcmu_decode(int16_t *out, const uint8_t *in, size_t n);
void tp_g711_pcmu_encode(uint8_t *out, const int16_t *in, size_t n);
void tp_g711_pcma_decode(int16_t *out, const uint8_t *in, size_t n);
void tp_g711_pcma_encode(uint8_t *out, const int16_t *in, size_t n);
int tp_g711_decode(uint32_t encoding, int16_t *out, const uint8_t *in, size_t n);
int tp_g711_encode(uint32_t encoding, uint8_t *out, const int16_t *in, size_t n);
int tp_g711_silence(uint32_t encoding, uint8_t *out, size_t n);

/* ---- tp_level ---- */
typedef struct {
    uint64_t energy, n_samples, n_clipped;
    int32_t peak;
    ...;
} tp_level;
void tp_level_reset(tp_level *level);
void tp_level_receive(tp_level *level, const int16_t *in, size_t n);
void tp_level_fillin(tp_level *level, size_t n);
uint64_t tp_level_energy(const int16_t *in, size_t n);
int32_t tp_level_dbov_x100(uint64_t energy, uint64_t n_samples);

/* ---- tp_active ---- */
typedef struct { uint64_t energy, n_samples; ...; } tp_active;
int tp_active_init(tp_active *active, uint32_t rate_hz);
void tp_active_reset(tp_active *active);
void tp_active_receive(tp_active *active, const int16_t *in, size_t n);
void tp_active_fillin(tp_active *active, size_t n);
int32_t tp_active_dbov_x100(const tp_active *active);

/* ---- tp_voice ---- */
typedef struct { uint32_t rate_hz, onset_ms, hangover_ms; int32_t margin_x100; } tp_voice_config;
typedef struct { int32_t state, score, repeats, evidence; uint64_t n_frames, n_onsets; ...; } tp_voice;
typedef struct { int32_t level_x100, floor_x100, snr_x100; } tp_voice_figures;
int tp_voice_init(tp_voice *voice, const tp_voice_config *config);
void tp_voice_reset(tp_voice *voice);
int tp_voice_receive(tp_voice *voice, const int16_t *in, size_t n);
int tp_voice_fillin(tp_voice *voice, size_t n);
void tp_voice_measure(const tp_voice *voice, tp_voice_figures *out);

/* ---- tp_resample ---- */
typedef struct { uint32_t from_hz, to_hz, delay; ...; } tp_resample;
int tp_resample_init(tp_resample *state, uint32_t from_hz, uint32_t to_hz);
void tp_resample_reset(tp_resample *state);
size_t tp_resample_output_length(const tp_resample *state, size_t n_in);
ptrdiff_t tp_resample_process(tp_resample *state, int16_t *out, size_t out_capacity, const int16_t *in, size_t n_in);
uint32_t tp_resample_delay(const tp_resample *state);
typedef struct { tp_resample state; int16_t *out; size_t capacity; } tp_resample_port;
ptrdiff_t tp_resample_chunk(tp_resample_port *port, const uint8_t *in, size_t n_bytes);

/* ---- tp_mix ---- */
#define TP_GAIN_LEAST_DB_X100 -6000
#define TP_GAIN_MOST_DB_X100 1800
#define TP_GAIN_MUTE -2147483648
#define TP_LIMITER_KNEE 28672
#define TP_LIMITER_UNITY 1073741824
typedef struct { int32_t from, to; uint32_t left, ramp_samples; } tp_gain;
typedef struct { int32_t gain, release; } tp_limiter;
void tp_gain_init(tp_gain *gain, uint32_t ramp_samples);
int tp_gain_set(tp_gain *gain, int32_t db_x100);
void tp_gain_settle(tp_gain *gain);
void tp_gain_process(tp_gain *gain, int16_t *out, const int16_t *in, size_t n);
void tp_mix_add(int32_t *sum, const int16_t *in, size_t n, tp_gain *gain);
int tp_limiter_init(tp_limiter *limiter, uint32_t rate_hz);
void tp_limiter_reset(tp_limiter *limiter);
size_t tp_limiter_process(tp_limiter *limiter, int16_t *out, const int32_t *in, size_t n);

/* ---- tp_tape ---- */
typedef struct { int16_t *pairs; uint32_t capacity; int64_t begin, end; ...; } tp_tape;
int tp_tape_init(tp_tape *tape, int16_t *pairs, size_t capacity, int64_t clock);
void tp_tape_write(tp_tape *tape, int64_t clock, const int16_t *inbound, const int16_t *outbound, size_t n);

/* ---- tp_ear ---- */
typedef struct { uint64_t energy; int32_t state, missing; } tp_heard;
typedef struct { ...; } tp_ear;
#define TP_EAR_RATE_HZ 16000
size_t tp_ear_sizeof(void);
int tp_ear_init(tp_ear *ear, const tp_voice_config *voice);
int tp_ear_hear_many(tp_ear *ears, size_t count, uint32_t encoding, const uint8_t *payloads, size_t stride, size_t n,
                     const uint8_t *present, int16_t *out, tp_heard *heard);

/* ---- tp_plc ---- */
#define TP_PLC_MAX_FRAME 960
typedef struct { uint32_t rate_hz, missing, pitch; ...; } tp_plc;
int tp_plc_init(tp_plc *state, uint32_t rate_hz);
void tp_plc_reset(tp_plc *state);
int tp_plc_receive(tp_plc *state, int16_t *pcm, size_t n);
int tp_plc_fillin(tp_plc *state, int16_t *out, size_t n, const int16_t *following, size_t n_following);
int tp_plc_conceal(tp_plc *state, int16_t *pcm, size_t n_frames, size_t n, const uint8_t *lost);

/* ---- tp_stretch ---- */
int tp_stretch_shorten(int16_t *out, size_t n, const int16_t *in, size_t n_in, size_t most, uint32_t rate_hz, uint32_t urgency);
int tp_stretch_lengthen(int16_t *out, size_t n, const int16_t *in, size_t wanted, uint32_t rate_hz, uint32_t urgency);

/* ---- tp_noise ---- */
typedef struct { uint32_t order; ...; } tp_noise;
void tp_noise_reset(tp_noise *noise, uint32_t seed);
int tp_noise_receive(tp_noise *noise, const uint8_t *payload, size_t payload_bytes);
void tp_noise_fade(tp_noise *noise);
void tp_noise_fill(tp_noise *noise, int16_t *out, size_t n);

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
typedef struct { uint32_t clock_rate_hz, bytes_per_ms, min_delay_ms, max_delay_ms, ptime_ms, stretches; } tp_jitter_config;
typedef struct {
    uint32_t kind, following, missing_first_ms, missing_ms, skipped_ms, inserted_ms, timestamp;
    int32_t wanted_samples;
    uint32_t urgency, broken;
} tp_jitter_frame;
typedef struct {
    tp_jitter_config config;
    uint32_t started, ssrc_restarts, playout_timestamp, newest_timestamp, target_delay_ms;
    uint64_t packets_received, packets_lost, packets_discarded, packets_late, packets_duplicated, packets_reordered;
    uint64_t emitted_ms, missing_ms, skipped_ms, inserted_ms;
    uint64_t removed_samples, repeated_samples, delay_ms_sum, delay_frames;
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
int tp_jitter_stretched(tp_jitter *state, int32_t samples);
int tp_jitter_peek(const tp_jitter *state, uint8_t *out, size_t out_capacity);
uint32_t tp_jitter_delay_ms(const tp_jitter *state);
typedef struct {
    tp_jitter jitter;
    tp_jitter_frame frame;
    int32_t payload_type;
    uint32_t packets_malformed;
    uint8_t out[...];
    ...;
} tp_jitter_box;
int tp_jitter_box_put(tp_jitter_box *box, const uint8_t *datagram, size_t datagram_bytes, int64_t arrived_ns);
int64_t tp_jitter_box_get(tp_jitter_box *box, int64_t now);

/* ---- tp_base64 ---- */
ptrdiff_t tp_base64_encode(uint8_t *out, size_t out_capacity, const uint8_t *in, size_t in_bytes);
ptrdiff_t tp_base64_decode(uint8_t *out, size_t out_capacity, const uint8_t *in, size_t in_bytes);
ptrdiff_t tp_base64_decoded_length(const uint8_t *in, size_t in_bytes);

/* ---- tp_websocket ---- */
#define TP_WEBSOCKET_MAX_HEADER_BYTES 14
typedef struct {
    uint8_t fin, opcode, masked, header_bytes;
    uint8_t mask[4];
    uint64_t payload_bytes;
} tp_websocket_frame;
int tp_websocket_read_header(tp_websocket_frame *out, const uint8_t *in, size_t in_bytes);
int tp_websocket_write_header(uint8_t *out, size_t out_capacity, uint8_t fin, uint8_t opcode, uint64_t payload_bytes,
                              const uint8_t *mask);
void tp_websocket_mask(uint8_t *bytes, size_t n, const uint8_t *mask, uint64_t offset);
int tp_websocket_is_utf8(const uint8_t *in, size_t n);

/* ---- tp_media_message ---- */
#define TP_TEMPLATE_MAX_PIECES 8
#define TP_TEMPLATE_MAX_TEXT 1280
#define TP_SHAPE_MAX_NAME 32
typedef struct {
    uint16_t lengths[8];
    uint8_t fields[8];
    uint32_t n_pieces, text_bytes;
    uint32_t binary;
    uint8_t text[1280];
} tp_media_template;
typedef struct { uint64_t sequence, chunk, timestamp_ms, sample; } tp_media_numbers;
typedef struct {
    char event_key[32];
    char event_value[32];
    char object_key[32];
    char payload_key[32];
    char track_key[32];
    char encoding_key[32];
    char rate_key[32];
    char timestamp_key[32];
    char chunk_key[32];
    char sequence_key[32];
    uint32_t kind;
} tp_media_shape;
typedef struct {
    uint32_t payload_offset, payload_bytes;
    uint32_t encoding_offset, encoding_bytes;
    uint32_t track;
    uint32_t rate_hz;
    int64_t timestamp, chunk, sequence;
} tp_media_fields;
size_t tp_media_message_room(const tp_media_template *t, size_t payload_bytes);
ptrdiff_t tp_media_message_write(uint8_t *out, size_t out_capacity, const tp_media_template *t,
                                 const tp_media_numbers *numbers, const uint8_t *payload, size_t payload_bytes,
                                 const uint8_t *mask);
ptrdiff_t tp_media_message_write_pcm(uint8_t *out, size_t out_capacity, const tp_media_template *t,
                                     const tp_media_numbers *numbers, uint32_t encoding, const int16_t *pcm, size_t n,
                                     const uint8_t *mask);
int tp_media_message_read(tp_media_fields *out, const tp_media_shape *shape, const uint8_t *text, size_t n);
int tp_media_message_read_binary(tp_media_fields *out, const tp_media_shape *shape, const uint8_t *in, size_t n);
ptrdiff_t tp_media_message_read_pcm(int16_t *out, size_t out_capacity, const tp_media_shape *shape, uint32_t encoding,
                                    uint8_t *frame, size_t frame_bytes);

/* ---- tp_pool ---- */
#define TP_BLOCK_BYTES 1024
typedef struct {
    uint32_t n_blocks, n_free, n_reserved, n_refused, n_peak;
    ...;
} tp_pool;
int tp_pool_init(tp_pool *pool, void *memory, size_t memory_bytes);

/* ---- tp_playout ---- */
#define TP_MARKS_MAX 256
enum { TP_OUTCOME_PENDING, TP_OUTCOME_PLAYED, TP_OUTCOME_CLEARED, TP_OUTCOME_LOST };
typedef struct { ...; } tp_playout;

/* ---- tp_tone ---- */
enum { TP_TONE_NONE = 0, TP_TONE_BEGAN = 1, TP_TONE_ENDED = 2 };
typedef struct { int64_t begin, duration; int32_t kind, digit; } tp_tone_event;
typedef struct { uint32_t rate_hz; int32_t sounding; ...; } tp_tone;
int tp_tone_init(tp_tone *tone, uint32_t rate_hz);
void tp_tone_reset(tp_tone *tone);
size_t tp_tone_receive(tp_tone *tone, tp_tone_event *event, const int16_t *in, size_t n);
void tp_tone_fillin(tp_tone *tone, tp_tone_event *event, size_t n);
typedef struct { uint32_t n, at; ...; } tp_tone_maker;
int tp_tone_maker_begin(tp_tone_maker *maker, uint32_t rate_hz, char digit, uint32_t n);
void tp_tone_maker_make(tp_tone_maker *maker, int16_t *out, size_t n);
enum { TP_PRESS_MESSAGE = 0, TP_PRESS_AUDIO = 1 };
typedef struct { uint32_t n_doubled; ...; } tp_presses;
int tp_presses_see(tp_presses *presses, char digit, int how, int64_t at, int64_t window);

/* ---- tp_stream ---- */
enum { TP_ROLE_PLATFORM = 1, TP_ROLE_APPLICATION = 2 };
enum { TP_FRAMING_WEBSOCKET = 1, TP_FRAMING_NONE = 2 };
enum { TP_OUTPUT_RTP = 1, TP_OUTPUT_MESSAGE = 2, TP_OUTPUT_PCM = 3 };
enum { TP_RECEIVED_ALL = 0, TP_RECEIVED_OTHER = 1 };
enum { TP_PROTOCOL_NONE = 0, TP_PROTOCOL_HEADER = 1, TP_PROTOCOL_TOO_LONG = 2, TP_PROTOCOL_MASK = 3 };
enum { TP_TICK_EVENTS = 1, TP_TICK_OUTPUT = 2, TP_TICK_MARK_DUE = 4 };
enum {
    TP_EVENT_NONE = 0, TP_EVENT_DIGIT = 1, TP_EVENT_MARK = 2, TP_EVENT_MEDIA_TIMEOUT = 3, TP_EVENT_FILL = 4,
    TP_EVENT_UNDERRUN = 5, TP_EVENT_DIGITS_SENT = 6, TP_EVENT_MARK_DUE = 7, TP_EVENT_AUDIO = 8,
    TP_EVENT_LOW = 9, TP_EVENT_ALARM = 10, TP_EVENT_HEARD = 11
};
typedef struct { uint32_t offset, length; uint32_t slot; uint16_t kind, stream; } tp_output;
typedef struct {
    uint8_t *bytes;
    tp_output *outputs;
    uint32_t capacity, used;
    uint32_t outputs_capacity, n_outputs;
} tp_outbox;
typedef struct { int32_t kind, stream; int64_t at_sample, id, value; } tp_event;
typedef struct {
    uint32_t role, framing;
    tp_format format, play_format;
    uint32_t tracks, bidirectional, masked, message_ms;
    uint32_t bound_ms, reserve_ms, send_ahead_ms, most_message_ms, max_message_bytes;
    uint32_t timestamp_from_zero;
    uint64_t timestamp_base_ms, mask_seed;
    const tp_media_template *templates[2];
    const tp_media_shape *shape;
    char encoding_name[32];
} tp_stream_config;
typedef struct {
    uint64_t messages_in, messages_out, samples_in, samples_out, bytes_in, bytes_out;
    uint64_t samples_dropped, samples_cleared, samples_played, underruns, marks_refused;
} tp_stream_counters;
typedef struct {
    uint32_t consumed, needed, offset, length;
    uint8_t opcode, fin, n_media, protocol_error;
} tp_received;
typedef struct { ...; } tp_stream;
size_t tp_stream_sizeof(void);
int tp_stream_init(tp_stream *stream, tp_pool *pool, const tp_stream_config *config, uint32_t leg_rate_hz, int64_t now);
size_t tp_stream_lent_bytes(const tp_stream *stream, uint32_t ptime_ms);
int tp_stream_lend(tp_stream *stream, uint32_t ptime_ms, uint8_t *bytes, size_t capacity);
void tp_stream_close(tp_stream *stream, int64_t at_sample);
int tp_stream_receive(tp_stream *stream, tp_received *report, uint8_t *in, size_t in_bytes, int64_t now);
int tp_stream_receive_message(tp_stream *stream, uint8_t *in, size_t in_bytes, int64_t now);
ptrdiff_t tp_stream_receive_audio(tp_stream *stream, uint32_t track, tp_format format, const uint8_t *in, size_t in_bytes,
                                  int64_t now);
ptrdiff_t tp_stream_play(tp_stream *stream, tp_format format, const uint8_t *in, size_t in_bytes);
int tp_stream_say(tp_stream *stream, uint32_t encoding, const void *in, size_t in_bytes);
int tp_stream_mark(tp_stream *stream, int64_t id);
int64_t tp_stream_clear(tp_stream *stream, int64_t at_sample);
void tp_stream_pause(tp_stream *stream, int paused);
uint64_t tp_stream_queued_samples(const tp_stream *stream);
uint64_t tp_stream_queued_us(const tp_stream *stream);
uint32_t tp_stream_pool_bytes(const tp_stream *stream);
const tp_stream_counters *tp_stream_statistics(const tp_stream *stream);
int tp_stream_next_event(tp_stream *stream, tp_event *event);
uint32_t tp_stream_take_audio(tp_stream *stream);
bool tp_stream_has_events(const tp_stream *stream);
uint64_t tp_stream_take_sequence(tp_stream *stream);
int tp_stream_tick(tp_stream *stream, uint32_t slot, int64_t now, tp_outbox *out);
int64_t tp_stream_next_deadline(const tp_stream *stream);
int tp_stream_wake_at(tp_stream *stream, uint32_t track, uint64_t written);
void tp_stream_want_low(tp_stream *stream, uint64_t samples);
void tp_stream_set_alarm(tp_stream *stream, int64_t at);
int tp_stream_set_track(tp_stream *stream, uint32_t track, uint8_t *bytes, uint32_t capacity_bytes);
uint64_t tp_stream_track_written(const tp_stream *stream, uint32_t track);
ptrdiff_t tp_stream_track_read(const tp_stream *stream, uint32_t track, uint8_t *out, size_t out_capacity, uint64_t *from,
                               size_t n);
ptrdiff_t tp_stream_track_next(const tp_stream *stream, uint32_t track, uint8_t *out, size_t out_capacity, uint64_t *from,
                               size_t n, size_t bound);
uint64_t tp_stream_model_played(const tp_stream *stream, int64_t now);
uint64_t tp_stream_sent_samples(const tp_stream *stream);
int64_t tp_stream_hold(tp_stream *stream, int held, int64_t now);
int tp_stream_keep_tail(tp_stream *stream, uint8_t *ring, uint32_t ring_bytes);
uint64_t tp_stream_rewind(tp_stream *stream);
typedef struct { uint64_t sent, start_sent; int64_t start, held_at; } tp_model;
void tp_stream_model(const tp_stream *stream, tp_model *model);
size_t tp_stream_tail_read(const tp_stream *stream, uint8_t *out, size_t out_capacity, uint64_t *from);

/* ---- tp_path ---- */
#define TP_PATH_STREAMS 4
enum { TP_LEG_RTP = 1, TP_LEG_PCM = 2 };
enum { TP_DIRECTION_BOTH = 3, TP_DIRECTION_RECEIVE = 1, TP_DIRECTION_SEND = 2, TP_DIRECTION_NONE = 0 };
typedef struct {
    uint32_t leg_kind;
    tp_format leg_format;
    uint32_t ptime_ms, slot, phase_ns;
    uint8_t payload_type, event_payload_type;
    uint16_t first_seq;
    uint32_t ssrc, first_timestamp;
    uint32_t jitter_min_ms, jitter_max_ms, media_timeout_ms, digit_on_ms, digit_off_ms;
    uint32_t inband_digits;
} tp_path_config;
typedef struct {
    uint64_t ticks, loop_stall_samples;
    uint64_t frames_sent, rtp_packets_in, rtp_packets_out, rtcp_packets_in, rtp_malformed, rtp_wrong_payload_type;
    uint64_t ssrc_changes, digits_in, digits_out, digits_refused;
    uint64_t concealed_samples, concealment_events, silent_samples;
    uint64_t application_samples, mixed_frames, limited_samples;
    uint64_t digits_overflowed, pcm_dropped_samples, digits_in_audio, digits_doubled;
} tp_path_counters;
typedef struct { ...; } tp_path;
size_t tp_path_sizeof(void);
size_t tp_path_jitter_bytes(const tp_path_config *config);
uint32_t tp_path_room(const tp_path *path, uint32_t *n_outputs);
int tp_path_init(tp_path *path, tp_pool *pool, const tp_path_config *config, uint8_t *jitter_bytes, int64_t now);
int tp_path_attach(tp_path *path, unsigned stream, tp_stream *state);
void tp_path_detach(tp_path *path, unsigned stream);
void tp_path_close(tp_path *path);
int tp_path_receive_rtp(tp_path *path, const uint8_t *in, size_t in_bytes, int64_t arrived);
int tp_path_receive_pcm(tp_path *path, const int16_t *in, size_t in_samples, int64_t now);
void tp_path_receive_digit(tp_path *path, char digit);
int tp_path_set_gain(tp_path *path, unsigned stream, int32_t db_x100);
int tp_path_record(tp_path *path, tp_tape *tape);
size_t tp_path_read_tape(const tp_tape *tape, int16_t *out, size_t capacity, int64_t *from, int64_t *lost);
int64_t tp_path_clear(tp_path *path, unsigned stream);
int tp_path_send_digits(tp_path *path, unsigned stream, const char *digits, size_t n, uint32_t on_ms, uint32_t off_ms);
uint32_t tp_path_digits_waiting(const tp_path *path);
void tp_path_hold(tp_path *path, uint32_t direction);
int tp_path_tap(tp_path *path, int16_t *ring, uint32_t capacity);
void tp_path_restart_receive(tp_path *path);
int tp_path_tick(tp_path *path, int64_t now, tp_outbox *out);
int tp_path_tick_many(tp_path *const *paths, size_t count, int64_t now, tp_outbox *out, uint8_t *flags);
int tp_path_next_event(tp_path *path, tp_event *event);
int64_t tp_path_next_deadline(const tp_path *path);
int64_t tp_path_clock(const tp_path *path);
const tp_path_counters *tp_path_statistics(const tp_path *path);
const tp_jitter *tp_path_jitter(const tp_path *path);

/* ---- tp_latch ---- */
enum { TP_SYMMETRIC_NO = 0, TP_SYMMETRIC_PORT = 1, TP_SYMMETRIC_ANY = 2 };
enum { TP_LATCH_STRANGER = 0, TP_LATCH_KNOWN = 1, TP_LATCH_LEARNED = 2 };
typedef struct {
    uint8_t ip[16];
    uint16_t port;
    uint8_t ip_bytes;
    ...;
} tp_address;
typedef struct {
    tp_address remote, source;
    uint8_t symmetric, payload_type;
    uint16_t n_candidates;
    int64_t source_heard, learn_until;
    uint64_t refused;
    ...;
} tp_latch;
void tp_latch_init(tp_latch *latch, uint32_t symmetric, uint8_t payload_type);
void tp_latch_expect(tp_latch *latch, const tp_address *remote, int64_t now);
int tp_latch_receive(tp_latch *latch, const tp_address *from, const uint8_t *datagram, size_t datagram_bytes, int64_t now);
const tp_address *tp_latch_target(const tp_latch *latch);

/* ---- tp_uring ---- */
typedef struct {
    int32_t fd;
    ...;
} tp_uring;
bool tp_uring_open(tp_uring *uring);
void tp_uring_close(tp_uring *uring);

/* ---- tp_pump ---- */
#define TP_PUMP_TICK_NS 5000000
#define TP_PUMP_IN_MAX 65536
#define TP_PUMP_MEDIA_MAX 8192
#define TP_PUMP_CONTROL_MAX 65536
#define TP_PUMP_SCRATCH_BYTES 262144
#define TP_PUMP_IN_RESERVE 4
#define TP_PUMP_OUT_RESERVE 9
#define TP_PUMP_PHASES 12
#define TP_PUMP_LATENESS_BUCKETS 256
#define TP_NO_PORT 0
#define TP_PUMP_RING_BYTES 331776
#define TP_PUMP_CIPHER_ONCE 65536
#define TP_PUMP_CIPHER_MAX 147456
enum { TP_PORT_FREE = 0, TP_PORT_LEG = 1, TP_PORT_STREAM = 2 };
enum { TP_STREAM_LIVE = 1, TP_STREAM_CIPHER = 2 };
enum { TP_OUTPUT_CIPHER = 64 };
enum { TP_SEND_MEDIA = 0, TP_SEND_CONTROL = 1, TP_SEND_CIPHER = 2 };
typedef struct {
    uint64_t port;
    uint32_t offset, length;
} tp_cipher;
enum {
    TP_ATTEND_EVENTS = 1, TP_ATTEND_HELD = 2, TP_ATTEND_FULL = 4, TP_ATTEND_ENDED = 8, TP_ATTEND_BROKEN = 16,
    TP_ATTEND_PROTOCOL = 32, TP_ATTEND_LEARNED = 64, TP_ATTEND_STUCK = 128
};
typedef struct {
    uint32_t slot, what;
    uint64_t port;
    int32_t error;
    uint32_t generation;
} tp_attention;
typedef struct {
    int32_t fd;
    uint32_t generation, slot;
    uint8_t kind, index, live, held, dead, family, flushing, held_result;
    uint32_t attention;
    int32_t error;
    int64_t last_received;
    uint64_t media_dropped, send_failures;
    uint32_t in_needed, in_bytes, out_bytes;
    ...;
} tp_port;
typedef struct {
    uint32_t generation, attention;
    uint32_t leg, streams[4];
    uint32_t handover_dropped;
    ...;
} tp_slot;
typedef struct {
    tp_slot *slots;
    int64_t *due;
    tp_port *ports;
    tp_attention *attention;
    uint32_t *free_ports;
    uint8_t *pool_bytes;
    uint8_t *scratch;
    uint8_t *outbox_bytes;
    tp_output *outbox_outputs;
    uint8_t *handover_bytes[2];
    tp_output *handover_outputs[2];
    uint32_t n_slots, n_ports;
    uint32_t outbox_capacity, outbox_outputs_capacity;
    uint32_t handover_capacity, handover_outputs_capacity;
    uint64_t pool_capacity;
    uint8_t *cipher_bytes[2];
    tp_cipher *cipher_entries[2];
    uint32_t cipher_capacity;
    uint8_t *ring_bytes;
} tp_pump_memory;
typedef struct {
    uint64_t turns, path_ticks, line_ticks, datagrams_in, datagrams_out, messages_out, reads;
    uint64_t busy_ns, stalls, handover_dropped, budget_rests;
    int64_t late_max_ns, late_sum_ns;
} tp_pump_counters;
typedef struct {
    tp_pump_memory m;
    tp_pool pool;
    tp_outbox handover[2];
    uint32_t filling, n_cipher, high_slot, n_free_ports, n_attention, n_members, n_open_ports;
    int32_t epoll, signal, wake;
    int64_t origin, next_due, now;
    int32_t realtime;
    uint32_t stopping, running;
    tp_uring uring;
    tp_pump_counters counters;
    uint64_t lateness[12][256];
    ...;
} tp_pump;
int tp_pump_open(tp_pump *pump, const tp_pump_memory *memory, int64_t origin);
void tp_pump_close(tp_pump *pump);
int tp_pump_add_path(tp_pump *pump, uint32_t slot, tp_path *path);
int tp_pump_add_line(tp_pump *pump, uint32_t slot, tp_stream *line);
void tp_pump_remove(tp_pump *pump, uint32_t slot);
void tp_pump_rearm(tp_pump *pump, uint32_t slot, int64_t now);
int tp_pump_say(tp_pump *pump, uint32_t slot, uint32_t encoding, const void *in, size_t in_bytes);
int64_t tp_pump_open_leg(tp_pump *pump, uint32_t slot, int fd, int family, tp_latch *latch, int64_t now);
int64_t tp_pump_open_stream(tp_pump *pump, uint32_t slot, uint32_t index, int fd, tp_stream *stream, int flags, int64_t now);
int64_t tp_pump_close_port(tp_pump *pump, int64_t port, uint8_t *waiting, uint8_t *unread, uint32_t *n_unread);
const tp_port *tp_pump_port(const tp_pump *pump, int64_t port);
int tp_pump_read(tp_pump *pump, int64_t now);
int tp_pump_tick(tp_pump *pump, int64_t now);
int tp_pump_step(tp_pump *pump, int64_t now, int *ticked);
#define TP_STAY_TURNS 64
typedef struct {
    int32_t timer, others;
    int64_t until, enough, last, armed, done, before, cpu_before;
    uint32_t polls, n;
    int64_t late[64];
} tp_stay;
int tp_pump_stay(tp_pump *pump, tp_stay *stay);
int tp_pump_take_attention(tp_pump *pump, tp_attention *out, uint32_t n);
int64_t tp_pump_take_held(tp_pump *pump, int64_t port, tp_received *report, int *result, uint8_t *out, size_t capacity);
int tp_pump_give(tp_pump *pump, int64_t port, const uint8_t *left, size_t n, uint32_t needed);
int tp_pump_send(tp_pump *pump, int64_t port, const uint8_t *bytes, size_t n, int kind);
int tp_pump_flush(tp_pump *pump, int64_t port);
int tp_pump_send_datagram(tp_pump *pump, int64_t port, const uint8_t *bytes, size_t n);
int tp_pump_take_handover(tp_pump *pump);
int tp_pump_take_cipher(tp_pump *pump, uint32_t *n_entries);
int tp_pump_receive(tp_pump *pump, int64_t port, uint8_t *plain, size_t n, int64_t now);
void tp_pump_receive_many(tp_pump *pump, uint32_t first, uint32_t n, const uint32_t *lengths, int64_t now);
void tp_pump_send_many(tp_pump *pump, uint32_t first, uint32_t n, const uint32_t *lengths, const uint8_t *cipher);
int tp_pump_end(tp_pump *pump, int64_t port);
int tp_pump_run(tp_pump *pump, int realtime_priority);
void tp_pump_stop(tp_pump *pump);
void tp_pump_pause(tp_pump *pump, int by);

/* ---- end ---- */
