/* SPDX-License-Identifier: MIT */
/*
 * Open nodes get other options: what they say is compared with what the node was opened with, and
 * what may change becomes one graph transaction over all the nodes.
 *
 * Invariants
 *  R1 the nodes, and so whatever stands above them, are drained from before the first look at their
 *     children until the end: the lists of children stand still.
 *  R2 parents are reopened before their children: one that becomes read-only still writes what it
 *     has to write.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <platter/graph.h>

#include "block/graph_int.h"
#include "block/graph_tx.h"
#include "block/open_int.h"
#include "schema/opts.h"
#include "util/error.h"
#include "util/options.h"

/* Flags that options decide alone; the others stay as they are. */
#define OPTION_FLAGS                                                                               \
    (BDRV_O_RDWR | BDRV_O_AUTO_RDONLY | BDRV_O_NOCACHE | BDRV_O_NO_FLUSH | BDRV_O_UNMAP)

struct reopen_item {
    TAILQ_ENTRY(reopen_item) entry;
    BlockDriverState *bs;  /* counted, drained */
    BlockOptions *options; /* owned; what is not looked at yet. NULL: they stay as they are */
    BlockOptions *kept;    /* owned: the whole set; NULL with options */
    bool has_parent;       /* parent_flags is valid: of a node that is reopened too */
    int parent_flags;
    unsigned role; /* for that parent */
    int flags;     /* worked out */
    enum bdrv_detect_zeroes detect_zeroes;
};
TAILQ_HEAD(reopen_list, reopen_item);

struct reopen {
    Platter *pl;
    struct reopen_list items;
    struct graph_tx *tx;
};

/* ---- what a driver cannot change ---- */

static bool driver_knows(const BlockDriver *drv, const char *key)
{
    const struct opts_key *known = drv->option_keys;

    while (known != NULL && known->key != NULL && strcmp(known->key, key) != 0) {
        known++;
    }
    return known == NULL || known->key != NULL;
}

/* Whether key is the same as at open. A file that was opened by its name alone has no option that
 * says so. */
static bool option_stays(const BlockDriverState *bs, const BlockOptions *options, const char *key)
{
    const char *filename;

    if (bs->options != NULL && block_options_has(bs->options, key)) {
        return block_options_same(options, bs->options, key);
    }
    filename = strcmp(key, "filename") == 0 ? block_options_get_str(options, key) : NULL;
    return filename != NULL && bs->filename != NULL && strcmp(filename, bs->filename) == 0;
}

int reopen_driver_options(BlockDriverState *bs, BlockOptions *options, int flags, Error **errp)
{
    const BlockDriver *drv = bs->drv;
    const char *key = NULL;
    int rc = 0;

    if (drv->reopen_options != NULL) {
        Error *err = NULL;

        rc = drv->reopen_options(bs, options, flags, &err);
        if (rc < 0) {
            rc = err != NULL ? -error_get_errno(err) : rc;
            error_propagate(errp, err);
            return rc;
        }
    }
    while (rc == 0 && (key = block_options_next_key(options, key)) != NULL) {
        if (!driver_knows(drv, key) || !option_stays(bs, options, key)) {
            rc = error_set(errp, EINVAL, "Cannot change the option '%s'", key);
        }
    }
    if (rc < 0 && drv->reopen_options != NULL && drv->reopen_abort != NULL) {
        drv->reopen_abort(bs);
    }
    return rc;
}

/* Keys of the open that are not given now, of a driver that cannot change any. */
static int refuse_missing(const struct reopen_item *item, Error **errp)
{
    const BlockDriver *drv = item->bs->drv;
    const struct opts_key *known = drv->option_keys;

    for (; drv->reopen_options == NULL && known != NULL && known->key != NULL; known++) {
        if (item->bs->options != NULL && block_options_has(item->bs->options, known->key) &&
            !block_options_has(item->options, known->key)) {
            return error_set(errp, EINVAL, "Option '%s' cannot be reset to its default value",
                             known->key);
        }
    }
    return 0;
}

/* ---- the list ---- */

static struct reopen_item *item_find(struct reopen *r, const BlockDriverState *bs)
{
    struct reopen_item *item;

    TAILQ_FOREACH (item, &r->items, entry) {
        if (item->bs == bs) {
            break;
        }
    }
    return item;
}

