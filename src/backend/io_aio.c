/* SPDX-License-Identifier: MIT */
/*
 * The callback door. A coroutine serves each request and keeps its handle on its own stack, so a
 * request costs no allocation. It runs at once, inside the submitting call; when it is finished
 * before that call has returned, it goes once through the loop, so that the callback never runs too
 * early. The callback runs in the coroutine, still counted in flight: a drain waits for it.
 *
 * A thread that runs no context cannot serve a coroutine. Its request goes to the home context of
 * the backend, with the handle on the heap, since the coroutine's stack may be gone when the
 * submitting call returns.
 */
#include "backend/backend_int.h"

static AioContext *aiocb_get_aio_context(BlockAIOCB *common)
{
    return coroutine_aio_context(CONTAINER_OF(common, struct blk_aiocb, common)->co);
}

const AIOCBInfo blk_aiocb_info = {
    .get_aio_context = aiocb_get_aio_context,
    .aiocb_size = sizeof(struct blk_aiocb),
};

/* Go once through the loop: what others call a bottom half. */
static void aio_defer_co(struct blk_aiocb *acb)
{
    aio_co_schedule(aio_context_current(), acb->co);
    coroutine_yield();
}

static __attribute__((noinline)) void aio_tell_cancels(struct blk_aiocb *acb)
{
    struct blk_cancel_wait *wait;
    struct blk_cancel_wait *next;

    for (wait = acb->cancel_waits; wait != NULL; wait = next) {
        next = wait->next;
        wait->done = true;
    }
}

/* A request that fails early, or was canceled while it waited: it holds a reference on the backend
 * until its callback has run. Here that reference is ours already. */
static __attribute__((noinline)) void aio_fail_co(struct blk_aiocb *acb, struct blk_slot *slot,
                                                  int ret)
{
    BlockBackend *blk = acb->common.blk;

    if (!acb->returned) {
        aio_defer_co(acb);
    }
    acb->common.cb(acb->common.opaque, ret);
    if (acb->cancel_waits != NULL) {
        aio_tell_cancels(acb);
    }
    if (slot != NULL) {
        blk_gate_leave(blk, slot);
    }
    blk_unref(blk);
}

static inline __attribute__((always_inline)) void aio_run_co(struct blk_aiocb *acb)
{
    BlockBackend *blk = acb->common.blk;
    struct blk_slot *slot = blk_gate_enter(blk, false, &acb->waiter);
    int ret;

    if (UNLIKELY(slot == NULL)) {
        aio_fail_co(acb, NULL, -ECANCELED);
        return;
    }
    ret = UNLIKELY(acb->is_ioctl) ? blk_check_available(blk) : blk_check_request(blk, &acb->req);
    if (UNLIKELY(ret < 0)) {
        blk_ref(blk);
        aio_fail_co(acb, slot, ret);
        return;
    }
    if (UNLIKELY(acb->is_ioctl)) {
        ret = bdrv_edge_ioctl_co(blk->root, acb->ioctl_request, acb->ioctl_buf);
    } else {
        ret = bdrv_edge_request_co(blk->root, &acb->req);
    }
    if (!acb->returned) {
        aio_defer_co(acb);
    }
    acb->common.cb(acb->common.opaque, ret);
    if (UNLIKELY(acb->cancel_waits != NULL)) {
        aio_tell_cancels(acb);
    }
    blk_gate_leave(blk, slot);
}

/* What the submitting call leaves on its stack for the coroutine, until it returns. */
struct aio_start {
    const struct blk_aiocb *from;
    struct blk_aiocb *ret_acb;
};

static void aio_entry(void *opaque)
{
    struct aio_start *start = opaque;
    struct blk_aiocb acb = *start->from;

    start->ret_acb = &acb;
    aio_run_co(&acb);
}

void blk_aio_foreign_unref(struct blk_aio_foreign *foreign)
{
    bool last;

    os_mutex_lock(&foreign->lock);
    last = --foreign->refcnt == 0;
    os_mutex_unlock(&foreign->lock);
    if (last) {
        os_cond_fini(&foreign->cond);
        os_mutex_fini(&foreign->lock);
        free(foreign);
    }
}

