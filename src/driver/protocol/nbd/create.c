/* SPDX-License-Identifier: MIT */
/* Creating an image in an export: the export is there already, and must be large enough. Its first
 * sector is zeroed, so that nothing of what was there before is taken for the new image. */
#include <errno.h>
#include <inttypes.h>

#include "nbd.h"
#include "schema/opts.h"
#include "util/error.h"

#define PROBED_BYTES 512

struct clear_start {
    BdrvEdge *edge;
    uint64_t bytes;
};

static int clear_start_co(void *opaque)
{
    struct clear_start *job = opaque;

    return job->bytes > 0 ? bdrv_edge_write_zeroes_co(job->edge, 0, job->bytes, 0) : 0;
}

int nbdc_create(Platter *pl, const char *filename, BlockOptions *options, Error **errp)
{
    struct opts_create_nbd opts;
    struct clear_start job;
    int64_t size;
    int rc = opts_create_nbd_parse(options, &opts, errp);

    if (rc < 0) {
        return rc;
    }
    job.edge = bdrv_create_open(pl, filename, NULL, errp);
    if (job.edge == NULL) {
        error_prepend(errp, "Protocol driver 'nbd' does not support image creation, and opening "
                            "the image failed: ");
        return -EIO;
    }
    size = bdrv_edge_getlength(job.edge);
    if (size < 0) {
        rc = error_set_errno(errp, (int)-size, "The size of '%s' is not known", filename);
    } else if (opts.size > (uint64_t)size) {
        rc = error_set(errp, EINVAL, "Cannot grow NBD nodes");
        error_set_hint(errp, "The export is %" PRId64 " bytes long, not %" PRIu64, size, opts.size);
    } else {
        job.bytes = size < PROBED_BYTES ? (uint64_t)size : PROBED_BYTES;
        rc = bdrv_run_co(clear_start_co, &job);
        if (rc < 0) {
            error_set_errno(errp, -rc, "Cannot clear the start of '%s'", filename);
        }
    }
    bdrv_create_close(job.edge);
    return rc;
}
