/* SPDX-License-Identifier: MIT */
/*
 * Resizing the disk. All in an exclusive section: no request sees anything half-way.
 *
 * Invariants
 *  Z1 growing: the header has the new size only when all that the new part reads from is durable;
 *     until then what is there lies behind the disk's end. Shrinking: the header has the new size
 *     before the first cluster goes. So a cut of power leaves the old disk or the new one, whole.
 *  Z2 what grows reads as zeroes: what an interrupted shrink, a VM state or the end of the last
 *     cluster left there is unmapped or zeroed first.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "util/error.h"

#include "check.h"
#include "driver.h"
#include "entry.h"
#include "io.h"
#include "l1.h"
#include "map_edit.h"
#include "qcow2.h"
#include "resize.h"
#include "tree.h"

#define SIZE_UNIT 512

struct resize {
    struct qcow2 *s;
    uint64_t old;
    uint64_t now;
    enum bdrv_prealloc mode;      /* of the disk's clusters */
    enum bdrv_prealloc data_mode; /* of the external data file */
    bool over_backing;            /* the backing file is longer than the old disk */
};

static int check_size(const struct qcow2 *s, uint64_t size_bytes, Error **errp)
{
    if (s->snapshot_shown) {
        return error_set(errp, EPERM, "the node shows a snapshot and cannot be resized");
    }
    if (size_bytes % SIZE_UNIT != 0) {
        return error_set(errp, EINVAL, "The new size must be a multiple of %d", SIZE_UNIT);
    }
    if (s->snapshot_count > 0 && s->geo.version < 3) {
        return error_set(errp, ENOTSUP, "Can't resize a v2 image which has snapshots");
    }
    if (s->geo.external_data && s->data == NULL) {
        return error_set(errp, EIO, "the external data file is not open");
    }
    return 0;
}

/* The header's size, durable. */
static int write_size(struct resize *r, Error **errp)
{
    struct qcow2 *s = r->s;
    int rc;

    s->header.size_bytes = r->now;
    rc = q2_header_write_co(s, errp);
    if (rc < 0) {
        s->header.size_bytes = r->old;
        return rc;
    }
    atomic_store_explicit(&s->disk_bytes, r->now, memory_order_relaxed);
    return 0;
}

/* ---- growing ---- */

static int look_below(struct resize *r, Error **errp)
{
    int64_t below = r->s->backing != NULL ? bdrv_edge_getlength(r->s->backing) : 0;
    bool reserves = r->mode == BDRV_PREALLOC_FALLOC || r->mode == BDRV_PREALLOC_FULL;

    if (below < 0) {
        return error_set_errno(errp, (int)-below, "cannot tell the size of the backing file");
    }
    r->over_backing = (uint64_t)below > r->old;
    if (r->over_backing && r->s->geo.version < 3 && !reserves &&
        align_up(r->old, r->s->geo.cluster_bytes) < r->now) {
        return error_set_errno(errp, ENOTSUP, "Failed to zero out new clusters");
    }
    return 0;
}

static int grow_l1(struct resize *r, Error **errp)
{
    uint64_t span = q2_table_span(&r->s->geo);
    uint64_t entries = r->now / span + (r->now % span != 0);
    int rc;

    if (entries > Q2_L1_BYTES_MAX / sizeof(uint64_t)) {
        return error_set_errno(errp, EFBIG, "Failed to grow the L1 table");
    }
    rc = q2_l1_grow_co(r->s, (uint32_t)entries, errp);
    if (rc < 0) {
        error_prepend(errp, "Failed to grow the L1 table: ");
    }
    return rc;
}

/* Whether zeroes are written for the old end's cluster to read as such behind it. Where clusters
 * are given ahead, this gives that one its place (as in the reference, with what is in front of the
 * old end), unless all that is read of it is zeroes by themselves. */
static bool tail_is_written(const struct resize *r, const struct q2_extent *extent)
{
    const struct qcow2 *s = r->s;
    bool gives = r->mode == BDRV_PREALLOC_METADATA && !s->geo.extended_l2;
    bool elsewhere = s->backing != NULL || s->geo.external_data; /* may hold anything there */

    switch (extent->kind) {
    case Q2_DATA:
    case Q2_COMPRESSED_DATA:
        return true;
    case Q2_UNALLOCATED:
        return r->over_backing || (gives && elsewhere);
    case Q2_ZEROES:
        return gives && (elsewhere || extent->host != UINT64_MAX);
    }
    return true;
}

