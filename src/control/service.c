/* SPDX-License-Identifier: MIT */
/* The life of a daemon, and its options. */
#include <errno.h>
#include <string.h>

#include "control/control.h"
#include "control/keyval.h"
#include "control/metrics.h"
#include "control/monitor.h"
#include "control/object.h"
#include "control/qmp_type.h"
#include "control/service.h"
#include "schema/qmp.h"
#include "util/error.h"
#include "util/mem.h"
#include "util/size.h"

#define LAST_TURNS 16 /* of the loop, at the end */

/* ---- options that are arguments of commands ---- */

int object_make(struct control *control, json_t *arguments, Error **errp)
{
    struct qmp_call call = {.control = control};
    struct qmp_object_options args;
    int ret = qmp_parse(qmp_object_options_type, arguments, &args, errp);

    return ret < 0 ? ret : qmp_object_add(&call, &args, errp);
}

static int open_node(struct service *s, json_t *arguments, Error **errp)
{
    struct qmp_call call = {.control = s->control};

    return qmp_blockdev_add(&call, arguments, errp);
}

static int make_object(struct service *s, json_t *arguments, Error **errp)
{
    return object_make(s->control, arguments, errp);
}

static int make_backend(struct service *s, json_t *arguments, Error **errp)
{
    struct qmp_call call = {.control = s->control};
    struct qmp_backend_options args;
    int ret = qmp_parse(qmp_backend_options_type, arguments, &args, errp);

    return ret < 0 ? ret : qmp_blockdev_backend_add(&call, &args, errp);
}

static int start_server(struct service *s, json_t *arguments, Error **errp)
{
    struct qmp_nbd_server_options args;
    int ret = qmp_parse(qmp_nbd_server_options_type, arguments, &args, errp);

    return ret < 0 ? ret : control_nbd_start(s->control, &args, errp);
}

static int add_export(struct service *s, json_t *arguments, Error **errp)
{
    struct qmp_call call = {.control = s->control};
    struct qmp_block_export_options args;
    int ret = qmp_parse(qmp_block_export_options_type, arguments, &args, errp);

    return ret < 0 ? ret : qmp_block_export_add(&call, &args, errp);
}

/* What is looked at before all other parameters. */
static int check_chardev(const char *text, Error **errp)
{
    json_t *tree = keyval_parse(text, "backend", errp);
    const char *id = json_string_value(json_object_get(tree, "id"));
    const char *backend = json_string_value(json_object_get(tree, "backend"));
    int ret = tree ? 0 : -EINVAL;

    if (tree && !id) {
        ret = error_set(errp, EINVAL, "chardev: no id specified");
    } else if (tree && id_check(id, errp) < 0) {
        ret = -EINVAL;
    } else if (tree && !backend) {
        ret = error_set(errp, EINVAL, "chardev: \"%s\" missing backend", id);
    } else if (tree && !qmp_find_variant(qmp_chardev_options_type, backend)) {
        ret = error_set(errp, EINVAL, "'%s' is not a valid char driver name", backend);
    }
    json_decref(tree);
    return ret;
}

static int make_chardev(struct service *s, json_t *arguments, Error **errp)
{
    struct qmp_chardev_options args;
    int ret = qmp_parse(qmp_chardev_options_type, arguments, &args, errp);

    if (ret == 0 && s->background && args.backend == QMP_CHARDEV_KIND_STDIO) {
        return error_set(errp, EINVAL, "cannot use stdio with -daemonize");
    }
    return ret < 0 ? ret : chardev_new(&s->chardevs, s->ctx, &args, errp);
}

static int make_monitor(struct service *s, json_t *arguments, Error **errp)
{
    struct qmp_monitor_options args;
    struct chardev *chr;
    int ret = qmp_parse(qmp_monitor_options_type, arguments, &args, errp);

    if (ret == 0 && args.has_mode && args.mode != QMP_MONITOR_MODE_CONTROL) {
        ret = error_set(errp, EINVAL, "Only QMP is supported");
    }
    if (ret < 0) {
        return ret;
    }
    chr = chardev_find(&s->chardevs, args.chardev);
    if (!chr) {
        return error_set(errp, ENOENT, "chardev \"%s\" not found", args.chardev);
    }
    return chardev_attach(chr, s->monitors, args.has_pretty && args.pretty, errp);
}

