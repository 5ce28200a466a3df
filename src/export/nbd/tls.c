/* SPDX-License-Identifier: MIT */
/*
 * TLS between a connection and its socket. The session (src/tls) works on buffers; here they are
 * filled from the socket and emptied into it, in coroutines, so that no client waits for another's
 * handshake. What a handshake computes is done by a worker thread,
 * also because it needs more stack than a coroutine has.
 *
 * The reader and the sender both may have something to send (the reader: alerts, answers to key
 * updates): one of them at a time does, in the order in which it was encrypted. While one does, it
 * sends what the other has, too; so the reader never waits for a sender whose client does not read.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "export/nbd/internal.h"
#include "os/trace.h"
#include "util/checked.h"
#include "util/iov.h"

struct nbd_tls {
    struct tls_session *session;
    void *in; /* of the connection's buffers, as out */
    size_t in_cap;
    void *out[2];
    size_t out_cap[2];
    CoMutex send_lock;
    bool sending;   /* under it, until nothing is left */
    uint8_t *plain; /* owned: short pieces of one record */
    bool up;        /* the handshake is done */
};

#define PLAIN_BYTES 16384u /* of a record */

/* ---- sending ---- */

static int flush_co(struct nbd_conn *conn)
{
    struct nbd_tls *tls = conn->tls;
    struct iovec iov;
    int rc = 0;

    co_mutex_lock(&tls->send_lock);
    tls->sending = true;
    while (rc == 0 && (iov.iov_len = tls_session_take_out(tls->session, &iov.iov_base)) > 0) {
        rc = aio_send_co(conn->fd, &iov, 1, 0);
    }
    tls->sending = false;
    co_mutex_unlock(&tls->send_lock);
    return rc;
}

/* Encrypt bytes, at most a record. */
static int put_co(struct nbd_conn *conn, const void *data, size_t bytes)
{
    struct tls_session *session = conn->tls->session;

    while (tls_session_room(session) < bytes) {
        int rc = flush_co(conn);

        if (rc < 0) {
            return rc;
        }
    }
    return tls_session_write(session, data, bytes);
}

int nbd_tls_send_co(struct nbd_conn *conn, struct iovec *iov, int niov)
{
    struct nbd_tls *tls = conn->tls;
    size_t held = 0; /* of plain */
    int rc = 0;

    for (int i = 0; rc == 0 && i < niov;) {
        size_t n = (size_t)min_u64(iov[i].iov_len, PLAIN_BYTES - held);

        if (held == 0 && n == PLAIN_BYTES) {
            rc = put_co(conn, iov[i].iov_base, n);
        } else {
            memcpy(tls->plain + held, iov[i].iov_base, n);
            held += n;
        }
        iov[i].iov_base = (uint8_t *)iov[i].iov_base + n;
        iov[i].iov_len -= n;
        i += iov[i].iov_len == 0;
        if (rc == 0 && held > 0 && (held == PLAIN_BYTES || i == niov)) {
            rc = put_co(conn, tls->plain, held);
            held = 0;
        }
    }
    return rc < 0 ? rc : flush_co(conn);
}

/* ---- receiving ---- */

/* Bring more from the socket, after what is to be sent. The end of the stream is for the session to
 * judge. */
static int fill_co(struct nbd_conn *conn)
{
    int64_t n = conn->tls->sending ? 0 : flush_co(conn);

    if (n == 0) {
        struct iovec iov;

        iov.iov_base = tls_session_in(conn->tls->session, &iov.iov_len);
        n = aio_recvv_co(conn->fd, &iov, 1);
    }
    if (n >= 0) {
        tls_session_arrived(conn->tls->session, (size_t)n);
    }
    return n < 0 ? (int)n : 0;
}

