/* SPDX-License-Identifier: MIT */
/* Turns: in the order in which they were taken, whenever who has them is ready. */
#include "cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>

#include "meta_fake.h"

#define WRITERS 50

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

struct writer {
    uint64_t turn;
    uint64_t count; /* of turns that are passed at once */
    bool waits;     /* for its turn, else only passes it */
    Coroutine *co;
    struct fake_run run;
};

static struct q2_turns turns;
static uint64_t passed; /* turns */

static int writer_run(void *opaque)
{
    struct writer *w = opaque;

    w->co = coroutine_self();
    coroutine_yield(); /* until it is ready */
    if (w->waits) {
        q2_turn_wait_co(&(struct q2_turn){.turns = &turns, .number = w->turn});
        assert_int_equal(passed, w->turn);
    }
    q2_turns_pass_co(&turns, w->turn, w->count);
    assert_true(passed == w->turn);
    passed += w->count;
    return 0;
}

static void test_order(void **state)
{
    const char *text = getenv("PLATTER_SEED");
    unsigned seed = text != NULL ? (unsigned)strtoul(text, NULL, 10) : 1;
    struct writer writers[WRITERS];
    unsigned ready[WRITERS];

    printf("PLATTER_SEED=%u\n", seed);
    srand(seed);
    q2_turns_init(&turns);
    for (unsigned i = 0; i < WRITERS; i++) {
        unsigned other = (unsigned)rand() % (i + 1);

        writers[i] = (struct writer){.count = 1 + i % 4, .waits = i % 3 != 0};
        writers[i].turn = q2_turns_take(&turns, writers[i].count);
        fake_start(&writers[i].run, writer_run, &writers[i]);
        ready[i] = ready[other];
        ready[other] = i;
    }
    for (unsigned i = 0; i < WRITERS; i++) {
        aio_co_wake(writers[ready[i]].co);
    }
    for (unsigned i = 0; i < WRITERS; i++) {
        fake_wait(&writers[i].run);
    }
    assert_int_equal(passed, q2_turns_take(&turns, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_order, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
