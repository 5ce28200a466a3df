/* SPDX-License-Identifier: MIT */
/*
 * Waiting for overlapping requests, between contexts.
 *
 * Invariants, under bs->track_lock:
 *  T1 bs->tracked is in order of registration, and a request waits only for one before it.
 *  T2 a waiter hangs on exactly one entry and is woken once, after that entry left the list.
 *  T3 bs->tracked_serialising counts the serialising entries of bs->tracked.
 * The lock is never held while a coroutine suspends.
 */
#include <assert.h>
#include <errno.h>

#include "block/track.h"
#include "util/mem.h"

void bdrv_io_init(BlockDriverState *bs)
{
    os_mutex_init(&bs->track_lock);
    TAILQ_INIT(&bs->tracked);
    bs->tracked_serialising = 0;
    co_mutex_init(&bs->flush_lock);
}

void bdrv_io_fini(BlockDriverState *bs)
{
    assert(TAILQ_EMPTY(&bs->tracked));
    assert(atomic_load_explicit(&bs->serialising, memory_order_relaxed) == 0);
    os_mutex_fini(&bs->track_lock);
}

void bdrv_track_all_begin(BlockDriverState *bs)
{
    atomic_fetch_add(&bs->serialising, 1);
}

void bdrv_track_all_end(BlockDriverState *bs)
{
    int before = atomic_fetch_sub(&bs->serialising, 1);

    assert(before > 0);
    (void)before;
}

/* The first earlier entry that t must not run beside; NULL: none. Lock held. */
static struct bdrv_tracked *track_obstacle(BlockDriverState *bs, const struct bdrv_tracked *t)
{
    struct bdrv_tracked *e;
    unsigned serialising = t->flags & BDRV_TRACK_SERIALISING;

    if (!serialising && bs->tracked_serialising == 0) {
        return NULL;
    }
    TAILQ_FOREACH (e, &bs->tracked, entry) {
        if (e == t) {
            return NULL;
        }
        if ((serialising || (e->flags & BDRV_TRACK_SERIALISING)) && e->offset < t->end &&
            t->offset < e->end) {
            return e;
        }
    }
    return NULL;
}

/* Lock held. */
static void track_insert(BlockDriverState *bs, struct bdrv_tracked *t)
{
    TAILQ_INSERT_TAIL(&bs->tracked, t, entry);
    if (t->flags & BDRV_TRACK_SERIALISING) {
        bs->tracked_serialising++;
    }
}

/* Lock held. Returns the waiters, which the caller wakes without it. */
static struct bdrv_tracked *track_remove(BlockDriverState *bs, struct bdrv_tracked *t)
{
    TAILQ_REMOVE(&bs->tracked, t, entry);
    if (t->flags & BDRV_TRACK_SERIALISING) {
        assert(bs->tracked_serialising > 0);
        bs->tracked_serialising--;
    }
    return t->waiters;
}

static void track_wake(struct bdrv_tracked *waiters)
{
    while (waiters != NULL) {
        /* once woken it may run in its own thread and its stack frame be gone */
        struct bdrv_tracked *next = waiters->next_waiter;

        aio_co_wake(waiters->co);
        waiters = next;
    }
}

int bdrv_track_begin(BlockDriverState *bs, struct bdrv_tracked *t, uint64_t offset, uint64_t end,
                     unsigned flags, bool *ret_waited)
{
    struct bdrv_tracked *e;

    assert(offset < end);
    t->offset = offset;
    t->end = end;
    t->flags = flags;
    t->waiters = NULL;
    *ret_waited = false;
    if (UNLIKELY(flags & BDRV_TRACK_HOLDS_ALL)) {
        atomic_fetch_add(&bs->serialising, 1);
    }

    os_mutex_lock(&bs->track_lock);
    track_insert(bs, t);
    while (UNLIKELY((e = track_obstacle(bs, t)) != NULL)) {
        if (flags & BDRV_TRACK_NO_WAIT) {
            os_mutex_unlock(&bs->track_lock);
            bdrv_track_end(bs, t);
            return -EBUSY;
        }
        t->co = coroutine_self();
        t->next_waiter = e->waiters;
        e->waiters = t;
        *ret_waited = true;
        os_mutex_unlock(&bs->track_lock);
        coroutine_yield();
        os_mutex_lock(&bs->track_lock);
    }
    os_mutex_unlock(&bs->track_lock);
    return 0;
}

void bdrv_track_end(BlockDriverState *bs, struct bdrv_tracked *t)
{
    struct bdrv_tracked *waiters;

    os_mutex_lock(&bs->track_lock);
    waiters = track_remove(bs, t);
    os_mutex_unlock(&bs->track_lock);
    if (UNLIKELY(t->flags & BDRV_TRACK_HOLDS_ALL)) {
        atomic_fetch_sub(&bs->serialising, 1);
    }
    track_wake(waiters);
}
