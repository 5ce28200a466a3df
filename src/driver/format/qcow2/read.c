/* SPDX-License-Identifier: MIT */
/*
 * Reads. The usual one, inside one cached data cluster, is passed on at once; others are cut into
 * extents, which are in flight together.
 *
 * Invariant: nothing past the end of the data file is read as zeroes; it is -EIO, and told.
 */
#include <errno.h>

#include "compress.h"
#include "driver.h"
#include "loop/co_group.h"
#include "request.h"
#include "util/iov.h"

/* An extent of a request on its way. */
struct read_piece {
    struct qcow2 *s;
    struct bdrv_req req; /* offset: on the disk */
    struct q2_extent extent;
};

/* What no layer above the backing file decides. Past the end of the disk (in its last cluster, or
 * VM state) the backing file does not count. */
static int read_unallocated_co(struct qcow2 *s, const struct bdrv_req *req)
{
    uint64_t disk = q2_disk_bytes(s);
    uint64_t below = 0;

    if (s->backing != NULL && req->offset < disk) {
        struct bdrv_req part = q2_req_part(req, 0, min_u64(req->bytes, disk - req->offset));
        int ret;

        bdrv_debug_event(s->file, BLKDBG_READ_BACKING_AIO);
        ret = bdrv_backing_read_co(s->backing, &part);
        if (ret < 0) {
            return ret;
        }
        below = part.bytes;
    }
    iov_fill(req->iov, req->niov, req->iov_offset + below, 0, req->bytes - below);
    return 0;
}

static int read_data_co(struct qcow2 *s, const struct bdrv_req *req, uint64_t host)
{
    struct bdrv_req below = *req;
    int ret;

    below.offset = host;
    bdrv_debug_event(s->data, BLKDBG_READ_AIO);
    ret = bdrv_edge_request_co(s->data, &below);
    if (UNLIKELY(ret == -EIO)) {
        int end = q2_inside_co(s, false, req->offset, host, req->bytes);

        return end < 0 ? end : ret;
    }
    return ret;
}

/* One piece of memory that takes a whole cluster, or NULL. */
static void *whole_cluster(const struct qcow2 *s, const struct bdrv_req *req)
{
    struct iovec piece;
    uint64_t bytes;

    if (req->bytes != s->geo.cluster_bytes) {
        return NULL;
    }
    iov_slice(req->iov, req->niov, req->iov_offset, req->bytes, &piece, 1, &bytes);
    return bytes == req->bytes ? piece.iov_base : NULL;
}

static int read_compressed_co(struct qcow2 *s, const struct bdrv_req *req, uint64_t l2_entry)
{
    uint32_t cluster = s->geo.cluster_bytes;
    void *direct = whole_cluster(s, req);
    uint8_t *buf;
    int ret;

    if (direct != NULL) {
        return q2_read_compressed_co(s, l2_entry, direct);
    }
    buf = bdrv_buffer_alloc(s->bs, cluster);
    if (buf == NULL) {
        return -ENOMEM;
    }
    ret = q2_read_compressed_co(s, l2_entry, buf);
    if (ret == 0) {
        iov_from_buf(req->iov, req->niov, req->iov_offset, buf + (req->offset & (cluster - 1)),
                     req->bytes);
    }
    bdrv_buffer_free(s->bs, buf, cluster);
    return ret;
}

static int read_extent_co(void *opaque)
{
    const struct read_piece *piece = opaque;
    const struct bdrv_req *req = &piece->req;

    switch (piece->extent.kind) {
    case Q2_UNALLOCATED:
        return read_unallocated_co(piece->s, req);
    case Q2_ZEROES:
        iov_fill(req->iov, req->niov, req->iov_offset, 0, req->bytes);
        return 0;
    case Q2_DATA:
        return read_data_co(piece->s, req, piece->extent.host);
    case Q2_COMPRESSED_DATA:
        return read_compressed_co(piece->s, req, piece->extent.l2_entry);
    }
    return -EIO;
}

static bool is_quick(const struct read_piece *piece)
{
    return piece->extent.kind == Q2_ZEROES ||
           (piece->extent.kind == Q2_UNALLOCATED && piece->s->backing == NULL);
}

