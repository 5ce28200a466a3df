/* SPDX-License-Identifier: MIT */
#ifndef PLATTER_TOOLS_REBASE_COPY_H
#define PLATTER_TOOLS_REBASE_COPY_H

#include <platter/backend.h>
#include <platter/image.h>

#define REBASE_UNIT_BYTES_MAX (UINT64_C(2) << 20)

/* Give an overlay what it would lose, or show differently, on another backing file. */
struct rebase_copy {
    BlockBackend *overlay; /* over the old chain; written */
    BlockBackend *base;    /* the new backing file with its chain; NULL: none, zeroes */
    /* where the new one stands in the old chain as block status counts (2: the old backing file
     * itself); what it or those below it decide is the same. 0: not in it */
    int shared_depth;
    uint64_t unit_bytes; /* written as a whole: the overlay's clusters; a power of two */
    const struct bdrv_progress *progress;
    const char *failed; /* what failed, when it did */
};

/* 0 or -errno; not flushed. Coroutine. */
int rebase_copy_co(struct rebase_copy *r);

#endif
