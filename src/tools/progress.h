/* SPDX-License-Identifier: MIT */
/* How far long work is, told as `qemu-img` tells it: with -p as a line on stdout that is written
 * over, and on SIGUSR1 as a line on stderr. */
#ifndef PLATTER_TOOLS_PROGRESS_H
#define PLATTER_TOOLS_PROGRESS_H

#include <stdbool.h>

#include <platter/image.h>

#include "tools/cli.h"

struct progress {
    struct cli *cli;
    bool shown;                 /* -p */
    bool json;                  /* each step is an object on a line of its own */
    int signal_fd;              /* < 0: SIGUSR1 is not watched */
    double percent;             /* now */
    double printed;             /* what the line shows; < 0: nothing yet */
    struct bdrv_progress calls; /* for the library: reports to this */
};

/* From here on SIGUSR1 asks for the progress. Before any thread is made; what is not watched does
 * not keep the command from its work. */
void progress_begin(struct progress *p, struct cli *cli, bool shown);
/* The same as JSON, {"event": "progress", "done": N, "total": N, "percent": N}, and at the end
 * {"event": "end", "ok": BOOL}. */
void progress_begin_json(struct progress *p, struct cli *cli);
void progress_end_json(struct progress *p, bool ok);
void progress_set(struct progress *p, uint64_t done, uint64_t total);
void progress_end(struct progress *p);

#endif