/* Zeroes from the old end to the end of its cluster. */
static int zero_tail(struct resize *r)
{
    struct qcow2 *s = r->s;
    uint64_t end = min_u64(r->now, align_up(r->old, s->geo.cluster_bytes));
    uint64_t at = r->old;

    while (at < end) {
        struct q2_extent extent;
        struct iovec iov;
        struct bdrv_req req;
        int rc = q2_map_co(s, at, end - at, &extent);

        if (rc < 0) {
            return rc;
        }
        extent.bytes = min_u64(extent.bytes, end - at);
        if (tail_is_written(r, &extent)) {
            iov.iov_len = (size_t)extent.bytes;
            iov.iov_base = bdrv_buffer_alloc(s->bs, iov.iov_len);
            if (iov.iov_base == NULL) {
                return -ENOMEM;
            }
            memset(iov.iov_base, 0, iov.iov_len);
            req = (struct bdrv_req){
                .op = BDRV_OP_WRITE, .offset = at, .bytes = extent.bytes, .iov = &iov, .niov = 1};
            rc = q2_write_co(s, &req);
            bdrv_buffer_free(s->bs, iov.iov_base, iov.iov_len);
            if (rc < 0) {
                return rc;
            }
        }
        at += extent.bytes;
    }
    return 0;
}

/* The external data file gets the disk's size, and where clusters are mapped ahead of time room for
 * the last one, or stays as long as it was, as in the reference; what it had behind the old one
 * becomes zeroes. */
static int grow_data_file(struct resize *r, Error **errp)
{
    struct qcow2 *s = r->s;
    bool maps =
        r->mode == BDRV_PREALLOC_METADATA && align_up(r->old, s->geo.cluster_bytes) < r->now;
    uint64_t new_bytes = maps ? align_up(r->now, s->geo.cluster_bytes) : r->now;
    int64_t bytes = bdrv_edge_getlength(s->data);
    uint64_t end;
    int rc;

    if (bytes < 0) {
        return error_set_errno(errp, (int)-bytes, "cannot tell the size of the data file");
    }
    end = min_u64((uint64_t)bytes, new_bytes);
    if (end > r->old) {
        rc = bdrv_edge_write_zeroes_co(s->data, r->old, end - r->old, BDRV_REQ_MAY_UNMAP);
        if (rc < 0) {
            return error_set_errno(errp, -rc, "cannot zero the data file");
        }
    }
    if (r->mode == BDRV_PREALLOC_METADATA && new_bytes <= (uint64_t)bytes) {
        return 0; /* nothing to reserve */
    }
    return bdrv_edge_truncate_co(s->data, new_bytes, false, r->data_mode, 0, errp);
}

/* From the old end's cluster on, if it has no place yet; else from the one behind it, in the file
 * too where that is free. */
static int give_metadata(struct resize *r, Error **errp)
{
    uint64_t cluster = r->s->geo.cluster_bytes;
    uint64_t from = align_down(r->old, cluster);
    uint64_t near = 0;

    if (from < r->old) {
        struct q2_extent extent;
        int rc = q2_map_co(r->s, from, 1, &extent);

        if (rc < 0) {
            return error_set_errno(errp, -rc, "cannot tell where the last cluster is");
        }
        if (extent.kind == Q2_COMPRESSED_DATA) {
            from += cluster;
        } else if (extent.host != UINT64_MAX) {
            from += cluster;
            near = extent.host + cluster;
        }
    }
    if (from >= r->now) {
        return 0;
    }
    return q2_prealloc_metadata_co(r->s, from, r->now, near, r->over_backing, errp);
}

static int map_new(struct resize *r, Error **errp)
{
    struct qcow2 *s = r->s;
    uint64_t from = align_up(r->old, s->geo.cluster_bytes);
    int rc;

    if (s->geo.external_data) {
        rc = grow_data_file(r, errp);
        if (rc < 0) {
            return rc;
        }
    }
    if (r->mode == BDRV_PREALLOC_FALLOC || r->mode == BDRV_PREALLOC_FULL) {
        return q2_prealloc_data_co(s, r->old, r->now, r->over_backing, r->mode, errp);
    }
    rc = zero_tail(r);
    if (rc < 0) {
        return error_set_errno(errp, -rc, "Failed to zero out the last cluster");
    }
    if (r->mode == BDRV_PREALLOC_METADATA) {
        return give_metadata(r, errp);
    }
    if (r->over_backing && from < r->now) {
        rc = q2_edit_set_co(s, from,
                            (r->now - from + s->geo.cluster_bytes - 1) >> s->geo.cluster_bits, 0,
                            s->geo.extended_l2 ? 0 : Q2_ZERO, Q2_BITMAP_ALL << Q2_SUBCLUSTERS);
        return rc < 0 ? error_set_errno(errp, -rc, "Failed to zero out new clusters") : 0;
    }
    return 0;
}

