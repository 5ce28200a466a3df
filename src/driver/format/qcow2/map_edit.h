/* SPDX-License-Identifier: MIT */
/* The mapping of whole clusters, in an exclusive section (map_edit.c). */
#ifndef PLATTER_QCOW2_MAP_EDIT_H
#define PLATTER_QCOW2_MAP_EDIT_H

#include <stdint.h>

struct qcow2;

/* Table l1_index is there and the active tree's alone. */
int q2_edit_table_co(struct qcow2 *s, uint32_t l1_index, uint64_t *ret_offset);
/* Entries of clusters from guest on: host is that of the first (flags without COPIED: 0, they have
 * none), flags are added to each, bitmap is for extended L2 entries. What they were is freed. */
int q2_edit_set_co(struct qcow2 *s, uint64_t guest, uint64_t clusters, uint64_t host,
                   uint64_t flags, uint64_t bitmap);
/* The bitmap of a cluster's extended entry, as if a compressed one were plain; 0 where there is
 * none. The L1 table reaches it. */
int q2_edit_bitmap_co(struct qcow2 *s, uint64_t guest, uint64_t *ret);
/* Nothing is mapped in [from, to), which begins and ends at clusters. What was is discarded in the
 * file too: who cuts a disk wants the space. */
int q2_edit_unmap_co(struct qcow2 *s, uint64_t from, uint64_t to);

#endif
