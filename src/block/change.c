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

/* What a change keeps others out of, or only waits for. */
struct claim {
    uint64_t start;
    uint64_t stop;
    unsigned flags;
};

/* Two writes reach further than their blocks. One that pads the file's last block past the end of
 * the file is cut back afterwards, so nobody may write behind it meanwhile. And one that makes the
 * file longer changes the block its old end lies in (eof_alignment), where nobody may write
 * meanwhile either: a kernel that clears the rest of that block in its page cache, while direct I/O
 * to the same block is in flight, says EIO to the next flush. */
static struct claim claim_of(const struct bdrv_change *c, uint64_t offset, unsigned flags)
{
    BlockDriverState *bs = c->bs;
    const struct bdrv_limits *bl = &bs->bl;
    uint64_t size = bdrv_node_size(bs);
    struct claim claim = {
        .start = align_down(offset, bl->request_alignment),
        .stop = align_up(c->end, bl->request_alignment),
        .flags = flags,
    };

    if (!is_aligned(offset | c->end, bl->request_alignment)) {
        claim.flags |= BDRV_TRACK_SERIALISING;
    }
    if (LIKELY(claim.stop <= size) || !(bs->caps & BDRV_CAP_PROTOCOL) ||
        !(bs->caps & BDRV_CAP_GROWS_ON_WRITE)) {
        return claim;
    }
    if (!is_aligned(size, bl->eof_alignment)) {
        claim.start = min_u64(claim.start, align_down(size, bl->eof_alignment));
        claim.flags |= BDRV_TRACK_SERIALISING;
    }
    if (claim.stop > max_u64(size, c->end)) {
        claim.stop = BDRV_TRACK_TO_END;
    }
    return claim;
}

static int change_track(struct bdrv_change *c, uint64_t offset, unsigned req_flags)
{
    unsigned flags = bdrv_track_flags(req_flags);
    struct claim claim = claim_of(c, offset, flags);

    for (;;) {
        bool waited;
        struct claim now;
        int ret = bdrv_track_begin(c->bs, &c->t, claim.start, claim.stop, claim.flags, &waited);

        if (ret < 0) {
            return ret;
        }
        now = claim_of(c, offset, flags);
        if (LIKELY(claim.start <= now.start && claim.stop >= now.stop &&
                   (claim.flags & now.flags) == now.flags)) {
            c->tracked = true;
            return 0;
        }
        /* the end moved while we waited: hold off more than we did */
        bdrv_track_end(c->bs, &c->t);
        claim = now;
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
