/* SPDX-License-Identifier: MIT */
/* Every reference of an image against every refcount. */
#include <stdlib.h>
#include <string.h>

#include "qcow2_verify.h"

enum use {
    USE_NONE,
    USE_HEADER,
    USE_REFTABLE,
    USE_REFBLOCK,
    USE_L1,
    USE_L2,
    USE_SNAPSHOTS,
    USE_SNAPSHOT_L1,
    USE_BITMAPS,
    USE_CRYPT,
    USE_DATA,
    USE_COMPRESSED,
};

static const char *const use_names[] = {
    "nothing",   "header",        "refcount table", "refcount block", "L1 table", "L2 table",
    "snapshots", "snapshot's L1", "bitmaps",        "crypt header",   "data",     "compressed data",
};

/* What is known of a cluster of the file. */
struct qv_cluster {
    uint64_t owner; /* guest cluster of DATA, L1 index of L2 */
    uint32_t references;
    uint32_t walk; /* of the last reference: an L1 table refers to DATA and L2 once */
    uint8_t use;
};

#define ULL(x) ((unsigned long long)(x))

/* ---- references ---- */

/* One reference to each cluster of [offset, offset + bytes), which lies in the file. */
static void claim(struct qv_image *im, enum use use, uint64_t offset, uint64_t bytes,
                  uint64_t owner, uint32_t walk)
{
    uint64_t first = offset / im->cluster_bytes;
    uint64_t last = (offset + bytes - 1) / im->cluster_bytes;

    for (uint64_t i = first; bytes > 0 && i <= last && i < im->cluster_count; i++) {
        struct qv_cluster *c = &im->clusters[i];
        bool shared = use == USE_DATA || use == USE_L2;

        if (c->use == USE_NONE) {
            c->use = (uint8_t)use;
            c->owner = owner;
        } else if (c->use != use) {
            qv_found(im, QV_CORRUPT, "cluster %llu is %s and %s", ULL(i), use_names[c->use],
                     use_names[use]);
        } else if (shared && (c->owner != owner || c->walk == walk)) {
            qv_found(im, QV_CORRUPT, "cluster %llu is %s of %llu and of %llu", ULL(i),
                     use_names[use], ULL(c->owner), ULL(owner));
        } else if (!shared && use != USE_COMPRESSED) {
            qv_found(im, QV_CORRUPT, "cluster %llu is %s twice", ULL(i), use_names[use]);
        }
        c->walk = walk;
        c->references++;
    }
}

static bool cluster_fits(const struct qv_image *im, uint64_t offset, bool whole)
{
    uint64_t end = whole ? im->file.bytes : qv_up(im->file.bytes, im->cluster_bytes);

    return offset != 0 && offset % im->cluster_bytes == 0 && offset < end &&
           im->cluster_bytes <= end - offset;
}

void qv_compressed_range(const struct qv_image *im, uint64_t entry, uint64_t *ret_offset,
                         uint64_t *ret_bytes)
{
    unsigned x = 62 - (im->h.cluster_bits - 8);
    uint64_t sectors = ((entry & (QV_COMPRESSED - 1)) >> x) + 1;
    uint64_t offset = entry & ((UINT64_C(1) << x) - 1);

    *ret_offset = offset;
    *ret_bytes = sectors * 512 - offset % 512;
}

static void walk_compressed(struct qv_image *im, uint64_t entry, uint64_t bitmap, uint64_t guest)
{
    uint64_t offset, bytes;

    qv_compressed_range(im, entry, &offset, &bytes);
    im->compressed_clusters++;
    if ((entry & QV_COPIED) || bitmap != 0 || qv_external(im)) {
        qv_found(im, QV_CORRUPT, "compressed cluster %llu: %#llx, %#llx", ULL(guest), ULL(entry),
                 ULL(bitmap));
    }
    if (offset == 0 || offset >= im->file.bytes ||
        offset + bytes > qv_up(im->file.bytes, im->cluster_bytes)) {
        qv_found(im, QV_CORRUPT, "compressed cluster %llu is not in the file: %#llx + %#llx",
                 ULL(guest), ULL(offset), ULL(bytes));
        return;
    }
    claim(im, USE_COMPRESSED, offset, bytes, guest, 0);
}

