/* SPDX-License-Identifier: MIT */
/*
 * The backends of an instance: names, references, the end of a backend, legacy drive records.
 *
 * Invariants
 *  R1  A visible backend is in room->visible, has a name, and holds that name in the name space
 * that it shares with the nodes. A hidden one has the name "" and holds none. R2  A backend ends in
 * the control thread, outside coroutines. A last reference that is dropped elsewhere goes to
 * unref_bh instead, which drops it there. (Only one can be on its way: as long as it is, no other
 * reference is the last.) R3  It ends only with nothing in flight.
 */
#include "backend/backend_int.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/size.h"

struct DriveInfo {
    char *serial;
    BlockOptions *options;
};

struct blk_room *blk_room(Platter *pl)
{
    return pl->rooms[INSTANCE_ROOM_BACKENDS].data;
}

static void drive_info_del(DriveInfo *dinfo)
{
    if (dinfo == NULL) {
        return;
    }
    block_options_free(dinfo->options);
    free(dinfo->serial);
    free(dinfo);
}

static void blk_unlist(BlockBackend *blk)
{
    if (blk->visible) {
        TAILQ_REMOVE(&blk_room(blk->pl)->visible, blk, in_visible);
        instance_name_del(blk->pl, blk->name);
        blk->visible = false;
    }
}

static void blk_free(BlockBackend *blk)
{
    if (blk->unref_bh != NULL) {
        aio_bh_delete(blk->unref_bh);
    }
    aio_context_unref(atomic_load(&blk->home_ctx));
    acct_fini(&blk->stats);
    os_mutex_fini(&blk->lock);
    free(blk->name);
    free(blk);
}

/* Keeps R3: removal of the medium drains, and what an empty backend has in flight is waited for.
 * It is out of all lists before anything else runs, so that nobody finds it any more. */
static void blk_delete(BlockBackend *blk)
{
    BLK_ASSERT_CONTROL_POLLS(blk->pl);
    blk_unlist(blk);
    TAILQ_REMOVE(&blk_room(blk->pl)->all, blk, in_all);
    if (blk->root != NULL) {
        blk_remove_bs(blk);
    }
    blk_drain(blk);
    assert(TAILQ_EMPTY(&blk->drained_queue));
    throttle_member_leave(&blk->throttle);
    bdrv_op_blockers_free(&blk->op_blockers);
    blk_context_notifiers_free(blk);
    drive_info_del(blk->legacy_dinfo);
    blk_free(blk);
}

/* The reference that was handed over is dropped here. */
static void blk_unref_bh(void *opaque)
{
    blk_unref(opaque);
}

/* The instance ends. Devices and other users are expected to be gone; whoever is not loses its
 * backend here. */
static void blk_room_fini(Platter *pl, void *data)
{
    struct blk_room *room = data;
    BlockBackend *blk;

    while ((blk = TAILQ_FIRST(&room->all)) != NULL) {
        blk_dev_release(blk);
        blk_delete(blk);
    }
    free(room);
}

static struct blk_room *blk_room_get(Platter *pl)
{
    struct blk_room *room = blk_room(pl);

    if (room == NULL) {
        room = malloc(sizeof(*room));
        if (room == NULL) {
            return NULL;
        }
        TAILQ_INIT(&room->visible);
        TAILQ_INIT(&room->all);
        pl->rooms[INSTANCE_ROOM_BACKENDS].data = room;
        pl->rooms[INSTANCE_ROOM_BACKENDS].fini = blk_room_fini;
    }
    return room;
}

static int name_check(Platter *pl, const char *name, Error **errp)
{
    if (name == NULL || !id_wellformed(name)) {
        return error_set(errp, EINVAL, "Invalid device name");
    }
    switch (instance_name_find(pl, name, NULL)) {
    case INSTANCE_NAME_BACKEND:
        return error_set(errp, EEXIST, "Device with id '%s' already exists", name);
    case INSTANCE_NAME_NODE:
        return error_set(errp, EEXIST, "Device name '%s' conflicts with an existing node name",
                         name);
    default:
        return 0;
    }
}

