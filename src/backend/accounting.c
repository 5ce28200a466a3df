/* SPDX-License-Identifier: MIT */
/*
 * Accounting. The counters that every request moves are kept per context slot, so that contexts do
 * not share a cache line, and added up when read. What is watched on request (intervals,
 * histograms) is behind one flag and a lock.
 *
 * Invariants
 *  A1  own[] is written, and what it points to, only by the thread that runs the context of that
 *      slot, so its counters are moved by a load and a store. The shared slot, of contexts that
 *      found none of their own, of threads without one and of those for which there was no memory,
 *      is moved by atomic additions.
 *  A2  A reader in any thread sees each counter whole, though not all of them of one moment.
 *  A3  What own[] points to stays until the end, though its context goes and another takes it.
 *  A4  While something is watched quick[] is empty, so that whoever ends a request comes by
 *      watch_some; the shortest way need not ask.
 *
 * Times are those of the turn of the loop in which a request was started and ended
 * (aio_turn), so that the clock is read once a turn and not twice a request.
 */
#include "backend/accounting_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "loop/task.h"
#include "util/checked.h"
#include "util/error.h"
#include "util/mem.h"

#define NOINLINE __attribute__((noinline))
#define NS_PER_SECOND INT64_C(1000000000)

/* Keeps A1 and A2. */
static inline void count(_Atomic uint64_t *counter, uint64_t n, bool own)
{
    if (own) {
        uint64_t old = atomic_load_explicit(counter, memory_order_relaxed);

        atomic_store_explicit(counter, old + n, memory_order_relaxed);
    } else {
        atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
    }
}

static struct acct_slot *slot_new(void)
{
    struct acct_slot *slot = aligned_alloc(_Alignof(struct acct_slot), sizeof(*slot));

    if (slot != NULL) {
        memset(slot, 0, sizeof(*slot));
    }
    return slot;
}

int acct_init(BlockAcctStats *stats)
{
    memset(stats, 0, sizeof(*stats));
    atomic_init(&stats->account_invalid, true);
    atomic_init(&stats->account_failed, true);
    os_mutex_init(&stats->lock);
    stats->shared = slot_new();
    return stats->shared != NULL ? 0 : -ENOMEM;
}

void acct_fini(BlockAcctStats *stats)
{
    for (int type = 0; type < BLOCK_MAX_IOTYPE; type++) {
        free(stats->histograms[type].boundaries_ns);
        free(stats->histograms[type].bins);
    }
    block_acct_clear_intervals(stats);
    for (unsigned i = 0; i < OS_SLOT_SHARED; i++) {
        free(atomic_load(&stats->own[i]));
    }
    free(stats->shared);
    os_mutex_fini(&stats->lock);
}

BlockAcctStats *block_acct_new(void)
{
    BlockAcctStats *stats = malloc(sizeof(*stats));

    if (stats != NULL && acct_init(stats) < 0) {
        block_acct_free(stats);
        return NULL;
    }
    return stats;
}

void block_acct_free(BlockAcctStats *stats)
{
    if (stats != NULL) {
        acct_fini(stats);
        free(stats);
    }
}

/* ---- what is watched ---- */

/* Two windows overlap by half, so that what is shown always covers between half an interval and a
 * whole one. */
static void window_begin(struct acct_window *w, int64_t start_ns)
{
    memset(w, 0, sizeof(*w));
    w->start_ns = start_ns;
}

static void interval_advance(struct acct_interval *in, int64_t now_ns)
{
    int64_t half = (int64_t)in->interval_s * NS_PER_SECOND / 2;

    struct acct_window *older = &in->windows[in->older];
    struct acct_window *younger = &in->windows[!in->older];

    if (now_ns - younger->start_ns >= 2 * half) { /* both are over: nothing came for long */
        window_begin(older, now_ns - half);
        window_begin(younger, now_ns);
    } else if (now_ns - older->start_ns >= 2 * half) {
        window_begin(older, younger->start_ns + half);
        in->older = !in->older;
    }
}

