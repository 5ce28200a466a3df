/* SPDX-License-Identifier: MIT */
/*
 * Refcounts: the table, what a cluster's count is, raising and lowering, and the commit's two
 * steps. Blocks are kept by refblock.c; new clusters, and blocks that are missing, come from
 * refcount_alloc.c.
 *
 * Invariants (all under s->refs.lock):
 *  R1 a count in memory is at least the number of references to its cluster that are, or may become
 *     durable before the next commit ends (W4): raising comes before the reference, lowering after
 *     its end is durable. So the blocks may be written in any order at any time.
 *  R2 the index of a block that was not yet written since it was made is in `fresh`; the table is
 *     written with zero in its place (W2).
 *  R3 no free cluster is below free_hint.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "util/budget.h"
#include "util/error.h"

#include "overlap.h"
#include "refcount_int.h"

#define TABLE_WRITE_BYTES 65536 /* of the table at a time */
#define TABLE_GRAIN_ENTRIES 64  /* 512 bytes: what is torn by a cut of power */
#define ZERO_RANGES 32          /* told by q2_refcount_drop_co at a time */

/* ---- counts ---- */

/* The part of [first, first + count) that one block describes. */
static uint64_t part_of(const struct qcow2 *s, uint64_t first, uint64_t count)
{
    uint64_t in_block = first & (s->geo.refblock_entries - 1);

    return min_u64(count, s->geo.refblock_entries - in_block);
}

static void lower_one(struct qcow2 *s, struct q2_refblock *b, uint64_t cluster)
{
    uint64_t i = cluster & (s->geo.refblock_entries - 1);
    uint64_t value = q2_refbits_get(b->data, s->geo.refcount_order, i);

    if (value == 0) { /* the caller looked; an image that changes under us */
        return;
    }
    q2_refbits_set(b->data, s->geo.refcount_order, i, value - 1);
    if (value == 1) {
        s->refs.free_hint = min_u64(s->refs.free_hint, cluster);
        if (s->refs.packed_end >> s->geo.cluster_bits == cluster) {
            s->refs.packed_end = 0;
        }
    }
}

int q2_refcounts_lower_co(struct qcow2 *s, uint64_t first, uint64_t count)
{
    int ret = 0;

    while (count > 0) {
        uint64_t n = part_of(s, first, count);
        struct q2_refblock *b;
        int rc = q2_refblock_get_co(s, q2_refblock_index(s, first), &b);

        if (rc < 0) {
            ret = rc; /* these leak; go on with the others */
        } else if (b) {
            for (uint64_t i = 0; i < n; i++) {
                lower_one(s, b, first + i);
            }
            q2_refblock_dirtied(s, b, first & (s->geo.refblock_entries - 1), n);
        }
        first += n;
        count -= n;
    }
    return ret;
}

int q2_refcounts_raise_co(struct qcow2 *s, uint64_t first, uint64_t count)
{
    uint64_t start = first;

    while (count > 0) {
        uint64_t n = part_of(s, first, count);
        uint64_t at = first & (s->geo.refblock_entries - 1);
        struct q2_refblock *b;
        int rc = q2_refblock_get_co(s, q2_refblock_index(s, first), &b);

        if (rc == 0 && !b) {
            rc = -EIO;
        }
        if (rc < 0) {
            (void)q2_refcounts_lower_co(s, start, first - start);
            return rc;
        }
        for (uint64_t i = at; i < at + n; i++) {
            uint64_t value = q2_refbits_get(b->data, s->geo.refcount_order, i);

            q2_refbits_set(b->data, s->geo.refcount_order, i, value + 1);
        }
        q2_refblock_dirtied(s, b, at, n);
        first += n;
        count -= n;
    }
    return 0;
}

static int get_locked_co(struct qcow2 *s, uint64_t cluster, uint64_t *ret)
{
    struct q2_refblock *b;
    int rc = q2_refblock_get_co(s, q2_refblock_index(s, cluster), &b);

    if (rc == 0) {
        *ret = b ? q2_refbits_get(b->data, s->geo.refcount_order,
                                  cluster & (s->geo.refblock_entries - 1))
                 : 0;
    }
    return rc;
}

