/* SPDX-License-Identifier: MIT */
/*
 * What the files of the request path share: map.c, read.c, write.c, alloc.c, cow.c, zero.c,
 * status.c, compressed_io.c, vmstate.c. Private to them, and to prealloc.c, which takes clusters as
 * they do.
 *
 * A request is inside (q2_enter_co) from its first look at the mapping to its end. One that changes
 * the mapping goes on like this, for one slice of an L2 table at a time:
 *
 *   q2_table_own_co   the L1 entry has an L2 table of its own (range lock on all it describes)
 *   q2_range_lock_co  on the clusters of the piece
 *   q2_slot_get_co    the slice, pinned; its entries of the range are now nobody else's to change
 *   ...               clusters, data
 *   q2_l2_set_co, q2_free_entry_later, q2_l2_put, q2_range_unlock
 */
#ifndef PLATTER_QCOW2_REQUEST_H
#define PLATTER_QCOW2_REQUEST_H

#include "entry.h"
#include "io.h"
#include "l1.h"
#include "qcow2.h"

/* Entries that are changed in one step: they stand on a stack. */
#define Q2_CHUNK 64

/* ---- map.c ---- */

/* As q2_map_co, for a write: what is impossible is fatal. */
int q2_map_write_co(struct qcow2 *s, uint64_t offset, uint64_t bytes, struct q2_extent *ret);
/* Tell that an L2 entry is impossible: -EIO. */
int q2_entry_corrupt_co(struct qcow2 *s, bool fatal, const struct q2_slice *slice, uint64_t guest,
                        const char *wrong);
/* 0 where [host, host + bytes) is inside the data file; else told, and -EIO. */
int q2_inside_co(struct qcow2 *s, bool fatal, uint64_t guest, uint64_t host, uint64_t bytes);

/* Index in its slice of the entry that describes guest. */
static inline uint32_t q2_slice_index(const struct qcow2 *s, uint64_t guest)
{
    return (uint32_t)(guest >> s->geo.cluster_bits) & (s->l2.slice_entries - 1);
}
/* Offset in the file of the slice that describes guest in the L2 table. */
static inline uint64_t q2_slice_key(const struct qcow2 *s, uint64_t table, uint64_t guest)
{
    return table + align_down((uint64_t)q2_l2_index(&s->geo, guest) * s->geo.l2_entry_bytes,
                              s->l2.slice_bytes);
}
static inline struct q2_l2_entry q2_slice_entry(const struct qcow2 *s, const struct q2_slice *slice,
                                                uint32_t index)
{
    struct q2_l2_entry e = {0};

    if (UNLIKELY(s->geo.extended_l2)) {
        q2_slice_pair(slice, 2 * index, &e.word, &e.bitmap);
    } else {
        e.word = q2_slice_word(slice, index);
    }
    return e;
}

/* The extent of guest in its cluster. NULL, or what is wrong. */
static inline const char *q2_slice_extent(const struct qcow2 *s, const struct q2_slice *slice,
                                          uint64_t l1_entry, uint64_t guest, struct q2_extent *ret)
{
    const struct q2_geometry *geo = &s->geo;
    uint64_t in = guest & (geo->cluster_bytes - 1);
    struct q2_l2_entry e = q2_slice_entry(s, slice, q2_slice_index(s, guest));
    const char *wrong = q2_l2_wrong(geo, e, guest - in);
    uint64_t host = q2_l2_host(geo, e.word);
    unsigned sub = (unsigned)(in >> __builtin_ctz(geo->subcluster_bytes));

    if (UNLIKELY(wrong != NULL)) {
        return wrong;
    }
    *ret = (struct q2_extent){
        .kind = q2_l2_kind(geo, e, sub),
        .copied = host != UINT64_MAX && q2_l2_copied(geo, e.word) &&
                  ((l1_entry & Q2_COPIED) != 0 || geo->external_data),
        .bytes = geo->subcluster_bytes - (in & (geo->subcluster_bytes - 1)),
        .host = host != UINT64_MAX ? host + in : UINT64_MAX,
    };
    if (UNLIKELY(geo->extended_l2)) {
        ret->bytes += (uint64_t)(q2_subclusters_alike(e, sub) - 1) * geo->subcluster_bytes;
    }
    if (UNLIKELY(ret->kind == Q2_COMPRESSED_DATA)) {
        ret->bytes = geo->cluster_bytes - in;
        ret->l2_entry = e.word;
    }
    return NULL;
}

/* The fast look: guest is data, and its slice is in memory. Then up to *ret_bytes are contiguous
 * from *ret_host on. Inside. */
