/* SPDX-License-Identifier: MIT */
/* Dirty bitmaps of nodes: what marks them, who may change them, how they keep in step with an
 * image. */
#include "fake.h"

#include <errno.h>
#include <string.h>

#include "block/dirty_bitmap.h"
#include "util/mem.h"

#define FILE_OPTS "driver=file,filename=f,discard=unmap,node-name=f"
#define RAW_OPTS                                                                                   \
    "driver=raw,node-name=r,discard=unmap,file.driver=file,file.filename=f,file.discard=unmap"
#define IMG_OPTS "driver=img,node-name=i,file.driver=file,file.filename=f"
#define K 1024

static const uint64_t perms = BDRV_PERM_CONSISTENT_READ | BDRV_PERM_WRITE | BDRV_PERM_RESIZE;

struct world {
    Platter *pl;
    BlockDriverState *bs;
    struct fake_user user;
    BdrvEdge *edge;
};

static int setup(void **state)
{
    static struct world world;

    fake_reset();
    world = (struct world){.pl = fake_platter(), .user = {.name = "u"}};
    *state = &world;
    return 0;
}

static void world_open(struct world *w, const char *options)
{
    w->bs = fake_open(w->pl, options);
    w->edge =
        bdrv_root_attach(w->bs, "root", &fake_user_class, &w->user, perms, BDRV_PERM_ALL, NULL);
    assert_non_null(w->edge);
}

static int teardown(void **state)
{
    struct world *w = *state;

    if (w->edge != NULL) {
        bdrv_root_detach(w->edge);
        bdrv_unref(w->bs);
    }
    platter_free(w->pl);
    assert_int_equal(fake.live, 0);
    return 0;
}

static BdrvDirtyBitmap *create(struct world *w, const char *name, uint64_t granularity,
                               unsigned flags)
{
    Error *err = NULL;
    BdrvDirtyBitmap *bitmap = bdrv_bitmap_create(w->bs, name, granularity, flags, &err);

    if (bitmap == NULL) {
        fail_msg("%s", error_get_pretty(err));
    }
    return bitmap;
}

static void create_fails(struct world *w, const char *name, uint64_t granularity, unsigned flags,
                         int err_no, const char *piece)
{
    Error *err = NULL;

    assert_null(bdrv_bitmap_create(w->bs, name, granularity, flags, &err));
    fake_expect_error(err, err_no, piece);
}

static int write_at(struct world *w, uint64_t offset, uint64_t bytes)
{
    static const uint8_t buf[4096];

    return bdrv_edge_pwrite(w->edge, offset, buf, bytes, 0);
}

struct change {
    BdrvEdge *edge;
    enum bdrv_op op;
    uint64_t offset;
    uint64_t bytes;
};

static int change_co(void *opaque)
{
    const struct change *c = opaque;

    return c->op == BDRV_OP_DISCARD
               ? bdrv_edge_discard_co(c->edge, c->offset, c->bytes)
               : bdrv_edge_write_zeroes_co(c->edge, c->offset, c->bytes, BDRV_REQ_MAY_UNMAP);
}

static int change_at(struct world *w, enum bdrv_op op, uint64_t offset, uint64_t bytes)
{
    struct change c = {w->edge, op, offset, bytes};

    return bdrv_run_co(change_co, &c);
}

struct resize {
    BdrvEdge *edge;
    uint64_t bytes;
    Error **errp;
};

static int resize_co(void *opaque)
{
    const struct resize *r = opaque;

    return bdrv_edge_truncate_co(r->edge, r->bytes, true, BDRV_PREALLOC_OFF, 0, r->errp);
}

static int resize_to(struct world *w, uint64_t bytes, Error **errp)
{
    struct resize r = {w->edge, bytes, errp};

    return bdrv_run_co(resize_co, &r);
}

/* The granules of 512 bytes that are dirty, as a string of eight. */
static void is_dirty(const BdrvDirtyBitmap *bitmap, const char *want)
{
    char got[9] = "........";
    uint64_t offset = 0;
    uint64_t bytes = 0;

    while (bdrv_bitmap_next_dirty(bitmap, offset + bytes, 4 * K, &offset, &bytes)) {
        for (uint64_t i = offset / 512; i * 512 < offset + bytes; i++) {
            got[i] = '*';
            assert_true(bdrv_bitmap_get(bitmap, i * 512));
        }
    }
    assert_string_equal(got, want);
}

