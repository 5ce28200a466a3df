/* SPDX-License-Identifier: MIT */
/* Clusters that nothing refers to any more (free.c). */
#ifndef PLATTER_QCOW2_FREE_H
#define PLATTER_QCOW2_FREE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "os/thread.h"

#include "inflight.h"

struct qcow2;

enum q2_discard {
    Q2_DISCARD_NEVER,
    Q2_DISCARD_REQUEST,
    Q2_DISCARD_SNAPSHOT,
    Q2_DISCARD_OTHER,
    Q2_DISCARD_ALWAYS, /* whatever the options say */
    Q2_DISCARD_TYPES,
};

/* The mapping no longer refers (once) to the clusters that the range touches: their refcounts fall
 * after the next commit (W4) and the grace period (W5). Never fails: out of memory leaks them
 * until a check. Any context. */
void q2_free_later(struct qcow2 *s, uint64_t offset, uint64_t bytes, enum q2_discard type);
/* The same for one entry of an L2 table: its data cluster or compressed data, where it has any. */
void q2_free_entry_later(struct qcow2 *s, uint64_t l2_entry, enum q2_discard type);
static inline bool q2_free_due(const struct qcow2 *s);
/* Commit when many wait, lower what is due, discard it in the file where the options say so.
 * Coroutine, outside (after q2_leave), at the end of a request. */
void q2_free_run_co(struct qcow2 *s);
/* All of it, whoever is inside was drained. 0 or -errno. */
int q2_free_all_co(struct qcow2 *s);

struct q2_free_run; /* free.c */
TAILQ_HEAD(q2_free_list, q2_free_run);

enum q2_free_due_bits {
    Q2_FREE_READY = 1 << 0, /* some may be lowered */
    Q2_FREE_MANY = 1 << 1,  /* so many wait that a commit is due */
};

struct q2_free_queue {
    struct os_mutex lock;
    struct q2_free_list waiting;    /* for a commit */
    struct q2_free_list committing; /* of the commit that runs */
    struct q2_free_list committed;  /* for the next grace period */
    struct q2_free_list grace;      /* for the one that runs */
    struct q2_free_list ready;
    struct q2_retired retired; /* of the grace period that runs */
    struct qcow2 *s;           /* borrowed */
    bool grace_runs;
    bool running; /* somebody lowers */
    uint64_t waiting_bytes;
    uint32_t waiting_runs;
    uint64_t commit_bytes; /* a commit is due above these */
    uint32_t commit_runs;
    _Atomic uint32_t due; /* enum q2_free_due_bits; written under lock */
};
void q2_free_init(struct qcow2 *s);
/* What waits is forgotten (leaked in the file). */
void q2_free_fini(struct qcow2 *s);

/* The part of a commit (commit.c): what waits now may be lowered once the commit has succeeded;
 * end with false: it waits again. begin comes before the commit looks at anything else. */
void q2_free_commit_begin(struct qcow2 *s);
void q2_free_commit_end(struct qcow2 *s, bool durable);

#endif
