/* SPDX-License-Identifier: MIT */
/* The machine's state, stored in an image beside its disk: the driver that can has it. */
#include <errno.h>

#include "block/request.h"

int bdrv_edge_vmstate_co(BdrvEdge *edge, const struct bdrv_req *req)
{
    bool save = req->op == BDRV_OP_WRITE;
    BlockDriverState *bs = edge->bs;
    int ret = bdrv_node_ready(bs);

    while (ret == 0 && (save ? bs->drv->save_vmstate_co : bs->drv->load_vmstate_co) == NULL) {
        if (!bdrv_forwards(bs)) {
            return -ENOTSUP;
        }
        bs = bs->file->bs;
        ret = bdrv_node_ready(bs);
    }
    if (ret < 0) {
        return ret;
    }
    if (!save) {
        return bs->drv->load_vmstate_co(bs, req);
    }
    ret = bdrv_edge_may_change(edge, bs, BDRV_REQ_WRITE_UNCHANGED); /* the disk stays as it is */
    if (ret == 0) {
        ret = bs->drv->save_vmstate_co(bs, req);
        atomic_fetch_add_explicit(&bs->write_gen, 1, memory_order_release);
    }
    return ret;
}
