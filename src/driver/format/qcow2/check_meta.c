/* SPDX-License-Identifier: MIT */
/*
 * What a check counts besides the trees: the snapshot table, bitmaps, the refcount table and its
 * blocks. A snapshot table that cannot be loaded is read as far as it makes sense, so that a repair
 * can store what is left.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "util/error.h"
#include "util/mem.h"

#include "bitmap.h"
#include "bitmap_int.h"
#include "check_int.h"
#include "snapshot.h"

#define SNAPSHOT_EXTRA_BYTES_V3                                                                    \
    16 /* "Version 3 images must include extra data at least up to" 55 */
#define TABLE_READ_BYTES 65536
/* So much of bitmap tables is read for each byte of the file; they may lie over each other. */
#define BITMAP_AMPLIFICATION 2
#define BITMAP_READ_BYTES_MIN (UINT64_C(64) << 20)

/* ---- the snapshot table ---- */

/* One entry, its extra data cut to what is allowed; buf: Q2_SNAPSHOT_ENTRY_BYTES_MAX. *ret_used:
 * its length in the table. */
static int read_entry_co(struct q2_check *c, uint64_t offset, uint8_t *buf, struct q2_snapshot *ret,
                         uint64_t *ret_used, uint32_t *ret_extra, Error **errp)
{
    size_t names, used;
    uint32_t keep;
    int rc;

    rc = q2_check_read_co(c, offset, buf, Q2_SNAPSHOT_FIXED_BYTES);
    *ret_extra = load_be32(buf + 36);
    keep = *ret_extra < Q2_SNAPSHOT_EXTRA_BYTES_MAX ? *ret_extra : Q2_SNAPSHOT_EXTRA_BYTES_MAX;
    names = (size_t)load_be16(buf + 12) + load_be16(buf + 14);
    if (rc == 0) {
        store_be32(buf + 36, keep);
        rc = q2_check_read_co(c, offset + Q2_SNAPSHOT_FIXED_BYTES, buf + Q2_SNAPSHOT_FIXED_BYTES,
                              keep);
    }
    if (rc == 0) {
        rc = q2_check_read_co(c, offset + Q2_SNAPSHOT_FIXED_BYTES + *ret_extra,
                              buf + Q2_SNAPSHOT_FIXED_BYTES + keep, names);
    }
    if (rc == 0) {
        rc = q2_snapshot_parse(buf, Q2_SNAPSHOT_FIXED_BYTES + keep + names, c->s->header.size_bytes,
                               ret, &used);
    }
    if (rc < 0) {
        error_set_errno(errp, -rc, "ERROR failed to read the snapshot table");
    }
    *ret_used = Q2_SNAPSHOT_FIXED_BYTES + (uint64_t)*ret_extra + names;
    return rc;
}

static int list_add(struct q2_check *c, uint32_t *room, const struct q2_snapshot *sn)
{
    if (c->snapshot_count == *room) {
        uint32_t more = *room ? *room * 2 : 16;
        struct q2_snapshot *list = realloc(c->snapshots, more * sizeof(*list));

        if (!list) {
            return -ENOMEM;
        }
        c->snapshots = list;
        *room = more;
    }
    c->snapshots[c->snapshot_count++] = *sn;
    return 0;
}

