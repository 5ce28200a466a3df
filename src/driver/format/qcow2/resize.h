/* SPDX-License-Identifier: MIT */
/* Other sizes of the disk and of the file. */
#ifndef PLATTER_QCOW2_RESIZE_H
#define PLATTER_QCOW2_RESIZE_H

#include <stdbool.h>
#include <stdint.h>

#include "block/driver.h"

struct qcow2;

/* ---- prealloc.c, resize.c ---- */

/* Clusters for [from, to), which nothing is mapped in, in an exclusive section; from is aligned for
 * metadata. near: where the first one should lie, if it is free there; 0: anywhere. over_backing:
 * zeroes must be marked, since a backing file is below. */
int q2_prealloc_metadata_co(struct qcow2 *s, uint64_t from, uint64_t to, uint64_t near,
                            bool over_backing, Error **errp);
int q2_prealloc_data_co(struct qcow2 *s, uint64_t from, uint64_t to, bool over_backing,
                        enum bdrv_prealloc mode, Error **errp);
/* Coroutine, outside. */
int q2_resize_co(struct qcow2 *s, uint64_t size_bytes, enum bdrv_prealloc mode, Error **errp);

/* ---- file_tail.c ---- */

/* First byte behind the last cluster in use. */
int q2_file_end_co(struct qcow2 *s, uint64_t *ret_offset);
/* Refcount blocks that count nothing go, and the file ends behind what is in use. Settled; drained
 * or exclusive. What fails costs space only. */
void q2_file_trim_co(struct qcow2 *s);

#endif
