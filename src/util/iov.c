/* SPDX-License-Identifier: MIT */
/*
 * Scatter lists. Every function walks the pieces of a range with struct iov_walk; a range that does
 * not lie inside the list is a bug of the caller and asserted.
 */
#include <assert.h>
#include <string.h>

#include "util/checked.h"
#include "util/iov.h"

/* Where a walk stands. */
struct iov_walk {
    const struct iovec *iov;
    size_t niov;
    size_t index;
    uint64_t skip; /* bytes of element index that are behind us */
    uint64_t left; /* bytes of the range still to come */
};

static struct iov_walk walk_begin(const struct iovec *iov, size_t niov, uint64_t offset,
                                  uint64_t bytes)
{
    struct iov_walk w = {.iov = iov, .niov = niov, .skip = offset, .left = bytes};

    while (w.index < niov && w.skip >= iov[w.index].iov_len) {
        w.skip -= iov[w.index].iov_len;
        w.index++;
    }
    return w;
}

/* The next piece that is not empty; false at the end of the range. */
static bool walk_next(struct iov_walk *w, struct iovec *ret_piece)
{
    uint64_t len;

    if (w->left == 0) {
        return false;
    }
    while (w->index < w->niov && w->skip == w->iov[w->index].iov_len) {
        w->index++;
        w->skip = 0;
    }
    assert(w->index < w->niov);
    len = min_u64(w->iov[w->index].iov_len - w->skip, w->left);
    ret_piece->iov_base = (char *)w->iov[w->index].iov_base + w->skip;
    ret_piece->iov_len = (size_t)len;
    w->skip += len;
    w->left -= len;
    return true;
}

uint64_t iov_bytes(const struct iovec *iov, size_t niov)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < niov; i++) {
        bytes += iov[i].iov_len;
    }
    return bytes;
}

struct iov_view iov_view_of(const struct iovec *iov, size_t niov)
{
    return (struct iov_view){.iov = iov, .niov = niov, .bytes = iov_bytes(iov, niov)};
}

void iov_to_buf(const struct iovec *iov, size_t niov, uint64_t offset, void *buf, size_t bytes)
{
    struct iov_walk w = walk_begin(iov, niov, offset, bytes);
    char *to = buf;
    struct iovec piece;

    while (walk_next(&w, &piece)) {
        memcpy(to, piece.iov_base, piece.iov_len);
        to += piece.iov_len;
    }
}

void iov_from_buf(const struct iovec *iov, size_t niov, uint64_t offset, const void *buf,
                  size_t bytes)
{
    struct iov_walk w = walk_begin(iov, niov, offset, bytes);
    const char *from = buf;
    struct iovec piece;

    while (walk_next(&w, &piece)) {
        memcpy(piece.iov_base, from, piece.iov_len);
        from += piece.iov_len;
    }
}

void iov_fill(const struct iovec *iov, size_t niov, uint64_t offset, int byte, uint64_t bytes)
{
    struct iov_walk w = walk_begin(iov, niov, offset, bytes);
    struct iovec piece;

    while (walk_next(&w, &piece)) {
        memset(piece.iov_base, byte, piece.iov_len);
    }
}

bool iov_is_zero(const struct iovec *iov, size_t niov, uint64_t offset, uint64_t bytes)
{
    struct iov_walk w = walk_begin(iov, niov, offset, bytes);
    struct iovec piece;

    while (walk_next(&w, &piece)) {
        if (!buffer_is_zero(piece.iov_base, piece.iov_len)) {
            return false;
        }
    }
    return true;
}

bool iov_is_aligned(const struct iovec *iov, size_t niov, uint64_t offset, uint64_t bytes,
                    size_t align)
{
    struct iov_walk w = walk_begin(iov, niov, offset, bytes);
    struct iovec piece;

    assert(is_pow2(align));
    while (walk_next(&w, &piece)) {
        if (!is_aligned((uintptr_t)piece.iov_base | piece.iov_len, align)) {
            return false;
        }
    }
    return true;
}

size_t iov_count(const struct iovec *iov, size_t niov, uint64_t offset, uint64_t bytes)
{
    struct iov_walk w = walk_begin(iov, niov, offset, bytes);
    struct iovec piece;
    size_t count = 0;

    while (walk_next(&w, &piece)) {
        count++;
    }
    return count;
}

size_t iov_slice(const struct iovec *iov, size_t niov, uint64_t offset, uint64_t bytes,
                 struct iovec *out, size_t max, uint64_t *ret_bytes)
{
    struct iov_walk w = walk_begin(iov, niov, offset, bytes);
    size_t used = 0;

    while (used < max && walk_next(&w, &out[used])) {
        used++;
    }
    *ret_bytes = bytes - w.left;
    return used;
}

size_t iov_consume(struct iovec *iov, size_t niov, uint64_t bytes)
{
    size_t drop = 0;

    while (drop < niov && bytes >= iov[drop].iov_len) {
        bytes -= iov[drop].iov_len;
        drop++;
    }
    assert(drop < niov || bytes == 0);
    if (drop > 0) {
        memmove(iov, iov + drop, (niov - drop) * sizeof(*iov));
    }
    if (bytes > 0) {
        iov[0].iov_base = (char *)iov[0].iov_base + bytes;
        iov[0].iov_len -= (size_t)bytes;
    }
    return niov - drop;
}

bool buffer_is_zero(const void *buf, size_t bytes)
{
    const unsigned char *p = buf;
    size_t head = bytes < 16 ? bytes : 16;

    for (size_t i = 0; i < head; i++) {
        if (p[i] != 0) {
            return false;
        }
    }
    /* Zero head, and every byte equals the one 16 before it; the C library's memcmp is vectorised.
     */
    return bytes == head || memcmp(p, p + head, bytes - head) == 0;
}
