/* SPDX-License-Identifier: MIT */
/*
 * What an image stores of its bitmaps, as structs: the header extension, the bitmap directory and
 * the entries of bitmap tables ("Bitmaps" in docs/interop/qcow2.rst). Pure: no I/O, no driver
 * state. Every field is looked at here and nowhere else, but for what needs the content of the
 * file.
 *
 * Refused here is what makes the directory as a whole, or one entry, mean nothing. Extra data is
 * none of that: who uses the entry decides.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "bitmap.h"
#include "qcow2.h"
#include "util/error.h"

#define TABLE_ENTRY_BYTES 8
#define TABLE_ONES UINT64_C(1)

/* ---- the header extension ---- */

int q2_bitmaps_ext_check(const struct q2_header *h, uint64_t file_bytes, Error **errp)
{
    uint64_t cluster_bytes = UINT64_C(1) << h->cluster_bits;

    if (h->bitmap_count == 0) {
        return error_set(errp, EINVAL, "found bitmaps extension with zero bitmaps");
    }
    if (h->bitmap_count > Q2_BITMAPS_MAX) {
        return error_set(errp, EINVAL,
                         "bitmaps_ext: Image has %" PRIu32
                         " bitmaps, exceeding the QEMU supported maximum of %d",
                         h->bitmap_count, Q2_BITMAPS_MAX);
    }
    if (h->bitmap_directory_bytes > Q2_BITMAP_DIRECTORY_BYTES_MAX) {
        return error_set(errp, EINVAL,
                         "bitmaps_ext: bitmap directory size (%" PRIu64
                         ") exceeds the maximum supported size (%" PRIu64 ")",
                         h->bitmap_directory_bytes, Q2_BITMAP_DIRECTORY_BYTES_MAX);
    }
    if (h->bitmap_directory_bytes == 0) {
        return error_set(errp, EINVAL, "Requested bitmap directory size is zero");
    }
    if (!is_aligned(h->bitmap_directory_offset, cluster_bytes)) {
        return error_set(errp, EINVAL, "bitmaps_ext: invalid bitmap directory offset");
    }
    if (h->bitmap_directory_offset == 0 ||
        !range_inside(h->bitmap_directory_offset, h->bitmap_directory_bytes, file_bytes)) {
        return error_set(errp, EINVAL,
                         "Bitmaps extension: the directory at offset 0x%" PRIx64
                         " is not inside the file",
                         h->bitmap_directory_offset);
    }
    return 0;
}

/* ---- parsing the directory ---- */

static uint64_t entry_bytes(uint32_t extra_bytes, size_t name_bytes)
{
    return align_up((uint64_t)Q2_BITMAP_ENTRY_BYTES + extra_bytes + name_bytes, 8);
}

static int broken_directory(uint64_t pos, const char *why, Error **errp)
{
    return error_set(errp, EINVAL, "Broken bitmap directory: entry at byte %" PRIu64 " %s", pos,
                     why);
}

static int entry_copy(const uint8_t *p, size_t name_bytes, struct q2_bitmap_entry *e, Error **errp)
{
    e->name = strndup((const char *)p + Q2_BITMAP_ENTRY_BYTES + e->extra_bytes, name_bytes);
    if (e->extra_bytes > 0) {
        e->extra = malloc(e->extra_bytes);
    }
    if (e->name == NULL || (e->extra_bytes > 0 && e->extra == NULL)) {
        return error_set(errp, ENOMEM, "out of memory for the bitmap directory");
    }
    if (e->extra_bytes > 0) {
        memcpy(e->extra, p + Q2_BITMAP_ENTRY_BYTES, e->extra_bytes);
    }
    return 0;
}

