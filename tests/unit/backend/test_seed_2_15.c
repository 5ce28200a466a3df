/* SPDX-License-Identifier: MIT */
/* Sections 2.15 to 2.19 of the seed: notifiers, plug, accounting, op blockers, root state and
 * throttle groups. One test a row, named by it. */
#include "fake.h"

#include <stdio.h>

#include "block/throttle.h"
#include "loop/task.h"

/* ---- 2.15 ---- */

struct watcher {
    int detached;
    int attached;
    AioContext *last;
    BlkNotifier close;
    int closed;
};

static void on_attached(AioContext *ctx, void *opaque)
{
    struct watcher *w = opaque;

    w->attached++;
    w->last = ctx;
}

static void on_detach(void *opaque)
{
    struct watcher *w = opaque;

    w->detached++;
    assert_int_equal(w->attached, w->detached - 1); /* before the new one is told */
}

static void test_blk_add_aio_context_notifier(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd", NULL); /* empty: it is remembered */
    AioContext *other = aio_context_new(NULL, NULL);
    struct watcher w = {0};

    assert_int_equal(blk_add_aio_context_notifier(blk, on_attached, on_detach, &w), 0);
    blk_set_aio_context(blk, other);
    assert_int_equal(w.detached, 1);
    assert_int_equal(w.attached, 1);
    assert_ptr_equal(w.last, other);
    blk_set_aio_context(blk, other); /* nothing changes */
    assert_int_equal(w.attached, 1);
    blk_set_aio_context(blk, NULL);
    assert_ptr_equal(w.last, env->ctx);
    blk_unref(blk);
    aio_context_unref(other);
}

static void test_blk_remove_aio_context_notifier(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd", NULL);
    AioContext *other = aio_context_new(NULL, NULL);
    struct watcher w = {0}, v = {0};

    assert_int_equal(blk_add_aio_context_notifier(blk, on_attached, on_detach, &w), 0);
    assert_int_equal(blk_add_aio_context_notifier(blk, on_attached, on_detach, &v), 0);
    blk_remove_aio_context_notifier(blk, on_attached, NULL, &w); /* not this triple */
    blk_remove_aio_context_notifier(blk, on_attached, on_detach, &w);
    blk_set_aio_context(blk, other);
    assert_int_equal(w.attached, 0);
    assert_int_equal(v.attached, 1);
    blk_unref(blk);
    aio_context_unref(other);
}

static void on_close(BlkNotifier *n, BlockBackend *blk)
{
    struct watcher *w = CONTAINER_OF(n, struct watcher, close);

    w->closed++;
    assert_null(blk_bs(blk));
}

static void test_blk_add_close_notifier(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd", NULL); /* empty: it is remembered */
    BlockDriverState *bs = fake_open(env->pl, "fake", NULL, BDRV_O_RDWR);
    struct watcher w = {.close = {.notify = on_close}};

    blk_add_close_notifier(blk, &w.close);
    assert_int_equal(blk_insert_bs(blk, bs, NULL), 0);
    blk_remove_bs(blk);
    assert_int_equal(w.closed, 1);
    assert_int_equal(blk_insert_bs(blk, bs, NULL), 0); /* and for the next medium */
    bdrv_unref(bs);
    blk_unref(blk);
    assert_int_equal(w.closed, 2);
}

/* ---- 2.16 ---- */

static void test_blk_io_plug(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd");
    struct done done = {0};
    uint8_t buf[512];
    struct iovec iov = {.iov_base = buf, .iov_len = sizeof(buf)};
    struct iov_view view = {.iov = &iov, .niov = 1, .bytes = sizeof(buf)};

    blk_io_plug(blk);
    assert_int_equal(env->ctx->plugged, 1);
    blk_io_plug(blk); /* nests */
    assert_int_equal(env->ctx->plugged, 2);
    assert_non_null(blk_aio_preadv(blk, 0, &view, 0, done_cb, &done));
    blk_io_unplug(blk);
    assert_int_equal(env->ctx->plugged, 1);
    blk_io_unplug(blk);
    assert_int_equal(env->ctx->plugged, 0);
    done_wait(&done);
    assert_int_equal(done.ret, 0);
    blk_unref(blk);
}

