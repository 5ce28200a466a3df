/* SPDX-License-Identifier: MIT */
/*
 * Permissions. Each user of a node needs some and shares some with the other users; a node passes
 * on what its users need together to its children (child_perm, or the usual for the child's role).
 *
 * P1: for any two users a and b of a node, what a needs is shared by b.
 * P2: nobody needs to change a node that is read-only.
 * P3: a driver that has perm_check was told of the node's permissions (bs->perm, bs->shared).
 * A change is worked out over the affected nodes, parents first, in place and with what it replaced
 * kept aside, and is then committed or taken back as a whole.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>

#include "block/graph_int.h"
#include "util/error.h"

#define PERM_CHANGES (BDRV_PERM_WRITE | BDRV_PERM_WRITE_UNCHANGED | BDRV_PERM_RESIZE)

static const char *perm_name(uint64_t perm)
{
    if (perm & BDRV_PERM_WRITE) {
        return "write";
    }
    if (perm & BDRV_PERM_CONSISTENT_READ) {
        return "consistent read";
    }
    if (perm & BDRV_PERM_RESIZE) {
        return "resize";
    }
    return "write unchanged";
}

/* ---- what a node passes on ---- */

static void perm_for_data(const BlockDriverState *bs, unsigned role, uint64_t *perm,
                          uint64_t *shared)
{
    if (role & BDRV_ROLE_METADATA) {
        /* Metadata is read to serve anything, and changes when guest data does, also before the
         * first user comes (a header marked dirty at open). Nobody else may touch it. */
        *perm |= BDRV_PERM_CONSISTENT_READ;
        if (!bs->read_only) {
            *perm |= BDRV_PERM_WRITE | BDRV_PERM_RESIZE;
        }
        *shared &= ~(uint64_t)(BDRV_PERM_WRITE | BDRV_PERM_RESIZE);
    }
    if (*perm & BDRV_PERM_WRITE_UNCHANGED) {
        *perm |= BDRV_PERM_WRITE; /* the same guest data may be new bytes below */
    }
    if (!(*shared & BDRV_PERM_WRITE)) {
        *shared &= ~(uint64_t)BDRV_PERM_RESIZE; /* what is cut off was data */
    }
}

/* A backing file is read, and whoever else has it may do nothing but write what is there. */
static void perm_for_cow(uint64_t *perm, uint64_t *shared)
{
    *perm &= BDRV_PERM_CONSISTENT_READ;
    *shared = BDRV_PERM_CONSISTENT_READ | BDRV_PERM_WRITE_UNCHANGED;
}

/* A filter that nobody uses sends nothing down and shows nothing: so it can be built over a node in
 * use, and be left standing there, whatever else uses the node. */
static bool filter_idles(const BlockDriverState *bs, const BdrvEdge *edge)
{
    return (bs->caps & BDRV_CAP_FILTER) && (edge->role & BDRV_ROLE_FILTERED) &&
           TAILQ_EMPTY(&bs->parents);
}

static void child_perm(BlockDriverState *bs, const BdrvEdge *edge, uint64_t *ret_perm,
                       uint64_t *ret_shared)
{
    uint64_t perm = bs->new_perm;
    uint64_t shared = bs->new_shared;

    if (filter_idles(bs, edge)) {
        *ret_perm = 0;
        *ret_shared = BDRV_PERM_ALL;
        return;
    }
    if (bs->drv != NULL && bs->drv->child_perm != NULL) {
        bs->drv->child_perm(bs, edge->name, edge->role, perm, shared, ret_perm, ret_shared);
        return;
    }
    if (edge->role & BDRV_ROLE_COW) {
        perm_for_cow(&perm, &shared);
    } else if (!(edge->role & BDRV_ROLE_FILTERED)) {
        perm_for_data(bs, edge->role, &perm, &shared);
    }
    *ret_perm = perm;
    *ret_shared = shared;
}

/* ---- one node ---- */

/* "write, resize" */
static void perm_names(uint64_t perm, char *buf, size_t size)
{
    static const uint64_t order[] = {BDRV_PERM_CONSISTENT_READ, BDRV_PERM_WRITE,
                                     BDRV_PERM_WRITE_UNCHANGED, BDRV_PERM_RESIZE};
    size_t len = 0;

    buf[0] = '\0';
    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]) && len < size; i++) {
        if (perm & order[i]) {
            len += (size_t)snprintf(buf + len, size - len, "%s%s", len > 0 ? ", " : "",
                                    perm_name(order[i]));
        }
    }
}

int perm_conflict(const BlockDriverState *bs, const char *what, const struct perm_user *needs,
                  const struct perm_user *denies, Error **errp)
{
    const char *node = bdrv_get_told_name(bs);

    return error_set(errp, EPERM,
                     "Permission conflict on node '%s': permissions '%s' are both required by %s "
                     "(uses node '%s' as '%s' child) and unshared by %s (uses node '%s' as '%s' "
                     "child).",
                     node, what, needs->who, node, needs->child, denies->who, node, denies->child);
}

static int conflict(const BlockDriverState *bs, const BdrvEdge *needs, const BdrvEdge *denies,
                    Error **errp)
{
    char what[64];
    char a[BDRV_PARENT_TEXT_BYTES];
    char b[BDRV_PARENT_TEXT_BYTES];

    perm_names(needs->perm & ~denies->shared, what, sizeof(what));
    needs->klass->describe(needs->parent, a, sizeof(a));
    denies->klass->describe(denies->parent, b, sizeof(b));
    return perm_conflict(bs, what, &(struct perm_user){a, needs->name},
                         &(struct perm_user){b, denies->name}, errp);
}

