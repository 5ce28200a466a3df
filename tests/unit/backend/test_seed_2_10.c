/* SPDX-License-Identifier: MIT */
/*
 * Section 2.10 of the seed: flush, discard, ioctl, compressed, truncate, vmstate, drain. One test a
 * row, named by it.
 */
#include "fake.h"

static bool open_now;

static bool tray_is_open(void *opaque)
{
    return open_now;
}

static const BlockDevOps tray_ops = {.is_tray_open = tray_is_open};

static void test_blk_flush(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    struct fake *fake = fake_of(blk_bs(blk));

    open_now = false;
    blk_set_dev_ops(blk, &tray_ops, NULL);
    assert_int_equal(blk_pwrite(blk, 0, "x", 1), 1);
    open_now = true;
    assert_int_equal(blk_flush(blk), -ENOMEDIUM); /* even with dirty data */
    open_now = false;
    fake->fail = -EIO;
    assert_int_equal(blk_flush(blk), -EIO);
    fake->fail = 0;
    assert_int_equal(blk_flush(blk), 0);
    assert_int_equal(atomic_load(&fake->flushes), 2);
    blk_remove_bs(blk);
    assert_int_equal(blk_flush(blk), -ENOMEDIUM);
    blk_unref(blk);
}

static void test_blk_flush_all(void **state)
{
    struct env *env = *state;
    BlockBackend *a = fake_blk(env->pl, "a");
    BlockBackend *b = fake_blk(env->pl, "b");
    BlockBackend *c = fake_blk(env->pl, "c");
    BlockDriverState *b_bs = blk_bs(b);

    for (BlockBackend *blk = a; blk != NULL; blk = blk_next(env->pl, blk)) {
        assert_int_equal(blk_pwrite(blk, 0, "x", 1), 1);
    }
    bdrv_ref(b_bs);
    blk_remove_bs(b); /* a node under no backend is flushed, too */
    fake_of(blk_bs(a))->fail = -ENOSPC;
    assert_int_equal(blk_flush_all(env->pl), -ENOSPC);
    assert_int_equal(atomic_load(&fake_of(blk_bs(a))->flushes), 1);
    assert_int_equal(atomic_load(&fake_of(b_bs)->flushes), 1); /* it goes on */
    assert_int_equal(atomic_load(&fake_of(blk_bs(c))->flushes), 1);
    fake_of(blk_bs(a))->fail = 0;
    assert_int_equal(blk_flush_all(env->pl), 0);
    bdrv_unref(b_bs);
    blk_unref(a);
    blk_unref(b);
    blk_unref(c);
}

static void test_blk_discard(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");

    assert_int_equal(blk_discard(blk, 0, 8), 0);
    assert_int_equal(atomic_load(&fake_of(blk_bs(blk))->discards), 1);
    assert_int_equal(blk_discard(blk, FAKE_SECTORS - 1, 2), -EIO);
    blk_unref(blk);
}

static void test_blk_ioctl(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    int answer = 0;

    assert_int_equal(blk_ioctl(blk, 77, &answer), 0);
    assert_int_equal(answer, 42);
    assert_int_equal(fake_of(blk_bs(blk))->last_ioctl, 77);
    blk_remove_bs(blk);
    assert_int_equal(blk_ioctl(blk, 77, &answer), -ENOMEDIUM);
    blk_unref(blk);
}

static void test_blk_save_vmstate(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    struct fake *fake = fake_of(blk_bs(blk));
    const uint8_t buf[3] = {1, 2, 3};

    assert_int_equal(blk_save_vmstate(blk, buf, 5, 3), 3); /* bytes, not 0 */
    assert_memory_equal(fake->vmstate + 5, buf, 3);
    assert_int_equal(atomic_load(&fake->flushes), 0);
    blk_set_enable_write_cache(blk, false);
    assert_int_equal(blk_save_vmstate(blk, buf, 0, 3), 3);
    assert_int_equal(atomic_load(&fake->flushes), 1);
    assert_int_equal(blk_save_vmstate(blk, buf, -1, 3), -EINVAL);
    assert_int_equal(blk_save_vmstate(blk, buf, 0, -3), -EINVAL);
    assert_int_equal(blk_set_read_only(blk, true, NULL), 0);
    assert_int_equal(blk_save_vmstate(blk, buf, 0, 3), -EPERM);
    assert_int_equal(blk_set_read_only(blk, false, NULL), 0);
    fake->fail = -ENOSPC;
    assert_int_equal(blk_save_vmstate(blk, buf, 0, 3), -ENOSPC);
    blk_remove_bs(blk);
    assert_int_equal(blk_save_vmstate(blk, buf, 0, 3), -ENOMEDIUM);
    blk_unref(blk);
}

static void test_blk_load_vmstate(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    BlockBackend *cd = blk_new(env->pl, "cd0", NULL);
    BlockDriverState *bs = fake_open(env->pl, "fake-cd", NULL, BDRV_O_RDWR);
    uint8_t buf[3] = {0};

    memset(fake_of(blk_bs(blk))->vmstate, 9, FAKE_VMSTATE_BYTES);
    assert_int_equal(blk_load_vmstate(blk, buf, 7, 3), 3);
    assert_int_equal(buf[2], 9);
    blk_set_read_only(blk, true, NULL);
    assert_int_equal(blk_load_vmstate(blk, buf, 7, 3), 3);
    fake_of(blk_bs(blk))->fail = -EIO;
    assert_int_equal(blk_load_vmstate(blk, buf, 7, 3), -EIO);
    assert_int_equal(blk_load_vmstate(cd, buf, 7, 3), -ENOMEDIUM);
    assert_int_equal(blk_insert_bs(cd, bs, NULL), 0);
    assert_int_equal(blk_load_vmstate(cd, buf, 7, 3), -ENOTSUP);
    assert_int_equal(blk_save_vmstate(cd, buf, 7, 3), -ENOTSUP);
    bdrv_unref(bs);
    blk_unref(cd);
    blk_unref(blk);
}

