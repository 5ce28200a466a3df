/* SPDX-License-Identifier: MIT */
/*
 * Requests in flight that others may have to wait for. A request registers the range it will touch
 * and gets a place in the node's list; of two that overlap and of which one is serialising, the
 * later waits for the earlier. Nobody waits for a later one, so there is no deadlock.
 */
#ifndef PLATTER_BLOCK_TRACK_H
#define PLATTER_BLOCK_TRACK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include <platter/coroutine.h>

#include "block/node.h"

#define BDRV_TRACK_TO_END UINT64_MAX

enum bdrv_track_flags {
    BDRV_TRACK_SERIALISING = 1 << 0, /* no overlapping request beside it */
    BDRV_TRACK_HOLDS_ALL = 1 << 1,   /* and those register that otherwise would not (reads) */
    BDRV_TRACK_NO_WAIT = 1 << 2,     /* -EBUSY instead of waiting */
};

/* Lives on the stack of the request's coroutine. All fields but the range: bs->track_lock. */
struct bdrv_tracked {
    TAILQ_ENTRY(bdrv_tracked) entry;
    uint64_t offset;
    uint64_t end;
    unsigned flags;
    Coroutine *co;
    struct bdrv_tracked *waiters; /* those who wait for this one to end */
    struct bdrv_tracked *next_waiter;
};

/* Register [offset, end) and wait for what stands in the way. *ret_waited: the node may have
 * changed meanwhile. 0 or -EBUSY. Coroutine. */
int bdrv_track_begin(BlockDriverState *bs, struct bdrv_tracked *t, uint64_t offset, uint64_t end,
                     unsigned flags, bool *ret_waited);
/* Wakes those who waited. Coroutine. */
void bdrv_track_end(BlockDriverState *bs, struct bdrv_tracked *t);

#endif
