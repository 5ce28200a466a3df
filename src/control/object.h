/* SPDX-License-Identifier: MIT */
/* Objects that commands make: iothreads, throttle groups, secrets. */
#ifndef PLATTER_CONTROL_OBJECT_H
#define PLATTER_CONTROL_OBJECT_H

#include "control/control.h"
#include "schema/qmp.h"

struct control_object {
    char *id; /* owned */
    enum qmp_object_type type;
    unsigned users;       /* exports that need it */
    IOThread *thread;     /* iothread: owned */
    ThrottleGroup *group; /* throttle-group: a reference */
    char *secret;         /* secret: owned, secret_bytes and a zero behind */
    size_t secret_bytes;
    TAILQ_ENTRY(control_object) entry;
};

/* NULL: none. */
struct control_object *control_object_find(struct control *c, const char *id);
/* An iothread by its id; NULL with errp. */
struct control_object *control_iothread_find(struct control *c, const char *id, Error **errp);

/* Start the NBD server. */
int control_nbd_start(struct control *c, const struct qmp_nbd_server_options *args, Error **errp);

/* Limits between QMP and the library. */
void throttle_config_from_qmp(const struct qmp_throttle_limits *limits,
                              struct throttle_config *config);
json_t *throttle_config_to_qmp(const struct throttle_config *config); /* NULL: no memory */

#endif
