/* SPDX-License-Identifier: MIT */
/*
 * AioContext: making and ending one, the turn of its loop, notification, and the descriptor for a
 * host's own loop.
 *
 * A turn: coroutines that are ready, bottom halves, timers; then the poller, which gives the kernel
 * everything those have queued and resumes what has completed. Each part runs at most what was
 * there when it began. Handlers may poll the context again; all state is taken step by step, so the
 * inner poll goes on where the outer one is.
 */
#include "loop/context.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "loop/internal.h"
#include "loop/task.h"
#include "os/os.h"
#include "util/error.h"

#define RING_ENTRIES_DEFAULT 256
#define RING_ENTRIES_MAX 4096
#define WORKERS_DEFAULT 16
#define WORKERS_MAX 256
#define WORKERS_IDLE_NS INT64_C(10000000000)

/* ---- making and ending ---- */

static void context_init(AioContext *ctx, const struct aio_context_options *opts)
{
    atomic_init(&ctx->ref, 1);
    ctx->timers_floor_ns = INT64_MIN;
    ctx->epoll_fd = -1;
    ctx->outer_fd = -1;
    ctx->outer_timer_fd = -1;
    ctx->event_fd = -1;
    for (int i = 0; i < AIO_FD_BUCKETS; i++) {
        TAILQ_INIT(&ctx->fds[i]);
    }
    TAILQ_INIT(&ctx->dead_fds);
    TAILQ_INIT(&ctx->rearm_fds);
    ctx->ring_entries = opts->ring_entries ? opts->ring_entries : RING_ENTRIES_DEFAULT;
    ctx->workers_idle_ns = WORKERS_IDLE_NS;
    ctx->workers_max = opts->worker_threads_max ? opts->worker_threads_max : WORKERS_DEFAULT;
}

/* The ring is made here, where failure can be told, and enabled in the thread that uses it. */
static int context_open(AioContext *ctx, enum aio_engine wanted, Error **errp)
{
    int rc = -ENOSYS;

    /* Blocking, because the ring waits by a read; epoll asks before each read */
    ctx->event_fd = os->eventfd(0, 0);
    if (ctx->event_fd < 0) {
        return error_set_errno(errp, -ctx->event_fd, "Could not create an eventfd");
    }
    if (wanted != AIO_ENGINE_THREADS && os->io_uring_allowed()) {
        rc = ring_open(ctx);
    }
    if (rc == 0) {
        ctx->engine = AIO_ENGINE_IO_URING;
        ctx->poller = &poller_uring;
        return 0;
    }
    if (wanted == AIO_ENGINE_IO_URING) {
        error_set_errno(errp, -rc, "Could not create an io_uring");
        error_set_hint(errp, "The system may forbid io_uring; the engine 'threads' needs none");
        return -ENOSYS;
    }
    ctx->engine = AIO_ENGINE_THREADS;
    ctx->poller = &poller_epoll;
    rc = aio_epoll_open(ctx);
    if (rc < 0) {
        return error_set_errno(errp, -rc, "Could not create an epoll instance");
    }
    return 0;
}

static void context_free(AioContext *ctx)
{
    while (atomic_load_explicit(&ctx->wakers, memory_order_acquire) > 0) {
        os->thread_yield(); /* a few instructions and at most one write */
    }
    workers_free(ctx->workers);
    aio_bhs_free(ctx);
    aio_idle_free(ctx);
    if (ctx->poller) {
        ctx->poller->close(ctx);
    }
    aio_fds_free(ctx);
    if (ctx->outer_timer_fd >= 0) {
        os->close(ctx->outer_timer_fd);
    }
    if (ctx->outer_fd >= 0) {
        os->close(ctx->outer_fd);
    }
    if (ctx->event_fd >= 0) {
        os->close(ctx->event_fd);
    }
    os_slot_put(ctx->slot);
    free(ctx);
}

static bool options_are_valid(const struct aio_context_options *opts)
{
    return opts->size == sizeof(*opts) && opts->engine <= AIO_ENGINE_IO_URING &&
           opts->ring_entries <= RING_ENTRIES_MAX && opts->worker_threads_max <= WORKERS_MAX;
}

AioContext *aio_context_new(const struct aio_context_options *opts, Error **errp)
{
    static const struct aio_context_options defaults = {.size = sizeof(defaults)};
    AioContext *ctx;

    opts = opts ? opts : &defaults;
    if (!options_are_valid(opts)) {
        error_set(errp, EINVAL, "Options of a context are out of range");
        return 0;
    }
    ctx = aligned_alloc(_Alignof(AioContext), sizeof(*ctx));
    if (!ctx) {
        error_set(errp, ENOMEM, "Out of memory for a context");
        return 0;
    }
    memset(ctx, 0, sizeof(*ctx));
    context_init(ctx, opts);
    ctx->slot = os_slot_get();
    if (context_open(ctx, opts->engine, errp) < 0) {
        context_free(ctx);
        return 0;
    }
    return ctx;
}

