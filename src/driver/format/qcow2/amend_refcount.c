/* SPDX-License-Identifier: MIT */
/*
 * Another width of refcounts: every block and the table are made anew, then the header switches.
 *
 * The new clusters are counted in the old structure, durably, before they are written; so a cut of
 * power before the switch leaks the new ones, one after it the old ones, and both structures are
 * right for whoever reads them. The old clusters are free only after the switch.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "util/error.h"

#include "amend.h"
#include "overlap.h"
#include "refcount_int.h"
#include "reftable_switch.h"
#include "tree.h"

struct rebuild {
    struct qcow2 *s;
    struct q2_geometry geo; /* as it will be */
    struct q2_reftable t;
    bool has_place; /* t.offset is allocated */
    const struct bdrv_progress *progress;
    uint64_t done;
    uint64_t total; /* clusters that are looked at, over all steps */
};

static void progress(struct rebuild *r, uint64_t clusters)
{
    r->done += clusters;
    if (r->progress != NULL && r->progress->report != NULL) {
        r->progress->report(r->progress->opaque, min_u64(r->done, r->total), r->total);
    }
}

/* Clusters that the old table can count, up to the last block. */
static uint64_t clusters_counted(const struct qcow2 *s)
{
    uint64_t n = s->refs.table_entries;

    while (n > 0 && s->refs.table[n - 1] == 0) {
        n--;
    }
    return n << s->geo.refblock_bits;
}

/* The first count in [first, end) that is not zero: *ret_cluster (end: none) and *ret_count. */
static int find_counted(struct qcow2 *s, uint64_t first, uint64_t end, uint64_t *ret_cluster,
                        uint64_t *ret_count)
{
    unsigned order = s->geo.refcount_order;
    int rc = 0;

    *ret_count = 0;
    co_mutex_lock(&s->refs.lock);
    while (rc == 0 && first < end && *ret_count == 0) {
        uint64_t n = s->geo.refblock_entries;
        uint64_t base = align_down(first, n);
        uint64_t to = min_u64(n, end - base);
        struct q2_refblock *b;
        uint64_t at = to;

        rc = q2_refblock_get_co(s, q2_refblock_index(s, first), &b);
        if (rc == 0 && b != NULL) {
            at = q2_refbits_find(b->data, order, first - base, to, false);
        }
        if (at < to) {
            *ret_count = q2_refbits_get(b->data, order, at);
        }
        first = base + at;
    }
    co_mutex_unlock(&s->refs.lock);
    *ret_cluster = first;
    return rc;
}

static int check_fits(struct rebuild *r, Error **errp)
{
    struct qcow2 *s = r->s;
    uint64_t end = clusters_counted(s);

    for (uint64_t c = 0; c < end && r->geo.refcount_max < s->geo.refcount_max; c++) {
        uint64_t count;
        int rc = find_counted(s, c, end, &c, &count);

        if (rc < 0) {
            return error_set_errno(errp, -rc, "cannot read the refcounts");
        }
        if (count > r->geo.refcount_max) {
            return error_set(errp, EINVAL,
                             "Cannot decrease refcount entry width to %u bits: Cluster at offset "
                             "0x%" PRIx64 " has a refcount of %" PRIu64,
                             r->geo.refcount_bits, c << s->geo.cluster_bits, count);
        }
    }
    return 0;
}

/* ---- places for the new structure ---- */

/* A larger table in memory, with what the smaller one has. Its place is given up. */
static int table_resize(struct rebuild *r, uint64_t entries)
{
    struct qcow2 *s = r->s;
    struct q2_reftable larger;
    int rc = q2_reftable_init(s, entries, &larger);

    if (rc < 0) {
        return rc;
    }
    larger.order = r->geo.refcount_order;
    if (r->has_place) {
        q2_unalloc_co(s, r->t.offset, (uint64_t)r->t.clusters << s->geo.cluster_bits);
        r->has_place = false;
    }
    for (uint64_t i = 0; i < r->t.entries; i++) {
        larger.table[i] = r->t.table[i];
    }
    q2_reftable_fini(s, &r->t);
    r->t = larger;
    return 0;
}

