/* SPDX-License-Identifier: MIT */
/* Bins of times against the figures they stand for. */
#include "fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/latency.h"

#define NARROWEST 256
#define LONGEST (UINT64_C(1) << 38)
#define LAST (BLOCK_ACCT_LATENCY_BINS - 1)

static uint64_t rng;

static uint64_t next_random(void)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng;
}

/* Any time, small ones as often as large ones. */
static uint64_t random_ns(void)
{
    return next_random() >> (next_random() % 63 + 1);
}

static int seed(void **state)
{
    const char *text = getenv("PLATTER_SEED");

    rng = text ? strtoull(text, NULL, 0) : 20250;
    print_message("PLATTER_SEED=%llu\n", (unsigned long long)rng);
    for (int i = 0; i < 20; i++) {
        next_random();
    }
    return 0;
}

static int env_and_seed(void **state)
{
    seed(state);
    return env_setup(state);
}

static void test_bounds(void **state)
{
    uint64_t before = 0;

    for (size_t bin = 0; bin < LAST; bin++) {
        uint64_t bound = block_acct_latency_bound(bin);
        uint64_t width = bound - before;

        assert_true(bound > before);
        assert_true(width == NARROWEST || width <= before / 4);
        assert_int_equal(latency_bin(before), bin);
        assert_int_equal(latency_bin(bound - 1), bin);
        before = bound;
    }
    assert_int_equal(before, LONGEST);
    assert_int_equal(latency_bin(LONGEST), LAST);
    assert_int_equal(latency_bin(INT64_MAX), LAST);
    assert_int_equal(latency_bin(UINT64_MAX), LAST);
    assert_true(block_acct_latency_bound(LAST) == UINT64_MAX);
}

static void add(struct block_acct_latency *l, uint64_t ns)
{
    l->bins[latency_bin(ns)]++;
    l->count++;
    l->total_ns += ns;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* Never below the exact figure, and above it by no more than is promised. */
static void test_quantiles(void **state)
{
    static uint64_t times[2000];
    static const unsigned parts[] = {0, 1, 10, 500, 900, 990, 999, 1000};

    for (int round = 0; round < 200; round++) {
        size_t count = next_random() % 2000 + 1;
        struct block_acct_latency l = {0};

        for (size_t i = 0; i < count; i++) {
            times[i] = random_ns() % LONGEST;
            add(&l, times[i]);
        }
        qsort(times, count, sizeof(times[0]), compare);
        for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
            size_t place = (count * parts[i] + 999) / 1000;
            uint64_t exact = times[place > 0 ? place - 1 : 0];
            uint64_t told = block_acct_latency_quantile(&l, parts[i]);

            assert_true(told > exact);
            assert_true(told - exact <= (exact / 4 > NARROWEST ? exact / 4 : NARROWEST));
        }
    }
}

static void test_few_and_long(void **state)
{
    struct block_acct_latency l = {0};

    assert_int_equal(block_acct_latency_quantile(&l, 500), 0);
    add(&l, LONGEST);
    assert_int_equal(block_acct_latency_quantile(&l, 0), LONGEST);
    assert_int_equal(block_acct_latency_quantile(&l, 1000), LONGEST);
    add(&l, 0);
    assert_int_equal(block_acct_latency_quantile(&l, 500), NARROWEST);
    assert_int_equal(block_acct_latency_quantile(&l, 501), LONGEST);
    l = (struct block_acct_latency){.count = UINT64_MAX, .bins[0] = UINT64_MAX - 1, .bins[1] = 1};
    assert_int_equal(block_acct_latency_quantile(&l, 999), NARROWEST);
    assert_int_equal(block_acct_latency_quantile(&l, 1000), 2 * NARROWEST);
}

/* Through the counting calls: each in its bin, failed ones as they are accounted for. The clock
 * stands still, as it is one turn of the loop. */
static void test_counted(void **state)
{
    BlockAcctStats *stats = block_acct_new();
    struct block_acct_latency want = {0};
    struct block_acct_latency l;
    struct block_acct_totals totals;

    assert_non_null(stats);
    for (int i = 0; i < 3000; i++) {
        uint64_t ns = random_ns() >> 3; /* and so no sum overflows */
        BlockAcctCookie cookie;

        block_acct_setup(stats, true, i % 2);
        block_acct_start(stats, &cookie, 512, BLOCK_ACCT_FLUSH);
        cookie.start_time_ns -= (int64_t)ns;
        if (i % 3 == 0) {
            block_acct_failed(stats, &cookie);
        } else {
            block_acct_done(stats, &cookie);
        }
        if (i % 3 != 0 || i % 2) {
            add(&want, ns);
        }
    }
    block_acct_read_latency(stats, BLOCK_ACCT_FLUSH, &l);
    block_acct_read(stats, &totals);
    assert_true(l.total_ns == totals.total_time_ns[BLOCK_ACCT_FLUSH]);
    assert_memory_equal(&l, &want, sizeof(l));
    block_acct_read_latency(stats, BLOCK_ACCT_READ, &l);
    assert_int_equal(l.count, 0);
    block_acct_free(stats);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bounds),
        cmocka_unit_test_setup(test_quantiles, seed),
        cmocka_unit_test(test_few_and_long),
        cmocka_unit_test_setup_teardown(test_counted, env_and_seed, env_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
