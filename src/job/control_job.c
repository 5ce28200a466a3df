/* SPDX-License-Identifier: MIT */
#include "job/control_job.h"

#include <errno.h>

#include "loop/context.h"
#include "util/error.h"

#define BUSY_WAIT_NS (INT64_C(10) * 1000 * 1000)

static void call_bh(void *opaque)
{
    struct control_job *cj = opaque;
    struct jobs *jobs = jobs_of(cj->job.pl);

    cj->ret = cj->call(cj, &cj->err);
    jobs->calling = false;
    cj->ended = true;
    aio_co_wake(cj->job.co);
}

int control_job_run_co(Job *job, Error **errp)
{
    struct control_job *cj = (struct control_job *)job;
    struct jobs *jobs = jobs_of(job->pl);

    job_progress_set_total(job, 1);
    while (jobs->calling) {
        job_sleep_co(job, BUSY_WAIT_NS);
        if (job_is_cancelled(job)) {
            return -ECANCELED;
        }
    }
    jobs->calling = true; /* from now on: the call is as good as begun */
    if (aio_bh_schedule_oneshot(job->pl->main_ctx, call_bh, cj) < 0) {
        jobs->calling = false;
        return error_set(errp, ENOMEM, "out of memory");
    }
    while (!cj->ended) {
        coroutine_yield();
    }
    if (cj->ret == 0) {
        job_progress_update(job, job->progress_total - job->progress_current);
    }
    error_propagate(errp, cj->err);
    cj->err = NULL;
    return cj->ret;
}

struct control_job *control_job_new(Platter *pl, const struct job_driver *driver,
                                    const struct job_start *start, BlockOptions *options,
                                    Error **errp)
{
    struct control_job *cj = job_create(pl, driver, start->id, start->txn, start->flags, errp);

    if (!cj) {
        block_options_free(options);
        return NULL;
    }
    cj->options = options;
    if (start->progress) {
        cj->job.progress = *start->progress;
    }
    return cj;
}

BlockOptions *control_job_take_options(struct control_job *cj)
{
    BlockOptions *options = cj->options;

    cj->options = NULL;
    return options;
}

void control_job_fini(struct control_job *cj)
{
    block_options_free(cj->options);
    error_free(cj->err);
}
