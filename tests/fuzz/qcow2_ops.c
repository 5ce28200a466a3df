/* SPDX-License-Identifier: MIT */
/* What the qcow2 target does to an open image. Whatever the image says, each call ends with a
 * result or an error; what may be believed of the result is checked here. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <platter/bitmap.h>
#include <platter/coroutine.h>
#include <platter/image.h>

#include "fuzz_qcow2.h"

#define BURST_MAX 8
#define EXTENTS_MAX 64
#define STATE_BYTES_MAX 4096

bool fuzz_image_is_broken(const struct fuzz_image *f)
{
    return bdrv_broken_reason(blk_bs(f->blk)) != NULL;
}

void fuzz_image_close(struct fuzz_image *f)
{
    blk_unref(f->blk);
    f->blk = NULL;
}

/* ---- its disk ---- */

static int64_t pick_offset(struct fuzz_image *f, uint64_t *ret_bytes)
{
    uint64_t size = (uint64_t)blk_getlength(f->blk);
    uint64_t at = (uint64_t)fuzz_u16(f->in) * f->cluster / 1024;
    uint64_t bytes = 1 + (uint64_t)fuzz_u16(f->in) * f->cluster / 32768;

    if (size == 0) {
        *ret_bytes = 0;
        return 0;
    }
    at %= size;
    *ret_bytes = bytes < size - at ? bytes : size - at;
    if (*ret_bytes > 2 * f->cluster) {
        *ret_bytes = 2 * f->cluster;
    }
    return (int64_t)at;
}

void fuzz_image_read(struct fuzz_image *f)
{
    uint64_t bytes;
    int64_t at = pick_offset(f, &bytes);
    uint8_t *again = f->buf + 2 * f->cluster;
    int ret = blk_pread(f->blk, at, f->buf, (int)bytes);

    FUZZ_CHECK(ret == (int)bytes || ret < 0);
    if (ret >= 0 && blk_pread(f->blk, at, again, (int)bytes) >= 0) {
        FUZZ_CHECK(memcmp(f->buf, again, bytes) == 0);
    }
}

/* Of an image that is not right: without a guard against overlaps its own tables may be written
 * over, and two clusters of one request may be one in the file. */
static bool keeps(const struct fuzz_image *f, uint64_t at, uint64_t bytes)
{
    bool one = at / f->cluster == (at + bytes - 1) / f->cluster;
    bool guarded = (f->how & HOW_OVERLAP) >= 2 && !fuzz_image_is_broken(f);

    return f->clean || (guarded && one);
}

static void do_write(struct fuzz_image *f, int flags)
{
    uint64_t bytes;
    int64_t at = pick_offset(f, &bytes);
    uint8_t *back = f->buf + 2 * f->cluster;
    struct iovec iov;
    struct iov_view view;
    int ret;

    if (flags & BDRV_REQ_WRITE_COMPRESSED) {
        at = (int64_t)((uint64_t)at / f->cluster * f->cluster);
        bytes = f->cluster;
    }
    memset(f->buf, fuzz_u8(f->in), bytes);
    iov = (struct iovec){.iov_base = f->buf, .iov_len = bytes};
    view = iov_view_of(&iov, 1);
    ret = blk_pwritev(f->blk, at, &view, flags);
    if (ret == 0 && bytes > 0) {
        ret = blk_pread(f->blk, at, back, (int)bytes);
        if (keeps(f, (uint64_t)at, bytes)) {
            FUZZ_CHECK(ret == (int)bytes && memcmp(f->buf, back, bytes) == 0);
        }
    }
}

static void do_range(struct fuzz_image *f, uint8_t what)
{
    uint64_t bytes;
    int64_t at = pick_offset(f, &bytes);

    if (what == 0) {
        (void)blk_pwrite_zeroes(f->blk, at, (int64_t)bytes, BDRV_REQ_MAY_UNMAP);
    } else if (what == 1) {
        (void)blk_pwrite_zeroes(f->blk, at, (int64_t)bytes, 0);
    } else {
        (void)blk_pdiscard(f->blk, at, (int64_t)bytes);
    }
}

struct burst {
    struct iovec iov[BURST_MAX];
    struct iov_view views[BURST_MAX];
    unsigned pending;
};

