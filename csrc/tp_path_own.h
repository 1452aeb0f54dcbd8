/* tp_path_own: what the files of a path share; a path's own, nobody else's.
 *
 * What it does. tp_path.c has the path itself: its streams, the tick, what may flow, its events. tp_path_in.c has the inbound
 * half, from what arrives to a ptime of what the caller says; tp_path_out.c the outbound one, from the sources to what the
 * caller hears.
 *
 * How it works. A tick calls each half once.
 *
 * How to use it. From those three; what a path promises is written in tp_path.h.
 *
 * Figures to hold: those of tp_path. Source: own. */
#ifndef TP_PATH_OWN_H
#define TP_PATH_OWN_H
#include "tp_path.h"
#include "tp_ring.h"

#define TP_PATH_MAX_FRAME 2880u  /* 60 ms at 48 kHz */
#define TP_PATH_RECENT_MS 24u    /* what concealment looks back at */
#define TP_PATH_NOISE_SEED 3389u

/* The inbound track's next ptime; digits are found in it and whoever taps it gets it. `payload` has room for the frame. */
void tp_path_receive_frame(tp_path *path, tp_frame *frame, uint8_t *payload);
/* n samples of the track were skipped. */
void tp_path_tap_missed(tp_path *path, uint64_t n);
/* Somebody else is heard from here on. */
void tp_path_forget_source(tp_path *path);
/* The caller's side of this ptime: events, audio or silence, and the outbound track. */
void tp_path_send_frame(tp_path *path, tp_frame *frame, uint8_t *payload, tp_outbox *out);

#endif
