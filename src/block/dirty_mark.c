/* SPDX-License-Identifier: MIT */
/*
 * What requests, and any thread, do with dirty bitmaps.
 *
 * Invariants
 *  M1 before the first change after a persistent bitmap was loaded, stored, enabled or disabled,
 *     what the image stores of it is flagged as in use, durably (flag_co of the driver): a bitmap
 *     that comes back unflagged is right.
 *  M2 the bits of a change are set after the driver has returned and before the caller hears of it,
 *     whatever the driver said.
 *  M3 marking cannot fail: without memory more is marked.
 */
#include <assert.h>
#include <errno.h>

#include "block/dirty_bitmap.h"
#include "block/request.h"
#include "util/checked.h"
#include "util/error.h"

/* The granules that [offset, offset + bytes) touches: its bits; bytes > 0. */
static void touched(const BdrvDirtyBitmap *bitmap, uint64_t offset, uint64_t bytes,
                    uint64_t *ret_first, uint64_t *ret_count)
{
    uint64_t last = (offset + bytes - 1) >> bitmap->granularity_bits;

    *ret_first = offset >> bitmap->granularity_bits;
    *ret_count = last - *ret_first + 1;
}

static void mark(BdrvDirtyBitmap *bitmap, uint64_t offset, uint64_t bytes)
{
    uint64_t first;
    uint64_t count;

    touched(bitmap, offset, bytes, &first, &count);
    bitmap_set(&bitmap->bits, first, count);
}

/* ---- requests ---- */

void bdrv_bitmaps_flag_again(BlockDriverState *bs)
{
    if (bs->bitmaps != NULL) {
        atomic_fetch_add(&bs->bitmaps->gen, 1);
    }
}

static int flag_co(BlockDriverState *bs, bool all)
{
    struct bdrv_bitmaps *bitmaps = bs->bitmaps;
    uint64_t gen = atomic_load(&bitmaps->gen);
    int ret = 0;

    if (!all && atomic_load(&bitmaps->settled) == gen) {
        return 0; /* another request did it */
    }
    if (bs->drv->bitmap != NULL) {
        ret = bs->drv->bitmap->flag_co(bs, all);
        assert(ret <= 0);
    }
    if (ret == 0) {
        atomic_store(&bitmaps->settled, gen);
    }
    return ret;
}

int bdrv_bitmaps_begin_co(BlockDriverState *bs, bool all)
{
    struct bdrv_bitmaps *bitmaps = bs->bitmaps;
    int ret;

    if (!all && bdrv_bitmaps_settled(bs)) {
        return 0;
    }
    co_mutex_lock(&bitmaps->lock);
    ret = flag_co(bs, all);
    co_mutex_unlock(&bitmaps->lock);
    return ret;
}

void bdrv_threshold_check(BlockDriverState *bs, uint64_t end)
{
    _Atomic uint64_t *at = &bs->bitmaps->write_threshold;
    uint64_t threshold = atomic_load_explicit(at, memory_order_relaxed);

    if (threshold != 0 && end > threshold &&
        atomic_compare_exchange_strong(at, &threshold, 0)) { /* else another one tells */
        bdrv_threshold_passed(bs, end, threshold);
    }
}

void bdrv_bitmaps_mark(BlockDriverState *bs, uint64_t offset, uint64_t bytes)
{
    BdrvDirtyBitmap *bitmap;

    if (bytes == 0 || !range_inside(offset, bytes, INT64_MAX)) {
        return; /* no such request reached a driver */
    }
    TAILQ_FOREACH (bitmap, &bs->bitmaps->list, in_node) {
        if (atomic_load_explicit(&bitmap->recording, memory_order_relaxed) &&
            !bitmap->inconsistent) {
            mark(bitmap, offset, bytes);
        }
    }
}

int bdrv_bitmaps_pass_co(BlockDriverState *bs, const struct bdrv_req *req)
{
    int ret = bdrv_bitmaps_begin_co(bs, false);

    if (ret == 0) {
        bdrv_threshold_check(bs, req->offset + req->bytes);
        ret = bdrv_edge_request_co(bs->file, req);
        bdrv_bitmaps_mark(bs, req->offset, req->bytes);
    }
    return ret;
}

/* ---- resizing ---- */

