/* SPDX-License-Identifier: MIT */
/*
 * What snapshots do to a whole tree (an L1 table, its L2 tables, their clusters): add a reference
 * to everything in it, take one away, set or clear COPIED. Used by amend and make_empty too.
 *
 * The node is drained and memory was settled, so L2 tables are read and written past the cache;
 * the cached slices of a table that changes in the file are dropped.
 *
 * Invariants
 *  R1 a tree gains its references completely or not at all: after a failure the same walk, which
 *     finds the same runs in the same order, takes back what was added.
 *  R2 COPIED is set in the file only after the refcount of one that it speaks of is durable.
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
#include "tree_walk.h"

/* Runs given to the free queue before they are really freed: bounds its memory. */
#define FREE_BATCH_RUNS 16384

/* ---- settled, stale ---- */

int q2_settle_co(struct qcow2 *s, Error **errp)
{
    int rc = q2_commit_co(s, true);

    q2_overlap_try_again(s);

    if (rc == 0) {
        rc = q2_free_all_co(s);
    }
    if (rc == 0) {
        rc = q2_commit_co(s, true);
    }
    return rc < 0 ? error_set_errno(errp, -rc, "cannot write the image's metadata") : 0;
}

int q2_stale_begin_co(struct qcow2 *s, bool *ret_was, Error **errp)
{
    int rc;

    *ret_was = s->geo.version < 3 || (s->header.incompatible & Q2_INCOMPAT_DIRTY) != 0;
    if (*ret_was) {
        return 0;
    }
    rc = q2_header_bits_co(s, Q2_INCOMPAT_DIRTY, 0, 0);
    return rc < 0 ? error_set_errno(errp, -rc, "cannot mark the image dirty") : 0;
}

static int stale_end(struct qcow2 *s, bool was, Error **errp)
{
    int rc = q2_settle_co(s, errp);

    if (rc == 0) {
        rc = q2_mend_co(s, errp); /* mostly nothing is stale */
    }
    if (rc < 0 || was) {
        return rc;
    }
    rc = q2_commit_clean_co(s); /* lazy refcounts are in memory only until then */
    return rc < 0 ? error_set_errno(errp, -rc, "cannot mark the image clean") : 0;
}

void q2_stays_stale(struct qcow2 *s, int rc)
{
    if (rc < 0) {
        s->stale = true;
    }
}

int q2_stale_end_co(struct qcow2 *s, bool was, int rc, Error **errp)
{
    int end = stale_end(s, was, rc == 0 ? errp : NULL);

    return rc < 0 ? rc : end;
}

/* ---- copies of L1 tables ---- */

uint64_t *q2_l1_copy_new(struct qcow2 *s, uint32_t entries)
{
    return bdrv_buffer_alloc(s->bs, ((size_t)entries + 1) * sizeof(uint64_t));
}

void q2_l1_copy_free(struct qcow2 *s, uint64_t *l1, uint32_t entries)
{
    if (l1 != NULL) {
        bdrv_buffer_free(s->bs, l1, ((size_t)entries + 1) * sizeof(uint64_t));
    }
}

int q2_l1_copy_read_co(struct qcow2 *s, uint64_t offset, uint32_t entries, uint64_t **ret,
                       Error **errp)
{
    uint64_t *l1 = q2_l1_copy_new(s, entries);
    int rc = 0;

    if (l1 == NULL) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    if (entries > 0) {
        rc = bdrv_edge_read_co(s->file, offset, l1, (size_t)entries * sizeof(uint64_t));
    }
    if (rc < 0) {
        q2_l1_copy_free(s, l1, entries);
        return error_set_errno(errp, -rc, "cannot read the L1 table at 0x%" PRIx64, offset);
    }
    for (uint32_t i = 0; i < entries; i++) {
        l1[i] = be64toh(l1[i]);
    }
    *ret = l1;
    return 0;
}

int q2_snapshot_l1_copy_co(struct qcow2 *s, const struct q2_snapshot *sn, uint64_t **ret,
                           Error **errp)
{
    int rc = q2_snapshot_l1_check(s, sn, errp);

    return rc == 0 ? q2_l1_copy_read_co(s, sn->l1_offset, sn->l1_entries, ret, errp) : rc;
}

