/* SPDX-License-Identifier: MIT */
/*
 * Graph transactions. An action has a phase before anything is seen (apply), one that cannot fail
 * (commit), and one that takes apply back (abort).
 *
 * T1: between the first apply and the end of run nothing polls, but for a driver's reopen_prepare;
 *     so nobody else changes the graph meanwhile.
 * T2: apply changes edges in place; abort runs in reverse order and finds the graph as apply of the
 *     same action left it.
 * T3: every node named by an action is referenced until the transaction ends.
 */
#include "block/graph_tx.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "block/graph_int.h"
#include "os/trace.h"
#include "util/error.h"

enum action_kind {
    ACTION_ATTACH,
    ACTION_DETACH,
    ACTION_REPLACE,
    ACTION_SET_PERM,
    ACTION_SET_FLAGS,
};

struct action {
    TAILQ_ENTRY(action) entry;
    enum action_kind kind;
    BdrvEdge *edge;          /* ATTACH: owned until committed */
    BlockDriverState *bs;    /* counted: new node of the edge, or the node itself */
    BlockDriverState *old;   /* counted: REPLACE: node before; ATTACH: parent node; or NULL */
    BlockDriverState *given; /* counted: reference an unlinked edge gave back */
    uint64_t perm, shared;   /* SET_PERM: new; after apply: old */
    int flags;               /* SET_FLAGS: new; after apply: old */
    enum bdrv_detect_zeroes detect_zeroes; /* the same */
    BlockOptions *options;                 /* SET_FLAGS: borrowed: the driver's, or NULL */
};
TAILQ_HEAD(action_list, action);

struct graph_tx {
    Platter *pl; /* borrowed */
    struct action_list actions;
    bool no_memory;
};

/* ---- building ---- */

struct graph_tx *graph_tx_new(Platter *pl)
{
    struct graph_tx *tx = calloc(1, sizeof(*tx));

    assert(instance_in_control_thread(pl));
    if (tx != NULL) {
        tx->pl = pl;
        TAILQ_INIT(&tx->actions);
    }
    return tx;
}

static struct action *action_add(struct graph_tx *tx, enum action_kind kind, BdrvEdge *edge,
                                 BlockDriverState *bs, BlockDriverState *old)
{
    struct action *action;

    if (tx == NULL) {
        return NULL;
    }
    action = calloc(1, sizeof(*action));
    if (action == NULL) {
        tx->no_memory = true;
        return NULL;
    }
    action->kind = kind;
    action->edge = edge;
    action->bs = bs;
    action->old = old;
    bdrv_ref(bs);
    if (old != NULL) {
        bdrv_ref(old);
    }
    TAILQ_INSERT_TAIL(&tx->actions, action, entry);
    return action;
}

static BdrvEdge *attach_add(struct graph_tx *tx, BdrvEdge *edge, BlockDriverState *bs)
{
    /* The parent may be in use already, and nothing of it stands above bs before the change. */
    if (edge == NULL || action_add(tx, ACTION_ATTACH, edge, bs, edge_parent_node(edge)) == NULL) {
        edge_free(edge);
        if (tx != NULL) {
            tx->no_memory = true;
        }
        return NULL;
    }
    return edge;
}

BdrvEdge *graph_tx_attach_child(struct graph_tx *tx, BlockDriverState *parent,
                                BlockDriverState *child, const char *name, unsigned role)
{
    /* Needs and shares come from the parent's own while permissions are checked. */
    return attach_add(tx, edge_new(name, &bdrv_node_parent_class, parent, role, 0, BDRV_PERM_ALL),
                      child);
}

BdrvEdge *graph_tx_attach_root(struct graph_tx *tx, BlockDriverState *bs, const char *name,
                               const struct bdrv_parent_class *klass, void *parent, uint64_t perm,
                               uint64_t shared)
{
    assert(!klass->parent_is_node);
    return attach_add(
        tx, edge_new(name, klass, parent, BDRV_ROLE_FILTERED | BDRV_ROLE_PRIMARY, perm, shared),
        bs);
}

void graph_tx_detach_from(struct graph_tx *tx, BdrvEdge *edge, BlockDriverState *bs)
{
    action_add(tx, ACTION_DETACH, edge, bs, NULL);
}