/* What the users need and share together; P1. */
static int node_sum(BlockDriverState *bs, Error **errp)
{
    uint64_t perm = 0;
    uint64_t shared = BDRV_PERM_ALL;
    BdrvEdge *a, *b;

    TAILQ_FOREACH (a, &bs->parents, in_child) {
        perm |= a->perm;
        shared &= a->shared;
    }
    bs->new_perm = perm;
    bs->new_shared = shared;
    if ((perm & ~shared) == 0) {
        return 0;
    }
    TAILQ_FOREACH (a, &bs->parents, in_child) {
        if ((a->perm & ~shared) == 0) {
            continue;
        }
        TAILQ_FOREACH (b, &bs->parents, in_child) {
            if (a != b && (a->perm & ~b->shared) != 0) {
                return conflict(bs, a, b, errp);
            }
        }
    }
    return 0;
}

static int read_only_refusal(const BlockDriverState *bs, Error **errp)
{
    char who[BDRV_PARENT_TEXT_BYTES];
    BdrvEdge *edge;

    TAILQ_FOREACH (edge, &bs->parents, in_child) {
        if (edge->perm & PERM_CHANGES) {
            break;
        }
    }
    assert(edge != NULL);
    edge->klass->describe(edge->parent, who, sizeof(who));
    if (bs->turns_read_only) {
        error_set(errp, EPERM, "Read-only block node '%s' cannot support read-write users",
                  bdrv_get_told_name(bs));
    } else {
        error_set(errp, EPERM, "Block node is read-only");
    }
    error_set_hint(errp, "Node '%s' is read-only, but %s needs permission '%s' as '%s'",
                   bdrv_get_told_name(bs), who, perm_name(edge->perm & PERM_CHANGES), edge->name);
    return -EPERM;
}

static int node_ask_driver(struct perm_change *change, BlockDriverState *bs, Error **errp)
{
    if (bs->new_perm == bs->perm && bs->new_shared == bs->shared) {
        return 0;
    }
    if (bs->drv != NULL && bs->drv->perm_check != NULL && bs->opening == NULL) {
        int rc = bs->drv->perm_check(bs, bs->new_perm, bs->new_shared, errp);

        if (rc < 0) {
            return rc;
        }
    }
    assert(!bs->perm_checked);
    bs->perm_checked = true;
    bs->next_checked = change->nodes;
    change->nodes = bs;
    return 0;
}

static void node_pass_on(struct perm_change *change, BlockDriverState *bs)
{
    BdrvEdge *edge;

    TAILQ_FOREACH (edge, &bs->children, in_parent) {
        uint64_t perm, shared;

        child_perm(bs, edge, &perm, &shared);
        if (perm == edge->perm && shared == edge->shared) {
            continue;
        }
        assert(!edge->perm_changed);
        edge->saved_perm = edge->perm;
        edge->saved_shared = edge->shared;
        edge->perm_changed = true;
        edge->next_changed = change->edges;
        change->edges = edge;
        edge->perm = perm;
        edge->shared = shared;
    }
}

/* ---- a change ---- */

int perm_change_prepare(struct perm_change *change, const struct node_walk *walk, Error **errp)
{
    BlockDriverState *bs;
    int rc = 0;

    *change = (struct perm_change){0};
    for (bs = walk->first; bs != NULL && rc == 0; bs = bs->walk.next) {
        rc = node_sum(bs, errp);
        if (rc == 0 && bs->read_only && bs->drv != NULL && (bs->new_perm & PERM_CHANGES)) {
            rc = read_only_refusal(bs, errp);
        }
        if (rc == 0) {
            rc = node_ask_driver(change, bs, errp);
        }
        if (rc == 0) {
            node_pass_on(change, bs);
        }
    }
    if (rc < 0) {
        perm_change_abort(change);
    }
    return rc;
}

static void edges_done(struct perm_change *change, bool restore)
{
    BdrvEdge *edge;

    while ((edge = change->edges) != NULL) {
        change->edges = edge->next_changed;
        edge->perm_changed = false;
        if (restore) {
            edge->perm = edge->saved_perm;
            edge->shared = edge->saved_shared;
        }
    }
}

void perm_change_commit(struct perm_change *change)
{
    BlockDriverState *bs;

    edges_done(change, false);
    while ((bs = change->nodes) != NULL) {
        change->nodes = bs->next_checked;
        bs->perm_checked = false;
        bs->perm = bs->new_perm;
        bs->shared = bs->new_shared;
        if (bs->drv != NULL && bs->drv->perm_set != NULL && bs->opening == NULL) {
            bs->drv->perm_set(bs, bs->perm, bs->shared);
        }
    }
}

void perm_change_abort(struct perm_change *change)
{
    BlockDriverState *bs;

    edges_done(change, true);
    while ((bs = change->nodes) != NULL) {
        change->nodes = bs->next_checked;
        bs->perm_checked = false;
        if (bs->drv != NULL && bs->drv->perm_abort != NULL && bs->opening == NULL) {
            bs->drv->perm_abort(bs);
        }
    }
}

void perm_loosen(BlockDriverState *bs)
{
    struct node_walk walk = node_walk_begin(bs->pl);
    struct perm_change change;

    node_walk_add_below(&walk, bs);
    /* A driver that cannot give a lock back keeps it: stricter than needed, never looser. */
    if (perm_change_prepare(&change, &walk, NULL) == 0) {
        perm_change_commit(&change);
    }
}
