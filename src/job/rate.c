/* SPDX-License-Identifier: MIT */
/* How fast a job goes, and what it does with errors of its storage. */
#include "job/job_int.h"

#include <errno.h>

#include "util/checked.h"

/* The limit is kept over slices of so long: short enough that a change is felt at once. */
#define SLICE_NS INT64_C(100000000)
/* What is ignored is tried again after so long. */
#define RETRY_NS INT64_C(100000000)
#define NS_PER_SECOND UINT64_C(1000000000)

static uint64_t slice_limit(uint64_t speed)
{
    uint64_t bytes = speed / (NS_PER_SECOND / (uint64_t)SLICE_NS);

    return bytes > 0 ? bytes : 1;
}

void job_throttle_co(Job *job, uint64_t bytes)
{
    uint64_t over;
    int64_t now;

    if (job->speed == 0) {
        job_pause_point_co(job);
        return;
    }
    now = aio_clock_ns();
    if (now >= job->slice_end_ns) {
        job->slice_end_ns = now + SLICE_NS;
        job->slice_bytes = 0;
    }
    job->slice_bytes += bytes;
    over = job->slice_bytes / slice_limit(job->speed);
    if (over == 0) {
        job_pause_point_co(job);
        return;
    }
    /* what was sent fills so many slices: the next begins after them */
    job->slice_bytes -= over * slice_limit(job->speed);
    job->slice_end_ns += (int64_t)min_u64(over - 1, INT32_MAX) * SLICE_NS;
    job_sleep_co(job, job->slice_end_ns - now);
    job->slice_end_ns += SLICE_NS;
}

enum job_on_error job_error_action(Job *job, enum job_on_error policy, bool is_read, int error)
{
    if (policy == JOB_ON_ERROR_ENOSPC) {
        policy = error == -ENOSPC ? JOB_ON_ERROR_STOP : JOB_ON_ERROR_REPORT;
    }
    if (policy == JOB_ON_ERROR_STOP) {
        if (!job->user_paused) {
            job->user_paused = true; /* the user resumes */
            job->pause_count++;
        }
        if (job->iostatus == JOB_IOSTATUS_OK) {
            job->iostatus = error == -ENOSPC ? JOB_IOSTATUS_NOSPACE : JOB_IOSTATUS_FAILED;
        }
    }
    instance_raise(job->pl, &(struct platter_event){
                                .type = PLATTER_EVENT_JOB_ERROR,
                                .u.job_error = {.id = job->id,
                                                .is_read = is_read,
                                                .action = policy == JOB_ON_ERROR_REPORT   ? "report"
                                                          : policy == JOB_ON_ERROR_IGNORE ? "ignore"
                                                                                          : "stop"},
                            });
    return policy;
}

int job_retry_co(Job *job, enum job_on_error policy, bool is_read, int ret)
{
    switch (job_error_action(job, policy, is_read, ret)) {
    case JOB_ON_ERROR_STOP:
        job_pause_point_co(job);
        break;
    case JOB_ON_ERROR_IGNORE:
        job_sleep_co(job, RETRY_NS);
        break;
    default:
        return ret;
    }
    return job_is_cancelled(job) ? -ECANCELED : 0;
}
