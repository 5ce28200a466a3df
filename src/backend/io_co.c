/* SPDX-License-Identifier: MIT */
/*
 * The coroutine door, which the other two lead to: gate, checks, node.
 */
#include "backend/backend_int.h"

int blk_request_co(BlockBackend *blk, struct bdrv_req *req, bool over_drain)
{
    struct blk_slot *slot = blk_gate_enter(blk, over_drain);
    int ret = blk_check_request(blk, req);

    if (LIKELY(ret == 0)) {
        ret = blk_throttle(blk, req, NULL);
    }
    if (LIKELY(ret == 0)) {
        ret = bdrv_edge_request_co(blk->root, req);
    }
    blk_gate_leave(blk, slot);
    return ret;
}

int blk_request_unthrottled_co(BlockBackend *blk, struct bdrv_req *req, bool over_drain)
{
    struct blk_slot *slot = blk_gate_enter(blk, over_drain);
    int ret = blk_check_request(blk, req);

    if (ret == 0) {
        ret = bdrv_edge_request_co(blk->root, req);
    }
    blk_gate_leave(blk, slot);
    return ret;
}

int blk_co_preadv(BlockBackend *blk, int64_t offset, const struct iov_view *iov, int flags)
{
    struct bdrv_req req = blk_req_iov(BDRV_OP_READ, offset, iov, flags);

    return blk_request_co(blk, &req, false);
}

int blk_co_pwritev(BlockBackend *blk, int64_t offset, const struct iov_view *iov, int flags)
{
    struct bdrv_req req = blk_req_iov(BDRV_OP_WRITE, offset, iov, flags);

    return blk_request_co(blk, &req, false);
}

int blk_co_pwrite_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes, int flags)
{
    struct bdrv_req req = blk_req_range(BDRV_OP_WRITE_ZEROES, offset, bytes, flags);

    return blk_request_co(blk, &req, false);
}

int blk_co_pdiscard(BlockBackend *blk, int64_t offset, int64_t bytes)
{
    struct bdrv_req req = blk_req_range(BDRV_OP_DISCARD, offset, bytes, 0);

    return blk_request_co(blk, &req, false);
}

int blk_co_flush(BlockBackend *blk)
{
    struct bdrv_req req = {.op = BDRV_OP_FLUSH};

    return blk_request_co(blk, &req, false);
}

int blk_ioctl_over_co(BlockBackend *blk, unsigned long request, void *buf, bool over_drain)
{
    struct blk_slot *slot = blk_gate_enter(blk, over_drain);
    int ret = blk_check_available(blk);

    if (ret == 0) {
        ret = bdrv_edge_ioctl_co(blk->root, request, buf);
    }
    blk_gate_leave(blk, slot);
    return ret;
}

int blk_co_ioctl(BlockBackend *blk, unsigned long req, void *buf)
{
    return blk_ioctl_over_co(blk, req, buf, false);
}

int blk_vmstate_over_co(BlockBackend *blk, const struct bdrv_req *req, bool over_drain)
{
    struct blk_slot *slot = blk_gate_enter(blk, over_drain);
    int ret = blk_check_available(blk);

    if (ret == 0) {
        ret = bdrv_edge_vmstate_co(blk->root, req);
    }
    if (ret == 0 && req->op == BDRV_OP_WRITE &&
        (atomic_load_explicit(&blk->special, memory_order_relaxed) & BLK_SPECIAL_FUA)) {
        ret = bdrv_edge_flush_co(blk->root);
    }
    blk_gate_leave(blk, slot);
    return ret;
}

/* In flight. */
static int truncate_co(BlockBackend *blk, int64_t size_bytes, bool exact,
                       enum bdrv_prealloc prealloc, Error **errp)
{
    if (blk_check_available(blk) < 0) {
        return error_set(errp, ENOMEDIUM, "No medium inserted");
    }
    if (size_bytes < 0) {
        return error_set(errp, EINVAL, "Cannot resize node '%s': the new size %lld is negative",
                         bdrv_get_told_name(blk->root->bs), (long long)size_bytes);
    }
    if ((blk->root->perm & BDRV_PERM_RESIZE) == 0) {
        return error_set(errp, EPERM,
                         "Cannot resize node '%s': block device has no permission to resize it",
                         bdrv_get_told_name(blk->root->bs));
    }
    return bdrv_edge_truncate_co(blk->root, (uint64_t)size_bytes, exact, prealloc, 0, errp);
}