int q2_l1_copy_active(struct qcow2 *s, uint64_t **ret, Error **errp)
{
    struct q2_l1 *active = q2_l1_get(s);
    uint32_t entries = active->entries;
    uint64_t *l1 = q2_l1_copy_new(s, entries);

    if (l1 == NULL) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    for (uint32_t i = 0; i < entries; i++) {
        l1[i] = q2_l1_entry(active, i);
    }
    *ret = l1;
    return 0;
}

int q2_l1_copy_write_co(struct qcow2 *s, const uint64_t *l1, uint32_t entries, uint64_t *ret_offset,
                        Error **errp)
{
    size_t bytes = (size_t)entries * sizeof(uint64_t);
    uint64_t clusters = (bytes + s->geo.cluster_bytes - 1) >> s->geo.cluster_bits;
    uint64_t *buf = bdrv_buffer_alloc(s->bs, bytes);
    uint64_t offset = 0;
    int rc;

    if (buf == NULL) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    for (uint32_t i = 0; i < entries; i++) {
        buf[i] = htobe64(l1[i]);
    }
    rc = q2_alloc_clusters_co(s, clusters, &offset);
    if (rc == 0) {
        rc = q2_overlap_check_co(s, Q2_OL_NONE, offset, bytes);
        rc = rc == 0 ? bdrv_edge_write_co(s->file, offset, buf, bytes, 0) : rc;
        if (rc < 0) {
            q2_unalloc_co(s, offset, bytes);
        }
    }
    bdrv_buffer_free(s->bs, buf, bytes);
    if (rc < 0) {
        return error_set_errno(errp, -rc, "cannot write a copy of the L1 table");
    }
    *ret_offset = offset;
    return 0;
}

/* ---- references ---- */

static int ref_run(struct q2_walk *w, uint64_t offset, uint64_t bytes)
{
    return q2_refcount_add_co(w->s, offset, bytes, 1);
}

/* Takes back the first runs of an earlier walk; -ECANCELED ends it. */
static int undo_run(struct q2_walk *w, uint64_t offset, uint64_t bytes)
{
    uint64_t *left = w->opaque;

    if (*left == 0) {
        return -ECANCELED;
    }
    --*left;
    return q2_refcount_add_co(w->s, offset, bytes, -1);
}

int q2_tree_ref_co(struct qcow2 *s, const uint64_t *l1, uint32_t entries, Error **errp)
{
    struct q2_walk w;
    uint64_t done;
    int rc = q2_walk_begin_co(s, &w, errp);

    if (rc < 0) {
        return rc;
    }
    w.fn = ref_run;
    rc = q2_walk_tree_co(&w, l1, entries, errp);
    if (rc < 0) { /* R1 */
        w.fn = undo_run;
        done = w.runs;
        w.opaque = &done;
        q2_stays_stale(s, q2_walk_tree_co(&w, l1, entries, NULL));
    }
    q2_walk_end(&w);
    return rc;
}

static int free_run(struct q2_walk *w, uint64_t offset, uint64_t bytes)
{
    q2_free_later(w->s, offset, bytes, *(enum q2_discard *)w->opaque);
    if (w->runs % FREE_BATCH_RUNS == FREE_BATCH_RUNS - 1) {
        return q2_free_all_co(w->s);
    }
    return 0;
}

int q2_tree_unref_co(struct qcow2 *s, const uint64_t *l1, uint32_t entries, enum q2_discard type,
                     Error **errp)
{
    struct q2_walk w;
    Error *first = NULL;
    int ret = 0;
    int rc = q2_walk_begin_co(s, &w, errp);

    if (rc < 0) {
        return rc;
    }
    w.fn = free_run;
    w.opaque = &type;
    rc = q2_walk_check_l1(&w, l1, entries, errp);
    for (uint32_t i = 0; rc == 0 && i < entries; i++) {
        if ((l1[i] & Q2_OFFSET_MASK) == 0) {
            continue;
        }
        ret = q2_walk_table_co(&w, l1[i] & Q2_OFFSET_MASK, first == NULL ? &first : NULL);
        if (ret == -ENOMEM) {
            break;
        }
    }
    q2_walk_end(&w);
    if (rc == 0) {
        rc = q2_settle_co(s, first == NULL ? &first : NULL);
        rc = rc == 0 && first != NULL ? -error_get_errno(first) : rc;
        error_propagate(errp, first);
    }
    return rc;
}

