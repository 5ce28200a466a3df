/* SPDX-License-Identifier: MIT */
/*
 * blkdebug: requests that stop at a point until they are told to go on. A request may stop at
 * several breakpoints of one event; it goes on when all of them let it.
 *
 * Invariants
 *  B1 a wait lives on the stack of its coroutine; it is looked at under the lock only while left is
 *     above 0, and who brings left to 0 wakes the coroutine, once.
 *  B2 while the node is drained (passing) nobody waits.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fault.h"

struct fault_wait {
    Coroutine *co;
    unsigned left;
};

static void stop_free(struct fault_stop *stop)
{
    free(stop->tag);
    free(stop);
}

void fault_breaks_init(struct fault_node *s)
{
    TAILQ_INIT(&s->breaks);
    TAILQ_INIT(&s->stops);
}

void fault_breaks_fini(struct fault_node *s)
{
    struct fault_stop *stop;

    assert(TAILQ_EMPTY(&s->stops)); /* a node is drained before it is closed */
    while ((stop = TAILQ_FIRST(&s->breaks)) != NULL) {
        TAILQ_REMOVE(&s->breaks, stop, entry);
        stop_free(stop);
    }
}

void fault_break_co(BlockDriverState *bs, enum bdrv_debug_event event)
{
    struct fault_node *s = bdrv_opaque(bs);
    struct fault_wait wait = {.co = coroutine_self()};
    struct fault_stop *stop;
    struct fault_stop *next;

    os_mutex_lock(&s->lock);
    for (stop = s->passing ? NULL : TAILQ_FIRST(&s->breaks); stop != NULL; stop = next) {
        next = TAILQ_NEXT(stop, entry);
        if (stop->event == event) {
            TAILQ_REMOVE(&s->breaks, stop, entry);
            TAILQ_INSERT_TAIL(&s->stops, stop, entry);
            stop->wait = &wait;
            wait.left++;
            bdrv_debug_tell(bs, stop->tag, true); /* under the lock: the tag may go after it */
        }
    }
    if (wait.left == 0) {
        os_mutex_unlock(&s->lock);
        return;
    }
    os_mutex_unlock(&s->lock);
    coroutine_yield();
}

/* Let the first request of that tag (NULL: of any) go on; false: there is none. */
static bool let_go(BlockDriverState *bs, const char *tag)
{
    struct fault_node *s = bdrv_opaque(bs);
    struct fault_stop *stop;
    Coroutine *co = NULL;

    os_mutex_lock(&s->lock);
    TAILQ_FOREACH (stop, &s->stops, entry) {
        if (tag == NULL || strcmp(stop->tag, tag) == 0) {
            TAILQ_REMOVE(&s->stops, stop, entry);
            if (--stop->wait->left == 0) {
                co = stop->wait->co; /* B1 */
            }
            break;
        }
    }
    os_mutex_unlock(&s->lock);
    if (stop == NULL) {
        return false;
    }
    bdrv_debug_tell(bs, stop->tag, false);
    stop_free(stop);
    if (co != NULL) {
        aio_co_wake(co);
    }
    return true;
}

int fault_breakpoint(BlockDriverState *bs, enum bdrv_debug_event event, const char *tag)
{
    struct fault_node *s = bdrv_opaque(bs);
    struct fault_stop *stop = calloc(1, sizeof(*stop));

    if (stop == NULL || (stop->tag = strdup(tag)) == NULL) {
        free(stop);
        return -ENOMEM;
    }
    stop->event = event;
    os_mutex_lock(&s->lock);
    TAILQ_INSERT_HEAD(&s->breaks, stop, entry);
    os_mutex_unlock(&s->lock);
    return 0;
}

int fault_resume(BlockDriverState *bs, const char *tag)
{
    return let_go(bs, tag) ? 0 : -ENOENT;
}

int fault_remove_breakpoint(BlockDriverState *bs, const char *tag)
{
    struct fault_node *s = bdrv_opaque(bs);
    struct fault_stop *stop;
    struct fault_stop *next;
    int ret = -ENOENT;

    os_mutex_lock(&s->lock);
    for (stop = TAILQ_FIRST(&s->breaks); stop != NULL; stop = next) {
        next = TAILQ_NEXT(stop, entry);
        if (strcmp(stop->tag, tag) == 0) {
            TAILQ_REMOVE(&s->breaks, stop, entry);
            stop_free(stop);
            ret = 0;
        }
    }
    os_mutex_unlock(&s->lock);
    while (let_go(bs, tag)) {
    }
    return ret;
}

bool fault_is_suspended(BlockDriverState *bs, const char *tag)
{
    struct fault_node *s = bdrv_opaque(bs);
    struct fault_stop *stop;

    os_mutex_lock(&s->lock);
    TAILQ_FOREACH (stop, &s->stops, entry) {
        if (strcmp(stop->tag, tag) == 0) {
            break;
        }
    }
    os_mutex_unlock(&s->lock);
    return stop != NULL;
}

void fault_drained_begin(BlockDriverState *bs)
{
    struct fault_node *s = bdrv_opaque(bs);

    os_mutex_lock(&s->lock);
    s->passing = true; /* B2 */
    os_mutex_unlock(&s->lock);
    while (let_go(bs, NULL)) {
    }
}

void fault_drained_end(BlockDriverState *bs)
{
    struct fault_node *s = bdrv_opaque(bs);

    os_mutex_lock(&s->lock);
    s->passing = false;
    os_mutex_unlock(&s->lock);
}
