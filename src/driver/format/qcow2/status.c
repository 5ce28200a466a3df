/* SPDX-License-Identifier: MIT */
/*
 * What stands where: extents of the mapping, joined over slices. Holes in the L1 table are one step
 * (map.c); what must be read from the file to be joined is bounded.
 */
#include "driver.h"
#include "request.h"

#define STATUS_STEPS_MAX 64 /* extents of the mapping joined: each may cost the read of a slice */

static struct bdrv_status status_of(const struct qcow2 *s, const struct q2_extent *extent)
{
    struct bdrv_status st = {.bytes = extent->bytes};

    switch (extent->kind) {
    case Q2_UNALLOCATED: /* room among subclusters is told, as the reference does */
        break;
    case Q2_ZEROES:
        st.flags = BDRV_BLOCK_ZERO;
        break;
    case Q2_DATA:
        st.flags = BDRV_BLOCK_DATA | BDRV_BLOCK_RECURSE;
        break;
    case Q2_COMPRESSED_DATA:
        st.flags = BDRV_BLOCK_DATA | BDRV_BLOCK_COMPRESSED;
        return st;
    }
    if (extent->host != UINT64_MAX && s->data != NULL) {
        st.flags |= BDRV_BLOCK_OFFSET_VALID;
        st.map = extent->host;
        st.file = bdrv_edge_node(s->data);
    }
    return st;
}

static bool joins(const struct bdrv_status *a, const struct bdrv_status *b)
{
    return a->flags == b->flags &&
           (!(a->flags & BDRV_BLOCK_OFFSET_VALID) || a->map + a->bytes == b->map);
}

static int status_co(struct qcow2 *s, uint64_t offset, uint64_t bytes, struct bdrv_status *st)
{
    const uint64_t span = q2_slice_left(s, 0);
    struct q2_extent extent;
    int ret = q2_map_co(s, offset, bytes, &extent);

    if (ret < 0) {
        return ret;
    }
    *st = status_of(s, &extent);
    for (int i = 0; i < STATUS_STEPS_MAX; i++) {
        struct bdrv_status next;

        if (st->bytes == bytes ||
            (extent.kind != Q2_COMPRESSED_DATA && q2_slice_left(s, offset + st->bytes) != span)) {
            break; /* within a slice all but compressed clusters is joined */
        }
        if (q2_map_co(s, offset + st->bytes, bytes - st->bytes, &extent) < 0) {
            break; /* whoever asks for it hears of it */
        }
        next = status_of(s, &extent);
        if (!joins(st, &next)) {
            break;
        }
        st->bytes += next.bytes;
    }
    return 0;
}

int q2_driver_block_status_co(BlockDriverState *bs, bool want_zero, uint64_t offset, uint64_t bytes,
                              struct bdrv_status *ret_status)
{
    struct qcow2 *s = q2_of(bs);
    q2_token token = q2_enter_co(s);

    return q2_leave_ret_co(s, token, status_co(s, offset, bytes, ret_status));
}
