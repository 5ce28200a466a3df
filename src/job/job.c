/* SPDX-License-Identifier: MIT */
/*
 * The life of a job: its registry, its coroutine, pause points. What it works on is in nodes.c,
 * what the user asks for in verbs.c, how jobs end together in txn.c, how fast they go in rate.c.
 *
 * Invariants
 *  J1 The coroutine is entered only while it is at a pause point or asleep (busy is false), or by
 *     what it waits for itself.
 *  J2 While pause_count > 0 the coroutine does not pass a pause point.
 *  J3 A job is in the registry from job_create until it is forgotten; the registry's reference ends
 *     then, after commit or abort, and clean.
 */
#include "job/job_int.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "loop/context.h"
#include "os/trace.h"
#include "util/error.h"
#include "util/size.h"

/* So long a job works without a turn of the loop, at most: nobody waits for it noticeably. */
#define TURN_NS (INT64_C(10) * 1000 * 1000)

static void jobs_fini(Platter *pl, void *data)
{
    struct jobs *jobs = data;
    Job *job;

    while ((job = TAILQ_FIRST(&jobs->list)) != NULL) {
        if (job->status == JOB_STATUS_CONCLUDED) {
            job_conclude_and_forget(job);
        } else if (!job->force_cancel) {
            (void)job_cancel(job, true, NULL); /* may end it at once */
        } else {
            aio_poll(pl->main_ctx, true);
        }
    }
    free(jobs);
}

struct jobs *jobs_of(Platter *pl)
{
    struct jobs *jobs = pl->rooms[INSTANCE_ROOM_JOBS].data;

    if (jobs == NULL) {
        jobs = calloc(1, sizeof(*jobs));
        if (jobs != NULL) {
            TAILQ_INIT(&jobs->list);
            pl->rooms[INSTANCE_ROOM_JOBS].data = jobs;
            pl->rooms[INSTANCE_ROOM_JOBS].fini = jobs_fini;
        }
    }
    return jobs;
}

const char *job_status_name(enum job_status status)
{
    static const char *const names[] = {
        [JOB_STATUS_CREATED] = "created",     [JOB_STATUS_RUNNING] = "running",
        [JOB_STATUS_PAUSED] = "paused",       [JOB_STATUS_READY] = "ready",
        [JOB_STATUS_STANDBY] = "standby",     [JOB_STATUS_WAITING] = "waiting",
        [JOB_STATUS_PENDING] = "pending",     [JOB_STATUS_ABORTING] = "aborting",
        [JOB_STATUS_CONCLUDED] = "concluded",
    };

    return names[status];
}

static bool status_may_follow(enum job_status from, enum job_status to)
{
    static const unsigned next[] = {
        [JOB_STATUS_CREATED] = 1 << JOB_STATUS_RUNNING,
        [JOB_STATUS_RUNNING] =
            1 << JOB_STATUS_PAUSED | 1 << JOB_STATUS_READY | 1 << JOB_STATUS_WAITING,
        [JOB_STATUS_PAUSED] = 1 << JOB_STATUS_RUNNING,
        [JOB_STATUS_READY] = 1 << JOB_STATUS_STANDBY | 1 << JOB_STATUS_WAITING,
        [JOB_STATUS_STANDBY] = 1 << JOB_STATUS_READY,
        [JOB_STATUS_WAITING] = 1 << JOB_STATUS_PENDING,
        [JOB_STATUS_PENDING] = 1 << JOB_STATUS_CONCLUDED,
        [JOB_STATUS_ABORTING] = 1 << JOB_STATUS_CONCLUDED,
        [JOB_STATUS_CONCLUDED] = 0,
    };

    return to == JOB_STATUS_ABORTING ? from != JOB_STATUS_CONCLUDED : (next[from] & 1u << to) != 0;
}

void job_raise_status(const Job *job, const char *status)
{
    TRACE(job_status, job->id, status);
    instance_raise(job->pl,
                   &(struct platter_event){
                       .type = PLATTER_EVENT_JOB_STATUS_CHANGE,
                       .u.job = {.id = job->id, .type = job->driver->type, .status = status},
                   });
}

void job_set_status(Job *job, enum job_status status)
{
    if (job->status == status) {
        return;
    }
    assert(status_may_follow(job->status, status));
    job->status = status;
    job_raise_status(job, job_status_name(status));
}

