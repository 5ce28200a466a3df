/* SPDX-License-Identifier: MIT */
/*
 * Locks between threads. Thin over pthreads, which cannot fail the way they are used here. For
 * critical sections of a few instructions there is the spin word of the co-locks.
 */
#ifndef PLATTER_OS_THREAD_H
#define PLATTER_OS_THREAD_H

#include <assert.h>
#include <pthread.h>

struct os_mutex {
    pthread_mutex_t m;
};
struct os_cond {
    pthread_cond_t c;
};

static inline void os_mutex_init(struct os_mutex *mutex)
{
    int rc = pthread_mutex_init(&mutex->m, 0);

    assert(rc == 0);
    (void)rc;
}
static inline void os_mutex_fini(struct os_mutex *mutex)
{
    pthread_mutex_destroy(&mutex->m);
}
static inline void os_mutex_lock(struct os_mutex *mutex)
{
    pthread_mutex_lock(&mutex->m);
}
static inline void os_mutex_unlock(struct os_mutex *mutex)
{
    pthread_mutex_unlock(&mutex->m);
}
static inline void os_cond_init(struct os_cond *cond)
{
    pthread_cond_init(&cond->c, 0);
}
static inline void os_cond_fini(struct os_cond *cond)
{
    pthread_cond_destroy(&cond->c);
}
static inline void os_cond_wait(struct os_cond *cond, struct os_mutex *mutex)
{
    pthread_cond_wait(&cond->c, &mutex->m);
}
static inline void os_cond_signal(struct os_cond *cond)
{
    pthread_cond_signal(&cond->c);
}
static inline void os_cond_broadcast(struct os_cond *cond)
{
    pthread_cond_broadcast(&cond->c);
}

#endif
