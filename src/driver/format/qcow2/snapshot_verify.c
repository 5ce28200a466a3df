/* SPDX-License-Identifier: MIT */
/*
 * Before a tree loses its references: whether the refcounts allow it. All trees of the image (the
 * active one, each snapshot's) are counted; where a cluster has more references than its refcount
 * says, to lower it would free what is still in use, so the caller refuses.
 *
 * Each L2 table is read once however many trees share it: first the references to tables are
 * counted, then each table counts as often as it is referred to.
 *
 * Memory is two counts of 4 bytes for each refcount of the blocks that are touched, charged to the
 * budget; a block is touched only where it exists in the file.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "util/budget.h"
#include "util/error.h"

#include "l1.h"
#include "qcow2.h"
#include "snapshot.h"
#include "tree.h"
#include "tree_walk.h"

/* A number for each cluster, in pieces that cover what a refcount block covers. */
struct counts {
    struct qcow2 *s;
    uint32_t **pieces; /* owned, table_entries of them, each may be NULL */
};

struct verify {
    struct qcow2 *s;
    struct counts tables; /* references to L2 tables; 0 again once a table was walked */
    struct counts refs;
    uint32_t weight; /* of the table that is walked */
    struct q2_walk walk;
};

static size_t piece_bytes(const struct qcow2 *s)
{
    return (size_t)s->geo.refblock_entries * sizeof(uint32_t);
}

static int counts_init(struct qcow2 *s, struct counts *c)
{
    *c = (struct counts){.s = s};
    c->pieces = calloc(s->refs.table_entries + 1, sizeof(*c->pieces));
    return c->pieces != NULL ? 0 : -ENOMEM;
}

static void counts_fini(struct counts *c)
{
    for (uint64_t i = 0; c->pieces != NULL && i < c->s->refs.table_entries; i++) {
        if (c->pieces[i] != NULL) {
            free(c->pieces[i]);
            mem_budget_give(bdrv_budget(c->s->bs), piece_bytes(c->s));
        }
    }
    free(c->pieces);
}

/* The number of a cluster. -EIO: no refcount block covers it, so it counts as free; -ENOMEM. */
static int counts_at(struct counts *c, uint64_t cluster, uint32_t **ret)
{
    struct qcow2 *s = c->s;
    uint64_t piece = cluster >> s->geo.refblock_bits;

    if (piece >= s->refs.table_entries || s->refs.table[piece] == 0) {
        return -EIO;
    }
    if (c->pieces[piece] == NULL) {
        if (!mem_budget_take(bdrv_budget(s->bs), piece_bytes(s))) {
            return -ENOMEM;
        }
        c->pieces[piece] = calloc(s->geo.refblock_entries, sizeof(uint32_t));
        if (c->pieces[piece] == NULL) {
            mem_budget_give(bdrv_budget(s->bs), piece_bytes(s));
            return -ENOMEM;
        }
    }
    *ret = &c->pieces[piece][cluster & (s->geo.refblock_entries - 1)];
    return 0;
}

static void add_saturated(uint32_t *count, uint32_t by)
{
    *count = by > UINT32_MAX - *count ? UINT32_MAX : *count + by;
}

static int count_run(struct q2_walk *w, uint64_t offset, uint64_t bytes)
{
    struct verify *v = w->opaque;
    unsigned bits = v->s->geo.cluster_bits;

    for (uint64_t c = offset >> bits; c <= (offset + bytes - 1) >> bits; c++) {
        uint32_t *count;
        int rc = counts_at(&v->refs, c, &count);

        if (rc < 0) {
            return rc;
        }
        add_saturated(count, v->weight);
    }
    return 0;
}

/* Step 1 for one tree: references to L2 tables. */
static int count_tables(struct verify *v, const uint64_t *l1, uint32_t entries, Error **errp)
{
    int rc = q2_walk_check_l1(&v->walk, l1, entries, errp);

    for (uint32_t i = 0; rc == 0 && i < entries; i++) {
        uint64_t offset = l1[i] & Q2_OFFSET_MASK;
        uint32_t *count;

        if (offset == 0) {
            continue;
        }
        rc = counts_at(&v->tables, offset >> v->s->geo.cluster_bits, &count);
        if (rc == 0) {
            add_saturated(count, 1);
        } else if (rc == -EIO) {
            rc = 0; /* step 2 finds it too, and knows whose it is */
        } else {
            error_set(errp, ENOMEM, "out of memory");
        }
    }
    return rc;
}

