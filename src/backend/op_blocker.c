/* SPDX-License-Identifier: MIT */
/*
 * Op blockers of a backend. They are kept here, so that they hold for each medium in turn; who asks
 * a node is told of those of its backends too (block/op_blocker.c).
 */
#include "backend/backend_int.h"

bool blk_op_is_blocked(BlockBackend *blk, BlockOpType op, Error **errp)
{
    const Error *reason;

    BLK_ASSERT_CONTROL(blk->pl);
    if (blk->root != NULL) {
        return bdrv_op_is_blocked(blk->root->bs, op, errp);
    }
    reason = bdrv_op_blocked_by(blk->op_blockers, op);
    if (reason != NULL) {
        error_set(errp, EBUSY, "Device '%s' is busy: %s", blk->name, error_get_pretty(reason));
    }
    return reason != NULL;
}

int blk_op_block(BlockBackend *blk, BlockOpType op, const Error *reason)
{
    BLK_ASSERT_CONTROL(blk->pl);
    return bdrv_op_block(&blk->op_blockers, 1u << op, reason);
}

void blk_op_unblock(BlockBackend *blk, BlockOpType op, const Error *reason)
{
    BLK_ASSERT_CONTROL(blk->pl);
    bdrv_op_unblock(&blk->op_blockers, 1u << op, reason);
}

int blk_op_block_all(BlockBackend *blk, const Error *reason)
{
    BLK_ASSERT_CONTROL(blk->pl);
    return bdrv_op_block(&blk->op_blockers, (1u << BLOCK_OP_TYPE_MAX) - 1, reason);
}

void blk_op_unblock_all(BlockBackend *blk, const Error *reason)
{
    BLK_ASSERT_CONTROL(blk->pl);
    bdrv_op_unblock(&blk->op_blockers, (1u << BLOCK_OP_TYPE_MAX) - 1, reason);
}
