/* SPDX-License-Identifier: MIT */
/* Snapshots: overlays put on nodes, and those inside an image. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <platter/graph.h>
#include <platter/image.h>

#include "block/node.h"
#include "control/image_info.h"
#include "control/transaction.h"
#include "os/os.h"
#include "util/error.h"

/* ---- overlays ---- */

static int nothing_to_prepare(void *opaque, Error **errp)
{
    return 0;
}

/* When all of the transaction is done, so that nothing has to be taken back. What cannot be read
 * only stays as it is. */
static void below_commit(void *opaque)
{
    BlockOptions *changes = block_options_new();

    if (changes && block_options_set_str(changes, "read-only", "on") == 0) {
        (void)bdrv_reopen_changed(opaque, changes, NULL);
    } else {
        block_options_free(changes);
    }
}

static void below_clean(void *opaque)
{
    bdrv_unref(opaque);
}

static const struct bdrv_action_ops below_ops = {
    .prepare = nothing_to_prepare,
    .commit = below_commit,
    .clean = below_clean,
};

/* Below an overlay nobody writes any more: base gives back its right to, and its lock, so that
 * other programs can read it. Who wants to write there again reopens it. */
static void put_overlay(BdrvTransaction *t, BlockDriverState *overlay, BlockDriverState *base)
{
    bdrv_transaction_append(t, overlay, base);
    bdrv_ref(base);
    bdrv_transaction_add(t, base, &below_ops, base);
}

int action_snapshot(struct control *c, BdrvTransaction *t, const struct qmp_blockdev_snapshot *args,
                    Error **errp)
{
    BlockDriverState *base = control_find_root(c, args->node, args->node, errp);
    BlockDriverState *overlay = base ? control_find_node(c, args->overlay, errp) : NULL;

    if (overlay) {
        put_overlay(t, overlay, base);
    }
    return overlay ? 0 : -ENOENT;
}

static int create_overlay(struct control *c, const struct qmp_blockdev_snapshot_sync *args,
                          const char *format, BlockDriverState *base, Error **errp)
{
    BlockOptions *options = block_options_new();
    int64_t bytes = bdrv_getlength(base);

    if (bytes < 0) {
        block_options_free(options);
        return error_set_errno(errp, (int)-bytes, "Could not get the size of node '%s'",
                               bdrv_get_node_name(base));
    }
    if (!options || block_options_set_str(options, "driver", format) < 0 ||
        block_options_set_u64(options, "size", (uint64_t)bytes) < 0 ||
        block_options_set_str(options, "backing_file", bdrv_get_filename(base)) < 0 ||
        block_options_set_str(options, "backing_fmt", bdrv_get_format_name(base)) < 0) {
        block_options_free(options);
        return error_set(errp, ENOMEM, "out of memory");
    }
    return bdrv_create(c->pl, args->snapshot_file, options, errp);
}

static BlockDriverState *open_overlay(struct control *c,
                                      const struct qmp_blockdev_snapshot_sync *args,
                                      const char *format, Error **errp)
{
    BlockOptions *options = block_options_new();

    if (!options || block_options_set_str(options, "driver", format) < 0 ||
        (args->has_snapshot_node_name &&
         block_options_set_str(options, "node-name", args->snapshot_node_name) < 0)) {
        block_options_free(options);
        error_set(errp, ENOMEM, "out of memory");
        return NULL;
    }
    return bdrv_open(c->pl, args->snapshot_file, NULL, options, BDRV_O_RDWR | BDRV_O_NO_BACKING,
                     errp);
}

/* The file was made before the transaction runs, and goes when that fails; so does a file whose
 * transaction never ran. */
struct made_file {
    bool stays;
    char name[];
};

static void made_commit(void *opaque)
{
    struct made_file *file = opaque;

    file->stays = true;
}

static void made_clean(void *opaque)
{
    struct made_file *file = opaque;

    if (!file->stays) {
        os->unlink(file->name);
    }
    free(file);
}

static const struct bdrv_action_ops made_ops = {
    .prepare = nothing_to_prepare,
    .commit = made_commit,
    .clean = made_clean,
};

static int make_overlay(struct control *c, BdrvTransaction *t,
                        const struct qmp_blockdev_snapshot_sync *args, const char *format,
                        BlockDriverState *base, Error **errp)
{
    size_t bytes = strlen(args->snapshot_file) + 1;
    struct made_file *file = malloc(sizeof(*file) + bytes);
    int ret;

    if (!file) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    file->stays = false;
    memcpy(file->name, args->snapshot_file, bytes);
    ret = create_overlay(c, args, format, base, errp);
    if (ret < 0) {
        free(file);
        return ret;
    }
    bdrv_transaction_add(t, NULL, &made_ops, file);
    return 0;
}