static void walk_standard(struct qv_image *im, uint64_t entry, uint64_t bitmap, uint64_t guest,
                          uint32_t walk)
{
    uint64_t offset = entry & QV_OFFSET;
    uint64_t reserved = UINT64_C(0x3f000000000001fe);
    bool here = offset != 0 || (qv_external(im) && (entry & QV_COPIED));

    if (im->h.version < 3 || qv_extended(im)) {
        reserved |= 1;
    }
    if ((entry & reserved) || (!here && (entry & QV_COPIED))) {
        qv_found(im, QV_CORRUPT, "L2 entry of %llu: %#llx", ULL(guest), ULL(entry));
    }
    if (((uint32_t)bitmap & (uint32_t)(bitmap >> 32)) || (!here && (uint32_t)bitmap != 0)) {
        qv_found(im, QV_CORRUPT, "subclusters of %llu: %#llx", ULL(guest), ULL(bitmap));
    }
    if (!here) {
        return;
    }
    im->data_clusters++;
    if (qv_external(im)) {
        if (offset != guest * im->cluster_bytes) {
            qv_found(im, QV_CORRUPT, "data of %llu is at %#llx of the data file", ULL(guest),
                     ULL(offset));
        }
        return;
    }
    if (!cluster_fits(im, offset, false)) {
        qv_found(im, QV_CORRUPT, "data of %llu is not in the file: %#llx", ULL(guest), ULL(offset));
        return;
    }
    claim(im, USE_DATA, offset, im->cluster_bytes, guest, walk);
}

static void walk_l2(struct qv_image *im, uint64_t offset, uint64_t l1_index, uint32_t walk)
{
    for (uint32_t i = 0; i < im->l2_entries; i++) {
        uint64_t at = offset + (uint64_t)i * im->l2_words * 8;
        uint64_t entry = qv_be64(im->file, at);
        uint64_t bitmap = im->l2_words == 2 ? qv_be64(im->file, at + 8) : 0;
        uint64_t guest = l1_index * im->l2_entries + i;

        if (entry & QV_COMPRESSED) {
            walk_compressed(im, entry, bitmap, guest);
        } else if (entry != 0 || bitmap != 0) {
            walk_standard(im, entry, bitmap, guest, walk);
        }
    }
}

static void walk_l1(struct qv_image *im, enum use use, uint64_t offset, uint32_t entries,
                    uint32_t walk)
{
    claim(im, use, offset, (uint64_t)entries * 8, 0, walk);
    for (uint32_t i = 0; i < entries; i++) {
        uint64_t entry = qv_be64(im->file, offset + (uint64_t)i * 8);
        uint64_t l2 = entry & QV_OFFSET;

        if (entry == 0) {
            continue;
        }
        if ((entry & ~(QV_OFFSET | QV_COPIED)) || !cluster_fits(im, l2, true)) {
            qv_found(im, QV_CORRUPT, "L1 entry %u: %#llx", i, ULL(entry));
            continue;
        }
        claim(im, USE_L2, l2, im->cluster_bytes, i, walk);
        walk_l2(im, l2, i, walk);
    }
}

static void walk_refcounts(struct qv_image *im)
{
    uint64_t bytes = (uint64_t)im->h.reftable_clusters * im->cluster_bytes;

    claim(im, USE_REFTABLE, im->h.reftable_offset, bytes, 0, 0);
    for (uint64_t i = 0; i < bytes / 8; i++) {
        uint64_t entry = qv_be64(im->file, im->h.reftable_offset + i * 8);

        if (entry == 0) {
            continue;
        }
        if (!cluster_fits(im, entry, true)) {
            qv_found(im, QV_CORRUPT, "refcount table entry %llu: %#llx", ULL(i), ULL(entry));
            continue;
        }
        claim(im, USE_REFBLOCK, entry, im->cluster_bytes, i, 0);
    }
}

static void walk_snapshots(struct qv_image *im)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < im->h.snapshot_count; i++) {
        const struct qv_snapshot *s = &im->snapshots[i];
        uint64_t end = (uint64_t)((const uint8_t *)s->name - im->file.data) + s->name_bytes;

        bytes = qv_up(end, 8) - im->h.snapshots_offset;
        if (s->l1_entries > 0) {
            walk_l1(im, USE_SNAPSHOT_L1, s->l1_offset, s->l1_entries, i + 2);
        }
    }
    claim(im, USE_SNAPSHOTS, im->h.snapshots_offset, bytes, 0, 0);
}

static void walk_bitmaps(struct qv_image *im)
{
    if (im->bitmap_count == 0) {
        return;
    }
    claim(im, USE_BITMAPS, im->h.bitmap_directory_offset, im->h.bitmap_directory_bytes, 0, 0);
    for (uint32_t i = 0; i < im->bitmap_count; i++) {
        const struct qv_bitmap *b = &im->bitmaps[i];

        claim(im, USE_BITMAPS, b->table_offset, (uint64_t)b->table_entries * 8, 0, 0);
        for (uint32_t j = 0; j < b->table_entries; j++) {
            uint64_t entry = qv_be64(im->file, b->table_offset + (uint64_t)j * 8);
            uint64_t offset = entry & QV_OFFSET;

            if ((entry & ~(QV_OFFSET | 1)) || (offset != 0 && (entry & 1)) ||
                (offset != 0 && !cluster_fits(im, offset, true))) {
                qv_found(im, QV_CORRUPT, "bitmap table entry %u: %#llx", j, ULL(entry));
            } else if (offset != 0) {
                claim(im, USE_BITMAPS, offset, im->cluster_bytes, 0, 0);
            }
        }
    }
}

/* ---- refcounts ---- */