/* All counts of the clusters are in [low, high]: 0; else -EINVAL below, -ERANGE above. */
static int verify_co(struct qcow2 *s, uint64_t first, uint64_t count, uint64_t low, uint64_t high)
{
    while (count > 0) {
        uint64_t n = part_of(s, first, count);
        uint64_t at = first & (s->geo.refblock_entries - 1);
        struct q2_refblock *b;
        int rc = q2_refblock_get_co(s, q2_refblock_index(s, first), &b);

        if (rc < 0) {
            return rc;
        }
        if (!b && low > 0) {
            return -EINVAL;
        }
        for (uint64_t i = at; b && i < at + n; i++) {
            uint64_t value = q2_refbits_get(b->data, s->geo.refcount_order, i);

            if (value < low) {
                return -EINVAL;
            }
            if (value > high) {
                return -ERANGE;
            }
        }
        first += n;
        count -= n;
    }
    return 0;
}

/* The clusters that a range touches. */
static int clusters_of(const struct qcow2 *s, uint64_t offset, uint64_t bytes, uint64_t *ret_first,
                       uint64_t *ret_count)
{
    uint64_t end;

    if (!checked_add(offset, bytes, &end)) {
        return -EINVAL;
    }
    *ret_first = offset >> s->geo.cluster_bits;
    *ret_count = bytes == 0 ? 0 : ((end - 1) >> s->geo.cluster_bits) - *ret_first + 1;
    return 0;
}

int q2_refcount_get_co(struct qcow2 *s, uint64_t cluster, uint64_t *ret)
{
    int rc;

    co_mutex_lock(&s->refs.lock);
    rc = get_locked_co(s, cluster, ret);
    co_mutex_unlock(&s->refs.lock);
    return rc;
}

static int raise_by_one_co(struct qcow2 *s, uint64_t first, uint64_t count)
{
    int ret;

    do {
        ret = q2_refblocks_ensure_co(s, first, count);
    } while (ret == Q2_AGAIN);
    return ret < 0 ? ret : q2_refcounts_raise_co(s, first, count);
}

int q2_refcount_add_co(struct qcow2 *s, uint64_t offset, uint64_t bytes, int delta)
{
    uint64_t by = (uint64_t)llabs(delta);
    uint64_t first, count;
    int ret = clusters_of(s, offset, bytes, &first, &count);

    if (ret < 0 || by > s->geo.refcount_max) {
        return ret < 0 ? ret : delta < 0 ? -EINVAL : -ERANGE;
    }
    co_mutex_lock(&s->refs.lock);
    ret = delta < 0 ? verify_co(s, first, count, by, UINT64_MAX)
                    : verify_co(s, first, count, 0, s->geo.refcount_max - by);
    for (uint64_t done = 0; ret == 0 && done < by; done++) {
        ret = delta < 0 ? q2_refcounts_lower_co(s, first, count) : raise_by_one_co(s, first, count);
        if (ret < 0 && delta > 0) {
            while (done-- > 0) {
                (void)q2_refcounts_lower_co(s, first, count);
            }
            break;
        }
    }
    co_mutex_unlock(&s->refs.lock);
    return ret;
}

/* ---- dropping a reference ---- */

struct zero_ranges {
    unsigned count;
    struct {
        uint64_t first;
        uint64_t count;
    } r[ZERO_RANGES];
};

/* Collect the clusters from *first to end whose count is one, until there is no more room. *first:
 * where it stopped. None of them is packed on: nobody else gets hold of them now. */
static int last_references_co(struct qcow2 *s, uint64_t *first, uint64_t end,
                              struct zero_ranges *ret)
{
    ret->count = 0;
    for (; *first < end; ++*first) {
        uint64_t value;
        int rc = get_locked_co(s, *first, &value);

        if (rc < 0) {
            return rc;
        }
        if (value != 1) {
            continue;
        }
        if (s->refs.packed_end >> s->geo.cluster_bits == *first) {
            s->refs.packed_end = 0;
        }
        if (ret->count > 0 &&
            ret->r[ret->count - 1].first + ret->r[ret->count - 1].count == *first) {
            ret->r[ret->count - 1].count++;
            continue;
        }
        if (ret->count == ZERO_RANGES) {
            return 0;
        }
        ret->r[ret->count].first = *first;
        ret->r[ret->count++].count = 1;
    }
    return 0;
}

