/* SPDX-License-Identifier: MIT */
/*
 * Counts in memory and in the file: raising, lowering, the commit's two steps (W2), a cache that is
 * too small, tables that cannot be used.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "driver/format/qcow2/overlap.h"
#include "driver/format/qcow2/refcount_int.h"
#include "fake_file.h"

static struct qcow2 s;

static void begin(unsigned cluster_bits, unsigned order)
{
    fake_image(&s, cluster_bits, order, 1 << 20);
    assert_int_equal(q2_refcounts_load(&s, NULL), 0);
    assert_int_equal(q2_overlap_init(&s), 0);
}

static void end(void)
{
    q2_overlap_fini(&s);
    q2_refcounts_fini(&s);
    fake_fini(&s);
}

static uint64_t get(uint64_t cluster)
{
    uint64_t value = 99;

    assert_int_equal(q2_refcount_get_co(&s, cluster, &value), 0);
    return value;
}

static uint64_t in_file(uint64_t cluster)
{
    uint64_t block = fake_be64(s.header.reftable_offset + 8 * q2_refblock_index(&s, cluster));

    return block == 0 ? 0
                      : q2_refbits_get(fake.data + block, s.geo.refcount_order,
                                       cluster & (s.geo.refblock_entries - 1));
}

/* ---- raising and lowering ---- */

static void add_co(void *opaque)
{
    uint64_t max = s.geo.refcount_max;

    assert_int_equal(get(3), 1);
    assert_int_equal(get(4), 0);
    assert_int_equal(get(UINT64_C(1) << 40), 0);
    assert_int_equal(q2_refcount_add_co(&s, 4 << 12, 0, 1), 0);
    assert_int_equal(get(4), 0);
    /* all that the range touches */
    assert_int_equal(q2_refcount_add_co(&s, (4 << 12) + 4000, 200, 1), 0);
    assert_int_equal(get(4), 1);
    assert_int_equal(get(5), 1);
    assert_int_equal(get(6), 0);
    /* all or nothing */
    assert_int_equal(q2_refcount_add_co(&s, 4 << 12, 3 << 12, -1), -EINVAL);
    assert_int_equal(get(4), 1);
    assert_int_equal(q2_refcount_add_co(&s, 5 << 12, 1, 2), 0);
    assert_int_equal(get(5), max);
    assert_int_equal(q2_refcount_add_co(&s, 4 << 12, 3 << 12, 1), -ERANGE);
    assert_int_equal(get(4), 1);
    assert_int_equal(get(6), 0);
    assert_int_equal(q2_refcount_add_co(&s, 5 << 12, 1, -3), 0);
    assert_int_equal(get(5), 0);
    assert_int_equal(q2_refcount_add_co(&s, 5 << 12, 1, -1), -EINVAL);
    assert_int_equal(q2_refcount_add_co(&s, 5 << 12, 1, 4), -ERANGE);
    assert_int_equal(q2_refcount_add_co(&s, UINT64_MAX - 5, 10, 1), -EINVAL);
    /* where there is no block yet */
    assert_int_equal(q2_refcount_add_co(&s, UINT64_C(100000) << 12, 4096, 1), 0);
    assert_int_equal(get(100000), 1);
    assert_int_equal(q2_refcount_add_co(&s, UINT64_C(200000) << 12, 4096, -1), -EINVAL);
    assert_false(fake.corrupt);
}

static void test_add(void **state)
{
    begin(12, 1); /* counts up to 3 */
    fake_run(add_co, NULL);
    end();
}

struct told {
    unsigned n;
    uint64_t offset[100], bytes[100];
};

static void zero(void *opaque, uint64_t offset, uint64_t bytes)
{
    struct told *t = opaque;

    assert_true(t->n < 100);
    assert_int_equal(get(offset >> 12), 1); /* not free yet: nobody else can have it */
    t->offset[t->n] = offset;
    t->bytes[t->n++] = bytes;
}

static void drop_co(void *opaque)
{
    static struct told t;
    uint64_t offset;

    t.n = 0;
    assert_int_equal(q2_alloc_clusters_co(&s, 100, &offset), 0);
    assert_int_equal(offset, 4 << 12);
    for (unsigned i = 10; i < 100; i += 2) {
        assert_int_equal(q2_refcount_add_co(&s, i << 12, 1, 1), 0);
    }
    assert_int_equal(q2_refcount_drop_co(&s, 5 << 12, 200 << 12, zero, &t), -EINVAL);
    assert_int_equal(t.n, 0);
    assert_int_equal(q2_refcount_drop_co(&s, (5 << 12) + 7, 98 << 12, zero, &t), 0);
    assert_int_equal(t.n, 46);
    assert_int_equal(t.offset[0], 5 << 12);
    assert_int_equal(t.bytes[0], 5 << 12);
    assert_int_equal(t.offset[1], 11 << 12);
    assert_int_equal(t.bytes[1], 1 << 12);
    assert_int_equal(t.offset[45], 99 << 12);
    assert_int_equal(t.bytes[45], 5 << 12);
    for (unsigned i = 5; i < 104; i++) {
        assert_int_equal(get(i), i >= 10 && i < 100 && i % 2 == 0);
    }
    assert_int_equal(q2_alloc_clusters_co(&s, 5, &offset), 0);
    assert_int_equal(offset, 5 << 12);
    q2_unalloc_co(&s, offset, 5 << 12);
    assert_int_equal(get(5), 0);
}

