/* SPDX-License-Identifier: MIT */
/*
 * Check and repair of an image (check_int.h says how it works). What a repair does, in this order,
 * so that a cut of power leaves no more harm than there was:
 *  C1 impossible room of clusters without data leaves their entries; durable before
 *  C2 refcounts are mended in their blocks. Where that cannot be, new refcount structures are
 *     written beside the old ones and switched to (repair.c); durable before
 *  C3 COPIED flags follow the refcounts;
 *  C4 the snapshot table is stored anew, where that mends it;
 *  C5 bitmaps that the header names and nobody believes leave it, then the marks of a dirty or
 *     corrupt image go, when nothing is wrong any more.
 * Where part of the image cannot be read, nobody knows what it refers to: nothing is repaired then.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "util/error.h"

#include "check.h"
#include "check_int.h"
#include "driver.h"
#include "header.h"
#include "refcount_int.h"
#include "snapshot.h"
#include "tree.h"

#define FINDINGS_MAX 20000 /* that are told */

void q2_check_tell(struct q2_check *c, const char *fmt, ...)
{
    char text[2048]; /* room for the name of a snapshot or bitmap */
    va_list ap;

    if (!c->options || !c->options->finding || c->told > FINDINGS_MAX) {
        return;
    }
    if (c->told++ == FINDINGS_MAX) {
        c->options->finding(c->options->opaque, "Further findings are counted, but not told");
        return;
    }
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    c->options->finding(c->options->opaque, text);
}

void q2_check_step(struct q2_check *c)
{
    c->done++;
    c->total = max_u64(c->total, c->done);
    if (c->options && c->options->progress) {
        c->options->progress->report(c->options->progress->opaque, c->done, c->total);
    }
}

int q2_check_refer(struct q2_check *c, uint64_t offset, uint64_t bytes, uint64_t times)
{
    const struct q2_geometry *geo = &c->s->geo;
    uint64_t end, last;
    int ret = 0;

    if (bytes == 0 || times == 0) {
        return 0;
    }
    if (!checked_add(offset, bytes, &end) ||
        (end > c->file_bytes && end - c->file_bytes >= geo->cluster_bytes)) {
        q2_check_tell(c,
                      "ERROR: counting reference for region exceeding the end of the file by one "
                      "cluster or more: offset 0x%" PRIx64 " size 0x%" PRIx64,
                      offset, bytes);
        c->res->corruptions += times;
        return 0;
    }
    last = (end - 1) >> geo->cluster_bits;
    c->clusters = max_u64(c->clusters, last + 1);
    for (uint64_t i = offset >> geo->cluster_bits; ret == 0 && i <= last; i++) {
        uint64_t room = min_u64(geo->refcount_max, UINT32_MAX) - q2_refmap_get(&c->refs, i);

        if (times > room) {
            q2_check_tell(c, "ERROR: overflow cluster offset=0x%" PRIx64, i << geo->cluster_bits);
            q2_check_tell(c, "Use amend to increase the refcount entry width or convert to create "
                             "a clean copy if the image cannot be opened for writing");
            c->res->corruptions += times - room;
        }
        ret = q2_refmap_add(&c->refs, i, min_u64(times, room));
    }
    return ret;
}

int q2_check_refer_alone(struct q2_check *c, uint64_t offset, uint64_t bytes)
{
    unsigned bits = c->s->geo.cluster_bits;
    int ret = q2_check_refer(c, offset, bytes, 1);
    uint64_t end;

    if (bytes == 0 || !checked_add(offset, bytes, &end)) {
        return ret;
    }
    end = min_u64(((end - 1) >> bits) + 1, c->clusters);
    for (uint64_t i = offset >> bits; ret == 0 && i < end; i++) {
        ret = q2_refmap_add(&c->alone, i, 1);
    }
    return ret;
}

/* ---- counting ---- */

static int count_all_co(struct q2_check *c)
{
    const struct q2_header *h = &c->s->header;
    int ret = q2_check_refer_alone(c, 0, c->s->geo.cluster_bytes);

    if (ret == 0) {
        ret = q2_check_trees_co(c);
    }
    if (ret == 0) {
        ret = q2_check_refer_alone(c, h->snapshots_offset, c->snapshot_table_bytes);
    }
    if (ret == 0 && h->has_crypt_header) {
        ret = q2_check_refer_alone(c, h->crypt_header_offset, h->crypt_header_bytes);
    }
    if (ret == 0) {
        ret = q2_check_bitmaps_co(c);
    }
    return ret == 0 ? q2_check_refcount_structures_co(c) : ret;
}

