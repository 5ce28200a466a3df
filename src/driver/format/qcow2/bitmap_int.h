/* SPDX-License-Identifier: MIT */
/*
 * What bitmap.c, bitmap_load.c and bitmap_store.c share.
 *
 * Entry i of the directory is the i-th of the node's bitmaps that are STORED (block/ keeps them in
 * the image's order); so the two lists are walked together, and no name is looked up.
 */
#ifndef PLATTER_QCOW2_BITMAP_INT_H
#define PLATTER_QCOW2_BITMAP_INT_H

#include "bitmap.h"
#include "qcow2.h"

/* Of an image whose directory was read. Changes while the node is drained, and in flag_co. */
struct q2_bitmaps {
    struct q2_bitmap_directory dir; /* as in the file */
    bool unread;                    /* the bits were not; so the disk must not change */
    /* A write of the header failed: the file has that header or the one before, and nobody knows
     * which directory counts, until the header was written once more. */
    bool header_unsure;
};

/* The next bitmap of the node after bitmap (NULL: the first) that the image has. */
BdrvDirtyBitmap *q2_bitmap_next_stored(BlockDriverState *bs, BdrvDirtyBitmap *bitmap);

/* ---- bitmap_load.c ---- */

/* Whether the entry by itself allows its bits to be used ("flags" in the specification). */
bool q2_bitmap_may_use(const struct q2_bitmap_entry *e);

/* The directory that the header names. ret_dir is for fini also after a failure. */
int q2_bitmap_directory_read(struct qcow2 *s, struct q2_bitmap_directory *ret_dir, Error **errp);
/* The bitmaps of the directory enter the node; entries are marked damaged. */
int q2_bitmaps_load(struct qcow2 *s, struct q2_bitmap_directory *dir, Error **errp);
/* Whether a range is where clusters of bitmaps may be: inside the file, and no other metadata. */
bool q2_bitmap_range_ok(struct qcow2 *s, uint64_t offset, uint64_t bytes, uint64_t file_bytes);
/* Call visit for each cluster of data of a bitmap, as far as its table can be read. */
int q2_bitmap_each_cluster(struct qcow2 *s, const struct q2_bitmap_entry *e,
                           int (*visit)(void *opaque, uint32_t index, uint64_t offset),
                           void *opaque);

/* ---- bitmap_store.c: drained; coroutine ---- */

int q2_bitmaps_write_co(struct qcow2 *s, const BdrvDirtyBitmap *without, bool *ret_done,
                        Error **errp);
/* Write the header again when it is not known what the file has. */
int q2_bitmaps_settle_header_co(struct qcow2 *s, Error **errp);

#endif
