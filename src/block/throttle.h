/* SPDX-License-Identifier: MIT */
/*
 * Throttling: the buckets (throttle.c: arithmetic on a clock that is given), and groups with
 * members whose requests wait for them (throttle_group.c).
 */
#ifndef PLATTER_BLOCK_THROTTLE_H
#define PLATTER_BLOCK_THROTTLE_H

#include <stdatomic.h>
#include <sys/queue.h>

#include <platter/coroutine.h>
#include <platter/throttle.h>

/* ---- throttle.c ---- */

/* A bucket as a schedule: the time at which it would be empty. */
struct throttle_bucket {
    int64_t empty_ns;      /* of the long run */
    int64_t peak_empty_ns; /* of the burst rate, where that is limited */
};

struct throttle_state {
    struct throttle_config config;
    struct throttle_bucket buckets[THROTTLE_BUCKETS];
};

void throttle_state_init(struct throttle_state *ts, const struct throttle_config *config,
                         int64_t now_ns);
/* How long a request must wait; 0: it may go. */
int64_t throttle_wait_ns(const struct throttle_state *ts, bool is_write, int64_t now_ns);
/* It goes. */
void throttle_account(struct throttle_state *ts, bool is_write, uint64_t bytes, int64_t now_ns);
bool throttle_limits(const struct throttle_state *ts, bool is_write);

/* ---- throttle_group.c ---- */

struct throttle_waiter;
TAILQ_HEAD(throttle_waiters, throttle_waiter);

/* One user of a group. The group's lock guards all but the group pointer, which changes only while
 * no request of the member is under way. */
struct throttle_member {
    _Atomic bool limited;               /* some limit of the group is set; written under the lock */
    ThrottleGroup *group;               /* counted; NULL: not throttled */
    struct throttle_waiters waiting[2]; /* by is_write */
    unsigned bypass;                    /* above zero: its requests do not wait */
    TAILQ_ENTRY(throttle_member) in_group;
};

/* Whether requests may have to wait at all: no lock. */
static inline bool throttle_member_is_limited(const struct throttle_member *m)
{
    return atomic_load_explicit(&m->limited, memory_order_relaxed);
}

void throttle_member_init(struct throttle_member *m);
/* Takes a reference to group. Control thread, no request under way. */
void throttle_member_join(struct throttle_member *m, ThrottleGroup *group);
void throttle_member_leave(struct throttle_member *m);
/* From begin on nobody waits, and those that did go on; nests. Control thread. */
void throttle_bypass_begin(struct throttle_member *m);
void throttle_bypass_end(struct throttle_member *m);

/* Where a waiting request can be found by whoever cancels it. */
struct throttle_cancel {
    struct throttle_waiter *waiter; /* group lock */
};

/* Whether requests of that direction may have to wait at all: no lock. */
bool throttle_group_is_active(const ThrottleGroup *group, bool is_write);
/* Wait for the turn and count the request. 0, or -ECANCELED. cancel may be NULL. Coroutine, any
 * context. */
int throttle_member_wait_co(struct throttle_member *m, bool is_write, uint64_t bytes,
                            struct throttle_cancel *cancel);
/* Any thread. False: it did not wait. */
bool throttle_cancel_wait(struct throttle_member *m, struct throttle_cancel *cancel);

#endif
