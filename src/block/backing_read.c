/* SPDX-License-Identifier: MIT */
/*
 * What an overlay asks of the chain below it: content and status of what it does not hold itself.
 *
 * A read goes down by asking each layer what it holds, in a loop, until one decides; only to that
 * layer a request is sent. So however long the chain is, the stack holds the overlay's request and
 * one more. Parts that different layers decide are served one after the other; what lies past the
 * end of a layer reads as zeroes, whatever is below it.
 */
#include <errno.h>

#include "block/request.h"
#include "util/checked.h"
#include "util/iov.h"

/* Whether something under bs may decide instead of it: a backing file, of itself or of what it
 * shows. Without one, nothing need be asked. */
static bool has_backing_below(BlockDriverState *bs)
{
    while (bdrv_backing(bs) == NULL) {
        if (bs->file == NULL || !(bs->file->role & BDRV_ROLE_FILTERED)) {
            return false;
        }
        bs = bs->file->bs;
    }
    return true;
}

/* Cut p to its node. False: all of it is past the end. */
static bool place_inside(struct status_place *p, int64_t size)
{
    if (p->offset >= (uint64_t)size) {
        return false;
    }
    p->bytes = min_u64(p->bytes, (uint64_t)size - p->offset);
    return true;
}

/* Move p down to the node that decides its beginning, and cut it to what that decides. 1: read it
 * there; 0: it is zeroes; or -errno. */
static int find_decider(struct status_place *p)
{
    for (;;) {
        int64_t size = atomic_load_explicit(&p->bs->size_bytes, memory_order_relaxed);
        struct bdrv_status st;
        int ret;

        if (size < 0) {
            return (int)size;
        }
        if (!place_inside(p, size)) {
            return 0;
        }
        if (!has_backing_below(p->bs)) {
            return 1;
        }
        ret = bdrv_status_answer(p, false, &st);
        if (ret < 0) {
            return ret;
        }
        p->bytes = min_u64(p->bytes, st.bytes);
        if (st.flags & BDRV_BLOCK_ZERO) {
            return 0;
        }
        if (st.flags & (BDRV_BLOCK_DATA | BDRV_BLOCK_ALLOCATED)) {
            return 1;
        }
        p->bs = bdrv_backing(p->bs);
        if (p->bs == NULL) {
            return 0;
        }
    }
}

int bdrv_backing_read_co(BdrvEdge *edge, const struct bdrv_req *req)
{
    struct bdrv_req part = *req;
    uint64_t done = 0;

    while (done < req->bytes) {
        struct status_place p = {
            .bs = edge->bs, .offset = req->offset + done, .bytes = req->bytes - done};
        BdrvEdge below = {.klass = edge->klass, .perm = BDRV_PERM_CONSISTENT_READ};
        int ret = find_decider(&p);

        if (ret > 0) {
            below.bs = p.bs;
            part.offset = p.offset;
            part.bytes = p.bytes;
            part.iov_offset = req->iov_offset + done;
            ret = bdrv_edge_request_co(&below, &part);
        } else if (ret == 0) {
            iov_fill(req->iov, req->niov, req->iov_offset + done, 0, p.bytes);
        }
        if (ret < 0) {
            return ret;
        }
        done += p.bytes;
    }
    return 0;
}

int bdrv_backing_status_co(BdrvEdge *edge, bool want_zero, uint64_t offset, uint64_t bytes,
                           struct bdrv_status *ret_status, int *ret_depth)
{
    int64_t size = atomic_load_explicit(&edge->bs->size_bytes, memory_order_relaxed);
    int ret;

    if (size < 0) {
        return (int)size;
    }
    if (offset >= (uint64_t)size) {
        *ret_status = (struct bdrv_status){.flags = BDRV_BLOCK_ZERO, .bytes = bytes};
        *ret_depth = 0;
        return bytes > 0 ? 0 : -EINVAL;
    }
    ret = bdrv_edge_status_above_co(edge, want_zero, offset, bytes, ret_status, ret_depth);
    if (ret == 0) {
        ret_status->flags &= ~BDRV_BLOCK_EOF; /* of the backing file, not of who asks */
    }
    return ret;
}