static void test_drop(void **state)
{
    begin(12, 4);
    fake_run(drop_co, NULL);
    end();
}

/* ---- the commit's steps ---- */

static void steps_co(void *opaque)
{
    uint64_t a, n;

    assert_false(q2_refcounts_dirty(&s));
    assert_int_equal(q2_refcounts_write_blocks_co(&s), 0);
    assert_int_equal(q2_refcounts_write_table_co(&s), 0);
    assert_int_equal(fake.writes, 0);
    assert_int_equal(q2_alloc_clusters_co(&s, 70, &a), 0); /* 64 in a block */
    assert_true(q2_refcounts_dirty(&s));
    assert_false(q2_refcounts_table_dirty(&s));
    assert_int_equal(q2_refcounts_write_blocks_co(&s), 0);
    assert_int_equal(s.refs.table[1], fake.last_write_offset);
    assert_true(q2_refcounts_table_dirty(&s));
    assert_int_equal(fake_be64(512 + 8), 0);
    /* another block is made before the table is written: it must not appear there */
    assert_int_equal(q2_alloc_at_co(&s, 200 * 512, 1, &n), 0);
    assert_int_equal(n, 1);
    assert_int_not_equal(s.refs.table[3], 0);
    assert_int_equal(q2_refcounts_write_table_co(&s), 0);
    assert_int_equal(fake_be64(512 + 8), s.refs.table[1]);
    assert_int_equal(fake_be64(512 + 24), 0);
    assert_false(q2_refcounts_table_dirty(&s));
    assert_true(q2_refcounts_dirty(&s));
    assert_int_equal(q2_refcounts_write_blocks_co(&s), 0);
    assert_true(q2_refcounts_table_dirty(&s));
    assert_int_equal(q2_refcounts_write_table_co(&s), 0);
    assert_int_equal(fake_be64(512 + 24), s.refs.table[3]);
    assert_false(q2_refcounts_dirty(&s));
    assert_int_equal(in_file(200), 1);
}

static void test_steps(void **state)
{
    begin(9, 6);
    fake_run(steps_co, NULL);
    end();
}

/* Errors leave dirty what they hit. */
static void steps_fail_co(void *opaque)
{
    uint64_t a;

    assert_int_equal(q2_alloc_clusters_co(&s, 70, &a), 0);
    fake.fail_call = fake.calls + 1;
    assert_int_equal(q2_refcounts_write_blocks_co(&s), -EIO);
    assert_false(q2_refcounts_table_dirty(&s));
    assert_int_equal(q2_refcounts_write_blocks_co(&s), 0);
    fake.fail_call = fake.calls + 1;
    assert_int_equal(q2_refcounts_write_table_co(&s), -EIO);
    assert_true(q2_refcounts_table_dirty(&s));
    assert_int_equal(q2_refcounts_write_table_co(&s), 0);
    assert_int_equal(in_file(a / 512), 1);
    assert_int_equal(in_file(a / 512 + 69), 1);
}

static void test_steps_fail(void **state)
{
    begin(9, 6);
    fake_run(steps_fail_co, NULL);
    end();
}

/* Only the changed part of a block is written. */
static void part_co(void *opaque)
{
    assert_int_equal(q2_refcount_add_co(&s, UINT64_C(10000) << 16, 1, 1), 0);
    assert_int_equal(q2_refcounts_write_blocks_co(&s), 0);
    assert_int_equal(fake.last_write_bytes, 4096);
    assert_int_equal(fake.last_write_offset, (2 << 16) + 16384);
}

static void test_part(void **state)
{
    begin(16, 4);
    fake_run(part_co, NULL);
    end();
}

/* ---- a small cache ---- */

static uint64_t rng;

static uint64_t next(void)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng;
}

#define MODEL 4000

static uint8_t model[MODEL]; /* what this test owns */

static void model_alloc_co(void)
{
    uint64_t n = next() % 40 + 1, offset, got = n;

    if (next() % 2) {
        assert_int_equal(q2_alloc_clusters_co(&s, n, &offset), 0);
    } else {
        offset = next() % (MODEL - 40) * 512;
        assert_int_equal(q2_alloc_at_co(&s, offset, n, &got), 0);
    }
    for (uint64_t i = offset / 512; i < offset / 512 + got; i++) {
        assert_true(i < MODEL);
        assert_int_equal(model[i], 0);
        assert_int_equal(get(i), 1);
        model[i] = 1;
    }
}

