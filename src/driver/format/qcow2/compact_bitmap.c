/* SPDX-License-Identifier: MIT */
/*
 * What is stored of dirty bitmaps, behind the limit (compact_int.h): clusters of bits, then tables,
 * with a new directory that names them. The bits are those of the file, whatever memory has; what
 * is damaged stays.
 */
#include <errno.h>
#include <stdlib.h>

#include "util/error.h"
#include "util/mem.h"

#include "bitmap_int.h"
#include "compact_int.h"
#include "overlap.h"

#define SECTOR_BYTES 512

static uint64_t table_bytes(const struct q2_bitmap_entry *e)
{
    return (uint64_t)e->table_entries * 8;
}

static uint64_t clusters_of(const struct qcow2 *s, uint64_t bytes)
{
    return (bytes + s->geo.cluster_bytes - 1) >> s->geo.cluster_bits;
}

static bool is_behind(const struct q2_compact *c, uint64_t offset, uint64_t bytes)
{
    return bytes > 0 && (offset >> c->s->geo.cluster_bits) + clusters_of(c->s, bytes) > c->limit;
}

/* ---- clusters of bits ---- */

struct bits {
    uint64_t *table; /* owned; as in the file */
    uint64_t *was;   /* owned */
    uint32_t entries;
};

/* Copies of those behind the limit; the table in memory refers to them. */
static int copy_bits_co(struct q2_compact *c, struct bits *t, bool *ret_any)
{
    const struct q2_geometry *geo = &c->s->geo;
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < t->entries && !c->full; i++) {
        uint64_t raw = be64toh(t->table[i]);
        uint64_t from, to;

        if (q2_bitmap_table_decode(geo, raw, &from) < 0 || from == Q2_BITMAP_ZEROES ||
            from == Q2_BITMAP_ONES || from >> geo->cluster_bits < c->limit) {
            continue;
        }
        rc = q2_compact_alloc_co(c, 1, c->limit, &to);
        c->full = rc == 0 && to == 0;
        if (rc < 0 || c->full) {
            break;
        }
        t->table[i] = htobe64((raw & ~Q2_OFFSET_MASK) | to);
        *ret_any = true;
        rc = q2_compact_copy_co(c, from, to, geo->cluster_bytes);
    }
    return rc;
}

static void release_bits_co(struct q2_compact *c, const struct bits *t, bool undo)
{
    for (uint32_t i = 0; i < t->entries; i++) {
        if (t->table[i] != t->was[i]) {
            q2_compact_lower_co(c, be64toh(undo ? t->table[i] : t->was[i]) & Q2_OFFSET_MASK,
                                c->s->geo.cluster_bytes, 1);
        }
    }
}

static int move_bits_co(struct q2_compact *c, const struct q2_bitmap_entry *e, struct bits *t)
{
    struct qcow2 *s = c->s;
    bool any = false;
    int rc = bdrv_edge_read_co(s->file, e->table_offset, t->table, table_bytes(e));

    if (rc < 0) {
        return rc;
    }
    memcpy(t->was, t->table, table_bytes(e));
    rc = copy_bits_co(c, t, &any);
    rc = rc == 0 && any ? q2_compact_settle_co(c) : rc;
    if (rc < 0) {
        release_bits_co(c, t, true);
        return rc;
    }
    if (!any) {
        return 0;
    }
    rc = q2_overlap_check_co(s, Q2_OL_NONE, e->table_offset, table_bytes(e));
    rc = rc == 0 ? bdrv_edge_write_co(s->file, e->table_offset, t->table, table_bytes(e), 0) : rc;
    rc = rc == 0 ? bdrv_edge_flush_co(s->file) : rc;
    if (rc == 0) { /* else both leak */
        release_bits_co(c, t, false);
        rc = q2_compact_settle_co(c);
    }
    return rc;
}

static int move_all_bits_co(struct q2_compact *c)
{
    struct q2_bitmap_directory *dir = &c->s->bitmaps->dir;
    int rc = 0;

    c->full = false;
    for (uint32_t i = 0; rc == 0 && i < dir->count; i++) {
        struct q2_bitmap_entry *e = &dir->entries[i];
        struct bits t = {.entries = e->table_entries};

        if (e->damaged || e->table_entries == 0) {
            continue;
        }
        t.table = bdrv_buffer_alloc(c->s->bs, table_bytes(e));
        t.was = bdrv_buffer_alloc(c->s->bs, table_bytes(e));
        rc = t.table != NULL && t.was != NULL ? move_bits_co(c, e, &t) : -ENOMEM;
        bdrv_buffer_free(c->s->bs, t.table, table_bytes(e));
        bdrv_buffer_free(c->s->bs, t.was, table_bytes(e));
    }
    return rc;
}

/* ---- tables and the directory ---- */

