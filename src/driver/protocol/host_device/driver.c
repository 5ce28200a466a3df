/* SPDX-License-Identifier: MIT */
/* host_device: a block or character device of this machine. The work is done in ../posix. */
#include <errno.h>

#include "driver/protocol/posix/posix.h"
#include "os/os.h"
#include "schema/opts.h"
#include "util/error.h"

static int device_probe(const char *filename)
{
    struct stat st;

    return os->stat(filename, &st) == 0 && (S_ISBLK(st.st_mode) || S_ISCHR(st.st_mode)) ? 100 : 0;
}

static int device_open(BlockDriverState *bs, BlockOptions *options, int flags, Error **errp)
{
    return posix_open(bs, options, flags, POSIX_DEVICE, errp);
}

/* The device is there already. */
static int device_create(Platter *pl, const char *filename, BlockOptions *options, Error **errp)
{
    struct opts_create_host_device opts;
    int rc = opts_create_host_device_parse(options, &opts, errp);

    if (rc == 0) {
        const struct bdrv_create_place place = {
            .size_bytes = opts.size,
            .preallocation = opts_prealloc_str(opts.preallocation),
            .protocol = "host_device",
            .cannot_grow = "Cannot grow device files",
        };

        rc = bdrv_create_in_place(pl, filename, &place, errp);
        opts_create_host_device_fini(&opts);
    }
    return rc;
}

const BlockDriver bdrv_host_device = {
    .format_name = "host_device",
    .option_keys = opts_node_file_keys,
    .protocol_name = "host_device",
    .instance_size = sizeof(struct posix_state),
    .caps = BDRV_CAP_PROTOCOL | BDRV_CAP_FUA | BDRV_CAP_ZERO_UNMAP | BDRV_CAP_ZERO_NO_FALLBACK,
    .probe_device = device_probe,
    .open = device_open,
    .close = posix_close,
    .reopen_prepare = posix_reopen_prepare,
    .reopen_commit = posix_reopen_commit,
    .reopen_abort = posix_reopen_abort,
    .perm_check = posix_perm_check,
    .perm_set = posix_perm_set,
    .perm_abort = posix_perm_abort,
    .refresh_limits = posix_refresh_limits,
    .read_co = posix_read_co,
    .write_co = posix_write_co,
    .write_zeroes_co = posix_write_zeroes_co,
    .discard_co = posix_discard_co,
    .flush_co = posix_flush_co,
    .block_status_co = posix_block_status_co,
    .copy_range_co = posix_copy_range_co,
    .truncate_co = posix_truncate_co,
    .getlength = posix_getlength,
    .get_file_id = posix_get_file_id,
    .get_allocated_file_size = posix_get_allocated_file_size,
    .get_discard_stats = posix_get_discard_stats,
    .get_info = posix_get_info,
    .probe_blocksizes = posix_probe_blocksizes,
    .create = device_create,
    .create_keys = opts_create_host_device_keys,
};
