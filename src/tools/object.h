/* SPDX-License-Identifier: MIT */
/* --object of command lines. */
#ifndef PLATTER_TOOLS_OBJECT_H
#define PLATTER_TOOLS_OBJECT_H

#include "control/control.h"
#include "schema/qmp.h"
#include "tools/cli.h"

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
