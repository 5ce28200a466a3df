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

/* Make it and put it into list; a server listens from here on, a unix socket with mode 0600. 0 or
 * -errno with errp. */
int chardev_new(struct chardev_list *list, AioContext *ctx,
                const struct qmp_chardev_options *options, Error **errp);
struct chardev *chardev_find(struct chardev_list *list, const char *id);
/* Sessions for its clients from now on, and (a server that is to wait) until there is one. -EBUSY:
 * it has a monitor. Polls ctx. */
int chardev_attach(struct chardev *chr, struct monitors *monitors, bool pretty, Error **errp);
/* As query-chardev returns it; NULL: no memory. */
json_t *chardev_list_json(struct chardev_list *list);
/* End all; their sessions too. */
void chardev_list_free(struct chardev_list *list);

#endif
