/* SPDX-License-Identifier: MIT */
/*
 * Making completed writes durable.
 *
 * Invariants
 *  F1 a flush is skipped only by a node that stores bytes itself (protocol), and only when a
 *     successful flush of it began after the last change known now had completed: flushed_gen >=
 *     write_gen.
 *  F2 flushed_gen only grows, under flush_lock, to a write_gen read before the driver was called.
 *  F3 a failed flush moves nothing, so the next one reaches the driver again.
 * Flushes that come while one runs wait for it; one of them then serves all that waited.
 */
#include <assert.h>
#include <errno.h>

#include "block/request.h"

static bool is_flushed(BlockDriverState *bs, uint64_t gen)
{
    return atomic_load_explicit(&bs->flushed_gen, memory_order_acquire) >= gen;
}

static int flush_storage(BlockDriverState *bs)
{
    uint64_t gen = atomic_load_explicit(&bs->write_gen, memory_order_acquire);
    int ret = 0;

    if (is_flushed(bs, gen)) {
        return 0;
    }
    co_mutex_lock(&bs->flush_lock);
    if (!is_flushed(bs, gen)) {
        /* what completed while we waited is covered too */
        gen = atomic_load_explicit(&bs->write_gen, memory_order_acquire);
        ret = bs->drv->flush_co(bs);
        assert(ret <= 0);
        if (ret == 0) {
            atomic_store_explicit(&bs->flushed_gen, gen, memory_order_release);
        }
    }
    co_mutex_unlock(&bs->flush_lock);
    return ret;
}

int bdrv_node_flush_co(BlockDriverState *bs)
{
    for (;;) {
        int ret;

        bs = bs->through;
        ret = bdrv_node_ready(bs);
        if (ret < 0 || bs->read_only) {
            return ret;
        }
        /* a format is told all the same: what it caches must reach its file some time */
        if ((bs->open_flags & BDRV_O_NO_FLUSH) &&
            (bs->drv->flush_co == NULL || !(bs->caps & BDRV_CAP_FORMAT))) {
            return 0;
        }
        if (bs->file != NULL) {
            bdrv_debug_event(bs->file, BLKDBG_FLUSH_TO_OS);
        }
        if (bs->drv->flush_co != NULL) {
            return (bs->caps & BDRV_CAP_PROTOCOL) ? flush_storage(bs) : bs->drv->flush_co(bs);
        }
        if (bs->file == NULL) {
            return 0;
        }
        bdrv_debug_event(bs->file, BLKDBG_FLUSH_TO_DISK);
        bs = bs->file->bs;
    }
}
