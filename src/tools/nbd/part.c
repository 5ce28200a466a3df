/* SPDX-License-Identifier: MIT */
/* The part of the disk that clients see, from --offset on. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "tools/disk.h"
#include "tools/nbd/nbd.h"
#include "util/error.h"
#include "util/size.h"

int nbd_part_check(BlockDriverState *bs, void *opaque, Error **errp)
{
    const struct nbd_args *args = opaque;
    int64_t size = bdrv_getlength(bs);

    if (args->offset > INT64_MAX) { /* below 0: told as a bad option of the node that cuts */
        char text[24];
        uint64_t none;

        snprintf(text, sizeof(text), "%lld", (long long)args->offset);
        return size_of_parameter(text, "offset", &none, errp);
    }
    return size >= 0 && args->offset > (uint64_t)size
               ? error_set(
                     errp, EINVAL,
                     "Offset (%llu) cannot be greater than size of the containing file (%lld)",
                     (unsigned long long)args->offset, (long long)size)
               : 0;
}

/* A snapshot has a size of its own, whatever that of the disk is. */
static BlockDriverState *part_of(Platter *pl, BlockDriverState *bs, struct nbd_args *args,
                                 Error **errp)
{
    BlockDriverState *part = NULL;
    BlockOptions *options;

    if (nbd_part_check(bs, args, errp) < 0) {
        bdrv_unref(bs);
        return NULL;
    }
    options = block_options_new();
    if (!options || block_options_set_str(options, "driver", "raw") < 0 ||
        block_options_set_str(options, "file", bdrv_get_node_name(bs)) < 0 ||
        block_options_set_u64(options, "offset", args->offset) < 0) {
        block_options_free(options);
        error_set(errp, ENOMEM, "out of memory");
    } else {
        part = bdrv_open(pl, NULL, NULL, options, args->read_only ? 0 : BDRV_O_RDWR, errp);
    }
    bdrv_unref(bs);
    return part;
}

BlockDriverState *nbd_part(Platter *pl, BlockDriverState *bs, void *opaque, Error **errp)
{
    struct nbd_args *args = opaque;

    return args->offset > 0 ? part_of(pl, bs, args, errp) : bs;
}
