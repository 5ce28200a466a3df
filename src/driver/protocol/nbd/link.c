/* SPDX-License-Identifier: MIT */
/* One connection that is ready: calls of any context over one libnbd handle. Keeps L1 to L3. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "nbd.h"
#include "os/os.h"

struct nbd_link *nbdc_link_new(struct nbd_handle *h)
{
    struct nbd_link *link = calloc(1, sizeof(*link));

    int fd = link != NULL ? os->dup(libnbd()->aio_get_fd(h)) : -ENOMEM;

    if (fd < 0) {
        libnbd()->close(h);
        free(link);
        return NULL;
    }
    link->h = h;
    link->fd = fd;
    atomic_init(&link->refs, 1);
    os_mutex_init(&link->lock);
    TAILQ_INIT(&link->followers);
    return link;
}

void nbdc_link_ref(struct nbd_link *link)
{
    atomic_fetch_add(&link->refs, 1);
}

void nbdc_link_unref(struct nbd_link *link)
{
    if (link == NULL || atomic_fetch_sub(&link->refs, 1) != 1) {
        return;
    }
    if (libnbd()->aio_is_ready(link->h) > 0) {
        (void)libnbd()->aio_disconnect(link->h, 0); /* does not wait: a server may not answer */
    }
    libnbd()->close(link->h);
    os->close(link->fd);
    os_mutex_fini(&link->lock);
    free(link);
}

/* ---- answers ---- */

/* Called inside of libnbd, by whoever has the handle at that moment (L2). */
static int call_completed(void *opaque, int *error)
{
    struct nbd_call *call = opaque;
    struct nbd_link *link = call->link;
    Coroutine *wake = NULL;

    os_mutex_lock(&link->lock);
    call->err = *error;
    call->done = true;
    if (call->follows) {
        TAILQ_REMOVE(&link->followers, call, entry);
        call->follows = false;
        wake = call->co;
    }
    os_mutex_unlock(&link->lock);
    if (wake != NULL) {
        aio_co_wake(wake); /* we are in a coroutine, so it does not run inside of libnbd */
    }
    return 1;
}

/* The first extent is the answer; a server may send more, and for other contexts. */
static int call_extent(void *opaque, const char *context, uint64_t offset, uint32_t *entries,
                       size_t n_entries, int *error)
{
    struct nbd_call *call = opaque;

    if (strcmp(context, call->context) == 0 && offset == call->offset && n_entries >= 2 &&
        call->ret_extent_bytes == 0) {
        call->ret_extent_bytes = entries[0];
        call->ret_extent_flags = entries[1];
    }
    return 0;
}

/* A part of what is read is there. libnbd keeps parts inside the buffer, but lets a server leave
 * some out. */
static int call_part(void *opaque, const void *part, size_t bytes, uint64_t offset, unsigned status,
                     int *error)
{
    struct nbd_call *call = opaque;

    if (status != LIBNBD_READ_ERROR) {
        call->read_bytes += bytes;
    }
    return 0;
}

static int64_t issue(struct nbd_link *link, struct nbd_call *call)
{
    nbd_completion_callback completed = {.callback = call_completed, .user_data = call};
    nbd_chunk_callback part = {.callback = call_part, .user_data = call};
    nbd_extent_callback extent = {.callback = call_extent, .user_data = call};

    switch (call->op) {
    case NBD_OP_READ:
        return libnbd()->aio_pread_structured(link->h, call->buf, call->bytes, call->offset, part,
                                              completed, call->flags);
    case NBD_OP_WRITE:
        return libnbd()->aio_pwrite(link->h, call->buf, call->bytes, call->offset, completed,
                                    call->flags);
    case NBD_OP_ZERO:
        return libnbd()->aio_zero(link->h, call->bytes, call->offset, completed, call->flags);
    case NBD_OP_TRIM:
        return libnbd()->aio_trim(link->h, call->bytes, call->offset, completed, call->flags);
    case NBD_OP_FLUSH:
        return libnbd()->aio_flush(link->h, completed, call->flags);
    case NBD_OP_STATUS:
        return libnbd()->aio_block_status(link->h, call->bytes, call->offset, extent, completed,
                                          call->flags);
    }
    return -1;
}

