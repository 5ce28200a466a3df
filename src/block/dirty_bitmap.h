/* SPDX-License-Identifier: MIT */
/*
 * Dirty bitmaps inside the block floor: dirty_bitmap.c makes, changes and removes them,
 * dirty_mark.c is what requests and any thread do with them.
 */
#ifndef PLATTER_BLOCK_DIRTY_BITMAP_H
#define PLATTER_BLOCK_DIRTY_BITMAP_H

#include <platter/bitmap.h>

#include "block/node.h"
#include "util/bitmap.h"

struct BdrvDirtyBitmap {
    TAILQ_ENTRY(BdrvDirtyBitmap) in_node;
    BlockDriverState *bs; /* borrowed */
    char *name;           /* owned; NULL: none */
    unsigned granularity_bits;
    bool persistent;
    bool inconsistent; /* its bits mean nothing; recording is then what the image says */
    int busy;          /* control thread */
    struct bitmap bits;
    _Atomic bool recording;
    /* what the image has of it */
    bool stored;          /* control thread, or drained */
    _Atomic bool in_use;  /* flagged so there */
    _Atomic bool changed; /* the bits, other than by recording */
};
TAILQ_HEAD(dirty_bitmap_list, BdrvDirtyBitmap);

/* What watches the changes of a node: its bitmaps, and a threshold. Made and ended, and the list
 * changed, while the node is drained. */
struct bdrv_bitmaps {
    struct dirty_bitmap_list list;
    _Atomic uint64_t write_threshold; /* threshold.c; 0: none */
    CoMutex lock;                     /* one flag_co of the driver at a time */
    _Atomic uint64_t gen;             /* goes up when there may be one that must be flagged */
    _Atomic uint64_t settled;         /* the gen for which all are */
};

/* ---- dirty_mark.c; only where bs->bitmaps is not NULL ---- */

/* Whether all that must be flagged in the image before a change is. */
static inline bool bdrv_bitmaps_settled(const BlockDriverState *bs)
{
    return atomic_load_explicit(&bs->bitmaps->settled, memory_order_acquire) ==
           atomic_load_explicit(&bs->bitmaps->gen, memory_order_relaxed);
}
/* Before a change: what the image stores of its bitmaps that record (all: of every one) is flagged
 * as in use. What cannot be flagged must not be changed. Coroutine. */
int bdrv_bitmaps_begin_co(BlockDriverState *bs, bool all);
/* A change up to end is about to be done. Any context. */
void bdrv_threshold_check(BlockDriverState *bs, uint64_t end);
/* After a change, failed or not, before anybody hears of it. Any context. */
void bdrv_bitmaps_mark(BlockDriverState *bs, uint64_t offset, uint64_t bytes);
/* A change that the node hands on to its primary child as it is. Coroutine. */
int bdrv_bitmaps_pass_co(BlockDriverState *bs, const struct bdrv_req *req);

/* 0, or -EBUSY, -EINVAL with errp. */
int bitmap_refuse_busy(const BdrvDirtyBitmap *bitmap, Error **errp);
int bitmap_refuse_inconsistent(const BdrvDirtyBitmap *bitmap, Error **errp);

/* ---- dirty_bitmap.c ---- */

/* Whether the node has any. */
bool bdrv_has_bitmaps(const BlockDriverState *bs);
/* Whether it must see every change: it has bitmaps or a threshold. */
bool bdrv_is_watched(const BlockDriverState *bs);
/* bs->bitmaps, made where it is not there; NULL: no memory. Drained, or being opened. */
struct bdrv_bitmaps *bdrv_bitmaps_of(BlockDriverState *bs);
/* End it when nothing watches. Drained. */
void bdrv_bitmaps_tidy(BlockDriverState *bs);
/* The disk is smaller now. Control thread. */
void bdrv_bitmaps_shrink(BlockDriverState *bs, uint64_t size_bytes);
/* The end of the node. */
void bdrv_bitmaps_fini(BlockDriverState *bs);

/* 0, or -errno with errp: busy, read-only, inconsistent. */
int bitmap_may_change(const BdrvDirtyBitmap *bitmap, Error **errp);
/* Take away one that the image has not heard of yet. */
void bdrv_bitmap_drop(BdrvDirtyBitmap *bitmap);

/* ---- dirty_saved.c ---- */

/* What a bitmap was before a change. */
struct bitmap_saved {
    struct bitmap bits; /* owned */
    bool changed;
    bool nothing; /* it was not changed */
};
/* As bdrv_bitmap_clear and _merge; after 0 one of the next two follows, in reverse order of the
 * changes of a bitmap. */
int bdrv_bitmap_clear_saving(BdrvDirtyBitmap *bitmap, struct bitmap_saved *ret_saved, Error **errp);
int bdrv_bitmap_merge_saving(BdrvDirtyBitmap *target, const BdrvDirtyBitmap *source,
                             struct bitmap_saved *ret_saved, Error **errp);
void bdrv_bitmap_restore(BdrvDirtyBitmap *bitmap, struct bitmap_saved *saved);
void bdrv_bitmap_saved_free(struct bitmap_saved *saved);

/* ---- threshold.c ---- */

/* Tell of a change up to end; the threshold is gone. Any context. */
void bdrv_threshold_passed(BlockDriverState *bs, uint64_t end, uint64_t threshold);

#endif
