/* SPDX-License-Identifier: MIT */
/*
 * How large the file of a new image will be: its metadata counted from the format's rules, and of a
 * source the clusters that are not zero. As `qemu-img measure` says it, which counts the tables of
 * the whole disk as required, and data as part of the file even where a data file is named.
 */
#include <errno.h>
#include <inttypes.h>

#include "schema/opts.h"
#include "util/error.h"

#include "bitmap.h"
#include "create_int.h"
#include "driver.h"

struct measure {
    const struct opts_create_qcow2 *o;
    BlockDriverState *source; /* or NULL */
    uint64_t source_bytes;
    unsigned cluster_bits;
    uint64_t disk_bytes;
};

static uint64_t div_up(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

/* Refcount blocks and table for clusters of other kinds: they count themselves too. */
static uint64_t refcount_clusters(const struct measure *m, uint64_t others)
{
    uint64_t per_block = (UINT64_C(8) << m->cluster_bits) / m->o->refcount_bits;
    uint64_t per_table_cluster = (UINT64_C(1) << m->cluster_bits) / sizeof(uint64_t);
    uint64_t all = 0, before;

    do {
        uint64_t blocks = div_up(others + all, per_block);

        before = all;
        all = blocks + div_up(blocks, per_table_cluster);
    } while (all != before);
    return all;
}

/* Clusters of metadata when all of the disk is allocated. No sum here reaches 2^63: the L1 table is
 * limited. */
static uint64_t metadata_clusters(const struct measure *m)
{
    uint64_t cluster = UINT64_C(1) << m->cluster_bits;
    uint64_t data = div_up(m->disk_bytes, cluster);
    uint64_t l2 = div_up(data, cluster / (m->o->extended_l2 ? 16 : 8));
    uint64_t l1 = div_up(l2 * sizeof(uint64_t), cluster);
    uint64_t others = 1 + l1 + l2;

    return others + refcount_clusters(m, others + data);
}

/* Clusters of the source that hold something. It may end before the disk does, which has whole
 * sectors. */
static int used_clusters(const struct measure *m, uint64_t *ret_clusters, Error **errp)
{
    uint64_t counted_to = 0; /* index of the first cluster that was not counted */
    uint64_t at = 0;

    *ret_clusters = 0;
    while (at < m->source_bytes) {
        struct bdrv_status st;
        uint64_t first, end;
        int rc = bdrv_measure_status(m->source, at, m->source_bytes - at, &st);

        if (rc < 0) {
            return error_set_errno(errp, -rc, "Unable to get block status of '%s'",
                                   bdrv_get_told_name(m->source));
        }
        first = max_u64(at >> m->cluster_bits, counted_to);
        end = ((at + st.bytes - 1) >> m->cluster_bits) + 1;
        /* a cluster of a format counts even where the file below has a hole, as observed */
        if ((st.flags & BDRV_BLOCK_DATA) && (st.flags & BDRV_BLOCK_ALLOCATED) && end > first) {
            *ret_clusters += end - first;
            counted_to = end;
        }
        at += st.bytes;
    }
    return 0;
}

static int disk_size(struct measure *m, Error **errp)
{
    uint64_t size = m->o->size;

    if (m->source != NULL) {
        int64_t bytes = bdrv_getlength(m->source);

        if (bytes < 0) {
            return error_set_errno(errp, (int)-bytes, "Unable to get image virtual_size");
        }
        size = m->source_bytes = (uint64_t)bytes;
    } else if (!m->o->has_size) {
        return error_set(errp, EINVAL, "Measuring needs a size or a source");
    }
    if (q2_create_judge_size(m->o, size, &m->disk_bytes) < 0) {
        return error_set(errp, EFBIG,
                         "The image size is too large (try using a larger cluster size)");
    }
    return 0;
}

static int measure(struct measure *m, struct bdrv_measure_result *ret, Error **errp)
{
    uint64_t metadata, data, used = 0;
    int rc = q2_create_judge_shape(m->o, errp);

    if (rc < 0) {
        return rc;
    }
    m->cluster_bits = (unsigned)__builtin_ctzll(m->o->cluster_size);
    rc = disk_size(m, errp);
    if (rc < 0) {
        return rc;
    }
    data = div_up(m->disk_bytes, m->o->cluster_size);
    metadata = metadata_clusters(m);
    if (m->o->preallocation == OPTS_PREALLOC_FALLOC || m->o->preallocation == OPTS_PREALLOC_FULL ||
        (m->source != NULL && m->o->backing_file != NULL)) {
        used = data; /* what the backing file may hide counts */
    } else if (m->source != NULL) {
        rc = used_clusters(m, &used, errp);
    }
    if (rc < 0) {
        return rc;
    }
    *ret = (struct bdrv_measure_result){
        .required_bytes = (metadata + used) << m->cluster_bits,
        .fully_allocated_bytes = (metadata + data) << m->cluster_bits,
    };
    ret->has_bitmaps = m->source != NULL && m->o->compat != OPTS_QCOW2_COMPAT_V2 &&
                       q2_bitmaps_measure(m->source, m->disk_bytes, (uint32_t)m->o->cluster_size,
                                          &ret->bitmaps_bytes);
    return 0;
}

int q2_driver_measure(Platter *pl, BlockOptions *options, BlockDriverState *source,
                      struct bdrv_measure_result *ret_result, Error **errp)
{
    struct opts_create_qcow2 o;
    struct measure m = {.o = &o, .source = source};
    int rc = opts_create_qcow2_parse(options, &o, errp);

    if (rc < 0) {
        return rc;
    }
    rc = measure(&m, ret_result, errp);
    opts_create_qcow2_fini(&o);
    return rc;
}
