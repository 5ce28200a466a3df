/* SPDX-License-Identifier: MIT */
/*
 * Walking what a tree of tables refers to (tree_walk.h).
 */
#include <errno.h>
#include <inttypes.h>

#include "util/error.h"

#include "overlap.h"
#include "qcow2.h"
#include "tree_walk.h"

#define SECTOR_BYTES 512 /* that a write tears at */
int q2_walk_begin_co(struct qcow2 *s, struct q2_walk *w, Error **errp)
{
    int64_t file_bytes = bdrv_edge_getlength(s->file);

    if (file_bytes < 0) {
        return error_set_errno(errp, (int)-file_bytes, "cannot tell the size of the file");
    }
    *w = (struct q2_walk){.s = s, .file_bytes = (uint64_t)file_bytes};
    w->table = bdrv_buffer_alloc(s->bs, s->geo.cluster_bytes);
    if (w->table == NULL) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    return 0;
}

void q2_walk_end(struct q2_walk *w)
{
    bdrv_buffer_free(w->s->bs, w->table, w->s->geo.cluster_bytes);
}

/* Keeps K2. */
int q2_walk_check_l1(const struct q2_walk *w, const uint64_t *l1, uint32_t entries, Error **errp)
{
    uint64_t tables = 0;

    for (uint32_t i = 0; i < entries; i++) {
        tables += (l1[i] & Q2_OFFSET_MASK) != 0;
    }
    if (tables > w->file_bytes >> w->s->geo.cluster_bits) {
        return error_set(errp, EIO, "the L1 table has more L2 tables than the file has clusters");
    }
    return 0;
}

/* Keeps K1. */
int q2_walk_read_co(struct q2_walk *w, uint64_t offset, Error **errp)
{
    const struct q2_geometry *geo = &w->s->geo;
    int rc;

    if (!is_aligned(offset, geo->cluster_bytes) ||
        !range_inside(offset, geo->cluster_bytes, w->file_bytes)) {
        return error_set(errp, EIO, "L2 table offset 0x%" PRIx64 " is not valid", offset);
    }
    rc = bdrv_edge_read_co(w->s->file, offset, w->table, geo->cluster_bytes);
    if (rc < 0) {
        return error_set_errno(errp, -rc, "cannot read the L2 table at 0x%" PRIx64, offset);
    }
    return 0;
}

/* Write the words [first, end) of the table, whole sectors, and forget its cached slices. */
int q2_walk_write_co(struct q2_walk *w, uint64_t offset, size_t first, size_t end, Error **errp)
{
    uint64_t from = align_down(first * sizeof(uint64_t), SECTOR_BYTES);
    uint64_t to = align_up(end * sizeof(uint64_t), SECTOR_BYTES);
    int rc =
        q2_overlap_check_co(w->s, Q2_OL_ACTIVE_L2 | Q2_OL_INACTIVE_L2, offset + from, to - from);

    if (rc == 0) {
        rc = bdrv_edge_write_co(w->s->file, offset + from, w->table + from, (size_t)(to - from), 0);
    }
    q2_l2_drop_table(w->s, offset);
    if (rc < 0) {
        return error_set_errno(errp, -rc, "cannot write the L2 table at 0x%" PRIx64, offset);
    }
    return 0;
}

/* ---- runs of clusters ---- */

static int run_flush(struct q2_walk *w)
{
    uint64_t bytes = w->run_bytes;
    int rc = 0;

    if (bytes > 0) {
        w->run_bytes = 0;
        rc = w->fn(w, w->run_offset, bytes);
        w->runs += rc == 0;
    }
    return rc;
}

static int run_add(struct q2_walk *w, uint64_t offset)
{
    int rc = 0;

    if (w->run_bytes == 0 || w->run_offset + w->run_bytes != offset) {
        rc = run_flush(w);
        w->run_offset = offset;
    }
    if (rc == 0) {
        w->run_bytes += w->s->geo.cluster_bytes;
    }
    return rc;
}

/* The bytes of a compressed cluster in the file; *ret_offset is that of a sector. */
static void compressed_range(const struct q2_geometry *geo, uint64_t entry, uint64_t *ret_offset,
                             uint64_t *ret_bytes)
{
    unsigned shift = 62 - (geo->cluster_bits - 8);
    uint64_t more = (entry >> shift) & ((UINT64_C(1) << (geo->cluster_bits - 8)) - 1);

    *ret_offset = align_down(entry & ((UINT64_C(1) << shift) - 1), Q2_COMPRESSED_SECTOR);
    *ret_bytes = (more + 1) * Q2_COMPRESSED_SECTOR;
}

static int bad_entry(uint64_t entry, Error **errp)
{
    return error_set(errp, EIO, "L2 table entry 0x%" PRIx64 " is not valid", entry);
}

/* One entry of an L2 table. Keeps K1. */
static int walk_entry(struct q2_walk *w, uint64_t entry, Error **errp)
{
    const struct q2_geometry *geo = &w->s->geo;
    uint64_t end = align_up(w->file_bytes, geo->cluster_bytes);
    uint64_t offset = entry & Q2_OFFSET_MASK;
    uint64_t bytes;
    int rc;

    if (entry & Q2_COMPRESSED) {
        compressed_range(geo, entry, &offset, &bytes);
        if (!range_inside(offset, bytes, end)) {
            return bad_entry(entry, errp);
        }
        rc = run_flush(w);
        w->run_offset = offset;
        w->run_bytes = rc == 0 ? bytes : 0;
        rc = rc == 0 ? run_flush(w) : rc;
    } else if (offset == 0 || geo->external_data) {
        return 0; /* guest clusters in another file are not counted */
    } else if (!is_aligned(offset, geo->cluster_bytes) ||
               !range_inside(offset, geo->cluster_bytes, end)) {
        return bad_entry(entry, errp);
    } else {
        rc = run_add(w, offset);
    }
    return rc < 0 ? error_set_errno(errp, -rc, "cannot change the refcounts at 0x%" PRIx64,
                                    w->run_offset)
                  : 0;
}

/* All that the L2 table at offset refers to, then the table itself. */
int q2_walk_table_co(struct q2_walk *w, uint64_t offset, Error **errp)
{
    const struct q2_geometry *geo = &w->s->geo;
    size_t words = q2_walk_entry_words(geo);
    int rc = q2_walk_read_co(w, offset, errp);

    w->run_bytes = 0;
    for (size_t i = 0; rc == 0 && i < geo->l2_entries; i++) {
        rc = walk_entry(w, q2_walk_word(w, i * words), errp);
    }
    if (rc < 0) {
        return rc;
    }
    rc = run_flush(w);
    if (rc == 0) {
        w->run_offset = offset;
        w->run_bytes = geo->cluster_bytes;
        rc = run_flush(w);
    }
    return rc < 0 ? error_set_errno(errp, -rc, "cannot change the refcounts at 0x%" PRIx64,
                                    w->run_offset)
                  : 0;
}

int q2_walk_tree_co(struct q2_walk *w, const uint64_t *l1, uint32_t entries, Error **errp)
{
    int rc = q2_walk_check_l1(w, l1, entries, errp);

    for (uint32_t i = 0; rc == 0 && i < entries; i++) {
        if ((l1[i] & Q2_OFFSET_MASK) != 0) {
            rc = q2_walk_table_co(w, l1[i] & Q2_OFFSET_MASK, errp);
        }
    }
    return rc;
}
