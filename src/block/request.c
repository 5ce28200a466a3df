/* SPDX-License-Identifier: MIT */
/*
 * The door of a node: every request of a backend, a job or a parent node comes in through
 * bdrv_edge_request_co. A read or write that the driver can take as it is goes straight to it; the
 * rest is sorted out below and in the files named in request.h.
 *
 * Errors of this layer: -EPERM the edge lacks the permission or the node is read-only, -EIO range
 * outside the node or a broken node, -ENOMEDIUM no driver, -EINVAL a flag the operation does not
 * know, -ENOTSUP the driver cannot, -ENOMEM no bounce buffer, -EBUSY under BDRV_REQ_NO_WAIT. What a
 * driver says passes unchanged.
 *
 * Invariants
 *  Q1 write_gen moves after the driver has returned from a change and before its caller hears of
 *     it, so that a flush asked for later sees it.
 *  Q2 a write to a node with request_alignment > 1 is tracked from before its first read or write
 *     of the driver until after the last.
 */
#include <assert.h>
#include <errno.h>

#include "block/dirty_bitmap.h"
#include "block/request.h"
#include "util/checked.h"
#include "util/iov.h"
#include "util/mem.h"

#define NOINLINE __attribute__((noinline))
#define PROBE_GUARD_BYTES 512

unsigned bdrv_op_flags(enum bdrv_op op)
{
    const unsigned waits = BDRV_REQ_SERIALISING | BDRV_REQ_NO_WAIT;

    switch (op) {
    case BDRV_OP_READ:
        return waits;
    case BDRV_OP_WRITE:
        return waits | BDRV_REQ_FUA | BDRV_REQ_WRITE_UNCHANGED | BDRV_REQ_WRITE_COMPRESSED |
               BDRV_REQ_IN_ORDER;
    case BDRV_OP_WRITE_ZEROES:
        return waits | BDRV_REQ_FUA | BDRV_REQ_WRITE_UNCHANGED | BDRV_REQ_ZERO_WRITE |
               BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK | BDRV_REQ_IN_ORDER;
    case BDRV_OP_DISCARD:
        return waits;
    case BDRV_OP_FLUSH:
        return 0;
    }
    return 0;
}

int bdrv_node_ready(BlockDriverState *bs)
{
    if (bs->drv == NULL) {
        return -ENOMEDIUM;
    }
    return atomic_load_explicit(&bs->broken, memory_order_relaxed) != NULL ? -EIO : 0;
}

int bdrv_edge_may_change(const BdrvEdge *edge, const BlockDriverState *bs, unsigned flags)
{
    uint64_t enough = BDRV_PERM_WRITE;

    if (flags & BDRV_REQ_WRITE_UNCHANGED) {
        enough |= BDRV_PERM_WRITE_UNCHANGED;
    }
    return (edge->perm & enough) != 0 && !edge->bs->read_only && !bs->read_only ? 0 : -EPERM;
}

/* What stands over a file that grows, and changes nothing about offsets, grows with it. */
bool bdrv_edge_may_grow(const BdrvEdge *edge)
{
    const BlockDriverState *bs = edge->bs;

    while (bdrv_forwards(bs) || ((bs->caps & BDRV_CAP_PASSTHROUGH) && bs->file != NULL)) {
        bs = bs->file->bs;
    }
    return (edge->perm & BDRV_PERM_RESIZE) != 0 && (bs->caps & BDRV_CAP_GROWS_ON_WRITE) != 0;
}

int bdrv_range_check(BlockDriverState *bs, uint64_t offset, uint64_t bytes, bool may_grow)
{
    int64_t size = atomic_load_explicit(&bs->size_bytes, memory_order_relaxed);

    if (size < 0) {
        return (int)size;
    }
    return range_inside(offset, bytes, may_grow ? INT64_MAX : (uint64_t)size) ? 0 : -EIO;
}

bool bdrv_forwards(const BlockDriverState *bs)
{
    return (bs->caps & BDRV_CAP_FILTER) != 0 && bs->file != NULL;
}

