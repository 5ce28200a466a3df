/* SPDX-License-Identifier: MIT */
/* util/error.h, and out of memory (malloc is replaced below). */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "../cmocka_all.h"

#include "util/error.h"

static void null_errp_is_allowed(void **state)
{
    assert_int_equal(error_set(NULL, EINVAL, "x"), -EINVAL);
    assert_int_equal(error_set_errno(NULL, EIO, "x"), -EIO);
    error_prepend(NULL, "x");
    error_set_hint(NULL, "x");
    error_add_compat_hint(NULL, "x");
    error_propagate(NULL, NULL);
    error_free(NULL);
}

static void texts(void **state)
{
    Error *err = NULL;

    assert_int_equal(error_set(&err, ENOENT, "no '%s'", "a"), -ENOENT);
    assert_string_equal(error_get_pretty(err), "no 'a'");
    assert_null(error_get_hint(err));
    assert_int_equal(error_get_errno(err), ENOENT);
    error_prepend(&err, "%d: ", 7);
    error_set_hint(&err, "try %s", "b");
    error_set_hint(&err, "try %s", "c");
    assert_string_equal(error_get_pretty(err), "7: no 'a'");
    assert_string_equal(error_get_hint(err), "try c");
    error_free(err);

    err = NULL;
    assert_int_equal(error_set_errno(&err, EACCES, "open '%s'", "a"), -EACCES);
    assert_string_equal(error_get_pretty(err), "open 'a': Permission denied");
    error_free(err);
}

static void compat_hints_are_lines_of_their_own(void **state)
{
    Error *err = NULL;

    error_set(&err, EINVAL, "x");
    assert_null(error_get_compat_hint(err, 0));
    error_set_hint(&err, "ours");
    for (int i = 0; i < ERROR_COMPAT_LINES_MAX + 1; i++) {
        error_add_compat_hint(&err, "line %d", i);
    }
    assert_string_equal(error_get_hint(err), "ours");
    assert_string_equal(error_get_compat_hint(err, 0), "line 0");
    assert_string_equal(error_get_compat_hint(err, 1), "line 1");
    assert_null(error_get_compat_hint(err, ERROR_COMPAT_LINES_MAX));
    assert_null(error_get_compat_hint(err, UINT_MAX));
    error_free(err);
}

static void copy_has_all_texts(void **state)
{
    Error *err = NULL, *copy = NULL;

    error_set(&err, ENOENT, "100%% of %s", "x");
    assert_int_equal(error_copy(NULL, err), -ENOENT);
    assert_int_equal(error_copy(&copy, err), -ENOENT);
    assert_null(error_get_hint(copy));
    assert_null(error_get_compat_hint(copy, 0));
    error_free(copy);

    copy = NULL;
    error_set_hint(&err, "%%s");
    error_add_compat_hint(&err, "%%n");
    error_add_compat_hint(&err, "b");
    error_copy(&copy, err);
    error_free(err);
    assert_string_equal(error_get_pretty(copy), "100% of x");
    assert_int_equal(error_get_errno(copy), ENOENT);
    assert_string_equal(error_get_hint(copy), "%s");
    assert_string_equal(error_get_compat_hint(copy, 0), "%n");
    assert_string_equal(error_get_compat_hint(copy, 1), "b");
    error_free(copy);
}

static void long_texts_are_whole(void **state)
{
    char text[5000];
    Error *err = NULL;

    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    error_set(&err, EINVAL, "%s", text);
    assert_string_equal(error_get_pretty(err), text);
    error_free(err);
}

static void propagate_keeps_the_first(void **state)
{
    Error *first = NULL, *second = NULL, *got = NULL;

    error_set(&first, EINVAL, "first");
    error_set(&second, EINVAL, "second");
    error_propagate(&got, first);
    error_propagate(&got, second);
    assert_string_equal(error_get_pretty(got), "first");
    error_free(got);
    second = NULL;
    error_set(&second, EINVAL, "third");
    error_propagate(NULL, second);
}

/* ---- out of memory: every allocation of a call fails in turn ---- */

static long allocs_left = -1; /* -1: all succeed */

void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes)
{
    if (allocs_left >= 0 && allocs_left-- == 0) {
        allocs_left = 0;
        return NULL;
    }
    return __real_malloc(bytes);
}

static void no_memory_is_an_error_too(void **state)
{
    for (long n = 0; n < 3; n++) {
        Error *err = NULL;

        allocs_left = n;
        assert_int_equal(error_set_errno(&err, EIO, "x"), -EIO);
        error_prepend(&err, "y: ");
        error_set_hint(&err, "z");
        error_add_compat_hint(&err, "z");
        allocs_left = -1;
        assert_non_null(err);
        assert_int_equal(error_get_errno(err), ENOMEM);
        assert_string_equal(error_get_pretty(err), "out of memory");
        assert_null(error_get_hint(err));
        error_free(err);
    }
}

static void no_memory_for_context_keeps_the_error(void **state)
{
    Error *err = NULL;

    error_set(&err, EIO, "x");
    allocs_left = 0;
    error_prepend(&err, "y: ");
    error_set_hint(&err, "z");
    error_add_compat_hint(&err, "z");
    allocs_left = -1;
    assert_string_equal(error_get_pretty(err), "x");
    assert_null(error_get_hint(err));
    assert_null(error_get_compat_hint(err, 0));
    error_free(err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(null_errp_is_allowed),
        cmocka_unit_test(texts),
        cmocka_unit_test(compat_hints_are_lines_of_their_own),
        cmocka_unit_test(copy_has_all_texts),
        cmocka_unit_test(long_texts_are_whole),
        cmocka_unit_test(propagate_keeps_the_first),
        cmocka_unit_test(no_memory_is_an_error_too),
        cmocka_unit_test(no_memory_for_context_keeps_the_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
