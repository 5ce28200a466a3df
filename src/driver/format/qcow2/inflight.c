/* SPDX-License-Identifier: MIT */
/*
 * Who is inside, grace periods and exclusive sections.
 *
 * A request counts itself in the counter of its context's slot for the phase that it read. An
 * object that is retired waits on young. Each turn (advance) needs that all counters of the other
 * phase have been zero since the turn before; then what waits on old ends, young becomes old, and
 * the phase changes, so that the counters of what was the phase can only fall.
 *
 * Invariants
 *  I1  What was retired ends only after every counter, of both phases, was seen zero at some time
 *      after q2_retire was called: for one phase when it moves from young to old, for the other
 *      when it ends. A request that reads an old phase and counts itself late delays, no more.
 *  I2  A request that may have seen an object counts in one of these counters from before it looked
 *      until it left. All of the following are seq_cst, so there is one order S of them: its
 *      increment, its look at the mapping (L1 pointer, L1 entry, bucket, chain, word); the store
 *      that took the object out of the mapping, and the scan of the counters after it. A look that
 *      found the object comes in S before that store; so the increment comes before the scan, and
 *      the scan sees it. (An increment with release and acquire alone could still be on its way to
 *      memory when the look is answered: the pattern of Dekker.)
 *  I3  Somebody makes the next turn: retire sets the bit RETIRED before it scans, and who brings a
 *      counter to zero does so before it looks at the bit. In S either the leaver sees the bit, or
 *      the scan sees its zero. The same with HELD and the exclusive section's own scan.
 *  I4  Between q2_exclusive_begin_co and _end nobody else is inside: HELD is set before the scan,
 *      and an entering request counts itself before it looks at HELD. One that was late takes its
 *      count back before it has looked at anything.
 *  I5  waiting is filled only while exclusive_taken, under the lock, so the section that ends finds
 *      every waiter.
 * The decrement releases and the scan acquires what the request did; the end of an object happens
 * after all that was done with it.
 */
#include <assert.h>

#include "qcow2.h"

static q2_token count_in(struct q2_inflight *f)
{
    q2_token token = aio_context_slot(aio_context_current()) * Q2_INFLIGHT_STRIDE +
                     (atomic_load_explicit(&f->phase, memory_order_relaxed) & 1);

    atomic_fetch_add_explicit(&f->inside[token], 1, memory_order_seq_cst);
    return token;
}

static bool any_inside(struct q2_inflight *f, uint32_t phase)
{
    for (unsigned i = 0; i < OS_SLOTS; i++) {
        if (atomic_load_explicit(&f->inside[i * Q2_INFLIGHT_STRIDE + (phase & 1)],
                                 memory_order_seq_cst) != 0) {
            return true;
        }
    }
    return false;
}

static void attention_set(struct q2_inflight *f, uint32_t bit)
{
    atomic_fetch_or_explicit(&f->attention, bit, memory_order_seq_cst);
}

static void attention_clear(struct q2_inflight *f, uint32_t bit)
{
    atomic_fetch_and_explicit(&f->attention, ~bit, memory_order_seq_cst);
}

static bool has_retired(const struct q2_inflight *f)
{
    return !TAILQ_EMPTY(&f->young) || !TAILQ_EMPTY(&f->old);
}

/* As many turns as the counters allow; what ends goes to ended. Lock held. Keeps I1. */
static void advance(struct q2_inflight *f, struct q2_retired_list *ended)
{
    while (has_retired(f)) {
        uint32_t phase = atomic_load_explicit(&f->phase, memory_order_relaxed);

        if (any_inside(f, phase + 1)) {
            return;
        }
        TAILQ_CONCAT(ended, &f->old, entry);
        TAILQ_CONCAT(&f->old, &f->young, entry);
        atomic_store_explicit(&f->phase, phase + 1, memory_order_seq_cst);
    }
    attention_clear(f, Q2_ATTENTION_RETIRED);
}

/* Without the lock: an end may retire something itself. */
static void end_all(struct q2_retired_list *ended)
{
    struct q2_retired *r = TAILQ_FIRST(ended);

    while (r != NULL) {
        struct q2_retired *next = TAILQ_NEXT(r, entry);

        r->end(r);
        r = next;
    }
}

