/* SPDX-License-Identifier: MIT */
/* Figures out of two looks. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backend/latency.h"
#include "os/os.h"
#include "tools/top/sample.h"
#include "util/checked.h"
#include "util/error.h"
#include "util/json.h"

const char *const top_sort_names[TOP_SORTS + 1] = {"name",    "ops",   "bytes",
                                                   "latency", "depth", NULL};

static const char *const kinds[2] = {"rd", "wr"};

/* Empty of a daemon that is not ours, or gone, which the next look tells. */
static json_t *ask_ours(struct top_client *client, const char *command)
{
    json_t *list = top_client_ask(client, command, NULL);

    return list ? list : json_array();
}

int top_sample_take(struct top_client *client, struct top_sample *ret, Error **errp)
{
    struct top_sample s = {0};
    const struct {
        const char *command;
        json_t **value;
    } parts[] = {
        {"query-block", &s.backends},
        {"query-blockstats", &s.stats},
        {"query-named-block-nodes", &s.nodes},
        {"query-block-exports", &s.exports},
        {"query-jobs", &s.jobs},
    };

    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        *parts[i].value = top_client_ask(client, parts[i].command, errp);
        if (!*parts[i].value) {
            top_sample_fini(&s);
            return -EIO;
        }
    }
    s.latency = ask_ours(client, "query-block-latency");
    s.export_stats = ask_ours(client, "query-block-export-stats");
    s.time_ns = os->clock_monotonic_ns();
    *ret = s;
    return 0;
}

void top_sample_fini(struct top_sample *s)
{
    json_decref(s->backends);
    json_decref(s->stats);
    json_decref(s->nodes);
    json_decref(s->exports);
    json_decref(s->latency);
    json_decref(s->export_stats);
    json_decref(s->jobs);
    *s = (struct top_sample){0};
}

/* The element of a list whose member says text; NULL: none. */
static json_t *find(json_t *list, const char *member, const char *text)
{
    size_t i;
    json_t *item;

    json_array_foreach(list, i, item)
    {
        const char *value = json_string_value(json_object_get(item, member));

        if (value && strcmp(value, text) == 0) {
            return item;
        }
    }
    return NULL;
}

static double figure(json_t *stats, const char *before, const char *kind, const char *behind)
{
    char key[64];

    snprintf(key, sizeof(key), "%s%s%s", before, kind, behind);
    return json_number_value(json_object_get(stats, key));
}

/* How much a figure grew. */
static double growth(json_t *before, json_t *now, const char *front, const char *kind,
                     const char *behind)
{
    return figure(now, front, kind, behind) - figure(before, front, kind, behind);
}

/* Add the requests of a BlockLatencyTimes to l, or take them out. */
static void add_times(struct block_acct_latency *l, json_t *times, bool add)
{
    size_t i;
    json_t *bin;

    json_array_foreach(json_object_get(times, "bins"), i, bin)
    {
        uint64_t below = 0;
        uint64_t count = 0;
        uint64_t *to;

        if (!json_get_u64(json_object_get(bin, "count"), &count)) {
            continue;
        }
        if (json_get_u64(json_object_get(bin, "below-ns"), &below) && below > 0) {
            to = &l->bins[latency_bin(below - 1)];
        } else {
            to = &l->bins[BLOCK_ACCT_LATENCY_BINS - 1];
        }
        count = add ? count : min_u64(count, *to);
        *to += add ? count : 0 - count;
        l->count += add ? count : 0 - count;
    }
}

/* Quantiles of what ended between two looks at the same BlockLatency. */
static void get_quantiles(json_t *before, json_t *now, struct top_rates *r)
{
    static const char *const words[2] = {"read", "write"};
    struct block_acct_latency l = {0};

    for (int k = 0; k < 2; k++) {
        add_times(&l, json_object_get(now, words[k]), true);
    }
    for (int k = 0; k < 2; k++) {
        add_times(&l, json_object_get(before, words[k]), false);
    }
    r->p50_ms = l.count > 0 ? (double)block_acct_latency_quantile(&l, 500) / 1e6 : -1;
    r->p99_ms = l.count > 0 ? (double)block_acct_latency_quantile(&l, 990) / 1e6 : -1;
}

