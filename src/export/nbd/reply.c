/* SPDX-License-Identifier: MIT */
/*
 * Replies: encoding, the queue of a connection, and its one sender.
 *
 * Whatever finished since the last send goes out in one system call: requests that finish while the
 * parser works through a burst wait for the end of the burst, others for a bottom half of this loop
 * turn, and those that finish during a send for the next one. Payload is sent from the memory that
 * the disk filled. A request lives until its reply has been given to the kernel.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "export/nbd/internal.h"
#include "loop/context.h"
#include "loop/io.h"
#include "util/iov.h"
#include "util/mem.h"

#define PACK_BYTES (NBD_MAX_IN_FLIGHT * NBD_REPLY_BYTES_MAX)

static void reply_head(struct nbd_req *req, size_t bytes)
{
    req->out_own[0] = (struct iovec){req->head, bytes};
    req->out = req->out_own;
    req->nout = 1;
    req->out_bytes = bytes;
}

void nbd_reply_ok(struct nbd_req *req)
{
    enum nbd_mode mode = req->conn->mode;

    if (mode == NBD_MODE_EXTENDED || (mode == NBD_MODE_STRUCTURED && req->h.type == NBD_CMD_READ)) {
        /* proto: "Simple reply message": not for reads, and never with extended headers */
        reply_head(req, nbd_chunk_encode(mode, req->head, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_NONE,
                                         &req->h, 0));
        return;
    }
    reply_head(req, nbd_simple_reply_encode(req->head, 0, req->h.cookie));
}

void nbd_reply_error(struct nbd_req *req, uint32_t error, const char *text)
{
    enum nbd_mode mode = req->conn->mode;

    assert(error != 0);
    req->failed = true;
    if (mode == NBD_MODE_SIMPLE) {
        reply_head(req, nbd_simple_reply_encode(req->head, error, req->h.cookie));
    } else {
        reply_head(req, nbd_error_chunk_encode(mode, req->head, &req->h, error, text));
    }
}

void nbd_reply_data(struct nbd_req *req, uint32_t bytes)
{
    enum nbd_mode mode = req->conn->mode;
    size_t n;

    assert(bytes > 0 && bytes <= req->buf_cap);
    if (mode == NBD_MODE_SIMPLE) {
        n = nbd_simple_reply_encode(req->head, 0, req->h.cookie);
    } else {
        n = nbd_data_chunk_encode(mode, req->head, NBD_REPLY_FLAG_DONE, &req->h, req->h.offset,
                                  bytes);
    }
    reply_head(req, n);
    req->out_own[1] = (struct iovec){req->buf, bytes};
    req->nout = 2;
    req->out_bytes += bytes;
}

static void reply_account(struct nbd_conn *conn, struct nbd_req_list *sent)
{
    struct nbd_counters *c = &conn->server->counters[aio_context_slot(conn->ctx)];
    int64_t now = aio_clock_ns();
    struct nbd_req *req;
    uint64_t n[7] = {0};

    STAILQ_FOREACH (req, sent, link) {
        n[0] += (uint64_t)(now - req->start_ns);
        n[1] += req->failed;
        if (req->h.type == NBD_CMD_READ) {
            n[2]++;
            n[3] += req->failed ? 0 : req->h.length;
        } else if (req->h.type == NBD_CMD_WRITE) {
            n[4]++;
            n[5] += req->failed ? 0 : req->h.length;
        } else {
            n[6]++;
        }
    }
    atomic_fetch_add_explicit(&c->latency_ns, n[0], memory_order_relaxed);
    if (n[1] > 0) {
        atomic_fetch_add_explicit(&c->failed, n[1], memory_order_relaxed);
    }
    if (n[2] > 0) {
        atomic_fetch_add_explicit(&c->reads, n[2], memory_order_relaxed);
        atomic_fetch_add_explicit(&c->read_bytes, n[3], memory_order_relaxed);
    }
    if (n[4] > 0) {
        atomic_fetch_add_explicit(&c->writes, n[4], memory_order_relaxed);
        atomic_fetch_add_explicit(&c->write_bytes, n[5], memory_order_relaxed);
    }
    if (n[6] > 0) {
        atomic_fetch_add_explicit(&c->others, n[6], memory_order_relaxed);
    }
}

static void reply_free_all(struct nbd_req_list *list)
{
    struct nbd_req *req;

    while ((req = STAILQ_FIRST(list)) != NULL) {
        STAILQ_REMOVE_HEAD(list, link);
        nbd_req_put(req);
    }
}

/* Move replies from the queue to batch and lay out conn->send_iov; returns its length. Heads of
 * replies without payload are copied side by side: that costs less than an element each. */