void aio_context_ref(AioContext *ctx)
{
    atomic_fetch_add_explicit(&ctx->ref, 1, memory_order_relaxed);
}

void aio_context_unref(AioContext *ctx)
{
    if (ctx && atomic_fetch_sub(&ctx->ref, 1) == 1) {
        if (loop_tls.ctx == ctx) {
            loop_tls.ctx = 0;
        }
        context_free(ctx);
    }
}

unsigned aio_context_slot(const AioContext *ctx)
{
    return ctx->slot;
}

void aio_context_set_budget(AioContext *ctx, struct mem_budget *budget)
{
    if (budget != ctx->budget) {
        aio_idle_free(ctx);
        ctx->budget = budget;
    }
}

const char *aio_context_engine_name(const AioContext *ctx)
{
    return ctx->engine == AIO_ENGINE_IO_URING ? "io_uring" : "threads";
}

AioContext *aio_context_current(void)
{
    return loop_current();
}

void aio_context_set_current(AioContext *ctx)
{
    loop_tls.ctx = ctx;
}

void aio_context_start(AioContext *ctx)
{
    ctx->started = true;
    aio_fds_rearm_all(ctx);
}

/* ---- notification ---- */

void aio_notify_slow(AioContext *ctx)
{
    uint64_t one = 1;

    if (!atomic_exchange(&ctx->notified, true)) {
        (void)os->write(ctx->event_fd, &one, sizeof(one)); /* never full: drained before the next */
    }
}

/* Awake again: from here on wakers write anew, and everything put in place before is seen. */
void aio_notify_drain(AioContext *ctx, bool must_read)
{
    uint64_t count;

    if (must_read) {
        (void)os->read(ctx->event_fd, &count, sizeof(count));
    }
    /* An exchange, to see what came before a waker that found it set and wrote nothing */
    (void)atomic_exchange(&ctx->notified, false);
    atomic_store(&ctx->poked, false);
}

void aio_notify(AioContext *ctx)
{
    atomic_store(&ctx->poked, true);
    aio_kick(ctx);
}

static bool work_pending(AioContext *ctx)
{
    return ctx->ready_head || ctx->bh_head || atomic_load(&ctx->remote) ||
           atomic_load(&ctx->bh_list);
}

/* ---- the turn ---- */

/* Coroutines scheduled by other threads, behind those that are ready. */
static void ready_take_remote(AioContext *ctx)
{
    Coroutine *co = atomic_exchange(&ctx->remote, 0);
    Coroutine *first = 0;

    while (co) {
        Coroutine *next = co->next;

        co->next = first;
        first = co;
        co = next;
    }
    while (first) {
        co = first;
        first = co->next;
        aio_ready_push(ctx, co);
    }
}

static bool ready_run(AioContext *ctx)
{
    unsigned n;

    if (atomic_load_explicit(&ctx->remote, memory_order_relaxed)) {
        ready_take_remote(ctx);
    }
    if (LIKELY(!ctx->ready_head)) {
        return false;
    }
    for (n = ctx->ready_n; n > 0 && ctx->ready_head; n--) {
        Coroutine *co = ctx->ready_head;

        ctx->ready_head = co->next;
        if (!ctx->ready_head) {
            ctx->ready_tail = 0;
        }
        ctx->ready_n--;
        if (LIKELY(co->ended)) {
            co->ended = false;
            co->farewell(co->opaque);
            coroutine_recycle(ctx, co);
        } else {
            coroutine_enter(co);
        }
    }
    return true;
}

static bool run_local(AioContext *ctx)
{
    bool progress = ready_run(ctx);

    progress |= aio_bh_run(ctx);
    if (ctx->timers) {
        progress |= aio_timers_run(ctx);
    }
    return progress;
}

/* How long the poller may wait; with notify_me set when that is not zero. */
static int64_t sleep_begin(AioContext *ctx)
{
    int64_t timeout_ns = ctx->timers ? aio_timers_timeout_ns(ctx) : -1;

    if (timeout_ns != 0) {
        atomic_store(&ctx->notify_me, 1);
        if (work_pending(ctx) || (atomic_load(&ctx->poked) && atomic_exchange(&ctx->poked, 0))) {
            timeout_ns = 0;
        }
    }
    return timeout_ns;
}