int blk_truncate_over_co(BlockBackend *blk, int64_t size_bytes, bool exact,
                         enum bdrv_prealloc prealloc, bool over_drain, Error **errp)
{
    struct blk_slot *slot = blk_gate_enter(blk, over_drain);
    int ret = truncate_co(blk, size_bytes, exact, prealloc, errp);

    blk_gate_leave(blk, slot);
    return ret;
}

int blk_co_truncate(BlockBackend *blk, int64_t size_bytes, bool exact, enum bdrv_prealloc prealloc,
                    int flags, Error **errp)
{
    if (flags != 0) {
        return error_set(errp, EINVAL, "Cannot resize: unknown flags 0x%x", (unsigned)flags);
    }
    return blk_truncate_over_co(blk, size_bytes, exact, prealloc, false, errp);
}

int blk_co_block_status_file(BlockBackend *blk, int64_t offset, int64_t bytes, int64_t *ret_bytes,
                             int64_t *ret_map, int *ret_depth, BlockDriverState **ret_file)
{
    struct blk_slot *slot = blk_gate_enter(blk, false);
    struct bdrv_status status = {0};
    int depth = 0;
    int ret = blk_check_range(blk, offset, bytes);

    if (ret == 0 && bytes == 0) {
        ret = -EINVAL; /* there is no extent to speak of */
    }
    if (ret == 0) {
        ret = bdrv_edge_status_above_co(blk->root, true, (uint64_t)offset, (uint64_t)bytes, &status,
                                        &depth);
    }
    blk_gate_leave(blk, slot);
    if (ret < 0) {
        return ret;
    }
    *ret_bytes = (int64_t)status.bytes;
    if (ret_map != NULL) {
        *ret_map = (status.flags & BDRV_BLOCK_OFFSET_VALID) ? (int64_t)status.map : -1;
    }
    if (ret_depth != NULL) {
        *ret_depth = depth;
    }
    if (ret_file != NULL) {
        *ret_file = status.file;
    }
    return status.flags;
}

int blk_co_block_status(BlockBackend *blk, int64_t offset, int64_t bytes, int64_t *ret_bytes,
                        int64_t *ret_map, int *ret_depth)
{
    return blk_co_block_status_file(blk, offset, bytes, ret_bytes, ret_map, ret_depth, NULL);
}

/* Count in flight at both, or at none while waiting: a request that held one and waited for the
 * other would keep a drain of both from ending. */
static void gate_enter_both(BlockBackend *src, BlockBackend *dst, struct blk_slot **ret_src,
                            struct blk_slot **ret_dst)
{
    /* the caller holds a reference to both for the time of the call */
    for (;;) {
        struct blk_slot *src_slot = blk_gate_enter(src, false);
        struct blk_slot *dst_slot = &dst->slots[aio_context_slot(aio_context_current())];
        uint32_t old = atomic_fetch_add_explicit(&dst_slot->in_flight, 1, memory_order_acq_rel);

        *ret_src = src_slot;
        *ret_dst = dst_slot;
        if ((old & BLK_SLOT_DRAINED) == 0) {
            return;
        }
        blk_gate_leave(src, src_slot);
        dst_slot = blk_gate_wait_co(dst, dst_slot, false, NULL);
        blk_gate_leave(dst, dst_slot);
    }
}

int blk_co_copy_range(BlockBackend *src, int64_t src_offset, BlockBackend *dst, int64_t dst_offset,
                      int64_t bytes, int read_flags, int write_flags)
{
    struct bdrv_req read = blk_req_range(BDRV_OP_READ, src_offset, bytes, read_flags);
    struct bdrv_req write = blk_req_range(BDRV_OP_WRITE, dst_offset, bytes, write_flags);
    struct blk_slot *src_slot;
    struct blk_slot *dst_slot;
    int ret;

    gate_enter_both(src, dst, &src_slot, &dst_slot);
    ret = blk_check_request(src, &read);
    if (ret == 0) {
        ret = blk_check_request(dst, &write);
    }
    if (ret == 0) {
        ret = blk_throttle(src, &read, NULL);
    }
    if (ret == 0) {
        ret = blk_throttle(dst, &write, NULL);
    }
    if (ret == 0) {
        ret = bdrv_edge_copy_range_co(src->root, read.offset, dst->root, write.offset, read.bytes,
                                      read.flags, write.flags);
    }
    blk_gate_leave(dst, dst_slot);
    blk_gate_leave(src, src_slot);
    return ret;
}
