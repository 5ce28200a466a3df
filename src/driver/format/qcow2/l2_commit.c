/* SPDX-License-Identifier: MIT */
/*
 * The slices that a commit writes. See l2_cache.c for the states.
 *
 *   DIRTY --begin--> WRITING --next--> WRITTEN --end--> CLEAN, or DIRTY again
 *
 * A slice that leaves with its table leaves these lists too; what next has copied of it by then is
 * still written, which is no harm: its cluster is freed by a later commit (q2_l2_new_table_co).
 * The commit lock is held from begin to end: one set at a time.
 */
#include <string.h>

#include "l2_int.h"

bool q2_l2_commit_begin(struct qcow2 *s)
{
    struct q2_l2_cache *c = &s->l2;
    struct q2_slice *slice;
    bool any;

    os_mutex_lock(&c->lock);
    while ((slice = TAILQ_FIRST(&c->dirty)) != NULL) {
        q2_l2_state_locked(c, slice, Q2_SLICE_WRITING);
        slice->again = false;
    }
    any = !TAILQ_EMPTY(&c->writing);
    os_mutex_unlock(&c->lock);
    return any;
}

/* As it was when the commit began. The copy goes to *ret_frozen to be freed without the lock. */
static void slice_take_locked(struct q2_l2_cache *c, struct q2_slice *slice, void *buf)
{
    const void *from = slice->frozen != NULL ? slice->frozen : (const void *)slice->words;

    memcpy(buf, from, c->slice_bytes);
    q2_l2_frozen_free(slice->s, slice->frozen);
    slice->frozen = NULL;
    q2_l2_state_locked(c, slice, Q2_SLICE_WRITTEN);
}

bool q2_l2_commit_next(struct qcow2 *s, void *buf, size_t max_bytes, uint64_t *ret_offset,
                       size_t *ret_bytes)
{
    struct q2_l2_cache *c = &s->l2;
    struct q2_wait_list woken = TAILQ_HEAD_INITIALIZER(woken);
    struct q2_slice *slice;
    size_t bytes = 0;

    os_mutex_lock(&c->lock);
    slice = TAILQ_FIRST(&c->writing);
    if (slice != NULL) {
        *ret_offset = slice->key;
    }
    while (slice != NULL && slice->state == Q2_SLICE_WRITING &&
           bytes + c->slice_bytes <= max_bytes) {
        slice_take_locked(c, slice, (uint8_t *)buf + bytes);
        bytes += c->slice_bytes;
        slice = q2_l2_find_locked(c, *ret_offset + bytes);
    }
    TAILQ_CONCAT(&woken, &c->thaw, entry);
    os_mutex_unlock(&c->lock);
    q2_wake_all(&woken, 0);
    *ret_bytes = bytes;
    return bytes > 0;
}

void q2_l2_commit_end(struct qcow2 *s, bool durable)
{
    struct q2_l2_cache *c = &s->l2;
    struct q2_wait_list woken = TAILQ_HEAD_INITIALIZER(woken);
    struct q2_slice *slice;

    os_mutex_lock(&c->lock);
    while ((slice = TAILQ_FIRST(&c->written)) != NULL ||
           (slice = TAILQ_FIRST(&c->writing)) != NULL) {
        bool dirty = slice->again || !durable;

        q2_l2_frozen_free(s, slice->frozen);
        slice->frozen = NULL;
        q2_l2_state_locked(c, slice, dirty ? Q2_SLICE_DIRTY : Q2_SLICE_CLEAN);
    }
    TAILQ_CONCAT(&woken, &c->thaw, entry);
    os_mutex_unlock(&c->lock);
    q2_wake_all(&woken, 0);
}
