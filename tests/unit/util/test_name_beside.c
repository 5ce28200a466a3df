/* SPDX-License-Identifier: MIT */
/* Names that stand in an image, seen from here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "util/name_beside.h"

static void test_names(void **state)
{
    static const struct {
        const char *image, *name, *want;
    } rows[] = {
        {"disk.qcow2", "base.raw", "base.raw"},
        {"a/disk.qcow2", "base.raw", "a/base.raw"},
        {"/a/b/disk.qcow2", "../base.raw", "/a/b/../base.raw"},
        {"/disk.qcow2", "base.raw", "/base.raw"},
        {"a/disk.qcow2", "/base.raw", "/base.raw"},
        {"a/disk.qcow2", "nbd:host:10809", "nbd:host:10809"},
        {"a/disk.qcow2", "b/c:d", "a/b/c:d"},
        {"json:{\"file\": \"a/d\"}", "base.raw", "base.raw"},
        {"a/disk.qcow2", "", "a/"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char *got = name_beside(rows[i].image, rows[i].name);

        assert_string_equal(got, rows[i].want);
        free(got);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_names)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