static struct bdrv_bitmap_info info_of(const BdrvDirtyBitmap *bitmap)
{
    struct bdrv_bitmap_info info;

    bdrv_bitmap_get_info(bitmap, &info);
    return info;
}

/* ---- recording ---- */

static void test_every_change_marks(void **state)
{
    struct world *w = *state;
    BdrvDirtyBitmap *fine;
    BdrvDirtyBitmap *coarse;

    world_open(w, FILE_OPTS);
    fine = create(w, "fine", 512, 0);
    coarse = create(w, "coarse", 2 * K, 0);
    assert_int_equal(write_at(w, 600, 1), 0);
    is_dirty(fine, ".*......");
    is_dirty(coarse, "****....");
    assert_int_equal(change_at(w, BDRV_OP_WRITE_ZEROES, 1023, 2), 0);
    is_dirty(fine, ".**.....");
    assert_int_equal(change_at(w, BDRV_OP_DISCARD, 4095, 1), 0);
    is_dirty(fine, ".**....*");
    is_dirty(coarse, "********");
    assert_int_equal(info_of(fine).dirty_bytes, 3 * 512);
    assert_int_equal(info_of(coarse).dirty_bytes, 4 * K);
    assert_int_equal(write_at(w, 4 * K, 1), -EIO);
    assert_int_equal(write_at(w, 0, 0), 0);
    is_dirty(fine, ".**....*");
}

static void test_a_failed_change_marks(void **state)
{
    struct world *w = *state;
    BdrvDirtyBitmap *bitmap;

    world_open(w, FILE_OPTS);
    bitmap = create(w, "b", 512, 0);
    fake.write_error = -ENOSPC;
    assert_int_equal(write_at(w, 0, 512), -ENOSPC);
    is_dirty(bitmap, "*.......");
    assert_int_equal(change_at(w, BDRV_OP_WRITE_ZEROES, 1024, 512), -ENOSPC);
    assert_int_equal(change_at(w, BDRV_OP_DISCARD, 2048, 512), -ENOSPC);
    is_dirty(bitmap, "*.*.*...");
}

static void test_folded_and_passing_nodes(void **state)
{
    struct world *w = *state;
    BlockDriverState *file;
    BdrvDirtyBitmap *upper;
    BdrvDirtyBitmap *lower;

    world_open(w, RAW_OPTS);
    file = bdrv_get_child(w->bs, "file");
    assert_ptr_equal(w->bs->through, file);
    upper = create(w, "upper", 512, 0);
    assert_ptr_equal(w->bs->through, w->bs);
    lower = bdrv_bitmap_create(file, "lower", 512, 0, NULL);
    assert_non_null(lower);
    assert_int_equal(write_at(w, 512, 1), 0);
    assert_int_equal(change_at(w, BDRV_OP_WRITE_ZEROES, 1024, 512), 0);
    assert_int_equal(change_at(w, BDRV_OP_DISCARD, 2048, 512), 0);
    is_dirty(upper, ".**.*...");
    is_dirty(lower, ".**.*...");
    assert_int_equal(bdrv_bitmap_remove(upper, NULL), 0);
    assert_ptr_equal(w->bs->through, file);
    assert_int_equal(write_at(w, 0, 1), 0);
    is_dirty(lower, "***.*...");
    assert_int_equal(bdrv_bitmap_remove(lower, NULL), 0);
    assert_null(file->bitmaps);
}

static void test_filters_mark_in_passing(void **state)
{
    struct world *w = *state;
    BdrvDirtyBitmap *bitmap;

    world_open(w, "driver=pass,discard=unmap,file.driver=raw,file.discard=unmap,"
                  "file.file.driver=file,file.file.filename=f,file.file.discard=unmap");
    bitmap = create(w, "b", 512, 0);
    assert_int_equal(write_at(w, 0, 513), 0);
    assert_int_equal(change_at(w, BDRV_OP_WRITE_ZEROES, 1536, 1), 0);
    assert_int_equal(change_at(w, BDRV_OP_DISCARD, 4000, 96), 0);
    is_dirty(bitmap, "**.*...*");
    fake.write_error = -EIO;
    assert_int_equal(write_at(w, 2048, 512), -EIO);
    is_dirty(bitmap, "**.**..*");
}

