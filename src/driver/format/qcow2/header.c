/* SPDX-License-Identifier: MIT */
/*
 * The header of an image as a struct: parsed from the first cluster, copied, ended. Pure; building
 * it again is header_build.c. Section names are those of docs/interop/qcow2.rst.
 *
 * Invariant: what was parsed keeps the limits of format.h, and every table it names is aligned and
 * inside the file; whether a table lies on top of another is not looked at here.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "util/error.h"

#include "header_int.h"

#define MISSING_MAX 512 /* of the text that names unknown features */

/* What is parsed from. */
struct source {
    const uint8_t *buf;
    size_t bytes; /* that there are, at most a cluster */
    uint64_t file_bytes;
};

static uint64_t cluster_bytes(const struct q2_header *h)
{
    return UINT64_C(1) << h->cluster_bits;
}

/* ---- "Header" ---- */

static void load_fixed(const uint8_t *buf, struct q2_header *h)
{
    h->backing_file_offset = load_be64(buf + 8);
    h->size_bytes = load_be64(buf + 24);
    h->crypt_method = load_be32(buf + 32);
    h->l1_entries = load_be32(buf + 36);
    h->l1_offset = load_be64(buf + 40);
    h->reftable_offset = load_be64(buf + 48);
    h->reftable_clusters = load_be32(buf + 56);
    h->snapshot_count = load_be32(buf + 60);
    h->snapshots_offset = load_be64(buf + 64);
}

static int load_v3(const struct source *src, struct q2_header *h, Error **errp)
{
    if (src->bytes < Q2_HEADER_BYTES_V3) {
        return error_set(errp, EINVAL, "the file is too short for a qcow2 header (%zu bytes)",
                         src->bytes);
    }
    h->incompatible = load_be64(src->buf + 72);
    h->compatible = load_be64(src->buf + 80);
    h->autoclear = load_be64(src->buf + 88);
    h->refcount_order = load_be32(src->buf + 96);
    h->header_bytes = load_be32(src->buf + 100);
    if (h->header_bytes < Q2_HEADER_BYTES_V3) {
        return error_set(errp, EINVAL, "qcow2 header too short (header_length %" PRIu32 ")",
                         h->header_bytes);
    }
    if (h->header_bytes > cluster_bytes(h)) {
        return error_set(errp, EINVAL,
                         "qcow2 header exceeds cluster size (header_length %" PRIu32 ")",
                         h->header_bytes);
    }
    if (h->header_bytes % 8 != 0) {
        return error_set(errp, EINVAL, "qcow2 header_length %" PRIu32 " is not a multiple of 8",
                         h->header_bytes);
    }
    if (h->header_bytes > src->bytes) {
        return error_set(errp, EINVAL, "qcow2 header goes beyond the end of the file");
    }
    if (h->header_bytes < Q2_HEADER_BYTES_NOW) {
        return 0;
    }
    h->compression_type = src->buf[104];
    memcpy(h->padding, src->buf + 105, sizeof(h->padding));
    if (h->header_bytes > Q2_HEADER_BYTES_NOW) {
        h->unknown_bytes = h->header_bytes - Q2_HEADER_BYTES_NOW;
        h->unknown_fields = q2_bytes_dup(src->buf + Q2_HEADER_BYTES_NOW, h->unknown_bytes);
        if (h->unknown_fields == NULL) {
            return error_set(errp, ENOMEM, "out of memory");
        }
    }
    return 0;
}

static int load_header(const struct source *src, struct q2_header *h, Error **errp)
{
    if (src->bytes < 4 || load_be32(src->buf) != Q2_MAGIC) {
        return error_set(errp, EINVAL, "Image is not in qcow2 format");
    }
    if (src->bytes < Q2_HEADER_BYTES_V2) {
        return error_set(errp, EINVAL, "the file is too short for a qcow2 header (%zu bytes)",
                         src->bytes);
    }
    h->version = load_be32(src->buf + 4);
    if (h->version != 2 && h->version != 3) {
        return error_set(errp, ENOTSUP, "Unsupported qcow2 version %" PRIu32, h->version);
    }
    h->cluster_bits = load_be32(src->buf + 20);
    if (h->cluster_bits < Q2_CLUSTER_BITS_MIN || h->cluster_bits > Q2_CLUSTER_BITS_MAX) {
        return error_set(errp, EINVAL, "Unsupported cluster size: 2^%" PRIu32, h->cluster_bits);
    }
    load_fixed(src->buf, h);
    if (h->version == 2) {
        h->refcount_order = 4;
        h->header_bytes = Q2_HEADER_BYTES_V2;
        return 0;
    }
    return load_v3(src, h, errp);
}

