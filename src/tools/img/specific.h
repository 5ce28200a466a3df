/* SPDX-License-Identifier: MIT */
/* What only one format has, as lines. */
#ifndef PLATTER_TOOLS_IMG_SPECIFIC_H
#define PLATTER_TOOLS_IMG_SPECIFIC_H

#include <stdio.h>

#include <jansson.h>

/* specific: what bdrv_get_specific_info gives. 0 or -ENOMEM. */
int specific_print(FILE *out, const json_t *specific);

#endif
