/* SPDX-License-Identifier: MIT */
/* Files that images name: who may open them, also when links and folders change meanwhile. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backing_fixture.h"

#include "os/os.h"
#include "util/options.h"

static void test_none(void **state)
{
    Platter *pl = platter(PLATTER_REFS_NONE, 0);
    char text[256];

    assert_int_equal(platter_allow_image_ref(pl, dir, NULL), 0);
    header(0, "top", "base", "raw");
    snprintf(text, sizeof(text),
             "Image '%s' names the backing file 'base', which is not allowed to it", path("top"));
    open_fails(pl, "", 0, EPERM, text);
    platter_free(pl);
}

static void test_listed(void **state)
{
    Platter *pl = platter(PLATTER_REFS_LISTED, 0);
    BlockDriverState *bs;
    char text[256];
    Error *err = NULL;

    header(0, "top", "base", "raw");
    assert_null(try_open(pl, "", 0, &err));
    assert_string_equal(error_get_hint(err),
                        "Allow it with platter_allow_image_ref, or name it in the options");
    snprintf(text, sizeof(text),
             "Image '%s' names the backing file 'base', but '%s' is not allowed to it", path("top"),
             path("base"));
    fake_expect_error(err, EPERM, text);
    err = NULL;
    assert_int_equal(platter_allow_image_ref(pl, path("top"), NULL), 0); /* another one */
    open_fails(pl, "", 0, EPERM, "is not allowed to it");
    assert_int_equal(platter_allow_image_ref(pl, path("base"), NULL), 0);
    bs = open_top(pl, "");
    bdrv_unref(bs);
    assert_int_equal(platter_allow_image_ref(pl, path("nosuch"), &err), -ENOENT);
    fake_expect_error(err, ENOENT, "Cannot allow images to name");
    platter_free(pl);
}

static void expect_refused(Platter *pl, const char *name)
{
    header(0, "top", name, "raw");
    open_fails(pl, "", BDRV_O_RDWR, EPERM, "not allowed to it");
}

static void expect_opens(Platter *pl, const char *name)
{
    BlockDriverState *bs;

    header(0, "top", name, "raw");
    bs = open_top(pl, "");
    assert_non_null(bdrv_get_child(bs, "backing"));
    bdrv_unref(bs);
}

static void test_below_a_folder(void **state)
{
    Platter *pl = listed(dir);
    char text[256];

    expect_opens(pl, "base");
    expect_opens(pl, "./base");
    expect_opens(pl, "../d/base");
    expect_opens(pl, path("base"));
    snprintf(text, sizeof(text), "file:%s", path("base"));
    expect_opens(pl, text);
    expect_refused(pl, "../secret");
    expect_refused(pl, "/etc/hostname");
    expect_refused(pl, "../other/base");
    expect_refused(pl, "nosuch/../base"); /* what does not exist leads nowhere */
    expect_refused(pl, "json:{'driver':'raw','file.filename':'x'}");
    expect_refused(pl, "net://host");
    expect_refused(pl, "");
    snprintf(text, sizeof(text), "%sx", dir);
    expect_refused(pl, text); /* begins like the folder's name */
    /* links inside the folder that lead out of it */
    assert_int_equal(symlink("../secret", path("to-secret")), 0);
    assert_int_equal(symlink("..", path("up")), 0);
    assert_int_equal(symlink("base", path("to-base")), 0);
    assert_int_equal(symlink("loop", path("loop")), 0);
    expect_refused(pl, "to-secret");
    expect_refused(pl, "up/secret");
    expect_refused(pl, "up/d/../secret");
    expect_refused(pl, "loop");
    expect_opens(pl, "to-base");
    expect_opens(pl, "up/d/base");
    /* a folder that is itself named by a link */
    snprintf(text, sizeof(text), "%s/link", home);
    assert_int_equal(symlink("other", text), 0);
    assert_int_equal(platter_allow_image_ref(pl, text, NULL), 0);
    expect_opens(pl, "../other/base");
    platter_free(pl);
}

static void test_missing_file_below_a_folder(void **state)
{
    Platter *pl = listed(dir);

    fake.real_files = true;
    header(0, "top", "nosuch", "raw");
    open_fails(pl, "", 0, ENOENT, "nosuch': No such file");
    platter_free(pl);
}

