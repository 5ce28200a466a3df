/* SPDX-License-Identifier: MIT */
/* Section 2.5 of the seed: I/O status and error policy. One test a row, named by it; and the run
 * state and the parking of requests that stand behind "stop". */
#include "fake.h"

#include <stdio.h>

static void test_blk_iostatus_enable(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd", NULL);

    blk_set_on_error(blk, BLOCKDEV_ON_ERROR_STOP, BLOCKDEV_ON_ERROR_REPORT);
    blk_iostatus_enable(blk);
    blk_iostatus_set_err(blk, EIO);
    assert_int_equal(blk_iostatus(blk), BLOCK_DEVICE_IO_STATUS_FAILED);
    blk_iostatus_enable(blk);
    assert_int_equal(blk_iostatus(blk), BLOCK_DEVICE_IO_STATUS_OK);
    blk_unref(blk);
}

static void test_blk_iostatus_is_enabled(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd", NULL);

    blk_set_on_error(blk, BLOCKDEV_ON_ERROR_STOP, BLOCKDEV_ON_ERROR_STOP);
    assert_false(blk_iostatus_is_enabled(blk));
    blk_iostatus_enable(blk);
    for (int on_read = 0; on_read <= BLOCKDEV_ON_ERROR_STOP; on_read++) {
        for (int on_write = 0; on_write <= BLOCKDEV_ON_ERROR_STOP; on_write++) {
            blk_set_on_error(blk, (BlockdevOnError)on_read, (BlockdevOnError)on_write);
            /* enospc counts for writes only */
            assert_int_equal(blk_iostatus_is_enabled(blk),
                             on_read == BLOCKDEV_ON_ERROR_STOP ||
                                 on_write == BLOCKDEV_ON_ERROR_STOP ||
                                 on_write == BLOCKDEV_ON_ERROR_ENOSPC);
        }
    }
    blk_unref(blk);
}

static void test_blk_iostatus(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd", NULL);

    assert_int_equal(blk_iostatus(blk), BLOCK_DEVICE_IO_STATUS_OK);
    blk_set_on_error(blk, BLOCKDEV_ON_ERROR_STOP, BLOCKDEV_ON_ERROR_STOP);
    blk_iostatus_enable(blk);
    blk_iostatus_set_err(blk, ENOSPC);
    blk_set_on_error(blk, BLOCKDEV_ON_ERROR_REPORT, BLOCKDEV_ON_ERROR_REPORT);
    assert_int_equal(blk_iostatus(blk), BLOCK_DEVICE_IO_STATUS_NOSPACE); /* raw */
    blk_unref(blk);
}

static void test_blk_iostatus_disable(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd", NULL);

    blk_set_on_error(blk, BLOCKDEV_ON_ERROR_STOP, BLOCKDEV_ON_ERROR_STOP);
    blk_iostatus_enable(blk);
    blk_iostatus_set_err(blk, EIO);
    blk_iostatus_disable(blk);
    assert_false(blk_iostatus_is_enabled(blk));
    assert_int_equal(blk_iostatus(blk), BLOCK_DEVICE_IO_STATUS_FAILED); /* stays */
    blk_unref(blk);
}

/* A user of a node that is told of resets, as a job is. */
static void reset_told(BdrvEdge *edge)
{
    ++*(int *)edge->parent;
}

static const struct bdrv_parent_class reset_class = {.iostatus_reset = reset_told};

static void test_iostatus_reset_is_told(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd");
    int told = 0, told_disabled;
    BdrvEdge *edge =
        bdrv_root_attach(blk_bs(blk), "job", &reset_class, &told, 0, BDRV_PERM_ALL, NULL);

    assert_non_null(edge);
    blk_iostatus_reset(blk); /* not enabled */
    told_disabled = told;
    blk_set_on_error(blk, BLOCKDEV_ON_ERROR_STOP, BLOCKDEV_ON_ERROR_STOP);
    blk_iostatus_enable(blk);
    told = 0;
    blk_iostatus_reset(blk);
    bdrv_root_detach(edge); /* before what may fail, so that the instance can end */
    blk_unref(blk);
    assert_int_equal(told_disabled, 0);
    assert_int_equal(told, 1);
}

