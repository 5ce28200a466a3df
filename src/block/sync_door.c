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
    int (*run_co)(void *opaque);
    void *opaque;
    int ret;
    bool done; /* both in this thread */
};

static void sync_entry(void *opaque)
{
    struct sync_call *call = opaque;

    call->ret = call->run_co(call->opaque);
    call->done = true;
}

static bool sync_pending(void *opaque)
{
    const struct sync_call *call = opaque;

    return !call->done;
}

int bdrv_run_co(int (*run_co)(void *opaque), void *opaque)
{
    struct sync_call call = {.run_co = run_co, .opaque = opaque};
    AioContext *ctx = aio_context_current();
    Coroutine *co;

    if (in_coroutine()) {
        return run_co(opaque);
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

/* ---- requests ---- */

struct edge_call {
    BdrvEdge *edge;
    const struct bdrv_req *req;
};

static int edge_run_co(void *opaque)
{
    const struct edge_call *call = opaque;

    return bdrv_edge_request_co(call->edge, call->req);
}

static int edge_request(BdrvEdge *edge, const struct bdrv_req *req)
{
    return bdrv_run_co(edge_run_co, &(struct edge_call){.edge = edge, .req = req});
}

int bdrv_edge_pread(BdrvEdge *edge, uint64_t offset, void *buf, size_t bytes)
{
    struct iovec iov = {.iov_base = buf, .iov_len = bytes};
    struct bdrv_req req = {
        .op = BDRV_OP_READ, .offset = offset, .bytes = bytes, .iov = &iov, .niov = 1};

    return edge_request(edge, &req);
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

    return edge_request(edge, &req);
}

int bdrv_edge_flush(BdrvEdge *edge)
{
    struct bdrv_req req = {.op = BDRV_OP_FLUSH};

    return edge_request(edge, &req);
}

static int flush_run_co(void *opaque)
{
    return bdrv_node_flush_co(opaque);
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
        int ret = bs->drv ? bdrv_run_co(flush_run_co, bs) : 0;

        first = first < 0 ? first : ret;
        next = TAILQ_NEXT(bs, in_instance);
        if (next) {
            bdrv_ref(next); /* the loop may run anything while it polls */
        }
        bdrv_unref(bs);
    }
    return first;
}
