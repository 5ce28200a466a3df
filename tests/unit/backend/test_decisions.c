/* SPDX-License-Identifier: MIT */
/* The decisions that win over the seed's tables: 2 to 7, 9 to 12 and 14. Named by their number. */
#include "fake.h"

static uint8_t buf[4096];
static struct iovec iov = {buf, 512};
static struct iov_view view = {&iov, 1, 512};

/* 2: the limits of int bind the seed's calls only; those return 0 or a count, the others 0. */
static void test_decision_2_limits(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    BlockDriverState *bs = blk_bs(blk);

    atomic_store(&bs->size_bytes, INT64_MAX);
    assert_int_equal(blk_pdiscard(blk, 0, (int64_t)INT_MAX + 1), 0);
    assert_int_equal(blk_discard(blk, 0, INT_MAX / 512 + 1), -EIO);
    assert_int_equal(blk_pdiscard(blk, 1, INT64_MAX), -EIO);
    assert_int_equal(blk_discard(blk, INT64_MAX / 512 - 1, 1), 0);
    atomic_store(&bs->size_bytes, FAKE_BYTES);
    assert_int_equal(blk_preadv(blk, 0, &view, 0), 0);
    assert_int_equal(blk_pread(blk, 0, buf, 512), 512);
    assert_int_equal(blk_read(blk, 0, buf, 1), 0);
    blk_unref(blk);
}

/* 3: the gate: counted > waits while drained > medium and range > node. */
static void test_decision_3_gate(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    BlockDriverState *bs = blk_bs(blk);
    struct fake *fake = fake_of(bs);
    struct done good = {0}, bad = {0};

    bdrv_drained_begin(bs);
    blk_aio_preadv(blk, 0, &view, 0, done_cb, &good);
    blk_aio_preadv(blk, FAKE_BYTES, &view, 0, done_cb, &bad); /* waits, too */
    env_poll(env);
    assert_int_equal(good.calls + bad.calls, 0);
    assert_false(blk_in_flight(blk)); /* what waits is not counted */
    assert_int_equal(atomic_load(&fake->reads), 0);
    bdrv_drained_begin(bs); /* nests */
    bdrv_drained_end(bs);
    env_poll(env);
    assert_int_equal(good.calls + bad.calls, 0);
    bdrv_drained_end(bs);
    env_poll(env);
    assert_int_equal(good.calls, 1);
    assert_int_equal(good.ret, 0);
    assert_int_equal(bad.calls, 1);
    assert_int_equal(bad.ret, -EIO);

    /* the medium is looked at after the wait */
    good = (struct done){0};
    bdrv_ref(bs);
    bdrv_drained_begin(bs);
    blk_aio_preadv(blk, 0, &view, 0, done_cb, &good);
    blk_remove_bs(blk);
    bdrv_drained_end(bs);
    env_poll(env);
    assert_int_equal(good.calls, 1);
    assert_int_equal(good.ret, -ENOMEDIUM);
    bdrv_unref(bs);
    blk_unref(blk);
}

/* The thread that holds the drain may make requests of its own. */
static void test_decision_3_own_request(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    struct fake *fake = fake_of(blk_bs(blk));

    fake->turn = true;
    bdrv_drained_begin(blk_bs(blk));
    assert_int_equal(blk_preadv(blk, 0, &view, 0), 0);
    assert_int_equal(blk_flush(blk), 0);
    bdrv_drained_end(blk_bs(blk));
    blk_unref(blk);
}

