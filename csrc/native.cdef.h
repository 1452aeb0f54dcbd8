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

/* ---- tp_websocket ---- */

/* ---- tp_media_message ---- */

/* ---- tp_pool ---- */

/* ---- tp_playout ---- */

/* ---- tp_stream ---- */

/* ---- tp_path ---- */

/* ---- end ---- */
