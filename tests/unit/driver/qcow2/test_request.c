/* SPDX-License-Identifier: MIT */
/*
 * What requests make of the mapping, word by word: as the reference leaves it after the same
 * commands (qemu-io 7.2), seen in the file after the image was closed.
 */
#include "image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "driver/format/qcow2/format.h"

#define K UINT64_C(1024)
#define CLUSTER (64 * K)
#define AT(n) (Q2_COPIED | (n)*CLUSTER)
#define WORDS(...)                                                                                 \
    (const uint64_t[])                                                                             \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }
#define EXPECT_L2(im, ...)                                                                         \
    image_expect_l2(im, 0, WORDS(__VA_ARGS__), sizeof(WORDS(__VA_ARGS__)) / sizeof(uint64_t))

static void reopen(struct image *im)
{
    image_close(im);
    image_open(im);
}

/* ---- writes ---- */

static void write_in_fresh_clusters(void **state)
{
    struct image im;

    (void)state;
    image_init(&im, (struct image_shape){0});
    image_open(&im);
    assert_int_equal(image_fill(&im, 70 * K, K, 1), 0);
    image_expect(&im, 64 * K, 6 * K, 0);
    image_expect(&im, 70 * K, K, 1);
    image_expect(&im, 71 * K, 100 * K, 0);
    assert_int_equal(image_fill(&im, 60 * K, 80 * K, 2), 0);
    reopen(&im);
    image_expect(&im, 0, 60 * K, 0);
    image_expect(&im, 60 * K, 80 * K, 2);
    image_expect(&im, 140 * K, 200 * K, 0);
    image_close(&im);
    /* L2 table at 4, then the data in the order of its allocation; the file ends with a cluster */
    EXPECT_L2(&im, AT(6), AT(5), AT(7), 0);
    assert_true(image_file_bytes(&im) == 8 * CLUSTER);
    for (unsigned i = 0; i < 9; i++) {
        assert_int_equal(image_refcount(&im, i), i < 8);
    }
    image_fini(&im);
}

static void copy_from_backing(void **state)
{
    struct image im;

    (void)state;
    image_init(&im, (struct image_shape){.backing = true, .disk_bytes = 300 * K});
    image_open(&im);
    image_expect(&im, 0, 300 * K, 0xbb);
    assert_int_equal(image_fill(&im, 70 * K, K, 1), 0);
    assert_int_equal(image_fill(&im, 290 * K, 10 * K, 2), 0);
    reopen(&im);
    image_expect(&im, 0, 70 * K, 0xbb);
    image_expect(&im, 70 * K, K, 1);
    image_expect(&im, 71 * K, 219 * K, 0xbb);
    image_expect(&im, 290 * K, 10 * K, 2);
    image_close(&im);
    EXPECT_L2(&im, 0, AT(5), 0, 0, AT(6), 0);
    /* what the last cluster has past the end of the disk is not of the backing file */
    assert_true(image_word(&im, 6 * CLUSTER + 44 * K) == 0);
    image_fini(&im);
}

/* A cluster that a snapshot has too is copied, and its refcount falls. */
static void shared_cluster(void **state)
{
    struct image im;

    (void)state;
    image_init(&im, (struct image_shape){0});
    image_set_l2(&im, 5 * CLUSTER, 0);
    image_set_refcount(&im, 5, 2);
    image_set_word(&im, 6 * CLUSTER - 8, 0x1111111111111111);
    image_open(&im);
    image_expect(&im, CLUSTER - 8, 8, 0x11);
    assert_int_equal(image_fill(&im, 4 * K, K, 7), 0);
    image_expect(&im, 4 * K, K, 7);
    image_expect(&im, CLUSTER - 8, 8, 0x11);
    image_close(&im);
    EXPECT_L2(&im, AT(6), 0);
    assert_int_equal(image_refcount(&im, 5), 1);
    assert_int_equal(image_refcount(&im, 6), 1);
    image_fini(&im);
}

