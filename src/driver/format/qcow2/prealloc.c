/* SPDX-License-Identifier: MIT */
/*
 * Preallocation: the new part of the disk gets its clusters ahead of time.
 *
 *   metadata      tables and refcounts; clusters are chosen in the order of the disk, each behind
 * the one before it while that is free, as one write would; the file is made long enough, sparse
 *   falloc, full  refcount blocks, table and data in one piece behind everything (refcount_area.c),
 *                 the data reserved or written by the protocol below; then the L2 tables
 *
 * What is new reads as zeroes: a cluster that the file did not have before does by itself; one that
 * was in use before gets the zero flag, or zeroes where the format has none.
 *
 * In an exclusive section; nothing is mapped in the range yet. The range lies behind the disk's end
 * until the caller makes it a part, so a failure half-way shows nothing. Only its first cluster may
 * have a head that the disk shows.
 */
#include <errno.h>
#include <string.h>

#include "util/error.h"

#include "entry.h"
#include "map_edit.h"
#include "reftable_switch.h"
#include "request.h"
#include "resize.h"
#include "tree.h"

struct prealloc {
    struct qcow2 *s;
    bool over_backing; /* a backing file would show through where nothing is marked as zeroes */
    uint64_t file_bytes;
    uint64_t first;  /* cluster that may have a bitmap already */
    uint64_t bitmap; /* it: what the disk shows of that cluster stays as it is */
    uint64_t near;   /* where the next cluster should lie; 0: anywhere */
    uint64_t end;    /* of the clusters that were allocated, in the data file */
};

/* The entries' flags and bitmap for clusters whose content is not written. */
static int entry_of_empty(struct prealloc *p, uint64_t host, uint64_t bytes, uint64_t *ret_flags,
                          uint64_t *ret_bitmap)
{
    struct qcow2 *s = p->s;
    bool used_before = host < p->file_bytes && !s->geo.external_data;

    *ret_flags = Q2_COPIED;
    *ret_bitmap = p->over_backing ? Q2_BITMAP_ALL << Q2_SUBCLUSTERS : 0;
    if (s->geo.extended_l2 || !(used_before || p->over_backing)) {
        return 0;
    }
    if (q2_l2_zero_flag(&s->geo)) {
        *ret_flags |= Q2_ZERO;
        return 0;
    }
    return used_before ? bdrv_edge_write_zeroes_co(s->data, host, bytes, 0) : 0;
}

/* New clusters for a first part of [guest, to), which lies in one L2 table's range; *ret_end: where
 * that part ends. */
static int alloc_part(struct prealloc *p, uint64_t guest, uint64_t to, uint64_t *ret_end)
{
    struct qcow2 *s = p->s;
    uint64_t clusters = (align_up(to, s->geo.cluster_bytes) - guest) >> s->geo.cluster_bits;
    uint64_t host;
    uint64_t table;
    uint64_t flags;
    uint64_t bitmap;
    int rc = q2_edit_table_co(s, (uint32_t)q2_l1_index(&s->geo, guest), &table);

    rc = rc == 0 ? q2_alloc_data_co(s, guest, clusters, p->near, &host, &clusters) : rc;
    if (rc < 0) {
        return rc;
    }
    p->near = host + (clusters << s->geo.cluster_bits);
    rc = entry_of_empty(p, host, clusters << s->geo.cluster_bits, &flags, &bitmap);
    if (rc < 0) {
        q2_unalloc_data_co(s, host, clusters);
        return rc;
    }
    to = min_u64(to, guest + (clusters << s->geo.cluster_bits));
    *ret_end = to;
    p->end = max_u64(p->end, host + align_up(to, s->geo.subcluster_bytes) - guest);
    if (guest == p->first && p->bitmap != 0) {
        rc = q2_edit_set_co(s, guest, 1, host, flags, p->bitmap);
        if (rc < 0 || clusters == 1) {
            return rc;
        }
        guest += s->geo.cluster_bytes;
        host += s->geo.cluster_bytes;
        clusters--;
    }
    return q2_edit_set_co(s, guest, clusters, host, flags, bitmap);
}

static int alloc_all(struct prealloc *p, uint64_t from, uint64_t to)
{
    uint64_t span = q2_table_span(&p->s->geo);
    int rc = 0;

    while (rc == 0 && from < to) {
        uint64_t table_end = min_u64(to, align_down(from, span) + span);

        rc = alloc_part(p, from, table_end, &from);
    }
    return rc;
}

static int begin(struct qcow2 *s, struct prealloc *p, bool over_backing, Error **errp)
{
    int64_t file_bytes = bdrv_edge_getlength(s->file);

    if (file_bytes < 0) {
        return error_set_errno(errp, (int)-file_bytes, "cannot tell the size of the file");
    }
    *p =
        (struct prealloc){.s = s, .over_backing = over_backing, .file_bytes = (uint64_t)file_bytes};
    return 0;
}

int q2_prealloc_metadata_co(struct qcow2 *s, uint64_t from, uint64_t to, uint64_t near,
                            bool over_backing, Error **errp)
{
    struct prealloc p = {0};
    int64_t data_bytes;
    int rc = begin(s, &p, over_backing, errp);

    if (rc < 0) {
        return rc;
    }
    p.first = from;
    p.near = near;
    rc = q2_edit_bitmap_co(s, from, &p.bitmap);
    rc = rc == 0 ? alloc_all(&p, from, to) : rc;
    if (rc < 0) {
        return error_set_errno(errp, -rc, "Could not preallocate metadata");
    }
    data_bytes = bdrv_edge_getlength(s->data);
    if (data_bytes < 0) {
        return error_set_errno(errp, (int)-data_bytes, "cannot tell the size of the data file");
    }
    /* observed: up to the end of the disk's last subcluster, of an external data file too */
    if (p.end > (uint64_t)data_bytes) {
        return bdrv_edge_truncate_co(s->data, p.end, false, BDRV_PREALLOC_OFF, 0, errp);
    }
    return 0;
}