/* The medium changes in between: the depth is the context's, nothing is left behind. */
static void test_blk_io_unplug(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd");
    struct done done = {0};

    blk_io_plug(blk);
    blk_remove_bs(blk);
    assert_int_equal(env->ctx->plugged, 1);
    blk_io_unplug(blk);
    assert_int_equal(env->ctx->plugged, 0);
    assert_non_null(blk_aio_flush(blk, done_cb, &done));
    done_wait(&done);
    assert_int_equal(done.ret, -ENOMEDIUM);
    blk_unref(blk);
}

/* ---- 2.17 ---- */

static void test_blk_get_stats(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd", NULL);
    BlockAcctStats *stats = blk_get_stats(blk);
    struct block_acct_totals t;
    BlockAcctCookie c[4];

    assert_non_null(stats);
    block_acct_read(stats, &t);
    assert_int_equal(t.idle_time_ns, -1);
    for (int type = 0; type < BLOCK_MAX_IOTYPE; type++) {
        block_acct_start(stats, &c[type], 100 * (uint64_t)(type + 1), (enum BlockAcctType)type);
    }
    block_acct_read(stats, &t);
    assert_int_equal(t.in_flight[BLOCK_ACCT_FLUSH], 1);
    block_acct_done(stats, &c[BLOCK_ACCT_READ]);
    block_acct_done(stats, &c[BLOCK_ACCT_WRITE]);
    block_acct_failed(stats, &c[BLOCK_ACCT_FLUSH]);
    block_acct_invalid(stats, BLOCK_ACCT_READ);
    block_acct_merge_done(stats, BLOCK_ACCT_WRITE, 3);
    block_acct_read(stats, &t);
    assert_int_equal(t.ops[BLOCK_ACCT_READ], 1);
    assert_int_equal(t.bytes[BLOCK_ACCT_READ], 100);
    assert_int_equal(t.bytes[BLOCK_ACCT_WRITE], 200);
    assert_int_equal(t.ops[BLOCK_ACCT_FLUSH], 0);
    assert_int_equal(t.failed_ops[BLOCK_ACCT_FLUSH], 1);
    assert_int_equal(t.invalid_ops[BLOCK_ACCT_READ], 1);
    assert_int_equal(t.merged[BLOCK_ACCT_WRITE], 3);
    assert_int_equal(t.in_flight[BLOCK_ACCT_FLUSH], 0);
    assert_int_equal(t.in_flight[BLOCK_ACCT_UNMAP], 1);
    assert_true(t.idle_time_ns >= 0);
    block_acct_done(stats, &c[BLOCK_ACCT_UNMAP]);
    assert_ptr_equal(blk_get_stats(blk), stats);
    blk_unref(blk);
}

static void test_histogram(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd", NULL);
    BlockAcctStats *stats = blk_get_stats(blk);
    static const uint64_t good[] = {10, 50, 100}, bad[] = {10, 10};
    static const int64_t times[] = {0, 9, 10, 49, 50, 99, 100, 1000000};
    uint64_t *boundaries, *bins;
    size_t n;

    assert_int_equal(block_latency_histogram_set(stats, BLOCK_ACCT_READ, bad, 2, NULL), -EINVAL);
    assert_int_equal(block_latency_histogram_set(stats, BLOCK_ACCT_READ, good, 3, NULL), 0);
    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        BlockAcctCookie c;

        block_acct_start(stats, &c, 1, BLOCK_ACCT_READ);
        c.start_time_ns -= times[i]; /* the turn's clock stands still */
        block_acct_done(stats, &c);
    }
    assert_int_equal(block_latency_histogram_get(stats, BLOCK_ACCT_READ, &boundaries, &bins, &n),
                     0);
    assert_int_equal(n, 3);
    assert_int_equal(boundaries[1], 50);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(bins[i], 2);
    }
    free(boundaries);
    free(bins);
    assert_int_equal(block_latency_histogram_set(stats, BLOCK_ACCT_READ, NULL, 0, NULL), 0);
    assert_int_equal(block_latency_histogram_get(stats, BLOCK_ACCT_READ, &boundaries, &bins, &n),
                     0);
    assert_int_equal(n, 0);
    free(boundaries);
    free(bins);
    blk_unref(blk);
}