static int reply_gather(struct nbd_conn *conn, struct nbd_req_list *batch)
{
    struct iovec *iov = conn->send_iov;
    struct nbd_req *req;
    unsigned niov = 0;
    size_t packed = 0;
    size_t bytes = 0;
    bool open = false; /* iov[niov - 1] ends where packed heads go on */

    while ((req = STAILQ_FIRST(&conn->replies)) != NULL) {
        if (niov + req->nout > NBD_SEND_IOV_MAX || (niov > 0 && bytes >= NBD_SEND_BYTES_MAX)) {
            break;
        }
        if (req->nout == 1 && req->out[0].iov_len <= NBD_REPLY_BYTES_MAX &&
            packed + NBD_REPLY_BYTES_MAX <= PACK_BYTES) {
            size_t n = req->out[0].iov_len;

            memcpy(conn->send_heads + packed, req->out[0].iov_base, n);
            if (open) {
                iov[niov - 1].iov_len += n;
            } else {
                iov[niov++] = (struct iovec){conn->send_heads + packed, n};
                open = true;
            }
            packed += n;
        } else {
            memcpy(iov + niov, req->out, req->nout * sizeof(*iov));
            niov += req->nout;
            open = false;
        }
        bytes += req->out_bytes;
        conn->unsent_bytes -= req->out_bytes;
        STAILQ_REMOVE_HEAD(&conn->replies, link);
        STAILQ_INSERT_TAIL(batch, req, link);
    }
    return (int)niov;
}

/* Most sends fit into the socket's buffer: tried at once, that is one system call and no round trip
 * through the loop. 0 when all is sent; else what is left is laid out in conn->send_iov and its
 * length returned; -errno. */
static int send_try(struct nbd_conn *conn, int niov)
{
    struct msghdr msg = {.msg_iov = conn->send_iov, .msg_iovlen = (size_t)niov};
    int64_t n = os->sendmsg(conn->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (n < 0) {
        return n == -EAGAIN || n == -EINTR ? niov : (int)n;
    }
    return (int)iov_consume(conn->send_iov, (size_t)niov, (uint64_t)n);
}

static int send_co(struct nbd_conn *conn, int niov)
{
    if (UNLIKELY(conn->tls != NULL)) {
        return nbd_tls_send_co(conn, conn->send_iov, niov);
    }
    niov = send_try(conn, niov);
    return niov > 0 ? aio_send_co(conn->fd, conn->send_iov, niov, 0) : niov;
}

/* The sender: one coroutine at a time, while there are replies. */
static void reply_send_entry(void *opaque)
{
    struct nbd_conn *conn = opaque;
    struct nbd_req_list batch = STAILQ_HEAD_INITIALIZER(batch);

    while (!conn->dead && !STAILQ_EMPTY(&conn->replies)) {
        int niov = reply_gather(conn, &batch);
        int rc = send_co(conn, niov);

        if (rc < 0) {
            conn->dead = true;
            os->shutdown(conn->fd, SHUT_RDWR); /* the reader shall notice too */
        }
        reply_account(conn, &batch);
        reply_free_all(&batch);
        nbd_conn_wake(conn);
    }
    if (conn->dead) {
        conn->unsent_bytes = 0;
        reply_free_all(&conn->replies);
    }
    conn->sending = false;
    nbd_conn_wake(conn);
}

void nbd_reply_flush(struct nbd_conn *conn)
{
    Coroutine *co;

    if (conn->sending || STAILQ_EMPTY(&conn->replies)) {
        return;
    }
    co = coroutine_create(reply_send_entry, conn);
    if (UNLIKELY(co == NULL)) {
        /* Without memory for the sender the stream cannot go on. */
        conn->dead = true;
        os->shutdown(conn->fd, SHUT_RDWR);
        conn->unsent_bytes = 0;
        reply_free_all(&conn->replies);
        nbd_conn_wake(conn);
        return;
    }
    conn->sending = true;
    coroutine_enter(co);
}

void nbd_reply_flush_bh(void *opaque)
{
    struct nbd_conn *conn = opaque;

    conn->flush_scheduled = false;
    nbd_reply_flush(conn);
}

void nbd_reply_queue(struct nbd_req *req)
{
    struct nbd_conn *conn = req->conn;

    if (UNLIKELY(conn->dead)) {
        nbd_req_put(req);
        nbd_conn_wake(conn);
        return;
    }
    STAILQ_INSERT_TAIL(&conn->replies, req, link);
    conn->unsent_bytes += req->out_bytes;
    if (!conn->in_burst && !conn->sending && !conn->flush_scheduled) {
        conn->flush_scheduled = true;
        aio_bh_schedule(conn->flush_bh);
    }
}
