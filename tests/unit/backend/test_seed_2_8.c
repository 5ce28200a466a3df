/* SPDX-License-Identifier: MIT */
/*
 * Sections 2.8 and 2.9 of the seed: asynchronous I/O and the coroutine calls. One test a row, named
 * by it.
 */
#include "fake.h"

#include <stdlib.h>

static uint8_t buf[4096];
static struct iovec iov = {buf, 1024};
static struct iov_view view = {&iov, 1, 1024};

/* The rule for all: a handle, no callback before the call returns, then exactly one. */
static void expect(struct env *env, BlockAIOCB *acb, struct done *done, int ret)
{
    assert_non_null(acb);
    assert_int_equal(done->calls, 0);
    done_wait(done);
    env_poll(env);
    assert_int_equal(done->calls, 1);
    assert_int_equal(done->ret, ret);
    assert_ptr_equal(done->ctx, env->ctx);
    *done = (struct done){0};
}

static void test_error_callback_bh(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd0", NULL);
    struct done done = {0};

    expect(env, blk_aio_preadv(blk, 0, &view, 0, done_cb, &done), &done, -ENOMEDIUM);
    blk_unref(blk);
}

/* An early failure counts as in flight and holds the backend. */
static void test_abort_aio_request(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd0", NULL);
    struct done done = {0};

    assert_non_null(blk_aio_flush(blk, done_cb, &done));
    assert_true(blk_in_flight(blk));
    blk_drain(blk);
    assert_int_equal(done.calls, 1);
    assert_int_equal(done.ret, -ENOMEDIUM);
    assert_false(blk_in_flight(blk));

    done = (struct done){0};
    assert_non_null(blk_aio_flush(blk, done_cb, &done));
    blk_unref(blk);
    assert_int_equal(done.calls, 0);
    assert_ptr_equal(blk_by_name(env->pl, "hd0"), blk); /* held by the request */
    done_wait(&done);
    env_poll(env);
    assert_null(blk_by_name(env->pl, "hd0"));
}

static void test_blk_aio_write_zeroes(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    struct fake *fake = fake_of(blk_bs(blk));
    struct done done = {0};

    memset(fake->data, 1, 2048);
    expect(env, blk_aio_write_zeroes(blk, 1, 1, BDRV_REQ_MAY_UNMAP, done_cb, &done), &done, 0);
    assert_int_equal(fake->data[512], 0);
    assert_int_equal(fake->data[1024], 1);
    expect(env, blk_aio_write_zeroes(blk, -1, 1, 0, done_cb, &done), &done, -EIO);
    expect(env, blk_aio_write_zeroes(blk, 0, 1, 1 << 30, done_cb, &done), &done, -EINVAL);
    blk_remove_bs(blk);
    expect(env, blk_aio_write_zeroes(blk, 0, 1, 0, done_cb, &done), &done, -ENOMEDIUM);
    expect(env, blk_aio_write_zeroes(blk, -1, 1, 0, done_cb, &done), &done, -EIO);
    blk_unref(blk);
}

static void test_blk_aio_readv(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    struct fake *fake = fake_of(blk_bs(blk));
    struct done done = {0};

    for (int turn = 0; turn < 2; turn++) { /* done at once, and later */
        fake->turn = turn;
        memset(fake->data + 512, 3 + turn, 1024);
        expect(env, blk_aio_readv(blk, 1, &view, 2, done_cb, &done), &done, 0);
        assert_memory_equal(buf, fake->data + 512, 1024);
    }
    expect(env, blk_aio_readv(blk, 1, &view, 1, done_cb, &done), &done, -EINVAL);
    expect(env, blk_aio_readv(blk, FAKE_SECTORS, &view, 1, done_cb, &done), &done, -EIO);
    expect(env, blk_aio_readv(blk, 0, &view, -2, done_cb, &done), &done, -EIO);
    fake->fail = -ETIMEDOUT;
    expect(env, blk_aio_readv(blk, 1, &view, 2, done_cb, &done), &done, -ETIMEDOUT);
    blk_unref(blk);
}

