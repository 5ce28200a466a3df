/* SPDX-License-Identifier: MIT */
/* Every allocation of opening, changing and closing a graph fails once, and from then on: each
 * call says so or does without, and nothing is left behind. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

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
}

static void test_forever(void **state)
{
    run_all(scenario_graph, true);
    run_all(scenario_images, true);
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
