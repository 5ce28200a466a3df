/* SPDX-License-Identifier: MIT */
/*
 * Refcount structures, L1 tables and the snapshot table behind the limit (compact_int.h). Blocks
 * and tables are copied; what refers to them then changes by itself: an entry of the refcount table
 * within its sector, the others with the header (W6). A table that is longer than a cluster needs
 * as many in a row: where there are none it stays.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "util/error.h"

#include "bitmap_int.h"
#include "compact_int.h"
#include "l1.h"
#include "overlap.h"
#include "refcount_int.h"
#include "reftable_switch.h"
#include "snapshot.h"
#include "tree.h"

#define BATCH 64

/* ---- where tables are ---- */

static uint64_t clusters_of(const struct qcow2 *s, uint64_t bytes)
{
    return (bytes + s->geo.cluster_bytes - 1) >> s->geo.cluster_bits;
}

/* Whether part of a table lies behind the limit. */
static bool is_behind(const struct q2_compact *c, uint64_t offset, uint64_t bytes)
{
    return bytes > 0 && (offset >> c->s->geo.cluster_bits) + clusters_of(c->s, bytes) > c->limit;
}

static uint64_t long_table(const struct qcow2 *s, uint64_t end, uint64_t offset, uint64_t bytes)
{
    uint64_t n = clusters_of(s, bytes);

    return n > 1 && (offset >> s->geo.cluster_bits) + n > end ? n : 0;
}

uint64_t q2_compact_long_tables(const struct q2_compact *c, uint64_t end)
{
    const struct qcow2 *s = c->s;
    const struct q2_header *h = &s->header;
    uint64_t n = long_table(s, end, h->l1_offset, (uint64_t)h->l1_entries * 8) +
                 long_table(s, end, h->reftable_offset,
                            (uint64_t)h->reftable_clusters << s->geo.cluster_bits) +
                 long_table(s, end, h->snapshots_offset, s->snapshot_table_bytes);

    for (uint32_t i = 0; i < s->snapshot_count; i++) {
        n +=
            long_table(s, end, s->snapshots[i].l1_offset, (uint64_t)s->snapshots[i].l1_entries * 8);
    }
    for (uint32_t i = 0; s->bitmaps != NULL && i < s->bitmaps->dir.count; i++) {
        n += long_table(s, end, s->bitmaps->dir.entries[i].table_offset,
                        (uint64_t)s->bitmaps->dir.entries[i].table_entries * 8);
    }
    return n;
}

/* ---- refcount blocks ---- */

struct batch {
    size_t count;
    uint64_t index[BATCH];
    uint64_t from[BATCH];
    uint64_t to[BATCH];
};

/* The next blocks behind the limit, from *index on, with places for them. */
static int batch_begin_co(struct q2_compact *c, uint64_t *index, struct batch *b)
{
    struct qcow2 *s = c->s;
    int rc = 0;

    b->count = 0;
    while (rc == 0 && *index < s->refs.table_entries && b->count < BATCH && !c->full) {
        uint64_t i = (*index)++;
        uint64_t from = s->refs.table[i];

        if (from == 0 || from >> s->geo.cluster_bits < c->limit) {
            continue;
        }
        rc = q2_compact_alloc_co(c, 1, c->limit, &b->to[b->count]);
        c->full = rc == 0 && b->to[b->count] == 0;
        if (rc == 0 && !c->full) {
            b->index[b->count] = i;
            b->from[b->count++] = from;
        }
    }
    return rc;
}

/* All counts are settled: the copies, durable, then the table in memory. */
static int batch_copy_co(struct q2_compact *c, const struct batch *b)
{
    struct qcow2 *s = c->s;
    int rc = 0;

    co_mutex_lock(&s->refs.lock);
    for (size_t i = 0; rc == 0 && i < b->count; i++) {
        struct q2_refblock *block;

        rc = q2_refblock_get_co(s, b->index[i], &block);
        rc = rc == 0 && block == NULL ? -EIO : rc;
        rc = rc == 0 ? q2_overlap_check_co(s, Q2_OL_NONE, b->to[i], s->geo.cluster_bytes) : rc;
        rc = rc == 0 ? bdrv_edge_write_co(s->file, b->to[i], block->data, s->geo.cluster_bytes, 0)
                     : rc;
    }
    rc = rc == 0 ? bdrv_edge_flush_co(s->file) : rc;
    for (size_t i = 0; rc == 0 && i < b->count; i++) {
        rc = q2_overlap_add(s, Q2_OL_REFCOUNT_BLOCK, b->to[i]);
    }
    for (size_t i = 0; rc == 0 && i < b->count; i++) {
        struct q2_refblock *block;

        if (q2_refblock_get_co(s, b->index[i], &block) == 0 && block != NULL) {
            q2_refblock_drop(s, block);
        }
        s->refs.table[b->index[i]] = b->to[i];
        q2_reftable_dirtied(&s->refs, b->index[i]);
    }
    q2_refcounts_tell_dirty(s);
    co_mutex_unlock(&s->refs.lock);
    return rc;
}

