/* SPDX-License-Identifier: MIT */
/* Section 2.1 of the seed: registry and lifetime. One test a row, named by it. */
#include "fake.h"

static void test_blk_new(void **state)
{
    struct env *env = *state;
    static const char *const bad[] = {"", "1a", "-a", "a b", "a/b", "a:", "_a", "\xc3\xa4", NULL};
    BlockDriverState *node = fake_open(env->pl, "fake", "node0", 0);
    BlockBackend *blk;
    Error *err = NULL;

    for (int i = 0; bad[i] != NULL; i++) {
        assert_null(blk_new(env->pl, bad[i], &err));
        expect_error(err, "Invalid device name");
    }
    assert_null(blk_new(env->pl, NULL, &err));
    expect_error(err, "Invalid device name");

    blk = blk_new(env->pl, "hd0", &err);
    assert_non_null(blk);
    assert_null(err);
    assert_null(blk_new(env->pl, "hd0", &err));
    assert_int_equal(error_get_errno(err), EEXIST);
    expect_error(err, "Device with id 'hd0' already exists");
    assert_null(blk_new(env->pl, "node0", &err));
    expect_error(err, "Device name 'node0' conflicts with an existing node name");
    assert_null(blk_new(env->pl, "hd0", NULL));

    /* as it begins */
    assert_null(blk_bs(blk));
    assert_null(blk_get_attached_dev(blk));
    assert_int_equal(blk_get_guest_block_size(blk), 0);
    assert_int_equal(blk_get_flags(blk), 0);
    assert_int_equal(blk_is_read_only(blk), 0);
    assert_null(blk_legacy_dinfo(blk));

    /* the name of a hidden one is free again */
    blk_hide_on_behalf_of_hmp_drive_del(blk);
    assert_non_null(blk_new(env->pl, "hd0", &err));
    blk_unref(blk_by_name(env->pl, "hd0"));
    blk_unref(blk);
    assert_non_null(blk = blk_new(env->pl, "a.b-c_9", &err));
    blk_unref(blk);
    bdrv_unref(node);
}

static void test_blk_new_with_bs(void **state)
{
    struct env *env = *state;
    Error *err = NULL;
    BlockBackend *blk = blk_new_with_bs(env->pl, "hd0", &err);

    assert_non_null(blk);
    assert_non_null(blk_bs(blk));
    assert_int_equal(bdrv_get_refcnt(blk_bs(blk)), 1); /* the backend's */
    assert_false(blk_is_inserted(blk));
    assert_int_equal(blk_getlength(blk), -ENOMEDIUM);
    assert_null(blk_new_with_bs(env->pl, "hd0", &err));
    expect_error(err, "Device with id 'hd0' already exists");
    blk_unref(blk);
    assert_null(bdrv_next_node(env->pl, NULL));
}

static void test_blk_new_open(void **state)
{
    struct env *env = *state;
    BlockOptions *options = block_options_parse("driver=fake,node-name=n", NULL, NULL);
    Error *err = NULL;
    BlockBackend *blk = blk_new_open(env->pl, "hd0", NULL, NULL, options, BDRV_O_RDWR, &err);

    assert_non_null(blk);
    assert_ptr_equal(blk_bs(blk), bdrv_find_node(env->pl, "n"));
    assert_int_equal(bdrv_get_refcnt(blk_bs(blk)), 1);
    assert_true(blk_is_available(blk));

    /* a node that is there, by reference */
    assert_null(blk_new_open(env->pl, "hd1", NULL, "nosuch", NULL, 0, &err));
    assert_non_null(err);
    error_free(err);
    err = NULL;
    assert_null(blk_by_name(env->pl, "hd1"));

    /* options are taken also when the name is refused, or the open (a leak would be seen) */
    options = block_options_parse("driver=fake", NULL, NULL);
    assert_null(blk_new_open(env->pl, "hd0", NULL, NULL, options, 0, &err));
    expect_error(err, "Device with id 'hd0' already exists");
    options = block_options_parse("driver=nosuch", NULL, NULL);
    assert_null(blk_new_open(env->pl, "hd2", NULL, NULL, options, 0, &err));
    assert_non_null(err);
    error_free(err);
    assert_null(blk_by_name(env->pl, "hd2"));
    blk_unref(blk);
    assert_null(bdrv_next_node(env->pl, NULL));
}

