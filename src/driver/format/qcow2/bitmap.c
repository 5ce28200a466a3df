/* SPDX-License-Identifier: MIT */
/*
 * Persistent dirty bitmaps of an image: when they are read, flagged, stored and removed.
 * bitmap_load.c reads, bitmap_store.c writes, bitmap_directory.c knows the bytes.
 *
 * Invariants
 *  P1 an entry without IN_USE in the file describes the bitmap as it was when the disk was as it is
 *     now: before the disk changes, the flag is durable (flag_co), in place, in the one sector that
 *     holds it; a store writes a new directory, tables and data beside the old ones, and the
 *     header's extension switches to them last (W6).
 *  P2 bitmaps of an image whose autoclear bit 0 is clear are not believed, and the header names
 *     them no more once it is written, which an open for writing does: who wrote the image last
 *     did not know of them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bitmap.h"
#include "bitmap_int.h"
#include "overlap.h"
#include "util/error.h"
#include "util/json.h"

#define SECTOR 512

struct store_args {
    struct qcow2 *s;
    Error **errp;
};

BdrvDirtyBitmap *q2_bitmap_next_stored(BlockDriverState *bs, BdrvDirtyBitmap *bitmap)
{
    do {
        bitmap = bdrv_bitmap_next(bs, bitmap);
    } while (bitmap != NULL && !(bdrv_bitmap_state(bitmap) & BDRV_BITMAP_STATE_STORED));
    return bitmap;
}

/* ---- open and close ---- */

static int read_all(struct qcow2 *s, struct q2_bitmaps *b, Error **errp)
{
    int flags = bdrv_open_flags(s->bs);
    bool looks_only = (flags & BDRV_O_NO_IO) && !(flags & BDRV_O_RDWR);
    Error *err = NULL;
    int ret = q2_bitmap_directory_read(s, &b->dir, &err);

    b->unread = looks_only || (flags & BDRV_O_CHECK);
    if (ret == 0 && !b->unread) {
        ret = q2_bitmaps_load(s, &b->dir, &err);
    }
    if (ret < 0 && (flags & BDRV_O_CHECK)) {
        q2_bitmap_directory_fini(&b->dir);
        error_free(err);
        return 0;
    }
    error_propagate(errp, err);
    return ret;
}

static int header_write_co(void *opaque)
{
    const struct store_args *args = opaque;

    return q2_header_write_co(args->s, args->errp);
}

/* P2. A check is to see what is there; it drops them when it repairs. */
static int drop_stale(struct qcow2 *s, Error **errp)
{
    struct store_args args = {s, errp};
    int flags = bdrv_open_flags(s->bs);

    s->header.has_bitmaps_ext = false;
    s->names_bitmaps = (flags & BDRV_O_CHECK) != 0;
    bdrv_image_warning(s->bs,
                       "a program lacking bitmap support modified this file, so all bitmaps are "
                       "now considered inconsistent",
                       true);
    return (flags & BDRV_O_RDWR) && !(flags & BDRV_O_CHECK) ? bdrv_run_co(header_write_co, &args)
                                                            : 0;
}

int q2_bitmaps_open(struct qcow2 *s, Error **errp)
{
    struct q2_bitmaps *b;
    int ret;

    if (!s->header.has_bitmaps_ext) {
        return 0;
    }
    if (!(s->header.autoclear & Q2_AUTOCLEAR_BITMAPS)) {
        return drop_stale(s, errp);
    }
    b = calloc(1, sizeof(*b));
    if (b == NULL) {
        return error_set(errp, ENOMEM, "out of memory for bitmaps");
    }
    ret = read_all(s, b, errp);
    if (ret < 0) {
        q2_bitmap_directory_fini(&b->dir);
        free(b);
        return ret;
    }
    s->bitmaps = b;
    return 0;
}

void q2_bitmaps_fini(struct qcow2 *s)
{
    if (s->bitmaps != NULL) {
        q2_bitmap_directory_fini(&s->bitmaps->dir);
        free(s->bitmaps);
        s->bitmaps = NULL;
    }
}

/* ---- flagging (P1) ---- */

/* Also one that was disabled since, as long as the image says that it records. */
static bool must_flag(const BdrvDirtyBitmap *bitmap, const struct q2_bitmap_entry *e, bool all)
{
    unsigned state = bdrv_bitmap_state(bitmap);

    return !(state & BDRV_BITMAP_STATE_IN_USE) &&
           (all || (state & BDRV_BITMAP_STATE_RECORDING) || (e->flags & Q2_BITMAP_AUTO));
}

