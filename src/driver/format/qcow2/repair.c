/* SPDX-License-Identifier: MIT */
/*
 * New refcount structures from the references that a check counted, and the repair of an image that
 * was not closed (dirty bit).
 *
 * The new blocks and the new table take clusters that nothing refers to: first the blocks, in the
 * order of what they count, then the table, each at the first place that is free. The old
 * structures count as referred to, so they are not written over: a cut of power leaves either.
 */
#include <errno.h>
#include <stdlib.h>

#include "util/error.h"

#include "check.h"
#include "check_int.h"
#include "overlap.h"
#include "refcount_int.h"
#include "reftable_switch.h"
#include "tree.h"

struct rebuild {
    struct q2_check *c;
    uint64_t *blocks; /* owned; offsets by index; 0: none */
    uint64_t entries; /* room */
    uint64_t used;    /* index of the last block + 1 */
    uint64_t cursor;  /* no free cluster below */
    uint64_t table_first;
    uint64_t table_clusters;
};

static bool is_free(struct rebuild *r, uint64_t cluster)
{
    const struct qcow2 *s = r->c->s;

    return q2_refmap_get(&r->c->refs, cluster) == 0 &&
           q2_overlap_find(s, Q2_OL_CACHED, cluster << s->geo.cluster_bits, s->geo.cluster_bytes) ==
               0;
}

/* The first count free clusters in a row from first on. */
static uint64_t find_run(struct rebuild *r, uint64_t first, uint64_t count)
{
    uint64_t run = 0;

    while (run < count) {
        if (is_free(r, first + run)) {
            run++;
        } else {
            first += run + 1;
            run = 0;
        }
    }
    return first;
}

static int room_for(struct rebuild *r, uint64_t index)
{
    uint64_t entries = max_u64(r->entries * 2, index + 64);
    uint64_t *blocks;

    if (index < r->entries) {
        return 0;
    }
    if (index >= Q2_REFTABLE_BYTES_MAX / sizeof(uint64_t)) {
        return -EFBIG;
    }
    blocks = realloc(r->blocks, entries * sizeof(uint64_t));
    if (!blocks) {
        return -ENOMEM;
    }
    memset(blocks + r->entries, 0, (entries - r->entries) * sizeof(uint64_t));
    r->blocks = blocks;
    r->entries = entries;
    return 0;
}

/* A place for block index; it is referred to from now on. */
static int place_block(struct rebuild *r, uint64_t index)
{
    const struct q2_geometry *geo = &r->c->s->geo;
    int ret = room_for(r, index);

    if (ret == 0) {
        r->cursor = find_run(r, r->cursor, 1);
        r->blocks[index] = r->cursor << geo->cluster_bits;
        r->used = max_u64(r->used, index + 1);
        ret = q2_refmap_add(&r->c->refs, r->cursor, 1);
    }
    return ret;
}

/* Blocks for all that is referred to, the blocks themselves included. */
static int place_blocks(struct rebuild *r)
{
    const struct q2_geometry *geo = &r->c->s->geo;
    bool again = true;
    int ret = 0;

    while (ret == 0 && again) {
        uint64_t cluster = 0;

        again = false;
        while (ret == 0 && (ret = q2_refmap_next(&r->c->refs, cluster, &cluster)) == 0) {
            uint64_t index = cluster >> geo->refblock_bits;

            if (index >= r->entries || r->blocks[index] == 0) {
                ret = place_block(r, index);
                again = true;
            }
            cluster = (index + 1) << geo->refblock_bits;
        }
        ret = ret == -ENOENT ? 0 : ret;
    }
    return ret;
}

/* A place for the table. Its own clusters may ask for further blocks: there is room for those. */
static int place_table(struct rebuild *r)
{
    const struct q2_geometry *geo = &r->c->s->geo;
    uint64_t per_cluster = geo->cluster_bytes / sizeof(uint64_t);
    uint64_t count = (r->used + per_cluster - 1) / per_cluster;
    int ret = 0;

    for (;;) {
        uint64_t first = find_run(r, r->cursor, count);
        uint64_t end = max_u64(first + count, r->used << geo->refblock_bits);
        bool counted = true; /* by blocks that are there */
        uint64_t more;

        for (uint64_t i = first >> geo->refblock_bits;
             i <= (first + count - 1) >> geo->refblock_bits; i++) {
            counted = counted && i < r->used && r->blocks[i] != 0;
        }
        end += (count >> geo->refblock_bits) + 3; /* as many blocks more at the most */
        more = counted ? r->used : (end >> geo->refblock_bits) + 1;
        if ((more + per_cluster - 1) / per_cluster <= count) {
            r->table_first = first;
            r->table_clusters = count;
            break;
        }
        count = (more + per_cluster - 1) / per_cluster;
        if (count << geo->cluster_bits > Q2_REFTABLE_BYTES_MAX) {
            return -EFBIG;
        }
    }
    for (uint64_t i = 0; ret == 0 && i < r->table_clusters; i++) {
        ret = q2_refmap_add(&r->c->refs, r->table_first + i, 1);
    }
    return ret == 0 ? place_blocks(r) : ret;
}

