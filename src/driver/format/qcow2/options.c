/* SPDX-License-Identifier: MIT */
/*
 * What an image is opened with: judged against each other and against the image, and turned into
 * numbers. Pure. Default sizes of caches are those that the reference documents: L2 entries for
 * the whole disk, but no more than 32 MiB of them, and four refcount blocks; cache-size alone goes
 * to L2 tables first.
 */
#include <errno.h>
#include <inttypes.h>

#include "schema/opts.h"
#include "util/error.h"

#include "overlap.h"
#include "qcow2.h"

#define L2_CACHE_BYTES_MAX (UINT64_C(32) << 20) /* when not told otherwise */
#define L2_SLICE_BYTES_DEFAULT 4096
#define L2_SLICE_BYTES_MIN 512
#define L2_SLICES_MIN 2
#define REFCOUNT_BLOCKS_MIN 4

/* ---- caches ---- */

/* All L2 entries of the disk, in whole slices. */
static uint64_t l2_bytes_of_disk(const struct q2_geometry *geo, uint64_t disk_bytes,
                                 uint32_t slice_bytes)
{
    uint64_t clusters = disk_bytes / geo->cluster_bytes + (disk_bytes % geo->cluster_bytes != 0);

    return align_up(clusters * geo->l2_entry_bytes, slice_bytes);
}

static int slice_size(const struct opts_node_qcow2 *o, const struct q2_geometry *geo,
                      uint32_t *ret_bytes, Error **errp)
{
    uint64_t bytes = o->has_l2_cache_entry_size
                         ? o->l2_cache_entry_size
                         : min_u64(L2_SLICE_BYTES_DEFAULT, geo->cluster_bytes);

    if (bytes < L2_SLICE_BYTES_MIN || bytes > geo->cluster_bytes || !is_pow2(bytes)) {
        return error_set(errp, EINVAL,
                         "L2 cache entry size must be a power of two between %d and the cluster "
                         "size (%" PRIu32 ")",
                         L2_SLICE_BYTES_MIN, geo->cluster_bytes);
    }
    *ret_bytes = (uint32_t)bytes;
    return 0;
}

static int check_sizes(const struct opts_node_qcow2 *o, Error **errp)
{
    if (o->has_cache_size && o->has_l2_cache_size && o->has_refcount_cache_size) {
        return error_set(errp, EINVAL,
                         "cache-size, l2-cache-size and refcount-cache-size may not be set at the "
                         "same time");
    }
    if (o->has_cache_size && o->has_l2_cache_size && o->l2_cache_size > o->cache_size) {
        return error_set(errp, EINVAL, "l2-cache-size may not exceed cache-size");
    }
    if (o->has_cache_size && o->has_refcount_cache_size && o->refcount_cache_size > o->cache_size) {
        return error_set(errp, EINVAL, "refcount-cache-size may not exceed cache-size");
    }
    return 0;
}

static int cache_sizes(const struct opts_node_qcow2 *o, const struct q2_geometry *geo,
                       uint64_t disk_bytes, struct q2_options *ret, Error **errp)
{
    uint64_t l2_whole, l2, refcounts_min = (uint64_t)REFCOUNT_BLOCKS_MIN * geo->cluster_bytes;
    uint64_t refcounts = o->has_refcount_cache_size ? o->refcount_cache_size : refcounts_min;
    int rc = check_sizes(o, errp);

    if (rc == 0) {
        rc = slice_size(o, geo, &ret->l2_slice_bytes, errp);
    }
    if (rc < 0) {
        return rc;
    }
    l2_whole = l2_bytes_of_disk(geo, disk_bytes, ret->l2_slice_bytes);
    if (o->has_l2_cache_size) {
        l2 = min_u64(o->l2_cache_size, l2_whole);
        refcounts = o->has_cache_size ? o->cache_size - o->l2_cache_size : refcounts;
    } else if (o->has_cache_size && o->has_refcount_cache_size) {
        l2 = min_u64(o->cache_size - o->refcount_cache_size, l2_whole);
    } else if (o->has_cache_size) {
        l2 = min_u64(o->cache_size - min_u64(o->cache_size, refcounts_min), l2_whole);
        refcounts = o->cache_size - min_u64(o->cache_size, l2);
    } else {
        l2 = min_u64(L2_CACHE_BYTES_MAX, l2_whole);
    }
    ret->l2_cache_bytes = max_u64(l2, (uint64_t)L2_SLICES_MIN * ret->l2_slice_bytes);
    ret->refcount_cache_bytes = max_u64(refcounts, refcounts_min);
    return 0;
}

/* ---- guarding metadata ---- */

