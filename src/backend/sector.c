/* SPDX-License-Identifier: MIT */
/*
 * The seed's calls in sectors and byte counts, thin over the byte calls. Only they have the limits
 * of int: at most INT_MAX / 512 sectors or INT_MAX bytes. A sector range that is malformed becomes
 * a negative byte count, which the checks refuse with -EIO before they look for a medium.
 */
#include "backend/backend_int.h"

static struct bdrv_req sector_req(enum bdrv_op op, int64_t sector_num, int nb_sectors, int flags)
{
    if (sector_num < 0 || sector_num > INT64_MAX / (int64_t)BDRV_SECTOR_SIZE || nb_sectors < 0 ||
        nb_sectors > INT_MAX / (int)BDRV_SECTOR_SIZE) {
        return blk_req_range(op, 0, -1, flags);
    }
    return blk_req_range(op, sector_num * (int64_t)BDRV_SECTOR_SIZE,
                         (int64_t)nb_sectors * (int64_t)BDRV_SECTOR_SIZE, flags);
}

static int buf_run(BlockBackend *blk, struct bdrv_req *req, const void *buf,
                   int (*run)(BlockBackend *blk, struct bdrv_req *req))
{
    struct iovec iov = {.iov_base = (void *)buf, .iov_len = req->bytes};

    req->iov = &iov;
    req->niov = 1;
    return run(blk, req);
}

static int buf_sync(BlockBackend *blk, struct bdrv_req *req, const void *buf)
{
    return buf_run(blk, req, buf, blk_request_sync);
}

int blk_read(BlockBackend *blk, int64_t sector_num, uint8_t *buf, int nb_sectors)
{
    struct bdrv_req req = sector_req(BDRV_OP_READ, sector_num, nb_sectors, 0);

    return buf_sync(blk, &req, buf);
}

int blk_read_unthrottled(BlockBackend *blk, int64_t sector_num, uint8_t *buf, int nb_sectors)
{
    struct bdrv_req req = sector_req(BDRV_OP_READ, sector_num, nb_sectors, 0);

    return buf_run(blk, &req, buf, blk_request_unthrottled_sync);
}

int blk_write(BlockBackend *blk, int64_t sector_num, const uint8_t *buf, int nb_sectors)
{
    struct bdrv_req req = sector_req(BDRV_OP_WRITE, sector_num, nb_sectors, 0);

    return buf_sync(blk, &req, buf);
}

int blk_write_compressed(BlockBackend *blk, int64_t sector_num, const uint8_t *buf, int nb_sectors)
{
    struct bdrv_req req =
        sector_req(BDRV_OP_WRITE, sector_num, nb_sectors, BDRV_REQ_WRITE_COMPRESSED);

    return buf_sync(blk, &req, buf);
}

int blk_write_zeroes(BlockBackend *blk, int64_t sector_num, int nb_sectors, int flags)
{
    struct bdrv_req req = sector_req(BDRV_OP_WRITE_ZEROES, sector_num, nb_sectors, flags);

    return blk_request_sync(blk, &req);
}

int blk_discard(BlockBackend *blk, int64_t sector_num, int nb_sectors)
{
    struct bdrv_req req = sector_req(BDRV_OP_DISCARD, sector_num, nb_sectors, 0);

    return blk_request_sync(blk, &req);
}

int blk_pread(BlockBackend *blk, int64_t offset, void *buf, int count)
{
    struct bdrv_req req = blk_req_range(BDRV_OP_READ, offset, count, 0);
    int ret = buf_sync(blk, &req, buf);

    return ret < 0 ? ret : count;
}

int blk_pwrite(BlockBackend *blk, int64_t offset, const void *buf, int count)
{
    struct bdrv_req req = blk_req_range(BDRV_OP_WRITE, offset, count, 0);
    int ret = buf_sync(blk, &req, buf);

    return ret < 0 ? ret : count;
}

int blk_co_discard(BlockBackend *blk, int64_t sector_num, int nb_sectors)
{
    struct bdrv_req req = sector_req(BDRV_OP_DISCARD, sector_num, nb_sectors, 0);

    return blk_request_co(blk, &req, false);
}

int blk_co_write_zeroes(BlockBackend *blk, int64_t sector_num, int nb_sectors, int flags)
{
    struct bdrv_req req = sector_req(BDRV_OP_WRITE_ZEROES, sector_num, nb_sectors, flags);

    return blk_request_co(blk, &req, false);
}

/* A list that does not hold as many bytes as the sectors say is refused, after the checks of
 * medium and range: by a flag that no call knows. */
#define REQ_MISMATCH (1u << 31)

static BlockAIOCB *sector_aio(BlockBackend *blk, const struct bdrv_req *req,
                              const struct iov_view *iov, BlockCompletionFunc *cb, void *opaque)
{
    unsigned mismatch = iov != NULL && iov->bytes != req->bytes ? REQ_MISMATCH : 0;

    return blk_aio_submit(blk, req->op, (int64_t)req->offset, (int64_t)req->bytes, iov,
                          req->flags | mismatch, cb, opaque);
}

BlockAIOCB *blk_aio_write_zeroes(BlockBackend *blk, int64_t sector_num, int nb_sectors, int flags,
                                 BlockCompletionFunc *cb, void *opaque)
{
    struct bdrv_req req = sector_req(BDRV_OP_WRITE_ZEROES, sector_num, nb_sectors, flags);

    return sector_aio(blk, &req, NULL, cb, opaque);
}

BlockAIOCB *blk_aio_readv(BlockBackend *blk, int64_t sector_num, const struct iov_view *iov,
                          int nb_sectors, BlockCompletionFunc *cb, void *opaque)
{
    struct bdrv_req req = sector_req(BDRV_OP_READ, sector_num, nb_sectors, 0);

    return sector_aio(blk, &req, iov, cb, opaque);
}

BlockAIOCB *blk_aio_writev(BlockBackend *blk, int64_t sector_num, const struct iov_view *iov,
                           int nb_sectors, BlockCompletionFunc *cb, void *opaque)
{
    struct bdrv_req req = sector_req(BDRV_OP_WRITE, sector_num, nb_sectors, 0);

    return sector_aio(blk, &req, iov, cb, opaque);
}

BlockAIOCB *blk_aio_discard(BlockBackend *blk, int64_t sector_num, int nb_sectors,
                            BlockCompletionFunc *cb, void *opaque)
{
    struct bdrv_req req = sector_req(BDRV_OP_DISCARD, sector_num, nb_sectors, 0);

    return sector_aio(blk, &req, NULL, cb, opaque);
}
