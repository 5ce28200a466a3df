/* SPDX-License-Identifier: MIT */
/*
 * One request: whether it is allowed, carrying it out in a coroutine of its own, and what the reply
 * says. A request that is refused never gets a coroutine.
 */
#include <errno.h>
#include <stdlib.h>

#include "export/nbd/internal.h"
#include "os/trace.h"
#include "util/checked.h"
#include "util/mem.h"

struct nbd_req *nbd_req_get(struct nbd_conn *conn)
{
    struct nbd_req *req = STAILQ_FIRST(&conn->free_reqs);

    if (LIKELY(req != NULL)) {
        STAILQ_REMOVE_HEAD(&conn->free_reqs, link);
    } else {
        req = malloc(sizeof(*req));
        if (req == NULL) {
            return NULL;
        }
        req->conn = conn;
    }
    req->start_ns = conn->now_ns;
    req->charged_bytes = 0;
    req->chunk = NULL;
    req->buf = NULL;
    req->niov = 0;
    req->heap = NULL;
    req->failed = false;
    conn->in_flight++;
    conn->requests_total++;
    return req;
}

/* Memory of the payload; what a write needs no longer than it runs. */
static void req_release_payload(struct nbd_req *req)
{
    struct nbd_conn *conn = req->conn;

    if (req->chunk != NULL) {
        nbd_chunk_unref(&conn->bufs, req->chunk);
        req->chunk = NULL;
    }
    if (req->buf != NULL) {
        nbd_bufs_put(&conn->bufs, req->buf, req->buf_cap);
        req->buf = NULL;
    }
}

void nbd_req_put(struct nbd_req *req)
{
    struct nbd_conn *conn = req->conn;

    req_release_payload(req);
    if (UNLIKELY(req->heap != NULL)) {
        free(req->heap);
        req->heap = NULL;
    }
    conn->in_flight--;
    conn->in_flight_bytes -= req->charged_bytes;
    STAILQ_INSERT_HEAD(&conn->free_reqs, req, link);
}

/* proto: "Command flags": which a command may carry. FUA is accepted with every command. */
static unsigned command_flags(const struct nbd_conn *conn, uint16_t type)
{
    bool ext = conn->mode == NBD_MODE_EXTENDED;

    switch (type) {
    case NBD_CMD_READ:
        return NBD_CMD_FLAG_FUA | (conn->mode != NBD_MODE_SIMPLE ? NBD_CMD_FLAG_DF : 0);
    case NBD_CMD_WRITE:
        return NBD_CMD_FLAG_FUA | (ext ? NBD_CMD_FLAG_PAYLOAD_LEN : 0);
    case NBD_CMD_WRITE_ZEROES:
        return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO;
    case NBD_CMD_BLOCK_STATUS:
        return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_REQ_ONE | (ext ? NBD_CMD_FLAG_PAYLOAD_LEN : 0);
    default:
        return NBD_CMD_FLAG_FUA;
    }
}

static bool command_writes(uint16_t type)
{
    return type == NBD_CMD_WRITE || type == NBD_CMD_WRITE_ZEROES || type == NBD_CMD_TRIM;
}

/* proto: "Error values" and "Request types" say which error each case gets. */
uint32_t nbd_req_check(const struct nbd_conn *conn, const struct nbd_request *h,
                       const char **ret_text)
{
    if (UNLIKELY(atomic_load_explicit(&conn->stop, memory_order_relaxed))) {
        *ret_text = "the server is shutting down";
        return NBD_ESHUTDOWN;
    }
    if (UNLIKELY(h->type > NBD_CMD_BLOCK_STATUS || h->type == NBD_CMD_DISC)) {
        *ret_text = "unknown command";
        return NBD_EINVAL;
    }
    if (UNLIKELY((h->flags & ~command_flags(conn, h->type)) != 0)) {
        *ret_text = "flag not valid for this command";
        return NBD_EINVAL;
    }
    if (UNLIKELY(!conn->export->writable && command_writes(h->type))) {
        *ret_text = "the export is read-only";
        return NBD_EPERM;
    }
    if (h->type == NBD_CMD_FLUSH) {
        *ret_text = "offset and length of a flush must be zero";
        return h->offset != 0 || h->length != 0 ? NBD_EINVAL : 0;
    }
    if (h->type == NBD_CMD_BLOCK_STATUS && (h->flags & NBD_CMD_FLAG_PAYLOAD_LEN)) {
        /* The length of the effect is in the payload, which must be there. */
        *ret_text = "the payload must be a length and the ids of contexts";
        return nbd_status_filter_bytes_valid(h->length) ? 0 : NBD_EINVAL;
    }
    if (UNLIKELY(h->type == NBD_CMD_WRITE && conn->mode == NBD_MODE_EXTENDED &&
                 !(h->flags & NBD_CMD_FLAG_PAYLOAD_LEN))) {
        *ret_text = "a write needs the payload flag with extended headers";
        return NBD_EINVAL;
    }
    if (UNLIKELY(!range_inside(h->offset, h->length, conn->size_bytes))) {
        *ret_text = "range outside the export";
        return h->type == NBD_CMD_WRITE || h->type == NBD_CMD_WRITE_ZEROES ? NBD_ENOSPC
                                                                           : NBD_EINVAL;
    }
    if (UNLIKELY(h->length > NBD_MAX_PAYLOAD_BYTES &&
                 (h->type == NBD_CMD_READ || h->type == NBD_CMD_CACHE))) {
        *ret_text = "longer than the maximum block size";
        return NBD_EINVAL;
    }
    if (h->type == NBD_CMD_BLOCK_STATUS) {
        if (conn->contexts == 0) {
            *ret_text = "no metadata context was negotiated";
            return NBD_EINVAL;
        }
        *ret_text = "length is zero";
        return h->length == 0 ? NBD_EINVAL : 0;
    }
    return 0;
}

