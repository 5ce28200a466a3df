/* SPDX-License-Identifier: MIT */
/* Edges, permissions and transactions: who may do what beside whom, and that a refused change
 * leaves no trace. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "fake.h"

#include "util/error.h"

#define READ BDRV_PERM_CONSISTENT_READ
#define WRITE BDRV_PERM_WRITE
#define RESIZE BDRV_PERM_RESIZE
#define UNCHANGED BDRV_PERM_WRITE_UNCHANGED
#define ALL BDRV_PERM_ALL

static void attach_fails(BlockDriverState *bs, struct fake_user *user, uint64_t perm,
                         uint64_t shared, int err_no, const char *piece)
{
    Error *err = NULL;
    int refs = bdrv_get_refcnt(bs);

    assert_null(bdrv_root_attach(bs, "root", &fake_user_class, user, perm, shared, &err));
    fake_expect_error(err, err_no, piece);
    assert_int_equal(bdrv_get_refcnt(bs), refs);
    assert_int_equal(user->quiesced, 0);
}

static void test_conflict(void **state)
{
    BlockDriverState *bs = fake_open(*state, "driver=file,filename=x,node-name=n");
    struct fake_user a = {.name = "a"}, b = {.name = "b"};
    BdrvEdge *ea = fake_attach(bs, &a, READ, ALL & ~(uint64_t)WRITE);
    BdrvEdge *eb;
    Error *err = NULL;

    attach_fails(bs, &b, WRITE, ALL, EPERM, "user 'a'");
    attach_fails(bs, &b, WRITE, ALL, EPERM, "user 'b'");
    attach_fails(bs, &b, WRITE, ALL, EPERM, "'write'");
    attach_fails(bs, &b, WRITE, ALL, EPERM, "'n'");
    attach_fails(bs, &b, READ, WRITE, EPERM, "'consistent read'");
    eb = fake_attach(bs, &b, READ, ALL);
    assert_int_equal(bs->perm, READ);
    assert_int_equal(bs->shared, ALL & ~(uint64_t)WRITE);
    assert_int_equal(bdrv_root_set_perm(eb, READ | WRITE, ALL, &err), -EPERM);
    fake_expect_error(err, EPERM, "user 'a'");
    assert_int_equal(eb->perm, READ);
    err = NULL;
    assert_int_equal(bdrv_root_set_perm(ea, READ, ALL, &err), 0);
    assert_int_equal(bdrv_root_set_perm(eb, READ | WRITE, ALL, &err), 0);
    assert_int_equal(bs->perm, READ | WRITE);
    bdrv_root_detach(eb);
    assert_int_equal(bs->perm, READ);
    bdrv_root_detach(ea);
    assert_int_equal(bs->perm, 0);
    assert_int_equal(bs->shared, ALL);
    bdrv_unref(bs);
}

static void test_pass_down(void **state)
{
    BlockDriverState *bs = fake_open(*state, "driver=pass,file.driver=raw,file.file.filename=x");
    BlockDriverState *file = bdrv_get_child(bdrv_get_child(bs, "file"), "file");
    struct fake_user a = {.name = "a"};
    BdrvEdge *edge = fake_attach(bs, &a, READ | WRITE, READ);

    assert_int_equal(file->perm, READ | WRITE);
    assert_int_equal(file->shared, READ);
    /* the driver below has the last word */
    fake.refuse_perm = true;
    assert_int_equal(bdrv_root_set_perm(edge, READ, ALL, NULL), -EAGAIN);
    assert_int_equal(edge->perm, READ | WRITE);
    assert_int_equal(bs->file->perm, READ | WRITE);
    assert_int_equal(file->perm, READ | WRITE);
    fake.refuse_perm = false;
    bdrv_root_detach(edge);
    assert_int_equal(file->perm, 0);
    bdrv_unref(bs);
}