/* Entries from at on, count of them, until they make no sense. A repair drops what is too much. */
static int read_entries_co(struct q2_check *c, uint32_t count, Error **errp)
{
    bool mend = (c->fix & BDRV_FIX_ERRORS) != 0;
    uint64_t start = c->s->header.snapshots_offset;
    AUTO_FREE uint8_t *buf = malloc(Q2_SNAPSHOT_ENTRY_BYTES_MAX);
    uint64_t at = start;
    uint32_t room = 0;

    if (!buf) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    for (uint32_t i = 0; i < count; i++) {
        struct q2_snapshot sn;
        uint32_t extra = 0;
        uint64_t used = 0;
        int rc;

        at = align_up(at, 8);
        rc = read_entry_co(c, at, buf, &sn, &used, &extra, errp);
        if (rc < 0) {
            return rc;
        }
        rc = 0;
        if (extra > Q2_SNAPSHOT_EXTRA_BYTES_MAX && !mend) {
            rc = q2_snapshot_refuse(-EFBIG, i, errp);
            error_prepend(errp, "ERROR failed to read the snapshot table: ");
        } else if (at + used - start > Q2_SNAPSHOT_TABLE_BYTES_MAX && !mend) {
            rc = error_set(errp, EFBIG, "ERROR snapshot table too large");
        }
        if (rc < 0) {
            q2_snapshot_fini(&sn);
            return rc;
        }
        if (extra > Q2_SNAPSHOT_EXTRA_BYTES_MAX) {
            q2_check_tell(c,
                          "Discarding too much extra metadata in snapshot table entry %" PRIu32
                          " (%" PRIu32 " > %d)",
                          i, extra, Q2_SNAPSHOT_EXTRA_BYTES_MAX);
            c->snapshot_table_faults++;
        }
        if (at + used - start > Q2_SNAPSHOT_TABLE_BYTES_MAX) {
            q2_check_tell(
                c, "Discarding %" PRIu32 " overhanging snapshots (snapshot table is too big)",
                count - i);
            c->snapshot_table_faults += count - i;
            q2_snapshot_fini(&sn);
            break;
        }
        if (list_add(c, &room, &sn) < 0) {
            q2_snapshot_fini(&sn);
            return error_set(errp, ENOMEM, "out of memory");
        }
        at += used;
    }
    c->snapshot_table_bytes = at - start;
    return 0;
}

static int read_table_co(struct q2_check *c, Error **errp)
{
    uint32_t count = c->s->header.snapshot_count;

    if (!is_aligned(c->s->header.snapshots_offset, c->s->geo.cluster_bytes) ||
        c->s->header.snapshots_offset > INT64_MAX) {
        return error_set(errp, EINVAL, "ERROR snapshot table offset invalid");
    }
    if (count > Q2_SNAPSHOTS_MAX && !(c->fix & BDRV_FIX_ERRORS)) {
        error_set(errp, EFBIG, "ERROR snapshot table too large");
        error_set_hint(
            errp, "You can force-remove all %" PRIu32 " overhanging snapshots with check -r all",
            count - Q2_SNAPSHOTS_MAX);
        error_add_compat_hint(errp,
                              "You can force-remove all %" PRIu32
                              " overhanging snapshots with qemu-img check -r all",
                              count - Q2_SNAPSHOTS_MAX);
        return -EFBIG;
    }
    if (count > Q2_SNAPSHOTS_MAX) {
        q2_check_tell(c, "Discarding %" PRIu32 " overhanging snapshots", count - Q2_SNAPSHOTS_MAX);
        c->snapshot_table_faults += count - Q2_SNAPSHOTS_MAX;
        count = Q2_SNAPSHOTS_MAX;
    }
    c->snapshots_owned = true;
    return read_entries_co(c, count, errp);
}

int q2_check_snapshot_table_co(struct q2_check *c, Error **errp)
{
    struct qcow2 *s = c->s;
    bool mend = (c->fix & BDRV_FIX_ERRORS) != 0;

    if (s->header.snapshot_count == s->snapshot_count) {
        c->snapshots = s->snapshots;
        c->snapshot_count = s->snapshot_count;
        c->snapshot_table_bytes = s->snapshot_table_bytes;
    } else {
        int ret = read_table_co(c, errp);

        if (ret < 0) {
            return ret;
        }
    }
    for (uint32_t i = 0; s->geo.version >= 3 && i < c->snapshot_count; i++) {
        if (c->snapshots[i].extra_bytes < SNAPSHOT_EXTRA_BYTES_V3) {
            q2_check_tell(c, "%s snapshot table entry %" PRIu32 " is incomplete",
                          mend ? "Repairing" : "ERROR", i);
            c->snapshot_table_faults++;
        }
    }
    return 0;
}

int q2_check_mend_snapshot_table_co(struct q2_check *c, Error **errp)
{
    struct qcow2 *s = c->s;
    uint64_t faults = c->snapshot_table_faults;
    bool unsure;
    int ret;

    if (faults == 0) {
        return 0;
    }
    if (!(c->fix & BDRV_FIX_ERRORS)) {
        c->res->corruptions += faults;
        return 0;
    }
    if (c->snapshots_owned) {
        q2_snapshots_fini(s);
        s->snapshots = c->snapshots;
        s->snapshot_count = c->snapshot_count;
        s->snapshot_table_bytes = c->snapshot_table_bytes;
        c->snapshots_owned = false;
    }
    ret = q2_snapshots_store_co(s, &unsure, errp);
    if (ret < 0) {
        error_prepend(errp, "ERROR failed to update snapshot table: ");
        return ret;
    }
    c->res->corruptions_fixed += faults;
    return 0;
}

