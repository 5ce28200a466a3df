/* SPDX-License-Identifier: MIT */
/* JSON values against the tables of the schema. The texts of errors are the ones QMP clients know.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control/qmp_type.h"
#include "util/error.h"
#include "util/json.h"
#include "util/json_print.h"
#include "util/size.h"

#define PATH_BYTES 256

const struct qmp_type qmp_builtin_str = {.name = "str", .kind = QMP_KIND_STR};
const struct qmp_type qmp_builtin_bool = {.name = "bool", .kind = QMP_KIND_BOOL};
const struct qmp_type qmp_builtin_int = {.name = "int", .kind = QMP_KIND_INT};
const struct qmp_type qmp_builtin_uint = {.name = "int", .kind = QMP_KIND_UINT};
const struct qmp_type qmp_builtin_uint32 = {.name = "int", .kind = QMP_KIND_UINT32};
const struct qmp_type qmp_builtin_size = {.name = "int", .kind = QMP_KIND_SIZE};
const struct qmp_type qmp_builtin_number = {.name = "number", .kind = QMP_KIND_NUMBER};
const struct qmp_type qmp_builtin_null = {.name = "null", .kind = QMP_KIND_NULL};
const struct qmp_type qmp_builtin_any = {.name = "any", .kind = QMP_KIND_ANY};

/* Where in the arguments something is, from the outside in. */
struct place {
    const struct place *outer; /* NULL: the arguments themselves */
    const char *key;           /* NULL: element `index` of a list */
    size_t index;
    bool from_text; /* every value is text, and becomes in place what its type says */
};

static int check_value(const struct place *at, const struct qmp_type *type, json_t *value,
                       void *ret, Error **errp);

/* "addr.data.path", "bitmaps[1].name", of a command line "bitmaps.1.name"; "null" for the whole.
 * Long names end early. */
static size_t place_text(const struct place *at, char *text, size_t bytes)
{
    size_t used;
    int n;

    if (!at->outer) {
        text[0] = '\0';
        return 0;
    }
    used = place_text(at->outer, text, bytes);
    if (at->key) {
        n = snprintf(text + used, bytes - used, "%s%s", used ? "." : "", at->key);
    } else {
        n = snprintf(text + used, bytes - used, at->from_text ? ".%zu" : "[%zu]", at->index);
    }
    return used + (size_t)n < bytes ? used + (size_t)n : bytes - 1;
}

static const char *place_name(const struct place *at, char *text)
{
    return place_text(at, text, PATH_BYTES) ? text : "null";
}

/* Of some faults the innermost name alone is told: that of a member, or where an element is. */
static const char *inner_name(const struct place *at, char *text)
{
    return at->key ? at->key : place_name(at, text);
}

static int wrong_type(const struct place *at, const char *expected, Error **errp)
{
    char path[PATH_BYTES];

    return error_set(errp, EINVAL, "Invalid parameter type for '%s', expected: %s",
                     place_name(at, path), expected);
}

/* ---- text ---- */

static bool is_scalar(enum qmp_kind kind)
{
    return kind <= QMP_KIND_NUMBER || kind == QMP_KIND_ENUM;
}

/* What stands at at in holder becomes what the type says; *value is changed with it. */
static int take_text(const struct place *at, const struct qmp_type *type, json_t *holder,
                     json_t **value, Error **errp)
{
    const char *text = json_string_value(*value);
    char path[PATH_BYTES];
    json_t *made = NULL;
    int rc;

    if (!is_scalar(type->kind)) {
        return 0;
    }
    if (!text) {
        return error_set(errp, EINVAL, "Parameters '%s.*' are unexpected", place_name(at, path));
    }
    rc = qmp_scalar_from_text(type->kind, text, place_name(at, path), &made, errp);
    if (rc < 0 || !made) {
        return rc;
    }
    rc = at->key ? json_object_set_new_nocheck(holder, at->key, made)
                 : json_array_set_new(holder, at->index, made);
    *value = made;
    return rc < 0 ? error_set(errp, ENOMEM, "out of memory") : 0;
}

/* ---- scalars ---- */

static int check_str(const struct place *at, json_t *value, const char **ret, Error **errp)
{
    char path[PATH_BYTES];

    if (!json_is_string(value)) {
        return wrong_type(at, "string", errp);
    }
    if (strlen(json_string_value(value)) != json_string_length(value)) {
        return error_set(errp, EINVAL, "Parameter '%s' has a zero character in it",
                         place_name(at, path));
    }
    *ret = json_string_value(value);
    return 0;
}

