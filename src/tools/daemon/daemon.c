/* SPDX-License-Identifier: MIT */
/*
 * platter daemon: nodes, exports and monitors from the command line, and QMP for the rest. The
 * options are carried out in the order in which they stand; most are the arguments of a command.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/chardev.h"
#include "control/control.h"
#include "control/metrics.h"
#include "control/monitor.h"
#include "control/qmp_type.h"
#include "control/service.h"
#include "os/listen.h"
#include "os/os.h"
#include "schema/qmp.h"
#include "tools/commands.h"
#include "tools/daemonize.h"
#include "tools/disk.h"
#include "tools/metrics_option.h"
#include "tools/signals.h"
#include "tools/trace_option.h"
#include "util/error.h"

enum daemon_option {
    DAEMON_BACKEND = 1,
    DAEMON_BLOCKDEV,
    DAEMON_CHARDEV,
    DAEMON_DAEMONIZE,
    DAEMON_EXPORT,
    DAEMON_METRICS,
    DAEMON_MONITOR,
    DAEMON_NBD_SERVER,
    DAEMON_OBJECT,
    DAEMON_PIDFILE,
    DAEMON_TRACE,
};

static bool chardev_help(struct cli *cli, const char *text)
{
    if (strcmp(text, "help") != 0 && strcmp(text, "?") != 0) {
        return false;
    }
    fputs("Available chardev backend types: \n", cli->out);
    for (const struct qmp_variant *v = qmp_chardev_options_type->variants; v->value; v++) {
        fprintf(cli->out, "  %s\n", v->value);
    }
    return true;
}

static const struct cli_option daemon_options[] = {
    {DAEMON_BLOCKDEV, 0, "blockdev", "DRIVER,node-name=NAME,...", "open a node"},
    {DAEMON_BACKEND, 0, "backend", "NAME[,node-name=NODE],...",
     "make a backend with a tray, limits and an error policy"},
    {DAEMON_OBJECT, 0, "object", "TYPE,id=ID,...",
     "make an object that others name (iothread, secret, tls-creds-x509, ...); help lists them",
     object_help_daemon},
    {DAEMON_NBD_SERVER, 0, "nbd-server", "addr.type=unix,addr.path=PATH",
     "start the NBD server; or addr.type=inet,addr.host=HOST,addr.port=PORT"},
    {DAEMON_EXPORT, 0, "export", "nbd,id=ID,node-name=NAME,...", "export a node, or a backend"},
    {DAEMON_CHARDEV, 0, "chardev", "socket,id=ID,path=PATH,server=on",
     "a place for a monitor; or stdio,id=ID", chardev_help},
    {DAEMON_MONITOR, 0, "monitor", "ID[,pretty=on]", "speak QMP there"},
    {DAEMON_METRICS, 0, "metrics", "ADDRESS", "figures for Prometheus at unix:PATH or HOST:PORT"},
    {DAEMON_DAEMONIZE, 0, "daemonize", NULL, "go into the background once everything is ready"},
    {DAEMON_PIDFILE, 0, "pidfile", "FILE", "write the number of the process there"},
    TRACE_ROW(DAEMON_TRACE),
    DISK_ROWS_REFS,
    {0},
};

struct daemon {
    struct cli *cli;
    struct disk_args refs; /* what images may open by naming it */
    bool background;
    const char *pidfile;
    char *pidfile_path; /* owned; what pidfile is then */
    struct trace_option trace;
    int pid_fd;
    int ready_fd;
    struct end_signals signals;
    struct service service;
};

/* ---- options ---- */

/* A server that is to wait for its first client. */
static void wait_for_client(struct daemon *d)
{
    struct chardev *chr = service_waiting(&d->service);

    if (chr) {
        cli_put_line(d->cli->err, "waiting for a client on %s", chardev_filename(chr));
    }
    while (service_waiting(&d->service) && !d->signals.arrived && !d->service.control->quit) {
        service_turn(&d->service);
    }
}

