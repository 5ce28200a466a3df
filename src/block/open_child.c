/* SPDX-License-Identifier: MIT */
/*
 * Opening the children of a node that is being opened: what the options say of each, what it
 * inherits (O2, O4 of open.c).
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "block/open_int.h"
#include "util/error.h"
#include "util/options.h"

/* What a child inherits. */
#define INHERITED_FLAGS                                                                            \
    (BDRV_O_RDWR | BDRV_O_NOCACHE | BDRV_O_NO_FLUSH | BDRV_O_AUTO_RDONLY | BDRV_O_FORCE_SHARE |    \
     BDRV_O_NO_IO)

int open_child_flags(int parent_flags, unsigned role)
{
    int flags = parent_flags & INHERITED_FLAGS;

    if (role & BDRV_ROLE_COW) {
        flags &= ~(BDRV_O_RDWR | BDRV_O_AUTO_RDONLY);
        flags |= parent_flags & BDRV_O_PROBE; /* for what the backing file names in turn */
    }
    if (role & BDRV_ROLE_FILTERED) {
        flags |= parent_flags & BDRV_O_NO_BACKING; /* what is shown is the same layer */
    }
    if ((role & BDRV_ROLE_FILTERED) && !(role & BDRV_ROLE_PRIMARY)) {
        flags |= BDRV_O_PROBE; /* an image that was named beside the disk (blkverify) */
    }
    /* What reaches a child was let through by the parent. */
    return flags | BDRV_O_UNMAP;
}

/* Whether a child that is named without a driver is storage. The primary child of a filter is; what
 * it has beside that (blkverify) is an image. */
static bool child_is_protocol(const BlockDriverState *parent, unsigned role)
{
    bool beside = (parent->caps & BDRV_CAP_FILTER) && !(role & BDRV_ROLE_PRIMARY);

    return !(role & BDRV_ROLE_COW) && !beside;
}

struct open_request open_request_for_child(BlockDriverState *parent, const char *filename,
                                           BlockOptions *options, unsigned role, unsigned bounds)
{
    return (struct open_request){
        .pl = parent->pl,
        .filename = filename,
        .options = options,
        .flags = open_child_flags(parent->open_flags, role),
        .parent = parent,
        .bounds = parent->open_bounds | bounds | (role & BDRV_ROLE_COW ? BDRV_OPEN_READ_ONLY : 0),
        .backing_depth = parent->backing_depth + (role & BDRV_ROLE_COW ? 1 : 0),
        .wants_protocol = child_is_protocol(parent, role),
    };
}

BlockDriverState *bdrv_find_reference(Platter *pl, const char *name, Error **errp)
{
    BlockDriverState *bs = bdrv_find_node(pl, name);

    if (bs == NULL) {
        error_set(errp, ENOENT, "Cannot find device='%.*s' nor node-name='%.*s'",
                  BDRV_NODE_NAME_BYTES_MAX, name, BDRV_NODE_NAME_BYTES_MAX, name);
        return NULL;
    }
    bdrv_ref(bs);
    return bs;
}

int bdrv_child_options_take(BlockDriverState *bs, BlockOptions *options, const char *name,
                            struct bdrv_child_options *ret, Error **errp)
{
    char prefix[64];

    *ret = (struct bdrv_child_options){0};
    assert(strlen(name) + 2 <= sizeof(prefix));
    snprintf(prefix, sizeof(prefix), "%s.", name);
    if (block_options_has(options, name)) {
        ret->is_null = block_options_is_null(options, name);
        ret->reference = block_options_get_str(options, name);
        if (ret->reference != NULL && *ret->reference == '\0' && strcmp(name, "backing") == 0) {
            ret->reference = NULL; /* the older spelling of null */
            ret->is_null = true;
        }
        if (ret->reference == NULL && !ret->is_null) {
            return error_set(errp, EINVAL,
                             "Option '%s' of node '%s' must be the name of a node or a group of "
                             "options",
                             name, bdrv_get_told_name(bs));
        }
    }
    if (block_options_has_prefix(options, prefix)) {
        if (ret->reference != NULL || ret->is_null) {
            return error_set(errp, EINVAL, "Option '%s' of node '%s' excludes options '%s...'",
                             name, bdrv_get_told_name(bs), prefix);
        }
        ret->options = block_options_take_prefix(options, prefix);
        if (ret->options == NULL) {
            return open_no_memory(errp);
        }
    }
    return 0;
}

