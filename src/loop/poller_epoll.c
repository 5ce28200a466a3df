/* SPDX-License-Identifier: MIT */
/*
 * The poller of contexts without a ring: epoll, through the os table.
 *
 * A descriptor that only coroutines wait for is armed for one event and armed again by the next
 * wait, which always asks the kernel: its number may belong to another file by then.
 */
#include <errno.h>
#include <sys/epoll.h>

#include "loop/internal.h"
#include "os/os.h"

#define EVENTS_MAX 64

static int epoll_fd_update(AioContext *ctx, struct aio_fd *afd)
{
    uint32_t wanted = aio_fd_wanted(afd);
    struct epoll_event event = {.events = wanted, .data.ptr = afd};
    int rc;

    if (wanted == 0) {
        if (afd->in_kernel) {
            (void)os->epoll_ctl(ctx->epoll_fd, EPOLL_CTL_DEL, afd->fd, &event); /* closed already */
        }
        afd->in_kernel = false;
        afd->armed = 0;
        return 0;
    }
    afd->oneshot = !afd->read_cb && !afd->write_cb;
    if (afd->oneshot) {
        event.events |= EPOLLONESHOT;
    }
    rc = os->epoll_ctl(ctx->epoll_fd, afd->in_kernel ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, afd->fd,
                       &event);
    if (rc == -ENOENT) {
        rc = os->epoll_ctl(ctx->epoll_fd, EPOLL_CTL_ADD, afd->fd, &event);
    } else if (rc == -EEXIST) {
        rc = os->epoll_ctl(ctx->epoll_fd, EPOLL_CTL_MOD, afd->fd, &event);
    }
    afd->in_kernel = rc >= 0;
    afd->armed = rc >= 0 ? wanted : 0;
    return rc < 0 ? rc : 0;
}

static bool dispatch(AioContext *ctx, struct aio_fd *afd, uint32_t events)
{
    bool progress;

    if (afd == &ctx->notify_afd) {
        aio_notify_drain(ctx, true);
        return false;
    }
    if (afd->dead) { /* let go by a handler of this very batch */
        return false;
    }
    if (afd->oneshot) {
        afd->armed = 0;
    }
    progress = aio_fd_dispatch(ctx, afd, events);
    if (!afd->dead && aio_fd_wanted(afd) != afd->armed) {
        int rc = epoll_fd_update(ctx, afd);

        if (rc < 0) {
            aio_fd_fail_waits(ctx, afd, rc);
            progress = true;
        }
    }
    return progress;
}

static bool epoll_poller_wait(AioContext *ctx, int64_t timeout_ns)
{
    struct epoll_event events[EVENTS_MAX];
    bool progress = false;
    int n = os->epoll_wait(ctx->epoll_fd, events, EVENTS_MAX, timeout_ns);

    atomic_store_explicit(&ctx->notify_me, 0, memory_order_relaxed);
    ctx->turn_ns = 0;
    for (int i = 0; i < n; i++) {
        progress |= dispatch(ctx, events[i].data.ptr, events[i].events);
    }
    return progress;
}

static int epoll_poller_fd(AioContext *ctx)
{
    return ctx->epoll_fd;
}

static void epoll_poller_nothing(AioContext *ctx)
{
}

static void epoll_poller_close(AioContext *ctx)
{
    if (ctx->epoll_fd >= 0) {
        os->close(ctx->epoll_fd);
        ctx->epoll_fd = -1;
    }
}

int aio_epoll_open(AioContext *ctx)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &ctx->notify_afd};
    int rc = os->epoll_create();

    if (rc < 0) {
        return rc;
    }
    ctx->epoll_fd = rc;
    rc = os->epoll_ctl(ctx->epoll_fd, EPOLL_CTL_ADD, ctx->event_fd, &event);
    if (rc < 0) {
        epoll_poller_close(ctx);
    }
    return rc;
}

const struct poller poller_epoll = {
    .wait = epoll_poller_wait,
    .fd_update = epoll_fd_update,
    .fd = epoll_poller_fd,
    .awake = epoll_poller_nothing,
    .settle = epoll_poller_nothing,
    .close = epoll_poller_close,
};
