/* SPDX-License-Identifier: MIT */
/* tools/cli.h: parsing by table, help, suggestions, exit codes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../cmocka_all.h"

#include "tools/cli.h"
#include "util/error.h"

enum { OPT_ALL = 1, OPT_COUNT, OPT_DRAIN, OPT_ONLY_SHORT };

static const struct cli_option options[] = {
    {OPT_ALL, 'a', "all", NULL, "everything"},
    {OPT_COUNT, 'c', "count", "N", "how many"},
    {OPT_DRAIN, 0, "no-drain", NULL, "do not"},
    {OPT_ONLY_SHORT, 'z', NULL, "SIZE", "short only"},
    {0},
};

static int run_nothing(struct cli *cli, int argc, char **argv)
{
    fprintf(cli->out, "ran %s with %d\n", argv[0], argc - 1);
    return CLI_EXIT_OK;
}

static const struct cli_command command = {
    .name = "test",
    .operands = "FILE",
    .summary = "Do nothing",
    .options = options,
    .run = run_nothing,
};
static const struct cli_command *const commands[] = {&command, NULL};
static const struct cli_program program = {.name = "prog", .summary = "s", .commands = commands};

struct fixture {
    struct cli cli;
    char *out;
    char *err;
    size_t out_bytes, err_bytes;
};

static struct fixture *begin(void)
{
    struct fixture *f = calloc(1, sizeof(*f));

    f->cli = (struct cli){.program = &program,
                          .command = &command,
                          .in = stdin,
                          .out = open_memstream(&f->out, &f->out_bytes),
                          .err = open_memstream(&f->err, &f->err_bytes)};
    return f;
}

static void flush(struct fixture *f)
{
    fflush(f->cli.out);
    fflush(f->cli.err);
}

static void end(struct fixture *f)
{
    fclose(f->cli.out);
    fclose(f->cli.err);
    free(f->out);
    free(f->err);
    free(f);
}

#define ARGV(...) ((char *[]){"test", __VA_ARGS__, NULL})
#define ARGC(...) ((int)(sizeof((char *[]){"test", __VA_ARGS__}) / sizeof(char *)))
#define ARGS(f, ...) cli_args_begin(&(f)->cli, ARGC(__VA_ARGS__), ARGV(__VA_ARGS__))

static void expect(struct cli_args *a, int id, const char *value)
{
    assert_int_equal(cli_next(a), id);
    if (value) {
        assert_string_equal(a->value, value);
    }
}

static void forms_of_options(void **state)
{
    struct fixture *f = begin();
    struct cli_args a = ARGS(f, "-a", "--all", "-c", "1", "-c2", "--count=3", "--count", "4",
                             "--count=", "-ac5", "--no-drain", "-z", "-1");

    expect(&a, OPT_ALL, NULL);
    expect(&a, OPT_ALL, NULL);
    expect(&a, OPT_COUNT, "1");
    expect(&a, OPT_COUNT, "2");
    expect(&a, OPT_COUNT, "3");
    expect(&a, OPT_COUNT, "4");
    expect(&a, OPT_COUNT, "");
    expect(&a, OPT_ALL, NULL);
    expect(&a, OPT_COUNT, "5");
    expect(&a, OPT_DRAIN, NULL);
    expect(&a, OPT_ONLY_SHORT, "-1");
    expect(&a, CLI_END, NULL);
    expect(&a, CLI_END, NULL);
    end(f);
}

static void operands_anywhere(void **state)
{
    struct fixture *f = begin();
    struct cli_args a = ARGS(f, "x", "-a", "-", "", "--", "-a", "--", "--all");

    expect(&a, CLI_OPERAND, "x");
    expect(&a, OPT_ALL, NULL);
    expect(&a, CLI_OPERAND, "-");
    expect(&a, CLI_OPERAND, "");
    expect(&a, CLI_OPERAND, "-a");
    expect(&a, CLI_OPERAND, "--");
    expect(&a, CLI_OPERAND, "--all");
    expect(&a, CLI_END, NULL);
    end(f);
}

static void expect_bad(char *argument, const char *message)
{
    struct fixture *f = begin();
    struct cli_args a = ARGS(f, argument);
    int id;

    while ((id = cli_next(&a)) > 0) {
    }
    assert_int_equal(id, CLI_BAD);
    flush(f);
    if (!strstr(f->err, message)) {
        fail_msg("'%s' gave: %s", argument, f->err);
    }
    assert_non_null(strstr(f->err, "prog: test: "));
    assert_non_null(strstr(f->err, "Try 'prog test --help'"));
    assert_string_equal(f->out, "");
    end(f);
}

static void bad_options(void **state)
{
    char long_option[300];

    expect_bad("-x", "no option '-x'");
    expect_bad("-ax", "no option '-x'");
    expect_bad("-c", "option '-c' needs a value: N");
    expect_bad("-ac", "option '-c' needs a value: N");
    expect_bad("--count", "option '--count' needs a value: N");
    expect_bad("--all=1", "option '--all' takes no value");
    expect_bad("--cuont=1", "no option '--cuont'; did you mean '--count'?");
    expect_bad("--no", "did you mean '--no-drain'?");
    expect_bad("--xyzzy", "no option '--xyzzy'\n");
    expect_bad("--=1", "no option '--'");
    expect_bad("---all", "no option '---all'");
    memset(long_option, 'a', sizeof(long_option));
    long_option[0] = long_option[1] = '-';
    long_option[sizeof(long_option) - 1] = '\0';
    expect_bad(long_option, "no option '--aaa");
}

static void help_comes_from_the_table(void **state)
{
    struct fixture *f = begin();
    struct cli_args a = ARGS(f, "--help");

    assert_int_equal(cli_next(&a), CLI_HELP);
    a = ARGS(f, "-ah");
    assert_int_equal(cli_next(&a), OPT_ALL);
    assert_int_equal(cli_next(&a), CLI_HELP);
    flush(f);
    assert_non_null(strstr(f->out, "usage: prog test [OPTION]... FILE\nDo nothing.\n"));
    assert_non_null(strstr(f->out, "  -a, --all                  everything\n"));
    assert_non_null(strstr(f->out, "  -c, --count=N              how many\n"));
    assert_non_null(strstr(f->out, "      --no-drain             do not\n"));
    assert_non_null(strstr(f->out, "  -z SIZE                    short only\n"));
    end(f);
}

static void values(void **state)
{
    struct fixture *f = begin();
    struct cli_args a =
        ARGS(f, "-c", "7", "-c", "8", "-c", "x", "-z", "4k", "-z", "4q", "-z", "9k");
    uint64_t v = 0;

    cli_next(&a);
    assert_true(cli_number_value(&a, 0, 7, &v));
    assert_int_equal(v, 7);
    cli_next(&a);
    assert_false(cli_number_value(&a, 0, 7, &v));
    cli_next(&a);
    assert_false(cli_number_value(&a, 0, 7, &v));
    cli_next(&a);
    assert_true(cli_size_value(&a, "size", 0, 8192, &v));
    assert_int_equal(v, 4096);
    cli_next(&a);
    assert_false(cli_size_value(&a, "size", 0, 8192, &v));
    cli_next(&a);
    assert_false(cli_size_value(&a, "size", 0, 8192, &v));
    assert_int_equal(v, 4096);
    flush(f);
    assert_non_null(strstr(f->err, "--count '8' is out of range: it must be 0 to 7\n"));
    assert_non_null(strstr(f->err, "--count 'x' is not a number\n"));
    assert_non_null(strstr(f->err, "-z '4q' is not a size\n"));
    assert_non_null(strstr(f->err, "-z '9k' is out of range: it must be 0 to 8192\n"));
    end(f);
}

/* The same error under both names: its own hint, or the lines of the reference. */
static void hints_of_an_error(void **state)
{
    struct cli_program other = program;
    struct fixture *f = begin();
    Error *err = NULL;

    other.spelling = &spelling_qemu_img;
    error_set(&err, EBUSY, "busy");
    error_set_hint(&err, "process\n7 has it");
    error_add_compat_hint(&err, "Is another process using it?");
    error_add_compat_hint(&err, "Is\nit?");
    cli_put_hints(&f->cli, err);
    f->cli.program = &other;
    cli_put_hints(&f->cli, err);
    assert_int_equal(cli_report(&f->cli, err), CLI_EXIT_FAILED);
    flush(f);
    assert_string_equal(f->err, "process\\n7 has it\n"
                                "Is another process using it?\nIs\\nit?\n"
                                "prog: busy\n"
                                "Is another process using it?\nIs\\nit?\n");
    end(f);
}

