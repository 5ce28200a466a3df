/* SPDX-License-Identifier: MIT */
/*
 * The references that L1 and L2 tables make.
 *
 * First all L1 entries are gone through once to learn how many refer to each L2 table. Then the
 * active tree is walked in the order of the disk, and then the L2 tables that only inactive L1
 * tables name. Each L2 table is looked at once, its references counted as often as it is itself
 * referred to (B2).
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "util/mem.h"

#include "check_int.h"
#include "entry.h"
#include "l1.h"
#include "overlap.h"
#include "snapshot.h"

#define L1_READ_BYTES 65536
#define L1_TOTAL_BYTES_MIN (UINT64_C(64) << 20)
/* What an intact image has none of: L1 entries that refer to an L2 table once more, or to one that
 * is not aligned. So many are gone into as if they were tables of their own. */
#define ODD_WALKS_MAX 64

struct trees {
    struct q2_check *c;
    struct q2_refmap total; /* L1 entries that refer to the L2 table in a cluster */
    struct q2_refmap done;  /* L2 tables that were walked */
    unsigned odd_walks;
    uint8_t *l1_buf; /* owned; L1_READ_BYTES */
};

void q2_check_decode(const struct q2_geometry *geo, const uint8_t *p, struct q2_check_entry *ret)
{
    *ret = (struct q2_check_entry){.raw = load_be64(p)};
    if (geo->extended_l2) {
        ret->bitmap = load_be64(p + 8);
    }
    ret->compressed = (ret->raw & Q2_COMPRESSED) != 0;
    if (ret->compressed) {
        return;
    }
    ret->offset = ret->raw & Q2_OFFSET_MASK;
    ret->allocated = q2_l2_has_host(geo, ret->raw);
    ret->zero = geo->extended_l2 ? (ret->bitmap & Q2_BITMAP_ALL) == 0
                                 : q2_l2_zero_flag(geo) && (ret->raw & Q2_ZERO) != 0;
}

int q2_check_read_co(struct q2_check *c, uint64_t offset, void *buf, size_t bytes)
{
    uint64_t there = offset < c->file_bytes ? min_u64(bytes, c->file_bytes - offset) : 0;

    memset((uint8_t *)buf + there, 0, bytes - there);
    return there > 0 ? bdrv_edge_read_co(c->s->file, offset, buf, there) : 0;
}

int q2_check_write_co(struct q2_check *c, unsigned ignore, uint64_t offset, uint64_t from,
                      uint64_t bytes)
{
    if (q2_overlap_find(c->s, Q2_OL_CACHED & ~ignore, offset + from, bytes) != 0) {
        return -EIO; /* it lies over other metadata: no repair may make that worse */
    }
    return bdrv_edge_write_co(c->s->file, offset + from, c->table + from, bytes, 0);
}

/* ---- one L2 table ---- */

struct walk {
    struct q2_check *c;
    uint64_t l2_offset;
    uint64_t times;         /* 0: only the statistics are wanted */
    bool active;            /* statistics are wanted */
    uint64_t next_expected; /* offset of a cluster that follows the one before */
    uint32_t index;         /* of the entry */
};

__attribute__((format(printf, 2, 3))) static void corrupt(struct walk *w, const char *fmt, ...)
{
    char text[256];
    va_list ap;

    if (w->times == 0) {
        return;
    }
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    q2_check_tell(w->c, "%s", text);
    w->c->res->corruptions += w->times;
}

static int walk_compressed(struct walk *w, const struct q2_check_entry *e)
{
    const struct q2_geometry *geo = &w->c->s->geo;
    uint64_t offset = q2_compressed_offset(geo, e->raw);

    if (geo->external_data) {
        corrupt(w, "ERROR compressed cluster %" PRIu32 " with data file, entry=0x%" PRIx64,
                w->index, e->raw);
        return 0;
    }
    if (e->raw & Q2_COPIED) {
        corrupt(w,
                "ERROR: coffset=0x%" PRIx64
                ": copied flag must never be set for compressed clusters",
                offset);
    }
    if (e->bitmap != 0) {
        corrupt(w,
                "ERROR compressed cluster %" PRIu32
                " with non-zero subcluster allocation bitmap, entry=0x%" PRIx64,
                w->index, e->raw);
        return 0;
    }
    if (w->active) {
        w->c->res->allocated_clusters++;
        w->c->res->compressed_clusters++;
        w->c->res->fragmented_clusters++; /* it has to be read apart from its neighbours */
    }
    return q2_check_refer(w->c, offset, q2_compressed_bytes(geo, e->raw), w->times);
}

