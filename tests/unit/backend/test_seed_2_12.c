/* SPDX-License-Identifier: MIT */
/*
 * Sections 2.12 to 2.14 of the seed: size, geometry, limits, memory; write cache, read-only, flags;
 * AioContext. One test a row, named by it.
 */
#include "fake.h"

static bool open_now;

static bool tray_is_open(void *opaque)
{
    return open_now;
}

static const BlockDevOps tray_ops = {.is_tray_open = tray_is_open};

/* A fake whose tray is open. */
static BlockBackend *blk_open_tray(struct env *env)
{
    BlockBackend *blk = fake_blk(env->pl, "cd");

    blk_set_dev_ops(blk, &tray_ops, NULL);
    open_now = true;
    return blk;
}

static void test_blk_getlength(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_open_tray(env);

    assert_int_equal(blk_getlength(blk), -ENOMEDIUM);
    open_now = false;
    assert_int_equal(blk_getlength(blk), FAKE_BYTES);
    blk_remove_bs(blk);
    assert_int_equal(blk_getlength(blk), -ENOMEDIUM);
    blk_unref(blk);
}

static void test_blk_get_geometry(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_open_tray(env);
    BlockDriverState *bs = blk_bs(blk);
    uint64_t sectors = 1;

    blk_get_geometry(blk, &sectors); /* whatever the tray says */
    assert_int_equal(sectors, FAKE_SECTORS);
    atomic_store(&bs->size_bytes, -EIO);
    blk_get_geometry(blk, &sectors);
    assert_int_equal(sectors, 0);
    atomic_store(&bs->size_bytes, FAKE_BYTES);
    blk_remove_bs(blk);
    sectors = 1;
    blk_get_geometry(blk, &sectors);
    assert_int_equal(sectors, 0);
    blk_unref(blk);
}

static void test_blk_nb_sectors(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_open_tray(env);

    assert_int_equal(blk_nb_sectors(blk), -ENOMEDIUM);
    open_now = false;
    assert_int_equal(blk_nb_sectors(blk), FAKE_SECTORS);
    blk_remove_bs(blk);
    assert_int_equal(blk_nb_sectors(blk), -ENOMEDIUM);
    blk_unref(blk);
}

static void test_blk_probe_blocksizes(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_open_tray(env);
    BlockDriverState *cd = fake_open(env->pl, "fake-filter", NULL, BDRV_O_RDWR);
    struct bdrv_block_sizes sizes = {0};

    assert_int_equal(blk_probe_blocksizes(blk, &sizes), -ENOMEDIUM);
    open_now = false;
    assert_int_equal(blk_probe_blocksizes(blk, &sizes), -ENOTSUP);
    assert_int_equal(blk_set_bs(blk, cd, NULL), 0);
    assert_int_equal(blk_probe_blocksizes(blk, &sizes), 0); /* through the filter */
    assert_int_equal(sizes.phys, 4096);
    assert_int_equal(sizes.log, 512);
    blk_unref(blk);
    bdrv_unref(cd);
}

static void test_blk_probe_geometry(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_open_tray(env);
    BlockDriverState *cd = fake_open(env->pl, "fake-cd", NULL, BDRV_O_RDWR);
    struct bdrv_geometry geo = {0};

    assert_int_equal(blk_probe_geometry(blk, &geo), -ENOMEDIUM);
    open_now = false;
    assert_int_equal(blk_probe_geometry(blk, &geo), -ENOTSUP);
    assert_int_equal(blk_set_bs(blk, cd, NULL), 0);
    assert_int_equal(blk_probe_geometry(blk, &geo), 0);
    assert_int_equal(geo.heads, 16);
    blk_unref(blk);
    bdrv_unref(cd);
}

static void test_blk_get_max_transfer_length(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd0", NULL);
    BlockDriverState *bs = fake_open(env->pl, "fake", NULL, 0);
    BlockDriverState *limited = fake_open(env->pl, "fake-filter", NULL, 0);

    assert_int_equal(blk_get_max_transfer_length(blk), 0);
    assert_int_equal(blk_insert_bs(blk, bs, NULL), 0);
    assert_int_equal(blk_get_max_transfer_length(blk), 0);
    assert_int_equal(blk_set_bs(blk, limited, NULL), 0);
    assert_int_equal(blk_get_max_transfer_length(blk), 128);
    assert_int_equal(blk_get_request_alignment(blk), 1);
    blk_unref(blk);
    bdrv_unref(bs);
    bdrv_unref(limited);
}

static void test_blk_set_guest_block_size(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd0", NULL);

    assert_int_equal(blk_get_guest_block_size(blk), 0);
    blk_set_guest_block_size(blk, 4096);
    assert_int_equal(blk_get_guest_block_size(blk), 4096);
    blk_unref(blk);
}

static void test_blk_blockalign(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd0", NULL);
    BlockDriverState *bs = fake_open(env->pl, "fake-filter", NULL, 0);
    void *p;

    for (int i = 0; i < 3; i++) {
        size_t align = i == 2 ? 16384 : 4096;

        p = blk_blockalign(i == 0 ? NULL : blk, 100);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % align, 0);
        memset(p, 1, 100);
        blk_blockfree(p);
        if (i == 1) {
            assert_int_equal(blk_insert_bs(blk, bs, NULL), 0);
        }
    }
    p = blk_blockalign(blk, 0);
    assert_non_null(p);
    blk_blockfree(p);
    assert_null(blk_blockalign(blk, SIZE_MAX / 2 + 1)); /* out of memory, decision 7 */
    blk_blockfree(NULL);
    blk_unref(blk);
    bdrv_unref(bs);
}