static int make_metrics(struct service *s, const char *address, Error **errp)
{
    const struct metrics_source source = {.pl = s->control->pl, .nbd = &s->control->nbd};

    return s->metrics ? error_set(errp, EEXIST, "there are metrics already")
                      : metrics_server_new(s->ctx, address, &source, &s->metrics, errp);
}

int service_option(struct service *s, enum service_option option, const char *text, Error **errp)
{
    const struct {
        const char *implied_key;
        const struct qmp_type *type;
        int (*run)(struct service *s, json_t *arguments, Error **errp);
    } rows[] = {
        [SERVICE_BACKEND] = {"name", qmp_backend_options_type, make_backend},
        [SERVICE_BLOCKDEV] = {"driver", qmp_blockdev_options_type, open_node},
        [SERVICE_CHARDEV] = {"backend", qmp_chardev_options_type, make_chardev},
        [SERVICE_EXPORT] = {"type", qmp_block_export_options_type, add_export},
        [SERVICE_MONITOR] = {"chardev", qmp_monitor_options_type, make_monitor},
        [SERVICE_NBD_SERVER] = {NULL, qmp_nbd_server_options_type, start_server},
        [SERVICE_OBJECT] = {"qom-type", qmp_object_options_type, make_object},
    };
    AUTO_FREE char *plain = NULL;
    json_t *arguments;
    int ret;

    if (option == SERVICE_METRICS) {
        return make_metrics(s, text, errp);
    }
    if (option == SERVICE_CHARDEV && *text != '{') {
        text = plain = chardev_text(text);
        if (!plain) {
            return error_set(errp, ENOMEM, "out of memory");
        }
        if (check_chardev(text, errp) < 0) {
            return -EINVAL;
        }
    }
    arguments = qmp_arguments_of(text, rows[option].implied_key, rows[option].type, errp);
    ret = arguments ? rows[option].run(s, arguments, errp) : -EINVAL;
    json_decref(arguments);
    return ret;
}

/* ---- life ---- */

void service_init(struct service *s)
{
    *s = (struct service){0};
    LIST_INIT(&s->chardevs);
}

int service_begin(struct service *s, Error **errp)
{
    s->ctx = aio_context_new(NULL, errp);
    if (!s->ctx) {
        return -EINVAL;
    }
    aio_context_set_current(s->ctx);
    s->control = control_new();
    s->monitors = s->control ? monitors_new(s->ctx, s->control, qmp_command_find) : NULL;
    if (!s->monitors) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    s->control->monitors = s->monitors;
    s->control->chardevs = &s->chardevs;
    return 0;
}

struct chardev *service_waiting(const struct service *s)
{
    struct chardev *chr = LIST_FIRST(&s->chardevs);

    while (chr && !chardev_is_waiting(chr)) {
        chr = chardev_next(chr);
    }
    return chr;
}

void service_turn(struct service *s)
{
    aio_poll(s->ctx, true);
    monitors_turn(s->monitors);
    metrics_server_turn(s->metrics);
}

void service_tell_shutdown(struct service *s)
{
    control_event(s->control, "SHUTDOWN",
                  json_pack("{s:b, s:s}", "guest", 0, "reason",
                            s->control->quit ? "host-qmp-quit" : "host-signal"));
}

int service_end(struct service *s)
{
    int ret;

    if (s->monitors) {
        monitors_end_commands(s->monitors);
    }
    metrics_server_free(s->metrics);
    s->metrics = NULL;
    ret = control_free(s->control);
    s->control = NULL;
    for (int i = 0; i < LAST_TURNS && s->ctx && aio_poll(s->ctx, false); i++) {
        /* what is still to be told is told */
    }
    chardev_list_free(&s->chardevs);
    monitors_free(s->monitors);
    s->monitors = NULL;
    return ret;
}

void service_fini(struct service *s)
{
    if (s->ctx) {
        aio_context_set_current(NULL);
        aio_context_unref(s->ctx);
        s->ctx = NULL;
    }
}
