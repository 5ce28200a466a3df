/* SPDX-License-Identifier: MIT */
/*
 * Slices of L2 tables in memory: their lists, making room, letting go. l2_slice.c gets and changes
 * them, l2_commit.c gives them to a commit.
 *
 * Invariants
 *  S1  A bucket's chain is changed under the lock, each time by one store, and a slice keeps its
 *      next for as long as somebody may stand on it: it ends by q2_retire. So a reader inside walks
 *      the chain without a lock.
 *  S2  A slice enters its bucket with all its words; there is one for a key at most.
 *  S3  The state says in which list a slice is. Only a clean one that nobody has pinned leaves to
 *      make room; a dirty one leaves only with its table (q2_l2_drop_table).
 *  S4  Words change only under the lock, by q2_l2_set_co, and each word whole. A slice that the
 *      running commit has still to write is copied first, so that what is written is what the set
 *      was when the commit began (W1, W3).
 *  S5  One coroutine loads a key; the others wait for its result (l2_slice.c).
 * The memory of slices and copies is charged to the budget of the instance.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "l2_int.h"
#include "util/budget.h"

#define SLICES_MIN 2 /* in the cache */
#define SLICES_MAX (UINT32_C(1) << 24)
#define COMMIT_TRIES 3 /* to make room; then the cache is larger than it should be for a while */

/* ---- memory ---- */

static size_t slice_memory(const struct q2_l2_cache *c)
{
    return sizeof(struct q2_slice) + c->slice_bytes;
}

/* Its words are not set. */
struct q2_slice *q2_slice_new(struct qcow2 *s, uint64_t key)
{
    struct mem_budget *budget = bdrv_budget(s->bs);
    size_t bytes = slice_memory(&s->l2);
    struct q2_slice *slice;

    if (!mem_budget_take(budget, bytes)) {
        return NULL;
    }
    slice = malloc(bytes);
    if (slice == NULL) {
        mem_budget_give(budget, bytes);
        return NULL;
    }
    memset(slice, 0, sizeof(*slice));
    slice->key = key;
    slice->s = s;
    slice->bytes = s->l2.slice_bytes;
    slice->used = Q2_USED_ONCE;
    slice->state = Q2_SLICE_GONE;
    return slice;
}

void q2_l2_frozen_free(struct qcow2 *s, uint64_t *copy)
{
    if (copy != NULL) {
        free(copy);
        mem_budget_give(bdrv_budget(s->bs), s->l2.slice_bytes);
    }
}

void q2_slice_free(struct q2_slice *slice)
{
    struct qcow2 *s = slice->s;

    size_t bytes = sizeof(*slice) + slice->bytes; /* the cache may have another size by now */

    q2_l2_frozen_free(s, slice->frozen);
    free(slice);
    mem_budget_give(bdrv_budget(s->bs), bytes);
}

static void slice_end(struct q2_retired *r)
{
    q2_slice_free(CONTAINER_OF(r, struct q2_slice, retired));
}

void q2_l2_retire(struct qcow2 *s, struct q2_slice_list *victims)
{
    struct q2_slice *slice;

    while ((slice = TAILQ_FIRST(victims)) != NULL) {
        TAILQ_REMOVE(victims, slice, entry);
        slice->retired.end = slice_end;
        q2_retire(s, &slice->retired);
    }
}

/* ---- buckets and lists; the lock is held ---- */

struct q2_slice *q2_l2_find_locked(struct q2_l2_cache *c, uint64_t key)
{
    struct q2_slice *slice = atomic_load(&c->buckets[q2_l2_hash(c, key)]);

    while (slice != NULL && slice->key != key) {
        slice = atomic_load(&slice->next);
    }
    return slice;
}

static struct q2_slice_list *list_of(struct q2_l2_cache *c, enum q2_slice_state state)
{
    switch (state) {
    case Q2_SLICE_CLEAN:
        return &c->clock;
    case Q2_SLICE_DIRTY:
        return &c->dirty;
    case Q2_SLICE_WRITING:
        return &c->writing;
    case Q2_SLICE_WRITTEN:
        return &c->written;
    case Q2_SLICE_GONE:
        break;
    }
    return NULL;
}

/* Keeps S3. */
void q2_l2_state_locked(struct q2_l2_cache *c, struct q2_slice *slice, enum q2_slice_state state)
{
    if (slice->state != Q2_SLICE_GONE) {
        TAILQ_REMOVE(list_of(c, slice->state), slice, entry);
    }
    c->dirty_count -= slice->state == Q2_SLICE_DIRTY;
    c->dirty_count += state == Q2_SLICE_DIRTY;
    slice->state = state;
    if (state != Q2_SLICE_GONE) {
        TAILQ_INSERT_TAIL(list_of(c, state), slice, entry);
    }
}

/* Keeps S1, S2. */
void q2_l2_enter_locked(struct q2_l2_cache *c, struct q2_slice *slice, enum q2_slice_state state)
{
    _Atomic(struct q2_slice *) *bucket = &c->buckets[q2_l2_hash(c, slice->key)];

    atomic_store(&slice->next, atomic_load(bucket));
    atomic_store(bucket, slice);
    q2_l2_state_locked(c, slice, state);
    c->count++;
}

