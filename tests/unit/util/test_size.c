/* SPDX-License-Identifier: MIT */
/* util/size.h: each form that is taken, each that is refused. */
#include <errno.h>
#include <string.h>

#include "../cmocka_all.h"

#include "util/size.h"

#define KIB UINT64_C(1024)
#define MIB (KIB * 1024)
#define GIB (MIB * 1024)
#define TIB (GIB * 1024)

static void good_sizes(void **state)
{
    static const struct {
        const char *text;
        char suffix;
        uint64_t bytes;
    } cases[] = {
        {"0", 'b', 0},
        {"512", 'b', 512},
        {"512", 'k', 512 * KIB},
        {"3", 'M', 3 * MIB},
        {"007", 'b', 7},
        {"0x200", 'b', 512},
        {"0XfF", 'b', 255},
        {"0x10", 'k', 16 * KIB},
        {"4k", 'b', 4 * KIB},
        {"4K", 'b', 4 * KIB},
        {"4B", 'k', 4},
        {"4b", 'k', 4},
        {"1m", 'b', MIB},
        {"10G", 'b', 10 * GIB},
        {"2t", 'b', 2 * TIB},
        {"1P", 'b', 1024 * TIB},
        {"7E", 'b', 7 * 1024 * 1024 * TIB},
        {"1.5M", 'b', 3 * MIB / 2},
        {"0.5k", 'b', 512},
        {"1.0G", 'b', GIB},
        {"1.1k", 'b', 1126},
        {"1.0", 'b', 1},
        {"2.00b", 'k', 2},
        {"3.", 'b', 3},
        {"3.k", 'b', 3 * KIB},
        {"0.3333333333333333333333333333k", 'b', 341},
        {"7.999999E", 'b', UINT64_C(9223370883933271201)},
        {"9223372036854775807", 'b', INT64_MAX},
        {"0x7fffffffffffffff", 'b', INT64_MAX},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t bytes = 1;
        Error *err = NULL;
        int ret = size_parse(cases[i].text, cases[i].suffix, "size", &bytes, &err);

        if (ret != 0 || bytes != cases[i].bytes) {
            fail_msg("'%s': %d, %llu", cases[i].text, ret, (unsigned long long)bytes);
        }
        assert_null(err);
    }
}

static void malformed_sizes(void **state)
{
    static const char *const cases[] = {
        "",      " ",     "k",     "G",    "x",         "-1",
        "+1",    "--1",   " 1",    "1 ",   "1 k",       "1kk",
        "1kB",   "1KiB",  "1GB",   "1.5",  "1.5b",      "1.01",
        "1.x",   "1.0x",  ".5G",   ".",    "1..5k",     "1.5.5",
        "1,5G",  "0x",    "0xg",   "0x1k", "0x1.5k",    "0x1.8",
        "1e3",   "1e3k",  "1Q",    "10Z",  "ten",       "1\n",
        "1\tG",  "nan",   "inf",   "1-",   "-0x1",      "1.5x",
        "1.5kk", "0b101", "1_000", "\xff", "1\xc3\xa9", "12345678901234567890123456789q",
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t bytes = 77;
        Error *err = NULL;

        if (size_parse(cases[i], 'b', "size", &bytes, &err) != -EINVAL) {
            fail_msg("'%s' was taken", cases[i]);
        }
        assert_int_equal(bytes, 77);
        assert_non_null(strstr(error_get_pretty(err), "is not a size"));
        assert_non_null(error_get_hint(err));
        error_free(err);
        assert_int_equal(size_parse(cases[i], 'b', "size", &bytes, NULL), -EINVAL);
    }
}

