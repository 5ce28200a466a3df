/* SPDX-License-Identifier: MIT */
/*
 * qcow2: the driver's table, and what is too short for a file of its own. open.c opens and closes;
 * read.c, write.c, zero.c, status.c and vmstate.c have the data calls.
 */
#include <errno.h>
#include <string.h>

#include "schema/opts.h"

#include "amend.h"
#include "bitmap.h"
#include "compact.h"
#include "driver.h"
#include "qcow2.h"
#include "snapshot.h"

#define PROBE_SURE 100

static int probe(const uint8_t *buf, size_t len, const char *filename)
{
    if (len < 8 || load_be32(buf) != Q2_MAGIC) {
        return 0;
    }
    return load_be32(buf + 4) >= 2 ? PROBE_SURE : 0; /* 1 is the older format's */
}

static void child_perm(BlockDriverState *bs, const char *child_name, unsigned role, uint64_t perm,
                       uint64_t shared, uint64_t *ret_perm, uint64_t *ret_shared)
{
    const uint64_t change = BDRV_PERM_WRITE | BDRV_PERM_RESIZE;
    bool writable = !bdrv_is_read_only(bs);

    if (role & BDRV_ROLE_COW) {
        *ret_perm = perm & BDRV_PERM_CONSISTENT_READ;
        *ret_shared = BDRV_PERM_CONSISTENT_READ | BDRV_PERM_WRITE_UNCHANGED;
        return;
    }
    *ret_perm = perm;
    *ret_shared = shared & ~change; /* what others do there is not in our tables */
    if (role & BDRV_ROLE_METADATA) {
        *ret_perm |= BDRV_PERM_CONSISTENT_READ | (writable ? change : 0);
    } else if (perm & (change | BDRV_PERM_WRITE_UNCHANGED)) {
        *ret_perm |= change; /* a data file grows with what is written */
    }
}

static void refresh_limits(BlockDriverState *bs, struct bdrv_limits *limits)
{
    const struct qcow2 *s = bdrv_opaque(bs);

    limits->request_alignment = 1;
    limits->pwrite_zeroes_alignment = s->geo.subcluster_bytes;
    limits->pdiscard_alignment = s->geo.cluster_bytes;
}

static int flush_co(BlockDriverState *bs)
{
    struct qcow2 *s = q2_of(bs);
    q2_token token = q2_enter_co(s);
    int ret = q2_commit_co(s, true);

    q2_leave(s, token);
    if (q2_free_due(s)) {
        q2_free_run_co(s);
    }
    return ret;
}

static int64_t getlength(BlockDriverState *bs)
{
    return (int64_t)q2_disk_bytes(q2_of(bs));
}

static int64_t get_allocated_file_size(BlockDriverState *bs)
{
    const struct qcow2 *s = bdrv_opaque(bs);
    int64_t file = bdrv_get_allocated_file_size(bdrv_edge_node(s->file));
    int64_t data = 0;

    if (s->data != NULL && s->data != s->file) {
        data = bdrv_get_allocated_file_size(bdrv_edge_node(s->data));
    }
    return file < 0 ? file : data < 0 ? data : file + data;
}

static int get_info(BlockDriverState *bs, struct bdrv_info *ret_info)
{
    struct qcow2 *s = q2_of(bs);

    *ret_info = (struct bdrv_info){
        .cluster_size_bytes = s->geo.cluster_bytes,
        .is_dirty = (q2_header_incompatible(s) & Q2_INCOMPAT_DIRTY) != 0,
        .vm_state_offset_bytes = q2_vmstate_offset(s),
    };
    return 0;
}

static const struct bdrv_image_ops image_ops = {
    .check_co = q2_driver_check_co,
    .amend_co = q2_amend_co,
    .change_backing_file_co = q2_change_backing_file_co,
    .make_empty_co = q2_make_empty_co,
    .compact_co = q2_compact_co,
    .give_co = q2_give_co,
    .measure = q2_driver_measure,
    .stream_head = q2_driver_stream_head,
    .specific_info = q2_driver_specific_info,
    .inspect = q2_driver_inspect,
    .amend_keys = opts_amend_qcow2_keys,
};

static const char *const strong_options[] = {"data-file", NULL};

const BlockDriver bdrv_qcow2 = {
    .format_name = "qcow2",
    .instance_size = sizeof(struct qcow2),
    .caps = BDRV_CAP_FORMAT | BDRV_CAP_ZERO_UNMAP | BDRV_CAP_ZERO_NO_FALLBACK |
            BDRV_CAP_ZERO_PARTS | BDRV_CAP_TRUNCATE_ZEROES | BDRV_CAP_COMPRESSED | BDRV_CAP_SECTORS,
    .probe = probe,
    .open = q2_driver_open,
    .close = q2_driver_close,
    .reopen_prepare = q2_driver_reopen_prepare,
    .reopen_options = q2_driver_reopen_options,
    .reopen_commit = q2_driver_reopen_commit,
    .reopen_abort = q2_driver_reopen_abort,
    .child_perm = child_perm,
    .refresh_limits = refresh_limits,
    .read_co = q2_driver_read_co,
    .write_co = q2_driver_write_co,
    .write_zeroes_co = q2_driver_write_zeroes_co,
    .discard_co = q2_driver_discard_co,
    .flush_co = flush_co,
    .block_status_co = q2_driver_block_status_co,
    .truncate_co = q2_driver_truncate_co,
    .getlength = getlength,
    .get_allocated_file_size = get_allocated_file_size,
    .get_info = get_info,
    .create = q2_driver_create,
    .create_keys = opts_create_qcow2_keys,
    .save_vmstate_co = q2_driver_save_vmstate_co,
    .load_vmstate_co = q2_driver_load_vmstate_co,
    .image = &image_ops,
    .snapshot = &q2_snapshot_ops,
    .bitmap = &q2_bitmap_ops,
    .strong_options = strong_options,
    .option_keys = opts_node_qcow2_keys,
};
