/* SPDX-License-Identifier: MIT */
/*
 * BlockBackend: what a consumer holds. It has a name, a root node (the medium) or none, and maybe
 * an attached device. Requests are made here.
 *
 * Tags: [control] control thread, outside coroutines. [any] any thread; a thread that runs an
 * AioContext keeps the request and its completion there, a thread that runs none uses the home
 * context of the backend. [co] inside a coroutine, any context. The sync calls are [any]: in a
 * coroutine they suspend it, elsewhere they poll the current context until done.
 *
 * Data calls return 0 or -errno: -EIO range outside the device (negative, past the end) or a broken
 * node, -ENOMEDIUM no medium or tray open, -EPERM/-EACCES read-only, -ENOSPC, -ENOMEM, -EINVAL an
 * unknown flag, -ENOTSUP, -ECANCELED, or what the storage said. A request passes its gate in this
 * order: count in flight > wait while drained > medium and range > node.
 */
#ifndef PLATTER_BACKEND_H
#define PLATTER_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <platter/accounting.h>
#include <platter/block.h>
#include <platter/iov.h>
#include <platter/throttle.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct BlockBackend BlockBackend;
typedef struct BlockAIOCB BlockAIOCB;
typedef struct DriveInfo DriveInfo;
typedef void BlockCompletionFunc(void *opaque, int ret);

#define BDRV_SECTOR_BITS 9
#define BDRV_SECTOR_SIZE (UINT64_C(1) << BDRV_SECTOR_BITS)

/* The coroutines that an attached device makes the pool keep ready. */
#define COROUTINE_POOL_RESERVATION 64

/* What a device model tells a backend. Any member may be NULL. Called in the control thread, but
 * for is_tray_open, which requests ask in the thread that makes them: it only looks. */
typedef struct BlockDevOps {
    void (*change_media_cb)(void *opaque, bool load); /* presence means: removable media */
    void (*eject_request_cb)(void *opaque, bool force);
    bool (*is_tray_open)(void *opaque);
    bool (*is_medium_locked)(void *opaque);
    void (*resize_cb)(void *opaque);
} BlockDevOps;

/* ---- 2.1 registry and lifetime ---- */

/* name: a letter, then letters, digits, '-', '.', '_'. Reference count 1. [control]
 * NULL with errp: not well formed; taken by a backend; taken by a node; ENOMEM. */
BlockBackend *blk_new(Platter *pl, const char *name, Error **errp);
/* One without a name, that blk_next does not show: for whoever uses a node by itself (an export).
 * NULL with errp: ENOMEM. [control] */
BlockBackend *blk_new_hidden(Platter *pl, Error **errp);
/* blk_new plus an empty root node (a node without driver: not inserted). [control] */
BlockBackend *blk_new_with_bs(Platter *pl, const char *name, Error **errp);
/* blk_new plus bdrv_open(filename, reference, options, flags) as its root. Ownership of options
 * passes in, also on failure. [control] */
BlockBackend *blk_new_open(Platter *pl, const char *name, const char *filename,
                           const char *reference, BlockOptions *options, int flags, Error **errp);
void blk_ref(BlockBackend *blk);   /* [any] */
void blk_unref(BlockBackend *blk); /* [any]; NULL allowed; the end happens in the control thread */
BlockBackend *blk_next(Platter *pl, BlockBackend *blk); /* [control] visible ones, oldest first */
const char *
blk_name(const BlockBackend *blk); /* [any] "" when hidden; not while it is being hidden */
BlockBackend *blk_by_name(Platter *pl, const char *name); /* [control] */
DriveInfo *blk_legacy_dinfo(BlockBackend *blk);           /* [control] */
DriveInfo *blk_set_legacy_dinfo(BlockBackend *blk,
                                DriveInfo *dinfo);                /* [control] takes ownership */
BlockBackend *blk_by_legacy_dinfo(Platter *pl, DriveInfo *dinfo); /* [control] NULL: unknown */
void blk_hide_on_behalf_of_hmp_drive_del(BlockBackend *blk);      /* [control] */

