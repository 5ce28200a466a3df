/* SPDX-License-Identifier: MIT */
/*
 * New clusters, and the refcount blocks that they need.
 *
 * The layout is that of the reference. Clusters are taken first fit above the hint. Where a block
 * is missing for clusters that were chosen, one cluster is taken for it right behind them, then the
 * choice is made again. A block that holds the counter of its own cluster counts itself; any other
 * needs the block of its cluster first. When the table is too small for a new block, it grows
 * (reftable_grow.c).
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "overlap.h"
#include "refcount_int.h"

/* What an L1 or L2 entry can express: bits 9-55. */
#define OFFSET_LIMIT (UINT64_C(1) << 56)
#define TAKEN_ALWAYS (Q2_OL_CACHED) /* whatever the option overlap-check says */

static uint64_t clusters_limit(const struct qcow2 *s)
{
    return OFFSET_LIMIT >> s->geo.cluster_bits;
}

/* ---- choosing ---- */

/* How many clusters from first on are free, up to count. */
static int free_run_co(struct qcow2 *s, uint64_t first, uint64_t count, uint64_t *ret)
{
    uint64_t done = 0;

    while (done < count) {
        uint64_t at = (first + done) & (s->geo.refblock_entries - 1);
        uint64_t n = min_u64(count - done, s->geo.refblock_entries - at);
        struct q2_refblock *b;
        int rc = q2_refblock_get_co(s, q2_refblock_index(s, first + done), &b);

        if (rc < 0) {
            return rc;
        }
        if (b) {
            uint64_t used = q2_refbits_find(b->data, s->geo.refcount_order, at, at + n, false) - at;

            if (used < n) {
                *ret = done + used;
                return 0;
            }
        }
        done += n;
    }
    *ret = count;
    return 0;
}

/* The first free cluster from first on. Behind the last block all is free. */
static int next_free_co(struct qcow2 *s, uint64_t first, uint64_t *ret)
{
    for (;;) {
        uint64_t at = first & (s->geo.refblock_entries - 1);
        struct q2_refblock *b;
        uint64_t i;
        int rc = q2_refblock_get_co(s, q2_refblock_index(s, first), &b);

        if (rc < 0) {
            return rc;
        }
        i = b ? q2_refbits_find(b->data, s->geo.refcount_order, at, s->geo.refblock_entries, true)
              : at;
        first += i - at;
        if (i < s->geo.refblock_entries) {
            *ret = first;
            return 0;
        }
    }
}

int q2_refcounts_check_free_co(struct qcow2 *s, uint64_t first, uint64_t count)
{
    unsigned found = q2_overlap_find(s, TAKEN_ALWAYS, first << s->geo.cluster_bits,
                                     count << s->geo.cluster_bits);

    return found == 0 ? 0
                      : q2_overlap_told_co(s, found, first << s->geo.cluster_bits,
                                           count << s->geo.cluster_bits);
}

/* The first count free clusters in a row; the hint goes behind them. */
static int choose_co(struct qcow2 *s, uint64_t count, uint64_t *ret)
{
    uint64_t first = s->refs.free_hint;
    uint64_t run;
    int rc;

    if (count > clusters_limit(s)) {
        return -EFBIG;
    }
    do {
        rc = next_free_co(s, first, &first);
        if (rc == 0 && first > clusters_limit(s) - count) {
            rc = -EFBIG;
        }
        if (rc == 0) {
            rc = free_run_co(s, first, count, &run);
        }
        if (rc < 0) {
            return rc;
        }
        first += run < count ? run : 0;
    } while (run < count);
    rc = q2_refcounts_check_free_co(s, first, count);
    if (rc == 0) {
        s->refs.free_hint = first + count;
        *ret = first;
    }
    return rc;
}

/* ---- missing blocks ---- */

int q2_reserve_cluster_co(struct qcow2 *s, uint64_t offset)
{
    void *zeroes = bdrv_buffer_alloc(s->bs, s->geo.cluster_bytes);
    int ret;

    if (!zeroes) {
        return -ENOMEM;
    }
    memset(zeroes, 0, s->geo.cluster_bytes);
    ret = bdrv_edge_write_co(s->file, offset, zeroes, s->geo.cluster_bytes, 0);
    bdrv_buffer_free(s->bs, zeroes, s->geo.cluster_bytes);
    return ret;
}

/* Room for one more index in refs->fresh. */
static int fresh_reserve(struct q2_refcounts *refs)
{
    if (refs->fresh_count == refs->fresh_max) {
        uint32_t max = refs->fresh_max ? refs->fresh_max * 2 : 8;
        uint64_t *fresh = realloc(refs->fresh, max * sizeof(uint64_t));

        if (!fresh) {
            return -ENOMEM;
        }
        refs->fresh = fresh;
        refs->fresh_max = max;
    }
    return 0;
}

