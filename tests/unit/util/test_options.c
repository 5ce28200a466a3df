/* SPDX-License-Identifier: MIT */
/* platter/options.h and util/options.h: container, text in, JSON out. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../cmocka_all.h"

#include "util/json_print.h"
#include "util/options.h"

static char *json_of(const BlockOptions *opts)
{
    json_t *value = block_options_to_json_value(opts, NULL);
    char *text = json_print(value, JSON_PRINT_AS_MADE);

    json_decref(value);
    return text;
}

/* opts (owned) dump as want. */
static void expect_json(BlockOptions *opts, const char *want)
{
    char *json;

    assert_non_null(opts);
    json = json_of(opts);
    assert_string_equal(json, want);
    free(json);
    block_options_free(opts);
}

static void key_value_lists(void **state)
{
    expect_json(block_options_parse("", NULL, NULL), "{}");
    expect_json(block_options_parse("driver=raw,file.filename=x", NULL, NULL),
                "{\"driver\": \"raw\", \"file\": {\"filename\": \"x\"}}");
    expect_json(block_options_parse("a=x,,y,b=,,,c=,,", NULL, NULL),
                "{\"a\": \"x,y\", \"b\": \",\", \"c\": \",\"}");
    expect_json(block_options_parse("a=", NULL, NULL), "{\"a\": \"\"}");
    expect_json(block_options_parse("a=1=2", NULL, NULL), "{\"a\": \"1=2\"}");
    expect_json(block_options_parse("raw,a=1", "driver", NULL),
                "{\"driver\": \"raw\", \"a\": \"1\"}");
    expect_json(block_options_parse("a,,b", "driver", NULL), "{\"driver\": \"a,b\"}");
    expect_json(block_options_parse("a=1,b=2,a=3", NULL, NULL), "{\"a\": \"3\", \"b\": \"2\"}");
}

static void bad_key_value_lists(void **state)
{
    static const char *const cases[] = {
        "a",        "a,b=1",      "=1",        ",a=1",      "a=1,",          "a=1,b",
        "a=1,=2",   ".=1",        "a.=1",      ".a=1",      "a..b=1",        "a b=1",
        "a/b=1",    "\xc3\xa9=1", "a=1,a.b=2", "a.b=2,a=1", "a.b.c=1,a.b=2", "a=1,a.b.c=2",
        "a=1,b=2,", "a=1 ,b",     "a=1,  b=2", "*=1",
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        Error *err = NULL;

        if (block_options_parse(cases[i], NULL, &err)) {
            fail_msg("'%s' was taken", cases[i]);
        }
        assert_int_equal(error_get_errno(err), EINVAL);
        error_free(err);
        assert_null(block_options_parse(cases[i], NULL, NULL));
    }
}

static void json_is_flattened(void **state)
{
    BlockOptions *opts = block_options_parse_json(
        "json:{'driver':'raw','file':{'driver':'nbd','server':[{'host':'a'},{'host':'b'}]},"
        "'x.y':1,'z':null,'t':true,'r':1.5}",
        NULL);

    assert_non_null(opts);
    assert_string_equal(block_options_get_str(opts, "file.server.1.host"), "b");
    assert_null(block_options_get_str(opts, "x.y"));
    assert_true(block_options_has(opts, "x.y"));
    assert_true(block_options_is_null(opts, "z"));
    assert_int_equal(block_options_count(opts), 8);
    expect_json(opts, "{\"driver\": \"raw\", \"file\": {\"driver\": \"nbd\", \"server\": "
                      "{\"0\": {\"host\": \"a\"}, \"1\": {\"host\": \"b\"}}}, \"x\": {\"y\": 1}, "
                      "\"z\": null, \"t\": true, \"r\": 1.5}");
    expect_json(block_options_parse_json("{}", NULL), "{}");
}

static void bad_json(void **state)
{
    static const char *const cases[] = {
        "",
        "json:",
        "[]",
        "1",
        "'a'",
        "{'a':1",
        "{'':1}",
        "{'a':{'':1}}",
        "{'a b':1}",
        "{'a.':1}",
        "{'a':{}}",
        "{'a':[]}",
        "{'a':[{}]}",
        "{'a':1,'a':2}",
        "{'a.b':1,'a':{'b':2}}",
        "{'a':1,'a.b':2}",
        "{'a':{'b':2},'a.b.c':1}",
        "json:json:{}",
        "{'a':1}x",
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        Error *err = NULL;

        if (block_options_parse_json(cases[i], &err)) {
            fail_msg("'%s' was taken", cases[i]);
        }
        assert_int_equal(error_get_errno(err), EINVAL);
        error_free(err);
        assert_null(block_options_parse_json(cases[i], NULL));
    }
}

static void limits(void **state)
{
    char *text = malloc(BLOCK_OPTIONS_TEXT_MAX + 2);
    BlockOptions *opts;
    Error *err = NULL;
    size_t len = 0;

    memset(text, 'x', BLOCK_OPTIONS_TEXT_MAX + 1);
    text[1] = '=';
    text[BLOCK_OPTIONS_TEXT_MAX + 1] = '\0';
    assert_null(block_options_parse(text, NULL, &err));
    assert_int_equal(error_get_errno(err), E2BIG);
    error_free(err);
    text[BLOCK_OPTIONS_TEXT_MAX] = '\0';
    opts = block_options_parse(text, NULL, NULL);
    assert_non_null(opts);
    block_options_free(opts);

    for (int i = 0; i <= BLOCK_OPTIONS_KEYS_MAX; i++) {
        len += (size_t)sprintf(text + len, "%sk%d=v", i ? "," : "", i);
    }
    err = NULL;
    assert_null(block_options_parse(text, NULL, &err));
    assert_int_equal(error_get_errno(err), E2BIG);
    error_free(err);
    *strrchr(text, ',') = '\0';
    opts = block_options_parse(text, NULL, NULL);
    assert_int_equal(block_options_count(opts), BLOCK_OPTIONS_KEYS_MAX);
    assert_int_equal(block_options_set_str(opts, "more", "v"), -E2BIG);
    assert_int_equal(block_options_set_str(opts, "k0", "w"), 0);
    block_options_free(opts);
    free(text);
}

