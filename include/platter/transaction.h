/* SPDX-License-Identifier: MIT */
/*
 * Several changes that are one: overlays, filters, internal snapshots and dirty bitmaps, all of
 * them or none. Actions are done in the order they were added, each sees what those before it did;
 * when one fails those are taken back in reverse order, exactly: a bitmap has the bits it had, the
 * graph the links it had. The nodes concerned are drained from before the first to after the last,
 * so the disks are seen at one point in time.
 *
 * [control]. What an action names must stay until the transaction has ended; nodes are referenced
 * by it, names are copied. Adding cannot fail: out of memory is told by bdrv_transaction_run.
 */
#ifndef PLATTER_TRANSACTION_H
#define PLATTER_TRANSACTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <platter/bitmap.h>
#include <platter/graph.h>
#include <platter/image.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct BdrvTransaction BdrvTransaction;

/* NULL: no memory; the calls below then do nothing, and run says so. */
BdrvTransaction *bdrv_transaction_new(Platter *pl);

/* As the calls of platter/graph.h. */
void bdrv_transaction_append(BdrvTransaction *t, BlockDriverState *overlay, BlockDriverState *bs);
void bdrv_transaction_insert_node(BdrvTransaction *t, BlockDriverState *filter,
                                  BlockDriverState *bs);
void bdrv_transaction_remove_filter(BdrvTransaction *t, BlockDriverState *filter);
void bdrv_transaction_replace_node(BdrvTransaction *t, BlockDriverState *from,
                                   BlockDriverState *to);
/* An internal snapshot; name must not be that of another one (-EEXIST). Taken back it is deleted;
 * the file may stay longer. */
void bdrv_transaction_snapshot_create(BdrvTransaction *t, BlockDriverState *bs, const char *name,
                                      const struct bdrv_snapshot_info *info);
/* Cannot be taken back, so it is done after all others, and a transaction takes one of them
 * (-EINVAL). -ENOENT is told before anything is done. */
void bdrv_transaction_snapshot_delete(BdrvTransaction *t, BlockDriverState *bs, const char *id,
                                      const char *name);
/* As the calls of platter/bitmap.h; -ENOENT when bs has no bitmap of that name. */
void bdrv_transaction_bitmap_add(BdrvTransaction *t, BlockDriverState *bs, const char *name,
                                 uint64_t granularity_bytes, unsigned flags);
void bdrv_transaction_bitmap_clear(BdrvTransaction *t, BlockDriverState *bs, const char *name);
void bdrv_transaction_bitmap_enable(BdrvTransaction *t, BlockDriverState *bs, const char *name,
                                    bool enable);
void bdrv_transaction_bitmap_merge(BdrvTransaction *t, BlockDriverState *bs, const char *target,
                                   BlockDriverState *source_bs, const char *source);

/* Actions of the caller's own. prepare does it: 0, or -errno with errp and nothing to take back.
 * Then one of commit and abort follows. clean (may be NULL) ends opaque, whatever happened, also
 * when nothing did. */
struct bdrv_action_ops {
    int (*prepare)(void *opaque, Error **errp);
    void (*commit)(void *opaque); /* NULL: nothing is left to do */
    void (*abort)(void *opaque);  /* NULL: there is nothing to take back */
    void (*clean)(void *opaque);
};
/* bs (may be NULL) is drained with the others. ops is borrowed. */
void bdrv_transaction_add(BdrvTransaction *t, BlockDriverState *bs,
                          const struct bdrv_action_ops *ops, void *opaque);

/* Do it, and end t. 0, or -errno with errp: what the first action that failed said. Where taking
 * back failed too (the storage does not do what it did before), its hint says so. */
int bdrv_transaction_run(BdrvTransaction *t, Error **errp);
/* End t without doing anything. NULL allowed. */
void bdrv_transaction_free(BdrvTransaction *t);

#ifdef __cplusplus
}
#endif
#endif