/* ---- "Header extensions" ---- */

/* A string as it should be: no zero byte but at its end, where careless writers put one. */
static int load_string(const uint8_t *data, size_t bytes, const char *what, char **ret,
                       Error **errp)
{
    size_t len = strnlen((const char *)data, bytes);
    char *text;

    for (size_t i = len; i < bytes; i++) {
        if (data[i] != 0) {
            return error_set(errp, EINVAL, "%s contains a zero byte", what);
        }
    }
    free(*ret); /* the last one counts */
    *ret = NULL;
    if (len == 0) {
        return 0;
    }
    text = strndup((const char *)data, len);
    if (text == NULL) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    *ret = text;
    return 0;
}

static int load_bitmaps_ext(const struct q2_extension *e, struct q2_header *h, Error **errp)
{
    if (e->bytes != Q2_EXT_BITMAPS_BYTES) {
        return error_set(errp, EINVAL, "bitmaps_ext: Invalid extension length");
    }
    if (load_be32(e->data + 4) != 0 && (h->autoclear & Q2_AUTOCLEAR_BITMAPS)) {
        return error_set(errp, EINVAL, "bitmaps_ext: Reserved field is not zero");
    }
    h->has_bitmaps_ext = true;
    h->bitmap_count = load_be32(e->data);
    h->bitmap_directory_bytes = load_be64(e->data + 8);
    h->bitmap_directory_offset = load_be64(e->data + 16);
    return 0;
}

static int load_crypt_ext(const struct q2_extension *e, struct q2_header *h, Error **errp)
{
    if (h->crypt_method != Q2_CRYPT_LUKS) {
        return error_set(errp, EINVAL,
                         "encryption header extension in an image that is not encrypted by LUKS");
    }
    if (e->bytes != Q2_EXT_CRYPT_BYTES) {
        return error_set(errp, EINVAL, "encryption header extension: invalid length %" PRIu32,
                         e->bytes);
    }
    h->has_crypt_header = true;
    h->crypt_header_offset = load_be64(e->data);
    h->crypt_header_bytes = load_be64(e->data + 8);
    if (!is_aligned(h->crypt_header_offset, cluster_bytes(h))) {
        return error_set(errp, EINVAL,
                         "encryption header offset %#" PRIx64 " is not a multiple of the cluster "
                         "size",
                         h->crypt_header_offset);
    }
    return 0;
}

static int load_known(const struct q2_extension *e, struct q2_header *h, Error **errp)
{
    switch (e->type) {
    case Q2_EXT_BACKING_FORMAT:
        if (e->bytes > Q2_BACKING_FORMAT_BYTES_MAX) {
            return error_set(errp, EINVAL, "backing format name is too long (%" PRIu32 " bytes)",
                             e->bytes);
        }
        return load_string(e->data, e->bytes, "backing format name", &h->backing_format, errp);
    case Q2_EXT_DATA_FILE:
        if (e->bytes > Q2_DATA_FILE_NAME_BYTES_MAX) {
            return error_set(errp, EINVAL, "data file name is too long (%" PRIu32 " bytes)",
                             e->bytes);
        }
        return load_string(e->data, e->bytes, "data file name", &h->data_file, errp);
    case Q2_EXT_FEATURE_NAMES:
        h->has_feature_names = true;
        return 0;
    case Q2_EXT_BITMAPS:
        return load_bitmaps_ext(e, h, errp);
    case Q2_EXT_CRYPT_HEADER:
        return load_crypt_ext(e, h, errp);
    default:
        return 0; /* kept, not understood */
    }
}

