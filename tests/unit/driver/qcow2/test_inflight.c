/* SPDX-License-Identifier: MIT */
/* Grace periods and exclusive sections: case by case, then under several threads. */
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

/* ---- grace periods ---- */

struct mark {
    struct q2_retired r;
    bool ended;
};

static void mark_end(struct q2_retired *r)
{
    CONTAINER_OF(r, struct mark, r)->ended = true;
}

static void retire(struct mark *mark)
{
    *mark = (struct mark){.r.end = mark_end};
    q2_retire(&meta.s, &mark->r);
}

static int enter_run(void *opaque)
{
    *(q2_token *)opaque = q2_enter_co(&meta.s);
    return 0;
}

static q2_token enter(void)
{
    q2_token token;

    fake_do(enter_run, &token);
    return token;
}

static void test_nobody_inside(void **state)
{
    struct mark mark;

    retire(&mark);
    assert_true(mark.ended);
    assert_int_equal(meta.s.inflight.attention, 0);
}

static void test_ends_with_who_was_inside(void **state)
{
    struct mark mark;
    q2_token a = enter();
    q2_token b;

    retire(&mark);
    assert_false(mark.ended);
    b = enter(); /* came later: is not waited for */
    q2_leave(&meta.s, a);
    assert_true(mark.ended);
    q2_leave(&meta.s, b);
    assert_int_equal(meta.s.inflight.attention, 0);
}

static void test_waits_for_all_of_them(void **state)
{
    struct mark mark;
    q2_token a = enter();
    q2_token b = enter();

    retire(&mark);
    q2_leave(&meta.s, a);
    assert_false(mark.ended);
    q2_leave(&meta.s, b);
    assert_true(mark.ended);
}

/* Requests in both phases: what is retired then waits for both. */
static void test_both_phases(void **state)
{
    struct mark first, second, third;
    q2_token a = enter();
    q2_token b, c;

    retire(&first);
    b = enter();
    retire(&second);
    assert_int_not_equal(a & 1, b & 1);
    q2_leave(&meta.s, b);
    assert_false(first.ended);
    assert_false(second.ended);
    c = enter();
    retire(&third);
    q2_leave(&meta.s, a);
    assert_true(first.ended);
    assert_false(third.ended); /* c is inside */
    q2_leave(&meta.s, c);
    assert_true(second.ended);
    assert_true(third.ended);
}

/* One is always inside, never the same for long: everything ends all the same. */
static void test_never_empty(void **state)
{
    q2_token a = enter();

    for (int i = 0; i < 20; i++) {
        struct mark mark;
        q2_token b;

        retire(&mark);
        b = enter();
        q2_leave(&meta.s, a);
        a = enter();
        q2_leave(&meta.s, b);
        assert_true(mark.ended);
    }
    q2_leave(&meta.s, a);
}

static struct mark chained;

static void chain_end(struct q2_retired *r)
{
    mark_end(r);
    retire(&chained);
}

static void test_end_retires(void **state)
{
    struct mark mark = {.r.end = chain_end};
    q2_token a = enter();

    q2_retire(&meta.s, &mark.r);
    q2_leave(&meta.s, a);
    assert_true(mark.ended);
    assert_true(chained.ended);
}

static void test_fini_ends(void **state)
{
    struct mark mark;
    q2_token a = enter();

    retire(&mark);
    meta.s.inflight.inside[a] = 0; /* as if it had never left */
    q2_inflight_fini(&meta.s.inflight);
    assert_true(mark.ended);
    q2_inflight_init(&meta.s.inflight);
}

/* ---- exclusive sections ---- */

static int exclusive_run(void *opaque)
{
    q2_exclusive_begin_co(&meta.s);
    return 0;
}

static void exclusive_end(void)
{
    q2_exclusive_end(&meta.s);
}

static int enter_leave_run(void *opaque)
{
    q2_leave(&meta.s, q2_enter_co(&meta.s));
    return 0;
}

static void poll_some(void)
{
    for (int i = 0; i < 20; i++) {
        aio_poll(fake_ctx, false);
    }
}

