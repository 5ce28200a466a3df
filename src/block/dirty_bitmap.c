/* SPDX-License-Identifier: MIT */
/*
 * Dirty bitmaps: making, changing and removing them, and their way into the image and back. The
 * control thread's part; dirty_mark.c is that of requests.
 *
 * Invariants
 *  D1 a node's list of bitmaps changes while the node is drained; requests read it without a lock.
 *  D2 a node that has bitmaps, or a threshold, is not folded away: every change passes it.
 *  D3 a bitmap that is gone here is gone from the image too before the next change of the disk:
 *     what the image still had would miss that change.
 *  D4 the bitmaps of the image stand in the list in the image's order, new ones after them.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "block/dirty_bitmap.h"
#include "block/graph_int.h"
#include "block/image.h"
#include "block/request.h"
#include "util/checked.h"
#include "util/error.h"

#define GRANULARITY_BITS_MIN 9
#define GRANULARITY_BITS_MAX 31
#define DEFAULT_BYTES_MIN (UINT64_C(4) << 10)
#define DEFAULT_BYTES_MAX (UINT64_C(64) << 10)

/* ---- what may be done ---- */

static int refuse_read_only(const BdrvDirtyBitmap *bitmap, Error **errp)
{
    return !bitmap->persistent || !bitmap->bs->read_only
               ? 0
               : error_set(errp, EPERM, "Bitmap '%s' is read-only and cannot be modified",
                           bitmap->name);
}

int bitmap_may_change(const BdrvDirtyBitmap *bitmap, Error **errp)
{
    int ret = bitmap_refuse_busy(bitmap, errp);

    if (ret == 0) {
        ret = refuse_read_only(bitmap, errp);
    }
    return ret == 0 ? bitmap_refuse_inconsistent(bitmap, errp) : ret;
}

/* ---- begin and end ---- */

struct bdrv_bitmaps *bdrv_bitmaps_of(BlockDriverState *bs)
{
    if (bs->bitmaps == NULL) {
        struct bdrv_bitmaps *bitmaps = calloc(1, sizeof(*bitmaps));

        if (bitmaps == NULL) {
            return NULL;
        }
        TAILQ_INIT(&bitmaps->list);
        co_mutex_init(&bitmaps->lock);
        bs->bitmaps = bitmaps;
    }
    return bs->bitmaps;
}

static BdrvDirtyBitmap *bitmap_new(BlockDriverState *bs, const char *name,
                                   unsigned granularity_bits, Error **errp)
{
    BdrvDirtyBitmap *bitmap = calloc(1, sizeof(*bitmap));

    if (bitmap != NULL && name != NULL) {
        bitmap->name = strdup(name);
    }
    if (bitmap == NULL || (name != NULL && bitmap->name == NULL)) {
        error_set(errp, ENOMEM, "out of memory for a bitmap");
        free(bitmap);
        return NULL;
    }
    bitmap->bs = bs;
    bitmap->granularity_bits = granularity_bits;
    bitmap_init(&bitmap->bits, bdrv_budget(bs));
    return bitmap;
}

static void bitmap_free(BdrvDirtyBitmap *bitmap)
{
    bitmap_fini(&bitmap->bits);
    free(bitmap->name);
    free(bitmap);
}

/* Keeps D1 and D2. A node that is being opened has no requests yet, and is folded later. */
static int bitmap_link(BdrvDirtyBitmap *bitmap, Error **errp)
{
    BlockDriverState *bs = bitmap->bs;
    bool open = bs->opening == NULL;
    struct bdrv_bitmaps *bitmaps;

    if (open) {
        bdrv_drained_begin(bs);
    }
    bitmaps = bdrv_bitmaps_of(bs);
    if (bitmaps != NULL) {
        TAILQ_INSERT_TAIL(&bitmaps->list, bitmap, in_node);
        bdrv_bitmaps_flag_again(bs);
    }
    if (open) {
        graph_fold(bs);
        bdrv_drained_end(bs);
    }
    return bitmaps != NULL ? 0 : error_set(errp, ENOMEM, "out of memory for a bitmap");
}