static void aio_foreign_entry(void *opaque)
{
    struct blk_aio_foreign *foreign = opaque;
    BlockBackend *blk = foreign->acb.common.blk;

    aio_run_co(&foreign->acb);
    os_mutex_lock(&foreign->lock);
    foreign->done = true;
    os_cond_broadcast(&foreign->cond);
    os_mutex_unlock(&foreign->lock);
    blk_aio_foreign_unref(foreign);
    blk_unref(blk);
}

static __attribute__((noinline)) BlockAIOCB *aio_submit_foreign(BlockBackend *blk,
                                                                const struct blk_aiocb *from)
{
    struct blk_aio_foreign *foreign = malloc(sizeof(*foreign));

    if (foreign == NULL) {
        return NULL;
    }
    foreign->acb = *from;
    foreign->acb.foreign = foreign;
    foreign->acb.returned = true;
    foreign->refcnt = 1;
    foreign->done = false;
    foreign->acb.co = coroutine_create(aio_foreign_entry, foreign);
    if (foreign->acb.co == NULL) {
        free(foreign);
        return NULL;
    }
    os_mutex_init(&foreign->lock);
    os_cond_init(&foreign->cond);
    blk_ref(blk); /* not counted in flight until it runs */
    aio_co_schedule(blk_get_aio_context(blk), foreign->acb.co);
    return &foreign->acb.common;
}

BlockAIOCB *blk_aio_submit(BlockBackend *blk, struct blk_aiocb *from)
{
    struct aio_start start;

    if (UNLIKELY(aio_context_current() == NULL)) {
        return aio_submit_foreign(blk, from);
    }
    from->co = coroutine_create(aio_entry, &start);
    if (UNLIKELY(from->co == NULL)) {
        return NULL;
    }
    start.from = from;
    coroutine_enter(from->co);
    start.ret_acb->returned = true; /* it waits: for the node, the drain or the loop */
    return &start.ret_acb->common;
}

BlockAIOCB *blk_aio_preadv(BlockBackend *blk, int64_t offset, const struct iov_view *iov, int flags,
                           BlockCompletionFunc *cb, void *opaque)
{
    struct bdrv_req req = blk_req_iov(BDRV_OP_READ, offset, iov, flags);

    return blk_aio_request(blk, &req, cb, opaque);
}

BlockAIOCB *blk_aio_pwritev(BlockBackend *blk, int64_t offset, const struct iov_view *iov,
                            int flags, BlockCompletionFunc *cb, void *opaque)
{
    struct bdrv_req req = blk_req_iov(BDRV_OP_WRITE, offset, iov, flags);

    return blk_aio_request(blk, &req, cb, opaque);
}

BlockAIOCB *blk_aio_pwrite_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes, int flags,
                                  BlockCompletionFunc *cb, void *opaque)
{
    struct bdrv_req req = blk_req_range(BDRV_OP_WRITE_ZEROES, offset, bytes, flags);

    return blk_aio_request(blk, &req, cb, opaque);
}

BlockAIOCB *blk_aio_pdiscard(BlockBackend *blk, int64_t offset, int64_t bytes,
                             BlockCompletionFunc *cb, void *opaque)
{
    struct bdrv_req req = blk_req_range(BDRV_OP_DISCARD, offset, bytes, 0);

    return blk_aio_request(blk, &req, cb, opaque);
}

BlockAIOCB *blk_aio_flush(BlockBackend *blk, BlockCompletionFunc *cb, void *opaque)
{
    struct bdrv_req req = {.op = BDRV_OP_FLUSH};

    return blk_aio_request(blk, &req, cb, opaque);
}

BlockAIOCB *blk_aio_ioctl(BlockBackend *blk, unsigned long req, void *buf, BlockCompletionFunc *cb,
                          void *opaque)
{
    struct blk_aiocb start = {
        .common =
            {.aiocb_info = &blk_aiocb_info, .blk = blk, .cb = cb, .opaque = opaque, .refcnt = 1},
        .ioctl_request = req,
        .ioctl_buf = buf,
        .is_ioctl = true,
    };

    return blk_aio_submit(blk, &start);
}
