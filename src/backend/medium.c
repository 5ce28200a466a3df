/* SPDX-License-Identifier: MIT */
/*
 * The medium: the edge from a backend to its root node, and what changes when it comes and goes.
 *
 * Invariants
 *  M1  root changes only while the backend is drained with nothing in flight.
 *  M2  What was set on the backend (write cache, read-only, detect-zeroes, context, permissions)
 *      holds for each medium in turn.
 */
#include "backend/backend_int.h"
#include "os/trace.h"

#include <stdio.h>

static void root_describe(void *parent, char *buf, size_t size)
{
    const BlockBackend *blk = parent;

    if (blk->name[0] != '\0') {
        snprintf(buf, size, "block device '%s'", blk->name);
    } else {
        snprintf(buf, size, "an unnamed block device");
    }
}

static const char *root_name(void *parent)
{
    const BlockBackend *blk = parent;

    return blk->name;
}

static void root_drained_begin(BdrvEdge *edge)
{
    blk_quiesce_begin(edge->parent);
}

static void root_drained_end(BdrvEdge *edge)
{
    blk_quiesce_end(edge->parent);
}

static bool root_drained_poll(BdrvEdge *edge)
{
    return blk_in_flight(edge->parent);
}

static void root_resized(BdrvEdge *edge)
{
    blk_dev_resize_cb(edge->parent);
}

static struct bdrv_op_blocker **root_op_blockers(BdrvEdge *edge)
{
    BlockBackend *blk = edge->parent;

    return &blk->op_blockers;
}

static void root_iostatus_reset(BdrvEdge *edge)
{
    const BlockBackend *blk = edge->parent;

    if (blk->on_iostatus_reset != NULL) {
        blk->on_iostatus_reset(blk->iostatus_reset_opaque);
    }
}

static const struct bdrv_parent_class blk_root_class = {
    .describe = root_describe,
    .name = root_name,
    .drained_begin = root_drained_begin,
    .drained_end = root_drained_end,
    .drained_poll = root_drained_poll,
    .resized = root_resized,
    .op_blockers = root_op_blockers,
    .iostatus_reset = root_iostatus_reset,
};

BlockDriverState *blk_bs(BlockBackend *blk)
{
    BLK_ASSERT_CONTROL(blk->pl);
    return blk->root != NULL ? blk->root->bs : NULL;
}

/* What to ask for at bs. bs may be NULL: as for a read-only node. */
static uint64_t perm_wanted(const BlockBackend *blk, const BlockDriverState *bs)
{
    uint64_t perm = BDRV_PERM_CONSISTENT_READ;

    if (blk->lent == BLK_LENT) {
        return blk->perm_set ? blk->perm & perm : perm;
    }
    if (blk->perm_set) {
        return blk->perm;
    }
    if (bs != NULL && !bs->read_only && !(blk->read_only_set && blk->read_only)) {
        perm |= BDRV_PERM_WRITE | BDRV_PERM_RESIZE;
    }
    return perm;
}

static uint64_t shared_wanted(const BlockBackend *blk)
{
    return blk->lent == BLK_NOT_LENT ? blk->shared : BDRV_PERM_ALL;
}

/* Make edge (NULL: none) the root, with what follows from that. Drained, nothing in flight. */
static void root_set(BlockBackend *blk, BdrvEdge *edge)
{
    assert(blk->drained_depth > 0); /* a counter may still flicker: see G1 in gate.c */
    blk->root = edge;
    blk_special_update(blk);
    if (edge != NULL && blk->detect_zeroes_set) {
        bdrv_set_detect_zeroes(edge->bs, blk->detect_zeroes);
    }
}

static BdrvEdge *root_attach(BlockBackend *blk, BlockDriverState *bs, Error **errp)
{
    return bdrv_root_attach(bs, "root", &blk_root_class, blk, perm_wanted(blk, bs),
                            shared_wanted(blk), errp);
}

/* The errno of a failure that may have left no Error to ask (errp NULL). */
static int attach_errno(Error **errp, Error *err)
{
    int ret = -error_get_errno(err);

    error_propagate(errp, err);
    return ret;
}

/* Attach bs beside the old root (NULL: none), then let that go. Drained. */
static int root_exchange(BlockBackend *blk, BlockDriverState *bs, Error **errp)
{
    BdrvEdge *old = blk->root;
    Error *err = NULL;
    BdrvEdge *edge = root_attach(blk, bs, &err);

    if (edge == NULL) {
        return attach_errno(errp, err);
    }
    root_set(blk, edge);
    if (old != NULL) {
        bdrv_root_detach(old);
    }
    return 0;
}

int blk_set_bs(BlockBackend *blk, BlockDriverState *bs, Error **errp)
{
    BlockDriverState *drained;
    int ret = 0;

    BLK_ASSERT_CONTROL_POLLS(blk->pl);
    if (blk->root != NULL && blk->root->bs == bs) {
        return 0;
    }
    drained = blk_drained_begin(blk);
    if (blk->root != NULL && blk->root->perm == perm_wanted(blk, bs)) {
        ret = bdrv_root_replace(blk->root, bs, errp);
        if (ret == 0) {
            root_set(blk, blk->root);
        }
    } else {
        ret = root_exchange(blk, bs, errp);
    }
    blk_drained_end(blk, drained);
    return ret;
}

