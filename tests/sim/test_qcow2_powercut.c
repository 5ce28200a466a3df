/* SPDX-License-Identifier: MIT */
/*
 * Power cuts of qcow2: random requests, several in flight, and operations on the image in between,
 * on the simulated disk. At every change of the image file (and of an external data file) the power
 * is cut on copies: every subset of the unflushed changes that includes the newest while they are
 * few, so that each subset of an epoch comes once; by chance, torn at 512 bytes, when they are
 * many. Each state is judged by the second reader: no corruption, nothing durable lost, snapshots
 * and bitmaps as they must be (qcow2_expect.h).
 *
 * A sample of the states is opened by our driver for writing, which must leave the same disk, clean
 * and with the leaks that our check counts; a sample is shown to `qemu-img check`, where installed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "qcow2_powercut.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STEPS 40
#else
#define STEPS 170
#endif
#define ROUNDS 2 /* of all workloads; PLATTER_ROUNDS */

/* PLATTER_TRACE=1: what goes on, for whoever looks into a failure. */
void pc_trace(const struct powercut *t, const char *fmt, ...)
{
    static int wanted = -1;
    va_list ap;

    wanted = wanted < 0 ? getenv("PLATTER_TRACE") != NULL : wanted;
    if (wanted) {
        printf("%6lu ", t->boundaries);
        va_start(ap, fmt);
        vprintf(fmt, ap);
        va_end(ap);
        putchar('\n');
    }
}

void pc_wrong(struct powercut *t, const char *fmt, ...)
{
    va_list ap;

    if (!t->wrong[0]) {
        va_start(ap, fmt);
        vsnprintf(t->wrong, sizeof(t->wrong), fmt, ap);
        va_end(ap);
    }
}

void pc_told(struct powercut *t, const char *what, int ret, Error *err)
{
    pc_trace(t, "%s: %d", what, ret);
    if (ret < 0) {
        pc_wrong(t, "%s: %s", what, err ? error_get_pretty(err) : strerror(-ret));
    }
    error_free(err);
}

static void workload(struct powercut *t)
{
    unsigned steps = STEPS * (t->config->steps_percent ? t->config->steps_percent : 100) / 100;
    unsigned flights = t->config->alone ? 1 : PC_IN_FLIGHT;

    for (unsigned step = 0; step < steps && !t->wrong[0];) {
        struct request *r = &t->requests[sim_rng_below(&t->rng, flights)];

        if (t->config->whole && sim_rng_percent(&t->rng, 6)) {
            pc_drain(t);
            pc_whole_op(t);
            step++;
        } else if (!r->active && pc_start(t, r)) {
            pc_settle(t);
            step++;
        } else if (pc_in_flight(t) > 0) {
            pc_pass_time(t);
        }
    }
    pc_drain(t);
}

static void flush_world(struct powercut *t)
{
    if (pc_open_disk(t, &t->h) == 0) {
        pc_close_disk(t);
    }
}

static unsigned long all_states, all_opened, all_shown;

/* What is wrong, or NULL. */
static const char *run(const struct powercut_config *config, uint64_t seed)
{
    static struct powercut t;
    static char wrong[sizeof(t.wrong)];
    clock_t begin = clock();

    t = (struct powercut){.config = config};
    sim_rng_init(&t.rng, seed);
    sim_rng_init(&t.cut_rng, seed + 1);
    t.samples = malloc(PC_SAMPLES * sizeof(*t.samples));
    assert_non_null(t.samples);
    harness_begin(&t.h, seed, config->largest_bytes ? config->largest_bytes : config->disk_bytes,
                  NULL);
    t.h.workers = config->one_worker ? 1 : 0;
    expect_init(&t.e, &t.h, config->disk_bytes, config->backing_bytes);
    pc_create_disk(&t);
    if (!t.wrong[0]) {
        flush_world(&t);
    }
    if (!t.wrong[0]) {
        pc_open_disk(&t, &t.h);
    }
    if (t.h.blk && !t.wrong[0]) {
        sim_world_on_change(t.h.world, pc_boundary, &t);
        pc_calls_take_time(&t, true);
        workload(&t);
        pc_calls_take_time(&t, false);
        pc_close_disk(&t);
        sim_world_on_change(t.h.world, NULL, NULL);
    }
    if (harness_end(&t.h) != 0 && !t.wrong[0]) {
        pc_wrong(&t, "a descriptor was left open");
    }
    pc_look_at_samples(&t);
    printf("%-34s %6lu boundaries %7lu states (%lu dirty, %lu leak, at most %llu clusters) "
           "%2u operations %4zu samples %.1f s\n",
           config->name, t.boundaries, t.e.states, t.e.dirty_states, t.e.leaky_states,
           (unsigned long long)t.e.leaks_max, t.operations, t.nsamples,
           (double)(clock() - begin) / CLOCKS_PER_SEC);
    all_states += t.e.states;
    all_opened += t.opened;
    all_shown += t.shown;
    expect_fini(&t.e);
    memcpy(wrong, t.wrong, sizeof(wrong));
    return wrong[0] ? wrong : NULL;
}

static void test_power_cuts(void **state)
{
    uint64_t seed = harness_seed(20241105);
    const char *only = getenv("PLATTER_CONFIG");
    const char *text = getenv("PLATTER_ROUNDS");
    unsigned long rounds = text ? strtoul(text, NULL, 0) : only ? 1 : ROUNDS;

    for (unsigned long round = 0; round < rounds; round++) {
        for (size_t i = 0; pc_configs[i].name; i++) {
            if (!only || strcmp(only, pc_configs[i].name) == 0) {
                uint64_t own = seed + round * 1000 + (only ? 0 : i);
                const char *wrong = run(&pc_configs[i], own);

                if (wrong) {
                    fail_msg("%s: %s (PLATTER_SEED=%llu PLATTER_CONFIG='%s')", pc_configs[i].name,
                             wrong, (unsigned long long)own, pc_configs[i].name);
                }
            }
        }
    }
    printf("%lu states, %lu opened by the driver, %lu shown to qemu-img\n", all_states, all_opened,
           all_shown);
}

/* What a run did is its seed's doing, not that of the machine's threads. */
static void test_a_seed_replays(void **state)
{
    const struct powercut_config *config = pc_configs;
    unsigned long states[2];

    while (!config->write_through) { /* many calls that are the same */
        config++;
    }
    for (int i = 0; i < 2; i++) {
        unsigned long before = all_states;

        assert_null(run(config, 3));
        states[i] = all_states - before;
    }
    assert_int_equal(states[0], states[1]);
}

/* A stack that does not keep the promises is found out: here flushes never reach the disk. */
static void test_the_gate_bites(void **state)
{
    static const struct powercut_config lying = {
        .name = "flushes that do nothing",
        .create = "cluster_size=4k",
        .open = ",cache.no-flush=on,file.cache.no-flush=on",
        .disk_bytes = 128 * 1024,
        .cluster_bytes = 4096,
    };
    const char *wrong = run(&lying, 1);

    assert_non_null(wrong);
    printf("found: %s\n", wrong);
}

static int begin_group(void **state)
{
    return pc_samples_begin();
}

static int end_group(void **state)
{
    return pc_samples_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_gate_bites),
        cmocka_unit_test(test_a_seed_replays),
        cmocka_unit_test(test_power_cuts),
    };

    if (!harness_has_driver("qcow2")) {
        return 77;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    return cmocka_run_group_tests(tests, begin_group, end_group);
}
