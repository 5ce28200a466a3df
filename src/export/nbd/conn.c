/* SPDX-License-Identifier: MIT */
/*
 * Life of a connection: one coroutine reads it from the first byte to the end; requests and the
 * sender are coroutines beside it in the same context. The coroutine ends when nothing of the
 * connection is in flight any more.
 *
 * Stopping from outside never touches the connection's own state: the socket is shut down (which
 * any thread may do while the connection is in the lists) and the reader finds out.
 */
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>

#include "block/instance.h"
#include "export/nbd/internal.h"
#include "loop/context.h"
#include "loop/io.h"
#include "os/trace.h"
#include "util/mem.h"

#define IDLE_TICK_NS (INT64_C(1000) * 1000 * 1000)

/* ---- waiting of the reader ---- */

void nbd_conn_wait_co(struct nbd_conn *conn)
{
    assert(!conn->waiting && coroutine_self() == conn->co);
    conn->waiting = true;
    coroutine_yield();
}

void nbd_conn_wake(struct nbd_conn *conn)
{
    if (conn->waiting) {
        conn->waiting = false;
        aio_co_wake(conn->co);
    }
}

/* ---- stop ---- */

void nbd_conn_cut(struct nbd_conn *conn)
{
    if (!atomic_exchange(&conn->cancelled, true)) {
        os->shutdown(conn->fd, SHUT_RDWR);
    }
}

void nbd_conn_stop(struct nbd_conn *conn, bool hard)
{
    if (hard) {
        nbd_conn_cut(conn);
    } else if (!atomic_exchange(&conn->stop, true)) {
        /* What has arrived is still read and answered, then the stream ends. */
        os->shutdown(conn->fd, SHUT_RD);
    }
}

/* ---- places ---- */

void nbd_conn_progress(struct nbd_conn *conn)
{
    NbdServer *server = conn->server;

    os_mutex_lock(&server->lock);
    TAILQ_REMOVE(&server->handshaking, conn, link);
    TAILQ_INSERT_TAIL(&server->handshaking, conn, link);
    os_mutex_unlock(&server->lock);
}

/* Become one of the established connections, waiting for a place if there is none: a client that
 * comes back at once must not be refused because its last connection is still being taken down. The
 * wait ends with the handshake's time. */
int nbd_conn_take_slot_co(struct nbd_conn *conn, struct nbd_export *export)
{
    NbdServer *server = conn->server;
    bool got;

    os_mutex_lock(&server->lock);
    conn->export = export; /* its removal finds this connection from here on */
    os_mutex_unlock(&server->lock);
    co_mutex_lock(&server->slot_mutex);
    while (server->slots_used >= server->max_connections && !atomic_load(&conn->cancelled) &&
           !atomic_load(&conn->stop)) {
        co_queue_wait(&server->slot_queue, &server->slot_mutex);
    }
    got = server->slots_used < server->max_connections && !atomic_load(&conn->cancelled);
    server->slots_used += got;
    co_mutex_unlock(&server->slot_mutex);
    if (!got) {
        return -ECANCELED;
    }
    os_mutex_lock(&server->lock);
    TAILQ_REMOVE(&server->handshaking, conn, link);
    TAILQ_INSERT_TAIL(&server->established, conn, link);
    server->handshake_count--;
    server->established_count++;
    conn->is_established = true;
    os_mutex_unlock(&server->lock);
    return 0;
}

static void give_slot_co(NbdServer *server)
{
    co_mutex_lock(&server->slot_mutex);
    server->slots_used--;
    co_queue_next(&server->slot_queue);
    co_mutex_unlock(&server->slot_mutex);
}

/* ---- timer: first the limit of the handshake, then idle memory ---- */

