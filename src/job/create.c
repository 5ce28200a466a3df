/* SPDX-License-Identifier: MIT */
/*
 * Jobs whose work is a control call: creating and amending an image. The call polls the main
 * context, so it does not run in the job's coroutine, but in a bottom half that the coroutine waits
 * for; such calls of several jobs go one after the other.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <platter/image.h>
#include <platter/jobs.h>

#include "job/job_int.h"
#include "loop/context.h"
#include "util/error.h"

#define BUSY_WAIT_NS (INT64_C(10) * 1000 * 1000)

struct control_job {
    Job job;
    int (*call)(struct control_job *cj, Error **errp);
    BlockDriverState *bs;  /* counted: amend it; or NULL */
    char *filename;        /* owned: create it; or NULL */
    char *node_name;       /* owned: create on it; or NULL */
    BlockOptions *options; /* owned until the call */
    bool force;
    bool ended;
    int ret;
    Error *err; /* owned */
};

static void report_progress(void *opaque, uint64_t done, uint64_t total)
{
    struct control_job *cj = opaque;

    job_progress_set_total(&cj->job, total);
    job_progress_update(&cj->job, done - cj->job.progress_current);
}

static int create_call(struct control_job *cj, Error **errp)
{
    BlockOptions *options = cj->options;
    BlockDriverState *file;
    int ret;

    cj->options = NULL;
    if (cj->filename) {
        return bdrv_create(cj->job.pl, cj->filename, options, errp);
    }
    file = bdrv_find_node(cj->job.pl, cj->node_name);
    if (!file) {
        block_options_free(options);
        return error_set(errp, ENOENT, "Cannot find device='%s' nor node-name='%s'", cj->node_name,
                         cj->node_name);
    }
    ret = job_block_node(&cj->job, file, errp);
    if (ret < 0) {
        block_options_free(options);
        return ret;
    }
    return bdrv_create_on(file, options, errp);
}

static int amend_call(struct control_job *cj, Error **errp)
{
    struct bdrv_progress progress = {.report = report_progress, .opaque = cj};
    BlockOptions *options = cj->options;

    cj->options = NULL;
    return bdrv_amend(cj->bs, options, cj->force, &progress, errp);
}

static void call_bh(void *opaque)
{
    struct control_job *cj = opaque;
    struct jobs *jobs = jobs_of(cj->job.pl);

    cj->ret = cj->call(cj, &cj->err);
    jobs->calling = false;
    cj->ended = true;
    aio_co_wake(cj->job.co);
}

static int control_run_co(Job *job, Error **errp)
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

static void control_clean(Job *job)
{
    struct control_job *cj = (struct control_job *)job;

    bdrv_unref(cj->bs);
    cj->bs = NULL;
}

static void control_free(Job *job)
{
    struct control_job *cj = (struct control_job *)job;

    control_clean(job); /* of one that never began */
    free(cj->filename);
    free(cj->node_name);
    block_options_free(cj->options);
    error_free(cj->err);
}

static const struct job_driver create_driver = {
    .type = "create",
    .instance_size = sizeof(struct control_job),
    .run_co = control_run_co,
    .clean = control_clean,
    .free = control_free,
};
static const struct job_driver amend_driver = {
    .type = "amend",
    .instance_size = sizeof(struct control_job),
    .run_co = control_run_co,
    .clean = control_clean,
    .free = control_free,
};

static Job *control_start(Platter *pl, const struct job_driver *driver,
                          const struct job_start *start, struct control_job *from, Error **errp)
{
    struct control_job *cj = job_create(pl, driver, start->id, start->txn, start->flags, errp);

    if (!cj) {
        free(from->filename);
        free(from->node_name);
        block_options_free(from->options);
        return NULL;
    }
    cj->call = from->call;
    cj->filename = from->filename;
    cj->node_name = from->node_name;
    cj->options = from->options;
    cj->force = from->force;
    cj->bs = from->bs;
    if (start->progress) {
        cj->job.progress = *start->progress;
    }
    if (cj->bs) {
        bdrv_ref(cj->bs);
        if (job_block_node(&cj->job, cj->bs, errp) < 0) {
            job_early_fail(&cj->job);
            return NULL;
        }
    }
    job_start(&cj->job);
    return &cj->job;
}

Job *job_create_start(Platter *pl, const struct job_start *start, const char *filename,
                      const char *file_node, BlockOptions *options, Error **errp)
{
    struct control_job from = {.call = create_call, .options = options};

    from.filename = file_node ? NULL : strdup(filename);
    from.node_name = file_node ? strdup(file_node) : NULL;
    if (!from.filename && !from.node_name) {
        block_options_free(options);
        error_set(errp, ENOMEM, "out of memory");
        return NULL;
    }
    return control_start(pl, &create_driver, start, &from, errp);
}

Job *job_amend_start(Platter *pl, const struct job_start *start, BlockDriverState *bs,
                     BlockOptions *options, bool force, Error **errp)
{
    struct control_job from = {.call = amend_call, .options = options, .bs = bs, .force = force};

    return control_start(pl, &amend_driver, start, &from, errp);
}
