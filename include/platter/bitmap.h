/* SPDX-License-Identifier: MIT */
/*
 * Dirty bitmaps: what of a node's disk was changed since a point in time. A bit stands for a
 * granule of the disk, a power of two of bytes; it is set when a request changed any byte of it, or
 * failed and may have, before that request's completion is told.
 *
 * A bitmap records while it is enabled. One that is persistent is stored in the image when the node
 * closes or becomes read-only (or when bdrv_bitmaps_store asks for it), comes back, with its name,
 * when the image is opened again, and goes on recording. The first change after that flags it in
 * the image as in use; if the power fails then, it comes back inconsistent: it can only be removed.
 *
 * [control] unless a call says otherwise; a bitmap lives until it is removed or its node ends.
 * "0 or -errno" with errp set. A bitmap that is inconsistent, busy, or persistent on a read-only
 * node is not changed: -EINVAL, -EBUSY, -EPERM.
 */
#ifndef PLATTER_BITMAP_H
#define PLATTER_BITMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <platter/block.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct BdrvDirtyBitmap BdrvDirtyBitmap;

#define BDRV_BITMAP_NAME_BYTES_MAX 1023

enum bdrv_bitmap_flags {
    BDRV_BITMAP_PERSISTENT = 1 << 0,
    BDRV_BITMAP_DISABLED = 1 << 1, /* does not record until it is enabled */
};

struct bdrv_bitmap_info {
    const char *name; /* borrowed; NULL: it has none */
    uint64_t granularity_bytes;
    uint64_t dirty_bytes; /* whole granules */
    bool recording;       /* enabled */
    bool busy;
    bool persistent;
    bool inconsistent;
    bool in_use; /* as the image says of what it stores */
};

/* A clean bitmap of bs. name: not empty, at most BDRV_BITMAP_NAME_BYTES_MAX bytes, not that of
 * another bitmap of bs; NULL: none, and nobody finds it by name. granularity_bytes: a power of two,
 * 512 to 2 GiB; 0: the image's cluster size, but 4 KiB at least and 64 KiB at most; 64 KiB where
 * there are no clusters. NULL with errp: EINVAL, EEXIST, ENOMEM, ENOTSUP (this image cannot store
 * bitmaps), EPERM (read-only). */
BdrvDirtyBitmap *bdrv_bitmap_create(BlockDriverState *bs, const char *name,
                                    uint64_t granularity_bytes, unsigned flags, Error **errp);
/* Also from the image, at once. Not while it is busy. */
int bdrv_bitmap_remove(BdrvDirtyBitmap *bitmap, Error **errp);

/* NULL: there is none. */
BdrvDirtyBitmap *bdrv_bitmap_find(BlockDriverState *bs, const char *name);
/* Walk the bitmaps of bs in order of creation; NULL gives the first. */
BdrvDirtyBitmap *bdrv_bitmap_next(BlockDriverState *bs, BdrvDirtyBitmap *bitmap);
void bdrv_bitmap_get_info(const BdrvDirtyBitmap *bitmap, struct bdrv_bitmap_info *ret_info);

int bdrv_bitmap_enable(BdrvDirtyBitmap *bitmap, Error **errp);
int bdrv_bitmap_disable(BdrvDirtyBitmap *bitmap, Error **errp);
int bdrv_bitmap_clear(BdrvDirtyBitmap *bitmap, Error **errp);
/* What is dirty in source is dirty in target too; they may be of different granularity and of
 * different nodes, whose disks are of one size. */
int bdrv_bitmap_merge(BdrvDirtyBitmap *target, const BdrvDirtyBitmap *source, Error **errp);

/* While it is busy (a job uses it) it is not removed, changed by the calls above, nor is the disk
 * resized; it still records. Calls nest. */
void bdrv_bitmap_set_busy(BdrvDirtyBitmap *bitmap, bool busy);

/* ---- the bits: [any] ---- */

/* Mark the granules that [offset, offset + bytes) touches, whether it records or not. */
void bdrv_bitmap_set(BdrvDirtyBitmap *bitmap, uint64_t offset, uint64_t bytes);
/* Clear the granules that lie wholly inside, or reach past the disk's end. -ENOMEM: some stay
 * dirty. Whoever then reads the disk sees every change that is not marked again afterwards. */
int bdrv_bitmap_reset(BdrvDirtyBitmap *bitmap, uint64_t offset, uint64_t bytes);
bool bdrv_bitmap_get(const BdrvDirtyBitmap *bitmap, uint64_t offset);
/* The first dirty range that begins in [offset, end), cut at end and at the disk's end. */
bool bdrv_bitmap_next_dirty(const BdrvDirtyBitmap *bitmap, uint64_t offset, uint64_t end,
                            uint64_t *ret_offset, uint64_t *ret_bytes);

/* ---- the image ---- */

/* Store the persistent bitmaps of bs now: drains and flushes. Afterwards a cut of power costs none
 * of them until the next change of the disk. */
int bdrv_bitmaps_store(BlockDriverState *bs, Error **errp);

#ifdef __cplusplus
}
#endif
#endif