/* A table, copied in front of where it is. */
static int copy_table_co(struct q2_compact *c, struct q2_bitmap_entry *e)
{
    uint64_t to = 0;
    int rc = 0;

    if (!e->damaged && is_behind(c, e->table_offset, table_bytes(e))) {
        rc = q2_compact_alloc_co(c, clusters_of(c->s, table_bytes(e)),
                                 e->table_offset >> c->s->geo.cluster_bits, &to);
    }
    if (rc < 0 || to == 0) {
        return rc;
    }
    rc = q2_compact_copy_co(c, e->table_offset, to, table_bytes(e));
    if (rc < 0) {
        q2_unalloc_co(c->s, to, table_bytes(e));
    } else {
        e->table_offset = to;
    }
    return rc;
}

/* The directory in memory, in new clusters; *ret_offset 0: they would make nothing shorter. */
static int write_directory_co(struct q2_compact *c, uint64_t *ret_offset)
{
    struct qcow2 *s = c->s;
    AUTO_FREE uint8_t *buf = NULL;
    uint64_t bytes;
    int rc = q2_bitmap_directory_build(&s->bitmaps->dir, &buf, &bytes, NULL);

    *ret_offset = 0;
    if (rc < 0 || bytes != s->header.bitmap_directory_bytes) {
        return rc; /* of another length: it is not as we would write it, so it stays */
    }
    rc = q2_compact_alloc_co(
        c, clusters_of(s, bytes),
        max_u64(c->limit, s->header.bitmap_directory_offset >> s->geo.cluster_bits), ret_offset);
    if (rc < 0 || *ret_offset == 0) {
        return rc;
    }
    rc = q2_overlap_check_co(s, Q2_OL_NONE, *ret_offset, bytes);
    rc = rc == 0 ? bdrv_edge_write_co(s->file, *ret_offset, buf, bytes, 0) : rc;
    rc = rc == 0 ? q2_compact_settle_co(c) : rc;
    if (rc < 0) {
        q2_unalloc_co(s, *ret_offset, bytes);
        *ret_offset = 0;
    }
    return rc;
}

/* Tables that the directory in the file does not name, or no longer, go. */
static void release_tables_co(struct q2_compact *c, const uint64_t *was, bool undo)
{
    struct q2_bitmap_directory *dir = &c->s->bitmaps->dir;

    for (uint32_t i = 0; i < dir->count; i++) {
        struct q2_bitmap_entry *e = &dir->entries[i];

        if (e->table_offset != was[i]) {
            q2_compact_lower_co(c, undo ? e->table_offset : was[i], table_bytes(e), 1);
            e->table_offset = undo ? was[i] : e->table_offset;
        }
    }
}

static int switch_co(struct q2_compact *c, uint64_t offset)
{
    struct qcow2 *s = c->s;
    uint64_t old = s->header.bitmap_directory_offset;
    int rc;

    s->header.bitmap_directory_offset = offset;
    rc = q2_header_write_co(s, NULL);
    if (rc < 0) {
        s->header.bitmap_directory_offset = old;
        s->bitmaps->header_unsure = true; /* either counts: both stay */
        return rc;
    }
    q2_overlap_renew(s);
    q2_compact_lower_co(c, old, s->header.bitmap_directory_bytes, 1);
    return 0;
}

static int move_tables_co(struct q2_compact *c, uint64_t *was)
{
    struct qcow2 *s = c->s;
    struct q2_bitmap_directory *dir = &s->bitmaps->dir;
    bool any = is_behind(c, s->header.bitmap_directory_offset, s->header.bitmap_directory_bytes);
    uint64_t offset = 0;
    int rc = q2_bitmaps_settle_header_co(s, NULL);

    for (uint32_t i = 0; i < dir->count; i++) {
        was[i] = dir->entries[i].table_offset;
    }
    for (uint32_t i = 0; rc == 0 && i < dir->count; i++) {
        rc = copy_table_co(c, &dir->entries[i]);
        any = any || dir->entries[i].table_offset != was[i];
    }
    rc = rc == 0 && any ? write_directory_co(c, &offset) : rc;
    if (rc < 0 || offset == 0) {
        release_tables_co(c, was, true);
        return rc;
    }
    rc = switch_co(c, offset);
    if (rc == 0) {
        release_tables_co(c, was, false);
        return q2_compact_settle_co(c);
    }
    for (uint32_t i = 0; i < dir->count; i++) {
        dir->entries[i].table_offset = was[i];
    }
    return rc;
}

static int move_all_tables_co(struct q2_compact *c)
{
    uint64_t *was = calloc(c->s->bitmaps->dir.count, sizeof(*was));
    int rc = was != NULL ? move_tables_co(c, was) : -ENOMEM;

    free(was);
    return rc;
}

int q2_compact_bitmaps_co(struct q2_compact *c, Error **errp)
{
    int rc;

    if (c->s->bitmaps == NULL || c->s->bitmaps->dir.count == 0 || c->cancelled != 0) {
        return 0;
    }
    rc = q2_compact_try_co(c, false, move_all_bits_co);
    rc = rc == 0 ? q2_compact_try_co(c, false, move_all_tables_co) : rc;
    return rc < 0 ? error_set_errno(errp, -rc, "moving dirty bitmaps failed") : 0;
}