static int place_block(struct rebuild *r, uint64_t index, bool *ret_changed)
{
    int rc = index >= r->t.entries ? table_resize(r, index + 1) : 0;

    if (rc == 0 && r->t.table[index] == 0) {
        rc = q2_alloc_clusters_co(r->s, 1, &r->t.table[index]);
        *ret_changed = true;
    }
    progress(r, 0);
    return rc;
}

static bool is_counted(const struct qcow2 *s, uint64_t cluster)
{
    uint64_t index = q2_refblock_index(s, cluster);

    return index < s->refs.table_entries && s->refs.table[index] != 0;
}

/* One round: blocks for all that is counted and has none. *ret_changed: clusters were allocated, so
 * there may be more to count. Observed order: a block is placed when the next one begins; whether
 * there are counts of that one is looked at before, so an old block that is made by the placing is
 * the next round's. */
static int place_blocks(struct rebuild *r, bool *ret_changed)
{
    struct qcow2 *s = r->s;
    uint64_t index = UINT64_MAX;
    uint64_t at = 0;
    int rc = 0;

    for (;;) {
        bool counted = is_counted(s, at);
        uint64_t end;
        uint64_t count;

        rc = index != UINT64_MAX ? place_block(r, index, ret_changed) : 0;
        if (!counted) {
            at = (q2_refblock_index(s, at) + 1) << s->geo.refblock_bits;
        }
        end = clusters_counted(s);
        rc = rc == 0 ? find_counted(s, at, end, &at, &count) : rc;
        if (rc < 0 || at >= end) {
            return rc;
        }
        index = at >> r->geo.refblock_bits;
        at = (index + 1) << r->geo.refblock_bits;
    }
}

static int place_all(struct rebuild *r)
{
    struct qcow2 *s = r->s;
    bool changed;
    int rc;

    do {
        changed = false;
        rc = place_blocks(r, &changed);
        if (rc == 0 && !r->has_place) {
            rc = q2_alloc_clusters_co(s, r->t.clusters, &r->t.offset);
            r->has_place = rc == 0;
            changed = true;
        }
    } while (rc == 0 && changed);
    return rc;
}

static void give_up(struct rebuild *r)
{
    struct qcow2 *s = r->s;

    for (uint64_t i = 0; i < r->t.entries; i++) {
        if (r->t.table[i] != 0) {
            q2_unalloc_co(s, r->t.table[i], s->geo.cluster_bytes);
        }
    }
    if (r->has_place) {
        q2_unalloc_co(s, r->t.offset, (uint64_t)r->t.clusters << s->geo.cluster_bits);
    }
}

/* ---- writing it ---- */

static int write_block(struct rebuild *r, uint64_t index, uint8_t *buf)
{
    struct qcow2 *s = r->s;
    uint64_t first = index << r->geo.refblock_bits;
    uint64_t end = min_u64(first + r->geo.refblock_entries, clusters_counted(s));
    uint64_t offset = r->t.table[index];
    int rc = 0;

    memset(buf, 0, s->geo.cluster_bytes);
    for (uint64_t c = first; c < end; c++) {
        uint64_t count;

        rc = find_counted(s, c, end, &c, &count);
        if (rc < 0) {
            return rc;
        }
        if (c < end) {
            q2_refbits_set(buf, r->geo.refcount_order, c - first, count);
        }
    }
    rc = q2_overlap_check_co(s, Q2_OL_NONE, offset, s->geo.cluster_bytes);
    return rc < 0 ? rc : bdrv_edge_write_co(s->file, offset, buf, s->geo.cluster_bytes, 0);
}

static int write_blocks(struct rebuild *r)
{
    struct qcow2 *s = r->s;
    uint8_t *buf = bdrv_buffer_alloc(s->bs, s->geo.cluster_bytes);
    int rc = buf != NULL ? 0 : -ENOMEM;

    for (uint64_t i = 0; rc == 0 && i < r->t.entries; i++) {
        if (r->t.table[i] != 0) {
            rc = write_block(r, i, buf);
        }
        progress(r, r->geo.refblock_entries);
    }
    bdrv_buffer_free(s->bs, buf, s->geo.cluster_bytes);
    return rc;
}

