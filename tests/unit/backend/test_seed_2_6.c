/* SPDX-License-Identifier: MIT */
/*
 * Sections 2.6 and 2.7 of the seed: the order of checks, and synchronous read and write. One test a
 * row, named by it. The two checks of 2.6 are private there; here they are seen through each kind
 * of call.
 */
#include "fake.h"

#include <stdlib.h>

static bool open_now;

static bool tray_is_open(void *opaque)
{
    return open_now;
}

static const BlockDevOps tray_ops = {.is_tray_open = tray_is_open};

/* What each kind of byte call says of a range. */
static void expect_bytes(BlockBackend *blk, int64_t offset, int count, int ret)
{
    static uint8_t buf[FAKE_BYTES];

    assert_int_equal(blk_pread(blk, offset, buf, count), ret < 0 ? ret : count);
    assert_int_equal(blk_pwrite(blk, offset, buf, count), ret < 0 ? ret : count);
    assert_int_equal(blk_pwrite_zeroes(blk, offset, count, 0), ret);
    assert_int_equal(blk_pdiscard(blk, offset, count), ret);
}

static void test_blk_check_byte_request(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    BlockDriverState *bs = blk_bs(blk);

    open_now = false;
    expect_bytes(blk, 0, FAKE_BYTES, 0);
    expect_bytes(blk, FAKE_BYTES, 0, 0); /* nothing at exactly the end */
    expect_bytes(blk, FAKE_BYTES, 1, -EIO);
    expect_bytes(blk, FAKE_BYTES + 1, 0, -EIO);
    expect_bytes(blk, FAKE_BYTES - 1, 2, -EIO);
    expect_bytes(blk, -1, 1, -EIO);
    expect_bytes(blk, -1, 0, -EIO);
    expect_bytes(blk, INT64_MIN, 1, -EIO);
    expect_bytes(blk, INT64_MAX, INT_MAX, -EIO);
    expect_bytes(blk, 0, -1, -EIO);
    expect_bytes(blk, 1, INT_MIN, -EIO);

    /* the length's own error passes through, but a malformed size comes before it */
    atomic_store(&bs->size_bytes, -EPROTO);
    expect_bytes(blk, 0, 1, -EPROTO);
    expect_bytes(blk, -1, 1, -EPROTO);
    expect_bytes(blk, 0, -1, -EIO);
    atomic_store(&bs->size_bytes, FAKE_BYTES);

    /* no medium: before the range, after a malformed size */
    blk_set_dev_ops(blk, &tray_ops, NULL);
    expect_bytes(blk, 0, 1, 0);
    expect_bytes(blk, 0, -1, -EIO);
    open_now = true;
    expect_bytes(blk, 0, 1, -ENOMEDIUM);
    expect_bytes(blk, -1, 1, -ENOMEDIUM);
    expect_bytes(blk, FAKE_BYTES + 1, 0, -ENOMEDIUM);
    expect_bytes(blk, 0, -1, -EIO);
    atomic_store(&bs->size_bytes, -EPROTO);
    expect_bytes(blk, 0, 1, -ENOMEDIUM);
    atomic_store(&bs->size_bytes, FAKE_BYTES);
    blk_remove_bs(blk);
    open_now = false;
    expect_bytes(blk, 0, 1, -ENOMEDIUM);
    expect_bytes(blk, -1, 1, -ENOMEDIUM);
    expect_bytes(blk, 0, -1, -EIO);
    blk_unref(blk);
}

static void expect_sectors(BlockBackend *blk, int64_t sector, int nb, int ret)
{
    static uint8_t buf[FAKE_BYTES];

    assert_int_equal(blk_read(blk, sector, buf, nb), ret);
    assert_int_equal(blk_read_unthrottled(blk, sector, buf, nb), ret);
    assert_int_equal(blk_write(blk, sector, buf, nb), ret);
    assert_int_equal(blk_write_zeroes(blk, sector, nb, 0), ret);
    assert_int_equal(blk_discard(blk, sector, nb), ret);
}

