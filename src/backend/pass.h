/* SPDX-License-Identifier: MIT */
/* For whoever waits until the requests that he sent to a backend have ended, as an export does when
 * it ends: nothing holds them back meanwhile. */
#ifndef PLATTER_BACKEND_PASS_H
#define PLATTER_BACKEND_PASS_H

#include <platter/backend.h>

/* From begin on neither the limits of blk nor a filter below hold requests back, as in a drained
 * section, but they go on coming. Nests. Returns what end wants: the root, with a reference, or
 * NULL. [control] */
BlockDriverState *blk_pass_begin(BlockBackend *blk);
void blk_pass_end(BlockBackend *blk, BlockDriverState *bs);

#endif
