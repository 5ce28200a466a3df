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
        const struct bdrv_create_place place = {
            .size_bytes = opts.size,
            .preallocation = opts_prealloc_str(opts.preallocation),
            .protocol = "nbd",
            .cannot_grow = "Cannot grow NBD nodes",
        };

        rc = bdrv_create_in_place(pl, filename, &place, errp);
        opts_create_nbd_fini(&opts);
    }
    return rc;
}