static void test_intervals(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd", NULL);
    BlockAcctStats *stats = blk_get_stats(blk);
    struct block_acct_interval in;

    assert_int_equal(block_acct_add_interval(stats, 0, NULL), -EINVAL);
    assert_int_equal(block_acct_add_interval(stats, 60, NULL), 0);
    assert_int_equal(block_acct_add_interval(stats, 60, NULL), -EEXIST);
    for (int64_t ns = 1000; ns <= 3000; ns += 1000) {
        BlockAcctCookie c;

        block_acct_start(stats, &c, 1, BLOCK_ACCT_WRITE);
        c.start_time_ns -= ns;
        block_acct_done(stats, &c);
    }
    assert_true(block_acct_get_interval(stats, 0, &in));
    assert_int_equal(in.interval_s, 60);
    assert_int_equal(in.of[BLOCK_ACCT_WRITE].min_ns, 1000);
    assert_int_equal(in.of[BLOCK_ACCT_WRITE].max_ns, 3000);
    assert_int_equal(in.of[BLOCK_ACCT_WRITE].avg_ns, 2000);
    assert_true(in.of[BLOCK_ACCT_WRITE].avg_queue_depth > 0);
    assert_int_equal(in.of[BLOCK_ACCT_READ].avg_ns, 0);
    assert_false(block_acct_get_interval(stats, 1, &in));
    block_acct_clear_intervals(stats);
    assert_false(block_acct_get_interval(stats, 0, &in));
    blk_unref(blk);
}

/* ---- 2.18 ---- */

static Error *reason_new(const char *text)
{
    Error *err = NULL;

    error_set(&err, EBUSY, "%s", text);
    return err;
}

static void test_blk_op_is_blocked(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd", NULL);
    Error *reason = reason_new("a test runs");
    Error *err = NULL;
    BlockDriverState *bs = fake_open(env->pl, "fake", "n", BDRV_O_RDWR);
    BlockBackend *other = blk_new(env->pl, "other", NULL);

    assert_false(blk_op_is_blocked(blk, BLOCK_OP_TYPE_RESIZE, &err));
    assert_null(err);
    assert_int_equal(blk_op_block(blk, BLOCK_OP_TYPE_RESIZE, reason), 0); /* remembered */
    assert_int_equal(blk_insert_bs(blk, bs, NULL), 0);
    assert_true(blk_op_is_blocked(blk, BLOCK_OP_TYPE_RESIZE, &err));
    expect_error(err, "Node 'n' is busy: a test runs");
    assert_false(blk_op_is_blocked(blk, BLOCK_OP_TYPE_EJECT, &err));
    /* whoever else uses the node is told too */
    assert_int_equal(blk_insert_bs(other, bs, NULL), 0);
    assert_true(blk_op_is_blocked(other, BLOCK_OP_TYPE_RESIZE, NULL));
    bdrv_unref(bs);
    blk_unref(other);
    blk_unref(blk);
    error_free(reason);
}

static void test_blk_op_unblock(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd");
    Error *a = reason_new("a"), *b = reason_new("b");

    assert_int_equal(blk_op_block(blk, BLOCK_OP_TYPE_EJECT, a), 0);
    assert_int_equal(blk_op_block(blk, BLOCK_OP_TYPE_EJECT, b), 0);
    blk_op_unblock(blk, BLOCK_OP_TYPE_EJECT, a);
    assert_true(blk_op_is_blocked(blk, BLOCK_OP_TYPE_EJECT, NULL));
    blk_op_unblock(blk, BLOCK_OP_TYPE_EJECT, b);
    assert_false(blk_op_is_blocked(blk, BLOCK_OP_TYPE_EJECT, NULL));
    blk_unref(blk);
    error_free(a);
    error_free(b);
}

static void test_blk_op_block_all(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd");
    Error *reason = reason_new("all");

    assert_int_equal(blk_op_block_all(blk, reason), 0);
    for (int op = 0; op < BLOCK_OP_TYPE_MAX; op++) {
        assert_true(blk_op_is_blocked(blk, (BlockOpType)op, NULL));
    }
    blk_op_unblock(blk, BLOCK_OP_TYPE_STREAM, reason);
    assert_false(blk_op_is_blocked(blk, BLOCK_OP_TYPE_STREAM, NULL));
    blk_remove_bs(blk); /* stays for the next medium */
    assert_true(blk_op_is_blocked(blk, BLOCK_OP_TYPE_COMMIT_SOURCE, NULL));
    blk_unref(blk);
    error_free(reason);
}