/* The legacy drive record. serial (may be NULL) is copied, options ownership passes in. */
DriveInfo *drive_info_new(const char *serial, BlockOptions *options);
const char *drive_info_serial(const DriveInfo *dinfo);

/* ---- 2.2 medium and root node ---- */

BlockDriverState *blk_bs(BlockBackend *blk); /* [control] borrowed, NULL when empty */
/* Put bs in place of the root (or of nothing); takes its own reference. The old root is drained
 * and let go. 0 or -EPERM (permissions), -ENOMEM. [control] */
int blk_set_bs(BlockBackend *blk, BlockDriverState *bs, Error **errp);
/* Put bs into an empty backend: takes its own reference, applies what was remembered, tells insert
 * notifiers. 0, -EBUSY (not empty), -EPERM, -ENOMEM. [control] */
int blk_insert_bs(BlockBackend *blk, BlockDriverState *bs, Error **errp);
/* Tells remove notifiers, saves the root state, drains, detaches; nothing when empty. [control] */
void blk_remove_bs(BlockBackend *blk);
bool blk_is_inserted(BlockBackend *blk);                    /* [any] */
bool blk_is_available(BlockBackend *blk);                   /* [any] */
void blk_invalidate_cache(BlockBackend *blk, Error **errp); /* [control] */

/* What this backend needs of its root and shares with other users: BDRV_PERM_*. Defaults: read, and
 * write and resize when the node is writable; shares all. 0 or -EPERM with a text naming both.
 * [control] */
int blk_set_perm(BlockBackend *blk, uint64_t perm, uint64_t shared_perm, Error **errp);
void blk_get_perm(const BlockBackend *blk, uint64_t *ret_perm, uint64_t *ret_shared_perm);

/* ---- 2.3 device attach ---- [control] */

int blk_attach_dev(BlockBackend *blk, void *dev); /* 0 or -EBUSY */
void blk_attach_dev_nofail(BlockBackend *blk, void *dev);
void blk_detach_dev(BlockBackend *blk, void *dev);
void *blk_get_attached_dev(BlockBackend *blk);
void blk_set_dev_ops(BlockBackend *blk, const BlockDevOps *ops, void *opaque);
bool blk_dev_has_removable_media(BlockBackend *blk);
void blk_dev_resize_cb(BlockBackend *blk);

/* ---- 2.4 tray ---- [control] */

void blk_dev_change_media_cb(BlockBackend *blk, bool load);
void blk_dev_eject_request(BlockBackend *blk, bool force);
bool blk_dev_is_tray_open(BlockBackend *blk);
bool blk_dev_is_medium_locked(BlockBackend *blk);
/* To the drive below, where there is one (of the drivers here none has a tray or a lock). */
void blk_lock_medium(BlockBackend *blk, bool locked);
/* The same; then, unless blk is empty or has no name, DEVICE_TRAY_MOVED. */
void blk_eject(BlockBackend *blk, bool eject_flag);

/* ---- 2.5 I/O status and error policy ---- [any] unless said otherwise */

typedef enum BlockdevOnError {
    BLOCKDEV_ON_ERROR_REPORT = 0,
    BLOCKDEV_ON_ERROR_IGNORE,
    BLOCKDEV_ON_ERROR_ENOSPC, /* stop where the storage is full, else report */
    BLOCKDEV_ON_ERROR_STOP,
} BlockdevOnError;
typedef enum BlockDeviceIoStatus {
    BLOCK_DEVICE_IO_STATUS_OK = 0,
    BLOCK_DEVICE_IO_STATUS_FAILED,
    BLOCK_DEVICE_IO_STATUS_NOSPACE,
} BlockDeviceIoStatus;
typedef enum BlockErrorAction {
    BLOCK_ERROR_ACTION_REPORT = 0,
    BLOCK_ERROR_ACTION_IGNORE,
    BLOCK_ERROR_ACTION_STOP,
} BlockErrorAction;

