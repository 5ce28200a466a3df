/* SPDX-License-Identifier: MIT */
/*
 * Named points of a request, told to the node right below who reaches them, where that is a fault
 * filter. A node without one below it pays a branch for each point (BlockDriverState.debugged).
 */
#include "block/node.h"
#include "util/mem.h"

void bdrv_debug_event(const BdrvEdge *edge, enum bdrv_debug_event event)
{
    if (UNLIKELY(edge->bs->debugged)) {
        edge->bs->drv->debug->event(edge->bs, event);
    }
}

void bdrv_debug_node_event(BlockDriverState *bs, enum bdrv_debug_event event)
{
    if (UNLIKELY(bs->debugged)) {
        bs->drv->debug->event(bs, event);
    }
}
