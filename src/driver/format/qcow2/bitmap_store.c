/* SPDX-License-Identifier: MIT */
/*
 * Bitmaps to the image. A new directory is written beside the old one, with new tables and data of
 * the bitmaps that changed; the rest keep theirs.
 *
 *   1  data, table, for each bitmap that changed; the directory: all in new clusters
 *   2  commit and flush: they and their refcounts are durable (W1, W2)
 *   3  the header's extension refers to the new directory (W6)
 *   4  what only the old directory referred to is freed (W4)
 *
 * What fails before 3 leaves the image as it was, with IN_USE set in every entry whose bitmap had
 * become old. When 3 fails, either directory may be the image's: nothing is freed, and the header
 * is written again before anything changes (header_unsure).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bitmap.h"
#include "bitmap_int.h"
#include "overlap.h"
#include "tree.h"
#include "util/error.h"

struct run {
    uint64_t offset;
    uint64_t bytes;
};

struct store {
    struct qcow2 *s;
    const BdrvDirtyBitmap *without; /* to be removed, or NULL */
    struct q2_bitmap_directory dir; /* the new one */
    bool *replaced;                 /* by old entry: its table is not used any more */
    bool changed;                   /* the new one is not as the old one */
    uint64_t dir_offset;            /* 0: no bitmap is left */
    uint64_t dir_bytes;
    struct run *fresh; /* clusters that were allocated for all this */
    size_t fresh_count;
    size_t fresh_room;
    uint8_t *buf; /* a cluster */
};

static int no_memory(Error **errp)
{
    return error_set(errp, ENOMEM, "out of memory for bitmaps");
}

/* ---- new clusters ---- */

static int fresh_note(struct store *st, uint64_t offset, uint64_t bytes)
{
    struct run *last = st->fresh_count > 0 ? &st->fresh[st->fresh_count - 1] : NULL;

    if (last != NULL && last->offset + last->bytes == offset) {
        last->bytes += bytes;
        return 0;
    }
    if (st->fresh_count == st->fresh_room) {
        size_t room = st->fresh_room > 0 ? 2 * st->fresh_room : 16;
        struct run *more = realloc(st->fresh, room * sizeof(*more));

        if (more == NULL) {
            return -ENOMEM;
        }
        st->fresh = more;
        st->fresh_room = room;
    }
    st->fresh[st->fresh_count++] = (struct run){.offset = offset, .bytes = bytes};
    return 0;
}

/* Write bytes to new clusters that hold them. */
static int put_co(struct store *st, const void *bytes, uint64_t count, uint64_t *ret_offset)
{
    struct qcow2 *s = st->s;
    uint64_t clusters = align_up(count, s->geo.cluster_bytes) >> s->geo.cluster_bits;
    uint64_t offset;
    int ret = q2_alloc_clusters_co(s, clusters, &offset);

    if (ret < 0) {
        return ret;
    }
    ret = fresh_note(st, offset, clusters << s->geo.cluster_bits);
    if (ret < 0) {
        q2_unalloc_co(s, offset, clusters << s->geo.cluster_bits);
        return ret;
    }
    ret = q2_overlap_check_co(s, Q2_OL_NONE, offset, count);
    if (ret == 0) {
        ret = bdrv_edge_write_co(s->file, offset, bytes, count, 0);
    }
    *ret_offset = offset;
    return ret;
}

static void give_back_co(struct store *st)
{
    for (size_t i = 0; i < st->fresh_count; i++) {
        q2_unalloc_co(st->s, st->fresh[i].offset, st->fresh[i].bytes);
    }
    st->fresh_count = 0;
}

/* ---- step 1 ---- */

/* table: big endian. */
static int put_data_co(struct store *st, const BdrvDirtyBitmap *bitmap, uint64_t bits,
                       uint64_t *table, uint32_t entries)
{
    struct qcow2 *s = st->s;
    uint64_t per_cluster = (uint64_t)s->geo.cluster_bytes * 8;
    int ret = 0;

    for (uint32_t i = 0; i < entries && ret == 0; i++) {
        uint64_t first = i * per_cluster;
        uint64_t n = min_u64(bits - first, per_cluster);
        uint64_t offset = 0;

        if (!bdrv_bitmap_is_clear(bitmap, first, n)) {
            memset(st->buf, 0, s->geo.cluster_bytes);
            bdrv_bitmap_export(bitmap, first, n, st->buf);
            ret = put_co(st, st->buf, s->geo.cluster_bytes, &offset);
        }
        store_be64(&table[i], offset);
    }
    return ret;
}

