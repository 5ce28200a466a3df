/* SPDX-License-Identifier: MIT */
/* Commits: the order of all that reaches the file (W1 .. W4), what is written, failures, sharing,
 * lazy refcounts. */
#include "cmocka_all.h"

#include "driver/format/qcow2/l1.h"
#include "meta_fake.h"

#define SLICE 4096u
#define NEW_TABLE (8 * META_CLUSTER)

static struct qcow2 *const s = &meta.s;

static int setup(void **state)
{
    meta_init(SLICE, 64, 256);
    return 0;
}

static int teardown(void **state)
{
    meta_fini();
    return 0;
}

/* The coroutines that run go on until the record has n events. */
static void poll_until(unsigned n)
{
    while (meta.n < n) {
        aio_poll(fake_ctx, true);
    }
}

/* ---- order ---- */

static void test_nothing(void **state)
{
    assert_int_equal(meta_commit(false), 0);
    assert_int_equal(meta.n, 0);
    assert_int_equal(meta_commit(true), 0);
    assert_true(META_IS(META_FLUSH_FILE));
    meta_log_clear();
    s->data = &meta.data.edge;
    assert_int_equal(meta_commit(true), 0);
    assert_true(META_IS(META_FLUSH_DATA, META_FLUSH_FILE));
}

static void test_slice(void **state)
{
    assert_int_equal(meta_set(META_L2_OFFSET + SLICE, 3, 0x77000), 0);
    s->data = &meta.data.edge;
    assert_int_equal(meta_commit(false), 0);
    assert_true(META_IS(META_FLUSH_DATA, META_FLUSH_FILE, META_WRITE, META_FLUSH_FILE));
    assert_int_equal(meta.log[2].offset, META_L2_OFFSET + SLICE);
    assert_int_equal(meta.log[2].bytes, SLICE);
    assert_int_equal(meta_file_word(META_L2_OFFSET + SLICE + 3 * 8), 0x77000);
    assert_int_equal(s->l2.dirty_count, 0);
    meta_log_clear();
    assert_int_equal(meta_commit(false), 0);
    assert_int_equal(meta.n, 0);
}

static void test_refcounts_only(void **state)
{
    meta.refs_dirty = true;
    assert_int_equal(meta_commit(false), 0);
    assert_true(META_IS(META_REFBLOCKS, META_FLUSH_FILE));
    meta_log_clear();
    meta.table_dirty = true;
    assert_int_equal(meta_commit(true), 0);
    assert_true(META_IS(META_FLUSH_FILE, META_REFTABLE, META_FLUSH_FILE));
}

struct link {
    uint64_t table;
    uint32_t l1_index;
};

/* A new table, linked: what an allocating write does last. */
static int link_run(void *opaque)
{
    const struct link *l = opaque;
    q2_token token = q2_enter_co(s);
    int ret = q2_l2_new_table_co(s, l->table, 0);

    if (ret == 0) {
        ret = meta_set_co(l->table, 0, Q2_COPIED | (l->table + META_CLUSTER));
        q2_l1_set(s, l->l1_index, Q2_COPIED | l->table);
    }
    meta.refs_dirty = true;
    q2_leave(s, token);
    return ret;
}

static int link_table(uint64_t table, uint32_t l1_index)
{
    return fake_do(link_run, &(struct link){table, l1_index});
}

static void test_all(void **state)
{
    assert_int_equal(link_table(NEW_TABLE, 70), 0);
    meta.table_dirty = true;
    assert_int_equal(meta_commit(true), 0);
    assert_true(META_IS(META_REFBLOCKS, META_FLUSH_FILE, /* W1 */
                        META_REFTABLE, META_FLUSH_FILE,  /* W2 */
                        META_WRITE, META_FLUSH_FILE,     /* the table, in one piece: W3 */
                        META_WRITE, META_FLUSH_FILE));   /* the L1 sector: W4 */
    assert_int_equal(meta.log[4].offset, NEW_TABLE);
    assert_int_equal(meta.log[4].bytes, META_CLUSTER);
    assert_int_equal(meta.log[6].offset, META_L1_OFFSET + 512);
    assert_int_equal(meta.log[6].bytes, 512);
    assert_int_equal(meta_file_word(META_L1_OFFSET + 70 * 8), Q2_COPIED | NEW_TABLE);
    assert_int_equal(meta.overlaps, 2);
}

