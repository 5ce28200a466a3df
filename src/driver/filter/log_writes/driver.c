/* SPDX-License-Identifier: MIT */
/*
 * blklogwrites: what changes the child "file" goes into a log, the child "log", from which any
 * state that the disk was in can be made again.
 *
 * Invariants
 *  L1 a change is in the log before its caller hears of it, and not before the child has done it.
 *  L2 what stands before a flush in the log was done before the flush began: a flush holds the log
 *     while the child flushes, so that what ends meanwhile comes behind it.
 *  L3 a log that missed an entry gets no further one: changes fail from then on.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "log.h"
#include "schema/opts.h"
#include "util/checked.h"
#include "util/error.h"

static int take_options(struct log_state *s, const struct opts_node_blklogwrites *o, Error **errp)
{
    if (o->log_append && o->has_log_sector_size) {
        return error_set(errp, EINVAL, "log-append and log-sector-size are mutually exclusive");
    }
    if (o->has_log_sector_size &&
        (!is_pow2(o->log_sector_size) || o->log_sector_size < LOG_SECTOR_BYTES_MIN ||
         o->log_sector_size > LOG_SECTOR_BYTES_MAX)) {
        return error_set(errp, EINVAL, "Invalid log sector size %" PRIu64, o->log_sector_size);
    }
    if (o->log_super_update_interval == 0) {
        return error_set(errp, EINVAL, "Invalid log superblock update interval %" PRIu64,
                         o->log_super_update_interval);
    }
    s->sector_bytes = o->has_log_sector_size ? (uint32_t)o->log_sector_size : LOG_SECTOR_BYTES_MIN;
    s->super_interval = o->log_super_update_interval;
    s->end = 1;
    return 0;
}

static int log_open(BlockDriverState *bs, BlockOptions *options, int flags, Error **errp)
{
    struct log_state *s = bdrv_opaque(bs);
    struct opts_node_blklogwrites o;
    bool append;
    int rc = opts_node_blklogwrites_parse(options, &o, errp);

    if (rc < 0) {
        return rc;
    }
    append = o.log_append;
    rc = take_options(s, &o, errp);
    opts_node_blklogwrites_fini(&o);
    if (rc < 0) {
        return rc;
    }
    if (bdrv_open_child(bs, NULL, options, "file", BDRV_ROLE_FILTERED | BDRV_ROLE_PRIMARY, false,
                        errp) == NULL) {
        return -EINVAL;
    }
    s->edge = bdrv_open_child(bs, NULL, options, "log", BDRV_ROLE_METADATA, false, errp);
    if (s->edge == NULL) {
        return -EINVAL;
    }
    co_mutex_init(&s->lock);
    return append ? log_continue(s, errp) : 0;
}

/* The log is opened as the disk is. */
static int log_reopen_prepare(BlockDriverState *bs, int new_flags, Error **errp)
{
    const struct log_state *s = bdrv_opaque(bs);

    if ((new_flags & BDRV_O_RDWR) && bdrv_is_read_only(bdrv_edge_node(s->edge))) {
        return error_set(errp, EROFS, "The log of node '%s' is read-only", bdrv_get_told_name(bs));
    }
    return 0;
}

static void log_child_perm(BlockDriverState *bs, const char *child_name, unsigned role,
                           uint64_t perm, uint64_t shared, uint64_t *ret_perm, uint64_t *ret_shared)
{
    if (role & BDRV_ROLE_PRIMARY) {
        *ret_perm = perm;
        *ret_shared = shared;
        return;
    }
    *ret_perm = BDRV_PERM_CONSISTENT_READ;
    if (!bdrv_is_read_only(bs)) {
        *ret_perm |= BDRV_PERM_WRITE | BDRV_PERM_RESIZE;
    }
    *ret_shared = BDRV_PERM_CONSISTENT_READ | BDRV_PERM_WRITE_UNCHANGED;
}

static void log_refresh_limits(BlockDriverState *bs, struct bdrv_limits *limits)
{
    const struct log_state *s = bdrv_opaque(bs);

    limits->request_alignment = s->sector_bytes;
    if (limits->max_transfer != 0 && limits->max_transfer < s->sector_bytes) {
        limits->max_transfer = s->sector_bytes; /* the children split it */
    }
}

/* ---- requests ---- */