static void test_disabled_ones_do_not_record(void **state)
{
    struct world *w = *state;
    BdrvDirtyBitmap *bitmap;

    world_open(w, FILE_OPTS);
    bitmap = create(w, "b", 512, BDRV_BITMAP_DISABLED);
    assert_false(info_of(bitmap).recording);
    assert_int_equal(write_at(w, 0, 512), 0);
    is_dirty(bitmap, "........");
    assert_int_equal(bdrv_bitmap_enable(bitmap, NULL), 0);
    assert_int_equal(write_at(w, 512, 512), 0);
    assert_int_equal(bdrv_bitmap_disable(bitmap, NULL), 0);
    assert_int_equal(write_at(w, 1024, 512), 0);
    is_dirty(bitmap, ".*......");
    assert_int_equal(bdrv_bitmap_clear(bitmap, NULL), 0);
    is_dirty(bitmap, "........");
}

/* ---- bits ---- */

static void test_set_and_reset(void **state)
{
    struct world *w = *state;
    BdrvDirtyBitmap *bitmap;
    uint64_t offset;
    uint64_t bytes;

    world_open(w, FILE_OPTS);
    bitmap = create(w, "b", 512, BDRV_BITMAP_DISABLED);
    bdrv_bitmap_set(bitmap, 0, UINT64_MAX);
    is_dirty(bitmap, "********");
    assert_int_equal(bdrv_bitmap_reset(bitmap, 100, 1000), 0); /* one whole granule */
    is_dirty(bitmap, "*.******");
    assert_int_equal(bdrv_bitmap_reset(bitmap, 513, 510), 0);
    is_dirty(bitmap, "*.******");
    assert_int_equal(bdrv_bitmap_reset(bitmap, 3 * K, 4 * K), 0);
    is_dirty(bitmap, "*.****..");
    assert_true(bdrv_bitmap_next_dirty(bitmap, 1, 1300, &offset, &bytes));
    assert_int_equal(offset, 1);
    assert_int_equal(bytes, 511);
    assert_true(bdrv_bitmap_next_dirty(bitmap, 600, 1300, &offset, &bytes));
    assert_int_equal(offset, 1024);
    assert_int_equal(bytes, 276);
    assert_false(bdrv_bitmap_next_dirty(bitmap, 512, 1024, &offset, &bytes));
    assert_false(bdrv_bitmap_next_dirty(bitmap, 3 * K, UINT64_MAX, &offset, &bytes));
    assert_false(bdrv_bitmap_get(bitmap, UINT64_MAX));
    bdrv_bitmap_set(bitmap, UINT64_MAX, 5);
    bdrv_bitmap_set(bitmap, 0, 0);
}

static void test_merge(void **state)
{
    struct world *w = *state;
    BdrvDirtyBitmap *fine;
    BdrvDirtyBitmap *coarse;
    BdrvDirtyBitmap *same;
    BlockDriverState *other;
    BdrvDirtyBitmap *foreign;
    Error *err = NULL;

    world_open(w, FILE_OPTS);
    fine = create(w, "fine", 512, BDRV_BITMAP_DISABLED);
    same = create(w, "same", 512, BDRV_BITMAP_DISABLED);
    coarse = create(w, "coarse", 2 * K, BDRV_BITMAP_DISABLED);
    bdrv_bitmap_set(fine, 3 * K, 1);
    bdrv_bitmap_set(same, 0, 1);
    assert_int_equal(bdrv_bitmap_merge(same, fine, NULL), 0);
    is_dirty(same, "*.....*.");
    is_dirty(fine, "......*.");
    assert_int_equal(bdrv_bitmap_merge(coarse, fine, NULL), 0);
    is_dirty(coarse, "....****");
    assert_int_equal(bdrv_bitmap_merge(fine, coarse, NULL), 0);
    is_dirty(fine, "....****");
    assert_int_equal(bdrv_bitmap_merge(fine, fine, NULL), 0);

    fake.size = 2 * K;
    other = fake_open(w->pl, "driver=file,filename=g");
    foreign = bdrv_bitmap_create(other, "fine", 512, 0, NULL);
    assert_non_null(foreign);
    assert_int_equal(bdrv_bitmap_merge(fine, foreign, &err), -EINVAL);
    fake_expect_error(err, EINVAL, "destination size is 4096, source size is 2048");
    bdrv_unref(other);
    fake.size = 4 * K;
}

