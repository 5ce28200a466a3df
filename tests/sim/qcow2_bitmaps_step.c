/* SPDX-License-Identifier: MIT */
/* The steps of the programs, and the model of the disk and of the node's bitmaps. */
#include "qcow2_bitmaps.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <platter/bitmap.h>
#include <platter/image.h>

/* ---- the node's bitmaps and the model ---- */

static BdrvDirtyBitmap *map_of(struct bitmaps_test *t, int m)
{
    return bdrv_bitmap_find(blk_bs(t->h.blk), bm_names[m]);
}

/* The state of the node's bitmap, as a store would put it into the image. */
static void capture(struct bitmaps_test *t, int m, struct stored *s)
{
    BdrvDirtyBitmap *bitmap = map_of(t, m);
    struct bdrv_bitmap_info info;

    *s = t->now[m];
    s->exists = bitmap != NULL;
    if (bitmap == NULL) {
        return;
    }
    bdrv_bitmap_get_info(bitmap, &info);
    s->lost = info.inconsistent;
    s->automatic = info.recording;
    s->granularity_bits = (unsigned)__builtin_ctzll(info.granularity_bytes);
    s->disk_bytes = t->disk_bytes;
    for (uint64_t i = 0; i << s->granularity_bits < t->disk_bytes; i++) {
        s->bits[i] = bdrv_bitmap_get(bitmap, i << s->granularity_bits);
    }
}

/* A directory may be in the image from now on; returns it to be filled. */
static struct directory *candidate_new(struct bitmaps_test *t)
{
    struct directory *d = &t->known[1];

    while (d->valid && d < &t->known[CANDIDATES - 1]) {
        d++;
    }
    memset(d, 0, sizeof(*d));
    return d;
}

/* The operation that was to write d has ended. After a failure any of them may be the image's. */
static void candidate_end(struct bitmaps_test *t, const struct directory *d, int rc)
{
    if (rc == 0) {
        memmove(&t->known[0], d, sizeof(*d));
        for (int i = 1; i < CANDIDATES; i++) {
            t->known[i].valid = false;
        }
    }
}

/* What a change left behind: ok: value at each byte; else nobody knows. */
static void changed(struct bitmaps_test *t, uint64_t offset, uint64_t bytes, const uint8_t *value,
                    bool ok)
{
    if (ok) {
        memcpy(t->content + offset, value, bytes);
    }
    for (uint64_t g = offset / GRANULE; g < (offset + bytes) / GRANULE; g++) {
        t->tainted[g] = !ok;
    }
    for (int m = 0; m < MAPS; m++) {
        BdrvDirtyBitmap *bitmap = map_of(t, m);
        struct bdrv_bitmap_info info;

        if (bitmap == NULL) {
            continue;
        }
        bdrv_bitmap_get_info(bitmap, &info);
        if (!info.recording) { /* it does not see this */
            memcpy(t->now[m].base + offset, t->content + offset, bytes);
            memcpy(t->now[m].tainted + offset / GRANULE, t->tainted + offset / GRANULE,
                   bytes / GRANULE);
        }
    }
}

static void map_begins(struct bitmaps_test *t, int m)
{
    memcpy(t->now[m].base, t->content, DISK_MAX);
    memcpy(t->now[m].tainted, t->tainted, sizeof(t->tainted));
    t->now[m].lost = false;
}

/* ---- steps ---- */

static int done(struct bitmaps_test *t, const char *what, int rc)
{
    if (rc < 0 && !t->faults) {
        bm_wrong(t, "%s: %s", what, strerror(-rc));
    }
    return rc;
}

static void step_change(struct bitmaps_test *t)
{
    uint8_t *buf = calloc(1, DISK_MAX);
    uint64_t granules = t->disk_bytes / GRANULE;
    uint64_t offset = sim_rng_below(&t->rng, granules) * GRANULE;
    uint64_t bytes = (1 + sim_rng_below(&t->rng, 12)) * GRANULE;
    unsigned kind = (unsigned)sim_rng_below(&t->rng, 10);
    struct iovec iov = {.iov_base = buf};
    struct iov_view view = {.iov = &iov, .niov = 1};
    int rc;

    assert_non_null(buf);
    bytes = bytes > t->disk_bytes - offset ? t->disk_bytes - offset : bytes;
    if (kind < 6) {
        memset(buf, 1 + (int)sim_rng_below(&t->rng, 255), bytes);
        iov.iov_len = bytes;
        view.bytes = bytes;
        rc = done(t, "write", blk_pwritev(t->h.blk, (int64_t)offset, &view, 0));
        changed(t, offset, bytes, buf, rc == 0);
    } else if (kind < 8) {
        rc = done(t, "zeroes",
                  blk_pwrite_zeroes(t->h.blk, (int64_t)offset, (int64_t)bytes,
                                    kind == 6 ? BDRV_REQ_MAY_UNMAP : 0));
        changed(t, offset, bytes, buf, rc == 0);
    } else {
        (void)done(t, "discard", blk_pdiscard(t->h.blk, (int64_t)offset, (int64_t)bytes));
        changed(t, offset, bytes, buf, false); /* zeroes or what was there */
    }
    free(buf);
}

