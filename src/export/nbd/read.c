/* SPDX-License-Identifier: MIT */
/*
 * NBD_CMD_READ. Short reads go straight to the node. For long ones a client that understands chunks
 * is spared the holes: the node is asked where they are, and they travel as a chunk of a few bytes.
 * Asking costs, so what is known to hold data is remembered and not asked again: on a disk without
 * holes a handful of questions is all there ever is.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "export/nbd/internal.h"
#include "util/checked.h"
#include "util/mem.h"

#define KNOWN_ASK_BYTES (INT64_C(1) << 30) /* how far a question looks beyond the read */

struct read_piece {
    uint64_t offset;
    uint32_t bytes;
    bool hole;
};
struct read_plan {
    struct read_piece piece[NBD_READ_PIECES_MAX];
    unsigned npieces;
    uint32_t data_bytes;
};

static bool range_known_data(struct nbd_conn *conn, uint64_t offset, uint64_t bytes)
{
    uint64_t holes = atomic_load_explicit(&conn->export->new_holes, memory_order_relaxed);

    if (conn->data_holes != holes) {
        conn->data_begin = conn->data_end = 0;
        conn->data_holes = holes;
    }
    return offset >= conn->data_begin && offset + bytes <= conn->data_end;
}

static void known_data_add(struct nbd_conn *conn, uint64_t begin, uint64_t end)
{
    if (begin <= conn->data_end && end >= conn->data_begin) {
        conn->data_begin = min_u64(begin, conn->data_begin);
        conn->data_end = max_u64(end, conn->data_end);
    } else {
        conn->data_begin = begin;
        conn->data_end = end;
    }
}

static void plan_add(struct read_plan *plan, uint64_t offset, uint32_t bytes, bool hole)
{
    struct read_piece *last = plan->npieces > 0 ? &plan->piece[plan->npieces - 1] : NULL;

    hole = hole && bytes >= NBD_HOLE_MIN;
    if (last != NULL && last->hole == hole) {
        last->bytes += bytes;
    } else {
        assert(plan->npieces < NBD_READ_PIECES_MAX);
        plan->piece[plan->npieces++] = (struct read_piece){offset, bytes, hole};
    }
    plan->data_bytes += hole ? 0 : bytes;
}

/* Where the holes of the read are; whatever is not known counts as data. */
static void plan_co(struct nbd_req *req, struct read_plan *plan)
{
    struct nbd_conn *conn = req->conn;
    uint64_t offset = req->h.offset;
    uint64_t end = offset + req->h.length;

    plan->npieces = 0;
    plan->data_bytes = 0;
    while (offset < end && plan->npieces < NBD_READ_PIECES_MAX - 1 &&
           !range_known_data(conn, offset, end - offset)) {
        int64_t ask = (int64_t)min_u64(conn->size_bytes - offset, KNOWN_ASK_BYTES);
        int64_t bytes = 0;
        int64_t map = 0;
        int flags =
            blk_co_block_status(conn->export->blk, (int64_t)offset, ask, &bytes, &map, NULL);

        if (flags < 0 || bytes <= 0) {
            break;
        }
        if (!(flags & BDRV_BLOCK_ZERO)) {
            known_data_add(conn, offset, offset + (uint64_t)bytes);
        }
        bytes = (int64_t)min_u64((uint64_t)bytes, end - offset);
        plan_add(plan, offset, (uint32_t)bytes, flags & BDRV_BLOCK_ZERO);
        offset += (uint64_t)bytes;
    }
    if (offset < end) {
        plan_add(plan, offset, (uint32_t)(end - offset), false);
    }
}

static int read_into_co(struct nbd_req *req, void *buf, uint64_t offset, size_t bytes)
{
    struct iovec iov = {buf, bytes};
    struct iov_view view = {&iov, 1, bytes};

    return blk_co_preadv(req->conn->export->blk, (int64_t)offset, &view, 0);
}

