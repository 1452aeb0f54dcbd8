#include "tp_pool.h"

int tp_pool_init(tp_pool *pool, void *memory, size_t memory_bytes) {
    size_t n = memory_bytes / (TP_BLOCK_BYTES + sizeof(uint32_t));
    if (memory == NULL || n == 0) return TP_E_ARGUMENT;
    if (n > 0x7fffffffu) n = 0x7fffffffu; /* the count is the return value */
    pool->bytes = memory;
    pool->next = (uint32_t *)(void *)((uint8_t *)memory + n * TP_BLOCK_BYTES);
    pool->n_blocks = pool->n_free = (uint32_t)n;
    pool->free_head = 0;
    pool->n_reserved = pool->n_refused = pool->n_peak = 0;
    for (uint32_t i = 0; i < pool->n_blocks; i++) pool->next[i] = i + 1;
    pool->next[n - 1] = TP_NO_BLOCK;
    return (int)n;
}

int tp_chain_open(tp_chain *chain, tp_pool *pool, uint32_t reserve_blocks) {
    if (pool->n_free - pool->n_reserved < reserve_blocks) return TP_E_FULL;
    pool->n_reserved += reserve_blocks;
    chain->head = chain->tail = TP_NO_BLOCK;
    chain->head_at = chain->tail_at = 0;
    chain->n_blocks = 0;
    chain->reserve = reserve_blocks;
    return TP_OK;
}

uint32_t tp_chain_take(tp_chain *chain, tp_pool *pool) {
    if (chain->n_blocks < chain->reserve) {
        pool->n_reserved--;
    } else if (pool->n_free <= pool->n_reserved) {
        pool->n_refused++;
        return TP_NO_BLOCK;
    }
    uint32_t block = pool->free_head;
    pool->free_head = pool->next[block];
    pool->n_free--;
    chain->n_blocks++;
    uint32_t in_use = pool->n_blocks - pool->n_free;
    if (in_use > pool->n_peak) pool->n_peak = in_use;
    return block;
}

void tp_chain_give(tp_chain *chain, tp_pool *pool, uint32_t block) {
    pool->next[block] = pool->free_head;
    pool->free_head = block;
    pool->n_free++;
    chain->n_blocks--;
    if (chain->n_blocks < chain->reserve) pool->n_reserved++;
}

uint32_t tp_chain_push(tp_chain *chain, tp_pool *pool) {
    uint32_t block = tp_chain_take(chain, pool);
    if (block == TP_NO_BLOCK) return block;
    pool->next[block] = TP_NO_BLOCK;
    if (chain->tail == TP_NO_BLOCK) {
        chain->head = block;
    } else {
        pool->next[chain->tail] = block;
    }
    chain->tail = block;
    return block;
}

void tp_chain_pop(tp_chain *chain, tp_pool *pool) {
    uint32_t block = chain->head;
    chain->head = pool->next[block];
    if (chain->head == TP_NO_BLOCK) chain->tail = TP_NO_BLOCK;
    tp_chain_give(chain, pool, block);
}

void tp_chain_clear(tp_chain *chain, tp_pool *pool) {
    if (chain->head != TP_NO_BLOCK) {
        pool->next[chain->tail] = pool->free_head;
        pool->free_head = chain->head;
        pool->n_free += chain->n_blocks;
        pool->n_reserved += chain->n_blocks < chain->reserve ? chain->n_blocks : chain->reserve;
        chain->n_blocks = 0;
    }
    chain->head = chain->tail = TP_NO_BLOCK;
    chain->head_at = chain->tail_at = 0;
}

void tp_chain_release(tp_chain *chain, tp_pool *pool) {
    if (chain->n_blocks < chain->reserve) pool->n_reserved -= chain->reserve - chain->n_blocks;
    chain->reserve = 0;
}

void tp_chain_close(tp_chain *chain, tp_pool *pool) {
    tp_chain_clear(chain, pool);
    tp_chain_release(chain, pool);
}