static void test_l1_only(void **state)
{
    q2_l1_set(s, 255, 0);
    q2_l1_set(s, 0, 0);
    q2_l1_set(s, 64, 0);
    assert_int_equal(meta_commit(false), 0);
    /* sectors 0 and 1 are neighbours */
    assert_true(META_IS(META_FLUSH_FILE, META_WRITE, META_WRITE, META_FLUSH_FILE));
    assert_int_equal(meta.log[1].offset, META_L1_OFFSET);
    assert_int_equal(meta.log[1].bytes, 1024);
    assert_int_equal(meta.log[2].offset, META_L1_OFFSET + 3 * 512);
}

static void test_overlap(void **state)
{
    assert_int_equal(meta_set(META_L2_OFFSET, 3, 0x77000), 0);
    meta.overlap_ret = -EIO;
    assert_int_equal(meta_commit(false), -EIO);
    assert_true(META_IS(META_FLUSH_FILE));
    assert_int_equal(s->l2.dirty_count, 1);
}

static void test_corrupt(void **state)
{
    assert_int_equal(meta_set(META_L2_OFFSET, 3, 0x77000), 0);
    atomic_store(&s->corrupt_told, true);
    assert_int_equal(meta_commit(true), -EIO);
    assert_int_equal(meta.n, 0);
    assert_int_equal(s->l2.dirty_count, 1);
}

/* ---- what is written is what was when the commit began ---- */

static void start_set(struct fake_run *run, struct meta_set *set, uint64_t key, uint32_t index,
                      uint64_t word)
{
    *set = (struct meta_set){key, index, word};
    fake_start(run, meta_set_run, set);
}

static void test_frozen(void **state)
{
    struct fake_run commit, runs[3];
    struct meta_set sets[3];
    bool flush = false;
    uint64_t word;

    for (uint32_t i = 0; i < 3; i++) { /* not neighbours */
        assert_int_equal(meta_set(META_L2_OFFSET + 2 * i * SLICE, 1, 0x100 + i), 0);
    }
    meta.file.f.suspend = 5;
    fake_start(&commit, meta_commit_run, &flush);
    poll_until(1); /* in its first flush */
    start_set(&runs[0], &sets[0], META_L2_OFFSET, 1, 0x200);
    start_set(&runs[1], &sets[1], META_L2_OFFSET + 2 * SLICE, 1, 0x201);
    assert_true(runs[0].done && runs[1].done);                           /* no waiting: copied */
    assert_int_equal(meta_set(META_L2_OFFSET + 2 * SLICE, 2, 0x555), 0); /* once more */
    poll_until(2);
    assert_int_equal(meta_set(META_L2_OFFSET, 1, 0x300), 0); /* it is being written */
    assert_int_equal(fake_wait(&commit), 0);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(meta_file_word(META_L2_OFFSET + 2 * i * SLICE + 8), 0x100 + i);
    }
    assert_int_equal(meta_file_word(META_L2_OFFSET + 2 * SLICE + 16), 0x1000000 + 1024 + 2);
    assert_int_equal(s->l2.dirty_count, 2);
    assert_int_equal(meta_get(META_L2_OFFSET, 1, &word), 0);
    assert_int_equal(word, 0x300);
    assert_int_equal(meta_commit(false), 0);
    assert_int_equal(meta_file_word(META_L2_OFFSET + 8), 0x300);
    assert_int_equal(meta_file_word(META_L2_OFFSET + 2 * SLICE + 8), 0x201);
    assert_int_equal(meta_file_word(META_L2_OFFSET + 2 * SLICE + 16), 0x555);
}

