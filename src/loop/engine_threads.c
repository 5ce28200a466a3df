/* SPDX-License-Identifier: MIT */
/*
 * Worker threads of a context: they run calls that may block for coroutines of it. Threads are
 * started when work finds nobody idle, up to the context's limit, and end after a while without
 * work. A finished call wakes its coroutine like any other thread would.
 *
 * Work that computes is at most once on each processor: what is more waits, and the thread that is
 * done with one goes on with the next.
 *
 * The struct of a piece of work is on the waiting coroutine's stack and is gone once it is woken.
 */
#include <errno.h>
#include <stdlib.h>

#include "loop/internal.h"
#include "loop/io.h"
#include "os/os.h"
#include "os/thread.h"

struct work {
    int64_t (*fn)(void *arg);
    void *arg;
    int64_t ret;
    AioContext *ctx;
    Coroutine *co;
    bool computes;
    uint64_t number;
    STAILQ_ENTRY(work) entry;
};

struct worker {
    struct workers *pool;
    os_thread *thread; /* owned; set before the lock is let go that the worker waits for */
    LIST_ENTRY(worker) entry;
};

struct workers {
    unsigned max; /* this, computing_max and idle_ns: set before start */
    unsigned computing_max;
    int64_t idle_ns;
    struct os_mutex lock;
    /* lock: */
    struct os_cond more; /* work or stopping */
    struct os_cond gone; /* running fell */
    STAILQ_HEAD(, work) queue;
    unsigned queued;
    unsigned computing;                  /* works of that kind with workers or queued */
    STAILQ_HEAD(, work) computing_waits; /* empty unless that is the maximum */
    uint64_t submitted;                  /* ever; numbers the work */
    unsigned running;
    unsigned idle;
    bool stopping;
    LIST_HEAD(, worker) ended; /* to be joined */
};

static _Thread_local uint64_t current_number; /* of the work that this worker does */

static struct work *work_wait(struct workers *pool)
{
    struct work *work;

    while (!(work = STAILQ_FIRST(&pool->queue))) {
        bool in_time;

        if (pool->stopping) {
            return 0;
        }
        pool->idle++;
        in_time = os_cond_wait_ns(&pool->more, &pool->lock, pool->idle_ns);
        pool->idle--;
        if (!in_time && STAILQ_EMPTY(&pool->queue)) {
            return 0;
        }
    }
    STAILQ_REMOVE_HEAD(&pool->queue, entry);
    pool->queued--;
    return work;
}

/* With the lock held, after work that computes. NULL: nothing of its kind waits. */
static struct work *computing_next(struct workers *pool)
{
    struct work *next = STAILQ_FIRST(&pool->computing_waits);

    if (next) {
        STAILQ_REMOVE_HEAD(&pool->computing_waits, entry);
    } else {
        pool->computing--;
    }
    return next;
}

static void *worker_main(void *arg)
{
    struct worker *worker = arg;
    struct workers *pool = worker->pool;
    struct work *next = 0;
    struct work *work;

    os_mutex_lock(&pool->lock);
    while ((work = next ? next : work_wait(pool))) {
        Coroutine *co = work->co;
        bool computes = work->computes;

        os_mutex_unlock(&pool->lock);
        current_number = work->number;
        work->ret = work->fn(work->arg);
        aio_co_wake(co);
        os_mutex_lock(&pool->lock);
        next = computes ? computing_next(pool) : 0;
    }
    pool->running--;
    LIST_INSERT_HEAD(&pool->ended, worker, entry);
    os_cond_signal(&pool->gone);
    os_mutex_unlock(&pool->lock);
    return 0;
}

/* With the lock held: end what is left of workers that have gone. */
static void workers_join_ended(struct workers *pool)
{
    struct worker *worker;

    while ((worker = LIST_FIRST(&pool->ended))) {
        LIST_REMOVE(worker, entry);
        os_mutex_unlock(&pool->lock); /* it may be on its last step, which needs the lock */
        os->thread_join(worker->thread);
        free(worker);
        os_mutex_lock(&pool->lock);
    }
}

static void worker_start(struct workers *pool)
{
    struct worker *worker = malloc(sizeof(*worker));

    if (!worker) {
        return;
    }
    worker->pool = pool;
    if (os->thread_create("platter-worker", worker_main, worker, &worker->thread) < 0) {
        free(worker);
        return;
    }
    pool->running++;
}

