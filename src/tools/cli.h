/* SPDX-License-Identifier: MIT */
/*
 * Command lines: one table per command is what is parsed, what --help prints and what manual pages
 * are made from. A program is a list of commands; other entry names are other lists over the same
 * functions.
 */
#ifndef PLATTER_TOOLS_CLI_H
#define PLATTER_TOOLS_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <platter/error.h>

#include "tools/spelling.h"

enum {
    CLI_EXIT_OK = 0,
    CLI_EXIT_FAILED = 1, /* what was asked for could not be done */
    CLI_EXIT_USAGE = 2,  /* the command line makes no sense */
};

struct cli;

/* One option. id is what cli_next returns; letter 0 or name NULL: only the other form. */
struct cli_option {
    int id;
    char letter;
    const char *name;
    const char *arg; /* what its value is called; NULL: takes none; "[=WORD]": with or without */
    const char *help;
    /* Whether the value asks for help, which was printed then; may be NULL. */
    bool (*helps)(struct cli *cli, const char *value);
    const char *const *words; /* all that its value may be, NULL ends; NULL: other values, too */
};

bool cli_is_word(const char *text, const char *const *words);

struct cli_command {
    const char *name;
    const char *operands;                               /* "FILE [SIZE]" */
    const char *summary;                                /* one line, no full stop */
    const char *details;                                /* printed below the options; may be NULL */
    const struct cli_option *options;                   /* an id of 0 ends */
    int (*run)(struct cli *cli, int argc, char **argv); /* argv[0] is the command's name */
    bool hidden;                                        /* in no list of commands */
    int object_exit; /* of a stand-in, when an object cannot be made; 0: CLI_EXIT_FAILED */
    int lost_exit;   /* natively, when its answer cannot be written; 0: CLI_EXIT_FAILED */
};

struct cli_program {
    const char *name;                          /* "platter": stands before messages */
    const char *summary;                       /* what --help begins with */
    const struct cli_command *const *commands; /* NULL ends */
    const struct cli_command *only;            /* the program is this command; then no list */
    const struct cli_command *globals;         /* its options may stand before a command; or NULL */
    const struct cli_spelling *spelling;       /* NULL: the native one */
};

#define CLI_OBJECTS_MAX 64

/* One run of a program. */
struct cli {
    const struct cli_program *program;
    const struct cli_command *command; /* NULL until it is known */
    FILE *in;
    FILE *out;
    FILE *err;
    bool usage_told; /* an error in the command line was printed */
    int lost_errno;  /* why some of what was printed on out is lost, where a flush told; else 0 */

    /* --object: tools/object.h. */
    const char *objects[CLI_OBJECTS_MAX]; /* each, for whoever makes an instance */
    size_t object_count;                  /* of which the array holds as many as fit */
    size_t objects_tried;                 /* so many were made, or could not be, once */
    bool object_failed;                   /* which was told: nothing else is */
    /* Whether that is so, after those not tried yet were; NULL: they wait for an instance. */
    bool (*object_fails)(struct cli *cli);
};

const struct cli_spelling *cli_spelling(const struct cli *cli);
/* Whether it speaks in the words of the tool whose name it carries. */
bool cli_stands_in(const struct cli *cli);
/* Whether something is not to be told, as a fault of an object was in front of it. */
bool cli_is_muted(struct cli *cli);

/* ids that cli_next returns besides those of a table, which are > 0 */
enum {
    CLI_END = 0,
    CLI_OPERAND = -1,
    CLI_BAD = -2,  /* an error was printed: end with CLI_EXIT_USAGE */
    CLI_HELP = -3, /* help or --version was asked for and printed: end with CLI_EXIT_OK */
};

/* Its value stands behind '=' or is not there. */
static inline bool cli_value_is_optional(const struct cli_option *o)
{
    return o->arg && o->arg[0] == '[';
}

struct cli_args {
    struct cli *cli;
    int argc;
    char **argv;
    int index;                       /* of the next argument */
    const char *bundle;              /* rest of "-abc" */
    bool only_operands;              /* "--" was seen */
    bool signed_operands;            /* "-5G" is an operand: '-' and a digit begin no option */
    const struct cli_option *option; /* the one that cli_next returned */
    const char *value;               /* of an option, or the operand */
    const char *operand;             /* the last one so far, or NULL */
};

struct cli_args cli_args_begin(struct cli *cli, int argc, char **argv);
/* The next option or operand, in any order; "--" ends the options. */
int cli_next(struct cli_args *args);
/* Give each of them to take, which answers CLI_EXIT_*, until one is refused. False: the command
 * ends with *ret_code. */
bool cli_take_all(struct cli *cli, int argc, char **argv,
                  int (*take)(void *opaque, int id, const struct cli_args *a), void *opaque,
                  int *ret_code);

/* Run the command that argv names; returns the exit code. */
int cli_run(struct cli *cli, int argc, char **argv);

void cli_print_help(struct cli *cli, const struct cli_command *command);
void cli_print_version(struct cli *cli);

/* Let out what was printed so far. Why that fails is kept for the end of the run, which tells it: a
 * stream has forgotten then what it lost. 0 or EOF. */
int cli_flush(struct cli *cli);

/* "platter: CMD: message" on err. All return what a command can return at once. */
int cli_error(struct cli *cli, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int cli_usage_error(struct cli *cli, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* What fits its table but not together, in words that need no line that says what to try. */
int cli_misfit(struct cli *cli, const char *message);
void cli_warning(struct cli *cli, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A line that says what to try. */
void cli_hint(struct cli *cli, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* On any stream: the text, or a line of it, with control characters shown as \n, \x1b, ... */
void cli_put_text(FILE *to, const char *text);
/* How many bytes of it cli_put_text writes. */
size_t cli_text_bytes(const char *text);
void cli_put_line(FILE *to, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* What err has to say below its message: its hint or, under another name, that of the reference. */
void cli_put_hints(struct cli *cli, const Error *err);
/* Print err (owned) and its hints. */
int cli_report(struct cli *cli, Error *err);

/* The size that text says, up to max; "image size" and "size" are what it is called by a stand-in
 * and natively. False after printing: end with CLI_EXIT_USAGE. */
bool cli_parse_size(struct cli *cli, const char *text, const char *what, const char *native_what,
                    uint64_t max, uint64_t *ret);
/* The value of a parameter, in all spellings that the program knows. 0 or -errno. */
int cli_size_of_parameter(struct cli *cli, const char *text, const char *name, uint64_t *ret,
                          Error **errp);
/* Value of the current option as a size (which a stand-in calls what) or number; false after
 * printing why not. */
bool cli_size_value(const struct cli_args *args, const char *what, uint64_t min, uint64_t max,
                    uint64_t *ret);
bool cli_number_value(const struct cli_args *args, uint64_t min, uint64_t max, uint64_t *ret);

/* Processors that this machine runs, 1 .. max. */
unsigned cli_processors(unsigned max);

/* The word of a NULL-ended list that is nearest to what was typed, or NULL when none is near. */
const char *cli_nearest(const char *typed, const char *const *words);

#endif
