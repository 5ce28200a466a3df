/* SPDX-License-Identifier: MIT */
/* Every allocation of the metadata core fails once, and from then on: each call says -ENOMEM or
 * does without, nothing dirty is lost, and all memory comes back. */
#include "cmocka_all.h"

#include "driver/format/qcow2/l1.h"
#include "meta_fake.h"
#include "oom.h"
#include "util/error.h"

#define NEW_TABLE (8 * META_CLUSTER)

static struct qcow2 *const s = &meta.s;

/* What the steps reached. */
struct reached {
    bool linked;
    uint64_t word;      /* of the first table */
    uint64_t l1_offset; /* of the table that was grown */
};

static bool ok(int ret)
{
    CHECK(ret == 0 || ret == -ENOMEM);
    return ret == 0;
}

static void inside_steps_co(struct reached *r)
{
    q2_token token = q2_enter_co(s);

    if (ok(q2_l2_new_table_co(s, NEW_TABLE, 0))) {
        q2_l1_set(s, 70, Q2_COPIED | NEW_TABLE);
        r->linked = true;
    }
    if (ok(meta_set_co(META_L2_OFFSET, 1, 0x1000))) {
        r->word = 0x1000;
    }
    q2_free_later(s, 20 * META_CLUSTER, META_CLUSTER, Q2_DISCARD_REQUEST);
    q2_free_later(s, 30 * META_CLUSTER, META_CLUSTER, Q2_DISCARD_REQUEST);
    ok(q2_commit_co(s, true));
    if (ok(meta_set_co(META_L2_OFFSET, 1, 0x2000))) {
        r->word = 0x2000;
    }
    q2_leave(s, token);
    q2_free_run_co(s);
}

static int steps_run(void *opaque)
{
    struct reached *r = opaque;
    Error *err = NULL;

    inside_steps_co(r);
    q2_exclusive_begin_co(s);
    ok(q2_l1_grow_co(s, 10000, &err));
    q2_exclusive_end(s);
    r->l1_offset = s->header.l1_offset;
    oom_disarm();
    error_free(err);
    return 0;
}

static bool scenario(long nth, bool forever)
{
    struct reached r = {.word = 0x1000001};

    meta_init(4096, 64, 256);
    for (unsigned i = 20; i < 31; i++) {
        meta.refcount[i] = 1;
    }
    oom_arm(nth, forever);
    fake_do(steps_run, &r);
    oom_disarm();
    assert_int_equal(meta_commit(true), 0);
    assert_int_equal(meta_file_word(META_L2_OFFSET + 8), r.word);
    assert_int_equal(meta_file_word(r.l1_offset + 70 * 8), r.linked ? Q2_COPIED | NEW_TABLE : 0);
    assert_int_equal(meta_file_word(r.l1_offset), Q2_COPIED | META_L2_OFFSET);
    if (!oom_struck()) {
        assert_int_equal(q2_l1_get(s)->entries, 10000);
        assert_int_equal(meta.refcount[20], 0);
        assert_int_equal(meta.refcount[30], 0);
    }
    meta_fini(); /* the budget is whole again */
    return oom_struck();
}

static void run_all(bool forever)
{
    long n = 0;

    while (scenario(n, forever)) {
        n++;
    }
    assert_true(n > 20);
}

static void test_once(void **state)
{
    run_all(false);
}

static void test_forever(void **state)
{
    run_all(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_once),
        cmocka_unit_test(test_forever),
    };

    return cmocka_run_group_tests_name("qcow2-meta-oom", tests, NULL, NULL);
}
