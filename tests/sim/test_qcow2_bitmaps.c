/* SPDX-License-Identifier: MIT */
/*
 * Persistent bitmaps through cuts of power and errors of the storage. Random programs change the
 * disk, make, change, store and remove bitmaps, resize and reopen. At every change of the file the
 * power is cut on copies of it, and a reader that shares no code with the driver looks at them:
 *
 *  - the structure is right but for leaks;
 *  - the directory is one that we know the image to have: the last one stored, or the one that is
 *    being stored;
 *  - a bitmap that is not flagged as in use has exactly the bits that were stored, and what is
 * clean in one that records reads as it did when the bitmap was made or cleared: never clean for a
 *    dirty range.
 *
 * Then the same with the n-th call of the storage failing, once and from then on.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <platter/backend.h>
#include <platter/bitmap.h>
#include <platter/image.h>
#include <platter/options.h>

#include "qcow2_verify.h"
#include "sim_harness.h"

#define DISK_MAX (128u << 10)
#define GRANULE 512u
#define GRANULES (DISK_MAX / GRANULE)
#define MAPS 3
#define CANDIDATES 24
#define SUBSETS_OF_PENDING 3
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STEPS 60
#define ERROR_STRIDE 37
#else
#define STEPS 400
#define ERROR_STRIDE 3
#endif

/* A bitmap as the image is to have it. */
struct stored {
    bool exists;
    bool lost; /* it can only be flagged as in use */
    bool automatic;
    unsigned granularity_bits;
    uint64_t disk_bytes;
    bool bits[GRANULES];
    uint8_t base[DISK_MAX]; /* what the disk held where it is clean */
    bool tainted[GRANULES]; /* granules where base does not know */
};
struct directory {
    bool valid;
    struct stored maps[MAPS];
};

struct bitmaps_test {
    struct harness h;
    const char *name;
    struct sim_rng rng;
    struct sim_rng cut_rng;
    uint64_t disk_bytes;
    uint8_t content[DISK_MAX]; /* as answered */
    bool tainted[GRANULES];    /* a change of it failed */
    struct stored now[MAPS];   /* base, tainted, lost, exists: of the bitmaps of the node */
    struct directory known[CANDIDATES];
    bool faults;
    struct qv_image im;
    uint8_t *buf;
    size_t buf_room;
    unsigned boundaries, cuts, loads;
    char wrong[256]; /* the first thing; empty: none */
};

static const char *const bm_names[MAPS] = {"one", "two", "a third name"};

