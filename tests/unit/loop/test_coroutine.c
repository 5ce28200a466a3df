/* SPDX-License-Identifier: MIT */
/* Coroutines alone: order of running, pool reuse, nesting, the guard page, the budget. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <platter/coroutine.h>

#include "loop/context.h"
#include "os/os.h"
#include "util/budget.h"

static char trace[64];

static void mark(char c)
{
    size_t n = strlen(trace);

    assert_true(n + 1 < sizeof(trace));
    trace[n] = c;
    trace[n + 1] = 0;
}

static void two_steps(void *opaque)
{
    assert_true(in_coroutine());
    assert_ptr_equal(coroutine_self(), *(Coroutine **)opaque);
    mark('b');
    coroutine_yield();
    mark('d');
}

static void test_order(void **state)
{
    Coroutine *co;

    trace[0] = 0;
    co = coroutine_create(two_steps, &co);
    assert_non_null(co);
    assert_false(in_coroutine());
    mark('a');
    coroutine_enter(co);
    assert_false(in_coroutine());
    mark('c');
    coroutine_enter(co);
    mark('e');
    assert_string_equal(trace, "abcde");
}

struct nest {
    int depth;
    int deepest;
};

static void nested(void *opaque)
{
    struct nest *nest = opaque;
    Coroutine *self = coroutine_self();

    nest->depth++;
    if (nest->depth < 20) {
        coroutine_enter(coroutine_create(nested, nest));
    } else {
        nest->deepest = nest->depth;
    }
    assert_ptr_equal(coroutine_self(), self);
    nest->depth--;
}

static void test_nested(void **state)
{
    struct nest nest = {0};

    coroutine_enter(coroutine_create(nested, &nest));
    assert_int_equal(nest.depth, 0);
    assert_int_equal(nest.deepest, 20);
}

static void nothing(void *opaque)
{
    ++*(int *)opaque;
}

static void test_pool_reuse(void **state)
{
    int ran = 0;
    Coroutine *first = coroutine_create(nothing, &ran);

    coroutine_enter(first);
    for (int i = 0; i < 1000; i++) {
        Coroutine *co = coroutine_create(nothing, &ran);

        assert_ptr_equal(co, first); /* the one that ended last is taken first */
        coroutine_enter(co);
    }
    assert_int_equal(ran, 1001);
}

static void yield_once(void *opaque)
{
    coroutine_yield();
    ++*(int *)opaque;
}

static void test_many_at_once(void **state)
{
    enum { N = 500 };
    static Coroutine *co[N];
    int ran = 0;

    coroutine_pool_reserve(32);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < N; i++) {
            co[i] = coroutine_create(yield_once, &ran);
            assert_non_null(co[i]);
            coroutine_enter(co[i]);
        }
        for (int i = N - 1; i >= 0; i--) {
            coroutine_enter(co[i]);
        }
    }
    coroutine_pool_reserve(-32);
    assert_int_equal(ran, 3 * N);
}

/* Registers that a switch must keep, as far as C can see them. */
static void keeps_registers(void *opaque)
{
    volatile uint64_t seed = (uintptr_t)opaque;
    uint64_t a = seed * 3, b = seed * 5, c = seed * 7, d = seed * 11, e = seed * 13, f = seed * 17;
    double x = (double)seed;

    for (int i = 0; i < 100; i++) {
        coroutine_yield();
        a += 1, b += 2, c += 3, d += 4, e += 5, f += 6, x += 0.5;
    }
    assert_true(a == seed * 3 + 100 && b == seed * 5 + 200 && c == seed * 7 + 300);
    assert_true(d == seed * 11 + 400 && e == seed * 13 + 500 && f == seed * 17 + 600);
    assert_true(x == (double)seed + 50);
}

