/* SPDX-License-Identifier: MIT */
/* The header of an image, its extensions, and the tables of snapshots and bitmaps. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qcow2_verify.h"

#define ROOM_STEP 16

void qv_found(struct qv_image *im, enum qv_grade grade, const char *fmt, ...)
{
    va_list ap;

    switch (grade) {
    case QV_LEAK:
        im->leaks++;
        break;
    case QV_MISMATCH:
        im->mismatched++;
        break;
    case QV_STALE:
        im->stale++;
        break;
    default:
        im->corruptions++;
        break;
    }
    if ((int)grade > im->worst) {
        im->worst = (int)grade;
        va_start(ap, fmt);
        vsnprintf(im->text, sizeof(im->text), fmt, ap);
        va_end(ap);
    }
}

static uint64_t be(struct qv_bytes b, uint64_t offset, unsigned n)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < n; i++) {
        value = value << 8 | (offset + i < b.bytes ? b.data[offset + i] : 0);
    }
    return value;
}

uint64_t qv_be64(struct qv_bytes b, uint64_t offset)
{
    uint64_t value;

    if (qv_inside(b, offset, 8)) {
        memcpy(&value, b.data + offset, 8);
        return __builtin_bswap64(value);
    }
    return be(b, offset, 8);
}

uint32_t qv_be32(struct qv_bytes b, uint64_t offset)
{
    return (uint32_t)be(b, offset, 4);
}

uint32_t qv_be16(struct qv_bytes b, uint64_t offset)
{
    return (uint32_t)be(b, offset, 2);
}

/* ---- header ---- */

static void read_header(struct qv_image *im)
{
    struct qv_bytes f = im->file;
    struct qv_header *h = &im->h;

    h->version = qv_be32(f, 4);
    h->backing_name_offset = qv_be64(f, 8);
    h->backing_name_bytes = qv_be32(f, 16);
    h->cluster_bits = qv_be32(f, 20);
    h->disk_bytes = qv_be64(f, 24);
    h->crypt = qv_be32(f, 32);
    h->l1_entries = qv_be32(f, 36);
    h->l1_offset = qv_be64(f, 40);
    h->reftable_offset = qv_be64(f, 48);
    h->reftable_clusters = qv_be32(f, 56);
    h->snapshot_count = qv_be32(f, 60);
    h->snapshots_offset = qv_be64(f, 64);
    h->refcount_order = 4;
    h->header_bytes = 72;
    if (h->version >= 3) {
        h->incompatible = qv_be64(f, 72);
        h->compatible = qv_be64(f, 80);
        h->autoclear = qv_be64(f, 88);
        h->refcount_order = qv_be32(f, 96);
        h->header_bytes = qv_be32(f, 100);
        h->compression = h->header_bytes > 104 ? (uint8_t)be(f, 104, 1) : 0;
    }
}

/* What nobody could work with. */
static bool header_usable(struct qv_image *im)
{
    const struct qv_header *h = &im->h;

    if (!qv_inside(im->file, 0, 72) || qv_be32(im->file, 0) != 0x514649fb) {
        qv_found(im, QV_CLOSED, "no qcow2 image");
    } else if (h->version < 2 || h->version > 3) {
        qv_found(im, QV_CLOSED, "version %u", h->version);
    } else if (h->cluster_bits < 9 || h->cluster_bits > 21) {
        qv_found(im, QV_CLOSED, "cluster_bits %u", h->cluster_bits);
    } else if (h->incompatible & ~UINT64_C(31)) {
        qv_found(im, QV_CLOSED, "incompatible features %#llx", (unsigned long long)h->incompatible);
    } else if (h->refcount_order > 6) {
        qv_found(im, QV_CLOSED, "refcount_order %u", h->refcount_order);
    } else if (h->version >= 3 && (h->header_bytes < 104 || h->header_bytes % 8 != 0 ||
                                   h->header_bytes > UINT32_C(1) << h->cluster_bits)) {
        qv_found(im, QV_CLOSED, "header_length %u", h->header_bytes);
    } else if (((h->incompatible & 8) != 0) != (h->compression != 0) || h->compression > 1) {
        qv_found(im, QV_CLOSED, "compression_type %u does not fit its feature bit", h->compression);
    } else if (h->crypt > 2) {
        qv_found(im, QV_CLOSED, "crypt_method %u", h->crypt);
    } else if ((h->incompatible & 16) && h->cluster_bits < 14) {
        qv_found(im, QV_CLOSED, "extended L2 entries with cluster_bits %u", h->cluster_bits);
    } else if ((h->incompatible & 4) && !im->data.data) {
        qv_found(im, QV_CLOSED, "the data file is missing");
    }
    return im->worst < QV_CLOSED;
}