bool bdrv_changes_below(const BlockDriverState *bs)
{
    return bdrv_passes_through(bs);
}

BlockDriverState *bdrv_change_target(const BdrvEdge *edge, bool *ret_unmap)
{
    BlockDriverState *bs = edge->bs;
    int flags = bs->open_flags;

    while (bs != edge->bs->through) {
        bs = bs->file->bs;
        flags &= bs->open_flags;
    }
    *ret_unmap = (flags & BDRV_O_UNMAP) != 0;
    return bs;
}

static bool flags_are_wrong(const struct bdrv_req *req)
{
    return (req->flags & ~bdrv_op_flags(req->op)) != 0 ||
           ((req->flags & BDRV_REQ_NO_WAIT) && !(req->flags & BDRV_REQ_SERIALISING));
}

/* ---- reads and writes that need care ---- */

static int read_slow(BlockDriverState *bs, const struct bdrv_req *req)
{
    struct bdrv_tracked t;
    struct bdrv_rw rw;
    bool tracked = (req->flags & BDRV_REQ_SERIALISING) || bdrv_others_serialise(bs);
    bool waited;
    int ret = bdrv_range_check(bs, req->offset, req->bytes, false);

    if (ret < 0 || req->bytes == 0) {
        return ret;
    }
    if (tracked) {
        uint32_t align = bs->bl.request_alignment;

        ret = bdrv_track_begin(bs, &t, align_down(req->offset, align),
                               align_up(req->offset + req->bytes, align),
                               bdrv_track_flags(req->flags), &waited);
        if (ret < 0) {
            return ret;
        }
        ret = bdrv_node_ready(bs);
        if (ret == 0) {
            ret = bdrv_range_check(bs, req->offset, req->bytes, false);
        }
    }
    if (ret == 0) {
        bdrv_rw_init(&rw, bs, req);
        ret = bdrv_rw_run(&rw);
    }
    if (tracked) {
        bdrv_track_end(bs, &t);
    }
    return ret;
}

unsigned bdrv_write_driver_flags(BlockDriverState *bs, unsigned flags, bool *ret_fua)
{
    *ret_fua = false;
    flags &=
        BDRV_REQ_FUA | BDRV_REQ_WRITE_UNCHANGED | BDRV_REQ_WRITE_COMPRESSED | BDRV_REQ_IN_ORDER;
    if (flags & BDRV_REQ_FUA) {
        if (bs->open_flags & BDRV_O_NO_FLUSH) {
            flags &= ~BDRV_REQ_FUA;
        } else if (!(bs->caps & BDRV_CAP_FUA)) {
            flags &= ~BDRV_REQ_FUA;
            *ret_fua = true;
        }
    }
    return flags;
}

static int write_slow(BdrvEdge *edge, BlockDriverState *bs, const struct bdrv_req *req)
{
    struct bdrv_change change;
    struct bdrv_rw rw;
    int ret;
    int trim;

    if ((req->flags & BDRV_REQ_WRITE_COMPRESSED) && !(bs->caps & BDRV_CAP_COMPRESSED)) {
        return -ENOTSUP;
    }
    if (req->bytes == 0) {
        return bdrv_range_check(bs, req->offset, 0, bdrv_edge_may_grow(edge));
    }
    ret = bdrv_change_begin(&change, bs, req->offset, req->bytes, req->flags,
                            bdrv_edge_may_grow(edge));
    if (ret < 0) {
        return ret;
    }
    bdrv_rw_init(&rw, bs, req);
    rw.flags = bdrv_write_driver_flags(bs, req->flags, &change.fua);
    if (req->flags & BDRV_REQ_WRITE_COMPRESSED) {
        struct bdrv_req whole = *req; /* what would be left of a cluster cannot be compressed */

        whole.flags = rw.flags;
        ret = bs->drv->write_co(bs, &whole);
        return bdrv_written_end(&change, ret);
    }
    ret = bdrv_rw_run(&rw);
    bdrv_debug_node_event(bs, BLKDBG_PWRITEV_DONE);
    trim = bdrv_rw_trim(&rw, change.end);
    return bdrv_written_end(&change, ret < 0 ? ret : trim);
}