/* The entry at p, of which left bytes may be read; *ret_bytes: its length. */
static int entry_parse(const uint8_t *p, uint64_t left, uint64_t pos, struct q2_bitmap_entry *e,
                       uint64_t *ret_bytes, Error **errp)
{
    size_t name_bytes;

    if (left < Q2_BITMAP_ENTRY_BYTES) {
        return broken_directory(pos, "is cut short", errp);
    }
    *e = (struct q2_bitmap_entry){
        .table_offset = load_be64(p),
        .table_entries = load_be32(p + 8),
        .flags = load_be32(p + 12),
        .type = p[16],
        .granularity_bits = p[17],
        .extra_bytes = load_be32(p + 20),
    };
    name_bytes = load_be16(p + 18);
    if (name_bytes == 0 || name_bytes > Q2_BITMAP_NAME_BYTES_MAX) {
        return broken_directory(pos, "has a name that is empty or too long", errp);
    }
    *ret_bytes = entry_bytes(e->extra_bytes, name_bytes);
    if (*ret_bytes > left) {
        return broken_directory(pos, "reaches past its end", errp);
    }
    if (memchr(p + Q2_BITMAP_ENTRY_BYTES + e->extra_bytes, 0, name_bytes) != NULL) {
        return broken_directory(pos, "has a zero byte in its name", errp);
    }
    return entry_copy(p, name_bytes, e, errp);
}

static int name_order(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int refuse_same_names(const struct q2_bitmap_directory *dir, Error **errp)
{
    const char **names = calloc(dir->count, sizeof(*names));
    int ret = 0;

    if (names == NULL) {
        return error_set(errp, ENOMEM, "out of memory for the bitmap directory");
    }
    for (uint32_t i = 0; i < dir->count; i++) {
        names[i] = dir->entries[i].name;
    }
    qsort(names, dir->count, sizeof(*names), name_order);
    for (uint32_t i = 1; i < dir->count && ret == 0; i++) {
        if (strcmp(names[i - 1], names[i]) == 0) {
            ret = error_set(errp, EINVAL, "Bitmap already exists: %s", names[i]);
        }
    }
    free(names);
    return ret;
}

static int directory_fill(const uint8_t *buf, uint64_t bytes, uint32_t count,
                          struct q2_bitmap_directory *dir, Error **errp)
{
    uint64_t pos = 0;

    while (dir->count < count) {
        uint64_t n = 0;
        int ret;

        if (pos == bytes) {
            return error_set(errp, EINVAL, "Less bitmaps found than specified in header extension");
        }
        ret = entry_parse(buf + pos, bytes - pos, pos, &dir->entries[dir->count], &n, errp);
        dir->count++; /* also a half-made one, for fini */
        if (ret < 0) {
            return ret;
        }
        pos += n;
    }
    if (pos != bytes) {
        return error_set(errp, EINVAL, "More bitmaps found than specified in header extension");
    }
    return 0;
}

int q2_bitmap_directory_parse(const uint8_t *buf, uint64_t bytes, uint32_t count,
                              struct q2_bitmap_directory *ret_dir, Error **errp)
{
    int ret;

    *ret_dir = (struct q2_bitmap_directory){0};
    if (count == 0 || count > Q2_BITMAPS_MAX || count > bytes / Q2_BITMAP_ENTRY_BYTES) {
        return error_set(errp, EINVAL,
                         "Broken bitmap directory: %" PRIu64 " bytes cannot hold %" PRIu32
                         " bitmaps",
                         bytes, count);
    }
    ret_dir->entries = calloc(count, sizeof(*ret_dir->entries));
    if (ret_dir->entries == NULL) {
        return error_set(errp, ENOMEM, "out of memory for the bitmap directory");
    }
    ret = directory_fill(buf, bytes, count, ret_dir, errp);
    return ret < 0 ? ret : refuse_same_names(ret_dir, errp);
}

void q2_bitmap_entry_fini(struct q2_bitmap_entry *e)
{
    free(e->name);
    free(e->extra);
    e->name = NULL;
    e->extra = NULL;
}

void q2_bitmap_directory_fini(struct q2_bitmap_directory *dir)
{
    for (uint32_t i = 0; i < dir->count; i++) {
        q2_bitmap_entry_fini(&dir->entries[i]);
    }
    free(dir->entries);
    *dir = (struct q2_bitmap_directory){0};
}

uint64_t q2_bitmap_entry_bytes(const struct q2_bitmap_entry *e)
{
    return entry_bytes(e->extra_bytes, strlen(e->name));
}

/* ---- what an entry says ---- */

static const char *entry_fault(const struct q2_bitmap_entry *e, const struct q2_geometry *geo)
{
    bool compatible = (e->flags & Q2_BITMAP_EXTRA_COMPATIBLE) != 0;

    if (e->flags & ~(uint32_t)Q2_BITMAP_FLAGS_KNOWN) {
        return "it has reserved flags";
    }
    if (compatible && e->extra_bytes == 0) {
        return "it has a flag for extra data that it has not";
    }
    if (e->type != Q2_BITMAP_TYPE_DIRTY) {
        return "its type is unknown";
    }
    if (e->granularity_bits < Q2_BITMAP_GRANULARITY_BITS_MIN ||
        e->granularity_bits > Q2_BITMAP_GRANULARITY_BITS_MAX) {
        return "its granularity is not supported";
    }
    if (e->table_entries == 0 || e->table_entries > Q2_BITMAP_TABLE_ENTRIES_MAX ||
        e->table_entries > Q2_BITMAP_BYTES_MAX >> geo->cluster_bits) {
        return "its table is empty or too large";
    }
    if (e->table_offset == 0 || !is_aligned(e->table_offset, geo->cluster_bytes) ||
        (e->table_offset & ~Q2_OFFSET_MASK) != 0) {
        return "its table's offset is not valid";
    }
    return NULL;
}

int q2_bitmap_entry_check(const struct q2_bitmap_entry *e, const struct q2_geometry *geo,
                          Error **errp)
{
    const char *fault = entry_fault(e, geo);

    return fault == NULL ? 0
                         : error_set(errp, EINVAL, "Bitmap '%s' is invalid: %s", e->name, fault);
}

uint64_t q2_bitmap_bits(uint64_t disk_bytes, unsigned granularity_bits)
{
    uint64_t whole = disk_bytes >> granularity_bits;

    return whole + ((whole << granularity_bits) != disk_bytes);
}

uint64_t q2_bitmap_table_entries(uint64_t disk_bytes, unsigned granularity_bits,
                                 unsigned cluster_bits)
{
    return q2_bitmap_bits(q2_bitmap_bits(disk_bytes, granularity_bits), cluster_bits + 3);
}

int q2_bitmap_table_decode(const struct q2_geometry *geo, uint64_t raw, uint64_t *ret_offset)
{
    uint64_t offset = raw & Q2_OFFSET_MASK;

    if ((raw & Q2_BITMAP_TABLE_RESERVED) != 0 || !is_aligned(offset, geo->cluster_bytes) ||
        (offset != 0 && (raw & TABLE_ONES) != 0)) {
        return -EINVAL;
    }
    *ret_offset = offset != 0 ? offset : raw & TABLE_ONES ? Q2_BITMAP_ONES : Q2_BITMAP_ZEROES;
    return 0;
}

/* ---- building the directory ---- */

static uint64_t directory_bytes(const struct q2_bitmap_directory *dir)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < dir->count; i++) {
        bytes += q2_bitmap_entry_bytes(&dir->entries[i]);
    }
    return bytes;
}

