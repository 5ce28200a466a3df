/* SPDX-License-Identifier: MIT */
/* What command lines say in the words of QMP: --object, and the arguments of commands as text. */
#ifndef PLATTER_TOOLS_OBJECT_H
#define PLATTER_TOOLS_OBJECT_H

#include "control/control.h"
#include "schema/qmp.h"
#include "tools/cli.h"

/* The text (JSON, or KEY=VALUE,...) as the arguments that type describes; NULL with errp. */
json_t *qmp_arguments_of(const char *text, const char *implied_key, const struct qmp_type *type,
                         Error **errp);
/* Make the object that arguments describe. 0 or -errno. */
int object_make(struct control *control, json_t *arguments, Error **errp);

#define OBJECTS_MAX 64
/* The row of a command's table. */
#define OBJECT_ROW(id)                                                                             \
    {                                                                                              \
        id, 0, "object", "TYPE,id=ID,...",                                                         \
            "make a throttle-group, secret or iothread that options name"                          \
    }

/* Each --object of a command. */
struct object_list {
    const char *texts[OBJECTS_MAX];
    size_t count;
};

/* CLI_EXIT_*, after printing. */
int object_take(struct object_list *list, const struct cli_args *a);
/* Make them all: control owns pl (NULL: nothing is done) from now on, also on failure, and
 * control_free ends both. NULL after printing why not. */
struct control *objects_make(struct cli *cli, Platter *pl, const struct object_list *list);

#endif
