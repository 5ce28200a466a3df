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
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <platter/image.h>

#include "fuzz_qcow2.h"
#include "util/bytes.h"

#define MEMORY_LIMIT (UINT64_C(192) << 20)
#define SLACK_CLUSTERS 160
#define IMAGE_NAME "image" /* of the one file that inspect can open */
#define OPERATIONS_MAX 24
#define PATCHES_MAX 12

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    fuzz_close_world();
    return 0;
}

/* ---- the image ---- */

static void read_shape(struct fuzz_in *in, struct qcow2_shape *shape)
{
    static const uint8_t bits[] = {9, 12, 9, 14, 10, 12, 9, 16}; /* large ones cost more time */
    uint8_t flags = fuzz_u8(in);
    uint8_t cluster = fuzz_u8(in);

    *shape = (struct qcow2_shape){
        .cluster_bits = bits[cluster % 8],
        .refcount_order = fuzz_u8(in) % 7,
        .version2 = flags & 1,
        .extended_l2 = (flags & 2) != 0,
        .zstd = (flags & 4) != 0,
        .snapshot = (flags & 8) != 0,
        .bitmap = (flags & 16) != 0,
        .lazy = (flags & 32) != 0,
        .backing_name = (flags & 64) != 0,
        .data_file = (flags & 128) != 0,
        .data_file_raw = (cluster & 128) != 0,
    };
    if (shape->version2) {
        shape->extended_l2 = shape->zstd = shape->bitmap = shape->lazy = false;
        shape->data_file = false;
        shape->refcount_order = 4;
    }
    if (shape->data_file) {
        shape->snapshot = shape->lazy = false;
        shape->backing_name &= !shape->data_file_raw;
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

/* Returns whether it did. */
static bool harm(struct fuzz_in *in, uint8_t *image, size_t bytes, uint64_t cluster)
{
    unsigned patches = fuzz_u8(in) % PATCHES_MAX;
    bool any = patches > 0;

    while (patches-- > 0 && in->bytes > 0) {
        static const unsigned widths[] = {1, 2, 4, 8};
        uint8_t kind = fuzz_u8(in);
        unsigned width = widths[kind % 4];
        uint64_t part = fuzz_u8(in) % QCOW2_PARTS;
        uint64_t at = part * cluster + (uint64_t)fuzz_u8(in) * width % cluster;
        size_t run;
        uint8_t *text;
        uint8_t be[8];

        if (kind & 0x40) { /* bytes as they come */
            text = fuzz_take(in, fuzz_u8(in), &run);
            memcpy(image + at, text, run <= bytes - at ? run : bytes - at);
            free(text);
            continue;
        }
        store_be64(be, read_value(in, cluster));
        if (at + width <= bytes) {
            memcpy(image + at, be + 8 - width, width);
        }
    }
    return any;
}

static BlockDriverState *open_memory(Platter *pl, uint64_t size_bytes)
{
    BlockOptions *options = block_options_new();
    BlockDriverState *bs;

    FUZZ_CHECK(options != NULL && block_options_set_str(options, "driver", "mem") == 0 &&
               block_options_set_u64(options, "size", size_bytes) == 0);
    bs = bdrv_open(pl, NULL, NULL, options, BDRV_O_RDWR, NULL);
    FUZZ_CHECK(bs != NULL);
    return bs;
}

static void fill(Platter *pl, BlockDriverState *bs, const uint8_t *data, size_t bytes)
{
    BlockBackend *blk = blk_new(pl, "file", NULL);

    FUZZ_CHECK(blk != NULL && blk_insert_bs(blk, bs, NULL) == 0);
    for (size_t at = 0; at < bytes;) {
        int n = bytes - at < 1 << 20 ? (int)(bytes - at) : 1 << 20;

        FUZZ_CHECK(blk_pwrite(blk, (int64_t)at, data + at, n) == n);
        at += (size_t)n;
    }
    blk_unref(blk);
}

/* Told from a file, as a stranger's is. */
static void inspect(struct fuzz_image *f, const uint8_t *data, size_t bytes)
{
    int fd = memfd_create(IMAGE_NAME, MFD_CLOEXEC);
    Error *err = NULL;
    char *text;

    FUZZ_CHECK(fd >= 0 && write(fd, data, bytes) == (ssize_t)bytes);
    fuzz_let_open(IMAGE_NAME, fd);
    text = bdrv_inspect(f->pl, IMAGE_NAME, "qcow2", &err);
    fuzz_let_open(NULL, -1);
    FUZZ_CHECK((text == NULL) == (err != NULL));
    if (f->tell) {
        fprintf(stderr, "inspect: %s\n", text != NULL ? text : error_get_pretty(err));
    }
    error_free(err);
    free(text);
    close(fd);
}

static void put_image(struct fuzz_image *f)
{
    uint64_t disk_bytes = QCOW2_DISK_CLUSTERS * f->cluster;
    size_t bytes;
    uint8_t *image = qcow2_image_new(&f->shape, &bytes);
    uint64_t size;
    uint16_t cut;

    FUZZ_CHECK(image != NULL);
    size = bytes + SLACK_CLUSTERS * f->cluster;
    f->harmed = harm(f->in, image, bytes, f->cluster);
    cut = fuzz_u16(f->in);
    if (cut % 8 == 1) { /* the file ends early */
        f->harmed = true;
        size = bytes = bytes * (cut / 8) / (UINT16_MAX / 8 + 1);
    }
    inspect(f, image, bytes);
    f->file = open_memory(f->pl, size);
    fill(f->pl, f->file, image, bytes);
    free(image);
    if (f->shape.data_file) {
        f->data = open_memory(f->pl, disk_bytes);
    }
    if (f->how & HOW_BACKING) {
        f->backing = open_memory(f->pl, disk_bytes / 2 + 512);
        fill(f->pl, f->backing, (const uint8_t *)"what is below", 13);
    }
}

static void set_number(BlockOptions *options, const char *key, uint64_t value)
{
    FUZZ_CHECK(block_options_set_u64(options, key, value) == 0);
}

static void set_text(BlockOptions *options, const char *key, const char *text)
{
    FUZZ_CHECK(block_options_set_str(options, key, text) == 0);
}

static bool open_image(struct fuzz_image *f, int flags)
{
    static const char *const overlap[] = {"none", "constant", "cached", "all"};
    BlockOptions *options = block_options_new();
    Error *err = NULL;

    FUZZ_CHECK(options != NULL);
    set_text(options, "driver", "qcow2");
    set_text(options, "file", bdrv_get_node_name(f->file));
    set_text(options, "overlap-check", overlap[f->how & HOW_OVERLAP]);
    set_text(options, "lazy-refcounts", f->how & HOW_LAZY && !f->shape.version2 ? "on" : "off");
    set_text(options, "discard-no-unref", f->how & HOW_NO_UNREF ? "on" : "off");
    if (f->how & HOW_SMALL_CACHES) {
        set_number(options, "l2-cache-entry-size", 512);
        set_number(options, "l2-cache-size", 2 * f->cluster);
    }
    if (f->data != NULL) {
        set_text(options, "data-file", bdrv_get_node_name(f->data));
    }
    if (f->backing != NULL) {
        set_text(options, "backing", bdrv_get_node_name(f->backing));
    } else {
        flags |= BDRV_O_NO_BACKING;
    }
    f->blk = blk_new_open(f->pl, "disk", NULL, NULL, options, flags, &err);
    FUZZ_CHECK((f->blk == NULL) == (err != NULL));
    error_free(err);
    return f->blk != NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct fuzz_in in = {.data = data, .bytes = bytes};
    struct fuzz_image f = {.in = &in, .tell = getenv("PLATTER_FUZZ_TELL") != NULL};

    read_shape(&in, &f.shape);
    f.how = fuzz_u8(&in) ^ 2; /* 0: as by default */
    f.cluster = UINT64_C(1) << f.shape.cluster_bits;
    f.buf = malloc(4 * f.cluster);
    FUZZ_CHECK(f.buf != NULL);
    f.pl = fuzz_platter(MEMORY_LIMIT);
    put_image(&f);
    f.clean = !f.harmed;
    if (open_image(&f, 0)) {
        fuzz_image_read(&f);
        fuzz_image_check(&f, 0);
        fuzz_image_close(&f);
    } else {
        FUZZ_CHECK(f.harmed);
    }
    for (unsigned i = 0; i < OPERATIONS_MAX && in.bytes > 0; i++) {
        bool open = f.blk != NULL || open_image(&f, BDRV_O_RDWR | BDRV_O_UNMAP);

        if (!open && !open_image(&f, 0)) {
            break;
        }
        fuzz_image_operate(&f);
    }
    if (f.blk != NULL && !fuzz_image_is_broken(&f)) {
        fuzz_image_check(&f, 0);
    }
    fuzz_image_close(&f);
    bdrv_unref(f.file);
    bdrv_unref(f.data);
    bdrv_unref(f.backing);
    platter_free(f.pl);
    free(f.buf);
    return 0;
}
