/* SPDX-License-Identifier: MIT */
/*
 * The cache of refcount blocks. A block is one cluster, found by its offset in a table of chains,
 * least recently used first in a list. What is changed stays here until the commit writes it or the
 * room is needed: by W4 a block may be written at any time, so making room takes no flush.
 *
 * All under s->refs.lock, which is held over the I/O: one block is read once.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "util/budget.h"

#include "overlap.h"
#include "refcount_int.h"

#define HASH_MAX 65536
#define WRITE_GRAIN_BYTES 4096 /* of the dirty part of a block */

static struct q2_refblock **bucket(struct qcow2 *s, uint64_t offset)
{
    uint64_t h = (offset >> s->geo.cluster_bits) * UINT64_C(0x9e3779b97f4a7c15);

    return &s->refs.hash[(h >> 40) & s->refs.hash_mask];
}

static struct q2_refblock *find(struct qcow2 *s, uint64_t offset)
{
    struct q2_refblock *b = *bucket(s, offset);

    while (b && b->offset != offset) {
        b = b->hash_next;
    }
    return b;
}

static void clean(struct qcow2 *s, struct q2_refblock *b)
{
    if (b->dirty) {
        b->dirty = false;
        s->refs.dirty_count--;
    }
}

static int write_block_co(struct qcow2 *s, struct q2_refblock *b)
{
    uint64_t grain = min_u64(WRITE_GRAIN_BYTES, s->geo.cluster_bytes);
    uint64_t from = align_down(b->dirty_from, grain);
    uint64_t to = align_up(b->dirty_to, grain);
    int ret = q2_overlap_check_co(s, Q2_OL_REFCOUNT_BLOCK, b->offset + from, to - from);

    if (ret == 0) {
        bdrv_debug_event(s->file, BLKDBG_REFBLOCK_UPDATE_PART);
        ret = bdrv_edge_write_co(s->file, b->offset + from, b->data + from, to - from, 0);
    }
    if (ret == 0) {
        clean(s, b);
    }
    return ret;
}

static void unlink_block(struct qcow2 *s, struct q2_refblock *b)
{
    struct q2_refblock **at = bucket(s, b->offset);

    while (*at != b) {
        at = &(*at)->hash_next;
    }
    *at = b->hash_next;
    TAILQ_REMOVE(&s->refs.blocks, b, lru);
    s->refs.count--;
}

/* A block that is nobody's, its content undefined. */
static int take_co(struct qcow2 *s, struct q2_refblock **ret)
{
    struct q2_refblock *b;
    int rc;

    if (s->refs.count < s->refs.count_max) {
        b = calloc(1, sizeof(*b));
        if (b) {
            b->data = bdrv_buffer_alloc(s->bs, s->geo.cluster_bytes);
            if (b->data) {
                *ret = b;
                return 0;
            }
            free(b);
        }
        if (s->refs.count < Q2_REFBLOCKS_MIN) {
            return -ENOMEM;
        }
    }
    b = TAILQ_FIRST(&s->refs.blocks);
    if (b->dirty) {
        rc = write_block_co(s, b);
        if (rc < 0) {
            return rc;
        }
    }
    unlink_block(s, b);
    *ret = b;
    return 0;
}

static void enter(struct qcow2 *s, struct q2_refblock *b, uint64_t offset)
{
    struct q2_refblock **head = bucket(s, offset);

    b->offset = offset;
    b->dirty = false;
    b->hash_next = *head;
    *head = b;
    TAILQ_INSERT_TAIL(&s->refs.blocks, b, lru);
    s->refs.count++;
}

static void free_block(struct qcow2 *s, struct q2_refblock *b)
{
    bdrv_buffer_free(s->bs, b->data, s->geo.cluster_bytes);
    free(b);
}

/* Whether entry of the table is a place where a block can be. */
static int check_entry_co(struct qcow2 *s, uint64_t index, uint64_t entry)
{
    int64_t file_bytes;

    if (!is_aligned(entry, s->geo.cluster_bytes)) {
        return q2_corrupt_co(
            s, true, entry, s->geo.cluster_bytes,
            "Refblock offset %#" PRIx64 " unaligned (reftable index: %#" PRIx64 ")", entry, index);
    }
    file_bytes = bdrv_edge_getlength(s->file);
    if (file_bytes < 0) {
        return (int)file_bytes;
    }
    if (!range_inside(entry, s->geo.cluster_bytes, (uint64_t)file_bytes)) {
        return q2_corrupt_co(s, true, entry, s->geo.cluster_bytes,
                             "Refblock offset %#" PRIx64
                             " is outside of the image (reftable index: %#" PRIx64 ")",
                             entry, index);
    }
    return 0;
}

