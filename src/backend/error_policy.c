/* SPDX-License-Identifier: MIT */
/*
 * What happens when a request fails: the policy, the status that a device shows, the event, the
 * stop of the consumer, and the parking of the request until it runs again. Any thread: all fields
 * are atomic, and read one by one.
 */
#include "backend/backend_int.h"
#include "os/trace.h"

#include <string.h>

void blk_iostatus_enable(BlockBackend *blk)
{
    atomic_store(&blk->iostatus_enabled, true);
    atomic_store(&blk->iostatus, BLOCK_DEVICE_IO_STATUS_OK);
}

bool blk_iostatus_is_enabled(const BlockBackend *blk)
{
    int on_write = atomic_load(&blk->on_write_error);

    return atomic_load(&blk->iostatus_enabled) &&
           (on_write == BLOCKDEV_ON_ERROR_ENOSPC || on_write == BLOCKDEV_ON_ERROR_STOP ||
            atomic_load(&blk->on_read_error) == BLOCKDEV_ON_ERROR_STOP);
}

BlockDeviceIoStatus blk_iostatus(const BlockBackend *blk)
{
    return (BlockDeviceIoStatus)atomic_load(&blk->iostatus);
}

void blk_iostatus_disable(BlockBackend *blk)
{
    atomic_store(&blk->iostatus_enabled, false);
}

void blk_iostatus_reset(BlockBackend *blk)
{
    BLK_ASSERT_CONTROL(blk->pl);
    if (!blk_iostatus_is_enabled(blk)) {
        return;
    }
    atomic_store(&blk->iostatus, BLOCK_DEVICE_IO_STATUS_OK);
    if (blk->root != NULL) {
        bdrv_tell_iostatus_reset(blk->root->bs);
    }
}

void blk_iostatus_set_err(BlockBackend *blk, int error)
{
    int ok = BLOCK_DEVICE_IO_STATUS_OK;

    assert(blk_iostatus_is_enabled(blk));
    atomic_compare_exchange_strong(&blk->iostatus, &ok,
                                   error == ENOSPC ? BLOCK_DEVICE_IO_STATUS_NOSPACE
                                                   : BLOCK_DEVICE_IO_STATUS_FAILED);
}

void blk_set_on_error(BlockBackend *blk, BlockdevOnError on_read_error,
                      BlockdevOnError on_write_error)
{
    atomic_store(&blk->on_read_error, (int)on_read_error);
    atomic_store(&blk->on_write_error, (int)on_write_error);
}

BlockdevOnError blk_get_on_error(BlockBackend *blk, bool is_read)
{
    return (BlockdevOnError)atomic_load(is_read ? &blk->on_read_error : &blk->on_write_error);
}

BlockErrorAction blk_get_error_action(BlockBackend *blk, bool is_read, int error)
{
    switch (blk_get_on_error(blk, is_read)) {
    case BLOCKDEV_ON_ERROR_ENOSPC:
        return error == ENOSPC ? BLOCK_ERROR_ACTION_STOP : BLOCK_ERROR_ACTION_REPORT;
    case BLOCKDEV_ON_ERROR_STOP:
        return BLOCK_ERROR_ACTION_STOP;
    case BLOCKDEV_ON_ERROR_IGNORE:
        return BLOCK_ERROR_ACTION_IGNORE;
    case BLOCKDEV_ON_ERROR_REPORT:
        break;
    }
    return BLOCK_ERROR_ACTION_REPORT;
}

static void raise_io_error(BlockBackend *blk, BlockErrorAction action, bool is_read, int error)
{
    static const char *const actions[] = {
        [BLOCK_ERROR_ACTION_REPORT] = "report",
        [BLOCK_ERROR_ACTION_IGNORE] = "ignore",
        [BLOCK_ERROR_ACTION_STOP] = "stop",
    };
    char reason[128];
    struct blk_facts facts;

    blk_facts_get(blk, &facts);
    instance_raise(blk->pl, &(struct platter_event){
                                .type = PLATTER_EVENT_BLOCK_IO_ERROR,
                                .u.io_error = {.device = blk->name,
                                               .node_name = facts.node_name,
                                               .action = actions[action],
                                               .reason = strerror_r(error, reason, sizeof(reason)),
                                               .is_read = is_read,
                                               .has_nospace = blk_iostatus_is_enabled(blk),
                                               .nospace = error == ENOSPC},
                            });
}

/* The order is the contract: whoever hears of the event sees the status, and STOP comes after it.
 */
void blk_error_action(BlockBackend *blk, BlockErrorAction action, bool is_read, int error)
{
    assert(error >= 0);
    TRACE(io_error, blk->name, (int)is_read, error, (int)action);
    if (action != BLOCK_ERROR_ACTION_STOP) {
        raise_io_error(blk, action, is_read, error);
        return;
    }
    if (blk_iostatus_is_enabled(blk)) {
        blk_iostatus_set_err(blk, error);
    }
    instance_stop_prepare(blk->pl);
    raise_io_error(blk, action, is_read, error);
    instance_stop_request(blk->pl, PLATTER_RUN_STATE_IO_ERROR);
}

int blk_co_handle_error(BlockBackend *blk, bool is_read, int ret)
{
    BlockErrorAction action;

    if (ret >= 0 || ret == -ECANCELED) {
        return ret;
    }
    action = blk_get_error_action(blk, is_read, -ret);
    blk_error_action(blk, action, is_read, -ret);
    if (action == BLOCK_ERROR_ACTION_STOP) {
        Platter *pl = blk->pl;
        int parked;

        blk_ref(blk);
        parked = instance_park_co(pl, blk);
        blk_unref(blk);
        instance_park_leave(pl);
        return parked < 0 ? parked : BLK_TRY_AGAIN;
    }
    return action == BLOCK_ERROR_ACTION_IGNORE ? 0 : ret;
}
