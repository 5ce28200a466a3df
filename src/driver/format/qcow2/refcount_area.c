/* SPDX-License-Identifier: MIT */
/*
 * Refcount blocks and a table laid out ahead of a large allocation (preallocation=falloc, full), as
 * the reference does: behind the last cluster in use first the blocks that are missing, then a new
 * table of the smallest size, so that the data that follows is in one piece.
 */
#include <errno.h>

#include "overlap.h"
#include "refcount_int.h"
#include "reftable_switch.h"
#include "resize.h"

struct area {
    uint64_t first;  /* cluster */
    uint64_t blocks; /* that are made; the table is behind them */
    uint64_t more;   /* clusters that come behind */
    struct q2_reftable t;
};

/* Missing blocks from that of the area on, among the first blocks_total. Those in front of it count
 * nothing. */
static uint64_t count_missing(const struct qcow2 *s, const struct area *a, uint64_t blocks_total)
{
    uint64_t missing = 0;

    for (uint64_t i = q2_refblock_index(s, a->first); i < blocks_total; i++) {
        missing += i >= s->refs.table_entries || s->refs.table[i] == 0;
    }
    return missing;
}

static uint64_t entries_in_use(const struct qcow2 *s)
{
    uint64_t n = s->refs.table_entries;

    while (n > 0 && s->refs.table[n - 1] == 0) {
        n--;
    }
    return n;
}

/* The area counts itself, so its size is a fixed point. Observed: it is chosen as if no block were
 * there yet and one more cluster came behind, so the last blocks may count nothing at first. */
static int area_init(struct qcow2 *s, struct area *a)
{
    uint64_t used = entries_in_use(s);
    uint64_t per_cluster = s->geo.cluster_bytes / sizeof(uint64_t);
    uint64_t own = 0;
    uint64_t before;
    uint64_t total;

    do {
        uint64_t end = a->first + own + a->more;

        total = (end >> s->geo.refblock_bits) + 1;
        if (total > Q2_REFTABLE_BYTES_MAX / sizeof(uint64_t)) {
            return -EFBIG;
        }
        before = own;
        own = total + (max_u64(total, used) + per_cluster - 1) / per_cluster;
    } while (own != before);
    a->blocks = count_missing(s, a, total);
    return q2_reftable_init(s, max_u64(total, used), &a->t);
}

/* The table's entries; offset of the missing ones in order. */
static void fill_table(struct qcow2 *s, struct area *a)
{
    uint64_t next = a->first;

    for (uint64_t i = 0; i < a->t.entries; i++) {
        uint64_t old = i < s->refs.table_entries ? s->refs.table[i] : 0;

        if (old == 0 && i >= q2_refblock_index(s, a->first) && next < a->first + a->blocks) {
            old = next++ << s->geo.cluster_bits;
        }
        a->t.table[i] = old;
    }
    a->t.offset = (a->first + a->blocks) << s->geo.cluster_bits;
}

static bool is_new(const struct qcow2 *s, uint64_t index)
{
    return index >= s->refs.table_entries || s->refs.table[index] == 0;
}

/* Blocks and table count 1: those that a new block describes are in it from the beginning. */
static int write_blocks(struct qcow2 *s, const struct area *a)
{
    uint64_t end = a->first + a->blocks + a->t.clusters;
    uint8_t *buf = bdrv_buffer_alloc(s->bs, s->geo.cluster_bytes);
    int rc = buf != NULL ? 0 : -ENOMEM;

    for (uint64_t i = 0; rc == 0 && i < a->t.entries; i++) {
        uint64_t from = i << s->geo.refblock_bits;

        if (!is_new(s, i) || a->t.table[i] == 0) {
            continue;
        }
        memset(buf, 0, s->geo.cluster_bytes);
        for (uint64_t c = max_u64(from, a->first); c < min_u64(end, from + s->geo.refblock_entries);
             c++) {
            q2_refbits_set(buf, s->geo.refcount_order, c - from, 1);
        }
        rc = q2_overlap_check_co(s, Q2_OL_REFCOUNT_BLOCK, a->t.table[i], s->geo.cluster_bytes);
        if (rc == 0) {
            rc = bdrv_edge_write_co(s->file, a->t.table[i], buf, s->geo.cluster_bytes, 0);
        }
    }
    bdrv_buffer_free(s->bs, buf, s->geo.cluster_bytes);
    return rc;
}

