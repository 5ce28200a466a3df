/* SPDX-License-Identifier: MIT */
/*
 * Requests of control calls that run outside a coroutine (open, create, close): a coroutine is made
 * in this thread's context, which is polled until it has ended.
 */
#include <assert.h>
#include <errno.h>

#include "block/instance.h"
#include "block/request.h"
#include "loop/context.h"

struct sync_call {
    BdrvEdge *edge; /* NULL: flush bs */
    const struct bdrv_req *req;
    BlockDriverState *bs;
    int ret;
    bool done; /* both in this thread */
};

static void sync_entry(void *opaque)
{
    struct sync_call *call = opaque;

    call->ret =
        call->edge ? bdrv_edge_request_co(call->edge, call->req) : bdrv_node_flush_co(call->bs);
    call->done = true;
}

static bool sync_pending(void *opaque)
{
    const struct sync_call *call = opaque;

    return !call->done;
}

static int sync_run(struct sync_call *call)
{
    AioContext *ctx = aio_context_current();
    Coroutine *co;

    if (in_coroutine()) {
        sync_entry(call);
        return call->ret;
    }
    assert(ctx != NULL); /* a control call */
    co = coroutine_create(sync_entry, call);
    if (co == NULL) {
        return -ENOMEM;
    }
    coroutine_enter(co);
    aio_wait_while(ctx, sync_pending, call);
    return call->ret;
}

int bdrv_edge_pread(BdrvEdge *edge, uint64_t offset, void *buf, size_t bytes)
{
    struct iovec iov = {.iov_base = buf, .iov_len = bytes};
    struct bdrv_req req = {
        .op = BDRV_OP_READ, .offset = offset, .bytes = bytes, .iov = &iov, .niov = 1};

    return sync_run(&(struct sync_call){.edge = edge, .req = &req});
}

int bdrv_edge_pwrite(BdrvEdge *edge, uint64_t offset, const void *buf, size_t bytes, unsigned flags)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)buf, .iov_len = bytes};
    struct bdrv_req req = {.op = BDRV_OP_WRITE,
                           .flags = flags,
                           .offset = offset,
                           .bytes = bytes,
                           .iov = &iov,
                           .niov = 1};

    return sync_run(&(struct sync_call){.edge = edge, .req = &req});
}

int bdrv_edge_flush(BdrvEdge *edge)
{
    struct bdrv_req req = {.op = BDRV_OP_FLUSH};

    return sync_run(&(struct sync_call){.edge = edge, .req = &req});
}

int bdrv_flush_all(Platter *pl)
{
    BlockDriverState *bs = TAILQ_FIRST(&pl->nodes);
    BlockDriverState *next;
    int first = 0;

    if (bs) {
        bdrv_ref(bs);
    }
    for (; bs; bs = next) {
        int ret = bs->drv ? sync_run(&(struct sync_call){.bs = bs}) : 0;

        first = first < 0 ? first : ret;
        next = TAILQ_NEXT(bs, in_instance);
        if (next) {
            bdrv_ref(next); /* the loop may run anything while it polls */
        }
        bdrv_unref(bs);
    }
    return first;
}