static void test_roles(void **state)
{
    BlockDriverState *bs = fake_open(*state, "driver=fmt,file.filename=x,backing.file.filename=y");
    BlockDriverState *file = bdrv_get_child(bs, "file");
    BlockDriverState *backing = bdrv_get_child(bs, "backing");
    struct fake_user a = {.name = "a"}, b = {.name = "b"};
    BdrvEdge *edge;

    /* metadata is written even before the first user */
    assert_int_equal(file->perm, READ | WRITE | RESIZE);
    assert_int_equal(file->shared, READ | UNCHANGED);
    assert_int_equal(backing->shared, READ | UNCHANGED);
    assert_int_equal(backing->perm, 0);
    edge = fake_attach(bs, &a, READ | WRITE, ALL);
    assert_int_equal(backing->perm, READ);
    attach_fails(file, &b, WRITE, ALL, EPERM, "node '");
    bdrv_root_detach(edge);
    bdrv_unref(bs);
}

static void test_read_only(void **state)
{
    BlockDriverState *bs = fake_open(*state, "driver=raw,read-only=on,file.filename=x,node-name=n");
    struct fake_user a = {.name = "a"};

    attach_fails(bs, &a, WRITE, ALL, EPERM, "Node 'n' is read-only");
    attach_fails(bs, &a, RESIZE, ALL, EPERM, "'resize'");
    bdrv_unref(bs);
    bs = fake_open(*state, "driver=raw,node-name=n,file.filename=x,file.read-only=on,"
                           "file.node-name=f");
    attach_fails(bs, &a, WRITE, ALL, EPERM, "Node 'f' is read-only, but node 'n'");
    bdrv_unref(bs);
}

static void test_replace(void **state)
{
    BlockDriverState *x = fake_open(*state, "driver=raw,file.filename=x,node-name=x");
    BlockDriverState *y = fake_open(*state, "driver=raw,file.filename=y,node-name=y");
    struct fake_user a = {.name = "a"}, b = {.name = "b"};
    BdrvEdge *ea = fake_attach(x, &a, READ | WRITE, READ);
    BdrvEdge *eb = fake_attach(y, &b, READ, READ);
    Error *err = NULL;

    assert_int_equal(bdrv_root_replace(ea, y, &err), -EPERM);
    fake_expect_error(err, EPERM, "user 'b'");
    assert_ptr_equal(ea->bs, x);
    assert_int_equal(bdrv_get_refcnt(y), 2);
    assert_int_equal(y->perm, READ);
    bdrv_root_detach(eb);
    err = NULL;
    bdrv_unref(x); /* the edge holds it */
    assert_int_equal(bdrv_root_replace(ea, y, &err), 0);
    assert_null(bdrv_find_node(*state, "x"));
    assert_int_equal(y->perm, READ | WRITE);
    assert_int_equal(a.quiesced, 0);
    bdrv_root_detach(ea);
    bdrv_unref(y);
}

/* Insert a filter above a node that has a user, in one transaction. */
static void test_insert_filter(void **state)
{
    BlockDriverState *x = fake_open(*state, "driver=raw,file.filename=x,node-name=x");
    BlockDriverState *filter = fake_open(*state, "driver=pass,file=x,node-name=f");
    struct fake_user a = {.name = "a"};
    BdrvEdge *edge = fake_attach(x, &a, READ | WRITE, READ);
    struct graph_tx *tx = graph_tx_new(*state);

    graph_tx_replace_node(tx, x, filter);
    assert_int_equal(graph_tx_run(tx, NULL), 0);
    assert_ptr_equal(edge->bs, filter);
    assert_ptr_equal(filter->file->bs, x);
    assert_int_equal(x->perm, READ | WRITE);
    assert_int_equal(a.quiesced, 0);
    assert_true(a.begun > 0);
    /* and out again */
    tx = graph_tx_new(*state);
    graph_tx_replace_node(tx, filter, x);
    graph_tx_detach(tx, filter->file);
    assert_int_equal(graph_tx_run(tx, NULL), 0);
    assert_ptr_equal(edge->bs, x);
    assert_null(filter->file);
    bdrv_unref(filter);
    bdrv_root_detach(edge);
    bdrv_unref(x);
}