/* [at, end) is where extensions may stand. */
static int load_extensions(const struct source *src, uint64_t at, uint64_t end, struct q2_header *h,
                           Error **errp)
{
    unsigned count = 0;

    while (end - at >= Q2_EXT_HEAD_BYTES) {
        uint32_t type = load_be32(src->buf + at);
        uint32_t bytes = load_be32(src->buf + at + 4);
        struct q2_extension *e;
        int rc;

        at += Q2_EXT_HEAD_BYTES;
        if (type == Q2_EXT_END) {
            break;
        }
        if (bytes > end - at) {
            return error_set(errp, EINVAL,
                             "Header extension %#" PRIx32 " is too large (%" PRIu32 " bytes)", type,
                             bytes);
        }
        if (++count > Q2_EXTENSIONS_MAX) {
            return error_set(errp, EINVAL, "the header has more than %d extensions",
                             Q2_EXTENSIONS_MAX);
        }
        e = q2_extension_new(type, src->buf + at, bytes);
        if (e == NULL) {
            return error_set(errp, ENOMEM, "out of memory");
        }
        TAILQ_INSERT_TAIL(&h->extensions, e, entry);
        rc = load_known(e, h, errp);
        if (rc < 0) {
            return rc;
        }
        at = min_u64(align_up(at + bytes, Q2_EXT_ALIGN), end);
    }
    h->extensions_end = at;
    return 0;
}

/* The backing file's name, and before it the extensions. */
static int load_variable(const struct source *src, struct q2_header *h, Error **errp)
{
    uint64_t end = min_u64(cluster_bytes(h), src->bytes);
    uint64_t at = h->backing_file_offset;
    uint32_t bytes = load_be32(src->buf + 16);
    int rc;

    if (at == 0) {
        return load_extensions(src, h->header_bytes, end, h, errp);
    }
    if (at < h->header_bytes || at > end) {
        return error_set(errp, EINVAL, "Invalid backing file offset %#" PRIx64, at);
    }
    rc = load_extensions(src, h->header_bytes, at, h, errp);
    if (rc < 0) {
        return rc;
    }
    if (bytes > Q2_BACKING_NAME_BYTES_MAX || bytes > end - at) {
        return error_set(errp, EINVAL, "Backing file name too long (%" PRIu32 " bytes)", bytes);
    }
    if (memchr(src->buf + at, 0, bytes) != NULL) {
        return error_set(errp, EINVAL, "backing file name contains a zero byte");
    }
    return load_string(src->buf + at, bytes, "backing file name", &h->backing_file, errp);
}

/* ---- what the fields may be ---- */

/* The name the image gives to an incompatible feature, of bytes that a terminal can bear. */
static bool feature_name(const struct q2_header *h, unsigned bit, char *ret_name)
{
    const struct q2_extension *e;
    bool found = false;

    TAILQ_FOREACH (e, &h->extensions, entry) {
        if (e->type != Q2_EXT_FEATURE_NAMES) {
            continue;
        }
        for (uint32_t i = 0; i + Q2_FEATURE_BYTES <= e->bytes; i += Q2_FEATURE_BYTES) {
            const uint8_t *f = e->data + i;

            if (f[0] == Q2_FEATURE_INCOMPATIBLE && f[1] == bit && f[2] != 0) {
                memcpy(ret_name, f + 2, Q2_FEATURE_NAME_BYTES);
                ret_name[Q2_FEATURE_NAME_BYTES] = '\0';
                found = true;
            }
        }
    }
    for (char *c = ret_name; found && *c != '\0'; c++) {
        *c = (*c < 0x20 || *c > 0x7e) ? '?' : *c;
    }
    return found;
}

static int check_features(const struct q2_header *h, Error **errp)
{
    uint64_t unknown = h->incompatible & ~(uint64_t)Q2_INCOMPAT_KNOWN;
    char text[MISSING_MAX] = "";
    size_t used = 0;

    for (unsigned bit = 0; bit < 64; bit++) {
        char name[Q2_FEATURE_NAME_BYTES + 1];
        const char *comma = used > 0 ? ", " : "";

        if (!(unknown >> bit & 1) || used >= sizeof(text)) {
            continue;
        }
        if (feature_name(h, bit, name)) {
            used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%s", comma, name);
        } else {
            used += (size_t)snprintf(text + used, sizeof(text) - used,
                                     "%sunknown incompatible feature bit %u", comma, bit);
        }
    }
    return unknown != 0 ? error_set(errp, ENOTSUP, "Unsupported qcow2 feature(s): %s", text) : 0;
}

