/* SPDX-License-Identifier: MIT */
/*
 * What the files of src/backend/ share. Nobody else includes this.
 *
 * The gate. Each backend has one counter of requests in flight for every context slot, so that
 * contexts do not share a cache line. The top bit of a counter says "drained": it is set in all of
 * them by the control thread, so that one atomic addition both counts a request and tells whether
 * it may go on. From then on a counter only falls (a late request undoes its own count and waits in
 * the drained queue). The atomics of the counters also order what requests read without a lock
 * (root, special, dev_ops) against the control thread, which changes that only while drained and
 * with nothing in flight.
 *
 * Locks: BlockBackend.lock guards the drained queue and the fields named there. It is a leaf.
 */
#ifndef PLATTER_BACKEND_INT_H
#define PLATTER_BACKEND_INT_H

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <sys/queue.h>

#include <platter/backend.h>

#include "backend/accounting_int.h"
#include "backend/lend.h"
#include "block/instance.h"
#include "block/node.h"
#include "block/throttle.h"
#include "loop/context.h"
#include "os/os.h"
#include "os/thread.h"
#include "util/error.h"
#include "util/mem.h"

#define BLK_SLOT_DRAINED (UINT32_C(1) << 31)
/* The slot of brackets (blk_inc_in_flight), which begin and end in any thread. */
#define BLK_SLOT_BRACKET OS_SLOTS

struct blk_slot {
    alignas(64) _Atomic uint32_t in_flight; /* and BLK_SLOT_DRAINED */
};

/* Why a request must look closer than at the size of the root; none set is the common case. */
enum blk_special {
    BLK_SPECIAL_MEDIUM = 1 << 0, /* no root, or somebody must be asked whether it is there */
    BLK_SPECIAL_FUA = 1 << 1,    /* write cache off */
};

/* A coroutine in the drained queue. Lives on its stack. */
struct blk_waiter {
    Coroutine *co;
    bool queued;   /* BlockBackend.lock */
    bool canceled; /* BlockBackend.lock */
    TAILQ_ENTRY(blk_waiter) entry;
};
TAILQ_HEAD(blk_waiter_list, blk_waiter);

/* Where a request that can be canceled and whoever cancels it meet. BlockBackend.lock */
struct blk_cancel {
    struct blk_waiter *waiter;       /* in the drained queue, or NULL */
    struct throttle_cancel throttle; /* the throttle group's lock */
    bool wanted;
};

/* What the [any] queries need of the root. */
struct blk_facts {
    bool has_root;
    bool inserted;
    bool tray_open;
    bool sg;
    int64_t size_bytes; /* or -errno */
    uint32_t request_alignment;
    uint32_t mem_alignment;
    uint64_t max_transfer_bytes;
    uint32_t max_iov;
    char node_name[256]; /* "" when there is no root */
};

struct BlockBackend {
    /* read by every request; changed as said at the top */
    BdrvEdge *root;           /* owned, NULL when empty */
    _Atomic unsigned special; /* enum blk_special; the FUA bit changes at any time */
    const BlockDevOps *dev_ops;
    void *dev_opaque;
    Platter *pl;                     /* borrowed */
    struct throttle_member throttle; /* its group changes only while drained */

    _Atomic int refcnt;
    _Atomic(AioContext *) home_ctx; /* counted; never NULL; written under lock */

    /* any thread, one by one */
    _Atomic int on_read_error; /* BlockdevOnError */
    _Atomic int on_write_error;
    _Atomic bool iostatus_enabled;
    _Atomic int iostatus; /* BlockDeviceIoStatus */
    struct BlockAcctStats stats;

    /* lock: written by the control thread */
    struct os_mutex lock;
    int drained_depth;
    struct blk_waiter_list drained_queue;
    struct blk_facts drained_facts; /* as they were when the drain began */

    /* control thread */
    char *name; /* owned; "" when hidden */
    bool visible;
    void *dev;         /* borrowed */
    int devs_reserved; /* coroutine reservations held */
    int guest_block_size;
    DriveInfo *legacy_dinfo; /* owned */
    QEMUBH *unref_bh;        /* for a last unref elsewhere; made early so that it cannot fail */
    bool perm_set;           /* perm and shared were chosen by blk_set_perm */
    uint64_t perm;
    uint64_t shared;
    enum blk_lent lent;
    void (*on_iostatus_reset)(void *opaque); /* of another backend of the medium; or NULL */
    void *iostatus_reset_opaque;
    bool wce;
    bool read_only_set;
    bool read_only;
    bool detect_zeroes_set;
    enum bdrv_detect_zeroes detect_zeroes;
    BlockBackendRootState root_state;    /* of the medium that was removed last */
    struct bdrv_op_blocker *op_blockers; /* owned list */
    BlkNotifier *insert_notifiers;
    BlkNotifier *remove_notifiers;
    BlkNotifier *close_notifiers;
    struct blk_context_notifier *context_notifiers; /* owned list; notifier.c */
    TAILQ_ENTRY(BlockBackend) in_visible;
    TAILQ_ENTRY(BlockBackend) in_all;

    struct blk_slot slots[OS_SLOTS + 1];
};

