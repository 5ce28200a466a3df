/* SPDX-License-Identifier: MIT */
/*
 * Facts of an image as JSON text: those that only its format has, of an open node; and all that its
 * metadata says, of a file of which nothing else is opened.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/graph_int.h"
#include "util/error.h"
#include "util/json.h"
#include "util/json_print.h"

static char *no_memory(Error **errp)
{
    error_set(errp, ENOMEM, "out of memory");
    return NULL;
}

/* Ends object; NULL: out of memory. */
static char *text_of(json_t *object, Error **errp)
{
    char *text = json_print(object, JSON_PRINT_AS_MADE);

    json_decref(object);
    return text != NULL ? text : no_memory(errp);
}

/* ---- of an open node ---- */

char *bdrv_get_specific_info(BlockDriverState *bs, Error **errp)
{
    json_t *data, *all;

    instance_control(bs->pl);
    if (bs->drv == NULL || bs->drv->image == NULL || bs->drv->image->specific_info == NULL) {
        return NULL;
    }
    data = bs->drv->image->specific_info(bs);
    if (data == NULL) {
        return no_memory(errp);
    }
    all = json_object();
    if (json_object_set_new(all, "type", json_string(bs->drv->format_name)) < 0) {
        json_decref(data);
        json_decref(all);
        return no_memory(errp);
    }
    if (json_object_set_new(all, "data", data) < 0) { /* ends data also then */
        json_decref(all);
        return no_memory(errp);
    }
    return text_of(all, errp);
}

/* ---- of a file ---- */

static void inspect_describe(void *parent, char *buf, size_t size)
{
    snprintf(buf, size, "inspection");
}

static const struct bdrv_parent_class inspect_parent_class = {.describe = inspect_describe};

/* The format's own part; JSON null where it keeps no metadata. */
static json_t *format_facts(const BlockDriver *drv, BdrvEdge *file, Error **errp)
{
    json_t *facts;
    Error *err = NULL;

    if (drv->image == NULL || drv->image->inspect == NULL) {
        return json_null();
    }
    facts = drv->image->inspect(file, &err);
    if (facts == NULL && err == NULL) {
        error_set(&err, ENOMEM, "out of memory");
    }
    error_propagate(errp, err);
    return facts;
}

static const BlockDriver *inspect_format(BlockDriverState *file, const char *format,
                                         const char *shown, Error **errp)
{
    const BlockDriver *drv;

    if (format == NULL) {
        return bdrv_probe(file, shown, errp);
    }
    drv = bdrv_find_driver(format);
    if (drv == NULL) {
        bdrv_unknown_driver(format, errp);
    } else if (!(drv->caps & BDRV_CAP_FORMAT)) {
        error_set(errp, EINVAL, "'%s' is not a format of images", format);
        return NULL;
    }
    return drv;
}

static char *inspect_file(BlockDriverState *file, BdrvEdge *edge, const char *filename,
                          const char *format, Error **errp)
{
    const BlockDriver *drv = inspect_format(file, format, filename, errp);
    int64_t file_bytes = bdrv_getlength(file);
    json_t *facts, *all;

    if (drv == NULL) {
        return NULL;
    }
    facts = format_facts(drv, edge, errp);
    if (facts == NULL) {
        return NULL;
    }
    all = json_object();
    if (json_object_set_new(all, "filename", json_text(filename)) < 0 ||
        json_object_set_new(all, "format", json_string(drv->format_name)) < 0 ||
        json_object_set_new(all, "format-guessed", json_boolean(format == NULL)) < 0 ||
        json_object_set_new(all, "file-bytes",
                            file_bytes < 0 ? json_null() : json_integer(file_bytes)) < 0 ||
        json_object_set(all, "metadata", facts) < 0) {
        json_decref(facts);
        json_decref(all);
        return no_memory(errp);
    }
    json_decref(facts);
    return text_of(all, errp);
}

char *bdrv_inspect(Platter *pl, const char *filename, const char *format, Error **errp)
{
    BlockDriverState *file;
    BdrvEdge *edge;
    char *text = NULL;

    instance_control(pl);
    file = bdrv_open_storage(pl, filename, BDRV_O_NO_IO, errp);
    if (file == NULL) {
        return NULL;
    }
    edge = bdrv_root_attach(file, "inspect", &inspect_parent_class, NULL, BDRV_PERM_CONSISTENT_READ,
                            BDRV_PERM_ALL, errp);
    if (edge != NULL) {
        text = inspect_file(file, edge, filename, format, errp);
        bdrv_root_detach(edge);
    }
    bdrv_unref(file);
    return text;
}
