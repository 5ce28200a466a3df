/* SPDX-License-Identifier: MIT */
/*
 * What the files of the request path share: request.c is the door, rw.c carries bytes, and each
 * other kind of request has a file of its own. Private to them.
 */
#ifndef PLATTER_BLOCK_REQUEST_H
#define PLATTER_BLOCK_REQUEST_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "block/node.h"
#include "block/track.h"
#include "util/mem.h"

/* ---- request.c ---- */

/* 0, -ENOMEDIUM (no driver), -EIO (broken). */
int bdrv_node_ready(BlockDriverState *bs);
/* Whether edge may change bs (its target): 0 or -EPERM. flags: BDRV_REQ_WRITE_UNCHANGED counts. */
int bdrv_edge_may_change(const BdrvEdge *edge, const BlockDriverState *bs, unsigned flags);
/* Ask for every guessed raw node that a change passes before it is done: 0 or -EPERM. */
int bdrv_probe_guard(const BdrvEdge *edge, const struct bdrv_req *req);
/* Whether writes through edge may go past the end. */
bool bdrv_edge_may_grow(const BdrvEdge *edge);
/* 0, -EIO outside the node, or the error its size has. Numbers of any value. */
int bdrv_range_check(BlockDriverState *bs, uint64_t offset, uint64_t bytes, bool may_grow);
/* The node that serves the changes of edge: past folded nodes, so that all that may overlap meet in
 * one tracked list. *ret_unmap: every node on the way lets discards through. */
BlockDriverState *bdrv_change_target(const BdrvEdge *edge, bool *ret_unmap);
/* Whether an operation that the driver has not is the primary child's. */
bool bdrv_forwards(const BlockDriverState *bs);
/* A node that could be folded but for its detect-zeroes: its changes are the child's, so that all
 * that may overlap meet there. */
bool bdrv_changes_below(const BlockDriverState *bs);

/* 0 when it is not known. */
static inline uint64_t bdrv_node_size(BlockDriverState *bs)
{
    int64_t size = atomic_load_explicit(&bs->size_bytes, memory_order_relaxed);

    return size < 0 ? 0 : (uint64_t)size;
}
/* Whether requests that need no place in the list for themselves must take one. */
static inline bool bdrv_others_serialise(BlockDriverState *bs)
{
    return atomic_load_explicit(&bs->serialising, memory_order_relaxed) != 0;
}

/* Whether a change that bs hands on to its child must be marked in its bitmaps: the door does it,
 * by a request of its own (bdrv_bitmaps_pass_co), instead of going on to the child. */
static inline bool bdrv_marks_in_passing(const BlockDriverState *bs)
{
    return bs->bitmaps != NULL && bs->file != NULL;
}

/* A write, or write zeroes, was done up to end. */
static inline void bdrv_note_written(BlockDriverState *bs, uint64_t end)
{
    uint64_t highest = atomic_load_explicit(&bs->wr_highest, memory_order_relaxed);

    while (UNLIKELY(end > highest) &&
           !atomic_compare_exchange_weak_explicit(&bs->wr_highest, &highest, end,
                                                  memory_order_relaxed, memory_order_relaxed)) {
    }
}

/* ---- change.c: a change from its registration to the moment its completion may be told ---- */

struct bdrv_change {
    BlockDriverState *bs;
    uint64_t size; /* of the node when the change began */
    uint64_t offset;
    uint64_t end;
    bool tracked;
    bool fua; /* by flush at the end */
    struct bdrv_tracked t;
};

/* Register where needed and check the range. flags: BDRV_REQ_*. After 0 bdrv_change_end follows.
 * 0, -EIO, -EBUSY. */
int bdrv_change_begin(struct bdrv_change *c, BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                      unsigned flags, bool may_grow);
/* Counts the change (also a failed one), lets others go on, flushes for FUA. Returns ret, or what
 * the flush said. */
int bdrv_change_end(struct bdrv_change *c, int ret);
/* The same of a write or write zeroes. */
static inline int bdrv_written_end(struct bdrv_change *c, int ret)
{
    if (ret == 0) {
        bdrv_note_written(c->bs, c->end);
    }
    return bdrv_change_end(c, ret);
}

/* BDRV_TRACK_* of BDRV_REQ_*. */
unsigned bdrv_track_flags(unsigned req_flags);

/* ---- rw.c ---- */

/* A read or a write on its way: [pos, end) is left to do, with the memory at mem. */
struct bdrv_rw {
    BlockDriverState *bs;
    enum bdrv_op op;
    unsigned flags; /* for the driver */
    uint64_t pos;
    uint64_t end;
    uint64_t size; /* of the node */
    bool told;     /* a fault filter knows of the write (BLKDBG_PWRITEV), or is not to */
    struct bdrv_rw_mem {
        const struct iovec *iov;
        size_t niov;
        uint64_t skip; /* within iov[0] */
    } mem;
};

/* All of req, no flags. */
void bdrv_rw_init(struct bdrv_rw *rw, BlockDriverState *bs, const struct bdrv_req *req);
/* Do all of it: align, bounce, split. The range is checked and registered. */
int bdrv_rw_run(struct bdrv_rw *rw);
/* After a write of a protocol node: give back what a padded last block added to the file. */
int bdrv_rw_trim(struct bdrv_rw *rw, uint64_t end);
/* Flags of a write for the driver; *ret_fua: durability is ours to give, by a flush. */
unsigned bdrv_write_driver_flags(BlockDriverState *bs, unsigned flags, bool *ret_fua);
/* Elements a request to bs may touch. */
static inline size_t bdrv_max_iov(const struct bdrv_limits *bl)
{
    return bl->max_iov != 0 && bl->max_iov < IOV_MAX ? bl->max_iov : IOV_MAX;
}

/* ---- status.c ---- */

/* A range of a node. */
struct status_place {
    BlockDriverState *bs;
    uint64_t offset;
    uint64_t bytes;
};
/* What the driver says of the beginning of p, with p cut to its node and moved to the node that
 * said it: past filters and windows, not down to a backing file. 0, -EIO outside the node. */
int bdrv_status_answer(struct status_place *p, bool want_zero, struct bdrv_status *ret_status);

/* ---- the other kinds ---- */
int bdrv_zeroes_co(BdrvEdge *edge, const struct bdrv_req *req);
/* Zero what truncate added, [offset, size), before anybody may see it: the caller holds it. */
int bdrv_zeroes_new_area(BlockDriverState *bs, uint64_t offset, uint64_t size, bool unmap);
/* The backing file, or NULL. */
BlockDriverState *bdrv_backing(BlockDriverState *bs);
int bdrv_discard_co(BdrvEdge *edge, const struct bdrv_req *req);
int bdrv_node_flush_co(BlockDriverState *bs);

#endif
