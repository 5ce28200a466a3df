/* SPDX-License-Identifier: MIT */
/* Opening: forms of names, choice of driver, common options, inheritance, failures. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fake.h"

#define RW BDRV_O_RDWR

static BlockDriverState *open_name(Platter *pl, const char *filename, int flags)
{
    Error *err = NULL;
    BlockDriverState *bs = bdrv_open(pl, filename, NULL, NULL, flags, &err);

    if (bs == NULL) {
        fail_msg("open '%s': %s", filename, error_get_pretty(err));
    }
    return bs;
}

/* raw over file, folded. */
static void expect_raw_over(BlockDriverState *bs, const char *child_driver, const char *shown)
{
    BlockDriverState *file = bdrv_get_child(bs, "file");

    assert_string_equal(bdrv_get_format_name(bs), "raw");
    assert_non_null(file);
    assert_string_equal(bdrv_get_format_name(file), child_driver);
    assert_ptr_equal(bs->through, file);
    assert_string_equal(bdrv_get_filename(bs), shown);
    assert_int_equal(bdrv_getlength(bs), FAKE_FILE_BYTES);
    assert_int_equal(bdrv_get_refcnt(bs), 1);
    assert_int_equal(bdrv_get_refcnt(file), 1);
    bdrv_unref(bs);
}

static void test_names(void **state)
{
    Platter *pl = *state;

    expect_raw_over(open_name(pl, "/x/y", RW), "file", "/x/y");
    expect_raw_over(open_name(pl, "file:/x/y", RW), "file", "/x/y");
    expect_raw_over(open_name(pl, "./a:b", RW), "file", "./a:b");
    expect_raw_over(open_name(pl, "file:a:b", RW), "file", "./a:b");
    expect_raw_over(open_name(pl, "net://h", RW), "net",
                    "json:{\"driver\": \"raw\", \"file\": {\"driver\": \"net\"}}");
    expect_raw_over(open_name(pl, "json:{'driver':'raw','file':{'filename':'x'}}", RW), "file",
                    "x");
    expect_raw_over(open_name(pl, "json:{'file.filename':'x'}", RW), "file", "x");
    expect_raw_over(fake_open(pl, "driver=raw,file.filename=x"), "file", "x");
    expect_raw_over(fake_open(pl, "file.driver=file,file.filename=x"), "file", "x");
    /* an option is a literal path, whatever it looks like */
    expect_raw_over(fake_open(pl, "driver=raw,file.filename=net://x"), "file", "./net://x");
}

/* A format in another one is not what a plain name opens. */
static void test_name_of_a_format_in_a_format(void **state)
{
    BlockDriverState *bs = fake_open(*state, "driver=raw,file.driver=raw,file.file.filename=x");

    assert_string_equal(bdrv_get_filename(bs),
                        "json:{\"driver\": \"raw\", \"file\": {\"driver\": \"raw\", "
                        "\"file\": {\"driver\": \"file\", \"filename\": \"x\"}}}");
    bdrv_unref(bs);
}

/* What a filter is put on is storage where no driver is named, whatever the filter. */
static void test_below_filter(void **state)
{
    Platter *pl = *state;
    BlockDriverState *bs = fake_open(pl, "driver=pass,file.filename=x");

    assert_string_equal(bdrv_get_format_name(bdrv_get_child(bs, "file")), "file");
    bdrv_unref(bs);
    bs = fake_open(pl, "driver=pass,file.driver=raw,file.file.filename=x");
    assert_string_equal(bdrv_get_format_name(bdrv_get_child(bs, "file")), "raw");
    bdrv_unref(bs);
}

static void test_protocol_alone(void **state)
{
    Platter *pl = *state;
    BlockDriverState *bs = fake_open(pl, "driver=file,filename=x,node-name=n1");

    assert_string_equal(bdrv_get_format_name(bs), "file");
    assert_string_equal(bdrv_get_node_name(bs), "n1");
    assert_ptr_equal(bdrv_find_node(pl, "n1"), bs);
    assert_string_equal(bdrv_get_filename(bs), "x");
    assert_null(bdrv_get_child(bs, "file"));
    bdrv_unref(bs);
    assert_null(bdrv_find_node(pl, "n1"));
}

