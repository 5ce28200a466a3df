/* SPDX-License-Identifier: MIT */
/* Dirty bitmaps, one by one and as actions of a transaction. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <platter/bitmap.h>

#include "control/qmp_type.h"
#include "control/transaction.h"
#include "util/error.h"

static BdrvDirtyBitmap *find_bitmap(struct control *c, const char *node, const char *name,
                                    BlockDriverState **ret_bs, Error **errp)
{
    BlockDriverState *bs = control_find_root(c, node, node, errp);
    BdrvDirtyBitmap *bitmap = bs ? bdrv_bitmap_find(bs, name) : NULL;

    if (bs && !bitmap) {
        error_set(errp, ENOENT, "Dirty bitmap '%s' not found", name);
    }
    *ret_bs = bs;
    return bitmap;
}

/* The action works on this bitmap; the node stays as long. */
static void action_of(struct action *action, BlockDriverState *bs, BdrvDirtyBitmap *bitmap)
{
    bdrv_ref(bs);
    action->bs = bs;
    action->bitmap = bitmap;
}

/* ---- a copy of what a bitmap says, to go back to ---- */

static void backup_clean(struct action *action)
{
    if (action->backup) {
        bdrv_bitmap_remove(action->backup, NULL);
        action->backup = NULL;
    }
}

static int backup_take(struct action *action, Error **errp)
{
    struct bdrv_bitmap_info info;
    int ret;

    bdrv_bitmap_get_info(action->bitmap, &info);
    action->clean = backup_clean;
    action->backup =
        bdrv_bitmap_create(action->bs, NULL, info.granularity_bytes, BDRV_BITMAP_DISABLED, errp);
    ret = action->backup ? bdrv_bitmap_merge(action->backup, action->bitmap, errp) : -ENOMEM;
    return ret;
}

/* Everything is drained: nothing was recorded since the copy was taken. */
static void backup_restore(struct action *action)
{
    if (bdrv_bitmap_clear(action->bitmap, NULL) == 0) {
        bdrv_bitmap_merge(action->bitmap, action->backup, NULL);
    }
}

/* ---- add, remove ---- */

static void undo_add(struct action *action)
{
    bdrv_bitmap_remove(action->bitmap, NULL);
}

int action_bitmap_add(struct qmp_call *call, const struct qmp_block_dirty_bitmap_add *args,
                      struct action *action, Error **errp)
{
    BlockDriverState *bs = control_find_root(call->control, args->node, args->node, errp);
    unsigned flags = (args->has_persistent && args->persistent ? BDRV_BITMAP_PERSISTENT : 0) |
                     (args->has_disabled && args->disabled ? BDRV_BITMAP_DISABLED : 0);
    BdrvDirtyBitmap *bitmap;

    if (!bs) {
        return -ENOENT;
    }
    if (*args->name == '\0') {
        return error_set(errp, EINVAL, "Bitmap name cannot be empty");
    }
    if (args->has_granularity && args->granularity == 0) {
        return error_set(errp, EINVAL, "Granularity must be power of 2");
    }
    bitmap = bdrv_bitmap_create(bs, args->name, args->has_granularity ? args->granularity : 0,
                                flags, errp);
    if (!bitmap) {
        return -EINVAL;
    }
    action_of(action, bs, bitmap);
    action->undo = undo_add;
    return 0;
}

static int finish_remove(struct action *action, Error **errp)
{
    return bdrv_bitmap_remove(action->bitmap, errp);
}

/* It goes when all is well: until then it only has to be one that can go. */
int action_bitmap_remove(struct qmp_call *call, const struct qmp_block_dirty_bitmap *args,
                         struct action *action, Error **errp)
{
    struct bdrv_bitmap_info info;
    BlockDriverState *bs;
    BdrvDirtyBitmap *bitmap = find_bitmap(call->control, args->node, args->name, &bs, errp);

    if (!bitmap) {
        return -ENOENT;
    }
    bdrv_bitmap_get_info(bitmap, &info);
    if (info.busy) {
        return error_set(errp, EBUSY,
                         "Bitmap '%s' is currently in use by another operation and cannot be used",
                         args->name);
    }
    action_of(action, bs, bitmap);
    action->finish = finish_remove;
    return 0;
}

/* ---- clear, enable, disable ---- */

int action_bitmap_clear(struct qmp_call *call, const struct qmp_block_dirty_bitmap *args,
                        struct action *action, Error **errp)
{
    BlockDriverState *bs;
    BdrvDirtyBitmap *bitmap = find_bitmap(call->control, args->node, args->name, &bs, errp);
    int ret;

