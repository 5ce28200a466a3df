/* SPDX-License-Identifier: MIT */
/*
 * Locks and queues of coroutines. A waiter is a struct on the waiting coroutine's stack; the list
 * is guarded by a spin bit that is held for a few instructions and never across a call that could
 * block. Whoever releases hands the lock to the first waiter, so nobody overtakes.
 *
 * A waiter links itself and yields afterwards. A wake in between is no harm: aio_co_wake only
 * schedules it in its own thread, which is busy running it until it has yielded.
 */
#include <platter/coroutine.h>

#include <assert.h>

#include "os/os.h"
#include "util/mem.h"

enum mutex_bits { LOCKED = 1, SPIN = 2, WAITERS = 4 };

enum waiter_kind { WAIT_WRITE, WAIT_READ };

struct co_waiter {
    Coroutine *co;
    struct co_waiter *next;
    enum waiter_kind kind; /* CoRwlock */
};

static inline void relax(unsigned *turns)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
    if (++*turns % 128 == 0) {
        os->thread_yield(); /* the holder was preempted */
    }
}

static void spin_lock(unsigned *spin)
{
    unsigned turns = 0;

    while (UNLIKELY(__atomic_exchange_n(spin, 1, __ATOMIC_ACQUIRE))) {
        while (__atomic_load_n(spin, __ATOMIC_RELAXED)) {
            relax(&turns);
        }
    }
}

static inline void spin_unlock(unsigned *spin)
{
    __atomic_store_n(spin, 0, __ATOMIC_RELEASE);
}

static void waiters_push(struct co_wait_list *list, struct co_waiter *w)
{
    w->next = 0;
    if (list->tail) {
        list->tail->next = w;
    } else {
        list->head = w;
    }
    list->tail = w;
}

static struct co_waiter *waiters_pop(struct co_wait_list *list)
{
    struct co_waiter *w = list->head;

    if (w) {
        list->head = w->next;
        if (!list->head) {
            list->tail = 0;
        }
    }
    return w;
}

/* ---- CoMutex ---- */

void co_mutex_init(CoMutex *mutex)
{
    *mutex = (CoMutex){0};
}

/* Take the spin bit; returns the other bits. */
static unsigned mutex_spin(CoMutex *mutex)
{
    unsigned turns = 0;
    unsigned s = __atomic_load_n(&mutex->state, __ATOMIC_RELAXED);

    for (;;) {
        if (s & SPIN) {
            relax(&turns);
            s = __atomic_load_n(&mutex->state, __ATOMIC_RELAXED);
        } else if (__atomic_compare_exchange_n(&mutex->state, &s, s | SPIN, true, __ATOMIC_ACQUIRE,
                                               __ATOMIC_RELAXED)) {
            return s;
        }
    }
}

static __attribute__((noinline)) void mutex_lock_slow(CoMutex *mutex, Coroutine *self)
{
    struct co_waiter w = {.co = self};

    if (!(mutex_spin(mutex) & LOCKED)) {
        mutex->holder = self;
        __atomic_store_n(&mutex->state, LOCKED, __ATOMIC_RELEASE);
        return;
    }
    waiters_push(&mutex->waiters, &w);
    __atomic_store_n(&mutex->state, LOCKED | WAITERS, __ATOMIC_RELEASE);
    coroutine_yield();
    assert(mutex->holder == self); /* handed over */
}

void co_mutex_lock(CoMutex *mutex)
{
    Coroutine *self = coroutine_self();
    unsigned expected = 0;

    assert(self);
    if (LIKELY(__atomic_compare_exchange_n(&mutex->state, &expected, LOCKED, false,
                                           __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))) {
        mutex->holder = self;
    } else {
        mutex_lock_slow(mutex, self);
    }
}

bool co_mutex_trylock(CoMutex *mutex)
{
    unsigned expected = 0;

    /* Strong, and a spin bit in passing counts as locked: somebody is at it */
    if (!__atomic_compare_exchange_n(&mutex->state, &expected, LOCKED, false, __ATOMIC_ACQUIRE,
                                     __ATOMIC_RELAXED)) {
        return false;
    }
    mutex->holder = coroutine_self();
    return true;
}

static __attribute__((noinline)) void mutex_unlock_slow(CoMutex *mutex)
{
    struct co_waiter *w;
    Coroutine *co;

    mutex_spin(mutex);
    w = waiters_pop(&mutex->waiters);
    if (!w) {
        __atomic_store_n(&mutex->state, 0, __ATOMIC_RELEASE);
        return;
    }
    co = w->co; /* w ends when co runs */
    mutex->holder = co;
    __atomic_store_n(&mutex->state, mutex->waiters.head ? LOCKED | WAITERS : LOCKED,
                     __ATOMIC_RELEASE);
    aio_co_wake(co);
}