static int write_co(struct nbd_req *req)
{
    struct iov_view view = {req->iov, (size_t)req->niov, req->h.length};
    int rc;

    if (req->h.length == 0) {
        return 0;
    }
    rc = blk_co_pwritev(req->conn->export->blk, (int64_t)req->h.offset, &view,
                        req->h.flags & NBD_CMD_FLAG_FUA ? BDRV_REQ_FUA : 0);
    if (LIKELY(rc >= 0) || !req->conn->export->error_policy) { /* else it may be tried again */
        req_release_payload(req);                              /* still warm for what comes next */
    }
    return rc;
}

/* Lengths go to 2^63 with extended headers: in steps, so that a client that has gone is noticed. */
static int zero_or_trim_co(struct nbd_req *req)
{
    struct nbd_conn *conn = req->conn;
    BlockBackend *blk = conn->export->blk;
    int64_t offset = (int64_t)req->h.offset;
    int64_t left = (int64_t)req->h.length;
    unsigned f = req->h.flags;
    int flags = (f & NBD_CMD_FLAG_FUA ? BDRV_REQ_FUA : 0) |
                (f & NBD_CMD_FLAG_NO_HOLE ? 0 : BDRV_REQ_MAY_UNMAP) |
                (f & NBD_CMD_FLAG_FAST_ZERO ? BDRV_REQ_NO_FALLBACK : 0);
    int rc = 0;

    while (left > 0 && rc == 0) {
        int64_t step = left < NBD_ZERO_STEP_BYTES ? left : NBD_ZERO_STEP_BYTES;

        if (conn->dead || atomic_load(&conn->cancelled)) {
            return -ESHUTDOWN;
        }
        rc = req->h.type == NBD_CMD_TRIM ? blk_co_pdiscard(blk, offset, step)
                                         : blk_co_pwrite_zeroes(blk, offset, step, flags);
        offset += step;
        left -= step;
    }
    atomic_fetch_add_explicit(&conn->export->new_holes, 1, memory_order_relaxed);
    if (rc == 0 && req->h.type == NBD_CMD_TRIM && (f & NBD_CMD_FLAG_FUA)) {
        rc = blk_co_flush(blk);
    }
    return rc;
}

/* proto: NBD_CMD_CACHE: "performing the actions of NBD_CMD_READ but replying with just status". */
static int cache_co(struct nbd_req *req)
{
    struct nbd_conn *conn = req->conn;
    uint64_t offset = req->h.offset;
    uint64_t left = req->h.length;
    size_t cap;
    void *buf;
    int rc = 0;

    if (left == 0) {
        return 0;
    }
    buf = nbd_bufs_get(&conn->bufs, min_u64(left, NBD_CACHE_STEP_BYTES), &cap);
    if (buf == NULL) {
        return 0; /* a hint only */
    }
    while (left > 0 && rc == 0 && !conn->dead) {
        struct iovec iov = {buf, min_u64(left, cap)};
        struct iov_view view = {&iov, 1, iov.iov_len};

        rc = blk_co_preadv(conn->export->blk, (int64_t)offset, &view, 0);
        offset += view.bytes;
        left -= view.bytes;
    }
    nbd_bufs_put(&conn->bufs, buf, cap);
    return rc;
}

static int req_run_co(struct nbd_req *req)
{
    switch (req->h.type) {
    case NBD_CMD_READ:
        return nbd_read_co(req);
    case NBD_CMD_WRITE:
        return write_co(req);
    case NBD_CMD_FLUSH:
        return blk_co_flush(req->conn->export->blk);
    case NBD_CMD_TRIM:
    case NBD_CMD_WRITE_ZEROES:
        return zero_or_trim_co(req);
    case NBD_CMD_CACHE:
        return cache_co(req);
    default:
        return nbd_status_co(req);
    }
}

