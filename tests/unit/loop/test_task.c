/* SPDX-License-Identifier: MIT */
/* Requests of a coroutine's own and farewells: when they run, where, and what they find. */
#include "loop_test.h"

#include <errno.h>
#include <stdatomic.h>

#include "loop/task.h"
#include "os/os.h"
#include "util/budget.h"

enum step { AT_ONCE, WAITS, MOVES, STARTS_ANOTHER };

struct job {
    enum step step;
    AioContext *to;
    atomic_int *done;
    unsigned seed;
    bool *ran;
};

/* What a request keeps for its farewell. */
struct job_room {
    atomic_int *done;
    AioContext *ctx;
    const struct job *job; /* borrowed until the first wait */
    unsigned slot;
    uint8_t rest[COROUTINE_ROOM_BYTES - 32];
};
_Static_assert(sizeof(struct job_room) <= COROUTINE_ROOM_BYTES, "fits");

static void job_farewell(void *opaque)
{
    struct job_room *room = opaque;

    assert_false(in_coroutine());
    assert_ptr_equal(aio_context_current(), room->ctx);
    for (size_t i = 0; i < sizeof(room->rest); i++) {
        assert_int_equal(room->rest[i], (uint8_t)(i + room->slot));
    }
    atomic_fetch_add(room->done, 1);
    aio_notify(room->ctx);
}

static void job_entry(void *opaque);

static bool job_run(struct job *job)
{
    unsigned slot;
    struct job_room *room = coroutine_task_begin(job_entry, job_farewell, &slot);

    if (room == NULL) {
        return false;
    }
    room->job = job;
    room->slot = slot;
    coroutine_task_run(room);
    return true;
}

static void job_entry(void *opaque)
{
    struct job_room *room = opaque;
    struct job job = *room->job;
    struct job another = {.step = AT_ONCE, .done = job.done};

    assert_ptr_equal(coroutine_of_room(room), coroutine_self());
    assert_int_equal(room->slot, aio_context_slot(aio_context_current()));
    if (job.ran) {
        *job.ran = true;
    }
    room->done = job.done;
    for (size_t i = 0; i < sizeof(room->rest); i++) {
        room->rest[i] = (uint8_t)(i + room->slot);
    }
    if (job.step == WAITS) {
        for (int i = 0; i < 3; i++) {
            aio_co_schedule(aio_context_current(), coroutine_self());
            coroutine_yield();
        }
    } else if (job.step == MOVES) {
        co_reschedule_self(job.to);
    } else if (job.step == STARTS_ANOTHER) {
        int before = atomic_load(job.done);

        assert_true(job_run(&another));
        assert_int_equal(atomic_load(job.done), before);
        assert_ptr_equal(coroutine_self(), coroutine_of_room(room));
    }
    room->ctx = aio_context_current();
}

struct expect {
    atomic_int *done;
    int n;
};

static bool fewer(void *opaque)
{
    struct expect *e = opaque;

    return atomic_load(e->done) < e->n;
}

static void expect_done(AioContext *ctx, atomic_int *done, int n)
{
    struct expect e = {done, n};

    aio_wait_while(ctx, fewer, &e);
    assert_int_equal(atomic_load(done), n);
}

static void test_when_farewells_run(void **state)
{
    static const enum step steps[] = {AT_ONCE, WAITS, STARTS_ANOTHER};
    AioContext *ctx = test_context_new();

    aio_context_set_current(ctx);
    for (size_t i = 0; i < 3; i++) {
        atomic_int done = 0;
        bool ran = false;
        struct job job = {.step = steps[i], .done = &done, .ran = &ran};

        assert_true(job_run(&job));
        assert_true(ran);
        memset(&job, 0xa5, sizeof(job));
        assert_int_equal(atomic_load(&done), 0);
        expect_done(ctx, &done, steps[i] == STARTS_ANOTHER ? 2 : 1);
    }
    aio_context_unref(ctx);
}

/* Started inside of a coroutine that is none of these. */
static void starter(void *opaque)
{
    struct job job = {.step = STARTS_ANOTHER, .done = opaque};

    assert_true(job_run(&job));
    job.step = WAITS;
    assert_true(job_run(&job));
    assert_int_equal(atomic_load((atomic_int *)opaque), 0);
}

static void test_nested(void **state)
{
    AioContext *ctx = test_context_new();
    atomic_int done = 0;

    aio_context_set_current(ctx);
    coroutine_enter(coroutine_create(starter, &done));
    assert_int_equal(atomic_load(&done), 0);
    expect_done(ctx, &done, 3);
    aio_context_unref(ctx);
}

static void test_moved(void **state)
{
    enum { N = 500 };
    AioContext *ctx = test_context_new();
    IOThread *thread = test_iothread_new();
    atomic_int done = 0;

    aio_context_set_current(ctx);
    for (int i = 0; i < N; i++) {
        struct job job = {.step = MOVES, .to = iothread_get_aio_context(thread), .done = &done};

        assert_true(job_run(&job));
        memset(&job, 0xa5, sizeof(job));
    }
    while (atomic_load(&done) < N) { /* their farewells run in the other thread */
        aio_poll(ctx, false);
    }
    iothread_free(thread);
    assert_int_equal(atomic_load(&done), N);
    aio_context_unref(ctx);
}

