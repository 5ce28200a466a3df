/* SPDX-License-Identifier: MIT */
/* Slices: finding, loading, making room, new tables, and readers without a lock under threads. */
#include "cmocka_all.h"

#include "meta_fake.h"

#define SLICE 4096u
#define SLICES 4u

static int setup(void **state)
{
    meta_init(SLICE, SLICES, 8);
    return 0;
}

static int teardown(void **state)
{
    meta_fini();
    return 0;
}

static uint64_t word_of(uint64_t key, uint32_t index)
{
    return 0x1000000 + (key - META_L2_OFFSET) / 8 + index;
}

/* ---- finding and loading ---- */

static void test_get(void **state)
{
    struct q2_l2_cache *c = &meta.s.l2;
    uint64_t word;

    assert_null(q2_l2_find(&meta.s, META_L2_OFFSET + SLICE));
    assert_int_equal(meta_get(META_L2_OFFSET + SLICE, 3, &word), 0);
    assert_int_equal(word, word_of(META_L2_OFFSET + SLICE, 3));
    assert_non_null(q2_l2_find(&meta.s, META_L2_OFFSET + SLICE));
    assert_null(q2_l2_find(&meta.s, META_L2_OFFSET));
    assert_int_equal(c->count, 1);
    assert_int_equal(atomic_load(&meta.file.f.reads), 2); /* the L1 table, and this */
    assert_int_equal(meta_get(META_L2_OFFSET + SLICE, 4, &word), 0);
    assert_int_equal(atomic_load(&meta.file.f.reads), 2);
}

static void test_past_the_end(void **state)
{
    uint64_t word;

    assert_int_equal(meta_get(32 * META_CLUSTER, 0, &word), -EIO);
    assert_int_equal(meta_get(UINT64_C(1) << 55, 0, &word), -EIO);
    assert_int_equal(meta.corrupt, 2);
    atomic_store(&meta.file.f.file_size, 31 * META_CLUSTER + 100);
    atomic_store(&meta.file.bs.size_bytes, 31 * META_CLUSTER + 100);
    assert_int_equal(meta_get(31 * META_CLUSTER, 0, &word), -EIO); /* not all of it is there */
    assert_int_equal(meta.corrupt, 3);
    assert_int_equal(meta.s.l2.count, 0);
}

static void test_read_error(void **state)
{
    uint64_t word;

    meta.file.f.read_error = -EIO;
    assert_int_equal(meta_get(META_L2_OFFSET, 0, &word), -EIO);
    meta.file.f.read_error = 0;
    assert_int_equal(meta_get(META_L2_OFFSET, 0, &word), 0);
}

/* Many want the same slice: one reads, all get it; and when it fails, all hear so. */
static void load_at_once(int error)
{
    struct meta_get gets[6];
    struct fake_run runs[6];
    unsigned before = atomic_load(&meta.file.f.reads);

    meta.file.f.suspend = 3;
    meta.file.f.read_error = error;
    for (int i = 0; i < 6; i++) {
        gets[i] = (struct meta_get){META_L2_OFFSET, (uint32_t)i, 0};
        fake_start(&runs[i], meta_get_run, &gets[i]);
    }
    for (int i = 0; i < 6; i++) {
        assert_int_equal(fake_wait(&runs[i]), error);
        if (error == 0) {
            assert_int_equal(gets[i].word, word_of(META_L2_OFFSET, (uint32_t)i));
        }
    }
    assert_int_equal(atomic_load(&meta.file.f.reads), before + 1);
    assert_true(TAILQ_EMPTY(&meta.s.l2.loads));
}

static void test_load_at_once(void **state)
{
    load_at_once(-EIO);
    load_at_once(0);
}

/* ---- making room ---- */

static void test_evicts_clean(void **state)
{
    uint64_t word;

    for (uint32_t i = 0; i < 10; i++) {
        assert_int_equal(meta_get(META_L2_OFFSET + i * SLICE, 0, &word), 0);
        assert_true(meta.s.l2.count <= SLICES);
    }
    assert_int_equal(meta.s.l2.count, SLICES);
    assert_null(q2_l2_find(&meta.s, META_L2_OFFSET));
    assert_non_null(q2_l2_find(&meta.s, META_L2_OFFSET + 9 * SLICE));
    assert_int_equal(meta.n, 0); /* nothing was written */
}

/* What is used again stays longer than what is not. */
static void test_second_chance(void **state)
{
    uint64_t word;

    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(meta_get(META_L2_OFFSET + i * SLICE, 0, &word), 0);
    }
    assert_int_equal(meta_get(META_L2_OFFSET + 4 * SLICE, 0, &word), 0); /* all chances taken */
    for (uint32_t i = 5; i < 12; i++) {
        assert_non_null(q2_l2_find(&meta.s, META_L2_OFFSET + 3 * SLICE));
        assert_int_equal(meta_get(META_L2_OFFSET + i * SLICE, 0, &word), 0);
    }
    assert_non_null(q2_l2_find(&meta.s, META_L2_OFFSET + 3 * SLICE));
}

