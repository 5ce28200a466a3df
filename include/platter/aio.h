/* SPDX-License-Identifier: MIT */
/*
 * AioContext: an event loop for one thread at a time. File descriptors, bottom halves, timers and
 * the completions of submitted I/O run in it.
 *
 * A context belongs to the thread that polls it (the first aio_poll, iothread start or
 * aio_context_set_current binds it). Calls are tagged:
 *   [loop]  only in the context's own thread
 *   [any]   from any thread
 */
#ifndef PLATTER_AIO_H
#define PLATTER_AIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <platter/error.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct AioContext AioContext;
typedef struct QEMUBH QEMUBH;
typedef struct AioTimer AioTimer;
typedef struct IOThread IOThread;
typedef void QEMUBHFunc(void *opaque);
typedef void AioFdFunc(void *opaque);

/* Which engine carries file I/O of a context. */
enum aio_engine {
    AIO_ENGINE_AUTO = 0, /* io_uring where a probe finds that the kernel allows it, else threads */
    AIO_ENGINE_THREADS,  /* worker threads with preadv2 and pwritev2 */
    AIO_ENGINE_IO_URING,
};

struct aio_context_options {
    size_t size;                 /* sizeof(struct aio_context_options) */
    enum aio_engine engine;      /* what nodes with aio=auto use, and what waits for descriptors */
    unsigned ring_entries;       /* submission entries of the ring; 0: 256; at most 4096 */
    unsigned worker_threads_max; /* worker threads of this context; 0: 16; at most 256 */
};

/* A new context, reference count 1. [any]
 * opts may be NULL. Errors: ENOMEM, EMFILE, ENOSYS (io_uring asked for by name, not available). */
AioContext *aio_context_new(const struct aio_context_options *opts, Error **errp);
void aio_context_ref(AioContext *ctx);   /* [any] */
void aio_context_unref(AioContext *ctx); /* [any]; the last one ends it: no handler may remain */

/* The context this thread runs now, or NULL. [any] */
AioContext *aio_context_current(void);
/* Bind ctx to this thread without polling it (a host loop does this once); NULL unbinds. [any] */
void aio_context_set_current(AioContext *ctx);

/* Run what is ready; with blocking, wait for something first. Returns whether anything ran.
 * May be nested: a handler may poll its own context. [loop] */
bool aio_poll(AioContext *ctx, bool blocking);

/* Make a sleeping aio_poll of ctx return. [any] */
void aio_notify(AioContext *ctx);

/* One descriptor that is readable whenever aio_poll(ctx, false) would have something to do: bottom
 * halves, timers and completions included. A host adds it to its own poll loop and calls
 * aio_poll(ctx, false) until that returns false before it sleeps again. Owned by ctx. [loop]
 * Returns the descriptor or -errno. */
int aio_context_get_fd(AioContext *ctx);

/* Name of the engine that serves aio=auto here: "io_uring" or "threads". [any] */
const char *aio_context_engine_name(const AioContext *ctx);

/* Watch fd; NULL for both handlers stops. Level triggered. Handlers run in ctx. [loop]
 * Returns 0, -ENOMEM or the system's -errno. */
int aio_set_fd_handler(AioContext *ctx, int fd, AioFdFunc *read_cb, AioFdFunc *write_cb,
                       void *opaque);

/* Bottom halves: run cb soon, in ctx, once per schedule (schedules before it runs fold together).
 * aio_bh_new: NULL out of memory. Schedule and cancel: [any]. Delete: [any], cb will not start
 * any more unless it is running in the loop at this moment. */
QEMUBH *aio_bh_new(AioContext *ctx, QEMUBHFunc *cb, void *opaque);
void aio_bh_schedule(QEMUBH *bh);
void aio_bh_cancel(QEMUBH *bh);
void aio_bh_delete(QEMUBH *bh);
/* Schedule cb once, nothing to delete. 0 or -ENOMEM. [any] */
int aio_bh_schedule_oneshot(AioContext *ctx, QEMUBHFunc *cb, void *opaque);

/* Timers on the monotonic clock of the os table (a test may fake it). [loop] but for new.
 * mod sets the absolute expiry in ns and arms; a fired timer is disarmed. Free may be called by
 * the timer's own callback. */
AioTimer *aio_timer_new(AioContext *ctx, QEMUBHFunc *cb, void *opaque);
void aio_timer_mod(AioTimer *timer, int64_t expire_ns);
void aio_timer_del(AioTimer *timer);
bool aio_timer_pending(const AioTimer *timer);
void aio_timer_free(AioTimer *timer);
/* Now on that clock, in ns. [any] */
int64_t aio_clock_ns(void);

/* A thread that runs one context until it is freed. [any]; free joins the thread and must not be
 * called from it. name is for the system's thread list (15 bytes shown). */
IOThread *iothread_new(const char *name, const struct aio_context_options *opts, Error **errp);
AioContext *iothread_get_aio_context(IOThread *thread);
/* Its id as the system shows it (for pinning it to processors). */
int64_t iothread_get_id(IOThread *thread);
void iothread_free(IOThread *thread);

#ifdef __cplusplus
}
#endif
#endif
