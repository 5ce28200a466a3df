/* SPDX-License-Identifier: MIT */
/* Creating an image in an export, which is there already. */
#include "nbd.h"
#include "schema/opts.h"
#include "util/error.h"

int nbdc_create(Platter *pl, const char *filename, BlockOptions *options, Error **errp)
{
    struct opts_create_nbd opts;
    int rc = opts_create_nbd_parse(options, &opts, errp);

    if (rc == 0) {
        rc = bdrv_create_in_place(pl, filename, opts.size, "nbd", "Cannot grow NBD nodes", errp);
        opts_create_nbd_fini(&opts);
    }
    return rc;
}
