/* SPDX-License-Identifier: MIT */
/* The tables of `top`, as lines of text. */
#ifndef PLATTER_TOOLS_TOP_VIEW_H
#define PLATTER_TOOLS_TOP_VIEW_H

#include "tools/top/sample.h"

enum top_table { TOP_BACKENDS, TOP_NODES, TOP_EXPORTS, TOP_JOBS, TOP_TABLES };
extern const char *const top_table_names[TOP_TABLES + 2]; /* then "all"; NULL ends */

struct top_view {
    enum top_table table;
    enum top_sort sort;
    const char *only; /* rows that have to do with this name; NULL: all */
};

/* Where lines go: one without its end. name: whole, what the row is of, which a view of this name
 * only has, too; borrowed from the newer look. NULL: a heading, which stands out. */
typedef void TopPutFunc(void *opaque, const char *name, const char *line);

/* Names come from clients of the daemon: what is no plain text is shown as '?'. text may be NULL;
 * returns buf. */
const char *top_view_plain(const char *text, char *buf, size_t bytes);

/* 0 or -ENOMEM. */
int top_view_put(const struct top_view *view, const struct top_sample *before,
                 const struct top_sample *now, TopPutFunc *put, void *opaque);

#endif