static void test_cycle(void **state)
{
    BlockDriverState *x = fake_open(*state, "driver=raw,file.filename=x,node-name=x");
    BlockDriverState *f = fake_open(*state, "driver=pass,file=x,node-name=f");
    BlockDriverState *g = fake_open(*state, "driver=pass,file=f,node-name=g");
    struct graph_tx *tx = graph_tx_new(*state);
    Error *err = NULL;

    graph_tx_attach_child(tx, f, g, "more", BDRV_ROLE_DATA);
    assert_int_equal(graph_tx_run(tx, &err), -ELOOP);
    fake_expect_error(err, ELOOP, "cycle");
    err = NULL;
    tx = graph_tx_new(*state);
    graph_tx_replace(tx, f->file, f);
    assert_int_equal(graph_tx_run(tx, &err), -ELOOP);
    fake_expect_error(err, ELOOP, "cycle");
    assert_ptr_equal(f->file->bs, x);
    bdrv_unref(x);
    bdrv_unref(f);
    bdrv_unref(g);
}

/* A late action fails: the earlier ones are taken back in reverse. */
static void test_abort(void **state)
{
    BlockDriverState *x = fake_open(*state, "driver=file,filename=x,node-name=x");
    BlockDriverState *y = fake_open(*state, "driver=file,filename=y,node-name=y");
    struct fake_user a = {.name = "a"}, b = {.name = "b"};
    BdrvEdge *edge = fake_attach(x, &a, READ | WRITE, ALL);
    int flags = bdrv_get_flags(x);
    struct graph_tx *tx;
    Error *err = NULL;

    fake.refuse_reopen = true;
    tx = graph_tx_new(*state);
    graph_tx_replace(tx, edge, y);
    graph_tx_set_perm(tx, edge, READ, READ);
    graph_tx_attach_root(tx, x, "root", &fake_user_class, &b, READ, READ);
    graph_tx_replace(tx, edge, x);
    graph_tx_set_flags(tx, x, flags & ~BDRV_O_RDWR);
    assert_int_equal(graph_tx_run(tx, &err), -EACCES);
    fake_expect_error(err, EACCES, "reopen refused");
    assert_ptr_equal(edge->bs, x);
    assert_int_equal(edge->perm, READ | WRITE);
    assert_int_equal(edge->shared, ALL);
    assert_int_equal(bdrv_get_refcnt(x), 2);
    assert_int_equal(bdrv_get_refcnt(y), 1);
    assert_int_equal(bdrv_get_flags(x), flags);

    /* read-only below a writer is refused as a whole, with the driver's part taken back */
    fake.refuse_reopen = false;
    err = NULL;
    tx = graph_tx_new(*state);
    graph_tx_set_flags(tx, x, flags & ~BDRV_O_RDWR);
    assert_int_equal(graph_tx_run(tx, &err), -EPERM);
    fake_expect_error(err, EPERM, "user 'a'");
    assert_int_equal(fake.reopens, 0);
    assert_false(bdrv_is_read_only(x));
    /* together with the writer's consent it works */
    tx = graph_tx_new(*state);
    graph_tx_set_perm(tx, edge, READ, ALL);
    graph_tx_set_flags(tx, x, flags & ~BDRV_O_RDWR);
    assert_int_equal(graph_tx_run(tx, NULL), 0);
    assert_true(bdrv_is_read_only(x));
    assert_int_equal(a.quiesced, 0);
    assert_int_equal(b.quiesced, 0);
    bdrv_root_detach(edge);
    bdrv_unref(x);
    bdrv_unref(y);
}

static void test_frozen(void **state)
{
    BlockDriverState *x = fake_open(*state, "driver=raw,file.filename=x");
    struct graph_tx *tx = graph_tx_new(*state);
    Error *err = NULL;

    x->file->frozen = true;
    graph_tx_detach(tx, x->file);
    assert_int_equal(graph_tx_run(tx, &err), -EBUSY);
    fake_expect_error(err, EBUSY, "'file'");
    x->file->frozen = false;
    graph_tx_cancel(NULL);
    assert_int_equal(graph_tx_run(NULL, NULL), -ENOMEM);
    bdrv_unref(x);
}

