/* SPDX-License-Identifier: MIT */
/*
 * Public changes of a live graph. Each is two graph transactions, there and back, built while the
 * nodes concerned are drained, so that the lists of their users stand still; the first is run at
 * once, the second only when a larger change fails later (transaction.c).
 */
#include "block/graph_edit.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "block/graph_int.h"
#include "block/graph_tx.h"
#include "block/open_int.h"
#include "util/error.h"
#include "util/options.h"

/* What a filter is opened with where its options do not say. */
#define FILTER_FLAGS (BDRV_O_RDWR | BDRV_O_NOCACHE | BDRV_O_NO_FLUSH | BDRV_O_FORCE_SHARE)

struct edit_plan {
    BlockDriverState *from; /* whose users move */
    BlockDriverState *to;
    struct graph_tx *forward;
    struct graph_tx *inverse;
};

static void plan_begin(struct edit_plan *plan, BlockDriverState *from, BlockDriverState *to)
{
    *plan = (struct edit_plan){
        .from = from,
        .to = to,
        .forward = graph_tx_new(from->pl),
        .inverse = graph_tx_new(from->pl),
    };
}

static void plan_move(struct edit_plan *plan, BdrvEdge *edge)
{
    graph_tx_replace_from(plan->forward, edge, plan->from, plan->to);
    graph_tx_replace_from(plan->inverse, edge, plan->to, plan->from);
}

/* All users but to itself and what is below it. */
static void plan_move_users(struct edit_plan *plan)
{
    struct node_walk walk = node_walk_begin(plan->to->pl);
    BdrvEdge *edge;

    node_walk_add_below(&walk, plan->to);
    TAILQ_FOREACH (edge, &plan->from->parents, in_child) {
        BlockDriverState *parent = edge_parent_node(edge);

        if (parent == NULL || !node_walk_has(&walk, parent)) {
            plan_move(plan, edge);
        }
    }
}

static int plan_refuse(struct edit_plan *plan, int rc)
{
    graph_tx_cancel(plan->forward);
    graph_tx_cancel(plan->inverse);
    return rc;
}

static int plan_run(struct edit_plan *plan, struct graph_edit *edit, Error **errp)
{
    int rc;

    if (plan->forward == NULL || !graph_tx_complete(plan->inverse)) {
        error_set(errp, ENOMEM, "out of memory for a change of the block graph");
        return plan_refuse(plan, -ENOMEM);
    }
    rc = graph_tx_run(plan->forward, errp);
    if (rc < 0) {
        graph_tx_cancel(plan->inverse);
        return rc;
    }
    *edit = (struct graph_edit){
        .inverse = plan->inverse,
        .to = bdrv_getlength(plan->from) != bdrv_getlength(plan->to) ? plan->to : NULL,
    };
    return 0;
}

void graph_edit_keep(struct graph_edit *edit)
{
    graph_tx_cancel(edit->inverse);
    edit->inverse = NULL;
    if (edit->to != NULL) {
        edit->to->resize_untold = true;
        edit->to->pl->sizes_untold = true;
    }
}

int graph_edit_undo(struct graph_edit *edit, Error **errp)
{
    int rc = graph_tx_run(edit->inverse, errp);

    edit->inverse = NULL;
    return rc;
}

/* ---- what is asked for ---- */

static bool link_is(const BdrvEdge *edge, const struct bdrv_link *link)
{
    const char *user = edge->klass->name != NULL ? edge->klass->name(edge->parent) : NULL;

    return user != NULL && strcmp(user, link->user) == 0 &&
           (link->name == NULL || strcmp(edge->name, link->name) == 0);
}

