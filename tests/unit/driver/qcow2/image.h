/* SPDX-License-Identifier: MIT */
/*
 * A small image for tests of the request path: a file made here byte by byte, opened by the driver,
 * and looked at in the file again. Nothing of the driver makes or reads it.
 */
#ifndef PLATTER_TESTS_QCOW2_IMAGE_H
#define PLATTER_TESTS_QCOW2_IMAGE_H

#include "../../cmocka_all.h"

#include <stdbool.h>
#include <stdint.h>

#include <platter/backend.h>

struct image_shape {
    unsigned version;      /* 2 or 3; 0: 3 */
    unsigned cluster_bits; /* 0: 16 */
    uint64_t disk_bytes;   /* 0: 1 MiB */
    bool extended_l2;
    bool zstd;
    bool backing; /* a disk full of 0xbb below */
    bool data_file;
    bool data_file_raw;
    const char *options; /* of the open node, after a comma; NULL: none */
};

struct image {
    struct image_shape shape;
    Platter *pl;
    AioContext *ctx;
    char path[40];
    char data_path[40]; /* empty: none */
    int fd;
    int data_fd;
    BlockDriverState *base; /* NULL: none */
    BlockBackend *blk;      /* NULL: closed */
    unsigned told;          /* corruptions */
    unsigned told_fatal;
    char message[256]; /* of the last */
};

/* Clusters of an image as it is made: header, refcount table, refcount block, L1 table. */
#define IMAGE_L1_CLUSTER 3
#define IMAGE_NEXT_CLUSTER 4

void image_init(struct image *im, struct image_shape shape);
void image_fini(struct image *im);
void image_open(struct image *im);
void image_close(struct image *im);

/* The file, while the image is closed. */
uint64_t image_word(struct image *im, uint64_t offset);
void image_set_word(struct image *im, uint64_t offset, uint64_t word);
/* Refcounts have 16 bits. */
unsigned image_refcount(struct image *im, uint64_t cluster);
void image_set_refcount(struct image *im, uint64_t cluster, unsigned refcount);
uint64_t image_file_bytes(struct image *im);
/* A byte of the data file. */
int image_data_byte(struct image *im, uint64_t offset);
/* Words of the first L2 table, from word index on; the L1 entry must be there. */
void image_expect_l2(struct image *im, unsigned index, const uint64_t *words, unsigned count);
/* An L2 table at IMAGE_NEXT_CLUSTER whose first word is word (and bitmap, if it has them). */
void image_set_l2(struct image *im, uint64_t word, uint64_t bitmap);

/* The disk, while it is open. The result is the request's. */
int image_fill(struct image *im, uint64_t offset, uint64_t bytes, int byte);
int image_write(struct image *im, uint64_t offset, const void *buf, uint64_t bytes,
                bool compressed);
int image_fill_compressed(struct image *im, uint64_t offset, uint64_t bytes, int byte);
int image_zero(struct image *im, uint64_t offset, uint64_t bytes, int flags);
int image_discard(struct image *im, uint64_t offset, uint64_t bytes);
/* Reads: all of it must be byte. */
void image_expect(struct image *im, uint64_t offset, uint64_t bytes, int byte);
int image_read(struct image *im, uint64_t offset, uint64_t bytes);
struct image_status {
    int flags; /* BDRV_BLOCK_*, or -errno */
    int64_t bytes;
    int64_t map;
};
struct image_status image_status(struct image *im, uint64_t offset, uint64_t bytes);

#endif