static uint64_t refcount_in(const struct qv_image *im, uint64_t block, uint64_t index)
{
    unsigned order = im->h.refcount_order;

    switch (order) {
    case 6:
        return qv_be64(im->file, block + index * 8);
    case 5:
        return qv_be32(im->file, block + index * 4);
    case 4:
        return qv_be16(im->file, block + index * 2);
    case 3:
        return im->file.data[block + index];
    default: {
        unsigned bits = 1u << order;
        unsigned per_byte = 8 / bits;

        return im->file.data[block + index / per_byte] >> (index % per_byte * bits) &
               ((1u << bits) - 1);
    }
    }
}

static uint64_t refcount_of(const struct qv_image *im, uint64_t cluster)
{
    uint64_t per_block = ((uint64_t)im->cluster_bytes * 8) >> im->h.refcount_order;
    uint64_t i = cluster / per_block;
    uint64_t block;

    if (i >= (uint64_t)im->h.reftable_clusters * (im->cluster_bytes / 8)) {
        return 0;
    }
    block = qv_be64(im->file, im->h.reftable_offset + i * 8);
    return cluster_fits(im, block, true) ? refcount_in(im, block, cluster % per_block) : 0;
}

static void compare_refcounts(struct qv_image *im)
{
    for (uint64_t i = 0; i < im->cluster_count; i++) {
        uint64_t refcount = refcount_of(im, i);
        uint32_t references = im->clusters[i].references;

        if (refcount < references) {
            qv_found(im, QV_STALE, "cluster %llu (%s): refcount %llu, %u references", ULL(i),
                     use_names[im->clusters[i].use], ULL(refcount), references);
        } else if (refcount > references) {
            qv_found(im, QV_LEAK, "cluster %llu: refcount %llu, %u references", ULL(i),
                     ULL(refcount), references);
        }
    }
}

static void copied(struct qv_image *im, const char *what, uint64_t entry)
{
    uint64_t cluster = (entry & QV_OFFSET) / im->cluster_bytes;
    uint64_t refcount = refcount_of(im, cluster);
    uint32_t references = cluster < im->cluster_count ? im->clusters[cluster].references : 0;
    bool flag = entry & QV_COPIED;

    if (flag && references > 1) {
        qv_found(im, QV_STALE, "%s %#llx: COPIED, %u references", what, ULL(entry), references);
    } else if (flag != (refcount == 1)) {
        qv_found(im, QV_MISMATCH, "%s %#llx: refcount %llu", what, ULL(entry), ULL(refcount));
    }
}

/* Flags of the active tables only. */
static void compare_copied(struct qv_image *im)
{
    for (uint32_t i = 0; i < im->h.l1_entries; i++) {
        uint64_t entry = qv_be64(im->file, im->h.l1_offset + (uint64_t)i * 8);
        uint64_t l2 = entry & QV_OFFSET;

        if (l2 == 0 || !cluster_fits(im, l2, true)) {
            continue;
        }
        copied(im, "L1 entry", entry);
        for (uint32_t j = 0; j < im->l2_entries; j++) {
            uint64_t e = qv_be64(im->file, l2 + (uint64_t)j * im->l2_words * 8);

            if ((e & QV_COMPRESSED) || (e & QV_OFFSET) == 0) {
                continue;
            }
            if (!qv_external(im)) {
                copied(im, "L2 entry", e);
            } else if (!(e & QV_COPIED)) {
                qv_found(im, QV_MISMATCH, "L2 entry %#llx: not COPIED in a data file", ULL(e));
            }
        }
    }
}

void qv_verify(struct qv_image *im)
{
    uint64_t count = qv_up(im->file.bytes, im->cluster_bytes) / im->cluster_bytes;

    if (count > im->cluster_room) {
        free(im->clusters);
        im->clusters = malloc(count * sizeof(*im->clusters));
        im->cluster_room = im->clusters ? count : 0;
    }
    im->cluster_count = count <= im->cluster_room ? count : 0;
    if (im->cluster_count == 0) {
        qv_found(im, QV_CORRUPT, "no memory for the verifier");
        return;
    }
    memset(im->clusters, 0, im->cluster_count * sizeof(*im->clusters));
    claim(im, USE_HEADER, 0, 1, 0, 0);
    if (im->h.reftable_clusters > 0) {
        walk_refcounts(im);
    }
    if (im->h.l1_entries > 0) {
        walk_l1(im, USE_L1, im->h.l1_offset, im->h.l1_entries, 1);
    }
    walk_snapshots(im);
    walk_bitmaps(im);
    if (im->h.has_crypt_header) {
        claim(im, USE_CRYPT, im->h.crypt_offset, im->h.crypt_bytes, 0, 0);
    }
    compare_refcounts(im);
    compare_copied(im);
}

void qv_fini(struct qv_image *im)
{
    free(im->clusters);
    free(im->snapshots);
    free(im->bitmaps);
    qv_memo_free(im->memo);
    *im = (struct qv_image){0};
}