static void extension(struct qv_image *im, uint32_t type, uint64_t at, uint32_t bytes)
{
    struct qv_header *h = &im->h;

    if (type == 0x23852875) {
        if (bytes != 24 || h->has_bitmaps) {
            qv_found(im, QV_CORRUPT, "bitmaps extension of %u bytes, or two of them", bytes);
            return;
        }
        h->has_bitmaps = true;
        h->bitmap_count = qv_be32(im->file, at);
        h->bitmap_directory_bytes = qv_be64(im->file, at + 8);
        h->bitmap_directory_offset = qv_be64(im->file, at + 16);
        if (h->bitmap_count == 0 || qv_be32(im->file, at + 4) != 0) {
            qv_found(im, QV_CORRUPT, "bitmaps extension without bitmaps, or its reserved word");
        }
    } else if (type == 0x0537be77 && bytes == 16) {
        h->has_crypt_header = true;
        h->crypt_offset = qv_be64(im->file, at);
        h->crypt_bytes = qv_be64(im->file, at + 8);
    }
}

/* All of them end before the backing file's name, which ends inside the first cluster. */
static void extensions(struct qv_image *im)
{
    const struct qv_header *h = &im->h;
    uint64_t at = h->header_bytes;
    uint64_t end = im->cluster_bytes;

    if (h->backing_name_offset != 0) {
        if (h->backing_name_bytes > 1023 || h->backing_name_offset < h->header_bytes ||
            h->backing_name_offset + h->backing_name_bytes > im->cluster_bytes) {
            qv_found(im, QV_CORRUPT, "backing file name at %#llx, %u bytes",
                     (unsigned long long)h->backing_name_offset, h->backing_name_bytes);
            return;
        }
        end = h->backing_name_offset;
    }
    while (at + 8 <= end) {
        uint32_t type = qv_be32(im->file, at);
        uint32_t bytes = qv_be32(im->file, at + 4);

        if (type == 0) {
            return;
        }
        if (bytes > end - at - 8) {
            qv_found(im, QV_CORRUPT, "header extension %#x of %u bytes does not fit", type, bytes);
            return;
        }
        extension(im, type, at + 8, bytes);
        at = qv_up(at + 8 + bytes, 8);
    }
}

/* A table that the header names: aligned, not empty-handed, whole in the file. */
static bool table_fits(struct qv_image *im, const char *what, uint64_t offset, uint64_t bytes)
{
    if (offset == 0 || offset % im->cluster_bytes != 0 || !qv_inside(im->file, offset, bytes)) {
        qv_found(im, QV_CORRUPT, "%s: %#llx + %#llx is no place for it", what,
                 (unsigned long long)offset, (unsigned long long)bytes);
        return false;
    }
    return true;
}

static void header_tables(struct qv_image *im)
{
    struct qv_header *h = &im->h;
    uint64_t covered = (uint64_t)im->cluster_bytes * im->l2_entries;
    uint64_t needed = (h->disk_bytes + covered - 1) / covered;

    if (h->l1_entries < needed) {
        qv_found(im, QV_CORRUPT, "an L1 table of %u entries is too short", h->l1_entries);
    }
    if (h->l1_entries > 0 &&
        !table_fits(im, "L1 table", h->l1_offset, (uint64_t)h->l1_entries * 8)) {
        h->l1_entries = 0;
    }
    if (h->reftable_clusters == 0 ||
        !table_fits(im, "refcount table", h->reftable_offset,
                    (uint64_t)h->reftable_clusters * im->cluster_bytes)) {
        qv_found(im, QV_CORRUPT, "no refcount table");
        h->reftable_clusters = 0;
    }
    if ((h->autoclear & 2) && !(h->incompatible & 4)) {
        qv_found(im, QV_CORRUPT, "raw external data without an external data file");
    }
    if ((h->autoclear & 1) && !h->has_bitmaps) {
        qv_found(im, QV_CORRUPT, "the bitmaps bit without the bitmaps extension");
    }
}

