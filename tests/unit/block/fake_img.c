/* SPDX-License-Identifier: MIT */
/* "img": a format that can do everything to an image, and says what was asked of it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fake_int.h"

#include "schema/opts.h"
#include "util/error.h"
#include "util/options.h"

static int image_did(BlockDriverState *bs, Error **errp, const char *fmt, ...)
{
    va_list ap;

    assert_true(bs->held && bs->quiesce_count > 0);
    assert_true(in_coroutine());
    va_start(ap, fmt);
    vsnprintf(fake.image_done, sizeof(fake.image_done), fmt, ap);
    va_end(ap);
    if (fake.on_image != NULL) {
        fake.on_image(bs);
    }
    if (fake.image_error != NULL) {
        error_set(errp, -fake.image_result, "%s", fake.image_error);
    }
    return fake.image_result;
}

static int img_check_co(BlockDriverState *bs, const struct bdrv_check_options *options,
                        struct bdrv_check_result *ret_result, Error **errp)
{
    ret_result->leaks = 7;
    return image_did(bs, errp, "check %u %s", options->fix, options->opaque != NULL ? "x" : "-");
}

static int img_amend_co(BlockDriverState *bs, BlockOptions *options, bool force,
                        const struct bdrv_progress *progress, Error **errp)
{
    int rc = image_did(bs, errp, "amend %s %d", block_options_get_str(options, "colour"), force);

    block_options_del(options, "colour");
    return rc;
}

static int img_change_backing_co(BlockDriverState *bs, const char *file, const char *format,
                                 Error **errp)
{
    return image_did(bs, errp, "backing %s %s", file != NULL ? file : "-",
                     format != NULL ? format : "-");
}

static int img_make_empty_co(BlockDriverState *bs, Error **errp)
{
    return image_did(bs, errp, "empty");
}

static int img_measure(Platter *pl, BlockOptions *options, BlockDriverState *source,
                       struct bdrv_measure_result *ret_result, Error **errp)
{
    struct bdrv_status st;

    block_options_del(options, "colour");
    ret_result->required_bytes = 1;
    if (source != NULL) {
        assert_true(source->quiesce_count > 0);
        assert_int_equal(bdrv_measure_status(source, 0, 64, &st), 0);
        ret_result->required_bytes = st.bytes;
    }
    return fake.image_result;
}

static json_t *img_specific_info(BlockDriverState *bs)
{
    return fake.image_result < 0 ? NULL : json_pack("{s:i}", "depth", 3);
}

static json_t *img_inspect(BdrvEdge *file, Error **errp)
{
    uint8_t head[4];

    assert_int_equal(bdrv_edge_pread(file, 0, head, sizeof(head)), 0);
    assert_true(bdrv_edge_node(file)->read_only);
    if (fake.image_result < 0) {
        error_set(errp, -fake.image_result, "the header is rotten");
        return NULL;
    }
    return json_pack("{s:i}", "first", head[0]);
}

static const struct opts_key img_amend_keys[] = {{.key = "colour"}, {.key = "taste"}, {0}};

static const struct bdrv_image_ops img_image_ops = {
    .check_co = img_check_co,
    .amend_co = img_amend_co,
    .change_backing_file_co = img_change_backing_co,
    .make_empty_co = img_make_empty_co,
    .measure = img_measure,
    .specific_info = img_specific_info,
    .inspect = img_inspect,
    .amend_keys = img_amend_keys,
};

static int img_create_co(BlockDriverState *bs, const struct bdrv_snapshot_info *info, Error **errp)
{
    return image_did(bs, errp, "create %s", info->name);
}

static int img_apply_co(BlockDriverState *bs, const char *id_or_name, Error **errp)
{
    return image_did(bs, errp, "apply %s", id_or_name);
}

static int img_delete_co(BlockDriverState *bs, const char *id, const char *name, Error **errp)
{
    return image_did(bs, errp, "delete %s %s", id != NULL ? id : "-", name != NULL ? name : "-");
}

static int img_list(BlockDriverState *bs, struct bdrv_snapshot_list *ret_list, Error **errp)
{
    ret_list->snapshots = calloc(2, sizeof(ret_list->snapshots[0]));
    ret_list->count = 2;
    ret_list->snapshots[0].id = strdup("1");
    ret_list->snapshots[0].name = strdup("one");
    return image_did(bs, errp, "list");
}

static int img_load_tmp_co(BlockDriverState *bs, const char *id, const char *name, Error **errp)
{
    return image_did(bs, errp, "show %s %s", id != NULL ? id : "-", name != NULL ? name : "-");
}

static const struct bdrv_snapshot_ops img_snapshot_ops = {
    .create_co = img_create_co,
    .apply_co = img_apply_co,
    .delete_co = img_delete_co,
    .list = img_list,
    .load_tmp_co = img_load_tmp_co,
};

static bool img_bitmaps_supported(const BlockDriverState *bs)
{
    return true;
}

static int img_can_store(BlockDriverState *bs, const char *name, uint64_t granularity_bytes,
                         Error **errp)
{
    return granularity_bytes > 4096 ? error_set(errp, EINVAL, "too coarse") : 0;
}

static int img_can_resize(BlockDriverState *bs, uint64_t disk_bytes, Error **errp)
{
    return fake.resize_error < 0 ? error_set(errp, -fake.resize_error, "too large") : 0;
}

static int img_flag_co(BlockDriverState *bs, bool all)
{
    BdrvDirtyBitmap *bitmap = NULL;

    fake.flags++;
    while (fake.flag_error == 0 && (bitmap = bdrv_bitmap_next(bs, bitmap)) != NULL) {
        unsigned state = bdrv_bitmap_state(bitmap);

        if ((state & BDRV_BITMAP_STATE_STORED) && (all || (state & BDRV_BITMAP_STATE_RECORDING))) {
            bdrv_bitmap_set_in_use(bitmap);
        }
    }
    return fake.flag_error;
}

static int img_store_co(BlockDriverState *bs, Error **errp)
{
    BdrvDirtyBitmap *bitmap = NULL;
    int rc = image_did(bs, errp, "store");

    while (rc == 0 && (bitmap = bdrv_bitmap_next(bs, bitmap)) != NULL) {
        if (bdrv_bitmap_state(bitmap) & BDRV_BITMAP_STATE_PERSISTENT) {
            bdrv_bitmap_set_stored(bitmap);
        }
    }
    return rc;
}

static int img_remove_co(BlockDriverState *bs, const BdrvDirtyBitmap *bitmap, Error **errp)
{
    struct bdrv_bitmap_info info;

    bdrv_bitmap_get_info(bitmap, &info);
    return image_did(bs, errp, "remove %s", info.name);
}

static const struct bdrv_bitmap_ops img_bitmap_ops = {
    .supported = img_bitmaps_supported,
    .can_store = img_can_store,
    .can_resize = img_can_resize,
    .flag_co = img_flag_co,
    .store_co = img_store_co,
    .remove_co = img_remove_co,
};

static int img_truncate_co(BlockDriverState *bs, uint64_t size_bytes, bool exact,
                           enum bdrv_prealloc prealloc, unsigned flags, Error **errp)
{
    fake.size = (int64_t)size_bytes;
    return 0;
}

static int img_open(BlockDriverState *bs, BlockOptions *options, int flags, Error **errp)
{
    int rc = fake_one_child_open(bs, options, BDRV_ROLE_DATA | BDRV_ROLE_METADATA, errp);
    char name[16];

    for (unsigned i = 0; rc == 0 && i < fake.stored_bitmaps; i++) {
        snprintf(name, sizeof(name), "b%u", i);
        if (bdrv_bitmap_load(bs, name, 9, fake.stored_state, errp) == NULL) {
            return -ENOMEM;
        }
    }
    return rc;
}

static int img_probe(const uint8_t *buf, size_t len, const char *filename)
{
    return len >= 4 && memcmp(buf, "IMG!", 4) == 0 ? 100 : 0;
}

static int img_flush_co(BlockDriverState *bs)
{
    return bdrv_edge_flush_co(bdrv_primary_child(bs));
}

const BlockDriver bdrv_fake_img = {
    .format_name = "img",
    .caps = BDRV_CAP_FORMAT,
    .probe = img_probe,
    .open = img_open,
    .close = fake_close,
    .read_co = fake_forward_co,
    .write_co = fake_forward_co,
    .flush_co = img_flush_co,
    .truncate_co = img_truncate_co,
    .getlength = fake_getlength,
    .create_keys = img_amend_keys,
    .image = &img_image_ops,
    .snapshot = &img_snapshot_ops,
    .bitmap = &img_bitmap_ops,
};
