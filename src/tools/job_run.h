/* SPDX-License-Identifier: MIT */
/*
 * A command whose work is a job: its progress, and signals. SIGINT, SIGTERM and SIGHUP cancel the
 * job, so that its images are closed in order; the program then ends by the signal. One that comes
 * while no job runs, or a second one, ends it at once; so does the first where nothing would be
 * left in order by a later end.
 */
#ifndef PLATTER_TOOLS_JOB_RUN_H
#define PLATTER_TOOLS_JOB_RUN_H

#include <platter/jobs.h>

#include "tools/disk.h"
#include "tools/progress.h"

struct job_run {
    struct cli *cli;
    struct progress progress;
    int signal_fd;   /* < 0: signals are not watched */
    AioContext *ctx; /* borrowed; watches it; or NULL */
    int signal;      /* that cancelled the job; 0: none */
    bool at_once; /* the first signal ends the program: its work waits where nobody can wake it */
    Job *job;     /* borrowed; NULL: none runs */
};

/* Before any thread is made. */
void job_run_begin(struct job_run *run, struct cli *cli, enum progress_form form);
/* From now on signals are heard; pl is freed after job_run_end. CLI_EXIT_OK, or _FAILED after
 * printing. */
int job_run_watch(struct job_run *run, Platter *pl);
/* How a job of this command is to be started. */
struct job_start job_run_start(struct job_run *run);
/* Run what was started (NULL: that failed, with errp) to its end, and forget it. 0, or -errno with
 * errp. */
int job_run_to_end(struct job_run *run, Job *job, Error **errp);
/* The same, err being of the start. CLI_EXIT_OK, or _FAILED after printing. */
int job_run_wait(struct job_run *run, Job *job, Error *err);
/* Signals and progress are over; code is that of the command. Before platter_free. */
void job_run_end(struct job_run *run, int code);
/* disk_run with all of that around run; what follows is job_run_leave. */
int job_run_disk(struct job_run *run, const struct disk_args *args,
                 int (*work)(struct cli *cli, BlockBackend *blk, void *opaque), void *opaque);
/* At the very end: end by the signal that cancelled the job, if one did. */
void job_run_leave(const struct job_run *run);

#endif
