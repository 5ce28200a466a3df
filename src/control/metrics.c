/* SPDX-License-Identifier: MIT */
/* Figures as text. All samples of a metric stand together, as the format wants it. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <platter/accounting.h>
#include <platter/backend.h>
#include <platter/block.h>
#include <platter/job.h>
#include <platter/platter.h>

#include "control/metrics.h"
#include "util/text.h"

/* ---- text ---- */

/* The value of a label between its quotes. */
static void put_escaped(struct text *t, const char *value)
{
    while (*value) {
        size_t n = strcspn(value, "\\\"\n");

        text_printf(t, "%.*s", (int)n, value);
        value += n;
        if (*value) {
            text_printf(t, "\\%c", *value == '\n' ? 'n' : *value);
            value++;
        }
    }
}

/* name{key="value" ; the caller goes on with further labels and "} number". */
static void put_sample(struct text *t, const char *name, const char *key, const char *value)
{
    text_printf(t, "%s{%s=\"", name, key);
    put_escaped(t, value);
    text_printf(t, "\"");
}

static void put_label(struct text *t, const char *key, const char *value)
{
    text_printf(t, ",%s=\"", key);
    put_escaped(t, value);
    text_printf(t, "\"");
}

static void put_head(struct text *t, const char *name, const char *type, const char *help)
{
    text_printf(t, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void put_seconds(struct text *t, uint64_t ns)
{
    text_printf(t, "%" PRIu64 ".%09" PRIu64, ns / 1000000000, ns % 1000000000);
}

/* ---- backends and exports: whatever has accounting ---- */

#define NAME_BYTES 96

static const char *const type_words[BLOCK_MAX_IOTYPE] = {
    [BLOCK_ACCT_READ] = "read",
    [BLOCK_ACCT_WRITE] = "write",
    [BLOCK_ACCT_FLUSH] = "flush",
    [BLOCK_ACCT_UNMAP] = "discard",
};

/* One that is counted; where a walk over all of its kind stands. */
struct counted {
    const char *kind; /* "backend", "export": the label, and part of the names of metrics */
    const char *name;
    BlockAcctStats *stats;
    BlockBackend *blk; /* of a backend */
    unsigned n;        /* of an export: the number of the next */
};

/* The next of its kind; c holds but kind at first. */
static bool counted_next(const struct metrics_source *source, struct counted *c)
{
    NbdServer *nbd = source->nbd ? *source->nbd : NULL;

    if (strcmp(c->kind, "backend") == 0) {
        c->blk = blk_next(source->pl, c->blk);
        c->name = c->blk ? blk_name(c->blk) : NULL;
        c->stats = c->blk ? blk_get_stats(c->blk) : NULL;
        return c->blk != NULL;
    }
    c->name = nbd ? nbd_server_get_export_name(nbd, c->n++) : NULL;
    c->stats = c->name ? nbd_server_get_export_stats(nbd, c->name) : NULL;
    return c->stats != NULL;
}

struct counted_metric {
    const char *name; /* behind "platter_KIND_" */
    const char *type;
    const char *help;
    size_t offset; /* in struct block_acct_totals: uint64_t[BLOCK_MAX_IOTYPE] */
    bool is_time;
};

static const struct counted_metric counted_metrics[] = {
    {"operations_total", "counter", "Requests that ended well.",
     offsetof(struct block_acct_totals, ops), false},
    {"bytes_total", "counter", "Bytes of requests that ended well.",
     offsetof(struct block_acct_totals, bytes), false},
    {"failed_operations_total", "counter", "Requests that failed.",
     offsetof(struct block_acct_totals, failed_ops), false},
    {"invalid_operations_total", "counter", "Requests that were refused before they began.",
     offsetof(struct block_acct_totals, invalid_ops), false},
    {"merged_operations_total", "counter", "Requests that were merged into others.",
     offsetof(struct block_acct_totals, merged), false},
    {"time_seconds_total", "counter", "Time that requests took, added up.",
     offsetof(struct block_acct_totals, total_time_ns), true},
    {"in_flight", "gauge", "Requests under way.", offsetof(struct block_acct_totals, in_flight),
     false},
};

static const char *metric_name(char *buf, const char *kind, const char *behind)
{
    snprintf(buf, NAME_BYTES, "platter_%s_%s", kind, behind);
    return buf;
}

/* platter_KIND_BEHIND{KIND="name",type="..." */
static void put_counted(struct text *t, const struct counted *c, const char *behind, int type)
{
    char name[NAME_BYTES];

    put_sample(t, metric_name(name, c->kind, behind), c->kind, c->name);
    put_label(t, "type", type_words[type]);
}

static void put_totals(struct text *t, const struct counted_metric *m, const struct counted *c)
{
    struct block_acct_totals totals;
    const uint64_t *values = (const uint64_t *)(const void *)((const char *)&totals + m->offset);

    block_acct_read(c->stats, &totals);
    for (int type = 0; type < BLOCK_MAX_IOTYPE; type++) {
        put_counted(t, c, m->name, type);
        text_printf(t, "} ");
        if (m->is_time) {
            put_seconds(t, values[type]);
        } else {
            text_printf(t, "%" PRIu64, values[type]);
        }
        text_printf(t, "\n");
    }
}

/* The bounds of bins that are told: 2^n and 1.5 * 2^n from 1024 ns to 2^34 ns (17 s). */
#define DURATION_FIRST 3
#define DURATION_LAST 99
#define DURATION_STEP 2

static void put_duration(struct text *t, const struct counted *c, int type,
                         const struct block_acct_latency *latency)
{
    const char *bucket = "request_duration_seconds_bucket";
    uint64_t sum = 0;

    for (size_t bin = 0; bin <= DURATION_LAST; bin++) {
        sum += latency->bins[bin];
        if (bin >= DURATION_FIRST && (bin - DURATION_FIRST) % DURATION_STEP == 0) {
            put_counted(t, c, bucket, type);
            text_printf(t, ",le=\"");
            put_seconds(t, block_acct_latency_bound(bin));
            text_printf(t, "\"} %" PRIu64 "\n", sum);
        }
    }
    put_counted(t, c, bucket, type);
    text_printf(t, ",le=\"+Inf\"} %" PRIu64 "\n", latency->count);
    put_counted(t, c, "request_duration_seconds_sum", type);
    text_printf(t, "} ");
    put_seconds(t, latency->total_ns);
    text_printf(t, "\n");
    put_counted(t, c, "request_duration_seconds_count", type);
    text_printf(t, "} %" PRIu64 "\n", latency->count);
}

/* Of the types that had a request: an idle disk costs no lines. */
static void put_durations(struct text *t, const struct counted *c)
{
    struct block_acct_latency latency;

    for (int type = 0; type < BLOCK_MAX_IOTYPE; type++) {
        block_acct_read_latency(c->stats, type, &latency);
        if (latency.count > 0) {
            put_duration(t, c, type, &latency);
        }
    }
}

static void put_histogram(struct text *t, const struct counted *c, int type)
{
    uint64_t *boundaries = NULL;
    uint64_t *bins = NULL;
    uint64_t sum = 0;
    size_t count = 0;

    if (block_latency_histogram_get(c->stats, type, &boundaries, &bins, &count) < 0) {
        t->failed = true;
    }
    for (size_t i = 0; count > 0 && i <= count; i++) {
        sum += bins[i];
        put_counted(t, c, "latency_seconds_bucket", type);
        text_printf(t, ",le=\"");
        if (i < count) {
            put_seconds(t, boundaries[i]);
        } else {
            text_printf(t, "+Inf");
        }
        text_printf(t, "\"} %" PRIu64 "\n", sum);
    }
    if (count > 0) {
        put_counted(t, c, "latency_seconds_count", type);
        text_printf(t, "} %" PRIu64 "\n", sum);
    }
    free(boundaries);
    free(bins);
}

static void put_histograms(struct text *t, const struct counted *c)
{
    for (int type = 0; type < BLOCK_MAX_IOTYPE; type++) {
        put_histogram(t, c, type);
    }
}

static void put_interval_latency(struct text *t, const struct counted *c)
{
    struct block_acct_interval interval;

    for (size_t n = 0; block_acct_get_interval(c->stats, n, &interval); n++) {
        for (int type = 0; type < BLOCK_MAX_IOTYPE; type++) {
            const struct {
                const char *word;
                uint64_t ns;
            } figures[] = {
                {"min", interval.of[type].min_ns},
                {"avg", interval.of[type].avg_ns},
                {"max", interval.of[type].max_ns},
            };

            for (size_t i = 0; i < 3; i++) {
                put_counted(t, c, "interval_latency_seconds", type);
                put_label(t, "figure", figures[i].word);
                text_printf(t, ",interval=\"%us\"} ", interval.interval_s);
                put_seconds(t, figures[i].ns);
                text_printf(t, "\n");
            }
        }
    }
}

static void put_interval_depth(struct text *t, const struct counted *c)
{
    struct block_acct_interval interval;

    for (size_t n = 0; block_acct_get_interval(c->stats, n, &interval); n++) {
        for (int type = 0; type < BLOCK_MAX_IOTYPE; type++) {
            put_counted(t, c, "interval_queue_depth", type);
            text_printf(t, ",interval=\"%us\"} %.6f\n", interval.interval_s,
                        interval.of[type].avg_queue_depth);
        }
    }
}

/* All that are of a kind, metric by metric. */
static void put_kind(struct text *t, const struct metrics_source *source, const char *kind)
{
    static const struct {
        const char *name;
        const char *type;
        const char *help;
        void (*put)(struct text *t, const struct counted *c);
    } further[] = {
        {"request_duration_seconds", "histogram", "Times of requests, of types that had any.",
         put_durations},
        {"latency_seconds", "histogram",
         "The same in bins of the user's, where such a histogram was asked for.", put_histograms},
        {"interval_latency_seconds", "gauge",
         "Times of requests in the last interval, where one is watched.", put_interval_latency},
        {"interval_queue_depth", "gauge",
         "Requests in flight on average in the last interval, where one is watched.",
         put_interval_depth},
    };
    char name[NAME_BYTES];

    for (size_t i = 0; i < sizeof(counted_metrics) / sizeof(counted_metrics[0]); i++) {
        const struct counted_metric *m = &counted_metrics[i];
        struct counted c = {.kind = kind};

        put_head(t, metric_name(name, kind, m->name), m->type, m->help);
        while (counted_next(source, &c)) {
            put_totals(t, m, &c);
        }
    }
    for (size_t i = 0; i < sizeof(further) / sizeof(further[0]); i++) {
        struct counted c = {.kind = kind};

        put_head(t, metric_name(name, kind, further[i].name), further[i].type, further[i].help);
        while (counted_next(source, &c)) {
            further[i].put(t, &c);
        }
    }
}

/* ---- nodes ---- */

static void put_nodes(struct text *t, Platter *pl)
{
    BlockDriverState *bs;

    put_head(t, "platter_node_info", "gauge", "1 for each node.");
    for (bs = bdrv_next_node(pl, NULL); bs; bs = bdrv_next_node(pl, bs)) {
        put_sample(t, "platter_node_info", "node", bdrv_get_node_name(bs));
        put_label(t, "driver", bdrv_get_format_name(bs));
        put_label(t, "read_only", bdrv_is_read_only(bs) ? "true" : "false");
        text_printf(t, "} 1\n");
    }
    put_head(t, "platter_node_size_bytes", "gauge", "Bytes that a node shows.");
    for (bs = bdrv_next_node(pl, NULL); bs; bs = bdrv_next_node(pl, bs)) {
        int64_t bytes = bdrv_getlength(bs);

        if (bytes >= 0) {
            put_sample(t, "platter_node_size_bytes", "node", bdrv_get_node_name(bs));
            text_printf(t, "} %" PRId64 "\n", bytes);
        }
    }
}

/* ---- jobs ---- */

static void put_job_number(struct text *t, const char *name, const struct job_info *info,
                           uint64_t value)
{
    put_sample(t, name, "job", info->id);
    put_label(t, "type", info->type);
    text_printf(t, "} %" PRIu64 "\n", value);
}

static void put_jobs(struct text *t, Platter *pl)
{
    static const struct {
        const char *name;
        const char *help;
        size_t offset; /* in struct job_info: uint64_t */
    } numbers[] = {
        {"platter_job_progress_current", "What a job has done.",
         offsetof(struct job_info, progress_current)},
        {"platter_job_progress_total", "What a job has to do; may grow.",
         offsetof(struct job_info, progress_total)},
        {"platter_job_speed_limit_bytes", "Limit in bytes per second; 0: none.",
         offsetof(struct job_info, speed)},
    };
    struct job_info info;

    put_head(t, "platter_job_info", "gauge", "1 for each job.");
    for (Job *job = job_next(pl, NULL); job; job = job_next(pl, job)) {
        job_get_info(job, &info);
        put_sample(t, "platter_job_info", "job", info.id);
        put_label(t, "type", info.type);
        put_label(t, "status", job_status_name(info.status));
        text_printf(t, "} 1\n");
    }
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        put_head(t, numbers[i].name, "gauge", numbers[i].help);
        for (Job *job = job_next(pl, NULL); job; job = job_next(pl, job)) {
            uint64_t value;

            job_get_info(job, &info);
            memcpy(&value, (const char *)&info + numbers[i].offset, sizeof(value));
            put_job_number(t, numbers[i].name, &info, value);
        }
    }
}

/* ---- the NBD server ---- */

static void put_nbd(struct text *t, NbdServer *nbd)
{
    struct nbd_server_stats s = {.size = sizeof(s)};

    nbd_server_get_stats(nbd, &s);
    put_head(t, "platter_nbd_connections", "gauge", "Clients in transmission.");
    text_printf(t, "platter_nbd_connections %u\n", s.connections);
    put_head(t, "platter_nbd_handshakes", "gauge", "Clients that negotiate.");
    text_printf(t, "platter_nbd_handshakes %u\n", s.handshakes);
    put_head(t, "platter_nbd_connections_total", "counter", "Clients since the server began.");
    text_printf(t, "platter_nbd_connections_total %" PRIu64 "\n", s.connections_total);
    put_head(t, "platter_nbd_requests_total", "counter", "Requests of clients.");
    text_printf(t, "platter_nbd_requests_total{type=\"read\"} %" PRIu64 "\n", s.read_requests);
    text_printf(t, "platter_nbd_requests_total{type=\"write\"} %" PRIu64 "\n", s.write_requests);
    text_printf(t, "platter_nbd_requests_total{type=\"other\"} %" PRIu64 "\n", s.other_requests);
    put_head(t, "platter_nbd_failed_requests_total", "counter", "Requests that failed.");
    text_printf(t, "platter_nbd_failed_requests_total %" PRIu64 "\n", s.failed_requests);
    put_head(t, "platter_nbd_bytes_total", "counter", "Bytes read and written by clients.");
    text_printf(t, "platter_nbd_bytes_total{type=\"read\"} %" PRIu64 "\n", s.read_bytes);
    text_printf(t, "platter_nbd_bytes_total{type=\"write\"} %" PRIu64 "\n", s.write_bytes);
    put_head(t, "platter_nbd_latency_seconds_total", "counter",
             "Time from receipt of a request to its reply, added up.");
    text_printf(t, "platter_nbd_latency_seconds_total ");
    put_seconds(t, s.latency_total_ns);
    text_printf(t, "\n");
}

int metrics_render(const struct metrics_source *source, char **ret_text, size_t *ret_bytes)
{
    struct text t = {0};

    put_head(&t, "platter_build_info", "gauge", "1; the version is a label.");
    put_sample(&t, "platter_build_info", "version", platter_version());
    text_printf(&t, "} 1\n");
    put_kind(&t, source, "backend");
    put_nodes(&t, source->pl);
    put_jobs(&t, source->pl);
    if (source->nbd && *source->nbd) {
        put_kind(&t, source, "export");
        put_nbd(&t, *source->nbd);
    }
    if (t.failed) {
        free(t.data);
        return -ENOMEM;
    }
    *ret_text = t.data;
    *ret_bytes = t.used;
    return 0;
}
