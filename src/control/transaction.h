/* SPDX-License-Identifier: MIT */
/* The actions of QMP on those of the library's transactions: each finds what its arguments name and
 * adds itself. 0, or -errno with errp; then t is to be ended without being run. */
#ifndef PLATTER_CONTROL_TRANSACTION_H
#define PLATTER_CONTROL_TRANSACTION_H

#include <platter/transaction.h>

#include "control/control.h"
#include "schema/qmp.h"

int action_bitmap_add(struct control *c, BdrvTransaction *t,
                      const struct qmp_block_dirty_bitmap_add *args, Error **errp);
int action_bitmap_remove(struct control *c, BdrvTransaction *t,
                         const struct qmp_block_dirty_bitmap *args, Error **errp);
int action_bitmap_clear(struct control *c, BdrvTransaction *t,
                        const struct qmp_block_dirty_bitmap *args, Error **errp);
int action_bitmap_enable(struct control *c, BdrvTransaction *t,
                         const struct qmp_block_dirty_bitmap *args, bool enable, Error **errp);
int action_bitmap_merge(struct control *c, BdrvTransaction *t,
                        const struct qmp_block_dirty_bitmap_merge *args, Error **errp);
int action_snapshot(struct control *c, BdrvTransaction *t, const struct qmp_blockdev_snapshot *args,
                    Error **errp);
int action_snapshot_sync(struct control *c, BdrvTransaction *t,
                         const struct qmp_blockdev_snapshot_sync *args, Error **errp);
int action_snapshot_internal(struct control *c, BdrvTransaction *t,
                             const struct qmp_blockdev_snapshot_internal *args, Error **errp);

/* Run t when rc, of adding its actions, is 0; else end it. What either said. */
int transaction_finish(BdrvTransaction *t, int rc, Error **errp);

#endif
