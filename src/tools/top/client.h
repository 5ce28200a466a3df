/* SPDX-License-Identifier: MIT */
/* A plain QMP client over a unix socket: one request, one reply, events thrown away. Blocks. */
#ifndef PLATTER_TOOLS_TOP_CLIENT_H
#define PLATTER_TOOLS_TOP_CLIENT_H

#include <jansson.h>

#include <platter/error.h>

#include "control/json_stream.h"

struct top_client {
    int fd;
    struct json_stream stream;
    char data[65536];
    size_t at, bytes; /* received and not yet looked at */
};

/* Connect and negotiate. 0 or -errno with errp; one that is not greeted within seconds is told why.
 */
int top_client_begin(struct top_client *client, const char *path, Error **errp);
void top_client_end(struct top_client *client);
/* What a command without arguments returns, the caller's; NULL with errp. */
json_t *top_client_ask(struct top_client *client, const char *command, Error **errp);

#endif
