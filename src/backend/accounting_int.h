/* SPDX-License-Identifier: MIT */
/* The counters behind platter/accounting.h; a backend holds one. */
#ifndef PLATTER_BACKEND_ACCOUNTING_INT_H
#define PLATTER_BACKEND_ACCOUNTING_INT_H

#include <stdatomic.h>
#include <sys/queue.h>

#include <platter/accounting.h>

#include "backend/latency.h"
#include "os/os.h"
#include "os/thread.h"

/* Of one kind of request in one context. A power of two long, as its place is worked out often. */
struct acct_counts {
    _Atomic uint64_t started;
    _Atomic uint64_t ops;
    _Atomic uint64_t bytes;
    _Atomic uint64_t total_ns;
    _Atomic uint64_t failed;
    _Atomic uint64_t invalid;
    _Atomic uint64_t merged;
    _Atomic int64_t last_ns; /* when one ended; 0: never */
    _Atomic uint64_t bins[BLOCK_ACCT_LATENCY_BINS];
} __attribute__((aligned(64)));

struct acct_slot {
    struct acct_counts of[BLOCK_MAX_IOTYPE];
};
_Static_assert(sizeof(struct acct_counts) == 1024, "a power of two");

struct acct_window {
    int64_t start_ns;
    uint64_t min_ns[BLOCK_MAX_IOTYPE];
    uint64_t max_ns[BLOCK_MAX_IOTYPE];
    uint64_t sum_ns[BLOCK_MAX_IOTYPE];
    uint64_t ops[BLOCK_MAX_IOTYPE];
};

struct acct_interval {
    unsigned interval_s;
    unsigned older; /* of the windows */
    struct acct_window windows[2];
    SLIST_ENTRY(acct_interval) next;
};

struct acct_histogram {
    size_t count;            /* of boundaries; 0: none */
    uint64_t *boundaries_ns; /* owned, ascending */
    uint64_t *bins;          /* owned, one more */
};

struct BlockAcctStats {
    /* What each context counts in by the shortest way: its own slot, if there is one and nothing is
     * watched, else NULL (so always from OS_SLOT_SHARED on). */
    struct acct_slot *_Atomic quick[OS_SLOTS + 1];
    struct acct_slot *_Atomic own[OS_SLOT_SHARED]; /* owned; made when its context first counts */
    struct acct_slot *shared;                      /* owned; of all that have none */
    _Atomic bool account_invalid;
    _Atomic bool account_failed;
    struct os_mutex lock; /* guards the rest; and who changes quick[] or watched holds it */
    _Atomic bool watched; /* there are intervals or histograms */
    SLIST_HEAD(, acct_interval) intervals;
    struct acct_histogram histograms[BLOCK_MAX_IOTYPE];
};

int acct_init(BlockAcctStats *stats); /* 0 or -ENOMEM; acct_fini either way */
void acct_fini(BlockAcctStats *stats);

#endif