static void step_make(struct bitmaps_test *t, int m)
{
    static const uint64_t granularities[] = {512, 512, 4096, 65536};
    unsigned flags =
        BDRV_BITMAP_PERSISTENT | (sim_rng_percent(&t->rng, 25) ? BDRV_BITMAP_DISABLED : 0);
    Error *err = NULL;

    if (map_of(t, m) != NULL) {
        return;
    }
    if (bdrv_bitmap_create(blk_bs(t->h.blk), bm_names[m], granularities[sim_rng_below(&t->rng, 4)],
                           flags, &err) == NULL) {
        (void)done(t, "create", -error_get_errno(err));
        error_free(err);
        return;
    }
    map_begins(t, m);
}

static void step_remove(struct bitmaps_test *t, int m)
{
    BdrvDirtyBitmap *bitmap = map_of(t, m);
    struct directory *d;

    if (bitmap == NULL) {
        return;
    }
    d = candidate_new(t);
    *d = t->known[0];
    d->maps[m].exists = false;
    candidate_end(t, d, done(t, "remove", bdrv_bitmap_remove(bitmap, NULL)));
}

static void step_alter(struct bitmaps_test *t, int m)
{
    BdrvDirtyBitmap *bitmap = map_of(t, m);
    BdrvDirtyBitmap *other = map_of(t, (int)sim_rng_below(&t->rng, MAPS));
    unsigned kind = (unsigned)sim_rng_below(&t->rng, 4);

    if (bitmap == NULL) {
        return;
    }
    if (kind == 0 && bdrv_bitmap_clear(bitmap, NULL) == 0) {
        map_begins(t, m);
    } else if (kind == 1) {
        (void)bdrv_bitmap_enable(bitmap, NULL);
    } else if (kind == 2) {
        (void)bdrv_bitmap_disable(bitmap, NULL);
    } else if (other != NULL) {
        (void)bdrv_bitmap_merge(bitmap, other, NULL);
    }
}

static struct directory *about_to_store(struct bitmaps_test *t)
{
    struct directory *d = candidate_new(t);

    for (int m = 0; m < MAPS; m++) {
        capture(t, m, &d->maps[m]);
    }
    d->valid = true;
    return d;
}

static void step_store(struct bitmaps_test *t)
{
    const struct directory *d = about_to_store(t);

    candidate_end(t, d, done(t, "store", bdrv_bitmaps_store(blk_bs(t->h.blk), NULL)));
}

static const char disk_options[] =
    "driver=qcow2,discard=unmap,file.driver=file,file.discard=unmap,file.filename=" SIM_DISK_PATH;

/* An image that was left dirty (lazy refcounts, and a close that failed) is repaired first. */
static int open_repaired(struct bitmaps_test *t)
{
    const struct bdrv_check_options fix = {.size = sizeof(fix),
                                           .fix = BDRV_FIX_LEAKS | BDRV_FIX_ERRORS};
    struct bdrv_check_result result;
    int rc = harness_open(&t->h, disk_options, BDRV_O_RDWR | BDRV_O_UNMAP);

    if (rc != -EROFS) {
        return rc;
    }
    rc = harness_open(&t->h, disk_options, BDRV_O_RDWR | BDRV_O_CHECK);
    if (rc == 0) {
        rc = bdrv_check(blk_bs(t->h.blk), &fix, &result, NULL);
        blk_unref(t->h.blk);
        t->h.blk = NULL;
    }
    return rc == 0 ? harness_open(&t->h, disk_options, BDRV_O_RDWR | BDRV_O_UNMAP) : rc;
}

void bm_open_disk(struct bitmaps_test *t)
{
    int rc = open_repaired(t);

    if (rc < 0 && t->faults) {
        sim_faults_clear(sim_world_faults(t->h.world));
        rc = open_repaired(t);
    }
    if (rc < 0) {
        bm_wrong(t, "open: %s", strerror(-rc));
    }
}

