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

static void check_totals(const struct block_acct_totals *t, uint64_t rounds)
{
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
    block_acct_read(blk_get_stats(blk), &t);
    check_totals(&t, (uint64_t)THREADS * ROUNDS);
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
    struct block_acct_totals t;
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
    block_acct_read(blk_get_stats(blk), &t);
    check_totals(&t, 3 * ROUNDS);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_threads, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_slot_again, env_setup, env_teardown),
        cmocka_unit_test_setup_teardown(test_older_turn, env_setup, env_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
