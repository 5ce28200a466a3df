/* SPDX-License-Identifier: MIT */
/* Locks on ranges of clusters: who waits for whom, and in which order; then under threads. */
#include "cmocka_all.h"

#include "meta_fake.h"

static int setup(void **state)
{
    meta_init(4096, 8, 1);
    return 0;
}

static int teardown(void **state)
{
    meta_fini();
    return 0;
}

struct holder {
    struct q2_range range;
    uint64_t first, last;
    bool held;
    bool go;
    Coroutine *co;
    struct fake_run run;
};

static int hold_run(void *opaque)
{
    struct holder *h = opaque;

    q2_range_lock_co(&meta.s, &h->range, h->first, h->last);
    h->held = true;
    if (!h->go) {
        h->co = coroutine_self();
        coroutine_yield();
    }
    h->held = false;
    q2_range_unlock(&meta.s, &h->range);
    return 0;
}

static void hold(struct holder *h, uint64_t first, uint64_t last)
{
    *h = (struct holder){.first = first, .last = last};
    fake_start(&h->run, hold_run, h);
}

static void let_go(struct holder *h)
{
    assert_true(h->held);
    aio_co_wake(h->co);
    fake_wait(&h->run);
    for (int i = 0; i < 10; i++) {
        aio_poll(fake_ctx, false);
    }
}

static void test_apart(void **state)
{
    struct holder a, b, c;

    hold(&a, 0, 3);
    hold(&b, 4, 4);
    hold(&c, UINT64_MAX, UINT64_MAX);
    assert_true(a.held && b.held && c.held);
    let_go(&b);
    let_go(&a);
    let_go(&c);
}

static void test_overlap_waits(void **state)
{
    struct holder a, b;

    hold(&a, 2, 5);
    hold(&b, 5, 9);
    assert_true(a.held);
    assert_false(b.held);
    let_go(&a);
    assert_true(b.held);
    let_go(&b);
}

/* One that waits is not overtaken by a later one that overlaps only it. */
static void test_in_order(void **state)
{
    struct holder a, wide, late, other;

    hold(&a, 5, 5);
    hold(&wide, 0, 9);
    hold(&late, 2, 2);
    hold(&other, 20, 21);
    assert_true(other.held);
    assert_false(wide.held);
    assert_false(late.held);
    let_go(&a);
    assert_true(wide.held);
    assert_false(late.held);
    let_go(&wide);
    assert_true(late.held);
    let_go(&late);
    let_go(&other);
}

/* It waits for several, one after another. */
static void test_waits_for_all(void **state)
{
    struct holder a, b, c, wide;

    hold(&a, 0, 0);
    hold(&b, 1, 1);
    hold(&c, 2, 2);
    hold(&wide, 0, 2);
    let_go(&b);
    assert_false(wide.held);
    let_go(&a);
    assert_false(wide.held);
    let_go(&c);
    assert_true(wide.held);
    let_go(&wide);
}

/* ---- threads ---- */

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define STRESS_ROUNDS 200
#else
#define STRESS_ROUNDS 2000
#endif
#define CELLS 16

static unsigned cells[CELLS]; /* plain: each is its range's */

static void stress_entry(void *opaque)
{
    uint64_t rng = (uint64_t)(uintptr_t)opaque;

    for (unsigned i = 0; i < STRESS_ROUNDS; i++) {
        uint64_t first = fake_rand_below(&rng, CELLS);
        uint64_t last = first + fake_rand_below(&rng, min_u64(4, CELLS - first));
        struct q2_range range;

        q2_range_lock_co(&meta.s, &range, first, last);
        for (uint64_t k = first; k <= last; k++) {
            CHECK(cells[k]++ == 0);
        }
        if (fake_rand_below(&rng, 2) == 0) {
            aio_co_schedule(aio_context_current(), coroutine_self());
            coroutine_yield();
        }
        for (uint64_t k = first; k <= last; k++) {
            CHECK(--cells[k] == 0);
        }
        q2_range_unlock(&meta.s, &range);
    }
    meta_stress_done();
}

static void test_threads(void **state)
{
    uint64_t rng = fake_seed("ranges");

    meta_stress(&rng, stress_entry);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_apart, setup, teardown),
        cmocka_unit_test_setup_teardown(test_overlap_waits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_waits_for_all, setup, teardown),
        cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
    };

    return cmocka_run_group_tests_name("qcow2-ranges", tests, NULL, NULL);
}
