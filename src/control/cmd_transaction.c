/* SPDX-License-Identifier: MIT */
/* transaction: several actions, all or none. */
#include <errno.h>

#include "control/qmp_type.h"
#include "control/transaction.h"
#include "util/error.h"

#define ACTIONS_MAX 1024

int transaction_finish(BdrvTransaction *t, int rc, Error **errp)
{
    if (rc < 0) {
        bdrv_transaction_free(t);
        return rc;
    }
    return bdrv_transaction_run(t, errp);
}

static int abort_prepare(void *opaque, Error **errp)
{
    return error_set(errp, ECANCELED, "Transaction aborted using Abort action");
}

static const struct bdrv_action_ops abort_ops = {.prepare = abort_prepare};

static int add_action(struct control *c, BdrvTransaction *t,
                      const struct qmp_transaction_action *args, Error **errp)
{
    switch (args->type) {
    case QMP_TRANSACTION_ACTION_KIND_ABORT:
        bdrv_transaction_add(t, NULL, &abort_ops, NULL);
        return 0;
    case QMP_TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_ADD:
        return action_bitmap_add(c, t, &args->u.block_dirty_bitmap_add.data, errp);
    case QMP_TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_REMOVE:
        return action_bitmap_remove(c, t, &args->u.block_dirty_bitmap_remove.data, errp);
    case QMP_TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_CLEAR:
        return action_bitmap_clear(c, t, &args->u.block_dirty_bitmap_clear.data, errp);
    case QMP_TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_ENABLE:
        return action_bitmap_enable(c, t, &args->u.block_dirty_bitmap_enable.data, true, errp);
    case QMP_TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_DISABLE:
        return action_bitmap_enable(c, t, &args->u.block_dirty_bitmap_disable.data, false, errp);
    case QMP_TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_MERGE:
        return action_bitmap_merge(c, t, &args->u.block_dirty_bitmap_merge.data, errp);
    case QMP_TRANSACTION_ACTION_KIND_BLOCKDEV_SNAPSHOT:
        return action_snapshot(c, t, &args->u.blockdev_snapshot.data, errp);
    case QMP_TRANSACTION_ACTION_KIND_BLOCKDEV_SNAPSHOT_SYNC:
        return action_snapshot_sync(c, t, &args->u.blockdev_snapshot_sync.data, errp);
    case QMP_TRANSACTION_ACTION_KIND_BLOCKDEV_SNAPSHOT_INTERNAL_SYNC:
        return action_snapshot_internal(c, t, &args->u.blockdev_snapshot_internal_sync.data, errp);
    }
    return -EINVAL;
}

int qmp_transaction(struct qmp_call *call, const struct qmp_transaction *args, Error **errp)
{
    size_t count = json_array_size(args->actions);
    BdrvTransaction *t;
    int ret = 0;

    if (count > ACTIONS_MAX) {
        return error_set(errp, E2BIG, "%zu actions in a transaction: %d at the most", count,
                         ACTIONS_MAX);
    }
    t = bdrv_transaction_new(call->control->pl);
    for (size_t i = 0; i < count && ret == 0; i++) {
        struct qmp_transaction_action action;

        ret =
            qmp_parse(qmp_transaction_action_type, json_array_get(args->actions, i), &action, errp);
        if (ret == 0) {
            ret = add_action(call->control, t, &action, errp);
        }
    }
    return transaction_finish(t, ret, errp);
}