/* An L2 table that a snapshot has too. */
static void shared_table(void **state)
{
    struct image im;

    (void)state;
    image_init(&im, (struct image_shape){0});
    image_set_l2(&im, 5 * CLUSTER, 0);
    image_set_word(&im, IMAGE_L1_CLUSTER * CLUSTER, 4 * CLUSTER);
    image_set_refcount(&im, 4, 2);
    image_set_refcount(&im, 5, 2);
    image_set_word(&im, 6 * CLUSTER - 8, 0);
    image_open(&im);
    assert_int_equal(image_fill(&im, 2 * CLUSTER, CLUSTER, 7), 0);
    image_close(&im);
    assert_true(image_word(&im, IMAGE_L1_CLUSTER * CLUSTER) == AT(6));
    EXPECT_L2(&im, 5 * CLUSTER, 0, AT(7), 0);
    assert_true(image_word(&im, 4 * CLUSTER + 16) == 0);
    assert_int_equal(image_refcount(&im, 4), 1);
    assert_int_equal(image_refcount(&im, 5), 2);
    image_fini(&im);
}

/* ---- zeroes and discard ---- */

static void zero_clusters(void **state)
{
    struct image im;

    (void)state;
    image_init(&im, (struct image_shape){.disk_bytes = 320 * K});
    image_open(&im);
    assert_int_equal(image_zero(&im, 0, 128 * K, 0), 0);
    assert_int_equal(image_fill(&im, 128 * K, 128 * K, 1), 0);
    assert_int_equal(image_zero(&im, 128 * K, 64 * K, 0), 0);
    image_close(&im);
    EXPECT_L2(&im, 1, 1, AT(5) | 1, AT(6), 0);
    image_open(&im);
    image_expect(&im, 0, 192 * K, 0);
    /* the room is used again, and what it held is not seen */
    assert_int_equal(image_fill(&im, 130 * K, K, 2), 0);
    image_expect(&im, 128 * K, 2 * K, 0);
    image_expect(&im, 130 * K, K, 2);
    image_expect(&im, 131 * K, 61 * K, 0);
    assert_int_equal(image_zero(&im, 192 * K, 64 * K, BDRV_REQ_MAY_UNMAP), 0);
    image_close(&im);
    EXPECT_L2(&im, 1, 1, AT(5), 1, 0);
    assert_int_equal(image_refcount(&im, 6), 0);
    image_fini(&im);
}

static void discard_clusters(void **state)
{
    struct image im;

    (void)state;
    image_init(&im, (struct image_shape){.disk_bytes = 320 * K});
    image_open(&im);
    assert_int_equal(image_discard(&im, 0, 128 * K), 0);
    assert_int_equal(image_fill(&im, 128 * K, 128 * K, 1), 0);
    assert_int_equal(image_fill_compressed(&im, 256 * K, 64 * K, 1), 0);
    assert_int_equal(image_discard(&im, 64 * K, 128 * K), 0);
    assert_int_equal(image_discard(&im, 256 * K, 64 * K), 0);
    image_expect(&im, 0, 192 * K, 0);
    image_expect(&im, 192 * K, 64 * K, 1);
    image_expect(&im, 256 * K, 64 * K, 0);
    image_close(&im);
    EXPECT_L2(&im, 0, 0, 1, AT(6), 1, 0);
    assert_int_equal(image_refcount(&im, 5), 0);
    assert_int_equal(image_refcount(&im, 7), 0);
    image_fini(&im);
}

static void discard_over_backing(void **state)
{
    struct image im;

    (void)state;
    image_init(&im, (struct image_shape){.disk_bytes = 320 * K, .backing = true});
    image_open(&im);
    assert_int_equal(image_discard(&im, 64 * K, 64 * K), 0);
    image_expect(&im, 0, 64 * K, 0xbb);
    image_expect(&im, 64 * K, 64 * K, 0);
    image_close(&im);
    EXPECT_L2(&im, 0, 1, 0);
    image_fini(&im);
}

static void version_2(void **state)
{
    struct image im;

    (void)state;
    image_init(&im, (struct image_shape){.version = 2, .disk_bytes = 320 * K});
    image_open(&im);
    assert_int_equal(image_fill(&im, 0, 320 * K, 1), 0);
    assert_int_equal(image_zero(&im, 0, 64 * K, 0), 0);
    assert_int_equal(image_discard(&im, 64 * K, 64 * K), 0);
    image_expect(&im, 0, 128 * K, 0);
    image_close(&im);
    EXPECT_L2(&im, 0, 0, AT(7), AT(8), AT(9), 0);
    image_fini(&im);
    /* it cannot say "zero" over a backing file: a discard does nothing, zeroes are written */
    image_init(&im, (struct image_shape){.version = 2, .disk_bytes = 320 * K, .backing = true});
    image_open(&im);
    assert_int_equal(image_fill(&im, 64 * K, 64 * K, 1), 0);
    assert_int_equal(image_discard(&im, 64 * K, 64 * K), 0);
    assert_int_equal(image_zero(&im, 0, 64 * K, 0), 0);
    image_expect(&im, 0, 64 * K, 0);
    image_expect(&im, 64 * K, 64 * K, 1);
    image_close(&im);
    EXPECT_L2(&im, AT(6), AT(5), 0);
    image_fini(&im);
}

