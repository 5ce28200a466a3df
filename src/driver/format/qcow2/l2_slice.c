/* SPDX-License-Identifier: MIT */
/*
 * Getting, reading and changing slices of L2 tables, and making those of a new table. The
 * invariants S1 .. S5 stand in l2_cache.c.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "l2_int.h"
#include "overlap.h"
#include "util/budget.h"

struct q2_slice_loading {
    uint64_t key;
    struct q2_wait_list waiters;
    TAILQ_ENTRY(q2_slice_loading) entry;
};

/* Of slices that no reader can have seen. */
static void slices_free(struct q2_slice_list *list)
{
    struct q2_slice *slice;

    while ((slice = TAILQ_FIRST(list)) != NULL) {
        TAILQ_REMOVE(list, slice, entry);
        q2_slice_free(slice);
    }
}

/* ---- loading ---- */

static int slice_read_co(struct qcow2 *s, struct q2_slice *slice, uint64_t offset)
{
    int64_t file_bytes = bdrv_edge_getlength(s->file);
    uint32_t bytes = s->l2.slice_bytes;

    if (file_bytes < 0) {
        return (int)file_bytes;
    }
    if (!range_inside(offset, bytes, (uint64_t)file_bytes)) {
        return q2_corrupt_co(s, false, offset, bytes,
                             "L2 table at offset 0x%" PRIx64 " lies past the end of the file",
                             offset);
    }
    bdrv_debug_event(s->file, BLKDBG_L2_LOAD);
    return bdrv_edge_read_co(s->file, offset, (void *)slice->words, bytes);
}

static int load_co(struct qcow2 *s, uint64_t key, struct q2_slice **ret_slice)
{
    struct q2_slice *slice;
    int ret = q2_l2_make_room_co(s, 1);

    if (ret < 0) {
        return ret;
    }
    slice = q2_slice_new(s, key);
    if (slice == NULL) {
        return q2_l2_out_of_memory(s);
    }
    ret = slice_read_co(s, slice, key);
    if (ret < 0) {
        q2_slice_free(slice);
        return ret;
    }
    *ret_slice = slice;
    return 0;
}

static struct q2_slice_loading *loading_find(struct q2_l2_cache *c, uint64_t key)
{
    struct q2_slice_loading *loading;

    TAILQ_FOREACH (loading, &c->loads, entry) {
        if (loading->key == key) {
            break;
        }
    }
    return loading;
}

/* The lock is held, nobody loads key; it is given back. Keeps S5. */
static int load_for_all_co(struct qcow2 *s, uint64_t key, struct q2_slice **ret_slice)
{
    struct q2_l2_cache *c = &s->l2;
    struct q2_slice_loading loading = {.key = key};
    struct q2_slice_list unused = TAILQ_HEAD_INITIALIZER(unused);
    struct q2_slice *slice = NULL;
    int ret;

    TAILQ_INIT(&loading.waiters);
    TAILQ_INSERT_TAIL(&c->loads, &loading, entry);
    os_mutex_unlock(&c->lock);

    ret = load_co(s, key, &slice);

    os_mutex_lock(&c->lock);
    TAILQ_REMOVE(&c->loads, &loading, entry);
    if (ret == 0) {
        /* a table that is new at this place is the truth (S2) */
        struct q2_slice *there = q2_l2_find_locked(c, key);

        if (there != NULL) {
            TAILQ_INSERT_TAIL(&unused, slice, entry);
            slice = there;
        } else {
            q2_l2_enter_locked(c, slice, Q2_SLICE_CLEAN);
        }
        slice->pins++;
        *ret_slice = slice;
    }
    os_mutex_unlock(&c->lock);
    slices_free(&unused);
    q2_wake_all(&loading.waiters, ret);
    return ret;
}

int q2_l2_get_co(struct qcow2 *s, uint64_t key, struct q2_slice **ret)
{
    struct q2_l2_cache *c = &s->l2;

    assert(is_aligned(key, c->slice_bytes));
    for (;;) {
        struct q2_slice_loading *loading;
        struct q2_slice *slice;
        int rc;

        os_mutex_lock(&c->lock);
        slice = q2_l2_find_locked(c, key);
        if (slice != NULL) {
            slice->pins++;
            atomic_store_explicit(&slice->used, Q2_USED_AGAIN, memory_order_relaxed);
            os_mutex_unlock(&c->lock);
            *ret = slice;
            return 0;
        }
        loading = loading_find(c, key);
        if (loading == NULL) {
            return load_for_all_co(s, key, ret);
        }
        rc = q2_wait_co(&loading->waiters, &c->lock);
        if (rc < 0) {
            return rc;
        }
    }
}

void q2_l2_put(struct qcow2 *s, struct q2_slice *slice)
{
    struct q2_l2_cache *c = &s->l2;
    struct q2_slice_list victims = TAILQ_HEAD_INITIALIZER(victims);

    os_mutex_lock(&c->lock);
    assert(slice->pins > 0);
    slice->pins--;
    if (slice->pins == 0 && slice->state == Q2_SLICE_GONE) {
        TAILQ_INSERT_TAIL(&victims, slice, entry);
    }
    os_mutex_unlock(&c->lock);
    q2_l2_retire(s, &victims);
}

/* ---- reading and changing ---- */

