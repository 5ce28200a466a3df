/* SPDX-License-Identifier: MIT */
/*
 * Clusters that nothing refers to any more, on their way to refcount zero.
 *
 *   waiting --commit begins--> committing --durable--> committed --> grace --> ready --> lowered
 *
 * Invariants
 *  Q1  A run that was queued before a commit began was queued after the change of the mapping that
 *      made it free, so that commit makes the change durable (W4).
 *  Q2  A run is ready only after a grace period that began when it was committed (W5). One grace
 *      period runs at a time; what is committed meanwhile goes through the next.
 *  Q3  Runs are joined only where a cluster ends: compressed data shares clusters, and each piece
 *      counts once.
 * A run that cannot be queued or lowered leaks its clusters until a check.
 */
#include <errno.h>

#include "qcow2.h"

#define COMMIT_BYTES (UINT64_C(64) << 20) /* waiting: more is worth a commit */
#define COMMIT_RUNS 4096
#define WAITING_RUNS_MAX (UINT32_C(1) << 20) /* while commits fail: beyond, runs leak */

struct q2_free_run {
    uint64_t offset;
    uint64_t bytes;
    enum q2_discard type;
    TAILQ_ENTRY(q2_free_run) entry;
};

static void due_set(struct q2_free_queue *q, uint32_t bit)
{
    atomic_fetch_or_explicit(&q->due, bit, memory_order_relaxed);
}

static void due_clear(struct q2_free_queue *q, uint32_t bit)
{
    atomic_fetch_and_explicit(&q->due, ~bit, memory_order_relaxed);
}

static void runs_free(struct q2_free_list *list)
{
    struct q2_free_run *run;

    while ((run = TAILQ_FIRST(list)) != NULL) {
        TAILQ_REMOVE(list, run, entry);
        free(run);
    }
}

/* ---- the grace period ---- */

static void grace_end(struct q2_retired *r);

/* Lock held. True: the caller retires q->retired, without the lock. */
static bool grace_begin_locked(struct q2_free_queue *q)
{
    if (q->grace_runs || TAILQ_EMPTY(&q->committed)) {
        return false;
    }
    TAILQ_CONCAT(&q->grace, &q->committed, entry);
    q->grace_runs = true;
    q->retired.end = grace_end;
    return true;
}

static void grace_end(struct q2_retired *r)
{
    struct q2_free_queue *q = CONTAINER_OF(r, struct q2_free_queue, retired);
    bool more;

    os_mutex_lock(&q->lock);
    TAILQ_CONCAT(&q->ready, &q->grace, entry);
    if (!TAILQ_EMPTY(&q->ready)) {
        due_set(q, Q2_FREE_READY);
    }
    q->grace_runs = false;
    more = grace_begin_locked(q);
    os_mutex_unlock(&q->lock);
    if (more) {
        q2_retire(q->s, &q->retired);
    }
}

/* ---- queueing ---- */

/* The last run, when [offset, offset + bytes) continues it at the border of a cluster (Q3). */
static bool join_locked(struct qcow2 *s, uint64_t offset, uint64_t bytes, enum q2_discard type)
{
    struct q2_free_run *last = TAILQ_LAST(&s->freed.waiting, q2_free_list);
    uint64_t cluster = s->geo.cluster_bytes;

    if (last == NULL || last->type != type) {
        return false;
    }
    if (last->offset + last->bytes == offset && is_aligned(offset, cluster)) {
        last->bytes += bytes;
        return true;
    }
    if (offset + bytes == last->offset && is_aligned(last->offset, cluster)) {
        last->offset = offset;
        last->bytes += bytes;
        return true;
    }
    return false;
}

static void count_locked(struct q2_free_queue *q, uint64_t bytes, uint32_t runs)
{
    q->waiting_bytes += bytes;
    q->waiting_runs += runs;
    if (q->waiting_bytes > q->commit_bytes || q->waiting_runs > q->commit_runs) {
        due_set(q, Q2_FREE_MANY);
    }
}

