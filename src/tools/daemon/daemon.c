/* SPDX-License-Identifier: MIT */
/*
 * platter daemon: nodes, exports and monitors from the command line, and QMP for the rest. The
 * options are carried out in the order in which they stand; most are the arguments of a command.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/chardev.h"
#include "control/control.h"
#include "control/metrics.h"
#include "control/monitor.h"
#include "control/object.h"
#include "control/qmp_type.h"
#include "os/os.h"
#include "os/trace.h"
#include "schema/qmp.h"
#include "tools/commands.h"
#include "tools/daemonize.h"
#include "tools/disk.h"
#include "tools/object.h"
#include "tools/signals.h"
#include "util/error.h"
#include "util/mem.h"
#include "util/options.h"

#define LAST_TURNS 16 /* of the loop, at the end */

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
    DAEMON_TRACE_FILE,
};

static const struct cli_option daemon_options[] = {
    {DAEMON_BLOCKDEV, 0, "blockdev", "DRIVER,node-name=NAME,...", "open a node"},
    {DAEMON_BACKEND, 0, "backend", "NAME[,node-name=NODE],...",
     "make a backend with a tray, limits and an error policy"},
    {DAEMON_OBJECT, 0, "object", "TYPE,id=ID,...", "make an iothread, throttle-group or secret"},
    {DAEMON_NBD_SERVER, 0, "nbd-server", "addr.type=unix,addr.path=PATH",
     "start the NBD server; or addr.type=inet,addr.host=HOST,addr.port=PORT"},
    {DAEMON_EXPORT, 0, "export", "nbd,id=ID,node-name=NAME,...", "export a node, or a backend"},
    {DAEMON_CHARDEV, 0, "chardev", "socket,id=ID,path=PATH,server=on",
     "a place for a monitor; or stdio,id=ID"},
    {DAEMON_MONITOR, 0, "monitor", "ID[,pretty=on]", "speak QMP there"},
    {DAEMON_METRICS, 0, "metrics", "ADDRESS", "figures for Prometheus at unix:PATH or HOST:PORT"},
    {DAEMON_DAEMONIZE, 0, "daemonize", NULL, "go into the background once everything is ready"},
    {DAEMON_PIDFILE, 0, "pidfile", "FILE", "write the number of the process there"},
    {DAEMON_TRACE, 'T', "trace", "PATTERN", "put these trace points into the log"},
    {DAEMON_TRACE_FILE, 0, "trace-file", "FILE", "the log; standard error when not given"},
    DISK_ROWS_REFS,
    {0},
};

struct daemon {
    struct cli *cli;
    struct disk_args refs; /* what images may open by naming it */
    bool background;
    const char *pidfile;
    const char *trace_file;
    int trace_fd;
    int pid_fd;
    int ready_fd;
    struct end_signals signals;
    AioContext *ctx;
    struct monitors *monitors;
    struct control *control;
    struct chardev_list chardevs;
    struct metrics_server *metrics; /* NULL: none */
};

/* ---- options that are arguments of commands ---- */

static int open_node(struct daemon *d, const char *text, Error **errp)
{
    bool is_json = *text == '{' || strncmp(text, "json:", 5) == 0;
    BlockOptions *options =
        is_json ? block_options_parse_json(text, errp) : block_options_parse(text, "driver", errp);

    if (options && !block_options_get_str(options, "node-name")) {
        block_options_free(options);
        return error_set(errp, EINVAL, "'node-name' must be specified for the root node");
    }
    return options ? control_add_node(d->control, options, errp) : -EINVAL;
}

static int make_object(struct daemon *d, json_t *arguments, Error **errp)
{
    return object_make(d->control, arguments, errp);
}

static int make_backend(struct daemon *d, json_t *arguments, Error **errp)
{
    struct qmp_call call = {.control = d->control};
    struct qmp_backend_options args;
    int ret = qmp_parse(qmp_backend_options_type, arguments, &args, errp);

    return ret < 0 ? ret : qmp_blockdev_backend_add(&call, &args, errp);
}

static int start_server(struct daemon *d, json_t *arguments, Error **errp)
{
    struct qmp_nbd_server_options args;
    int ret = qmp_parse(qmp_nbd_server_options_type, arguments, &args, errp);

    return ret < 0 ? ret : control_nbd_start(d->control, &args, errp);
}

static int add_export(struct daemon *d, json_t *arguments, Error **errp)
{
    struct qmp_call call = {.control = d->control};
    struct qmp_block_export_options args;
    int ret = qmp_parse(qmp_block_export_options_type, arguments, &args, errp);

    return ret < 0 ? ret : qmp_block_export_add(&call, &args, errp);
}