void q2_slice_pair_slow(const struct q2_slice *slice, uint32_t i, uint64_t *ret_entry,
                        uint64_t *ret_bitmap)
{
    os_mutex_lock(&slice->s->l2.lock);
    *ret_entry = q2_slice_word(slice, i);
    *ret_bitmap = q2_slice_word(slice, i + 1);
    os_mutex_unlock(&slice->s->l2.lock);
}

static uint64_t *frozen_new(struct qcow2 *s)
{
    struct mem_budget *budget = bdrv_budget(s->bs);
    uint64_t *copy;

    if (!mem_budget_take(budget, s->l2.slice_bytes)) {
        return NULL;
    }
    copy = malloc(s->l2.slice_bytes);
    if (copy == NULL) {
        mem_budget_give(budget, s->l2.slice_bytes);
    }
    return copy;
}

static void words_store_locked(struct q2_slice *slice, uint32_t index, const uint64_t *words,
                               uint32_t count)
{
    uint32_t seq = atomic_load_explicit(&slice->seq, memory_order_relaxed);

    atomic_store_explicit(&slice->seq, seq + 1, memory_order_relaxed);
    for (uint32_t i = 0; i < count; i++) { /* each releases the odd seq */
        atomic_store_explicit(&slice->words[index + i], htobe64(words[i]), memory_order_seq_cst);
    }
    atomic_store_explicit(&slice->seq, seq + 2, memory_order_release);
}

static void dirty_locked(struct q2_l2_cache *c, struct q2_slice *slice)
{
    if (slice->state == Q2_SLICE_CLEAN) {
        q2_l2_state_locked(c, slice, Q2_SLICE_DIRTY);
    } else if (slice->state == Q2_SLICE_WRITING || slice->state == Q2_SLICE_WRITTEN) {
        slice->again = true;
    }
}

static bool must_freeze(const struct q2_slice *slice)
{
    return slice->state == Q2_SLICE_WRITING && slice->frozen == NULL;
}

int q2_l2_set_co(struct qcow2 *s, struct q2_slice *slice, uint32_t index, const uint64_t *words,
                 uint32_t count)
{
    struct q2_l2_cache *c = &s->l2;
    uint64_t *copy = NULL;

    assert(count > 0 && index + count <= c->slice_bytes / 8);
    os_mutex_lock(&c->lock);
    assert(slice->pins > 0);
    while (must_freeze(slice)) {
        if (copy != NULL) {
            memcpy(copy, (const void *)slice->words, c->slice_bytes);
            slice->frozen = copy;
            copy = NULL;
            break;
        }
        os_mutex_unlock(&c->lock);
        copy = frozen_new(s);
        os_mutex_lock(&c->lock);
        if (copy == NULL && must_freeze(slice)) {
            q2_wait_co(&c->thaw, &c->lock);
            os_mutex_lock(&c->lock);
        }
    }
    words_store_locked(slice, index, words, count);
    dirty_locked(c, slice);
    os_mutex_unlock(&c->lock);
    q2_l2_frozen_free(s, copy);
    return 0;
}

/* ---- tables ---- */

/* From the cache where it is there: then it may be newer than the file. */
static int slice_copy_co(struct qcow2 *s, struct q2_slice *slice, uint64_t from)
{
    struct q2_l2_cache *c = &s->l2;
    struct q2_slice *source;

    os_mutex_lock(&c->lock);
    source = q2_l2_find_locked(c, from);
    if (source != NULL) {
        memcpy((void *)slice->words, (const void *)source->words, c->slice_bytes);
    }
    os_mutex_unlock(&c->lock);
    return source != NULL ? 0 : slice_read_co(s, slice, from);
}

static int table_make_co(struct qcow2 *s, uint64_t offset, uint64_t from,
                         struct q2_slice_list *slices)
{
    uint32_t bytes = s->l2.slice_bytes;

    for (uint64_t at = 0; at < s->geo.cluster_bytes; at += bytes) {
        struct q2_slice *slice = q2_slice_new(s, offset + at);
        int ret = 0;

        if (slice == NULL) {
            return q2_l2_out_of_memory(s);
        }
        TAILQ_INSERT_TAIL(slices, slice, entry);
        if (from == 0) {
            memset((void *)slice->words, 0, bytes);
        } else {
            ret = slice_copy_co(s, slice, from + at);
        }
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

int q2_l2_new_table_co(struct qcow2 *s, uint64_t offset, uint64_t from)
{
    struct q2_l2_cache *c = &s->l2;
    struct q2_slice_list slices = TAILQ_HEAD_INITIALIZER(slices);
    struct q2_slice_list victims = TAILQ_HEAD_INITIALIZER(victims);
    struct q2_slice *slice;
    int ret = q2_l2_make_room_co(s, s->geo.cluster_bytes / c->slice_bytes);

    if (ret == 0) {
        ret = table_make_co(s, offset, from, &slices);
    }
    if (ret < 0) {
        slices_free(&slices);
        return ret;
    }
    os_mutex_lock(&c->lock);
    while ((slice = TAILQ_FIRST(&slices)) != NULL) {
        struct q2_slice *stale = q2_l2_find_locked(c, slice->key);

        if (stale != NULL) { /* of a table that was here before (S2) */
            q2_l2_leave_locked(c, stale, &victims);
        }
        TAILQ_REMOVE(&slices, slice, entry);
        q2_l2_enter_locked(c, slice, Q2_SLICE_DIRTY);
    }
    os_mutex_unlock(&c->lock);
    q2_l2_retire(s, &victims);
    return 0;
}