static struct workers *workers_new(const AioContext *ctx)
{
    struct workers *pool = calloc(1, sizeof(*pool));

    if (pool) {
        pool->max = ctx->workers_max;
        pool->computing_max = os->processors();
        pool->idle_ns = ctx->workers_idle_ns;
        os_mutex_init(&pool->lock);
        os_cond_init(&pool->more);
        os_cond_init(&pool->gone);
        STAILQ_INIT(&pool->queue);
        STAILQ_INIT(&pool->computing_waits);
        LIST_INIT(&pool->ended);
    }
    return pool;
}

void workers_free(struct workers *pool)
{
    if (!pool) {
        return;
    }
    os_mutex_lock(&pool->lock);
    assert(STAILQ_EMPTY(&pool->queue) && STAILQ_EMPTY(&pool->computing_waits));
    pool->stopping = true;
    os_cond_broadcast(&pool->more);
    while (pool->running > 0) {
        os_cond_wait(&pool->gone, &pool->lock);
    }
    workers_join_ended(pool);
    os_mutex_unlock(&pool->lock);
    os_cond_fini(&pool->gone);
    os_cond_fini(&pool->more);
    os_mutex_fini(&pool->lock);
    free(pool);
}

uint64_t workers_current(void)
{
    return current_number;
}

unsigned workers_pending(const AioContext *ctx)
{
    struct workers *pool = ctx->workers;
    unsigned pending;

    if (!pool) {
        return 0;
    }
    os_mutex_lock(&pool->lock);
    pending = pool->running - pool->idle;
    if (pool->idle > 0 || pool->running < pool->max) {
        pending += pool->queued;
    }
    os_mutex_unlock(&pool->lock);
    return pending;
}

/* With the lock held; false when there is nobody to do it and nobody could be had. */
static bool work_queue(struct workers *pool, struct work *work)
{
    bool queued;

    if (pool->queued >= pool->idle && pool->running < pool->max) {
        worker_start(pool);
    }
    queued = pool->running > 0;
    if (queued) {
        STAILQ_INSERT_TAIL(&pool->queue, work, entry);
        pool->queued++;
        pool->computing += work->computes;
        os_cond_signal(&pool->more);
    }
    return queued;
}

/* False when there is nobody to do it and nobody could be had. */
static bool workers_submit(struct workers *pool, struct work *work)
{
    bool queued = true;

    os_mutex_lock(&pool->lock);
    if (!LIST_EMPTY(&pool->ended)) {
        workers_join_ended(pool);
    }
    work->number = pool->submitted + 1;
    if (work->computes && pool->computing == pool->computing_max) {
        STAILQ_INSERT_TAIL(&pool->computing_waits, work, entry);
    } else {
        queued = work_queue(pool, work);
    }
    pool->submitted += queued;
    os_mutex_unlock(&pool->lock);
    return queued;
}

/* Where the table has no threads: the loop's own, from its epoll_wait. */
static void work_run_here(void *arg)
{
    struct work *work = arg;

    work->ret = work->fn(work->arg);
    aio_co_schedule(work->ctx, work->co);
}

static int64_t work_later_co(struct work *work)
{
    int rc = os->run_later(work_run_here, work);

    if (rc < 0) {
        return rc;
    }
    coroutine_yield();
    return work->ret;
}

static int64_t work_co(struct work *work)
{
    AioContext *ctx = loop_current();

    work->ctx = ctx;
    work->co = coroutine_self();
    assert(ctx && work->co);
    if (os->run_later) {
        return work_later_co(work);
    }
    if (!ctx->workers) {
        ctx->workers = workers_new(ctx);
    }
    if (!ctx->workers || !workers_submit(ctx->workers, work)) {
        return -ENOMEM;
    }
    coroutine_yield();
    return work->ret;
}

int64_t aio_worker_co(int64_t (*fn)(void *arg), void *arg)
{
    struct work work = {.fn = fn, .arg = arg};

    return work_co(&work);
}

int64_t aio_compute_co(int64_t (*fn)(void *arg), void *arg)
{
    struct work work = {.fn = fn, .arg = arg, .computes = true};

    return work_co(&work);
}