static int check_int(const struct place *at, const struct qmp_type *type, json_t *value, void *ret,
                     Error **errp)
{
    char path[PATH_BYTES];
    uint64_t u = 0;

    /* Above INT64_MAX the tokenizer gives text; only what is unsigned takes it. */
    if (!json_is_integer(value) &&
        (type->kind == QMP_KIND_INT || !json_get_u64(value, &u) || u <= INT64_MAX)) {
        return type->kind == QMP_KIND_UINT || type->kind == QMP_KIND_UINT32
                   ? error_set(errp, EINVAL, "Parameter '%s' expects uint64", place_name(at, path))
                   : wrong_type(at, "integer", errp);
    }
    if (type->kind == QMP_KIND_INT) {
        *(int64_t *)ret = json_integer_value(value);
        return 0;
    }
    if (!json_get_u64(value, &u) || (type->kind == QMP_KIND_UINT32 && u > UINT32_MAX)) {
        return error_set(errp, EINVAL, "Parameter '%s' expects uint%s_t", inner_name(at, path),
                         type->kind == QMP_KIND_UINT32 ? "32" : "64");
    }
    if (type->kind == QMP_KIND_UINT32) {
        *(uint32_t *)ret = (uint32_t)u;
    } else {
        *(uint64_t *)ret = u;
    }
    return 0;
}

static int check_enum(const struct place *at, const struct qmp_type *type, json_t *value, int *ret,
                      Error **errp)
{
    const char *word = NULL;
    char path[PATH_BYTES];
    int rc = check_str(at, value, &word, errp);

    if (rc < 0) {
        return rc;
    }
    for (int i = 0; type->words[i]; i++) {
        if (strcmp(type->words[i], word) == 0) {
            *ret = i;
            return 0;
        }
    }
    return error_set(errp, EINVAL, "Parameter '%s' does not accept value '%s'",
                     inner_name(at, path), word);
}

/* ---- objects ---- */

const struct qmp_type *qmp_find_variant(const struct qmp_type *type, const char *value)
{
    for (const struct qmp_variant *v = type->variants; v && v->value; v++) {
        if (strcmp(v->value, value) == 0) {
            return v->type;
        }
    }
    return NULL;
}

static const struct qmp_member *find_member(const struct qmp_type *type, const char *key)
{
    for (const struct qmp_member *m = type->members; m->type; m++) {
        if (strcmp(m->key, key) == 0) {
            return m;
        }
    }
    return NULL;
}

/* Whether a struct, or the variant that is chosen in it, has the member. */
static const struct qmp_member *find_member_deep(const struct qmp_type *type, json_t *object,
                                                 const char *key)
{
    const struct qmp_member *m = find_member(type, key);
    const char *tag = type->tag ? json_string_value(json_object_get(object, type->tag)) : NULL;
    const struct qmp_type *variant = tag ? qmp_find_variant(type, tag) : NULL;

    return m ? m : variant ? find_member_deep(variant, object, key) : NULL;
}

