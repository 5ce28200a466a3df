/* SPDX-License-Identifier: MIT */
/*
 * Nodes and edges as the block floor and the floors above it see them. Drivers do not include this.
 *
 * Locking: the graph (edges, permissions, names, flags) belongs to the control thread and changes
 * only while the nodes concerned are drained over all contexts; the data path reads it without a
 * lock. Fields that the data path writes are atomic or guarded by the lock they name.
 */
#ifndef PLATTER_BLOCK_NODE_H
#define PLATTER_BLOCK_NODE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include <platter/block.h>
#include <platter/coroutine.h>

#include "block/driver.h"
#include "os/thread.h"

/* What a user of a node (backend, job, export, other node) is to the graph. The drain calls must
 * not change the graph. */
struct bdrv_parent_class {
    /* "block device 'hd0'", "node 'x'", for refusals. buf of size bytes is filled. */
    void (*describe)(void *parent, char *buf, size_t size);
    /* The name that edits of the graph know it by; NULL, or "": it has none. */
    const char *(*name)(void *parent);
    /* Stop sending new requests through this edge / go on. Control thread. */
    void (*drained_begin)(BdrvEdge *edge);
    void (*drained_end)(BdrvEdge *edge);
    /* Whether requests are still in flight. Control thread; after a change to false in another
     * thread the parent calls aio_notify(main context). */
    bool (*drained_poll)(BdrvEdge *edge);
    /* The child's size changed. Control thread. */
    void (*resized)(BdrvEdge *edge);
    /* Its op blockers (node.h, op_blocker.c); NULL: it has none. Control thread. */
    struct bdrv_op_blocker **(*op_blockers)(BdrvEdge *edge);
    /* The iostatus of a backend of the node was reset. Control thread. */
    void (*iostatus_reset)(BdrvEdge *edge);
    /* The parent is a node: itself; else NULL. */
    bool parent_is_node;
};

struct BdrvEdge {
    BlockDriverState *bs; /* counted */
    char *name;           /* owned: "file", "root" */
    const struct bdrv_parent_class *klass;
    void *parent; /* borrowed: BlockDriverState or the user */
    unsigned role;
    uint64_t perm;
    uint64_t shared;
    bool frozen;
    bool opened_here; /* bs was opened by options of the parent, and has had no other place yet */
    bool as_named;    /* bs was opened by nothing but what the image of the parent names */
    int quiesced;     /* drained_begin calls it has seen */
    TAILQ_ENTRY(BdrvEdge) in_parent; /* parents' children (when parent_is_node) */
    TAILQ_ENTRY(BdrvEdge) in_child;  /* bs->parents */
    /* perm.c: a change under way */
    uint64_t saved_perm;
    uint64_t saved_shared;
    BdrvEdge *next_changed;
    bool perm_changed;
    bool resize_due; /* settle.c: the user is to be told of a new size */
};
TAILQ_HEAD(bdrv_edge_list, BdrvEdge);

struct bdrv_op_blocker; /* op_blocker.c */
struct bdrv_tracked;    /* block/track.h: a write in flight that others may have to wait for */
TAILQ_HEAD(bdrv_tracked_list, bdrv_tracked);

struct BlockDriverState {
    /* read by every request; set before the node is seen, or while drained */
    void *opaque; /* owned; first: bdrv_opaque */
    BlockDriverState
        *through;           /* where reads, writes and flushes go: itself, or past folded nodes */
    const BlockDriver *drv; /* NULL: an empty root node (not inserted) */
    unsigned caps;
    int open_flags; /* BDRV_O_* */
    bool read_only;
    bool turns_read_only; /* in the transaction that runs, which may still fail */
    bool sg;
    bool debugged; /* its driver acts on debug events (debug.c) */
    enum bdrv_detect_zeroes detect_zeroes;
    struct bdrv_limits bl;
    struct bdrv_bitmaps *bitmaps; /* block/dirty_bitmap.h; owned; NULL: nothing is marked */
    BdrvEdge *file;               /* primary child or NULL */
    _Atomic(char *) broken;       /* why requests answer -EIO; owned; set once */
    _Atomic int corrupt_told;   /* 1: it was told that the image is corrupt; 2: that it is fatal */
    _Atomic int64_t size_bytes; /* or -errno */

