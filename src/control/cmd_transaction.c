/* SPDX-License-Identifier: MIT */
/* transaction: several actions, all or none. */
#include <errno.h>
#include <stdlib.h>

#include "control/qmp_type.h"
#include "control/transaction.h"
#include "util/error.h"

#define ACTIONS_MAX 1024

static void action_clean(struct action *action)
{
    if (action->clean) {
        action->clean(action);
    }
    bdrv_unref(action->bs);
    free(action->text);
    *action = (struct action){0};
}

int action_alone(struct action *action, int ret, Error **errp)
{
    if (ret == 0 && action->finish) {
        ret = action->finish(action, errp);
    }
    action_clean(action);
    return ret;
}

static int action_run(struct qmp_call *call, const struct qmp_transaction_action *args,
                      struct action *action, Error **errp)
{
    switch (args->type) {
    case QMP_TRANSACTION_ACTION_KIND_ABORT:
        return error_set(errp, ECANCELED, "Transaction aborted using Abort action");
    case QMP_TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_ADD:
        return action_bitmap_add(call, &args->u.block_dirty_bitmap_add.data, action, errp);
    case QMP_TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_REMOVE:
        return action_bitmap_remove(call, &args->u.block_dirty_bitmap_remove.data, action, errp);
    case QMP_TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_CLEAR:
        return action_bitmap_clear(call, &args->u.block_dirty_bitmap_clear.data, action, errp);
    case QMP_TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_ENABLE:
        return action_bitmap_enable(call, &args->u.block_dirty_bitmap_enable.data, true, action,
                                    errp);
    case QMP_TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_DISABLE:
        return action_bitmap_enable(call, &args->u.block_dirty_bitmap_disable.data, false, action,
                                    errp);
    case QMP_TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_MERGE:
        return action_bitmap_merge(call, &args->u.block_dirty_bitmap_merge.data, action, errp);
    case QMP_TRANSACTION_ACTION_KIND_BLOCKDEV_SNAPSHOT:
        return action_snapshot(call, &args->u.blockdev_snapshot.data, action, errp);
    case QMP_TRANSACTION_ACTION_KIND_BLOCKDEV_SNAPSHOT_SYNC:
        return action_snapshot_sync(call, &args->u.blockdev_snapshot_sync.data, action, errp);
    case QMP_TRANSACTION_ACTION_KIND_BLOCKDEV_SNAPSHOT_INTERNAL_SYNC:
        return action_snapshot_internal(call, &args->u.blockdev_snapshot_internal_sync.data, action,
                                        errp);
    }
    return -EINVAL;
}

/* The actions of list in order; those that were done are in actions. */
static int run_all(struct qmp_call *call, json_t *list, struct action *actions, size_t *ret_done,
                   Error **errp)
{
    size_t count = json_array_size(list);
    int ret = 0;

    for (*ret_done = 0; ret == 0 && *ret_done < count;) {
        struct qmp_transaction_action args;

        ret = qmp_parse(qmp_transaction_action_type, json_array_get(list, *ret_done), &args, errp);
        if (ret == 0) {
            ret = action_run(call, &args, &actions[*ret_done], errp);
        }
        if (ret < 0) {
            action_clean(&actions[*ret_done]);
        } else {
            (*ret_done)++;
        }
    }
    return ret;
}

int qmp_transaction(struct qmp_call *call, const struct qmp_transaction *args, Error **errp)
{
    size_t count = json_array_size(args->actions);
    struct action *actions;
    size_t done = 0;
    int ret;

    if (count > ACTIONS_MAX) {
        return error_set(errp, E2BIG, "%zu actions in a transaction: %d at the most", count,
                         ACTIONS_MAX);
    }
    actions = calloc(count + 1, sizeof(*actions));
    if (!actions) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    bdrv_drain_all_begin(call->control->pl);
    ret = run_all(call, args->actions, actions, &done, errp);
    for (size_t i = done; ret < 0 && i-- > 0;) {
        if (actions[i].undo) {
            actions[i].undo(&actions[i]);
        }
    }
    for (size_t i = 0; i < done; i++) {
        Error *err = NULL;

        if (ret == 0 && actions[i].finish && actions[i].finish(&actions[i], &err) < 0) {
            ret = -EIO;
        }
        error_propagate(errp, err);
        action_clean(&actions[i]);
    }
    bdrv_drain_all_end(call->control->pl);
    free(actions);
    return ret;
}
