/* tp_pump: the sockets of many calls and lines, moved once per tick. Linux.
 *
 * What it does. It is the fast half of the drivers: an epoll over the media sockets of a whole run, the ticks of every
 * path and line in it, and their sends, without a step into Python for plain media. It drives the very tp_path and
 * tp_stream that the pure-Python driver drives, with the same inputs at the same times, so the bytes are the same.
 *
 * How it works. A *slot* is a call (its tp_path) or a line (its tp_stream). A *port* is one socket of a slot: a leg's UDP
 * socket, or the TCP socket of a WebSocket. A turn has two halves:
 *
 *   read   epoll_wait(0), level-triggered, at most TP_PUMP_ROUNDS times; one recv per ready port and round (a leg: up to the
 *          caller's next datagram, strangers' before it are counted, at most 256). Bytes go to tp_path_receive_rtp or
 *          tp_stream_receive. What follows a whole message and is the beginning of the next waits in the port's own chain.
 *   tick   every slot whose deadline has come, in slot order: tp_path_tick / tp_stream_tick, then its sends at once, so that
 *          a packet leaves while it is warm. What the kernel does not take waits in the port's chain, within bounds.
 *
 * Anything that is not plain media is *attention* for Python: a list of (slot or port, what), each at most once, so it cannot
 * overflow. A frame that is not plain media *holds* its port: nothing more of that connection is read until Python has
 * taken the frame and given back what follows it (tp_pump_take_held, tp_pump_give); so a checkpoint lies exactly where it
 * came, and a clear is obeyed before anything behind it. Python attends between the halves, so all of this is the same in
 * one tick as in the pure-Python driver.
 *
 * Ports and slots carry generations. Epoll's events and Python's handles name both, and what names a generation that is
 * over is dropped: a descriptor that was closed and came back as another call's, a slot that was reused while its old
 * events waited.
 *
 * TLS. A *cipher* port is a stream whose bytes must pass through Python both ways, and nothing but its cipher does so. The
 * read half puts what it received into an arena, at most one recv per port until tp_pump_receive has given back its plaintext,
 * and from there on all is as if the pump had read it. The tick half leaves its messages in the hand-over; they come back
 * encrypted by tp_pump_send, and wait for the socket as others do. Media is dropped before it is encrypted (when more than
 * TP_PUMP_MEDIA_MAX waits), never after: a hole in TLS is the end of the connection. A line writes one portion, and rests until
 * that has come back and left. A full arena, or a full hand-over for a line: the next turn goes on. Both ways many go in one
 * call, so that parsing, sending and the cipher are each done for all ports in a row.
 *
 * Messages of a stream that has no port (memory), and of a cipher port, are copied to a *hand-over* outbox that Python sends from; RTP still
 * leaves at once. When Python is so late that the hand-over is full, media messages are dropped whole and counted.
 *
 * The ring. With `ring_bytes`, and where the system permits it, a turn's receives and sends go through tp_uring, so many in one
 * system call: the ready streams of a round, and all datagrams, then all messages, of the slots ticked together. (A datagram
 * is received alone: through a ring that costs more, not less, than without.) What each call answers is dealt with as if it had been made alone, in the same order; a piece that came full is read to its end before it
 * is parsed. Without a ring, and in the thread's turns (the ring is its opener's), each call is made alone: the same bytes.
 * What Python sends, a waiting chain and what a line says beyond one portion go by calls of their own either way.
 *
 * Bounds. A port's unfinished input: TP_PUMP_IN_MAX bytes, beyond which it is held for Python to collect (a message may be
 * megabytes). What waits for a socket: media of a call is dropped whole beyond TP_PUMP_MEDIA_MAX bytes (live audio is worth
 * nothing later), control messages are refused beyond TP_PUMP_CONTROL_MAX more, whatever it is that waits; a line's speech
 * is never dropped: its ticks write TP_PUMP_SPEECH_MAX bytes at a time and rest while anything waits. Both kinds of chain
 * draw on a pool of the pump's own with a reserve for each port; no more is read than could be kept.
 *
 * The thread. tp_pump_run() is the same two halves in a loop of its own on the 5 ms grid, for a native thread without the
 * GIL. While one runs, every tp_path_, tp_stream_ and tp_pump_ call that comes from Python goes through one lock
 * (tp_pump_guard_enter/leave, put there by the module's glue, no call can forget it), which the thread takes for one port or
 * one slot at a time; it is a priority-inheriting mutex, held by Python for the length of a C call only, so a real-time
 * thread waits microseconds at worst. Attention is then announced through an eventfd. The thread asks for SCHED_FIFO and
 * says whether it got it; it keeps a budget: after a turn that ran into the next tick it rests for at least a tenth of
 * what it has run since it last rested, so a core of its own or not, Python gets its turn.
 *
 * Staying. While nobody else in Python's thread has anything to do, going back to it between two turns is only cost: 0.15-0.2 ms
 * of a scheduler's pass through a cold cache. tp_pump_stay() waits for the next turns itself, and comes back as soon as anybody
 * is to be seen to: attention, a hand-over, cipher, a turn that came late, or whatever else makes `others` readable.
 *
 * How to use it. open() with memory that the caller owns; add slots, open ports; each tick: step() (or read(), attend,
 * tick(), attend); take the attention and the hand-over; close ports before their descriptors. `now` is the run's time as
 * everywhere; only lateness and the thread read the clock, and they only when `origin` is not 0. The thread writes `signal`
 * when something waits: read it, then take the attention and the hand-over, both.
 *
 * The files. tp_pump.c: the turn, members, opening and closing; tp_pump_ports.c: what Python does with a port, from opening to
 * closing it; tp_port.c: what one socket reads and sends; tp_uring.c: many of their system calls in one; tp_pump_stay.c: staying;
 * tp_pump_thread.c: the thread; tp_pump_none.c: where there is no Linux.
 *
 * Figures to hold: no allocation; a two-way call-frame below 3 us outside the kernel; an idle slot below 2 ns a turn.
 * Source: own; epoll(7), RFC 6455. */
