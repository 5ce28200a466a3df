/* SPDX-License-Identifier: MIT */
/* Objects looked at and changed by path: /objects/ID, or ID. */
#include <errno.h>
#include <string.h>

#include "control/object.h"
#include "control/qmp_type.h"
#include "schema/qmp.h"
#include "util/error.h"
#include "util/json.h"

static const char *const type_names[] = {
    [QMP_OBJECT_TYPE_AUTHZ_LIST] = "authz-list",
    [QMP_OBJECT_TYPE_AUTHZ_SIMPLE] = "authz-simple",
    [QMP_OBJECT_TYPE_IOTHREAD] = "iothread",
    [QMP_OBJECT_TYPE_SECRET] = "secret",
    [QMP_OBJECT_TYPE_THROTTLE_GROUP] = "throttle-group",
    [QMP_OBJECT_TYPE_TLS_CREDS_ANON] = "tls-creds-anon",
    [QMP_OBJECT_TYPE_TLS_CREDS_PSK] = "tls-creds-psk",
    [QMP_OBJECT_TYPE_TLS_CREDS_X509] = "tls-creds-x509",
};
#define TYPE_COUNT (sizeof(type_names) / sizeof(type_names[0]))

static struct control_object *find_path(struct qmp_call *call, const char *path, Error **errp)
{
    static const char folder[] = "/objects/";
    bool absolute = strncmp(path, folder, strlen(folder)) == 0;
    struct control_object *o =
        control_object_find(call->control, absolute ? path + strlen(folder) : path);

    if (!o) {
        call->error_class = QMP_DEVICE_NOT_FOUND;
        error_set(errp, ENODEV, "Device '%s' not found", path);
    }
    return o;
}

/* Members of options as properties, for kinds that show what they were made of. */
static void append_members(json_t *list, const char *type_name, int *ret)
{
    const struct qmp_variant *v = qmp_object_options_type->variants;

    while (strcmp(v->value, type_name) != 0) {
        v++;
    }
    for (const struct qmp_member *m = v->type->members; m->type; m++) {
        const char *name = m->type == &qmp_builtin_str ? "string" : m->type->name;

        json_append(list, json_pack("{s:s, s:s}", "name", m->key, "type", name), ret);
    }
}

static const char *parent_of(const char *type_name)
{
    return strncmp(type_name, "tls-creds-", 10) == 0 ? "tls-creds"
           : strncmp(type_name, "authz-", 6) == 0    ? "authz"
                                                     : "object";
}

/* What a kind of object has; secrets show nothing of theirs. */
static json_t *properties_of(enum qmp_object_type type)
{
    json_t *list = json_array();
    int ret = list ? 0 : -ENOMEM;

    json_append(list, json_pack("{s:s, s:s}", "name", "type", "type", "string"), &ret);
    if (type == QMP_OBJECT_TYPE_IOTHREAD) {
        static const enum iothread_setting order[IOTHREAD_SETTINGS] = {
            IOTHREAD_POOL_MIN,    IOTHREAD_AIO_MAX_BATCH, IOTHREAD_POOL_MAX,
            IOTHREAD_POLL_MAX_NS, IOTHREAD_POLL_GROW,     IOTHREAD_POLL_SHRINK};

        for (size_t i = 0; i < IOTHREAD_SETTINGS; i++) {
            json_append(
                list,
                json_pack("{s:s, s:s}", "name", iothread_setting_names[order[i]], "type", "int"),
                &ret);
        }
    }
    if (strcmp(parent_of(type_names[type]), "object") != 0) {
        append_members(list, type_names[type], &ret);
    }
    if (type == QMP_OBJECT_TYPE_THROTTLE_GROUP) {
        json_append(list, json_pack("{s:s, s:s}", "name", "limits", "type", "ThrottleLimits"),
                    &ret);
    }
    return json_whole(list, ret);
}

static json_t *list_objects(struct control *c)
{
    json_t *list = json_array();
    struct control_object *o;
    int ret = list ? 0 : -ENOMEM;
    char type[40];

    json_append(list, json_pack("{s:s, s:s}", "name", "type", "type", "string"), &ret);
    TAILQ_FOREACH (o, &c->objects, entry) {
        snprintf(type, sizeof(type), "child<%s>", type_names[o->type]);
        json_append(list, json_pack("{s:s, s:s}", "name", o->id, "type", type), &ret);
    }
    return json_whole(list, ret);
}

int qmp_qom_list(struct qmp_call *call, const struct qmp_qom_list *args, json_t **ret_value,
                 Error **errp)
{
    struct control_object *o;

    if (strcmp(args->path, "/objects") == 0) {
        return qmp_give(list_objects(call->control), ret_value, errp);
    }
    if (strcmp(args->path, "/") == 0) {
        return qmp_give(json_pack("[{s:s, s:s}, {s:s, s:s}]", "name", "type", "type", "string",
                                  "name", "objects", "type", "child<container>"),
                        ret_value, errp);
    }
    if (*args->path == '\0') {
        return error_set(errp, EINVAL, "Path '' is ambiguous");
    }
    o = find_path(call, args->path, errp);
    return o ? qmp_give(properties_of(o->type), ret_value, errp) : -ENODEV;
}

static int no_property(struct control_object *o, const char *property, Error **errp)
{
    return error_set(errp, ENOENT, "Property '%s.%s' not found", type_names[o->type], property);
}

/* IOTHREAD_SETTINGS: o has no setting of that name. */
static enum iothread_setting find_setting(const struct control_object *o, const char *property)
{
    int i = o->thread ? 0 : IOTHREAD_SETTINGS;

