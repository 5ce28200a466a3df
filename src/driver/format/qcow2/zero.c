/* SPDX-License-Identifier: MIT */
/*
 * Write zeroes and discard: the mapping changes, no data is written. One slice of an L2 table at a
 * time is locked; what is as wanted already is passed over, holes in the L1 table in one step.
 *
 * Zeroed clusters keep their cluster in the file as room for later, unless the caller lets it go
 * (MAY_UNMAP, discard) or it is not ours alone. What a discard leaves reads as zeroes, so that
 * nothing old shows; without a backing file, version 2 can say so by "unallocated", with one it
 * cannot, and a discard does nothing.
 *
 * A raw external data file must read the same by itself: its zeroes are written too, and its
 * clusters stay mapped.
 */
#include <errno.h>

#include "compact.h"
#include "driver.h"
#include "request.h"

struct zero_job {
    struct qcow2 *s;
    bool discard; /* else zeroes are to be written */
    bool keep;    /* clusters of ours stay as room */
    bool drop;    /* nothing is left: the backing file shows */
    enum q2_discard type;
};

/* ---- entries ---- */

static uint64_t room_of(const struct zero_job *job, struct q2_l2_entry e)
{
    const struct q2_geometry *geo = &job->s->geo;

    if (!job->keep || !q2_l2_has_host(geo, e.word) || !q2_l2_copied(geo, e.word)) {
        return 0;
    }
    return e.word & (Q2_OFFSET_MASK | Q2_COPIED);
}

/* A whole cluster that reads as zeroes from now on, or as the backing file does. */
static struct q2_l2_entry entry_zeroes(const struct zero_job *job, struct q2_l2_entry e)
{
    const struct q2_geometry *geo = &job->s->geo;

    if (geo->version < 3 || job->drop) {
        return (struct q2_l2_entry){0};
    }
    if (geo->extended_l2) {
        return (struct q2_l2_entry){.word = room_of(job, e),
                                    .bitmap = Q2_BITMAP_ALL << Q2_SUBCLUSTERS};
    }
    return (struct q2_l2_entry){.word = room_of(job, e) | Q2_ZERO};
}

static bool is_nothing(struct q2_l2_entry e)
{
    return e.word == 0 && e.bitmap == 0;
}

/* What becomes of e. bits: the subclusters meant. -ENOTSUP: not without writing data. */
static int entry_change(const struct zero_job *job, struct q2_l2_entry e, uint64_t bits,
                        struct q2_l2_entry *ret)
{
    *ret = e;
    if (bits == Q2_BITMAP_ALL) {
        if (!job->discard || job->s->backing != NULL || !is_nothing(e)) {
            *ret = entry_zeroes(job, e);
        }
        return 0;
    }
    if ((e.word & Q2_COMPRESSED) != 0) {
        return -ENOTSUP;
    }
    ret->bitmap = (e.bitmap & ~bits) | bits << Q2_SUBCLUSTERS;
    return 0;
}

/* ---- slices ---- */

/* Where the data file is not ours to allocate in: what is given up of it. */
static void external_give_co(const struct zero_job *job, uint64_t guest, uint64_t bytes)
{
    struct qcow2 *s = job->s;
    uint64_t disk = q2_disk_bytes(s);

    if (s->geo.external_data && !s->geo.data_file_raw && s->opt.discard[job->type] &&
        guest < disk) {
        bdrv_edge_discard_co(s->data, guest, min_u64(bytes, disk - guest)); /* a hint */
    }
}

static uint64_t bits_of(const struct q2_geometry *geo, uint64_t guest, uint64_t start, uint64_t end)
{
    uint64_t from = max_u64(start, guest) - guest;
    uint64_t to = min_u64(end, guest + geo->cluster_bytes) - guest;

    if (!geo->extended_l2) {
        return Q2_BITMAP_ALL;
    }
    return q2_bits((unsigned)(from / geo->subcluster_bytes),
                   (unsigned)(to / geo->subcluster_bytes));
}

