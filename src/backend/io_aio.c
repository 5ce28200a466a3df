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
static inline void aio_defer_co(struct blk_aiocb *acb, AioContext *ctx)
{
    aio_co_schedule(ctx, acb->co);
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

static inline void aio_finish(struct blk_aiocb *acb, int ret)
{
    acb->common.cb(acb->common.opaque, ret);
    if (UNLIKELY(acb->cancel_waits != NULL)) {
        aio_tell_cancels(acb);
    }
}

/* A request that fails early, or (slot NULL) was canceled while it waited: it holds a reference on
 * the backend until its callback has run. One that was canceled has it already. */
static __attribute__((noinline)) void aio_fail_co(struct blk_aiocb *acb, struct blk_slot *slot,
                                                  int ret)
{
    BlockBackend *blk = acb->common.blk;
    bool held = slot == NULL || blk_ref_if_alive(blk);

    if (!acb->returned) {
        aio_defer_co(acb, aio_context_current());
    }
    aio_finish(acb, ret);
    if (slot != NULL) {
        blk_gate_leave(blk, slot);
    }
    if (held) {
        blk_unref(blk);
    }
}

/* What every kind of request does before it goes to the node. False: it has failed, and is done. */
static inline __attribute__((always_inline)) bool aio_begin_co(struct blk_aiocb *acb,
                                                               struct blk_slot *slot, int ret)
{
    if (UNLIKELY(ret < 0)) {
        aio_fail_co(acb, slot, ret);
        return false;
    }
    return true;
}

static inline __attribute__((always_inline)) void aio_end_co(struct blk_aiocb *acb, AioContext *ctx,
                                                             struct blk_slot *slot, int ret)
{
    BlockBackend *blk = acb->common.blk;

    if (!acb->returned) {
        aio_defer_co(acb, ctx);
    }
    aio_finish(acb, ret);
    blk_gate_leave(blk, slot);
}

static inline __attribute__((always_inline)) void aio_run_co(struct blk_aiocb *acb, AioContext *ctx,
                                                             struct bdrv_req *req)
{
    BlockBackend *blk = acb->common.blk;
    struct blk_slot *slot = blk_gate_enter_in(blk, ctx, false, &acb->cancel);
    int ret = UNLIKELY(slot == NULL) ? -ECANCELED : blk_check_request(blk, req);

    if (aio_begin_co(acb, slot, ret)) {
        ret = bdrv_edge_request_co(blk->root, req);
        aio_end_co(acb, ctx, slot, ret);
    }
}

static void aio_run_ioctl_co(struct blk_aiocb *acb, AioContext *ctx, unsigned long request,
                             void *buf)
{
    BlockBackend *blk = acb->common.blk;
    struct blk_slot *slot = blk_gate_enter_in(blk, ctx, false, &acb->cancel);
    int ret = slot == NULL ? -ECANCELED : blk_check_available(blk);

    if (aio_begin_co(acb, slot, ret)) {
        ret = bdrv_edge_ioctl_co(blk->root, request, buf);
        aio_end_co(acb, ctx, slot, ret);
    }
}

static inline void aio_init(struct blk_aiocb *acb, const struct blk_aio_start *start)
{
    *acb = (struct blk_aiocb){
        .common = {.aiocb_info = &blk_aiocb_info,
                   .blk = start->blk,
                   .cb = start->cb,
                   .opaque = start->opaque,
                   .refcnt = 1},
        .co = start->co,
    };
}

/* start is the submitting call's and gone when that has returned, so what is needed after the first
 * wait is copied. */
static void aio_entry(void *opaque)
{
    struct blk_aio_start *start = opaque;
    struct bdrv_req req = start->req;
    struct blk_aiocb acb;

    aio_init(&acb, start);
    start->acb = &acb;
    aio_run_co(&acb, start->ctx, &req);
}

static void aio_ioctl_entry(void *opaque)
{
    struct blk_aio_start *start = opaque;
    struct blk_aiocb acb;

    aio_init(&acb, start);
    start->acb = &acb;
    aio_run_ioctl_co(&acb, start->ctx, start->ioctl_request, start->ioctl_buf);
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
    BlockBackend *blk = foreign->start.blk;

    if (foreign->start.is_ioctl) {
        aio_run_ioctl_co(&foreign->acb, aio_context_current(), foreign->start.ioctl_request,
                         foreign->start.ioctl_buf);
    } else {
        aio_run_co(&foreign->acb, aio_context_current(), &foreign->start.req);
    }
    os_mutex_lock(&foreign->lock);
    foreign->done = true;
    os_cond_broadcast(&foreign->cond);
    os_mutex_unlock(&foreign->lock);
    blk_aio_foreign_unref(foreign);
    blk_unref(blk);
}

static __attribute__((noinline)) BlockAIOCB *aio_submit_foreign(const struct blk_aio_start *start)
{
    struct blk_aio_foreign *foreign = malloc(sizeof(*foreign));
    AioContext *home;

    if (foreign == NULL) {
        return NULL;
    }
    foreign->start = *start;
    foreign->start.co = coroutine_create(aio_foreign_entry, foreign);
    if (foreign->start.co == NULL) {
        free(foreign);
        return NULL;
    }
    aio_init(&foreign->acb, &foreign->start);
    foreign->acb.foreign = foreign;
    foreign->acb.returned = true;
    foreign->refcnt = 1;
    foreign->done = false;
    os_mutex_init(&foreign->lock);
    os_cond_init(&foreign->cond);
    blk_ref(start->blk); /* not counted in flight until it runs */
    home = blk_home_context_ref(start->blk);
    aio_co_schedule(home, foreign->start.co);
    aio_context_unref(home);
    return &foreign->acb.common;
}

static inline __attribute__((always_inline)) BlockAIOCB *aio_submit(struct blk_aio_start *start,
                                                                    CoroutineEntry *entry)
{
    start->ctx = aio_context_current();
    if (UNLIKELY(start->ctx == NULL)) {
        return aio_submit_foreign(start);
    }
    start->co = coroutine_create(entry, start);
    if (UNLIKELY(start->co == NULL)) {
        return NULL;
    }
    coroutine_enter(start->co);
    start->acb->returned = true; /* it waits: for the node, the drain or the loop */
    return &start->acb->common;
}

BlockAIOCB *blk_aio_submit(struct blk_aio_start *start)
{
    return aio_submit(start, aio_entry);
}

/* The same, made part of the caller, for those that count instructions. */
static inline __attribute__((always_inline)) BlockAIOCB *
aio_submit_iov(enum bdrv_op op, BlockBackend *blk, int64_t offset, const struct iov_view *iov,
               int flags, BlockCompletionFunc *cb, void *opaque)
{
    struct blk_aio_start start;

    start.blk = blk;
    start.cb = cb;
    start.opaque = opaque;
    start.req = blk_req_iov(op, offset, iov, flags);
    start.is_ioctl = false;
    return aio_submit(&start, aio_entry);
}

BlockAIOCB *blk_aio_preadv(BlockBackend *blk, int64_t offset, const struct iov_view *iov, int flags,
                           BlockCompletionFunc *cb, void *opaque)
{
    return aio_submit_iov(BDRV_OP_READ, blk, offset, iov, flags, cb, opaque);
}

BlockAIOCB *blk_aio_pwritev(BlockBackend *blk, int64_t offset, const struct iov_view *iov,
                            int flags, BlockCompletionFunc *cb, void *opaque)
{
    return aio_submit_iov(BDRV_OP_WRITE, blk, offset, iov, flags, cb, opaque);
}

BlockAIOCB *blk_aio_pwrite_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes, int flags,
                                  BlockCompletionFunc *cb, void *opaque)
{
    struct blk_aio_start start = {.blk = blk,
                                  .cb = cb,
                                  .opaque = opaque,
                                  .req = blk_req_range(BDRV_OP_WRITE_ZEROES, offset, bytes, flags)};

    return blk_aio_submit(&start);
}

BlockAIOCB *blk_aio_pdiscard(BlockBackend *blk, int64_t offset, int64_t bytes,
                             BlockCompletionFunc *cb, void *opaque)
{
    struct blk_aio_start start = {.blk = blk,
                                  .cb = cb,
                                  .opaque = opaque,
                                  .req = blk_req_range(BDRV_OP_DISCARD, offset, bytes, 0)};

    return blk_aio_submit(&start);
}

BlockAIOCB *blk_aio_flush(BlockBackend *blk, BlockCompletionFunc *cb, void *opaque)
{
    struct blk_aio_start start = {
        .blk = blk, .cb = cb, .opaque = opaque, .req = {.op = BDRV_OP_FLUSH}};

    return blk_aio_submit(&start);
}

BlockAIOCB *blk_aio_ioctl(BlockBackend *blk, unsigned long req, void *buf, BlockCompletionFunc *cb,
                          void *opaque)
{
    struct blk_aio_start start = {
        .blk = blk,
        .cb = cb,
        .opaque = opaque,
        .ioctl_request = req,
        .ioctl_buf = buf,
        .is_ioctl = true,
    };

    return aio_submit(&start, aio_ioctl_entry);
}
