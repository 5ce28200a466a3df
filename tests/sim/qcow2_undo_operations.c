/* SPDX-License-Identifier: MIT */
#include "qcow2_undo.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <platter/bitmap.h>
#include <platter/image.h>
#include <platter/options.h>

/* ---- of a run ---- */

void undo_wrong(struct undo *t, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    if (t->wrong[0] == '\0') {
        vsnprintf(t->wrong, sizeof(t->wrong), fmt, ap);
    }
    va_end(ap);
}

BlockDriverState *undo_node(struct undo *t)
{
    return blk_bs(t->h.blk);
}

int undo_need(struct undo *t, const char *what, int rc, Error **err)
{
    if (rc < 0) {
        undo_wrong(t, "%s: %s", what, *err != NULL ? error_get_pretty(*err) : strerror(-rc));
    }
    error_free(*err);
    *err = NULL;
    return rc;
}

void undo_fill(uint8_t *disk, uint64_t offset, uint64_t bytes, unsigned version)
{
    for (uint64_t i = offset; i < offset + bytes; i++) {
        disk[i] = (uint8_t)(i / 512 * 7 + version * 31 + i % 251 + 1);
    }
}

/* On the node and in the model. */
static void put(struct undo *t, uint64_t offset, uint64_t bytes, unsigned version)
{
    int rc;

    undo_fill(t->before, offset, bytes, version);
    rc = blk_pwrite(t->h.blk, (int64_t)offset, t->before + offset, (int)bytes);
    if (rc < 0) {
        undo_wrong(t, "write: %s", strerror(-rc));
    }
}

/* ---- the operations ---- */

static int create_snapshot(struct undo *t, const char *name, uint64_t vm_bytes, Error **errp)
{
    struct bdrv_snapshot_info info = {.name = name, .vm_state_bytes = vm_bytes, .date_sec = 1};

    return bdrv_snapshot_create(undo_node(t), &info, errp);
}

static void content(struct undo *t)
{
    put(t, 0, 20 * KIB, 1);
    put(t, 40 * KIB, 6 * KIB, 2);
}

static void one_snapshot(struct undo *t)
{
    Error *err = NULL;

    content(t);
    (void)undo_need(t, "snapshot", create_snapshot(t, "one", 0, &err), &err);
    put(t, 4 * KIB, 8 * KIB, 3);
    put(t, 50 * KIB, 2 * KIB, 3);
}

void undo_snapshot_content(uint8_t *disk, uint64_t *bytes)
{
    *bytes = DISK_BYTES;
    memset(disk, 0, DISK_BYTES);
    undo_fill(disk, 0, 20 * KIB, 1);
    undo_fill(disk, 40 * KIB, 6 * KIB, 2);
}

static void vm_state(struct undo *t)
{
    uint8_t buf[4096];

    one_snapshot(t);
    memset(buf, 5, sizeof(buf));
    if (blk_save_vmstate(t->h.blk, buf, 0, sizeof(buf)) < 0) {
        undo_wrong(t, "VM state");
    }
}

static int op_create(struct undo *t, Error **errp)
{
    return create_snapshot(t, "new", 0, errp);
}

static int op_create_vm(struct undo *t, Error **errp)
{
    return create_snapshot(t, "new", 4096, errp);
}

static int op_apply(struct undo *t, Error **errp)
{
    return bdrv_snapshot_apply(undo_node(t), "one", errp);
}

static int op_delete(struct undo *t, Error **errp)
{
    return bdrv_snapshot_delete(undo_node(t), NULL, "one", errp);
}

static int op_grow(struct undo *t, Error **errp)
{
    return blk_resize(t->h.blk, DISK_MAX, true, BDRV_PREALLOC_OFF, errp);
}

static int op_grow_metadata(struct undo *t, Error **errp)
{
    return blk_resize(t->h.blk, DISK_MAX, true, BDRV_PREALLOC_METADATA, errp);
}

static int op_grow_full(struct undo *t, Error **errp)
{
    return blk_resize(t->h.blk, DISK_MAX, true, BDRV_PREALLOC_FULL, errp);
}

static void grown(uint8_t *disk, uint64_t *bytes)
{
    memset(disk + *bytes, 0, DISK_MAX - *bytes);
    *bytes = DISK_MAX;
}