static bool is_lost(const struct nbd_link *link)
{
    return libnbd()->aio_is_dead(link->h) != 0 || libnbd()->aio_is_closed(link->h) != 0;
}

/* ---- the leader ---- */

/* Wait for the socket once. */
static void turn_co(struct nbd_link *link)
{
    struct nbd_sleep sleep = {.co = coroutine_self()};
    unsigned dir;
    bool kicked;
    int rc;

    os_mutex_lock(&link->lock);
    link->kicked = false;
    os_mutex_unlock(&link->lock);
    dir = libnbd()->aio_get_direction(link->h);
    if (dir == 0) { /* lost: our call is done, too */
        return;
    }
    os_mutex_lock(&link->lock);
    kicked = link->kicked;
    link->sleep = kicked ? NULL : &sleep;
    os_mutex_unlock(&link->lock);
    if (kicked) {
        return;
    }
    rc = nbdc_sleep_co(&sleep, link->fd, dir, INT64_MAX);
    os_mutex_lock(&link->lock);
    link->sleep = NULL;
    os_mutex_unlock(&link->lock);
    if (rc < 0) {
        /* Nobody can wait for this socket. libnbd has no call that gives up what is in flight: it
         * does so when it reads the end of the socket, at the latest in a later turn, behind the
         * answers that have come. */
        (void)os->shutdown(link->fd, SHUT_RDWR);
        rc = LIBNBD_AIO_DIRECTION_READ;
    }
    nbdc_handle_notify(link->h, (unsigned)rc);
}

/* The handle waits for something else than the leader does. Coroutine. */
static void kick_leader(struct nbd_link *link)
{
    os_mutex_lock(&link->lock);
    link->kicked = true;
    if (link->sleep != NULL) {
        nbdc_sleep_wake(link->sleep);
    }
    os_mutex_unlock(&link->lock);
}

/* Until the call is done: lead, or follow whoever leads. */
static void await_co(struct nbd_link *link, struct nbd_call *call)
{
    struct nbd_call *next;

    os_mutex_lock(&link->lock);
    while (!call->done) {
        bool lead = link->leader == NULL;

        if (lead) {
            link->leader = call->co;
        } else {
            call->follows = true;
            TAILQ_INSERT_TAIL(&link->followers, call, entry);
        }
        os_mutex_unlock(&link->lock);
        if (lead) {
            turn_co(link);
        } else {
            coroutine_yield();
        }
        os_mutex_lock(&link->lock);
        if (lead) {
            link->leader = NULL;
        }
    }
    next = link->leader == NULL ? TAILQ_FIRST(&link->followers) : NULL;
    if (next != NULL) {
        TAILQ_REMOVE(&link->followers, next, entry);
        next->follows = false;
    }
    os_mutex_unlock(&link->lock);
    if (next != NULL) {
        aio_co_wake(next->co);
    }
}

int nbdc_link_call_co(struct nbd_link *link, struct nbd_call *call, bool *ret_lost)
{
    call->link = link;
    call->co = coroutine_self();
    call->done = false;
    call->follows = false;
    call->err = 0;
    call->read_bytes = 0;
    call->ret_extent_bytes = 0;
    call->ret_extent_flags = 0;
    if (issue(link, call) < 0) {
        /* not sent; the completion has been called, or never will be */
        int err = libnbd()->get_errno();

        *ret_lost = is_lost(link);
        kick_leader(link);
        return err > 0 ? -err : -EIO;
    }
    if (libnbd()->aio_get_direction(link->h) !=
        LIBNBD_AIO_DIRECTION_READ) { /* also when it is lost */
        kick_leader(link);
    }
    await_co(link, call);
    if (call->err == 0 && call->op == NBD_OP_READ && call->read_bytes != call->bytes) {
        call->err = EIO;
    }
    *ret_lost = call->err != 0 && is_lost(link);
    return -call->err;
}
