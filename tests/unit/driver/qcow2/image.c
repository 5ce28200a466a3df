/* SPDX-License-Identifier: MIT */
#include "image.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <platter/coroutine.h>
#include <platter/options.h>

#include "driver/format/qcow2/format.h"
#include "util/bytes.h"

#define BASE_BYTES (UINT64_C(4) << 20)

static uint64_t cluster_bytes(const struct image *im)
{
    return UINT64_C(1) << im->shape.cluster_bits;
}

int image_data_byte(struct image *im, uint64_t offset)
{
    uint8_t byte;

    assert_int_equal(pread(im->data_fd, &byte, 1, (off_t)offset), 1);
    return byte;
}

static void on_event(void *opaque, const struct platter_event *event)
{
    struct image *im = opaque;

    if (event->type == PLATTER_EVENT_IMAGE_CORRUPTED) {
        im->told++;
        im->told_fatal += event->u.image_corrupted.fatal;
        snprintf(im->message, sizeof(im->message), "%s", event->u.image_corrupted.message);
    }
}

static BlockDriverState *node_open(struct image *im, const char *text)
{
    Error *err = NULL;
    BlockOptions *options = block_options_parse(text, NULL, &err);
    BlockDriverState *bs;

    assert_non_null(options);
    bs = bdrv_open(im->pl, NULL, NULL, options, BDRV_O_RDWR, &err);
    if (bs == NULL) {
        fail_msg("%s: %s", text, error_get_pretty(err));
    }
    return bs;
}

/* ---- the file ---- */

static void file_do(struct image *im, uint64_t offset, void *buf, size_t bytes, bool write)
{
    assert_null(im->blk);
    assert_int_equal(write ? pwrite(im->fd, buf, bytes, (off_t)offset)
                           : pread(im->fd, buf, bytes, (off_t)offset),
                     bytes);
}

uint64_t image_word(struct image *im, uint64_t offset)
{
    uint8_t buf[8];

    file_do(im, offset, buf, sizeof(buf), false);
    return load_be64(buf);
}

void image_set_word(struct image *im, uint64_t offset, uint64_t word)
{
    uint8_t buf[8];

    store_be64(buf, word);
    file_do(im, offset, buf, sizeof(buf), true);
}

unsigned image_refcount(struct image *im, uint64_t cluster)
{
    uint8_t buf[2];

    file_do(im, 2 * cluster_bytes(im) + 2 * cluster, buf, sizeof(buf), false);
    return load_be16(buf);
}

void image_set_refcount(struct image *im, uint64_t cluster, unsigned refcount)
{
    uint8_t buf[2];

    store_be16(buf, (uint16_t)refcount);
    file_do(im, 2 * cluster_bytes(im) + 2 * cluster, buf, sizeof(buf), true);
}

uint64_t image_file_bytes(struct image *im)
{
    struct stat st;

    assert_int_equal(fstat(im->fd, &st), 0);
    return (uint64_t)st.st_size;
}

static uint64_t l1_entry(struct image *im)
{
    return image_word(im, IMAGE_L1_CLUSTER * cluster_bytes(im));
}

void image_expect_l2(struct image *im, unsigned index, const uint64_t *words, unsigned count)
{
    uint64_t table = l1_entry(im) & Q2_OFFSET_MASK;

    assert_true(table != 0);
    for (unsigned i = 0; i < count; i++) {
        uint64_t word = image_word(im, table + 8 * (uint64_t)(index + i));

        if (word != words[i]) {
            fail_msg("word %u of the L2 table is %#llx, not %#llx", index + i,
                     (unsigned long long)word, (unsigned long long)words[i]);
        }
    }
}

void image_set_l2(struct image *im, uint64_t word, uint64_t bitmap)
{
    uint64_t table = IMAGE_NEXT_CLUSTER * cluster_bytes(im);

    image_set_word(im, IMAGE_L1_CLUSTER * cluster_bytes(im), table | Q2_COPIED);
    image_set_refcount(im, IMAGE_NEXT_CLUSTER, 1);
    image_set_word(im, table + cluster_bytes(im) - 8, 0); /* the file reaches it */
    image_set_word(im, table, word);
    if (im->shape.extended_l2) {
        image_set_word(im, table + 8, bitmap);
    }
}