static void bitmap_unlink(BdrvDirtyBitmap *bitmap)
{
    BlockDriverState *bs = bitmap->bs;

    bdrv_drained_begin(bs);
    TAILQ_REMOVE(&bs->bitmaps->list, bitmap, in_node);
    bdrv_bitmaps_tidy(bs);
    graph_fold(bs);
    bdrv_drained_end(bs);
    bitmap_free(bitmap);
}

bool bdrv_is_watched(const BlockDriverState *bs)
{
    return bdrv_has_bitmaps(bs) ||
           (bs->bitmaps != NULL && atomic_load(&bs->bitmaps->write_threshold) != 0);
}

void bdrv_bitmaps_tidy(BlockDriverState *bs)
{
    if (bs->bitmaps != NULL && !bdrv_is_watched(bs)) {
        free(bs->bitmaps);
        bs->bitmaps = NULL;
    }
}

void bdrv_bitmap_drop(BdrvDirtyBitmap *bitmap)
{
    bitmap_unlink(bitmap);
}

void bdrv_bitmaps_fini(BlockDriverState *bs)
{
    BdrvDirtyBitmap *bitmap;

    if (bs->bitmaps == NULL) {
        return;
    }
    while ((bitmap = TAILQ_FIRST(&bs->bitmaps->list)) != NULL) {
        TAILQ_REMOVE(&bs->bitmaps->list, bitmap, in_node);
        bitmap_free(bitmap);
    }
    free(bs->bitmaps);
    bs->bitmaps = NULL;
}

bool bdrv_has_bitmaps(const BlockDriverState *bs)
{
    return bs->bitmaps != NULL && !TAILQ_EMPTY(&bs->bitmaps->list);
}

/* ---- create ---- */

static uint64_t default_granularity(BlockDriverState *bs)
{
    struct bdrv_info info = {0};

    if (bdrv_get_info(bs, &info) < 0 || !is_pow2(info.cluster_size_bytes)) {
        return DEFAULT_BYTES_MAX;
    }
    return min_u64(max_u64(info.cluster_size_bytes, DEFAULT_BYTES_MIN), DEFAULT_BYTES_MAX);
}

static int check_name(BlockDriverState *bs, const char *name, Error **errp)
{
    if (name == NULL) {
        return 0;
    }
    if (*name == '\0') {
        return error_set(errp, EINVAL, "Bitmap name cannot be empty");
    }
    if (strlen(name) > BDRV_BITMAP_NAME_BYTES_MAX) {
        return error_set(errp, EINVAL, "Bitmap name is longer than %d bytes",
                         BDRV_BITMAP_NAME_BYTES_MAX);
    }
    return 0;
}

static int check_persistent(BlockDriverState *bs, const char *name, uint64_t granularity_bytes,
                            Error **errp)
{
    int ret;

    if (name == NULL) {
        return error_set(errp, EINVAL, "A persistent bitmap needs a name");
    }
    if (bs->drv == NULL || bs->drv->bitmap == NULL) {
        return error_set(errp, ENOTSUP,
                         "Can't store persistent bitmaps to %s: Operation not supported",
                         bdrv_get_told_name(bs));
    }
    if (bs->read_only) {
        return error_set(errp, EPERM, "Can't store persistent bitmaps to %s: it is read-only",
                         bdrv_get_told_name(bs));
    }
    ret = bs->drv->bitmap->can_store(bs, name, granularity_bytes, errp);
    if (ret < 0) {
        error_prepend(errp, "Can't make bitmap '%s' persistent in '%s': ", name,
                      bdrv_get_told_name(bs));
    }
    return ret;
}