int q2_refcount_drop_co(struct qcow2 *s, uint64_t offset, uint64_t bytes,
                        void (*zero)(void *opaque, uint64_t offset, uint64_t bytes), void *opaque)
{
    uint64_t first, count;
    int ret = clusters_of(s, offset, bytes, &first, &count);
    uint64_t end = first + count;

    if (ret < 0) {
        return ret;
    }
    co_mutex_lock(&s->refs.lock);
    ret = verify_co(s, first, count, 1, UINT64_MAX);
    while (ret == 0 && first < end) {
        struct zero_ranges zeroes = {0};
        uint64_t to = end;

        if (zero) {
            to = first;
            ret = last_references_co(s, &to, end, &zeroes);
            if (ret < 0) {
                break;
            }
            co_mutex_unlock(&s->refs.lock);
            for (unsigned i = 0; i < zeroes.count; i++) {
                zero(opaque, zeroes.r[i].first << s->geo.cluster_bits,
                     zeroes.r[i].count << s->geo.cluster_bits);
            }
            co_mutex_lock(&s->refs.lock);
        }
        ret = q2_refcounts_lower_co(s, first, to - first);
        first = to;
    }
    co_mutex_unlock(&s->refs.lock);
    return ret;
}

void q2_unalloc_co(struct qcow2 *s, uint64_t offset, uint64_t bytes)
{
    /* what cannot be lowered leaks */
    (void)q2_refcount_drop_co(s, offset, bytes, NULL, NULL);
}

/* ---- the commit's steps ---- */

void q2_refcounts_tell_dirty(struct qcow2 *s)
{
    struct q2_refcounts *refs = &s->refs;
    bool table = refs->table_dirty_from < refs->table_dirty_to;

    atomic_store_explicit(&refs->table_dirty, table, memory_order_release);
    atomic_store_explicit(&refs->any_dirty, table || refs->dirty_count > 0 || refs->fresh_count > 0,
                          memory_order_release);
}

void q2_refcounts_take_table(struct qcow2 *s, uint64_t **table, uint64_t entries)
{
    struct q2_refcounts *refs = &s->refs;

    mem_budget_give(bdrv_budget(s->bs), refs->table_entries * sizeof(uint64_t));
    free(refs->table);
    refs->table = *table;
    refs->table_entries = entries;
    refs->table_dirty_from = refs->table_dirty_to = 0;
    refs->fresh_count = 0; /* all blocks are durable */
    *table = NULL;
    q2_refcounts_tell_dirty(s);
}

bool q2_refcounts_dirty(const struct qcow2 *s)
{
    return atomic_load_explicit(&s->refs.any_dirty, memory_order_acquire);
}

bool q2_refcounts_table_dirty(const struct qcow2 *s)
{
    return atomic_load_explicit(&s->refs.table_dirty, memory_order_acquire);
}

int q2_refcounts_write_blocks_co(struct qcow2 *s)
{
    struct q2_refcounts *refs = &s->refs;
    int ret;

    co_mutex_lock(&refs->lock);
    ret = q2_refblocks_write_co(s);
    if (ret == 0) {
        for (uint32_t i = 0; i < refs->fresh_count; i++) {
            bool none = refs->table_dirty_from >= refs->table_dirty_to;

            refs->table_dirty_from =
                none ? refs->fresh[i] : min_u64(refs->table_dirty_from, refs->fresh[i]);
            refs->table_dirty_to =
                none ? refs->fresh[i] + 1 : max_u64(refs->table_dirty_to, refs->fresh[i] + 1);
        }
        refs->fresh_count = 0;
    }
    q2_refcounts_tell_dirty(s);
    co_mutex_unlock(&refs->lock);
    return ret;
}

