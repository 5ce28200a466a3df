/* SPDX-License-Identifier: MIT */
/* The active L1 table in memory (l1.c). */
#ifndef PLATTER_QCOW2_L1_H
#define PLATTER_QCOW2_L1_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "qcow2.h"

#define Q2_L1_SECTOR 512 /* what is written of it at a time */
#define Q2_L1_SECTOR_ENTRIES (Q2_L1_SECTOR / 8)

struct q2_l1 {
    struct q2_retired retired;
    struct qcow2 *s;        /* borrowed */
    uint64_t *dirty;        /* L2 cache lock: a bit per sector; lies behind the entries */
    uint32_t dirty_sectors; /* L2 cache lock */
    uint32_t entries;
    _Atomic uint64_t e[]; /* host order, as in the file (COPIED and offset) */
};

/* Inside. */
static inline struct q2_l1 *q2_l1_get(const struct qcow2 *s)
{
    return atomic_load_explicit(&s->l1, memory_order_seq_cst);
}

/* index < l1->entries. Inside. */
static inline uint64_t q2_l1_entry(const struct q2_l1 *l1, uint32_t index)
{
    return atomic_load_explicit(&l1->e[index], memory_order_seq_cst);
}
/* Load from h (bounds are checked there); replaces s->l1. Entries with reserved bits or unaligned
 * offsets are kept: using one is -EIO (map.c). 0, -EINVAL (bounds), -EFBIG, -EIO, -ENOMEM with
 * errp. Coroutine or control thread; nothing in memory is dirty. */
int q2_l1_load(struct qcow2 *s, uint64_t offset, uint32_t entries, Error **errp);
void q2_l1_free(struct qcow2 *s);
/* Change an entry in memory; the commit writes its sector (W3). The table it refers to is in the
 * cache (q2_l2_new_table_co) or durable already. Takes the L2 cache lock. Any context, inside. */
void q2_l1_set(struct qcow2 *s, uint32_t index, uint64_t entry);
/* A new L2 table, empty or a copy of old (0: there is none), takes its place at index; old is
 * freed. Nobody else does so at the same time: the caller holds the range lock on all that the
 * table describes, or an exclusive section. After a failure nothing has changed. Coroutine
 * (alloc.c). */
int q2_l1_new_table_co(struct qcow2 *s, uint32_t index, uint64_t old, uint64_t *ret_table);
/* A larger active table: new clusters, written, the header switched, the old ones freed. entries
 * as the caller wants them (rounding is the caller's). Exclusive section or drained. Coroutine. */
int q2_l1_grow_co(struct qcow2 *s, uint32_t entries, Error **errp);

/* The active table to other clusters, in front of where it is, likewise; 0 also where there are
 * none that are free in a row. */
int q2_l1_move_co(struct qcow2 *s, Error **errp);

/* The part of a commit (commit.c). */
struct q2_l1_due {
    uint32_t count;  /* sectors, rising */
    uint32_t *index; /* owned */
    uint8_t *bytes;  /* owned (bdrv_buffer); the sectors as they were when the commit began */
    uint32_t room;   /* sectors that index and bytes have room for */
};
int q2_l1_commit_begin(struct qcow2 *s, struct q2_l1_due *due); /* 0 or -ENOMEM */
int q2_l1_commit_write_co(struct qcow2 *s, const struct q2_l1_due *due);
void q2_l1_commit_end(struct qcow2 *s, struct q2_l1_due *due, bool durable);

#endif
