/* SPDX-License-Identifier: MIT */
/*
 * Slices of L2 tables in memory: finding, loading, changing, making room.
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
 *  S5  One coroutine loads a key; the others wait for its result.
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

struct q2_slice_loading {
    uint64_t key;
    struct q2_wait_list waiters;
    TAILQ_ENTRY(q2_slice_loading) entry;
};

/* ---- memory ---- */

static size_t slice_memory(const struct q2_l2_cache *c)
{
    return sizeof(struct q2_slice) + c->slice_bytes;
}

/* Its words are not set. */
static struct q2_slice *slice_new(struct qcow2 *s, uint64_t key)
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
    slice->used = 1;
    slice->state = Q2_SLICE_GONE;
    return slice;
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

void q2_l2_frozen_free(struct qcow2 *s, uint64_t *copy)
{
    if (copy != NULL) {
        free(copy);
        mem_budget_give(bdrv_budget(s->bs), s->l2.slice_bytes);
    }
}

static void slice_free(struct q2_slice *slice)
{
    struct qcow2 *s = slice->s;

    q2_l2_frozen_free(s, slice->frozen);
    free(slice);
    mem_budget_give(bdrv_budget(s->bs), slice_memory(&s->l2));
}

static void slice_end(struct q2_retired *r)
{
    slice_free(CONTAINER_OF(r, struct q2_slice, retired));
}

/* Victims that no reader can have seen. */
static void slices_free(struct q2_slice_list *list)
{
    struct q2_slice *slice;

    while ((slice = TAILQ_FIRST(list)) != NULL) {
        TAILQ_REMOVE(list, slice, entry);
        slice_free(slice);
    }
}

static void retire_all(struct qcow2 *s, struct q2_slice_list *victims)
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
static void enter_locked(struct q2_l2_cache *c, struct q2_slice *slice, enum q2_slice_state state)
{
    _Atomic(struct q2_slice *) *bucket = &c->buckets[q2_l2_hash(c, slice->key)];

    atomic_store(&slice->next, atomic_load(bucket));
    atomic_store(bucket, slice);
    q2_l2_state_locked(c, slice, state);
    c->count++;
}

/* The slice leaves bucket, list and count. It becomes a victim unless it is pinned; then who lets
 * go of it last makes it one. */