/* A cluster without data at an impossible place: it need not have one. 1: mended. */
static int mend_unaligned_co(struct walk *w, const struct q2_check_entry *e)
{
    unsigned at = w->index * w->c->s->geo.l2_entry_bytes;
    int ret;

    store_be64(w->c->table + at, w->c->s->geo.extended_l2 ? 0 : Q2_ZERO);
    ret = q2_check_write_co(w->c, Q2_OL_ACTIVE_L2 | Q2_OL_INACTIVE_L2, w->l2_offset, at,
                            w->c->s->geo.l2_entry_bytes);
    if (ret < 0) {
        store_be64(w->c->table + at, e->raw);
        w->c->res->check_errors++;
        q2_check_tell(w->c, "ERROR: Overwriting L2 table entry failed");
        return ret == -EIO ? 0 : ret;
    }
    w->c->res->corruptions_fixed++;
    return 1;
}

static int walk_unaligned_co(struct walk *w, const struct q2_check_entry *e)
{
    static const char what[] = " cluster is not properly aligned; L2 entry corrupted.";
    bool mend = e->zero && (w->c->fix & BDRV_FIX_ERRORS) != 0 && w->times > 0;

    if (mend) {
        q2_check_tell(w->c, "Repairing offset=%" PRIx64 ": Preallocated%s", e->offset, what);
        return mend_unaligned_co(w, e);
    }
    corrupt(w, "ERROR offset=%" PRIx64 ": %s%s", e->offset, e->zero ? "Preallocated" : "Data",
            what);
    return 0;
}

static int walk_standard_co(struct walk *w, const struct q2_check_entry *e)
{
    const struct q2_geometry *geo = &w->c->s->geo;

    if (e->raw & Q2_L2_RESERVED) {
        corrupt(w, "ERROR found l2 entry with reserved bits set: %" PRIx64, e->raw);
    }
    if (e->allocated && ((uint32_t)e->bitmap & e->bitmap >> 32) != 0) {
        corrupt(w,
                "ERROR offset=%" PRIx64
                ": Allocated cluster has corrupted subcluster allocation bitmap",
                e->offset);
    }
    if (!e->allocated) {
        if ((uint32_t)e->bitmap != 0) {
            corrupt(w, "ERROR: Unallocated cluster has non-zero subcluster allocation map");
        }
        return 0;
    }
    if (w->active) {
        w->c->res->allocated_clusters++;
        if (w->next_expected != 0 && e->offset != w->next_expected) {
            w->c->res->fragmented_clusters++;
        }
        w->next_expected = e->offset + geo->cluster_bytes;
    }
    if (!is_aligned(e->offset, geo->cluster_bytes)) {
        int ret = walk_unaligned_co(w, e);

        if (ret != 0) {
            return ret < 0 ? ret : 0;
        }
    }
    return geo->external_data ? 0 : q2_check_refer(w->c, e->offset, geo->cluster_bytes, w->times);
}

/* 0, or -ENOMEM; what cannot be read is counted. */
static int walk_l2_co(struct q2_check *c, uint64_t offset, uint64_t times, bool active)
{
    const struct q2_geometry *geo = &c->s->geo;
    struct walk w = {.c = c, .l2_offset = offset, .times = times, .active = active};
    int ret;

    if (offset >= c->file_bytes) {
        return 0; /* was told as a reference beyond the end; there is nothing in it */
    }
    ret = q2_check_read_co(c, offset, c->table, geo->cluster_bytes);
    if (ret < 0) {
        q2_check_tell(c, "ERROR: I/O error while reading the L2 table at 0x%" PRIx64, offset);
        c->res->check_errors++;
        return 0;
    }
    for (; ret == 0 && w.index < geo->l2_entries; w.index++) {
        struct q2_check_entry e;

        q2_check_decode(geo, c->table + (size_t)w.index * geo->l2_entry_bytes, &e);
        ret = e.compressed ? walk_compressed(&w, &e) : walk_standard_co(&w, &e);
    }
    return ret;
}

