/* SPDX-License-Identifier: MIT */
/*
 * What the metadata of an image says, told without believing it: nothing that the image names is
 * opened, nothing is allocated because of what it claims.
 *
 * Bounds: the first cluster is read, at most LIST_BYTES_MAX of the snapshot table and of the bitmap
 * directory, and the header of the encryption. What lies beyond is counted, not listed.
 *
 * An image that the driver would refuse is described as far as it can be read, and "refused" says
 * why. "unsafe" names what somebody who was given the image should know before it is opened.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "util/error.h"
#include "util/json.h"

#include "bitmap.h"
#include "driver.h"
#include "header_int.h"
#include "info_int.h"
#include "snapshot.h"

#define LIST_BYTES_MAX (256 * 1024)
#define LIST_ENTRIES_MAX 1000

struct look {
    BdrvEdge *file;
    uint64_t file_bytes;
    struct q2_header h;
    Error *refused; /* owned; NULL: the driver takes the header */
};

/* ---- features ---- */

struct feature {
    uint8_t bit;
    const char *name;
};
static const struct feature incompatible[] = {
    {0, "dirty"}, {1, "corrupt"}, {2, "data-file"}, {3, "compression-type"}, {4, "extended-l2"},
};
static const struct feature compatible[] = {{0, "lazy-refcounts"}};
static const struct feature autoclear[] = {{0, "bitmaps"}, {1, "data-file-raw"}};

/* The name that the image's own table has for a bit. */
static json_t *foreign_name(const struct q2_header *h, uint8_t type, uint8_t bit)
{
    const struct q2_extension *e;
    char number[16];

    TAILQ_FOREACH (e, &h->extensions, entry) {
        for (uint32_t i = 0; e->type == Q2_EXT_FEATURE_NAMES && i + Q2_FEATURE_BYTES <= e->bytes;
             i += Q2_FEATURE_BYTES) {
            const char *name = (const char *)e->data + i + 2;

            if (e->data[i] == type && e->data[i + 1] == bit && name[0] != '\0') {
                return q2_json_text(name, strnlen(name, Q2_FEATURE_NAME_BYTES));
            }
        }
    }
    snprintf(number, sizeof(number), "bit %u", bit);
    return json_string(number);
}

/* Bits that this driver knows, by its names, and the others by the image's. */
static void put_features(struct q2_json *to, const char *key, const struct q2_header *h,
                         uint8_t type, uint64_t bits, const struct feature *known, size_t count)
{
    struct q2_json names = q2_json_array();
    struct q2_json unknown = q2_json_array();
    char unknown_key[40];

    for (uint8_t bit = 0; bit < 64; bit++) {
        size_t i = 0;

        if (!(bits >> bit & 1)) {
            continue;
        }
        while (i < count && known[i].bit != bit) {
            i++;
        }
        if (i < count) {
            q2_json_append(&names, json_string(known[i].name));
        } else {
            q2_json_append(&unknown, foreign_name(h, type, bit));
        }
    }
    snprintf(unknown_key, sizeof(unknown_key), "unknown-%s", key);
    q2_json_put(to, key, q2_json_end(&names));
    if (json_array_size(unknown.value) > 0 || unknown.failed) {
        q2_json_put(to, unknown_key, q2_json_end(&unknown));
    } else {
        json_decref(unknown.value);
    }
}

static json_t *features_value(const struct q2_header *h)
{
    struct q2_json value = q2_json_object();

    put_features(&value, "incompatible", h, 0, h->incompatible, incompatible,
                 ARRAY_SIZE(incompatible));
    put_features(&value, "compatible", h, 1, h->compatible, compatible, ARRAY_SIZE(compatible));
    put_features(&value, "autoclear", h, 2, h->autoclear, autoclear, ARRAY_SIZE(autoclear));
    return q2_json_end(&value);
}

/* ---- extensions, tables ---- */

static const char *extension_name(uint32_t type)
{
    switch (type) {
    case Q2_EXT_BACKING_FORMAT:
        return "backing-format";
    case Q2_EXT_FEATURE_NAMES:
        return "feature-names";
    case Q2_EXT_BITMAPS:
        return "bitmaps";
    case Q2_EXT_CRYPT_HEADER:
        return "encryption-header";
    case Q2_EXT_DATA_FILE:
        return "data-file";
    default:
        return "unknown";
    }
}