/* Entries [index, index + count) of the slice, which begin at guest (a cluster); [start, end) is
 * meant of them. */
static int chunk_zero_co(const struct zero_job *job, struct q2_slice *slice, uint32_t index,
                         uint32_t count, uint64_t guest, uint64_t start, uint64_t end)
{
    struct qcow2 *s = job->s;
    const struct q2_geometry *geo = &s->geo;
    struct q2_l2_entry old[Q2_CHUNK];
    struct q2_l2_entry now[Q2_CHUNK];
    bool changed = false;
    int err = 0;
    uint32_t n;
    int ret;

    for (n = 0; n < count; n++) {
        uint64_t at = guest + ((uint64_t)n << geo->cluster_bits);
        const char *wrong;

        old[n] = q2_slice_entry(s, slice, index + n);
        wrong = q2_l2_wrong(geo, old[n], at);
        err = wrong != NULL ? q2_entry_corrupt_co(s, true, slice, at, wrong)
                            : entry_change(job, old[n], bits_of(geo, at, start, end), &now[n]);
        if (err < 0) {
            break;
        }
        changed |= now[n].word != old[n].word || now[n].bitmap != old[n].bitmap;
    }
    if (!changed) {
        return err;
    }
    ret = q2_entries_set_co(s, slice, index, now, n);
    for (uint32_t i = 0; ret == 0 && i < n; i++) {
        q2_entry_replaced(s, old[i], now[i], job->type);
    }
    return ret < 0 ? ret : err;
}

/* [start, end) lies in one slice, and its clusters are locked. */
static int slice_zero_co(const struct zero_job *job, uint64_t start, uint64_t end)
{
    struct qcow2 *s = job->s;
    unsigned bits = s->geo.cluster_bits;
    uint64_t guest = align_down(start, s->geo.cluster_bytes);
    uint32_t left = (uint32_t)((end - guest + s->geo.cluster_bytes - 1) >> bits);
    struct q2_slot slot;
    int ret = 0;

    if (s->geo.data_file_raw) {
        uint64_t stop = max_u64(start, min_u64(end, q2_disk_bytes(s)));

        ret = bdrv_edge_write_zeroes_co(s->data, start, stop - start,
                                        job->keep && !job->discard ? 0 : BDRV_REQ_MAY_UNMAP);
    }
    if (ret == 0) {
        ret = q2_slot_get_co(s, start, &slot);
    }
    if (ret < 0) {
        return ret;
    }
    while (ret == 0 && left > 0) {
        uint32_t n = (uint32_t)min_u64(left, Q2_CHUNK);

        ret = chunk_zero_co(job, slot.slice, slot.index, n, guest, start, end);
        slot.index += n;
        left -= n;
        guest += (uint64_t)n << bits;
    }
    q2_l2_put(s, slot.slice);
    if (ret == 0 && !job->keep) {
        external_give_co(job, start, end - start);
    }
    return ret;
}

/* ---- ranges ---- */

/* How much from offset on is as it should be already; *ret_bytes. */
static int passed_over_co(const struct zero_job *job, uint64_t offset, uint64_t end,
                          uint64_t *ret_bytes)
{
    struct qcow2 *s = job->s;
    struct q2_extent extent;
    int ret;

    *ret_bytes = 0;
    if (s->geo.data_file_raw) {
        return 0;
    }
    ret = q2_map_write_co(s, offset, end - offset, &extent);
    if (ret < 0) {
        return ret;
    }
    if (extent.host == UINT64_MAX &&
        (extent.kind == Q2_ZEROES ||
         (extent.kind == Q2_UNALLOCATED && (job->discard || s->geo.version < 3) &&
          s->backing == NULL)) &&
        !job->drop) {
        uint64_t stop = offset + extent.bytes;

        if (stop < end) { /* what comes after begins at a cluster, or is looked at as a whole */
            stop = max_u64(offset, align_down(stop, s->geo.cluster_bytes));
        }
        *ret_bytes = stop - offset;
    }
    return 0;
}