static void burst_done(void *opaque, int ret)
{
    unsigned *pending = opaque;

    FUZZ_CHECK(ret <= 0 && *pending > 0);
    (*pending)--;
}

static void burst_submit(struct fuzz_image *f, struct burst *b, unsigned i)
{
    uint8_t what = fuzz_u8(f->in) % 6;
    uint64_t bytes;
    int64_t at = pick_offset(f, &bytes);
    int flags = 0;
    BlockAIOCB *acb;

    if (what == 1) {
        at = (int64_t)((uint64_t)at / f->cluster * f->cluster);
        bytes = f->cluster;
        flags = BDRV_REQ_WRITE_COMPRESSED;
    }
    b->iov[i] = (struct iovec){.iov_base = malloc(2 * f->cluster), .iov_len = bytes};
    FUZZ_CHECK(b->iov[i].iov_base != NULL);
    memset(b->iov[i].iov_base, (int)i + 1, 2 * f->cluster);
    b->views[i] = iov_view_of(&b->iov[i], 1);
    b->pending++;
    if (what < 3) {
        acb = blk_aio_pwritev(f->blk, at, &b->views[i], flags, burst_done, &b->pending);
    } else if (what == 3) {
        acb = blk_aio_preadv(f->blk, at, &b->views[i], 0, burst_done, &b->pending);
    } else if (what == 4) {
        acb = blk_aio_pdiscard(f->blk, at, (int64_t)bytes, burst_done, &b->pending);
    } else {
        acb = blk_aio_pwrite_zeroes(f->blk, at, (int64_t)bytes, BDRV_REQ_MAY_UNMAP, burst_done,
                                    &b->pending);
    }
    FUZZ_CHECK(acb != NULL);
}

/* Requests at one time. */
static void do_burst(struct fuzz_image *f)
{
    struct burst b = {.pending = 0};
    unsigned n = 1 + fuzz_u8(f->in) % BURST_MAX;

    for (unsigned i = 0; i < n; i++) {
        burst_submit(f, &b, i);
    }
    while (b.pending > 0) {
        aio_poll(platter_get_main_context(f->pl), true);
    }
    for (unsigned i = 0; i < n; i++) {
        free(b.iov[i].iov_base);
    }
}

static void status_walk(void *opaque)
{
    struct fuzz_image *f = opaque;
    int64_t size = blk_getlength(f->blk);
    int64_t at = 0;

    for (unsigned i = 0; i < EXTENTS_MAX && at < size; i++) {
        int64_t bytes, map;
        int depth;
        int ret = blk_co_block_status(f->blk, at, size - at, &bytes, &map, &depth);

        if (ret < 0) {
            return;
        }
        FUZZ_CHECK(bytes > 0 && bytes <= size - at && depth >= 0 && depth <= 2);
        at += bytes;
    }
}

static void walk_entry(void *opaque)
{
    struct fuzz_image **f = opaque;

    status_walk(*f);
    *f = NULL;
}

static void do_status(struct fuzz_image *f)
{
    struct fuzz_image *running = f;

    coroutine_enter(coroutine_create(walk_entry, &running));
    while (running != NULL) {
        aio_poll(platter_get_main_context(f->pl), true);
    }
}

static void do_vmstate(struct fuzz_image *f)
{
    uint8_t what = fuzz_u8(f->in);
    int64_t pos = (int64_t)(fuzz_u16(f->in) * f->cluster / 8192);
    int bytes = 1 + fuzz_u16(f->in) % STATE_BYTES_MAX;
    uint8_t *state = calloc(1, STATE_BYTES_MAX);

    FUZZ_CHECK(state != NULL);
    if (what & 1) {
        (void)blk_save_vmstate(f->blk, state, pos, bytes);
    } else {
        int ret = blk_load_vmstate(f->blk, state, pos, bytes);

        FUZZ_CHECK(ret < 0 || ret == bytes);
    }
    free(state);
}

/* ---- the whole image ---- */

struct findings {
    const struct fuzz_image *f;
    uint64_t flags; /* a cluster that could be written in place and does not say so */
};

static void take_finding(void *opaque, const char *text)
{
    struct findings *found = opaque;

    if (found->f->tell) {
        fprintf(stderr, "  %s\n", text);
    }
    found->flags += strncmp(text, "ERROR OFLAG_COPIED ", 19) == 0 && strstr(text, "refcount=1");
}

