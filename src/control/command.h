/* SPDX-License-Identifier: MIT */
/*
 * A QMP command as the dispatcher sees it. Commands run in the main AioContext's thread, outside
 * coroutines, one at a time (but for those that are allowed out of band, which may run inside
 * another one's polling); they may poll the context.
 */
#ifndef PLATTER_CONTROL_COMMAND_H
#define PLATTER_CONTROL_COMMAND_H

#include <jansson.h>

#include <platter/error.h>

enum qmp_error_class {
    QMP_GENERIC_ERROR = 0,
    QMP_COMMAND_NOT_FOUND,
    QMP_DEVICE_NOT_FOUND,
    QMP_DEVICE_NOT_ACTIVE,
};

struct control; /* the daemon's state: one Platter, its iothreads, servers, fd sets... */
struct monitor; /* one QMP session; NULL when a command comes from the command line */

struct qmp_call {
    struct control *control;
    struct monitor *monitor;
    enum qmp_error_class error_class; /* of the error a command returns; generic unless it says
                                       * otherwise */
};

enum { QMP_ALLOW_OOB = 1 };

struct qmp_command {
    const char *name;
    unsigned flags;
    /* arguments: an object (never NULL; borrowed). ret_value: owned by the caller; left NULL: {}.
     * 0 or -errno with errp. */
    int (*run)(struct qmp_call *call, json_t *arguments, json_t **ret_value, Error **errp);
};

const struct qmp_command *qmp_command_find(const char *name); /* NULL: none */

#endif