void graph_tx_detach(struct graph_tx *tx, BdrvEdge *edge)
{
    graph_tx_detach_from(tx, edge, edge->bs);
}

void graph_tx_replace_from(struct graph_tx *tx, BdrvEdge *edge, BlockDriverState *old_bs,
                           BlockDriverState *new_bs)
{
    action_add(tx, ACTION_REPLACE, edge, new_bs, old_bs);
}

void graph_tx_replace(struct graph_tx *tx, BdrvEdge *edge, BlockDriverState *new_bs)
{
    graph_tx_replace_from(tx, edge, edge->bs, new_bs);
}

void graph_tx_replace_node(struct graph_tx *tx, BlockDriverState *old_bs, BlockDriverState *new_bs)
{
    struct node_walk walk = node_walk_begin(old_bs->pl);
    BdrvEdge *edge;

    node_walk_add_below(&walk, new_bs);
    TAILQ_FOREACH (edge, &old_bs->parents, in_child) {
        BlockDriverState *parent = edge_parent_node(edge);

        if (parent == NULL || !node_walk_has(&walk, parent)) {
            graph_tx_replace(tx, edge, new_bs);
        }
    }
}

void graph_tx_set_perm(struct graph_tx *tx, BdrvEdge *edge, uint64_t perm, uint64_t shared)
{
    struct action *action;

    assert(!edge->klass->parent_is_node);
    action = action_add(tx, ACTION_SET_PERM, edge, edge->bs, NULL);
    if (action != NULL) {
        action->perm = perm;
        action->shared = shared;
    }
}

void graph_tx_reopen(struct graph_tx *tx, BlockDriverState *bs, int flags,
                     enum bdrv_detect_zeroes detect_zeroes, BlockOptions *options)
{
    struct action *action = action_add(tx, ACTION_SET_FLAGS, NULL, bs, NULL);

    if (action != NULL) {
        action->flags = flags;
        action->detect_zeroes = detect_zeroes;
        action->options = options;
    }
}

void graph_tx_set_flags(struct graph_tx *tx, BlockDriverState *bs, int flags)
{
    graph_tx_reopen(tx, bs, flags, bs->detect_zeroes, NULL);
}

/* ---- actions ---- */

static int refuse_cycle(const BdrvEdge *edge, BlockDriverState *bs, Error **errp)
{
    BlockDriverState *parent = edge_parent_node(edge);
    struct node_walk walk;

    if (parent == NULL) {
        return 0;
    }
    walk = node_walk_begin(bs->pl);
    node_walk_add_below(&walk, bs);
    if (node_walk_has(&walk, parent)) {
        return error_set(errp, ELOOP,
                         "Node '%s' cannot be '%s' of node '%s': that would be a cycle",
                         bdrv_get_told_name(bs), edge->name, bdrv_get_told_name(parent));
    }
    return 0;
}

static int refuse_frozen(const BdrvEdge *edge, Error **errp)
{
    char who[BDRV_PARENT_TEXT_BYTES];

    if (!edge->frozen) {
        return 0;
    }
    edge->klass->describe(edge->parent, who, sizeof(who));
    return error_set(errp, EBUSY, "Link '%s' from %s to node '%s' is in use and cannot change",
                     edge->name, who, bdrv_get_told_name(edge->bs));
}

static void swap_perm(struct action *action)
{
    BdrvEdge *edge = action->edge;
    uint64_t perm = edge->perm;
    uint64_t shared = edge->shared;

    edge->perm = action->perm;
    edge->shared = action->shared;
    action->perm = perm;
    action->shared = shared;
}

static void swap_flags(struct action *action)
{
    BlockDriverState *bs = action->bs;
    int flags = bs->open_flags;
    enum bdrv_detect_zeroes detect_zeroes = bs->detect_zeroes;

    bs->open_flags = action->flags;
    bs->read_only = !(bs->open_flags & BDRV_O_RDWR);
    bs->turns_read_only = bs->read_only && (flags & BDRV_O_RDWR);
    bs->detect_zeroes = action->detect_zeroes;
    action->flags = flags;
    action->detect_zeroes = detect_zeroes;
}

static int ask_driver(BlockDriverState *bs, int flags, Error **errp)
{
    return bs->drv != NULL && bs->drv->reopen_prepare != NULL
               ? bs->drv->reopen_prepare(bs, flags, errp)
               : 0;
}

