/* SPDX-License-Identifier: MIT */
/*
 * Operations on an image as a whole: the door they all go through, and those that check, amend and
 * measure. Snapshots are in snapshot.c, facts in inspect.c.
 *
 * Invariants
 *  I1 while an operation runs, its node is drained and held by an edge of ours with the permissions
 *     that the operation needs: a user that does not share them is not surprised, it refuses.
 *  I2 what completed before the operation was flushed before it.
 *  I3 an operation that may change something counts as a change for the next flush, failed or not.
 *  I4 one runs at a time: a drain waits for the coroutine of the one that runs, so that what comes
 *     from within its polling (a command of a client, say) begins when that is through.
 */
#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/graph_int.h"
#include "block/image.h"
#include "block/request.h"
#include "util/error.h"
#include "util/mem.h"
#include "util/options.h"

#define PERM_CHANGES (BDRV_PERM_WRITE | BDRV_PERM_WRITE_UNCHANGED | BDRV_PERM_RESIZE)

/* ---- the door ---- */

struct image_call {
    BlockDriverState *bs;
    const struct image_op *op;
    void *args;
    Error **errp;
    bool running; /* its coroutine */
};

static void image_describe(void *parent, char *buf, size_t size)
{
    const struct image_call *call = parent;

    snprintf(buf, size, "%s", call->op->name);
}

/* Keeps I4. */
static bool image_drained_poll(BdrvEdge *edge)
{
    const struct image_call *call = edge->parent;

    return call->running;
}

static const struct bdrv_parent_class image_parent_class = {
    .describe = image_describe,
    .drained_poll = image_drained_poll,
};

static int image_work_co(const struct image_call *call)
{
    BlockDriverState *bs = call->bs;
    Error *err = NULL;
    int ret = bdrv_node_flush_co(bs);

    if (ret < 0) {
        return error_set_errno(call->errp, -ret, "Could not flush node '%s' before %s",
                               bdrv_get_told_name(bs), call->op->name);
    }
    ret = call->op->run_co(bs, call->args, &err);
    assert(ret <= 0);
    if (ret < 0 && err == NULL) {
        error_set_errno(&err, -ret, "Node '%s' failed at %s", bdrv_get_told_name(bs),
                        call->op->name);
    }
    error_propagate(call->errp, err);
    return ret;
}

static int image_run_co(void *opaque)
{
    struct image_call *call = opaque;
    int ret = image_work_co(call);

    call->running = false;
    aio_notify(call->bs->pl->main_ctx); /* a drain may wait for it */
    return ret;
}

BlockDriverState *image_node(BlockDriverState *bs, const struct image_op *op, int *ret,
                             Error **errp)
{
    while (bs->drv != NULL && !op->has(bs->drv) && bdrv_forwards(bs)) {
        bs = bs->file->bs;
    }
    if (bs->drv == NULL) {
        *ret = error_set(errp, ENOMEDIUM, "Node '%s' holds no medium", bdrv_get_told_name(bs));
        return NULL;
    }
    if (!op->has(bs->drv)) {
        *ret = error_set(errp, ENOTSUP, "Driver '%s' of node '%s' does not support %s",
                         bs->drv->format_name, bdrv_get_told_name(bs), op->name);
        return NULL;
    }
    return bs;
}

static int image_may_run(BlockDriverState *bs, const struct image_op *op, Error **errp)
{
    const char *reason = bdrv_broken_reason(bs);

    if (reason != NULL) {
        return error_set(errp, EIO, "Node '%s' cannot be used any more: %s", bdrv_get_told_name(bs),
                         reason);
    }
    if (bs->read_only && (op->perm & PERM_CHANGES)) {
        return error_set(errp, EPERM,
                         "Node '%s' (driver '%s') is read-only, which does not allow %s",
                         bdrv_get_told_name(bs), bs->drv->format_name, op->name);
    }
    return 0;
}

/* Drained, and held. Keeps I3. */
static int image_run_held(struct image_call *call, Error **errp)
{
    BlockDriverState *bs = call->bs;
    Error *err = NULL;
    int ret;

    call->errp = &err;
    call->running = true;
    ret = bdrv_run_co(image_run_co, call);
    call->running = false;
    if (ret == -ENOMEM && err == NULL) {
        error_set(&err, ENOMEM, "out of memory");
    }
    error_propagate(errp, err);
    atomic_fetch_add_explicit(&bs->write_gen, 1, memory_order_release);
    (void)bdrv_refresh_size(bs);
    return ret;
}