static void conn_timer_cb(void *opaque)
{
    struct nbd_conn *conn = opaque;

    if (!conn->transmitting) {
        nbd_conn_cut(conn);
        co_queue_wake_all(&conn->server->slot_queue);
        return;
    }
    if (conn->requests_total == conn->requests_at_tick) {
        nbd_bufs_trim(&conn->bufs);
        return;
    }
    conn->requests_at_tick = conn->requests_total;
    aio_timer_mod(conn->timer, aio_clock_ns() + IDLE_TICK_NS);
}

void nbd_conn_tick(struct nbd_conn *conn)
{
    if (conn->bufs.cached_bytes > 0 && !aio_timer_pending(conn->timer)) {
        conn->requests_at_tick = conn->requests_total;
        aio_timer_mod(conn->timer, conn->now_ns + IDLE_TICK_NS);
    }
}

/* ---- life ---- */

/* What belongs to the context. */
static int conn_settle_in(struct nbd_conn *conn)
{
    conn->timer = aio_timer_new(conn->ctx, conn_timer_cb, conn);
    conn->flush_bh = aio_bh_new(conn->ctx, nbd_reply_flush_bh, conn);
    return conn->timer != NULL && conn->flush_bh != NULL ? 0 : -ENOMEM;
}

static void conn_move_out(struct nbd_conn *conn)
{
    if (conn->timer != NULL) {
        aio_timer_free(conn->timer);
    }
    if (conn->flush_bh != NULL) {
        aio_bh_delete(conn->flush_bh);
    }
    conn->timer = NULL;
    conn->flush_bh = NULL;
}

static int conn_setup(struct nbd_conn *conn)
{
    int rc = conn_settle_in(conn);

    conn->chunk = nbd_chunk_new(&conn->bufs);
    conn->send_iov = malloc(NBD_SEND_IOV_MAX * sizeof(*conn->send_iov));
    conn->send_heads = malloc((size_t)NBD_MAX_IN_FLIGHT * NBD_REPLY_BYTES_MAX);
    if (rc < 0 || conn->chunk == NULL || conn->send_iov == NULL || conn->send_heads == NULL) {
        return -ENOMEM;
    }
    aio_timer_mod(conn->timer, aio_clock_ns() + conn->server->handshake_timeout_ns);
    return 0;
}

/* Answer what is in flight; what cannot be sent is thrown away. */
static void conn_settle_co(struct nbd_conn *conn)
{
    conn->in_burst = false;
    for (;;) {
        nbd_reply_flush(conn);
        if (conn->in_flight == 0 && !conn->sending) {
            return;
        }
        nbd_conn_wait_co(conn);
    }
}

static void conn_fini(struct nbd_conn *conn)
{
    struct nbd_req *req;

    while ((req = STAILQ_FIRST(&conn->free_reqs)) != NULL) {
        STAILQ_REMOVE_HEAD(&conn->free_reqs, link);
        free(req);
    }
    nbd_tls_end(conn);
    nbd_chunk_unref(&conn->bufs, conn->chunk);
    nbd_bufs_trim(&conn->bufs);
    conn_move_out(conn);
    free(conn->out);
    free(conn->send_iov);
    free(conn->send_heads);
}

/* Free everything and leave the lists, in this order: once the lock is given up the server, its
 * instance and the budget may be gone. */
static void conn_end_co(struct nbd_conn *conn)
{
    NbdServer *server = conn->server;

    os_mutex_lock(&server->lock);
    conn->home->load--; /* which may be the export's, and go with it */
    os_mutex_unlock(&server->lock);
    if (conn->meta_export != NULL) {
        nbd_export_unuse(conn->meta_export);
    }
    if (conn->export != NULL) {
        nbd_export_unuse(conn->export);
    }
    conn_fini(conn);
    if (conn->is_established) {
        give_slot_co(server);
    }
    os_mutex_lock(&server->lock);
    os->close(conn->fd); /* under the lock: nbd_conn_cut must not meet a number used anew */
    if (conn->is_established) {
        TAILQ_REMOVE(&server->established, conn, link);
        server->established_count--;
        server->became_idle |= server->established_count + server->handshake_count == 0;
    } else {
        TAILQ_REMOVE(&server->handshaking, conn, link);
        server->handshake_count--;
    }
    aio_bh_schedule(server->ended_bh);
    os_mutex_unlock(&server->lock);
    free(conn);
}

