/* SPDX-License-Identifier: MIT */
/*
 * The disk becomes what a snapshot holds. What becomes durable, in order: COPIED gone from the
 * snapshot's L2 tables; its refcounts raised and a new L1 table written; the header, which has L1
 * table and size of the disk in one sector, so that the disk is the old one or the new one, never a
 * mixture; the old tree's refcounts lowered. snapshot.c says what a check may find in between.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "util/error.h"

#include "check.h"
#include "l1.h"
#include "overlap.h"
#include "qcow2.h"
#include "snapshot.h"
#include "tree.h"

/* What the active tree becomes. */
struct target {
    uint64_t *l1; /* copy, owned */
    uint32_t entries;
    uint64_t offset;     /* in the file */
    uint64_t disk_bytes; /* size of the disk */
};

static int apply_find(struct qcow2 *s, const char *id_or_name, const struct q2_snapshot **ret,
                      Error **errp)
{
    uint64_t table_bytes = (uint64_t)s->geo.cluster_bytes * s->geo.l2_entries;
    const struct q2_snapshot *sn;
    uint32_t index;
    int rc = q2_snapshots_usable(s, errp);

    if (rc < 0) {
        return rc;
    }
    if (s->header.bitmap_count > 0) {
        return error_set(errp, EBUSY, "Device has active dirty bitmaps");
    }
    if (q2_snapshot_find(s, id_or_name, NULL, &index) < 0 &&
        q2_snapshot_find(s, NULL, id_or_name, &index) < 0) {
        return error_set(errp, ENOENT, "snapshot '%s' not found", id_or_name);
    }
    sn = &s->snapshots[index];
    rc = q2_snapshot_l1_check(s, sn, errp);
    if (rc < 0) {
        return rc;
    }
    if (sn->disk_bytes > INT64_MAX || sn->disk_bytes % Q2_COMPRESSED_SECTOR != 0 ||
        sn->disk_bytes / table_bytes + (sn->disk_bytes % table_bytes != 0) > sn->l1_entries) {
        return error_set(errp, EINVAL,
                         "snapshot '%s': disk size %" PRIu64 " does not fit its L1 table", sn->id,
                         sn->disk_bytes);
    }
    *ret = sn;
    return 0;
}

/* The target's table as it will be active: not shorter than the one that is, as the reference
 * does. */
static int apply_read(struct qcow2 *s, const struct q2_snapshot *sn, struct target *ret,
                      Error **errp)
{
    uint32_t active = q2_l1_get(s)->entries;
    uint32_t entries = sn->l1_entries > active ? sn->l1_entries : active;
    uint64_t *found;
    uint64_t *l1;
    int rc = q2_l1_copy_read_co(s, sn->l1_offset, sn->l1_entries, &found, errp);

    if (rc < 0) {
        return rc;
    }
    l1 = q2_l1_copy_new(s, entries);
    if (l1 == NULL) {
        rc = error_set(errp, ENOMEM, "out of memory");
    } else {
        memcpy(l1, found, sn->l1_entries * sizeof(*l1));
        memset(l1 + sn->l1_entries, 0, (entries - sn->l1_entries) * sizeof(*l1));
        *ret = (struct target){.l1 = l1, .entries = entries, .disk_bytes = sn->disk_bytes};
    }
    q2_l1_copy_free(s, found, sn->l1_entries);
    return rc;
}

/* References of the tree and its table, durable. On failure nothing is left of them. */
static int apply_prepare(struct qcow2 *s, struct target *t, Error **errp)
{
    int rc = q2_tree_ref_co(s, t->l1, t->entries, errp);

    if (rc < 0) {
        return rc;
    }
    rc = q2_tree_clear_copied_co(s, t->l1, t->entries, errp);
    if (rc == 0 && t->entries > 0) {
        rc = q2_l1_copy_write_co(s, t->l1, t->entries, &t->offset, errp);
    }
    if (rc == 0) {
        rc = q2_commit_co(s, true);
        if (rc == 0) {
            return 0;
        }
        error_set_errno(errp, -rc, "cannot write the image's metadata");
        q2_unalloc_co(s, t->offset, (uint64_t)t->entries * sizeof(uint64_t));
    }
    q2_stays_stale(s, q2_tree_unref_co(s, t->l1, t->entries, Q2_DISCARD_NEVER, NULL));
    return rc;
}

