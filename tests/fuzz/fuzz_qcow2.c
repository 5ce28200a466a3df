/* SPDX-License-Identifier: MIT */
/*
 * Hostile qcow2 images: a right image of a shape that the input chooses, harmed in places that the
 * input names (structure-aware: entries of tables, fields), then opened, read, written, checked,
 * repaired, snapshotted. Nothing may crash, hang or take unbounded memory, and
 *  - two reads with nothing between them give the same;
 *  - an image that a check calls right stays right whatever is done to its disk, and holds what was
 *    written;
 *  - after a repair that says all is mended a check finds nothing.
 */
#include <stdlib.h>
#include <string.h>

#include <platter/backend.h>
#include <platter/image.h>

#include "fuzz.h"
#include "qcow2_image.h"
#include "util/bytes.h"

#define MEMORY_LIMIT (UINT64_C(192) << 20)
#define SLACK_CLUSTERS 160
#define OPERATIONS_MAX 24
#define PATCHES_MAX 12

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    fuzz_close_world();
    return 0;
}

struct fuzz_image {
    struct fuzz_in *in;
    struct qcow2_shape shape;
    uint64_t cluster;
    Platter *pl;
    BlockDriverState *file; /* counted */
    BlockBackend *blk;      /* NULL: not open */
    bool clean;             /* the last check found nothing, and nobody harmed it since */
    uint8_t *buf;           /* 4 clusters */
};

/* ---- the image ---- */

static void read_shape(struct fuzz_in *in, struct qcow2_shape *shape)
{
    static const uint8_t bits[] = {9, 12, 14, 16};
    uint8_t flags = fuzz_u8(in);

    *shape = (struct qcow2_shape){
        .cluster_bits = bits[fuzz_u8(in) % 4],
        .refcount_order = fuzz_u8(in) % 7,
        .version2 = flags & 1,
        .extended_l2 = (flags & 2) != 0,
        .zstd = (flags & 4) != 0,
        .snapshot = (flags & 8) != 0,
        .bitmap = (flags & 16) != 0,
        .lazy = (flags & 32) != 0,
        .backing_name = (flags & 64) != 0,
    };
    if (shape->version2) {
        shape->extended_l2 = shape->zstd = shape->bitmap = shape->lazy = false;
        shape->refcount_order = 4;
    }
    if (shape->extended_l2 && shape->cluster_bits < 14) {
        shape->cluster_bits = 14;
    }
    if (shape->snapshot && shape->refcount_order == 0) {
        shape->refcount_order = 1;
    }
}

/* A value that means something at some place of an image. */
static uint64_t read_value(struct fuzz_in *in, uint64_t cluster)
{
    uint8_t kind = fuzz_u8(in);
    uint64_t part = fuzz_u8(in) % (QCOW2_PARTS + 4);

    switch (kind % 8) {
    case 0:
        return fuzz_u64(in);
    case 1:
        return part * cluster;
    case 2:
        return part * cluster | UINT64_C(1) << 63;
    case 3:
        return part * cluster | UINT64_C(1) << 62 | (uint64_t)fuzz_u8(in) << 54;
    case 4:
        return part * cluster + 512 * (fuzz_u8(in) % 16);
    case 5:
        return UINT64_C(1) << (fuzz_u8(in) % 64);
    case 6:
        return UINT64_MAX >> (fuzz_u8(in) % 64);
    default:
        return fuzz_u8(in);
    }
}

static void harm(struct fuzz_in *in, uint8_t *image, size_t bytes, uint64_t cluster)
{
    unsigned patches = fuzz_u8(in) % PATCHES_MAX;

    while (patches-- > 0 && in->bytes > 0) {
        static const unsigned widths[] = {1, 2, 4, 8};
        unsigned width = widths[fuzz_u8(in) % 4];
        uint64_t part = fuzz_u8(in) % QCOW2_PARTS;
        uint64_t at = part * cluster + (uint64_t)fuzz_u8(in) * width % cluster;
        uint64_t value = read_value(in, cluster);
        uint8_t be[8];

        store_be64(be, value);
        if (at + width <= bytes) {
            memcpy(image + at, be + 8 - width, width);
        }
    }
}

static void put_image(struct fuzz_image *f)
{
    size_t bytes;
    uint8_t *image = qcow2_image_new(&f->shape, &bytes);
    uint64_t size = bytes + SLACK_CLUSTERS * f->cluster;
    uint16_t cut;
    BlockOptions *options = block_options_new();
    BlockBackend *blk;

    FUZZ_CHECK(image != NULL && options != NULL);
    harm(f->in, image, bytes, f->cluster);
    cut = fuzz_u16(f->in);
    if (cut % 8 == 1) { /* the file ends early */
        size = bytes = bytes * (cut / 8) / (UINT16_MAX / 8 + 1);
    }
    FUZZ_CHECK(block_options_set_str(options, "driver", "mem") == 0 &&
               block_options_set_u64(options, "size", size) == 0);
    f->file = bdrv_open(f->pl, NULL, NULL, options, BDRV_O_RDWR, NULL);
    blk = blk_new(f->pl, "file", NULL);
    FUZZ_CHECK(f->file != NULL && blk != NULL && blk_insert_bs(blk, f->file, NULL) == 0);
    for (size_t at = 0; at < bytes;) {
        int n = bytes - at < 1 << 20 ? (int)(bytes - at) : 1 << 20;

        FUZZ_CHECK(blk_pwrite(blk, (int64_t)at, image + at, n) == n);
        at += (size_t)n;
    }
    blk_unref(blk);
    free(image);
}