static void discard_keeps(void **state)
{
    struct image im;

    (void)state;
    image_init(&im, (struct image_shape){.options = "discard-no-unref=on"});
    image_open(&im);
    assert_int_equal(image_fill(&im, 0, 128 * K, 1), 0);
    assert_int_equal(image_discard(&im, 0, 64 * K), 0);
    assert_int_equal(image_zero(&im, 64 * K, 64 * K, BDRV_REQ_MAY_UNMAP), 0);
    image_expect(&im, 0, 128 * K, 0);
    image_close(&im);
    EXPECT_L2(&im, AT(5) | 1, AT(6) | 1, 0);
    image_fini(&im);
}

/* ---- subclusters of 2 KiB ---- */

static void subclusters(void **state)
{
    struct image im;

    (void)state;
    image_init(&im, (struct image_shape){.extended_l2 = true});
    image_open(&im);
    assert_int_equal(image_fill(&im, 0, 4 * K, 3), 0);
    assert_int_equal(image_fill(&im, 66 * K, 64 * K, 4), 0);
    image_close(&im);
    EXPECT_L2(&im, AT(5), 0x3, AT(6), 0xfffffffe, AT(7), 0x1, 0);
    image_open(&im);
    assert_int_equal(image_zero(&im, 4 * K, 64 * K, 0), 0);
    image_close(&im);
    EXPECT_L2(&im, AT(5), 0xfffffffc00000003, AT(6), 0x3fffffffc, AT(7), 0x1, 0);
    image_open(&im);
    assert_int_equal(image_zero(&im, 68 * K, 64 * K, BDRV_REQ_MAY_UNMAP), 0);
    image_close(&im);
    EXPECT_L2(&im, AT(5), 0xfffffffc00000003, AT(6), 0xffffffff00000000, AT(7), 0x300000000, 0);
    image_open(&im);
    assert_int_equal(image_zero(&im, 64 * K, 64 * K, BDRV_REQ_MAY_UNMAP), 0);
    assert_int_equal(image_zero(&im, 0, 64 * K, 0), 0);
    assert_int_equal(image_fill(&im, 3 * K, 2 * K, 7), 0);
    image_close(&im);
    EXPECT_L2(&im, AT(5), 0xfffffff900000006, 0, 0xffffffff00000000, AT(7), 0x300000000, 0);
    image_open(&im);
    image_expect(&im, 0, 3 * K, 0);
    image_expect(&im, 3 * K, 2 * K, 7);
    image_expect(&im, 5 * K, 200 * K, 0);
    assert_int_equal(image_discard(&im, 128 * K, 64 * K), 0);
    image_close(&im);
    EXPECT_L2(&im, AT(5), 0xfffffff900000006, 0, 0xffffffff00000000, 0, 0xffffffff00000000, 0);
    image_fini(&im);
}

/* Only what is written, and what of its subcluster is not, comes into the image. */
static void subclusters_over_backing(void **state)
{
    struct image im;

    (void)state;
    image_init(&im, (struct image_shape){.extended_l2 = true, .backing = true});
    image_open(&im);
    assert_int_equal(image_fill(&im, 5 * K, 512, 3), 0);
    image_expect(&im, 0, 5 * K, 0xbb);
    image_expect(&im, 5 * K, 512, 3);
    image_expect(&im, 5 * K + 512, 100 * K, 0xbb);
    assert_int_equal(image_fill(&im, 5 * K, 4 * K, 4), 0); /* one is there, two come */
    image_close(&im);
    EXPECT_L2(&im, AT(5), 0x1c, 0, 0);
    image_open(&im);
    image_expect(&im, 0, 5 * K, 0xbb);
    image_expect(&im, 5 * K, 4 * K, 4);
    image_expect(&im, 9 * K, 100 * K, 0xbb);
    image_fini(&im);
}

