/* SPDX-License-Identifier: MIT */
/* The job of a convert, run to its end. */
#include <errno.h>

#include "tools/img/convert_int.h"
#include "util/error.h"

int convert_job_run(struct job_run *run, Platter *pl, struct convert_options *options)
{
    Error *err = NULL;
    Job *job;
    int ret;

    options->progress = &run->progress.calls;
    job = convert_start(pl, "convert", options, JOB_MANUAL_DISMISS, &err);
    ret = job_run_to_end(run, job, &err);
    if (ret == -ESPIPE) {
        bool plans = options->sink && options->sink->plan;

        error_set_hint(&err,
                       plans ? "A pipe gives each byte once: to go on into a stream that tells in "
                               "front what is data, an image has its tables in front; -S 0 writes "
                               "all as data, and needs only the order of the disk"
                             : "A pipe gives each byte once: an image that comes through one has "
                               "its tables in front, or its data in the order of the disk");
    }
    return ret < 0 ? cli_report(run->cli, err) : CLI_EXIT_OK;
}
