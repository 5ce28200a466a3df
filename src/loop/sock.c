/* SPDX-License-Identifier: MIT */
/*
 * Socket I/O of coroutines. With a ring the kernel waits for us; without one a call is tried at
 * once and the coroutine waits for the poller only when the socket would block.
 */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "loop/internal.h"
#include "loop/io.h"
#include "os/os.h"
#include "util/iov.h"

/* Wait until fd is ready for events (or broken). 0, -ECANCELED or -errno. */
static int sock_wait_co(AioContext *ctx, int fd, uint32_t events)
{
    struct fd_wait w = {.co = coroutine_self(), .events = events};
    struct aio_fd *afd = aio_fd_find(ctx, fd, true);
    int rc;

    if (!afd) {
        return -ENOMEM;
    }
    TAILQ_INSERT_TAIL(&afd->waits, &w, entry);
    rc = ctx->started ? ctx->poller->fd_update(ctx, afd) : 0;
    if (rc < 0) {
        TAILQ_REMOVE(&afd->waits, &w, entry);
        aio_fd_drop_unused(ctx, afd);
        return rc;
    }
    coroutine_yield();
    return w.rc;
}

static int64_t epoll_recv_co(AioContext *ctx, int fd, struct iovec *iov, int niov)
{
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)niov};
    unsigned fruitless = 0;

    for (;;) {
        int64_t n = os->recvmsg(fd, &msg, MSG_DONTWAIT);

        if (n == -EAGAIN) {
            n = sock_wait_co(ctx, fd, EPOLLIN);
            if (n < 0) {
                return n;
            }
        } else if (!io_again(n, &fruitless)) {
            return n;
        }
    }
}

static int epoll_send_co(AioContext *ctx, int fd, struct iovec *iov, int niov, int flags)
{
    size_t left = iov_consume(iov, (size_t)niov, 0);
    unsigned fruitless = 0;

    while (left > 0) {
        struct msghdr msg = {.msg_iov = iov, .msg_iovlen = left};
        int64_t n = os->sendmsg(fd, &msg, flags | MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n == -EAGAIN) {
            int rc = sock_wait_co(ctx, fd, EPOLLOUT);

            if (rc < 0) {
                return rc;
            }
        } else if (n >= 0) {
            left = iov_consume(iov, left, (uint64_t)n);
            fruitless = 0;
        } else if (!io_again(n, &fruitless)) {
            return (int)n;
        }
    }
    return 0;
}

int64_t aio_recvv_co(int fd, struct iovec *iov, int niov)
{
    AioContext *ctx = loop_tls.ctx;

    assert(ctx);
    return ctx->ring ? ring_recv_co(ctx, fd, iov, niov) : epoll_recv_co(ctx, fd, iov, niov);
}

int64_t aio_recv_co(int fd, void *buf, size_t bytes)
{
    struct iovec iov = {buf, bytes};

    return aio_recvv_co(fd, &iov, 1);
}

int aio_send_co(int fd, struct iovec *iov, int niov, int flags)
{
    AioContext *ctx = loop_tls.ctx;

    assert(ctx);
    return ctx->ring ? ring_send_co(ctx, fd, iov, niov, flags)
                     : epoll_send_co(ctx, fd, iov, niov, flags);
}

static void epoll_sock_cancel(AioContext *ctx, int fd)
{
    struct aio_fd *afd = aio_fd_find(ctx, fd, false);

    if (!afd) {
        return;
    }
    aio_fd_fail_waits(ctx, afd, -ECANCELED);
    if (ctx->started) {
        (void)ctx->poller->fd_update(ctx, afd);
    }
    aio_fd_drop_unused(ctx, afd);
}

void aio_sock_cancel(AioContext *ctx, int fd)
{
    if (ctx->ring) {
        ring_sock_cancel(ctx, fd);
    } else {
        epoll_sock_cancel(ctx, fd);
    }
}
