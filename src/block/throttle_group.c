/* SPDX-License-Identifier: MIT */
/*
 * Throttle groups: named, counted, with members whose requests wait in their own contexts.
 *
 * For each direction at most one waiting request holds the turn: it sleeps, in its own context,
 * until the buckets let it go, counts itself and hands the turn to the next member in a circle
 * (whose own requests go first come, first served).
 *
 * Invariants, all under the group's lock
 *  T1 While requests of a direction wait, exactly one of them holds the turn, or is woken to take
 *     it.
 *  T2 A waiter is woken once for each time it yields (woken).
 *  T3 Of the two that hold the turns of reads and writes, where a common limit lets one of them
 *     go, the one that got its turn first goes.
 *  T4 A request that does not have to wait does not overtake one of its direction that does,
 *     except when its member is bypassed.
 */
#include "block/throttle.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/instance.h"
#include "os/thread.h"
#include "os/trace.h"
#include "util/error.h"
#include "util/mem.h"

#define GIVE_WAY_NS 50000

struct throttle_waiter {
    struct throttle_member *member;
    Coroutine *co;
    AioContext *ctx; /* that co runs in */
    AioTimer *timer; /* owned; NULL while it does not hold the turn */
    bool woken;
    bool has_turn;
    bool cancelled;
    uint64_t turn_number; /* which got its turn earlier */
    TAILQ_ENTRY(throttle_waiter) entry;
};

struct ThrottleGroup {
    Platter *pl;
    char *name; /* owned */
    int refcnt; /* control thread */
    TAILQ_ENTRY(ThrottleGroup) in_instance;
    _Atomic bool active[2]; /* by is_write: some limit is set */

    struct os_mutex lock; /* guards the rest */
    struct throttle_state ts;
    TAILQ_HEAD(throttle_member_list, throttle_member) members;
    struct throttle_member *last[2]; /* had the turn last; NULL: begin with the first */
    struct throttle_waiter *turn[2];
    uint64_t turns;
};

TAILQ_HEAD(throttle_groups, ThrottleGroup);

/* ---- registry ---- */

static void groups_fini(Platter *pl, void *data)
{
    struct throttle_groups *groups = data;

    assert(TAILQ_EMPTY(groups)); /* their users hold references, and have ended */
    free(groups);
}

static struct throttle_groups *groups_of(Platter *pl)
{
    struct throttle_groups *groups = pl->rooms[INSTANCE_ROOM_THROTTLE].data;

    if (groups == NULL) {
        groups = malloc(sizeof(*groups));
        if (groups != NULL) {
            TAILQ_INIT(groups);
            pl->rooms[INSTANCE_ROOM_THROTTLE].data = groups;
            pl->rooms[INSTANCE_ROOM_THROTTLE].fini = groups_fini;
        }
    }
    return groups;
}

ThrottleGroup *throttle_group_next(Platter *pl, ThrottleGroup *group)
{
    struct throttle_groups *groups = pl->rooms[INSTANCE_ROOM_THROTTLE].data;

    assert(instance_in_control_thread(pl));
    if (group != NULL) {
        return TAILQ_NEXT(group, in_instance);
    }
    return groups != NULL ? TAILQ_FIRST(groups) : NULL;
}

ThrottleGroup *throttle_group_find(Platter *pl, const char *name)
{
    ThrottleGroup *group = throttle_group_next(pl, NULL);

    while (group != NULL && strcmp(group->name, name) != 0) {
        group = throttle_group_next(pl, group);
    }
    return group;
}

/* Under the group's lock. */
static void member_update(struct throttle_member *m, ThrottleGroup *group)
{
    bool limited = throttle_limits(&group->ts, false) || throttle_limits(&group->ts, true);

    atomic_store_explicit(&m->limited, limited, memory_order_relaxed);
}

static void group_set(ThrottleGroup *group, const struct throttle_config *config)
{
    struct throttle_member *m;

    throttle_state_init(&group->ts, config, aio_clock_ns());
    for (int w = 0; w < 2; w++) {
        atomic_store_explicit(&group->active[w], throttle_limits(&group->ts, w),
                              memory_order_relaxed);
    }
    TAILQ_FOREACH (m, &group->members, in_group) {
        member_update(m, group);
    }
}

ThrottleGroup *throttle_group_get(Platter *pl, const char *name, Error **errp)
{
    const struct throttle_config none = {.size = sizeof(none)};
    ThrottleGroup *group = throttle_group_find(pl, name);
    struct throttle_groups *groups = groups_of(pl);

    if (group != NULL) {
        group->refcnt++;
        return group;
    }
    group = calloc(1, sizeof(*group));
    if (group != NULL) {
        group->name = strdup(name);
    }
    if (groups == NULL || group == NULL || group->name == NULL) {
        free(group);
        error_set(errp, ENOMEM, "out of memory for throttle group '%s'", name);
        return NULL;
    }
    group->pl = pl;
    group->refcnt = 1;
    os_mutex_init(&group->lock);
    TAILQ_INIT(&group->members);
    group_set(group, &none);
    TAILQ_INSERT_TAIL(groups, group, in_instance);
    return group;
}