/* ---- falloc, full ---- */

/* The first cluster's part in front of from, as it is read now, to its new place. */
static int move_head(struct qcow2 *s, uint64_t from, uint64_t host)
{
    uint64_t start = align_down(from, s->geo.cluster_bytes);
    size_t bytes = (size_t)(from - start);
    uint8_t *buf = bdrv_buffer_alloc(s->bs, bytes);
    struct iovec iov = {.iov_base = buf, .iov_len = bytes};
    struct bdrv_req req = {
        .op = BDRV_OP_READ, .offset = start, .bytes = bytes, .iov = &iov, .niov = 1};
    int rc;

    if (buf == NULL) {
        return -ENOMEM;
    }
    rc = q2_read_co(s, &req);
    if (rc == 0) {
        rc = bdrv_edge_write_co(s->data, host, buf, bytes, 0);
    }
    bdrv_buffer_free(s->bs, buf, bytes);
    return rc;
}

/* The file's bytes of [host, host + bytes) reserved or written, and zero. */
static int reserve(struct prealloc *p, uint64_t host, uint64_t bytes, enum bdrv_prealloc mode,
                   Error **errp)
{
    struct qcow2 *s = p->s;
    int64_t file_bytes = bdrv_edge_getlength(s->file); /* the refcounts may have made it longer */
    uint64_t old_end;
    int rc = 0;

    if (file_bytes < 0) {
        return error_set_errno(errp, (int)-file_bytes, "cannot tell the size of the file");
    }
    old_end = min_u64((uint64_t)file_bytes, host + bytes);
    if (host + bytes > (uint64_t)file_bytes) {
        rc = bdrv_edge_truncate_co(s->file, host + bytes, false, mode, 0, errp);
        if (rc < 0) {
            error_prepend(errp, "Failed to resize underlying file: ");
        }
    }
    if (rc == 0 && host < old_end) {
        rc = bdrv_edge_write_zeroes_co(s->file, host, old_end - host, 0);
        if (rc < 0) {
            error_set_errno(errp, -rc, "Could not write zeroes to preallocated clusters");
        }
    }
    return rc;
}

/* Map the reserved clusters. Subclusters stay as they are, as in the reference, but where a backing
 * file would be seen. */
static int map_reserved(struct qcow2 *s, uint64_t from, uint64_t clusters, uint64_t host,
                        bool over_backing)
{
    uint64_t cluster = s->geo.cluster_bytes;
    uint64_t start = align_down(from, cluster);
    uint64_t bitmap = s->geo.extended_l2 && over_backing ? Q2_BITMAP_ALL : 0;
    uint64_t first = start < from && s->geo.extended_l2 ? 1 : 0;
    int rc = 0;

    if (first > 0) {
        uint64_t fresh = 0;
        uint64_t old;

        if (over_backing) {
            fresh = q2_bits((unsigned)((from - start) / s->geo.subcluster_bytes), Q2_SUBCLUSTERS);
        }
        rc = q2_edit_bitmap_co(s, start, &old);
        if (rc == 0) {
            rc = q2_edit_set_co(s, start, 1, host, Q2_COPIED,
                                (old & ~(fresh << Q2_SUBCLUSTERS)) | fresh);
        }
    }
    if (rc < 0 || first == clusters) {
        return rc;
    }
    return q2_edit_set_co(s, start + first * cluster, clusters - first, host + first * cluster,
                          Q2_COPIED, bitmap);
}

int q2_prealloc_data_co(struct qcow2 *s, uint64_t from, uint64_t to, bool over_backing,
                        enum bdrv_prealloc mode, Error **errp)
{
    uint64_t start = align_down(from, s->geo.cluster_bytes);
    uint64_t bytes = align_up(to, s->geo.cluster_bytes) - start;
    uint64_t clusters = bytes >> s->geo.cluster_bits;
    uint64_t tables = (clusters + s->geo.l2_entries - 1) / s->geo.l2_entries;
    struct prealloc p = {0};
    uint64_t first;
    uint64_t host = 0;
    int rc = q2_settle_co(s, errp);

    rc = rc == 0 ? begin(s, &p, false, errp) : rc;
    if (rc < 0) {
        return rc;
    }
    rc = q2_refcount_area_co(s, clusters + tables, &first);
    if (rc == 0) {
        host = first << s->geo.cluster_bits;
        rc = q2_refcount_add_co(s, host, bytes, 1);
    }
    if (rc < 0) {
        return error_set_errno(errp, -rc, "Could not resize refcount structures");
    }
    rc = reserve(&p, host, bytes, mode, errp);
    if (rc == 0 && start < from) {
        rc = move_head(s, from, host);
        if (rc < 0) {
            error_set_errno(errp, -rc, "Could not copy the last cluster");
        }
    }
    if (rc < 0) {
        q2_unalloc_co(s, host, bytes);
        return rc;
    }
    rc = map_reserved(s, from, clusters, host, over_backing);
    return rc < 0 ? error_set_errno(errp, -rc, "Could not map the preallocated clusters") : 0;
}
