/* SPDX-License-Identifier: MIT */
/*
 * A refcount table that has become too small. The larger one is made in an area of its own: it
 * begins where the clusters of the next block begin, first the blocks that count it, then the
 * table.
 *
 * Order (W2, W6): all blocks in memory and those of the area are written; flush; the new table;
 * flush; the header. Only then is the old table free, and at once: nothing but the header referred
 * to it. Under s->refs.lock all the while.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "util/budget.h"

#include "overlap.h"
#include "refcount_int.h"

void q2_reftable_grown(const struct q2_geometry *geo, uint64_t first_block, uint64_t *ret_blocks,
                       uint64_t *ret_clusters)
{
    uint64_t per_cluster = geo->cluster_bytes / sizeof(uint64_t);
    uint64_t blocks = 0, clusters = 0, before;

    /* Observed: the table is half as large again as the entries up to the area's end, and the area
     * has blocks for as many clusters as there were blocks before it, and for itself. */
    do {
        before = blocks + clusters;
        blocks = (first_block + before + geo->refblock_entries - 1) / geo->refblock_entries;
        clusters = ((first_block + blocks) * 3 + 1) / 2;
        clusters = (clusters + per_cluster - 1) / per_cluster;
    } while (blocks + clusters != before);
    *ret_blocks = blocks;
    *ret_clusters = clusters;
}

struct growth {
    uint64_t first_block;   /* index of the area's first block */
    uint64_t first_cluster; /* of the area */
    uint64_t blocks;
    uint64_t clusters; /* of the table, behind the blocks */
    uint64_t *table;   /* owned */
    uint64_t entries;
};

static int write_area_blocks_co(struct qcow2 *s, const struct growth *g)
{
    uint64_t used = g->blocks + g->clusters;
    uint8_t *buf = bdrv_buffer_alloc(s->bs, s->geo.cluster_bytes);
    int ret = buf ? 0 : -ENOMEM;

    for (uint64_t b = 0; ret == 0 && b < g->blocks; b++) {
        uint64_t n = used - min_u64(used, b * s->geo.refblock_entries);

        memset(buf, 0, s->geo.cluster_bytes);
        for (uint64_t i = 0; i < min_u64(n, s->geo.refblock_entries); i++) {
            q2_refbits_set(buf, s->geo.refcount_order, i, 1);
        }
        bdrv_debug_event(s->file, BLKDBG_REFBLOCK_ALLOC_WRITE_BLOCKS);
        ret = bdrv_edge_write_co(s->file, (g->first_cluster + b) << s->geo.cluster_bits, buf,
                                 s->geo.cluster_bytes, 0);
    }
    bdrv_buffer_free(s->bs, buf, s->geo.cluster_bytes);
    return ret;
}

static int write_new_table_co(struct qcow2 *s, const struct growth *g)
{
    uint8_t *buf = bdrv_buffer_alloc(s->bs, s->geo.cluster_bytes);
    uint64_t per_cluster = s->geo.cluster_bytes / sizeof(uint64_t);
    int ret = buf ? 0 : -ENOMEM;

    for (uint64_t c = 0; ret == 0 && c < g->clusters; c++) {
        for (uint64_t i = 0; i < per_cluster; i++) {
            store_be64(buf + i * sizeof(uint64_t), g->table[c * per_cluster + i]);
        }
        bdrv_debug_event(s->file, BLKDBG_REFBLOCK_ALLOC_WRITE_TABLE);
        ret = bdrv_edge_write_co(s->file, (g->first_cluster + g->blocks + c) << s->geo.cluster_bits,
                                 buf, s->geo.cluster_bytes, 0);
    }
    bdrv_buffer_free(s->bs, buf, s->geo.cluster_bytes);
    return ret;
}

static void set_header_place(struct qcow2 *s, uint64_t offset, uint32_t clusters)
{
    co_mutex_lock(&s->header_lock);
    s->header.reftable_offset = offset;
    s->header.reftable_clusters = clusters;
    co_mutex_unlock(&s->header_lock);
}

int q2_reftable_settle_co(struct qcow2 *s)
{
    int ret = s->refs.header_unsure ? q2_header_write_co(s, NULL) : 0;

    if (ret == 0) {
        s->refs.header_unsure = false;
    }
    return ret;
}