static int write_block_co(struct rebuild *r, uint64_t index, uint8_t *buf)
{
    const struct qcow2 *s = r->c->s;
    uint64_t first = index << s->geo.refblock_bits;
    uint64_t cluster = first;
    int ret;

    memset(buf, 0, s->geo.cluster_bytes);
    while ((ret = q2_refmap_next(&r->c->refs, cluster, &cluster)) == 0 &&
           cluster < first + s->geo.refblock_entries) {
        q2_refbits_set(buf, s->geo.refcount_order, cluster - first,
                       q2_refmap_get(&r->c->refs, cluster));
        cluster++;
    }
    return ret == -ENOMEM
               ? ret
               : bdrv_edge_write_co(s->file, r->blocks[index], buf, s->geo.cluster_bytes, 0);
}

static int switch_co(struct rebuild *r)
{
    struct qcow2 *s = r->c->s;
    struct q2_reftable t;
    int ret =
        q2_reftable_init(s, r->table_clusters * (s->geo.cluster_bytes / sizeof(uint64_t)), &t);

    if (ret < 0) {
        return ret;
    }
    memcpy(t.table, r->blocks, min_u64(r->used, t.entries) * sizeof(uint64_t));
    t.offset = r->table_first << s->geo.cluster_bits;
    co_mutex_lock(&s->refs.lock);
    ret = q2_reftable_switch_co(s, &t);
    q2_refblocks_drop_all(s);
    co_mutex_unlock(&s->refs.lock);
    q2_reftable_fini(s, &t);
    return ret;
}

static int rebuild_co(struct rebuild *r)
{
    struct qcow2 *s = r->c->s;
    uint8_t *buf = bdrv_buffer_alloc(s->bs, s->geo.cluster_bytes);
    int ret = buf ? place_blocks(r) : -ENOMEM;

    if (ret == 0) {
        ret = place_table(r);
    }
    for (uint64_t i = 0; ret == 0 && i < r->used; i++) {
        if (r->blocks[i] != 0) {
            ret = write_block_co(r, i, buf);
            q2_check_step(r->c);
        }
    }
    bdrv_buffer_free(s->bs, buf, s->geo.cluster_bytes);
    if (ret == 0) {
        ret = switch_co(r);
    }
    return ret == 0 ? q2_overlap_init(s) : ret;
}

int q2_rebuild_co(struct q2_check *c, Error **errp)
{
    struct rebuild r = {.c = c};
    int ret = rebuild_co(&r);

    free(r.blocks);
    return ret < 0 ? error_set_errno(errp, -ret, "cannot build the refcount structures anew") : 0;
}

int q2_mend_co(struct qcow2 *s, Error **errp)
{
    int ret;

    if (!s->stale) {
        return 0;
    }
    ret = q2_settle_co(s, errp);
    if (ret == 0) {
        q2_overlap_renew(s);
        ret = q2_repair_dirty_co(s, errp);
    }
    s->stale = ret < 0;
    return ret;
}

int q2_repair_dirty_co(struct qcow2 *s, Error **errp)
{
    struct bdrv_check_options options = {.size = sizeof(options),
                                         .fix = BDRV_FIX_LEAKS | BDRV_FIX_ERRORS};
    struct bdrv_check_result result;
    int ret = q2_check_co(s, &options, &result, errp);

    if (ret < 0) {
        error_prepend(errp, "cannot repair the image, which was not closed: ");
        return ret;
    }
    if (result.corruptions > 0 || result.check_errors > 0) {
        return error_set(errp, EIO, "cannot repair the image, which was not closed: it is corrupt");
    }
    return 0;
}
