/* SPDX-License-Identifier: MIT */
/*
 * Coroutines: functions with a stack of their own that may wait without blocking their thread.
 * Calls with co_ or _co in their name may only be made inside one, and may suspend it.
 *
 * A coroutine runs in one AioContext at a time, the one that was current when it was entered
 * last; it stays there unless it moves itself with co_reschedule_self.
 */
#ifndef PLATTER_COROUTINE_H
#define PLATTER_COROUTINE_H

#include <stdbool.h>
#include <stdint.h>

#include <platter/aio.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct Coroutine Coroutine;
typedef void CoroutineEntry(void *opaque);

/* A coroutine that will run entry(opaque) when first entered, from this thread's pool. NULL when
 * out of memory. Ends itself when entry returns. [any] */
Coroutine *coroutine_create(CoroutineEntry *entry, void *opaque);
/* Run it until it yields or ends. The caller continues then. co must not be running and must
 * belong to this thread's context. [loop] */
void coroutine_enter(Coroutine *co);
/* Suspend the running coroutine; returns when somebody enters it again. Coroutine. */
void coroutine_yield(void);
/* The running coroutine; NULL outside one. [any] */
Coroutine *coroutine_self(void);
static inline bool in_coroutine(void)
{
    return coroutine_self() != 0;
}

/* Make a suspended coroutine run again, in its own context. From its own context's thread, outside
 * a coroutine: entered at once; otherwise scheduled there. Never lost if it races with the yield,
 * provided each yield has one wake. [any] */
void aio_co_wake(Coroutine *co);
/* Schedule co to be entered from ctx's loop. [any] */
void aio_co_schedule(AioContext *ctx, Coroutine *co);
/* Go on in ctx. Coroutine. */
void co_reschedule_self(AioContext *ctx);
/* Context that co runs in. [any] */
AioContext *coroutine_aio_context(const Coroutine *co);
/* Wait on the clock of the os table. Returns 0 or -ENOMEM. Coroutine. */
int co_sleep_ns(int64_t duration_ns);

/* Let this thread keep n more coroutines that have ended for reuse (added to earlier reservations;
 * negative gives back). They are made when they are needed first; this call makes none. [any] */
void coroutine_pool_reserve(int n);

/* Co-locks work between contexts: the waiter suspends, the thread goes on. First come, first
 * served. No lock is held over a memory allocation failure: none of these can fail. */
struct co_waiter;
struct co_wait_list {
    struct co_waiter *head;
    struct co_waiter *tail;
};

typedef struct CoMutex {
    unsigned state; /* bits: locked, somebody waits, waiters are being changed; 0: free */
    struct co_wait_list waiters;
    Coroutine *holder; /* for assertions */
} CoMutex;
void co_mutex_init(CoMutex *mutex);
void co_mutex_lock(CoMutex *mutex);    /* Coroutine */
bool co_mutex_trylock(CoMutex *mutex); /* Coroutine */
void co_mutex_unlock(CoMutex *mutex);  /* Coroutine, the holder */

/* A queue of coroutines that wait for an event. */
typedef struct CoQueue {
    unsigned spin;
    struct co_wait_list waiters;
} CoQueue;
void co_queue_init(CoQueue *queue);
/* Wait for a wake; lock (may be NULL) is released while waiting and held again on return. */
void co_queue_wait(CoQueue *queue, CoMutex *lock);
bool co_queue_next(CoQueue *queue);     /* wake the first; false when nobody waits. [any] */
void co_queue_wake_all(CoQueue *queue); /* [any] */
bool co_queue_empty(CoQueue *queue);    /* [any]; a snapshot */

typedef struct CoRwlock {
    unsigned spin;
    int owners; /* -1 one writer, n > 0 readers */
    struct co_wait_list waiters;
} CoRwlock;
void co_rwlock_init(CoRwlock *lock);
void co_rwlock_rdlock(CoRwlock *lock);
void co_rwlock_wrlock(CoRwlock *lock);
void co_rwlock_downgrade(CoRwlock *lock);
void co_rwlock_unlock(CoRwlock *lock);

#ifdef __cplusplus
}
#endif
#endif