void throttle_group_ref(ThrottleGroup *group)
{
    assert(instance_in_control_thread(group->pl));
    group->refcnt++;
}

bool throttle_group_is_shared(const ThrottleGroup *group)
{
    return group->refcnt > 1;
}

void throttle_group_unref(ThrottleGroup *group)
{
    if (group == NULL) {
        return;
    }
    assert(instance_in_control_thread(group->pl));
    if (--group->refcnt == 0) {
        assert(TAILQ_EMPTY(&group->members));
        TAILQ_REMOVE(groups_of(group->pl), group, in_instance);
        os_mutex_fini(&group->lock);
        free(group->name);
        free(group);
    }
}

const char *throttle_group_name(const ThrottleGroup *group)
{
    return group->name;
}

void throttle_group_get_config(ThrottleGroup *group, struct throttle_config *ret_config)
{
    os_mutex_lock(&group->lock);
    *ret_config = group->ts.config;
    os_mutex_unlock(&group->lock);
}

bool throttle_group_is_active(const ThrottleGroup *group, bool is_write)
{
    return atomic_load_explicit(&group->active[is_write], memory_order_relaxed);
}

/* ---- waiting ---- */

/* Keeps T2. Scheduled, never entered here: the lock is held. */
static void waiter_wake(struct throttle_waiter *w)
{
    if (!w->woken) {
        w->woken = true;
        aio_co_schedule(w->ctx, w->co);
    }
}

static struct throttle_member *member_after(ThrottleGroup *group, struct throttle_member *m)
{
    struct throttle_member *next = m != NULL ? TAILQ_NEXT(m, in_group) : NULL;

    return next != NULL ? next : TAILQ_FIRST(&group->members);
}

static void turn_take(ThrottleGroup *group, struct throttle_waiter *w)
{
    w->has_turn = true;
    w->turn_number = group->turns++;
}

/* Keeps T3: how long w must wait, at least so long that an earlier one goes first. */
static int64_t turn_wait_ns(ThrottleGroup *group, const struct throttle_waiter *w, bool is_write,
                            int64_t now)
{
    struct throttle_waiter *other = group->turn[!is_write];
    int64_t wait = throttle_wait_ns(&group->ts, is_write, now);

    if (wait == 0 && other != NULL && other->turn_number < w->turn_number &&
        throttle_wait_ns(&group->ts, !is_write, now) == 0) {
        waiter_wake(other);
        return GIVE_WAY_NS;
    }
    return wait;
}

/* Keeps T1: the turn of a direction goes to the next member in the circle that has a waiter. */
static void turn_pass(ThrottleGroup *group, bool is_write)
{
    struct throttle_member *m = group->last[is_write];
    struct throttle_member *stop;

    group->turn[is_write] = NULL;
    m = stop = member_after(group, m);
    while (m != NULL) {
        struct throttle_waiter *w = TAILQ_FIRST(&m->waiting[is_write]);

        if (w != NULL) {
            group->turn[is_write] = w;
            group->last[is_write] = m;
            turn_take(group, w);
            waiter_wake(w);
            return;
        }
        m = member_after(group, m);
        if (m == stop) {
            return;
        }
    }
}

int throttle_group_set_config(ThrottleGroup *group, const struct throttle_config *config,
                              Error **errp)
{
    int ret = throttle_config_check(config, errp);

    assert(instance_in_control_thread(group->pl));
    if (ret < 0) {
        return ret;
    }
    os_mutex_lock(&group->lock);
    group_set(group, config);
    for (int w = 0; w < 2; w++) {
        if (group->turn[w] != NULL) {
            waiter_wake(group->turn[w]); /* its time may have come */
        }
    }
    os_mutex_unlock(&group->lock);
    return 0;
}

static void sleep_over(void *opaque)
{
    struct throttle_waiter *w = opaque;
    ThrottleGroup *group = w->member->group;

    os_mutex_lock(&group->lock);
    waiter_wake(w);
    os_mutex_unlock(&group->lock);
}

/* Yield without the lock, until woken; with a time only for the one that has the turn. Without
 * memory for a timer it does not sleep: the limit is passed rather than the request lost. */
static bool waiter_yield(ThrottleGroup *group, struct throttle_waiter *w, int64_t wait_ns)
{
    bool sleeps = w->has_turn; /* one that gets the turn from now on is woken for it */

    if (sleeps && w->timer == NULL) {
        w->timer = aio_timer_new(aio_context_current(), sleep_over, w);
        if (w->timer == NULL) {
            return false;
        }
    }
    w->woken = false;
    os_mutex_unlock(&group->lock);
    TRACE(throttle_wait, group->name, (int)sleeps, (long long)wait_ns);
    if (sleeps) {
        aio_timer_mod(w->timer, aio_clock_ns() + wait_ns);
    }
    coroutine_yield();
    if (w->timer != NULL) {
        aio_timer_del(w->timer);
    }
    os_mutex_lock(&group->lock);
    return true;
}

