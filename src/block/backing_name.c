/* SPDX-License-Identifier: MIT */
/*
 * What an image says of its backing file: the driver tells at open (and after an amend), whoever
 * opens or changes chains asks. The open backing node, if any, is another matter.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/graph_int.h"
#include "block/image.h"
#include "util/error.h"

/* Copies of two texts, both of which may be NULL. */
struct backing_name {
    char *file;
    char *format;
};

static void name_fini(struct backing_name *name)
{
    free(name->file);
    free(name->format);
}

static int name_init(struct backing_name *name, const char *file, const char *format)
{
    name->file = file != NULL ? strdup(file) : NULL;
    name->format = file != NULL && format != NULL ? strdup(format) : NULL;
    if ((file != NULL && name->file == NULL) ||
        (file != NULL && format != NULL && name->format == NULL)) {
        name_fini(name);
        return -ENOMEM;
    }
    return 0;
}

/* Takes name over. */
static void name_put(BlockDriverState *bs, struct backing_name *name)
{
    free(bs->backing_file);
    free(bs->backing_format);
    bs->backing_file = name->file;
    bs->backing_format = name->format;
    if (bs->backing_slot != NULL && *bs->backing_slot != NULL) {
        (*bs->backing_slot)->as_named = false; /* it was opened for another name */
    }
}

int bdrv_set_backing_name(BlockDriverState *bs, const char *file, const char *format)
{
    struct backing_name name;
    int rc;

    assert(instance_in_control_thread(bs->pl));
    rc = name_init(&name, file, format);
    if (rc == 0) {
        name_put(bs, &name);
    }
    return rc;
}

const char *bdrv_get_backing_file(const BlockDriverState *bs)
{
    return bs->backing_file;
}

const char *bdrv_get_backing_format(const BlockDriverState *bs)
{
    return bs->backing_format;
}

/* ---- change ---- */

static bool has_change(const BlockDriver *drv)
{
    return drv->image != NULL && drv->image->change_backing_file_co != NULL;
}

static int change_run_co(BlockDriverState *bs, void *args, Error **errp)
{
    struct backing_name *name = args;
    int ret = bs->drv->image->change_backing_file_co(bs, name->file, name->format, errp);

    if (ret == 0) {
        name_put(bs, name);
        *name = (struct backing_name){0};
    }
    return ret;
}

static const struct image_op op_change = {
    .name = "changing the backing file",
    .perm = BDRV_PERM_WRITE_UNCHANGED,
    .has = has_change,
    .run_co = change_run_co,
};

bool bdrv_stores_backing_name(BlockDriverState *bs)
{
    int ret;

    return image_node(bs, &op_change, &ret, NULL) != NULL;
}

int bdrv_change_backing_file(BlockDriverState *bs, const char *backing_file,
                             const char *backing_format, Error **errp)
{
    struct backing_name name;
    int ret;

    if (backing_file == NULL && backing_format != NULL) {
        return error_set(errp, EINVAL, "A backing format ('%s') is given without a backing file",
                         backing_format);
    }
    if (name_init(&name, backing_file, backing_format) < 0) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    ret = image_run(bs, &op_change, &name, errp);
    name_fini(&name);
    return ret;
}