Job *job_by_id(Platter *pl, const char *id)
{
    Job *job = job_next(pl, NULL);

    while (job != NULL && strcmp(job->id, id) != 0) {
        job = job_next(pl, job);
    }
    return job;
}

Job *job_next(Platter *pl, Job *job)
{
    struct jobs *jobs = pl->rooms[INSTANCE_ROOM_JOBS].data;

    assert(instance_in_control_thread(pl));
    if (job != NULL) {
        return TAILQ_NEXT(job, in_instance);
    }
    return jobs != NULL ? TAILQ_FIRST(&jobs->list) : NULL;
}

void job_get_info(const Job *job, struct job_info *ret_info)
{
    *ret_info = (struct job_info){
        .id = job->id,
        .type = job->driver->type,
        .status = job->status,
        .iostatus = job->iostatus,
        .progress_current = job->progress_current,
        .progress_total = job->progress_total,
        .speed = job->speed,
        .flags = job->flags,
        .user_paused = job->user_paused,
        .cancelled = job->cancelled,
        .error = job->err != NULL ? error_get_pretty(job->err) : NULL,
    };
}

/* ---- lifetime ---- */

static void sleep_over(void *opaque)
{
    job_wake(opaque);
}

static void job_finished(void *opaque);

void job_ref(Job *job)
{
    job->refcnt++;
}

void job_unref(Job *job)
{
    if (job == NULL || --job->refcnt > 0) {
        return;
    }
    assert(job->co == NULL && job->txn == NULL && TAILQ_EMPTY(&job->nodes) && !job->registered);
    if (job->driver->free != NULL) {
        job->driver->free(job);
    }
    aio_timer_free(job->sleep_timer);
    aio_bh_delete(job->end_bh);
    error_free(job->err);
    error_free(job->blocker);
    free(job->id);
    free(job);
}

static int create_check(Platter *pl, const char *id, const JobTxn *txn, Error **errp)
{
    if (!id_wellformed(id)) {
        return error_set(errp, EINVAL, "Invalid job ID '%.255s'", id);
    }
    if (job_by_id(pl, id) != NULL) {
        return error_set(errp, EEXIST, "Job ID '%s' already in use", id);
    }
    if (txn != NULL && txn->aborting) {
        return error_set(errp, EBUSY, "Job '%s' comes too late: another of its transaction failed",
                         id);
    }
    return 0;
}

void *job_create(Platter *pl, const struct job_driver *driver, const char *id, JobTxn *txn,
                 unsigned flags, Error **errp)
{
    struct jobs *jobs = jobs_of(pl);
    JobTxn *own = txn == NULL ? job_txn_new(pl) : NULL;
    Job *job = NULL;

    assert(driver->instance_size >= sizeof(Job));
    if (create_check(pl, id, txn, errp) < 0) {
        job_txn_unref(own);
        return NULL;
    }
    job = calloc(1, driver->instance_size);
    if (job != NULL) {
        job->id = strdup(id);
        job->sleep_timer = aio_timer_new(pl->main_ctx, sleep_over, job);
        job->end_bh = aio_bh_new(pl->main_ctx, job_finished, job);
    }
    if (jobs == NULL || (txn == NULL && own == NULL) || job == NULL || job->id == NULL ||
        job->sleep_timer == NULL || job->end_bh == NULL) {
        error_set(errp, ENOMEM, "out of memory for job '%s'", id);
        if (job != NULL) {
            aio_timer_free(job->sleep_timer);
            aio_bh_delete(job->end_bh);
            free(job->id);
        }
        free(job);
        job_txn_unref(own);
        return NULL;
    }
    job->driver = driver;
    job->pl = pl;
    job->refcnt = 1;
    job->flags = flags;
    job->status = JOB_STATUS_CREATED;
    job->registered = true;
    TAILQ_INIT(&job->nodes);
    TAILQ_INSERT_TAIL(&jobs->list, job, in_instance);
    job_txn_add(txn != NULL ? txn : own, job);
    job_txn_unref(own);
    job_raise_status(job, job_status_name(JOB_STATUS_CREATED));
    return job;
}

void job_fail(Job *job, int ret, Error *err)
{
    assert(ret < 0);
    if (job->ret < 0) {
        error_free(err);
        return;
    }
    job->ret = ret;
    job->err = err;
    if (err == NULL) {
        error_set_errno(&job->err, -ret, "Job '%s' (%s) failed", job->id, job->driver->type);
    }
}