/* A clean image stays clean. One that was harmed may be so with two entries of its tables at one
 * cluster; when one of them goes, the other is right to be written in place and does not say it. */
static bool still_clean(const struct fuzz_image *f, const struct bdrv_check_result *result,
                        const struct findings *found)
{
    uint64_t harmless = f->harmed ? found->flags : 0;

    return result->corruptions <= harmless && result->check_errors == 0;
}

void fuzz_image_check(struct fuzz_image *f, unsigned fix)
{
    struct findings found = {.f = f};
    struct bdrv_check_options options = {
        .size = sizeof(options), .fix = fix, .finding = take_finding, .opaque = &found};
    struct bdrv_check_result result, again;
    Error *err = NULL;
    int ret = bdrv_check(blk_bs(f->blk), &options, &result, &err);

    FUZZ_CHECK((ret < 0) == (err != NULL));
    error_free(err);
    if (ret < 0) {
        f->clean = false;
        return;
    }
    FUZZ_CHECK(!f->clean || still_clean(f, &result, &found));
    if (fix == (BDRV_FIX_LEAKS | BDRV_FIX_ERRORS) && result.check_errors == 0 &&
        !fuzz_image_is_broken(f)) {
        options.fix = 0;
        if (bdrv_check(blk_bs(f->blk), &options, &again, NULL) == 0) {
            FUZZ_CHECK(result.corruptions > 0 || again.corruptions == 0);
            result = again;
        }
    }
    f->clean = result.corruptions == 0 && result.check_errors == 0 && !fuzz_image_is_broken(f);
}

static void do_snapshots(struct fuzz_image *f)
{
    BlockDriverState *bs = blk_bs(f->blk);
    struct bdrv_snapshot_info info = {.name = "new", .vm_state_bytes = fuzz_u8(f->in)};
    struct bdrv_snapshot_list list;
    uint8_t what = fuzz_u8(f->in) % 4;

    if (what == 0) {
        (void)bdrv_snapshot_create(bs, &info, NULL);
        return;
    }
    if (bdrv_snapshot_list(bs, &list, NULL) < 0) {
        return;
    }
    if (list.count > 0) {
        const char *id = list.snapshots[fuzz_u8(f->in) % list.count].id;

        if (what == 1) {
            (void)bdrv_snapshot_apply(bs, id, NULL);
        } else if (what == 2) {
            (void)bdrv_snapshot_delete(bs, id, NULL, NULL);
        } else if (bdrv_is_read_only(bs)) {
            (void)bdrv_snapshot_load_tmp(bs, id, NULL, NULL);
        }
    }
    bdrv_snapshot_list_free(&list);
}

static BdrvDirtyBitmap *pick_bitmap(struct fuzz_image *f)
{
    BdrvDirtyBitmap *bitmap = NULL;

    for (unsigned i = fuzz_u8(f->in) % 4 + 1; i > 0; i--) {
        bitmap = bdrv_bitmap_next(blk_bs(f->blk), bitmap);
    }
    return bitmap;
}

static void do_bits(struct fuzz_image *f, BdrvDirtyBitmap *bitmap)
{
    uint64_t bytes, start, run;
    int64_t at = pick_offset(f, &bytes);
    struct bdrv_bitmap_info info;

    bdrv_bitmap_get_info(bitmap, &info);
    if (bytes == 0 || info.inconsistent) {
        return;
    }
    if (fuzz_u8(f->in) & 1) {
        bdrv_bitmap_set(bitmap, (uint64_t)at, bytes);
        FUZZ_CHECK(bdrv_bitmap_get(bitmap, (uint64_t)at));
    } else {
        (void)bdrv_bitmap_reset(bitmap, (uint64_t)at, bytes);
    }
    if (bdrv_bitmap_next_dirty(bitmap, 0, (uint64_t)at + bytes, &start, &run)) {
        FUZZ_CHECK(run > 0 && start + run <= (uint64_t)at + bytes);
    }
}

