/* SPDX-License-Identifier: MIT */
/* What one may ask a node: names, size, flags, and what its driver or those below it know. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/graph_int.h"
#include "util/checked.h"
#include "util/error.h"

#define SECTOR_BYTES 512

BlockDriverState *bdrv_find_node(Platter *pl, const char *node_name)
{
    void *owner = NULL;

    assert(instance_in_control_thread(pl));
    return instance_name_find(pl, node_name, &owner) == INSTANCE_NAME_NODE ? owner : NULL;
}

BlockDriverState *bdrv_next_node(Platter *pl, BlockDriverState *bs)
{
    assert(instance_in_control_thread(pl));
    return bs != NULL ? TAILQ_NEXT(bs, in_instance) : TAILQ_FIRST(&pl->nodes);
}

const char *bdrv_get_node_name(const BlockDriverState *bs)
{
    return bs->node_name;
}

const char *bdrv_get_format_name(const BlockDriverState *bs)
{
    return bs->drv != NULL ? bs->drv->format_name : "";
}

bool bdrv_format_probed(const BlockDriverState *bs)
{
    return bs->probed;
}

bool bdrv_is_read_only(const BlockDriverState *bs)
{
    return bs->read_only;
}

bool bdrv_is_inserted(BlockDriverState *bs)
{
    while (bs->drv != NULL && bs->drv->is_inserted == NULL) {
        if (bs->file == NULL) {
            return true;
        }
        bs = bs->file->bs;
    }
    return bs->drv != NULL && bs->drv->is_inserted(bs);
}

bool bdrv_is_sg(const BlockDriverState *bs)
{
    return bs->through->sg;
}

int bdrv_get_flags(const BlockDriverState *bs)
{
    return bs->open_flags;
}

const char *bdrv_broken_reason(const BlockDriverState *bs)
{
    return atomic_load_explicit(&bs->broken, memory_order_acquire);
}

uint32_t bdrv_size_unit(const BlockDriverState *bs)
{
    return bs->pl->whole_sectors && (bs->caps & BDRV_CAP_ZERO_TAIL) ? SECTOR_BYTES : 1;
}

bool bdrv_snapshots_fit_disk(const BlockDriverState *bs)
{
    return bs->pl->snapshots_fit_disk;
}

uint32_t bdrv_copy_unit(const Platter *pl, const BlockDriverState *bs)
{
    return pl->whole_sectors || (bs != NULL && (bs->caps & BDRV_CAP_SECTORS)) ? SECTOR_BYTES : 1;
}

int64_t bdrv_size_told(const BlockDriverState *bs, int64_t size_bytes)
{
    return size_bytes < 0 || size_bytes > INT64_MAX - SECTOR_BYTES
               ? size_bytes
               : (int64_t)align_up((uint64_t)size_bytes, bdrv_size_unit(bs));
}

int64_t bdrv_getlength(BlockDriverState *bs)
{
    return atomic_load_explicit(&bs->size_bytes, memory_order_acquire);
}

/* What a folded node is written goes past it. */
uint64_t bdrv_get_wr_highest_offset(BlockDriverState *bs)
{
    return atomic_load_explicit(&bs->through->wr_highest, memory_order_relaxed);
}

int64_t bdrv_get_allocated_file_size(BlockDriverState *bs)
{
    while (bs->drv != NULL && bs->drv->get_allocated_file_size == NULL) {
        /* As the reference: what is below blkdebug, its 'image', is not looked at. */
        if (bs->file == NULL || strcmp(bs->file->name, "file") != 0) {
            return -ENOTSUP;
        }
        bs = bs->file->bs;
    }
    return bs->drv != NULL ? bs->drv->get_allocated_file_size(bs) : -ENOMEDIUM;
}

bool bdrv_get_discard_stats(BlockDriverState *bs, struct bdrv_discard_stats *ret_stats)
{
    if (bs->drv == NULL || bs->drv->get_discard_stats == NULL) {
        return false;
    }
    bs->drv->get_discard_stats(bs, ret_stats);
    return true;
}

const struct bdrv_limits *bdrv_get_limits(const BlockDriverState *bs)
{
    return &bs->bl;
}

int bdrv_get_info(BlockDriverState *bs, struct bdrv_info *ret_info)
{
    struct bdrv_info info = {0};
    int rc;

    while (bs->drv != NULL && bs->drv->get_info == NULL) {
        if (!(bs->caps & BDRV_CAP_FILTER) || bs->file == NULL) {
            return -ENOTSUP;
        }
        bs = bs->file->bs;
    }
    if (bs->drv == NULL) {
        return -ENOMEDIUM;
    }
    rc = bs->drv->get_info(bs, &info);
    if (rc == 0) {
        *ret_info = info;
    }
    return rc;
}

bool bdrv_can_compress(const BlockDriverState *bs)
{
    return (bs->caps & BDRV_CAP_COMPRESSED) != 0;
}

uint64_t bdrv_compressed_cluster_bytes(BlockDriverState *bs)
{
    struct node_walk walk = node_walk_begin(bs->pl);
    uint64_t bytes = 0;

    node_walk_add_below(&walk, bs);
    for (BlockDriverState *at = walk.first; at != NULL; at = at->walk.next) {
        struct bdrv_info info = {0};

        if ((at->drv->caps & BDRV_CAP_COMPRESSED) && bdrv_get_info(at, &info) == 0) {
            bytes = max_u64(bytes, info.cluster_size_bytes);
        }
    }
    return bytes;
}

const char *bdrv_get_engine_name(const BlockDriverState *bs)
{
    while (!bs->has_engine) {
        if (bs->file == NULL) {
            return NULL;
        }
        bs = bs->file->bs;
    }
    switch (bs->engine) {
    case AIO_ENGINE_THREADS:
        return "threads";
    case AIO_ENGINE_IO_URING:
        return "io_uring";
    case AIO_ENGINE_AUTO:
        break;
    }
    return aio_context_engine_name(bs->pl->main_ctx);
}

/* ---- for drivers, at open ---- */

Platter *bdrv_platter(const BlockDriverState *bs)
{
    return bs->pl;
}

struct mem_budget *bdrv_budget(const BlockDriverState *bs)
{
    return &bs->pl->budget;
}

int bdrv_open_flags(const BlockDriverState *bs)
{
    return bs->open_flags;
}

void bdrv_set_caps(BlockDriverState *bs, unsigned caps)
{
    bs->caps = caps;
}

int bdrv_apply_auto_read_only(BlockDriverState *bs, const char *why, Error **errp)
{
    if (!(bs->open_flags & BDRV_O_RDWR)) {
        return 0;
    }
    if (!(bs->open_flags & BDRV_O_AUTO_RDONLY)) {
        return error_set(errp, EACCES, "%s", why);
    }
    bs->open_flags &= ~BDRV_O_RDWR;
    bs->read_only = true;
    return 0;
}

void bdrv_set_filename(BlockDriverState *bs, const char *filename)
{
    free(bs->filename);
    bs->filename = strdup(filename); /* without memory the node has none and json: shows */
}

void bdrv_set_engine(BlockDriverState *bs, enum aio_engine engine)
{
    bs->engine = engine;
    bs->has_engine = true;
}
