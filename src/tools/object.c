/* SPDX-License-Identifier: MIT */
#include "tools/object.h"

#include <errno.h>

#include "control/service.h"
#include "util/error.h"

int object_take(struct object_list *list, const struct cli_args *a)
{
    if (list->count == OBJECTS_MAX) {
        return cli_usage_error(a->cli, "more than %d objects", OBJECTS_MAX);
    }
    list->texts[list->count++] = a->value;
    return CLI_EXIT_OK;
}

static int make_one(struct control *control, const char *text, Error **errp)
{
    json_t *arguments = qmp_arguments_of(text, "qom-type", qmp_object_options_type, errp);
    int ret = arguments ? object_make(control, arguments, errp) : -EINVAL;

    json_decref(arguments);
    return ret;
}

struct control *objects_make(struct cli *cli, Platter *pl, const struct object_list *list)
{
    struct control *control = pl ? control_new() : NULL;
    Error *err = NULL;

    if (!control) {
        platter_free(pl);
        if (pl) {
            cli_error(cli, "out of memory");
        }
        return NULL;
    }
    control->pl = pl;
    for (size_t i = 0; i < list->count; i++) {
        if (make_one(control, list->texts[i], &err) < 0) {
            cli_report(cli, err);
            control_free(control);
            return NULL;
        }
    }
    return control;
}
