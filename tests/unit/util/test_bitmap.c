/* SPDX-License-Identifier: MIT */
/* The sparse bitmap against an array of bools, in windows at the borders of its parts. */
#include "../cmocka_all.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/bitmap.h"
#include "util/mem.h"

#define WINDOW 200000
#define PAGE 4096

static uint64_t seed_of_run(void)
{
    const char *s = getenv("PLATTER_SEED");
    uint64_t seed = s != NULL ? strtoull(s, NULL, 0) : 20240607;

    printf("PLATTER_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

static uint64_t rnd(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* ---- against a model ---- */

struct model {
    struct bitmap b;
    uint64_t base; /* bit number of bits[0] */
    bool *bits;
    uint64_t rng;
};

static uint64_t model_next(const struct model *m, bool set, uint64_t from, uint64_t end)
{
    while (from < end && m->bits[from] != set) {
        from++;
    }
    return from;
}

static void check_next(struct model *m, bool set, uint64_t from, uint64_t end)
{
    uint64_t want = model_next(m, set, from, end);
    uint64_t got = UINT64_MAX;
    bool found = set ? bitmap_next_set(&m->b, m->base + from, m->base + end, &got)
                     : bitmap_next_clear(&m->b, m->base + from, m->base + end, &got);

    assert_int_equal(found, want < end);
    if (found) {
        assert_true(got == m->base + want);
    }
}

static void check_export(struct model *m, uint64_t from, uint64_t count)
{
    uint8_t *bytes;

    from += (64 - (m->base + from) % 64) % 64;
    if (from + count > WINDOW) {
        return;
    }
    bytes = malloc((count + 7) / 8 + 1);
    assert_non_null(bytes);
    bytes[(count + 7) / 8] = 0x5a;
    bitmap_export(&m->b, m->base + from, count, bytes);
    for (uint64_t i = 0; i < (count + 7) / 8 * 8; i++) {
        bool want = i < count && m->bits[from + i];

        assert_int_equal(bytes[i / 8] >> (i % 8) & 1, want);
    }
    assert_int_equal(bytes[(count + 7) / 8], 0x5a);
    free(bytes);
}

static void model_step(struct model *m)
{
    uint64_t from = rnd(&m->rng) % WINDOW;
    uint64_t most = rnd(&m->rng) % 4 == 0 ? WINDOW - from : (WINDOW - from) / 500 + 1;
    uint64_t count = rnd(&m->rng) % (most + 1);
    uint64_t n = 0;

    switch (rnd(&m->rng) % 8) {
    case 0:
    case 1:
    case 2:
        bitmap_set(&m->b, m->base + from, count);
        memset(m->bits + from, 1, count);
        break;
    case 3:
    case 4:
        assert_int_equal(bitmap_reset(&m->b, m->base + from, count), 0);
        memset(m->bits + from, 0, count);
        break;
    case 5:
        for (uint64_t i = from; i < from + count; i++) {
            n += m->bits[i];
        }
        assert_true(bitmap_count(&m->b, m->base + from, count) == n);
        break;
    case 6:
        check_export(m, from, count);
        break;
    default:
        assert_int_equal(bitmap_get(&m->b, m->base + from), m->bits[from]);
        check_next(m, true, from, from + count);
        check_next(m, false, from, from + count);
        break;
    }
}

static void model_begin(struct model *m, uint64_t base, uint64_t seed)
{
    *m = (struct model){.base = base, .rng = seed};
    bitmap_init(&m->b, NULL);
    m->bits = calloc(WINDOW, 1);
    assert_non_null(m->bits);
}

static void model_end(struct model *m)
{
    bitmap_fini(&m->b);
    free(m->bits);
}

static const uint64_t bases[] = {0,
                                 1,
                                 32767,
                                 (UINT64_C(1) << 24) - 100000,
                                 (UINT64_C(1) << 33) - 77777,
                                 (UINT64_C(1) << 42) - 64,
                                 BITMAP_BITS_MAX - WINDOW};

static void against_a_model(void **state)
{
    uint64_t seed = seed_of_run();
    struct model m;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bases); i++) {
        model_begin(&m, bases[i], seed + i);
        for (int n = 0; n < 3000; n++) {
            model_step(&m);
        }
        model_end(&m);
    }
}

static void export_and_import(void **state)
{
    struct model m;
    struct bitmap other;
    uint8_t *bytes = malloc(WINDOW / 8 + 8);
    uint64_t seed = seed_of_run();

    (void)state;
    assert_non_null(bytes);
    for (size_t i = 0; i < ARRAY_SIZE(bases); i++) {
        uint64_t first = (bases[i] + 63) / 64 * 64;
        uint64_t count = WINDOW - 64 - i;

        model_begin(&m, bases[i], seed + i);
        for (int n = 0; n < 200; n++) {
            model_step(&m);
        }
        bitmap_export(&m.b, first, count, bytes);
        bitmap_init(&other, NULL);
        bitmap_import(&other, first, count, bytes);
        for (uint64_t bit = first; bit < first + count; bit++) {
            assert_int_equal(bitmap_get(&other, bit), m.bits[bit - m.base]);
        }
        assert_true(bitmap_count(&other, 0, BITMAP_BITS_MAX) == bitmap_count(&m.b, first, count));
        bitmap_fini(&other);
        model_end(&m);
    }
    free(bytes);
}

static void merging(void **state)
{
    struct model m;
    struct bitmap other;
    uint64_t seed = seed_of_run();

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bases); i++) {
        uint64_t end = bases[i] + WINDOW / 2;

        model_begin(&m, bases[i], seed + i);
        for (int n = 0; n < 200; n++) {
            model_step(&m);
        }
        bitmap_init(&other, NULL);
        bitmap_set(&other, bases[i] + 5, 3);
        bitmap_merge(&other, &m.b, end);
        for (uint64_t bit = 0; bit < WINDOW; bit++) {
            bool want = (bit >= 5 && bit < 8) || (bases[i] + bit < end && m.bits[bit]);

            assert_int_equal(bitmap_get(&other, bases[i] + bit), want);
        }
        bitmap_fini(&other);
        model_end(&m);
    }
}