static void test_limits_and_sizes(void **state)
{
    BlockDriverState *bs = fake_open(*state, "driver=pass,file.driver=raw,file.file.filename=x");
    BlockDriverState *file = bdrv_get_child(bdrv_get_child(bs, "file"), "file");
    struct fake_user a = {.name = "a"}, b = {.name = "b"};
    BdrvEdge *ea = fake_attach(bs, &a, READ, ALL);
    BdrvEdge *eb = fake_attach(file, &b, READ, ALL);

    assert_int_equal(bdrv_get_limits(bs)->max_transfer, 1024);
    assert_int_equal(a.resized, 0);
    fake.size = 8192;
    assert_int_equal(bdrv_refresh_size(file), 8192);
    assert_int_equal(bdrv_getlength(bs), 8192);
    assert_int_equal(a.resized, 1);
    assert_int_equal(b.resized, 1);
    bdrv_refresh_size(file);
    assert_int_equal(a.resized, 1);
    bdrv_grow_size(file, 4096); /* never shrinks */
    assert_int_equal(bdrv_getlength(file), 8192);
    bdrv_grow_size(file, 16384);
    assert_int_equal(bdrv_getlength(file), 16384);
    while (aio_poll(platter_get_main_context(*state), false)) {
    }
    assert_int_equal(bdrv_getlength(bs), 16384);
    assert_int_equal(a.resized, 2);
    bdrv_root_detach(ea);
    bdrv_root_detach(eb);
    bdrv_unref(bs);
}

/* Blocks are read, changed and written back by the node that has them, and by no other. */
static void test_alignment_stays_below(void **state)
{
    BlockDriverState *file, *pass, *folded, *window;

    fake.align = 512;
    file = fake_open(*state, "driver=file,filename=x,node-name=f");
    pass = fake_open(*state, "driver=pass,file=f");
    folded = fake_open(*state, "driver=raw,file=f");
    window = fake_open(*state, "driver=raw,offset=512,file=f");
    assert_int_equal(bdrv_get_limits(file)->request_alignment, 512);
    assert_int_equal(bdrv_get_limits(pass)->request_alignment, 1);
    assert_int_equal(bdrv_get_limits(window)->request_alignment, 1);
    assert_int_equal(bdrv_get_limits(folded)->request_alignment, 512);
    assert_ptr_equal(folded->through, file);
    bdrv_unref(pass);
    bdrv_unref(folded);
    bdrv_unref(window);
    bdrv_unref(file);
}

/* A question that fails does not take the disk away; a medium that is gone does. */
static void test_size_not_told(void **state)
{
    BlockDriverState *bs = fake_open(*state, "driver=pass,file.driver=file,file.filename=x");
    BlockDriverState *file = bdrv_get_child(bs, "file");
    struct fake_user a = {.name = "a"};
    BdrvEdge *edge = fake_attach(bs, &a, READ, ALL);

    fake.size = -EIO;
    assert_int_equal(bdrv_refresh_size(file), -EIO);
    assert_int_equal(bdrv_getlength(file), FAKE_FILE_BYTES);
    assert_int_equal(bdrv_getlength(bs), FAKE_FILE_BYTES);
    assert_int_equal(a.resized, 0);
    bdrv_shrink_size(file, 8192); /* never grows */
    assert_int_equal(bdrv_getlength(file), FAKE_FILE_BYTES);
    bdrv_shrink_size(file, 1024);
    assert_int_equal(bdrv_getlength(file), 1024);
    assert_int_equal(bdrv_getlength(bs), 1024);
    assert_int_equal(a.resized, 1);
    fake.size = -ENOMEDIUM;
    assert_int_equal(bdrv_refresh_size(file), -ENOMEDIUM);
    assert_int_equal(bdrv_getlength(bs), -ENOMEDIUM);
    assert_int_equal(a.resized, 2);
    fake.size = 2048;
    assert_int_equal(bdrv_refresh_size(file), 2048);
    assert_int_equal(bdrv_getlength(bs), 2048);
    bdrv_root_detach(edge);
    bdrv_unref(bs);
}

