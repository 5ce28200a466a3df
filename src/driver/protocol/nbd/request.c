/* SPDX-License-Identifier: MIT */
/* Requests of the node as calls of the protocol. Ranges are checked and fit the limits already. */
#include <errno.h>

#include "nbd.h"
#include "util/iov.h"
#include "util/mem.h"

#define STATE_HOLE (1U << 0) /* of base:allocation */
#define STATE_ZERO (1U << 1)

/* The memory of a request where it is in one piece, else NULL. */
static void *whole_piece(const struct bdrv_req *req)
{
    struct iovec piece;
    uint64_t bytes;

    if (iov_slice(req->iov, req->niov, req->iov_offset, req->bytes, &piece, 1, &bytes) == 1 &&
        bytes == req->bytes) {
        return piece.iov_base;
    }
    return NULL;
}

static int transfer_co(BlockDriverState *bs, const struct bdrv_req *req, enum nbd_op op,
                       uint32_t flags)
{
    struct nbd_call call = {
        .op = op,
        .flags = flags,
        .offset = req->offset,
        .bytes = req->bytes,
        .buf = whole_piece(req),
    };
    void *bounce = NULL;
    int rc;

    if (call.buf == NULL) {
        bounce = bdrv_buffer_alloc(bs, req->bytes);
        if (bounce == NULL) {
            return -ENOMEM;
        }
        if (op == NBD_OP_WRITE) {
            iov_to_buf(req->iov, req->niov, req->iov_offset, bounce, req->bytes);
        }
        call.buf = bounce;
    }
    rc = nbdc_pool_call_co(bdrv_opaque(bs), &call);
    if (bounce != NULL) {
        if (rc == 0 && op == NBD_OP_READ) {
            iov_from_buf(req->iov, req->niov, req->iov_offset, bounce, req->bytes);
        }
        bdrv_buffer_free(bs, bounce, req->bytes);
    }
    return rc;
}

int nbdc_read_co(BlockDriverState *bs, const struct bdrv_req *req)
{
    return transfer_co(bs, req, NBD_OP_READ, 0);
}

static uint32_t fua_flag(unsigned flags)
{
    return flags & BDRV_REQ_FUA ? LIBNBD_CMD_FLAG_FUA : 0;
}

int nbdc_write_co(BlockDriverState *bs, const struct bdrv_req *req)
{
    return transfer_co(bs, req, NBD_OP_WRITE, fua_flag(req->flags));
}

int nbdc_write_zeroes_co(BlockDriverState *bs, uint64_t offset, uint64_t bytes, unsigned flags)
{
    struct nbd_pool *pool = bdrv_opaque(bs);
    struct nbd_call call = {
        .op = NBD_OP_ZERO,
        .flags = fua_flag(flags),
        .offset = offset,
        .bytes = bytes,
    };

    if (!pool->facts.zero || ((flags & BDRV_REQ_NO_FALLBACK) && !pool->facts.fast_zero)) {
        return -ENOTSUP;
    }
    if (flags & BDRV_REQ_NO_FALLBACK) {
        call.flags |= LIBNBD_CMD_FLAG_FAST_ZERO;
    }
    if (!(flags & BDRV_REQ_MAY_UNMAP)) {
        call.flags |= LIBNBD_CMD_FLAG_NO_HOLE;
    }
    return nbdc_pool_call_co(pool, &call);
}

int nbdc_discard_co(BlockDriverState *bs, uint64_t offset, uint64_t bytes)
{
    struct nbd_pool *pool = bdrv_opaque(bs);
    struct nbd_call call = {.op = NBD_OP_TRIM, .offset = offset, .bytes = bytes};

    return pool->facts.trim ? nbdc_pool_call_co(pool, &call) : -ENOTSUP;
}

int nbdc_flush_co(BlockDriverState *bs)
{
    struct nbd_pool *pool = bdrv_opaque(bs);
    struct nbd_call call = {.op = NBD_OP_FLUSH};

    /* a server without the command has nothing that it would have to flush */
    return pool->facts.flush ? nbdc_pool_call_co(pool, &call) : 0;
}

/* Flags of an extent as the context says them. In base:allocation a hole may read as anything, so
 * without "zero" it is data for us. Another context (x-dirty-bitmap) is shown as if it were
 * base:allocation, as the option is meant to be used: what is dirty is not data. */
static int status_flags(const struct nbd_target *target, uint32_t state)
{
    if (state & STATE_ZERO) {
        return BDRV_BLOCK_ZERO | (state & STATE_HOLE ? 0 : BDRV_BLOCK_DATA);
    }
    return (state & STATE_HOLE) && target->context_given != NULL ? 0 : BDRV_BLOCK_DATA;
}

/* One question. 0 or -errno: an extent inside of what was asked, whole blocks. */
static int ask_status_co(struct nbd_pool *pool, uint64_t offset, uint64_t bytes, uint64_t *ret_len,
                         int *ret_flags)
{
    const uint64_t block = pool->facts.block_min;
    const uint64_t most = UINT32_MAX - UINT32_MAX % block;
    struct nbd_call call = {
        .op = NBD_OP_STATUS,
        .flags = LIBNBD_CMD_FLAG_REQ_ONE,
        .offset = offset,
        .bytes = bytes < most ? bytes : most,
        .context = pool->target.context,
    };
    int rc = nbdc_pool_call_co(pool, &call);

    if (rc == 0 && call.ret_extent_bytes == 0) {
        rc = -EIO; /* no answer is none, and an extent of nothing leads nowhere */
    }
    if (rc < 0) {
        return rc;
    }
    *ret_len = call.ret_extent_bytes < call.bytes ? call.ret_extent_bytes : call.bytes;
    *ret_flags = status_flags(&pool->target, call.ret_extent_flags);
    if (*ret_len < block) { /* several extents in one block */
        *ret_len = block;
        *ret_flags = BDRV_BLOCK_DATA;
    }
    *ret_len -= *ret_len % block;
    return 0;
}

int nbdc_block_status_co(BlockDriverState *bs, bool want_zero, uint64_t offset, uint64_t bytes,
                         struct bdrv_status *ret_status)
{
    struct nbd_pool *pool = bdrv_opaque(bs);
    uint64_t len = bytes;
    int flags = BDRV_BLOCK_DATA;
    int rc = pool->facts.status ? ask_status_co(pool, offset, bytes, &len, &flags) : 0;

    if (rc < 0) {
        return rc;
    }
    *ret_status = (struct bdrv_status){
        .flags = flags != 0 ? flags | BDRV_BLOCK_OFFSET_VALID : 0,
        .bytes = len,
        .map = offset,
        .file = bs,
    };
    return 0;
}
