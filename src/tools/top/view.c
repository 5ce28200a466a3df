/* SPDX-License-Identifier: MIT */
/* Rows of figures. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/top/view.h"
#include "util/size.h"

#define LINE_BYTES 256

const char *const top_table_names[TOP_TABLES + 2] = {"backends", "nodes", "exports",
                                                     "jobs",     "all",   NULL};

const char *top_view_plain(const char *text, char *buf, size_t bytes)
{
    size_t i = 0;

    for (; text && text[i] && i + 1 < bytes; i++) {
        buf[i] = text[i] >= ' ' && text[i] < 0x7f ? text[i] : '?';
    }
    buf[i] = '\0';
    return buf;
}

static const char *member(json_t *object, const char *key, char *buf, size_t bytes)
{
    return top_view_plain(json_string_value(json_object_get(object, key)), buf, bytes);
}

static const char *bytes_text(double bytes, char *buf, size_t size)
{
    uint64_t whole = bytes >= 0x1p64 ? UINT64_MAX : bytes > 0 ? (uint64_t)bytes : 0;

    return size_format(whole, buf, size);
}

/* Four digits or so. */
static int decimals(double ms)
{
    return ms < 10 ? 3 : ms < 100 ? 2 : ms < 1000 ? 1 : 0;
}

static const char *percentiles(const struct top_rates *r, char *buf, size_t size)
{
    if (r->p50_ms < 0) {
        return "-";
    }
    snprintf(buf, size, "%.*f/%.*f", decimals(r->p50_ms), r->p50_ms, decimals(r->p99_ms),
             r->p99_ms);
    return buf;
}

static void put_rates_of(const struct top_rates *r, TopPutFunc *put, void *opaque)
{
    char line[LINE_BYTES];
    char name[25];
    char node[25];
    char status[17];
    char read[24];
    char write[24];
    char tail[32];
    char type[17];

    snprintf(
        line, sizeof(line),
        "%-16.24s %-16.24s %-9s %9.0f %9.0f %10s %10s %8.3f %8.3f %8.2f %13s %7.0f%s%s",
        top_view_plain(r->name, name, sizeof(name)), top_view_plain(r->node, node, sizeof(node)),
        top_view_plain(r->status, status, sizeof(status)), r->ops[0], r->ops[1],
        bytes_text(r->bytes[0], read, sizeof(read)), bytes_text(r->bytes[1], write, sizeof(write)),
        r->latency_ms[0], r->latency_ms[1], r->depth, percentiles(r, tail, sizeof(tail)), r->failed,
        r->type ? " " : "", top_view_plain(r->type, type, sizeof(type)));
    put(opaque, r->name, line);
}

static bool is_wanted(const struct top_view *view, const char *name, const char *other)
{
    return !view->only || (name && strcmp(view->only, name) == 0) ||
           (other && strcmp(view->only, other) == 0);
}

/* Of backends, or of exports. */
static int put_rates(const struct top_view *view, const struct top_sample *before,
                     const struct top_sample *now, TopPutFunc *put, void *opaque)
{
    bool exports = view->table == TOP_EXPORTS;
    char line[LINE_BYTES];
    struct top_rates *rates;
    int count = top_rates_get(before, now, exports, &rates);

    if (count < 0) {
        return count;
    }
    top_rates_sort(rates, (size_t)count, view->sort);
    snprintf(line, sizeof(line), "%-16s %-16s %-9s %9s %9s %10s %10s %8s %8s %8s %13s %7s%s",
             exports ? "EXPORT" : "BACKEND", "NODE", "STATUS", "READ/s", "WRITE/s", "READ B/s",
             "WRITE B/s", "R ms", "W ms", "DEPTH", "p50/p99 ms", "FAIL/s", exports ? " TYPE" : "");
    put(opaque, NULL, line);
    for (int i = 0; i < count; i++) {
        if (is_wanted(view, rates[i].name, rates[i].node)) {
            put_rates_of(&rates[i], put, opaque);
        }
    }
    free(rates);
    return 0;
}

static void put_nodes(const struct top_view *view, const struct top_sample *now, TopPutFunc *put,
                      void *opaque)
{
    char line[LINE_BYTES];
    json_t *node;
    size_t i;

    snprintf(line, sizeof(line), "%-24s %-12s %-4s %10s %10s %6s  %s", "NODE", "DRIVER", "MODE",
             "SIZE", "ON DISK", "DEPTH", "FILE");
    put(opaque, NULL, line);
    json_array_foreach(now->nodes, i, node)
    {
        json_t *image = json_object_get(node, "image");
        const char *whole_name = top_text_of(node, "node-name");
        char name[33];
        char driver[17];
        char size[24];
        char disk[24];
        char file[81];

        if (!is_wanted(view, whole_name, NULL)) {
            continue;
        }
        snprintf(line, sizeof(line), "%-24.32s %-12.16s %-4s %10s %10s %6d  %.80s",
                 top_view_plain(whole_name, name, sizeof(name)),
                 member(node, "drv", driver, sizeof(driver)),
                 json_is_true(json_object_get(node, "ro")) ? "ro" : "rw",
                 bytes_text(json_number_value(json_object_get(image, "virtual-size")), size,
                            sizeof(size)),
                 bytes_text(json_number_value(json_object_get(image, "actual-size")), disk,
                            sizeof(disk)),
                 (int)json_integer_value(json_object_get(node, "backing_file_depth")),
                 member(node, "file", file, sizeof(file)));
        put(opaque, whole_name, line);
    }
}

static void put_jobs(const struct top_view *view, const struct top_sample *now, TopPutFunc *put,
                     void *opaque)
{
    char line[LINE_BYTES];
    json_t *job;
    size_t i;

    snprintf(line, sizeof(line), "%-24s %-10s %-10s %9s  %s", "JOB", "TYPE", "STATUS", "DONE",
             "ERROR");
    put(opaque, NULL, line);
    json_array_foreach(now->jobs, i, job)
    {
        double total = json_number_value(json_object_get(job, "total-progress"));
        double done = json_number_value(json_object_get(job, "current-progress"));
        const char *whole_id = top_text_of(job, "id");
        char id[33];
        char type[17];
        char status[17];
        char error[81];

        if (is_wanted(view, whole_id, NULL)) {
            snprintf(
                line, sizeof(line), "%-24.32s %-10.16s %-10.16s %8.1f%%  %.80s",
                top_view_plain(whole_id, id, sizeof(id)), member(job, "type", type, sizeof(type)),
                member(job, "status", status, sizeof(status)), total > 0 ? 100 * done / total : 0,
                member(job, "error", error, sizeof(error)));
            put(opaque, whole_id, line);
        }
    }
}

int top_view_put(const struct top_view *view, const struct top_sample *before,
                 const struct top_sample *now, TopPutFunc *put, void *opaque)
{
    switch (view->table) {
    case TOP_NODES:
        put_nodes(view, now, put, opaque);
        return 0;
    case TOP_JOBS:
        put_jobs(view, now, put, opaque);
        return 0;
    default:
        return put_rates(view, before, now, put, opaque);
    }
}