static void test_blk_check_request(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    const int max = INT_MAX / 512;

    for (int medium = 1; medium >= 0; medium--) {
        int none = medium ? 0 : -ENOMEDIUM;
        int past = medium ? -EIO : -ENOMEDIUM;

        expect_sectors(blk, 0, 1, none);
        expect_sectors(blk, FAKE_SECTORS, 0, none);
        expect_sectors(blk, FAKE_SECTORS - 1, 2, past);
        expect_sectors(blk, FAKE_SECTORS + 1, 0, past);
        expect_sectors(blk, 0, max, past); /* 4,194,303 sectors are well formed */
        expect_sectors(blk, INT64_MAX / 512, 0, past);
        expect_sectors(blk, INT64_MAX / 512, max, past);
        /* malformed: -EIO with and without a medium */
        expect_sectors(blk, -1, 1, -EIO);
        expect_sectors(blk, INT64_MIN, 1, -EIO);
        expect_sectors(blk, INT64_MAX / 512 + 1, 0, -EIO);
        expect_sectors(blk, INT64_MAX, 1, -EIO);
        expect_sectors(blk, 0, -1, -EIO);
        expect_sectors(blk, 0, INT_MIN, -EIO);
        expect_sectors(blk, 0, max + 1, -EIO);
        expect_sectors(blk, 0, INT_MAX, -EIO);
        blk_remove_bs(blk);
    }
    blk_unref(blk);
}

static void test_blk_read(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    struct fake *fake = fake_of(blk_bs(blk));
    uint8_t buf[1024] = {0};

    memset(fake->data + 512, 0xa5, 1024);
    assert_int_equal(blk_read(blk, 1, buf, 2), 0); /* not a count */
    assert_memory_equal(buf, fake->data + 512, sizeof(buf));
    fake->fail = -EUCLEAN;
    assert_int_equal(blk_read(blk, 1, buf, 2), -EUCLEAN);
    blk_unref(blk);
}

static void test_blk_read_unthrottled(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    uint8_t buf[512] = {0};

    fake_of(blk_bs(blk))->data[0] = 7;
    assert_int_equal(blk_read_unthrottled(blk, 0, buf, 1), 0);
    assert_int_equal(buf[0], 7);
    blk_unref(blk);
}

static void test_blk_write(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    BlockDriverState *ro = fake_open(env->pl, "fake", NULL, 0);
    struct fake *fake = fake_of(blk_bs(blk));
    uint8_t buf[512];

    memset(buf, 0x5a, sizeof(buf));
    assert_int_equal(blk_write(blk, 3, buf, 1), 0);
    assert_memory_equal(fake->data + 3 * 512, buf, sizeof(buf));
    assert_int_equal(blk_set_bs(blk, ro, NULL), 0);
    assert_int_equal(blk_write(blk, 3, buf, 1), -EPERM); /* read-only */
    assert_int_equal(blk_write(blk, FAKE_SECTORS, buf, 1), -EIO);
    assert_int_equal(blk_read(blk, 3, buf, 1), 0);
    blk_unref(blk);
    bdrv_unref(ro);
}

static void test_blk_write_zeroes(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    struct fake *fake = fake_of(blk_bs(blk));

    memset(fake->data, 1, 2048);
    assert_int_equal(blk_write_zeroes(blk, 1, 2, BDRV_REQ_MAY_UNMAP), 0);
    assert_int_equal(fake->data[511], 1);
    assert_int_equal(fake->data[512], 0);
    assert_int_equal(fake->data[1535], 0);
    assert_int_equal(fake->data[1536], 1);
    assert_true(atomic_load(&fake->last_flags) & BDRV_REQ_MAY_UNMAP);
    assert_int_equal(blk_write_zeroes(blk, 1, 2, 1 << 30), -EINVAL);
    blk_unref(blk);
}

static void test_blk_pread(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    uint8_t buf[100] = {0};

    memset(fake_of(blk_bs(blk))->data, 9, 200);
    assert_int_equal(blk_pread(blk, 33, buf, 100), 100); /* the count */
    assert_int_equal(buf[0] + buf[99], 18);
    assert_int_equal(blk_pread(blk, 0, buf, 0), 0);
    fake_of(blk_bs(blk))->fail = -EIO;
    assert_int_equal(blk_pread(blk, 33, buf, 100), -EIO);
    blk_unref(blk);
}

static void test_blk_pwrite(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    struct fake *fake = fake_of(blk_bs(blk));

    assert_int_equal(blk_pwrite(blk, 5, "hello", 5), 5); /* the count */
    assert_memory_equal(fake->data + 5, "hello", 5);
    assert_int_equal(blk_pwrite(blk, FAKE_BYTES, "hello", 0), 0);
    blk_unref(blk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, env_setup, env_teardown)
        T(test_blk_check_byte_request),
        T(test_blk_check_request),
        T(test_blk_read),
        T(test_blk_read_unthrottled),
        T(test_blk_write),
        T(test_blk_write_zeroes),
        T(test_blk_pread),
        T(test_blk_pwrite),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
