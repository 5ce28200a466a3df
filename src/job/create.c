/* SPDX-License-Identifier: MIT */
/* The job "create": a new image, of a file name or on an open node. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <platter/image.h>

#include "job/control_job.h"
#include "util/error.h"

struct create_job {
    struct control_job control;
    char *filename;  /* owned: create it; or NULL */
    char *node_name; /* owned: create on it; or NULL */
};

static int create_call(struct control_job *cj, Error **errp)
{
    struct create_job *c = (struct create_job *)cj;
    BlockOptions *options = control_job_take_options(cj);
    BlockDriverState *file;
    int ret;

    if (c->filename) {
        return bdrv_create(cj->job.pl, c->filename, options, errp);
    }
    file = bdrv_find_node(cj->job.pl, c->node_name);
    if (!file) {
        block_options_free(options);
        return error_set(errp, ENOENT, "Cannot find device='%s' nor node-name='%s'", c->node_name,
                         c->node_name);
    }
    ret = job_block_node(&cj->job, file, errp);
    if (ret < 0) {
        block_options_free(options);
        return ret;
    }
    return bdrv_create_on(file, options, errp);
}

static void create_free(Job *job)
{
    struct create_job *c = (struct create_job *)job;

    free(c->filename);
    free(c->node_name);
    control_job_fini(&c->control);
}

static const struct job_driver create_driver = {
    .type = "create",
    .instance_size = sizeof(struct create_job),
    .run_co = control_job_run_co,
    .free = create_free,
};

Job *job_create_start(Platter *pl, const struct job_start *start, const char *filename,
                      const char *file_node, BlockOptions *options, Error **errp)
{
    struct control_job *cj = control_job_new(pl, &create_driver, start, options, errp);
    struct create_job *c = (struct create_job *)cj;

    if (!cj) {
        return NULL;
    }
    cj->call = create_call;
    if (file_node) {
        c->node_name = strdup(file_node);
    } else {
        c->filename = strdup(filename);
    }
    if (!c->filename && !c->node_name) {
        job_early_fail(&cj->job);
        error_set(errp, ENOMEM, "out of memory");
        return NULL;
    }
    job_start(&cj->job);
    return &cj->job;
}
