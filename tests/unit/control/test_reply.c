/* SPDX-License-Identifier: MIT */
/* The texts that a QMP session sends. */
#include <stdlib.h>
#include <string.h>

#include "cmocka_all.h"
#include "control/reply.h"
#include "util/json.h"

static void check_text(char *text, const char *expected)
{
    assert_non_null(text);
    assert_string_equal(text, expected);
    free(text);
}

static void check_id(const char *request, const char *expected)
{
    char *id = NULL;

    assert_int_equal(qmp_id_text(request, strlen(request), &id), 0);
    if (expected == NULL) {
        assert_null(id);
    } else {
        check_text(id, expected);
    }
}

static void test_ids(void **state)
{
    check_id("{}", NULL);
    check_id("{\"execute\": \"a\", \"arguments\": {\"id\": 3}}", NULL);
    check_id("{\"id\":1}", "1");
    check_id("{'arguments':{'id':[{}]},'id':'it\\'s \"\xc3\xa9\"'}", "\"it's \\\"\\u00E9\\\"\"");
    check_id("{\"\\u0069d\" : null , \"execute\":\"a\"}", "null");
    check_id("{\"id\":18446744073709551615}", "18446744073709551615");
    check_id("{\"id\":[-1.50e3,-0]}", "[-1500, 0]");
    check_id("{'id':{'major':1,'minor':{'id':[2,{}],'error':3},'micro':4},'a':{'id':5}}",
             "{\"micro\": 4, \"minor\": {\"id\": [2, {}], \"error\": 3}, \"major\": 1}");
    check_id("{\"a\":[],\"id\":{\"b\":[1,[],{\"id\":true}]},\"z\":{}}",
             "{\"b\": [1, [], {\"id\": true}]}");
}

static void test_replies(void **state)
{
    json_t *value = json_pack("{s:i}", "a", 1);

    check_text(qmp_return_text(NULL, NULL), "{\"return\": {}}");
    check_text(qmp_return_text(value, "[7]"), "{\"return\": {\"a\": 1}, \"id\": [7]}");
    check_text(qmp_error_text(QMP_GENERIC_ERROR, "no 'x'", NULL),
               "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no 'x'\"}}");
    check_text(qmp_error_text(QMP_DEVICE_NOT_FOUND, "a\n\"", "1"),
               "{\"id\": 1, \"error\": {\"class\": \"DeviceNotFound\", \"desc\": \"a\\n\\\"\"}}");
    check_text(qmp_error_text(QMP_COMMAND_NOT_FOUND, "f\xff\xc3\xa9\xe2\x82", NULL),
               "{\"error\": {\"class\": \"CommandNotFound\", "
               "\"desc\": \"f\\uFFFD\\u00E9\\uFFFD\"}}");
    check_text(qmp_event_text("STOP", NULL, INT64_C(1700000000123456789)),
               "{\"timestamp\": {\"seconds\": 1700000000, \"microseconds\": 123456}, "
               "\"event\": \"STOP\"}");
    check_text(qmp_event_text("E", value, 999),
               "{\"timestamp\": {\"seconds\": 0, \"microseconds\": 0}, \"event\": \"E\", "
               "\"data\": {\"a\": 1}}");
    json_decref(value);
    check_text(qmp_greeting_text("3.20.1", "3.20.1"),
               "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 1, \"minor\": 20, \"major\": 3}, "
               "\"package\": \"Platter 3.20.1\"}, \"capabilities\": [\"oob\"]}}");
    check_text(qmp_greeting_text("7.2.0", "3.20.1"),
               "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 2, \"major\": 7}, "
               "\"package\": \"Platter 3.20.1\"}, \"capabilities\": [\"oob\"]}}");
}

static void test_pretty(void **state)
{
    check_text(qmp_pretty_text("{\"return\": {}, \"id\": {\"a\": [], \"b\": [1, {}, \"x, y\"]}}"),
               "{\r\n    \"return\": {\r\n    },\r\n    \"id\": {\r\n        \"a\": [\r\n        ],"
               "\r\n        \"b\": [\r\n            1,\r\n            {\r\n            },\r\n"
               "            \"x, y\"\r\n        ]\r\n    }\r\n}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_replies),
        cmocka_unit_test(test_pretty),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