/* Destruction: lets the root go, frees name and drive record; here it drains, too. */
static void test_blk_delete(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    BlockDriverState *bs = blk_bs(blk);
    struct fake *fake = fake_of(bs);
    struct done done = {0};
    uint8_t buf[512];
    struct iovec iov = {buf, sizeof(buf)};
    struct iov_view view = iov_view_of(&iov, 1);

    bdrv_ref(bs);
    fake->turn = true;
    blk_set_legacy_dinfo(blk, drive_info_new("S1", NULL));
    assert_non_null(blk_aio_preadv(blk, 0, &view, 0, done_cb, &done));
    blk_unref(blk);
    assert_int_equal(done.calls, 1);
    assert_int_equal(done.ret, 0);
    assert_int_equal(bdrv_get_refcnt(bs), 1);
    bdrv_unref(bs);
    assert_null(blk_by_name(env->pl, "hd0"));
}

/* What is given back to the allocator; the linker puts this in front of free(). */
static const void *free_watched[3];
static int free_seen;

void __real_free(void *p);
void __wrap_free(void *p);
void __wrap_free(void *p)
{
    for (size_t i = 0; i < 3; i++) {
        free_seen += p != NULL && p == free_watched[i];
    }
    __real_free(p);
}

static void test_drive_info_del(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd0", NULL);
    BlockOptions *options = block_options_new();
    DriveInfo *dinfo = drive_info_new("serial 1", options);

    assert_non_null(dinfo);
    assert_string_equal(drive_info_serial(dinfo), "serial 1");
    blk_set_legacy_dinfo(blk, dinfo);
    free_watched[0] = dinfo;
    free_watched[1] = options;
    free_watched[2] = drive_info_serial(dinfo);
    free_seen = 0;
    blk_ref(blk);
    blk_unref(blk);
    assert_int_equal(free_seen, 0); /* the backend lives, so does the record */
    blk_unref(blk);                 /* and with it record, serial and options */
    memset(free_watched, 0, sizeof(free_watched));
    assert_int_equal(free_seen, 3);
}

static void test_blk_ref(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd0", NULL);

    blk_ref(blk);
    blk_unref(blk);
    assert_ptr_equal(blk_by_name(env->pl, "hd0"), blk);
    blk_unref(blk);
    assert_null(blk_by_name(env->pl, "hd0"));
}

static void test_blk_unref(void **state)
{
    struct env *env = *state;

    blk_unref(NULL);
    blk_unref(blk_new(env->pl, "hd0", NULL));
    assert_null(blk_by_name(env->pl, "hd0"));
}

static void test_blk_next(void **state)
{
    struct env *env = *state;
    BlockBackend *a, *b, *c;

    assert_null(blk_next(env->pl, NULL));
    a = blk_new(env->pl, "a", NULL);
    b = blk_new(env->pl, "b", NULL);
    c = blk_new(env->pl, "c", NULL);
    assert_ptr_equal(blk_next(env->pl, NULL), a);
    assert_ptr_equal(blk_next(env->pl, a), b);
    assert_ptr_equal(blk_next(env->pl, b), c);
    assert_null(blk_next(env->pl, c));
    blk_hide_on_behalf_of_hmp_drive_del(b);
    assert_ptr_equal(blk_next(env->pl, a), c);
    blk_unref(a);
    assert_ptr_equal(blk_next(env->pl, NULL), c);
    blk_unref(b);
    blk_unref(c);
}

static void test_blk_name(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd0", NULL);

    assert_string_equal(blk_name(blk), "hd0");
    blk_hide_on_behalf_of_hmp_drive_del(blk);
    assert_string_equal(blk_name(blk), "");
    blk_unref(blk);
}

