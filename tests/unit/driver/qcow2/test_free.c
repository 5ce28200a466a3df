/* SPDX-License-Identifier: MIT */
/* Freed clusters: lowered only after the commit (W4) and the grace period (W5); runs, discards,
 * failures. */
#include "cmocka_all.h"

#include "meta_fake.h"

#define CLUSTER(n) ((uint64_t)(n)*META_CLUSTER)

static struct qcow2 *const s = &meta.s;

static int setup(void **state)
{
    meta_init(4096, 64, 8);
    for (unsigned i = 0; i < META_CLUSTERS; i++) {
        meta.refcount[i] = 1;
    }
    return 0;
}

static int teardown(void **state)
{
    meta_fini();
    return 0;
}

static int free_run(void *opaque)
{
    q2_free_run_co(s);
    return 0;
}
static void run(void)
{
    fake_do(free_run, NULL);
}
static int free_all(void *opaque)
{
    return q2_free_all_co(s);
}
static int enter_run(void *opaque)
{
    *(q2_token *)opaque = q2_enter_co(s);
    return 0;
}

static void test_after_the_commit(void **state)
{
    q2_free_later(s, CLUSTER(9), META_CLUSTER, Q2_DISCARD_REQUEST);
    assert_false(q2_free_due(s));
    run();
    assert_int_equal(meta.refcount[9], 1);
    assert_int_equal(meta_commit(true), 0);
    assert_true(q2_free_due(s));
    assert_int_equal(meta.refcount[9], 1);
    run();
    assert_int_equal(meta.refcount[9], 0);
    assert_false(q2_free_due(s));
    assert_true(meta.refs_dirty);
}

static void test_after_the_grace_period(void **state)
{
    q2_token inside;

    fake_do(enter_run, &inside);
    q2_free_later(s, CLUSTER(9), META_CLUSTER, Q2_DISCARD_REQUEST);
    assert_int_equal(meta_commit(true), 0);
    assert_false(q2_free_due(s));
    q2_free_later(s, CLUSTER(20), META_CLUSTER, Q2_DISCARD_REQUEST);
    assert_int_equal(meta_commit(true), 0); /* waits for the next period */
    run();
    assert_int_equal(meta.refcount[9], 1);
    q2_leave(s, inside);
    assert_true(q2_free_due(s));
    run();
    assert_int_equal(meta.refcount[9], 0);
    assert_int_equal(meta.refcount[20], 0);
}

static void test_commit_fails(void **state)
{
    q2_free_later(s, CLUSTER(9), META_CLUSTER, Q2_DISCARD_REQUEST);
    assert_int_equal(meta_set(META_L2_OFFSET, 1, 0), 0);
    meta.fail_at = 3;
    assert_int_equal(meta_commit(true), -EIO);
    assert_false(q2_free_due(s));
    assert_int_equal(s->freed.waiting_bytes, META_CLUSTER);
    assert_int_equal(s->freed.waiting_runs, 1);
    meta_log_clear();
    assert_int_equal(meta_commit(true), 0);
    run();
    assert_int_equal(meta.refcount[9], 0);
}

/* What comes while a commit runs waits for the next. */
static void test_during_a_commit(void **state)
{
    struct fake_run commit;
    bool flush = true;

    meta.file.f.suspend = 5;
    q2_free_later(s, CLUSTER(9), META_CLUSTER, Q2_DISCARD_REQUEST);
    fake_start(&commit, meta_commit_run, &flush);
    assert_int_equal(meta.n, 1);
    q2_free_later(s, CLUSTER(10), META_CLUSTER, Q2_DISCARD_REQUEST);
    assert_int_equal(fake_wait(&commit), 0);
    run();
    assert_int_equal(meta.refcount[9], 0);
    assert_int_equal(meta.refcount[10], 1);
    assert_int_equal(meta_commit(true), 0);
    run();
    assert_int_equal(meta.refcount[10], 0);
}

/* ---- runs ---- */

