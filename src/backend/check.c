/* SPDX-License-Identifier: MIT */
/*
 * What a request must satisfy before it reaches the node: medium, range, flags.
 *
 * The order, which callers can see from the errno:
 *   1  bytes negative                              -EIO   (malformed, also without a medium)
 *   2  no medium, or tray open                     -ENOMEDIUM
 *   3  the length is not known                     its own errno
 *   4  offset negative, or the end past the device -EIO   (no bytes at exactly the end are fine)
 *   5  an unknown flag                             -EINVAL
 * Then the node has the word: -EPERM for changes of what may not be written, and so on. Sector
 * calls express malformed sector arguments as 1. A node that is broken is not asked here; it
 * answers -EIO itself.
 */
#include "backend/backend_int.h"

/* Flags of the public calls; the rest is for nodes among themselves. */
static const unsigned allowed_flags[] = {
    [BDRV_OP_READ] = 0,
    [BDRV_OP_WRITE] = BDRV_REQ_FUA | BDRV_REQ_WRITE_COMPRESSED | BDRV_REQ_IN_ORDER,
    [BDRV_OP_WRITE_ZEROES] =
        BDRV_REQ_FUA | BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK | BDRV_REQ_IN_ORDER,
    [BDRV_OP_DISCARD] = 0,
    [BDRV_OP_FLUSH] = 0,
};

bool blk_tray_is_open(BlockBackend *blk)
{
    return blk->dev_ops != NULL && blk->dev_ops->is_tray_open != NULL &&
           blk->dev_ops->is_tray_open(blk->dev_opaque);
}

int blk_check_available(BlockBackend *blk)
{
    if ((atomic_load_explicit(&blk->special, memory_order_relaxed) & BLK_SPECIAL_MEDIUM) == 0) {
        return 0;
    }
    if (blk->root == NULL || !bdrv_is_inserted(blk->root->bs) || blk_tray_is_open(blk)) {
        return -ENOMEDIUM;
    }
    return 0;
}

static inline int range_check(BlockDriverState *bs, uint64_t offset, uint64_t bytes)
{
    int64_t size_bytes = atomic_load_explicit(&bs->size_bytes, memory_order_relaxed);

    if (UNLIKELY(size_bytes < 0)) {
        return (int64_t)bytes < 0 ? -EIO : (int)size_bytes;
    }
    if (UNLIKELY(offset > (uint64_t)size_bytes || bytes > (uint64_t)size_bytes - offset)) {
        return -EIO;
    }
    return 0;
}

int blk_check_range(BlockBackend *blk, int64_t offset, int64_t bytes)
{
    int ret;

    if (bytes < 0) {
        return -EIO;
    }
    ret = blk_check_available(blk);
    if (ret < 0) {
        return ret;
    }
    return range_check(blk->root->bs, (uint64_t)offset, (uint64_t)bytes);
}

int blk_check_request_slow(BlockBackend *blk, struct bdrv_req *req)
{
    unsigned special = atomic_load_explicit(&blk->special, memory_order_relaxed);
    int ret;

    if (req->op == BDRV_OP_FLUSH) {
        ret = blk_check_available(blk);
    } else {
        ret = blk_check_range(blk, (int64_t)req->offset, (int64_t)req->bytes);
    }
    if (ret < 0) {
        return ret;
    }
    if (req->flags & ~allowed_flags[req->op]) {
        return -EINVAL;
    }
    if ((special & BLK_SPECIAL_FUA) &&
        (req->op == BDRV_OP_WRITE || req->op == BDRV_OP_WRITE_ZEROES)) {
        req->flags |= BDRV_REQ_FUA;
    }
    return 0;
}
