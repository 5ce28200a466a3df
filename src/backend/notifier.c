/* SPDX-License-Identifier: MIT */
/*
 * Lists of notifiers about media. A notifier may remove itself or any other, and add more, while it
 * runs: the walk keeps its place with a mark in the list. Control thread.
 */
#include "backend/backend_int.h"

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
