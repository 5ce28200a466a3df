/* SPDX-License-Identifier: MIT */
/*
 * A new image: laid out as the reference does, byte for byte. First an image of no bytes (header,
 * refcount table, one refcount block), then the driver itself opens it and makes the disk as large
 * as it shall be, with what is to be allocated at once.
 *
 * Nothing is touched before all options were judged.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "schema/opts.h"
#include "util/error.h"
#include "util/name_beside.h"
#include "util/options.h"

#include "compress.h"
#include "create_int.h"
#include "driver.h"
#include "header_int.h"
#include "l1.h"
#include "refbits.h"
#include "resize.h"
#include "tree.h"

/* Clusters of an image without a disk. */
enum { HEADER_AT, REFTABLE_AT, REFBLOCK_AT, CLUSTERS };

/* ---- options ---- */

/* What an image of version 2 cannot have. joined: the levels, in the words of the reference. */
static int judge_version(const struct opts_create_qcow2 *o, bool wanted, const char *what,
                         const char *joined, Error **errp)
{
    if (o->compat != OPTS_QCOW2_COMPAT_V2 || !wanted) {
        return 0;
    }
    return error_set(errp, EINVAL, "%s compatibility level 1.1 %s above (use compat=v3 or greater)",
                     what, joined);
}

static int judge_backing_format(const char *format, Error **errp)
{
    if (format != NULL && bdrv_find_driver(format) == NULL) {
        return error_set(errp, EINVAL, "Parameter 'backing-fmt' does not accept value '%s'",
                         format);
    }
    return 0;
}

/* Whether there can be a backing file at all. */
static int judge_backing(const struct opts_create_qcow2 *o, Error **errp)
{
    if (o->backing_file != NULL && o->preallocation != OPTS_PREALLOC_OFF && !o->extended_l2) {
        return error_set(errp, EINVAL,
                         "Backing file and preallocation can only be used at the same time if "
                         "extended_l2 is on");
    }
    if (o->backing_fmt != NULL && o->backing_file == NULL) {
        return error_set(errp, EINVAL, "Backing format cannot be used without backing file");
    }
    return 0;
}

static int judge_backing_name(const struct opts_create_qcow2 *o, Error **errp)
{
    if (o->backing_file == NULL) {
        return 0;
    }
    if (o->backing_file[0] == '\0') {
        return error_set(errp, EINVAL, "Expected backing file name, got empty string");
    }
    if (o->backing_fmt == NULL) {
        error_set(errp, EINVAL, "Backing file specified without backing format");
        error_set_hint(errp, "Give it as backing_fmt");
        return -EINVAL;
    }
    if (strlen(o->backing_file) > Q2_BACKING_NAME_BYTES_MAX) {
        return error_set(errp, EINVAL, "Backing file name too long (%zu bytes)",
                         strlen(o->backing_file));
    }
    return 0;
}

static int judge_data_file(const struct opts_create_qcow2 *o, Error **errp)
{
    if (o->data_file_raw && o->data_file == NULL) {
        return error_set(errp, EINVAL, "data-file-raw requires data-file");
    }
    if (o->data_file_raw && o->backing_file != NULL) {
        return error_set(errp, EINVAL,
                         "Backing file and data_file_raw cannot be used at the same time");
    }
    return 0;
}

/* Its options are known, so that who asks for it learns that it is not there, and is not given an
 * image that anybody can read. */
static int judge_encryption(const struct opts_create_qcow2 *o, Error **errp)
{
    const struct {
        bool given;
        const char *key;
    } keys[] = {
        {o->encryption, "encryption"},
        {o->has_encrypt_format, "encrypt.format"},
        {o->has_encrypt_key_secret, "encrypt.key-secret"},
        {o->has_encrypt_cipher_alg, "encrypt.cipher-alg"},
        {o->has_encrypt_cipher_mode, "encrypt.cipher-mode"},
        {o->has_encrypt_hash_alg, "encrypt.hash-alg"},
        {o->has_encrypt_iter_time, "encrypt.iter-time"},
        {o->has_encrypt_ivgen_alg, "encrypt.ivgen-alg"},
        {o->has_encrypt_ivgen_hash_alg, "encrypt.ivgen-hash-alg"},
    };

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        if (keys[i].given) {
            return error_set(errp, ENOTSUP,
                             "Encryption is not in this build: '%s' cannot be honoured",
                             keys[i].key);
        }
    }
    return 0;
}