static int pin_run(void *opaque)
{
    struct q2_slice **slices = opaque;
    q2_token token = q2_enter_co(&meta.s);

    for (uint32_t i = 0; i < 8; i++) { /* twice as many as the cache shall hold */
        CHECK(q2_l2_get_co(&meta.s, META_L2_OFFSET + i * SLICE, &slices[i]) == 0);
    }
    CHECK(meta.s.l2.count == 8);
    for (uint32_t i = 0; i < 8; i++) {
        CHECK(q2_slice_word(slices[i], 1) == word_of(META_L2_OFFSET + i * SLICE, 1));
        q2_l2_put(&meta.s, slices[i]);
    }
    q2_leave(&meta.s, token);
    return 0;
}

static void test_pinned_stay(void **state)
{
    struct q2_slice *slices[8];
    uint64_t word;

    fake_do(pin_run, slices);
    assert_int_equal(meta_get(META_L2_OFFSET + 9 * SLICE, 0, &word), 0);
    assert_int_equal(meta.s.l2.count, SLICES); /* it came down again */
}

/* Dirty ones are committed, all at once, when they leave no place for others. */
static void test_dirty_are_committed(void **state)
{
    uint64_t word;

    for (uint32_t i = 0; i < 12; i++) {
        assert_int_equal(meta_set(META_L2_OFFSET + i * SLICE, 7, 0xabc000 + i), 0);
        assert_true(meta.s.l2.count <= SLICES);
    }
    assert_true(meta.n > 0);
    for (uint32_t i = 0; i < 12; i++) {
        assert_int_equal(meta_get(META_L2_OFFSET + i * SLICE, 7, &word), 0);
        assert_int_equal(word, 0xabc000 + i);
    }
}

/* The file cannot be written: reads go on, with what little is clean or beyond the size. */
static void test_commit_fails_reads_go_on(void **state)
{
    uint64_t word;

    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(meta_set(META_L2_OFFSET + i * SLICE, 7, 0xabc000 + i), 0);
    }
    meta.fail_at = 1;
    meta.fail_forever = true;
    for (uint32_t i = 4; i < 12; i++) {
        assert_int_equal(meta_get(META_L2_OFFSET + i * SLICE, 7, &word), 0);
        assert_int_equal(word, word_of(META_L2_OFFSET + i * SLICE, 7));
    }
    assert_true(meta.s.l2.count <= 2 * SLICES);
    assert_int_equal(meta.s.l2.dirty_count, 4);
    meta_log_clear();
    assert_int_equal(meta_commit(false), 0);
    assert_int_equal(meta_file_word(META_L2_OFFSET + 7 * 8), 0xabc000);
}

static void test_clean(void **state)
{
    uint64_t word;

    assert_int_equal(meta_get(META_L2_OFFSET, 0, &word), 0);
    assert_int_equal(meta_set(META_L2_OFFSET + SLICE, 0, 1), 0);
    q2_l2_clean(&meta.s);
    assert_int_equal(meta.s.l2.count, 2); /* used since the last time */
    q2_l2_clean(&meta.s);
    assert_int_equal(meta.s.l2.count, 1);
    assert_non_null(q2_l2_find(&meta.s, META_L2_OFFSET + SLICE)); /* dirty */
}

/* ---- tables ---- */

struct table {
    uint64_t offset;
    uint64_t from;
};

static int table_run(void *opaque)
{
    const struct table *t = opaque;
    q2_token token = q2_enter_co(&meta.s);
    int ret = q2_l2_new_table_co(&meta.s, t->offset, t->from);

    q2_leave(&meta.s, token);
    return ret;
}

static void test_new_table(void **state)
{
    struct table zero = {8 * META_CLUSTER, 0};
    struct table copy = {9 * META_CLUSTER, META_L2_OFFSET};
    uint64_t word;

    /* one slice of the source is newer than the file */
    assert_int_equal(meta_set(META_L2_OFFSET + SLICE, 5, 0x77), 0);
    assert_int_equal(fake_do(table_run, &zero), 0);
    assert_int_equal(fake_do(table_run, &copy), 0);
    assert_int_equal(meta_commit(false), 0);
    for (uint32_t at = 0; at < META_CLUSTER; at += 8) {
        assert_int_equal(meta_file_word(8 * META_CLUSTER + at), 0);
        assert_int_equal(meta_file_word(9 * META_CLUSTER + at),
                         at == SLICE + 5 * 8 ? 0x77 : word_of(META_L2_OFFSET + at, 0));
    }
    assert_int_equal(meta_get(9 * META_CLUSTER, 2, &word), 0);
    assert_int_equal(word, word_of(META_L2_OFFSET, 2));
}

