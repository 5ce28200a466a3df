/* SPDX-License-Identifier: MIT */
/*
 * Backends that have a name and a simple tray, as a drive without anything behind it would: a
 * device that answers what the library asks of devices. With them the commands for media, limits
 * and error policies work in a daemon that emulates nothing.
 *
 * tray_open is read by requests in any thread; everything else is the control thread's.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "control/control.h"
#include "control/parts.h"
#include "schema/qmp.h"
#include "util/error.h"

struct control_backend {
    BlockBackend *blk; /* owned */
    atomic_bool tray_open;
    bool locked;
    bool opens_when_asked;
    LIST_ENTRY(control_backend) entry;
};

static void change_media(void *opaque, bool load)
{
    struct control_backend *b = opaque;

    atomic_store(&b->tray_open, !load);
}

static void eject_request(void *opaque, bool force)
{
    struct control_backend *b = opaque;

    if ((force || b->opens_when_asked) && !atomic_load(&b->tray_open)) {
        b->locked = false;
        blk_dev_change_media_cb(b->blk, false);
    }
}

static bool is_tray_open(void *opaque)
{
    struct control_backend *b = opaque;

    return atomic_load(&b->tray_open);
}

static bool is_medium_locked(void *opaque)
{
    struct control_backend *b = opaque;

    return b->locked;
}

static const BlockDevOps tray_ops = {
    .change_media_cb = change_media,
    .eject_request_cb = eject_request,
    .is_tray_open = is_tray_open,
    .is_medium_locked = is_medium_locked,
};
static const BlockDevOps fixed_ops = {0};

static void backend_free(struct control_backend *b)
{
    if (blk_get_attached_dev(b->blk)) {
        blk_detach_dev(b->blk, b);
    }
    blk_unref(b->blk);
    free(b);
}

void control_backends_end(struct control *c)
{
    struct control_backend *b;

    while ((b = LIST_FIRST(&c->backends)) != NULL) {
        LIST_REMOVE(b, entry);
        backend_free(b);
    }
}

static int backend_init(struct control *c, struct control_backend *b,
                        const struct qmp_backend_options *args, Error **errp)
{
    BlockDriverState *bs = NULL;
    int ret = 0;

    if (args->has_node_name && !(bs = control_find_node(c, args->node_name, errp))) {
        return -ENOENT;
    }
    if (args->has_read_only) {
        ret = blk_set_read_only(b->blk, args->read_only, errp);
    }
    blk_set_on_error(b->blk,
                     args->has_rerror ? (BlockdevOnError)args->rerror : BLOCKDEV_ON_ERROR_REPORT,
                     args->has_werror ? (BlockdevOnError)args->werror : BLOCKDEV_ON_ERROR_ENOSPC);
    blk_iostatus_enable(b->blk);
    if (ret == 0 && args->has_throttle_group) {
        ret = throttle_group_find(c->pl, args->throttle_group)
                  ? blk_io_limits_enable(b->blk, args->throttle_group, errp)
                  : error_set(errp, ENOENT, "Throttle group '%s' does not exist",
                              args->throttle_group);
    }
    if (ret == 0 && bs) {
        ret = blk_insert_bs(b->blk, bs, errp);
    }
    if (ret == 0) {
        b->locked = args->has_locked && args->locked;
        b->opens_when_asked =
            !args->has_eject_answer || args->eject_answer == QMP_EJECT_ANSWER_OPEN;
        blk_attach_dev_nofail(b->blk, b);
        blk_set_dev_ops(b->blk, args->has_removable && !args->removable ? &fixed_ops : &tray_ops,
                        b);
    }
    return ret;
}

int qmp_blockdev_backend_add(struct qmp_call *call, const struct qmp_backend_options *args,
                             Error **errp)
{
    struct control *c = call->control;
    struct control_backend *b = calloc(1, sizeof(*b));
    int ret;

    if (!b) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    b->blk = blk_new(c->pl, args->name, errp);
    if (!b->blk) {
        free(b);
        return -EINVAL;
    }
    ret = backend_init(c, b, args, errp);
    if (ret < 0) {
        backend_free(b);
        return ret;
    }
    LIST_INSERT_HEAD(&c->backends, b, entry);
    return 0;
}

int qmp_blockdev_backend_del(struct qmp_call *call, const struct qmp_blockdev_backend_del *args,
                             Error **errp)
{
    BlockBackend *blk = control_find_backend(call, args->id, errp);
    struct control_backend *b;

    LIST_FOREACH (b, &call->control->backends, entry) {
        if (b->blk == blk) {
            break;
        }
    }
    if (!blk || !b) {
        return blk ? error_set(errp, EPERM, "Device '%s' is not one of blockdev-backend-add",
                               args->id)
                   : -ENODEV;
    }
    if (blk_op_is_blocked(blk, BLOCK_OP_TYPE_DRIVE_DEL, errp)) {
        return -EBUSY;
    }
    if (control_exports_use(call->control, blk)) {
        return error_set(errp, EBUSY, "Device '%s' is in use by an export", args->id);
    }
    LIST_REMOVE(b, entry);
    backend_free(b);
    return 0;
}

int qmp_block_set_io_error_policy(struct qmp_call *call,
                                  const struct qmp_block_set_io_error_policy *args, Error **errp)
{
    BlockBackend *blk = control_find_backend(call, args->device, errp);

    if (!blk) {
        return -ENODEV;
    }
    blk_set_on_error(blk,
                     args->has_rerror ? (BlockdevOnError)args->rerror : BLOCKDEV_ON_ERROR_REPORT,
                     args->has_werror ? (BlockdevOnError)args->werror : BLOCKDEV_ON_ERROR_ENOSPC);
    return 0;
}
