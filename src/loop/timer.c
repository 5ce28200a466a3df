/* SPDX-License-Identifier: MIT */
/*
 * Timers: a pairing heap inside the timers themselves, so arming cannot fail. Equal expiries fire
 * in the order of arming. One run fires only what was armed before it began, so a timer that arms
 * itself for "now" does not keep the loop from its other work; and one that arms itself for the
 * past meanwhile is put behind those that are due, so it does not keep those from firing either.
 */
#include <platter/aio.h>

#include <stdlib.h>

#include <platter/coroutine.h>

#include "loop/internal.h"
#include "os/os.h"

int64_t aio_clock_ns(void)
{
    return os->clock_monotonic_ns();
}

static bool fires_before(const AioTimer *a, const AioTimer *b)
{
    return a->expire_ns != b->expire_ns ? a->expire_ns < b->expire_ns : a->seq < b->seq;
}

/* Join two heaps whose roots have no sibling. */
static AioTimer *heap_meld(AioTimer *a, AioTimer *b)
{
    if (!a || !b) {
        return a ? a : b;
    }
    if (fires_before(b, a)) {
        AioTimer *t = a;

        a = b;
        b = t;
    }
    b->prev = a;
    b->sibling = a->child;
    if (a->child) {
        a->child->prev = b;
    }
    a->child = b;
    return a;
}

/* Join the list of siblings that begins at first: in pairs from the left, then from the right. */
static AioTimer *heap_meld_siblings(AioTimer *first)
{
    AioTimer *pairs = 0;
    AioTimer *root = 0;

    while (first) {
        AioTimer *a = first;
        AioTimer *b = a->sibling;

        first = b ? b->sibling : 0;
        a->sibling = 0;
        if (b) {
            b->sibling = 0;
        }
        a = heap_meld(a, b);
        a->sibling = pairs;
        pairs = a;
    }
    while (pairs) {
        AioTimer *next = pairs->sibling;

        pairs->sibling = 0;
        root = heap_meld(root, pairs);
        pairs = next;
    }
    return root;
}

static void heap_remove(AioContext *ctx, AioTimer *timer)
{
    AioTimer *rest = heap_meld_siblings(timer->child);

    if (timer == ctx->timers) {
        ctx->timers = rest;
    } else {
        if (timer->prev->child == timer) {
            timer->prev->child = timer->sibling;
        } else {
            timer->prev->sibling = timer->sibling;
        }
        if (timer->sibling) {
            timer->sibling->prev = timer->prev;
        }
        timer->sibling = 0;
        ctx->timers = heap_meld(ctx->timers, rest);
    }
    if (ctx->timers) {
        ctx->timers->prev = 0;
    }
    timer->child = 0;
    timer->prev = 0;
}

static void timer_init(AioTimer *timer, AioContext *ctx, QEMUBHFunc *cb, void *opaque)
{
    *timer = (AioTimer){.ctx = ctx, .cb = cb, .opaque = opaque};
}

AioTimer *aio_timer_new(AioContext *ctx, QEMUBHFunc *cb, void *opaque)
{
    AioTimer *timer = malloc(sizeof(*timer));

    if (timer) {
        timer_init(timer, ctx, cb, opaque);
    }
    return timer;
}

void aio_timer_mod(AioTimer *timer, int64_t expire_ns)
{
    AioContext *ctx = timer->ctx;

    aio_timer_del(timer);
    timer->expire_ns = expire_ns > ctx->timers_floor_ns ? expire_ns : ctx->timers_floor_ns;
    timer->seq = ctx->timer_seq++;
    timer->armed = true;
    ctx->timers = heap_meld(ctx->timers, timer);
    aio_kick(ctx); /* a host that sleeps on our descriptor has the old deadline */
}

void aio_timer_del(AioTimer *timer)
{
    if (timer->armed) {
        heap_remove(timer->ctx, timer);
        timer->armed = false;
    }
}

bool aio_timer_pending(const AioTimer *timer)
{
    return timer->armed;
}

void aio_timer_free(AioTimer *timer)
{
    if (timer) {
        aio_timer_del(timer);
        free(timer);
    }
}

bool aio_timers_run(AioContext *ctx)
{
    uint64_t end_seq = ctx->timer_seq;
    int64_t outer_floor_ns = ctx->timers_floor_ns;
    bool progress = false;
    int64_t now_ns;

    if (!ctx->timers) {
        return false;
    }
    now_ns = os->clock_monotonic_ns();
    ctx->timers_floor_ns = now_ns;
    while (ctx->timers && ctx->timers->expire_ns <= now_ns && ctx->timers->seq < end_seq) {
        AioTimer *timer = ctx->timers;

        aio_timer_del(timer);
        progress = true;
        timer->cb(timer->opaque); /* may free it */
    }
    ctx->timers_floor_ns = outer_floor_ns;
    return progress;
}

int64_t aio_timers_timeout_ns(const AioContext *ctx)
{
    int64_t now_ns;

    if (!ctx->timers) {
        return -1;
    }
    now_ns = os->clock_monotonic_ns();
    return ctx->timers->expire_ns > now_ns ? ctx->timers->expire_ns - now_ns : 0;
}

static void sleep_over(void *opaque)
{
    aio_co_wake(opaque);
}

int co_sleep_ns(int64_t duration_ns)
{
    AioContext *ctx = loop_current();
    AioTimer timer;
    int64_t now_ns;

    assert(ctx && in_coroutine());
    timer_init(&timer, ctx, sleep_over, coroutine_self());
    now_ns = os->clock_monotonic_ns();
    duration_ns = duration_ns > 0 ? duration_ns : 0;
    aio_timer_mod(&timer, duration_ns < INT64_MAX - now_ns ? now_ns + duration_ns : INT64_MAX);
    coroutine_yield();
    assert(!timer.armed); /* nobody else may wake a sleeper */
    return 0;
}
