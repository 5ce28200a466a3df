/* SPDX-License-Identifier: MIT */
/* How a coroutine waits for the socket of a libnbd handle: a handler of its own context for just
 * that long, so that a socket nobody waits for belongs to no context. */
#include <errno.h>

#include "nbd.h"

void nbdc_sleep_wake(struct nbd_sleep *sleep)
{
    if (!atomic_exchange(&sleep->woken, true)) {
        aio_co_wake(sleep->co);
    }
}

static void sleep_readable(void *opaque)
{
    struct nbd_sleep *sleep = opaque;

    sleep->ready |= LIBNBD_AIO_DIRECTION_READ;
    nbdc_sleep_wake(sleep);
}

static void sleep_writable(void *opaque)
{
    struct nbd_sleep *sleep = opaque;

    sleep->ready |= LIBNBD_AIO_DIRECTION_WRITE;
    nbdc_sleep_wake(sleep);
}

static void sleep_expired(void *opaque)
{
    nbdc_sleep_wake(opaque);
}

int nbdc_sleep_co(struct nbd_sleep *sleep, int fd, unsigned dir, int64_t deadline_ns)
{
    AioContext *ctx = aio_context_current();
    AioTimer *timer = NULL;
    int rc;

    if (deadline_ns != INT64_MAX) {
        timer = aio_timer_new(ctx, sleep_expired, sleep);
        if (timer == NULL) {
            rc = -ENOMEM;
            goto out;
        }
        aio_timer_mod(timer, deadline_ns);
    }
    rc = aio_set_fd_handler(ctx, fd, dir & LIBNBD_AIO_DIRECTION_READ ? sleep_readable : NULL,
                            dir & LIBNBD_AIO_DIRECTION_WRITE ? sleep_writable : NULL, sleep);
    if (rc == 0) {
        coroutine_yield();
        (void)aio_set_fd_handler(ctx, fd, NULL, NULL, NULL);
        rc = (int)sleep->ready;
    }
out:
    aio_timer_free(timer);
    /* who woke us before we could sleep is on its way */
    if (rc < 0 && atomic_exchange(&sleep->woken, true)) {
        coroutine_yield();
    }
    return rc;
}

void nbdc_handle_notify(struct nbd_handle *h, unsigned ready)
{
    /* A failure shows in the handle's state. What was done for reading may have changed what it
     * waits for, and a notice it does not wait for is an error. */
    if ((ready & LIBNBD_AIO_DIRECTION_READ) &&
        (libnbd()->aio_get_direction(h) & LIBNBD_AIO_DIRECTION_READ)) {
        (void)libnbd()->aio_notify_read(h);
    }
    if ((ready & LIBNBD_AIO_DIRECTION_WRITE) &&
        (libnbd()->aio_get_direction(h) & LIBNBD_AIO_DIRECTION_WRITE)) {
        (void)libnbd()->aio_notify_write(h);
    }
}