#ifndef TP_PUMP_H
#define TP_PUMP_H
#include "tp_latch.h"
#include "tp_path.h"
#include "tp_uring.h"

#define TP_PUMP_TICK_NS 5000000
#define TP_PUMP_ROUNDS 8
#define TP_PUMP_STRANGERS 256
#define TP_PUMP_IN_MAX (64u * 1024u)
#define TP_PUMP_MEDIA_MAX (8u * 1024u)
#define TP_PUMP_CONTROL_MAX (64u * 1024u)
#define TP_PUMP_SPEECH_MAX (32u * 1024u)     /* of a line's, written at once; more follows when the socket has taken it */
#define TP_PUMP_IN_RESERVE 4u                /* blocks of the pool that every stream port is sure of; a leg needs none */
#define TP_PUMP_OUT_RESERVE 9u
#define TP_PUMP_SCRATCH_BYTES (256u * 1024u) /* of one recv, and the most that is parsed at once */
#define TP_PUMP_CIPHER_ONCE (64u * 1024u)    /* cipher of one recv */
#define TP_PUMP_CIPHER_MAX (2u * (TP_PUMP_MEDIA_MAX + TP_PUMP_CONTROL_MAX)) /* of a cipher port, what may wait */
#define TP_PUMP_CIPHER_PIECE 4096u           /* what a cipher port has to say at once is one output up to this: one record */
#define TP_PUMP_PHASES 12                    /* of 5 ms in the longest ptime */
#define TP_PUMP_LATENESS_BUCKETS 256         /* of 0.1 ms up to 20 ms, then of 5 ms; the last has no end */
#define TP_PUMP_RING_READS 64u               /* made at once */
#define TP_PUMP_RING_PIECE (5u * 1024u + 64u) /* of each; no power of two, or all would want the same lines of the cache */
#define TP_PUMP_RING_BYTES (TP_PUMP_RING_READS * TP_PUMP_RING_PIECE)
#define TP_NO_PORT 0u                        /* port 0 is never given out */