/* options (owned, or NULL) for bs; they replace what was there. */
static struct reopen_item *item_put(struct reopen *r, BlockDriverState *bs, BlockOptions *options,
                                    Error **errp)
{
    struct reopen_item *item = item_find(r, bs);

    if (item == NULL) {
        item = calloc(1, sizeof(*item));
        if (item == NULL) {
            block_options_free(options);
            open_no_memory(errp);
            return NULL;
        }
        item->bs = bs;
        bdrv_ref(bs);
        bdrv_drained_begin(bs); /* R1 */
        TAILQ_INSERT_TAIL(&r->items, item, entry);
    }
    if (options == NULL) {
        return item;
    }
    block_options_free(item->options);
    block_options_free(item->kept);
    item->options = options;
    item->kept = block_options_copy(options);
    if (item->kept == NULL) {
        open_no_memory(errp);
        return NULL;
    }
    return item;
}

static void items_free(struct reopen *r)
{
    struct reopen_item *item;

    while ((item = TAILQ_FIRST(&r->items)) != NULL) {
        TAILQ_REMOVE(&r->items, item, entry);
        block_options_free(item->options);
        block_options_free(item->kept);
        bdrv_drained_end(item->bs);
        bdrv_unref(item->bs);
        free(item);
    }
}

/* A child that the node's own options opened, with new ones (owned), or NULL: as they are, but for
 * what it inherits. */
static int child_put(struct reopen *r, const struct reopen_item *parent, BdrvEdge *edge,
                     BlockOptions *options, Error **errp)
{
    struct reopen_item *item;

    if (options == NULL &&
        (item_find(r, edge->bs) != NULL || parent->flags == parent->bs->open_flags)) {
        return 0;
    }
    item = item_put(r, edge->bs, options, errp);
    if (item == NULL) {
        return -ENOMEM;
    }
    item->has_parent = true;
    item->parent_flags = parent->flags;
    item->role = edge->role;
    return 0;
}

/* ---- children ---- */

static int refuse_child_options(const char *name, BlockOptions *options, Error **errp)
{
    const char *key = block_options_next_key(options, NULL);

    return error_set(errp, EINVAL, "Cannot change the option '%s.%s'", name,
                     key != NULL ? key : "driver");
}

static int child_to_reference(struct reopen *r, struct reopen_item *item, BdrvEdge *edge,
                              const char *name, const char *reference, Error **errp)
{
    BlockDriverState *node = bdrv_find_node(r->pl, reference);
    bool cow = edge == NULL || (edge->role & BDRV_ROLE_COW);
    int rc = 0;

    if (edge != NULL && edge->bs != node && !cow && !(edge->role & BDRV_ROLE_PRIMARY)) {
        return error_set(errp, EINVAL, "Cannot change the option '%s'", name);
    }
    if (node == NULL) {
        return error_set(errp, ENOENT, "Cannot find device='' nor node-name='%.*s'",
                         BDRV_NODE_NAME_BYTES_MAX, reference);
    }
    if (cow && backing_chain_depth(node) >= r->pl->backing_depth_max) {
        rc = error_set(errp, ELOOP, "The backing chain would be more than %u files deep at '%s'",
                       r->pl->backing_depth_max, bdrv_get_told_name(item->bs));
    } else if (edge == NULL) {
        graph_tx_attach_child(r->tx, item->bs, node, name, BDRV_ROLE_COW);
    } else if (edge->bs != node) {
        graph_tx_replace(r->tx, edge, node);
    } else if (edge->opened_here && !cow) { /* goes on taking what it inherits */
        rc = child_put(r, item, edge, NULL, errp);
    }
    return rc; /* the transaction has its own reference */
}

/* edge NULL: a backing file that is not there. */
static int plan_child(struct reopen *r, struct reopen_item *item, BdrvEdge *edge, const char *name,
                      struct bdrv_child_options *from, Error **errp)
{
    bool cow = edge == NULL || (edge->role & BDRV_ROLE_COW);

