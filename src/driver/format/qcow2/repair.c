/* SPDX-License-Identifier: MIT */
/*
 * Refcount structures made anew from the references that a check found, for images whose own are
 * beyond mending. They go behind everything that is in use, so that nothing is written over; the
 * old ones are not counted in them and are free space once the header has switched (W6).
 */
#include <errno.h>

#include "util/error.h"
#include "util/mem.h"

#include "check_int.h"
#include "refcount_int.h"
#include "reftable_switch.h"

struct rebuild {
    struct q2_check *c;
    struct q2_refmap refs; /* without the old structures */
    uint64_t first;        /* cluster where the new ones begin */
    uint64_t blocks;
    struct q2_reftable t;
};

/* References without those of the refcount structures; silently, they were told. */
static int count_again_co(struct rebuild *r)
{
    struct q2_check again = *r->c;
    struct bdrv_check_result ignored = {0};
    int ret;

    again.options = NULL;
    again.res = &ignored;
    again.fix = 0;
    again.snapshots_owned = false;
    q2_refmap_init(&again.refs, r->c->refs.budget);
    ret = q2_check_count_content_co(&again);
    r->refs = again.refs;
    return ret;
}

/* Blocks that count something, among them those that count the new structures themselves. */
static int count_blocks(struct rebuild *r, uint64_t own, uint64_t *ret_blocks)
{
    const struct q2_geometry *geo = &r->c->s->geo;
    uint64_t own_from = r->first >> geo->refblock_bits;
    uint64_t own_to = (r->first + own - 1) >> geo->refblock_bits;
    uint64_t cluster = 0;
    uint64_t n = own_to - own_from + 1;
    int ret;

    while ((ret = q2_refmap_next(&r->refs, cluster, &cluster)) == 0) {
        uint64_t block = cluster >> geo->refblock_bits;

        n += block < own_from || block > own_to;
        cluster = (block + 1) << geo->refblock_bits;
    }
    *ret_blocks = n;
    return ret == -ENOENT ? 0 : ret;
}

/* How large the new structures are: they count themselves. */
static int plan(struct rebuild *r)
{
    struct qcow2 *s = r->c->s;
    uint64_t per_cluster = s->geo.cluster_bytes / sizeof(uint64_t);
    uint64_t own = 2;
    uint64_t entries;
    int ret;

    for (;;) {
        uint64_t wanted;

        entries = ((r->first + own - 1) >> s->geo.refblock_bits) + 1;
        ret = count_blocks(r, own, &r->blocks);
        if (ret < 0) {
            return ret;
        }
        wanted = r->blocks + (entries + per_cluster - 1) / per_cluster;
        if (wanted <= own) {
            break;
        }
        own = wanted;
    }
    ret = q2_reftable_init(s, entries, &r->t);
    r->t.offset = (r->first + r->blocks) << s->geo.cluster_bits;
    return ret;
}

/* 0, or -ERANGE: the count does not fit the width. */
static int fill_block(struct rebuild *r, uint64_t block)
{
    const struct q2_geometry *geo = &r->c->s->geo;
    uint64_t first = block << geo->refblock_bits;
    uint64_t end = first + geo->refblock_entries;
    uint64_t own_end = r->first + r->blocks + r->t.clusters;
    uint64_t cluster = first;

    memset(r->c->table, 0, geo->cluster_bytes);
    for (; q2_refmap_next(&r->refs, cluster, &cluster) == 0 && cluster < end; cluster++) {
        uint64_t refs = q2_refmap_get(&r->refs, cluster);

        if (refs > geo->refcount_max) {
            return -ERANGE;
        }
        q2_refbits_set(r->c->table, geo->refcount_order, cluster - first, refs);
    }
    for (cluster = max_u64(first, r->first); cluster < min_u64(end, own_end); cluster++) {
        q2_refbits_set(r->c->table, geo->refcount_order, cluster - first, 1);
    }
    return 0;
}

static bool block_is_empty(struct rebuild *r)
{
    const uint64_t *words = (const uint64_t *)(const void *)r->c->table;
    size_t n = r->c->s->geo.cluster_bytes / sizeof(uint64_t);

    for (size_t i = 0; i < n; i++) {
        if (words[i] != 0) {
            return false;
        }
    }
    return true;
}

static int write_blocks_co(struct rebuild *r)
{
    struct qcow2 *s = r->c->s;
    uint64_t next = r->first;
    uint64_t entries = ((r->first + r->blocks + r->t.clusters - 1) >> s->geo.refblock_bits) + 1;
    int ret = 0;

    for (uint64_t i = 0; ret == 0 && i < entries; i++) {
        uint64_t offset = next << s->geo.cluster_bits;

        ret = fill_block(r, i);
        if (ret < 0 || block_is_empty(r)) {
            continue;
        }
        r->t.table[i] = offset;
        next++;
        ret = bdrv_edge_write_co(s->file, offset, r->c->table, s->geo.cluster_bytes, 0);
        q2_check_step(r->c);
    }
    return ret;
}

/* The memory of the old structures is of no use any more. */
static int adopt_co(struct rebuild *r)
{
    struct q2_check *c = r->c;
    struct qcow2 *s = c->s;
    int64_t file_bytes = bdrv_edge_getlength(s->file);
    int ret;

    co_mutex_lock(&s->refs.lock);
    q2_refblocks_fini(s);
    ret = q2_refblocks_init(s);
    s->refs.free_hint = 0;
    s->refs.packed_end = 0;
    co_mutex_unlock(&s->refs.lock);
    if (ret == 0) {
        ret = q2_overlap_init(s);
    }
    if (ret < 0 || file_bytes < 0) {
        return ret < 0 ? ret : (int)file_bytes;
    }
    c->file_bytes = (uint64_t)file_bytes;
    c->clusters = max_u64(c->clusters, r->first + r->blocks + r->t.clusters);
    q2_refmap_fini(&c->refs);
    c->refs = r->refs;
    q2_refmap_init(&r->refs, c->refs.budget);
    c->rebuild = false;
    for (uint64_t i = r->first; ret == 0 && i < r->first + r->blocks + r->t.clusters; i++) {
        ret = q2_refmap_add(&c->refs, i, 1);
    }
    return ret;
}

static int rebuild_steps_co(struct rebuild *r)
{
    int ret = count_again_co(r);

    r->first = r->c->clusters; /* behind the file, and all that is in use */
    if (ret == 0) {
        ret = plan(r);
    }
    if (ret == 0) {
        ret = write_blocks_co(r);
    }
    if (ret == 0) {
        co_mutex_lock(&r->c->s->refs.lock);
        ret = q2_reftable_switch_co(r->c->s, &r->t);
        co_mutex_unlock(&r->c->s->refs.lock);
    }
    return ret == 0 ? adopt_co(r) : ret;
}

int q2_rebuild_co(struct q2_check *c, Error **errp)
{
    struct rebuild r = {.c = c};
    int ret;

    q2_refmap_init(&r.refs, c->refs.budget);
    ret = rebuild_steps_co(&r);
    q2_reftable_fini(c->s, &r.t);
    q2_refmap_fini(&r.refs);
    if (ret == -ERANGE) {
        return error_set(errp, ERANGE,
                         "Refcounts of %u bits cannot hold the references that were found",
                         c->s->geo.refcount_bits);
    }
    return ret < 0 ? error_set_errno(errp, -ret, "Cannot rebuild the refcount structures") : 0;
}