enum { TP_PORT_FREE = 0, TP_PORT_LEG = 1, TP_PORT_STREAM = 2 };
enum { TP_STREAM_LIVE = 1, TP_STREAM_CIPHER = 2 };               /* of tp_pump_open_stream */
enum { TP_SEND_MEDIA = 0, TP_SEND_CONTROL = 1, TP_SEND_CIPHER = 2 }; /* of tp_pump_send */
enum { TP_OUTPUT_CIPHER = 64 };                                    /* in the hand-over: to be encrypted; `slot` is the port's number */

/* Attention: bits of `what`. */
enum {
    TP_ATTEND_EVENTS = 1,    /* slot: its path or line has events to pull */
    TP_ATTEND_HELD = 2,      /* port: tp_pump_take_held */
    TP_ATTEND_FULL = 4,      /* port: bytes wait for the socket; flush until none does */
    TP_ATTEND_ENDED = 8,     /* port: the peer closed the connection */
    TP_ATTEND_BROKEN = 16,   /* port: it failed, see `error` */
    TP_ATTEND_PROTOCOL = 32, /* port: the peer broke RFC 6455, `error` is TP_PROTOCOL_x; it can still be sent to */
    TP_ATTEND_LEARNED = 64,  /* port (leg): another source is trusted now */
    TP_ATTEND_STUCK = 128    /* slot: it found no room in an empty outbox; a bug of ours */
};
typedef struct tp_attention {
    uint32_t slot;
    uint32_t what;
    uint64_t port;       /* its handle; 0: the slot itself */
    int32_t error;       /* errno, or TP_PROTOCOL_x */
    uint32_t generation; /* of the slot */
} tp_attention;

/* Cipher that came: where it lies in the arena. */
typedef struct tp_cipher {
    uint64_t port;
    uint32_t offset, length;
} tp_cipher;

typedef struct tp_port {
    int32_t fd;
    uint32_t generation, slot;
    uint8_t kind, index;         /* index: which stream of the call */
    uint8_t live;
    uint8_t held;                /* nothing is read: 1 until tp_pump_give, 2 for good (a protocol error) */
    uint8_t dead;                /* ended or broken: nothing is read or sent any more */
    uint8_t family;              /* legs: 4 or 6 */
    uint8_t cipher;              /* STREAM: TLS, what is on the wire passes through Python */
    uint8_t deciphering;         /* cipher of it is on its way through Python: no more is read before tp_pump_receive */
    uint8_t flushing;            /* FULL was said and not yet answered by a flush to the end */
    uint8_t queued;              /* a message of it is in the ring */
    uint8_t held_result;         /* what tp_stream_receive answered to the first held bytes */
    uint32_t attention;          /* bits not yet taken; the port is in the list when not 0 */
    int32_t error;
    tp_stream *stream;           /* STREAM */
    tp_path *path;               /* LEG */
    tp_latch *latch;             /* LEG */
    int64_t last_received;
    uint64_t media_dropped, send_failures;
    uint32_t in_needed;          /* bytes the unfinished frame will have in all; 0: not known yet */
    uint32_t in_bytes, out_bytes;
    uint32_t handed;             /* CIPHER: bytes in the hand-over, until some come back encrypted */
    tp_chain in, out;
    tp_received held_report;     /* relative to the first held byte; n_media: messages taken just before it */
} tp_port;

typedef struct tp_slot {
    tp_path *path;
    tp_stream *line;
    uint32_t generation, attention;
    uint32_t leg, streams[TP_PATH_STREAMS]; /* port numbers; a line's is streams[0] */
    uint32_t handover_dropped;
} tp_slot;