static void window_add(struct acct_window *w, enum BlockAcctType type, uint64_t ns)
{
    w->min_ns[type] = w->ops[type] == 0 ? ns : min_u64(w->min_ns[type], ns);
    w->max_ns[type] = max_u64(w->max_ns[type], ns);
    w->sum_ns[type] += ns;
    w->ops[type]++;
}

static void histogram_add(struct acct_histogram *h, uint64_t ns)
{
    size_t low = 0;
    size_t high = h->count;

    if (h->count == 0) {
        return;
    }
    while (low < high) { /* the first boundary above ns */
        size_t mid = (low + high) / 2;

        if (h->boundaries_ns[mid] > ns) {
            high = mid;
        } else {
            low = mid + 1;
        }
    }
    h->bins[low]++;
}

static void watch_some(BlockAcctStats *stats, enum BlockAcctType type, uint64_t ns, int64_t now_ns)
{
    struct acct_interval *in;

    if (LIKELY(!atomic_load_explicit(&stats->watched, memory_order_relaxed))) {
        return;
    }
    os_mutex_lock(&stats->lock);
    SLIST_FOREACH (in, &stats->intervals, next) {
        interval_advance(in, now_ns);
        window_add(&in->windows[0], type, ns);
        window_add(&in->windows[1], type, ns);
    }
    histogram_add(&stats->histograms[type], ns);
    os_mutex_unlock(&stats->lock);
}

static void watched_update(BlockAcctStats *stats)
{
    bool watched = !SLIST_EMPTY(&stats->intervals);

    for (int type = 0; type < BLOCK_MAX_IOTYPE; type++) {
        watched |= stats->histograms[type].count > 0;
    }
    atomic_store_explicit(&stats->watched, watched, memory_order_relaxed);
    for (unsigned i = 0; watched && i < OS_SLOT_SHARED; i++) {
        atomic_store_explicit(&stats->quick[i], NULL, memory_order_relaxed);
    }
}

/* ---- counting ---- */

/* Where a thread counts. */
struct place {
    struct acct_slot *slot;
    bool own; /* A1 */
    int64_t now_ns;
};

/* False: the clock is to be read, or there is more to do; place_slow is to be asked. */
static inline bool place_is_known(BlockAcctStats *stats, struct place *ret)
{
    struct aio_turn turn;

    if (UNLIKELY(!aio_turn_is_known(&turn))) {
        return false;
    }
    ret->slot = atomic_load_explicit(&stats->quick[turn.slot], memory_order_relaxed);
    ret->own = true;
    ret->now_ns = turn.now_ns;
    return LIKELY(ret->slot != NULL);
}

/* From now on by the shortest way, if nothing is watched. */
static void make_quick(BlockAcctStats *stats, unsigned i, struct acct_slot *slot)
{
    if (atomic_load_explicit(&stats->watched, memory_order_relaxed) ||
        atomic_load_explicit(&stats->quick[i], memory_order_relaxed) == slot) {
        return;
    }
    os_mutex_lock(&stats->lock);
    if (!atomic_load_explicit(&stats->watched, memory_order_relaxed)) {
        atomic_store_explicit(&stats->quick[i], slot, memory_order_relaxed);
    }
    os_mutex_unlock(&stats->lock);
}

static NOINLINE struct place place_slow(BlockAcctStats *stats)
{
    struct aio_turn turn = aio_turn();
    struct acct_slot *slot = NULL;

    if (turn.slot < OS_SLOT_SHARED) {
        slot = atomic_load_explicit(&stats->own[turn.slot], memory_order_relaxed);
        if (slot == NULL) {
            slot = slot_new();
            atomic_store_explicit(&stats->own[turn.slot], slot, memory_order_release);
        }
        make_quick(stats, turn.slot, slot);
    }
    return (struct place){
        .slot = slot != NULL ? slot : stats->shared,
        .own = slot != NULL,
        .now_ns = turn.now_ns,
    };
}