/* 4: no medium is -ENOMEDIUM, a broken node -EIO, with a reason. */
static void test_decision_4_broken(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    struct done done = {0};

    bdrv_mark_broken(blk_bs(blk), "for a test");
    assert_true(blk_is_inserted(blk));
    assert_true(blk_is_available(blk));
    assert_int_equal(blk_preadv(blk, 0, &view, 0), -EIO);
    assert_int_equal(blk_pwritev(blk, 0, &view, 0), -EIO);
    assert_int_equal(blk_flush(blk), -EIO);
    assert_int_equal(blk_pdiscard(blk, 0, 512), -EIO);
    blk_aio_preadv(blk, 0, &view, 0, done_cb, &done);
    done_wait(&done);
    assert_int_equal(done.ret, -EIO);
    assert_non_null(bdrv_broken_reason(blk_bs(blk)));
    assert_int_equal(blk_getlength(blk), FAKE_BYTES);
    blk_unref(blk);

    blk = blk_new_with_bs(env->pl, "hd1", NULL); /* no driver: no medium */
    assert_int_equal(blk_preadv(blk, 0, &view, 0), -ENOMEDIUM);
    assert_int_equal(blk_flush(blk), -ENOMEDIUM);
    blk_unref(blk);
}

/* 5: what is set on an empty backend holds for the next medium, and the one after. */
static void test_decision_5_remembered(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd0", NULL);
    AioContext *ctx = aio_context_new(NULL, NULL);

    blk_set_enable_write_cache(blk, false);
    assert_int_equal(blk_set_read_only(blk, true, NULL), 0);
    blk_set_detect_zeroes(blk, BDRV_DETECT_ZEROES_UNMAP);
    blk_set_aio_context(blk, ctx);
    assert_int_equal(blk_is_read_only(blk), 1);
    for (int i = 0; i < 2; i++) {
        BlockDriverState *bs = fake_open(env->pl, "fake", NULL, BDRV_O_RDWR);

        assert_int_equal(blk_insert_bs(blk, bs, NULL), 0);
        assert_int_equal(bs->detect_zeroes, BDRV_DETECT_ZEROES_UNMAP);
        assert_int_equal(blk_is_read_only(blk), 1);
        assert_int_equal(blk_pwritev(blk, 0, &view, 0), -EPERM);
        assert_int_equal(blk_enable_write_cache(blk), 0);
        assert_ptr_equal(blk_get_aio_context(blk), ctx);
        assert_int_equal(blk_set_read_only(blk, false, NULL), 0);
        memset(buf, 1, sizeof(buf));
        assert_int_equal(blk_pwritev(blk, 0, &view, 0), 0);
        assert_int_equal(atomic_load(&fake_of(bs)->last_flags), BDRV_REQ_FUA);
        assert_int_equal(blk_set_read_only(blk, true, NULL), 0);
        blk_remove_bs(blk);
        bdrv_unref(bs);
    }
    blk_unref(blk);
    aio_context_unref(ctx);
}

/* 6: notifiers stay over media changes, and may remove themselves and others while they run. */
struct notes {
    BlkNotifier n;
    struct notes *other;
    int calls;
};

static void note_plain(BlkNotifier *n, BlockBackend *blk)
{
    ((struct notes *)n)->calls++;
}

static void note_remove(BlkNotifier *n, BlockBackend *blk)
{
    struct notes *notes = (struct notes *)n;

    notes->calls++;
    blk_notifier_remove(n);
    blk_notifier_remove(&notes->other->n);
    blk_notifier_remove(&notes->other->n);
}

static void test_decision_6_notifiers(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd0", NULL);
    BlockDriverState *bs = fake_open(env->pl, "fake", NULL, BDRV_O_RDWR);
    struct notes insert[4] = {{.n.notify = note_plain},
                              {.n.notify = note_remove},
                              {.n.notify = note_plain},
                              {.n.notify = note_plain}};
    struct notes removed = {.n.notify = note_plain};

    insert[1].other = &insert[2];
    for (int i = 0; i < 4; i++) {
        blk_add_insert_bs_notifier(blk, &insert[i].n);
    }
    blk_add_remove_bs_notifier(blk, &removed.n);
    for (int i = 1; i <= 2; i++) {
        assert_int_equal(blk_insert_bs(blk, bs, NULL), 0);
        assert_int_equal(insert[0].calls, i);
        assert_int_equal(insert[1].calls, 1);
        assert_int_equal(insert[2].calls, 0);
        assert_int_equal(insert[3].calls, i);
        blk_remove_bs(blk);
        assert_int_equal(removed.calls, i);
    }
    blk_unref(blk);
    bdrv_unref(bs);
}