/* Everything is the caller's; n_slots and n_ports are fixed for the pump's life. `zeroed` says what must be zero. */
typedef struct tp_pump_memory {
    tp_slot *slots;          /* zeroed */
    int64_t *due;            /* n_slots */
    tp_port *ports;          /* zeroed; [0] is not used */
    tp_attention *attention; /* n_slots + n_ports entries */
    uint32_t *free_ports;    /* n_ports */
    uint8_t *pool_bytes;     /* for what waits in chains */
    uint8_t *scratch;        /* TP_PUMP_SCRATCH_BYTES */
    uint8_t *outbox_bytes;
    tp_output *outbox_outputs;
    uint8_t *handover_bytes[2];
    tp_output *handover_outputs[2];
    uint32_t n_slots, n_ports;
    uint32_t outbox_capacity, outbox_outputs_capacity;
    uint32_t handover_capacity, handover_outputs_capacity;
    uint64_t pool_capacity;
    uint8_t *cipher_bytes[2];     /* NULL: no port can be opened with TP_STREAM_CIPHER */
    tp_cipher *cipher_entries[2]; /* n_ports of each */
    uint32_t cipher_capacity;
    uint8_t *ring_bytes; /* TP_PUMP_RING_BYTES; NULL: no ring, every system call is made alone */
} tp_pump_memory;

typedef struct tp_pump_counters {
    uint64_t turns, path_ticks, line_ticks, datagrams_in, datagrams_out, messages_out, reads;
    uint64_t busy_ns;            /* CPU time of the turns, by the thread's own clock */
    uint64_t stalls;             /* turns that began more than 20 ms late */
    uint64_t handover_dropped;
    uint64_t budget_rests;       /* how often the thread rested because it had run too long */
    int64_t late_max_ns, late_sum_ns;
} tp_pump_counters;

typedef struct tp_pump {
    tp_pump_memory m;
    tp_pool pool;
    tp_outbox outbox;
    tp_outbox handover[2];       /* one is filled, the other is Python's */
    uint32_t filling;
    uint32_t cipher_filling, cipher_used, n_cipher; /* of the arena that is filled; the other is Python's */
    uint32_t high_slot;          /* slots from here on were never used */
    uint32_t n_free_ports, n_attention, n_members, n_open_ports;
    int32_t epoll, signal, wake; /* signal: eventfd for Python; wake: eventfd for the thread */
    int64_t origin;              /* CLOCK_MONOTONIC of time 0; 0: nothing is measured */
    int64_t now;                 /* of the last turn that ticked */
    int64_t next_due;            /* earliest deadline as of the last tick; INT64_MAX: none */
    uint32_t signalled;
    int32_t realtime;            /* of the thread: 1 got SCHED_FIFO, 0 did not, -1 no thread runs */
    uint32_t stopping, running;
    uint32_t paused;             /* how often Python has asked the thread to wait */
    uint32_t interrupted;        /* the thread's own: this turn found it paused, and is not at its end */
    tp_uring uring;
    tp_pump_counters counters;
    uint64_t lateness[TP_PUMP_PHASES][TP_PUMP_LATENESS_BUCKETS]; /* of each path's tick once its packets are sent, by phase of its grid */
} tp_pump;

/* -> TP_OK; TP_E_ARGUMENT; TP_E_STATE: no epoll on this system, or no descriptor left (errno tells) */
int tp_pump_open(tp_pump *pump, const tp_pump_memory *memory, int64_t origin);
void tp_pump_close(tp_pump *pump); /* every port and slot forgotten; descriptors of the sockets are the caller's to close */

/* Members. The slot's number is the caller's choice below n_slots and free. -> TP_OK, TP_E_ARGUMENT */
int tp_pump_add_path(tp_pump *pump, uint32_t slot, tp_path *path);
int tp_pump_add_line(tp_pump *pump, uint32_t slot, tp_stream *line);
/* Idempotent; attention of it is forgotten. Of its ports nothing is read or ticked any more, but each still is to be closed:
 * what waits in it is its owner's. */
void tp_pump_remove(tp_pump *pump, uint32_t slot);
/* After Python changed what a line has to send, or answered TP_EVENT_MARK_DUE: look at its deadline again. */
void tp_pump_rearm(tp_pump *pump, uint32_t slot, int64_t now);
/* tp_stream_say to a line, which looks at its deadline again: one call for each piece that a program says. What is said is
 * due at the turn after the last one, not before: who measures how late turns are would count it as a turn late. -> 1 or 0 */
