/* SPDX-License-Identifier: MIT */
/* Every allocation of the option code fails in turn, jansson's included: ENOMEM, nothing lost. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "../cmocka_all.h"

#include "schema/opts.h"
#include "util/error.h"
#include "util/json_print.h"
#include "util/options.h"

static long allocs_left = -1; /* -1: all succeed; else the one that fails */
static bool for_ever;
static bool failed;

void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);
char *__real_strdup(const char *text);
char *__wrap_strdup(const char *text);

static bool fails_now(void)
{
    if (allocs_left < 0) {
        return false;
    }
    if (allocs_left > 0) {
        allocs_left--;
        return false;
    }
    allocs_left = for_ever ? 0 : -1;
    failed = true;
    return true;
}

void *__wrap_malloc(size_t bytes)
{
    return fails_now() ? NULL : __real_malloc(bytes);
}

char *__wrap_strdup(const char *text)
{
    return fails_now() ? NULL : __real_strdup(text);
}

static char *json_of(const BlockOptions *opts, Error **errp)
{
    json_t *value = block_options_to_json_value(opts, errp);
    char *text = json_print(value, JSON_PRINT_AS_MADE);

    json_decref(value);
    return text;
}

/* Everything that is done to options between a command line and a driver. 0 or -errno. */
static int scenario(const char *text, bool json, Error **errp)
{
    BlockOptions *opts =
        json ? block_options_parse_json(text, errp) : block_options_parse(text, "driver", errp);
    BlockOptions *copy = opts ? block_options_copy(opts) : NULL;
    BlockOptions *file = copy ? block_options_take_prefix(copy, "file.") : NULL;
    struct opts_node_common common;
    char *out = NULL;
    int ret = -ENOMEM;

    if (file) {
        ret = block_options_put_prefix(copy, "again.", file);
    }
    if (file && ret == 0) {
        ret = block_options_set_u64(copy, "big", UINT64_MAX);
    }
    if (file && ret == 0) {
        out = json_of(copy, errp);
        ret = out ? opts_node_common_parse(copy, &common, errp) : -ENOMEM;
        if (ret == 0) {
            opts_node_common_fini(&common);
        }
    }
    free(out);
    block_options_free(file);
    block_options_free(copy);
    block_options_free(opts);
    return ret;
}

static void every_allocation_fails(void **state)
{
    static const struct {
        const char *text;
        bool json;
    } cases[] = {
        {"raw,node-name=n,read-only=on,file.driver=file,file.filename=a,,b", false},
        {"json:{'driver':'raw','node-name':'\\u00e9','file':{'driver':'file','x':[1.5,true,null,"
         "18446744073709551615]}}",
         true},
    };

    for (size_t i = 0; i < 2 * sizeof(cases) / sizeof(cases[0]); i++) {
        long n = 0;

        for_ever = i % 2;
        do {
            Error *err = NULL;
            int ret;

            failed = false;
            allocs_left = n++;
            ret = scenario(cases[i / 2].text, cases[i / 2].json, &err);
            allocs_left = -1;
            if (failed) {
                assert_int_equal(ret, -ENOMEM);
                assert_true(!err || error_get_errno(err) == ENOMEM);
            } else {
                assert_int_equal(ret, 0);
                assert_null(err);
            }
            error_free(err);
        } while (failed);
        assert_true(n > 20);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation_fails),
    };

    json_set_alloc_funcs(__wrap_malloc, free);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
