/* SPDX-License-Identifier: MIT */
/*
 * Creating images: by the driver option, or without one by what the file name asks for (so that a
 * format creates the file below it with a call that names no driver). The driver does the work.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/graph_int.h"
#include "util/error.h"
#include "util/mem.h"
#include "util/options.h"

static const BlockDriver *creating_driver(const char *name, const char *filename, Error **errp)
{
    const BlockDriver *drv;

    if (name == NULL) {
        return bdrv_find_protocol(filename, errp);
    }
    drv = bdrv_find_driver(name);
    if (drv == NULL) {
        bdrv_unknown_driver(name, errp);
    }
    return drv;
}

/* The name without the protocol's prefix, where the protocol means paths. */
static const char *creating_name(const BlockDriver *drv, const char *filename)
{
    size_t len = bdrv_protocol_prefix(filename);

    if (len > 0 && drv->protocol_name != NULL && drv->parse_filename == NULL &&
        strlen(drv->protocol_name) == len && memcmp(drv->protocol_name, filename, len) == 0) {
        return filename + len + 1;
    }
    return filename;
}

static int create(Platter *pl, const char *filename, BlockOptions *options, Error **errp)
{
    AUTO_FREE char *name = NULL;
    const BlockDriver *drv;
    char of[128];
    int rc = block_options_take_str(options, "driver", &name, errp);

    if (rc < 0) {
        return rc;
    }
    drv = creating_driver(name, filename, errp);
    if (drv == NULL) {
        return -EINVAL;
    }
    if (drv->create == NULL) {
        return error_set(errp, ENOTSUP, "Could not create '%s': driver '%s' cannot create images",
                         filename, drv->format_name);
    }
    rc = bdrv_refuse_unknown_keys(drv, "Creating", drv->create_keys, options, errp);
    if (rc < 0) {
        return rc;
    }
    rc = drv->create(pl, creating_name(drv, filename), options, errp);
    if (rc < 0) {
        return rc;
    }
    snprintf(of, sizeof(of), "Creating with driver '%s'", drv->format_name);
    return block_options_refuse_rest(options, of, errp);
}

int bdrv_create(Platter *pl, const char *filename, BlockOptions *options, Error **errp)
{
    int rc;

    instance_control(pl);
    if (options == NULL) {
        options = block_options_new();
        if (options == NULL) {
            return error_set(errp, ENOMEM, "out of memory");
        }
    }
    rc = filename != NULL ? create(pl, filename, options, errp)
                          : error_set(errp, EINVAL, "No file name is given to create");
    block_options_free(options);
    return rc;
}

/* ---- what a driver does to what it makes ---- */

static void create_describe(void *parent, char *buf, size_t size)
{
    snprintf(buf, size, "creation");
}

static const struct bdrv_parent_class create_parent_class = {.describe = create_describe};

BdrvEdge *bdrv_create_open(Platter *pl, const char *filename, BlockOptions *options, Error **errp)
{
    const uint64_t perm = BDRV_PERM_CONSISTENT_READ | BDRV_PERM_WRITE | BDRV_PERM_RESIZE;
    BlockDriverState *bs;
    BdrvEdge *edge = NULL;

    instance_control(pl);
    bs = options != NULL
             ? bdrv_open(pl, filename, NULL, options, BDRV_O_RDWR | BDRV_O_NO_BACKING, errp)
             : bdrv_open_storage(pl, filename, BDRV_O_RDWR, errp);
    if (bs != NULL) {
        edge =
            bdrv_root_attach(bs, "create", &create_parent_class, NULL, perm, BDRV_PERM_ALL, errp);
        bdrv_unref(bs); /* the edge has its own */
    }
    return edge;
}

void bdrv_create_close(BdrvEdge *edge)
{
    bdrv_root_detach(edge);
}
