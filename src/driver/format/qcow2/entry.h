/* SPDX-License-Identifier: MIT */
/*
 * What the entries of L1 and L2 tables mean ("Cluster mapping", "Extended L2 Entries"). Pure, and
 * inline because each request passes here. No entry is used before q2_l1_wrong or q2_l2_wrong has
 * passed it: they answer NULL, or in words what is wrong with it.
 */
#ifndef PLATTER_QCOW2_ENTRY_H
#define PLATTER_QCOW2_ENTRY_H

#include "io.h"
#include "qcow2.h"

/* An L2 entry in host order; bitmap is 0 without extended L2 entries. */
struct q2_l2_entry {
    uint64_t word;
    uint64_t bitmap; /* low half: allocated, high half: reads as zeroes; a bit per subcluster */
};

#define Q2_BITMAP_ALL UINT64_C(0xffffffff)

/* ---- L1 ---- */

static inline const char *q2_l1_wrong(const struct q2_geometry *geo, uint64_t entry)
{
    if ((entry & Q2_L1_RESERVED) != 0) {
        return "reserved bits are set";
    }
    if (!is_aligned(entry & Q2_OFFSET_MASK, geo->cluster_bytes)) {
        return "the L2 table is not aligned to a cluster";
    }
    return NULL;
}

/* Of the L2 table; 0: there is none. */
static inline uint64_t q2_l1_table(uint64_t entry)
{
    return entry & Q2_OFFSET_MASK;
}

/* ---- compressed clusters ---- */

static inline unsigned q2_compressed_offset_bits(const struct q2_geometry *geo)
{
    return 62 - (geo->cluster_bits - 8);
}

static inline uint64_t q2_compressed_offset(const struct q2_geometry *geo, uint64_t word)
{
    return word & ((UINT64_C(1) << q2_compressed_offset_bits(geo)) - 1);
}

/* From the offset to the end of the last sector; what is in use may be less. */
static inline uint32_t q2_compressed_bytes(const struct q2_geometry *geo, uint64_t word)
{
    uint64_t offset = q2_compressed_offset(geo, word);
    uint64_t more = (word & (Q2_COMPRESSED - 1)) >> q2_compressed_offset_bits(geo);

    return (uint32_t)((more + 1) * Q2_COMPRESSED_SECTOR - offset % Q2_COMPRESSED_SECTOR);
}

/* The entry for bytes of data at offset; 0: it cannot say that. */
static inline uint64_t q2_compressed_word(const struct q2_geometry *geo, uint64_t offset,
                                          uint32_t bytes)
{
    unsigned bits = q2_compressed_offset_bits(geo);
    uint64_t sectors =
        (offset % Q2_COMPRESSED_SECTOR + bytes + Q2_COMPRESSED_SECTOR - 1) / Q2_COMPRESSED_SECTOR;

    if (bytes == 0 || offset >> (bits < 56 ? bits : 56) != 0 || (sectors - 1) >> (62 - bits) != 0) {
        return 0;
    }
    return Q2_COMPRESSED | (sectors - 1) << bits | offset;
}

/* The flag COPIED should not be there, and is not looked at. */
static inline const char *q2_compressed_wrong(const struct q2_geometry *geo, struct q2_l2_entry e)
{
    if (geo->external_data) {
        return "a compressed cluster with an external data file";
    }
    if (e.bitmap != 0) {
        return "a compressed cluster with subclusters";
    }
    if (q2_compressed_offset(geo, e.word) >> 56 != 0) {
        return "reserved bits are set";
    }
    return NULL;
}

/* ---- standard clusters ---- */

static inline bool q2_l2_zero_flag(const struct q2_geometry *geo)
{
    return geo->version >= 3 && !geo->extended_l2;
}

static inline bool q2_l2_has_host(const struct q2_geometry *geo, uint64_t word)
{
    return (word & Q2_COMPRESSED) == 0 &&
           ((word & Q2_OFFSET_MASK) != 0 || (geo->external_data && (word & Q2_COPIED) != 0));
}

/* Of the cluster in the data file; UINT64_MAX: none. */
static inline uint64_t q2_l2_host(const struct q2_geometry *geo, uint64_t word)
{
    return q2_l2_has_host(geo, word) ? word & Q2_OFFSET_MASK : UINT64_MAX;
}

