/* SPDX-License-Identifier: MIT */
/*
 * Edges: what holds a node for its user. Here they are made, put into the graph and taken out of
 * it; whether that is allowed is decided in graph_tx.c and perm.c.
 *
 * Invariants: an edge in the graph holds one reference to its node and stands in the node's list of
 * parents, and, when its parent is a node, in that node's list of children; parent->file is the
 * first child with BDRV_ROLE_PRIMARY; the driver's own pointer to its backing file is that edge.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/graph_int.h"
#include "block/graph_tx.h"
#include "util/error.h"

static const char *node_parent_name(void *parent)
{
    const BlockDriverState *bs = parent;

    return bs->node_name;
}

static void node_parent_describe(void *parent, char *buf, size_t size)
{
    const BlockDriverState *bs = parent;

    snprintf(buf, size, "node '%s'", bdrv_get_told_name(bs));
}

const struct bdrv_parent_class bdrv_node_parent_class = {
    .describe = node_parent_describe,
    .name = node_parent_name,
    .parent_is_node = true,
};

BdrvEdge *edge_new(const char *name, const struct bdrv_parent_class *klass, void *parent,
                   unsigned role, uint64_t perm, uint64_t shared)
{
    BdrvEdge *edge = calloc(1, sizeof(*edge));

    if (edge == NULL) {
        return NULL;
    }
    edge->name = strdup(name);
    if (edge->name == NULL) {
        free(edge);
        return NULL;
    }
    edge->klass = klass;
    edge->parent = parent;
    edge->role = role;
    edge->perm = perm;
    edge->shared = shared;
    return edge;
}

void edge_free(BdrvEdge *edge)
{
    if (edge == NULL) {
        return;
    }
    assert(edge->bs == NULL);
    free(edge->name);
    free(edge);
}

static void primary_child_update(BlockDriverState *parent)
{
    BdrvEdge *edge;

    TAILQ_FOREACH (edge, &parent->children, in_parent) {
        if (edge->role & BDRV_ROLE_PRIMARY) {
            break;
        }
    }
    parent->file = edge;
}

static void backing_slot_update(BlockDriverState *parent, const BdrvEdge *edge, BdrvEdge *now)
{
    if ((edge->role & BDRV_ROLE_COW) && parent->backing_slot != NULL) {
        *parent->backing_slot = now;
    }
}

void edge_link(BdrvEdge *edge, BlockDriverState *bs)
{
    BlockDriverState *parent = edge_parent_node(edge);

    assert(edge->bs == NULL && !edge->perm_changed);
    bdrv_ref(bs);
    edge->bs = bs;
    TAILQ_INSERT_TAIL(&bs->parents, edge, in_child);
    if (parent != NULL) {
        TAILQ_INSERT_TAIL(&parent->children, edge, in_parent);
        primary_child_update(parent);
        backing_slot_update(parent, edge, edge);
        drain_update(parent);
    } else {
        drain_update_root(edge);
    }
    drain_update_drivers(bs->pl);
}

BlockDriverState *edge_unlink(BdrvEdge *edge)
{
    BlockDriverState *parent = edge_parent_node(edge);
    BlockDriverState *bs = edge->bs;

    TAILQ_REMOVE(&bs->parents, edge, in_child);
    if (parent != NULL) {
        TAILQ_REMOVE(&parent->children, edge, in_parent);
        primary_child_update(parent);
        backing_slot_update(parent, edge, NULL);
        drain_update(parent);
    } else if (edge->quiesced > 0) {
        edge->quiesced--;
        if (edge->klass->drained_end != NULL) {
            edge->klass->drained_end(edge);
        }
    }
    edge->bs = NULL;
    drain_update_drivers(bs->pl);
    return bs;
}

BlockDriverState *edge_move(BdrvEdge *edge, BlockDriverState *bs)
{
    BlockDriverState *parent = edge_parent_node(edge);
    BlockDriverState *old = edge->bs;

    bdrv_ref(bs);
    TAILQ_REMOVE(&old->parents, edge, in_child);
    edge->bs = bs;
    edge->opened_here = false;
    edge->as_named = false;
    TAILQ_INSERT_TAIL(&bs->parents, edge, in_child);
    if (parent != NULL) {
        drain_update(parent);
    } else {
        drain_update_root(edge);
    }
    drain_update_drivers(bs->pl);
    return old;
}

BdrvEdge *bdrv_attach_child(BlockDriverState *parent, BlockDriverState *child, const char *name,
                            unsigned role, Error **errp)
{
    struct graph_tx *tx = graph_tx_new(parent->pl);
    BdrvEdge *edge = graph_tx_attach_child(tx, parent, child, name, role);

    return graph_tx_run(tx, errp) < 0 ? NULL : edge;
}

BlockDriverState *edge_detach(BdrvEdge *edge)
{
    BlockDriverState *bs = edge->bs;
    BlockDriverState *parent = edge_parent_node(edge);

    bdrv_drained_begin(bs);
    edge_unlink(edge);
    edge_free(edge);
    perm_loosen(bs);
    if (parent != NULL) {
        graph_settle(parent);
    }
    bdrv_drained_end(bs);
    return bs;
}

/* ---- users that are no nodes ---- */

BdrvEdge *bdrv_root_attach(BlockDriverState *bs, const char *name,
                           const struct bdrv_parent_class *klass, void *parent, uint64_t perm,
                           uint64_t shared, Error **errp)
{
    struct graph_tx *tx = graph_tx_new(bs->pl);
    BdrvEdge *edge = graph_tx_attach_root(tx, bs, name, klass, parent, perm, shared);

    return graph_tx_run(tx, errp) < 0 ? NULL : edge;
}

void bdrv_root_detach(BdrvEdge *edge)
{
    bdrv_unref(edge_detach(edge));
}

int bdrv_root_replace(BdrvEdge *edge, BlockDriverState *new_bs, Error **errp)
{
    struct graph_tx *tx = graph_tx_new(new_bs->pl);

    graph_tx_replace(tx, edge, new_bs);
    return graph_tx_run(tx, errp);
}

int bdrv_root_set_perm(BdrvEdge *edge, uint64_t perm, uint64_t shared, Error **errp)
{
    struct graph_tx *tx = graph_tx_new(edge->bs->pl);

    graph_tx_set_perm(tx, edge, perm, shared);
    return graph_tx_run(tx, errp);
}

/* ---- what drivers may ask ---- */

BlockDriverState *bdrv_edge_node(const BdrvEdge *edge)
{
    return edge->bs;
}

BdrvEdge *bdrv_primary_child(const BlockDriverState *bs)
{
    return bs->file;
}

BlockDriverState *bdrv_get_child(const BlockDriverState *bs, const char *name)
{
    BdrvEdge *edge;

    TAILQ_FOREACH (edge, &bs->children, in_parent) {
        if (strcmp(edge->name, name) == 0) {
            return edge->bs;
        }
    }
    return NULL;
}