/* ---- L1 tables ---- */

/* One entry of an L1 table, met times times. */
static int walk_l1_entry_co(struct trees *t, uint64_t entry, uint64_t times, bool active)
{
    struct q2_check *c = t->c;
    uint64_t offset = entry & Q2_OFFSET_MASK;
    uint64_t cluster = offset >> c->s->geo.cluster_bits;
    bool aligned = is_aligned(offset, c->s->geo.cluster_bytes);
    int ret;

    if (entry & Q2_L1_RESERVED) {
        q2_check_tell(c, "ERROR found L1 entry with reserved bits set: %" PRIx64, entry);
        c->res->corruptions += times;
    }
    if (offset == 0) {
        return 0;
    }
    ret = q2_check_refer(c, offset, c->s->geo.cluster_bytes, times);
    if (ret < 0) {
        return ret;
    }
    if (!aligned) {
        q2_check_tell(
            c, "ERROR l2_offset=%" PRIx64 ": Table is not cluster aligned; L1 entry corrupted",
            offset);
        c->res->corruptions += times;
    }
    if (aligned && q2_refmap_get(&t->done, cluster) == 0) {
        ret = q2_refmap_add(&t->done, cluster, 1);
        return ret < 0 ? ret : walk_l2_co(c, offset, q2_refmap_get(&t->total, cluster), active);
    }
    if ((!aligned || active) && t->odd_walks < ODD_WALKS_MAX) {
        t->odd_walks++;
        return walk_l2_co(c, offset, aligned ? 0 : times, active);
    }
    return 0;
}

static int learn_l1_entry_co(struct trees *t, uint64_t entry, uint64_t times, bool active)
{
    uint64_t offset = entry & Q2_OFFSET_MASK;

    return offset < t->c->file_bytes
               ? q2_refmap_add(&t->total, offset >> t->c->s->geo.cluster_bits, times)
               : 0;
}

typedef int entry_fn(struct trees *t, uint64_t entry, uint64_t times, bool active);

static int each_active_co(struct trees *t, entry_fn *fn)
{
    const struct q2_l1 *l1 = q2_l1_get(t->c->s);
    int ret = 0;

    for (uint32_t i = 0; ret == 0 && l1 && i < l1->entries; i++) {
        uint64_t entry = q2_l1_entry(l1, i);

        ret = entry != 0 ? fn(t, entry, 1, true) : 0;
        if (i % Q2_CHECK_STEP_ENTRIES == 0) {
            q2_check_step(t->c);
        }
    }
    return ret;
}

/* Where a number of inactive L1 tables begins or ends. */
struct edge {
    uint64_t offset;
    int64_t change;
};

