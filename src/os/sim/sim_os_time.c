/* SPDX-License-Identifier: MIT */
/*
 * Virtual time. It moves only when everybody waits: a thread in epoll_wait that has nothing ready,
 * while no call is busy, lets it jump to the earliest moment somebody waits for. Timer descriptors
 * are eventfds that the jump makes readable.
 *
 * Before a jump the thread really waits for a moment, because work may be on its way to a worker
 * thread that has not taken it up yet.
 */
#include "os/sim/sim_world.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>

#define GRACE_NS INT64_C(200000)
#define START_NS INT64_C(1000000000)
#define NUMBERS 1024 /* of work that is under way at a time, at the most */

void sim_time_init(struct sim_world *world)
{
    os_mutex_init(&world->time_lock);
    os_cond_init(&world->time_moved);
    world->now_ns = START_NS;
    for (unsigned i = 0; i < SIM_TIMERS_MAX; i++) {
        world->timers[i].fd = -1;
    }
}

void sim_time_fini(struct sim_world *world)
{
    os_cond_fini(&world->time_moved);
    os_mutex_fini(&world->time_lock);
}

void sim_world_busy_begin(struct sim_world *world)
{
    os_mutex_lock(&world->time_lock);
    world->busy++;
    os_mutex_unlock(&world->time_lock);
}

void sim_world_busy_end(struct sim_world *world)
{
    os_mutex_lock(&world->time_lock);
    assert(world->busy > 0);
    world->busy--;
    os_mutex_unlock(&world->time_lock);
}

void sim_world_time_by_loop(struct sim_world *world, sim_pending_func *pending,
                            sim_number_func *number, void *opaque)
{
    os_mutex_lock(&world->time_lock);
    world->pending = pending;
    world->number = number;
    world->pending_opaque = opaque;
    os_mutex_unlock(&world->time_lock);
}

int64_t sim_world_now_ns(struct sim_world *world)
{
    int64_t now;

    os_mutex_lock(&world->time_lock);
    now = world->now_ns;
    os_mutex_unlock(&world->time_lock);
    return now;
}

/* Time is `to` now: timers fire, sleepers wake. Lock held. */
static void time_set(struct sim_world *world, int64_t to)
{
    const uint64_t one = 1;

    if (to > world->now_ns) {
        world->now_ns = to;
    }
    for (unsigned i = 0; i < SIM_TIMERS_MAX; i++) {
        struct sim_timer *timer = &world->timers[i];

        if (timer->fd >= 0 && timer->expire_ns != 0 && timer->expire_ns <= world->now_ns) {
            timer->expire_ns = 0;
            os_linux.write(timer->fd, &one, sizeof(one));
        }
    }
    os_cond_broadcast(&world->time_moved);
}

void sim_world_advance_ns(struct sim_world *world, int64_t ns)
{
    os_mutex_lock(&world->time_lock);
    time_set(world, world->now_ns + ns);
    os_mutex_unlock(&world->time_lock);
}

/* The earliest moment anybody waits for; INT64_MAX when nobody does. Lock held. */
static int64_t time_next(const struct sim_world *world)
{
    int64_t next = INT64_MAX;

    for (unsigned i = 0; i < SIM_WAITERS_MAX; i++) {
        if (world->waiters[i] != 0 && world->waiters[i] < next) {
            next = world->waiters[i];
        }
    }
    for (unsigned i = 0; i < SIM_TIMERS_MAX; i++) {
        if (world->timers[i].fd >= 0 && world->timers[i].expire_ns != 0 &&
            world->timers[i].expire_ns < next) {
            next = world->timers[i].expire_ns;
        }
    }
    return next;
}

static unsigned waiter_add(struct sim_world *world, int64_t deadline)
{
    unsigned i = 0;

    while (i < SIM_WAITERS_MAX && world->waiters[i] != 0) {
        i++;
    }
    assert(i < SIM_WAITERS_MAX);
    world->waiters[i] = deadline;
    return i;
}

void sim_time_sleep(struct sim_world *world, uint64_t ns)
{
    int64_t deadline;
    unsigned slot;

    os_mutex_lock(&world->time_lock);
    deadline = world->now_ns + (int64_t)ns;
    if (world->pending) { /* the same calls take the same time, but do not end together */
        deadline += (int64_t)(world->number() % NUMBERS);
    }
    assert(world->busy > 0);
    world->busy--; /* it waits; time may pass */
    if (world->nloops == 0 && world->busy == 0 && !world->pending) {
        time_set(world, deadline); /* nobody else would move it */
    }
    slot = waiter_add(world, deadline);
    world->sleeper[slot] = true;
    while (world->now_ns < deadline) {
        os_cond_wait(&world->time_moved, &world->time_lock);
    }
    world->sleeper[slot] = false;
    world->waiters[slot] = 0;
    world->busy++;
    os_mutex_unlock(&world->time_lock);
}

static int64_t sim_clock_ns(void)
{
    return sim_world_now_ns(sim_world_now);
}

