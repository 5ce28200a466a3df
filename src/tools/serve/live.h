/* SPDX-License-Identifier: MIT */
/* The line on a terminal that shows what a server does, once a second. */
#ifndef PLATTER_TOOLS_SERVE_LIVE_H
#define PLATTER_TOOLS_SERVE_LIVE_H

#include <platter/export.h>

#include "tools/cli.h"

struct serve_live {
    struct cli *cli;
    NbdServer *server; /* borrowed until end */
    AioTimer *timer;   /* owned; NULL: not showing */
    struct nbd_server_stats last;
    int64_t last_ns;
};

/* Show the line when err is a terminal; without memory there is no line. [loop] */
void serve_live_begin(struct serve_live *live, struct cli *cli, NbdServer *server, AioContext *ctx);
void serve_live_end(struct serve_live *live);

/* The text of the line for what happened between two readings. */
void serve_live_text(const struct nbd_server_stats *from, const struct nbd_server_stats *to,
                     int64_t duration_ns, char *buf, size_t size);

#endif