/* Block index enters the table, its content in memory. */
static int enter_table_co(struct qcow2 *s, uint64_t index, uint64_t offset)
{
    struct q2_refcounts *refs = &s->refs;

    if (index >= refs->table_entries) {
        return q2_reftable_grow_co(s, index, offset);
    }
    refs->table[index] = offset;
    refs->fresh[refs->fresh_count++] = index;
    q2_refcounts_tell_dirty(s);
    return 0;
}

static int new_block_at_co(struct qcow2 *s, uint64_t index, uint64_t cluster)
{
    bool own = q2_refblock_index(s, cluster) == index;
    uint64_t offset = cluster << s->geo.cluster_bits;
    struct q2_refblock *b;
    int ret = own ? 0 : q2_refcounts_raise_co(s, cluster, 1);

    if (ret < 0) {
        return ret;
    }
    ret = q2_overlap_add(s, Q2_OL_REFCOUNT_BLOCK, offset);
    if (ret == 0) {
        ret = q2_reserve_cluster_co(s, offset);
        if (ret == 0) {
            ret = q2_refblock_new_co(s, offset, &b);
        }
        if (ret == 0) {
            if (own) {
                q2_refbits_set(b->data, s->geo.refcount_order,
                               cluster & (s->geo.refblock_entries - 1), 1);
            }
            ret = enter_table_co(s, index, offset);
            if (ret < 0) {
                q2_refblock_drop(s, b);
            }
        }
        if (ret < 0) {
            q2_overlap_del(s, Q2_OL_REFCOUNT_BLOCK, offset);
        }
    }
    if (ret < 0 && !own) {
        (void)q2_refcounts_lower_co(s, cluster, 1);
    }
    return ret;
}

/* Make block index. Q2_AGAIN: the block of the cluster for it was made instead. That one counts
 * itself or lies in a block that is there, because behind the first free cluster of a missing block
 * comes another: so this calls itself a few times at the most. */
static int new_block_co(struct qcow2 *s, uint64_t index)
{
    uint64_t cluster;
    int ret = fresh_reserve(&s->refs);

    if (ret == 0) {
        ret = choose_co(s, 1, &cluster);
    }
    if (ret == 0 && q2_refblock_index(s, cluster) != index) {
        ret = q2_refblocks_ensure_co(s, cluster, 1);
    }
    return ret != 0 ? ret : new_block_at_co(s, index, cluster);
}

int q2_refblocks_ensure_co(struct qcow2 *s, uint64_t first, uint64_t count)
{
    uint64_t last = q2_refblock_index(s, first + count - 1);

    bdrv_debug_event(s->file, BLKDBG_REFBLOCK_ALLOC);
    for (uint64_t i = q2_refblock_index(s, first); count > 0 && i <= last; i++) {
        int ret = 0;

        if (i >= s->refs.table_entries || s->refs.table[i] == 0) {
            ret = new_block_co(s, i);
            s->refs.free_hint = min_u64(s->refs.free_hint, first);
            return ret < 0 ? ret : Q2_AGAIN;
        }
    }
    return 0;
}

/* ---- allocating ---- */

static int alloc_locked_co(struct qcow2 *s, uint64_t count, uint64_t *ret_first)
{
    uint64_t first = UINT64_MAX;
    int ret;

    do {
        ret = choose_co(s, count, &first);
        if (ret == 0) {
            ret = q2_refblocks_ensure_co(s, first, count);
        }
    } while (ret == Q2_AGAIN);
    if (ret == 0) {
        ret = q2_refcounts_raise_co(s, first, count);
    }
    if (ret == 0) {
        *ret_first = first;
    } else {
        s->refs.free_hint = min_u64(s->refs.free_hint, first); /* keeps R3 */
    }
    return ret;
}

int q2_alloc_clusters_co(struct qcow2 *s, uint64_t count, uint64_t *ret_offset)
{
    uint64_t first;
    int ret;

    assert(count > 0);
    bdrv_debug_event(s->file, BLKDBG_CLUSTER_ALLOC);
    co_mutex_lock(&s->refs.lock);
    ret = q2_reftable_settle_co(s);
    if (ret == 0) {
        ret = alloc_locked_co(s, count, &first);
    }
    co_mutex_unlock(&s->refs.lock);
    if (ret == 0) {
        *ret_offset = first << s->geo.cluster_bits;
    }
    return ret;
}

