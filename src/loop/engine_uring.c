/* SPDX-License-Identifier: MIT */
/*
 * File and socket I/O on the ring. An operation is queued, its coroutine suspends, and the
 * completion resumes it directly. What the first attempt did not finish is finished by slow paths
 * kept out of line.
 *
 * No function here may look at loop_tls after it has suspended.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/socket.h>

#include "loop/internal.h"
#include "loop/io.h"
#include "loop/ring.h"
#include "loop/sanitizer.h"
#include "util/iov.h"

#define SLICE_MAX 64
#define ONE_MAX (1u << 30) /* bytes of one plain read or write */

/* The queue is full and the kernel takes nothing at the moment: wait for a turn of the loop. */
static __attribute__((noinline)) void sqe_wait_co(AioContext *ctx)
{
    struct sqe_wait w = {.co = coroutine_self()};

    STAILQ_INSERT_TAIL(&ctx->ring->sqe_waits, &w, entry);
    coroutine_yield();
}

static __attribute__((noinline)) struct io_uring_sqe *get_sqe_slow_co(AioContext *ctx)
{
    struct io_uring_sqe *sqe;

    do {
        sqe_wait_co(ctx);
        sqe = ring_get_sqe(ctx);
    } while (!sqe);
    return sqe;
}

static inline struct io_uring_sqe *get_sqe_co(AioContext *ctx)
{
    struct io_uring_sqe *sqe = ring_get_sqe(ctx);

    return LIKELY(sqe) ? sqe : get_sqe_slow_co(ctx);
}

/* Suspend until the operation that was put in sqe has completed. */
static inline int op_wait_co(AioContext *ctx, struct io_uring_sqe *sqe, struct ring_op *op,
                             Coroutine *self)
{
    sqe->user_data = (uint64_t)(uintptr_t)op;
    op->co = self;
    ctx->ring->inflight++;
    coroutine_yield();
    return op->res;
}

/* ---- files ---- */

static inline void fill_transfer(struct io_uring_sqe *sqe, const struct aio_file_io *io,
                                 const struct iovec *iov, int niov, uint64_t offset)
{
    bool read = io->op == AIO_FILE_READ;

    *sqe = (struct io_uring_sqe){
        .fd = io->fd,
        .off = offset,
        .rw_flags = !read && (io->flags & AIO_FILE_DSYNC) ? RWF_DSYNC : 0,
    };
    if (LIKELY(niov == 1)) {
        sqe->opcode = read ? IORING_OP_READ : IORING_OP_WRITE;
        sqe->addr = (uint64_t)(uintptr_t)iov->iov_base;
        sqe->len = iov->iov_len < ONE_MAX ? (uint32_t)iov->iov_len : ONE_MAX;
    } else {
        sqe->opcode = read ? IORING_OP_READV : IORING_OP_WRITEV;
        sqe->addr = (uint64_t)(uintptr_t)iov;
        sqe->len = (uint32_t)niov;
    }
}

static void fill_other(struct io_uring_sqe *sqe, const struct aio_file_io *io)
{
    *sqe = (struct io_uring_sqe){0};
    if (io->op == AIO_FILE_FDATASYNC) {
        io_uring_prep_fsync(sqe, io->fd, IORING_FSYNC_DATASYNC);
    } else {
        io_uring_prep_rw(IORING_OP_FALLOCATE, sqe, io->fd, (void *)(uintptr_t)io->bytes,
                         (unsigned)io->arg, io->offset);
    }
}

static bool is_transfer(const struct aio_file_io *io)
{
    return io->op == AIO_FILE_READ || io->op == AIO_FILE_WRITE;
}

static void announce_read(const struct aio_file_io *io, const struct iovec *iov, int niov, int res)
{
    for (int i = 0; io->op == AIO_FILE_READ && i < niov && res > 0; i++) {
        size_t n = iov[i].iov_len < (size_t)res ? iov[i].iov_len : (size_t)res;

        san_kernel_wrote(iov[i].iov_base, n);
        res -= (int)n;
    }
}

/* One more attempt at what is left after done bytes. */
static int file_again_co(AioContext *ctx, const struct aio_file_io *io, uint64_t done)
{
    struct io_uring_sqe *sqe = get_sqe_co(ctx);
    struct iovec slice[SLICE_MAX];
    struct ring_op op;
    int niov = 0;
    int res;

    if (is_transfer(io)) {
        uint64_t bytes;

        niov = (int)iov_slice(io->iov, (size_t)io->niov, done, io->bytes - done, slice, SLICE_MAX,
                              &bytes);
        fill_transfer(sqe, io, slice, niov, io->offset + done);
    } else {
        fill_other(sqe, io);
    }
    res = op_wait_co(ctx, sqe, &op, coroutine_self());
    if (ctx->ring->on_memcheck) {
        announce_read(io, slice, niov, res);
    }
    return res;
}

