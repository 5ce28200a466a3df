/* SPDX-License-Identifier: MIT */
/* What a command puts above the disk that it opens: a file for what is written, a filter that
 * copies on read. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <platter/graph.h>

#include "os/os.h"
#include "tools/disk.h"
#include "util/error.h"
#include "util/mem.h"

/* A new empty file for temporary data. Its name (owned by the caller), or NULL with errp. */
static char *temporary_file(Error **errp)
{
    const char *folder = getenv("TMPDIR");
    char *name = NULL;
    int fd;

    if (asprintf(&name, "%s/platter-XXXXXX", folder && *folder ? folder : "/var/tmp") < 0) {
        error_set(errp, ENOMEM, "out of memory");
        return NULL;
    }
    fd = mkstemp(name);
    if (fd < 0) {
        error_set_errno(errp, errno, "Could not create temporary file '%s'", name);
        free(name);
        return NULL;
    }
    (void)close(fd);
    return name;
}

static BlockOptions *overlay_options(Error **errp)
{
    BlockOptions *options = block_options_new();

    if (!options || block_options_set_str(options, "driver", "qcow2") < 0) {
        block_options_free(options);
        options = NULL;
        error_set(errp, ENOMEM, "out of memory");
    }
    return options;
}

/* An empty image of that size, open in the file. NULL with errp. */
static BlockDriverState *overlay_open(Platter *pl, const char *name, int64_t bytes, int flags,
                                      Error **errp)
{
    BlockOptions *create = overlay_options(errp);
    BlockOptions *open;
    char size[32];

    if (!create) {
        return NULL;
    }
    snprintf(size, sizeof(size), "%lld", (long long)bytes);
    if (block_options_set_str(create, "size", size) < 0) {
        block_options_free(create);
        error_set(errp, ENOMEM, "out of memory");
        return NULL;
    }
    if (bdrv_create(pl, name, create, errp) < 0) {
        return NULL;
    }
    open = overlay_options(errp);
    return open ? bdrv_open(pl, name, NULL, open, flags, errp) : NULL;
}

BlockDriverState *disk_add_overlay(Platter *pl, BlockDriverState *bs, bool writable, Error **errp)
{
    /* what a crash leaves of it is of no use to anybody */
    int flags = BDRV_O_NO_FLUSH | BDRV_O_UNMAP | (writable ? BDRV_O_RDWR : 0);
    int64_t bytes = bdrv_getlength(bs);
    AUTO_FREE char *name = bytes >= 0 ? temporary_file(errp) : NULL;
    BlockDriverState *overlay = NULL;

    if (bytes < 0) {
        error_set_errno(errp, (int)-bytes, "Could not get image size");
    }
    if (name) {
        overlay = overlay_open(pl, name, bytes, flags, errp);
        (void)os->unlink(name);
    }
    if (overlay && bdrv_append(overlay, bs, errp) < 0) {
        bdrv_unref(overlay);
        overlay = NULL;
    }
    bdrv_unref(bs);
    return overlay;
}

static BlockDriverState *add_copy_on_read(BlockDriverState *bs, const struct disk_args *args,
                                          Error **errp)
{
    BlockOptions *options = NULL;
    BlockDriverState *filter = NULL;

    if (!args->writable) {
        error_set(errp, EINVAL, "Can't use copy-on-read on read-only device");
    } else {
        options = block_options_new();
        if (!options || block_options_set_str(options, "driver", "copy-on-read") < 0) {
            block_options_free(options);
            error_set(errp, ENOMEM, "out of memory");
        } else {
            filter = bdrv_insert_filter(bs, options, NULL, 0, errp);
        }
    }
    bdrv_unref(bs);
    return filter;
}

BlockDriverState *disk_add_layers(Platter *pl, BlockDriverState *bs, const struct disk_args *args,
                                  Error **errp)
{
    if (args->temporary) {
        bs = disk_add_overlay(pl, bs, args->writable, errp);
    }
    if (bs && args->copy_on_read) {
        bs = add_copy_on_read(bs, args, errp);
    }
    return bs;
}

BlockDriverState *disk_node(BlockBackend *blk)
{
    BlockDriverState *bs = blk_bs(blk);

    return bs && strcmp(bdrv_get_format_name(bs), "copy-on-read") == 0 ? bdrv_get_child(bs, "file")
                                                                       : bs;
}
