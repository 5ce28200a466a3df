/* SPDX-License-Identifier: MIT */
/*
 * What a daemon is without its process: a loop, the state that commands work on, monitors at their
 * places, and options that are arguments of commands. The program adds the command line and
 * signals. The control thread's.
 */
#ifndef PLATTER_CONTROL_SERVICE_H
#define PLATTER_CONTROL_SERVICE_H

#include "control/chardev.h"
#include "control/control.h"
#include "schema/qmp.h"

struct metrics_server;

struct service {
    AioContext *ctx;
    struct monitors *monitors;
    struct control *control;
    struct chardev_list chardevs;
    struct metrics_server *metrics; /* NULL: none */
    bool background;                /* it has no standard streams of its own */
};

enum service_option {
    SERVICE_BACKEND,
    SERVICE_BLOCKDEV,
    SERVICE_CHARDEV,
    SERVICE_EXPORT,
    SERVICE_METRICS,
    SERVICE_MONITOR,
    SERVICE_NBD_SERVER,
    SERVICE_OBJECT,
};

/* Make the object that arguments describe. 0 or -errno. */
int object_make(struct control *control, json_t *arguments, Error **errp);

/* Nothing yet; service_end and service_fini may follow at any time. */
void service_init(struct service *s);
/* The loop, which becomes the current one of the thread, state and monitors. The caller sets
 * s->control->pl then: an instance on s->ctx whose events go to monitors_platter_event with
 * s->monitors. 0 or -errno with errp. */
int service_begin(struct service *s, Error **errp);
/* Carry out one option; text: KEY=VALUE,... or JSON, or of SERVICE_METRICS an address. 0 or -errno
 * with errp. */
int service_option(struct service *s, enum service_option option, const char *text, Error **errp);
/* A server that was asked to wait and has had no client yet; NULL: none. */
struct chardev *service_waiting(const struct service *s);
/* Wait for the next thing that happens, and do it. */
void service_turn(struct service *s);
/* Tell the monitors that it ends. */
void service_tell_shutdown(struct service *s);
/* End exports, jobs and nodes, and tell what is still to be told. 0, or the first errno of a flush:
 * writes may be lost. */
int service_end(struct service *s);
/* End the rest. */
void service_fini(struct service *s);

#endif
