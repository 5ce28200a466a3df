/* SPDX-License-Identifier: MIT */
/* Every allocation of opening, changing and closing a graph fails once, and from then on: each
 * call says so or does without, and nothing is left behind. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include <platter/transaction.h>

#include "fake.h"
#include "oom.h"

#include "util/error.h"

/* A step that failed must have said why. */
static bool said_why(Error *err)
{
    assert_non_null(err);
    assert_non_null(error_get_pretty(err));
    error_free(err);
    return false;
}

static bool change_graph(Platter *pl, BlockDriverState *a, BlockDriverState *b)
{
    struct fake_user user = {.name = "a"};
    Error *err = NULL;
    BdrvEdge *edge = bdrv_root_attach(a, "root", &fake_user_class, &user, BDRV_PERM_CONSISTENT_READ,
                                      BDRV_PERM_ALL, &err);
    bool ok = edge != NULL;

    if (!ok) {
        return said_why(err);
    }
    if (bdrv_root_set_perm(edge, BDRV_PERM_WRITE, BDRV_PERM_ALL, &err) < 0) {
        ok = said_why(err);
        assert_int_equal(edge->perm, BDRV_PERM_CONSISTENT_READ);
        err = NULL;
    }
    if (bdrv_root_replace(edge, b, &err) < 0) {
        ok = said_why(err);
        assert_ptr_equal(edge->bs, a);
    }
    bdrv_mark_broken(a, "broken by %s", "the test");
    assert_non_null(bdrv_get_filename(a));
    assert_non_null(bdrv_get_filename(b));
    bdrv_root_detach(edge);
    assert_int_equal(user.quiesced, 0);
    return ok;
}

static bool scenario_graph(void)
{
    Error *err = NULL;
    Platter *pl = platter_new(NULL, &err);
    BlockDriverState *a, *b;
    bool ok = true;

    if (pl == NULL) {
        return said_why(err);
    }
    a = bdrv_open(pl, "json:{'driver':'raw','offset':0,'file':{'filename':'x'}}", NULL, NULL,
                  BDRV_O_RDWR, &err);
    if (a == NULL) {
        ok = said_why(err);
        err = NULL;
    }
    b = bdrv_open(pl, "y", NULL, NULL, BDRV_O_RDWR | BDRV_O_PROBE, &err);
    if (b == NULL) {
        ok = said_why(err);
        err = NULL;
    }
    if (a != NULL && b != NULL) {
        ok = change_graph(pl, a, b) && ok;
    }
    bdrv_unref(a);
    bdrv_unref(b);
    assert_null(bdrv_next_node(pl, NULL));
    assert_int_equal(fake.live, 0);
    assert_int_equal(fake.checks, 0);
    platter_free(pl);
    return ok;
}

/* A chain whose images name their files, by path and by json:. */
static bool chain(Platter *pl)
{
    Error *err = NULL;
    BlockDriverState *bs;
    bool ok = true;

    fake.cow[0] = (struct fake_cow){"top", "mid", "cow", "data"};
    fake.cow[1] =
        (struct fake_cow){"mid", "json:{'driver':'cow','file':{'filename':'/base'}}", "cow", NULL};
    fake.cow[2] = (struct fake_cow){"base", "last", "raw", NULL};
    if (platter_allow_image_ref(pl, "/tmp", &err) < 0) {
        ok = said_why(err);
        err = NULL;
    }
    bs = bdrv_open(pl, "json:{'driver':'cow','file':{'filename':'/top'}}", NULL, NULL, BDRV_O_RDWR,
                   &err);
    if (bs == NULL) {
        return said_why(err);
    }
    if (bdrv_get_child(bs, "backing") == NULL) { /* its file has no name, and so no header */
        ok = false;
    } else if (bdrv_set_backing_name(bs, "x", "raw") < 0) {
        ok = false;
        assert_string_equal(bdrv_get_backing_file(bs), "mid");
    }
    bdrv_unref(bs);
    return ok;
}

/* Operations on an image as a whole. */
static bool image(Platter *pl)
{
    Error *err = NULL;
    BlockDriverState *bs =
        bdrv_open(pl, "json:{'driver':'img','file.filename':'x'}", NULL, NULL, BDRV_O_RDWR, &err);
    struct bdrv_check_result result;
    bool ok = true;
    char *text;

    if (bs == NULL) {
        return said_why(err);
    }
    if (bdrv_check(bs, NULL, &result, &err) < 0) {
        ok = said_why(err);
        err = NULL;
    }
    if (bdrv_change_backing_file(bs, "x", "raw", &err) < 0) {
        ok = said_why(err);
        err = NULL;
        assert_null(bdrv_get_backing_file(bs));
    }
    bdrv_image_corrupted(bs, false, 0, 1, "bad %s", "table");
    text = bdrv_get_specific_info(bs, &err);
    if (text == NULL) {
        ok = said_why(err);
        err = NULL;
    }
    free(text);
    bdrv_unref(bs);
    text = bdrv_inspect(pl, "x", "img", &err);
    if (text == NULL) {
        ok = said_why(err);
    }
    free(text);
    return ok;
}