int q2_refblock_get_co(struct qcow2 *s, uint64_t index, struct q2_refblock **ret)
{
    uint64_t entry = index < s->refs.table_entries ? s->refs.table[index] : 0;
    struct q2_refblock *b;
    int rc;

    if (entry == 0) {
        *ret = NULL;
        return 0;
    }
    b = find(s, entry);
    if (b) {
        TAILQ_REMOVE(&s->refs.blocks, b, lru);
        TAILQ_INSERT_TAIL(&s->refs.blocks, b, lru);
        *ret = b;
        return 0;
    }
    rc = check_entry_co(s, index, entry);
    if (rc < 0) {
        return rc;
    }
    rc = take_co(s, &b);
    if (rc < 0) {
        return rc;
    }
    bdrv_debug_event(s->file, BLKDBG_REFBLOCK_LOAD);
    rc = bdrv_edge_read_co(s->file, entry, b->data, s->geo.cluster_bytes);
    if (rc < 0) {
        free_block(s, b);
        return rc;
    }
    enter(s, b, entry);
    *ret = b;
    return 0;
}

int q2_refblock_new_co(struct qcow2 *s, uint64_t offset, struct q2_refblock **ret)
{
    struct q2_refblock *b = find(s, offset);
    int rc = 0;

    if (b) { /* it was a block before, and its cluster was freed */
        unlink_block(s, b);
        clean(s, b);
    } else {
        rc = take_co(s, &b);
    }
    if (rc < 0) {
        return rc;
    }
    bdrv_debug_event(s->file, BLKDBG_REFBLOCK_ALLOC_WRITE);
    memset(b->data, 0, s->geo.cluster_bytes);
    enter(s, b, offset);
    q2_refblock_dirtied(s, b, 0, s->geo.refblock_entries);
    *ret = b;
    return 0;
}

void q2_refblock_drop(struct qcow2 *s, struct q2_refblock *b)
{
    clean(s, b);
    unlink_block(s, b);
    free_block(s, b);
}

void q2_refblock_dirtied(struct qcow2 *s, struct q2_refblock *b, uint64_t first, uint64_t count)
{
    uint32_t from = (uint32_t)((first << s->geo.refcount_order) / 8);
    uint32_t to = (uint32_t)((((first + count) << s->geo.refcount_order) + 7) / 8);

    if (!b->dirty) {
        b->dirty = true;
        b->dirty_from = from;
        b->dirty_to = to;
        s->refs.dirty_count++;
        q2_refcounts_tell_dirty(s);
        return;
    }
    b->dirty_from = from < b->dirty_from ? from : b->dirty_from;
    b->dirty_to = to > b->dirty_to ? to : b->dirty_to;
}

int q2_refblocks_write_co(struct qcow2 *s)
{
    struct q2_refblock *b;
    int ret = 0;

    TAILQ_FOREACH (b, &s->refs.blocks, lru) {
        if (b->dirty) {
            int rc = write_block_co(s, b);

            ret = ret < 0 ? ret : rc;
        }
    }
    return ret;
}

void q2_refblocks_drop_all(struct qcow2 *s)
{
    struct q2_refblock *b;

    while ((b = TAILQ_FIRST(&s->refs.blocks)) != NULL) {
        q2_refblock_drop(s, b);
    }
}

static uint32_t blocks_wanted(const struct qcow2 *s)
{
    uint64_t count = s->opt.refcount_cache_bytes >> s->geo.cluster_bits;

    return (uint32_t)max_u64(Q2_REFBLOCKS_MIN, min_u64(count, UINT32_MAX));
}

void q2_refblocks_resize(struct qcow2 *s)
{
    struct q2_refcounts *refs = &s->refs;
    struct q2_refblock *b = TAILQ_FIRST(&refs->blocks);

    refs->count_max = blocks_wanted(s);
    while (b != NULL && refs->count > refs->count_max) {
        struct q2_refblock *next = TAILQ_NEXT(b, lru);

        if (!b->dirty) {
            q2_refblock_drop(s, b);
        }
        b = next;
    }
}

int q2_refblocks_init(struct qcow2 *s)
{
    struct q2_refcounts *refs = &s->refs;
    uint64_t buckets = Q2_REFBLOCKS_MIN;

    refs->count_max = blocks_wanted(s);
    while (buckets < refs->count_max && buckets < HASH_MAX) {
        buckets *= 2;
    }
    TAILQ_INIT(&refs->blocks);
    refs->hash = NULL;
    if (mem_budget_take(bdrv_budget(s->bs), buckets * sizeof(struct q2_refblock *))) {
        refs->hash = calloc(buckets, sizeof(struct q2_refblock *));
        if (!refs->hash) {
            mem_budget_give(bdrv_budget(s->bs), buckets * sizeof(struct q2_refblock *));
        }
    }
    refs->hash_mask = (uint32_t)buckets - 1;
    return refs->hash ? 0 : -ENOMEM;
}

void q2_refblocks_fini(struct qcow2 *s)
{
    struct q2_refcounts *refs = &s->refs;

    if (!refs->hash) {
        return;
    }
    q2_refblocks_drop_all(s);
    mem_budget_give(bdrv_budget(s->bs), (refs->hash_mask + 1) * sizeof(struct q2_refblock *));
    free(refs->hash);
    refs->hash = NULL;
}
