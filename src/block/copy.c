/* SPDX-License-Identifier: MIT */
/*
 * Copying inside the storage: both sides go down through nodes that only move offsets until they
 * stand on nodes of one driver that can copy by itself. Anything that does not fit is -ENOTSUP, and
 * the caller copies through memory. Nothing was written then.
 */
#include <assert.h>
#include <errno.h>

#include "block/request.h"
#include "util/checked.h"

/* Nodes between the edge and the storage. */
#define COPY_DEPTH_MAX 8

struct copy_side {
    BdrvEdge *edge;
    uint64_t offset;
    uint64_t bytes;
};

/* The next node down; false with *ret 0: side stands on the storage. */
static bool copy_descend(struct copy_side *side, int *ret)
{
    BlockDriverState *bs = side->edge->bs;
    BdrvEdge *child;
    uint64_t offset;

    *ret = 0;
    if (bs->drv->map_range != NULL) {
        *ret = bs->drv->map_range(bs, side->offset, side->bytes, &child, &offset);
        if (*ret < 0) {
            return false;
        }
        side->edge = child;
        side->offset = offset;
        return true;
    }
    if (bs->drv->copy_range_co == NULL) {
        if (bdrv_forwards(bs)) {
            side->edge = bs->file;
            return true;
        }
        *ret = -ENOTSUP;
    }
    return false;
}

static int copy_check_read(struct copy_side *side)
{
    for (int depth = 0; depth < COPY_DEPTH_MAX; depth++) {
        BlockDriverState *bs = side->edge->bs;
        int ret = bdrv_node_ready(bs);

        if (ret == 0) {
            ret = bdrv_range_check(bs, side->offset, side->bytes, false);
        }
        if (ret == 0 && bdrv_others_serialise(bs)) {
            ret = -ENOTSUP; /* a plain read waits as it must */
        }
        if (ret < 0) {
            return ret;
        }
        if (!copy_descend(side, &ret)) {
            return ret;
        }
    }
    return -ENOTSUP;
}

static int copy_check_write(const struct copy_side *side, unsigned flags)
{
    BlockDriverState *bs = side->edge->bs;
    int ret = bdrv_node_ready(bs);

    if (ret == 0) {
        ret = bdrv_edge_may_change(side->edge, bs, flags);
    }
    if (ret == 0) {
        ret = bdrv_range_check(bs, side->offset, side->bytes, false);
    }
    if (ret == 0 && bs->probed && side->offset < 512) {
        ret = -ENOTSUP; /* the guard wants to see the bytes */
    }
    return ret;
}

static bool is_block_aligned(const BlockDriverState *bs, uint64_t offset, uint64_t bytes)
{
    return is_aligned(offset | bytes, bs->bl.request_alignment);
}

static int copy_leaf(const struct copy_side *src, const struct copy_side *dst, unsigned flags)
{
    BlockDriverState *from = src->edge->bs;
    BlockDriverState *to = dst->edge->bs;
    int ret;

    if (from->drv != to->drv || from->drv->copy_range_co == NULL ||
        !is_block_aligned(from, src->offset, src->bytes) ||
        !is_block_aligned(to, dst->offset, dst->bytes) ||
        (from == to && ranges_overlap(src->offset, src->bytes, dst->offset, dst->bytes))) {
        return -ENOTSUP;
    }
    ret = to->drv->copy_range_co(from, src->offset, to, dst->offset, dst->bytes,
                                 flags & BDRV_REQ_WRITE_UNCHANGED);
    assert(ret <= 0);
    return ret;
}

/* Register the change on every node down to the storage, copy, and end the changes. */
static int copy_write(const struct copy_side *src, struct copy_side *dst, unsigned flags)
{
    struct bdrv_change changes[COPY_DEPTH_MAX];
    int n = 0;
    int ret;

    for (;;) {
        ret = n < COPY_DEPTH_MAX ? copy_check_write(dst, flags) : -ENOTSUP;
        if (ret == 0) {
            ret = bdrv_change_begin(&changes[n], dst->edge->bs, dst->offset, dst->bytes, flags,
                                    false);
        }
        if (ret < 0) {
            break;
        }
        n++;
        if (!copy_descend(dst, &ret)) {
            break;
        }
    }
    if (ret == 0) {
        ret = copy_leaf(src, dst, flags);
    }
    while (n-- > 0) {
        changes[n].fua = n == 0 && (flags & BDRV_REQ_FUA) != 0;
        ret = bdrv_written_end(&changes[n], ret);
    }
    return ret;
}

int bdrv_edge_copy_range_co(BdrvEdge *src, uint64_t src_offset, BdrvEdge *dst, uint64_t dst_offset,
                            uint64_t bytes, unsigned read_flags, unsigned write_flags)
{
    const unsigned write_known = BDRV_REQ_FUA | BDRV_REQ_WRITE_UNCHANGED | BDRV_REQ_SERIALISING |
                                 BDRV_REQ_NO_WAIT | BDRV_REQ_NO_FALLBACK;
    struct copy_side from = {.edge = src, .offset = src_offset, .bytes = bytes};
    struct copy_side to = {.edge = dst, .offset = dst_offset, .bytes = bytes};
    int ret;

    if ((read_flags & ~(unsigned)BDRV_REQ_SERIALISING) != 0 || (write_flags & ~write_known) != 0) {
        return -EINVAL;
    }
    ret = copy_check_read(&from);
    if (ret == 0) {
        ret = copy_check_write(&to, write_flags);
    } else if (ret == -ENOTSUP) {
        /* what is wrong with the target is the better answer */
        int wrong = copy_check_write(&to, write_flags);

        ret = wrong < 0 ? wrong : ret;
    }
    if (ret == 0 && (read_flags & BDRV_REQ_SERIALISING)) {
        ret = -ENOTSUP;
    }
    if (ret < 0 || bytes == 0) {
        return ret;
    }
    return copy_write(&from, &to, write_flags);
}
