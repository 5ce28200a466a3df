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

/* The monotonic clock, read at most once in each turn of this thread's loop (and after each wait);
 * in a thread without a context it is read each time. [any] */
int64_t aio_context_turn_ns(void);

/* Poll ctx (the caller's own context) until cond(opaque) is false. Whoever makes cond false in
 * another thread calls aio_notify(ctx). Not in a coroutine. [loop] */
void aio_wait_while(AioContext *ctx, bool (*cond)(void *opaque), void *opaque);

/* A request of a coroutine's own: entry(task) runs in a fresh coroutine, at once, until it waits
 * for something or returns. When it has returned, farewell(room) runs outside of it: in the loop,
 * and never before coroutine_run_task has returned. So who hears that a request is done is no
 * longer inside of it. The room is the coroutine's, and kept until farewell has returned; the task
 * is borrowed only until coroutine_run_task returns. */
#define COROUTINE_ROOM_BYTES 160
struct coroutine_task {
    CoroutineEntry *entry;
    void (*farewell)(void *room);
    /* set before entry runs */
    unsigned slot; /* aio_context_slot of this thread's context */
    Coroutine *co;
    void *room;
};
/* False, and nothing ran: out of memory, or this thread runs no context. [any] */
bool coroutine_run_task(struct coroutine_task *task);

/* The same of a coroutine made by coroutine_create: farewell(opaque) runs once its entry, which is
 * about to, has returned. Coroutine, not of a task. */
void coroutine_set_farewell(void (*farewell)(void *opaque), void *opaque);

#endif