static int file_size(struct q2_check *c, Error **errp)
{
    int64_t bytes = bdrv_edge_getlength(c->s->file);

    if (bytes < 0) {
        return error_set_errno(errp, (int)-bytes, "cannot tell the size of the file");
    }
    c->file_bytes = (uint64_t)bytes;
    return 0;
}

/* How many steps a look at all of it takes, in about: what is active in the order of the disk two
 * times and once for its flags, each snapshot two times, the refcounts. */
static uint64_t steps(const struct q2_check *c)
{
    return 3 * (1 + c->s->header.l1_entries / Q2_CHECK_STEP_ENTRIES) + 2 * c->s->snapshot_count +
           c->clusters / c->s->geo.refblock_entries;
}

int q2_check_count_co(struct q2_check *c, Error **errp)
{
    int ret = file_size(c, errp);

    if (ret < 0) {
        return ret;
    }
    c->clusters = (c->file_bytes + c->s->geo.cluster_bytes - 1) >> c->s->geo.cluster_bits;
    c->total = c->done + steps(c);
    c->rebuild = false;
    q2_refmap_fini(&c->refs);
    q2_refmap_fini(&c->alone);
    c->res->allocated_clusters = c->res->fragmented_clusters = c->res->compressed_clusters = 0;
    ret = count_all_co(c);
    return ret < 0 ? error_set_errno(errp, -ret, "cannot count the references to clusters") : 0;
}

static int compare_co(struct q2_check *c, unsigned fix, Error **errp)
{
    int ret = q2_check_compare_co(c, fix);

    return ret < 0 ? error_set_errno(errp, -ret, "cannot compare the refcounts") : 0;
}

static int flush_co(struct q2_check *c, Error **errp)
{
    int ret = c->fix != 0 ? bdrv_edge_flush_co(c->s->file) : 0;

    return ret < 0 ? error_set_errno(errp, -ret, "cannot make the repair durable") : 0;
}

/* ---- mending refcounts (C2) ---- */

/* New structures; then what only the old ones used is given back. */
static int rebuild_co(struct q2_check *c, Error **errp)
{
    struct bdrv_check_result before = *c->res;
    struct bdrv_check_result *res = c->res;
    int ret;

    q2_check_tell(c, "Rebuilding refcount structure");
    ret = q2_rebuild_co(c, errp);
    if (ret < 0) {
        return ret;
    }
    res->corruptions = res->leaks = res->check_errors = 0;
    ret = q2_check_count_co(c, errp);
    if (ret == 0) {
        ret = compare_co(c, BDRV_FIX_LEAKS, errp);
    }
    if (ret < 0) {
        return ret;
    }
    if (c->rebuild) {
        q2_check_tell(c, "ERROR rebuilt refcount structure is still broken");
    }
    res->leaks_fixed = before.leaks_fixed;
    res->corruptions_fixed = before.corruptions_fixed;
    if (before.corruptions > res->corruptions) {
        res->corruptions_fixed += before.corruptions - res->corruptions;
    }
    if (before.leaks > res->leaks) {
        res->leaks_fixed += before.leaks - res->leaks;
    }
    return 0;
}

static int refcounts_co(struct q2_check *c, Error **errp)
{
    struct bdrv_check_result before = *c->res;
    int ret = compare_co(c, 0, errp);

    if (ret < 0 || c->fix == 0) {
        return ret;
    }
    if (c->rebuild) {
        if (c->fix & BDRV_FIX_ERRORS) {
            return rebuild_co(c, errp);
        }
        q2_check_tell(c, "ERROR need to rebuild refcount structures");
        return error_set(errp, EIO, "The refcount structures must be built anew: check -r all");
    }
    if (c->res->leaks == 0 && c->res->corruptions == 0) {
        return 0;
    }
    *c->res = before;
    return compare_co(c, c->fix, errp);
}

/* ---- the check ---- */

/* The file is as memory has it; a repair leaves nothing in the caches that it would outdate. */
static int settle_co(struct q2_check *c, Error **errp)
{
    struct qcow2 *s = c->s;
    int ret = 0;

    if (bdrv_open_flags(s->bs) & BDRV_O_RDWR) {
        ret = q2_settle_co(s, errp);
    }
    if (ret == 0 && c->fix != 0) {
        q2_l2_drop_all(s);
        co_mutex_lock(&s->refs.lock);
        q2_refblocks_drop_all(s);
        s->refs.free_hint = 0;
        s->refs.packed_end = 0;
        co_mutex_unlock(&s->refs.lock);
    }
    return ret;
}