/* Whether the backend's error policy has a word in what became of the request: not where memory of
 * ours was missing, the client goes, or there is no medium, which is no error of a storage. */
static bool has_policy(const struct nbd_req *req, int rc)
{
    const struct nbd_conn *conn = req->conn;
    uint16_t type = req->h.type;
    bool ours = rc == -ESHUTDOWN || rc == -ENOMEDIUM ||
                (rc == -ENOMEM && type == NBD_CMD_READ && req->buf == NULL);

    return conn->export->error_policy && !ours && !conn->dead && !atomic_load(&conn->stop) &&
           !atomic_load(&conn->cancelled) &&
           (type == NBD_CMD_READ || command_writes(type) || type == NBD_CMD_FLUSH);
}

/* A request that failed is told about, and perhaps held until it is to be tried again. An error
 * that is to be ignored makes a read give zeroes. */
static int req_policy_co(struct nbd_req *req, int rc)
{
    bool is_read = req->h.type == NBD_CMD_READ;

    while (rc < 0 && has_policy(req, rc)) {
        rc = blk_co_handle_error(req->conn->export->blk, is_read, rc);
        if (rc == 0 && is_read) {
            req_release_payload(req);
            return nbd_read_zeroes(req);
        }
        if (rc != BLK_TRY_AGAIN) {
            break;
        }
        if (is_read) {
            req_release_payload(req);
        }
        free(req->heap);
        req->heap = NULL;
        req->nout = 0;
        rc = req_run_co(req);
    }
    return rc;
}

static void req_fail(struct nbd_req *req, int rc)
{
    uint32_t error = nbd_error_of_errno(rc);

    /* proto: "The server SHOULD NOT return" these but in one case each. */
    if (error == NBD_ENOTSUP && !(req->h.flags & NBD_CMD_FLAG_FAST_ZERO)) {
        error = NBD_EINVAL;
    } else if (error == NBD_EOVERFLOW) {
        error = NBD_EIO;
    }
    nbd_reply_error(req, error, NULL);
}

/* How a command counts in the figures of the backend. False: it does not. */
static bool acct_type(uint16_t type, enum BlockAcctType *ret_type)
{
    switch (type) {
    case NBD_CMD_READ:
        *ret_type = BLOCK_ACCT_READ;
        return true;
    case NBD_CMD_WRITE:
    case NBD_CMD_WRITE_ZEROES:
        *ret_type = BLOCK_ACCT_WRITE;
        return true;
    case NBD_CMD_FLUSH:
        *ret_type = BLOCK_ACCT_FLUSH;
        return true;
    case NBD_CMD_TRIM:
        *ret_type = BLOCK_ACCT_UNMAP;
        return true;
    default:
        return false;
    }
}

static void count_end(BlockAcctStats *stats, BlockAcctCookie *cookie, int rc)
{
    if (LIKELY(rc >= 0)) {
        block_acct_done(stats, cookie);
    } else {
        block_acct_failed(stats, cookie);
    }
}

/* Run the request, policy included, and count it: for the export, and for a backend that others
 * look at too. */
static int req_counted_co(struct nbd_req *req)
{
    struct nbd_export *export = req->conn->export;
    BlockAcctCookie cookie, blk_cookie;
    enum BlockAcctType type;
    bool counts = acct_type(req->h.type, &type);
    int rc;

    if (LIKELY(counts)) {
        block_acct_start(export->stats, &cookie, req->h.length, type);
        if (export->blk_stats != NULL) {
            block_acct_start(export->blk_stats, &blk_cookie, req->h.length, type);
        }
    }
    rc = req_run_co(req);
    if (UNLIKELY(rc < 0)) {
        rc = req_policy_co(req, rc);
    }
    if (LIKELY(counts)) {
        count_end(export->stats, &cookie, rc);
        if (export->blk_stats != NULL) {
            count_end(export->blk_stats, &blk_cookie, rc);
        }
    }
    return rc;
}

static void req_entry(void *opaque)
{
    struct nbd_req *req = opaque;
    int rc;

    req->nout = 0;
    TRACE(nbd_request, (void *)req->conn, (unsigned)req->h.type, (unsigned long long)req->h.offset,
          (unsigned long long)req->h.length);
    rc = req_counted_co(req);
    TRACE(nbd_reply, (void *)req->conn, (unsigned)req->h.type, rc);
    if (UNLIKELY(rc < 0)) {
        req_fail(req, rc);
    } else if (req->nout == 0) {
        nbd_reply_ok(req);
    }
    nbd_reply_queue(req);
}

void nbd_req_start(struct nbd_req *req)
{
    Coroutine *co = coroutine_create(req_entry, req);

    if (UNLIKELY(co == NULL)) {
        req_release_payload(req);
        nbd_reply_error(req, NBD_ENOMEM, NULL);
        nbd_reply_queue(req);
        return;
    }
    coroutine_enter(co);
}