/* What is zero already is passed over, but nothing in front of it is taken along. */
static void subclusters_zero_in_part(void **state)
{
    struct image im;

    (void)state;
    image_init(&im, (struct image_shape){.extended_l2 = true, .backing = true});
    image_open(&im);
    assert_int_equal(image_zero(&im, 8 * K, 2 * K, 0), 0);
    assert_int_equal(image_zero(&im, 8 * K, 6 * K, 0), 0);
    image_expect(&im, 0, 8 * K, 0xbb);
    image_expect(&im, 8 * K, 6 * K, 0);
    image_expect(&im, 14 * K, 50 * K, 0xbb);
    assert_int_equal(image_zero(&im, 62 * K, 2 * K, 0), 0);
    assert_int_equal(image_zero(&im, 62 * K, 70 * K, 0), 0); /* up to a cluster and on */
    image_expect(&im, 14 * K, 48 * K, 0xbb);
    image_expect(&im, 62 * K, 70 * K, 0);
    image_expect(&im, 132 * K, 60 * K, 0xbb);
    image_fini(&im);
}

/* A shared cluster moves with all of its data. */
static void subclusters_move(void **state)
{
    struct image im;

    (void)state;
    image_init(&im, (struct image_shape){.extended_l2 = true, .backing = true});
    image_set_l2(&im, 5 * CLUSTER, 0x80000002);
    image_set_refcount(&im, 5, 2);
    image_set_word(&im, 6 * CLUSTER - 8, 0x2222222222222222);
    image_set_word(&im, 5 * CLUSTER + 2 * K, 0x1111111111111111);
    image_open(&im);
    assert_int_equal(image_fill(&im, 20 * K, K, 9), 0);
    image_expect(&im, 0, 2 * K, 0xbb);
    image_expect(&im, 2 * K, 8, 0x11);
    image_expect(&im, 4 * K, 16 * K, 0xbb);
    image_expect(&im, 20 * K, K, 9);
    image_expect(&im, 21 * K, 41 * K, 0xbb);
    image_expect(&im, 64 * K - 8, 8, 0x22);
    image_close(&im);
    EXPECT_L2(&im, AT(6), 0xfffffffe, 0);
    assert_int_equal(image_refcount(&im, 5), 1);
    image_fini(&im);
}

/* ---- compressed clusters ---- */

static void compressed(void **state)
{
    for (int zstd = 0; zstd < 2; zstd++) {
        struct image im;

        (void)state;
        image_init(&im, (struct image_shape){.disk_bytes = 300 * K, .zstd = zstd != 0});
        image_open(&im);
        assert_int_equal(image_fill(&im, 64 * K, 64 * K, 9), 0);
        assert_int_equal(image_fill_compressed(&im, 0, 256 * K, 1), 0);
        assert_int_equal(image_fill_compressed(&im, 256 * K, 44 * K, 2), 0);
        assert_int_equal(image_fill_compressed(&im, 512, 64 * K, 2), -EINVAL);
        assert_int_equal(image_fill_compressed(&im, 0, 44 * K, 2), -EINVAL);
        reopen(&im);
        image_expect(&im, 0, 256 * K, 1);
        image_expect(&im, 256 * K, 44 * K, 2);
        image_expect(&im, 100 * K + 1, 30 * K, 1);
        /* a part of one is written: the rest is kept */
        assert_int_equal(image_fill(&im, 70 * K, K, 3), 0);
        image_expect(&im, 64 * K, 6 * K, 1);
        image_expect(&im, 70 * K, K, 3);
        image_expect(&im, 71 * K, 185 * K, 1);
        image_close(&im);
        /* the plain data that was there before was freed, and its place taken again */
        image_expect_l2(&im, 1, WORDS(AT(5)), 1);
        assert_int_equal(image_refcount(&im, 5), 1);
        /* five, of which one is gone again, in one cluster of the file */
        assert_int_equal(image_refcount(&im, 6), 4);
        image_fini(&im);
    }
}