TAILQ_HEAD(blk_list, BlockBackend);

/* The room of src/backend in an instance. */
struct blk_room {
    struct blk_list visible;
    struct blk_list all;
};
struct blk_room *blk_room(Platter *pl); /* NULL: no backend was ever made */

/* A reference for a request in flight; false: the backend is at its end, which waits for it. */
bool blk_ref_if_alive(BlockBackend *blk);

#define BLK_ASSERT_CONTROL(pl) assert(instance_in_control_thread(pl))
#define BLK_ASSERT_CONTROL_POLLS(pl) assert(instance_in_control_thread(pl) && !in_coroutine())

/* ---- gate.c ---- */

/* Coroutine; with the request counted in slot: wait until the drain ends, unless it is one that may
 * run over it. cancel NULL: not cancellable. Returns the slot it is counted in, or NULL: canceled
 * while it waited; then the caller got a reference to blk to give back. */
struct blk_slot *blk_gate_wait_co(BlockBackend *blk, struct blk_slot *slot, bool over_drain,
                                  struct blk_cancel *cancel);
void blk_slot_leave_drained(BlockBackend *blk, struct blk_slot *slot);

/* Count a request in flight. False: drained, and blk_gate_wait_co is to follow. */
static inline bool blk_gate_pass(struct blk_slot *slot)
{
    return LIKELY((atomic_fetch_add_explicit(&slot->in_flight, 1, memory_order_acq_rel) &
                   BLK_SLOT_DRAINED) == 0);
}

/* Count a request in flight, waiting while drained. Coroutine.
 * over_drain  the control thread waits for this one: it may run while drained
 * Returns what blk_gate_leave wants. */
static inline struct blk_slot *blk_gate_enter(BlockBackend *blk, bool over_drain)
{
    struct blk_slot *slot = &blk->slots[aio_context_slot(aio_context_current())];

    return blk_gate_pass(slot) ? slot : blk_gate_wait_co(blk, slot, over_drain, NULL);
}

/* The opposite. blk may be gone right after the count fell, so it is not touched any more: whether
 * somebody waits is told by the same word. */
static inline void blk_gate_leave(BlockBackend *blk, struct blk_slot *slot)
{
    uint32_t old = atomic_load_explicit(&slot->in_flight, memory_order_relaxed);

    do {
        if (UNLIKELY(old & BLK_SLOT_DRAINED)) {
            blk_slot_leave_drained(blk, slot);
            return;
        }
    } while (!atomic_compare_exchange_weak_explicit(&slot->in_flight, &old, old - 1,
                                                    memory_order_release, memory_order_relaxed));
}

/* Take a request out of the drained queue, or do not let it wait there; it goes on as canceled.
 * Any thread; the request must not have completed. */
void blk_gate_cancel(BlockBackend *blk, struct blk_cancel *cancel);

/* Hold requests / let them go on; nests. Control thread. begin does not wait. */
void blk_quiesce_begin(BlockBackend *blk);
void blk_quiesce_end(BlockBackend *blk);
bool blk_in_flight(BlockBackend *blk);
/* The same with waiting, over the root's node when there is one. The root may change in between:
 * bs is what end needs. */
BlockDriverState *blk_drained_begin(BlockBackend *blk);
void blk_drained_end(BlockBackend *blk, BlockDriverState *bs);

/* Work out special again. Control thread, drained. */
void blk_special_update(BlockBackend *blk);
void blk_facts_get(BlockBackend *blk, struct blk_facts *ret_facts); /* any thread */
bool blk_tray_is_open(BlockBackend *blk);

/* ---- check.c ---- */

int blk_check_request_slow(BlockBackend *blk, struct bdrv_req *req);
/* Whether a request needs no closer look. In flight. */
static inline bool blk_request_is_plain(const BlockBackend *blk, const struct bdrv_req *req)
{
    int64_t size;
    uint64_t end = req->offset + req->bytes;

    if (UNLIKELY((atomic_load_explicit(&blk->special, memory_order_relaxed) | req->flags) != 0)) {
        return false;
    }
    size = atomic_load_explicit(&blk->root->bs->size_bytes, memory_order_relaxed);
    /* not for offsets and lengths that are negative, nor sizes that are */
    return LIKELY((int64_t)(req->offset | req->bytes | end) >= 0 && (int64_t)end <= size);
}
/* Whether the request may go to the node: 0 or -errno; may add flags. In flight. */
static inline int blk_check_request(BlockBackend *blk, struct bdrv_req *req)
{
    return LIKELY(blk_request_is_plain(blk, req)) ? 0 : blk_check_request_slow(blk, req);
}
/* Just the medium. In flight. */
int blk_check_available(BlockBackend *blk);
/* Medium and range, in the order of blk_check_request. In flight. */
int blk_check_range(BlockBackend *blk, int64_t offset, int64_t bytes);

/* ---- throttle.c ---- */

