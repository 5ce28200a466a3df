/* SPDX-License-Identifier: MIT */
/* The options of an open image (options.c). */
#ifndef PLATTER_QCOW2_OPTIONS_H
#define PLATTER_QCOW2_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "block/driver.h"

#include "free.h"
#include "header.h"

struct q2_options {
    uint64_t l2_cache_bytes;
    uint32_t l2_slice_bytes;
    uint64_t refcount_cache_bytes;
    uint64_t cache_clean_seconds;
    bool lazy_refcounts;
    bool discard[Q2_DISCARD_TYPES];
    bool discard_no_unref;
    bool compat_window;
    unsigned overlap; /* enum q2_overlap */
};
/* Takes the driver's keys out of options. flags: BDRV_O_*. */
int q2_options_parse(BlockOptions *options, const struct q2_header *h,
                     const struct q2_geometry *geo, int flags, struct q2_options *ret,
                     Error **errp);

#endif