static json_t *extensions_value(const struct q2_header *h)
{
    struct q2_json list = q2_json_array();
    const struct q2_extension *e;

    TAILQ_FOREACH (e, &h->extensions, entry) {
        struct q2_json value = q2_json_object();

        q2_json_put(&value, "type", json_integer(e->type));
        q2_json_put(&value, "name", json_string(extension_name(e->type)));
        q2_json_put(&value, "bytes", json_integer(e->bytes));
        q2_json_append(&list, q2_json_end(&value));
    }
    return q2_json_end(&list);
}

static json_t *table_value(uint64_t offset, const char *unit, uint64_t count)
{
    struct q2_json value = q2_json_object();

    q2_json_put(&value, "offset", json_u64(offset));
    q2_json_put(&value, unit, json_u64(count));
    return q2_json_end(&value);
}

/* ---- lists ---- */

/* bytes at offset, cut to what the file has and to LIST_BYTES_MAX; malloc'd, NULL: nothing, or no
 * memory, which makes list fail. */
static uint8_t *read_some(struct look *k, uint64_t offset, uint64_t bytes, size_t *ret_bytes,
                          struct q2_json *list)
{
    uint8_t *buf;

    if (offset >= k->file_bytes) {
        return NULL;
    }
    *ret_bytes = (size_t)min_u64(min_u64(bytes, LIST_BYTES_MAX), k->file_bytes - offset);
    buf = calloc(1, *ret_bytes > 0 ? *ret_bytes : 1);
    list->failed |= buf == NULL;
    if (buf != NULL && bdrv_edge_pread(k->file, offset, buf, *ret_bytes) < 0) {
        free(buf);
        buf = NULL;
    }
    return buf;
}

static json_t *snapshot_value(const struct q2_snapshot *sn)
{
    struct q2_json value = q2_json_object();

    q2_json_put(&value, "id", q2_json_text(sn->id, sn->id_bytes));
    q2_json_put(&value, "name", q2_json_text(sn->name, sn->name_bytes));
    q2_json_put(&value, "vm-state-size", json_u64(sn->vm_state_bytes));
    q2_json_put(&value, "virtual-size", json_u64(sn->disk_bytes));
    q2_json_put(&value, "date-sec", json_integer(sn->date_sec));
    q2_json_put(&value, "l1-table", table_value(sn->l1_offset, "entries", sn->l1_entries));
    return q2_json_end(&value);
}

static void list_snapshots(struct look *k, struct q2_json *list)
{
    size_t bytes = 0, at = 0;
    uint8_t *buf = read_some(k, k->h.snapshots_offset, LIST_BYTES_MAX, &bytes, list);

    for (uint32_t i = 0; buf != NULL && i < k->h.snapshot_count && i < LIST_ENTRIES_MAX; i++) {
        struct q2_snapshot sn;
        size_t used;
        int ret = at < bytes ? q2_snapshot_parse(buf + at, bytes - at, k->h.size_bytes, &sn, &used)
                             : -EINVAL;

        if (ret < 0) {
            list->failed |= ret == -ENOMEM;
            break;
        }
        q2_json_append(list, snapshot_value(&sn));
        q2_snapshot_fini(&sn);
        at = align_up(at + used, Q2_SNAPSHOT_ALIGN);
    }
    free(buf);
}

static json_t *snapshots_value(struct look *k)
{
    struct q2_json value = q2_json_object();
    struct q2_json list = q2_json_array();

    if (k->h.snapshot_count > 0) {
        list_snapshots(k, &list);
    }
    q2_json_put(&value, "count", json_integer(k->h.snapshot_count));
    q2_json_put(&value, "offset", json_u64(k->h.snapshots_offset));
    q2_json_put(&value, "listed", json_integer((json_int_t)json_array_size(list.value)));
    q2_json_put(&value, "list", q2_json_end(&list));
    return q2_json_end(&value);
}

static json_t *bitmap_value(const struct q2_bitmap_entry *e)
{
    struct q2_json value = q2_json_object();

    q2_json_put(&value, "name", q2_json_text(e->name, strlen(e->name)));
    q2_json_put(&value, "granularity-bits", json_integer(e->granularity_bits));
    q2_json_put(&value, "in-use", json_boolean((e->flags & Q2_BITMAP_IN_USE) != 0));
    q2_json_put(&value, "auto", json_boolean((e->flags & Q2_BITMAP_AUTO) != 0));
    q2_json_put(&value, "table", table_value(e->table_offset, "entries", e->table_entries));
    return q2_json_end(&value);
}

