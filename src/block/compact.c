/* SPDX-License-Identifier: MIT */
/*
 * Giving space back in place: what of it is the same for every driver. The node is its user's
 * alone, so nothing here waits for other requests.
 */
#include "block/compact.h"

#include <assert.h>
#include <errno.h>

#include "block/request.h"
#include "util/checked.h"
#include "util/error.h"
#include "util/iov.h"

#define UNIT_BYTES 4096 /* what a file system gives space in, mostly */

BlockDriverState *bdrv_compact_node(BlockDriverState *bs, bool look_only, Error **errp)
{
    const char *reason;

    while (bs->drv != NULL && bs->drv->write_zeroes_co == NULL && bdrv_forwards(bs)) {
        bs = bs->file->bs;
    }
    if (bs->drv == NULL) {
        error_set(errp, ENOMEDIUM, "Node '%s' holds no medium", bdrv_get_told_name(bs));
        return NULL;
    }
    reason = bdrv_broken_reason(bs);
    if (reason != NULL) {
        error_set(errp, EIO, "Node '%s' cannot be used any more: %s", bdrv_get_told_name(bs),
                  reason);
        return NULL;
    }
    if (bs->read_only && !look_only) {
        error_set(errp, EPERM, "Node '%s' (driver '%s') is read-only", bdrv_get_told_name(bs),
                  bs->drv->format_name);
        return NULL;
    }
    return bs;
}

int bdrv_compact_status_co(BdrvEdge *edge, uint64_t offset, uint64_t bytes,
                           enum bdrv_compact_kind *ret_kind, uint64_t *ret_bytes)
{
    struct bdrv_status st;
    int depth;
    int ret = bdrv_backing_status_co(edge, true, offset, bytes, &st, &depth);

    if (ret < 0) {
        return ret;
    }
    *ret_bytes = st.bytes;
    if (depth != 1) {
        *ret_kind = BDRV_COMPACT_NOTHING;
    } else if (st.flags & BDRV_BLOCK_ZERO) {
        *ret_kind = bdrv_compacts(edge->bs) && (st.flags & BDRV_BLOCK_OFFSET_VALID)
                        ? BDRV_COMPACT_ZEROES
                        : BDRV_COMPACT_NOTHING;
    } else {
        *ret_kind = BDRV_COMPACT_DATA;
    }
    return 0;
}

void bdrv_compact_units(BlockDriverState *bs, uint32_t *ret_unit, uint32_t *ret_cluster)
{
    struct bdrv_info info;
    uint64_t unit = bs->bl.pwrite_zeroes_alignment;
    uint64_t cluster = bdrv_get_info(bs, &info) == 0 ? info.cluster_size_bytes : 0;

    if (!bdrv_compacts(bs)) {
        unit = max_u64(unit, UNIT_BYTES);
    }
    unit = max_u64(unit, bs->bl.request_alignment);
    *ret_unit = is_pow2(unit) ? (uint32_t)unit : UNIT_BYTES;
    *ret_cluster = is_pow2(cluster) && cluster >= *ret_unit ? (uint32_t)cluster : *ret_unit;
}

int bdrv_compact_give_co(BdrvEdge *edge, uint64_t offset, uint64_t bytes, bool drop,
                         uint64_t *ret_bytes)
{
    BlockDriverState *bs = edge->bs;
    int ret;

    *ret_bytes = bytes;
    if (bs->drv->image == NULL || bs->drv->image->give_co == NULL) {
        return bdrv_edge_write_zeroes_co(edge, offset, bytes,
                                         BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK);
    }
    /* past what notes changes of the disk, which is none */
    ret = bs->drv->image->give_co(bs, offset, bytes, drop, ret_bytes);
    atomic_fetch_add_explicit(&bs->write_gen, 1, memory_order_release);
    return ret;
}

bool bdrv_compact_drops(BlockDriverState *bs)
{
    return bdrv_backing(bs) != NULL && bs->drv->image != NULL && bs->drv->image->give_co != NULL;
}

int bdrv_compact_read_backing_co(BlockDriverState *bs, uint64_t offset, void *buf, uint64_t bytes)
{
    struct iovec iov = {buf, bytes};
    struct bdrv_req req = {
        .op = BDRV_OP_READ, .offset = offset, .bytes = bytes, .iov = &iov, .niov = 1};
    BdrvEdge *edge;

    TAILQ_FOREACH (edge, &bs->children, in_parent) {
        if (edge->role & BDRV_ROLE_COW) {
            return bdrv_backing_read_co(edge, &req);
        }
    }
    return -ENOMEDIUM;
}

int64_t bdrv_compact_file_bytes(BlockDriverState *bs)
{
    return bdrv_getlength(bs->file != NULL ? bs->file->bs : bs);
}

bool bdrv_compacts(const BlockDriverState *bs)
{
    return bs->drv != NULL && bs->drv->image != NULL && bs->drv->image->compact_co != NULL;
}

static int compact_flush_co(BlockDriverState *bs, const struct bdrv_compact_calls *calls,
                            Error **errp)
{
    int ret;

    while ((ret = bdrv_node_flush_co(bs)) < 0) {
        int again = calls->retry_co(calls->opaque, false, ret);

        if (again < 0) {
            return error_set_errno(errp, -again, "flushing node '%s' failed",
                                   bdrv_get_told_name(bs));
        }
    }
    return 0;
}

int bdrv_compact_co(BdrvEdge *edge, const struct bdrv_compact_calls *calls, bool dry_run,
                    struct bdrv_compact_result *ret_result, Error **errp)
{
    BlockDriverState *bs = edge->bs;
    int ret = dry_run ? 0 : compact_flush_co(bs, calls, errp);

    *ret_result = (struct bdrv_compact_result){0};
    if (ret == 0 && bdrv_compacts(bs)) {
        ret = bs->drv->image->compact_co(bs, calls, dry_run, ret_result, errp);
        atomic_fetch_add_explicit(&bs->write_gen, 1, memory_order_release);
    }
    return ret == 0 && !dry_run ? compact_flush_co(bs, calls, errp) : ret;
}