static uint64_t entry_build(const struct q2_bitmap_entry *e, uint8_t *p)
{
    size_t name_bytes = strlen(e->name);

    store_be64(p, e->table_offset);
    store_be32(p + 8, e->table_entries);
    store_be32(p + 12, e->flags);
    p[16] = e->type;
    p[17] = e->granularity_bits;
    store_be16(p + 18, (uint16_t)name_bytes);
    store_be32(p + 20, e->extra_bytes);
    if (e->extra_bytes > 0) {
        memcpy(p + Q2_BITMAP_ENTRY_BYTES, e->extra, e->extra_bytes);
    }
    memcpy(p + Q2_BITMAP_ENTRY_BYTES + e->extra_bytes, e->name, name_bytes);
    return entry_bytes(e->extra_bytes, name_bytes);
}

int q2_bitmap_directory_build(const struct q2_bitmap_directory *dir, uint8_t **ret_buf,
                              uint64_t *ret_bytes, Error **errp)
{
    uint64_t bytes = directory_bytes(dir);
    uint64_t pos = 0;
    uint8_t *buf;

    if (dir->count == 0 || dir->count > Q2_BITMAPS_MAX || bytes > Q2_BITMAP_DIRECTORY_BYTES_MAX) {
        return error_set(errp, EFBIG, "%" PRIu32 " bitmaps do not fit into an image", dir->count);
    }
    buf = calloc(1, bytes);
    if (buf == NULL) {
        return error_set(errp, ENOMEM, "out of memory for the bitmap directory");
    }
    for (uint32_t i = 0; i < dir->count; i++) {
        pos += entry_build(&dir->entries[i], buf + pos);
    }
    *ret_buf = buf;
    *ret_bytes = bytes;
    return 0;
}