static inline bool q2_map_data(struct qcow2 *s, uint64_t guest, struct q2_extent *ret)
{
    const struct q2_l1 *l1 = q2_l1_get(s);
    uint64_t index = q2_l1_index(&s->geo, guest);
    const struct q2_slice *slice;
    uint64_t l1_entry;

    if (UNLIKELY(index >= l1->entries)) {
        return false;
    }
    l1_entry = q2_l1_entry(l1, (uint32_t)index);
    if (UNLIKELY(q2_l1_wrong(&s->geo, l1_entry) != NULL || q2_l1_table(l1_entry) == 0)) {
        return false;
    }
    slice = q2_l2_find(s, q2_slice_key(s, q2_l1_table(l1_entry), guest));
    return LIKELY(slice != NULL) && q2_slice_extent(s, slice, l1_entry, guest, ret) == NULL &&
           ret->kind == Q2_DATA;
}

/* ---- read.c ---- */

/* Whether [offset, offset + bytes) of the disk reads as zeroes for sure, without reading it: 1, 0
 * or -errno. want_zero: holes of files are asked for. Coroutine, inside. */
int q2_reads_zero_co(struct qcow2 *s, uint64_t offset, uint64_t bytes, bool want_zero);
/* Into a buffer. */
int q2_read_buf_co(struct qcow2 *s, uint64_t offset, void *buf, size_t bytes);

/* ---- alloc.c ---- */

/* The L2 table that describes guest is there, and the active L1's alone. The caller holds no range
 * lock. 0 or -errno; -EIO told. Coroutine, inside. */
int q2_table_own_co(struct qcow2 *s, uint64_t guest);

/* A place in a pinned slice. */
struct q2_slot {
    struct q2_slice *slice;
    uint32_t index; /* of the entry */
};
/* The slot of guest, whose table is owned. q2_l2_put(slot.slice) ends it. Coroutine, inside. */
int q2_slot_get_co(struct qcow2 *s, uint64_t guest, struct q2_slot *ret);
/* Bytes from guest on that its slice describes. */
static inline uint64_t q2_slice_left(const struct qcow2 *s, uint64_t guest)
{
    uint64_t span = (uint64_t)s->l2.slice_entries << s->geo.cluster_bits;

    return span - (guest & (span - 1));
}
/* Put count (at most Q2_CHUNK) entries into the slice, from index on. */
int q2_entries_set_co(struct qcow2 *s, struct q2_slice *slice, uint32_t index,
                      const struct q2_l2_entry *entries, uint32_t count);
/* Clusters for guest data at guest, which is aligned: count of them or fewer, contiguous, at near
 * where they are free there (0: no wish). In an external file they are where they must be. */
int q2_alloc_data_co(struct qcow2 *s, uint64_t guest, uint64_t count, uint64_t near,
                     uint64_t *ret_host, uint64_t *ret_count);
/* Give back what was allocated so and is not in the mapping. */
void q2_unalloc_data_co(struct qcow2 *s, uint64_t host, uint64_t count);
/* The mapping no longer refers to what old says: e takes its place. */
void q2_entry_replaced(struct qcow2 *s, struct q2_l2_entry old, struct q2_l2_entry now,
                       enum q2_discard type);

/* ---- cow.c ---- */

/* A write to clusters that are not in the mapping yet, or only in part. */
struct q2_cow {
    uint64_t start; /* [start, end) of the disk is written: what the guest gave, and around it */
    uint64_t end;   /* what its clusters hold now */
    uint64_t host;  /* of start */
    bool fresh;     /* nothing of the clusters at host is in use */
};
/* Write req and what is around it; then all of [start, end) is in the data file. Coroutine, inside,
 * with the range locked. */
int q2_cow_write_co(struct qcow2 *s, const struct q2_cow *cow, const struct bdrv_req *req);
/* To the data file, after the check that it is not metadata. */
int q2_data_write_co(struct qcow2 *s, const struct bdrv_req *req);

/* ---- reach.c ---- */

/* Make the data file reach end. [start, end) is the caller's, past the end of the file, and nobody
 * has written to it; it reads as zeroes then. Coroutine, inside. */
int q2_reach_co(struct qcow2 *s, uint64_t start, uint64_t end);

/* ---- the end of a request ---- */

static inline int q2_leave_ret_co(struct qcow2 *s, q2_token token, int ret)
{
    q2_leave(s, token);
    if (UNLIKELY(q2_free_due(s))) {
        q2_free_run_co(s);
    }
    return ret;
}

/* A part of a request: bytes of it from skip on. */
static inline struct bdrv_req q2_req_part(const struct bdrv_req *req, uint64_t skip, uint64_t bytes)
{
    struct bdrv_req part = *req;

    part.offset += skip;
    part.bytes = bytes;
    part.iov_offset += skip;
    return part;
}

#endif
