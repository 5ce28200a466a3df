/* SPDX-License-Identifier: MIT */
/*
 * Internal snapshots: create, delete, list, show one (snapshot_apply.c: go back to one).
 *
 * Invariants. In each operation the order of what becomes durable is
 *  create  1 COPIED gone from the active tree, 2 its refcounts raised and the copy of the L1 table
 *          written, 3 the snapshot table that names the copy, 4 the header.
 *  delete  1 the table without it, 2 the header, 3 refcounts lowered, 4 COPIED set in the active
 *          tree where a refcount is one again.
 * Once the header is durable the operation is done: what fails after it leaks clusters, and is not
 * told as a failure of the operation, which would be a lie.
 * At each point in between nothing in use has a refcount that is too low, and no cluster that two
 * trees share carries COPIED: content is safe whatever the next program does. A check finds leaks
 * and, in the active tree, COPIED that does not agree with the refcount (set where the refcount is
 * already 2 but nobody else refers to the cluster yet, or still clear where it is 1). Version 3
 * images say so by the dirty bit, and the next writable open mends it; of version 2 images only
 * `check` does. After an operation that failed the open node mends it itself, as soon as the
 * storage lets it: at the end of that operation, else when the next one begins, at the latest at
 * the close (q2_mend_co).
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/error.h"

#include "check.h"
#include "l1.h"
#include "qcow2.h"
#include "snapshot.h"
#include "tree.h"

/* ---- finding ---- */

static bool bytes_are(const char *bytes, uint16_t len, const char *text)
{
    return strlen(text) == len && memcmp(bytes, text, len) == 0;
}

int q2_snapshot_find(const struct qcow2 *s, const char *id, const char *name, uint32_t *ret)
{
    for (uint32_t i = 0; i < s->snapshot_count; i++) {
        const struct q2_snapshot *sn = &s->snapshots[i];

        if ((id == NULL || bytes_are(sn->id, sn->id_bytes, id)) &&
            (name == NULL || bytes_are(sn->name, sn->name_bytes, name))) {
            *ret = i;
            return 0;
        }
    }
    return -ENOENT;
}

static int find(const struct qcow2 *s, const char *id, const char *name, uint32_t *ret,
                Error **errp)
{
    if (id == NULL && name == NULL) {
        return error_set(errp, EINVAL, "neither the id nor the name of a snapshot is given");
    }
    if (q2_snapshot_find(s, id, name, ret) < 0) {
        return error_set(errp, ENOENT, "snapshot '%s' not found", name != NULL ? name : id);
    }
    return 0;
}

int q2_snapshots_usable(struct qcow2 *s, Error **errp)
{
    if (s->geo.external_data) {
        return error_set(errp, ENOTSUP,
                         "internal snapshots are not possible with an external data file");
    }
    if (s->snapshot_shown) {
        return error_set(errp, EPERM, "the node shows a snapshot and cannot be changed");
    }
    return 0;
}

/* ---- create ---- */

/* The number after the largest id that is one, as text. */
static char *next_id(const struct qcow2 *s)
{
    uint64_t max = 0;
    char text[24];

    for (uint32_t i = 0; i < s->snapshot_count; i++) {
        uint64_t number = strtoull(s->snapshots[i].id, NULL, 10);

        if (number > max && number < UINT64_MAX) {
            max = number;
        }
    }
    snprintf(text, sizeof(text), "%" PRIu64, max + 1);
    return strdup(text);
}

static int describe(struct qcow2 *s, const struct bdrv_snapshot_info *info, struct q2_snapshot *ret,
                    Error **errp)
{
    const char *name = info->name != NULL ? info->name : "";
    struct q2_snapshot sn = {
        .date_sec = info->date_sec,
        .date_nsec = info->date_nsec,
        .vm_clock_nsec = info->vm_clock_nsec,
        .vm_state_bytes = info->vm_state_bytes,
        .disk_bytes = s->header.size_bytes,
        .icount = info->icount,
    };

    if (strlen(name) > UINT16_MAX || (info->id != NULL && strlen(info->id) > UINT16_MAX)) {
        return error_set(errp, EINVAL, "the name of the snapshot is too long");
    }
    sn.id = info->id != NULL ? strdup(info->id) : next_id(s);
    sn.name = strdup(name);
    if (sn.id == NULL || sn.name == NULL) {
        q2_snapshot_fini(&sn);
        return error_set(errp, ENOMEM, "out of memory");
    }
    sn.id_bytes = (uint16_t)strlen(sn.id);
    sn.name_bytes = (uint16_t)strlen(sn.name);
    *ret = sn;
    return 0;
}

