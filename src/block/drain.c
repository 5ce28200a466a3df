/* SPDX-License-Identifier: MIT */
/*
 * Drained sections. Requests are counted by the roots (users that are no nodes), so a drained node
 * is one whose roots above are all told to hold their requests and have none in flight.
 *
 * D1: a node is held when it has a drained section of its own or one of its children is held.
 * D2: a root edge has seen exactly one drained_begin more than drained_end while its node is held,
 *     and as many of both otherwise. Edges that come or go keep this (edge.c calls drain_update).
 * D3: waiting happens only in drained_begin, after D2 is true again.
 * D4: then, too, each driver below a held node that wants to know (drained_begin of its table) has
 *     been told: a request that is waited for may be anywhere below the roots. The same holds below
 *     nodes whose requests are to pass.
 */
#include <assert.h>

#include "block/graph_int.h"
#include "loop/context.h"
#include "os/trace.h"

static bool node_should_be_held(const BlockDriverState *bs)
{
    BdrvEdge *edge;

    if (bs->quiesce_count > 0) {
        return true;
    }
    TAILQ_FOREACH (edge, &bs->children, in_parent) {
        if (edge->bs->held) {
            return true;
        }
    }
    return false;
}

void drain_update_root(BdrvEdge *edge)
{
    if (edge->klass->parent_is_node || edge->bs->held == (edge->quiesced > 0)) {
        return;
    }
    if (edge->bs->held) {
        edge->quiesced++;
        if (edge->klass->drained_begin != NULL) {
            edge->klass->drained_begin(edge);
        }
    } else {
        edge->quiesced--;
        if (edge->klass->drained_end != NULL) {
            edge->klass->drained_end(edge);
        }
    }
}

/* D4. Without such drivers it costs nothing. */
void drain_update_drivers(Platter *pl)
{
    struct node_walk walk;
    BlockDriverState *bs;

    if (pl->drain_hooks == 0) {
        return;
    }
    walk = node_walk_begin(pl);
    TAILQ_FOREACH (bs, &pl->nodes, in_instance) {
        if (bs->held || bs->pass_count > 0) {
            node_walk_add_below(&walk, bs);
        }
    }
    TAILQ_FOREACH (bs, &pl->nodes, in_instance) {
        bool pass = node_walk_has(&walk, bs);

        if (!bs->drain_hook || pass == bs->passing) {
            continue;
        }
        bs->passing = pass;
        if (pass) {
            bs->drv->drained_begin(bs);
        } else {
            bs->drv->drained_end(bs);
        }
    }
}

void drain_update(BlockDriverState *bs)
{
    struct node_walk walk;
    BlockDriverState *node;
    BdrvEdge *edge;

    if (node_should_be_held(bs) == bs->held) {
        return;
    }
    walk = node_walk_begin(bs->pl);
    node_walk_add_above(&walk, bs);
    for (node = walk.first; node != NULL; node = node->walk.next) {
        node->held = node_should_be_held(node);
    }
    for (node = walk.first; node != NULL; node = node->walk.next) {
        TAILQ_FOREACH (edge, &node->parents, in_child) {
            drain_update_root(edge);
        }
    }
}

static bool roots_busy(const struct node_walk *walk)
{
    BlockDriverState *node;
    BdrvEdge *edge;

    for (node = walk->first; node != NULL; node = node->walk.next) {
        TAILQ_FOREACH (edge, &node->parents, in_child) {
            if (!edge->klass->parent_is_node && edge->klass->drained_poll != NULL &&
                edge->klass->drained_poll(edge)) {
                return true;
            }
        }
    }
    return false;
}

static bool node_busy(void *opaque)
{
    BlockDriverState *bs = opaque;
    struct node_walk walk = node_walk_begin(bs->pl);

    node_walk_add_above(&walk, bs);
    return roots_busy(&walk);
}

void bdrv_drained_begin(BlockDriverState *bs)
{
    instance_control(bs->pl);
    TRACE(drain_begin, bs->node_name, bs->quiesce_count);
    bs->quiesce_count++;
    drain_update(bs);
    drain_update_drivers(bs->pl);
    if (node_busy(bs)) {
        bdrv_ref(bs); /* what runs meanwhile may drop the last user */
        aio_wait_while(bs->pl->main_ctx, node_busy, bs);
        bdrv_unref(bs);
    }
}

void bdrv_drained_end(BlockDriverState *bs)
{
    assert(instance_in_control_thread(bs->pl));
    assert(bs->quiesce_count > 0);
    TRACE(drain_end, bs->node_name, bs->quiesce_count);
    bs->quiesce_count--;
    drain_update(bs);
    drain_update_drivers(bs->pl);
}

void bdrv_pass_begin(BlockDriverState *bs)
{
    assert(instance_in_control_thread(bs->pl));
    bs->pass_count++;
    drain_update_drivers(bs->pl);
}

void bdrv_pass_end(BlockDriverState *bs)
{
    assert(instance_in_control_thread(bs->pl));
    assert(bs->pass_count > 0);
    bs->pass_count--;
    drain_update_drivers(bs->pl);
}

static bool instance_busy(void *opaque)
{
    Platter *pl = opaque;
    struct node_walk walk = node_walk_begin(pl);
    BlockDriverState *bs;

    TAILQ_FOREACH (bs, &pl->nodes, in_instance) {
        node_walk_add_above(&walk, bs);
    }
    return roots_busy(&walk);
}

void bdrv_drain_all_begin(Platter *pl)
{
    BlockDriverState *bs;

    instance_control(pl);
    pl->drain_all_count++; /* new nodes begin with this many sections */
    TAILQ_FOREACH (bs, &pl->nodes, in_instance) {
        bs->quiesce_count++;
        drain_update(bs);
    }
    drain_update_drivers(pl);
    if (instance_busy(pl)) {
        aio_wait_while(pl->main_ctx, instance_busy, pl);
    }
}

void bdrv_drain_all_end(Platter *pl)
{
    BlockDriverState *bs;

    assert(instance_in_control_thread(pl));
    assert(pl->drain_all_count > 0);
    pl->drain_all_count--;
    TAILQ_FOREACH (bs, &pl->nodes, in_instance) {
        bs->quiesce_count--;
        drain_update(bs);
    }
    drain_update_drivers(pl);
}