/* ---- bitmaps ---- */

struct bitmaps {
    struct q2_check *c;
    uint64_t may_read; /* bytes of tables */
    uint64_t *buf;     /* owned; TABLE_READ_BYTES */
};

/* The data clusters that a bitmap's table names. */
static int bitmap_data_co(struct bitmaps *b, const struct q2_bitmap_entry *e)
{
    struct q2_check *c = b->c;
    uint64_t bytes = (uint64_t)e->table_entries * 8;
    int ret = 0;

    if (e->table_offset >= c->file_bytes) {
        return 0;
    }
    bytes = min_u64(bytes, align_down(c->file_bytes - e->table_offset, 8));
    for (uint64_t at = 0; ret == 0 && at < bytes; at += TABLE_READ_BYTES) {
        size_t n = min_u64(bytes - at, TABLE_READ_BYTES);

        if (bdrv_edge_read_co(c->s->file, e->table_offset + at, b->buf, n) < 0) {
            q2_check_tell(c, "ERROR bitmap '%s': I/O error while reading its table", e->name);
            c->res->check_errors++;
            return 0;
        }
        for (size_t i = 0; ret == 0 && i < n / 8; i++) {
            uint64_t raw = be64toh(b->buf[i]), offset;

            if (q2_bitmap_table_decode(&c->s->geo, raw, &offset) < 0) {
                q2_check_tell(c, "ERROR bitmap '%s': wrong table entry: %" PRIx64, e->name, raw);
                c->res->corruptions++;
                offset = raw & Q2_OFFSET_MASK; /* what is there is somebody's all the same */
            }
            if (offset != Q2_BITMAP_ZEROES && offset != Q2_BITMAP_ONES) {
                ret = q2_check_refer_alone(c, offset, c->s->geo.cluster_bytes);
            }
        }
    }
    return ret;
}

/* Of one that would be used. */
static void check_table_size(struct q2_check *c, const struct q2_bitmap_entry *e)
{
    struct qcow2 *s = c->s;
    uint64_t want =
        q2_bitmap_table_entries(q2_disk_bytes(s), e->granularity_bits, s->geo.cluster_bits);

    if (q2_bitmap_may_use(e) && e->table_entries != want) {
        q2_check_tell(c, "ERROR bitmap '%s': its table has %" PRIu32 " entries, not %" PRIu64,
                      e->name, e->table_entries, want);
        c->res->corruptions++;
    }
}

/* A bitmap of a kind that is not known has its clusters all the same. */
static int bitmap_entry_co(struct bitmaps *b, const struct q2_bitmap_entry *e)
{
    struct q2_check *c = b->c;
    uint64_t bytes = (uint64_t)e->table_entries * 8;
    Error *err = NULL;
    int ret = q2_bitmap_entry_check(e, &c->s->geo, &err);

    if (ret < 0) {
        q2_check_tell(c, "ERROR %s", error_get_pretty(err));
        c->res->corruptions++;
        error_free(err);
    } else {
        check_table_size(c, e);
    }
    if (bytes > b->may_read) {
        q2_check_tell(c, "ERROR bitmap '%s': its table is one too many to look at", e->name);
        c->res->check_errors++;
        return 0;
    }
    b->may_read -= bytes;
    ret = q2_check_refer_alone(c, e->table_offset, bytes);
    return ret < 0 ? ret : bitmap_data_co(b, e);
}

/* The directory, as far as it can be told into entries. */
static int read_directory_co(struct q2_check *c, struct q2_bitmap_directory *ret_dir, Error **errp)
{
    const struct q2_header *h = &c->s->header;
    int ret = q2_bitmaps_ext_check(h, c->file_bytes, errp);
    uint8_t *buf;

    if (ret < 0) {
        return ret;
    }
    buf = bdrv_buffer_alloc(c->s->bs, h->bitmap_directory_bytes);
    if (!buf) {
        return error_set(errp, ENOMEM, "out of memory for the bitmap directory");
    }
    ret = q2_check_read_co(c, h->bitmap_directory_offset, buf, h->bitmap_directory_bytes);
    if (ret < 0) {
        error_set_errno(errp, -ret, "Could not read the bitmap directory");
    } else {
        ret = q2_bitmap_directory_parse(buf, h->bitmap_directory_bytes, h->bitmap_count, ret_dir,
                                        errp);
    }
    bdrv_buffer_free(c->s->bs, buf, h->bitmap_directory_bytes);
    return ret;
}

