/* SPDX-License-Identifier: MIT */
/*
 * The state of a daemon: one Platter, and what commands made in it. Everything is the control
 * thread's; commands run there one at a time (dispatch.c).
 */
#ifndef PLATTER_CONTROL_CONTROL_H
#define PLATTER_CONTROL_CONTROL_H

#include <stdbool.h>
#include <sys/queue.h>

#include <platter/backend.h>
#include <platter/block.h>
#include <platter/export.h>
#include <platter/job.h>
#include <platter/platter.h>

#include "control/command.h"

/* A node that blockdev-add opened: the reference is ours until blockdev-del. */
struct control_node {
    BlockDriverState *bs; /* owned */
    LIST_ENTRY(control_node) entry;
};

struct chardev_list;    /* chardev.h */
struct control_object;  /* object.c */
struct control_export;  /* cmd_export.c */
struct control_backend; /* tray.c */
struct control_fd;      /* cmd_fd.c: a named descriptor, or one of a set */
struct monitors;
LIST_HEAD(control_node_list, control_node);
TAILQ_HEAD(control_object_list, control_object);
TAILQ_HEAD(control_export_list, control_export);
LIST_HEAD(control_backend_list, control_backend);
TAILQ_HEAD(control_fd_list, control_fd);

struct control {
    Platter *pl;               /* owned */
    struct monitors *monitors; /* borrowed; NULL: nobody is told of events */
    struct control_node_list nodes;
    struct control_object_list objects; /* oldest first */
    struct control_export_list exports;
    struct control_backend_list backends;
    struct control_fd_list fds;
    struct chardev_list *chardevs; /* borrowed; NULL: none */
    NbdServer *nbd;                /* owned; NULL: not started */
    bool quit;                     /* the loop is to end */
    bool objects_only;             /* and of these none that serves */
};

/* Without a Platter, which is set (and owned) before anything else is done. NULL: out of memory. */
struct control *control_new(void);
/* One of objects only, which ends with pl, whoever owns that. NULL: out of memory. */
struct control *control_new_within(Platter *pl);
/* Everything in order: exports and their server, jobs, backends, nodes, objects, the Platter. 0, or
 * the first errno of a flush: writes may be lost. NULL allowed. */
int control_free(struct control *control);

/* ---- what commands share ---- */

/* Tell every session of an event; data (owned; NULL: no memory, or none) is the event's. */
void control_event(struct control *c, const char *name, json_t *data);

/* The node by name; NULL with errp in the words clients know. */
BlockDriverState *control_find_node(struct control *c, const char *node_name, Error **errp);
/* The root node of a backend, or a node: whichever is there. device and node_name: NULL when not
 * given. NULL with errp. */
BlockDriverState *control_find_root(struct control *c, const char *device, const char *node_name,
                                    Error **errp);
/* The backend by name; NULL with errp and the class of call. */
BlockBackend *control_find_backend(struct qmp_call *call, const char *name, Error **errp);
/* Open a node that is the monitor's own from then on. options: owned, also on failure. 0 or -errno.
 */
int control_add_node(struct control *c, BlockOptions *options, Error **errp);

#endif
