/* SPDX-License-Identifier: MIT */
/*
 * The callback door. A coroutine serves each request and keeps its handle in its room, so a request
 * costs no allocation. It runs at once, inside the submitting call. The callback is the coroutine's
 * farewell: it runs outside of it, on the stack of the loop, still counted in flight, so that a
 * drain waits for it. When the request is finished before the submitting call has returned, the
 * farewell goes once through the loop, so that the callback never runs too early.
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

static __attribute__((noinline)) void aio_tell_cancels(struct blk_aiocb *acb)
{
    struct blk_cancel_wait *wait;
    struct blk_cancel_wait *next;

    for (wait = acb->cancel_waits; wait != NULL; wait = next) {
        next = wait->next;
        wait->done = true;
    }
}

/* The farewell of a request's coroutine: its callback, outside of it, still counted in flight. */
static void aio_complete(void *opaque)
{
    struct blk_aiocb *acb = opaque;
    BlockBackend *blk = acb->common.blk;

    acb->common.cb(acb->common.opaque, acb->ret);
    if (UNLIKELY(acb->cancel_waits != NULL)) {
        aio_tell_cancels(acb);
    }
    if (LIKELY(acb->slot != NULL)) {
        blk_gate_leave(blk, acb->slot);
    }
    if (UNLIKELY(acb->held)) {
        blk_unref(blk);
    }
}

static void aio_foreign_complete(void *opaque)
{
    struct blk_aio_foreign *foreign = opaque;
    BlockBackend *blk = foreign->start.blk;

    aio_complete(&foreign->acb);
    os_mutex_lock(&foreign->lock);
    foreign->done = true;
    os_cond_broadcast(&foreign->cond);
    os_mutex_unlock(&foreign->lock);
    blk_aio_foreign_unref(foreign);
    blk_unref(blk);
}

/* A request that fails early, or (slot NULL) was canceled while it waited, holds a reference on the
 * backend until its callback has run. One that was canceled has it already. */
static __attribute__((noinline)) void aio_hold(struct blk_aiocb *acb)
{
    acb->held = acb->slot == NULL || blk_ref_if_alive(acb->common.blk);
}

static inline __attribute__((always_inline)) void aio_run_co(struct blk_aiocb *acb, unsigned number,
                                                             struct bdrv_req *req)
{
    BlockBackend *blk = acb->common.blk;
    int ret;

    acb->slot = blk_gate_enter_in(blk, number, false, &acb->cancel);
    ret = UNLIKELY(acb->slot == NULL) ? -ECANCELED : blk_check_request(blk, req);
    if (LIKELY(ret >= 0)) {
        ret = blk_throttle(blk, req, &acb->cancel);
    }
    if (LIKELY(ret >= 0)) {
        ret = bdrv_edge_request_co(blk->root, req);
    } else {
        aio_hold(acb);
    }
    acb->ret = ret;
}

static void aio_run_ioctl_co(struct blk_aiocb *acb, unsigned number, unsigned long request,
                             void *buf)
{
    BlockBackend *blk = acb->common.blk;
    int ret;

    acb->slot = blk_gate_enter_in(blk, number, false, &acb->cancel);
    ret = acb->slot == NULL ? -ECANCELED : blk_check_available(blk);
    if (ret >= 0) {
        ret = bdrv_edge_ioctl_co(blk->root, request, buf);
    } else {
        aio_hold(acb);
    }
    acb->ret = ret;
}

/* Field by field: clearing what is set right after would be counted in every request. */
static inline void aio_init(struct blk_aiocb *acb, const struct blk_aio_start *start, Coroutine *co)
{
    acb->common.aiocb_info = &blk_aiocb_info;
    acb->common.blk = start->blk;
    acb->common.cb = start->cb;
    acb->common.opaque = start->opaque;
    acb->common.refcnt = 1;
    acb->co = co;
    acb->cancel = (struct blk_cancel){0};
    acb->cancel_waits = NULL;
    acb->foreign = NULL;
    acb->held = false;
}

/* start is the submitting call's and gone when that has returned, so what is needed after the first
 * wait is copied. */
static void aio_entry(void *opaque)
{
    struct blk_aio_start *start = opaque;
    struct blk_aiocb *acb = start->task.room;
    struct bdrv_req req = start->req;

    _Static_assert(sizeof(*acb) <= COROUTINE_ROOM_BYTES, "the handle fits its room");
    aio_init(acb, start, start->task.co);
    aio_run_co(acb, start->task.slot, &req);
}

static void aio_ioctl_entry(void *opaque)
{
    struct blk_aio_start *start = opaque;
    struct blk_aiocb *acb = start->task.room;

    aio_init(acb, start, start->task.co);
    aio_run_ioctl_co(acb, start->task.slot, start->ioctl_request, start->ioctl_buf);
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
    unsigned number = aio_context_slot(aio_context_current());

    coroutine_set_farewell(aio_foreign_complete, foreign);
    if (foreign->start.is_ioctl) {
        aio_run_ioctl_co(&foreign->acb, number, foreign->start.ioctl_request,
                         foreign->start.ioctl_buf);
    } else {
        aio_run_co(&foreign->acb, number, &foreign->start.req);
    }
}

static __attribute__((noinline)) BlockAIOCB *aio_submit_foreign(const struct blk_aio_start *start)
{
    struct blk_aio_foreign *foreign = malloc(sizeof(*foreign));
    AioContext *home;
    Coroutine *co;

    if (foreign == NULL) {
        return NULL;
    }
    co = coroutine_create(aio_foreign_entry, foreign);
    if (co == NULL) {
        free(foreign);
        return NULL;
    }
    foreign->start = *start;
    aio_init(&foreign->acb, start, co);
    foreign->acb.foreign = foreign;
    foreign->refcnt = 1;
    foreign->done = false;
    os_mutex_init(&foreign->lock);
    os_cond_init(&foreign->cond);
    blk_ref(start->blk); /* not counted in flight until it runs */
    home = blk_home_context_ref(start->blk);
    aio_co_schedule(home, co);
    aio_context_unref(home);
    return &foreign->acb.common;
}

static inline __attribute__((always_inline)) BlockAIOCB *aio_submit(struct blk_aio_start *start,
                                                                    CoroutineEntry *entry)
{
    start->task.entry = entry;
    start->task.farewell = aio_complete;
    if (UNLIKELY(!coroutine_run_task(&start->task))) {
        return aio_context_current() == NULL ? aio_submit_foreign(start) : NULL;
    }
    return &((struct blk_aiocb *)start->task.room)->common;
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
