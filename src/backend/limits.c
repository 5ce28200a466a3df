/* SPDX-License-Identifier: MIT */
/*
 * Size, geometry and limits of the medium, and memory that suits it.
 */
#include "backend/backend_int.h"

#include <stdlib.h>

/* Alignment of buffers for nobody knows what. */
#define MEM_ALIGN_DEFAULT 4096u

int64_t blk_getlength(BlockBackend *blk)
{
    struct blk_facts facts;

    blk_facts_get(blk, &facts);
    if (!facts.has_root || !facts.inserted || facts.tray_open) {
        return -ENOMEDIUM;
    }
    return facts.size_bytes;
}

int64_t blk_nb_sectors(BlockBackend *blk)
{
    int64_t size_bytes = blk_getlength(blk);

    return size_bytes < 0 ? size_bytes : size_bytes >> BDRV_SECTOR_BITS;
}

/* Looks at neither tray nor medium: a drive with an open tray still shows the size. */
void blk_get_geometry(BlockBackend *blk, uint64_t *nb_sectors_ptr)
{
    struct blk_facts facts;

    blk_facts_get(blk, &facts);
    *nb_sectors_ptr =
        facts.has_root && facts.size_bytes > 0 ? (uint64_t)facts.size_bytes >> BDRV_SECTOR_BITS : 0;
}

static bool has_probe_blocksizes(const BlockDriver *drv)
{
    return drv->probe_blocksizes != NULL;
}

int blk_probe_blocksizes(BlockBackend *blk, struct bdrv_block_sizes *ret_sizes)
{
    BlockDriverState *bs;

    BLK_ASSERT_CONTROL(blk->pl);
    if (!blk_is_available(blk)) {
        return -ENOMEDIUM;
    }
    bs = blk_find_below(blk, has_probe_blocksizes);
    return bs != NULL ? bs->drv->probe_blocksizes(bs, ret_sizes) : -ENOTSUP;
}

static bool has_probe_geometry(const BlockDriver *drv)
{
    return drv->probe_geometry != NULL;
}

int blk_probe_geometry(BlockBackend *blk, struct bdrv_geometry *ret_geo)
{
    BlockDriverState *bs;

    BLK_ASSERT_CONTROL(blk->pl);
    if (!blk_is_available(blk)) {
        return -ENOMEDIUM;
    }
    bs = blk_find_below(blk, has_probe_geometry);
    return bs != NULL ? bs->drv->probe_geometry(bs, ret_geo) : -ENOTSUP;
}

int blk_get_max_transfer_length(BlockBackend *blk)
{
    struct blk_facts facts;
    uint64_t sectors;

    blk_facts_get(blk, &facts);
    if (facts.max_transfer_bytes == 0) {
        return 0;
    }
    sectors = facts.max_transfer_bytes >> BDRV_SECTOR_BITS;
    if (sectors == 0) {
        return 1; /* less than a sector, but a limit */
    }
    return sectors > INT_MAX ? INT_MAX : (int)sectors;
}

uint32_t blk_get_request_alignment(BlockBackend *blk)
{
    struct blk_facts facts;

    blk_facts_get(blk, &facts);
    return facts.request_alignment;
}

void blk_set_guest_block_size(BlockBackend *blk, int align)
{
    BLK_ASSERT_CONTROL(blk->pl);
    blk->guest_block_size = align;
}

int blk_get_guest_block_size(const BlockBackend *blk)
{
    return blk->guest_block_size;
}

void *blk_blockalign(BlockBackend *blk, size_t size)
{
    size_t align = MEM_ALIGN_DEFAULT;
    struct blk_facts facts;
    void *buf;

    if (size > PTRDIFF_MAX) {
        return NULL; /* no object is that large; checkers of memory end the program over it */
    }
    if (blk != NULL) {
        blk_facts_get(blk, &facts);
        if (facts.has_root && facts.mem_alignment > sizeof(void *)) {
            align = facts.mem_alignment;
        }
    }
    if (posix_memalign(&buf, align, size > 0 ? size : 1) != 0) {
        return NULL;
    }
    return buf;
}

void blk_blockfree(void *buf)
{
    free(buf);
}

int blk_is_sg(BlockBackend *blk)
{
    struct blk_facts facts;

    blk_facts_get(blk, &facts);
    return facts.has_root && facts.sg;
}
