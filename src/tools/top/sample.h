/* SPDX-License-Identifier: MIT */
/* What a daemon does, between two looks at it, as rows of tables. */
#ifndef PLATTER_TOOLS_TOP_SAMPLE_H
#define PLATTER_TOOLS_TOP_SAMPLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tools/top/client.h"

/* One look. */
struct top_sample {
    int64_t time_ns;
    json_t *backends;     /* owned: query-block */
    json_t *stats;        /* owned: query-blockstats */
    json_t *nodes;        /* owned: query-named-block-nodes */
    json_t *exports;      /* owned: query-block-exports */
    json_t *latency;      /* owned: query-block-latency; empty where a daemon has no such */
    json_t *export_stats; /* owned: query-block-export-stats; as well */
    json_t *jobs;         /* owned: query-jobs */
};
int top_sample_take(struct top_client *client, struct top_sample *ret, Error **errp);
void top_sample_fini(struct top_sample *sample);

/* A text that our daemons always send, borrowed; "-" where another monitor leaves it out. */
const char *top_text_of(json_t *object, const char *member);

/* Figures of a backend or an export per second between two looks; of one that was not there before,
 * since it began to count. */
struct top_rates {
    const char *name; /* borrowed from the newer look, as the other texts; none is NULL but type */
    const char *node;
    const char *status;
    const char *type; /* of an export, else NULL */
    double ops[2];    /* read, write */
    double bytes[2];
    double latency_ms[2];  /* average */
    double depth;          /* average number of requests in flight */
    double p50_ms, p99_ms; /* of reads and writes; < 0: there were none */
    double failed;
};
/* Rates of all backends, or of all exports, in *ret (malloc'd); the number of them, or -ENOMEM. */
int top_rates_get(const struct top_sample *before, const struct top_sample *now, bool exports,
                  struct top_rates **ret);

enum top_sort {
    TOP_SORT_NAME,
    TOP_SORT_OPS,
    TOP_SORT_BYTES,
    TOP_SORT_LATENCY,
    TOP_SORT_DEPTH,
    TOP_SORTS
};
extern const char *const top_sort_names[TOP_SORTS + 1]; /* NULL ends */
void top_rates_sort(struct top_rates *rates, size_t count, enum top_sort by);

#endif
