/* SPDX-License-Identifier: MIT */
/* Giving space back in place (compact.c, compact_move.c, compact_blob.c, compact_meta.c). */
#ifndef PLATTER_QCOW2_COMPACT_H
#define PLATTER_QCOW2_COMPACT_H

#include "block/driver.h"

/* As bdrv_image_ops has them. */
int q2_compact_co(BlockDriverState *bs, const struct bdrv_compact_calls *calls, bool dry_run,
                  struct bdrv_compact_result *ret_result, Error **errp);
int q2_give_co(BlockDriverState *bs, uint64_t offset, uint64_t bytes, bool drop,
               uint64_t *ret_bytes); /* zero.c */

#endif