/* 7: see test_abort_aio_request; here the bracket for others, which a drain waits for, too. */
static void bracket_end(void *opaque)
{
    blk_dec_in_flight(opaque);
}

static void test_decision_7_bracket(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");

    blk_inc_in_flight(blk);
    assert_int_equal(aio_bh_schedule_oneshot(env->ctx, bracket_end, blk), 0);
    blk_drain(blk);
    assert_false(blk_in_flight(blk));
    blk_unref(blk);
}

/* 7: a handle is NULL only when there is no memory for the request; then no callback runs. */
static void test_decision_7_no_memory(void **state)
{
    struct platter_options opts = {.size = sizeof(opts), .memory_limit_bytes = 128 << 10};
    struct env env;
    struct done done[8] = {0};
    BlockBackend *blk;
    int n = 0;

    (void)state;
    env.pl = platter_new(&opts, NULL);
    assert_non_null(env.pl);
    env.ctx = platter_get_main_context(env.pl);
    blk = fake_blk(env.pl, "hd0");
    fake_of(blk_bs(blk))->hold = true;
    while (n < 8 && blk_aio_preadv(blk, 0, &view, 0, done_cb, &done[n]) != NULL) {
        n++;
    }
    assert_in_range(n, 1, 7);
    assert_int_equal(blk_preadv(blk, 0, &view, 0), -ENOMEM);
    fake_release(fake_of(blk_bs(blk)));
    env_poll(&env);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(done[i].calls, i < n);
        assert_int_equal(done[i].ret, 0);
    }
    assert_int_equal(blk_preadv(blk, 0, &view, 0), 0);
    blk_unref(blk);
    platter_free(env.pl);
}

/* 9: a node under two backends, as long as they agree; a refusal names both. */
static void test_decision_9_two_users(void **state)
{
    struct env *env = *state;
    BlockBackend *a = fake_blk(env->pl, "a");
    BlockBackend *b = blk_new(env->pl, "b", NULL);
    BlockDriverState *bs = blk_bs(a);
    BlockDriverState *other = fake_open(env->pl, "fake", NULL, BDRV_O_RDWR);
    struct done done = {0};
    Error *err = NULL;

    assert_int_equal(blk_insert_bs(b, bs, NULL), 0);
    assert_int_equal(blk_pwritev(b, 0, &view, 0), 0);
    /* one drain holds both */
    bdrv_drained_begin(bs);
    blk_aio_preadv(b, 0, &view, 0, done_cb, &done);
    env_poll(env);
    assert_int_equal(done.calls, 0);
    bdrv_drained_end(bs);
    done_wait(&done);

    assert_int_equal(blk_set_perm(a, BDRV_PERM_CONSISTENT_READ, BDRV_PERM_CONSISTENT_READ, &err),
                     -EPERM);
    assert_non_null(err);
    assert_non_null(strstr(error_get_pretty(err), "'a'"));
    assert_non_null(strstr(error_get_pretty(err), "'b'"));
    error_free(err);
    err = NULL;
    blk_remove_bs(b);
    assert_int_equal(blk_set_perm(a, BDRV_PERM_CONSISTENT_READ, BDRV_PERM_CONSISTENT_READ, &err),
                     0);
    assert_int_equal(blk_insert_bs(b, bs, &err), -EPERM);
    assert_non_null(strstr(error_get_pretty(err), "'a'"));
    error_free(err);
    err = NULL;
    assert_null(blk_bs(b));
    assert_int_equal(blk_pread(b, 0, buf, 1), -ENOMEDIUM);
    /* all or nothing also for the one that has a medium */
    assert_int_equal(blk_insert_bs(b, other, NULL), 0);
    assert_int_equal(blk_set_bs(b, bs, &err), -EPERM);
    error_free(err);
    assert_ptr_equal(blk_bs(b), other);
    assert_int_equal(blk_pread(b, 0, buf, 1), 1);
    blk_unref(a);
    blk_unref(b);
    bdrv_unref(other);
}

