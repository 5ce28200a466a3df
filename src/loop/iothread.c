/* SPDX-License-Identifier: MIT */
/* A thread that runs one context until it is told to stop. */
#include <errno.h>
#include <stdlib.h>

#include "loop/internal.h"
#include "os/os.h"
#include "util/error.h"

struct IOThread {
    AioContext *ctx;   /* counted */
    os_thread *thread; /* owned */
    atomic_bool stop;
    _Atomic int64_t id; /* 0: it does not run yet */
};

static void *iothread_main(void *arg)
{
    IOThread *thread = arg;

    atomic_store(&thread->id, os->thread_id());
    aio_context_set_current(thread->ctx);
    while (!atomic_load(&thread->stop)) {
        aio_poll(thread->ctx, true);
    }
    while (aio_poll(thread->ctx, false)) {
        /* what was scheduled before the stop */
    }
    aio_context_leave_thread(thread->ctx);
    aio_context_set_current(0);
    return 0;
}

IOThread *iothread_new(const char *name, const struct aio_context_options *opts, Error **errp)
{
    IOThread *thread = calloc(1, sizeof(*thread));
    int rc;

    if (!thread) {
        error_set(errp, ENOMEM, "Out of memory for thread '%s'", name);
        return 0;
    }
    thread->ctx = aio_context_new(opts, errp);
    if (!thread->ctx) {
        free(thread);
        return 0;
    }
    rc = os->thread_create(name, iothread_main, thread, &thread->thread);
    if (rc < 0) {
        error_set_errno(errp, -rc, "Could not start thread '%s'", name);
        aio_context_unref(thread->ctx);
        free(thread);
        return 0;
    }
    return thread;
}

AioContext *iothread_get_aio_context(IOThread *thread)
{
    return thread->ctx;
}

int64_t iothread_get_id(IOThread *thread)
{
    while (atomic_load(&thread->id) == 0) {
        os->thread_yield();
    }
    return atomic_load(&thread->id);
}

void iothread_free(IOThread *thread)
{
    if (!thread) {
        return;
    }
    assert(aio_context_current() != thread->ctx);
    atomic_store(&thread->stop, true);
    aio_notify(thread->ctx);
    os->thread_join(thread->thread);
    aio_context_unref(thread->ctx);
    free(thread);
}