    /* data path state */
    _Atomic uint64_t write_gen;   /* counts completed changes; before their completion is told */
    _Atomic uint64_t flushed_gen; /* the write_gen a successful flush covered */
    _Atomic uint64_t wr_highest;  /* where the write that went furthest ended */
    _Atomic int serialising;      /* serialising requests now in flight */
    struct os_mutex track_lock;   /* guards tracked and tracked_serialising */
    struct bdrv_tracked_list tracked;
    unsigned tracked_serialising; /* of those in tracked */
    CoMutex flush_lock;           /* one flush of the driver at a time */

    /* control thread */
    Platter *pl; /* borrowed */
    int refcnt;
    char *node_name;       /* owned */
    char *filename;        /* owned, plain; NULL when there is none */
    char *shown_filename;  /* owned cache of bdrv_get_filename */
    BlockOptions *options; /* owned: as opened, for bdrv_get_filename */
    char *backing_file;    /* owned; what the image says (backing_name.c), or NULL */
    char *backing_format;  /* owned, or NULL */
    bool probed;
    bool implicit_name; /* node_name was generated */
    enum aio_engine engine;
    bool has_engine;
    int quiesce_count; /* drained sections on this very node */
    bool held;         /* one on this node or below it: roots above are quiesced (drain.c) */
    bool drain_hook;   /* open, and its driver wants to be told of drains */
    bool passing;      /* its driver was told drained_begin (drain.c) */
    int pass_count;    /* bdrv_pass_begin calls */
    bool closing;
    bool resize_untold;                    /* roots have not been told of the present size */
    struct bdrv_opening *opening;          /* open.c; borrowed, while it is being opened */
    BlockDriverState *opened_under;        /* for whom it was opened; only valid during that open */
    unsigned open_bounds;                  /* open.c */
    unsigned backing_depth;                /* backing edges above it in the open that made it */
    struct backing_wanted *backing_wanted; /* backing.c; owned; until its chain is there */
    BdrvEdge **backing_slot; /* in opaque: the driver's pointer to its backing file, kept right by
                              * edge.c; NULL: the driver has none */
    struct bdrv_file_id file_id; /* of a protocol node, when has_file_id */
    bool has_file_id;
    uint64_t perm; /* what the users together need of it, as the driver was told */
    uint64_t shared;
    struct bdrv_op_blocker *op_blockers; /* owned list */
    struct bdrv_edge_list children;
    struct bdrv_edge_list parents;
    TAILQ_ENTRY(BlockDriverState) in_instance;
    struct node_walk_mark {
        uint64_t gen;
        BdrvEdge *edge;
        BlockDriverState *from;
        BlockDriverState *next;
    } walk;                         /* walk.c */
    BlockDriverState *next_checked; /* perm.c: nodes whose driver agreed to a change */
    uint64_t new_perm;
    uint64_t new_shared;
    bool perm_checked;

    BlockDriverState *next_dead; /* node.c: waiting for its end */

    /* what other threads leave for the control thread (late.c); guarded by Platter.late_lock */
    int late_unrefs;
    bool late_size;
    bool late_fold;
    bool late_queued;
    TAILQ_ENTRY(BlockDriverState) in_late;
};

_Static_assert(offsetof(BlockDriverState, opaque) == 0, "bdrv_opaque counts on it");

/* Whether a write by req may happen to a raw node whose format was guessed: 0, or -EPERM when it
 * would make the first sector look like another format. The request path asks for every changing
 * request of a probed node that begins below 512. No I/O, any context. */
int bdrv_probe_guard_write(BlockDriverState *bs, const struct bdrv_req *req);

/* ---- edges of users that are no nodes (backends, jobs): control thread ---- */

/* A new edge to bs, which it refs; permissions are checked against the other parents. NULL with
 * errp (EPERM naming both users, ENOMEM). */
BdrvEdge *bdrv_root_attach(BlockDriverState *bs, const char *name,
                           const struct bdrv_parent_class *klass, void *parent, uint64_t perm,
                           uint64_t shared, Error **errp);
void bdrv_root_detach(BdrvEdge *edge);
/* Let an edge point to another node, all or nothing; both are drained meanwhile. */
int bdrv_root_replace(BdrvEdge *edge, BlockDriverState *new_bs, Error **errp);
int bdrv_root_set_perm(BdrvEdge *edge, uint64_t perm, uint64_t shared, Error **errp);
/* A node without a driver, for blk_new_with_bs. */
BlockDriverState *bdrv_new_root(Platter *pl, Error **errp);
/* Write-back flag and detect-zeroes of a node. */
void bdrv_set_detect_zeroes(BlockDriverState *bs, enum bdrv_detect_zeroes dz);

