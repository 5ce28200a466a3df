/* SPDX-License-Identifier: MIT */
/*
 * The types of commands and events as tables: JSON values are checked against them and parsed into
 * the structs of schema/qmp.h, and the introspection is written from them.
 *
 * A parsed struct borrows its strings and values from the JSON it came from; there is nothing to
 * free. Values from the command line are all text: qmp_take_text makes them what the type says.
 */
#ifndef PLATTER_CONTROL_QMP_TYPE_H
#define PLATTER_CONTROL_QMP_TYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include <platter/error.h>

enum qmp_kind {
    QMP_KIND_STR,    /* const char * */
    QMP_KIND_BOOL,   /* bool */
    QMP_KIND_INT,    /* int64_t */
    QMP_KIND_UINT,   /* uint64_t */
    QMP_KIND_UINT32, /* uint32_t */
    QMP_KIND_SIZE,   /* uint64_t; text may have a suffix */
    QMP_KIND_NUMBER, /* double */
    QMP_KIND_NULL,   /* json_t *; as any, lists and the next two */
    QMP_KIND_ANY,
    QMP_KIND_OPTIONS,   /* a struct that is not parsed: the block layer's options */
    QMP_KIND_ALTERNATE, /* one of several, told by the kind of JSON value */
    QMP_KIND_ENUM,      /* enum, counted from 0 */
    QMP_KIND_STRUCT,    /* struct; with a tag a flat union */
};

struct qmp_member {
    const char *key; /* NULL in an alternate */
    const struct qmp_type *type;
    size_t at;     /* of the value in the C struct */
    size_t has_at; /* of has_KEY, when optional */
    bool is_list;
    bool optional;
};

struct qmp_variant {
    const char *value; /* of the tag; NULL ends a table */
    const struct qmp_type *type;
};

struct qmp_type {
    const char *name;
    enum qmp_kind kind;
    const char *const *words;         /* enum; NULL ends it */
    const struct qmp_member *members; /* struct, options, alternate; a NULL type ends it */
    const char *tag;                  /* union: the member that chooses; else NULL */
    const struct qmp_variant *variants;
    size_t variants_at; /* of the union in the C struct */
    size_t bytes;       /* of the C struct */
};

extern const struct qmp_type qmp_builtin_str, qmp_builtin_bool, qmp_builtin_int, qmp_builtin_uint,
    qmp_builtin_uint32, qmp_builtin_size, qmp_builtin_number, qmp_builtin_null, qmp_builtin_any;

/* What a value of the tag adds to the members of a union; NULL: there is no such value. */
const struct qmp_type *qmp_find_variant(const struct qmp_type *type, const char *value);

/* Check object and fill the C struct of a type at ret (also the chosen variant). 0, or -EINVAL with
 * errp that names the member from the outside in ("addr.data.path"). */
int qmp_parse(const struct qmp_type *type, json_t *object, void *ret, Error **errp);
/* Check alone, any kind of type. */
int qmp_check(const struct qmp_type *type, json_t *value, Error **errp);

/* Check object, in which every value is text as on a command line, and make of the texts (in place)
 * what type says: numbers, sizes, on/off. 0, -EINVAL or -ENOMEM with errp. */
int qmp_take_text(const struct qmp_type *type, json_t *object, Error **errp);
/* One scalar of it; *ret: NULL where it stays a string. name: for the error. */
int qmp_scalar_from_text(enum qmp_kind kind, const char *text, const char *name, json_t **ret,
                         Error **errp);
/* The arguments that a text holds (JSON, or KEY=VALUE,... with implied_key in front), checked as
 * type says. The caller's; NULL with errp. */
json_t *qmp_arguments_of(const char *text, const char *implied_key, const struct qmp_type *type,
                         Error **errp);

/* All that can be reached from commands and events, as query-qmp-schema returns it. Owned by the
 * caller; NULL out of memory. */
json_t *qmp_introspect(void);

#endif
