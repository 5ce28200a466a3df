/* SPDX-License-Identifier: MIT */
/*
 * What each request does in the loop, inline, for the few callers that count instructions. Not in a
 * function that may be switched away before it: the thread may be another one afterwards
 * (struct loop_tls).
 */
#ifndef PLATTER_LOOP_TASK_H
#define PLATTER_LOOP_TASK_H

#include "loop/internal.h"

/* ---- a request of a coroutine's own ---- */

/*
 * coroutine_task_begin takes a coroutine; the caller fills its room with what the request is; then
 * coroutine_task_run runs entry(room) in it, at once, until it waits for something or returns. When
 * it has returned, farewell(room) runs outside of it: in the loop, and never before
 * coroutine_task_run has returned. So who hears that a request is done is no longer inside of it.
 * The room is kept until farewell has returned.
 *
 * Returns the room, COROUTINE_ROOM_BYTES of it, not cleared; *ret_slot is the aio_context_slot of
 * this thread's context. NULL: out of memory, or this thread runs no context. [any]
 */
static inline void *coroutine_task_begin(CoroutineEntry *entry, void (*farewell)(void *room),
                                         unsigned *ret_slot)
{
    AioContext *ctx = loop_tls.ctx;
    Coroutine *co;

    if (UNLIKELY(!ctx)) {
        return 0;
    }
    co = ctx->idle;
    if (LIKELY(co)) {
        ctx->idle = co->next;
        ctx->idle_n--;
    } else {
        co = coroutine_take_slow();
        if (!co) {
            return 0;
        }
    }
    co->entry = entry;
    co->opaque = co->room;
    co->farewell = farewell;
    atomic_store_explicit(&co->ctx, ctx, memory_order_relaxed);
    *ret_slot = ctx->slot;
    return co->room;
}
void coroutine_task_run(void *room);

/* The coroutine whose room it is. */
static inline Coroutine *coroutine_of_room(void *room)
{
    return CONTAINER_OF(room, Coroutine, room);
}

/* ---- the turn ---- */

/* The monotonic clock, read at most once in each turn of this thread's loop (and after each wait),
 * and the slot of its context. In a thread without a context the clock is read each time, and the
 * slot is OS_SLOTS. [any] */
struct aio_turn {
    int64_t now_ns;
    unsigned slot;
};
struct aio_turn aio_turn_slow(void);
/* False: aio_turn_slow is to be asked. Apart, so that a caller that asks it last needs no frame. */
static inline bool aio_turn_is_known(struct aio_turn *ret_turn)
{
    const AioContext *ctx = loop_tls.ctx;

    if (UNLIKELY(!ctx || ctx->turn_ns == 0)) {
        return false;
    }
    *ret_turn = (struct aio_turn){.now_ns = ctx->turn_ns, .slot = ctx->slot};
    return true;
}
static inline struct aio_turn aio_turn(void)
{
    struct aio_turn turn;

    return LIKELY(aio_turn_is_known(&turn)) ? turn : aio_turn_slow();
}

#endif