/* ---- requests through an edge, for backends: coroutine ---- */
/* bdrv_edge_request_co and its kin (block/driver.h) plus: */
int bdrv_edge_copy_range_co(BdrvEdge *src, uint64_t src_offset, BdrvEdge *dst, uint64_t dst_offset,
                            uint64_t bytes, unsigned read_flags, unsigned write_flags);
/* The machine's state (BDRV_OP_READ or _WRITE; offset and bytes are its own). */
int bdrv_edge_vmstate_co(BdrvEdge *edge, const struct bdrv_req *req);
int bdrv_edge_ioctl_co(BdrvEdge *edge, unsigned long request, void *buf);
/* Status down the chain; *ret_depth as blk_co_block_status. */
int bdrv_edge_status_above_co(BdrvEdge *edge, bool want_zero, uint64_t offset, uint64_t bytes,
                              struct bdrv_status *ret_status, int *ret_depth);

/* drain.c: from begin on no driver from bs down holds requests back (limits, breakpoints), as in a
 * drained section, but they go on coming. Nests. Control thread. */
void bdrv_pass_begin(BlockDriverState *bs);
void bdrv_pass_end(BlockDriverState *bs);

/* The request path's part of a new node (zeroed memory) and of one that ends. */
void bdrv_io_init(BlockDriverState *bs);
void bdrv_io_fini(BlockDriverState *bs);
/* BDRV_REQ_SERIALISING waits for the requests it finds in flight only where they are tracked:
 * writes of nodes with request_alignment > 1, and everything between these two calls. Control
 * thread, bs drained; they nest. */
void bdrv_track_all_begin(BlockDriverState *bs);
void bdrv_track_all_end(BlockDriverState *bs);

/* debug.c: bs itself is at this point. Only fault filters listen. As bdrv_debug_event. */
void bdrv_debug_node_event(BlockDriverState *bs, enum bdrv_debug_event event);
/* Reads, writes and flushes of bs are its primary child's, unchanged and untold. */
static inline bool bdrv_passes_through(const BlockDriverState *bs)
{
    return (bs->caps & BDRV_CAP_PASSTHROUGH) != 0 && bs->file != NULL && !bs->file->bs->debugged;
}

/* Flags of a request that op understands; others are -EINVAL. */
unsigned bdrv_op_flags(enum bdrv_op op);

/* ---- op_blocker.c: lists of reasons; control thread ---- */

/* Add reason (borrowed while it blocks) for ops (1 << BlockOpType, each). 0 or -ENOMEM. */
int bdrv_op_block(struct bdrv_op_blocker **list, unsigned ops, const Error *reason);
void bdrv_op_unblock(struct bdrv_op_blocker **list, unsigned ops, const Error *reason);
/* The first reason against op, or NULL. */
const Error *bdrv_op_blocked_by(const struct bdrv_op_blocker *list, BlockOpType op);
void bdrv_op_blockers_free(struct bdrv_op_blocker **list);
/* Whether the node or a user of it blocks op; errp then says why (EBUSY). */
bool bdrv_op_is_blocked(BlockDriverState *bs, BlockOpType op, Error **errp);
/* Tell the users of bs, jobs among them, that an iostatus was reset. */
void bdrv_tell_iostatus_reset(BlockDriverState *bs);

/* Ask the driver for the size again and tell the parents (resized). Returns what the driver said;
 * after an error other than -ENOMEDIUM the node keeps the size it had. Control thread. */
int64_t bdrv_refresh_size(BlockDriverState *bs);
/* The driver cannot tell the size, but it is surely not more than this. Control thread. */
void bdrv_shrink_size(BlockDriverState *bs, uint64_t size_bytes);

/* A user of a node in a message: what it calls itself, and the node. */
struct perm_user {
    const char *who;   /* "node 'x'" */
    const char *child; /* "file" */
};
/* That one needs on a node what another does not share, in the words of the reference; what is
 * "write, resize" and the like. -EPERM. */
int perm_conflict(const BlockDriverState *bs, const char *what, const struct perm_user *needs,
                  const struct perm_user *denies, Error **errp);

#endif
