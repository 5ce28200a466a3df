/* SPDX-License-Identifier: MIT */
/*
 * What the files of giving space back share.
 *
 * The image is settled and nobody else's, so tables are read and written past the cache. What lies
 * behind the limit, where the file could end if nothing in front of it were free, is moved into
 * free clusters in front of it, and then the file is cut. The tail is gone through in windows, from
 * the end of the file towards its start. A window goes in rounds, guest data first, then L2 tables:
 *
 *  M1 a copy is written to clusters that nothing refers to. Its refcounts are at once those of the
 *     original, so that COPIED, which says "one", stays right whichever of the two is referred to.
 *  M2 copies and their refcounts are durable before the first reference changes (W1); references
 *     (L2 entries, L1 entries, ...) then change one after the other, each within a sector.
 *  M3 when all of them are durable, the original loses its references (W4).
 *
 * A cut of power leaves each reference at the original or at the copy, which hold the same, and
 * both with refcounts that are right or too high: a leak. A round that is cancelled does not copy
 * more, but goes on with M2 and M3; one that fails before M2 gives its copies back, and later
 * leaks.
 */
#ifndef PLATTER_QCOW2_COMPACT_INT_H
#define PLATTER_QCOW2_COMPACT_INT_H

#include "compact.h"
#include "qcow2.h"
#include "refmap.h"
#include "tree_walk.h"

/* What a cluster of the window is; several at once: it stays where it is. */
enum q2_compact_kind {
    Q2_COMPACT_DATA = 1 << 0,
    Q2_COMPACT_TABLE = 1 << 1, /* of level 2 */
    Q2_COMPACT_PACKED = 1 << 2,
};

/* A compressed cluster of the disk that touches the window. */
struct q2_blob {
    uint64_t offset; /* in the file */
    uint64_t word;   /* of the entry */
    uint64_t now;    /* what it becomes; 0: it stays */
    uint64_t times;  /* the entry is there */
};

struct q2_compact {
    struct qcow2 *s;
    const struct bdrv_compact_calls *calls;
    struct bdrv_compact_result *res;
    struct q2_walk w; /* its table: the L2 table that is looked at */
    uint64_t limit;   /* clusters from here on are to go */
    /* the window: clusters [low, high) */
    uint64_t low, high;
    uint64_t room;  /* at most so many */
    uint64_t *to;   /* owned; where each goes; 0: nowhere */
    uint8_t *kinds; /* owned; enum q2_compact_kind */
    struct q2_blob *blobs;
    size_t blobs_count;
    bool blobs_overflow;   /* there are more than fit */
    struct q2_refmap seen; /* L2 tables, of this walk */
    uint8_t *buf;          /* owned; Q2_COMPACT_BUF_BYTES or a cluster */
    size_t buf_bytes;
    bool full;     /* nothing more fits in front of the limit */
    int cancelled; /* what turn_co said; 0: go on */
};

#define Q2_COMPACT_BUF_BYTES (UINT64_C(1) << 20)
#define Q2_COMPACT_BLOBS_MAX (UINT32_C(1) << 17)

/* ---- compact.c ---- */

/* A safe point. */
void q2_compact_turn_co(struct q2_compact *c, uint64_t bytes);
/* Do step until it succeeds or is not to be tried again. */
int q2_compact_try_co(struct q2_compact *c, bool reading, int (*step)(struct q2_compact *c));
/* Memory and file the same, durable. */
int q2_compact_settle_co(struct q2_compact *c);
/* count clusters in a row that end at or in front of end (a cluster); *ret_offset 0: there are none
 * there. */
int q2_compact_alloc_co(struct q2_compact *c, uint64_t count, uint64_t end, uint64_t *ret_offset);
/* Lower the refcounts of [offset, offset + bytes) by times; what fails leaks. */
void q2_compact_lower_co(struct q2_compact *c, uint64_t offset, uint64_t bytes, uint64_t times);
/* Copy bytes within the file. */
int q2_compact_copy_co(struct q2_compact *c, uint64_t from, uint64_t to, uint64_t bytes);

/* ---- compact_move.c ---- */

/* All that can be moved of the window. 0 or -errno with errp. */
int q2_compact_window_co(struct q2_compact *c, Error **errp);

/* ---- compact_blob.c: compressed clusters ---- */

/* Note an entry that is there so many times, if it touches the window. */
void q2_blob_note(struct q2_compact *c, uint64_t word, uint64_t times);
void q2_blobs_sort(struct q2_compact *c); /* all were noted */
/* Copies of as many as fit. */
int q2_blobs_copy_co(struct q2_compact *c);
/* What the entry becomes; 0: it stays. */
uint64_t q2_blob_now(const struct q2_compact *c, uint64_t word);
/* References go from the old ones, or (undo) from the copies. */
void q2_blobs_release_co(struct q2_compact *c, bool undo);

/* ---- compact_meta.c ---- */

/* Clusters of tables longer than one that lie behind what the file's end would be. */
uint64_t q2_compact_long_tables(const struct q2_compact *c, uint64_t end);
/* Refcount structures, L1 tables, snapshot table and bitmaps behind the limit. 0 or -errno, errp.
 */
int q2_compact_meta_co(struct q2_compact *c, Error **errp);
int q2_compact_bitmaps_co(struct q2_compact *c, Error **errp); /* compact_bitmap.c */

#endif
