/* SPDX-License-Identifier: MIT */
/* The job of a convert, run to its end with progress. */
#include <errno.h>

#include "tools/img/convert_int.h"
#include "util/error.h"

static bool is_over(const Job *job, struct progress *progress)
{
    struct job_info info;

    job_get_info(job, &info);
    if (progress && info.progress_total > 0) {
        progress_set(progress, info.progress_current, info.progress_total);
    }
    return info.status == JOB_STATUS_CONCLUDED;
}

int convert_job_run(struct cli *cli, Platter *pl, const struct convert_options *options,
                    struct progress *progress)
{
    Error *err = NULL;
    Job *job = convert_start(pl, "convert", options, JOB_MANUAL_DISMISS, &err);
    int ret;

    if (!job) {
        return cli_report(cli, err);
    }
    while (!is_over(job, progress)) {
        aio_poll(platter_get_main_context(pl), true);
    }
    ret = job_wait(job, &err);
    if (ret == -ESPIPE) {
        error_set_hint(&err, "A pipe gives each byte once: an image that comes through one has its "
                             "tables in front, or its data in the order of the disk");
    }
    job_dismiss(job, NULL);
    return ret < 0 ? cli_report(cli, err) : CLI_EXIT_OK;
}
