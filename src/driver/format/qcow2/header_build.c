/* SPDX-License-Identifier: MIT */
/*
 * The header of an image in bytes, as the reference writes it: the fields, the extensions (backing
 * format, data file, encryption header, feature names, bitmaps, then those that nobody here
 * understands, in the order found), the end mark, the name of the backing file. Pure.
 */
#include <errno.h>
#include <inttypes.h>

#include "util/error.h"

#include "header_int.h"

/* Observed: where a cluster is not larger than this, there is no table of feature names. */
#define NAMELESS_CLUSTER_BYTES 4096

struct feature {
    uint8_t type; /* 0 incompatible, 1 compatible, 2 autoclear */
    uint8_t bit;
    const char *name;
};
static const struct feature features[] = {
    {0, 0, "dirty bit"},        {0, 1, "corrupt bit"},         {0, 2, "external data file"},
    {0, 3, "compression type"}, {0, 4, "extended L2 entries"}, {1, 0, "lazy refcounts"},
    {2, 0, "bitmaps"},          {2, 1, "raw external data"},
};

struct q2_extension *q2_extension_new(uint32_t type, const uint8_t *data, uint32_t bytes)
{
    struct q2_extension *e = malloc(sizeof(*e));

    if (e == NULL) {
        return NULL;
    }
    *e = (struct q2_extension){
        .type = type,
        .bytes = bytes,
        .data = q2_bytes_dup(data, bytes),
    };
    if (e->data == NULL) {
        free(e);
        return NULL;
    }
    return e;
}

static int copy_string(const char *from, char **ret)
{
    *ret = from != NULL ? strdup(from) : NULL;
    return from != NULL && *ret == NULL ? -ENOMEM : 0;
}

int q2_header_copy(const struct q2_header *from, struct q2_header *ret)
{
    const struct q2_extension *e;

    *ret = *from;
    ret->backing_file = ret->backing_format = ret->data_file = NULL;
    ret->unknown_fields = NULL;
    TAILQ_INIT(&ret->extensions);
    if (copy_string(from->backing_file, &ret->backing_file) < 0 ||
        copy_string(from->backing_format, &ret->backing_format) < 0 ||
        copy_string(from->data_file, &ret->data_file) < 0) {
        goto fail;
    }
    if (from->unknown_fields != NULL) {
        ret->unknown_fields = q2_bytes_dup(from->unknown_fields, from->unknown_bytes);
        if (ret->unknown_fields == NULL) {
            goto fail;
        }
    }
    TAILQ_FOREACH (e, &from->extensions, entry) {
        struct q2_extension *copy = q2_extension_new(e->type, e->data, e->bytes);

        if (copy == NULL) {
            goto fail;
        }
        TAILQ_INSERT_TAIL(&ret->extensions, copy, entry);
    }
    return 0;
fail:
    q2_header_fini(ret);
    return -ENOMEM;
}

/* ---- building ---- */

struct builder {
    uint8_t *buf;
    size_t at;
    size_t end;
};

/* Room for an extension's head and data; NULL: there is none. */
static uint8_t *extension_begin(struct builder *b, uint32_t type, size_t bytes)
{
    size_t all = Q2_EXT_HEAD_BYTES + align_up(bytes, Q2_EXT_ALIGN);
    uint8_t *data = b->buf + b->at + Q2_EXT_HEAD_BYTES;

    if (all > b->end - b->at) {
        return NULL;
    }
    store_be32(b->buf + b->at, type);
    store_be32(b->buf + b->at + 4, (uint32_t)bytes);
    b->at += all;
    return data;
}

static bool extension_put(struct builder *b, uint32_t type, const void *data, size_t bytes)
{
    uint8_t *to = extension_begin(b, type, bytes);

    if (to != NULL) {
        memcpy(to, data, bytes);
    }
    return to != NULL;
}

static bool is_ours(const uint8_t *feature)
{
    for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
        if (features[i].type == feature[0] && features[i].bit == feature[1]) {
            return true;
        }
    }
    return false;
}

/* Names the image has for features that we know nothing of. to NULL: count only. */
static size_t foreign_names(const struct q2_header *h, uint8_t *to)
{
    const struct q2_extension *e;
    size_t count = 0;

    TAILQ_FOREACH (e, &h->extensions, entry) {
        if (e->type != Q2_EXT_FEATURE_NAMES) {
            continue;
        }
        for (uint32_t i = 0; i + Q2_FEATURE_BYTES <= e->bytes; i += Q2_FEATURE_BYTES) {
            if (is_ours(e->data + i)) {
                continue;
            }
            if (to != NULL) {
                memcpy(to + count * Q2_FEATURE_BYTES, e->data + i, Q2_FEATURE_BYTES);
            }
            count++;
        }
    }
    return count;
}

/* In small clusters names are the first to go: they help nobody but a reader of error texts. */
static bool put_names(struct builder *b, const struct q2_header *h)
{
    bool small = b->end <= NAMELESS_CLUSTER_BYTES;
    size_t own = small ? 0 : ARRAY_SIZE(features);
    size_t foreign = foreign_names(h, NULL);
    uint8_t *to;

    if (h->version < 3 || own + foreign == 0) {
        return true;
    }
    to = extension_begin(b, Q2_EXT_FEATURE_NAMES, (own + foreign) * Q2_FEATURE_BYTES);
    if (to == NULL) {
        return small;
    }
    for (size_t i = 0; i < own; i++, to += Q2_FEATURE_BYTES) {
        to[0] = features[i].type;
        to[1] = features[i].bit;
        memcpy(to + 2, features[i].name, strlen(features[i].name));
    }
    foreign_names(h, to);
    return true;
}

