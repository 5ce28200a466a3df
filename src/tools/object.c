/* SPDX-License-Identifier: MIT */
#include "tools/object.h"

#include <errno.h>

#include "control/service.h"
#include "schema/qmp.h"
#include "util/error.h"

static int make_one(struct control *control, const char *text, Error **errp)
{
    json_t *arguments = qmp_arguments_of(text, "qom-type", qmp_object_options_type, errp);
    int ret = arguments ? object_make(control, arguments, errp) : -EINVAL;

    json_decref(arguments);
    return ret;
}

int objects_make(const struct cli *cli, Platter *pl, Error **errp)
{
    struct control *control;
    int ret = 0;

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