/* Clusters of an external data file are where they are: giving them is a matter of the tables, and
 * to reserve room for them one of that file. */
static void split_modes(struct resize *r)
{
    bool gives = r->mode != BDRV_PREALLOC_OFF || r->s->geo.data_file_raw;

    if (r->s->geo.external_data) {
        r->data_mode = r->mode == BDRV_PREALLOC_METADATA ? BDRV_PREALLOC_OFF : r->mode;
        r->mode = gives ? BDRV_PREALLOC_METADATA : BDRV_PREALLOC_OFF;
    }
}

static int grow(struct resize *r, Error **errp)
{
    struct qcow2 *s = r->s;
    uint64_t from = align_up(r->old, s->geo.cluster_bytes);
    uint64_t to = align_up(r->now, s->geo.cluster_bytes);
    int rc = look_below(r, errp);

    split_modes(r);
    rc = rc == 0 ? grow_l1(r, errp) : rc;
    if (rc < 0) {
        return rc;
    }
    rc = q2_edit_unmap_co(s, from, to);
    if (rc < 0) {
        return error_set_errno(errp, -rc, "cannot unmap what is behind the disk");
    }
    rc = map_new(r, errp);
    rc = rc == 0 ? q2_settle_co(s, errp) : rc;
    rc = rc == 0 ? write_size(r, errp) : rc; /* keeps Z1 */
    if (rc < 0) {
        (void)q2_edit_unmap_co(s, from, to);
        (void)q2_settle_co(s, NULL);
    }
    return rc;
}

/* ---- shrinking ---- */

static int shrink(struct resize *r, Error **errp)
{
    struct qcow2 *s = r->s;
    int rc = q2_settle_co(s, errp);

    rc = rc == 0 ? write_size(r, errp) : rc; /* keeps Z1 */
    if (rc < 0) {
        return rc;
    }
    bdrv_debug_event(s->file, BLKDBG_L1_SHRINK_WRITE_TABLE);
    bdrv_debug_event(s->file, BLKDBG_L1_SHRINK_FREE_L2_CLUSTERS);
    /* The disk is smaller now, whatever becomes of the space. Tables go whole where they can. */
    if (q2_edit_unmap_co(s, align_up(r->now, s->geo.cluster_bytes),
                         q2_l1_get(s)->entries * q2_table_span(&s->geo)) == 0 &&
        q2_settle_co(s, NULL) == 0) {
        q2_file_trim_co(s);
    }
    if (s->geo.external_data) {
        (void)bdrv_edge_truncate_co(s->data, r->now, false, BDRV_PREALLOC_OFF, 0, NULL);
    }
    return 0;
}

int q2_resize_co(struct qcow2 *s, uint64_t size_bytes, enum bdrv_prealloc mode, Error **errp)
{
    struct resize r = {.s = s, .now = size_bytes, .mode = mode};
    int rc = check_size(s, size_bytes, errp);

    if (rc == 0) {
        rc = bdrv_bitmaps_resize_begin_co(s->bs, size_bytes, errp);
    }
    if (rc < 0) {
        return rc;
    }
    q2_exclusive_begin_co(s);
    (void)q2_mend_co(s, NULL);
    r.old = s->header.size_bytes;
    if (r.now > r.old) {
        rc = grow(&r, errp);
        q2_stays_stale(s, rc); /* what was allocated, and nothing refers to */
    } else if (r.now < r.old && mode != BDRV_PREALLOC_OFF) {
        rc = error_set(errp, EINVAL, "Preallocation can't be used for shrinking an image");
    } else if (r.now < r.old) {
        rc = shrink(&r, errp);
    }
    (void)q2_mend_co(s, NULL);
    q2_exclusive_end(s);
    return rc;
}

int q2_driver_truncate_co(BlockDriverState *bs, uint64_t size_bytes, bool exact,
                          enum bdrv_prealloc prealloc, unsigned flags, Error **errp)
{
    return q2_resize_co(q2_of(bs), size_bytes, prealloc, errp);
}