static void bm_wrong(struct bitmaps_test *t, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static void bm_wrong(struct bitmaps_test *t, const char *fmt, ...)
{
    va_list ap;

    if (t->wrong[0] == '\0') {
        va_start(ap, fmt);
        vsnprintf(t->wrong, sizeof(t->wrong), fmt, ap);
        va_end(ap);
    }
}

/* ---- what an image has ---- */

static bool same_bits(struct bitmaps_test *t, const struct qv_bitmap *b, const struct stored *s)
{
    uint64_t count = (s->disk_bytes + (1u << s->granularity_bits) - 1) >> s->granularity_bits;

    for (uint64_t i = 0; i < count; i++) {
        if (qv_bitmap_bit(&t->im, b, i) != s->bits[i]) {
            return false;
        }
    }
    return true;
}

/* Whether all that is clean is as it was. */
static bool clean_is_unchanged(struct bitmaps_test *t, const struct stored *s)
{
    uint8_t buf[GRANULE];

    for (uint64_t at = 0; at + GRANULE <= s->disk_bytes; at += GRANULE) {
        if (s->bits[at >> s->granularity_bits] || s->tainted[at / GRANULE]) {
            continue;
        }
        if (!qv_read(&t->im, -1, at, buf, GRANULE) || memcmp(buf, s->base + at, GRANULE) != 0) {
            return false;
        }
    }
    return true;
}

static const char *map_fault(struct bitmaps_test *t, const struct qv_bitmap *b,
                             const struct stored *s)
{
    if (b->granularity_bits != s->granularity_bits) {
        return "another granularity";
    }
    if (b->flags & 1) {
        return NULL;
    }
    if (s->lost) {
        return "one that was lost is not flagged";
    }
    if (((b->flags & 2) != 0) != s->automatic) {
        return "another auto flag";
    }
    if (t->im.h.disk_bytes != s->disk_bytes) {
        return "not flagged on a disk of another size";
    }
    if (!same_bits(t, b, s)) {
        return "other bits";
    }
    return s->automatic && !clean_is_unchanged(t, s) ? "clean for a dirty range" : NULL;
}

/* Why t->im does not have this directory; NULL: it has. */
static const char *directory_fault(struct bitmaps_test *t, const struct directory *d)
{
    uint32_t count = 0;

    for (int m = 0; m < MAPS; m++) {
        const struct qv_bitmap *b = qv_bitmap_find(&t->im, bm_names[m]);
        const char *fault;

        if (!d->maps[m].exists) {
            continue;
        }
        count++;
        fault = b != NULL ? map_fault(t, b, &d->maps[m]) : "a bitmap is gone";
        if (fault != NULL) {
            return fault;
        }
    }
    return t->im.bitmap_count == count ? NULL : "a bitmap that should not be there";
}

/* The bytes of a disk as an image in t->im, its structure judged. */
static bool bm_image_of(struct bitmaps_test *t, const struct sim_disk *disk)
{
    size_t bytes = sim_disk_size(disk);

    if (bytes > t->buf_room) {
        free(t->buf);
        t->buf = malloc(bytes);
        t->buf_room = t->buf != NULL ? bytes : 0;
    }
    if (t->buf == NULL) {
        bm_wrong(t, "no memory");
        return false;
    }
    sim_disk_read(disk, 0, t->buf, bytes);
    if (!qv_parse(&t->im, (struct qv_bytes){t->buf, bytes}, (struct qv_bytes){0},
                  (struct qv_bytes){0})) {
        bm_wrong(t, "cannot be opened: %s", t->im.text);
        return false;
    }
    qv_verify(&t->im);
    if (!qv_sound(&t->im)) {
        bm_wrong(t, "structure: %s", t->im.text);
        return false;
    }
    return true;
}

/* The newest candidate that t->im has, or -1. */
static int bm_candidate_of(struct bitmaps_test *t, const char **ret_fault)
{
    *ret_fault = "no candidate";
    for (int i = CANDIDATES - 1; i >= 0; i--) {
        if (t->known[i].valid) {
            const char *fault = directory_fault(t, &t->known[i]);

            if (fault == NULL) {
                return i;
            }
            *ret_fault = fault;
        }
    }
    return -1;
}

static void judge(struct bitmaps_test *t, const struct sim_disk *disk)
{
    const char *fault = "no image";

    harness_own++;
    if (bm_image_of(t, disk) && bm_candidate_of(t, &fault) < 0) {
        bm_wrong(t, "%s", fault);
    }
    harness_own--;
}

static void cut_copy(struct bitmaps_test *t, const struct sim_disk *disk, int subset)
{
    struct sim_disk *copy = sim_disk_clone(disk);
    static const uint8_t none[SIM_PENDING_MAX / 8];
    uint8_t bits = (uint8_t)subset;
    int rc = -ENOMEM;

    if (copy != NULL) {
        rc = subset < 0 ? sim_disk_power_cut(copy, &t->cut_rng)
                        : sim_disk_power_cut_subset(copy, subset ? &bits : none);
    }
    if (rc == 0) {
        judge(t, copy);
    } else {
        bm_wrong(t, "no memory");
    }
    t->cuts++;
    sim_disk_free(copy);
}

static void bm_boundary(void *opaque, const char *path, const struct sim_disk *disk)
{
    struct bitmaps_test *t = opaque;
    size_t pending = sim_disk_pending(disk);
    int subsets = pending <= SUBSETS_OF_PENDING ? 1 << pending : 1;

    t->boundaries++;
    if (t->wrong[0] != '\0') {
        return;
    }
    for (int subset = 0; subset < subsets; subset++) {
        cut_copy(t, disk, subset);
    }
    cut_copy(t, disk, -1);
    cut_copy(t, disk, -1);
}

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

static void bm_open_disk(struct bitmaps_test *t)
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

static void bm_step_reopen(struct bitmaps_test *t)
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

static void bm_step(struct bitmaps_test *t)
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

/* ---- runs ---- */

static void begin(struct bitmaps_test *t, const char *options, uint64_t seed)
{
    BlockOptions *create;
    Error *err = NULL;
    char text[128];

    *t = (struct bitmaps_test){.name = options, .disk_bytes = DISK_MAX / 2};
    sim_rng_init(&t->rng, seed);
    sim_rng_init(&t->cut_rng, seed + 1);
    harness_begin(&t->h, seed, 0, NULL);
    assert_int_equal(harness_platter(&t->h), 0);
    snprintf(text, sizeof(text), "driver=qcow2,size=%llu,%s", (unsigned long long)t->disk_bytes,
             options);
    create = block_options_parse(text, NULL, &err);
    assert_non_null(create);
    if (bdrv_create(t->h.pl, SIM_DISK_PATH, create, &err) < 0) {
        fail_msg("create: %s", error_get_pretty(err));
    }
    t->known[0].valid = true;
    bm_open_disk(t);
    assert_string_equal(t->wrong, "");
}

static void end(struct bitmaps_test *t, uint64_t seed)
{
    sim_world_on_change(t->h.world, NULL, NULL);
    qv_fini(&t->im);
    free(t->buf);
    assert_int_equal(harness_end(&t->h), 0);
    if (t->wrong[0] != '\0') {
        fail_msg("%s: %s (seed %llu)", t->name, t->wrong, (unsigned long long)seed);
    }
}

static const char *const images[] = {
    "cluster_size=512",
    "cluster_size=4096",
    "cluster_size=4096,lazy_refcounts=on",
    "cluster_size=16384,extended_l2=on",
};
#define IMAGES (sizeof(images) / sizeof(images[0]))

static unsigned long rounds(void)
{
    const char *text = getenv("PLATTER_ROUNDS");

    return text != NULL ? strtoul(text, NULL, 0) : 1;
}

static void test_power_cuts(void **state)
{
    static struct bitmaps_test t;
    uint64_t seed = harness_seed(20240620);

    (void)state;
    for (unsigned long round = 0; round < rounds(); round++) {
        for (size_t i = 0; i < IMAGES; i++) {
            uint64_t s = seed + round * 1000 + i;

            begin(&t, images[i], s);
            sim_world_on_change(t.h.world, bm_boundary, &t);
            for (unsigned n = 0; n < STEPS && t.wrong[0] == '\0'; n++) {
                bm_step(&t);
            }
            if (t.wrong[0] == '\0') {
                bm_step_reopen(&t);
            }
            printf("%-40s %6u boundaries %7u cuts %3u loads\n", images[i], t.boundaries, t.cuts,
                   t.loads);
            end(&t, s);
        }
    }
}

/* A short program, with call number nth (0: none) failing. Returns the calls made. */
static uint64_t program(struct bitmaps_test *t, size_t image, uint64_t seed, uint64_t nth,
                        bool forever, int error)
{
    const uint64_t calls = SIM_CALLS_DATA | SIM_CALLS(SIM_CALL_TRUNCATE);
    struct sim_faults *faults;
    uint64_t count;

    begin(t, images[image], seed);
    faults = sim_world_faults(t->h.world);
    sim_faults_clear(faults);
    t->faults = nth > 0;
    if (nth > 0) {
        sim_faults_add(faults, &(struct sim_rule){
                                   .calls = calls, .nth = nth, .forever = forever, .error = error});
    }
    for (unsigned n = 0; n < 40 && t->wrong[0] == '\0' && t->h.blk != NULL; n++) {
        bm_step(t);
        if (t->h.blk != NULL && bdrv_broken_reason(blk_bs(t->h.blk)) != NULL) {
            sim_faults_clear(faults); /* a file whose fsync failed is of no use until reopened */
            bm_step_reopen(t);
        }
    }
    count = sim_faults_count(faults, calls);
    sim_faults_clear(faults);
    if (t->wrong[0] == '\0' && t->h.blk != NULL) {
        bm_step_reopen(t);
    }
    end(t, seed);
    return count;
}

static void test_errors(void **state)
{
    static struct bitmaps_test t;
    uint64_t seed = harness_seed(20240621);
    unsigned long runs = 0;

    (void)state;
    for (size_t i = 0; i < IMAGES; i++) {
        uint64_t count = program(&t, i, seed + i, 0, false, 0);
        uint64_t stride = getenv("PLATTER_ALL") != NULL ? 1 : ERROR_STRIDE;

        for (uint64_t nth = 1; nth <= count; nth += stride) {
            program(&t, i, seed + i, nth, false, EIO);
            program(&t, i, seed + i, nth, true, nth % 2 ? EIO : ENOSPC);
            runs += 2;
        }
    }
    printf("%lu programs with a failing call\n", runs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_power_cuts),
        cmocka_unit_test(test_errors),
    };

    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!harness_has_driver("qcow2")) {
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
