/* SPDX-License-Identifier: MIT */
/*
 * Write thresholds: the first write that goes beyond one is told, so that somebody gives a thin
 * disk more room in time. A node with a threshold takes the branch of nodes with dirty bitmaps, so
 * that the others pay nothing for it; like them it is not folded away.
 */
#include <assert.h>
#include <errno.h>

#include "block/dirty_bitmap.h"
#include "block/graph_int.h"
#include "util/error.h"

int bdrv_set_write_threshold(BlockDriverState *bs, uint64_t bytes, Error **errp)
{
    struct bdrv_bitmaps *watch;

    instance_control(bs->pl);
    bdrv_drained_begin(bs);
    watch = bytes != 0 ? bdrv_bitmaps_of(bs) : bs->bitmaps;
    if (watch != NULL) {
        atomic_store(&watch->write_threshold, bytes);
        bdrv_bitmaps_tidy(bs);
        graph_fold(bs);
    }
    bdrv_drained_end(bs);
    return watch == NULL && bytes != 0
               ? error_set(errp, ENOMEM, "out of memory for a threshold of node '%s'",
                           bdrv_get_told_name(bs))
               : 0;
}

uint64_t bdrv_get_write_threshold(const BlockDriverState *bs)
{
    assert(instance_in_control_thread(bs->pl));
    return bs->bitmaps != NULL ? atomic_load(&bs->bitmaps->write_threshold) : 0;
}

void bdrv_threshold_passed(BlockDriverState *bs, uint64_t end, uint64_t threshold)
{
    late_fold(bs);
    instance_raise(bs->pl, &(struct platter_event){
                               .type = PLATTER_EVENT_BLOCK_WRITE_THRESHOLD,
                               .u.write_threshold = {.node_name = bs->node_name,
                                                     .amount_exceeded_bytes = end - threshold,
                                                     .write_threshold_bytes = threshold},
                           });
}