/* No memory for a copy: the change waits until the slice is written. */
static void test_frozen_no_memory(void **state)
{
    struct fake_run commit, run;
    struct meta_set set;
    bool flush = false;

    assert_int_equal(meta_set(META_L2_OFFSET, 1, 0x100), 0);
    meta.file.f.suspend = 5;
    fake_start(&commit, meta_commit_run, &flush);
    poll_until(1);
    fake_pl.budget.limit_bytes = fake_pl.budget.used_bytes;
    start_set(&run, &set, META_L2_OFFSET, 1, 0x200);
    assert_false(run.done);
    fake_pl.budget.limit_bytes = UINT64_C(1) << 30;
    fake_wait(&run);
    assert_int_equal(fake_wait(&commit), 0);
    assert_int_equal(meta_file_word(META_L2_OFFSET + 8), 0x100);
    assert_int_equal(meta_commit(false), 0);
    assert_int_equal(meta_file_word(META_L2_OFFSET + 8), 0x200);
}

/* The same when the commit fails before it has come to the slice. */
static void test_frozen_no_memory_fails(void **state)
{
    struct fake_run commit, run;
    struct meta_set set;
    bool flush = false;

    assert_int_equal(meta_set(META_L2_OFFSET, 1, 0x100), 0);
    meta.file.f.suspend = 5;
    meta.file.f.flush_error = -EIO;
    fake_start(&commit, meta_commit_run, &flush);
    poll_until(1);
    fake_pl.budget.limit_bytes = fake_pl.budget.used_bytes;
    start_set(&run, &set, META_L2_OFFSET, 1, 0x200);
    assert_false(run.done);
    assert_int_equal(fake_wait(&commit), -EIO);
    fake_wait(&run);
    fake_pl.budget.limit_bytes = UINT64_C(1) << 30;
    meta.file.f.flush_error = 0;
    assert_int_equal(meta_commit(false), 0);
    assert_int_equal(meta_file_word(META_L2_OFFSET + 8), 0x200);
}

/* An L1 entry that comes during a commit refers to a table that this commit does not write. */
static void test_l1_comes_late(void **state)
{
    struct fake_run commit;
    bool flush = false;

    q2_l1_set(s, 70, 0);
    assert_int_equal(meta_set(META_L2_OFFSET, 1, 0x100), 0);
    meta.file.f.suspend = 5;
    fake_start(&commit, meta_commit_run, &flush);
    poll_until(1);
    assert_int_equal(link_table(NEW_TABLE, 71), 0);
    assert_int_equal(fake_wait(&commit), 0);
    assert_int_equal(meta_file_word(META_L1_OFFSET + 71 * 8), 0);
    assert_int_equal(meta_commit(false), 0);
    assert_int_equal(meta_file_word(META_L1_OFFSET + 71 * 8), Q2_COPIED | NEW_TABLE);
}

/* Tables that go while the commit writes, before and after their turn. */
static void test_dropped_meanwhile(void **state)
{
    for (unsigned at = 1; at <= 6; at++) {
        struct fake_run commit;
        bool flush = false;

        meta_log_clear();
        assert_int_equal(link_table(NEW_TABLE, 70), 0);
        assert_int_equal(meta_set(META_L2_OFFSET, 1, 0x100 + at), 0);
        meta.file.f.suspend = 5;
        fake_start(&commit, meta_commit_run, &flush);
        poll_until(at);
        q2_l1_set(s, 70, 0);
        q2_l2_drop_table(s, NEW_TABLE);
        assert_int_equal(fake_wait(&commit), 0);
        assert_int_equal(meta_file_word(META_L2_OFFSET + 8), 0x100 + at);
        assert_int_equal(meta_commit(false), 0);
        assert_int_equal(meta_file_word(META_L1_OFFSET + 70 * 8), 0);
        assert_int_equal(s->l2.dirty_count, 0);
    }
}

/* ---- failures ---- */

/* Each event fails in turn: the commit says so, W1 .. W3 hold for what was written, all that was
 * dirty is so still, and the next commit brings it all. */