/* Step 2 for one tree: what its tables refer to, those that nobody has walked. */
static int count_clusters(struct verify *v, const uint64_t *l1, uint32_t entries, Error **errp)
{
    for (uint32_t i = 0; i < entries; i++) {
        uint64_t offset = l1[i] & Q2_OFFSET_MASK;
        uint32_t *count;
        int rc;

        if (offset == 0) {
            continue;
        }
        rc = counts_at(&v->tables, offset >> v->s->geo.cluster_bits, &count);
        if (rc < 0) {
            return error_set_errno(errp, -rc, "the L2 table at 0x%" PRIx64 " has no refcount",
                                   offset);
        }
        if (*count == 0) {
            continue;
        }
        v->weight = *count;
        *count = 0;
        rc = q2_walk_table_co(&v->walk, offset, errp);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

typedef int tree_fn(struct verify *v, const uint64_t *l1, uint32_t entries, Error **errp);

/* fn for the active tree and each snapshot's. What cannot be used of those is passed over: only
 * the tree that loses its references must be whole. */
static int each_tree(struct verify *v, tree_fn *fn)
{
    struct qcow2 *s = v->s;
    uint32_t entries = q2_l1_get(s)->entries;
    uint64_t *l1;
    int rc = q2_l1_copy_active(s, &l1, NULL);

    if (rc == 0) {
        rc = fn(v, l1, entries, NULL);
        q2_l1_copy_free(s, l1, entries);
    }
    for (uint32_t i = 0; rc != -ENOMEM && i < s->snapshot_count; i++) {
        const struct q2_snapshot *sn = &s->snapshots[i];

        rc = q2_snapshot_l1_copy_co(s, sn, &l1, NULL); /* one that is broken has none */
        if (rc == 0) {
            rc = fn(v, l1, sn->l1_entries, NULL);
            q2_l1_copy_free(s, l1, sn->l1_entries);
        }
    }
    return rc == -ENOMEM ? rc : 0;
}

/* Every count against its refcount. */
static int judge(struct verify *v, Error **errp)
{
    struct qcow2 *s = v->s;

    for (uint64_t i = 0; i < s->refs.table_entries; i++) {
        for (uint64_t j = 0; v->refs.pieces[i] != NULL && j < s->geo.refblock_entries; j++) {
            uint32_t counted = v->refs.pieces[i][j];
            uint64_t cluster = (i << s->geo.refblock_bits) + j;
            uint64_t refcount;
            int rc;

            if (counted == 0) {
                continue;
            }
            rc = q2_refcount_get_co(s, cluster, &refcount);
            if (rc < 0) {
                return error_set_errno(errp, -rc, "cannot read the refcount at 0x%" PRIx64,
                                       cluster << s->geo.cluster_bits);
            }
            if (refcount < counted) {
                return error_set(errp, EIO,
                                 "the cluster at 0x%" PRIx64 " has refcount %" PRIu64
                                 " and %" PRIu32 " references: the image must be repaired first",
                                 cluster << s->geo.cluster_bits, refcount, counted);
            }
        }
    }
    return 0;
}

int q2_tree_verify_co(struct qcow2 *s, const uint64_t *l1, uint32_t entries, Error **errp)
{
    struct verify v = {.s = s};
    int rc = q2_walk_begin_co(s, &v.walk, errp);

    if (rc < 0) {
        return rc;
    }
    v.walk.fn = count_run;
    v.walk.opaque = &v;
    if (counts_init(s, &v.tables) < 0 || counts_init(s, &v.refs) < 0) {
        rc = error_set(errp, ENOMEM, "out of memory");
        goto out;
    }
    rc = q2_walk_check_l1(&v.walk, l1, entries, errp);
    if (rc < 0) {
        goto out;
    }
    rc = each_tree(&v, count_tables);
    if (rc == 0) {
        rc = count_clusters(&v, l1, entries, errp); /* strictly */
        if (rc < 0) {
            goto out;
        }
        rc = each_tree(&v, count_clusters);
    }
    rc = rc < 0 ? error_set(errp, ENOMEM, "out of memory") : judge(&v, errp);
out:
    counts_fini(&v.refs);
    counts_fini(&v.tables);
    q2_walk_end(&v.walk);
    return rc;
}