static int run_option(struct daemon *d, int id, const char *text, Error **errp)
{
    static const struct {
        int id;
        enum service_option option;
    } rows[] = {
        {DAEMON_BACKEND, SERVICE_BACKEND},       {DAEMON_BLOCKDEV, SERVICE_BLOCKDEV},
        {DAEMON_CHARDEV, SERVICE_CHARDEV},       {DAEMON_EXPORT, SERVICE_EXPORT},
        {DAEMON_METRICS, SERVICE_METRICS},       {DAEMON_MONITOR, SERVICE_MONITOR},
        {DAEMON_NBD_SERVER, SERVICE_NBD_SERVER}, {DAEMON_OBJECT, SERVICE_OBJECT},
    };
    int ret = 0;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (rows[i].id == id) {
            ret = service_option(&d->service, rows[i].option, text, errp);
        }
    }
    if (ret == 0 && id == DAEMON_MONITOR) {
        wait_for_client(d);
    }
    if (ret == 0 && id == DAEMON_METRICS && !cli_stands_in(d->cli)) {
        cli_put_line(d->cli->err, "metrics: %s", metrics_server_where(d->service.metrics));
    }
    return ret;
}

/* ---- the command line, twice: first what the process needs, then what it does ---- */

/* -1: go on; else what the process exits with. */
static int look_at(struct daemon *d, int argc, char **argv)
{
    struct cli_args a = cli_args_begin(d->cli, argc, argv);
    int code;
    int id;

    while ((id = cli_next(&a)) != CLI_END) {
        if (id == CLI_HELP) {
            return CLI_EXIT_OK;
        }
        if (id == CLI_BAD) {
            return CLI_EXIT_USAGE;
        }
        if (id == CLI_OPERAND && cli_stands_in(d->cli)) {
            continue; /* told in its turn */
        }
        if (id == CLI_OPERAND) {
            return cli_usage_error(d->cli, "unexpected argument '%s'", a.value);
        }
        if (id == DAEMON_DAEMONIZE) {
            d->background = true;
        } else if (id == DAEMON_PIDFILE) {
            d->pidfile = a.value;
        } else if (id == DAEMON_METRICS) {
            if (!metrics_option_check(&a)) {
                return CLI_EXIT_USAGE;
            }
        } else if (id == DAEMON_TRACE) {
            if (!trace_option_take(&d->trace, &a, &code)) {
                return code;
            }
        } else {
            disk_take_option(&d->refs, id, &a);
        }
    }
    if (!d->refs.image_refs && !cli_stands_in(d->cli)) {
        d->refs.image_refs = d->refs.allow_refs_count > 0 ? "listed" : "none";
    }
    return disk_args_check(d->cli, &d->refs) ? -1 : CLI_EXIT_USAGE;
}

/* Name the option in front of the error, as it was written: one word or two. */
static void name_option(const struct cli_args *a, int first, Error **errp)
{
    if (a->index - first > 1) {
        error_prepend(errp, "%s %s: ", a->argv[first], a->argv[first + 1]);
    } else {
        error_prepend(errp, "%s: ", a->argv[first]);
    }
}

static int carry_out(struct daemon *d, int argc, char **argv)
{
    struct cli_args a = cli_args_begin(d->cli, argc, argv);
    int first = a.index;
    int id;

    for (; (id = cli_next(&a)) != CLI_END; first = a.index) {
        Error *err = NULL;

        if (id == CLI_OPERAND && !a.only_operands) {
            return cli_error(d->cli, "%s: Unexpected argument", a.value);
        }
        if (id != CLI_OPERAND && a.value && run_option(d, id, a.value, &err) < 0) {
            name_option(&a, first, &err);
            return cli_report(d->cli, err);
        }
        if (d->signals.arrived) {
            break;
        }
    }
    return CLI_EXIT_OK;
}

/* ---- life ---- */

static void tell_event(void *opaque, const struct platter_event *event)
{
    struct daemon *d = opaque;

    if (event->type == PLATTER_EVENT_IMAGE_WARNING) { /* has no name in QMP */
        disk_tell_event(d->cli, event);
    }
    monitors_platter_event(d->service.monitors, event);
}

