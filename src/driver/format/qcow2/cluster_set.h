/* SPDX-License-Identifier: MIT */
/*
 * A set of clusters of the file, each with the kinds of metadata it is, in a table of open
 * addressing. Looking up takes no lock: slots are changed by single atomic stores. When the dead
 * ones become too many the table is filled anew, into memory that a slow reader may still look at;
 * so memory is never freed before the end, and whoever sees the generation change looks again. An
 * outgrown array is half as large as its successor, so all of them are less than twice the current
 * one, and one spare.
 */
#ifndef PLATTER_QCOW2_CLUSTER_SET_H
#define PLATTER_QCOW2_CLUSTER_SET_H

#include <stdatomic.h>
#include <stdint.h>

#include "os/thread.h"
#include "util/budget.h"
#include "util/mem.h"

#define Q2_KIND_BITS 9
#define Q2_KIND_MASK ((UINT64_C(1) << Q2_KIND_BITS) - 1)
/* Clusters are below this: no file is longer than 1 << 63 bytes. */
#define Q2_CLUSTER_SET_LIMIT (UINT64_C(1) << 54)

struct q2_slots {
    struct q2_slots *next; /* made before this one, or the spare */
    unsigned bits;         /* log2 of how many */
    _Atomic uint64_t e[];  /* (cluster + 1) << Q2_KIND_BITS | kinds; no kinds: dead; 0: unused */
};

struct q2_cluster_set {
    struct os_mutex lock;           /* of who changes it */
    _Atomic(struct q2_slots *) cur; /* the one to look at; owned, with those behind ->next */
    _Atomic uint32_t generation;    /* changed before memory that was looked at before is filled */
    struct q2_slots *spare;         /* lock; owned; as large as cur, or NULL */
    uint64_t used;                  /* lock; slots of cur that are not 0 */
    struct mem_budget *budget;
};

/* Room for expected clusters before it grows. 0 or -ENOMEM; fini is for success only. */
int q2_cluster_set_init(struct q2_cluster_set *set, struct mem_budget *budget, uint64_t expected);
void q2_cluster_set_fini(struct q2_cluster_set *set);
/* Any thread. add: 0 or -ENOMEM. */
int q2_cluster_set_add(struct q2_cluster_set *set, uint64_t cluster, unsigned kind);
void q2_cluster_set_del(struct q2_cluster_set *set, uint64_t cluster, unsigned kind);

static inline uint64_t q2_slots_home(const struct q2_slots *t, uint64_t key)
{
    return key * UINT64_C(0x9e3779b97f4a7c15) >> (64 - t->bits);
}

/* The kinds of one cluster, or 0. */
static inline unsigned q2_slots_find(const struct q2_slots *t, uint64_t cluster)
{
    uint64_t mask = (UINT64_C(1) << t->bits) - 1;
    uint64_t i = q2_slots_home(t, cluster + 1);

    for (;;) {
        uint64_t v = atomic_load_explicit(&t->e[i], memory_order_acquire);

        if (LIKELY(v == 0)) {
            return 0;
        }
        if (v >> Q2_KIND_BITS == cluster + 1) {
            return (unsigned)(v & Q2_KIND_MASK);
        }
        i = (i + 1) & mask;
    }
}

/* The same of a range that is longer than the table. */
static inline unsigned q2_slots_find_all(const struct q2_slots *t, uint64_t first, uint64_t last)
{
    unsigned found = 0;

    for (uint64_t i = 0; i >> t->bits == 0; i++) {
        uint64_t v = atomic_load_explicit(&t->e[i], memory_order_acquire);

        if (v != 0 && (v >> Q2_KIND_BITS) - 1 >= first && (v >> Q2_KIND_BITS) - 1 <= last) {
            found |= v & Q2_KIND_MASK;
        }
    }
    return found;
}

/* The kinds of clusters [first, last]. Any thread. */
static inline unsigned q2_cluster_set_find(const struct q2_cluster_set *set, uint64_t first,
                                           uint64_t last)
{
    uint32_t generation;
    unsigned found;

    do {
        const struct q2_slots *t;

        generation = atomic_load_explicit(&set->generation, memory_order_acquire);
        t = atomic_load_explicit(&set->cur, memory_order_acquire);
        found = q2_slots_find(t, first);
        if (UNLIKELY(last > first)) {
            if ((last - first) >> t->bits != 0) {
                found = q2_slots_find_all(t, first, last);
            } else {
                for (uint64_t c = first + 1; c <= last; c++) {
                    found |= q2_slots_find(t, c);
                }
            }
        }
    } while (UNLIKELY(atomic_load_explicit(&set->generation, memory_order_relaxed) != generation));
    return found;
}

#endif
