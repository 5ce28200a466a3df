/* SPDX-License-Identifier: MIT */
/*
 * Memory of one connection: page-aligned payload buffers by power of two, kept in lists and given
 * back when the connection idles, and the chunks that receive from the socket. What is held, cached
 * or not, is charged to the instance's budget. The buffer used last is used next: it is still in
 * the processor's cache.
 */
#include <assert.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "export/nbd/internal.h"
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
    return posix_memalign(&mem, 4096, bytes) != 0 ? NULL : mem;
}

static void pages_free(void *mem, size_t bytes)
{
    if (bytes >= BUF_MMAP_MIN) {
        os->munmap(mem, bytes);
    } else {
        free(mem);
    }
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
    if (!mem_budget_take(bufs->budget, cap)) {
        nbd_bufs_trim(bufs);
        if (!mem_budget_take(bufs->budget, cap)) {
            return NULL;
        }
    }
    buf = pages_new(cap);
    if (buf == NULL) {
        mem_budget_give(bufs->budget, cap);
    }
    return buf;
}

void nbd_bufs_put(struct nbd_bufs *bufs, void *mem, size_t cap)
{
    struct nbd_buf_free *buf = mem;
    unsigned class = buf_class(cap);

    if (bufs->cached_bytes + cap > NBD_BUF_CACHED_MAX) {
        pages_free(mem, cap);
        mem_budget_give(bufs->budget, cap);
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
            mem_budget_give(bufs->budget, cap);
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