static void key_syntax(void **state)
{
    char key[BLOCK_OPTIONS_KEY_BYTES_MAX + 2];
    char deep[2 * BLOCK_OPTIONS_KEY_DEPTH_MAX + 2];

    assert_true(block_options_key_wellformed("a"));
    assert_true(block_options_key_wellformed("0.x-y_Z"));
    assert_false(block_options_key_wellformed(""));
    memset(key, 'k', sizeof(key));
    key[BLOCK_OPTIONS_KEY_BYTES_MAX] = '\0';
    assert_true(block_options_key_wellformed(key));
    key[BLOCK_OPTIONS_KEY_BYTES_MAX] = 'k';
    key[BLOCK_OPTIONS_KEY_BYTES_MAX + 1] = '\0';
    assert_false(block_options_key_wellformed(key));
    for (size_t i = 0; i < sizeof(deep); i++) {
        deep[i] = i % 2 ? '.' : 'a';
    }
    deep[2 * BLOCK_OPTIONS_KEY_DEPTH_MAX + 1] = '\0';
    assert_false(block_options_key_wellformed(deep));
    deep[2 * BLOCK_OPTIONS_KEY_DEPTH_MAX - 1] = '\0';
    assert_true(block_options_key_wellformed(deep));
}

static void set_get_del(void **state)
{
    BlockOptions *opts = block_options_new();

    assert_int_equal(block_options_set_str(opts, "a", "1"), 0);
    assert_int_equal(block_options_set_bool(opts, "b", true), 0);
    assert_int_equal(block_options_set_u64(opts, "c", UINT64_MAX), 0);
    assert_int_equal(block_options_set_u64(opts, "d", 5), 0);
    assert_int_equal(block_options_set_str(opts, "a.b", "1"), -EINVAL);
    assert_int_equal(block_options_set_str(opts, "no key", "1"), -EINVAL);
    assert_int_equal(block_options_set_str(opts, "a", "2"), 0);
    assert_string_equal(block_options_get_str(opts, "a"), "2");
    assert_null(block_options_get_str(opts, "b"));
    assert_null(block_options_get_str(opts, "nothing"));
    assert_int_equal(block_options_default_str(opts, "a", "3"), 0);
    assert_int_equal(block_options_default_str(opts, "e", "4"), 0);
    block_options_del(opts, "d");
    block_options_del(opts, "d");
    assert_false(block_options_has(opts, "d"));
    expect_json(opts, "{\"a\": \"2\", \"b\": true, \"c\": \"18446744073709551615\", \"e\": \"4\"}");
}

static void walk_and_rest(void **state)
{
    BlockOptions *opts = block_options_parse("z=1,a=2,m.n=3", NULL, NULL);
    const char *key = block_options_next_key(opts, NULL);
    Error *err = NULL;

    assert_string_equal(key, "z");
    key = block_options_next_key(opts, key);
    assert_string_equal(key, "a");
    key = block_options_next_key(opts, key);
    assert_string_equal(key, "m.n");
    assert_null(block_options_next_key(opts, key));
    block_options_del(opts, "z");
    assert_int_equal(block_options_refuse_rest(opts, "driver 'raw'", &err), -EINVAL);
    assert_string_equal(error_get_pretty(err), "driver 'raw' does not know the option 'a'");
    error_free(err);
    block_options_del(opts, "a");
    assert_true(block_options_has_prefix(opts, "m."));
    assert_false(block_options_has_prefix(opts, "n."));
    block_options_del(opts, "m.n");
    assert_int_equal(block_options_refuse_rest(opts, "x", NULL), 0);
    block_options_free(opts);
}

static void prefixes(void **state)
{
    BlockOptions *opts = block_options_parse("file.a=1,b=2,file.c.d=3,filex.e=4", NULL, NULL);
    BlockOptions *file = block_options_take_prefix(opts, "file.");
    BlockOptions *copy;

    assert_int_equal(block_options_put_prefix(opts, "new.", file), 0);
    expect_json(file, "{\"a\": \"1\", \"c\": {\"d\": \"3\"}}");
    copy = block_options_copy(opts);
    block_options_free(opts);
    expect_json(copy, "{\"b\": \"2\", \"filex\": {\"e\": \"4\"}, \"new\": {\"a\": \"1\", \"c\": "
                      "{\"d\": \"3\"}}}");
}

static void values_that_json_cannot_hold(void **state)
{
    BlockOptions *opts = block_options_parse("a=\xff", NULL, NULL);
    Error *err = NULL;

    assert_string_equal(block_options_get_str(opts, "a"), "\xff");
    assert_null(block_options_to_json_value(opts, &err));
    assert_int_equal(error_get_errno(err), EILSEQ);
    error_free(err);
    block_options_free(opts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(key_value_lists),
        cmocka_unit_test(bad_key_value_lists),
        cmocka_unit_test(json_is_flattened),
        cmocka_unit_test(bad_json),
        cmocka_unit_test(limits),
        cmocka_unit_test(key_syntax),
        cmocka_unit_test(set_get_del),
        cmocka_unit_test(walk_and_rest),
        cmocka_unit_test(prefixes),
        cmocka_unit_test(values_that_json_cannot_hold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
