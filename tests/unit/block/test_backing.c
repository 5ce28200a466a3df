/* SPDX-License-Identifier: MIT */
/*
 * Files that images name: which one a name means, in which format, what is left after a failure.
 * test_backing_policy.c: who may open them; test_backing_depth.c: loops and depth.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backing_fixture.h"

#include "util/options.h"

#define READ BDRV_PERM_CONSISTENT_READ

/* ---- which file ---- */

static void test_relative_to_the_image(void **state)
{
    Platter *pl = listed(dir);
    BlockDriverState *bs, *backing;

    header(0, "top", "mid", "cow");
    header(1, "mid", "base", "raw");
    bs = open_top(pl, "");
    backing = bdrv_get_child(bs, "backing");
    assert_string_equal(bdrv_get_filename(backing), path("mid"));
    assert_string_equal(bdrv_get_backing_file(bs), "mid");
    assert_string_equal(bdrv_get_backing_format(bs), "cow");
    assert_true(bdrv_is_read_only(backing));
    assert_false(bdrv_is_read_only(bs));
    backing = bdrv_get_child(backing, "backing");
    assert_string_equal(bdrv_get_filename(backing), path("base"));
    assert_string_equal(bdrv_get_format_name(backing), "raw");
    assert_null(bdrv_get_child(backing, "backing"));
    assert_int_equal(backing->shared, READ | BDRV_PERM_WRITE_UNCHANGED);
    bdrv_unref(bs);
    platter_free(pl);
}

static void test_backing_path(void **state)
{
    Platter *pl = platter(PLATTER_REFS_NONE, 0);
    BlockDriverState *bs = open_top(pl, "");
    BlockDriverState *nowhere;
    Error *err = NULL;
    char *text;

    text = bdrv_get_backing_path(bs, "x/y", NULL);
    assert_string_equal(text, path("x/y"));
    free(text);
    text = bdrv_get_backing_path(bs, "/x", NULL);
    assert_string_equal(text, "/x");
    free(text);
    text = bdrv_get_backing_path(bs, "json:{}", NULL);
    assert_string_equal(text, "json:{}");
    free(text);
    bdrv_unref(bs);
    nowhere = fake_open(pl, "driver=cow,file.driver=net,file.host=h");
    assert_null(bdrv_get_backing_path(nowhere, "x", &err));
    fake_expect_error(err, EINVAL, "'x' is relative to the folder of the image");
    bdrv_unref(nowhere);
    platter_free(pl);
}

static void test_options_win(void **state)
{
    Platter *pl = platter(PLATTER_REFS_NONE, 0);
    BlockDriverState *node = fake_open(pl, "driver=file,filename=elsewhere,node-name=n");
    BlockDriverState *bs, *backing;
    BlockOptions *options;
    Error *err = NULL;

    header(0, "top", "base", "raw");
    bs = open_top(pl, ",backing=n");
    assert_ptr_equal(bdrv_get_child(bs, "backing"), node);
    bdrv_unref(bs);
    bs = open_top(pl, ",backing.driver=raw,backing.file.filename=mine,backing.node-name=m");
    assert_string_equal(bdrv_get_filename(bdrv_get_child(bs, "backing")), "mine");
    assert_non_null(bdrv_find_node(pl, "m"));
    bdrv_unref(bs);
    options = block_options_parse_json("{'driver':'cow','backing':null}", NULL);
    assert_int_equal(block_options_set_str(options, "file.filename", path("top")), 0);
    bs = bdrv_open(pl, NULL, NULL, options, BDRV_O_RDWR, &err);
    assert_non_null(bs);
    assert_null(bdrv_get_child(bs, "backing"));
    assert_string_equal(bdrv_get_backing_file(bs), "base");
    bdrv_unref(bs);
    bs = try_open(pl, ",backing=n", BDRV_O_RDWR | BDRV_O_NO_BACKING, NULL);
    assert_null(bdrv_get_child(bs, "backing"));
    bdrv_unref(bs);
    bdrv_unref(node);
    /* the image gives the file, the options the rest */
    open_fails(pl, ",backing.driver=cow", BDRV_O_RDWR, EPERM, "names the backing file 'base'");
    platter_free(pl);
    pl = listed(dir);
    bs = open_top(pl, ",backing.driver=cow,backing.node-name=x");
    backing = bdrv_find_node(pl, "x");
    assert_string_equal(bdrv_get_filename(backing), path("base"));
    assert_string_equal(bdrv_get_format_name(backing), "cow");
    bdrv_unref(bs);
    open_fails(pl, ",backing=nosuch", BDRV_O_RDWR, ENOENT, "'nosuch'");
    platter_free(pl);
}

