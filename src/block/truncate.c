/* SPDX-License-Identifier: MIT */
/*
 * Changing the size of a node.
 *
 * Invariants
 *  N1 no request that the node holds off or tracks runs beside it: one that comes later waits, and
 *     is judged by the new size. Untracked writes in flight (request_alignment 1) are the caller's
 *     to stop, if what they do past a smaller end matters to it.
 *  N2 what a node grows by reads as zeroes before its new size is known to anybody.
 *  N3 the driver's word, not the caller's wish, is the new size.
 *  N4 where the driver cannot tell it, the smaller of the old size and the one wished for is: the
 *     node stays usable, and nothing is promised that may be gone. The caller gets the error.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>

#include "block/dirty_bitmap.h"
#include "block/instance.h"
#include "block/request.h"
#include "util/checked.h"
#include "util/error.h"

#define SIZE_BYTES_MAX (INT64_MAX - (INT64_C(1) << 30) + 1) /* the largest GiB that has an end */

static int truncate_check(const BdrvEdge *edge, BlockDriverState *bs, uint64_t size_bytes,
                          unsigned flags, Error **errp)
{
    int64_t old = atomic_load_explicit(&bs->size_bytes, memory_order_relaxed);
    int ret = bdrv_node_ready(bs);

    if (ret < 0 || old < 0) {
        return error_set_errno(errp, ret < 0 ? -ret : (int)-old, "Cannot resize node '%s'",
                               bdrv_get_told_name(bs));
    }
    if (flags & ~(unsigned)BDRV_REQ_ZERO_WRITE) {
        return error_set(errp, EINVAL, "Unknown flags 0x%x for resizing node '%s'", flags,
                         bdrv_get_told_name(bs));
    }
    if (!(edge->perm & BDRV_PERM_RESIZE)) {
        return error_set(errp, EPERM, "Resizing node '%s' is not permitted to this user",
                         bdrv_get_told_name(bs));
    }
    if (bs->read_only) {
        return error_set(errp, EPERM, "Node '%s' is read-only and cannot be resized",
                         bdrv_get_told_name(bs));
    }
    if (size_bytes > SIZE_BYTES_MAX) {
        return error_set(errp, EFBIG, "offset(%" PRIu64 ") exceeds maximum(%" PRId64 ")",
                         size_bytes, SIZE_BYTES_MAX);
    }
    return 0;
}

static int truncate_driver(BlockDriverState *bs, uint64_t size_bytes, bool exact,
                           enum bdrv_prealloc prealloc, unsigned flags, Error **errp)
{
    Error *err = NULL;
    int ret;

    if (bs->drv->truncate_co != NULL) {
        ret = bs->drv->truncate_co(bs, size_bytes, exact, prealloc, flags, &err);
    } else if (bdrv_forwards(bs)) {
        ret = bdrv_edge_truncate_co(bs->file, size_bytes, exact, prealloc, flags, &err);
    } else {
        return error_set(errp, ENOTSUP, "Image format driver does not support resize");
    }
    assert(ret <= 0);
    if (ret < 0 && err == NULL) {
        error_set_errno(&err, -ret, "Cannot resize node '%s' to %" PRIu64 " bytes",
                        bdrv_get_told_name(bs), size_bytes);
    }
    error_propagate(errp, err);
    return ret;
}

/* From the old size on: zeroes, where the driver does not promise them. */
static int truncate_zero(BlockDriverState *bs, uint64_t old, uint64_t size_bytes,
                         enum bdrv_prealloc prealloc, Error **errp)
{
    int ret;

    if ((bs->caps & BDRV_CAP_TRUNCATE_ZEROES) ||
        (bs->drv->truncate_co == NULL && bdrv_forwards(bs))) {
        return 0;
    }
    ret = bdrv_zeroes_new_area(bs, old, size_bytes, prealloc == BDRV_PREALLOC_OFF);
    if (ret < 0) {
        return error_set_errno(errp, -ret, "Cannot zero what node '%s' grew by",
                               bdrv_get_told_name(bs));
    }
    return 0;
}

/* Sizes are the control thread's. Keeps N4. Returns what the driver said. */
static int64_t truncate_refresh(BlockDriverState *bs, uint64_t safe_bytes)
{
    int64_t size;
    AioContext *ctx = aio_context_current();
    AioContext *main_ctx = bs->pl->main_ctx;
    bool elsewhere = !instance_in_control_thread(bs->pl);

    if (elsewhere) {
        co_reschedule_self(main_ctx);
    }
    size = bdrv_refresh_size(bs);
    if (size < 0 && size != -ENOMEDIUM) {
        bdrv_shrink_size(bs, safe_bytes);
    }
    if (elsewhere) {
        co_reschedule_self(ctx);
    }
    return size;
}

int bdrv_edge_truncate_co(BdrvEdge *edge, uint64_t size_bytes, bool exact,
                          enum bdrv_prealloc prealloc, unsigned flags, Error **errp)
{
    BlockDriverState *bs = edge->bs;
    struct bdrv_tracked t;
    uint64_t old;
    uint64_t from;
    int64_t size;
    bool waited;
    int ret = truncate_check(edge, bs, size_bytes, flags, errp);

    if (ret < 0) {
        return ret;
    }
    /* N1: which part will come or go is known when our turn comes; so hold everything */
    bdrv_track_begin(bs, &t, 0, BDRV_TRACK_TO_END, BDRV_TRACK_SERIALISING | BDRV_TRACK_HOLDS_ALL,
                     &waited);
    ret = truncate_check(edge, bs, size_bytes, flags, errp);
    if (ret == 0) {
        ret = bdrv_bitmaps_resize_begin_co(bs, size_bytes, errp);
    }
    if (ret == 0) {
        old = (uint64_t)atomic_load_explicit(&bs->size_bytes, memory_order_relaxed);
        from = min_u64(old, size_bytes);
        ret = truncate_driver(bs, size_bytes, exact, prealloc, flags, errp);
        if (ret == 0 && size_bytes > old) {
            ret = truncate_zero(bs, from, size_bytes, prealloc, errp);
            if (ret < 0) { /* N2: what cannot be zeroed does not stay */
                (void)truncate_driver(bs, old, true, BDRV_PREALLOC_OFF, 0, NULL);
            }
        }
        if (ret < 0 && size_bytes < old && bs->bitmaps != NULL) {
            bdrv_bitmaps_mark(bs, size_bytes, old - size_bytes); /* some of it may be gone */
        }
        atomic_fetch_add_explicit(&bs->write_gen, 1, memory_order_release);
        size = truncate_refresh(bs, from);
        if (ret == 0 && size < 0) { /* resized, but nobody can say to what */
            ret = error_set_errno(errp, (int)-size, "Cannot learn the new size of node '%s'",
                                  bdrv_get_told_name(bs));
        }
    }
    bdrv_track_end(bs, &t);
    return ret;
}