/* Write the area and switch to it. */
static int switch_table_co(struct qcow2 *s, const struct growth *g)
{
    uint64_t old_offset = s->header.reftable_offset;
    uint32_t old_clusters = s->header.reftable_clusters;
    int ret = write_area_blocks_co(s, g);

    if (ret == 0) {
        ret = q2_refblocks_write_co(s);
    }
    if (ret == 0) {
        ret = bdrv_edge_flush_co(s->file);
    }
    if (ret == 0) {
        bdrv_debug_event(s->file, BLKDBG_REFBLOCK_ALLOC_HOOKUP);
        ret = write_new_table_co(s, g);
    }
    if (ret == 0) {
        ret = bdrv_edge_flush_co(s->file);
    }
    if (ret < 0) {
        return ret;
    }
    bdrv_debug_event(s->file, BLKDBG_REFBLOCK_ALLOC_SWITCH_TABLE);
    set_header_place(s, (g->first_cluster + g->blocks) << s->geo.cluster_bits,
                     (uint32_t)g->clusters);
    ret = q2_header_write_co(s, NULL);
    if (ret < 0) {
        set_header_place(s, old_offset, old_clusters);
        s->refs.header_unsure = true;
        (void)q2_reftable_settle_co(s);
    }
    return ret;
}

static void protect_area(struct qcow2 *s, const struct growth *g, bool on, int *ret)
{
    for (uint64_t i = 0; i < g->blocks + g->clusters; i++) {
        enum q2_overlap kind = i < g->blocks ? Q2_OL_REFCOUNT_BLOCK : Q2_OL_REFCOUNT_TABLE;
        uint64_t offset = (g->first_cluster + i) << s->geo.cluster_bits;

        if (!on) {
            q2_overlap_del(s, kind, offset);
        } else if (*ret == 0) {
            *ret = q2_overlap_add(s, kind, offset);
        }
    }
}

int q2_reftable_grow_co(struct qcow2 *s, uint64_t index, uint64_t offset)
{
    struct q2_refcounts *refs = &s->refs;
    uint64_t old_first = s->header.reftable_offset >> s->geo.cluster_bits;
    uint32_t old_clusters = s->header.reftable_clusters;
    struct growth g = {.first_block =
                           max_u64(index, q2_refblock_index(s, offset >> s->geo.cluster_bits)) + 1};
    uint64_t bytes;
    int ret;

    bdrv_debug_event(s->file, BLKDBG_REFTABLE_GROW);
    q2_reftable_grown(&s->geo, g.first_block, &g.blocks, &g.clusters);
    g.first_cluster = g.first_block << s->geo.refblock_bits;
    bytes = g.clusters << s->geo.cluster_bits;
    g.entries = bytes / sizeof(uint64_t);
    if (bytes > Q2_REFTABLE_BYTES_MAX) {
        return -EFBIG;
    }
    ret = q2_refcounts_check_free_co(s, g.first_cluster, g.blocks + g.clusters);
    if (ret < 0) {
        return ret;
    }
    if (!mem_budget_take(bdrv_budget(s->bs), bytes)) {
        return -ENOMEM;
    }
    g.table = calloc(g.entries, sizeof(uint64_t));
    if (!g.table) {
        mem_budget_give(bdrv_budget(s->bs), bytes);
        return -ENOMEM;
    }
    memcpy(g.table, refs->table, refs->table_entries * sizeof(uint64_t));
    g.table[index] = offset;
    for (uint64_t i = 0; i < g.blocks; i++) {
        g.table[g.first_block + i] = (g.first_cluster + i) << s->geo.cluster_bits;
    }
    protect_area(s, &g, true, &ret);
    if (ret == 0) {
        ret = switch_table_co(s, &g);
    }
    if (ret < 0) {
        protect_area(s, &g, false, &ret);
        mem_budget_give(bdrv_budget(s->bs), bytes);
        free(g.table);
        return ret;
    }
    q2_refcounts_take_table(s, &g.table, g.entries);
    for (uint32_t i = 0; i < old_clusters; i++) {
        q2_overlap_del(s, Q2_OL_REFCOUNT_TABLE, (old_first + i) << s->geo.cluster_bits);
    }
    (void)q2_refcounts_lower_co(s, old_first, old_clusters); /* at the worst it leaks */
    return 0;
}
