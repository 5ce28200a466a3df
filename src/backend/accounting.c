/* SPDX-License-Identifier: MIT */
/*
 * Accounting. The counters that every request moves are kept per context slot, so that contexts do
 * not share a cache line, and added up when read. What is watched on request (intervals,
 * histograms) is behind one flag and a lock.
 *
 * Invariants
 *  A1  A slot below OS_SLOT_SHARED is written only by the thread that runs its context, so its
 *      counters are moved by a load and a store. The others, of contexts that found none of their
 *      own and of threads without one, are moved by atomic additions.
 *  A2  A reader in any thread sees each counter whole, though not all of them of one moment.
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

int acct_init(BlockAcctStats *stats)
{
    *stats = (BlockAcctStats){.account_invalid = true, .account_failed = true};
    os_mutex_init(&stats->lock);
    stats->slots = aligned_alloc(64, (OS_SLOTS + 1) * sizeof(*stats->slots));
    if (stats->slots == NULL) {
        return -ENOMEM;
    }
    memset(stats->slots, 0, (OS_SLOTS + 1) * sizeof(*stats->slots));
    return 0;
}

void acct_fini(BlockAcctStats *stats)
{
    for (int type = 0; type < BLOCK_MAX_IOTYPE; type++) {
        free(stats->histograms[type].boundaries_ns);
        free(stats->histograms[type].bins);
    }
    block_acct_clear_intervals(stats);
    free(stats->slots);
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

static NOINLINE void watch(BlockAcctStats *stats, enum BlockAcctType type, uint64_t ns,
                           int64_t now_ns)
{
    struct acct_interval *in;

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
}

/* ---- counting ---- */

static inline bool slot_is_own(struct aio_turn turn)
{
    return LIKELY(turn.slot < OS_SLOT_SHARED);
}

static inline struct acct_counts *counts_of(BlockAcctStats *stats, struct aio_turn turn,
                                            enum BlockAcctType type)
{
    return &stats->slots[turn.slot].of[type];
}

static inline void start_at(BlockAcctStats *stats, BlockAcctCookie *cookie, uint64_t bytes,
                            enum BlockAcctType type, struct aio_turn turn, bool own)
{
    cookie->bytes = bytes;
    cookie->start_time_ns = turn.now_ns;
    cookie->type = type;
    count(&counts_of(stats, turn, type)->started, 1, own);
}

static NOINLINE void start_slow(BlockAcctStats *stats, BlockAcctCookie *cookie, uint64_t bytes,
                                enum BlockAcctType type)
{
    struct aio_turn turn = aio_turn_slow();

    start_at(stats, cookie, bytes, type, turn, slot_is_own(turn));
}

void block_acct_start(BlockAcctStats *stats, BlockAcctCookie *cookie, uint64_t bytes,
                      enum BlockAcctType type)
{
    struct aio_turn turn;

    if (LIKELY(aio_turn_is_known(&turn) && slot_is_own(turn))) {
        start_at(stats, cookie, bytes, type, turn, true);
    } else {
        start_slow(stats, cookie, bytes, type);
    }
}

/* One ended that counts as activity. */
static inline void ended(BlockAcctStats *stats, struct acct_counts *c, int64_t now_ns,
                         const BlockAcctCookie *cookie, bool own)
{
    int64_t ns = now_ns - cookie->start_time_ns;

    ns = ns > 0 ? ns : 0; /* it may have begun in a context that looked at the clock later */
    count(&c->total_ns, (uint64_t)ns, own);
    atomic_store_explicit(&c->last_ns, now_ns, memory_order_relaxed);
    if (UNLIKELY(atomic_load_explicit(&stats->watched, memory_order_relaxed))) {
        watch(stats, cookie->type, (uint64_t)ns, now_ns);
    }
}

static inline void done_at(BlockAcctStats *stats, const BlockAcctCookie *cookie,
                           struct aio_turn turn, bool own)
{
    struct acct_counts *c = counts_of(stats, turn, cookie->type);

    count(&c->ops, 1, own);
    count(&c->bytes, cookie->bytes, own);
    ended(stats, c, turn.now_ns, cookie, own);
}

static NOINLINE void done_slow(BlockAcctStats *stats, const BlockAcctCookie *cookie)
{
    struct aio_turn turn = aio_turn_slow();

    done_at(stats, cookie, turn, slot_is_own(turn));
}

void block_acct_done(BlockAcctStats *stats, BlockAcctCookie *cookie)
{
    struct aio_turn turn;

    if (LIKELY(aio_turn_is_known(&turn) && slot_is_own(turn))) {
        done_at(stats, cookie, turn, true);
    } else {
        done_slow(stats, cookie);
    }
}

void block_acct_failed(BlockAcctStats *stats, BlockAcctCookie *cookie)
{
    struct aio_turn turn = aio_turn();
    struct acct_counts *c = counts_of(stats, turn, cookie->type);

    count(&c->failed, 1, slot_is_own(turn));
    if (atomic_load_explicit(&stats->account_failed, memory_order_relaxed)) {
        ended(stats, c, turn.now_ns, cookie, slot_is_own(turn));
    }
}

void block_acct_invalid(BlockAcctStats *stats, enum BlockAcctType type)
{
    struct aio_turn turn = aio_turn();
    struct acct_counts *c = counts_of(stats, turn, type);

    count(&c->invalid, 1, slot_is_own(turn));
    if (atomic_load_explicit(&stats->account_invalid, memory_order_relaxed)) {
        atomic_store_explicit(&c->last_ns, turn.now_ns, memory_order_relaxed);
    }
}

void block_acct_merge_done(BlockAcctStats *stats, enum BlockAcctType type, unsigned num_requests)
{
    struct aio_turn turn = aio_turn();

    count(&counts_of(stats, turn, type)->merged, num_requests, slot_is_own(turn));
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

void block_acct_read(BlockAcctStats *stats, struct block_acct_totals *ret_totals)
{
    struct block_acct_totals t = {.account_invalid = atomic_load(&stats->account_invalid),
                                  .account_failed = atomic_load(&stats->account_failed)};
    int64_t last = 0;

    for (unsigned i = 0; i <= OS_SLOTS; i++) {
        for (int type = 0; type < BLOCK_MAX_IOTYPE; type++) {
            const struct acct_counts *c = &stats->slots[i].of[type];
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
