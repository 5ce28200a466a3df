/* SPDX-License-Identifier: MIT */
/* Command lines: which command runs, and help from the tables that its arguments are taken by. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <platter/platter.h>

#include "block/driver.h"
#include "os/os.h"
#include "tools/cli.h"
#include "tools/cli_message.h"
#include "tools/trace_option.h"
#include "util/size.h"

#define WORDS_MAX 64

const struct cli_spelling *cli_spelling(const struct cli *cli)
{
    return cli->program->spelling ? cli->program->spelling : &spelling_native;
}

bool cli_stands_in(const struct cli *cli)
{
    return cli_spelling(cli)->stands_in;
}

bool cli_is_muted(struct cli *cli)
{
    return cli->object_fails && cli->object_fails(cli);
}

void cli_print_version(struct cli *cli)
{
    if (cli_is_muted(cli)) {
        return;
    }
    if (cli_stands_in(cli)) { /* scripts judge by the number what it can do */
        fprintf(cli->out, "%s %s%s (Platter %s)\n", cli->program->name,
                cli_spelling(cli)->version_word, SPELLING_VERSION, platter_version());
    } else {
        fprintf(cli->out, "%s %s\n", cli->program->name, platter_version());
    }
}

/* ---- help ---- */

static void print_option(struct cli *cli, const struct cli_option *o)
{
    char left[64];
    int len = 0;

    if (o->letter) {
        len += snprintf(left, sizeof(left), "-%c", o->letter);
        if (o->name) {
            len += snprintf(left + len, sizeof(left) - (size_t)len, ", ");
        }
    } else {
        len += snprintf(left, sizeof(left), "    ");
    }
    if (o->name) {
        len += snprintf(left + len, sizeof(left) - (size_t)len, "--%s", o->name);
    }
    if (o->arg) {
        const char *before = cli_value_is_optional(o) ? "" : o->name ? "=" : " ";

        snprintf(left + len, sizeof(left) - (size_t)len, "%s%s", before, o->arg);
    }
    fprintf(cli->out, "  %-26s %s\n", left, o->help);
}

/* A command on one line, with all that it takes. */
static void print_synopsis(struct cli *cli, const struct cli_command *command)
{
    fprintf(cli->out, "  %s", command->name);
    for (const struct cli_option *o = command->options; o->id; o++) {
        fputs(" [", cli->out);
        if (o->letter) {
            fprintf(cli->out, "-%c%s", o->letter, o->name ? "|" : "");
        }
        if (o->name) {
            fprintf(cli->out, "--%s", o->name);
        }
        fprintf(cli->out, "%s%s]", o->arg ? " " : "", o->arg ? o->arg : "");
    }
    fprintf(cli->out, " %s\n", command->operands);
}

/* What scripts look for in the help of the tool it stands in for: which options there are, of which
 * command, and which formats. */
static void print_compat_help(struct cli *cli)
{
    fprintf(cli->out, "usage: %s [-T PATTERN] COMMAND [OPTION]... [OPERAND]...\n%s\n\n",
            cli->program->name, cli->program->summary);
    for (const struct cli_option *o = cli->program->globals->options; o->id; o++) {
        print_option(cli, o);
    }
    fprintf(cli->out, "  %-26s %s\n", "-V, --version", "print the version and end");
    fprintf(cli->out, "  %-26s %s\n\ncommands:\n", "-h, --help",
            "print this and end; behind a command its options one by one");
    for (const struct cli_command *const *c = cli->program->commands; *c; c++) {
        print_synopsis(cli, *c);
    }
    fputs("\nSizes take the suffixes k, M, G, T, P, E.\n\nSupported formats:", cli->out);
    for (size_t i = 0; bdrv_drivers[i]; i++) {
        fprintf(cli->out, " %s", bdrv_drivers[i]->format_name);
    }
    fputc('\n', cli->out);
}

static void print_command_help(struct cli *cli, const struct cli_command *command)
{
    fprintf(cli->out, "usage: %s%s%s [OPTION]... %s\n%s.\n\n", cli->program->name,
            cli->program->only ? "" : " ", cli->program->only ? "" : command->name,
            command->operands, command->summary);
    for (const struct cli_option *o = command->options; o->id; o++) {
        print_option(cli, o);
    }
    if (cli_stands_in(cli) && cli->program->only) {
        fprintf(cli->out, "  %-26s %s\n", "-V, --version", "print the version and end");
    }
    fprintf(cli->out, "  %-26s %s\n", "-h, --help", "print this and end");
    if (command->details) {
        fprintf(cli->out, "\n%s", command->details);
    }
}

void cli_print_help(struct cli *cli, const struct cli_command *command)
{
    if (cli_is_muted(cli)) {
        return;
    }
    if (cli_spelling(cli)->help) {
        fputs(cli_spelling(cli)->help, cli->out);
        return;
    }
    if (command) {
        print_command_help(cli, command);
        return;
    }
    if (cli->program->globals) {
        print_compat_help(cli);
        return;
    }
    fprintf(cli->out, "usage: %s COMMAND [OPTION]... [OPERAND]...\n%s\n\ncommands:\n",
            cli->program->name, cli->program->summary);
    for (const struct cli_command *const *c = cli->program->commands; *c; c++) {
        if (!(*c)->hidden) {
            fprintf(cli->out, "  %-10s %s\n", (*c)->name, (*c)->summary);
        }
    }
    fprintf(cli->out,
            "  %-10s %s\n\n"
            "'%s COMMAND --help' explains a command. Sizes take the suffixes k, M, G, T, P, E.\n",
            "help", "print this, or the help of a command", cli->program->name);
}

