/* SPDX-License-Identifier: MIT */
/* Counting by several threads at once, with and without a slot of their own: nothing is lost, and a
 * reader never sees more than was counted. */
#include "fake.h"

#include <stdatomic.h>

#include "os/thread.h"

#define CONTEXTS (OS_SLOTS + 8) /* some share a slot */
#define THREADS 6
#define ROUNDS 2000
#define BYTES 512

struct counter {
    BlockAcctStats *stats;
    AioContext *ctx; /* NULL: of a thread without one */
    os_thread *thread;
};

static void *counter_run(void *opaque)
{
    struct counter *c = opaque;
    BlockAcctCookie cookie;

    if (c->ctx != NULL) {
        aio_context_set_current(c->ctx);
    }
    for (int i = 0; i < ROUNDS; i++) {
        block_acct_start(c->stats, &cookie, BYTES, BLOCK_ACCT_WRITE);
        if (i % 4 == 3) {
            block_acct_failed(c->stats, &cookie);
        } else {
            block_acct_done(c->stats, &cookie);
        }
        block_acct_merge_done(c->stats, BLOCK_ACCT_WRITE, 2);
        block_acct_invalid(c->stats, BLOCK_ACCT_READ);
    }
    aio_context_set_current(NULL);
    return NULL;
}

static void check_totals(BlockAcctStats *stats, uint64_t rounds)
{
    struct block_acct_totals totals;
    const struct block_acct_totals *t = &totals;
    struct block_acct_latency latency;

    block_acct_read(stats, &totals);
    block_acct_read_latency(stats, BLOCK_ACCT_WRITE, &latency);
    assert_int_equal(latency.count, rounds); /* failed ones take time too */
    assert_true(latency.total_ns == t->total_time_ns[BLOCK_ACCT_WRITE]);
    assert_int_equal(t->ops[BLOCK_ACCT_WRITE], rounds * 3 / 4);
    assert_int_equal(t->bytes[BLOCK_ACCT_WRITE], rounds * 3 / 4 * BYTES);
    assert_int_equal(t->failed_ops[BLOCK_ACCT_WRITE], rounds / 4);
    assert_int_equal(t->merged[BLOCK_ACCT_WRITE], rounds * 2);
    assert_int_equal(t->invalid_ops[BLOCK_ACCT_READ], rounds);
    assert_int_equal(t->in_flight[BLOCK_ACCT_WRITE], 0);
}

static void test_threads(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd", NULL);
    struct counter counters[THREADS] = {0};
    AioContext *contexts[CONTEXTS];
    struct block_acct_totals t;
    uint64_t before = 0;

    for (int i = 0; i < CONTEXTS; i++) {
        contexts[i] = aio_context_new(NULL, NULL);
        assert_non_null(contexts[i]);
    }
    assert_int_equal(aio_context_slot(contexts[CONTEXTS - 1]), OS_SLOT_SHARED);
    assert_int_not_equal(aio_context_slot(contexts[0]), aio_context_slot(contexts[1]));
    for (int i = 0; i < THREADS; i++) { /* two each: own slots, the shared one, no context */
        counters[i].stats = blk_get_stats(blk);
        counters[i].ctx = i < 2 ? contexts[i] : i < 4 ? contexts[CONTEXTS - i] : NULL;
        assert_int_equal(os->thread_create("count", counter_run, &counters[i], &counters[i].thread),
                         0);
    }
    for (int i = 0; i < 200; i++) {
        block_acct_read(blk_get_stats(blk), &t);
        assert_true(t.ops[BLOCK_ACCT_WRITE] >= before);
        assert_true(t.ops[BLOCK_ACCT_WRITE] <= (uint64_t)THREADS * ROUNDS * 3 / 4);
        before = t.ops[BLOCK_ACCT_WRITE];
    }
    for (int i = 0; i < THREADS; i++) {
        os->thread_join(counters[i].thread);
    }
    check_totals(blk_get_stats(blk), (uint64_t)THREADS * ROUNDS);
    for (int i = 0; i < CONTEXTS; i++) {
        aio_context_unref(contexts[i]);
    }
    blk_unref(blk);
}

/* The owner of a slot goes and another comes: what was counted stays. */
static void test_slot_again(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd", NULL);
    unsigned slot = 0;

    for (int i = 0; i < 3; i++) {
        struct counter c = {.stats = blk_get_stats(blk), .ctx = aio_context_new(NULL, NULL)};

        assert_non_null(c.ctx);
        slot = i == 0 ? aio_context_slot(c.ctx) : slot;
        assert_int_equal(aio_context_slot(c.ctx), slot);
        assert_int_equal(os->thread_create("count", counter_run, &c, &c.thread), 0);
        os->thread_join(c.thread);
        aio_context_unref(c.ctx);
    }
    check_totals(blk_get_stats(blk), 3 * ROUNDS);
    blk_unref(blk);
}

