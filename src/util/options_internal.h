/* SPDX-License-Identifier: MIT */
/* What the options_*.c files share. Keys live in one jansson object, which keeps their order. */
#ifndef PLATTER_UTIL_OPTIONS_INTERNAL_H
#define PLATTER_UTIL_OPTIONS_INTERNAL_H

#include <jansson.h>

#include "util/options.h"

struct BlockOptions {
    json_t *keys; /* owned; flat, scalar values */
};

enum options_again {
    OPTIONS_AGAIN_REPLACE,
    OPTIONS_AGAIN_REFUSE,
};

/* Set key to value (owned, also on failure; NULL means its allocation failed). 0, -EINVAL (not a
 * key; conflict with another; there already), -E2BIG, -ENOMEM. */
int options_set_value(BlockOptions *opts, const char *key, json_t *value, enum options_again again,
                      Error **errp);

#endif
