/* SPDX-License-Identifier: MIT */
/* Who is inside; grace periods; exclusive sections (inflight.c). */
#ifndef PLATTER_QCOW2_INFLIGHT_H
#define PLATTER_QCOW2_INFLIGHT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "os/os.h"
#include "os/thread.h"

#include "wait.h"

struct qcow2;

/* Requests count themselves in one of two phases, in a counter of their context. What must outlive
 * the requests that may have seen it (a freed cluster, a cache slice, an old L1 table) is retired:
 * it is ended once nobody is inside who was so when it was retired. */
struct q2_retired {
    TAILQ_ENTRY(q2_retired) entry;
    void (*end)(struct q2_retired *r); /* no I/O, no waiting; frees memory or queues work */
};
TAILQ_HEAD(q2_retired_list, q2_retired);

/* Counters of a slot: one for each phase, and room up to a cache line: two slots never share one.
 */
#define Q2_INFLIGHT_STRIDE 16

enum q2_attention {
    Q2_ATTENTION_HELD = 1 << 0,    /* an exclusive section runs or waits */
    Q2_ATTENTION_RETIRED = 1 << 1, /* young or old is not empty */
};

struct q2_inflight {
    _Atomic uint32_t inside[OS_SLOTS * Q2_INFLIGHT_STRIDE];
    _Atomic uint32_t phase;        /* its lowest bit chooses the counter; written under lock */
    _Atomic uint32_t attention;    /* enum q2_attention; written under lock */
    struct os_mutex lock;          /* guards the rest */
    struct q2_retired_list young;  /* retired in this phase */
    struct q2_retired_list old;    /* wait for the other phase's counters to fall to zero */
    struct q2_wait_list waiting;   /* requests that wait for the end of the exclusive section */
    struct q2_wait_list exclusive; /* who waits to be the next exclusive section */
    struct q2_wait_list drained;   /* the exclusive section that waits until nobody is inside */
    bool exclusive_taken;
    uint32_t exclusive_token; /* of its holder */
};

/* What q2_leave needs back: the index of the counter. */
typedef uint32_t q2_token;

void q2_inflight_init(struct q2_inflight *f);
/* Nobody is inside. Ends all that is retired; so it comes before the fini of the others. */
void q2_inflight_fini(struct q2_inflight *f);
/* Inside (until q2_leave with the token, in whatever context): whatever the request finds in the
 * L1 table, in slices and in the clusters they refer to is there until it has left. Does not nest.
 * Coroutine; suspends only while an exclusive section holds. */
static inline q2_token q2_enter_co(struct qcow2 *s);
/* Ends what may be ended. Never suspends. The caller continues with q2_free_run_co when
 * q2_free_due says so. */
static inline void q2_leave(struct qcow2 *s, q2_token token);
/* r->end is set. Any context, inside or outside. r may be ended before this returns. */
void q2_retire(struct qcow2 *s, struct q2_retired *r);
/* Nobody else is inside between the two; the caller counts as inside. Not to be called from
 * inside. Coroutine. */
void q2_exclusive_begin_co(struct qcow2 *s);
void q2_exclusive_end(struct qcow2 *s);
/* The section's holder goes on, but with nothing that it has found so far (slices, an old L1): what
 * is retired ends. A long section calls it now and then, or all of that waits for its end. */
void q2_exclusive_let_go(struct qcow2 *s);
/* The slow halves. */
q2_token q2_enter_wait_co(struct qcow2 *s, q2_token token);
void q2_leave_slow(struct qcow2 *s);

#endif
