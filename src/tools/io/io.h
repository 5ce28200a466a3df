/* SPDX-License-Identifier: MIT */
/* platter io: what its files share. A command is one row of a table; lines and words are those of
 * qemu-io. Commands return 0 or -errno after printing what went wrong. */
#ifndef PLATTER_TOOLS_IO_IO_H
#define PLATTER_TOOLS_IO_IO_H

#include <stdbool.h>
#include <stdint.h>

#include "tools/disk.h"

#define IO_TAGS_MAX 256
/* Largest transfer of one command: the largest multiple of a sector that an int can hold. */
#define IO_LENGTH_MAX UINT64_C(2147483136)

struct io_session {
    struct cli *cli;
    Platter *pl;
    BlockBackend *blk;         /* owned; NULL: no disk is open */
    struct disk_args defaults; /* of a disk that is opened: what does not belong to a disk */
    bool misalign;             /* buffers stand where direct I/O does not want them */
    bool quit;
    unsigned in_flight;      /* aio_read and aio_write; all of them end before blk does */
    char *tags[IO_TAGS_MAX]; /* owned: of breakpoints that were set */
    size_t tag_count;
};

struct io_command {
    const char *name;
    const char *alias; /* may be NULL */
    const char *args;  /* NULL when there are none */
    const char *summary;
    int args_min;
    int args_max; /* -1: any */
    bool needs_disk;
    bool writes;
    int (*run)(struct io_session *s, const struct io_command *command, int argc, char **argv);
};

extern const struct io_command io_async_commands[];      /* async.c; a NULL name ends */
extern const struct io_command io_breakpoint_commands[]; /* breakpoint.c */
extern const struct io_command io_data_commands[];       /* data.c */
extern const struct io_command io_facts_commands[];      /* facts.c */
extern const struct io_command io_open_commands[];       /* open.c */
extern const struct io_command io_process_commands[];    /* process.c */
extern const struct io_command io_vector_commands[];     /* vector.c */

/* Prints that a request was suspended or resumed; opaque: struct cli. */
void io_tell_breakpoint(void *opaque, const struct platter_event *event);

/* A request that waits at a breakpoint, which somebody has to resume before all requests can have
 * ended; NULL: there is none. Its tag, borrowed. breakpoint.c */
const char *io_suspended_tag(struct io_session *s);
/* The disk goes, and with it the breakpoints: requests that wait go on. -ECANCELED after printing
 * which did, else 0. */
int io_breakpoints_end(struct io_session *s);

/* What "help COMMAND" says besides the command's line; NULL: nothing. help.c */
const char *io_help_text(const char *name);

/* Run lines from the input until it ends or a command says quit: with a prompt, and editing and a
 * history of this session on a terminal. False: some line failed. lines.c */
bool io_run_input(struct io_session *s);

/* Wait until no request is in flight. async.c */
void io_wait_all(struct io_session *s);

/* open.c. Close: waits, flushes, lets go; 0 or -errno after printing. */
int io_close(struct io_session *s);

/* buffer.c. Buffers for transfers. NULL after printing. */
#define IO_FILL_READ 0xab  /* before a read, so that untouched bytes show */
#define IO_FILL_WRITE 0xcd /* what is written without a pattern */
unsigned char *io_buffer_new(struct io_session *s, uint64_t bytes, int fill);
void io_buffer_free(struct io_session *s, unsigned char *buf);
bool io_all_bytes_are(const unsigned char *buf, uint64_t bytes, int pattern);
/* One buffer in pieces, as long as words say. */
struct io_pieces {
    unsigned char *buf; /* owned */
    struct iovec *iov;  /* owned */
    int count;
    uint64_t bytes;
};
/* 0 or -errno after printing. */
int io_pieces_init(struct io_session *s, struct io_pieces *p, char *const *words, int count,
                   int fill);
void io_pieces_fini(struct io_session *s, struct io_pieces *p);

/* The commands whose names begin so, in order of the alphabet; how many. command.c */
#define IO_COMMANDS_MAX 64
size_t io_commands_beginning(const char *text, size_t len,
                             const struct io_command *ret[IO_COMMANDS_MAX]);

/* Run one line. 0, or -errno after printing. */
int io_run_line(struct io_session *s, const char *line);

/* Options of a command, getopt-like: letters, ':' behind those with a value. */
struct io_args {
    struct io_session *s;
    const struct io_command *command;
    int argc;
    char **argv;
    int index;
    bool only_operands; /* "--" was seen */
    const char *bundle;
    const char *value;
    char **operands; /* in argv, from which they have been read */
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
/* A whole number up to max as C writes it (hexadecimal, octal, a plus before it). Prints nothing.
 */
bool io_c_number(const char *text, long max, long *ret);
bool io_pattern(struct io_session *s, const char *text, int *ret);
/* "read failed: Input/output error"; returns ret. */
int io_failed(struct io_session *s, const char *what, int ret);

/* What was read is not the pattern. */
void io_mismatch(struct io_session *s, uint64_t offset, uint64_t bytes);

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
