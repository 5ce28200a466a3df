/* SPDX-License-Identifier: MIT */
/*
 * NBD server: exports backends to clients over unix sockets and TCP, by the protocol of
 * https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md (fixed newstyle, structured
 * replies, extended headers, block status).
 *
 * A server belongs to the control thread of its instance; accepting runs in the main context, each
 * connection in one of the contexts the server was given. Calls are [control] unless tagged [any].
 * A client is never trusted: what it can make the server hold is bounded (see the limits below),
 * and what one does never waits for another.
 */
#ifndef PLATTER_EXPORT_H
#define PLATTER_EXPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <platter/accounting.h>
#include <platter/backend.h>
#include <platter/platter.h>
#include <platter/tls.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct NbdServer NbdServer;

/* Limits of a client; beyond them it is answered with an error, made to wait, or dropped. Memory
 * for all of them comes from the budget of the instance (platter_options.memory_limit_bytes): half
 * of it, over max_connections, is each client's share, which no other can take; the rest is for
 * whoever comes first. A request that fits neither is answered ENOMEM. A client in transmission
 * keeps its place as long as its connection stands, whether it asks for anything or not; who finds
 * no place waits as long as its handshake may last. */
#define NBD_MAX_CONNECTIONS_DEFAULT 100
#define NBD_HANDSHAKE_TIMEOUT_DEFAULT_NS (INT64_C(10) * 1000 * 1000 * 1000)
#define NBD_SHUTDOWN_TIMEOUT_DEFAULT_NS (INT64_C(5) * 1000 * 1000 * 1000)
#define NBD_MAX_OPTIONS 32              /* of one negotiation */
#define NBD_MAX_PAYLOAD_BYTES (1 << 25) /* of a read or write: 32 MiB */
#define NBD_MAX_IN_FLIGHT 128           /* requests a client, answered and not yet sent included */
#define NBD_MAX_IN_FLIGHT_BYTES (1 << 26)
#define NBD_MAX_EXPORT_BITMAPS 60 /* of one export */

struct nbd_server_options {
    size_t size;                  /* sizeof(struct nbd_server_options) */
    AioContext *const *contexts;  /* connections are spread over them; referenced */
    unsigned context_count;       /* 0: all in the main context */
    unsigned max_connections;     /* clients in transmission; 0: the default; 1: no multi-conn */
    int64_t handshake_timeout_ns; /* 0: the default */
    int64_t shutdown_timeout_ns;  /* what nbd_server_free waits for clients; 0: the default */
    /* Called in the control thread when a client that was in transmission has gone and nobody else
     * is connected. Not from inside another call. NULL: none. */
    void (*idle_cb)(void *opaque);
    void *idle_opaque;
    /* Whoever comes when max_connections are used, negotiating ones included, is not accepted
     * before one of them has gone, however long that takes: as a queue in front of a door. */
    bool queue_clients;
    /* Clients must begin TLS before anything else, with these credentials (of a server);
     * referenced. NULL: no TLS is offered. tls_authz: who may come besides; referenced; NULL: all
     * whom the credentials let in. It needs an identity, so credentials that check certificates or
     * keys. */
    TlsCreds *tls_creds;
    TlsAuthz *tls_authz;
};

/* A dirty bitmap that an export offers as the metadata context qemu:dirty-bitmap:NAME. While it is
 * exported it is busy. */
struct nbd_export_bitmap {
    const char *name;
    BlockDriverState *node; /* borrowed: where it is; NULL: the nearest of this name on the disk of
                               the export and what is below it (filters, backing files) */
};

struct nbd_export_options {
    size_t size;             /* sizeof(struct nbd_export_options) */
    const char *name;        /* UTF-8, at most 4096 bytes; NULL: "", the default export */
    const char *description; /* for people; NULL: none */
    bool writable;           /* false: write requests answer EPERM */
    bool allocation_depth;   /* offer the metadata context qemu:allocation-depth */
    bool error_policy;       /* failed requests go through the backend's (blk_co_handle_error) */
    AioContext *context;     /* its clients are served there; referenced; NULL: as others */
    const struct nbd_export_bitmap *bitmaps; /* at most NBD_MAX_EXPORT_BITMAPS */
    unsigned bitmap_count;
};

