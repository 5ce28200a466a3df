/* SPDX-License-Identifier: MIT */
/*
 * The 64-bit byte calls in their three styles: the same answers whatever the door, in every kind of
 * thread; status, copy, and the size calls that are not of the seed.
 */
#include "fake.h"

#include <stdlib.h>

enum door { DOOR_SYNC, DOOR_CO, DOOR_AIO, DOOR_SYNC_IN_CO, DOORS };

struct call {
    enum door door;
    BlockBackend *blk;
    enum bdrv_op op;
    int64_t offset;
    int64_t bytes;
    const struct iov_view *iov;
    int flags;
};

static int call_sync(const struct call *c)
{
    switch (c->op) {
    case BDRV_OP_READ:
        return blk_preadv(c->blk, c->offset, c->iov, c->flags);
    case BDRV_OP_WRITE:
        return blk_pwritev(c->blk, c->offset, c->iov, c->flags);
    case BDRV_OP_WRITE_ZEROES:
        return blk_pwrite_zeroes(c->blk, c->offset, c->bytes, c->flags);
    case BDRV_OP_DISCARD:
        return blk_pdiscard(c->blk, c->offset, c->bytes);
    default:
        return blk_flush(c->blk);
    }
}

static int call_co(void *arg)
{
    const struct call *c = arg;

    if (c->door == DOOR_SYNC_IN_CO) {
        return call_sync(c);
    }
    switch (c->op) {
    case BDRV_OP_READ:
        return blk_co_preadv(c->blk, c->offset, c->iov, c->flags);
    case BDRV_OP_WRITE:
        return blk_co_pwritev(c->blk, c->offset, c->iov, c->flags);
    case BDRV_OP_WRITE_ZEROES:
        return blk_co_pwrite_zeroes(c->blk, c->offset, c->bytes, c->flags);
    case BDRV_OP_DISCARD:
        return blk_co_pdiscard(c->blk, c->offset, c->bytes);
    default:
        return blk_co_flush(c->blk);
    }
}

static int call_aio(const struct call *c)
{
    struct done done = {0};
    BlockAIOCB *acb;

    switch (c->op) {
    case BDRV_OP_READ:
        acb = blk_aio_preadv(c->blk, c->offset, c->iov, c->flags, done_cb, &done);
        break;
    case BDRV_OP_WRITE:
        acb = blk_aio_pwritev(c->blk, c->offset, c->iov, c->flags, done_cb, &done);
        break;
    case BDRV_OP_WRITE_ZEROES:
        acb = blk_aio_pwrite_zeroes(c->blk, c->offset, c->bytes, c->flags, done_cb, &done);
        break;
    case BDRV_OP_DISCARD:
        acb = blk_aio_pdiscard(c->blk, c->offset, c->bytes, done_cb, &done);
        break;
    default:
        acb = blk_aio_flush(c->blk, done_cb, &done);
        break;
    }
    assert_non_null(acb);
    assert_int_equal(done.calls, 0);
    done_wait(&done);
    assert_int_equal(done.calls, 1);
    return done.ret;
}

static int call_run(struct call *c)
{
    switch (c->door) {
    case DOOR_SYNC:
        return call_sync(c);
    case DOOR_AIO:
        return call_aio(c);
    default:
        return in_co(call_co, c);
    }
}

static void expect_all(BlockBackend *blk, enum bdrv_op op, int64_t offset,
                       const struct iov_view *iov, int64_t bytes, int flags, int ret)
{
    for (int door = 0; door < DOORS; door++) {
        struct call c = {door, blk, op, offset, bytes, iov, flags};

        assert_int_equal(call_run(&c), ret);
    }
}

