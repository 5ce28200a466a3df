/* SPDX-License-Identifier: MIT */
/* Jobs that create and amend images. The members are those of the drivers' create options, with '-'
 * where these have '_', and "version" for "compat". */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <platter/jobs.h>

#include "control/control.h"
#include "control/qmp_type.h"
#include "schema/qmp.h"
#include "util/error.h"
#include "util/options.h"

#define KEY_BYTES 128

/* The same members as options of a driver; NULL with errp. Some are the command's own. */
static json_t *spell_as_driver(json_t *args, Error **errp)
{
    json_t *object = json_object();
    const char *key;
    char name[KEY_BYTES];
    json_t *value;

    json_object_foreach(args, key, value)
    {
        snprintf(name, sizeof(name), "%s", strcmp(key, "version") == 0 ? "compat" : key);
        for (char *p = name; *p; p++) {
            *p = *p == '-' ? '_' : *p;
        }
        if (strcmp(key, "file") == 0 || strcmp(key, "filename") == 0) {
            continue;
        }
        if (json_object_set(object, name, value) < 0) {
            json_decref(object);
            error_set(errp, ENOMEM, "out of memory");
            return NULL;
        }
    }
    return object;
}

static BlockOptions *create_options(json_t *args, Error **errp)
{
    json_t *object = spell_as_driver(args, errp);
    BlockOptions *options = object ? block_options_from_json(object, errp) : NULL;

    json_decref(object);
    return options;
}

/* Whether the driver of options is one of those that type tells of. */
static bool is_supported(const struct qmp_type *type, const json_t *options)
{
    const char *driver = json_string_value(json_object_get(options, "driver"));

    return driver && qmp_find_variant(type, driver);
}

int qmp_blockdev_create(struct qmp_call *call, const struct qmp_blockdev_create *args, Error **errp)
{
    struct job_start start = {.id = args->job_id, .flags = JOB_MANUAL_DISMISS};
    json_t *file = json_object_get(args->options, "file");
    json_t *filename = json_object_get(args->options, "filename");
    BlockOptions *options;

    if (!is_supported(qmp_blockdev_create_options_type, args->options)) {
        return error_set(errp, ENOTSUP, "Driver does not support blockdev-create");
    }

    if (file && !json_is_string(file)) {
        return error_set(errp, ENOTSUP, "Parameter 'options.file' must be the name of a node");
    }
    if (!file && !json_is_string(filename)) {
        return error_set(errp, EINVAL, "Parameter 'options.%s' is missing",
                         filename ? "filename' as text" : "file' or 'options.filename");
    }
    options = create_options(args->options, errp);
    if (!options) {
        return -EINVAL;
    }
    return job_create_start(call->control->pl, &start, json_string_value(filename),
                            json_string_value(file), options, errp)
               ? 0
               : -EINVAL;
}

int qmp_x_blockdev_amend(struct qmp_call *call, const struct qmp_x_blockdev_amend *args,
                         Error **errp)
{
    struct job_start start = {.id = args->job_id, .flags = JOB_MANUAL_DISMISS};
    BlockDriverState *bs = control_find_root(call->control, NULL, args->node_name, errp);
    const char *driver = json_string_value(json_object_get(args->options, "driver"));
    BlockOptions *options;

    if (!bs) {
        return -ENOENT;
    }
    if (driver && strcmp(driver, bdrv_get_format_name(bs)) != 0) {
        return error_set(errp, EINVAL,
                         "x-blockdev-amend doesn't support changing the block driver");
    }
    if (!is_supported(qmp_blockdev_amend_options_type, args->options)) {
        return error_set(errp, ENOTSUP, "Driver does not support x-blockdev-amend");
    }
    options = create_options(args->options, errp);
    if (!options) {
        return -EINVAL;
    }
    block_options_del(options, "driver");
    return job_amend_start(call->control->pl, &start, bs, options, args->has_force && args->force,
                           errp)
               ? 0
               : -EINVAL;
}