static void test_blk_iostatus_reset(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd", NULL);
    int dev;

    blk_set_on_error(blk, BLOCKDEV_ON_ERROR_STOP, BLOCKDEV_ON_ERROR_STOP);
    blk_iostatus_enable(blk);
    blk_iostatus_set_err(blk, EIO);
    blk_iostatus_disable(blk);
    blk_iostatus_reset(blk); /* only where enabled */
    assert_int_equal(blk_iostatus(blk), BLOCK_DEVICE_IO_STATUS_FAILED);
    blk_iostatus_enable(blk);
    blk_iostatus_set_err(blk, EIO);
    blk_iostatus_reset(blk);
    assert_int_equal(blk_iostatus(blk), BLOCK_DEVICE_IO_STATUS_OK);
    blk_iostatus_set_err(blk, EIO);
    assert_int_equal(blk_attach_dev(blk, &dev), 0); /* resets too */
    assert_int_equal(blk_iostatus(blk), BLOCK_DEVICE_IO_STATUS_OK);
    blk_detach_dev(blk, &dev);
    blk_unref(blk);
}

static void test_blk_iostatus_set_err(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd", NULL);

    blk_set_on_error(blk, BLOCKDEV_ON_ERROR_STOP, BLOCKDEV_ON_ERROR_STOP);
    blk_iostatus_enable(blk);
    blk_iostatus_set_err(blk, ENOSPC);
    blk_iostatus_set_err(blk, EIO); /* the first one stays */
    assert_int_equal(blk_iostatus(blk), BLOCK_DEVICE_IO_STATUS_NOSPACE);
    blk_iostatus_reset(blk);
    blk_iostatus_set_err(blk, EIO);
    assert_int_equal(blk_iostatus(blk), BLOCK_DEVICE_IO_STATUS_FAILED);
    blk_unref(blk);
}

static void test_blk_set_on_error(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd", NULL);

    assert_int_equal(blk_get_on_error(blk, true), BLOCKDEV_ON_ERROR_REPORT);
    assert_int_equal(blk_get_on_error(blk, false), BLOCKDEV_ON_ERROR_REPORT);
    blk_set_on_error(blk, BLOCKDEV_ON_ERROR_IGNORE, BLOCKDEV_ON_ERROR_STOP);
    assert_int_equal(blk_get_on_error(blk, true), BLOCKDEV_ON_ERROR_IGNORE);
    blk_unref(blk);
}

static void test_blk_get_on_error(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd", NULL);

    blk_set_on_error(blk, BLOCKDEV_ON_ERROR_ENOSPC, BLOCKDEV_ON_ERROR_IGNORE);
    assert_int_equal(blk_get_on_error(blk, true), BLOCKDEV_ON_ERROR_ENOSPC);
    assert_int_equal(blk_get_on_error(blk, false), BLOCKDEV_ON_ERROR_IGNORE);
    blk_unref(blk);
}

static BlockErrorAction wanted_action(BlockdevOnError policy, int error)
{
    return policy == BLOCKDEV_ON_ERROR_IGNORE ? BLOCK_ERROR_ACTION_IGNORE
           : policy == BLOCKDEV_ON_ERROR_STOP ||
                   (policy == BLOCKDEV_ON_ERROR_ENOSPC && error == ENOSPC)
               ? BLOCK_ERROR_ACTION_STOP
               : BLOCK_ERROR_ACTION_REPORT;
}

static const int errors[] = {EIO, ENOSPC, EROFS, ENOMEM};

static void test_blk_get_error_action(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd", NULL);

    for (int policy = 0; policy <= BLOCKDEV_ON_ERROR_STOP; policy++) {
        for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
            BlockErrorAction want = wanted_action((BlockdevOnError)policy, errors[i]);

            blk_set_on_error(blk, (BlockdevOnError)policy, BLOCKDEV_ON_ERROR_REPORT);
            assert_int_equal(blk_get_error_action(blk, true, errors[i]), want);
            assert_int_equal(blk_get_error_action(blk, false, errors[i]),
                             BLOCK_ERROR_ACTION_REPORT);
            blk_set_on_error(blk, BLOCKDEV_ON_ERROR_REPORT, (BlockdevOnError)policy);
            assert_int_equal(blk_get_error_action(blk, false, errors[i]), want);
        }
    }
    blk_unref(blk);
}

