/* SPDX-License-Identifier: MIT */
/* The arguments of a command line, one by one, by the table of its command, and their values. What
 * stands in for another tool takes and refuses them as that does. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tools/cli.h"
#include "tools/cli_message.h"
#include "util/error.h"
#include "util/size.h"

#define WORDS_MAX 64

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

    if (cli_is_muted(cli)) {
        return CLI_BAD;
    }
    cli_put_prefix(cli, "");
    va_start(ap, fmt);
    cli_vput_line(cli->err, fmt, ap);
    va_end(ap);
    if (cli_spelling(cli)->help) {
        fputs(cli_spelling(cli)->help, cli->out);
    } else if (cli_spelling(cli)->try_line) {
        cli_error(cli, "%s", cli_spelling(cli)->try_line);
    }
    cli->usage_told = true;
    return CLI_BAD;
}

static bool getopt_words(const struct cli_args *args)
{
    return cli_spelling(args->cli)->getopt_words;
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

bool cli_is_word(const char *text, const char *const *words)
{
    for (; *words; words++) {
        if (strcmp(text, *words) == 0) {
            return true;
        }
    }
    return false;
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
    cli_print_version(args->cli);
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
    if (args->option->helps && args->option->helps(args->cli, args->value)) {
        return CLI_HELP;
    }
    return args->option->id;
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
    if (cli_value_is_optional(o)) {
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

/* How a letter of a bundle is shown where it is at fault: "-x", or the word that the reference
 * names, which has gone on from the word before only when it reads the last letter. */
static const char *shown_letter(const struct cli_args *args, const char *dashed, const char *rest)
{
    if (!cli_stands_in(args->cli) || getopt_words(args)) {
        return dashed;
    }
    if (!rest) {
        return args->argv[args->index - 1];
    }
    return args->operand ? args->operand : args->argv[args->index - 2];
}

static int next_short(struct cli_args *args)
{
    char letter = *args->bundle++;
    const char *rest = *args->bundle ? args->bundle : NULL;
    const struct cli_option *o = NULL;
    char dashed[] = {'-', letter, '\0'};
    const char *shown = shown_letter(args, dashed, rest);

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
    if (!o->arg || cli_value_is_optional(o)) {
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
    args->operand = arg;
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

/* ---- values ---- */

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

/* A size as the reference takes it: also a hexadecimal number with a suffix, which it warns of. 0,
 * -EINVAL or -ERANGE. */
static int lenient_size(struct cli *cli, const char *text, uint64_t *ret)
{
    const char *p = size_skip_sign(text);
    size_t len = 0;
    char number[32];

    if (p[0] == '0' && (p[1] == 'x' || p[1] == 'X')) {
        len = 2 + strspn(p + 2, "0123456789abcdefABCDEF");
    }
    if (len <= 2 || len >= sizeof(number) || !p[len] || !strchr("kKmMgGtTpP", p[len])) {
        return size_parse(p, 'b', "", ret, NULL);
    }
    cli_warning(cli, "Using a multiplier suffix on hex numbers is deprecated: %s", text);
    snprintf(number, len + 1, "%s", p);
    return p[len + 1] ? -EINVAL : size_parse(number, p[len], "", ret, NULL);
}

bool cli_parse_size(struct cli *cli, const char *text, const char *what, const char *native_what,
                    uint64_t max, uint64_t *ret)
{
    Error *err = NULL;
    int rc = cli_stands_in(cli) ? lenient_size(cli, text, ret)
                                : size_parse(text, 'b', native_what, ret, &err);

    if (rc == 0 && (*ret <= max || !cli_stands_in(cli))) {
        return true;
    }
    if (!cli_stands_in(cli)) {
        cli_report(cli, err);
        return false;
    }
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

int cli_size_of_parameter(struct cli *cli, const char *text, const char *name, uint64_t *ret,
                          Error **errp)
{
    int rc;

    if (!cli_stands_in(cli)) {
        return size_of_parameter(text, name, ret, errp);
    }
    rc = lenient_size(cli, text, ret);
    return rc < 0 ? size_refuse(rc, text, name, errp) : 0;
}

bool cli_size_value(const struct cli_args *args, const char *what, uint64_t min, uint64_t max,
                    uint64_t *ret)
{
    char shown[64];
    uint64_t value = 0;

    option_shown(args, shown, sizeof(shown));
    if (!cli_parse_size(args->cli, args->value, what, shown, max, &value) ||
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
