/* SPDX-License-Identifier: MIT */
/*
 * Which descriptors a context watches and for whom: handlers (level triggered) and, where the
 * poller is epoll, coroutines that wait for a socket. The poller is told through fd_update.
 *
 * A struct aio_fd that is let go stays readable until the outermost aio_poll returns, because
 * events already fetched may point to it.
 */
#include <errno.h>
#include <stdlib.h>

#include "loop/internal.h"
#include "os/os.h"

static struct aio_fd_list *bucket(AioContext *ctx, int fd)
{
    return &ctx->fds[(unsigned)fd % AIO_FD_BUCKETS];
}

struct aio_fd *aio_fd_find(AioContext *ctx, int fd, bool create)
{
    struct aio_fd *afd;

    TAILQ_FOREACH (afd, bucket(ctx, fd), entry) {
        if (afd->fd == fd) {
            return afd;
        }
    }
    if (!create) {
        return 0;
    }
    afd = calloc(1, sizeof(*afd));
    if (afd) {
        afd->fd = fd;
        TAILQ_INIT(&afd->waits);
        TAILQ_INSERT_HEAD(bucket(ctx, fd), afd, entry);
    }
    return afd;
}

uint32_t aio_fd_wanted(const struct aio_fd *afd)
{
    uint32_t events = 0;
    struct fd_wait *w;

    if (afd->read_cb) {
        events |= EPOLLIN;
    }
    if (afd->write_cb) {
        events |= EPOLLOUT;
    }
    TAILQ_FOREACH (w, &afd->waits, entry) {
        events |= w->events;
    }
    return events;
}

void aio_fd_drop_unused(AioContext *ctx, struct aio_fd *afd)
{
    if (afd->dead || afd->read_cb || afd->write_cb || !TAILQ_EMPTY(&afd->waits)) {
        return;
    }
    afd->dead = true;
    TAILQ_REMOVE(bucket(ctx, afd->fd), afd, entry);
    TAILQ_INSERT_TAIL(&ctx->dead_fds, afd, entry);
    if (ctx->poll_depth == 0) {
        aio_fds_reap_dead(ctx);
    }
}

void aio_fds_reap_dead(AioContext *ctx)
{
    struct aio_fd *afd = TAILQ_FIRST(&ctx->dead_fds);

    while (afd) {
        struct aio_fd *next = TAILQ_NEXT(afd, entry);

        if (!afd->in_kernel && !afd->queued_rearm) {
            TAILQ_REMOVE(&ctx->dead_fds, afd, entry);
            free(afd);
        }
        afd = next;
    }
}

void aio_fds_free(AioContext *ctx)
{
    struct aio_fd *afd;

    for (int i = 0; i < AIO_FD_BUCKETS; i++) {
        while ((afd = TAILQ_FIRST(&ctx->fds[i]))) {
            TAILQ_REMOVE(&ctx->fds[i], afd, entry);
            free(afd);
        }
    }
    while ((afd = TAILQ_FIRST(&ctx->dead_fds))) {
        TAILQ_REMOVE(&ctx->dead_fds, afd, entry);
        free(afd);
    }
}

void aio_fd_fail_waits(AioContext *ctx, struct aio_fd *afd, int rc)
{
    struct fd_wait *w;

    while ((w = TAILQ_FIRST(&afd->waits))) {
        TAILQ_REMOVE(&afd->waits, w, entry);
        w->rc = rc;
        aio_co_schedule(ctx, w->co);
    }
}

void aio_fds_rearm_all(AioContext *ctx)
{
    struct aio_fd *afd;
    int rc;

    TAILQ_INIT(&ctx->rearm_fds);

    for (int i = 0; i < AIO_FD_BUCKETS; i++) {
        TAILQ_FOREACH (afd, &ctx->fds[i], entry) {
            afd->armed = 0;
            afd->in_kernel = false;
            afd->cancel_sent = false;
            afd->queued_rearm = false;
            if (aio_fd_wanted(afd)) {
                /* A handler's descriptor that is refused now was accepted before: nobody to tell */
                rc = ctx->poller->fd_update(ctx, afd);
                if (rc < 0) {
                    aio_fd_fail_waits(ctx, afd, rc);
                }
            }
        }
    }
    TAILQ_FOREACH (afd, &ctx->dead_fds, entry) {
        afd->in_kernel = false;
        afd->queued_rearm = false;
    }
}

static struct fd_wait *first_wait(struct aio_fd *afd, uint32_t events)
{
    struct fd_wait *w;

    TAILQ_FOREACH (w, &afd->waits, entry) {
        if (w->events & events) {
            return w;
        }
    }
    return 0;
}

static bool wake_wait(struct aio_fd *afd, uint32_t events)
{
    struct fd_wait *w = first_wait(afd, events);

    if (!w) {
        return false;
    }
    TAILQ_REMOVE(&afd->waits, w, entry);
    coroutine_enter(w->co);
    return true;
}

bool aio_fd_dispatch(AioContext *ctx, struct aio_fd *afd, uint32_t events)
{
    bool progress = false;

    if (events & (EPOLLERR | EPOLLHUP)) {
        events |= EPOLLIN | EPOLLOUT;
    }
    if (events & EPOLLIN) {
        progress |= wake_wait(afd, EPOLLIN);
        if (afd->read_cb) {
            progress = true;
            afd->read_cb(afd->opaque);
        }
    }
    if (events & EPOLLOUT) {
        progress |= wake_wait(afd, EPOLLOUT);
        if (afd->write_cb) {
            progress = true;
            afd->write_cb(afd->opaque);
        }
    }
    return progress;
}

int aio_set_fd_handler(AioContext *ctx, int fd, AioFdFunc *read_cb, AioFdFunc *write_cb,
                       void *opaque)
{
    struct aio_fd *afd;
    int rc = 0;

    if (read_cb || write_cb) { /* so that every poller refuses a bad descriptor alike */
        rc = os->fcntl_getfl(fd);
        if (rc < 0) {
            return rc;
        }
    }
    afd = aio_fd_find(ctx, fd, read_cb || write_cb);
    if (!afd) {
        return read_cb || write_cb ? -ENOMEM : 0;
    }
    afd->read_cb = read_cb;
    afd->write_cb = write_cb;
    afd->opaque = opaque;
    rc = ctx->started ? ctx->poller->fd_update(ctx, afd) : 0;
    if (rc < 0) {
        afd->read_cb = 0;
        afd->write_cb = 0;
    }
    aio_fd_drop_unused(ctx, afd);
    return rc;
}