BlockDriverState *open_child_node(BlockDriverState *bs, const char *filename,
                                  struct bdrv_child_options *from, unsigned role, unsigned bounds,
                                  Error **errp)
{
    struct bdrv_opening *opening = bs->opening;
    struct open_request req;

    if (opening != NULL && (role & BDRV_ROLE_PRIMARY)) {
        if (opening->file != NULL) {
            BlockDriverState *file = opening->file;

            assert(from->options == NULL);
            opening->file = NULL;
            return file;
        }
        if (filename == NULL) {
            filename = opening->filename;
            opening->filename = NULL;
        }
    }
    if (from->reference != NULL) {
        if (filename != NULL) {
            error_set(errp, EINVAL, "A file name ('%s') and a reference ('%s') exclude each other",
                      filename, from->reference);
            return NULL;
        }
        if ((bs->open_bounds | bounds) & BDRV_OPEN_NO_REFERENCES) {
            error_set(errp, EPERM, "An image may not refer to a node ('%.*s') of this instance",
                      BDRV_NODE_NAME_BYTES_MAX, from->reference);
            return NULL;
        }
        return bdrv_find_reference(bs->pl, from->reference, errp);
    }
    if (from->options == NULL) {
        from->options = block_options_new();
        if (from->options == NULL) {
            open_no_memory(errp);
            return NULL;
        }
    }
    req = open_request_for_child(bs, filename, from->options, role, bounds);
    return open_request_run(&req, errp);
}

static bool child_is_given(const BlockDriverState *bs, const char *filename,
                           const struct bdrv_child_options *from, unsigned role)
{
    const struct bdrv_opening *opening = bs->opening;

    if (filename != NULL || from->reference != NULL || from->options != NULL) {
        return true;
    }
    return opening != NULL && (role & BDRV_ROLE_PRIMARY) &&
           (opening->file != NULL || opening->filename != NULL);
}

BdrvEdge *bdrv_open_child_within(BlockDriverState *bs, const char *filename, BlockOptions *options,
                                 const char *name, unsigned role, unsigned bounds, bool allow_none,
                                 Error **errp)
{
    struct bdrv_child_options from;
    BlockDriverState *child;
    BdrvEdge *edge;

    assert(instance_in_control_thread(bs->pl));
    if (bdrv_child_options_take(bs, options, name, &from, errp) < 0) {
        return NULL;
    }
    if (!child_is_given(bs, filename, &from, role)) {
        block_options_del(options, name);
        if (!allow_none) {
            error_set(errp, EINVAL, "A block device must be specified for \"%s\"", name);
            error_set_hint(errp, "Give '%s.filename', '%s.driver' or the name of a node as '%s'",
                           name, name, name);
        }
        return NULL;
    }
    child = open_child_node(bs, filename, &from, role, bounds, errp);
    block_options_del(options, name);
    if (child == NULL) {
        return NULL;
    }
    edge = bdrv_attach_child(bs, child, name, role, errp);
    if (edge != NULL) {
        edge->opened_here = from.reference == NULL;
    }
    bdrv_unref(child); /* the edge has its own */
    return edge;
}

BdrvEdge *bdrv_open_child(BlockDriverState *bs, const char *filename, BlockOptions *options,
                          const char *name, unsigned role, bool allow_none, Error **errp)
{
    return bdrv_open_child_within(bs, filename, options, name, role, 0, allow_none, errp);
}