static void test_blk_aio_writev(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    struct fake *fake = fake_of(blk_bs(blk));
    struct done done = {0};

    memset(buf, 0x77, sizeof(buf));
    expect(env, blk_aio_writev(blk, 4, &view, 2, done_cb, &done), &done, 0);
    assert_memory_equal(fake->data + 2048, buf, 1024);
    expect(env, blk_aio_writev(blk, 4, &view, 3, done_cb, &done), &done, -EINVAL);
    expect(env, blk_aio_writev(blk, INT64_MAX, &view, 2, done_cb, &done), &done, -EIO);
    assert_int_equal(atomic_load(&fake->writes), 1);
    blk_unref(blk);
}

static void test_blk_aio_flush(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    struct fake *fake = fake_of(blk_bs(blk));
    struct done done = {0};

    assert_int_equal(blk_pwrite(blk, 0, "x", 1), 1);
    expect(env, blk_aio_flush(blk, done_cb, &done), &done, 0);
    assert_int_equal(atomic_load(&fake->flushes), 1);
    blk_remove_bs(blk);
    expect(env, blk_aio_flush(blk, done_cb, &done), &done, -ENOMEDIUM);
    blk_unref(blk);
}

static void test_blk_aio_discard(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    struct fake *fake = fake_of(blk_bs(blk));
    struct done done = {0};

    expect(env, blk_aio_discard(blk, 0, 8, done_cb, &done), &done, 0);
    assert_int_equal(atomic_load(&fake->discards), 1);
    expect(env, blk_aio_discard(blk, 0, -8, done_cb, &done), &done, -EIO);
    blk_unref(blk);
}

static void test_blk_aio_ioctl(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    struct fake *fake = fake_of(blk_bs(blk));
    struct done done = {0};
    int answer = 0;

    expect(env, blk_aio_ioctl(blk, 0x1234, &answer, done_cb, &done), &done, 0);
    assert_int_equal(fake->last_ioctl, 0x1234);
    assert_int_equal(answer, 42);
    blk_remove_bs(blk);
    expect(env, blk_aio_ioctl(blk, 1, &answer, done_cb, &done), &done, -ENOMEDIUM);
    blk_unref(blk);
}

static void test_blk_aio_cancel(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    struct fake *fake = fake_of(blk_bs(blk));
    struct done done = {0};
    BlockAIOCB *acb;

    /* under way: returns after completion, with the real result */
    fake->turn = true;
    acb = blk_aio_preadv(blk, 0, &view, 0, done_cb, &done);
    blk_aio_cancel(acb);
    assert_int_equal(done.calls, 1);
    assert_int_equal(done.ret, 0);

    /* an early failure still tells its own error */
    done = (struct done){0};
    acb = blk_aio_preadv(blk, -1, &view, 0, done_cb, &done);
    blk_aio_cancel(acb);
    assert_int_equal(done.calls, 1);
    assert_int_equal(done.ret, -EIO);

    /* in the drained queue: taken out */
    done = (struct done){0};
    bdrv_drained_begin(blk_bs(blk));
    acb = blk_aio_preadv(blk, 0, &view, 0, done_cb, &done);
    assert_non_null(acb);
    env_poll(env);
    assert_int_equal(done.calls, 0);
    blk_aio_cancel(acb);
    assert_int_equal(done.calls, 1);
    assert_int_equal(done.ret, -ECANCELED);
    bdrv_drained_end(blk_bs(blk));
    assert_int_equal(atomic_load(&fake->reads), 1);
    blk_unref(blk);
}

static void test_blk_aio_cancel_async(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    struct fake *fake = fake_of(blk_bs(blk));
    struct done done[3] = {0};
    BlockAIOCB *acb[3];

    fake->hold = true;
    acb[0] = blk_aio_preadv(blk, 0, &view, 0, done_cb, &done[0]);
    blk_aio_cancel_async(acb[0]); /* the node has it already */
    blk_aio_cancel_async(acb[0]);
    env_poll(env);
    assert_int_equal(done[0].calls, 0);
    fake_release(fake);
    env_poll(env);
    assert_int_equal(done[0].calls, 1);
    assert_int_equal(done[0].ret, 0);

    done[0] = (struct done){0};
    bdrv_drained_begin(blk_bs(blk));
    for (int i = 0; i < 3; i++) {
        acb[i] = blk_aio_preadv(blk, 0, &view, 0, done_cb, &done[i]);
    }
    blk_aio_cancel_async(acb[1]);
    env_poll(env);
    assert_int_equal(done[0].calls + done[2].calls, 0);
    assert_int_equal(done[1].calls, 1);
    assert_int_equal(done[1].ret, -ECANCELED);
    bdrv_drained_end(blk_bs(blk));
    env_poll(env);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(done[i].calls, 1);
        assert_int_equal(done[i].ret, i == 1 ? -ECANCELED : 0);
    }
    blk_unref(blk);
}

