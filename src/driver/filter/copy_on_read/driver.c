/* SPDX-License-Identifier: MIT */
/*
 * copy-on-read: what a read finds further down the child's backing chain is written into the child,
 * so that the next read finds it there. Where the node is read-only, reads are passed on only.
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

#define COPY_BYTES_MAX (UINT64_C(1) << 20)

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
                         bottom, bdrv_get_node_name(bdrv_edge_node(file)));
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

static int read_part(BlockDriverState *bs, const struct bdrv_req *req, uint64_t skip,
                     uint64_t bytes)
{
    struct bdrv_req part = *req;

    part.offset += skip;
    part.iov_offset += skip;
    part.bytes = bytes;
    return bdrv_edge_request_co(bdrv_primary_child(bs), &part);
}

static int copy_zeroes(BlockDriverState *bs, const struct bdrv_req *req, uint64_t skip,
                       uint64_t bytes)
{
    iov_fill(req->iov, req->niov, req->iov_offset + skip, 0, bytes);
    bdrv_debug_event(bdrv_primary_child(bs), BLKDBG_COR_WRITE);
    return bdrv_edge_write_zeroes_co(bdrv_primary_child(bs), req->offset + skip, bytes,
                                     BDRV_REQ_WRITE_UNCHANGED);
}

/* C2: read [skip, skip + bytes) of req, and write what was read. */
static int copy_data(BlockDriverState *bs, const struct bdrv_req *req, uint64_t skip,
                     uint64_t bytes)
{
    BdrvEdge *file = bdrv_primary_child(bs);
    void *buf = bdrv_buffer_alloc(bs, bytes);
    int ret;

    if (buf == NULL) {
        return -ENOMEM;
    }
    ret = bdrv_edge_read_co(file, req->offset + skip, buf, bytes);
    if (ret == 0) {
        iov_from_buf(req->iov, req->niov, req->iov_offset + skip, buf, bytes);
        bdrv_debug_event(file, BLKDBG_COR_WRITE);
        ret = bdrv_edge_write_co(file, req->offset + skip, buf, bytes, BDRV_REQ_WRITE_UNCHANGED);
    }
    bdrv_buffer_free(bs, buf, bytes);
    return ret;
}

/* C1: under the lock; what was seen before may be old. */
static int copy_locked(BlockDriverState *bs, const struct bdrv_req *req, uint64_t skip,
                       struct copy_step *step)
{
    int ret = copy_look(bs, req->offset + skip, step->bytes, step);

    if (ret < 0) {
        return ret;
    }
    if (!step->copy) {
        return read_part(bs, req, skip, step->bytes);
    }
    return step->zero ? copy_zeroes(bs, req, skip, step->bytes)
                      : copy_data(bs, req, skip, step->bytes);
}

static int copy_read_co(BlockDriverState *bs, const struct bdrv_req *req)
{
    struct copy_state *s = bdrv_opaque(bs);
    struct copy_step step;
    int ret = 0;

    if (!s->copies) {
        return bdrv_edge_request_co(bdrv_primary_child(bs), req);
    }
    for (uint64_t done = 0; ret == 0 && done < req->bytes; done += step.bytes) {
        ret = copy_look(bs, req->offset + done, min_u64(req->bytes - done, COPY_BYTES_MAX), &step);
        if (ret == 0 && step.copy) {
            co_rwlock_wrlock(&s->lock);
            ret = copy_locked(bs, req, done, &step);
            co_rwlock_unlock(&s->lock);
        } else if (ret == 0) {
            ret = read_part(bs, req, done, step.bytes);
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