static void test_exclusive(void **state)
{
    struct fake_run exclusive, other, late;
    q2_token a = enter();
    struct mark early, mark;

    fake_start(&exclusive, exclusive_run, NULL);
    poll_some();
    assert_false(exclusive.done);
    fake_start(&late, enter_leave_run, NULL); /* waits although the section has not begun */
    poll_some();
    assert_false(late.done);
    q2_leave(&meta.s, a);
    fake_wait(&exclusive);
    fake_start(&other, exclusive_run, NULL);
    poll_some();
    assert_false(other.done);
    assert_false(late.done);
    retire(&early);
    assert_false(early.ended);
    q2_exclusive_let_go(&meta.s);
    assert_true(early.ended);
    poll_some();
    assert_false(late.done);
    assert_false(other.done);
    retire(&mark);
    assert_false(mark.ended); /* the section may have seen it */
    exclusive_end();
    assert_true(mark.ended);
    fake_wait(&other); /* the next section goes first */
    assert_false(late.done);
    exclusive_end();
    fake_wait(&late);
    assert_int_equal(meta.s.inflight.attention, 0);
    q2_leave(&meta.s, enter());
}

/* ---- threads ---- */

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define STRESS_ROUNDS 300
#else
#define STRESS_ROUNDS 3000
#endif

#define ALIVE 0x616c6976u

struct object {
    struct q2_retired r;
    unsigned magic; /* plain: the race detector sees an end that comes too early */
    unsigned number;
};

static _Atomic(struct object *) shared;
static _Atomic int section_open; /* an exclusive section runs */
static _Atomic unsigned ends;

static struct object *object_new(unsigned number)
{
    struct object *o = malloc(sizeof(*o));

    assert_non_null(o);
    *o = (struct object){.magic = ALIVE, .number = number};
    return o;
}

static void object_end(struct q2_retired *r)
{
    struct object *o = CONTAINER_OF(r, struct object, r);

    CHECK(o->magic == ALIVE);
    o->magic = 0;
    atomic_fetch_add(&ends, 1);
    free(o);
}

static void breathe(void)
{
    aio_co_schedule(aio_context_current(), coroutine_self());
    coroutine_yield();
}

static void stress_read(uint64_t *rng)
{
    q2_token token = q2_enter_co(&meta.s);
    struct object *o = atomic_load_explicit(&shared, memory_order_seq_cst);
    unsigned number = o->number;

    CHECK(atomic_load(&section_open) == 0);
    for (uint64_t i = fake_rand_below(rng, 3); i > 0; i--) {
        breathe();
    }
    CHECK(o->magic == ALIVE && o->number == number);
    CHECK(atomic_load(&section_open) == 0);
    q2_leave(&meta.s, token);
}

static void stress_replace(unsigned number)
{
    struct object *old = atomic_exchange(&shared, object_new(number));

    old->r.end = object_end;
    q2_retire(&meta.s, &old->r);
}

static void stress_section(void)
{
    q2_exclusive_begin_co(&meta.s);
    CHECK(atomic_exchange(&section_open, 1) == 0);
    breathe();
    CHECK(atomic_exchange(&section_open, 0) == 1);
    q2_exclusive_end(&meta.s);
}

static void stress_entry(void *opaque)
{
    uint64_t rng = (uint64_t)(uintptr_t)opaque;

    for (unsigned i = 0; i < STRESS_ROUNDS; i++) {
        uint64_t dice = fake_rand_below(&rng, 100);

        if (dice < 80) {
            stress_read(&rng);
        } else if (dice < 98) {
            stress_replace(i);
        } else {
            stress_section();
        }
    }
    meta_stress_done();
}

static void test_threads(void **state)
{
    uint64_t rng = fake_seed("inflight");

    atomic_store(&shared, object_new(0));
    meta_stress(&rng, stress_entry);
    assert_int_equal(meta.s.inflight.attention, 0); /* all has ended */
    free(atomic_load(&shared));
    assert_true(atomic_load(&ends) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nobody_inside, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ends_with_who_was_inside, setup, teardown),
        cmocka_unit_test_setup_teardown(test_waits_for_all_of_them, setup, teardown),
        cmocka_unit_test_setup_teardown(test_both_phases, setup, teardown),
        cmocka_unit_test_setup_teardown(test_never_empty, setup, teardown),
        cmocka_unit_test_setup_teardown(test_end_retires, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fini_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(test_exclusive, setup, teardown),
        cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
    };

    return cmocka_run_group_tests_name("qcow2-inflight", tests, NULL, NULL);
}
