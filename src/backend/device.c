/* SPDX-License-Identifier: MIT */
/*
 * The attached device and what it answers for: its tray, the lock of its medium, changes of size.
 * The operations change only while drained, since requests ask is_tray_open.
 */
#include "backend/backend_int.h"

#include <stdlib.h>

int blk_attach_dev(BlockBackend *blk, void *dev)
{
    BLK_ASSERT_CONTROL(blk->pl);
    if (blk->dev != NULL) {
        return -EBUSY;
    }
    blk_ref(blk);
    blk->dev = dev;
    blk->devs_reserved++;
    coroutine_pool_reserve(COROUTINE_POOL_RESERVATION);
    blk_iostatus_reset(blk);
    return 0;
}

void blk_attach_dev_nofail(BlockBackend *blk, void *dev)
{
    int ret = blk_attach_dev(blk, dev);

    assert(ret == 0); /* the caller's promise */
    (void)ret;
}

static void dev_unreserve(BlockBackend *blk)
{
    if (blk->devs_reserved > 0) {
        blk->devs_reserved--;
        coroutine_pool_reserve(-COROUTINE_POOL_RESERVATION);
    }
}

void blk_detach_dev(BlockBackend *blk, void *dev)
{
    BLK_ASSERT_CONTROL_POLLS(blk->pl);
    assert(blk->dev == dev);
    blk_set_dev_ops(blk, NULL, NULL);
    blk->dev = NULL;
    blk->guest_block_size = 512;
    dev_unreserve(blk);
    blk_unref(blk);
}

/* The instance ends under the device. */
void blk_dev_release(BlockBackend *blk)
{
    blk_set_dev_ops(blk, NULL, NULL);
    blk->dev = NULL;
    while (blk->devs_reserved > 0) {
        dev_unreserve(blk);
    }
}

void *blk_get_attached_dev(BlockBackend *blk)
{
    BLK_ASSERT_CONTROL(blk->pl);
    return blk->dev;
}

void blk_set_dev_ops(BlockBackend *blk, const BlockDevOps *ops, void *opaque)
{
    BlockDriverState *drained;

    BLK_ASSERT_CONTROL_POLLS(blk->pl);
    if (blk->dev_ops == ops && blk->dev_opaque == opaque) {
        return;
    }
    drained = blk_drained_begin(blk);
    blk->dev_ops = ops;
    blk->dev_opaque = opaque;
    blk_special_update(blk);
    blk_drained_end(blk, drained);
}

bool blk_dev_has_removable_media(BlockBackend *blk)
{
    BLK_ASSERT_CONTROL(blk->pl);
    return blk->dev == NULL || (blk->dev_ops != NULL && blk->dev_ops->change_media_cb != NULL);
}

void blk_dev_resize_cb(BlockBackend *blk)
{
    BLK_ASSERT_CONTROL(blk->pl);
    if (blk->dev_ops != NULL && blk->dev_ops->resize_cb != NULL) {
        blk->dev_ops->resize_cb(blk->dev_opaque);
    }
}

/* A tray that was closed opens for the change; it closes again when a medium is loaded. Whether it
 * was closed is sampled before the device hears of the change. */
struct blk_tray_moves blk_dev_change_media(BlockBackend *blk, bool load)
{
    struct blk_tray_moves moves = {0};

    if (blk->dev_ops == NULL || blk->dev_ops->change_media_cb == NULL) {
        return moves;
    }
    moves.opened = !blk_tray_is_open(blk);
    moves.closed = load;
    blk->dev_ops->change_media_cb(blk->dev_opaque, load);
    return moves;
}

static void raise_tray_moved(BlockBackend *blk, bool open)
{
    instance_raise(blk->pl, &(struct platter_event){
                                .type = PLATTER_EVENT_DEVICE_TRAY_MOVED,
                                .u.tray_moved = {.device = blk->name, .tray_open = open},
                            });
}

void blk_dev_change_media_cb(BlockBackend *blk, bool load)
{
    struct blk_tray_moves moves;

    BLK_ASSERT_CONTROL(blk->pl);
    moves = blk_dev_change_media(blk, load);

    if (moves.opened) {
        raise_tray_moved(blk, true);
    }
    if (moves.closed) {
        raise_tray_moved(blk, false);
    }
}

void blk_dev_eject_request(BlockBackend *blk, bool force)
{
    BLK_ASSERT_CONTROL(blk->pl);
    if (blk->dev_ops != NULL && blk->dev_ops->eject_request_cb != NULL) {
        blk->dev_ops->eject_request_cb(blk->dev_opaque, force);
    }
}

bool blk_dev_is_tray_open(BlockBackend *blk)
{
    BLK_ASSERT_CONTROL(blk->pl);
    return blk_tray_is_open(blk);
}

bool blk_dev_is_medium_locked(BlockBackend *blk)
{
    BLK_ASSERT_CONTROL(blk->pl);
    return blk->dev_ops != NULL && blk->dev_ops->is_medium_locked != NULL &&
           blk->dev_ops->is_medium_locked(blk->dev_opaque);
}

static bool has_lock_medium(const BlockDriver *drv)
{
    return drv->lock_medium != NULL;
}

void blk_lock_medium(BlockBackend *blk, bool locked)
{
    BlockDriverState *bs;

    BLK_ASSERT_CONTROL(blk->pl);
    bs = blk_find_below(blk, has_lock_medium);
    if (bs != NULL) {
        bs->drv->lock_medium(bs, locked);
    }
}

static bool has_eject(const BlockDriver *drv)
{
    return drv->eject != NULL;
}

void blk_eject(BlockBackend *blk, bool eject_flag)
{
    BlockDriverState *bs;

    BLK_ASSERT_CONTROL(blk->pl);
    if (blk->root == NULL) {
        return;
    }
    bs = blk_find_below(blk, has_eject);
    if (bs != NULL) {
        bs->drv->eject(bs, eject_flag);
    }
    if (blk->name[0] != '\0') {
        raise_tray_moved(blk, eject_flag);
    }
}