static void leave_locked(struct q2_l2_cache *c, struct q2_slice *slice,
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

/* Let clean slices go until wanted more fit, or none is left that may. */
static bool evict_locked(struct q2_l2_cache *c, uint32_t wanted, struct q2_slice_list *victims)
{
    uint64_t turns = 2 * (uint64_t)(c->count - c->dirty_count);

    while (c->count > 0 && c->count + (uint64_t)wanted > c->count_max && turns-- > 0) {
        struct q2_slice *slice = TAILQ_FIRST(&c->clock);

        if (slice == NULL) {
            break;
        }
        if (slice->pins > 0 || atomic_exchange_explicit(&slice->used, 0, memory_order_relaxed)) {
            TAILQ_REMOVE(&c->clock, slice, entry);
            TAILQ_INSERT_TAIL(&c->clock, slice, entry);
        } else {
            leave_locked(c, slice, victims);
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

static int make_room_co(struct qcow2 *s, uint32_t wanted)
{
    struct q2_l2_cache *c = &s->l2;

    for (int i = 0; i < COMMIT_TRIES; i++) {
        struct q2_slice_list victims = TAILQ_HEAD_INITIALIZER(victims);
        bool done;
        bool commit;
        int ret;

        os_mutex_lock(&c->lock);
        done = evict_locked(c, wanted, &victims);
        commit = is_crowded(c) || (!done && has_unwritten(c));
        os_mutex_unlock(&c->lock);
        retire_all(s, &victims);
        if (!commit) {
            break; /* there is room, or all that is left is pinned */
        }
        ret = q2_commit_co(s, false);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

/* Nothing could be allocated for one more slice: what little is not in use shall go, so that the
 * next may succeed. */
static int out_of_memory(struct qcow2 *s)
{
    struct q2_l2_cache *c = &s->l2;
    struct q2_slice_list victims = TAILQ_HEAD_INITIALIZER(victims);
    uint32_t spare;

    os_mutex_lock(&c->lock);
    spare = c->count_max > c->count ? c->count_max - c->count : 0;
    evict_locked(c, spare + c->count / 8 + 1, &victims);
    os_mutex_unlock(&c->lock);
    retire_all(s, &victims);
    return -ENOMEM;
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
    return bdrv_edge_read_co(s->file, offset, (void *)slice->words, bytes);
}

static int load_co(struct qcow2 *s, uint64_t key, struct q2_slice **ret_slice)
{
    struct q2_slice *slice;
    int ret = make_room_co(s, 1);

    if (ret < 0) {
        return ret;
    }
    slice = slice_new(s, key);
    if (slice == NULL) {
        return out_of_memory(s);
    }
    ret = slice_read_co(s, slice, key);
    if (ret < 0) {
        slice_free(slice);
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
            enter_locked(c, slice, Q2_SLICE_CLEAN);
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
            atomic_store_explicit(&slice->used, 1, memory_order_relaxed);
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
    retire_all(s, &victims);
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
        struct q2_slice *slice = slice_new(s, offset + at);
        int ret = 0;

        if (slice == NULL) {
            return out_of_memory(s);
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
    int ret = make_room_co(s, s->geo.cluster_bytes / c->slice_bytes);

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
            leave_locked(c, stale, &victims);
        }
        TAILQ_REMOVE(&slices, slice, entry);
        enter_locked(c, slice, Q2_SLICE_DIRTY);
    }
    os_mutex_unlock(&c->lock);
    retire_all(s, &victims);
    return 0;
}

void q2_l2_drop_table(struct qcow2 *s, uint64_t offset)
{
    struct q2_l2_cache *c = &s->l2;
    struct q2_slice_list victims = TAILQ_HEAD_INITIALIZER(victims);

    os_mutex_lock(&c->lock);
    for (uint64_t at = 0; at < s->geo.cluster_bytes; at += c->slice_bytes) {
        struct q2_slice *slice = q2_l2_find_locked(c, offset + at);

        if (slice != NULL) {
            leave_locked(c, slice, &victims);
        }
    }
    os_mutex_unlock(&c->lock);
    retire_all(s, &victims);
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
            leave_locked(c, slice, &victims);
        }
    }
    os_mutex_unlock(&c->lock);
    retire_all(s, &victims);
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
        if (!atomic_exchange_explicit(&slice->used, 0, memory_order_relaxed) && slice->pins == 0) {
            leave_locked(c, slice, &victims);
        }
    }
    os_mutex_unlock(&c->lock);
    retire_all(s, &victims);
}

/* ---- the cache as a whole ---- */

static size_t bucket_bytes(const struct q2_l2_cache *c)
{
    return sizeof(*c->buckets) << (64 - c->bucket_shift);
}

int q2_l2_init(struct qcow2 *s)
{
    struct q2_l2_cache *c = &s->l2;
    uint32_t count_max =
        (uint32_t)min_u64(s->opt.l2_cache_bytes / s->opt.l2_slice_bytes, SLICES_MAX);

    assert(is_pow2(s->opt.l2_slice_bytes));
    c->slice_bytes = s->opt.l2_slice_bytes;
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
    os_mutex_init(&c->lock);
    TAILQ_INIT(&c->clock);
    TAILQ_INIT(&c->dirty);
    TAILQ_INIT(&c->writing);
    TAILQ_INIT(&c->written);
    TAILQ_INIT(&c->thaw);
    TAILQ_INIT(&c->loads);
    return 0;
}

void q2_l2_fini(struct qcow2 *s)
{
    static const enum q2_slice_state states[] = {Q2_SLICE_CLEAN, Q2_SLICE_DIRTY};
    struct q2_l2_cache *c = &s->l2;

    if (c->buckets == NULL) {
        return;
    }
    for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
        slices_free(list_of(c, states[i]));
    }
    free(c->buckets);
    mem_budget_give(bdrv_budget(s->bs), bucket_bytes(c));
    c->buckets = NULL;
    os_mutex_fini(&c->lock);
}
