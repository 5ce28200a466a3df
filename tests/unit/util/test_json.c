/* SPDX-License-Identifier: MIT */
/* util/json.h: what is taken, what is refused and at which byte, limits. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../cmocka_all.h"

#include "util/json.h"

static json_t *parse(const char *text, Error **errp)
{
    return json_parse_text(text, strlen(text), errp);
}

/* text parses to what dumps as want. */
static void expect(const char *text, const char *want)
{
    Error *err = NULL;
    json_t *json = parse(text, &err);
    char *dump;

    if (!json) {
        fail_msg("'%s': %s", text, error_get_pretty(err));
    }
    dump = json_dumps(json, JSON_ENCODE_ANY | JSON_COMPACT);
    assert_string_equal(dump, want);
    free(dump);
    json_decref(json);
}

static void values(void **state)
{
    expect("{}", "{}");
    expect(" [ ] ", "[]");
    expect("\t\r\n{ \"a\" : 1 }\n", "{\"a\":1}");
    expect("{'driver':'raw','file':{'driver':'file'}}",
           "{\"driver\":\"raw\",\"file\":{\"driver\":\"file\"}}");
    expect("[true,false,null]", "[true,false,null]");
    expect("[0,-0,1,-1,123456789]", "[0,0,1,-1,123456789]");
    expect("{\"b\":1,\"a\":2,\"c\":[3,[4]]}", "{\"b\":1,\"a\":2,\"c\":[3,[4]]}");
    expect("\"x\"", "\"x\"");
    expect("1.5", "1.5");
    expect("[1e2,-1.25E-2,0.5,1E+1]", "[100.0,-0.012500000000000001,0.5,10.0]");
}

