/* SPDX-License-Identifier: MIT */
/* What stands above the disk that is served: a scratch layer that takes the writes, and the part of
 * the disk that clients see. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "os/os.h"
#include "tools/nbd/nbd.h"
#include "util/error.h"

/* A file of our own, which nobody else can have put there. Its name (owned), or NULL with errp. */
static char *scratch_file(Error **errp)
{
    const char *folder = getenv("TMPDIR");
    char *name = NULL;
    int fd;

    if (asprintf(&name, "%s/platter-nbd.XXXXXX", folder && *folder ? folder : "/var/tmp") < 0) {
        error_set(errp, ENOMEM, "out of memory");
        return NULL;
    }
    fd = mkstemp(name);
    if (fd < 0) {
        error_set_errno(errp, errno, "Could not create the scratch file '%s'", name);
        free(name);
        return NULL;
    }
    os->close(fd);
    return name;
}

static BlockOptions *options_new(const char *driver, const char *key, const char *value,
                                 Error **errp)
{
    BlockOptions *options = block_options_new();

    if (!options || block_options_set_str(options, "driver", driver) < 0 ||
        (key && block_options_set_str(options, key, value) < 0)) {
        block_options_free(options);
        error_set(errp, ENOMEM, "out of memory");
        return NULL;
    }
    return options;
}

static int scratch_create(Platter *pl, const char *name, int64_t size, Error **errp)
{
    BlockOptions *options = options_new("qcow2", NULL, NULL, errp);

    if (!options) {
        return -ENOMEM;
    }
    if (block_options_set_u64(options, "size", (uint64_t)size) < 0) {
        block_options_free(options);
        return error_set(errp, ENOMEM, "out of memory");
    }
    return bdrv_create(pl, name, options, errp);
}

static BlockDriverState *scratch_open(Platter *pl, const char *name, const char *below,
                                      Error **errp)
{
    BlockOptions *options = options_new("qcow2", "backing", below, errp);

    return options ? bdrv_open(pl, name, NULL, options, BDRV_O_RDWR | BDRV_O_NO_FLUSH, errp) : NULL;
}

/* Writes go to a file without a name, which ends with this process. */
static BlockDriverState *scratch_over(Platter *pl, BlockDriverState *bs, Error **errp)
{
    int64_t size = bdrv_getlength(bs);
    char *name = size < 0 ? NULL : scratch_file(errp);
    BlockDriverState *over = NULL;

    if (size < 0) {
        error_set_errno(errp, (int)-size, "Could not get image size");
    }
    if (name) {
        if (scratch_create(pl, name, size, errp) == 0) {
            over = scratch_open(pl, name, bdrv_get_node_name(bs), errp);
        }
        os->unlink(name);
        free(name);
    }
    bdrv_unref(bs);
    return over;
}

static BlockDriverState *part_of(Platter *pl, BlockDriverState *bs, const struct nbd_args *args,
                                 Error **errp)
{
    int64_t size = bdrv_getlength(bs);
    BlockDriverState *part = NULL;
    BlockOptions *options;

    if (size >= 0 && args->offset > (uint64_t)size) {
        error_set(errp, EINVAL,
                  "Offset (%llu) cannot be greater than size of the containing file (%lld)",
                  (unsigned long long)args->offset, (long long)size);
        bdrv_unref(bs);
        return NULL;
    }
    options = options_new("raw", "file", bdrv_get_node_name(bs), errp);
    if (options && block_options_set_u64(options, "offset", args->offset) == 0) {
        part = bdrv_open(pl, NULL, NULL, options, args->read_only ? 0 : BDRV_O_RDWR, errp);
    } else if (options) {
        block_options_free(options);
        error_set(errp, ENOMEM, "out of memory");
    }
    bdrv_unref(bs);
    return part;
}

BlockDriverState *nbd_overlay(Platter *pl, BlockDriverState *bs, void *opaque, Error **errp)
{
    const struct nbd_args *args = opaque;

    if (args->scratch) {
        bs = scratch_over(pl, bs, errp);
    }
    return bs && args->offset > 0 ? part_of(pl, bs, args, errp) : bs;
}