static int judge_cluster(const struct opts_create_qcow2 *o, Error **errp)
{
    if (o->cluster_size < UINT64_C(1) << Q2_CLUSTER_BITS_MIN ||
        o->cluster_size > UINT64_C(1) << Q2_CLUSTER_BITS_MAX || !is_pow2(o->cluster_size)) {
        return error_set(errp, EINVAL, "Cluster size must be a power of two between 512 and 2048k");
    }
    if (o->extended_l2 && o->cluster_size < UINT64_C(1) << Q2_CLUSTER_BITS_MIN_EXTENDED) {
        return error_set(errp, EINVAL,
                         "Extended L2 entries are only supported with cluster sizes of at least "
                         "%d bytes",
                         1 << Q2_CLUSTER_BITS_MIN_EXTENDED);
    }
    return 0;
}

static int judge_refcount(const struct opts_create_qcow2 *o, Error **errp)
{
    if (o->refcount_bits > UINT64_C(1) << Q2_REFCOUNT_ORDER_MAX || !is_pow2(o->refcount_bits)) {
        return error_set(errp, EINVAL,
                         "Refcount width must be a power of two and may not exceed 64 bits");
    }
    return judge_version(o, o->refcount_bits != 16,
                         "Different refcount widths than 16 bits require", "or", errp);
}

static int judge_compression(const struct opts_create_qcow2 *o, Error **errp)
{
    if (!q2_compression_known((enum q2_compression)o->compression_type)) {
        return error_set(errp, ENOTSUP, "This build does not know compression type '%s'",
                         opts_qcow2_compression_str(o->compression_type));
    }
    return 0;
}

int q2_create_judge_shape(const struct opts_create_qcow2 *o, Error **errp)
{
    int rc = judge_encryption(o, errp);

    rc = rc < 0 ? rc : judge_cluster(o, errp);
    rc = rc < 0 ? rc : judge_refcount(o, errp);
    return rc < 0 ? rc : judge_compression(o, errp);
}

void q2_create_fill_header(const struct opts_create_qcow2 *o, struct q2_header *h)
{
    *h = (struct q2_header){
        .version = o->compat == OPTS_QCOW2_COMPAT_V2 ? 2 : 3,
        .cluster_bits = (uint32_t)__builtin_ctzll(o->cluster_size),
        .reftable_offset = REFTABLE_AT * o->cluster_size,
        .reftable_clusters = 1,
        .compatible = o->lazy_refcounts ? Q2_COMPAT_LAZY_REFCOUNTS : 0,
        .autoclear = o->data_file_raw ? Q2_AUTOCLEAR_DATA_FILE_RAW : 0,
        .refcount_order = (uint32_t)__builtin_ctzll(o->refcount_bits),
        .compression_type = (uint8_t)o->compression_type,
        .backing_file = o->backing_file,
        .backing_format = o->backing_fmt,
        .data_file = o->data_file,
    };
    if (h->compression_type != Q2_COMPRESSION_ZLIB) {
        h->incompatible |= Q2_INCOMPAT_COMPRESSION;
    }
    if (o->extended_l2) {
        h->incompatible |= Q2_INCOMPAT_EXTENDED_L2;
    }
    if (o->data_file != NULL) {
        h->incompatible |= Q2_INCOMPAT_DATA_FILE;
    }
    TAILQ_INIT(&h->extensions);
}

int q2_create_judge_size(const struct opts_create_qcow2 *o, uint64_t size, uint64_t *ret_bytes)
{
    unsigned cluster_bits = (unsigned)__builtin_ctzll(o->cluster_size);
    uint64_t covers = UINT64_C(1) << (2 * cluster_bits - (o->extended_l2 ? 4 : 3));
    uint64_t bytes = size <= INT64_MAX ? align_up(size, Q2_SECTOR) : UINT64_MAX;

    if (bytes > INT64_MAX || (bytes - (bytes > 0)) / covers >= Q2_L1_BYTES_MAX / sizeof(uint64_t)) {
        return -EFBIG;
    }
    *ret_bytes = bytes;
    return 0;
}

static int judge_extended_l2(const struct opts_create_qcow2 *o, Error **errp)
{
    return judge_version(o, o->extended_l2, "Extended L2 entries are only supported with", "and",
                         errp);
}