/* A request kind of the caller's own. */
struct own {
    BlockAIOCB common;
    AioContext *ctx;
    int canceled;
};

static void own_end(void *opaque)
{
    struct own *own = opaque;

    own->common.cb(own->common.opaque, -ECANCELED);
    blk_aio_unref(own);
}

static void own_cancel(BlockAIOCB *acb)
{
    struct own *own = (struct own *)acb;

    own->canceled++;
    assert_int_equal(aio_bh_schedule_oneshot(own->ctx, own_end, own), 0);
}

static AioContext *own_ctx(BlockAIOCB *acb)
{
    return ((struct own *)acb)->ctx;
}

static const AIOCBInfo own_info = {
    .cancel_async = own_cancel,
    .get_aio_context = own_ctx,
    .aiocb_size = sizeof(struct own),
};

static void test_blk_aio_get(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd0", NULL); /* empty is fine */
    struct done done = {0};
    struct own *own = blk_aio_get(&own_info, blk, done_cb, &done);

    assert_non_null(own);
    assert_ptr_equal(own->common.blk, blk);
    assert_ptr_equal(own->common.aiocb_info, &own_info);
    own->ctx = env->ctx;
    blk_aio_cancel(&own->common);
    assert_int_equal(done.calls, 1);
    assert_int_equal(done.ret, -ECANCELED);

    own = blk_aio_get(&own_info, NULL, done_cb, &done);
    assert_non_null(own);
    blk_aio_unref(own);
    blk_unref(blk);
}

static void test_blk_aiocb_get_aio_context(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    struct done done = {0};
    BlockAIOCB *acb = blk_aio_flush(blk, done_cb, &done);

    assert_ptr_equal(acb->aiocb_info->get_aio_context(acb), env->ctx); /* the submitter's */
    done_wait(&done);
    blk_unref(blk);
}

static int co_discard(void *arg)
{
    BlockBackend *blk = arg;

    assert_int_equal(blk_co_discard(blk, -1, 1), -EIO);
    assert_int_equal(blk_co_discard(blk, FAKE_SECTORS, 1), -EIO);
    return blk_co_discard(blk, 0, 8);
}

static void test_blk_co_discard(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");

    assert_int_equal(in_co(co_discard, blk), 0);
    assert_int_equal(atomic_load(&fake_of(blk_bs(blk))->discards), 1);
    blk_unref(blk);
}

static int co_flush(void *arg)
{
    return blk_co_flush(arg);
}

static void test_blk_co_flush(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");

    assert_int_equal(in_co(co_flush, blk), 0);
    blk_remove_bs(blk);
    assert_int_equal(in_co(co_flush, blk), -ENOMEDIUM);
    blk_unref(blk);
}

static int co_write_zeroes(void *arg)
{
    BlockBackend *blk = arg;

    assert_int_equal(blk_co_write_zeroes(blk, 0, INT_MAX, 0), -EIO);
    return blk_co_write_zeroes(blk, 0, 2, BDRV_REQ_FUA);
}

static void test_blk_co_write_zeroes(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    struct fake *fake = fake_of(blk_bs(blk));

    memset(fake->data, 1, 2048);
    fake->turn = true;
    assert_int_equal(in_co(co_write_zeroes, blk), 0);
    assert_int_equal(fake->data[1023], 0);
    assert_int_equal(fake->data[1024], 1);
    assert_true(atomic_load(&fake->last_flags) & BDRV_REQ_FUA);
    blk_unref(blk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, env_setup, env_teardown)
        T(test_error_callback_bh),    T(test_abort_aio_request), T(test_blk_aio_write_zeroes),
        T(test_blk_aio_readv),        T(test_blk_aio_writev),    T(test_blk_aio_flush),
        T(test_blk_aio_discard),      T(test_blk_aio_ioctl),     T(test_blk_aio_cancel),
        T(test_blk_aio_cancel_async), T(test_blk_aio_get),       T(test_blk_aiocb_get_aio_context),
        T(test_blk_co_discard),       T(test_blk_co_flush),      T(test_blk_co_write_zeroes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
