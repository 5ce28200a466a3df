/* SPDX-License-Identifier: MIT */
/* Changes of a live graph: who is moved, what is refused and why, and that a refusal leaves nothing
 * behind. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <platter/graph.h>

#include "fake.h"

#include "block/graph_edit.h"
#include "util/error.h"

#define READ BDRV_PERM_CONSISTENT_READ
#define WRITE BDRV_PERM_WRITE
#define ALL BDRV_PERM_ALL

static BlockOptions *parsed(const char *text)
{
    BlockOptions *options = block_options_parse(text, NULL, NULL);

    assert_non_null(options);
    return options;
}

static void must(int rc, Error *err)
{
    if (rc != 0) {
        fail_msg("%s", error_get_pretty(err));
    }
}

/* Above: all users. Out again: they are where they were, and the filter is of no use to anybody. */
static void test_insert_above(void **state)
{
    BlockDriverState *x = fake_open(*state, "driver=raw,file.filename=x,node-name=x");
    struct fake_user a = {.name = "a"}, b = {.name = "b"};
    BdrvEdge *ea = fake_attach(x, &a, READ | WRITE, READ);
    BdrvEdge *eb = fake_attach(x, &b, READ, ALL);
    Error *err = NULL;
    BlockDriverState *f = bdrv_insert_filter(x, parsed("driver=pass,node-name=f"), NULL, 0, &err);

    must(f == NULL ? -1 : 0, err);
    assert_ptr_equal(ea->bs, f);
    assert_ptr_equal(eb->bs, f);
    assert_ptr_equal(f->file->bs, x);
    assert_int_equal(x->perm, READ | WRITE);
    assert_int_equal(x->shared, READ);
    assert_false(bdrv_is_read_only(f));
    assert_true(a.begun > 0 && b.begun > 0);
    assert_int_equal(a.quiesced + b.quiesced, 0);
    must(bdrv_remove_filter(f, &err), err);
    assert_ptr_equal(ea->bs, x);
    assert_ptr_equal(eb->bs, x);
    assert_ptr_equal(f->file->bs, x); /* needs nothing of it, so it is in nobody's way */
    assert_int_equal(f->file->perm, 0);
    assert_int_equal(f->file->shared, ALL);
    bdrv_unref(f);
    bdrv_root_detach(ea);
    bdrv_root_detach(eb);
    bdrv_unref(x);
}

/* Below a node, and for one user of several. */
static void test_insert_on_links(void **state)
{
    BlockDriverState *top =
        fake_open(*state, "driver=fmt,file.filename=x,file.node-name=x,node-name=top");
    BlockDriverState *x = bdrv_get_child(top, "file");
    struct fake_user a = {.name = "a"};
    struct bdrv_link below = {"top", "file"}, user = {"a", NULL};
    BdrvEdge *ea = fake_attach(x, &a, READ, ALL);
    Error *err = NULL;
    BlockDriverState *f = bdrv_insert_filter(x, parsed("driver=pass,node-name=f"), &below, 1, &err);
    BlockDriverState *g;

    must(f == NULL ? -1 : 0, err);
    assert_ptr_equal(bdrv_get_child(top, "file"), f);
    assert_ptr_equal(ea->bs, x);
    assert_int_equal(f->perm, READ | WRITE | BDRV_PERM_RESIZE);
    g = bdrv_insert_filter(x, parsed("driver=pass,node-name=g"), &user, 1, &err);
    must(g == NULL ? -1 : 0, err);
    assert_ptr_equal(ea->bs, g);
    assert_ptr_equal(f->file->bs, x);
    must(bdrv_remove_filter(g, &err), err);
    must(bdrv_remove_filter(f, &err), err);
    assert_ptr_equal(bdrv_get_child(top, "file"), x);
    bdrv_unref(f);
    bdrv_unref(g);
    bdrv_root_detach(ea);
    bdrv_unref(top);
}

static void insert_fails(BlockDriverState *bs, const char *options, const struct bdrv_link *links,
                         size_t n_links, int err_no, const char *piece)
{
    Error *err = NULL;
    int refs = bdrv_get_refcnt(bs);

    assert_null(
        bdrv_insert_filter(bs, options != NULL ? parsed(options) : NULL, links, n_links, &err));
    fake_expect_error(err, err_no, piece);
    assert_int_equal(bdrv_get_refcnt(bs), refs);
    assert_null(bdrv_find_node(bs->pl, "f"));
    assert_int_equal(bs->quiesce_count, 0);
}