/* The first attempt ended with res, which is not all that was asked for. */
static __attribute__((noinline)) int64_t file_rest_co(AioContext *ctx, const struct aio_file_io *io,
                                                      int res)
{
    unsigned fruitless = 0;
    uint64_t done = 0;

    for (;;) {
        if (res == -EAGAIN) {
            /* A call that may block will do what the ring could not */
            return file_worker_co(io, done);
        }
        if (!is_transfer(io)) {
            if (!io_again(res, &fruitless)) {
                return res;
            }
        } else if (res > 0) {
            done += (uint64_t)res;
            fruitless = 0;
            if (done >= io->bytes) {
                return io->op == AIO_FILE_READ ? (int64_t)done : 0;
            }
        } else if (!io_again(res, &fruitless)) {
            return file_transfer_end(io, done, res);
        }
        res = file_again_co(ctx, io, done);
    }
}

static __attribute__((noinline)) int64_t file_other_co(AioContext *ctx,
                                                       const struct aio_file_io *io)
{
    int res = file_again_co(ctx, io, 0);

    return res == 0 ? 0 : file_rest_co(ctx, io, res);
}

int64_t ring_file_co(AioContext *ctx, const struct aio_file_io *io)
{
    Coroutine *self = loop_tls.self;
    struct io_uring_sqe *sqe;
    struct ring_op op;
    int res;

    if (UNLIKELY(!is_transfer(io))) {
        return file_other_co(ctx, io);
    }
    if (UNLIKELY(io->bytes == 0)) {
        return 0;
    }
    sqe = get_sqe_co(ctx);
    fill_transfer(sqe, io, io->iov, io->niov, io->offset);
    res = op_wait_co(ctx, sqe, &op, self);
    if (UNLIKELY(ctx->ring->on_memcheck)) {
        announce_read(io, io->iov, io->niov, res);
    }
    if (UNLIKELY(res < 0 || (uint64_t)res != io->bytes)) {
        return file_rest_co(ctx, io, res);
    }
    return io->op == AIO_FILE_READ ? res : 0;
}

/* ---- sockets ---- */

static void sock_op_begin(AioContext *ctx, struct sock_op *sop)
{
    TAILQ_INSERT_HEAD(&ctx->ring->sock_ops, sop, entry);
}

static void sock_op_end(AioContext *ctx, struct sock_op *sop)
{
    TAILQ_REMOVE(&ctx->ring->sock_ops, sop, entry);
}

/* An entry for sop, or NULL when it was cancelled while there was none. */
static struct io_uring_sqe *sock_get_sqe_co(AioContext *ctx, const struct sock_op *sop)
{
    struct io_uring_sqe *sqe;

    while (UNLIKELY(!(sqe = ring_get_clear_sqe(ctx)))) {
        sqe_wait_co(ctx);
        if (sop->cancelled) {
            return 0;
        }
    }
    return sqe;
}

static int sock_op_wait_co(AioContext *ctx, struct io_uring_sqe *sqe, struct sock_op *sop)
{
    int res;

    sop->queued = true;
    res = op_wait_co(ctx, sqe, &sop->op, coroutine_self());
    sop->queued = false;
    return res;
}

/* For a socket that answered -EAGAIN all the same. */
static int sock_poll_co(AioContext *ctx, struct sock_op *sop, unsigned events)
{
    struct io_uring_sqe *sqe = sock_get_sqe_co(ctx, sop);
    int res;

    if (!sqe) {
        return -ECANCELED;
    }
    io_uring_prep_poll_add(sqe, sop->fd, events);
    res = sock_op_wait_co(ctx, sqe, sop);
    return res < 0 && !io_again(res, &sop->fruitless) ? res : 0;
}

/* Whether to try again after res < 0; sets *res to what to return when not. -EAGAIN is no fruitless
 * try, because it waits. */
static __attribute__((noinline)) bool sock_retry_co(AioContext *ctx, struct sock_op *sop,
                                                    unsigned events, int *res)
{
    bool again = *res == -EAGAIN || io_again(*res, &sop->fruitless);

    if (*res == -EAGAIN && !sop->cancelled) {
        int rc = sock_poll_co(ctx, sop, events);

        if (rc < 0) {
            *res = rc;
            again = false;
        }
    }
    if (sop->cancelled) {
        *res = -ECANCELED;
        again = false;
    }
    return again;
}

