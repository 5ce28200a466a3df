/* SPDX-License-Identifier: MIT */
/*
 * A text that grows. Nothing is asked after each step: what did not fit into memory is told at the
 * end, by text_end.
 */
#ifndef PLATTER_UTIL_TEXT_H
#define PLATTER_UTIL_TEXT_H

#include <stdbool.h>
#include <stddef.h>

struct text {
    char *data; /* owned; ended by NUL once something was put */
    size_t used;
    size_t size;
    bool failed; /* out of memory, now and from now on */
};

void text_put(struct text *t, const char *bytes, size_t n);
void text_puts(struct text *t, const char *string);
void text_printf(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* What was put, for the caller to free; NULL out of memory. The text is empty afterwards. */
char *text_end(struct text *t);

#endif
