/* SPDX-License-Identifier: MIT */
/*
 * Changes of dirty bitmaps that can be taken back: the bits are put aside, not copied, so that the
 * way back is exact and needs no memory. Control thread; the node stays drained until the end.
 */
#include <errno.h>

#include "block/dirty_bitmap.h"
#include "block/instance.h"

static void save(BdrvDirtyBitmap *bitmap, struct bitmap_saved *saved)
{
    bitmap_init(&saved->bits, bdrv_budget(bitmap->bs));
    bitmap_move(&saved->bits, &bitmap->bits);
    saved->changed = atomic_load(&bitmap->changed);
    atomic_store(&bitmap->changed, true);
}

int bdrv_bitmap_clear_saving(BdrvDirtyBitmap *bitmap, struct bitmap_saved *ret_saved, Error **errp)
{
    int ret = bitmap_may_change(bitmap, errp);

    if (ret == 0) {
        save(bitmap, ret_saved);
    }
    return ret;
}

int bdrv_bitmap_merge_saving(BdrvDirtyBitmap *target, const BdrvDirtyBitmap *source,
                             struct bitmap_saved *ret_saved, Error **errp)
{
    int ret = bitmap_may_change(target, errp);

    if (ret < 0 || target == source) {
        bitmap_init(&ret_saved->bits, NULL);
        ret_saved->nothing = true;
        return ret;
    }
    save(target, ret_saved);
    bitmap_merge(&target->bits, &ret_saved->bits, BITMAP_BITS_MAX);
    ret = bdrv_bitmap_merge(target, source, errp);
    if (ret < 0) {
        bdrv_bitmap_restore(target, ret_saved);
    }
    return ret;
}

void bdrv_bitmap_restore(BdrvDirtyBitmap *bitmap, struct bitmap_saved *saved)
{
    if (!saved->nothing) {
        bitmap_fini(&bitmap->bits);
        bitmap_move(&bitmap->bits, &saved->bits);
        atomic_store(&bitmap->changed, saved->changed);
    }
}

void bdrv_bitmap_saved_free(struct bitmap_saved *saved)
{
    if (!saved->nothing) {
        bitmap_fini(&saved->bits);
    }
}
