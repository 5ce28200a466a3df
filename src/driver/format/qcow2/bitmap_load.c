/* SPDX-License-Identifier: MIT */
/*
 * Bitmaps from the image. A directory that is broken refuses the image, as the reference does; one
 * bitmap whose table or data cannot be used enters the node as inconsistent, and nothing of it is
 * believed. An error of the storage refuses the image too: it is no damage, and a bitmap that is
 * good must not be lost over it.
 *
 * Each cluster of a bitmap is claimed once. One whose clusters lie outside the file, are other
 * metadata or another bitmap's is damaged: they are not freed with it, for they may be somebody
 * else's. What is not believed is flagged as in use when the directory is written next. So work and
 * memory are bounded by the file, too.
 */
#include <errno.h>
#include <stdlib.h>

#include "bitmap.h"
#include "bitmap_int.h"
#include "overlap.h"
#include "util/bitmap.h"
#include "util/error.h"

#define TABLE_CHUNK_BYTES 65536

static int no_memory(Error **errp)
{
    return error_set(errp, ENOMEM, "out of memory for bitmaps");
}

/* ---- the directory ---- */

static int directory_check(const struct q2_bitmap_directory *dir, const struct q2_geometry *geo,
                           Error **errp)
{
    int ret = 0;

    for (uint32_t i = 0; i < dir->count && ret == 0; i++) {
        ret = q2_bitmap_entry_check(&dir->entries[i], geo, errp);
    }
    return ret;
}

int q2_bitmap_directory_read(struct qcow2 *s, struct q2_bitmap_directory *ret_dir, Error **errp)
{
    const struct q2_header *h = &s->header;
    int64_t file_bytes = bdrv_edge_getlength(s->file);
    uint8_t *buf;
    int ret;

    *ret_dir = (struct q2_bitmap_directory){0};
    if (file_bytes < 0) {
        return error_set_errno(errp, (int)-file_bytes, "Could not learn the image file's size");
    }
    ret = q2_bitmaps_ext_check(h, (uint64_t)file_bytes, errp);
    if (ret < 0) {
        return ret;
    }
    buf = bdrv_buffer_alloc(s->bs, h->bitmap_directory_bytes);
    if (buf == NULL) {
        return no_memory(errp);
    }
    ret = bdrv_edge_pread(s->file, h->bitmap_directory_offset, buf, h->bitmap_directory_bytes);
    if (ret < 0) {
        error_set_errno(errp, -ret, "Could not read the bitmap directory");
    } else {
        ret = q2_bitmap_directory_parse(buf, h->bitmap_directory_bytes, h->bitmap_count, ret_dir,
                                        errp);
    }
    bdrv_buffer_free(s->bs, buf, h->bitmap_directory_bytes);
    return ret < 0 ? ret : directory_check(ret_dir, &s->geo, errp);
}

/* ---- a bitmap's clusters ---- */

bool q2_bitmap_range_ok(struct qcow2 *s, uint64_t offset, uint64_t bytes, uint64_t file_bytes)
{
    return range_inside(offset, bytes, file_bytes) &&
           q2_overlap_find(s, Q2_OL_CACHED, offset, bytes) == 0;
}