static void test_the_size_changes(void **state)
{
    struct world *w = *state;
    BdrvDirtyBitmap *bitmap;

    world_open(w, RAW_OPTS);
    bitmap = create(w, "b", 512, 0);
    assert_int_equal(write_at(w, 0, 4 * K), 0);
    w->edge->perm |= BDRV_PERM_RESIZE;
    fake.size = 1500;
    assert_int_equal(bdrv_refresh_size(bdrv_get_child(w->bs, "file")), 1500);
    is_dirty(bitmap, "***.....");
    fake.size = 4 * K;
    assert_int_equal(bdrv_refresh_size(bdrv_get_child(w->bs, "file")), 4 * K);
    is_dirty(bitmap, "***.....");
}

/* ---- who may ---- */

static void test_refusals(void **state)
{
    struct world *w = *state;
    char name[BDRV_BITMAP_NAME_BYTES_MAX + 2];
    BdrvDirtyBitmap *bitmap;
    Error *err = NULL;

    world_open(w, FILE_OPTS);
    memset(name, 'n', sizeof(name));
    name[BDRV_BITMAP_NAME_BYTES_MAX + 1] = '\0';
    create_fails(w, name, 0, 0, EINVAL, "longer than 1023");
    name[BDRV_BITMAP_NAME_BYTES_MAX] = '\0';
    bitmap = create(w, name, 0, 0);
    assert_int_equal(info_of(bitmap).granularity_bytes, 64 * K);
    create_fails(w, name, 0, 0, EEXIST, "already exists");
    create_fails(w, "", 0, 0, EINVAL, "cannot be empty");
    create_fails(w, "b", 256, 0, EINVAL, "Granularity");
    create_fails(w, "b", 3 * K, 0, EINVAL, "Granularity");
    create_fails(w, "b", UINT64_C(4) << 30, 0, EINVAL, "Granularity");
    create_fails(w, "b", 0, 64, EINVAL, "flags");
    create_fails(w, "b", 0, BDRV_BITMAP_PERSISTENT, ENOTSUP, "Operation not supported");
    create_fails(w, NULL, 0, BDRV_BITMAP_PERSISTENT, EINVAL, "needs a name");
    assert_ptr_equal(bdrv_bitmap_find(w->bs, name), bitmap);
    assert_null(bdrv_bitmap_find(w->bs, "b"));

    bdrv_bitmap_set_busy(bitmap, true);
    assert_int_equal(bdrv_bitmap_remove(bitmap, &err), -EBUSY);
    fake_expect_error(err, EBUSY, "in use by another operation");
    assert_int_equal(bdrv_bitmap_clear(bitmap, NULL), -EBUSY);
    assert_int_equal(bdrv_bitmap_enable(bitmap, NULL), -EBUSY);
    assert_int_equal(bdrv_bitmap_merge(bitmap, bitmap, NULL), -EBUSY);
    err = NULL;
    assert_int_equal(resize_to(w, 2 * K, &err), -EBUSY);
    fake_expect_error(err, EBUSY, "in use by another operation");
    bdrv_bitmap_set_busy(bitmap, false);
    assert_int_equal(resize_to(w, 2 * K, NULL), 0);
    assert_int_equal(bdrv_bitmap_remove(bitmap, NULL), 0);
    fake.size = 4 * K;
}

static void test_nameless_ones_are_not_found(void **state)
{
    struct world *w = *state;
    BdrvDirtyBitmap *first;
    BdrvDirtyBitmap *second;

    world_open(w, FILE_OPTS);
    first = create(w, NULL, 512, 0);
    second = create(w, NULL, 512, 0);
    assert_ptr_equal(bdrv_bitmap_next(w->bs, NULL), first);
    assert_ptr_equal(bdrv_bitmap_next(w->bs, first), second);
    assert_null(bdrv_bitmap_next(w->bs, second));
    assert_null(bdrv_bitmap_find(w->bs, "x"));
    assert_null(info_of(first).name);
}