static void test_doors_agree(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    struct fake *fake = fake_of(blk_bs(blk));
    uint8_t a[100], b[300];
    struct iovec iov[2] = {{a, sizeof(a)}, {b, sizeof(b)}};
    struct iov_view view = iov_view_of(iov, 2);
    struct iov_view none = {0};
    struct iov_view huge = {iov, 2, UINT64_MAX};

    for (int turn = 0; turn < 2; turn++) {
        fake->turn = turn;
        memset(a, 1 + turn, sizeof(a));
        memset(b, 3 + turn, sizeof(b));
        expect_all(blk, BDRV_OP_WRITE, 77, &view, 0, 0, 0);
        assert_memory_equal(fake->data + 77, a, sizeof(a));
        assert_memory_equal(fake->data + 177, b, sizeof(b));
        memset(a, 0, sizeof(a));
        expect_all(blk, BDRV_OP_READ, 77, &view, 0, 0, 0);
        assert_int_equal(a[99], 1 + turn);
        expect_all(blk, BDRV_OP_WRITE, 77, &view, 0, BDRV_REQ_FUA, 0);
        expect_all(blk, BDRV_OP_WRITE_ZEROES, 80, NULL, 5, BDRV_REQ_FUA | BDRV_REQ_MAY_UNMAP, 0);
        assert_int_equal(fake->data[80] + fake->data[84], 0);
        assert_int_equal(fake->data[85], 1 + turn);
        expect_all(blk, BDRV_OP_DISCARD, 0, NULL, 4096, 0, 0);
        expect_all(blk, BDRV_OP_FLUSH, 0, NULL, 0, 0, 0);
        expect_all(blk, BDRV_OP_READ, FAKE_BYTES, &none, 0, 0, 0);
        expect_all(blk, BDRV_OP_READ, FAKE_BYTES, &view, 0, 0, -EIO);
        expect_all(blk, BDRV_OP_READ, -1, &view, 0, 0, -EIO);
        expect_all(blk, BDRV_OP_READ, INT64_MIN, &none, 0, 0, -EIO);
        expect_all(blk, BDRV_OP_READ, 0, &huge, 0, 0, -EIO);
        expect_all(blk, BDRV_OP_READ, 0, &view, 0, BDRV_REQ_FUA, -EINVAL);
        expect_all(blk, BDRV_OP_WRITE, 0, &view, 0, BDRV_REQ_MAY_UNMAP, -EINVAL);
        expect_all(blk, BDRV_OP_WRITE, -1, &view, 0, BDRV_REQ_MAY_UNMAP, -EIO);
        /* the internal flags are nobody's business here */
        expect_all(blk, BDRV_OP_WRITE, 0, &view, 0, BDRV_REQ_SERIALISING, -EINVAL);
        expect_all(blk, BDRV_OP_WRITE, 0, &view, 0, BDRV_REQ_WRITE_UNCHANGED, -EINVAL);
        expect_all(blk, BDRV_OP_WRITE, 0, &view, 0, INT_MIN, -EINVAL);
        expect_all(blk, BDRV_OP_WRITE_ZEROES, 0, NULL, -1, 0, -EIO);
        expect_all(blk, BDRV_OP_WRITE_ZEROES, 0, NULL, INT64_MIN, 0, -EIO);
        expect_all(blk, BDRV_OP_WRITE_ZEROES, INT64_MAX, NULL, INT64_MAX, 0, -EIO);
        expect_all(blk, BDRV_OP_DISCARD, INT64_MAX, NULL, INT64_MAX, 0, -EIO);
    }
    fake->fail = -ENOSPC;
    expect_all(blk, BDRV_OP_WRITE, 0, &view, 0, 0, -ENOSPC);
    expect_all(blk, BDRV_OP_READ, 0, &view, 0, 0, -ENOSPC);
    fake->fail = 0;
    blk_remove_bs(blk);
    expect_all(blk, BDRV_OP_READ, 0, &view, 0, 0, -ENOMEDIUM);
    expect_all(blk, BDRV_OP_READ, -1, &view, 0, 0, -ENOMEDIUM);
    expect_all(blk, BDRV_OP_READ, 0, &huge, 0, 0, -EIO);
    expect_all(blk, BDRV_OP_WRITE_ZEROES, 0, NULL, -1, 0, -EIO);
    expect_all(blk, BDRV_OP_FLUSH, 0, NULL, 0, 0, -ENOMEDIUM);
    blk_unref(blk);
}