static int op_shrink(struct undo *t, Error **errp)
{
    return blk_resize(t->h.blk, 10 * KIB, true, BDRV_PREALLOC_OFF, errp);
}

static void shrunk(uint8_t *disk, uint64_t *bytes)
{
    *bytes = 10 * KIB;
}

static int amend(struct undo *t, const char *text, Error **errp)
{
    BlockOptions *options = block_options_parse(text, NULL, NULL);

    assert_non_null(options);
    return bdrv_amend(undo_node(t), options, false, NULL, errp);
}

static int op_refcounts(struct undo *t, Error **errp)
{
    return amend(t, "refcount_bits=64", errp);
}

static int op_lazy(struct undo *t, Error **errp)
{
    return amend(t, "lazy_refcounts=on", errp);
}

static int op_eager(struct undo *t, Error **errp)
{
    return amend(t, "lazy_refcounts=off", errp);
}

static int op_version(struct undo *t, Error **errp)
{
    return amend(t, t->old ? "compat=1.1" : "compat=0.10", errp);
}

static int op_backing(struct undo *t, Error **errp)
{
    return bdrv_change_backing_file(undo_node(t), "elsewhere", "raw", errp);
}

static BdrvDirtyBitmap *bitmap_new(struct undo *t, Error **errp)
{
    return bdrv_bitmap_create(undo_node(t), "bm", 4096, BDRV_BITMAP_PERSISTENT, errp);
}

static void one_bitmap(struct undo *t)
{
    Error *err = NULL;

    content(t);
    if (bitmap_new(t, &err) == NULL) {
        (void)undo_need(t, "bitmap", -error_get_errno(err), &err);
        return;
    }
    put(t, 8 * KIB, 2 * KIB, 4);
    (void)undo_need(t, "store", bdrv_bitmaps_store(undo_node(t), &err), &err);
    put(t, 30 * KIB, 2 * KIB, 4);
}

static int op_bitmap(struct undo *t, Error **errp)
{
    return bitmap_new(t, errp) != NULL ? 0 : -EINVAL;
}

static int op_store(struct undo *t, Error **errp)
{
    return bdrv_bitmaps_store(undo_node(t), errp);
}

static int op_remove(struct undo *t, Error **errp)
{
    return bdrv_bitmap_remove(bdrv_bitmap_find(undo_node(t), "bm"), errp);
}

const struct operation undo_operations[] = {
    {.name = "snapshot create", .run = op_create, .prepare = one_snapshot},
    {.name = "first snapshot", .run = op_create, .prepare = content},
    {.name = "snapshot with VM state", .run = op_create_vm, .prepare = vm_state},
    {.name = "snapshot apply",
     .run = op_apply,
     .prepare = one_snapshot,
     .after = undo_snapshot_content},
    {.name = "snapshot delete", .run = op_delete, .prepare = one_snapshot, .lasting = true},
    {.name = "grow", .run = op_grow, .prepare = content, .after = grown},
    {.name = "grow, metadata", .run = op_grow_metadata, .prepare = content, .after = grown},
    {.name = "grow, full", .run = op_grow_full, .prepare = content, .after = grown, .once = true},
    {.name = "shrink", .run = op_shrink, .prepare = content, .after = shrunk},
    {.name = "refcount bits", .run = op_refcounts, .prepare = one_snapshot, .version_3 = true},
    {.name = "lazy refcounts", .run = op_lazy, .prepare = content, .version_3 = true},
    {.name = "no lazy refcounts", .run = op_eager, .prepare = content, .version_3 = true},
    {.name = "version", .run = op_version, .prepare = content, .downgrades = true},
    {.name = "backing file's name", .run = op_backing, .prepare = content},
    {.name = "bitmap", .run = op_bitmap, .prepare = content, .version_3 = true, .lasting = true},
    {.name = "store bitmap", .run = op_store, .prepare = one_bitmap, .version_3 = true},
    {.name = "remove bitmap",
     .run = op_remove,
     .prepare = one_bitmap,
     .version_3 = true,
     .lasting = true},
};

const size_t undo_operation_count = sizeof(undo_operations) / sizeof(undo_operations[0]);