void q2_free_later(struct qcow2 *s, uint64_t offset, uint64_t bytes, enum q2_discard type)
{
    struct q2_free_queue *q = &s->freed;
    struct q2_free_run *run = NULL;

    if (bytes == 0) {
        return;
    }
    os_mutex_lock(&q->lock);
    if (join_locked(s, offset, bytes, type)) {
        count_locked(q, bytes, 0);
    } else if (q->waiting_runs < WAITING_RUNS_MAX && (run = malloc(sizeof(*run))) != NULL) {
        *run = (struct q2_free_run){.offset = offset, .bytes = bytes, .type = type};
        TAILQ_INSERT_TAIL(&q->waiting, run, entry);
        count_locked(q, bytes, 1);
    }
    os_mutex_unlock(&q->lock);
}

/* "Compressed Clusters Descriptor" */
static void free_compressed_later(struct qcow2 *s, uint64_t l2_entry, enum q2_discard type)
{
    unsigned x = 62 - (s->geo.cluster_bits - 8);
    uint64_t offset = l2_entry & ((UINT64_C(1) << x) - 1);
    uint64_t sectors = ((l2_entry & ~(Q2_COPIED | Q2_COMPRESSED)) >> x) + 1;
    uint64_t first = align_down(offset, Q2_COMPRESSED_SECTOR);

    q2_free_later(s, offset, first + sectors * Q2_COMPRESSED_SECTOR - offset, type);
}

void q2_free_entry_later(struct qcow2 *s, uint64_t l2_entry, enum q2_discard type)
{
    uint64_t offset = l2_entry & Q2_OFFSET_MASK;

    if (l2_entry & Q2_COMPRESSED) {
        free_compressed_later(s, l2_entry, type);
    } else if (offset != 0 && is_aligned(offset, s->geo.cluster_bytes) && !s->geo.external_data) {
        q2_free_later(s, offset, s->geo.cluster_bytes, type);
    }
}

/* ---- the commit's part ---- */

void q2_free_commit_begin(struct qcow2 *s)
{
    struct q2_free_queue *q = &s->freed;

    os_mutex_lock(&q->lock);
    TAILQ_CONCAT(&q->committing, &q->waiting, entry);
    q->waiting_bytes = 0;
    q->waiting_runs = 0;
    due_clear(q, Q2_FREE_MANY);
    os_mutex_unlock(&q->lock);
}

/* They wait again, with those that came meanwhile; the next commit for their sake is due only after
 * as many more. Lock held. */
static void wait_again_locked(struct q2_free_queue *q)
{
    struct q2_free_run *run;

    TAILQ_CONCAT(&q->committing, &q->waiting, entry);
    TAILQ_CONCAT(&q->waiting, &q->committing, entry);
    q->waiting_bytes = 0;
    q->waiting_runs = 0;
    TAILQ_FOREACH (run, &q->waiting, entry) {
        q->waiting_bytes += run->bytes;
        q->waiting_runs++;
    }
    q->commit_bytes = q->waiting_bytes + COMMIT_BYTES;
    q->commit_runs = q->waiting_runs + COMMIT_RUNS;
    due_clear(q, Q2_FREE_MANY);
}

void q2_free_commit_end(struct qcow2 *s, bool durable)
{
    struct q2_free_queue *q = &s->freed;
    bool grace = false;

    os_mutex_lock(&q->lock);
    if (durable) {
        q->commit_bytes = COMMIT_BYTES;
        q->commit_runs = COMMIT_RUNS;
        TAILQ_CONCAT(&q->committed, &q->committing, entry);
        grace = grace_begin_locked(q);
    } else {
        wait_again_locked(q);
    }
    os_mutex_unlock(&q->lock);
    if (grace) {
        q2_retire(s, &q->retired);
    }
}

