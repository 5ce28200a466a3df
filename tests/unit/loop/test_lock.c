/* SPDX-License-Identifier: MIT */
/* Co-locks: order, hand-over, and hammering from several contexts. */
#include "loop_test.h"

#include <stdatomic.h>

#include "loop/context.h"

/* Checks inside coroutines must not jump out of their stack: they are counted. */
static atomic_int wrong;
#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                             \
            atomic_fetch_add(&wrong, 1);                                                           \
        }                                                                                          \
    } while (0)

static char trace[128];

static void mark(char c)
{
    size_t n = strlen(trace);

    CHECK(n + 1 < sizeof(trace));
    trace[n] = c;
    trace[n + 1] = 0;
}

struct actor {
    char name;
    CoMutex *mutex;
    CoRwlock *rw;
    CoQueue *queue;
    bool writer;
};

static void settle(AioContext *ctx)
{
    while (aio_poll(ctx, false)) {
    }
}

static void mutex_actor(void *opaque)
{
    struct actor *a = opaque;

    co_mutex_lock(a->mutex);
    mark(a->name);
    CHECK(!co_mutex_trylock(a->mutex));
    coroutine_yield();
    mark(a->name);
    co_mutex_unlock(a->mutex);
}

static void test_mutex_fifo(void **state)
{
    AioContext *ctx = test_context_new();
    CoMutex mutex;
    struct actor a[4];
    Coroutine *co[4];

    trace[0] = 0;
    co_mutex_init(&mutex);
    aio_context_set_current(ctx);
    for (int i = 0; i < 4; i++) {
        a[i] = (struct actor){.name = (char)('a' + i), .mutex = &mutex};
        co[i] = coroutine_create(mutex_actor, &a[i]);
        coroutine_enter(co[i]);
    }
    for (int i = 0; i < 4; i++) {
        settle(ctx);
        coroutine_enter(co[i]);
    }
    assert_string_equal(trace, "aabbccdd");
    assert_int_equal(mutex.state, 0);
    aio_context_unref(ctx);
}

static void rw_actor(void *opaque)
{
    struct actor *a = opaque;

    if (a->writer) {
        co_rwlock_wrlock(a->rw);
    } else {
        co_rwlock_rdlock(a->rw);
    }
    mark(a->name);
    coroutine_yield();
    if (a->writer) {
        co_rwlock_downgrade(a->rw);
        mark('v');
        coroutine_yield();
    }
    co_rwlock_unlock(a->rw);
}

static void test_rwlock_order(void **state)
{
    AioContext *ctx = test_context_new();
    CoRwlock rw;
    struct actor a[5] = {{'r'}, {'s'}, {'W', .writer = true}, {'t'}, {'u'}};
    Coroutine *co[5];

    trace[0] = 0;
    co_rwlock_init(&rw);
    aio_context_set_current(ctx);
    for (int i = 0; i < 5; i++) {
        a[i].rw = &rw;
        co[i] = coroutine_create(rw_actor, &a[i]);
        coroutine_enter(co[i]);
    }
    assert_string_equal(trace, "rs"); /* t and u wait behind the writer */
    coroutine_enter(co[0]);
    settle(ctx);
    assert_string_equal(trace, "rs");
    coroutine_enter(co[1]);
    settle(ctx);
    assert_string_equal(trace, "rsW");
    coroutine_enter(co[2]); /* downgrades: the readers come in */
    settle(ctx);
    assert_string_equal(trace, "rsWvtu");
    coroutine_enter(co[2]);
    coroutine_enter(co[3]);
    coroutine_enter(co[4]);
    settle(ctx);
    assert_int_equal(rw.owners, 0);
    aio_context_unref(ctx);
}

static void queue_actor(void *opaque)
{
    struct actor *a = opaque;

    co_mutex_lock(a->mutex);
    co_queue_wait(a->queue, a->mutex);
    mark(a->name);
    co_mutex_unlock(a->mutex);
}

static void test_queue(void **state)
{
    AioContext *ctx = test_context_new();
    CoMutex mutex;
    CoQueue queue;
    struct actor a[4];

    trace[0] = 0;
    co_mutex_init(&mutex);
    co_queue_init(&queue);
    aio_context_set_current(ctx);
    assert_false(co_queue_next(&queue));
    for (int i = 0; i < 4; i++) {
        a[i] = (struct actor){.name = (char)('a' + i), .mutex = &mutex, .queue = &queue};
        coroutine_enter(coroutine_create(queue_actor, &a[i]));
    }
    assert_false(co_queue_empty(&queue));
    assert_true(co_queue_next(&queue));
    settle(ctx);
    assert_string_equal(trace, "a");
    co_queue_wake_all(&queue);
    settle(ctx);
    assert_string_equal(trace, "abcd");
    assert_true(co_queue_empty(&queue));
    assert_int_equal(mutex.state, 0);
    aio_context_unref(ctx);
}