static int plan_move_link(struct edit_plan *plan, const struct bdrv_link *link, Error **errp)
{
    BdrvEdge *edge, *found = NULL;

    if (link->user == NULL || link->user[0] == '\0') {
        return error_set(errp, EINVAL, "A link to node '%s' is given without its user",
                         bdrv_get_told_name(plan->from));
    }
    TAILQ_FOREACH (edge, &plan->from->parents, in_child) {
        if (!link_is(edge, link)) {
            continue;
        }
        if (found != NULL) {
            return error_set(errp, EINVAL, "'%.*s' uses node '%s' more than once: say as what",
                             BDRV_NODE_NAME_BYTES_MAX, link->user, bdrv_get_told_name(plan->from));
        }
        found = edge;
    }
    if (found == NULL) {
        return error_set(errp, ENOENT, "'%.*s' does not use node '%s'%s%.*s%s",
                         BDRV_NODE_NAME_BYTES_MAX, link->user, bdrv_get_told_name(plan->from),
                         link->name != NULL ? " as '" : "", BDRV_NODE_NAME_BYTES_MAX,
                         link->name != NULL ? link->name : "", link->name != NULL ? "'" : "");
    }
    plan_move(plan, found);
    return 0;
}

static int refuse_no_filter(const BlockDriverState *filter, Error **errp)
{
    if (!(filter->caps & BDRV_CAP_FILTER) || filter->file == NULL ||
        !(filter->file->role & BDRV_ROLE_FILTERED)) {
        return error_set(errp, EINVAL, "Node '%s' (driver '%s') is not a filter",
                         bdrv_get_told_name(filter), bdrv_get_format_name(filter));
    }
    return 0;
}

/* ---- the edits ---- */

int graph_edit_insert(struct graph_edit *edit, BlockDriverState *filter, BlockDriverState *bs,
                      const struct bdrv_link *links, size_t n_links, Error **errp)
{
    struct edit_plan plan;
    int rc = refuse_no_filter(filter, errp);

    if (rc == 0 && filter->file->bs != bs) {
        rc = error_set(errp, EINVAL, "Filter '%s' stands over node '%s', not over '%s'",
                       bdrv_get_told_name(filter), bdrv_get_told_name(filter->file->bs),
                       bdrv_get_told_name(bs));
    }
    if (rc == 0 && bdrv_op_is_blocked(bs, BLOCK_OP_TYPE_REPLACE, errp)) {
        rc = -EBUSY;
    }
    if (rc < 0) {
        return rc;
    }
    plan_begin(&plan, bs, filter);
    if (links == NULL) {
        plan_move_users(&plan);
    }
    for (size_t i = 0; links != NULL && i < n_links && rc == 0; i++) {
        rc = plan_move_link(&plan, &links[i], errp);
    }
    return rc < 0 ? plan_refuse(&plan, rc) : plan_run(&plan, edit, errp);
}

int graph_edit_remove(struct graph_edit *edit, BlockDriverState *filter, Error **errp)
{
    struct edit_plan plan;
    int rc = refuse_no_filter(filter, errp);

    if (rc == 0 && bdrv_op_is_blocked(filter, BLOCK_OP_TYPE_REPLACE, errp)) {
        rc = -EBUSY;
    }
    if (rc < 0) {
        return rc;
    }
    plan_begin(&plan, filter, filter->file->bs);
    plan_move_users(&plan);
    return plan_run(&plan, edit, errp);
}

int graph_edit_replace(struct graph_edit *edit, BlockDriverState *from, BlockDriverState *to,
                       Error **errp)
{
    struct edit_plan plan;

    if (from == to) {
        return error_set(errp, EINVAL, "Node '%s' cannot replace itself", bdrv_get_told_name(from));
    }
    if (bdrv_op_is_blocked(from, BLOCK_OP_TYPE_REPLACE, errp)) {
        return -EBUSY;
    }
    plan_begin(&plan, from, to);
    plan_move_users(&plan);
    return plan_run(&plan, edit, errp);
}

