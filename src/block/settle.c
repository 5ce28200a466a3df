/* SPDX-License-Identifier: MIT */
/*
 * What follows from a node's children: its limits, where its requests go (folding), its size.
 * Worked out anew, children first, for everything above a change.
 *
 * A node that is being opened is left alone: its driver's state is not complete. open.c settles it
 * when it is.
 */
#include <assert.h>
#include <errno.h>

#include "block/dirty_bitmap.h"
#include "block/graph_int.h"
#include "util/checked.h"

static uint32_t min_limit_u32(uint32_t a, uint32_t b)
{
    return a == 0 ? b : b == 0 || a < b ? a : b;
}
static uint64_t min_limit_u64(uint64_t a, uint64_t b)
{
    return a == 0 ? b : b == 0 || a < b ? a : b;
}
static uint32_t max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* Memory that reaches the child unchanged should fit it at once; the primary child also receives
 * the node's own requests, so all of its limits count, but for its request_alignment: what is no
 * whole block is read, changed and written back by the one node that has the blocks, where all who
 * write to it meet. Two filters over one node that did so by themselves would lose bytes. A node
 * that is folded away only tells what the node below will do. */
static void limits_merge(struct bdrv_limits *limits, const BdrvEdge *edge, bool primary)
{
    const struct bdrv_limits *child = &edge->bs->bl;

    if (primary) {
        *limits = *child;
        return;
    }
    limits->mem_alignment = max_u32(limits->mem_alignment, child->mem_alignment);
    limits->opt_mem_alignment = max_u32(limits->opt_mem_alignment, child->opt_mem_alignment);
    limits->max_iov = min_limit_u32(limits->max_iov, child->max_iov);
    limits->max_transfer = min_limit_u64(limits->max_transfer, child->max_transfer);
    limits->opt_transfer = max_u64(limits->opt_transfer, child->opt_transfer);
}

static void node_settle_limits(BlockDriverState *bs)
{
    struct bdrv_limits limits = {
        .request_alignment = 1,
        .mem_alignment = 1,
        .opt_mem_alignment = 1,
        .eof_alignment = 1,
    };
    BdrvEdge *edge;

    if (bs->file != NULL) {
        limits_merge(&limits, bs->file, true);
        if (!bdrv_passes_through(bs)) {
            limits.request_alignment = 1;
            limits.eof_alignment = 1;
        }
    }
    TAILQ_FOREACH (edge, &bs->children, in_parent) {
        if (edge != bs->file) {
            limits_merge(&limits, edge, false);
        }
    }
    if (bs->drv != NULL && bs->drv->refresh_limits != NULL) {
        bs->drv->refresh_limits(bs, &limits);
    }
    assert(is_pow2(limits.request_alignment) && is_pow2(limits.mem_alignment) &&
           is_pow2(limits.eof_alignment));
    limits.opt_mem_alignment = max_u32(limits.opt_mem_alignment, limits.mem_alignment);
    bs->bl = limits;
}

/* A node that changes nothing about reads, writes and flushes. A broken one answers for itself; one
 * with bitmaps must see every change. A
 * guessed raw node is folded too: the request path looks for them at the first sector. */
static bool node_folds(BlockDriverState *bs)
{
    return bdrv_passes_through(bs) && bs->detect_zeroes == BDRV_DETECT_ZEROES_OFF &&
           !bdrv_is_watched(bs) && atomic_load_explicit(&bs->broken, memory_order_acquire) == NULL;
}

static void node_settle_fold(BlockDriverState *bs)
{
    bs->through = node_folds(bs) ? bs->file->bs->through : bs;
}

static int64_t node_ask_size(BlockDriverState *bs)
{
    if (bs->drv == NULL) {
        return -ENOMEDIUM;
    }
    if (bs->drv->getlength != NULL) {
        return bdrv_size_told(bs, bs->drv->getlength(bs));
    }
    return bs->file != NULL ? atomic_load_explicit(&bs->file->bs->size_bytes, memory_order_acquire)
                            : -ENOTSUP;
}

/* A driver that cannot tell just now leaves the size as it was known: one failed question must not
 * take the disk away from its users. A medium that is gone is an answer. A write that grows the
 * node while the driver is asked makes its answer old, so it is asked again. Returns what the
 * driver said. */
