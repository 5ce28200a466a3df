/* SPDX-License-Identifier: MIT */
/* Sparse counts against plain ones; what they cost; memory that ends anywhere. */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "driver/format/qcow2/refmap.h"

#define CLUSTERS 200000

static struct mem_budget budget;
static uint32_t model[CLUSTERS];
static uint64_t rng;

static uint64_t next(void)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng;
}

static void begin(struct q2_refmap *map)
{
    const char *text = getenv("PLATTER_SEED");

    rng = text ? strtoull(text, NULL, 0) : 20240810;
    print_message("PLATTER_SEED=%" PRIu64 "\n", rng);
    memset(model, 0, sizeof(model));
    budget = (struct mem_budget){.limit_bytes = UINT64_MAX};
    q2_refmap_init(map, &budget);
}

static void end(struct q2_refmap *map)
{
    q2_refmap_fini(map);
    assert_int_equal(budget.used_bytes, 0);
}

static void compare(struct q2_refmap *map)
{
    uint64_t cluster = 0;
    int ret;

    for (uint64_t i = 0; i < CLUSTERS; i++) {
        assert_int_equal(q2_refmap_get(map, i), model[i]);
    }
    for (uint64_t i = 0; i < CLUSTERS; i++) {
        if (model[i] != 0) {
            assert_int_equal(q2_refmap_next(map, cluster, &cluster), 0);
            assert_int_equal(cluster, i);
            cluster++;
        }
    }
    ret = q2_refmap_next(map, cluster, &cluster);
    assert_int_equal(ret, -ENOENT);
}

static void test_random(void **state)
{
    struct q2_refmap map;

    begin(&map);
    for (int round = 0; round < 6; round++) {
        uint64_t window = round % 2 ? CLUSTERS : 20000;

        for (int i = 0; i < 30000; i++) {
            uint64_t c = next() % window;
            uint32_t n = next() % 50 ? 1 : (uint32_t)(next() % (UINT64_C(1) << (8 * (round % 4))));

            assert_int_equal(q2_refmap_add(&map, c, n), 0);
            model[c] += n;
            c = next() % CLUSTERS;
            assert_int_equal(q2_refmap_get(&map, c), model[c]);
        }
        compare(&map);
    }
    end(&map);
}

static void test_edges(void **state)
{
    struct q2_refmap map;
    uint64_t far = (UINT64_C(1) << 47) - 1, cluster;

    begin(&map);
    assert_int_equal(q2_refmap_get(&map, 5), 0);
    assert_int_equal(q2_refmap_next(&map, 0, &cluster), -ENOENT);
    assert_int_equal(q2_refmap_add(&map, far, 0), 0);
    assert_int_equal(budget.used_bytes, 0);
    assert_int_equal(q2_refmap_add(&map, far, UINT64_MAX), 0);
    assert_int_equal(q2_refmap_get(&map, far), UINT32_MAX);
    assert_int_equal(q2_refmap_add(&map, far, 7), 0);
    assert_int_equal(q2_refmap_get(&map, far), UINT32_MAX);
    assert_int_equal(q2_refmap_get(&map, far - 1), 0);
    assert_int_equal(q2_refmap_next(&map, 0, &cluster), 0);
    assert_int_equal(cluster, far);
    assert_int_equal(q2_refmap_next(&map, far + 1, &cluster), -ENOENT);
    end(&map);
}

/* At most 8 bytes for each cluster in use, but for a few of them. */
static void test_cost(void **state)
{
    static const unsigned stride[] = {1, 2, 3, 4, 5, 16, 1000};

    for (size_t s = 0; s < sizeof(stride) / sizeof(stride[0]); s++) {
        struct q2_refmap map;
        uint64_t n = 0;

        begin(&map);
        for (uint64_t c = 0; c < UINT64_C(4000000); c += stride[s]) {
            assert_int_equal(q2_refmap_add(&map, c, 1 + c % 3), 0);
            n++;
        }
        assert_true(budget.used_bytes < n * 8 + 65536);
        if (stride[s] == 1) {
            assert_true(budget.used_bytes < n + n / 8);
        }
        end(&map);
    }
}

static void test_no_memory(void **state)
{
    struct q2_refmap map;
    uint64_t cluster;

    begin(&map);
    for (uint64_t limit = 0; limit < 20000; limit += 64) {
        int ret = 0;

        budget.limit_bytes = limit;
        for (uint64_t c = 0; ret == 0 && c < 10000; c++) {
            ret = q2_refmap_add(&map, c * 5, 300);
            assert_int_equal(q2_refmap_get(&map, c * 5), ret == 0 ? 300 : 0);
        }
        assert_true(ret == 0 || ret == -ENOMEM);
        ret = q2_refmap_next(&map, 60000, &cluster);
        assert_true(ret == -ENOENT || ret == -ENOMEM);
        q2_refmap_fini(&map);
        assert_int_equal(budget.used_bytes, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_edges),
        cmocka_unit_test(test_cost),
        cmocka_unit_test(test_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
