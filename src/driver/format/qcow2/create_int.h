/* SPDX-License-Identifier: MIT */
/* What create.c and measure.c share: options of a new image. */
#ifndef PLATTER_QCOW2_CREATE_INT_H
#define PLATTER_QCOW2_CREATE_INT_H

#include "schema/opts.h"

#include "qcow2.h"

/* The options against the limits and each other; o->preallocation is raised where they ask for it.
 * *ret_disk_bytes: the size in whole sectors. 0 or -errno with errp. */
int q2_create_judge(struct opts_create_qcow2 *o, uint64_t *ret_disk_bytes, Error **errp);

#endif
