/* SPDX-License-Identifier: MIT */
/* Sections 2.3 and 2.4 of the seed: the attached device and its tray. One test a row. */
#include "fake.h"

struct dev {
    bool tray_open;
    bool locked;
    int changes;
    bool last_load;
    bool open_at_change;
    int ejects;
    bool last_force;
    int resizes;
};

static void dev_change(void *opaque, bool load)
{
    struct dev *dev = opaque;

    dev->changes++;
    dev->last_load = load;
    dev->open_at_change = dev->tray_open;
    dev->tray_open = !load;
}

static void dev_eject_request(void *opaque, bool force)
{
    struct dev *dev = opaque;

    dev->ejects++;
    dev->last_force = force;
}

static bool dev_tray_open(void *opaque)
{
    return ((struct dev *)opaque)->tray_open;
}

static bool dev_locked(void *opaque)
{
    return ((struct dev *)opaque)->locked;
}

static void dev_resize(void *opaque)
{
    ((struct dev *)opaque)->resizes++;
}

static const BlockDevOps cd_ops = {
    .change_media_cb = dev_change,
    .eject_request_cb = dev_eject_request,
    .is_tray_open = dev_tray_open,
    .is_medium_locked = dev_locked,
    .resize_cb = dev_resize,
};
static const BlockDevOps disk_ops = {.resize_cb = dev_resize};
static const BlockDevOps no_ops = {0};

static void test_blk_attach_dev(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd0", NULL);
    struct dev a = {0}, b = {0};

    assert_int_equal(blk_attach_dev(blk, &a), 0);
    assert_int_equal(blk_attach_dev(blk, &b), -EBUSY);
    assert_int_equal(blk_attach_dev(blk, &a), -EBUSY);
    assert_ptr_equal(blk_get_attached_dev(blk), &a);
    blk_unref(blk); /* the device still holds it */
    assert_ptr_equal(blk_by_name(env->pl, "hd0"), blk);
    blk_detach_dev(blk, &a);
    assert_null(blk_by_name(env->pl, "hd0"));
}

static void test_blk_attach_dev_nofail(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd0", NULL);
    struct dev a = {0};

    blk_attach_dev_nofail(blk, &a);
    assert_ptr_equal(blk_get_attached_dev(blk), &a);
    blk_detach_dev(blk, &a);
    blk_unref(blk);
}

static void test_blk_detach_dev(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    struct dev a = {.tray_open = true};

    assert_int_equal(blk_attach_dev(blk, &a), 0);
    blk_set_dev_ops(blk, &cd_ops, &a);
    assert_false(blk_is_available(blk));
    blk_set_guest_block_size(blk, 4096);
    blk_detach_dev(blk, &a);
    assert_null(blk_get_attached_dev(blk));
    assert_int_equal(blk_get_guest_block_size(blk), 512);
    assert_true(blk_is_available(blk)); /* the operations went with the device */
    assert_false(blk_dev_is_tray_open(blk));
    blk_unref(blk);
}

static void test_blk_get_attached_dev(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd0", NULL);
    BlockBackend *other = blk_new(env->pl, "hd1", NULL);
    struct dev a = {0}, b = {0};

    assert_null(blk_get_attached_dev(blk));
    assert_int_equal(blk_attach_dev(blk, &a), 0);
    assert_ptr_equal(blk_get_attached_dev(blk), &a);
    assert_null(blk_get_attached_dev(other));
    assert_int_equal(blk_attach_dev(blk, &b), -EBUSY); /* the first one stays */
    assert_ptr_equal(blk_get_attached_dev(blk), &a);
    blk_detach_dev(blk, &a);
    assert_null(blk_get_attached_dev(blk));
    assert_int_equal(blk_attach_dev(blk, &b), 0);
    assert_ptr_equal(blk_get_attached_dev(blk), &b);
    blk_detach_dev(blk, &b);
    blk_unref(other);
    blk_unref(blk);
}

static void test_blk_set_dev_ops(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd0", NULL);
    struct dev dev = {.tray_open = true};

    blk_set_dev_ops(blk, &cd_ops, &dev); /* no device needed */
    assert_true(blk_dev_is_tray_open(blk));
    blk_set_dev_ops(blk, NULL, NULL);
    assert_false(blk_dev_is_tray_open(blk));
    blk_unref(blk);
}

static void test_blk_dev_has_removable_media(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd0", NULL);
    struct dev dev = {0};

    assert_true(blk_dev_has_removable_media(blk)); /* no device */
    assert_int_equal(blk_attach_dev(blk, &dev), 0);
    assert_false(blk_dev_has_removable_media(blk)); /* no operations */
    blk_set_dev_ops(blk, &disk_ops, &dev);
    assert_false(blk_dev_has_removable_media(blk));
    blk_set_dev_ops(blk, &cd_ops, &dev);
    assert_true(blk_dev_has_removable_media(blk));
    blk_detach_dev(blk, &dev);
    blk_unref(blk);
}

static void test_blk_dev_resize_cb(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    struct dev dev = {0};

    blk_dev_resize_cb(blk); /* nobody there */
    blk_set_dev_ops(blk, &no_ops, &dev);
    blk_dev_resize_cb(blk);
    blk_set_dev_ops(blk, &disk_ops, &dev);
    blk_dev_resize_cb(blk);
    assert_int_equal(dev.resizes, 1);
    assert_int_equal(blk_truncate(blk, 4096), 0); /* the graph calls it */
    env_poll(env);
    assert_int_equal(dev.resizes, 2);
    blk_unref(blk);
}

