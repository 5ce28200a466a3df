/* SPDX-License-Identifier: MIT */
/*
 * Changes of the graph, all or nothing. A change is a list of actions; graph_tx_run drains the
 * nodes concerned over all contexts, does the actions in order, checks the result as a whole (no
 * cycles, permissions, drivers' consent) and commits it, or takes everything back in reverse.
 *
 * Control thread, outside coroutines. graph_tx_new and the action calls never report: what went
 * wrong (no memory, a frozen edge) is kept and comes out of graph_tx_run. All of them take NULL.
 *
 *     struct graph_tx *tx = graph_tx_new(pl);
 *
 *     graph_tx_attach_child(tx, filter, node, "file", BDRV_ROLE_FILTERED | BDRV_ROLE_PRIMARY);
 *     graph_tx_replace_node(tx, node, filter);
 *     return graph_tx_run(tx, errp);
 */
#ifndef PLATTER_BLOCK_GRAPH_TX_H
#define PLATTER_BLOCK_GRAPH_TX_H

#include "block/node.h"

struct graph_tx;

struct graph_tx *graph_tx_new(Platter *pl);

/* New edges. They are in the graph, and theirs to use, when run has succeeded. */
BdrvEdge *graph_tx_attach_child(struct graph_tx *tx, BlockDriverState *parent,
                                BlockDriverState *child, const char *name, unsigned role);
BdrvEdge *graph_tx_attach_root(struct graph_tx *tx, BlockDriverState *bs, const char *name,
                               const struct bdrv_parent_class *klass, void *parent, uint64_t perm,
                               uint64_t shared);
/* Take an edge away; it is gone when run has succeeded, with its reference. */
void graph_tx_detach(struct graph_tx *tx, BdrvEdge *edge);
/* Let an edge point to another node. */
void graph_tx_replace(struct graph_tx *tx, BdrvEdge *edge, BlockDriverState *new_bs);
/* The same for an edge that will have come to bs, or old_bs, by the time of run. */
void graph_tx_detach_from(struct graph_tx *tx, BdrvEdge *edge, BlockDriverState *bs);
void graph_tx_replace_from(struct graph_tx *tx, BdrvEdge *edge, BlockDriverState *old_bs,
                           BlockDriverState *new_bs);
/* Let every user of old_bs use new_bs, but for new_bs itself and the nodes below it. */
void graph_tx_replace_node(struct graph_tx *tx, BlockDriverState *old_bs, BlockDriverState *new_bs);
/* What the user of an edge needs and shares. For users that are no nodes. */
void graph_tx_set_perm(struct graph_tx *tx, BdrvEdge *edge, uint64_t perm, uint64_t shared);
/* Open flags (BDRV_O_RDWR, NOCACHE, NO_FLUSH, UNMAP) of an open node. */
void graph_tx_set_flags(struct graph_tx *tx, BlockDriverState *bs, int flags);
/* The same, with what zeroes become and the driver's options, a whole new set of them (borrowed
 * until run; used up; NULL: as they are). Under BDRV_O_AUTO_RDONLY it may stay read-only. */
void graph_tx_reopen(struct graph_tx *tx, BlockDriverState *bs, int flags,
                     enum bdrv_detect_zeroes detect_zeroes, BlockOptions *options);

/* Whether all that was asked for found memory. */
bool graph_tx_complete(const struct graph_tx *tx);
/* Do it. 0, or -errno with errp and nothing changed: EPERM (permissions), ELOOP (a cycle), EBUSY
 * (a frozen edge), ENOMEM, or what a driver said. Ends tx. */
int graph_tx_run(struct graph_tx *tx, Error **errp);
/* End it without doing anything. */
void graph_tx_cancel(struct graph_tx *tx);

#endif