/* From done bytes on, several extents. */
static int read_extents_co(struct qcow2 *s, const struct bdrv_req *req, uint64_t done)
{
    struct read_piece pieces[CO_GROUP_MAX];
    struct co_group group;
    int ret = 0;

    co_group_init(&group, pieces, sizeof(pieces[0]));
    while (done < req->bytes && ret == 0 && !co_group_failed(&group)) {
        struct read_piece *piece = co_group_piece_co(&group);

        piece->s = s;
        ret = q2_map_co(s, req->offset + done, req->bytes - done, &piece->extent);
        if (ret < 0) {
            break;
        }
        piece->req = q2_req_part(req, done, piece->extent.bytes);
        done += piece->extent.bytes;
        if (is_quick(piece)) {
            ret = read_extent_co(piece);
        } else {
            co_group_start_co(&group, piece, read_extent_co);
        }
    }
    if (ret < 0) {
        co_group_wait_co(&group);
        return ret;
    }
    return co_group_wait_co(&group);
}

int q2_read_co(struct qcow2 *s, const struct bdrv_req *req)
{
    struct read_piece piece = {.s = s, .req = *req};
    int ret = q2_map_co(s, req->offset, req->bytes, &piece.extent);

    if (ret < 0) {
        return ret;
    }
    if (piece.extent.bytes == req->bytes) {
        return read_extent_co(&piece);
    }
    return read_extents_co(s, req, 0);
}

int q2_read_buf_co(struct qcow2 *s, uint64_t offset, void *buf, size_t bytes)
{
    struct iovec iov = {.iov_base = buf, .iov_len = bytes};
    struct bdrv_req req = {
        .op = BDRV_OP_READ, .offset = offset, .bytes = bytes, .iov = &iov, .niov = 1};

    return q2_read_co(s, &req);
}

/* ---- what reads as zeroes ---- */

static int backing_zero_co(struct qcow2 *s, uint64_t offset, uint64_t bytes, bool want_zero)
{
    while (bytes > 0) {
        struct bdrv_status st;
        int depth;
        int ret = bdrv_backing_status_co(s->backing, want_zero, offset, bytes, &st, &depth);

        if (ret < 0) {
            return ret;
        }
        if (depth != 0 && !(st.flags & BDRV_BLOCK_ZERO)) {
            return 0;
        }
        offset += min_u64(st.bytes, bytes);
        bytes -= min_u64(st.bytes, bytes);
    }
    return 1;
}

int q2_reads_zero_co(struct qcow2 *s, uint64_t offset, uint64_t bytes, bool want_zero)
{
    uint64_t disk = q2_disk_bytes(s);

    while (bytes > 0) {
        struct q2_extent extent;
        int ret = q2_map_co(s, offset, bytes, &extent);

        if (ret < 0) {
            return ret;
        }
        if (extent.kind == Q2_DATA || extent.kind == Q2_COMPRESSED_DATA) {
            return 0;
        }
        if (extent.kind == Q2_UNALLOCATED && s->backing != NULL && offset < disk) {
            ret = backing_zero_co(s, offset, min_u64(extent.bytes, disk - offset), want_zero);
            if (ret <= 0) {
                return ret;
            }
        }
        offset += extent.bytes;
        bytes -= extent.bytes;
    }
    return 1;
}

/* ---- the driver's call ---- */

static int __attribute__((noinline))
read_slow_co(struct qcow2 *s, const struct bdrv_req *req, q2_token token)
{
    int ret = s->data != NULL ? q2_read_co(s, req) : -EIO;

    return q2_leave_ret_co(s, token, ret);
}

int q2_driver_read_co(BlockDriverState *bs, const struct bdrv_req *req)
{
    struct qcow2 *s = q2_of(bs);
    q2_token token = q2_enter_co(s);
    struct q2_extent extent;

    if (UNLIKELY(!q2_map_data(s, req->offset, &extent) || extent.bytes < req->bytes ||
                 s->data == NULL)) {
        return read_slow_co(s, req, token);
    }
    return q2_leave_ret_co(s, token, read_data_co(s, req, extent.host));
}