static bool put_crypt(struct builder *b, const struct q2_header *h)
{
    uint8_t *to = extension_begin(b, Q2_EXT_CRYPT_HEADER, Q2_EXT_CRYPT_BYTES);

    if (to != NULL) {
        store_be64(to, h->crypt_header_offset);
        store_be64(to + 8, h->crypt_header_bytes);
    }
    return to != NULL;
}

static bool put_bitmaps(struct builder *b, const struct q2_header *h)
{
    uint8_t *to = extension_begin(b, Q2_EXT_BITMAPS, Q2_EXT_BITMAPS_BYTES);

    if (to != NULL) {
        store_be32(to, h->bitmap_count);
        store_be64(to + 8, h->bitmap_directory_bytes);
        store_be64(to + 16, h->bitmap_directory_offset);
    }
    return to != NULL;
}

static bool is_known(uint32_t type)
{
    return type == Q2_EXT_BACKING_FORMAT || type == Q2_EXT_FEATURE_NAMES ||
           type == Q2_EXT_BITMAPS || type == Q2_EXT_CRYPT_HEADER || type == Q2_EXT_DATA_FILE;
}

static bool put_extensions(struct builder *b, const struct q2_header *h, bool names)
{
    const struct q2_extension *e;
    bool fits = true;

    if (h->backing_format != NULL) {
        fits =
            extension_put(b, Q2_EXT_BACKING_FORMAT, h->backing_format, strlen(h->backing_format));
    }
    if (fits && h->data_file != NULL && (h->incompatible & Q2_INCOMPAT_DATA_FILE)) {
        fits = extension_put(b, Q2_EXT_DATA_FILE, h->data_file, strlen(h->data_file));
    }
    if (fits && h->has_crypt_header) {
        fits = put_crypt(b, h);
    }
    fits = fits && (!names || put_names(b, h));
    if (fits && h->has_bitmaps_ext) {
        fits = put_bitmaps(b, h);
    }
    TAILQ_FOREACH (e, &h->extensions, entry) {
        if (fits && !is_known(e->type)) {
            fits = extension_put(b, e->type, e->data, e->bytes);
        }
    }
    return fits && extension_begin(b, Q2_EXT_END, 0) != NULL;
}

static void put_fields(const struct q2_header *h, uint8_t *buf)
{
    store_be32(buf, Q2_MAGIC);
    store_be32(buf + 4, h->version);
    store_be32(buf + 20, h->cluster_bits);
    store_be64(buf + 24, h->size_bytes);
    store_be32(buf + 32, h->crypt_method);
    store_be32(buf + 36, h->l1_entries);
    store_be64(buf + 40, h->l1_offset);
    store_be64(buf + 48, h->reftable_offset);
    store_be32(buf + 56, h->reftable_clusters);
    store_be32(buf + 60, h->snapshot_count);
    store_be64(buf + 64, h->snapshots_offset);
    if (h->version == 2) {
        return;
    }
    store_be64(buf + 72, h->incompatible);
    store_be64(buf + 80, h->compatible);
    store_be64(buf + 88, h->autoclear);
    store_be32(buf + 96, h->refcount_order);
    store_be32(buf + 100, h->header_bytes);
    buf[104] = h->compression_type;
    memcpy(buf + 105, h->padding, sizeof(h->padding));
    if (h->unknown_bytes > 0) {
        memcpy(buf + Q2_HEADER_BYTES_NOW, h->unknown_fields, h->unknown_bytes);
    }
}

int q2_header_build_as(struct q2_header *h, bool names, uint8_t *buf, size_t cluster_bytes,
                       size_t *ret_bytes, Error **errp)
{
    struct builder b = {.buf = buf, .end = cluster_bytes};
    size_t name_bytes = h->backing_file != NULL ? strlen(h->backing_file) : 0;

    b.at = h->version == 2 ? Q2_HEADER_BYTES_V2 : Q2_HEADER_BYTES_NOW + h->unknown_bytes;
    if (name_bytes > Q2_BACKING_NAME_BYTES_MAX) {
        return error_set(errp, EINVAL, "Backing file name too long (%zu bytes)", name_bytes);
    }
    memset(buf, 0, cluster_bytes);
    h->header_bytes = (uint32_t)b.at;
    put_fields(h, buf);
    if (!put_extensions(&b, h, names) || name_bytes > b.end - b.at) {
        return error_set(errp, ENOSPC,
                         "The header and the names in it do not fit into a cluster of %zu bytes",
                         cluster_bytes);
    }
    h->extensions_end = b.at;
    h->backing_file_offset = 0;
    if (name_bytes > 0) {
        h->backing_file_offset = b.at;
        store_be64(buf + 8, b.at);
        store_be32(buf + 16, (uint32_t)name_bytes);
        memcpy(buf + b.at, h->backing_file, name_bytes);
        b.at += name_bytes;
    }
    *ret_bytes = b.at;
    return 0;
}

int q2_header_build(struct q2_header *h, uint8_t *buf, size_t cluster_bytes, size_t *ret_bytes,
                    Error **errp)
{
    return q2_header_build_as(h, true, buf, cluster_bytes, ret_bytes, errp);
}
