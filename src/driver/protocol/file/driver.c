/* SPDX-License-Identifier: MIT */
/* file: a regular file of this machine. The work is done in ../posix. */
#include "driver/protocol/posix/posix.h"
#include "schema/opts.h"

static int file_open(BlockDriverState *bs, BlockOptions *options, int flags, Error **errp)
{
    return posix_open(bs, options, flags, POSIX_FILE, errp);
}

const BlockDriver bdrv_file = {
    .format_name = "file",
    .option_keys = opts_node_file_keys,
    .protocol_name = "file",
    .instance_size = sizeof(struct posix_state),
    .caps = BDRV_CAP_PROTOCOL | BDRV_CAP_FUA | BDRV_CAP_ZERO_UNMAP | BDRV_CAP_ZERO_NO_FALLBACK |
            BDRV_CAP_GROWS_ON_WRITE | BDRV_CAP_TRUNCATE_ZEROES | BDRV_CAP_ZERO_TAIL,
    .open = file_open,
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
    .create = posix_create_file,
    .create_is_new = posix_create_is_new,
    .create_undo = posix_create_undo,
    .create_keys = opts_create_file_keys,
};
