/* SPDX-License-Identifier: MIT */
/* A small, right qcow2 image in memory, written from the specification alone, and places in it that
 * a fuzzer wants to harm. */
#ifndef PLATTER_TESTS_FUZZ_QCOW2_IMAGE_H
#define PLATTER_TESTS_FUZZ_QCOW2_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct qcow2_shape {
    unsigned cluster_bits; /* 9..16; at least 14 with extended L2 entries */
    unsigned refcount_order;
    bool version2;
    bool extended_l2;
    bool zstd; /* the type only: the compressed cluster is not made then */
    bool snapshot;
    bool bitmap;
    bool lazy;
    bool backing_name;
    bool data_file; /* external; neither a compressed cluster nor a snapshot is made then */
    bool data_file_raw;
};

/* Parts of the image, in clusters. */
enum qcow2_part {
    QCOW2_PART_HEADER,
    QCOW2_PART_REFTABLE,
    QCOW2_PART_REFBLOCK,
    QCOW2_PART_L1,
    QCOW2_PART_L2,
    QCOW2_PART_DATA,
    QCOW2_PART_DATA2,
    QCOW2_PART_COMPRESSED,
    QCOW2_PART_SNAPSHOTS,
    QCOW2_PART_SNAPSHOT_L1,
    QCOW2_PART_BITMAPS,
    QCOW2_PART_BITMAP_TABLE,
    QCOW2_PART_BITMAP_DATA,
    QCOW2_PARTS
};

/* An image of QCOW2_PARTS clusters (each part is one). NULL without memory; malloc'd. The disk has
 * QCOW2_DISK_CLUSTERS clusters. */
#define QCOW2_DISK_CLUSTERS 24
uint8_t *qcow2_image_new(const struct qcow2_shape *shape, size_t *ret_bytes);

#endif
