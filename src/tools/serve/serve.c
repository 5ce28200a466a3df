/* SPDX-License-Identifier: MIT */
/*
 * platter serve: one disk, one NBD server, until SIGINT, SIGTERM or SIGHUP. The URI goes to stdout,
 * everything else to stderr. The end is orderly: what is in flight is answered, the disk is
 * flushed, and the exit code says whether that worked.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <platter/export.h>

#include "control/metrics.h"
#include "tools/commands.h"
#include "tools/disk.h"
#include "tools/metrics_option.h"
#include "tools/serve/live.h"
#include "tools/signals.h"

#define THREADS_MAX 64
#define THREADS_DEFAULT_MAX 4 /* more than this are for machines whose owner says so */

enum serve_option {
    SERVE_BIND = 1,
    SERVE_DISCARD,
    SERVE_METRICS,
    SERVE_NAME,
    SERVE_PORT,
    SERVE_READ_ONLY,
    SERVE_SHARED,
    SERVE_SOCKET,
    SERVE_THREADS,
};

static const struct cli_option serve_options[] = {
    DISK_ROW_FORMAT,
    DISK_ROW_IMAGE_OPTS,
    DISK_ROW_SNAPSHOT,
    {SERVE_SOCKET, 'k', "socket", "PATH", "listen on a unix socket, open to this user only"},
    {SERVE_PORT, 'p', "port", "PORT", "listen on TCP; 10809 when not given, 0 chooses one"},
    {SERVE_BIND, 'b', "bind", "ADDR", "address for TCP; 127.0.0.1 when not given"},
    {SERVE_NAME, 'x', "export-name", "NAME", "name of the export; empty when not given"},
    {SERVE_READ_ONLY, 'r', "read-only", NULL, "refuse writes"},
    {SERVE_SHARED, 'e', "shared", "N", "clients at a time; 100 when not given"},
    {SERVE_THREADS, 0, "threads", "N",
     "threads that serve; 0: only the main one; as many as processors, up to 4, when not given"},
    DISK_ROW_CACHE_AS(DISK_OPTION_CACHE, 0),
    DISK_ROW_AIO_AS(DISK_OPTION_AIO, 0),
    DISK_ROW_DISCARD_AS(SERVE_DISCARD),
    {SERVE_METRICS, 0, "metrics", "ADDRESS", "figures for Prometheus at unix:PATH or HOST:PORT"},
    DISK_ROWS_REFS,
    {0},
};

struct serve_args {
    struct disk_args disk;
    const char *socket;
    const char *port;
    const char *address;
    const char *name;
    const char *metrics;
    uint64_t shared;
    uint64_t threads;
};

struct serve {
    struct cli *cli;
    Platter *pl;
    BlockBackend *blk;
    NbdServer *server;
    struct metrics_server *metrics; /* NULL: none */
    IOThread *threads[THREADS_MAX];
    unsigned thread_count;
    struct end_signals signals;
};

/* ---- server ---- */

static int threads_begin(struct serve *s, unsigned count)
{
    Error *err = NULL;
    char name[24];

    for (unsigned i = 0; i < count; i++) {
        snprintf(name, sizeof(name), "serve-%u", i);
        s->threads[i] = iothread_new(name, NULL, &err);
        if (!s->threads[i]) {
            cli_report(s->cli, err);
            return -1;
        }
        s->thread_count++;
    }
    return 0;
}

static int server_begin(struct serve *s, const struct serve_args *args)
{
    AioContext *contexts[THREADS_MAX];
    struct nbd_server_options options = {
        .size = sizeof(options),
        .contexts = contexts,
        .context_count = s->thread_count,
        .max_connections = (unsigned)args->shared,
    };
    struct nbd_export_options export = {
        .size = sizeof(export),
        .name = args->name,
        .writable = args->disk.writable,
        .allocation_depth = true,
    };
    struct nbd_address address = {.kind = NBD_ADDRESS_UNIX, .path = args->socket};
    Error *err = NULL;

    for (unsigned i = 0; i < s->thread_count; i++) {
        contexts[i] = iothread_get_aio_context(s->threads[i]);
    }
    if (!args->socket) {
        address = (struct nbd_address){
            .kind = NBD_ADDRESS_TCP,
            .host = args->address ? args->address : "127.0.0.1",
            .port = args->port ? args->port : "10809",
        };
    }
    s->server = nbd_server_new(s->pl, &options, &err);
    if (!s->server || nbd_server_add_export(s->server, s->blk, &export, &err) < 0 ||
        nbd_server_listen(s->server, &address, &err) < 0) {
        cli_report(s->cli, err);
        return -1;
    }
    return 0;
}

static int print_uris(struct serve *s, const char *name)
{
    for (unsigned i = 0; i < nbd_server_listener_count(s->server); i++) {
        char *uri = nbd_server_get_uri(s->server, i, name ? name : "");

        if (!uri) {
            cli_error(s->cli, "out of memory");
            return -1;
        }
        fprintf(s->cli->out, "%s\n", uri);
        free(uri);
    }
    if (fflush(s->cli->out) != 0) {
        cli_error(s->cli, "could not write the URI to stdout: %s", strerror(errno));
        return -1;
    }
    return 0;
}

