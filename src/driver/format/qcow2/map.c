/* SPDX-License-Identifier: MIT */
/*
 * The mapping of guest offsets, as the L1 table and the slices in memory say it. Nothing is written
 * here and no lock is taken; what is impossible is told (q2_corrupt_co) and is -EIO.
 */
#include <errno.h>
#include <inttypes.h>

#include "l1.h"
#include "overlap.h"
#include "request.h"

int q2_entry_corrupt_co(struct qcow2 *s, bool fatal, const struct q2_slice *slice, uint64_t guest,
                        const char *wrong)
{
    uint32_t index = q2_slice_index(s, guest);

    return q2_corrupt_co(s, fatal, slice->key + (uint64_t)index * s->geo.l2_entry_bytes,
                         s->geo.l2_entry_bytes,
                         "L2 entry of disk offset %#" PRIx64 " is impossible: %s", guest, wrong);
}

int q2_inside_co(struct qcow2 *s, bool fatal, uint64_t guest, uint64_t host, uint64_t bytes)
{
    int64_t file_bytes = bdrv_edge_getlength(s->data);

    if (file_bytes < 0) {
        return (int)file_bytes;
    }
    if (range_inside(host, bytes, (uint64_t)file_bytes)) {
        return 0;
    }
    return q2_corrupt_co(s, fatal, host, bytes,
                         "cluster of disk offset %#" PRIx64 " is past the end of the file", guest);
}

static void extent_hole(struct q2_extent *ret, uint64_t bytes)
{
    *ret = (struct q2_extent){.kind = Q2_UNALLOCATED, .bytes = bytes, .host = UINT64_MAX};
}

/* From offset on, whose L1 entry is index and has no table: over all that have none. */
static void map_hole(const struct qcow2 *s, const struct q2_l1 *l1, uint64_t index, uint64_t offset,
                     uint64_t bytes, struct q2_extent *ret)
{
    uint64_t span = q2_table_span(&s->geo);
    uint64_t end = (index + 1) * span;

    while (end - offset < bytes && ++index < l1->entries && q2_l1_entry(l1, (uint32_t)index) == 0) {
        end += span;
    }
    extent_hole(ret, index < l1->entries ? min_u64(bytes, end - offset) : bytes);
}

static bool joins(const struct q2_extent *a, const struct q2_extent *b)
{
    if (a->kind != b->kind || a->kind == Q2_COMPRESSED_DATA || a->copied != b->copied) {
        return false;
    }
    return a->host == UINT64_MAX ? b->host == UINT64_MAX : b->host == a->host + a->bytes;
}

/* How far the entries after that of offset, which was right and means first, are the ones to be
 * expected: the same once more, or the next clusters of the file. They need no looking at each. */
static uint64_t slice_run(const struct qcow2 *s, const struct q2_slice *slice, uint64_t offset,
                          uint64_t bytes, const struct q2_extent *first)
{
    const uint64_t step = first->host != UINT64_MAX ? s->geo.cluster_bytes : 0;
    uint32_t index = q2_slice_index(s, offset);
    struct q2_l2_entry e = q2_slice_entry(s, slice, index);
    uint64_t run = first->bytes;

    if (first->kind == Q2_COMPRESSED_DATA || (e.bitmap != 0 && e.bitmap != Q2_BITMAP_ALL &&
                                              e.bitmap != Q2_BITMAP_ALL << Q2_SUBCLUSTERS)) {
        return run;
    }
    while (run < bytes) {
        struct q2_l2_entry next = q2_slice_entry(s, slice, ++index);

        if (next.word != e.word + step || next.bitmap != e.bitmap) {
            break;
        }
        e.word = next.word;
        run += s->geo.cluster_bytes;
    }
    return (e.word & Q2_L2_RESERVED) == 0 ? run : first->bytes; /* grew out of its bits? */
}

static int map_slice_co(struct qcow2 *s, const struct q2_slice *slice, uint64_t l1_entry,
                        uint64_t offset, uint64_t bytes, bool fatal, struct q2_extent *ret)
{
    const char *wrong = q2_slice_extent(s, slice, l1_entry, offset, ret);
    struct q2_extent next;

    if (wrong != NULL) {
        return q2_entry_corrupt_co(s, fatal, slice, offset, wrong);
    }
    bytes = min_u64(bytes, q2_slice_left(s, offset));
    ret->bytes = slice_run(s, slice, offset, bytes, ret);
    while (ret->bytes < bytes &&
           q2_slice_extent(s, slice, l1_entry, offset + ret->bytes, &next) == NULL &&
           joins(ret, &next)) {
        ret->bytes += next.bytes;
    }
    ret->bytes = min_u64(ret->bytes, bytes);
    return 0;
}

static int map_co(struct qcow2 *s, uint64_t offset, uint64_t bytes, bool fatal,
                  struct q2_extent *ret)
{
    const struct q2_l1 *l1 = q2_l1_get(s);
    uint64_t index = q2_l1_index(&s->geo, offset);
    struct q2_slice *slice;
    const char *wrong;
    uint64_t l1_entry;
    uint64_t key;

    if (index >= l1->entries) {
        extent_hole(ret, bytes);
        return 0;
    }
    l1_entry = q2_l1_entry(l1, (uint32_t)index);
    wrong = q2_l1_wrong(&s->geo, l1_entry);
    if (wrong != NULL) {
        return q2_corrupt_co(s, fatal, q2_l1_table(l1_entry), s->geo.cluster_bytes,
                             "L1 entry %" PRIu64 " is impossible: %s", index, wrong);
    }
    if (q2_l1_table(l1_entry) == 0) {
        map_hole(s, l1, index, offset, bytes, ret);
        return 0;
    }
    key = q2_slice_key(s, q2_l1_table(l1_entry), offset);
    slice = q2_l2_find(s, key);
    if (slice == NULL) {
        int err = q2_l2_get_co(s, key, &slice);

        if (err < 0) {
            return err;
        }
        q2_l2_put(s, slice); /* it may go, but its memory stays: we are inside */
    }
    return map_slice_co(s, slice, l1_entry, offset, bytes, fatal, ret);
}

int q2_map_co(struct qcow2 *s, uint64_t offset, uint64_t bytes, struct q2_extent *ret)
{
    return map_co(s, offset, bytes, false, ret);
}

int q2_map_write_co(struct qcow2 *s, uint64_t offset, uint64_t bytes, struct q2_extent *ret)
{
    return map_co(s, offset, bytes, true, ret);
}
