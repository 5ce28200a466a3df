/* SPDX-License-Identifier: MIT */
/* How fast a job goes, and what it does with errors of its storage. */
#include "job/job_int.h"

#include <errno.h>

/* So late the job may be, for want of I/O, and still catch up; and so early without a wait. */
#define LATE_NS INT64_C(100000000)
#define EARLY_NS INT64_C(20000000)
/* No wait is longer: some thirty years. */
#define WAIT_MAX_NS INT64_C(1000000000000000000)
/* What is ignored is tried again after so long. */
#define RETRY_NS INT64_C(100000000)

static int64_t duration_ns(uint64_t bytes, uint64_t speed)
{
    double ns = (double)bytes * 1e9 / (double)speed;

    return ns < (double)WAIT_MAX_NS ? (int64_t)ns : WAIT_MAX_NS;
}

void job_throttle_co(Job *job, uint64_t bytes)
{
    int64_t now = aio_clock_ns();

    if (job->speed != 0) {
        if (job->paid_ns < now - LATE_NS) {
            job->paid_ns = job->paid_ns != 0 ? now - LATE_NS : now;
        }
        job->paid_ns += duration_ns(bytes, job->speed);
    }
    job_pause_point_co(job);
    /* a pause ends the sleep, but what was sent stays to be paid; another speed begins anew */
    while (job->speed != 0 && !job_is_cancelled(job) && job->paid_ns - now > EARLY_NS) {
        job_sleep_co(job, job->paid_ns - now);
        now = aio_clock_ns();
    }
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