static bool scenario_images(void)
{
    const struct platter_options opts = {
        .size = sizeof(opts), .image_refs = PLATTER_REFS_FOLLOW, .image_refs_hint = "try"};
    Error *err = NULL;
    Platter *pl = platter_new(&opts, &err);
    bool ok;

    if (pl == NULL) {
        return said_why(err);
    }
    ok = chain(pl);
    ok = image(pl) && ok;
    assert_null(bdrv_next_node(pl, NULL));
    assert_int_equal(fake.live, 0);
    assert_int_equal(fake.checks, 0);
    platter_free(pl);
    return ok;
}

/* ---- edits of a live graph, other options, transactions ---- */

static BlockOptions *parsed(const char *text)
{
    return block_options_parse(text, NULL, NULL);
}

static BlockDriverState *open_text(Platter *pl, const char *text, bool *ok)
{
    Error *err = NULL;
    BlockOptions *options = parsed(text);
    BlockDriverState *bs =
        options != NULL ? bdrv_open(pl, NULL, NULL, options, BDRV_O_RDWR, &err) : NULL;

    if (bs == NULL) {
        error_free(err);
        *ok = false;
    }
    return bs;
}

static bool edits(Platter *pl, BlockDriverState *base, BlockDriverState *overlay, BdrvEdge *edge)
{
    struct bdrv_reopen node = {.bs = base, .options = parsed("driver=cow,file=f,detect-zeroes=on")};
    BlockDriverState *filter;
    BdrvTransaction *t;
    Error *err = NULL;
    bool ok = true;

    filter = bdrv_insert_filter(base, parsed("driver=pass"), NULL, 0, &err);
    if (filter == NULL) {
        ok = said_why(err);
        err = NULL;
        assert_ptr_equal(edge->bs, base);
    } else if (bdrv_remove_filter(filter, &err) < 0) {
        ok = said_why(err);
        err = NULL;
        assert_ptr_equal(edge->bs, filter);
        bdrv_unref(filter);
        block_options_free(node.options);
        return ok; /* the filter is in the way of the rest */
    }
    bdrv_unref(filter);
    if (bdrv_reopen_with_options(pl, &node, 1, &err) < 0) {
        ok = said_why(err);
        err = NULL;
        assert_int_equal(base->detect_zeroes, BDRV_DETECT_ZEROES_OFF);
    }
    t = bdrv_transaction_new(pl);
    bdrv_transaction_bitmap_add(t, base, "b", 0, 0);
    bdrv_transaction_bitmap_clear(t, base, "b");
    bdrv_transaction_append(t, overlay, base);
    if (bdrv_transaction_run(t, &err) < 0) {
        ok = said_why(err);
        err = NULL;
        assert_null(bdrv_bitmap_find(base, "b"));
        assert_ptr_equal(edge->bs, base);
        assert_null(*overlay->backing_slot);
    } else {
        assert_ptr_equal(edge->bs, overlay);
    }
    if (bdrv_set_write_threshold(base, 1, &err) < 0) {
        ok = said_why(err);
        assert_int_equal(bdrv_get_write_threshold(base), 0);
    }
    return ok;
}

static bool scenario_edits(void)
{
    struct fake_user user = {.name = "a"};
    Error *err = NULL;
    Platter *pl = platter_new(NULL, &err);
    BlockDriverState *base, *overlay;
    BdrvEdge *edge = NULL;
    bool ok = true;

    if (pl == NULL) {
        return said_why(err);
    }
    base = open_text(pl, "driver=cow,file.filename=x,file.node-name=f,file.driver=file", &ok);
    overlay = open_text(pl, "driver=cow,file.filename=y,file.driver=file", &ok);
    if (base != NULL && overlay != NULL) {
        edge = bdrv_root_attach(base, "root", &fake_user_class, &user, BDRV_PERM_CONSISTENT_READ,
                                BDRV_PERM_ALL, NULL);
        ok = edge != NULL && edits(pl, base, overlay, edge) && ok;
    }
    if (edge != NULL) {
        assert_int_equal(user.quiesced, 0);
        bdrv_root_detach(edge);
    }
    bdrv_unref(overlay);
    bdrv_unref(base);
    assert_null(bdrv_next_node(pl, NULL));
    assert_int_equal(fake.live, 0);
    assert_int_equal(fake.checks, 0);
    assert_int_equal(fake.reopens, 0);
    platter_free(pl);
    return ok;
}

static void run_all(bool (*scenario)(void), bool forever)
{
    long n = 0;

    fake_reset();
    do {
        bool ok;

        oom_arm(n++, forever);
        ok = scenario();
        oom_disarm();
        assert_true(ok || oom_struck());
    } while (oom_struck());
    assert_true(n > 100); /* that many allocations there are at least */
}

static void test_once(void **state)
{
    run_all(scenario_graph, false);
    run_all(scenario_images, false);
    run_all(scenario_edits, false);
}

static void test_forever(void **state)
{
    run_all(scenario_graph, true);
    run_all(scenario_images, true);
    run_all(scenario_edits, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_once),
        cmocka_unit_test(test_forever),
    };

    json_set_alloc_funcs(malloc, free);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