static inline struct place place_of(BlockAcctStats *stats)
{
    struct place place;

    return place_is_known(stats, &place) ? place : place_slow(stats);
}

static inline void start_at(struct place place, BlockAcctCookie *cookie, uint64_t bytes,
                            enum BlockAcctType type)
{
    cookie->bytes = bytes;
    cookie->start_time_ns = place.now_ns;
    cookie->type = type;
    count(&place.slot->of[type].started, 1, place.own);
}

static NOINLINE void start_slow(BlockAcctStats *stats, BlockAcctCookie *cookie, uint64_t bytes,
                                enum BlockAcctType type)
{
    start_at(place_slow(stats), cookie, bytes, type);
}

void block_acct_start(BlockAcctStats *stats, BlockAcctCookie *cookie, uint64_t bytes,
                      enum BlockAcctType type)
{
    struct place place;

    if (LIKELY(place_is_known(stats, &place))) {
        start_at(place, cookie, bytes, type);
    } else {
        start_slow(stats, cookie, bytes, type);
    }
}

/* One ended that counts as activity. Returns the time it took. */
static inline uint64_t ended(struct acct_counts *c, struct place place, int64_t start_time_ns)
{
    int64_t ns = place.now_ns - start_time_ns;

    if (UNLIKELY(ns < 0)) { /* it began in a context that looked at the clock later */
        ns = 0;
    }
    count(&c->total_ns, (uint64_t)ns, place.own);
    count(&c->bins[latency_bin((uint64_t)ns)], 1, place.own);
    atomic_store_explicit(&c->last_ns, place.now_ns, memory_order_relaxed);
    return (uint64_t)ns;
}

static inline uint64_t done_at(struct place place, const BlockAcctCookie *cookie)
{
    BlockAcctCookie k = *cookie; /* read once, whatever the counters may alias */
    struct acct_counts *c = &place.slot->of[k.type];

    __asm__("" : "+r"(c)); /* worked out once, not for each counter */
    count(&c->ops, 1, place.own);
    count(&c->bytes, k.bytes, place.own);
    return ended(c, place, k.start_time_ns);
}

static NOINLINE void done_slow(BlockAcctStats *stats, const BlockAcctCookie *cookie)
{
    struct place place = place_slow(stats);

    watch_some(stats, cookie->type, done_at(place, cookie), place.now_ns);
}

void block_acct_done(BlockAcctStats *stats, BlockAcctCookie *cookie)
{
    struct place place;

    if (LIKELY(place_is_known(stats, &place))) {
        (void)done_at(place, cookie);
    } else {
        done_slow(stats, cookie);
    }
}

void block_acct_failed(BlockAcctStats *stats, BlockAcctCookie *cookie)
{
    struct place place = place_of(stats);
    struct acct_counts *c = &place.slot->of[cookie->type];

    count(&c->failed, 1, place.own);
    if (atomic_load_explicit(&stats->account_failed, memory_order_relaxed)) {
        watch_some(stats, cookie->type, ended(c, place, cookie->start_time_ns), place.now_ns);
    }
}

void block_acct_invalid(BlockAcctStats *stats, enum BlockAcctType type)
{
    struct place place = place_of(stats);
    struct acct_counts *c = &place.slot->of[type];

    count(&c->invalid, 1, place.own);
    if (atomic_load_explicit(&stats->account_invalid, memory_order_relaxed)) {
        atomic_store_explicit(&c->last_ns, place.now_ns, memory_order_relaxed);
    }
}

void block_acct_merge_done(BlockAcctStats *stats, enum BlockAcctType type, unsigned num_requests)
{
    struct place place = place_of(stats);

    count(&place.slot->of[type].merged, num_requests, place.own);
}

void block_acct_setup(BlockAcctStats *stats, bool account_invalid, bool account_failed)
{
    atomic_store(&stats->account_invalid, account_invalid);
    atomic_store(&stats->account_failed, account_failed);
}