static void test_joined(void **state)
{
    q2_free_later(s, CLUSTER(10), META_CLUSTER, Q2_DISCARD_REQUEST);
    q2_free_later(s, CLUSTER(11), 2 * META_CLUSTER, Q2_DISCARD_REQUEST);
    q2_free_later(s, CLUSTER(9), META_CLUSTER, Q2_DISCARD_REQUEST);
    assert_int_equal(s->freed.waiting_runs, 1);
    q2_free_later(s, CLUSTER(13), META_CLUSTER, Q2_DISCARD_SNAPSHOT);
    q2_free_later(s, CLUSTER(15), META_CLUSTER, Q2_DISCARD_SNAPSHOT);
    assert_int_equal(s->freed.waiting_runs, 3);
    assert_int_equal(s->freed.waiting_bytes, 6 * META_CLUSTER);
    q2_free_later(s, CLUSTER(16), 0, Q2_DISCARD_SNAPSHOT);
    assert_int_equal(s->freed.waiting_runs, 3);
    assert_int_equal(meta_commit(true), 0);
    run();
    assert_int_equal(meta.dropped, 3);
    for (unsigned i = 9; i <= 15; i++) {
        assert_int_equal(meta.refcount[i], i == 14);
    }
}

/* Each piece of compressed data counts once in every cluster that it touches. */
static void test_compressed_share(void **state)
{
    meta.refcount[9] = 3;
    meta.refcount[10] = 2;
    q2_free_later(s, CLUSTER(9), 1000, Q2_DISCARD_REQUEST);
    q2_free_later(s, CLUSTER(9) + 1000, 3000, Q2_DISCARD_REQUEST);
    q2_free_later(s, CLUSTER(9) + 60000, 10000, Q2_DISCARD_REQUEST);
    assert_int_equal(s->freed.waiting_runs, 3);
    assert_int_equal(meta_commit(true), 0);
    run();
    assert_int_equal(meta.refcount[9], 0);
    assert_int_equal(meta.refcount[10], 1);
}

/* Entries of an L2 table. A compressed one with 64 KiB clusters: offset in bits 0-53, sectors less
 * one in bits 54-61. */
static void test_entries(void **state)
{
    uint64_t compressed = Q2_COMPRESSED | UINT64_C(3) << 54 | (CLUSTER(12) - 700);

    q2_free_entry_later(s, 0, Q2_DISCARD_REQUEST);
    q2_free_entry_later(s, Q2_ZERO, Q2_DISCARD_REQUEST);
    q2_free_entry_later(s, CLUSTER(9) + 512, Q2_DISCARD_REQUEST); /* impossible: leaks */
    assert_int_equal(s->freed.waiting_runs, 0);
    q2_free_entry_later(s, Q2_COPIED | CLUSTER(9) | Q2_ZERO, Q2_DISCARD_REQUEST);
    q2_free_entry_later(s, compressed, Q2_DISCARD_REQUEST);
    assert_int_equal(s->freed.waiting_runs, 2);
    /* from 700 bytes before the cluster's end, sectors from 1024 before it to 1024 after it */
    assert_int_equal(s->freed.waiting_bytes, META_CLUSTER + 1724);
    assert_int_equal(meta_commit(true), 0);
    run();
    assert_int_equal(meta.refcount[9], 0);
    assert_int_equal(meta.refcount[11], 0);
    assert_int_equal(meta.refcount[12], 0);
    s->geo.external_data = true;
    q2_free_entry_later(s, Q2_COPIED | CLUSTER(20), Q2_DISCARD_REQUEST);
    assert_int_equal(s->freed.waiting_runs, 0);
}

/* So many wait that they are worth a commit. */
static void test_many(void **state)
{
    for (uint64_t i = 0; i <= 4096; i++) {
        assert_false(q2_free_due(s));
        q2_free_later(s, CLUSTER(4000) - i * 2 * 8, 1, Q2_DISCARD_REQUEST);
    }
    assert_true(q2_free_due(s));
    meta.drop_ret = -EINVAL;
    run();
    assert_int_equal(meta.dropped, 4097);
    assert_false(q2_free_due(s));
    meta.drop_ret = 0;
    q2_free_later(s, CLUSTER(10), CLUSTER(1025), Q2_DISCARD_REQUEST); /* above 64 MiB */
    assert_true(q2_free_due(s));
    run();
    assert_int_equal(meta.refcount[10], 0);
    assert_int_equal(meta.refcount[1034], 0);
}

