/* SPDX-License-Identifier: MIT */
/* --trace of the programs: which trace points are on from the start, and where their lines go. */
#ifndef PLATTER_TOOLS_TRACE_OPTION_H
#define PLATTER_TOOLS_TRACE_OPTION_H

#include "tools/cli.h"

/* The row of a command's table. */
#define TRACE_ROW(id)                                                                              \
    {                                                                                              \
        id, 'T', "trace", "PATTERN[,file=FILE]",                                                   \
            "put these trace points into a log; events=FILE has more of them, file=FILE is the "   \
            "log; help lists them"                                                                 \
    }

struct trace_option {
    char *file; /* owned; NULL: standard error */
    bool given;
    int fd;
};
#define TRACE_OPTION_NONE ((struct trace_option){.fd = -1})

/* Switch on what a value says. False: the command ends with *ret_code: a fault was printed, or the
 * trace points that there are. */
bool trace_option_take(struct trace_option *trace, const struct cli_args *a, int *ret_code);
/* The log begins, where one is wanted. CLI_EXIT_*, after printing. */
int trace_option_begin(struct trace_option *trace, struct cli *cli);
void trace_option_end(struct trace_option *trace);

#endif