/* ---- the coroutine ---- */

/* From the loop, not from whoever entered the coroutine last: that may be a drain that ends, or the
 * start of the job, which are not to find the graph changed or the job gone. */
static void job_finished(void *opaque)
{
    Job *job = opaque;

    if (job->force_cancel) {
        job_fail(job, -ECANCELED, NULL);
    }
    job->done = true;
    job_completed(job);
    job_unref(job);
}

static void job_ending(void *opaque)
{
    Job *job = opaque;

    job->co = NULL;
    job->busy = false;
    job->ending = true;
    aio_bh_schedule(job->end_bh);
}

static void job_entry(void *opaque)
{
    Job *job = opaque;
    Error *err = NULL;
    int ret;

    job_pause_point_co(job);
    ret = job_is_cancelled(job) ? -ECANCELED : job->driver->run_co(job, &err);
    if (ret < 0) {
        job_fail(job, ret, err);
    } else {
        error_free(err);
    }
    coroutine_set_farewell(job_ending, job);
}

void job_start(Job *job)
{
    assert(job->status == JOB_STATUS_CREATED && job->co == NULL);
    job->co = coroutine_create(job_entry, job);
    job_set_status(job, JOB_STATUS_RUNNING);
    job_ref(job); /* until job_finished */
    if (job->co == NULL) {
        job_fail(job, -ENOMEM, NULL);
        job_ending(job);
        return;
    }
    job->busy = true;
    coroutine_enter(job->co);
}

void job_early_fail(Job *job)
{
    assert(job->status == JOB_STATUS_CREATED);
    job_fail(job, -ECANCELED, NULL);
    job_set_status(job, JOB_STATUS_ABORTING);
    job_set_status(job, JOB_STATUS_CONCLUDED);
    job_conclude_and_forget(job);
}

void job_wake(Job *job)
{
    /* J1; a sleeper comes to its pause point */
    if (job->co != NULL && !job->busy) {
        job->busy = true;
        aio_timer_del(job->sleep_timer);
        aio_co_schedule(job->pl->main_ctx, job->co);
    }
}

static void stop_here(Job *job)
{
    job->busy = false;
    aio_notify(job->pl->main_ctx); /* a drain may wait for this */
    coroutine_yield();
    assert(job->busy);
}

void job_pause_point_co(Job *job)
{
    while (job->pause_count > 0 && !job->force_cancel) {
        enum job_status before = job->status;
        bool ready = before == JOB_STATUS_READY || before == JOB_STATUS_STANDBY;

        job_set_status(job, ready ? JOB_STATUS_STANDBY : JOB_STATUS_PAUSED);
        stop_here(job);
    }
    if (job->status == JOB_STATUS_PAUSED) {
        job_set_status(job, JOB_STATUS_RUNNING);
    } else if (job->status == JOB_STATUS_STANDBY) {
        job_set_status(job, JOB_STATUS_READY);
    }
}

void job_sleep_co(Job *job, int64_t ns)
{
    if (!job_is_cancelled(job) && job->pause_count == 0) {
        aio_timer_mod(job->sleep_timer, aio_clock_ns() + ns);
        stop_here(job);
    }
    job_pause_point_co(job);
}

bool job_turn_is_due(int64_t *last_ns)
{
    int64_t now = aio_clock_ns();

    if (*last_ns == 0) {
        *last_ns = now;
    }
    return now - *last_ns >= TURN_NS;
}

void job_turn_co(Job *job, int64_t *last_ns)
{
    if (job_turn_is_due(last_ns)) {
        job_sleep_co(job, 0);
        *last_ns = aio_clock_ns();
    } else {
        job_pause_point_co(job);
    }
}

bool job_is_cancelled(const Job *job)
{
    return job->force_cancel;
}

void job_progress_update(Job *job, uint64_t done)
{
    job->progress_current += done;
    if (job->progress.report != NULL) {
        job->progress.report(job->progress.opaque, job->progress_current, job->progress_total);
    }
}

void job_progress_set_total(Job *job, uint64_t total)
{
    job->progress_total = total;
}

void job_set_ready(Job *job)
{
    if (job->status == JOB_STATUS_RUNNING) {
        job_set_status(job, JOB_STATUS_READY);
    }
}