static void parameter_that_is_no_size(void **state)
{
    uint64_t bytes;
    Error *err = NULL;

    assert_int_equal(size_of_parameter("4q", "size", &bytes, &err), -EINVAL);
    assert_string_equal(error_get_pretty(err),
                        "Parameter 'size' expects a non-negative number below 2^64");
    assert_string_equal(error_get_hint(err),
                        "'4q' is none; a suffix is one of b, k, M, G, T, P, E");
    assert_string_equal(
        error_get_compat_hint(err, 0),
        "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-");
    assert_string_equal(error_get_compat_hint(err, 1), "and exabytes, respectively.");
    error_free(err);
}

static void sizes_too_large(void **state)
{
    static const char *const cases[] = {
        "9223372036854775808",
        "0x8000000000000000",
        "18446744073709551615",
        "18446744073709551616",
        "18446744073709551617",
        "8E",
        "16E",
        "17E",
        "9E",
        "8192P",
        "99999999999999999999999999999999",
        "99999999999999999999k",
        "0xfffffffffffffffff",

        "9007199254740992k",
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t bytes = 77;
        Error *err = NULL;

        if (size_parse(cases[i], 'b', "size", &bytes, &err) != -ERANGE) {
            fail_msg("'%s' was taken", cases[i]);
        }
        assert_int_equal(bytes, 77);
        assert_int_equal(error_get_errno(err), ERANGE);
        error_free(err);
    }
}

static void numbers(void **state)
{
    static const char *const bad[] = {"", "x", "1k", "-1", "+1", " 1", "1 ", "0x", "1.0", "0xg"};
    uint64_t n = 0;

    assert_int_equal(number_parse("0", "n", 0, 5, &n, NULL), 0);
    assert_int_equal(number_parse("5", "n", 0, 5, &n, NULL), 0);
    assert_int_equal(n, 5);
    assert_int_equal(number_parse("0x10", "n", 0, 16, &n, NULL), 0);
    assert_int_equal(n, 16);
    assert_int_equal(number_parse("18446744073709551615", "n", 0, UINT64_MAX, &n, NULL), 0);
    assert_true(n == UINT64_MAX);
    n = 77;
    assert_int_equal(number_parse("6", "n", 0, 5, &n, NULL), -ERANGE);
    assert_int_equal(number_parse("0", "n", 1, 5, &n, NULL), -ERANGE);
    assert_int_equal(number_parse("18446744073709551616", "n", 0, UINT64_MAX, &n, NULL), -ERANGE);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        Error *err = NULL;

        assert_int_equal(number_parse(bad[i], "count", 0, 99, &n, &err), -EINVAL);
        assert_non_null(strstr(error_get_pretty(err), "count '"));
        error_free(err);
    }
    assert_int_equal(n, 77);
}

static void formats(void **state)
{
    static const struct {
        uint64_t bytes;
        const char *text;
    } cases[] = {
        {0, "0 B"},           {1, "1 B"},
        {512, "512 B"},       {999, "999 B"},
        {1000, "0.977 KiB"},  {1023, "0.999 KiB"},
        {1024, "1 KiB"},      {1536, "1.5 KiB"},
        {MIB, "1 MiB"},       {3 * MIB / 2, "1.5 MiB"},
        {10 * GIB, "10 GiB"}, {999 * GIB, "999 GiB"},
        {TIB, "1 TiB"},       {UINT64_MAX, "16 EiB"},
    };
    char buf[32];

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_string_equal(size_format(cases[i].bytes, buf, sizeof(buf)), cases[i].text);
    }
}

static void ids(void **state)
{
    static const char *const good[] = {"a", "Z", "a0", "hd-0.x_y"};
    static const char *const bad[] = {"",    "0",   "-a", ".a",        "_a",
                                      "a b", "a/b", "#a", "a\xc3\xa9", "\xe4"};

    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_true(id_wellformed(good[i]));
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(id_wellformed(bad[i]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_sizes),
        cmocka_unit_test(malformed_sizes),
        cmocka_unit_test(parameter_that_is_no_size),
        cmocka_unit_test(sizes_too_large),
        cmocka_unit_test(numbers),
        cmocka_unit_test(formats),
        cmocka_unit_test(ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