void blk_iostatus_enable(BlockBackend *blk);
bool blk_iostatus_is_enabled(const BlockBackend *blk); /* and some policy stops */
BlockDeviceIoStatus blk_iostatus(const BlockBackend *blk);
void blk_iostatus_disable(BlockBackend *blk);
void blk_iostatus_reset(BlockBackend *blk); /* [control]; jobs on its medium too */
/* The first error since the reset stays. error: positive errno. The iostatus is enabled. */
void blk_iostatus_set_err(BlockBackend *blk, int error);
void blk_set_on_error(BlockBackend *blk, BlockdevOnError on_read_error,
                      BlockdevOnError on_write_error);
BlockdevOnError blk_get_on_error(BlockBackend *blk, bool is_read);
BlockErrorAction blk_get_error_action(BlockBackend *blk, bool is_read, int error);
/* Raise BLOCK_IO_ERROR. For STOP: set the iostatus (where it is enabled), prepare the stop, raise
 * the event, request the stop, in this order. error: positive errno. */
void blk_error_action(BlockBackend *blk, BlockErrorAction action, bool is_read, int error);

/* For front ends: what becomes of a request that ended with ret. Errors go through policy, event
 * and stop; a request that is to be held is parked, not in flight, until the consumer runs again
 * (platter_cont), the medium is removed (-ENOMEDIUM) or the instance ends (-ECANCELED). Returns
 * BLK_TRY_AGAIN, 0 (it was well, or the error is ignored) or -errno. [co] */
#define BLK_TRY_AGAIN 1
int blk_co_handle_error(BlockBackend *blk, bool is_read, int ret);

/* ---- 64-bit byte calls, the primary ones; 0 or -errno ----
 * flags: reads none; writes BDRV_REQ_FUA, WRITE_COMPRESSED, IN_ORDER; zeroes FUA, IN_ORDER,
 * MAY_UNMAP, NO_FALLBACK. */
int blk_preadv(BlockBackend *blk, int64_t offset, const struct iov_view *iov, int flags);
int blk_pwritev(BlockBackend *blk, int64_t offset, const struct iov_view *iov, int flags);
int blk_pwrite_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes, int flags);
int blk_pdiscard(BlockBackend *blk, int64_t offset, int64_t bytes);

/* In a coroutine. iov is borrowed until return. [co] */
int blk_co_preadv(BlockBackend *blk, int64_t offset, const struct iov_view *iov, int flags);
int blk_co_pwritev(BlockBackend *blk, int64_t offset, const struct iov_view *iov, int flags);
int blk_co_pwrite_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes, int flags);
int blk_co_pdiscard(BlockBackend *blk, int64_t offset, int64_t bytes);
int blk_co_truncate(BlockBackend *blk, int64_t size_bytes, bool exact, enum bdrv_prealloc prealloc,
                    int flags, Error **errp);
/* Status of the extent that begins at offset; *ret_bytes (1 .. bytes) is its length, BDRV_BLOCK_*
 * are returned (or -errno). depth (may be NULL): 0 not allocated anywhere, else 1 for this layer,
 * 2 for its backing file, ... [co] */
int blk_co_block_status(BlockBackend *blk, int64_t offset, int64_t bytes, int64_t *ret_bytes,
                        int64_t *ret_map, int *ret_depth);
/* The same, and the node whose bytes ret_map speaks of (borrowed until the graph changes; NULL
 * where there is no map). [co], control thread */
int blk_co_block_status_file(BlockBackend *blk, int64_t offset, int64_t bytes, int64_t *ret_bytes,
                             int64_t *ret_map, int *ret_depth, BlockDriverState **ret_file);
/* Copy inside the storage where it can; -ENOTSUP where it cannot. [co] */
int blk_co_copy_range(BlockBackend *src, int64_t src_offset, BlockBackend *dst, int64_t dst_offset,
                      int64_t bytes, int read_flags, int write_flags);

