/* SPDX-License-Identifier: MIT */
/* platter io: from a line to a command, and help. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tools/io/io.h"
#include "util/mem.h"
#include "util/size.h"

static int run_help(struct io_session *s, const struct io_command *command, int argc, char **argv);
static int run_quit(struct io_session *s, const struct io_command *command, int argc, char **argv)
{
    s->quit = true;
    return 0;
}

static const struct io_command own_commands[] = {
    {"help", "?", "[command]", "help for one or all commands", 0, 1, false, false, run_help},
    {"quit", "q", NULL, "exit the program", 0, -1, false, false, run_quit},
    {0},
};

static const struct io_command *const groups[] = {
    io_breakpoint_commands, io_data_commands, io_vector_commands,  io_async_commands,
    io_facts_commands,      io_open_commands, io_process_commands, own_commands};

static const struct io_command *find_command(const char *name)
{
    for (size_t g = 0; g < ARRAY_SIZE(groups); g++) {
        for (const struct io_command *c = groups[g]; c->name; c++) {
            if (strcmp(c->name, name) == 0 || (c->alias && strcmp(c->alias, name) == 0)) {
                return c;
            }
        }
    }
    return NULL;
}

/* ---- help ---- */

/* name: its own or its alias */
static void print_one_line(struct io_session *s, const struct io_command *c, const char *name)
{
    fprintf(s->cli->out, "%s %s%s-- %s\n", name, c->args ? c->args : "", c->args ? " " : "",
            c->summary);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp((*(const struct io_command *const *)a)->name,
                  (*(const struct io_command *const *)b)->name);
}

size_t io_commands_beginning(const char *text, size_t len,
                             const struct io_command *ret[IO_COMMANDS_MAX])
{
    size_t n = 0;

    for (size_t g = 0; g < ARRAY_SIZE(groups); g++) {
        for (const struct io_command *c = groups[g]; c->name && n < IO_COMMANDS_MAX; c++) {
            if (strncmp(c->name, text, len) == 0) {
                ret[n++] = c;
            }
        }
    }
    qsort(ret, n, sizeof(ret[0]), compare_names);
    return n;
}

static void print_all(struct io_session *s)
{
    const struct io_command *sorted[IO_COMMANDS_MAX];
    size_t n = io_commands_beginning("", 0, sorted);

    for (size_t i = 0; i < n; i++) {
        print_one_line(s, sorted[i], sorted[i]->name);
    }
    fputs("\nUse 'help commandname' for extended help.\n", s->cli->out);
}

static int run_help(struct io_session *s, const struct io_command *command, int argc, char **argv)
{
    const struct io_command *c;
    const char *text;

    if (argc < 2) {
        print_all(s);
        return 0;
    }
    c = find_command(argv[1]);
    if (!c) {
        cli_put_line(s->cli->out, "command %s not found", argv[1]);
        return -EINVAL;
    }
    print_one_line(s, c, argv[1]);
    text = io_help_text(c->name);
    if (text) {
        fputs(text, s->cli->out);
    }
    return 0;
}

int io_usage(struct io_session *s, const struct io_command *command)
{
    print_one_line(s, command, command->name);
    return -EINVAL;
}

/* ---- arguments ---- */

struct io_args io_args_begin(struct io_session *s, const struct io_command *command, int argc,
                             char **argv)
{
    return (struct io_args){
        .s = s, .command = command, .argc = argc, .argv = argv, .operands = argv + 1, .index = 1};
}

static int bad_option(struct io_args *args, const char *what, char letter)
{
    fflush(args->s->cli->out);
    cli_put_line(args->s->cli->err, "%s: %s -- '%c'", args->argv[0], what, letter);
    io_usage(args->s, args->command);
    return '?';
}

