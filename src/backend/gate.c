/* SPDX-License-Identifier: MIT */
/*
 * The gate: requests in flight, drained sections and the drained queue. See backend_int.h for how
 * the counters work.
 *
 * Invariants
 *  G1  While the drained bit is set no counter gains a request that stays, except those the control
 *      thread itself waits for. A late one adds, sees the bit, and takes its count back.
 *  G2  Whoever takes a count back with the bit set wakes the control thread, after the count fell.
 *  G3  A coroutine is in the drained queue only while drained_depth > 0; both change under lock, so
 *      a drain that ends finds every waiter.
 *  G4  A waiter holds a reference, since it is not counted in flight.
 */
#include "backend/backend_int.h"

#include <stdio.h>

static void slot_count(struct blk_slot *slot)
{
    atomic_fetch_add_explicit(&slot->in_flight, 1, memory_order_acq_rel);
}

/* Keeps G2. The main context is held over the notify: with the count gone, blk and the instance may
 * end at once. */
void blk_slot_leave_drained(BlockBackend *blk, struct blk_slot *slot)
{
    AioContext *main_ctx = blk->pl->main_ctx;

    aio_context_ref(main_ctx);
    atomic_fetch_sub_explicit(&slot->in_flight, 1, memory_order_acq_rel);
    aio_notify(main_ctx);
    aio_context_unref(main_ctx);
}

/* Wait until the drain ends. False: canceled. Coroutine. */
static bool drained_queue_wait_co(BlockBackend *blk, struct blk_cancel *cancel)
{
    struct blk_waiter waiter = {.co = coroutine_self()};

    os_mutex_lock(&blk->lock);
    if (blk->drained_depth == 0 || (cancel != NULL && cancel->wanted)) {
        waiter.canceled = blk->drained_depth > 0;
        os_mutex_unlock(&blk->lock);
        return !waiter.canceled;
    }
    waiter.queued = true;
    TAILQ_INSERT_TAIL(&blk->drained_queue, &waiter, entry);
    if (cancel != NULL) {
        cancel->waiter = &waiter;
    }
    os_mutex_unlock(&blk->lock);

    coroutine_yield();

    os_mutex_lock(&blk->lock);
    if (cancel != NULL) {
        cancel->waiter = NULL;
    }
    os_mutex_unlock(&blk->lock);
    return !waiter.canceled;
}

struct blk_slot *blk_gate_wait_co(BlockBackend *blk, struct blk_slot *slot, bool over_drain,
                                  struct blk_cancel *cancel)
{
    uint32_t old;

    if (over_drain) {
        return slot;
    }
    blk_ref(blk); /* keeps G4 */
    do {
        blk_slot_leave_drained(blk, slot);
        if (!drained_queue_wait_co(blk, cancel)) {
            return NULL;
        }
        old = atomic_fetch_add_explicit(&slot->in_flight, 1, memory_order_acq_rel);
    } while (old & BLK_SLOT_DRAINED);
    blk_unref(blk);
    return slot;
}

void blk_gate_cancel(BlockBackend *blk, struct blk_cancel *cancel)
{
    struct blk_waiter *waiter;
    Coroutine *co = NULL;

    os_mutex_lock(&blk->lock);
    cancel->wanted = true;
    waiter = cancel->waiter;
    if (waiter != NULL && waiter->queued) {
        TAILQ_REMOVE(&blk->drained_queue, waiter, entry);
        waiter->queued = false;
        waiter->canceled = true;
        co = waiter->co;
    }
    os_mutex_unlock(&blk->lock);
    if (co != NULL) {
        aio_co_wake(co);
    } else {
        (void)throttle_cancel_wait(&blk->throttle, &cancel->throttle);
    }
}

bool blk_in_flight(BlockBackend *blk)
{
    for (unsigned i = 0; i <= BLK_SLOT_BRACKET; i++) {
        if (atomic_load_explicit(&blk->slots[i].in_flight, memory_order_acquire) &
            ~BLK_SLOT_DRAINED) {
            return true;
        }
    }
    return false;
}

static bool in_flight_cond(void *opaque)
{
    return blk_in_flight(opaque);
}

static void facts_read(BlockBackend *blk, struct blk_facts *ret_facts)
{
    BlockDriverState *bs = blk->root != NULL ? blk->root->bs : NULL;

    if (bs == NULL) {
        *ret_facts = (struct blk_facts){
            .tray_open = blk_tray_is_open(blk), .request_alignment = 1, .mem_alignment = 1};
        return;
    }
    *ret_facts = (struct blk_facts){
        .has_root = true,
        .inserted = bdrv_is_inserted(bs),
        .tray_open = blk_tray_is_open(blk),
        .sg = bs->sg,
        .size_bytes = atomic_load_explicit(&bs->size_bytes, memory_order_relaxed),
        .request_alignment = bs->bl.request_alignment,
        .mem_alignment = bs->bl.mem_alignment > bs->bl.opt_mem_alignment ? bs->bl.mem_alignment
                                                                         : bs->bl.opt_mem_alignment,
        .max_transfer_bytes = bs->bl.max_transfer,
        .max_iov = bs->bl.max_iov,
    };
    snprintf(ret_facts->node_name, sizeof(ret_facts->node_name), "%s", bdrv_get_node_name(bs));
}