static void header_write(struct image *im)
{
    uint64_t cluster = cluster_bytes(im);
    uint64_t span = cluster * (cluster / (im->shape.extended_l2 ? 16 : 8));
    uint8_t buf[112] = {0};

    store_be32(buf, Q2_MAGIC);
    store_be32(buf + 4, im->shape.version);
    store_be32(buf + 20, im->shape.cluster_bits);
    store_be64(buf + 24, im->shape.disk_bytes);
    store_be32(buf + 36, (uint32_t)((im->shape.disk_bytes + span - 1) / span));
    store_be64(buf + 40, IMAGE_L1_CLUSTER * cluster);
    store_be64(buf + 48, cluster);
    store_be32(buf + 56, 1);
    if (im->shape.version >= 3) {
        store_be64(buf + 72, (im->shape.extended_l2 ? Q2_INCOMPAT_EXTENDED_L2 : 0) |
                                 (im->shape.zstd ? Q2_INCOMPAT_COMPRESSION : 0) |
                                 (im->shape.data_file ? Q2_INCOMPAT_DATA_FILE : 0));
        store_be64(buf + 88, im->shape.data_file_raw ? Q2_AUTOCLEAR_DATA_FILE_RAW : 0);
        store_be32(buf + 96, 4);
        store_be32(buf + 100, sizeof(buf));
        buf[104] = im->shape.zstd ? Q2_COMPRESSION_ZSTD : Q2_COMPRESSION_ZLIB;
    }
    file_do(im, 0, buf, sizeof(buf), true);
    image_set_word(im, cluster, 2 * cluster);
    for (unsigned i = 0; i < IMAGE_NEXT_CLUSTER; i++) {
        image_set_refcount(im, i, 1);
    }
}

/* ---- opening ---- */

/* A node of its own, so that opening the image opens no file for it. */
static void base_make(struct image *im)
{
    BlockBackend *blk = blk_new(im->pl, "base-bytes", NULL);
    uint8_t *buf = malloc(BASE_BYTES);
    char text[100];

    assert_non_null(blk);
    assert_non_null(buf);
    memset(buf, 0xbb, BASE_BYTES);
    snprintf(text, sizeof(text), "driver=mem,node-name=base,size=%llu",
             (unsigned long long)BASE_BYTES);
    im->base = node_open(im, text);
    assert_int_equal(blk_insert_bs(blk, im->base, NULL), 0);
    assert_int_equal(blk_pwrite(blk, 0, buf, BASE_BYTES), BASE_BYTES);
    blk_unref(blk);
    free(buf);
}

void image_init(struct image *im, struct image_shape shape)
{
    struct platter_options options = {
        .size = sizeof(options), .event_cb = on_event, .event_opaque = im};

    memset(im, 0, sizeof(*im));
    im->shape = shape;
    im->shape.version = shape.version != 0 ? shape.version : 3;
    im->shape.cluster_bits = shape.cluster_bits != 0 ? shape.cluster_bits : 16;
    im->shape.disk_bytes = shape.disk_bytes != 0 ? shape.disk_bytes : UINT64_C(1) << 20;
    im->ctx = aio_context_new(NULL, NULL);
    assert_non_null(im->ctx);
    options.main_context = im->ctx;
    im->pl = platter_new(&options, NULL);
    assert_non_null(im->pl);
    snprintf(im->path, sizeof(im->path), "/tmp/platter-qcow2-XXXXXX");
    im->fd = mkstemp(im->path);
    assert_true(im->fd >= 0);
    assert_int_equal(ftruncate(im->fd, (off_t)(IMAGE_NEXT_CLUSTER * cluster_bytes(im))), 0);
    header_write(im);
    if (shape.data_file) {
        snprintf(im->data_path, sizeof(im->data_path), "/tmp/platter-data-XXXXXX");
        im->data_fd = mkstemp(im->data_path);
        assert_true(im->data_fd >= 0);
        assert_int_equal(ftruncate(im->data_fd, (off_t)im->shape.disk_bytes), 0);
    }
    if (shape.backing) {
        base_make(im);
    }
}

void image_fini(struct image *im)
{
    if (im->blk != NULL) {
        image_close(im);
    }
    bdrv_unref(im->base);
    platter_free(im->pl);
    aio_context_unref(im->ctx);
    close(im->fd);
    unlink(im->path);
    if (im->shape.data_file) {
        close(im->data_fd);
        unlink(im->data_path);
    }
}

