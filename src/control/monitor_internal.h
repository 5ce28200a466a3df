/* SPDX-License-Identifier: MIT */
/*
 * What the files of the QMP sessions share.
 *
 *   monitor.c   life of a session; its input, up to whole values
 *   request.c   a value becomes a request
 *   dispatch.c  all sessions; whose request runs next; running it
 *   output.c    what waits to be sent to a session
 *   fds.c       descriptors that a client sent
 *   event.c     events, from any thread to the sessions
 */
#ifndef PLATTER_CONTROL_MONITOR_INTERNAL_H
#define PLATTER_CONTROL_MONITOR_INTERNAL_H

#include <sys/queue.h>
#include <sys/types.h>

#include "control/json_stream.h"
#include "control/monitor.h"
#include "control/reply.h"
#include "os/thread.h"

#define MONITOR_CHUNK_BYTES 4096
#define MONITOR_IO_ERRORS 64u

struct qmp_request {
    STAILQ_ENTRY(qmp_request) link;
    char *id; /* owned; NULL: none */
    char *name;
    json_t *arguments; /* owned, an object */
    Error *err;        /* owned: what is wrong with the request; then the two above are NULL */
    uint64_t number;   /* counts the values that came in this session */
    bool oob;
};
STAILQ_HEAD(qmp_request_list, qmp_request);

struct monitor_out; /* output.c: a text to be sent */

struct monitor_fd {
    int fd;
    uint64_t behind; /* it came when so many values had come */
};

struct monitor {
    struct monitors *all;      /* borrowed while not dead */
    TAILQ_ENTRY(monitor) link; /* in all->sessions, or all->dying until over() is called */
    unsigned ref;
    int in_fd, out_fd; /* borrowed while not dead */
    bool in_is_socket, out_is_socket;
    bool pretty;
    bool dead;
    void (*over)(void *opaque);
    void *opaque;

    QEMUBH *bh; /* owned: goes on with the input, or tells the end */

    /* input */
    bool in_watched;
    bool in_always; /* a file: it cannot be watched, and need not be */
    bool in_ended;
    bool taking; /* requests are being taken from the chunk */
    struct json_stream stream;
    size_t chunk_at, chunk_end;
    char chunk[MONITOR_CHUNK_BYTES];
    struct monitor_fd fds[MONITOR_FDS_MAX];
    unsigned nfds;

    /* requests */
    bool negotiated;
    bool oob;
    uint64_t count; /* values that came */
    struct qmp_request_list requests;
    unsigned nrequests;
    uint64_t running; /* number of the request in band that runs; 0: none */
    uint64_t serving; /* number of the one that runs innermost; 0: none */

    /* output */
    STAILQ_HEAD(, monitor_out) out;
    size_t out_bytes;       /* unsent */
    size_t out_event_bytes; /* of those, events */
    bool out_waits;         /* until out_fd takes more */
    bool out_watched;
};

struct event; /* event.c */

struct monitors {
    AioContext *ctx; /* counted */
    struct control *control;
    QmpFindFunc *find;
    const char *release;
    TAILQ_HEAD(monitor_list, monitor) sessions; /* who was served last is at the end */
    struct monitor_list dying;
    QEMUBH *wake_bh;    /* owned */
    bool running;       /* a command in band */
    _Atomic bool ended; /* no further command is read or run */

    uint64_t events_lost_told;

    /* events: any thread */
    QEMUBH *event_bh;     /* owned */
    struct os_mutex lock; /* guards the following; a leaf */
    STAILQ_HEAD(, event) events;
    size_t event_bytes;
    uint64_t events_lost;
    /* I/O errors that were told lately; locked. Two that fall together tell more, not less. */
    struct {
        uint64_t hash;
        int64_t again_ns; /* equal ones are told from then on */
    } io_errors[MONITOR_IO_ERRORS];
};

/* ---- monitor.c ---- */

/* The session is over: nothing is read, run or sent any more; over() will be called. */
void monitor_die(struct monitor *mon);
/* Something has changed that the input may have waited for. */
void monitor_go_on(struct monitor *mon);
/* Watch the descriptors for what can be done with them now. */
void monitor_watch(struct monitor *mon);

/* ---- request.c ---- */

/* value (owned) is what the client sent and text how. NULL: out of memory. */
struct qmp_request *qmp_request_new(json_t *value, const char *text, size_t bytes, bool oob);
/* In the place of a value that could not be read; err is owned. */
struct qmp_request *qmp_request_new_error(Error *err);
void qmp_request_free(struct qmp_request *req);

/* ---- dispatch.c ---- */

/* Run it and send the reply. req is owned. */
void monitor_run(struct monitor *mon, struct qmp_request *req);
/* There is something to run. */
void monitors_schedule(struct monitors *all);

/* ---- output.c ---- */

/* Send a text (owned) and the end of the line. NULL, for lack of memory, ends the session. */
void monitor_send(struct monitor *mon, char *text, bool event);
/* Send what can be sent now. */
void monitor_flush(struct monitor *mon);
void monitor_out_drop(struct monitor *mon);
/* Whether the client reads too slowly for more requests. */
static inline bool monitor_is_full(const struct monitor *mon)
{
    return mon->out_bytes >= MONITOR_UNSENT_MAX;
}

/* ---- fds.c ---- */

/* Receive up to bytes and descriptors. As recvmsg. */
ssize_t monitor_receive(struct monitor *mon, char *buf, size_t bytes);
void monitor_fds_drop(struct monitor *mon);

/* ---- event.c ---- */

/* Sends what was raised so far. */
void monitors_send_events(struct monitors *all);
void monitors_events_free(struct monitors *all);

#endif
