/* SPDX-License-Identifier: MIT */
/*
 * Persistent bitmaps through cuts of power and errors of the storage. Random programs change the
 * disk, make, change, store and remove bitmaps, resize and reopen. At every change of the file the
 * power is cut on copies of it, and a reader that shares no code with the driver looks at them:
 *
 *  - the structure is right but for leaks;
 *  - the directory is one that we know the image to have: the last one stored, or the one that is
 *    being stored;
 *  - a bitmap that is not flagged as in use has exactly the bits that were stored, and what is
 * clean in one that records reads as it did when the bitmap was made or cleared: never clean for a
 *    dirty range.
 *
 * Then the same with the n-th call of the storage failing, once and from then on.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <platter/image.h>
#include <platter/options.h>

#include "qcow2_bitmaps.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STEPS 60
#define ERROR_STRIDE 37
#else
#define STEPS 400
#define ERROR_STRIDE 3
#endif

static void begin(struct bitmaps_test *t, const char *options, uint64_t seed)
{
    BlockOptions *create;
    Error *err = NULL;
    char text[128];

    *t = (struct bitmaps_test){.name = options, .disk_bytes = DISK_MAX / 2};
    sim_rng_init(&t->rng, seed);
    sim_rng_init(&t->cut_rng, seed + 1);
    harness_begin(&t->h, seed, 0, NULL);
    assert_int_equal(harness_platter(&t->h), 0);
    snprintf(text, sizeof(text), "driver=qcow2,size=%llu,%s", (unsigned long long)t->disk_bytes,
             options);
    create = block_options_parse(text, NULL, &err);
    assert_non_null(create);
    if (bdrv_create(t->h.pl, SIM_DISK_PATH, create, &err) < 0) {
        fail_msg("create: %s", error_get_pretty(err));
    }
    t->known[0].valid = true;
    bm_open_disk(t);
    assert_string_equal(t->wrong, "");
}

static void end(struct bitmaps_test *t, uint64_t seed)
{
    sim_world_on_change(t->h.world, NULL, NULL);
    qv_fini(&t->im);
    free(t->buf);
    assert_int_equal(harness_end(&t->h), 0);
    if (t->wrong[0] != '\0') {
        fail_msg("%s: %s (seed %llu)", t->name, t->wrong, (unsigned long long)seed);
    }
}

static const char *const images[] = {
    "cluster_size=512",
    "cluster_size=4096",
    "cluster_size=4096,lazy_refcounts=on",
    "cluster_size=16384,extended_l2=on",
};
#define IMAGES (sizeof(images) / sizeof(images[0]))

static unsigned long rounds(void)
{
    const char *text = getenv("PLATTER_ROUNDS");

    return text != NULL ? strtoul(text, NULL, 0) : 1;
}

static void test_power_cuts(void **state)
{
    static struct bitmaps_test t;
    uint64_t seed = harness_seed(20240620);

    (void)state;
    for (unsigned long round = 0; round < rounds(); round++) {
        for (size_t i = 0; i < IMAGES; i++) {
            uint64_t s = seed + round * 1000 + i;

            begin(&t, images[i], s);
            sim_world_on_change(t.h.world, bm_boundary, &t);
            for (unsigned n = 0; n < STEPS && t.wrong[0] == '\0'; n++) {
                bm_step(&t);
            }
            if (t.wrong[0] == '\0') {
                bm_step_reopen(&t);
            }
            printf("%-40s %6u boundaries %7u cuts %3u loads\n", images[i], t.boundaries, t.cuts,
                   t.loads);
            end(&t, s);
        }
    }
}

/* A short program, with call number nth (0: none) failing. Returns the calls made. */
static uint64_t program(struct bitmaps_test *t, size_t image, uint64_t seed, uint64_t nth,
                        bool forever, int error)
{
    const uint64_t calls = SIM_CALLS_DATA | SIM_CALLS(SIM_CALL_TRUNCATE);
    struct sim_faults *faults;
    uint64_t count;

    begin(t, images[image], seed);
    faults = sim_world_faults(t->h.world);
    sim_faults_clear(faults);
    t->faults = nth > 0;
    if (nth > 0) {
        sim_faults_add(faults, &(struct sim_rule){
                                   .calls = calls, .nth = nth, .forever = forever, .error = error});
    }
    for (unsigned n = 0; n < 40 && t->wrong[0] == '\0' && t->h.blk != NULL; n++) {
        bm_step(t);
        if (t->h.blk != NULL && bdrv_broken_reason(blk_bs(t->h.blk)) != NULL) {
            sim_faults_clear(faults); /* a file whose fsync failed is of no use until reopened */
            bm_step_reopen(t);
        }
    }
    count = sim_faults_count(faults, calls);
    sim_faults_clear(faults);
    if (t->wrong[0] == '\0' && t->h.blk != NULL) {
        bm_step_reopen(t);
    }
    end(t, seed);
    return count;
}

static void test_errors(void **state)
{
    static struct bitmaps_test t;
    uint64_t seed = harness_seed(20240621);
    unsigned long runs = 0;

    (void)state;
    for (size_t i = 0; i < IMAGES; i++) {
        uint64_t count = program(&t, i, seed + i, 0, false, 0);
        uint64_t stride = getenv("PLATTER_ALL") != NULL ? 1 : ERROR_STRIDE;

        for (uint64_t nth = 1; nth <= count; nth += stride) {
            program(&t, i, seed + i, nth, false, EIO);
            program(&t, i, seed + i, nth, true, nth % 2 ? EIO : ENOSPC);
            runs += 2;
        }
    }
    printf("%lu programs with a failing call\n", runs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_power_cuts),
        cmocka_unit_test(test_errors),
    };

    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!harness_has_driver("qcow2")) {
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