static int metrics_begin(struct serve *s, const char *address)
{
    const struct metrics_source source = {.pl = s->pl, .nbd = &s->server};
    Error *err = NULL;

    if (!address) {
        return 0;
    }
    if (metrics_server_new(platter_get_main_context(s->pl), address, &source, &s->metrics, &err) <
        0) {
        cli_report(s->cli, err);
        return -1;
    }
    cli_put_line(s->cli->err, "metrics: %s", metrics_server_where(s->metrics));
    return 0;
}

static int serve_loop(struct serve *s)
{
    AioContext *ctx = platter_get_main_context(s->pl);
    struct serve_live live;

    serve_live_begin(&live, s->cli, s->server, ctx);
    while (!s->signals.arrived) {
        aio_poll(ctx, true);
        metrics_server_turn(s->metrics);
    }
    serve_live_end(&live);
    return CLI_EXIT_OK;
}

static int serve_begin(struct serve *s, const struct serve_args *args)
{
    if (end_signals_begin(&s->signals, s->cli) < 0) {
        return -1;
    }
    s->pl = disk_platter_new(s->cli, &args->disk);
    if (!s->pl || end_signals_watch(&s->signals, s->cli, platter_get_main_context(s->pl)) < 0) {
        return -1;
    }
    s->blk = disk_open(s->cli, s->pl, &args->disk);
    if (!s->blk || threads_begin(s, (unsigned)args->threads) < 0 || server_begin(s, args) < 0 ||
        metrics_begin(s, args->metrics) < 0) {
        return -1;
    }
    return print_uris(s, args->name);
}

/* Server first: it answers what is in flight in the threads; then the disk; then the threads. */
static int serve_end(struct serve *s, bool writable)
{
    int code = CLI_EXIT_OK;

    metrics_server_free(s->metrics);
    nbd_server_free(s->server);
    if (s->blk && writable) {
        int ret = blk_flush(s->blk);

        if (ret < 0) {
            code =
                cli_error(s->cli, "the last flush failed: %s; writes may be lost", strerror(-ret));
        }
    }
    end_signals_end(&s->signals);
    blk_unref(s->blk);
    for (unsigned i = 0; i < s->thread_count; i++) {
        iothread_free(s->threads[i]);
    }
    platter_free(s->pl);
    return code;
}

static int serve_run(struct cli *cli, const struct serve_args *args)
{
    struct serve s = {.cli = cli, .signals = {.fd = -1}};
    int code = CLI_EXIT_FAILED;
    int end_code;

    if (serve_begin(&s, args) == 0) {
        code = serve_loop(&s);
    }
    end_code = serve_end(&s, args->disk.writable);
    return code == CLI_EXIT_OK ? end_code : code;
}

/* ---- arguments ---- */

static bool serve_option(struct serve_args *args, int id, const struct cli_args *a)
{
    uint64_t ignored;

    switch (id) {
    case SERVE_BIND:
        args->address = a->value;
        return true;
    case SERVE_DISCARD:
        args->disk.discard = a->value;
        return true;
    case SERVE_METRICS:
        args->metrics = a->value;
        return metrics_option_check(a);
    case SERVE_NAME:
        args->name = a->value;
        return true;
    case SERVE_PORT:
        args->port = a->value;
        return cli_number_value(a, 0, 65535, &ignored);
    case SERVE_READ_ONLY:
        args->disk.writable = false;
        return true;
    case SERVE_SHARED:
        return cli_number_value(a, 1, 10000, &args->shared);
    case SERVE_SOCKET:
        args->socket = a->value;
        return true;
    case SERVE_THREADS:
        return cli_number_value(a, 0, THREADS_MAX, &args->threads);
    default:
        return disk_take_option(&args->disk, id, a) || disk_take_file(&args->disk, a);
    }
}

static int serve_command(struct cli *cli, int argc, char **argv)
{
    struct serve_args args = {
        .disk = {.writable = true, .exclusive = true, .discard = "unmap"},
        .threads = cli_processors(THREADS_DEFAULT_MAX),
    };
    struct cli_args a = cli_args_begin(cli, argc, argv);
    int id;

    while ((id = cli_next(&a)) != CLI_END) {
        if (id == CLI_HELP) {
            return CLI_EXIT_OK;
        }
        if (id == CLI_BAD || !serve_option(&args, id, &a)) {
            return CLI_EXIT_USAGE;
        }
    }
    if (!disk_file_check(cli, &args.disk)) {
        return CLI_EXIT_USAGE;
    }
    if (args.socket && (args.port || args.address)) {
        return cli_usage_error(cli, "a unix socket (-k) has no port (-p) or address (-b)");
    }
    args.disk.writable = args.disk.writable && !args.disk.snapshot;
    if (!disk_args_check(cli, &args.disk)) {
        return CLI_EXIT_USAGE;
    }
    return serve_run(cli, &args);
}

const struct cli_command command_serve = {
    .name = "serve",
    .operands = "FILE",
    .summary = "Serve a disk to NBD clients",
    .options = serve_options,
    .details =
        "Prints the URI to connect to. Without -k it listens on TCP, on this machine only.\n"
        "SIGINT or SIGTERM ends it: requests in flight are answered, the disk is flushed.\n\n"
        "Examples:\n"
        "  platter serve -f raw disk.img\n"
        "  platter serve -f raw -k /run/user/1000/disk.sock -r disk.img\n"
        "  nbdcopy nbd://localhost copy.img\n",
    .run = serve_command,
};
