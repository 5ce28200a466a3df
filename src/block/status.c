/* SPDX-License-Identifier: MIT */
/*
 * What stands where: data, zeroes, allocation. One node's answer may be the answer of the file
 * below (BDRV_BLOCK_RAW), or be refined by it (BDRV_BLOCK_RECURSE: a hole there is zeroes here);
 * both are followed in a loop, as is the backing chain.
 *
 * Meaning of what is returned: DATA or ZERO say how reads behave, ALLOCATED that the layer itself
 * decides the content. A layer that decides nothing and has no backing file reads as zeroes.
 *
 * Drivers join what is of one kind; extents are not joined again here: it would have each asked for
 * twice, and whoever wants the longest ones has to go on from the end of the answer anyway.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "block/request.h"
#include "util/checked.h"

BlockDriverState *bdrv_backing(BlockDriverState *bs)
{
    BdrvEdge *edge;

    TAILQ_FOREACH (edge, &bs->children, in_parent) {
        if (edge->role & BDRV_ROLE_COW) {
            return edge->bs;
        }
    }
    return NULL;
}

BlockDriverState *bdrv_chain_below(BlockDriverState *bs)
{
    while (bdrv_forwards(bs)) {
        bs = bs->file->bs;
    }
    return bdrv_backing(bs);
}

/* Cut the range to the node. -EIO when it begins outside. */
static int place_clamp(struct status_place *p)
{
    int ret = bdrv_node_ready(p->bs);
    int64_t size = atomic_load_explicit(&p->bs->size_bytes, memory_order_relaxed);

    if (ret < 0 || size < 0) {
        return ret < 0 ? ret : (int)size;
    }
    if (p->offset >= (uint64_t)size) {
        return -EIO;
    }
    p->bytes = min_u64(p->bytes, (uint64_t)size - p->offset);
    return 0;
}

/* Past filters that do not answer themselves. */
static int place_skip_filters(struct status_place *p)
{
    int ret = place_clamp(p);

    while (ret == 0 && p->bs->drv->block_status_co == NULL && bdrv_forwards(p->bs)) {
        p->bs = p->bs->file->bs;
        ret = place_clamp(p);
    }
    return ret;
}

static void answer_all_data(const struct status_place *p, struct bdrv_status *ret_status)
{
    *ret_status = (struct bdrv_status){.flags = BDRV_BLOCK_DATA, .bytes = p->bytes};
    if (p->bs->caps & BDRV_CAP_PROTOCOL) {
        ret_status->flags |= BDRV_BLOCK_OFFSET_VALID;
        ret_status->map = p->offset;
        ret_status->file = p->bs;
    }
}

/* The driver's answer for p (clamped), as far as p goes. */
static int answer_driver(const struct status_place *p, bool want_zero,
                         struct bdrv_status *ret_status)
{
    BlockDriverState *bs = p->bs;
    uint64_t align = bs->bl.request_alignment;
    uint64_t start = align_down(p->offset, align);
    uint64_t skip = p->offset - start;
    uint64_t end;
    struct bdrv_status st = {0};
    int ret;

    if (bs->drv->block_status_co == NULL) {
        answer_all_data(p, ret_status);
        return 0;
    }
    end = p->offset + p->bytes;
    end = max_u64(end, min_u64(align_up(end, align), bdrv_node_size(bs)));
    ret = bs->drv->block_status_co(bs, want_zero, start, end - start, &st);
    if (ret < 0) {
        return ret;
    }
    assert(st.bytes > 0);
    assert(!(st.flags & BDRV_BLOCK_RAW) || (st.flags & BDRV_BLOCK_OFFSET_VALID));
    if (st.bytes <= skip) {
        /* several extents in one block: call the rest of it data */
        answer_all_data(p, ret_status);
        ret_status->bytes = min_u64(p->bytes, align - skip);
        return 0;
    }
    st.bytes = min_u64(st.bytes - skip, p->bytes);
    if (st.flags & BDRV_BLOCK_OFFSET_VALID) {
        st.map += skip;
    }
    *ret_status = st;
    return 0;
}

int bdrv_status_answer(struct status_place *p, bool want_zero, struct bdrv_status *ret_status)
{
    for (;;) {
        int ret = place_skip_filters(p);

        if (ret == 0) {
            ret = answer_driver(p, want_zero, ret_status);
        }
        if (ret < 0 || !(ret_status->flags & BDRV_BLOCK_RAW)) {
            return ret;
        }
        assert(ret_status->file != NULL && ret_status->file != p->bs);
        p->bs = ret_status->file;
        p->offset = ret_status->map;
        p->bytes = ret_status->bytes;
    }
}

static bool wants_refining(const struct bdrv_status *st, const BlockDriverState *bs)
{
    const int needed = BDRV_BLOCK_RECURSE | BDRV_BLOCK_DATA | BDRV_BLOCK_OFFSET_VALID;

    return (st->flags & needed) == needed && !(st->flags & BDRV_BLOCK_ZERO) && st->file != NULL &&
           st->file != bs;
}