void co_mutex_unlock(CoMutex *mutex)
{
    unsigned expected = LOCKED;

    assert(mutex->holder == coroutine_self());
    mutex->holder = 0;
    if (UNLIKELY(!__atomic_compare_exchange_n(&mutex->state, &expected, 0, false, __ATOMIC_RELEASE,
                                              __ATOMIC_RELAXED))) {
        mutex_unlock_slow(mutex);
    }
}

/* ---- CoQueue ---- */

void co_queue_init(CoQueue *queue)
{
    *queue = (CoQueue){0};
}

void co_queue_wait(CoQueue *queue, CoMutex *lock)
{
    struct co_waiter w = {.co = coroutine_self()};

    assert(w.co);
    spin_lock(&queue->spin);
    waiters_push(&queue->waiters, &w);
    spin_unlock(&queue->spin);
    if (lock) {
        co_mutex_unlock(lock);
    }
    coroutine_yield();
    if (lock) {
        co_mutex_lock(lock);
    }
}

bool co_queue_next(CoQueue *queue)
{
    struct co_waiter *w;
    Coroutine *co;

    spin_lock(&queue->spin);
    w = waiters_pop(&queue->waiters);
    co = w ? w->co : 0;
    spin_unlock(&queue->spin);
    if (!co) {
        return false;
    }
    aio_co_wake(co);
    return true;
}

void co_queue_wake_all(CoQueue *queue)
{
    struct co_waiter *w;

    spin_lock(&queue->spin);
    w = queue->waiters.head;
    queue->waiters = (struct co_wait_list){0};
    spin_unlock(&queue->spin);
    while (w) {
        struct co_waiter *next = w->next;

        aio_co_wake(w->co);
        w = next;
    }
}

bool co_queue_empty(CoQueue *queue)
{
    bool empty;

    spin_lock(&queue->spin);
    empty = !queue->waiters.head;
    spin_unlock(&queue->spin);
    return empty;
}

/* ---- CoRwlock ---- */

void co_rwlock_init(CoRwlock *lock)
{
    *lock = (CoRwlock){0};
}

static bool rwlock_admits(const CoRwlock *lock, enum waiter_kind kind)
{
    return kind == WAIT_READ ? lock->owners >= 0 : lock->owners == 0;
}

static void rwlock_take(CoRwlock *lock, enum waiter_kind kind)
{
    lock->owners = kind == WAIT_READ ? lock->owners + 1 : -1;
}

static void rwlock_lock(CoRwlock *lock, enum waiter_kind kind)
{
    struct co_waiter w = {.co = coroutine_self(), .kind = kind};

    assert(w.co);
    spin_lock(&lock->spin);
    if (!lock->waiters.head && rwlock_admits(lock, kind)) {
        rwlock_take(lock, kind);
        spin_unlock(&lock->spin);
        return;
    }
    waiters_push(&lock->waiters, &w);
    spin_unlock(&lock->spin);
    coroutine_yield(); /* owners counts us when we come back */
}

/* With the spin word held, which is released: let in whoever may come in now. */
static void rwlock_admit_waiters(CoRwlock *lock)
{
    struct co_waiter *w = 0;
    struct co_waiter **tail = &w;

    while (lock->waiters.head && rwlock_admits(lock, lock->waiters.head->kind)) {
        *tail = waiters_pop(&lock->waiters);
        rwlock_take(lock, (*tail)->kind);
        (*tail)->next = 0;
        tail = &(*tail)->next;
    }
    spin_unlock(&lock->spin);
    while (w) {
        struct co_waiter *next = w->next;

        aio_co_wake(w->co);
        w = next;
    }
}

void co_rwlock_rdlock(CoRwlock *lock)
{
    rwlock_lock(lock, WAIT_READ);
}

void co_rwlock_wrlock(CoRwlock *lock)
{
    rwlock_lock(lock, WAIT_WRITE);
}

void co_rwlock_downgrade(CoRwlock *lock)
{
    spin_lock(&lock->spin);
    assert(lock->owners == -1);
    lock->owners = 1;
    rwlock_admit_waiters(lock);
}

void co_rwlock_unlock(CoRwlock *lock)
{
    spin_lock(&lock->spin);
    assert(lock->owners != 0);
    lock->owners = lock->owners > 0 ? lock->owners - 1 : 0;
    rwlock_admit_waiters(lock);
}