/* The commit fails: not each request tries again, but one after as many more. */
static void test_many_fail(void **state)
{
    q2_free_later(s, CLUSTER(10), CLUSTER(1025), Q2_DISCARD_REQUEST);
    assert_int_equal(meta_set(META_L2_OFFSET, 1, 0), 0);
    meta.fail_at = 1;
    run();
    assert_int_equal(meta.n, 1);
    assert_false(q2_free_due(s));
    q2_free_later(s, CLUSTER(2000), META_CLUSTER, Q2_DISCARD_REQUEST);
    assert_false(q2_free_due(s));
    q2_free_later(s, CLUSTER(2001), CLUSTER(1024), Q2_DISCARD_REQUEST);
    assert_true(q2_free_due(s));
    meta_log_clear();
    run();
    assert_int_equal(meta.refcount[10], 0);
    assert_int_equal(meta.refcount[2001], 0);
}

/* ---- lowering ---- */

static void test_drop_fails(void **state)
{
    q2_free_later(s, CLUSTER(10), META_CLUSTER, Q2_DISCARD_REQUEST);
    q2_free_later(s, CLUSTER(12), META_CLUSTER, Q2_DISCARD_REQUEST);
    assert_int_equal(meta_commit(true), 0);
    meta.drop_ret = -EIO;
    run();
    assert_int_equal(meta.dropped, 2); /* the second is tried all the same */
    assert_false(q2_free_due(s));      /* they leak */
    assert_int_equal(meta.refcount[10], 1);
}

static void look_at_count(struct meta *m, const struct meta_event *e)
{
    CHECK(e->what == META_DISCARD && m->refcount[e->offset / META_CLUSTER] == 1);
}

/* Discarded while nobody else can have the clusters. */
static void test_discard(void **state)
{
    s->opt.discard[Q2_DISCARD_SNAPSHOT] = true;
    meta.refcount[11] = 2;
    q2_free_later(s, CLUSTER(9), 4 * META_CLUSTER, Q2_DISCARD_SNAPSHOT);
    q2_free_later(s, CLUSTER(14), META_CLUSTER, Q2_DISCARD_REQUEST);
    assert_int_equal(meta_commit(true), 0);
    meta_log_clear();
    meta.on_event = look_at_count;
    run();
    meta.on_event = NULL;
    assert_true(META_IS(META_DISCARD, META_DISCARD));
    assert_int_equal(meta.log[0].offset, CLUSTER(9));
    assert_int_equal(meta.log[0].bytes, 2 * META_CLUSTER);
    assert_int_equal(meta.log[1].offset, CLUSTER(12));
    for (unsigned i = 9; i < 13; i++) {
        assert_int_equal(meta.refcount[i], i == 11);
    }
}

static void test_all_of_it(void **state)
{
    q2_token inside;

    fake_do(enter_run, &inside); /* keeps them in their grace period */
    q2_free_later(s, CLUSTER(9), META_CLUSTER, Q2_DISCARD_REQUEST);
    assert_int_equal(meta_commit(true), 0);
    q2_free_later(s, CLUSTER(11), META_CLUSTER, Q2_DISCARD_REQUEST);
    assert_int_equal(meta_commit(true), 0);
    q2_free_later(s, CLUSTER(13), META_CLUSTER, Q2_DISCARD_REQUEST);
    meta_log_clear();
    assert_int_equal(fake_do(free_all, NULL), 0);
    for (unsigned i = 9; i <= 13; i += 2) {
        assert_int_equal(meta.refcount[i], 0);
    }
    assert_true(META_IS(META_REFBLOCKS, META_FLUSH_FILE)); /* lowered in the file too */
    q2_leave(s, inside);
    assert_false(q2_free_due(s));
}

static void test_all_fails(void **state)
{
    q2_free_later(s, CLUSTER(9), META_CLUSTER, Q2_DISCARD_REQUEST);
    assert_int_equal(meta_set(META_L2_OFFSET, 1, 0), 0);
    meta.fail_at = 2;
    assert_int_equal(fake_do(free_all, NULL), -EIO);
    assert_int_equal(meta.refcount[9], 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_after_the_commit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_after_the_grace_period, setup, teardown),
        cmocka_unit_test_setup_teardown(test_commit_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_during_a_commit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_joined, setup, teardown),
        cmocka_unit_test_setup_teardown(test_compressed_share, setup, teardown),
        cmocka_unit_test_setup_teardown(test_entries, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_fail, setup, teardown),
        cmocka_unit_test_setup_teardown(test_drop_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_discard, setup, teardown),
        cmocka_unit_test_setup_teardown(test_all_of_it, setup, teardown),
        cmocka_unit_test_setup_teardown(test_all_fails, setup, teardown),
    };

    return cmocka_run_group_tests_name("qcow2-free", tests, NULL, NULL);
}