static int sim_timerfd_create(void)
{
    struct sim_world *world = sim_world_now;
    int fd = world->base.eventfd(0, EFD_NONBLOCK);
    int rc = -EMFILE;

    if (fd < 0) {
        return fd;
    }
    os_mutex_lock(&world->time_lock);
    for (unsigned i = 0; i < SIM_TIMERS_MAX && rc < 0; i++) {
        /* A number that comes back was closed: the entry was left by that timer */
        if (world->timers[i].fd < 0 || world->timers[i].fd == fd) {
            world->timers[i] = (struct sim_timer){.fd = fd};
            rc = fd;
        }
    }
    os_mutex_unlock(&world->time_lock);
    if (rc < 0) {
        os_linux.close(fd);
    }
    return rc;
}

static int sim_timerfd_set(int fd, int64_t expire_ns)
{
    struct sim_world *world = sim_world_now;
    struct sim_verdict verdict;
    int rc = -EINVAL;
    uint64_t fired;

    sim_faults_check(&world->faults, SIM_CALL_TIMERFD_SET, 0, 0, &verdict);
    if (verdict.error) {
        return -verdict.error;
    }
    os_mutex_lock(&world->time_lock);
    for (unsigned i = 0; i < SIM_TIMERS_MAX; i++) {
        if (world->timers[i].fd == fd) {
            os_linux.read(fd, &fired, sizeof(fired)); /* setting forgets an expiry */
            world->timers[i].expire_ns = expire_ns < 0 ? 1 : expire_ns;
            time_set(world, world->now_ns);
            rc = 0;
            break;
        }
    }
    os_mutex_unlock(&world->time_lock);
    return rc;
}

/* One step of waiting: 1 when time reached the deadline. Jumps when `idle` (the grace is over). */
static int wait_step(struct sim_world *world, int64_t deadline, bool idle)
{
    int reached;

    os_mutex_lock(&world->time_lock);
    if (idle && world->busy == 0 && world->now_ns < deadline) {
        int64_t next = time_next(world);

        if (next != INT64_MAX) {
            time_set(world, next);
        }
    }
    reached = world->now_ns >= deadline;
    os_mutex_unlock(&world->time_lock);
    return reached;
}

/* Whether nothing can happen any more until time passes. Lock held. */
static bool settled(struct sim_world *world)
{
    unsigned sleeping = 0;

    for (unsigned i = 0; i < SIM_WAITERS_MAX; i++) {
        sleeping += world->sleeper[i] && world->waiters[i] > world->now_ns;
    }
    return world->busy == 0 && sleeping == world->pending(world->pending_opaque);
}

bool sim_world_settled(struct sim_world *world)
{
    bool is;

    os_mutex_lock(&world->time_lock);
    is = settled(world);
    os_mutex_unlock(&world->time_lock);
    return is;
}

/* The same where delays alone decide. *ret_rc: events that were there after all. */
static int wait_step_exact(struct sim_world *world, int64_t deadline, int epfd,
                           struct epoll_event *events, int max, int *ret_rc)
{
    int reached;

    *ret_rc = 0;
    os_mutex_lock(&world->time_lock);
    if (world->now_ns < deadline && settled(world)) {
        int64_t next = time_next(world);

        *ret_rc = os_linux.epoll_wait(epfd, events, max, 0);
        if (*ret_rc == 0 && next != INT64_MAX) {
            time_set(world, next);
        }
    }
    reached = world->now_ns >= deadline;
    os_mutex_unlock(&world->time_lock);
    return reached;
}

static int64_t loop_begin(struct sim_world *world, int64_t timeout_ns, unsigned *ret_slot)
{
    int64_t deadline = INT64_MAX;

    os_mutex_lock(&world->time_lock);
    if (timeout_ns >= 0 && timeout_ns < INT64_MAX - world->now_ns) {
        deadline = world->now_ns + timeout_ns;
    }
    *ret_slot = waiter_add(world, deadline);
    world->nloops++;
    os_mutex_unlock(&world->time_lock);
    return deadline;
}

static void loop_end(struct sim_world *world, unsigned slot)
{
    os_mutex_lock(&world->time_lock);
    world->waiters[slot] = 0;
    world->nloops--;
    os_mutex_unlock(&world->time_lock);
}

static int sim_epoll_wait(int epfd, struct epoll_event *events, int max, int64_t timeout_ns)
{
    struct sim_world *world = sim_world_now;
    int rc = world->base.epoll_wait(epfd, events, max, 0);
    int64_t deadline;
    unsigned slot;

    if (rc != 0 || timeout_ns == 0) {
        return rc;
    }
    deadline = loop_begin(world, timeout_ns, &slot);
    for (bool idle = false;; idle = true) {
        int reached = world->pending ? wait_step_exact(world, deadline, epfd, events, max, &rc)
                                     : wait_step(world, deadline, idle);

        if (rc != 0) {
            break;
        }
        rc = os_linux.epoll_wait(epfd, events, max, reached ? 0 : GRACE_NS);
        if (rc != 0 || reached) {
            break;
        }
    }
    loop_end(world, slot);
    return rc;
}

void sim_os_time_members(struct os_table *table)
{
    table->clock_monotonic_ns = sim_clock_ns;
    table->timerfd_create = sim_timerfd_create;
    table->timerfd_set = sim_timerfd_set;
    table->epoll_wait = sim_epoll_wait;
}
