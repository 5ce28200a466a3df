/* SPDX-License-Identifier: MIT */
/* The schema for programs: every type that a command or event reaches, once. */
#include <stdio.h>
#include <string.h>

#include "control/command.h"
#include "control/qmp_type.h"

#define TYPES_MAX 1024 /* in the tables of one build */
#define NAME_BYTES 128

struct walk {
    json_t *out; /* the list */
    const struct qmp_type *seen[TYPES_MAX];
    size_t seen_count;
    json_t *lists; /* names of the element types that have a list in out */
    bool failed;   /* no memory */
};

static void visit(struct walk *w, const struct qmp_type *type);

/* Takes what it is given, also on failure. */
static void put(struct walk *w, json_t *object)
{
    if (!object || json_array_append_new(w->out, object) < 0) {
        w->failed = true;
    }
}

static const char *json_kind(const struct qmp_type *type)
{
    switch (type->kind) {
    case QMP_KIND_STR:
        return "string";
    case QMP_KIND_BOOL:
        return "boolean";
    case QMP_KIND_NUMBER:
        return "number";
    case QMP_KIND_NULL:
        return "null";
    case QMP_KIND_ANY:
        return "value";
    default:
        return "int";
    }
}

/* The name of the list of type, put out when it is new. */
static const char *list_name(struct walk *w, const struct qmp_type *element, char *name)
{
    snprintf(name, NAME_BYTES, "[%s]", element->name);
    if (!json_object_get(w->lists, name)) {
        if (json_object_set_new(w->lists, name, json_true()) < 0) {
            w->failed = true;
        }
        put(w, json_pack("{s:s, s:s, s:s}", "name", name, "meta-type", "array", "element-type",
                         element->name));
    }
    return name;
}

static json_t *member_list(struct walk *w, const struct qmp_type *type)
{
    json_t *list = json_array();
    char name[NAME_BYTES];

    for (const struct qmp_member *m = type->members; m->type; m++) {
        const char *shown = m->is_list ? list_name(w, m->type, name) : m->type->name;
        json_t *row = m->key ? json_pack("{s:s, s:s}", "name", m->key, "type", shown)
                             : json_pack("{s:s}", "type", shown);

        if (!row || (m->optional && json_object_set_new(row, "default", json_null()) < 0) ||
            json_array_append(list, row) < 0) {
            w->failed = true;
        }
        json_decref(row);
        visit(w, m->type);
    }
    return list;
}

static const struct qmp_type *member_type(const struct qmp_type *type, const char *key)
{
    for (const struct qmp_member *m = type->members; m->type; m++) {
        if (strcmp(m->key, key) == 0) {
            return m->type;
        }
    }
    return NULL;
}

/* A case for each value of the tag: those without members of their own have the empty type. */
static json_t *variant_list(struct walk *w, const struct qmp_type *type)
{
    const struct qmp_type *tag = member_type(type, type->tag);
    json_t *list = json_array();

    for (int i = 0; tag->words[i]; i++) {
        const char *name = "q_empty";

        for (const struct qmp_variant *v = type->variants; v->value; v++) {
            if (strcmp(v->value, tag->words[i]) == 0) {
                name = v->type->name;
                visit(w, v->type);
            }
        }
        if (json_array_append_new(
                list, json_pack("{s:s, s:s}", "case", tag->words[i], "type", name)) < 0) {
            w->failed = true;
        }
    }
    return list;
}

static json_t *describe_enum(struct walk *w, const struct qmp_type *type)
{
    json_t *values = json_array();
    json_t *members = json_array();

    for (int i = 0; type->words[i]; i++) {
        if (json_array_append_new(values, json_string(type->words[i])) < 0 ||
            json_array_append_new(members, json_pack("{s:s}", "name", type->words[i])) < 0) {
            w->failed = true;
        }
    }
    return json_pack("{s:s, s:s, s:o, s:o}", "name", type->name, "meta-type", "enum", "members",
                     members, "values", values);
}

static json_t *describe(struct walk *w, const struct qmp_type *type)
{
    json_t *members;
    json_t *variants;

    switch (type->kind) {
    case QMP_KIND_ENUM:
        return describe_enum(w, type);
    case QMP_KIND_STRUCT:
    case QMP_KIND_OPTIONS:
        members = member_list(w, type);
        variants = type->tag ? variant_list(w, type) : NULL;
        return variants
                   ? json_pack("{s:s, s:s, s:o, s:s, s:o}", "name", type->name, "meta-type",
                               "object", "members", members, "tag", type->tag, "variants", variants)
                   : json_pack("{s:s, s:s, s:o}", "name", type->name, "meta-type", "object",
                               "members", members);
    case QMP_KIND_ALTERNATE:
        return json_pack("{s:s, s:s, s:o}", "name", type->name, "meta-type", "alternate", "members",
                         member_list(w, type));
    default:
        return json_pack("{s:s, s:s, s:s}", "name", type->name, "meta-type", "builtin", "json-type",
                         json_kind(type));
    }
}

/* The depth is that of types in each other, which the schema bounds. */
static void visit(struct walk *w, const struct qmp_type *type)
{
    for (size_t i = 0; i < w->seen_count; i++) {
        if (w->seen[i] == type || strcmp(w->seen[i]->name, type->name) == 0) {
            return;
        }
    }
    if (w->seen_count == TYPES_MAX) {
        w->failed = true;
        return;
    }
    w->seen[w->seen_count++] = type;
    put(w, describe(w, type));
}

static void visit_command(struct walk *w, const struct qmp_command *c)
{
    char name[NAME_BYTES];
    json_t *row = json_pack("{s:s, s:s, s:s, s:s}", "name", c->name, "meta-type", "command",
                            "arg-type", c->arguments->name, "ret-type",
                            c->returns_list ? list_name(w, c->returns, name) : c->returns->name);

    if (row && (c->flags & QMP_ALLOW_OOB) &&
        json_object_set_new(row, "allow-oob", json_true()) < 0) {
        w->failed = true;
    }
    put(w, row);
    visit(w, c->arguments);
    visit(w, c->returns);
}

json_t *qmp_introspect(void)
{
    struct walk w = {.out = json_array(), .lists = json_object()};

    for (const struct qmp_command *c = qmp_commands; c->name; c++) {
        visit_command(&w, c);
    }
    for (const struct qmp_event_type *e = qmp_event_types; e->name; e++) {
        put(&w, json_pack("{s:s, s:s, s:s}", "name", e->name, "meta-type", "event", "arg-type",
                          e->data->name));
        visit(&w, e->data);
    }
    json_decref(w.lists);
    if (w.failed || !w.out) {
        json_decref(w.out);
        return NULL;
    }
    return w.out;
}
