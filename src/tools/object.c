/* SPDX-License-Identifier: MIT */
#include "tools/object.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/qmp_type.h"
#include "control/service.h"
#include "schema/qmp.h"
#include "tools/disk.h"
#include "util/error.h"

#define LINES_MAX 64 /* members of one kind */

/* ---- help ---- */

struct wish {
    bool help;
    char type[64]; /* "": none was told */
};

static bool is_help(const char *word, size_t len)
{
    return (len == 4 && memcmp(word, "help", 4) == 0) || (len == 1 && *word == '?');
}

/* One word of the text. False: the text is wrong there, which is told when the object is made. */
static bool take_word(struct wish *w, const char *word, size_t len, bool first)
{
    static const char key[] = "qom-type=";

    if (!memchr(word, '=', len)) {
        if (is_help(word, len)) {
            w->help = true;
            return true;
        }
        snprintf(w->type, sizeof(w->type), "%.*s", first ? (int)len : 0, word);
        return first;
    }
    if (len >= sizeof(key) - 1 && memcmp(word, key, sizeof(key) - 1) == 0) {
        snprintf(w->type, sizeof(w->type), "%.*s", (int)(len - sizeof(key) + 1),
                 word + sizeof(key) - 1);
    }
    return true;
}

static int compare_lines(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void print_members(FILE *out, const char *name, const struct qmp_type *type)
{
    char lines[LINES_MAX][96];
    size_t count = 0;

    for (const struct qmp_member *m = type->members; m->type && count < LINES_MAX; m++) {
        snprintf(lines[count++], sizeof(lines[0]), "  %s=<%s>", m->key,
                 m->type == &qmp_builtin_str ? "string" : m->type->name);
    }
    qsort(lines, count, sizeof(lines[0]), compare_lines);
    fprintf(out, "%s options:\n", name);
    for (size_t i = 0; i < count; i++) {
        fprintf(out, "%s\n", lines[i]);
    }
}

static bool help(struct cli *cli, const char *text, bool iothreads)
{
    const char *word = *text == '{' ? "" : text;
    const struct qmp_type *type;
    struct wish w = {0};
    size_t len;

    for (; *word != '\0'; word += len + (word[len] == ',')) {
        len = strcspn(word, ",");
        while (word[len] == ',' && word[len + 1] == ',') { /* two are one, in a value */
            len += 2 + strcspn(word + len + 2, ",");
        }
        if (!take_word(&w, word, len, word == text)) {
            return false;
        }
    }
    if (!w.help) {
        return false;
    }
    if (cli_is_muted(cli)) {
        return true;
    }
    type = qmp_find_variant(qmp_object_options_type, w.type);
    if (type) {
        print_members(cli->out, w.type, type);
        return true;
    }
    fputs("List of user creatable objects:\n", cli->out);
    for (const struct qmp_variant *v = qmp_object_options_type->variants; v->value; v++) {
        if (iothreads || strcmp(v->value, "iothread") != 0) {
            fprintf(cli->out, "  %s\n", v->value);
        }
    }
    return true;
}

bool object_help(struct cli *cli, const char *text)
{
    return help(cli, text, false);
}

bool object_help_daemon(struct cli *cli, const char *text)
{
    return help(cli, text, true);
}

/* ---- making ---- */

static int make_one(struct control *control, const char *text, Error **errp)
{
    json_t *arguments = qmp_arguments_of(text, "qom-type", qmp_object_options_type, errp);
    int ret = arguments ? object_make(control, arguments, errp) : -EINVAL;

    json_decref(arguments);
    return ret;
}

int objects_make(struct cli *cli, Platter *pl, Error **errp)
{
    struct control *control;
    int ret = 0;

    cli->objects_tried = cli->object_count;
    if (cli->object_count == 0) {
        return 0;
    }
    if (cli->object_count > CLI_OBJECTS_MAX) {
        return error_set(errp, E2BIG, "more than %d objects", CLI_OBJECTS_MAX);
    }
    control = control_new_within(pl);
    if (!control) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    for (size_t i = 0; ret == 0 && i < cli->object_count; i++) {
        ret = make_one(control, cli->objects[i], errp);
    }
    return ret;
}

/* Something is to be told: would the reference have got that far? */
static bool object_fails(struct cli *cli)
{
    Error *err = NULL;
    Platter *pl;

    if (cli->objects_tried == cli->object_count) {
        return cli->object_failed;
    }
    cli->objects_tried = cli->object_count;
    pl = platter_new(NULL, &err);
    if (pl && objects_make(cli, pl, &err) == 0) {
        platter_free(pl);
        return false;
    }
    platter_free(pl);
    cli_report(cli, err);
    cli->object_failed = true;
    return true;
}

void object_take(struct cli *cli, const char *text)
{
    if (cli->object_count < CLI_OBJECTS_MAX) {
        cli->objects[cli->object_count] = text;
    }
    cli->object_count++;
    cli->object_fails = cli_stands_in(cli) ? object_fails : NULL;
}

bool object_look_ahead(const struct cli_args *a)
{
    struct cli_args rest = *a;
    int id;

    while (cli_stands_in(a->cli) && (id = cli_next(&rest)) != CLI_END) {
        if (id == CLI_HELP || id == CLI_BAD) {
            return false;
        }
        if (id == DISK_OPTION_OBJECT) {
            object_take(a->cli, rest.value);
        }
    }
    return true;
}
