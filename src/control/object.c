/* SPDX-License-Identifier: MIT */
/* Making and ending objects. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <gnutls/gnutls.h>

#include "block/instance.h"
#include "control/object.h"
#include "control/parts.h"
#include "util/error.h"
#include "util/json.h"
#include "util/size.h"

struct control_object *control_object_find(struct control *c, const char *id)
{
    struct control_object *o;

    TAILQ_FOREACH (o, &c->objects, entry) {
        if (strcmp(o->id, id) == 0) {
            return o;
        }
    }
    return NULL;
}

struct control_object *control_iothread_find(struct control *c, const char *id, Error **errp)
{
    struct control_object *o = control_object_find(c, id);

    if (!o || o->type != QMP_OBJECT_TYPE_IOTHREAD) {
        error_set(errp, ENOENT, "iothread \"%s\" not found", id);
        return NULL;
    }
    return o;
}

/* ---- limits ---- */

struct limit_row {
    enum throttle_bucket_id id;
    const char *key; /* of the three members in a row: KEY, KEY-max, KEY-max-length */
    size_t has[3];   /* in struct qmp_throttle_limits */
    size_t at[3];
    size_t x_has[3]; /* the same, with x- in front, in struct qmp_throttle_group_properties */
    size_t x_at[3];
};

