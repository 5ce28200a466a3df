/* SPDX-License-Identifier: MIT */
/*
 * The kinds of jobs, and how each is started (platter/job.h steers them). All calls are [control].
 * A job that could not be started is NULL with errp: EINVAL (the id is not well formed), EEXIST (it
 * is taken), ENOMEM, and what the kind says. It is the registry's; job_ref to keep it.
 */
#ifndef PLATTER_JOBS_H
#define PLATTER_JOBS_H

#include <platter/block.h>
#include <platter/job.h>

#ifdef __cplusplus
extern "C" {
#endif

struct job_start {
    const char *id;
    JobTxn *txn;    /* NULL: by itself */
    unsigned flags; /* enum job_flags */
};

/* Create an image: of a file name, or (file_node not NULL, formats only) on an open node, which is
 * looked up when the work begins. options (owned, also on failure): driver and its create options.
 * The job cannot be paused once it works. */
Job *job_create_start(Platter *pl, const struct job_start *start, const char *filename,
                      const char *file_node, BlockOptions *options, Error **errp);
/* Change options of an image, as bdrv_amend does. options: owned, also on failure. */
Job *job_amend_start(Platter *pl, const struct job_start *start, BlockDriverState *bs,
                     BlockOptions *options, bool force, Error **errp);

#ifdef __cplusplus
}
#endif
#endif