    if (from->reference != NULL) {
        return child_to_reference(r, item, edge, name, from->reference, errp);
    }
    if (from->is_null && !cow) {
        return error_set(errp, EINVAL, "Option '%s' of node '%s' cannot be null", name,
                         bdrv_get_told_name(item->bs));
    }
    if (from->is_null) {
        if (edge != NULL) {
            graph_tx_detach(r->tx, edge);
        }
        return 0;
    }
    if (from->options != NULL) {
        BlockOptions *options = from->options;

        from->options = NULL;
        if (edge != NULL && edge->opened_here) {
            return child_put(r, item, edge, options, errp);
        }
        refuse_child_options(name, options, errp);
        block_options_free(options);
        return -EINVAL;
    }
    if (edge == NULL) {
        return 0;
    }
    if (cow || !edge->opened_here) {
        return error_set(errp, EINVAL, "%s is missing for '%s'", name,
                         bdrv_get_told_name(item->bs));
    }
    return child_put(r, item, edge, NULL, errp);
}

static int plan_named_child(struct reopen *r, struct reopen_item *item, BdrvEdge *edge,
                            const char *name, Error **errp)
{
    const char *reference = block_options_get_str(item->options, name);
    struct bdrv_child_options from;
    int rc = bdrv_child_options_take(item->bs, item->options, name, &from, errp);

    if (rc == 0 && reference != NULL && *reference == '\0') { /* null in an open alone */
        from.reference = reference;
        from.is_null = false;
    }
    if (rc == 0) {
        rc = plan_child(r, item, edge, name, &from, errp);
        block_options_free(from.options);
        block_options_del(item->options, name);
    }
    return rc;
}

static int plan_children(struct reopen *r, struct reopen_item *item, Error **errp)
{
    BlockDriverState *bs = item->bs;
    BdrvEdge *edge;
    int rc = 0;

    TAILQ_FOREACH (edge, &bs->children, in_parent) {
        if (item->options == NULL) {
            rc = edge->opened_here && !(edge->role & BDRV_ROLE_COW)
                     ? child_put(r, item, edge, NULL, errp)
                     : 0;
        } else {
            rc = plan_named_child(r, item, edge, edge->name, errp);
        }
        if (rc < 0) {
            return rc;
        }
    }
    if (item->options != NULL && bs->backing_slot != NULL && *bs->backing_slot == NULL) {
        rc = plan_named_child(r, item, NULL, "backing", errp);
    }
    return rc;
}

/* ---- one node ---- */

/* What the node has where its options say nothing. */
static int base_flags(const struct reopen_item *item)
{
    BlockDriverState *bs = item->bs;
    BdrvEdge *edge;

    if (item->has_parent) {
        return open_child_flags(item->parent_flags, item->role);
    }
    TAILQ_FOREACH (edge, &bs->parents, in_child) {
        if (edge->opened_here) {
            return open_child_flags(edge_parent_node(edge)->open_flags, edge->role);
        }
    }
    return BDRV_O_RDWR;
}

static int refuse_common(const struct reopen_item *item, const struct opts_node_common *common,
                         Error **errp)
{
    const BlockDriverState *bs = item->bs;
    const char *what = NULL;

    if (!common->has_driver) {
        return error_set(errp, EINVAL, "Parameter 'driver' is missing for node '%s'",
                         bdrv_get_told_name(bs));
    }
    if (strcmp(common->driver, bs->drv->format_name) != 0) {
        what = "driver";
    } else if (common->has_node_name && strcmp(common->node_name, bs->node_name) != 0) {
        what = "node-name";
    } else if (common->has_force_share &&
               common->force_share != ((bs->open_flags & BDRV_O_FORCE_SHARE) != 0)) {
        what = "force-share";
    }
    return what == NULL ? 0 : error_set(errp, EINVAL, "Cannot change the option '%s'", what);
}

static int plan_common(struct reopen_item *item, const struct opts_node_common *common, bool given,
                       Error **errp)
{
    BlockDriverState *bs = item->bs;
    int flags = (base_flags(item) & (OPTION_FLAGS | BDRV_O_FORCE_SHARE)) |
                (bs->open_flags & ~(OPTION_FLAGS | BDRV_O_FORCE_SHARE));
    int rc = given ? refuse_common(item, common, errp) : 0;

    rc = rc == 0 ? open_flags_from_options(common, &flags, errp) : rc;
    if (rc == 0 && given && ((flags ^ bs->open_flags) & BDRV_O_FORCE_SHARE)) {
        rc = error_set(errp, EINVAL, "Cannot change the option 'force-share'");
    }
    if (rc == 0 && (bs->open_bounds & BDRV_OPEN_READ_ONLY) && (flags & BDRV_O_RDWR)) {
        if (given) {
            rc = error_set(errp, EPERM, "A backing file cannot be opened with read-only=off");
        }
        flags &= ~BDRV_O_RDWR;
    }
    item->flags = flags;
    item->detect_zeroes = given ? open_detect_zeroes(common) : bs->detect_zeroes;
    return rc;
}