/* A server that is to wait for its first client. */
static void wait_for_client(struct daemon *d, struct chardev *chr)
{
    if (chardev_is_waiting(chr)) {
        cli_put_line(d->cli->err, "waiting for a client on %s", chardev_filename(chr));
    }
    while (chardev_is_waiting(chr) && !d->signals.arrived && !d->control->quit) {
        aio_poll(d->ctx, true);
    }
}

static int make_chardev(struct daemon *d, json_t *arguments, Error **errp)
{
    struct qmp_chardev_options args;
    int ret = qmp_parse(qmp_chardev_options_type, arguments, &args, errp);

    return ret < 0 ? ret : chardev_new(&d->chardevs, d->ctx, &args, errp);
}

static int make_monitor(struct daemon *d, json_t *arguments, Error **errp)
{
    struct qmp_monitor_options args;
    struct chardev *chr;
    int ret = qmp_parse(qmp_monitor_options_type, arguments, &args, errp);

    if (ret < 0) {
        return ret;
    }
    chr = chardev_find(&d->chardevs, args.chardev);
    if (!chr) {
        return error_set(errp, ENOENT, "chardev \"%s\" not found", args.chardev);
    }
    ret = chardev_attach(chr, d->monitors, args.has_pretty && args.pretty, errp);
    if (ret == 0) {
        wait_for_client(d, chr);
    }
    return ret;
}

static int make_metrics(struct daemon *d, const char *address, Error **errp)
{
    const struct metrics_source source = {.pl = d->control->pl, .nbd = &d->control->nbd};

    return d->metrics ? error_set(errp, EEXIST, "there are metrics already")
                      : metrics_server_new(d->ctx, address, &source, &d->metrics, errp);
}

static int run_option(struct daemon *d, int id, const char *text, Error **errp)
{
    const struct {
        int id;
        const char *implied_key;
        const struct qmp_type *type;
        int (*run)(struct daemon *d, json_t *arguments, Error **errp);
    } rows[] = {
        {DAEMON_BACKEND, "name", qmp_backend_options_type, make_backend},
        {DAEMON_CHARDEV, "backend", qmp_chardev_options_type, make_chardev},
        {DAEMON_EXPORT, "type", qmp_block_export_options_type, add_export},
        {DAEMON_MONITOR, "chardev", qmp_monitor_options_type, make_monitor},
        {DAEMON_NBD_SERVER, NULL, qmp_nbd_server_options_type, start_server},
        {DAEMON_OBJECT, "qom-type", qmp_object_options_type, make_object},
    };
    int ret = 0;

    if (id == DAEMON_BLOCKDEV) {
        return open_node(d, text, errp);
    }
    if (id == DAEMON_METRICS) {
        return make_metrics(d, text, errp);
    }
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (rows[i].id == id) {
            AUTO_FREE char *plain =
                id == DAEMON_CHARDEV && *text != '{' ? chardev_text(text) : NULL;
            json_t *arguments =
                qmp_arguments_of(plain ? plain : text, rows[i].implied_key, rows[i].type, errp);

            ret = arguments ? rows[i].run(d, arguments, errp) : -EINVAL;
            json_decref(arguments);
        }
    }
    return ret;
}

/* ---- the command line, twice: first what the process needs, then what it does ---- */

static bool print_objects(struct daemon *d, int id, const struct cli_args *a)
{
    if (id != DAEMON_OBJECT || strcmp(a->value, "help") != 0) {
        return false;
    }
    fputs("List of user creatable objects:\n  iothread\n  secret\n  throttle-group\n", d->cli->out);
    return true;
}

/* -1: go on; else what the process exits with. */
static int look_at(struct daemon *d, int argc, char **argv)
{
    struct cli_args a = cli_args_begin(d->cli, argc, argv);
    int id;

    while ((id = cli_next(&a)) != CLI_END) {
        if (id == CLI_HELP || print_objects(d, id, &a)) {
            return CLI_EXIT_OK;
        }
        if (id == CLI_BAD) {
            return CLI_EXIT_USAGE;
        }
        if (id == CLI_OPERAND) {
            return cli_stands_in(d->cli)
                       ? cli_error(d->cli, "%s: Unexpected argument", a.value)
                       : cli_usage_error(d->cli, "unexpected argument '%s'", a.value);
        }
        if (id == DAEMON_DAEMONIZE) {
            d->background = true;
        } else if (id == DAEMON_PIDFILE) {
            d->pidfile = a.value;
        } else if (id == DAEMON_TRACE_FILE) {
            d->trace_file = a.value;
        } else if (id == DAEMON_TRACE && trace_set(a.value, true) == 0) {
            return cli_usage_error(d->cli, "there is no trace point '%s'", a.value);
        } else {
            disk_take_option(&d->refs, id, &a);
        }
    }
    return disk_args_check(d->cli, &d->refs) ? -1 : CLI_EXIT_USAGE;
}

