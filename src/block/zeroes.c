/* SPDX-License-Identifier: MIT */
/*
 * Write zeroes: by the driver's own operation in whole units of it, and by writing zero buffers
 * where it has none, says -ENOTSUP, or for the ends that are no whole unit; a driver that can do
 * more is asked for these too (BDRV_CAP_ZERO_PARTS). Under NO_FALLBACK no zero buffer is written
 * and the answer is -ENOTSUP, though a part of the range may be zero by then.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "block/dirty_bitmap.h"
#include "block/request.h"
#include "util/checked.h"
#include "util/mem.h"

/* A zero buffer stands in a list several times, so that a request is long and the memory small. */
#define ZERO_BUFFER_BYTES (UINT64_C(64) << 10)
#define ZERO_BUFFER_BYTES_MIN 4096
#define ZERO_REPEAT 16
#define SECTOR_BYTES 512

struct zeroes {
    struct bdrv_rw rw; /* bs, size and the driver's flags of plain writes */
    unsigned flags;    /* for the driver's write_zeroes_co */
    bool may_write;    /* zero buffers may be written */
    bool want_fua;
    bool need_flush; /* a part went out that is not durable by itself */
    bool native;     /* the driver's operation is still worth asking */
    bool told;       /* a fault filter is between BLKDBG_PWRITEV_ZERO and _DONE */
    uint64_t buf_bytes;
    void *buf; /* owned */
};

static int zeroes_buffer(struct zeroes *z, uint64_t bytes)
{
    BlockDriverState *bs = z->rw.bs;
    uint64_t align = bs->bl.request_alignment;

    if (z->buf != NULL) {
        return 0;
    }
    /* the first part may be a short one of many bytes */
    bytes = max_u64(bytes, ZERO_BUFFER_BYTES_MIN);
    z->buf_bytes = max_u64(align, min_u64(ZERO_BUFFER_BYTES, align_up(bytes, align)));
    z->buf = bdrv_buffer_alloc(bs, z->buf_bytes);
    if (z->buf == NULL) {
        return -ENOMEM;
    }
    memset(z->buf, 0, z->buf_bytes);
    return 0;
}

/* To a fault filter, all whole blocks together are one request. */
static void zeroes_tell(struct zeroes *z)
{
    if (!z->told) {
        z->told = true;
        bdrv_debug_node_event(z->rw.bs, BLKDBG_PWRITEV_ZERO);
    }
}

static void zeroes_tell_done(struct zeroes *z)
{
    if (z->told) {
        z->told = false;
        bdrv_debug_node_event(z->rw.bs, BLKDBG_PWRITEV_DONE);
    }
}

/* Write [pos, end), which fits into the list. */
static int zeroes_write_step(struct zeroes *z, const struct iovec *iov, uint64_t pos, uint64_t end)
{
    struct bdrv_rw rw = z->rw;
    int ret;

    rw.op = BDRV_OP_WRITE;
    rw.pos = pos;
    rw.end = end;
    rw.mem.iov = iov;
    rw.mem.niov = ZERO_REPEAT;
    rw.mem.skip = 0;
    rw.told = is_aligned(pos | end, rw.bs->bl.request_alignment);
    if (rw.told) {
        zeroes_tell(z);
        return bdrv_rw_run(&rw);
    }
    zeroes_tell_done(z);
    z->told = true; /* by BLKDBG_PWRITEV */
    ret = bdrv_rw_run(&rw);
    zeroes_tell_done(z);
    return ret;
}

