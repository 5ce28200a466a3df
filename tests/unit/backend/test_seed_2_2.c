/* SPDX-License-Identifier: MIT */
/* Section 2.2 of the seed: medium and root node. One test a row, named by it. */
#include "fake.h"

static void test_blk_bs(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd0", NULL);
    BlockDriverState *bs = fake_open(env->pl, "fake", NULL, BDRV_O_RDWR);

    assert_null(blk_bs(blk));
    assert_int_equal(blk_insert_bs(blk, bs, NULL), 0);
    assert_ptr_equal(blk_bs(blk), bs);
    blk_unref(blk);
    bdrv_unref(bs);
}

static void notify_count(BlkNotifier *n, BlockBackend *blk);

struct counting {
    BlkNotifier n;
    int calls;
    bool had_root;
};

static void notify_count(BlkNotifier *n, BlockBackend *blk)
{
    struct counting *c = (struct counting *)n;

    c->calls++;
    c->had_root = blk_bs(blk) != NULL;
}

static void test_blk_set_bs(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd0", NULL);
    BlockDriverState *a = fake_open(env->pl, "fake", "a", BDRV_O_RDWR);
    BlockDriverState *b = fake_open(env->pl, "fake", "b", BDRV_O_RDWR);
    BlockDriverState *ro = fake_open(env->pl, "fake", "ro", 0);
    struct counting insert = {.n.notify = notify_count};
    struct counting removed = {.n.notify = notify_count};
    uint64_t perm, shared;

    blk_add_insert_bs_notifier(blk, &insert.n);
    blk_add_remove_bs_notifier(blk, &removed.n);
    assert_int_equal(blk_set_bs(blk, a, NULL), 0); /* into an empty one */
    assert_int_equal(bdrv_get_refcnt(a), 2);
    assert_int_equal(blk_set_bs(blk, a, NULL), 0); /* the same again */
    assert_int_equal(bdrv_get_refcnt(a), 2);
    assert_int_equal(blk_set_bs(blk, b, NULL), 0);
    assert_ptr_equal(blk_bs(blk), b);
    assert_int_equal(bdrv_get_refcnt(a), 1);
    assert_int_equal(bdrv_get_refcnt(b), 2);

    /* a read-only one needs less, and back */
    assert_int_equal(blk_set_bs(blk, ro, NULL), 0);
    blk_get_perm(blk, &perm, &shared);
    assert_int_equal(perm, BDRV_PERM_CONSISTENT_READ);
    assert_int_equal(blk_pwrite(blk, 0, "x", 1), -EPERM);
    assert_int_equal(blk_set_bs(blk, b, NULL), 0);
    assert_int_equal(blk_pwrite(blk, 0, "x", 1), 1);
    assert_int_equal(bdrv_get_refcnt(ro), 1);

    assert_int_equal(insert.calls, 0); /* no notices */
    assert_int_equal(removed.calls, 0);
    blk_notifier_remove(&removed.n);
    blk_unref(blk);
    bdrv_unref(a);
    bdrv_unref(b);
    bdrv_unref(ro);
}

static void test_blk_insert_bs(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd0", NULL);
    BlockDriverState *bs = fake_open(env->pl, "fake", "n", BDRV_O_RDWR);
    struct counting insert = {.n.notify = notify_count};
    Error *err = NULL;

    blk_add_insert_bs_notifier(blk, &insert.n);
    assert_int_equal(blk_insert_bs(blk, bs, &err), 0);
    assert_int_equal(bdrv_get_refcnt(bs), 2);
    assert_int_equal(insert.calls, 1);
    assert_true(insert.had_root);
    assert_int_equal(blk_insert_bs(blk, bs, &err), -EBUSY);
    expect_error(err, "Device 'hd0' already has a medium");
    assert_int_equal(bdrv_get_refcnt(bs), 2);
    assert_int_equal(insert.calls, 1);
    blk_unref(blk);
    bdrv_unref(bs);
}