static int wait_locked_co(struct throttle_member *m, bool is_write, uint64_t bytes,
                          struct throttle_cancel *cancel)
{
    ThrottleGroup *group = m->group;
    struct throttle_waiter w = {.member = m, .co = coroutine_self(), .ctx = aio_context_current()};
    int64_t now = aio_clock_ns();

    if (m->bypass > 0 || (group->turn[is_write] == NULL &&
                          throttle_wait_ns(&group->ts, is_write, now) == 0)) { /* T4 */
        throttle_account(&group->ts, is_write, bytes, now);
        return 0;
    }
    TAILQ_INSERT_TAIL(&m->waiting[is_write], &w, entry);
    if (group->turn[is_write] == NULL) {
        group->turn[is_write] = &w;
        group->last[is_write] = m;
        turn_take(group, &w);
    }
    if (cancel != NULL) {
        cancel->waiter = &w;
    }
    for (;;) {
        int64_t wait = 0;

        now = aio_clock_ns();
        if (w.has_turn) {
            wait = turn_wait_ns(group, &w, is_write, now);
        }
        if (w.cancelled || m->bypass > 0 || (w.has_turn && wait == 0) ||
            !waiter_yield(group, &w, wait)) {
            break;
        }
    }
    if (cancel != NULL) {
        cancel->waiter = NULL;
    }
    TAILQ_REMOVE(&m->waiting[is_write], &w, entry);
    if (!w.cancelled) {
        throttle_account(&group->ts, is_write, bytes, now);
    }
    if (w.has_turn) {
        turn_pass(group, is_write);
    }
    aio_timer_free(w.timer);
    return w.cancelled ? -ECANCELED : 0;
}

int throttle_member_wait_co(struct throttle_member *m, bool is_write, uint64_t bytes,
                            struct throttle_cancel *cancel)
{
    ThrottleGroup *group = m->group;
    int ret;

    if (group == NULL || !throttle_group_is_active(group, is_write)) {
        return 0;
    }
    os_mutex_lock(&group->lock);
    ret = wait_locked_co(m, is_write, bytes, cancel);
    os_mutex_unlock(&group->lock);
    return ret;
}

bool throttle_cancel_wait(struct throttle_member *m, struct throttle_cancel *cancel)
{
    ThrottleGroup *group = m->group;
    bool found;

    if (group == NULL) {
        return false;
    }
    os_mutex_lock(&group->lock);
    found = cancel->waiter != NULL;
    if (found) {
        cancel->waiter->cancelled = true;
        waiter_wake(cancel->waiter);
    }
    os_mutex_unlock(&group->lock);
    return found;
}

/* ---- members ---- */

void throttle_member_init(struct throttle_member *m)
{
    *m = (struct throttle_member){0};
    TAILQ_INIT(&m->waiting[0]);
    TAILQ_INIT(&m->waiting[1]);
}

void throttle_member_join(struct throttle_member *m, ThrottleGroup *group)
{
    assert(m->group == NULL);
    throttle_group_ref(group);
    m->group = group;
    os_mutex_lock(&group->lock);
    TAILQ_INSERT_TAIL(&group->members, m, in_group);
    member_update(m, group);
    os_mutex_unlock(&group->lock);
}

void throttle_member_leave(struct throttle_member *m)
{
    ThrottleGroup *group = m->group;

    if (group == NULL) {
        return;
    }
    os_mutex_lock(&group->lock);
    assert(TAILQ_EMPTY(&m->waiting[0]) && TAILQ_EMPTY(&m->waiting[1]));
    for (int w = 0; w < 2; w++) {
        if (group->last[w] == m) {
            group->last[w] = TAILQ_PREV(m, throttle_member_list, in_group);
        }
    }
    TAILQ_REMOVE(&group->members, m, in_group);
    os_mutex_unlock(&group->lock);
    m->group = NULL;
    atomic_store_explicit(&m->limited, false, memory_order_relaxed);
    throttle_group_unref(group);
}

void throttle_bypass_begin(struct throttle_member *m)
{
    ThrottleGroup *group = m->group;
    struct throttle_waiter *w;

    if (group == NULL) {
        m->bypass++;
        return;
    }
    os_mutex_lock(&group->lock);
    m->bypass++;
    for (int dir = 0; dir < 2; dir++) {
        TAILQ_FOREACH (w, &m->waiting[dir], entry) {
            waiter_wake(w);
        }
    }
    os_mutex_unlock(&group->lock);
}

void throttle_bypass_end(struct throttle_member *m)
{
    ThrottleGroup *group = m->group;

    if (group != NULL) {
        os_mutex_lock(&group->lock);
    }
    assert(m->bypass > 0);
    m->bypass--;
    if (group != NULL) {
        os_mutex_unlock(&group->lock);
    }
}