static int put_bitmap_co(struct store *st, const BdrvDirtyBitmap *bitmap, struct q2_bitmap_entry *e)
{
    struct qcow2 *s = st->s;
    uint64_t disk_bytes = q2_disk_bytes(s);
    uint64_t bits = q2_bitmap_bits(disk_bytes, e->granularity_bits);
    uint64_t entries =
        q2_bitmap_table_entries(disk_bytes, e->granularity_bits, s->geo.cluster_bits);
    uint64_t *table;
    int ret;

    if (entries == 0 || bits / 8 > Q2_BITMAP_BYTES_MAX) {
        return -EFBIG; /* can_resize was not asked */
    }
    table = calloc(entries, sizeof(*table));
    if (table == NULL) {
        return -ENOMEM;
    }
    ret = put_data_co(st, bitmap, bits, table, (uint32_t)entries);
    if (ret == 0) {
        ret = put_co(st, table, entries * sizeof(*table), &e->table_offset);
    }
    e->table_entries = (uint32_t)entries;
    free(table);
    return ret;
}

static int entry_copy(const struct q2_bitmap_entry *from, struct q2_bitmap_entry *to)
{
    *to = *from;
    to->name = strdup(from->name);
    to->extra = NULL;
    if (from->extra_bytes > 0) {
        to->extra = malloc(from->extra_bytes);
        if (to->extra != NULL) {
            memcpy(to->extra, from->extra, from->extra_bytes);
        }
    }
    if (to->name == NULL || (from->extra_bytes > 0 && to->extra == NULL)) {
        q2_bitmap_entry_fini(to);
        return -ENOMEM;
    }
    return 0;
}

static int entry_new(const BdrvDirtyBitmap *bitmap, struct q2_bitmap_entry *e)
{
    struct bdrv_bitmap_info info;

    bdrv_bitmap_get_info(bitmap, &info);
    *e = (struct q2_bitmap_entry){
        .type = Q2_BITMAP_TYPE_DIRTY,
        .granularity_bits = (uint8_t)__builtin_ctzll(info.granularity_bytes),
        .name = strdup(info.name),
    };
    return e->name == NULL ? -ENOMEM : 0;
}

/* The entry of a bitmap in the new directory. old: its entry in the old one, or NULL. */
static int put_entry_co(struct store *st, const BdrvDirtyBitmap *bitmap,
                        const struct q2_bitmap_entry *old, bool *ret_replaced)
{
    struct q2_bitmap_entry *e = &st->dir.entries[st->dir.count];
    unsigned state = bdrv_bitmap_state(bitmap);
    uint32_t flags;
    int ret;

    if (st->without != NULL && old == NULL) {
        return 0;
    }
    ret = old != NULL ? entry_copy(old, e) : entry_new(bitmap, e);
    if (ret < 0) {
        return ret;
    }
    st->dir.count++;
    if (state & BDRV_BITMAP_STATE_INCONSISTENT) {
        e->flags |= q2_bitmap_may_use(e) ? Q2_BITMAP_IN_USE : 0; /* its content is not believed */
        return 0;
    }
    if (st->without != NULL) {
        return 0; /* as it is, whatever became of it since */
    }
    if (old == NULL || (state & (BDRV_BITMAP_STATE_IN_USE | BDRV_BITMAP_STATE_CHANGED))) {
        *ret_replaced = true;
        st->changed = true;
        ret = put_bitmap_co(st, bitmap, e);
    }
    flags = e->flags & Q2_BITMAP_EXTRA_COMPATIBLE;
    flags |= state & BDRV_BITMAP_STATE_RECORDING ? Q2_BITMAP_AUTO : 0;
    if (e->flags != flags) {
        e->flags = flags;
        st->changed = true;
    }
    return ret;
}

static int put_entries_co(struct store *st)
{
    struct qcow2 *s = st->s;
    uint32_t i = 0; /* of the old directory */
    BdrvDirtyBitmap *bitmap = NULL;
    int ret = 0;

    while (ret == 0 && (bitmap = bdrv_bitmap_next(s->bs, bitmap)) != NULL) {
        unsigned state = bdrv_bitmap_state(bitmap);
        const struct q2_bitmap_entry *old = NULL;
        bool replaced = false;

        if (!(state & BDRV_BITMAP_STATE_PERSISTENT)) {
            continue;
        }
        if (state & BDRV_BITMAP_STATE_STORED) {
            old = &s->bitmaps->dir.entries[i];
        }
        if (bitmap == st->without) {
            replaced = true;
            st->changed = old != NULL;
        } else {
            ret = put_entry_co(st, bitmap, old, &replaced);
        }
        if (old != NULL) {
            st->replaced[i++] = replaced;
        }
    }
    return ret;
}

