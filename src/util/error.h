/* SPDX-License-Identifier: MIT */
/* Making and passing on Errors; platter/error.h is the reader's side. Any thread. */
#ifndef PLATTER_UTIL_ERROR_H
#define PLATTER_UTIL_ERROR_H

#include <platter/error.h>

/* Set *errp (when errp is not NULL; *errp must be NULL then) and return -err_no, so that a caller
 * can write: return error_set(errp, EINVAL, "..."). Out of memory leaves a constant Error. */
int error_set(Error **errp, int err_no, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The same with ": strerror(err_no)" at the end. */
int error_set_errno(Error **errp, int err_no, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Put context in front of *errp; nothing when errp or *errp is NULL. */
void error_prepend(Error **errp, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Set the line that says what to try, in place of one that was set before. */
void error_set_hint(Error **errp, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Add one line, without its newline, to what the reference prints below this error; at the most
 * ERROR_COMPAT_LINES_MAX, of which further ones are dropped. */
#define ERROR_COMPAT_LINES_MAX 2
void error_add_compat_hint(Error **errp, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* Set *errp to what err says, hints included. -errno of err. */
int error_copy(Error **errp, const Error *err);
/* Give err (owned; NULL: nothing) to *errp, or end it when errp is NULL or *errp is already set. */
void error_propagate(Error **errp, Error *err);

#endif