void image_open(struct image *im)
{
    char text[300];
    Error *err = NULL;
    BlockOptions *options;

    snprintf(text, sizeof(text),
             "driver=qcow2,file.driver=file,file.filename=%s,discard=unmap%s%s%s%s%s", im->path,
             im->base != NULL ? ",backing=base" : "",
             im->shape.data_file ? ",data-file.driver=file,data-file.filename=" : "", im->data_path,
             im->shape.options != NULL ? "," : "",
             im->shape.options != NULL ? im->shape.options : "");
    options = block_options_parse(text, NULL, NULL);
    assert_non_null(options);
    im->blk = blk_new_open(im->pl, "disk", NULL, NULL, options, BDRV_O_RDWR, &err);
    if (im->blk == NULL) {
        fail_msg("%s: %s", text, error_get_pretty(err));
    }
}

void image_close(struct image *im)
{
    blk_unref(im->blk);
    im->blk = NULL;
}

/* ---- the disk ---- */

int image_write(struct image *im, uint64_t offset, const void *buf, uint64_t bytes, bool compressed)
{
    struct iovec iov = {(void *)(uintptr_t)buf, bytes};
    struct iov_view view = iov_view_of(&iov, 1);

    return compressed
               ? blk_write_compressed(im->blk, (int64_t)(offset / 512), buf, (int)(bytes / 512))
               : blk_pwritev(im->blk, (int64_t)offset, &view, 0);
}

static int fill(struct image *im, uint64_t offset, uint64_t bytes, int byte, bool compressed)
{
    void *buf = malloc(bytes);
    int ret;

    assert_non_null(buf);
    memset(buf, byte, bytes);
    ret = image_write(im, offset, buf, bytes, compressed);
    free(buf);
    return ret;
}

int image_fill(struct image *im, uint64_t offset, uint64_t bytes, int byte)
{
    return fill(im, offset, bytes, byte, false);
}

int image_fill_compressed(struct image *im, uint64_t offset, uint64_t bytes, int byte)
{
    return fill(im, offset, bytes, byte, true);
}

int image_zero(struct image *im, uint64_t offset, uint64_t bytes, int flags)
{
    return blk_pwrite_zeroes(im->blk, (int64_t)offset, (int64_t)bytes, flags);
}

int image_discard(struct image *im, uint64_t offset, uint64_t bytes)
{
    return blk_pdiscard(im->blk, (int64_t)offset, (int64_t)bytes);
}

void image_expect(struct image *im, uint64_t offset, uint64_t bytes, int byte)
{
    uint8_t *buf = malloc(bytes);
    struct iovec iov = {buf, bytes};
    struct iov_view view = iov_view_of(&iov, 1);

    assert_non_null(buf);
    assert_int_equal(blk_preadv(im->blk, (int64_t)offset, &view, 0), 0);
    for (uint64_t i = 0; i < bytes; i++) {
        if (buf[i] != byte) {
            fail_msg("byte %llu is %#x, not %#x", (unsigned long long)(offset + i), buf[i], byte);
        }
    }
    free(buf);
}

int image_read(struct image *im, uint64_t offset, uint64_t bytes)
{
    uint8_t *buf = malloc(bytes);
    struct iovec iov = {buf, bytes};
    struct iov_view view = iov_view_of(&iov, 1);
    int ret;

    assert_non_null(buf);
    ret = blk_preadv(im->blk, (int64_t)offset, &view, 0);
    free(buf);
    return ret;
}

struct status_call {
    struct image *im;
    uint64_t offset;
    uint64_t bytes;
    struct image_status st;
    bool done;
};

static void status_entry(void *opaque)
{
    struct status_call *call = opaque;

    call->st.flags = blk_co_block_status(call->im->blk, (int64_t)call->offset, (int64_t)call->bytes,
                                         &call->st.bytes, &call->st.map, NULL);
    call->done = true;
}

struct image_status image_status(struct image *im, uint64_t offset, uint64_t bytes)
{
    struct status_call call = {.im = im, .offset = offset, .bytes = bytes};
    Coroutine *co = coroutine_create(status_entry, &call);

    assert_non_null(co);
    coroutine_enter(co);
    while (!call.done) {
        aio_poll(im->ctx, true);
    }
    return call.st;
}
