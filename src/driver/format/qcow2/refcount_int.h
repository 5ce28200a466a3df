/* SPDX-License-Identifier: MIT */
/*
 * What refblock.c, refcount.c, refcount_alloc.c and reftable_grow.c share. Everything here runs in
 * a coroutine that holds s->refs.lock.
 */
#ifndef PLATTER_QCOW2_REFCOUNT_INT_H
#define PLATTER_QCOW2_REFCOUNT_INT_H

#include "qcow2.h"
#include "refbits.h"

/* ---- refblock.c: the cache of blocks ---- */

#define Q2_REFBLOCKS_MIN 4 /* so a block that was got stays over three further gets */

int q2_refblocks_init(struct qcow2 *s); /* 0 or -ENOMEM */
void q2_refblocks_fini(struct qcow2 *s);
void q2_refblocks_resize(struct qcow2 *s); /* as options say now; drained */
/* Block index of the table; *ret NULL: there is none. -EIO: the table's entry or the block cannot
 * be used. */
int q2_refblock_get_co(struct qcow2 *s, uint64_t index, struct q2_refblock **ret);
/* A block of zeroes at offset enters the cache, dirty. */
int q2_refblock_new_co(struct qcow2 *s, uint64_t offset, struct q2_refblock **ret);
/* Forget a block, or all, dirty or not. */
void q2_refblock_drop(struct qcow2 *s, struct q2_refblock *b);
void q2_refblocks_drop_all(struct qcow2 *s);
/* The counts from index first on were changed. */
void q2_refblock_dirtied(struct qcow2 *s, struct q2_refblock *b, uint64_t first, uint64_t count);
/* Write all dirty ones. */
int q2_refblocks_write_co(struct qcow2 *s);

/* ---- refcount.c ---- */

static inline uint64_t q2_refblock_index(const struct qcow2 *s, uint64_t cluster)
{
    return cluster >> s->geo.refblock_bits;
}

/* Raise or lower clusters whose blocks are there, and whose counts allow it, by one. After an error
 * of storage part of it is done. */
int q2_refcounts_raise_co(struct qcow2 *s, uint64_t first, uint64_t count);
int q2_refcounts_lower_co(struct qcow2 *s, uint64_t first, uint64_t count);
/* Another table, charged to the budget, in place of the one in memory; it and its blocks are
 * durable. *table is NULL afterwards. */
void q2_refcounts_take_table(struct qcow2 *s, uint64_t **table, uint64_t entries);
/* Entry index of the table in memory was changed (file_tail.c). */
void q2_reftable_dirtied(struct q2_refcounts *refs, uint64_t index);
/* What any_dirty and table_dirty say follows from the rest. */
void q2_refcounts_tell_dirty(struct qcow2 *s);

/* ---- refcount_alloc.c ---- */

/* The blocks of all these clusters are there. Q2_AGAIN: one was made, so clusters that were free
 * may be so no longer: look again. (No errno: the storage may fail with any.) */
#define Q2_AGAIN 1
int q2_refblocks_ensure_co(struct qcow2 *s, uint64_t first, uint64_t count);

/* 0, or -EIO after the image was told corrupt: clusters that the refcounts call free are metadata.
 */
int q2_refcounts_check_free_co(struct qcow2 *s, uint64_t first, uint64_t count);

/* ---- reftable_grow.c ---- */

/* The size of a refcount table that has outgrown itself, as the reference chooses it: from block
 * index first_block on there are blocks of their own for *ret_blocks + *ret_clusters clusters, the
 * blocks themselves and the table. Pure. */
void q2_reftable_grown(const struct q2_geometry *geo, uint64_t first_block, uint64_t *ret_blocks,
                       uint64_t *ret_clusters);
/* A table with room for block index, which is in memory at offset, and with it in its place. */
int q2_reftable_grow_co(struct qcow2 *s, uint64_t index, uint64_t offset);
/* After a growth whose header could not be written the file may hold either header: nothing may be
 * allocated until this has written the one that counts. */
int q2_reftable_settle_co(struct qcow2 *s);

#endif