static void test_reference(void **state)
{
    Platter *pl = *state;
    BlockDriverState *file = fake_open(pl, "driver=file,filename=x,node-name=n1");
    BlockDriverState *raw = fake_open(pl, "driver=raw,file=n1");
    BlockDriverState *again;
    Error *err = NULL;

    assert_ptr_equal(bdrv_get_child(raw, "file"), file);
    assert_int_equal(bdrv_get_refcnt(file), 2);
    again = bdrv_open(pl, NULL, "n1", NULL, RW, &err);
    assert_ptr_equal(again, file);
    bdrv_unref(again);
    assert_null(bdrv_open(pl, NULL, "n2", NULL, RW, &err));
    fake_expect_error(err, ENOENT, "'n2'");
    err = NULL;
    assert_null(bdrv_open(pl, "x", "n1", NULL, RW, &err));
    fake_expect_error(err, EINVAL, "'n1'");
    bdrv_unref(file);
    assert_ptr_equal(bdrv_find_node(pl, "n1"), file);
    bdrv_unref(raw);
    assert_null(bdrv_find_node(pl, "n1"));
}

static void test_json_and_options(void **state)
{
    Platter *pl = *state;
    Error *err = NULL;
    BlockOptions *options = block_options_parse("node-name=mine,read-only=on", NULL, &err);
    BlockDriverState *bs =
        bdrv_open(pl, "json:{'driver':'raw','node-name':'theirs','file':{'filename':'x'}}", NULL,
                  options, RW, &err);

    assert_non_null(bs);
    assert_string_equal(bdrv_get_node_name(bs), "mine");
    assert_true(bdrv_is_read_only(bs));
    bdrv_unref(bs);
}

struct refusal {
    const char *filename;
    const char *options;
    int flags;
    int err_no;
    const char *piece;
};

static const struct refusal refusals[] = {
    {NULL, "driver=nosuch,filename=x", RW, EINVAL, "'nosuch'"},
    {NULL, "driver=raw,file.filename=x,foo=1", RW, EINVAL, "'foo'"},
    {NULL, "driver=raw,file.filename=x,file.foo=1", RW, EINVAL, "'foo'"},
    {NULL, "driver=raw", RW, EINVAL, "A block device must be specified for \"file\""},
    {NULL, "driver=raw,file.driver=file", RW, EINVAL, "no filename"},
    {NULL, "filename=x", RW, EINVAL, "Must specify either driver or file"},
    {NULL, "node-name=x", RW, EINVAL, "Must specify either driver or file"},
    {NULL, NULL, RW, EINVAL, "Must specify either driver or file"},
    {NULL, "force-share=on", RW, EINVAL, "Must specify either driver or file"},
    {NULL, "discard=maybe", RW, EINVAL, "Must specify either driver or file"},
    {NULL, "driver=raw,file.discard=maybe", RW, EINVAL, "Must specify either driver or file"},
    {NULL, "driver=pass,file.file.filename=x", RW, EINVAL, "Must specify either driver or file"},
    {"json:{'driver':null}", NULL, RW, EINVAL, "driver"},
    {"json:{'driver':'raw','file':{'driver':null}}", NULL, RW, EINVAL, ""},
    {"json:{'driver':'raw','file':{'filename':7}}", NULL, RW, EINVAL, ""},
    {NULL, "driver=raw,file=nosuch", RW, ENOENT, "'nosuch'"},
    {NULL, "driver=raw,file.filename=x,node-name=9", RW, EINVAL, "'9'"},
    {NULL, "driver=raw,file.filename=x,node-name=#block1", RW, EINVAL, "'#block1'"},
    {NULL, "driver=raw,file.filename=x,node-name=", RW, EINVAL, "node-name"},
    {NULL, "driver=raw,file.filename=x,file.node-name=a,node-name=a", RW, EEXIST, "'a'"},
    {NULL, "driver=raw,file.filename=x,force-share=on", RW, EINVAL, "force-share"},
    {NULL, "driver=raw,file.filename=x,detect-zeroes=unmap", RW, EINVAL,
     "discard operation to unmap"},
    {NULL, "driver=raw,file.filename=x,read-only=maybe", RW, EINVAL, "read-only"},
    {NULL, "driver=raw,file.filename=x,discard=maybe", RW, EINVAL, "discard"},
    {NULL, "driver=raw,file.filename=x,cache.direct=2", RW, EINVAL, "cache.direct"},
    {NULL, "driver=raw,file.driver=raw,file.file.driver=raw", RW, EINVAL, "must be specified"},
    {"b:c", NULL, RW, EINVAL, "Unknown protocol 'b'"},
    {"net:x", NULL, RW, EINVAL, "net://"},
    {"json:{", NULL, RW, EINVAL, "JSON"},
    {"json:[]", NULL, RW, EINVAL, ""},
    {"json:{'filename':'x'}", NULL, RW, EINVAL, "Must specify"},
    {"json:{'driver':'raw','file':null}", NULL, RW, EINVAL,
     "A block device must be specified for \"file\""},
    {"json:{'driver':'raw','file':7}", NULL, RW, EINVAL, "'file'"},
    {"json:{'driver':7}", NULL, RW, EINVAL, "driver"},
    {"x", "driver=raw,file.driver=file,file.filename=y", RW, EINVAL, "twice"},
    {"x", "driver=raw,file=y", RW, EINVAL, "exclude each other"},
    {"x", "driver=two", RW, EINVAL, "A block device must be specified for \"b\""},
};