static int put_directory_co(struct store *st, Error **errp)
{
    uint8_t *dir;
    int ret;

    if (st->dir.count == 0) {
        return 0;
    }
    ret = q2_bitmap_directory_build(&st->dir, &dir, &st->dir_bytes, errp);
    if (ret < 0) {
        return ret;
    }
    ret = put_co(st, dir, st->dir_bytes, &st->dir_offset);
    free(dir);
    if (ret == 0) {
        ret = q2_overlap_add_range(st->s, Q2_OL_BITMAP_DIRECTORY, st->dir_offset, st->dir_bytes);
    }
    return ret == 0 ? 0 : error_set_errno(errp, -ret, "Could not write the bitmap directory");
}

/* ---- step 3 ---- */

static void header_set(struct q2_header *h, uint32_t count, uint64_t offset, uint64_t bytes)
{
    h->has_bitmaps_ext = count > 0;
    h->bitmap_count = count;
    h->bitmap_directory_offset = offset;
    h->bitmap_directory_bytes = bytes;
    if (count > 0) {
        h->autoclear |= Q2_AUTOCLEAR_BITMAPS;
    } else {
        h->autoclear &= ~(uint64_t)Q2_AUTOCLEAR_BITMAPS;
    }
}

static int switch_header_co(struct store *st, Error **errp)
{
    struct qcow2 *s = st->s;
    struct q2_header *h = &s->header;
    uint32_t count = h->has_bitmaps_ext ? h->bitmap_count : 0;
    uint64_t offset = h->bitmap_directory_offset;
    uint64_t bytes = h->bitmap_directory_bytes;
    int ret;

    header_set(h, st->dir.count, st->dir_offset, st->dir_bytes);
    ret = q2_header_write_co(s, errp);
    if (ret < 0) {
        header_set(h, count, offset, bytes);
    }
    return ret;
}

int q2_bitmaps_settle_header_co(struct qcow2 *s, Error **errp)
{
    int ret = 0;

    if (s->bitmaps != NULL && s->bitmaps->header_unsure) {
        ret = q2_header_write_co(s, errp);
        s->bitmaps->header_unsure = ret < 0;
    }
    return ret;
}

/* ---- step 4 ---- */

struct freeing {
    struct qcow2 *s;
    uint64_t file_bytes;
};

static int free_cluster(void *opaque, uint32_t index, uint64_t offset)
{
    struct freeing *f = opaque;

    if (offset != Q2_BITMAP_ONES &&
        q2_bitmap_range_ok(f->s, offset, 1, align_up(f->file_bytes, f->s->geo.cluster_bytes))) {
        q2_free_later(f->s, offset, f->s->geo.cluster_bytes, Q2_DISCARD_OTHER);
    }
    return 0;
}

/* As far as its table can be believed; the rest leaks until a check, or a
 * repair by the next operation. */
static void free_bitmap_co(struct freeing *f, const struct q2_bitmap_entry *e)
{
    uint64_t bytes = (uint64_t)e->table_entries * 8;

    if (!e->damaged && q2_bitmap_range_ok(f->s, e->table_offset, bytes, f->file_bytes)) {
        q2_stays_stale(f->s, q2_bitmap_each_cluster(f->s, e, free_cluster, f));
        q2_free_later(f->s, e->table_offset, align_up(bytes, f->s->geo.cluster_bytes),
                      Q2_DISCARD_OTHER);
    }
}

static void free_old_co(struct store *st, uint64_t old_offset, uint64_t old_bytes)
{
    struct qcow2 *s = st->s;
    int64_t file_bytes = bdrv_edge_getlength(s->file);
    struct freeing f = {.s = s, .file_bytes = file_bytes > 0 ? (uint64_t)file_bytes : 0};
    uint32_t count = s->bitmaps != NULL ? s->bitmaps->dir.count : 0;

    q2_stays_stale(s, file_bytes < 0 ? -1 : 0);
    for (uint32_t i = 0; i < count; i++) {
        if (st->replaced[i]) {
            free_bitmap_co(&f, &s->bitmaps->dir.entries[i]);
        }
    }
    if (count > 0) {
        q2_overlap_del_range(s, Q2_OL_BITMAP_DIRECTORY, old_offset, old_bytes);
        q2_free_later(s, old_offset, align_up(old_bytes, s->geo.cluster_bytes), Q2_DISCARD_OTHER);
    }
}

