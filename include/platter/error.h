/* SPDX-License-Identifier: MIT */
/*
 * Error: what failed, on which object, with which value, in one sentence.
 *
 * Control calls (open, create, reconfigure) report through `Error **errp`, always their last
 * argument, which may be NULL. On success *errp is left alone; on failure it owns a new Error and
 * the call returns NULL or -errno. *errp must be NULL on entry. The data path has no Error, only
 * -errno. Any thread; an Error belongs to whoever holds it.
 */
#ifndef PLATTER_ERROR_H
#define PLATTER_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

typedef struct Error Error;

/* The sentence, UTF-8, without a final full stop or newline. Borrowed until error_free. */
const char *error_get_pretty(const Error *err);

/* A second line that says what to try, or NULL when there is nothing to say. Borrowed. */
const char *error_get_hint(const Error *err);

/* What the tools of QEMU print below the same error, in their words: line 0, 1, ..., or NULL where
 * there are no more. A program that stands in for one of them prints these instead of the hint.
 * Borrowed. */
const char *error_get_compat_hint(const Error *err, unsigned line);

/* The positive errno that describes the failure (EINVAL when nothing fits better); never 0. */
int error_get_errno(const Error *err);

/* Ends an Error; NULL is allowed. */
void error_free(Error *err);

#ifdef __cplusplus
}
#endif
#endif
