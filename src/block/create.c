/* SPDX-License-Identifier: MIT */
/*
 * Creating images: by the driver option, or without one by what the file name asks for (so that a
 * format creates the file below it with a call that names no driver). The driver does the work.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/graph_int.h"
#include "util/error.h"
#include "util/mem.h"
#include "util/options.h"

static int makes_no_files(const BlockDriver *drv, Error **errp)
{
    return error_set(errp, ENOTSUP, "Protocol driver '%s' does not support image creation",
                     drv->format_name);
}

const BlockDriver *bdrv_find_creator(const char *filename, Error **errp)
{
    const BlockDriver *drv = bdrv_find_protocol(filename, errp);

    if (drv != NULL && drv->create == NULL) {
        makes_no_files(drv, errp);
        return NULL;
    }
    return drv;
}

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

static void create_describe(void *parent, char *buf, size_t size)
{
    snprintf(buf, size, "creation");
}

static const struct bdrv_parent_class create_parent_class = {.describe = create_describe};

static BdrvEdge *create_attach(BlockDriverState *bs, Error **errp)
{
    const uint64_t perm = BDRV_PERM_CONSISTENT_READ | BDRV_PERM_WRITE | BDRV_PERM_RESIZE;

    return bdrv_root_attach(bs, "create", &create_parent_class, NULL, perm, BDRV_PERM_ALL, errp);
}

/* ---- on a node that is open ---- */

/* The node that a name stands for, or NULL. */
static BlockDriverState *named_node(Platter *pl, const char *filename)
{
    size_t len = strlen(BDRV_CREATE_ON_NODE);

    return filename != NULL && strncmp(filename, BDRV_CREATE_ON_NODE, len) == 0
               ? bdrv_find_node(pl, filename + len)
               : NULL;
}

struct resize_node {
    BdrvEdge *edge;
    uint64_t bytes;
    Error **errp;
};

static int resize_node_co(void *opaque)
{
    struct resize_node *r = opaque;
    int rc = bdrv_edge_truncate_co(r->edge, 0, false, BDRV_PREALLOC_OFF, 0, r->errp);

    return rc < 0 ? rc
                  : bdrv_edge_truncate_co(r->edge, r->bytes, false, BDRV_PREALLOC_OFF, 0, r->errp);
}

