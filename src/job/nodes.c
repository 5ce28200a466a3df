/* SPDX-License-Identifier: MIT */
/*
 * What a job works on. A disk it was given by its backend is in three ways kept as it is: the node
 * is held and operations on it are refused; others may not write to it; and the job asks, before it
 * goes on, whether it still is the medium of that backend.
 */
#include "job/job_int.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

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

int job_add_node(Job *job, const char *name, BlockDriverState *bs, uint64_t perm, uint64_t shared,
                 Error **errp)
{
    struct job_node *node = calloc(1, sizeof(*node));

    if (node == NULL) {
        return error_set(errp, ENOMEM, "out of memory for job '%s'", job->id);
    }
    node->job = job;
    node->edge = bdrv_root_attach(bs, name, &job_parent_class, node, perm, shared, errp);
    if (node->edge == NULL) {
        free(node);
        return -EPERM;
    }
    TAILQ_INSERT_TAIL(&job->nodes, node, entry);
    return 0;
}

/* bs is held. NULL: no memory. */
static struct job_node *add_held(Job *job, BlockDriverState *bs, BlockBackend *blk)
{
    struct job_node *node = calloc(1, sizeof(*node));

    if (node != NULL) {
        node->job = job;
        node->bs = bs;
        bdrv_ref(bs);
        node->blk = blk;
        if (blk != NULL) {
            blk_ref(blk);
        }
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

/* Nobody but blk is to write. */
static int node_alone(struct job_node *node, Error **errp)
{
    const uint64_t changes = BDRV_PERM_WRITE | BDRV_PERM_RESIZE;
    uint64_t perm;
    int ret;

    blk_get_perm(node->blk, &perm, &node->shared);
    ret = blk_set_shared_perm(node->blk, node->shared & ~changes, errp);
    node->alone = ret == 0;
    return ret;
}

int job_block_node(Job *job, BlockDriverState *bs, Error **errp)
{
    struct job_node *node;

    if (bdrv_op_is_blocked(bs, BLOCK_OP_TYPE_CHANGE, errp)) {
        return -EBUSY;
    }
    node = add_held(job, bs, NULL);
    if (node == NULL || node_block(node) < 0) {
        return error_set(errp, ENOMEM, "out of memory for job '%s'", job->id);
    }
    return 0;
}

int job_take_disk(Job *job, BlockBackend *blk, BlockOpType op, Error **errp)
{
    struct job_node *node;

    if (blk_op_is_blocked(blk, op, errp) || blk_op_is_blocked(blk, BLOCK_OP_TYPE_CHANGE, errp)) {
        return -EBUSY;
    }
    node = add_held(job, blk_bs(blk), blk);
    if (node == NULL || node_block(node) < 0) {
        return error_set(errp, ENOMEM, "out of memory for job '%s'", job->id);
    }
    return node_alone(node, errp);
}

int job_read_disk(Job *job, BlockBackend *blk, Error **errp)
{
    struct job_node *node;

    if (blk_op_is_blocked(blk, BLOCK_OP_TYPE_CHANGE, errp)) {
        return -EBUSY;
    }
    node = add_held(job, blk_bs(blk), blk);
    return node != NULL ? node_alone(node, errp)
                        : error_set(errp, ENOMEM, "out of memory for job '%s'", job->id);
}

static bool disk_in_place(const struct job_node *node)
{
    return node->blk == NULL || blk_bs(node->blk) == node->bs;
}

bool job_has_disk(const Job *job, BlockBackend *blk)
{
    const struct job_node *node;

    TAILQ_FOREACH (node, &job->nodes, entry) {
        if (node->blk == blk && disk_in_place(node)) {
            return true;
        }
    }
    return false;
}

static int share_disk(struct job_node *node, Error **errp)
{
    int ret = node->alone ? blk_set_shared_perm(node->blk, node->shared, errp) : 0;

    node->alone = node->alone && ret < 0;
    return ret;
}

int job_share_disks(Job *job, Error **errp)
{
    struct job_node *node;

    TAILQ_FOREACH (node, &job->nodes, entry) {
        int ret = 0;

        if (!disk_in_place(node)) {
            return error_set(errp, ENOMEDIUM, "Device '%s' lost the medium of job '%s'",
                             blk_name(node->blk), job->id);
        }
        ret = share_disk(node, errp);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
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
        if (node->blk != NULL) {
            (void)share_disk(node, NULL); /* gives permissions back, which nobody forbids */
            blk_unref(node->blk);
        }
        bdrv_unref(node->bs);
        free(node);
    }
}