static int check_create(BlockDriverState *bs, const char *name, uint64_t granularity_bytes,
                        unsigned flags, Error **errp)
{
    int ret = check_name(bs, name, errp);

    if (ret < 0) {
        return ret;
    }
    if (flags & ~(unsigned)(BDRV_BITMAP_PERSISTENT | BDRV_BITMAP_DISABLED)) {
        return error_set(errp, EINVAL, "Unknown flags 0x%x for a bitmap", flags);
    }
    if (!is_pow2(granularity_bytes) || granularity_bytes < (UINT64_C(1) << GRANULARITY_BITS_MIN) ||
        granularity_bytes > (UINT64_C(1) << GRANULARITY_BITS_MAX)) {
        return error_set(errp, EINVAL, "Granularity must be power of 2 and at least 512");
    }
    if (flags & BDRV_BITMAP_PERSISTENT) {
        ret = check_persistent(bs, name, granularity_bytes, errp);
    }
    return ret == 0 && name != NULL && bdrv_bitmap_find(bs, name) != NULL
               ? error_set(errp, EEXIST, "Bitmap already exists: %s", name)
               : ret;
}

BdrvDirtyBitmap *bdrv_bitmap_create(BlockDriverState *bs, const char *name,
                                    uint64_t granularity_bytes, unsigned flags, Error **errp)
{
    BdrvDirtyBitmap *bitmap;

    instance_control(bs->pl);
    if (granularity_bytes == 0) {
        granularity_bytes = default_granularity(bs);
    }
    if (check_create(bs, name, granularity_bytes, flags, errp) < 0) {
        return NULL;
    }
    bitmap = bitmap_new(bs, name, (unsigned)__builtin_ctzll(granularity_bytes), errp);
    if (bitmap == NULL) {
        return NULL;
    }
    bitmap->persistent = (flags & BDRV_BITMAP_PERSISTENT) != 0;
    atomic_store(&bitmap->recording, !(flags & BDRV_BITMAP_DISABLED));
    if (bitmap_link(bitmap, errp) < 0) {
        bitmap_free(bitmap);
        return NULL;
    }
    return bitmap;
}

/* ---- facts ---- */

BdrvDirtyBitmap *bdrv_bitmap_next(BlockDriverState *bs, BdrvDirtyBitmap *bitmap)
{
    if (bitmap != NULL) {
        return TAILQ_NEXT(bitmap, in_node);
    }
    return bs->bitmaps != NULL ? TAILQ_FIRST(&bs->bitmaps->list) : NULL;
}

BdrvDirtyBitmap *bdrv_bitmap_find(BlockDriverState *bs, const char *name)
{
    BdrvDirtyBitmap *bitmap = bdrv_bitmap_next(bs, NULL);

    while (bitmap != NULL && (bitmap->name == NULL || strcmp(bitmap->name, name) != 0)) {
        bitmap = bdrv_bitmap_next(bs, bitmap);
    }
    return bitmap;
}

static uint64_t granules(const BdrvDirtyBitmap *bitmap, uint64_t bytes)
{
    return (bytes + (UINT64_C(1) << bitmap->granularity_bits) - 1) >> bitmap->granularity_bits;
}

/* Bits of the disk. */
static uint64_t bitmap_bits(const BdrvDirtyBitmap *bitmap)
{
    return granules(bitmap, bdrv_node_size(bitmap->bs));
}

void bdrv_bitmap_get_info(const BdrvDirtyBitmap *bitmap, struct bdrv_bitmap_info *ret_info)
{
    uint64_t dirty = bitmap->inconsistent ? 0 : bitmap_count(&bitmap->bits, 0, bitmap_bits(bitmap));

    *ret_info = (struct bdrv_bitmap_info){
        .name = bitmap->name,
        .granularity_bytes = UINT64_C(1) << bitmap->granularity_bits,
        .dirty_bytes = dirty << bitmap->granularity_bits,
        .recording = atomic_load(&bitmap->recording),
        .busy = bitmap->busy > 0,
        .persistent = bitmap->persistent,
        .inconsistent = bitmap->inconsistent,
        .in_use = atomic_load(&bitmap->in_use),
    };
}

void bdrv_bitmap_set_busy(BdrvDirtyBitmap *bitmap, bool busy)
{
    bitmap->busy += busy ? 1 : -1;
    assert(bitmap->busy >= 0);
}

/* ---- changes ---- */