static void test_blk_by_name(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd0", NULL);
    BlockDriverState *node = fake_open(env->pl, "fake", "node0", 0);

    assert_ptr_equal(blk_by_name(env->pl, "hd0"), blk);
    assert_null(blk_by_name(env->pl, "hd1"));
    assert_null(blk_by_name(env->pl, "node0"));
    blk_hide_on_behalf_of_hmp_drive_del(blk);
    assert_null(blk_by_name(env->pl, "hd0"));
    assert_null(blk_by_name(env->pl, ""));
    blk_unref(blk);
    bdrv_unref(node);
}

static void test_blk_legacy_dinfo(void **state)
{
    struct env *env = *state;
    BlockBackend *with = blk_new(env->pl, "hd0", NULL);
    BlockBackend *without = blk_new(env->pl, "hd1", NULL);
    DriveInfo *dinfo = drive_info_new("a", NULL);

    assert_null(blk_legacy_dinfo(with));
    blk_set_legacy_dinfo(with, dinfo);
    assert_ptr_equal(blk_legacy_dinfo(with), dinfo);
    assert_string_equal(drive_info_serial(blk_legacy_dinfo(with)), "a");
    assert_null(blk_legacy_dinfo(without));
    blk_hide_on_behalf_of_hmp_drive_del(with); /* a hidden one keeps its record */
    assert_ptr_equal(blk_legacy_dinfo(with), dinfo);
    blk_unref(with);
    blk_unref(without);
}

static void test_blk_set_legacy_dinfo(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd0", NULL);
    DriveInfo *dinfo = drive_info_new(NULL, NULL);

    assert_ptr_equal(blk_set_legacy_dinfo(blk, dinfo), dinfo);
    assert_ptr_equal(blk_legacy_dinfo(blk), dinfo);
    blk_unref(blk);
}

/* An unknown record gives NULL, decision 8. */
static void test_blk_by_legacy_dinfo(void **state)
{
    struct env *env = *state;
    BlockBackend *other = blk_new(env->pl, "hd0", NULL);
    BlockBackend *blk = blk_new(env->pl, "hd1", NULL);
    DriveInfo *dinfo = blk_set_legacy_dinfo(blk, drive_info_new("x", NULL));

    assert_ptr_equal(blk_by_legacy_dinfo(env->pl, dinfo), blk);
    assert_null(blk_by_legacy_dinfo(env->pl, NULL));
    blk_hide_on_behalf_of_hmp_drive_del(blk);
    assert_null(blk_by_legacy_dinfo(env->pl, dinfo));
    blk_unref(other);
    blk_unref(blk);
}

static void test_blk_hide_on_behalf_of_hmp_drive_del(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd0", NULL);
    BlockDriverState *bs = fake_open(env->pl, "fake", "node0", BDRV_O_RDWR);

    assert_int_equal(blk_insert_bs(blk, bs, NULL), 0);
    blk_hide_on_behalf_of_hmp_drive_del(blk);
    assert_string_equal(blk_name(blk), "");
    assert_null(blk_by_name(env->pl, "hd0"));
    assert_null(blk_next(env->pl, NULL));
    assert_null(bdrv_find_node(env->pl, "node0")); /* anonymous, too */
    assert_ptr_equal(blk_bs(blk), bs);
    blk_hide_on_behalf_of_hmp_drive_del(blk); /* again is harmless */
    blk_unref(blk);
    bdrv_unref(bs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, env_setup, env_teardown)
        T(test_blk_new),
        T(test_blk_new_with_bs),
        T(test_blk_new_open),
        T(test_blk_delete),
        T(test_drive_info_del),
        T(test_blk_ref),
        T(test_blk_unref),
        T(test_blk_next),
        T(test_blk_name),
        T(test_blk_by_name),
        T(test_blk_legacy_dinfo),
        T(test_blk_set_legacy_dinfo),
        T(test_blk_by_legacy_dinfo),
        T(test_blk_hide_on_behalf_of_hmp_drive_del),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