static int check_kinds(const struct q2_header *h, Error **errp)
{
    bool compression_bit = (h->incompatible & Q2_INCOMPAT_COMPRESSION) != 0;

    if (h->refcount_order > Q2_REFCOUNT_ORDER_MAX) {
        return error_set(errp, EINVAL,
                         "Reference count entry width too large (2^%" PRIu32
                         " bits); may not exceed 64 bits",
                         h->refcount_order);
    }
    if (h->compression_type > Q2_COMPRESSION_ZSTD) {
        return error_set(errp, ENOTSUP, "unknown compression type: %u", h->compression_type);
    }
    if (compression_bit != (h->compression_type != Q2_COMPRESSION_ZLIB)) {
        return error_set(errp, EINVAL,
                         "compression type %u: its incompatible feature bit must %sbe "
                         "set",
                         h->compression_type, compression_bit ? "not " : "");
    }
    if (h->crypt_method > Q2_CRYPT_LUKS) {
        return error_set(errp, EINVAL, "Unsupported encryption method %" PRIu32, h->crypt_method);
    }
    if ((h->incompatible & Q2_INCOMPAT_EXTENDED_L2) &&
        h->cluster_bits < Q2_CLUSTER_BITS_MIN_EXTENDED) {
        return error_set(errp, EINVAL,
                         "cluster size 2^%" PRIu32 " is too small for extended L2 "
                         "entries",
                         h->cluster_bits);
    }
    return 0;
}

/* bytes: of the table, for what the header tells its length. */
static int check_place(const struct q2_header *h, const char *what, uint64_t offset, uint64_t bytes,
                       uint64_t file_bytes, Error **errp)
{
    if (!is_aligned(offset, cluster_bytes(h)) || offset > (uint64_t)INT64_MAX) {
        return error_set(errp, EINVAL, "%s offset invalid (%#" PRIx64 ")", what, offset);
    }
    if (bytes > 0 && !range_inside(offset, bytes, file_bytes)) {
        return error_set(errp, EINVAL,
                         "%s (%" PRIu64 " bytes at %#" PRIx64 ") goes beyond the end of the file "
                         "(%" PRIu64 " bytes)",
                         what, bytes, offset, file_bytes);
    }
    return 0;
}

static int check_l1(const struct q2_header *h, uint64_t file_bytes, Error **errp)
{
    unsigned entry_bits = (h->incompatible & Q2_INCOMPAT_EXTENDED_L2) ? 4 : 3;
    uint64_t covers = UINT64_C(1) << (h->cluster_bits + h->cluster_bits - entry_bits);
    uint64_t needed = h->size_bytes / covers + (h->size_bytes % covers != 0);

    if (h->size_bytes > (uint64_t)INT64_MAX || needed > Q2_L1_BYTES_MAX / sizeof(uint64_t)) {
        return error_set(errp, EFBIG, "Image is too big (%" PRIu64 " bytes)", h->size_bytes);
    }
    if (h->l1_entries > Q2_L1_BYTES_MAX / sizeof(uint64_t)) {
        return error_set(errp, EFBIG, "Active L1 table too large (%" PRIu32 " entries)",
                         h->l1_entries);
    }
    if (h->l1_entries < needed) {
        return error_set(errp, EINVAL, "L1 table is too small (%" PRIu32 " entries of %" PRIu64 ")",
                         h->l1_entries, needed);
    }
    return check_place(h, "Active L1 table", h->l1_offset,
                       (uint64_t)h->l1_entries * sizeof(uint64_t), file_bytes, errp);
}

