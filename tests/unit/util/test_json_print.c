/* SPDX-License-Identifier: MIT */
/* util/json_print.h and util/text.h. The orders and spellings wanted here were taken from what the
 * installed qemu-img and qemu-storage-daemon print. */
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../cmocka_all.h"

#include "util/json.h"
#include "util/json_print.h"

static void expect_flags(json_t *value, unsigned flags, const char *want)
{
    char *text = json_print(value, flags);

    assert_non_null(value);
    assert_non_null(text);
    assert_string_equal(text, want);
    free(text);
    json_decref(value);
}

/* The text in, read and printed, is as wanted. */
static void expect(const char *in, const char *want)
{
    Error *err = NULL;
    json_t *value = json_parse_text(in, strlen(in), &err);

    assert_null(err);
    expect_flags(value, 0, want);
}

static void members_in_the_order_of_the_reference(void **state)
{
    expect("{'error': {'desc': 1, 'class': 2}, 'id': 3}",
           "{\"id\": 3, \"error\": {\"class\": 2, \"desc\": 1}}");
    expect("{'driver': 'raw', 'size': 65536, 'offset': 512, 'file': {'filename': 'x', "
           "'driver': 'file'}}",
           "{\"offset\": 512, \"driver\": \"raw\", \"size\": 65536, \"file\": {\"driver\": "
           "\"file\", \"filename\": \"x\"}}");
    expect("{'driver': 1, 'image': 2, 'inject-error.0.event': 3, 'inject-error.0.errno': 4, "
           "'set-state.0.event': 5, 'set-state.0.new_state': 6}",
           "{\"set-state.0.event\": 5, \"image\": 2, \"driver\": 1, \"set-state.0.new_state\": 6, "
           "\"inject-error.0.errno\": 4, \"inject-error.0.event\": 3}");
    expect("{'compat': 1, 'extended-l2': 2, 'corrupt': 3, 'refcount-bits': 4, 'bitmaps': 5, "
           "'lazy-refcounts': 6, 'compression-type': 7}",
           "{\"compat\": 1, \"compression-type\": 7, \"lazy-refcounts\": 6, \"bitmaps\": 5, "
           "\"refcount-bits\": 4, \"corrupt\": 3, \"extended-l2\": 2}");
}

/* minor and micro share a bucket, and so do backing_file and write_threshold. */
static void newest_first_within_a_bucket(void **state)
{
    json_t *object;
    int ret = 0;

    assert_int_equal(json_bucket("minor"), json_bucket("micro"));
    expect("{'major': 7, 'minor': 2, 'micro': 22}", "{\"micro\": 22, \"minor\": 2, \"major\": 7}");
    expect("{'micro': 22, 'minor': 2, 'major': 7}", "{\"minor\": 2, \"micro\": 22, \"major\": 7}");
    object = json_object();
    json_add(object, "backing_file", json_integer(1), &ret);
    json_add(object, "write_threshold", json_integer(2), &ret);
    json_add(object, "backing_file", json_integer(3), &ret); /* keeps its place */
    expect_flags(object, 0, "{\"write_threshold\": 2, \"backing_file\": 3}");
}

static void as_made(void **state)
{
    json_t *object = json_pack("{s:i, s:{s:i, s:i}}", "micro", 1, "a", "minor", 2, "micro", 3);

    expect_flags(object, JSON_PRINT_AS_MADE, "{\"micro\": 1, \"a\": {\"minor\": 2, \"micro\": 3}}");
}

static void one_in_each_line(void **state)
{
    json_t *value = json_pack("{s:[i, {s:[]}], s:{}}", "a", 1, "b", "bitmaps");

    expect_flags(value, JSON_PRINT_LINES,
                 "{\n    \"bitmaps\": {\n    },\n    \"a\": [\n        1,\n        {\n"
                 "            \"b\": [\n            ]\n        }\n    ]\n}");
}

static void scalars(void **state)
{
    expect("[null, true, false, -1, 9223372036854775807]",
           "[null, true, false, -1, 9223372036854775807]");
    expect("[1e30, -0.0, 0.1, 1e-7, 123456789.123, 1e17, 1.0, 1.50]",
           "[1e+30, -0, 0.10000000000000001, 9.9999999999999995e-08, 123456789.123, 1e+17, 1, "
           "1.5]");
}

static void the_point_is_no_matter_of_the_locale(void **state)
{
    static const char *const names[] = {"de_DE.UTF-8", "fr_FR.UTF-8", "nb_NO.UTF-8"};
    bool set = false;

    for (size_t i = 0; i < 3 && !set; i++) {
        set = setlocale(LC_NUMERIC, names[i]) != NULL;
    }
    expect("[1.5]", "[1.5]");
    setlocale(LC_NUMERIC, "C");
    if (!set) {
        skip(); /* no such locale here */
    }
}

