/* SPDX-License-Identifier: MIT */
/* query-blockstats, and what is counted. */
#include <errno.h>
#include <stdlib.h>

#include <platter/accounting.h>

#include "control/control.h"
#include "control/parts.h"
#include "schema/qmp.h"
#include "util/error.h"
#include "util/json.h"

#define BOUNDARIES_MAX 1024
#define INTERVALS_MAX 16
#define DEPTH_MAX 64

static const char *const type_words[BLOCK_MAX_IOTYPE] = {
    [BLOCK_ACCT_READ] = "rd",
    [BLOCK_ACCT_WRITE] = "wr",
    [BLOCK_ACCT_FLUSH] = "flush",
    [BLOCK_ACCT_UNMAP] = "unmap",
};

static void add_figure(json_t *object, const char *before, int type, const char *behind,
                       uint64_t value, int *ret)
{
    char key[64];

    snprintf(key, sizeof(key), "%s%s%s", before, type_words[type], behind);
    json_add(object, key, json_u64(value), ret);
}

static void add_totals(json_t *object, const struct block_acct_totals *t, int *ret)
{
    for (int type = 0; type < BLOCK_MAX_IOTYPE; type++) {
        if (type != BLOCK_ACCT_FLUSH) {
            add_figure(object, "", type, "_bytes", t->bytes[type], ret);
            add_figure(object, "", type, "_merged", t->merged[type], ret);
        }
        add_figure(object, "", type, "_operations", t->ops[type], ret);
        add_figure(object, "", type, "_total_time_ns", t->total_time_ns[type], ret);
        add_figure(object, "failed_", type, "_operations", t->failed_ops[type], ret);
        add_figure(object, "invalid_", type, "_operations", t->invalid_ops[type], ret);
    }
    if (t->idle_time_ns >= 0) {
        json_add(object, "idle_time_ns", json_integer(t->idle_time_ns), ret);
    }
}

static json_t *interval_json(const struct block_acct_interval *interval)
{
    json_t *object = json_object();
    int ret = object ? 0 : -ENOMEM;
    char key[64];

    json_add(object, "interval_length", json_integer(interval->interval_s), &ret);
    for (int type = 0; type <= BLOCK_ACCT_FLUSH; type++) {
        add_figure(object, "min_", type, "_latency_ns", interval->of[type].min_ns, &ret);
        add_figure(object, "max_", type, "_latency_ns", interval->of[type].max_ns, &ret);
        add_figure(object, "avg_", type, "_latency_ns", interval->of[type].avg_ns, &ret);
        if (type != BLOCK_ACCT_FLUSH) {
            snprintf(key, sizeof(key), "avg_%s_queue_depth", type_words[type]);
            json_add(object, key, json_real(interval->of[type].avg_queue_depth), &ret);
        }
    }
    return json_whole(object, ret);
}

static void add_intervals(json_t *object, BlockAcctStats *stats, int *ret)
{
    struct block_acct_interval interval;
    json_t *list = json_array();

    for (size_t n = 0; stats && block_acct_get_interval(stats, n, &interval); n++) {
        json_append(list, interval_json(&interval), ret);
    }
    json_add(object, "timed_stats", list, ret);
}

static json_t *numbers_json(const uint64_t *numbers, size_t count)
{
    json_t *list = json_array();
    int ret = list ? 0 : -ENOMEM;

    for (size_t i = 0; i < count; i++) {
        json_append(list, json_u64(numbers[i]), &ret);
    }
    return json_whole(list, ret);
}

static void add_histograms(json_t *object, BlockAcctStats *stats, int *ret)
{
    for (int type = 0; type <= BLOCK_ACCT_FLUSH; type++) {
        uint64_t *boundaries = NULL;
        uint64_t *bins = NULL;
        size_t count = 0;
        char key[64];
        json_t *h;

        if (block_latency_histogram_get(stats, type, &boundaries, &bins, &count) < 0) {
            *ret = -ENOMEM;
        }
        if (count > 0) {
            h = json_object();
            json_add(h, "boundaries", numbers_json(boundaries, count), ret);
            json_add(h, "bins", numbers_json(bins, count + 1), ret);
            snprintf(key, sizeof(key), "%s_latency_histogram", type_words[type]);
            json_add(object, key, h, ret);
        }
        free(boundaries);
        free(bins);
    }
}

json_t *control_stats_json(BlockAcctStats *stats, BlockDriverState *bs)
{
    struct block_acct_totals totals = {.idle_time_ns = -1};
    json_t *object = json_object();
    int ret = object ? 0 : -ENOMEM;

    if (stats) {
        block_acct_read(stats, &totals);
    }
    add_totals(object, &totals, &ret);
    json_add(object, "wr_highest_offset", json_u64(bs ? bdrv_get_wr_highest_offset(bs) : 0), &ret);
    json_add(object, "account_invalid", json_boolean(totals.account_invalid), &ret);
    json_add(object, "account_failed", json_boolean(totals.account_failed), &ret);
    add_intervals(object, stats, &ret);
    if (stats) {
        add_histograms(object, stats, &ret);
    }
    return json_whole(object, ret);
}

