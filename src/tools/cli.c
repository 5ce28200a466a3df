/* SPDX-License-Identifier: MIT */
/* Command lines: parsing by table, help from the same table, messages. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <platter/platter.h>

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

/* ---- parsing ---- */

struct cli_args cli_args_begin(struct cli *cli, int argc, char **argv)
{
    return (struct cli_args){.cli = cli, .argc = argc, .argv = argv, .index = 1};
}

/* A fault in the words of getopt_long, and what stands below it. */
static int getopt_fault(struct cli_args *args, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static int getopt_fault(struct cli_args *args, const char *fmt, ...)
{
    struct cli *cli = args->cli;
    va_list ap;

    cli_put_prefix(cli, "");
    va_start(ap, fmt);
    cli_vput_line(cli->err, fmt, ap);
    va_end(ap);
    if (cli_spelling(cli)->try_line) {
        cli_error(cli, "%s", cli_spelling(cli)->try_line);
    }
    cli->usage_told = true;
    return CLI_BAD;
}

static bool getopt_words(const struct cli_args *args)
{
    return cli_spelling(args->cli)->getopt_words;
}

static void print_version(struct cli *cli)
{
    fprintf(cli->out, "%s %s%s%s\n", cli->program->name, cli_spelling(cli)->version_word,
            platter_version(), cli_stands_in(cli) ? " (Platter)" : "");
}

/* Options of every command, and of a program without commands, besides those of its table. */
enum { ID_HELP = 2000, ID_VERSION };
static const struct cli_option help_row = {ID_HELP, 'h', "help", NULL, NULL};
static const struct cli_option version_row = {ID_VERSION, 'V', "version", NULL, NULL};

/* --version behind other options: a program with commands knows it in front of them only. */
static bool takes_version(const struct cli *cli)
{
    return cli_stands_in(cli) && (cli->program->only || cli->command == cli->program->globals);
}

/* The options one by one; NULL begins and ends. */
static const struct cli_option *option_next(const struct cli_args *args, const struct cli_option *o)
{
    if (o == &version_row) {
        return NULL;
    }
    if (o == &help_row) {
        return takes_version(args->cli) ? &version_row : NULL;
    }
    o = o ? o + 1 : args->cli->command->options;
    return o->id ? o : &help_row;
}

static const struct cli_option *find_exact(const struct cli_args *args, const char *text,
                                           size_t len)
{
    const struct cli_option *o = NULL;

    while ((o = option_next(args, o)) != NULL &&
           (!o->name || strlen(o->name) != len || memcmp(o->name, text, len) != 0)) {
    }
    return o;
}

/* The names that may be cut short in this place; NULL: none. */
static const char *long_names(const struct cli_args *args)
{
    const struct cli_long_names *n = cli_spelling(args->cli)->long_names;
    const char *command = args->cli->command->name;

    if (!n) {
        return NULL;
    }
    while (n->command && (!command || strcmp(n->command, command) != 0)) {
        n++;
    }
    return n->names;
}

/* The options whose names begin so, at the most max of them. How many there are. */
static size_t cut_short(const struct cli_args *args, const char *text, size_t len,
                        const struct cli_option **ret, size_t max)
{
    const char *word = len > 0 ? long_names(args) : NULL;
    size_t count = 0;

    while (word && *word != '\0' && count < max) {
        size_t word_len = strcspn(word, " ");

        if (word_len >= len && memcmp(word, text, len) == 0) {
            ret[count] = find_exact(args, word, word_len);
            count += ret[count] != NULL;
        }
        word += word_len + strspn(word + word_len, " ");
    }
    return count;
}

static const struct cli_option *find_long(const struct cli_args *args, const char *text, size_t len)
{
    const struct cli_option *o = find_exact(args, text, len);
    const struct cli_option *found[2];

    return o ? o : cut_short(args, text, len, found, 2) == 1 ? found[0] : NULL;
}

/* Whether the name is cut short so far that several options could be meant: then it is told. */
static bool is_ambiguous(struct cli_args *args, const char *text, size_t len)
{
    const struct cli_option *found[WORDS_MAX];
    size_t count = cut_short(args, text, len, found, WORDS_MAX);
    char names[1024] = "";
    size_t used = 0;

    for (size_t i = 0; i < count && used < sizeof(names); i++) {
        used += (size_t)snprintf(names + used, sizeof(names) - used, " '--%s'", found[i]->name);
    }
    if (count > 0) {
        getopt_fault(args, "option '--%s' is ambiguous; possibilities:%s", text, names);
    }
    return count > 0;
}

static int unknown_option(struct cli_args *args, const char *text, size_t len)
{
    const char *words[WORDS_MAX + 1];
    const char *nearest;
    char typed[WORD_MAX + 2];
    size_t n = 0;

    if (getopt_words(args)) {
        return is_ambiguous(args, text, len)
                   ? CLI_BAD
                   : getopt_fault(args, "unrecognized option '--%s'", text);
    }
    if (cli_stands_in(args->cli)) {
        cli_usage_error(args->cli, "unrecognized option '--%s'", text);
        return CLI_BAD;
    }
    for (const struct cli_option *o = args->cli->command->options; o->id && n < WORDS_MAX; o++) {
        if (o->name) {
            words[n++] = o->name;
        }
    }
    words[n] = NULL;
    snprintf(typed, sizeof(typed), "%.*s", (int)len, text);
    nearest = cli_nearest(typed, words);
    if (nearest) {
        cli_usage_error(args->cli, "no option '--%.*s'; did you mean '--%s'?", (int)len, text,
                        nearest);
    } else {
        cli_usage_error(args->cli, "no option '--%.*s'", (int)len, text);
    }
    return CLI_BAD;
}

static int show_help(struct cli_args *args)
{
    struct cli *cli = args->cli;

    cli_print_help(cli, cli->command == cli->program->globals ? NULL : cli->command);
    return CLI_HELP;
}

static int show_version(struct cli_args *args)
{
    print_version(args->cli);
    return CLI_HELP;
}

/* The option's value: what follows in the same argument, else the next argument. */
static int take_value(struct cli_args *args, const char *attached, const char *shown)
{
    if (attached) {
        args->value = attached;
    } else if (args->index < args->argc) {
        args->value = args->argv[args->index++];
    } else if (getopt_words(args)) {
        return shown[1] == '-'
                   ? getopt_fault(args, "option '%s' requires an argument", shown)
                   : getopt_fault(args, "option requires an argument -- '%s'", shown + 1);
    } else if (!cli_stands_in(args->cli)) {
        cli_usage_error(args->cli, "option '%s' needs a value: %s", shown, args->option->arg);
        return CLI_BAD;
    } else {
        cli_usage_error(args->cli, "missing argument for option '%s'", shown);
        return CLI_BAD;
    }
    return args->option->id;
}

/* Then it stands behind '=' or is not there. */
static bool may_lack_value(const struct cli_option *o)
{
    return o->arg && o->arg[0] == '[';
}

static int found_option(struct cli_args *args, const struct cli_option *o)
{
    args->option = o;
    return o->id == ID_HELP ? show_help(args) : o->id == ID_VERSION ? show_version(args) : o->id;
}

static int next_long(struct cli_args *args)
{
    const char *text = args->argv[args->index++] + 2;
    size_t len = strcspn(text, "=");
    const char *attached = text[len] == '=' ? text + len + 1 : NULL;
    const struct cli_option *o = find_long(args, text, len);
    char shown[64];

    if (!o) {
        return unknown_option(args, text, len);
    }
    args->option = o;
    if (may_lack_value(o)) {
        args->value = attached;
        return o->id;
    }
    if (o->arg) {
        snprintf(shown, sizeof(shown), "--%s", getopt_words(args) ? o->name : text);
        return take_value(args, attached, shown);
    }
    if (attached && getopt_words(args)) {
        return getopt_fault(args, "option '--%s' doesn't allow an argument", o->name);
    }
    if (attached && cli_stands_in(args->cli)) {
        cli_usage_error(args->cli, "unrecognized option '--%s'", text);
        return CLI_BAD;
    }
    if (attached) {
        cli_usage_error(args->cli, "option '--%s' takes no value", o->name);
        return CLI_BAD;
    }
    return found_option(args, o);
}

static int next_short(struct cli_args *args)
{
    char letter = *args->bundle++;
    const char *rest = *args->bundle ? args->bundle : NULL;
    const struct cli_option *o = NULL;
    char shown[] = {'-', letter, '\0'};

    args->bundle = rest;
    while ((o = option_next(args, o)) != NULL && o->letter != letter) {
    }
    if (!o) {
        if (getopt_words(args)) {
            return getopt_fault(args, "invalid option -- '%c'", letter);
        }
        cli_usage_error(args->cli,
                        !cli_stands_in(args->cli) ? "no option '%s'" : "unrecognized option '%s'",
                        shown);
        return CLI_BAD;
    }
    args->option = o;
    if (!o->arg || may_lack_value(o)) {
        return found_option(args, o);
    }
    args->bundle = NULL;
    return take_value(args, rest, shown);
}

static bool is_signed_operand(const struct cli_args *args, const char *arg)
{
    return args->signed_operands && arg[0] == '-' && arg[1] >= '0' && arg[1] <= '9';
}

int cli_next(struct cli_args *args)
{
    const char *arg;

    args->option = NULL;
    args->value = NULL;
    if (args->bundle) {
        return next_short(args);
    }
    if (args->index >= args->argc) {
        return CLI_END;
    }
    arg = args->argv[args->index];
    if (!args->only_operands && strcmp(arg, "--") == 0) {
        args->only_operands = true;
        args->index++;
        return cli_next(args);
    }
    if (!args->only_operands && arg[0] == '-' && arg[1] == '-') {
        return next_long(args);
    }
    if (!args->only_operands && arg[0] == '-' && arg[1] != '\0' && !is_signed_operand(args, arg)) {
        args->index++;
        args->bundle = arg + 1;
        return next_short(args);
    }
    args->index++;
    args->value = arg;
    return CLI_OPERAND;
}

bool cli_take_all(struct cli *cli, int argc, char **argv,
                  int (*take)(void *opaque, int id, const struct cli_args *a), void *opaque,
                  int *ret_code)
{
    struct cli_args a = cli_args_begin(cli, argc, argv);
    int id;

    *ret_code = CLI_EXIT_OK;
    while (*ret_code == CLI_EXIT_OK && (id = cli_next(&a)) != CLI_END) {
        if (id == CLI_HELP) {
            return false;
        }
        *ret_code = id == CLI_BAD ? CLI_EXIT_USAGE : take(opaque, id, &a);
    }
    return *ret_code == CLI_EXIT_OK;
}

/* "-c", "--count", for messages about the current option. */
static const char *option_shown(const struct cli_args *args, char *buf, size_t size)
{
    if (args->option->name) {
        snprintf(buf, size, "--%s", args->option->name);
    } else {
        snprintf(buf, size, "-%c", args->option->letter);
    }
    return buf;
}

static bool value_fits(const struct cli_args *args, int rc, uint64_t value, uint64_t min,
                       uint64_t max, Error *err)
{
    char shown[64];

    if (rc < 0) {
        cli_report(args->cli, err);
        return false;
    }
    if (value < min || value > max) {
        cli_error(args->cli, "%s '%s' is out of range: it must be %llu to %llu",
                  option_shown(args, shown, sizeof(shown)), args->value, (unsigned long long)min,
                  (unsigned long long)max);
        return false;
    }
    return true;
}

bool cli_parse_size(struct cli *cli, const char *text, const char *what, const char *native_what,
                    uint64_t max, uint64_t *ret)
{
    Error *err = NULL;
    int rc =
        size_parse(cli_stands_in(cli) ? size_skip_sign(text) : text, 'b', native_what, ret, &err);

    if (rc == 0 && (*ret <= max || !cli_stands_in(cli))) {
        return true;
    }
    if (!cli_stands_in(cli)) {
        cli_report(cli, err);
        return false;
    }
    error_free(err);
    cli->usage_told = true;
    if (rc == 0 || rc == -ERANGE) {
        cli_error(cli, "Invalid %s specified. Must be between 0 and %llu.", what,
                  (unsigned long long)max);
    } else {
        cli_error(cli, "Invalid %s specified. You may use k, M, G, T, P or E suffixes for", what);
        cli_error(cli, "kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.");
    }
    return false;
}

bool cli_size_value(const struct cli_args *args, uint64_t min, uint64_t max, uint64_t *ret)
{
    char shown[64], what[64];
    uint64_t value = 0;

    option_shown(args, shown, sizeof(shown));
    snprintf(what, sizeof(what), "%s", args->option->name ? args->option->name : shown);
    for (char *p = what; *p; p++) {
        *p = *p == '-' ? ' ' : *p;
    }
    if (!cli_parse_size(args->cli, args->value, strcmp(what, "step size") == 0 ? "step_size" : what,
                        shown, max, &value) ||
        !value_fits(args, 0, value, min, max, NULL)) {
        return false;
    }
    *ret = value;
    return true;
}

bool cli_number_value(const struct cli_args *args, uint64_t min, uint64_t max, uint64_t *ret)
{
    Error *err = NULL;
    char shown[64];
    int rc =
        number_parse(args->value, option_shown(args, shown, sizeof(shown)), min, max, ret, &err);

    return value_fits(args, rc, min, min, max, err);
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
        const char *before = may_lack_value(o) ? "" : o->name ? "=" : " ";

        snprintf(left + len, sizeof(left) - (size_t)len, "%s%s", before, o->arg);
    }
    fprintf(cli->out, "  %-26s %s\n", left, o->help);
}

