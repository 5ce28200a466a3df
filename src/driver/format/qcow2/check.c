/* SPDX-License-Identifier: MIT */
/*
 * Checking an image as a whole: counting references, comparing, mending, in the order that was seen
 * of qemu-img 7.2: what is wrong is told once as it is found, then once more as it is mended.
 *
 * Mending is safe at every cut of power: what a refcount becomes is the truth about the tables in
 * the file, whatever the other refcounts are; COPIED flags are mended when the refcounts are
 * durable; a snapshot table or refcount structure that is made anew is durable before the header
 * refers to it.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "util/error.h"

#include "check_int.h"
#include "refcount_int.h"

void q2_check_tell(struct q2_check *c, const char *fmt, ...)
{
    char text[512];
    va_list ap;

    if (c->options == NULL || c->options->finding == NULL) {
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
    if (c->options != NULL && c->options->progress != NULL) {
        const struct bdrv_progress *p = c->options->progress;

        p->report(p->opaque, min_u64(c->done, c->total), c->total);
    }
}

int q2_check_refer(struct q2_check *c, uint64_t offset, uint64_t bytes, uint64_t times)
{
    unsigned bits = c->s->geo.cluster_bits;
    uint64_t end;

    if (bytes == 0 || times == 0) {
        return 0;
    }
    if (!checked_add(offset, bytes, &end) ||
        (end > c->file_bytes && end - c->file_bytes >= c->s->geo.cluster_bytes)) {
        q2_check_tell(c,
                      "ERROR: counting reference for region exceeding the end of the file by one "
                      "cluster or more: offset 0x%" PRIx64 " size 0x%" PRIx64,
                      offset, bytes);
        c->res->corruptions += times;
        return 0;
    }
    for (uint64_t i = offset >> bits; i <= (end - 1) >> bits; i++) {
        int ret = q2_refmap_add(&c->refs, i, times);

        if (ret < 0) {
            return ret;
        }
    }
    c->clusters = max_u64(c->clusters, ((end - 1) >> bits) + 1);
    return 0;
}

/* ---- all references ---- */

/* Everything but the refcount structures. The snapshots are known. */
static int count_content_co(struct q2_check *c)
{
    const struct q2_header *h = &c->s->header;
    int ret = q2_check_refer(c, 0, c->s->geo.cluster_bytes, 1);

    if (ret == 0) {
        ret = q2_check_trees_co(c);
    }
    if (ret == 0) {
        ret = q2_check_refer(c, h->snapshots_offset, c->snapshot_table_bytes, 1);
    }
    if (ret == 0 && h->has_crypt_header) {
        ret = q2_check_refer(c, h->crypt_header_offset, h->crypt_header_bytes, 1);
    }
    return ret == 0 ? q2_check_bitmaps_co(c) : ret;
}

int q2_check_count_co(struct q2_check *c, Error **errp)
{
    int ret = count_content_co(c);

    if (ret == 0) {
        ret = q2_check_refcount_structures_co(c);
    }
    return ret < 0 ? error_set_errno(errp, -ret, "Check failed") : 0;
}

int q2_check_count_content_co(struct q2_check *c)
{
    return count_content_co(c);
}

/* ---- comparing and mending refcounts ---- */

static void add_result(struct bdrv_check_result *to, const struct bdrv_check_result *from)
{
    to->corruptions += from->corruptions;
    to->leaks += from->leaks;
    to->check_errors += from->check_errors;
    to->corruptions_fixed += from->corruptions_fixed;
    to->leaks_fixed += from->leaks_fixed;
    to->image_end_offset = max_u64(to->image_end_offset, from->image_end_offset);
}

/* What the cache has of blocks is old, since they were changed in the file. */
static int blocks_forget(struct qcow2 *s)
{
    int ret;

    co_mutex_lock(&s->refs.lock);
    q2_refblocks_fini(s);
    ret = q2_refblocks_init(s);
    s->refs.free_hint = 0;
    s->refs.packed_end = 0;
    co_mutex_unlock(&s->refs.lock);
    return ret;
}

static int rebuild_co(struct q2_check *c, const struct bdrv_check_result *found, Error **errp)
{
    int ret;

    q2_check_tell(c, "Rebuilding refcount structure");
    ret = q2_rebuild_co(c, errp);
    if (ret < 0) {
        return ret;
    }
    /* all that was wrong with refcounts is gone; what was wrong with tables is not counted here */
    c->res->corruptions_fixed += found->corruptions + c->structure_faults;
    c->res->corruptions -= c->structure_faults;
    ret = q2_check_compare_co(c, BDRV_FIX_LEAKS);
    return ret < 0 ? error_set_errno(errp, -ret, "Check failed") : 0;
}

/* Refcounts: found without changing anything first, then mended as far as wanted. */
static int compare_co(struct q2_check *c, Error **errp)
{
    struct bdrv_check_result *res = c->res;
    struct bdrv_check_result found = {0};
    int ret;

    c->res = &found;
    ret = q2_check_compare_co(c, 0);
    c->res = res;
    if (ret < 0) {
        return error_set_errno(errp, -ret, "Check failed");
    }
    if (c->fix == 0) {
        add_result(res, &found);
        return 0;
    }
    if (c->rebuild && (c->fix & BDRV_FIX_ERRORS) != 0) {
        return rebuild_co(c, &found, errp);
    }
    if (c->rebuild) {
        q2_check_tell(c, "ERROR need to rebuild refcount structures");
        return error_set_errno(errp, EIO, "Check failed");
    }
    if (found.leaks == 0 && found.corruptions == 0) {
        add_result(res, &found);
        return 0;
    }
    ret = q2_check_compare_co(c, c->fix);
    if (ret == 0) {
        ret = bdrv_edge_flush_co(c->s->file);
    }
    if (ret == 0) {
        ret = blocks_forget(c->s);
    }
    return ret < 0 ? error_set_errno(errp, -ret, "Check failed") : 0;
}