static void strings_of_any_bytes(void **state)
{
    static const struct {
        const char *bytes, *want;
    } cases[] = {
        {"\x01\x7f\n\t\b\f\r\"\\/'", "\\u0001\\u007F\\n\\t\\b\\f\\r\\\"\\\\/'"},
        {"\xc3\xa9\xe2\x82\xac\xf0\x9d\x84\x9e", "\\u00E9\\u20AC\\uD834\\uDD1E"},
        {"\xff", "\\uFFFD"},
        {"\x80\x80", "\\uFFFD\\uFFFD"},
        {"\xc3x", "\\uFFFDx"},
        {"\xe2\x82", "\\uFFFD"},
        {"\xe2\x82\xc3\xa9", "\\uFFFD\\u00E9"},
        {"\xf0\x9d\x84", "\\uFFFD"},
        {"\xc0\x80", "\\u0000"},
        {"\xc1\x81", "\\uFFFD"},
        {"\xe0\x80\x80", "\\uFFFD"},
        {"\xed\xa0\x80\xed\xb0\x80", "\\uFFFD\\uFFFD"},
        {"\xf5\x80\x80\x80", "\\uFFFD"},
        {"\xf8\x88\x80\x80\x80", "\\uFFFD"},
        {"\xfc\x80\x80\x80\x80\x80", "\\uFFFD"},
        {"\xfe\x80", "\\uFFFD\\uFFFD"},
        {"\xf4\x90\x80\x80", "\\uFFFD"},
        {"\xef\xbf\xbf\xef\xb7\x90\xf0\x9f\xbf\xbe\xf4\x8f\xbf\xbf",
         "\\uFFFD\\uFFFD\\uFFFD\\uFFFD"},
        {"\xf3\xa0\x80\x81", "\\uDB40\\uDC01"},
        {"\xf0\x9d\x84\x80\x80", "\\uD834\\uDD00\\uFFFD"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char want[64];

        snprintf(want, sizeof(want), "\"%s\"", cases[i].want);
        expect_flags(json_text(cases[i].bytes), 0, want);
    }
    expect_flags(json_stringn_nocheck("a\0b", 3), 0, "\"a\\u0000b\"");
}

/* ---- properties ---- */

static unsigned seed;

static unsigned pick(unsigned below)
{
    seed = seed * 1103515245u + 12345u;
    return (seed >> 8) % below;
}

/* Few buckets, so that many names meet in one. */
static void random_name(char *name)
{
    size_t bytes = pick(7);

    for (size_t i = 0; i < bytes; i++) {
        name[i] = "ab-\xc3"[pick(4)];
    }
    name[bytes] = '\0';
}

/* The order is what putting each in front of its bucket makes, whatever was replaced on the way. */
static void order_is_a_function_of_the_insertions(void **state)
{
    const char *const given = getenv("PLATTER_SEED");

    seed = given ? (unsigned)strtoul(given, NULL, 0) : 20261126;
    print_message("PLATTER_SEED=%u\n", seed);
    for (int round = 0; round < 300; round++) {
        char names[64][8];
        json_t *object = json_object();
        struct json_member *members;
        size_t count = 0, got;
        int ret = 0;

        for (unsigned i = pick(64); i > 0; i--) {
            bool fresh;

            random_name(names[count]);
            fresh = json_object_get(object, names[count]) == NULL;
            json_add(object, names[count], json_integer(i), &ret);
            count += fresh;
        }
        assert_int_equal(ret, 0);
        members = json_members(object, &got);
        assert_non_null(members);
        assert_int_equal(got, count);
        for (size_t i = 0; i + 1 < got; i++) {
            unsigned a = json_bucket(members[i].key), b = json_bucket(members[i + 1].key);

            assert_true(a < b || (a == b && members[i].made > members[i + 1].made));
            assert_string_equal(members[i].key, names[members[i].made]);
        }
        free(members);
        json_decref(object);
    }
}

static void texts_grow(void **state)
{
    struct text t = {0};
    char *text = text_end(&t);

    assert_string_equal(text, "");
    free(text);
    for (int i = 0; i < 1000; i++) {
        text_printf(&t, "%d", i % 10);
        text_put(&t, "xy", 1);
    }
    text = text_end(&t);
    assert_int_equal(strlen(text), 2000);
    assert_memory_equal(text + 1990, "5x6x7x8x9x", 10);
    free(text);
    t.failed = true;
    text_puts(&t, "lost");
    assert_null(text_end(&t));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_in_the_order_of_the_reference),
        cmocka_unit_test(newest_first_within_a_bucket),
        cmocka_unit_test(as_made),
        cmocka_unit_test(one_in_each_line),
        cmocka_unit_test(scalars),
        cmocka_unit_test(the_point_is_no_matter_of_the_locale),
        cmocka_unit_test(strings_of_any_bytes),
        cmocka_unit_test(order_is_a_function_of_the_insertions),
        cmocka_unit_test(texts_grow),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
