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

/* ---- backends ---- */

static const char *const type_words[BLOCK_MAX_IOTYPE] = {
    [BLOCK_ACCT_READ] = "read",
    [BLOCK_ACCT_WRITE] = "write",
    [BLOCK_ACCT_FLUSH] = "flush",
    [BLOCK_ACCT_UNMAP] = "discard",
};

struct backend_metric {
    const char *name;
    const char *type;
    const char *help;
    size_t offset; /* in struct block_acct_totals: uint64_t[BLOCK_MAX_IOTYPE] */
    bool is_time;
};

static const struct backend_metric backend_metrics[] = {
    {"platter_backend_operations_total", "counter", "Requests that ended well.",
     offsetof(struct block_acct_totals, ops), false},
    {"platter_backend_bytes_total", "counter", "Bytes of requests that ended well.",
     offsetof(struct block_acct_totals, bytes), false},
    {"platter_backend_failed_operations_total", "counter", "Requests that failed.",
     offsetof(struct block_acct_totals, failed_ops), false},
    {"platter_backend_invalid_operations_total", "counter",
     "Requests that were refused before they began.",
     offsetof(struct block_acct_totals, invalid_ops), false},
    {"platter_backend_merged_operations_total", "counter", "Requests that were merged into others.",
     offsetof(struct block_acct_totals, merged), false},
    {"platter_backend_time_seconds_total", "counter", "Time that requests took, added up.",
     offsetof(struct block_acct_totals, total_time_ns), true},
    {"platter_backend_in_flight", "gauge", "Requests under way.",
     offsetof(struct block_acct_totals, in_flight), false},
};

static void backend_sample(struct text *t, const struct backend_metric *m, BlockBackend *blk)
{
    struct block_acct_totals totals;
    const uint64_t *values = (const uint64_t *)(const void *)((const char *)&totals + m->offset);

    block_acct_read(blk_get_stats(blk), &totals);
    for (int type = 0; type < BLOCK_MAX_IOTYPE; type++) {
        put_sample(t, m->name, "backend", blk_name(blk));
        put_label(t, "type", type_words[type]);
        text_printf(t, "} ");
        if (m->is_time) {
            put_seconds(t, values[type]);
        } else {
            text_printf(t, "%" PRIu64, values[type]);
        }
        text_printf(t, "\n");
    }
}

static void put_bucket(struct text *t, BlockBackend *blk, int type)
{
    put_sample(t, "platter_backend_latency_seconds_bucket", "backend", blk_name(blk));
    put_label(t, "type", type_words[type]);
    text_printf(t, ",le=\"");
}

static void backend_histogram(struct text *t, BlockBackend *blk, int type)
{
    uint64_t *boundaries = NULL;
    uint64_t *bins = NULL;
    uint64_t sum = 0;
    size_t count = 0;

    if (block_latency_histogram_get(blk_get_stats(blk), type, &boundaries, &bins, &count) < 0) {
        t->failed = true;
    }
    for (size_t i = 0; count > 0 && i <= count; i++) {
        sum += bins[i];
        put_bucket(t, blk, type);
        if (i < count) {
            put_seconds(t, boundaries[i]);
        } else {
            text_printf(t, "+Inf");
        }
        text_printf(t, "\"} %" PRIu64 "\n", sum);
    }
    if (count > 0) {
        put_sample(t, "platter_backend_latency_seconds_count", "backend", blk_name(blk));
        put_label(t, "type", type_words[type]);
        text_printf(t, "} %" PRIu64 "\n", sum);
    }
    free(boundaries);
    free(bins);
}

static void backend_interval_latency(struct text *t, BlockBackend *blk)
{
    struct block_acct_interval interval;

    for (size_t n = 0; block_acct_get_interval(blk_get_stats(blk), n, &interval); n++) {
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
                put_sample(t, "platter_backend_interval_latency_seconds", "backend", blk_name(blk));
                put_label(t, "type", type_words[type]);
                put_label(t, "figure", figures[i].word);
                text_printf(t, ",interval=\"%us\"} ", interval.interval_s);
                put_seconds(t, figures[i].ns);
                text_printf(t, "\n");
            }
        }
    }
}

static void backend_interval_depth(struct text *t, BlockBackend *blk)
{
    struct block_acct_interval interval;

    for (size_t n = 0; block_acct_get_interval(blk_get_stats(blk), n, &interval); n++) {
        for (int type = 0; type < BLOCK_MAX_IOTYPE; type++) {
            put_sample(t, "platter_backend_interval_queue_depth", "backend", blk_name(blk));
            put_label(t, "type", type_words[type]);
            text_printf(t, ",interval=\"%us\"} %.6f\n", interval.interval_s,
                        interval.of[type].avg_queue_depth);
        }
    }
}

static void put_backends(struct text *t, Platter *pl)
{
    BlockBackend *blk;

    for (size_t i = 0; i < sizeof(backend_metrics) / sizeof(backend_metrics[0]); i++) {
        const struct backend_metric *m = &backend_metrics[i];

        put_head(t, m->name, m->type, m->help);
        for (blk = blk_next(pl, NULL); blk; blk = blk_next(pl, blk)) {
            backend_sample(t, m, blk);
        }
    }
    put_head(t, "platter_backend_latency_seconds", "histogram",
             "Times of requests, where a histogram was asked for.");
    for (blk = blk_next(pl, NULL); blk; blk = blk_next(pl, blk)) {
        for (int type = 0; type < BLOCK_MAX_IOTYPE; type++) {
            backend_histogram(t, blk, type);
        }
    }
    put_head(t, "platter_backend_interval_latency_seconds", "gauge",
             "Times of requests in the last interval, where one is watched.");
    for (blk = blk_next(pl, NULL); blk; blk = blk_next(pl, blk)) {
        backend_interval_latency(t, blk);
    }
    put_head(t, "platter_backend_interval_queue_depth", "gauge",
             "Requests in flight on average in the last interval, where one is watched.");
    for (blk = blk_next(pl, NULL); blk; blk = blk_next(pl, blk)) {
        backend_interval_depth(t, blk);
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
    put_backends(&t, source->pl);
    put_nodes(&t, source->pl);
    put_jobs(&t, source->pl);
    if (source->nbd && *source->nbd) {
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