int tp_pump_say(tp_pump *pump, uint32_t slot, uint32_t encoding, const void *in, size_t in_bytes);

/* Ports. -> a handle > 0 (generation << 32 | number), or TP_E_FULL (no port or no reserve left), TP_E_STATE (epoll refused) */
int64_t tp_pump_open_leg(tp_pump *pump, uint32_t slot, int fd, int family, tp_latch *latch, int64_t now);
/* A stream's port begins held: nothing is read before tp_pump_give, for what came with the handshake comes first.
 * LIVE: a call's tracks, dropped when they cannot leave; else a line's speech. CIPHER: TLS, see above. `index`: of the call's
 * stream; 0 for a line. */
int64_t tp_pump_open_stream(tp_pump *pump, uint32_t slot, uint32_t index, int fd, tp_stream *stream, int flags, int64_t now);
/* Forget the port before its descriptor is closed; idempotent. What waited for the socket is copied to `waiting` (at least
 * TP_PUMP_CIPHER_MAX bytes; NULL: dropped), what was read and not parsed to `unread` (at least
 * TP_PUMP_SCRATCH_BYTES; NULL: dropped). -> bytes in `waiting`, TP_E_STATE for a stale handle; *n_unread is set */
int64_t tp_pump_close_port(tp_pump *pump, int64_t port, uint8_t *waiting, uint8_t *unread, uint32_t *n_unread);
/* NULL for a stale handle; for statistics. */
const tp_port *tp_pump_port(const tp_pump *pump, int64_t port);

/* The turn. step = read, and when nothing needs attention or deciphering after it, tick. A tick that has filled a sixteenth of
 * the hand-over leaves the other members for another (next_due <= now): take the hand-over, then tick again. -> entries of
 * attention waiting; *ticked tells */
int tp_pump_read(tp_pump *pump, int64_t now);
int tp_pump_tick(tp_pump *pump, int64_t now);
int tp_pump_step(tp_pump *pump, int64_t now, int *ticked);
/* Turns in a row, without Python. `timer` is a timerfd, in the set whose epoll `others` is, and is armed for the next turn: then
 * and when it is left it fires no later than anybody has to look again (`armed` says when; -1: as it was). -> turns taken (0:
 * the next one is not due by `until`, or others came first), TP_E_STATE: no `origin`, or a thread runs */
#define TP_STAY_TURNS 64u
typedef struct tp_stay {
    int32_t timer, others;
    int64_t until;              /* no turn that is due later, and back by then */
    int64_t enough;             /* the first turn that ends after this is the last */
    int64_t last;               /* when the latest turn began, before and after */
    int64_t armed;
    int64_t done;               /* out: when the last turn ended */
    int64_t before, cpu_before; /* out, of two turns or more: the end of the last but one, and the thread's CPU time as the last began */
    uint32_t polls;             /* whether there is a turn on every tick of the grid */
    uint32_t n;
    int64_t late[TP_STAY_TURNS]; /* out: how late each turn was done; none but the last more than 20 ms */
} tp_stay;
int tp_pump_stay(tp_pump *pump, tp_stay *stay);
/* Moves up to n entries out of the list, the oldest first; an entry whose slot or port is gone is left out. -> entries */
int tp_pump_take_attention(tp_pump *pump, tp_attention *out, uint32_t n);

/* A held port. take: the bytes from the beginning of the held frame on (unmasked as far as *report says), and what
 * tp_stream_receive answered to them (*result; TP_RECEIVED_ALL: an unfinished frame too long to wait here). The port stays
 * held. -> bytes, TP_E_STATE, or TP_E_ROOM (TP_PUMP_SCRATCH_BYTES is always enough). give: what the caller left of it, the
 * beginning of a frame that will have `needed` bytes (0: not known); reading goes on. -> TP_OK, TP_E_FULL: too much to wait
 * here, nothing was taken, the port stays held; TP_E_STATE: not held, or for good */
int64_t tp_pump_take_held(tp_pump *pump, int64_t port, tp_received *report, int *result, uint8_t *out, size_t capacity);
int tp_pump_give(tp_pump *pump, int64_t port, const uint8_t *left, size_t n, uint32_t needed);

