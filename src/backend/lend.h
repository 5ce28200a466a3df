/* SPDX-License-Identifier: MIT */
/*
 * A backend whose medium somebody works on in its place, as a job does: by a backend of his own,
 * so that it does not matter to him what becomes of the medium of this one.
 */
#ifndef PLATTER_BACKEND_LEND_H
#define PLATTER_BACKEND_LEND_H

#include <platter/backend.h>

enum blk_lent {
    BLK_NOT_LENT = 0, /* it needs and shares what was set */
    BLK_SHARES,       /* needs that, and shares all */
    BLK_LENT,         /* only reads, and shares all: its own writes are -EPERM */
};
/* Holds for each medium in turn. May poll. 0 or as blk_set_perm. [control] */
int blk_lend(BlockBackend *blk, enum blk_lent lent, Error **errp);
/* For the backend of him who works there: reset(opaque) is called when the iostatus of a backend of
 * the same medium is reset. [control] */
void blk_on_iostatus_reset(BlockBackend *blk, void (*reset)(void *opaque), void *opaque);

#endif
