/* SPDX-License-Identifier: MIT */
/*
 * Character devices: where a monitor's bytes come from. A socket has one client at a time; the next
 * one waits until it has gone. Control thread.
 */
#ifndef PLATTER_CONTROL_CHARDEV_H
#define PLATTER_CONTROL_CHARDEV_H

#include <sys/queue.h>

#include "control/monitor.h"
#include "schema/qmp.h"

struct chardev;
LIST_HEAD(chardev_list, chardev);

/* The text of a command line as KEY=VALUE,...: its words without a value ("server", "nowait") are
 * the old way to write switches. malloc'd; NULL: out of memory. */
char *chardev_text(const char *text);

/* Make it and put it into list; a server listens from here on, a unix socket with the mode of
 * os/listen.h. 0 or -errno with errp. */
int chardev_new(struct chardev_list *list, AioContext *ctx,
                const struct qmp_chardev_options *options, Error **errp);
struct chardev *chardev_find(struct chardev_list *list, const char *id);
struct chardev *chardev_next(struct chardev *chr); /* of the same list; NULL: none */
/* Sessions for its clients from now on. -EBUSY: it has a monitor. */
int chardev_attach(struct chardev *chr, struct monitors *monitors, bool pretty, Error **errp);
/* Whether it is a server that was asked to wait, and has had no client since it has a monitor:
 * whoever starts a daemon polls until this is false. */
bool chardev_is_waiting(const struct chardev *chr);
/* "unix:/run/qmp.sock", "tcp:127.0.0.1:4444", "fd:3", "stdio"; borrowed. */
const char *chardev_filename(const struct chardev *chr);
/* As query-chardev returns it; NULL: no memory. */
json_t *chardev_list_json(struct chardev_list *list);
/* End all; their sessions too. */
void chardev_list_free(struct chardev_list *list);

#endif