/* Memory comes from the budget, and goes back when the bitmap or its node goes. */
static void test_memory(void **state)
{
    struct world *w = *state;
    struct mem_budget *budget;
    uint64_t before;
    BdrvDirtyBitmap *bitmap;

    world_open(w, FILE_OPTS);
    budget = bdrv_budget(w->bs);
    assert_int_equal(write_at(w, 0, 1), 0); /* a coroutine and its stack are in the pool now */
    before = atomic_load(&budget->used_bytes);
    bitmap = create(w, "b", 512, 0);
    assert_int_equal(atomic_load(&budget->used_bytes), before);
    assert_int_equal(write_at(w, 0, 1), 0);
    assert_int_equal(atomic_load(&budget->used_bytes), before + 4096);
    assert_int_equal(bdrv_bitmap_clear(bitmap, NULL), 0);
    assert_int_equal(atomic_load(&budget->used_bytes), before);
    assert_int_equal(write_at(w, 0, 1), 0);
    bdrv_root_detach(w->edge);
    bdrv_unref(w->bs);
    w->edge = NULL;
    assert_int_equal(atomic_load(&budget->used_bytes), before);
}

/* ---- images ---- */

static void test_flagged_before_the_first_change(void **state)
{
    struct world *w = *state;
    BdrvDirtyBitmap *bitmap;

    fake.stored_bitmaps = 2;
    fake.stored_state = BDRV_BITMAP_STATE_RECORDING;
    world_open(w, IMG_OPTS);
    bitmap = bdrv_bitmap_find(w->bs, "b1");
    assert_non_null(bitmap);
    assert_true(info_of(bitmap).persistent);
    assert_false(info_of(bitmap).in_use);
    fake.flag_error = -EIO;
    assert_int_equal(write_at(w, 0, 512), -EIO);
    assert_int_equal(fake.writes, 0); /* what is not flagged is not changed */
    assert_int_equal(fake.flags, 1);
    fake.flag_error = 0;
    assert_int_equal(write_at(w, 0, 512), 0);
    assert_int_equal(write_at(w, 512, 512), 0);
    assert_int_equal(fake.flags, 2); /* once */
    assert_true(info_of(bitmap).in_use);
    assert_int_equal(bdrv_bitmaps_store(w->bs, NULL), 0);
    assert_string_equal(fake.image_done, "store");
    assert_false(info_of(bitmap).in_use);
    assert_int_equal(write_at(w, 1024, 512), 0);
    assert_int_equal(fake.flags, 3);
    assert_int_equal(bdrv_bitmap_disable(bitmap, NULL), 0);
    assert_int_equal(bdrv_bitmap_enable(bitmap, NULL), 0);
    assert_int_equal(write_at(w, 0, 512), 0);
    assert_int_equal(fake.flags, 4);
    is_dirty(bitmap, "***.....");
}

static void test_removed_from_the_image(void **state)
{
    struct world *w = *state;
    BdrvDirtyBitmap *bitmap;
    Error *err = NULL;

    fake.stored_bitmaps = 1;
    world_open(w, IMG_OPTS);
    bitmap = bdrv_bitmap_find(w->bs, "b0");
    fake.image_result = -ENOSPC;
    fake.image_error = "full";
    assert_int_equal(bdrv_bitmap_remove(bitmap, &err), -ENOSPC);
    fake_expect_error(err, ENOSPC, "full");
    assert_ptr_equal(bdrv_bitmap_find(w->bs, "b0"), bitmap);
    fake.image_result = 0;
    fake.image_error = NULL;
    assert_int_equal(bdrv_bitmap_remove(bitmap, NULL), 0);
    assert_string_equal(fake.image_done, "remove b0");
    assert_null(bdrv_bitmap_next(w->bs, NULL));
    fake.image_done[0] = '\0';
    bitmap = create(w, "new", 512, BDRV_BITMAP_PERSISTENT);
    assert_int_equal(bdrv_bitmap_remove(bitmap, NULL), 0);
    assert_string_equal(fake.image_done, "remove new"); /* a store that failed may have left it */
    create_fails(w, "new", 8 * K, BDRV_BITMAP_PERSISTENT, EINVAL,
                 "Can't make bitmap 'new' persistent in 'i': too coarse");
}

