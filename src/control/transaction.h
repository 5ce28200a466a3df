/* SPDX-License-Identifier: MIT */
/*
 * Actions that are done together or not at all. An action that was prepared has happened; it is
 * taken back by undo. Everything is drained from the first action to the last, so that nobody sees
 * or changes what is between.
 */
#ifndef PLATTER_CONTROL_TRANSACTION_H
#define PLATTER_CONTROL_TRANSACTION_H

#include <platter/bitmap.h>

#include "control/control.h"
#include "schema/qmp.h"

struct action {
    /* Take it back. NULL: there is nothing to take back. */
    void (*undo)(struct action *action);
    /* It stays: do what is left, which is reported but takes nothing back. NULL: nothing. */
    int (*finish)(struct action *action, Error **errp);
    /* What undo and finish need; what of it they do not use up, clean lets go. */
    void (*clean)(struct action *action);
    BlockDriverState *bs; /* counted or NULL */
    BdrvDirtyBitmap *bitmap;
    BdrvDirtyBitmap *backup; /* anonymous, of the same node */
    char *text;              /* owned: a name */
};

/* Each does one action: 0 and *ret_action filled, or -errno with errp and nothing changed. */
int action_bitmap_add(struct qmp_call *call, const struct qmp_block_dirty_bitmap_add *args,
                      struct action *ret_action, Error **errp);
int action_bitmap_remove(struct qmp_call *call, const struct qmp_block_dirty_bitmap *args,
                         struct action *ret_action, Error **errp);
int action_bitmap_clear(struct qmp_call *call, const struct qmp_block_dirty_bitmap *args,
                        struct action *ret_action, Error **errp);
int action_bitmap_enable(struct qmp_call *call, const struct qmp_block_dirty_bitmap *args,
                         bool enable, struct action *ret_action, Error **errp);
int action_bitmap_merge(struct qmp_call *call, const struct qmp_block_dirty_bitmap_merge *args,
                        struct action *ret_action, Error **errp);
int action_snapshot(struct qmp_call *call, const struct qmp_blockdev_snapshot *args,
                    struct action *ret_action, Error **errp);
int action_snapshot_sync(struct qmp_call *call, const struct qmp_blockdev_snapshot_sync *args,
                         struct action *ret_action, Error **errp);
int action_snapshot_internal(struct qmp_call *call,
                             const struct qmp_blockdev_snapshot_internal *args,
                             struct action *ret_action, Error **errp);

/* One action by itself: what it left is finished and cleaned. ret: of the action. */
int action_alone(struct action *action, int ret, Error **errp);

#endif