/* Look for holes in the files below what st says is data. */
static void refine_zeroes(const struct status_place *from, struct bdrv_status *st)
{
    struct status_place p = *from;
    struct bdrv_status below = *st;

    while (wants_refining(&below, p.bs)) {
        p = (struct status_place){.bs = below.file, .offset = below.map, .bytes = below.bytes};
        if (bdrv_status_answer(&p, true, &below) < 0) {
            return;
        }
        st->bytes = min_u64(st->bytes, below.bytes);
        if (below.flags & BDRV_BLOCK_ZERO) {
            st->flags |= BDRV_BLOCK_ZERO;
            return;
        }
    }
}

/* One extent. p moves to the node that answered. */
static int status_extent(struct status_place *p, bool want_zero, struct bdrv_status *st)
{
    int ret = bdrv_status_answer(p, want_zero, st);

    if (ret < 0) {
        return ret;
    }
    if (want_zero) {
        refine_zeroes(p, st);
    }
    if (st->flags & (BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO)) {
        st->flags |= BDRV_BLOCK_ALLOCATED;
    } else if (!(st->flags & BDRV_BLOCK_ALLOCATED) && bdrv_backing(p->bs) == NULL &&
               !(p->bs->caps & BDRV_CAP_PROTOCOL)) { /* storage that means zeroes says so */
        st->flags |= BDRV_BLOCK_ZERO;
    }
    st->flags &= ~(BDRV_BLOCK_RAW | BDRV_BLOCK_RECURSE | BDRV_BLOCK_EOF);
    if (!(st->flags & BDRV_BLOCK_OFFSET_VALID)) {
        st->map = 0;
        st->file = NULL;
    }
    return 0;
}

/* 0 with the range cut to the node; -EINVAL without bytes. */
static int status_begin(BdrvEdge *edge, uint64_t offset, uint64_t bytes, struct status_place *p)
{
    *p = (struct status_place){.bs = edge->bs, .offset = offset, .bytes = bytes};
    return bytes == 0 ? -EINVAL : place_clamp(p);
}

static void status_mark_end(BdrvEdge *edge, uint64_t offset, struct bdrv_status *st)
{
    if (offset + st->bytes >= bdrv_node_size(edge->bs)) {
        st->flags |= BDRV_BLOCK_EOF;
    }
}

int bdrv_edge_block_status_co(BdrvEdge *edge, bool want_zero, uint64_t offset, uint64_t bytes,
                              struct bdrv_status *ret_status)
{
    struct status_place p;
    int ret = status_begin(edge, offset, bytes, &p);

    if (ret == 0) {
        ret = status_extent(&p, want_zero, ret_status);
    }
    if (ret == 0) {
        status_mark_end(edge, offset, ret_status);
    }
    return ret;
}

int bdrv_edge_status_above_co(BdrvEdge *edge, bool want_zero, uint64_t offset, uint64_t bytes,
                              struct bdrv_status *ret_status, int *ret_depth)
{
    struct status_place p;
    struct bdrv_status st;
    int depth = 1;
    int ret = status_begin(edge, offset, bytes, &p);

    for (; ret == 0; depth++) {
        BlockDriverState *backing;
        int64_t size;

        ret = status_extent(&p, want_zero, &st);
        if (ret < 0 || (st.flags & BDRV_BLOCK_ALLOCATED)) {
            break;
        }
        backing = bdrv_backing(p.bs);
        if (backing == NULL) {
            depth = 0;
            break;
        }
        size = atomic_load_explicit(&backing->size_bytes, memory_order_relaxed);
        if (size >= 0 && p.offset >= (uint64_t)size) {
            /* the backing file is shorter: nobody decides, so zeroes */
            st.flags |= BDRV_BLOCK_ZERO;
            depth = 0;
            break;
        }
        p = (struct status_place){.bs = backing, .offset = p.offset, .bytes = st.bytes};
        ret = place_clamp(&p);
    }
    if (ret < 0) {
        return ret;
    }
    *ret_status = st;
    status_mark_end(edge, offset, ret_status);
    if (ret_depth != NULL) {
        *ret_depth = depth;
    }
    return 0;
}

int bdrv_backing_depth(const BdrvEdge *edge, const char *node_name)
{
    BlockDriverState *bs = edge->bs;
    int depth = 1;

    while (bs != NULL) {
        BlockDriverState *backing = bdrv_backing(bs);

        if (strcmp(bs->node_name, node_name) == 0) {
            return depth;
        }
        if (backing == NULL && bs->file != NULL && (bs->file->role & BDRV_ROLE_FILTERED)) {
            bs = bs->file->bs; /* the same layer */
        } else {
            bs = backing;
            depth++;
        }
    }
    return 0;
}
