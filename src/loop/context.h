/* SPDX-License-Identifier: MIT */
/*
 * What floors above the loop may know of a context besides platter/aio.h.
 */
#ifndef PLATTER_LOOP_CONTEXT_H
#define PLATTER_LOOP_CONTEXT_H

#include <platter/aio.h>
#include <platter/coroutine.h>

struct mem_budget;

/* Small number of ctx for per-context counters, 0..OS_SLOTS-1. [any] */
unsigned aio_context_slot(const AioContext *ctx);

/* Charge stacks of this context to a budget (NULL: none). Set before start. */
void aio_context_set_budget(AioContext *ctx, struct mem_budget *budget);

/* Poll ctx (the caller's own context) until cond(opaque) is false. Whoever makes cond false in
 * another thread calls aio_notify(ctx). Not in a coroutine. [loop] */
void aio_wait_while(AioContext *ctx, bool (*cond)(void *opaque), void *opaque);

/* farewell(opaque) runs outside of the running coroutine once its entry, which is about to, has
 * returned. Coroutine, not of a task (task.h). */
void coroutine_set_farewell(void (*farewell)(void *opaque), void *opaque);

#endif