/* Sending from Python, behind whatever waits. CONTROL: never dropped. -> 0 sent, > 0 bytes that now wait (the caller sees to
 * flush, as after FULL), TP_E_FULL refused (control) or dropped and counted (media), TP_E_STATE dead or stale.
 * CIPHER: what is encrypted must leave, all of it and in order: it is taken up to TP_PUMP_CIPHER_MAX, beyond which the port is
 * broken; that some waits is said as FULL, once, as for what the pump sends itself. */
int tp_pump_send(tp_pump *pump, int64_t port, const uint8_t *bytes, size_t n, int kind);
/* -> bytes that still wait; < 0 dead or stale (BROKEN is said as attention too) */
int tp_pump_flush(tp_pump *pump, int64_t port);
int tp_pump_send_datagram(tp_pump *pump, int64_t port, const uint8_t *bytes, size_t n);

/* The hand-over: swaps the two outboxes and returns the number (0, 1) of the one that is now the caller's, valid until the
 * next swap (without a thread: the next read or tick); -1 when nothing waits. */
int tp_pump_take_handover(tp_pump *pump);

/* Cipher ports. take_cipher: swaps the two arenas and returns the number (0, 1) of the one that is now the caller's, valid until
 * the next swap (without a thread: the next read), and how many entries it has; -1 when none has come. receive, once for each
 * entry at least: its plaintext, dealt with as what a plain port reads; n = 0: no record is whole yet. `plain` is unmasked in
 * place. -> 1: the port is held now, the caller keeps what else it has decrypted until after tp_pump_give; TP_OK; TP_E_FULL: no
 * room for it, the port is broken; TP_E_STATE: stale, dead or held. end: nothing more will come, deal with it as the end of a
 * plain connection (ENDED). */
int tp_pump_take_cipher(tp_pump *pump, uint32_t *n_entries);
/* The same for n entries in a row from `first` on, of the arena that was taken last; their plaintext lies where their cipher
 * lay. */
void tp_pump_receive_many(tp_pump *pump, uint32_t first, uint32_t n, const uint32_t *lengths, int64_t now);
/* And for n outputs in a row of the hand-over that was taken last: their cipher, each sent as by tp_pump_send. */
void tp_pump_send_many(tp_pump *pump, uint32_t first, uint32_t n, const uint32_t *lengths, const uint8_t *cipher);
int tp_pump_receive(tp_pump *pump, int64_t port, uint8_t *plain, size_t n, int64_t now);
int tp_pump_end(tp_pump *pump, int64_t port);

/* The thread. run: returns when stop() was called, at the latest 5 ms and one turn later; restores its scheduling. A stop()
 * that comes before the run ends it as it begins. TP_E_STATE: one runs already, or there is no `origin`. */
int tp_pump_run(tp_pump *pump, int realtime_priority); /* 0: do not ask for SCHED_FIFO */
void tp_pump_stop(tp_pump *pump);
/* 1: the thread does nothing from here on, until -1: so that several calls from Python have nothing happen between them.
 * A turn that finds it paused is taken up again a tenth of a millisecond later. Without a thread it changes nothing. */
void tp_pump_pause(tp_pump *pump, int by);

/* The guard, for the module's glue. begin and end frame a thread's life and may nest: begin while the GIL is still held,
 * so that nobody is within an unguarded call when the thread starts. enter -> whether it locked, which leave must be told,
 * for the last thread may end in between; one load and a branch while no thread runs in this process. Not recursive. */
void tp_pump_guard_begin(void);
void tp_pump_guard_end(void);
bool tp_pump_guard_enter(void);
void tp_pump_guard_leave(bool entered);

/* The thread's turn: read and tick, the guard taken for one port or one slot at a time. -> CPU time, ns */
int64_t tp_pump_turn(tp_pump *pump, int64_t now);
/* Says through the eventfd that something waits for Python, once until it has been taken. */
void tp_pump_announce(tp_pump *pump);

#endif