int io_next_option(struct io_args *args, const char *letters)
{
    const char *known;
    char letter;

    while (!args->bundle || !*args->bundle) {
        char *word;

        if (args->index >= args->argc) {
            return 0;
        }
        word = args->argv[args->index++];
        if (!args->only_operands && strcmp(word, "--") == 0) {
            args->only_operands = true;
        } else if (!args->only_operands && word[0] == '-' && word[1]) {
            args->bundle = word + 1;
        } else {
            args->operands[args->operand_count++] = word;
        }
    }
    letter = *args->bundle++;
    known = letter == ':' ? NULL : strchr(letters, letter);
    if (!known) {
        return bad_option(args, "invalid option", letter);
    }
    if (known[1] == ':') {
        args->value = *args->bundle              ? args->bundle
                      : args->index < args->argc ? args->argv[args->index++]
                                                 : NULL;
        args->bundle = NULL;
        if (!args->value) {
            return bad_option(args, "option requires an argument", letter);
        }
    }
    return letter;
}

bool io_number(struct io_session *s, const char *text, uint64_t *ret)
{
    int rc = size_parse(text, 'b', "number", ret, NULL);

    if (rc == -ERANGE) {
        cli_put_line(s->cli->out, "Parsing error: argument too large -- %s", text);
    } else if (rc < 0) {
        cli_put_line(s->cli->out,
                     "Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- %s",
                     text);
    }
    return rc == 0;
}

bool io_c_number(const char *text, long max, long *ret)
{
    char *end;

    errno = 0;
    *ret = strtol(text, &end, 0);
    return end != text && *end == '\0' && errno == 0 && *ret >= 0 && *ret <= max;
}

bool io_pattern(struct io_session *s, const char *text, int *ret)
{
    long value;

    if (!io_c_number(text, UINT8_MAX, &value)) {
        cli_put_line(s->cli->out, "%s is not a valid pattern byte", text);
        return false;
    }
    *ret = (int)value;
    return true;
}

int io_failed(struct io_session *s, const char *what, int ret)
{
    fprintf(s->cli->out, "%s failed: %s\n", what, strerror(-ret));
    return ret;
}

/* ---- lines ---- */

/* typed: the command's name or its alias */
static bool count_fits(struct io_session *s, const struct io_command *c, const char *typed,
                       int count)
{
    FILE *err = s->cli->err;

    if (count >= c->args_min && (c->args_max < 0 || count <= c->args_max)) {
        return true;
    }
    fflush(s->cli->out);
    fprintf(err, "bad argument count %d to %s, expected ", count, typed);
    if (c->args_max < 0) {
        fprintf(err, "at least %d arguments\n", c->args_min);
    } else if (c->args_max == c->args_min) {
        fprintf(err, "%d arguments\n", c->args_min);
    } else {
        fprintf(err, "between %d and %d arguments\n", c->args_min, c->args_max);
    }
    return false;
}

/* A disk that was reopened for writing may stand on a file that is not. */
static bool may_write(BlockBackend *blk)
{
    uint64_t perm, shared;

    blk_get_perm(blk, &perm, &shared);
    return !blk_is_read_only(blk) && (perm & BDRV_PERM_WRITE) != 0;
}

static int run_words(struct io_session *s, int argc, char **argv)
{
    const struct io_command *c = find_command(argv[0]);

    if (!c) {
        fflush(s->cli->out);
        cli_put_line(s->cli->err, "command \"%s\" not found", argv[0]);
        return -EINVAL;
    }
    if (c->needs_disk && !s->blk) {
        fflush(s->cli->out);
        fputs("no file open, try 'help open'\n", s->cli->err);
        return -ENODEV;
    }
    if (!count_fits(s, c, argv[0], argc - 1)) {
        return -EINVAL;
    }
    if (c->writes && !may_write(s->blk)) {
        cli_error(s->cli, "Block node is read-only");
        return -EACCES;
    }
    return c->run(s, c, argc, argv);
}

int io_run_line(struct io_session *s, const char *line)
{
    AUTO_FREE char *copy = strdup(line);
    AUTO_FREE char **words = calloc(strlen(line) / 2 + 2, sizeof(*words));
    char *save = NULL;
    int n = 0;

    if (!copy || !words) {
        cli_error(s->cli, "out of memory");
        return -ENOMEM;
    }
    for (char *w = strtok_r(copy, " \t\r\n", &save); w; w = strtok_r(NULL, " \t\r\n", &save)) {
        words[n++] = w;
    }
    return n == 0 ? 0 : run_words(s, n, words);
}