/* load+closed: opened, closed; load+open: closed; eject+closed: opened; eject+open: nothing. */
static void test_blk_dev_change_media_cb(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd0", NULL);
    struct dev dev = {0};

    for (int i = 0; i < 4; i++) {
        bool was_open = i & 1;
        bool load = i & 2;
        struct blk_tray_moves moves;

        blk_set_dev_ops(blk, &cd_ops, &dev);
        dev = (struct dev){.tray_open = was_open};
        moves = blk_dev_change_media(blk, load);
        assert_int_equal(moves.opened, !was_open); /* sampled before the device heard of it */
        assert_int_equal(moves.closed, load);
        assert_int_equal(dev.changes, 1);
        assert_int_equal(dev.last_load, load);
        assert_int_equal(dev.open_at_change, was_open);
    }
    blk_dev_change_media_cb(blk, true);
    assert_int_equal(dev.changes, 2);
    /* nothing at all without the callback */
    blk_set_dev_ops(blk, &disk_ops, &dev);
    blk_dev_change_media_cb(blk, true);
    assert_false(blk_dev_change_media(blk, true).closed);
    blk_set_dev_ops(blk, NULL, NULL);
    blk_dev_change_media_cb(blk, true);
    assert_int_equal(dev.changes, 2);
    blk_unref(blk);
}

static void test_blk_dev_eject_request(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd0", NULL);
    struct dev dev = {0};

    blk_dev_eject_request(blk, true);
    blk_set_dev_ops(blk, &disk_ops, &dev);
    blk_dev_eject_request(blk, true);
    blk_set_dev_ops(blk, &cd_ops, &dev);
    blk_dev_eject_request(blk, true);
    assert_int_equal(dev.ejects, 1);
    assert_true(dev.last_force);
    blk_dev_eject_request(blk, false);
    assert_false(dev.last_force);
    blk_unref(blk);
}

static void test_blk_dev_is_tray_open(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd0", NULL);
    struct dev dev = {.tray_open = true};

    assert_false(blk_dev_is_tray_open(blk));
    blk_set_dev_ops(blk, &disk_ops, &dev);
    assert_false(blk_dev_is_tray_open(blk));
    blk_set_dev_ops(blk, &cd_ops, &dev);
    assert_true(blk_dev_is_tray_open(blk));
    blk_unref(blk);
}

static void test_blk_dev_is_medium_locked(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd0", NULL);
    struct dev dev = {.locked = true};

    assert_false(blk_dev_is_medium_locked(blk));
    blk_set_dev_ops(blk, &disk_ops, &dev);
    assert_false(blk_dev_is_medium_locked(blk));
    blk_set_dev_ops(blk, &cd_ops, &dev);
    assert_true(blk_dev_is_medium_locked(blk));
    blk_unref(blk);
}

static void test_blk_lock_medium(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd0", NULL);
    BlockDriverState *bs = fake_open(env->pl, "fake-filter", NULL, BDRV_O_RDWR);

    blk_lock_medium(blk, true); /* empty: nothing */
    assert_int_equal(blk_insert_bs(blk, bs, NULL), 0);
    blk_lock_medium(blk, true);
    assert_int_equal(fake_of(bs)->locked, 1);
    blk_lock_medium(blk, false);
    assert_int_equal(fake_of(bs)->locked, 0);
    blk_unref(blk);
    bdrv_unref(bs);
}

static void test_blk_eject(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd0", NULL);
    BlockDriverState *bs = fake_open(env->pl, "fake-cd", NULL, BDRV_O_RDWR);
    BlockDriverState *disk = fake_open(env->pl, "fake", NULL, BDRV_O_RDWR);

    blk_eject(blk, true); /* empty: nothing */
    assert_string_equal(env->events, "");
    assert_int_equal(blk_insert_bs(blk, bs, NULL), 0);
    blk_eject(blk, true);
    assert_int_equal(fake_of(bs)->ejected, 1);
    assert_string_equal(env->events, "tray hd0 open; ");
    blk_eject(blk, false);
    assert_int_equal(fake_of(bs)->ejected, 0);
    assert_string_equal(env->events, "tray hd0 open; tray hd0 closed; ");
    assert_int_equal(blk_set_bs(blk, disk, NULL), 0);
    env->events[0] = '\0';
    blk_eject(blk, true); /* a disk has no tray that could move, but the device has */
    assert_int_equal(fake_of(bs)->ejected, 0);
    assert_string_equal(env->events, "tray hd0 open; ");
    blk_unref(blk);
    bdrv_unref(bs);
    bdrv_unref(disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, env_setup, env_teardown)
        T(test_blk_attach_dev),
        T(test_blk_attach_dev_nofail),
        T(test_blk_detach_dev),
        T(test_blk_get_attached_dev),
        T(test_blk_set_dev_ops),
        T(test_blk_dev_has_removable_media),
        T(test_blk_dev_resize_cb),
        T(test_blk_dev_change_media_cb),
        T(test_blk_dev_eject_request),
        T(test_blk_dev_is_tray_open),
        T(test_blk_dev_is_medium_locked),
        T(test_blk_lock_medium),
        T(test_blk_eject),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
