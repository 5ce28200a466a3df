/* SPDX-License-Identifier: MIT */
/*
 * copy-on-read: what a read finds further down the child's backing chain is written into the child,
 * so that the next read finds it there. Copies are of whole units of the child, so that zeroes stay
 * zeroes. Where the node is read-only, reads are passed on only.
 *
 * Invariants
 *  C1 nothing that was written through this node is overwritten by older bytes: a copy looks at the
 *     chain, reads and writes under the lock that changes hold shared. Nobody else may write to the
 *     child meanwhile (copy_child_perm).
 *  C2 what is written to the child is not the reader's memory, which may change under us.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/driver.h"
#include "schema/opts.h"
#include "util/checked.h"
#include "util/error.h"
#include "util/iov.h"

#define COPY_BYTES_MAX (UINT64_C(2) << 20) /* the largest cluster of qcow2 */

struct copy_state {
    char *bottom;  /* owned; NULL: the whole chain; set at open */
    bool copies;   /* set at open */
    CoRwlock lock; /* C1 */
};

static bool copy_is_writable(int flags)
{
    return (flags & BDRV_O_RDWR) != 0;
}

static int copy_check_bottom(BdrvEdge *file, const char *bottom, Error **errp)
{
    if (bottom != NULL && bdrv_backing_depth(file, bottom) == 0) {
        return error_set(errp, EINVAL, "Bottom node '%s' is not in the backing chain of node '%s'",
                         bottom, bdrv_get_told_name(bdrv_edge_node(file)));
    }
    return 0;
}

static int copy_open(BlockDriverState *bs, BlockOptions *options, int flags, Error **errp)
{
    struct copy_state *s = bdrv_opaque(bs);
    struct opts_node_copy_on_read opts;
    BdrvEdge *file;
    int rc = opts_node_copy_on_read_parse(options, &opts, errp);

    if (rc < 0) {
        return rc;
    }
    file = bdrv_open_child(bs, NULL, options, "file", BDRV_ROLE_FILTERED | BDRV_ROLE_PRIMARY, false,
                           errp);
    rc = file != NULL ? copy_check_bottom(file, opts.bottom, errp) : -EINVAL;
    if (rc == 0 && opts.bottom != NULL) {
        s->bottom = strdup(opts.bottom);
        if (s->bottom == NULL) {
            rc = error_set(errp, ENOMEM, "out of memory");
        }
    }
    opts_node_copy_on_read_fini(&opts);
    s->copies = copy_is_writable(flags);
    co_rwlock_init(&s->lock);
    return rc;
}

static void copy_close(BlockDriverState *bs)
{
    struct copy_state *s = bdrv_opaque(bs);

    free(s->bottom);
}

static int copy_reopen_prepare(BlockDriverState *bs, int new_flags, Error **errp)
{
    return 0;
}

/* Drained. */
static void copy_reopen_commit(BlockDriverState *bs)
{
    struct copy_state *s = bdrv_opaque(bs);

    s->copies = copy_is_writable(bdrv_open_flags(bs));
}

static void copy_child_perm(BlockDriverState *bs, const char *child_name, unsigned role,
                            uint64_t perm, uint64_t shared, uint64_t *ret_perm,
                            uint64_t *ret_shared)
{
    /* without a reader nothing is copied, and the node may yet be put into its place */
    if (!bdrv_is_read_only(bs) && (perm & BDRV_PERM_CONSISTENT_READ)) {
        perm |= BDRV_PERM_WRITE_UNCHANGED;
        shared &= ~(uint64_t)(BDRV_PERM_WRITE | BDRV_PERM_RESIZE); /* C1 */
    }
    *ret_perm = perm;
    *ret_shared = shared;
}

/* What is to be done with the beginning of a range. */
struct copy_step {
    uint64_t bytes;
    bool copy; /* it is further down the chain, or nowhere in it */
    bool zero; /* it reads as zeroes */
};

