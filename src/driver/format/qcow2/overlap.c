/* SPDX-License-Identifier: MIT */
/*
 * Metadata is not written over: which clusters of the file are metadata, and what happens when a
 * write is about to hit one.
 *
 * The clusters of the header, the active L1 table, the L2 tables it names, the refcount table and
 * its blocks, the snapshot table and the bitmap directory stand in a set that is read without a
 * lock (cluster_set.h).
 *
 * Inactive L1 tables are sorted ranges; they change only while the node is drained. Inactive L2
 * tables are only known when the option asks for them (overlap-check=all): they are read before the
 * first check and kept in a second table, 16 bytes or less for each that is different.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "util/budget.h"

#include "cluster_set.h"
#include "l1.h"
#include "overlap.h"
#include "qcow2.h"
#include "snapshot.h"

#define OFFSET_LIMIT                                                                               \
    (UINT64_C(1) << 62) /* no file is longer; so a key leaves room for the kinds                   \
                         */
#define L1_READ_BYTES 65536

struct range {
    uint64_t offset;
    uint64_t end;
};

struct q2_overlap_set {
    struct q2_cluster_set set;
    bool outdated;             /* protects only the header; changes only while drained */
    struct range *inactive_l1; /* owned; sorted, apart; changes only while drained */
    size_t inactive_l1_count;
    CoMutex inactive_lock;
    _Atomic bool inactive_known;
    struct q2_cluster_set inactive_l2; /* once known */
};

/* ---- inactive tables ---- */

static bool hits_inactive_l1(const struct q2_overlap_set *o, uint64_t offset, uint64_t end)
{
    size_t low = 0, high = o->inactive_l1_count;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (o->inactive_l1[mid].end <= offset) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low < o->inactive_l1_count && o->inactive_l1[low].offset < end;
}

static int compare_ranges(const void *a, const void *b)
{
    const struct range *x = a, *y = b;

    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static int load_inactive_l1(struct qcow2 *s, struct q2_overlap_set *o)
{
    int64_t file_bytes = bdrv_edge_getlength(s->file);
    size_t n = 0;

    if (s->snapshot_count == 0) {
        return 0;
    }
    if (file_bytes < 0) {
        return (int)file_bytes;
    }
    o->inactive_l1 = calloc(s->snapshot_count, sizeof(struct range));
    if (!o->inactive_l1) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < s->snapshot_count; i++) {
        uint64_t offset = s->snapshots[i].l1_offset;
        uint64_t bytes = (uint64_t)s->snapshots[i].l1_entries * sizeof(uint64_t);

        /* what cannot be an L1 table is none, or nothing could be written where it would be */
        if (bytes > 0 && bytes <= Q2_L1_BYTES_MAX && offset != 0 &&
            is_aligned(offset, s->geo.cluster_bytes) &&
            range_inside(offset, bytes, (uint64_t)file_bytes)) {
            o->inactive_l1[n].offset = offset;
            o->inactive_l1[n++].end = align_up(offset + bytes, s->geo.cluster_bytes);
        }
    }
    qsort(o->inactive_l1, n, sizeof(struct range), compare_ranges);
    for (size_t i = 0; i < n; i++) {
        struct range *last = o->inactive_l1 + o->inactive_l1_count;

        if (o->inactive_l1_count > 0 && o->inactive_l1[i].offset <= last[-1].end) {
            last[-1].end = max_u64(last[-1].end, o->inactive_l1[i].end);
        } else {
            *last = o->inactive_l1[i];
            o->inactive_l1_count++;
        }
    }
    return 0;
}