static void list_bitmaps(struct look *k, struct q2_json *list)
{
    struct q2_bitmap_directory dir = {0};
    int ret = -ENOENT;
    size_t bytes = 0;
    uint8_t *buf;

    if (k->h.bitmap_directory_bytes > LIST_BYTES_MAX ||
        q2_bitmaps_ext_check(&k->h, k->file_bytes, NULL) < 0) {
        return;
    }
    buf = read_some(k, k->h.bitmap_directory_offset, k->h.bitmap_directory_bytes, &bytes, list);
    if (buf != NULL) {
        ret = q2_bitmap_directory_parse(buf, bytes, k->h.bitmap_count, &dir, NULL);
    }
    list->failed |= ret == -ENOMEM;
    if (ret == 0) {
        for (uint32_t i = 0; i < dir.count && i < LIST_ENTRIES_MAX; i++) {
            q2_json_append(list, bitmap_value(&dir.entries[i]));
        }
    }
    q2_bitmap_directory_fini(&dir);
    free(buf);
}

static json_t *bitmaps_value(struct look *k)
{
    struct q2_json value = q2_json_object();
    struct q2_json list = q2_json_array();

    list_bitmaps(k, &list);
    q2_json_put(&value, "count", json_integer(k->h.bitmap_count));
    q2_json_put(&value, "consistent", json_boolean((k->h.autoclear & Q2_AUTOCLEAR_BITMAPS) != 0));
    q2_json_put(&value, "directory",
                table_value(k->h.bitmap_directory_offset, "bytes", k->h.bitmap_directory_bytes));
    q2_json_put(&value, "listed", json_integer((json_int_t)json_array_size(list.value)));
    q2_json_put(&value, "list", q2_json_end(&list));
    return q2_json_end(&value);
}

/* ---- other files, and what is to be known ---- */

/* A name that may lead out of the image's own folder, or to something that is no file. */
static bool leads_away(const char *name)
{
    const char *colon = strchr(name, ':');
    const char *slash = strchr(name, '/');

    return name[0] == '/' || strncmp(name, "../", 3) == 0 || strstr(name, "/../") != NULL ||
           strcmp(name, "..") == 0 || (colon != NULL && (slash == NULL || colon < slash));
}

static void put_reference(struct q2_json *list, struct q2_json *unsafe, const char *kind,
                          const char *name, const char *format)
{
    struct q2_json value = q2_json_object();

    q2_json_put(&value, "kind", json_string(kind));
    q2_json_put(&value, "name", q2_json_text(name, strlen(name)));
    if (format != NULL) {
        q2_json_put(&value, "format", q2_json_text(format, strlen(format)));
    }
    q2_json_put(&value, "leads-away", json_boolean(leads_away(name)));
    q2_json_append(list, q2_json_end(&value));
    q2_json_append(unsafe, json_string(kind));
}

static void put_references(struct q2_json *to, struct q2_json *unsafe, const struct q2_header *h)
{
    struct q2_json list = q2_json_array();

    if (h->backing_file != NULL) {
        put_reference(&list, unsafe, "backing-file", h->backing_file, h->backing_format);
    }
    if (h->data_file != NULL) {
        put_reference(&list, unsafe, "data-file", h->data_file, NULL);
    } else if (h->incompatible & Q2_INCOMPAT_DATA_FILE) {
        q2_json_append(unsafe, json_string("data-file"));
    }
    q2_json_put(to, "references", q2_json_end(&list));
}

static void put_unsafe(struct q2_json *to, struct q2_json *unsafe, const struct look *k)
{
    if (k->h.crypt_method != Q2_CRYPT_NONE) {
        q2_json_append(unsafe, json_string("encryption"));
    }
    if (k->h.incompatible & Q2_INCOMPAT_CORRUPT) {
        q2_json_append(unsafe, json_string("corrupt"));
    }
    if (k->refused != NULL) {
        q2_json_append(unsafe, json_string("refused"));
    }
    q2_json_put(to, "unsafe", q2_json_end(unsafe));
}

