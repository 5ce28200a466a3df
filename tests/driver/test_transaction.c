/* SPDX-License-Identifier: MIT */
/* Changes that are one: all is done, or each is taken back exactly, whatever failed behind it. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <platter/backend.h>
#include <platter/transaction.h>

#include "fixture.h"

#define KIB 1024

struct disks {
    Platter *pl;
    BlockBackend *blk;
    BlockDriverState *base, *one, *two;
};

static BlockDriverState *make_node(Platter *pl, const char *name)
{
    Error *err = NULL;
    BlockDriverState *bs;
    char path[100];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    remove(path);
    assert_int_equal(
        bdrv_create(pl, path, block_options_parse("driver=qcow2,size=4M", NULL, NULL), NULL), 0);
    bs = bdrv_open(pl, NULL, NULL,
                   block_options_parse(text("driver=qcow2,node-name=%s,file.driver=file,"
                                            "file.filename=%s",
                                            name, path),
                                       NULL, NULL),
                   BDRV_O_RDWR, &err);
    if (bs == NULL) {
        fail_msg("%s", error_get_pretty(err));
    }
    return bs;
}

/* Bitmaps of base: "dirty" has the second 64 KiB, "more" the fourth, "off" does not record. */
static void disks_begin(struct disks *d)
{
    static uint8_t buf[64 * KIB];

    *d = (struct disks){.pl = new_platter()};
    d->base = make_node(d->pl, "base");
    d->one = make_node(d->pl, "one");
    d->two = make_node(d->pl, "two");
    d->blk = blk_new(d->pl, "disk", NULL);
    assert_int_equal(blk_insert_bs(d->blk, d->base, NULL), 0);
    assert_non_null(bdrv_bitmap_create(d->base, "dirty", 64 * KIB, 0, NULL));
    assert_non_null(bdrv_bitmap_create(d->base, "more", 4 * KIB, BDRV_BITMAP_DISABLED, NULL));
    assert_non_null(bdrv_bitmap_create(d->base, "off", 0, BDRV_BITMAP_DISABLED, NULL));
    assert_int_equal(blk_pwrite(d->blk, 64 * KIB, buf, sizeof(buf)), sizeof(buf));
    bdrv_bitmap_set(bdrv_bitmap_find(d->base, "more"), 192 * KIB, 64 * KIB);
}

static void disks_end(struct disks *d)
{
    blk_unref(d->blk);
    bdrv_unref(d->two);
    bdrv_unref(d->one);
    bdrv_unref(d->base);
    assert_null(bdrv_next_node(d->pl, NULL));
    platter_free(d->pl);
}

static uint64_t dirty_bytes(BlockDriverState *bs, const char *name)
{
    struct bdrv_bitmap_info info;
    BdrvDirtyBitmap *bitmap = bdrv_bitmap_find(bs, name);

    assert_non_null(bitmap);
    bdrv_bitmap_get_info(bitmap, &info);
    return info.dirty_bytes;
}

static bool records(BlockDriverState *bs, const char *name)
{
    struct bdrv_bitmap_info info;

    bdrv_bitmap_get_info(bdrv_bitmap_find(bs, name), &info);
    return info.recording;
}

static size_t snapshots(BlockDriverState *bs)
{
    struct bdrv_snapshot_list list;
    size_t count;

    assert_int_equal(bdrv_snapshot_list(bs, &list, NULL), 0);
    count = list.count;
    bdrv_snapshot_list_free(&list);
    return count;
}

static void expect_untouched(const struct disks *d)
{
    assert_ptr_equal(blk_bs(d->blk), d->base);
    assert_null(bdrv_get_child(d->one, "backing"));
    assert_null(bdrv_get_child(d->two, "backing"));
    assert_int_equal(dirty_bytes(d->base, "dirty"), 64 * KIB);
    assert_true(bdrv_bitmap_get(bdrv_bitmap_find(d->base, "dirty"), 64 * KIB));
    assert_int_equal(dirty_bytes(d->base, "more"), 64 * KIB);
    assert_true(records(d->base, "dirty"));
    assert_false(records(d->base, "off"));
    assert_null(bdrv_bitmap_find(d->base, "new"));
    assert_int_equal(snapshots(d->base), 0);
}