/* The slice leaves bucket, list and count. It becomes a victim unless it is pinned; then who lets
 * go of it last makes it one. */
void q2_l2_leave_locked(struct q2_l2_cache *c, struct q2_slice *slice,
                        struct q2_slice_list *victims)
{
    _Atomic(struct q2_slice *) *link = &c->buckets[q2_l2_hash(c, slice->key)];

    while (atomic_load(link) != slice) {
        link = &atomic_load(link)->next;
    }
    atomic_store(link, atomic_load(&slice->next));
    q2_l2_state_locked(c, slice, Q2_SLICE_GONE);
    c->count--;
    if (slice->pins == 0) {
        TAILQ_INSERT_TAIL(victims, slice, entry);
    }
}

/* Second chance: those who were found since they were loaded, or since the last chance. What is
 * read once and no more does not drive them out. */
static bool was_used_again(struct q2_slice *slice)
{
    if (atomic_load_explicit(&slice->used, memory_order_relaxed) != Q2_USED_AGAIN) {
        return false;
    }
    atomic_store_explicit(&slice->used, Q2_USED_ONCE, memory_order_relaxed);
    return true;
}

/* Let clean slices go until wanted more fit, or none is left that may. */
static bool evict_locked(struct q2_l2_cache *c, uint32_t wanted, struct q2_slice_list *victims)
{
    uint64_t turns = 2 * (uint64_t)(c->count - c->dirty_count);

    while (c->count > 0 && c->count + (uint64_t)wanted > c->count_max && turns-- > 0) {
        struct q2_slice *slice = TAILQ_FIRST(&c->clock);

        if (slice == NULL) {
            break;
        }
        if (slice->pins > 0 || was_used_again(slice)) {
            TAILQ_REMOVE(&c->clock, slice, entry);
            TAILQ_INSERT_TAIL(&c->clock, slice, entry);
        } else {
            q2_l2_leave_locked(c, slice, victims);
        }
    }
    return c->count + (uint64_t)wanted <= c->count_max;
}

/* ---- making room ---- */

/* So many are dirty that few places are left for what is read: better one commit than many reads.
 */
static bool is_crowded(const struct q2_l2_cache *c)
{
    return c->dirty_count > c->count_max - c->count_max / 4;
}

static bool has_unwritten(const struct q2_l2_cache *c)
{
    return !TAILQ_EMPTY(&c->dirty) || !TAILQ_EMPTY(&c->writing) || !TAILQ_EMPTY(&c->written);
}

int q2_l2_make_room_co(struct qcow2 *s, uint32_t wanted)
{
    struct q2_l2_cache *c = &s->l2;

    for (int i = 0; i < COMMIT_TRIES; i++) {
        struct q2_slice_list victims = TAILQ_HEAD_INITIALIZER(victims);
        bool done;
        bool commit;
        bool may_exceed;
        int ret;

        os_mutex_lock(&c->lock);
        done = evict_locked(c, wanted, &victims);
        commit = is_crowded(c) || (!done && has_unwritten(c));
        may_exceed = c->count / 2 < c->count_max;
        os_mutex_unlock(&c->lock);
        q2_l2_retire(s, &victims);
        if (!commit) {
            break; /* there is room, or all that is left is pinned */
        }
        ret = q2_commit_co(s, false);
        if (ret < 0) { /* what is only read goes on while a file cannot be written */
            return done || may_exceed ? 0 : ret;
        }
    }
    return 0;
}

/* Nothing could be allocated for one more slice: what little is not in use shall go, so that the
 * next may succeed. */
int q2_l2_out_of_memory(struct qcow2 *s)
{
    struct q2_l2_cache *c = &s->l2;
    struct q2_slice_list victims = TAILQ_HEAD_INITIALIZER(victims);
    uint32_t spare;

    os_mutex_lock(&c->lock);
    spare = c->count_max > c->count ? c->count_max - c->count : 0;
    evict_locked(c, spare + c->count / 8 + 1, &victims);
    os_mutex_unlock(&c->lock);
    q2_l2_retire(s, &victims);
    return -ENOMEM;
}

void q2_l2_drop_table(struct qcow2 *s, uint64_t offset)
{
    struct q2_l2_cache *c = &s->l2;
    struct q2_slice_list victims = TAILQ_HEAD_INITIALIZER(victims);

    os_mutex_lock(&c->lock);
    for (uint64_t at = 0; at < s->geo.cluster_bytes; at += c->slice_bytes) {
        struct q2_slice *slice = q2_l2_find_locked(c, offset + at);

        if (slice != NULL) {
            q2_l2_leave_locked(c, slice, &victims);
        }
    }
    os_mutex_unlock(&c->lock);
    q2_l2_retire(s, &victims);
}

