/* SPDX-License-Identifier: MIT */
/*
 * The sparse map of a disk in memory: four levels of tables, then chunks of 64 KiB.
 *
 * M1  A table or chunk is put in place by compare-and-swap of an empty entry and is all zero, or
 *     holds the bytes of the request, before it is seen.
 * M2  Chunks are touched, and tables walked to reach them, only with a door held.
 * M3  A chunk is freed only after it was unlinked and every door that was ever taken has been taken
 *     and released since: nobody who could have seen it is still inside.
 * M4  Tables stay until the store ends.
 *
 * The order that M3 needs: whoever enters sets its bit in doors_used before it loads an entry;
 * whoever frees unlinks before it loads doors_used. All four are sequentially consistent, so one
 * of the two sees the other.
 */
#include "mem.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/checked.h"
#include "util/iov.h"
#include "util/mem.h"

/* What one call of store_zero unlinks before it frees: bounds the list on the stack. */
#define MEM_RETIRE_MAX 128

static void store_enter(struct mem_store *store, unsigned slot)
{
    uint64_t bit = UINT64_C(1) << slot;

    assert(slot < OS_SLOTS);
    if (UNLIKELY((atomic_load_explicit(&store->doors_used, memory_order_relaxed) & bit) == 0)) {
        atomic_fetch_or(&store->doors_used, bit);
    }
    os_mutex_lock(&store->door[slot].lock);
}

static void store_leave(struct mem_store *store, unsigned slot)
{
    os_mutex_unlock(&store->door[slot].lock);
}

/* Wait until everybody who is inside now has left. */
static void store_synchronize(struct mem_store *store)
{
    uint64_t used = atomic_load(&store->doors_used);

    for (unsigned i = 0; i < OS_SLOTS; i++) {
        if ((used >> i & 1) != 0) {
            os_mutex_lock(&store->door[i].lock);
            os_mutex_unlock(&store->door[i].lock);
        }
    }
}

static unsigned level_shift(unsigned level)
{
    return MEM_CHUNK_BITS + (MEM_LEVELS - 1 - level) * MEM_LEVEL_BITS;
}

static _Atomic(void *) *level_entry(struct mem_table *table, unsigned level, uint64_t offset)
{
    return &table->entry[offset >> level_shift(level) & (MEM_LEVEL_ENTRIES - 1)];
}

/* The entry of the chunk at offset, or NULL when a table is missing; *ret_skip is the length from
 * offset on that has no chunk then. */
static _Atomic(void *) *chunk_entry(struct mem_store *store, uint64_t offset, uint64_t *ret_skip)
{
    struct mem_table *table = &store->root;

    for (unsigned level = 0; level < MEM_LEVELS - 1; level++) {
        table = atomic_load_explicit(level_entry(table, level, offset), memory_order_acquire);
        if (table == NULL) {
            uint64_t span = UINT64_C(1) << level_shift(level);

            *ret_skip = span - (offset & (span - 1));
            return NULL;
        }
    }
    *ret_skip = MEM_CHUNK_BYTES - (offset & (MEM_CHUNK_BYTES - 1));
    return level_entry(table, MEM_LEVELS - 1, offset);
}

/* The chunk at offset or NULL; *ret_len: how far from offset the answer holds. */
static uint8_t *chunk_find(struct mem_store *store, uint64_t offset, uint64_t *ret_len)
{
    _Atomic(void *) *entry = chunk_entry(store, offset, ret_len);

    return entry != NULL ? atomic_load(entry) : NULL;
}

/* Put fresh (of bytes) into an empty entry, or free it and use what is there by now. */
static void *entry_install(struct mem_store *store, _Atomic(void *) *entry, void *fresh,
                           uint64_t bytes)
{
    void *seen = NULL;

    if (atomic_compare_exchange_strong(entry, &seen, fresh)) {
        return fresh;
    }
    free(fresh);
    mem_budget_give(store->budget, bytes);
    return seen;
}

/* Zeroed memory on the budget: 0, -ENOSPC or -ENOMEM. */
static int store_alloc(struct mem_store *store, size_t bytes, void **ret)
{
    if (!mem_budget_take(store->budget, bytes)) {
        return -ENOSPC;
    }
    *ret = calloc(1, bytes);
    if (*ret == NULL) {
        mem_budget_give(store->budget, bytes);
        return -ENOMEM;
    }
    return 0;
}

/* The chunk at offset, made when it is missing. */
static int chunk_get(struct mem_store *store, uint64_t offset, uint8_t **ret_chunk)
{
    struct mem_table *table = &store->root;

    for (unsigned level = 0;; level++) {
        bool last = level == MEM_LEVELS - 1;
        size_t bytes = last ? MEM_CHUNK_BYTES : sizeof(struct mem_table);
        _Atomic(void *) *entry = level_entry(table, level, offset);
        void *next = atomic_load(entry);

        if (next == NULL) {
            void *fresh;
            int rc = store_alloc(store, bytes, &fresh);

            if (rc < 0) {
                return rc;
            }
            next = entry_install(store, entry, fresh, bytes);
            if (last && next == fresh) {
                atomic_fetch_add_explicit(&store->chunks, 1, memory_order_relaxed);
            }
        }
        if (last) {
            *ret_chunk = next;
            return 0;
        }
        table = next;
    }
}

struct mem_store *mem_store_new(struct mem_budget *budget)
{
    struct mem_store *store;

    if (!mem_budget_take(budget, sizeof(*store))) {
        return NULL;
    }
    if (posix_memalign((void **)&store, 64, sizeof(*store)) != 0) {
        mem_budget_give(budget, sizeof(*store));
        return NULL;
    }
    memset(store, 0, sizeof(*store));
    store->budget = budget;
    for (unsigned i = 0; i < OS_SLOTS; i++) {
        os_mutex_init(&store->door[i].lock);
    }
    return store;
}