static void test_insert_refused(void **state)
{
    BlockDriverState *x = fake_open(*state, "driver=raw,file.filename=x,node-name=x");
    BlockDriverState *ro = fake_open(*state, "driver=raw,file.filename=y,node-name=y");
    struct fake_user a = {.name = "a"}, none = {.name = ""};
    BdrvEdge *ea = fake_attach(x, &a, READ | WRITE, ALL);
    BdrvEdge *again = fake_attach(x, &a, READ, ALL);
    BdrvEdge *anon = fake_attach(x, &none, READ, ALL);
    const struct {
        const char *options;
        struct bdrv_link link;
        int err_no;
        const char *piece;
    } table[] = {
        {NULL, {"a", "root"}, EINVAL, "No driver"},
        {"node-name=f", {"a", "root"}, EINVAL, "No driver"},
        {"driver=pass,node-name=f,file=y", {"a", "root"}, EINVAL, "another 'file'"},
        {"driver=pass,node-name=f,file.filename=z", {"a", "root"}, EINVAL, "another 'file'"},
        {"driver=nonsense,node-name=f", {"a", "root"}, EINVAL, "nonsense"},
        {"driver=pass,node-name=f,iops=3", {"a", "root"}, EINVAL, "iops"},
        {"driver=pass,node-name=y", {"a", "root"}, EEXIST, "'y'"},
        {"driver=raw,node-name=f", {"a", "root"}, EINVAL, "not a filter"},
        {"driver=pass,node-name=f",
         {"nobody", "root"},
         ENOENT,
         "'nobody' does not use node 'x' as 'root'"},
        {"driver=pass,node-name=f", {"a", "file"}, ENOENT, "'a' does not use node 'x' as 'file'"},
        {"driver=pass,node-name=f", {"", "root"}, EINVAL, "without its user"},
        {"driver=pass,node-name=f", {NULL, NULL}, EINVAL, "without its user"},
        {"driver=pass,node-name=f", {"a", NULL}, EINVAL, "more than once"},
        {"driver=pass,node-name=f,read-only=on", {"n", "file"}, ENOENT, "'n'"},
    };

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        insert_fails(x, table[i].options, &table[i].link, 1, table[i].err_no, table[i].piece);
    }
    /* a writer cannot be moved to a read-only filter */
    insert_fails(x, "driver=pass,node-name=f,read-only=on", NULL, 0, EPERM, "read-only");
    assert_ptr_equal(ea->bs, x);
    assert_ptr_equal(again->bs, x);
    assert_ptr_equal(anon->bs, x);
    bdrv_root_detach(ea);
    bdrv_root_detach(again);
    bdrv_root_detach(anon);
    bdrv_unref(x);
    bdrv_unref(ro);
}

/* A node over another one, and one that is no filter. */
static void test_insert_node_refused(void **state)
{
    BlockDriverState *x = fake_open(*state, "driver=raw,file.filename=x,node-name=x");
    BlockDriverState *y = fake_open(*state, "driver=raw,file.filename=y,node-name=y");
    BlockDriverState *f = fake_open(*state, "driver=pass,file=x,node-name=f");
    Error *err = NULL;

    assert_int_equal(bdrv_insert_node(f, y, NULL, 0, &err), -EINVAL);
    fake_expect_error(err, EINVAL, "Filter 'f' stands over node 'x', not over 'y'");
    err = NULL;
    assert_int_equal(bdrv_insert_node(x, y, NULL, 0, &err), -EINVAL);
    fake_expect_error(err, EINVAL, "Node 'x' (driver 'raw') is not a filter");
    err = NULL;
    assert_int_equal(bdrv_remove_filter(y, &err), -EINVAL);
    fake_expect_error(err, EINVAL, "Node 'y' (driver 'raw') is not a filter");
    err = NULL;
    assert_int_equal(bdrv_replace_node(y, y, &err), -EINVAL);
    fake_expect_error(err, EINVAL, "'y' cannot replace itself");
    bdrv_unref(f);
    bdrv_unref(x);
    bdrv_unref(y);
}