static int check_list(const struct place *at, const struct qmp_type *element, json_t *value,
                      Error **errp)
{
    size_t i;
    json_t *item;

    if (!json_is_array(value)) {
        return wrong_type(at, "array", errp);
    }
    json_array_foreach(value, i, item)
    {
        struct place inner = {.outer = at, .index = i, .from_text = at->from_text};
        int rc = at->from_text ? take_text(&inner, element, value, &item, errp) : 0;

        rc = rc == 0 ? check_value(&inner, element, item, NULL, errp) : rc;
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

/* Members of type (not those that are not known) out of object into the struct at ret, which may be
 * NULL: checked alone. */
static int check_members(const struct place *at, const struct qmp_type *type, json_t *object,
                         char *ret, Error **errp)
{
    for (const struct qmp_member *m = type->members; m->type; m++) {
        struct place inner = {.outer = at, .key = m->key, .from_text = at->from_text};
        json_t *value = json_object_get(object, m->key);
        char path[PATH_BYTES];
        int rc = 0;

        if (ret && m->optional) {
            *(bool *)(ret + m->has_at) = value != NULL;
        }
        if (!value && m->optional) {
            continue;
        }
        if (!value) {
            return error_set(errp, EINVAL, "Parameter '%s' is missing", place_name(&inner, path));
        }
        if (at->from_text && !m->is_list) {
            rc = take_text(&inner, m->type, object, &value, errp);
        }
        if (rc < 0) {
            return rc;
        }
        if (m->is_list) {
            rc = check_list(&inner, m->type, value, errp);
            if (rc == 0 && ret) {
                *(json_t **)(ret + m->at) = value;
            }
        } else {
            rc = check_value(&inner, m->type, value, ret ? ret + m->at : NULL, errp);
        }
        if (rc < 0) {
            return rc;
        }
    }
    if (type->tag) {
        const char *tag = json_string_value(json_object_get(object, type->tag));
        const struct qmp_type *variant = tag ? qmp_find_variant(type, tag) : NULL;

        return variant ? check_members(at, variant, object,
                                       ret && variant->bytes ? ret + type->variants_at : NULL, errp)
                       : 0;
    }
    return 0;
}

static int check_struct(const struct place *at, const struct qmp_type *type, json_t *object,
                        char *ret, Error **errp)
{
    const char *unexpected = NULL;
    const char *key;
    json_t *value;
    int rc;

    if (!json_is_object(object)) {
        return wrong_type(at, "object", errp);
    }
    if (ret) {
        memset(ret, 0, type->bytes);
    }
    rc = check_members(at, type, object, ret, errp);
    if (rc < 0) {
        return rc;
    }
    json_object_foreach(object, key, value)
    {
        if (!find_member_deep(type, object, key) &&
            (!unexpected || json_key_before(key, unexpected))) {
            unexpected = key;
        }
    }
    if (unexpected) {
        struct place inner = {.outer = at, .key = unexpected, .from_text = at->from_text};
        char path[PATH_BYTES];

        return error_set(errp, EINVAL, "Parameter '%s' is unexpected", place_name(&inner, path));
    }
    return 0;
}

/* ---- one of several ---- */

static bool kind_takes(const struct qmp_type *type, json_t *value)
{
    switch (type->kind) {
    case QMP_KIND_STR:
    case QMP_KIND_ENUM:
        return json_is_string(value);
    case QMP_KIND_BOOL:
        return json_is_boolean(value);
    case QMP_KIND_INT:
    case QMP_KIND_UINT:
    case QMP_KIND_UINT32:
    case QMP_KIND_SIZE:
        return json_is_integer(value);
    case QMP_KIND_NUMBER:
        return json_is_number(value);
    case QMP_KIND_NULL:
        return json_is_null(value);
    case QMP_KIND_STRUCT:
    case QMP_KIND_OPTIONS:
        return json_is_object(value);
    case QMP_KIND_ANY:
    case QMP_KIND_ALTERNATE:
        return true;
    }
    return false;
}

static int check_alternate(const struct place *at, const struct qmp_type *type, json_t *value,
                           Error **errp)
{
    char path[PATH_BYTES];

    for (const struct qmp_member *m = type->members; m->type; m++) {
        if (kind_takes(m->type, value)) {
            return check_value(at, m->type, value, NULL, errp);
        }
    }
    return error_set(errp, EINVAL, "Invalid parameter type for '%s', expected: %s",
                     inner_name(at, path), type->name);
}

static int check_value(const struct place *at, const struct qmp_type *type, json_t *value,
                       void *ret, Error **errp)
{
    union {
        const char *str;
        uint64_t number;
        int word;
    } scratch;
    int rc = 0;

    switch (type->kind) {
    case QMP_KIND_STR:
        return check_str(at, value, ret ? ret : &scratch.str, errp);
    case QMP_KIND_BOOL:
        if (!json_is_boolean(value)) {
            return wrong_type(at, "boolean", errp);
        }
        if (ret) {
            *(bool *)ret = json_is_true(value);
        }
        return 0;
    case QMP_KIND_INT:
    case QMP_KIND_UINT:
    case QMP_KIND_UINT32:
    case QMP_KIND_SIZE:
        return check_int(at, type, value, ret ? ret : &scratch, errp);
    case QMP_KIND_NUMBER:
        if (!json_is_number(value)) {
            return wrong_type(at, "number", errp);
        }
        if (ret) {
            *(double *)ret = json_number_value(value);
        }
        return 0;
    case QMP_KIND_ENUM:
        return check_enum(at, type, value, ret ? ret : &scratch.word, errp);
    case QMP_KIND_STRUCT:
        return check_struct(at, type, value, ret, errp);
    case QMP_KIND_NULL:
        rc = json_is_null(value) ? 0 : wrong_type(at, "null", errp);
        break;
    case QMP_KIND_OPTIONS:
        rc = check_struct(at, type, value, NULL, errp);
        break;
    case QMP_KIND_ALTERNATE:
        rc = check_alternate(at, type, value, errp);
        break;
    case QMP_KIND_ANY:
        break;
    }
    if (rc == 0 && ret) {
        *(json_t **)ret = value;
    }
    return rc;
}

int qmp_parse(const struct qmp_type *type, json_t *object, void *ret, Error **errp)
{
    struct place top = {0};

    return check_struct(&top, type, object, ret, errp);
}

int qmp_take_text(const struct qmp_type *type, json_t *object, Error **errp)
{
    struct place top = {.from_text = true};

    return check_struct(&top, type, object, NULL, errp);
}

int qmp_check(const struct qmp_type *type, json_t *value, Error **errp)
{
    struct place top = {0};

    return check_value(&top, type, value, NULL, errp);
}
