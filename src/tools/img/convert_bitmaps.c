/* SPDX-License-Identifier: MIT */
/* platter convert --bitmaps: the persistent bitmaps of the source enter the target, too. */
#include <platter/bitmap.h>

#include "block/driver.h"
#include "tools/img/convert_int.h"

static BdrvDirtyBitmap *next_persistent(BlockDriverState *bs, BdrvDirtyBitmap *bitmap,
                                        struct bdrv_bitmap_info *ret_info)
{
    while ((bitmap = bdrv_bitmap_next(bs, bitmap)) != NULL) {
        bdrv_bitmap_get_info(bitmap, ret_info);
        if (ret_info->persistent && ret_info->name) {
            break;
        }
    }
    return bitmap;
}

int convert_bitmaps_check(struct convert_run *run)
{
    BlockDriverState *bs = blk_bs(run->sources[0].blk);
    BdrvDirtyBitmap *bitmap = NULL;
    struct bdrv_bitmap_info info;

    if (run->sources_count > 1) {
        return cli_error(run->cli, "Copying bitmaps only possible with single source");
    }
    if (!bdrv_stores_bitmaps(bs)) {
        return cli_error(run->cli, "Source lacks bitmap support");
    }
    while (!run->args->skip_broken_bitmaps &&
           (bitmap = next_persistent(bs, bitmap, &info)) != NULL) {
        if (info.inconsistent) {
            cli_error(run->cli, "Cannot copy inconsistent bitmap '%s'", info.name);
            cli_put_line(run->cli->err,
                         "Try --skip-broken-bitmaps, or use '%s bitmap --remove' to delete it",
                         run->cli->program->name);
            return CLI_EXIT_FAILED;
        }
    }
    return CLI_EXIT_OK;
}

static int copy_one(struct convert_run *run, const BdrvDirtyBitmap *from,
                    const struct bdrv_bitmap_info *info)
{
    BlockDriverState *bs = blk_bs(run->target);
    unsigned flags = BDRV_BITMAP_PERSISTENT | (info->recording ? 0 : BDRV_BITMAP_DISABLED);
    Error *err = NULL;
    BdrvDirtyBitmap *to = bdrv_bitmap_create(bs, info->name, info->granularity_bytes, flags, &err);

    if (!to) {
        cli_error(run->cli, "Failed to create bitmap %s: %s", info->name, error_get_pretty(err));
        error_free(err);
        return CLI_EXIT_FAILED;
    }
    if (bdrv_bitmap_merge(to, from, &err) < 0) {
        cli_error(run->cli, "Failed to populate bitmap %s: %s", info->name, error_get_pretty(err));
        error_free(err);
        (void)bdrv_bitmap_remove(to, NULL);
        return CLI_EXIT_FAILED;
    }
    return CLI_EXIT_OK;
}

int convert_bitmaps_copy(struct convert_run *run)
{
    BdrvDirtyBitmap *bitmap = NULL;
    struct bdrv_bitmap_info info;
    Error *err = NULL;
    int code = CLI_EXIT_OK;

    while (code == CLI_EXIT_OK &&
           (bitmap = next_persistent(blk_bs(run->sources[0].blk), bitmap, &info)) != NULL) {
        if (info.inconsistent) {
            cli_warning(run->cli, "Skipping inconsistent bitmap '%s'", info.name);
        } else {
            code = copy_one(run, bitmap, &info);
        }
    }
    if (code == CLI_EXIT_OK && bdrv_bitmaps_store(blk_bs(run->target), &err) < 0) {
        code = cli_report(run->cli, err);
    }
    return code;
}