int blk_insert_bs(BlockBackend *blk, BlockDriverState *bs, Error **errp)
{
    BlockDriverState *drained;
    int ret;

    BLK_ASSERT_CONTROL_POLLS(blk->pl);
    if (blk->root != NULL) {
        return error_set(errp, EBUSY, "Device '%s' already has a medium", blk->name);
    }
    drained = blk_drained_begin(blk);
    ret = blk->root == NULL
              ? root_exchange(blk, bs, errp)
              : error_set(errp, EBUSY, "Device '%s' got a medium meanwhile", blk->name);
    blk_drained_end(blk, drained);
    if (ret == 0) {
        TRACE(medium_insert, blk->name, bdrv_get_node_name(bs));
        blk_notify(&blk->insert_notifiers, blk);
    }
    return ret;
}

void blk_remove_bs(BlockBackend *blk)
{
    BlockDriverState *drained;
    BdrvEdge *root;

    BLK_ASSERT_CONTROL_POLLS(blk->pl);
    if (blk->root == NULL) {
        return;
    }
    TRACE(medium_remove, blk->name, bdrv_get_node_name(blk->root->bs));
    blk_notify(&blk->remove_notifiers, blk);
    drained = blk_drained_begin(blk);
    root = blk->root;
    if (root != NULL) { /* what ran meanwhile may have removed it */
        blk_update_root_state(blk);
        root_set(blk, NULL);
        bdrv_root_detach(root);
    }
    blk_drained_end(blk, drained);
    instance_unpark(blk->pl, blk, -ENOMEDIUM);
    blk_notify(&blk->close_notifiers, blk);
}

int blk_update_perm(BlockBackend *blk, Error **errp)
{
    BlockDriverState *drained;
    int ret;

    if (blk->root == NULL) {
        return 0;
    }
    drained = blk_drained_begin(blk);
    ret = bdrv_root_set_perm(blk->root, perm_wanted(blk, blk->root->bs), shared_wanted(blk), errp);
    blk_drained_end(blk, drained);
    return ret;
}

int blk_set_perm(BlockBackend *blk, uint64_t perm, uint64_t shared_perm, Error **errp)
{
    bool old_set = blk->perm_set;
    uint64_t old_perm = blk->perm;
    uint64_t old_shared = blk->shared;
    int ret;

    BLK_ASSERT_CONTROL_POLLS(blk->pl);
    if ((perm | shared_perm) & ~(uint64_t)BDRV_PERM_ALL) {
        return error_set(errp, EINVAL, "Unknown permission bits 0x%llx for device '%s'",
                         (unsigned long long)((perm | shared_perm) & ~(uint64_t)BDRV_PERM_ALL),
                         blk->name);
    }
    blk->perm_set = true;
    blk->perm = perm;
    blk->shared = shared_perm;
    ret = blk_update_perm(blk, errp);
    if (ret < 0) {
        blk->perm_set = old_set;
        blk->perm = old_perm;
        blk->shared = old_shared;
    }
    return ret;
}

int blk_lend(BlockBackend *blk, enum blk_lent lent, Error **errp)
{
    enum blk_lent old = blk->lent;
    int ret;

    BLK_ASSERT_CONTROL_POLLS(blk->pl);
    blk->lent = lent;
    ret = blk_update_perm(blk, errp);
    if (ret < 0) {
        blk->lent = old;
    }
    return ret;
}

void blk_on_iostatus_reset(BlockBackend *blk, void (*reset)(void *opaque), void *opaque)
{
    BLK_ASSERT_CONTROL(blk->pl);
    blk->on_iostatus_reset = reset;
    blk->iostatus_reset_opaque = opaque;
}

void blk_get_perm(const BlockBackend *blk, uint64_t *ret_perm, uint64_t *ret_shared_perm)
{
    *ret_perm = blk->root != NULL ? blk->root->perm : perm_wanted(blk, NULL);
    *ret_shared_perm = blk->shared;
}

bool blk_is_inserted(BlockBackend *blk)
{
    struct blk_facts facts;

    blk_facts_get(blk, &facts);
    return facts.has_root && facts.inserted;
}

bool blk_is_available(BlockBackend *blk)
{
    struct blk_facts facts;

    blk_facts_get(blk, &facts);
    return facts.has_root && facts.inserted && !facts.tray_open;
}

BlockDriverState *blk_find_below(BlockBackend *blk, bool (*has)(const BlockDriver *drv))
{
    BlockDriverState *bs = blk->root != NULL ? blk->root->bs : NULL;

    while (bs != NULL && bs->drv != NULL) {
        if (has(bs->drv)) {
            return bs;
        }
        if ((bs->caps & (BDRV_CAP_FILTER | BDRV_CAP_PASSTHROUGH)) == 0 || bs->file == NULL) {
            return NULL;
        }
        bs = bs->file->bs;
    }
    return NULL;
}

static bool has_invalidate_cache(const BlockDriver *drv)
{
    return drv->invalidate_cache != NULL;
}

void blk_invalidate_cache(BlockBackend *blk, Error **errp)
{
    BlockDriverState *drained;
    BlockDriverState *bs;

    BLK_ASSERT_CONTROL_POLLS(blk->pl);
    if (blk->root == NULL) {
        error_set(errp, ENOMEDIUM, "Device '%s' has no medium", blk->name);
        return;
    }
    drained = blk_drained_begin(blk);
    bs = blk_find_below(blk, has_invalidate_cache);
    if (bs != NULL) {
        bs->drv->invalidate_cache(bs, errp);
    }
    blk_drained_end(blk, drained);
}