static void test_failures(void **state)
{
    unsigned k;

    for (k = 1;; k++) {
        int ret;

        assert_int_equal(link_table(NEW_TABLE, 70), 0);
        assert_int_equal(meta_set(META_L2_OFFSET, 1, 0x100 + k), 0);
        meta.table_dirty = true;
        meta_log_clear();
        meta.fail_at = k;
        ret = meta_commit(true);
        if (ret == 0) {
            break;
        }
        assert_int_equal(ret, -EIO);
        assert_int_equal(meta.n, k); /* nothing after it */
        assert_int_equal(s->l2.dirty_count, 17);
        assert_int_equal(q2_l1_get(s)->dirty_sectors, 1);
        meta_log_clear();
        assert_int_equal(meta_commit(true), 0);
        assert_int_equal(meta_file_word(META_L2_OFFSET + 8), 0x100 + k);
        assert_int_equal(meta_file_word(META_L1_OFFSET + 70 * 8), Q2_COPIED | NEW_TABLE);
        assert_int_equal(meta_file_word(NEW_TABLE), Q2_COPIED | (NEW_TABLE + META_CLUSTER));
        assert_int_equal(s->l2.dirty_count, 0);
        assert_int_equal(q2_l1_get(s)->dirty_sectors, 0);
    }
    assert_int_equal(k, 10); /* refcount blocks, flush, table, flush, 2 slices, flush, L1, flush */
}

/* A change during a commit that fails is not lost, nor is what it was made of. */
static void test_changed_while_failing(void **state)
{
    struct fake_run commit;
    bool flush = false;

    assert_int_equal(meta_set(META_L2_OFFSET, 1, 0x100), 0);
    meta.file.f.suspend = 5;
    meta.fail_at = 3; /* the last flush */
    fake_start(&commit, meta_commit_run, &flush);
    poll_until(1);
    assert_int_equal(meta_set(META_L2_OFFSET, 2, 0x200), 0);
    assert_int_equal(fake_wait(&commit), -EIO);
    meta_log_clear();
    assert_int_equal(meta_commit(false), 0);
    assert_int_equal(meta_file_word(META_L2_OFFSET + 8), 0x100);
    assert_int_equal(meta_file_word(META_L2_OFFSET + 16), 0x200);
}

static void test_no_memory(void **state)
{
    assert_int_equal(link_table(NEW_TABLE, 70), 0);
    fake_pl.budget.limit_bytes = fake_pl.budget.used_bytes;
    assert_int_equal(meta_commit(false), -ENOMEM);
    fake_pl.budget.limit_bytes = fake_pl.budget.used_bytes + 512; /* the L1 sector fits */
    assert_int_equal(meta_commit(false), -ENOMEM);
    fake_pl.budget.limit_bytes = UINT64_C(1) << 30;
    assert_int_equal(meta_commit(false), 0);
    assert_int_equal(meta_file_word(META_L1_OFFSET + 70 * 8), Q2_COPIED | NEW_TABLE);
}

/* ---- sharing ---- */

static void share(int error)
{
    struct fake_run runs[6];
    bool flush = true;

    meta.file.f.suspend = 5;
    meta_log_clear();
    meta.fail_at = error != 0 ? 2 : 0;
    for (int i = 0; i < 6; i++) {
        fake_start(&runs[i], meta_commit_run, &flush);
    }
    for (int i = 0; i < 6; i++) {
        assert_int_equal(fake_wait(&runs[i]), i > 0 ? error : 0);
    }
    assert_true(META_IS(META_FLUSH_FILE, META_FLUSH_FILE)); /* one for the first, one for all */
}

static void test_share(void **state)
{
    share(0);
    share(-EIO);
    share(0);
}

/* A commit without flush does not serve one with. */
static void test_share_needs_flush(void **state)
{
    struct fake_run runs[3];
    bool with = true, without = false;

    meta.file.f.suspend = 5;
    fake_start(&runs[0], meta_commit_run, &with);
    fake_start(&runs[1], meta_commit_run, &without);
    fake_start(&runs[2], meta_commit_run, &with);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(fake_wait(&runs[i]), 0);
    }
    assert_true(META_IS(META_FLUSH_FILE, META_FLUSH_FILE));
}

