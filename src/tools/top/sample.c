/* SPDX-License-Identifier: MIT */
/* Figures out of two looks. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "os/os.h"
#include "tools/top/sample.h"
#include "util/error.h"

const char *const top_sort_names[TOP_SORTS + 1] = {"name",    "ops",   "bytes",
                                                   "latency", "depth", NULL};

static const char *const kinds[2] = {"rd", "wr"};

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
    s.export_stats = top_client_ask(client, "query-block-export-stats", NULL);
    if (!s.export_stats) { /* a daemon that is not ours, or gone, which the next look tells */
        s.export_stats = json_array();
    }
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

/* Requests of a bin of both histograms since the look before. */
static double bin_growth(json_t *before, json_t *now, size_t bin)
{
    double count = 0;
    char key[64];

    for (int k = 0; k < 2; k++) {
        snprintf(key, sizeof(key), "%s_latency_histogram", kinds[k]);
        count += json_number_value(
                     json_array_get(json_object_get(json_object_get(now, key), "bins"), bin)) -
                 json_number_value(
                     json_array_get(json_object_get(json_object_get(before, key), "bins"), bin));
    }
    return count;
}

/* The upper bound of the bin in which the part of all requests ends, in ms; the last bin has none:
 * its lower one. < 0: nothing was counted. */
static double percentile(json_t *before, json_t *now, double part)
{
    json_t *bounds = json_object_get(json_object_get(now, "rd_latency_histogram"), "boundaries");
    size_t count = json_array_size(bounds);
    double all = 0;
    double seen = 0;

    for (size_t i = 0; count > 0 && i <= count; i++) {
        all += bin_growth(before, now, i);
    }
    for (size_t i = 0; all > 0 && i <= count; i++) {
        seen += bin_growth(before, now, i);
        if (seen >= all * part) {
            return json_number_value(json_array_get(bounds, i < count ? i : count - 1)) / 1e6;
        }
    }
    return -1;
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
    r->p50_ms = percentile(before, now, 0.50);
    r->p99_ms = percentile(before, now, 0.99);
}

static double seconds_between(const struct top_sample *before, const struct top_sample *now)
{
    double seconds = (double)(now->time_ns - before->time_ns) / 1e9;

    return seconds > 0 ? seconds : 1;
}

int top_rates_get(const struct top_sample *before, const struct top_sample *now,
                  struct top_rates **ret)
{
    size_t count = json_array_size(now->backends);
    struct top_rates *rates = calloc(count + 1, sizeof(*rates));
    double seconds = seconds_between(before, now);
    json_t *backend;
    size_t i;

    if (!rates) {
        return -ENOMEM;
    }
    json_array_foreach(now->backends, i, backend)
    {
        const char *name = json_string_value(json_object_get(backend, "device"));

        const char *node =
            json_string_value(json_object_get(json_object_get(backend, "inserted"), "node-name"));

        rates[i].name = name;
        rates[i].node = node ? node : "-";
        rates[i].status = status_of(backend);
        get_numbers(json_object_get(find(before->stats, "device", name), "stats"),
                    json_object_get(find(now->stats, "device", name), "stats"), seconds, &rates[i]);
    }
    *ret = rates;
    return (int)count;
}

int top_export_rates_get(const struct top_sample *before, const struct top_sample *now,
                         struct top_rates **ret)
{
    size_t count = json_array_size(now->exports);
    struct top_rates *rates = calloc(count + 1, sizeof(*rates));
    double seconds = seconds_between(before, now);
    json_t *export;
    size_t i;

    if (!rates) {
        return -ENOMEM;
    }
    json_array_foreach(now->exports, i, export)
    {
        const char *id = json_string_value(json_object_get(export, "id"));

        rates[i].name = id;
        rates[i].node = json_string_value(json_object_get(export, "node-name"));
        rates[i].status =
            json_is_true(json_object_get(export, "shutting-down")) ? "ending" : "serves";
        rates[i].type = json_string_value(json_object_get(export, "type"));
        get_numbers(json_object_get(find(before->export_stats, "id", id), "stats"),
                    json_object_get(find(now->export_stats, "id", id), "stats"), seconds,
                    &rates[i]);
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
