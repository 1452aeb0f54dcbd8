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

/* ---- tp_websocket ---- */

/* ---- tp_media_message ---- */

/* ---- tp_pool ---- */

/* ---- tp_playout ---- */

/* ---- tp_stream ---- */

/* ---- tp_path ---- */

/* ---- end ---- */