static int plan_item(struct reopen *r, struct reopen_item *item, Error **errp)
{
    BlockDriverState *bs = item->bs;
    BlockOptions *own = NULL;
    struct opts_node_common common;
    int rc;

    if (bs->drv == NULL) {
        return error_set(errp, ENOMEDIUM, "Node '%s' holds no medium", bdrv_get_told_name(bs));
    }
    if (item->options == NULL) {
        own = bs->options != NULL ? block_options_copy(bs->options) : block_options_new();
        if (own == NULL) {
            return open_no_memory(errp);
        }
    }
    rc = opts_node_common_parse(own != NULL ? own : item->options, &common, errp);
    if (rc == 0) {
        rc = plan_common(item, &common, own == NULL, errp);
        opts_node_common_fini(&common);
    }
    block_options_free(own);
    if (rc == 0) {
        rc = plan_children(r, item, errp);
    }
    return rc == 0 && item->options != NULL ? refuse_missing(item, errp) : rc;
}

/* ---- all ---- */

static int put_given(struct reopen *r, struct bdrv_reopen *nodes, size_t n_nodes, Error **errp)
{
    for (size_t i = 0; i < n_nodes; i++) {
        BlockOptions *options = nodes[i].options;
        BlockDriverState *bs = nodes[i].bs;
        const char *name = options != NULL ? block_options_get_str(options, "node-name") : NULL;

        if (options == NULL || (bs == NULL && name == NULL)) {
            return error_set(errp, EINVAL, "node-name not specified");
        }
        if (bs == NULL) {
            bs = bdrv_find_node(r->pl, name);
        }
        if (bs == NULL) {
            return error_set(errp, ENOENT, "Failed to find node with node-name='%.*s'",
                             BDRV_NODE_NAME_BYTES_MAX, name);
        }
        nodes[i].options = NULL;
        if (item_put(r, bs, options, errp) == NULL) {
            return -ENOMEM;
        }
    }
    return 0;
}

/* R2 */
static void tx_add_items(struct reopen *r)
{
    struct node_walk walk = node_walk_begin(r->pl);
    struct reopen_item *item;
    BlockDriverState *bs;

    TAILQ_FOREACH (item, &r->items, entry) {
        node_walk_add_below(&walk, item->bs);
    }
    for (bs = walk.first; bs != NULL; bs = bs->walk.next) {
        item = item_find(r, bs);
        if (item != NULL) {
            graph_tx_reopen(r->tx, bs, item->flags, item->detect_zeroes, item->options);
        }
    }
}

static int reopen_run(struct reopen *r, Error **errp)
{
    struct graph_tx *tx = r->tx;
    struct reopen_item *item;
    int rc = 0;

    TAILQ_FOREACH (item, &r->items, entry) { /* it grows on the way */
        rc = plan_item(r, item, errp);
        if (rc < 0) {
            return rc;
        }
    }
    tx_add_items(r);
    r->tx = NULL;
    rc = graph_tx_run(tx, errp);
    if (rc < 0) {
        return rc;
    }
    TAILQ_FOREACH (item, &r->items, entry) {
        if (item->kept != NULL) {
            block_options_free(item->bs->options);
            item->bs->options = item->kept;
            item->kept = NULL;
        }
    }
    return 0;
}

int bdrv_reopen_with_options(Platter *pl, struct bdrv_reopen *nodes, size_t n_nodes, Error **errp)
{
    struct reopen r = {.pl = pl};
    int rc;

    instance_control(pl);
    TAILQ_INIT(&r.items);
    r.tx = graph_tx_new(pl);
    rc = r.tx == NULL ? open_no_memory(errp) : put_given(&r, nodes, n_nodes, errp);
    if (rc == 0) {
        rc = reopen_run(&r, errp);
    }
    graph_tx_cancel(r.tx);
    items_free(&r);
    for (size_t i = 0; i < n_nodes; i++) {
        block_options_free(nodes[i].options);
        nodes[i].options = NULL;
    }
    graph_tell_sizes(pl);
    return rc;
}