static void test_never_writable(void **state)
{
    Platter *pl = platter(PLATTER_REFS_FOLLOW, 0);

    header(0, "top", "base", "raw");
    open_fails(pl, ",backing.read-only=off", BDRV_O_RDWR, EPERM, "read-only=off");
    open_fails(pl, ",backing.file.filename=base,backing.file.read-only=off", BDRV_O_RDWR, EPERM,
               "read-only=off");
    header(0, "top", "json:{'driver':'raw','file':{'filename':'b','read-only':false}}", "raw");
    open_fails(pl, "", BDRV_O_RDWR, EPERM, "read-only=off");
    platter_free(pl);
}

static void test_image_without_a_folder(void **state)
{
    Platter *pl = platter(PLATTER_REFS_FOLLOW, 0);
    Error *err = NULL;

    header(0, "3", "base", "raw");
    assert_null(bdrv_open(pl, NULL, NULL,
                          block_options_parse("driver=cow,file.filename=/dev/fdset/3", NULL, NULL),
                          0, &err));
    fake_expect_error(err, EINVAL, "'base' is relative to the folder of the image");
    err = NULL;
    fake.cow[0] = (struct fake_cow){.file = "", .backing = "base", .format = "raw"};
    assert_null(bdrv_open(pl, NULL, NULL,
                          block_options_parse("driver=cow,file.driver=net,"
                                              "file.host=h",
                                              NULL, NULL),
                          0, &err));
    fake_expect_error(err, EINVAL, "'base' is relative to the folder of the image");
    platter_free(pl);
}

static void test_format(void **state)
{
    Platter *pl = listed(dir);
    BlockDriverState *bs;
    Error *err = NULL;

    header(0, "top", "base", NULL);
    assert_null(try_open(pl, "", BDRV_O_RDWR, &err));
    assert_string_equal(error_get_hint(err), "Give it as backing.driver, or write it into the "
                                             "image with a rebase");
    fake_expect_error(err, EINVAL, "does not say which format its backing file 'base' has");
    memcpy(fake.content, "COW!", 4);
    bs = try_open(pl, "", BDRV_O_PROBE, NULL);
    assert_non_null(bs);
    assert_string_equal(bdrv_get_format_name(bdrv_get_child(bs, "backing")), "cow");
    assert_true(bdrv_format_probed(bdrv_get_child(bs, "backing")));
    bdrv_unref(bs);
    bs = open_top(pl, ",backing.driver=raw");
    assert_string_equal(bdrv_get_format_name(bdrv_get_child(bs, "backing")), "raw");
    bdrv_unref(bs);
    header(0, "top", "base", "nosuch");
    open_fails(pl, "", 0, EINVAL, "Unknown driver 'nosuch'");
    header(0, "top", "base", "pass");
    open_fails(pl, "", 0, EINVAL, "'pass' is no format of a backing file");
    header(0, "top", "base", "net");
    open_fails(pl, "", 0, EINVAL, "'net' is no format of a backing file");
    header(0, "top", "base", "file"); /* the bytes as they are */
    bs = open_top(pl, "");
    assert_string_equal(bdrv_get_format_name(bdrv_get_child(bs, "backing")), "file");
    bdrv_unref(bs);
    platter_free(pl);
}

/* ---- data files ---- */