static int run_program(struct fixture *f, char **argv)
{
    int argc = 0;

    while (argv[argc]) {
        argc++;
    }
    f->cli.command = NULL;
    return cli_run(&f->cli, argc, argv);
}

static void dispatch(void **state)
{
    static const struct {
        char *argv[4];
        int code;
        const char *out;
        const char *err;
    } cases[] = {
        {{"prog", "test", "x", NULL}, CLI_EXIT_OK, "ran test with 1\n", ""},
        {{"prog", NULL}, CLI_EXIT_USAGE, "", "which command?"},
        {{"prog", "tset", NULL}, CLI_EXIT_USAGE, "", "did you mean 'test'?"},
        {{"prog", "", NULL}, CLI_EXIT_USAGE, "", "no command ''"},
        {{"prog", "-x", NULL}, CLI_EXIT_USAGE, "", "a command comes first"},
        {{"prog", "help", NULL}, CLI_EXIT_OK, "usage: prog COMMAND", ""},
        {{"prog", "--help", NULL}, CLI_EXIT_OK, "usage: prog COMMAND", ""},
        {{"prog", "help", "--help", NULL}, CLI_EXIT_OK, "usage: prog COMMAND", ""},
        {{"prog", "help", "help", NULL}, CLI_EXIT_OK, "usage: prog COMMAND", ""},
        {{"prog", "help", "test", NULL}, CLI_EXIT_OK, "usage: prog test", ""},
        {{"prog", "help", "nothing", NULL}, CLI_EXIT_USAGE, "", "no command 'nothing'"},
        {{"prog", "--version", NULL}, CLI_EXIT_OK, "prog 0.", ""},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fixture *f = begin();

        assert_int_equal(run_program(f, (char **)cases[i].argv), cases[i].code);
        flush(f);
        assert_non_null(strstr(f->out, cases[i].out));
        assert_non_null(strstr(f->err, cases[i].err));
        end(f);
    }
}

