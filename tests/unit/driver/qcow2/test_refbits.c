/* SPDX-License-Identifier: MIT */
/* Counts of all widths against plain numbers, and the search for free and used ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "driver/format/qcow2/refbits.h"

#define BLOCK_BYTES 512

static uint64_t rng;

static uint64_t next(void)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng;
}

static void seed(void)
{
    const char *text = getenv("PLATTER_SEED");

    rng = text ? strtoull(text, NULL, 0) : 20240807;
    print_message("PLATTER_SEED=%llu\n", (unsigned long long)rng);
}

/* "Refcount block entry": big endian; below a byte, the first entry in the lowest bits. */
static void test_as_specified(void **state)
{
    uint8_t b[16] = {0x1b, 0x80, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14};

    assert_int_equal(q2_refbits_get(b, 0, 0), 1);
    assert_int_equal(q2_refbits_get(b, 0, 2), 0);
    assert_int_equal(q2_refbits_get(b, 0, 15), 1);
    assert_int_equal(q2_refbits_get(b, 1, 0), 3);
    assert_int_equal(q2_refbits_get(b, 1, 1), 2);
    assert_int_equal(q2_refbits_get(b, 1, 2), 1);
    assert_int_equal(q2_refbits_get(b, 1, 7), 2);
    assert_int_equal(q2_refbits_get(b, 2, 0), 0xb);
    assert_int_equal(q2_refbits_get(b, 2, 1), 1);
    assert_int_equal(q2_refbits_get(b, 3, 1), 0x80);
    assert_int_equal(q2_refbits_get(b, 4, 1), 0x0102);
    assert_int_equal(q2_refbits_get(b, 5, 1), 0x03040506);
    assert_int_equal(q2_refbits_get(b, 6, 1), UINT64_C(0x0708090a0b0c0d0e));
}

static void test_against_numbers(void **state)
{
    seed();
    for (unsigned order = 0; order <= 6; order++) {
        uint64_t n = (BLOCK_BYTES * 8) >> order;
        uint64_t max = UINT64_MAX >> (64 - (1u << order));
        uint64_t *model = calloc(n, sizeof(*model));
        uint8_t block[BLOCK_BYTES] = {0};

        for (int round = 0; round < 20000; round++) {
            uint64_t i = next() % n;

            model[i] = next() % 4 == 0 ? 0 : next() & max;
            q2_refbits_set(block, order, i, model[i]);
            i = next() % n;
            assert_int_equal(q2_refbits_get(block, order, i), model[i]);
        }
        for (uint64_t i = 0; i < n; i++) {
            assert_int_equal(q2_refbits_get(block, order, i), model[i]);
        }
        free(model);
    }
}

static void test_find(void **state)
{
    seed();
    for (unsigned order = 0; order <= 6; order++) {
        uint64_t n = (BLOCK_BYTES * 8) >> order;
        uint64_t max = UINT64_MAX >> (64 - (1u << order));

        for (int round = 0; round < 500; round++) {
            uint64_t from = next() % n, to = from + next() % (n - from + 1), odd = next() % n;
            uint64_t top = UINT64_C(1) << ((1u << order) - 1);
            uint64_t used = next() % 2 ? top : (next() & max) | 1;
            uint8_t block[BLOCK_BYTES] = {0};

            q2_refbits_set(block, order, odd, used);
            assert_int_equal(q2_refbits_find(block, order, from, to, false),
                             odd >= from && odd < to ? odd : to);
            for (uint64_t i = 0; i < n; i++) {
                q2_refbits_set(block, order, i, next() % 2 ? top : (next() & max) | 1);
            }
            q2_refbits_set(block, order, odd, 0);
            assert_int_equal(q2_refbits_find(block, order, from, to, true),
                             odd >= from && odd < to ? odd : to);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_specified),
        cmocka_unit_test(test_against_numbers),
        cmocka_unit_test(test_find),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
