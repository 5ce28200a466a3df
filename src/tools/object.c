/* SPDX-License-Identifier: MIT */
#include "tools/object.h"

#include <errno.h>
#include <string.h>

#include "control/qmp_type.h"
#include "util/error.h"
#include "util/options.h"

json_t *qmp_arguments_of(const char *text, const char *implied_key, const struct qmp_type *type,
                         Error **errp)
{
    bool is_json = *text == '{' || strncmp(text, "json:", 5) == 0;
    BlockOptions *options = is_json ? block_options_parse_json(text, errp)
                                    : block_options_parse(text, implied_key, errp);
    json_t *arguments = options ? block_options_to_json_value(options, errp) : NULL;

    block_options_free(options);
    if (arguments && !is_json && qmp_from_text(type, arguments, errp) < 0) {
        json_decref(arguments);
        return NULL;
    }
    return arguments;
}

int object_make(struct control *control, json_t *arguments, Error **errp)
{
    struct qmp_call call = {.control = control};
    struct qmp_object_options args;
    int ret = qmp_parse(qmp_object_options_type, arguments, &args, errp);

    return ret < 0 ? ret : qmp_object_add(&call, &args, errp);
}

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
