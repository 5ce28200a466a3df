/* SPDX-License-Identifier: MIT */
/* query-named-block-nodes and query-block. */
#include <errno.h>
#include <string.h>

#include <platter/bitmap.h>
#include <platter/image.h>

#include "block/node.h"
#include "control/control.h"
#include "control/image_info.h"
#include "schema/qmp.h"
#include "util/error.h"
#include "util/json.h"

#define DEPTH_MAX 64 /* backing images shown inside each other */

static const struct {
    const char *name; /* of the limit, as QMP writes it here */
    enum throttle_bucket_id id;
} buckets[THROTTLE_BUCKETS] = {
    {"bps", THROTTLE_BPS_TOTAL},  {"bps_rd", THROTTLE_BPS_READ},  {"bps_wr", THROTTLE_BPS_WRITE},
    {"iops", THROTTLE_OPS_TOTAL}, {"iops_rd", THROTTLE_OPS_READ}, {"iops_wr", THROTTLE_OPS_WRITE},
};

/* Limits of a backend; a node by itself has none. group NULL: none. */
static void add_limits(json_t *object, ThrottleGroup *group, int *ret)
{
    struct throttle_config config = {.size = sizeof(config)};
    char key[32];

    if (group) {
        throttle_group_get_config(group, &config);
    }
    for (size_t i = 0; i < THROTTLE_BUCKETS; i++) {
        const struct throttle_limit *limit = &config.limits[buckets[i].id];

        json_add(object, buckets[i].name, json_u64(limit->avg), ret);
        if (limit->max) {
            snprintf(key, sizeof(key), "%s_max", buckets[i].name);
            json_add(object, key, json_u64(limit->max), ret);
            snprintf(key, sizeof(key), "%s_max_length", buckets[i].name);
            json_add(object, key, json_u64(limit->max_length_s), ret);
        }
    }
    if (group) {
        json_add(object, "group", json_text(throttle_group_name(group)), ret);
    }
    if (config.ops_unit_bytes) {
        json_add(object, "iops_size", json_u64(config.ops_unit_bytes), ret);
    }
}

static json_t *bitmap_json(BdrvDirtyBitmap *bitmap)
{
    struct bdrv_bitmap_info info;
    json_t *object = json_object();
    int ret = object ? 0 : -ENOMEM;

    bdrv_bitmap_get_info(bitmap, &info);
    if (info.name) {
        json_add(object, "name", json_text(info.name), &ret);
    }
    json_add(object, "count", json_u64(info.dirty_bytes), &ret);
    json_add(object, "granularity", json_u64(info.granularity_bytes), &ret);
    json_add(object, "recording", json_boolean(info.recording), &ret);
    json_add(object, "busy", json_boolean(info.busy), &ret);
    json_add(object, "persistent", json_boolean(info.persistent), &ret);
    if (info.inconsistent) {
        json_add(object, "inconsistent", json_true(), &ret);
    }
    return json_whole(object, ret);
}

static void add_bitmaps(json_t *object, BlockDriverState *bs, int *ret)
{
    BdrvDirtyBitmap *bitmap = bdrv_bitmap_next(bs, NULL);
    json_t *list;

    if (!bitmap) {
        return;
    }
    list = json_array();
    for (; bitmap; bitmap = bdrv_bitmap_next(bs, bitmap)) {
        if (json_array_insert_new(list, 0, bitmap_json(bitmap)) < 0) { /* newest first */
            *ret = -ENOMEM;
        }
    }
    json_add(object, "dirty-bitmaps", list, ret);
}

/* What clients are told as the backing image: also the node below a filter. NULL: there is none. */
static BlockDriverState *next_below(BlockDriverState *bs)
{
    BdrvEdge *below = bs->caps & BDRV_CAP_FILTER ? bdrv_primary_child(bs) : NULL;

    return below ? below->bs : bdrv_get_child(bs, "backing");
}

/* The image of bs, its backing images inside it unless flat. NULL: no memory. */
static json_t *image_json(BlockDriverState *bs, bool flat, int depth)
{
    BlockDriverState *backing = flat || depth == DEPTH_MAX ? NULL : next_below(bs);
    struct image_facts facts;
    json_t *object;
    int ret;

    if (image_facts_get(&facts, bs, NULL) < 0) {
        image_facts_fini(&facts);
        return NULL;
    }
    facts.disk_bytes = image_whole_sectors(facts.disk_bytes < 0 ? 0 : facts.disk_bytes);
    object = image_facts_json(&facts);
    ret = object ? 0 : -ENOMEM;
    if (backing) {
        json_add(object, "backing-image", image_json(backing, false, depth + 1), &ret);
    }
    image_facts_fini(&facts);
    return json_whole(object, ret);
}

