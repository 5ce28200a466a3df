/* SPDX-License-Identifier: MIT */
/*
 * Opening. A node comes from a positional file name, from options, or both; its children come from
 * the options under their name ("file.driver", ...) or from a reference ("file": "node1"), see
 * open_child.c.
 *
 * O1: what a caller or an image wrote is taken literally where a key names it: only positional file
 *     names have protocols ("nbd:...") and json:{...}; the option filename has not.
 * O2: a child is never more writable than what its parent's options say, by default; options of its
 *     own are the caller's.
 * O3: after a failure nothing of the node remains, and the first error is the one reported.
 * O4: below a backing edge nothing is writable, whoever asks for it.
 * O5: a backing chain is opened from the top down by iteration (backing.c); the stack that an open
 *     needs is bounded by BDRV_OPEN_DEPTH_MAX.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "block/open_int.h"
#include "os/trace.h"
#include "schema/opts.h"
#include "util/error.h"
#include "util/mem.h"
#include "util/options.h"

#define JSON_PREFIX "json:"

int open_no_memory(Error **errp)
{
    return error_set(errp, ENOMEM, "out of memory while opening a node");
}

/* ---- options that every node has ---- */

static void flag_from_option(int *flags, int flag, bool given, bool value)
{
    if (given) {
        *flags = value ? *flags | flag : *flags & ~flag;
    }
}

int open_flags_from_options(const struct opts_node_common *o, int *flags, Error **errp)
{
    flag_from_option(flags, BDRV_O_RDWR, o->has_read_only, !o->read_only);
    flag_from_option(flags, BDRV_O_AUTO_RDONLY, o->has_auto_read_only, o->auto_read_only);
    flag_from_option(flags, BDRV_O_NOCACHE, o->has_cache_direct, o->cache_direct);
    flag_from_option(flags, BDRV_O_NO_FLUSH, o->has_cache_no_flush, o->cache_no_flush);
    flag_from_option(flags, BDRV_O_FORCE_SHARE, o->has_force_share, o->force_share);
    flag_from_option(flags, BDRV_O_UNMAP, o->has_discard, o->discard == OPTS_DISCARD_UNMAP);
    if ((*flags & BDRV_O_FORCE_SHARE) && (*flags & BDRV_O_RDWR)) {
        error_set(errp, EINVAL, "force-share=on can only be used with read-only images");
        error_set_hint(errp, "Add read-only=on");
        return -EINVAL;
    }
    if (o->has_detect_zeroes && o->detect_zeroes == OPTS_DETECT_ZEROES_UNMAP &&
        !(*flags & BDRV_O_UNMAP)) {
        return error_set(errp, EINVAL,
                         "setting detect-zeroes to unmap is not allowed without setting discard "
                         "operation to unmap");
    }
    return 0;
}

enum bdrv_detect_zeroes open_detect_zeroes(const struct opts_node_common *o)
{
    if (!o->has_detect_zeroes || o->detect_zeroes == OPTS_DETECT_ZEROES_OFF) {
        return BDRV_DETECT_ZEROES_OFF;
    }
    return o->detect_zeroes == OPTS_DETECT_ZEROES_ON ? BDRV_DETECT_ZEROES_ON
                                                     : BDRV_DETECT_ZEROES_UNMAP;
}

/* ---- choosing the driver ---- */

/* Move a leading json:{...} into the options; keys given beside it win. */
static int unpack_json(struct open_request *req, Error **errp)
{
    BlockOptions *unpacked;
    int rc;

    if (req->filename == NULL || strncmp(req->filename, JSON_PREFIX, strlen(JSON_PREFIX)) != 0) {
        return 0;
    }
    unpacked = block_options_parse_json(req->filename, errp);
    if (unpacked == NULL) {
        return -EINVAL;
    }
    rc = block_options_put_prefix(unpacked, "", req->options);
    block_options_free(rc < 0 ? unpacked : req->options);
    if (rc < 0) {
        return error_set(errp, -rc, "The options beside '%s...' do not fit it", JSON_PREFIX);
    }
    req->options = unpacked;
    req->filename = NULL;
    return 0;
}

/* Whether anything says what to open: asked before what other options say is judged. */
static int check_named(const struct open_request *req, Error **errp)
{
    const BlockOptions *options = req->options;
    bool named = req->filename != NULL || block_options_has(options, "driver");

    if (!named && req->wants_protocol) {
        named = block_options_get_str(options, "filename") != NULL;
    } else if (!named) {
        named = block_options_has(options, "file") || block_options_has_prefix(options, "file.");
    }
    if (!named) {
        error_set(errp, EINVAL, "Must specify either driver or file");
        error_set_hint(errp, "Give a file name, 'driver' or '%s'",
                       req->wants_protocol ? "filename" : "file.filename");
        return -EINVAL;
    }
    return 0;
}