void q2_inflight_init(struct q2_inflight *f)
{
    os_mutex_init(&f->lock);
    TAILQ_INIT(&f->young);
    TAILQ_INIT(&f->old);
    TAILQ_INIT(&f->waiting);
    TAILQ_INIT(&f->exclusive);
    TAILQ_INIT(&f->drained);
}

void q2_inflight_fini(struct q2_inflight *f)
{
    assert(!f->exclusive_taken);
    while (has_retired(f)) {
        struct q2_retired_list ended = TAILQ_HEAD_INITIALIZER(ended);

        TAILQ_CONCAT(&ended, &f->old, entry);
        TAILQ_CONCAT(&ended, &f->young, entry);
        end_all(&ended);
    }
    os_mutex_fini(&f->lock);
}

q2_token q2_enter_wait_co(struct qcow2 *s, q2_token token)
{
    struct q2_inflight *f = &s->inflight;

    do {
        q2_leave(s, token);
        os_mutex_lock(&f->lock);
        if (f->exclusive_taken) {
            q2_wait_co(&f->waiting, &f->lock); /* keeps I5 */
        } else {
            os_mutex_unlock(&f->lock);
        }
        token = count_in(f);
    } while (atomic_load_explicit(&f->attention, memory_order_seq_cst) & Q2_ATTENTION_HELD);
    return token;
}

void q2_leave_slow(struct qcow2 *s)
{
    struct q2_inflight *f = &s->inflight;
    struct q2_retired_list ended = TAILQ_HEAD_INITIALIZER(ended);
    struct q2_wait_list woken = TAILQ_HEAD_INITIALIZER(woken);

    os_mutex_lock(&f->lock);
    advance(f, &ended);
    if (!TAILQ_EMPTY(&f->drained) && !any_inside(f, 0) && !any_inside(f, 1)) {
        TAILQ_CONCAT(&woken, &f->drained, entry);
    }
    os_mutex_unlock(&f->lock);
    end_all(&ended);
    q2_wake_all(&woken, 0);
}

void q2_retire(struct qcow2 *s, struct q2_retired *r)
{
    struct q2_inflight *f = &s->inflight;
    struct q2_retired_list ended = TAILQ_HEAD_INITIALIZER(ended);

    os_mutex_lock(&f->lock);
    TAILQ_INSERT_TAIL(&f->young, r, entry);
    attention_set(f, Q2_ATTENTION_RETIRED);
    advance(f, &ended);
    os_mutex_unlock(&f->lock);
    end_all(&ended);
}

void q2_exclusive_begin_co(struct qcow2 *s)
{
    struct q2_inflight *f = &s->inflight;

    os_mutex_lock(&f->lock);
    if (f->exclusive_taken) {
        q2_wait_co(&f->exclusive, &f->lock); /* handed over: taken and held */
        os_mutex_lock(&f->lock);
    }
    f->exclusive_taken = true;
    attention_set(f, Q2_ATTENTION_HELD);
    while (any_inside(f, 0) || any_inside(f, 1)) {
        q2_wait_co(&f->drained, &f->lock);
        os_mutex_lock(&f->lock);
    }
    f->exclusive_token = count_in(f);
    os_mutex_unlock(&f->lock);
}

void q2_exclusive_let_go(struct qcow2 *s)
{
    struct q2_inflight *f = &s->inflight;

    assert(f->exclusive_taken);
    q2_leave(s, f->exclusive_token);
    f->exclusive_token = count_in(f);
}

void q2_exclusive_end(struct qcow2 *s)
{
    struct q2_inflight *f = &s->inflight;
    struct q2_wait_list woken = TAILQ_HEAD_INITIALIZER(woken);
    struct q2_waiter *next;

    assert(f->exclusive_taken);
    q2_leave(s, f->exclusive_token);
    os_mutex_lock(&f->lock);
    next = TAILQ_FIRST(&f->exclusive);
    if (next != NULL) {
        TAILQ_REMOVE(&f->exclusive, next, entry);
        TAILQ_INSERT_TAIL(&woken, next, entry);
    } else {
        f->exclusive_taken = false;
        attention_clear(f, Q2_ATTENTION_HELD);
        TAILQ_CONCAT(&woken, &f->waiting, entry);
    }
    os_mutex_unlock(&f->lock);
    q2_wake_all(&woken, 0);
}