static int judge_lazy_refcounts(const struct opts_create_qcow2 *o, Error **errp)
{
    return judge_version(o, o->lazy_refcounts, "Lazy refcounts only supported with", "and", errp);
}

static int judge_data_file_version(const struct opts_create_qcow2 *o, Error **errp)
{
    return judge_version(o, o->data_file != NULL, "External data files are only supported with",
                         "and", errp);
}

static int judge_compression_version(const struct opts_create_qcow2 *o, Error **errp)
{
    return judge_version(o, o->compression_type != OPTS_QCOW2_COMPRESSION_ZLIB,
                         "Non-zlib compression type is only supported with", "and", errp);
}

/* Of several faults the one is told that the reference tells. */
static int judge_all(const struct opts_create_qcow2 *o, Error **errp)
{
    static int (*const judges[])(const struct opts_create_qcow2 *o, Error **errp) = {
        judge_encryption,          judge_extended_l2, judge_cluster,      judge_backing,
        judge_lazy_refcounts,      judge_refcount,    judge_data_file,    judge_data_file_version,
        judge_compression_version, judge_compression, judge_backing_name,
    };
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(judges); i++) {
        rc = judges[i](o, errp);
    }
    return rc;
}

int q2_create_judge(struct opts_create_qcow2 *o, uint64_t *ret_disk_bytes, Error **errp)
{
    int rc = judge_backing_format(o->backing_fmt, errp);

    if (rc == 0) {
        rc = judge_all(o, errp);
    }
    if (rc == 0 && q2_create_judge_size(o, o->size, ret_disk_bytes) < 0) {
        rc = error_set(errp, EFBIG,
                       "The image size is too large for file format 'qcow2' (try using a larger "
                       "cluster size)");
    }
    if (rc == 0 && o->data_file_raw && o->preallocation == OPTS_PREALLOC_OFF) {
        o->preallocation = OPTS_PREALLOC_METADATA; /* offsets there are those of the disk */
    }
    return rc;
}

static int judge_names(const char *filename, const char *data_path,
                       const struct opts_create_qcow2 *o, Error **errp)
{
    if (!o->has_size) {
        return error_set(errp, EINVAL, "Image creation needs a size parameter");
    }
    if (o->data_file != NULL && strcmp(data_path, filename) == 0) {
        return error_set(errp, EINVAL, "The data file cannot be the image itself");
    }
    if (o->data_file != NULL && strlen(o->data_file) > Q2_DATA_FILE_NAME_BYTES_MAX) {
        return error_set(errp, EINVAL, "Data file name too long (%zu bytes)", strlen(o->data_file));
    }
    return 0;
}

/* ---- files ---- */

static int make_file(Platter *pl, const char *filename, const struct opts_create_qcow2 *o,
                     Error **errp)
{
    BlockOptions *below = block_options_new();
    int rc = below == NULL ? -ENOMEM : block_options_set_u64(below, "size", 0);

    if (rc == 0 && o->nocow) {
        rc = block_options_set_bool(below, "nocow", true);
    }
    if (rc == 0 && o->has_extent_size_hint) {
        rc = block_options_set_u64(below, "extent_size_hint", o->extent_size_hint);
    }
    if (rc < 0) {
        block_options_free(below);
        return error_set_errno(errp, -rc, "Could not create '%s'", filename);
    }
    /* No driver named: the file name says who carries it. */
    return bdrv_create(pl, filename, below, errp);
}

/* ---- an image without a disk ---- */

static int put_cluster(BdrvEdge *file, const struct q2_header *h, unsigned index,
                       const uint8_t *buf)
{
    return bdrv_edge_pwrite(file, (uint64_t)index << h->cluster_bits, buf,
                            (size_t)1 << h->cluster_bits, 0);
}

static int put_refcounts(BdrvEdge *file, const struct q2_header *h, uint8_t *buf)
{
    size_t cluster_bytes = (size_t)1 << h->cluster_bits;
    int rc;

    memset(buf, 0, cluster_bytes);
    store_be64(buf, (uint64_t)REFBLOCK_AT << h->cluster_bits);
    rc = put_cluster(file, h, REFTABLE_AT, buf);
    if (rc < 0) {
        return rc;
    }
    memset(buf, 0, cluster_bytes);
    for (unsigned i = 0; i < CLUSTERS; i++) {
        q2_refbits_set(buf, h->refcount_order, i, 1);
    }
    return put_cluster(file, h, REFBLOCK_AT, buf);
}