static void header_set(struct q2_header *h, uint64_t l1_offset, uint32_t l1_entries,
                       uint64_t size_bytes)
{
    h->l1_offset = l1_offset;
    h->l1_entries = l1_entries;
    h->size_bytes = size_bytes;
}

/* The header names the target's table and size. When that fails, the old ones are written again;
 * when that fails too, what the file says is not known, and nothing may be written any more. */
static int apply_switch(struct qcow2 *s, const struct target *t, Error **errp)
{
    uint64_t old_offset = s->header.l1_offset;
    uint32_t old_entries = s->header.l1_entries;
    uint64_t old_size = s->header.size_bytes;
    int rc = q2_l1_load(s, t->offset, t->entries, errp);

    if (rc < 0) {
        return rc;
    }
    q2_l2_drop_all(s);
    header_set(&s->header, t->offset, t->entries, t->disk_bytes);
    rc = q2_header_write_co(s, errp);
    if (rc == 0) {
        atomic_store_explicit(&s->disk_bytes, t->disk_bytes, memory_order_relaxed);
        return 0;
    }
    header_set(&s->header, old_offset, old_entries, old_size);
    if (q2_header_write_co(s, NULL) < 0 || q2_l1_load(s, old_offset, old_entries, NULL) < 0) {
        bdrv_mark_broken(s->bs, "the header could not be written while a snapshot was applied");
    }
    return rc;
}

/* l1: the active table before. */
static int apply_tables(struct qcow2 *s, struct target *t, const uint64_t *l1, uint32_t entries,
                        Error **errp)
{
    uint64_t old_offset = s->header.l1_offset;
    int rc = apply_prepare(s, t, errp);

    if (rc < 0) {
        return rc;
    }
    rc = apply_switch(s, t, errp);
    if (rc < 0) {
        if (bdrv_broken_reason(s->bs) == NULL) {
            q2_stays_stale(s, q2_tree_unref_co(s, t->l1, t->entries, Q2_DISCARD_NEVER, NULL));
            q2_unalloc_co(s, t->offset, (uint64_t)t->entries * sizeof(uint64_t));
        }
        return rc;
    }
    q2_overlap_renew(s);
    if (entries > 0) {
        q2_free_later(s, old_offset, (uint64_t)entries * sizeof(uint64_t), Q2_DISCARD_SNAPSHOT);
    }
    /* the disk is the snapshot now, whatever becomes of the tree before */
    rc = q2_tree_unref_co(s, l1, entries, Q2_DISCARD_SNAPSHOT, NULL);
    if (rc == 0) {
        rc = q2_tree_set_copied_co(s, NULL);
    }
    q2_stays_stale(s, rc);
    return 0;
}

int q2_snapshot_apply_co(BlockDriverState *bs, const char *id_or_name, Error **errp)
{
    struct qcow2 *s = q2_of(bs);
    uint32_t entries = q2_l1_get(s)->entries;
    const struct q2_snapshot *sn = NULL;
    struct target t = {0};
    uint64_t *l1 = NULL;
    bool was;
    int rc = apply_find(s, id_or_name, &sn, errp);

    (void)q2_mend_co(s, NULL);
    rc = rc == 0 ? q2_settle_co(s, errp) : rc;
    rc = rc == 0 ? apply_read(s, sn, &t, errp) : rc;
    if (rc < 0) {
        return rc;
    }
    rc = q2_tree_verify_co(s, t.l1, t.entries, errp);
    rc = rc == 0 ? q2_l1_copy_active(s, &l1, errp) : rc;
    rc = rc == 0 ? q2_stale_begin_co(s, &was, errp) : rc;
    if (rc == 0) {
        rc = apply_tables(s, &t, l1, entries, errp);
        (void)q2_stale_end_co(s, was, rc, NULL);
    }
    q2_l1_copy_free(s, l1, entries);
    q2_l1_copy_free(s, t.l1, t.entries);
    return rc;
}