/* Flag in memory, or take it back; the part of the directory that holds the flags changed. */
static void set_flags(struct qcow2 *s, bool all, bool in_use, uint64_t *ret_from, uint64_t *ret_to)
{
    struct q2_bitmap_directory *dir = &s->bitmaps->dir;
    BdrvDirtyBitmap *bitmap = q2_bitmap_next_stored(s->bs, NULL);
    uint64_t pos = 0;

    *ret_from = UINT64_MAX;
    *ret_to = 0;
    for (uint32_t i = 0; i < dir->count && bitmap != NULL; i++) {
        struct q2_bitmap_entry *e = &dir->entries[i];

        if (must_flag(bitmap, e, all)) {
            e->flags =
                in_use ? e->flags | Q2_BITMAP_IN_USE : e->flags & ~(uint32_t)Q2_BITMAP_IN_USE;
            *ret_from = min_u64(*ret_from, pos);
            *ret_to = pos + Q2_BITMAP_ENTRY_BYTES;
        }
        pos += q2_bitmap_entry_bytes(e);
        bitmap = q2_bitmap_next_stored(s->bs, bitmap);
    }
}

/* [from, to) of the directory, in whole sectors. What is written over bytes that stay the same
 * cannot be torn. */
static int write_part_co(struct qcow2 *s, uint64_t from, uint64_t to)
{
    uint64_t offset = s->header.bitmap_directory_offset;
    uint64_t bytes;
    uint8_t *dir;
    int ret = q2_bitmap_directory_build(&s->bitmaps->dir, &dir, &bytes, NULL);

    if (ret < 0) {
        return ret;
    }
    from = align_down(from, SECTOR);
    to = min_u64(align_up(to, SECTOR), bytes);
    ret = q2_overlap_check_co(s, Q2_OL_BITMAP_DIRECTORY, offset + from, to - from);
    if (ret == 0) {
        ret = bdrv_edge_write_co(s->file, offset + from, dir + from, to - from, 0);
    }
    free(dir);
    return ret < 0 ? ret : bdrv_edge_flush_co(s->file);
}

static int flag_co(BlockDriverState *bs, bool all)
{
    struct qcow2 *s = q2_of(bs);
    BdrvDirtyBitmap *bitmap = NULL;
    uint64_t from;
    uint64_t to;
    int ret;

    if (s->bitmaps == NULL) {
        return 0;
    }
    ret = q2_bitmaps_settle_header_co(s, NULL);
    if (ret < 0) {
        return ret;
    }
    set_flags(s, all, true, &from, &to);
    if (from >= to) {
        return 0;
    }
    ret = write_part_co(s, from, to);
    if (ret < 0) {
        set_flags(s, all, false, &from, &to); /* and so it is tried again */
        return ret;
    }
    for (uint32_t i = 0; (bitmap = q2_bitmap_next_stored(bs, bitmap)) != NULL; i++) {
        if (s->bitmaps->dir.entries[i].flags & Q2_BITMAP_IN_USE) {
            bdrv_bitmap_set_in_use(bitmap);
        }
    }
    return 0;
}

/* ---- storing ---- */

static int check_size(uint64_t disk_bytes, uint64_t granularity_bytes, Error **errp)
{
    uint64_t bits = q2_bitmap_bits(disk_bytes, (unsigned)__builtin_ctzll(granularity_bytes));

    if (bits == 0) {
        return error_set(errp, EINVAL, "A disk of no bytes has no bitmaps");
    }
    if (bits / 8 > Q2_BITMAP_BYTES_MAX) {
        return error_set(errp, EINVAL,
                         "Too much space will be occupied by the bitmap. Use larger granularity");
    }
    return 0;
}

static int can_store(BlockDriverState *bs, const char *name, uint64_t granularity_bytes,
                     Error **errp)
{
    struct qcow2 *s = q2_of(bs);
    uint64_t names = Q2_BITMAP_ENTRY_BYTES + strlen(name);
    BdrvDirtyBitmap *bitmap = NULL;
    uint32_t count = 0;
    int ret;

    if (s->geo.version < 3) {
        return error_set(errp, ENOTSUP, "Cannot store dirty bitmaps in qcow2 v2 files");
    }
    if (strlen(name) > Q2_BITMAP_NAME_BYTES_MAX) {
        return error_set(errp, EINVAL, "Name length exceeds maximum (%d characters)",
                         Q2_BITMAP_NAME_BYTES_MAX);
    }
    ret = check_size(q2_disk_bytes(s), granularity_bytes, errp);
    if (ret < 0) {
        return ret;
    }
    while ((bitmap = bdrv_bitmap_next(bs, bitmap)) != NULL) {
        struct bdrv_bitmap_info info;

        if (bdrv_bitmap_state(bitmap) & BDRV_BITMAP_STATE_PERSISTENT) {
            bdrv_bitmap_get_info(bitmap, &info);
            names += align_up(Q2_BITMAP_ENTRY_BYTES + strlen(info.name), 8);
            count++;
        }
    }
    if (count >= Q2_BITMAPS_MAX || names > Q2_BITMAP_DIRECTORY_BYTES_MAX) {
        return error_set(errp, EFBIG, "The image has as many bitmaps as it can hold");
    }
    return 0;
}

static int can_resize(BlockDriverState *bs, uint64_t disk_bytes, Error **errp)
{
    BdrvDirtyBitmap *bitmap = NULL;
    int ret = 0;

    while (ret == 0 && (bitmap = bdrv_bitmap_next(bs, bitmap)) != NULL) {
        struct bdrv_bitmap_info info;

        if (bdrv_bitmap_state(bitmap) & BDRV_BITMAP_STATE_PERSISTENT) {
            bdrv_bitmap_get_info(bitmap, &info);
            ret = check_size(disk_bytes, info.granularity_bytes, errp);
            if (ret < 0) {
                error_prepend(errp, "Bitmap '%s' does not fit the new size: ", info.name);
            }
        }
    }
    return ret;
}