/* Callback style: a handle, or NULL when its own allocation failed (then no callback runs). The
 * callback never runs before the call has returned, and runs once, in the submitter's context. iov
 * (the struct and its array) is borrowed until then. [any]
 * The callback runs in the loop, outside any coroutine, and the request is in flight until it
 * returns: it may submit more, but makes no [control] call and no blocking one to the same
 * backend, which a drain would let wait for itself; a bottom half may. */
BlockAIOCB *blk_aio_preadv(BlockBackend *blk, int64_t offset, const struct iov_view *iov, int flags,
                           BlockCompletionFunc *cb, void *opaque);
BlockAIOCB *blk_aio_pwritev(BlockBackend *blk, int64_t offset, const struct iov_view *iov,
                            int flags, BlockCompletionFunc *cb, void *opaque);
BlockAIOCB *blk_aio_pwrite_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes, int flags,
                                  BlockCompletionFunc *cb, void *opaque);
BlockAIOCB *blk_aio_pdiscard(BlockBackend *blk, int64_t offset, int64_t bytes,
                             BlockCompletionFunc *cb, void *opaque);

/* ---- 2.7 the seed's synchronous calls ---- */
int blk_read(BlockBackend *blk, int64_t sector_num, uint8_t *buf, int nb_sectors);
int blk_read_unthrottled(BlockBackend *blk, int64_t sector_num, uint8_t *buf, int nb_sectors);
int blk_write(BlockBackend *blk, int64_t sector_num, const uint8_t *buf, int nb_sectors);
int blk_write_zeroes(BlockBackend *blk, int64_t sector_num, int nb_sectors, int flags);
int blk_pread(BlockBackend *blk, int64_t offset, void *buf, int count);        /* byte count */
int blk_pwrite(BlockBackend *blk, int64_t offset, const void *buf, int count); /* byte count */

/* ---- 2.8 the seed's asynchronous calls ---- */
BlockAIOCB *blk_aio_write_zeroes(BlockBackend *blk, int64_t sector_num, int nb_sectors, int flags,
                                 BlockCompletionFunc *cb, void *opaque);
BlockAIOCB *blk_aio_readv(BlockBackend *blk, int64_t sector_num, const struct iov_view *iov,
                          int nb_sectors, BlockCompletionFunc *cb, void *opaque);
BlockAIOCB *blk_aio_writev(BlockBackend *blk, int64_t sector_num, const struct iov_view *iov,
                           int nb_sectors, BlockCompletionFunc *cb, void *opaque);
BlockAIOCB *blk_aio_flush(BlockBackend *blk, BlockCompletionFunc *cb, void *opaque);
BlockAIOCB *blk_aio_discard(BlockBackend *blk, int64_t sector_num, int nb_sectors,
                            BlockCompletionFunc *cb, void *opaque);
BlockAIOCB *blk_aio_ioctl(BlockBackend *blk, unsigned long req, void *buf, BlockCompletionFunc *cb,
                          void *opaque);
void blk_aio_cancel(BlockAIOCB *acb);       /* submitter's thread, not in a coroutine */
void blk_aio_cancel_async(BlockAIOCB *acb); /* submitter's thread */

/* A request kind of the caller's own. size >= sizeof(struct BlockAIOCB). */
typedef struct AIOCBInfo {
    void (*cancel_async)(BlockAIOCB *acb);
    AioContext *(*get_aio_context)(BlockAIOCB *acb);
    size_t aiocb_size;
} AIOCBInfo;
struct BlockAIOCB {
    const AIOCBInfo *aiocb_info;
    BlockBackend *blk;
    BlockCompletionFunc *cb;
    void *opaque;
    int refcnt;
};
void *blk_aio_get(const AIOCBInfo *info, BlockBackend *blk, BlockCompletionFunc *cb, void *opaque);
void blk_aio_unref(void *acb);

/* ---- 2.9 coroutine calls of the seed ---- [co] */
int blk_co_discard(BlockBackend *blk, int64_t sector_num, int nb_sectors);
int blk_co_flush(BlockBackend *blk);
int blk_co_write_zeroes(BlockBackend *blk, int64_t sector_num, int nb_sectors, int flags);
int blk_co_ioctl(BlockBackend *blk, unsigned long req, void *buf);