static int refuse_append(BlockDriverState *overlay, BlockDriverState *bs, Error **errp)
{
    if (bs->drv == NULL) {
        return error_set(errp, ENOMEDIUM, "Node '%s' holds no medium", bdrv_get_told_name(bs));
    }
    if (bdrv_op_is_blocked(bs, BLOCK_OP_TYPE_EXTERNAL_SNAPSHOT, errp)) {
        return -EBUSY;
    }
    if (!TAILQ_EMPTY(&overlay->parents)) {
        return error_set(errp, EINVAL, "The overlay is already in use");
    }
    if (overlay->backing_slot == NULL) {
        return error_set(errp, EINVAL, "The overlay does not support backing images");
    }
    if (*overlay->backing_slot != NULL) {
        return error_set(errp, EINVAL, "The overlay already has a backing image");
    }
    if (backing_chain_depth(bs) >= bs->pl->backing_depth_max) {
        return error_set(errp, ELOOP, "The backing chain would be more than %u files deep at '%s'",
                         bs->pl->backing_depth_max, bdrv_get_told_name(overlay));
    }
    return 0;
}

/* Flushes go to the overlay from here on and do not reach bs: what was written to it must be safe
 * now. Drained. */
static int flush_below(BlockDriverState *bs, Error **errp)
{
    BdrvEdge edge = {.bs = bs, .klass = &bdrv_node_parent_class};
    int rc = bdrv_edge_flush(&edge);

    return rc < 0 ? error_set_errno(errp, -rc, "Could not flush node '%s' before its snapshot",
                                    bdrv_get_told_name(bs))
                  : 0;
}

static int append_drained(struct graph_edit *edit, BlockDriverState *overlay, BlockDriverState *bs,
                          Error **errp)
{
    struct edit_plan plan;
    BdrvEdge *edge;
    int rc = flush_below(bs, errp);

    if (rc < 0) {
        return rc;
    }
    plan_begin(&plan, bs, overlay);
    edge = graph_tx_attach_child(plan.forward, overlay, bs, "backing", BDRV_ROLE_COW);
    plan_move_users(&plan);
    if (edge != NULL) {
        graph_tx_detach_from(plan.inverse, edge, bs);
    }
    return plan_run(&plan, edit, errp);
}

int graph_edit_append(struct graph_edit *edit, BlockDriverState *overlay, BlockDriverState *bs,
                      Error **errp)
{
    int rc = refuse_append(overlay, bs, errp);

    if (rc < 0) {
        return rc;
    }
    bdrv_drained_begin(bs);
    rc = append_drained(edit, overlay, bs, errp);
    bdrv_drained_end(bs);
    return rc;
}

int graph_edit_unappend(struct graph_edit *edit, BlockDriverState *overlay, Error **errp)
{
    struct edit_plan plan;
    BdrvEdge *edge = overlay->backing_slot != NULL ? *overlay->backing_slot : NULL;

    if (edge == NULL) {
        return error_set(errp, EINVAL, "Node '%s' has no backing file",
                         bdrv_get_told_name(overlay));
    }
    if (bdrv_op_is_blocked(overlay, BLOCK_OP_TYPE_REPLACE, errp)) {
        return -EBUSY;
    }
    plan_begin(&plan, overlay, edge->bs);
    graph_tx_attach_child(plan.inverse, overlay, edge->bs, "backing", BDRV_ROLE_COW);
    plan_move_users(&plan);
    graph_tx_detach(plan.forward, edge);
    return plan_run(&plan, edit, errp);
}

/* ---- the public calls ---- */

static void drain_pair(BlockDriverState *a, BlockDriverState *b)
{
    bdrv_ref(a);
    bdrv_ref(b);
    bdrv_drained_begin(a);
    bdrv_drained_begin(b);
}

/* Ends an edit that was done (rc 0) for good. */
static int edit_end(struct graph_edit *edit, BlockDriverState *a, BlockDriverState *b, int rc)
{
    Platter *pl = a->pl;

    if (rc == 0) {
        graph_edit_keep(edit);
    }
    bdrv_drained_end(b);
    bdrv_drained_end(a);
    bdrv_unref(b);
    bdrv_unref(a);
    graph_tell_sizes(pl);
    return rc;
}

