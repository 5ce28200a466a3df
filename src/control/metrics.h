/* SPDX-License-Identifier: MIT */
/*
 * What an instance counts, in the text format that Prometheus scrapes (version 0.0.4), and an HTTP
 * server for it that knows nothing else. Control thread.
 */
#ifndef PLATTER_CONTROL_METRICS_H
#define PLATTER_CONTROL_METRICS_H

#include <stddef.h>

#include <platter/aio.h>
#include <platter/error.h>
#include <platter/export.h>

#define METRICS_CLIENTS_MAX 8
#define METRICS_REQUEST_MAX 4096                 /* bytes of a request */
#define METRICS_CLIENT_NS (INT64_C(10000000000)) /* a client has as long for all */

/* Of whom; nbd points to a place that may hold NULL and may change. */
struct metrics_source {
    Platter *pl;           /* borrowed */
    NbdServer *const *nbd; /* borrowed; NULL: never one */
};

/* Backends with a name, nodes, jobs, the NBD server and its exports. *ret_text is malloc'd and ends
 * with a zero byte that *ret_bytes does not count. Outside of coroutines, and of whatever changes
 * the graph. 0 or -ENOMEM. */
int metrics_render(const struct metrics_source *source, char **ret_text, size_t *ret_bytes);

/*
 * The server. Its handlers only move bytes; answers are made by metrics_server_turn, which the
 * owner of the loop calls after each aio_poll that is no part of something else, because the
 * figures are read from a graph at rest.
 */
struct metrics_server;

/* Whether address looks like one, before anything is done. 0 or -errno. */
int metrics_address_check(const char *address, Error **errp);
/* address: "unix:PATH", or "HOST:PORT" of this machine alone (port 0: one that is free). Anybody
 * who can connect can read. 0 or -errno with errp: EINVAL (it is neither, or others could reach
 * it), EADDRINUSE, ENOMEM and what the system says. */
int metrics_server_new(AioContext *ctx, const char *address, const struct metrics_source *source,
                       struct metrics_server **ret_server, Error **errp);
void metrics_server_turn(struct metrics_server *server); /* NULL allowed */
/* "unix:/run/m.sock", "http://127.0.0.1:9100/metrics": where it listens first; borrowed. */
const char *metrics_server_where(const struct metrics_server *server);
/* Drop the clients and the sockets. NULL allowed. */
void metrics_server_free(struct metrics_server *server);

#endif
