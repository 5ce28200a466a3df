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
        fd = os->accept(listener->fd, NULL, NULL);
        if (fd == -EMFILE || fd == -ENFILE || fd == -ENOMEM || fd == -ENOBUFS) {
            /* The client stays in the queue of the kernel; asking again at once would spin. */
            accept_pause(server);
            aio_timer_mod(server->accept_timer, aio_clock_ns() + ACCEPT_RETRY_NS);
            return;
        }
        if (fd < 0) {
            return;
        }
        (void)nbd_conn_start(server, fd, listener->tcp);
    }
}

static void listener_watch(struct nbd_listener *listener, bool on)
{
    if (on != listener->watched && aio_set_fd_handler(listener->server->main_ctx, listener->fd,
                                                      on ? accept_cb : NULL, NULL, listener) == 0) {
        listener->watched = on;
    }
}

int nbd_listener_add(NbdServer *server, struct nbd_listener *listener, Error **errp)
{
    struct nbd_listener *last;
    int rc;

    listener->server = server;
    rc = aio_set_fd_handler(server->main_ctx, listener->fd, accept_cb, NULL, listener);
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
    if (listener->fd >= 0) {
        nbd_listener_unlink_path(listener);
        os->close(listener->fd);
    }
    free(listener->path);
    free(listener->host_port);
    free(listener);
}

int nbd_server_listen(NbdServer *server, const struct nbd_address *address, Error **errp)
{
    struct nbd_listener *listener;
    int rc;

    if (address->kind == NBD_ADDRESS_TCP) {
        return nbd_listen_tcp(server, address->host, address->port, errp);
    }
    if (address->kind != NBD_ADDRESS_UNIX || address->path == NULL) {
        return error_set(errp, EINVAL, "an address needs a kind and a path");
    }
    listener = calloc(1, sizeof(*listener));
    if (listener == NULL) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    listener->fd = -1;
    rc = nbd_listen_unix(address->path, listener, errp);
    if (rc == 0) {
        rc = nbd_listener_add(server, listener, errp);
    }
    if (rc < 0) {
        nbd_listener_free(listener);
    }
    return rc;
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