static void test_data_file(void **state)
{
    Platter *pl = listed(dir);
    BlockDriverState *bs;

    fake.cow[0] = (struct fake_cow){.file = "top", .data = "mid"};
    bs = open_top(pl, "");
    assert_string_equal(bdrv_get_filename(bdrv_get_child(bs, "data-file")), path("mid"));
    assert_false(bdrv_is_read_only(bdrv_get_child(bs, "data-file"))); /* as the image */
    bdrv_unref(bs);
    bs = open_top(pl, ",data-file.filename=mine");
    assert_string_equal(bdrv_get_filename(bdrv_get_child(bs, "data-file")), "mine");
    bdrv_unref(bs);
    bs = open_top(pl, ",data-file.node-name=dn");
    assert_string_equal(bdrv_get_filename(bdrv_find_node(pl, "dn")), path("mid"));
    bdrv_unref(bs);
    bs = try_open(pl, "", BDRV_O_NO_IO, NULL);
    assert_non_null(bs);
    assert_null(bdrv_get_child(bs, "data-file"));
    bdrv_unref(bs);
    fake.cow[0].data = "top";
    open_fails(pl, "", 0, ELOOP, "would be a loop");
    fake.cow[0].data = "../secret";
    open_fails(pl, "", 0, EPERM, "names the data-file '../secret', but");
    platter_free(pl);
    pl = platter(PLATTER_REFS_FOLLOW, 0);
    fake.cow[0].data = "json:{'driver':'file','filename':'/etc/passwd'}";
    open_fails(pl, "", 0, EINVAL, "which is no path");
    fake.cow[0].data = "net://host";
    open_fails(pl, "", 0, EINVAL, "which is no path");
    fake.cow[0].data = "../secret";
    bs = open_top(pl, "");
    bdrv_unref(bs);
    platter_free(pl);
}

/* What a failure in the middle of a chain leaves behind: nothing. */
static void test_failures_leave_nothing(void **state)
{
    Platter *pl = listed(dir);

    fake.real_files = true;
    header(0, "top", "mid", "cow");
    header(1, "mid", "nosuch", "raw");
    open_fails(pl, "", BDRV_O_RDWR, ENOENT, "Could not open backing file: ");
    open_fails(pl, ",nosuch=1", BDRV_O_RDWR, EINVAL, "'nosuch'");
    open_fails(pl, ",backing.nosuch=1", BDRV_O_RDWR, EINVAL, "'nosuch'");
    platter_free(pl);
}

/* ---- below a filter ---- */

static BlockDriverState *open_filter(Platter *pl, const char *more, int flags)
{
    char text[512];
    Error *err = NULL;
    BlockDriverState *bs;

    snprintf(text, sizeof(text), "driver=pass,file.driver=cow,file.file.filename=%s%s", path("top"),
             more);
    bs = bdrv_open(pl, NULL, NULL, block_options_parse(text, NULL, NULL), flags, &err);
    if (bs == NULL) {
        fail_msg("%s", error_get_pretty(err));
    }
    return bs;
}

static void test_chain_below_a_filter(void **state)
{
    Platter *pl = listed(dir);
    BlockDriverState *bs;

    header(0, "top", "mid", "cow");
    header(1, "mid", "base", "raw");
    bs = open_filter(pl, "", BDRV_O_RDWR);
    assert_string_equal(bdrv_get_filename(bdrv_chain_below(bs)), path("mid"));
    assert_ptr_equal(bdrv_chain_below(bs), bdrv_get_child(bdrv_get_child(bs, "file"), "backing"));
    assert_null(bdrv_chain_below(bdrv_chain_below(bdrv_chain_below(bs))));
    bdrv_unref(bs);
    bs = open_filter(pl, "", BDRV_O_RDWR | BDRV_O_NO_BACKING);
    assert_null(bdrv_chain_below(bs));
    assert_string_equal(bdrv_get_backing_file(bdrv_get_child(bs, "file")), "mid");
    bdrv_unref(bs);
    platter_free(pl);
}

/* A backing file is in a name only where the image's own does not lead there. */
static void test_name_of_what_has_a_backing_file(void **state)
{
    Platter *pl = listed(dir);
    BlockDriverState *bs;

    header(0, "top", "mid", "raw");
    bs = open_filter(pl, "", BDRV_O_RDWR);
    assert_non_null(bdrv_chain_below(bs));
    assert_null(strstr(bdrv_get_filename(bs), "\"backing\""));
    bdrv_unref(bs);
    bs = open_filter(pl, ",file.backing.driver=raw,file.backing.file.filename=other", BDRV_O_RDWR);
    assert_non_null(strstr(bdrv_get_filename(bs), "\"backing\": {\"driver\": \"raw\""));
    bdrv_unref(bs);
    platter_free(pl);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(test_relative_to_the_image),
        T(test_backing_path),
        T(test_options_win),
        T(test_never_writable),
        T(test_image_without_a_folder),
        T(test_format),
        T(test_data_file),
        T(test_failures_leave_nothing),
        T(test_chain_below_a_filter),
        T(test_name_of_what_has_a_backing_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
