/* SPDX-License-Identifier: MIT */
/* Commands that make, change and end nodes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/control.h"
#include "schema/qmp.h"
#include "util/error.h"
#include "util/options.h"

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

int qmp_blockdev_del(struct qmp_call *call, const struct qmp_blockdev_del *args, Error **errp)
{
    struct control *c = call->control;
    BlockDriverState *bs = bdrv_find_node(c->pl, args->node_name);
    struct control_node *node;

    if (!bs) {
        return error_set(errp, ENOENT, "Failed to find node with node-name='%s'", args->node_name);
    }
    node = find_own(c, bs);
    if (!node) {
        return error_set(errp, EPERM, "Node %s is not owned by the monitor", args->node_name);
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
              : blk_resize(blk, args->size, true, BDRV_PREALLOC_OFF, errp);
    blk_unref(blk);
    return ret;
}