#define LIMIT_AT(name) offsetof(struct qmp_throttle_limits, name)
#define X_LIMIT_AT(name) offsetof(struct qmp_throttle_group_properties, name)
#define LIMIT_ROW(bucket, text, name)                                                              \
    {                                                                                              \
        bucket, text,                                                                              \
            {LIMIT_AT(has_##name), LIMIT_AT(has_##name##_max), LIMIT_AT(has_##name##_max_length)}, \
            {LIMIT_AT(name), LIMIT_AT(name##_max), LIMIT_AT(name##_max_length)},                   \
            {X_LIMIT_AT(has_x_##name), X_LIMIT_AT(has_x_##name##_max),                             \
             X_LIMIT_AT(has_x_##name##_max_length)},                                               \
            {X_LIMIT_AT(x_##name), X_LIMIT_AT(x_##name##_max), X_LIMIT_AT(x_##name##_max_length)}, \
    }

static const struct limit_row limit_rows[THROTTLE_BUCKETS] = {
    LIMIT_ROW(THROTTLE_OPS_TOTAL, "iops-total", iops_total),
    LIMIT_ROW(THROTTLE_OPS_READ, "iops-read", iops_read),
    LIMIT_ROW(THROTTLE_OPS_WRITE, "iops-write", iops_write),
    LIMIT_ROW(THROTTLE_BPS_TOTAL, "bps-total", bps_total),
    LIMIT_ROW(THROTTLE_BPS_READ, "bps-read", bps_read),
    LIMIT_ROW(THROTTLE_BPS_WRITE, "bps-write", bps_write),
};

static const char no_length_text[] = "the burst length cannot be 0";

static uint64_t *limit_field(struct throttle_limit *limit, int which)
{
    return which == 0 ? &limit->avg : which == 1 ? &limit->max : &limit->max_length_s;
}

/* One value of a limit. *ret_none: set where a burst length is 0. 0, or -ERANGE of such a length.
 */
static int limit_take(const struct limit_row *row, int which, int64_t value,
                      struct throttle_config *config, bool *ret_none)
{
    *ret_none = *ret_none || (which == 2 && value == 0);
    *limit_field(&config->limits[row->id], which) = (uint64_t)value;
    return which == 2 && value > UINT32_MAX ? -ERANGE : 0;
}

static int too_long(const char *before, const struct limit_row *row, Error **errp)
{
    return error_set(errp, ERANGE, "%s%s-max-length value must be in the range [0, %u]", before,
                     row->key, UINT32_MAX);
}

int throttle_config_from_qmp(const struct qmp_throttle_limits *limits,
                             struct throttle_config *config, Error **errp)
{
    const char *base = (const char *)limits;
    bool no_length = false;
    int ret;

    for (size_t i = 0; i < THROTTLE_BUCKETS; i++) {
        const struct limit_row *row = &limit_rows[i];

        for (int which = 0; which < 3; which++) {
            if (*(const bool *)(base + row->has[which]) &&
                limit_take(row, which, *(const int64_t *)(base + row->at[which]), config,
                           &no_length) < 0) {
                return too_long("", row, errp);
            }
        }
    }
    if (limits->has_iops_size) {
        config->ops_unit_bytes = (uint64_t)limits->iops_size;
    }
    ret = throttle_config_check(config, errp);
    return ret == 0 && no_length ? error_set(errp, EINVAL, no_length_text) : ret;
}

json_t *throttle_config_to_qmp(const struct throttle_config *config)
{
    static const char *const behind[] = {"", "-max", "-max-length"};
    json_t *object = json_object();
    int ret = object ? 0 : -ENOMEM;
    char key[32];

    for (size_t i = 0; i < THROTTLE_BUCKETS; i++) {
        struct throttle_limit limit = config->limits[limit_rows[i].id];

        limit.max_length_s = limit.max_length_s ? limit.max_length_s : 1;
        for (int which = 0; which < 3; which++) {
            snprintf(key, sizeof(key), "%s%s", limit_rows[i].key, behind[which]);
            json_add(object, key, json_u64(*limit_field(&limit, which)), &ret);
        }
    }
    json_add(object, "iops-size", json_u64(config->ops_unit_bytes), &ret);
    return json_whole(object, ret);
}

/* ---- kinds of objects ---- */

static void object_free(struct control_object *o)
{
    iothread_free(o->thread);
    throttle_group_unref(o->group);
    tls_creds_unref(o->creds);
    tls_authz_unref(o->authz);
    json_decref(o->shown);
    if (o->secret) {
        gnutls_memset(o->secret, 0, o->secret_bytes);
        free(o->secret);
    }
    free(o->id);
    free(o);
}

/* Limits of a group in its older spelling, which are signed there; limits= is stronger. */
static int x_limits_take(const struct qmp_throttle_group_properties *props,
                         struct throttle_config *config, Error **errp)
{
    const char *base = (const char *)props;
    bool negative = props->has_x_iops_size && props->x_iops_size < 0;
    const struct limit_row *long_row = NULL;
    bool no_length = false;

    for (size_t i = 0; i < THROTTLE_BUCKETS; i++) {
        const struct limit_row *row = &limit_rows[i];

        for (int which = 0; which < 3; which++) {
            int64_t value = *(const int64_t *)(base + row->x_at[which]);

            if (*(const bool *)(base + row->x_has[which])) {
                negative = negative || value < 0;
                if (limit_take(row, which, value, config, &no_length) < 0) {
                    long_row = row;
                }
            }
        }
    }
    if (negative) {
        return error_set(errp, EINVAL, "Property values cannot be negative");
    }
    if (long_row || no_length) {
        return long_row ? too_long("x-", long_row, errp) : error_set(errp, EINVAL, no_length_text);
    }
    if (props->has_x_iops_size) {
        config->ops_unit_bytes = (uint64_t)props->x_iops_size;
    }
    return 0;
}

static int group_init(struct control *c, struct control_object *o,
                      const struct qmp_throttle_group_properties *props, Error **errp)
{
    struct throttle_config config = {.size = sizeof(config)};
    int ret = x_limits_take(props, &config, errp);

    if (ret == 0) {
        ret = props->has_limits ? throttle_config_from_qmp(&props->limits, &config, errp)
                                : throttle_config_check(&config, errp);
    }
    if (ret < 0) {
        return ret;
    }
    o->group = throttle_group_get(c->pl, o->id, errp);
    return o->group ? throttle_group_set_config(o->group, &config, errp) : -ENOMEM;
}

/* ---- iothreads ---- */

#define POOL_MAX_DEFAULT 64
#define WORKERS_MAX 256 /* of one context */

const char *const iothread_setting_names[IOTHREAD_SETTINGS] = {
    [IOTHREAD_POLL_MAX_NS] = "poll-max-ns",  [IOTHREAD_POLL_GROW] = "poll-grow",
    [IOTHREAD_POLL_SHRINK] = "poll-shrink",  [IOTHREAD_AIO_MAX_BATCH] = "aio-max-batch",
    [IOTHREAD_POOL_MIN] = "thread-pool-min", [IOTHREAD_POOL_MAX] = "thread-pool-max",
};

/* The order in which the reference looks at them. */
static const enum iothread_setting check_order[IOTHREAD_SETTINGS] = {
    IOTHREAD_POLL_SHRINK, IOTHREAD_AIO_MAX_BATCH, IOTHREAD_POLL_GROW,
    IOTHREAD_POOL_MAX,    IOTHREAD_POOL_MIN,      IOTHREAD_POLL_MAX_NS,
};

static int pool_check(const int64_t *settings, Error **errp)
{
    int64_t min = settings[IOTHREAD_POOL_MIN], max = settings[IOTHREAD_POOL_MAX];

    return max == 0 || max > INT_MAX || min > max
               ? error_set(errp, EINVAL, "bad thread-pool-min/thread-pool-max values")
               : 0;
}

static int setting_check(enum iothread_setting which, int64_t value, Error **errp)
{
    return value < 0 ? error_set(errp, EINVAL, "%s value must be in range [0, %" PRId64 "]",
                                 iothread_setting_names[which], INT64_MAX)
                     : 0;
}

int iothread_set(struct control_object *o, enum iothread_setting which, int64_t value, Error **errp)
{
    int64_t next[IOTHREAD_SETTINGS];
    int ret = setting_check(which, value, errp);

    memcpy(next, o->settings, sizeof(next));
    next[which] = value;
    if (ret == 0 && (which == IOTHREAD_POOL_MIN || which == IOTHREAD_POOL_MAX)) {
        ret = pool_check(next, errp);
    }
    if (ret == 0) {
        o->settings[which] = value;
    }
    return ret;
}

static int thread_init(struct control_object *o, const struct qmp_iothread_properties *props,
                       Error **errp)
{
    const struct {
        bool has;
        int64_t value;
    } given[IOTHREAD_SETTINGS] = {
        [IOTHREAD_POLL_MAX_NS] = {props->has_poll_max_ns, props->poll_max_ns},
        [IOTHREAD_POLL_GROW] = {props->has_poll_grow, props->poll_grow},
        [IOTHREAD_POLL_SHRINK] = {props->has_poll_shrink, props->poll_shrink},
        [IOTHREAD_AIO_MAX_BATCH] = {props->has_aio_max_batch, props->aio_max_batch},
        [IOTHREAD_POOL_MIN] = {props->has_thread_pool_min, props->thread_pool_min},
        [IOTHREAD_POOL_MAX] = {props->has_thread_pool_max, props->thread_pool_max},
    };
    struct aio_context_options options = {.size = sizeof(options)};

    o->settings[IOTHREAD_POOL_MAX] = POOL_MAX_DEFAULT;
    for (int i = 0; i < IOTHREAD_SETTINGS; i++) {
        const enum iothread_setting which = check_order[i];

        if (given[which].has) {
            if (setting_check(which, given[which].value, errp) < 0) {
                return -EINVAL;
            }
            o->settings[which] = given[which].value;
        }
    }
    if (pool_check(o->settings, errp) < 0) {
        return -EINVAL;
    }
    options.worker_threads_max =
        (unsigned)(o->settings[IOTHREAD_POOL_MAX] < WORKERS_MAX ? o->settings[IOTHREAD_POOL_MAX]
                                                                : WORKERS_MAX);
    if (!props->has_thread_pool_max) {
        options.worker_threads_max = 0; /* the usual number, below that maximum */
    }
    o->thread = iothread_new(o->id, &options, errp);
    return o->thread ? 0 : -EAGAIN;
}

static int object_init(struct control *c, struct control_object *o,
                       const struct qmp_object_options *args, Error **errp)
{
    switch (o->type) {
    case QMP_OBJECT_TYPE_AUTHZ_LIST:
        return control_authz_list_init(c, o, &args->u.authz_list, errp);
    case QMP_OBJECT_TYPE_AUTHZ_SIMPLE:
        return control_authz_simple_init(c, o, &args->u.authz_simple, errp);
    case QMP_OBJECT_TYPE_IOTHREAD:
        return c->objects_only ? error_set(errp, EINVAL, "invalid object type: iothread")
                               : thread_init(o, &args->u.iothread, errp);
    case QMP_OBJECT_TYPE_SECRET:
        return control_secret_init(c, o, &args->u.secret, errp);
    case QMP_OBJECT_TYPE_THROTTLE_GROUP:
        return group_init(c, o, &args->u.throttle_group, errp);
    case QMP_OBJECT_TYPE_TLS_CREDS_ANON:
        return control_anon_init(c, o, &args->u.tls_creds_anon, errp);
    case QMP_OBJECT_TYPE_TLS_CREDS_PSK:
        return control_psk_init(c, o, &args->u.tls_creds_psk, errp);
    case QMP_OBJECT_TYPE_TLS_CREDS_X509:
        return control_x509_init(c, o, &args->u.tls_creds_x509, errp);
    }
    return -EINVAL;
}

static bool has_object(void *objects, const char *id)
{
    return control_object_find(objects, id) != NULL;
}

int qmp_object_add(struct qmp_call *call, const struct qmp_object_options *args, Error **errp)
{
    struct control *c = call->control;
    struct control_object *o;
    int ret;

    if (id_check(args->id, errp) < 0) {
        return -EINVAL;
    }
    if (control_object_find(c, args->id)) {
        return error_set(errp, EEXIST,
                         "attempt to add duplicate property '%s' to object (type 'container')",
                         args->id);
    }
    o = calloc(1, sizeof(*o));
    if (!o || !(o->id = strdup(args->id))) {
        free(o);
        return error_set(errp, ENOMEM, "out of memory");
    }
    o->type = args->qom_type;
    ret = object_init(c, o, args, errp);
    if (ret < 0) {
        object_free(o);
        return ret;
    }
    TAILQ_INSERT_TAIL(&c->objects, o, entry);
    c->pl->has_object = has_object;
    c->pl->objects = c;
    return 0;
}

int qmp_object_del(struct qmp_call *call, const struct qmp_object_del *args, Error **errp)
{
    struct control_object *o = control_object_find(call->control, args->id);

    if (!o) {
        return error_set(errp, ENOENT, "object '%s' not found", args->id);
    }
    if (o->users > 0 || (o->group && throttle_group_is_shared(o->group)) ||
        (o->creds && tls_creds_is_shared(o->creds)) ||
        (o->authz && tls_authz_is_shared(o->authz))) {
        return error_set(errp, EBUSY, "object '%s' is in use, can not be deleted", args->id);
    }
    TAILQ_REMOVE(&call->control->objects, o, entry);
    object_free(o);
    return 0;
}

void control_objects_end(struct control *c)
{
    struct control_object *o;

    c->pl->has_object = NULL;
    while ((o = TAILQ_FIRST(&c->objects)) != NULL) {
        TAILQ_REMOVE(&c->objects, o, entry);
        object_free(o);
    }
}
