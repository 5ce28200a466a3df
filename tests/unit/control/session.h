/* SPDX-License-Identifier: MIT */
/* Sessions over socket pairs, with a table of commands of their own and clients in the same thread:
 * a client writes, the loop runs until it has nothing to do, the client reads. */
#ifndef PLATTER_TESTS_CONTROL_SESSION_H
#define PLATTER_TESTS_CONTROL_SESSION_H

#include <stdbool.h>
#include <stddef.h>

#include <platter/aio.h>

#include "control/monitor.h"

#define CAPS "{\"execute\":\"qmp_capabilities\"}"
#define CAPS_OOB "{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":[\"oob\"]}}"

/* What commands know as their struct control. */
struct control {
    AioContext *ctx;
    struct monitors *all;
    bool hold;              /* the command "hold" polls as long */
    struct client *holding; /* when it has begun, this client (or NULL) ... */
    const char *says;       /* ... says this; NULL: it goes away */
    unsigned running;       /* commands in band */
    unsigned most;          /* of them at a time */
    unsigned runs;
    char order[256]; /* "who" of each command "note" */
    int took;        /* the descriptor that "take-fd" was given */
};

struct client {
    struct control *control;
    struct monitor *mon; /* NULL when over */
    int fd;              /* -1: closed */
    int server_fd;
    unsigned overs;
};

/* Commands: echo (its arguments), fail {class, desc}, hold, release (oob), ping (oob), note {who},
 * event {n}, big {bytes}, take-fd, quit-client. */
const struct qmp_command *session_find(const char *name);

void session_world_new(struct control *control);
void session_world_free(struct control *control);

/* over() of a client. */
void session_over(void *opaque);
/* The greeting is read and checked. */
void client_open(struct client *client, struct control *control, bool pretty);
void client_close(struct client *client);
/* Run the loop until there is nothing to do. */
void session_run(struct control *control);
void client_write(struct client *client, const char *text);
void client_write_bytes(struct client *client, const char *data, size_t bytes);
/* With a descriptor beside it. */
void client_write_fd(struct client *client, const char *text, int fd);
/* All that has come, without \r; malloc'd. */
char *client_read(struct client *client);
/* Run, and what comes must be expected: lines that end in \n. */
void client_expect(struct client *client, const char *expected);
/* Write and expect. */
void client_talk(struct client *client, const char *text, const char *expected);

#endif