static int write_empty(BdrvEdge *file, struct q2_header *h, Error **errp)
{
    size_t cluster_bytes = (size_t)1 << h->cluster_bits;
    uint8_t *buf = malloc(cluster_bytes);
    size_t used;
    int rc;

    if (buf == NULL) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    rc = put_refcounts(file, h, buf);
    if (rc < 0) {
        rc = error_set_errno(errp, -rc, "Could not write the refcounts of the new image");
    }
    if (rc == 0) {
        rc = q2_header_build(h, buf, cluster_bytes, &used, errp);
    }
    if (rc == 0) {
        rc = put_cluster(file, h, HEADER_AT, buf);
        rc = rc < 0 ? error_set_errno(errp, -rc, "Could not write the header of the new image") : 0;
    }
    free(buf);
    return rc;
}

/* Names that do not fit are refused before a file is touched. */
static int judge_fit(struct q2_header *h, Error **errp)
{
    size_t cluster_bytes = (size_t)1 << h->cluster_bits;
    AUTO_FREE uint8_t *buf = malloc(cluster_bytes);
    size_t used;

    if (buf == NULL) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    return q2_header_build(h, buf, cluster_bytes, &used, errp);
}

/* ---- the disk ---- */

struct grow {
    BdrvEdge *edge;
    uint64_t disk_bytes;
    enum bdrv_prealloc prealloc;
    Error **errp;
};

/* The L1 table was written in whole sectors; the reference ends a file with its last entry. */
static int trim_co(struct qcow2 *s)
{
    uint64_t end = s->header.l1_offset + (uint64_t)s->header.l1_entries * sizeof(uint64_t);
    int64_t file_bytes = bdrv_edge_getlength(s->file);

    if (s->header.l1_entries == 0 || file_bytes < 0 ||
        (uint64_t)file_bytes != align_up(end, Q2_L1_SECTOR)) {
        return 0;
    }
    return bdrv_edge_truncate_co(s->file, end, true, BDRV_PREALLOC_OFF, 0, NULL);
}

/* Observed: where space is reserved for a disk of no bytes, the refcounts still move behind what is
 * in use, as they do to count what is reserved. */
static int reserve_nothing_co(struct qcow2 *s, enum bdrv_prealloc prealloc, Error **errp)
{
    int rc;

    if (s->geo.external_data || prealloc <= BDRV_PREALLOC_METADATA) {
        return 0;
    }
    q2_exclusive_begin_co(s);
    rc = q2_prealloc_data_co(s, 0, 0, false, prealloc, errp);
    q2_exclusive_end(s);
    return rc;
}

/* options are given away. */
static int open_made(Platter *pl, const char *filename, BlockOptions *options, BdrvEdge **ret,
                     Error **errp)
{
    Error *err = NULL;
    int rc;

    *ret = bdrv_create_open(pl, filename, options, &err);
    if (*ret != NULL) {
        return 0;
    }
    rc = -error_get_errno(err);
    error_propagate(errp, err);
    return rc;
}

static int grow_co(void *opaque)
{
    const struct grow *g = opaque;
    struct qcow2 *s = q2_of(bdrv_edge_node(g->edge));
    int rc = g->disk_bytes == 0
                 ? reserve_nothing_co(s, g->prealloc, g->errp)
                 : bdrv_edge_truncate_co(g->edge, g->disk_bytes, false, g->prealloc, 0, g->errp);

    if (rc < 0) {
        error_prepend(g->errp, "Could not resize image: ");
        return rc;
    }
    /* all of it now, lazy refcounts too: nobody would hear that closing the image failed to */
    rc = bdrv_edge_flush_co(g->edge);
    if (rc == 0) {
        rc = q2_settle_co(s, NULL);
    }
    if (rc == 0) {
        rc = q2_commit_clean_co(s);
    }
    if (rc == 0) {
        rc = trim_co(s);
    }
    return rc < 0 ? error_set_errno(g->errp, -rc, "Could not write the new image") : 0;
}

