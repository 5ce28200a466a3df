/* SPDX-License-Identifier: MIT */
/* Objects that commands make: iothreads, throttle groups, secrets. */
#ifndef PLATTER_CONTROL_OBJECT_H
#define PLATTER_CONTROL_OBJECT_H

#include "control/control.h"
#include "schema/qmp.h"

/* Properties of an iothread. */
enum iothread_setting {
    IOTHREAD_POLL_MAX_NS,
    IOTHREAD_POLL_GROW,
    IOTHREAD_POLL_SHRINK,
    IOTHREAD_AIO_MAX_BATCH,
    IOTHREAD_POOL_MIN,
    IOTHREAD_POOL_MAX,
    IOTHREAD_SETTINGS,
};

struct control_object {
    char *id; /* owned */
    enum qmp_object_type type;
    unsigned users;   /* exports that need it */
    IOThread *thread; /* iothread: owned */
    int64_t settings[IOTHREAD_SETTINGS];
    ThrottleGroup *group; /* throttle-group: a reference */
    char *secret;         /* secret: owned, secret_bytes and a zero behind */
    size_t secret_bytes;
    TAILQ_ENTRY(control_object) entry;
};

/* NULL: none. */
struct control_object *control_object_find(struct control *c, const char *id);
/* An iothread by its id; NULL with errp. */
struct control_object *control_iothread_find(struct control *c, const char *id, Error **errp);

extern const char *const iothread_setting_names[IOTHREAD_SETTINGS];
/* Change one, as it is shown from then on. 0 or -EINVAL. */
int iothread_set(struct control_object *o, enum iothread_setting which, int64_t value,
                 Error **errp);

/* Start the NBD server. */
int control_nbd_start(struct control *c, const struct qmp_nbd_server_options *args, Error **errp);

/* Limits between QMP and the library. */
void throttle_config_from_qmp(const struct qmp_throttle_limits *limits,
                              struct throttle_config *config);
json_t *throttle_config_to_qmp(const struct throttle_config *config); /* NULL: no memory */

#endif
