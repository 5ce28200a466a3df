/* SPDX-License-Identifier: MIT */
/* What create.c, measure.c and stream.c share: options of a new image. */
#ifndef PLATTER_QCOW2_CREATE_INT_H
#define PLATTER_QCOW2_CREATE_INT_H

#include "schema/opts.h"

#include "qcow2.h"

/* What a cluster and a refcount may be. 0 or -errno with errp. */
int q2_create_judge_shape(const struct opts_create_qcow2 *o, Error **errp);
/* size in whole sectors, where an image of that shape can have it. 0, or -EFBIG. */
int q2_create_judge_size(const struct opts_create_qcow2 *o, uint64_t size, uint64_t *ret_bytes);
/* All that can be judged of the options without a file; *ret_disk_bytes: o->size, whole sectors. */
int q2_create_judge(struct opts_create_qcow2 *o, uint64_t *ret_disk_bytes, Error **errp);
/* Fields that do not depend on the size of the disk. Strings are borrowed from o. */
void q2_create_fill_header(const struct opts_create_qcow2 *o, struct q2_header *h);

#endif
