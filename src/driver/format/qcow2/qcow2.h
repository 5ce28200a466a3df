/* SPDX-License-Identifier: MIT */
/*
 * What the files of the qcow2 driver share: how it works, its invariants, its locks, its state.
 * Each subject has a header of its own; X_int.h is for the files of subject X alone.
 *
 * How it works. The L1 table and the refcount table are in memory. L2 tables are cached in slices,
 * refcount blocks whole; both are written back. A request finds its mapping without a lock. A
 * change of the mapping takes a lock on its range of guest clusters, allocates, writes data at
 * places that nothing refers to yet, then changes the slice in memory. q2_commit_co brings memory
 * to the file in an order that is right after every cut of power.
 *
 * The write-order invariants (cited as W1 .. W6; commit.c, refcount.c and free.c keep them):
 *  W1 data of new clusters, and the refcounts of every cluster that a table refers to, are durable
 *     before that table (L2 slice, snapshot, bitmap, ...) is written.
 *  W2 a refcount block is durable before the refcount table refers to it, and the refcount table
 *     before anything is written that relies on it.
 *  W3 an L2 table is durable before an L1 table refers to it.
 *  W4 a refcount goes down, in memory too, only after everything that referred to the cluster is
 *     durably gone from the file. So every refcount block may be written at any time.
 *  W5 a cluster whose refcount went down to zero is not used again, nor discarded in the file,
 *     while a request is in flight that may have found it in the mapping before.
 *  W6 the header's first sector is changed alone, and after everything it newly refers to is
 *     durable.
 *  Exceptions only while the dirty bit (incompatible bit 0) is durable: then refcounts and COPIED
 *  flags may be stale, and the next writable open rebuilds them.
 *
 * Space. The cluster of a new L2 table or refcount block is written (zeroes) before anything relies
 * on it: so a commit writes only where the file has room, and data that filled the disk meanwhile
 * does not keep what was written before from becoming durable.
 *
 * Threads. Data calls come from any context. q2_enter/q2_leave bracket each of them (inflight.c).
 * Operations on the image as a whole (snapshots, check, amend, ...) run with the node drained.
 * Lock order: exclusive section and inside > range lock > commit lock > refcounts lock > header
 * lock > L2 cache lock > in-flight lock. Locks of one line in the list are never held two at a time
 * by one coroutine.
 */
#ifndef PLATTER_QCOW2_H
#define PLATTER_QCOW2_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "block/driver.h"
#include "loop/co_turns.h"
#include "loop/context.h"
#include "os/os.h"
#include "os/thread.h"
#include "util/bytes.h"
#include "util/checked.h"
#include "util/mem.h"

#include "commit.h"
#include "compress.h"
#include "format.h"
#include "free.h"
#include "header.h"
#include "inflight.h"
#include "l2.h"
#include "options.h"
#include "ranges.h"
#include "reach.h"
#include "refcount.h"

struct q2_bitmaps;
struct q2_reopen;
struct q2_l1;
struct q2_overlap_set;
struct q2_snapshot;

struct qcow2 {
    BlockDriverState *bs;
    BdrvEdge *file;
    BdrvEdge *data;    /* where guest clusters are: file, or the external data file; NULL: nowhere
                        * that can be read (encrypted, or a data file that was left closed) */
    BdrvEdge *backing; /* NULL: none */
    struct q2_geometry geo;
    struct q2_options opt;
    struct q2_header header; /* what is in the file; drained, exclusive section or header_lock */
    CoMutex header_lock;
    _Atomic bool header_unsure; /* written under header_lock: a write of it failed, so what the file
                                 * says is not known; the next commit makes it sure */
    _Atomic uint64_t disk_bytes; /* size of the disk that is shown */
    _Atomic(struct q2_l1 *) l1;  /* owned; readers through q2_l1_get */
    struct q2_inflight inflight;
    struct q2_ranges ranges;
    struct q2_reach reach;
    struct q2_l2_cache l2;
    struct q2_refcounts refs;
    struct q2_free_queue freed;
    struct q2_commit commit;
    struct co_turns turns; /* of compressed clusters, and of writes in order */
    struct q2_packers packers;
    struct q2_overlap_set *overlap; /* overlap.c */
    struct q2_snapshot *snapshots;
    uint32_t snapshot_count;
    uint64_t snapshot_table_bytes; /* of the table in the file */
    struct q2_bitmaps *bitmaps;
    bool names_bitmaps;  /* the file does, and they are not believed (P2) */
    _Atomic bool stale;  /* q2_stays_stale */
    bool snapshot_shown; /* load_tmp: read-only for good */
    _Atomic bool corrupt_told;
    AioTimer *clean_timer;    /* of the L2 cache; NULL: none */
    struct q2_reopen *reopen; /* owned; reopen.c; NULL: none is under way */
};

