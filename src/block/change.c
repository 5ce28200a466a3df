/* SPDX-License-Identifier: MIT */
/*
 * A change of a node, from its registration to the moment its completion may be told: whatever
 * writes, zeroes, discards or copies goes through here, but for writes that need no care.
 */
#include <assert.h>
#include <errno.h>

#include "block/dirty_bitmap.h"
#include "block/request.h"
#include "util/checked.h"
#include "util/mem.h"

unsigned bdrv_track_flags(unsigned req_flags)
{
    unsigned flags = 0;

    if (req_flags & BDRV_REQ_SERIALISING) {
        flags |= BDRV_TRACK_SERIALISING | BDRV_TRACK_HOLDS_ALL;
    }
    if (req_flags & BDRV_REQ_NO_WAIT) {
        flags |= BDRV_TRACK_NO_WAIT;
    }
    return flags;
}

/* Whether a write that ends at end pads the file's last block past the end of the file, so that the
 * file is cut back afterwards and nobody may write behind it meanwhile. */
static bool pads_past_end(BlockDriverState *bs, uint64_t end)
{
    uint32_t align = bs->bl.request_alignment;

    return (bs->caps & BDRV_CAP_PROTOCOL) && (bs->caps & BDRV_CAP_GROWS_ON_WRITE) &&
           !is_aligned(end, align) && align_up(end, align) > max_u64(bdrv_node_size(bs), end);
}

static int change_track(struct bdrv_change *c, uint64_t offset, unsigned flags)
{
    BlockDriverState *bs = c->bs;
    uint32_t align = bs->bl.request_alignment;
    uint64_t start = align_down(offset, align);
    bool waited;

    flags = bdrv_track_flags(flags);
    if (!is_aligned(offset | c->end, align)) {
        flags |= BDRV_TRACK_SERIALISING;
    }
    for (;;) {
        bool pads = pads_past_end(bs, c->end);
        uint64_t stop = pads ? BDRV_TRACK_TO_END : align_up(c->end, align);
        int ret = bdrv_track_begin(bs, &c->t, start, stop, flags, &waited);

        if (ret < 0) {
            return ret;
        }
        if (LIKELY(pads || !pads_past_end(bs, c->end))) {
            c->tracked = true;
            return 0;
        }
        /* the node shrank while we waited: hold off more than we did */
        bdrv_track_end(bs, &c->t);
    }
}

int bdrv_change_begin(struct bdrv_change *c, BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                      unsigned flags, bool may_grow)
{
    int ret = bdrv_range_check(bs, offset, bytes, may_grow);

    if (ret == 0 && UNLIKELY(bs->bitmaps != NULL)) {
        ret = bdrv_bitmaps_begin_co(bs, false);
        bdrv_threshold_check(bs, offset + bytes);
    }
    if (ret < 0) {
        return ret;
    }
    c->bs = bs;
    c->offset = offset;
    c->end = offset + bytes;
    c->tracked = false;
    c->fua = false;
    if (bs->bl.request_alignment > 1 || (flags & BDRV_REQ_SERIALISING) ||
        bdrv_others_serialise(bs)) {
        ret = change_track(c, offset, flags);
        if (ret < 0) {
            return ret;
        }
        /* it may have been truncated, or have broken, while we waited */
        ret = bdrv_node_ready(bs);
        if (ret == 0) {
            ret = bdrv_range_check(bs, offset, bytes, may_grow);
        }
        if (ret < 0) {
            bdrv_track_end(bs, &c->t);
            return ret;
        }
    }
    c->size = bdrv_node_size(bs);
    return 0;
}

int bdrv_change_end(struct bdrv_change *c, int ret)
{
    BlockDriverState *bs = c->bs;

    if (ret == 0 && c->end > c->size) {
        bdrv_grow_size(bs, c->end);
    }
    if (UNLIKELY(bs->bitmaps != NULL)) {
        bdrv_bitmaps_mark(bs, c->offset, c->end - c->offset);
    }
    atomic_fetch_add_explicit(&bs->write_gen, 1, memory_order_release); /* Q1 of request.c */
    if (c->tracked) {
        bdrv_track_end(bs, &c->t);
    }
    return ret == 0 && c->fua ? bdrv_node_flush_co(bs) : ret;
}