static void test_blk_remove_bs(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd0", NULL);
    BlockDriverState *bs = fake_open(env->pl, "fake", "n", BDRV_O_UNMAP);
    struct counting removed = {.n.notify = notify_count};
    struct done done = {0};
    uint8_t buf[512];
    struct iovec iov = {buf, sizeof(buf)};
    struct iov_view view = iov_view_of(&iov, 1);

    blk_add_remove_bs_notifier(blk, &removed.n);
    blk_remove_bs(blk); /* nothing there */
    assert_int_equal(removed.calls, 0);
    assert_int_equal(blk_insert_bs(blk, bs, NULL), 0);
    fake_of(bs)->turn = true;
    assert_non_null(blk_aio_preadv(blk, 0, &view, 0, done_cb, &done));
    blk_remove_bs(blk);
    assert_int_equal(done.calls, 1); /* drained */
    assert_int_equal(done.ret, 0);
    assert_int_equal(removed.calls, 1);
    assert_true(removed.had_root); /* told before it goes */
    assert_null(blk_bs(blk));
    assert_int_equal(bdrv_get_refcnt(bs), 1);
    assert_int_equal(blk_pread(blk, 0, buf, 1), -ENOMEDIUM);
    /* the root state is saved */
    assert_int_equal(blk_is_read_only(blk), 1);
    assert_int_equal(blk_get_flags(blk) & BDRV_O_UNMAP, BDRV_O_UNMAP);
    assert_int_equal(blk_insert_bs(blk, bs, NULL), 0);
    assert_int_equal(blk_pread(blk, 0, buf, 1), 1);
    blk_unref(blk);
    bdrv_unref(bs);
}

static void test_blk_is_inserted(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd0", NULL);
    BlockDriverState *bs = fake_open(env->pl, "fake-filter", NULL, BDRV_O_RDWR);

    assert_false(blk_is_inserted(blk));
    assert_int_equal(blk_insert_bs(blk, bs, NULL), 0);
    assert_true(blk_is_inserted(blk));
    fake_of(bs)->inserted = false;
    assert_false(blk_is_inserted(blk));
    assert_int_equal(blk_flush(blk), -ENOMEDIUM);
    blk_unref(blk);
    bdrv_unref(bs);
}

static bool tray_open;

static bool tray_is_open(void *opaque)
{
    return tray_open;
}

static void test_blk_is_available(void **state)
{
    struct env *env = *state;
    static const BlockDevOps ops = {.is_tray_open = tray_is_open};
    BlockBackend *blk = fake_blk(env->pl, "hd0");

    tray_open = false;
    assert_true(blk_is_available(blk));
    blk_set_dev_ops(blk, &ops, NULL);
    assert_true(blk_is_available(blk));
    tray_open = true;
    assert_false(blk_is_available(blk));
    assert_true(blk_is_inserted(blk));
    blk_set_dev_ops(blk, NULL, NULL);
    assert_true(blk_is_available(blk));
    blk_remove_bs(blk);
    assert_false(blk_is_available(blk));
    blk_unref(blk);
}

static void test_blk_invalidate_cache(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd0", NULL);
    BlockDriverState *bs = fake_open(env->pl, "fake-filter", NULL, BDRV_O_RDWR);
    Error *err = NULL;

    blk_invalidate_cache(blk, &err);
    expect_error(err, "Device 'hd0' has no medium");
    assert_int_equal(blk_insert_bs(blk, bs, NULL), 0);
    fake_of(bs)->inserted = false; /* not asked for */
    blk_invalidate_cache(blk, &err);
    assert_null(err);
    assert_int_equal(fake_of(bs)->invalidated, 1);
    blk_remove_bs(blk);
    blk_hide_on_behalf_of_hmp_drive_del(blk);
    blk_invalidate_cache(blk, &err);
    expect_error(err, "Device '' has no medium");
    blk_unref(blk);
    bdrv_unref(bs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, env_setup, env_teardown)
        T(test_blk_bs),
        T(test_blk_set_bs),
        T(test_blk_insert_bs),
        T(test_blk_remove_bs),
        T(test_blk_is_inserted),
        T(test_blk_is_available),
        T(test_blk_invalidate_cache),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