void blk_quiesce_begin(BlockBackend *blk)
{
    struct blk_facts facts;

    BLK_ASSERT_CONTROL(blk->pl);
    if (blk->drained_depth > 0) {
        os_mutex_lock(&blk->lock);
        blk->drained_depth++;
        os_mutex_unlock(&blk->lock);
        return;
    }
    facts_read(blk, &facts);
    throttle_bypass_begin(&blk->throttle); /* a drain waits for no limit */
    os_mutex_lock(&blk->lock);
    blk->drained_depth = 1;
    blk->drained_facts = facts;
    for (unsigned i = 0; i <= BLK_SLOT_BRACKET; i++) {
        atomic_fetch_or_explicit(&blk->slots[i].in_flight, BLK_SLOT_DRAINED, memory_order_acq_rel);
    }
    os_mutex_unlock(&blk->lock);
}

void blk_quiesce_end(BlockBackend *blk)
{
    struct blk_waiter_list woken = TAILQ_HEAD_INITIALIZER(woken);
    struct blk_waiter *waiter;
    struct blk_waiter *next;

    BLK_ASSERT_CONTROL(blk->pl);
    assert(blk->drained_depth > 0);
    if (blk->drained_depth == 1) {
        blk_special_update(blk);
        throttle_bypass_end(&blk->throttle);
    }
    os_mutex_lock(&blk->lock);
    if (--blk->drained_depth == 0) {
        for (unsigned i = 0; i <= BLK_SLOT_BRACKET; i++) {
            atomic_fetch_and_explicit(&blk->slots[i].in_flight, ~BLK_SLOT_DRAINED,
                                      memory_order_acq_rel);
        }
        TAILQ_CONCAT(&woken, &blk->drained_queue, entry);
        TAILQ_FOREACH (waiter, &woken, entry) {
            waiter->queued = false;
        }
    }
    os_mutex_unlock(&blk->lock);
    for (waiter = TAILQ_FIRST(&woken); waiter != NULL; waiter = next) {
        next = TAILQ_NEXT(waiter, entry); /* the wake may end the waiter */
        aio_co_wake(waiter->co);
    }
}

BlockDriverState *blk_drained_begin(BlockBackend *blk)
{
    BlockDriverState *bs = blk->root != NULL ? blk->root->bs : NULL;

    BLK_ASSERT_CONTROL_POLLS(blk->pl);
    blk_quiesce_begin(blk);
    if (bs != NULL) {
        bdrv_ref(bs);
        bdrv_drained_begin(bs);
    }
    aio_wait_while(blk->pl->main_ctx, in_flight_cond, blk);
    return bs;
}

void blk_drained_end(BlockBackend *blk, BlockDriverState *bs)
{
    if (bs != NULL) {
        bdrv_drained_end(bs);
        bdrv_unref(bs);
    }
    blk_quiesce_end(blk);
}

/* Whether somebody below has to be asked if the medium is there. Removable media end a chain of
 * primary children. */
static bool medium_must_be_asked(const BlockBackend *blk)
{
    const BlockDriverState *bs;

    if (blk->root == NULL || (blk->dev_ops != NULL && blk->dev_ops->is_tray_open != NULL)) {
        return true;
    }
    for (bs = blk->root->bs; bs != NULL; bs = bs->file != NULL ? bs->file->bs : NULL) {
        if (bs->drv == NULL || bs->drv->is_inserted != NULL) {
            return true;
        }
    }
    return false;
}

void blk_special_update(BlockBackend *blk)
{
    unsigned special = 0;

    if (medium_must_be_asked(blk)) {
        special |= BLK_SPECIAL_MEDIUM;
    }
    if (!blk->wce) {
        special |= BLK_SPECIAL_FUA;
    }
    atomic_store_explicit(&blk->special, special, memory_order_relaxed);
}

/* The control thread is the one that changes the root, so it may just look; anybody else must be
 * in flight for that, and while drained gets what was true before. */
void blk_facts_get(BlockBackend *blk, struct blk_facts *ret_facts)
{
    struct blk_slot *slot = &blk->slots[BLK_SLOT_BRACKET];

    if (instance_in_control_thread(blk->pl)) {
        facts_read(blk, ret_facts);
        return;
    }
    for (;;) {
        uint32_t old = atomic_fetch_add_explicit(&slot->in_flight, 1, memory_order_acq_rel);

        if ((old & BLK_SLOT_DRAINED) == 0) {
            facts_read(blk, ret_facts);
            blk_gate_leave(blk, slot);
            return;
        }
        blk_slot_leave_drained(blk, slot);
        os_mutex_lock(&blk->lock);
        if (blk->drained_depth > 0) {
            *ret_facts = blk->drained_facts;
            os_mutex_unlock(&blk->lock);
            return;
        }
        os_mutex_unlock(&blk->lock);
    }
}

void blk_inc_in_flight(BlockBackend *blk)
{
    slot_count(&blk->slots[BLK_SLOT_BRACKET]);
}

void blk_dec_in_flight(BlockBackend *blk)
{
    blk_gate_leave(blk, &blk->slots[BLK_SLOT_BRACKET]);
}

void blk_drain(BlockBackend *blk)
{
    BlockDriverState *bs = blk_drained_begin(blk);

    blk_drained_end(blk, bs);
}

void blk_drain_all(Platter *pl)
{
    struct blk_room *room = blk_room(pl);
    BlockBackend *blk;
    BlockBackend *next;

    BLK_ASSERT_CONTROL_POLLS(pl);
    bdrv_drain_all_begin(pl);
    /* the empty ones, which no node reaches, may still have early failures under way */
    blk = room != NULL ? TAILQ_FIRST(&room->all) : NULL;
    if (blk != NULL) {
        blk_ref(blk);
    }
    while (blk != NULL) {
        if (blk->root == NULL) {
            blk_drain(blk);
        }
        next = TAILQ_NEXT(blk, in_all);
        if (next != NULL) {
            blk_ref(next);
        }
        blk_unref(blk);
        blk = next;
    }
    bdrv_drain_all_end(pl);
}