static void test_blk_is_sg(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd0", NULL);
    BlockDriverState *bs = fake_open(env->pl, "fake", NULL, 0);

    assert_int_equal(blk_is_sg(blk), 0);
    assert_int_equal(blk_insert_bs(blk, bs, NULL), 0);
    assert_int_equal(blk_is_sg(blk), 0);
    bs->sg = true;
    assert_int_equal(blk_is_sg(blk), 1);
    blk_unref(blk);
    bdrv_unref(bs);
}

static void test_blk_enable_write_cache(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd0", NULL);

    assert_int_equal(blk_enable_write_cache(blk), 1);
    blk_set_enable_write_cache(blk, false);
    assert_int_equal(blk_enable_write_cache(blk), 0);
    blk_unref(blk);
}

static void test_blk_set_enable_write_cache(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    struct fake *fake = fake_of(blk_bs(blk));

    assert_int_equal(blk_pwrite(blk, 0, "x", 1), 1);
    assert_int_equal(atomic_load(&fake->last_flags), 0);
    blk_set_enable_write_cache(blk, false);
    assert_int_equal(blk_pwrite(blk, 0, "x", 1), 1);
    assert_int_equal(atomic_load(&fake->last_flags), BDRV_REQ_FUA);
    assert_int_equal(blk_pwrite_zeroes(blk, 0, 512, 0), 0);
    assert_true(atomic_load(&fake->last_flags) & BDRV_REQ_FUA);
    blk_set_enable_write_cache(blk, true);
    assert_int_equal(blk_pwrite(blk, 0, "x", 1), 1);
    assert_int_equal(atomic_load(&fake->last_flags), 0);
    blk_unref(blk);
}

static void test_blk_is_read_only(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd0", NULL);
    BlockDriverState *ro = fake_open(env->pl, "fake", NULL, 0);
    BlockDriverState *rw = fake_open(env->pl, "fake", NULL, BDRV_O_RDWR);
    Error *err = NULL;

    assert_int_equal(blk_is_read_only(blk), 0);
    assert_int_equal(blk_insert_bs(blk, ro, NULL), 0);
    assert_int_equal(blk_is_read_only(blk), 1);
    assert_int_equal(blk_set_read_only(blk, false, &err), -EACCES);
    assert_non_null(err);
    error_free(err);
    assert_int_equal(blk_set_bs(blk, rw, NULL), 0);
    assert_int_equal(blk_is_read_only(blk), 0);
    assert_int_equal(blk_set_read_only(blk, true, NULL), 0);
    assert_int_equal(blk_is_read_only(blk), 1);
    assert_int_equal(blk_pwrite(blk, 0, "x", 1), -EPERM);
    assert_int_equal(blk_set_read_only(blk, false, NULL), 0);
    assert_int_equal(blk_pwrite(blk, 0, "x", 1), 1);
    blk_unref(blk);
    bdrv_unref(ro);
    bdrv_unref(rw);
}

static void test_blk_get_flags(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    int flags = bdrv_get_flags(blk_bs(blk));

    assert_true(flags & BDRV_O_UNMAP);
    assert_int_equal(blk_get_flags(blk), flags);
    blk_remove_bs(blk);
    assert_int_equal(blk_get_flags(blk), flags); /* remembered */
    blk_unref(blk);
}

static void test_blk_get_aio_context(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd0", NULL);

    assert_ptr_equal(blk_get_aio_context(blk), env->ctx);
    blk_unref(blk);
}

static void test_blk_set_aio_context(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd0", NULL);
    BlockDriverState *bs = fake_open(env->pl, "fake", NULL, BDRV_O_RDWR);
    AioContext *other = aio_context_new(NULL, NULL);

    assert_non_null(other);
    blk_set_aio_context(blk, other); /* empty: remembered */
    assert_ptr_equal(blk_get_aio_context(blk), other);
    aio_context_unref(other); /* the backend holds it */
    assert_int_equal(blk_insert_bs(blk, bs, NULL), 0);
    assert_ptr_equal(blk_get_aio_context(blk), other);
    blk_remove_bs(blk);
    assert_ptr_equal(blk_get_aio_context(blk), other);
    blk_set_aio_context(blk, NULL);
    assert_ptr_equal(blk_get_aio_context(blk), env->ctx);
    blk_unref(blk);
    bdrv_unref(bs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, env_setup, env_teardown)
        T(test_blk_getlength),
        T(test_blk_get_geometry),
        T(test_blk_nb_sectors),
        T(test_blk_probe_blocksizes),
        T(test_blk_probe_geometry),
        T(test_blk_get_max_transfer_length),
        T(test_blk_set_guest_block_size),
        T(test_blk_blockalign),
        T(test_blk_is_sg),
        T(test_blk_enable_write_cache),
        T(test_blk_set_enable_write_cache),
        T(test_blk_is_read_only),
        T(test_blk_get_flags),
        T(test_blk_get_aio_context),
        T(test_blk_set_aio_context),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
