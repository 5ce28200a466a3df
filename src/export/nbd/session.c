/* SPDX-License-Identifier: MIT */
/*
 * Transmission phase: the reader of a connection. One receive brings many requests; all that are
 * complete are started before the replies go out together. Payload of writes stays where it was
 * received: in the chunk, or for long ones the part that came with the header there and the rest
 * received into a buffer of its own.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "export/nbd/internal.h"
#include "loop/io.h"
#include "util/checked.h"
#include "util/mem.h"

#define CHUNK_ROOM_MIN (16u * 1024) /* less room than this at the end: begin another chunk */

/* Before the reader suspends, what was answered goes out. */
static void burst_pause(struct nbd_conn *conn)
{
    conn->in_burst = false;
    nbd_reply_flush(conn);
}

static void burst_resume(struct nbd_conn *conn)
{
    conn->in_burst = true;
    conn->now_ns = aio_clock_ns();
}

/* Make at least need bytes fit behind head: at the front of this chunk, or in a fresh one when
 * running writes still point into this one. */
static int chunk_room_co(struct nbd_conn *conn, size_t need)
{
    size_t have = conn->tail - conn->head;
    struct nbd_chunk *fresh;

    assert(need <= NBD_CHUNK_BYTES);
    fresh = conn->chunk->refs > 1 ? nbd_chunk_new(&conn->bufs) : NULL;
    while (fresh == NULL && conn->chunk->refs > 1) {
        /* Out of budget: the writes that hold the chunk end and let it go. */
        nbd_conn_wait_co(conn);
        if (conn->dead) {
            return -EPIPE;
        }
        fresh = conn->chunk->refs > 1 ? nbd_chunk_new(&conn->bufs) : NULL;
    }
    if (fresh == NULL) {
        memmove(conn->chunk->data, conn->chunk->data + conn->head, have);
    } else {
        memcpy(fresh->data, conn->chunk->data + conn->head, have);
        nbd_chunk_unref(&conn->bufs, conn->chunk);
        conn->chunk = fresh;
    }
    conn->head = 0;
    conn->tail = have;
    return 0;
}

int nbd_recv_need_co(struct nbd_conn *conn, size_t bytes)
{
    int64_t n;

    if (conn->tail == conn->head && conn->chunk->refs == 1) {
        conn->head = conn->tail = 0;
    }
    if (bytes > NBD_CHUNK_BYTES - conn->head ||
        (conn->head > 0 && NBD_CHUNK_BYTES - conn->tail < CHUNK_ROOM_MIN)) {
        int rc = chunk_room_co(conn, bytes);

        if (rc < 0) {
            return rc;
        }
    }
    while (conn->tail - conn->head < bytes) {
        struct iovec iov = {conn->chunk->data + conn->tail, NBD_CHUNK_BYTES - conn->tail};

        n = nbd_stream_recv_co(conn, &iov, 1);
        if (n <= 0) {
            return n < 0 ? (int)n : -ECONNRESET;
        }
        conn->tail += (size_t)n;
    }
    return 0;
}

int nbd_recv_skip_co(struct nbd_conn *conn, uint64_t bytes)
{
    while (bytes > 0) {
        size_t n = (size_t)min_u64(bytes, conn->tail - conn->head);

        conn->head += n;
        bytes -= n;
        if (bytes > 0) {
            int rc = nbd_recv_need_co(conn, 1);

            if (rc < 0) {
                return rc;
            }
        }
    }
    return 0;
}

void *nbd_session_buffer_co(struct nbd_conn *conn, size_t bytes, size_t *ret_cap)
{
    void *buf;

    /* Out of budget: what is in flight gives some back. Only a lone request is told so. */
    while ((buf = nbd_bufs_get(&conn->bufs, bytes, ret_cap)) == NULL && conn->in_flight > 1) {
        burst_pause(conn);
        if (conn->in_flight > 1) {
            nbd_conn_wait_co(conn);
        }
        burst_resume(conn);
    }
    return buf;
}

/* The rest of a long payload, behind its first have bytes. What follows it on the wire may come
 * along into the chunk, which is used up by then. */
static int recv_tail_co(struct nbd_conn *conn, uint8_t *to, size_t bytes)
{
    assert(conn->head == conn->tail);
    if (conn->chunk->refs == 1) {
        conn->head = conn->tail = 0;
    }
    burst_pause(conn);
    while (bytes > 0) {
        size_t room = NBD_CHUNK_BYTES - conn->tail;
        struct iovec iov[2] = {{to, bytes}, {conn->chunk->data + conn->tail, room}};
        int64_t n = nbd_stream_recv_co(conn, iov, room >= CHUNK_ROOM_MIN ? 2 : 1);

        if (n <= 0) {
            return n < 0 ? (int)n : -ECONNRESET;
        }
        if ((size_t)n > bytes) {
            conn->tail += (size_t)n - bytes;
            n = (int64_t)bytes;
        }
        to += n;
        bytes -= (size_t)n;
    }
    burst_resume(conn);
    return 0;
}

/* A payload that is long and not here yet. 0; 1: no memory, the payload was skipped; -errno. */
static int payload_long_co(struct nbd_conn *conn, struct nbd_req *req, size_t bytes)
{
    size_t have = min_u64(bytes, conn->tail - conn->head);
    bool whole = conn->export->mem_alignment > 1; /* one aligned piece saves the node a bounce */
    int rc;

    req->buf = nbd_session_buffer_co(conn, whole ? bytes : bytes - have, &req->buf_cap);
    if (req->buf == NULL) {
        burst_pause(conn);
        rc = nbd_recv_skip_co(conn, bytes);
        burst_resume(conn);
        return rc < 0 ? rc : 1;
    }
    if (whole) {
        memcpy(req->buf, nbd_conn_data(conn), have);
        req->iov[req->niov++] = (struct iovec){req->buf, bytes};
    } else {
        if (have > 0) {
            req->chunk = conn->chunk;
            req->chunk->refs++;
            req->iov[req->niov++] = (struct iovec){conn->chunk->data + conn->head, have};
        }
        req->iov[req->niov++] = (struct iovec){req->buf, bytes - have};
    }
    conn->head += have;
    return recv_tail_co(conn, (uint8_t *)req->buf + (whole ? have : 0), bytes - have);
}

