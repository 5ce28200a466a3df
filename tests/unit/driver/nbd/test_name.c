/* SPDX-License-Identifier: MIT */
/* src/driver/protocol/nbd/name.c: what a name means, and that a built name means the same. */
#include "../../cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <platter/error.h>

#include "driver/protocol/nbd/nbd.h"

struct name_case {
    const char *name;
    const char *path; /* NULL: TCP */
    const char *host;
    const char *port;
    const char *export_name;
    const char *shown;
};

static const struct name_case good_names[] = {
    {"nbd:localhost:10809", NULL, "localhost", "10809", "", "nbd://localhost:10809"},
    {"nbd:h:7:exportname=a:b", NULL, "h", "7", "a:b", "nbd://h:7/a%3Ab"},
    {"nbd:[::1]:7", NULL, "::1", "7", "", "nbd://[::1]:7"},
    {"nbd:unix:/a:b", "/a:b", NULL, NULL, "", "nbd+unix://?socket=/a%3Ab"},
    {"nbd:unix:s:exportname=", "s", NULL, NULL, "", "nbd+unix://?socket=s"},
    {"nbd:unix:s:exportname=x", "s", NULL, NULL, "x", "nbd+unix:///x?socket=s"},
    {"nbd://h", NULL, "h", "10809", "", "nbd://h:10809"},
    {"nbd://h/", NULL, "h", "10809", "", "nbd://h:10809"},
    {"nbd://h:1/e%20f/g", NULL, "h", "1", "e f/g", "nbd://h:1/e%20f/g"},
    {"nbd+tcp://[fe80::2]/x", NULL, "fe80::2", "10809", "x", "nbd://[fe80::2]:10809/x"},
    {"nbd+unix:///?socket=/s", "/s", NULL, NULL, "", "nbd+unix://?socket=/s"},
    {"nbd+unix://?socket=/s", "/s", NULL, NULL, "", "nbd+unix://?socket=/s"},
    {"nbd+unix:////e?socket=/%73%41", "/sA", NULL, NULL, "/e", "nbd+unix:////e?socket=/sA"},
};

static const char *const bad_names[] = {
    "nbd:",
    "nbd:host",
    "nbd:host:",
    "nbd::1",
    "nbd:unix:",
    "nbd:[::1",
    "nbd:[]:1",
    "nbd:[::1]x:1",
    "nbd://",
    "nbd:///x",
    "nbd://h:/x",
    "nbd://user@h/x",
    "nbd://h/x?socket=/s",
    "nbd://h/x#y",
    "nbd://h/%",
    "nbd://h/%4",
    "nbd://h/%zz",
    "nbd://h/a%00b",
    "nbd+unix:///x",
    "nbd+unix:///x?socket=",
    "nbd+unix:///x?path=/s",
    "nbd+unix:///x?socket=/s&a=b",
    "nbd+unix:///x?socket=%00",
    "nbd+unix://h/x?socket=/s",
    "nbd+unix:/x",
    "nbds://h/x",
    "",
};

static void assert_same(const char *got, const char *want)
{
    if (want == NULL) {
        assert_null(got);
    } else {
        assert_non_null(got);
        assert_string_equal(got, want);
    }
}

static void check_name(const char *name, const struct name_case *c)
{
    struct nbdc_address a;
    char *shown;

    assert_int_equal(nbdc_name_parse(name, &a, NULL), 0);
    assert_same(a.path, c->path);
    assert_same(a.host, c->host);
    assert_same(a.port, c->port);
    assert_same(a.export_name, c->export_name);
    shown = nbdc_name_build(&a);
    assert_same(shown, c->shown);
    free(shown);
    nbdc_address_fini(&a);
}

static void test_names_and_their_shown_form(void **state)
{
    for (size_t i = 0; i < sizeof(good_names) / sizeof(good_names[0]); i++) {
        check_name(good_names[i].name, &good_names[i]);
        check_name(good_names[i].shown, &good_names[i]);
    }
}

static void test_bad_names_are_refused(void **state)
{
    for (size_t i = 0; i < sizeof(bad_names) / sizeof(bad_names[0]); i++) {
        struct nbdc_address a;
        Error *err = NULL;

        print_message("%s\n", bad_names[i]);
        assert_true(nbdc_name_parse(bad_names[i], &a, &err) < 0);
        assert_non_null(err);
        error_free(err);
    }
}

static void test_a_server_that_comes_back_with_less_is_refused(void **state)
{
    const struct nbd_facts first = {
        .size_bytes = 4096,
        .block_min = 512,
        .payload_max = 65536,
        .flush = true,
        .fua = true,
        .trim = true,
        .zero = true,
        .fast_zero = true,
        .status = true,
    };
    struct nbd_facts now = first;

    assert_true(nbdc_facts_cover(&now, &first));
    now.block_min = 1;
    now.payload_max *= 2;
    assert_true(nbdc_facts_cover(&now, &first));
#define LESS(change)                                                                               \
    now = first;                                                                                   \
    now.change;                                                                                    \
    assert_false(nbdc_facts_cover(&now, &first))
    LESS(size_bytes = 8192);
    LESS(size_bytes = 0);
    LESS(block_min = 1024);
    LESS(payload_max = 32768);
    LESS(read_only = true);
    LESS(flush = false);
    LESS(fua = false);
    LESS(trim = false);
    LESS(zero = false);
    LESS(fast_zero = false);
    LESS(status = false);
#undef LESS
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_and_their_shown_form),
        cmocka_unit_test(test_bad_names_are_refused),
        cmocka_unit_test(test_a_server_that_comes_back_with_less_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
