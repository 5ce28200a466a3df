/* SPDX-License-Identifier: MIT */
/*
 * What a job works on: nodes that are held, on which other operations are refused, and disks. For a
 * disk the job has a backend of its own beside the one that it was given by. Its permissions are
 * those of that one, which only reads meanwhile, and let nobody else write.
 */
#include "job/job_int.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "backend/lend.h"
#include "util/error.h"

static void node_describe(void *parent, char *buf, size_t size)
{
    const struct job_node *node = parent;

    snprintf(buf, size, "job '%s'", node->job->id);
}

static const char *node_name(void *parent)
{
    const struct job_node *node = parent;

    return node->job->id;
}

static void node_drained_begin(BdrvEdge *edge)
{
    struct job_node *node = edge->parent;

    node->job->pause_count++;
}

static void node_drained_end(BdrvEdge *edge)
{
    struct job_node *node = edge->parent;

    assert(node->job->pause_count > 0);
    node->job->pause_count--;
    job_wake(node->job);
}

static bool node_drained_poll(BdrvEdge *edge)
{
    const struct job_node *node = edge->parent;

    return node->job->busy;
}

static void node_iostatus_reset(BdrvEdge *edge)
{
    struct job_node *node = edge->parent;

    job_iostatus_reset(node->job);
}

static const struct bdrv_parent_class job_parent_class = {
    .describe = node_describe,
    .name = node_name,
    .drained_begin = node_drained_begin,
    .drained_end = node_drained_end,
    .drained_poll = node_drained_poll,
    .iostatus_reset = node_iostatus_reset,
};

BdrvEdge *job_add_node(Job *job, const char *name, BlockDriverState *bs, uint64_t perm,
                       uint64_t shared, Error **errp)
{
    struct job_node *node = calloc(1, sizeof(*node));

    if (node == NULL) {
        error_set(errp, ENOMEM, "out of memory for job '%s'", job->id);
        return NULL;
    }
    node->job = job;
    node->edge = bdrv_root_attach(bs, name, &job_parent_class, node, perm, shared, errp);
    if (node->edge == NULL) {
        free(node);
        return NULL;
    }
    TAILQ_INSERT_TAIL(&job->nodes, node, entry);
    return node->edge;
}

/* bs is held. NULL: no memory. */
static struct job_node *add_held(Job *job, BlockDriverState *bs)
{
    struct job_node *node = calloc(1, sizeof(*node));

    if (node != NULL) {
        node->job = job;
        node->bs = bs;
        bdrv_ref(bs);
        TAILQ_INSERT_TAIL(&job->nodes, node, entry);
    }
    return node;
}

static int node_block(struct job_node *node)
{
    Job *job = node->job;

    if (job->blocker == NULL) {
        error_set(&job->blocker, EBUSY, "it is in use by job '%s' (%s)", job->id,
                  job->driver->type);
    }
    if (job->blocker == NULL ||
        bdrv_op_block(&node->bs->op_blockers, UINT32_MAX, job->blocker) < 0) {
        return -ENOMEM;
    }
    node->blocks = true;
    return 0;
}

int job_block_node(Job *job, BlockDriverState *bs, Error **errp)
{
    struct job_node *node;

    if (bdrv_op_is_blocked(bs, BLOCK_OP_TYPE_CHANGE, errp)) {
        return -EBUSY;
    }
    node = add_held(job, bs);
    if (node == NULL || node_block(node) < 0) {
        return error_set(errp, ENOMEM, "out of memory for job '%s'", job->id);
    }
    return 0;
}

/* ---- disks ---- */

/* In steps, so that the permissions are held by one of the two all the time: other processes see
 * them as locks. */
static int node_borrow(struct job_node *node, uint64_t perm, Error **errp)
{
    const uint64_t changes = BDRV_PERM_WRITE | BDRV_PERM_RESIZE;
    int ret = blk_lend(node->lender, BLK_SHARES, errp);

    if (ret == 0) {
        ret = blk_set_perm(node->blk, perm, BDRV_PERM_ALL, errp);
    }
    if (ret == 0) {
        ret = blk_insert_bs(node->blk, node->bs, errp);
    }
    if (ret == 0) {
        ret = blk_lend(node->lender, BLK_LENT, errp);
    }
    return ret < 0 ? ret : blk_set_perm(node->blk, perm, BDRV_PERM_ALL & ~changes, errp);
}

static int node_share(struct job_node *node, Error **errp)
{
    uint64_t perm, shared;

    blk_get_perm(node->blk, &perm, &shared);
    return blk_set_perm(node->blk, perm, BDRV_PERM_ALL, errp);
}

/* What is given back nobody forbids: the job shared it. */
static void node_give_back(struct job_node *node)
{
    (void)node_share(node, NULL);
    (void)blk_lend(node->lender, BLK_SHARES, NULL);
    blk_unref(node->blk);
    (void)blk_lend(node->lender, BLK_NOT_LENT, NULL);
    blk_unref(node->lender);
}

static void disk_iostatus_reset(void *opaque)
{
    job_iostatus_reset(opaque);
}

BlockBackend *job_take_disk(Job *job, BlockBackend *blk, enum job_use use, BlockOpType op,
                            Error **errp)
{
    uint64_t perm, shared;
    struct job_node *node;

    if ((use != JOB_READS && blk_op_is_blocked(blk, op, errp)) ||
        blk_op_is_blocked(blk, BLOCK_OP_TYPE_CHANGE, errp)) {
        return NULL;
    }
    node = add_held(job, blk_bs(blk));
    if (node == NULL || (use != JOB_READS && node_block(node) < 0)) {
        error_set(errp, ENOMEM, "out of memory for job '%s'", job->id);
        return NULL;
    }
    node->blk = blk_new_hidden(job->pl, errp);
    if (node->blk == NULL) {
        return NULL;
    }
    blk_on_iostatus_reset(node->blk, disk_iostatus_reset, job);
    blk_ref(blk);
    node->lender = blk;
    blk_set_enable_write_cache(node->blk, blk_enable_write_cache(blk) != 0);
    blk_get_perm(blk, &perm, &shared);
    perm = use == JOB_WRITES ? perm : BDRV_PERM_CONSISTENT_READ;
    return node_borrow(node, perm, errp) == 0 ? node->blk : NULL;
}

int job_share_disks(Job *job, Error **errp)
{
    struct job_node *node;
    int ret = 0;

    TAILQ_FOREACH (node, &job->nodes, entry) {
        if (ret == 0 && node->blk != NULL) {
            ret = node_share(node, errp);
        }
    }
    return ret;
}

void job_remove_nodes(Job *job)
{
    struct job_node *node;

    while ((node = TAILQ_FIRST(&job->nodes)) != NULL) {
        TAILQ_REMOVE(&job->nodes, node, entry);
        if (node->edge != NULL) {
            bdrv_root_detach(node->edge);
        }
        if (node->blocks) {
            bdrv_op_unblock(&node->bs->op_blockers, UINT32_MAX, job->blocker);
        }
        if (node->lender != NULL) {
            node_give_back(node);
        }
        bdrv_unref(node->bs);
        free(node);
    }
}