/* What making a file is for a node: it is emptied, and as large as asked for. */
static int create_node(Platter *pl, BlockDriverState *bs, BlockOptions *options, Error **errp)
{
    struct resize_node r = {.errp = errp};
    char of[BDRV_NODE_NAME_BYTES_MAX + 32];
    int rc = block_options_take_size(options, "size", 0, INT64_MAX, &r.bytes, errp);

    if (rc < 0) {
        return rc;
    }
    snprintf(of, sizeof(of), "Creating on node '%s'", bs->node_name);
    rc = block_options_refuse_rest(options, of, errp);
    if (rc < 0) {
        return rc;
    }
    r.edge = create_attach(bs, errp);
    if (r.edge == NULL) {
        return -EPERM;
    }
    rc = bdrv_run_co(resize_node_co, &r);
    bdrv_create_close(r.edge);
    return rc;
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
    if (name == NULL && named_node(pl, filename) != NULL) {
        return create_node(pl, named_node(pl, filename), options, errp);
    }
    drv = creating_driver(name, filename, errp);
    if (drv == NULL) {
        return -EINVAL;
    }
    if (drv->create == NULL && name == NULL) {
        return makes_no_files(drv, errp);
    }
    if (drv->create == NULL) {
        return error_set(errp, ENOTSUP, "Could not create '%s': driver '%s' cannot create images",
                         filename, drv->format_name);
    }
    rc = bdrv_refuse_unknown_keys(drv->create_keys, options, errp);
    if (rc < 0) {
        return rc;
    }
    if (named_node(pl, filename) != NULL && drv->protocol_name != NULL) {
        return error_set(errp, EINVAL, "Driver '%s' does not create on a node", drv->format_name);
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

int bdrv_create_on(BlockDriverState *file, BlockOptions *options, Error **errp)
{
    char name[sizeof(BDRV_CREATE_ON_NODE) + BDRV_NODE_NAME_BYTES_MAX];

    snprintf(name, sizeof(name), BDRV_CREATE_ON_NODE "%s", file->node_name);
    return bdrv_create(file->pl, name, options, errp);
}

/* ---- what a driver does to what it makes ---- */

/* What is to be opened of a name: a node by reference, its image over it, or the file. */
static BlockDriverState *open_name(Platter *pl, const char *filename, BlockOptions *options,
                                   Error **errp)
{
    BlockDriverState *bs = named_node(pl, filename);
    int flags = BDRV_O_RDWR | BDRV_O_NO_BACKING;

    if (bs == NULL) {
        return options != NULL ? bdrv_open(pl, filename, NULL, options, flags, errp)
                               : bdrv_open_storage(pl, filename, BDRV_O_RDWR, errp);
    }
    if (options == NULL) {
        bdrv_ref(bs);
        return bs;
    }
    if (block_options_set_str(options, "file", bs->node_name) < 0) {
        block_options_free(options);
        error_set(errp, ENOMEM, "out of memory");
        return NULL;
    }
    return bdrv_open(pl, NULL, NULL, options, flags, errp);
}

BdrvEdge *bdrv_create_open(Platter *pl, const char *filename, BlockOptions *options, Error **errp)
{
    BlockDriverState *bs;
    BdrvEdge *edge = NULL;

    instance_control(pl);
    bs = open_name(pl, filename, options, errp);
    if (bs != NULL) {
        edge = create_attach(bs, errp);
        bdrv_unref(bs); /* the edge has its own */
    }
    return edge;
}

void bdrv_create_close(BdrvEdge *edge)
{
    bdrv_root_detach(edge);
}

/* NULL: what is made there stays. */
static const BlockDriver *undoing_driver(Platter *pl, const char *filename)
{
    const BlockDriver *drv =
        named_node(pl, filename) == NULL ? bdrv_find_protocol(filename, NULL) : NULL;

    return drv != NULL && drv->create_undo != NULL ? drv : NULL;
}

bool bdrv_create_can_undo(Platter *pl, const char *filename)
{
    const BlockDriver *drv = undoing_driver(pl, filename);

    instance_control(pl);
    return drv != NULL && drv->create_is_new(creating_name(drv, filename));
}

void bdrv_create_undo(Platter *pl, const char *filename)
{
    const BlockDriver *drv = undoing_driver(pl, filename);

    instance_control(pl);
    if (drv != NULL) {
        drv->create_undo(creating_name(drv, filename));
    }
}

/* ---- in what is there already ---- */

#define PROBED_BYTES 512

struct clear_start {
    BdrvEdge *edge;
    uint64_t bytes;
};

static int clear_start_co(void *opaque)
{
    struct clear_start *job = opaque;

    return job->bytes > 0 ? bdrv_edge_write_zeroes_co(job->edge, 0, job->bytes, 0) : 0;
}

int bdrv_create_in_place(Platter *pl, const char *filename, const struct bdrv_create_place *place,
                         Error **errp)
{
    struct clear_start job = {0};
    int64_t size;
    int rc;

    if (strcmp(place->preallocation, "off") != 0) {
        return error_set(errp, ENOTSUP, "Unsupported preallocation mode '%s'",
                         place->preallocation);
    }
    job.edge = bdrv_create_open(pl, filename, NULL, errp);
    if (job.edge == NULL) {
        error_prepend(errp,
                      "Protocol driver '%s' does not support image creation, and opening the "
                      "image failed: ",
                      place->protocol);
        return -EIO;
    }
    size = bdrv_edge_getlength(job.edge);
    if (size < 0) {
        rc = error_set_errno(errp, (int)-size, "The size of '%s' is not known", filename);
    } else if (place->size_bytes > (uint64_t)size) {
        rc = error_set(errp, EINVAL, "%s", place->cannot_grow);
        error_set_hint(errp, "'%s' is %" PRId64 " bytes long, not %" PRIu64, filename, size,
                       place->size_bytes);
    } else {
        job.bytes = size < PROBED_BYTES ? (uint64_t)size : PROBED_BYTES;
        rc = bdrv_run_co(clear_start_co, &job);
        if (rc < 0) {
            error_set_errno(errp, -rc, "Cannot clear the start of '%s'", filename);
        }
    }
    bdrv_create_close(job.edge);
    return rc;
}
