/* SPDX-License-Identifier: MIT */
/*
 * Coroutines: stacks, the thread's pool of them, enter, yield and wake.
 *
 * A coroutine is one mapping: guard page, stack, and at the top the struct itself. One that ends
 * stays with the context it ended in, or goes to the pool of the thread, with its loop in
 * coroutine_main suspended, so the next use is an ordinary switch.
 *
 * Who may touch a suspended coroutine: only the thread of its context enters it. A wake from
 * another thread links it into that context's list and nothing else, so its enterer may still look
 * at it after the switch out. One that moves (CO_MOVED) is handed to its new context by its
 * enterer, after the switch, never by itself.
 */
#include <platter/coroutine.h>

#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include "loop/coroutine_switch.h"
#include "loop/internal.h"
#include "loop/sanitizer.h"
#include "loop/task.h"
#include "os/os.h"
#include "util/budget.h"
#include "util/mem.h"

#define POOL_BASE 128 /* idle coroutines a thread keeps without being asked */
#define COLOURS 16    /* stacks start at different cache lines, else all tops share one set */
#define COLOUR_BYTES 192u

#if SAN_ASAN || SAN_TSAN
#define STACK_BYTES (256u << 10)
#else
#define STACK_BYTES (64u << 10)
#endif

__thread struct loop_tls loop_tls = {.pool_room = POOL_BASE};

/* ---- making and ending ---- */

static void switch_out(Coroutine *co, enum co_switched why)
{
    void *to = co->caller_sp;

    co->caller_sp = 0;
    san_leave(co);
    co_switch((void *)(uintptr_t)why, &co->sp, to);
    san_arrive(co);
}

static void coroutine_main(void *arg)
{
    Coroutine *co = arg;

    san_arrive(co);
    for (;;) {
        co->entry(co->opaque);
        switch_out(co, CO_ENDED);
    }
}

static void coroutine_destroy(Coroutine *co)
{
    void *map = co->map;
    size_t map_bytes = co->map_bytes;

    san_stack_gone(co);
    os->munmap(map, map_bytes);
}

static Coroutine *coroutine_map(unsigned colour)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t head = sizeof(Coroutine) + (COLOURS * COLOUR_BYTES);
    size_t bytes = (page + STACK_BYTES + head + page - 1) & ~(page - 1);
    size_t top = (bytes - sizeof(Coroutine) - ((colour % COLOURS) * COLOUR_BYTES)) & ~(size_t)63;
    void *map;
    Coroutine *co;

    if (os->mmap(bytes, PROT_READ | PROT_WRITE, MAP_STACK | MAP_NORESERVE, &map) < 0) {
        return 0;
    }
    if (os->mprotect(map, page, PROT_NONE) < 0) {
        os->munmap(map, bytes);
        return 0;
    }
    co = (Coroutine *)(void *)((char *)map + top);
    co->map = map;
    co->map_bytes = bytes;
    co->stack_bottom = (char *)map + page;
    co->stack_bytes = top - page;
    co->sp = co_switch_prepare(co->stack_bottom, co->stack_bytes, coroutine_main);
    san_stack_made(co);
    return co;
}

/* ---- the pool ---- */

static pthread_once_t exit_once = PTHREAD_ONCE_INIT;
static pthread_key_t exit_key;

static void thread_exits(void *arg)
{
    struct loop_tls *t = arg;

    t->pool_room = 0; /* whoever ends a coroutine after this frees it */
    while (t->pool) {
        Coroutine *co = t->pool;

        t->pool = co->next;
        coroutine_destroy(co);
    }
}

static void exit_key_make(void)
{
    int rc = pthread_key_create(&exit_key, thread_exits);

    assert(rc == 0);
    (void)rc;
}

/* The one piece of process-wide state of the loop: the key whose destructor frees the pools of
 * threads that are not ours when they exit. */
static void thread_exit_hook(struct loop_tls *t)
{
    pthread_once(&exit_once, exit_key_make);
    pthread_setspecific(exit_key, t);
    t->exit_hooked = true;
}

static __attribute__((noinline)) Coroutine *pool_refill(struct loop_tls *t)
{
    if (!t->exit_hooked) {
        thread_exit_hook(t);
    }
    return coroutine_map(t->colour++);
}

/* Only the limit grows: what a burst has mapped is kept, and nobody pays for what never comes. */
void coroutine_pool_reserve(int n)
{
    struct loop_tls *t = &loop_tls;

    t->pool_room += n;
    while (t->pool_room < 0 && t->pool) {
        Coroutine *co = t->pool;

        t->pool = co->next;
        t->pool_room++;
        coroutine_destroy(co);
    }
}

/* ---- the budget: a stack is charged while it is in use or a context keeps it ---- */

__attribute__((noinline)) Coroutine *coroutine_take_slow(void)
{
    struct loop_tls *t = &loop_tls;
    struct mem_budget *budget = t->ctx ? t->ctx->budget : 0;
    Coroutine *co = t->pool;

    if (budget && !mem_budget_take(budget, CO_STACK_CHARGE_BYTES)) {
        return 0;
    }
    if (co) {
        t->pool = co->next;
        t->pool_room++;
    } else {
        co = pool_refill(t);
        if (!co) {
            if (budget) {
                mem_budget_give(budget, CO_STACK_CHARGE_BYTES);
            }
            return 0;
        }
    }
    co->budget = budget;
    return co;
}

