/* SPDX-License-Identifier: MIT */
/*
 * Another refcount table takes the place of the one that is there: for preallocation, which lays
 * blocks and table out ahead, and for another width of refcounts.
 *
 * Order (W2, W6): the caller's blocks; flush; the new table; flush; the header's first sector. A
 * cut of power leaves the old structure or the new one, and what belongs to the other one leaks.
 */
#include <errno.h>
#include <stdlib.h>

#include "util/budget.h"
#include "util/error.h"

#include "overlap.h"
#include "refcount_int.h"
#include "reftable_switch.h"

int q2_reftable_init(struct qcow2 *s, uint64_t entries, struct q2_reftable *ret)
{
    uint64_t per_cluster = s->geo.cluster_bytes / sizeof(uint64_t);
    uint64_t clusters = (entries + per_cluster - 1) / per_cluster;
    uint64_t bytes = clusters << s->geo.cluster_bits;

    if (bytes > Q2_REFTABLE_BYTES_MAX) {
        return -EFBIG;
    }
    if (!mem_budget_take(bdrv_budget(s->bs), bytes)) {
        return -ENOMEM;
    }
    *ret = (struct q2_reftable){
        .entries = bytes / sizeof(uint64_t),
        .clusters = (uint32_t)clusters,
        .order = s->geo.refcount_order,
    };
    ret->table = calloc(ret->entries, sizeof(uint64_t));
    if (ret->table == NULL) {
        mem_budget_give(bdrv_budget(s->bs), bytes);
        return -ENOMEM;
    }
    return 0;
}

void q2_reftable_fini(struct qcow2 *s, struct q2_reftable *t)
{
    if (t->table != NULL) {
        free(t->table);
        mem_budget_give(bdrv_budget(s->bs), t->entries * sizeof(uint64_t));
        t->table = NULL;
    }
}

static int write_table(struct qcow2 *s, const struct q2_reftable *t)
{
    uint8_t *buf = bdrv_buffer_alloc(s->bs, s->geo.cluster_bytes);
    uint64_t per_cluster = s->geo.cluster_bytes / sizeof(uint64_t);
    int rc = buf != NULL ? 0 : -ENOMEM;

    for (uint64_t c = 0; rc == 0 && c < t->clusters; c++) {
        uint64_t offset = t->offset + (c << s->geo.cluster_bits);

        for (uint64_t i = 0; i < per_cluster; i++) {
            store_be64(buf + i * sizeof(uint64_t), t->table[c * per_cluster + i]);
        }
        rc = q2_overlap_check_co(s, Q2_OL_REFCOUNT_TABLE, offset, s->geo.cluster_bytes);
        if (rc == 0) {
            bdrv_debug_event(s->file, BLKDBG_REFTABLE_UPDATE);
            rc = bdrv_edge_write_co(s->file, offset, buf, s->geo.cluster_bytes, 0);
        }
    }
    bdrv_buffer_free(s->bs, buf, s->geo.cluster_bytes);
    return rc;
}

static void set_header(struct qcow2 *s, uint64_t offset, uint32_t clusters, unsigned order)
{
    co_mutex_lock(&s->header_lock);
    s->header.reftable_offset = offset;
    s->header.reftable_clusters = clusters;
    s->header.refcount_order = order;
    co_mutex_unlock(&s->header_lock);
}

int q2_reftable_switch_co(struct qcow2 *s, struct q2_reftable *t)
{
    struct q2_refcounts *refs = &s->refs;
    uint64_t old_offset = s->header.reftable_offset;
    uint32_t old_clusters = s->header.reftable_clusters;
    unsigned old_order = s->header.refcount_order;
    int rc = bdrv_edge_flush_co(s->file);

    rc = rc == 0 ? write_table(s, t) : rc;
    rc = rc == 0 ? bdrv_edge_flush_co(s->file) : rc;
    if (rc < 0) {
        return rc;
    }
    set_header(s, t->offset, t->clusters, t->order);
    rc = q2_header_write_co(s, NULL);
    if (rc < 0) {
        set_header(s, old_offset, old_clusters, old_order);
        refs->header_unsure = true;
        (void)q2_reftable_settle_co(s);
        return rc;
    }
    q2_refcounts_take_table(s, &t->table, t->entries);
    return 0;
}
