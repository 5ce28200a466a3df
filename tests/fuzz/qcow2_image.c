/* SPDX-License-Identifier: MIT */
#include "qcow2_image.h"

#include <stdlib.h>
#include <string.h>

#include "util/bytes.h"

#define COPIED (UINT64_C(1) << 63)
#define COMPRESSED (UINT64_C(1) << 62)

/* A raw deflate stream of one stored block cannot be smaller than what it holds, but this one is a
 * run: fixed Huffman codes, the literal 0x41 and matches of distance 1 would need a bit writer; a
 * stored block of the first bytes is enough for readers to have something to fail on. */
static void put_deflate(uint8_t *to, size_t cluster_bytes)
{
    size_t n = cluster_bytes / 2 - 16;

    to[0] = 1; /* the last block, stored */
    to[1] = (uint8_t)n;
    to[2] = (uint8_t)(n >> 8);
    to[3] = (uint8_t)~to[1];
    to[4] = (uint8_t)~to[2];
    memset(to + 5, 0x41, n);
}

static bool part_is_used(const struct qcow2_shape *shape, unsigned part)
{
    if (part == QCOW2_PART_SNAPSHOTS || part == QCOW2_PART_SNAPSHOT_L1) {
        return shape->snapshot;
    }
    if (part >= QCOW2_PART_BITMAPS) {
        return shape->bitmap;
    }
    if (part == QCOW2_PART_DATA || part == QCOW2_PART_DATA2) {
        return !shape->data_file;
    }
    return part != QCOW2_PART_COMPRESSED || (!shape->zstd && !shape->data_file);
}

/* How often a part is referred to: what a snapshot shares counts twice. */
static unsigned part_references(const struct qcow2_shape *shape, unsigned part)
{
    bool shared = part == QCOW2_PART_L2 || part == QCOW2_PART_DATA || part == QCOW2_PART_DATA2 ||
                  part == QCOW2_PART_COMPRESSED;

    return !part_is_used(shape, part) ? 0 : shared && shape->snapshot ? 2 : 1;
}

static void put_refcount(uint8_t *block, unsigned order, unsigned index, unsigned value)
{
    unsigned bits = 1u << order;

    if (bits < 8) {
        block[index * bits / 8] |= (uint8_t)(value << (index * bits % 8));
    } else {
        block[(index + 1) * (bits / 8) - 1] = (uint8_t)value;
    }
}

static uint8_t *put_extension(uint8_t *to, uint32_t type, const void *data, uint32_t bytes)
{
    store_be32(to, type);
    store_be32(to + 4, bytes);
    memcpy(to + 8, data, bytes);
    return to + 8 + (bytes + 7) / 8 * 8;
}

static void put_header(uint8_t *image, const struct qcow2_shape *shape)
{
    uint64_t cluster = UINT64_C(1) << shape->cluster_bits;
    uint8_t *at;

    memcpy(image, "QFI\xfb", 4);
    store_be32(image + 4, shape->version2 ? 2 : 3);
    store_be32(image + 20, shape->cluster_bits);
    store_be64(image + 24, QCOW2_DISK_CLUSTERS * cluster);
    store_be32(image + 36, 1);
    store_be64(image + 40, QCOW2_PART_L1 * cluster);
    store_be64(image + 48, QCOW2_PART_REFTABLE * cluster);
    store_be32(image + 56, 1);
    if (shape->snapshot) {
        store_be32(image + 60, 1);
        store_be64(image + 64, QCOW2_PART_SNAPSHOTS * cluster);
    }
    at = image + 72;
    if (!shape->version2) {
        store_be64(image + 72, (shape->extended_l2 ? 1 << 4 : 0) | (shape->zstd ? 1 << 3 : 0) |
                                   (shape->data_file ? 1 << 2 : 0));
        store_be64(image + 80, shape->lazy);
        store_be64(image + 88, shape->bitmap | (shape->data_file && shape->data_file_raw ? 2 : 0));
        store_be32(image + 96, shape->refcount_order);
        store_be32(image + 100, 112);
        image[104] = shape->zstd;
        at = image + 112;
    }
    if (shape->bitmap) {
        uint8_t ext[24] = {0};

        store_be32(ext, 1);
        store_be64(ext + 8, 32); /* the one entry */
        store_be64(ext + 16, QCOW2_PART_BITMAPS * cluster);
        at = put_extension(at, 0x23852875, ext, sizeof(ext));
    }
    if (shape->data_file) {
        at = put_extension(at, 0x44415441, "data.raw", 8);
    }
    at = put_extension(at, 0x12345678, "unknown", 7);
    if (shape->backing_name) {
        at += 8;
        store_be64(image + 8, (uint64_t)(at - image));
        store_be32(image + 16, 9);
        memcpy(at, "base.file", 9);
    }
}