static void test_blocked(void **state)
{
    BlockDriverState *x = fake_open(*state, "driver=raw,file.filename=x,node-name=x");
    BlockDriverState *y = fake_open(*state, "driver=raw,file.filename=y,node-name=y");
    BlockDriverState *f = fake_open(*state, "driver=pass,file=x,node-name=f");
    struct fake_user a = {.name = "a"};
    BdrvEdge *edge = fake_attach(x, &a, READ, ALL);
    Error *err = NULL, *reason = NULL;

    error_set(&reason, EBUSY, "a test is at work");
    assert_int_equal(bdrv_op_block(&x->op_blockers, 1u << BLOCK_OP_TYPE_REPLACE, reason), 0);
    assert_int_equal(bdrv_op_block(&f->op_blockers, 1u << BLOCK_OP_TYPE_REPLACE, reason), 0);
    assert_int_equal(bdrv_insert_node(f, x, NULL, 0, &err), -EBUSY);
    fake_expect_error(err, EBUSY, "Node 'x' is busy: a test is at work");
    err = NULL;
    assert_int_equal(bdrv_replace_node(x, y, &err), -EBUSY);
    fake_expect_error(err, EBUSY, "a test is at work");
    err = NULL;
    assert_int_equal(bdrv_remove_filter(f, &err), -EBUSY);
    fake_expect_error(err, EBUSY, "Node 'f' is busy");
    bdrv_op_blockers_free(&x->op_blockers);
    bdrv_op_blockers_free(&f->op_blockers);
    err = NULL;
    edge->frozen = true;
    assert_int_equal(bdrv_replace_node(x, y, &err), -EBUSY);
    fake_expect_error(err, EBUSY, "user 'a'");
    edge->frozen = false;
    assert_ptr_equal(edge->bs, x);
    error_free(reason);
    bdrv_root_detach(edge);
    bdrv_unref(f);
    bdrv_unref(x);
    bdrv_unref(y);
}

/* Users hear of another size; a cycle is not made: what stands above from keeps it. */
static void test_replace(void **state)
{
    BlockDriverState *x = fake_open(*state, "driver=raw,file.filename=x,node-name=x");
    BlockDriverState *y;
    BlockDriverState *f = fake_open(*state, "driver=pass,file=x,node-name=f");
    struct fake_user a = {.name = "a"}, b = {.name = "b"};
    BdrvEdge *ea = fake_attach(x, &a, READ, ALL), *eb;
    Error *err = NULL;

    fake.size = FAKE_FILE_BYTES / 2;
    y = fake_open(*state, "driver=raw,file.filename=y,node-name=y");
    must(bdrv_replace_node(x, y, &err), err);
    assert_ptr_equal(ea->bs, y);
    assert_ptr_equal(f->file->bs, y);
    assert_int_equal(bdrv_getlength(f), FAKE_FILE_BYTES / 2);
    assert_int_equal(a.resized, 1);
    must(bdrv_replace_node(y, f, &err), err); /* f is above y */
    assert_ptr_equal(ea->bs, f);
    assert_ptr_equal(f->file->bs, y);
    assert_int_equal(a.resized, 1);
    eb = fake_attach(x, &b, READ | WRITE, READ);
    assert_int_equal(bdrv_replace_node(f, x, &err), 0);
    assert_ptr_equal(ea->bs, x);
    bdrv_root_detach(ea);
    ea = fake_attach(y, &a, READ, READ); /* does not share what b needs */
    assert_int_equal(bdrv_replace_node(x, y, &err), -EPERM);
    fake_expect_error(err, EPERM, "user 'a'");
    assert_ptr_equal(eb->bs, x);
    bdrv_root_detach(ea);
    bdrv_root_detach(eb);
    bdrv_unref(f);
    bdrv_unref(x);
    bdrv_unref(y);
}