enum nbd_address_kind {
    NBD_ADDRESS_UNIX = 0,
    NBD_ADDRESS_TCP,
};

struct nbd_address {
    enum nbd_address_kind kind;
    const char *path; /* unix: a new socket there, mode 0600; a dead one is replaced */
    const char *host; /* TCP: name or number; NULL: every address */
    const char *port; /* TCP: number or service; NULL: "10809"; "0": one is chosen */
};

enum nbd_remove_mode {
    NBD_REMOVE_SAFE = 0, /* -EBUSY while clients use it */
    NBD_REMOVE_HARD,     /* drop its clients */
};

/* Counted since the server began. */
struct nbd_server_stats {
    size_t size;          /* in: sizeof(struct nbd_server_stats) */
    unsigned connections; /* in transmission now */
    unsigned handshakes;  /* negotiating now */
    uint64_t connections_total;
    uint64_t read_requests;
    uint64_t write_requests;
    uint64_t other_requests;
    uint64_t failed_requests;
    uint64_t read_bytes;
    uint64_t write_bytes;
    uint64_t latency_total_ns; /* from receipt to the reply given to the kernel, all requests */
};

/* A server without listeners or exports; opts may be NULL. platter_free ends it if nobody did.
 * Errors: ENOMEM, EINVAL (a negative timeout, credentials of a client, an authorization that could
 * let nobody in). */
NbdServer *nbd_server_new(Platter *pl, const struct nbd_server_options *opts, Error **errp);
/* Stop listening, answer what is in flight, refuse what comes later (ESHUTDOWN), drop the clients
 * (those that do not read their replies after the shutdown timeout), remove the sockets, let the
 * backends go. Polls the main context. NULL allowed. */
void nbd_server_free(NbdServer *server);

/* Listen on one more address. A host name may stand for several sockets.
 * Errors: EADDRINUSE (somebody listens there), EEXIST (the path is no socket), ENAMETOOLONG,
 * EACCES, EINVAL, ENOMEM and what the system says. */
int nbd_server_listen(NbdServer *server, const struct nbd_address *address, Error **errp);
/* The same on a socket that listens already (socket activation); fd becomes the server's, also on
 * failure. 0, -EINVAL (it does not listen, or is neither unix nor TCP), -ENOTSOCK, -ENOMEM. */
int nbd_server_listen_fd(NbdServer *server, int fd, Error **errp);
/* How many sockets listen, and the URI of an export there ("nbd+unix:///NAME?socket=PATH",
 * "nbd://HOST:PORT/NAME"), which the caller frees with free(). NULL out of memory. */
unsigned nbd_server_listener_count(const NbdServer *server);
char *nbd_server_get_uri(const NbdServer *server, unsigned listener, const char *export_name);
/* Serve a connected stream socket; fd becomes the server's, also on failure. 0 or -errno. */
int nbd_server_accept_fd(NbdServer *server, int fd);

/* Export blk (referenced). 0, -EEXIST (name taken), -EINVAL, -EACCES (writable asked for a
 * read-only backend), -ENOMEDIUM, -ENOMEM; for its bitmaps -ENOENT, -EBUSY, -EINVAL (inconsistent,
 * or recording changes that others make to a read-only export), -E2BIG. */
int nbd_server_add_export(NbdServer *server, BlockBackend *blk,
                          const struct nbd_export_options *opts, Error **errp);
/* 0, -ENOENT, -EBUSY. HARD polls the main context until the clients are gone. */
int nbd_server_remove_export(NbdServer *server, const char *name, enum nbd_remove_mode mode,
                             Error **errp);

/* The name of the n-th export, in no order that lasts; borrowed until the export goes. NULL: there
 * are not so many. */
const char *nbd_server_get_export_name(NbdServer *server, unsigned n);
/* What the requests of its clients took, apart from what others do with its backend (whose figures
 * they are in too): borrowed until the export goes. Times are from the request's turn to its
 * reply's making, the error policy included. NULL: there is no such export. */
BlockAcctStats *nbd_server_get_export_stats(NbdServer *server, const char *name);

void nbd_server_get_stats(NbdServer *server, struct nbd_server_stats *ret_stats); /* [any] */

#ifdef __cplusplus
}
#endif
#endif