static BlockBackend *blk_alloc(Platter *pl, const char *name)
{
    BlockBackend *blk = aligned_alloc(alignof(BlockBackend), sizeof(*blk));

    if (blk == NULL) {
        return NULL;
    }
    memset(blk, 0, sizeof(*blk));
    blk->pl = pl;
    atomic_init(&blk->refcnt, 1);
    os_mutex_init(&blk->lock);
    TAILQ_INIT(&blk->drained_queue);
    throttle_member_init(&blk->throttle);
    atomic_init(&blk->on_write_error, BLOCKDEV_ON_ERROR_REPORT);
    aio_context_ref(pl->main_ctx);
    atomic_init(&blk->home_ctx, pl->main_ctx);
    blk->shared = BDRV_PERM_ALL;
    blk->wce = true;
    blk_special_update(blk);
    blk->name = strdup(name);
    blk->unref_bh = aio_bh_new(pl->main_ctx, blk_unref_bh, blk);
    if (acct_init(&blk->stats) < 0 || blk->name == NULL || blk->unref_bh == NULL) {
        blk_free(blk);
        return NULL;
    }
    return blk;
}

BlockBackend *blk_new(Platter *pl, const char *name, Error **errp)
{
    struct blk_room *room;
    BlockBackend *blk;

    BLK_ASSERT_CONTROL_POLLS(pl);
    if (name_check(pl, name, errp) < 0) {
        return NULL;
    }
    room = blk_room_get(pl);
    blk = room != NULL ? blk_alloc(pl, name) : NULL;
    if (blk != NULL && instance_name_add(pl, name, INSTANCE_NAME_BACKEND, blk) < 0) {
        blk_free(blk);
        blk = NULL;
    }
    if (blk == NULL) {
        error_set(errp, ENOMEM, "Cannot create device '%s': out of memory", name);
        return NULL;
    }
    blk->visible = true;
    TAILQ_INSERT_TAIL(&room->visible, blk, in_visible);
    TAILQ_INSERT_TAIL(&room->all, blk, in_all);
    return blk;
}

BlockBackend *blk_new_hidden(Platter *pl, Error **errp)
{
    struct blk_room *room = blk_room_get(pl);
    BlockBackend *blk = room != NULL ? blk_alloc(pl, "") : NULL;

    BLK_ASSERT_CONTROL(pl);
    if (blk == NULL) {
        error_set(errp, ENOMEM, "out of memory");
        return NULL;
    }
    TAILQ_INSERT_TAIL(&room->all, blk, in_all);
    return blk;
}

/* Give bs (ownership passes in) to a new backend; on failure both end. */
static BlockBackend *blk_new_finish(BlockBackend *blk, BlockDriverState *bs, Error **errp)
{
    int ret = -EINVAL;

    if (bs != NULL) {
        ret = blk_insert_bs(blk, bs, errp);
        bdrv_unref(bs);
    }
    if (ret < 0) {
        blk_unref(blk);
        return NULL;
    }
    return blk;
}

BlockBackend *blk_new_with_bs(Platter *pl, const char *name, Error **errp)
{
    BlockBackend *blk = blk_new(pl, name, errp);

    return blk == NULL ? NULL : blk_new_finish(blk, bdrv_new_root(pl, errp), errp);
}

BlockBackend *blk_new_open(Platter *pl, const char *name, const char *filename,
                           const char *reference, BlockOptions *options, int flags, Error **errp)
{
    BlockBackend *blk = blk_new(pl, name, errp);

    if (blk == NULL) {
        block_options_free(options);
        return NULL;
    }
    return blk_new_finish(blk, bdrv_open(pl, filename, reference, options, flags, errp), errp);
}

void blk_ref(BlockBackend *blk)
{
    atomic_fetch_add_explicit(&blk->refcnt, 1, memory_order_relaxed);
}

