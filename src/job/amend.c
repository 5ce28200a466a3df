/* SPDX-License-Identifier: MIT */
/* The job "amend": other options of an image. */
#include <platter/image.h>

#include "job/control_job.h"

struct amend_job {
    struct control_job control;
    BlockDriverState *bs; /* counted */
    bool force;
};

static void report_progress(void *opaque, uint64_t done, uint64_t total)
{
    Job *job = opaque;

    job_progress_set_total(job, total);
    job_progress_update(job, done - job->progress_current);
}

static int amend_call(struct control_job *cj, Error **errp)
{
    struct amend_job *a = (struct amend_job *)cj;
    struct bdrv_progress progress = {.report = report_progress, .opaque = &cj->job};

    return bdrv_amend(a->bs, control_job_take_options(cj), a->force, &progress, errp);
}

static void amend_clean(Job *job)
{
    struct amend_job *a = (struct amend_job *)job;

    bdrv_unref(a->bs);
    a->bs = NULL;
}

static void amend_free(Job *job)
{
    struct amend_job *a = (struct amend_job *)job;

    amend_clean(job); /* of one that never began */
    control_job_fini(&a->control);
}

static const struct job_driver amend_driver = {
    .type = "amend",
    .instance_size = sizeof(struct amend_job),
    .run_co = control_job_run_co,
    .clean = amend_clean,
    .free = amend_free,
};

Job *job_amend_start(Platter *pl, const struct job_start *start, BlockDriverState *bs,
                     BlockOptions *options, bool force, Error **errp)
{
    struct control_job *cj = control_job_new(pl, &amend_driver, start, options, errp);
    struct amend_job *a = (struct amend_job *)cj;

    if (!cj) {
        return NULL;
    }
    cj->call = amend_call;
    a->bs = bs;
    a->force = force;
    bdrv_ref(bs);
    if (job_block_node(&cj->job, bs, errp) < 0) {
        job_early_fail(&cj->job);
        return NULL;
    }
    job_start(&cj->job);
    return &cj->job;
}