static int zeroes_write(struct zeroes *z, uint64_t pos, uint64_t end)
{
    uint64_t align = z->rw.bs->bl.request_alignment;
    struct iovec iov[ZERO_REPEAT];
    int ret;

    if (pos >= end) {
        return 0;
    }
    if (!z->may_write) {
        return -ENOTSUP;
    }
    ret = zeroes_buffer(z, end - pos);
    if (ret < 0) {
        return ret;
    }
    for (size_t i = 0; i < ZERO_REPEAT; i++) {
        iov[i] = (struct iovec){.iov_base = z->buf, .iov_len = z->buf_bytes};
    }
    z->need_flush |= z->want_fua && !(z->rw.flags & BDRV_REQ_FUA);
    while (ret == 0 && pos < end) {
        /* an unaligned beginning by itself: what follows then needs no copy */
        uint64_t n =
            is_aligned(pos, align) ? z->buf_bytes * ZERO_REPEAT : align_up(pos, align) - pos;
        uint64_t stop = pos + min_u64(end - pos, n);

        if (stop < end && stop - pos >= SECTOR_BYTES) {
            stop = align_down(stop, SECTOR_BYTES); /* a cut of power tears no sector */
        }
        ret = zeroes_write_step(z, iov, pos, stop);
        pos = stop;
    }
    return ret;
}

/* Whole units of the driver, or a part of one. */
static int zeroes_native(struct zeroes *z, uint64_t pos, uint64_t end, uint64_t unit)
{
    BlockDriverState *bs = z->rw.bs;
    uint64_t max = bs->bl.max_pwrite_zeroes != 0 ? bs->bl.max_pwrite_zeroes : UINT64_MAX;
    int ret = 0;

    max = max_u64(max - max % unit, unit);
    if (pos < end) {
        zeroes_tell(z);
    }
    while (ret == 0 && pos < end) {
        uint64_t n = min_u64(end - pos, max);

        ret = bs->drv->write_zeroes_co(bs, pos, n, z->flags);
        assert(ret <= 0);
        if (ret == -ENOTSUP && z->may_write) {
            return zeroes_write(z, pos, end);
        }
        z->need_flush |= z->want_fua && !(z->flags & BDRV_REQ_FUA);
        pos += n;
    }
    return ret;
}

/* Part of one unit. */
static int zeroes_part(struct zeroes *z, uint64_t pos, uint64_t end, uint64_t unit)
{
    return pos < end && (z->rw.bs->caps & BDRV_CAP_ZERO_PARTS) ? zeroes_native(z, pos, end, unit)
                                                               : zeroes_write(z, pos, end);
}

static int zeroes_run(struct zeroes *z, uint64_t pos, uint64_t end)
{
    const struct bdrv_limits *bl = &z->rw.bs->bl;
    uint64_t align = bl->request_alignment;
    uint64_t unit = max_u64(align, bl->pwrite_zeroes_alignment);
    /* the last unit of a format node is whole where the node ends */
    bool to_end = end == z->rw.size && !(z->rw.bs->caps & BDRV_CAP_PROTOCOL);
    bool parts = z->rw.bs->caps & BDRV_CAP_ZERO_PARTS;
    uint64_t first;
    uint64_t last;
    int ret;

    if (!z->native || unit % align != 0) {
        return zeroes_write(z, pos, end);
    }
    first = pos + min_u64(end - pos, pos % unit == 0 ? 0 : unit - pos % unit);
    last = to_end ? end : max_u64(first, end - end % unit);
    if (!parts && first >= last) {
        return zeroes_write(z, pos, end);
    }
    if (!parts && !z->may_write && (pos < first || last < end)) {
        return -ENOTSUP;
    }
    ret = zeroes_part(z, pos, first, unit);
    if (ret == 0) {
        ret = zeroes_native(z, first, last, unit);
    }
    if (ret == 0) {
        ret = zeroes_part(z, last, end, unit);
    }
    return ret;
}