int bdrv_insert_node(BlockDriverState *filter, BlockDriverState *bs, const struct bdrv_link *links,
                     size_t n_links, Error **errp)
{
    struct graph_edit edit;

    instance_control(bs->pl);
    drain_pair(filter, bs);
    return edit_end(&edit, filter, bs, graph_edit_insert(&edit, filter, bs, links, n_links, errp));
}

int bdrv_remove_filter(BlockDriverState *filter, Error **errp)
{
    struct graph_edit edit;
    BlockDriverState *child = filter->file != NULL ? filter->file->bs : filter;

    instance_control(filter->pl);
    drain_pair(filter, child);
    return edit_end(&edit, filter, child, graph_edit_remove(&edit, filter, errp));
}

int bdrv_replace_node(BlockDriverState *from, BlockDriverState *to, Error **errp)
{
    struct graph_edit edit;

    instance_control(from->pl);
    drain_pair(from, to);
    return edit_end(&edit, from, to, graph_edit_replace(&edit, from, to, errp));
}

int bdrv_append(BlockDriverState *overlay, BlockDriverState *bs, Error **errp)
{
    struct graph_edit edit;

    instance_control(bs->pl);
    drain_pair(overlay, bs);
    return edit_end(&edit, overlay, bs, graph_edit_append(&edit, overlay, bs, errp));
}

int bdrv_unappend(BlockDriverState *overlay, Error **errp)
{
    BlockDriverState *backing = overlay->backing_slot != NULL && *overlay->backing_slot != NULL
                                    ? (*overlay->backing_slot)->bs
                                    : overlay;
    struct graph_edit edit;

    instance_control(overlay->pl);
    drain_pair(overlay, backing);
    return edit_end(&edit, overlay, backing, graph_edit_unappend(&edit, overlay, errp));
}

/* options with bs as their child; then they are req's. */
static int filter_options(BlockOptions *options, const BlockDriverState *bs, Error **errp)
{
    const char *name = block_options_get_str(options, "driver");
    const BlockDriver *drv = name != NULL ? bdrv_find_driver(name) : NULL;
    const char *child = drv != NULL && drv->primary_name != NULL ? drv->primary_name : "file";
    char prefix[16]; /* "image." */

    snprintf(prefix, sizeof(prefix), "%s.", child);
    if (name == NULL) {
        return error_set(errp, EINVAL, "No driver is given for a filter on node '%s'",
                         bdrv_get_told_name(bs));
    }
    if (block_options_has(options, child) || block_options_has_prefix(options, prefix)) {
        return error_set(errp, EINVAL, "A filter that is put on node '%s' cannot have another '%s'",
                         bdrv_get_told_name(bs), child);
    }
    return block_options_set_str(options, child, bs->node_name) < 0 ? open_no_memory(errp) : 0;
}

BlockDriverState *bdrv_insert_filter(BlockDriverState *bs, BlockOptions *options,
                                     const struct bdrv_link *links, size_t n_links, Error **errp)
{
    BlockDriverState *filter;
    int flags = (bs->open_flags & FILTER_FLAGS) | BDRV_O_UNMAP;

    instance_control(bs->pl);
    if (options == NULL || filter_options(options, bs, errp) < 0) {
        if (options == NULL) {
            error_set(errp, EINVAL, "No driver is given for a filter on node '%s'",
                      bdrv_get_told_name(bs));
        }
        block_options_free(options);
        return NULL;
    }
    bdrv_ref(bs);
    filter = bdrv_open(bs->pl, NULL, NULL, options, flags, errp);
    if (filter != NULL && bdrv_insert_node(filter, bs, links, n_links, errp) < 0) {
        bdrv_unref(filter);
        filter = NULL;
    }
    bdrv_unref(bs);
    return filter;
}