/* The event says whether it was the space only where the iostatus is enabled. */
static void test_send_qmp_error_event(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd", NULL);

    blk_error_action(blk, BLOCK_ERROR_ACTION_REPORT, true, ENOSPC);
    blk_set_on_error(blk, BLOCKDEV_ON_ERROR_REPORT, BLOCKDEV_ON_ERROR_ENOSPC);
    blk_iostatus_enable(blk);
    blk_error_action(blk, BLOCK_ERROR_ACTION_IGNORE, false, ENOSPC);
    blk_error_action(blk, BLOCK_ERROR_ACTION_REPORT, false, EIO);
    blk_hide_on_behalf_of_hmp_drive_del(blk);
    blk_error_action(blk, BLOCK_ERROR_ACTION_REPORT, false, EIO);
    assert_string_equal(env->events, "error hd read report; error hd write ignore nospace; "
                                     "error hd write report other; error  write report other; ");
    blk_unref(blk);
}

struct hook {
    struct env *env;
    BlockBackend *blk;
};

static void hook_prepare(void *opaque)
{
    struct hook *hook = opaque;

    /* the status is there before anybody hears */
    assert_int_equal(blk_iostatus(hook->blk), BLOCK_DEVICE_IO_STATUS_NOSPACE);
    strcat(hook->env->events, "prepare; ");
}

static void hook_request(void *opaque, enum platter_run_state why)
{
    struct hook *hook = opaque;

    assert_int_equal(why, PLATTER_RUN_STATE_IO_ERROR);
    strcat(hook->env->events, "request; ");
}

static void test_blk_error_action(void **state)
{
    struct env *env = *state;
    struct hook hook = {.env = env, .blk = blk_new(env->pl, "hd", NULL)};
    static const struct platter_run_ops ops = {.prepare = hook_prepare, .request = hook_request};

    platter_set_run_ops(env->pl, &ops, &hook);
    blk_set_on_error(hook.blk, BLOCKDEV_ON_ERROR_STOP, BLOCKDEV_ON_ERROR_STOP);
    blk_iostatus_enable(hook.blk);
    blk_error_action(hook.blk, BLOCK_ERROR_ACTION_STOP, false, ENOSPC);
    assert_string_equal(env->events, "prepare; error hd write stop nospace; request; stop; ");
    assert_int_equal(platter_get_run_state(env->pl), PLATTER_RUN_STATE_IO_ERROR);
    env->events[0] = '\0';
    blk_error_action(hook.blk, BLOCK_ERROR_ACTION_STOP, false, EIO); /* stopped already */
    assert_string_equal(env->events, "prepare; error hd write stop other; request; ");
    env->events[0] = '\0';
    platter_cont(env->pl);
    platter_cont(env->pl);
    assert_string_equal(env->events, "resume; ");
    assert_string_equal(platter_run_state_name(platter_get_run_state(env->pl)), "running");
    platter_set_run_ops(env->pl, NULL, NULL);
    blk_unref(hook.blk);
}

/* Without an enabled iostatus the stop and the events happen, the status is left alone. */
static void test_stop_without_iostatus(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd", NULL);

    blk_error_action(blk, BLOCK_ERROR_ACTION_STOP, true, EIO);
    assert_int_equal(blk_iostatus(blk), BLOCK_DEVICE_IO_STATUS_OK);
    assert_string_equal(env->events, "error hd read stop; stop; ");
    platter_cont(env->pl);
    blk_unref(blk);
}

/* ---- a front end that follows the policy ---- */

struct front {
    BlockBackend *blk;
    bool is_read;
    int ret;
    int tries;
    bool done;
};

static void front_entry(void *opaque)
{
    struct front *f = opaque;
    uint8_t buf[512] = {0x77};
    struct iovec iov = {.iov_base = buf, .iov_len = sizeof(buf)};
    struct iov_view view = {.iov = &iov, .niov = 1, .bytes = sizeof(buf)};

    do {
        f->tries++;
        f->ret =
            f->is_read ? blk_co_preadv(f->blk, 0, &view, 0) : blk_co_pwritev(f->blk, 0, &view, 0);
        f->ret = blk_co_handle_error(f->blk, f->is_read, f->ret);
    } while (f->ret == BLK_TRY_AGAIN);
    f->done = true;
}

static void front_start(struct front *f, BlockBackend *blk, bool is_read)
{
    *f = (struct front){.blk = blk, .is_read = is_read};
    coroutine_enter(coroutine_create(front_entry, f));
}

