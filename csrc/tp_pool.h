/* tp_pool: blocks of 1 KiB shared by every queue of an engine.
 *
 * What it does. Applications send whole utterances in one burst, so up to a minute of audio may wait for a call, while
 * most calls have nothing waiting. One pool of equal blocks serves them all: an idle queue holds none. Each queue has a
 * reserve that is always its own; beyond it a queue borrows only what no other reserve needs, so that one greedy call
 * never takes another's live audio.
 *
 * How it works. The blocks and one link per block lie in memory that the caller gives. Free blocks are a list, last
 * given first taken (warm in the cache). The pool counts the blocks that are promised and not yet in use (n_reserved)
 * and keeps n_free >= n_reserved: a chain within its reserve always gets a block and the promise shrinks by one; beyond
 * it a chain gets one only while n_free > n_reserved. A chain is a run of linked blocks; giving a whole chain back is
 * one splice, whatever its length.
 *
 * How to use it. tp_pool_init() on memory of any size; tp_chain_open() with a reserve (refused when the pool cannot
 * promise it: do not admit the call); tp_chain_push() / tp_chain_pop() at the ends; tp_chain_close() gives everything
 * back. tp_chain_take() / tp_chain_give() are for owners who keep block numbers in a table of their own. One thread at
 * a time per pool.
 *
 * Figures to hold: push + pop of a block below 10 ns, clear of 60 s of PCMU (473 blocks) below 50 ns.
 * Source: own. */
#ifndef TP_POOL_H
#define TP_POOL_H
#include "tp_base.h"

#define TP_BLOCK_BYTES 1024u
#define TP_NO_BLOCK 0xffffffffu

typedef struct tp_pool {
    uint8_t *bytes;      /* n_blocks * TP_BLOCK_BYTES */
    uint32_t *next;      /* n_blocks links */
    uint32_t n_blocks, free_head, n_free;
    uint32_t n_reserved; /* promised to queues and not in use by them */
    uint32_t n_refused;  /* blocks asked for and not given */
    uint32_t n_peak;     /* most blocks ever in use at once */
} tp_pool;

/* `memory` is aligned to 4 bytes. -> number of blocks, or TP_E_ARGUMENT when there is not room for one */
int tp_pool_init(tp_pool *pool, void *memory, size_t memory_bytes);

static inline uint8_t *tp_pool_block(const tp_pool *pool, uint32_t block) {
    return pool->bytes + (size_t)block * TP_BLOCK_BYTES;
}

/* A first-in-first-out run of blocks. */
typedef struct tp_chain {
    uint32_t head, tail, head_at, tail_at; /* blocks and byte offsets in them; the offsets are the owner's business */
    uint32_t n_blocks, reserve;
} tp_chain;

int tp_chain_open(tp_chain *chain, tp_pool *pool, uint32_t reserve_blocks); /* TP_E_FULL: the reserve cannot be had */
void tp_chain_close(tp_chain *chain, tp_pool *pool);                        /* blocks and reserve go back */
void tp_chain_clear(tp_chain *chain, tp_pool *pool);                        /* blocks go back, O(1) */
void tp_chain_release(tp_chain *chain, tp_pool *pool);                      /* the reserve goes back, blocks in use stay */

uint32_t tp_chain_push(tp_chain *chain, tp_pool *pool); /* a fresh block at the tail, or TP_NO_BLOCK (counted) */
void tp_chain_pop(tp_chain *chain, tp_pool *pool);      /* the head block goes back */

uint32_t tp_chain_take(tp_chain *chain, tp_pool *pool); /* a block that the chain pays for but does not link */
void tp_chain_give(tp_chain *chain, tp_pool *pool, uint32_t block);

#endif
