/* SPDX-License-Identifier: MIT */
/*
 * Gate G7: the daemon with clock, disk and sockets from one seed. PLATTER_SIM_SEEDS: how many;
 * PLATTER_SEED: this one only, or with PLATTER_SIM_SEEDS the first of them; PLATTER_TRACE: tell
 * what happens.
 */
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "daemon.h"
#include "util/mem.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SEEDS 60
#else
#define SEEDS 1000
#endif
#define WARM 20 /* seeds after which memory is not to grow any more */
#define GROWTH_MAX (1u << 20)
#define TWICE 25       /* each so manieth seed is run twice */
#define FAULT_SEEDS 60 /* the rarest fault is seen with one seed in eight */

static uint64_t number_of(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text && *text ? strtoull(text, NULL, 0) : otherwise;
}

static struct daemon_run *run_seed(uint64_t seed, enum daemon_fault fault)
{
    static struct daemon_run run;

    daemon_run(&run, seed, fault);
    return &run;
}

static void test_seeds(void **state)
{
    uint64_t first = number_of("PLATTER_SEED", 1);
    uint64_t count = number_of("PLATTER_SIM_SEEDS", getenv("PLATTER_SEED") ? 1 : SEEDS);
    size_t before = 0;
    unsigned failed = 0;

    for (uint64_t i = 0; i < count; i++) {
        const struct daemon_run *run = run_seed(first + i, FAULT_NONE);
        uint64_t hash = run->hash;

        if (run->wrong[0]) {
            printf("PLATTER_SEED=%llu: %s\n", (unsigned long long)(first + i), run->wrong);
            failed++;
        } else if (i % TWICE == 0 && run_seed(first + i, FAULT_NONE)->hash != hash) {
            printf("PLATTER_SEED=%llu: another time it went another way\n",
                   (unsigned long long)(first + i));
            failed++;
        }
        if (i == WARM) {
            before = mallinfo2().uordblks;
        }
    }
    if (count > WARM && mallinfo2().uordblks > before + GROWTH_MAX) {
        printf("memory grew by %zu bytes\n", mallinfo2().uordblks - before);
        failed++;
    }
    assert_int_equal(failed, 0);
}

/* The gate must see each of these within a few seeds. */
static void test_faults_are_seen(void **state)
{
    static const struct {
        enum daemon_fault fault;
        const char *name;
    } faults[] = {
        {FAULT_DROP_ANSWER, "a lost answer"},
        {FAULT_DOUBLE_ANSWER, "a second answer"},
        {FAULT_FLIP_BYTE, "a wrong byte"},
        {FAULT_LOSE_REPLY, "a lost reply"},
        {FAULT_LOSE_OOB, "a lost reply out of band"},
        {FAULT_LOSE_FLUSHED, "a lost sector"},
        {FAULT_LOSE_LATER, "a sector lost later"},
        {FAULT_EMPTY_FLUSH, "a flush that does nothing"},
        {FAULT_CORRUPT_IMAGE, "a broken image"},
        {FAULT_LEAK_FD, "a descriptor left open"},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(faults); i++) {
        const struct daemon_run *run = NULL;

        for (uint64_t seed = 1; seed <= FAULT_SEEDS && !(run && run->wrong[0]); seed++) {
            run = run_seed(seed, faults[i].fault);
        }
        if (!run->wrong[0]) {
            fail_msg("nobody saw %s", faults[i].name);
        }
        printf("%s: %s\n", faults[i].name, run->wrong);
    }
}

static int setup(void **state)
{
    daemon_templates_make();
    return 0;
}

static int teardown(void **state)
{
    daemon_templates_free();
    return 0;
}

int main(void)
{
    const struct CMUnitTest one[] = {cmocka_unit_test(test_seeds)};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_seeds),
        cmocka_unit_test(test_faults_are_seen),
    };

    if (getenv("PLATTER_SEED")) {
        return cmocka_run_group_tests(one, setup, teardown);
    }
    return cmocka_run_group_tests(tests, setup, teardown);
}
