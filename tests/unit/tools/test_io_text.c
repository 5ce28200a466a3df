/* SPDX-License-Identifier: MIT */
/* tools/io: sizes in words, option letters, lines that name no disk. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../cmocka_all.h"

#include "tools/io/io.h"

static const struct cli_program program = {.name = "prog"};
static const struct cli_command command = {.name = "io"};

struct fixture {
    struct cli cli;
    struct io_session s;
    char *out;
    char *err;
    size_t out_bytes, err_bytes;
};

static void begin(struct fixture *f)
{
    memset(f, 0, sizeof(*f));
    f->cli.program = &program;
    f->cli.command = &command;
    f->cli.out = open_memstream(&f->out, &f->out_bytes);
    f->cli.err = open_memstream(&f->err, &f->err_bytes);
    f->s.cli = &f->cli;
}

static void end(struct fixture *f)
{
    fclose(f->cli.out);
    fclose(f->cli.err);
    free(f->out);
    free(f->err);
}

static void sizes(void **state)
{
    static const struct {
        double value;
        const char *text;
    } cases[] = {
        {0, "0 bytes"},         {512, "512 bytes"},         {1023, "1023 bytes"},
        {1024, "1 KiB"},        {1536, "1.500 KiB"},        {1100, "1.074 KiB"},
        {1234567, "1.177 MiB"}, {1048576, "1 MiB"},         {10737418240.0, "10 GiB"},
        {0.5, "0.500 bytes"},   {1099511627776.0, "1 TiB"}, {9223372036854775807.0, "8 EiB"},
    };
    char text[32];

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_string_equal(io_size_text(cases[i].value, text, sizeof(text)), cases[i].text);
    }
}

static void option_letters(void **state)
{
    static const struct io_command c = {.name = "c", .args = "[-qP p] x", .summary = "s"};
    char *argv[] = {"c", "one", "-q", "-P", "5", "-qP6", "two", "-", NULL};
    char *bad[] = {"c", "-z", NULL};
    char *missing[] = {"c", "-P", NULL};
    char *colon[] = {"c", "-:", NULL};
    struct fixture f;
    struct io_args a;

    begin(&f);
    a = io_args_begin(&f.s, &c, 8, argv);
    assert_int_equal(io_next_option(&a, "qP:"), 'q');
    assert_int_equal(io_next_option(&a, "qP:"), 'P');
    assert_string_equal(a.value, "5");
    assert_int_equal(io_next_option(&a, "qP:"), 'q');
    assert_int_equal(io_next_option(&a, "qP:"), 'P');
    assert_string_equal(a.value, "6");
    assert_int_equal(io_next_option(&a, "qP:"), 0);
    assert_int_equal(a.operand_count, 3);
    assert_string_equal(a.operands[2], "-");
    a = io_args_begin(&f.s, &c, 2, bad);
    assert_int_equal(io_next_option(&a, "qP:"), '?');
    a = io_args_begin(&f.s, &c, 2, missing);
    assert_int_equal(io_next_option(&a, "qP:"), '?');
    a = io_args_begin(&f.s, &c, 2, colon);
    assert_int_equal(io_next_option(&a, "qP:"), '?');
    fflush(f.cli.err);
    assert_string_equal(f.err, "c: invalid option -- 'z'\n"
                               "c: option requires an argument -- 'P'\n"
                               "c: invalid option -- ':'\n");
    end(&f);
}

static void lines_without_a_disk(void **state)
{
    struct fixture f;

    begin(&f);
    assert_int_equal(io_run_line(&f.s, ""), 0);
    assert_int_equal(io_run_line(&f.s, " \t\r\n"), 0);
    assert_int_equal(io_run_line(&f.s, "length"), -ENODEV);
    assert_int_equal(io_run_line(&f.s, "nosuch 1 2"), -EINVAL);
    assert_int_equal(io_run_line(&f.s, "help read"), 0);
    assert_int_equal(io_run_line(&f.s, "help nosuch"), -EINVAL);
    assert_int_equal(io_run_line(&f.s, "help a b"), -EINVAL);
    assert_false(f.s.quit);
    assert_int_equal(io_run_line(&f.s, " quit "), 0);
    assert_true(f.s.quit);
    fflush(f.cli.err);
    assert_string_equal(f.err,
                        "no file open, try 'help open'\n"
                        "command \"nosuch\" not found\n"
                        "bad argument count 2 to help, expected between 0 and 1 arguments\n");
    end(&f);
}

static void dump(void **state)
{
    unsigned char bytes[18] = "az AZ09\n\xff~";
    struct fixture f;

    begin(&f);
    io_dump(&f.s, bytes, 16, sizeof(bytes));
    fflush(f.cli.out);
    assert_string_equal(
        f.out, "00000010:  61 7a 20 41 5a 30 39 0a ff 7e 00 00 00 00 00 00  az.AZ09.........\n"
               "00000020:  00 00  ..\n");
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),
        cmocka_unit_test(option_letters),
        cmocka_unit_test(lines_without_a_disk),
        cmocka_unit_test(dump),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