static int copy_look(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                     struct copy_step *ret_step)
{
    const struct copy_state *s = bdrv_opaque(bs);
    BdrvEdge *file = bdrv_primary_child(bs);
    struct bdrv_status st;
    int depth;
    int ret = bdrv_backing_status_co(file, false, offset, bytes, &st, &depth);

    if (ret < 0) {
        return ret;
    }
    *ret_step = (struct copy_step){
        .bytes = min_u64(bytes, st.bytes),
        .copy = depth != 1,
        .zero = (st.flags & BDRV_BLOCK_ZERO) != 0,
    };
    if (s->bottom != NULL && (depth == 0 || depth > bdrv_backing_depth(file, s->bottom))) {
        ret_step->copy = false;
    }
    return 0;
}

/* A range of the disk that is copied, and the request that it is read for. */
struct copy_range {
    const struct bdrv_req *req;
    uint64_t from; /* what the request reads of the range */
    uint64_t to;
    uint64_t begin; /* the range: the same in whole units of the child */
    uint64_t end;
};

/* What the child can hold as zeroes without data around them. */
static uint64_t copy_unit(BlockDriverState *bs)
{
    uint64_t unit =
        bdrv_get_limits(bdrv_edge_node(bdrv_primary_child(bs)))->pwrite_zeroes_alignment;

    return pow2_floor(min_u64(unit, COPY_BYTES_MAX));
}

static int copy_widen(BlockDriverState *bs, struct copy_range *r)
{
    int64_t disk_bytes = bdrv_edge_getlength(bdrv_primary_child(bs));
    uint64_t unit = copy_unit(bs);

    if (disk_bytes < 0) {
        return (int)disk_bytes;
    }
    r->begin = align_down(r->from, unit);
    r->end = max_u64(r->to, min_u64(align_up(r->to, unit), (uint64_t)disk_bytes));
    return 0;
}

/* The reader's part of buf, which holds [at, at + bytes) of the disk; NULL: zeroes. */
static void copy_to_reader(const struct copy_range *r, uint64_t at, uint64_t bytes,
                           const uint8_t *buf)
{
    uint64_t from = max_u64(r->from, at);
    uint64_t to = min_u64(r->to, at + bytes);
    size_t place;

    if (from >= to) {
        return;
    }
    place = r->req->iov_offset + (from - r->req->offset);
    if (buf == NULL) {
        iov_fill(r->req->iov, r->req->niov, place, 0, to - from);
    } else {
        iov_from_buf(r->req->iov, r->req->niov, place, buf + (from - at), to - from);
    }
}

static int read_through_co(BlockDriverState *bs, const struct bdrv_req *req, uint64_t from,
                           uint64_t to)
{
    struct bdrv_req part = *req;

    if (from >= to) {
        return 0;
    }
    part.iov_offset += from - req->offset;
    part.offset = from;
    part.bytes = to - from;
    return bdrv_edge_request_co(bdrv_primary_child(bs), &part);
}

static int copy_zeroes_co(BlockDriverState *bs, uint64_t at, uint64_t bytes)
{
    bdrv_debug_event(bdrv_primary_child(bs), BLKDBG_COR_WRITE);
    return bdrv_edge_write_zeroes_co(bdrv_primary_child(bs), at, bytes, BDRV_REQ_WRITE_UNCHANGED);
}

/* C2: write what was read, as zeroes where it is nothing else. */
static int copy_data_co(BlockDriverState *bs, const struct copy_range *r, uint64_t at,
                        uint64_t bytes)
{
    BdrvEdge *file = bdrv_primary_child(bs);
    uint8_t *buf = bdrv_buffer_alloc(bs, bytes);
    int ret;

    if (buf == NULL) {
        return -ENOMEM;
    }
    ret = bdrv_edge_read_co(file, at, buf, bytes);
    if (ret == 0) {
        copy_to_reader(r, at, bytes, buf);
    }
    if (ret == 0 && buffer_is_zero(buf, bytes)) {
        ret = copy_zeroes_co(bs, at, bytes);
    } else if (ret == 0) {
        bdrv_debug_event(file, BLKDBG_COR_WRITE);
        ret = bdrv_edge_write_co(file, at, buf, bytes, BDRV_REQ_WRITE_UNCHANGED);
    }
    bdrv_buffer_free(bs, buf, bytes);
    return ret;
}