/* What the cache still has of a table that was at the same place does not show through. */
static void test_new_table_over_stale(void **state)
{
    struct table zero = {META_L2_OFFSET, 0};
    uint64_t word;

    assert_int_equal(meta_set(META_L2_OFFSET, 5, 0x77), 0);
    assert_int_equal(meta_get(META_L2_OFFSET + SLICE, 2, &word), 0);
    assert_int_equal(fake_do(table_run, &zero), 0);
    assert_int_equal(meta.s.l2.count, META_CLUSTER / SLICE);
    assert_int_equal(meta_get(META_L2_OFFSET, 5, &word), 0);
    assert_int_equal(word, 0);
    assert_int_equal(meta_commit(false), 0);
    assert_int_equal(meta_file_word(META_L2_OFFSET + SLICE + 2 * 8), 0);
}

static void test_new_table_fails(void **state)
{
    struct table copy = {9 * META_CLUSTER, META_L2_OFFSET};
    uint64_t used = fake_pl.budget.used_bytes;

    meta.file.f.read_error = -EIO;
    assert_int_equal(fake_do(table_run, &copy), -EIO);
    meta.file.f.read_error = 0;
    assert_int_equal(meta.s.l2.count, 0);
    assert_int_equal(fake_pl.budget.used_bytes, used);
}

static void test_drop_table(void **state)
{
    uint64_t word;

    assert_int_equal(meta_set(META_L2_OFFSET, 5, 0x77), 0);
    assert_int_equal(meta_get(META_L2_OFFSET + SLICE, 2, &word), 0);
    q2_l2_drop_table(&meta.s, META_L2_OFFSET);
    assert_int_equal(meta.s.l2.count, 0);
    assert_int_equal(meta.s.l2.dirty_count, 0);
    assert_int_equal(meta_commit(false), 0);
    assert_int_equal(meta.n, 0);
    assert_int_equal(meta_get(META_L2_OFFSET, 5, &word), 0);
    assert_int_equal(word, word_of(META_L2_OFFSET, 5));
    q2_l2_drop_all(&meta.s);
    assert_int_equal(meta.s.l2.count, 0);
}

static int drop_pinned_run(void *opaque)
{
    q2_token token = q2_enter_co(&meta.s);
    struct q2_slice *slice;
    uint64_t word = 0x99;

    CHECK(q2_l2_get_co(&meta.s, META_L2_OFFSET, &slice) == 0);
    q2_l2_drop_table(&meta.s, META_L2_OFFSET);
    CHECK(q2_l2_find(&meta.s, META_L2_OFFSET) == NULL);
    q2_l2_set_co(&meta.s, slice, 0, &word, 1); /* into the void */
    q2_l2_put(&meta.s, slice);
    CHECK(q2_slice_word(slice, 0) == 0x99); /* still inside */
    q2_leave(&meta.s, token);
    return 0;
}

static void test_drop_pinned(void **state)
{
    uint64_t used = fake_pl.budget.used_bytes;

    fake_do(drop_pinned_run, NULL);
    assert_int_equal(meta.s.l2.count, 0);
    assert_int_equal(meta.s.l2.dirty_count, 0);
    assert_int_equal(fake_pl.budget.used_bytes, used);
}

/* No memory for more: the request fails, but something goes, and the next one has it. */
static void test_budget(void **state)
{
    uint64_t word;

    assert_int_equal(meta_get(META_L2_OFFSET, 0, &word), 0);
    assert_int_equal(meta_get(META_L2_OFFSET + SLICE, 0, &word), 0);
    fake_pl.budget.limit_bytes = fake_pl.budget.used_bytes;
    assert_int_equal(meta_get(META_L2_OFFSET + 2 * SLICE, 0, &word), -ENOMEM);
    assert_int_equal(meta.s.l2.count, 1);
    assert_int_equal(meta_get(META_L2_OFFSET + 2 * SLICE, 0, &word), 0);
    fake_pl.budget.limit_bytes = UINT64_C(1) << 30;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_get, setup, teardown),
        cmocka_unit_test_setup_teardown(test_past_the_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_read_error, setup, teardown),
        cmocka_unit_test_setup_teardown(test_load_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_evicts_clean, setup, teardown),
        cmocka_unit_test_setup_teardown(test_second_chance, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pinned_stay, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dirty_are_committed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_commit_fails_reads_go_on, setup, teardown),
        cmocka_unit_test_setup_teardown(test_clean, setup, teardown),
        cmocka_unit_test_setup_teardown(test_new_table, setup, teardown),
        cmocka_unit_test_setup_teardown(test_new_table_over_stale, setup, teardown),
        cmocka_unit_test_setup_teardown(test_new_table_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_drop_table, setup, teardown),
        cmocka_unit_test_setup_teardown(test_drop_pinned, setup, teardown),
        cmocka_unit_test_setup_teardown(test_budget, setup, teardown),
    };

    return cmocka_run_group_tests_name("qcow2-l2-cache", tests, NULL, NULL);
}