int image_run(BlockDriverState *bs, const struct image_op *op, void *args, Error **errp)
{
    struct image_call call = {.op = op, .args = args};
    Error *err = NULL;
    BdrvEdge *edge;
    int ret;

    instance_control(bs->pl);
    bs = image_node(bs, op, &ret, errp);
    if (bs == NULL) {
        return ret;
    }
    ret = image_may_run(bs, op, errp);
    if (ret < 0) {
        return ret;
    }
    call.bs = bs;
    edge = bdrv_root_attach(bs, "image", &image_parent_class, &call, op->perm, BDRV_PERM_ALL, &err);
    if (edge == NULL) {
        ret = -error_get_errno(err); /* -EPERM, or what the storage says of its locks */
        error_propagate(errp, err);
        return ret;
    }
    bdrv_drained_begin(bs);
    ret = image_run_held(&call, errp);
    bdrv_drained_end(bs);
    bdrv_root_detach(edge);
    return ret;
}

/* ---- check ---- */

struct check_args {
    struct bdrv_check_options options;
    struct bdrv_check_result result;
};

static bool has_check(const BlockDriver *drv)
{
    return drv->image != NULL && drv->image->check_co != NULL;
}

static int check_run_co(BlockDriverState *bs, void *args, Error **errp)
{
    struct check_args *a = args;

    return bs->drv->image->check_co(bs, &a->options, &a->result, errp);
}

static const struct image_op op_check = {
    .name = "checking",
    .perm = BDRV_PERM_CONSISTENT_READ,
    .has = has_check,
    .run_co = check_run_co,
};

static const struct image_op op_repair = {
    .name = "repairing",
    .perm = BDRV_PERM_CONSISTENT_READ | BDRV_PERM_WRITE,
    .has = has_check,
    .run_co = check_run_co,
};

static int check_options_read(const struct bdrv_check_options *given,
                              struct bdrv_check_options *ret, Error **errp)
{
    *ret = (struct bdrv_check_options){.size = sizeof(*ret)};
    if (given == NULL) {
        return 0;
    }
    if (given->size < offsetof(struct bdrv_check_options, progress)) {
        return error_set(errp, EINVAL, "struct bdrv_check_options of %zu bytes is too small",
                         given->size);
    }
    memcpy(ret, given, given->size < sizeof(*ret) ? given->size : sizeof(*ret));
    ret->size = sizeof(*ret);
    if (ret->fix & ~(unsigned)(BDRV_FIX_LEAKS | BDRV_FIX_ERRORS)) {
        return error_set(errp, EINVAL, "Unknown flags 0x%x for checking", ret->fix);
    }
    return 0;
}

int bdrv_check(BlockDriverState *bs, const struct bdrv_check_options *options,
               struct bdrv_check_result *ret_result, Error **errp)
{
    struct check_args args = {0};
    int ret = check_options_read(options, &args.options, errp);

    if (ret == 0) {
        ret = image_run(bs, args.options.fix != 0 ? &op_repair : &op_check, &args, errp);
    }
    if (ret == 0) {
        *ret_result = args.result;
    }
    return ret;
}

/* ---- amend ---- */

struct amend_args {
    BlockOptions *options; /* borrowed */
    bool force;
    const struct bdrv_progress *progress;
};

static bool has_amend(const BlockDriver *drv)
{
    return drv->image != NULL && drv->image->amend_co != NULL;
}

static int amend_run_co(BlockDriverState *bs, void *args, Error **errp)
{
    const struct amend_args *a = args;

    return bs->drv->image->amend_co(bs, a->options, a->force, a->progress, errp);
}

static const struct image_op op_amend = {
    .name = "changing options of the image",
    .perm = BDRV_PERM_WRITE | BDRV_PERM_RESIZE,
    .has = has_amend,
    .run_co = amend_run_co,
};

static int amend(BlockDriverState *bs, const struct amend_args *args, Error **errp)
{
    const BlockDriverState *node;
    struct amend_args a = *args;
    char of[128];
    int ret;

    node = image_node(bs, &op_amend, &ret, errp);
    if (node == NULL) {
        return ret;
    }
    ret = bdrv_refuse_unknown_keys(node->drv->image->amend_keys, args->options, errp);
    if (ret == 0) {
        ret = image_run(bs, &op_amend, &a, errp);
    }
    if (ret == 0) {
        snprintf(of, sizeof(of), "Amending with driver '%s'", node->drv->format_name);
        ret = block_options_refuse_rest(args->options, of, errp);
    }
    return ret;
}

int bdrv_amend(BlockDriverState *bs, BlockOptions *options, bool force,
               const struct bdrv_progress *progress, Error **errp)
{
    struct amend_args args = {.options = options, .force = force, .progress = progress};
    int ret;

    if (args.options == NULL) {
        args.options = block_options_new();
        if (args.options == NULL) {
            return error_set(errp, ENOMEM, "out of memory");
        }
    }
    ret = amend(bs, &args, errp);
    block_options_free(args.options);
    return ret;
}