/* Learn the L2 tables that the L1 tables in r name. */
static int learn_l2_co(struct qcow2 *s, struct q2_overlap_set *o, struct range r, uint64_t *buf)
{
    int64_t file_bytes = bdrv_edge_getlength(s->file);
    int ret = file_bytes < 0 ? (int)file_bytes : 0;

    r.end = min_u64(r.end, (uint64_t)max_u64(0, (uint64_t)file_bytes));
    while (ret == 0 && r.offset < r.end) {
        size_t bytes = min_u64(r.end - r.offset, L1_READ_BYTES);

        ret = bdrv_edge_read_co(s->file, r.offset, buf, bytes);
        for (size_t i = 0; ret == 0 && i < bytes / sizeof(uint64_t); i++) {
            uint64_t offset = be64toh(buf[i]) & Q2_OFFSET_MASK;

            if (offset != 0 && is_aligned(offset, s->geo.cluster_bytes)) {
                ret = q2_cluster_set_add(&o->inactive_l2, offset >> s->geo.cluster_bits,
                                         Q2_OL_INACTIVE_L2);
            }
        }
        r.offset += bytes;
    }
    return ret;
}

static int learn_inactive_co(struct qcow2 *s, struct q2_overlap_set *o)
{
    uint64_t *buf = bdrv_buffer_alloc(s->bs, L1_READ_BYTES);
    int ret = buf ? q2_cluster_set_init(&o->inactive_l2, bdrv_budget(s->bs), 0) : -ENOMEM;

    for (size_t i = 0; ret == 0 && i < o->inactive_l1_count; i++) {
        ret = learn_l2_co(s, o, o->inactive_l1[i], buf);
    }
    bdrv_buffer_free(s->bs, buf, L1_READ_BYTES);
    if (ret == 0) {
        atomic_store_explicit(&o->inactive_known, true, memory_order_release);
    } else if (buf) {
        q2_cluster_set_fini(&o->inactive_l2);
    }
    return ret;
}

/* Whether [first, last] hits an inactive L2 table: 1, 0 or -errno. */
static int hits_inactive_l2_co(struct qcow2 *s, uint64_t first, uint64_t last)
{
    struct q2_overlap_set *o = s->overlap;
    int ret = 0;

    if (o->inactive_l1_count == 0 || o->outdated) {
        return 0;
    }
    if (!atomic_load_explicit(&o->inactive_known, memory_order_acquire)) {
        co_mutex_lock(&o->inactive_lock);
        if (!atomic_load_explicit(&o->inactive_known, memory_order_relaxed)) {
            ret = learn_inactive_co(s, o);
        }
        co_mutex_unlock(&o->inactive_lock);
        if (ret < 0) {
            return ret;
        }
    }
    return q2_cluster_set_find(&o->inactive_l2, first, last) != 0;
}

/* ---- corruption ---- */

int q2_corrupt_co(struct qcow2 *s, bool fatal, uint64_t offset, uint64_t bytes, const char *fmt,
                  ...)
{
    char message[256];
    va_list ap;

    fatal = fatal && (bdrv_open_flags(s->bs) & BDRV_O_RDWR) != 0;
    va_start(ap, fmt);
    vsnprintf(message, sizeof(message), fmt, ap);
    va_end(ap);
    bdrv_image_corrupted(s->bs, fatal, offset, bytes, "%s", message);
    if (fatal && !atomic_exchange(&s->corrupt_told, true) && s->geo.version >= 3) {
        /* should it fail: nothing will be written by us any more, and that is what counts */
        (void)q2_header_bits_co(s, Q2_INCOMPAT_CORRUPT, 0, 0);
    }
    return -EIO;
}

int q2_overlap_told_co(struct qcow2 *s, unsigned kinds, uint64_t offset, uint64_t bytes)
{
    static const char *const name[Q2_KIND_BITS] = {
        "qcow2_header",      "active L1 table",   "active L2 table",
        "refcount table",    "refcount block",    "snapshot table",
        "inactive L1 table", "inactive L2 table", "bitmap directory"};

    return q2_corrupt_co(s, true, offset, bytes,
                         "Preventing invalid write on metadata (overlaps with %s)",
                         name[__builtin_ctz(kinds)]);
}