void q2_l2_drop_all(struct qcow2 *s)
{
    static const enum q2_slice_state states[] = {Q2_SLICE_CLEAN, Q2_SLICE_DIRTY, Q2_SLICE_WRITING,
                                                 Q2_SLICE_WRITTEN};
    struct q2_l2_cache *c = &s->l2;
    struct q2_slice_list victims = TAILQ_HEAD_INITIALIZER(victims);

    os_mutex_lock(&c->lock);
    for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
        struct q2_slice *slice;

        while ((slice = TAILQ_FIRST(list_of(c, states[i]))) != NULL) {
            q2_l2_leave_locked(c, slice, &victims);
        }
    }
    os_mutex_unlock(&c->lock);
    q2_l2_retire(s, &victims);
}

void q2_l2_clean(struct qcow2 *s)
{
    struct q2_l2_cache *c = &s->l2;
    struct q2_slice_list victims = TAILQ_HEAD_INITIALIZER(victims);
    struct q2_slice *slice;
    struct q2_slice *next;

    os_mutex_lock(&c->lock);
    for (slice = TAILQ_FIRST(&c->clock); slice != NULL; slice = next) {
        next = TAILQ_NEXT(slice, entry);
        if (atomic_exchange_explicit(&slice->used, Q2_UNUSED, memory_order_relaxed) == Q2_UNUSED &&
            slice->pins == 0) {
            q2_l2_leave_locked(c, slice, &victims);
        }
    }
    os_mutex_unlock(&c->lock);
    q2_l2_retire(s, &victims);
}

/* ---- the cache as a whole ---- */

static size_t bucket_bytes(const struct q2_l2_cache *c)
{
    return sizeof(*c->buckets) << (64 - c->bucket_shift);
}

int q2_l2_next(struct qcow2 *s, const struct q2_options *opt, struct q2_l2_cache *c)
{
    uint32_t count_max = (uint32_t)min_u64(opt->l2_cache_bytes / opt->l2_slice_bytes, SLICES_MAX);

    assert(is_pow2(opt->l2_slice_bytes));
    c->slice_bytes = opt->l2_slice_bytes;
    c->slice_bits = (unsigned)__builtin_ctz(c->slice_bytes);
    c->slice_entries = c->slice_bytes / s->geo.l2_entry_bytes;
    c->count_max = count_max > SLICES_MIN ? count_max : SLICES_MIN;
    c->bucket_shift = 64;
    while (UINT64_C(1) << (64 - c->bucket_shift) < c->count_max) {
        c->bucket_shift--;
    }
    if (!mem_budget_take(bdrv_budget(s->bs), bucket_bytes(c))) {
        return -ENOMEM;
    }
    c->buckets = calloc(1, bucket_bytes(c));
    if (c->buckets == NULL) {
        mem_budget_give(bdrv_budget(s->bs), bucket_bytes(c));
        return -ENOMEM;
    }
    return 0;
}

void q2_l2_next_free(struct qcow2 *s, struct q2_l2_cache *next)
{
    if (next->buckets != NULL) {
        free(next->buckets);
        mem_budget_give(bdrv_budget(s->bs), bucket_bytes(next));
        next->buckets = NULL;
    }
}

int q2_l2_init(struct qcow2 *s)
{
    struct q2_l2_cache *c = &s->l2;
    int ret = q2_l2_next(s, &s->opt, c);

    if (ret < 0) {
        return ret;
    }
    os_mutex_init(&c->lock);
    TAILQ_INIT(&c->clock);
    TAILQ_INIT(&c->dirty);
    TAILQ_INIT(&c->writing);
    TAILQ_INIT(&c->written);
    TAILQ_INIT(&c->thaw);
    TAILQ_INIT(&c->loads);
    return 0;
}

static void free_slices(struct q2_l2_cache *c)
{
    static const enum q2_slice_state states[] = {Q2_SLICE_CLEAN, Q2_SLICE_DIRTY};

    for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
        struct q2_slice *slice;

        while ((slice = TAILQ_FIRST(list_of(c, states[i]))) != NULL) {
            TAILQ_REMOVE(list_of(c, states[i]), slice, entry);
            q2_slice_free(slice);
        }
    }
}

void q2_l2_switch(struct qcow2 *s, struct q2_l2_cache *next)
{
    struct q2_l2_cache *c = &s->l2;

    assert(TAILQ_EMPTY(&c->dirty) && TAILQ_EMPTY(&c->writing) && TAILQ_EMPTY(&c->written));
    free_slices(c);
    q2_l2_next_free(s, c);
    c->count = 0;
    c->buckets = next->buckets;
    c->bucket_shift = next->bucket_shift;
    c->slice_bits = next->slice_bits;
    c->slice_bytes = next->slice_bytes;
    c->slice_entries = next->slice_entries;
    c->count_max = next->count_max;
    next->buckets = NULL;
}

void q2_l2_fini(struct qcow2 *s)
{
    struct q2_l2_cache *c = &s->l2;

    if (c->buckets == NULL) {
        return;
    }
    free_slices(c);
    q2_l2_next_free(s, c);
    os_mutex_fini(&c->lock);
}
