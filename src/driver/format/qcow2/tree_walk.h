/* SPDX-License-Identifier: MIT */
/*
 * Walking what a tree of tables (L1, L2, clusters) refers to, run by run of neighbouring clusters.
 * The node is drained and memory was settled: tables are read from the file, past the cache.
 *
 * Invariants
 *  K1 a table or cluster at an impossible place (not aligned, past the end of the file) is never
 *     given to fn: the walk of its table ends with -EIO.
 *  K2 work is bounded by the file: a tree has at most as many L2 tables as the file has clusters.
 *  K3 two walks over the same tables give the same runs in the same order.
 */
#ifndef PLATTER_QCOW2_TREE_WALK_H
#define PLATTER_QCOW2_TREE_WALK_H

#include "qcow2.h"

struct q2_walk {
    struct qcow2 *s;
    uint64_t file_bytes;
    uint8_t *table; /* owned; the L2 table that is looked at, as in the file */
    /* A run of clusters (or the sectors of a compressed one) is referred to once; may suspend. Not
     * 0 ends the walk. */
    int (*fn)(struct q2_walk *w, uint64_t offset, uint64_t bytes);
    void *opaque;        /* fn's */
    uint64_t runs;       /* that fn took */
    uint64_t run_offset; /* of neighbours not given to fn yet */
    uint64_t run_bytes;
};

/* 0 or -errno with errp; w is for q2_walk_end after success. */
int q2_walk_begin_co(struct qcow2 *s, struct q2_walk *w, Error **errp);
void q2_walk_end(struct q2_walk *w);
/* Keeps K2. */
int q2_walk_check_l1(const struct q2_walk *w, const uint64_t *l1, uint32_t entries, Error **errp);
/* The L2 table at offset to w->table. */
int q2_walk_read_co(struct q2_walk *w, uint64_t offset, Error **errp);
/* The words [first, end) of w->table to the file, in whole sectors; cached slices are dropped. */
int q2_walk_write_co(struct q2_walk *w, uint64_t offset, size_t first, size_t end, Error **errp);
/* All that the L2 table at offset refers to, then the table itself. */
int q2_walk_table_co(struct q2_walk *w, uint64_t offset, Error **errp);
/* Every table of l1. */
int q2_walk_tree_co(struct q2_walk *w, const uint64_t *l1, uint32_t entries, Error **errp);

static inline size_t q2_walk_entry_words(const struct q2_geometry *geo)
{
    return geo->l2_entry_bytes / sizeof(uint64_t);
}
static inline uint64_t q2_walk_word(const struct q2_walk *w, size_t index)
{
    return load_be64(w->table + index * sizeof(uint64_t));
}

#endif