/* Wait as long as the limits want: 0 or -ECANCELED. In flight; coroutine. */
int blk_throttle_co(BlockBackend *blk, const struct bdrv_req *req, struct blk_cancel *cancel);
static inline int blk_throttle(BlockBackend *blk, const struct bdrv_req *req,
                               struct blk_cancel *cancel)
{
    return LIKELY(!throttle_member_is_limited(&blk->throttle)) ? 0
                                                               : blk_throttle_co(blk, req, cancel);
}

/* ---- io_co.c ---- */

/* The whole of a request: gate, checks, node. Coroutine. */
int blk_request_co(BlockBackend *blk, struct bdrv_req *req, bool over_drain);
int blk_request_unthrottled_co(BlockBackend *blk, struct bdrv_req *req, bool over_drain);
int blk_truncate_over_co(BlockBackend *blk, int64_t size_bytes, bool exact,
                         enum bdrv_prealloc prealloc, bool over_drain, Error **errp);
int blk_vmstate_over_co(BlockBackend *blk, const struct bdrv_req *req, bool over_drain);
int blk_ioctl_over_co(BlockBackend *blk, unsigned long request, void *buf, bool over_drain);

/* A request from the arguments of the byte calls. Negative numbers become huge ones, which the
 * checks refuse. */
static inline void blk_req_init(struct bdrv_req *req, enum bdrv_op op, int64_t offset,
                                int64_t bytes, const struct iov_view *iov, unsigned flags)
{
    req->op = op;
    req->flags = flags;
    req->offset = (uint64_t)offset;
    req->bytes = (uint64_t)bytes;
    req->iov = iov != NULL ? iov->iov : NULL;
    req->niov = iov != NULL ? iov->niov : 0;
    req->iov_offset = 0;
}
static inline struct bdrv_req blk_req_iov(enum bdrv_op op, int64_t offset,
                                          const struct iov_view *iov, int flags)
{
    struct bdrv_req req;

    blk_req_init(&req, op, offset, (int64_t)iov->bytes, iov, (unsigned)flags);
    return req;
}
static inline struct bdrv_req blk_req_range(enum bdrv_op op, int64_t offset, int64_t bytes,
                                            int flags)
{
    struct bdrv_req req;

    blk_req_init(&req, op, offset, bytes, NULL, (unsigned)flags);
    return req;
}

/* ---- io_sync.c ---- */
int blk_request_sync(BlockBackend *blk, struct bdrv_req *req);
/* The same, past the throttle group. */
int blk_request_unthrottled_sync(BlockBackend *blk, struct bdrv_req *req);

/* ---- io_aio.c, cancel.c ---- */

/* Set by a cancel that waits. Lives on its stack, chained at the request. */
struct blk_cancel_wait {
    bool done;
    struct blk_cancel_wait *next;
};

/* A request of the callback door, in the room of the coroutine that serves it. */
struct blk_aiocb {
    BlockAIOCB common;
    struct blk_cancel cancel;
    struct blk_cancel_wait *cancel_waits; /* submitter's thread */
    struct blk_aio_foreign *foreign;      /* submitted by a thread that runs no context */
    struct blk_slot *slot;                /* where it counts in flight; NULL: nowhere */
    int ret;
    bool held; /* it holds a reference on the backend */
    union {
        struct bdrv_req req;
        struct blk_ioctl {
            unsigned long request;
            void *buf;
        } ioctl;
    } what;
};
extern const AIOCBInfo blk_aiocb_info;

/* A request of a thread that runs no context: on the heap, since it outlives the call that made it
 * in a thread that does not serve it. */
struct blk_aio_foreign {
    struct blk_aiocb acb;
    Coroutine *co;
    void (*run_co)(struct blk_aiocb *acb);
    struct os_mutex lock; /* guards the rest */
    struct os_cond cond;
    int refcnt;
    bool done;
};
void blk_aio_foreign_unref(struct blk_aio_foreign *foreign);

/* iov NULL: none. */
BlockAIOCB *blk_aio_submit(BlockBackend *blk, enum bdrv_op op, int64_t offset, int64_t bytes,
                           const struct iov_view *iov, unsigned flags, BlockCompletionFunc *cb,
                           void *opaque);

/* ---- medium.c ---- */
/* Ask for the permissions that the settings want now. */
int blk_update_perm(BlockBackend *blk, Error **errp);
/* The first node from the root down filters whose driver has an operation. has(drv) tells. */
BlockDriverState *blk_find_below(BlockBackend *blk, bool (*has)(const BlockDriver *drv));

/* ---- device.c ---- */

/* Which ways the tray moved, in this order, when the medium changed. */
struct blk_tray_moves {
    bool opened;
    bool closed;
};
struct blk_tray_moves blk_dev_change_media(BlockBackend *blk, bool load);
void blk_dev_release(BlockBackend *blk);

/* ---- settings.c ---- */
AioContext *blk_home_context_ref(BlockBackend *blk); /* any thread; to be unreferenced */

/* ---- notifier.c ---- */
void blk_notify(BlkNotifier **list, BlockBackend *blk);
/* The home context changes: tell those that wanted to know, before and after. */
void blk_context_detach(BlockBackend *blk);
void blk_context_attached(BlockBackend *blk, AioContext *ctx);
void blk_context_notifiers_free(BlockBackend *blk);

#endif