static void test_refusals(void **state)
{
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
        const struct refusal *r = &refusals[i];

        fake_open_fails(*state, r->filename, r->options, r->flags, r->err_no, r->piece);
    }
}

static void test_hints(void **state)
{
    Error *err = NULL;

    assert_null(bdrv_open(*state, NULL, NULL,
                          block_options_parse("driver=rwa,file.filename=x", NULL, NULL), RW, &err));
    assert_non_null(strstr(error_get_hint(err), "'raw'"));
    error_free(err);
    err = NULL;
    assert_null(bdrv_open(*state, "b:c", NULL, NULL, RW, &err));
    assert_non_null(strstr(error_get_hint(err), "'./b:c'"));
    error_free(err);
    err = NULL;
    assert_null(bdrv_open(
        *state, NULL, NULL,
        block_options_parse("driver=raw,file.filename=x,read-olny=on", NULL, NULL), RW, &err));
    assert_non_null(strstr(error_get_hint(err), "'read-only'"));
    error_free(err);
}

static void test_driver_error(void **state)
{
    fake.refuse_open = ENOENT;
    fake_open_fails(*state, "x", NULL, RW, ENOENT, "Could not open 'x'");
    fake.refuse_open = 0;
    fake.size = -EIO;
    fake_open_fails(*state, "x", NULL, RW, EIO, "size");
}

static void test_inheritance(void **state)
{
    Platter *pl = *state;
    BlockDriverState *bs =
        fake_open(pl, "driver=raw,read-only=on,cache.direct=on,cache.no-flush=on,"
                      "force-share=on,auto-read-only=on,detect-zeroes=on,"
                      "file.filename=x");
    BlockDriverState *file = bdrv_get_child(bs, "file");

    assert_int_equal(bdrv_get_flags(bs),
                     BDRV_O_NOCACHE | BDRV_O_NO_FLUSH | BDRV_O_FORCE_SHARE | BDRV_O_AUTO_RDONLY);
    assert_int_equal(bdrv_get_flags(file), BDRV_O_NOCACHE | BDRV_O_NO_FLUSH | BDRV_O_FORCE_SHARE |
                                               BDRV_O_AUTO_RDONLY | BDRV_O_UNMAP);
    assert_int_equal(bs->detect_zeroes, BDRV_DETECT_ZEROES_ON);
    assert_int_equal(file->detect_zeroes, BDRV_DETECT_ZEROES_OFF);
    assert_ptr_equal(bs->through, bs); /* it looks at writes, so it is not folded */
    bdrv_set_detect_zeroes(bs, BDRV_DETECT_ZEROES_OFF);
    assert_ptr_equal(bs->through, file);
    bdrv_unref(bs);

    bs = fake_open(pl, "driver=fmt,file.filename=x,backing.file.filename=y,discard=unmap");
    assert_true(bdrv_get_flags(bs) & BDRV_O_UNMAP);
    assert_false(bdrv_is_read_only(bdrv_get_child(bs, "file")));
    assert_true(bdrv_is_read_only(bdrv_get_child(bs, "backing")));
    assert_string_equal(bdrv_get_format_name(bdrv_get_child(bs, "backing")), "raw");
    assert_string_equal(bdrv_get_format_name(bdrv_get_child(bs, "file")), "file");
    bdrv_unref(bs);
}