static int check_tables(const struct q2_header *h, uint64_t file_bytes, Error **errp)
{
    uint64_t reftable_bytes = (uint64_t)h->reftable_clusters << h->cluster_bits;
    uint64_t snapshots_min = (uint64_t)h->snapshot_count * Q2_SNAPSHOT_FIXED_BYTES;
    int rc = check_l1(h, file_bytes, errp);

    if (rc < 0) {
        return rc;
    }
    if (reftable_bytes > Q2_REFTABLE_BYTES_MAX) {
        return error_set(errp, EFBIG, "Reference count table too large (%" PRIu32 " clusters)",
                         h->reftable_clusters);
    }
    rc = check_place(h, "Reference count table", h->reftable_offset, reftable_bytes, file_bytes,
                     errp);
    if (rc < 0) {
        return rc;
    }
    if (file_bytes == UINT64_MAX) {
        return 0; /* a check looks at the snapshot table itself */
    }
    if (h->snapshot_count > Q2_SNAPSHOTS_MAX) {
        error_set(errp, EFBIG, "Snapshot table too large");
        error_set_hint(errp, "It has %" PRIu32 " snapshots, of which %d are taken",
                       h->snapshot_count, Q2_SNAPSHOTS_MAX);
        return -EFBIG;
    }
    return check_place(h, "Snapshot table", h->snapshots_offset, snapshots_min, file_bytes, errp);
}

/* ---- exported ---- */

size_t q2_header_wants(const uint8_t *buf, size_t bytes)
{
    uint32_t bits = bytes >= Q2_HEADER_BYTES_V2 ? load_be32(buf + 20) : 0;

    if (bits < Q2_CLUSTER_BITS_MIN || bits > Q2_CLUSTER_BITS_MAX || load_be32(buf) != Q2_MAGIC) {
        return bytes;
    }
    return (size_t)1 << bits;
}

int q2_header_parse(const uint8_t *buf, size_t bytes, uint64_t file_bytes, struct q2_header *ret,
                    Error **errp)
{
    const struct source src = {.buf = buf, .bytes = bytes, .file_bytes = file_bytes};
    int rc;

    *ret = (struct q2_header){0};
    TAILQ_INIT(&ret->extensions);
    rc = load_header(&src, ret, errp);
    if (rc == 0) {
        rc = load_variable(&src, ret, errp);
    }
    if (rc == 0) {
        rc = check_features(ret, errp);
    }
    if (rc == 0) {
        rc = check_kinds(ret, errp);
    }
    if (rc == 0) {
        rc = check_tables(ret, file_bytes, errp);
    }
    if (rc == 0) {
        /* an odd size: the reference shows the whole sectors of it, and writes that back */
        ret->size_bytes = align_down(ret->size_bytes, Q2_SECTOR);
    }
    return rc;
}

void q2_header_fini(struct q2_header *h)
{
    struct q2_extension *e;

    while (h->extensions.tqh_last != NULL && (e = TAILQ_FIRST(&h->extensions)) != NULL) {
        TAILQ_REMOVE(&h->extensions, e, entry);
        free(e->data);
        free(e);
    }
    free(h->unknown_fields);
    free(h->backing_file);
    free(h->backing_format);
    free(h->data_file);
    *h = (struct q2_header){0};
    TAILQ_INIT(&h->extensions);
}

void q2_geometry_init(const struct q2_header *h, struct q2_geometry *ret)
{
    bool extended = (h->incompatible & Q2_INCOMPAT_EXTENDED_L2) != 0;
    unsigned entry_bits = extended ? 4 : 3;
    unsigned refcount_bits = 1U << h->refcount_order;
    unsigned refblock_bits = h->cluster_bits + 3 - h->refcount_order;
    bool external = (h->incompatible & Q2_INCOMPAT_DATA_FILE) != 0;

    *ret = (struct q2_geometry){
        .version = h->version,
        .cluster_bits = h->cluster_bits,
        .cluster_bytes = UINT32_C(1) << h->cluster_bits,
        .l2_bits = h->cluster_bits - entry_bits,
        .l2_entries = UINT32_C(1) << (h->cluster_bits - entry_bits),
        .l2_entry_bytes = 1U << entry_bits,
        .subclusters = extended ? Q2_SUBCLUSTERS : 1,
        .subcluster_bytes = (UINT32_C(1) << h->cluster_bits) / (extended ? Q2_SUBCLUSTERS : 1),
        .refcount_order = h->refcount_order,
        .refcount_bits = refcount_bits,
        .refcount_max = refcount_bits == 64 ? UINT64_MAX : (UINT64_C(1) << refcount_bits) - 1,
        .refblock_bits = refblock_bits,
        .refblock_entries = UINT64_C(1) << refblock_bits,
        .extended_l2 = extended,
        .external_data = external,
        .data_file_raw = external && (h->autoclear & Q2_AUTOCLEAR_DATA_FILE_RAW) != 0,
    };
}