static void does_not_compress(void **state)
{
    uint8_t *buf = malloc(128 * K);
    struct image im;
    uint32_t x = 1;

    (void)state;
    assert_non_null(buf);
    for (size_t i = 0; i < 128 * K; i++) {
        x = x * 1664525 + 1013904223;
        buf[i] = i < 64 * K ? 1 : (uint8_t)(x >> 24);
    }
    image_init(&im, (struct image_shape){0});
    image_open(&im);
    assert_int_equal(image_write(&im, 0, buf, 128 * K, true), 0);
    image_expect(&im, 0, 64 * K, 1);
    image_expect(&im, 128 * K - 1, 1, buf[128 * K - 1]);
    assert_int_equal(image_status(&im, 0, 64 * K).flags & BDRV_BLOCK_COMPRESSED,
                     BDRV_BLOCK_COMPRESSED);
    assert_int_equal(image_status(&im, 64 * K, 64 * K).flags & BDRV_BLOCK_COMPRESSED, 0);
    image_fini(&im);
    free(buf);
}

/* ---- external data file: guest offsets are its offsets ---- */

static void data_file(void **state)
{
    struct image im;

    (void)state;
    image_init(&im, (struct image_shape){.data_file = true, .disk_bytes = 300 * K});
    image_open(&im);
    assert_int_equal(image_fill(&im, 0, 64 * K, 3), 0);
    assert_int_equal(image_fill(&im, 65 * K, K, 4), 0);
    assert_int_equal(image_fill(&im, 299 * K, K, 5), 0);
    assert_int_equal(image_fill_compressed(&im, 128 * K, 64 * K, 5), -ENOTSUP);
    image_close(&im);
    EXPECT_L2(&im, Q2_COPIED, AT(1), 0, 0, AT(4), 0);
    assert_true(image_file_bytes(&im) == 5 * CLUSTER);
    assert_int_equal(image_data_byte(&im, 65 * K), 4);
    image_open(&im);
    image_expect(&im, 0, 64 * K, 3);
    image_expect(&im, 66 * K, 233 * K, 0);
    image_expect(&im, 299 * K, K, 5);
    assert_int_equal(image_zero(&im, 0, 64 * K, 0), 0);
    assert_int_equal(image_zero(&im, 64 * K, 64 * K, BDRV_REQ_MAY_UNMAP), 0);
    image_expect(&im, 0, 128 * K, 0);
    image_close(&im);
    EXPECT_L2(&im, Q2_COPIED | 1, 1, 0, 0, AT(4), 0);
    assert_int_equal(image_data_byte(&im, 0), 3);
    assert_int_equal(image_data_byte(&im, 65 * K), 0);
    image_fini(&im);
}

/* The file is the disk by itself: its zeroes are in it. */
static void raw_data_file(void **state)
{
    struct image im;

    (void)state;
    image_init(
        &im, (struct image_shape){.data_file = true, .data_file_raw = true, .disk_bytes = 300 * K});
    image_open(&im);
    assert_int_equal(image_fill(&im, 0, 300 * K, 3), 0);
    assert_int_equal(image_zero(&im, 0, 64 * K, 0), 0);
    assert_int_equal(image_zero(&im, 64 * K, 64 * K, BDRV_REQ_MAY_UNMAP), 0);
    assert_int_equal(image_discard(&im, 128 * K, 64 * K), 0);
    image_expect(&im, 0, 192 * K, 0);
    image_expect(&im, 192 * K, 108 * K, 3);
    image_close(&im);
    for (uint64_t at = 0; at < 192 * K; at += 4 * K) {
        assert_int_equal(image_data_byte(&im, at), 0);
    }
    assert_int_equal(image_data_byte(&im, 300 * K - 1), 3);
    EXPECT_L2(&im, Q2_COPIED | 1, AT(1) | 1, AT(2) | 1, AT(3), AT(4), 0);
    image_fini(&im);
}

/* ---- status ---- */

#define TIB (UINT64_C(1) << 40)

static void expect_status(struct image *im, uint64_t offset, int flags, uint64_t bytes,
                          uint64_t map)
{
    struct image_status st = image_status(im, offset, TIB - offset);

    assert_int_equal(st.flags & ~BDRV_BLOCK_EOF, flags);
    assert_int_equal(st.bytes, bytes);
    if (flags & BDRV_BLOCK_OFFSET_VALID) {
        assert_int_equal(st.map, map);
    }
}