/* The model follows what was loaded. */
static void loaded(struct bitmaps_test *t, const struct directory *d)
{
    for (int m = 0; m < MAPS; m++) {
        const struct stored *want = &d->maps[m];
        const struct qv_bitmap *b = qv_bitmap_find(&t->im, bm_names[m]);
        struct stored got;

        capture(t, m, &got);
        if (got.exists != want->exists) {
            bm_wrong(t, "bitmap '%s' was %s", bm_names[m], got.exists ? "made up" : "not loaded");
        } else if (got.exists && got.lost != (b != NULL && (b->flags & 1))) {
            bm_wrong(t, "bitmap '%s' is %s", bm_names[m], got.lost ? "inconsistent" : "believed");
        } else if (got.exists && !got.lost &&
                   (got.automatic != want->automatic ||
                    memcmp(got.bits, want->bits, sizeof(got.bits)) != 0)) {
            bm_wrong(t, "bitmap '%s' was loaded with other bits", bm_names[m]);
        }
        t->now[m] = *want;
        t->now[m].lost = got.lost;
    }
}

static void learn_content(struct bitmaps_test *t)
{
    struct iovec iov = {.iov_base = t->content, .iov_len = t->disk_bytes};
    struct iov_view view = {.iov = &iov, .niov = 1, .bytes = t->disk_bytes};

    if (done(t, "read", blk_preadv(t->h.blk, 0, &view, 0)) == 0) {
        memset(t->tainted, 0, sizeof(t->tainted));
    }
    for (int m = 0; m < MAPS; m++) {
        if (!t->now[m].automatic) { /* what was answered, not flushed and lost it did not see */
            memcpy(t->now[m].base, t->content, DISK_MAX);
        }
    }
}

void bm_step_reopen(struct bitmaps_test *t)
{
    struct sim_disk *disk;
    const char *fault = "no image";
    int i;

    about_to_store(t)->valid = true;
    blk_unref(t->h.blk);
    t->h.blk = NULL;
    bm_open_disk(t);
    if (t->h.blk == NULL) {
        return;
    }
    if (blk_getlength(t->h.blk) > 0) { /* after a resize that failed it may be either */
        t->disk_bytes = (uint64_t)blk_getlength(t->h.blk);
    }
    disk = sim_world_clone_disk(t->h.world, SIM_DISK_PATH);
    i = disk != NULL && bm_image_of(t, disk) ? bm_candidate_of(t, &fault) : -1;
    sim_disk_free(disk);
    if (i < 0) {
        bm_wrong(t, "after closing: %s", t->wrong[0] ? t->wrong : fault);
        return;
    }
    t->loads++;
    if (i == 0 && !t->faults) {
        bm_wrong(t, "closing stored nothing");
    }
    candidate_end(t, &t->known[i], 0);
    for (int m = 0; m < MAPS; m++) {
        const struct qv_bitmap *b = qv_bitmap_find(&t->im, bm_names[m]);

        t->known[0].maps[m].lost = b != NULL && (b->flags & 1);
        if (t->known[0].maps[m].lost && !t->faults) {
            bm_wrong(t, "a bitmap was lost without a failure");
        }
    }
    loaded(t, &t->known[0]);
    learn_content(t);
}

static void step_resize(struct bitmaps_test *t)
{
    uint64_t bytes = (16 + sim_rng_below(&t->rng, GRANULES - 16)) * GRANULE;
    uint64_t old = t->disk_bytes;
    int rc = blk_resize(t->h.blk, (int64_t)bytes, true, BDRV_PREALLOC_OFF, 0);
    int64_t now = blk_getlength(t->h.blk);

    if (rc < 0 && rc != -EINVAL) { /* an inconsistent bitmap refuses it */
        (void)done(t, "resize", rc);
    }
    t->disk_bytes = now > 0 ? (uint64_t)now : old;
    if (rc < 0 && bytes < t->disk_bytes) {
        changed(t, bytes, t->disk_bytes - bytes, NULL, false); /* some of it may be gone */
    }
    for (uint64_t at = t->disk_bytes < old ? t->disk_bytes : old; at < DISK_MAX; at += GRANULE) {
        memset(t->content + at, 0, GRANULE);
        t->tainted[at / GRANULE] = rc < 0;
        for (int m = 0; m < MAPS; m++) {
            memset(t->now[m].base + at, 0, GRANULE);
            t->now[m].tainted[at / GRANULE] = rc < 0;
        }
    }
}

void bm_step(struct bitmaps_test *t)
{
    int m = (int)sim_rng_below(&t->rng, MAPS);
    unsigned what = (unsigned)sim_rng_below(&t->rng, 100);

    if (what < 55) {
        step_change(t);
    } else if (what < 62) {
        (void)done(t, "flush", blk_flush(t->h.blk));
    } else if (what < 72) {
        step_make(t, m);
    } else if (what < 76) {
        step_remove(t, m);
    } else if (what < 86) {
        step_alter(t, m);
    } else if (what < 91) {
        step_store(t);
    } else if (what < 96) {
        bm_step_reopen(t);
    } else {
        step_resize(t);
    }
}