/* ---- the whole ---- */

static void check_fini(struct q2_check *c)
{
    q2_refmap_fini(&c->refs);
    q2_refmap_fini(&c->stored);
    if (c->snapshots_owned) {
        q2_snapshots_free(c->snapshots, c->snapshot_count);
    }
    bdrv_buffer_free(c->s->bs, c->table, c->s->geo.cluster_bytes);
}

static int check_init(struct q2_check *c, struct qcow2 *s, const struct bdrv_check_options *options,
                      struct bdrv_check_result *res, Error **errp)
{
    int64_t file_bytes = bdrv_edge_getlength(s->file);
    uint64_t disk = q2_disk_bytes(s);

    *c = (struct q2_check){
        .s = s, .options = options, .res = res, .fix = options != NULL ? options->fix : 0};
    *res = (struct bdrv_check_result){.total_clusters = disk / s->geo.cluster_bytes +
                                                        (disk % s->geo.cluster_bytes != 0)};
    q2_refmap_init(&c->refs, bdrv_budget(s->bs));
    q2_refmap_init(&c->stored, bdrv_budget(s->bs));
    if (file_bytes < 0) {
        return error_set_errno(errp, (int)-file_bytes, "Cannot tell the size of the image file");
    }
    c->file_bytes = (uint64_t)file_bytes;
    c->clusters =
        c->file_bytes / s->geo.cluster_bytes + (c->file_bytes % s->geo.cluster_bytes != 0);
    c->total = 2 + s->header.l1_entries / 512 + s->refs.table_entries / 512;
    c->table = bdrv_buffer_alloc(s->bs, s->geo.cluster_bytes);
    return c->table == NULL ? error_set(errp, ENOMEM, "out of memory for a check") : 0;
}

static int check_steps_co(struct q2_check *c, Error **errp)
{
    int ret = q2_check_snapshot_table_co(c, errp);

    if (ret < 0) {
        /* told by its text; nothing below can be judged without it */
        c->res->check_errors++;
        return ret;
    }
    ret = q2_check_mend_snapshot_table_co(c, errp);
    if (ret == 0) {
        ret = q2_check_count_co(c, errp);
    }
    if (ret == 0) {
        ret = compare_co(c, errp);
    }
    if (ret == 0) {
        ret = q2_check_copied_co(c);
        if (ret < 0) {
            error_set_errno(errp, -ret, "Check failed");
        }
    }
    return ret;
}

/* What was mended is in the file; the marks of damage go where none is left. */
static int settle_after_co(struct q2_check *c, Error **errp)
{
    struct qcow2 *s = c->s;
    int ret = q2_commit_co(s, true);

    if (ret == 0) {
        q2_l2_drop_all(s); /* tables were changed in the file */
        ret = q2_overlap_init(s);
    }
    if (ret == 0 && c->res->corruptions == 0 && c->res->check_errors == 0) {
        ret = q2_header_bits_co(s, 0, Q2_INCOMPAT_DIRTY | Q2_INCOMPAT_CORRUPT, 0);
    }
    return ret < 0 ? error_set_errno(errp, -ret, "Cannot write what was repaired") : 0;
}

int q2_check_co(struct qcow2 *s, const struct bdrv_check_options *options,
                struct bdrv_check_result *ret_result, Error **errp)
{
    struct q2_check c;
    int ret = 0;

    if ((bdrv_open_flags(s->bs) & BDRV_O_RDWR) != 0 &&
        (s->header.incompatible & (Q2_INCOMPAT_DIRTY | Q2_INCOMPAT_CORRUPT)) == 0) {
        ret = q2_settle_co(s, errp);
    }
    if (ret < 0) {
        return ret;
    }
    ret = check_init(&c, s, options, ret_result, errp);
    if (ret == 0) {
        ret = check_steps_co(&c, errp);
    }
    if (ret == 0 && c.fix != 0) {
        ret = settle_after_co(&c, errp);
    }
    if (ret == 0) {
        c.done = c.total;
        q2_check_step(&c);
    }
    check_fini(&c);
    return ret;
}

int q2_driver_check_co(BlockDriverState *bs, const struct bdrv_check_options *options,
                       struct bdrv_check_result *ret_result, Error **errp)
{
    return q2_check_co(q2_of(bs), options, ret_result, errp);
}

int q2_repair_dirty_co(struct qcow2 *s, Error **errp)
{
    const struct bdrv_check_options options = {.size = sizeof(options),
                                               .fix = BDRV_FIX_LEAKS | BDRV_FIX_ERRORS};
    struct bdrv_check_result result;
    int ret = q2_check_co(s, &options, &result, errp);

    if (ret == 0 && (result.corruptions > 0 || result.check_errors > 0)) {
        ret = error_set(errp, EIO,
                        "The image was not closed properly and could not be repaired: %" PRIu64
                        " corruptions are left",
                        result.corruptions + result.check_errors);
    }
    if (ret < 0) {
        error_prepend(errp, "Could not repair dirty image: ");
    }
    return ret;
}
