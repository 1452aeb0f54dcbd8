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

/* ---- tp_resample ---- */
typedef struct { uint32_t from_hz, to_hz, delay; ...; } tp_resample;
int tp_resample_init(tp_resample *state, uint32_t from_hz, uint32_t to_hz);
void tp_resample_reset(tp_resample *state);
size_t tp_resample_output_length(const tp_resample *state, size_t n_in);
ptrdiff_t tp_resample_process(tp_resample *state, int16_t *out, size_t out_capacity, const int16_t *in, size_t n_in);
uint32_t tp_resample_delay(const tp_resample *state);

/* ---- tp_plc ---- */

/* ---- tp_rtp ---- */

/* ---- tp_jitter ---- */

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
    uint8_t text[1280];
} tp_media_template;
typedef struct { uint64_t sequence, chunk, timestamp_ms; } tp_media_numbers;
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
ptrdiff_t tp_media_message_read_pcm(int16_t *out, size_t out_capacity, const tp_media_shape *shape, uint32_t encoding,
                                    uint8_t *frame, size_t frame_bytes);

/* ---- tp_pool ---- */

/* ---- tp_playout ---- */

/* ---- tp_stream ---- */

/* ---- tp_path ---- */

/* ---- end ---- */