/* ---- snapshots ---- */

static bool room_for(void **array, uint32_t *room, uint32_t count, size_t each)
{
    void *more;

    if (count < *room) {
        return true;
    }
    more = realloc(*array, (size_t)(*room + ROOM_STEP) * each);
    if (!more) {
        return false;
    }
    *array = more;
    *room += ROOM_STEP;
    return true;
}

/* One entry at *at; false: the table makes no sense from here on. */
static bool snapshot(struct qv_image *im, uint64_t *at, struct qv_snapshot *ret)
{
    struct qv_bytes f = im->file;
    uint64_t e = *at;
    uint32_t extra = qv_be32(f, e + 36);
    uint64_t id = e + 40 + extra;

    *ret = (struct qv_snapshot){
        .l1_offset = qv_be64(f, e),
        .l1_entries = qv_be32(f, e + 8),
        .id_bytes = qv_be16(f, e + 12),
        .name_bytes = qv_be16(f, e + 14),
        .vm_bytes = extra >= 8 ? qv_be64(f, e + 40) : qv_be32(f, e + 32),
        .disk_bytes = extra >= 16 ? qv_be64(f, e + 48) : im->h.disk_bytes,
    };
    *at = qv_up(id + ret->id_bytes + ret->name_bytes, 8);
    if (extra > 1024 || !qv_inside(f, e, id + ret->id_bytes + ret->name_bytes - e)) {
        qv_found(im, QV_CORRUPT, "snapshot table entry at %#llx", (unsigned long long)e);
        return false;
    }
    if (im->h.version >= 3 && extra < 16) {
        qv_found(im, QV_CORRUPT, "snapshot entry with %u bytes of extra data", extra);
    }
    ret->id = (const char *)f.data + id;
    ret->name = ret->id + ret->id_bytes;
    if (ret->l1_entries > 0 &&
        !table_fits(im, "L1 table of a snapshot", ret->l1_offset, (uint64_t)ret->l1_entries * 8)) {
        ret->l1_entries = 0;
    }
    return true;
}

static void snapshots(struct qv_image *im)
{
    uint32_t count = im->h.snapshot_count;
    uint64_t at = im->h.snapshots_offset;

    im->h.snapshot_count = 0;
    if (count == 0) {
        return;
    }
    if (count > 65536 || !table_fits(im, "snapshot table", at, 40)) {
        qv_found(im, QV_CORRUPT, "%u snapshots at %#llx", count, (unsigned long long)at);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (!room_for((void **)&im->snapshots, &im->snapshot_room, i, sizeof(*im->snapshots)) ||
            !snapshot(im, &at, &im->snapshots[i])) {
            return;
        }
        im->h.snapshot_count = i + 1;
        for (uint32_t j = 0; j < i; j++) {
            const struct qv_snapshot *a = &im->snapshots[i], *b = &im->snapshots[j];

            if (a->id_bytes == b->id_bytes && memcmp(a->id, b->id, a->id_bytes) == 0) {
                qv_found(im, QV_CORRUPT, "two snapshots of one id");
            }
        }
    }
}

int qv_snapshot_find(const struct qv_image *im, const char *name)
{
    size_t bytes = strlen(name);

    for (uint32_t i = 0; i < im->h.snapshot_count; i++) {
        const struct qv_snapshot *s = &im->snapshots[i];

        if (s->name_bytes == bytes && memcmp(s->name, name, bytes) == 0) {
            return (int)i;
        }
    }
    return -1;
}

/* ---- bitmaps ---- */

