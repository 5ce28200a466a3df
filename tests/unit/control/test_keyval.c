/* SPDX-License-Identifier: MIT */
/* control/keyval.h: texts and the trees they are; and those trees taken as arguments of a type. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../cmocka_all.h"

#include "control/keyval.h"
#include "control/qmp_type.h"
#include "schema/qmp.h"
#include "util/mem.h"

static void expect_tree(const char *text, const char *implied_key, const char *tree)
{
    Error *err = NULL;
    json_t *made = keyval_parse(text, implied_key, &err);
    json_t *wanted = json_loads(tree, 0, NULL);

    assert_non_null(wanted);
    if (!made) {
        fail_msg("%s: %s", text, error_get_pretty(err));
    }
    if (!json_equal(made, wanted)) {
        fail_msg("%s is not %s", text, tree);
    }
    json_decref(made);
    json_decref(wanted);
}

static void expect_refusal(const char *text, const char *message)
{
    Error *err = NULL;

    assert_null(keyval_parse(text, "kind", &err));
    assert_non_null(err);
    assert_string_equal(error_get_pretty(err), message);
    error_free(err);
    assert_null(keyval_parse(text, "kind", NULL));
}

static void trees(void **state)
{
    expect_tree("", NULL, "{}");
    expect_tree("a=1", NULL, "{\"a\":\"1\"}");
    expect_tree("a=1,", NULL, "{\"a\":\"1\"}");
    expect_tree("x", "kind", "{\"kind\":\"x\"}");
    expect_tree("x,a=", "kind", "{\"kind\":\"x\",\"a\":\"\"}");
    expect_tree("a=1,kind=x", "kind", "{\"kind\":\"x\",\"a\":\"1\"}");
    expect_tree("a=b=c,d=,,e,,,f=g", NULL, "{\"a\":\"b=c\",\"d\":\",e,\",\"f\":\"g\"}");
    expect_tree("a=1,a=2", NULL, "{\"a\":\"2\"}");
    expect_tree("a.b=1,a.c.d=2", NULL, "{\"a\":{\"b\":\"1\",\"c\":{\"d\":\"2\"}}}");
    expect_tree("a.1=y,a.0=x", NULL, "{\"a\":[\"x\",\"y\"]}");
    expect_tree("a.0.b=x,a.0.c.0=y", NULL, "{\"a\":[{\"b\":\"x\",\"c\":[\"y\"]}]}");
    expect_tree("a.00=x", NULL, "{\"a\":[\"x\"]}");
    expect_tree("__org.example_a-b.c=x", NULL, "{\"__org.example_a-b\":{\"c\":\"x\"}}");
}

static void refusals(void **state)
{
    char text[200], message[256];

    expect_refusal(",", "Invalid parameter ''");
    expect_refusal("x,,y", "Invalid parameter ''");
    expect_refusal("=x", "Invalid parameter ''");
    expect_refusal("a.=1", "Invalid parameter 'a.'");
    expect_refusal("a..b=1", "Invalid parameter 'a..b'");
    expect_refusal("x, a=1", "Invalid parameter ' a'");
    expect_refusal("x,0=1", "Invalid parameter '0'");
    expect_refusal("x,a.0b=1", "Invalid parameter 'a.0b'");
    expect_refusal("x,_a=1", "Invalid parameter '_a'");
    expect_refusal("x,__a=1", "Invalid parameter '__a'");
    expect_refusal("x,a\xff=1", "Invalid parameter 'a\xff'");
    expect_refusal("x,a", "Expected '=' after parameter 'a'");
    expect_refusal("a=1,a.b", "Parameters 'a.*' used inconsistently");
    expect_refusal("a=1,a.b$=2", "Invalid parameter 'a.b$'");
    expect_refusal("a=1,a.b.c$=2", "Parameters 'a.*' used inconsistently");
    expect_refusal("a.b=1,a=2", "Parameters 'a.*' used inconsistently");
    expect_refusal("a.b.0=1,a.b.c=2", "Parameters 'a.b.*' used inconsistently");
    expect_refusal("a.0=1,a.2=2", "Parameter 'a.1' missing");
    expect_refusal("a.1=1", "Parameter 'a.0' missing");
    expect_refusal("a.0=1,a.99999999999999999999999=2", "Parameter 'a.1' missing");
    expect_refusal("a.x.1=1,a.0=1", "Parameter 'a.x.0' missing");

    memset(text, 'a', sizeof(text));
    memcpy(text + 127, "=1", 3);
    json_decref(keyval_parse(text, NULL, NULL));
    memcpy(text + 127, "a=1", 4);
    snprintf(message, sizeof(message), "Parameter '%.128s' is too long", text);
    expect_refusal(text, message);
    text[0] = 'x';
    text[1] = '.';
    memcpy(text + 127, "aaa=1", 6);
    snprintf(message, sizeof(message), "Parameter fragment '%.128s' is too long", text + 2);
    expect_refusal(text, message);
}

static void limits(void **state)
{
    size_t bytes = 4u << 20;
    char *text = malloc(bytes + 1);
    Error *err = NULL;

    assert_non_null(text);
    memset(text, 'a', bytes);
    text[bytes] = '\0';
    assert_null(keyval_parse(text, "kind", &err)); /* in all */
    assert_int_equal(error_get_errno(err), E2BIG);
    error_free(err);
    err = NULL;
    text[5000] = '\0';
    text[4000] = '=';
    assert_null(keyval_parse(text, NULL, &err)); /* of a key */
    assert_int_equal(error_get_errno(err), E2BIG);
    error_free(err);
    err = NULL;
    for (size_t i = 0; i < 200; i++) {
        text[i] = i % 2 ? '.' : 'a';
    }
    memcpy(text + 199, "=1", 3);
    assert_null(keyval_parse(text, NULL, &err)); /* of the parts of a key */
    assert_int_equal(error_get_errno(err), E2BIG);
    error_free(err);
    err = NULL;
    for (size_t i = 0; i < 5000; i++) {
        memcpy(text + 4 * i, "a=1,", 5);
    }
    assert_null(keyval_parse(text, NULL, &err)); /* of parameters */
    assert_int_equal(error_get_errno(err), E2BIG);
    error_free(err);
    free(text);
}