static void tell_stored(BlockDriverState *bs)
{
    BdrvDirtyBitmap *bitmap = NULL;

    while ((bitmap = bdrv_bitmap_next(bs, bitmap)) != NULL) {
        unsigned state = bdrv_bitmap_state(bitmap);

        if ((state & BDRV_BITMAP_STATE_PERSISTENT) && !(state & BDRV_BITMAP_STATE_INCONSISTENT)) {
            bdrv_bitmap_set_stored(bitmap);
        }
    }
}

int q2_bitmaps_store_co(struct qcow2 *s, Error **errp)
{
    bool done = false;
    int ret = q2_bitmaps_write_co(s, NULL, &done, errp);

    if (ret == 0 && done) {
        tell_stored(s->bs);
    }
    return ret;
}

static int store_entry_co(void *opaque)
{
    const struct store_args *args = opaque;

    return q2_bitmaps_store_co(args->s, args->errp);
}

int q2_bitmaps_reopen_prepare(struct qcow2 *s, int new_flags, Error **errp)
{
    bool was_writable = (bdrv_open_flags(s->bs) & BDRV_O_RDWR) != 0;
    bool writable = (new_flags & BDRV_O_RDWR) != 0;
    struct store_args args = {.s = s, .errp = errp};
    int ret;

    if (s->bitmaps == NULL || was_writable == writable) {
        return 0;
    }
    if (writable) {
        return s->bitmaps->unread
                   ? error_set(errp, EINVAL,
                               "The image has bitmaps, which were not read when it was opened")
                   : 0;
    }
    ret = bdrv_run_co(store_entry_co, &args);
    if (ret == -ENOMEM && errp != NULL && *errp == NULL) {
        error_set(errp, ENOMEM, "out of memory");
    }
    return ret;
}

static int store_co(BlockDriverState *bs, Error **errp)
{
    return q2_bitmaps_store_co(q2_of(bs), errp);
}

static int remove_co(BlockDriverState *bs, const BdrvDirtyBitmap *bitmap, Error **errp)
{
    bool done;

    return q2_bitmaps_write_co(q2_of(bs), bitmap, &done, errp);
}

/* ---- facts ---- */

static bool supported(const BlockDriverState *bs)
{
    const struct qcow2 *s = bdrv_opaque(bs);

    return s->geo.version >= 3;
}

static json_t *info_of(const struct q2_bitmap_entry *e)
{
    json_t *flags = json_array();
    int bad = 0;

    if (e->flags & Q2_BITMAP_IN_USE) {
        bad |= json_array_append_new(flags, json_string("in-use"));
    }
    if (e->flags & Q2_BITMAP_AUTO) {
        bad |= json_array_append_new(flags, json_string("auto"));
    }
    if (bad) {
        json_decref(flags);
        return NULL;
    }
    return json_pack("{s:o,s:o,s:I}", "flags", flags, "name", json_text(e->name), "granularity",
                     (json_int_t)1 << e->granularity_bits);
}

json_t *q2_bitmaps_info(struct qcow2 *s)
{
    json_t *list = json_array();

    for (uint32_t i = 0; s->bitmaps != NULL && i < s->bitmaps->dir.count; i++) {
        if (json_array_append_new(list, info_of(&s->bitmaps->dir.entries[i])) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

bool q2_bitmaps_measure(BlockDriverState *source, uint64_t disk_bytes, uint32_t cluster_bytes,
                        uint64_t *ret_bytes)
{
    unsigned cluster_bits = (unsigned)__builtin_ctz(cluster_bytes);
    BdrvDirtyBitmap *bitmap = NULL;
    uint64_t directory = 0;
    uint64_t bytes = 0;

    if (!bdrv_stores_bitmaps(source)) {
        return false;
    }
    while ((bitmap = bdrv_bitmap_next(source, bitmap)) != NULL) {
        struct bdrv_bitmap_info info;
        uint64_t clusters;

        if (!(bdrv_bitmap_state(bitmap) & BDRV_BITMAP_STATE_PERSISTENT)) {
            continue;
        }
        bdrv_bitmap_get_info(bitmap, &info);
        clusters = q2_bitmap_table_entries(
            disk_bytes, (unsigned)__builtin_ctzll(info.granularity_bytes), cluster_bits);
        bytes += (clusters << cluster_bits) + align_up(clusters * 8, cluster_bytes);
        directory += align_up(Q2_BITMAP_ENTRY_BYTES + strlen(info.name), 8);
    }
    *ret_bytes = bytes + align_up(directory, cluster_bytes);
    return true;
}

const struct bdrv_bitmap_ops q2_bitmap_ops = {
    .supported = supported,
    .can_store = can_store,
    .can_resize = can_resize,
    .flag_co = flag_co,
    .store_co = store_co,
    .remove_co = remove_co,
};