static void put_tables(uint8_t *image, const struct qcow2_shape *shape)
{
    uint64_t cluster = UINT64_C(1) << shape->cluster_bits;
    uint64_t copied = shape->snapshot ? 0 : COPIED;
    size_t entry = shape->extended_l2 ? 16 : 8;
    uint8_t *l2 = image + QCOW2_PART_L2 * cluster;
    unsigned order = shape->version2 ? 4 : shape->refcount_order;

    store_be64(image + QCOW2_PART_REFTABLE * cluster, QCOW2_PART_REFBLOCK * cluster);
    for (unsigned part = 0; part < QCOW2_PARTS; part++) {
        put_refcount(image + QCOW2_PART_REFBLOCK * cluster, order, part,
                     part_references(shape, part));
    }
    store_be64(image + QCOW2_PART_L1 * cluster, QCOW2_PART_L2 * cluster | copied);
    store_be64(l2, (shape->data_file ? 0 : QCOW2_PART_DATA * cluster) | copied);
    store_be64(l2 + 3 * entry, (shape->data_file ? 3 : QCOW2_PART_DATA2) * cluster | copied);
    if (shape->extended_l2) {
        store_be64(l2 + 8, UINT32_MAX);
        store_be64(l2 + 3 * entry + 8, UINT64_C(0xff00) << 32 | 0xff);
    } else if (!shape->version2) {
        store_be64(l2 + entry, 1); /* zeroes */
    }
    if (part_is_used(shape, QCOW2_PART_COMPRESSED)) {
        store_be64(l2 + 2 * entry, COMPRESSED | QCOW2_PART_COMPRESSED * cluster |
                                       ((cluster / 512 + 1) / 2 - 1)
                                           << (62 - (shape->cluster_bits - 8)));
        put_deflate(image + QCOW2_PART_COMPRESSED * cluster, cluster);
    }
    memset(image + QCOW2_PART_DATA * cluster, 0x11, cluster);
    memset(image + QCOW2_PART_DATA2 * cluster, 0x22, cluster);
}

static void put_snapshot(uint8_t *image, const struct qcow2_shape *shape)
{
    uint64_t cluster = UINT64_C(1) << shape->cluster_bits;
    uint8_t *e = image + QCOW2_PART_SNAPSHOTS * cluster;

    store_be64(e, QCOW2_PART_SNAPSHOT_L1 * cluster);
    store_be32(e + 8, 1);
    store_be16(e + 12, 1);
    store_be16(e + 14, 4);
    store_be32(e + 36, 16);
    store_be64(e + 48, QCOW2_DISK_CLUSTERS * cluster);
    memcpy(e + 56, "1snap", 5);
    store_be64(image + QCOW2_PART_SNAPSHOT_L1 * cluster, QCOW2_PART_L2 * cluster);
}

static void put_bitmap(uint8_t *image, const struct qcow2_shape *shape)
{
    uint64_t cluster = UINT64_C(1) << shape->cluster_bits;
    uint8_t *e = image + QCOW2_PART_BITMAPS * cluster;

    store_be64(e, QCOW2_PART_BITMAP_TABLE * cluster);
    store_be32(e + 8, 1);
    store_be32(e + 12, 2); /* auto */
    e[16] = 1;
    e[17] = (uint8_t)shape->cluster_bits;
    store_be16(e + 18, 3);
    memcpy(e + 24, "map", 3);
    store_be64(image + QCOW2_PART_BITMAP_TABLE * cluster, QCOW2_PART_BITMAP_DATA * cluster);
    image[QCOW2_PART_BITMAP_DATA * cluster] = 0x0b;
}

uint8_t *qcow2_image_new(const struct qcow2_shape *shape, size_t *ret_bytes)
{
    uint8_t *image;

    *ret_bytes = (size_t)QCOW2_PARTS << shape->cluster_bits;
    image = calloc(1, *ret_bytes);
    if (image != NULL) {
        put_header(image, shape);
        put_tables(image, shape);
        if (shape->snapshot) {
            put_snapshot(image, shape);
        }
        if (shape->bitmap) {
            put_bitmap(image, shape);
        }
    }
    return image;
}