/* C1: under the lock; what was seen before may be old. */
static int copy_locked_co(BlockDriverState *bs, const struct copy_range *r)
{
    struct copy_step step;
    int ret = 0;

    for (uint64_t at = r->begin; ret == 0 && at < r->end; at += step.bytes) {
        ret = copy_look(bs, at, min_u64(r->end - at, COPY_BYTES_MAX), &step);
        if (ret < 0) {
            return ret;
        }
        if (!step.copy) {
            ret =
                read_through_co(bs, r->req, max_u64(at, r->from), min_u64(at + step.bytes, r->to));
        } else if (step.zero) {
            copy_to_reader(r, at, step.bytes, NULL);
            ret = copy_zeroes_co(bs, at, step.bytes);
        } else {
            ret = copy_data_co(bs, r, at, step.bytes);
        }
    }
    return ret;
}

static int copy_co(BlockDriverState *bs, const struct bdrv_req *req, uint64_t from, uint64_t to)
{
    struct copy_state *s = bdrv_opaque(bs);
    struct copy_range r = {.req = req, .from = from, .to = to};
    int ret;

    co_rwlock_wrlock(&s->lock);
    ret = copy_widen(bs, &r);
    ret = ret == 0 ? copy_locked_co(bs, &r) : ret;
    co_rwlock_unlock(&s->lock);
    return ret;
}

static int copy_read_co(BlockDriverState *bs, const struct bdrv_req *req)
{
    struct copy_state *s = bdrv_opaque(bs);
    uint64_t end = req->offset + req->bytes;
    struct copy_step step;
    int ret = 0;

    if (!s->copies) {
        return bdrv_edge_request_co(bdrv_primary_child(bs), req);
    }
    for (uint64_t at = req->offset; ret == 0 && at < end; at += step.bytes) {
        ret = copy_look(bs, at, min_u64(end - at, COPY_BYTES_MAX), &step);
        if (ret == 0) {
            ret = step.copy ? copy_co(bs, req, at, at + step.bytes)
                            : read_through_co(bs, req, at, at + step.bytes);
        }
    }
    return ret;
}

static int copy_write_co(BlockDriverState *bs, const struct bdrv_req *req)
{
    struct copy_state *s = bdrv_opaque(bs);
    int ret;

    co_rwlock_rdlock(&s->lock);
    ret = bdrv_edge_request_co(bdrv_primary_child(bs), req);
    co_rwlock_unlock(&s->lock);
    return ret;
}

static int copy_write_zeroes_co(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                unsigned flags)
{
    struct copy_state *s = bdrv_opaque(bs);
    int ret;

    co_rwlock_rdlock(&s->lock);
    ret = bdrv_edge_write_zeroes_co(bdrv_primary_child(bs), offset, bytes, flags);
    co_rwlock_unlock(&s->lock);
    return ret;
}

static int copy_discard_co(BlockDriverState *bs, uint64_t offset, uint64_t bytes)
{
    struct copy_state *s = bdrv_opaque(bs);
    int ret;

    co_rwlock_rdlock(&s->lock);
    ret = bdrv_edge_discard_co(bdrv_primary_child(bs), offset, bytes);
    co_rwlock_unlock(&s->lock);
    return ret;
}

const BlockDriver bdrv_copy_on_read = {
    .format_name = "copy-on-read",
    .option_keys = opts_node_copy_on_read_keys,
    .instance_size = sizeof(struct copy_state),
    .caps = BDRV_CAP_FILTER | BDRV_CAP_FUA | BDRV_CAP_ZERO_FUA | BDRV_CAP_ZERO_UNMAP |
            BDRV_CAP_ZERO_NO_FALLBACK | BDRV_CAP_ZERO_PARTS | BDRV_CAP_COMPRESSED,
    .open = copy_open,
    .close = copy_close,
    .reopen_prepare = copy_reopen_prepare,
    .reopen_commit = copy_reopen_commit,
    .child_perm = copy_child_perm,
    .read_co = copy_read_co,
    .write_co = copy_write_co,
    .write_zeroes_co = copy_write_zeroes_co,
    .discard_co = copy_discard_co,
};