/* A run of owned clusters goes up or down by one. */
static void model_change_co(int delta)
{
    uint64_t at = next() % MODEL, n = 0;

    while (at + n < MODEL && model[at + n] > 0 && model[at + n] < 200) {
        n++;
    }
    if (n > 0) {
        assert_int_equal(q2_refcount_add_co(&s, at * 512, n * 512, delta), 0);
        for (uint64_t i = at; i < at + n; i++) {
            model[i] = (uint8_t)(model[i] + delta);
        }
    }
}

static void model_co(void *opaque)
{
    for (int i = 0; i < 5000; i++) {
        switch (next() % 8) {
        case 0:
            model_alloc_co();
            break;
        case 1:
            assert_int_equal(q2_refcounts_write_blocks_co(&s), 0);
            break;
        case 2:
            assert_int_equal(q2_refcounts_write_table_co(&s), 0);
            break;
        case 3:
            model_change_co(1);
            break;
        default:
            model_change_co(-1);
        }
        assert_true(s.refs.count <= Q2_REFBLOCKS_MIN);
    }
    assert_int_equal(q2_refcounts_write_blocks_co(&s), 0);
    assert_int_equal(q2_refcounts_write_table_co(&s), 0);
    for (uint64_t i = 0; i < MODEL; i++) {
        assert_int_equal(get(i), in_file(i));
        if (model[i] > 0) {
            assert_int_equal(get(i), model[i]);
        }
    }
}

static void test_small_cache(void **state)
{
    const char *text = getenv("PLATTER_SEED");

    rng = text ? strtoull(text, NULL, 0) : 20240808;
    print_message("PLATTER_SEED=%" PRIu64 "\n", rng);
    memset(model, 0, sizeof(model));
    begin(9, 5);
    fake_run(model_co, NULL);
    assert_false(fake.corrupt);
    end();
}

/* ---- tables that cannot be used ---- */

static void unusable_co(void *opaque)
{
    uint64_t value, n;

    assert_int_equal(q2_refcount_get_co(&s, 0, &value), -EIO);
    assert_int_equal(q2_refcount_add_co(&s, 0, 1, 1), -EIO);
    assert_int_equal(q2_alloc_clusters_co(&s, 1, &value), -EIO);
    assert_int_equal(q2_alloc_at_co(&s, 0, 1, &n), -EIO);
    assert_int_equal(q2_refcount_get_co(&s, 3000, &value), 0);
    assert_int_equal(value, 0);
}

static void test_unusable(void **state)
{
    static const struct {
        uint64_t entry;
        const char *text;
    } bad[] = {
        {0x2200, "Refblock offset 0x2200 unaligned (reftable index: 0)"},
        {0x2001, "unaligned"},
        {UINT64_C(1) << 40, "outside"},
        {UINT64_C(1) << 63, "outside"},
        {0x100000, "outside"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        fake_image(&s, 12, 4, 1 << 20);
        store_be64(fake.data + 4096, bad[i].entry);
        assert_int_equal(q2_refcounts_load(&s, NULL), 0);
        assert_int_equal(q2_overlap_init(&s), 0);
        fake.open_flags = i == 0 ? 0 : BDRV_O_RDWR;
        fake_run(unusable_co, NULL);
        assert_true(fake.corrupt);
        assert_int_equal(fake.corrupt_fatal, i != 0);
        assert_int_equal(fake.header_bits_set, i != 0 ? Q2_INCOMPAT_CORRUPT : 0);
        assert_non_null(strstr(fake.message, bad[i].text));
        end();
    }
}

/* A block that lies over other metadata is not written. */
static void block_over_header_co(void *opaque)
{
    assert_int_equal(q2_refcount_add_co(&s, UINT64_C(2048) << 12, 1, 1), 0);
    assert_int_equal(q2_refcounts_write_blocks_co(&s), -EIO);
    assert_int_equal(fake.writes, 0);
}

static void test_block_over_header(void **state)
{
    fake_image(&s, 12, 4, 1 << 20);
    store_be64(fake.data + 4096 + 8, 4096);
    assert_int_equal(q2_refcounts_load(&s, NULL), 0);
    assert_int_equal(q2_overlap_init(&s), 0);
    fake_run(block_over_header_co, NULL);
    assert_true(fake.corrupt_fatal);
    assert_non_null(strstr(fake.message, "overlaps with refcount table"));
    end();
}

static void test_load_fails(void **state)
{
    Error *err = NULL;

    fake_image(&s, 12, 4, 1 << 20);
    fake.fail_call = 1;
    assert_int_equal(q2_refcounts_load(&s, &err), -EIO);
    assert_non_null(err);
    error_free(err);
    fake.budget.limit_bytes = 100;
    assert_int_equal(q2_refcounts_load(&s, NULL), -ENOMEM);
    fake_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_add),        cmocka_unit_test(test_drop),
        cmocka_unit_test(test_steps),      cmocka_unit_test(test_steps_fail),
        cmocka_unit_test(test_part),       cmocka_unit_test(test_small_cache),
        cmocka_unit_test(test_unusable),   cmocka_unit_test(test_block_over_header),
        cmocka_unit_test(test_load_fails),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
