/* SPDX-License-Identifier: MIT */
/*
 * Refcounts and new clusters (refblock.c, refcount.c, refcount_alloc.c, reftable_grow.c).
 * refcount_int.h is what these files share.
 */
#ifndef PLATTER_QCOW2_REFCOUNT_H
#define PLATTER_QCOW2_REFCOUNT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "block/driver.h"

struct qcow2;

struct q2_refblock {
    uint64_t offset; /* in the file */
    TAILQ_ENTRY(q2_refblock) lru;
    struct q2_refblock *hash_next;
    bool dirty;
    uint32_t dirty_from, dirty_to; /* bytes of data */
    uint8_t *data;                 /* owned; as in the file */
};

/* A new refcount block enters the table in memory at once, and is "fresh" until
 * q2_refcounts_write_blocks_co has written it. The table's entry of a fresh block is written as
 * zero, so that whatever the commit flushed between its two calls is what W2 asks for. */
struct q2_refcounts {
    CoMutex lock;    /* guards all; held over the loading of a block */
    uint64_t *table; /* owned; host order */
    uint64_t table_entries;
    uint64_t free_hint;                        /* no free cluster below this index */
    uint64_t table_dirty_from, table_dirty_to; /* entries to write */
    uint64_t *fresh;                           /* owned; indices of the table */
    uint32_t fresh_count, fresh_max;
    TAILQ_HEAD(q2_refblock_list, q2_refblock) blocks; /* the least recently used first */
    struct q2_refblock **hash;                        /* owned */
    uint32_t hash_mask;
    uint32_t count, count_max, dirty_count;
    _Atomic bool any_dirty;   /* written under the lock: a block, or the table */
    _Atomic bool table_dirty; /* written under the lock: entries that may be written now */
    /* compressed clusters are packed: where the next may begin, 0: nowhere */
    uint64_t packed_end;
    bool header_unsure; /* the header's write failed: the file may name a table given up */
};

int q2_refcounts_load(struct qcow2 *s, Error **errp); /* the table of the header */
void q2_refcounts_fini(struct qcow2 *s);
/* Refcount of a cluster; 0 where no block covers it. -EIO: the block cannot be used. Coroutine,
 * takes the lock. */
int q2_refcount_get_co(struct qcow2 *s, uint64_t cluster, uint64_t *ret);
/* Add delta to the refcounts of the clusters that [offset, offset + bytes) touches, in memory. Down
 * only where W4 allows it. -EINVAL: below zero, -ERANGE: above refcount_max; nothing was changed
 * then. After another error part of it may be done, so that at the worst clusters leak: a lowering
 * must not be repeated. Coroutine. */
int q2_refcount_add_co(struct qcow2 *s, uint64_t offset, uint64_t bytes, int delta);
/* Lower by one, with the same results. zero (may be NULL) is told, outside the lock, of each range
 * whose last reference goes, before its count goes to zero: so nobody else has these clusters yet,
 * and zero may suspend and discard them. Coroutine. */
int q2_refcount_drop_co(struct qcow2 *s, uint64_t offset, uint64_t bytes,
                        void (*zero)(void *opaque, uint64_t offset, uint64_t bytes), void *opaque);
/* New clusters, their refcount 1, contiguous: first fit above the hint as the reference does.
 * 0 or -errno (-EFBIG: beyond what a table can address; -EIO: the refcounts call metadata free).
 * Coroutine. */
int q2_alloc_clusters_co(struct qcow2 *s, uint64_t count, uint64_t *ret_offset);
/* Give a cluster that was allocated for metadata its room in the file. 0, -ENOMEM, -ENOSPC, ... */
int q2_reserve_cluster_co(struct qcow2 *s, uint64_t offset);
/* At most count clusters at offset, as many as are free there; *ret_count may be 0. */
int q2_alloc_at_co(struct qcow2 *s, uint64_t offset, uint64_t count, uint64_t *ret_count);
/* Room for bytes (at most a cluster) of compressed data, not aligned, behind the last one where
 * that is possible. */
int q2_alloc_packed_co(struct qcow2 *s, uint32_t bytes, uint64_t *ret_offset);
/* Clusters that were allocated and that nothing ever referred to: free at once. */
void q2_unalloc_co(struct qcow2 *s, uint64_t offset, uint64_t bytes);

/* The commit's steps (W2): write blocks, flush, then, if the table is dirty, write it, flush. */
int q2_refcounts_write_blocks_co(struct qcow2 *s);
int q2_refcounts_write_table_co(struct qcow2 *s);
/* Snapshots: whether anything, and whether the table, is to be written. Any thread. */
bool q2_refcounts_dirty(const struct qcow2 *s);
bool q2_refcounts_table_dirty(const struct qcow2 *s);

#endif