static void conn_transmit_co(struct nbd_conn *conn)
{
    aio_timer_del(conn->timer);
    conn->transmitting = true;
    TRACE(nbd_connect, (void *)conn, conn->export->name);
    nbd_session_co(conn);
    conn_settle_co(conn);
    TRACE(nbd_disconnect, (void *)conn, (unsigned long long)conn->requests_total);
}

/* Goes on in the context of its export. */
static void conn_moved_entry(void *opaque)
{
    struct nbd_conn *conn = opaque;

    coroutine_pool_reserve(COROUTINE_POOL_RESERVATION);
    if (conn_settle_in(conn) == 0) {
        conn_transmit_co(conn);
    }
    coroutine_pool_reserve(-COROUTINE_POOL_RESERVATION);
    conn_end_co(conn);
}

/* Hand the connection, which has nothing in flight, over to the context of its export: with a
 * coroutine of its own there, since this one is still running. False: it stays here. */
static bool conn_move(struct nbd_conn *conn)
{
    struct nbd_context *place = &conn->export->place;
    Coroutine *co;

    if (place->ctx == NULL || place->ctx == conn->ctx) {
        return false;
    }
    co = coroutine_create(conn_moved_entry, conn);
    if (co == NULL) {
        return false;
    }
    conn_move_out(conn);
    os_mutex_lock(&conn->server->lock);
    conn->home->load--;
    conn->home = place;
    place->load++;
    os_mutex_unlock(&conn->server->lock);
    conn->ctx = place->ctx;
    conn->co = co;
    coroutine_pool_reserve(-COROUTINE_POOL_RESERVATION);
    aio_co_schedule(conn->ctx, co);
    return true;
}

static void conn_entry(void *opaque)
{
    struct nbd_conn *conn = opaque;

    coroutine_pool_reserve(COROUTINE_POOL_RESERVATION);
    if (conn_setup(conn) == 0 && nbd_handshake_co(conn) == 0) {
        if (conn_move(conn)) {
            return; /* it is another thread's from here on */
        }
        conn_transmit_co(conn);
    }
    coroutine_pool_reserve(-COROUTINE_POOL_RESERVATION);
    conn_end_co(conn);
}

/* The context with the fewest connections. Under lock. */
static struct nbd_context *context_choose(NbdServer *server)
{
    struct nbd_context *best = &server->contexts[0];
    unsigned i;

    for (i = 1; i < server->context_count; i++) {
        if (server->contexts[i].load < best->load) {
            best = &server->contexts[i];
        }
    }
    return best;
}

int nbd_conn_start(NbdServer *server, int fd, bool tcp)
{
    struct nbd_conn *conn = calloc(1, sizeof(*conn));
    int one = 1;

    if (conn != NULL) {
        conn->co = coroutine_create(conn_entry, conn);
    }
    if (conn == NULL || conn->co == NULL) {
        free(conn);
        os->close(fd);
        return -ENOMEM;
    }
    if (tcp) {
        /* Replies are gathered by us; waiting for more would only delay them. A peer that has
         * silently gone is noticed at last. Both are wishes. */
        os->setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        os->setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
    }
    conn->server = server;
    conn->fd = fd;
    nbd_bufs_init(&conn->bufs, &server->pl->budget, server->max_connections);
    STAILQ_INIT(&conn->free_reqs);
    STAILQ_INIT(&conn->replies);
    os_mutex_lock(&server->lock);
    conn->home = context_choose(server);
    conn->home->load++;
    conn->ctx = conn->home->ctx;
    TAILQ_INSERT_TAIL(&server->handshaking, conn, link);
    server->handshake_count++;
    server->connections_total++;
    os_mutex_unlock(&server->lock);
    aio_co_schedule(conn->ctx, conn->co);
    return 0;
}
