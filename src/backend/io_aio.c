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
#include "loop/task.h"

static AioContext *aiocb_get_aio_context(BlockAIOCB *common)
{
    struct blk_aiocb *acb = CONTAINER_OF(common, struct blk_aiocb, common);

    return coroutine_aio_context(acb->foreign != NULL ? acb->foreign->co : coroutine_of_room(acb));
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
    BlockBackend *blk = foreign->acb.common.blk;

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

/* What a request does once it is counted in its slot (NULL: it was canceled before). */
static __attribute__((noinline)) void aio_run_counted_co(struct blk_aiocb *acb)
{
    BlockBackend *blk = acb->common.blk;
    struct bdrv_req *req = &acb->what.req;
    int ret = acb->slot == NULL ? -ECANCELED : blk_check_request(blk, req);

    if (ret >= 0) {
        ret = blk_throttle(blk, req, &acb->cancel);
    }
    if (ret >= 0) {
        ret = bdrv_edge_request_co(blk->root, req);
    } else {
        aio_hold(acb);
    }
    acb->ret = ret;
}

static __attribute__((noinline)) void aio_run_drained_co(struct blk_aiocb *acb)
{
    acb->slot = blk_gate_wait_co(acb->common.blk, acb->slot, false, &acb->cancel);
    aio_run_counted_co(acb);
}

/* The whole of a request; its slot is set. What needs care is done elsewhere, last, so that the
 * others need no frame for it. */
static void aio_run_co(struct blk_aiocb *acb)
{
    BlockBackend *blk = acb->common.blk;
    struct bdrv_req *req = &acb->what.req;

    if (UNLIKELY(!blk_gate_pass(acb->slot))) {
        aio_run_drained_co(acb);
    } else if (LIKELY(blk_request_is_plain(blk, req) &&
                      !throttle_member_is_limited(&blk->throttle))) {
        acb->ret = bdrv_edge_request_co(blk->root, req);
    } else {
        aio_run_counted_co(acb);
    }
}

static void aio_run_ioctl_co(struct blk_aiocb *acb)
{
    BlockBackend *blk = acb->common.blk;
    int ret;

    if (!blk_gate_pass(acb->slot)) {
        acb->slot = blk_gate_wait_co(blk, acb->slot, false, &acb->cancel);
    }
    ret = acb->slot == NULL ? -ECANCELED : blk_check_available(blk);
    if (ret >= 0) {
        ret = bdrv_edge_ioctl_co(blk->root, acb->what.ioctl.request, acb->what.ioctl.buf);
    } else {
        aio_hold(acb);
    }
    acb->ret = ret;
}

static void aio_entry(void *room)
{
    aio_run_co(room);
}

static void aio_ioctl_entry(void *room)
{
    aio_run_ioctl_co(room);
}

/* All but what it does. Field by field: clearing what is set right after would be counted in every
 * request. */
static inline __attribute__((always_inline)) void aio_init(struct blk_aiocb *acb, BlockBackend *blk,
                                                           BlockCompletionFunc *cb, void *opaque)
{
    acb->common.aiocb_info = &blk_aiocb_info;
    acb->common.blk = blk;
    acb->common.cb = cb;
    acb->common.opaque = opaque;
    acb->common.refcnt = 1;
    acb->cancel = (struct blk_cancel){0};
    acb->cancel_waits = NULL;
    acb->foreign = NULL;
    acb->held = false;
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
    struct blk_aiocb *acb = &foreign->acb;

    coroutine_set_farewell(aio_foreign_complete, foreign);
    acb->slot = &acb->common.blk->slots[aio_context_slot(aio_context_current())];
    foreign->run_co(acb);
}

/* NULL: this thread runs a context, so there is no memory; or there is none here. */
static struct blk_aio_foreign *aio_foreign_new(BlockBackend *blk, BlockCompletionFunc *cb,
                                               void *opaque, void (*run_co)(struct blk_aiocb *acb))
{
    struct blk_aio_foreign *foreign =
        aio_context_current() == NULL ? malloc(sizeof(*foreign)) : NULL;

    if (foreign == NULL) {
        return NULL;
    }
    foreign->co = coroutine_create(aio_foreign_entry, foreign);
    if (foreign->co == NULL) {
        free(foreign);
        return NULL;
    }
    aio_init(&foreign->acb, blk, cb, opaque);
    foreign->acb.foreign = foreign;
    foreign->run_co = run_co;
    foreign->refcnt = 1;
    foreign->done = false;
    os_mutex_init(&foreign->lock);
    os_cond_init(&foreign->cond);
    return foreign;
}

static BlockAIOCB *aio_foreign_submit(struct blk_aio_foreign *foreign)
{
    BlockBackend *blk = foreign->acb.common.blk;
    AioContext *home;

    blk_ref(blk); /* not counted in flight until it runs */
    home = blk_home_context_ref(blk);
    aio_co_schedule(home, foreign->co);
    aio_context_unref(home);
    return &foreign->acb.common;
}

static __attribute__((noinline)) BlockAIOCB *
aio_submit_elsewhere(BlockBackend *blk, enum bdrv_op op, int64_t offset, int64_t bytes,
                     const struct iov_view *iov, unsigned flags, BlockCompletionFunc *cb,
                     void *opaque)
{
    struct blk_aio_foreign *foreign = aio_foreign_new(blk, cb, opaque, aio_run_co);

    if (foreign == NULL) {
        return NULL;
    }
    blk_req_init(&foreign->acb.what.req, op, offset, bytes, iov, flags);
    return aio_foreign_submit(foreign);
}

/* Part of each caller, for those that count instructions: what it does is written once, into the
 * room of its coroutine. iov NULL: none. */
static inline __attribute__((always_inline)) BlockAIOCB *
aio_submit(BlockBackend *blk, enum bdrv_op op, int64_t offset, int64_t bytes,
           const struct iov_view *iov, unsigned flags, BlockCompletionFunc *cb, void *opaque)
{
    unsigned number;
    struct blk_aiocb *acb = coroutine_task_begin(aio_entry, aio_complete, &number);

    _Static_assert(sizeof(*acb) <= COROUTINE_ROOM_BYTES, "the handle fits its room");
    if (UNLIKELY(acb == NULL)) {
        return aio_submit_elsewhere(blk, op, offset, bytes, iov, flags, cb, opaque);
    }
    aio_init(acb, blk, cb, opaque);
    acb->slot = &blk->slots[number];
    blk_req_init(&acb->what.req, op, offset, bytes, iov, flags);
    coroutine_task_run(acb);
    return &acb->common;
}

BlockAIOCB *blk_aio_submit(BlockBackend *blk, enum bdrv_op op, int64_t offset, int64_t bytes,
                           const struct iov_view *iov, unsigned flags, BlockCompletionFunc *cb,
                           void *opaque)
{
    return aio_submit(blk, op, offset, bytes, iov, flags, cb, opaque);
}

BlockAIOCB *blk_aio_preadv(BlockBackend *blk, int64_t offset, const struct iov_view *iov, int flags,
                           BlockCompletionFunc *cb, void *opaque)
{
    return aio_submit(blk, BDRV_OP_READ, offset, (int64_t)iov->bytes, iov, (unsigned)flags, cb,
                      opaque);
}

BlockAIOCB *blk_aio_pwritev(BlockBackend *blk, int64_t offset, const struct iov_view *iov,
                            int flags, BlockCompletionFunc *cb, void *opaque)
{
    return aio_submit(blk, BDRV_OP_WRITE, offset, (int64_t)iov->bytes, iov, (unsigned)flags, cb,
                      opaque);
}

BlockAIOCB *blk_aio_pwrite_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes, int flags,
                                  BlockCompletionFunc *cb, void *opaque)
{
    return blk_aio_submit(blk, BDRV_OP_WRITE_ZEROES, offset, bytes, NULL, (unsigned)flags, cb,
                          opaque);
}

