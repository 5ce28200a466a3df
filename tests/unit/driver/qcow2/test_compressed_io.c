/* SPDX-License-Identifier: MIT */
/* Compressed writes: how many compressors they take. */
#include "image.h"

#include "block/driver.h"
#include "driver/format/qcow2/qcow2.h"
#include "os/os.h"

#define CLUSTER UINT64_C(65536)
#define CLUSTERS 8

static unsigned processors;

static unsigned fake_processors(void)
{
    return processors;
}

static int setup(void **state)
{
    static struct os_table table;

    table = os_linux;
    table.processors = fake_processors;
    os_replace(&table);
    return 0;
}

static int teardown(void **state)
{
    os_replace(NULL);
    return 0;
}

static unsigned packers_after_a_write(bool zstd)
{
    struct image im;
    const struct qcow2 *s;
    unsigned idle = 0;

    image_init(&im, (struct image_shape){.zstd = zstd});
    image_open(&im);
    assert_int_equal(image_fill_compressed(&im, 0, CLUSTERS * CLUSTER, 0x5a), 0);
    image_expect(&im, 0, CLUSTERS * CLUSTER, 0x5a);
    s = bdrv_opaque(blk_bs(im.blk));
    for (const struct q2_packer *p = s->packers.idle; p != NULL; p = p->next) {
        idle++;
    }
    image_close(&im);
    image_fini(&im);
    return idle;
}

/* All clusters of the request are to be compressed at once. */
static void test_no_more_than_processors(void **state)
{
    for (int zstd = 0; zstd < 2; zstd++) {
        processors = 1;
        assert_int_equal(packers_after_a_write(zstd), 1);
        processors = 3;
        assert_in_range(packers_after_a_write(zstd), 1, 3);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_no_more_than_processors, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