bool blk_ref_if_alive(BlockBackend *blk)
{
    int old = atomic_load_explicit(&blk->refcnt, memory_order_relaxed);

    do {
        if (old == 0) {
            return false;
        }
    } while (!atomic_compare_exchange_weak_explicit(&blk->refcnt, &old, old + 1,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

/* The bottom half may run, and blk and the instance end, before the schedule has returned. */
static void blk_hand_over(BlockBackend *blk)
{
    AioContext *main_ctx = blk->pl->main_ctx;

    aio_context_ref(main_ctx);
    aio_bh_schedule(blk->unref_bh);
    aio_context_unref(main_ctx);
}

/* Keeps R2. */
void blk_unref(BlockBackend *blk)
{
    int old;

    if (blk == NULL) {
        return;
    }
    old = atomic_load_explicit(&blk->refcnt, memory_order_relaxed);
    do {
        assert(old > 0);
        if (old == 1 && !(instance_in_control_thread(blk->pl) && !in_coroutine())) {
            blk_hand_over(blk);
            return;
        }
    } while (!atomic_compare_exchange_weak_explicit(&blk->refcnt, &old, old - 1,
                                                    memory_order_acq_rel, memory_order_relaxed));
    if (old == 1) {
        blk_delete(blk);
    }
}

BlockAcctStats *blk_get_stats(BlockBackend *blk)
{
    return &blk->stats;
}

BlockBackend *blk_next(Platter *pl, BlockBackend *blk)
{
    struct blk_room *room = blk_room(pl);

    BLK_ASSERT_CONTROL(pl);
    if (room == NULL) {
        return NULL;
    }
    return blk == NULL ? TAILQ_FIRST(&room->visible) : TAILQ_NEXT(blk, in_visible);
}

const char *blk_name(const BlockBackend *blk)
{
    return blk->name;
}

BlockBackend *blk_by_name(Platter *pl, const char *name)
{
    void *owner = NULL;

    BLK_ASSERT_CONTROL(pl);
    if (name == NULL || instance_name_find(pl, name, &owner) != INSTANCE_NAME_BACKEND) {
        return NULL;
    }
    return owner;
}

Platter *blk_get_platter(BlockBackend *blk)
{
    return blk->pl;
}

DriveInfo *blk_legacy_dinfo(BlockBackend *blk)
{
    BLK_ASSERT_CONTROL(blk->pl);
    return blk->legacy_dinfo;
}

DriveInfo *blk_set_legacy_dinfo(BlockBackend *blk, DriveInfo *dinfo)
{
    BLK_ASSERT_CONTROL(blk->pl);
    assert(blk->legacy_dinfo == NULL);
    blk->legacy_dinfo = dinfo;
    return dinfo;
}

BlockBackend *blk_by_legacy_dinfo(Platter *pl, DriveInfo *dinfo)
{
    BlockBackend *blk = NULL;

    if (dinfo == NULL) {
        return NULL;
    }
    while ((blk = blk_next(pl, blk)) != NULL) {
        if (blk->legacy_dinfo == dinfo) {
            return blk;
        }
    }
    return NULL;
}

/* A node without a name of its own has a generated one. Out of memory it keeps the old name. */
static void node_make_anon(BlockDriverState *bs)
{
    Platter *pl = bs->pl;
    char name[32];
    char *copy;

    if (bs->implicit_name) {
        return;
    }
    do {
        snprintf(name, sizeof(name), "#block%" PRIu64, pl->next_node_number++);
    } while (instance_name_find(pl, name, NULL) != INSTANCE_NAME_NONE);
    copy = strdup(name);
    if (copy == NULL || instance_name_add(pl, name, INSTANCE_NAME_NODE, bs) < 0) {
        free(copy);
        return;
    }
    instance_name_del(pl, bs->node_name);
    free(bs->node_name);
    bs->node_name = copy;
    bs->implicit_name = true;
}

void blk_hide_on_behalf_of_hmp_drive_del(BlockBackend *blk)
{
    BLK_ASSERT_CONTROL(blk->pl);
    if (!blk->visible) {
        return;
    }
    blk_unlist(blk);
    blk->name[0] = '\0';
    if (blk->root != NULL) {
        node_make_anon(blk->root->bs);
    }
}

DriveInfo *drive_info_new(const char *serial, BlockOptions *options)
{
    DriveInfo *dinfo = calloc(1, sizeof(*dinfo));

    if (dinfo != NULL && serial != NULL) {
        dinfo->serial = strdup(serial);
    }
    if (dinfo == NULL || (serial != NULL && dinfo->serial == NULL)) {
        free(dinfo);
        block_options_free(options);
        return NULL;
    }
    dinfo->options = options;
    return dinfo;
}

const char *drive_info_serial(const DriveInfo *dinfo)
{
    return dinfo->serial;
}
