/* SPDX-License-Identifier: MIT */
/*
 * Dirty bitmaps of a qcow2 image while two contexts write to it and the control thread makes,
 * clears, merges, stores and removes bitmaps: what was written is dirty in the bitmap that recorded
 * all the time, exactly, and each part of it was seen by whoever took bits away.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <platter/backend.h>
#include <platter/bitmap.h>
#include <platter/coroutine.h>

#include "os/sim/sim_rng.h"

#define DISK_BYTES (4u << 20)
#define GRANULE 4096u
#define GRANULES (DISK_BYTES / GRANULE)
#define WRITERS 2
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define WRITES 400
#else
#define WRITES 2000
#endif

static char dir[] = "/var/tmp/platter-bitmaps-XXXXXX";

struct writer {
    BlockBackend *blk;
    AioContext *ctx;
    struct sim_rng rng;
    bool written[GRANULES]; /* asked for, whatever was answered */
    int failed;
    _Atomic bool done;
};

static void writer_entry(void *opaque)
{
    struct writer *w = opaque;
    uint8_t buf[GRANULE];
    struct iovec iov = {buf, GRANULE};
    struct iov_view view = {&iov, 1, GRANULE};

    memset(buf, 0x5a, sizeof(buf));
    for (int i = 0; i < WRITES; i++) {
        uint64_t g = sim_rng_below(&w->rng, GRANULES);
        int64_t at = (int64_t)(g * GRANULE);
        unsigned kind = (unsigned)sim_rng_below(&w->rng, 10);
        int rc;

        w->written[g] = true;
        if (kind < 8) {
            rc = blk_co_pwritev(w->blk, at, &view, 0);
        } else {
            rc = kind == 8 ? blk_co_pwrite_zeroes(w->blk, at, GRANULE, 0)
                           : blk_co_pdiscard(w->blk, at, GRANULE);
        }
        w->failed += rc < 0;
    }
    w->done = true;
}

static void *writer_thread(void *opaque)
{
    struct writer *w = opaque;

    aio_context_set_current(w->ctx);
    coroutine_enter(coroutine_create(writer_entry, w));
    while (!w->done) {
        aio_poll(w->ctx, true);
    }
    aio_context_set_current(NULL);
    return NULL;
}

static BlockBackend *open_image(Platter *pl)
{
    char text[256];
    Error *err = NULL;
    BlockBackend *blk;

    snprintf(text, sizeof(text),
             "driver=qcow2,discard=unmap,file.driver=file,file.cache.no-flush=on,"
             "file.filename=%s/d.qcow2",
             dir);
    blk = blk_new_open(pl, "d", NULL, NULL, block_options_parse(text, NULL, NULL),
                       BDRV_O_RDWR | BDRV_O_UNMAP, &err);
    if (blk == NULL) {
        fail_msg("%s", error_get_pretty(err));
    }
    return blk;
}

static void make_image(Platter *pl)
{
    char path[256];
    char text[128];
    Error *err = NULL;

    snprintf(path, sizeof(path), "%s/d.qcow2", dir);
    snprintf(text, sizeof(text), "driver=qcow2,cluster_size=4096,size=%u", DISK_BYTES);
    if (bdrv_create(pl, path, block_options_parse(text, NULL, NULL), &err) < 0) {
        fail_msg("%s", error_get_pretty(err));
    }
}

static BdrvDirtyBitmap *make_bitmap(BlockDriverState *bs, const char *name, unsigned flags)
{
    Error *err = NULL;
    BdrvDirtyBitmap *bitmap = bdrv_bitmap_create(bs, name, GRANULE, flags, &err);

    if (bitmap == NULL) {
        fail_msg("%s: %s", name, error_get_pretty(err));
    }
    return bitmap;
}

/* As a backup does: take the bits away one range after the other, while others set them. */
static void take(BdrvDirtyBitmap *bitmap, bool *seen)
{
    uint64_t offset = 0;
    uint64_t bytes = 0;

    while (bdrv_bitmap_next_dirty(bitmap, offset + bytes, DISK_BYTES, &offset, &bytes)) {
        assert_int_equal(bdrv_bitmap_reset(bitmap, offset, bytes), 0);
        for (uint64_t at = offset; at < offset + bytes; at += GRANULE) {
            seen[at / GRANULE] = true;
        }
    }
}