/* Every policy, every errno, both directions: what the client sees, and the events in order. */
static void test_policy_matrix(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd");
    struct fake *fake = fake_of(blk_bs(blk));
    static const char *const names[] = {"report", "ignore", "stop"};

    blk_iostatus_enable(blk);
    for (int policy = 0; policy <= BLOCKDEV_ON_ERROR_STOP; policy++) {
        for (size_t i = 0; i < 2 * sizeof(errors) / sizeof(errors[0]); i++) {
            bool is_read = i % 2;
            int error = errors[i / 2];
            BlockErrorAction action = wanted_action((BlockdevOnError)policy, error);
            struct front f;
            char want[128];

            env->events[0] = '\0';
            blk_set_on_error(blk, (BlockdevOnError)policy, (BlockdevOnError)policy);
            blk_iostatus_reset(blk);
            fake->fail = -error;
            front_start(&f, blk, is_read);
            env_poll(env);
            snprintf(want, sizeof(want), "error hd %s %s%s; %s", is_read ? "read" : "write",
                     names[action],
                     !blk_iostatus_is_enabled(blk) ? ""
                     : error == ENOSPC             ? " nospace"
                                                   : " other",
                     action == BLOCK_ERROR_ACTION_STOP ? "stop; " : "");
            assert_string_equal(env->events, want);
            fake->fail = 0; /* repaired */
            if (action == BLOCK_ERROR_ACTION_STOP) {
                assert_false(f.done);
                assert_int_not_equal(blk_iostatus(blk), BLOCK_DEVICE_IO_STATUS_OK);
                platter_cont(env->pl);
                env_poll(env);
                assert_int_equal(f.tries, 2);
            }
            assert_true(f.done);
            assert_int_equal(f.ret, action == BLOCK_ERROR_ACTION_REPORT ? -error : 0);
        }
    }
    blk_unref(blk);
}

/* A parked request is not in flight: drain, eject and the end do not wait for it. */
static void test_parked(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd");
    struct fake *fake = fake_of(blk_bs(blk));
    struct front f[3];

    blk_set_on_error(blk, BLOCKDEV_ON_ERROR_STOP, BLOCKDEV_ON_ERROR_STOP);
    fake->fail = -EIO;
    for (int i = 0; i < 3; i++) {
        front_start(&f[i], blk, i % 2);
    }
    env_poll(env);
    blk_drain(blk);
    assert_false(f[0].done || f[1].done || f[2].done);
    fake->fail = -ENOSPC; /* it fails again after it was resumed */
    platter_cont(env->pl);
    env_poll(env);
    assert_false(f[0].done);
    assert_int_equal(f[0].tries, 2);
    blk_remove_bs(blk);
    env_poll(env);
    for (int i = 0; i < 3; i++) {
        assert_true(f[i].done);
        assert_int_equal(f[i].ret, -ENOMEDIUM);
    }
    blk_unref(blk);
}

static struct front at_end;

static void test_parked_at_the_end(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd");

    blk_set_on_error(blk, BLOCKDEV_ON_ERROR_STOP, BLOCKDEV_ON_ERROR_STOP);
    fake_of(blk_bs(blk))->fail = -EIO;
    front_start(&at_end, blk, true);
    env_poll(env);
    assert_false(at_end.done);
    blk_unref(blk); /* the parked request holds it */
}

static int end_teardown(void **state)
{
    int ret = env_teardown(state);

    assert_true(at_end.done);
    assert_int_equal(at_end.ret, -ECANCELED);
    return ret;
}

static void test_run_state(void **state)
{
    struct env *env = *state;

    platter_stop(env->pl);
    platter_stop(env->pl);
    assert_int_equal(platter_get_run_state(env->pl), PLATTER_RUN_STATE_PAUSED);
    platter_cont(env->pl);
    assert_string_equal(env->events, "stop; resume; ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_blk_iostatus_enable, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_blk_iostatus_is_enabled, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_blk_iostatus, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_blk_iostatus_disable, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_blk_iostatus_reset, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_iostatus_reset_is_told, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_blk_iostatus_set_err, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_blk_set_on_error, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_blk_get_on_error, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_blk_get_error_action, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_send_qmp_error_event, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_blk_error_action, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_stop_without_iostatus, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_policy_matrix, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_parked, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_parked_at_the_end, env_setup, end_teardown),
        cmocka_unit_test_setup_teardown(test_run_state, env_setup, env_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
