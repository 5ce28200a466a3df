/* SPDX-License-Identifier: MIT */
/* Groups of child coroutines: bounded, all awaited, first failure kept, no memory needed. */
#include "loop_test.h"

#include "loop/co_group.h"
#include "loop/context.h"
#include "loop/io.h"
#include "util/budget.h"

struct piece {
    int number;
    int ret;
};

/* What the pieces saw. */
static struct seen {
    int running;
    int most;
    int done;
    bool in_parent;
    Coroutine *parent;
} seen;

static int64_t on_worker(void *arg)
{
    (void)arg;
    return 0;
}

static int slow_piece(void *opaque)
{
    const struct piece *piece = opaque;

    seen.running++;
    seen.most = seen.running > seen.most ? seen.running : seen.most;
    seen.in_parent |= coroutine_self() == seen.parent;
    if (piece->number % 3 != 0) {
        aio_worker_co(on_worker, NULL);
    }
    seen.running--;
    seen.done++;
    return piece->ret;
}

struct run {
    int pieces;
    int fail_at;
    int ret;
    bool ended;
};

static void run_group(void *opaque)
{
    struct run *run = opaque;
    struct piece pieces[CO_GROUP_MAX];
    struct co_group group;

    seen = (struct seen){.parent = coroutine_self()};
    co_group_init(&group, pieces, sizeof(pieces[0]));
    for (int i = 0; i < run->pieces; i++) {
        struct piece *piece = co_group_piece_co(&group);

        *piece = (struct piece){.number = i, .ret = i == run->fail_at ? -5 : 0};
        co_group_start_co(&group, piece, slow_piece);
    }
    run->ret = co_group_wait_co(&group);
    if (run->ret == 0) {
        run->ret = co_group_wait_co(&group); /* empty now */
    }
    run->ended = true;
}

static void poll_run(AioContext *ctx, struct run *run)
{
    Coroutine *co = coroutine_create(run_group, run);

    assert_non_null(co);
    coroutine_enter(co);
    while (!run->ended) {
        aio_poll(ctx, true);
    }
}

/* budget_bytes 0: none. */
static struct run group_in_context(struct run run, uint64_t budget_bytes)
{
    struct mem_budget budget = {.limit_bytes = budget_bytes};
    AioContext *ctx = test_context_new();

    aio_context_set_current(ctx);
    if (budget_bytes != 0) {
        aio_context_set_budget(ctx, &budget);
    }
    poll_run(ctx, &run);
    aio_context_set_current(NULL);
    if (budget_bytes != 0) {
        aio_context_set_budget(ctx, NULL);
    }
    aio_context_unref(ctx);
    return run;
}

static void all_are_run(void **state)
{
    struct run run = group_in_context((struct run){.pieces = 100, .fail_at = -1}, 0);

    (void)state;
    assert_int_equal(run.ret, 0);
    assert_int_equal(seen.done, 100);
    assert_int_equal(seen.running, 0);
    assert_true(seen.most > 1 && seen.most <= CO_GROUP_MAX);
    assert_false(seen.in_parent);
}

static void failure_is_kept(void **state)
{
    struct run run = group_in_context((struct run){.pieces = 20, .fail_at = 7}, 0);

    (void)state;
    assert_int_equal(run.ret, -5);
    assert_int_equal(seen.done, 20);
}

/* The budget has room for the parent's stack only: it does all of it. */
static void without_memory(void **state)
{
    struct run run = group_in_context((struct run){.pieces = 20, .fail_at = -1}, 65536 + 100);

    (void)state;
    assert_int_equal(run.ret, 0);
    assert_int_equal(seen.done, 20);
    assert_int_equal(seen.most, 1);
    assert_true(seen.in_parent);
}

static void empty(void **state)
{
    struct run run = group_in_context((struct run){.pieces = 0, .fail_at = -1}, 0);

    (void)state;
    assert_int_equal(run.ret, 0);
    assert_int_equal(seen.done, 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_are_run),
        cmocka_unit_test(failure_is_kept),
        cmocka_unit_test(without_memory),
        cmocka_unit_test(empty),
    };

    test_engine_set(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