/* ---- all of it ---- */

static uint32_t persistent_count(BlockDriverState *bs)
{
    BdrvDirtyBitmap *bitmap = NULL;
    uint32_t count = 0;

    while ((bitmap = bdrv_bitmap_next(bs, bitmap)) != NULL) {
        count += (bdrv_bitmap_state(bitmap) & BDRV_BITMAP_STATE_PERSISTENT) != 0;
    }
    return count;
}

static int store_begin(struct store *st, Error **errp)
{
    struct qcow2 *s = st->s;
    uint32_t old = s->bitmaps != NULL ? s->bitmaps->dir.count : 0;

    st->dir.entries = calloc(persistent_count(s->bs) + 1, sizeof(*st->dir.entries));
    st->replaced = calloc(old + 1, sizeof(*st->replaced));
    st->buf = bdrv_buffer_alloc(s->bs, s->geo.cluster_bytes);
    if (st->dir.entries == NULL || st->replaced == NULL || st->buf == NULL) {
        return no_memory(errp);
    }
    if (s->bitmaps == NULL) {
        s->bitmaps = calloc(1, sizeof(*s->bitmaps));
        if (s->bitmaps == NULL) {
            return no_memory(errp);
        }
    }
    return 0;
}

static void store_end(struct store *st)
{
    q2_bitmap_directory_fini(&st->dir);
    free(st->replaced);
    free(st->fresh);
    bdrv_buffer_free(st->s->bs, st->buf, st->s->geo.cluster_bytes);
}

/* Steps 1 and 2. */
static int write_new_co(struct store *st, Error **errp)
{
    int ret = put_entries_co(st);

    if (ret < 0) {
        return error_set_errno(errp, -ret, "Could not write a bitmap");
    }
    if (!st->changed) {
        return 0;
    }
    if (st->s->geo.version < 3) {
        return error_set(errp, ENOTSUP, "Cannot store dirty bitmaps in qcow2 v2 files");
    }
    ret = put_directory_co(st, errp);
    if (ret < 0) {
        return ret;
    }
    ret = q2_commit_co(st->s, true);
    return ret == 0 ? 0 : error_set_errno(errp, -ret, "Could not make bitmaps durable");
}

static void forget_new_co(struct store *st)
{
    if (st->dir_offset != 0) {
        q2_overlap_del_range(st->s, Q2_OL_BITMAP_DIRECTORY, st->dir_offset, st->dir_bytes);
    }
    give_back_co(st);
}

static int write_co(struct store *st, Error **errp)
{
    struct qcow2 *s = st->s;
    uint64_t old_offset = s->header.bitmap_directory_offset;
    uint64_t old_bytes = s->header.bitmap_directory_bytes;
    struct q2_bitmap_directory old;
    int ret = write_new_co(st, errp);

    if (ret < 0 || !st->changed) {
        forget_new_co(st);
        return ret;
    }
    ret = switch_header_co(st, errp);
    if (ret < 0) {
        s->bitmaps->header_unsure = true;
        bdrv_bitmaps_flag_again(s->bs); /* not even what is flagged in the old one is safe */
        return ret;
    }
    free_old_co(st, old_offset, old_bytes);
    old = s->bitmaps->dir;
    s->bitmaps->dir = st->dir;
    st->dir = old;
    return 0;
}

int q2_bitmaps_write_co(struct qcow2 *s, const BdrvDirtyBitmap *without, bool *ret_done,
                        Error **errp)
{
    struct store st = {.s = s, .without = without};
    int ret = q2_bitmaps_settle_header_co(s, errp);

    *ret_done = false;
    if (ret < 0) {
        return ret;
    }
    ret = store_begin(&st, errp);
    if (ret == 0) {
        ret = write_co(&st, errp);
    }
    q2_stays_stale(s, ret); /* the new ones, where the header may name them, and what is unread */
    *ret_done = ret == 0 && st.changed;
    store_end(&st);
    return ret;
}
