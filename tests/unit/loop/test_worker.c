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

/* ---- work that computes ---- */

#define COMPUTES 20

static struct {
    unsigned processors;
    atomic_int begun, at_work, most;
    atomic_bool released; /* by work of the other kind */
    int order[COMPUTES];
    int left;
} computing;

static unsigned fake_processors(void)
{
    return computing.processors;
}

/* The first ones wait for each other: as many as there are processors are at work at once. */
static int64_t compute(void *arg)
{
    int at_work = atomic_fetch_add(&computing.at_work, 1) + 1;
    int most = atomic_load(&computing.most);
    int begun = atomic_fetch_add(&computing.begun, 1);

    computing.order[begun] = *(int *)arg;
    while (most < at_work && !atomic_compare_exchange_weak(&computing.most, &most, at_work)) {
    }
    while (atomic_load(&computing.begun) < (int)computing.processors ||
           !atomic_load(&computing.released)) {
        os->sleep_ns(1000);
    }
    atomic_fetch_sub(&computing.at_work, 1);
    return *(int *)arg;
}

static void compute_one(void *opaque)
{
    int n = *(int *)opaque;

    assert_int_equal(aio_compute_co(compute, &n), n);
    computing.left--;
}

static int64_t release(void *arg)
{
    atomic_store(&computing.released, true);
    return 0;
}

static void release_co(void *opaque)
{
    assert_int_equal(aio_worker_co(release, 0), 0);
}

static void compute_many(unsigned processors)
{
    AioContext *ctx = test_context_new();
    int numbers[COMPUTES];

    memset(&computing, 0, sizeof(computing));
    computing.processors = processors;
    computing.left = COMPUTES;
    ctx->workers_max = COMPUTES + 1;
    aio_context_set_current(ctx);
    for (int i = 0; i < COMPUTES; i++) {
        numbers[i] = i;
        coroutine_enter(coroutine_create(compute_one, &numbers[i]));
    }
    coroutine_enter(coroutine_create(release_co, 0));
    aio_wait_while(ctx, work_left, &computing.left);
    aio_context_unref(ctx);
}

/* No more than one on each processor, in order; other work does not wait for them. */
static void test_compute(void **state)
{
    struct os_table table = os_linux;

    table.processors = fake_processors;
    os_replace(&table);
    compute_many(1);
    assert_int_equal(atomic_load(&computing.most), 1);
    for (int i = 0; i < COMPUTES; i++) {
        assert_int_equal(computing.order[i], i);
    }
    compute_many(3);
    assert_int_equal(atomic_load(&computing.most), 3);
    compute_many(COMPUTES);
    assert_int_equal(atomic_load(&computing.most), COMPUTES);
    os_replace(0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_workers),
        cmocka_unit_test(test_workers_come_and_go),
        cmocka_unit_test(test_free_after_work),
        cmocka_unit_test(test_compute),
    };

    test_engine_set(argc, argv);
    return cmocka_run_group_tests(tests, 0, 0);
}
