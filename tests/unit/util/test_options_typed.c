/* SPDX-License-Identifier: MIT */
/* Typed takes, and the parsers made from schema/. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../cmocka_all.h"

#include "schema/opts.h"
#include "util/options.h"

static BlockOptions *json(const char *text)
{
    BlockOptions *opts = block_options_parse_json(text, NULL);

    assert_non_null(opts);
    return opts;
}

static void bools(void **state)
{
    BlockOptions *opts = json("{'a':'on','b':'off','c':'true','d':'false','e':'yes','f':'no',"
                              "'g':true,'h':false,'bad':'maybe','number':1,'z':null}");
    bool v = false;

    for (const char *key = "abcdefgh"; *key; key++) {
        char name[] = {*key, '\0'};

        assert_int_equal(block_options_take_bool(opts, name, &v, NULL), 1);
        assert_int_equal(v, (*key - 'a') % 2 == 0);
        assert_false(block_options_has(opts, name));
    }
    assert_int_equal(block_options_take_bool(opts, "missing", &v, NULL), 0);
    assert_int_equal(block_options_take_bool(opts, "bad", &v, NULL), -EINVAL);
    assert_int_equal(block_options_take_bool(opts, "number", &v, NULL), -EINVAL);
    assert_int_equal(block_options_take_bool(opts, "z", &v, NULL), -EINVAL);
    assert_true(block_options_has(opts, "bad"));
    block_options_free(opts);
}

static void numbers(void **state)
{
    BlockOptions *opts =
        json("{'i':-5,'s':'-5','min':'-9223372036854775808','max':9223372036854775807,"
             "'u':18446744073709551615,'h':'0x10','bad':'5x','r':1.5,'t':true,'over':"
             "'-9223372036854775809','size':'10G','neg':-1,'badsize':'10Q'}");
    int64_t i = 0;
    uint64_t u = 0;
    Error *err = NULL;

    assert_int_equal(block_options_take_int(opts, "i", -5, 5, &i, NULL), 1);
    assert_int_equal(i, -5);
    assert_int_equal(block_options_take_int(opts, "s", -4, 5, &i, NULL), -ERANGE);
    assert_int_equal(block_options_take_int(opts, "s", -5, 5, &i, NULL), 1);
    assert_int_equal(block_options_take_int(opts, "min", INT64_MIN, INT64_MAX, &i, NULL), 1);
    assert_true(i == INT64_MIN);
    assert_int_equal(block_options_take_int(opts, "over", INT64_MIN, INT64_MAX, &i, NULL), -ERANGE);
    assert_int_equal(block_options_take_uint(opts, "u", 0, UINT64_MAX, &u, NULL), 1);
    assert_true(u == UINT64_MAX);
    assert_int_equal(block_options_take_uint(opts, "max", 0, 5, &u, NULL), -ERANGE);
    assert_int_equal(block_options_take_uint(opts, "h", 0, 16, &u, NULL), 1);
    assert_int_equal(u, 16);
    assert_int_equal(block_options_take_uint(opts, "bad", 0, 16, &u, NULL), -EINVAL);
    assert_int_equal(block_options_take_uint(opts, "r", 0, 16, &u, NULL), -EINVAL);
    assert_int_equal(block_options_take_size(opts, "t", 0, 16, &u, NULL), -EINVAL);
    assert_int_equal(block_options_take_size(opts, "size", 0, INT64_MAX, &u, NULL), 1);
    assert_true(u == UINT64_C(10) << 30);
    assert_int_equal(block_options_take_size(opts, "neg", 0, INT64_MAX, &u, NULL), -EINVAL);
    assert_int_equal(block_options_take_size(opts, "missing", 0, INT64_MAX, &u, NULL), 0);
    assert_int_equal(block_options_take_size(opts, "badsize", 0, INT64_MAX, &u, &err), -EINVAL);
    assert_string_equal(error_get_pretty(err), "Parameter 'badsize' expects a non-negative number below 2^64");
    error_free(err);
    block_options_free(opts);
}

static void node_common(void **state)
{
    BlockOptions *opts = block_options_parse(
        "driver=raw,node-name=n,read-only=on,cache.direct=on,cache.no-flush=off,discard=unmap,"
        "detect-zeroes=on,file.filename=x",
        NULL, NULL);
    struct opts_node_common common;

    assert_int_equal(opts_node_common_parse(opts, &common, NULL), 0);
    assert_string_equal(common.driver, "raw");
    assert_string_equal(common.node_name, "n");
    assert_true(common.has_read_only && common.read_only);
    assert_false(common.has_auto_read_only);
    assert_true(common.cache_direct);
    assert_true(common.has_cache_no_flush && !common.cache_no_flush);
    assert_int_equal(common.discard, OPTS_DISCARD_UNMAP);
    assert_int_equal(common.detect_zeroes, OPTS_DETECT_ZEROES_ON);
    assert_int_equal(block_options_count(opts), 1);
    assert_true(block_options_has(opts, "file.filename"));
    opts_node_common_fini(&common);
    assert_null(common.driver);
    block_options_free(opts);
}

static void enums(void **state)
{
    BlockOptions *opts = block_options_parse("driver=raw,discard=on", NULL, NULL);
    struct opts_node_common common;
    Error *err = NULL;

    assert_int_equal(opts_node_common_parse(opts, &common, NULL), 0);
    assert_int_equal(common.discard, OPTS_DISCARD_UNMAP);
    assert_string_equal(opts_discard_str(common.discard), "unmap");
    opts_node_common_fini(&common);
    block_options_set_str(opts, "driver", "raw");
    block_options_set_str(opts, "discard", "maybe");
    assert_int_equal(opts_node_common_parse(opts, &common, &err), -EINVAL);
    assert_null(common.driver);
    assert_string_equal(error_get_pretty(err), "Parameter 'discard' does not accept value 'maybe'");
    assert_string_equal(error_get_hint(err), "It can be: ignore, unmap, off, on");
    error_free(err);
    block_options_set_bool(opts, "discard", true);
    assert_int_equal(opts_node_common_parse(opts, &common, NULL), -EINVAL);
    block_options_free(opts);
}

static void missing_and_defaults(void **state)
{
    BlockOptions *opts = block_options_new();
    struct opts_create_file create;
    Error *err = NULL;

    assert_int_equal(opts_create_file_parse(opts, &create, &err), -EINVAL);
    assert_string_equal(error_get_pretty(err), "option 'size' is missing");
    error_free(err);
    block_options_set_str(opts, "size", "1M");
    assert_int_equal(opts_create_file_parse(opts, &create, NULL), 0);
    assert_int_equal(create.size, 1048576);
    assert_false(create.has_preallocation);
    assert_int_equal(create.preallocation, OPTS_PREALLOC_OFF);
    opts_create_file_fini(&create);
    block_options_free(opts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bools),
        cmocka_unit_test(numbers),
        cmocka_unit_test(node_common),
        cmocka_unit_test(enums),
        cmocka_unit_test(missing_and_defaults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
