/* SPDX-License-Identifier: MIT */
/*
 * Depth-first walks without a stack: each node keeps the edge at which its walk stands and the node
 * it was reached from. A finished node is put in front of the list, which makes the list a
 * topological order; the graph has no cycles (graph_tx.c refuses them).
 *
 * One walk at a time for an instance: a walk's list is used up before anything is called that may
 * walk again.
 */
#include <assert.h>

#include "block/graph_int.h"

struct node_walk node_walk_begin(Platter *pl)
{
    return (struct node_walk){.pl = pl, .gen = ++pl->walk_gen};
}

bool node_walk_has(const struct node_walk *walk, const BlockDriverState *bs)
{
    return bs->walk.gen == walk->gen;
}

static void walk_enter(struct node_walk *walk, BlockDriverState *bs, BlockDriverState *from,
                       BdrvEdge *first_edge)
{
    bs->walk = (struct node_walk_mark){.gen = walk->gen, .edge = first_edge, .from = from};
}

static BlockDriverState *walk_leave(struct node_walk *walk, BlockDriverState *bs)
{
    bs->walk.next = walk->first;
    walk->first = bs;
    return bs->walk.from;
}

void node_walk_add_below(struct node_walk *walk, BlockDriverState *bs)
{
    assert(walk->gen == walk->pl->walk_gen);
    if (node_walk_has(walk, bs)) {
        return;
    }
    walk_enter(walk, bs, NULL, TAILQ_FIRST(&bs->children));
    while (bs != NULL) {
        BdrvEdge *edge = bs->walk.edge;

        if (edge == NULL) {
            bs = walk_leave(walk, bs);
            continue;
        }
        bs->walk.edge = TAILQ_NEXT(edge, in_parent);
        if (!node_walk_has(walk, edge->bs)) {
            walk_enter(walk, edge->bs, bs, TAILQ_FIRST(&edge->bs->children));
            bs = edge->bs;
        }
    }
}

void node_walk_add_above(struct node_walk *walk, BlockDriverState *bs)
{
    assert(walk->gen == walk->pl->walk_gen);
    if (node_walk_has(walk, bs)) {
        return;
    }
    walk_enter(walk, bs, NULL, TAILQ_FIRST(&bs->parents));
    while (bs != NULL) {
        BdrvEdge *edge = bs->walk.edge;
        BlockDriverState *parent;

        if (edge == NULL) {
            bs = walk_leave(walk, bs);
            continue;
        }
        bs->walk.edge = TAILQ_NEXT(edge, in_child);
        parent = edge_parent_node(edge);
        if (parent != NULL && !node_walk_has(walk, parent)) {
            walk_enter(walk, parent, bs, TAILQ_FIRST(&parent->parents));
            bs = parent;
        }
    }
}