/* Write entries [from, to) of the table through buf. Keeps R2. */
static int write_entries_co(struct qcow2 *s, uint64_t from, uint64_t to, uint8_t *buf)
{
    const struct q2_refcounts *refs = &s->refs;
    uint64_t offset = s->header.reftable_offset + from * sizeof(uint64_t);
    size_t bytes = (to - from) * sizeof(uint64_t);
    int ret;

    for (uint64_t i = from; i < to; i++) {
        store_be64(buf + (i - from) * sizeof(uint64_t), refs->table[i]);
    }
    for (uint32_t i = 0; i < refs->fresh_count; i++) {
        if (refs->fresh[i] >= from && refs->fresh[i] < to) {
            store_be64(buf + (refs->fresh[i] - from) * sizeof(uint64_t), 0);
        }
    }
    ret = q2_overlap_check_co(s, Q2_OL_REFCOUNT_TABLE, offset, bytes);
    if (ret < 0) {
        return ret;
    }
    bdrv_debug_event(s->file, BLKDBG_REFBLOCK_ALLOC_HOOKUP);
    return bdrv_edge_write_co(s->file, offset, buf, bytes, 0);
}

static int write_table_locked_co(struct qcow2 *s)
{
    struct q2_refcounts *refs = &s->refs;
    uint64_t from = align_down(refs->table_dirty_from, TABLE_GRAIN_ENTRIES);
    uint64_t to = align_up(refs->table_dirty_to, TABLE_GRAIN_ENTRIES);
    size_t room = min_u64(TABLE_WRITE_BYTES, (to - from) * sizeof(uint64_t));
    uint8_t *buf;
    int ret = 0;

    if (refs->table_dirty_from >= refs->table_dirty_to) {
        return 0;
    }
    buf = bdrv_buffer_alloc(s->bs, room);
    if (!buf) {
        return -ENOMEM;
    }
    while (ret == 0 && from < to) {
        uint64_t n = min_u64(to - from, room / sizeof(uint64_t));

        ret = write_entries_co(s, from, from + n, buf);
        from += n;
    }
    if (ret == 0) {
        refs->table_dirty_from = refs->table_dirty_to = 0;
    }
    bdrv_buffer_free(s->bs, buf, room);
    return ret;
}

int q2_refcounts_write_table_co(struct qcow2 *s)
{
    int ret;

    co_mutex_lock(&s->refs.lock);
    ret = write_table_locked_co(s);
    q2_refcounts_tell_dirty(s);
    co_mutex_unlock(&s->refs.lock);
    return ret;
}

/* ---- begin and end ---- */

int q2_refcounts_load(struct qcow2 *s, Error **errp)
{
    struct q2_refcounts *refs = &s->refs;
    size_t bytes = (size_t)s->header.reftable_clusters << s->geo.cluster_bits;
    int ret;

    assert(bytes <= Q2_REFTABLE_BYTES_MAX); /* q2_header_parse */
    *refs = (struct q2_refcounts){.table_entries = bytes / sizeof(uint64_t)};
    co_mutex_init(&refs->lock);
    ret = q2_refblocks_init(s);
    if (ret == 0 && !mem_budget_take(bdrv_budget(s->bs), bytes)) {
        ret = -ENOMEM;
    }
    if (ret == 0) {
        refs->table = malloc(bytes > 0 ? bytes : 1);
        if (!refs->table) {
            mem_budget_give(bdrv_budget(s->bs), bytes);
            ret = -ENOMEM;
        }
    }
    if (ret == 0 && bytes > 0) {
        bdrv_debug_event(s->file, BLKDBG_REFTABLE_LOAD);
        ret = in_coroutine()
                  ? bdrv_edge_read_co(s->file, s->header.reftable_offset, refs->table, bytes)
                  : bdrv_edge_pread(s->file, s->header.reftable_offset, refs->table, bytes);
    }
    if (ret < 0) {
        q2_refcounts_fini(s);
        return error_set_errno(errp, -ret, "Could not read the refcount table");
    }
    for (uint64_t i = 0; i < refs->table_entries; i++) {
        refs->table[i] = be64toh(refs->table[i]);
    }
    return 0;
}

void q2_refcounts_fini(struct qcow2 *s)
{
    struct q2_refcounts *refs = &s->refs;

    q2_refblocks_fini(s);
    if (refs->table) {
        mem_budget_give(bdrv_budget(s->bs), refs->table_entries * sizeof(uint64_t));
        free(refs->table);
        refs->table = NULL;
    }
    free(refs->fresh);
    refs->fresh = NULL;
    refs->table_entries = 0;
}