static void batch_release_co(struct q2_compact *c, const struct batch *b, bool undo)
{
    for (size_t i = 0; i < b->count; i++) {
        uint64_t gone = undo ? b->to[i] : b->from[i];

        q2_overlap_del(c->s, Q2_OL_REFCOUNT_BLOCK, gone);
        q2_compact_lower_co(c, gone, c->s->geo.cluster_bytes, 1);
    }
}

static int move_blocks_co(struct q2_compact *c)
{
    uint64_t index = 0;
    struct batch b;
    int rc;

    c->full = false;
    do {
        rc = batch_begin_co(c, &index, &b);
        rc = rc == 0 && b.count > 0 ? q2_compact_settle_co(c) : rc;
        rc = rc == 0 ? batch_copy_co(c, &b) : rc;
        if (rc < 0) {
            batch_release_co(c, &b, true);
            return rc;
        }
        rc = b.count > 0 ? q2_compact_settle_co(c) : 0;
        if (rc == 0) { /* else they leak */
            batch_release_co(c, &b, false);
            q2_compact_turn_co(c, b.count << c->s->geo.cluster_bits);
        }
    } while (rc == 0 && b.count > 0 && c->cancelled == 0);
    return rc;
}

/* ---- the refcount table ---- */

static uint64_t entries_in_use(const struct qcow2 *s)
{
    uint64_t n = s->refs.table_entries;

    while (n > 1 && s->refs.table[n - 1] == 0) {
        n--;
    }
    return n;
}

/* t->offset has its place. */
static int switch_table_co(struct q2_compact *c, struct q2_reftable *t)
{
    struct qcow2 *s = c->s;
    uint64_t old = s->header.reftable_offset;
    uint64_t old_bytes = (uint64_t)s->header.reftable_clusters << s->geo.cluster_bits;
    uint64_t bytes = (uint64_t)t->clusters << s->geo.cluster_bits;
    int rc = q2_compact_settle_co(c);

    co_mutex_lock(&s->refs.lock);
    if (rc == 0) {
        memcpy(t->table, s->refs.table,
               min_u64(t->entries, s->refs.table_entries) * sizeof(uint64_t));
        rc = q2_reftable_switch_co(s, t);
    }
    co_mutex_unlock(&s->refs.lock);
    if (rc == 0) {
        q2_overlap_renew(s);
        q2_compact_lower_co(c, old, old_bytes, 1);
    } else if (!s->refs.header_unsure) {
        q2_unalloc_co(s, t->offset, bytes);
    }
    return rc;
}

static int move_reftable_co(struct q2_compact *c)
{
    struct qcow2 *s = c->s;
    uint64_t entries = entries_in_use(s);
    struct q2_reftable t;
    int rc = q2_reftable_init(s, entries, &t);

    if (rc < 0) {
        return rc;
    }
    rc = q2_compact_alloc_co(c, t.clusters, s->header.reftable_offset >> s->geo.cluster_bits,
                             &t.offset);
    if (rc == 0 && t.offset != 0 && entries_in_use(s) > t.entries) {
        q2_unalloc_co(s, t.offset, (uint64_t)t.clusters << s->geo.cluster_bits);
        t.offset = 0; /* counting it took a block that has no room in it */
    }
    if (rc == 0 && t.offset != 0) {
        rc = switch_table_co(c, &t);
    }
    q2_reftable_fini(s, &t);
    return rc;
}

/* ---- snapshots ---- */

/* A copy of the L1 table in front of it; *ret 0: no room. */
static int copy_l1_co(struct q2_compact *c, const struct q2_snapshot *sn, uint64_t *ret)
{
    uint64_t bytes = (uint64_t)sn->l1_entries * 8;
    int rc = q2_compact_alloc_co(c, clusters_of(c->s, bytes),
                                 sn->l1_offset >> c->s->geo.cluster_bits, ret);

    if (rc == 0 && *ret != 0) {
        rc = q2_compact_copy_co(c, sn->l1_offset, *ret, bytes);
        if (rc < 0) {
            q2_unalloc_co(c->s, *ret, bytes);
        }
    }
    return rc;
}

