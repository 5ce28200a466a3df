/* SPDX-License-Identifier: MIT */
/*
 * Locks on ranges of guest clusters: who changes the mapping of a range holds it.
 *
 * Invariants
 *  R1  all lists who holds and who waits in the order they came; one waits only for earlier ones
 *      that overlap it, so nobody waits in a circle and nobody is overtaken for ever.
 *  R2  A waiter stands in the list of one earlier range that overlaps it; when that one is
 *      unlocked, it looks again.
 */
#include <assert.h>

#include "qcow2.h"

void q2_ranges_init(struct q2_ranges *ranges)
{
    os_mutex_init(&ranges->lock);
    TAILQ_INIT(&ranges->all);
}

void q2_ranges_fini(struct q2_ranges *ranges)
{
    assert(TAILQ_EMPTY(&ranges->all));
    os_mutex_fini(&ranges->lock);
}

/* The first that came before r and overlaps it. Lock held. */
static struct q2_range *find_earlier(struct q2_ranges *ranges, const struct q2_range *r)
{
    struct q2_range *at;

    TAILQ_FOREACH (at, &ranges->all, entry) {
        if (at == r) {
            return NULL;
        }
        if (at->first <= r->last && r->first <= at->last) {
            return at;
        }
    }
    return NULL;
}

void q2_range_lock_co(struct qcow2 *s, struct q2_range *r, uint64_t first, uint64_t last)
{
    struct q2_ranges *ranges = &s->ranges;
    struct q2_range *earlier;

    assert(first <= last);
    r->first = first;
    r->last = last;
    TAILQ_INIT(&r->waiters);
    os_mutex_lock(&ranges->lock);
    TAILQ_INSERT_TAIL(&ranges->all, r, entry);
    while ((earlier = find_earlier(ranges, r)) != NULL) {
        q2_wait_co(&earlier->waiters, &ranges->lock);
        os_mutex_lock(&ranges->lock);
    }
    os_mutex_unlock(&ranges->lock);
}

void q2_range_unlock(struct qcow2 *s, struct q2_range *r)
{
    struct q2_ranges *ranges = &s->ranges;
    struct q2_wait_list woken = TAILQ_HEAD_INITIALIZER(woken);

    os_mutex_lock(&ranges->lock);
    TAILQ_REMOVE(&ranges->all, r, entry);
    TAILQ_CONCAT(&woken, &r->waiters, entry);
    os_mutex_unlock(&ranges->lock);
    q2_wake_all(&woken, 0);
}

void q2_range_trim(struct qcow2 *s, struct q2_range *r, uint64_t last)
{
    struct q2_ranges *ranges = &s->ranges;
    struct q2_wait_list woken = TAILQ_HEAD_INITIALIZER(woken);

    assert(r->first <= last && last <= r->last);
    if (last == r->last) {
        return;
    }
    os_mutex_lock(&ranges->lock);
    r->last = last;
    TAILQ_CONCAT(&woken, &r->waiters, entry);
    os_mutex_unlock(&ranges->lock);
    q2_wake_all(&woken, 0); /* R2: they look again */
}