/* ---- COPIED ---- */

int q2_tree_clear_copied_co(struct qcow2 *s, uint64_t *l1, uint32_t entries, Error **errp)
{
    size_t words = q2_walk_entry_words(&s->geo);
    struct q2_walk w;
    int rc = q2_walk_begin_co(s, &w, errp);

    if (rc < 0) {
        return rc;
    }
    for (uint32_t i = 0; rc == 0 && i < entries; i++) {
        uint64_t offset = l1[i] & Q2_OFFSET_MASK;
        size_t first = SIZE_MAX;
        size_t end = 0;

        l1[i] &= ~Q2_COPIED;
        rc = offset == 0 ? 0 : q2_walk_read_co(&w, offset, errp);
        for (size_t j = 0; rc == 0 && offset != 0 && j < s->geo.l2_entries; j++) {
            uint64_t entry = q2_walk_word(&w, j * words);

            if (entry & Q2_COPIED) {
                store_be64(w.table + j * words * sizeof(uint64_t), entry & ~Q2_COPIED);
                first = first == SIZE_MAX ? j * words : first;
                end = (j + 1) * words;
            }
        }
        if (rc == 0 && end > 0) {
            rc = q2_walk_write_co(&w, offset, first, end, errp);
        }
    }
    q2_walk_end(&w);
    return rc;
}

/* What COPIED of an entry that refers to offset should be. */
static int want_copied(struct qcow2 *s, uint64_t offset, uint64_t *ret, Error **errp)
{
    uint64_t count;
    int rc = q2_refcount_get_co(s, offset >> s->geo.cluster_bits, &count);

    if (rc < 0) {
        return error_set_errno(errp, -rc, "cannot read the refcount at 0x%" PRIx64, offset);
    }
    *ret = count == 1 ? Q2_COPIED : 0;
    return 0;
}

/* COPIED in the table that was read from offset. */
static int set_copied_table(struct q2_walk *w, uint64_t offset, Error **errp)
{
    const struct q2_geometry *geo = &w->s->geo;
    size_t words = q2_walk_entry_words(geo);
    size_t first = SIZE_MAX;
    size_t end = 0;

    for (size_t j = 0; j < geo->l2_entries; j++) {
        uint64_t entry = q2_walk_word(w, j * words);
        uint64_t host = entry & Q2_OFFSET_MASK;
        uint64_t want = entry & Q2_COPIED;
        int rc;

        if ((entry & Q2_COMPRESSED) || host == 0 || geo->external_data ||
            !is_aligned(host, geo->cluster_bytes)) {
            continue;
        }
        rc = want_copied(w->s, host, &want, errp);
        if (rc < 0) {
            return rc;
        }
        if (want != (entry & Q2_COPIED)) {
            store_be64(w->table + j * words * sizeof(uint64_t), entry ^ Q2_COPIED);
            first = first == SIZE_MAX ? j * words : first;
            end = (j + 1) * words;
        }
    }
    return end > 0 ? q2_walk_write_co(w, offset, first, end, errp) : 0;
}

int q2_tree_set_copied_co(struct qcow2 *s, Error **errp)
{
    struct q2_l1 *l1 = q2_l1_get(s);
    struct q2_walk w;
    int rc = q2_walk_begin_co(s, &w, errp);

    if (rc < 0) {
        return rc;
    }
    for (uint32_t i = 0; rc == 0 && i < l1->entries; i++) {
        uint64_t entry = q2_l1_entry(l1, i);
        uint64_t offset = entry & Q2_OFFSET_MASK;
        uint64_t want = 0;

        if (offset == 0) {
            continue;
        }
        rc = q2_walk_read_co(&w, offset, errp);
        rc = rc == 0 ? set_copied_table(&w, offset, errp) : rc;
        rc = rc == 0 ? want_copied(s, offset, &want, errp) : rc;
        if (rc == 0 && want != (entry & Q2_COPIED)) {
            q2_l1_set(s, i, entry ^ Q2_COPIED);
        }
    }
    q2_walk_end(&w);
    if (rc == 0) {
        rc = q2_settle_co(s, errp);
    }
    return rc;
}
