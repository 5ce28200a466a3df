/* SPDX-License-Identifier: MIT */
/* The tables of `top`, as lines of text. */
#ifndef PLATTER_TOOLS_TOP_VIEW_H
#define PLATTER_TOOLS_TOP_VIEW_H

#include "tools/top/sample.h"

enum top_table { TOP_BACKENDS, TOP_NODES, TOP_EXPORTS, TOP_JOBS, TOP_TABLES };
extern const char *const top_table_names[TOP_TABLES];

struct top_view {
    enum top_table table;
    enum top_sort sort;
    const char *only; /* rows that have to do with this name; NULL: all */
};

/* Where lines go: one without its end; heading lines stand out. */
typedef void TopPutFunc(void *opaque, bool heading, const char *line);

/* 0 or -ENOMEM. */
int top_view_put(const struct top_view *view, const struct top_sample *before,
                 const struct top_sample *now, TopPutFunc *put, void *opaque);

#endif