/* ---- dispatch ---- */

static const struct cli_command *find_command(struct cli *cli, const char *name)
{
    for (const struct cli_command *const *c = cli->program->commands; *c; c++) {
        if (strcmp((*c)->name, name) == 0) {
            return *c;
        }
    }
    return NULL;
}

static int no_command(struct cli *cli, const char *name)
{
    const char *words[WORDS_MAX + 1];
    const char *nearest;
    size_t n = 0;

    if (cli_stands_in(cli)) {
        return cli_usage_error(cli, "Command not found: %s", name);
    }
    for (; cli->program->commands[n] && n < WORDS_MAX; n++) {
        words[n] = cli->program->commands[n]->name;
    }
    words[n] = NULL;
    nearest = cli_nearest(name, words);
    return nearest ? cli_usage_error(cli, "no command '%s'; did you mean '%s'?", name, nearest)
                   : cli_usage_error(cli, "no command '%s'", name);
}

static bool asks_for_help(const char *word)
{
    return cli_is_word(word, (const char *const[]){"help", "--help", "-h", NULL});
}

static int run_help(struct cli *cli, int argc, char **argv)
{
    const char *name = argc > 1 && !asks_for_help(argv[1]) ? argv[1] : NULL;
    const struct cli_command *command = name ? find_command(cli, name) : NULL;

    if (name && !command) {
        return no_command(cli, name);
    }
    cli_print_help(cli, command);
    return CLI_EXIT_OK;
}

/* The command behind what stands in front of it, in the words of the tool it stands in for. */
static int dispatch_compat(struct cli *cli, int argc, char **argv, struct trace_option *trace)
{
    struct cli_args a = cli_args_begin(cli, argc, argv);
    int code = CLI_EXIT_OK;
    int id;

    cli->command = cli->program->globals;
    while ((id = cli_next(&a)) > 0) {
        if (!trace_option_take(trace, &a, &code)) {
            return code;
        }
    }
    if (id == CLI_HELP || id == CLI_BAD) {
        return id == CLI_HELP ? CLI_EXIT_OK : CLI_EXIT_USAGE;
    }
    cli->command = NULL;
    if (id == CLI_END) { /* options alone are no fault, as scripts know it */
        return argc > 1 ? CLI_EXIT_OK : cli_usage_error(cli, "Not enough arguments");
    }
    cli->command = find_command(cli, a.value);
    if (!cli->command) {
        return no_command(cli, a.value);
    }
    code = trace_option_begin(trace, cli);
    return code == CLI_EXIT_OK ? cli->command->run(cli, argc - a.index + 1, argv + a.index - 1)
                               : code;
}

static int dispatch(struct cli *cli, int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : NULL;

    if (cli->program->only) {
        cli->command = cli->program->only;
        return cli->command->run(cli, argc, argv);
    }
    if (cli->program->globals) {
        struct trace_option trace = TRACE_OPTION_NONE;
        int code = dispatch_compat(cli, argc, argv, &trace);

        trace_option_end(&trace);
        return code;
    }
    if (!name) {
        return cli_usage_error(cli, "which command?");
    }
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
        cli_print_version(cli);
        return CLI_EXIT_OK;
    }
    if (asks_for_help(name)) {
        return run_help(cli, argc - 1, argv + 1);
    }
    if (name[0] == '-') {
        return cli_usage_error(cli, "a command comes first, not the option '%s'", name);
    }
    cli->command = find_command(cli, name);
    if (!cli->command) {
        return no_command(cli, name);
    }
    return cli->command->run(cli, argc - 1, argv + 1);
}

int cli_flush(struct cli *cli)
{
    int ret;

    errno = 0;
    ret = fflush(cli->out);
    if (ret != 0 && cli->lost_errno == 0) {
        cli->lost_errno = errno;
    }
    return ret;
}

/* A full disk or closed pipe behind stdout must not look like success. But scripts let the programs
 * stood in for run into `head -1`, or without a stdout, and those say nothing then. */
static int tell_lost(struct cli *cli)
{
    int code;

    if (cli_stands_in(cli) && (cli->lost_errno == EPIPE || cli->lost_errno == EBADF)) {
        return CLI_EXIT_OK;
    }
    code = cli->command && !cli_stands_in(cli) ? cli->command->lost_exit : 0;

    cli_error(cli, "could not write the output%s%s", cli->lost_errno ? ": " : "",
              cli->lost_errno ? strerror(cli->lost_errno) : "");
    return code ? code : CLI_EXIT_FAILED;
}

int cli_run(struct cli *cli, int argc, char **argv)
{
    int code = dispatch(cli, argc, argv);

    if (cli->object_failed) {
        code =
            cli->command && cli->command->object_exit ? cli->command->object_exit : CLI_EXIT_FAILED;
    } else if (code == CLI_EXIT_USAGE && cli->usage_told) {
        code = cli_spelling(cli)->usage_exit;
    }
    return (cli_flush(cli) != 0 || ferror(cli->out)) && code == CLI_EXIT_OK ? tell_lost(cli) : code;
}

unsigned cli_processors(unsigned max)
{
    unsigned processors = os->processors();

    return processors > max ? max : processors;
}