int action_snapshot_sync(struct control *c, BdrvTransaction *t,
                         const struct qmp_blockdev_snapshot_sync *args, Error **errp)
{
    BlockDriverState *base = control_find_root(c, args->has_device ? args->device : NULL,
                                               args->has_node_name ? args->node_name : NULL, errp);
    const char *format = args->has_format ? args->format : "qcow2";
    bool create = !args->has_mode || args->mode == QMP_NEW_IMAGE_MODE_ABSOLUTE_PATHS;
    BlockDriverState *overlay;
    int ret = base ? 0 : -ENOENT;

    if (ret == 0 && args->has_node_name && !args->has_snapshot_node_name) {
        return error_set(errp, EINVAL, "New overlay node-name missing");
    }
    if (ret == 0 && args->has_snapshot_node_name &&
        bdrv_find_node(c->pl, args->snapshot_node_name)) {
        return error_set(errp, EEXIST, "New overlay node-name already in use");
    }
    if (ret == 0 && create) {
        ret = make_overlay(c, t, args, format, base, errp);
    }
    if (ret < 0) {
        return ret;
    }
    overlay = open_overlay(c, args, format, errp);
    if (!overlay) {
        return -EINVAL;
    }
    put_overlay(t, overlay, base);
    bdrv_unref(overlay); /* the transaction's, and of the users of base in the end */
    return 0;
}

/* ---- inside the image ---- */

/* 1: the image has a snapshot of that name, or id, which *ret_json gets; 0: none; or -errno. */
static int find_snapshot(BlockDriverState *bs, const char *id, const char *name, json_t **ret_json)
{
    struct bdrv_snapshot_list list;
    bool found = false;
    int ret = bdrv_snapshot_list(bs, &list, NULL);

    if (ret < 0) {
        return ret;
    }
    for (size_t i = 0; i < list.count && !found; i++) {
        found = (!id || strcmp(list.snapshots[i].id, id) == 0) &&
                (!name || strcmp(list.snapshots[i].name, name) == 0);
        if (found) {
            *ret_json = image_snapshot_json(&list.snapshots[i]);
        }
    }
    bdrv_snapshot_list_free(&list);
    return found;
}

/* The disk of device, on which no other node stands: what is below another is its, as it is. NULL
 * with errp. */
static BlockDriverState *find_top(struct control *c, const char *device, Error **errp)
{
    BlockDriverState *bs = control_find_root(c, device, device, errp);
    BdrvEdge *edge;

    if (bs) {
        TAILQ_FOREACH (edge, &bs->parents, in_child) {
            if (edge->klass->parent_is_node) {
                error_set(errp, EBUSY, "Need a root block node");
                return NULL;
            }
        }
    }
    return bs;
}

int action_snapshot_internal(struct control *c, BdrvTransaction *t,
                             const struct qmp_blockdev_snapshot_internal *args, Error **errp)
{
    BlockDriverState *bs = find_top(c, args->device, errp);
    int64_t now = os->clock_realtime_ns();
    struct bdrv_snapshot_list list = {0};
    struct bdrv_snapshot_info info = {
        .name = args->name,
        .date_sec = (uint32_t)(now / 1000000000),
        .date_nsec = (uint32_t)(now % 1000000000),
        .icount = UINT64_MAX,
    };

    if (!bs) {
        return -ENOENT;
    }
    if (bdrv_snapshot_list(bs, &list, NULL) == -ENOTSUP) {
        return error_set(errp, ENOTSUP,
                         "Block format '%s' used by device '%s' does not support internal "
                         "snapshots",
                         bdrv_get_format_name(bs), args->device);
    }
    bdrv_snapshot_list_free(&list);
    if (*args->name == '\0') {
        return error_set(errp, EINVAL, "Name is empty");
    }
    bdrv_transaction_snapshot_create(t, bs, args->name, &info);
    return 0;
}

int qmp_blockdev_snapshot_delete_internal_sync(
    struct qmp_call *call, const struct qmp_blockdev_snapshot_delete_internal_sync *args,
    json_t **ret_value, Error **errp)
{
    BlockDriverState *bs = find_top(call->control, args->device, errp);
    const char *id = args->has_id ? args->id : NULL;
    const char *name = args->has_name ? args->name : NULL;
    int ret;

    if (!bs) {
        return -ENOENT;
    }
    if (!id && !name) {
        return error_set(errp, EINVAL, "Name or id must be provided");
    }
    ret = find_snapshot(bs, id, name, ret_value);
    if (ret < 0) {
        return error_set_errno(errp, -ret, "Failed to get a snapshot list");
    }
    if (ret == 0) {
        return error_set(errp, ENOENT,
                         "Snapshot with id '%s' and name '%s' does not exist on device '%s'",
                         id ? id : "null", name ? name : "null", args->device);
    }
    ret = bdrv_snapshot_delete(bs, id, name, errp);
    if (ret < 0) {
        json_decref(*ret_value);
        *ret_value = NULL;
    }
    return ret;
}

/* ---- the commands: one action each ---- */

#define SNAPSHOT_COMMAND(name, type, add)                                                          \
    int qmp_blockdev_snapshot##name(struct qmp_call *call, const struct type *args, Error **errp)  \
    {                                                                                              \
        BdrvTransaction *t = bdrv_transaction_new(call->control->pl);                              \
                                                                                                   \
        return transaction_finish(t, add(call->control, t, args, errp), errp);                     \
    }

SNAPSHOT_COMMAND(, qmp_blockdev_snapshot, action_snapshot)
SNAPSHOT_COMMAND(_sync, qmp_blockdev_snapshot_sync, action_snapshot_sync)
SNAPSHOT_COMMAND(_internal_sync, qmp_blockdev_snapshot_internal, action_snapshot_internal)
