/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/text.h"

/* Room for n further bytes and the NUL. */
static bool make_room(struct text *t, size_t n)
{
    if (!t->failed && t->size - t->used <= n) {
        size_t size = 2 * t->size + n + 64;
        char *data = realloc(t->data, size);

        t->failed = data == NULL;
        if (data != NULL) {
            t->data = data;
            t->size = size;
        }
    }
    return !t->failed;
}

void text_put(struct text *t, const char *bytes, size_t n)
{
    if (make_room(t, n)) {
        memcpy(t->data + t->used, bytes, n);
        t->used += n;
        t->data[t->used] = '\0';
    }
}

void text_puts(struct text *t, const char *string)
{
    text_put(t, string, strlen(string));
}

void text_printf(struct text *t, const char *fmt, ...)
{
    va_list ap, again;
    int n;

    va_start(ap, fmt);
    va_copy(again, ap);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0) {
        t->failed = true;
    } else if (make_room(t, (size_t)n)) {
        vsnprintf(t->data + t->used, t->size - t->used, fmt, again);
        t->used += (size_t)n;
    }
    va_end(again);
}

char *text_end(struct text *t)
{
    char *data = t->data;

    if (data == NULL && !t->failed) {
        data = strdup("");
    } else if (t->failed) {
        free(data);
        data = NULL;
    }
    *t = (struct text){0};
    return data;
}
