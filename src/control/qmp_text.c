/* SPDX-License-Identifier: MIT */
/* Arguments of a command line, where every value is text, become what the schema says. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/qmp_type.h"
#include "util/error.h"
#include "util/json.h"
#include "util/size.h"

static int convert(const struct qmp_type *type, bool is_list, const char *key, json_t *holder,
                   json_t *value, Error **errp);

/* Put value (owned; NULL: no memory) in place of key. */
static int replace(json_t *holder, const char *key, json_t *value, Error **errp)
{
    if (!value || json_object_set_new_nocheck(holder, key, value) < 0) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    return 0;
}

static json_t *number_from_text(const struct qmp_type *type, const char *text)
{
    uint64_t u;
    char *end;

    if (type->kind == QMP_KIND_NUMBER) {
        double d = strtod(text, &end);

        return *text && !*end ? json_real(d) : NULL;
    }
    if (size_parse(text, 'b', "", &u, NULL) == 0) {
        return json_u64(u);
    }
    if (*text == '-' && size_parse(text + 1, 'b', "", &u, NULL) == 0 && u <= INT64_MAX) {
        return json_integer(-(json_int_t)u);
    }
    return NULL;
}

/* Members that are not known stay for qmp_parse to name. */
static int convert_members(const struct qmp_type *type, json_t *object, Error **errp)
{
    int rc = 0;

    for (const struct qmp_member *m = type->members; m->type && rc == 0; m++) {
        json_t *value = json_object_get(object, m->key);

        if (value) {
            rc = convert(m->type, m->is_list, m->key, object, value, errp);
        }
    }
    if (rc == 0 && type->tag && type->kind == QMP_KIND_STRUCT) {
        const char *tag = json_string_value(json_object_get(object, type->tag));

        for (const struct qmp_variant *v = type->variants; tag && v->value && rc == 0; v++) {
            if (strcmp(v->value, tag) == 0) {
                rc = convert_members(v->type, object, errp);
            }
        }
    }
    return rc;
}

/* {"0": a, "1": b} is the list [a, b]; a value alone is a list of one. */
static int convert_list(const struct qmp_type *element, const char *key, json_t *holder,
                        json_t *value, Error **errp)
{
    json_t *list = json_array();
    json_t *item;
    char index[24];
    int rc = 0;

    if (!list) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    if (!json_is_object(value)) {
        rc = json_array_append(list, value) < 0 ? error_set(errp, ENOMEM, "out of memory") : 0;
    }
    for (size_t i = 0; rc == 0 && json_is_object(value) && i < json_object_size(value); i++) {
        snprintf(index, sizeof(index), "%zu", i);
        item = json_object_get(value, index);
        if (!item) {
            rc = error_set(errp, EINVAL, "Parameter '%s.%s' missing", key, index);
            break;
        }
        rc = convert(element, false, index, value, item, errp);
        item = json_object_get(value, index);
        if (rc == 0 && json_array_append(list, item) < 0) {
            rc = error_set(errp, ENOMEM, "out of memory");
        }
    }
    if (rc < 0) {
        json_decref(list);
        return rc;
    }
    return replace(holder, key, list, errp);
}

static int convert(const struct qmp_type *type, bool is_list, const char *key, json_t *holder,
                   json_t *value, Error **errp)
{
    const char *text = json_string_value(value);
    json_t *made = NULL;

    if (is_list) {
        return json_is_array(value) ? 0 : convert_list(type, key, holder, value, errp);
    }
    switch (type->kind) {
    case QMP_KIND_STRUCT:
        return json_is_object(value) ? convert_members(type, value, errp) : 0;
    case QMP_KIND_BOOL:
        if (text && (strcmp(text, "on") == 0 || strcmp(text, "off") == 0)) {
            made = json_boolean(strcmp(text, "on") == 0);
        } else if (text) {
            return error_set(errp, EINVAL, "Parameter '%s' expects 'on' or 'off'", key);
        }
        break;
    case QMP_KIND_INT:
    case QMP_KIND_UINT:
    case QMP_KIND_UINT32:
    case QMP_KIND_SIZE:
    case QMP_KIND_NUMBER:
        made = text ? number_from_text(type, text) : NULL;
        if (text && !made) {
            return error_set(errp, EINVAL, "Parameter '%s' expects %s", key,
                             type->kind == QMP_KIND_NUMBER ? "a number" : "integer");
        }
        break;
    default:
        break;
    }
    return made ? replace(holder, key, made, errp) : 0;
}

int qmp_from_text(const struct qmp_type *type, json_t *object, Error **errp)
{
    return convert_members(type, object, errp);
}
