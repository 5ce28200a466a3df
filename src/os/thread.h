/* SPDX-License-Identifier: MIT */
/*
 * Locks between threads. Thin over pthreads, which cannot fail the way they are used here. For
 * critical sections of a few instructions there is the spin word of the co-locks.
 */
#ifndef PLATTER_OS_THREAD_H
#define PLATTER_OS_THREAD_H

#include <assert.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

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
/* At most timeout_ns from now; false when that has passed. */
static inline bool os_cond_wait_ns(struct os_cond *cond, struct os_mutex *mutex, int64_t timeout_ns)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    timeout_ns += ts.tv_nsec;
    ts.tv_sec += (time_t)(timeout_ns / 1000000000);
    ts.tv_nsec = (long)(timeout_ns % 1000000000);
    return pthread_cond_clockwait(&cond->c, &mutex->m, CLOCK_MONOTONIC, &ts) == 0;
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
