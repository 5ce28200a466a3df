/* SPDX-License-Identifier: MIT */
/* Commands that make, change and end nodes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <platter/graph.h>

#include "block/node.h"
#include "control/control.h"
#include "control/parts.h"
#include "schema/qmp.h"
#include "util/error.h"
#include "util/options.h"

#define REOPEN_MAX 256 /* nodes at a time */

int qmp_blockdev_add(struct qmp_call *call, json_t *args, Error **errp)
{
    BlockOptions *options;

    if (!json_is_string(json_object_get(args, "node-name"))) {
        return error_set(errp, EINVAL, "'node-name' must be specified for the root node");
    }
    options = block_options_from_json(args, errp);
    return options ? control_add_node(call->control, options, errp) : -EINVAL;
}

static struct control_node *find_own(struct control *c, BlockDriverState *bs)
{
    struct control_node *node;

    LIST_FOREACH (node, &c->nodes, entry) {
        if (node->bs == bs) {
            return node;
        }
    }
    return NULL;
}

/* Whether something uses bs by itself: an export, a job, a device. */
static bool has_backend(const BlockDriverState *bs)
{
    BdrvEdge *edge;

    TAILQ_FOREACH (edge, &bs->parents, in_child) {
        if (!edge->klass->parent_is_node) {
            return true;
        }
    }
    return false;
}

/* The node whose backing image bs is; NULL: of none. */
static const BlockDriverState *find_overlay(const BlockDriverState *bs)
{
    BdrvEdge *edge;

    TAILQ_FOREACH (edge, &bs->parents, in_child) {
        if (edge->klass->parent_is_node && strcmp(edge->name, "backing") == 0) {
            return edge->parent;
        }
    }
    return NULL;
}

int qmp_blockdev_del(struct qmp_call *call, const struct qmp_blockdev_del *args, Error **errp)
{
    struct control *c = call->control;
    BlockDriverState *bs = bdrv_find_node(c->pl, args->node_name);
    const BlockDriverState *overlay;
    struct control_node *node;

    if (!bs) {
        return error_set(errp, ENOENT, "Failed to find node with node-name='%s'", args->node_name);
    }
    node = find_own(c, bs);
    if (!node) {
        return error_set(errp, EPERM, "Node %s is not owned by the monitor", args->node_name);
    }
    if (has_backend(bs)) {
        return error_set(errp, EBUSY, "Node %s is in use", args->node_name);
    }
    overlay = find_overlay(bs);
    if (overlay) {
        return error_set(errp, EBUSY, "Node '%s' is busy: node is used as backing hd of '%s'",
                         args->node_name, bdrv_get_node_name(overlay));
    }
    if (bdrv_get_refcnt(bs) > 1) {
        return error_set(errp, EBUSY, "Block device %s is in use", args->node_name);
    }
    LIST_REMOVE(node, entry);
    free(node);
    bdrv_unref(bs);
    return 0;
}

/* A backend for one operation on a node. NULL with errp. */
static BlockBackend *borrow_node(struct control *c, BlockDriverState *bs, uint64_t perm,
                                 Error **errp)
{
    BlockBackend *blk = blk_new_hidden(c->pl, errp);

    if (blk &&
        (blk_set_perm(blk, perm, BDRV_PERM_ALL, errp) < 0 || blk_insert_bs(blk, bs, errp) < 0)) {
        blk_unref(blk);
        return NULL;
    }
    return blk;
}

int qmp_block_resize(struct qmp_call *call, const struct qmp_block_resize *args, Error **errp)
{
    BlockDriverState *bs = control_find_root(call->control, args->device, args->node_name, errp);
    BlockBackend *blk;
    int ret;

    if (!bs) {
        return -ENOENT;
    }
    if (args->size < 0) {
        return error_set(errp, EINVAL, "Parameter 'size' expects a >0 size");
    }
    blk = borrow_node(call->control, bs, BDRV_PERM_RESIZE, errp);
    if (!blk) {
        return -EINVAL;
    }
    ret = blk_op_is_blocked(blk, BLOCK_OP_TYPE_RESIZE, errp)
              ? -EBUSY
              : control_exports_keep_size(call->control, bs, errp);
    if (ret == 0) {
        ret = blk_resize(blk, args->size, true, BDRV_PREALLOC_OFF, errp);
    }
    blk_unref(blk);
    return ret;
}

/* ---- nodes that change while they are in use ---- */

int qmp_blockdev_reopen(struct qmp_call *call, const struct qmp_blockdev_reopen *args, Error **errp)
{
    size_t count = json_array_size(args->options);
    struct bdrv_reopen *nodes;
    int ret = 0;

    if (count > REOPEN_MAX) {
        return error_set(errp, E2BIG, "%zu nodes to reopen: %d at the most", count, REOPEN_MAX);
    }
    nodes = calloc(count + 1, sizeof(*nodes));
    if (!nodes) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    for (size_t i = 0; i < count && ret == 0; i++) {
        json_t *object = json_array_get(args->options, i);

        if (!json_object_get(object, "node-name")) {
            ret = error_set(errp, EINVAL, "node-name not specified");
        } else {
            nodes[i].options = block_options_from_json(object, errp);
            ret = nodes[i].options ? 0 : -EINVAL;
        }
    }
    if (ret == 0) {
        ret = bdrv_reopen_with_options(call->control->pl, nodes, count, errp);
    } else {
        for (size_t i = 0; i < count; i++) {
            block_options_free(nodes[i].options);
        }
    }
    free(nodes);
    return ret;
}

int qmp_block_set_write_threshold(struct qmp_call *call,
                                  const struct qmp_block_set_write_threshold *args, Error **errp)
{
    BlockDriverState *bs = control_find_root(call->control, args->node_name, args->node_name, NULL);

    return bs ? bdrv_set_write_threshold(bs, args->write_threshold, errp)
              : error_set(errp, ENOENT, "Device '%s' not found", args->node_name);
}

int qmp_blockdev_insert_filter(struct qmp_call *call, const struct qmp_blockdev_insert_filter *args,
                               Error **errp)
{
    struct control *c = call->control;
    BlockDriverState *bs = control_find_node(c, args->node_name, errp);
    struct control_node *node;
    BlockOptions *options;

    if (!bs) {
        return -ENOENT;
    }
    if (!json_is_object(args->options) ||
        !json_is_string(json_object_get(args->options, "node-name"))) {
        return error_set(errp, EINVAL, "'node-name' must be specified for the filter");
    }
    node = malloc(sizeof(*node));
    if (!node) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    options = block_options_from_json(args->options, errp);
    if (!options) {
        free(node);
        return -EINVAL;
    }
    node->bs = bdrv_insert_filter(bs, options, NULL, 0, errp);
    if (!node->bs) {
        free(node);
        return -EINVAL;
    }
    LIST_INSERT_HEAD(&c->nodes, node, entry);
    return 0;
}

int qmp_blockdev_remove_filter(struct qmp_call *call, const struct qmp_blockdev_remove_filter *args,
                               Error **errp)
{
    struct control *c = call->control;
    BlockDriverState *bs = control_find_node(c, args->node_name, errp);
    struct control_node *node = bs ? find_own(c, bs) : NULL;
    int ret;

    if (!node) {
        return bs ? error_set(errp, EPERM, "Node %s is not owned by the monitor", args->node_name)
                  : -ENOENT;
    }
    ret = bdrv_remove_filter(bs, errp);
    if (ret == 0) {
        LIST_REMOVE(node, entry);
        free(node);
        bdrv_unref(bs);
    }
    return ret;
}