/* ---- many coroutines in many threads ---- */

enum { STRESS_THREADS = 4, PER_THREAD = 6, ROUNDS = 400 };

struct stress {
    CoMutex mutex;
    CoRwlock rw;
    CoQueue queue;
    int inside;   /* mutex */
    int value[2]; /* rw: both the same outside of writers */
    int tokens;   /* mutex */
    int taken;    /* mutex */
    atomic_int running;
    AioContext *home;
    unsigned seed;
};

static struct stress st;

static unsigned next_random(unsigned *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 17;
    *x ^= *x << 5;
    return *x;
}

static void pause_a_little(void)
{
    aio_co_schedule(aio_context_current(), coroutine_self());
    coroutine_yield();
}

static void stress_mutex(unsigned r)
{
    co_mutex_lock(&st.mutex);
    CHECK(st.inside++ == 0);
    if (r % 3 == 0) {
        pause_a_little();
    }
    CHECK(--st.inside == 0);
    co_mutex_unlock(&st.mutex);
}

static void stress_rwlock(unsigned r)
{
    if (r % 4 == 0) {
        co_rwlock_wrlock(&st.rw);
        st.value[0]++;
        if (r % 16 == 0) {
            pause_a_little();
        }
        st.value[1]++;
        if (r % 8 == 0) {
            co_rwlock_downgrade(&st.rw);
            CHECK(st.value[0] == st.value[1]);
        }
    } else {
        co_rwlock_rdlock(&st.rw);
        CHECK(st.value[0] == st.value[1]);
        if (r % 3 == 0) {
            pause_a_little();
        }
        CHECK(st.value[0] == st.value[1]);
    }
    co_rwlock_unlock(&st.rw);
}

/* One coroutine puts tokens, others take them: a lost wake would leave a taker waiting. */
static void stress_queue(bool producer)
{
    co_mutex_lock(&st.mutex);
    if (producer) {
        st.tokens++;
        co_queue_next(&st.queue);
    } else {
        while (st.tokens == 0) {
            co_queue_wait(&st.queue, &st.mutex);
        }
        st.tokens--;
        st.taken++;
    }
    co_mutex_unlock(&st.mutex);
}

static void stress_entry(void *opaque)
{
    unsigned id = (unsigned)(uintptr_t)opaque;
    unsigned x = st.seed + id * 7919 + 1;

    for (int i = 0; i < ROUNDS; i++) {
        unsigned r = next_random(&x);

        stress_mutex(r);
        stress_rwlock(r >> 3);
        stress_queue(id % 2 == 0);
    }
    if (atomic_fetch_sub(&st.running, 1) == 1) {
        aio_notify(st.home);
    }
}

static bool stress_running(void *opaque)
{
    return atomic_load(&st.running) > 0;
}

static void test_stress(void **state)
{
    const char *seed = getenv("PLATTER_SEED");
    IOThread *thread[STRESS_THREADS];

    st = (struct stress){.seed = seed ? (unsigned)strtoul(seed, 0, 0) : 12345};
    print_message("seed %u\n", st.seed);
    co_mutex_init(&st.mutex);
    co_rwlock_init(&st.rw);
    co_queue_init(&st.queue);
    st.home = test_context_new();
    aio_context_set_current(st.home);
    atomic_store(&st.running, STRESS_THREADS * PER_THREAD);
    for (int i = 0; i < STRESS_THREADS; i++) {
        thread[i] = test_iothread_new();
    }
    for (unsigned i = 0; i < STRESS_THREADS * PER_THREAD; i++) {
        aio_co_schedule(iothread_get_aio_context(thread[i % STRESS_THREADS]),
                        coroutine_create(stress_entry, (void *)(uintptr_t)i));
    }
    aio_wait_while(st.home, stress_running, 0);
    for (int i = 0; i < STRESS_THREADS; i++) {
        iothread_free(thread[i]);
    }
    assert_int_equal(st.value[0], st.value[1]);
    assert_int_equal(st.tokens, 0);
    assert_int_equal(st.taken, STRESS_THREADS * PER_THREAD / 2 * ROUNDS);
    assert_int_equal(st.mutex.state, 0);
    assert_int_equal(atomic_load(&wrong), 0);
    aio_context_unref(st.home);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mutex_fifo),
        cmocka_unit_test(test_rwlock_order),
        cmocka_unit_test(test_queue),
        cmocka_unit_test(test_stress),
    };

    test_engine_set(argc, argv);
    return cmocka_run_group_tests(tests, 0, 0);
}