static const char *status_of(json_t *backend)
{
    const char *io = json_string_value(json_object_get(backend, "io-status"));

    if (json_is_true(json_object_get(backend, "tray_open"))) {
        return "tray open";
    }
    if (!json_object_get(backend, "inserted")) {
        return "no medium";
    }
    return io ? io : "ok";
}

/* The numbers of r, from two looks at the same BlockDeviceStats. */
static void get_numbers(json_t *before, json_t *now, double seconds, struct top_rates *r)
{
    double time_ns = 0;

    for (int k = 0; k < 2; k++) {
        double ops = growth(before, now, "", kinds[k], "_operations");
        double ns = growth(before, now, "", kinds[k], "_total_time_ns");

        r->ops[k] = ops / seconds;
        r->bytes[k] = growth(before, now, "", kinds[k], "_bytes") / seconds;
        r->latency_ms[k] = ops > 0 ? ns / ops / 1e6 : 0;
        r->failed += growth(before, now, "failed_", kinds[k], "_operations") / seconds;
        time_ns += ns;
    }
    r->depth = time_ns / (seconds * 1e9);
}

static double seconds_between(const struct top_sample *before, const struct top_sample *now)
{
    double seconds = (double)(now->time_ns - before->time_ns) / 1e9;

    return seconds > 0 ? seconds : 1;
}

const char *top_text_of(json_t *object, const char *member)
{
    const char *text = json_string_value(json_object_get(object, member));

    return text ? text : "-";
}

/* What a backend, or an export, is. */
static void describe(json_t *one, bool exports, struct top_rates *r)
{
    if (exports) {
        r->name = top_text_of(one, "id");
        r->node = top_text_of(one, "node-name");
        r->status = json_is_true(json_object_get(one, "shutting-down")) ? "ending" : "serves";
        r->type = top_text_of(one, "type");
    } else {
        r->name = top_text_of(one, "device");
        r->node = top_text_of(json_object_get(one, "inserted"), "node-name");
        r->status = status_of(one);
    }
}

/* Its figures in a look: "stats" or "latency". NULL: there are none. */
static json_t *figures_of(const struct top_sample *s, bool exports, const char *name,
                          const char *which)
{
    json_t *list = exports ? s->export_stats : strcmp(which, "stats") == 0 ? s->stats : s->latency;

    return json_object_get(find(list, exports ? "id" : "device", name), which);
}

int top_rates_get(const struct top_sample *before, const struct top_sample *now, bool exports,
                  struct top_rates **ret)
{
    json_t *list = exports ? now->exports : now->backends;
    size_t count = json_array_size(list);
    struct top_rates *rates = calloc(count + 1, sizeof(*rates));
    double seconds = seconds_between(before, now);
    json_t *one;
    size_t i;

    if (!rates) {
        return -ENOMEM;
    }
    json_array_foreach(list, i, one)
    {
        struct top_rates *r = &rates[i];

        describe(one, exports, r);
        get_numbers(figures_of(before, exports, r->name, "stats"),
                    figures_of(now, exports, r->name, "stats"), seconds, r);
        get_quantiles(figures_of(before, exports, r->name, "latency"),
                      figures_of(now, exports, r->name, "latency"), r);
    }
    *ret = rates;
    return (int)count;
}

/* ---- order ---- */

static double key_of(const struct top_rates *r, enum top_sort by)
{
    switch (by) {
    case TOP_SORT_OPS:
        return r->ops[0] + r->ops[1];
    case TOP_SORT_BYTES:
        return r->bytes[0] + r->bytes[1];
    case TOP_SORT_LATENCY:
        return r->latency_ms[0] > r->latency_ms[1] ? r->latency_ms[0] : r->latency_ms[1];
    case TOP_SORT_DEPTH:
        return r->depth;
    default:
        return 0;
    }
}

/* The busiest first; there are few. */
void top_rates_sort(struct top_rates *rates, size_t count, enum top_sort by)
{
    for (size_t i = 1; i < count; i++) {
        struct top_rates r = rates[i];
        size_t at = i;

        while (at > 0 && (by == TOP_SORT_NAME ? strcmp(rates[at - 1].name, r.name) > 0
                                              : key_of(&rates[at - 1], by) < key_of(&r, by))) {
            rates[at] = rates[at - 1];
            at--;
        }
        rates[at] = r;
    }
}
