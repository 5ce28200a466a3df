/* SPDX-License-Identifier: MIT */
/* What only one format has, as lines. */
#include "tools/img/specific.h"
#include "tools/cli.h"
#include "util/json_print.h"

#include <errno.h>
#include <stdlib.h>

#define INDENT 4

static void print_scalar(FILE *out, const json_t *value)
{
    if (json_is_string(value)) {
        cli_put_text(out, json_string_value(value));
    } else if (json_is_integer(value)) {
        fprintf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    } else {
        fputs(json_is_true(value) ? "true" : "false", out);
    }
}

static int print_members(FILE *out, const json_t *value, int depth);

static int print_member(FILE *out, const char *label, const json_t *value, int depth)
{
    bool nested = json_is_object(value) || json_is_array(value);

    fprintf(out, "%*s%s:%s", depth * INDENT, "", label, nested ? "\n" : " ");
    if (nested) {
        return print_members(out, value, depth + 1);
    }
    print_scalar(out, value);
    fputc('\n', out);
    return 0;
}

/* Recursion is no deeper than what a driver of ours makes. */
static int print_members(FILE *out, const json_t *value, int depth)
{
    size_t count = 0;
    struct json_member *members = json_members(value, &count);
    json_t *element;
    char label[64];
    int ret = 0;
    size_t i;

    if (members == NULL) {
        return -ENOMEM;
    }
    for (i = 0; ret == 0 && i < count; i++) {
        snprintf(label, sizeof(label), "%s", members[i].key);
        for (char *c = label; *c; c++) {
            *c = *c == '-' ? ' ' : *c;
        }
        ret = print_member(out, label, members[i].value, depth);
    }
    free(members);
    for (i = 0; ret == 0 && (element = json_array_get(value, i)) != NULL; i++) {
        snprintf(label, sizeof(label), "[%zu]", i);
        ret = print_member(out, label, element, depth);
    }
    return ret;
}

int specific_print(FILE *out, const json_t *specific)
{
    fputs("Format specific information:\n", out);
    return print_members(out, json_object_get(specific, "data"), 1);
}
