/* SPDX-License-Identifier: MIT */
/*
 * A new image as a stream: header, refcount table, refcount blocks, L1 table, L2 tables, and behind
 * them the data, which the caller sends, in the order of the disk. Everything is computed from what
 * each cluster is to be; one cluster of memory is enough.
 */
#include <errno.h>

#include "schema/opts.h"
#include "util/error.h"
#include "util/mem.h"

#include "create_int.h"
#include "driver.h"
#include "entry.h"
#include "header_int.h"
#include "refbits.h"

struct stream {
    const struct bdrv_stream_layout *layout;
    struct q2_header h;
    struct q2_geometry geo;
    uint64_t clusters; /* of the disk */
    uint64_t l2_tables;
    uint64_t data;
    uint64_t refblocks;
    uint64_t all;     /* clusters of the file */
    uint64_t l2_at;   /* the first table, as a cluster of the file */
    uint64_t data_at; /* the first cluster of data */
    uint8_t *buf;     /* one cluster */
};

static uint64_t div_up(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

static enum bdrv_stream_unit unit_of(const struct stream *s, uint64_t index)
{
    return s->layout->unit(s->layout->opaque, index);
}

/* Count what table has; its data, and whether it is needed at all. */
static bool table_count(const struct stream *s, uint64_t table, uint64_t *ret_data)
{
    uint64_t first = table << s->geo.l2_bits;
    uint64_t end = min_u64(first + s->geo.l2_entries, s->clusters);
    bool used = false;

    *ret_data = 0;
    for (uint64_t i = first; i < end; i++) {
        enum bdrv_stream_unit unit = unit_of(s, i);

        used = used || unit != BDRV_STREAM_NONE;
        *ret_data += unit == BDRV_STREAM_DATA;
    }
    return used;
}

/* Where everything is. */
static int lay_out(struct stream *s, Error **errp)
{
    uint64_t l1_clusters, others, counts = 0, before, data;

    s->h.l1_entries = (uint32_t)div_up(s->clusters, s->geo.l2_entries);
    for (uint32_t i = 0; i < s->h.l1_entries; i++) {
        s->l2_tables += table_count(s, i, &data);
        s->data += data;
    }
    l1_clusters = div_up(s->h.l1_entries * sizeof(uint64_t), s->geo.cluster_bytes);
    others = 1 + l1_clusters + s->l2_tables + s->data;
    do { /* refcount blocks and table count themselves, too */
        uint64_t table;

        before = counts;
        s->refblocks = div_up(others + counts, s->geo.refblock_entries);
        table = div_up(s->refblocks * sizeof(uint64_t), s->geo.cluster_bytes);
        counts = s->refblocks + table;
        s->h.reftable_clusters = (uint32_t)min_u64(table, UINT32_MAX);
    } while (counts != before);
    if (s->h.reftable_clusters > Q2_REFTABLE_BYTES_MAX / s->geo.cluster_bytes &&
        s->h.reftable_clusters > 1) {
        return error_set(errp, EFBIG, "The refcount table would be too large");
    }
    s->all = others + counts;
    s->h.reftable_offset = s->geo.cluster_bytes;
    s->h.l1_offset = (1 + counts) << s->geo.cluster_bits;
    s->l2_at = 1 + counts + l1_clusters;
    s->data_at = s->l2_at + s->l2_tables;
    return 0;
}

/* ---- emitting ---- */

static int emit(struct stream *s)
{
    return s->layout->emit(s->layout->opaque, s->buf, s->geo.cluster_bytes);
}

static void clear(struct stream *s)
{
    memset(s->buf, 0, s->geo.cluster_bytes);
}

static int emit_reftable(struct stream *s)
{
    uint64_t per_cluster = s->geo.cluster_bytes / sizeof(uint64_t);
    uint64_t first = 1 + s->h.reftable_clusters;
    int ret = 0;

    for (uint64_t at = 0; ret == 0 && at < s->refblocks; at += per_cluster) {
        clear(s);
        for (uint64_t i = 0; i < min_u64(per_cluster, s->refblocks - at); i++) {
            store_be64(s->buf + i * sizeof(uint64_t), (first + at + i) << s->geo.cluster_bits);
        }
        ret = emit(s);
    }
    return ret;
}

static int emit_refblocks(struct stream *s)
{
    int ret = 0;

    for (uint64_t at = 0; ret == 0 && at < s->all; at += s->geo.refblock_entries) {
        clear(s);
        for (uint64_t i = 0; i < min_u64(s->geo.refblock_entries, s->all - at); i++) {
            q2_refbits_set(s->buf, s->geo.refcount_order, i, 1);
        }
        ret = emit(s);
    }
    return ret;
}

static int emit_l1(struct stream *s)
{
    uint64_t per_cluster = s->geo.cluster_bytes / sizeof(uint64_t);
    uint64_t table = s->l2_at;
    uint64_t data;
    int ret = 0;

    for (uint64_t at = 0; ret == 0 && at < s->h.l1_entries; at += per_cluster) {
        clear(s);
        for (uint64_t i = 0; i < min_u64(per_cluster, s->h.l1_entries - at); i++) {
            if (table_count(s, at + i, &data)) {
                store_be64(s->buf + i * sizeof(uint64_t),
                           table++ << s->geo.cluster_bits | Q2_COPIED);
            }
        }
        ret = emit(s);
    }
    return ret;
}

static struct q2_l2_entry entry_of(const struct stream *s, enum bdrv_stream_unit unit,
                                   uint64_t *data)
{
    struct q2_l2_entry e = {0};

    if (unit == BDRV_STREAM_DATA) {
        e.word = (*data)++ << s->geo.cluster_bits | Q2_COPIED;
        e.bitmap = s->geo.extended_l2 ? Q2_BITMAP_ALL : 0;
    } else if (unit == BDRV_STREAM_ZERO) {
        e.word = s->geo.extended_l2 ? 0 : Q2_ZERO;
        e.bitmap = s->geo.extended_l2 ? Q2_BITMAP_ALL << 32 : 0;
    }
    return e;
}

static int emit_l2(struct stream *s)
{
    uint64_t data = s->data_at;
    uint64_t ignored;
    int ret = 0;

    for (uint64_t table = 0; ret == 0 && table < s->h.l1_entries; table++) {
        uint64_t first = table << s->geo.l2_bits;

        if (!table_count(s, table, &ignored)) {
            continue;
        }
        clear(s);
        for (uint64_t i = 0; i < min_u64(s->geo.l2_entries, s->clusters - first); i++) {
            struct q2_l2_entry e = entry_of(s, unit_of(s, first + i), &data);
            uint8_t *to = s->buf + i * s->geo.l2_entry_bytes;

            store_be64(to, e.word);
            if (s->geo.extended_l2) {
                store_be64(to + sizeof(uint64_t), e.bitmap);
            }
        }
        ret = emit(s);
    }
    return ret;
}

static int emit_head(struct stream *s, Error **errp)
{
    size_t used;
    int ret = q2_header_build(&s->h, s->buf, s->geo.cluster_bytes, &used, errp);

    if (ret < 0) {
        return ret;
    }
    ret = emit(s);
    if (ret == 0) {
        ret = emit_reftable(s);
    }
    if (ret == 0) {
        ret = emit_refblocks(s);
    }
    if (ret == 0) {
        ret = emit_l1(s);
    }
    if (ret == 0) {
        ret = emit_l2(s);
    }
    return ret < 0 ? error_set_errno(errp, -ret, "Could not write the metadata of the image") : 0;
}

/* ---- all ---- */

/* What cannot be had when all of it has to be known before the data. */
static int judge(struct opts_create_qcow2 *o, uint64_t *ret_disk_bytes, Error **errp)
{
    int ret = q2_create_judge(o, ret_disk_bytes, errp);

    if (ret == 0 && o->data_file != NULL) {
        ret = error_set(errp, ENOTSUP, "A stream has no data file beside it");
    }
    if (ret == 0 && o->preallocation != OPTS_PREALLOC_OFF) {
        ret = error_set(errp, ENOTSUP, "Nothing can be reserved in a stream");
    }
    if (ret == 0 && o->backing_file != NULL && o->compat == OPTS_QCOW2_COMPAT_V2) {
        ret = error_set(errp, ENOTSUP,
                        "Zeroes over a backing file need compatibility level 1.1 in a stream");
    }
    return ret;
}

static int stream(struct stream *s, Error **errp)
{
    int ret = lay_out(s, errp);

    if (ret < 0) {
        return ret;
    }
    s->buf = malloc(s->geo.cluster_bytes);
    if (s->buf == NULL) {
        return error_set(errp, ENOMEM, "out of memory for a cluster");
    }
    ret = emit_head(s, errp);
    free(s->buf);
    return ret;
}

int q2_driver_stream_head(BlockOptions *options, const struct bdrv_stream_layout *layout,
                          uint32_t *ret_unit_bytes, Error **errp)
{
    struct stream s = {.layout = layout};
    struct opts_create_qcow2 o;
    int ret = opts_create_qcow2_parse(options, &o, errp);

    if (ret < 0) {
        return ret;
    }
    o.size = layout->disk_bytes;
    ret = judge(&o, &s.h.size_bytes, errp);
    if (ret == 0) {
        uint64_t disk_bytes = s.h.size_bytes;

        q2_create_fill_header(&o, &s.h); /* borrows strings of o */
        s.h.size_bytes = disk_bytes;
        q2_geometry_init(&s.h, &s.geo);
        s.clusters = div_up(disk_bytes, s.geo.cluster_bytes);
        *ret_unit_bytes = s.geo.cluster_bytes;
        ret = layout->unit != NULL ? stream(&s, errp) : 0;
    }
    opts_create_qcow2_fini(&o);
    return ret;
}
