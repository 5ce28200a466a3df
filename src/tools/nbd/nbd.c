/* SPDX-License-Identifier: MIT */
/*
 * platter nbd: one disk, one NBD server, until its last client has gone (or, persistent, a signal
 * comes). It listens before it opens the disk; clients that come meanwhile wait.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/listen.h"
#include "tools/commands.h"
#include "tools/daemonize.h"
#include "tools/nbd/nbd.h"
#include "tools/signals.h"
#include "util/error.h"

struct run {
    struct cli *cli;
    const struct nbd_args *args;
    Platter *pl;
    BlockBackend *blk;
    NbdServer *server;
    struct end_signals signals;
    int ready_fd;
    int pid_fd;
    bool idle; /* the last client has gone */
};

static void became_idle(void *opaque)
{
    struct run *r = opaque;

    r->idle = true;
}

/* ---- listening ---- */

TlsCreds *nbd_tls_creds(Platter *pl, const struct nbd_args *args, enum tls_endpoint endpoint,
                        Error **errp)
{
    TlsCreds *creds = tls_creds_find(pl, args->tls_creds, endpoint, errp);

    if (!creds) {
        error_prepend(errp, "Failed to get TLS creds: ");
    }
    return creds;
}

static int listen_activated(struct run *r)
{
    for (unsigned i = 0; i < r->args->activated; i++) {
        int fd = NBD_FIRST_ACTIVATED + (int)i;
        Error *err = NULL;
        int ret = nbd_server_listen_fd(r->server, fd, &err);

        if (ret < 0) {
            error_free(err);
            nbd_report_activated(r->cli, fd, ret);
            return ret;
        }
    }
    return 0;
}

/* In the words that scripts know; err is owned. */
static void report_listen(struct run *r, int ret, Error *err)
{
    struct cli *cli = r->cli;
    const struct nbd_args *args = r->args;

    if (!cli_stands_in(cli)) {
        cli_report(cli, err);
        return;
    }
    if (args->socket && ret == -ENAMETOOLONG) {
        nbd_report_long_path(cli, args);
    } else if (args->socket) {
        cli_error(cli, "Failed to bind socket to %s: %s", args->socket, strerror(-ret));
    } else if (ret == -EINVAL) {
        nbd_report_resolution(cli, args, error_get_pretty(err));
    } else {
        cli_error(cli, "Failed to find an available port: %s", strerror(-ret));
    }
    error_free(err);
}

static int listen_somewhere(struct run *r)
{
    struct nbd_address address = {.kind = NBD_ADDRESS_UNIX, .path = r->args->socket};
    Error *err = NULL;
    int ret;

    if (r->args->activated) {
        return listen_activated(r);
    }
    if (!r->args->socket) {
        address = (struct nbd_address){
            .kind = NBD_ADDRESS_TCP,
            .host = nbd_args_host(r->cli, r->args),
            .port = nbd_args_port(r->args),
        };
    }
    ret = nbd_server_listen(r->server, &address, &err);
    if (ret < 0) {
        report_listen(r, ret, err);
    }
    return ret;
}

static int tell_uris(struct run *r)
{
    for (unsigned i = 0; i < nbd_server_listener_count(r->server); i++) {
        char *uri = nbd_server_get_uri(r->server, i, r->args->name);

        if (!uri) {
            cli_error(r->cli, "out of memory");
            return -ENOMEM;
        }
        cli_put_line(r->cli->err, "%s", uri);
        free(uri);
    }
    return 0;
}

/* ---- life ---- */

/* The kernel's devices: what keeps one from being opened is told first. */
static int refuse_device(struct run *r, const char *what, const char *device)
{
    if (access(device, F_OK) < 0) {
        cli_error(r->cli, "%s %s: %s", what, device, strerror(errno));
    } else {
        cli_error(r->cli, "attaching kernel devices is not in this build: '%s' stays as it is",
                  device);
    }
    return -1;
}

/* The references are the caller's to let go, also on failure. */
static int take_tls(struct run *r, struct nbd_server_options *options, Error **errp)
{
    if (r->args->tls_creds) {
        options->tls_creds = nbd_tls_creds(r->pl, r->args, TLS_ENDPOINT_SERVER, errp);
        if (!options->tls_creds) {
            return -1;
        }
    }
    if (r->args->tls_authz) {
        options->tls_authz = tls_authz_find(r->pl, r->args->tls_authz, errp);
        if (!options->tls_authz) {
            return -1;
        }
    }
    return 0;
}

static int server_begin(struct run *r)
{
    struct nbd_server_options options = {
        .size = sizeof(options),
        .max_connections = r->args->shared ? r->args->shared : UINT_MAX,
        .idle_cb = r->args->persistent ? NULL : became_idle,
        .idle_opaque = r,
        .queue_clients = true,
    };
    Error *err = NULL;

    if (take_tls(r, &options, &err) == 0) {
        r->server = nbd_server_new(r->pl, &options, &err);
    }
    tls_creds_unref(options.tls_creds);
    tls_authz_unref(options.tls_authz);
    if (!r->server) {
        cli_report(r->cli, err);
        return -1;
    }
    if (r->args->disconnect) {
        return refuse_device(r, "Cannot open", r->args->disk.file);
    }
    /* a device has a socket of its own, unless one is named */
    return r->args->device && !r->args->socket ? 0 : listen_somewhere(r);
}

