/* SPDX-License-Identifier: MIT */
/*
 * The snapshot table: loading it and storing a new one. Entries begin at multiples of 8; the last
 * one is not padded.
 *
 * Invariants
 *  T1 memory is in proportion to the bytes of entries that the file really has: a count in the
 *     header allocates nothing by itself.
 *  T2 what refers to a snapshot's L1 table checks it first (q2_snapshot_l1_check): a table with a
 *     bad L1 can be loaded, listed and stored again.
 *  T3 a new table is durable, with the refcounts of its clusters, before the header's first sector
 *     refers to it (W1, W6); the old one is free only after that (W4).
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "util/error.h"
#include "util/mem.h"

#include "overlap.h"
#include "qcow2.h"
#include "snapshot.h"

#define WINDOW_BYTES (256 * 1024) /* of the table, while it is loaded; above the longest entry */

/* ---- loading ---- */

/* A window of the table that moves forward. */
struct window {
    struct qcow2 *s;
    uint64_t file_bytes;
    uint64_t offset; /* in the file, of the window's first byte */
    size_t bytes;    /* that it holds */
    uint8_t *buf;
};

/* Make the longest entry at offset visible, or all there is of the file; both calls are ready for
 * a coroutine and for the control thread. */
static int window_move(struct window *w, uint64_t offset, Error **errp)
{
    uint64_t want = min_u64(WINDOW_BYTES, w->file_bytes - offset);
    int rc;

    if (offset >= w->offset && offset - w->offset <= w->bytes &&
        (w->bytes - (offset - w->offset) >= Q2_SNAPSHOT_ENTRY_BYTES_MAX ||
         w->offset + w->bytes == w->file_bytes)) {
        return 0;
    }
    rc = bdrv_edge_pread(w->s->file, offset, w->buf, (size_t)want);
    if (rc < 0) {
        return error_set_errno(errp, -rc, "cannot read the snapshot table at %" PRIu64, offset);
    }
    w->offset = offset;
    w->bytes = (size_t)want;
    return 0;
}

/* Room for one more in a list that grows with what the file holds (T1). */
static int list_grow(struct q2_snapshot **list, uint32_t count, uint32_t *room)
{
    struct q2_snapshot *larger;

    if (count < *room) {
        return 0;
    }
    larger = realloc(*list, (*room * 2 + 16) * sizeof(**list));
    if (larger == NULL) {
        return -ENOMEM;
    }
    *list = larger;
    *room = *room * 2 + 16;
    return 0;
}

static int load_entries(struct qcow2 *s, struct window *w, struct q2_snapshot **list,
                        uint32_t *count, uint64_t *ret_bytes, Error **errp)
{
    uint64_t start = s->header.snapshots_offset;
    uint64_t at = start;
    uint32_t room = 0;
    size_t used;
    int rc;

    while (*count < s->header.snapshot_count) {
        at = align_up(at, Q2_SNAPSHOT_ALIGN);
        if (at >= w->file_bytes) {
            return error_set(errp, EINVAL, "the snapshot table goes beyond the end of the file");
        }
        rc = window_move(w, at, errp);
        if (rc < 0) {
            return rc;
        }
        if (list_grow(list, *count, &room) < 0) {
            return error_set(errp, ENOMEM, "out of memory");
        }
        rc = q2_snapshot_parse(w->buf + (at - w->offset), w->bytes - (size_t)(at - w->offset),
                               s->header.size_bytes, &(*list)[*count], &used);
        if (rc < 0) {
            return q2_snapshot_refuse(rc, *count, errp);
        }
        *count += 1;
        at += used;
        if (at - start > Q2_SNAPSHOT_TABLE_BYTES_MAX) {
            return error_set(errp, EFBIG, "the snapshot table is too large");
        }
    }
    *ret_bytes = at - start;
    return 0;
}

static int load_check_header(struct qcow2 *s, int64_t file_bytes, Error **errp)
{
    const struct q2_header *h = &s->header;

    if (h->snapshot_count > Q2_SNAPSHOTS_MAX) {
        return error_set(errp, EFBIG, "too many snapshots: %" PRIu32 ", at most %d are taken",
                         h->snapshot_count, Q2_SNAPSHOTS_MAX);
    }
    if (!is_aligned(h->snapshots_offset, s->geo.cluster_bytes) ||
        h->snapshots_offset >= (uint64_t)file_bytes) {
        return error_set(errp, EINVAL, "the snapshot table's offset %" PRIu64 " is not valid",
                         h->snapshots_offset);
    }
    return 0;
}

int q2_snapshots_load(struct qcow2 *s, Error **errp)
{
    AUTO_FREE uint8_t *buf = NULL;
    int64_t file_bytes = bdrv_edge_getlength(s->file);
    struct q2_snapshot *list = NULL;
    struct window w;
    uint64_t bytes = 0;
    uint32_t count = 0;
    int rc;

    if (s->header.snapshot_count == 0) {
        return 0;
    }
    if (file_bytes < 0) {
        return error_set_errno(errp, (int)-file_bytes, "cannot tell the size of the file");
    }
    rc = load_check_header(s, file_bytes, errp);
    if (rc < 0) {
        return rc;
    }
    buf = malloc(WINDOW_BYTES);
    if (buf == NULL) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    w = (struct window){.s = s, .file_bytes = (uint64_t)file_bytes, .buf = buf};
    rc = load_entries(s, &w, &list, &count, &bytes, errp);
    if (rc < 0) {
        q2_snapshots_free(list, count);
        return rc;
    }
    s->snapshots = list;
    s->snapshot_count = count;
    s->snapshot_table_bytes = bytes;
    return 0;
}

