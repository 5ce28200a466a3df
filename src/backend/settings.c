/* SPDX-License-Identifier: MIT */
/*
 * Settings of a backend: write cache, read-only, detect-zeroes, context. They belong to the
 * backend, so they hold for each medium in turn and can be made while there is none.
 */
#include "backend/backend_int.h"

int blk_enable_write_cache(BlockBackend *blk)
{
    BLK_ASSERT_CONTROL(blk->pl);
    return blk->wce;
}

/* Requests read the bit without a lock; one that is under way may miss the change. */
void blk_set_enable_write_cache(BlockBackend *blk, bool wce)
{
    BLK_ASSERT_CONTROL(blk->pl);
    blk->wce = wce;
    blk_special_update(blk);
}

int blk_is_read_only(BlockBackend *blk)
{
    BLK_ASSERT_CONTROL(blk->pl);
    if (blk->read_only_set && blk->read_only) {
        return 1;
    }
    return blk->root != NULL ? bdrv_is_read_only(blk->root->bs) : blk->root_state.read_only;
}

int blk_set_read_only(BlockBackend *blk, bool read_only, Error **errp)
{
    bool old_set = blk->read_only_set;
    bool old = blk->read_only;
    int ret;

    BLK_ASSERT_CONTROL_POLLS(blk->pl);
    if (!read_only && blk->root != NULL && bdrv_is_read_only(blk->root->bs)) {
        return error_set(errp, EACCES, "Node '%s' of device '%s' is read-only",
                         bdrv_get_told_name(blk->root->bs), blk->name);
    }
    blk->read_only_set = true;
    blk->read_only = read_only;
    ret = blk_update_perm(blk, errp);
    if (ret < 0) {
        blk->read_only_set = old_set;
        blk->read_only = old;
    } else if (blk->root == NULL) {
        blk->root_state.read_only = read_only;
    }
    return ret;
}

int blk_get_flags(BlockBackend *blk)
{
    BLK_ASSERT_CONTROL(blk->pl);
    return blk->root != NULL ? bdrv_get_flags(blk->root->bs) : blk->root_state.open_flags;
}

void blk_set_detect_zeroes(BlockBackend *blk, enum bdrv_detect_zeroes detect_zeroes)
{
    BlockDriverState *drained;

    BLK_ASSERT_CONTROL_POLLS(blk->pl);
    blk->detect_zeroes_set = true;
    blk->detect_zeroes = detect_zeroes;
    if (blk->root != NULL) {
        drained = blk_drained_begin(blk);
        bdrv_set_detect_zeroes(blk->root->bs, detect_zeroes);
        blk_drained_end(blk, drained);
    }
}

AioContext *blk_get_aio_context(BlockBackend *blk)
{
    return atomic_load_explicit(&blk->home_ctx, memory_order_acquire);
}

AioContext *blk_home_context_ref(BlockBackend *blk)
{
    AioContext *ctx;

    os_mutex_lock(&blk->lock);
    ctx = blk_get_aio_context(blk);
    aio_context_ref(ctx);
    os_mutex_unlock(&blk->lock);
    return ctx;
}

void blk_set_aio_context(BlockBackend *blk, AioContext *new_context)
{
    AioContext *old = blk_get_aio_context(blk);
    BlockDriverState *drained;

    BLK_ASSERT_CONTROL_POLLS(blk->pl);
    if (new_context == NULL) {
        new_context = blk->pl->main_ctx;
    }
    if (new_context == old) {
        return;
    }
    aio_context_ref(new_context);
    drained = blk_drained_begin(blk);
    blk_context_detach(blk);
    os_mutex_lock(&blk->lock);
    atomic_store_explicit(&blk->home_ctx, new_context, memory_order_release);
    os_mutex_unlock(&blk->lock);
    blk_context_attached(blk, new_context);
    blk_drained_end(blk, drained);
    aio_context_unref(old);
}

void blk_io_plug(BlockBackend *blk)
{
    aio_plug(aio_context_current());
}

void blk_io_unplug(BlockBackend *blk)
{
    aio_unplug(aio_context_current());
}
