/* SPDX-License-Identifier: MIT */
/*
 * Op blockers: named reasons why an operation on a node as a whole is refused, on top of what
 * permissions say. A reason is an Error that its owner keeps while it blocks. Control thread.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "block/graph_int.h"
#include "util/error.h"

struct bdrv_op_blocker {
    const Error *reason; /* borrowed: it names the block */
    unsigned ops;        /* 1 << BlockOpType, each */
    struct bdrv_op_blocker *next;
};

int bdrv_op_block(struct bdrv_op_blocker **list, unsigned ops, const Error *reason)
{
    struct bdrv_op_blocker *b;

    for (b = *list; b != NULL && b->reason != reason; b = b->next) {
    }
    if (b == NULL) {
        b = calloc(1, sizeof(*b));
        if (b == NULL) {
            return -ENOMEM;
        }
        b->reason = reason;
        b->next = *list;
        *list = b;
    }
    b->ops |= ops;
    return 0;
}

void bdrv_op_unblock(struct bdrv_op_blocker **list, unsigned ops, const Error *reason)
{
    struct bdrv_op_blocker **link = list;

    while (*link != NULL) {
        struct bdrv_op_blocker *b = *link;

        if (b->reason == reason) {
            b->ops &= ~ops;
        }
        if (b->ops == 0) {
            *link = b->next;
            free(b);
        } else {
            link = &b->next;
        }
    }
}

const Error *bdrv_op_blocked_by(const struct bdrv_op_blocker *list, BlockOpType op)
{
    for (; list != NULL; list = list->next) {
        if (list->ops & 1u << op) {
            return list->reason;
        }
    }
    return NULL;
}

void bdrv_op_blockers_free(struct bdrv_op_blocker **list)
{
    while (*list != NULL) {
        bdrv_op_unblock(list, UINT32_MAX, (*list)->reason);
    }
}

void bdrv_tell_iostatus_reset(BlockDriverState *bs)
{
    BdrvEdge *edge;

    assert(instance_in_control_thread(bs->pl));
    TAILQ_FOREACH (edge, &bs->parents, in_child) {
        if (edge->klass->iostatus_reset != NULL) {
            edge->klass->iostatus_reset(edge);
        }
    }
}

bool bdrv_op_is_blocked(BlockDriverState *bs, BlockOpType op, Error **errp)
{
    const Error *reason = bdrv_op_blocked_by(bs->op_blockers, op);
    BdrvEdge *edge;

    assert(instance_in_control_thread(bs->pl));
    TAILQ_FOREACH (edge, &bs->parents, in_child) {
        if (reason == NULL && edge->klass->op_blockers != NULL) {
            reason = bdrv_op_blocked_by(*edge->klass->op_blockers(edge), op);
        }
    }
    if (reason != NULL) {
        error_set(errp, EBUSY, "Node '%s' is busy: %s", bdrv_get_told_name(bs),
                  error_get_pretty(reason));
    }
    return reason != NULL;
}