static void control_step(BlockDriverState *bs, struct sim_rng *rng, BdrvDirtyBitmap *taken,
                         bool *seen)
{
    BdrvDirtyBitmap *other = bdrv_bitmap_find(bs, "other");

    switch (sim_rng_below(rng, 8)) {
    case 0:
        assert_int_equal(bdrv_bitmaps_store(bs, NULL), 0);
        break;
    case 1:
        if (other == NULL) {
            make_bitmap(bs, "other", sim_rng_percent(rng, 50) ? BDRV_BITMAP_PERSISTENT : 0);
        }
        break;
    case 2:
        if (other != NULL) {
            assert_int_equal(bdrv_bitmap_remove(other, NULL), 0);
        }
        break;
    case 3:
        if (other != NULL) {
            assert_int_equal(bdrv_bitmap_merge(other, taken, NULL), 0);
            assert_int_equal(bdrv_bitmap_disable(other, NULL), 0);
        }
        break;
    case 4:
        if (other != NULL) {
            assert_int_equal(bdrv_bitmap_clear(other, NULL), 0);
            assert_int_equal(bdrv_bitmap_enable(other, NULL), 0);
        }
        break;
    default:
        take(taken, seen);
        break;
    }
}

static void check_all(BlockDriverState *bs, const struct writer *w, const bool *seen)
{
    BdrvDirtyBitmap *all = bdrv_bitmap_find(bs, "all");
    struct bdrv_bitmap_info info;

    assert_non_null(all);
    bdrv_bitmap_get_info(all, &info);
    assert_false(info.inconsistent);
    for (uint64_t g = 0; g < GRANULES; g++) {
        bool written = w[0].written[g] || w[1].written[g];

        assert_int_equal(bdrv_bitmap_get(all, g * GRANULE), written);
        assert_true(seen == NULL || seen[g] == written);
    }
}

static void run(Platter *pl, uint64_t seed)
{
    static struct writer w[WRITERS];
    static bool seen[GRANULES];
    BlockBackend *blk = open_image(pl);
    BlockDriverState *bs = blk_bs(blk);
    BdrvDirtyBitmap *taken;
    pthread_t thread[WRITERS];
    struct sim_rng rng;

    sim_rng_init(&rng, seed);
    memset(seen, 0, sizeof(seen));
    make_bitmap(bs, "all", BDRV_BITMAP_PERSISTENT);
    taken = make_bitmap(bs, "taken", 0);
    for (int i = 0; i < WRITERS; i++) {
        w[i] = (struct writer){.blk = blk, .ctx = aio_context_new(NULL, NULL)};
        assert_non_null(w[i].ctx);
        sim_rng_init(&w[i].rng, seed + 1 + (uint64_t)i);
        assert_int_equal(pthread_create(&thread[i], NULL, writer_thread, &w[i]), 0);
    }
    while (!w[0].done || !w[1].done) {
        control_step(bs, &rng, taken, seen);
        aio_poll(platter_get_main_context(pl), false);
    }
    for (int i = 0; i < WRITERS; i++) {
        assert_int_equal(pthread_join(thread[i], NULL), 0);
        assert_int_equal(w[i].failed, 0);
        aio_context_unref(w[i].ctx);
    }
    take(taken, seen);
    check_all(bs, w, seen);
    blk_unref(blk);

    blk = open_image(pl); /* and so it came back */
    check_all(blk_bs(blk), w, NULL);
    blk_unref(blk);
}

static void written_from_two_contexts(void **state)
{
    const char *text = getenv("PLATTER_SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 0) : 20240625;
    Platter *pl = platter_new(NULL, NULL);

    (void)state;
    printf("PLATTER_SEED=%llu\n", (unsigned long long)seed);
    assert_non_null(pl);
    for (uint64_t round = 0; round < 3; round++) {
        make_image(pl);
        run(pl, seed + 10 * round);
    }
    platter_free(pl);
}

static int setup(void **state)
{
    return mkdtemp(dir) != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    char path[256];

    snprintf(path, sizeof(path), "%s/d.qcow2", dir);
    unlink(path);
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(written_from_two_contexts)};

    return cmocka_run_group_tests(tests, setup, teardown);
}