static uint64_t watched_so_far(BlockAcctStats *stats)
{
    uint64_t *boundaries, *bins;
    uint64_t sum;
    size_t n;

    assert_int_equal(block_latency_histogram_get(stats, BLOCK_ACCT_WRITE, &boundaries, &bins, &n),
                     0);
    sum = n > 0 ? bins[0] + bins[1] : 0;
    free(boundaries);
    free(bins);
    return sum;
}

/* What is watched sees all that ends while it is there, and nothing else, whether the thread has a
 * way of its own to count or not; the other figures go on. */
static void test_watched_in_between(void **state)
{
    struct env *env = *state;
    AioContext *const contexts[] = {aio_context_new(NULL, NULL), NULL};
    static const uint64_t boundary = 1000;

    for (size_t i = 0; i < 2; i++) {
        BlockBackend *blk = blk_new(env->pl, "hd", NULL);
        BlockAcctStats *stats = blk_get_stats(blk);
        struct counter c = {.stats = stats, .ctx = contexts[i]};

        for (uint64_t phase = 1; phase <= 6; phase++) {
            bool watch = phase % 2 == 0;

            assert_int_equal(block_latency_histogram_set(stats, BLOCK_ACCT_WRITE,
                                                         watch ? &boundary : NULL, watch, NULL),
                             0);
            assert_int_equal(os->thread_create("count", counter_run, &c, &c.thread), 0);
            os->thread_join(c.thread);
            assert_int_equal(watched_so_far(stats), watch ? ROUNDS : 0);
            check_totals(stats, phase * ROUNDS);
        }
        blk_unref(blk);
    }
    aio_context_unref(contexts[0]);
}

/* It comes and goes while others count. */
static void test_watched_meanwhile(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd", NULL);
    struct counter counters[2] = {0};
    static const uint64_t boundary = 1000;

    for (int i = 0; i < 2; i++) {
        counters[i].stats = blk_get_stats(blk);
        counters[i].ctx = aio_context_new(NULL, NULL);
        assert_non_null(counters[i].ctx);
        assert_int_equal(os->thread_create("count", counter_run, &counters[i], &counters[i].thread),
                         0);
    }
    for (int i = 0; i < 200; i++) {
        assert_int_equal(block_latency_histogram_set(blk_get_stats(blk), BLOCK_ACCT_WRITE,
                                                     i % 2 ? NULL : &boundary, !(i % 2), NULL),
                         0);
        assert_true(watched_so_far(blk_get_stats(blk)) <= 2 * ROUNDS);
    }
    for (int i = 0; i < 2; i++) {
        os->thread_join(counters[i].thread);
        aio_context_unref(counters[i].ctx);
    }
    check_totals(blk_get_stats(blk), 2 * ROUNDS);
    blk_unref(blk);
}

/* Ended in a context whose turn began before the request did: it took no time, not less. */
static void test_older_turn(void **state)
{
    struct env *env = *state;
    BlockBackend *blk = blk_new(env->pl, "hd", NULL);
    BlockAcctStats *stats = blk_get_stats(blk);
    struct block_acct_totals t;
    BlockAcctCookie cookie;

    for (int i = 0; i < 2; i++) { /* the clock not yet read in this turn, and read */
        block_acct_start(stats, &cookie, BYTES, BLOCK_ACCT_READ);
        cookie.start_time_ns += 1000000000;
        block_acct_done(stats, &cookie);
    }
    block_acct_read(stats, &t);
    assert_int_equal(t.ops[BLOCK_ACCT_READ], 2);
    assert_int_equal(t.total_time_ns[BLOCK_ACCT_READ], 0);
    blk_unref(blk);
}

/* ---- on a clock of our own; in a thread without a context, so that it is read each time ---- */

#define SECOND INT64_C(1000000000)

static int64_t fake_ns;

static int64_t fake_clock(void)
{
    return fake_ns;
}

static int clock_setup(void **state)
{
    static struct os_table table;

    table = os_linux;
    table.clock_monotonic_ns = fake_clock;
    fake_ns = 1000 * SECOND;
    os_replace(&table);
    *state = block_acct_new();
    return *state != NULL ? 0 : -1;
}

static int clock_teardown(void **state)
{
    block_acct_free(*state);
    os_replace(NULL);
    return 0;
}

static void one(BlockAcctStats *stats, enum BlockAcctType type, int64_t ns, bool fails)
{
    BlockAcctCookie cookie;

    block_acct_start(stats, &cookie, BYTES, type);
    fake_ns += ns;
    if (fails) {
        block_acct_failed(stats, &cookie);
    } else {
        block_acct_done(stats, &cookie);
    }
}

