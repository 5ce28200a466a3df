/* SPDX-License-Identifier: MIT */
/* The live line of platter serve. */
#include <unistd.h>

#include "tools/serve/live.h"
#include "util/size.h"

#define INTERVAL_NS INT64_C(1000000000)

static uint64_t requests_of(const struct nbd_server_stats *stats)
{
    return stats->read_requests + stats->write_requests + stats->other_requests;
}

void serve_live_text(const struct nbd_server_stats *from, const struct nbd_server_stats *to,
                     int64_t duration_ns, char *buf, size_t size)
{
    double seconds = (double)(duration_ns > 0 ? duration_ns : 1) / 1e9;
    uint64_t requests = requests_of(to) - requests_of(from);
    double latency_us =
        requests ? (double)(to->latency_total_ns - from->latency_total_ns) / 1e3 / (double)requests
                 : 0;
    char read_text[32], write_text[32];

    size_format((uint64_t)((double)(to->read_bytes - from->read_bytes) / seconds), read_text,
                sizeof(read_text));
    size_format((uint64_t)((double)(to->write_bytes - from->write_bytes) / seconds), write_text,
                sizeof(write_text));
    snprintf(buf, size, "%u client%s  read %s/s  write %s/s  %.0f requests/s  %.1f us each",
             to->connections, to->connections == 1 ? "" : "s", read_text, write_text,
             (double)requests / seconds, latency_us);
}

static void live_tick(void *opaque)
{
    struct serve_live *live = opaque;
    struct nbd_server_stats now = {.size = sizeof(now)};
    int64_t now_ns = aio_clock_ns();
    char text[160];

    nbd_server_get_stats(live->server, &now);
    serve_live_text(&live->last, &now, now_ns - live->last_ns, text, sizeof(text));
    fprintf(live->cli->err, "\r%s\033[K", text);
    fflush(live->cli->err);
    live->last = now;
    live->last_ns = now_ns;
    aio_timer_mod(live->timer, now_ns + INTERVAL_NS);
}

void serve_live_begin(struct serve_live *live, struct cli *cli, NbdServer *server, AioContext *ctx)
{
    *live = (struct serve_live){.cli = cli, .server = server};
    if (!isatty(fileno(cli->err))) {
        return;
    }
    live->timer = aio_timer_new(ctx, live_tick, live);
    if (live->timer) {
        live->last.size = sizeof(live->last);
        nbd_server_get_stats(server, &live->last);
        live->last_ns = aio_clock_ns();
        aio_timer_mod(live->timer, live->last_ns + INTERVAL_NS);
    }
}

void serve_live_end(struct serve_live *live)
{
    if (live->timer) {
        aio_timer_free(live->timer);
        live->timer = NULL;
        fputs("\r\033[K", live->cli->err);
        fflush(live->cli->err);
    }
}