/* Depth is MEM_LEVELS, so recursion is bounded. */
static void table_free(struct mem_store *store, struct mem_table *table, unsigned level)
{
    for (unsigned i = 0; i < MEM_LEVEL_ENTRIES; i++) {
        void *below = atomic_load_explicit(&table->entry[i], memory_order_relaxed);

        if (below == NULL) {
            continue;
        }
        if (level == MEM_LEVELS - 1) {
            mem_budget_give(store->budget, MEM_CHUNK_BYTES);
        } else {
            table_free(store, below, level + 1);
            mem_budget_give(store->budget, sizeof(struct mem_table));
        }
        free(below);
    }
}

void mem_store_free(struct mem_store *store)
{
    if (store == NULL) {
        return;
    }
    table_free(store, &store->root, 0);
    for (unsigned i = 0; i < OS_SLOTS; i++) {
        os_mutex_fini(&store->door[i].lock);
    }
    mem_budget_give(store->budget, sizeof(*store));
    free(store);
}

/* Walks a scatter list forward, so that a long list is not searched for every chunk. */
struct iov_cursor {
    const struct iovec *iov;
    size_t niov;
    uint64_t offset; /* inside iov[0] */
};

static void cursor_settle(struct iov_cursor *cur)
{
    while (cur->niov > 0 && cur->offset >= cur->iov->iov_len) {
        cur->offset -= cur->iov->iov_len;
        cur->iov++;
        cur->niov--;
    }
}

static void cursor_advance(struct iov_cursor *cur, uint64_t bytes)
{
    cur->offset += bytes;
    cursor_settle(cur);
}

void mem_store_read(struct mem_store *store, unsigned slot, uint64_t offset, uint64_t bytes,
                    const struct iovec *iov, size_t niov, uint64_t iov_offset)
{
    struct iov_cursor cur = {iov, niov, iov_offset};

    cursor_settle(&cur);
    store_enter(store, slot);
    while (bytes > 0) {
        uint64_t len;
        const uint8_t *chunk = chunk_find(store, offset, &len);

        len = min_u64(len, bytes);
        if (chunk != NULL) {
            iov_from_buf(cur.iov, cur.niov, cur.offset, chunk + offset % MEM_CHUNK_BYTES, len);
        } else {
            iov_fill(cur.iov, cur.niov, cur.offset, 0, len);
        }
        cursor_advance(&cur, len);
        offset += len;
        bytes -= len;
    }
    store_leave(store, slot);
}

int mem_store_write(struct mem_store *store, unsigned slot, uint64_t offset, uint64_t bytes,
                    const struct iovec *iov, size_t niov, uint64_t iov_offset)
{
    struct iov_cursor cur = {iov, niov, iov_offset};
    int rc = 0;

    cursor_settle(&cur);
    store_enter(store, slot);
    while (bytes > 0) {
        uint64_t in_chunk = offset % MEM_CHUNK_BYTES;
        uint64_t len = min_u64(MEM_CHUNK_BYTES - in_chunk, bytes);
        uint8_t *chunk;

        rc = chunk_get(store, offset, &chunk);
        if (rc < 0) {
            break;
        }
        iov_to_buf(cur.iov, cur.niov, cur.offset, chunk + in_chunk, len);
        cursor_advance(&cur, len);
        offset += len;
        bytes -= len;
    }
    store_leave(store, slot);
    return rc;
}

/* Free unlinked chunks. The caller is outside every door. Keeps M3. */
static void chunks_retire(struct mem_store *store, void **chunks, size_t n)
{
    if (n == 0) {
        return;
    }
    store_synchronize(store);
    for (size_t i = 0; i < n; i++) {
        free(chunks[i]);
    }
    atomic_fetch_sub_explicit(&store->chunks, n, memory_order_relaxed);
    mem_budget_give(store->budget, n * MEM_CHUNK_BYTES);
}

void mem_store_zero(struct mem_store *store, unsigned slot, uint64_t offset, uint64_t bytes)
{
    void *gone[MEM_RETIRE_MAX];

    while (bytes > 0) {
        size_t n = 0;

        store_enter(store, slot);
        while (bytes > 0 && n < MEM_RETIRE_MAX) {
            uint64_t len;
            _Atomic(void *) *entry = chunk_entry(store, offset, &len);
            uint8_t *chunk;

            len = min_u64(len, bytes);
            if (entry != NULL && len == MEM_CHUNK_BYTES) {
                chunk = atomic_exchange(entry, NULL);
                if (chunk != NULL) {
                    gone[n++] = chunk;
                }
            } else if (entry != NULL && (chunk = atomic_load(entry)) != NULL) {
                memset(chunk + offset % MEM_CHUNK_BYTES, 0, len);
            }
            offset += len;
            bytes -= len;
        }
        store_leave(store, slot);
        chunks_retire(store, gone, n);
    }
}

bool mem_store_status(struct mem_store *store, unsigned slot, uint64_t offset, uint64_t bytes,
                      uint64_t *ret_bytes)
{
    uint64_t done, len;
    bool data;

    store_enter(store, slot);
    data = chunk_find(store, offset, &done) != NULL;
    while (done < bytes && (chunk_find(store, offset + done, &len) != NULL) == data) {
        done += len;
    }
    store_leave(store, slot);
    *ret_bytes = min_u64(done, bytes);
    return data;
}

uint64_t mem_store_allocated_bytes(struct mem_store *store)
{
    return atomic_load_explicit(&store->chunks, memory_order_relaxed) * MEM_CHUNK_BYTES;
}