static void test_auto_read_only(void **state)
{
    Platter *pl = *state;
    BlockDriverState *bs;

    fake.read_only_file = true;
    fake_open_fails(pl, "x", NULL, RW, EACCES, "read-only");
    bs = fake_open(pl, "driver=raw,auto-read-only=on,file.filename=x");
    assert_true(bdrv_is_read_only(bs));
    assert_true(bdrv_is_read_only(bdrv_get_child(bs, "file")));
    bdrv_unref(bs);
    bs = open_name(pl, "x", 0);
    assert_true(bdrv_is_read_only(bs));
    bdrv_unref(bs);
    fake.read_only_file = false;
    bs = fake_open(pl, "driver=raw,file.filename=x,file.read-only=on");
    assert_false(bdrv_is_read_only(bs)); /* whoever comes to write is refused */
    bdrv_unref(bs);
    fake_open_fails(pl, NULL, "driver=fmt,file.filename=x,file.read-only=on", RW, EPERM,
                    "is read-only");
}

/* json: of n filters over a file. */
static void nested_text(char *text, size_t bytes, int n)
{
    size_t at = (size_t)snprintf(text, bytes, "json:");

    for (int i = 0; i < n; i++) {
        at += (size_t)snprintf(text + at, bytes - at, "{'driver':'pass','file':");
    }
    at += (size_t)snprintf(text + at, bytes - at, "{'driver':'file','filename':'x'}");
    for (int i = 0; i < n; i++) {
        at += (size_t)snprintf(text + at, bytes - at, "}");
    }
    assert_true(at < bytes);
}

/* Nesting that text can ask for has an end. */
static void test_nesting(void **state)
{
    char text[8192];
    BlockDriverState *bs;
    Error *err = NULL;

    nested_text(text, sizeof(text), 60);
    bs = bdrv_open(*state, text, NULL, NULL, RW, &err);
    assert_non_null(bs);
    assert_int_equal(fake.live, 61);
    assert_non_null(bdrv_get_filename(bs));
    bdrv_unref(bs);
    nested_text(text, sizeof(text), 100);
    assert_null(bdrv_open(*state, text, NULL, NULL, RW, &err));
    assert_non_null(err);
    error_free(err);
}

static void test_create(void **state)
{
    Error *err = NULL;

    assert_int_equal(bdrv_create(*state, "x", NULL, &err), -ENOTSUP);
    fake_expect_error(err, ENOTSUP, "Protocol driver 'file' does not support image creation");
    err = NULL;
    assert_null(bdrv_find_creator("x", &err));
    fake_expect_error(err, ENOTSUP, "Protocol driver 'file' does not support image creation");
    err = NULL;
    assert_null(bdrv_find_creator("nosuch:x", &err));
    fake_expect_error(err, EINVAL, "Unknown protocol 'nosuch'");
    err = NULL;
    assert_int_equal(bdrv_create(*state, "x", block_options_parse("driver=file", NULL, NULL), &err),
                     -ENOTSUP);
    fake_expect_error(err, ENOTSUP, "'file' cannot create");
    err = NULL;
    assert_int_equal(
        bdrv_create(*state, "x", block_options_parse("driver=nosuch", NULL, NULL), &err), -EINVAL);
    fake_expect_error(err, EINVAL, "'nosuch'");
}

static void test_filename_json(void **state)
{
    BlockDriverState *bs = fake_open(*state, "driver=raw,offset=512,file.filename=x");
    const char *name = bdrv_get_filename(bs);
    BlockDriverState *again;

    assert_string_equal(name, "json:{\"offset\": \"512\", \"driver\": \"raw\", \"file\": "
                              "{\"driver\": \"file\", \"filename\": \"x\"}}");
    assert_ptr_equal(bdrv_get_filename(bs), name);
    again = open_name(*state, name, RW);
    assert_string_equal(bdrv_get_filename(again), name);
    bdrv_unref(again);
    bdrv_unref(bs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_names, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_name_of_a_format_in_a_format, fake_setup,
                                        fake_teardown),
        cmocka_unit_test_setup_teardown(test_below_filter, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_protocol_alone, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_reference, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_json_and_options, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_refusals, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_hints, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_driver_error, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_inheritance, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_auto_read_only, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_nesting, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_create, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_filename_json, fake_setup, fake_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
