/* SPDX-License-Identifier: MIT */
/*
 * What a command of the control plane is. The table is made from schema/ (scripts/gen_qmp.py); the
 * functions behind it are in cmd_*.c, by subject. Everything here runs in the main context.
 */
#ifndef PLATTER_CONTROL_COMMAND_H
#define PLATTER_CONTROL_COMMAND_H

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

#include <platter/error.h>

struct control; /* the daemon's state: one Platter, its iothreads, servers, descriptors */
struct monitor; /* one QMP session */
struct qmp_type;

/* The classes of errors that clients tell apart. */
enum qmp_error_class {
    QMP_GENERIC_ERROR = 0,
    QMP_COMMAND_NOT_FOUND,
    QMP_DEVICE_NOT_FOUND,
    QMP_DEVICE_NOT_ACTIVE,
};

/* One run of a command. */
struct qmp_call {
    struct control *control;
    struct monitor *monitor; /* NULL: from the command line */
    enum qmp_error_class
        error_class; /* of the error it returns; generic unless it says otherwise */
};

enum { QMP_ALLOW_OOB = 1 };

struct qmp_command {
    const char *name;
    unsigned flags;
    /* arguments: an object, never NULL; borrowed. ret_value: owned by the caller; left NULL: {}.
     * May poll the main context. 0 or -errno with errp. */
    int (*run)(struct qmp_call *call, json_t *arguments, json_t **ret_value, Error **errp);
    const struct qmp_type *arguments;
    const struct qmp_type *returns;
    bool returns_list;
};
/* By name, ascending; a NULL name ends it. */
extern const struct qmp_command qmp_commands[];
extern const size_t qmp_command_count;

const struct qmp_command *qmp_command_find(const char *name); /* NULL: none */
/* What a command returns: value (owned by the caller of the command from now on), or the error that
 * there was no memory to make it when it is NULL. 0 or -ENOMEM with errp. */
int qmp_give(json_t *value, json_t **ret_value, Error **errp);

struct qmp_event_type {
    const char *name;
    const struct qmp_type *data;
};
extern const struct qmp_event_type qmp_event_types[]; /* a NULL name ends it */

#endif