/* ---- threads ---- */

struct thread_run {
    BlockBackend *blk;
    AioContext *ctx; /* of the thread; NULL: it runs none */
    _Atomic bool done;
};

static void many_calls(BlockBackend *blk)
{
    uint8_t buf[512];
    struct iovec iov = {buf, sizeof(buf)};
    struct iov_view view = iov_view_of(&iov, 1);

    for (int i = 0; i < 50; i++) {
        int64_t size = blk_getlength(blk);

        assert_int_equal(blk_pwritev(blk, 512 * i, &view, 0), 0);
        assert_int_equal(blk_preadv(blk, 512 * i, &view, 0), 0);
        assert_int_equal(blk_preadv(blk, -1, &view, 0), -EIO);
        assert_true(size == FAKE_BYTES);
        assert_int_equal(blk_flush(blk), 0);
        assert_true(blk_is_available(blk));
        assert_int_equal(blk_get_request_alignment(blk), 1);
    }
}

static void *thread_main(void *arg)
{
    struct thread_run *run = arg;

    if (run->ctx != NULL) {
        aio_context_set_current(run->ctx);
    }
    many_calls(run->blk);
    if (run->ctx != NULL) {
        while (aio_poll(run->ctx, false)) {
        }
        aio_context_set_current(NULL);
    }
    atomic_store(&run->done, true);
    aio_notify(blk_get_aio_context(run->blk));
    return NULL;
}

static void thread_test(struct env *env, AioContext *ctx)
{
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    struct thread_run run = {.blk = blk, .ctx = ctx};
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, thread_main, &run), 0);
    while (!atomic_load(&run.done)) {
        aio_poll(env->ctx, true);
        blk_drain(blk); /* and what changes the graph goes on meanwhile */
    }
    pthread_join(thread, NULL);
    blk_unref(blk);
}

static void test_thread_with_context(void **state)
{
    AioContext *ctx = aio_context_new(NULL, NULL);

    thread_test(*state, ctx);
    aio_context_unref(ctx);
}

static void test_thread_without_context(void **state)
{
    thread_test(*state, NULL);
}

struct foreign {
    BlockBackend *blk;
    AioContext *ran_in;
    _Atomic int calls;
    int ret;
};

static void foreign_cb(void *opaque, int ret)
{
    struct foreign *f = opaque;

    f->ran_in = aio_context_current();
    f->ret = ret;
    atomic_fetch_add(&f->calls, 1);
}

static void *foreign_main(void *arg)
{
    static uint8_t buf[512];
    static struct iovec iov = {buf, sizeof(buf)};
    static struct iov_view view = {&iov, 1, sizeof(buf)};
    struct foreign *f = arg;

    assert_non_null(blk_aio_preadv(f->blk, 0, &view, 0, foreign_cb, f));
    return NULL;
}

/* A thread that runs no context: callback in the backend's own context, also over a last unref. */
static void test_aio_without_context(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    struct foreign f = {.blk = blk};
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, foreign_main, &f), 0);
    pthread_join(thread, NULL);
    assert_int_equal(atomic_load(&f.calls), 0);
    blk_unref(blk);
    while (atomic_load(&f.calls) == 0) {
        aio_poll(env->ctx, true);
    }
    assert_int_equal(f.ret, 0);
    assert_ptr_equal(f.ran_in, env->ctx);
    env_poll(env);
    assert_null(blk_by_name(env->pl, "hd0"));
}

static void *foreign_cancel_main(void *arg)
{
    static uint8_t buf[512];
    static struct iovec iov = {buf, sizeof(buf)};
    static struct iov_view view = {&iov, 1, sizeof(buf)};
    struct foreign *f = arg;
    BlockAIOCB *acb = blk_aio_preadv(f->blk, 0, &view, 0, foreign_cb, f);

    assert_non_null(acb);
    blk_aio_cancel(acb); /* sleeps until it has completed */
    assert_int_equal(atomic_load(&f->calls), 1);
    atomic_fetch_add(&f->calls, 1);
    aio_notify(blk_get_aio_context(f->blk));
    return NULL;
}