static void test_working_folder(void **state)
{
    Platter *pl = platter(PLATTER_REFS_LISTED, 0);
    char here[512];
    BlockDriverState *bs;

    assert_non_null(getcwd(here, sizeof(here)));
    assert_int_equal(chdir(dir), 0);
    assert_int_equal(platter_allow_image_ref(pl, ".", NULL), 0);
    header(0, "top", "base", "raw");
    bs = bdrv_open(pl, NULL, NULL, block_options_parse("driver=cow,file.filename=top", NULL, NULL),
                   0, NULL);
    assert_non_null(bs);
    assert_string_equal(bdrv_get_filename(bdrv_get_child(bs, "backing")), "base");
    bdrv_unref(bs);
    assert_int_equal(chdir(here), 0);
    platter_free(pl);
}

static void test_descriptor_sets(void **state)
{
    Platter *pl = listed("/dev/fdset/3");

    expect_opens(pl, "/dev/fdset/3");
    expect_refused(pl, "/dev/fdset/4");
    expect_refused(pl, "/dev/fdset/3/../4");
    assert_int_equal(platter_allow_image_ref(pl, "/dev", NULL), 0);
    expect_refused(pl, "/dev/fdset/4"); /* not a file below /dev */
    platter_free(pl);
}

/* Between the judgement and the open somebody turns a link round. */
static void turn_link(const char *file, struct fake_cow *ret)
{
    if (strcmp(file, "top") == 0) {
        ret->backing = "link";
        ret->format = "cow";
    }
}

static int (*real_stat)(const char *path, struct stat *ret_st);

static int stat_then_turn(const char *name, struct stat *ret_st)
{
    int rc = real_stat(name, ret_st);

    if (strcmp(name, path("link")) == 0) {
        unlink(name);
        assert_int_equal(symlink("../secret", name), 0);
    }
    return rc;
}

static void test_link_turned_meanwhile(void **state)
{
    static struct os_table table;
    Platter *pl;

    table = os_linux;
    real_stat = os_linux.stat;
    table.stat = stat_then_turn;
    os_replace(&table);
    pl = listed(dir);
    fake.real_files = true;
    fake.cow_of = turn_link;
    assert_int_equal(symlink("base", path("link")), 0);
    open_fails(pl, "", 0, EPERM, "by now, which images may not name");
    platter_free(pl);
    os_replace(NULL);
}

static void test_follow(void **state)
{
    Platter *pl = platter(PLATTER_REFS_FOLLOW, 0);
    BlockDriverState *node = fake_open(pl, "driver=file,filename=x,node-name=ours");
    BlockDriverState *bs;

    expect_opens(pl, "../secret");
    expect_opens(pl, "json:{'file.filename':'x'}");
    header(0, "top", "net://host", "net");
    bs = open_top(pl, "");
    assert_string_equal(bdrv_get_format_name(bdrv_get_child(bs, "backing")), "net");
    bdrv_unref(bs);
    header(0, "top", "json:{'driver':'raw','file':'ours'}", "raw");
    assert_null(try_open(pl, "", 0, NULL));
    header(0, "top", "json:{'driver':'cow','file.filename':'x','backing':'ours'}", "cow");
    assert_null(try_open(pl, "", 0, NULL));
    bdrv_unref(node);
    open_fails(pl, "", 0, EPERM, "may not refer to a node");
    header(0, "top", "json:{'file':{'filename':'x','node-name':'mine'}}", "raw");
    open_fails(pl, "", 0, EPERM, "may not give a node its name");
    header(0, "top", "json:{'file.filename':'x'}", NULL);
    open_fails(pl, "", 0, EINVAL, "does not say which format");
    header(0, "top", "json:{'driver':'raw','file.filename':'x'}", NULL);
    bs = open_top(pl, "");
    bdrv_unref(bs);
    header(0, "top", "json:{", "raw");
    assert_null(try_open(pl, "", 0, NULL));
    platter_free(pl);
}

static void test_hint_of_the_host(void **state)
{
    const struct platter_options opts = {.size = sizeof(opts), .image_refs_hint = "Ask mum"};
    Platter *pl = platter_new(&opts, NULL);
    Error *err = NULL;

    header(0, "top", "base", "raw");
    assert_null(try_open(pl, "", 0, &err));
    assert_string_equal(error_get_hint(err), "Ask mum");
    error_free(err);
    platter_free(pl);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(test_none),
        T(test_listed),
        T(test_below_a_folder),
        T(test_missing_file_below_a_folder),
        T(test_working_folder),
        T(test_descriptor_sets),
        T(test_link_turned_meanwhile),
        T(test_follow),
        T(test_hint_of_the_host),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
