/* SPDX-License-Identifier: MIT */
/*
 * Version 2 has no zero flag. Before an image becomes one, entries with the flag become what reads
 * the same without it, in the active tree and in each snapshot's:
 *   nothing, where no backing file would show through and no cluster is kept;
 *   a cluster full of zeroes otherwise: the one that the entry keeps, where this table alone refers
 *   to it, or a new one.
 *
 * An L2 table that n trees share counts n times in all it refers to. A table is written only when
 * the new clusters, their zeroes and refcounts are durable (W1); what it no longer refers to is
 * given away after that (W4). The image is a right one of version 3 at each point.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "util/error.h"

#include "amend.h"
#include "entry.h"
#include "l1.h"
#include "overlap.h"
#include "snapshot.h"
#include "tree.h"
#include "tree_walk.h"

struct expand {
    struct q2_walk w;
    bool has_backing;
    uint64_t references; /* to the table that is looked at */
    uint64_t *given_up;  /* owned, l2_entries of them; entries whose clusters go */
    size_t given_up_count;
    const struct bdrv_progress *progress;
    uint64_t done;
    uint64_t total;
};

/* n references to new clusters: one is there already. */
static int raise_rest(struct expand *x, uint64_t offset)
{
    struct qcow2 *s = x->w.s;
    int rc = 0;

    for (uint64_t i = 1; rc == 0 && i < x->references; i++) {
        rc = q2_refcount_add_co(s, offset, s->geo.cluster_bytes, 1);
    }
    return rc;
}

static int new_cluster(struct expand *x, uint64_t *ret_offset)
{
    int rc = q2_alloc_clusters_co(x->w.s, 1, ret_offset);

    return rc < 0 ? rc : raise_rest(x, *ret_offset);
}

/* What an entry with the zero flag becomes. */
static int expand_entry(struct expand *x, uint64_t entry, uint64_t *ret)
{
    struct qcow2 *s = x->w.s;
    uint64_t host = entry & Q2_OFFSET_MASK;
    uint64_t count = 0;
    int rc = 0;

    if (host != 0) {
        rc = q2_refcount_get_co(s, host >> s->geo.cluster_bits, &count);
    }
    if (rc < 0) {
        return rc;
    }
    if (host != 0 && count != x->references) {
        x->given_up[x->given_up_count++] = entry;
        host = 0;
    }
    if (host == 0 && !x->has_backing) {
        *ret = 0;
        return 0;
    }
    if (host == 0) {
        rc = new_cluster(x, &host);
        if (rc < 0) {
            return rc;
        }
    }
    *ret = host | (x->references == 1 ? Q2_COPIED : 0);
    rc = q2_overlap_check_co(s, Q2_OL_NONE, host, s->geo.cluster_bytes);
    return rc < 0 ? rc : bdrv_edge_write_zeroes_co(s->file, host, s->geo.cluster_bytes, 0);
}

static int expand_words(struct expand *x, size_t *ret_first, size_t *ret_end)
{
    struct q2_walk *w = &x->w;

    *ret_end = 0;
    for (size_t i = 0; i < w->s->geo.l2_entries; i++) {
        uint64_t entry = q2_walk_word(w, i);
        int rc;

        if ((entry & Q2_COMPRESSED) || !(entry & Q2_ZERO)) {
            continue;
        }
        rc = expand_entry(x, entry, &entry);
        if (rc < 0) {
            return rc;
        }
        store_be64(w->table + i * sizeof(uint64_t), entry);
        if (*ret_end == 0) {
            *ret_first = i;
        }
        *ret_end = i + 1;
    }
    return 0;
}

static int expand_table(struct expand *x, uint64_t offset, Error **errp)
{
    struct qcow2 *s = x->w.s;
    size_t first = 0;
    size_t end = 0;
    int rc = q2_walk_read_co(&x->w, offset, errp);

    if (rc < 0) {
        return rc;
    }
    x->given_up_count = 0;
    rc = q2_refcount_get_co(s, offset >> s->geo.cluster_bits, &x->references);
    rc = rc == 0 ? expand_words(x, &first, &end) : rc;
    if (rc == 0 && end > 0) {
        rc = q2_commit_co(s, true);
    }
    if (rc < 0) {
        return error_set_errno(errp, -rc, "Failed to turn zero into data clusters");
    }
    if (end == 0) {
        return 0;
    }
    rc = q2_walk_write_co(&x->w, offset, first, end, errp);
    for (size_t i = 0; rc == 0 && i < x->given_up_count; i++) {
        for (uint64_t n = 0; n < x->references; n++) {
            q2_free_entry_later(s, x->given_up[i], Q2_DISCARD_OTHER);
        }
    }
    return rc == 0 ? q2_settle_co(s, errp) : rc;
}

/* A table that is shared is done when it is met first; then it has no flags any more. */
static int expand_tree(struct expand *x, const uint64_t *l1, uint32_t entries, Error **errp)
{
    int rc = q2_walk_check_l1(&x->w, l1, entries, errp);

    x->total += entries;
    for (uint32_t i = 0; rc == 0 && i < entries; i++) {
        if ((l1[i] & Q2_OFFSET_MASK) != 0) {
            rc = expand_table(x, l1[i] & Q2_OFFSET_MASK, errp);
        }
        x->done++;
        if (x->progress != NULL && x->progress->report != NULL) {
            x->progress->report(x->progress->opaque, x->done, x->total);
        }
    }
    return rc;
}

static int expand_snapshots(struct expand *x, Error **errp)
{
    struct qcow2 *s = x->w.s;
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < s->snapshot_count; i++) {
        const struct q2_snapshot *sn = &s->snapshots[i];
        uint64_t *l1;

        rc = q2_snapshot_l1_copy_co(s, sn, &l1, errp);
        if (rc == 0) {
            rc = expand_tree(x, l1, sn->l1_entries, errp);
            q2_l1_copy_free(s, l1, sn->l1_entries);
        }
    }
    return rc;
}

int q2_amend_expand_zeroes_co(struct qcow2 *s, const struct bdrv_progress *progress, Error **errp)
{
    uint32_t entries = q2_l1_get(s)->entries;
    struct expand x = {0};
    uint64_t *l1;
    int rc = q2_settle_co(s, errp);

    rc = rc == 0 ? q2_l1_copy_active(s, &l1, errp) : rc;
    if (rc < 0) {
        return rc;
    }
    rc = q2_walk_begin_co(s, &x.w, errp);
    if (rc == 0) {
        x.has_backing = s->backing != NULL || s->header.backing_file != NULL;
        x.progress = progress;
        x.given_up = calloc(s->geo.l2_entries, sizeof(uint64_t));
        rc = x.given_up != NULL ? 0 : error_set(errp, ENOMEM, "out of memory");
        rc = rc == 0 ? expand_tree(&x, l1, entries, errp) : rc;
        rc = rc == 0 ? expand_snapshots(&x, errp) : rc;
        free(x.given_up);
        q2_walk_end(&x.w);
    }
    q2_l1_copy_free(s, l1, entries);
    return rc;
}
