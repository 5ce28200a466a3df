/* SPDX-License-Identifier: MIT */
/*
 * Work that other threads, or coroutines, leave for the control thread: last references given back,
 * sizes that grew, nodes that broke. A node stands in the instance's queue at most once, with what
 * is to be done in its own fields, so that leaving work needs no memory and cannot fail.
 *
 * The bottom half belongs to the instance and not to a node: by the time a thread schedules it, the
 * work may have been done and the node be gone.
 */
#include <errno.h>

#include "block/dirty_bitmap.h"
#include "block/graph_int.h"

struct late_work {
    int unrefs;
    bool size;
    bool fold;
};

static BlockDriverState *late_take(Platter *pl, struct late_work *ret_work)
{
    BlockDriverState *bs;

    os_mutex_lock(&pl->late_lock);
    bs = TAILQ_FIRST(&pl->late_nodes);
    if (bs != NULL) {
        TAILQ_REMOVE(&pl->late_nodes, bs, in_late);
        *ret_work = (struct late_work){bs->late_unrefs, bs->late_size, bs->late_fold};
        bs->late_queued = false;
        bs->late_unrefs = 0;
        bs->late_size = false;
        bs->late_fold = false;
    }
    os_mutex_unlock(&pl->late_lock);
    return bs;
}

void late_run(Platter *pl)
{
    struct late_work work;
    BlockDriverState *bs;

    while ((bs = late_take(pl, &work)) != NULL) {
        bdrv_ref(bs);
        if (work.size) {
            graph_sizes_above(bs);
            graph_tell_sizes(pl);
        }
        if (work.fold) {
            bdrv_drained_begin(bs);
            bdrv_bitmaps_tidy(bs);
            graph_fold(bs);
            bdrv_drained_end(bs);
        }
        for (; work.unrefs > 0; work.unrefs--) {
            bdrv_unref(bs);
        }
        bdrv_unref(bs);
    }
}

static void late_bh(void *opaque)
{
    late_run(opaque);
}

int late_init(Platter *pl)
{
    TAILQ_INIT(&pl->late_nodes);
    os_mutex_init(&pl->late_lock);
    pl->late_bh = aio_bh_new(pl->main_ctx, late_bh, pl);
    if (pl->late_bh == NULL) {
        os_mutex_fini(&pl->late_lock);
        return -ENOMEM;
    }
    return 0;
}

void late_fini(Platter *pl)
{
    aio_bh_delete(pl->late_bh);
    os_mutex_fini(&pl->late_lock);
}

/* Under the lock, so that the node is in the queue before its work can be seen elsewhere. */
static void late_queue(Platter *pl, BlockDriverState *bs)
{
    if (!bs->late_queued) {
        bs->late_queued = true;
        TAILQ_INSERT_TAIL(&pl->late_nodes, bs, in_late);
    }
}

void late_unref(BlockDriverState *bs)
{
    Platter *pl = bs->pl;

    os_mutex_lock(&pl->late_lock);
    bs->late_unrefs++;
    late_queue(pl, bs);
    os_mutex_unlock(&pl->late_lock);
    aio_bh_schedule(pl->late_bh);
}

void late_size(BlockDriverState *bs)
{
    Platter *pl = bs->pl;

    os_mutex_lock(&pl->late_lock);
    bs->late_size = true;
    late_queue(pl, bs);
    os_mutex_unlock(&pl->late_lock);
    aio_bh_schedule(pl->late_bh);
}

void late_fold(BlockDriverState *bs)
{
    Platter *pl = bs->pl;

    os_mutex_lock(&pl->late_lock);
    bs->late_fold = true;
    late_queue(pl, bs);
    os_mutex_unlock(&pl->late_lock);
    aio_bh_schedule(pl->late_bh);
}

void late_forget(BlockDriverState *bs)
{
    os_mutex_lock(&bs->pl->late_lock);
    if (bs->late_queued) {
        TAILQ_REMOVE(&bs->pl->late_nodes, bs, in_late);
        bs->late_queued = false;
        bs->late_unrefs = 0;
    }
    os_mutex_unlock(&bs->pl->late_lock);
}