/* ---- lowering ---- */

/* Nobody has these clusters any more, and nobody can take them yet. A failure costs space only. */
static void discard_co(void *opaque, uint64_t offset, uint64_t bytes)
{
    struct qcow2 *s = opaque;

    bdrv_edge_discard_co(s->file, offset, bytes);
}

static struct q2_free_run *ready_next(struct q2_free_queue *q)
{
    struct q2_free_run *run;

    os_mutex_lock(&q->lock);
    run = TAILQ_FIRST(&q->ready);
    if (run != NULL) {
        TAILQ_REMOVE(&q->ready, run, entry);
    }
    if (TAILQ_EMPTY(&q->ready)) {
        due_clear(q, Q2_FREE_READY);
    }
    os_mutex_unlock(&q->lock);
    return run;
}

static void lower_ready_co(struct qcow2 *s)
{
    struct q2_free_run *run;

    while ((run = ready_next(&s->freed)) != NULL) {
        bdrv_debug_event(s->file, BLKDBG_CLUSTER_FREE);
        bdrv_debug_event(s->file, BLKDBG_REFBLOCK_ALLOC); /* where their count is looked for */
        /* a failure leaks: part of it may be done, so it is not tried again */
        q2_refcount_drop_co(s, run->offset, run->bytes,
                            s->opt.discard[run->type] ? discard_co : NULL, s);
        free(run);
    }
}

static bool running_take(struct q2_free_queue *q)
{
    bool taken;

    os_mutex_lock(&q->lock);
    taken = !q->running;
    q->running = true;
    os_mutex_unlock(&q->lock);
    return taken;
}

static void running_give(struct q2_free_queue *q)
{
    os_mutex_lock(&q->lock);
    q->running = false;
    os_mutex_unlock(&q->lock);
}

void q2_free_run_co(struct qcow2 *s)
{
    struct q2_free_queue *q = &s->freed;
    q2_token token;

    if (!running_take(q)) {
        return;
    }
    if (atomic_load_explicit(&q->due, memory_order_relaxed) & Q2_FREE_MANY) {
        token = q2_enter_co(s);
        q2_commit_co(s, false); /* when it fails they wait again; nobody here asked for it */
        q2_leave(s, token);     /* a grace period that has begun need not wait for us */
    }
    token = q2_enter_co(s); /* not while an exclusive section looks at refcounts */
    lower_ready_co(s);
    q2_leave(s, token);
    running_give(q);
}

/* Nobody is inside who could have seen them: no grace period is needed. */
static void all_ready(struct q2_free_queue *q)
{
    os_mutex_lock(&q->lock);
    TAILQ_CONCAT(&q->ready, &q->grace, entry);
    TAILQ_CONCAT(&q->ready, &q->committed, entry);
    os_mutex_unlock(&q->lock);
}

int q2_free_all_co(struct qcow2 *s)
{
    int ret = q2_commit_co(s, false);

    all_ready(&s->freed);
    lower_ready_co(s);
    return ret < 0 ? ret : q2_commit_co(s, false);
}

void q2_free_init(struct qcow2 *s)
{
    struct q2_free_queue *q = &s->freed;

    os_mutex_init(&q->lock);
    TAILQ_INIT(&q->waiting);
    TAILQ_INIT(&q->committing);
    TAILQ_INIT(&q->committed);
    TAILQ_INIT(&q->grace);
    TAILQ_INIT(&q->ready);
    q->s = s;
    q->commit_bytes = COMMIT_BYTES;
    q->commit_runs = COMMIT_RUNS;
}

void q2_free_fini(struct qcow2 *s)
{
    struct q2_free_queue *q = &s->freed;

    runs_free(&q->waiting);
    runs_free(&q->committing);
    runs_free(&q->committed);
    runs_free(&q->grace);
    runs_free(&q->ready);
    os_mutex_fini(&q->lock);
}