/* The driver, when options or file name decide it without looking at content. */
static int choose_driver(struct open_request *req, const char *named, const BlockDriver **ret_drv,
                         Error **errp)
{
    const char *filename = req->filename;

    *ret_drv = NULL;
    if (named != NULL) {
        *ret_drv = bdrv_find_driver(named);
        if (*ret_drv != NULL && req->only_protocol && !((*ret_drv)->caps & BDRV_CAP_PROTOCOL)) {
            return error_set(errp, EINVAL, "Driver '%s' does not store bytes itself", named);
        }
        return *ret_drv == NULL ? bdrv_unknown_driver(named, errp) : 0;
    }
    if (!req->wants_protocol) {
        return 0;
    }
    if (filename != NULL) {
        *ret_drv = bdrv_find_protocol(filename, errp);
    } else {
        *ret_drv = bdrv_find_path(block_options_get_str(req->options, "filename"), errp); /* O1 */
    }
    return *ret_drv == NULL ? -EINVAL : 0;
}

/* A format without a driver option: raw, or a guess over the primary child, which then is already
 * open. */
static int guess_format(struct open_request *req, BlockDriverState *bs,
                        struct bdrv_opening *opening, const BlockDriver **ret_drv, Error **errp)
{
    struct bdrv_child_options from;
    const char *shown;

    if (!(req->flags & BDRV_O_PROBE)) {
        *ret_drv = bdrv_find_driver("raw");
        return *ret_drv == NULL ? bdrv_unknown_driver("raw", errp) : 0;
    }
    if (bdrv_child_options_take(bs, req->options, "file", &from, errp) < 0) {
        return -EINVAL;
    }
    opening->filename = req->filename;
    bs->caps = BDRV_CAP_FORMAT;
    opening->file =
        open_child_node(bs, NULL, &from, BDRV_ROLE_FILTERED | BDRV_ROLE_PRIMARY, 0, errp);
    block_options_del(req->options, "file");
    if (opening->file == NULL) {
        return -EINVAL;
    }
    shown = req->filename != NULL ? req->filename : bdrv_get_filename(opening->file);
    req->filename = NULL;
    *ret_drv = bdrv_probe(opening->file, shown, errp);
    bs->probed = *ret_drv != NULL;
    return *ret_drv == NULL ? -EINVAL : 0;
}

/* ---- one node ---- */

/* A positional file name belongs to the protocol itself or to the child that stores the bytes. */
static int place_filename(struct open_request *req, const BlockDriver *drv,
                          struct bdrv_opening *opening, Error **errp)
{
    if (req->filename == NULL) {
        return 0;
    }
    if ((drv->caps & BDRV_CAP_PROTOCOL) || bdrv_speaks_protocol(drv, req->filename)) {
        return bdrv_filename_to_options(drv, req->filename, req->options, errp);
    }
    opening->filename = req->filename;
    return 0;
}

/* A writable node over a read-only file is what auto-read-only is for. Without it whoever wants to
 * write hears of it: the node itself at once, or a parent of a node that has nothing to write. */
static void follow_read_only(BlockDriverState *bs)
{
    if (bs->file != NULL && bs->file->bs->read_only && (bs->open_flags & BDRV_O_AUTO_RDONLY)) {
        bs->open_flags &= ~BDRV_O_RDWR;
        bs->read_only = true;
    }
}

/* Permissions of the children as they are when the node stands complete. */
static int settle_perms(BlockDriverState *bs, Error **errp)
{
    struct node_walk walk = node_walk_begin(bs->pl);
    struct perm_change change;
    int rc;

    node_walk_add_below(&walk, bs);
    rc = perm_change_prepare(&change, &walk, errp);
    if (rc == 0) {
        perm_change_commit(&change);
    }
    return rc;
}

/* The driver's open and all that must be right after it. A failure after the driver was opened
 * closes it. */
