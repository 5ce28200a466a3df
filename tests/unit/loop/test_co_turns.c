/* SPDX-License-Identifier: MIT */
/* Turns: in the order in which they were taken, whenever who has them is ready. */
#include "loop_test.h"

#include "loop/co_turns.h"
#include "loop/context.h"

#define WORKERS 50

struct worker {
    uint64_t turn;
    uint64_t count; /* of turns that are passed at once */
    bool waits;     /* for its turn, else only passes it */
    Coroutine *co;
};

static struct co_turns turns;
static uint64_t passed; /* turns */
static unsigned ended;

static void work(void *opaque)
{
    struct worker *w = opaque;

    coroutine_yield(); /* until it is ready */
    if (w->waits) {
        co_turn_wait_co(&(struct co_turn){.turns = &turns, .number = w->turn});
        assert_int_equal(passed, w->turn);
    }
    co_turns_pass_co(&turns, w->turn, w->count);
    assert_int_equal(passed, w->turn);
    passed += w->count;
    ended++;
}

static void order(void **state)
{
    const char *text = getenv("PLATTER_SEED");
    unsigned seed = text != NULL ? (unsigned)strtoul(text, NULL, 10) : 1;
    struct worker workers[WORKERS];
    unsigned ready[WORKERS];
    AioContext *ctx = test_context_new();

    (void)state;
    printf("PLATTER_SEED=%u\n", seed);
    srand(seed);
    co_turns_init(&turns);
    aio_context_set_current(ctx);
    for (unsigned i = 0; i < WORKERS; i++) {
        unsigned other = (unsigned)rand() % (i + 1);

        workers[i] = (struct worker){.count = 1 + i % 4, .waits = i % 3 != 0};
        workers[i].turn = co_turns_take(&turns, workers[i].count);
        workers[i].co = coroutine_create(work, &workers[i]);
        assert_non_null(workers[i].co);
        coroutine_enter(workers[i].co);
        ready[i] = ready[other];
        ready[other] = i;
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        aio_co_wake(workers[ready[i]].co);
    }
    while (ended < WORKERS) {
        aio_poll(ctx, true);
    }
    assert_int_equal(passed, co_turns_take(&turns, 0));
    aio_context_set_current(NULL);
    aio_context_unref(ctx);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order),
    };

    test_engine_set(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