/* ---- what others call ---- */

unsigned q2_overlap_find(const struct qcow2 *s, unsigned kinds, uint64_t offset, uint64_t bytes)
{
    const struct q2_overlap_set *o = s->overlap;
    unsigned found;

    if (UNLIKELY(bytes == 0)) {
        return 0;
    }
    found = q2_cluster_set_find(&o->set, offset >> s->geo.cluster_bits,
                                (offset + bytes - 1) >> s->geo.cluster_bits);
    if (UNLIKELY(o->outdated)) {
        return found & kinds & Q2_OL_MAIN_HEADER;
    }
    if (UNLIKELY(o->inactive_l1_count > 0) && (kinds & Q2_OL_INACTIVE_L1) != 0 &&
        hits_inactive_l1(o, offset, offset + bytes)) {
        found |= Q2_OL_INACTIVE_L1;
    }
    return found & kinds;
}

int q2_overlap_check_co(struct qcow2 *s, unsigned ignore, uint64_t offset, uint64_t bytes)
{
    unsigned kinds = s->opt.overlap & ~ignore;
    unsigned found = q2_overlap_find(s, kinds, offset, bytes);

    if (UNLIKELY((kinds & Q2_OL_INACTIVE_L2) != 0) && found == 0 && bytes > 0) {
        int hit = hits_inactive_l2_co(s, offset >> s->geo.cluster_bits,
                                      (offset + bytes - 1) >> s->geo.cluster_bits);

        if (hit < 0) {
            return hit;
        }
        found = hit > 0 ? Q2_OL_INACTIVE_L2 : 0;
    }
    return LIKELY(found == 0) ? 0 : q2_overlap_told_co(s, found, offset, bytes);
}

static int add_range(struct qcow2 *s, struct q2_overlap_set *o, unsigned kind, uint64_t offset,
                     uint64_t bytes)
{
    int ret = 0;

    if (bytes == 0 || !range_inside(offset, bytes, OFFSET_LIMIT)) {
        return 0; /* nothing can be there */
    }
    for (uint64_t c = offset >> s->geo.cluster_bits;
         ret == 0 && c <= (offset + bytes - 1) >> s->geo.cluster_bits; c++) {
        ret = q2_cluster_set_add(&o->set, c, kind);
    }
    return ret;
}

int q2_overlap_add(struct qcow2 *s, enum q2_overlap kind, uint64_t offset)
{
    return add_range(s, s->overlap, kind, offset, 1);
}

void q2_overlap_del(struct qcow2 *s, enum q2_overlap kind, uint64_t offset)
{
    q2_overlap_del_range(s, kind, offset, 1);
}

int q2_overlap_add_range(struct qcow2 *s, enum q2_overlap kind, uint64_t offset, uint64_t bytes)
{
    int ret = add_range(s, s->overlap, kind, offset, bytes);

    if (ret < 0) {
        q2_overlap_del_range(s, kind, offset, bytes);
    }
    return ret;
}

void q2_overlap_del_range(struct qcow2 *s, enum q2_overlap kind, uint64_t offset, uint64_t bytes)
{
    if (bytes == 0 || !range_inside(offset, bytes, OFFSET_LIMIT)) {
        return;
    }
    for (uint64_t c = offset >> s->geo.cluster_bits;
         c <= (offset + bytes - 1) >> s->geo.cluster_bits; c++) {
        q2_cluster_set_del(&s->overlap->set, c, kind);
    }
}

/* How many clusters the set is going to hold, about. */
static uint64_t expected_clusters(struct qcow2 *s)
{
    const struct q2_l1 *l1 = atomic_load_explicit(&s->l1, memory_order_acquire);
    uint64_t n = 16 + s->header.reftable_clusters;

    for (uint32_t i = 0; l1 && i < l1->entries; i++) {
        n += atomic_load_explicit(&l1->e[i], memory_order_relaxed) != 0;
    }
    for (uint64_t i = 0; i < s->refs.table_entries; i++) {
        n += s->refs.table[i] != 0;
    }
    return n + ((uint64_t)s->header.l1_entries * 8 + s->header.bitmap_directory_bytes) /
                   s->geo.cluster_bytes;
}