/* The header names bitmaps that are not believed, whose clusters were leaks. */
static int drop_bitmaps_co(struct q2_check *c, Error **errp)
{
    int ret = 0;

    if (c->fix != 0 && c->s->names_bitmaps) {
        ret = q2_header_write_co(c->s, errp);
        c->s->names_bitmaps = ret < 0;
    }
    return ret;
}

/* C5 */
static int unmark_co(struct q2_check *c, Error **errp)
{
    uint64_t marks = c->s->header.incompatible & (Q2_INCOMPAT_DIRTY | Q2_INCOMPAT_CORRUPT);
    int ret = 0;

    if (c->fix != 0 && marks != 0 && c->res->corruptions == 0 && c->res->check_errors == 0 &&
        c->res->leaks == 0) {
        ret = q2_header_bits_co(c->s, 0, marks, 0);
        c->s->stale = c->s->stale && ret < 0;
    }
    return ret < 0 ? error_set_errno(errp, -ret, "cannot mark the image clean") : 0;
}

static int run_co(struct q2_check *c, Error **errp)
{
    int ret = file_size(c, errp);

    if (ret == 0) {
        ret = q2_check_snapshot_table_co(c, errp);
    }
    if (ret == 0) {
        ret = q2_check_count_co(c, errp);
    }
    if (ret == 0 && c->fix != 0 && c->res->check_errors > 0) {
        /* it may refer to what looks as if nothing did */
        q2_check_tell(c, "ERROR nothing is repaired, since part of the image cannot be looked at");
        c->fix = 0;
    }
    if (ret == 0) {
        ret = flush_co(c, errp); /* C1 before C2 */
    }
    if (ret == 0) {
        ret = refcounts_co(c, errp);
    }
    if (ret == 0) {
        ret = flush_co(c, errp); /* C2 before C3 */
    }
    if (ret == 0) {
        ret = q2_check_copied_co(c);
        ret = ret < 0 ? error_set_errno(errp, -ret, "cannot check the COPIED flags") : 0;
    }
    if (ret == 0) {
        ret = q2_check_mend_snapshot_table_co(c, errp);
    }
    if (ret == 0 && c->fix != 0) {
        ret = q2_settle_co(c->s, errp);
    }
    if (ret == 0) {
        ret = drop_bitmaps_co(c, errp);
    }
    return ret == 0 ? unmark_co(c, errp) : ret;
}

int q2_check_co(struct qcow2 *s, const struct bdrv_check_options *options,
                struct bdrv_check_result *ret_result, Error **errp)
{
    struct bdrv_check_result res = {
        .total_clusters = (s->header.size_bytes + s->geo.cluster_bytes - 1) >> s->geo.cluster_bits};
    struct q2_check c = {.s = s, .options = options, .res = &res, .fix = options->fix};
    bool lazy = s->opt.lazy_refcounts;
    int ret;

    s->opt.lazy_refcounts = false; /* a commit writes refcounts too */

    q2_refmap_init(&c.refs, bdrv_budget(s->bs));
    q2_refmap_init(&c.alone, bdrv_budget(s->bs));
    q2_refmap_init(&c.stored, bdrv_budget(s->bs));
    c.table = bdrv_buffer_alloc(s->bs, s->geo.cluster_bytes);
    ret = c.table ? settle_co(&c, errp) : error_set(errp, ENOMEM, "out of memory");
    if (ret == 0) {
        ret = run_co(&c, errp);
    }
    if (ret == 0) {
        c.done = max_u64(c.total, 1) - 1;
        q2_check_step(&c);
    }
    if (c.snapshots_owned) {
        q2_snapshots_free(c.snapshots, c.snapshot_count);
    }
    bdrv_buffer_free(s->bs, c.table, s->geo.cluster_bytes);
    q2_refmap_fini(&c.refs);
    q2_refmap_fini(&c.alone);
    q2_refmap_fini(&c.stored);
    s->opt.lazy_refcounts = lazy;
    if (ret == 0) {
        *ret_result = res;
    }
    return ret;
}

int q2_driver_check_co(BlockDriverState *bs, const struct bdrv_check_options *options,
                       struct bdrv_check_result *ret_result, Error **errp)
{
    struct qcow2 *s = q2_of(bs);

    if (bdrv_open_flags(bs) & BDRV_O_RDWR) {
        (void)q2_mend_co(s, NULL); /* it is ours: nobody need hear of it, if it can be done */
    }
    return q2_check_co(s, options, ret_result, errp);
}