/* ---- lazy refcounts ---- */

static void test_lazy(void **state)
{
    s->opt.lazy_refcounts = true;
    assert_int_equal(link_table(NEW_TABLE, 70), 0);
    meta.table_dirty = true;
    assert_int_equal(meta_commit(true), 0);
    assert_true(META_IS(META_DIRTY_SET, META_FLUSH_FILE, META_WRITE, META_FLUSH_FILE, META_WRITE,
                        META_FLUSH_FILE));
    assert_true(meta.refs_dirty);
    meta_log_clear();
    assert_int_equal(meta_set(META_L2_OFFSET, 1, 0x100), 0);
    assert_int_equal(meta_commit(false), 0);
    assert_true(META_IS(META_FLUSH_FILE, META_WRITE, META_FLUSH_FILE));
    meta_log_clear();
    assert_int_equal(meta_commit(false), 0); /* dirty refcounts alone are no reason */
    assert_int_equal(meta.n, 0);
    assert_int_equal(fake_do(meta_clean_run, NULL), 0);
    assert_true(
        META_IS(META_REFBLOCKS, META_FLUSH_FILE, META_REFTABLE, META_FLUSH_FILE, META_DIRTY_CLEAR));
    assert_int_equal(s->header.incompatible, 0);
    meta_log_clear();
    assert_int_equal(fake_do(meta_clean_run, NULL), 0);
    assert_true(META_IS(META_FLUSH_FILE));
}

static void test_lazy_fails(void **state)
{
    s->opt.lazy_refcounts = true;
    meta.refs_dirty = true;
    assert_int_equal(meta_set(META_L2_OFFSET, 1, 0x100), 0);
    meta.fail_at = 1;
    assert_int_equal(meta_commit(true), -EIO);
    assert_true(META_IS(META_DIRTY_SET)); /* no slice without the bit */
    meta_log_clear();
    assert_int_equal(meta_commit(true), 0);
    assert_true(META_IS(META_DIRTY_SET, META_FLUSH_FILE, META_WRITE, META_FLUSH_FILE));
    meta_log_clear();
    meta.fail_at = 1;
    assert_int_equal(fake_do(meta_clean_run, NULL), -EIO);
    assert_true(META_IS(META_REFBLOCKS)); /* the bit stays */
    assert_int_equal(s->header.incompatible, Q2_INCOMPAT_DIRTY);
}

static void test_lazy_version_2(void **state)
{
    s->opt.lazy_refcounts = true;
    s->geo.version = 2;
    meta.refs_dirty = true;
    assert_int_equal(meta_set(META_L2_OFFSET, 1, 0x100), 0);
    assert_int_equal(meta_commit(false), 0);
    assert_true(META_IS(META_REFBLOCKS, META_FLUSH_FILE, META_WRITE, META_FLUSH_FILE));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_slice, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refcounts_only, setup, teardown),
        cmocka_unit_test_setup_teardown(test_all, setup, teardown),
        cmocka_unit_test_setup_teardown(test_l1_only, setup, teardown),
        cmocka_unit_test_setup_teardown(test_overlap, setup, teardown),
        cmocka_unit_test_setup_teardown(test_corrupt, setup, teardown),
        cmocka_unit_test_setup_teardown(test_frozen, setup, teardown),
        cmocka_unit_test_setup_teardown(test_frozen_no_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_frozen_no_memory_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_l1_comes_late, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dropped_meanwhile, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failures, setup, teardown),
        cmocka_unit_test_setup_teardown(test_changed_while_failing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_share, setup, teardown),
        cmocka_unit_test_setup_teardown(test_share_needs_flush, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lazy, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lazy_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lazy_version_2, setup, teardown),
    };

    return cmocka_run_group_tests_name("qcow2-commit", tests, NULL, NULL);
}