static int64_t node_settle_size(BlockDriverState *bs)
{
    int64_t old = atomic_load_explicit(&bs->size_bytes, memory_order_acquire);
    int64_t size;

    do {
        size = node_ask_size(bs);
        if (size == old || (size < 0 && size != -ENOMEDIUM && old >= 0)) {
            return size;
        }
    } while (!atomic_compare_exchange_strong_explicit(&bs->size_bytes, &old, size,
                                                      memory_order_acq_rel, memory_order_acquire));
    if (bs->bitmaps != NULL && size >= 0 && size < old) {
        bdrv_bitmaps_shrink(bs, (uint64_t)size);
    }
    bs->resize_untold = true;
    bs->pl->sizes_untold = true;
    return size;
}

void graph_settle(BlockDriverState *bs)
{
    struct node_walk walk = node_walk_begin(bs->pl);
    BlockDriverState *node;

    node_walk_add_above(&walk, bs);
    for (node = walk.first; node != NULL; node = node->walk.next) {
        if (node->opening == NULL && !node->closing) {
            node_settle_limits(node);
            node_settle_fold(node);
            node_settle_size(node);
        }
    }
}

void graph_fold(BlockDriverState *bs)
{
    struct node_walk walk = node_walk_begin(bs->pl);
    BlockDriverState *node;

    node_walk_add_above(&walk, bs);
    for (node = walk.first; node != NULL; node = node->walk.next) {
        if (node->opening == NULL && !node->closing) {
            node_settle_fold(node);
        }
    }
}

void graph_sizes_above(BlockDriverState *bs)
{
    struct node_walk walk = node_walk_begin(bs->pl);
    BlockDriverState *node;

    node_walk_add_above(&walk, bs);
    for (node = walk.first; node != NULL; node = node->walk.next) {
        if (node != bs && node->opening == NULL && !node->closing) {
            node_settle_size(node);
        }
    }
    bs->resize_untold = true;
    bs->pl->sizes_untold = true;
}

static BlockDriverState *next_untold(Platter *pl)
{
    BlockDriverState *bs;

    TAILQ_FOREACH (bs, &pl->nodes, in_instance) {
        if (bs->resize_untold) {
            break;
        }
    }
    return bs;
}

static BdrvEdge *next_due(BlockDriverState *bs)
{
    BdrvEdge *edge;

    TAILQ_FOREACH (edge, &bs->parents, in_child) {
        if (edge->resize_due) {
            break;
        }
    }
    return edge;
}

/* The users may do anything when told, so nothing of a list is remembered over the call. */
static void node_tell_size(BlockDriverState *bs)
{
    BdrvEdge *edge;

    TAILQ_FOREACH (edge, &bs->parents, in_child) {
        edge->resize_due = edge->klass->resized != NULL;
    }
    bdrv_ref(bs);
    while ((edge = next_due(bs)) != NULL) {
        edge->resize_due = false;
        edge->klass->resized(edge);
    }
    bdrv_unref(bs);
}

void graph_tell_sizes(Platter *pl)
{
    BlockDriverState *bs;

    while (pl->sizes_untold) {
        pl->sizes_untold = false;
        while ((bs = next_untold(pl)) != NULL) {
            bs->resize_untold = false;
            node_tell_size(bs);
        }
    }
}

int64_t bdrv_refresh_size(BlockDriverState *bs)
{
    int64_t size;

    assert(instance_in_control_thread(bs->pl));
    if (bs->opening != NULL) {
        return bdrv_getlength(bs);
    }
    size = node_settle_size(bs);
    if (bs->resize_untold) {
        graph_sizes_above(bs);
    }
    graph_tell_sizes(bs->pl);
    return size;
}

void bdrv_shrink_size(BlockDriverState *bs, uint64_t size_bytes)
{
    int64_t size = atomic_load_explicit(&bs->size_bytes, memory_order_acquire);

    assert(instance_in_control_thread(bs->pl) && size_bytes <= INT64_MAX);
    while (size > (int64_t)size_bytes) {
        if (atomic_compare_exchange_weak_explicit(&bs->size_bytes, &size, (int64_t)size_bytes,
                                                  memory_order_acq_rel, memory_order_acquire)) {
            if (bs->bitmaps != NULL) {
                bdrv_bitmaps_shrink(bs, size_bytes);
            }
            graph_sizes_above(bs);
            break;
        }
    }
    graph_tell_sizes(bs->pl);
}