static void test_blk_op_unblock_all(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd");
    Error *reason = reason_new("all");

    assert_int_equal(blk_op_block_all(blk, reason), 0);
    blk_op_unblock_all(blk, reason);
    for (int op = 0; op < BLOCK_OP_TYPE_MAX; op++) {
        assert_false(blk_op_is_blocked(blk, (BlockOpType)op, NULL));
    }
    blk_unref(blk);
    error_free(reason);
}

/* ---- 2.19 ---- */

static void test_blk_update_root_state(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd");
    BlockBackendRootState *root;

    assert_int_equal(blk_io_limits_enable(blk, "g", NULL), 0);
    bdrv_set_detect_zeroes(blk_bs(blk), BDRV_DETECT_ZEROES_ON);
    blk_remove_bs(blk); /* updates it */
    root = blk_get_root_state(blk);
    assert_true(root->open_flags & BDRV_O_RDWR);
    assert_false(root->read_only);
    assert_int_equal(root->detect_zeroes, BDRV_DETECT_ZEROES_ON);
    assert_string_equal(root->throttle_group, "g");
    blk_io_limits_disable(blk);
    assert_null(blk_get_root_state(blk)->throttle_group);
    blk_unref(blk);
}

static void test_blk_get_root_state(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd", NULL);
    BlockBackendRootState *root = blk_get_root_state(blk);

    assert_int_equal(root->open_flags, 0);
    assert_false(root->read_only);
    assert_int_equal(root->detect_zeroes, BDRV_DETECT_ZEROES_OFF);
    assert_null(root->throttle_group);
    assert_ptr_equal(blk_get_root_state(blk), root);
    blk_unref(blk);
}

static int limit_to(BlockBackend *blk, uint64_t bytes_per_second)
{
    struct throttle_config c = {.size = sizeof(c)};

    c.limits[THROTTLE_BPS_TOTAL].avg = bytes_per_second;
    return blk_set_io_limits(blk, &c, NULL);
}

struct writes {
    struct done done[8];
    BlockAIOCB *acb[8];
    uint8_t buf[512];
    struct iovec iov;
    struct iov_view view;
};

static void writes_start(struct writes *w, BlockBackend *blk, int n)
{
    memset(w, 0, sizeof(*w));
    w->iov = (struct iovec){.iov_base = w->buf, .iov_len = sizeof(w->buf)};
    w->view = (struct iov_view){.iov = &w->iov, .niov = 1, .bytes = sizeof(w->buf)};
    for (int i = 0; i < n; i++) {
        w->acb[i] = blk_aio_pwritev(blk, 512 * i, &w->view, 0, done_cb, &w->done[i]);
        assert_non_null(w->acb[i]);
    }
}

/* Throttled requests wait; a drain and a medium change let them through; a cancel takes them out;
 * boot-sector reads are not limited. */
static void test_throttled_requests(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd");
    struct fake *fake = fake_of(blk_bs(blk));
    struct writes w;
    uint8_t sector[512];

    assert_int_equal(limit_to(blk, 1), -EINVAL); /* in no group */
    assert_int_equal(blk_io_limits_enable(blk, "g", NULL), 0);
    assert_int_equal(limit_to(blk, 1), 0);
    writes_start(&w, blk, 4);
    env_poll(env);
    assert_int_equal(atomic_load(&fake->writes), 1); /* the others wait for minutes */
    assert_int_equal(blk_read_unthrottled(blk, 0, sector, 1), 0);
    blk_aio_cancel(w.acb[2]);
    assert_int_equal(w.done[2].ret, -ECANCELED);
    blk_drain(blk);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(w.done[i].calls, 1);
    }
    assert_int_equal(atomic_load(&fake->writes), 3);

    writes_start(&w, blk, 3);
    env_poll(env);
    blk_io_limits_disable(blk); /* nobody is left behind */
    for (int i = 0; i < 3; i++) {
        assert_int_equal(w.done[i].ret, 0);
        assert_int_equal(w.done[i].calls, 1);
    }
    blk_unref(blk);
}

/* Write zeroes count with all their bytes and wait; a discard and a flush neither count nor wait.
 */