static int create_check(struct qcow2 *s, const struct bdrv_snapshot_info *info, Error **errp)
{
    uint32_t found;
    int rc = q2_snapshots_usable(s, errp);

    if (rc < 0) {
        return rc;
    }
    if (s->snapshot_count >= Q2_SNAPSHOTS_MAX) {
        return error_set(errp, EFBIG, "the image has %" PRIu32 " snapshots, no more are possible",
                         s->snapshot_count);
    }
    if (info->id != NULL && q2_snapshot_find(s, info->id, NULL, &found) == 0) {
        return error_set(errp, EEXIST, "a snapshot with the id '%s' already exists", info->id);
    }
    return 0;
}

/* The active L1 table in memory becomes l1, as far as entries differ. */
static int set_active_l1(struct qcow2 *s, const uint64_t *l1, Error **errp)
{
    struct q2_l1 *active = q2_l1_get(s);
    int rc;

    for (uint32_t i = 0; i < active->entries; i++) {
        if (q2_l1_entry(active, i) != l1[i]) {
            q2_l1_set(s, i, l1[i]);
        }
    }
    rc = q2_commit_co(s, true);
    return rc < 0 ? error_set_errno(errp, -rc, "cannot write the L1 table") : 0;
}

static int list_append(struct qcow2 *s, const struct q2_snapshot *sn)
{
    struct q2_snapshot *list =
        realloc(s->snapshots, ((size_t)s->snapshot_count + 1) * sizeof(*list));

    if (list == NULL) {
        return -ENOMEM;
    }
    list[s->snapshot_count] = *sn;
    s->snapshots = list;
    s->snapshot_count++;
    return 0;
}

/* The VM state belongs to the snapshot now. In the active tree it would only make later snapshots
 * larger: the tables behind the disk leave it. */
static int drop_vm_state(struct qcow2 *s, uint64_t *l1, uint32_t entries, Error **errp)
{
    uint64_t table_bytes = (uint64_t)s->geo.cluster_bytes * s->geo.l2_entries;
    uint64_t first = (s->header.size_bytes + table_bytes - 1) / table_bytes;
    uint64_t *rest;
    int rc;

    if (first >= entries) {
        return 0;
    }
    rest = calloc(entries - first, sizeof(*rest));
    if (rest == NULL) {
        return 0; /* nothing is wrong with keeping it */
    }
    memcpy(rest, l1 + first, (entries - first) * sizeof(*rest));
    memset(l1 + first, 0, (entries - first) * sizeof(*rest));
    rc = set_active_l1(s, l1, errp);
    if (rc == 0) {
        rc = q2_tree_unref_co(s, rest, (uint32_t)(entries - first), Q2_DISCARD_NEVER, errp);
    }
    free(rest);
    return rc;
}

/* Steps 1 and 2, all but the table: sn->l1_offset and the refcounts. On failure the tree is as it
 * was, but for COPIED, which q2_tree_set_copied_co sets again. */
static int create_tree(struct qcow2 *s, uint64_t *l1, uint32_t entries, struct q2_snapshot *sn,
                       Error **errp)
{
    int rc = 0;

    if (entries > 0) {
        rc = q2_l1_copy_write_co(s, l1, entries, &sn->l1_offset, errp);
    }
    if (rc < 0) {
        return rc;
    }
    sn->l1_entries = entries;
    rc = q2_tree_ref_co(s, l1, entries, errp);
    if (rc == 0) {
        rc = q2_tree_clear_copied_co(s, l1, entries, errp);
        rc = rc == 0 ? set_active_l1(s, l1, errp) : rc;
        if (rc < 0) {
            q2_stays_stale(s, q2_tree_unref_co(s, l1, entries, Q2_DISCARD_NEVER, NULL));
        }
    }
    if (rc < 0 && entries > 0) {
        q2_unalloc_co(s, sn->l1_offset, (uint64_t)entries * sizeof(uint64_t));
    }
    return rc;
}