/* Everything, in an order in which each needs those before it. */
static BdrvTransaction *everything(const struct disks *d)
{
    BdrvTransaction *t = bdrv_transaction_new(d->pl);

    bdrv_transaction_bitmap_add(t, d->base, "new", 64 * KIB, BDRV_BITMAP_PERSISTENT);
    bdrv_transaction_bitmap_merge(t, d->base, "new", d->base, "dirty");
    bdrv_transaction_bitmap_clear(t, d->base, "dirty");
    bdrv_transaction_bitmap_merge(t, d->base, "dirty", d->base, "more");
    bdrv_transaction_bitmap_clear(t, d->base, "more");
    bdrv_transaction_bitmap_enable(t, d->base, "dirty", false);
    bdrv_transaction_bitmap_enable(t, d->base, "off", true);
    bdrv_transaction_snapshot_create(t, d->base, "now", NULL);
    bdrv_transaction_append(t, d->one, d->base);
    bdrv_transaction_append(t, d->two, d->one);
    return t;
}

static void all_of_it(void **state)
{
    struct disks d;
    Error *err = NULL;
    BdrvTransaction *t;

    disks_begin(&d);
    if (bdrv_transaction_run(everything(&d), &err) < 0) {
        fail_msg("%s", error_get_pretty(err));
    }
    assert_ptr_equal(blk_bs(d.blk), d.two);
    assert_ptr_equal(bdrv_get_child(d.two, "backing"), d.one);
    assert_ptr_equal(bdrv_get_child(d.one, "backing"), d.base);
    assert_int_equal(dirty_bytes(d.base, "new"), 64 * KIB);
    assert_true(bdrv_bitmap_get(bdrv_bitmap_find(d.base, "new"), 64 * KIB));
    assert_int_equal(dirty_bytes(d.base, "dirty"), 64 * KIB);
    assert_true(bdrv_bitmap_get(bdrv_bitmap_find(d.base, "dirty"), 192 * KIB));
    assert_int_equal(dirty_bytes(d.base, "more"), 0);
    assert_false(records(d.base, "dirty"));
    assert_true(records(d.base, "off"));
    assert_int_equal(snapshots(d.base), 1);
    t = bdrv_transaction_new(d.pl);
    bdrv_transaction_snapshot_delete(t, d.base, NULL, "now");
    bdrv_transaction_bitmap_clear(t, d.base, "new");
    assert_int_equal(bdrv_transaction_run(t, &err), 0);
    assert_int_equal(snapshots(d.base), 0);
    disks_end(&d);
}

static void own_fails(struct disks *d, void (*last)(BdrvTransaction *t, struct disks *d),
                      int err_no, const char *words)
{
    BdrvTransaction *t = everything(d);
    Error *err = NULL;

    last(t, d);
    assert_int_equal(bdrv_transaction_run(t, &err), -err_no);
    if (strstr(error_get_pretty(err), words) == NULL) {
        fail_msg("\"%s\" has no \"%s\"", error_get_pretty(err), words);
    }
    assert_int_equal(error_get_errno(err), err_no);
    assert_null(error_get_hint(err));
    error_free(err);
    expect_untouched(d);
}