int bdrv_probe_guard(const BdrvEdge *edge, const struct bdrv_req *req)
{
    BlockDriverState *bs = edge->bs;

    if (req->offset >= PROBE_GUARD_BYTES || req->bytes == 0) {
        return 0;
    }

    for (;;) {
        int ret = bs->probed ? bdrv_probe_guard_write(bs, req) : 0;

        if (ret < 0 || bs == edge->bs->through) {
            return ret;
        }
        bs = bs->file->bs;
    }
}

static bool detects_zeroes(BlockDriverState *bs, const struct bdrv_req *req)
{
    return bs->detect_zeroes != BDRV_DETECT_ZEROES_OFF && req->bytes > 0 &&
           !(req->flags & BDRV_REQ_WRITE_COMPRESSED) &&
           range_inside(req->offset, req->bytes, bdrv_node_size(bs)) &&
           iov_is_zero(req->iov, req->niov, req->iov_offset, req->bytes);
}

/* A write of zeroes goes on as write zeroes. */
static int write_detected(BdrvEdge *edge, BlockDriverState *bs, const struct bdrv_req *req)
{
    struct bdrv_req zeroes = {
        .op = BDRV_OP_WRITE_ZEROES,
        .flags = req->flags,
        .offset = req->offset,
        .bytes = req->bytes,
    };

    if (bs->detect_zeroes == BDRV_DETECT_ZEROES_UNMAP) {
        zeroes.flags |= BDRV_REQ_MAY_UNMAP;
    }
    return bdrv_zeroes_co(edge, &zeroes);
}

/* READ and WRITE; filters without an own operation are passed in a loop, not by recursion. */
static int rw_slow(BdrvEdge *edge, const struct bdrv_req *req)
{
    for (;; edge = edge->bs->through->file) {
        BlockDriverState *bs = edge->bs->through;
        int ret = bdrv_node_ready(bs);

        if (ret < 0) {
            return ret;
        }
        if (req->op == BDRV_OP_READ) {
            if (bs->drv->read_co != NULL) {
                return read_slow(bs, req);
            }
        } else {
            ret = bdrv_edge_may_change(edge, bs, req->flags);
            if (ret == 0) {
                ret = bdrv_probe_guard(edge, req);
            }
            if (ret < 0) {
                return ret;
            }
            if (detects_zeroes(bs, req)) {
                return write_detected(edge, bs, req);
            }
            if (bs->drv->write_co != NULL && !bdrv_changes_below(bs)) {
                return write_slow(edge, bs, req);
            }
        }
        if (!bdrv_forwards(bs) && !bdrv_changes_below(bs)) {
            return -ENOTSUP;
        }
        if (req->op == BDRV_OP_WRITE && bdrv_marks_in_passing(bs)) {
            return bdrv_bitmaps_pass_co(bs, req);
        }
    }
}

static int NOINLINE request_slow(BdrvEdge *edge, const struct bdrv_req *req)
{
    if (flags_are_wrong(req)) {
        return -EINVAL;
    }
    switch (req->op) {
    case BDRV_OP_READ:
    case BDRV_OP_WRITE:
        return rw_slow(edge, req);
    case BDRV_OP_WRITE_ZEROES:
        return bdrv_zeroes_co(edge, req);
    case BDRV_OP_DISCARD:
        return bdrv_discard_co(edge, req);
    case BDRV_OP_FLUSH:
        return bdrv_node_flush_co(edge->bs);
    }
    return -EINVAL;
}

/* ---- the fast path ---- */