/* ---- 2.10 ---- */
int blk_flush(BlockBackend *blk);
int blk_flush_all(Platter *pl); /* [control] */
int blk_discard(BlockBackend *blk, int64_t sector_num, int nb_sectors);
int blk_ioctl(BlockBackend *blk, unsigned long req, void *buf);
int blk_write_compressed(BlockBackend *blk, int64_t sector_num, const uint8_t *buf, int nb_sectors);
int blk_truncate(BlockBackend *blk, int64_t offset);
int blk_resize(BlockBackend *blk, int64_t size_bytes, bool exact, enum bdrv_prealloc prealloc,
               Error **errp);
/* The machine's state beside the disk, size bytes at pos of it. size, or -errno: -EINVAL (negative
 * numbers), -ENOMEDIUM, -ENOTSUP (the format has no room for it), -EPERM. */
int blk_save_vmstate(BlockBackend *blk, const uint8_t *buf, int64_t pos, int size);
int blk_load_vmstate(BlockBackend *blk, uint8_t *buf, int64_t pos, int size);
/* Wait until nothing is in flight; what comes meanwhile waits. Requests that the control thread
 * itself makes with the blocking calls go through while a node is drained. [control] */
void blk_drain(BlockBackend *blk);
void blk_drain_all(Platter *pl); /* [control] */

/* ---- 2.12 size, geometry, limits, memory ---- [any] */
int64_t blk_getlength(BlockBackend *blk);
void blk_get_geometry(BlockBackend *blk, uint64_t *nb_sectors_ptr);
int64_t blk_nb_sectors(BlockBackend *blk);
int blk_probe_blocksizes(BlockBackend *blk, struct bdrv_block_sizes *ret_sizes); /* [control] */
int blk_probe_geometry(BlockBackend *blk, struct bdrv_geometry *ret_geo);        /* [control] */
int blk_get_max_transfer_length(BlockBackend *blk); /* sectors; 0: no limit */
uint32_t blk_get_request_alignment(BlockBackend *blk);
void blk_set_guest_block_size(BlockBackend *blk, int align);
int blk_get_guest_block_size(const BlockBackend *blk);
void *blk_blockalign(BlockBackend *blk, size_t size); /* free with blk_blockfree; NULL: no memory */
void blk_blockfree(void *buf);
int blk_is_sg(BlockBackend *blk);

/* ---- 2.13 write cache, read-only, flags ---- [control] */
int blk_enable_write_cache(BlockBackend *blk);
void blk_set_enable_write_cache(BlockBackend *blk, bool wce);
int blk_is_read_only(BlockBackend *blk);
int blk_get_flags(BlockBackend *blk);
/* Settings of the backend that hold for each medium in turn, and may be made while it is empty.
 * Read-only: 0, -EACCES (the node itself is read-only), -EPERM. [control] */
int blk_set_read_only(BlockBackend *blk, bool read_only, Error **errp);
void blk_set_detect_zeroes(BlockBackend *blk, enum bdrv_detect_zeroes detect_zeroes);

/* ---- 2.14 AioContext ---- */
AioContext *blk_get_aio_context(BlockBackend *blk);                   /* [any] */
void blk_set_aio_context(BlockBackend *blk, AioContext *new_context); /* [control] */

/* ---- 2.15 notifiers, 2.16 plug, 2.17 accounting ---- */

/* Told when the home context changes: detach in the old one's name, attached with the new one. Stay
 * over media changes. 0 or -ENOMEM. [control] */
int blk_add_aio_context_notifier(BlockBackend *blk,
                                 void (*attached_aio_context)(AioContext *new_context,
                                                              void *opaque),
                                 void (*detach_aio_context)(void *opaque), void *opaque);
/* The same three; nothing when they are not there. [control] */
void blk_remove_aio_context_notifier(BlockBackend *blk,
                                     void (*attached_aio_context)(AioContext *, void *),
                                     void (*detach_aio_context)(void *), void *opaque);