/* The host is about to sleep on outer_fd: see that everything it must wake for makes that readable,
 * and behave as if asleep from here on. */
static void outer_settle(AioContext *ctx)
{
    int64_t deadline_ns = ctx->timers ? ctx->timers->expire_ns : 0;

    ctx->poller->settle(ctx);
    if (ctx->timers && deadline_ns < 1) {
        deadline_ns = 1; /* 0 would disarm */
    }
    if (deadline_ns != ctx->outer_deadline_ns) {
        if (os->timerfd_set(ctx->outer_timer_fd, deadline_ns) == 0) {
            ctx->outer_deadline_ns = deadline_ns;
        }
    }
    atomic_store(&ctx->notify_me, 1);
    if (work_pending(ctx) || atomic_load(&ctx->poked)) {
        aio_notify_slow(ctx);
    }
}

static __attribute__((noinline)) void poll_leave(AioContext *ctx, AioContext *previous)
{
    if (ctx->poll_depth == 0) {
        if (!TAILQ_EMPTY(&ctx->dead_fds)) {
            aio_fds_reap_dead(ctx);
        }
        if (ctx->outer_fd >= 0) {
            outer_settle(ctx);
        }
    }
    if (previous) {
        loop_tls.ctx = previous;
    }
}

bool aio_poll(AioContext *ctx, bool blocking)
{
    struct loop_tls *t = &loop_tls;
    AioContext *previous = t->ctx; /* NULL: this binds the thread */
    bool progress;

    assert(!t->self);
    t->ctx = ctx;
    if (UNLIKELY(!ctx->started)) {
        aio_context_start(ctx);
    }
    if (ctx->outer_fd >= 0) {
        atomic_store_explicit(&ctx->notify_me, 0, memory_order_relaxed);
        ctx->poller->awake(ctx);
    }
    ctx->poll_depth++;
    ctx->turn_ns = 0;
    progress = run_local(ctx);
    if (progress || !blocking) {
        progress |= ctx->poller->wait(ctx, 0);
    } else {
        progress |= ctx->poller->wait(ctx, sleep_begin(ctx));
        if (!progress) {
            progress = run_local(ctx);
        }
    }
    ctx->poll_depth--;
    if (UNLIKELY(previous != ctx || ctx->outer_fd >= 0 || !TAILQ_EMPTY(&ctx->dead_fds))) {
        poll_leave(ctx, previous);
    }
    return progress;
}

struct aio_turn aio_turn_slow(void)
{
    AioContext *ctx = loop_tls.ctx;
    int64_t now_ns = aio_clock_ns();

    if (ctx == NULL) {
        return (struct aio_turn){.now_ns = now_ns, .slot = OS_SLOTS};
    }
    ctx->turn_ns = now_ns;
    return (struct aio_turn){.now_ns = now_ns, .slot = ctx->slot};
}

void aio_wait_while(AioContext *ctx, bool (*cond)(void *opaque), void *opaque)
{
    while (cond(opaque)) {
        aio_poll(ctx, true);
    }
}

/* ---- a host's loop ---- */

static int outer_watch(AioContext *ctx, int fd)
{
    struct epoll_event event = {.events = EPOLLIN};

    return fd < 0 ? fd : os->epoll_ctl(ctx->outer_fd, EPOLL_CTL_ADD, fd, &event);
}

static int outer_open(AioContext *ctx)
{
    int rc;

    ctx->outer_timer_fd = os->timerfd_create();
    rc = outer_watch(ctx, ctx->outer_timer_fd);
    if (rc >= 0) {
        rc = outer_watch(ctx, ctx->poller->fd(ctx));
    }
    if (rc >= 0) { /* directly: what a poller makes of it may come later */
        rc = outer_watch(ctx, ctx->event_fd);
    }
    if (rc < 0) {
        if (ctx->outer_timer_fd >= 0) {
            os->close(ctx->outer_timer_fd);
        }
        os->close(ctx->outer_fd);
        ctx->outer_timer_fd = -1;
        ctx->outer_fd = -1;
    }
    return rc;
}

int aio_context_get_fd(AioContext *ctx)
{
    int rc;

    if (ctx->outer_fd >= 0) {
        return ctx->outer_fd;
    }
    if (!ctx->started) {
        aio_context_start(ctx);
    }
    rc = os->epoll_create();
    if (rc < 0) {
        return rc;
    }
    ctx->outer_fd = rc;
    rc = outer_open(ctx);
    if (rc < 0) {
        return rc;
    }
    if (ctx->poll_depth == 0) {
        outer_settle(ctx);
    }
    return ctx->outer_fd;
}