/* More than one element: few enough, and every piece where the driver wants it. */
static bool vector_fits(const struct bdrv_limits *bl, const struct bdrv_req *req)
{
    uint64_t skip = req->iov_offset;
    uint64_t left = req->bytes;

    if (req->niov > bdrv_max_iov(bl)) {
        return false;
    }
    if (bl->mem_alignment <= 1) {
        return true;
    }
    for (size_t i = 0; i < req->niov && left > 0; i++) {
        uint64_t len = req->iov[i].iov_len;

        if (skip >= len) {
            skip -= len;
            continue;
        }
        len = min_u64(len - skip, left);
        if (!is_aligned((uintptr_t)req->iov[i].iov_base + skip, bl->mem_alignment) ||
            !is_aligned(len, bl->request_alignment)) {
            return false;
        }
        left -= len;
        skip = 0;
    }
    return true;
}

/* Whether the driver of bs can take req as it is, its memory apart. */
static inline bool request_fits(BlockDriverState *bs, const struct bdrv_req *req)
{
    const struct bdrv_limits *bl = &bs->bl;
    int64_t size = atomic_load_explicit(&bs->size_bytes, memory_order_relaxed);
    uint64_t end = req->offset + req->bytes;

    if (UNLIKELY(req->flags != 0 || bs->drv == NULL || end <= req->offset || size < 0 ||
                 end > (uint64_t)size)) {
        return false;
    }
    if (UNLIKELY(atomic_load_explicit(&bs->broken, memory_order_relaxed) != NULL ||
                 atomic_load_explicit(&bs->serialising, memory_order_relaxed) != 0)) {
        return false;
    }
    /* a limit of 0 means none, and wraps to the largest number */
    return LIKELY(((req->offset | req->bytes) & (bl->request_alignment - 1)) == 0 &&
                  req->bytes - 1 <= bl->max_transfer - 1);
}

/* One that fits, on a node with blocks (Q2): it may have to wait for a change of part of one. */
static int write_blocks(BdrvEdge *edge, BlockDriverState *bs, const struct bdrv_req *req)
{
    struct bdrv_tracked t;
    bool waited;
    int ret = 0;

    bdrv_track_begin(bs, &t, req->offset, req->offset + req->bytes, 0, &waited);
    if (UNLIKELY(waited && !request_fits(bs, req))) {
        bdrv_track_end(bs, &t);
        return request_slow(edge, req);
    }
    ret = bs->drv->write_co(bs, req);
    atomic_fetch_add_explicit(&bs->write_gen, 1, memory_order_release); /* Q1 */
    if (LIKELY(ret == 0)) {
        bdrv_note_written(bs, req->offset + req->bytes);
    }
    bdrv_track_end(bs, &t);
    return ret;
}

static inline int write_straight(BdrvEdge *edge, BlockDriverState *bs, const struct bdrv_req *req)
{
    int ret;

    if (bs->bl.request_alignment > 1) {
        return write_blocks(edge, bs, req);
    }
    ret = bs->drv->write_co(bs, req);
    atomic_fetch_add_explicit(&bs->write_gen, 1, memory_order_release); /* Q1 */
    if (LIKELY(ret == 0)) {
        bdrv_note_written(bs, req->offset + req->bytes);
    }
    return ret;
}

/* On a node with bitmaps. What has to be flagged in the image first goes the slow way. */
static int NOINLINE write_marked(BdrvEdge *edge, BlockDriverState *bs, const struct bdrv_req *req)
{
    int ret;

    if (!bdrv_bitmaps_settled(bs) || bdrv_changes_below(bs)) {
        return request_slow(edge, req);
    }
    bdrv_threshold_check(bs, req->offset + req->bytes);
    ret = write_straight(edge, bs, req);
    bdrv_bitmaps_mark(bs, req->offset, req->bytes);
    return ret;
}

static int NOINLINE write_that_fits(BdrvEdge *edge, BlockDriverState *bs,
                                    const struct bdrv_req *req)
{
    if (UNLIKELY(bs->drv->write_co == NULL || !(edge->perm & BDRV_PERM_WRITE) ||
                 edge->bs->read_only || bs->read_only ||
                 bs->detect_zeroes != BDRV_DETECT_ZEROES_OFF || bs->debugged ||
                 (req->offset < PROBE_GUARD_BYTES && (edge->bs->probed || edge->bs != bs)))) {
        return request_slow(edge, req);
    }
    return LIKELY(bs->bitmaps == NULL) ? write_straight(edge, bs, req)
                                       : write_marked(edge, bs, req);
}

