/* SPDX-License-Identifier: MIT */
/*
 * A second reader of qcow2, for tests: it looks at the bytes of an image and says whether its
 * structure is right and what the disk holds. Written from docs/interop/qcow2.rst of the qemu
 * project alone; it shares no code with the driver, so that a misunderstanding must be made twice
 * to go unseen. It works on images in memory, allocates little and is fast: the power-cut gate asks
 * it about each state of a disk.
 *
 * What it tells apart:
 *  corruptions  a guest may read wrong bytes, now or after further writes; or the image says what
 *               the specification forbids
 *  stale        a refcount that is too low; a COPIED flag set on what is shared. Harm only while
 *               the dirty bit is clear: then they are corruptions too (qv_sound)
 *  mismatched   COPIED differs from "the refcount is one", but what the flag allows is safe: what
 *               is referred to once may be written in place, and copying needs no permission
 *  leaks        clusters whose refcount is higher than their references
 */
#ifndef TESTS_SIM_QCOW2_VERIFY_H
#define TESTS_SIM_QCOW2_VERIFY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QV_TEXT 200

/* Bytes in memory; beyond their end are zeroes. data NULL: no such file. */
struct qv_bytes {
    const uint8_t *data;
    uint64_t bytes;
};

struct qv_header {
    uint32_t version;
    uint32_t cluster_bits;
    uint64_t disk_bytes;
    uint32_t crypt;
    uint32_t l1_entries;
    uint64_t l1_offset;
    uint64_t reftable_offset;
    uint32_t reftable_clusters;
    uint32_t snapshot_count;
    uint64_t snapshots_offset;
    uint64_t incompatible;
    uint64_t compatible;
    uint64_t autoclear;
    uint32_t refcount_order;
    uint32_t header_bytes;
    uint8_t compression; /* 0 zlib, 1 zstd */
    uint32_t backing_name_bytes;
    uint64_t backing_name_offset;
    bool has_bitmaps;
    uint32_t bitmap_count;
    uint64_t bitmap_directory_bytes;
    uint64_t bitmap_directory_offset;
    bool has_crypt_header;
    uint64_t crypt_offset;
    uint64_t crypt_bytes;
};

/* A snapshot; index -1 of the calls below means the disk. Pointers are into the image. */
struct qv_snapshot {
    uint64_t l1_offset;
    uint32_t l1_entries;
    uint64_t disk_bytes;
    uint64_t vm_bytes;
    const char *id, *name; /* not terminated */
    uint32_t id_bytes, name_bytes;
};

struct qv_bitmap {
    uint64_t table_offset;
    uint32_t table_entries;
    uint32_t flags; /* 1: in use, 2: auto */
    uint8_t granularity_bits;
    const char *name; /* not terminated */
    uint32_t name_bytes;
};

struct qv_cluster; /* qcow2_verify.c */
struct qv_memo;    /* qcow2_verify_read.c */

struct qv_image {
    struct qv_bytes file;
    struct qv_bytes data;    /* external data file */
    struct qv_bytes backing; /* what the backing file holds, as a raw disk */
    struct qv_header h;
    uint32_t cluster_bytes;
    uint32_t l2_entries; /* of a table */
    uint32_t l2_words;   /* of an entry: 1 or 2 */
    struct qv_snapshot *snapshots;
    struct qv_bitmap *bitmaps; /* empty where the autoclear bit does not vouch for them */
    uint32_t bitmap_count;

    /* the verdict */
    uint64_t corruptions, stale, mismatched, leaks;
    uint64_t data_clusters, compressed_clusters;
    char text[QV_TEXT]; /* the first of the worst; empty: none */
    int worst;

    /* scratch, kept from image to image */
    struct qv_cluster *clusters;
    uint64_t cluster_count, cluster_room;
    uint32_t snapshot_room, bitmap_room;
    struct qv_memo *memo; /* what compressed clusters hold */
};

/* Begin with zeroes: struct qv_image im = {0}. Sets file, data and backing, looks at the header and
 * the tables of snapshots and bitmaps. False: nobody can open this image; text says why. */
bool qv_parse(struct qv_image *im, struct qv_bytes file, struct qv_bytes data,
              struct qv_bytes backing);
/* After qv_parse: every reference and every refcount. */
void qv_verify(struct qv_image *im);
void qv_fini(struct qv_image *im);

static inline bool qv_dirty(const struct qv_image *im)
{
    return im->h.incompatible & 1;
}
/* Nothing but leaks (and stale refcounts under the dirty bit, which a repair rebuilds). */
static inline bool qv_sound(const struct qv_image *im)
{
    return im->corruptions == 0 && (qv_dirty(im) || im->stale == 0);
}

/* What [offset, offset + bytes) of the disk or a snapshot reads as; may lie past the disk, where VM
 * state is. False: it cannot be read (text says why). */
bool qv_read(struct qv_image *im, int snapshot, uint64_t offset, void *buf, size_t bytes);
/* Bit of a bitmap of im->bitmaps. */
bool qv_bitmap_bit(const struct qv_image *im, const struct qv_bitmap *bitmap, uint64_t number);
/* The bitmap of that name, NULL: none that can be relied on to be described. */
const struct qv_bitmap *qv_bitmap_find(const struct qv_image *im, const char *name);
/* Index of the snapshot of that name, -1: none. */
int qv_snapshot_find(const struct qv_image *im, const char *name);

/* ---- between the files ---- */

#define QV_OFFSET UINT64_C(0x00fffffffffffe00)
#define QV_COPIED (UINT64_C(1) << 63)
#define QV_COMPRESSED (UINT64_C(1) << 62)

enum qv_grade { QV_FINE, QV_LEAK, QV_MISMATCH, QV_STALE, QV_CORRUPT, QV_CLOSED };
void qv_found(struct qv_image *im, enum qv_grade grade, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Big-endian; zero beyond the end. */
uint64_t qv_be64(struct qv_bytes b, uint64_t offset);
uint32_t qv_be32(struct qv_bytes b, uint64_t offset);
uint32_t qv_be16(struct qv_bytes b, uint64_t offset);

static inline bool qv_inside(struct qv_bytes b, uint64_t offset, uint64_t bytes)
{
    return offset <= b.bytes && bytes <= b.bytes - offset;
}
static inline uint64_t qv_up(uint64_t value, uint64_t align)
{
    return (value + align - 1) / align * align;
}
static inline bool qv_extended(const struct qv_image *im)
{
    return im->h.incompatible & 16;
}
static inline bool qv_external(const struct qv_image *im)
{
    return im->h.incompatible & 4;
}
/* Where compressed data stands: bytes reach to the end of its last sector. */
void qv_compressed_range(const struct qv_image *im, uint64_t entry, uint64_t *ret_offset,
                         uint64_t *ret_bytes);
void qv_memo_free(struct qv_memo *memo);

#endif