/* NULL: taken. */
static void expect_arguments(const char *text, const char *message)
{
    Error *err = NULL;
    json_t *made = qmp_arguments_of(text, "qom-type", qmp_object_options_type, &err);

    if (message && !made) {
        assert_string_equal(error_get_pretty(err), message);
    } else if (message || !made) {
        fail_msg("%s: %s", text, made ? "taken" : error_get_pretty(err));
    }
    json_decref(made);
    error_free(err);
}

static void arguments_of_a_type(void **state)
{
    static const char *const bools[] = {"on", "yes", "true", "y", "off", "no", "false", "n"};
    char text[128];

    for (size_t i = 0; i < ARRAY_SIZE(bools); i++) {
        snprintf(text, sizeof(text), "tls-creds-anon,id=x,verify-peer=%s", bools[i]);
        expect_arguments(text, NULL);
    }
    expect_arguments("tls-creds-anon,id=x,verify-peer=ON",
                     "Parameter 'verify-peer' expects 'on' or 'off'");
    expect_arguments("iothread,id=x,poll-max-ns= 0x10,poll-grow=+7,poll-shrink=-010", NULL);
    expect_arguments("iothread,id=x,poll-max-ns=1k", "Parameter 'poll-max-ns' expects integer");
    expect_arguments("iothread,id=x,poll-max-ns=", "Parameter 'poll-max-ns' expects integer");
    expect_arguments("iothread,id=x,poll-max-ns=9223372036854775808",
                     "Parameter 'poll-max-ns' expects integer");
    expect_arguments("throttle-group,id=x,limits.iops-total=x",
                     "Parameter 'limits.iops-total' expects integer");
    expect_arguments("secret,id=x,data.a=1", "Parameters 'data.*' are unexpected");
    expect_arguments("secret,id=x,format.0=1", "Parameters 'format.*' are unexpected");
    expect_arguments("secret,id=x,a.b=1", "Parameter 'a' is unexpected");
    expect_arguments("authz-list,id=x,rules.0.match=a,rules.0.policy=allow", NULL);
    expect_arguments("authz-list,id=x,rules.0.match=a", "Parameter 'rules.0.policy' is missing");
    expect_arguments("authz-list,id=x,rules=a",
                     "Invalid parameter type for 'rules', expected: array");
    expect_arguments("{'qom-type': 'authz-list', 'id': 'x', 'rules': [{'match': 'a'}]}",
                     "Parameter 'rules[0].policy' is missing");
    expect_arguments("{'qom-type': 'throttle-group', 'id': 'x', 'limits': {'iops-total': '1'}}",
                     "Invalid parameter type for 'limits.iops-total', expected: integer");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trees),
        cmocka_unit_test(refusals),
        cmocka_unit_test(limits),
        cmocka_unit_test(arguments_of_a_type),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