/* What the driver of the node counts by itself. */
static void add_driver_specific(json_t *object, BlockDriverState *bs, int *ret)
{
    struct bdrv_discard_stats stats;
    json_t *inner;

    if (!bdrv_get_discard_stats(bs, &stats)) {
        return;
    }
    inner = json_object();
    json_add(inner, "discard-bytes-ok", json_u64(stats.ok_bytes), ret);
    json_add(inner, "discard-nb-ok", json_u64(stats.ok), ret);
    json_add(inner, "driver", json_string(bdrv_get_format_name(bs)), ret);
    json_add(inner, "discard-nb-failed", json_u64(stats.failed), ret);
    json_add(object, "driver-specific", inner, ret);
}

/* As BlockStats: a node, the file below it and, for a whole chain, its backing file. */
static void add_node(json_t *object, BlockDriverState *bs, bool chain, int depth, int *ret)
{
    static const struct {
        const char *child;
        const char *key;
    } below[] = {{"file", "parent"}, {"backing", "backing"}};

    json_add(object, "node-name", json_text(bdrv_get_node_name(bs)), ret);
    add_driver_specific(object, bs, ret);
    for (size_t i = 0; i < (chain ? 2 : 1) && depth < DEPTH_MAX; i++) {
        BlockDriverState *child = bdrv_get_child(bs, below[i].child);
        json_t *inner;

        if (child) {
            inner = json_object();
            json_add(inner, "stats", control_stats_json(NULL, child), ret);
            add_node(inner, child, chain, depth + 1, ret);
            json_add(object, below[i].key, inner, ret);
        }
    }
}

static json_t *backend_stats(BlockBackend *blk)
{
    json_t *object = json_object();
    int ret = object ? 0 : -ENOMEM;

    json_add(object, "device", json_text(blk_name(blk)), &ret);
    json_add(object, "stats", control_stats_json(blk_get_stats(blk), blk_bs(blk)), &ret);
    if (blk_bs(blk)) {
        add_node(object, blk_bs(blk), true, 0, &ret);
    }
    return json_whole(object, ret);
}

static json_t *node_stats(BlockDriverState *bs)
{
    json_t *object = json_object();
    int ret = object ? 0 : -ENOMEM;

    json_add(object, "stats", control_stats_json(NULL, bs), &ret);
    add_node(object, bs, false, 0, &ret);
    return json_whole(object, ret);
}

int qmp_query_blockstats(struct qmp_call *call, const struct qmp_query_blockstats *args,
                         json_t **ret_value, Error **errp)
{
    Platter *pl = call->control->pl;
    json_t *list = json_array();
    BlockDriverState *bs = NULL;
    BlockBackend *blk = NULL;
    int ret = list ? 0 : -ENOMEM;

    if (args->has_query_nodes && args->query_nodes) {
        while ((bs = bdrv_next_node(pl, bs)) != NULL) {
            json_append(list, node_stats(bs), &ret);
        }
    } else {
        while ((blk = blk_next(pl, blk)) != NULL) {
            json_append(list, backend_stats(blk), &ret);
        }
    }
    return qmp_give(json_whole(list, ret), ret_value, errp);
}

/* ---- times ---- */

static json_t *bins_json(const struct block_acct_latency *latency)
{
    json_t *list = json_array();
    int ret = list ? 0 : -ENOMEM;

    for (size_t bin = 0; bin < BLOCK_ACCT_LATENCY_BINS; bin++) {
        json_t *object;

        if (latency->bins[bin] == 0) {
            continue;
        }
        object = json_object();
        if (bin + 1 < BLOCK_ACCT_LATENCY_BINS) {
            json_add(object, "below-ns", json_u64(block_acct_latency_bound(bin)), &ret);
        }
        json_add(object, "count", json_u64(latency->bins[bin]), &ret);
        json_append(list, object, &ret);
    }
    return json_whole(list, ret);
}

static json_t *times_json(const struct block_acct_latency *latency)
{
    json_t *object = json_object();
    int ret = object ? 0 : -ENOMEM;

    json_add(object, "count", json_u64(latency->count), &ret);
    json_add(object, "total-ns", json_u64(latency->total_ns), &ret);
    json_add(object, "p50-ns", json_u64(block_acct_latency_quantile(latency, 500)), &ret);
    json_add(object, "p99-ns", json_u64(block_acct_latency_quantile(latency, 990)), &ret);
    json_add(object, "bins", bins_json(latency), &ret);
    return json_whole(object, ret);
}