static int alloc_at_locked_co(struct qcow2 *s, uint64_t first, uint64_t count, uint64_t *ret_count)
{
    uint64_t run;
    int ret;

    if (first >= clusters_limit(s)) {
        return -EFBIG;
    }
    count = min_u64(count, clusters_limit(s) - first);
    do {
        ret = free_run_co(s, first, count, &run);
        if (ret == 0 && run > 0) {
            ret = q2_refcounts_check_free_co(s, first, run);
        }
        if (ret == 0 && run > 0) {
            ret = q2_refblocks_ensure_co(s, first, run);
        }
    } while (ret == Q2_AGAIN);
    if (ret == 0) {
        ret = q2_refcounts_raise_co(s, first, run);
    }
    if (ret == 0) {
        *ret_count = run;
    }
    return ret;
}

int q2_alloc_at_co(struct qcow2 *s, uint64_t offset, uint64_t count, uint64_t *ret_count)
{
    int ret;

    assert(is_aligned(offset, s->geo.cluster_bytes));
    co_mutex_lock(&s->refs.lock);
    ret = q2_reftable_settle_co(s);
    if (ret == 0) {
        ret = alloc_at_locked_co(s, offset >> s->geo.cluster_bits, count, ret_count);
    }
    co_mutex_unlock(&s->refs.lock);
    return ret;
}

/* ---- compressed data ---- */

/* Where compressed data may go on: *ret_offset 0: nowhere. */
static int packed_place_co(struct qcow2 *s, uint64_t *ret_offset)
{
    uint64_t end = s->refs.packed_end;
    uint64_t cluster = end >> s->geo.cluster_bits;
    struct q2_refblock *b;
    uint64_t value;
    int ret;

    *ret_offset = 0;
    if (end == 0) {
        return 0;
    }
    ret = q2_refblock_get_co(s, q2_refblock_index(s, cluster), &b);
    if (ret < 0 || !b) {
        return ret;
    }
    value = q2_refbits_get(b->data, s->geo.refcount_order, cluster & (s->geo.refblock_entries - 1));
    *ret_offset = value > 0 && value < s->geo.refcount_max ? end : 0;
    return 0;
}

/* Choose a place for bytes: from *ret_offset on; the clusters to raise are [*ret_first, +
 * *ret_count). */
static int choose_packed_co(struct qcow2 *s, uint32_t bytes, uint64_t *ret_offset,
                            uint64_t *ret_first, uint64_t *ret_count)
{
    uint64_t start, fresh;
    int ret = packed_place_co(s, &start);

    if (ret < 0) {
        return ret;
    }
    *ret_first = start >> s->geo.cluster_bits;
    *ret_count = 1;
    if (start != 0 && bytes <= align_up(start, s->geo.cluster_bytes) - start) {
        *ret_offset = start;
        return 0;
    }
    ret = choose_co(s, 1, &fresh);
    if (ret < 0) {
        return ret;
    }
    if (start != 0 && fresh == *ret_first + 1) {
        *ret_count = 2;
    } else {
        *ret_first = fresh;
        start = fresh << s->geo.cluster_bits;
    }
    *ret_offset = start;
    return 0;
}

static int alloc_packed_locked_co(struct qcow2 *s, uint32_t bytes, uint64_t *ret_offset)
{
    uint64_t offset = 0, first = 0, count = 0;
    int ret;

    do {
        ret = choose_packed_co(s, bytes, &offset, &first, &count);
        if (ret == 0 && ((offset + bytes - 1) >> (62 - (s->geo.cluster_bits - 8))) != 0) {
            ret = -EFBIG; /* the entry's field is shorter than that of other clusters */
        }
        if (ret == 0) {
            ret = q2_refblocks_ensure_co(s, first, count);
        }
    } while (ret == Q2_AGAIN);
    if (ret == 0) {
        ret = q2_refcounts_raise_co(s, first, count);
    }
    if (ret == 0) {
        s->refs.packed_end = is_aligned(offset + bytes, s->geo.cluster_bytes) ? 0 : offset + bytes;
        *ret_offset = offset;
    }
    return ret;
}

int q2_alloc_packed_co(struct qcow2 *s, uint32_t bytes, uint64_t *ret_offset)
{
    int ret;

    assert(bytes > 0 && bytes <= s->geo.cluster_bytes);
    bdrv_debug_event(s->file, BLKDBG_CLUSTER_ALLOC_BYTES);
    co_mutex_lock(&s->refs.lock);
    ret = q2_reftable_settle_co(s);
    if (ret == 0) {
        ret = alloc_packed_locked_co(s, bytes, ret_offset);
    }
    co_mutex_unlock(&s->refs.lock);
    return ret;
}