static int set_recording(BdrvDirtyBitmap *bitmap, bool recording, Error **errp)
{
    int ret = bitmap_may_change(bitmap, errp);

    instance_control(bitmap->bs->pl);
    if (ret == 0 && atomic_load(&bitmap->recording) != recording) {
        atomic_store(&bitmap->recording, recording);
        bdrv_bitmaps_flag_again(bitmap->bs);
    }
    return ret;
}

int bdrv_bitmap_enable(BdrvDirtyBitmap *bitmap, Error **errp)
{
    return set_recording(bitmap, true, errp);
}

int bdrv_bitmap_disable(BdrvDirtyBitmap *bitmap, Error **errp)
{
    return set_recording(bitmap, false, errp);
}

int bdrv_bitmap_clear(BdrvDirtyBitmap *bitmap, Error **errp)
{
    int ret = bitmap_may_change(bitmap, errp);

    if (ret == 0) {
        bdrv_drained_begin(bitmap->bs);
        bitmap_fini(&bitmap->bits);
        atomic_store(&bitmap->changed, true);
        bdrv_drained_end(bitmap->bs);
    }
    return ret;
}

static void merge_scaled(BdrvDirtyBitmap *target, const BdrvDirtyBitmap *source)
{
    uint64_t offset = 0;
    uint64_t bytes = 0;

    while (bdrv_bitmap_next_dirty(source, offset + bytes, INT64_MAX, &offset, &bytes)) {
        bdrv_bitmap_set(target, offset, bytes);
    }
}

int bdrv_bitmap_merge(BdrvDirtyBitmap *target, const BdrvDirtyBitmap *source, Error **errp)
{
    uint64_t target_bytes = bdrv_node_size(target->bs);
    uint64_t source_bytes = bdrv_node_size(source->bs);
    int ret = bitmap_may_change(target, errp);

    instance_control(target->bs->pl);
    if (ret == 0) {
        ret = bitmap_refuse_busy(source, errp);
    }
    if (ret == 0) {
        ret = bitmap_refuse_inconsistent(source, errp);
    }
    if (ret < 0) {
        return ret;
    }
    if (target_bytes != source_bytes) {
        return error_set(errp, EINVAL,
                         "Bitmaps are of different sizes (destination size is %" PRIu64
                         ", source size is %" PRIu64 ") and can't be merged",
                         target_bytes, source_bytes);
    }
    if (target->granularity_bits == source->granularity_bits) {
        bitmap_merge(&target->bits, &source->bits, bitmap_bits(source));
        atomic_store(&target->changed, true);
    } else {
        merge_scaled(target, source);
    }
    return 0;
}

/* ---- the size ---- */

void bdrv_bitmaps_shrink(BlockDriverState *bs, uint64_t size_bytes)
{
    BdrvDirtyBitmap *bitmap;

    TAILQ_FOREACH (bitmap, &bs->bitmaps->list, in_node) {
        uint64_t first = granules(bitmap, size_bytes);

        /* without memory some stay set, which is too much and not too little */
        (void)bitmap_reset(&bitmap->bits, first,
                           (UINT64_C(1) << (63 - bitmap->granularity_bits)) - first);
    }
}

/* ---- the image ---- */

static bool has_bitmap_ops(const BlockDriver *drv)
{
    return drv->bitmap != NULL;
}

static int remove_run_co(BlockDriverState *bs, void *args, Error **errp)
{
    return bs->drv->bitmap->remove_co(bs, args, errp);
}

static const struct image_op op_remove = {
    .name = "removing bitmaps",
    .perm = BDRV_PERM_WRITE_UNCHANGED,
    .has = has_bitmap_ops,
    .run_co = remove_run_co,
};

int bdrv_bitmap_remove(BdrvDirtyBitmap *bitmap, Error **errp)
{
    int ret = bitmap_refuse_busy(bitmap, errp);

    if (ret == 0) {
        ret = refuse_read_only(bitmap, errp);
    }
    if (ret == 0 && bitmap->persistent) {
        /* D3; after a store that failed the image may have it although it is not STORED */
        ret = image_run(bitmap->bs, &op_remove, bitmap, errp);
    }
    if (ret == 0) {
        bitmap_unlink(bitmap);
    }
    return ret;
}

