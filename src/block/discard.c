/* SPDX-License-Identifier: MIT */
/*
 * Discard: a hint. It reaches the driver only where every node on the way lets it (discard=unmap),
 * in whole units of the driver; what is not done is still a success, but an error of the storage
 * is one.
 */
#include <errno.h>

#include "block/dirty_bitmap.h"
#include "block/request.h"
#include "util/checked.h"

/* pdiscard_alignment is what a device says, so not always a power of two. */
static uint64_t discard_unit(const struct bdrv_limits *bl)
{
    uint64_t align = bl->request_alignment;

    if (bl->pdiscard_alignment <= align) {
        return align;
    }
    return bl->pdiscard_alignment % align == 0 ? bl->pdiscard_alignment : 0;
}

/* The whole units of [offset, offset + bytes); false: there is none. The last one of a format node
 * is whole where the node ends. */
static bool discard_clip(BlockDriverState *bs, uint64_t *offset, uint64_t *bytes)
{
    uint64_t unit = discard_unit(&bs->bl);
    uint64_t end = *offset + *bytes;
    uint64_t skip;

    if (unit == 0) {
        return false;
    }
    skip = *offset % unit == 0 ? 0 : unit - *offset % unit;
    if (end != bdrv_node_size(bs) || (bs->caps & BDRV_CAP_PROTOCOL)) {
        end -= end % unit;
    }
    if (*offset + skip >= end) {
        return false;
    }
    *offset += skip;
    *bytes = end - *offset;
    return true;
}

static int discard_run(BlockDriverState *bs, uint64_t offset, uint64_t bytes)
{
    uint64_t unit = discard_unit(&bs->bl);
    uint64_t max = bs->bl.max_pdiscard != 0 ? bs->bl.max_pdiscard : UINT64_MAX;
    int ret = 0;

    max = max_u64(max - max % unit, unit);
    while (ret == 0 && bytes > 0) {
        uint64_t n = min_u64(bytes, max);

        ret = bs->drv->discard_co(bs, offset, n);
        offset += n;
        bytes -= n;
    }
    return ret == -ENOTSUP ? 0 : ret;
}

static int discard_node(BlockDriverState *bs, const struct bdrv_req *req)
{
    struct bdrv_change change;
    uint64_t offset = req->offset;
    uint64_t bytes = req->bytes;
    int ret;

    if (!discard_clip(bs, &offset, &bytes)) {
        return 0;
    }
    ret = bdrv_change_begin(&change, bs, offset, bytes, req->flags, false);
    if (ret < 0) {
        return ret;
    }
    return bdrv_change_end(&change, discard_run(bs, offset, bytes));
}

/* The whole request is marked, not only the units that it covers: who reads the bitmap asks what
 * was meant to go, and the reference answers so too. */
static int discard_marked(BlockDriverState *bs, const struct bdrv_req *req)
{
    int ret = bdrv_bitmaps_begin_co(bs, false);

    if (ret == 0) {
        ret = discard_node(bs, req);
        bdrv_bitmaps_mark(bs, req->offset, req->bytes);
    }
    return ret;
}

int bdrv_discard_co(BdrvEdge *edge, const struct bdrv_req *req)
{
    for (;;) {
        bool unmap;
        BlockDriverState *bs = bdrv_change_target(edge, &unmap);
        int ret = bdrv_node_ready(bs);

        if (ret == 0) {
            ret = bdrv_edge_may_change(edge, bs, req->flags);
        }
        if (ret == 0) {
            ret = bdrv_range_check(bs, req->offset, req->bytes, false);
        }
        if (ret == 0 && unmap) {
            ret = bdrv_probe_guard(edge, req);
        }
        if (ret < 0 || !unmap || req->bytes == 0) {
            return ret;
        }
        if (bs->drv->discard_co != NULL) {
            return bs->bitmaps == NULL ? discard_node(bs, req) : discard_marked(bs, req);
        }
        if (!bdrv_forwards(bs) && !bdrv_changes_below(bs)) {
            return 0;
        }
        if (bdrv_marks_in_passing(bs)) {
            return bdrv_bitmaps_pass_co(bs, req);
        }
        edge = bs->file;
    }
}
