/* SPDX-License-Identifier: MIT */
/*
 * What the files of check and repair share.
 *
 * A check looks at the file and not at the caches: the image is drained and settled. First it
 * counts the references to each cluster (check_refs.c, check_meta.c), then it compares them with
 * the refcounts that are stored and looks at the COPIED flags (check_compare.c). Findings are told
 * and counted as qemu-img 7.2 was seen to do.
 *
 * Bounds, whatever the image says:
 *  B1 memory: a map of the clusters inside the file that are referred to, and one of those whose
 *     refcount is wrong (refmap.h).
 *  B2 time: each L2 table is read a few times, however many L1 entries refer to it; what it refers
 *     to counts as often. Each byte of inactive L1 tables is read twice, however many snapshots
 *     share it.
 */
#ifndef PLATTER_QCOW2_CHECK_INT_H
#define PLATTER_QCOW2_CHECK_INT_H

#include "qcow2.h"
#include "refbits.h"
#include "refmap.h"
#include "snapshot.h"

struct q2_check {
    struct qcow2 *s;
    const struct bdrv_check_options *options; /* may be NULL: nobody listens */
    struct bdrv_check_result *res;
    unsigned fix; /* BDRV_FIX_* */
    uint64_t file_bytes;
    uint64_t clusters;       /* refcounts of all below are compared */
    struct q2_refmap refs;   /* references found */
    struct q2_refmap alone;  /* what of them must be the only one: tables but those of level 2 */
    struct q2_refmap stored; /* of clusters whose refcount is not refs: what the file says, + 1 */
    bool rebuild;            /* the refcount structures cannot be mended in place */
    /* of the snapshot table: s->snapshots, or what can be made of a table that cannot be loaded */
    struct q2_snapshot *snapshots;
    uint32_t snapshot_count;
    bool snapshots_owned;
    uint64_t snapshot_table_bytes;
    uint64_t snapshot_table_faults; /* that a new table mends */
    uint8_t *table;                 /* owned; room for one L2 table or other cluster */
    uint64_t done, total;           /* progress */
    uint64_t told;                  /* findings */
};

/* Tell a finding, unless there were very many. */
void q2_check_tell(struct q2_check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* One more step is done: so many entries of an L1 table, or another part of work like it. */
#define Q2_CHECK_STEP_ENTRIES 64
void q2_check_step(struct q2_check *c);
/* [offset, offset + bytes) of the file is referred to times times. 0 or -ENOMEM. */
int q2_check_refer(struct q2_check *c, uint64_t offset, uint64_t bytes, uint64_t times);
/* The same, once, for what nothing else may share: no refcount makes that right. */
int q2_check_refer_alone(struct q2_check *c, uint64_t offset, uint64_t bytes);
/* Count all references. 0, or -errno with errp: the check cannot go on. Coroutine. */
int q2_check_count_co(struct q2_check *c, Error **errp);

/* ---- check_refs.c: L1 and L2 tables ---- */

/* An entry of an L2 table, as far as a check cares. */
struct q2_check_entry {
    uint64_t raw;
    uint64_t bitmap; /* of subclusters; 0 without extended L2 entries */
    uint64_t offset; /* of a standard cluster; 0: none */
    bool compressed;
    bool allocated; /* a standard cluster with room in the file */
    bool zero;      /* allocated, and holds no data */
};
void q2_check_decode(const struct q2_geometry *geo, const uint8_t *p, struct q2_check_entry *ret);
/* All trees: the active one and those of c->snapshots. */
int q2_check_trees_co(struct q2_check *c);
/* Read; what is past the end of the file is zeroes. */
int q2_check_read_co(struct q2_check *c, uint64_t offset, void *buf, size_t bytes);
/* Bytes of c->table that were changed go to the file at offset (+ from). */
int q2_check_write_co(struct q2_check *c, unsigned ignore, uint64_t offset, uint64_t from,
                      uint64_t bytes);

/* ---- check_meta.c: snapshot table, bitmaps, refcount structures ---- */

int q2_check_snapshot_table_co(struct q2_check *c, Error **errp);
/* Store the table anew where that mends something. */
int q2_check_mend_snapshot_table_co(struct q2_check *c, Error **errp);
int q2_check_bitmaps_co(struct q2_check *c);
int q2_check_refcount_structures_co(struct q2_check *c);

/* ---- check_compare.c ---- */

/* What entry index of the refcount table is. */
enum q2_check_block { Q2_BLOCK_NONE, Q2_BLOCK_USABLE, Q2_BLOCK_UNALIGNED };
enum q2_check_block q2_check_block_at(const struct q2_check *c, uint64_t index,
                                      uint64_t *ret_offset);
/* Compare all refcounts, mending what fix says. 0 or -errno. */
int q2_check_compare_co(struct q2_check *c, unsigned fix);
/* COPIED flags of the active tree. */
int q2_check_copied_co(struct q2_check *c);

/* ---- repair.c ---- */

/* New refcount structures from c->refs; s->refs is loaded from them. 0 or -errno with errp. */
int q2_rebuild_co(struct q2_check *c, Error **errp);

#endif