/* L3, before the child is changed. */
static int log_ready_co(struct log_state *s)
{
    int ret;

    co_mutex_lock(&s->lock);
    ret = s->failed;
    co_mutex_unlock(&s->lock);
    return ret;
}

/* Keeps L1. */
static int log_it_co(BlockDriverState *bs, const struct log_entry *entry)
{
    struct log_state *s = bdrv_opaque(bs);
    int ret;

    co_mutex_lock(&s->lock);
    ret = log_append_co(s, bs, entry);
    co_mutex_unlock(&s->lock);
    return ret;
}

/* Its own, because the node has blocks: a write of part of one reads here first. */
static int log_read_co(BlockDriverState *bs, const struct bdrv_req *req)
{
    return bdrv_edge_request_co(bdrv_primary_child(bs), req);
}

static int log_write_co(BlockDriverState *bs, const struct bdrv_req *req)
{
    struct log_entry entry = {
        .offset = req->offset,
        .bytes = req->bytes,
        .flags = req->flags & BDRV_REQ_FUA ? LOG_FUA : 0,
        .data = req,
    };
    int ret = log_ready_co(bdrv_opaque(bs));

    if (ret == 0) {
        ret = bdrv_edge_request_co(bdrv_primary_child(bs), req);
    }
    return ret < 0 ? ret : log_it_co(bs, &entry);
}

static int log_write_zeroes_co(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                               unsigned flags)
{
    struct log_entry entry = {
        .offset = offset,
        .bytes = bytes,
        .flags = flags & BDRV_REQ_FUA ? LOG_FUA : 0,
    };
    int ret = log_ready_co(bdrv_opaque(bs));

    if (ret == 0) {
        ret = bdrv_edge_write_zeroes_co(bdrv_primary_child(bs), offset, bytes, flags);
    }
    return ret < 0 ? ret : log_it_co(bs, &entry);
}

static int log_discard_co(BlockDriverState *bs, uint64_t offset, uint64_t bytes)
{
    struct log_entry entry = {.offset = offset, .bytes = bytes, .flags = LOG_DISCARD};
    int ret = log_ready_co(bdrv_opaque(bs));

    if (ret == 0) {
        ret = bdrv_edge_discard_co(bdrv_primary_child(bs), offset, bytes);
    }
    return ret < 0 ? ret : log_it_co(bs, &entry);
}

/* L2. What is not new need not be said again. */
static int log_flush_co(BlockDriverState *bs)
{
    struct log_state *s = bdrv_opaque(bs);
    const struct log_entry entry = {.flags = LOG_FLUSH};
    int ret;

    co_mutex_lock(&s->lock);
    bdrv_debug_event(bdrv_primary_child(bs), BLKDBG_FLUSH_TO_DISK);
    ret = bdrv_edge_flush_co(bdrv_primary_child(bs));
    if (ret == 0 && (s->changed || s->failed < 0)) {
        ret = log_append_co(s, bs, &entry);
        if (ret == 0) {
            ret = log_super_co(s, bs);
        }
        if (ret == 0) {
            ret = bdrv_edge_flush_co(s->edge);
        }
        s->changed = ret < 0;
    }
    co_mutex_unlock(&s->lock);
    return ret;
}

/* Copied through memory: the log wants the bytes. */
static int log_copy_range_co(BlockDriverState *src, uint64_t src_offset, BlockDriverState *dst,
                             uint64_t dst_offset, uint64_t bytes, unsigned write_flags)
{
    return -ENOTSUP;
}

static const char *const log_strong_options[] = {"log-sector-size", NULL};

const BlockDriver bdrv_blklogwrites = {
    .format_name = "blklogwrites",
    .option_keys = opts_node_blklogwrites_keys,
    .instance_size = sizeof(struct log_state),
    .caps = BDRV_CAP_FILTER | BDRV_CAP_FUA | BDRV_CAP_ZERO_FUA | BDRV_CAP_ZERO_UNMAP |
            BDRV_CAP_ZERO_NO_FALLBACK,
    .open = log_open,
    .reopen_prepare = log_reopen_prepare,
    .child_perm = log_child_perm,
    .refresh_limits = log_refresh_limits,
    .read_co = log_read_co,
    .write_co = log_write_co,
    .write_zeroes_co = log_write_zeroes_co,
    .discard_co = log_discard_co,
    .flush_co = log_flush_co,
    .copy_range_co = log_copy_range_co,
    .strong_options = log_strong_options,
};
