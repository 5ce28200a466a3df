/* SPDX-License-Identifier: MIT */
/* The L1 table: loading, bounds, its dirty sectors, growing with every step failing. */
#include "cmocka_all.h"

#include "driver/format/qcow2/l1.h"
#include "meta_fake.h"
#include "util/error.h"

static struct qcow2 *const s = &meta.s;

static int setup(void **state)
{
    meta_init(4096, 64, 100);
    return 0;
}

static int teardown(void **state)
{
    meta_fini();
    return 0;
}

static void test_load(void **state)
{
    struct q2_l1 *l1 = q2_l1_get(s);

    assert_int_equal(l1->entries, 100);
    assert_int_equal(q2_l1_entry(l1, 0), Q2_COPIED | META_L2_OFFSET);
    assert_int_equal(q2_l1_entry(l1, 99), 0);
    assert_int_equal(l1->dirty_sectors, 0);
    assert_int_equal(q2_l1_load(s, 0, 0, NULL), 0); /* an empty disk has none */
    assert_int_equal(q2_l1_get(s)->entries, 0);
    assert_int_equal(meta_commit(false), 0);
}

static void refused(uint64_t offset, uint32_t entries, int ret)
{
    Error *err = NULL;
    uint64_t used = fake_pl.budget.used_bytes;

    assert_int_equal(q2_l1_load(s, offset, entries, &err), ret);
    assert_non_null(err);
    error_free(err);
    assert_int_equal(q2_l1_get(s)->entries, 100);
    assert_int_equal(fake_pl.budget.used_bytes, used);
}

static void test_load_refused(void **state)
{
    refused(META_L1_OFFSET + 512, 1, -EINVAL);
    refused(32 * META_CLUSTER, 1, -EINVAL);
    refused(31 * META_CLUSTER, META_CLUSTER / 8 + 1, -EINVAL);
    refused(UINT64_MAX & ~UINT64_C(0xffff), 1, -EINVAL);
    refused(0, UINT32_MAX, -EFBIG);
    meta.file.f.read_error = -EIO;
    refused(META_L1_OFFSET, 100, -EIO);
    fake_pl.budget.limit_bytes = fake_pl.budget.used_bytes + 100;
    refused(META_L1_OFFSET, 100, -ENOMEM);
}

/* The last sector is written up to the last entry: the table may end the file. */
static void test_last_sector(void **state)
{
    memset(meta.file.f.data + META_L1_OFFSET + 512, 0xee, 1024);
    q2_l1_set(s, 99, 0x1234000);
    assert_int_equal(meta_commit(false), 0);
    assert_int_equal(meta_file_word(META_L1_OFFSET + 99 * 8), 0x1234000);
    for (uint32_t i = 64; i < 100; i++) {
        assert_int_equal(meta_file_word(META_L1_OFFSET + i * 8), i == 99 ? 0x1234000 : 0);
    }
    assert_int_equal(meta.file.f.data[META_L1_OFFSET + 100 * 8], 0xee);
}

/* ---- growing ---- */

static uint32_t grow_to;

static int grow_run(void *opaque)
{
    int ret;

    q2_exclusive_begin_co(s);
    ret = q2_l1_grow_co(s, grow_to, opaque);
    q2_exclusive_end(s);
    return ret;
}

static int grow(uint32_t entries)
{
    Error *err = NULL;
    int ret;

    grow_to = entries;
    ret = fake_do(grow_run, &err);
    assert_true((ret < 0) == (err != NULL));
    error_free(err);
    return ret;
}