static uint64_t get(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

/* The n-th slot, of which the shared one is the first; NULL: it was not made. */
#define SLOT_COUNT (OS_SLOT_SHARED + 1)
static const struct acct_slot *nth_slot(BlockAcctStats *stats, unsigned n)
{
    return n == 0 ? stats->shared : atomic_load_explicit(&stats->own[n - 1], memory_order_acquire);
}

void block_acct_read(BlockAcctStats *stats, struct block_acct_totals *ret_totals)
{
    struct block_acct_totals t = {.account_invalid = atomic_load(&stats->account_invalid),
                                  .account_failed = atomic_load(&stats->account_failed)};
    int64_t last = 0;

    for (unsigned i = 0; i < SLOT_COUNT; i++) {
        const struct acct_slot *slot = nth_slot(stats, i);

        for (int type = 0; slot != NULL && type < BLOCK_MAX_IOTYPE; type++) {
            const struct acct_counts *c = &slot->of[type];
            int64_t c_last = atomic_load_explicit(&c->last_ns, memory_order_relaxed);

            last = c_last > last ? c_last : last;
            t.ops[type] += get(&c->ops);
            t.failed_ops[type] += get(&c->failed);
            t.bytes[type] += get(&c->bytes);
            t.invalid_ops[type] += get(&c->invalid);
            t.merged[type] += get(&c->merged);
            t.total_time_ns[type] += get(&c->total_ns);
            t.in_flight[type] += get(&c->started); /* less what ended, below */
        }
    }
    for (int type = 0; type < BLOCK_MAX_IOTYPE; type++) {
        uint64_t done = t.ops[type] + t.failed_ops[type];

        t.in_flight[type] = t.in_flight[type] > done ? t.in_flight[type] - done : 0;
    }
    t.idle_time_ns = last != 0 ? aio_clock_ns() - last : -1;
    if (last != 0 && t.idle_time_ns < 0) {
        t.idle_time_ns = 0;
    }
    *ret_totals = t;
}

void block_acct_read_latency(BlockAcctStats *stats, enum BlockAcctType type,
                             struct block_acct_latency *ret_latency)
{
    struct block_acct_latency l = {0};

    for (unsigned i = 0; i < SLOT_COUNT; i++) {
        const struct acct_slot *slot = nth_slot(stats, i);

        for (size_t bin = 0; slot != NULL && bin < BLOCK_ACCT_LATENCY_BINS; bin++) {
            uint64_t n = get(&slot->of[type].bins[bin]);

            l.bins[bin] += n;
            l.count += n;
        }
        l.total_ns += slot != NULL ? get(&slot->of[type].total_ns) : 0;
    }
    *ret_latency = l;
}

/* ---- intervals ---- */

int block_acct_add_interval(BlockAcctStats *stats, unsigned interval_s, Error **errp)
{
    struct acct_interval *in;
    int64_t now = aio_clock_ns();
    int ret = 0;

    if (interval_s == 0) {
        return error_set(errp, EINVAL, "An interval of 0 seconds cannot be watched");
    }
    in = calloc(1, sizeof(*in));
    if (in == NULL) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    in->interval_s = interval_s;
    window_begin(&in->windows[0], now - (int64_t)interval_s * NS_PER_SECOND / 2);
    window_begin(&in->windows[1], now);
    os_mutex_lock(&stats->lock);
    for (struct acct_interval *other = SLIST_FIRST(&stats->intervals); other != NULL;
         other = SLIST_NEXT(other, next)) {
        if (other->interval_s == interval_s) {
            ret = -EEXIST;
        }
    }
    if (ret == 0) {
        SLIST_INSERT_HEAD(&stats->intervals, in, next);
        watched_update(stats);
    }
    os_mutex_unlock(&stats->lock);
    if (ret < 0) {
        free(in);
        return error_set(errp, EEXIST, "An interval of %u seconds is watched already", interval_s);
    }
    return 0;
}

void block_acct_clear_intervals(BlockAcctStats *stats)
{
    struct acct_interval *in;

    os_mutex_lock(&stats->lock);
    while ((in = SLIST_FIRST(&stats->intervals)) != NULL) {
        SLIST_REMOVE_HEAD(&stats->intervals, next);
        free(in);
    }
    watched_update(stats);
    os_mutex_unlock(&stats->lock);
}

bool block_acct_get_interval(BlockAcctStats *stats, size_t n, struct block_acct_interval *ret)
{
    struct acct_interval *in;
    int64_t now = aio_clock_ns();

    os_mutex_lock(&stats->lock);
    in = SLIST_FIRST(&stats->intervals);
    while (in != NULL && n-- > 0) {
        in = SLIST_NEXT(in, next);
    }
    if (in != NULL) {
        const struct acct_window *w;
        int64_t elapsed;

        interval_advance(in, now);
        w = &in->windows[in->older];
        elapsed = now - w->start_ns;
        *ret = (struct block_acct_interval){.interval_s = in->interval_s};
        for (int type = 0; type < BLOCK_MAX_IOTYPE; type++) {
            ret->of[type].min_ns = w->min_ns[type];
            ret->of[type].max_ns = w->max_ns[type];
            ret->of[type].avg_ns = w->ops[type] > 0 ? w->sum_ns[type] / w->ops[type] : 0;
            ret->of[type].avg_queue_depth =
                elapsed > 0 ? (double)w->sum_ns[type] / (double)elapsed : 0;
        }
    }
    os_mutex_unlock(&stats->lock);
    return in != NULL;
}

/* ---- histograms ---- */

int block_latency_histogram_set(BlockAcctStats *stats, enum BlockAcctType type,
                                const uint64_t *boundaries_ns, size_t n, Error **errp)
{
    struct acct_histogram new = {0};
    struct acct_histogram old;

    for (size_t i = 0; i < n; i++) {
        if (boundaries_ns[i] == 0 || (i > 0 && boundaries_ns[i] <= boundaries_ns[i - 1])) {
            return error_set(errp, EINVAL, "Boundaries of a histogram must be ascending");
        }
    }
    if (boundaries_ns != NULL && n > 0) {
        new.count = n;
        new.boundaries_ns = calloc(n, sizeof(uint64_t));
        new.bins = calloc(n + 1, sizeof(uint64_t));
        if (new.boundaries_ns == NULL || new.bins == NULL) {
            free(new.boundaries_ns);
            free(new.bins);
            return error_set(errp, ENOMEM, "out of memory");
        }
        memcpy(new.boundaries_ns, boundaries_ns, n * sizeof(uint64_t));
    }
    os_mutex_lock(&stats->lock);
    old = stats->histograms[type];
    stats->histograms[type] = new;
    watched_update(stats);
    os_mutex_unlock(&stats->lock);
    free(old.boundaries_ns);
    free(old.bins);
    return 0;
}

int block_latency_histogram_get(BlockAcctStats *stats, enum BlockAcctType type,
                                uint64_t **ret_boundaries_ns, uint64_t **ret_bins,
                                size_t *ret_count)
{
    struct acct_histogram *h = &stats->histograms[type];
    uint64_t *boundaries;
    uint64_t *bins;
    size_t n = h->count; /* the control thread's to change */

    boundaries = calloc(n + 1, sizeof(uint64_t));
    bins = calloc(n + 1, sizeof(uint64_t));
    if (boundaries == NULL || bins == NULL) {
        free(boundaries);
        free(bins);
        return -ENOMEM;
    }
    if (n > 0) {
        os_mutex_lock(&stats->lock);
        memcpy(boundaries, h->boundaries_ns, n * sizeof(uint64_t));
        memcpy(bins, h->bins, (n + 1) * sizeof(uint64_t));
        os_mutex_unlock(&stats->lock);
    }
    *ret_boundaries_ns = boundaries;
    *ret_bins = bins;
    *ret_count = n;
    return 0;
}
