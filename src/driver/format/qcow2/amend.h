/* SPDX-License-Identifier: MIT */
/* Amending: other options of an image that exists. */
#ifndef PLATTER_QCOW2_AMEND_H
#define PLATTER_QCOW2_AMEND_H

#include "qcow2.h"

/* ---- amend.c ---- */

int q2_amend_co(BlockDriverState *bs, BlockOptions *options, bool force,
                const struct bdrv_progress *progress, Error **errp);

/* ---- amend_refcount.c ---- */

/* Another width of refcounts: all blocks and the table anew, then the header. Drained. */
int q2_amend_refcount_co(struct qcow2 *s, unsigned order, const struct bdrv_progress *progress,
                         Error **errp);

/* ---- amend_zero.c ---- */

/* No entry of any tree has the zero flag. Version 3 without extended L2 entries; drained. */
int q2_amend_expand_zeroes_co(struct qcow2 *s, const struct bdrv_progress *progress, Error **errp);

#endif
