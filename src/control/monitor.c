/* SPDX-License-Identifier: MIT */
/*
 * One session. Its descriptors are watched only for what it could do next, so that a loop does not
 * spin over what must wait: input that waits for a command stays in the chunk and in the kernel.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include <platter/platter.h>

#include "control/monitor_internal.h"
#include "os/os.h"
#include "util/error.h"

/* ---- life ---- */

void monitor_ref(struct monitor *mon)
{
    mon->ref++;
}

void monitor_unref(struct monitor *mon)
{
    assert(mon->ref > 0);
    if (--mon->ref == 0) {
        assert(mon->dead && STAILQ_EMPTY(&mon->requests));
        aio_bh_delete(mon->bh);
        free(mon);
    }
}

bool monitor_is_open(const struct monitor *mon)
{
    return !mon->dead;
}

void monitor_die(struct monitor *mon)
{
    struct qmp_request *req;

    if (mon->dead) {
        return;
    }
    mon->dead = true;
    monitor_watch(mon);
    while ((req = STAILQ_FIRST(&mon->requests)) != NULL) {
        STAILQ_REMOVE_HEAD(&mon->requests, link);
        qmp_request_free(req);
    }
    mon->nrequests = 0;
    monitor_out_drop(mon);
    monitor_fds_drop(mon);
    if (!mon->taking) { /* else its text is in use */
        json_stream_fini(&mon->stream);
    }
    TAILQ_REMOVE(&mon->all->sessions, mon, link);
    TAILQ_INSERT_TAIL(&mon->all->dying, mon, link);
    aio_bh_schedule(mon->bh);
}

void monitor_close(struct monitor *mon)
{
    monitor_die(mon);
    aio_bh_cancel(mon->bh);
    TAILQ_REMOVE(&mon->all->dying, mon, link);
    monitor_unref(mon);
}

/* ---- input ---- */

static unsigned in_flight(const struct monitor *mon)
{
    return mon->nrequests + (mon->running != 0);
}

/* Whether another request may be taken. */
static bool has_room(const struct monitor *mon)
{
    return in_flight(mon) < (mon->oob ? MONITOR_REQUESTS_MAX : 1) && !monitor_is_full(mon) &&
           !mon->all->ended;
}

static bool wants_input(const struct monitor *mon)
{
    return !mon->dead && !mon->in_ended && !mon->taking && mon->chunk_at == mon->chunk_end &&
           has_room(mon);
}

static void queue_request(struct monitor *mon, struct qmp_request *req)
{
    if (req == NULL) {
        monitor_die(mon);
        return;
    }
    req->number = mon->count;
    if (req->oob && req->err == NULL) {
        monitor_watch(mon); /* it may poll, and nothing can be read meanwhile */
        monitor_run(mon, req);
        return;
    }
    STAILQ_INSERT_TAIL(&mon->requests, req, link);
    mon->nrequests++;
    monitors_schedule(mon->all);
}

static void take_one(struct monitor *mon)
{
    struct json_stream *stream = &mon->stream;
    json_t *value = NULL;
    Error *err = NULL;
    size_t used;
    enum json_stream_result result = json_stream_next(
        stream, mon->chunk + mon->chunk_at, mon->chunk_end - mon->chunk_at, &used, &value, &err);

    mon->chunk_at += used;
    if (result == JSON_STREAM_MORE) {
        return;
    }
    mon->count++;
    queue_request(mon, result == JSON_STREAM_VALUE
                           ? qmp_request_new(value, stream->text, stream->used, mon->oob)
                           : qmp_request_new_error(err));
}

/* At the end of input, when everything is answered. */
static bool is_done(const struct monitor *mon)
{
    return mon->in_ended && mon->chunk_at == mon->chunk_end && in_flight(mon) == 0 &&
           mon->out_bytes == 0;
}

void monitor_go_on(struct monitor *mon)
{
    if (mon->taking || mon->dead) {
        return;
    }
    monitor_ref(mon);
    mon->taking = true;
    while (!mon->dead && mon->chunk_at < mon->chunk_end && has_room(mon)) {
        take_one(mon);
    }
    mon->taking = false;
    if (mon->dead) {
        json_stream_fini(&mon->stream);
    } else if (is_done(mon)) {
        monitor_die(mon);
    } else {
        monitor_watch(mon);
        if (mon->nrequests > 0) { /* which may have waited for the client to read */
            monitors_schedule(mon->all);
        }
    }
    monitor_unref(mon);
}