static int range_zero_co(const struct zero_job *job, uint64_t offset, uint64_t end)
{
    struct qcow2 *s = job->s;
    unsigned bits = s->geo.cluster_bits;
    int ret = 0;

    while (ret == 0 && offset < end) {
        uint64_t bytes;
        struct q2_range range;

        ret = passed_over_co(job, offset, end, &bytes);
        if (ret == 0 && bytes == 0) {
            ret = q2_table_own_co(s, offset);
            bytes = min_u64(end - offset, q2_slice_left(s, offset));
            if (ret == 0) {
                q2_range_lock_co(s, &range, offset >> bits, (offset + bytes - 1) >> bits);
                ret = slice_zero_co(job, offset, offset + bytes);
                q2_range_unlock(s, &range);
            }
        }
        offset += bytes;
    }
    return ret;
}

/* Whether a subcluster holds no data and reads as zeroes outside [offset, end): 1, 0 or -errno. */
static int rest_is_zero_co(struct qcow2 *s, uint64_t offset, uint64_t end)
{
    uint64_t from = align_down(offset, s->geo.subcluster_bytes);
    uint64_t to = min_u64(from + s->geo.subcluster_bytes, q2_disk_bytes(s));
    struct q2_extent extent;
    int ret = q2_map_write_co(s, from, to - from, &extent);

    if (ret < 0 || extent.kind == Q2_DATA || extent.kind == Q2_COMPRESSED_DATA) {
        return ret;
    }
    ret = q2_reads_zero_co(s, from, offset - from, true);
    return ret == 1 ? q2_reads_zero_co(s, end, to - end, true) : ret;
}

/* A part of one subcluster: it becomes zero as a whole where its rest is zero already. */
static int part_zero_co(const struct zero_job *job, uint64_t offset, uint64_t end)
{
    struct qcow2 *s = job->s;
    uint64_t from = align_down(offset, s->geo.subcluster_bytes);
    uint64_t cluster = offset >> s->geo.cluster_bits;
    struct q2_range range;
    uint64_t bytes;
    int ret;

    if (end - from > s->geo.subcluster_bytes) {
        return -ENOTSUP;
    }
    ret = passed_over_co(job, offset, end, &bytes);
    if (ret < 0 || bytes > 0) {
        return ret;
    }
    ret = q2_table_own_co(s, offset);
    if (ret < 0) {
        return ret;
    }
    q2_range_lock_co(s, &range, cluster, cluster);
    ret = rest_is_zero_co(s, offset, end);
    if (ret >= 0) {
        ret = ret == 1 ? slice_zero_co(job, from, from + s->geo.subcluster_bytes) : -ENOTSUP;
    }
    q2_range_unlock(s, &range);
    return ret;
}

/* run in the order of the requests. */
static int in_order_co(int (*run)(const struct zero_job *job, uint64_t offset, uint64_t end),
                       const struct zero_job *job, uint64_t offset, uint64_t end)
{
    struct co_turn turn = co_turn_take(&job->s->turns);
    int ret;

    co_turn_wait_co(&turn);
    ret = run(job, offset, end);
    co_turn_pass_co(&turn);
    return ret;
}

/* The last cluster is whole where the disk ends in it. */
static uint64_t whole_end(struct qcow2 *s, uint64_t end)
{
    return end == q2_disk_bytes(s) ? align_up(end, s->geo.cluster_bytes) : end;
}

/* ---- the driver's calls ---- */

