/* SPDX-License-Identifier: MIT */
/* tools/progress.h and tools/option_list.h. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "../cmocka_all.h"

#include "tools/option_list.h"
#include "tools/progress.h"

static const struct cli_program program = {.name = "prog", .summary = "s"};

struct fixture {
    struct cli cli;
    char *out, *err;
    size_t out_bytes, err_bytes;
};

static void begin(struct fixture *f)
{
    *f = (struct fixture){.cli = {.program = &program}};
    f->cli.out = open_memstream(&f->out, &f->out_bytes);
    f->cli.err = open_memstream(&f->err, &f->err_bytes);
    assert_non_null(f->cli.out);
    assert_non_null(f->cli.err);
}

static void end(struct fixture *f, const char *out, const char *err)
{
    fclose(f->cli.out);
    fclose(f->cli.err);
    assert_string_equal(f->out, out);
    assert_string_equal(f->err, err);
    free(f->out);
    free(f->err);
}

static void line_moves_by_whole_percents(void **state)
{
    struct fixture f;
    struct progress p;

    begin(&f);
    progress_begin(&p, &f.cli, PROGRESS_LINE);
    progress_start(&p);
    p.calls.report(p.calls.opaque, 1, 1000);
    p.calls.report(p.calls.opaque, 10, 1000);
    p.calls.report(p.calls.opaque, 15, 1000);
    p.calls.report(p.calls.opaque, 995, 1000);
    p.calls.report(p.calls.opaque, 1000, 1000);
    p.calls.report(p.calls.opaque, 1000, 1000);
    progress_end(&p, true);
    end(&f, "    (0.00/100%)\r    (1.00/100%)\r    (99.50/100%)\r    (100.00/100%)\r\n", "");
}

static void nothing_is_shown_unasked(void **state)
{
    struct fixture f;
    struct progress p;

    begin(&f);
    progress_begin(&p, &f.cli, PROGRESS_NONE);
    progress_set(&p, 0, 0);
    progress_end(&p, true);
    end(&f, "", "");
}

static void sigusr1_is_answered(void **state)
{
    struct fixture f;
    struct progress p;

    begin(&f);
    progress_begin(&p, &f.cli, PROGRESS_NONE);
    progress_set(&p, 1, 4);
    assert_int_equal(raise(SIGUSR1), 0);
    progress_set(&p, 1, 2);
    progress_set(&p, 3, 4);
    progress_end(&p, true);
    end(&f, "", "    (50.00/100%)\n");
}

static void lists_add_up_and_help_is_taken_out(void **state)
{
    static const char *const texts[] = {"a=1,b=2", "help",     "b=3,?,c=4",
                                        "?",       "d=5,help", "help,e=6"};
    struct option_list list = {0};
    struct fixture f;

    begin(&f);
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        assert_int_equal(option_list_add_of_open(&f.cli, &list, texts[i]), CLI_EXIT_OK);
        assert_int_equal(list.help, i > 0);
    }
    assert_string_equal(block_options_get_str(list.options, "a"), "1");
    assert_string_equal(block_options_get_str(list.options, "b"), "3");
    assert_string_equal(block_options_get_str(list.options, "c"), "4");
    assert_string_equal(block_options_get_str(list.options, "d"), "5");
    assert_string_equal(block_options_get_str(list.options, "e"), "6");
    option_list_fini(&list);
    end(&f, "", "");
}

/* What an image is made with is known when its format is. */
static void lists_of_an_image_are_judged_later(void **state)
{
    struct fixture f;
    struct option_list list = {0};

    begin(&f);
    assert_int_equal(option_list_add(&f.cli, &list, "a=1,help"), 0);
    assert_int_equal(option_list_add(&f.cli, &list, "b=2,a=3"), 0);
    assert_true(list.help);
    assert_null(list.options);
    assert_string_equal(list.text, "a=1,b=2,a=3");
    assert_int_equal(option_list_judge(&f.cli, &list, NULL, NULL), 0);
    assert_string_equal(block_options_get_str(list.options, "a"), "3");
    assert_string_equal(block_options_get_str(list.options, "b"), "2");
    option_list_fini(&list);
    end(&f, "", "");
}

static void bad_list_is_a_usage_error(void **state)
{
    struct option_list list = {0};
    struct fixture f;

    begin(&f);
    assert_int_equal(option_list_add_of_open(&f.cli, &list, "=1"), CLI_EXIT_USAGE);
    assert_null(list.options);
    option_list_fini(&list);
    fclose(f.cli.out);
    fclose(f.cli.err);
    assert_true(f.err_bytes > 0);
    free(f.out);
    free(f.err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(line_moves_by_whole_percents),
        cmocka_unit_test(nothing_is_shown_unasked),
        cmocka_unit_test(sigusr1_is_answered),
        cmocka_unit_test(lists_add_up_and_help_is_taken_out),
        cmocka_unit_test(lists_of_an_image_are_judged_later),
        cmocka_unit_test(bad_list_is_a_usage_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
