/* SPDX-License-Identifier: MIT */
/* platter io: what its files share. A command is one row of a table; lines and words are those of
 * qemu-io. Commands return 0 or -errno after printing what went wrong. */
#ifndef PLATTER_TOOLS_IO_IO_H
#define PLATTER_TOOLS_IO_IO_H

#include <stdbool.h>
#include <stdint.h>

#include "tools/disk.h"

#define IO_WORDS_MAX 64
/* Largest transfer of one command: the largest multiple of a sector that an int can hold. */
#define IO_LENGTH_MAX UINT64_C(2147483136)

struct io_session {
    struct cli *cli;
    Platter *pl;
    BlockBackend *blk; /* NULL: no disk was named */
    bool quit;
};

struct io_command {
    const char *name;
    const char *alias; /* may be NULL */
    const char *args;  /* "" when there are none */
    const char *summary;
    const char *help; /* may be NULL */
    int args_min;
    int args_max; /* -1: any */
    bool needs_disk;
    bool writes;
    int (*run)(struct io_session *s, const struct io_command *command, int argc, char **argv);
};

extern const struct io_command io_data_commands[];       /* data.c; a NULL name ends */
extern const struct io_command io_breakpoint_commands[]; /* breakpoint.c */
extern const struct io_command io_facts_commands[];      /* facts.c */
extern const struct io_command io_process_commands[];    /* process.c */

/* Prints that a request was suspended or resumed; opaque: struct cli. */
void io_tell_breakpoint(void *opaque, const struct platter_event *event);

/* Run one line. 0, or -errno after printing. */
int io_run_line(struct io_session *s, const char *line);

/* Options of a command, getopt-like: letters, ':' behind those with a value. */
struct io_args {
    struct io_session *s;
    const struct io_command *command;
    int argc;
    char **argv;
    int index;
    const char *bundle;
    const char *value;
    char *operands[IO_WORDS_MAX];
    int operand_count;
};
struct io_args io_args_begin(struct io_session *s, const struct io_command *command, int argc,
                             char **argv);
/* The next option's letter; 0 at the end (operands are complete then), '?' after printing. */
int io_next_option(struct io_args *args, const char *letters);

/* -EINVAL after printing the command's usage line. */
int io_usage(struct io_session *s, const struct io_command *command);
/* A number or size; false after printing. */
bool io_number(struct io_session *s, const char *text, uint64_t *ret);
bool io_pattern(struct io_session *s, const char *text, int *ret);
/* "read failed: Input/output error"; returns ret. */
int io_failed(struct io_session *s, const char *what, int ret);

/* "1.500 KiB", "512 bytes" */
const char *io_size_text(double value, char *buf, size_t size);

struct io_result {
    const char *verb; /* "read", "wrote", "discard" */
    uint64_t offset;
    uint64_t bytes;
    int64_t start_ns;
    bool quiet;
    bool machine; /* -C */
};
void io_report(struct io_session *s, const struct io_result *result);
void io_dump(struct io_session *s, const unsigned char *buf, uint64_t offset, uint64_t bytes);

#endif