static int each_in_chunk(struct qcow2 *s, const uint8_t *chunk, uint32_t first, uint32_t count,
                         int (*visit)(void *opaque, uint32_t index, uint64_t offset), void *opaque)
{
    for (uint32_t i = 0; i < count; i++) {
        uint64_t offset;
        int ret = q2_bitmap_table_decode(&s->geo, load_be64(chunk + (size_t)i * 8), &offset);

        if (ret == 0 && offset != Q2_BITMAP_ZEROES) {
            ret = visit(opaque, first + i, offset);
        }
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

int q2_bitmap_each_cluster(struct qcow2 *s, const struct q2_bitmap_entry *e,
                           int (*visit)(void *opaque, uint32_t index, uint64_t offset),
                           void *opaque)
{
    uint8_t *chunk = bdrv_buffer_alloc(s->bs, TABLE_CHUNK_BYTES);
    uint32_t first = 0;
    int ret = chunk == NULL ? -ENOMEM : 0;

    while (ret == 0 && first < e->table_entries) {
        uint32_t count = (uint32_t)min_u64(e->table_entries - first, TABLE_CHUNK_BYTES / 8);

        ret = bdrv_edge_pread(s->file, e->table_offset + (uint64_t)first * 8, chunk,
                              (size_t)count * 8);
        if (ret == 0) {
            ret = each_in_chunk(s, chunk, first, count, visit, opaque);
        }
        first += count;
    }
    bdrv_buffer_free(s->bs, chunk, TABLE_CHUNK_BYTES);
    return ret;
}

/* ---- its bits ---- */

struct load {
    struct qcow2 *s;
    struct bitmap claimed; /* clusters of the file that are some bitmap's */
    bool shared;           /* two wanted the same one */
    uint64_t file_bytes;
    uint8_t *buf; /* a cluster */
    /* of the bitmap at hand */
    BdrvDirtyBitmap *bitmap;
    uint64_t bits;
    bool reads; /* its bits are wanted */
};

/* Clusters of its own, which are nothing else: 0 or -EINVAL. */
static int claim(struct load *l, uint64_t offset, uint64_t bytes)
{
    unsigned shift = l->s->geo.cluster_bits;
    uint64_t first = offset >> shift;
    uint64_t count = ((offset + bytes - 1) >> shift) - first + 1;
    uint64_t taken;

    if (!q2_bitmap_range_ok(l->s, offset, bytes, l->file_bytes)) {
        return -EINVAL;
    }
    if (bitmap_next_set(&l->claimed, first, first + count, &taken)) {
        l->shared = true;
        return -EINVAL;
    }
    bitmap_set(&l->claimed, first, count);
    return 0;
}

static int read_cluster(struct load *l, uint64_t first, uint64_t bits, uint64_t offset)
{
    int ret;

    if (offset == Q2_BITMAP_ONES) {
        bdrv_bitmap_import(l->bitmap, first, bits, NULL);
        return 0;
    }
    ret = bdrv_edge_pread(l->s->file, offset, l->buf, (size_t)((bits + 7) / 8));
    if (ret == 0) {
        bdrv_bitmap_import(l->bitmap, first, bits, l->buf);
    }
    return ret;
}

static int load_cluster(void *opaque, uint32_t index, uint64_t offset)
{
    struct load *l = opaque;
    uint64_t per_cluster = (uint64_t)l->s->geo.cluster_bytes * 8;
    uint64_t first = index * per_cluster;
    uint64_t bits = l->reads ? min_u64(l->bits - first, per_cluster) : 1;
    int ret = offset == Q2_BITMAP_ONES ? 0 : claim(l, offset, (bits + 7) / 8);

    return ret == 0 && l->reads ? read_cluster(l, first, bits, offset) : ret;
}

static int load_table(struct load *l, const struct q2_bitmap_entry *e)
{
    int ret = claim(l, e->table_offset, (uint64_t)e->table_entries * 8);

    return ret == 0 ? q2_bitmap_each_cluster(l->s, e, load_cluster, l) : ret;
}

bool q2_bitmap_may_use(const struct q2_bitmap_entry *e)
{
    return !(e->flags & Q2_BITMAP_IN_USE) &&
           (e->extra_bytes == 0 || (e->flags & Q2_BITMAP_EXTRA_COMPATIBLE));
}

static unsigned entry_state(const struct q2_bitmap_entry *e)
{
    unsigned state = 0;

    state |= e->flags & Q2_BITMAP_IN_USE ? BDRV_BITMAP_STATE_IN_USE : 0;
    state |= e->flags & Q2_BITMAP_AUTO ? BDRV_BITMAP_STATE_RECORDING : 0;
    state |= q2_bitmap_may_use(e) ? 0 : BDRV_BITMAP_STATE_INCONSISTENT;
    return state;
}

static int load_one(struct load *l, struct q2_bitmap_entry *e, Error **errp)
{
    struct qcow2 *s = l->s;
    uint64_t disk_bytes = q2_disk_bytes(s);
    bool fits = e->table_entries ==
                q2_bitmap_table_entries(disk_bytes, e->granularity_bits, s->geo.cluster_bits);
    int ret;

    l->bitmap = bdrv_bitmap_load(s->bs, e->name, e->granularity_bits, entry_state(e), errp);
    if (l->bitmap == NULL) {
        return -ENOMEM;
    }
    l->bits = q2_bitmap_bits(disk_bytes, e->granularity_bits);
    l->reads = fits && q2_bitmap_may_use(e);
    ret = load_table(l, e);
    if (ret < 0 && ret != -EINVAL && (l->reads || ret == -ENOMEM)) {
        return error_set_errno(errp, -ret, "Could not read bitmap '%s'", e->name);
    }
    e->damaged = ret < 0;
    if (e->damaged || !l->reads) {
        bdrv_bitmap_set_inconsistent(l->bitmap);
    }
    return 0;
}

int q2_bitmaps_load(struct qcow2 *s, struct q2_bitmap_directory *dir, Error **errp)
{
    struct load l = {.s = s};
    int64_t file_bytes = bdrv_edge_getlength(s->file);
    int ret = 0;

    if (file_bytes < 0) {
        return error_set_errno(errp, (int)-file_bytes, "Could not learn the image file's size");
    }
    l.file_bytes = (uint64_t)file_bytes;
    l.buf = bdrv_buffer_alloc(s->bs, s->geo.cluster_bytes);
    if (l.buf == NULL) {
        return no_memory(errp);
    }
    bitmap_init(&l.claimed, NULL); /* a bit for a cluster of the file at most */
    for (uint32_t i = 0; i < dir->count && ret == 0; i++) {
        ret = load_one(&l, &dir->entries[i], errp);
    }
    for (uint32_t i = 0; i < dir->count && l.shared; i++) {
        dir->entries[i].damaged = true; /* also the one that claimed it first */
    }
    bitmap_fini(&l.claimed);
    bdrv_buffer_free(s->bs, l.buf, s->geo.cluster_bytes);
    return ret;
}