static int store_run_co(BlockDriverState *bs, void *args, Error **errp)
{
    return bs->drv->bitmap->store_co(bs, errp);
}

static const struct image_op op_store = {
    .name = "storing bitmaps",
    .perm = BDRV_PERM_WRITE_UNCHANGED,
    .has = has_bitmap_ops,
    .run_co = store_run_co,
};

int bdrv_bitmaps_store(BlockDriverState *bs, Error **errp)
{
    return bdrv_has_bitmaps(bs) && bs->drv->bitmap != NULL && !bs->read_only
               ? image_run(bs, &op_store, NULL, errp)
               : 0;
}

/* ---- the driver's side ---- */

bool bdrv_stores_bitmaps(const BlockDriverState *bs)
{
    return bs->drv != NULL && bs->drv->bitmap != NULL && bs->drv->bitmap->supported(bs);
}

BdrvDirtyBitmap *bdrv_bitmap_load(BlockDriverState *bs, const char *name, unsigned granularity_bits,
                                  unsigned state, Error **errp)
{
    BdrvDirtyBitmap *bitmap = bitmap_new(bs, name, granularity_bits, errp);

    if (bitmap == NULL) {
        return NULL;
    }
    bitmap->persistent = true;
    bitmap->stored = true;
    bitmap->inconsistent = (state & BDRV_BITMAP_STATE_INCONSISTENT) != 0;
    atomic_store(&bitmap->recording, (state & BDRV_BITMAP_STATE_RECORDING) != 0);
    atomic_store(&bitmap->in_use, (state & BDRV_BITMAP_STATE_IN_USE) != 0);
    if (bitmap_link(bitmap, errp) < 0) {
        bitmap_free(bitmap);
        return NULL;
    }
    return bitmap;
}

unsigned bdrv_bitmap_state(const BdrvDirtyBitmap *bitmap)
{
    unsigned state = 0;

    state |= bitmap->persistent ? BDRV_BITMAP_STATE_PERSISTENT : 0;
    state |= bitmap->stored ? BDRV_BITMAP_STATE_STORED : 0;
    state |= bitmap->inconsistent ? BDRV_BITMAP_STATE_INCONSISTENT : 0;
    state |= atomic_load(&bitmap->recording) ? BDRV_BITMAP_STATE_RECORDING : 0;
    state |= atomic_load(&bitmap->in_use) ? BDRV_BITMAP_STATE_IN_USE : 0;
    state |= atomic_load(&bitmap->changed) ? BDRV_BITMAP_STATE_CHANGED : 0;
    return state;
}

void bdrv_bitmap_set_in_use(BdrvDirtyBitmap *bitmap)
{
    atomic_store(&bitmap->in_use, true);
}

void bdrv_bitmap_set_stored(BdrvDirtyBitmap *bitmap)
{
    bitmap->stored = true;
    atomic_store(&bitmap->in_use, false);
    atomic_store(&bitmap->changed, false);
    bdrv_bitmaps_flag_again(bitmap->bs);
}

void bdrv_bitmap_set_inconsistent(BdrvDirtyBitmap *bitmap)
{
    bitmap->inconsistent = true;
    bitmap_fini(&bitmap->bits);
}

bool bdrv_bitmap_is_clear(const BdrvDirtyBitmap *bitmap, uint64_t first_bit, uint64_t bits)
{
    uint64_t bit;

    return !bitmap_next_set(&bitmap->bits, first_bit, first_bit + bits, &bit);
}

void bdrv_bitmap_export(const BdrvDirtyBitmap *bitmap, uint64_t first_bit, uint64_t bits,
                        uint8_t *ret_bytes)
{
    bitmap_export(&bitmap->bits, first_bit, bits, ret_bytes);
}

void bdrv_bitmap_import(BdrvDirtyBitmap *bitmap, uint64_t first_bit, uint64_t bits,
                        const uint8_t *bytes)
{
    if (bytes == NULL) {
        bitmap_set(&bitmap->bits, first_bit, bits);
    } else {
        bitmap_import(&bitmap->bits, first_bit, bits, bytes);
    }
}