/* A peer that has closed its socket altogether looks like one that has only nothing more to say,
 * until somebody sends to it. */
static bool peer_is_gone(const struct monitor *mon)
{
    struct msghdr msg = {0};

    return mon->out_is_socket && os->sendmsg(mon->out_fd, &msg, MSG_DONTWAIT) == -EPIPE;
}

static void readable_cb(void *opaque)
{
    struct monitor *mon = opaque;
    ssize_t n;

    if (!wants_input(mon)) {
        return;
    }
    n = monitor_receive(mon, mon->chunk, sizeof(mon->chunk));
    if (n == -EAGAIN || n == -EINTR) {
        return;
    }
    if (n < 0 || (n == 0 && peer_is_gone(mon))) {
        monitor_die(mon);
        return;
    }
    mon->in_ended = n == 0;
    mon->chunk_at = 0;
    mon->chunk_end = (size_t)n;
    monitor_go_on(mon);
}

static void writable_cb(void *opaque)
{
    monitor_flush(opaque);
}

/* ---- watching ---- */

static int watch_fd(struct monitor *mon, int fd, bool in, bool out)
{
    return aio_set_fd_handler(mon->all->ctx, fd, in ? readable_cb : NULL, out ? writable_cb : NULL,
                              mon);
}

void monitor_watch(struct monitor *mon)
{
    const bool in = wants_input(mon);
    const bool out = !mon->dead && mon->out_waits;
    int rc = 0;

    if (in && mon->in_always) {
        aio_bh_schedule(mon->bh);
    }
    if (mon->in_fd == mon->out_fd) {
        if (in != mon->in_watched || out != mon->out_watched) {
            rc = watch_fd(mon, mon->in_fd, in, out);
        }
    } else {
        if (in != mon->in_watched && !mon->in_always) {
            rc = watch_fd(mon, mon->in_fd, in, false);
            if (rc == -EPERM) {
                mon->in_always = true;
                aio_bh_schedule(mon->bh);
                rc = 0;
            }
        }
        if (rc == 0 && out != mon->out_watched) {
            rc = watch_fd(mon, mon->out_fd, false, out);
        }
    }
    mon->in_watched = in;
    mon->out_watched = out;
    if (rc < 0) {
        monitor_die(mon);
    }
}

static void bh_cb(void *opaque)
{
    struct monitor *mon = opaque;

    if (!mon->dead) {
        if (mon->in_always) {
            readable_cb(mon);
        }
        monitor_go_on(mon);
        return;
    }
    TAILQ_REMOVE(&mon->all->dying, mon, link);
    mon->over(mon->opaque);
    monitor_unref(mon);
}

static bool is_socket(int fd)
{
    int type;
    socklen_t len = sizeof(type);

    return os->getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0;
}

struct monitor *monitor_new(struct monitors *all, int in_fd, int out_fd, bool pretty,
                            void (*over)(void *opaque), void *opaque)
{
    struct monitor *mon = calloc(1, sizeof(*mon));

    if (mon == NULL) {
        return NULL;
    }
    *mon = (struct monitor){.all = all,
                            .ref = 1,
                            .in_fd = in_fd,
                            .out_fd = out_fd,
                            .in_is_socket = is_socket(in_fd),
                            .out_is_socket = is_socket(out_fd),
                            .pretty = pretty,
                            .over = over,
                            .opaque = opaque};
    STAILQ_INIT(&mon->requests);
    STAILQ_INIT(&mon->out);
    mon->bh = aio_bh_new(all->ctx, bh_cb, mon);
    if (mon->bh == NULL) {
        free(mon);
        return NULL;
    }
    TAILQ_INSERT_TAIL(&all->sessions, mon, link);
    monitor_send(mon, qmp_greeting_text(all->release, platter_version()), false);
    if (!mon->dead) {
        monitor_watch(mon);
    }
    return mon;
}
