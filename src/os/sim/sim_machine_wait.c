/* SPDX-License-Identifier: MIT */
/*
 * Waiting: eventfds, timers, epoll, and the clock, which goes on to the next moment of the agenda
 * only when nothing is ready.
 */
#include "os/sim/sim_machine_int.h"

#include <errno.h>
#include <stdlib.h>

#define TURN_NS 500                                      /* what one wait costs by itself */
#define REAL_BEGIN_NS (INT64_C(1700000000) * 1000000000) /* of the wall clock */

static int64_t now_ns(void)
{
    return sim_world_now_ns(sim_machine_now->world);
}

uint32_t sim_thing_ready(const struct sim_thing *thing)
{
    const struct sim_watch *watch;

    switch (thing->kind) {
    case SIM_THING_SOCKET:
        return sim_socket_ready(&thing->socket);
    case SIM_THING_EVENT:
        return (thing->count > 0 ? EPOLLIN : 0) | EPOLLOUT;
    case SIM_THING_TIMER:
        return thing->expire_ns != 0 && thing->expire_ns <= now_ns() ? EPOLLIN : 0;
    case SIM_THING_EPOLL:
        TAILQ_FOREACH (watch, &thing->watches, link) {
            if (!watch->off && (sim_thing_ready(watch->thing) &
                                (watch->event.events | EPOLLERR | EPOLLHUP)) != 0) {
                return EPOLLIN;
            }
        }
        return 0;
    }
    return 0;
}

/* ---- making ---- */

static int new_fd(enum sim_thing_kind kind, int flags, uint64_t count)
{
    struct sim_verdict verdict;
    int rc = sim_machine_ask(SIM_CALL_EVENTFD, &verdict);
    struct sim_thing *thing;

    if (rc < 0) {
        return rc;
    }
    thing = sim_thing_new(kind);
    if (!thing) {
        return -ENOMEM;
    }
    thing->flags |= flags;
    if (kind == SIM_THING_EVENT) {
        thing->count = count;
    }
    return sim_thing_fd(thing);
}

static int machine_eventfd(unsigned initial, int flags)
{
    return new_fd(SIM_THING_EVENT, flags, initial);
}

static int machine_timerfd_create(void)
{
    return new_fd(SIM_THING_TIMER, O_NONBLOCK, 0);
}

static int machine_timerfd_set(int fd, int64_t expire_ns)
{
    struct sim_thing *thing = sim_thing_of_kind(fd, SIM_THING_TIMER);

    if (!thing) {
        return -EINVAL;
    }
    thing->expire_ns = expire_ns < 0 ? 1 : expire_ns;
    return 0;
}

static int machine_epoll_create(void)
{
    return new_fd(SIM_THING_EPOLL, 0, 0);
}

static struct sim_watch *watch_find(struct sim_thing *epoll, int fd)
{
    struct sim_watch *watch;

    TAILQ_FOREACH (watch, &epoll->watches, link) {
        if (watch->fd == fd) {
            return watch;
        }
    }
    return 0;
}

static int machine_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
    struct sim_thing *epoll = sim_thing_of_kind(epfd, SIM_THING_EPOLL);
    struct sim_thing *thing = sim_thing_of(fd);
    struct sim_watch *watch;

    if (!epoll || !thing) {
        return sim_is_fd(fd) && !sim_is_machine_fd(fd) ? -EPERM : -EBADF;
    }
    watch = watch_find(epoll, fd);
    if (op == EPOLL_CTL_ADD && watch) {
        return -EEXIST;
    }
    if (op != EPOLL_CTL_ADD && !watch) {
        return -ENOENT;
    }
    if (op == EPOLL_CTL_DEL) {
        TAILQ_REMOVE(&epoll->watches, watch, link);
        free(watch);
        return 0;
    }
    if (!watch) {
        watch = calloc(1, sizeof(*watch));
        if (!watch) {
            return -ENOMEM;
        }
        watch->thing = thing;
        watch->fd = fd;
        TAILQ_INSERT_TAIL(&epoll->watches, watch, link);
    }
    watch->event = *event;
    watch->off = false;
    return 0;
}

/* ---- waiting ---- */