int q2_driver_write_zeroes_co(BlockDriverState *bs, uint64_t offset, uint64_t bytes, unsigned flags)
{
    struct qcow2 *s = q2_of(bs);
    bool unmap = (flags & BDRV_REQ_MAY_UNMAP) != 0;
    struct zero_job job = {
        .s = s,
        .keep = !unmap || s->opt.discard_no_unref || s->geo.data_file_raw,
        .type = unmap ? Q2_DISCARD_REQUEST : Q2_DISCARD_OTHER,
    };
    q2_token token = q2_enter_co(s);
    uint64_t end = whole_end(s, offset + bytes);
    int ret = -ENOTSUP;

    if (s->data == NULL) {
        ret = -EIO;
    } else if (s->geo.version >= 3 || s->backing == NULL) {
        bool whole = is_aligned(offset | end, s->geo.subcluster_bytes);
        int (*run)(const struct zero_job *, uint64_t, uint64_t) =
            whole ? range_zero_co : part_zero_co;

        end = whole ? end : offset + bytes;
        ret = (flags & BDRV_REQ_IN_ORDER) != 0 ? in_order_co(run, &job, offset, end)
                                               : run(&job, offset, end);
    }
    return q2_leave_ret_co(s, token, ret);
}

int q2_driver_discard_co(BlockDriverState *bs, uint64_t offset, uint64_t bytes)
{
    struct qcow2 *s = q2_of(bs);
    struct zero_job job = {
        .s = s,
        .discard = true,
        .keep = s->opt.discard_no_unref || s->geo.data_file_raw,
        .type = Q2_DISCARD_REQUEST,
    };
    q2_token token = q2_enter_co(s);
    uint64_t start = align_up(offset, s->geo.cluster_bytes);
    uint64_t end = align_down(whole_end(s, offset + bytes), s->geo.cluster_bytes);
    int ret = 0;

    if (s->data == NULL) {
        ret = -EIO;
    } else if (start < end && (s->geo.version >= 3 || s->backing == NULL)) {
        ret = range_zero_co(&job, start, end);
    }
    return q2_leave_ret_co(s, token, ret);
}

/* What the L2 tables that are the active L1's alone describe. Others are left: a snapshot keeps all
 * that they refer to, and a table of our own would only need more. */
static int range_give_co(const struct zero_job *job, uint64_t offset, uint64_t end,
                         uint64_t *ret_bytes)
{
    struct qcow2 *s = job->s;
    int ret = 0;

    *ret_bytes = 0;
    while (ret == 0 && offset < end) {
        uint64_t bytes = min_u64(end - offset, q2_slice_left(s, offset));
        const struct q2_l1 *l1 = q2_l1_get(s);
        uint64_t index = q2_l1_index(&s->geo, offset);

        if (index < l1->entries && (q2_l1_entry(l1, (uint32_t)index) & Q2_COPIED) != 0) {
            ret = range_zero_co(job, offset, offset + bytes);
            *ret_bytes += bytes;
        }
        offset += bytes;
    }
    return ret;
}

int q2_give_co(BlockDriverState *bs, uint64_t offset, uint64_t bytes, bool drop,
               uint64_t *ret_bytes)
{
    struct qcow2 *s = q2_of(bs);
    struct zero_job job = {
        .s = s,
        .drop = drop,
        .keep = !drop && s->geo.data_file_raw,
        .type = Q2_DISCARD_REQUEST,
    };
    q2_token token = q2_enter_co(s);
    uint64_t end = whole_end(s, offset + bytes);
    uint32_t unit = drop ? s->geo.cluster_bytes : s->geo.subcluster_bytes;
    bool can = drop ? !s->geo.data_file_raw : s->geo.version >= 3 || s->backing == NULL;
    int ret = -ENOTSUP;

    if (s->data == NULL) {
        ret = -EIO;
    } else if (can && is_aligned(offset | end, unit)) {
        ret = range_give_co(&job, offset, end, ret_bytes);
        *ret_bytes = min_u64(*ret_bytes, bytes);
    }
    return q2_leave_ret_co(s, token, ret);
}