/* 10: one name space, asked from both sides. */
static void test_decision_10_names(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "x", NULL);
    BlockOptions *options = block_options_parse("driver=fake,node-name=x", NULL, NULL);
    Error *err = NULL;

    assert_null(bdrv_open(env->pl, NULL, NULL, options, 0, &err));
    assert_non_null(err);
    error_free(err);
    blk_unref(blk);
}

/* 12: completion in the submitter's context; a last unref elsewhere ends in the control thread. */
struct thread_last {
    BlockBackend *blk;
    _Atomic bool done;
};

static void *unref_main(void *arg)
{
    struct thread_last *t = arg;

    blk_unref(t->blk);
    return NULL;
}

static int unref_co(void *arg)
{
    blk_unref(arg);
    return 0;
}

static void test_decision_12_last_unref(void **state)
{
    struct env *env = *state;
    struct thread_last t = {.blk = fake_blk(env->pl, "hd0")};
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, unref_main, &t), 0);
    pthread_join(thread, NULL);
    assert_ptr_equal(blk_by_name(env->pl, "hd0"), t.blk);
    env_poll(env);
    assert_null(blk_by_name(env->pl, "hd0"));

    t.blk = fake_blk(env->pl, "hd1");
    in_co(unref_co, t.blk);
    env_poll(env);
    assert_null(blk_by_name(env->pl, "hd1"));

    /* the instance may end before that */
    t.blk = fake_blk(env->pl, "hd2");
    in_co(unref_co, t.blk);
}

/* What is left when the instance ends goes with it. */
static void test_instance_end(void **state)
{
    struct env *env = *state;
    BlockBackend *a = fake_blk(env->pl, "a");
    BlockBackend *hidden = fake_blk(env->pl, "b");
    static const BlockDevOps ops = {0};
    int dev;

    assert_int_equal(blk_attach_dev(a, &dev), 0);
    blk_set_dev_ops(a, &ops, &dev);
    blk_hide_on_behalf_of_hmp_drive_del(hidden);
    assert_non_null(blk_new(env->pl, "c", NULL));
    blk_aio_preadv(a, FAKE_BYTES, &view, 0, done_cb, &(struct done){0});
    blk_drain(a);
}

/* 14: see test_blk_aio_cancel; a canceled request holds the backend until its callback has run. */
static void test_decision_14_cancel(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd0");
    BlockDriverState *bs = blk_bs(blk);
    struct done done = {0};
    BlockAIOCB *acb;

    bdrv_ref(bs);
    bdrv_drained_begin(bs);
    acb = blk_aio_preadv(blk, 0, &view, 0, done_cb, &done);
    blk_unref(blk);
    blk_aio_cancel_async(acb);
    env_poll(env);
    assert_int_equal(done.calls, 1);
    assert_int_equal(done.ret, -ECANCELED);
    assert_null(blk_by_name(env->pl, "hd0"));
    bdrv_drained_end(bs);
    bdrv_unref(bs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, env_setup, env_teardown)
        T(test_decision_2_limits),      T(test_decision_3_gate),
        T(test_decision_3_own_request), T(test_decision_4_broken),
        T(test_decision_5_remembered),  T(test_decision_6_notifiers),
        T(test_decision_7_bracket),     cmocka_unit_test(test_decision_7_no_memory),
        T(test_decision_9_two_users),   T(test_decision_10_names),
        T(test_decision_12_last_unref), T(test_instance_end),
        T(test_decision_14_cancel),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