static void test_blk_write_compressed(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    uint8_t buf[1024] = {0};

    assert_int_equal(blk_write_compressed(blk, 0, buf, 2), -ENOTSUP); /* no such format */
    assert_int_equal(atomic_load(&fake_of(blk_bs(blk))->writes), 0);
    assert_int_equal(blk_write_compressed(blk, -1, buf, 2), -EIO);
    blk_remove_bs(blk);
    assert_int_equal(blk_write_compressed(blk, 0, buf, 2), -ENOMEDIUM);
    assert_int_equal(blk_write_compressed(blk, -1, buf, 2), -EIO);
    blk_unref(blk);
}

static void test_blk_truncate(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    BlockDriverState *ro = fake_open(env->pl, "fake", NULL, 0);
    uint8_t buf[512];
    Error *err = NULL;

    assert_int_equal(blk_truncate(blk, 8192), 0);
    assert_int_equal(blk_getlength(blk), 8192);
    assert_int_equal(blk_pread(blk, 8192, buf, 1), -EIO);
    assert_int_equal(blk_truncate(blk, FAKE_BYTES), 0);
    assert_int_equal(blk_pread(blk, 8192, buf, 1), 1);
    assert_int_equal(blk_truncate(blk, -1), -EINVAL);
    assert_int_equal(blk_truncate(blk, FAKE_BYTES * 2), -EFBIG);
    assert_int_equal(blk_getlength(blk), FAKE_BYTES);

    assert_int_equal(blk_resize(blk, 4096, true, BDRV_PREALLOC_OFF, &err), 0);
    assert_int_equal(blk_getlength(blk), 4096);
    assert_int_equal(blk_resize(blk, -4096, true, BDRV_PREALLOC_OFF, &err), -EINVAL);
    assert_non_null(err);
    error_free(err);
    err = NULL;
    assert_int_equal(blk_set_bs(blk, ro, NULL), 0);
    assert_int_equal(blk_truncate(blk, 8192), -EPERM);
    blk_remove_bs(blk);
    assert_int_equal(blk_truncate(blk, 8192), -ENOMEDIUM);
    assert_int_equal(blk_truncate(blk, -1), -ENOMEDIUM);
    assert_int_equal(blk_resize(blk, 0, false, BDRV_PREALLOC_OFF, &err), -ENOMEDIUM);
    expect_error(err, "No medium inserted");
    blk_unref(blk);
    bdrv_unref(ro);
}

static void test_blk_drain(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd0", NULL);
    BlockDriverState *bs = fake_open(env->pl, "fake", NULL, BDRV_O_RDWR);
    struct done done[3] = {0};
    uint8_t buf[512];
    struct iovec iov = {buf, sizeof(buf)};
    struct iov_view view = iov_view_of(&iov, 1);

    blk_drain(blk);
    /* early failures on an empty one are waited for */
    blk_aio_preadv(blk, 0, &view, 0, done_cb, &done[0]);
    blk_drain(blk);
    assert_int_equal(done[0].calls, 1);

    assert_int_equal(blk_insert_bs(blk, bs, NULL), 0);
    fake_of(bs)->turn = true;
    blk_aio_preadv(blk, 0, &view, 0, done_cb, &done[1]);
    blk_aio_preadv(blk, FAKE_BYTES, &view, 0, done_cb, &done[2]);
    assert_int_equal(done[1].calls + done[2].calls, 0);
    blk_drain(blk);
    assert_int_equal(done[1].calls, 1);
    assert_int_equal(done[1].ret, 0);
    assert_int_equal(done[2].calls, 1);
    assert_int_equal(done[2].ret, -EIO);
    blk_unref(blk);
    bdrv_unref(bs);
}

static void test_blk_drain_all(void **state)
{
    struct env *env = *state;
    BlockBackend *empty = blk_new(env->pl, "e", NULL);
    BlockBackend *a = fake_blk(env->pl, "a");
    BlockBackend *b = fake_blk(env->pl, "b");
    struct done done[3] = {0};
    uint8_t buf[512];
    struct iovec iov = {buf, sizeof(buf)};
    struct iov_view view = iov_view_of(&iov, 1);

    fake_of(blk_bs(a))->turn = true;
    fake_of(blk_bs(b))->turn = true;
    blk_aio_preadv(a, 0, &view, 0, done_cb, &done[0]);
    blk_aio_preadv(b, 0, &view, 0, done_cb, &done[1]);
    blk_aio_preadv(empty, 0, &view, 0, done_cb, &done[2]);
    blk_drain_all(env->pl);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(done[i].calls, 1);
        assert_int_equal(done[i].ret, i == 2 ? -ENOMEDIUM : 0);
    }
    blk_unref(a);
    blk_unref(b);
    blk_unref(empty);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, env_setup, env_teardown)
        T(test_blk_flush),        T(test_blk_flush_all),        T(test_blk_discard),
        T(test_blk_ioctl),        T(test_blk_write_compressed), T(test_blk_truncate),
        T(test_blk_drain),        T(test_blk_drain_all),        T(test_blk_save_vmstate),
        T(test_blk_load_vmstate),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