    while (i < IOTHREAD_SETTINGS && strcmp(iothread_setting_names[i], property) != 0) {
        i++;
    }
    return (enum iothread_setting)i;
}

static int set_setting(struct control_object *o, enum iothread_setting which, const json_t *value,
                       Error **errp)
{
    return json_is_integer(value)
               ? iothread_set(o, which, json_integer_value(value), errp)
               : error_set(errp, EINVAL, "Invalid parameter type for '%s', expected: integer",
                           iothread_setting_names[which]);
}

int qmp_qom_get(struct qmp_call *call, const struct qmp_qom_get *args, json_t **ret_value,
                Error **errp)
{
    struct control_object *o = find_path(call, args->path, errp);
    struct throttle_config config = {.size = sizeof(config)};
    enum iothread_setting which;

    if (!o) {
        return -ENODEV;
    }
    if (strcmp(args->property, "type") == 0) {
        return qmp_give(json_string(type_names[o->type]), ret_value, errp);
    }
    which = find_setting(o, args->property);
    if (which != IOTHREAD_SETTINGS) {
        return qmp_give(json_integer(o->settings[which]), ret_value, errp);
    }
    if (o->shown) {
        json_t *value = json_object_get(o->shown, args->property);

        return value ? qmp_give(json_incref(value), ret_value, errp)
                     : no_property(o, args->property, errp);
    }
    if (o->group) {
        throttle_group_get_config(o->group, &config);
    }
    if (o->group && strncmp(args->property, "x-", 2) == 0) {
        json_t *limits = throttle_config_to_qmp(&config);
        json_t *value = limits ? json_incref(json_object_get(limits, args->property + 2)) : NULL;

        json_decref(limits);
        return value ? qmp_give(value, ret_value, errp) : no_property(o, args->property, errp);
    }
    if (!o->group || strcmp(args->property, "limits") != 0) {
        return no_property(o, args->property, errp);
    }
    return qmp_give(throttle_config_to_qmp(&config), ret_value, errp);
}

int qmp_qom_set(struct qmp_call *call, const struct qmp_qom_set *args, Error **errp)
{
    struct control_object *o = find_path(call, args->path, errp);
    struct throttle_config config = {.size = sizeof(config)};
    struct qmp_throttle_limits limits;
    enum iothread_setting which;
    int ret;

    if (!o) {
        return -ENODEV;
    }
    which = find_setting(o, args->property);
    if (which != IOTHREAD_SETTINGS) {
        return set_setting(o, which, args->value, errp);
    }
    if (o->shown && json_object_get(o->shown, args->property)) {
        return error_set(errp, EPERM, "Property '%s' of object '%s' cannot be changed",
                         args->property, o->id);
    }
    if (!o->group || strcmp(args->property, "limits") != 0) {
        return no_property(o, args->property, errp);
    }
    ret = qmp_parse(qmp_throttle_limits_type, args->value, &limits, errp);
    if (ret < 0) {
        return ret;
    }
    throttle_group_get_config(o->group, &config); /* what is not given stays */
    ret = throttle_config_from_qmp(&limits, &config, errp);
    return ret < 0 ? ret : throttle_group_set_config(o->group, &config, errp);
}

int qmp_qom_list_types(struct qmp_call *call, const struct qmp_qom_list_types *args,
                       json_t **ret_value, Error **errp)
{
    json_t *list = json_array();
    int ret = list ? 0 : -ENOMEM;

    for (size_t i = 0; i < TYPE_COUNT; i++) {
        const char *parent = parent_of(type_names[i]);

        if (!args->has_implements || strcmp(args->implements, "object") == 0 ||
            strcmp(args->implements, parent) == 0 || strcmp(args->implements, type_names[i]) == 0) {
            json_append(list, json_pack("{s:s, s:s}", "name", type_names[i], "parent", parent),
                        &ret);
        }
    }
    return qmp_give(json_whole(list, ret), ret_value, errp);
}

int qmp_qom_list_properties(struct qmp_call *call, const struct qmp_qom_list_properties *args,
                            json_t **ret_value, Error **errp)
{
    for (size_t i = 0; i < TYPE_COUNT; i++) {
        if (strcmp(args->typename, type_names[i]) == 0) {
            return qmp_give(properties_of((enum qmp_object_type)i), ret_value, errp);
        }
    }
    call->error_class = QMP_DEVICE_NOT_FOUND;
    return error_set(errp, ENODEV, "Class '%s' not found", args->typename);
}

int qmp_query_iothreads(struct qmp_call *call, json_t **ret_value, Error **errp)
{
    json_t *list = json_array();
    struct control_object *o;
    int ret = list ? 0 : -ENOMEM;

    TAILQ_FOREACH (o, &call->control->objects, entry) {
        if (o->thread) {
            json_append(list,
                        json_pack("{s:s, s:I, s:I, s:I, s:I, s:I}", "id", o->id, "thread-id",
                                  (json_int_t)iothread_get_id(o->thread), "poll-max-ns",
                                  (json_int_t)o->settings[IOTHREAD_POLL_MAX_NS], "poll-grow",
                                  (json_int_t)o->settings[IOTHREAD_POLL_GROW], "poll-shrink",
                                  (json_int_t)o->settings[IOTHREAD_POLL_SHRINK], "aio-max-batch",
                                  (json_int_t)o->settings[IOTHREAD_AIO_MAX_BATCH]),
                        &ret);
        }
    }
    return qmp_give(json_whole(list, ret), ret_value, errp);
}