/* flags: BDRV_REQ_*. */
static void zeroes_init(struct zeroes *z, BlockDriverState *bs, uint64_t size, uint64_t end,
                        unsigned flags, bool unmap)
{
    bool fua;

    *z = (struct zeroes){.rw = {.bs = bs, .op = BDRV_OP_WRITE, .size = size}};
    z->may_write = bs->drv->write_co != NULL && !(flags & BDRV_REQ_NO_FALLBACK);
    z->native = bs->drv->write_zeroes_co != NULL && end <= size &&
                (!(flags & BDRV_REQ_NO_FALLBACK) || (bs->caps & BDRV_CAP_ZERO_NO_FALLBACK));
    z->want_fua = (flags & BDRV_REQ_FUA) && !(bs->open_flags & BDRV_O_NO_FLUSH);
    z->rw.flags = bdrv_write_driver_flags(bs, flags, &fua);
    z->flags = flags & (BDRV_REQ_WRITE_UNCHANGED | BDRV_REQ_IN_ORDER);
    if (z->want_fua && (bs->caps & BDRV_CAP_ZERO_FUA)) {
        z->flags |= BDRV_REQ_FUA;
    }
    if (unmap && (flags & BDRV_REQ_MAY_UNMAP) && (bs->caps & BDRV_CAP_ZERO_UNMAP)) {
        z->flags |= BDRV_REQ_MAY_UNMAP;
    }
    if (flags & BDRV_REQ_NO_FALLBACK) {
        z->flags |= BDRV_REQ_NO_FALLBACK;
    }
}

static int zeroes_node(BlockDriverState *bs, const struct bdrv_req *req, bool unmap, bool may_grow)
{
    struct bdrv_change change;
    struct zeroes z;
    int trim;
    int ret;

    ret = bdrv_change_begin(&change, bs, req->offset, req->bytes, req->flags, may_grow);
    if (ret < 0) {
        return ret;
    }
    zeroes_init(&z, bs, change.size, change.end, req->flags, unmap);
    ret = zeroes_run(&z, req->offset, change.end);
    zeroes_tell_done(&z);
    trim = bdrv_rw_trim(&z.rw, change.end);
    bdrv_buffer_free(bs, z.buf, z.buf_bytes);
    change.fua = z.need_flush;
    return bdrv_written_end(&change, ret < 0 ? ret : trim);
}

int bdrv_zeroes_new_area(BlockDriverState *bs, uint64_t offset, uint64_t size, bool unmap)
{
    struct zeroes z;
    int ret;
    int trim;

    zeroes_init(&z, bs, size, size, BDRV_REQ_MAY_UNMAP, unmap);
    ret = zeroes_run(&z, offset, size);
    zeroes_tell_done(&z);
    trim = bdrv_rw_trim(&z.rw, size);
    bdrv_buffer_free(bs, z.buf, z.buf_bytes);
    return ret < 0 ? ret : trim;
}

int bdrv_zeroes_co(BdrvEdge *edge, const struct bdrv_req *req)
{
    struct bdrv_req down = *req;

    for (;;) {
        bool unmap;
        BlockDriverState *bs = bdrv_change_target(edge, &unmap);
        int ret = bdrv_node_ready(bs);

        if (ret == 0) {
            ret = bdrv_edge_may_change(edge, bs, req->flags);
        }
        if (ret == 0) {
            ret = bdrv_range_check(bs, req->offset, req->bytes, bdrv_edge_may_grow(edge));
        }
        if (ret == 0) {
            ret = bdrv_probe_guard(edge, req);
        }
        if (ret < 0 || req->bytes == 0) {
            return ret;
        }
        if (!bdrv_changes_below(bs) &&
            (bs->drv->write_zeroes_co != NULL || bs->drv->write_co != NULL)) {
            return zeroes_node(bs, &down, unmap, bdrv_edge_may_grow(edge));
        }
        if (!bdrv_forwards(bs) && !bdrv_changes_below(bs)) {
            return -ENOTSUP;
        }
        if (!unmap) {
            down.flags &= ~BDRV_REQ_MAY_UNMAP;
        }
        if (bdrv_marks_in_passing(bs)) {
            return bdrv_bitmaps_pass_co(bs, &down);
        }
        edge = bs->file;
    }
}