static void print_command_help(struct cli *cli, const struct cli_command *command)
{
    fprintf(cli->out, "usage: %s%s%s [OPTION]... %s\n%s.\n\n", cli->program->name,
            cli->program->only ? "" : " ", cli->program->only ? "" : command->name,
            command->operands, command->summary);
    for (const struct cli_option *o = command->options; o->id; o++) {
        print_option(cli, o);
    }
    fprintf(cli->out, "  %-26s %s\n", "-h, --help", "print this and end");
    if (command->details) {
        fprintf(cli->out, "\n%s", command->details);
    }
}

void cli_print_help(struct cli *cli, const struct cli_command *command)
{
    if (command) {
        print_command_help(cli, command);
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

static int run_help(struct cli *cli, int argc, char **argv)
{
    const struct cli_command *command = argc > 1 ? find_command(cli, argv[1]) : NULL;

    if (argc > 1 && !command) {
        return no_command(cli, argv[1]);
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
        print_version(cli);
        return CLI_EXIT_OK;
    }
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
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

int cli_run(struct cli *cli, int argc, char **argv)
{
    int code = dispatch(cli, argc, argv);

    if (code == CLI_EXIT_USAGE && cli->usage_told) {
        code = cli_spelling(cli)->usage_exit;
    }
    /* A full disk or closed pipe behind stdout must not look like success. */
    errno = 0;
    if ((fflush(cli->out) != 0 || ferror(cli->out)) && code == CLI_EXIT_OK) {
        return cli_error(cli, "could not write the output%s%s", errno ? ": " : "",
                         errno ? strerror(errno) : "");
    }
    return code;
}

unsigned cli_processors(unsigned max)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);

    return processors < 1 ? 1 : processors > (long)max ? max : (unsigned)processors;
}