int q2_check_bitmaps_co(struct q2_check *c)
{
    const struct q2_header *h = &c->s->header;
    struct bitmaps b = {
        .c = c, .may_read = max_u64(c->file_bytes * BITMAP_AMPLIFICATION, BITMAP_READ_BYTES_MIN)};
    struct q2_bitmap_directory dir = {0};
    Error *err = NULL;
    int ret;

    if (!h->has_bitmaps_ext || !(h->autoclear & Q2_AUTOCLEAR_BITMAPS)) {
        return 0; /* nothing is said of them that could be trusted */
    }
    ret = q2_check_refer_alone(c, h->bitmap_directory_offset, h->bitmap_directory_bytes);
    if (ret < 0) {
        return ret;
    }
    b.buf = bdrv_buffer_alloc(c->s->bs, TABLE_READ_BYTES);
    ret = b.buf ? read_directory_co(c, &dir, &err) : -ENOMEM;
    if (ret < 0 && ret != -ENOMEM) {
        q2_check_tell(c, "ERROR %s", error_get_pretty(err));
        /* two of one name are wrong; anything else hides what clusters bitmaps have */
        *(dir.count == h->bitmap_count ? &c->res->corruptions : &c->res->check_errors) += 1;
        ret = 0;
    }
    error_free(err);
    for (uint32_t i = 0; ret == 0 && i < dir.count; i++) {
        ret = bitmap_entry_co(&b, &dir.entries[i]);
    }
    q2_bitmap_directory_fini(&dir);
    bdrv_buffer_free(c->s->bs, b.buf, TABLE_READ_BYTES);
    return ret;
}

/* ---- the refcount table and its blocks ---- */

static int refcount_block(struct q2_check *c, uint64_t index, uint64_t entry)
{
    const struct q2_geometry *geo = &c->s->geo;
    uint64_t cluster = entry >> geo->cluster_bits;
    int ret;

    if (entry & (Q2_COMPRESSED_SECTOR - 1)) {
        q2_check_tell(c, "ERROR refcount table entry %" PRIu64 " has reserved bits set", index);
        c->res->corruptions++;
        c->rebuild = true;
        return 0;
    }
    if (!is_aligned(entry, geo->cluster_bytes)) {
        q2_check_tell(c,
                      "ERROR refcount block %" PRIu64
                      " is not cluster aligned; refcount table entry corrupted",
                      index);
        c->res->corruptions++;
        c->rebuild = true;
        return 0;
    }
    if (cluster >= c->clusters) {
        bool mend = (c->fix & BDRV_FIX_ERRORS) != 0;

        q2_check_tell(c, "%s refcount block %" PRIu64 " is outside image",
                      mend ? "Repairing" : "ERROR", index);
        c->res->corruptions++;
        c->rebuild = c->rebuild || mend;
        return 0;
    }
    ret = q2_check_refer(c, entry, geo->cluster_bytes, 1);
    if (ret == 0 && q2_refmap_get(&c->refs, cluster) != 1) {
        q2_check_tell(c, "ERROR refcount block %" PRIu64 " refcount=%" PRIu32, index,
                      q2_refmap_get(&c->refs, cluster));
        c->res->corruptions++;
        c->rebuild = true;
    }
    return ret;
}

int q2_check_refcount_structures_co(struct q2_check *c)
{
    const struct q2_header *h = &c->s->header;
    int ret = q2_check_refer_alone(c, h->reftable_offset,
                                   (uint64_t)h->reftable_clusters << c->s->geo.cluster_bits);

    for (uint64_t i = 0; ret == 0 && i < c->s->refs.table_entries; i++) {
        if (c->s->refs.table[i] != 0) {
            ret = refcount_block(c, i, c->s->refs.table[i]);
        }
    }
    return ret;
}