static int carry_out(struct daemon *d, int argc, char **argv)
{
    struct cli_args a = cli_args_begin(d->cli, argc, argv);
    int id;

    while ((id = cli_next(&a)) != CLI_END) {
        Error *err = NULL;

        if (a.value && run_option(d, id, a.value, &err) < 0) {
            error_prepend(&err, "--%s %s: ", a.option->name, a.value);
            return cli_report(d->cli, err);
        }
        if (d->signals.arrived) {
            break;
        }
    }
    return CLI_EXIT_OK;
}

/* ---- life ---- */

static int trace_begin(struct daemon *d)
{
    d->trace_fd = STDERR_FILENO;
    if (d->trace_file) {
        d->trace_fd = os->open(d->trace_file, O_WRONLY | O_CREAT | O_APPEND, 0600);
        if (d->trace_fd < 0) {
            cli_error(d->cli, "cannot open the log '%s': %s", d->trace_file,
                      strerror(-d->trace_fd));
            return -1;
        }
    }
    trace_set_fd(d->trace_fd);
    return 0;
}

static int begin(struct daemon *d)
{
    Error *err = NULL;

    if (end_signals_begin(&d->signals, d->cli) < 0 || trace_begin(d) < 0) {
        return CLI_EXIT_FAILED;
    }
    d->ctx = aio_context_new(NULL, &err);
    if (!d->ctx) {
        return cli_report(d->cli, err);
    }
    aio_context_set_current(d->ctx);
    d->control = control_new();
    d->monitors = d->control ? monitors_new(d->ctx, d->control, qmp_command_find) : NULL;
    if (!d->monitors) {
        return cli_error(d->cli, "out of memory");
    }
    d->control->pl =
        disk_platter_new_for(d->cli, &d->refs, d->ctx, monitors_platter_event, d->monitors);
    if (!d->control->pl) {
        return CLI_EXIT_FAILED;
    }
    d->control->monitors = d->monitors;
    d->control->chardevs = &d->chardevs;
    return end_signals_watch(&d->signals, d->cli, d->ctx) < 0 ? CLI_EXIT_FAILED : CLI_EXIT_OK;
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
    daemonize_ready(d->ready_fd);
    d->ready_fd = -1;
    while (!d->control->quit && !d->signals.arrived) {
        aio_poll(d->ctx, true);
        metrics_server_turn(d->metrics);
    }
    control_event(d->control, "SHUTDOWN",
                  json_pack("{s:b, s:s}", "guest", 0, "reason",
                            d->control->quit ? "host-qmp-quit" : "host-signal"));
    return CLI_EXIT_OK;
}

static int end(struct daemon *d)
{
    int code = CLI_EXIT_OK;
    int ret;

    metrics_server_free(d->metrics);
    ret = control_free(d->control);
    for (int i = 0; i < LAST_TURNS && d->ctx && aio_poll(d->ctx, false); i++) {
        /* what is still to be told is told */
    }
    if (ret < 0) {
        code = cli_error(d->cli, "the last flush failed: %s; writes may be lost", strerror(-ret));
    }
    chardev_list_free(&d->chardevs);
    monitors_free(d->monitors);
    end_signals_end(&d->signals);
    if (d->ctx) {
        aio_context_set_current(NULL);
        aio_context_unref(d->ctx);
    }
    pidfile_remove(d->pidfile, d->pid_fd);
    trace_set_fd(-1);
    if (d->trace_file && d->trace_fd >= 0) {
        os->close(d->trace_fd);
    }
    return code;
}

static int daemon_command(struct cli *cli, int argc, char **argv)
{
    struct daemon d = {
        .cli = cli,
        .refs = {.image_refs = cli_stands_in(cli) ? NULL : "none"},
        .pid_fd = -1,
        .ready_fd = -1,
        .signals = {.fd = -1},
    };
    int code = look_at(&d, argc, argv);
    int end_code;
    int ret;

    if (code >= 0) {
        return code;
    }
    LIST_INIT(&d.chardevs);
    if (d.background) {
        ret = daemonize_begin(cli, &d.ready_fd, &code);
        if (ret != 0) {
            return ret < 0 ? CLI_EXIT_FAILED : code;
        }
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