/* A chunk for each piece; all pieces are read before the first header is written, so that no chunk
 * is begun that could still fail (proto: "Structured reply chunk message"). */
static int read_pieces_co(struct nbd_req *req, const struct read_plan *plan)
{
    enum nbd_mode mode = req->conn->mode;
    size_t heads_bytes = plan->npieces * NBD_HOLE_CHUNK_BYTES_MAX;
    uint8_t *data = req->buf;
    struct iovec *iov;
    uint8_t *head;
    unsigned i;

    for (i = 0; i < plan->npieces; i++) {
        const struct read_piece *p = &plan->piece[i];
        int rc;

        if (p->hole) {
            continue; /* there may be no data at all, and no buffer */
        }
        rc = read_into_co(req, data, p->offset, p->bytes);
        if (rc < 0) {
            return rc;
        }
        data += p->bytes;
    }
    iov = malloc(2 * plan->npieces * sizeof(*iov) + heads_bytes);
    if (iov == NULL) {
        return -ENOMEM;
    }
    req->heap = req->out = iov;
    req->out_bytes = 0;
    req->nout = 0;
    head = (uint8_t *)(iov + 2 * (size_t)plan->npieces);
    data = req->buf;
    for (i = 0; i < plan->npieces; i++) {
        const struct read_piece *p = &plan->piece[i];
        uint16_t flags = i + 1 == plan->npieces ? NBD_REPLY_FLAG_DONE : 0;
        size_t n = p->hole ? nbd_hole_chunk_encode(mode, head, flags, &req->h, p->offset, p->bytes)
                           : nbd_data_chunk_encode(mode, head, flags, &req->h, p->offset, p->bytes);

        iov[req->nout++] = (struct iovec){head, n};
        head += n;
        req->out_bytes += n;
        if (!p->hole) {
            iov[req->nout++] = (struct iovec){data, p->bytes};
            data += p->bytes;
            req->out_bytes += p->bytes;
        }
    }
    return 0;
}

static int read_with_holes_co(struct nbd_req *req)
{
    struct read_plan plan;

    plan_co(req, &plan);
    if (plan.npieces == 1 && !plan.piece[0].hole) {
        return 1; /* as any other read */
    }
    if (plan.data_bytes > 0) {
        req->buf = nbd_bufs_get(&req->conn->bufs, plan.data_bytes, &req->buf_cap);
        if (req->buf == NULL) {
            return -ENOMEM;
        }
    }
    return read_pieces_co(req, &plan);
}

int nbd_read_co(struct nbd_req *req)
{
    struct nbd_conn *conn = req->conn;
    uint32_t bytes = (uint32_t)req->h.length;
    int rc;

    if (UNLIKELY(bytes == 0)) {
        return 0; /* proto: "the server SHOULD NOT disconnect" */
    }
    if (bytes >= NBD_HOLE_READ_MIN && conn->mode != NBD_MODE_SIMPLE &&
        !(req->h.flags & NBD_CMD_FLAG_DF) &&
        !range_known_data(conn, req->h.offset, req->h.length)) {
        rc = read_with_holes_co(req);
        if (rc <= 0) {
            return rc;
        }
    }
    req->buf = nbd_bufs_get(&conn->bufs, bytes, &req->buf_cap);
    if (UNLIKELY(req->buf == NULL)) {
        return -ENOMEM;
    }
    rc = read_into_co(req, req->buf, req->h.offset, bytes);
    if (LIKELY(rc == 0)) {
        nbd_reply_data(req, bytes);
    }
    return rc;
}

int nbd_read_zeroes(struct nbd_req *req)
{
    uint32_t bytes = (uint32_t)req->h.length;

    req->buf = nbd_bufs_get(&req->conn->bufs, bytes, &req->buf_cap);
    if (req->buf == NULL) {
        return -ENOMEM;
    }
    memset(req->buf, 0, bytes);
    nbd_reply_data(req, bytes);
    return 0;
}
