/* SPDX-License-Identifier: MIT */
/*
 * Error objects. An Error is owned by whoever holds it; its texts are its own. When there is no
 * memory for one, the constant error_no_memory takes its place, so a failure is never silent.
 */
#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/error.h"

struct Error {
    int err_no;
    char *msg;                            /* owned */
    char *hint;                           /* owned, may be NULL */
    char *compat[ERROR_COMPAT_LINES_MAX]; /* owned; NULL from the first that is not used */
};

static const char no_memory_text[] = "out of memory";
/* Never written and never freed: every function here compares with its address first. */
static const struct Error error_no_memory = {.err_no = ENOMEM,
                                             .msg = (char *)(uintptr_t)no_memory_text};

static Error *no_memory(void)
{
    return (Error *)(uintptr_t)&error_no_memory;
}

static char *format_text(const char *fmt, va_list ap) __attribute__((format(printf, 1, 0)));
static char *format_text(const char *fmt, va_list ap)
{
    va_list count_ap;
    char *text;
    int len;

    va_copy(count_ap, ap);
    len = vsnprintf(NULL, 0, fmt, count_ap);
    va_end(count_ap);
    if (len < 0) {
        return NULL;
    }
    text = malloc((size_t)len + 1);
    if (text) {
        vsnprintf(text, (size_t)len + 1, fmt, ap);
    }
    return text;
}

/* One text from two, with a separator; ends both. NULL when any part is missing. */
static char *join_text(char *head, const char *separator, const char *tail)
{
    char *text = NULL;

    if (head) {
        size_t bytes = strlen(head) + strlen(separator) + strlen(tail) + 1;

        text = malloc(bytes);
        if (text) {
            snprintf(text, bytes, "%s%s%s", head, separator, tail);
        }
    }
    free(head);
    return text;
}

/* Owns msg. */
static void error_install(Error **errp, int err_no, char *msg)
{
    Error *err;

    assert(*errp == NULL);
    err = msg ? malloc(sizeof(*err)) : NULL;
    if (!err) {
        free(msg);
        *errp = no_memory();
        return;
    }
    *err = (Error){.err_no = err_no > 0 ? err_no : EINVAL, .msg = msg};
    *errp = err;
}

int error_set(Error **errp, int err_no, const char *fmt, ...)
{
    va_list ap;

    assert(err_no > 0);
    if (errp) {
        va_start(ap, fmt);
        error_install(errp, err_no, format_text(fmt, ap));
        va_end(ap);
    }
    return -err_no;
}

int error_set_errno(Error **errp, int err_no, const char *fmt, ...)
{
    va_list ap;

    assert(err_no > 0);
    if (errp) {
        char reason[128];
        char *msg;

        va_start(ap, fmt);
        msg = format_text(fmt, ap);
        va_end(ap);
        error_install(errp, err_no,
                      join_text(msg, ": ", strerror_r(err_no, reason, sizeof(reason))));
    }
    return -err_no;
}

/* Whether there is an Error that takes more texts. */
static bool is_open(Error **errp)
{
    return errp && *errp && *errp != no_memory();
}

void error_prepend(Error **errp, const char *fmt, ...)
{
    va_list ap;
    char *msg;

    if (!is_open(errp)) {
        return;
    }
    va_start(ap, fmt);
    msg = join_text(format_text(fmt, ap), "", (*errp)->msg);
    va_end(ap);
    if (msg) {
        free((*errp)->msg);
        (*errp)->msg = msg;
    }
}

void error_set_hint(Error **errp, const char *fmt, ...)
{
    va_list ap;
    char *hint;

    if (!is_open(errp)) {
        return;
    }
    va_start(ap, fmt);
    hint = format_text(fmt, ap);
    va_end(ap);
    if (hint) {
        free((*errp)->hint);
        (*errp)->hint = hint;
    }
}

void error_add_compat_hint(Error **errp, const char *fmt, ...)
{
    unsigned line = 0;
    va_list ap;

    if (!is_open(errp)) {
        return;
    }
    while (line < ERROR_COMPAT_LINES_MAX && (*errp)->compat[line]) {
        line++;
    }
    if (line < ERROR_COMPAT_LINES_MAX) {
        va_start(ap, fmt);
        (*errp)->compat[line] = format_text(fmt, ap);
        va_end(ap);
    }
}

int error_copy(Error **errp, const Error *err)
{
    error_set(errp, err->err_no, "%s", err->msg);
    if (err->hint) {
        error_set_hint(errp, "%s", err->hint);
    }
    for (unsigned i = 0; error_get_compat_hint(err, i); i++) {
        error_add_compat_hint(errp, "%s", err->compat[i]);
    }
    return -err->err_no;
}

void error_propagate(Error **errp, Error *err)
{
    if (!err) {
        return;
    }
    if (errp && !*errp) {
        *errp = err;
        return;
    }
    error_free(err);
}

const char *error_get_pretty(const Error *err)
{
    return err->msg;
}

const char *error_get_hint(const Error *err)
{
    return err->hint;
}

const char *error_get_compat_hint(const Error *err, unsigned line)
{
    return line < ERROR_COMPAT_LINES_MAX ? err->compat[line] : NULL;
}

int error_get_errno(const Error *err)
{
    return err->err_no;
}

void error_free(Error *err)
{
    if (!err || err == no_memory()) {
        return;
    }
    free(err->msg);
    free(err->hint);
    for (unsigned i = 0; i < ERROR_COMPAT_LINES_MAX; i++) {
        free(err->compat[i]);
    }
    free(err);
}