static int open_driver(struct open_request *req, BlockDriverState *bs, Error **errp)
{
    struct bdrv_opening *opening = bs->opening;
    Error *err = NULL;
    int rc = bs->drv->open(bs, req->options, bs->open_flags, &err);

    bs->opening = NULL;
    bdrv_unref(opening->file);
    opening->file = NULL;
    if (rc < 0) {
        if (err == NULL) {
            error_set_errno(&err, -rc, "Driver '%s' could not open the node", bs->drv->format_name);
        }
        error_propagate(errp, err);
        return rc;
    }
    rc = opening->filename != NULL
             ? error_set(errp, EINVAL, "Driver '%s' takes no file name, but got '%s'",
                         bs->drv->format_name, opening->filename)
             : bdrv_refuse_options(bs->drv, req->options, errp);
    if (rc == 0) {
        follow_read_only(bs);
        rc = settle_perms(bs, errp);
    }
    bs->has_file_id =
        rc == 0 && bs->drv->get_file_id != NULL && bs->drv->get_file_id(bs, &bs->file_id);
    if (rc == 0) {
        int64_t size;

        graph_settle(bs);
        size = bdrv_getlength(bs);
        if (size < 0 && size != -ENOMEDIUM) {
            rc = error_set_errno(errp, (int)-size, "Could not find out the size of node '%s'",
                                 bdrv_get_told_name(bs));
        }
    }
    if (rc < 0 && bs->drv->close != NULL) {
        bs->drv->close(bs);
    }
    if (rc == 0 && bs->drv->drained_begin != NULL) {
        bs->drain_hook = true;
        bs->pl->drain_hooks++;
        drain_update_drivers(bs->pl);
    }
    return rc;
}

/* Fill a new node in. */
static int open_node(struct open_request *req, const struct opts_node_common *common,
                     BlockDriverState *bs, Error **errp)
{
    struct bdrv_opening opening = {0};
    const BlockDriver *drv;
    int rc;

    bs->open_flags = req->flags;
    bs->read_only = !(req->flags & BDRV_O_RDWR);
    bs->detect_zeroes = open_detect_zeroes(common);
    bs->opened_under = req->parent;
    bs->open_bounds = req->bounds;
    bs->backing_depth = req->backing_depth;
    bs->opening = &opening;
    rc = choose_driver(req, common->has_driver ? common->driver : NULL, &drv, errp);
    if (rc == 0 && drv == NULL) {
        rc = guess_format(req, bs, &opening, &drv, errp);
    }
    if (rc == 0) {
        rc = place_filename(req, drv, &opening, errp);
    }
    if (rc == 0) {
        rc = node_set_driver(bs, drv);
        if (rc < 0) {
            open_no_memory(errp);
        }
    }
    if (rc == 0) {
        rc = open_driver(req, bs, errp);
    }
    bs->opening = NULL;
    bdrv_unref(opening.file);
    return rc;
}

/* What no option changes: below a backing edge nothing is writable (O4), and an image does not make
 * us open nodes without end. */
static int check_bounds(const struct open_request *req, Error **errp)
{
    Platter *pl = req->pl;

    if ((req->bounds & BDRV_OPEN_READ_ONLY) && (req->flags & BDRV_O_RDWR)) {
        return error_set(errp, EPERM, "A backing file cannot be opened with read-only=off");
    }
    if ((req->bounds & BDRV_OPEN_FROM_IMAGE) &&
        pl->open_refs++ >= BDRV_OPEN_REFS_PER_LAYER * (pl->backing_depth_max + 1)) {
        return error_set(errp, ELOOP, "The images name more than %u files to open",
                         BDRV_OPEN_REFS_PER_LAYER * (pl->backing_depth_max + 1));
    }
    return 0;
}

/* A positional name that is none is told before whatever is wrong with the flags. */
static int check_name(const struct open_request *req, const struct opts_node_common *common,
                      Error **errp)
{
    const BlockDriver *drv = common->has_driver ? bdrv_find_driver(common->driver) : NULL;
    BlockOptions *scratch;
    int rc;

    if (req->filename == NULL) {
        return 0;
    }
    if (drv == NULL || (drv->caps & BDRV_CAP_FORMAT)) { /* the name is for the child */
        drv = bdrv_find_protocol(req->filename, errp);
    } else if (!(drv->caps & BDRV_CAP_PROTOCOL) && !bdrv_speaks_protocol(drv, req->filename)) {
        return 0;
    }
    if (drv == NULL) {
        return -EINVAL;
    }
    scratch = block_options_new();
    rc = scratch != NULL ? bdrv_filename_to_options(drv, req->filename, scratch, errp)
                         : open_no_memory(errp);
    block_options_free(scratch);
    return rc;
}