/* Whether it waits already or is still on its way, it never reaches the node. */
static void test_cancel_without_context(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    struct foreign f = {.blk = blk};
    pthread_t thread;

    bdrv_drained_begin(blk_bs(blk));
    assert_int_equal(pthread_create(&thread, NULL, foreign_cancel_main, &f), 0);
    while (atomic_load(&f.calls) < 2) {
        aio_poll(env->ctx, true);
    }
    pthread_join(thread, NULL);
    assert_int_equal(f.ret, -ECANCELED);
    assert_int_equal(atomic_load(&fake_of(blk_bs(blk))->reads), 0);
    bdrv_drained_end(blk_bs(blk));
    blk_unref(blk);
}

/* ---- status, copy, resize ---- */

static int co_status(void *arg)
{
    BlockBackend *blk = arg;
    int64_t bytes = 0, map = 0;
    int depth = 0;
    int ret = blk_co_block_status(blk, 4096, FAKE_BYTES, &bytes, &map, &depth);

    assert_int_equal(ret, -EIO); /* past the end */
    ret = blk_co_block_status(blk, 4096, 8192, &bytes, &map, &depth);
    assert_true(ret & BDRV_BLOCK_DATA);
    assert_int_equal(bytes, 8192);
    assert_int_equal(depth, 1);
    assert_int_equal(blk_co_block_status(blk, 4096, 8192, &bytes, NULL, NULL), ret);
    assert_int_equal(blk_co_block_status(blk, 0, -1, &bytes, NULL, NULL), -EIO);
    assert_int_equal(blk_co_block_status(blk, 0, 0, &bytes, NULL, NULL), -EINVAL);
    return 0;
}

static void test_block_status(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");

    assert_int_equal(in_co(co_status, blk), 0);
    blk_unref(blk);
}

static int co_copy(void *arg)
{
    BlockBackend **blks = arg;

    assert_int_equal(blk_co_copy_range(blks[0], 0, blks[1], FAKE_BYTES, 1, 0, 0), -EIO);
    assert_int_equal(blk_co_copy_range(blks[0], -1, blks[1], 0, 1, 0, 0), -EIO);
    assert_int_equal(blk_co_copy_range(blks[0], 0, blks[1], 0, -1, 0, 0), -EIO);
    assert_int_equal(blk_co_copy_range(blks[0], 0, blks[1], 0, 1, 0, 1 << 30), -EINVAL);
    return blk_co_copy_range(blks[0], 0, blks[1], 0, 4096, 0, BDRV_REQ_FUA);
}

static void test_copy_range(void **state)
{
    struct env *env = *state;
    BlockBackend *blks[2] = {fake_blk(env->pl, "a"), fake_blk(env->pl, "b")};

    assert_int_equal(in_co(co_copy, blks), -ENOTSUP); /* no such storage; nothing was copied */
    blk_unref(blks[0]);
    blk_unref(blks[1]);
}

static int co_truncate(void *arg)
{
    BlockBackend *blk = arg;
    Error *err = NULL;

    assert_int_equal(blk_co_truncate(blk, 4096, true, BDRV_PREALLOC_OFF, 1, &err), -EINVAL);
    error_free(err);
    assert_int_equal(blk_co_truncate(blk, 4096, true, BDRV_PREALLOC_OFF, 0, NULL), 0);
    assert_int_equal(blk_truncate(blk, 8192), 0); /* sync in a coroutine */
    return (int)blk_getlength(blk);
}

static void test_truncate_co(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");

    assert_int_equal(in_co(co_truncate, blk), 8192);
    blk_unref(blk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, env_setup, env_teardown)
        T(test_doors_agree),
        T(test_thread_with_context),
        T(test_thread_without_context),
        T(test_aio_without_context),
        T(test_cancel_without_context),
        T(test_block_status),
        T(test_copy_range),
        T(test_truncate_co),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