static int begin(struct daemon *d)
{
    Error *err = NULL;

    d->trace.given = true; /* a monitor may switch points on */
    if (end_signals_begin(&d->signals, d->cli) < 0 ||
        trace_option_begin(&d->trace, d->cli) != CLI_EXIT_OK) {
        return CLI_EXIT_FAILED;
    }
    if (service_begin(&d->service, &err) < 0) {
        return cli_report(d->cli, err);
    }
    if (cli_stands_in(d->cli)) {
        monitors_set_release(d->service.monitors, SPELLING_VERSION);
    }
    d->service.control->pl = disk_platter_new_for(d->cli, &d->refs, d->service.ctx, tell_event, d);
    if (!d->service.control->pl) {
        return CLI_EXIT_FAILED;
    }
    return end_signals_watch(&d->signals, d->cli, d->service.ctx) < 0 ? CLI_EXIT_FAILED
                                                                      : CLI_EXIT_OK;
}

/* The file of the number is still to be found at the end. */
static int leave_folder(struct daemon *d)
{
    if (d->pidfile) {
        d->pidfile_path = realpath(d->pidfile, NULL);
        if (!d->pidfile_path) {
            return cli_error(d->cli, "cannot find '%s': %s", d->pidfile, strerror(errno));
        }
        d->pidfile = d->pidfile_path;
    }
    daemonize_leave_folder();
    return CLI_EXIT_OK;
}

static int serve(struct daemon *d, int argc, char **argv)
{
    int code = carry_out(d, argc, argv);

    if (code == CLI_EXIT_OK && d->pidfile) {
        d->pid_fd = pidfile_write(d->cli, d->pidfile, "cannot create PID file: ");
        code = d->pid_fd < 0 ? CLI_EXIT_FAILED : CLI_EXIT_OK;
    }
    if (code != CLI_EXIT_OK) {
        return code;
    }
    if (d->background && cli_stands_in(d->cli) && leave_folder(d) != CLI_EXIT_OK) {
        return CLI_EXIT_FAILED;
    }
    daemonize_ready(d->ready_fd);
    d->ready_fd = -1;
    while (!d->service.control->quit && !d->signals.arrived) {
        service_turn(&d->service);
    }
    service_tell_shutdown(&d->service);
    return CLI_EXIT_OK;
}

static int end(struct daemon *d)
{
    int code = CLI_EXIT_OK;
    int ret;

    ret = service_end(&d->service);
    if (ret < 0) {
        code = cli_error(d->cli, "the last flush failed: %s; writes may be lost", strerror(-ret));
    }
    end_signals_end(&d->signals);
    service_fini(&d->service);
    pidfile_remove(d->pidfile, d->pid_fd);
    free(d->pidfile_path);
    trace_option_end(&d->trace);
    return code;
}

static int daemon_command(struct cli *cli, int argc, char **argv)
{
    struct daemon d = {
        .cli = cli,
        .pid_fd = -1,
        .ready_fd = -1,
        .signals = {.fd = -1},
        .trace = TRACE_OPTION_NONE,
    };
    int code = look_at(&d, argc, argv);
    int end_code;
    int ret;

    if (code >= 0) {
        trace_option_end(&d.trace);
        return code;
    }
    service_init(&d.service);
    d.service.background = d.background;
    if (d.background) {
        ret = daemonize_begin(cli, &d.ready_fd, &code);
        if (ret != 0) {
            trace_option_end(&d.trace);
            return ret < 0 ? CLI_EXIT_FAILED : code;
        }
        umask(027);
    }
    if (cli_stands_in(cli)) {
        os_listen_by_umask();
    }
    code = begin(&d);
    if (code == CLI_EXIT_OK) {
        code = serve(&d, argc, argv);
    }
    end_code = end(&d);
    return code == CLI_EXIT_OK ? end_code : code;
}

const struct cli_command command_daemon = {
    .name = "daemon",
    .operands = "",
    .summary = "Serve nodes and exports, steered by QMP",
    .options = daemon_options,
    .details =
        "Options are carried out in their order; their values are those of the QMP commands, as\n"
        "KEY=VALUE,... or JSON. SIGINT, SIGTERM, or the command quit, ends it in order.\n\n"
        "Example:\n"
        "  platter daemon --blockdev driver=file,filename=disk.img,node-name=disk \\\n"
        "      --nbd-server addr.type=unix,addr.path=/run/disk.sock \\\n"
        "      --export nbd,id=export,node-name=disk,writable=on \\\n"
        "      --chardev socket,id=qmp,path=/run/qmp.sock,server=on,wait=off --monitor qmp\n",
    .run = daemon_command,
};