    if (!bitmap) {
        return -ENOENT;
    }
    action_of(action, bs, bitmap);
    ret = backup_take(action, errp);
    if (ret == 0) {
        ret = bdrv_bitmap_clear(bitmap, errp);
    }
    action->undo = backup_restore;
    return ret;
}

static void undo_enable(struct action *action)
{
    bdrv_bitmap_disable(action->bitmap, NULL);
}

static void undo_disable(struct action *action)
{
    bdrv_bitmap_enable(action->bitmap, NULL);
}

int action_bitmap_enable(struct qmp_call *call, const struct qmp_block_dirty_bitmap *args,
                         bool enable, struct action *action, Error **errp)
{
    struct bdrv_bitmap_info info;
    BlockDriverState *bs;
    BdrvDirtyBitmap *bitmap = find_bitmap(call->control, args->node, args->name, &bs, errp);
    int ret;

    if (!bitmap) {
        return -ENOENT;
    }
    bdrv_bitmap_get_info(bitmap, &info);
    ret = enable ? bdrv_bitmap_enable(bitmap, errp) : bdrv_bitmap_disable(bitmap, errp);
    if (ret == 0) {
        action_of(action, bs, bitmap);
        action->undo = info.recording == enable ? NULL : enable ? undo_enable : undo_disable;
    }
    return ret;
}

/* ---- merge ---- */

static int merge_one(struct control *c, struct action *action, json_t *source, Error **errp)
{
    const char *node = json_string_value(json_object_get(source, "node"));
    const char *name = json_is_string(source) ? json_string_value(source)
                                              : json_string_value(json_object_get(source, "name"));
    BlockDriverState *bs = action->bs;
    BdrvDirtyBitmap *bitmap;

    if (node) {
        bitmap = find_bitmap(c, node, name, &bs, errp);
    } else {
        bitmap = bdrv_bitmap_find(bs, name);
        if (!bitmap) {
            error_set(errp, ENOENT, "Dirty bitmap '%s' not found", name);
        }
    }
    return bitmap ? bdrv_bitmap_merge(action->bitmap, bitmap, errp) : -ENOENT;
}

int action_bitmap_merge(struct qmp_call *call, const struct qmp_block_dirty_bitmap_merge *args,
                        struct action *action, Error **errp)
{
    BlockDriverState *bs;
    BdrvDirtyBitmap *bitmap = find_bitmap(call->control, args->node, args->target, &bs, errp);
    json_t *source;
    size_t i;
    int ret;

    if (!bitmap) {
        return -ENOENT;
    }
    action_of(action, bs, bitmap);
    ret = backup_take(action, errp);
    json_array_foreach(args->bitmaps, i, source)
    {
        if (ret == 0) {
            ret = merge_one(call->control, action, source, errp);
        }
    }
    if (ret < 0 && action->backup) {
        backup_restore(action);
    }
    action->undo = backup_restore;
    return ret;
}

/* ---- the commands: one action each, drained as in a transaction ---- */

#define BITMAP_COMMAND(name, type, run)                                                            \
    int qmp_block_dirty_bitmap_##name(struct qmp_call *call, const struct type *args,              \
                                      Error **errp)                                                \
    {                                                                                              \
        struct action action = {0};                                                                \
        int ret;                                                                                   \
                                                                                                   \
        bdrv_drain_all_begin(call->control->pl);                                                   \
        ret = action_alone(&action, run, errp);                                                    \
        bdrv_drain_all_end(call->control->pl);                                                     \
        return ret;                                                                                \
    }

BITMAP_COMMAND(add, qmp_block_dirty_bitmap_add, action_bitmap_add(call, args, &action, errp))
BITMAP_COMMAND(remove, qmp_block_dirty_bitmap, action_bitmap_remove(call, args, &action, errp))
BITMAP_COMMAND(clear, qmp_block_dirty_bitmap, action_bitmap_clear(call, args, &action, errp))
BITMAP_COMMAND(enable, qmp_block_dirty_bitmap,
               action_bitmap_enable(call, args, true, &action, errp))
BITMAP_COMMAND(disable, qmp_block_dirty_bitmap,
               action_bitmap_enable(call, args, false, &action, errp))
BITMAP_COMMAND(merge, qmp_block_dirty_bitmap_merge, action_bitmap_merge(call, args, &action, errp))
