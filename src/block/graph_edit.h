/* SPDX-License-Identifier: MIT */
/*
 * The changes of platter/graph.h that can be taken back, for graph_edit.c's calls and for
 * transactions. Control thread.
 */
#ifndef PLATTER_BLOCK_GRAPH_EDIT_H
#define PLATTER_BLOCK_GRAPH_EDIT_H

#include <platter/graph.h>

#include "block/node.h"

/* A change that is done. All that the way back needs is there before it is done. */
struct graph_edit {
    struct graph_tx *inverse; /* owned */
    BlockDriverState *to;     /* borrowed: has users now that knew another size; or NULL */
};

/* Do it: 0, or -errno with errp, nothing changed and nothing to end. The nodes named are drained by
 * the caller, and stay so until the edit has ended: then the graph is as the edit left it, but for
 * later edits that have been taken back before. */
int graph_edit_insert(struct graph_edit *edit, BlockDriverState *filter, BlockDriverState *bs,
                      const struct bdrv_link *links, size_t n_links, Error **errp);
int graph_edit_remove(struct graph_edit *edit, BlockDriverState *filter, Error **errp);
int graph_edit_replace(struct graph_edit *edit, BlockDriverState *from, BlockDriverState *to,
                       Error **errp);
int graph_edit_append(struct graph_edit *edit, BlockDriverState *overlay, BlockDriverState *bs,
                      Error **errp);
int graph_edit_unappend(struct graph_edit *edit, BlockDriverState *overlay, Error **errp);
/* End it: for good (graph_tell_sizes is then due, after the drains), or back. The way back fails
 * (-errno with errp) only when a driver does not get back what it had of its storage, a lock that
 * another process took meanwhile. */
void graph_edit_keep(struct graph_edit *edit);
int graph_edit_undo(struct graph_edit *edit, Error **errp);

#endif