/* Whether the cluster of the entry, where it has one, is nobody else's. Guest clusters in an
 * external file always are. */
static inline bool q2_l2_copied(const struct q2_geometry *geo, uint64_t word)
{
    return (word & Q2_COPIED) != 0 || geo->external_data;
}

static inline const char *q2_bitmap_wrong(const struct q2_geometry *geo, struct q2_l2_entry e)
{
    if ((e.bitmap & e.bitmap >> Q2_SUBCLUSTERS & Q2_BITMAP_ALL) != 0) {
        return "a subcluster is both allocated and zero";
    }
    if ((e.bitmap & Q2_BITMAP_ALL) != 0 && !q2_l2_has_host(geo, e.word)) {
        return "subclusters are allocated without a cluster";
    }
    return NULL;
}

/* guest: offset of the cluster on the disk. */
static inline const char *q2_l2_wrong(const struct q2_geometry *geo, struct q2_l2_entry e,
                                      uint64_t guest)
{
    uint64_t host = e.word & Q2_OFFSET_MASK;

    if (UNLIKELY((e.word & Q2_COMPRESSED) != 0)) {
        return q2_compressed_wrong(geo, e);
    }
    if (UNLIKELY((e.word & (Q2_L2_RESERVED | (q2_l2_zero_flag(geo) ? 0 : Q2_ZERO))) != 0)) {
        return "reserved bits are set";
    }
    if (UNLIKELY(!is_aligned(host, geo->cluster_bytes))) {
        return "the cluster is not aligned";
    }
    if (UNLIKELY(geo->external_data)) {
        if (q2_l2_has_host(geo, e.word) && host != guest) {
            return "the cluster is not where it must be in the data file";
        }
    } else if (UNLIKELY(host == 0 && (e.word & Q2_COPIED) != 0)) {
        return "the flag COPIED without a cluster";
    }
    return UNLIKELY(geo->extended_l2) ? q2_bitmap_wrong(geo, e) : NULL;
}

/* What subcluster sub (0 without extended L2 entries) of a right entry holds. */
static inline enum q2_kind q2_l2_kind(const struct q2_geometry *geo, struct q2_l2_entry e,
                                      unsigned sub)
{
    if ((e.word & Q2_COMPRESSED) != 0) {
        return Q2_COMPRESSED_DATA;
    }
    if (geo->extended_l2) {
        if ((e.bitmap >> sub & 1) != 0) {
            return Q2_DATA;
        }
        return (e.bitmap >> (sub + Q2_SUBCLUSTERS) & 1) != 0 ? Q2_ZEROES : Q2_UNALLOCATED;
    }
    if ((e.word & Q2_ZERO) != 0) {
        return Q2_ZEROES;
    }
    return q2_l2_has_host(geo, e.word) ? Q2_DATA : Q2_UNALLOCATED;
}

/* How many subclusters from sub on, in a right entry, are of one kind. */
static inline unsigned q2_subclusters_alike(struct q2_l2_entry e, unsigned sub)
{
    uint64_t allocated = e.bitmap >> sub;
    uint64_t zero = allocated >> Q2_SUBCLUSTERS;
    uint64_t changes = (allocated & 1 ? ~allocated : allocated) | (zero & 1 ? ~zero : zero);

    changes &= Q2_BITMAP_ALL >> sub;
    return changes != 0 ? (unsigned)__builtin_ctzll(changes) : Q2_SUBCLUSTERS - sub;
}

/* ---- places ---- */

/* Index in the L1 table; in the L2 table. */
static inline uint64_t q2_l1_index(const struct q2_geometry *geo, uint64_t guest)
{
    return guest >> (geo->cluster_bits + geo->l2_bits);
}
static inline uint32_t q2_l2_index(const struct q2_geometry *geo, uint64_t guest)
{
    return (uint32_t)(guest >> geo->cluster_bits) & (geo->l2_entries - 1);
}
/* Bytes of the disk that one L2 table describes. */
static inline uint64_t q2_table_span(const struct q2_geometry *geo)
{
    return UINT64_C(1) << (geo->cluster_bits + geo->l2_bits);
}
/* Bits [from, to) of one half of a bitmap. */
static inline uint64_t q2_bits(unsigned from, unsigned to)
{
    return ((UINT64_C(1) << (to - from)) - 1) << from;
}

#endif
