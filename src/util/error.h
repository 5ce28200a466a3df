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
/* Add the line that says what to try. */
void error_set_hint(Error **errp, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Give err (owned; NULL: nothing) to *errp, or end it when errp is NULL or *errp is already set. */
void error_propagate(Error **errp, Error *err);

#endif
