/* SPDX-License-Identifier: MIT */
/* What create.c and measure.c share: options of a new image. */
#ifndef PLATTER_QCOW2_CREATE_INT_H
#define PLATTER_QCOW2_CREATE_INT_H

#include "schema/opts.h"

#include "qcow2.h"

/* What a cluster and a refcount may be. 0 or -errno with errp. */
int q2_create_judge_shape(const struct opts_create_qcow2 *o, Error **errp);
/* size in whole sectors, where an image of that shape can have it. 0, or -EFBIG with errp. */
int q2_create_judge_size(const struct opts_create_qcow2 *o, uint64_t size, uint64_t *ret_bytes,
                         Error **errp);

#endif