int64_t nbd_tls_recv_co(struct nbd_conn *conn, struct iovec *iov, int niov)
{
    struct tls_session *session = conn->tls->session;
    size_t got = 0;
    int64_t n;

    /* What is here already is one burst: go on until the session has no more. */
    for (;;) {
        n = tls_session_read(session, (uint8_t *)iov->iov_base + got, iov->iov_len - got);
        if (n > 0) {
            got += (size_t)n;
            if (got == iov->iov_len) {
                return (int64_t)got;
            }
        } else if (got > 0) {
            return (int64_t)got; /* an end or error comes again */
        } else if (n == -EAGAIN) {
            n = fill_co(conn);
            if (n < 0) {
                return n;
            }
        } else {
            (void)flush_co(conn);
            return n;
        }
    }
}

/* ---- life ---- */

static int buffers_get(struct nbd_conn *conn, struct nbd_tls *tls)
{
    tls->plain = malloc(PLAIN_BYTES);
    tls->in = nbd_bufs_get(&conn->bufs, TLS_IN_BYTES, &tls->in_cap);
    tls->out[0] = nbd_bufs_get(&conn->bufs, TLS_OUT_BYTES, &tls->out_cap[0]);
    tls->out[1] = nbd_bufs_get(&conn->bufs, TLS_OUT_BYTES, &tls->out_cap[1]);
    if (tls->plain == NULL || tls->in == NULL || tls->out[0] == NULL || tls->out[1] == NULL) {
        return -ENOMEM;
    }
    tls->session = tls_session_new(conn->server->tls_creds, tls->in, tls->out);
    return tls->session != NULL ? 0 : -ENOMEM;
}

static int64_t handshake_step(void *arg)
{
    return tls_session_handshake(arg);
}

static int handshake_co(struct nbd_conn *conn)
{
    int64_t rc;

    while ((rc = aio_worker_co(handshake_step, conn->tls->session)) == -EAGAIN) {
        rc = fill_co(conn);
        if (rc < 0) {
            return (int)rc;
        }
    }
    if (rc < 0) {
        (void)flush_co(conn); /* an alert */
    }
    return rc < 0 ? (int)rc : flush_co(conn);
}

struct peer_check {
    const struct nbd_conn *conn;
    Error *err;
};

static int64_t peer_step(void *arg)
{
    struct peer_check *check = arg;

    return tls_session_check_peer(check->conn->tls->session, check->conn->server->tls_authz,
                                  &check->err);
}

/* A chain of certificates that somebody else made is as much work as a handshake. */
static int check_peer_co(struct nbd_conn *conn)
{
    struct peer_check check = {conn, NULL};
    int rc = (int)aio_worker_co(peer_step, &check);

    if (check.err != NULL) {
        TRACE(nbd_tls_refused, (void *)conn, error_get_pretty(check.err));
        error_free(check.err);
        (void)flush_co(conn); /* an alert */
    }
    return rc;
}

int nbd_tls_begin_co(struct nbd_conn *conn)
{
    int rc;

    conn->tls = calloc(1, sizeof(*conn->tls));
    if (conn->tls == NULL) {
        return -ENOMEM;
    }
    co_mutex_init(&conn->tls->send_lock);
    rc = buffers_get(conn, conn->tls);
    if (rc == 0) {
        rc = handshake_co(conn);
    }
    if (rc == 0) {
        rc = check_peer_co(conn);
    }
    conn->tls->up = rc == 0;
    return rc;
}

/* Nobody sends any more; the socket takes it or not. */
static void say_bye(struct nbd_conn *conn)
{
    struct iovec iov;
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    tls_session_bye(conn->tls->session);
    iov.iov_len = tls_session_take_out(conn->tls->session, &iov.iov_base);
    if (iov.iov_len > 0) {
        (void)os->sendmsg(conn->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
}

void nbd_tls_end(struct nbd_conn *conn)
{
    struct nbd_tls *tls = conn->tls;

    if (tls == NULL) {
        return;
    }
    if (tls->up && !conn->dead) {
        say_bye(conn);
    }
    tls_session_free(tls->session);
    if (tls->in != NULL) {
        nbd_bufs_put(&conn->bufs, tls->in, tls->in_cap);
    }
    for (unsigned i = 0; i < 2; i++) {
        if (tls->out[i] != NULL) {
            nbd_bufs_put(&conn->bufs, tls->out[i], tls->out_cap[i]);
        }
    }
    free(tls->plain);
    free(tls);
    conn->tls = NULL;
}
