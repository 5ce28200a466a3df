/* SPDX-License-Identifier: MIT */
/* Whole trees of L1, L2 tables and clusters (snapshot_refs.c, snapshot_verify.c). */
#ifndef PLATTER_QCOW2_TREE_H
#define PLATTER_QCOW2_TREE_H

#include <stdbool.h>
#include <stdint.h>

#include "block/driver.h"

#include "free.h"

struct q2_snapshot;
struct qcow2;

/* Drained, committed (q2_settle_co), no request until the caller is done: L2 tables are read and
 * written past the cache, which is dropped where one changes. l1: host order. */

/* Memory and file the same: everything committed, everything that waited to be freed is. */
int q2_settle_co(struct qcow2 *s, Error **errp);
/* Version 3: the dirty bit is durable from begin on, so that refcounts and COPIED flags may be
 * stale until end. Version 2 has none: nothing happens. *ret_was: for end. */
int q2_stale_begin_co(struct qcow2 *s, bool *ret_was, Error **errp);
/* Commits first. rc: of the work in between, returned where it is a failure (errp is set then). */
int q2_stale_end_co(struct qcow2 *s, bool was, int rc, Error **errp);
/* rc: of putting refcounts or COPIED flags right. A failure leaves them wrong where it does no harm
 * (too high; copying where that is not needed): the dirty bit, if it is set, then stays until a
 * repair, and q2_mend_co (check.h) tries one at the next occasion. Any thread. */
void q2_stays_stale(struct qcow2 *s, int rc);
/* Copies end with q2_l1_copy_free. q2_l1_copy_new: not filled, NULL: no memory. The offset given to
 * read was checked. */
uint64_t *q2_l1_copy_new(struct qcow2 *s, uint32_t entries);
int q2_l1_copy_read_co(struct qcow2 *s, uint64_t offset, uint32_t entries, uint64_t **ret,
                       Error **errp);
int q2_l1_copy_active(struct qcow2 *s, uint64_t **ret, Error **errp); /* s->l1 */
/* The same for the L1 table of a snapshot, once it is checked. */
int q2_snapshot_l1_copy_co(struct qcow2 *s, const struct q2_snapshot *sn, uint64_t **ret,
                           Error **errp);
void q2_l1_copy_free(struct qcow2 *s, uint64_t *l1, uint32_t entries);
/* To new clusters, their refcounts in memory; not flushed. entries > 0. */
int q2_l1_copy_write_co(struct qcow2 *s, const uint64_t *l1, uint32_t entries, uint64_t *ret_offset,
                        Error **errp);
/* Every cluster that the tree refers to gains a reference, in memory; all or nothing. */
int q2_tree_ref_co(struct qcow2 *s, const uint64_t *l1, uint32_t entries, Error **errp);
/* COPIED goes from all entries of the tree's L2 tables in the file and of l1: everything in it has
 * more than one reference. Not flushed. */
int q2_tree_clear_copied_co(struct qcow2 *s, uint64_t *l1, uint32_t entries, Error **errp);
/* Every cluster loses a reference, now: nothing in the file refers to it through this tree. What
 * cannot be read or lowered stays as it is, a leak. Committed on return. */
int q2_tree_unref_co(struct qcow2 *s, const uint64_t *l1, uint32_t entries, enum q2_discard type,
                     Error **errp);
/* COPIED of the active tree, in the file and in s->l1, as the refcounts say. Committed. */
int q2_tree_set_copied_co(struct qcow2 *s, Error **errp);
/* -EIO where a cluster of the tree has fewer references counted than all trees have: to remove one
 * would free what is in use. */
int q2_tree_verify_co(struct qcow2 *s, const uint64_t *l1, uint32_t entries, Error **errp);

#endif