__attribute__((noinline)) void coroutine_let_go(Coroutine *co)
{
    struct loop_tls *t = &loop_tls;

    if (co->budget) {
        mem_budget_give(co->budget, CO_STACK_CHARGE_BYTES);
    }
    if (t->pool_room > 0) {
        co->next = t->pool;
        t->pool = co;
        t->pool_room--;
    } else {
        coroutine_destroy(co);
    }
}

void aio_idle_free(AioContext *ctx)
{
    while (ctx->idle) {
        Coroutine *co = ctx->idle;

        ctx->idle = co->next;
        ctx->idle_n--;
        coroutine_let_go(co);
    }
}

/* A coroutine for this thread, its stack charged. */
static inline Coroutine *coroutine_take(AioContext *ctx)
{
    Coroutine *co = ctx ? ctx->idle : 0;

    if (UNLIKELY(!co)) {
        return coroutine_take_slow();
    }
    ctx->idle = co->next;
    ctx->idle_n--;
    return co;
}

/* ---- the calls ---- */

Coroutine *coroutine_create(CoroutineEntry *entry, void *opaque)
{
    AioContext *ctx = loop_tls.ctx;
    Coroutine *co = coroutine_take(ctx);

    if (LIKELY(co)) {
        co->entry = entry;
        co->opaque = opaque;
        co->farewell = 0;
        atomic_store_explicit(&co->ctx, ctx, memory_order_relaxed);
    }
    return co;
}

static __attribute__((noinline)) void coroutine_moved(Coroutine *co)
{
    aio_co_schedule(co->move_to, co);
}

void coroutine_set_farewell(void (*farewell)(void *opaque), void *opaque)
{
    Coroutine *co = loop_tls.self;

    assert(co && !co->farewell);
    co->farewell = farewell;
    co->opaque = opaque;
}

static inline enum co_switched coroutine_switch_to(struct loop_tls *t, Coroutine *co)
{
    Coroutine *self = t->self;
    enum co_switched why;

    assert(!co->caller_sp); /* not running */
    t->self = co;
    san_enter(co);
    why = (enum co_switched)(uintptr_t)co_switch(co, &co->caller_sp, co->sp);
    san_entered(co);
    t->self = self; /* an enterer stays in its thread */
    return why;
}

void coroutine_enter(Coroutine *co)
{
    struct loop_tls *t = &loop_tls;
    enum co_switched why;

    atomic_store_explicit(&co->ctx, t->ctx, memory_order_relaxed);
    why = coroutine_switch_to(t, co);
    if (why == CO_ENDED) {
        if (co->farewell) {
            co->farewell(co->opaque);
        }
        coroutine_recycle(t->ctx, co);
    } else if (UNLIKELY(why == CO_MOVED)) {
        coroutine_moved(co);
    }
}

void coroutine_task_run(void *room)
{
    Coroutine *co = coroutine_of_room(room);
    enum co_switched why = coroutine_switch_to(&loop_tls, co);

    if (LIKELY(why == CO_ENDED)) { /* without having waited, so it is where it began */
        AioContext *ctx = atomic_load_explicit(&co->ctx, memory_order_relaxed);

        co->ended = true;
        aio_ready_push(ctx, co);
        aio_kick(ctx);
    } else if (UNLIKELY(why == CO_MOVED)) {
        coroutine_moved(co);
    }
}

void coroutine_yield(void)
{
    Coroutine *co = loop_tls.self;

    assert(co);
    switch_out(co, CO_YIELDED);
}

__attribute__((noinline)) Coroutine *coroutine_self(void)
{
    return loop_tls.self;
}

__attribute__((noinline)) AioContext *loop_current(void)
{
    return loop_tls.ctx;
}

/* ---- waking ---- */

static void remote_push(AioContext *ctx, Coroutine *co)
{
    Coroutine *head;

    aio_waker_begin(ctx);
    head = atomic_load_explicit(&ctx->remote, memory_order_relaxed);
    do {
        co->next = head;
    } while (!atomic_compare_exchange_weak(&ctx->remote, &head, co));
    aio_kick(ctx);
    aio_waker_end(ctx);
}

void aio_co_schedule(AioContext *ctx, Coroutine *co)
{
    atomic_store_explicit(&co->ctx, ctx, memory_order_relaxed);
    if (ctx == loop_tls.ctx) {
        aio_ready_push(ctx, co);
        aio_kick(ctx);
    } else {
        remote_push(ctx, co);
    }
}

void aio_co_wake(Coroutine *co)
{
    AioContext *ctx = atomic_load_explicit(&co->ctx, memory_order_relaxed);
    struct loop_tls *t = &loop_tls;

    assert(ctx);
    if (UNLIKELY(ctx != t->ctx)) {
        remote_push(ctx, co);
    } else if (t->self) {
        aio_ready_push(ctx, co);
        aio_kick(ctx);
    } else {
        coroutine_enter(co);
    }
}

void co_reschedule_self(AioContext *ctx)
{
    struct loop_tls *t = &loop_tls;
    Coroutine *co = t->self;

    assert(co);
    if (ctx == t->ctx) {
        return;
    }
    co->move_to = ctx;
    switch_out(co, CO_MOVED);
}

AioContext *coroutine_aio_context(const Coroutine *co)
{
    return atomic_load_explicit(&co->ctx, memory_order_relaxed);
}