/* Flushes do not reach what is below an overlay: it is made safe before. */
static void test_append_flushes(void **state)
{
    BlockDriverState *base =
        fake_open(*state, "driver=cow,file.driver=file,file.filename=base,node-name=base");
    BlockDriverState *overlay =
        fake_open(*state, "driver=cow,file.driver=file,file.filename=one,node-name=one");
    struct fake_user a = {.name = "a"};
    BdrvEdge *edge = fake_attach(base, &a, READ | WRITE, READ);
    Error *err = NULL;

    atomic_fetch_add(&base->file->bs->write_gen, 1); /* somebody wrote */
    fake.flushes = 0;
    fake.flush_error = -EIO;
    assert_int_equal(bdrv_append(overlay, base, &err), -EIO);
    fake_expect_error(err, EIO, "Could not flush node 'base' before its snapshot");
    err = NULL;
    assert_int_equal(fake.flushes, 1);
    assert_ptr_equal(edge->bs, base);
    assert_null(*overlay->backing_slot);
    fake.flush_error = 0;
    must(bdrv_append(overlay, base, &err), err);
    assert_int_equal(fake.flushes, 2);
    assert_ptr_equal(edge->bs, overlay);
    bdrv_root_detach(edge);
    bdrv_unref(overlay);
    bdrv_unref(base);
}

static void test_append(void **state)
{
    BlockDriverState *base =
        fake_open(*state, "driver=cow,file.driver=file,file.filename=base,node-name=base");
    BlockDriverState *one =
        fake_open(*state, "driver=cow,file.driver=file,file.filename=one,node-name=one");
    BlockDriverState *two =
        fake_open(*state, "driver=cow,file.driver=file,file.filename=two,node-name=two");
    BlockDriverState *raw = fake_open(*state, "driver=raw,file.filename=x,node-name=x");
    struct fake_user a = {.name = "a"};
    BdrvEdge *edge = fake_attach(base, &a, READ | WRITE, READ);
    struct graph_edit edits[2];
    Error *err = NULL;

    must(bdrv_append(one, base, &err), err);
    assert_ptr_equal(edge->bs, one);
    assert_ptr_equal(bdrv_get_child(one, "backing"), base);
    assert_ptr_equal((*one->backing_slot)->bs, base);
    assert_int_equal(base->perm, READ);
    assert_int_equal(bdrv_append(one, base, &err), -EINVAL);
    fake_expect_error(err, EINVAL, "The overlay is already in use");
    err = NULL;
    assert_int_equal(bdrv_append(raw, one, &err), -EINVAL);
    fake_expect_error(err, EINVAL, "The overlay does not support backing images");
    bdrv_root_detach(edge);
    err = NULL;
    assert_int_equal(bdrv_append(one, two, &err), -EINVAL);
    fake_expect_error(err, EINVAL, "The overlay already has a backing image");
    /* two of them, and back */
    edge = fake_attach(one, &a, READ | WRITE, READ);
    bdrv_drain_all_begin(*state);
    err = NULL;
    must(graph_edit_append(&edits[0], two, one, &err), err);
    assert_ptr_equal(edge->bs, two);
    must(graph_edit_replace(&edits[1], two, raw, &err), err);
    assert_ptr_equal(edge->bs, raw);
    must(graph_edit_undo(&edits[1], &err), err);
    must(graph_edit_undo(&edits[0], &err), err);
    must(graph_edit_unappend(&edits[0], one, &err), err);
    assert_ptr_equal(edge->bs, base);
    assert_null(*one->backing_slot);
    assert_int_equal(base->perm, READ | WRITE);
    must(graph_edit_undo(&edits[0], &err), err);
    bdrv_drain_all_end(*state);
    assert_ptr_equal((*one->backing_slot)->bs, base);
    assert_int_equal(bdrv_unappend(two, &err), -EINVAL);
    fake_expect_error(err, EINVAL, "Node 'two' has no backing file");
    err = NULL;
    assert_ptr_equal(edge->bs, one);
    assert_null(*two->backing_slot);
    assert_null(bdrv_get_child(two, "backing"));
    assert_int_equal(bdrv_get_refcnt(one), 2);
    assert_int_equal(one->perm, READ | WRITE);
    bdrv_root_detach(edge);
    bdrv_unref(two);
    bdrv_unref(one);
    bdrv_unref(base);
    bdrv_unref(raw);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_insert_above, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_insert_on_links, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_insert_refused, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_insert_node_refused, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_blocked, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_replace, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_append, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_append_flushes, fake_setup, fake_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