static int overlap_sections(const struct opts_node_qcow2 *o, unsigned *ret_sections, Error **errp)
{
    static const unsigned templates[] = {
        [OPTS_QCOW2_OVERLAP_NONE] = Q2_OL_NONE,
        [OPTS_QCOW2_OVERLAP_CONSTANT] = Q2_OL_CONSTANT,
        [OPTS_QCOW2_OVERLAP_CACHED] = Q2_OL_CACHED,
        [OPTS_QCOW2_OVERLAP_ALL] = Q2_OL_ALL,
    };
    const struct {
        bool has, on;
        unsigned section;
    } apart[] = {
        {o->has_overlap_check_main_header, o->overlap_check_main_header, Q2_OL_MAIN_HEADER},
        {o->has_overlap_check_active_l1, o->overlap_check_active_l1, Q2_OL_ACTIVE_L1},
        {o->has_overlap_check_active_l2, o->overlap_check_active_l2, Q2_OL_ACTIVE_L2},
        {o->has_overlap_check_refcount_table, o->overlap_check_refcount_table,
         Q2_OL_REFCOUNT_TABLE},
        {o->has_overlap_check_refcount_block, o->overlap_check_refcount_block,
         Q2_OL_REFCOUNT_BLOCK},
        {o->has_overlap_check_snapshot_table, o->overlap_check_snapshot_table,
         Q2_OL_SNAPSHOT_TABLE},
        {o->has_overlap_check_inactive_l1, o->overlap_check_inactive_l1, Q2_OL_INACTIVE_L1},
        {o->has_overlap_check_inactive_l2, o->overlap_check_inactive_l2, Q2_OL_INACTIVE_L2},
        {o->has_overlap_check_bitmap_directory, o->overlap_check_bitmap_directory,
         Q2_OL_BITMAP_DIRECTORY},
    };
    enum opts_qcow2_overlap chosen = OPTS_QCOW2_OVERLAP_CACHED;

    if (o->has_overlap_check && o->has_overlap_check_template &&
        o->overlap_check != o->overlap_check_template) {
        return error_set(errp, EINVAL,
                         "Conflicting values for qcow2 options 'overlap-check' ('%s') and "
                         "'overlap-check.template' ('%s')",
                         opts_qcow2_overlap_str(o->overlap_check),
                         opts_qcow2_overlap_str(o->overlap_check_template));
    }
    if (o->has_overlap_check || o->has_overlap_check_template) {
        chosen = o->has_overlap_check ? o->overlap_check : o->overlap_check_template;
    }
    *ret_sections = templates[chosen];
    for (size_t i = 0; i < ARRAY_SIZE(apart); i++) {
        if (apart[i].has) {
            *ret_sections &= ~apart[i].section;
            *ret_sections |= apart[i].on ? apart[i].section : 0;
        }
    }
    return 0;
}

/* ---- all ---- */

static int judge(const struct opts_node_qcow2 *o, const struct q2_header *h,
                 const struct q2_geometry *geo, int flags, struct q2_options *ret, Error **errp)
{
    int rc = cache_sizes(o, geo, h->size_bytes, ret, errp);

    if (rc == 0) {
        rc = overlap_sections(o, &ret->overlap, errp);
    }
    if (rc < 0) {
        return rc;
    }
    ret->lazy_refcounts =
        o->has_lazy_refcounts ? o->lazy_refcounts : (h->compatible & Q2_COMPAT_LAZY_REFCOUNTS) != 0;
    if (ret->lazy_refcounts && geo->version < 3) {
        return error_set(errp, EINVAL,
                         "Lazy refcounts require a qcow2 image with at least qemu 1.1 "
                         "compatibility level");
    }
    ret->cache_clean_seconds = o->cache_clean_interval;
    ret->discard_no_unref = o->discard_no_unref;
    ret->compat_window = o->compat_window;
    ret->discard[Q2_DISCARD_NEVER] = false;
    ret->discard[Q2_DISCARD_REQUEST] =
        o->has_pass_discard_request ? o->pass_discard_request : (flags & BDRV_O_UNMAP) != 0;
    ret->discard[Q2_DISCARD_SNAPSHOT] = o->pass_discard_snapshot;
    ret->discard[Q2_DISCARD_OTHER] = o->pass_discard_other;
    ret->discard[Q2_DISCARD_ALWAYS] = true;
    return 0;
}

/* How to read what is encrypted: of no use where nothing is. */
static int judge_encryption(const BlockOptions *encrypt, Error **errp)
{
    const char *format = block_options_get_str(encrypt, "format");

    return format ? error_set(errp, EINVAL,
                              "No encryption in image header, but options specified format '%s'",
                              format)
                  : 0;
}

int q2_options_parse(BlockOptions *options, const struct q2_header *h,
                     const struct q2_geometry *geo, int flags, struct q2_options *ret, Error **errp)
{
    BlockOptions *encrypt = block_options_take_prefix(options, "encrypt.");
    struct opts_node_qcow2 o;
    struct q2_options judged = {0};
    int rc = encrypt ? 0 : error_set(errp, ENOMEM, "out of memory");

    rc = rc == 0 ? opts_node_qcow2_parse(options, &o, errp) : rc;
    if (rc < 0) {
        block_options_free(encrypt);
        return rc;
    }
    rc = judge(&o, h, geo, flags, &judged, errp);
    opts_node_qcow2_fini(&o);
    if (rc == 0 && h->crypt_method == Q2_CRYPT_NONE) {
        rc = judge_encryption(encrypt, errp);
    }
    block_options_free(encrypt);
    if (rc == 0) {
        *ret = judged;
    }
    return rc;
}