static void nearest_words(void **state)
{
    static const char *const words[] = {"create", "info", "serve", "bench", "io", NULL};
    static const char *const pairs[][2] = {
        {"create", "create"}, {"craete", "create"}, {"creat", "create"}, {"inof", "info"},
        {"inf", "info"},      {"serv", "serve"},    {"server", "serve"}, {"benhc", "bench"},
    };

    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        assert_string_equal(cli_nearest(pairs[i][0], words), pairs[i][1]);
    }
    assert_null(cli_nearest("convert", words));
    assert_null(cli_nearest("xyz", words));
}

static void output_that_fails_is_told(void **state)
{
    struct fixture *f = begin();
    FILE *full = fopen("/dev/full", "w");
    FILE *out = f->cli.out;
    char *argv[] = {"prog", "--version", NULL};

    assert_non_null(full);
    f->cli.out = full;
    assert_int_equal(run_program(f, argv), CLI_EXIT_FAILED);
    f->cli.out = out;
    fclose(full);
    flush(f);
    assert_non_null(strstr(f->err, "could not write the output"));
    end(f);
}

static void text_is_shown_on_one_line(void **state)
{
    struct fixture *f = begin();

    cli_put_line(f->cli.out, "%s", "a\nb\tc\x1b[1m\r\x7f \xc3\xa9 \xc2\x9b \xff %s");
    cli_error(&f->cli, "'%s'", "x\ny");
    flush(f);
    assert_string_equal(f->out, "a\\nb\\tc\\x1b[1m\\x0d\\x7f \xc3\xa9 \\xc2\x9b \xff %s\n");
    assert_string_equal(f->err, "prog: test: 'x\\ny'\n");
    end(f);
}

static void signed_operands(void **state)
{
    struct fixture *f = begin();
    char *argv[] = {"test", "-5M", "-a", "-7"};
    struct cli_args a = cli_args_begin(&f->cli, 4, argv);

    a.signed_operands = true;
    assert_int_equal(cli_next(&a), CLI_OPERAND);
    assert_string_equal(a.value, "-5M");
    assert_int_equal(cli_next(&a), OPT_ALL);
    assert_int_equal(cli_next(&a), CLI_OPERAND);
    assert_string_equal(a.value, "-7");
    assert_int_equal(cli_next(&a), CLI_END);
    end(f);
}

/* Counts what it gets; refuses the operand "no". */
static int count_all(void *opaque, int id, const struct cli_args *a)
{
    ++*(int *)opaque;
    return id == CLI_OPERAND && strcmp(a->value, "no") == 0 ? CLI_EXIT_FAILED : CLI_EXIT_OK;
}

static void all_are_taken(void **state)
{
    struct fixture *f = begin();
    int code = -1, count = 0;

    assert_true(cli_take_all(&f->cli, 3, ARGV("-a", "x"), count_all, &count, &code));
    assert_int_equal(code, CLI_EXIT_OK);
    assert_int_equal(count, 2);
    assert_false(cli_take_all(&f->cli, 4, ARGV("-a", "no", "-a"), count_all, &count, &code));
    assert_int_equal(code, CLI_EXIT_FAILED);
    assert_int_equal(count, 4);
    assert_false(cli_take_all(&f->cli, 3, ARGV("--help", "x"), count_all, &count, &code));
    assert_int_equal(code, CLI_EXIT_OK);
    assert_false(cli_take_all(&f->cli, 3, ARGV("--nosuch", "x"), count_all, &count, &code));
    assert_int_equal(code, CLI_EXIT_USAGE);
    assert_int_equal(count, 4);
    end(f);
}

static void text_is_as_long_as_it_is_shown(void **state)
{
    static const char *const texts[] = {"", "a b", "\n\t\x1b\x7f", "\xc2\x9b\xc3\xa9"};

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        char shown[64] = "";
        FILE *to = fmemopen(shown, sizeof(shown), "w");

        assert_non_null(to);
        cli_put_text(to, texts[i]);
        fclose(to);
        assert_int_equal(strlen(shown), cli_text_bytes(texts[i]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_is_as_long_as_it_is_shown),
        cmocka_unit_test(signed_operands),
        cmocka_unit_test(forms_of_options),
        cmocka_unit_test(operands_anywhere),
        cmocka_unit_test(all_are_taken),
        cmocka_unit_test(bad_options),
        cmocka_unit_test(help_comes_from_the_table),
        cmocka_unit_test(values),
        cmocka_unit_test(dispatch),
        cmocka_unit_test(hints_of_an_error),
        cmocka_unit_test(nearest_words),
        cmocka_unit_test(text_is_shown_on_one_line),
        cmocka_unit_test(output_that_fails_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
