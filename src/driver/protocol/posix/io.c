/* SPDX-License-Identifier: MIT */
/*
 * Reads, writes and flushes of a file or device.
 *
 * The rule on failed flushes: when the kernel could not write dirty pages back it reports so once
 * and may drop them; a flush that "works" later proves nothing. So after a failed sync through the
 * page cache every flush of this node fails until it is reopened. Direct I/O leaves no dirty pages.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "posix.h"
#include "util/iov.h"
#include "util/mem.h"

#define IOV_ON_STACK 16

/* A list of several elements: cut what the request speaks of out of it. */
static __attribute__((noinline)) int64_t submit_vector(const struct bdrv_req *req,
                                                       struct aio_file_io *io)
{
    struct iovec few[IOV_ON_STACK];
    struct iovec *iov = few;
    size_t n = iov_count(req->iov, req->niov, req->iov_offset, req->bytes);
    uint64_t covered;
    int64_t ret;

    if (n > IOV_MAX) {
        return -EINVAL;
    }
    if (n > IOV_ON_STACK) {
        iov = malloc(n * sizeof(*iov));
        if (iov == NULL) {
            return -ENOMEM;
        }
    }
    n = iov_slice(req->iov, req->niov, req->iov_offset, req->bytes, iov, n, &covered);
    io->iov = iov;
    io->niov = (int)n;
    ret = aio_file_co(io);
    if (iov != few) {
        free(iov);
    }
    return ret;
}

static inline int64_t submit(const struct posix_state *s, const struct bdrv_req *req,
                             enum aio_file_op op, int flags)
{
    struct iovec one;
    struct aio_file_io io = {
        .op = op,
        .engine = s->engine,
        .fd = s->fd,
        .flags = s->io_flags | flags,
        .offset = req->offset,
        .bytes = req->bytes,
        .iov = &one,
        .niov = 1,
    };

    if (UNLIKELY(req->niov != 1)) {
        return submit_vector(req, &io);
    }
    one.iov_base = (char *)req->iov->iov_base + req->iov_offset;
    one.iov_len = req->bytes;
    return aio_file_co(&io);
}

/* A read that was not filled. Past the end of the node are zeroes (the last block of direct I/O),
 * and in its last sector where it has whole ones; a file that ends before that was cut by somebody
 * else, and its data is gone. */
static __attribute__((noinline)) int read_short(BlockDriverState *bs, const struct bdrv_req *req,
                                                int64_t ret)
{
    if (ret < 0) {
        return (int)ret;
    }
    if ((int64_t)req->offset + ret <= bdrv_getlength(bs) - (int64_t)bdrv_size_unit(bs)) {
        return -EIO;
    }
    iov_fill(req->iov, req->niov, req->iov_offset + (uint64_t)ret, 0, req->bytes - (uint64_t)ret);
    return 0;
}

int posix_read_co(BlockDriverState *bs, const struct bdrv_req *req)
{
    const struct posix_state *s = bdrv_opaque(bs);
    int64_t ret = submit(s, req, AIO_FILE_READ, 0);

    if (UNLIKELY(ret != (int64_t)req->bytes)) {
        return read_short(bs, req, ret);
    }
    return 0;
}

/* Whether a failure says nothing of the data: the call itself could not be made. */
static bool sync_not_tried(int rc)
{
    return rc == -ENOMEM || rc == -EAGAIN || rc == -EINTR || rc == -ECANCELED || rc == -EBADF;
}

/* A write with FUA failed. The error may be that of writing pages back, which is told only once, or
 * that of taking the data. Where it may be either, writing again without FUA tells. */
static __attribute__((noinline)) int write_fua_failed(struct posix_state *s,
                                                      const struct bdrv_req *req, int rc)
{
    bool no_space = rc == -ENOSPC || rc == -EDQUOT || rc == -EFBIG;

    if (s->direct || sync_not_tried(rc) || rc == -EINVAL) {
        return rc;
    }
    if (no_space && submit(s, req, AIO_FILE_WRITE, 0) < 0) {
        return rc;
    }
    atomic_store(&s->flush_failed, true);
    return rc;
}

int posix_write_co(BlockDriverState *bs, const struct bdrv_req *req)
{
    struct posix_state *s = bdrv_opaque(bs);
    bool fua = (req->flags & BDRV_REQ_FUA) != 0;
    int64_t ret = submit(s, req, AIO_FILE_WRITE, fua ? AIO_FILE_DSYNC : 0);

    if (UNLIKELY(ret < 0)) {
        return fua ? write_fua_failed(s, req, (int)ret) : (int)ret;
    }
    return 0;
}

int posix_flush_co(BlockDriverState *bs)
{
    struct posix_state *s = bdrv_opaque(bs);
    struct aio_file_io io = {
        .op = AIO_FILE_FDATASYNC,
        .engine = s->engine,
        .fd = s->fd,
    };
    int rc;

    if (s->is_char) {
        return 0; /* it keeps nothing */
    }
    if (atomic_load(&s->flush_failed)) {
        return -EIO;
    }
    rc = (int)aio_file_co(&io);
    if (rc < 0 && !s->direct && !sync_not_tried(rc)) {
        atomic_store(&s->flush_failed, true);
    }
    return rc;
}