static void test_grow(void **state)
{
    q2_l1_set(s, 1, Q2_COPIED | META_L2_OFFSET);
    assert_int_equal(grow(100), 0); /* nothing to do */
    assert_int_equal(meta.n, 0);
    assert_int_equal(grow(10000), 0);                                 /* two clusters */
    assert_true(META_IS(META_FLUSH_FILE, META_WRITE, META_FLUSH_FILE, /* the commit before: W3 */
                        META_WRITE, META_REFBLOCKS, META_FLUSH_FILE,  /* the new table: W1 */
                        META_HEADER,                                  /* W6 */
                        META_REFBLOCKS, META_FLUSH_FILE));            /* the old one is free */
    assert_int_equal(meta.log[3].offset, 5 * META_CLUSTER);
    assert_int_equal(meta.log[3].bytes, 80000);
    assert_int_equal(meta.log[6].offset, 5 * META_CLUSTER);
    assert_int_equal(meta.log[6].bytes, 10000);
    assert_int_equal(s->header.l1_offset, 5 * META_CLUSTER);
    assert_int_equal(q2_l1_get(s)->entries, 10000);
    assert_int_equal(q2_l1_entry(q2_l1_get(s), 0), Q2_COPIED | META_L2_OFFSET);
    assert_int_equal(meta_file_word(5 * META_CLUSTER + 8), Q2_COPIED | META_L2_OFFSET);
    q2_l1_set(s, 9999, 0x7000);
    assert_int_equal(meta_commit(true), 0);
    assert_int_equal(meta_file_word(5 * META_CLUSTER + 9999 * 8), 0x7000);
    assert_true(TAILQ_EMPTY(&s->freed.ready));
    assert_int_equal(meta.refcount[3], 0);
    assert_int_equal(meta.protected_bytes, 2 * META_CLUSTER - 800);
}

static void test_grow_refused(void **state)
{
    assert_int_equal(grow(Q2_L1_BYTES_MAX / 8 + 1), -EFBIG);
    meta.alloc_ret = -EFBIG;
    assert_int_equal(grow(10000), -EFBIG);
    assert_int_equal(q2_l1_get(s)->entries, 100);
}

/* Every step fails: the old table stays, and works; the clusters are free again. */
static void test_grow_fails(void **state)
{
    unsigned k;

    for (k = 1;; k++) {
        int ret;

        meta_log_clear();
        q2_l1_set(s, 1, 0x1000 * k);
        meta.fail_at = k;
        ret = grow(10000);
        if (ret == 0) {
            break;
        }
        assert_int_equal(ret, -EIO);
        assert_int_equal(s->header.l1_offset, META_L1_OFFSET);
        assert_int_equal(s->header.l1_entries, 100);
        assert_int_equal(q2_l1_get(s)->entries, 100);
        assert_int_equal(meta.broken, 0);
        assert_int_equal(meta.protected_bytes, 0);
        for (unsigned i = 5; i < meta.next_cluster; i++) {
            assert_int_equal(meta.refcount[i], 0);
        }
        meta_log_clear();
        assert_int_equal(meta_commit(false), 0);
        assert_int_equal(meta_file_word(META_L1_OFFSET + 8), 0x1000 * k);
    }
    assert_int_equal(k, 8);
}

/* The header fails for good: which table it refers to is not known. */
static void test_grow_header_unknown(void **state)
{
    q2_l1_set(s, 1, 0x1000);
    meta.fail_at = 7;
    meta.fail_forever = true;
    assert_int_equal(grow(10000), -EIO);
    assert_int_equal(meta.broken, 1);
    assert_int_equal(meta.refcount[5], 1);
    assert_int_equal(meta.refcount[6], 1);
}

/* A request that was inside before keeps the table it has found. */
static void test_old_table_stays(void **state)
{
    struct q2_l1 *old = q2_l1_get(s);
    uint64_t used = fake_pl.budget.used_bytes;
    q2_token token = 0;

    /* as if it had entered before the load, which replaces the table without a section */
    atomic_fetch_add(&s->inflight.inside[token], 1);
    assert_int_equal(q2_l1_load(s, META_L1_OFFSET, 100, NULL), 0);
    assert_ptr_not_equal(q2_l1_get(s), old);
    assert_int_equal(q2_l1_entry(old, 0), Q2_COPIED | META_L2_OFFSET);
    q2_leave(s, token);
    assert_int_equal(fake_pl.budget.used_bytes, used);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_load, setup, teardown),
        cmocka_unit_test_setup_teardown(test_load_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_last_sector, setup, teardown),
        cmocka_unit_test_setup_teardown(test_grow, setup, teardown),
        cmocka_unit_test_setup_teardown(test_grow_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_grow_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_grow_header_unknown, setup, teardown),
        cmocka_unit_test_setup_teardown(test_old_table_stays, setup, teardown),
    };

    return cmocka_run_group_tests_name("qcow2-l1", tests, NULL, NULL);
}
