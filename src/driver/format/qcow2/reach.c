/* SPDX-License-Identifier: MIT */
/*
 * The end of the data file. A write to new clusters behind it leaves what it does not write as
 * zeroes, but the file must reach the end of the last cluster before the mapping says so: nothing
 * past the end is ever read as zeroes.
 *
 * Many writes grow a file at the same time, and one that lies higher grows it for those below. So
 * one extends at a time; the others wait for it, and the highest of those that still want more is
 * next. A failure is only that one's own.
 */
#include <errno.h>

#include "request.h"

#define REACH_BYTES 4096 /* zeroed at the end, so that the file reaches it */

struct q2_reacher {
    struct q2_waiter waiter;
    uint64_t end;
};

enum reach_turn { TURN_REACHED, TURN_YOURS };

void q2_reach_init(struct qcow2 *s)
{
    os_mutex_init(&s->reach.lock);
    TAILQ_INIT(&s->reach.waiting);
}

void q2_reach_fini(struct qcow2 *s)
{
    os_mutex_fini(&s->reach.lock);
}

static struct q2_reacher *reacher_of(struct q2_waiter *w)
{
    return CONTAINER_OF(w, struct q2_reacher, waiter);
}

/* Those that have their end now, to reached; the highest of the others is next: returned, or NULL.
 * Lock held. */
static struct q2_waiter *turn_over_locked(struct q2_reach *reach, uint64_t file_bytes,
                                          struct q2_wait_list *reached)
{
    struct q2_waiter *highest = NULL;
    struct q2_waiter *next;
    struct q2_waiter *w;

    for (w = TAILQ_FIRST(&reach->waiting); w != NULL; w = next) {
        next = TAILQ_NEXT(w, entry);
        if (reacher_of(w)->end <= file_bytes) {
            TAILQ_REMOVE(&reach->waiting, w, entry);
            TAILQ_INSERT_TAIL(reached, w, entry);
        } else if (highest == NULL || reacher_of(w)->end > reacher_of(highest)->end) {
            highest = w;
        }
    }
    if (highest != NULL) {
        TAILQ_REMOVE(&reach->waiting, highest, entry);
    }
    reach->running = highest != NULL;
    return highest;
}

static void turn_over(struct qcow2 *s)
{
    struct q2_wait_list reached = TAILQ_HEAD_INITIALIZER(reached);
    int64_t file_bytes = bdrv_edge_getlength(s->data);
    struct q2_waiter *next;

    os_mutex_lock(&s->reach.lock);
    next = turn_over_locked(&s->reach, file_bytes < 0 ? 0 : (uint64_t)file_bytes, &reached);
    os_mutex_unlock(&s->reach.lock);
    q2_wake_all(&reached, TURN_REACHED);
    if (next != NULL) {
        next->ret = TURN_YOURS;
        aio_co_wake(next->co);
    }
}

/* Whether it is the caller's turn to extend; else the file has reached end. Coroutine. */
static bool turn_wait_co(struct qcow2 *s, uint64_t end)
{
    struct q2_reach *reach = &s->reach;
    struct q2_reacher self = {.waiter = {.co = coroutine_self()}, .end = end};
    int64_t file_bytes;

    os_mutex_lock(&reach->lock);
    file_bytes = bdrv_edge_getlength(s->data);
    if (file_bytes >= 0 && (uint64_t)file_bytes >= end) {
        os_mutex_unlock(&reach->lock);
        return false;
    }
    if (!reach->running) {
        reach->running = true;
        os_mutex_unlock(&reach->lock);
        return true;
    }
    TAILQ_INSERT_TAIL(&reach->waiting, &self.waiter, entry);
    os_mutex_unlock(&reach->lock);
    coroutine_yield();
    return self.waiter.ret == TURN_YOURS;
}

int q2_reach_co(struct qcow2 *s, uint64_t start, uint64_t end)
{
    uint64_t bytes = min_u64(end - start, REACH_BYTES);
    int ret;

    if (!turn_wait_co(s, end)) {
        return 0;
    }
    ret = bdrv_edge_write_zeroes_co(s->data, end - bytes, bytes, 0);
    turn_over(s);
    return ret;
}
