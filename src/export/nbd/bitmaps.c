/* SPDX-License-Identifier: MIT */
/*
 * The dirty bitmaps of an export: found when it begins, busy and their nodes kept until it ends.
 * Clients read them in status.c.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/driver.h"
#include "block/node.h"
#include "export/nbd/internal.h"
#include "util/error.h"

#define CONTEXT_PREFIX "qemu:dirty-bitmap:"

/* What shows through bs where it says nothing of its own: its backing file, or what it filters. */
static BlockDriverState *below(const BlockDriverState *bs)
{
    BlockDriverState *backing = bdrv_get_child(bs, "backing");
    BdrvEdge *file = bdrv_primary_child(bs);

    if (backing != NULL) {
        return backing;
    }
    return (bs->caps & BDRV_CAP_FILTER) && file != NULL ? file->bs : NULL;
}

static BdrvDirtyBitmap *find(BlockDriverState *disk, const struct nbd_export_bitmap *wish,
                             BlockDriverState **ret_node)
{
    BlockDriverState *bs = wish->node != NULL ? wish->node : disk;
    BdrvDirtyBitmap *bitmap = bdrv_bitmap_find(bs, wish->name);

    while (bitmap == NULL && wish->node == NULL && (bs = below(bs)) != NULL) {
        bitmap = bdrv_bitmap_find(bs, wish->name);
    }
    *ret_node = bs;
    return bitmap;
}

static int check(const struct nbd_export *export, const char *name, BlockDriverState *node,
                 const BdrvDirtyBitmap *bitmap, Error **errp)
{
    struct bdrv_bitmap_info info;

    bdrv_bitmap_get_info(bitmap, &info);
    if (info.inconsistent) {
        return error_set(errp, EINVAL, "Bitmap '%s' is inconsistent and cannot be used", name);
    }
    if (!export->writable && info.recording && !bdrv_is_read_only(node)) {
        return error_set(errp, EINVAL, "Enabled bitmap '%s' incompatible with readonly export",
                         name);
    }
    return info.busy ? error_set(errp, EBUSY,
                                 "Bitmap '%s' is currently in use by another operation and cannot "
                                 "be used",
                                 name)
                     : 0;
}

static int add(struct nbd_export *export, const struct nbd_export_bitmap *wish, Error **errp)
{
    struct nbd_bitmap *one = &export->bitmaps[export->bitmap_count];
    BlockDriverState *node;
    BdrvDirtyBitmap *bitmap;
    int rc;

    if (strlen(wish->name) > BDRV_BITMAP_NAME_BYTES_MAX) {
        return error_set(errp, EINVAL, "Bitmap name is longer than %d bytes",
                         BDRV_BITMAP_NAME_BYTES_MAX);
    }
    bitmap = find(blk_bs(export->blk), wish, &node);
    if (bitmap == NULL) {
        return error_set(errp, ENOENT, "Bitmap '%s' is not found", wish->name);
    }
    rc = check(export, wish->name, node, bitmap, errp);
    if (rc < 0) {
        return rc;
    }
    if (asprintf(&one->context, CONTEXT_PREFIX "%s", wish->name) < 0) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    bdrv_ref(node);
    one->node = node;
    one->bitmap = bitmap;
    export->bitmap_count++;
    return 0;
}

static void let_go(struct nbd_export *export)
{
    for (unsigned i = 0; i < export->bitmap_count; i++) {
        bdrv_unref(export->bitmaps[i].node);
        free(export->bitmaps[i].context);
    }
    free(export->bitmaps);
    export->bitmaps = NULL;
    export->bitmap_count = 0;
}

int nbd_export_bitmaps_begin(struct nbd_export *export, const struct nbd_export_options *opts,
                             Error **errp)
{
    int rc = 0;

    if (opts->bitmap_count > NBD_MAX_EXPORT_BITMAPS) {
        return error_set(errp, E2BIG, "an export has at most %d bitmaps, not %u",
                         NBD_MAX_EXPORT_BITMAPS, opts->bitmap_count);
    }
    if (opts->bitmap_count == 0) {
        return 0;
    }
    export->bitmaps = calloc(opts->bitmap_count, sizeof(*export->bitmaps));
    if (export->bitmaps == NULL) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    for (unsigned i = 0; i < opts->bitmap_count && rc == 0; i++) {
        rc = add(export, &opts->bitmaps[i], errp);
    }
    if (rc < 0) {
        let_go(export);
        return rc;
    }
    for (unsigned i = 0; i < export->bitmap_count; i++) {
        bdrv_bitmap_set_busy(export->bitmaps[i].bitmap, true);
    }
    return 0;
}

void nbd_export_bitmaps_end(struct nbd_export *export)
{
    for (unsigned i = 0; i < export->bitmap_count; i++) {
        bdrv_bitmap_set_busy(export->bitmaps[i].bitmap, false);
    }
    let_go(export);
}