static inline int request_that_fits(BdrvEdge *edge, BlockDriverState *bs,
                                    const struct bdrv_req *req)
{
    if (req->op == BDRV_OP_READ && LIKELY(bs->drv->read_co != NULL)) {
        return bs->drv->read_co(bs, req);
    }
    return req->op == BDRV_OP_WRITE ? write_that_fits(edge, bs, req) : request_slow(edge, req);
}

static int NOINLINE request_vector(BdrvEdge *edge, BlockDriverState *bs, const struct bdrv_req *req)
{
    return vector_fits(&bs->bl, req) ? request_that_fits(edge, bs, req) : request_slow(edge, req);
}

int bdrv_edge_request_co(BdrvEdge *edge, const struct bdrv_req *req)
{
    BlockDriverState *bs = edge->bs->through;

    if (LIKELY(request_fits(bs, req))) {
        uintptr_t mem;

        if (UNLIKELY(req->niov != 1)) {
            return request_vector(edge, bs, req);
        }
        mem = (uintptr_t)req->iov[0].iov_base + req->iov_offset;
        if (LIKELY((mem & (bs->bl.mem_alignment - 1)) == 0)) {
            return request_that_fits(edge, bs, req);
        }
    }
    return request_slow(edge, req);
}

/* ---- thin calls ---- */

int64_t bdrv_edge_getlength(BdrvEdge *edge)
{
    return bdrv_getlength(edge->bs);
}

int bdrv_edge_read_co(BdrvEdge *edge, uint64_t offset, void *buf, size_t bytes)
{
    struct iovec iov = {.iov_base = buf, .iov_len = bytes};
    struct bdrv_req req = {
        .op = BDRV_OP_READ, .offset = offset, .bytes = bytes, .iov = &iov, .niov = 1};

    return bdrv_edge_request_co(edge, &req);
}

int bdrv_edge_write_co(BdrvEdge *edge, uint64_t offset, const void *buf, size_t bytes,
                       unsigned flags)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)buf, .iov_len = bytes};
    struct bdrv_req req = {.op = BDRV_OP_WRITE,
                           .flags = flags,
                           .offset = offset,
                           .bytes = bytes,
                           .iov = &iov,
                           .niov = 1};

    return bdrv_edge_request_co(edge, &req);
}

int bdrv_edge_write_zeroes_co(BdrvEdge *edge, uint64_t offset, uint64_t bytes, unsigned flags)
{
    struct bdrv_req req = {
        .op = BDRV_OP_WRITE_ZEROES, .flags = flags, .offset = offset, .bytes = bytes};

    return bdrv_edge_request_co(edge, &req);
}

int bdrv_edge_discard_co(BdrvEdge *edge, uint64_t offset, uint64_t bytes)
{
    struct bdrv_req req = {.op = BDRV_OP_DISCARD, .offset = offset, .bytes = bytes};

    return bdrv_edge_request_co(edge, &req);
}

int bdrv_edge_flush_co(BdrvEdge *edge)
{
    struct bdrv_req req = {.op = BDRV_OP_FLUSH};

    return bdrv_edge_request_co(edge, &req);
}

int bdrv_edge_ioctl_co(BdrvEdge *edge, unsigned long request, void *buf)
{
    BlockDriverState *bs = edge->bs;
    int ret = bdrv_node_ready(bs);

    while (ret == 0 && bs->drv->ioctl_co == NULL) {
        if (!bdrv_forwards(bs)) {
            return -ENOTSUP;
        }
        bs = bs->file->bs;
        ret = bdrv_node_ready(bs);
    }
    if (ret == 0) {
        ret = bs->drv->ioctl_co(bs, request, buf);
        /* it may have been anything, a write included */
        atomic_fetch_add_explicit(&bs->write_gen, 1, memory_order_release);
    }
    return ret;
}
