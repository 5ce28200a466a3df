/* SPDX-License-Identifier: MIT */
/* Memory to the file, in order (commit.c). */
#ifndef PLATTER_QCOW2_COMMIT_H
#define PLATTER_QCOW2_COMMIT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "block/driver.h"

struct qcow2;

/* Everything that was changed before the call is durable after it (W1 .. W4); flush: the data of
 * completed writes too, even when no metadata changed. One at a time; callers that come meanwhile
 * share the next. Coroutine, inside. What fails stays dirty.
 *
 * Lazy refcounts (opt.lazy_refcounts, version 3): the dirty bit is made durable before the first
 * table is written; as long as it is, refcounts stay in memory. */
int q2_commit_co(struct qcow2 *s, bool flush);
/* The same with flush; lazy refcounts are written too, and then the dirty bit is cleared. For
 * close, and before somebody else looks at the refcounts in the file. Exclusive section, drained
 * or closing. */
int q2_commit_clean_co(struct qcow2 *s);
void q2_commit_init(struct qcow2 *s);

struct q2_commit {
    CoMutex lock;
    /* numbers of commits; written under lock */
    _Atomic uint64_t begun;
    uint64_t done;       /* the last that succeeded */
    uint64_t done_flush; /* the last that succeeded and made data durable too */
    uint64_t failed;     /* the last that failed, and why */
    int failed_ret;
};

#endif
