/* SPDX-License-Identifier: MIT */
/* Drained sections: who is told, that it nests, and that edges that come or go keep it right. */
#include "fake.h"

#define READ BDRV_PERM_CONSISTENT_READ
#define ALL BDRV_PERM_ALL

static BdrvEdge *attach(BlockDriverState *bs, struct fake_user *user)
{
    BdrvEdge *edge = bdrv_root_attach(bs, "root", &fake_user_class, user, READ, ALL, NULL);

    assert_non_null(edge);
    return edge;
}

static void test_nested(void **state)
{
    BlockDriverState *top = fake_open(*state, "driver=pass,file.driver=raw,file.file.filename=x");
    BlockDriverState *raw = bdrv_get_child(top, "file");
    BlockDriverState *file = bdrv_get_child(raw, "file");
    struct fake_user a = {.name = "a"}, b = {.name = "b"};
    BdrvEdge *ea = attach(top, &a);
    BdrvEdge *eb = attach(file, &b);

    a.busy = 3;
    bdrv_drained_begin(file);
    assert_int_equal(a.busy, 0); /* waited for */
    assert_int_equal(a.quiesced, 1);
    assert_int_equal(b.quiesced, 1);
    bdrv_drained_begin(top);
    bdrv_drained_begin(file);
    assert_int_equal(a.quiesced, 1);
    bdrv_drained_end(file);
    bdrv_drained_end(file);
    assert_int_equal(a.quiesced, 1);
    assert_int_equal(b.quiesced, 0); /* top is not below b */
    bdrv_drained_end(top);
    assert_int_equal(a.quiesced, 0);
    bdrv_root_detach(ea);
    bdrv_root_detach(eb);
    bdrv_unref(top);
}

static void test_new_parents(void **state)
{
    BlockDriverState *file = fake_open(*state, "driver=file,filename=x,node-name=n");
    BlockDriverState *raw;
    struct fake_user a = {.name = "a"}, b = {.name = "b"};
    BdrvEdge *ea, *eb;

    bdrv_drained_begin(file);
    raw = fake_open(*state, "driver=raw,file=n");
    ea = attach(raw, &a);
    eb = attach(file, &b);
    assert_int_equal(a.quiesced, 1);
    assert_int_equal(b.quiesced, 1);
    bdrv_root_detach(eb);
    assert_int_equal(b.quiesced, 0);
    bdrv_drained_end(file);
    assert_int_equal(a.quiesced, 0);
    /* moving between drained and free nodes */
    bdrv_drained_begin(file);
    assert_int_equal(bdrv_root_replace(ea, file, NULL), 0);
    assert_int_equal(a.quiesced, 1);
    bdrv_drained_end(file);
    assert_int_equal(a.quiesced, 0);
    bdrv_root_detach(ea);
    bdrv_unref(raw);
    bdrv_unref(file);
}

/* A diamond is told once. */
static void test_diamond(void **state)
{
    BlockDriverState *file = fake_open(*state, "driver=file,filename=x,node-name=n");
    BlockDriverState *top = fake_open(*state, "driver=two,a.driver=raw,a.file=n,b=n");
    struct fake_user a = {.name = "a"};
    BdrvEdge *edge = attach(top, &a);

    a.begun = 0;
    bdrv_drained_begin(file);
    assert_int_equal(a.begun, 1);
    assert_int_equal(a.quiesced, 1);
    bdrv_drained_end(file);
    assert_int_equal(a.quiesced, 0);
    bdrv_root_detach(edge);
    bdrv_unref(top);
    bdrv_unref(file);
}

static void test_all(void **state)
{
    Platter *pl = *state;
    BlockDriverState *x = fake_open(pl, "driver=raw,file.filename=x");
    BlockDriverState *y;
    struct fake_user a = {.name = "a", .busy = 2}, b = {.name = "b"};
    BdrvEdge *ea = attach(x, &a);
    BdrvEdge *eb;

    a.busy = 2;
    bdrv_drain_all_begin(pl);
    assert_int_equal(a.busy, 0);
    assert_int_equal(a.quiesced, 1);
    y = fake_open(pl, "driver=raw,file.filename=y"); /* born drained */
    eb = attach(y, &b);
    assert_int_equal(b.quiesced, 1);
    bdrv_drain_all_begin(pl);
    bdrv_drain_all_end(pl);
    assert_int_equal(a.quiesced, 1);
    bdrv_root_detach(ea);
    bdrv_unref(x);
    assert_int_equal(a.quiesced, 0);
    bdrv_drain_all_end(pl);
    assert_int_equal(b.quiesced, 0);
    bdrv_root_detach(eb);
    bdrv_unref(y);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nested, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_new_parents, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_diamond, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_all, fake_setup, fake_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
