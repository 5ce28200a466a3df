/* SPDX-License-Identifier: MIT */
/*
 * Accounting of a backend's requests: counts, bytes, times. Whoever serves a client (a device, an
 * export) starts and ends the accounting of each request. The counting calls are [any]; a request
 * is started and ended in the same thread or another. What is read is the sum over all contexts,
 * each figure exact, though not all of them of one moment.
 *
 * The clock is read once a turn of the loop that counts: requests submitted in one turn begin at
 * one time, those answered in one turn end at one. So the time of a request is exact to the length
 * of a turn (what is counted in a thread that runs no loop: to the clock).
 */
#ifndef PLATTER_ACCOUNTING_H
#define PLATTER_ACCOUNTING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <platter/error.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A backend's: valid as long as that. */
typedef struct BlockAcctStats BlockAcctStats;

/* Figures of the caller's own, for what no backend stands for (an export of one that others serve
 * too). NULL: out of memory. free: nobody counts any more; NULL allowed. [any] */
BlockAcctStats *block_acct_new(void);
void block_acct_free(BlockAcctStats *stats);

enum BlockAcctType {
    BLOCK_ACCT_READ = 0,
    BLOCK_ACCT_WRITE,
    BLOCK_ACCT_FLUSH,
    BLOCK_ACCT_UNMAP,
    BLOCK_MAX_IOTYPE
};

/* A request under way; the caller's. */
typedef struct BlockAcctCookie {
    uint64_t bytes;
    int64_t start_time_ns;
    enum BlockAcctType type;
} BlockAcctCookie;

void block_acct_start(BlockAcctStats *stats, BlockAcctCookie *cookie, uint64_t bytes,
                      enum BlockAcctType type);
/* Exactly one of the two ends it. */
void block_acct_done(BlockAcctStats *stats, BlockAcctCookie *cookie);
void block_acct_failed(BlockAcctStats *stats, BlockAcctCookie *cookie);
/* One that was refused before it was started. */
void block_acct_invalid(BlockAcctStats *stats, enum BlockAcctType type);
/* Requests that were merged into others. */
void block_acct_merge_done(BlockAcctStats *stats, enum BlockAcctType type, unsigned num_requests);

/* Whether invalid and failed requests count as activity (idle time) and in times. Default: both.
 * [control] */
void block_acct_setup(BlockAcctStats *stats, bool account_invalid, bool account_failed);

struct block_acct_totals {
    uint64_t bytes[BLOCK_MAX_IOTYPE];
    uint64_t ops[BLOCK_MAX_IOTYPE];
    uint64_t failed_ops[BLOCK_MAX_IOTYPE];
    uint64_t invalid_ops[BLOCK_MAX_IOTYPE];
    uint64_t merged[BLOCK_MAX_IOTYPE];
    uint64_t total_time_ns[BLOCK_MAX_IOTYPE];
    uint64_t in_flight[BLOCK_MAX_IOTYPE];
    int64_t idle_time_ns; /* since the last request ended; -1: there was none */
    bool account_invalid;
    bool account_failed;
};
void block_acct_read(BlockAcctStats *stats, struct block_acct_totals *ret_totals);

/* Times of requests, always counted: in bins of 256 ns up to 2048 ns, four to each power of two
 * from there to 2^38 ns (4.6 min), and one for those that took longer. Which count: those that
 * ended well, and failed ones as block_acct_setup says.
 *
 * With all other figures it costs 5 KiB, and 4 KiB for each context that served requests: 257 KiB
 * at the most. */
#define BLOCK_ACCT_LATENCY_BINS 117

struct block_acct_latency {
    uint64_t count;    /* of requests: of all bins */
    uint64_t total_ns; /* time of all of them */
    uint64_t bins[BLOCK_ACCT_LATENCY_BINS];
};
void block_acct_read_latency(BlockAcctStats *stats, enum BlockAcctType type,
                             struct block_acct_latency *ret_latency);
/* A bin holds requests that took less than this, and no less than the bound of the bin before it;
 * UINT64_MAX for the last. */
uint64_t block_acct_latency_bound(size_t bin);
/* A time that per_mille of 1000 requests did not exceed: the bound of a bin, so never less than the
 * exact figure, and above it by 256 ns or a quarter at the most. Of requests that took longer than
 * 2^38 ns it is that number. 0: there were no requests. */
uint64_t block_acct_latency_quantile(const struct block_acct_latency *latency, unsigned per_mille);

/* Minimum, average and maximum of times over the last interval_s seconds (at least half of them),
 * and the average number of requests in flight. Several lengths may be watched at once. [control]
 * 0, -EEXIST, -EINVAL (0), -ENOMEM. */
int block_acct_add_interval(BlockAcctStats *stats, unsigned interval_s, Error **errp);
void block_acct_clear_intervals(BlockAcctStats *stats);
struct block_acct_interval {
    unsigned interval_s;
    struct {
        uint64_t min_ns;
        uint64_t max_ns;
        uint64_t avg_ns;
        double avg_queue_depth;
    } of[BLOCK_MAX_IOTYPE];
};
/* The n-th of those that are watched; false: there are not so many. [control] */
bool block_acct_get_interval(BlockAcctStats *stats, size_t n, struct block_acct_interval *ret);

/* Count requests by their time: boundaries (ascending, ns, at least one) make count + 1 bins. NULL
 * ends it. [control] 0, -EINVAL, -ENOMEM. */
int block_latency_histogram_set(BlockAcctStats *stats, enum BlockAcctType type,
                                const uint64_t *boundaries_ns, size_t count, Error **errp);
/* boundaries and bins (one more) are malloc'd; *ret_count 0: there is none. 0 or -ENOMEM. */
int block_latency_histogram_get(BlockAcctStats *stats, enum BlockAcctType type,
                                uint64_t **ret_boundaries_ns, uint64_t **ret_bins,
                                size_t *ret_count);

#ifdef __cplusplus
}
#endif
#endif