static void test_registers(void **state)
{
    Coroutine *co[8];

    for (uintptr_t i = 0; i < 8; i++) {
        co[i] = coroutine_create(keeps_registers, (void *)(i * 12345 + 1));
    }
    for (int step = 0; step < 101; step++) {
        for (int i = 0; i < 8; i++) {
            coroutine_enter(co[i]);
        }
    }
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
static volatile int sink;

static __attribute__((noinline)) int eat_stack(int depth)
{
    volatile char page[1024];

    page[0] = (char)depth;
    sink += page[0];
    return depth <= 0 ? 0 : eat_stack(depth - 1) + page[0];
}

static void overflow(void *opaque)
{
    eat_stack(1 << 20);
}

static void test_guard_page(void **state)
{
    pid_t pid = fork();
    int status;

    assert_true(pid >= 0);
    if (pid == 0) {
        struct rlimit none = {0, 0};

        setrlimit(RLIMIT_CORE, &none);
        signal(SIGSEGV, SIG_DFL);
        coroutine_enter(coroutine_create(overflow, 0));
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}
#endif

static bool mmap_fails; /* of the one thread that makes coroutines then */

static int failing_mmap(size_t bytes, int prot, int flags, void **ret_addr)
{
    return mmap_fails ? -12 /* ENOMEM */ : os_linux.mmap(bytes, prot, flags, ret_addr);
}

static void end_soon(void *opaque)
{
}

/* A thread whose pool is empty, and is freed when it exits. */
static void *in_other_thread(void *arg)
{
    Coroutine *co;

    mmap_fails = true;
    co = coroutine_create(end_soon, 0);
    mmap_fails = false;
    if (co || !(co = coroutine_create(end_soon, 0))) {
        abort();
    }
    coroutine_enter(co);
    return 0;
}

static void test_no_memory_for_stack(void **state)
{
    struct os_table table = os_linux;
    os_thread *thread;

    table.mmap = failing_mmap;
    os_replace(&table);
    assert_int_equal(os->thread_create("t", in_other_thread, 0, &thread), 0);
    os->thread_join(thread);
    os_replace(0);
}

/* ---- reservations ---- */

static int maps; /* of the one thread that counts */

static int counting_mmap(size_t bytes, int prot, int flags, void **ret_addr)
{
    maps++;
    return os_linux.mmap(bytes, prot, flags, ret_addr);
}

static int counting_munmap(void *addr, size_t bytes)
{
    maps--;
    return os_linux.munmap(addr, bytes);
}

/* n at once; how many stacks were made (or freed) for it. */
static int burst(int n)
{
    static Coroutine *co[1000];
    int before = maps;
    int ran = 0;

    for (int i = 0; i < n; i++) {
        co[i] = coroutine_create(yield_once, &ran);
        if (!co[i]) {
            abort();
        }
        coroutine_enter(co[i]);
    }
    before = maps - before;
    for (int i = 0; i < n; i++) {
        coroutine_enter(co[i]);
    }
    return before;
}

static void *reserving_thread(void *arg)
{
    int *failed = arg;

    *failed += burst(1000) != 1000;
    *failed += maps != 128; /* what a thread keeps unasked */
    coroutine_pool_reserve(300);
    coroutine_pool_reserve(400);
    *failed += maps != 128; /* costs nothing up front */
    *failed += burst(800) != 800 - 128;
    *failed += maps != 800;
    *failed += burst(800) != 0;
    coroutine_pool_reserve(-400);
    *failed += maps != 428;
    coroutine_pool_reserve(-300);
    *failed += maps != 128;
    *failed += burst(128) != 0;
    return 0;
}

static void test_reservation(void **state)
{
    struct os_table table = os_linux;
    os_thread *thread;
    int failed = 0;

    table.mmap = counting_mmap;
    table.munmap = counting_munmap;
    os_replace(&table);
    assert_int_equal(os->thread_create("t", reserving_thread, &failed, &thread), 0);
    os->thread_join(thread);
    os_replace(0);
    assert_int_equal(failed, 0);
    assert_int_equal(maps, 0); /* the thread's exit frees them */
}

static void test_budget(void **state)
{
    struct mem_budget budget = {.limit_bytes = 3 * 65536 + 100};
    AioContext *ctx = aio_context_new(0, 0);
    Coroutine *co[3];
    int ran = 0;

    assert_non_null(ctx);
    aio_context_set_budget(ctx, &budget);
    aio_context_set_current(ctx);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 3; i++) {
            co[i] = coroutine_create(yield_once, &ran);
            assert_non_null(co[i]);
            coroutine_enter(co[i]);
        }
        assert_null(coroutine_create(yield_once, &ran));
        for (int i = 0; i < 3; i++) {
            coroutine_enter(co[i]);
        }
    }
    assert_int_equal(ran, 6);
    aio_context_set_budget(ctx, 0);
    assert_int_equal(budget.used_bytes, 0);
    aio_context_unref(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_nested),
        cmocka_unit_test(test_pool_reuse),
        cmocka_unit_test(test_many_at_once),
        cmocka_unit_test(test_registers),
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
        cmocka_unit_test(test_guard_page),
#endif
        cmocka_unit_test(test_no_memory_for_stack),
        cmocka_unit_test(test_reservation),
        cmocka_unit_test(test_budget),
    };

    return cmocka_run_group_tests(tests, 0, 0);
}
