/* SPDX-License-Identifier: MIT */
/*
 * Memory of one connection: page-aligned payload buffers by power of two, kept in lists and given
 * back when the connection idles, and the chunks that receive from the socket. What is held, cached
 * or not, is charged to the instance's budget. The buffer used last is used next: it is still in
 * the processor's cache.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "export/nbd/internal.h"
#include "util/checked.h"
#include "util/mem.h"

#define BUF_MMAP_MIN (128u * 1024)

static unsigned buf_class(size_t bytes)
{
    unsigned shift = NBD_BUF_SHIFT_MIN;

    assert(bytes > 0 && bytes <= (size_t)NBD_MAX_PAYLOAD_BYTES);
    if (bytes > ((size_t)1 << NBD_BUF_SHIFT_MIN)) {
        shift = 64 - (unsigned)__builtin_clzll(bytes - 1);
    }
    return shift - NBD_BUF_SHIFT_MIN;
}

static void *pages_new(size_t bytes)
{
    void *mem;

    if (bytes >= BUF_MMAP_MIN) {
        return os->mmap(bytes, PROT_READ | PROT_WRITE, 0, &mem) < 0 ? NULL : mem;
    }
    /* Cleared as the kernel's pages are: a driver may leave a part of a read alone, and what this
     * process had there before is not for the client. */
    return posix_memalign(&mem, 4096, bytes) != 0 ? NULL : memset(mem, 0, bytes);
}

static void pages_free(void *mem, size_t bytes)
{
    if (bytes >= BUF_MMAP_MIN) {
        os->munmap(mem, bytes);
    } else {
        free(mem);
    }
}

void nbd_bufs_init(struct nbd_bufs *bufs, struct mem_budget *budget, unsigned max_users)
{
    bufs->budget = budget;
    bufs->reserve_bytes = budget->limit_bytes / 2;
    bufs->share_bytes = max_u64(bufs->reserve_bytes / max_users, NBD_BUF_SHARE_MIN);
}

/* What must be left to others when this user holds bytes more. */
static uint64_t bufs_leave(const struct nbd_bufs *bufs, uint64_t bytes)
{
    return bufs->held_bytes + bytes > bufs->share_bytes ? bufs->reserve_bytes : 0;
}

static uint64_t budget_left(const struct mem_budget *budget)
{
    uint64_t used = atomic_load_explicit(&budget->used_bytes, memory_order_relaxed);

    return used < budget->limit_bytes ? budget->limit_bytes - used : 0;
}

bool nbd_bufs_room(const struct nbd_bufs *bufs, uint64_t bytes)
{
    /* What is cached can be given back and taken again. */
    uint64_t more = bytes > bufs->cached_bytes ? bytes - bufs->cached_bytes : 0;
    uint64_t leave = bufs_leave(bufs, more);
    uint64_t left = budget_left(bufs->budget);

    return left >= leave && more <= left - leave;
}

static bool bufs_take(struct nbd_bufs *bufs, uint64_t bytes)
{
    if (!mem_budget_take_leaving(bufs->budget, bytes, bufs_leave(bufs, bytes))) {
        return false;
    }
    bufs->held_bytes += bytes;
    return true;
}

static void bufs_give(struct nbd_bufs *bufs, uint64_t bytes)
{
    bufs->held_bytes -= bytes;
    mem_budget_give(bufs->budget, bytes);
}

void *nbd_bufs_get(struct nbd_bufs *bufs, size_t bytes, size_t *ret_cap)
{
    unsigned class = buf_class(bytes);
    size_t cap = (size_t)1 << (class + NBD_BUF_SHIFT_MIN);
    struct nbd_buf_free *buf = bufs->free[class];

    *ret_cap = cap;
    if (LIKELY(buf != NULL)) {
        bufs->free[class] = buf->next;
        bufs->cached_bytes -= cap;
        return buf;
    }
    if (!bufs_take(bufs, cap)) {
        nbd_bufs_trim(bufs);
        if (!bufs_take(bufs, cap)) {
            return NULL;
        }
    }
    buf = pages_new(cap);
    if (buf == NULL) {
        bufs_give(bufs, cap);
    }
    return buf;
}

void nbd_bufs_put(struct nbd_bufs *bufs, void *mem, size_t cap)
{
    struct nbd_buf_free *buf = mem;
    unsigned class = buf_class(cap);

    /* Beyond the share nothing is kept that others are short of. */
    if (bufs->cached_bytes + cap > NBD_BUF_CACHED_MAX ||
        (bufs->held_bytes > bufs->share_bytes && budget_left(bufs->budget) < bufs->reserve_bytes)) {
        pages_free(mem, cap);
        bufs_give(bufs, cap);
        return;
    }
    buf->next = bufs->free[class];
    bufs->free[class] = buf;
    bufs->cached_bytes += cap;
}

void nbd_bufs_trim(struct nbd_bufs *bufs)
{
    unsigned class;

    for (class = 0; class < NBD_BUF_CLASSES; class ++) {
        size_t cap = (size_t)1 << (class + NBD_BUF_SHIFT_MIN);

        while (bufs->free[class] != NULL) {
            struct nbd_buf_free *buf = bufs->free[class];

            bufs->free[class] = buf->next;
            bufs->cached_bytes -= cap;
            pages_free(buf, cap);
            bufs_give(bufs, cap);
        }
    }
    assert(bufs->cached_bytes == 0);
}

struct nbd_chunk *nbd_chunk_new(struct nbd_bufs *bufs)
{
    struct nbd_chunk *chunk = malloc(sizeof(*chunk));
    size_t cap;

    if (chunk == NULL) {
        return NULL;
    }
    chunk->data = nbd_bufs_get(bufs, NBD_CHUNK_BYTES, &cap);
    if (chunk->data == NULL) {
        free(chunk);
        return NULL;
    }
    assert(cap == NBD_CHUNK_BYTES);
    chunk->refs = 1;
    return chunk;
}

void nbd_chunk_unref(struct nbd_bufs *bufs, struct nbd_chunk *chunk)
{
    if (chunk != NULL && --chunk->refs == 0) {
        nbd_bufs_put(bufs, chunk->data, NBD_CHUNK_BYTES);
        free(chunk);
    }
}
