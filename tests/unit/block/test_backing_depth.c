/* SPDX-License-Identifier: MIT */
/* Files that images name: loops, long chains, nesting. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backing_fixture.h"

#include "util/options.h"

#define READ BDRV_PERM_CONSISTENT_READ

static void test_loops(void **state)
{
    Platter *pl = listed(dir);

    header(0, "top", "top", "cow");
    open_fails(pl, "", 0, ELOOP, "would be a loop");
    header(0, "top", "mid", "cow");
    header(1, "mid", "base", "cow");
    header(2, "base", "top", "raw");
    open_fails(pl, "", 0, ELOOP, "would be a loop");
    assert_int_equal(symlink("top", path("s")), 0);
    assert_int_equal(link(path("top"), path("h")), 0);
    header(2, "base", "s", "raw");
    open_fails(pl, "", 0, ELOOP, "would be a loop");
    header(2, "base", "h", "raw");
    open_fails(pl, "", 0, ELOOP, "would be a loop");
    header(2, "base", "mid", "cow");
    open_fails(pl, "", 0, ELOOP, "would be a loop");
    platter_free(pl);
}

/* json: hides the path until the file is open. */
static void test_loop_behind_json(void **state)
{
    Platter *pl = platter(PLATTER_REFS_FOLLOW, 0);
    char name[256];

    snprintf(name, sizeof(name), "json:{'driver':'cow','file.filename':'%s'}", path("top"));
    header(0, "top", name, NULL);
    open_fails(pl, "", 0, ELOOP, "would be a loop");
    platter_free(pl);
}

/* Image "N" names "N-1"; 0 has none. The files do not exist, and nobody looks. */
static char chain_name[2048][16];

static void chain_of(const char *file, struct fake_cow *ret)
{
    int number = strcmp(file, "top") == 0 ? 2047 : atoi(file);

    if (number > 0) {
        snprintf(chain_name[number], sizeof(chain_name[0]), "%d", number - 1);
        ret->backing = chain_name[number];
        ret->format = "cow";
    }
}

static BlockDriverState *open_chain(Platter *pl, int deep, Error **errp)
{
    char text[256];

    fake.cow_of = chain_of;
    snprintf(text, sizeof(text), "driver=cow,file.filename=%s/%d", dir, deep);
    return bdrv_open(pl, NULL, NULL, block_options_parse(text, NULL, NULL), BDRV_O_RDWR, errp);
}

static void test_depth(void **state)
{
    Platter *pl = listed(dir);
    BlockDriverState *bs;
    Error *err = NULL;

    bs = open_chain(pl, 64, NULL);
    assert_non_null(bs);
    assert_int_equal(fake.live, 130);
    bdrv_unref(bs);
    assert_int_equal(fake.live, 0);
    assert_null(open_chain(pl, 65, &err));
    fake_expect_error(err, ELOOP, "The backing chain is more than 64 files deep");
    assert_int_equal(fake.live, 0);
    platter_free(pl);
}

static void test_a_thousand(void **state)
{
    Platter *pl = platter(PLATTER_REFS_LISTED, 1000);
    struct fake_user user = {.name = "u"};
    BdrvEdge *root;
    BlockDriverState *bs;
    Error *err = NULL;

    assert_int_equal(platter_allow_image_ref(pl, dir, NULL), 0);
    bs = open_chain(pl, 1000, &err);
    assert_non_null(bs);
    root = bdrv_root_attach(bs, "root", &fake_user_class, &user, READ | BDRV_PERM_WRITE,
                            BDRV_PERM_ALL, NULL);
    assert_non_null(root);
    bdrv_root_detach(root);
    bdrv_unref(bs);
    assert_int_equal(fake.live, 0);
    assert_null(open_chain(pl, 1001, &err));
    fake_expect_error(err, ELOOP, "more than 1000 files deep");
    platter_free(pl);
}

static void test_depth_by_reference(void **state)
{
    Platter *pl = platter(PLATTER_REFS_LISTED, 3);
    BlockDriverState *n[5];
    BlockDriverState *bs;
    Error *err = NULL;

    n[0] = fake_open(pl, "driver=file,filename=x,node-name=n0");
    n[1] = fake_open(pl, "driver=cow,file.filename=x,node-name=n1,backing=n0");
    n[2] = fake_open(pl, "driver=pass,file.driver=cow,file.file.filename=x,node-name=n2,"
                         "file.backing=n1");
    bs = fake_open(pl, "driver=cow,file.filename=x,backing=n2");
    bdrv_unref(bs);
    n[3] = fake_open(pl, "driver=cow,file.filename=x,node-name=n3,backing=n2");
    assert_null(bdrv_open(pl, NULL, NULL,
                          block_options_parse("driver=cow,file.filename=x,backing=n3", NULL, NULL),
                          0, &err));
    fake_expect_error(err, ELOOP, "more than 3 files deep");
    for (int i = 3; i >= 0; i--) {
        bdrv_unref(n[i]);
    }
    platter_free(pl);
}

/* Text in images that nests opens, instead of chaining them. */
static char nest_name[2048][192];

static void nest_of(const char *file, struct fake_cow *ret)
{
    int number = atoi(file);

    snprintf(nest_name[number], sizeof(nest_name[0]),
             "json:{'driver':'raw','file':{'driver':'cow','file.filename':'%s/%d'}}", dir,
             number + 1);
    ret->backing = nest_name[number];
}

static void test_nesting_is_bounded(void **state)
{
    Platter *pl = platter(PLATTER_REFS_FOLLOW, 2000);
    Error *err = NULL;
    char text[256];

    fake.cow_of = nest_of;
    snprintf(text, sizeof(text), "driver=cow,file.filename=%s/0", dir);
    assert_null(
        bdrv_open(pl, NULL, NULL, block_options_parse(text, NULL, NULL), BDRV_O_RDWR, &err));
    fake_expect_error(err, ELOOP, "Nodes are nested more than 64 deep");
    assert_int_equal(fake.live, 0);
    platter_free(pl);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(test_loops),      T(test_loop_behind_json),   T(test_depth),
        T(test_a_thousand), T(test_depth_by_reference), T(test_nesting_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