static void strings(void **state)
{
    expect("'it\\'s \"so\"'", "\"it's \\\"so\\\"\"");
    expect("\"it's\"", "\"it's\"");
    expect("'\\\\ \\/ \\b\\f\\n\\r\\t'", "\"\\\\ / \\b\\f\\n\\r\\t\"");
    expect("'\\u0041\\u00e9\\u20AC\\ud83d\\uDE00'", "\"A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"");
    expect("'\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xf4\x8f\xbf\xbf'",
           "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xf4\x8f\xbf\xbf\"");
    expect("''", "\"\"");
    expect("'\x7f'", "\"\x7f\"");
}

static void numbers_stay_exact(void **state)
{
    uint64_t n = 0;
    json_t *json;

    expect("[9223372036854775807,-9223372036854775808]",
           "[9223372036854775807,-9223372036854775808]");
    expect("[9223372036854775808,18446744073709551615]",
           "[\"9223372036854775808\",\"18446744073709551615\"]");
    json = parse("18446744073709551615", NULL);
    assert_true(json_get_u64(json, &n));
    assert_true(n == UINT64_MAX);
    json_decref(json);
    json = json_u64(7);
    assert_true(json_is_integer(json) && json_get_u64(json, &n) && n == 7);
    json_decref(json);
    json = json_integer(-1);
    assert_false(json_get_u64(json, &n));
    json_decref(json);
    json = json_string("18446744073709551616");
    assert_false(json_get_u64(json, &n));
    json_decref(json);
    json = json_string("");
    assert_false(json_get_u64(json, &n));
    json_decref(json);
}

static void refusals_name_the_byte(void **state)
{
    static const struct {
        const char *text;
        const char *message;
    } cases[] = {
        {"", "at byte 0: text ends too early"},
        {"   ", "at byte 3: text ends too early"},
        {"{", "at byte 1: expected a key"},
        {"{a:1}", "at byte 1: expected a value"},
        {"{1:1}", "at byte 1: expected a key"},
        {"{\"a\"}", "at byte 4: expected ':'"},
        {"{\"a\" 1}", "at byte 5: expected ':'"},
        {"{\"a\":}", "at byte 5: expected a value"},
        {"{\"a\":1", "at byte 6: expected ',' or '}'"},
        {"{\"a\":1,}", "at byte 7: expected a key"},
        {"{\"a\":1]", "at byte 6: expected ',' or '}'"},
        {"{\"a\":1 \"b\":2}", "at byte 7: expected ',' or '}'"},
        {"{,}", "at byte 1: expected a key"},
        {"[1,]", "at byte 3: expected a value"},
        {"[1", "at byte 2: expected ',' or ']'"},
        {"[1 2]", "at byte 3: expected ',' or ']'"},
        {"[,1]", "at byte 1: expected a value"},
        {"]", "at byte 0: expected a value"},
        {":", "at byte 0: expected a value"},
        {"{} {}", "at byte 3: text behind the value"},
        {"{}x", "at byte 2: expected a value"},
        {"1 2", "at byte 2: text behind the value"},
        {"{\"a\":1,\"a\":2}", "at byte 7: key 'a' again"},
        {"{\"a\":1,\"\\u0061\":2}", "at byte 7: key 'a' again"},
        {"'abc", "at byte 0: string without end"},
        {"\"abc'", "at byte 0: string without end"},
        {"'abc\\'", "at byte 0: string without end"},
        {"'a\nb'", "at byte 2: control character"},
        {"'a\tb'", "at byte 2: control character"},
        {"'\\x41'", "at byte 1: bad escape"},
        {"'\\", "at byte 1: bad escape"},
        {"'\\u12'", "at byte 1: bad escape"},
        {"'\\u12g4'", "at byte 1: bad escape"},
        {"'\\u0000'", "at byte 1: bad escape"},
        {"'\\ud800'", "at byte 1: bad escape"},
        {"'\\ud800x'", "at byte 1: bad escape"},
        {"'\\ud800\\u0041'", "at byte 1: bad escape"},
        {"'\\udc00'", "at byte 1: bad escape"},
        {"'\x80'", "at byte 1: not UTF-8"},
        {"'\xc3'", "at byte 1: not UTF-8"},
        {"'\xc0\xaf'", "at byte 1: not UTF-8"},
        {"'\xe0\x80\xaf'", "at byte 1: not UTF-8"},
        {"'\xed\xa0\x80'", "at byte 1: not UTF-8"},
        {"'\xf4\x90\x80\x80'", "at byte 1: not UTF-8"},
        {"'\xf8\x88\x80\x80\x80'", "at byte 1: not UTF-8"},
        {"'\xff'", "at byte 1: not UTF-8"},
        {"'\xe2\x82", "at byte 1: not UTF-8"},
        {"\xef\xbb\xbf{}", "at byte 0: expected a value"},
        {"01", "at byte 0: not a number"},
        {"-", "at byte 0: not a number"},
        {"-x", "at byte 0: not a number"},
        {"1.", "at byte 0: not a number"},
        {"1.e5", "at byte 0: not a number"},
        {"1e", "at byte 0: not a number"},
        {"1e+", "at byte 0: not a number"},
        {"+1", "at byte 0: expected a value"},
        {".5", "at byte 0: expected a value"},
        {"0x10", "at byte 1: expected a value"},
        {"18446744073709551616", "at byte 0: number does not fit"},
        {"-9223372036854775809", "at byte 0: number does not fit"},
        {"1e999", "at byte 0: number is too large"},
        {"True", "at byte 0: expected a value"},
        {"nul", "at byte 0: expected a value"},
        {"nulll", "at byte 0: expected a value"},
        {"NaN", "at byte 0: expected a value"},
        {"/* */ 1", "at byte 0: expected a value"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        Error *err = NULL;

        if (parse(cases[i].text, &err)) {
            fail_msg("'%s' was taken", cases[i].text);
        }
        if (!strstr(error_get_pretty(err), cases[i].message)) {
            fail_msg("'%s': %s", cases[i].text, error_get_pretty(err));
        }
        assert_int_equal(error_get_errno(err), EINVAL);
        error_free(err);
        assert_null(parse(cases[i].text, NULL));
    }
}

static void nul_bytes_are_refused(void **state)
{
    static const char outside[] = "{}\0";
    static const char inside[] = "'a\0b'";
    Error *err = NULL;

    assert_null(json_parse_text(outside, sizeof(outside) - 1, &err));
    assert_non_null(strstr(error_get_pretty(err), "at byte 2: NUL"));
    error_free(err);
    err = NULL;
    assert_null(json_parse_text(inside, sizeof(inside) - 1, &err));
    assert_non_null(strstr(error_get_pretty(err), "at byte 2: control"));
    error_free(err);
}

static void expect_limit(const char *text, size_t bytes, bool fits)
{
    Error *err = NULL;
    json_t *json = json_parse_text(text, bytes, &err);

    if (fits) {
        assert_non_null(json);
        json_decref(json);
    } else {
        assert_null(json);
        assert_int_equal(error_get_errno(err), E2BIG);
        error_free(err);
    }
}

static void limits(void **state)
{
    char *text = malloc(JSON_TEXT_MAX + 2);
    char nest[2 * JSON_DEPTH_MAX + 2];
    size_t len = 0;
    json_t *own;

    memset(text, ' ', JSON_TEXT_MAX + 1);
    text[0] = '1';
    expect_limit(text, JSON_TEXT_MAX, true);
    expect_limit(text, JSON_TEXT_MAX + 1, false);

    memset(nest, '[', JSON_DEPTH_MAX);
    memset(nest + JSON_DEPTH_MAX, ']', JSON_DEPTH_MAX);
    expect_limit(nest, 2 * JSON_DEPTH_MAX, true);
    memset(nest, '[', JSON_DEPTH_MAX + 1);
    memset(nest + JSON_DEPTH_MAX + 1, ']', JSON_DEPTH_MAX + 1);
    expect_limit(nest, 2 * JSON_DEPTH_MAX + 2, false);

    for (int keys = JSON_KEYS_MAX; keys <= JSON_KEYS_MAX + 1; keys++) {
        len = 0;
        for (int i = 0; i < keys; i++) {
            len += (size_t)sprintf(text + len, "%c\"k%d\":0", i ? ',' : '{', i);
        }
        text[len++] = '}';
        expect_limit(text, len, keys == JSON_KEYS_MAX);
    }
    text[len] = '\0';
    own = json_parse_own(text, NULL);
    assert_int_equal(json_object_size(own), JSON_KEYS_MAX + 1);
    json_decref(own);
    memset(text, ' ', JSON_TEXT_MAX);
    memcpy(text + JSON_TEXT_MAX, "1", 2);
    own = json_parse_own(text, NULL);
    assert_true(json_is_integer(own));
    json_decref(own);
    memset(text, '[', JSON_TEXT_MAX);
    expect_limit(text, JSON_TEXT_MAX, false);
    free(text);
}

/* Every cut of a text is refused, none crashes. */
static void cut_texts(void **state)
{
    static const char text[] = "{'a':[1,-2.5e1,\"\\u00e9\\ud83d\\ude00\",true],'b':{'c':null}}";

    for (size_t bytes = 0; bytes < sizeof(text) - 1; bytes++) {
        char *copy = malloc(bytes ? bytes : 1);

        memcpy(copy, text, bytes);
        assert_null(json_parse_text(copy, bytes, NULL));
        free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values),
        cmocka_unit_test(strings),
        cmocka_unit_test(numbers_stay_exact),
        cmocka_unit_test(refusals_name_the_byte),
        cmocka_unit_test(nul_bytes_are_refused),
        cmocka_unit_test(limits),
        cmocka_unit_test(cut_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
