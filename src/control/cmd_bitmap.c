/* SPDX-License-Identifier: MIT */
/* Dirty bitmaps, one by one and as actions of a transaction. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <platter/bitmap.h>

#include "control/transaction.h"
#include "util/error.h"

/* The node, or the medium of the backend, whose bitmap is meant. NULL with errp. */
static BlockDriverState *find_node(struct control *c, const char *node, Error **errp)
{
    BlockDriverState *bs = control_find_root(c, node, node, NULL);

    if (!bs) {
        error_set(errp, ENOENT, "Node '%s' not found", node);
    }
    return bs;
}

/* ---- actions ---- */

int action_bitmap_add(struct control *c, BdrvTransaction *t,
                      const struct qmp_block_dirty_bitmap_add *args, Error **errp)
{
    BlockDriverState *bs = control_find_root(c, args->node, args->node, errp);
    unsigned flags = (args->has_persistent && args->persistent ? BDRV_BITMAP_PERSISTENT : 0) |
                     (args->has_disabled && args->disabled ? BDRV_BITMAP_DISABLED : 0);

    if (!bs) {
        return -ENOENT;
    }
    if (*args->name == '\0') {
        return error_set(errp, EINVAL, "Bitmap name cannot be empty");
    }
    if (args->has_granularity && args->granularity == 0) {
        return error_set(errp, EINVAL, "Granularity must be power of 2");
    }
    bdrv_transaction_bitmap_add(t, bs, args->name, args->has_granularity ? args->granularity : 0,
                                flags);
    return 0;
}

/* Removing takes a bitmap out of the image, which cannot be taken back: it is done when all else is
 * well, and until then it only has to be one that can go. */
struct named_action {
    BlockDriverState *bs; /* counted by the transaction */
    char name[];
};

static int exists_prepare(void *opaque, Error **errp)
{
    struct named_action *a = opaque;

    return bdrv_bitmap_find(a->bs, a->name)
               ? 0
               : error_set(errp, ENOENT, "Dirty bitmap '%s' not found", a->name);
}

static int remove_prepare(void *opaque, Error **errp)
{
    struct named_action *a = opaque;
    struct bdrv_bitmap_info info;
    int ret = exists_prepare(opaque, errp);

    if (ret < 0) {
        return ret;
    }
    bdrv_bitmap_get_info(bdrv_bitmap_find(a->bs, a->name), &info);
    return info.busy ? error_set(errp, EBUSY,
                                 "Bitmap '%s' is currently in use by another operation and cannot "
                                 "be used",
                                 a->name)
                     : 0;
}

/* Where the image cannot be written the bitmap stays, as any change that was lost would. */
static void remove_commit(void *opaque)
{
    struct named_action *a = opaque;
    BdrvDirtyBitmap *bitmap = bdrv_bitmap_find(a->bs, a->name);

    if (bitmap) {
        bdrv_bitmap_remove(bitmap, NULL);
    }
}

static const struct bdrv_action_ops remove_ops = {
    .prepare = remove_prepare,
    .commit = remove_commit,
    .clean = free,
};
static const struct bdrv_action_ops exists_ops = {
    .prepare = exists_prepare,
    .clean = free,
};

static int add_named(BdrvTransaction *t, BlockDriverState *bs, const char *name,
                     const struct bdrv_action_ops *ops, Error **errp)
{
    size_t bytes = strlen(name) + 1;
    struct named_action *a = malloc(sizeof(*a) + bytes);

    if (!a) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    a->bs = bs;
    memcpy(a->name, name, bytes);
    bdrv_transaction_add(t, bs, ops, a);
    return 0;
}

int action_bitmap_remove(struct control *c, BdrvTransaction *t,
                         const struct qmp_block_dirty_bitmap *args, Error **errp)
{
    BlockDriverState *bs = find_node(c, args->node, errp);

    return bs ? add_named(t, bs, args->name, &remove_ops, errp) : -ENOENT;
}

int action_bitmap_clear(struct control *c, BdrvTransaction *t,
                        const struct qmp_block_dirty_bitmap *args, Error **errp)
{
    BlockDriverState *bs = find_node(c, args->node, errp);

    if (bs) {
        bdrv_transaction_bitmap_clear(t, bs, args->name);
    }
    return bs ? 0 : -ENOENT;
}

int action_bitmap_enable(struct control *c, BdrvTransaction *t,
                         const struct qmp_block_dirty_bitmap *args, bool enable, Error **errp)
{
    BlockDriverState *bs = find_node(c, args->node, errp);

    if (bs) {
        bdrv_transaction_bitmap_enable(t, bs, args->name, enable);
    }
    return bs ? 0 : -ENOENT;
}

int action_bitmap_merge(struct control *c, BdrvTransaction *t,
                        const struct qmp_block_dirty_bitmap_merge *args, Error **errp)
{
    BlockDriverState *bs = find_node(c, args->node, errp);
    int ret = bs ? add_named(t, bs, args->target, &exists_ops, errp) : -ENOENT;
    json_t *source;
    size_t i;

    if (ret < 0) {
        return ret;
    }
    json_array_foreach(args->bitmaps, i, source)
    {
        const char *node = json_string_value(json_object_get(source, "node"));
        const char *name = json_is_string(source)
                               ? json_string_value(source)
                               : json_string_value(json_object_get(source, "name"));
        BlockDriverState *from = node ? control_find_root(c, node, node, errp) : bs;

        if (!from) {
            return -ENOENT;
        }
        bdrv_transaction_bitmap_merge(t, bs, args->target, from, name);
    }
    return 0;
}

/* ---- the commands: one action each ---- */

int qmp_block_dirty_bitmap_remove(struct qmp_call *call, const struct qmp_block_dirty_bitmap *args,
                                  Error **errp)
{
    BlockDriverState *bs = find_node(call->control, args->node, errp);
    BdrvDirtyBitmap *bitmap = bs ? bdrv_bitmap_find(bs, args->name) : NULL;

    if (bs && !bitmap) {
        return error_set(errp, ENOENT, "Dirty bitmap '%s' not found", args->name);
    }
    return bitmap ? bdrv_bitmap_remove(bitmap, errp) : -ENOENT;
}

#define BITMAP_COMMAND(name, type, add)                                                            \
    int qmp_block_dirty_bitmap_##name(struct qmp_call *call, const struct type *args,              \
                                      Error **errp)                                                \
    {                                                                                              \
        BdrvTransaction *t = bdrv_transaction_new(call->control->pl);                              \
                                                                                                   \
        return transaction_finish(t, add, errp);                                                   \
    }

BITMAP_COMMAND(add, qmp_block_dirty_bitmap_add, action_bitmap_add(call->control, t, args, errp))
BITMAP_COMMAND(clear, qmp_block_dirty_bitmap, action_bitmap_clear(call->control, t, args, errp))
BITMAP_COMMAND(enable, qmp_block_dirty_bitmap,
               action_bitmap_enable(call->control, t, args, true, errp))
BITMAP_COMMAND(disable, qmp_block_dirty_bitmap,
               action_bitmap_enable(call->control, t, args, false, errp))
BITMAP_COMMAND(merge, qmp_block_dirty_bitmap_merge,
               action_bitmap_merge(call->control, t, args, errp))
