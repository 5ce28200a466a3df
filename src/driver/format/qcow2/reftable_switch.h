/* SPDX-License-Identifier: MIT */
/* What refcount_area.c and amend_refcount.c share. */
#ifndef PLATTER_QCOW2_REFTABLE_SWITCH_H
#define PLATTER_QCOW2_REFTABLE_SWITCH_H

#include "qcow2.h"

/* A refcount table that is to be. */
struct q2_reftable {
    uint64_t *table;  /* owned, charged to the budget; host order; entries of them, from 0 */
    uint64_t entries; /* as many as its clusters hold */
    uint32_t clusters;
    uint64_t offset;
    unsigned order; /* of the refcounts in its blocks */
};

/* Room for at least entries. 0, -EFBIG, -ENOMEM. */
int q2_reftable_init(struct qcow2 *s, uint64_t entries, struct q2_reftable *ret);
void q2_reftable_fini(struct qcow2 *s, struct q2_reftable *t);
/* Write t, whose blocks were written (not flushed) and whose clusters are counted, and the header;
 * then t is s->refs.table and t->table NULL. On failure the old one stays. s->refs.lock is held;
 * blocks in memory stay in the cache. */
int q2_reftable_switch_co(struct qcow2 *s, struct q2_reftable *t);

/* ---- refcount_area.c ---- */

/* Behind everything in use, blocks and a table that count them and the more clusters that follow:
 * *ret_first is the first cluster behind the table. 0 or -errno. Coroutine, exclusive section,
 * settled. */
int q2_refcount_area_co(struct qcow2 *s, uint64_t more, uint64_t *ret_first);

#endif