/* What was written to a node is safe before it becomes read-only. */
static void test_flush_before_read_only(void **state)
{
    BlockDriverState *bs = fake_open(*state, "driver=file,filename=x");
    struct fake_user a = {.name = "a"};
    BdrvEdge *edge = fake_attach(bs, &a, READ | WRITE, ALL);
    int flags = bdrv_get_flags(bs);
    struct graph_tx *tx;
    Error *err = NULL;

    assert_int_equal(bdrv_edge_pwrite(edge, 0, "x", 1, 0), 0);
    bdrv_root_detach(edge);
    fake.flush_error = -EIO;
    tx = graph_tx_new(*state);
    graph_tx_set_flags(tx, bs, flags & ~BDRV_O_RDWR);
    assert_int_equal(graph_tx_run(tx, &err), -EIO);
    fake_expect_error(err, EIO, "flush");
    assert_false(bdrv_is_read_only(bs));
    fake.flush_error = 0;
    tx = graph_tx_new(*state);
    graph_tx_set_flags(tx, bs, flags & ~BDRV_O_RDWR);
    assert_int_equal(graph_tx_run(tx, NULL), 0);
    assert_true(bdrv_is_read_only(bs));
    assert_int_equal(fake.flushes, 2);
    bdrv_unref(bs);
}

static void on_event(void *opaque, const struct platter_event *event)
{
    int *count = opaque;

    assert_int_equal(event->type, PLATTER_EVENT_NODE_BROKEN);
    assert_string_equal(event->u.node_broken.node_name, "n");
    assert_string_equal(event->u.node_broken.reason, "lost 7");
    (*count)++;
}

static void test_broken(void **state)
{
    int events = 0;
    struct platter_options opts = {
        .size = sizeof(opts), .event_cb = on_event, .event_opaque = &events};
    Platter *pl = platter_new(&opts, NULL);
    BlockDriverState *bs = fake_open(pl, "driver=raw,file.filename=x,node-name=n");

    assert_ptr_not_equal(bs->through, bs);
    assert_null(bdrv_broken_reason(bs));
    bdrv_mark_broken(bs, "lost %d", 7);
    bdrv_mark_broken(bs, "lost %d", 8);
    assert_int_equal(events, 1);
    assert_string_equal(bdrv_broken_reason(bs), "lost 7");
    while (aio_poll(platter_get_main_context(pl), false)) {
    }
    assert_ptr_equal(bs->through, bs);
    bdrv_unref(bs);
    platter_free(pl);
}

struct busy_thread {
    pthread_t thread;
    BlockDriverState *bs;
    uint64_t first;
};

static void *busy_thread(void *opaque)
{
    struct busy_thread *t = opaque;

    for (uint64_t i = 0; i < 1000; i++) {
        bdrv_grow_size(t->bs, 8192 + t->first + 4 * i);
        assert_true(bdrv_getlength(t->bs) >= (int64_t)(8192 + t->first + 4 * i));
    }
    bdrv_mark_broken(t->bs, "by thread %d", (int)t->first);
    bdrv_unref(t->bs);
    return NULL;
}

/* What other threads may do, all at once, while the control thread changes the graph. */
static void test_threads(void **state)
{
    Platter *pl = *state;
    BlockDriverState *raw = fake_open(pl, "driver=raw,file.filename=x,node-name=n");
    BlockDriverState *file = bdrv_get_child(raw, "file");
    struct busy_thread threads[4];
    struct fake_user a = {.name = "a"};
    BdrvEdge *edge = fake_attach(raw, &a, READ, ALL);

    for (int i = 0; i < 4; i++) {
        threads[i] = (struct busy_thread){.bs = file, .first = (uint64_t)i};
        bdrv_ref(file);
        assert_int_equal(pthread_create(&threads[i].thread, NULL, busy_thread, &threads[i]), 0);
    }
    for (int i = 0; i < 200; i++) {
        assert_int_equal(bdrv_root_set_perm(edge, READ, i % 2 == 0 ? ALL : READ, NULL), 0);
        bdrv_drained_begin(file);
        bdrv_drained_end(file);
        aio_poll(platter_get_main_context(pl), false);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i].thread, NULL);
    }
    while (aio_poll(platter_get_main_context(pl), false)) {
    }
    assert_int_equal(bdrv_getlength(file), 8192 + 3 + 4 * 999);
    assert_int_equal(bdrv_getlength(raw), 8192 + 3 + 4 * 999);
    assert_non_null(bdrv_broken_reason(file));
    assert_true(a.resized > 0);
    bdrv_root_detach(edge);
    bdrv_unref(raw);
    assert_null(bdrv_next_node(pl, NULL));
}