static void status(void **state)
{
    const int data = BDRV_BLOCK_DATA | BDRV_BLOCK_ALLOCATED;
    const int zero = BDRV_BLOCK_ZERO | BDRV_BLOCK_ALLOCATED;
    struct image im;

    (void)state;
    image_init(&im, (struct image_shape){.disk_bytes = TIB});
    image_open(&im);
    expect_status(&im, 0, BDRV_BLOCK_ZERO, TIB, 0);
    assert_int_equal(image_fill(&im, 0, 192 * K, 1), 0);
    assert_int_equal(image_zero(&im, 192 * K, 64 * K, 0), 0);
    assert_int_equal(image_fill_compressed(&im, 256 * K, 64 * K, 2), 0);
    assert_int_equal(image_zero(&im, 128 * K, 64 * K, 0), 0);
    assert_int_equal(image_fill(&im, TIB / 2, 64 * K, 1), 0);
    expect_status(&im, K, data | BDRV_BLOCK_OFFSET_VALID, 127 * K, 5 * CLUSTER + K);
    expect_status(&im, 128 * K, zero | BDRV_BLOCK_OFFSET_VALID, 64 * K, 7 * CLUSTER);
    expect_status(&im, 192 * K, zero, 64 * K, 0);
    expect_status(&im, 256 * K, data | BDRV_BLOCK_COMPRESSED, 64 * K, 0);
    expect_status(&im, 320 * K, BDRV_BLOCK_ZERO, TIB / 2 - 320 * K, 0);
    expect_status(&im, TIB / 2 + 64 * K, BDRV_BLOCK_ZERO, TIB / 2 - 64 * K, 0);
    image_fini(&im);
}

/* A disk of a terabyte of which little is there: what is not is passed over. */
static void discard_a_terabyte(void **state)
{
    struct image im;

    (void)state;
    image_init(&im, (struct image_shape){.disk_bytes = TIB});
    image_open(&im);
    assert_int_equal(image_fill(&im, TIB / 2, 128 * K, 1), 0);
    assert_int_equal(image_discard(&im, 0, TIB), 0);
    expect_status(&im, TIB / 2, BDRV_BLOCK_ZERO | BDRV_BLOCK_ALLOCATED, 128 * K, 0);
    image_close(&im);
    assert_true(image_word(&im, IMAGE_L1_CLUSTER * CLUSTER) == 0);
    assert_true(image_file_bytes(&im) <= 7 * CLUSTER);
    assert_int_equal(image_refcount(&im, 5), 0);
    assert_int_equal(image_refcount(&im, 6), 0);
    image_fini(&im);
}

/* ---- VM state ---- */

static void vmstate(void **state)
{
    uint8_t buf[3000];
    uint8_t back[3000];
    struct image im;

    (void)state;
    memset(buf, 0x77, sizeof(buf));
    image_init(&im, (struct image_shape){0});
    image_open(&im);
    assert_int_equal(blk_load_vmstate(im.blk, back, 0, 100), 100);
    assert_int_equal(back[99], 0);
    assert_int_equal(blk_save_vmstate(im.blk, buf, 5000, sizeof(buf)), sizeof(buf));
    assert_int_equal(image_fill(&im, 0, 64 * K, 1), 0);
    reopen(&im);
    assert_int_equal(blk_load_vmstate(im.blk, back, 5000, sizeof(back)), sizeof(back));
    assert_memory_equal(buf, back, sizeof(buf));
    assert_int_equal(blk_load_vmstate(im.blk, back, 4000, 1000), 1000);
    assert_int_equal(back[999], 0);
    assert_int_equal(blk_save_vmstate(im.blk, buf, INT64_MAX - 4000, sizeof(buf)), -EFBIG);
    image_expect(&im, 0, 64 * K, 1);
    image_expect(&im, 64 * K, 960 * K, 0);
    image_fini(&im);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(write_in_fresh_clusters),
        cmocka_unit_test(copy_from_backing),
        cmocka_unit_test(shared_cluster),
        cmocka_unit_test(shared_table),
        cmocka_unit_test(zero_clusters),
        cmocka_unit_test(discard_clusters),
        cmocka_unit_test(discard_over_backing),
        cmocka_unit_test(version_2),
        cmocka_unit_test(discard_keeps),
        cmocka_unit_test(subclusters),
        cmocka_unit_test(subclusters_over_backing),
        cmocka_unit_test(subclusters_move),
        cmocka_unit_test(subclusters_zero_in_part),
        cmocka_unit_test(compressed),
        cmocka_unit_test(does_not_compress),
        cmocka_unit_test(data_file),
        cmocka_unit_test(raw_data_file),
        cmocka_unit_test(status),
        cmocka_unit_test(discard_a_terabyte),
        cmocka_unit_test(vmstate),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
