/* SPDX-License-Identifier: MIT */
/*
 * The run state of an instance: whether the consumer runs, how it is asked to stop, and the
 * requests that wait until it runs again. A parked request is not in flight: drains, media changes
 * and the end of the instance do not wait for it but end it.
 */
#include <errno.h>

#include "block/instance.h"
#include "loop/context.h"

struct instance_parked {
    Coroutine *co;
    AioContext *ctx; /* that co runs in */
    const void *owner;
    int ret;
    TAILQ_ENTRY(instance_parked) entry;
};

void instance_run_init(Platter *pl)
{
    os_mutex_init(&pl->run_lock);
    TAILQ_INIT(&pl->parked);
}

void instance_run_fini(Platter *pl)
{
    os_mutex_fini(&pl->run_lock);
}

const char *platter_run_state_name(enum platter_run_state state)
{
    static const char *const names[] = {
        [PLATTER_RUN_STATE_RUNNING] = "running",
        [PLATTER_RUN_STATE_PAUSED] = "paused",
        [PLATTER_RUN_STATE_IO_ERROR] = "io-error",
    };

    return names[state];
}

void platter_set_run_ops(Platter *pl, const struct platter_run_ops *ops, void *opaque)
{
    pl->run_ops = ops;
    pl->run_opaque = opaque;
}

enum platter_run_state platter_get_run_state(Platter *pl)
{
    enum platter_run_state state;

    os_mutex_lock(&pl->run_lock);
    state = pl->run_state;
    os_mutex_unlock(&pl->run_lock);
    return state;
}

/* False: it was so, or stopped for another reason, already. */
static bool stop(Platter *pl, enum platter_run_state why)
{
    bool ran;

    os_mutex_lock(&pl->run_lock);
    ran = pl->run_state == PLATTER_RUN_STATE_RUNNING;
    if (ran) {
        pl->run_state = why;
    }
    os_mutex_unlock(&pl->run_lock);
    return ran;
}

void instance_stop_prepare(Platter *pl)
{
    if (pl->run_ops != NULL && pl->run_ops->prepare != NULL) {
        pl->run_ops->prepare(pl->run_opaque);
    }
}

void instance_stop_request(Platter *pl, enum platter_run_state why)
{
    bool changed = stop(pl, why);

    if (pl->run_ops != NULL && pl->run_ops->request != NULL) {
        pl->run_ops->request(pl->run_opaque, why);
    }
    if (changed) {
        instance_raise(pl, &(struct platter_event){.type = PLATTER_EVENT_STOP});
    }
}

void platter_stop(Platter *pl)
{
    if (stop(pl, PLATTER_RUN_STATE_PAUSED)) {
        instance_raise(pl, &(struct platter_event){.type = PLATTER_EVENT_STOP});
    }
}

void platter_cont(Platter *pl)
{
    bool stopped;

    os_mutex_lock(&pl->run_lock);
    stopped = pl->run_state != PLATTER_RUN_STATE_RUNNING;
    pl->run_state = PLATTER_RUN_STATE_RUNNING;
    os_mutex_unlock(&pl->run_lock);
    if (stopped) {
        instance_raise(pl, &(struct platter_event){.type = PLATTER_EVENT_RESUME});
        instance_unpark(pl, NULL, 0);
    }
}

int instance_park_co(Platter *pl, const void *owner)
{
    struct instance_parked parked = {
        .co = coroutine_self(), .ctx = aio_context_current(), .owner = owner};

    os_mutex_lock(&pl->run_lock);
    pl->parked_count++;
    if (pl->run_state == PLATTER_RUN_STATE_RUNNING) {
        os_mutex_unlock(&pl->run_lock);
        return 0;
    }
    TAILQ_INSERT_TAIL(&pl->parked, &parked, entry);
    os_mutex_unlock(&pl->run_lock);
    coroutine_yield();
    return parked.ret;
}

static bool somebody_parked(void *opaque)
{
    Platter *pl = opaque;
    bool yes;

    os_mutex_lock(&pl->run_lock);
    yes = pl->parked_count > 0;
    os_mutex_unlock(&pl->run_lock);
    return yes;
}

void instance_park_leave(Platter *pl)
{
    os_mutex_lock(&pl->run_lock);
    pl->parked_count--;
    os_mutex_unlock(&pl->run_lock);
    aio_notify(pl->main_ctx);
}

void instance_unpark_all(Platter *pl)
{
    instance_unpark(pl, NULL, -ECANCELED);
    aio_wait_while(pl->main_ctx, somebody_parked, pl);
}

void instance_unpark(Platter *pl, const void *owner, int ret)
{
    struct instance_parked *parked;
    struct instance_parked *next;

    os_mutex_lock(&pl->run_lock);
    for (parked = TAILQ_FIRST(&pl->parked); parked != NULL; parked = next) {
        next = TAILQ_NEXT(parked, entry);
        if (owner == NULL || parked->owner == owner) {
            TAILQ_REMOVE(&pl->parked, parked, entry);
            parked->ret = ret;
            aio_co_schedule(parked->ctx, parked->co);
        }
    }
    os_mutex_unlock(&pl->run_lock);
}