/* Hold the submissions of this thread's context back, so that a burst goes in one system call;
 * nests. In a thread that runs a context. */
void blk_io_plug(BlockBackend *blk);
void blk_io_unplug(BlockBackend *blk);
BlockAcctStats *blk_get_stats(BlockBackend *blk); /* [any]; valid as long as the backend */

/* ---- 2.18 op blockers ---- [control]; they stay over media changes */

/* errp: which node or device, and the reason. */
bool blk_op_is_blocked(BlockBackend *blk, BlockOpType op, Error **errp);
/* reason is the caller's and names the block; it stays valid while it blocks. 0 or -ENOMEM. */
int blk_op_block(BlockBackend *blk, BlockOpType op, const Error *reason);
void blk_op_unblock(BlockBackend *blk, BlockOpType op, const Error *reason);
int blk_op_block_all(BlockBackend *blk, const Error *reason);
void blk_op_unblock_all(BlockBackend *blk, const Error *reason);

/* ---- 2.19 root state, throttle groups ---- [control] */

typedef struct BlockBackendRootState {
    int open_flags;
    bool read_only;
    enum bdrv_detect_zeroes detect_zeroes;
    const char *throttle_group; /* borrowed; NULL: none */
} BlockBackendRootState;
/* Remember the medium's settings; there is one. (blk_remove_bs does.) */
void blk_update_root_state(BlockBackend *blk);
BlockBackendRootState *blk_get_root_state(BlockBackend *blk); /* the backend's */

/* Member of the group of that name from now on, and over media changes; made when it is not there.
 * Those that wait in another group go through. 0 or -ENOMEM. */
int blk_io_limits_enable(BlockBackend *blk, const char *group_name, Error **errp);
void blk_io_limits_disable(BlockBackend *blk);
/* Limits of its group. 0 or -EINVAL. */
int blk_set_io_limits(BlockBackend *blk, const struct throttle_config *config, Error **errp);
ThrottleGroup *blk_get_throttle_group(BlockBackend *blk); /* borrowed; NULL: none */

/* ---- 2.11 ---- */

/* One write of a batch. error is set to 0, or -errno when its callback will not run. */
typedef struct BlockRequest {
    int64_t sector;
    int nb_sectors;
    int flags;
    const struct iov_view *iov; /* borrowed until its callback */
    BlockCompletionFunc *cb;
    void *opaque;
    int error;
} BlockRequest;
/* Submit writes as a batch: sorted, those that touch or overlap merged (of two that overlap, the
 * later in the list wins). Every element is checked before any is submitted: the first bad one's
 * errno is returned, and no callback runs. -1: some could not be submitted; their error says why.
 * reqs is the caller's again on return. 0 for none. In a thread that runs a context. */
int blk_aio_multiwrite(BlockBackend *blk, BlockRequest *reqs, int num_reqs);

/* In-flight bracket for work that a drain must wait for. Nothing in the bracket waits for a request
 * to the same backend: that would wait for the end of the drain. [any] */
void blk_inc_in_flight(BlockBackend *blk);
void blk_dec_in_flight(BlockBackend *blk);
Platter *blk_get_platter(BlockBackend *blk);

/* Told when a medium comes or goes. Notifiers are owned by the caller and stay on the backend over
 * media changes. [control] */
typedef struct BlkNotifier {
    void (*notify)(struct BlkNotifier *n, BlockBackend *blk);
    struct BlkNotifier *next, **link; /* ours */
} BlkNotifier;
void blk_add_insert_bs_notifier(BlockBackend *blk, BlkNotifier *n);
void blk_add_remove_bs_notifier(BlockBackend *blk, BlkNotifier *n);
/* After the medium was closed for this backend. */
void blk_add_close_notifier(BlockBackend *blk, BlkNotifier *n);
void blk_notifier_remove(BlkNotifier *n);

#ifdef __cplusplus
}
#endif
#endif
