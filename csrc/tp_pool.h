#ifndef TP_POOL_H
#define TP_POOL_H
#include "tp_base.h"

/* Blocks of 1 KiB shared by every queue of an engine. Each queue has a reserve that is always its own; beyond it a
 * queue borrows only while n_free > n_reserved (blocks promised to others and not in use). */
#define TP_BLOCK_BYTES 1024u
#define TP_NO_BLOCK 0xffffffffu

typedef struct tp_pool {
    uint8_t *bytes;      /* n_blocks * TP_BLOCK_BYTES */
    uint32_t *next;      /* n_blocks links */
    uint32_t n_blocks, free_head, n_free;
    uint32_t n_reserved; /* promised to queues and not in use by them */
    uint32_t n_refused, n_peak;
} tp_pool;

int tp_pool_init(tp_pool *pool, void *memory, size_t memory_bytes); /* -> number of blocks, or TP_E_ARGUMENT */

/* A first-in-first-out run of blocks. */
typedef struct tp_chain {
    uint32_t head, tail, head_at, tail_at; /* blocks and byte offsets in them */
    uint32_t n_blocks, reserve;
} tp_chain;

int tp_chain_open(tp_chain *chain, tp_pool *pool, uint32_t reserve_blocks); /* TP_E_FULL: the reserve cannot be had */
void tp_chain_close(tp_chain *chain, tp_pool *pool);                        /* blocks and reserve go back */
void tp_chain_clear(tp_chain *chain, tp_pool *pool);                        /* blocks go back, O(1) */

#endif