/* A parent that is in use gets another child: its users wait meanwhile. */
static void test_add_child(void **state)
{
    BlockDriverState *top = fake_open(*state, "driver=fmt,file.filename=x");
    BlockDriverState *below = fake_open(*state, "driver=raw,file.filename=y,read-only=on");
    struct fake_user a = {.name = "a"};
    BdrvEdge *edge = fake_attach(top, &a, READ, ALL);
    struct graph_tx *tx = graph_tx_new(*state);
    int begun = a.begun;

    a.busy = 2;
    graph_tx_attach_child(tx, top, below, "backing", BDRV_ROLE_COW);
    assert_int_equal(graph_tx_run(tx, NULL), 0);
    assert_int_equal(a.begun, begun + 1);
    assert_int_equal(a.busy, 0);
    assert_int_equal(a.quiesced, 0);
    assert_ptr_equal(bdrv_get_child(top, "backing"), below);
    assert_int_equal(below->perm, READ);
    bdrv_unref(below);
    bdrv_root_detach(edge);
    bdrv_unref(top);
}

static void test_empty_root(void **state)
{
    BlockDriverState *bs = bdrv_new_root(*state, NULL);

    assert_non_null(bs);
    assert_false(bdrv_is_inserted(bs));
    assert_int_equal(bdrv_getlength(bs), -ENOMEDIUM);
    assert_string_equal(bdrv_get_filename(bs), "");
    assert_int_equal(strncmp(bdrv_get_node_name(bs), "#block", 6), 0);
    bdrv_unref(bs);
}

static void test_names(void **state)
{
    Platter *pl = *state;
    int owner;
    void *found;
    char name[32];

    for (int i = 0; i < 1000; i++) {
        snprintf(name, sizeof(name), "name%d", i);
        assert_int_equal(instance_name_add(pl, name, INSTANCE_NAME_BACKEND, &owner + i), 0);
    }
    for (int i = 0; i < 1000; i += 2) {
        snprintf(name, sizeof(name), "name%d", i);
        instance_name_del(pl, name);
    }
    for (int i = 0; i < 1000; i++) {
        snprintf(name, sizeof(name), "name%d", i);
        assert_int_equal(instance_name_find(pl, name, &found),
                         i % 2 == 0 ? INSTANCE_NAME_NONE : INSTANCE_NAME_BACKEND);
    }
    {
        Error *err = NULL;

        assert_null(bdrv_open(
            pl, NULL, NULL,
            block_options_parse("driver=file,filename=x,node-name=name1", NULL, NULL), 0, &err));
        fake_expect_error(err, EEXIST, "block device");
    }
    for (int i = 1; i < 1000; i += 2) {
        snprintf(name, sizeof(name), "name%d", i);
        instance_name_del(pl, name);
    }
}

/* Two instances of one thread know nothing of each other, whichever ends first. */
static void test_two_instances(void **state)
{
    Platter *first = fake_platter();
    Platter *second = fake_platter();
    BlockDriverState *a = fake_open(first, "driver=raw,file.filename=x,node-name=n");
    BlockDriverState *b = fake_open(second, "driver=raw,file.filename=x,node-name=n");

    assert_ptr_equal(bdrv_find_node(first, "n"), a);
    assert_ptr_equal(bdrv_find_node(second, "n"), b);
    platter_free(first); /* closes a */
    bdrv_unref(b);
    b = fake_open(second, "driver=raw,file.filename=x,node-name=n");
    bdrv_drain_all_begin(second);
    bdrv_drain_all_end(second);
    bdrv_unref(b);
    platter_free(second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_conflict, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_pass_down, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_roles, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_read_only, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_replace, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_insert_filter, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_cycle, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_abort, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_frozen, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_limits_and_sizes, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_broken, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_threads, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_add_child, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_empty_root, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_names, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_two_instances, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_alignment_stays_below, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_size_not_told, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_flush_before_read_only, fake_setup, fake_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
