/* SPDX-License-Identifier: MIT */
/*
 * Cancelling requests of the callback door, and the handles of callers that have request kinds of
 * their own.
 *
 * A cancel takes out what waits in the drained queue; what is at the node already runs to its end.
 * Either way the callback runs exactly once.
 */
#include "backend/backend_int.h"
#include "loop/task.h"

#include <stdlib.h>
#include <string.h>

static struct blk_aiocb *own_aiocb(BlockAIOCB *common)
{
    return common->aiocb_info == &blk_aiocb_info ? CONTAINER_OF(common, struct blk_aiocb, common)
                                                 : NULL;
}

void blk_aio_cancel_async(BlockAIOCB *common)
{
    struct blk_aiocb *acb = own_aiocb(common);

    if (acb != NULL) {
        blk_gate_cancel(common->blk, &acb->cancel);
    } else if (common->aiocb_info->cancel_async != NULL) {
        common->aiocb_info->cancel_async(common);
    }
}

static bool cancel_wait_pending(void *opaque)
{
    return !((struct blk_cancel_wait *)opaque)->done;
}

static void cancel_own(struct blk_aiocb *acb)
{
    struct blk_cancel_wait wait = {.next = acb->cancel_waits};

    /* the submitter's thread */
    assert(coroutine_aio_context(coroutine_of_room(acb)) == aio_context_current());
    acb->cancel_waits = &wait;
    blk_aio_cancel_async(&acb->common);
    if (!wait.done) {
        aio_wait_while(aio_context_current(), cancel_wait_pending, &wait);
    }
}

static void cancel_foreign(struct blk_aio_foreign *foreign)
{
    os_mutex_lock(&foreign->lock);
    foreign->refcnt++;
    os_mutex_unlock(&foreign->lock);
    blk_aio_cancel_async(&foreign->acb.common);
    os_mutex_lock(&foreign->lock);
    while (!foreign->done) {
        os_cond_wait(&foreign->cond, &foreign->lock);
    }
    os_mutex_unlock(&foreign->lock);
    blk_aio_foreign_unref(foreign);
}

static bool shared_aiocb(void *opaque)
{
    return ((BlockAIOCB *)opaque)->refcnt > 1;
}

/* A kind of the caller's own ends by dropping its reference, after the callback. */
static void cancel_callers(BlockAIOCB *common)
{
    AioContext *ctx = common->aiocb_info->get_aio_context != NULL
                          ? common->aiocb_info->get_aio_context(common)
                          : aio_context_current();

    common->refcnt++;
    blk_aio_cancel_async(common);
    aio_wait_while(ctx, shared_aiocb, common);
    blk_aio_unref(common);
}

void blk_aio_cancel(BlockAIOCB *common)
{
    struct blk_aiocb *acb = own_aiocb(common);

    assert(!in_coroutine());
    if (acb == NULL) {
        cancel_callers(common);
    } else if (acb->foreign != NULL) {
        cancel_foreign(acb->foreign);
    } else {
        cancel_own(acb);
    }
}

void *blk_aio_get(const AIOCBInfo *info, BlockBackend *blk, BlockCompletionFunc *cb, void *opaque)
{
    BlockAIOCB *acb;

    assert(info->aiocb_size >= sizeof(*acb));
    acb = malloc(info->aiocb_size);
    if (acb == NULL) {
        return NULL;
    }
    memset(acb, 0, info->aiocb_size);
    *acb = (BlockAIOCB){.aiocb_info = info, .blk = blk, .cb = cb, .opaque = opaque, .refcnt = 1};
    if (blk != NULL) {
        blk_ref(blk);
    }
    return acb;
}

void blk_aio_unref(void *opaque)
{
    BlockAIOCB *acb = opaque;

    assert(acb->refcnt > 0 && own_aiocb(acb) == NULL);
    if (--acb->refcnt == 0) {
        blk_unref(acb->blk);
        free(acb);
    }
}
