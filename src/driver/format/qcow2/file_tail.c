/* SPDX-License-Identifier: MIT */
/*
 * Giving back the end of the image file: refcount blocks that count nothing but themselves go, then
 * the file is cut behind the last cluster in use. Only space is at stake: what fails is left as it
 * is.
 *
 * Order: the table without a block is durable before the block's cluster counts as free (W4), and
 * both before the file is cut.
 */
#include <errno.h>

#include "overlap.h"
#include "refcount_int.h"
#include "resize.h"
#include "tree.h"

#define BATCH 64

/* Whether block b, whose own cluster is own, counts nothing else. */
static bool counts_nothing(const struct qcow2 *s, uint64_t index, const struct q2_refblock *b)
{
    uint64_t own = b->offset >> s->geo.cluster_bits;
    uint64_t n = s->geo.refblock_entries;
    uint64_t at = q2_refbits_find(b->data, s->geo.refcount_order, 0, n, false);

    if (at < n && q2_refblock_index(s, own) == index && at == (own & (n - 1)) &&
        q2_refbits_get(b->data, s->geo.refcount_order, at) == 1) {
        at = q2_refbits_find(b->data, s->geo.refcount_order, at + 1, n, false);
    }
    return at == n;
}

void q2_reftable_dirtied(struct q2_refcounts *refs, uint64_t index)
{
    if (refs->table_dirty_from == refs->table_dirty_to) {
        refs->table_dirty_from = index;
        refs->table_dirty_to = index + 1;
        return;
    }
    refs->table_dirty_from = min_u64(refs->table_dirty_from, index);
    refs->table_dirty_to = max_u64(refs->table_dirty_to, index + 1);
}

/* Up to BATCH blocks that may go, from index down, out of the table in memory. */
static int take_empty_blocks(struct qcow2 *s, uint64_t *index, uint64_t *offsets, size_t *ret_count)
{
    struct q2_refcounts *refs = &s->refs;
    int rc = 0;

    *ret_count = 0;
    while (rc == 0 && *index > 0 && *ret_count < BATCH) {
        struct q2_refblock *b;

        --*index;
        rc = q2_refblock_get_co(s, *index, &b);
        if (rc < 0 || b == NULL || !counts_nothing(s, *index, b)) {
            continue;
        }
        offsets[(*ret_count)++] = b->offset;
        refs->free_hint = min_u64(refs->free_hint, b->offset >> s->geo.cluster_bits);
        q2_refblock_drop(s, b);
        refs->table[*index] = 0;
        q2_reftable_dirtied(refs, *index);
    }
    q2_refcounts_tell_dirty(s);
    return rc;
}

/* A block in the range of another one is counted there; the others count as free already. */
static int lower_blocks(struct qcow2 *s, const uint64_t *offsets, size_t count)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < count; i++) {
        uint64_t own = q2_refblock_index(s, offsets[i] >> s->geo.cluster_bits);

        q2_overlap_del(s, Q2_OL_REFCOUNT_BLOCK, offsets[i]);
        if (own < s->refs.table_entries && s->refs.table[own] != 0) {
            rc = q2_refcount_add_co(s, offsets[i], s->geo.cluster_bytes, -1);
        }
    }
    return rc;
}

static int drop_empty_blocks(struct qcow2 *s)
{
    uint64_t index = s->refs.table_entries;
    size_t count;
    int rc;

    do {
        uint64_t offsets[BATCH];

        co_mutex_lock(&s->refs.lock);
        rc = take_empty_blocks(s, &index, offsets, &count);
        co_mutex_unlock(&s->refs.lock);
        if (rc == 0 && count > 0) {
            rc = q2_commit_co(s, true);
        }
        if (rc == 0) {
            rc = lower_blocks(s, offsets, count);
        }
    } while (rc == 0 && count > 0);
    return rc;
}

int q2_file_end_co(struct qcow2 *s, uint64_t *ret_offset)
{
    uint64_t n = s->geo.refblock_entries;
    int rc = 0;

    *ret_offset = 0;
    co_mutex_lock(&s->refs.lock);
    for (uint64_t i = s->refs.table_entries; rc == 0 && i-- > 0 && *ret_offset == 0;) {
        struct q2_refblock *b;

        rc = q2_refblock_get_co(s, i, &b);
        for (uint64_t j = n; rc == 0 && b != NULL && j-- > 0;) {
            if (q2_refbits_get(b->data, s->geo.refcount_order, j) != 0) {
                *ret_offset = (i * n + j + 1) << s->geo.cluster_bits;
                break;
            }
        }
    }
    co_mutex_unlock(&s->refs.lock);
    return rc;
}

void q2_file_trim_co(struct qcow2 *s)
{
    int64_t file_bytes;
    uint64_t end;

    if (drop_empty_blocks(s) < 0 || q2_settle_co(s, NULL) < 0 || q2_file_end_co(s, &end) < 0) {
        return;
    }
    file_bytes = bdrv_edge_getlength(s->file);
    if (end > 0 && file_bytes > 0 && end < (uint64_t)file_bytes) {
        (void)bdrv_edge_truncate_co(s->file, end, false, BDRV_PREALLOC_OFF, 0, NULL);
    }
}
