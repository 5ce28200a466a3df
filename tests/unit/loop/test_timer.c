/* SPDX-License-Identifier: MIT */
/* Timers of a context, on a clock of our own, and sleeping. */
#include "loop_test.h"

#include "os/os.h"

static int64_t fake_ns;

static int64_t fake_clock(void)
{
    return fake_ns;
}

struct alarm {
    AioTimer *timer;
    int order;
    int64_t again_ns;
};
static int alarms;

static void alarm_rings(void *opaque)
{
    struct alarm *a = opaque;

    a->order = ++alarms;
    if (a->again_ns) {
        aio_timer_mod(a->timer, a->again_ns);
    }
}

static void frees_itself(void *opaque)
{
    AioTimer **timer = opaque;

    aio_timer_free(*timer);
    *timer = 0;
}

static void test_timers(void **state)
{
    struct os_table table = os_linux;
    enum { N = 200 };
    static struct alarm a[N];
    AioContext *ctx;
    AioTimer *suicidal;

    table.clock_monotonic_ns = fake_clock;
    os_replace(&table);
    fake_ns = 1000;
    alarms = 0;
    ctx = test_context_new();
    for (int i = 0; i < N; i++) {
        a[i] = (struct alarm){.timer = aio_timer_new(ctx, alarm_rings, &a[i])};
        aio_timer_mod(a[i].timer, 2000 + (i * 7919) % N);
    }
    for (int i = 0; i < N; i += 3) {
        aio_timer_del(a[i].timer);
        assert_false(aio_timer_pending(a[i].timer));
    }
    assert_false(aio_poll(ctx, false));
    fake_ns = 2000 + N / 2;
    while (aio_poll(ctx, false)) {
    }
    for (int i = 0; i < N; i++) {
        bool due = i % 3 != 0 && (i * 7919) % N <= N / 2;

        assert_int_equal(a[i].order != 0, due);
        assert_int_equal(aio_timer_pending(a[i].timer), i % 3 != 0 && !due);
        for (int j = 0; j < i; j++) {
            if (a[i].order && a[j].order) {
                assert_true(((i * 7919) % N < (j * 7919) % N) == (a[i].order < a[j].order));
            }
        }
    }
    for (int i = 0; i < N; i++) {
        aio_timer_free(a[i].timer);
    }
    suicidal = aio_timer_new(ctx, frees_itself, &suicidal);
    aio_timer_mod(suicidal, fake_ns);
    assert_true(aio_poll(ctx, true));
    assert_null(suicidal);
    aio_context_unref(ctx);
    os_replace(0);
}

/* A timer that arms itself for the past fires once a turn. */
static void test_timer_fair(void **state)
{
    AioContext *ctx = test_context_new();
    struct alarm a = {.again_ns = 1};

    alarms = 0;
    a.timer = aio_timer_new(ctx, alarm_rings, &a);
    aio_timer_mod(a.timer, 1);
    for (int i = 1; i < 20; i++) {
        assert_true(aio_poll(ctx, true));
        assert_int_equal(alarms, i);
    }
    aio_timer_free(a.timer);
    aio_context_unref(ctx);
}

/* ... and keeps nobody else from firing, wherever the clock goes. */
static void test_timer_starves_nobody(void **state)
{
    struct os_table table = os_linux;
    struct alarm greedy = {.again_ns = 1};
    struct alarm a[3] = {0};
    AioContext *ctx;

    table.clock_monotonic_ns = fake_clock;
    os_replace(&table);
    fake_ns = 5000;
    alarms = 0;
    ctx = test_context_new();
    greedy.timer = aio_timer_new(ctx, alarm_rings, &greedy);
    aio_timer_mod(greedy.timer, 1);
    for (int i = 0; i < 3; i++) { /* equal: in order of arming */
        a[i].timer = aio_timer_new(ctx, alarm_rings, &a[i]);
        aio_timer_mod(a[i].timer, 4000);
    }
    assert_true(aio_poll(ctx, true));
    assert_int_equal(greedy.order, 1);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(a[i].order, 2 + i);
    }
    fake_ns = 100; /* back: what is armed for later waits, what is due is due */
    aio_timer_del(greedy.timer);
    aio_timer_mod(a[0].timer, 200);
    aio_timer_mod(a[1].timer, 50);
    aio_timer_mod(a[2].timer, INT64_MIN);
    alarms = 0;
    assert_true(aio_poll(ctx, true));
    assert_int_equal(alarms, 2);
    assert_int_equal(a[2].order, 1);
    assert_int_equal(a[1].order, 2);
    assert_true(aio_timer_pending(a[0].timer));
    assert_false(aio_poll(ctx, false));
    fake_ns = 200;
    assert_true(aio_poll(ctx, true));
    assert_int_equal(a[0].order, 3);
    aio_timer_free(greedy.timer);
    for (int i = 0; i < 3; i++) {
        aio_timer_free(a[i].timer);
    }
    aio_context_unref(ctx);
    os_replace(0);
}

/* A real wait: poll returns when the timer is due, not before. */
static void test_timer_waits(void **state)
{
    AioContext *ctx = test_context_new();
    struct alarm a = {0};
    int64_t due_ns = aio_clock_ns() + 2000000;

    alarms = 0;
    a.timer = aio_timer_new(ctx, alarm_rings, &a);
    aio_timer_mod(a.timer, due_ns);
    while (!alarms) {
        aio_poll(ctx, true);
    }
    assert_true(aio_clock_ns() >= due_ns);
    aio_timer_free(a.timer);
    aio_context_unref(ctx);
}

static void sleeper(void *opaque)
{
    assert_int_equal(co_sleep_ns(1000000), 0);
    assert_int_equal(co_sleep_ns(0), 0);
    *(bool *)opaque = true;
}

static void test_co_sleep(void **state)
{
    AioContext *ctx = test_context_new();
    bool done = false;

    aio_context_set_current(ctx);
    coroutine_enter(coroutine_create(sleeper, &done));
    while (!done) {
        aio_poll(ctx, true);
    }
    aio_context_unref(ctx);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timers),
        cmocka_unit_test(test_timer_fair),
        cmocka_unit_test(test_timer_starves_nobody),
        cmocka_unit_test(test_timer_waits),
        cmocka_unit_test(test_co_sleep),
    };

    test_engine_set(argc, argv);
    return cmocka_run_group_tests(tests, 0, 0);
}