static bool open_image(struct fuzz_image *f, int flags)
{
    BlockOptions *options = block_options_new();
    Error *err = NULL;

    FUZZ_CHECK(options != NULL && block_options_set_str(options, "driver", "qcow2") == 0 &&
               block_options_set_str(options, "file", bdrv_get_node_name(f->file)) == 0);
    f->blk = blk_new_open(f->pl, "disk", NULL, NULL, options, flags, &err);
    FUZZ_CHECK((f->blk == NULL) == (err != NULL));
    error_free(err);
    return f->blk != NULL;
}

static void close_image(struct fuzz_image *f)
{
    blk_unref(f->blk);
    f->blk = NULL;
}

/* ---- what is done to it ---- */

static bool is_broken(struct fuzz_image *f)
{
    return bdrv_broken_reason(blk_bs(f->blk)) != NULL;
}

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

static void do_read(struct fuzz_image *f)
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
    view = (struct iov_view){.iov = &iov, .niov = 1, .bytes = bytes};
    ret = blk_pwritev(f->blk, at, &view, flags);
    if (ret == 0 && bytes > 0) {
        FUZZ_CHECK(blk_pread(f->blk, at, back, (int)bytes) == (int)bytes ||
                   (!f->clean && is_broken(f)));
        if (!is_broken(f)) {
            FUZZ_CHECK(memcmp(f->buf, back, bytes) == 0);
        }
    }
}

static void do_check(struct fuzz_image *f, unsigned fix)
{
    struct bdrv_check_options options = {.size = sizeof(options), .fix = fix};
    struct bdrv_check_result result, again;
    Error *err = NULL;
    int ret = bdrv_check(blk_bs(f->blk), &options, &result, &err);

    FUZZ_CHECK((ret < 0) == (err != NULL));
    error_free(err);
    if (ret < 0) {
        f->clean = false;
        return;
    }
    FUZZ_CHECK(!f->clean || (result.corruptions == 0 && result.check_errors == 0));
    if (fix == (BDRV_FIX_LEAKS | BDRV_FIX_ERRORS) && result.check_errors == 0 && !is_broken(f)) {
        options.fix = 0;
        if (bdrv_check(blk_bs(f->blk), &options, &again, NULL) == 0) {
            FUZZ_CHECK(result.corruptions > result.corruptions_fixed || again.corruptions == 0);
            result = again;
        }
    }
    f->clean = result.corruptions == 0 && result.check_errors == 0 && !is_broken(f);
}

static void do_snapshots(struct fuzz_image *f)
{
    BlockDriverState *bs = blk_bs(f->blk);
    struct bdrv_snapshot_info info = {.name = "new"};
    struct bdrv_snapshot_list list;
    uint8_t what = fuzz_u8(f->in) % 4;

    if (what == 0) {
        (void)bdrv_snapshot_create(bs, &info, NULL);
    } else if (bdrv_snapshot_list(bs, &list, NULL) == 0) {
        if (list.count > 0) {
            const char *id = list.snapshots[fuzz_u8(f->in) % list.count].id;

            if (what == 1) {
                (void)bdrv_snapshot_apply(bs, id, NULL);
            } else if (what == 2) {
                (void)bdrv_snapshot_delete(bs, id, NULL, NULL);
            }
        }
        bdrv_snapshot_list_free(&list);
    }
}

static void do_facts(struct fuzz_image *f)
{
    struct bdrv_info info;

    (void)bdrv_get_info(blk_bs(f->blk), &info);
    free(bdrv_get_specific_info(blk_bs(f->blk), NULL));
}

static void do_amend(struct fuzz_image *f)
{
    static const char *const texts[] = {"lazy_refcounts=on", "refcount_bits=16", "compat=0.10",
                                        "refcount_bits=64"};
    BlockOptions *options = block_options_parse(texts[fuzz_u8(f->in) % 4], NULL, NULL);

    FUZZ_CHECK(options != NULL);
    (void)bdrv_amend(blk_bs(f->blk), options, false, NULL, NULL);
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

static void operate(struct fuzz_image *f)
{
    uint8_t what = fuzz_u8(f->in) % 16;

    if (f->blk == NULL && !open_image(f, BDRV_O_RDWR | BDRV_O_UNMAP | BDRV_O_NO_BACKING)) {
        if (!open_image(f, BDRV_O_NO_BACKING)) {
            return;
        }
    }
    switch (what) {
    case 0:
    case 1:
        do_read(f);
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
        do_check(f, 0);
        break;
    case 10:
        do_check(f, fuzz_u8(f->in) % 4);
        break;
    case 11:
        do_snapshots(f);
        break;
    case 12:
        (void)blk_resize(f->blk, (int64_t)(fuzz_u8(f->in) * f->cluster / 2), true,
                         BDRV_PREALLOC_OFF, NULL);
        break;
    case 13:
        do_amend(f);
        break;
    case 14:
        do_facts(f);
        break;
    default:
        close_image(f);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct fuzz_in in = {.data = data, .bytes = bytes};
    struct fuzz_image f = {.in = &in};

    read_shape(&in, &f.shape);
    f.cluster = UINT64_C(1) << f.shape.cluster_bits;
    f.buf = malloc(4 * f.cluster);
    FUZZ_CHECK(f.buf != NULL);
    f.pl = fuzz_platter(MEMORY_LIMIT);
    put_image(&f);
    if (open_image(&f, BDRV_O_NO_BACKING)) {
        do_read(&f);
        do_check(&f, 0);
        close_image(&f);
    }
    for (unsigned i = 0; i < OPERATIONS_MAX && in.bytes > 0; i++) {
        operate(&f);
    }
    if (f.blk != NULL && !is_broken(&f)) {
        do_check(&f, 0);
    }
    close_image(&f);
    bdrv_unref(f.file);
    platter_free(f.pl);
    free(f.buf);
    return 0;
}