/* What is ready, beginning anywhere: programs must not rely on an order. */
static int collect(struct sim_thing *epoll, struct epoll_event *events, int max)
{
    struct sim_watch *watch;
    unsigned count = 0;
    unsigned skip;
    int n = 0;

    TAILQ_FOREACH (watch, &epoll->watches, link) {
        count++;
    }
    skip = count ? (unsigned)sim_rng_below(&sim_machine_now->rng, count) : 0;
    while (skip-- > 0) {
        watch = TAILQ_FIRST(&epoll->watches);
        TAILQ_REMOVE(&epoll->watches, watch, link);
        TAILQ_INSERT_TAIL(&epoll->watches, watch, link);
    }
    TAILQ_FOREACH (watch, &epoll->watches, link) {
        uint32_t ready =
            sim_thing_ready(watch->thing) & (watch->event.events | EPOLLERR | EPOLLHUP);

        if (ready != 0 && !watch->off && n < max) {
            events[n] = watch->event;
            events[n++].events = ready;
            watch->off = watch->event.events & EPOLLONESHOT;
        }
    }
    return n;
}

/* Everything of the agenda whose time has come, but not what that adds for this same moment. */
static void moments_run(struct sim_machine *machine)
{
    int64_t now = now_ns();
    struct sim_moment *last = TAILQ_LAST(&machine->agenda, sim_moments);
    struct sim_moment *moment;
    bool more = last;

    while (more && (moment = TAILQ_FIRST(&machine->agenda)) && moment->due_ns <= now) {
        struct sim_moment this = *moment;

        more = moment != last;
        TAILQ_REMOVE(&machine->agenda, moment, link);
        free(moment);
        machine->peer += this.peer;
        this.fn(this.opaque);
        machine->peer -= this.peer;
    }
}

/* The next moment at which anything may happen; INT64_MAX: never. */
static int64_t next_ns(const struct sim_machine *machine, int64_t deadline)
{
    const struct sim_moment *first = TAILQ_FIRST(&machine->agenda);
    int64_t next = first && first->due_ns < deadline ? first->due_ns : deadline;
    int64_t now = now_ns();

    for (size_t i = 0; i < machine->nfds; i++) {
        const struct sim_thing *thing = machine->fds[i];

        if (thing && thing->kind == SIM_THING_TIMER && thing->expire_ns > now &&
            thing->expire_ns < next) {
            next = thing->expire_ns;
        }
    }
    return next;
}

static void stall(struct sim_machine *machine, bool turns)
{
    if (machine->stall) {
        machine->stall(machine->stall_opaque, turns);
    }
    assert(!"the machine stands still");
}

static int machine_epoll_wait(int epfd, struct epoll_event *events, int max, int64_t timeout_ns)
{
    struct sim_machine *machine = sim_machine_now;
    struct sim_thing *epoll = sim_thing_of_kind(epfd, SIM_THING_EPOLL);
    int64_t deadline = INT64_MAX;
    struct sim_verdict verdict;
    int rc = sim_machine_ask(SIM_CALL_EPOLL_WAIT, &verdict);

    if (rc < 0 || !epoll) {
        return rc < 0 ? rc : -EBADF;
    }
    if (++machine->turns == machine->turns_max) {
        stall(machine, true);
    }
    if (timeout_ns >= 0 && timeout_ns < INT64_MAX - now_ns()) {
        deadline = now_ns() + timeout_ns;
    }
    sim_world_advance_ns(machine->world, TURN_NS);
    for (;;) {
        int64_t next;

        moments_run(machine);
        rc = collect(epoll, events, max);
        if (rc > 0 || now_ns() >= deadline) {
            return rc;
        }
        next = next_ns(machine, deadline);
        if (next == INT64_MAX) {
            stall(machine, false);
        }
        if (next > now_ns()) {
            sim_world_advance_ns(machine->world, next - now_ns());
        }
    }
}

/* ---- work and time ---- */

static int machine_run_later(void (*run)(void *arg), void *arg)
{
    struct sim_machine *machine = sim_machine_now;
    int64_t ns = machine->opts.work_min_ns;

    if (machine->opts.work_spread_ns > 0) {
        ns += (int64_t)sim_rng_below(&machine->rng, (uint64_t)machine->opts.work_spread_ns);
    }
    sim_moment_add(machine, ns, run, arg, false);
    return 0;
}

static int64_t machine_realtime_ns(void)
{
    return REAL_BEGIN_NS + now_ns();
}

static void machine_sleep_ns(int64_t ns)
{
    sim_world_advance_ns(sim_machine_now->world, ns);
}

void sim_machine_wait_members(struct os_table *table)
{
    table->eventfd = machine_eventfd;
    table->timerfd_create = machine_timerfd_create;
    table->timerfd_set = machine_timerfd_set;
    table->epoll_create = machine_epoll_create;
    table->epoll_ctl = machine_epoll_ctl;
    table->epoll_wait = machine_epoll_wait;
    table->run_later = machine_run_later;
    table->clock_realtime_ns = machine_realtime_ns;
    table->sleep_ns = machine_sleep_ns;
}