/* What is older than the interval is told no more, whether others came in between or none. */
static void test_intervals_expire(void **state)
{
    BlockAcctStats *stats = *state;
    struct block_acct_interval in;

    assert_int_equal(block_acct_add_interval(stats, 10, NULL), 0);
    one(stats, BLOCK_ACCT_READ, 1000, false);
    one(stats, BLOCK_ACCT_READ, 9000, false);
    fake_ns += 4 * SECOND; /* less than half of it: surely told */
    assert_true(block_acct_get_interval(stats, 0, &in));
    assert_int_equal(in.of[BLOCK_ACCT_READ].min_ns, 1000);
    assert_int_equal(in.of[BLOCK_ACCT_READ].max_ns, 9000);
    assert_int_equal(in.of[BLOCK_ACCT_READ].avg_ns, 5000);
    for (int i = 0; i < 10; i++) { /* others, a second apart */
        fake_ns += SECOND;
        one(stats, BLOCK_ACCT_READ, 3000, false);
    }
    assert_true(block_acct_get_interval(stats, 0, &in));
    assert_int_equal(in.of[BLOCK_ACCT_READ].min_ns, 3000);
    assert_int_equal(in.of[BLOCK_ACCT_READ].max_ns, 3000);
    assert_int_equal(in.of[BLOCK_ACCT_READ].avg_ns, 3000);
    assert_true(in.of[BLOCK_ACCT_READ].avg_queue_depth > 0);
    fake_ns += 11 * SECOND; /* nothing came */
    assert_true(block_acct_get_interval(stats, 0, &in));
    assert_int_equal(in.of[BLOCK_ACCT_READ].min_ns, 0);
    assert_int_equal(in.of[BLOCK_ACCT_READ].max_ns, 0);
    assert_int_equal(in.of[BLOCK_ACCT_READ].avg_ns, 0);
    assert_true(in.of[BLOCK_ACCT_READ].avg_queue_depth == 0);
}

/* Failed and invalid ones are counted in any case; in times and as activity only as set up. */
static void test_failed_and_invalid(void **state)
{
    BlockAcctStats *stats = *state;
    struct block_acct_totals t;

    for (int setup = 0; setup < 4; setup++) {
        bool invalid = setup & 1, failed = setup & 2;
        uint64_t before;

        block_acct_setup(stats, invalid, failed);
        one(stats, BLOCK_ACCT_WRITE, 100, false);
        block_acct_read(stats, &t);
        assert_int_equal(t.idle_time_ns, 0);
        assert_int_equal(t.account_invalid, invalid);
        assert_int_equal(t.account_failed, failed);
        before = t.total_time_ns[BLOCK_ACCT_WRITE];

        fake_ns += 5 * SECOND;
        one(stats, BLOCK_ACCT_WRITE, 7000, true);
        block_acct_read(stats, &t);
        assert_int_equal(t.idle_time_ns, failed ? 0 : 5 * SECOND + 7000);
        assert_int_equal(t.total_time_ns[BLOCK_ACCT_WRITE] - before, failed ? 7000 : 0);
        assert_int_equal(t.failed_ops[BLOCK_ACCT_WRITE], 1);
        assert_int_equal(t.ops[BLOCK_ACCT_WRITE], 1);
        assert_int_equal(t.bytes[BLOCK_ACCT_WRITE], BYTES);
        assert_int_equal(t.in_flight[BLOCK_ACCT_WRITE], 0);

        one(stats, BLOCK_ACCT_WRITE, 100, false);
        fake_ns += 3 * SECOND;
        block_acct_invalid(stats, BLOCK_ACCT_FLUSH);
        block_acct_read(stats, &t);
        assert_int_equal(t.idle_time_ns, invalid ? 0 : 3 * SECOND);
        assert_int_equal(t.invalid_ops[BLOCK_ACCT_FLUSH], 1);
        assert_int_equal(t.failed_ops[BLOCK_ACCT_FLUSH], 0);
        assert_int_equal(t.total_time_ns[BLOCK_ACCT_FLUSH], 0);
        assert_int_equal(t.in_flight[BLOCK_ACCT_FLUSH], 0);
        block_acct_free(stats); /* each round begins at nothing */
        stats = *state = block_acct_new();
        assert_non_null(stats);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_threads, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_slot_again, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_watched_in_between, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_watched_meanwhile, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_older_turn, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_intervals_expire, clock_setup, clock_teardown),
        cmocka_unit_test_setup_teardown(test_failed_and_invalid, clock_setup, clock_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
