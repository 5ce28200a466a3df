/* SPDX-License-Identifier: MIT */
/*
 * Arguments as command lines write them: KEY=VALUE,... Keys are dotted: a.b=1,a.c.0=2 is
 * {"a": {"b": "1", "c": ["2"]}}. A comma in a value is written twice. Every value is text.
 */
#ifndef PLATTER_CONTROL_KEYVAL_H
#define PLATTER_CONTROL_KEYVAL_H

#include <jansson.h>

#include <platter/error.h>

/* Objects, lists and strings (any bytes but zero) of text; of a key that comes again, the last. A
 * first word without '=' is the value of implied_key (NULL: there is none). The caller's; NULL with
 * errp: EINVAL (also about a word "help" or "?", which others answer), E2BIG (a limit), ENOMEM. */
json_t *keyval_parse(const char *text, const char *implied_key, Error **errp);

#endif