int bitmap_refuse_inconsistent(const BdrvDirtyBitmap *bitmap, Error **errp)
{
    if (!bitmap->inconsistent) {
        return 0;
    }
    error_set(errp, EINVAL, "Bitmap '%s' is inconsistent and cannot be used", bitmap->name);
    error_set_hint(errp, "All that can be done with it is to remove it");
    error_add_compat_hint(errp, "Try block-dirty-bitmap-remove to delete this bitmap from disk");
    return -EINVAL;
}

int bitmap_refuse_busy(const BdrvDirtyBitmap *bitmap, Error **errp)
{
    return bitmap->busy == 0
               ? 0
               : error_set(
                     errp, EBUSY,
                     "Bitmap '%s' is currently in use by another operation and cannot be used",
                     bitmap->name != NULL ? bitmap->name : "");
}

int bdrv_bitmaps_resize_begin_co(BlockDriverState *bs, uint64_t size_bytes, Error **errp)
{
    BdrvDirtyBitmap *bitmap;
    int ret = 0;

    if (bs->bitmaps == NULL) {
        return 0;
    }
    TAILQ_FOREACH (bitmap, &bs->bitmaps->list, in_node) {
        ret = bitmap_refuse_busy(bitmap, errp);
        if (ret == 0) {
            ret = bitmap_refuse_inconsistent(bitmap, errp);
        }
        if (ret < 0) {
            return ret;
        }
    }
    if (bs->drv->bitmap != NULL) {
        ret = bs->drv->bitmap->can_resize(bs, size_bytes, errp);
        if (ret < 0) {
            return ret;
        }
    }
    /* what the image has would be of the wrong size, also of those that do not record */
    ret = bdrv_bitmaps_begin_co(bs, true);
    return ret == 0 ? 0
                    : error_set_errno(errp, -ret, "Cannot flag the bitmaps of node '%s' as in use",
                                      bdrv_get_told_name(bs));
}

/* ---- any thread ---- */

void bdrv_bitmap_set(BdrvDirtyBitmap *bitmap, uint64_t offset, uint64_t bytes)
{
    uint64_t size = bdrv_node_size(bitmap->bs);

    if (bytes == 0 || bitmap->inconsistent || offset >= size) {
        return;
    }
    mark(bitmap, offset, min_u64(bytes, size - offset));
    atomic_store_explicit(&bitmap->changed, true, memory_order_release);
}

int bdrv_bitmap_reset(BdrvDirtyBitmap *bitmap, uint64_t offset, uint64_t bytes)
{
    uint64_t granule = UINT64_C(1) << bitmap->granularity_bits;
    uint64_t size = bdrv_node_size(bitmap->bs);
    uint64_t end;

    if (bytes == 0 || bitmap->inconsistent || !range_inside(offset, bytes, INT64_MAX)) {
        return 0;
    }
    end = offset + bytes >= size ? align_up(size, granule) : align_down(offset + bytes, granule);
    offset = align_up(offset, granule);
    if (offset >= end) {
        return 0;
    }
    atomic_store_explicit(&bitmap->changed, true, memory_order_release);
    return bitmap_reset(&bitmap->bits, offset >> bitmap->granularity_bits,
                        (end - offset) >> bitmap->granularity_bits);
}

bool bdrv_bitmap_get(const BdrvDirtyBitmap *bitmap, uint64_t offset)
{
    return !bitmap->inconsistent && offset < bdrv_node_size(bitmap->bs) &&
           bitmap_get(&bitmap->bits, offset >> bitmap->granularity_bits);
}

bool bdrv_bitmap_next_dirty(const BdrvDirtyBitmap *bitmap, uint64_t offset, uint64_t end,
                            uint64_t *ret_offset, uint64_t *ret_bytes)
{
    unsigned shift = bitmap->granularity_bits;
    uint64_t first;
    uint64_t count;
    uint64_t bit;
    uint64_t stop;

    end = min_u64(end, bdrv_node_size(bitmap->bs));
    if (offset >= end || bitmap->inconsistent) {
        return false;
    }
    touched(bitmap, offset, end - offset, &first, &count);
    if (!bitmap_next_set(&bitmap->bits, first, first + count, &bit)) {
        return false;
    }
    if (!bitmap_next_clear(&bitmap->bits, bit, first + count, &stop)) {
        stop = first + count;
    }
    *ret_offset = max_u64(offset, bit << shift);
    *ret_bytes = min_u64(end, stop << shift) - *ret_offset;
    return true;
}
