/* SPDX-License-Identifier: MIT */
/* What l2_cache.c and l2_commit.c share: the lists of the cache. */
#ifndef PLATTER_QCOW2_L2_INT_H
#define PLATTER_QCOW2_L2_INT_H

#include "qcow2.h"

/* ---- the cache lock is held ---- */

struct q2_slice *q2_l2_find_locked(struct q2_l2_cache *c, uint64_t key);
/* Move slice to the list of state. */
void q2_l2_state_locked(struct q2_l2_cache *c, struct q2_slice *slice, enum q2_slice_state state);

/* ---- any time ---- */

void q2_l2_frozen_free(struct qcow2 *s, uint64_t *copy); /* of a slice; NULL is fine */

#endif
