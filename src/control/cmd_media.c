/* SPDX-License-Identifier: MIT */
/* Trays and media of backends, and their limits. */
#include <errno.h>
#include <string.h>

#include "control/control.h"
#include "schema/qmp.h"
#include "util/error.h"

/* Backends by either member; the classes of errors are those of a missing device. */
static BlockBackend *find(struct qmp_call *call, bool has_device, const char *device, bool has_id,
                          const char *id, Error **errp)
{
    if (has_device == has_id) {
        error_set(errp, EINVAL, "Need exactly one of 'device' and 'id'");
        return NULL;
    }
    return control_find_backend(call, has_device ? device : id, errp);
}

/* 1: open; 0: it was asked to, and did not open (yet); -errno. */
static int open_tray(BlockBackend *blk, bool force, Error **errp)
{
    bool locked;

    if (!blk_dev_has_removable_media(blk)) {
        return error_set(errp, ENOTSUP, "Device '%s' is not removable", blk_name(blk));
    }
    if (blk_dev_is_tray_open(blk)) {
        return 1;
    }
    locked = blk_dev_is_medium_locked(blk);
    if (locked) {
        blk_dev_eject_request(blk, force);
    }
    if ((!locked || force) && !blk_dev_is_tray_open(blk)) {
        blk_dev_change_media_cb(blk, false);
    }
    return blk_dev_is_tray_open(blk);
}

/* The same, where it must be open to go on. */
static int need_open_tray(BlockBackend *blk, bool force, Error **errp)
{
    int ret = open_tray(blk, force, errp);

    if (ret == 0) {
        return error_set(errp, EBUSY,
                         "Device '%s' is locked and force was not specified, wait for tray to open "
                         "and try again",
                         blk_name(blk));
    }
    return ret < 0 ? ret : 0;
}

static int remove_medium(BlockBackend *blk, Error **errp)
{
    if (blk_dev_has_removable_media(blk) && blk_get_attached_dev(blk) &&
        !blk_dev_is_tray_open(blk)) {
        return error_set(errp, EBUSY, "Tray of device '%s' is not open", blk_name(blk));
    }
    if (!blk_dev_has_removable_media(blk)) {
        return error_set(errp, ENOTSUP, "Device '%s' is not removable", blk_name(blk));
    }
    if (!blk_bs(blk)) {
        return 0;
    }
    if (blk_op_is_blocked(blk, BLOCK_OP_TYPE_EJECT, errp)) {
        return -EBUSY;
    }
    blk_remove_bs(blk);
    return 0;
}

static int insert_medium(BlockBackend *blk, BlockDriverState *bs, Error **errp)
{
    if (!blk_dev_has_removable_media(blk)) {
        return error_set(errp, ENOTSUP, "Device '%s' is not removable", blk_name(blk));
    }
    if (blk_get_attached_dev(blk) && !blk_dev_is_tray_open(blk)) {
        return error_set(errp, EBUSY, "Tray of device '%s' is not open", blk_name(blk));
    }
    if (blk_bs(blk)) {
        return error_set(errp, EBUSY, "There already is a medium in device '%s'", blk_name(blk));
    }
    return blk_insert_bs(blk, bs, errp);
}

int qmp_blockdev_open_tray(struct qmp_call *call, const struct qmp_blockdev_open_tray *args,
                           Error **errp)
{
    BlockBackend *blk = find(call, args->has_device, args->device, args->has_id, args->id, errp);

    return blk ? need_open_tray(blk, args->has_force && args->force, errp) : -ENODEV;
}

int qmp_blockdev_close_tray(struct qmp_call *call, const struct qmp_blockdev_close_tray *args,
                            Error **errp)
{
    BlockBackend *blk = find(call, args->has_device, args->device, args->has_id, args->id, errp);

    if (!blk) {
        return -ENODEV;
    }
    if (!blk_dev_has_removable_media(blk)) {
        return error_set(errp, ENOTSUP, "Device '%s' is not removable", blk_name(blk));
    }
    if (blk_dev_is_tray_open(blk)) {
        blk_dev_change_media_cb(blk, true);
    }
    return 0;
}

int qmp_eject(struct qmp_call *call, const struct qmp_eject *args, Error **errp)
{
    BlockBackend *blk = find(call, args->has_device, args->device, args->has_id, args->id, errp);
    int ret = blk ? need_open_tray(blk, args->has_force && args->force, errp) : -ENODEV;

    return ret < 0 ? ret : remove_medium(blk, errp);
}

int qmp_blockdev_remove_medium(struct qmp_call *call, const struct qmp_blockdev_remove_medium *args,
                               Error **errp)
{
    BlockBackend *blk = control_find_backend(call, args->id, errp);

    return blk ? remove_medium(blk, errp) : -ENODEV;
}

int qmp_blockdev_insert_medium(struct qmp_call *call, const struct qmp_blockdev_insert_medium *args,
                               Error **errp)
{
    BlockBackend *blk = control_find_backend(call, args->id, errp);
    BlockDriverState *bs = blk ? control_find_node(call->control, args->node_name, errp) : NULL;

    return bs ? insert_medium(blk, bs, errp) : -ENODEV;
}

/* ---- change ---- */