/* l1: a copy of the active table. sn is given away. */
static int create_tables(struct qcow2 *s, uint64_t *l1, uint32_t entries, struct q2_snapshot *sn,
                         Error **errp)
{
    struct q2_snapshot added = *sn;
    bool unsure = false;
    int rc = create_tree(s, l1, entries, &added, errp);

    if (rc < 0) {
        q2_stays_stale(s, q2_tree_set_copied_co(s, NULL));
        q2_snapshot_fini(&added);
        return rc;
    }
    rc = list_append(s, &added);
    if (rc < 0) {
        error_set(errp, ENOMEM, "out of memory");
    } else {
        rc = q2_snapshots_store_co(s, &unsure, errp);
        s->snapshot_count -= rc < 0;
    }
    if (rc == 0) {
        if (added.vm_state_bytes > 0) {
            q2_stays_stale(s, drop_vm_state(s, l1, entries, NULL));
        }
        return 0;
    }
    /* Where the file may name the snapshot all the same, its references stay counted until it is
     * known that it does not. */
    if (unsure) {
        q2_stays_stale(s, rc);
    } else {
        q2_stays_stale(s, q2_tree_unref_co(s, l1, entries, Q2_DISCARD_NEVER, NULL));
        q2_unalloc_co(s, added.l1_offset, (uint64_t)entries * sizeof(uint64_t));
        q2_stays_stale(s, q2_tree_set_copied_co(s, NULL));
    }
    q2_snapshot_fini(&added);
    return rc;
}

static int create_co(BlockDriverState *bs, const struct bdrv_snapshot_info *info, Error **errp)
{
    struct qcow2 *s = q2_of(bs);
    uint32_t entries = q2_l1_get(s)->entries;
    struct q2_snapshot sn;
    uint64_t *l1;
    bool was;
    int rc = create_check(s, info, errp);

    (void)q2_mend_co(s, NULL);
    rc = rc == 0 ? q2_settle_co(s, errp) : rc;
    rc = rc == 0 ? q2_l1_copy_active(s, &l1, errp) : rc;
    if (rc < 0) {
        return rc;
    }
    rc = describe(s, info, &sn, errp);
    if (rc == 0) {
        rc = q2_stale_begin_co(s, &was, errp);
        if (rc == 0) {
            rc = create_tables(s, l1, entries, &sn, errp);
            (void)q2_stale_end_co(s, was, rc, NULL);
        } else {
            q2_snapshot_fini(&sn);
        }
    }
    q2_l1_copy_free(s, l1, entries);
    return rc;
}

/* ---- delete ---- */

static void list_remove(struct qcow2 *s, uint32_t index)
{
    s->snapshot_count--;
    memmove(&s->snapshots[index], &s->snapshots[index + 1],
            (s->snapshot_count - index) * sizeof(*s->snapshots));
}

/* Back to where it was; the room is there. */
static void list_insert(struct qcow2 *s, uint32_t index, const struct q2_snapshot *sn)
{
    memmove(&s->snapshots[index + 1], &s->snapshots[index],
            (s->snapshot_count - index) * sizeof(*s->snapshots));
    s->snapshots[index] = *sn;
    s->snapshot_count++;
}

static int delete_tables(struct qcow2 *s, uint32_t index, const uint64_t *l1, Error **errp)
{
    struct q2_snapshot sn = s->snapshots[index];
    bool unsure = false;
    int rc;

    list_remove(s, index);
    rc = q2_snapshots_store_co(s, &unsure, errp);
    if (rc < 0) {
        list_insert(s, index, &sn);
        q2_stays_stale(s, unsure ? rc : 0); /* the new table stays counted */
        return rc;
    }
    if (sn.l1_entries > 0) {
        q2_free_later(s, sn.l1_offset, (uint64_t)sn.l1_entries * sizeof(uint64_t),
                      Q2_DISCARD_SNAPSHOT);
    }
    rc = q2_tree_unref_co(s, l1, sn.l1_entries, Q2_DISCARD_SNAPSHOT, NULL);
    if (rc == 0) {
        rc = q2_tree_set_copied_co(s, NULL);
    }
    q2_stays_stale(s, rc);
    q2_snapshot_fini(&sn);
    return 0;
}