/* A node that fell back to read-only when it was opened may do so again. */
static int apply_flags_only(struct action *action, Error **errp)
{
    BlockDriverState *bs = action->bs;
    Error *err = NULL;
    int rc = ask_driver(bs, action->flags, &err);

    if ((rc == -EACCES || rc == -EROFS || rc == -EPERM) && bs->read_only &&
        (action->flags & BDRV_O_RDWR) && (action->flags & BDRV_O_AUTO_RDONLY)) {
        error_free(err);
        err = NULL;
        action->flags &= ~BDRV_O_RDWR;
        rc = ask_driver(bs, action->flags, &err);
    }
    error_propagate(errp, err);
    return rc;
}

static int apply_flags(struct action *action, Error **errp)
{
    BlockDriverState *bs = action->bs;
    int rc = action->options != NULL
                 ? reopen_driver_options(bs, action->options, action->flags, errp)
                 : 0;

    if (rc < 0) {
        return rc;
    }
    rc = apply_flags_only(action, errp);
    if (rc < 0) {
        if (action->options != NULL && bs->drv->reopen_abort != NULL) {
            bs->drv->reopen_abort(bs);
        }
        return rc;
    }
    swap_flags(action);
    return 0;
}

static int action_apply(struct action *action, Error **errp)
{
    int rc;

    switch (action->kind) {
    case ACTION_ATTACH:
        rc = refuse_cycle(action->edge, action->bs, errp);
        if (rc == 0) {
            edge_link(action->edge, action->bs);
        }
        return rc;
    case ACTION_DETACH:
        rc = refuse_frozen(action->edge, errp);
        if (rc == 0) {
            action->given = edge_unlink(action->edge);
        }
        return rc;
    case ACTION_REPLACE:
        rc = refuse_frozen(action->edge, errp);
        if (rc == 0) {
            rc = refuse_cycle(action->edge, action->bs, errp);
        }
        if (rc == 0) {
            action->given = edge_move(action->edge, action->bs);
        }
        return rc;
    case ACTION_SET_PERM:
        swap_perm(action);
        return 0;
    case ACTION_SET_FLAGS:
        return apply_flags(action, errp);
    }
    return -EINVAL;
}

static void action_abort(struct action *action)
{
    switch (action->kind) {
    case ACTION_ATTACH:
        action->given = edge_unlink(action->edge);
        break;
    case ACTION_DETACH:
        edge_link(action->edge, action->given);
        break;
    case ACTION_REPLACE:
        bdrv_unref(edge_move(action->edge, action->given)); /* T3: not the last reference */
        break;
    case ACTION_SET_PERM:
        swap_perm(action);
        break;
    case ACTION_SET_FLAGS:
        swap_flags(action);
        if (action->bs->drv != NULL && action->bs->drv->reopen_abort != NULL) {
            action->bs->drv->reopen_abort(action->bs);
        }
        break;
    }
}

static void action_commit(struct action *action)
{
    switch (action->kind) {
    case ACTION_ATTACH:
        action->edge = NULL; /* its owner's now */
        break;
    case ACTION_DETACH:
        edge_free(action->edge);
        break;
    case ACTION_SET_FLAGS:
        action->bs->turns_read_only = false;
        if (action->bs->drv != NULL && action->bs->drv->reopen_commit != NULL) {
            action->bs->drv->reopen_commit(action->bs);
        }
        break;
    case ACTION_REPLACE:
    case ACTION_SET_PERM:
        break;
    }
}

/* The node whose children an action changes, or the node that changes itself; else NULL. */
static BlockDriverState *action_changed_node(const struct action *action)
{
    if (action->kind == ACTION_SET_FLAGS) {
        return action->bs;
    }
    return action->kind == ACTION_SET_PERM ? NULL : edge_parent_node(action->edge);
}

/* ---- running ---- */

static void tx_free(struct graph_tx *tx)
{
    struct action *action;

    while ((action = TAILQ_FIRST(&tx->actions)) != NULL) {
        TAILQ_REMOVE(&tx->actions, action, entry);
        if (action->kind == ACTION_ATTACH) {
            edge_free(action->edge);
        }
        bdrv_unref(action->given);
        bdrv_unref(action->old);
        bdrv_unref(action->bs);
        free(action);
    }
    free(tx);
}