static BlockDriverState *open_with_common(struct open_request *req,
                                          const struct opts_node_common *common, Error **errp)
{
    BlockDriverState *bs;

    if (common->has_driver && bdrv_find_driver(common->driver) == NULL) {
        bdrv_unknown_driver(common->driver, errp);
        return NULL;
    }
    if (check_name(req, common, errp) < 0 ||
        open_flags_from_options(common, &req->flags, errp) < 0 || check_bounds(req, errp) < 0) {
        return NULL;
    }
    bs = node_new(req->pl, common->has_node_name ? common->node_name : NULL, errp);
    if (bs == NULL) {
        return NULL;
    }
    if (open_node(req, common, bs, errp) < 0) {
        node_abandon(bs);
        return NULL;
    }
    /* Nodes are listed in the order in which they became whole: what a node opened, before it. */
    TAILQ_REMOVE(&req->pl->nodes, bs, in_instance);
    TAILQ_INSERT_TAIL(&req->pl->nodes, bs, in_instance);
    return bs;
}

/* Without its backing file. Ends req->options. */
static BlockDriverState *open_one(struct open_request *req, Error **errp)
{
    struct opts_node_common common;
    BlockDriverState *bs = NULL;
    BlockOptions *kept = NULL;

    if (unpack_json(req, errp) < 0 || check_named(req, errp) < 0) {
        goto out;
    }
    kept = block_options_copy(req->options);
    if (kept == NULL) {
        open_no_memory(errp);
        goto out;
    }
    if (opts_node_common_parse(req->options, &common, errp) < 0) {
        goto out;
    }
    bs = open_with_common(req, &common, errp);
    opts_node_common_fini(&common);
    if (bs != NULL) {
        bs->options = kept;
        kept = NULL;
    }
out:
    block_options_free(kept);
    block_options_free(req->options);
    req->options = NULL;
    return bs;
}

/* With its chain. Ends req->options. */
BlockDriverState *open_request_run(struct open_request *req, Error **errp)
{
    Platter *pl = req->pl;
    BlockDriverState *bs;

    if (pl->open_nesting >= BDRV_OPEN_DEPTH_MAX) {
        block_options_free(req->options);
        error_set(errp, ELOOP, "Nodes are nested more than %d deep", BDRV_OPEN_DEPTH_MAX);
        return NULL;
    }
    if (pl->open_nesting++ == 0) {
        pl->open_refs = 0;
    }
    bs = open_one(req, errp);
    if (bs != NULL && backing_open_chain(bs, errp) < 0) {
        bdrv_unref(bs);
        bs = NULL;
    }
    pl->open_nesting--;
    return bs;
}

BlockDriverState *bdrv_open_backing_node(BlockDriverState *parent, const char *filename,
                                         BlockOptions *options, unsigned bounds, Error **errp)
{
    struct open_request req =
        open_request_for_child(parent, filename, options, BDRV_ROLE_COW, bounds);

    return open_one(&req, errp);
}

/* ---- the public door ---- */

static BlockDriverState *open_reference(Platter *pl, const char *filename, const char *reference,
                                        const BlockOptions *options, Error **errp)
{
    if (filename != NULL || (options != NULL && block_options_count(options) > 0)) {
        error_set(errp, EINVAL, "A reference to node '%.*s' takes neither file name nor options",
                  BDRV_NODE_NAME_BYTES_MAX, reference);
        return NULL;
    }
    return bdrv_find_reference(pl, reference, errp);
}

BlockDriverState *bdrv_open(Platter *pl, const char *filename, const char *reference,
                            BlockOptions *options, int flags, Error **errp)
{
    struct open_request req = {
        .pl = pl,
        .filename = filename,
        .options = options,
        .flags = flags,
    };
    BlockDriverState *bs;

    instance_control(pl);
    if (reference != NULL) {
        bs = open_reference(pl, filename, reference, options, errp);
        block_options_free(options);
        return bs;
    }
    if (req.options == NULL) {
        req.options = block_options_new();
        if (req.options == NULL) {
            open_no_memory(errp);
            return NULL;
        }
    }
    bs = open_request_run(&req, errp);
    if (bs != NULL) {
        TRACE(node_open, bs->node_name, bdrv_get_format_name(bs));
    }
    graph_tell_sizes(pl);
    return bs;
}

BlockDriverState *bdrv_open_storage(Platter *pl, const char *filename, int flags, Error **errp)
{
    struct open_request req = {
        .pl = pl,
        .filename = filename,
        .options = block_options_new(),
        .flags = flags,
        .wants_protocol = true,
        .only_protocol = true,
    };

    if (req.options == NULL) {
        open_no_memory(errp);
        return NULL;
    }
    return open_request_run(&req, errp);
}
