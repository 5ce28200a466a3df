/* SPDX-License-Identifier: MIT */
/*
 * A backend as a member of a throttle group. The membership is the backend's, so it holds for each
 * medium in turn. Reads, writes and write zeroes are limited; a drain lets those that wait go on at
 * once (gate.c), so that it never waits for a limit.
 */
#include "backend/backend_int.h"
#include "backend/pass.h"

#include <string.h>

int blk_throttle_co(BlockBackend *blk, const struct bdrv_req *req, struct blk_cancel *cancel)
{
    if (req->op == BDRV_OP_FLUSH || req->op == BDRV_OP_DISCARD) {
        return 0;
    }
    return throttle_member_wait_co(&blk->throttle, req->op != BDRV_OP_READ, req->bytes,
                                   cancel != NULL ? &cancel->throttle : NULL);
}

/* Into group (NULL: none). The requests that the old one lets wait have gone through. */
static void set_group(BlockBackend *blk, ThrottleGroup *group)
{
    BlockDriverState *drained = blk_drained_begin(blk);

    throttle_member_leave(&blk->throttle);
    if (group != NULL) {
        throttle_member_join(&blk->throttle, group);
    }
    blk_drained_end(blk, drained);
}

int blk_io_limits_enable(BlockBackend *blk, const char *group_name, Error **errp)
{
    ThrottleGroup *group;

    BLK_ASSERT_CONTROL_POLLS(blk->pl);
    if (blk->throttle.group != NULL &&
        strcmp(throttle_group_name(blk->throttle.group), group_name) == 0) {
        return 0;
    }
    group = throttle_group_get(blk->pl, group_name, errp);
    if (group == NULL) {
        return -ENOMEM;
    }
    set_group(blk, group);
    throttle_group_unref(group); /* the membership has its own */
    return 0;
}

void blk_io_limits_disable(BlockBackend *blk)
{
    BLK_ASSERT_CONTROL_POLLS(blk->pl);
    if (blk->throttle.group != NULL) {
        set_group(blk, NULL);
    }
}

int blk_set_io_limits(BlockBackend *blk, const struct throttle_config *config, Error **errp)
{
    BLK_ASSERT_CONTROL(blk->pl);
    if (blk->throttle.group == NULL) {
        return error_set(errp, EINVAL, "Device '%s' is in no throttle group", blk->name);
    }
    return throttle_group_set_config(blk->throttle.group, config, errp);
}

ThrottleGroup *blk_get_throttle_group(BlockBackend *blk)
{
    BLK_ASSERT_CONTROL(blk->pl);
    return blk->throttle.group;
}

BlockDriverState *blk_pass_begin(BlockBackend *blk)
{
    BlockDriverState *bs = blk->root != NULL ? blk->root->bs : NULL;

    BLK_ASSERT_CONTROL(blk->pl);
    throttle_bypass_begin(&blk->throttle);
    if (bs != NULL) {
        bdrv_ref(bs);
        bdrv_pass_begin(bs);
    }
    return bs;
}

void blk_pass_end(BlockBackend *blk, BlockDriverState *bs)
{
    if (bs != NULL) {
        bdrv_pass_end(bs);
        bdrv_unref(bs);
    }
    throttle_bypass_end(&blk->throttle);
}

/* ---- 2.19 root state: what of a medium holds for the next ---- */

void blk_update_root_state(BlockBackend *blk)
{
    BlockBackendRootState *state = &blk->root_state;

    BLK_ASSERT_CONTROL(blk->pl);
    assert(blk->root != NULL);
    state->open_flags = bdrv_get_flags(blk->root->bs);
    state->read_only = blk->root->bs->read_only;
    state->detect_zeroes = blk->root->bs->detect_zeroes;
}

BlockBackendRootState *blk_get_root_state(BlockBackend *blk)
{
    BLK_ASSERT_CONTROL(blk->pl);
    blk->root_state.throttle_group =
        blk->throttle.group != NULL ? throttle_group_name(blk->throttle.group) : NULL;
    return &blk->root_state;
}