static void test_throttled_kinds(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = fake_blk(env->pl, "hd");
    struct fake *fake = fake_of(blk_bs(blk));
    struct done zeroes[2] = {0}, discard = {0}, flush = {0};
    struct writes w;

    assert_int_equal(blk_io_limits_enable(blk, "g", NULL), 0);
    assert_int_equal(limit_to(blk, 1), 0);
    assert_non_null(blk_aio_pdiscard(blk, 0, 4096, done_cb, &discard));
    done_wait(&discard);
    for (int i = 0; i < 2; i++) {
        assert_non_null(blk_aio_pwrite_zeroes(blk, 4096 * i, 4096, 0, done_cb, &zeroes[i]));
    }
    env_poll(env);
    assert_int_equal(atomic_load(&fake->zeroes), 1); /* the first goes, and takes what there is */
    assert_int_equal(zeroes[0].calls, 1);
    assert_int_equal(zeroes[1].calls, 0);
    writes_start(&w, blk, 1);
    assert_non_null(blk_aio_pdiscard(blk, 0, 4096, done_cb, &discard));
    assert_non_null(blk_aio_flush(blk, done_cb, &flush));
    env_poll(env);
    assert_int_equal(atomic_load(&fake->writes), 0);
    assert_int_equal(discard.calls, 2);
    assert_int_equal(flush.calls, 1);
    blk_drain(blk);
    assert_int_equal(zeroes[1].calls, 1);
    assert_int_equal(zeroes[1].ret, 0);
    assert_int_equal(w.done[0].calls, 1);
    blk_unref(blk);
}

/* Two backends in one group; the group and its limits stay while a member is empty. */
static void test_throttle_group_shared(void **state)
{
    struct env *env = *state;
    BlockBackend *a = fake_blk(env->pl, "a");
    BlockBackend *b = fake_blk(env->pl, "b");
    struct writes wa, wb;

    assert_int_equal(blk_io_limits_enable(a, "g", NULL), 0);
    assert_int_equal(blk_io_limits_enable(b, "g", NULL), 0);
    assert_ptr_equal(blk_get_throttle_group(a), blk_get_throttle_group(b));
    assert_int_equal(limit_to(a, 1), 0);
    writes_start(&wa, a, 1);
    writes_start(&wb, b, 1);
    env_poll(env);
    assert_int_equal(wa.done[0].calls, 1);
    assert_int_equal(wb.done[0].calls, 0);
    blk_remove_bs(b); /* the request goes through first */
    assert_int_equal(wb.done[0].ret, 0);
    assert_non_null(throttle_group_find(env->pl, "g"));
    blk_unref(a);
    assert_non_null(blk_get_throttle_group(b));
    blk_unref(b);
    assert_null(throttle_group_find(env->pl, "g"));
}

/* ---- 2.4: the events of the tray ---- */

static bool tray_open;

static void tray_change(void *opaque, bool load)
{
    tray_open = !load;
}

static bool tray_is_open(void *opaque)
{
    return tray_open;
}

static void test_tray_events(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "cd", NULL);
    static const BlockDevOps ops = {.change_media_cb = tray_change, .is_tray_open = tray_is_open};
    static const struct {
        bool open, load;
        const char *events;
    } rows[] = {
        {false, true, "tray cd open; tray cd closed; "},
        {true, true, "tray cd closed; "},
        {false, false, "tray cd open; "},
        {true, false, ""},
    };

    blk_dev_change_media_cb(blk, true); /* no operations: nothing at all */
    assert_string_equal(env->events, "");
    blk_set_dev_ops(blk, &ops, NULL);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        env->events[0] = '\0';
        tray_open = rows[i].open;
        blk_dev_change_media_cb(blk, rows[i].load);
        assert_string_equal(env->events, rows[i].events);
    }
    blk_unref(blk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_blk_add_aio_context_notifier, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_blk_remove_aio_context_notifier, env_setup,
                                        env_teardown),
        cmocka_unit_test_setup_teardown(test_blk_add_close_notifier, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_blk_io_plug, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_blk_io_unplug, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_blk_get_stats, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_histogram, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_intervals, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_blk_op_is_blocked, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_blk_op_unblock, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_blk_op_block_all, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_blk_op_unblock_all, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_blk_update_root_state, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_blk_get_root_state, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_throttled_requests, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_throttled_kinds, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_throttle_group_shared, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_tray_events, env_setup, env_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
