/* SPDX-License-Identifier: MIT */
/* Framing: what comes out of a stream does not depend on how it is cut. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmocka_all.h"
#include "control/json_stream.h"
#include "util/json.h"

#define TOLD_MAX 4096

/* Feed a piece; what comes out is appended to told: the value, or "!" for an error. */
static void feed(struct json_stream *stream, const char *data, size_t bytes, char *told)
{
    while (bytes > 0) {
        json_t *value = NULL;
        Error *err = NULL;
        size_t used = 0;
        enum json_stream_result result = json_stream_next(stream, data, bytes, &used, &value, &err);

        assert_true(used <= bytes);
        assert_true(result != JSON_STREAM_MORE || used == bytes);
        assert_int_equal(result == JSON_STREAM_VALUE, value != NULL);
        assert_int_equal(result == JSON_STREAM_ERROR, err != NULL);
        if (value != NULL) {
            char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);

            assert_non_null(text);
            assert_true(strlen(told) + strlen(text) + 2 < TOLD_MAX);
            strcat(told, text);
            strcat(told, ";");
            free(text);
        } else if (err != NULL) {
            strcat(told, "!;");
        }
        json_decref(value);
        error_free(err);
        data += used;
        bytes -= used;
    }
}

static void check_bytes(const char *data, size_t bytes, const char *expected)
{
    for (size_t first = 0; first <= bytes; first++) { /* every split in two */
        struct json_stream stream = {0};
        char told[TOLD_MAX] = "";

        feed(&stream, data, first, told);
        feed(&stream, data + first, bytes - first, told);
        assert_string_equal(told, expected);
        json_stream_fini(&stream);
    }
    for (size_t piece = 1; piece <= 3; piece++) { /* and in small pieces */
        struct json_stream stream = {0};
        char told[TOLD_MAX] = "";

        for (size_t at = 0; at < bytes; at += piece) {
            feed(&stream, data + at, bytes - at < piece ? bytes - at : piece, told);
        }
        assert_string_equal(told, expected);
        json_stream_fini(&stream);
    }
}

static void check(const char *data, const char *expected)
{
    check_bytes(data, strlen(data), expected);
}

static void test_values(void **state)
{
    check("", "");
    check(" \r\n\t", "");
    check("{}", "{};");
    check("{}{}[]\n[[]]", "{};{};[];[[]];");
    check("{\"a\": \"}\\\"{\", 'b': '\"\\'['} 12 ", "{\"a\":\"}\\\"{\",\"b\":\"\\\"'[\"};12;");
    check("true{}null\"x\"'y'-1.5\n", "true;{};null;\"x\";\"y\";-1.5;");
    check("{\"a\":\"\\\\\"}{}", "{\"a\":\"\\\\\"};{};");
    check("12", ""); /* more digits may come */
    check("{\"a", "");
    check("\"a\\u00e9\xc3\xa9\"", "\"a\xc3\xa9\xc3\xa9\";");
}

static void test_faults_go_on(void **state)
{
    check("{]{}", "!;{};");
    check("[}{}", "!;{};");
    check("{\"a\":[1}{}", "!;{};");
    check("}{}", "!;{};");
    check("]{}", "!;{};");
    check(",{}:{}", "!;{};!;{};");
    check("{\"a\":tru}{}", "!;{};");
    check("xyz {}", "!;{};");
    check("{\"a\" 1}{}", "!;{};");
    check("{\"a\":1,}{}", "!;{};");
    check("{\"a\":1,\"a\":2}{}", "!;{};");
    check("{\"a\":\"\\x\"}{}", "!;{};");
    check("{\"a\":\"\xc3\"}{}", "!;{};");
    check("\xc3\xbf {}", "!;{};");
    /* a byte that cannot be: the rest of the line, or up to a bracket */
    check("{\"a\n{}", "!;{};");
    check("{\"a\t\"}{}", "!;{};");
    check("{\"a\x01 \"}xx,]\n{}", "!;{};");
    check_bytes("\0{}", 3, "!;{};");
    check("\x01\x02\x7f{}", "!;{};");
    /* 0xFF */
    check("\xff", "!;");
    check("\xff\xff{}", "!;!;{};");
    check("{\"a\":[\"b\xff{}", "!;{};");
    check("12\xff{}", "!;{};");
}

static char *repeat(const char *head, char c, size_t n, const char *tail)
{
    char *text = malloc(strlen(head) + n + strlen(tail) + 1);

    assert_non_null(text);
    strcpy(text, head);
    memset(text + strlen(head), c, n);
    strcpy(text + strlen(head) + n, tail);
    return text;
}

/* In one piece; the limit is far away from any border of pieces. */
static void check_long(char *text, const char *expected)
{
    struct json_stream stream = {0};
    char told[TOLD_MAX] = "";

    feed(&stream, text, strlen(text), told);
    assert_string_equal(told, expected);
    assert_true(stream.size <= JSON_TEXT_MAX);
    json_stream_fini(&stream);
    free(text);
}

static void test_limits(void **state)
{
    char *closed = repeat("", '[', JSON_DEPTH_MAX, "");
    char *text = repeat(closed, ']', JSON_DEPTH_MAX, "{}");
    struct json_stream stream = {0};
    char told[TOLD_MAX] = "";

    feed(&stream, text, strlen(text), told);
    assert_int_equal(strlen(told), 2 * JSON_DEPTH_MAX + 1 + 3);
    json_stream_fini(&stream);
    free(text);
    free(closed);

    check_long(repeat("", '[', JSON_DEPTH_MAX + 1, "{}"), "!;");
    check_long(repeat("", '[', 100000, "\xff{}"), "!;!;{};");
    closed = repeat("", '[', 1000, "\"]]\"");
    check_long(repeat(closed, ']', 1000, "{}"), "!;{};"); /* nothing inside is run */
    free(closed);
    check_long(repeat("\"", 'x', JSON_TEXT_MAX - 1, "\"{}"), "!;{};");
    check_long(repeat("{\"a\":[{}, \"", 'x', 3 * JSON_TEXT_MAX, "\", {\"a\":1}]}{}"), "!;{};");
    check_long(repeat("{\"a\":\"", 'x', JSON_TEXT_MAX - 7, "\"}{}"), "!;{};");
    check_long(repeat("", '1', JSON_TEXT_MAX + 5, " {}"), "!;{};");
    check_long(repeat("{\"a\":\"", 'x', 2 * JSON_TEXT_MAX, "\n{}"), "!;{};");
    check_long(repeat("", ' ', 3 * JSON_TEXT_MAX, "{}"), "{};");
    check_long(repeat("[1", ',', 5000, "1]{}"), "!;{};");
}

/* The longest text that is taken, and that memory goes back. */
static void test_longest(void **state)
{
    char *text = repeat("\"", 'x', JSON_TEXT_MAX - 2, "\"{}");
    struct json_stream stream = {0};
    json_t *value = NULL;
    size_t used = 0;

    assert_int_equal(json_stream_next(&stream, text, strlen(text), &used, &value, NULL),
                     JSON_STREAM_VALUE);
    assert_int_equal(used, JSON_TEXT_MAX);
    assert_int_equal(stream.used, JSON_TEXT_MAX);
    json_decref(value);
    assert_false(json_stream_pending(&stream));
    assert_int_equal(json_stream_next(&stream, "{", 1, &used, &value, NULL), JSON_STREAM_MORE);
    assert_true(stream.size < JSON_TEXT_MAX);
    assert_true(json_stream_pending(&stream));
    json_stream_fini(&stream);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_faults_go_on),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_longest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