static void do_bitmaps(struct fuzz_image *f)
{
    static const char *const names[] = {"map", "one", "two"};
    uint8_t what = fuzz_u8(f->in) % 8;
    BdrvDirtyBitmap *bitmap = pick_bitmap(f);
    BdrvDirtyBitmap *other = pick_bitmap(f);

    if (what == 0) {
        (void)bdrv_bitmap_create(blk_bs(f->blk), names[fuzz_u8(f->in) % 3],
                                 UINT64_C(512) << (fuzz_u8(f->in) % 23), fuzz_u8(f->in) % 4, NULL);
    } else if (what == 1) {
        (void)bdrv_bitmaps_store(blk_bs(f->blk), NULL);
    } else if (bitmap == NULL) {
        return;
    } else if (what == 2) {
        (void)bdrv_bitmap_remove(bitmap, NULL);
    } else if (what == 3) {
        (void)bdrv_bitmap_enable(bitmap, NULL);
    } else if (what == 4) {
        (void)bdrv_bitmap_disable(bitmap, NULL);
    } else if (what == 5) {
        (void)bdrv_bitmap_clear(bitmap, NULL);
    } else if (what == 6 && other != NULL && other != bitmap) {
        (void)bdrv_bitmap_merge(bitmap, other, NULL);
    } else {
        do_bits(f, bitmap);
    }
}

static void do_facts(struct fuzz_image *f)
{
    struct bdrv_info info;
    struct bdrv_measure_result size;
    BlockOptions *options = block_options_new();

    FUZZ_CHECK(options != NULL);
    (void)bdrv_get_info(blk_bs(f->blk), &info);
    free(bdrv_get_specific_info(blk_bs(f->blk), NULL));
    (void)bdrv_measure(f->pl, "qcow2", options, blk_bs(f->blk), &size, NULL);
}

static void do_amend(struct fuzz_image *f)
{
    static const char *const texts[] = {
        "lazy_refcounts=on", "refcount_bits=16",  "compat=0.10",        "refcount_bits=64",
        "refcount_bits=1",   "compat=1.1",        "lazy_refcounts=off", "size=8M",
        "data_file_raw=on",  "backing_file=other"};
    const char *text = texts[fuzz_u8(f->in) % (sizeof(texts) / sizeof(texts[0]))];
    BlockOptions *options = block_options_parse(text, NULL, NULL);

    FUZZ_CHECK(options != NULL);
    (void)bdrv_amend(blk_bs(f->blk), options, fuzz_u8(f->in) & 1, NULL, NULL);
}

static void do_shape(struct fuzz_image *f)
{
    BlockDriverState *bs = blk_bs(f->blk);

    switch (fuzz_u8(f->in) % 5) {
    case 0:
        (void)bdrv_change_backing_file(bs, "other.base", "raw", NULL);
        break;
    case 1:
        (void)bdrv_change_backing_file(bs, NULL, NULL, NULL);
        break;
    case 2:
        (void)bdrv_make_empty(bs, NULL);
        break;
    default:
        (void)blk_resize(f->blk, (int64_t)(fuzz_u8(f->in) * f->cluster / 2), true,
                         fuzz_u8(f->in) % 4 == 0 ? BDRV_PREALLOC_METADATA : BDRV_PREALLOC_OFF,
                         NULL);
    }
}

void fuzz_image_operate(struct fuzz_image *f)
{
    uint8_t what = fuzz_u8(f->in) % 20;

    if (f->tell) {
        fprintf(stderr, "operation %d\n", what);
    }
    switch (what) {
    case 0:
    case 1:
        fuzz_image_read(f);
        break;
    case 2:
    case 3:
        do_write(f, 0);
        break;
    case 4:
        do_write(f, BDRV_REQ_WRITE_COMPRESSED);
        break;
    case 5:
    case 6:
    case 7:
        do_range(f, what - 5);
        break;
    case 8:
        (void)blk_flush(f->blk);
        break;
    case 9:
        fuzz_image_check(f, 0);
        break;
    case 10:
        fuzz_image_check(f, fuzz_u8(f->in) % 4);
        break;
    case 11:
        do_snapshots(f);
        break;
    case 12:
        do_shape(f);
        break;
    case 13:
        do_amend(f);
        break;
    case 14:
        do_facts(f);
        break;
    case 15:
        do_bitmaps(f);
        break;
    case 16:
        do_burst(f);
        break;
    case 17:
        do_status(f);
        break;
    case 18:
        do_vmstate(f);
        break;
    default:
        fuzz_image_close(f);
        break;
    }
}