/* The payload of req begins at the head of the stream. Results as above. */
static int payload_co(struct nbd_conn *conn, struct nbd_req *req, size_t bytes)
{
    int rc;

    if (bytes > conn->tail - conn->head) {
        if (bytes > NBD_PAYLOAD_IN_CHUNK_MAX) {
            return payload_long_co(conn, req, bytes);
        }
        burst_pause(conn);
        rc = nbd_recv_need_co(conn, bytes);
        burst_resume(conn);
        if (rc < 0) {
            return rc;
        }
    }
    req->chunk = conn->chunk;
    req->chunk->refs++;
    req->iov[0] = (struct iovec){conn->chunk->data + conn->head, bytes};
    req->niov = 1;
    conn->head += bytes;
    return 0;
}

/* Whether a request with bytes of payload must wait for those in flight. Where memory is short that
 * is the way to live with one's share; only a lone request is told that there is none. */
static bool room_short(const struct nbd_conn *conn, uint64_t bytes)
{
    if (conn->in_flight >= NBD_MAX_IN_FLIGHT) {
        return true;
    }
    if (conn->in_flight == 0) {
        return false;
    }
    return conn->in_flight_bytes + bytes > (uint64_t)NBD_MAX_IN_FLIGHT_BYTES ||
           (conn->in_flight_bytes + bytes > conn->bufs.share_bytes / 2 &&
            UNLIKELY(!nbd_bufs_room(&conn->bufs, 2 * bytes))); /* capacities are powers of two */
}

/* Wait until the bounds of a client allow one request more. */
static void room_wait_co(struct nbd_conn *conn, uint64_t bytes)
{
    while (!conn->dead && (conn->unsent_bytes >= NBD_UNSENT_BYTES_MAX || room_short(conn, bytes))) {
        burst_pause(conn);
        if (conn->sending || room_short(conn, bytes)) {
            nbd_conn_wait_co(conn);
        }
        burst_resume(conn);
    }
}

/* Refuse a request; its payload, if any, is skipped to stay in step. */
static int refuse_co(struct nbd_conn *conn, struct nbd_req *req, uint64_t payload, uint32_t error,
                     const char *text)
{
    int rc = 0;

    if (payload > conn->tail - conn->head) {
        burst_pause(conn);
        rc = nbd_recv_skip_co(conn, payload);
        burst_resume(conn);
    } else {
        conn->head += payload;
    }
    if (rc < 0) {
        nbd_req_put(req);
        return rc;
    }
    nbd_reply_error(req, error, text);
    nbd_reply_queue(req);
    return 0;
}

/* Start the request whose header stands at the head. 0; 1: the client disconnects; -errno. */
static int request_co(struct nbd_conn *conn)
{
    const char *text = NULL;
    struct nbd_request h;
    struct nbd_req *req;
    uint64_t payload;
    uint64_t charge;
    uint32_t error;
    int rc;

    if (nbd_request_decode(conn->mode, nbd_conn_data(conn), &h) < 0) {
        return -EPROTO; /* proto: a violation; the stream cannot be understood any more */
    }
    payload = nbd_request_payload_bytes(conn->mode, &h);
    if (h.type == NBD_CMD_DISC) {
        return 1;
    }
    if (payload > NBD_MAX_PAYLOAD_BYTES) {
        return -EMSGSIZE; /* proto: "may initiate a hard disconnect" */
    }
    charge = h.type == NBD_CMD_READ ? min_u64(h.length, NBD_MAX_PAYLOAD_BYTES) : payload;
    room_wait_co(conn, charge);
    if (conn->dead) {
        return -EPIPE;
    }
    req = nbd_req_get(conn);
    if (req == NULL) {
        return -ENOMEM;
    }
    req->h = h;
    req->charged_bytes = charge;
    conn->in_flight_bytes += charge;
    conn->head += nbd_request_bytes(conn->mode);
    error = nbd_req_check(conn, &h, &text);
    if (error != 0) {
        return refuse_co(conn, req, payload, error, text);
    }
    if (payload > 0) {
        if (h.type == NBD_CMD_BLOCK_STATUS && payload > NBD_STRING_BYTES_MAX) {
            return refuse_co(conn, req, payload, NBD_EINVAL, "too many contexts");
        }
        rc = payload_co(conn, req, (size_t)payload);
        if (rc != 0) {
            if (rc < 0) {
                nbd_req_put(req);
                return rc;
            }
            return refuse_co(conn, req, 0, NBD_ENOMEM, NULL);
        }
    }
    nbd_req_start(req);
    return 0;
}

void nbd_session_co(struct nbd_conn *conn)
{
    size_t head_bytes = nbd_request_bytes(conn->mode);
    int rc = 0;

    while (rc == 0 && !conn->dead) {
        burst_resume(conn);
        while (rc == 0 && conn->tail - conn->head >= head_bytes) {
            rc = request_co(conn);
        }
        burst_pause(conn);
        if (rc == 0) {
            nbd_conn_tick(conn);
            rc = nbd_recv_need_co(conn, head_bytes);
        }
    }
}