static int tx_apply(struct graph_tx *tx, struct action **ret_failed, Error **errp)
{
    struct action *action;

    TAILQ_FOREACH (action, &tx->actions, entry) {
        int rc = action_apply(action, errp);

        if (rc < 0) {
            *ret_failed = action;
            return rc;
        }
    }
    *ret_failed = NULL;
    return 0;
}

/* Take back what stands before the failed action (NULL: all). */
static void tx_abort(struct graph_tx *tx, struct action *failed)
{
    struct action *action = failed != NULL ? TAILQ_PREV(failed, action_list, entry)
                                           : TAILQ_LAST(&tx->actions, action_list);

    for (; action != NULL; action = TAILQ_PREV(action, action_list, entry)) {
        action_abort(action);
    }
}

static int tx_check_perms(struct graph_tx *tx, struct perm_change *change, Error **errp)
{
    struct node_walk walk = node_walk_begin(tx->pl);
    struct action *action;

    TAILQ_FOREACH (action, &tx->actions, entry) {
        BlockDriverState *changed = action_changed_node(action);

        if (changed != NULL) {
            node_walk_add_below(&walk, changed);
        }
        node_walk_add_below(&walk, action->bs);
        if (action->old != NULL) {
            node_walk_add_below(&walk, action->old);
        }
    }
    return perm_change_prepare(change, &walk, errp);
}

static int tx_do(struct graph_tx *tx, Error **errp)
{
    struct perm_change change;
    struct action *action, *failed;
    int rc = tx_apply(tx, &failed, errp);

    if (rc == 0) {
        rc = tx_check_perms(tx, &change, errp);
    }
    if (rc < 0) {
        tx_abort(tx, failed);
        return rc;
    }
    perm_change_commit(&change);
    TAILQ_FOREACH (action, &tx->actions, entry) {
        BlockDriverState *changed = action_changed_node(action);

        action_commit(action);
        if (changed != NULL) {
            graph_settle(changed);
        }
    }
    return 0;
}

static void tx_drain(struct graph_tx *tx, void (*drain)(BlockDriverState *bs))
{
    struct action *action;

    TAILQ_FOREACH (action, &tx->actions, entry) {
        drain(action->bs);
        if (action->old != NULL) {
            drain(action->old);
        }
    }
}

/* A read-only node is not flushed any more, nor one told not to be: what was written before must be
 * safe. Drained, and before anything changes, because it polls. */
static int tx_flush(struct graph_tx *tx, Error **errp)
{
    struct action *action;

    TAILQ_FOREACH (action, &tx->actions, entry) {
        BlockDriverState *bs = action->bs;
        BdrvEdge edge = {.bs = bs, .klass = &bdrv_node_parent_class};
        bool goes_on = (action->flags & BDRV_O_RDWR) != 0 &&
                       !(action->flags & ~bs->open_flags & BDRV_O_NO_FLUSH);
        int rc;

        if (action->kind != ACTION_SET_FLAGS || goes_on || bs->read_only || bs->drv == NULL) {
            continue;
        }
        rc = bdrv_edge_flush(&edge);
        if (rc < 0) {
            return error_set_errno(errp, -rc, "Could not flush node '%s' before it changes",
                                   bdrv_get_told_name(bs));
        }
    }
    return 0;
}

bool graph_tx_complete(const struct graph_tx *tx)
{
    return tx != NULL && !tx->no_memory;
}

int graph_tx_run(struct graph_tx *tx, Error **errp)
{
    Platter *pl;
    int rc;

    if (!graph_tx_complete(tx)) {
        graph_tx_cancel(tx);
        return error_set(errp, ENOMEM, "out of memory for a change of the block graph");
    }
    pl = tx->pl;
    tx_drain(tx, bdrv_drained_begin);
    rc = tx_flush(tx, errp);
    if (rc == 0) {
        rc = tx_do(tx, errp);
    }
    tx_drain(tx, bdrv_drained_end);
    TRACE(graph_change, rc);
    tx_free(tx);
    graph_tell_sizes(pl);
    return rc;
}

void graph_tx_cancel(struct graph_tx *tx)
{
    if (tx != NULL) {
        tx_free(tx);
    }
}
