/* SPDX-License-Identifier: MIT */
/*
 * What giving space back (src/job/compact.c) needs of a node that it alone uses, through an edge of
 * its own. Coroutine calls; -errno as the storage says.
 */
#ifndef PLATTER_BLOCK_COMPACT_H
#define PLATTER_BLOCK_COMPACT_H

#include "block/driver.h"
#include "block/node.h"

/* The node that an image's bytes are to be given back in: bs, or what is below filters. NULL with
 * errp: there is no medium, it is read-only (unless look_only) or cannot be used any more. */
BlockDriverState *bdrv_compact_node(BlockDriverState *bs, bool look_only, Error **errp);

/* What a part of the disk is in this layer. */
enum bdrv_compact_kind {
    BDRV_COMPACT_NOTHING, /* the layer does not decide it, or it takes no space */
    BDRV_COMPACT_ZEROES,  /* that take space */
    BDRV_COMPACT_DATA,
};
int bdrv_compact_status_co(BdrvEdge *edge, uint64_t offset, uint64_t bytes,
                           enum bdrv_compact_kind *ret_kind, uint64_t *ret_bytes);
/* The smallest part of the disk that zeroes can be said of, and what is allocated as a whole. */
void bdrv_compact_units(BlockDriverState *bs, uint32_t *ret_unit, uint32_t *ret_cluster);
/* The range reads as zeroes already, or (drop) as the backing chain does: let it take no space in
 * this layer. Dirty bitmaps are not told. *ret_bytes: how many went. -ENOTSUP. */
int bdrv_compact_give_co(BdrvEdge *edge, uint64_t offset, uint64_t bytes, bool drop,
                         uint64_t *ret_bytes);
bool bdrv_compact_drops(BlockDriverState *bs); /* whether it has a backing file, and can */
/* What the backing chain has there. */
int bdrv_compact_read_backing_co(BlockDriverState *bs, uint64_t offset, void *buf, uint64_t bytes);
/* Length of the image's own file, and what all its files take; negative: not known. */
int64_t bdrv_compact_file_bytes(BlockDriverState *bs);

bool bdrv_compacts(const BlockDriverState *bs); /* whether the driver has more to do than that */
/* All the rest, in the driver: bdrv_image_ops.compact_co. Flushed before and after. */
int bdrv_compact_co(BdrvEdge *edge, const struct bdrv_compact_calls *calls, bool dry_run,
                    struct bdrv_compact_result *ret_result, Error **errp);

#endif
