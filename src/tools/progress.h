/* SPDX-License-Identifier: MIT */
/* How far long work is, told as `qemu-img` tells it: with -p as a line on stdout that is written
 * over, and on SIGUSR1 as a line on stderr. */
#ifndef PLATTER_TOOLS_PROGRESS_H
#define PLATTER_TOOLS_PROGRESS_H

#include <stdbool.h>

#include <platter/image.h>

#include "tools/cli.h"

extern const char *const progress_words[];
/* The row of an option, for tables of options; progress_take takes it. */
#define PROGRESS_ROW(id)                                                                           \
    {                                                                                              \
        id, 'p', "progress", "[=json]", "show how far it is; json: an object a line",              \
            .words = progress_words                                                                \
    }

/* How it is shown. */
enum progress_form { PROGRESS_NONE, PROGRESS_LINE, PROGRESS_JSON };

struct progress {
    struct cli *cli;
    enum progress_form form;
    int signal_fd;              /* < 0: SIGUSR1 is not watched */
    bool line_again;            /* the line tells the end also where it has told of it */
    bool line_stands;           /* and is not ended */
    uint64_t total;             /* as told last */
    double percent;             /* now */
    double printed;             /* what the line shows; < 0: nothing yet */
    struct bdrv_progress calls; /* for the library: reports to this */
};

/* With -q no line is shown; what programs read is. */
static inline enum progress_form progress_beside(enum progress_form form, bool quiet)
{
    return form == PROGRESS_LINE && quiet ? PROGRESS_NONE : form;
}
/* Where text for people goes beside it: lines of JSON stand alone. */
static inline FILE *progress_text(const struct cli *cli, enum progress_form form)
{
    return form == PROGRESS_JSON ? cli->err : cli->out;
}
/* CLI_EXIT_*, after printing. */
int progress_take(const struct cli_args *a, enum progress_form *ret);
/* From here on SIGUSR1 asks for the progress. Before any thread is made; what is not watched does
 * not keep the command from its work. As JSON it is {"event": "progress", "done": N, "total": N,
 * "percent": N}, and at the end {"event": "end", "ok": BOOL}, also if that is a signal: so it
 * begins before the disks are opened, and there is one end, whatever the number of them. */
void progress_begin(struct progress *p, struct cli *cli, enum progress_form form);
/* The work on a disk begins and ends, which is a line of its own. */
void progress_start(struct progress *p);
void progress_stop(struct progress *p);
void progress_set(struct progress *p, uint64_t done, uint64_t total);
/* All is done, whatever was told last. */
void progress_complete(struct progress *p);
/* Answer what asked on SIGUSR1 since the last call; progress_set does so, too. */
void progress_answer(struct progress *p);
void progress_end(struct progress *p, bool ok);

#endif