static bool bitmap(struct qv_image *im, uint64_t *at, uint64_t end, struct qv_bitmap *ret)
{
    struct qv_bytes f = im->file;
    uint64_t e = *at;
    uint32_t extra = qv_be32(f, e + 20);
    uint64_t name = e + 24 + extra;
    uint64_t bits;

    *ret = (struct qv_bitmap){
        .table_offset = qv_be64(f, e),
        .table_entries = qv_be32(f, e + 8),
        .flags = qv_be32(f, e + 12),
        .granularity_bits = (uint8_t)be(f, e + 17, 1),
        .name_bytes = qv_be16(f, e + 18),
    };
    *at = qv_up(name + ret->name_bytes, 8);
    if (extra > 4096 || *at > end || be(f, e + 16, 1) != 1 || ret->name_bytes == 0 ||
        ret->name_bytes > 1023 || (ret->flags & ~UINT32_C(7)) || ret->granularity_bits < 9 ||
        ret->granularity_bits > 31) {
        qv_found(im, QV_CORRUPT, "bitmap directory entry at %#llx", (unsigned long long)e);
        return false;
    }
    ret->name = (const char *)f.data + name;
    bits = (im->h.disk_bytes + (UINT64_C(1) << ret->granularity_bits) - 1) >> ret->granularity_bits;
    if (!(ret->flags & 1) &&
        ret->table_entries < qv_up(qv_up(bits, 8) / 8, im->cluster_bytes) / im->cluster_bytes) {
        qv_found(im, QV_CORRUPT, "a bitmap table of %u entries is too short", ret->table_entries);
    }
    if (ret->table_entries > 0 &&
        !table_fits(im, "bitmap table", ret->table_offset, (uint64_t)ret->table_entries * 8)) {
        ret->table_entries = 0;
    }
    return true;
}

static void bitmaps(struct qv_image *im)
{
    const struct qv_header *h = &im->h;
    uint64_t at = h->bitmap_directory_offset;
    uint64_t end = at + h->bitmap_directory_bytes;

    im->bitmap_count = 0;
    if (!h->has_bitmaps || !(h->autoclear & 1)) {
        return;
    }
    if (h->bitmap_count > 65535 || h->bitmap_directory_bytes > im->file.bytes ||
        !table_fits(im, "bitmap directory", at, h->bitmap_directory_bytes)) {
        return;
    }
    for (uint32_t i = 0; i < h->bitmap_count; i++) {
        if (!room_for((void **)&im->bitmaps, &im->bitmap_room, i, sizeof(*im->bitmaps)) ||
            !bitmap(im, &at, end, &im->bitmaps[i])) {
            return;
        }
        im->bitmap_count = i + 1;
    }
    if (at != end) {
        qv_found(im, QV_CORRUPT, "the bitmap directory is longer than its entries");
    }
}

const struct qv_bitmap *qv_bitmap_find(const struct qv_image *im, const char *name)
{
    size_t bytes = strlen(name);

    for (uint32_t i = 0; i < im->bitmap_count; i++) {
        const struct qv_bitmap *b = &im->bitmaps[i];

        if (b->name_bytes == bytes && memcmp(b->name, name, bytes) == 0) {
            return b;
        }
    }
    return NULL;
}

bool qv_bitmap_bit(const struct qv_image *im, const struct qv_bitmap *b, uint64_t number)
{
    uint64_t byte = number / 8;
    uint64_t index = byte / im->cluster_bytes;
    uint64_t entry;

    if (index >= b->table_entries) {
        return false;
    }
    entry = qv_be64(im->file, b->table_offset + index * 8);
    if ((entry & QV_OFFSET) == 0) {
        return entry & 1;
    }
    return be(im->file, (entry & QV_OFFSET) + byte % im->cluster_bytes, 1) >> (number % 8) & 1;
}

/* ---- */

bool qv_parse(struct qv_image *im, struct qv_bytes file, struct qv_bytes data,
              struct qv_bytes backing)
{
    im->file = file;
    im->data = data;
    im->backing = backing;
    im->h = (struct qv_header){0};
    im->corruptions = im->stale = im->mismatched = im->leaks = 0;
    im->data_clusters = im->compressed_clusters = 0;
    im->bitmap_count = 0;
    im->text[0] = '\0';
    im->worst = QV_FINE;
    read_header(im);
    if (!header_usable(im)) {
        im->h.snapshot_count = 0;
        return false;
    }
    im->cluster_bytes = UINT32_C(1) << im->h.cluster_bits;
    im->l2_words = qv_extended(im) ? 2 : 1;
    im->l2_entries = im->cluster_bytes / 8 / im->l2_words;
    extensions(im);
    header_tables(im);
    snapshots(im);
    bitmaps(im);
    return true;
}