void q2_snapshots_free(struct q2_snapshot *list, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        q2_snapshot_fini(&list[i]);
    }
    free(list);
}

void q2_snapshots_fini(struct qcow2 *s)
{
    q2_snapshots_free(s->snapshots, s->snapshot_count);
    s->snapshots = NULL;
    s->snapshot_count = 0;
    s->snapshot_table_bytes = 0;
}

int q2_snapshot_l1_check(struct qcow2 *s, const struct q2_snapshot *sn, Error **errp)
{
    int64_t file_bytes = bdrv_edge_getlength(s->file);
    uint64_t bytes = (uint64_t)sn->l1_entries * sizeof(uint64_t);

    if (file_bytes < 0) {
        return error_set_errno(errp, (int)-file_bytes, "cannot tell the size of the file");
    }
    if (bytes > Q2_L1_BYTES_MAX) {
        return error_set(errp, EFBIG, "Snapshot L1 table too large");
    }
    if (sn->l1_entries > 0 &&
        (sn->l1_offset == 0 || !is_aligned(sn->l1_offset, s->geo.cluster_bytes) ||
         !range_inside(sn->l1_offset, bytes, (uint64_t)file_bytes))) {
        return error_set(errp, EINVAL, "Snapshot L1 table offset invalid");
    }
    return 0;
}

/* ---- storing ---- */

/* The table of the list in memory as bytes; *ret_buf from bdrv_buffer_alloc. */
static int build_table(struct qcow2 *s, uint64_t bytes, uint8_t **ret_buf)
{
    uint8_t *buf = bdrv_buffer_alloc(s->bs, (size_t)bytes);
    uint64_t at = 0;

    if (buf == NULL) {
        return -ENOMEM;
    }
    memset(buf, 0, (size_t)bytes);
    for (uint32_t i = 0; i < s->snapshot_count; i++) {
        at = align_up(at, Q2_SNAPSHOT_ALIGN);
        at += q2_snapshot_build(&s->snapshots[i], buf + at);
    }
    *ret_buf = buf;
    return 0;
}

/* New clusters that hold the table, durable with their refcounts (T3). */
static int write_table(struct qcow2 *s, uint64_t bytes, uint64_t *ret_offset)
{
    uint64_t clusters = (bytes + s->geo.cluster_bytes - 1) >> s->geo.cluster_bits;
    uint64_t offset;
    uint8_t *buf;
    int rc = build_table(s, bytes, &buf);

    if (rc < 0) {
        return rc;
    }
    rc = q2_alloc_clusters_co(s, clusters, &offset);
    if (rc < 0) {
        goto out;
    }
    rc = q2_overlap_check_co(s, Q2_OL_NONE, offset, bytes);
    if (rc == 0) {
        rc = bdrv_edge_write_co(s->file, offset, buf, (size_t)bytes, 0);
    }
    if (rc == 0) {
        rc = q2_commit_co(s, true);
    }
    if (rc < 0) {
        q2_unalloc_co(s, offset, bytes);
        goto out;
    }
    *ret_offset = offset;
out:
    bdrv_buffer_free(s->bs, buf, (size_t)bytes);
    return rc;
}

int q2_snapshots_store_co(struct qcow2 *s, bool *ret_unsure, Error **errp)
{
    uint64_t bytes = q2_snapshots_bytes(s->snapshots, s->snapshot_count);
    uint64_t old_offset = s->header.snapshots_offset;
    uint64_t old_bytes = s->snapshot_table_bytes;
    uint32_t old_count = s->header.snapshot_count;
    uint64_t offset = 0;
    int rc;

    *ret_unsure = false;
    if (bytes > Q2_SNAPSHOT_TABLE_BYTES_MAX) {
        return error_set(errp, EFBIG, "the snapshot table would be too large");
    }
    if (bytes > 0) {
        rc = write_table(s, bytes, &offset);
        if (rc < 0) {
            return error_set_errno(errp, -rc, "cannot write the snapshot table");
        }
    }
    s->header.snapshots_offset = offset;
    s->header.snapshot_count = s->snapshot_count;
    rc = q2_header_write_co(s, errp);
    if (rc < 0) {
        /* which of the two the file names is not known: both stay */
        s->header.snapshots_offset = old_offset;
        s->header.snapshot_count = old_count;
        *ret_unsure = true;
        return rc;
    }
    s->snapshot_table_bytes = bytes;
    for (uint32_t i = 0; i < s->snapshot_count; i++) {
        struct q2_snapshot *sn = &s->snapshots[i];

        sn->extra_bytes = (uint32_t)(q2_snapshot_bytes(sn) - Q2_SNAPSHOT_FIXED_BYTES) -
                          sn->id_bytes - sn->name_bytes;
    }
    q2_overlap_renew(s);
    if (old_bytes > 0) {
        q2_free_later(s, old_offset, old_bytes, Q2_DISCARD_SNAPSHOT);
    }
    return 0;
}
