/* SPDX-License-Identifier: MIT */
/*
 * The blocking door. In a coroutine the call is direct. In a thread that runs a context a coroutine
 * is made and the context polled until it is done. A thread that runs none hands the coroutine to
 * the home context of the backend and sleeps.
 *
 * A request that the control thread waits for passes a drain: it is the drain's own thread that
 * asks, so waiting for the end of the drain would wait for itself.
 */
#include "backend/backend_int.h"

struct sync_call {
    BlockBackend *blk;
    int (*run_co)(struct sync_call *call);
    bool over_drain;
    int ret;
    /* arguments */
    struct bdrv_req *req;
    unsigned long ioctl_request;
    void *ioctl_buf;
    int64_t size_bytes;
    bool exact;
    enum bdrv_prealloc prealloc;
    Error **errp;
    /* the end */
    bool done; /* polling: this thread only; sleeping: lock */
    bool sleeps;
    struct os_mutex lock;
    struct os_cond cond;
};

static void sync_entry(void *opaque)
{
    struct sync_call *call = opaque;

    call->ret = call->run_co(call);
    if (!call->sleeps) {
        call->done = true;
        return;
    }
    os_mutex_lock(&call->lock);
    call->done = true;
    os_cond_signal(&call->cond);
    os_mutex_unlock(&call->lock);
}

static bool sync_pending(void *opaque)
{
    return !((struct sync_call *)opaque)->done;
}

static void sync_sleep(struct sync_call *call, Coroutine *co)
{
    AioContext *home = blk_home_context_ref(call->blk);

    call->sleeps = true;
    os_mutex_init(&call->lock);
    os_cond_init(&call->cond);
    aio_co_schedule(home, co);
    aio_context_unref(home);
    os_mutex_lock(&call->lock);
    while (!call->done) {
        os_cond_wait(&call->cond, &call->lock);
    }
    os_mutex_unlock(&call->lock);
    os_cond_fini(&call->cond);
    os_mutex_fini(&call->lock);
}

static int sync_run(struct sync_call *call)
{
    AioContext *ctx = aio_context_current();
    Coroutine *co;

    if (in_coroutine()) {
        return call->run_co(call);
    }
    co = coroutine_create(sync_entry, call);
    if (co == NULL) {
        return -ENOMEM;
    }
    if (ctx == NULL) {
        sync_sleep(call, co);
        return call->ret;
    }
    call->over_drain = instance_in_control_thread(call->blk->pl);
    coroutine_enter(co);
    if (!call->done) {
        aio_wait_while(ctx, sync_pending, call);
    }
    return call->ret;
}

static int request_run_co(struct sync_call *call)
{
    return blk_request_co(call->blk, call->req, call->over_drain);
}

static int unthrottled_run_co(struct sync_call *call)
{
    return blk_request_unthrottled_co(call->blk, call->req, call->over_drain);
}

int blk_request_unthrottled_sync(BlockBackend *blk, struct bdrv_req *req)
{
    return sync_run(&(struct sync_call){.blk = blk, .run_co = unthrottled_run_co, .req = req});
}

int blk_request_sync(BlockBackend *blk, struct bdrv_req *req)
{
    struct sync_call call = {.blk = blk, .run_co = request_run_co, .req = req};

    return sync_run(&call);
}

int blk_preadv(BlockBackend *blk, int64_t offset, const struct iov_view *iov, int flags)
{
    struct bdrv_req req = blk_req_iov(BDRV_OP_READ, offset, iov, flags);

    return blk_request_sync(blk, &req);
}

int blk_pwritev(BlockBackend *blk, int64_t offset, const struct iov_view *iov, int flags)
{
    struct bdrv_req req = blk_req_iov(BDRV_OP_WRITE, offset, iov, flags);

    return blk_request_sync(blk, &req);
}

int blk_pwrite_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes, int flags)
{
    struct bdrv_req req = blk_req_range(BDRV_OP_WRITE_ZEROES, offset, bytes, flags);

    return blk_request_sync(blk, &req);
}

int blk_pdiscard(BlockBackend *blk, int64_t offset, int64_t bytes)
{
    struct bdrv_req req = blk_req_range(BDRV_OP_DISCARD, offset, bytes, 0);

    return blk_request_sync(blk, &req);
}

int blk_flush(BlockBackend *blk)
{
    struct bdrv_req req = {.op = BDRV_OP_FLUSH};

    return blk_request_sync(blk, &req);
}

int blk_flush_all(Platter *pl)
{
    BLK_ASSERT_CONTROL_POLLS(pl);
    return bdrv_flush_all(pl);
}

static int ioctl_run_co(struct sync_call *call)
{
    return blk_ioctl_over_co(call->blk, call->ioctl_request, call->ioctl_buf, call->over_drain);
}

int blk_ioctl(BlockBackend *blk, unsigned long req, void *buf)
{
    struct sync_call call = {
        .blk = blk, .run_co = ioctl_run_co, .ioctl_request = req, .ioctl_buf = buf};

    return sync_run(&call);
}

static int vmstate_run_co(struct sync_call *call)
{
    return blk_vmstate_over_co(call->blk, call->req, call->over_drain);
}

static int vmstate_sync(BlockBackend *blk, enum bdrv_op op, const uint8_t *buf, int64_t pos,
                        int size)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)buf, .iov_len = size > 0 ? (size_t)size : 0};
    struct bdrv_req req = {.op = op, .offset = (uint64_t)pos, .iov = &iov, .niov = 1};
    struct sync_call call = {.blk = blk, .run_co = vmstate_run_co, .req = &req};
    int ret;

    if (pos < 0 || size < 0) {
        return -EINVAL;
    }
    req.bytes = (uint64_t)size;
    ret = sync_run(&call);
    return ret < 0 ? ret : size;
}

int blk_save_vmstate(BlockBackend *blk, const uint8_t *buf, int64_t pos, int size)
{
    return vmstate_sync(blk, BDRV_OP_WRITE, buf, pos, size);
}

int blk_load_vmstate(BlockBackend *blk, uint8_t *buf, int64_t pos, int size)
{
    return vmstate_sync(blk, BDRV_OP_READ, buf, pos, size);
}

static int truncate_run_co(struct sync_call *call)
{
    return blk_truncate_over_co(call->blk, call->size_bytes, call->exact, call->prealloc,
                                call->over_drain, call->errp);
}

int blk_resize(BlockBackend *blk, int64_t size_bytes, bool exact, enum bdrv_prealloc prealloc,
               Error **errp)
{
    struct sync_call call = {
        .blk = blk,
        .run_co = truncate_run_co,
        .size_bytes = size_bytes,
        .exact = exact,
        .prealloc = prealloc,
        .errp = errp,
    };
    int ret;

    ret = sync_run(&call);
    if (ret == -ENOMEM && errp != NULL && *errp == NULL) {
        error_set(errp, ENOMEM, "Cannot resize: out of memory");
    }
    return ret;
}

int blk_truncate(BlockBackend *blk, int64_t offset)
{
    return blk_resize(blk, offset, false, BDRV_PREALLOC_OFF, NULL);
}