/* ---- the switch ---- */

/* What the old table referred to, and itself. */
struct old {
    uint64_t *table; /* copy, owned */
    uint64_t entries;
    uint64_t offset;
    uint64_t bytes;
};

static int old_copy(struct qcow2 *s, struct old *ret)
{
    *ret = (struct old){
        .table = malloc(s->refs.table_entries * sizeof(uint64_t) + 1),
        .entries = s->refs.table_entries,
        .offset = s->header.reftable_offset,
        .bytes = (uint64_t)s->header.reftable_clusters << s->geo.cluster_bits,
    };
    if (ret->table == NULL) {
        return -ENOMEM;
    }
    memcpy(ret->table, s->refs.table, s->refs.table_entries * sizeof(uint64_t));
    return 0;
}

static void old_free(struct qcow2 *s, const struct old *old)
{
    for (uint64_t i = 0; i < old->entries; i++) {
        if (old->table[i] != 0) {
            q2_stays_stale(s, q2_refcount_add_co(s, old->table[i], s->geo.cluster_bytes, -1));
        }
    }
    q2_stays_stale(s, q2_refcount_add_co(s, old->offset, old->bytes, -1));
}

/* Blocks in memory are of the old width, and all of them are in the file. */
static int switch_to(struct rebuild *r)
{
    struct qcow2 *s = r->s;
    int rc;

    co_mutex_lock(&s->refs.lock);
    rc = q2_reftable_settle_co(s);
    rc = rc == 0 ? q2_refblocks_write_co(s) : rc;
    rc = rc == 0 ? q2_reftable_switch_co(s, &r->t) : rc;
    if (rc == 0) {
        while (!TAILQ_EMPTY(&s->refs.blocks)) {
            q2_refblock_drop(s, TAILQ_FIRST(&s->refs.blocks));
        }
        s->geo = r->geo;
        s->refs.free_hint = 0;
        s->refs.packed_end = 0;
    }
    co_mutex_unlock(&s->refs.lock);
    return rc;
}

static int rebuild(struct rebuild *r, Error **errp)
{
    struct qcow2 *s = r->s;
    struct old old;
    int rc = place_all(r);

    rc = rc == 0 ? q2_commit_co(s, true) : rc;
    rc = rc == 0 ? write_blocks(r) : rc;
    if (rc < 0) {
        give_up(r);
        return error_set_errno(errp, -rc, "cannot write new refcounts");
    }
    rc = old_copy(s, &old);
    rc = rc == 0 ? switch_to(r) : rc;
    if (rc == 0) {
        q2_overlap_renew(s);
        old_free(s, &old);
        rc = q2_settle_co(s, errp);
    } else {
        if (!s->refs.header_unsure) {
            give_up(r);
        }
        error_set_errno(errp, -rc, "cannot switch to new refcounts");
    }
    free(old.table);
    return rc;
}

int q2_amend_refcount_co(struct qcow2 *s, unsigned order, const struct bdrv_progress *progress,
                         Error **errp)
{
    struct rebuild r = {.s = s, .progress = progress};
    struct q2_header h = s->header; /* for its numbers only */
    int rc = q2_settle_co(s, errp);

    if (rc < 0 || order == s->geo.refcount_order) {
        return rc;
    }
    h.refcount_order = order;
    q2_geometry_init(&h, &r.geo);
    r.total = clusters_counted(s);
    rc = check_fits(&r, errp);
    if (rc == 0) {
        rc = q2_reftable_init(s, 1, &r.t);
        r.t.order = order;
        rc =
            rc < 0 ? error_set_errno(errp, -rc, "cannot make a refcount table") : rebuild(&r, errp);
    }
    q2_reftable_fini(s, &r.t);
    return rc;
}