static void last_append(BdrvTransaction *t, struct disks *d)
{
    bdrv_transaction_append(t, d->one, d->base);
}
static void last_add(BdrvTransaction *t, struct disks *d)
{
    bdrv_transaction_bitmap_add(t, d->base, "new", 0, 0);
}
static void last_clear(BdrvTransaction *t, struct disks *d)
{
    bdrv_transaction_bitmap_clear(t, d->base, "nobody");
}
static void last_merge(BdrvTransaction *t, struct disks *d)
{
    bdrv_transaction_bitmap_merge(t, d->base, "dirty", d->one, "nobody");
}
static void last_create(BdrvTransaction *t, struct disks *d)
{
    bdrv_transaction_snapshot_create(t, d->base, "now", NULL);
}
static void last_nameless(BdrvTransaction *t, struct disks *d)
{
    bdrv_transaction_snapshot_create(t, d->base, "", NULL);
}
static void last_delete(BdrvTransaction *t, struct disks *d)
{
    bdrv_transaction_snapshot_delete(t, d->base, "77", NULL);
}
static void last_two_deletes(BdrvTransaction *t, struct disks *d)
{
    bdrv_transaction_snapshot_delete(t, d->base, NULL, "now");
    bdrv_transaction_snapshot_delete(t, d->base, NULL, "now");
}
static void last_remove(BdrvTransaction *t, struct disks *d)
{
    bdrv_transaction_remove_filter(t, d->base);
}
static void last_replace(BdrvTransaction *t, struct disks *d)
{
    bdrv_transaction_replace_node(t, d->two, d->two);
}

struct own {
    int prepared, committed, aborted, cleaned;
    int fail;
};
static int own_prepare(void *opaque, Error **errp)
{
    struct own *own = opaque;

    own->prepared++;
    return own->fail;
}
static void own_commit(void *opaque)
{
    ((struct own *)opaque)->committed++;
}
static void own_abort(void *opaque)
{
    ((struct own *)opaque)->aborted++;
}
static void own_clean(void *opaque)
{
    ((struct own *)opaque)->cleaned++;
}
static const struct bdrv_action_ops own_ops = {own_prepare, own_commit, own_abort, own_clean};

static void none_of_it(void **state)
{
    struct disks d;

    disks_begin(&d);
    own_fails(&d, last_append, EINVAL, "already in use");
    own_fails(&d, last_add, EEXIST, "new");
    own_fails(&d, last_clear, ENOENT, "'nobody' not found");
    own_fails(&d, last_merge, ENOENT, "'nobody' not found");
    own_fails(&d, last_create, EEXIST, "'now' already exists on node 'base'");
    own_fails(&d, last_nameless, EINVAL, "needs a name");
    own_fails(&d, last_delete, ENOENT, "no snapshot '77'");
    own_fails(&d, last_two_deletes, EINVAL, "more than one");
    own_fails(&d, last_remove, EINVAL, "not a filter");
    own_fails(&d, last_replace, EINVAL, "cannot replace itself");
    bdrv_transaction_free(everything(&d));
    expect_untouched(&d);
    disks_end(&d);
}

static void actions_of_ones_own(void **state)
{
    struct own first = {0}, second = {.fail = -ENOSPC};
    struct disks d;
    BdrvTransaction *t;

    disks_begin(&d);
    t = everything(&d);
    bdrv_transaction_add(t, d.base, &own_ops, &first);
    bdrv_transaction_add(t, NULL, &own_ops, &second);
    assert_int_equal(bdrv_transaction_run(t, NULL), -ENOSPC);
    expect_untouched(&d);
    assert_int_equal(first.prepared + first.aborted + first.cleaned, 3);
    assert_int_equal(second.prepared + second.cleaned, 2);
    assert_int_equal(first.committed + second.committed + second.aborted, 0);
    t = bdrv_transaction_new(d.pl);
    bdrv_transaction_add(t, d.base, &own_ops, &first);
    assert_int_equal(bdrv_transaction_run(t, NULL), 0);
    assert_int_equal(first.committed, 1);
    assert_int_equal(first.aborted, 1);
    assert_int_equal(first.cleaned, 2);
    bdrv_transaction_add(NULL, NULL, &own_ops, &first);
    assert_int_equal(first.cleaned, 3);
    assert_int_equal(bdrv_transaction_run(NULL, NULL), -ENOMEM);
    disks_end(&d);
}

static int setup(void **state)
{
    return folder_begin("/tmp/platter-transaction-XXXXXX");
}

static int teardown(void **state)
{
    return folder_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_of_it),
        cmocka_unit_test(none_of_it),
        cmocka_unit_test(actions_of_ones_own),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
