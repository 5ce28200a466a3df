/* SPDX-License-Identifier: MIT */
/* Objects that commands make: iothreads, throttle groups, secrets, credentials and rules of TLS. */
#ifndef PLATTER_CONTROL_OBJECT_H
#define PLATTER_CONTROL_OBJECT_H

#include <platter/tls.h>

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
    TlsCreds *creds; /* tls-creds-*: a reference */
    TlsAuthz *authz; /* authz-*: a reference */
    json_t *shown;   /* of the last two: owned; their properties, which do not change */
    TAILQ_ENTRY(control_object) entry;
};

/* NULL: none. */
struct control_object *control_object_find(struct control *c, const char *id);
/* An iothread by its id; NULL with errp. */
struct control_object *control_iothread_find(struct control *c, const char *id, Error **errp);

/* object_secret.c: a secret by its id; NULL with errp. */
struct control_object *control_secret_find(struct control *c, const char *id, Error **errp);
int control_secret_init(struct control *c, struct control_object *o,
                        const struct qmp_secret_properties *props, Error **errp);
/* object_tls.c: make what an object is. 0 or -errno. */
int control_x509_init(struct control *c, struct control_object *o,
                      const struct qmp_tls_creds_x509_properties *props, Error **errp);
int control_psk_init(struct control *c, struct control_object *o,
                     const struct qmp_tls_creds_psk_properties *props, Error **errp);
int control_anon_init(struct control *c, struct control_object *o,
                      const struct qmp_tls_creds_anon_properties *props, Error **errp);
int control_authz_simple_init(struct control *c, struct control_object *o,
                              const struct qmp_auth_zsimple_properties *props, Error **errp);
int control_authz_list_init(struct control *c, struct control_object *o,
                            const struct qmp_auth_zlist_properties *props, Error **errp);

extern const char *const iothread_setting_names[IOTHREAD_SETTINGS];
/* Change one, as it is shown from then on. 0 or -EINVAL. */
int iothread_set(struct control_object *o, enum iothread_setting which, int64_t value,
                 Error **errp);

/* Start the NBD server. */
int control_nbd_start(struct control *c, const struct qmp_nbd_server_options *args, Error **errp);

/* Limits between QMP and the library. */
/* Those given into *config, the whole checked. 0 or -errno. */
int throttle_config_from_qmp(const struct qmp_throttle_limits *limits,
                             struct throttle_config *config, Error **errp);
json_t *throttle_config_to_qmp(const struct throttle_config *config); /* NULL: no memory */

#endif
