/* SPDX-License-Identifier: MIT */
/* Internal snapshots of an image: arguments are checked here, the driver does the work. */
#include <errno.h>
#include <stdlib.h>

#include "block/dirty_bitmap.h"
#include "block/image.h"
#include "util/error.h"

static int no_name(Error **errp)
{
    return error_set(errp, EINVAL, "Neither id nor name of a snapshot is given");
}

/* ---- create ---- */

struct create_args {
    struct bdrv_snapshot_info info;
};

static bool has_create(const BlockDriver *drv)
{
    return drv->snapshot != NULL && drv->snapshot->create_co != NULL;
}

static int create_run_co(BlockDriverState *bs, void *args, Error **errp)
{
    const struct create_args *a = args;

    return bs->drv->snapshot->create_co(bs, &a->info, errp);
}

static const struct image_op op_create = {
    .name = "creating internal snapshots",
    .perm = BDRV_PERM_CONSISTENT_READ | BDRV_PERM_WRITE_UNCHANGED,
    .has = has_create,
    .run_co = create_run_co,
};

int bdrv_snapshot_create(BlockDriverState *bs, const struct bdrv_snapshot_info *info, Error **errp)
{
    struct create_args args = {.info = *info};

    if (args.info.name == NULL) {
        args.info.name = "";
    }
    return image_run(bs, &op_create, &args, errp);
}

/* ---- by name ---- */

struct name_args {
    const char *id;
    const char *name;
};

static bool has_apply(const BlockDriver *drv)
{
    return drv->snapshot != NULL && drv->snapshot->apply_co != NULL;
}

static int apply_run_co(BlockDriverState *bs, void *args, Error **errp)
{
    const struct name_args *a = args;

    if (bdrv_has_bitmaps(bs)) { /* which would have to mark all that the two differ in */
        return error_set(errp, EBUSY, "Device has active dirty bitmaps");
    }
    return bs->drv->snapshot->apply_co(bs, a->name, errp);
}

static const struct image_op op_apply = {
    .name = "applying internal snapshots",
    .perm = BDRV_PERM_WRITE | BDRV_PERM_RESIZE,
    .has = has_apply,
    .run_co = apply_run_co,
};

int bdrv_snapshot_apply(BlockDriverState *bs, const char *id_or_name, Error **errp)
{
    struct name_args args = {.name = id_or_name};

    return id_or_name != NULL ? image_run(bs, &op_apply, &args, errp) : no_name(errp);
}

static bool has_delete(const BlockDriver *drv)
{
    return drv->snapshot != NULL && drv->snapshot->delete_co != NULL;
}

static int delete_run_co(BlockDriverState *bs, void *args, Error **errp)
{
    const struct name_args *a = args;

    return bs->drv->snapshot->delete_co(bs, a->id, a->name, errp);
}

static const struct image_op op_delete = {
    .name = "deleting internal snapshots",
    .perm = BDRV_PERM_WRITE_UNCHANGED,
    .has = has_delete,
    .run_co = delete_run_co,
};

int bdrv_snapshot_delete(BlockDriverState *bs, const char *id, const char *name, Error **errp)
{
    struct name_args args = {.id = id, .name = name};

    return id != NULL || name != NULL ? image_run(bs, &op_delete, &args, errp) : no_name(errp);
}

static bool has_load_tmp(const BlockDriver *drv)
{
    return drv->snapshot != NULL && drv->snapshot->load_tmp_co != NULL;
}

static int load_tmp_run_co(BlockDriverState *bs, void *args, Error **errp)
{
    const struct name_args *a = args;

    if (!bs->read_only) {
        return error_set(errp, EINVAL,
                         "Node '%s' is writable; only a read-only one can show a snapshot",
                         bdrv_get_told_name(bs));
    }
    return bs->drv->snapshot->load_tmp_co(bs, a->id, a->name, errp);
}

static const struct image_op op_load_tmp = {
    .name = "showing internal snapshots",
    .perm = BDRV_PERM_CONSISTENT_READ,
    .has = has_load_tmp,
    .run_co = load_tmp_run_co,
};

int bdrv_snapshot_load_tmp(BlockDriverState *bs, const char *id, const char *name, Error **errp)
{
    struct name_args args = {.id = id, .name = name};

    return id != NULL || name != NULL ? image_run(bs, &op_load_tmp, &args, errp) : no_name(errp);
}

/* ---- list ---- */

static bool has_list(const BlockDriver *drv)
{
    return drv->snapshot != NULL && drv->snapshot->list != NULL;
}

static int list_run_co(BlockDriverState *bs, void *args, Error **errp)
{
    return bs->drv->snapshot->list(bs, args, errp);
}

static const struct image_op op_list = {
    .name = "internal snapshots",
    .has = has_list,
    .run_co = list_run_co,
};

int bdrv_snapshot_list(BlockDriverState *bs, struct bdrv_snapshot_list *ret_list, Error **errp)
{
    struct bdrv_snapshot_list list = {0};
    int ret = image_run(bs, &op_list, &list, errp);

    if (ret < 0) {
        bdrv_snapshot_list_free(&list);
        return ret;
    }
    *ret_list = list;
    return 0;
}

void bdrv_snapshot_list_free(struct bdrv_snapshot_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free((void *)(uintptr_t)list->snapshots[i].id);
        free((void *)(uintptr_t)list->snapshots[i].name);
    }
    free(list->snapshots);
    *list = (struct bdrv_snapshot_list){0};
}