/* ---- out of memory ---- */

static bool mmap_fails; /* of the one thread that makes coroutines then */

static int failing_mmap(size_t bytes, int prot, int flags, void **ret_addr)
{
    return mmap_fails ? -ENOMEM : os_linux.mmap(bytes, prot, flags, ret_addr);
}

static void *without_memory(void *arg) /* a thread whose pool is empty */
{
    atomic_int done = 0;
    bool ran = false;
    struct job job = {.step = AT_ONCE, .done = &done, .ran = &ran};

    if (job_run(&job) || ran) { /* no context */
        abort();
    }
    aio_context_set_current(arg);
    mmap_fails = true;
    if (job_run(&job) || ran || atomic_load(&done)) {
        abort();
    }
    mmap_fails = false;
    expect_done(arg, &done, 0);
    if (!job_run(&job)) {
        abort();
    }
    expect_done(arg, &done, 1);
    aio_context_set_current(0);
    return 0;
}

static void test_no_memory(void **state)
{
    struct mem_budget budget = {.limit_bytes = 2 * 65536};
    struct os_table table = os_linux;
    AioContext *ctx = test_context_new();
    atomic_int done = 0;
    os_thread *thread;

    table.mmap = failing_mmap;
    os_replace(&table);
    assert_int_equal(os->thread_create("t", without_memory, ctx, &thread), 0);
    os->thread_join(thread);
    os_replace(0);
    aio_context_unref(ctx);

    ctx = test_context_new();
    aio_context_set_current(ctx);
    aio_context_set_budget(ctx, &budget);
    for (int round = 1; round <= 3; round++) {
        struct job job = {.step = WAITS, .done = &done};

        assert_true(job_run(&job));
        job.step = AT_ONCE;
        assert_true(job_run(&job));
        assert_false(job_run(&job));
        expect_done(ctx, &done, 2 * round);
    }
    aio_context_unref(ctx);
    assert_int_equal(budget.used_bytes, 0);
}

/* Begun in one context, ended in another, more than a context keeps charged: nothing is left. */
static void test_budget_between_contexts(void **state)
{
    enum { N = 300 };
    struct mem_budget budget = {.limit_bytes = UINT64_C(1) << 40};
    AioContext *ctx = test_context_new();
    AioContext *other = test_context_new();
    atomic_int done = 0;

    aio_context_set_budget(ctx, &budget);
    aio_context_set_budget(other, &budget);
    for (int round = 1; round <= 4; round++) {
        AioContext *from = round % 2 ? ctx : other;
        AioContext *to = round % 2 ? other : ctx;
        struct job job = {.step = MOVES, .to = to, .done = &done};

        aio_context_set_current(from);
        for (int i = 0; i < N; i++) {
            assert_true(job_run(&job));
        }
        assert_true(budget.used_bytes >= N * 65536);
        aio_context_set_current(to);
        expect_done(to, &done, round * N);
        assert_true(budget.used_bytes <= 2 * 64 * 65536);
    }
    aio_context_set_current(0);
    aio_context_unref(ctx);
    aio_context_unref(other);
    assert_int_equal(budget.used_bytes, 0);
}

/* ---- a coroutine like any other ---- */

struct plain {
    AioContext *ctx;
    bool waits;
    bool ended;
    int told;
};

static void plain_farewell(void *opaque)
{
    struct plain *p = opaque;

    assert_false(in_coroutine());
    assert_true(p->ended);
    p->told++;
}

static void plain_entry(void *opaque)
{
    struct plain *p = opaque;

    if (p->waits) {
        aio_co_schedule(p->ctx, coroutine_self());
        coroutine_yield();
    }
    p->ended = true;
    coroutine_set_farewell(plain_farewell, p);
    assert_int_equal(p->told, 0);
}

static void silent_entry(void *opaque)
{
}

static void test_set_farewell(void **state)
{
    AioContext *ctx = test_context_new();

    aio_context_set_current(ctx);
    for (int waits = 0; waits < 2; waits++) {
        struct plain p = {.ctx = ctx, .waits = waits};
        Coroutine *co = coroutine_create(plain_entry, &p);

        coroutine_enter(co);
        while (!p.told) {
            assert_true(waits);
            aio_poll(ctx, true);
        }
        /* and the next that runs on that stack has none */
        assert_ptr_equal(coroutine_create(silent_entry, 0), co);
        coroutine_enter(co);
        assert_int_equal(p.told, 1);
    }
    aio_context_unref(ctx);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_when_farewells_run),
        cmocka_unit_test(test_nested),
        cmocka_unit_test(test_moved),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_budget_between_contexts),
        cmocka_unit_test(test_set_farewell),
    };

    test_engine_set(argc, argv);
    return cmocka_run_group_tests(tests, 0, 0);
}
