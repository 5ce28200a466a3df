/* SPDX-License-Identifier: MIT */
/*
 * Accepting. How many may negotiate at once is bounded; when a new client comes while that many do,
 * the one whose negotiation has stood still longest makes room, so that sockets that were opened
 * and left never keep an honest client out. Who has finished negotiating is never touched.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "export/nbd/internal.h"
#include "util/error.h"

#define ACCEPT_BATCH 8                               /* then the loop has its turn */
#define HANDSHAKES_HARD_MAX (2 * NBD_HANDSHAKES_MAX) /* those being dropped included */
#define ACCEPT_RETRY_NS (INT64_C(100) * 1000 * 1000)

static void listener_watch(struct nbd_listener *listener, bool on);

static void accept_pause(NbdServer *server)
{
    struct nbd_listener *listener;

    server->accept_paused = true;
    LIST_FOREACH (listener, &server->listeners, link) {
        listener_watch(listener, false);
    }
}

void nbd_accept_resume(NbdServer *server)
{
    struct nbd_listener *listener;

    if (!server->accept_paused || atomic_load(&server->stopping)) {
        return;
    }
    server->accept_paused = false;
    LIST_FOREACH (listener, &server->listeners, link) {
        listener_watch(listener, true);
    }
}

void nbd_accept_timer_cb(void *opaque)
{
    nbd_accept_resume(opaque);
}

/* Whether one more may negotiate now; makes room for it. */
static bool make_room(NbdServer *server)
{
    struct nbd_conn *conn;
    bool full;
    bool ok;

    os_mutex_lock(&server->lock);
    if (server->queue_clients &&
        server->handshake_count + server->established_count >= server->max_connections) {
        os_mutex_unlock(&server->lock);
        return false;
    }
    full = server->handshake_count >= NBD_HANDSHAKES_MAX;
    if (full) {
        TAILQ_FOREACH (conn, &server->handshaking, link) {
            if (!atomic_load(&conn->cancelled)) {
                nbd_conn_cut(conn);
                break;
            }
        }
    }
    ok = server->handshake_count < HANDSHAKES_HARD_MAX;
    os_mutex_unlock(&server->lock);
    if (full) {
        co_queue_wake_all(&server->slot_queue); /* it may be waiting there */
    }
    return ok;
}

static void accept_cb(void *opaque)
{
    struct nbd_listener *listener = opaque;
    NbdServer *server = listener->server;
    int i;

    for (i = 0; i < ACCEPT_BATCH; i++) {
        int fd;

        if (!make_room(server)) {
            accept_pause(server); /* a connection that ends lets it go on */
            return;
        }
        fd = os->accept(listener->sock.fd, NULL, NULL);
        if (fd == -EMFILE || fd == -ENFILE || fd == -ENOMEM || fd == -ENOBUFS) {
            /* The client stays in the queue of the kernel; asking again at once would spin. */
            accept_pause(server);
            aio_timer_mod(server->accept_timer, aio_clock_ns() + ACCEPT_RETRY_NS);
            return;
        }
        if (fd < 0) {
            return;
        }
        (void)nbd_conn_start(server, fd, nbd_listener_is_tcp(listener));
    }
}

static void listener_watch(struct nbd_listener *listener, bool on)
{
    if (on != listener->watched && aio_set_fd_handler(listener->server->main_ctx, listener->sock.fd,
                                                      on ? accept_cb : NULL, NULL, listener) == 0) {
        listener->watched = on;
    }
}

static int listener_add(NbdServer *server, struct nbd_listener *listener, Error **errp)
{
    struct nbd_listener *last;
    int rc;

    listener->server = server;
    rc = aio_set_fd_handler(server->main_ctx, listener->sock.fd, accept_cb, NULL, listener);
    if (rc < 0) {
        return error_set_errno(errp, -rc, "cannot watch the socket");
    }
    listener->watched = true;
    if (LIST_EMPTY(&server->listeners)) {
        LIST_INSERT_HEAD(&server->listeners, listener, link);
    } else {
        for (last = LIST_FIRST(&server->listeners); LIST_NEXT(last, link) != NULL;) {
            last = LIST_NEXT(last, link);
        }
        LIST_INSERT_AFTER(last, listener, link);
    }
    server->listener_count++;
    return 0;
}

/* One that was not added, or has been taken out of the list. */
void nbd_listener_free(struct nbd_listener *listener)
{
    if (listener->watched) {
        listener_watch(listener, false);
    }
    os_listener_close(&listener->sock);
    free(listener);
}

/* Serve a socket, which is owned from now on, also on failure. */
static int listener_start(NbdServer *server, struct os_listener *sock, Error **errp)
{
    struct nbd_listener *listener = calloc(1, sizeof(*listener));
    int rc;

    if (listener == NULL) {
        os_listener_close(sock);
        return error_set(errp, ENOMEM, "out of memory");
    }
    listener->sock = *sock;
    rc = listener_add(server, listener, errp);
    if (rc < 0) {
        nbd_listener_free(listener);
    }
    return rc;
}

/* All of them, or as many as can be had: as with os_listen_tcp, one is enough. */
static int tcp_listen(NbdServer *server, const struct nbd_address *address, Error **errp)
{
    struct os_listener socks[OS_LISTENERS_MAX];
    Error *err = NULL;
    bool started = false;
    int rc = 0;
    int n =
        os_listen_tcp(address->host, address->port ? address->port : "10809", false, socks, errp);
    int i;

    if (n < 0) {
        return n;
    }
    for (i = 0; i < n; i++) {
        Error *one = NULL;
        int this_rc = listener_start(server, &socks[i], &one);

        started |= this_rc == 0;
        rc = rc < 0 ? rc : this_rc;
        error_propagate(&err, one);
    }
    if (started) {
        error_free(err);
        return 0;
    }
    error_propagate(errp, err);
    return rc;
}

int nbd_server_listen(NbdServer *server, const struct nbd_address *address, Error **errp)
{
    struct os_listener sock;
    int rc;

    if (address->kind == NBD_ADDRESS_TCP) {
        return tcp_listen(server, address, errp);
    }
    if (address->kind != NBD_ADDRESS_UNIX || address->path == NULL) {
        return error_set(errp, EINVAL, "an address needs a kind and a path");
    }
    rc = os_listen_unix(address->path, &sock, errp);
    return rc < 0 ? rc : listener_start(server, &sock, errp);
}

int nbd_server_listen_fd(NbdServer *server, int fd, Error **errp)
{
    struct os_listener sock;
    int rc = os_listen_fd(fd, &sock, errp);

    return rc < 0 ? rc : listener_start(server, &sock, errp);
}

unsigned nbd_server_listener_count(const NbdServer *server)
{
    return server->listener_count;
}

int nbd_server_accept_fd(NbdServer *server, int fd)
{
    int flags = os->fcntl_getfl(fd);
    int rc = flags < 0 ? flags : os->fcntl_setfl(fd, flags | O_NONBLOCK);

    if (rc < 0) {
        os->close(fd);
        return rc;
    }
    return nbd_conn_start(server, fd, false);
}
