/* SPDX-License-Identifier: MIT */
/* What the user may ask of a job, and in which states. */
#include "job/job_int.h"

#include <assert.h>
#include <errno.h>

#include "loop/context.h"
#include "util/error.h"

enum verb {
    VERB_CANCEL,
    VERB_PAUSE,
    VERB_RESUME,
    VERB_SET_SPEED,
    VERB_COMPLETE,
    VERB_FINALIZE,
    VERB_DISMISS,
};

#define IN(status) (1u << JOB_STATUS_##status)
#define WORKING (IN(CREATED) | IN(RUNNING) | IN(PAUSED) | IN(READY) | IN(STANDBY))

static const struct {
    const char *name;
    unsigned states;
} verbs[] = {
    [VERB_CANCEL] = {"cancel", WORKING | IN(WAITING) | IN(PENDING)},
    [VERB_PAUSE] = {"pause", WORKING},
    [VERB_RESUME] = {"resume", WORKING},
    [VERB_SET_SPEED] = {"set-speed", WORKING},
    [VERB_COMPLETE] = {"complete", IN(READY)},
    [VERB_FINALIZE] = {"finalize", IN(PENDING)},
    [VERB_DISMISS] = {"dismiss", IN(CONCLUDED)},
};

static int verb_check(const Job *job, enum verb verb, Error **errp)
{
    assert(instance_in_control_thread(job->pl));
    if ((verbs[verb].states & 1u << job->status) && (job->txn == NULL || !job->txn->finalizing)) {
        return 0;
    }
    return error_set(errp, EPERM, "Job '%s' in state '%s' cannot accept command verb '%s'", job->id,
                     job_status_name(job->status), verbs[verb].name);
}

int job_pause(Job *job, Error **errp)
{
    int ret = verb_check(job, VERB_PAUSE, errp);

    if (ret == 0 && job->user_paused) {
        ret = error_set(errp, EPERM, "Job '%s' is already paused", job->id);
    }
    if (ret == 0) {
        job->user_paused = true;
        job->pause_count++;
        job_wake(job); /* a sleeper shows that it is paused */
    }
    return ret;
}

int job_resume(Job *job, Error **errp)
{
    int ret;

    assert(instance_in_control_thread(job->pl));
    if (!job->user_paused) {
        return error_set(errp, EPERM, "Can't resume a job that was not paused");
    }
    ret = verb_check(job, VERB_RESUME, errp);
    if (ret == 0) {
        job_iostatus_reset(job);
        job->user_paused = false;
        job->pause_count--;
        job_wake(job);
    }
    return ret;
}

int job_set_speed(Job *job, uint64_t bytes_per_second, Error **errp)
{
    int ret = verb_check(job, VERB_SET_SPEED, errp);

    if (ret == 0 && bytes_per_second > INT64_MAX) {
        ret = error_set(errp, EINVAL, "Speed of job '%s' is too large", job->id);
    }
    if (ret == 0) {
        job->speed = bytes_per_second;
        job->paid_ns = 0;
        job_wake(job);
    }
    return ret;
}

/* One that has not begun, or has done its work and waits for others, has no coroutine to stop. */
static void cancel_idle(Job *job)
{
    job->done = true;
    job_fail(job, -ECANCELED, NULL);
    job_completed(job);
}

int job_cancel(Job *job, bool force, Error **errp)
{
    bool soft = !force && job->driver->soft_cancel != NULL &&
                (job->status == JOB_STATUS_READY || job->status == JOB_STATUS_STANDBY) &&
                job->driver->soft_cancel(job);
    int ret = verb_check(job, VERB_CANCEL, errp);

    if (ret < 0) {
        return ret;
    }
    job->cancelled = true;
    if (job->user_paused) { /* whoever cancels does not want it to stay */
        job->user_paused = false;
        job->pause_count--;
    }
    if (!soft) {
        job->force_cancel = true;
    }
    if (job->co == NULL && (job->done || !job->ending)) {
        cancel_idle(job);
    } else {
        job_wake(job);
    }
    return 0;
}

int job_complete(Job *job, Error **errp)
{
    int ret = verb_check(job, VERB_COMPLETE, errp);

    if (ret < 0) {
        return ret;
    }
    if (job->cancelled || job->driver->complete == NULL) {
        return error_set(errp, EPERM, "Job '%s' cannot be completed", job->id);
    }
    ret = job->driver->complete(job, errp);
    if (ret == 0) {
        job_wake(job);
    }
    return ret;
}

int job_finalize(Job *job, Error **errp)
{
    int ret = verb_check(job, VERB_FINALIZE, errp);

    if (ret == 0) {
        job_txn_finalize(job);
    }
    return ret;
}

int job_dismiss(Job *job, Error **errp)
{
    int ret = verb_check(job, VERB_DISMISS, errp);

    if (ret == 0) {
        job_conclude_and_forget(job);
    }
    return ret;
}

void job_iostatus_reset(Job *job)
{
    job->iostatus = JOB_IOSTATUS_OK;
}

/* Not while it works: it is over, or waits for the user to complete or finalize it. */
static bool still_working(void *opaque)
{
    const Job *job = opaque;

    return job->status != JOB_STATUS_CONCLUDED && job->status != JOB_STATUS_PENDING &&
           job->status != JOB_STATUS_READY;
}

static bool is_finalizing(void *opaque)
{
    const Job *job = opaque;

    return job->status == JOB_STATUS_PENDING;
}

int job_wait(Job *job, Error **errp)
{
    int ret;

    assert(job->status != JOB_STATUS_CREATED && (job->txn == NULL || !job->txn->held));
    instance_control(job->pl);
    job_ref(job);
    aio_wait_while(job->pl->main_ctx, still_working, job);
    if (job->status == JOB_STATUS_PENDING && !job->txn->finalizing) {
        job_txn_finalize(job);
    }
    aio_wait_while(job->pl->main_ctx, is_finalizing, job);
    ret = job->ret;
    if (ret < 0) {
        error_copy(errp, job->err);
    }
    job_unref(job);
    return ret;
}