static int delete_co(BlockDriverState *bs, const char *id, const char *name, Error **errp)
{
    struct qcow2 *s = q2_of(bs);
    const struct q2_snapshot *sn;
    uint32_t entries;
    uint32_t index;
    uint64_t *l1;
    bool was;
    int rc = q2_snapshots_usable(s, errp);

    rc = rc == 0 ? find(s, id, name, &index, errp) : rc;
    if (rc < 0) {
        return rc;
    }
    (void)q2_mend_co(s, NULL);
    sn = &s->snapshots[index];
    entries = sn->l1_entries;
    rc = q2_snapshot_l1_check(s, sn, errp);
    rc = rc == 0 ? q2_settle_co(s, errp) : rc;
    rc = rc == 0 ? q2_l1_copy_read_co(s, sn->l1_offset, entries, &l1, errp) : rc;
    if (rc < 0) {
        return rc;
    }
    rc = q2_tree_verify_co(s, l1, entries, errp);
    rc = rc == 0 ? q2_stale_begin_co(s, &was, errp) : rc;
    if (rc == 0) {
        rc = delete_tables(s, index, l1, errp);
        (void)q2_stale_end_co(s, was, rc, NULL);
    }
    q2_l1_copy_free(s, l1, entries);
    return rc;
}

/* ---- list, show ---- */

static int list(BlockDriverState *bs, struct bdrv_snapshot_list *ret_list, Error **errp)
{
    const struct qcow2 *s = q2_of(bs);
    struct bdrv_snapshot_list list = {0};

    list.snapshots = calloc((size_t)s->snapshot_count + 1, sizeof(*list.snapshots));
    if (list.snapshots == NULL) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    for (uint32_t i = 0; i < s->snapshot_count; i++) {
        const struct q2_snapshot *sn = &s->snapshots[i];
        struct bdrv_snapshot_info *info = &list.snapshots[i];

        *info = (struct bdrv_snapshot_info){
            .id = strdup(sn->id),
            .name = strdup(sn->name),
            .vm_state_bytes = sn->vm_state_bytes,
            .disk_bytes = sn->disk_bytes,
            .date_sec = sn->date_sec,
            .date_nsec = sn->date_nsec,
            .vm_clock_nsec = sn->vm_clock_nsec,
            .icount = sn->icount,
        };
        list.count++;
        if (info->id == NULL || info->name == NULL) {
            bdrv_snapshot_list_free(&list);
            return error_set(errp, ENOMEM, "out of memory");
        }
    }
    *ret_list = list;
    return 0;
}

static int load_tmp_co(BlockDriverState *bs, const char *id, const char *name, Error **errp)
{
    struct qcow2 *s = q2_of(bs);
    const struct q2_snapshot *sn;
    uint32_t index;
    int rc = find(s, id, name, &index, errp);

    if (rc < 0) {
        return rc;
    }
    if (!bdrv_is_read_only(bs)) {
        return error_set(errp, EINVAL, "Device is not readonly");
    }
    sn = &s->snapshots[index];
    rc = q2_snapshot_l1_check(s, sn, errp);
    if (rc < 0) {
        return rc;
    }
    rc = q2_l1_load(s, sn->l1_offset, sn->l1_entries, errp);
    if (rc < 0) {
        return rc;
    }
    q2_l2_drop_all(s);
    s->snapshot_shown = true;
    if (!bdrv_snapshots_fit_disk(bs)) { /* the tables may be of less than the disk, or more */
        atomic_store_explicit(&s->disk_bytes, sn->disk_bytes, memory_order_relaxed);
    }
    return 0;
}

const struct bdrv_snapshot_ops q2_snapshot_ops = {
    .create_co = create_co,
    .apply_co = q2_snapshot_apply_co,
    .delete_co = delete_co,
    .list = list,
    .load_tmp_co = load_tmp_co,
};
