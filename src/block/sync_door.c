/* SPDX-License-Identifier: MIT */
/*
 * Requests of control calls that run outside a coroutine (open, create, close): a coroutine is made
 * in this thread's context, which is polled until it has ended.
 */
#include <assert.h>
#include <errno.h>

#include "block/node.h"
#include "loop/context.h"

struct sync_call {
    BdrvEdge *edge;
    const struct bdrv_req *req;
    int ret;
    bool done; /* both in this thread */
};

static void sync_entry(void *opaque)
{
    struct sync_call *call = opaque;

    call->ret = bdrv_edge_request_co(call->edge, call->req);
    call->done = true;
}

static bool sync_pending(void *opaque)
{
    const struct sync_call *call = opaque;

    return !call->done;
}

static int sync_run(BdrvEdge *edge, const struct bdrv_req *req)
{
    struct sync_call call = {.edge = edge, .req = req};
    AioContext *ctx = aio_context_current();
    Coroutine *co;

    if (in_coroutine()) {
        return bdrv_edge_request_co(edge, req);
    }
    assert(ctx != NULL); /* a control call */
    co = coroutine_create(sync_entry, &call);
    if (co == NULL) {
        return -ENOMEM;
    }
    coroutine_enter(co);
    aio_wait_while(ctx, sync_pending, &call);
    return call.ret;
}

int bdrv_edge_pread(BdrvEdge *edge, uint64_t offset, void *buf, size_t bytes)
{
    struct iovec iov = {.iov_base = buf, .iov_len = bytes};
    struct bdrv_req req = {
        .op = BDRV_OP_READ, .offset = offset, .bytes = bytes, .iov = &iov, .niov = 1};

    return sync_run(edge, &req);
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

    return sync_run(edge, &req);
}

int bdrv_edge_flush(BdrvEdge *edge)
{
    struct bdrv_req req = {.op = BDRV_OP_FLUSH};

    return sync_run(edge, &req);
}
