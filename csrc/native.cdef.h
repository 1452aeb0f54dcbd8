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