static int compare_edges(const void *a, const void *b)
{
    const struct edge *x = a, *y = b;

    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* [from, to) is part of times L1 tables. */
static int each_in_range_co(struct trees *t, uint64_t from, uint64_t to, uint64_t times,
                            entry_fn *fn)
{
    int ret = 0;

    to = min_u64(to, align_down(t->c->file_bytes, 8));
    while (ret == 0 && from < to) {
        size_t bytes = min_u64(to - from, L1_READ_BYTES);

        if (bdrv_edge_read_co(t->c->s->file, from, t->l1_buf, bytes) < 0) {
            q2_check_tell(t->c, "ERROR: I/O error while reading an L1 table at 0x%" PRIx64, from);
            t->c->res->check_errors++;
            return 0;
        }
        for (size_t i = 0; ret == 0 && i < bytes; i += 8) {
            uint64_t entry = load_be64(t->l1_buf + i);

            ret = entry != 0 ? fn(t, entry, times, false) : 0;
        }
        from += bytes;
        q2_check_step(t->c);
    }
    return ret;
}

static bool l1_usable(const struct q2_check *c, const struct q2_snapshot *sn)
{
    return sn->l1_entries > 0 && is_aligned(sn->l1_offset, c->s->geo.cluster_bytes) &&
           (uint64_t)sn->l1_entries * 8 <= Q2_L1_BYTES_MAX && sn->l1_offset < c->file_bytes;
}

static int each_inactive_co(struct trees *t, entry_fn *fn)
{
    const struct q2_check *c = t->c;
    struct edge *edges;
    uint64_t n = 0, times = 0;
    int ret = 0;

    if (c->snapshot_count == 0) {
        return 0;
    }
    edges = calloc(c->snapshot_count, 2 * sizeof(*edges));
    if (!edges) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < c->snapshot_count; i++) {
        const struct q2_snapshot *sn = &c->snapshots[i];

        if (l1_usable(c, sn)) {
            edges[n++] = (struct edge){sn->l1_offset, 1};
            edges[n++] = (struct edge){sn->l1_offset + (uint64_t)sn->l1_entries * 8, -1};
        }
    }
    qsort(edges, n, sizeof(*edges), compare_edges);
    for (uint64_t i = 0; ret == 0 && i + 1 < n; i++) {
        times += (uint64_t)edges[i].change;
        if (times > 0) {
            ret = each_in_range_co(t, edges[i].offset, edges[i + 1].offset, times, fn);
        }
    }
    free(edges);
    return ret;
}

/* The references to L1 tables themselves. Together they are not longer than the file, but where
 * they lie over each other. */
static int refer_l1_tables(struct q2_check *c)
{
    const struct q2_header *h = &c->s->header;
    uint64_t left = max_u64(c->file_bytes * 4, L1_TOTAL_BYTES_MIN);
    int ret = q2_check_refer_alone(c, h->l1_offset, (uint64_t)h->l1_entries * 8);

    for (uint32_t i = 0; ret == 0 && i < c->snapshot_count; i++) {
        const struct q2_snapshot *sn = &c->snapshots[i];

        if (!is_aligned(sn->l1_offset, c->s->geo.cluster_bytes)) {
            q2_check_tell(c,
                          "ERROR snapshot %s (%s) l1_offset=0x%" PRIx64
                          ": L1 table is not cluster aligned; snapshot table entry corrupted",
                          sn->id, sn->name, sn->l1_offset);
            c->res->corruptions++;
        } else if ((uint64_t)sn->l1_entries * 8 > Q2_L1_BYTES_MAX) {
            q2_check_tell(c,
                          "ERROR snapshot %s (%s) l1_size=0x%" PRIx32
                          ": L1 table is too large; snapshot table entry corrupted",
                          sn->id, sn->name, sn->l1_entries);
            c->res->corruptions++;
        } else if ((uint64_t)sn->l1_entries * 8 > left) {
            q2_check_tell(c, "ERROR snapshot %s (%s): its L1 table is one too many to look at",
                          sn->id, sn->name);
            c->res->check_errors++;
        } else {
            left -= (uint64_t)sn->l1_entries * 8;
            ret = q2_check_refer_alone(c, sn->l1_offset, (uint64_t)sn->l1_entries * 8);
        }
    }
    return ret;
}

int q2_check_trees_co(struct q2_check *c)
{
    struct trees t = {.c = c};
    int ret = refer_l1_tables(c);

    q2_refmap_init(&t.total, bdrv_budget(c->s->bs));
    q2_refmap_init(&t.done, bdrv_budget(c->s->bs));
    t.l1_buf = bdrv_buffer_alloc(c->s->bs, L1_READ_BYTES);
    if (!t.l1_buf) {
        ret = -ENOMEM;
    }
    if (ret == 0) {
        ret = each_active_co(&t, learn_l1_entry_co);
    }
    if (ret == 0) {
        ret = each_inactive_co(&t, learn_l1_entry_co);
    }
    if (ret == 0) {
        ret = each_active_co(&t, walk_l1_entry_co);
    }
    if (ret == 0) {
        ret = each_inactive_co(&t, walk_l1_entry_co);
    }
    bdrv_buffer_free(c->s->bs, t.l1_buf, L1_READ_BYTES);
    q2_refmap_fini(&t.total);
    q2_refmap_fini(&t.done);
    return ret;
}
