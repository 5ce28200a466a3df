/* SPDX-License-Identifier: MIT */
/*
 * Waiting for an event that an os_mutex guards. A waiter stands on the stack of its coroutine; who
 * takes it out of the list, under the lock, wakes it once, outside of the lock: a wake may run the
 * waiter at once.
 */
#ifndef PLATTER_QCOW2_WAIT_H
#define PLATTER_QCOW2_WAIT_H

#include <stddef.h>
#include <sys/queue.h>

#include <platter/coroutine.h>

#include "os/thread.h"

struct q2_waiter {
    Coroutine *co;
    int ret;
    TAILQ_ENTRY(q2_waiter) entry;
};
TAILQ_HEAD(q2_wait_list, q2_waiter);

/* The lock is held; it is given back before the wait and not taken again. What the waker gave.
 * Coroutine. */
static inline int q2_wait_co(struct q2_wait_list *list, struct os_mutex *lock)
{
    struct q2_waiter w = {.co = coroutine_self()};

    TAILQ_INSERT_TAIL(list, &w, entry);
    os_mutex_unlock(lock);
    coroutine_yield();
    return w.ret;
}

/* Those who were taken out of their list; no lock is held. */
static inline void q2_wake_all(struct q2_wait_list *woken, int ret)
{
    struct q2_waiter *w = TAILQ_FIRST(woken);

    while (w != NULL) {
        struct q2_waiter *next = TAILQ_NEXT(w, entry);

        w->ret = ret;
        aio_co_wake(w->co); /* w may be gone now */
        w = next;
    }
}

#endif
