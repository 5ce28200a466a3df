/* SPDX-License-Identifier: MIT */
/* What messages call a node. By itself, since every part of the floor has messages. */
#include "block/graph_int.h"
#include "block/instance.h"

const char *bdrv_get_told_name(const BlockDriverState *bs)
{
    const BlockDriverState *storage = bs;

    if (!bs->pl->tells_files || !bs->implicit_name) {
        return bs->node_name;
    }
    while (storage->filename == NULL && storage->file != NULL) {
        storage = storage->file->bs;
    }
    return storage->filename != NULL ? storage->filename
           : bs->drv != NULL         ? bs->drv->format_name
                                     : bs->node_name;
}