json_t *control_latency_json(BlockAcctStats *stats)
{
    static const char *const words[BLOCK_MAX_IOTYPE] = {
        [BLOCK_ACCT_READ] = "read",
        [BLOCK_ACCT_WRITE] = "write",
        [BLOCK_ACCT_FLUSH] = "flush",
        [BLOCK_ACCT_UNMAP] = "unmap",
    };
    json_t *object = json_object();
    int ret = object ? 0 : -ENOMEM;

    for (int type = 0; type < BLOCK_MAX_IOTYPE; type++) {
        struct block_acct_latency latency = {0};

        if (stats) {
            block_acct_read_latency(stats, type, &latency);
        }
        json_add(object, words[type], times_json(&latency), &ret);
    }
    return json_whole(object, ret);
}

int qmp_query_block_latency(struct qmp_call *call, json_t **ret_value, Error **errp)
{
    json_t *list = json_array();
    BlockBackend *blk = NULL;
    int ret = list ? 0 : -ENOMEM;

    while ((blk = blk_next(call->control->pl, blk)) != NULL) {
        json_t *object = json_object();

        json_add(object, "device", json_text(blk_name(blk)), &ret);
        json_add(object, "latency", control_latency_json(blk_get_stats(blk)), &ret);
        json_append(list, object, &ret);
    }
    return qmp_give(json_whole(list, ret), ret_value, errp);
}

/* ---- what is counted ---- */

/* Of a backend, or of an export. */
static BlockAcctStats *find_stats(struct qmp_call *call, const char *id, Error **errp)
{
    BlockBackend *blk = blk_by_name(call->control->pl, id);
    BlockAcctStats *stats = blk ? blk_get_stats(blk) : control_export_stats(call->control, id);

    if (!stats) {
        (void)control_find_backend(call, id, errp); /* says so in the words clients know */
    }
    return stats;
}

static int set_histogram(BlockAcctStats *stats, enum BlockAcctType type, const char *key,
                         json_t *list, Error **errp)
{
    uint64_t boundaries[BOUNDARIES_MAX];
    size_t count = json_array_size(list);

    if (count > BOUNDARIES_MAX) {
        return error_set(errp, E2BIG, "'%s' has %zu numbers: %d at the most", key, count,
                         BOUNDARIES_MAX);
    }
    for (size_t i = 0; i < count; i++) {
        json_get_u64(json_array_get(list, i), &boundaries[i]);
    }
    if (list && count == 0) {
        return error_set(errp, EINVAL, "'%s' is empty", key);
    }
    return block_latency_histogram_set(stats, type, list ? boundaries : NULL, count, errp);
}

int qmp_block_latency_histogram_set(struct qmp_call *call,
                                    const struct qmp_block_latency_histogram_set *args,
                                    Error **errp)
{
    const struct {
        const char *key;
        enum BlockAcctType type;
        bool has;
        json_t *list;
    } kinds[] = {
        {"boundaries-read", BLOCK_ACCT_READ, args->has_boundaries_read, args->boundaries_read},
        {"boundaries-write", BLOCK_ACCT_WRITE, args->has_boundaries_write, args->boundaries_write},
        {"boundaries-flush", BLOCK_ACCT_FLUSH, args->has_boundaries_flush, args->boundaries_flush},
    };
    BlockAcctStats *stats = find_stats(call, args->id, errp);
    bool clear = !args->has_boundaries && !kinds[0].has && !kinds[1].has && !kinds[2].has;
    int ret = stats ? 0 : -ENODEV;

    for (size_t i = 0; i < 3 && ret == 0; i++) {
        if (clear || kinds[i].has || args->has_boundaries) {
            const char *key = kinds[i].has ? kinds[i].key : "boundaries";

            ret = set_histogram(stats, kinds[i].type, key,
                                kinds[i].has ? kinds[i].list
                                : clear      ? NULL
                                             : args->boundaries,
                                errp);
        }
    }
    return ret;
}

int qmp_block_set_accounting(struct qmp_call *call, const struct qmp_block_set_accounting *args,
                             Error **errp)
{
    BlockAcctStats *stats = find_stats(call, args->id, errp);
    struct block_acct_totals now;
    size_t count = args->has_intervals ? json_array_size(args->intervals) : 0;
    int ret = 0;

    if (!stats) {
        return -ENODEV;
    }
    if (count > INTERVALS_MAX) {
        return error_set(errp, E2BIG, "'intervals' has %zu numbers: %d at the most", count,
                         INTERVALS_MAX);
    }
    block_acct_read(stats, &now);
    block_acct_setup(stats, args->has_account_invalid ? args->account_invalid : now.account_invalid,
                     args->has_account_failed ? args->account_failed : now.account_failed);
    if (args->has_intervals) {
        block_acct_clear_intervals(stats);
    }
    for (size_t i = 0; i < count && ret == 0; i++) {
        json_int_t seconds = json_integer_value(json_array_get(args->intervals, i));

        ret = block_acct_add_interval(stats, (unsigned)seconds, errp);
    }
    return ret;
}