/* The clusters of the area, as far as blocks that exist describe them, up to the block end_block,
 * are raised or lowered. Returns the block that could not be. */
static uint64_t count_area(struct qcow2 *s, const struct area *a, uint64_t end_block, bool raise,
                           int *ret)
{
    uint64_t end = a->first + a->blocks + a->t.clusters;
    uint64_t i = q2_refblock_index(s, a->first);

    for (*ret = 0; i < end_block; i++) {
        uint64_t from = max_u64(a->first, i << s->geo.refblock_bits);
        uint64_t to = min_u64(end, (i + 1) << s->geo.refblock_bits);

        if (!is_new(s, i) && from < to) {
            *ret = raise ? q2_refcounts_raise_co(s, from, to - from)
                         : q2_refcounts_lower_co(s, from, to - from);
        }
        if (*ret < 0) {
            break;
        }
    }
    return i;
}

static int protect(struct qcow2 *s, const struct area *a)
{
    uint64_t offset = a->first << s->geo.cluster_bits;
    int rc =
        q2_overlap_add_range(s, Q2_OL_REFCOUNT_BLOCK, offset, a->blocks << s->geo.cluster_bits);

    if (rc == 0) {
        rc = q2_overlap_add_range(s, Q2_OL_REFCOUNT_TABLE, a->t.offset,
                                  (uint64_t)a->t.clusters << s->geo.cluster_bits);
        if (rc < 0) {
            q2_overlap_del_range(s, Q2_OL_REFCOUNT_BLOCK, offset, a->blocks << s->geo.cluster_bits);
        }
    }
    return rc;
}

static void unprotect(struct qcow2 *s, const struct area *a)
{
    q2_overlap_del_range(s, Q2_OL_REFCOUNT_BLOCK, a->first << s->geo.cluster_bits,
                         a->blocks << s->geo.cluster_bits);
    q2_overlap_del_range(s, Q2_OL_REFCOUNT_TABLE, a->t.offset,
                         (uint64_t)a->t.clusters << s->geo.cluster_bits);
}

static int make_area(struct qcow2 *s, struct area *a)
{
    int ignored;
    int rc;
    uint64_t counted = count_area(s, a, a->t.entries, true, &rc);

    if (rc == 0) {
        rc = protect(s, a);
        if (rc == 0) {
            rc = write_blocks(s, a);
            rc = rc == 0 ? q2_refblocks_write_co(s) : rc;
            rc = rc == 0 ? q2_reftable_switch_co(s, &a->t) : rc;
            if (rc < 0) {
                unprotect(s, a);
            }
        }
    }
    if (rc < 0 && !s->refs.header_unsure) {
        count_area(s, a, counted, false, &ignored);
    }
    return rc;
}

int q2_refcount_area_co(struct qcow2 *s, uint64_t more, uint64_t *ret_first)
{
    uint64_t old_offset = s->header.reftable_offset;
    uint64_t old_bytes = (uint64_t)s->header.reftable_clusters << s->geo.cluster_bits;
    struct area a = {.more = more};
    uint64_t end;
    int rc = q2_file_end_co(s, &end);

    if (rc < 0) {
        return rc;
    }
    co_mutex_lock(&s->refs.lock);
    a.first = end >> s->geo.cluster_bits;
    rc = q2_reftable_settle_co(s);
    rc = rc == 0 ? area_init(s, &a) : rc;
    if (rc == 0) {
        fill_table(s, &a);
        rc = make_area(s, &a);
    }
    q2_reftable_fini(s, &a.t);
    co_mutex_unlock(&s->refs.lock);
    if (rc == 0) {
        q2_overlap_del_range(s, Q2_OL_REFCOUNT_TABLE, old_offset, old_bytes);
        (void)q2_refcount_add_co(s, old_offset, old_bytes, -1); /* only the header referred to it */
        *ret_first = a.first + a.blocks + a.t.clusters;
    }
    return rc;
}
