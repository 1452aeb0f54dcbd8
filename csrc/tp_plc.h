#ifndef TP_PLC_H
#define TP_PLC_H
#include "tp_base.h"

/* Packet loss concealment at 8 or 16 kHz, pitch-based, no added delay. */
#define TP_PLC_MAX_HISTORY 1024 /* samples: 64 ms at 16 kHz, 128 ms at 8 kHz */
#define TP_PLC_MAX_FRAME 960    /* samples in one receive/fillin */

typedef struct tp_plc {
    uint32_t rate_hz;
    uint32_t n_history;
    uint32_t missing; /* samples concealed in the present gap */
    uint32_t pitch;
    uint32_t offset;
    uint32_t reserved;
    int16_t history[TP_PLC_MAX_HISTORY];
    int16_t work[TP_PLC_MAX_HISTORY];
} tp_plc; /* members may be changed by the implementation; keep sizeof <= 6 KiB */

int tp_plc_init(tp_plc *state, uint32_t rate_hz);
void tp_plc_reset(tp_plc *state);
/* A good frame: remembered; after a gap its beginning is cross-faded in place. -> n */
int tp_plc_receive(tp_plc *state, int16_t *pcm, size_t n);
/* A missing frame: n samples of concealment. `following`, when not NULL, is the good audio right after the gap. -> n */
int tp_plc_fillin(tp_plc *state, int16_t *out, size_t n, const int16_t *following, size_t n_following);

#endif