/* Whether a new snapshot table would find a place that makes nothing longer. */
static int table_fits_co(struct q2_compact *c, bool *ret)
{
    struct qcow2 *s = c->s;
    uint64_t n = clusters_of(s, s->snapshot_table_bytes);
    uint64_t offset;
    uint64_t end = max_u64(c->limit, s->header.snapshots_offset >> s->geo.cluster_bits);
    int rc = q2_compact_alloc_co(c, n, end, &offset);

    *ret = rc == 0 && offset != 0;
    if (*ret) {
        q2_unalloc_co(s, offset, n << s->geo.cluster_bits);
    }
    return rc;
}

/* The L1 tables behind the limit, copied; was: where each snapshot's was. */
static int copy_l1s_co(struct q2_compact *c, uint64_t *was, bool *ret_any)
{
    struct qcow2 *s = c->s;
    int rc = 0;

    for (uint32_t i = 0; i < s->snapshot_count; i++) {
        was[i] = s->snapshots[i].l1_offset;
    }
    for (uint32_t i = 0; rc == 0 && i < s->snapshot_count; i++) {
        struct q2_snapshot *sn = &s->snapshots[i];
        uint64_t to = 0;

        if (is_behind(c, sn->l1_offset, (uint64_t)sn->l1_entries * 8)) {
            rc = copy_l1_co(c, sn, &to);
        }
        if (rc == 0 && to != 0) {
            sn->l1_offset = to;
            *ret_any = true;
        }
    }
    return rc;
}

/* Those that the table in the file does not name, or no longer, go. */
static void release_l1s_co(struct q2_compact *c, const uint64_t *was, bool undo)
{
    struct qcow2 *s = c->s;

    for (uint32_t i = 0; i < s->snapshot_count; i++) {
        struct q2_snapshot *sn = &s->snapshots[i];

        if (sn->l1_offset != was[i]) {
            q2_compact_lower_co(c, undo ? sn->l1_offset : was[i], (uint64_t)sn->l1_entries * 8, 1);
            sn->l1_offset = undo ? was[i] : sn->l1_offset;
        }
    }
}

static int store_snapshots_co(struct q2_compact *c, uint64_t *was)
{
    struct qcow2 *s = c->s;
    bool any = false;
    bool fits = false;
    bool unsure = false;
    int rc = copy_l1s_co(c, was, &any);

    any = any || is_behind(c, s->header.snapshots_offset, s->snapshot_table_bytes);
    if (rc == 0 && any) {
        rc = table_fits_co(c, &fits);
    }
    if (rc < 0 || !fits) {
        release_l1s_co(c, was, true);
        return rc;
    }
    rc = q2_snapshots_store_co(s, &unsure, NULL);
    if (rc == 0) {
        release_l1s_co(c, was, false);
        q2_overlap_renew(s);
        return q2_compact_settle_co(c);
    }
    if (!unsure) {
        release_l1s_co(c, was, true);
    }
    for (uint32_t i = 0; unsure && i < s->snapshot_count; i++) {
        s->snapshots[i].l1_offset = was[i]; /* both stay allocated */
    }
    return rc;
}

static int move_snapshots_co(struct q2_compact *c)
{
    uint64_t *was;
    int rc;

    if (c->s->snapshot_count == 0) {
        return 0;
    }
    was = calloc(c->s->snapshot_count, sizeof(*was));
    if (was == NULL) {
        return -ENOMEM;
    }
    rc = store_snapshots_co(c, was);
    free(was);
    return rc;
}

/* ---- all of them ---- */

static int move_l1_co(struct q2_compact *c)
{
    return q2_l1_move_co(c->s, NULL);
}

int q2_compact_meta_co(struct q2_compact *c, Error **errp)
{
    const struct q2_header *h = &c->s->header;
    int rc = q2_compact_try_co(c, false, move_blocks_co);

    if (rc == 0) {
        rc = q2_compact_try_co(c, false, move_snapshots_co);
    }
    if (rc == 0 && is_behind(c, h->l1_offset, (uint64_t)h->l1_entries * 8)) {
        rc = q2_compact_try_co(c, false, move_l1_co);
    }
    if (rc == 0 && is_behind(c, h->reftable_offset,
                             (uint64_t)h->reftable_clusters << c->s->geo.cluster_bits)) {
        rc = q2_compact_try_co(c, false, move_reftable_co);
    }
    rc = rc == 0 ? q2_compact_try_co(c, false, q2_compact_settle_co) : rc;
    if (rc < 0) {
        return error_set_errno(errp, -rc, "moving tables failed");
    }
    return q2_compact_bitmaps_co(c, errp);
}