static int export_begin(struct run *r)
{
    const struct nbd_args *args = r->args;
    struct nbd_export_bitmap bitmaps[NBD_MAX_EXPORT_BITMAPS];
    struct nbd_export_options options = {
        .size = sizeof(options),
        .name = args->name,
        .description = args->description && *args->description ? args->description : NULL,
        .writable = !args->read_only,
        .allocation_depth = args->allocation_depth,
        .bitmaps = bitmaps,
        .bitmap_count = args->bitmap_count,
    };
    Error *err = NULL;

    for (unsigned i = 0; i < args->bitmap_count; i++) { /* the last one first, as scripts know it */
        bitmaps[i] = args->bitmaps[args->bitmap_count - 1 - i];
    }
    if (nbd_server_add_export(r->server, r->blk, &options, &err) < 0) {
        cli_report(r->cli, err);
        return -1;
    }
    return 0;
}

static int begin(struct run *r)
{
    struct disk_args disk = r->args->disk;

    disk.wrap = nbd_part;
    disk.wrap_check = cli_stands_in(r->cli) ? nbd_part_check : NULL; /* a fault told first */
    disk.wrap_opaque = (void *)r->args;
    if (end_signals_begin(&r->signals, r->cli) < 0) {
        return -1;
    }
    r->pl = disk_platter_new(r->cli, &disk);
    if (!r->pl || end_signals_watch(&r->signals, r->cli, platter_get_main_context(r->pl)) < 0 ||
        server_begin(r) < 0) {
        return -1;
    }
    if (disk.image_opts && disk.format) {
        cli_error(r->cli, "--image-opts and -f are mutually exclusive");
        return -1;
    }
    r->blk = disk_open(r->cli, r->pl, &disk);
    if (!r->blk || export_begin(r) < 0) {
        return -1;
    }
    if (r->args->pid_file) {
        r->pid_fd = pidfile_write(r->cli, r->args->pid_file, "");
        if (r->pid_fd < 0) {
            return -1;
        }
    }
    if (r->args->device) {
        return refuse_device(r, "Failed to open", r->args->device);
    }
    if (r->args->verbose && tell_uris(r) < 0) {
        return -1;
    }
    if (cli_stands_in(r->cli)) {
        daemonize_leave_folder();
    }
    daemonize_ready(r->ready_fd);
    return 0;
}

static int end(struct run *r)
{
    int code = CLI_EXIT_OK;

    nbd_server_free(r->server);
    if (r->blk && !r->args->read_only) {
        int ret = blk_flush(r->blk);

        if (ret < 0) {
            code =
                cli_error(r->cli, "the last flush failed: %s; writes may be lost", strerror(-ret));
        }
    }
    end_signals_end(&r->signals);
    blk_unref(r->blk);
    platter_free(r->pl);
    if (!cli_stands_in(r->cli)) { /* the reference leaves it where it is */
        pidfile_remove(r->args->pid_file, r->pid_fd);
    }
    return code;
}

static int serve(struct cli *cli, const struct nbd_args *args)
{
    struct run r = {.cli = cli, .args = args, .signals = {.fd = -1}, .ready_fd = -1, .pid_fd = -1};
    int code = CLI_EXIT_FAILED;
    int end_code;

    if (args->fork) {
        int ret = daemonize_begin(cli, &r.ready_fd, &code);

        if (ret != 0) {
            return ret < 0 ? CLI_EXIT_FAILED : code;
        }
        if (!cli_stands_in(cli)) {
            umask(027);
        }
    }
    if (cli_stands_in(cli)) {
        os_listen_by_umask();
    }
    if (begin(&r) == 0) {
        code = CLI_EXIT_OK;
        while (!r.signals.arrived && !r.idle) {
            aio_poll(platter_get_main_context(r.pl), true);
        }
    }
    end_code = end(&r);
    return code == CLI_EXIT_OK ? end_code : code;
}

static int nbd_command(struct cli *cli, int argc, char **argv)
{
    struct nbd_args args = {
        .disk = {.exclusive = true},
        .shared = 1,
        .trace = TRACE_OPTION_NONE,
    };
    int code;

    if (nbd_args_parse(cli, argc, argv, &args, &code)) {
        code = trace_option_begin(&args.trace, cli);
        if (code == CLI_EXIT_OK) {
            code = nbd_args_check(cli, &args);
        }
        if (code == CLI_EXIT_OK) {
            code = args.list ? nbd_list(cli, &args) : serve(cli, &args);
        }
    }
    trace_option_end(&args.trace);
    return code;
}

const struct cli_command command_nbd = {
    .name = "nbd",
    .operands = "IMAGE | -L",
    .summary = "Serve a disk to NBD clients, with the command line of qemu-nbd",
    .options = nbd_tool_options,
    .details =
        "It ends when its last client has gone; with -t when SIGINT, SIGTERM or SIGHUP comes.\n"
        "Sockets of a service manager (LISTEN_PID, LISTEN_FDS) are used when there are some.\n"
        "-L connects to the address instead and tells what is exported there.\n\n"
        "Examples:\n"
        "  platter nbd --fork -t --pid-file disk.pid -k /run/disk.sock -f qcow2 disk.qcow2\n"
        "  platter nbd -r -A -B backup0 -k /run/disk.sock -f qcow2 disk.qcow2\n"
        "  platter nbd -L -k /run/disk.sock\n"
        "  platter nbd -t -b 0.0.0.0 --tls-creds t -f qcow2 disk.qcow2 \\\n"
        "      --object tls-creds-x509,id=t,dir=/etc/pki/disk,endpoint=server\n",
    .run = nbd_command,
};