/* ---- make empty ---- */

static bool has_make_empty(const BlockDriver *drv)
{
    return drv->image != NULL && drv->image->make_empty_co != NULL;
}

static int make_empty_run_co(BlockDriverState *bs, void *args, Error **errp)
{
    return bs->drv->image->make_empty_co(bs, errp);
}

static const struct image_op op_make_empty = {
    .name = "emptying the image",
    .perm = BDRV_PERM_WRITE,
    .has = has_make_empty,
    .run_co = make_empty_run_co,
};

int bdrv_make_empty(BlockDriverState *bs, Error **errp)
{
    return image_run(bs, &op_make_empty, NULL, errp);
}

/* ---- measure ---- */

static int measure(Platter *pl, const BlockDriver *drv, BlockOptions *options,
                   BlockDriverState *source, struct bdrv_measure_result *ret_result, Error **errp)
{
    struct bdrv_measure_result result = {0};
    char of[128];
    int ret;

    if (drv->image == NULL || drv->image->measure == NULL) {
        return error_set(errp, ENOTSUP,
                         drv->create ? "Block driver '%s' does not support size measurement"
                                     : "Format driver '%s' does not support image creation",
                         drv->format_name);
    }
    ret = bdrv_refuse_unknown_keys(drv->create_keys, options, errp);
    if (ret < 0) {
        return ret;
    }
    if (source != NULL) {
        bdrv_drained_begin(source);
    }
    ret = drv->image->measure(pl, options, source, &result, errp);
    if (source != NULL) {
        bdrv_drained_end(source);
    }
    if (ret == 0) {
        snprintf(of, sizeof(of), "Creating with driver '%s'", drv->format_name);
        ret = block_options_refuse_rest(options, of, errp);
    }
    if (ret == 0) {
        *ret_result = result;
    }
    return ret;
}

int bdrv_measure(Platter *pl, const char *format, BlockOptions *options, BlockDriverState *source,
                 struct bdrv_measure_result *ret_result, Error **errp)
{
    const BlockDriver *drv = bdrv_find_driver(format);
    int ret;

    instance_control(pl);
    if (options == NULL) {
        options = block_options_new();
        if (options == NULL) {
            return error_set(errp, ENOMEM, "out of memory");
        }
    }
    ret = drv != NULL ? measure(pl, drv, options, source, ret_result, errp)
                      : bdrv_unknown_driver(format, errp);
    block_options_free(options);
    return ret;
}

static int stream_head(const BlockDriver *drv, BlockOptions *options,
                       const struct bdrv_stream_layout *layout, uint32_t *ret_unit_bytes,
                       Error **errp)
{
    char of[128];
    int ret;

    if (drv->image == NULL || drv->image->stream_head == NULL) {
        return error_set(errp, ENOTSUP, "Driver '%s' cannot write an image as a stream",
                         drv->format_name);
    }
    ret = bdrv_refuse_unknown_keys(drv->create_keys, options, errp);
    if (ret == 0) {
        ret = drv->image->stream_head(options, layout, ret_unit_bytes, errp);
    }
    if (ret == 0) {
        snprintf(of, sizeof(of), "Creating with driver '%s'", drv->format_name);
        ret = block_options_refuse_rest(options, of, errp);
    }
    return ret;
}

int bdrv_stream_head(Platter *pl, const char *format, BlockOptions *options,
                     const struct bdrv_stream_layout *layout, uint32_t *ret_unit_bytes,
                     Error **errp)
{
    const BlockDriver *drv = bdrv_find_driver(format);
    int ret;

    assert(instance_in_control_thread(pl) && layout->size >= sizeof(*layout));
    if (options == NULL) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    ret = drv != NULL ? stream_head(drv, options, layout, ret_unit_bytes, errp)
                      : bdrv_unknown_driver(format, errp);
    block_options_free(options);
    return ret;
}

struct status_args {
    BdrvEdge *edge;
    uint64_t offset;
    uint64_t bytes;
    struct bdrv_status *status;
};

static int status_run_co(void *opaque)
{
    const struct status_args *a = opaque;

    return bdrv_edge_status_above_co(a->edge, true, a->offset, a->bytes, a->status, NULL);
}

int bdrv_measure_status(BlockDriverState *source, uint64_t offset, uint64_t bytes,
                        struct bdrv_status *ret_status)
{
    BdrvEdge edge = {.bs = source, .klass = &image_parent_class}; /* nobody's, and only asks */
    struct status_args args = {
        .edge = &edge, .offset = offset, .bytes = bytes, .status = ret_status};

    instance_control(source->pl);
    return bdrv_run_co(status_run_co, &args);
}