static inline struct qcow2 *q2_of(BlockDriverState *bs)
{
    return bdrv_opaque(bs);
}
/* Incompatible bits for information, without header_lock. Any thread. */
static inline uint64_t q2_header_incompatible(const struct qcow2 *s)
{
    return __atomic_load_n(&s->header.incompatible, __ATOMIC_RELAXED);
}
static inline uint64_t q2_disk_bytes(struct qcow2 *s)
{
    return atomic_load_explicit(&s->disk_bytes, memory_order_relaxed);
}

/* ---- the path of every request ---- */

static inline q2_token q2_enter_co(struct qcow2 *s)
{
    struct q2_inflight *f = &s->inflight;
    q2_token token = aio_context_slot(aio_context_current()) * Q2_INFLIGHT_STRIDE +
                     (atomic_load_explicit(&f->phase, memory_order_relaxed) & 1);

    /* inflight.c says why these two, and the loads of the mapping, are seq_cst */
    atomic_fetch_add_explicit(&f->inside[token], 1, memory_order_seq_cst);
    if (UNLIKELY(atomic_load_explicit(&f->attention, memory_order_seq_cst) & Q2_ATTENTION_HELD)) {
        return q2_enter_wait_co(s, token);
    }
    return token;
}

static inline void q2_leave(struct qcow2 *s, q2_token token)
{
    struct q2_inflight *f = &s->inflight;
    uint32_t before = atomic_fetch_sub_explicit(&f->inside[token], 1, memory_order_seq_cst);

    if (UNLIKELY(atomic_load_explicit(&f->attention, memory_order_seq_cst) != 0) && before == 1) {
        q2_leave_slow(s);
    }
}

static inline uint64_t q2_l2_hash(const struct q2_l2_cache *c, uint64_t key)
{
    return (key >> c->slice_bits) * UINT64_C(0x9e3779b97f4a7c15) >> c->bucket_shift;
}

static inline struct q2_slice *q2_l2_find(struct qcow2 *s, uint64_t key)
{
    struct q2_l2_cache *c = &s->l2;
    struct q2_slice *slice =
        atomic_load_explicit(&c->buckets[q2_l2_hash(c, key)], memory_order_seq_cst);

    while (slice != NULL && slice->key != key) {
        slice = atomic_load_explicit(&slice->next, memory_order_seq_cst);
    }
    /* only when it changes: the line stays shared between readers */
    if (slice != NULL &&
        atomic_load_explicit(&slice->used, memory_order_relaxed) != Q2_USED_AGAIN) {
        atomic_store_explicit(&slice->used, Q2_USED_AGAIN, memory_order_relaxed);
    }
    return slice;
}

static inline uint64_t q2_slice_word(const struct q2_slice *slice, uint32_t i)
{
    return be64toh(atomic_load_explicit(&slice->words[i], memory_order_seq_cst));
}

static inline void q2_slice_pair(const struct q2_slice *slice, uint32_t i, uint64_t *ret_entry,
                                 uint64_t *ret_bitmap)
{
    /* The writer makes seq odd before its first word and even after its last, so who reads a new
     * word also sees that seq is no longer what it was. */
    uint32_t seq = atomic_load_explicit(&slice->seq, memory_order_acquire);

    *ret_entry = q2_slice_word(slice, i);
    *ret_bitmap = q2_slice_word(slice, i + 1);
    if (UNLIKELY((seq & 1) != 0 ||
                 atomic_load_explicit(&slice->seq, memory_order_relaxed) != seq)) {
        q2_slice_pair_slow(slice, i, ret_entry, ret_bitmap);
    }
}

static inline bool q2_free_due(const struct qcow2 *s)
{
    return atomic_load_explicit(&s->freed.due, memory_order_relaxed) != 0;
}

#endif