static int backing_depth(BlockDriverState *bs)
{
    int depth = 0;

    while ((bs = next_below(bs)) != NULL) {
        depth++;
    }
    return depth;
}

static json_t *cache_json(BlockDriverState *bs, bool writeback)
{
    int flags = bdrv_get_flags(bs);

    return json_pack("{s:b, s:b, s:b}", "no-flush", (flags & BDRV_O_NO_FLUSH) != 0, "direct",
                     (flags & BDRV_O_NOCACHE) != 0, "writeback", writeback);
}

/* As BlockDeviceInfo. blk NULL: a node by itself. */
static json_t *node_json(BlockDriverState *bs, BlockBackend *blk, bool flat)
{
    static const char *const detect[] = {"off", "on", "unmap"};
    BlockDriverState *backing = bdrv_get_child(bs, "backing");
    json_t *object = json_object();
    int ret = object ? 0 : -ENOMEM;

    add_limits(object, blk ? blk_get_throttle_group(blk) : NULL, &ret);
    json_add(object, "detect_zeroes", json_string(detect[bs->detect_zeroes]), &ret);
    json_add(object, "image", image_json(bs, flat, 0), &ret);
    json_add(object, "ro", json_boolean(bdrv_is_read_only(bs)), &ret);
    json_add(object, "node-name", json_text(bdrv_get_node_name(bs)), &ret);
    json_add(object, "backing_file_depth", json_integer(flat ? 0 : backing_depth(bs)), &ret);
    json_add(object, "drv", json_string(bdrv_get_format_name(bs)), &ret);
    if (backing) { /* before write_threshold, whose bucket it shares */
        json_add(object, "backing_file", json_text(bdrv_get_filename(backing)), &ret);
    }
    json_add(object, "write_threshold", json_u64(bdrv_get_write_threshold(bs)), &ret);
    json_add(object, "encrypted", json_false(), &ret);
    json_add(object, "cache", cache_json(bs, !blk || blk_enable_write_cache(blk)), &ret);
    json_add(object, "file", json_text(bdrv_get_filename(bs)), &ret);
    add_bitmaps(object, bs, &ret);
    return json_whole(object, ret);
}

int qmp_query_named_block_nodes(struct qmp_call *call,
                                const struct qmp_query_named_block_nodes *args, json_t **ret_value,
                                Error **errp)
{
    json_t *list = json_array();
    BlockDriverState *bs = NULL;
    int ret = list ? 0 : -ENOMEM;

    while ((bs = bdrv_next_node(call->control->pl, bs)) != NULL) {
        json_t *node = node_json(bs, NULL, args->has_flat && args->flat);

        if (json_array_insert_new(list, 0, node) < 0) { /* newest first */
            ret = -ENOMEM;
        }
    }
    return qmp_give(json_whole(list, ret), ret_value, errp);
}

static json_t *backend_json(BlockBackend *blk)
{
    static const char *const iostatus[] = {"ok", "failed", "nospace"};
    bool removable = blk_dev_has_removable_media(blk);
    json_t *object = json_object();
    int ret = object ? 0 : -ENOMEM;

    json_add(object, "device", json_text(blk_name(blk)), &ret);
    json_add(object, "type", json_string("unknown"), &ret);
    json_add(object, "removable", json_boolean(removable), &ret);
    json_add(object, "locked", json_boolean(blk_dev_is_medium_locked(blk)), &ret);
    if (removable) {
        json_add(object, "tray_open", json_boolean(blk_dev_is_tray_open(blk)), &ret);
    }
    if (blk_iostatus_is_enabled(blk)) {
        json_add(object, "io-status", json_string(iostatus[blk_iostatus(blk)]), &ret);
    }
    if (blk_bs(blk)) {
        json_add(object, "inserted", node_json(blk_bs(blk), blk, false), &ret);
    }
    return json_whole(object, ret);
}

int qmp_query_block(struct qmp_call *call, json_t **ret_value, Error **errp)
{
    json_t *list = json_array();
    BlockBackend *blk = NULL;
    int ret = list ? 0 : -ENOMEM;

    while ((blk = blk_next(call->control->pl, blk)) != NULL) {
        json_append(list, backend_json(blk), &ret);
    }
    return qmp_give(json_whole(list, ret), ret_value, errp);
}