/* ---- all ---- */

static void put_shape(struct q2_json *to, const struct q2_header *h)
{
    q2_json_put(to, "version", json_integer(h->version));
    q2_json_put(to, "compat", json_string(h->version >= 3 ? "1.1" : "0.10"));
    q2_json_put(to, "virtual-size", json_u64(h->size_bytes));
    q2_json_put(to, "cluster-size", json_integer((json_int_t)1 << h->cluster_bits));
    q2_json_put(to, "header-bytes", json_integer(h->header_bytes));
    q2_json_put(
        to, "refcount-bits",
        json_integer(h->refcount_order <= Q2_REFCOUNT_ORDER_MAX ? 1 << h->refcount_order : 0));
    q2_json_put(to, "compression-type",
                h->compression_type == Q2_COMPRESSION_ZLIB   ? json_string("zlib")
                : h->compression_type == Q2_COMPRESSION_ZSTD ? json_string("zstd")
                                                             : json_integer(h->compression_type));
    q2_json_put(to, "features", features_value(h));
    q2_json_put(to, "extensions", extensions_value(h));
    q2_json_put(to, "l1-table", table_value(h->l1_offset, "entries", h->l1_entries));
    q2_json_put(to, "refcount-table",
                table_value(h->reftable_offset, "clusters", h->reftable_clusters));
}

static json_t *describe(struct look *k)
{
    struct q2_json value = q2_json_object();
    struct q2_json unsafe = q2_json_array();
    const struct q2_header *h = &k->h;

    put_shape(&value, h);
    q2_json_put(&value, "snapshots", snapshots_value(k));
    if (h->has_bitmaps_ext) {
        q2_json_put(&value, "bitmaps", bitmaps_value(k));
    }
    q2_json_put(&value, "encrypted", json_boolean(h->crypt_method != Q2_CRYPT_NONE));
    if (h->crypt_method == Q2_CRYPT_AES || h->crypt_method == Q2_CRYPT_LUKS) {
        q2_json_put(&value, "encrypt", q2_crypt_info(k->file, h));
    }
    put_references(&value, &unsafe, h);
    if (k->refused != NULL) {
        const char *why = error_get_pretty(k->refused);

        q2_json_put(&value, "refused", q2_json_text(why, strlen(why)));
    }
    put_unsafe(&value, &unsafe, k);
    return q2_json_end(&value);
}

/* The header, as far as it can be understood; k->refused where the driver would not take it. */
static int look_at_header(struct look *k, Error **errp)
{
    uint8_t head[Q2_HEADER_BYTES_V2] = {0}; /* a file that has nothing leaves a buffer as it is */
    size_t bytes = (size_t)min_u64(k->file_bytes, sizeof(head));
    uint8_t *buf;
    int rc = bdrv_edge_pread(k->file, 0, head, bytes);

    bytes = (size_t)min_u64(k->file_bytes, q2_header_wants(head, bytes));
    buf = calloc(1, bytes > 0 ? bytes : 1);
    if (buf == NULL) {
        return error_set(errp, ENOMEM, "out of memory");
    }
    if (rc == 0) {
        rc = bdrv_edge_pread(k->file, 0, buf, bytes);
    }
    if (rc < 0) {
        free(buf);
        return error_set_errno(errp, -rc, "Could not read qcow2 header");
    }
    rc = q2_header_parse(buf, bytes, k->file_bytes, &k->h, &k->refused);
    free(buf);
    if (rc < 0 && (rc == -ENOMEM || k->h.header_bytes == 0)) { /* nothing to describe */
        error_propagate(errp, k->refused);
        k->refused = NULL;
        return rc;
    }
    return 0;
}

json_t *q2_driver_inspect(BdrvEdge *file, Error **errp)
{
    int64_t file_bytes = bdrv_edge_getlength(file);
    struct look k = {.file = file, .file_bytes = (uint64_t)file_bytes};
    json_t *value = NULL;

    if (file_bytes < 0) {
        error_set_errno(errp, (int)-file_bytes, "Could not tell the size of the image file");
        return NULL;
    }
    if (look_at_header(&k, errp) == 0) {
        value = describe(&k);
        if (value == NULL) {
            error_set(errp, ENOMEM, "out of memory");
        }
    }
    q2_header_fini(&k.h);
    error_free(k.refused);
    return value;
}