int64_t ring_recv_co(AioContext *ctx, int fd, struct iovec *iov, int niov)
{
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)niov};
    struct sock_op sop = {.fd = fd};
    int res;

    sock_op_begin(ctx, &sop);
    do {
        struct io_uring_sqe *sqe = sock_get_sqe_co(ctx, &sop);

        if (UNLIKELY(!sqe)) {
            res = -ECANCELED;
            break;
        }
        if (LIKELY(niov == 1)) {
            io_uring_prep_recv(sqe, fd, iov->iov_base, iov->iov_len, 0);
        } else {
            io_uring_prep_recvmsg(sqe, fd, &msg, 0);
        }
        res = sock_op_wait_co(ctx, sqe, &sop);
    } while (UNLIKELY(res < 0) && sock_retry_co(ctx, &sop, EPOLLIN, &res));
    sock_op_end(ctx, &sop);
    if (UNLIKELY(res == 0 && sop.cancelled)) {
        res = -ECANCELED; /* never got to the kernel, or the stream ended meanwhile */
    }
    if (UNLIKELY(ctx->ring->on_memcheck)) {
        struct aio_file_io io = {.op = AIO_FILE_READ};

        announce_read(&io, iov, niov, res);
    }
    return res;
}

/* Send all of the list. */
static int send_all_co(AioContext *ctx, struct sock_op *sop, struct iovec *iov, size_t left,
                       int flags)
{
    struct msghdr msg;

    while (left > 0) {
        struct io_uring_sqe *sqe = sock_get_sqe_co(ctx, sop);
        int res;

        if (UNLIKELY(!sqe)) {
            return -ECANCELED;
        }
        if (left == 1) {
            io_uring_prep_send(sqe, sop->fd, iov->iov_base, iov->iov_len, flags);
        } else {
            msg = (struct msghdr){.msg_iov = iov, .msg_iovlen = left};
            io_uring_prep_sendmsg(sqe, sop->fd, &msg, (unsigned)flags);
        }
        res = sock_op_wait_co(ctx, sqe, sop);
        if (LIKELY(left == 1 && res > 0 && (size_t)res == iov->iov_len)) {
            return 0;
        }
        if (LIKELY(res >= 0)) {
            left = iov_consume(iov, left, (uint64_t)res);
            sop->fruitless = 0;
            if (UNLIKELY(left > 0 && sop->cancelled)) {
                return -ECANCELED;
            }
        } else if (!sock_retry_co(ctx, sop, EPOLLOUT, &res)) {
            return res;
        }
    }
    return 0;
}

int ring_send_co(AioContext *ctx, int fd, struct iovec *iov, int niov, int flags)
{
    size_t left = niov > 1 || (niov == 1 && iov->iov_len > 0) ? (size_t)niov : 0;
    struct sock_op sop = {.fd = fd};
    int rc;

    sock_op_begin(ctx, &sop);
    /* The kernel goes on after a part; older ones do not */
    rc = send_all_co(ctx, &sop, iov, left, flags | MSG_NOSIGNAL | MSG_WAITALL);
    sock_op_end(ctx, &sop);
    return rc;
}

void ring_sock_cancel_due(AioContext *ctx)
{
    struct ring *r = ctx->ring;
    struct sock_op *sop;

    r->cancel_due = false;
    TAILQ_FOREACH (sop, &r->sock_ops, entry) {
        struct io_uring_sqe *sqe;

        if (!sop->cancelled || sop->cancel_sent || !sop->queued) {
            continue; /* one that is not queued looks before it is */
        }
        sqe = ring_get_clear_sqe(ctx);
        if (!sqe) {
            r->cancel_due = true;
            return;
        }
        io_uring_prep_cancel64(sqe, (uint64_t)(uintptr_t)&sop->op, 0);
        sqe->user_data = RING_IGNORE;
        sop->cancel_sent = true;
    }
}

/* What the kernel has not taken yet must not reach it: fd may be another file's by then. */
static void sock_ops_disarm(struct ring *r, int fd)
{
    for (unsigned i = ring_load(r->u.sq.khead); i != r->sq_tail; i++) {
        struct io_uring_sqe *sqe = &r->sqes[i & r->sq_mask];
        uint64_t user_data = sqe->user_data;

        if (sqe->fd == fd && (user_data & RING_TAG_MASK) == RING_OP) {
            *sqe = (struct io_uring_sqe){.opcode = IORING_OP_NOP, .user_data = user_data};
        }
    }
}

void ring_sock_cancel(AioContext *ctx, int fd)
{
    struct sock_op *sop;
    bool any = false;

    TAILQ_FOREACH (sop, &ctx->ring->sock_ops, entry) {
        if (sop->fd == fd && !sop->cancelled) {
            sop->cancelled = true;
            any = true;
        }
    }
    if (any) {
        ring_sock_cancel_due(ctx);
        ring_enter(ctx, true, false, 0); /* the caller may close fd next */
        sock_ops_disarm(ctx->ring, fd);
    }
}
