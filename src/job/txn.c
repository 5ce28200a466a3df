/* SPDX-License-Identifier: MIT */
/*
 * How jobs end: those of one transaction all succeed or all fail.
 *
 *  T1 A job that has done its work waits until all of its transaction have, and nobody can join it
 *     any more: who made it has let go of it.
 *  T2 Then all are pending, until each that wants it was finalized by the user; then every prepare
 *     runs, and only if all of them succeed every commit.
 *  T3 One that fails or is cancelled makes all others of the transaction fail: they are cancelled,
 *     and aborted when the last has stopped.
 */
#include "job/job_int.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "util/error.h"

JobTxn *job_txn_new(Platter *pl)
{
    JobTxn *txn = calloc(1, sizeof(*txn));

    if (txn != NULL) {
        txn->pl = pl;
        txn->refcnt = 1;
        txn->held = true;
        TAILQ_INIT(&txn->jobs);
    }
    return txn;
}

static void txn_drop(JobTxn *txn)
{
    if (--txn->refcnt == 0) {
        assert(TAILQ_EMPTY(&txn->jobs));
        free(txn);
    }
}

void job_txn_add(JobTxn *txn, Job *job)
{
    txn->refcnt++;
    job->txn = txn;
    TAILQ_INSERT_TAIL(&txn->jobs, job, in_txn);
}

static void txn_leave(Job *job)
{
    JobTxn *txn = job->txn;

    if (txn != NULL) {
        TAILQ_REMOVE(&txn->jobs, job, in_txn);
        job->txn = NULL;
        txn_drop(txn);
    }
}

void job_conclude_and_forget(Job *job)
{
    struct jobs *jobs = jobs_of(job->pl);

    assert(job->status == JOB_STATUS_CONCLUDED && job->registered);
    txn_leave(job);
    job_remove_nodes(job);
    TAILQ_REMOVE(&jobs->list, job, in_instance);
    job->registered = false;
    job_raise_status(job, "null"); /* as clients know a job that is no more */
    job_unref(job);
}

/* Commit or abort one, let its nodes go, and conclude it. */
static void conclude(Job *job)
{
    if (job->ret < 0) {
        job_set_status(job, JOB_STATUS_ABORTING);
        if (job->driver->abort != NULL) {
            job->driver->abort(job);
        }
    } else if (job->driver->commit != NULL) {
        job->driver->commit(job);
    }
    if (job->driver->clean != NULL) {
        job->driver->clean(job);
    }
    job_remove_nodes(job);
    txn_leave(job);
    job_set_status(job, JOB_STATUS_CONCLUDED);
    if (!(job->flags & JOB_MANUAL_DISMISS)) {
        job_conclude_and_forget(job);
    }
}

/* Keeps T3 and T2's end: everybody has stopped. */
static void txn_conclude(JobTxn *txn)
{
    Job *job;

    txn->refcnt++;
    txn->finalizing = true;
    while ((job = TAILQ_FIRST(&txn->jobs)) != NULL) {
        job_ref(job);
        conclude(job);
        job_unref(job);
    }
    txn_drop(txn);
}

static bool txn_all_done(const JobTxn *txn)
{
    const Job *job;

    if (txn->held || TAILQ_EMPTY(&txn->jobs)) {
        return false;
    }

    TAILQ_FOREACH (job, &txn->jobs, in_txn) {
        if (!job->done) {
            return false;
        }
    }
    return true;
}

/* One failed: the others stop too. Those that never began are done. */
static void txn_abort(JobTxn *txn, const Job *because)
{
    Job *job;

    txn->aborting = true;
    TAILQ_FOREACH (job, &txn->jobs, in_txn) {
        if (job == because) {
            continue;
        }
        if (job->ret == 0) {
            Error *err = NULL;

            error_set(&err, ECANCELED, "Job '%s' of the same transaction failed", because->id);
            job->cancelled = true;
            job->force_cancel = true;
            job_fail(job, -ECANCELED, err);
        }
        if (job->status == JOB_STATUS_CREATED) {
            job->done = true;
        } else {
            job_wake(job);
        }
    }
}

static int txn_prepare(JobTxn *txn)
{
    Job *job;

    TAILQ_FOREACH (job, &txn->jobs, in_txn) {
        Error *err = NULL;
        int ret = job->driver->prepare != NULL ? job->driver->prepare(job, &err) : 0;

        if (ret < 0) {
            job_fail(job, ret, err);
            txn_abort(txn, job);
            return ret;
        }
    }
    return 0;
}

void job_txn_finalize(Job *job)
{
    JobTxn *txn = job->txn;

    txn->refcnt++;
    txn->finalizing = true;
    (void)txn_prepare(txn);
    txn_conclude(txn);
    txn_drop(txn);
}

static void txn_pending(JobTxn *txn)
{
    bool manual = false;
    Job *job;

    TAILQ_FOREACH (job, &txn->jobs, in_txn) {
        job_set_status(job, JOB_STATUS_PENDING);
        manual |= (job->flags & JOB_MANUAL_FINALIZE) != 0;
    }
    if (!manual) {
        job_txn_finalize(TAILQ_FIRST(&txn->jobs));
    }
}

static void txn_end_if_done(JobTxn *txn)
{
    if (!txn_all_done(txn)) {
        return;
    }
    if (txn->aborting) {
        txn_conclude(txn);
    } else {
        txn_pending(txn);
    }
}

void job_completed(Job *job)
{
    JobTxn *txn = job->txn;

    assert(job->done);
    if (job->ret < 0) {
        job_set_status(job, JOB_STATUS_ABORTING);
        if (!txn->aborting) {
            txn_abort(txn, job);
        }
    } else {
        job_set_status(job, JOB_STATUS_WAITING);
    }
    txn_end_if_done(txn);
}

void job_txn_unref(JobTxn *txn)
{
    if (txn != NULL) {
        txn->held = false;
        txn_end_if_done(txn);
        txn_drop(txn);
    }
}