static int fill_from_header(struct qcow2 *s, struct q2_overlap_set *o)
{
    const struct q2_header *h = &s->header;
    int ret = q2_cluster_set_add(&o->set, 0, Q2_OL_MAIN_HEADER);

    if (ret == 0) {
        ret = add_range(s, o, Q2_OL_ACTIVE_L1, h->l1_offset, (uint64_t)h->l1_entries * 8);
    }
    if (ret == 0) {
        ret = add_range(s, o, Q2_OL_REFCOUNT_TABLE, h->reftable_offset,
                        (uint64_t)h->reftable_clusters << s->geo.cluster_bits);
    }
    if (ret == 0) {
        ret = add_range(s, o, Q2_OL_SNAPSHOT_TABLE, h->snapshots_offset, s->snapshot_table_bytes);
    }
    if (ret == 0 && h->has_bitmaps_ext) {
        ret = add_range(s, o, Q2_OL_BITMAP_DIRECTORY, h->bitmap_directory_offset,
                        h->bitmap_directory_bytes);
    }
    return ret;
}

static int fill_from_tables(struct qcow2 *s, struct q2_overlap_set *o)
{
    const struct q2_l1 *l1 = atomic_load_explicit(&s->l1, memory_order_acquire);
    int ret = 0;

    for (uint32_t i = 0; ret == 0 && l1 && i < l1->entries; i++) {
        uint64_t e = atomic_load_explicit(&l1->e[i], memory_order_relaxed) & Q2_OFFSET_MASK;

        if (e != 0) {
            ret = add_range(s, o, Q2_OL_ACTIVE_L2, e, 1);
        }
    }
    for (uint64_t i = 0; ret == 0 && i < s->refs.table_entries; i++) {
        uint64_t e = s->refs.table[i];

        if (e != 0 && is_aligned(e, s->geo.cluster_bytes)) {
            ret = add_range(s, o, Q2_OL_REFCOUNT_BLOCK, e, 1);
        }
    }
    return ret;
}

static void set_free(struct q2_overlap_set *o)
{
    if (o) {
        if (atomic_load_explicit(&o->inactive_known, memory_order_relaxed)) {
            q2_cluster_set_fini(&o->inactive_l2);
        }
        q2_cluster_set_fini(&o->set);
        free(o->inactive_l1);
        free(o);
    }
}

int q2_overlap_init(struct qcow2 *s)
{
    struct q2_overlap_set *o = calloc(1, sizeof(*o));
    int ret;

    if (!o) {
        return -ENOMEM;
    }
    co_mutex_init(&o->inactive_lock);
    ret = q2_cluster_set_init(&o->set, bdrv_budget(s->bs), expected_clusters(s));
    if (ret == 0) {
        ret = load_inactive_l1(s, o);
    }
    if (ret == 0) {
        ret = fill_from_header(s, o);
    }
    if (ret == 0) {
        ret = fill_from_tables(s, o);
    }
    if (ret < 0) {
        set_free(o);
        return ret;
    }
    set_free(s->overlap);
    s->overlap = o;
    return 0;
}

void q2_overlap_renew(struct qcow2 *s)
{
    if (q2_overlap_init(s) < 0) {
        s->overlap->outdated = true;
    }
}

void q2_overlap_try_again(struct qcow2 *s)
{
    if (s->overlap != NULL && s->overlap->outdated) {
        q2_overlap_renew(s);
    }
}

void q2_overlap_fini(struct qcow2 *s)
{
    set_free(s->overlap);
    s->overlap = NULL;
}
