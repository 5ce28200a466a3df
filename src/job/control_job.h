/* SPDX-License-Identifier: MIT */
/*
 * Jobs whose work is a control call. The call polls the main context, so it does not run in the
 * job's coroutine, but in a bottom half that the coroutine waits for; such calls of several jobs go
 * one after the other.
 */
#ifndef PLATTER_JOB_CONTROL_JOB_H
#define PLATTER_JOB_CONTROL_JOB_H

#include <platter/jobs.h>

#include "job/job_int.h"

/* The first member of what a kind keeps. */
struct control_job {
    Job job;
    int (*call)(struct control_job *cj, Error **errp); /* the kind's; set before the job starts */
    BlockOptions *options; /* owned; NULL once the call has taken them */
    bool ended;
    int ret;
    Error *err; /* owned */
};

/* A job of a kind that begins with struct control_job, not started yet. options: owned, also on
 * failure. NULL with errp. */
struct control_job *control_job_new(Platter *pl, const struct job_driver *driver,
                                    const struct job_start *start, BlockOptions *options,
                                    Error **errp);
/* The kind's run_co: wait for its turn, then for the call. */
int control_job_run_co(Job *job, Error **errp);
/* The options, which the caller owns from now on. */
BlockOptions *control_job_take_options(struct control_job *cj);
/* End of what struct control_job owns. */
void control_job_fini(struct control_job *cj);

#endif
