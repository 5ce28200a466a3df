/* SPDX-License-Identifier: MIT */
/* SIGINT, SIGTERM and SIGHUP as a wish to end in order. */
#ifndef PLATTER_TOOLS_SIGNALS_H
#define PLATTER_TOOLS_SIGNALS_H

#include <signal.h>
#include <stdbool.h>

#include <platter/aio.h>

#include "tools/cli.h"

/* Block them in this thread, and a descriptor to read them from, or -errno. Those that the caller
 * of the program ignores (nohup, jobs of a script in the background) stay ignored, but for those in
 * always; NULL: none. */
int signals_hold(const sigset_t *always);

struct end_signals {
    int fd;          /* -1: not begun */
    AioContext *ctx; /* borrowed; NULL: not watched */
    bool arrived;
};

/* Block them, before any thread is made: threads inherit that. 0, or -errno that was printed.
 * Natively an ignored SIGINT or SIGHUP stays so. */
int end_signals_begin(struct end_signals *s, struct cli *cli);
/* From now on aio_poll of ctx (the caller's thread) sets arrived. 0, or -errno that was printed. */
int end_signals_watch(struct end_signals *s, struct cli *cli, AioContext *ctx);
void end_signals_end(struct end_signals *s); /* also of one that was not begun, {.fd = -1} */

#endif
