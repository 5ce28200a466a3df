/* SPDX-License-Identifier: MIT */
/* Worker threads of a context: their work, and their coming and going. */
#include "io_test.h"

#include <errno.h>
#include <stdatomic.h>

static int64_t work(void *arg)
{
    return *(int *)arg * 2;
}

static void workers(void *arg)
{
    int n = 21;

    for (int i = 0; i < 50; i++) {
        assert_int_equal(aio_worker_co(work, &n), 42);
    }
}

static int no_thread(const char *name, void *(*run)(void *), void *arg, os_thread **ret_thread)
{
    return -EAGAIN;
}

static void no_worker(void *arg)
{
    int n = 1;

    assert_int_equal(aio_worker_co(work, &n), -ENOMEM);
}

static void test_workers(void **state)
{
    struct os_table table = os_linux;
    AioContext *ctx = test_context_new();

    table.thread_create = no_thread;
    os_replace(&table);
    run_co(ctx, no_worker, 0);
    os_replace(0);
    run_co(ctx, workers, 0);
    aio_context_unref(ctx);
}

/* Threads started and joined; one at a time may be had when scarce. */
static atomic_int started, joined;
static atomic_bool scarce;

static int counting_create(const char *name, void *(*run)(void *), void *arg,
                           os_thread **ret_thread)
{
    int rc = -EAGAIN;

    if (!atomic_load(&scarce) || atomic_load(&started) == atomic_load(&joined)) {
        rc = os_linux.thread_create(name, run, arg, ret_thread);
    }
    atomic_fetch_add(&started, rc == 0);
    return rc;
}

static void counting_join(os_thread *thread)
{
    os_linux.thread_join(thread);
    atomic_fetch_add(&joined, 1);
}

static void work_once(void *opaque)
{
    int n = 21;

    assert_int_equal(aio_worker_co(work, &n), 42);
    --*(int *)opaque;
}

static bool work_left(void *opaque)
{
    return *(int *)opaque > 0;
}

static void work_many(AioContext *ctx, int n)
{
    int left = n;

    aio_context_set_current(ctx);
    for (int i = 0; i < n; i++) {
        coroutine_enter(coroutine_create(work_once, &left));
    }
    aio_wait_while(ctx, work_left, &left);
}

/* Workers that find nothing to do end, whatever comes in at that moment; others take their place,
 * and all are joined. */
static void test_workers_come_and_go(void **state)
{
    struct os_table table = os_linux;
    AioContext *ctx;

    table.thread_create = counting_create;
    table.thread_join = counting_join;
    os_replace(&table);
    for (int s = 0; s < 2; s++) {
        atomic_store(&started, 0);
        atomic_store(&joined, 0);
        atomic_store(&scarce, s);
        ctx = test_context_new();
        ctx->workers_idle_ns = 1000;
        for (int i = 0; i < 100 || atomic_load(&started) < 3; i++) {
            work_many(ctx, 1 + i % 20);
        }
        assert_true(atomic_load(&joined) >= 1);
        aio_context_unref(ctx);
        assert_int_equal(atomic_load(&started), atomic_load(&joined));
    }
    os_replace(0);
}

/* The worker may still be about to wake us when its context goes. */
static void test_free_after_work(void **state)
{
    for (int i = 0; i < 100; i++) {
        AioContext *ctx = test_context_new();

        work_many(ctx, 1 + i % 3);
        aio_context_unref(ctx);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_workers),
        cmocka_unit_test(test_workers_come_and_go),
        cmocka_unit_test(test_free_after_work),
    };

    test_engine_set(argc, argv);
    return cmocka_run_group_tests(tests, 0, 0);
}
