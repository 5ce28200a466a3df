/* SPDX-License-Identifier: MIT */
/* Locks on ranges of guest clusters (ranges.c). */
#ifndef PLATTER_QCOW2_RANGES_H
#define PLATTER_QCOW2_RANGES_H

#include <stdint.h>
#include <sys/queue.h>

#include "os/thread.h"

#include "wait.h"

struct qcow2;

/* Borrowed from lock to unlock. */
struct q2_range {
    uint64_t first;
    uint64_t last; /* inclusive */
    TAILQ_ENTRY(q2_range) entry;
    struct q2_wait_list waiters; /* later ones that overlap */
};
struct q2_ranges {
    struct os_mutex lock;
    TAILQ_HEAD(q2_range_list, q2_range) all; /* held and waiting, in the order they came */
};
void q2_ranges_init(struct q2_ranges *ranges);
void q2_ranges_fini(struct q2_ranges *ranges);
/* First come, first served among those that overlap. Any unit (guest clusters). Coroutine. */
void q2_range_lock_co(struct qcow2 *s, struct q2_range *r, uint64_t first, uint64_t last);
void q2_range_unlock(struct qcow2 *s, struct q2_range *r);
/* Keep only what is up to last. Any context. */
void q2_range_trim(struct qcow2 *s, struct q2_range *r, uint64_t last);

#endif
