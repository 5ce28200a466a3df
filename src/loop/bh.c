/* SPDX-License-Identifier: MIT */
/*
 * Bottom halves. Any thread pushes onto the context's list, last first; the loop takes the whole
 * list, turns it round and runs it one by one, so that a nested poll goes on where the outer one
 * is. Of a turn only as many run as were there when it began.
 *
 * BH_PENDING: in a list (once at most). BH_SCHEDULED: cb is to run. A deleted one is pushed so that
 * the loop frees it.
 */
#include <platter/aio.h>

#include <errno.h>
#include <stdlib.h>

#include "loop/internal.h"
#include "util/mem.h"

static QEMUBH *bh_make(AioContext *ctx, QEMUBHFunc *cb, void *opaque, unsigned flags)
{
    QEMUBH *bh = malloc(sizeof(*bh));

    if (!bh) {
        return 0;
    }
    bh->ctx = ctx;
    bh->cb = cb;
    bh->opaque = opaque;
    bh->next = 0;
    atomic_init(&bh->flags, flags);
    return bh;
}

QEMUBH *aio_bh_new(AioContext *ctx, QEMUBHFunc *cb, void *opaque)
{
    return bh_make(ctx, cb, opaque, 0);
}

static void bh_link(AioContext *ctx, QEMUBH *bh)
{
    QEMUBH *head = atomic_load_explicit(&ctx->bh_list, memory_order_relaxed);

    do {
        bh->next = head;
    } while (!atomic_compare_exchange_weak(&ctx->bh_list, &head, bh));
    aio_kick(ctx);
}

static void bh_push(QEMUBH *bh, unsigned flags)
{
    AioContext *ctx = bh->ctx;

    if (ctx == loop_tls.ctx) {
        if (!(atomic_fetch_or(&bh->flags, flags | BH_PENDING) & BH_PENDING)) {
            bh_link(ctx, bh);
        }
        return;
    }
    aio_waker_begin(ctx);
    /* Release: what the scheduler did before is seen by cb even when the bh was pending already */
    if (!(atomic_fetch_or(&bh->flags, flags | BH_PENDING) & BH_PENDING)) {
        bh_link(ctx, bh);
    }
    aio_waker_end(ctx);
}

void aio_bh_schedule(QEMUBH *bh)
{
    bh_push(bh, BH_SCHEDULED);
}

void aio_bh_cancel(QEMUBH *bh)
{
    atomic_fetch_and(&bh->flags, ~(unsigned)BH_SCHEDULED);
}

void aio_bh_delete(QEMUBH *bh)
{
    if (bh) {
        bh_push(bh, BH_DELETED);
    }
}

int aio_bh_schedule_oneshot(AioContext *ctx, QEMUBHFunc *cb, void *opaque)
{
    QEMUBH *bh = bh_make(ctx, cb, opaque, BH_ONESHOT);

    if (!bh) {
        return -ENOMEM;
    }
    bh_push(bh, BH_SCHEDULED);
    return 0;
}

/* Move what was pushed behind what is there, in order of pushing. */
static void bh_take(AioContext *ctx)
{
    QEMUBH *bh = atomic_exchange(&ctx->bh_list, 0);
    QEMUBH *first = 0;
    QEMUBH *last = bh;

    while (bh) {
        QEMUBH *next = bh->next;

        bh->next = first;
        first = bh;
        bh = next;
        ctx->bh_n++;
    }
    if (!first) {
        return;
    }
    if (ctx->bh_tail) {
        ctx->bh_tail->next = first;
    } else {
        ctx->bh_head = first;
    }
    ctx->bh_tail = last;
}

static QEMUBH *bh_pop(AioContext *ctx)
{
    QEMUBH *bh = ctx->bh_head;

    if (bh) {
        ctx->bh_head = bh->next;
        if (!ctx->bh_head) {
            ctx->bh_tail = 0;
        }
        ctx->bh_n--;
    }
    return bh;
}

bool aio_bh_run(AioContext *ctx)
{
    bool progress = false;
    unsigned n;

    if (LIKELY(!atomic_load_explicit(&ctx->bh_list, memory_order_relaxed) && !ctx->bh_head)) {
        return false;
    }
    bh_take(ctx);
    for (n = ctx->bh_n; n > 0; n--) {
        QEMUBH *bh = bh_pop(ctx);
        unsigned flags;

        if (!bh) { /* a nested poll ran the rest */
            break;
        }
        flags = atomic_fetch_and(&bh->flags, ~(unsigned)(BH_PENDING | BH_SCHEDULED));
        if (flags & BH_DELETED) {
            free(bh);
        } else if (flags & BH_SCHEDULED) {
            QEMUBHFunc *cb = bh->cb;
            void *opaque = bh->opaque;

            if (flags & BH_ONESHOT) {
                free(bh);
            }
            progress = true;
            cb(opaque);
        }
    }
    return progress;
}

void aio_bhs_free(AioContext *ctx)
{
    QEMUBH *bh;

    bh_take(ctx);
    while ((bh = bh_pop(ctx))) {
        if (atomic_load_explicit(&bh->flags, memory_order_relaxed) & (BH_DELETED | BH_ONESHOT)) {
            free(bh);
        }
    }
}
