/* SPDX-License-Identifier: MIT */
/* What waits to be sent. Sending is tried at once; the rest waits for the descriptor. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "control/monitor_internal.h"
#include "os/os.h"

#define SEND_IOV_MAX 16

struct monitor_out {
    STAILQ_ENTRY(monitor_out) link;
    char *text; /* owned; the end of the line is not in it */
    size_t bytes;
    size_t sent; /* of bytes and the end of the line */
    bool event;
};

#define LINE_END_BYTES 2
static const char line_end[] = "\r\n";

static void out_free(struct monitor_out *out)
{
    free(out->text);
    free(out);
}

void monitor_out_drop(struct monitor *mon)
{
    struct monitor_out *out;

    while ((out = STAILQ_FIRST(&mon->out)) != NULL) {
        STAILQ_REMOVE_HEAD(&mon->out, link);
        out_free(out);
    }
    mon->out_bytes = 0;
    mon->out_event_bytes = 0;
}

static int gather(struct monitor *mon, struct iovec *iov)
{
    struct monitor_out *out;
    int n = 0;

    STAILQ_FOREACH (out, &mon->out, link) {
        size_t end_sent = out->sent > out->bytes ? out->sent - out->bytes : 0;

        if (n > SEND_IOV_MAX - 2) {
            break;
        }
        if (out->sent < out->bytes) {
            iov[n++] = (struct iovec){out->text + out->sent, out->bytes - out->sent};
        }
        iov[n++] = (struct iovec){(char *)line_end + end_sent, LINE_END_BYTES - end_sent};
    }
    return n;
}

static void consume(struct monitor *mon, size_t bytes)
{
    mon->out_bytes -= bytes;
    while (bytes > 0) {
        struct monitor_out *out = STAILQ_FIRST(&mon->out);
        size_t left = out->bytes + LINE_END_BYTES - out->sent;
        size_t step = left < bytes ? left : bytes;

        out->sent += step;
        bytes -= step;
        mon->out_event_bytes -= out->event ? step : 0;
        if (step == left) {
            STAILQ_REMOVE_HEAD(&mon->out, link);
            out_free(out);
        }
    }
}

static int64_t write_some(struct monitor *mon, struct iovec *iov, int niov)
{
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)niov};

    return mon->out_is_socket ? os->sendmsg(mon->out_fd, &msg, MSG_DONTWAIT)
                              : os->write(mon->out_fd, iov[0].iov_base, iov[0].iov_len);
}

void monitor_flush(struct monitor *mon)
{
    const bool full = monitor_is_full(mon);

    mon->out_waits = false;
    while (mon->out_bytes > 0 && !mon->out_waits) {
        struct iovec iov[SEND_IOV_MAX];
        int64_t n = write_some(mon, iov, gather(mon, iov));

        if (n > 0) {
            consume(mon, (size_t)n);
        } else if (n == -EAGAIN) {
            mon->out_waits = true;
        } else if (n != -EINTR) {
            monitor_die(mon); /* nobody reads there any more */
            return;
        }
    }
    monitor_watch(mon);
    if (!mon->dead && ((full && !monitor_is_full(mon)) || mon->out_bytes == 0)) {
        aio_bh_schedule(mon->bh);
    }
}

void monitor_send(struct monitor *mon, char *text, bool event)
{
    struct monitor_out *out = calloc(1, sizeof(*out));
    const bool waits = mon->out_bytes > 0;

    if (text != NULL && mon->pretty) {
        char *pretty = qmp_pretty_text(text);

        free(text);
        text = pretty;
    }
    if (text == NULL || out == NULL) {
        free(text);
        free(out);
        monitor_die(mon);
        return;
    }
    *out = (struct monitor_out){.text = text, .bytes = strlen(text), .event = event};
    STAILQ_INSERT_TAIL(&mon->out, out, link);
    mon->out_bytes += out->bytes + LINE_END_BYTES;
    mon->out_event_bytes += event ? out->bytes + LINE_END_BYTES : 0;
    if (!waits) {
        monitor_flush(mon);
    }
    if (!mon->dead && mon->out_event_bytes > MONITOR_EVENTS_UNSENT_MAX) {
        monitor_die(mon);
    }
}