static void test_inconsistent_ones_are_only_removed(void **state)
{
    struct world *w = *state;
    BdrvDirtyBitmap *bitmap;
    BdrvDirtyBitmap *good;
    Error *err = NULL;

    fake.stored_bitmaps = 1;
    fake.stored_state =
        BDRV_BITMAP_STATE_INCONSISTENT | BDRV_BITMAP_STATE_IN_USE | BDRV_BITMAP_STATE_RECORDING;
    world_open(w, IMG_OPTS);
    bitmap = bdrv_bitmap_find(w->bs, "b0");
    good = create(w, "good", 512, 0);
    assert_true(info_of(bitmap).inconsistent);
    assert_int_equal(write_at(w, 0, 512), 0);
    bdrv_bitmap_set(bitmap, 0, 512);
    is_dirty(bitmap, "........");
    assert_int_equal(info_of(bitmap).dirty_bytes, 0);
    assert_int_equal(bdrv_bitmap_clear(bitmap, &err), -EINVAL);
    fake_expect_error(err, EINVAL, "Bitmap 'b0' is inconsistent and cannot be used");
    assert_int_equal(bdrv_bitmap_enable(bitmap, NULL), -EINVAL);
    assert_int_equal(bdrv_bitmap_merge(bitmap, good, NULL), -EINVAL);
    assert_int_equal(bdrv_bitmap_merge(good, bitmap, NULL), -EINVAL);
    err = NULL;
    assert_int_equal(resize_to(w, 2 * K, &err), -EINVAL);
    fake_expect_error(err, EINVAL, "inconsistent");
    assert_int_equal(bdrv_bitmap_remove(bitmap, NULL), 0);
    assert_int_equal(resize_to(w, 2 * K, NULL), 0);
    is_dirty(good, "*.......");
    fake.size = 4 * K;
}

static void test_resizing_flags_all(void **state)
{
    struct world *w = *state;
    BdrvDirtyBitmap *bitmap;
    Error *err = NULL;

    fake.stored_bitmaps = 1;
    world_open(w, IMG_OPTS);
    bitmap = bdrv_bitmap_find(w->bs, "b0");
    assert_int_equal(write_at(w, 0, 512), 0);
    assert_false(info_of(bitmap).in_use); /* it does not record */
    fake.resize_error = -EFBIG;
    assert_int_equal(resize_to(w, 2 * K, &err), -EFBIG);
    fake_expect_error(err, EFBIG, "too large");
    assert_false(info_of(bitmap).in_use);
    fake.resize_error = 0;
    assert_int_equal(resize_to(w, 2 * K, NULL), 0);
    assert_true(info_of(bitmap).in_use);
    assert_int_equal(bdrv_getlength(w->bs), 2 * K);
    err = NULL;
    assert_int_equal(bdrv_snapshot_apply(w->bs, "s", &err), -EBUSY);
    fake_expect_error(err, EBUSY, "active dirty bitmaps");
    fake.size = 4 * K;
}

static void test_read_only(void **state)
{
    struct world *w = *state;
    BdrvDirtyBitmap *bitmap;
    Error *err = NULL;

    fake.stored_bitmaps = 1;
    w->bs = fake_open(w->pl, IMG_OPTS ",read-only=on");
    bitmap = bdrv_bitmap_find(w->bs, "b0");
    assert_non_null(bitmap);
    assert_int_equal(bdrv_bitmap_clear(bitmap, &err), -EPERM);
    fake_expect_error(err, EPERM, "read-only");
    assert_int_equal(bdrv_bitmap_remove(bitmap, NULL), -EPERM);
    create_fails(w, "b", 512, BDRV_BITMAP_PERSISTENT, EPERM, "read-only");
    assert_non_null(bdrv_bitmap_create(w->bs, "b", 512, 0, NULL));
    assert_int_equal(bdrv_bitmaps_store(w->bs, NULL), 0);
    assert_string_equal(fake.image_done, "");
    bdrv_unref(w->bs);
}

#define T(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(every_change_marks),
        T(a_failed_change_marks),
        T(folded_and_passing_nodes),
        T(filters_mark_in_passing),
        T(disabled_ones_do_not_record),
        T(set_and_reset),
        T(merge),
        T(the_size_changes),
        T(refusals),
        T(nameless_ones_are_not_found),
        T(memory),
        T(flagged_before_the_first_change),
        T(removed_from_the_image),
        T(inconsistent_ones_are_only_removed),
        T(resizing_flags_all),
        T(read_only),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
