/* SPDX-License-Identifier: MIT */
/* What l2_cache.c, l2_slice.c and l2_commit.c share. */
#ifndef PLATTER_QCOW2_L2_INT_H
#define PLATTER_QCOW2_L2_INT_H

#include "qcow2.h"

/* ---- the cache lock is held ---- */

struct q2_slice *q2_l2_find_locked(struct q2_l2_cache *c, uint64_t key);
/* Move slice to the list of state. */
void q2_l2_state_locked(struct q2_l2_cache *c, struct q2_slice *slice, enum q2_slice_state state);

/* Into its bucket, the list of state and the count. */
void q2_l2_enter_locked(struct q2_l2_cache *c, struct q2_slice *slice, enum q2_slice_state state);
/* Out of them. The slice becomes a victim unless it is pinned; then who lets go of it last makes it
 * one. */
void q2_l2_leave_locked(struct q2_l2_cache *c, struct q2_slice *slice,
                        struct q2_slice_list *victims);

/* ---- the lock is not held ---- */

/* Its words are not set, it is in no list. NULL: out of memory. */
struct q2_slice *q2_slice_new(struct qcow2 *s, uint64_t key);
void q2_slice_free(struct q2_slice *slice);
void q2_l2_retire(struct qcow2 *s, struct q2_slice_list *victims);
/* Let slices go until wanted more fit. 0 also when there is none left that may go: then there are
 * too many for a while. A commit's error. Coroutine. */
int q2_l2_make_room_co(struct qcow2 *s, uint32_t wanted);
/* Nothing could be allocated for one more slice: some go, so that the next may succeed. -ENOMEM. */
int q2_l2_out_of_memory(struct qcow2 *s);
void q2_l2_frozen_free(struct qcow2 *s, uint64_t *copy); /* of a slice; NULL is fine */

#endif
