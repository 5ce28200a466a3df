/* SPDX-License-Identifier: MIT */
/*
 * The machine's state: stored like the disk, at the offsets behind it, from the first L1 entry on
 * that does not describe the disk ("Snapshots").
 */
#include <errno.h>

#include "driver.h"
#include "l1.h"
#include "request.h"

#define L1_GROW_ENTRIES 64 /* at least, so that a state that comes in pieces grows it rarely */

/* Index of that entry. */
static uint64_t vmstate_index(struct qcow2 *s)
{
    uint64_t span = q2_table_span(&s->geo);
    uint64_t disk = q2_disk_bytes(s);

    return disk / span + (disk % span != 0);
}

uint64_t q2_vmstate_offset(struct qcow2 *s)
{
    return vmstate_index(s) * q2_table_span(&s->geo);
}

/* req as a request to the disk's mapping. -EFBIG: no image holds that. */
static int vmstate_req(struct qcow2 *s, const struct bdrv_req *req, struct bdrv_req *ret)
{
    uint64_t span = q2_table_span(&s->geo);
    uint64_t limit = min_u64(Q2_L1_BYTES_MAX / sizeof(uint64_t), INT64_MAX / span) * span;
    uint64_t start;

    *ret = *req;
    ret->flags = 0;
    if (!checked_add(q2_vmstate_offset(s), req->offset, &start) ||
        !range_inside(start, req->bytes, limit)) {
        return -EFBIG;
    }
    ret->offset = start;
    return 0;
}

/* Make the L1 table reach up to end, which is above 0. */
static int vmstate_reach_co(struct qcow2 *s, uint64_t end)
{
    uint64_t most = Q2_L1_BYTES_MAX / sizeof(uint64_t);
    uint64_t need = q2_l1_index(&s->geo, end - 1) + 1;
    int ret = 0;

    q2_exclusive_begin_co(s);
    if (q2_l1_get(s)->entries < need) {
        uint64_t want = min_u64(need + max_u64(need / 8, L1_GROW_ENTRIES), most);

        ret = q2_l1_grow_co(s, (uint32_t)want, NULL);
    }
    q2_exclusive_end(s);
    return ret;
}

int q2_driver_save_vmstate_co(BlockDriverState *bs, const struct bdrv_req *req)
{
    struct qcow2 *s = q2_of(bs);
    struct bdrv_req disk;
    q2_token token;
    int ret = vmstate_req(s, req, &disk);

    if (ret < 0 || req->bytes == 0) {
        return ret;
    }
    if (s->data == NULL) {
        return -EIO;
    }
    bdrv_debug_event(s->file, BLKDBG_VMSTATE_SAVE);
    token = q2_enter_co(s);
    while (q2_l1_index(&s->geo, disk.offset + disk.bytes - 1) >= q2_l1_get(s)->entries) {
        q2_leave(s, token);
        ret = vmstate_reach_co(s, disk.offset + disk.bytes);
        if (ret < 0) {
            return ret;
        }
        token = q2_enter_co(s);
    }
    return q2_leave_ret_co(s, token, q2_write_co(s, &disk));
}

int q2_driver_load_vmstate_co(BlockDriverState *bs, const struct bdrv_req *req)
{
    struct qcow2 *s = q2_of(bs);
    struct bdrv_req disk;
    q2_token token;
    int ret = vmstate_req(s, req, &disk);

    if (ret < 0 || req->bytes == 0) {
        return ret;
    }
    bdrv_debug_event(s->file, BLKDBG_VMSTATE_LOAD);
    token = q2_enter_co(s);
    return q2_leave_ret_co(s, token, s->data != NULL ? q2_read_co(s, &disk) : -EIO);
}