BlockAIOCB *blk_aio_pdiscard(BlockBackend *blk, int64_t offset, int64_t bytes,
                             BlockCompletionFunc *cb, void *opaque)
{
    return blk_aio_submit(blk, BDRV_OP_DISCARD, offset, bytes, NULL, 0, cb, opaque);
}

BlockAIOCB *blk_aio_flush(BlockBackend *blk, BlockCompletionFunc *cb, void *opaque)
{
    return blk_aio_submit(blk, BDRV_OP_FLUSH, 0, 0, NULL, 0, cb, opaque);
}

BlockAIOCB *blk_aio_ioctl(BlockBackend *blk, unsigned long req, void *buf, BlockCompletionFunc *cb,
                          void *opaque)
{
    const struct blk_ioctl ioctl = {.request = req, .buf = buf};
    unsigned number;
    struct blk_aiocb *acb = coroutine_task_begin(aio_ioctl_entry, aio_complete, &number);

    if (acb == NULL) {
        struct blk_aio_foreign *foreign = aio_foreign_new(blk, cb, opaque, aio_run_ioctl_co);

        if (foreign == NULL) {
            return NULL;
        }
        foreign->acb.what.ioctl = ioctl;
        return aio_foreign_submit(foreign);
    }
    aio_init(acb, blk, cb, opaque);
    acb->slot = &blk->slots[number];
    acb->what.ioctl = ioctl;
    coroutine_task_run(acb);
    return &acb->common;
}