/* ---- memory ---- */

static void large_and_cheap(void **state)
{
    struct mem_budget budget = {.limit_bytes = 64 * PAGE};
    struct bitmap b;
    uint64_t bit;

    (void)state;
    bitmap_init(&b, &budget);
    assert_false(bitmap_next_set(&b, 0, BITMAP_BITS_MAX, &bit));
    bitmap_set(&b, 0, BITMAP_BITS_MAX);
    assert_int_equal(budget.used_bytes, 0);
    assert_true(bitmap_count(&b, 0, BITMAP_BITS_MAX) == BITMAP_BITS_MAX);
    assert_false(bitmap_next_clear(&b, 0, BITMAP_BITS_MAX, &bit));
    assert_int_equal(bitmap_reset(&b, BITMAP_BITS_MAX - 5, 1), 0);
    assert_true(bitmap_next_clear(&b, 0, BITMAP_BITS_MAX, &bit));
    assert_true(bit == BITMAP_BITS_MAX - 5);
    assert_true(budget.used_bytes <= 6 * PAGE);
    assert_int_equal(bitmap_reset(&b, 0, BITMAP_BITS_MAX), 0);
    assert_true(bitmap_count(&b, 0, BITMAP_BITS_MAX) == 0);
    bitmap_set(&b, UINT64_C(1) << 40, 1);
    assert_true(bitmap_next_set(&b, 0, BITMAP_BITS_MAX, &bit));
    assert_true(bit == UINT64_C(1) << 40);
    bitmap_fini(&b);
    assert_int_equal(budget.used_bytes, 0);
}

/* Without memory more is set than was asked for, never less, and clearing says what it could not.
 */
static void without_memory(void **state)
{
    uint64_t rng = seed_of_run();

    (void)state;
    for (unsigned pages = 0; pages < 12; pages++) {
        struct mem_budget budget = {.limit_bytes = pages * (uint64_t)PAGE};
        uint64_t bits[64];
        struct bitmap b;

        bitmap_init(&b, &budget);
        for (size_t i = 0; i < ARRAY_SIZE(bits); i++) {
            bits[i] = rnd(&rng) >> (4 + rnd(&rng) % 58);
            bitmap_set(&b, bits[i], 1);
        }
        for (size_t i = 0; i < ARRAY_SIZE(bits); i++) {
            assert_true(bitmap_get(&b, bits[i]));
        }
        for (size_t i = 0; i < ARRAY_SIZE(bits); i++) {
            int ret = bitmap_reset(&b, bits[i], 1);

            assert_true(ret == 0 || ret == -ENOMEM);
            assert_int_equal(bitmap_get(&b, bits[i]), ret < 0);
        }
        assert_true(budget.used_bytes <= budget.limit_bytes);
        bitmap_fini(&b);
        assert_int_equal(budget.used_bytes, 0);
    }
}

/* ---- threads ---- */

#define THREADS 4
#define PER_THREAD 20000

struct crowd {
    struct bitmap b;
    uint64_t seed;
};
struct crowd_thread {
    struct crowd *crowd;
    unsigned number;
    pthread_t thread;
};

/* Each thread has every THREADS-th bit for itself, and the pages with the others. */
static void *crowd_run(void *opaque)
{
    struct crowd_thread *t = opaque;
    uint64_t rng = t->crowd->seed + t->number * 977 + 1;

    for (unsigned i = 0; i < PER_THREAD; i++) {
        uint64_t bit = (uint64_t)i * 37 * THREADS + t->number;

        bitmap_set(&t->crowd->b, bit, 1);
        if (rnd(&rng) % 2 == 0) {
            (void)bitmap_reset(&t->crowd->b, bit, 1);
            bitmap_set(&t->crowd->b, bit, 1);
        }
        if (i % 2 == 1) {
            (void)bitmap_reset(&t->crowd->b, bit, 1);
        }
        if (i % 500 == 0) {
            bitmap_set(&t->crowd->b, UINT64_C(1) << 30, 1 << 20); /* FULL parts come and go */
            (void)bitmap_reset(&t->crowd->b, UINT64_C(1) << 30, 1 << 20);
        }
    }
    return NULL;
}

static void from_several_threads(void **state)
{
    struct crowd crowd = {.seed = seed_of_run()};
    struct crowd_thread threads[THREADS];

    (void)state;
    bitmap_init(&crowd.b, NULL);
    for (unsigned i = 0; i < THREADS; i++) {
        threads[i] = (struct crowd_thread){.crowd = &crowd, .number = i};
        assert_int_equal(pthread_create(&threads[i].thread, NULL, crowd_run, &threads[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i].thread, NULL), 0);
    }
    for (unsigned t = 0; t < THREADS; t++) {
        for (unsigned i = 0; i < PER_THREAD; i++) {
            assert_int_equal(bitmap_get(&crowd.b, (uint64_t)i * 37 * THREADS + t), i % 2 == 0);
        }
    }
    bitmap_fini(&crowd.b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(against_a_model), cmocka_unit_test(export_and_import),
        cmocka_unit_test(merging),         cmocka_unit_test(large_and_cheap),
        cmocka_unit_test(without_memory),  cmocka_unit_test(from_several_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
