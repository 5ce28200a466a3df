/* SPDX-License-Identifier: MIT */
/*
 * Lists of notifiers about media, and about the home context. A notifier about media may remove
 * itself or any other, and add more, while it runs: the walk keeps its place with a mark in the
 * list. Control thread.
 */
#include "backend/backend_int.h"

#include <stdlib.h>

/* Not inlined: gcc would warn of the mark that a walk has in the list for a while. */
static __attribute__((noinline)) void notifier_insert(BlkNotifier **link, BlkNotifier *n)
{
    n->next = *link;
    n->link = link;
    if (n->next != NULL) {
        n->next->link = &n->next;
    }
    *link = n;
}

void blk_notifier_remove(BlkNotifier *n)
{
    if (n->link == NULL) {
        return;
    }
    *n->link = n->next;
    if (n->next != NULL) {
        n->next->link = n->link;
    }
    n->next = NULL;
    n->link = NULL;
}

static void notifier_append(BlkNotifier **list, BlkNotifier *n)
{
    while (*list != NULL) {
        list = &(*list)->next;
    }
    notifier_insert(list, n);
}

void blk_add_insert_bs_notifier(BlockBackend *blk, BlkNotifier *n)
{
    BLK_ASSERT_CONTROL(blk->pl);
    notifier_append(&blk->insert_notifiers, n);
}

void blk_add_remove_bs_notifier(BlockBackend *blk, BlkNotifier *n)
{
    BLK_ASSERT_CONTROL(blk->pl);
    notifier_append(&blk->remove_notifiers, n);
}

void blk_notify(BlkNotifier **list, BlockBackend *blk)
{
    BlkNotifier mark = {0};
    BlkNotifier *n;

    notifier_insert(list, &mark);
    while ((n = mark.next) != NULL) {
        blk_notifier_remove(&mark);
        notifier_insert(&n->next, &mark);
        if (n->notify != NULL) { /* NULL: the mark of another walk */
            n->notify(n, blk);
        }
    }
    blk_notifier_remove(&mark);
}

void blk_add_close_notifier(BlockBackend *blk, BlkNotifier *n)
{
    BLK_ASSERT_CONTROL(blk->pl);
    notifier_append(&blk->close_notifiers, n);
}

/* ---- the home context ---- */

struct blk_context_notifier {
    void (*attached)(AioContext *new_context, void *opaque);
    void (*detach)(void *opaque);
    void *opaque;
    struct blk_context_notifier *next;
};

int blk_add_aio_context_notifier(BlockBackend *blk,
                                 void (*attached_aio_context)(AioContext *new_context,
                                                              void *opaque),
                                 void (*detach_aio_context)(void *opaque), void *opaque)
{
    struct blk_context_notifier *n = calloc(1, sizeof(*n));
    struct blk_context_notifier **link = &blk->context_notifiers;

    BLK_ASSERT_CONTROL(blk->pl);
    if (n == NULL) {
        return -ENOMEM;
    }
    n->attached = attached_aio_context;
    n->detach = detach_aio_context;
    n->opaque = opaque;
    while (*link != NULL) {
        link = &(*link)->next;
    }
    *link = n;
    return 0;
}

void blk_remove_aio_context_notifier(BlockBackend *blk,
                                     void (*attached_aio_context)(AioContext *, void *),
                                     void (*detach_aio_context)(void *), void *opaque)
{
    struct blk_context_notifier **link = &blk->context_notifiers;
    struct blk_context_notifier *n;

    BLK_ASSERT_CONTROL(blk->pl);
    while ((n = *link) != NULL) {
        if (n->attached == attached_aio_context && n->detach == detach_aio_context &&
            n->opaque == opaque) {
            *link = n->next;
            free(n);
            return;
        }
        link = &n->next;
    }
}

void blk_context_detach(BlockBackend *blk)
{
    struct blk_context_notifier *n;

    for (n = blk->context_notifiers; n != NULL; n = n->next) {
        if (n->detach != NULL) {
            n->detach(n->opaque);
        }
    }
}

void blk_context_attached(BlockBackend *blk, AioContext *ctx)
{
    struct blk_context_notifier *n;

    for (n = blk->context_notifiers; n != NULL; n = n->next) {
        if (n->attached != NULL) {
            n->attached(ctx, n->opaque);
        }
    }
}

void blk_context_notifiers_free(BlockBackend *blk)
{
    struct blk_context_notifier *n;

    while ((n = blk->context_notifiers) != NULL) {
        blk->context_notifiers = n->next;
        free(n);
    }
}