static int grow(Platter *pl, const char *filename, const char *data_path,
                const struct opts_create_qcow2 *o, uint64_t disk_bytes, Error **errp)
{
    static const enum bdrv_prealloc preallocs[] = {
        [OPTS_PREALLOC_OFF] = BDRV_PREALLOC_OFF,
        [OPTS_PREALLOC_METADATA] = BDRV_PREALLOC_METADATA,
        [OPTS_PREALLOC_FALLOC] = BDRV_PREALLOC_FALLOC,
        [OPTS_PREALLOC_FULL] = BDRV_PREALLOC_FULL,
    };
    BlockOptions *options = block_options_new();
    struct grow g = {
        .disk_bytes = disk_bytes,
        .prealloc = preallocs[o->preallocation],
        .errp = errp,
    };
    int rc = options == NULL ? -ENOMEM : block_options_set_str(options, "driver", "qcow2");

    if (rc == 0 && data_path != NULL) {
        rc = block_options_set_str(options, "data-file.filename", data_path);
    }
    if (rc < 0) {
        block_options_free(options);
        return error_set_errno(errp, -rc, "Could not open the new image");
    }
    rc = open_made(pl, filename, options, &g.edge, errp);
    if (rc < 0) {
        return rc;
    }
    rc = bdrv_run_co(grow_co, &g);
    bdrv_create_close(g.edge);
    return rc;
}

/* ---- all ---- */

static int fill(Platter *pl, const char *filename, const char *data_path,
                const struct opts_create_qcow2 *o, struct q2_header *h, uint64_t disk_bytes,
                Error **errp)
{
    BdrvEdge *file;
    int rc = open_made(pl, filename, NULL, &file, errp);

    if (rc < 0) {
        return rc;
    }
    rc = write_empty(file, h, errp);
    bdrv_create_close(file);
    return rc == 0 ? grow(pl, filename, data_path, o, disk_bytes, errp) : rc;
}

/* Both files; when that fails, none that was not there before. Over a file that is there nothing is
 * written before its data file is made. */
static int make_all(Platter *pl, const char *filename, const char *data_path,
                    const struct opts_create_qcow2 *o, struct q2_header *h, uint64_t disk_bytes,
                    Error **errp)
{
    bool is_new = bdrv_create_can_undo(pl, filename);
    bool is_data_new = data_path != NULL && bdrv_create_can_undo(pl, data_path);
    bool is_made = false, is_data_made = false;
    int rc = 0;

    if (is_new) {
        rc = make_file(pl, filename, o, errp);
        is_made = rc == 0;
    }
    if (rc == 0 && data_path != NULL) {
        rc = make_file(pl, data_path, o, errp);
        is_data_made = rc == 0;
    }
    if (rc == 0 && !is_new) {
        rc = make_file(pl, filename, o, errp);
    }
    rc = rc == 0 ? fill(pl, filename, data_path, o, h, disk_bytes, errp) : rc;
    if (rc < 0 && is_made) {
        bdrv_create_undo(pl, filename);
    }
    if (rc < 0 && is_data_made && is_data_new) {
        bdrv_create_undo(pl, data_path);
    }
    return rc;
}

/* data_path: where the data file is, seen from here; NULL: none. */
static int create(Platter *pl, const char *filename, const char *data_path,
                  struct opts_create_qcow2 *o, Error **errp)
{
    struct q2_header h;
    uint64_t disk_bytes;
    int rc = q2_create_judge(o, &disk_bytes, errp);

    if (rc == 0) {
        rc = judge_names(filename, data_path, o, errp);
    }
    if (rc < 0) {
        return rc;
    }
    q2_create_fill_header(o, &h); /* borrows strings of o */
    rc = judge_fit(&h, errp);
    return rc == 0 ? make_all(pl, filename, data_path, o, &h, disk_bytes, errp) : rc;
}

int q2_driver_create(Platter *pl, const char *filename, BlockOptions *options, Error **errp)
{
    struct opts_create_qcow2 o;
    char *data_path = NULL;
    /* before the values of others are parsed, as by the reference */
    int rc = judge_backing_format(block_options_get_str(options, "backing_fmt"), errp);

    if (rc == 0) {
        rc = opts_create_qcow2_parse(options, &o, errp);
    }
    if (rc < 0) {
        return rc;
    }
    if (o.data_file != NULL) {
        /* where every later open looks for it */
        data_path = name_beside(filename, o.data_file);
        rc = data_path != NULL ? 0 : error_set(errp, ENOMEM, "out of memory");
    }
    if (rc == 0) {
        rc = create(pl, filename, data_path, &o, errp);
    }
    free(data_path);
    opts_create_qcow2_fini(&o);
    return rc;
}