static int change_options(BlockBackend *blk, const struct qmp_blockdev_change_medium *args,
                          BlockOptions *options)
{
    const BlockBackendRootState *root = blk_get_root_state(blk);
    bool read_only = blk_bs(blk) ? bdrv_is_read_only(blk_bs(blk)) : root->read_only;

    if (args->has_read_only_mode &&
        args->read_only_mode != QMP_BLOCKDEV_CHANGE_READ_ONLY_MODE_RETAIN) {
        read_only = args->read_only_mode == QMP_BLOCKDEV_CHANGE_READ_ONLY_MODE_READ_ONLY;
    }
    if (block_options_set_bool(options, "read-only", read_only) < 0) {
        return -ENOMEM;
    }
    return args->has_format ? block_options_set_str(options, "driver", args->format) : 0;
}

/* The new medium is opened before anything is changed; it lives as long as it is in the tray. */
static BlockDriverState *change_open(struct qmp_call *call, BlockBackend *blk,
                                     const struct qmp_blockdev_change_medium *args, Error **errp)
{
    BlockOptions *options = block_options_new();
    int flags = BDRV_O_RDWR | (args->has_format ? 0 : BDRV_O_PROBE);

    if (!options || change_options(blk, args, options) < 0) {
        block_options_free(options);
        error_set(errp, ENOMEM, "out of memory");
        return NULL;
    }
    return bdrv_open(call->control->pl, args->filename, NULL, options, flags, errp);
}

int qmp_blockdev_change_medium(struct qmp_call *call, const struct qmp_blockdev_change_medium *args,
                               Error **errp)
{
    BlockBackend *blk = find(call, args->has_device, args->device, args->has_id, args->id, errp);
    BlockDriverState *bs = blk ? change_open(call, blk, args, errp) : NULL;
    int ret;

    if (!bs) {
        return -ENODEV;
    }
    ret = need_open_tray(blk, args->has_force && args->force, errp);
    if (ret == 0) {
        ret = remove_medium(blk, errp);
    }
    if (ret == 0) {
        ret = insert_medium(blk, bs, errp);
    }
    if (ret == 0) {
        blk_dev_change_media_cb(blk, true);
    }
    bdrv_unref(bs);
    return ret;
}

/* ---- limits ---- */

static int take_limit(struct throttle_config *config, enum throttle_bucket_id id, int64_t avg,
                      bool has_max, int64_t max, bool has_length, int64_t length, Error **errp)
{
    if (avg < 0 || max < 0 || length < 0) {
        return error_set(errp, EINVAL, "bps/iops/max values must be within [0, %llu]",
                         (unsigned long long)THROTTLE_VALUE_MAX);
    }
    config->limits[id].avg = (uint64_t)avg;
    config->limits[id].max = has_max ? (uint64_t)max : 0;
    config->limits[id].max_length_s = has_length ? (uint64_t)length : 1;
    return 0;
}

#define TAKE(id, name)                                                                             \
    take_limit(config, id, args->name, args->has_##name##_max, args->name##_max,                   \
               args->has_##name##_max_length, args->name##_max_length, errp)

static int take_limits(const struct qmp_block_set_io_throttle *args, struct throttle_config *config,
                       Error **errp)
{
    if (TAKE(THROTTLE_BPS_TOTAL, bps) < 0 || TAKE(THROTTLE_BPS_READ, bps_rd) < 0 ||
        TAKE(THROTTLE_BPS_WRITE, bps_wr) < 0 || TAKE(THROTTLE_OPS_TOTAL, iops) < 0 ||
        TAKE(THROTTLE_OPS_READ, iops_rd) < 0 || TAKE(THROTTLE_OPS_WRITE, iops_wr) < 0) {
        return -EINVAL;
    }
    if (args->has_iops_size && args->iops_size < 0) {
        return error_set(errp, EINVAL, "Parameter 'iops_size' expects a non-negative value");
    }
    config->ops_unit_bytes = args->has_iops_size ? (uint64_t)args->iops_size : 0;
    return throttle_config_check(config, errp);
}

static bool has_limit(const struct throttle_config *config)
{
    for (size_t i = 0; i < THROTTLE_BUCKETS; i++) {
        if (config->limits[i].avg) {
            return true;
        }
    }
    return false;
}

/* All zero leaves the group; else the group is the one that is named, the one it is in, or one
 * named like the backend. */
int qmp_block_set_io_throttle(struct qmp_call *call, const struct qmp_block_set_io_throttle *args,
                              Error **errp)
{
    struct throttle_config config = {.size = sizeof(config)};
    BlockBackend *blk = find(call, args->has_device, args->device, args->has_id, args->id, errp);
    ThrottleGroup *now = blk ? blk_get_throttle_group(blk) : NULL;
    const char *group;
    int ret = blk ? take_limits(args, &config, errp) : -ENODEV;

    if (ret < 0) {
        return ret;
    }
    if (!has_limit(&config)) {
        blk_io_limits_disable(blk);
        return 0;
    }
    group = args->has_group ? args->group : now ? throttle_group_name(now) : blk_name(blk);
    if (!now || strcmp(throttle_group_name(now), group) != 0) {
        ret = blk_io_limits_enable(blk, group, errp);
    }
    return ret < 0 ? ret : blk_set_io_limits(blk, &config, errp);
}
